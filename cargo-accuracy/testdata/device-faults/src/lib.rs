//! Kernels that go wrong as kernels do on a device: on the host where that can be, on a GPU from an archive.

#[cfg(test)]
mod tests {
    use accuracy_core::prelude::*;

    #[kernel_library("faults")]
    unsafe extern "C" {
        #[expect_kernel = "gemm_kernel"]
        fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_by_another_name(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        #[expect_kernel = "^.*fast_gemm"]
        fn gemm_that_falls_back(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_writes_nothing(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_without_the_last_column(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_in_the_first_grid(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_times_zero(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_past_the_end(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_before_the_start(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_modifies_its_input(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_stores_to_an_illegal_address(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_never_ends(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_in_a_block_too_large(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_by_atomic_sums(y: DevPtr<f32>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    }

    /// One test of a GEMM.
    macro_rules! gemm_test {
        ($($test:ident: $kernel:ident $dtype:ident;)*) => {$(
            #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
            fn $test(cx: &mut Case) -> Result<Tensor> {
                let (m, n, k) = cx.shape()?;
                let x = cx.activations()?;
                let w = cx.weight("w", BF16)?;
                let y = cx.output("y", $dtype, [m, n], x.matmul(&w))?;
                // SAFETY: the launcher is given buffers of the shapes that it is told. What it does beyond is what the
                // test is about.
                unsafe { $kernel(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
                Ok(y)
            }
        )*};
    }

    gemm_test! {
        correct: gemm BF16;
        falls_back: gemm_that_falls_back BF16;
        nothing_written: gemm_writes_nothing BF16;
        last_column_unwritten: gemm_without_the_last_column BF16;
        first_grid_kept: gemm_in_the_first_grid BF16;
        times_zero: gemm_times_zero BF16;
        past_the_end: gemm_past_the_end BF16;
        before_the_start: gemm_before_the_start BF16;
        input_modified: gemm_modifies_its_input BF16;
        atomic_sums: gemm_by_atomic_sums F32;
        block_too_large: gemm_in_a_block_too_large BF16;
        illegal_address: gemm_stores_to_an_illegal_address BF16;
        never_ends: gemm_never_ends BF16;
        correct_after_all_that: gemm BF16;
    }

    /// A consumer that damages the intermediate that it reads.
    #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
    fn operand_damaged(cx: &mut Case) -> Result<Tensor> {
        let (m, n, k) = cx.shape()?;
        let x = cx.activations()?;
        let w = cx.weight("w", BF16)?;
        let h = cx.output("h", BF16, [m, n], x.matmul(&w))?;
        let y = cx.output("y", BF16, [m, m], h.matmul(&h))?;
        // SAFETY: the launchers are given buffers of the shapes that they are told.
        unsafe {
            gemm(h.data(), x.data(), w.data(), m, n, k, cx.stream())?;
            gemm_modifies_its_input(y.data(), h.data(), h.data(), m, m, n, cx.stream())?;
        }
        Ok(y)
    }

    /// Needs more than a small device has.
    #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5], memory = "1 GiB")]
    fn needs_a_gibibyte(cx: &mut Case) -> Result<Tensor> {
        let (m, n, k) = cx.shape()?;
        let x = cx.activations()?;
        let w = cx.weight("w", BF16)?;
        let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
        // SAFETY: the launcher is given buffers of the shapes that it is told.
        unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
        Ok(y)
    }

    /// Two launchers of one kernel.
    #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
    fn same_kernel(
        cx: &mut Case,
        #[paths(primary = gemm, fallback = gemm_by_another_name)] gemm: Gemm,
    ) -> Result<Tensor> {
        let (m, n, k) = cx.shape()?;
        let x = cx.activations()?;
        let w = cx.weight("w", BF16)?;
        let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
        // SAFETY: the launcher is given buffers of the shapes that it is told.
        unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
        Ok(y)
    }
}
