//! Parts of a model that integers steer: rotary embedding, routing of experts, paged attention.
//!
//! Each comes with the faults that kernels of its kind have, so that power shows whether a test would see them.
//! Indices are buffers: of the test's own ([`crate::Case::indices`]) or written by a kernel.

use super::graph::{BufferId, CodeRounding, Expr, Op, Operand, Rounding, user};
use super::matrix::Matrix;
use crate::dtype::{BF16, DType, E4M3FN, E4M3FNUZ, F16};
use crate::quant::Quant;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(i, i + d/2)`: rotate_half of Llama in HF, Qwen, gpt-oss.
    Neox,
    /// `(2i, 2i + 1)`: GPT-J, DeepSeek, Llama's original weights.
    GptJ,
}

/// How the table of a rotary embedding is read.
#[derive(Clone, Copy)]
enum Table {
    /// Cosines, then sines: as it is.
    Halves,
    Backwards,
    Exchanged,
    Pairs,
}

/// Cosines and sines of `positions` positions, `[positions, d]`: d/2 cosines, then d/2 sines, of the angles
/// `position * theta^(-2i/d)`.
pub fn cos_sin_table(positions: usize, d: usize, theta: f64) -> Vec<f64> {
    let angle = |p: usize, i: usize| p as f64 * theta.powf(-2.0 * i as f64 / d as f64);
    let row = |p: usize| {
        let cosines = (0..d / 2).map(move |i| angle(p, i).cos());
        cosines.chain((0..d / 2).map(move |i| angle(p, i).sin()))
    };
    (0..positions).flat_map(row).collect()
}

/// Rotary embedding of `x`, `[tokens, heads * d]`, with a table as [`cos_sin_table`] has it, `[_, d]`, and a position
/// for each token. Faults: `rope` (the other style), `rope_backwards` (the sine negated), `rope_exchanged` (sine for
/// cosine), `rope_pairs` (the table read as pairs of both).
pub fn rope(x: &impl Operand, cos_sin: &impl Operand, positions: &impl Operand, style: RopeStyle) -> Expr {
    let d = cos_sin.expr().shape().1;
    partial_rope(x, (d, 0..d), cos_sin, positions, style)
}

/// Rotary embedding of some columns of each head of `head` columns; the others stay as they are. The table is as wide as what
/// is rotated. GLM and Phi rotate the first columns of a head, multi-head latent attention the last 64.
///
/// Faults: as of [`rope`].
///
/// # Example
/// ```
/// # use accuracy_core::prelude::*;
/// use accuracy_core::prelude::model::partial_rope;
///
/// /// Heads of 192 columns, of which the last 64 are rotated.
/// fn rotated(q: &Tensor, cos_sin: &Tensor, positions: &Tensor) -> Expr {
///     partial_rope(q, (192, 128..192), cos_sin, positions, RopeStyle::GptJ)
/// }
/// ```
pub fn partial_rope(
    x: &impl Operand,
    (head, part): (usize, Range<usize>),
    cos_sin: &impl Operand,
    positions: &impl Operand,
    style: RopeStyle,
) -> Expr {
    let (x, cos_sin, positions) = (&x.expr(), &cos_sin.expr(), &positions.expr());
    let (shape, d) = (x.shape(), cos_sin.shape().1);
    let fits = d.is_multiple_of(2)
        && part.len() == d
        && part.end <= head
        && head > 0
        && shape.1.is_multiple_of(head)
        && positions.shape().1 * positions.shape().0 == shape.0;
    if !fits {
        return Expr::unfit(format!(
            "rope of columns {part:?} of heads of {head} of {shape:?} with a table {:?} and positions {:?}",
            cos_sin.shape(),
            positions.shape()
        ));
    }
    let rotate = |style: RopeStyle, table_as: Table, part: &Range<usize>| {
        let part = part.clone();
        move |inputs: &[&Matrix]| rotated(inputs, (head, &part), style, table_as)
    };
    let other = match style {
        RopeStyle::Neox => RopeStyle::GptJ,
        RopeStyle::GptJ => RopeStyle::Neox,
    };
    let mut out = user("rope", &[x, cos_sin, positions], shape, rotate(style, Table::Halves, &part))
        .fault("rope", rotate(other, Table::Halves, &part))
        .fault("rope_backwards", rotate(style, Table::Backwards, &part))
        .fault("rope_exchanged", rotate(style, Table::Exchanged, &part))
        .fault("rope_pairs", rotate(style, Table::Pairs, &part));
    for (words, place) in [("first", 0..d), ("last", head - d..head)] {
        if place != part {
            let what =
                format!("rotates the {words} {d} columns of each head of {head}, not columns {part:?}");
            out = out.suspect("rope", what, rotate(style, Table::Halves, &place));
        }
    }
    out
}

/// Columns `part` of each head of `head` columns, rotated by a table and positions.
fn rotated(
    inputs: &[&Matrix],
    (head, part): (usize, &Range<usize>),
    style: RopeStyle,
    table_as: Table,
) -> Matrix {
    let [x, table, positions] = inputs else { unreachable!("three inputs") };
    let (mut out, d) = ((*x).clone(), part.len());
    for r in 0..x.rows {
        let row = row(table, positions.data[r]);
        for (to, from) in out.row_mut(r).chunks_mut(head).zip(x.row(r).chunks(head)) {
            let (to, from) = (&mut to[part.clone()], &from[part.clone()]);
            for i in 0..d / 2 {
                let (a, b) = match style {
                    RopeStyle::Neox => (i, i + d / 2),
                    RopeStyle::GptJ => (2 * i, 2 * i + 1),
                };
                let (cosine, sine) = match table_as {
                    Table::Halves => (row[i], row[d / 2 + i]),
                    Table::Backwards => (row[i], -row[d / 2 + i]),
                    Table::Exchanged => (row[d / 2 + i], row[i]),
                    Table::Pairs => (row[2 * i], row[2 * i + 1]),
                };
                to[a] = from[a] * cosine - from[b] * sine;
                to[b] = from[b] * cosine + from[a] * sine;
            }
        }
    }
    out
}

/// Row `index` of a table; the first one for an index that there is not.
fn row(table: &Matrix, index: f64) -> &[f64] {
    table.row(if index >= 0.0 && index < table.rows as f64 { index as usize } else { 0 })
}

/// The experts of each token: the `topk` largest of `logits`, `[tokens, experts]`, in descending order, of equals the
/// lower one. Faults: `router` (the largest is left out), `router_smallest` (the smallest are taken).
pub fn topk_experts(logits: &impl Operand, topk: usize) -> Expr {
    let (tokens, experts) = logits.expr().shape();
    if topk == 0 || topk >= experts {
        return Expr::unfit(format!(
            "the {topk} largest of {experts} experts: expected 1 to {}",
            experts.saturating_sub(1)
        ));
    }
    let choose = move |skip: usize| {
        move |inputs: &[&Matrix]| {
            let ids = (0..tokens).flat_map(|t| ranked(inputs[0].row(t)).into_iter().skip(skip).take(topk));
            Matrix::new(tokens, topk, ids.map(|e| e as f64).collect())
        }
    };
    let smallest = move |inputs: &[&Matrix]| {
        let ids = (0..tokens).flat_map(|t| ranked(inputs[0].row(t)).into_iter().rev().take(topk));
        Matrix::new(tokens, topk, ids.map(|e| e as f64).collect())
    };
    user("topk_experts", &[&logits.expr()], (tokens, topk), choose(0))
        .fault("router", choose(1))
        .fault("router_smallest", smallest)
}

/// The softmax of each row. Faults: `softmax_base`, powers of 2 for those of e; `softmax_half`, whose sums leave out the
/// second half of the columns.
pub fn softmax(x: &impl Operand) -> Expr {
    let (rows, cols) = x.expr().shape();
    let softmax = move |base: f64, summed: usize| {
        move |inputs: &[&Matrix]| {
            let of_row = |r: usize| {
                let row = inputs[0].row(r);
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = row.iter().map(|x| base.powf(x - most)).collect();
                let total: f64 = powers[..summed].iter().sum();
                powers.into_iter().map(move |power| power / total)
            };
            Matrix::new(rows, cols, (0..rows).flat_map(of_row).collect())
        }
    };
    let of_e = user("softmax", &[&x.expr()], (rows, cols), softmax(std::f64::consts::E, cols))
        .fault("softmax_base", softmax(2.0, cols));
    // The softmax of one column is 1, whatever its power and its sum.
    if cols > 1 { of_e.fault("softmax_half", softmax(std::f64::consts::E, cols.div_ceil(2))) } else { of_e }
}

/// The softmax over all experts, of the `topk` largest; divided by their sum with `renormalize`. Fault `router`:
/// `renormalize` is ignored.
pub fn topk_weights(logits: &impl Operand, topk: usize, renormalize: bool) -> Expr {
    let (tokens, experts) = logits.expr().shape();
    let weights = move |renormalize: bool| {
        move |inputs: &[&Matrix]| {
            let of_token = |t: usize| {
                let logits = inputs[0].row(t);
                let order = ranked(logits);
                let exp: Vec<f64> = order.iter().map(|&e| (logits[e] - logits[order[0]]).exp()).collect();
                let total: f64 = exp[..if renormalize { topk } else { exp.len() }].iter().sum();
                exp.into_iter().take(topk).map(move |e| e / total)
            };
            Matrix::new(tokens, topk, (0..tokens).flat_map(of_token).collect())
        }
    };
    let next = move |inputs: &[&Matrix]| {
        let of_token = |t: usize| {
            let logits = inputs[0].row(t);
            let order = ranked(logits);
            let exp: Vec<f64> = order.iter().map(|&e| (logits[e] - logits[order[0]]).exp()).collect();
            let total: f64 = if renormalize { exp[1..=topk].iter().sum() } else { exp.iter().sum() };
            exp.into_iter().skip(1).take(topk).map(move |e| e / total)
        };
        Matrix::new(tokens, topk, (0..tokens).flat_map(of_token).collect())
    };
    let sigmoids = move |inputs: &[&Matrix]| {
        let of_token = |t: usize| {
            let logits = inputs[0].row(t);
            let each: Vec<f64> =
                ranked(logits).into_iter().take(topk).map(|e| 1.0 / (1.0 + (-logits[e]).exp())).collect();
            let total: f64 = if renormalize { each.iter().sum() } else { 1.0 };
            each.into_iter().map(move |e| e / total)
        };
        Matrix::new(tokens, topk, (0..tokens).flat_map(of_token).collect())
    };
    let out = user("topk_weights", &[&logits.expr()], (tokens, topk), weights(renormalize))
        .fault("router", weights(!renormalize))
        .fault("router_sigmoid", sigmoids);
    // With all experts chosen there is no next one.
    if topk < experts { out.fault("router_next", next) } else { out }
}

/// Buffers that are a router's logits: what experts are chosen by, as they are given.
pub(crate) fn logits_of(source: &Expr) -> Vec<BufferId> {
    let mut found = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { name, inputs, .. } = &e.0.op
            && let Some(Op::Buffer(id)) = inputs.first().map(|logits| &logits.0.op)
            && ["topk_experts", "topk_weights", GROUP_EXPERTS, GROUP_WEIGHTS].contains(&name.as_str())
        {
            found.push(*id);
        }
    });
    found
}

pub(crate) const GROUP_EXPERTS: &str = "group_topk_experts";
pub(crate) const GROUP_WEIGHTS: &str = "group_topk_weights";

/// What a router makes of its logits before it chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// The softmax over all experts: DeepSeek-V2.
    Softmax,
    /// The sigmoid of each: DeepSeek-V3.
    Sigmoid,
}

/// Routing in groups: of `groups` groups of experts the best `chosen`, and of their experts the best `topk`. With one group
/// it is routing by sigmoids or a softmax with a bias for the selection alone.
///
/// # Example
/// ```
/// # use accuracy_core::prelude::*;
/// use accuracy_core::prelude::model::{GroupRouting, Scoring, group_topk_experts, group_topk_weights};
///
/// /// The 8 best of all experts by the sigmoids of their logits, to which `bias` `[1, experts]` is added; weights without it.
/// fn route(logits: &Tensor, bias: &Tensor) -> (Expr, Expr) {
///     let form = GroupRouting {
///         groups: 1,
///         chosen: 1,
///         topk: 8,
///         scoring: Scoring::Sigmoid,
///         best: 1,
///         renormalize: true,
///         factor: 1.0,
///     };
///     (group_topk_experts(logits, bias, form), group_topk_weights(logits, bias, form))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRouting {
    pub groups: usize,
    pub chosen: usize,
    pub topk: usize,
    pub scoring: Scoring,
    /// How many of a group's best experts its own score is the sum of: 1 in DeepSeek-V2, 2 in DeepSeek-V3.
    pub best: usize,
    /// Whether weights are divided by their sum.
    pub renormalize: bool,
    /// What weights are multiplied with.
    pub factor: f64,
}

impl GroupRouting {
    fn misfit(&self, logits: (usize, usize), bias: (usize, usize)) -> Option<String> {
        let experts = logits.1;
        let of_group = experts.checked_div(self.groups).unwrap_or(0);
        let fits = self.groups > 0
            && experts.is_multiple_of(self.groups)
            && bias == (1, experts)
            && (1..=self.groups).contains(&self.chosen)
            && (1..=of_group).contains(&self.best)
            && (1..=self.chosen * of_group).contains(&self.topk);
        (!fits).then(|| format!("routing of logits {logits:?} with a bias {bias:?} by {self:?}"))
    }

    /// The scores of a token's experts, and the chosen ones, the best first.
    fn choose(&self, logits: &[f64], bias: &[f64]) -> (Vec<f64>, Vec<usize>) {
        let scores: Vec<f64> = match self.scoring {
            Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Scoring::Softmax => {
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exp: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
                let total: f64 = exp.iter().sum();
                exp.into_iter().map(|e| e / total).collect()
            }
        };
        let biased: Vec<f64> = scores.iter().zip(bias).map(|(score, bias)| score + bias).collect();
        let of_group = logits.len() / self.groups;
        let of_groups: Vec<f64> = biased
            .chunks(of_group)
            .map(|group| ranked(group).into_iter().take(self.best).map(|e| group[e]).sum())
            .collect();
        let kept = &ranked(&of_groups)[..self.chosen];
        let experts = ranked(&biased).into_iter().filter(|e| kept.contains(&(e / of_group)));
        (scores, experts.take(self.topk).collect())
    }
}

/// The experts of each token by group-limited routing, the best first, of equals the lower one. `bias` `[1, experts]` is
/// added to the scores that experts are chosen by. Faults: `router` (groups are ignored), `router_bias` (the bias is).
pub fn group_topk_experts(logits: &impl Operand, bias: &impl Operand, form: GroupRouting) -> Expr {
    routed(GROUP_EXPERTS, logits, bias, form, |_, experts, _| experts.iter().map(|&e| e as f64).collect())
}

/// The weights of those experts: their scores without the bias. Faults: as of [`group_topk_experts`].
pub fn group_topk_weights(logits: &impl Operand, bias: &impl Operand, form: GroupRouting) -> Expr {
    routed(GROUP_WEIGHTS, logits, bias, form, |scores, experts, form| {
        let total: f64 = if form.renormalize { experts.iter().map(|&e| scores[e]).sum() } else { 1.0 };
        experts.iter().map(|&e| form.factor * scores[e] / total).collect()
    })
}

fn routed(
    name: &str,
    logits: &impl Operand,
    bias: &impl Operand,
    form: GroupRouting,
    row: impl Fn(&[f64], &[usize], GroupRouting) -> Vec<f64> + Clone + Send + Sync + 'static,
) -> Expr {
    let (logits, bias) = (logits.expr(), bias.expr());
    if let Some(why) = form.misfit(logits.shape(), bias.shape()) {
        return Expr::unfit(why);
    }
    let tokens = logits.shape().0;
    let route = |form: GroupRouting, biased: bool| {
        let row = row.clone();
        move |inputs: &[&Matrix]| {
            let none = vec![0.0; inputs[1].cols];
            let bias = if biased { &inputs[1].data } else { &none };
            let of_token = |t: usize| {
                let (scores, experts) = form.choose(inputs[0].row(t), bias);
                row(&scores, &experts, form)
            };
            Matrix::new(inputs[0].rows, form.topk, (0..inputs[0].rows).flat_map(of_token).collect())
        }
    };
    let mut out = user(name, &[&logits, &bias], (tokens, form.topk), route(form, true))
        .fault("router_bias", route(form, false));
    if form.chosen < form.groups {
        out = out.fault("router", route(GroupRouting { chosen: form.groups, ..form }, true));
    }
    out
}

/// Indices by their values, the largest first, of equals the lower one. 0 and -0 are equal; the total order of floats has
/// them in that order.
fn ranked(logits: &[f64]) -> Vec<usize> {
    let value = |i: usize| logits[i] + 0.0;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    order
}

/// The rows `token * topk + slot` in the order of their experts `ids`, within an expert ascending, `[1, rows]`.
/// Fault `router`: in the order of the tokens.
pub fn rows_by_expert(ids: &impl Operand) -> Expr {
    let (tokens, topk) = ids.expr().shape();
    let count = tokens * topk;
    let sorted = move |inputs: &[&Matrix]| {
        let mut rows: Vec<usize> = (0..count).collect();
        rows.sort_by(|&a, &b| inputs[0].data[a].total_cmp(&inputs[0].data[b]).then(a.cmp(&b)));
        Matrix::new(1, count, rows.into_iter().map(|r| r as f64).collect())
    };
    let unsorted = move |_: &[&Matrix]| Matrix::new(1, count, (0..count).map(|r| r as f64).collect());
    user("rows_by_expert", &[&ids.expr()], (1, count), sorted).fault("router", unsorted)
}

/// How many rows the experts before each one have, `[1, experts + 1]`. Fault `router`: the counts themselves.
pub fn expert_offsets(ids: &impl Operand, experts: usize) -> Expr {
    let below = |ids: &Matrix, e: usize| ids.data.iter().filter(|&&id| id < e as f64).count() as f64;
    let offsets = move |inputs: &[&Matrix]| {
        Matrix::new(1, experts + 1, (0..=experts).map(|e| below(inputs[0], e)).collect())
    };
    let counts = move |inputs: &[&Matrix]| {
        let count = |e| below(inputs[0], e + 1) - below(inputs[0], e);
        Matrix::new(1, experts + 1, (0..=experts).map(count).collect())
    };
    user("expert_offsets", &[&ids.expr()], (1, experts + 1), offsets).fault("router", counts)
}

/// `sum over slots of weights[token, slot] * x[token * topk + slot]`. Fault `router`: all weights are alike.
pub fn weighted_sum(x: &impl Operand, weights: &impl Operand) -> Expr {
    let ((rows, cols), (tokens, topk)) = (x.expr().shape(), weights.expr().shape());
    if rows != tokens * topk {
        return Expr::unfit(format!("weighted_sum of {rows} rows with weights [{tokens}, {topk}]"));
    }
    let sum = move |alike: bool| {
        move |inputs: &[&Matrix]| {
            let mut out = Matrix::zeros(tokens, cols);
            for r in 0..rows {
                let weight = if alike { 1.0 / topk as f64 } else { inputs[1].data[r] };
                let x = inputs[0].row(r);
                out.row_mut(r / topk).iter_mut().zip(x).for_each(|(out, x)| *out += weight * x);
            }
            out
        }
    };
    user("weighted_sum", &[&x.expr(), &weights.expr()], (tokens, cols), sum(false)).fault("router", sum(true))
}

/// `cache` with row `slots[r]` replaced by row `r` of `x`. A slot that there is not is left out.
pub fn write_rows(cache: &impl Operand, x: &impl Operand, slots: &impl Operand) -> Expr {
    let (shape, (rows, cols)) = (cache.expr().shape(), x.expr().shape());
    if shape.1 != cols || slots.expr().shape().0 * slots.expr().shape().1 != rows {
        return Expr::unfit(format!(
            "[{rows}, {cols}] written to rows of {shape:?} with {:?} slots",
            slots.expr().shape()
        ));
    }
    user("write_rows", &[&cache.expr(), &x.expr(), &slots.expr()], shape, |inputs| {
        let mut out = inputs[0].clone();
        for (r, &slot) in inputs[2].data.iter().enumerate() {
            if slot >= 0.0 && slot < out.rows as f64 {
                out.row_mut(slot as usize).copy_from_slice(inputs[1].row(r));
            }
        }
        out
    })
}

/// Shape of [`paged_attention`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PagedAttention {
    pub heads: usize,
    pub kv_heads: usize,
    /// Positions of a block.
    pub block: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f64,
    /// Query tokens of each sequence, the last positions of it: several where a model predicts more than one token at a
    /// time. They are rows `seq * queries + i` of the queries.
    pub queries: usize,
    /// Whether a query attends to positions up to its own only, instead of to all of its sequence.
    pub causal: bool,
    /// Positions that a query attends to at the most, its own included: a sliding window.
    pub window: Option<usize>,
    /// Scores are `cap * tanh(score / cap)` before the softmax: Gemma 2, Grok.
    pub soft_cap: Option<f64>,
    /// Columns of each value head; MLA's values are the first 512 of keys of 576 columns, one head for all.
    pub value_width: Option<usize>,
    /// The format that the kernel rounds probabilities to before it multiplies them with values.
    pub probabilities: Option<DType>,
    /// What the kernel quantises by itself in between.
    pub quantized: Option<AttentionQuant>,
}

/// An attention kernel that multiplies in the format of its cache quantises queries and probabilities by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionQuant {
    /// The format of keys and values: queries are quantised to it, a scale for each head of a token.
    pub dtype: DType,
    /// How values become codes.
    pub codes: CodeRounding,
    /// Positions that share a scale of the probabilities, which are quantised together with the scales of their values;
    /// `None` where probabilities are not quantised.
    pub positions: Option<usize>,
}

impl PagedAttention {
    /// One query token of each sequence, which attends to all positions; `value_width` is that of keys.
    pub fn new(heads: usize, kv_heads: usize, block: usize, scale: f64) -> PagedAttention {
        PagedAttention {
            heads,
            kv_heads,
            block,
            scale,
            queries: 1,
            causal: true,
            window: None,
            soft_cap: None,
            value_width: None,
            probabilities: None,
            quantized: None,
        }
    }

    /// So many query tokens of each sequence, its last ones.
    pub fn queries(self, queries: usize) -> PagedAttention {
        PagedAttention { queries, ..self }
    }

    /// Every query attends to all positions of its sequence, also to those behind it.
    pub fn not_causal(self) -> PagedAttention {
        PagedAttention { causal: false, ..self }
    }

    /// A query attends to so many positions at the most, its own included.
    pub fn window(self, positions: usize) -> PagedAttention {
        PagedAttention { window: Some(positions), ..self }
    }

    /// Scores, once they are multiplied with their scale, are `cap * tanh(score / cap)`.
    pub fn soft_cap(self, cap: f64) -> PagedAttention {
        PagedAttention { soft_cap: Some(cap), ..self }
    }

    /// Columns of each value head.
    pub fn value_width(self, columns: usize) -> PagedAttention {
        PagedAttention { value_width: Some(columns), ..self }
    }

    /// The format that the kernel rounds probabilities to.
    pub fn probabilities(self, dtype: DType) -> PagedAttention {
        PagedAttention { probabilities: Some(dtype), ..self }
    }

    /// What the kernel quantises by itself.
    pub fn quantized(self, quantized: AttentionQuant) -> PagedAttention {
        PagedAttention { quantized: Some(quantized), ..self }
    }

    /// What enters the softmax of a score that was multiplied with its scale.
    fn capped(&self, score: f64) -> f64 {
        self.soft_cap.map_or(score, |cap| cap * (score / cap).tanh())
    }

    /// Columns of each value head where keys have `d`.
    fn width(&self, d: usize) -> usize {
        self.value_width.unwrap_or(d)
    }

    /// Why queries, keys and values of these shapes do not fit.
    fn misfit(&self, q: (usize, usize), k: (usize, usize), v: (usize, usize)) -> Option<String> {
        let PagedAttention { heads, kv_heads, block, queries, .. } = *self;
        let divides = heads > 0
            && kv_heads > 0
            && block > 0
            && queries > 0
            && self.window != Some(0)
            && self.soft_cap.is_none_or(|cap| cap > 0.0 && cap.is_finite())
            && heads.is_multiple_of(kv_heads)
            && q.1.is_multiple_of(heads)
            && q.0.is_multiple_of(queries);
        let fits = divides && {
            let d = q.1 / heads;
            k.1 == d * kv_heads
                && v.0 == k.0
                && (v.1 == self.width(d) * kv_heads
                    || kv_heads == 1 && v.1 == d && (1..=d).contains(&self.width(d)))
        };
        (!fits).then(|| format!("attention of queries {q:?} over keys {k:?} and values {v:?} with {self:?}"))
    }
}

/// Attention of the query tokens of each sequence, `[seqs * queries, heads * d]`, over its positions in the caches
/// `[slots, kv_heads * d]`: position `p` is in slot `tables[seq][p / block] * block + p % block`, `tables` being
/// `seqs` rows of block numbers. Query head `h` attends to key head `h / (heads / kv_heads)`.
///
/// With one key head, values may be the cache of keys itself, of which the first `value_width` columns count.
///
/// Faults: `gqa_tiled` (key head `h % kv_heads`), `context_short` (the last position left out).
pub fn paged_attention(
    q: &impl Operand,
    (k, v): (&impl Operand, &impl Operand),
    tables: &impl Operand,
    lengths: &impl Operand,
    form: PagedAttention,
) -> Expr {
    let inputs = [q.expr(), k.expr(), v.expr(), tables.expr(), lengths.expr()];
    paged_attention_of(&inputs, form)
}

/// The same with a sink for each head, `sinks` `[1, heads]`: a score more in the sum that probabilities are divided by, with
/// no value. gpt-oss.
///
/// Faults: as of [`paged_attention`], and `addend_missing` (no sinks).
pub fn paged_attention_with_sinks(
    q: &impl Operand,
    (k, v): (&impl Operand, &impl Operand),
    tables: &impl Operand,
    lengths: &impl Operand,
    sinks: &impl Operand,
    form: PagedAttention,
) -> Expr {
    let given = sinks.expr().shape();
    if given.0 * given.1 != form.heads {
        return Expr::unfit(format!(
            "attention with sinks {given:?}: expected one for each of {} heads",
            form.heads
        ));
    }
    let inputs = [q.expr(), k.expr(), v.expr(), tables.expr(), lengths.expr(), sinks.expr()];
    paged_attention_of(&inputs, form)
        .fault("addend_missing", move |inputs: &[&Matrix]| attention(&inputs[..5], form, Wrong::Nothing))
}

/// Queries, keys, values, block tables, lengths and, if there are any, sinks.
fn paged_attention_of(inputs: &[Expr], form: PagedAttention) -> Expr {
    let [q, k, v] = [0, 1, 2].map(|i| inputs[i].expr());
    let shape = q.shape();
    let PagedAttention { heads, kv_heads, block, .. } = form;
    if let Some(why) = form.misfit(shape, k.shape(), v.shape()) {
        return Expr::unfit(why);
    }
    let out_shape = (shape.0, heads * form.width(shape.1 / heads));
    let attend = move |wrong: Wrong| move |inputs: &[&Matrix]| attention(inputs, form, wrong);
    let operands: Vec<&dyn Operand> = inputs.iter().map(|input| input as &dyn Operand).collect();
    let mut out = user("paged_attention", &operands, out_shape, attend(Wrong::Nothing))
        .fault("context_short", attend(Wrong::Short));
    out = form.rounded(out);
    if form.quantized.is_some() {
        out = out.rounding(Rounding::Ties(Arc::new(attend(Wrong::Ties))));
    }
    // With one key head, or one for each query head, the two orders are the same.
    if kv_heads > 1 && kv_heads < heads {
        out = out.fault("gqa_tiled", attend(Wrong::Tiled));
    }
    if inputs.len() == 5 {
        out = out.suspect("addend_extra", "adds a sink of 0 to the softmax".into(), attend(Wrong::Sink));
    }
    for (cause, what, times) in [
        ("activation", "takes powers of 2 for those of e in the softmax".to_owned(), 2f64.ln()),
        ("gain", format!("does not multiply the scores with their scale {}", form.scale), 1.0 / form.scale),
        ("gain", format!("multiplies the scores twice with their scale {}", form.scale), form.scale),
        (
            "gain",
            format!("multiplies the scores with the root of their scale {}", form.scale),
            form.scale.sqrt().recip(),
        ),
    ] {
        out = out.suspect(cause, what, attend(Wrong::Times(times)));
    }
    // The width of a head of queries, of its values, and those that are common: by which of them scores are scaled.
    let mut widths = vec![q.shape().1 / heads, form.value_width.unwrap_or(0), 32, 64, 128];
    widths.retain(|width| *width > 0);
    widths.sort_unstable();
    widths.dedup();
    for width in &widths {
        let root = (*width as f64).sqrt();
        for (scale, words) in [(1.0 / root, "1 / the root of"), (1.0 / *width as f64, "1 /")] {
            if (scale / form.scale - 1.0).abs() > 1e-6 {
                let what = format!("multiplies the scores with {words} {width}, not with {}", form.scale);
                out = out.suspect("gain", what, attend(Wrong::Times(scale / form.scale)));
            }
        }
        for other in widths.iter().filter(|other| *other != width) {
            let times = *width as f64 / *other as f64;
            let what =
                format!("multiplies the scores with {width} / {other} times their scale {}", form.scale);
            if *other == q.shape().1 / heads || *width == q.shape().1 / heads {
                out = out.suspect("gain", what, attend(Wrong::Times(times)));
            }
        }
    }
    if let Some(cap) = form.soft_cap {
        let what = format!("does not cap the scores at {cap}");
        out = out.suspect("activation", what, attend(Wrong::Uncapped));
        let what =
            format!("caps the scores at {cap} before it multiplies them with their scale {}", form.scale);
        out = out.suspect("activation", what, attend(Wrong::CappedFirst));
    }
    for cap in [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0] {
        if form.soft_cap == Some(cap) {
            continue;
        }
        out = out.suspect("activation", format!("caps scores at {cap} by tanh"), attend(Wrong::Capped(cap)));
    }
    for size in [16, 32, 64, 128] {
        let what = format!(
            "does not scale down what it has summed up when the maximum of {size} more scores is larger"
        );
        out = out.suspect("accumulation", what, attend(Wrong::NotRescaled(size)));
    }
    for to in [BF16, F16, E4M3FN, E4M3FNUZ] {
        let what = format!("rounds probabilities to {to}");
        out = out.suspect("rounding", what, attend(Wrong::Rounded(to, true)));
        let what = format!("rounds probabilities to {to} before it divides them by their sum");
        out = out.suspect("rounding", what, attend(Wrong::Rounded(to, false)));
    }
    for size in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096] {
        let what = format!("attends to the last {size} positions only");
        out = out.suspect("k_tail_dropped", what, attend(Wrong::Last(size)));
        let what = format!("attends to the first {size} positions only");
        out = out.suspect("k_tail_dropped", what, attend(Wrong::First(size)));
    }
    let mut sizes = vec![1, block, 16, 32, 64, 128];
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        for (what, wrong) in [
            (format!("leaves out the first {size} positions"), Wrong::WithoutFirst(size)),
            (format!("leaves out the last {size} positions"), Wrong::WithoutLast(size)),
            (format!("attends to whole blocks of {size} positions only"), Wrong::Whole(size)),
            (format!("takes padding up to whole blocks of {size} for scores of 0"), Wrong::Padded(size)),
            (format!("attends on to the end of a block of {size} positions"), Wrong::Beyond(size)),
        ] {
            out = out.suspect("k_tail_dropped", what, attend(wrong));
        }
    }
    out = out.suspect("k_tail_dropped", "attends to one position too many".into(), attend(Wrong::OneMore));
    let d = q.shape().1 / heads;
    for size in [8, 16, 32, 64, 128].into_iter().filter(|&size| size < d) {
        let what = format!("leaves the last {size} of each head of {d} out of the scores");
        out = out.suspect("k_tail_dropped", what, attend(Wrong::Scores(0, d - size)));
        let what = format!("leaves the first {size} of each head of {d} out of the scores");
        out = out.suspect("k_tail_dropped", what, attend(Wrong::Scores(size, d)));
    }
    for (what, wrong) in [
        ("takes the first block of each sequence for all of its blocks", Wrong::FirstBlock),
        ("takes the blocks of the first sequence for those of each", Wrong::FirstTable),
    ] {
        out = out.suspect("router", what.into(), attend(wrong));
    }
    for (by, words) in [(-1, "one shorter"), (1, "one longer")] {
        let what = format!("takes the rows of the block table to be {words} than they are");
        out = out.suspect("permuted_tiles", what, attend(Wrong::TableStride(by)));
    }
    for page in 1..4 {
        for (which, keys, values) in
            [("keys", true, false), ("values", false, true), ("keys and values", true, true)]
        {
            let what = format!("reads the {which} of block {page} of a sequence from block {}", page - 1);
            out = out.suspect("permuted_tiles", what, attend(Wrong::Stale { page, keys, values }));
        }
    }
    for (which, keys, values) in
        [("keys", true, false), ("values", false, true), ("keys and values", true, true)]
    {
        for (first, words) in [(true, "its first one"), (false, "the one before")] {
            let what = format!("reads the {which} of the last block of a sequence from {words}");
            out = out.suspect("permuted_tiles", what, attend(Wrong::LastBlock { first, keys, values }));
        }
        for (by, words) in [(-1, "before"), (1, "behind")] {
            let what = format!("reads the {which} of a position from the one {words}");
            out = out.suspect("permuted_tiles", what, attend(Wrong::Shifted { by, keys, values }));
        }
    }
    if let Some(window) = form.window {
        for (what, wrong) in [
            (format!("attends to one position more than its window of {window}"), Wrong::FromEarlier(1)),
            (format!("ignores its window of {window} positions"), Wrong::FromEarlier(usize::MAX)),
            (
                format!("begins its window of {window} positions at a block of {block}, rounded down"),
                Wrong::FromBlock { size: block, next: false },
            ),
            (
                format!("begins its window of {window} positions at a block of {block}, rounded up"),
                Wrong::FromBlock { size: block, next: true },
            ),
        ] {
            out = out.suspect("k_tail_dropped", what, attend(wrong));
        }
    }
    if inputs.len() > 5 {
        for (factor, words) in [
            (form.scale, format!("multiplies the sinks with the scale of the scores {}", form.scale)),
            (1.0 / form.scale, format!("divides the sinks by the scale of the scores {}", form.scale)),
            (std::f64::consts::LOG2_E, "multiplies the sinks with log2 of e".to_owned()),
            (std::f64::consts::LN_2, "divides the sinks by log2 of e".to_owned()),
        ] {
            out = out.suspect("gain", words, attend(Wrong::Sinks(factor)));
        }
    }
    for (order, words) in [
        (CacheOrder::HeadsFirst, "[blocks, heads, positions, d]".to_owned()),
        (CacheOrder::PositionsLast, "[blocks, heads, d, positions]".to_owned()),
        (CacheOrder::Packed(8), "[blocks, heads, d / 8, positions, 8]".to_owned()),
        (CacheOrder::Packed(16), "[blocks, heads, d / 16, positions, 16]".to_owned()),
    ] {
        if matches!(order, CacheOrder::Packed(x) if d % x != 0) {
            continue;
        }
        for (which, keys, values) in
            [("keys", true, false), ("values", false, true), ("keys and values", true, true)]
        {
            let what = format!("reads the cache of {which} as {words}, each block for itself");
            out = out.suspect("permuted_tiles", what, attend(Wrong::Cache { order, keys, values }));
        }
    }
    out
}

/// What is wrong with attention.
#[derive(Clone, Copy)]
enum Wrong {
    Nothing,
    /// Nothing, but what is quantised next to a tie goes to the other side of it.
    Ties,
    /// Key heads are tiled, not repeated.
    Tiled,
    /// The last position is left out.
    Short,
    /// A sink of 0 takes part in the softmax.
    Sink,
    /// Scores times a factor more.
    Times(f64),
    /// `cap * tanh(score / cap)`.
    Capped(f64),
    /// Scores as they are, whatever cap is declared.
    Uncapped,
    /// Scores capped before they are multiplied with their scale.
    CappedFirst,
    /// The maximum is that of the scores up to the end of each block of so many, for that block alone.
    NotRescaled(usize),
    /// Probabilities rounded to a format, after they are divided by their sum or before.
    Rounded(DType, bool),
    /// The last, or the first, so many positions alone.
    Last(usize),
    First(usize),
    /// The same left out, where there are more.
    WithoutFirst(usize),
    WithoutLast(usize),
    /// What is beyond whole blocks of so many left out.
    Whole(usize),
    /// Blocks are filled up with scores of 0, whose values are 0.
    Padded(usize),
    /// Whatever lies behind the last position takes part, up to the end of its block; or one of it.
    Beyond(usize),
    OneMore,
    /// Scores are sums over this part of each head.
    Scores(usize, usize),
    /// Rows of the block table are so many blocks longer.
    TableStride(isize),
    /// A block is read from where the one before it is.
    Stale {
        page: usize,
        keys: bool,
        values: bool,
    },
    /// The last block of a sequence is read from where its first one is, or the one before.
    LastBlock {
        first: bool,
        keys: bool,
        values: bool,
    },
    /// A position is read from where another one is, so many further; the first or the last from where it is.
    Shifted {
        by: isize,
        keys: bool,
        values: bool,
    },
    /// A window begins so many positions earlier, or at a block of so many, the next one if it is `next`.
    FromEarlier(usize),
    FromBlock {
        size: usize,
        next: bool,
    },
    /// Sinks times a factor.
    Sinks(f64),
    /// Every block is the first of its sequence, or one of the first sequence.
    FirstBlock,
    FirstTable,
    /// The blocks of a cache lie in another order.
    Cache {
        order: CacheOrder,
        keys: bool,
        values: bool,
    },
}

/// In which order a kernel takes a block of a cache to lie.
#[derive(Clone, Copy)]
enum CacheOrder {
    /// `[positions, heads, d]`: as it does.
    Own,
    /// `[heads, positions, d]`.
    HeadsFirst,
    /// `[heads, d, positions]`.
    PositionsLast,
    /// `[heads, d / x, positions, x]`.
    Packed(usize),
}

impl CacheOrder {
    /// The `d` elements of a head at a position of the cache; of a wrong order NaN beyond it.
    fn read(self, cache: &Matrix, slot: f64, (block, head, d): (usize, usize, usize)) -> Cow<'_, [f64]> {
        if matches!(self, CacheOrder::Own) || slot < 0.0 {
            return Cow::Borrowed(&row(cache, slot)[head * d..(head + 1) * d]);
        }
        let (page, p) = (slot as usize / block, slot as usize % block);
        let at = |i: usize| match self {
            CacheOrder::HeadsFirst => (head * block + p) * d + i,
            CacheOrder::PositionsLast => (head * d + i) * block + p,
            CacheOrder::Packed(x) => ((head * d / x + i / x) * block + p) * x + i % x,
            CacheOrder::Own => unreachable!("read above"),
        };
        let element = |i| cache.data.get(page * block * cache.cols + at(i)).copied().unwrap_or(f64::NAN);
        Cow::Owned((0..d).map(element).collect())
    }
}

impl PagedAttention {
    /// The same expression, which says what the kernel rounds on its way.
    fn rounded(&self, out: Expr) -> Expr {
        let probabilities = self.probabilities.map(Rounding::Loosely);
        let quantized = self.quantized.iter().flat_map(|of| {
            let both = if of.positions.is_some() { 2 } else { 1 };
            std::iter::repeat_n(Rounding::Alike(of.dtype), both)
        });
        probabilities.into_iter().chain(quantized).fold(out, Expr::rounding)
    }

    /// Positions that a query attends to, of a sequence of `length`: it is query `i` of them.
    fn seen(&self, i: usize, length: usize) -> Range<usize> {
        let behind = if self.causal { self.queries - 1 - i } else { 0 };
        let end = length.saturating_sub(behind);
        self.window.map_or(0, |most| end.saturating_sub(most))..end
    }

    /// Rounds what the softmax divides by its sum. `amax` is the largest magnitude of each position's value.
    fn round_probabilities(
        &self,
        exp: &mut [f64],
        amax: impl Fn(usize) -> f64,
        round: impl Fn(CodeRounding, DType, f64) -> f64,
    ) {
        if let Some(AttentionQuant { dtype, codes, positions: Some(positions) }) = self.quantized {
            // The quantiser's scale of a value that is all zero is 1.
            let scale = |p: usize| match amax(p) {
                0.0 => 1.0,
                largest => largest / dtype.max(),
            };
            for (tile, exp) in exp.chunks_mut(positions.max(1)).enumerate() {
                let of = |i: usize| scale(tile * positions + i);
                let largest = exp.iter().enumerate().map(|(i, e)| e * of(i)).fold(0.0, f64::max);
                if largest > 0.0 {
                    let unit = largest / dtype.max();
                    for (i, e) in exp.iter_mut().enumerate() {
                        *e = round(codes, dtype, *e * of(i) / unit) * unit / of(i);
                    }
                }
            }
        }
        if let Some(dtype) = self.probabilities {
            exp.iter_mut().for_each(|e| *e = dtype.nearest(*e));
        }
    }
}

fn attention(inputs: &[&Matrix], form: PagedAttention, wrong: Wrong) -> Matrix {
    let [q, k, v, tables, lengths, sinks @ ..] = inputs else { unreachable!("five inputs, and sinks") };
    let PagedAttention { heads, kv_heads, block, scale, queries, .. } = form;
    let d = q.cols / heads;
    let width = form.width(d);
    // Elements of a value head as the cache has it.
    let stored = v.cols / kv_heads;
    let blocks = tables.data.len() / (q.rows / queries);
    let (of_keys, of_values) = match wrong {
        Wrong::Cache { order, keys, values } => {
            (if keys { order } else { CacheOrder::Own }, if values { order } else { CacheOrder::Own })
        }
        _ => (CacheOrder::Own, CacheOrder::Own),
    };
    let part = if let Wrong::Scores(from, to) = wrong { from..to } else { 0..d };
    let round = match wrong {
        Wrong::Ties => CodeRounding::round_to_other_side,
        _ => CodeRounding::round,
    };
    let quantized = form.quantized.map(|of| {
        let scheme = Quant::group(of.dtype, d);
        super::eval::quantized(q, &scheme, |dtype, x| round(of.codes, dtype, x))
    });
    let q = quantized.as_ref().unwrap_or(q);
    let mut out = Matrix::zeros(q.rows, heads * width);
    for row in 0..q.rows {
        let s = row / queries;
        let length = (lengths.data[s].max(0.0) as usize).min(blocks * block);
        let Range { start, end } = form.seen(row % queries, length);
        let positions = wrong.positions(start..end, blocks * block);
        let slot_of = |p: usize, stale: bool| {
            let last = positions.end.saturating_sub(1);
            let p = match wrong {
                Wrong::Shifted { by, .. } if stale => {
                    p.saturating_add_signed(by).clamp(positions.start, last.max(positions.start))
                }
                _ => p,
            };
            let of = match wrong {
                Wrong::LastBlock { first, .. } if stale && p / block == last / block && p >= block => {
                    if first { s * blocks } else { s * blocks + p / block - 1 }
                }
                Wrong::FirstBlock => s * blocks,
                Wrong::FirstTable => p / block,
                Wrong::TableStride(by) => s * blocks.saturating_add_signed(by) + p / block,
                Wrong::Stale { page, .. } if stale && p / block == page => s * blocks + page - 1,
                _ => s * blocks + p / block,
            };
            let first = tables.data.get(of).copied().unwrap_or(0.0);
            first * block as f64 + (p % block) as f64
        };
        let (of_keys_too, of_values_too) = wrong.elsewhere();
        let slot_of_keys = |p| slot_of(p, of_keys_too);
        let slot = |p| slot_of(p, of_values_too);
        for h in 0..heads {
            let kv = if matches!(wrong, Wrong::Tiled) { h % kv_heads } else { h / (heads / kv_heads) };
            let query = &q.row(row)[h * d..(h + 1) * d][part.clone()];
            let scores: Vec<f64> = positions
                .clone()
                .map(|p| {
                    let key = of_keys.read(k, slot_of_keys(p), (block, kv, d));
                    let score = scale * query.iter().zip(&key[part.clone()]).map(|(a, b)| a * b).sum::<f64>();
                    match wrong {
                        Wrong::Times(factor) => form.capped(factor * score),
                        Wrong::Capped(cap) => cap * (score / cap).tanh(),
                        Wrong::Uncapped => score,
                        Wrong::CappedFirst => scale * form.capped(score / scale),
                        _ => form.capped(score),
                    }
                })
                .collect();
            let times = if let Wrong::Sinks(factor) = wrong { factor } else { 1.0 };
            let sink = sinks.first().map(|sinks| times * sinks.data[h]);
            // NaN spreads by the sum.
            let largest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let maximum = |i: usize| match wrong {
                Wrong::NotRescaled(size) => {
                    let known = &scores[..((i / size + 1) * size).min(scores.len())];
                    known.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                }
                _ => largest,
            };
            let mut exp: Vec<f64> = scores.iter().enumerate().map(|(i, x)| (x - maximum(i)).exp()).collect();
            let mut total: f64 = exp.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
            match wrong {
                Wrong::Sink => total += (-largest).exp(),
                Wrong::Padded(size) => {
                    // A maximum that has seen the padding is at least 0; the quotient is the same.
                    let padding = positions.end.next_multiple_of(size) - positions.end;
                    total += padding as f64 * (-largest).exp();
                }
                Wrong::Rounded(to, after) => {
                    let divisor = if after { total } else { 1.0 };
                    exp.iter_mut().for_each(|e| *e = to.nearest(*e / divisor) * divisor);
                }
                _ => {}
            }
            let value = |i: usize| of_values.read(v, slot(positions.start + i), (block, kv, stored));
            form.round_probabilities(
                &mut exp,
                |i| value(i).iter().fold(0.0, |most, x| x.abs().max(most)),
                round,
            );
            let to = &mut out.row_mut(row)[h * width..(h + 1) * width];
            for (i, e) in exp.iter().enumerate() {
                to.iter_mut().zip(&*value(i)).for_each(|(to, v)| *to += e / total * v);
            }
        }
    }
    out
}

impl Wrong {
    /// Whether some keys, and some values, are read from another place.
    fn elsewhere(self) -> (bool, bool) {
        match self {
            Wrong::Stale { keys, values, .. }
            | Wrong::LastBlock { keys, values, .. }
            | Wrong::Shifted { keys, values, .. } => (keys, values),
            _ => (false, false),
        }
    }

    /// The positions of `seen` that a wrong kernel attends to, of a table with room for `room`.
    fn positions(self, seen: Range<usize>, room: usize) -> Range<usize> {
        let Range { start, end } = seen;
        let length = end - start;
        match self {
            Wrong::Short if length > 1 => start..end - 1,
            Wrong::Last(most) => end.saturating_sub(most).max(start)..end,
            Wrong::First(most) => start..end.min(start + most),
            Wrong::WithoutFirst(size) if length > size => start + size..end,
            Wrong::WithoutLast(size) if length > size => start..end - size,
            Wrong::Whole(size) if length > size => start..start + length / size * size,
            Wrong::Beyond(size) => start..end.next_multiple_of(size).min(room),
            Wrong::OneMore => start..(end + 1).min(room),
            Wrong::FromEarlier(by) => start.saturating_sub(by)..end,
            Wrong::FromBlock { size, next: false } => start / size * size..end,
            Wrong::FromBlock { size, next: true } if start.next_multiple_of(size) < end => {
                start.next_multiple_of(size)..end
            }
            _ => start..end,
        }
    }
}

/// The shape of [`attention_of`] and [`attention_lse`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    pub sequences: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f64,
    /// Whether a query attends to positions up to its own only; the last query is at the last position.
    pub causal: bool,
    /// The format that the kernel rounds probabilities to before it multiplies them with values.
    pub probabilities: Option<DType>,
}

impl Attention {
    /// As a paged one, each sequence a block by itself, with its tables and lengths.
    fn paged(&self, queries: usize, positions: usize) -> (PagedAttention, [Matrix; 2]) {
        let form = PagedAttention {
            causal: self.causal,
            probabilities: self.probabilities,
            ..PagedAttention::new(self.heads, self.kv_heads, positions, self.scale).queries(queries)
        };
        let tables = Matrix::new(1, self.sequences, (0..self.sequences).map(|s| s as f64).collect());
        let lengths = Matrix::new(1, self.sequences, vec![positions as f64; self.sequences]);
        (form, [tables, lengths])
    }
}

/// Attention of sequences of one length: queries `[sequences * queries, heads * d]` over keys and values
/// `[sequences * positions, kv_heads * d]`, prefill as flash attention computes it.
///
/// Faults: `gqa_tiled` (key head `h % kv_heads`), `context_short` (the last position left out).
pub fn attention_of(q: &impl Operand, (k, v): (&impl Operand, &impl Operand), of: Attention) -> Expr {
    let (q, k, v) = (q.expr(), k.expr(), v.expr());
    let (rows, slots) = (q.shape().0, k.shape().0);
    let whole = |n: usize| of.sequences > 0 && n > 0 && n.is_multiple_of(of.sequences);
    if !whole(rows) || !whole(slots) {
        return Expr::unfit(format!(
            "attention of queries {:?} over keys {:?} with {of:?}",
            q.shape(),
            k.shape()
        ));
    }
    let (form, [tables, lengths]) = of.paged(rows / of.sequences, slots / of.sequences);
    if let Some(why) = form.misfit(q.shape(), k.shape(), v.shape()) {
        return Expr::unfit(why);
    }
    let given = std::sync::Arc::new([tables, lengths]);
    let attend = |wrong: Wrong| {
        let given = given.clone();
        move |inputs: &[&Matrix]| {
            attention(&[inputs[0], inputs[1], inputs[2], &given[0], &given[1]], form, wrong)
        }
    };
    let mut out = user("attention", &[&q, &k, &v], q.shape(), attend(Wrong::Nothing))
        .fault("context_short", attend(Wrong::Short));
    if of.kv_heads > 1 && of.kv_heads < of.heads {
        out = out.fault("gqa_tiled", attend(Wrong::Tiled));
    }
    form.rounded(out)
}

/// The logarithm of the sum of `exp(score)` over the positions that each query attends to, `[seqs * queries, heads]`:
/// what a kernel leaves beside the attention of a part of the positions, so that parts can be joined.
pub fn paged_attention_lse(
    q: &impl Operand,
    k: &impl Operand,
    tables: &impl Operand,
    lengths: &impl Operand,
    form: PagedAttention,
) -> Expr {
    let (q, k) = (q.expr(), k.expr());
    if let Some(why) =
        form.value_width(q.shape().1 / form.heads.max(1)).misfit(q.shape(), k.shape(), k.shape())
    {
        return Expr::unfit(why);
    }
    let inputs: [&dyn Operand; 4] = [&q, &k, &tables.expr(), &lengths.expr()];
    user("attention_lse", &inputs, (q.shape().0, form.heads), move |inputs| {
        log_sums(inputs[0], inputs[1], [inputs[2], inputs[3]], form)
    })
}

/// The same as [`paged_attention_lse`], of sequences of one length.
pub fn attention_lse(q: &impl Operand, k: &impl Operand, of: Attention) -> Expr {
    let (q, k) = (q.expr(), k.expr());
    let (rows, slots) = (q.shape().0, k.shape().0);
    let whole = |n: usize| of.sequences > 0 && n > 0 && n.is_multiple_of(of.sequences);
    if !whole(rows) || !whole(slots) {
        return Expr::unfit(format!(
            "attention of queries {:?} over keys {:?} with {of:?}",
            q.shape(),
            k.shape()
        ));
    }
    let (form, [tables, lengths]) = of.paged(rows / of.sequences, slots / of.sequences);
    if let Some(why) = form.misfit(q.shape(), k.shape(), k.shape()) {
        return Expr::unfit(why);
    }
    user("attention_lse", &[&q, &k], (rows, of.heads), move |inputs| {
        log_sums(inputs[0], inputs[1], [&tables, &lengths], form)
    })
}

fn log_sums(q: &Matrix, k: &Matrix, [tables, lengths]: [&Matrix; 2], form: PagedAttention) -> Matrix {
    let PagedAttention { heads, kv_heads, block, scale, queries, .. } = form;
    let d = q.cols / heads;
    let blocks = tables.data.len() / (q.rows / queries);
    let mut out = Matrix::zeros(q.rows, heads);
    for row in 0..q.rows {
        let s = row / queries;
        let length = (lengths.data[s].max(0.0) as usize).min(blocks * block);
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            let query = &q.row(row)[h * d..(h + 1) * d];
            let score = |p: usize| {
                let slot = tables.data[s * blocks + p / block] * block as f64 + (p % block) as f64;
                let key = CacheOrder::Own.read(k, slot, (block, kv, d));
                form.capped(scale * query.iter().zip(&*key).map(|(a, b)| a * b).sum::<f64>())
            };
            let scores: Vec<f64> = form.seen(row % queries, length).map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|x| (x - largest).exp()).sum();
            out.row_mut(row)[h] = largest + total.ln();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{BufferId, Evaluation, eval};
    use approx::assert_abs_diff_eq;
    use std::sync::Arc;

    struct Leaves(Vec<Arc<Matrix>>);
    impl Evaluation for Leaves {
        fn buffer(&self, id: BufferId) -> Arc<Matrix> {
            self.0[id.0].clone()
        }
    }

    /// Evaluates `f` of leaves with the given rows.
    fn value(leaves: &[(usize, &[f64])], f: impl FnOnce(&[Expr]) -> Expr) -> Matrix {
        let matrices: Vec<Matrix> =
            leaves.iter().map(|(rows, data)| Matrix::new(*rows, data.len() / rows, data.to_vec())).collect();
        let exprs: Vec<Expr> =
            matrices.iter().enumerate().map(|(i, m)| Expr::buffer(BufferId(i), m.rows, m.cols)).collect();
        let expr = f(&exprs);
        assert_eq!(expr.problem(), None);
        Matrix::clone(&eval(&expr, &Leaves(matrices.into_iter().map(Arc::new).collect())))
    }

    #[test]
    fn rope_turns_pairs_by_the_angle_of_their_position() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let table = cos_sin_table(3, 4, 100.0);
        let (c0, s0, c1, s1) = (2f64.cos(), 2f64.sin(), 0.2f64.cos(), 0.2f64.sin());
        let with = |style| value(&[(1, &x), (3, &table), (1, &[2.0])], |e| rope(&e[0], &e[1], &e[2], style));
        // Pairs (0, 2) and (1, 3).
        let expected = [c0 - 3.0 * s0, 2.0 * c1 - 4.0 * s1, 3.0 * c0 + s0, 4.0 * c1 + 2.0 * s1];
        for (a, b) in with(RopeStyle::Neox).data.iter().zip(expected) {
            assert_abs_diff_eq!(*a, b, epsilon = 1e-14);
        }
        // Pairs (0, 1) and (2, 3).
        let expected = [c0 - 2.0 * s0, 2.0 * c0 + s0, 3.0 * c1 - 4.0 * s1, 4.0 * c1 + 3.0 * s1];
        for (a, b) in with(RopeStyle::GptJ).data.iter().zip(expected) {
            assert_abs_diff_eq!(*a, b, epsilon = 1e-14);
        }
    }

    #[test]
    fn softmax_divides_powers_of_e_by_the_sum_of_their_row() {
        let y = value(&[(2, &[0.0, 2f64.ln(), 0.0, 1000.0, -1000.0, 1000.0])], |e| softmax(&e[0]));
        for (a, b) in y.data.iter().zip([0.25, 0.5, 0.25, 0.5, 0.0, 0.5]) {
            assert_abs_diff_eq!(*a, b, epsilon = 1e-15);
        }
    }

    #[test]
    fn routing_takes_the_largest_and_of_equals_the_lower() {
        let logits: &[f64] = &[0.0, 2.0, 2.0, 1.0, 3.0, 0.0, 0.0, -1e4];
        let ids = value(&[(2, logits)], |e| topk_experts(&e[0], 2));
        assert_eq!(ids.data, [1.0, 2.0, 0.0, 1.0]);
        // 0 and -0 are equal.
        let zeros = value(&[(1, &[-0.0, 0.0, -0.0, 0.0])], |e| topk_experts(&e[0], 3));
        assert_eq!(zeros.data, [0.0, 1.0, 2.0]);
        let total = 1.0 + 2.0 * 2f64.exp() + 1f64.exp();
        let weights = value(&[(2, logits)], |e| topk_weights(&e[0], 2, false));
        assert_abs_diff_eq!(weights.data[0], 2f64.exp() / total, epsilon = 1e-15);
        let weights = value(&[(2, logits)], |e| topk_weights(&e[0], 2, true));
        assert_eq!(&weights.data[..2], [0.5, 0.5]);
        assert_eq!(value(&[(2, &ids.data)], |e| rows_by_expert(&e[0])).data, [2.0, 0.0, 3.0, 1.0]);
        let offsets = value(&[(2, &ids.data)], |e| expert_offsets(&e[0], 4));
        assert_eq!(offsets.data, [0.0, 1.0, 3.0, 4.0, 4.0]);
        let y = value(&[(4, &[1.0, 10.0, 100.0, 1000.0]), (2, &[0.5, 0.25, 1.0, 2.0])], |e| {
            weighted_sum(&e[0], &e[1])
        });
        assert_eq!(y.data, [3.0, 2100.0]);
    }

    #[test]
    fn paged_attention_averages_the_values_of_its_own_blocks() {
        // Two sequences of lengths 3 and 1 in blocks of 2; equal scores average.
        let v: Vec<f64> = (0..8).map(|slot| f64::from(slot) * 10.0).collect();
        let form = PagedAttention::new(1, 1, 2, 1.0);
        let leaves: &[(usize, &[f64])] =
            &[(2, &[0.0, 1.0]), (8, &[1.0; 8]), (8, &v), (1, &[3.0, 1.0, 2.0, 0.0]), (1, &[3.0, 1.0])];
        let out = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form));
        // Slots 6, 7 and 2; slot 4.
        assert_abs_diff_eq!(out.data[0], 50.0, epsilon = 1e-12);
        assert_abs_diff_eq!(out.data[1], 40.0, epsilon = 1e-12);
        // Two query heads share a key head.
        let form = PagedAttention::new(4, 2, 1, 1.0);
        let leaves: &[(usize, &[f64])] =
            &[(1, &[0.0; 4]), (1, &[0.0, 0.0]), (1, &[1.0, 2.0]), (1, &[0.0]), (1, &[1.0])];
        let out = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form));
        assert_eq!(out.data, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn a_query_sees_no_position_behind_its_own_and_none_before_its_window() {
        // Equal scores average; values are the positions.
        let v: Vec<f64> = (0..8).map(f64::from).collect();
        let leaves: &[(usize, &[f64])] = &[(2, &[0.0; 2]), (8, &[1.0; 8]), (8, &v), (1, &[0.0]), (1, &[6.0])];
        let out = |form: PagedAttention| {
            value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form)).data
        };
        let form = PagedAttention::new(1, 1, 8, 1.0).queries(2);
        let expect = |form, expected: [f64; 2]| {
            for (a, b) in out(form).iter().zip(expected) {
                assert_abs_diff_eq!(*a, b, epsilon = 1e-12);
            }
        };
        // Positions 0 to 4, and 0 to 5.
        expect(form, [2.0, 2.5]);
        expect(form.not_causal(), [2.5, 2.5]);
        expect(form.window(2), [3.5, 4.5]);
        let lse = value(leaves, |e| paged_attention_lse(&e[0], &e[1], &e[3], &e[4], form)).data;
        assert_abs_diff_eq!(lse[0], 5f64.ln(), epsilon = 1e-12);
        assert_abs_diff_eq!(lse[1], 6f64.ln(), epsilon = 1e-12);
    }

    #[test]
    fn a_sink_takes_its_part_of_the_sum_and_has_no_value() {
        let v: Vec<f64> = vec![4.0; 2];
        let leaves: &[(usize, &[f64])] =
            &[(1, &[0.0; 2]), (2, &[1.0; 2]), (2, &v), (1, &[0.0]), (1, &[2.0]), (1, &[0.0, 100.0])];
        let form = PagedAttention::new(2, 1, 2, 1.0);
        let out =
            value(leaves, |e| paged_attention_with_sinks(&e[0], (&e[1], &e[2]), &e[3], &e[4], &e[5], form));
        // Two scores of 0 and a sink of 0; a sink that outweighs all.
        assert_abs_diff_eq!(out.data[0], 8.0 / 3.0, epsilon = 1e-12);
        assert_abs_diff_eq!(out.data[1], 0.0, epsilon = 1e-12);
    }

    #[test]
    fn a_group_is_chosen_by_its_best_experts_and_the_bias_has_no_weight() {
        let form = GroupRouting {
            groups: 3,
            chosen: 1,
            topk: 2,
            scoring: Scoring::Sigmoid,
            best: 2,
            renormalize: true,
            factor: 2.5,
        };
        // The largest logit is alone in its group; the second group is better as a whole.
        let logits = [3.0, -9.0, 1.0, 2.0, -1.0, -1.0];
        let of = |bias: &[f64], f: fn(&Expr, &Expr, GroupRouting) -> Expr, form| {
            value(&[(1, &logits), (1, bias)], |e| f(&e[0], &e[1], form)).data
        };
        let experts: fn(&Expr, &Expr, GroupRouting) -> Expr = |l, b, form| group_topk_experts(l, b, form);
        let weights: fn(&Expr, &Expr, GroupRouting) -> Expr = |l, b, form| group_topk_weights(l, b, form);
        let none = [0.0; 6];
        assert_eq!(of(&none, experts, form), [3.0, 2.0]);
        assert_eq!(of(&none, experts, GroupRouting { best: 1, ..form }), [0.0, 1.0]);
        assert_eq!(of(&none, experts, GroupRouting { chosen: 3, ..form }), [0.0, 3.0]);
        let bias = [0.0, 0.0, 0.0, 0.0, 5.0, 0.0];
        assert_eq!(of(&bias, experts, form), [4.0, 5.0]);
        // Both have the same score.
        for weight in of(&bias, weights, form) {
            assert_abs_diff_eq!(weight, 1.25, epsilon = 1e-12);
        }
    }

    #[test]
    fn values_can_be_the_first_columns_of_keys() {
        let k = [1.0, 2.0, 100.0, 3.0, 4.0, 100.0];
        let leaves: &[(usize, &[f64])] = &[(1, &[0.0; 6]), (2, &k), (1, &[0.0]), (1, &[2.0])];
        let form = PagedAttention::new(2, 1, 2, 1.0).value_width(2);
        let out = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[1]), &e[2], &e[3], form));
        assert_eq!((out.rows, out.cols), (1, 4));
        assert_eq!(out.data, [2.0, 3.0, 2.0, 3.0]);
        let narrow = Expr::buffer(BufferId(1), 2, 3);
        let wide = PagedAttention::new(2, 1, 2, 1.0).value_width(4);
        let q = Expr::buffer(BufferId(0), 1, 6);
        let index = Expr::buffer(BufferId(2), 1, 1);
        assert!(paged_attention(&q, (&narrow, &narrow), &index, &index, wide).problem().is_some());
    }

    #[test]
    fn sequences_of_one_length_are_paged_ones_of_a_block_each() {
        let data = |n: usize| (0..n).map(|i| ((i * 37 + 11) % 23) as f64 / 7.0 - 1.5).collect::<Vec<f64>>();
        let (q, k, v) = (data(2 * 3 * 4), data(2 * 5 * 2), data(2 * 5 * 2 + 7)[7..].to_vec());
        let leaves: &[(usize, &[f64])] = &[(6, &q), (10, &k), (10, &v), (1, &[0.0, 1.0]), (1, &[5.0, 5.0])];
        let of =
            Attention { sequences: 2, heads: 2, kv_heads: 1, scale: 0.5, causal: true, probabilities: None };
        let form = PagedAttention::new(2, 1, 5, 0.5).queries(3);
        let dense = value(leaves, |e| attention_of(&e[0], (&e[1], &e[2]), of));
        let paged = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form));
        assert_eq!(dense.data, paged.data);
        let dense = value(leaves, |e| attention_lse(&e[0], &e[1], of));
        let paged = value(leaves, |e| paged_attention_lse(&e[0], &e[1], &e[3], &e[4], form));
        assert_eq!(dense.data, paged.data);
    }

    #[test]
    fn queries_and_probabilities_are_quantised_as_is_said() {
        use crate::dtype::INT8;
        let of = |codes| AttentionQuant { dtype: INT8, codes, positions: Some(2) };
        let form = PagedAttention::new(1, 1, 4, 1.0);
        // Scores are 0 and ln 0.6: probabilities are 1 and 0.6 before they are divided by their sum, of values 127 and
        // 254, whose scales are 1 and 2.
        let q = [127.0];
        let k = [0.0, 0.6f64.ln() / 127.0, 0.0, 0.0];
        let v = [127.0, 254.0, 0.0, 0.0];
        let leaves: &[(usize, &[f64])] = &[(1, &q), (4, &k), (4, &v), (1, &[0.0]), (1, &[2.0])];
        let out =
            |form| value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form)).data[0];
        // 1 * 1 and 0.6 * 2 in units of 1.2 / 127: 105.83 and 127.
        let exact = (127.0 + 0.6 * 254.0) / 1.6;
        assert_abs_diff_eq!(out(form), exact, epsilon = 1e-9);
        let with = |code: f64| (code * 1.2 / 127.0 * 127.0 + 0.6 * 254.0) / 1.6;
        assert_abs_diff_eq!(out(form.quantized(of(CodeRounding::Nearest))), with(106.0), epsilon = 1e-9);
        assert_abs_diff_eq!(out(form.quantized(of(CodeRounding::TowardZero))), with(105.0), epsilon = 1e-9);
        // The largest is 127 units of itself: float32 may find a little less, which is cut off to 126.
        let other_side = |form| {
            let other = |e: &[Expr]| {
                paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form)
                    .with_ties_on_the_other_side()
                    .expect("something is quantised")
            };
            value(leaves, other).data[0]
        };
        // So is the query, which is 126 then.
        let e = 0.6f64.powf(126.0 / 127.0);
        let unit = 2.0 * e / 127.0;
        let lower = ((1.0 / unit).trunc() * unit * 127.0 + 126.0 * unit / 2.0 * 254.0) / (1.0 + e);
        assert_abs_diff_eq!(other_side(form.quantized(of(CodeRounding::TowardZero))), lower, epsilon = 1e-9);
        assert_abs_diff_eq!(
            other_side(form.quantized(of(CodeRounding::Nearest))),
            with(106.0),
            epsilon = 1e-9
        );
    }

    #[test]
    fn what_a_kernel_quantises_on_its_way_has_the_values_of_its_codes() {
        use crate::dtype::INT8;
        let x: &[f64] = &[127.0, 1.6, -1.6, 0.0, 12.7, 0.26];
        let of = |codes| value(&[(1, x)], |e| e[0].quantize(Quant::group(INT8, 4), codes)).data;
        let (nearest, truncated) = (of(CodeRounding::Nearest), of(CodeRounding::TowardZero));
        assert_eq!(nearest[..4], [127.0, 2.0, -2.0, 0.0]);
        assert_eq!(truncated[..4], [127.0, 1.0, -1.0, 0.0]);
        assert_abs_diff_eq!(nearest[5], 0.3, epsilon = 1e-6);
        assert_abs_diff_eq!(truncated[5], 0.2, epsilon = 1e-6);
        // Between 1 and 1.125 of e4m3.
        assert_eq!(CodeRounding::TowardZero.round(E4M3FN, 1.1), 1.0);
        let other = CodeRounding::round_to_other_side;
        assert_eq!(
            [127.0, 126.4, -3.0].map(|x| other(CodeRounding::TowardZero, INT8, x)),
            [126.0, 126.0, -2.0]
        );
        assert_eq!([2.5, 2.6, 2.4].map(|x| other(CodeRounding::Nearest, INT8, x)), [3.0, 3.0, 2.0]);
        assert_eq!(CodeRounding::TowardZero.round(E4M3FN, -1.1), -1.0);
        assert_eq!(CodeRounding::Nearest.round(E4M3FN, 1.1), 1.125);
    }

    #[test]
    fn written_rows_replace_those_of_their_slots() {
        let out = value(&[(3, &[1.0, 2.0, 3.0]), (2, &[8.0, 9.0]), (1, &[2.0, 0.0])], |e| {
            write_rows(&e[0], &e[1], &e[2])
        });
        assert_eq!(out.data, [9.0, 2.0, 8.0]);
    }
}
