//! HIP kernels of this project, as their launchers see them.
//!
//! One source for every architecture is in `src/hip`; the build script compiles it for the host. What each launcher
//! takes and refuses is documented where it is defined. The accuracy tests in `tests/` are the examples to start from.
//!
//! For gfx942 and gfx950 the products of FP8, int8 and bfloat16 and the paged attention run on the matrix cores
//! (`mfma.h`), those of MXFP8 and MXFP4 on gfx950, with its block scales. Elsewhere the same launchers have loops, and so
//! have the 4-bit integers and NVFP4, which no matrix core multiplies. Kernels called `fallback` use neither matrix cores
//! nor conversion instructions.

use accuracy_core::device::{DevPtr, Status, Stream};
use accuracy_core::dtype::DType;
use accuracy_core::quant::ScaleRounding;
use accuracy_core::{Error, Result, bf16, kernel_library};
use std::ffi::c_void;

/// The launchers' code for an FP8 format.
///
/// # Errors
/// For any other format.
pub fn format_code(dtype: DType) -> Result<i32> {
    match dtype {
        DType::E4M3Fn => Ok(0),
        DType::E4M3Fnuz => Ok(1),
        DType::E5M2 => Ok(2),
        DType::E5M2Fnuz => Ok(3),
        other => Err(Error::msg(format!("the FP8 kernels do not take {other}"))),
    }
}

/// The launchers' code for the rounding of e8m0 scales.
///
/// # Errors
/// For rounding to nearest, which no producer of MX scales does.
pub fn rounding_code(rounding: ScaleRounding) -> Result<i32> {
    match rounding {
        ScaleRounding::Floor => Ok(0),
        ScaleRounding::Ceil => Ok(1),
        ScaleRounding::Even => Ok(2),
        other => Err(Error::msg(format!("the MX quantisers do not round scales to {other:?}"))),
    }
}

/// How 4-bit weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int4Packing {
    /// Codes `[k, n / 8]` in AutoAWQ's order, zero points `[groups, n / 8]` likewise, f16 scales `[groups, n]`.
    Awq = 0,
    /// Codes `[n, k / 8]`, zero points `[n / 8, groups]`, bf16 scales `[n, groups]`, the low nibble first.
    CompressedTensors = 1,
    /// Codes `[k / 8, n]`, the low nibble first, f16 scales `[groups, n]`; symmetric, without zero points.
    Gptq = 2,
}

#[kernel_library("kernels")]
unsafe extern "C" {
    /// Quantises `x [m, k]` in groups of 128; `shuffle_scale` writes the scales column-major.
    pub fn group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same without wave operations: for shapes and devices that the primary refuses.
    pub fn group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with 1x128 scales of `x` and 128x128 scales of `w`.
    pub fn gemm_a8w8_blockscale(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// [`gemm_a8w8_blockscale`] with `wq` preshuffled in tiles of 16x32.
    pub fn gemm_a8w8_blockscale_bpreshuffle(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to FP8 with a scale for each token.
    pub fn token_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each token.
    pub fn token_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with a scale for each token and output channel; `wq` may be preshuffled.
    pub fn gemm_a8w8_fp8(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        format: i32,
        preshuffled: bool,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to e4m3fn in groups of 128, the scales column-major and aligned, or, with `ue8m0`, powers
    /// of two packed into words: as DeepGEMM takes them.
    pub fn per_token_cast_to_fp8(
        q: DevPtr<u8>,
        s: DevPtr<c_void>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        ue8m0: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn per_token_cast_to_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<c_void>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        ue8m0: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ`; `ws` are of 128x128 blocks or, with `ue8m0`, packed like `xs`.
    pub fn fp8_gemm_nt(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<c_void>,
        wq: DevPtr<u8>,
        ws: DevPtr<c_void>,
        m: i32,
        n: i32,
        k: i32,
        ue8m0: bool,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to NVFP4 under a given tensor-wide scale, which is stored as its reciprocal;
    /// `is_sf_swizzled` writes the scales in tiles of 128x4.
    pub fn nvfp4_quant(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        global: DevPtr<f32>,
        m: i32,
        k: i32,
        is_sf_swizzled: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn nvfp4_quant_fallback(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        global: DevPtr<f32>,
        m: i32,
        k: i32,
        is_sf_swizzled: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs / x_global) (wq * ws / w_global)ᵀ`, both NVFP4; `ws` swizzled, `xs` with `is_sf_swizzled`.
    pub fn gemm_nvfp4(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        x_global: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        w_global: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        is_sf_swizzled: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ`, both MXFP8; `ws` in tiles of 128x4, `xs` row-major.
    pub fn gemm_mxfp8(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to int8 with a scale for each token.
    pub fn token_quant_int8(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each token.
    pub fn token_quant_int8_fallback(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with a scale for each token and output channel, summed in int32.
    pub fn gemm_a8w8_int8(
        y: DevPtr<bf16>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
    /// RMSNorm of `x [m, k]`, quantised in groups of 128.
    pub fn rmsnorm_group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same in separate passes.
    pub fn rmsnorm_group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// Adds `x` to `residual` in place, then RMSNorm of the rounded sum, quantised in groups of 128.
    pub fn add_rmsnorm_group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        residual: DevPtr<bf16>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same in separate passes.
    pub fn add_rmsnorm_group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        residual: DevPtr<bf16>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `gate_up [m, 2k]`, quantised in groups of 128.
    pub fn swiglu_group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        gate_up: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn swiglu_group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        gate_up: DevPtr<bf16>,
        m: i32,
        k: i32,
        format: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = x wᵀ` with leading dimensions; `x` may be stored transposed.
    pub fn gemm_bf16(
        y: DevPtr<bf16>,
        ldy: i64,
        x: DevPtr<bf16>,
        ldx: i64,
        w: DevPtr<bf16>,
        ldw: i64,
        m: i32,
        n: i32,
        k: i32,
        transpose_x: bool,
        stream: Stream,
    ) -> Status;
    /// The same with one thread for each output.
    pub fn gemm_bf16_fallback(
        y: DevPtr<bf16>,
        ldy: i64,
        x: DevPtr<bf16>,
        ldx: i64,
        w: DevPtr<bf16>,
        ldw: i64,
        m: i32,
        n: i32,
        k: i32,
        transpose_x: bool,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to MXFP4 in groups of 32; `shuffle_scale` writes the e8m0 scales swizzled.
    pub fn dynamic_mxfp4_quant(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn dynamic_mxfp4_quant_fallback(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to MXFP8 in groups of 32.
    pub fn dynamic_mxfp8_quant(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn dynamic_mxfp8_quant_fallback(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `gate_up [m, 2k]`, quantised to MXFP8.
    pub fn swiglu_mxfp8_quant(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        gate_up: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each group.
    pub fn swiglu_mxfp8_quant_fallback(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        gate_up: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ`, both MXFP4; `wq` preshuffled, `ws` swizzled, `xs` with `shuffle_scale`.
    pub fn gemm_a4w4(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = x ((q - z) * s)ᵀ` with 4-bit weights in groups; `packing` is an [`Int4Packing`].
    pub fn gemm_a16w4(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        qweight: DevPtr<u32>,
        scales: DevPtr<u16>,
        qzeros: DevPtr<u32>,
        m: i32,
        n: i32,
        k: i32,
        group: i32,
        packing: i32,
        stream: Stream,
    ) -> Status;
    /// The same with one thread for each output.
    pub fn gemm_a16w4_fallback(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        qweight: DevPtr<u32>,
        scales: DevPtr<u16>,
        qzeros: DevPtr<u32>,
        m: i32,
        n: i32,
        k: i32,
        group: i32,
        packing: i32,
        stream: Stream,
    ) -> Status;
    /// [`gemm_a8w8_int8`] with a zero point for each output channel.
    pub fn gemm_a8w8_int8_zero_point(
        y: DevPtr<bf16>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        wz: DevPtr<i8>,
        m: i32,
        n: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
    /// Softmax over `logits + bias`, and the `topk` largest of each token with their experts.
    pub fn topk_softmax(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        bias: DevPtr<f32>,
        m: i32,
        experts: i32,
        topk: i32,
        renormalize: bool,
        stream: Stream,
    ) -> Status;
    /// The same, one thread for each token.
    pub fn topk_softmax_fallback(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        bias: DevPtr<f32>,
        m: i32,
        experts: i32,
        topk: i32,
        renormalize: bool,
        stream: Stream,
    ) -> Status;
    /// The rows `token * topk + slot` by expert, and where each expert's begin.
    pub fn moe_sort(
        rows: DevPtr<i32>,
        offsets: DevPtr<i32>,
        ids: DevPtr<i32>,
        count: i32,
        experts: i32,
        stream: Stream,
    ) -> Status;
    /// The same by a single thread.
    pub fn moe_sort_fallback(
        rows: DevPtr<i32>,
        offsets: DevPtr<i32>,
        ids: DevPtr<i32>,
        count: i32,
        experts: i32,
        stream: Stream,
    ) -> Status;
    /// Each row of `y [rows, n]` by its expert's weight, MXFP8; `k` of the `ld` columns from `first_k` on take part.
    pub fn grouped_gemm_mxfp8(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        sorted: DevPtr<i32>,
        offsets: DevPtr<i32>,
        rows: i32,
        rows_per_x: i32,
        experts: i32,
        n: i32,
        k: i32,
        ld: i32,
        first_k: i32,
        stream: Stream,
    ) -> Status;
    /// The same with partial sums in float32.
    pub fn grouped_gemm_mxfp8_f32(
        y: DevPtr<f32>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        sorted: DevPtr<i32>,
        offsets: DevPtr<i32>,
        rows: i32,
        rows_per_x: i32,
        experts: i32,
        n: i32,
        k: i32,
        ld: i32,
        first_k: i32,
        stream: Stream,
    ) -> Status;
    /// The sum of two shards' partial sums `[rows, n]`.
    pub fn sum_shards(
        y: DevPtr<f32>,
        a: DevPtr<f32>,
        b: DevPtr<f32>,
        rows: i32,
        n: i32,
        stream: Stream,
    ) -> Status;
    /// The experts' outputs `x [m * topk, n]` by their weights.
    pub fn moe_weighted_sum(
        y: DevPtr<bf16>,
        weights: DevPtr<f32>,
        x: DevPtr<f32>,
        m: i32,
        n: i32,
        topk: i32,
        stream: Stream,
    ) -> Status;
    /// Rotates queries and keys, and writes keys and values to their slots of the FP8 cache.
    pub fn rope_kv_write(
        q_out: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        cos_sin: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        format: i32,
        neox: bool,
        stream: Stream,
    ) -> Status;
    /// The same element by element.
    pub fn rope_kv_write_fallback(
        q_out: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        cos_sin: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        format: i32,
        neox: bool,
        stream: Stream,
    ) -> Status;
    /// Attention of one token of each sequence over a paged FP8 cache.
    pub fn paged_decode(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        block_tables: DevPtr<i32>,
        seq_lens: DevPtr<i32>,
        seqs: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        block: i32,
        max_blocks: i32,
        scale: f32,
        format: i32,
        stream: Stream,
    ) -> Status;
}
