//! All mistakes of one function are reported in one compile.

use accuracy_macros::accuracy_test;

#[accuracy_test(sed = 1, tokens = [0], weights = { w = "a.{" }, known_failure(tile = 65))]
#[ignore]
async fn everything(cx: Case, #[perf(64, 64)] tile: i32, k: i32) {}

fn main() {}
