//! Kernels that go wrong, and libraries that cannot be used.

use accuracy_core::prelude::*;

#[kernel_library("faulty")]
unsafe extern "C" {
    pub fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_refuses(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_with_nan(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_writes_nothing(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_without_the_last_column(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_past_the_end(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_reads_past_the_end(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_before_the_start(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_modifies_its_input(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_never_twice_the_same(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_of_the_first_shape(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_times_zero(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_rounds_upward(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    fn gemm_handles_a_signal(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
}

#[kernel_library("faulty")]
unsafe extern "C" {
    // What stands under a condition is not looked for before a run, so that the call itself is seen to fail.
    #[cfg(test)]
    fn gemm_that_is_not_there(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
}

#[kernel_library("constructed")]
unsafe extern "C" {
    fn gemm_of_a_constructed_library(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
}

#[kernel_library("absent")]
unsafe extern "C" {
    fn gemm_of_an_absent_library(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
}

#[kernel_library("foreign")]
unsafe extern "C" {
    fn gemm_of_a_foreign_library(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
}

/// One test of a GEMM on good data.
macro_rules! gemm_test {
    ($($test:ident: $kernel:ident;)*) => {$(
        #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
        fn $test(cx: &mut Case) -> Result<Tensor> {
            let (m, n, k) = cx.shape()?;
            let x = cx.activations()?;
            let w = cx.weight("w", BF16)?;
            let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
            // SAFETY: the launcher is given buffers of the shapes that it is told. What it does beyond is what the
            // test is about.
            unsafe { $kernel(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
            Ok(y)
        }
    )*};
}

gemm_test! {
    correct: gemm;
    refused: gemm_refuses;
    nan: gemm_with_nan;
    nothing_written: gemm_writes_nothing;
    last_column_unwritten: gemm_without_the_last_column;
    past_the_end: gemm_past_the_end;
    reads_past_the_end: gemm_reads_past_the_end;
    before_the_start: gemm_before_the_start;
    input_modified: gemm_modifies_its_input;
    never_twice_the_same: gemm_never_twice_the_same;
    times_zero: gemm_times_zero;
    rounds_upward: gemm_rounds_upward;
    handles_a_signal: gemm_handles_a_signal;
    constructed: gemm_of_a_constructed_library;
    symbol_missing: gemm_that_is_not_there;
    library_missing: gemm_of_an_absent_library;
    library_for_another_architecture: gemm_of_a_foreign_library;
}

#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5],
    nondeterministic(reason = "adds with atomics", bound = 1e-3))]
fn correct_if_repeats_may_differ(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}

/// The least cosine of a correct kernel is above this; what the configuration asks for is more than it can give.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5], min_cos = 0.99)]
fn correct_by_its_attribute(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}

/// What is added to zeros is no constant data.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn added_to_zeros(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let before = cx.zeros("y", BF16, [m, n])?;
    let y = cx.update(&before, &before.expr() + x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}

/// Fails, and says so.
#[accuracy_test(
    checkpoint = "shards/good",
    weights = { w = "up_proj" },
    tokens = [5],
    known_failure(reason = "writes past the end")
)]
fn past_the_end_as_known(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: as above; the write past the end stays inside the guard band.
    unsafe { gemm_past_the_end(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}

/// Is said to fail, and does not.
#[accuracy_test(
    checkpoint = "shards/good",
    weights = { w = "up_proj" },
    tokens = [5],
    known_failure(reason = "used to write past the end")
)]
fn correct_against_expectation(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    Ok(y)
}

/// One test of a GEMM of two shapes.
macro_rules! test_of_two_shapes {
    ($($test:ident: $kernel:ident;)*) => {$(
        #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5, 9])]
        fn $test(cx: &mut Case) -> Result<Tensor> {
            let (m, n, k) = cx.shape()?;
            let x = cx.activations()?;
            let w = cx.weight("w", BF16)?;
            let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
            // SAFETY: the launcher is given buffers of the shapes that it is told.
            unsafe { $kernel(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
            Ok(y)
        }
    )*};
}

test_of_two_shapes! {
    correct_in_two_shapes: gemm;
    first_shape_kept: gemm_of_the_first_shape;
}

/// A right result that no kernel has written.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn computed_by_the_test(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    multiply(&y, &x, &w, [m, n, k]);
    Ok(y)
}

/// The same beside a launcher that does something else.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn computed_by_the_test_after_a_launcher(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let other = cx.output("other", BF16, [m, n], x.matmul(&w))?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launcher is given buffers of the shapes that it is told.
    unsafe { gemm(other.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
    multiply(&y, &x, &w, [m, n, k]);
    Ok(y)
}

fn multiply(y: &Tensor, x: &Tensor, w: &Tensor, [m, n, k]: [i32; 3]) {
    let [m, n, k] = [m, n, k].map(|size| size as usize);
    let at = |pointer: DevPtr<bf16>| std::ptr::with_exposed_provenance_mut::<bf16>(pointer.address());
    let (y, x, w) = (at(y.data()), at(x.data()), at(w.data()));
    for row in 0..m {
        for column in 0..n {
            // SAFETY: on the host the pointers are to as many elements as the shapes say, and nothing else uses them.
            unsafe {
                let terms = (0..k).map(|i| x.add(row * k + i).read().to_f32() * w.add(column * k + i).read().to_f32());
                y.add(row * n + column).write(bf16::from_f32(terms.sum()));
            }
        }
    }
}

/// A launcher refuses, nobody asks, and another one did the work before.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn status_dropped(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launchers are given buffers of the shapes that they are told.
    unsafe {
        gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream())?;
        let _ = gemm_refuses(y.data(), x.data(), w.data(), m, n, k, cx.stream());
    }
    Ok(y)
}

/// A launcher that cannot be found is no reason to take another one.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn missing_launcher_dropped(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launchers are given buffers of the shapes that they are told.
    unsafe {
        if gemm_that_is_not_there(y.data(), x.data(), w.data(), m, n, k, cx.stream()).is_err() {
            gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream())?;
        }
    }
    Ok(y)
}

/// A launcher may refuse where the test asks for that.
#[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
fn refusal_asked_for(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: the launchers are given buffers of the shapes that they are told.
    unsafe {
        if cx.refused(gemm_refuses(y.data(), x.data(), w.data(), m, n, k, cx.stream()))? {
            gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream())?;
        }
    }
    Ok(y)
}
