//! Kernels that are right in the shapes that a test lists, and wrong in some others, or in some launches.

#[cfg(test)]
mod tests {
    use accuracy_core::prelude::*;

    #[kernel_library("shapes")]
    unsafe extern "C" {
        fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_without_a_tail_of_rows(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_that_reads_behind_large_inputs(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_of_a_short_k(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_of_whole_tiles(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    }

    #[kernel_library("shapes")]
    unsafe extern "C" {
        fn gemm_wrong_at_first(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
        fn gemm_that_keeps_a_maximum(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
    }

    /// A test of a GEMM for each kernel, with the token counts that it names.
    macro_rules! gemm_test {
        ($($test:ident: $kernel:ident, $tokens:expr;)*) => {$(
            #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = $tokens)]
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
        right: gemm, fuzz(1..=70);
        tail_of_rows: gemm_without_a_tail_of_rows, fuzz(1..=70);
        behind_large_inputs: gemm_that_reads_behind_large_inputs, fuzz(1..=70);
        short_k: gemm_of_a_short_k, [5];
        whole_tiles: gemm_of_whole_tiles, [16, 32];
        whole_tiles_of_any_count: gemm_of_whole_tiles, fuzz(1..=40);
        first_launch: gemm_wrong_at_first, [5];
        first_launch_of_two_shapes: gemm_wrong_at_first, [5, 9];
        later_launches: gemm_that_keeps_a_maximum, [5];
    }
}
