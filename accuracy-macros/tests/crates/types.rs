//! What only the type checker sees, reported where it was written.

use accuracy_core::prelude::*;

fn f(_: i32) -> Result<()> {
    Ok(())
}

fn g(_: i64) -> Result<()> {
    Ok(())
}

#[accuracy_test]
fn value(cx: &mut Case, #[values("x")] b: bool, #[perf(1, 2.5)] k: i32) -> Result<Tensor> {
    todo(cx, (b, k))
}

#[accuracy_test]
fn path(cx: &mut Case, #[paths(primary = f, fallback = g)] q: fn(i32) -> Result<()>) -> Result<Tensor> {
    todo(cx, q)
}

#[accuracy_test]
fn case(cx: &mut Vec<Case>) -> Result<Tensor> {
    todo(&mut cx[0], ())
}

#[accuracy_test]
fn result(cx: &mut Case) -> Option<Tensor> {
    todo(cx, ()).ok()
}

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    fn argument(x: String) -> i32;
}

fn todo<T>(_: &mut Case, _: T) -> Result<Tensor> {
    unimplemented!()
}
