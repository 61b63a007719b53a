//! Triton kernels without Triton: `python/compile.py` compiles them ahead of time, here their code objects are launched.
//!
//! The last two parameters of each kernel are Triton's own: memory for the whole grid, and for profiling, of which these
//! kernels use none.

use accuracy_core::prelude::*;

#[code_object("matmul")]
unsafe extern "C" {
    /// `y [m, n] = x [m, k] w [n, k]ᵀ` in bf16.
    #[link_name = "matmul"]
    fn matmul_kernel(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("softmax")]
unsafe extern "C" {
    /// `y [m, n]` = the softmax of each row of `x [m, n]`, a block for each row.
    #[link_name = "softmax"]
    fn softmax_kernel(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        n: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("fp8_quant")]
unsafe extern "C" {
    /// `x [m, k]` as e4m3 codes, in the variant that the architecture reads, with a scale for each row; a block for each
    /// row.
    #[link_name = "fp8_quant"]
    fn fp8_quant_kernel(
        codes: DevPtr<u8>,
        scales: DevPtr<f32>,
        x: DevPtr<bf16>,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("fp8_matmul")]
unsafe extern "C" {
    /// `y [m, n] = x [m, k] w [n, k]ᵀ` of e4m3 codes, with a scale for each row of `x` and of `w`.
    #[link_name = "fp8_matmul"]
    fn fp8_matmul_kernel(
        y: DevPtr<bf16>,
        x: DevPtr<u8>,
        xs: DevPtr<f32>,
        w: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("mxfp8_quant")]
unsafe extern "C" {
    /// `x [m, k]` as e4m3fn codes with an e8m0 scale for each 32 columns; a block for each row and four of those groups.
    #[link_name = "mxfp8_quant"]
    fn mxfp8_quant_kernel(
        codes: DevPtr<u8>,
        scales: DevPtr<u8>,
        x: DevPtr<bf16>,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("mxfp8_matmul")]
unsafe extern "C" {
    /// `y [m, n] = x [m, k] w [n, k]ᵀ` with `tl.dot_scaled`: e4m3fn codes with an e8m0 scale for each 32 of k.
    #[link_name = "mx_matmul"]
    fn mxfp8_matmul_kernel(
        y: DevPtr<bf16>,
        x: DevPtr<u8>,
        xs: DevPtr<u8>,
        w: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

#[code_object("mxfp4_matmul")]
unsafe extern "C" {
    /// The same with e2m1 codes of `w`, two a byte.
    #[link_name = "mx_matmul"]
    fn mxfp4_matmul_kernel(
        y: DevPtr<bf16>,
        x: DevPtr<u8>,
        xs: DevPtr<u8>,
        w: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

/// `BLOCK_M` and `BLOCK_N` of `python/compile.py`.
const BLOCK: i32 = 32;
/// `BLOCK` of its softmax: the most columns.
const SOFTMAX_COLUMNS: i32 = 2048;
/// `BLOCK` of its quantiser to fp8.
const FP8_COLUMNS: i32 = 512;
/// Columns that a block of its quantiser to MXFP8 takes: `GROUPS` groups of 32.
const MXFP8_COLUMNS: i32 = 128;

/// Bytes of shared memory that a block needs, as `python/compile.py` prints them: of gfx942, gfx950 and sm_90.
struct Shared {
    gfx942: u32,
    gfx950: u32,
    sm_90: Option<u32>,
}

const MATMUL: Shared = Shared { gfx942: 2048, gfx950: 8192, sm_90: Some(4096) };
const ROW: Shared = Shared { gfx942: 16, gfx950: 16, sm_90: None };
const FP8_MATMUL: Shared = Shared { gfx942: 4096, gfx950: 16384, sm_90: None };
const MXFP8_MATMUL: Shared = Shared { gfx942: 4096, gfx950: 16384, sm_90: None };
const MXFP4_MATMUL: Shared = Shared { gfx942: 4096, gfx950: 12288, sm_90: None };

/// A grid of blocks of four warps or waves.
fn grid(arch: Arch, shared: &Shared, blocks: [i32; 2], stream: Stream) -> Result<Grid> {
    let found = match arch {
        Arch::Sm90 => shared.sm_90.map(|shared| (128, shared)),
        Arch::Gfx942 => Some((256, shared.gfx942)),
        Arch::Gfx950 => Some((256, shared.gfx950)),
        _ => None,
    };
    let (threads, shared) =
        found.ok_or_else(|| Error::msg(format!("the kernel is not compiled for {arch}")))?;
    let blocks = [blocks[0] as u32, blocks[1] as u32, 1];
    Ok(Grid { blocks, threads: [threads, 1, 1], shared, stream })
}

/// As many blocks as a product of `[m, n]` needs.
fn tiles(m: i32, n: i32) -> [i32; 2] {
    [(m + BLOCK - 1) / BLOCK, (n + BLOCK - 1) / BLOCK]
}

fn at_most(what: &str, columns: i32, most: i32) -> Result<()> {
    if columns <= most {
        return Ok(());
    }
    Err(Error::msg(format!("{what} is compiled for up to {most} columns, and {columns} are given")))
}

/// Launches `matmul_kernel` on as many blocks as `y` needs.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// `y`, `x` and `w` must hold `[m, n]`, `[m, k]` and `[n, k]` elements.
#[expect(clippy::too_many_arguments, reason = "a launch's arguments")]
pub unsafe fn matmul(
    arch: Arch,
    y: DevPtr<bf16>,
    x: DevPtr<bf16>,
    w: DevPtr<bf16>,
    m: i32,
    n: i32,
    k: i32,
    stream: Stream,
) -> Result<()> {
    let grid = grid(arch, &MATMUL, tiles(m, n), stream)?;
    // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
    unsafe { matmul_kernel(grid, y, x, w, m, n, k, DevPtr::null(), DevPtr::null()) }
}

/// Launches `softmax_kernel`.
///
/// # Errors
/// If a row has more than 2048 columns, and as of any launch.
///
/// # Safety
/// `y` and `x` must hold `[m, n]` elements.
pub unsafe fn softmax(
    arch: Arch,
    y: DevPtr<bf16>,
    x: DevPtr<bf16>,
    m: i32,
    n: i32,
    stream: Stream,
) -> Result<()> {
    at_most("the softmax", n, SOFTMAX_COLUMNS)?;
    let grid = grid(arch, &ROW, [m, 1], stream)?;
    // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
    unsafe { softmax_kernel(grid, y, x, n, DevPtr::null(), DevPtr::null()) }
}

/// Launches `fp8_quant_kernel`.
///
/// # Errors
/// If a row has more than 512 columns, and as of any launch.
///
/// # Safety
/// `codes` and `x` must hold `[m, k]` elements, `scales` `m`.
pub unsafe fn fp8_quant(
    arch: Arch,
    codes: DevPtr<u8>,
    scales: DevPtr<f32>,
    x: DevPtr<bf16>,
    m: i32,
    k: i32,
    stream: Stream,
) -> Result<()> {
    at_most("the quantiser", k, FP8_COLUMNS)?;
    let grid = grid(arch, &ROW, [m, 1], stream)?;
    // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
    unsafe { fp8_quant_kernel(grid, codes, scales, x, k, DevPtr::null(), DevPtr::null()) }
}

/// Launches `fp8_matmul_kernel` on as many blocks as `y` needs.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// `y`, `x` and `w` must hold `[m, n]`, `[m, k]` and `[n, k]` elements, `xs` and `ws` `m` and `n` scales.
#[expect(clippy::too_many_arguments, reason = "a launch's arguments")]
pub unsafe fn fp8_matmul(
    arch: Arch,
    y: DevPtr<bf16>,
    x: DevPtr<u8>,
    xs: DevPtr<f32>,
    w: DevPtr<u8>,
    ws: DevPtr<f32>,
    m: i32,
    n: i32,
    k: i32,
    stream: Stream,
) -> Result<()> {
    let grid = grid(arch, &FP8_MATMUL, tiles(m, n), stream)?;
    // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
    unsafe { fp8_matmul_kernel(grid, y, x, xs, w, ws, m, n, k, DevPtr::null(), DevPtr::null()) }
}

/// Launches `mxfp8_quant_kernel`.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// `codes` and `x` must hold `[m, k]` elements, `scales` `[m, k / 32]`, and k must be a multiple of 32.
pub unsafe fn mxfp8_quant(
    arch: Arch,
    codes: DevPtr<u8>,
    scales: DevPtr<u8>,
    x: DevPtr<bf16>,
    m: i32,
    k: i32,
    stream: Stream,
) -> Result<()> {
    let grid = grid(arch, &ROW, [m, (k + MXFP8_COLUMNS - 1) / MXFP8_COLUMNS], stream)?;
    // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
    unsafe { mxfp8_quant_kernel(grid, codes, scales, x, k, DevPtr::null(), DevPtr::null()) }
}

/// Defines the launches of products with block scales.
macro_rules! block_scaled {
    ($($(#[$doc:meta])* $name:ident: $kernel:ident $shared:ident;)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// As of any launch.
        ///
        /// # Safety
        /// `y`, `x` and `w` must hold `[m, n]`, `[m, k]` and `[n, k]` elements, `xs` and `ws` `[m, k / 32]` and
        /// `[n, k / 32]` scales, and k must be a multiple of 32.
        #[expect(clippy::too_many_arguments, reason = "a launch's arguments")]
        pub unsafe fn $name(
            arch: Arch,
            y: DevPtr<bf16>,
            x: DevPtr<u8>,
            xs: DevPtr<u8>,
            w: DevPtr<u8>,
            ws: DevPtr<u8>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Result<()> {
            let grid = grid(arch, &$shared, tiles(m, n), stream)?;
            // SAFETY: the caller vouches for the buffers; the two scratch memories have no bytes.
            unsafe { $kernel(grid, y, x, xs, w, ws, m, n, k, DevPtr::null(), DevPtr::null()) }
        })+
    };
}

block_scaled! {
    /// Launches `mxfp8_matmul_kernel` on as many blocks as `y` needs.
    mxfp8_matmul: mxfp8_matmul_kernel MXFP8_MATMUL;
    /// Launches `mxfp4_matmul_kernel` on as many blocks as `y` needs.
    mxfp4_matmul: mxfp4_matmul_kernel MXFP4_MATMUL;
}
