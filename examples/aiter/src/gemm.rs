//! Matrix products, and the softmax that chooses experts.
//!
//! A table for each family has the bindings of its code objects. What a launcher here does is what AITER's does: arguments
//! at multiples of 16 bytes (but for flatmm, whose are a plain C structure), 256 threads a block, a block for each tile.

use crate::launched;
use accuracy_core::prelude::*;

/// Rows, columns and depth of a product: `y [m, n] = x [m, k] w [n, k]ᵀ`.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub m: i32,
    pub n: i32,
    pub k: i32,
}

/// Rows and columns of the output that one block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub m: i32,
    pub n: i32,
}

impl Size {
    /// A block for each tile of the output and each part of the depth.
    fn grid(self, tile: Tile, depth_parts: i32, stream: Stream) -> Grid {
        let blocks = [parts(self.n, tile.n), parts(self.m, tile.m), depth_parts as u32];
        Grid { blocks, threads: [256, 1, 1], shared: 0, stream }
    }
}

/// Parts of at most `part` that `whole` is cut into.
fn parts(whole: i32, part: i32) -> u32 {
    u32::try_from(whole).unwrap_or(0).div_ceil(u32::try_from(part).unwrap_or(1).max(1))
}

/// The row of a table whose name is `name`.
fn find<T>(table: &'static [T], name: &str, of: impl Fn(&T) -> &'static str) -> Result<&'static T> {
    table.iter().find(|row| of(row) == name).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(&of).collect();
        Error::msg(format!("no kernel is called `{name}`; known: {}", known.join(", ")))
    })
}

type F4gemmKernel = unsafe fn(
    Grid,
    Padded<DevPtr<bf16>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<f32>,
    Padded<f32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
) -> Result<()>;

/// A product of MXFP4 operands, of which the weight is preshuffled.
pub struct F4gemm {
    pub name: &'static str,
    pub tile: Tile,
    /// Whether several blocks may share the depth and add to the output.
    pub splits: bool,
    kernel: F4gemmKernel,
}

macro_rules! f4gemm {
    ($($name:ident $m:literal $n:literal $splits:literal $file:tt $symbol:tt;)*) => {
        $(
            #[code_object($file)]
            unsafe extern "C" {
                #[link_name = $symbol]
                fn $name(
                    d: Padded<DevPtr<bf16>>,
                    c: Padded<DevPtr<f32>>,
                    a: Padded<DevPtr<u8>>,
                    b: Padded<DevPtr<u8>>,
                    alpha: Padded<f32>,
                    beta: Padded<f32>,
                    stride_d0: Padded<i32>,
                    stride_d1: Padded<i32>,
                    stride_c0: Padded<i32>,
                    stride_c1: Padded<i32>,
                    stride_a0: Padded<i32>,
                    stride_a1: Padded<i32>,
                    stride_b0: Padded<i32>,
                    stride_b1: Padded<i32>,
                    m: Padded<i32>,
                    n: Padded<i32>,
                    k: Padded<i32>,
                    scale_a: Padded<DevPtr<u8>>,
                    scale_b: Padded<DevPtr<u8>>,
                    stride_scale_a0: Padded<i32>,
                    stride_scale_a1: Padded<i32>,
                    stride_scale_b0: Padded<i32>,
                    stride_scale_b1: Padded<i32>,
                    log2_k_split: Padded<i32>,
                );
            }
        )*

        /// AITER's MXFP4 products for gfx950, whose weight is preshuffled.
        pub static F4GEMM: &[F4gemm] = &[$(F4gemm {
            name: stringify!($name),
            tile: Tile { m: $m, n: $n },
            splits: $splits,
            kernel: $name,
        }),*];
    };
}

f4gemm! {
    f4gemm_32x128 32 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x128" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x128E";
    f4gemm_32x256 32 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x256" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x256E";
    f4gemm_32x384 32 384 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x384" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x384E";
    f4gemm_32x512 32 512 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x512" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x512E";
    f4gemm_32x640 32 640 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x640" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x640E";
    f4gemm_32x768 32 768 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x768" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x768E";
    f4gemm_32x896 32 896 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x896" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_32x896E";
    f4gemm_32x1024 32 1024 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_32x1024" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_32x1024E";
    f4gemm_64x128 64 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x128" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x128E";
    f4gemm_64x256 64 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x256" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x256E";
    f4gemm_64x384 64 384 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x384" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x384E";
    f4gemm_64x512 64 512 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x512" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x512E";
    f4gemm_64x640 64 640 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x640" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x640E";
    f4gemm_64x768 64 768 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x768" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x768E";
    f4gemm_64x896 64 896 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x896" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_64x896E";
    f4gemm_64x1024 64 1024 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_64x1024" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_64x1024E";
    f4gemm_96x128 96 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_96x128" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_96x128E";
    f4gemm_96x256 96 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_96x256" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_96x256E";
    f4gemm_96x384 96 384 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_96x384" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_96x384E";
    f4gemm_96x512 96 512 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_96x512" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_96x512E";
    f4gemm_96x640 96 640 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_96x640" "_ZN5aiter41f4gemm_bf16_per1x32Fp4_BpreShuffle_96x640E";
    f4gemm_128x128 128 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_128x128" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_128x128E";
    f4gemm_128x256 128 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_128x256" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_128x256E";
    f4gemm_128x384 128 384 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_128x384" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_128x384E";
    f4gemm_128x512 128 512 true "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_128x512" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_128x512E";
    f4gemm_160x128 160 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_160x128" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_160x128E";
    f4gemm_160x256 160 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_160x256" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_160x256E";
    f4gemm_160x384 160 384 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_160x384" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_160x384E";
    f4gemm_192x128 192 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_192x128" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_192x128E";
    f4gemm_192x256 192 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_192x256" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_192x256E";
    f4gemm_224x128 224 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_224x128" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_224x128E";
    f4gemm_224x256 224 256 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_224x256" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_224x256E";
    f4gemm_256x128 256 128 false "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_256x128" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_256x128E";
    f4gemm_256x256 256 256 true "f4gemm.f4gemm_bf16_per1x32Fp4_BpreShuffle_256x256" "_ZN5aiter42f4gemm_bf16_per1x32Fp4_BpreShuffle_256x256E";
}

/// The MXFP4 product of that name, such as `f4gemm_32x128`.
///
/// # Errors
/// If there is none.
pub fn f4gemm(name: &str) -> Result<&'static F4gemm> {
    find(F4GEMM, name, |row| row.name)
}

/// Codes and e8m0 scales.
#[derive(Clone, Copy)]
pub struct Mxfp4 {
    pub codes: DevPtr<u8>,
    pub scales: DevPtr<u8>,
}

impl F4gemm {
    /// Launches `y = x wᵀ`. Where several blocks share the depth (`log2_k_split` above 0), they add to what `y` holds.
    /// A row of scales is `k / 32` bytes, `k` being a multiple of 256.
    ///
    /// # Errors
    /// If the code object is missing or the launch fails.
    ///
    /// # Safety
    /// `y` must hold `[m, n]` elements, the operands `[m, k]` and `[n, k]` codes and the scales that belong to them.
    pub unsafe fn launch(
        &self,
        y: DevPtr<bf16>,
        x: Mxfp4,
        w: Mxfp4,
        size: Size,
        log2_k_split: i32,
        stream: Stream,
    ) -> Result<()> {
        /// Blocks take multiples of so many columns.
        const STEP: i32 = 256;
        let Size { m, n, k } = size;
        let groups = k / 32;
        let part = parts(k >> log2_k_split, STEP) as i32 * STEP;
        let grid = size.grid(self.tile, parts(k, part) as i32, stream);
        let none = || 0.into();
        // SAFETY: the caller vouches for the buffers.
        launched(unsafe {
            (self.kernel)(
                grid,
                y.into(),
                DevPtr::null().into(),
                x.codes.into(),
                w.codes.into(),
                1.0.into(),
                0.0.into(),
                none(),
                none(),
                n.into(),
                none(),
                k.into(),
                none(),
                k.into(),
                none(),
                m.into(),
                n.into(),
                k.into(),
                x.scales.into(),
                w.scales.into(),
                groups.into(),
                none(),
                groups.into(),
                none(),
                log2_k_split.into(),
            )
        })
    }
}

#[code_object("f4gemm.f4gemm_bf16_per1x32Fp4_noBpreShuffle_256x256")]
unsafe extern "C" {
    /// The one MXFP4 product that takes its weight as it is.
    #[link_name = "_ZN5aiter44f4gemm_bf16_per1x32Fp4_noBpreShuffle_256x256E"]
    fn f4gemm_plain(
        d: Padded<DevPtr<bf16>>,
        c: Padded<DevPtr<f32>>,
        a: Padded<DevPtr<u8>>,
        b: Padded<DevPtr<u8>>,
        alpha: Padded<f32>,
        beta: Padded<f32>,
        stride_d0: Padded<i32>,
        stride_d1: Padded<i32>,
        stride_c0: Padded<i32>,
        stride_c1: Padded<i32>,
        stride_a0: Padded<i32>,
        stride_a1: Padded<i32>,
        stride_b0: Padded<i32>,
        stride_b1: Padded<i32>,
        m: Padded<i32>,
        n: Padded<i32>,
        k: Padded<i32>,
        scale_a: Padded<DevPtr<u8>>,
        scale_b: Padded<DevPtr<u8>>,
        stride_scale_a0: Padded<i32>,
        stride_scale_a1: Padded<i32>,
        stride_scale_b0: Padded<i32>,
        stride_scale_b1: Padded<i32>,
    );
}

/// Launches the MXFP4 product that takes its weight as it is. Its stores have no bound: it writes whole tiles of 256 rows.
///
/// # Errors
/// If the code object is missing or the launch fails.
///
/// # Safety
/// As [`F4gemm::launch`], and `y` must have rows up to a multiple of 256.
pub unsafe fn f4gemm_of_plain_weight(
    y: DevPtr<bf16>,
    x: Mxfp4,
    w: Mxfp4,
    size: Size,
    stream: Stream,
) -> Result<()> {
    let Size { m, n, k } = size;
    let grid = size.grid(Tile { m: 256, n: 256 }, 1, stream);
    let none = || 0.into();
    // SAFETY: the caller vouches for the buffers.
    launched(unsafe {
        f4gemm_plain(
            grid,
            y.into(),
            DevPtr::null().into(),
            x.codes.into(),
            w.codes.into(),
            1.0.into(),
            0.0.into(),
            none(),
            none(),
            n.into(),
            none(),
            k.into(),
            none(),
            k.into(),
            none(),
            m.into(),
            n.into(),
            k.into(),
            x.scales.into(),
            w.scales.into(),
            (k / 32).into(),
            none(),
            (k / 32).into(),
            none(),
        )
    })
}

type Mi350Kernel = unsafe fn(
    Grid,
    Padded<DevPtr<bf16>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<DevPtr<u8>>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<DevPtr<u8>>,
) -> Result<()>;

/// An FP8 product with scales of `1 × 128` groups and `128 × 128` blocks, for gfx950.
pub struct Mi350 {
    pub name: &'static str,
    pub tile: Tile,
    kernel: Mi350Kernel,
}

macro_rules! mi350 {
    ($($name:ident $m:literal $n:literal $file:tt $symbol:tt;)*) => {
        $(
            #[code_object($file)]
            unsafe extern "C" {
                #[link_name = $symbol]
                fn $name(
                    c: Padded<DevPtr<bf16>>,
                    x: Padded<DevPtr<u8>>,
                    w: Padded<DevPtr<u8>>,
                    xc: Padded<DevPtr<u8>>,
                    x_scale: Padded<DevPtr<f32>>,
                    w_scale: Padded<DevPtr<f32>>,
                    tmp0: Padded<DevPtr<u8>>,
                    tmp1: Padded<DevPtr<u8>>,
                    tmp2: Padded<DevPtr<u8>>,
                    k: Padded<i32>,
                    n: Padded<i32>,
                    m: Padded<i32>,
                    experts: Padded<i32>,
                    x_stride: Padded<i32>,
                    w_stride: Padded<i32>,
                    c_stride: Padded<i32>,
                    tmp3: Padded<i32>,
                    tmp4: Padded<i32>,
                    tmp5: Padded<i32>,
                    tmp6: Padded<i32>,
                    split_k: Padded<i32>,
                    activation: Padded<i32>,
                    tmp7: Padded<DevPtr<u8>>,
                );
            }
        )*

        /// AITER's FP8 block-scale products for gfx950.
        pub static MI350: &[Mi350] = &[$(Mi350 {
            name: stringify!($name),
            tile: Tile { m: $m, n: $n },
            kernel: $name,
        }),*];
    };
}

mi350! {
    blockscale_mi350_x32 32 256 "f8_block_scale_mi350_x32" "f8_block_scale_mi350_x32";
    blockscale_mi350_x64 64 256 "f8_block_scale_mi350_x64" "f8_block_scale_mi350_x64";
    blockscale_mi350_x96 96 256 "f8_block_scale_mi350_x96" "f8_block_scale_mi350_x96";
    blockscale_mi350_x128 128 256 "f8_block_scale_mi350_x128" "f8_block_scale_mi350_x128";
}

/// The FP8 block-scale product of that name, such as `blockscale_mi350_x128`.
///
/// # Errors
/// If there is none.
pub fn mi350(name: &str) -> Result<&'static Mi350> {
    find(MI350, name, |row| row.name)
}

/// Codes and float32 scales: FP8, or int8 as `Scaled<i8>`.
#[derive(Clone, Copy)]
pub struct Scaled<T = u8> {
    pub codes: DevPtr<T>,
    pub scales: DevPtr<f32>,
}

impl Mi350 {
    /// Launches `y = x wᵀ`. The scales of `x` are column-major; `w` is preshuffled in tiles of `16 × 32`, its scales are
    /// row-major, `[n / 128, k / 128]`.
    ///
    /// # Errors
    /// If the code object is missing or the launch fails.
    ///
    /// # Safety
    /// `y` must hold `[m, n]` elements, the operands `[m, k]` and `[n, k]` codes and the scales that belong to them.
    pub unsafe fn launch(
        &self,
        y: DevPtr<bf16>,
        x: Scaled,
        w: Scaled,
        size: Size,
        stream: Stream,
    ) -> Result<()> {
        let Size { m, n, k } = size;
        let none = || 0.into();
        let null = || DevPtr::null().into();
        // SAFETY: the caller vouches for the buffers.
        launched(unsafe {
            (self.kernel)(
                size.grid(self.tile, 1, stream),
                y.into(),
                x.codes.into(),
                w.codes.into(),
                null(),
                x.scales.into(),
                w.scales.into(),
                null(),
                null(),
                null(),
                k.into(),
                n.into(),
                m.into(),
                1.into(),
                k.into(),
                k.into(),
                (2 * n).into(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
                null(),
            )
        })
    }
}

#[code_object("flatmm_uk_gfx9_f16f8_128x256x128_1x4x1_16x16x32")]
unsafe extern "C" {
    /// The FP8 block-scale product for gfx942, whose FP8 is the FNUZ one.
    #[link_name = "flatmm_uk_gfx9_f16f8_128x256x128_1x4x1_16x16x32"]
    fn flatmm(
        a: DevPtr<u8>,
        b: DevPtr<u8>,
        c: DevPtr<u8>,
        a_scale: DevPtr<f32>,
        b_scale: DevPtr<f32>,
        d: DevPtr<u8>,
        d_f16: DevPtr<f16>,
        debug_int: DevPtr<u8>,
        debug_fp8: DevPtr<u8>,
        debug_f16: DevPtr<u8>,
        debug_fp32: DevPtr<u8>,
        k: i32,
        n: i32,
        m: i32,
        experts: i32,
        topk: i32,
        token_stride: i32,
    );
}

/// Launches `y = x wᵀ` on gfx942. The scales of both are column-major; `w` is preshuffled in tiles of `16 × 64`. `n` must
/// be a multiple of 256, `k` of 128; scales of `x` are read up to a multiple of 128 rows.
///
/// # Errors
/// If the code object is missing or the launch fails.
///
/// # Safety
/// `y` must hold `[m, n]` elements, the operands `[m, k]` and `[n, k]` codes and the scales that belong to them.
pub unsafe fn blockscale_flatmm(
    y: DevPtr<f16>,
    x: Scaled,
    w: Scaled,
    size: Size,
    stream: Stream,
) -> Result<()> {
    let Size { m, n, k } = size;
    let null = DevPtr::null;
    let grid = size.grid(Tile { m: 128, n: 256 }, 1, stream);
    // SAFETY: the caller vouches for the buffers.
    launched(unsafe {
        flatmm(
            grid,
            x.codes,
            w.codes,
            null(),
            x.scales,
            w.scales,
            null(),
            y,
            null(),
            null(),
            null(),
            null(),
            k,
            n,
            m,
            0,
            0,
            0,
        )
    })
}

type I8gemmKernel = unsafe fn(
    Grid,
    Padded<DevPtr<bf16>>,
    Padded<DevPtr<i8>>,
    Padded<DevPtr<i8>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<f32>>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
) -> Result<()>;

/// An int8 product with a scale for each token and each output channel, for gfx942.
pub struct I8gemm {
    pub name: &'static str,
    pub tile: Tile,
    kernel: I8gemmKernel,
}

macro_rules! i8gemm {
    ($($name:ident $m:literal $n:literal $file:tt $symbol:tt;)*) => {
        $(
            #[code_object($file)]
            unsafe extern "C" {
                #[link_name = $symbol]
                fn $name(
                    c: Padded<DevPtr<bf16>>,
                    a: Padded<DevPtr<i8>>,
                    b: Padded<DevPtr<i8>>,
                    a_scale: Padded<DevPtr<f32>>,
                    b_scale: Padded<DevPtr<f32>>,
                    bias: Padded<DevPtr<f32>>,
                    m: Padded<i32>,
                    n: Padded<i32>,
                    k: Padded<i32>,
                    lda: Padded<i32>,
                    ldb: Padded<i32>,
                    ldc: Padded<i32>,
                    k_split: Padded<i32>,
                );
            }
        )*

        /// AITER's int8 products for gfx942.
        pub static I8GEMM: &[I8gemm] = &[$(I8gemm {
            name: stringify!($name),
            tile: Tile { m: $m, n: $n },
            kernel: $name,
        }),*];
    };
}

i8gemm! {
    i8gemm_128x128 128 128 "i8gemm.I8gemm_bf16_perTokenI8_BpreShuffle_128x128" "_ZN5aiter42I8gemm_bf16_perTokenI8_BpreShuffle_128x128E";
    i8gemm_192x128 192 128 "i8gemm.I8gemm_bf16_perTokenI8_BpreShuffle_192x128" "_ZN5aiter42I8gemm_bf16_perTokenI8_BpreShuffle_192x128E";
}

/// The int8 product of that name, such as `i8gemm_128x128`.
///
/// # Errors
/// If there is none.
pub fn i8gemm(name: &str) -> Result<&'static I8gemm> {
    find(I8GEMM, name, |row| row.name)
}

impl I8gemm {
    /// Launches `y = x wᵀ + bias`. `w` is preshuffled in tiles of `32 × 32`; `bias` is `[1, n]`.
    ///
    /// # Errors
    /// If the code object is missing or the launch fails.
    ///
    /// # Safety
    /// `y` must hold `[m, n]` elements, the operands `[m, k]` and `[n, k]` codes and the scales that belong to them.
    pub unsafe fn launch(
        &self,
        y: DevPtr<bf16>,
        x: Scaled<i8>,
        w: Scaled<i8>,
        bias: DevPtr<f32>,
        size: Size,
        stream: Stream,
    ) -> Result<()> {
        let Size { m, n, k } = size;
        // SAFETY: the caller vouches for the buffers.
        launched(unsafe {
            (self.kernel)(
                size.grid(self.tile, 1, stream),
                y.into(),
                x.codes.into(),
                w.codes.into(),
                x.scales.into(),
                w.scales.into(),
                bias.into(),
                m.into(),
                n.into(),
                k.into(),
                k.into(),
                k.into(),
                (2 * n).into(),
                1.into(),
            )
        })
    }
}

type Bf16gemmKernel = unsafe fn(
    Grid,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<bf16>>,
    Padded<DevPtr<bf16>>,
    Padded<f32>,
    Padded<f32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
) -> Result<()>;

/// A bf16 product with a float32 output, for both architectures.
pub struct Bf16gemm {
    pub name: &'static str,
    pub tile: Tile,
    kernel: Bf16gemmKernel,
}

macro_rules! bf16gemm {
    ($($name:ident $m:literal $n:literal $file:tt $symbol:tt;)*) => {
        $(
            #[code_object($file)]
            unsafe extern "C" {
                #[link_name = $symbol]
                fn $name(
                    d: Padded<DevPtr<f32>>,
                    c: Padded<DevPtr<f32>>,
                    a: Padded<DevPtr<bf16>>,
                    b: Padded<DevPtr<bf16>>,
                    alpha: Padded<f32>,
                    beta: Padded<f32>,
                    stride_d0: Padded<i32>,
                    stride_d1: Padded<i32>,
                    stride_c0: Padded<i32>,
                    stride_c1: Padded<i32>,
                    stride_a0: Padded<i32>,
                    stride_a1: Padded<i32>,
                    stride_b0: Padded<i32>,
                    stride_b1: Padded<i32>,
                    m: Padded<i32>,
                    n: Padded<i32>,
                    k: Padded<i32>,
                    k_split: Padded<i32>,
                );
            }
        )*

        /// AITER's bf16 products.
        pub static BF16GEMM: &[Bf16gemm] = &[$(Bf16gemm {
            name: stringify!($name),
            tile: Tile { m: $m, n: $n },
            kernel: $name,
        }),*];
    };
}

bf16gemm! {
    bf16gemm_32x64 32 64 "bf16gemm.bf16gemm_outf32_tn_32x64_pf3" "_ZN5aiter28bf16gemm_outf32_tn_32x64_pf3E";
    bf16gemm_48x64 48 64 "bf16gemm.bf16gemm_outf32_tn_48x64_pf3" "_ZN5aiter28bf16gemm_outf32_tn_48x64_pf3E";
    bf16gemm_64x64 64 64 "bf16gemm.bf16gemm_outf32_tn_64x64_pf3" "_ZN5aiter28bf16gemm_outf32_tn_64x64_pf3E";
    bf16gemm_96x64 96 64 "bf16gemm.bf16gemm_outf32_tn_96x64_pf3" "_ZN5aiter28bf16gemm_outf32_tn_96x64_pf3E";
}

/// The bf16 product of that name, such as `bf16gemm_32x64`.
///
/// # Errors
/// If there is none.
pub fn bf16gemm(name: &str) -> Result<&'static Bf16gemm> {
    find(BF16GEMM, name, |row| row.name)
}

impl Bf16gemm {
    /// Launches `y = x wᵀ`. Where several blocks share the depth (`k_split` above 1), they add to what `y` holds.
    ///
    /// # Errors
    /// If the code object is missing or the launch fails.
    ///
    /// # Safety
    /// `y` must hold `[m, n]` elements, the operands `[m, k]` and `[n, k]`.
    pub unsafe fn launch(
        &self,
        y: DevPtr<f32>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        size: Size,
        k_split: i32,
        stream: Stream,
    ) -> Result<()> {
        let Size { m, n, k } = size;
        let none = || 0.into();
        // SAFETY: the caller vouches for the buffers.
        launched(unsafe {
            (self.kernel)(
                size.grid(self.tile, k_split, stream),
                y.into(),
                DevPtr::null().into(),
                x.into(),
                w.into(),
                1.0.into(),
                0.0.into(),
                none(),
                none(),
                (4 * n).into(),
                none(),
                (2 * k).into(),
                none(),
                (2 * k).into(),
                none(),
                m.into(),
                n.into(),
                k.into(),
                k_split.into(),
            )
        })
    }
}

type TopkSoftmaxKernel = unsafe fn(
    Grid,
    Padded<DevPtr<i32>>,
    Padded<DevPtr<f32>>,
    Padded<DevPtr<f32>>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
    Padded<i32>,
) -> Result<()>;

/// The softmax over a router's float32 logits and its largest values, for gfx942.
pub struct TopkSoftmax {
    pub name: &'static str,
    /// Tokens of one block.
    pub tokens: i32,
    pub experts: i32,
    pub topk: i32,
    kernel: TopkSoftmaxKernel,
}

macro_rules! topksoftmax {
    ($($name:ident $tokens:literal $experts:literal $topk:literal $file:tt $symbol:tt;)*) => {
        $(
            #[code_object($file)]
            unsafe extern "C" {
                #[link_name = $symbol]
                fn $name(
                    indices: Padded<DevPtr<i32>>,
                    weights: Padded<DevPtr<f32>>,
                    logits: Padded<DevPtr<f32>>,
                    tokens: Padded<i32>,
                    experts: Padded<i32>,
                    topk: Padded<i32>,
                    renormalize: Padded<i32>,
                    out_stride: Padded<i32>,
                );
            }
        )*

        /// AITER's routers for gfx942.
        pub static TOPKSOFTMAX: &[TopkSoftmax] = &[$(TopkSoftmax {
            name: stringify!($name),
            tokens: $tokens,
            experts: $experts,
            topk: $topk,
            kernel: $name,
        }),*];
    };
}

topksoftmax! {
    topksoftmax_4x128x6 4 128 6 "topksoftmax.topksoftmax_4x128x6" "_ZN5aiter19topksoftmax_4x128x6E";
    topksoftmax_4x128x8 4 128 8 "topksoftmax.topksoftmax_4x128x8" "_ZN5aiter19topksoftmax_4x128x8E";
    topksoftmax_4x256x6 4 256 6 "topksoftmax.topksoftmax_4x256x6" "_ZN5aiter19topksoftmax_4x256x6E";
    topksoftmax_4x256x8 4 256 8 "topksoftmax.topksoftmax_4x256x8" "_ZN5aiter19topksoftmax_4x256x8E";
    topksoftmax_12x128x6 12 128 6 "topksoftmax.topksoftmax_12x128x6" "_ZN5aiter20topksoftmax_12x128x6E";
    topksoftmax_12x128x8 12 128 8 "topksoftmax.topksoftmax_12x128x8" "_ZN5aiter20topksoftmax_12x128x8E";
    topksoftmax_12x256x6 12 256 6 "topksoftmax.topksoftmax_12x256x6" "_ZN5aiter20topksoftmax_12x256x6E";
    topksoftmax_12x256x8 12 256 8 "topksoftmax.topksoftmax_12x256x8" "_ZN5aiter20topksoftmax_12x256x8E";
}

/// The router of that name, such as `topksoftmax_4x128x8`.
///
/// # Errors
/// If there is none.
pub fn topksoftmax(name: &str) -> Result<&'static TopkSoftmax> {
    find(TOPKSOFTMAX, name, |row| row.name)
}

impl TopkSoftmax {
    /// Launches the router on `[tokens, experts]` logits. The strides are those of contiguous outputs.
    ///
    /// # Errors
    /// If the code object is missing or the launch fails.
    ///
    /// # Safety
    /// `logits` must hold `[tokens, experts]` elements, both outputs `[tokens, topk]`.
    pub unsafe fn launch(
        &self,
        indices: DevPtr<i32>,
        weights: DevPtr<f32>,
        logits: DevPtr<f32>,
        tokens: i32,
        renormalize: bool,
        stream: Stream,
    ) -> Result<()> {
        let blocks = [parts(tokens, self.tokens), 1, 1];
        let grid = Grid { blocks, threads: [256, 1, 1], shared: 0, stream };
        // SAFETY: the caller vouches for the buffers.
        launched(unsafe {
            (self.kernel)(
                grid,
                indices.into(),
                weights.into(),
                logits.into(),
                tokens.into(),
                self.experts.into(),
                self.topk.into(),
                i32::from(renormalize).into(),
                (4 * self.topk).into(),
            )
        })
    }
}
