//! The Triton kernel against the float64 product, on shapes that are no multiples of its blocks, too.

use accuracy_core::prelude::*;
use triton_matmul::matmul;

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.*.dense" },
    tokens = [1, 33, 128],
)]
fn bf16_matmul(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe { matmul(cx.arch(), y.data(), x.data(), w.data(), m, n, k, cx.stream())? };
    Ok(y)
}
