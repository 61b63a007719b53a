//! int8: a scale for each token times a scale for each output channel.

use accuracy_core::prelude::*;
use kernels::*;

#[accuracy_test(
    checkpoint = "shards/minilm-int8-channel",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33, 128],
)]
fn per_token(
    cx: &mut Case,
    #[paths(primary = token_quant_int8, fallback = token_quant_int8_fallback)] quant: TokenQuantInt8,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", INT8)?;
    let xq = cx.quantized("xq", &x, Quant::token(INT8).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, cx.stream())?;
        gemm_a8w8_int8(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, cx.stream())?;
    }
    Ok(y)
}

/// A weight whose channels are not symmetric about zero.
#[accuracy_test(
    checkpoint = "shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.attention.output.dense" },
    tokens = [1, 33],
)]
fn zero_point(
    cx: &mut Case,
    #[paths(primary = token_quant_int8, fallback = token_quant_int8_fallback)] quant: TokenQuantInt8,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", Quant::channel(INT8).zero_point(ZeroPoint::per_cell(INT8, RowMajor)))?;
    let xq = cx.quantized("xq", &x, Quant::token(INT8).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, cx.stream())?;
        gemm_a8w8_int8_zero_point(
            y.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            w.zero_points(),
            m,
            n,
            k,
            cx.stream(),
        )?;
    }
    Ok(y)
}
