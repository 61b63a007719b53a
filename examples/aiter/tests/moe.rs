//! AITER's mixtures of experts against float64.

use accuracy_core::prelude::*;
use aiter_kernels::moe::*;

#[path = "declared/moe.rs"]
mod declared;
use declared::{Declared, EXPERTS, HIDDEN, INNER, Routed, SLOTS, mixture};

/// One kernel from quantised activations to the weighted sum.
#[accuracy_test(
    tokens = [4, 40],
    benign(
        finding = "missing_wait",
        reason = "what the atomics add was read from LDS three hundred instructions before: in time on devices",
    ),
)]
fn one_stage(
    cx: &mut Case,
    #[values(Coding::Fp8Blocks, Coding::Int8Tokens)] coding: Coding,
) -> Result<Tensor> {
    let declared = Declared::new(coding, cx.arch());
    mixture(cx, coding, declared)
}

/// The first of two stages: a row of silu(gate) * up for each slot of each token.
#[accuracy_test(tokens = [4, 40])]
fn first_of_two_stages(cx: &mut Case, #[values(false, true)] int8: bool) -> Result<Tensor> {
    let coding = if int8 { Coding::Int8Tokens } else { Coding::Fp8Blocks };
    let Declared { dtype, weights, .. } = Declared::new(coding, cx.arch());
    let tokens = cx.tokens() as usize;
    let Routed { experts, sorted, .. } = Routed::new(tokens);
    let x = cx.input_quantized("x", Quant::token(dtype), [tokens, HIDDEN])?;
    let of_weight = Quant::channel(dtype).data_layout(weights);
    let gate_up = cx.input_quantized("gate_up", of_weight, [EXPERTS * 2 * INNER, HIDDEN])?;
    let experts = cx.indices("experts", &experts)?;
    let ids = cx.indices("sorted_ids", &sorted.ids)?;
    let sorted_experts = cx.indices("sorted_experts", &sorted.experts)?;
    let counts = cx.indices("counts", &sorted.counts)?;
    let half = |up: usize| {
        let of = |e: usize| {
            let from = (2 * e + up) * INNER;
            x.matmul(&Operand::rows(&gate_up, from..from + INNER)).repeat_rows(SLOTS)
        };
        select(&experts, &(0..EXPERTS).map(of).collect::<Vec<_>>())
    };
    let out = cx.output("out", BF16, [tokens * SLOTS, INNER], silu(&half(0)) * half(1))?;
    let given = FirstStage {
        out: out.data(),
        x: x.data(),
        x_scales: x.scales(),
        gate_up: gate_up.data(),
        gate_up_scales: gate_up.scales(),
        sorted_ids: ids.data(),
        sorted_experts: sorted_experts.data(),
        counts: counts.data(),
    };
    let form = ExpertsForm {
        coding,
        tokens: tokens as i32,
        slots: SLOTS as i32,
        experts: EXPERTS as i32,
        hidden: HIDDEN as i32,
        inner: INNER as i32,
        blocks: sorted.experts.len() as i32,
    };
    // SAFETY: every buffer has the shape that `form` says.
    unsafe { first_stage(given, int8, form, cx.stream())? };
    Ok(out)
}
