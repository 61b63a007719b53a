//! Keys of the attribute and the kinds of their values.

use accuracy_macros::accuracy_test;

#[accuracy_test(chekpoint = "shards/tiny", token = [1])]
fn unknown(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(seed = 1, seed = 2, tokens = [1], tokens = [2])]
fn twice(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = shards, weights = "w", tokens = 3, activations = 1, min_cos = "high", seed = -7)]
fn wrong_kinds(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint("shards/tiny"), weights(w = "a"), known_failure = "gfx942", nondeterministic = true)]
fn wrong_forms(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(seed, tokens =, 7, seed = 1 2, nondeterministic(reason = "x", bound = 1e-3) min_cos = 0.9)]
fn no_values(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(, seed = 1,, min_cos = 0.99)]
fn commas(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test("shards/tiny")]
fn no_key(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "", weights = { w = "a" })]
fn empty_checkpoint(cx: &mut Case) -> Result<Tensor> {}

fn main() {}
