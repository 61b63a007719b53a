//! Values of a parameter from a file.

use accuracy_macros::accuracy_test;

#[accuracy_test]
fn not_all_is_said(cx: &mut Case, #[values(file = "tuned.csv")] a: i32, #[perf(column = "a")] b: i32) -> Result<Tensor> {}

#[accuracy_test]
fn keys(
    cx: &mut Case,
    #[values(file = "tuned.csv", row = "a")] a: i32,
    #[values(file = "a.csv", file = "b.csv")] b: i32,
    #[values(file = "tuned.csv", column = "a", columns = ["b"])] c: i32,
) -> Result<Tensor> {
}

#[accuracy_test]
fn values(
    cx: &mut Case,
    #[values(file = 7, column = "a")] a: i32,
    #[values(file = "tuned.csv", column = "")] b: i32,
    #[values(file = "tuned.csv", columns = [a])] c: i32,
    #[values(file = "tuned.csv", columns = "a")] d: i32,
) -> Result<Tensor> {
}

/// Number formats and paths are names in the program.
#[accuracy_test]
fn kinds(cx: &mut Case, #[variants(file = "tuned.csv", column = "a")] a: DType) -> Result<Tensor> {}

fn main() {}
