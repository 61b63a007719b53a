//! Values out of their range.

use accuracy_macros::accuracy_test;

#[accuracy_test(tokens = [])]
fn no_tokens(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(tokens = [0, 1, 2147483648, -3, 1.5, "33", N, 1])]
fn tokens(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(min_cos = 0.0)]
fn least_cosine_zero(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(min_cos = 1.001)]
fn least_cosine_above_one(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(min_cos = -0.5)]
fn least_cosine_negative(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(seed = 18446744073709551616)]
fn seed_of_65_bits(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(seed = 1.5)]
fn seed_with_a_fraction(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(activations = "recorded.safetensors")]
fn activations_without_a_tensor(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(activations = "recorded.npy#x")]
fn activations_of_another_format(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])]
fn too_many_cells(
    cx: &mut Case,
    #[perf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] a: i32,
    #[perf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] b: i32,
    #[perf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)] c: i32,
    #[perf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] d: i32,
) -> Result<Tensor> {
}

fn main() {}
