//! The launchers of a `#[kernel_library]` block.

use accuracy_macros::kernel_library;

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    fn variadic(m: i32, ...) -> i32;
    fn generic<T>(x: T) -> i32;
    fn bounded(m: i32) -> i32
    where
        i32: Copy;
    fn method(&self, m: i32) -> i32;
    fn unnamed(_: i32) -> i32;
    fn pattern((m, n): (i32, i32)) -> i32;
    fn mutable(mut m: i32) -> i32;
    fn parameter_twice(m: i32, m: i32) -> i32;
    fn attribute(#[values(1)] m: i32) -> i32;
    static VERSION: i32;
    type Handle;
    fn returns_float() -> f32;
    fn returns_pointer() -> *const i32;
    fn returns_result() -> Result<i32>;
    #[link_name]
    fn no_symbol() -> i32;
    #[link_name = ""]
    fn empty_symbol() -> i32;
}

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    fn gemm_a8(m: i32) -> i32;
    fn gemm_a8(m: i32) -> i32;
    fn gemm_a_8(m: i32) -> i32;
    fn gemm_a__8(m: i32) -> i32;
    fn stream(m: i32, stream: Stream) -> i32;
    fn _8bit(m: i32) -> i32;
}

fn main() {}
