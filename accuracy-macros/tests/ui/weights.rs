//! Roles of weights and their patterns.

use accuracy_macros::accuracy_test;

#[accuracy_test(weights = { w = "model.{layer}.up_proj" })]
fn no_checkpoint(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny")]
fn no_weights(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny", weights = {})]
fn no_role(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny", weights = { w, g = 1, h("x"), "k" })]
fn no_patterns(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny", weights = { w = "a.{layer}", w = "b.{layer}" })]
fn role_twice(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(
    checkpoint = "shards/tiny",
    weights = {
        a = "",
        b = "model.{layer.up",
        c = "model.layer}.up",
        d = "model.{}.up",
        e = "model.{la{yer}}.up",
        f = "model.{la yer}.up",
        h = "model.{layer}{part}",
    }
)]
fn patterns(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(
    checkpoint = "shards/tiny",
    weights = { gate = "model.{layer}.gate", down = "model.{layer}.{expert}.down", lm = "{head}" }
)]
fn capture_of_no_earlier_role(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny", weights = { gate = "model.gate", down = "model.{layer}.down" })]
fn first_role_without_captures(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(checkpoint = "shards/tiny", weights = { arch = "model.gate", quant = "model.up" })]
fn roles_with_taken_names(
    cx: &mut Case,
    #[paths(primary = f)] quant: Quant,
) -> Result<Tensor> {
}

fn main() {}
