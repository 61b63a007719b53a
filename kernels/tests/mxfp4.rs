//! MXFP4: dynamically quantised activations times preshuffled weights, e8m0 scales in the order of the matrix cores.

use accuracy_core::prelude::*;
use kernels::*;

/// 592 output features are no multiple of 256 rows, 12 groups none of 8: both scale buffers have padding.
#[accuracy_test(
    checkpoint = "shards/minilm-mxfp4",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn gemm(
    cx: &mut Case,
    #[paths(primary = dynamic_mxfp4_quant, fallback = dynamic_mxfp4_quant_fallback)] quant: DynamicMxfp4Quant,
    #[values(false, true)] shuffle_scale: bool,
    #[values(ScaleRounding::Even, ScaleRounding::Ceil)] rounding: ScaleRounding,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let mxfp4 = Quant::group(E2M1, 32);
    let shuffled = mxfp4.scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle);
    let x = cx.activations()?;
    let w = cx.weight("w", shuffled.data_layout(DataLayout::PRESHUFFLE_16X16_4BIT))?;
    let layout = if shuffle_scale { ScaleLayout::E8m0Shuffle } else { RowMajor };
    let xq = cx.quantized("xq", &x, mxfp4.scales(E8M0, rounding).layout(layout))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let rounding = rounding_code(rounding)?;
        quant(xq.data(), xq.scales(), x.data(), m, k, rounding, shuffle_scale, cx.stream())?;
        gemm_a4w4(
            y.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}
