//! Parts of a model that integers steer: rotary embedding, routing of experts, paged attention.
//!
//! Each comes with the faults that kernels of its kind have, so that power shows whether a test would see them.
//! Indices are buffers: of the test's own ([`crate::Case::indices`]) or written by a kernel.

use super::graph::{Expr, Operand, user};
use super::matrix::Matrix;
use crate::dtype::{BF16, DType, E4M3FN, E4M3FNUZ, F16};
use std::borrow::Cow;

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
    let rotate = move |style: RopeStyle, table_as: Table| {
        move |inputs: &[&Matrix]| {
            let [x, table, positions] = inputs else { unreachable!("three inputs") };
            let mut out = (*x).clone();
            for r in 0..x.rows {
                let row = row(table, positions.data[r]);
                for (head, from) in out.row_mut(r).chunks_mut(d).zip(x.row(r).chunks(d)) {
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
                        head[a] = from[a] * cosine - from[b] * sine;
                        head[b] = from[b] * cosine + from[a] * sine;
                    }
                }
            }
            out
        }
    };
    let other = match style {
        RopeStyle::Neox => RopeStyle::GptJ,
        RopeStyle::GptJ => RopeStyle::Neox,
    };
    let shape = x.expr().shape();
    if !d.is_multiple_of(2)
        || !shape.1.is_multiple_of(d)
        || positions.expr().shape().1 * positions.expr().shape().0 != shape.0
    {
        return Expr::unfit(format!(
            "rope of {shape:?} with a table {:?} and positions {:?}",
            cos_sin.expr().shape(),
            positions.expr().shape()
        ));
    }
    let (x, cos_sin, positions) = (&x.expr(), &cos_sin.expr(), &positions.expr());
    user("rope", &[x, cos_sin, positions], shape, rotate(style, Table::Halves))
        .fault("rope", rotate(other, Table::Halves))
        .fault("rope_backwards", rotate(style, Table::Backwards))
        .fault("rope_exchanged", rotate(style, Table::Exchanged))
        .fault("rope_pairs", rotate(style, Table::Pairs))
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

fn ranked(logits: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
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
#[derive(Clone, Copy, Debug)]
pub struct PagedAttention {
    pub heads: usize,
    pub kv_heads: usize,
    /// Positions of a block.
    pub block: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f64,
}

/// Attention of one query token of each sequence, `[seqs, heads * d]`, over its positions in the caches
/// `[slots, kv_heads * d]`: position `p` is in slot `tables[seq][p / block] * block + p % block`, `tables` being
/// `seqs` rows of block numbers. Query head `h` attends to key head `h / (heads / kv_heads)`.
///
/// Faults: `gqa_tiled` (key head `h % kv_heads`), `context_short` (the last position left out).
pub fn paged_attention(
    q: &impl Operand,
    (k, v): (&impl Operand, &impl Operand),
    tables: &impl Operand,
    lengths: &impl Operand,
    form: PagedAttention,
) -> Expr {
    let shape = q.expr().shape();
    let PagedAttention { heads, kv_heads, block, .. } = form;
    let kv_cols = k.expr().shape().1;
    let divides = heads > 0
        && kv_heads > 0
        && block > 0
        && heads.is_multiple_of(kv_heads)
        && shape.1.is_multiple_of(heads);
    if !divides || kv_cols != shape.1 / heads * kv_heads || v.expr().shape() != k.expr().shape() {
        return Expr::unfit(format!(
            "paged_attention of {shape:?} over caches {:?} with {form:?}",
            k.expr().shape()
        ));
    }
    let attend = move |wrong: Wrong| move |inputs: &[&Matrix]| attention(inputs, form, wrong);
    let [q, k, v, tables, lengths] = &[q.expr(), k.expr(), v.expr(), tables.expr(), lengths.expr()];
    let mut out = user("paged_attention", &[q, k, v, tables, lengths], shape, attend(Wrong::Nothing))
        .fault("context_short", attend(Wrong::Short));
    // With one key head, or one for each query head, the two orders are the same.
    if kv_heads > 1 && kv_heads < heads {
        out = out.fault("gqa_tiled", attend(Wrong::Tiled));
    }
    out = out.suspect("addend_extra", "adds a sink of 0 to the softmax".into(), attend(Wrong::Sink));
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
    for cap in [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0] {
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
    let mut sizes = vec![block, 16, 32, 64, 128];
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

fn attention(inputs: &[&Matrix], form: PagedAttention, wrong: Wrong) -> Matrix {
    let [q, k, v, tables, lengths] = inputs else { unreachable!("five inputs") };
    let PagedAttention { heads, kv_heads, block, scale } = form;
    let d = q.cols / heads;
    let blocks = tables.data.len() / q.rows;
    let (of_keys, of_values) = match wrong {
        Wrong::Cache { order, keys, values } => {
            (if keys { order } else { CacheOrder::Own }, if values { order } else { CacheOrder::Own })
        }
        _ => (CacheOrder::Own, CacheOrder::Own),
    };
    let part = if let Wrong::Scores(from, to) = wrong { from..to } else { 0..d };
    let mut out = Matrix::zeros(q.rows, q.cols);
    for s in 0..q.rows {
        let length = (lengths.data[s].max(0.0) as usize).min(blocks * block);
        let (from, length) = match wrong {
            Wrong::Short if length > 1 => (0, length - 1),
            Wrong::Last(most) => (length.saturating_sub(most), length),
            Wrong::First(most) => (0, length.min(most)),
            Wrong::WithoutFirst(size) if length > size => (size, length),
            Wrong::WithoutLast(size) if length > size => (0, length - size),
            Wrong::Whole(size) if length > size => (0, length / size * size),
            Wrong::Beyond(size) => (0, length.next_multiple_of(size).min(blocks * block)),
            Wrong::OneMore => (0, (length + 1).min(blocks * block)),
            _ => (0, length),
        };
        let slot = |p: usize| {
            let of = match wrong {
                Wrong::FirstBlock => s * blocks,
                Wrong::FirstTable => p / block,
                _ => s * blocks + p / block,
            };
            tables.data[of] * block as f64 + (p % block) as f64
        };
        for h in 0..heads {
            let kv = if matches!(wrong, Wrong::Tiled) { h % kv_heads } else { h / (heads / kv_heads) };
            let query = &q.row(s)[h * d..(h + 1) * d][part.clone()];
            let scores: Vec<f64> = (from..length)
                .map(|p| {
                    let key = of_keys.read(k, slot(p), (block, kv, d));
                    let score = scale * query.iter().zip(&key[part.clone()]).map(|(a, b)| a * b).sum::<f64>();
                    match wrong {
                        Wrong::Times(factor) => factor * score,
                        Wrong::Capped(cap) => cap * (score / cap).tanh(),
                        _ => score,
                    }
                })
                .collect();
            // NaN spreads by the sum.
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let maximum = |i: usize| match wrong {
                Wrong::NotRescaled(size) => {
                    let known = &scores[..((i / size + 1) * size).min(scores.len())];
                    known.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                }
                _ => largest,
            };
            let mut exp: Vec<f64> = scores.iter().enumerate().map(|(i, x)| (x - maximum(i)).exp()).collect();
            let mut total: f64 = exp.iter().sum();
            match wrong {
                Wrong::Sink => total += (-largest).exp(),
                Wrong::Padded(size) => {
                    // A maximum that has seen the padding is at least 0; the quotient is the same.
                    total += (length.next_multiple_of(size) - length) as f64 * (-largest).exp();
                }
                Wrong::Rounded(to, after) => {
                    let divisor = if after { total } else { 1.0 };
                    exp.iter_mut().for_each(|e| *e = to.nearest(*e / divisor) * divisor);
                }
                _ => {}
            }
            let to = &mut out.row_mut(s)[h * d..(h + 1) * d];
            for (p, e) in exp.iter().enumerate() {
                let value = of_values.read(v, slot(from + p), (block, kv, d));
                to.iter_mut().zip(&*value).for_each(|(to, v)| *to += e / total * v);
            }
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
        let form = PagedAttention { heads: 1, kv_heads: 1, block: 2, scale: 1.0 };
        let leaves: &[(usize, &[f64])] =
            &[(2, &[0.0, 1.0]), (8, &[1.0; 8]), (8, &v), (1, &[3.0, 1.0, 2.0, 0.0]), (1, &[3.0, 1.0])];
        let out = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form));
        // Slots 6, 7 and 2; slot 4.
        assert_abs_diff_eq!(out.data[0], 50.0, epsilon = 1e-12);
        assert_abs_diff_eq!(out.data[1], 40.0, epsilon = 1e-12);
        // Two query heads share a key head.
        let form = PagedAttention { heads: 4, kv_heads: 2, block: 1, scale: 1.0 };
        let leaves: &[(usize, &[f64])] =
            &[(1, &[0.0; 4]), (1, &[0.0, 0.0]), (1, &[1.0, 2.0]), (1, &[0.0]), (1, &[1.0])];
        let out = value(leaves, |e| paged_attention(&e[0], (&e[1], &e[2]), &e[3], &e[4], form));
        assert_eq!(out.data, [1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn written_rows_replace_those_of_their_slots() {
        let out = value(&[(3, &[1.0, 2.0, 3.0]), (2, &[8.0, 9.0]), (1, &[2.0, 0.0])], |e| {
            write_rows(&e[0], &e[1], &e[2])
        });
        assert_eq!(out.data, [9.0, 2.0, 8.0]);
    }
}
