//! Attributes of the parameters.

use accuracy_macros::accuracy_test;

#[accuracy_test]
fn no_attribute(cx: &mut Case, shuffle_scale: bool, tile: i32) -> Result<Tensor> {}

#[accuracy_test]
fn two_attributes(cx: &mut Case, #[values(1)] #[perf(2)] tile: i32, #[values(1)] #[values(2)] k: i32) -> Result<Tensor> {}

#[accuracy_test]
fn unknown_attributes(cx: &mut Case, #[value(1)] tile: i32, #[cfg(unix)] #[perf(1)] k: i32) -> Result<Tensor> {}

#[accuracy_test]
fn nothing_in_them(
    cx: &mut Case,
    #[variants()] a: DType,
    #[variants] b: DType,
    #[paths()] c: Quant,
    #[values()] d: bool,
    #[perf] e: i32,
    #[perf = 1] f: i32,
) -> Result<Tensor> {
}

#[accuracy_test]
fn values_twice(
    cx: &mut Case,
    #[variants(E4M3FN, E5M2, E4M3FN)] a: DType,
    #[paths(primary = f, primary = g)] b: Quant,
    #[paths(primary = f, fallback = f)] c: Quant,
    #[values(true, false, true)] d: bool,
    #[perf(64, 64)] e: i32,
) -> Result<Tensor> {
}

#[accuracy_test]
fn wrong_values(
    cx: &mut Case,
    #[variants(dtype::E4M3FN, "E5M2", 7)] a: DType,
    #[paths(f, g)] b: Quant,
    #[paths(primary =)] c: Quant,
    #[paths("primary" = f)] d: Quant,
    #[values("")] e: &str,
    #[values("a\n")] f: &str,
    #[values(1 2)] g: i32,
) -> Result<Tensor> {
}

#[accuracy_test]
fn patterns(
    cx: &mut Case,
    #[values(1)] _: i32,
    #[values((1, 2))] (a, b): (i32, i32),
    #[values(1)] ref c: i32,
    #[values(1)] tokens: i32,
    #[values(1)] arch: i32,
) -> Result<Tensor> {
}

#[accuracy_test]
fn names_twice(cx: &mut Case, #[values(1)] k: i32, #[values(1)] k: i32) -> Result<Tensor> {}

#[accuracy_test]
fn types(cx: &mut Case, #[paths(primary = f)] quant: impl Fn()) -> Result<Tensor> {}

fn main() {}
