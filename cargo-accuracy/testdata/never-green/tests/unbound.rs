//! A launcher that its library lacks.
#![cfg(feature = "unbound")]

use accuracy_core::prelude::*;

#[kernel_library("faulty")]
unsafe extern "C" {
    fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_of_tomorrow(y: DevPtr<bf16>) -> Status;
}

#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn calls_what_is_there(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}
