//! cuBLASLt's block-scaled FP8 GEMM behind a thin launcher, as a project with hipBLASLt would have it.
//!
//! The launcher has the signature of `kernels::gemm_a8w8_blockscale`, so that either can stand where a test names the
//! paths of one kernel. `cuda/build.sh` builds it.

use accuracy_core::prelude::*;

#[kernel_library("cublaslt_fp8")]
unsafe extern "C" {
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with 1x128 scales of `x` and 128x128 scales of `w`. Takes e4m3fn (`format` 0)
    /// and column-major scales of `x` (`shuffle_scale`); refuses all else.
    pub fn cublaslt_gemm_a8w8_blockscale(
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
}
