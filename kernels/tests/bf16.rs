//! bfloat16 GEMM, on contiguous operands and on views.

use accuracy_core::prelude::*;
use kernels::*;

#[accuracy_test(
    checkpoint = "shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33, 128],
)]
fn gemm(
    cx: &mut Case,
    #[paths(primary = gemm_bf16, fallback = gemm_bf16_fallback)] gemm: GemmBf16,
    #[values(false, true)] transpose_x: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let shape = Shape::from([m, k]);
    let x = cx.input("x", BF16, if transpose_x { shape.transposed() } else { shape })?;
    multiply(cx, gemm, x, transpose_x, n)
}

/// Rows with padding between them, and rows so far apart that `row * stride` exceeds 2^31.
#[accuracy_test(
    checkpoint = "shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.attention.output.dense" },
    tokens = [33],
)]
fn strided(
    cx: &mut Case,
    #[paths(primary = gemm_bf16, fallback = gemm_bf16_fallback)] gemm: GemmBf16,
    #[perf(392, 134217728)] stride: i64,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.input("x", BF16, Shape::from([m, k]).row_stride(stride))?;
    multiply(cx, gemm, x, false, n)
}

fn multiply(cx: &mut Case, gemm: GemmBf16, x: Tensor, transpose_x: bool, n: i32) -> Result<Tensor> {
    let (m, k) = (x.rows(), x.cols());
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, Shape::from([m, n]).row_stride(i64::from(n) + 8), x.matmul(&w))?;
    // SAFETY: every buffer has the shape and the strides that are passed with it.
    unsafe {
        gemm(
            y.data(),
            y.leading_dimension(),
            x.data(),
            x.leading_dimension(),
            w.data(),
            w.leading_dimension(),
            m,
            n,
            k,
            transpose_x,
            cx.stream(),
        )?;
    }
    Ok(y)
}
