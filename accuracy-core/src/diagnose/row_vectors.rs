//! Operands of one row, such as gains, biases and factors of columns, of which a kernel takes the element of another column.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::sampled::World;
use crate::reference::graph::{Op, operands};
use crate::reference::{BufferId, Expr, Matrix};
use std::sync::Arc;

/// Runs of columns of which one element is taken for all, or that are skipped.
const RUNS: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// Every hypothesis about operands of one row that go with the columns of something else.
pub fn hypotheses<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<BufferId> = Vec::new();
    source.visit(&mut |e| {
        // A product has no columns of its operand left.
        if matches!(e.0.op, Op::MatMul { .. } | Op::User { .. }) {
            return;
        }
        for operand in operands(&e.0.op) {
            if let Op::Buffer(id) = operand.0.op
                && operand.shape().0 == 1
                && operand.shape().1 > 2
                && !of.contains(&id)
            {
                of.push(id);
            }
        }
    });
    of.into_iter().flat_map(|id| of_vector(id, world)).collect()
}

fn of_vector<'a>(id: BufferId, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let operand = world.attempt.buffer(id);
    let mut found = Vec::new();
    if operand.dtype.is_integer() || operand.scheme.is_some() {
        return found;
    }
    let (name, value) = (&operand.name, world.whole(id));
    let n = value.data.len();
    let mut add = |cause: &'static str, what: String, of: &dyn Fn(usize) -> f64| {
        let data: Vec<f64> = (0..n).map(of).collect();
        if data != value.data {
            found.push(Hypothesis {
                cause,
                slot: Slot::Values(id),
                operand: Some(id),
                what: what.into(),
                change: Change::Values(Arc::new(Matrix::new(1, n, data))),
                sense: Sense::Other,
                also: None,
            });
        }
    };
    let cause = "permuted_tiles";
    let at = |i: usize| value.data[i.min(n - 1)];
    let own = "those at the end with their own";
    add(cause, format!("takes of `{name}` the one before, {own}"), &|i| at(i.saturating_sub(1)));
    add(cause, format!("takes of `{name}` the one behind, {own}"), &|i| at(i + 1));
    for run in RUNS.into_iter().filter(|run| *run < n) {
        add(cause, format!("takes of `{name}` the first of every {run}"), &|i| at(i / run * run));
        add(cause, format!("takes of `{name}` the one at c % {run}"), &|i| at(i % run));
        add(cause, format!("takes of `{name}` the one at c / {run}"), &|i| at(i / run));
        add(cause, format!("takes of `{name}` the one {run} before, {own}"), &|i| {
            at(i.checked_sub(run).unwrap_or(i))
        });
    }
    // The kernel ignores a mask: it uses every column that a zero should switch off.
    add("parameter_ignored", format!("takes 1 for the zeros of `{name}`"), &|i| {
        if at(i) == 0.0 { 1.0 } else { at(i) }
    });
    found
}
