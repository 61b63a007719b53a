//! Sums whose addends a kernel leaves out or counts several times.

use super::at_node;
use crate::case::Attempt;
use crate::reference::Expr;
use crate::reference::graph::{Binary, Op};

/// How often an addend is counted at most, as once by each slice of K or by each rank.
const MOST: usize = 8;

/// One addend of a sum.
struct Addend {
    /// Where the sum comes among the nodes of the expression, operands first.
    at: usize,
    is_first: bool,
    value: Expr,
    /// Whether the rest of the sum has its shape without it.
    alone: bool,
}

/// Sums that lack one of their addends, or have one several times.
pub fn addends(source: &Expr, attempt: &Attempt) -> Vec<(&'static str, String, Expr)> {
    let (mut found, mut addends) = (Vec::new(), Vec::new());
    let mut at = 0;
    source.visit(&mut |e| {
        if let Op::Binary { function: Binary::Add, a, b } = &e.0.op {
            addends.push(Addend { at, is_first: true, value: a.clone(), alone: a.shape() == b.shape() });
            addends.push(Addend { at, is_first: false, value: b.clone(), alone: true });
        }
        at += 1;
    });
    // In a chain with one sum, `graph::hypotheses` already proposes a missing addend.
    let several = addends.len() > 2;
    let is_sum = |e: &Expr| matches!(e.0.op, Op::Binary { function: Binary::Add, .. });
    for Addend { at, is_first, value, alone } in addends.into_iter().filter(|addend| !is_sum(&addend.value)) {
        let names: Vec<String> =
            value.buffers().iter().map(|id| format!("`{}`", attempt.buffer(*id).name)).collect();
        let names = names.join(" and ");
        if several && alone {
            let mutant = at_node(source, at, &|sum| match &sum.0.op {
                Op::Binary { a, b, .. } => if is_first { b } else { a }.clone(),
                _ => sum,
            });
            let what = format!("leaves out the addend that comes of {names}");
            found.push(("addend_missing", what, mutant.clone()));
            // The sum over K lacks a part, as a reader may well put it.
            if is_partial_product(&value, attempt) {
                let what = format!("leaves out the part of K that {names} is the product of");
                found.push(("k_tail_dropped", what, mutant));
            }
        }
        // A product that is counted several times has all of K counted so often.
        if multiplies(&value) {
            continue;
        }
        for times in 2..=MOST {
            let mutant = at_node(source, at, &|sum| match &sum.0.op {
                Op::Binary { function, a, b } => {
                    let (mut a, mut b) = (a.clone(), b.clone());
                    let side = if is_first { &mut a } else { &mut b };
                    let x = side.clone();
                    *side = Expr::of_op(Op::Scale { x, factor: times as f64 }, side.shape());
                    Expr::of_op(Op::Binary { function: *function, a, b }, sum.shape())
                }
                _ => sum,
            });
            let what = format!("adds {times} times the addend that comes of {names}");
            found.push(("addend_extra", what, mutant));
        }
    }
    found
}

/// Whether an addend is a buffer that another hop has written as a product: of a rank, or of a slice of K.
fn is_partial_product(addend: &Expr, attempt: &Attempt) -> bool {
    let Op::Buffer(id) = addend.0.op else { return false };
    attempt.buffer(id).source.as_ref().is_some_and(multiplies)
}

fn multiplies(of: &Expr) -> bool {
    let mut found = false;
    of.visit(&mut |e| found |= matches!(e.0.op, Op::MatMul { .. }));
    found
}
