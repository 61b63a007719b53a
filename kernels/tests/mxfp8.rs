//! MXFP8: dynamically quantised activations times weights whose e8m0 scales lie in tiles of 128x4.

use accuracy_core::prelude::*;
use kernels::*;

/// 592 output features are no multiple of 128 rows, 11 groups none of 4: the tiles of scales have padding.
#[accuracy_test(
    checkpoint = "shards/minilm-mxfp8",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn gemm(
    cx: &mut Case,
    #[paths(primary = dynamic_mxfp8_quant, fallback = dynamic_mxfp8_quant_fallback)] quant: DynamicMxfp8Quant,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let mxfp8 = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Even);
    let x = cx.activations()?;
    let w = cx.weight("w", mxfp8.layout(ScaleLayout::Swizzle128x4))?;
    let xq = cx.quantized("xq", &x, mxfp8)?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let rounding = rounding_code(mxfp8.scale_rounding)?;
        quant(xq.data(), xq.scales(), x.data(), m, k, rounding, false, cx.stream())?;
        gemm_mxfp8(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, cx.stream())?;
    }
    Ok(y)
}
