//! What a test and a launcher say of devices: the memory that a case needs, the kernel that has to run.

use accuracy_macros::{accuracy_test, code_object, kernel_library};

#[accuracy_test(memory = 24)]
fn no_unit(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(memory = "24 GB")]
fn decimal_unit(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(memory = "-1 GiB")]
fn negative(cx: &mut Case) -> Result<Tensor> {}

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    #[expect_kernel]
    fn no_regex() -> i32;
    #[expect_kernel = 1]
    fn number() -> i32;
    #[expect_kernel = "gemm_("]
    fn unclosed() -> i32;
}

#[code_object("matmul")]
unsafe extern "C" {
    #[expect_kernel = "matmul"]
    fn matmul(y: DevPtr<f32>);
}

fn main() {}
