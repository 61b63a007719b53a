//! AITER's mixtures of experts against float64.

use accuracy_core::prelude::*;
use aiter_kernels::moe::*;

#[path = "declared/moe.rs"]
mod declared;
use declared::{Declared, mixture};

/// One kernel from quantised activations to the weighted sum.
#[accuracy_test(tokens = [4, 40])]
fn one_stage(
    cx: &mut Case,
    #[values(Coding::Fp8Blocks, Coding::Int8Tokens)] coding: Coding,
) -> Result<Tensor> {
    let declared = Declared::new(coding, cx.arch());
    mixture(cx, coding, declared)
}
