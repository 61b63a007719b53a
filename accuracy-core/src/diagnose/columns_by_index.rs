//! Columns or rows that two indices choose, one for each half, as of gate and up: one half taken for the other, or both where
//! another arrangement has them.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::sampled::World;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use std::sync::Arc;

/// Every hypothesis about two indices that together choose each column once.
pub fn hypotheses<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut of: Vec<BufferId> = Vec::new();
    source.visit(&mut |e| {
        if let Op::Gather { index, .. } = &e.0.op
            && let Op::Buffer(id) = index.0.op
            && !of.contains(&id)
        {
            of.push(id);
        }
    });
    let [a, b] = of[..] else { return Vec::new() };
    let (first, second) = (world.whole(a), world.whole(b));
    let n = first.data.len();
    let mut chosen: Vec<f64> = first.data.iter().chain(&second.data).copied().collect();
    chosen.sort_by(f64::total_cmp);
    let once = chosen.iter().enumerate().all(|(i, x)| *x == i as f64);
    if n < 2 || second.data.len() != n || !once {
        return Vec::new();
    }
    let (a_name, b_name) = (&world.attempt.buffer(a).name, &world.attempt.buffer(b).name);
    let mut found = Vec::new();
    let mut add = |what: String, of: [Vec<f64>; 2]| {
        if of[0] == first.data && of[1] == second.data {
            return;
        }
        let [of_a, of_b] = of.map(|data| Change::Values(Arc::new(Matrix::new(first.rows, first.cols, data))));
        found.push(Hypothesis {
            cause: "gate_up_swapped",
            slot: Slot::Values(a),
            operand: Some(a),
            what: what.into(),
            change: of_a,
            sense: Sense::Other,
            also: Some((Slot::Values(b), of_b)),
        });
    };
    add(
        format!("takes `{a_name}` for `{b_name}` and the reverse"),
        [second.data.clone(), first.data.clone()],
    );
    let half = |from: usize| (from..from + n).map(|i| i as f64).collect::<Vec<f64>>();
    let each_second = |from: usize| (0..n).map(|i| (2 * i + from) as f64).collect::<Vec<f64>>();
    let names = format!("what `{a_name}` and `{b_name}` choose");
    add(format!("takes {names} to be two halves"), [half(0), half(n)]);
    add(format!("takes {names} to be two halves, the second first"), [half(n), half(0)]);
    add(format!("takes {names} to alternate"), [each_second(0), each_second(1)]);
    add(format!("takes {names} to alternate, the second first"), [each_second(1), each_second(0)]);
    found
}
