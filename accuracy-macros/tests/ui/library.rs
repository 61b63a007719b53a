//! `#[kernel_library]` and its block.

use accuracy_macros::kernel_library;

#[kernel_library]
unsafe extern "C" {
    fn no_name();
}

#[kernel_library("")]
unsafe extern "C" {
    fn empty_name();
}

#[kernel_library(quant_gemm)]
unsafe extern "C" {
    fn name_without_quotes();
}

#[kernel_library("a", "b")]
unsafe extern "C" {
    fn two_names();
}

#[kernel_library("build/libquant_gemm.so")]
unsafe extern "C" {
    fn path();
}

#[kernel_library("libquant_gemm.so.1")]
unsafe extern "C" {
    fn file_name();
}

#[kernel_library("libquant_gemm")]
unsafe extern "C" {
    fn prefix();
}

#[kernel_library("quant gemm")]
unsafe extern "C" {
    fn space();
}

#[kernel_library("quant_gemm")]
unsafe extern "system" {
    fn other_abi();
}

#[kernel_library("quant_gemm")]
unsafe extern {
    fn no_abi();
}

#[kernel_library("quant_gemm")]
extern "C" {
    fn no_promise();
}

#[kernel_library("quant_gemm")]
unsafe extern "C" {}

#[kernel_library("quant_gemm")]
#[link(name = "quant_gemm")]
unsafe extern "C" {
    fn linked();
}

#[kernel_library("quant_gemm")]
fn a_function() {}

fn main() {}
