//! `known_failure` and `nondeterministic`.

use accuracy_macros::accuracy_test;

#[accuracy_test(known_failure(arch = "gfx942"), known_failure())]
fn no_reason(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(known_failure(arch = "gfx942", reason = ""), known_failure(arch = gfx942, reason = 7))]
fn wrong_kinds(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(known_failure(arch = "gfx942", arch = "gfx950", reason = "a", reason = "b"))]
fn twice(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(known_failure(qant = fallback, reason = "typo"), known_failure(tile = 64, reason = "no such axis"))]
fn unknown_axis(cx: &mut Case, #[paths(primary = f, fallback = g)] quant: Quant) -> Result<Tensor> {}

#[accuracy_test(known_failure(arch = "gfx942", tile = 64, reason = "there is no axis"))]
fn no_axis(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(
    known_failure(dtype = E5M2, quant = fallbck, shuffle_scale = maybe, mode = "c", tile = 65, reason = "typos"),
    known_failure(dtype = E4M3FN, quant = fallback, shuffle_scale = true, mode = "b", tile = -64, reason = "right")
)]
fn unknown_labels(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = f, fallback = g)] quant: Quant,
    #[values(false, true)] shuffle_scale: bool,
    #[values("a", "b")] mode: &str,
    #[perf(64, -64)] tile: i32,
) -> Result<Tensor> {
}

#[accuracy_test(nondeterministic())]
fn nondeterministic_without_anything(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(nondeterministic(reason = "atomics", bound = 0.0))]
fn bound_of_zero(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(nondeterministic(reason = "atomics", bound = -1e-3))]
fn negative_bound(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(nondeterministic(reason = "atomics", bound = "small", seed = 1))]
fn bound_of_another_kind(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test(nondeterministic(reason = "a", reason = "b", bound = 1e-3), nondeterministic(reason = "c", bound = 1.0))]
fn nondeterministic_twice(cx: &mut Case) -> Result<Tensor> {}

fn main() {}
