//! Routers: which experts are chosen, with which weights, and what is wrong with them.

use super::causes::best;
use super::operations::positive;
use super::{Cause, Replay, Stop, dumped, need, need_integers};
use crate::triage::judge::{Judged, error_shown, judge_choice, relative_error};
use crate::triage::side::{Computed, Side};
use crate::triage::value::Value;
use accuracy_core::model::ops::{self, Precision, Weights};
use accuracy_core::model::{Op, OpKind, Router, Score};
use accuracy_core::reference::Matrix;

impl Replay<'_> {
    pub(super) fn router(
        &self,
        side: &Side,
        index: usize,
        op: &Op,
        router: &Router,
        correction: Option<&str>,
    ) -> Result<Judged, Stop> {
        let correction = correction.map(|name| Weights(self.checkpoint).vector(name)).transpose()?;
        let (logits, indices, out) = match self.routed(side, op) {
            // Engines choose inside of the experts' kernel: the choice is made here, and the experts are its check.
            Err(Stop::Missing(what)) => {
                let logits = need(side, &op.inputs[0], side.precision)?;
                if self.whole {
                    self.choose_apart(side, index, op, router, correction.as_deref())?;
                } else if logits.x.cols == router.experts {
                    choose(side, index, op, router, &logits, correction.as_deref());
                }
                return Err(Stop::Missing(what));
            }
            found => found?,
        };
        let p = out.precision;
        let chosen_by = out.x.cols;
        let exact = ops::route(router, &logits.x, correction.as_deref(), Precision::Exact);
        let noisy = ops::route(router, &logits.x, correction.as_deref(), p);
        let (k, tokens) = (router.topk, logits.x.rows);
        let sorted = |ids: &[i64]| {
            let mut set = ids.to_vec();
            set.sort_unstable();
            set
        };
        let set = |ids: &[i64], t: usize| sorted(&ids[t * k..(t + 1) * k]);
        let (mut ties, mut flips) = (0, Vec::new());
        let mut kept = Vec::new();
        let hidden = side.hidden(&logits.lead);
        for t in (0..tokens).filter(|&t| !hidden.get(t).copied().unwrap_or(false)) {
            let chosen = sorted(&indices[t * chosen_by..(t + 1) * chosen_by]);
            let tie = || may_choose(router, &logits, t, &chosen, correction.as_deref());
            if chosen == set(&exact.indices, t) {
                kept.push(t);
            } else if tie() {
                ties += 1;
            } else {
                flips.push(t);
            }
        }
        let pick = |ids: &[i64], weights: &Matrix| {
            let rows: Vec<usize> = kept.iter().chain(&flips).copied().collect();
            let mut dense = Matrix::zeros(rows.len(), router.experts);
            for (r, &t) in rows.iter().enumerate() {
                let k = weights.cols;
                for (slot, &e) in ids[t * k..(t + 1) * k].iter().enumerate() {
                    if (0..router.experts as i64).contains(&e) {
                        dense.row_mut(r)[e as usize] = weights.row(t)[slot];
                    }
                }
            }
            dense
        };
        let expected = pick(&exact.indices, &exact.weights);
        let noisy = pick(&exact.indices, &noisy_in_order(&exact.indices, &noisy, k));
        let found = pick(&indices, &out.x);
        let extra = vec![16.0 * Precision::F32.unit(); expected.rows];
        let mut judged = judge_choice([&expected, &noisy, &found], p.unit(), &extra);
        if chosen_by != k {
            judged.ok = false;
            judged
                .notes
                .insert(0, format!("each token goes to {chosen_by}, the configuration says {k} experts"));
        } else if !flips.is_empty() {
            judged.ok = false;
            judged.notes.insert(
                0,
                format!(
                    "{} of {tokens} tokens go to other experts, which is no near tie (first {})",
                    flips.len(),
                    flips[0]
                ),
            );
        }
        if !judged.ok && router.scaling != 1.0 && flips.is_empty() && chosen_by == k {
            let unscaled = Router { scaling: 1.0, ..router.clone() };
            let route = |p| ops::route(&unscaled, &logits.x, correction.as_deref(), p);
            let (exact, noisy) = (route(Precision::Exact), route(p));
            let expected = pick(&exact.indices, &exact.weights);
            let noisy = pick(&exact.indices, &noisy_in_order(&exact.indices, &noisy, k));
            judged.late = judge_choice([&expected, &noisy, &found], p.unit(), &extra).ok;
        }
        if ties > 0 {
            judged.notes.push(format!("{ties} of {tokens} tokens are near ties that rounding decides"));
        }
        Ok(judged)
    }

    /// The choice of experts in a model that is computed as a whole: the exact one, and the one with rounding. Tokens for
    /// which they differ are marked.
    fn choose_apart(
        &self,
        side: &Side,
        index: usize,
        op: &Op,
        router: &Router,
        correction: Option<&[f64]>,
    ) -> Result<(), Stop> {
        let choice = |p: Precision| -> Result<ops::Choice, Stop> {
            let logits = need(side, &op.inputs[0], p)?.x;
            Ok(ops::route(router, &logits, correction, p))
        };
        let (exact, noisy) = (choice(Precision::Exact)?, choice(side.precision)?);
        let (rows, k) = (exact.weights.rows, router.topk);
        let set = |choice: &ops::Choice, t: usize| {
            let mut ids = choice.indices[t * k..(t + 1) * k].to_vec();
            ids.sort_unstable();
            ids
        };
        let undecided: Vec<bool> = (0..rows).map(|t| set(&exact, t) != set(&noisy, t)).collect();
        let ids =
            |choice: &ops::Choice| Matrix::new(rows, k, choice.indices.iter().map(|&e| e as f64).collect());
        let made = |exact: Matrix, noisy: Matrix| Computed {
            exact,
            noisy,
            extra: vec![16.0 * Precision::F32.unit(); rows],
            undecided: undecided.clone(),
        };
        side.keep(index, op, &op.inputs[1], made(ids(&exact), ids(&noisy)));
        side.keep(index, op, &op.output, made(exact.weights, noisy.weights));
        Ok(())
    }

    /// Logits, indices and weights of a router.
    fn routed(&self, side: &Side, op: &Op) -> Result<(Value, Vec<i64>, Value), Stop> {
        let OpKind::Router { router, .. } = &op.kind else { unreachable!("asked of routers only") };
        let logits = dumped(side, &op.inputs[0])?;
        let (indices, out) = match (need_integers(side, &op.inputs[1]), dumped(side, &op.output)?) {
            // Weights of all experts say which are chosen.
            (Err(_), out) if out.x.cols == router.experts && router.topk < router.experts => {
                let (indices, x) = positive(&out.x);
                (indices, Value { x, ..out })
            }
            (indices, out) => (indices?, out),
        };
        let tokens = logits.x.rows;
        let count = out.x.data.len();
        if logits.x.cols != router.experts
            || tokens == 0
            || indices.len() != count
            || !count.is_multiple_of(tokens)
            || !(1..=router.experts).contains(&(count / tokens))
        {
            return Err(Stop::Unusable(format!(
                "{tokens}x{} logits, {} indices and {} weights; expected {} experts and {} for each token",
                logits.x.cols,
                indices.len(),
                out.x.data.len(),
                router.experts,
                router.topk
            )));
        }
        let out = out.reshaped(count / tokens).map_err(Stop::Unusable)?;
        Ok((logits, indices, out))
    }

    pub(super) fn router_causes(
        &self,
        side: &Side,
        op: &Op,
        router: &Router,
        correction: Option<&str>,
        judged: &Judged,
    ) -> Option<Cause> {
        let (logits, indices, out) =
            self.routed(side, op).ok().filter(|found| found.2.x.cols <= router.topk)?;
        let correction = correction.and_then(|name| Weights(self.checkpoint).vector(name).ok());
        let dense = |ids: &[i64], w: &Matrix| {
            let mut dense = Matrix::zeros(logits.x.rows, router.experts);
            for (i, &e) in ids.iter().enumerate() {
                if (0..router.experts as i64).contains(&e) {
                    dense.row_mut(i / w.cols)[e as usize] = w.data[i];
                }
            }
            dense
        };
        let found = dense(&indices, &out.x);
        let hidden = side.hidden(&logits.lead);
        let right = correction.as_deref();
        let mut tries: Vec<(&str, Router, Option<&[f64]>)> =
            other_routers(router).into_iter().map(|(detail, r)| (detail, r, right)).collect();
        tries.push(("the correction bias is ignored", router.clone(), None));
        let own = ops::route(router, &logits.x, right, Precision::Exact);
        let slots = |weights: &Matrix, change: &dyn Fn(&mut [f64])| {
            let mut changed = weights.clone();
            changed.data.chunks_exact_mut(changed.cols.max(1)).for_each(change);
            changed
        };
        let mut made: Vec<(String, Matrix)> = Vec::new();
        if out.x.cols == router.topk && router.topk > 1 {
            for from in 1..router.topk {
                let detail = match router.topk - from {
                    1 => "the weight of the last expert of each token is zero".to_owned(),
                    n => format!("the weights of the last {n} experts of each token are zero"),
                };
                let without = slots(&own.weights, &|row| row[from..].fill(0.0));
                made.push((detail, dense(&own.indices, &without)));
            }
            // Each token's weights are right and go with another of its experts.
            let mut sorted = own.weights.clone();
            for t in 0..sorted.rows {
                let mut found = out.x.row(t).to_vec();
                let mut right: Vec<(usize, f64)> = sorted.row(t).iter().copied().enumerate().collect();
                right.sort_by(|a, b| a.1.total_cmp(&b.1));
                found.sort_by(f64::total_cmp);
                // A permutation of the found ones that is nearest to the right ones.
                let row = sorted.row_mut(t);
                right.iter().zip(found).for_each(|(&(slot, _), value)| row[slot] = value);
            }
            let same = relative_error(&own.weights, &sorted);
            if same <= judged.bound {
                let detail =
                    "the weights of each token's experts are right, in another order than the experts";
                made.push((detail.to_owned(), found.clone()));
            }
        }
        if out.x.cols == router.topk {
            made.extend(other_weights(router).into_iter().map(|(detail, r)| {
                let weights = ops::weigh(&r, &logits.x, &indices, Precision::Exact);
                (detail, dense(&indices, &weights))
            }));
        }
        let tries = tries.into_iter().filter(|(_, r, c)| r != router || c.is_some() != right.is_some());
        let tried = tries.map(|(detail, r, c)| {
            let choice = ops::route(&r, &logits.x, c, Precision::Exact);
            let error = error_shown(&dense(&choice.indices, &choice.weights), &found, &hidden);
            (None, detail.to_owned(), error)
        });
        let made = made.into_iter().map(|(d, m)| (None, d, error_shown(&m, &found, &hidden)));
        best(tried.chain(made), judged)
    }
}

/// Weights of the rounded choice in the order of the exact one; its own where the two differ.
fn noisy_in_order(order: &[i64], noisy: &ops::Choice, k: usize) -> Matrix {
    let mut out = noisy.weights.clone();
    for t in 0..out.rows {
        for slot in 0..k {
            let wanted = order[t * k + slot];
            if let Some(at) = noisy.indices[t * k..(t + 1) * k].iter().position(|&e| e == wanted) {
                out.row_mut(t)[slot] = noisy.weights.row(t)[at];
            }
        }
    }
    out
}

/// The choice of experts that a dump does not have, kept for the experts. Tokens that rounding decides are marked.
fn choose(side: &Side, index: usize, op: &Op, router: &Router, logits: &Value, correction: Option<&[f64]>) {
    let exact = ops::route(router, &logits.x, correction, Precision::Exact);
    let noisy = ops::route(router, &logits.x, correction, side.precision);
    let k = router.topk;
    let undecided = (0..logits.x.rows).map(|t| {
        let mut chosen = exact.indices[t * k..(t + 1) * k].to_vec();
        chosen.sort_unstable();
        // The one that is best of those that are not chosen takes the place of the last one.
        let without = Router { topk: (k + 1).min(router.experts), groups: None, ..router.clone() };
        let row = Matrix::new(1, logits.x.cols, logits.x.row(t).to_vec());
        let more = ops::route(&without, &row, correction, Precision::Exact);
        let next = more.indices.iter().find(|e| !chosen.contains(e));
        let last = exact.indices[t * k + k - 1];
        next.is_some_and(|&next| {
            let mut other: Vec<i64> = chosen.iter().map(|&e| if e == last { next } else { e }).collect();
            other.sort_unstable();
            may_choose(router, logits, t, &other, correction)
        })
    });
    let undecided: Vec<bool> = undecided.collect();
    let extra = vec![16.0 * Precision::F32.unit(); logits.x.rows];
    let rows = logits.x.rows;
    let ids = Matrix::new(rows, k, exact.indices.iter().map(|&e| e as f64).collect());
    let weights = noisy_in_order(&exact.indices, &noisy, k);
    let made = |exact: Matrix, noisy: Matrix| Computed {
        exact,
        noisy,
        extra: extra.clone(),
        undecided: undecided.clone(),
    };
    side.keep(index, op, &op.inputs[1], made(ids.clone(), ids));
    side.keep(index, op, &op.output, made(exact.weights, weights));
}

/// Whether rounding of the logits may make a token choose these experts.
fn may_choose(
    router: &Router,
    logits: &Value,
    token: usize,
    chosen: &[i64],
    correction: Option<&[f64]>,
) -> bool {
    let mut again = ops::route(router, &lean(logits, token, chosen), correction, Precision::Exact).indices;
    again.sort_unstable();
    again == chosen
}

/// One token's logits, moved towards a choice by as much as rounding may have: the chosen up, the others down.
fn lean(logits: &Value, token: usize, chosen: &[i64]) -> Matrix {
    let unit = 2.0 * logits.precision.unit();
    let moved = logits.x.row(token).iter().enumerate().map(|(e, &v)| {
        let towards = if chosen.contains(&(e as i64)) { 1.0 } else { -1.0 };
        v + towards * unit * v.abs().max(1.0)
    });
    Matrix::new(1, logits.x.cols, moved.collect())
}

/// Routers with a known mistake.
pub(super) fn other_routers(router: &Router) -> Vec<(&'static str, Router)> {
    let with = |change: &dyn Fn(&mut Router)| {
        let mut r = router.clone();
        change(&mut r);
        r
    };
    let mut all: Vec<(&str, Router)> =
        (1..router.topk).map(|topk| ("fewer experts are taken", with(&|r| r.topk = topk))).collect();
    all.push(("groups are ignored", with(&|r| r.groups = None)));
    let detail = "weights are renormalised or not, the other way round";
    all.push((detail, with(&|r| r.renormalise = !r.renormalise)));
    all.push(("the scaling factor is missing", with(&|r| r.scaling = 1.0)));
    all.push(("softmax in place of sigmoid", with(&|r| r.score = Score::Softmax)));
    all.push(("sigmoid in place of softmax", with(&|r| r.score = Score::Sigmoid)));
    all.retain(|(_, r)| r != router);
    all
}

/// Weights of the same choice by other scores, renormalised or not.
fn other_weights(router: &Router) -> Vec<(String, Router)> {
    let mut all = Vec::new();
    for (score, name) in [
        (Score::Softmax, "the softmax over all experts"),
        (Score::Sigmoid, "sigmoids"),
        (Score::SoftmaxOfChosen, "the softmax over the chosen experts"),
    ] {
        for (renormalise, how) in [(false, ""), (true, ", renormalised")] {
            for scaling in [router.scaling, 1.0] {
                let other = Router { score, renormalise, scaling, ..router.clone() };
                let factor = if scaling == router.scaling { "" } else { ", without the scaling factor" };
                if other != *router && !all.iter().any(|(_, r)| *r == other) {
                    all.push((format!("the weights of the right experts are {name}{how}{factor}"), other));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_choice_is_right_at_an_exact_tie_and_none_but_one_elsewhere() {
        let router = Router {
            experts: 6,
            topk: 2,
            score: Score::Softmax,
            correction: false,
            groups: None,
            renormalise: true,
            scaling: 1.0,
        };
        let explained = |logits: &[f64], chosen: &[i64]| {
            let x = Matrix::new(1, 6, logits.to_vec());
            let logits = Value::new(x, vec![1], Precision::BF16, "the router".to_owned());
            let mut again = ops::route(&router, &lean(&logits, 0, chosen), None, Precision::Exact).indices;
            again.sort_unstable();
            again == chosen
        };
        for first in 0..6 {
            for second in first + 1..6 {
                assert!(explained(&[0.0; 6], &[first, second]));
            }
        }
        let logits = [4.0, 2.0, 1.995, 1.9, 0.0, -1.0];
        assert!(explained(&logits, &[0, 1]) && explained(&logits, &[0, 2]));
        for other in [[0, 3], [1, 2], [0, 4]] {
            assert!(!explained(&logits, &other), "{other:?}");
        }
    }
}
