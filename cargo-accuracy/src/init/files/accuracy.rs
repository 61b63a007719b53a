//! Whether the kernels compute the right numbers: `cargo accuracy`, or one by one as ordinary tests.

use accuracy_core::prelude::*;

#[kernel_library("{{library}}")] // lib{{library}}_<arch>.so; build.rs makes the host's
unsafe extern "C" {
    /// bf16 `x [m, k]` to codes `q [m, k]` and a scale for each token, `s [m]`.
    fn first_token_quant(q: DevPtr<i8>, s: DevPtr<f32>, x: DevPtr<bf16>, m: i32, k: i32, stream: Stream) -> Status;
    /// float32 `y [m, n]` of codes `xq [m, k]`, `wq [n, k]` and scales `xs [m]`, `ws [n]`.
    fn first_gemm(
        y: DevPtr<f32>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        stream: Stream,
    ) -> Status;
}

#[accuracy_test(
    checkpoint = "shards/first.safetensors", // random weights; `cargo accuracy shard` carves real ones
    weights = { w = "model.layers.{layer}.mlp.{part}_proj" },
    tokens = [1, 33],
)]
fn first(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", Quant::channel(INT8))?;
    // Declared: what a kernel is about to write, from what, and in which format.
    let xq = cx.quantized("xq", &x, Quant::token(INT8).amax_floor(1e-10))?;
    // float32, so that nothing is hidden by the rounding of the result.
    let y = cx.output("y", F32, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        first_token_quant(xq.data(), xq.scales(), x.data(), m, k, cx.stream())?;
        first_gemm(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, cx.stream())?;
    }
    Ok(y)
}
