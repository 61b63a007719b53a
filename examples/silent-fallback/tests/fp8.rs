//! Quantise, then multiply, on both paths.

use accuracy_core::prelude::*;
use silent_fallback::*;

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn blockscale(
    cx: &mut Case,
    #[variants(E4M3FN)] dtype: DType,
    #[paths(primary = group_quant_fp8, fallback = group_quant_fp8_fallback)] quant: GroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let order = if shuffle_scale { ColMajor } else { RowMajor };
    let x = cx.activations()?;
    let w = cx.weight("w", dtype)?;
    let xq = cx.quantized("xq", &x, Quant::group(dtype, 128).amax_floor(1e-10).layout(order))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, shuffle_scale, cx.stream())?;
        let (xs, ws) = (xq.scales(), w.scales());
        gemm_a8w8_blockscale(y.data(), xq.data(), xs, w.data(), ws, m, n, k, shuffle_scale, cx.stream())?;
    }
    Ok(y)
}
