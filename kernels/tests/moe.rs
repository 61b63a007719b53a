//! A mixture of experts in MXFP8, from the router's logits to the weighted sum, one expert staying empty.

use accuracy_core::prelude::*;
use kernels::*;
use model::{expert_offsets, rows_by_expert, topk_experts, topk_weights, weighted_sum};

const EXPERTS: usize = 4;
const TOPK: usize = 2;
/// What is added to the logits: it leaves the third expert without a token and the others unevenly loaded.
const BIAS: [f64; EXPERTS] = [0.5, 0.0, -1e4, 0.25];

/// The chain's kernels other than its GEMMs.
#[derive(Clone, Copy)]
struct Kernels {
    route: TopkSoftmax,
    sort: MoeSort,
    quant: DynamicMxfp8Quant,
    act_quant: SwigluMxfp8Quant,
}
const PRIMARY: Kernels = Kernels {
    route: topk_softmax,
    sort: moe_sort,
    quant: dynamic_mxfp8_quant,
    act_quant: swiglu_mxfp8_quant,
};
const FALLBACK: Kernels = Kernels {
    route: topk_softmax_fallback,
    sort: moe_sort_fallback,
    quant: dynamic_mxfp8_quant_fallback,
    act_quant: swiglu_mxfp8_quant_fallback,
};

/// Each row by the weight of its expert: `w` is `[EXPERTS * n, k]`, `x` has `[tokens, k]` or a row for each slot.
fn grouped(ids: &Tensor, x: &Expr, w: &Expr) -> Expr {
    let n = w.shape().0 / EXPERTS;
    let slots = ids.rows() as usize * TOPK / x.shape().0;
    let of = |e: usize| x.matmul(&Operand::rows(w, e * n..(e + 1) * n)).repeat_rows(slots);
    select(ids, &(0..EXPERTS).map(of).collect::<Vec<_>>())
}

/// With two shards each has half of the down projection's K. Their sum is judged against the product with the whole
/// weight, not against what the shards gave.
#[accuracy_test(
    checkpoint = "shards/minilm-bf16",
    weights = {
        gate_up = "encoder.layer.{layer}.intermediate.dense",
        down = "encoder.layer.{layer}.intermediate.dense",
    },
    tokens = [1, 17],
)]
fn experts(
    cx: &mut Case,
    #[paths(primary = PRIMARY, fallback = FALLBACK)] kernels: Kernels,
    #[values(false, true)] renormalize: bool,
    #[perf(1, 2)] shards: usize,
) -> Result<Tensor> {
    let (m, topk, e) = (cx.tokens(), TOPK as i32, EXPERTS as i32);
    let mxfp8 = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil);
    let (rounding, rows, stream) = (rounding_code(mxfp8.scale_rounding)?, m * topk, cx.stream());
    let x = cx.input("x", BF16, [m, 384])?;
    let logits = cx.input("logits", BF16, [m, e])?;
    let bias = cx.constants("bias", F32, [1, e], &BIAS)?;
    let w13 = cx.weight("gate_up", mxfp8)?;
    let (h, inner) = (w13.cols(), w13.rows() / e / 2);

    let weights =
        cx.output("weights", F32, [m, topk], topk_weights(&(&logits + &bias), TOPK, renormalize))?;
    let ids = cx.output("ids", INT32, [m, topk], topk_experts(&(&logits + &bias), TOPK))?;
    let sorted = cx.output("sorted", INT32, [1, rows], rows_by_expert(&ids))?;
    let offsets = cx.output("offsets", INT32, [1, e + 1], expert_offsets(&ids, EXPERTS))?;
    let xq = cx.quantized("xq", &x, mxfp8)?;
    let hidden = cx.output("gate_up_out", BF16, [rows, 2 * inner], grouped(&ids, &xq.expr(), &w13.expr()))?;
    let i = inner as usize;
    let hq = cx.quantized("hq", silu(&hidden.columns(0..i)) * hidden.columns(i..2 * i), mxfp8)?;
    let w2 = cx.weight("down", WeightForm::from(mxfp8).columns(0..i))?;
    let down = cx.output("down_out", F32, [rows, h], grouped(&ids, &hq.expr(), &w2.expr()))?;
    let mut partial = Vec::new();
    for shard in 0..shards {
        let columns = shard * i / shards..(shard + 1) * i / shards;
        let sum = grouped(&ids, &hq.columns(columns.clone()), &w2.columns(columns.clone()));
        let of_shard = match shards {
            1 => down.clone(),
            _ => cx.output(&format!("partial_{shard}"), F32, [rows, h], sum)?,
        };
        partial.push((of_shard, columns));
    }
    let y = cx.output("y", BF16, [m, h], weighted_sum(&down, &weights))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        (kernels.route)(
            weights.data(),
            ids.data(),
            logits.data(),
            bias.data(),
            m,
            e,
            topk,
            renormalize,
            stream,
        )?;
        (kernels.sort)(sorted.data(), offsets.data(), ids.data(), rows, e, stream)?;
        (kernels.quant)(xq.data(), xq.scales(), x.data(), m, h, rounding, false, stream)?;
        grouped_gemm_mxfp8(
            hidden.data(),
            xq.data(),
            xq.scales(),
            w13.data(),
            w13.scales(),
            sorted.data(),
            offsets.data(),
            rows,
            topk,
            e,
            2 * inner,
            h,
            h,
            0,
            stream,
        )?;
        (kernels.act_quant)(hq.data(), hq.scales(), hidden.data(), rows, inner, rounding, stream)?;
        for (p, columns) in &partial {
            grouped_gemm_mxfp8_f32(
                p.data(),
                hq.data(),
                hq.scales(),
                w2.data(),
                w2.scales(),
                sorted.data(),
                offsets.data(),
                rows,
                1,
                e,
                h,
                columns.len() as i32,
                inner,
                columns.start as i32,
                stream,
            )?;
        }
        if let [(a, _), (b, _)] = &partial[..] {
            sum_shards(down.data(), a.data(), b.data(), rows, h, stream)?;
        }
        moe_weighted_sum(y.data(), weights.data(), down.data(), m, h, topk, stream)?;
    }
    Ok(y)
}
