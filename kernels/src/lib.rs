//! HIP kernels of this project, as their launchers see them.
//!
//! One source for every architecture is in `src/hip`; the build script compiles it for the host. What each launcher
//! takes and refuses is documented where it is defined. The accuracy tests in `tests/` are the examples to start from.

use accuracy_core::device::{DevPtr, Status, Stream};
use accuracy_core::dtype::DType;
use accuracy_core::{Error, Result, bf16, kernel_library};

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
}
