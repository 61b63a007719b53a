//! Every variant of every chain is a case. Most of them fail, as they should.

use accuracy_core::prelude::*;
use bug_zoo::*;

/// 400 output features are no multiple of 128 nor of 64.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn fp8(cx: &mut Case, #[perf(file = "zoo/fp8.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("fp8", kernels)?;
    let shuffle_scale = kernels.is("shuffle_scale");
    let dtype = if kernels.is("fnuz") { E4M3FNUZ } else { E4M3FN };
    let order = if shuffle_scale { ColMajor } else { RowMajor };
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let tiles = if kernels.is("preshuffled") { DataLayout::PRESHUFFLE_16X16 } else { DataLayout::RowMajor };
    let w =
        cx.weight("w", WeightForm::from(Quant::block(dtype, 128, 128)).data_layout(tiles).rows(0..400))?;
    let n = w.rows();
    let xq = cx.quantized("xq", &x, Quant::group(dtype, 128).amax_floor(1e-10).layout(order))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    let (xs, ws) = (xq.scales(), w.scales());
    // SAFETY: every buffer has the shape that is passed with it. Some variants leave it on purpose, into bands.
    unsafe {
        fp8_quantise(xq.data(), xs, x.data(), m, k, shuffle_scale, kernels.number, cx.stream())?;
        fp8_multiply(
            y.data(),
            xq.data(),
            xs,
            w.data(),
            ws,
            m,
            n,
            k,
            shuffle_scale,
            kernels.number,
            cx.stream(),
        )?;
    }
    Ok(y)
}
