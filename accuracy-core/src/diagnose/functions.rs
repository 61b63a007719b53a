//! Hypotheses about functions that a test defines. Nothing is known of their formula, so their operands are changed: one that is
//! left out, scaled, or counted otherwise gives what the function itself would make of it.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::sampled::World;
use crate::case::Captured;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use std::sync::Arc;

/// Elements of an operand that is scaled: larger ones are what the function works on, and a factor of these is fitted to the
/// result.
const SMALL: usize = 4096;
/// Factors are tried in steps of the root of 2, in both directions.
const STEPS: i32 = 14;
/// Columns of a head.
const HEADS: [usize; 5] = [16, 32, 64, 128, 256];

/// Changes of the operands of the test's own functions.
pub fn hypotheses<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut found = Vec::new();
    source.visit(&mut |e| {
        let Op::User { inputs, suspects, faults, .. } = &e.0.op else { return };
        // The framework's own functions know better.
        if !suspects.is_empty() || faults.iter().any(|(name, _)| name.starts_with("router")) {
            return;
        }
        let operands: Vec<BufferId> = inputs.iter().filter_map(buffer).collect();
        for &id in &operands {
            let operand = world.attempt.buffer(id);
            let is_index = operand.dtype.is_integer() && operand.scheme.is_none();
            if is_length(operand, &operands, world) {
                found.extend(lengths(id, operand, world));
            } else if !is_index && operand.rows * operand.cols <= SMALL {
                found.extend(values(id, operand, world));
            }
            if !is_index && operand.scheme.is_none() && operand.rows > 1 {
                found.extend(parts_of_heads(id, operand, world));
            }
        }
    });
    found
}

fn buffer(input: &Expr) -> Option<BufferId> {
    match input.0.op {
        Op::Buffer(id) => Some(id),
        _ => None,
    }
}

fn changed<'a>(id: BufferId, cause: &'static str, what: String, value: Matrix) -> Hypothesis<'a> {
    Hypothesis {
        cause,
        slot: Slot::Values(id),
        operand: Some(id),
        what: what.into(),
        change: Change::Values(Arc::new(value)),
        sense: Sense::Other,
        also: None,
    }
}

/// Integers beside a table that has several for each of them: how much of each row of the table counts.
pub fn is_length(operand: &Captured, operands: &[BufferId], world: &World<'_>) -> bool {
    let count = operand.rows * operand.cols;
    let is_index = operand.dtype.is_integer() && operand.scheme.is_none();
    let is_table = |id: &BufferId| {
        let table = world.attempt.buffer(*id);
        let size = table.rows * table.cols;
        table.dtype.is_integer() && table.scheme.is_none() && size > count && size.is_multiple_of(count)
    };
    is_index && count > 1 && operands.iter().any(is_table)
}

/// Lengths that a kernel counts otherwise.
fn lengths<'a>(id: BufferId, operand: &Captured, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let (name, value) = (&operand.name, world.whole(id));
    let mut found = Vec::new();
    let mut add = |what: String, f: &dyn Fn(f64) -> f64| {
        let other = value.map(f);
        if other.data != value.data {
            found.push(changed(id, "k_tail_dropped", what, other));
        }
    };
    for by in [1.0, 2.0] {
        add(format!("counts {by} more than each of `{name}`"), &|x| x + by);
        add(format!("counts {by} less than each of `{name}`"), &|x| (x - by).max(0.0));
    }
    for size in [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] {
        let words = format!("each of `{name}` to a multiple of {size}");
        add(format!("rounds up {words}"), &|x| (x / size).ceil() * size);
        add(format!("rounds down {words}"), &|x| (x / size).floor() * size);
        add(format!("counts at most {size} of each of `{name}`"), &|x| x.min(size));
    }
    let longest = value.data.iter().copied().fold(0.0, f64::max);
    add(format!("takes the largest of `{name}` for all"), &|_| longest);
    found
}

/// Columns of each head that a kernel leaves out of whatever it sums up: the last of a tile, or those beyond whole ones.
fn parts_of_heads<'a>(id: BufferId, operand: &Captured, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let (name, value) = (&operand.name, world.whole(id));
    let mut found = Vec::new();
    for head in HEADS.into_iter().filter(|head| value.cols.is_multiple_of(*head)) {
        for left_out in [4, 8, 16, 32].into_iter().filter(|n| *n < head) {
            let mut other = Matrix::clone(&value);
            for r in 0..other.rows {
                let row = other.row_mut(r).iter_mut().enumerate();
                row.filter(|(c, _)| c % head >= head - left_out).for_each(|(_, x)| *x = 0.0);
            }
            let what = format!("leaves out the last {left_out} of every {head} columns of `{name}`");
            found.push(Hypothesis { sense: Sense::Nameless, ..changed(id, "k_tail_dropped", what, other) });
        }
    }
    found
}

/// A small operand, such as a gain, a bias, a factor or a sink of each head: left out or scaled.
fn values<'a>(id: BufferId, operand: &Captured, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let (name, value) = (&operand.name, world.whole(id));
    let mut found = Vec::new();
    let mut add = |cause, what: String, f: &dyn Fn(f64) -> f64| {
        found.push(changed(id, cause, what, value.map(f)));
    };
    add("addend_missing", format!("takes 0 for `{name}`"), &|_| 0.0);
    let what = format!("leaves `{name}` out of a sum of exponentials");
    add("addend_missing", what, &|_| f64::NEG_INFINITY);
    // Nobody says which of the two it is, so that neither is stated for certain.
    add("scale_missing", format!("does not multiply with `{name}`"), &|_| 1.0);
    add("parameter_ignored", format!("takes 1 for `{name}`"), &|_| 1.0);
    add("gain", format!("takes `{name}` with the wrong sign"), &|x| -x);
    add("gain", format!("multiplies with `{name}` twice"), &|x| x * x);
    add("scale_inverted", format!("divides by `{name}` instead of multiplying, or the reverse"), &|x| {
        1.0 / x
    });
    add("gain", format!("adds 1 to `{name}`"), &|x| x + 1.0);
    for step in (-STEPS..=STEPS).filter(|step| *step != 0) {
        let factor = 2f64.powf(f64::from(step) / 2.0);
        add("gain", format!("takes {factor:.6} times `{name}`"), &|x| factor * x);
    }
    found
}
