//! Kernels of which only the machine code for gfx942 and gfx950 exists, for the emulator: right ones, and one for each way in
//! which a kernel or its launcher goes wrong there.

#[cfg(test)]
mod tests {
    use accuracy_core::prelude::*;

    #[kernel_library("emulated")]
    unsafe extern "C" {
        #[expect_kernel = "gemm_kernel"]
        fn gemm(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        #[expect_kernel = "fast_gemm"]
        fn gemm_that_falls_back(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn add(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn add_next_row(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_of_next_row(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_past_the_end(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_that_reads_too_early(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_without_a_barrier(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_reads_null(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_writes_far_behind(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_never_ends(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_waits_for_nobody(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_calls_itself_forever(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_in_no_block(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_in_too_many_blocks(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_in_a_block_too_large(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_with_too_much_lds(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_with_an_ipc_handle(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_with_half_its_arguments(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_that_prints(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_that_asserts(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
        fn gemm_that_traps(
            y: DevPtr<bf16>,
            x: DevPtr<bf16>,
            w: DevPtr<bf16>,
            m: i32,
            n: i32,
            k: i32,
            stream: Stream,
        ) -> Status;
    }

    /// Two tests of a buffer that is updated in place and multiplied afterwards: one of the two kernels takes other rows.
    macro_rules! in_place_test {
        ($($test:ident: $add:ident, $gemm:ident;)*) => {$(
            #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
            fn $test(cx: &mut Case) -> Result<Tensor> {
                let (m, n, k) = cx.shape()?;
                let x = cx.activations()?;
                let w = cx.weight("w", BF16)?;
                let hidden = cx.inout("hidden", BF16, [m, k])?;
                let sum = cx.update(&hidden, &hidden + &x)?;
                let y = cx.output("y", BF16, [m, n], sum.matmul(&w))?;
                // SAFETY: the launchers are given buffers of the shapes that they are told.
                unsafe { $add(hidden.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
                // SAFETY: as above.
                unsafe { $gemm(y.data(), sum.data(), w.data(), m, n, k, cx.stream()) }?;
                Ok(y)
            }
        )*};
    }

    in_place_test! {
        added_in_place: add, gemm;
        another_row_added_in_place: add_next_row, gemm;
        another_row_of_the_sum: add, gemm_of_next_row;
    }

    /// One test of a GEMM.
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
        falls_back: gemm_that_falls_back;
        past_the_end: gemm_past_the_end;
        missing_wait: gemm_that_reads_too_early;
        no_barrier: gemm_without_a_barrier;
        null_read: gemm_reads_null;
        far_write: gemm_writes_far_behind;
        never_ends: gemm_never_ends;
        deadlock: gemm_waits_for_nobody;
        recursion: gemm_calls_itself_forever;
        no_block: gemm_in_no_block;
        too_many_blocks: gemm_in_too_many_blocks;
        block_too_large: gemm_in_a_block_too_large;
        too_much_lds: gemm_with_too_much_lds;
        ipc_handle: gemm_with_an_ipc_handle;
        half_its_arguments: gemm_with_half_its_arguments;
        prints: gemm_that_prints;
        asserts: gemm_that_asserts;
        traps: gemm_that_traps;
    }

    /// A case for each of 32 processes.
    #[code_object("plain")]
    unsafe extern "C" {
        fn plain_gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32);
    }

    #[accuracy_test(checkpoint = "shards/good", weights = { w = "up_proj" }, tokens = [5])]
    fn of_a_code_object(cx: &mut Case) -> Result<Tensor> {
        let (m, n, k) = cx.shape()?;
        let x = cx.activations()?;
        let w = cx.weight("w", BF16)?;
        let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
        let blocks = [(m * n).cast_unsigned().div_ceil(64), 1, 1];
        let grid = Grid { blocks, threads: [64, 1, 1], shared: 0, stream: cx.stream() };
        // SAFETY: the kernel is given buffers of the shapes that it is told.
        unsafe { plain_gemm(grid, y.data(), x.data(), w.data(), m, n, k) }?;
        Ok(y)
    }

    #[accuracy_test(
        checkpoint = "shards/good",
        weights = { w = "up_proj" },
        tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
            31, 32],
    )]
    fn side_by_side(cx: &mut Case) -> Result<Tensor> {
        let (m, n, k) = cx.shape()?;
        let x = cx.activations()?;
        let w = cx.weight("w", BF16)?;
        let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
        // SAFETY: the launcher is given buffers of the shapes that it is told.
        unsafe { gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }?;
        Ok(y)
    }
}
