//! The vendor's GEMM and our own on the same quantised activations.

use accuracy_core::prelude::*;
use cublaslt_fp8::cublaslt_gemm_a8w8_blockscale;
use kernels::*;

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [32, 128],
)]
fn blockscale(
    cx: &mut Case,
    #[paths(primary = cublaslt_gemm_a8w8_blockscale, fallback = gemm_a8w8_blockscale)]
    gemm: GemmA8w8Blockscale,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let format = format_code(E4M3FN)?;
    let x = cx.activations()?;
    let w = cx.weight("w", E4M3FN)?;
    let scheme = Quant::group(E4M3FN, 128).amax_floor(1e-10).layout(ColMajor);
    let xq = cx.quantized("xq", &x, scheme)?;
    // The vendor's kernel sums on the tensor cores, which keep fewer bits than float32 between promotions.
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w).accumulate_in(HOPPER_FP8))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        group_quant_fp8(xq.data(), xq.scales(), x.data(), m, k, format, true, cx.stream())?;
        let (xs, ws) = (xq.scales(), w.scales());
        gemm(y.data(), xq.data(), xs, w.data(), ws, m, n, k, format, true, cx.stream())?;
    }
    Ok(y)
}
