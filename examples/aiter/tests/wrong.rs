//! Declarations that are wrong, each of which must be red and its cause named: this binary passes nowhere.
//!
//! They show that a chain that is green says what the kernel computes, and that nothing beside it would do.

use accuracy_core::prelude::*;
use aiter_kernels::moe::Coding;

#[path = "declared/attention.rs"]
mod attention;
#[path = "declared/moe.rs"]
mod moe;

/// The other reading of FP8.
fn other(dtype: DType) -> DType {
    if dtype == E4M3FN { E4M3FNUZ } else { E4M3FN }
}

#[accuracy_test(tokens = [3])]
fn cache_in_the_other_fp8(cx: &mut Case) -> Result<Tensor> {
    use attention::{Cache, Declared, decode};
    let right = Declared::new(Cache::Fp8, 8, cx.arch());
    decode(cx, Cache::Fp8, Declared { dtype: other(right.dtype), ..right })
}

#[accuracy_test(tokens = [3])]
fn cache_in_runs_of_four(cx: &mut Case) -> Result<Tensor> {
    use attention::{Cache, Declared, decode};
    let right = Declared::new(Cache::Bf16, 8, cx.arch());
    decode(cx, Cache::Bf16, Declared { vector: 4, ..right })
}

#[accuracy_test(tokens = [3])]
fn cache_scales_by_position(cx: &mut Case) -> Result<Tensor> {
    use attention::{Cache, Declared, decode};
    let right = Declared::new(Cache::Int8, 8, cx.arch());
    decode(cx, Cache::Int8, Declared { scales: ScaleLayout::RowMajor, ..right })
}

#[accuracy_test(tokens = [40])]
fn gate_and_up_swapped(
    cx: &mut Case,
    #[values(Coding::Fp8Blocks, Coding::Int8Tokens)] coding: Coding,
) -> Result<Tensor> {
    let right = moe::Declared::new(coding, cx.arch());
    moe::mixture(cx, coding, moe::Declared { gate_first: false, ..right })
}

#[accuracy_test(tokens = [40])]
fn experts_in_the_other_fp8(cx: &mut Case) -> Result<Tensor> {
    let right = moe::Declared::new(Coding::Fp8Blocks, cx.arch());
    moe::mixture(cx, Coding::Fp8Blocks, moe::Declared { dtype: other(right.dtype), ..right })
}

#[accuracy_test(tokens = [40])]
fn experts_not_preshuffled(cx: &mut Case) -> Result<Tensor> {
    let right = moe::Declared::new(Coding::Int8Tokens, cx.arch());
    moe::mixture(cx, Coding::Int8Tokens, moe::Declared { weights: DataLayout::RowMajor, ..right })
}

#[accuracy_test(tokens = [40])]
fn activation_scales_by_token(cx: &mut Case) -> Result<Tensor> {
    let right = moe::Declared::new(Coding::Fp8Blocks, cx.arch());
    moe::mixture(cx, Coding::Fp8Blocks, moe::Declared { scales: ScaleLayout::RowMajor, ..right })
}
