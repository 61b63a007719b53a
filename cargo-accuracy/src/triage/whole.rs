//! The whole model from its tokens, exact and with correct rounding and quantisation: how far apart these are is what the
//! logits of a right run may be off by.
//!
//! Each operation may be right to within its bound, and all of them off in one direction: then the logits are off by more
//! than errors that have nothing to do with each other add up to.

use super::judge::rows_of;
use super::replay::Replay;
use super::side::Side;
use accuracy_core::model::ops::{self, Precision, Weights};
use accuracy_core::model::{OpKind, Plan};
use accuracy_core::reference::Matrix;
use std::collections::BTreeSet;

/// Logits of a right run may be off by this many times what one draw of its noise makes of them.
const FACTOR: f64 = 2.0;
/// The same of fewer tokens than these, which are a few draws of few values.
const FEW: usize = 8;
const FEW_FACTOR: f64 = 4.0;
/// Tokens of which the model is computed; a prefix has the logits that it has in the whole.
const TOKENS: usize = 128;

/// How far logits are from the exact ones.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What correct rounding and quantisation of the whole model make.
    pub noise: f64,
    pub reference: Option<f64>,
    pub candidate: Option<f64>,
    /// Tokens that were compared.
    pub tokens: usize,
}

impl Explained {
    /// The error that is allowed.
    pub fn bound(&self) -> f64 {
        self.noise * if self.tokens < FEW { FEW_FACTOR } else { FACTOR }
    }

    pub fn exceeds(&self, error: Option<f64>) -> bool {
        error.is_some_and(|e| e.is_nan() || e > self.bound())
    }
}

/// A token of candidate and reference: its sequence and its row in each, and whether it is its sequence's last.
struct Token {
    sequences: [usize; 2],
    rows: [usize; 2],
    last: bool,
}

/// Computes the model from the first tokens of a pass that continues no other. `None` where the pass or the model does
/// not allow it.
pub fn explained(replay: &Replay<'_>, plan: &Plan, reference: &Side, candidate: &Side) -> Option<Explained> {
    if candidate.continues() || reference.continues() {
        return None;
    }
    let sequences = candidate.by_sequence().ok()??;
    let theirs = reference.by_sequence().ok()??;
    let all: usize = candidate.layout.as_ref().map_or(sequences.iter().map(|s| s.1.len()).sum(), |l| l.rows);
    let logits = [candidate, reference].map(|side| side.load(&plan.logits).ok().flatten());
    // A head that computes the last rows alone needs the whole sequence.
    let only_last = logits.iter().flatten().any(|v| v.x.rows < all);
    let (mut ids, mut lengths, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (which, (tokens, rows)) in sequences.iter().enumerate() {
        let other = theirs.iter().position(|s| s.0 == *tokens)?;
        let length = tokens.len().min(TOKENS - ids.len());
        if length == 0 || only_last && length < tokens.len() {
            break;
        }
        let place = |t: usize| Token {
            sequences: [which, other],
            rows: [rows[t], theirs[other].1[t]],
            last: t + 1 == tokens.len(),
        };
        places.extend((0..length).map(place));
        ids.extend_from_slice(&tokens[..length]);
        lengths.push(length);
    }
    if ids.is_empty() {
        return None;
    }
    let mut side = candidate.alone(ids, &lengths);
    // Either dump may be of the format that rounds more.
    if reference.precision.unit() > side.precision.unit() {
        side.precision = reference.precision;
    }
    let replay = Replay { whole: true, ..*replay };
    // Tokens that took other experts in a dump than in the exact model: single ones may.
    let mut flipped = [vec![false; places.len()], vec![false; places.len()]];
    let mut layer = None;
    for (index, op) in plan.ops.iter().enumerate() {
        if op.layer != layer {
            layer = op.layer;
            side.keep_only(&plan.stream[layer.unwrap_or(plan.stream.len() - 1)]);
        }
        replay.op(&side, index, op);
        if let OpKind::Router { router, correction } = &op.kind {
            let correction =
                correction.as_ref().and_then(|name| Weights(replay.checkpoint).vector(name).ok());
            let chosen = side.made(&op.inputs[1], Precision::Exact).ok()??.x;
            for (which, dump) in [candidate, reference].into_iter().enumerate() {
                let Some(logits) = dump.load(&op.inputs[0]).ok().flatten() else { continue };
                if logits.x.cols != router.experts || places.iter().any(|t| t.rows[which] >= logits.x.rows) {
                    continue;
                }
                let theirs = ops::route(router, &logits.x, correction.as_deref(), Precision::Exact);
                let k = router.topk;
                for (r, token) in places.iter().enumerate() {
                    let row = token.rows[which];
                    let set: BTreeSet<i64> = theirs.indices[row * k..(row + 1) * k].iter().copied().collect();
                    flipped[which][r] |= chosen.row(r).iter().any(|e| !set.contains(&(*e as i64)));
                }
            }
        }
    }
    side.begin();
    let exact = side.made(&plan.logits, Precision::Exact).ok()??.x;
    let noisy = side.made(&plan.logits, side.precision).ok()??.x;
    let undecided = side.undecided();
    let routed = plan.ops.iter().any(|op| matches!(op.kind, OpKind::Router { .. }));
    let asked: Vec<usize> = (0..places.len()).filter(|&r| !only_last || places[r].last).collect();
    let same = |moved: &[bool]| -> Vec<usize> {
        asked.iter().copied().filter(|&r| !moved.get(r).copied().unwrap_or(false)).collect()
    };
    let error =
        |x: &Matrix, kept: &[usize], rows: &[usize]| apart(&rows_of(&exact, kept), &rows_of(x, rows), routed);
    // The noise of all tokens is known better than that of the last ones.
    let steady: Vec<usize> =
        (0..places.len()).filter(|&r| !undecided.get(r).copied().unwrap_or(false)).collect();
    let steady = if steady.is_empty() { (0..places.len()).collect() } else { steady };
    let noise = error(&noisy, &steady, &steady);
    let tokens = flipped.iter().map(|moved| same(moved).len()).filter(|&n| n > 0).min().unwrap_or(0);
    let mut sides = (0..2).zip(&logits).map(|(which, value)| {
        let value = value.as_ref().filter(|v| v.x.cols == exact.cols)?;
        let full = value.x.rows >= all.min(places.len()) && value.x.rows > lengths.len();
        let kept = same(&flipped[which]);
        let row = |&r: &usize| if full { places[r].rows[which] } else { places[r].sequences[which] };
        let rows: Vec<usize> = kept.iter().map(row).collect();
        let fits = !kept.is_empty() && rows.iter().all(|&r| r < value.x.rows);
        fits.then(|| error(&value.x, &kept, &rows))
    });
    let (candidate, reference) = (sides.next()?, sides.next()?);
    Some(Explained { noise, reference, candidate, tokens })
}

/// Relative error; of a model with routers that of the row in the middle, because single tokens may rightly take other
/// experts.
fn apart(exact: &Matrix, out: &Matrix, routed: bool) -> f64 {
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let size = |a: &[f64]| a.iter().map(|v| v * v).sum::<f64>().max(f64::MIN_POSITIVE);
    if !routed {
        return (square(&exact.data, &out.data) / size(&exact.data)).sqrt();
    }
    let mut rows: Vec<f64> =
        (0..exact.rows).map(|r| (square(exact.row(r), out.row(r)) / size(exact.row(r))).sqrt()).collect();
    rows.sort_by(f64::total_cmp);
    rows.get(rows.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_with_other_experts_does_not_count_and_all_tokens_do() {
        let exact = Matrix::new(5, 2, vec![1.0; 10]);
        let mut out = exact.clone();
        out.row_mut(3).fill(-1.0);
        assert_eq!(apart(&exact, &out, true), 0.0);
        assert!(apart(&exact, &out, false) > 0.5);
        let off = exact.map(|x| 1.1 * x);
        for routed in [false, true] {
            assert!((apart(&exact, &off, routed) - 0.1).abs() < 1e-12);
        }
        let explained = Explained { noise: 0.03, reference: None, candidate: Some(0.1), tokens: 20 };
        assert!(explained.exceeds(explained.candidate) && !explained.exceeds(Some(0.05)));
        assert!(!Explained { tokens: 1, ..explained.clone() }.exceeds(Some(0.1)));
        assert!(explained.exceeds(Some(f64::NAN)) && !explained.exceeds(None));
    }
}
