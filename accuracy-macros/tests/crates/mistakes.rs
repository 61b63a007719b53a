//! One mistake in each item, all else in order: the mistake is the only error.

use accuracy_core::prelude::*;

#[kernel_library("libquant_gemm")]
unsafe extern "C" {
    fn group_quant(x: DevPtr<bf16>, m: i32) -> Status;
}

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    fn gemm(x: DevPtr<bf16>, m: i32) -> f32;
    fn gemm_pointer(x: DevPtr<bf16>, m: i32) -> *const i32;
    fn gemm_fallback(x: DevPtr<bf16>, m: i32) -> i32;
}

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    fn stream(stream: Stream) -> i32;
}

#[accuracy_test(chekpoint = "shards/tiny")]
fn unknown_key(cx: &mut Case, #[paths(primary = gemm, fallback = gemm_fallback)] run: Gemm) -> Result<Tensor> {
    call(cx, run)
}

#[accuracy_test(known_failure(tile = 64, reason = "no such parameter"))]
fn unknown_axis(cx: &mut Case, #[paths(primary = group_quant)] run: GroupQuant) -> Result<Tensor> {
    call(cx, run)
}

#[accuracy_test(known_failure(dtype = INT8, reason = "of the parameter that has no attribute"))]
fn no_attribute(cx: &mut Case, dtype: DType) -> Result<Tensor> {
    cx.input("x", dtype, [1, 8])
}

#[accuracy_test]
fn value_twice(cx: &mut Case, #[values(64, 64)] tile: i32) -> Result<Tensor> {
    cx.input("x", BF16, [tile, 8])
}

#[accuracy_test]
fn no_result(cx: &mut Case) {
    let _ = call(cx, gemm_pointer);
}

#[accuracy_test]
async fn asynchronous(cx: &mut Case) -> Result<Tensor> {
    call(cx, gemm)
}

#[accuracy_test]
const fn constant(cx: &mut Case) -> Result<Tensor> {
    call(cx, gemm)
}

#[accuracy_test]
unsafe fn not_safe(cx: &mut Case) -> Result<Tensor> {
    call(cx, gemm)
}

#[cfg(test)]
fn call(cx: &mut Case, run: Gemm) -> Result<Tensor> {
    let x = cx.input("x", BF16, [1, 8])?;
    // SAFETY: never run.
    unsafe { run(x.data(), 1) }?;
    Ok(x)
}
