//! Rows that belong together, by experts, blocks or slots, and are taken for one another; and vectors that a function of the
//! test is given, multiplied with a constant.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::reading::{Cells, Reading, each};
use super::sampled::World;
use crate::quant::Granularity;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of a block of a grouped GEMM.
const BLOCKS: [usize; 7] = [2, 4, 8, 16, 32, 64, 128];

/// Every hypothesis about groups of rows.
pub fn hypotheses<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut found = rows_of_experts(source, world);
    found.extend(rows_of_slots(source, world));
    found.extend(scales_of_heads(source, world));
    found.extend(vectors_of_functions(source, world));
    found
}

/// An operand whose row `r` is taken from row `of[r]`, with its scales or without.
fn rows_from<'a>(
    world: &World<'a>,
    id: BufferId,
    (cause, what): (&'static str, String),
    of: &Arc<Vec<usize>>,
) -> Hypothesis<'a> {
    let operand = world.attempt.buffer(id);
    let codes = Reading::code_of(operand);
    let from = of.clone();
    Hypothesis {
        cause,
        slot: Slot::Codes(id),
        operand: Some(id),
        what: what.into(),
        change: Change::Codes(each(move |r, c| codes(from.get(r).copied().unwrap_or(r), c))),
        sense: Sense::Other,
        also: scales_from(world, id, of).map(|change| (Slot::Scales(id), change)),
    }
}

/// The scales of an operand that has some for each row, that of row `r` taken from row `of[r]`.
fn scales_from<'a>(world: &World<'a>, id: BufferId, of: &Arc<Vec<usize>>) -> Option<Change<'a>> {
    let right = Reading::right(world.attempt.buffer(id)).scales.filter(|cells| cells.rows == 1)?;
    let (at, from) = (right.at.clone(), of.clone());
    let at = Arc::new(move |r: usize, g: usize| at(from.get(r).copied().unwrap_or(r), g));
    Some(Change::Scales(Cells { at, ..right }))
}

/// The activations of a grouped GEMM: rows of a block, in the order of the experts, that take those of another row.
fn rows_of_experts<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<(BufferId, BufferId)> = Vec::new();
    source.visit(&mut |e| {
        let Op::Select { by, choices } = &e.0.op else { return };
        let Op::Buffer(ids) = by.0.op else { return };
        for choice in choices {
            choice.visit(&mut |e| {
                if let Op::MatMul { a, .. } = &e.0.op
                    && let Op::Buffer(x) = a.0.op
                    && a.shape().0 == by.shape().0 * by.shape().1
                    && !of.contains(&(x, ids))
                {
                    of.push((x, ids));
                }
            });
        }
    });
    let mut found = Vec::new();
    for (x, ids) in of {
        let (name, by) = (&world.attempt.buffer(x).name, &world.attempt.buffer(ids).name);
        let mut lists: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let values = world.whole(ids);
        values.data.iter().enumerate().for_each(|(r, id)| lists.entry(id.to_bits()).or_default().push(r));
        let longest = lists.values().map(Vec::len).max().unwrap_or(0);
        // From each row's place in the list of its expert to the place that is taken.
        type Place = Box<dyn Fn(usize, usize) -> usize>;
        let mut rules: Vec<(String, Place)> = vec![
            ("the row before in its expert's rows".into(), Box::new(|i, _| i.saturating_sub(1))),
            ("the row behind in its expert's rows".into(), Box::new(|i, n| (i + 1).min(n - 1))),
            ("the first row of its expert".into(), Box::new(|_, _| 0)),
        ];
        for block in BLOCKS.into_iter().filter(|block| *block < longest) {
            let words = format!("the first row of its block of {block} rows of an expert");
            rules.push((words, Box::new(move |i, _| i / block * block)));
            let words = format!("the last row of its block of {block} rows of an expert");
            rules.push((words, Box::new(move |i, n| ((i / block + 1) * block).min(n) - 1)));
            let words = format!("row i % {block} of its expert");
            rules.push((words, Box::new(move |i, _| i % block)));
        }
        for (words, place) in rules {
            let mut from: Vec<usize> = (0..values.data.len()).collect();
            for list in lists.values() {
                (0..list.len()).for_each(|i| from[list[i]] = list[place(i, list.len())]);
            }
            let from = Arc::new(from);
            let what = format!("takes for a row of `{name}` {words}, by `{by}`");
            found.push(rows_from(world, x, ("router", what), &from));
            if let Some(change) = scales_from(world, x, &from) {
                let what = format!("scales a row of `{name}` with the scales of {words}, by `{by}`");
                found.push(Hypothesis {
                    cause: "scale_neighbour",
                    slot: Slot::Scales(x),
                    operand: Some(x),
                    what: what.into(),
                    change,
                    sense: Sense::Other,
                    also: None,
                });
            }
        }
    }
    found
}

/// Rows that are gathered by token and slot, in the order of slots before tokens, and the reverse.
fn rows_of_slots<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<(BufferId, usize)> = Vec::new();
    source.visit(&mut |e| {
        if let Op::Gather { x, index } = &e.0.op
            && let Op::Buffer(id) = x.0.op
        {
            let (rows, tokens) = (x.shape().0, index.shape().0 * index.shape().1);
            if tokens > 1 && tokens < rows && rows.is_multiple_of(tokens) && !of.contains(&(id, tokens)) {
                of.push((id, tokens));
            }
        }
    });
    let mut found = Vec::new();
    for (id, tokens) in of {
        let operand = world.attempt.buffer(id);
        let (name, rows) = (&operand.name, operand.rows);
        let slots = rows / tokens;
        for (words, wide, high) in
            [("slots before tokens", slots, tokens), ("tokens before slots", tokens, slots)]
        {
            let from: Vec<usize> = (0..rows).map(|r| r % wide * high + r / wide).collect();
            let what = format!(
                "takes the rows of `{name}`, {tokens} tokens of {slots} slots, to lie in the order of {words}"
            );
            found.push(rows_from(world, id, ("permuted_tiles", what), &Arc::new(from)));
        }
    }
    found
}

/// Keys of a cache with a scale for each head, scaled by that of another head: as queries that are so much larger.
fn scales_of_heads<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<(BufferId, BufferId)> = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { name, inputs, .. } = &e.0.op
            && name == "paged_attention"
            && let (Op::Buffer(q), Op::Buffer(k)) = (&inputs[0].0.op, &inputs[1].0.op)
        {
            of.push((*q, *k));
        }
    });
    let mut found = Vec::new();
    for (q, k) in of {
        let (queries, keys) = (world.attempt.buffer(q), world.attempt.buffer(k));
        let Some(scheme) = keys.scheme else { continue };
        let (grid, (_, d)) =
            (scheme.granularity.grid(keys.rows, keys.cols), scheme.granularity.cell(keys.rows, keys.cols));
        let of_heads = matches!(scheme.granularity, Granularity::Block(..)) && grid.0 == 1 && grid.1 > 1;
        if !of_heads || !queries.cols.is_multiple_of(d) || queries.scheme.is_some() {
            continue;
        }
        let (heads, kv_heads) = (queries.cols / d, grid.1);
        if !heads.is_multiple_of(kv_heads) {
            continue;
        }
        let scale = super::scales::right(keys, &scheme);
        let own = move |head: usize| head / (heads / kv_heads);
        type Head = Box<dyn Fn(usize) -> usize>;
        let rules: [(String, Head); 3] = [
            (format!("key head h % {kv_heads}"), Box::new(move |h| h % kv_heads)),
            ("the next key head".into(), Box::new(move |h| (own(h) + 1) % kv_heads)),
            ("the first key head".into(), Box::new(|_| 0)),
        ];
        for (words, head) in rules {
            let mut values = Matrix::clone(&world.whole(q));
            for r in 0..values.rows {
                for (c, x) in values.row_mut(r).iter_mut().enumerate() {
                    *x *= scale(0, head(c / d)) / scale(0, own(c / d));
                }
            }
            let what = format!("takes for query head h the scale of {words} of `{}`", keys.name);
            found.push(values_of(q, "scale_neighbour", what, values));
        }
    }
    found
}

fn values_of<'a>(id: BufferId, cause: &'static str, what: String, values: Matrix) -> Hypothesis<'a> {
    Hypothesis {
        cause,
        slot: Slot::Values(id),
        operand: Some(id),
        what: what.into(),
        change: Change::Values(Arc::new(values)),
        sense: Sense::Other,
        also: None,
    }
}

/// Vectors that a function of the test is given, as weights, biases and sinks: times a power of two, as a softmax scale is one,
/// with the other sign, or left out.
fn vectors_of_functions<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<BufferId> = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { inputs, .. } = &e.0.op {
            of.extend(inputs.iter().filter_map(|input| match input.0.op {
                Op::Buffer(id) if input.shape().0 == 1 && input.shape().1 > 1 => Some(id),
                _ => None,
            }));
        }
    });
    of.sort_unstable();
    of.dedup();
    let mut found = Vec::new();
    for id in of {
        let operand = world.attempt.buffer(id);
        if operand.dtype.is_integer() || operand.scheme.is_some() {
            continue;
        }
        let (name, values) = (&operand.name, world.whole(id));
        for power in (-8..=8).filter(|power| *power != 0) {
            let factor = 2f64.powi(power);
            let what = format!("takes `{name}` times {factor}");
            found.push(values_of(id, "gain", what, values.map(|x| factor * x)));
        }
        let what = format!("takes `{name}` with the other sign");
        found.push(values_of(id, "gain", what, values.map(|x| -x)));
        let what = format!("takes 0 for `{name}`");
        found.push(values_of(id, "addend_missing", what, values.map(|_| 0.0)));
    }
    found
}
