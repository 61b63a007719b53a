//! Layer by layer: how far stream and branches of the two dumps are apart.
//!
//! The residual stream hides most faults (a wrong branch is a small part of it), so layers are judged by what they add.

use super::side::{Side, View};
use accuracy_core::metrics::compare_panels;
use accuracy_core::model::{Plan, Site};
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// How one value of the candidate compares with the reference's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Agreement {
    pub cos: Option<f64>,
    pub gain: Option<f64>,
    pub rel_l2: Option<f64>,
    pub cos_row_min: Option<f64>,
    pub row_min_index: Option<usize>,
    pub identical: bool,
}

/// One layer of the two dumps.
#[derive(Clone, Debug, Serialize)]
pub struct LayerProfile {
    pub layer: usize,
    /// The residual stream before and after it.
    pub before: Option<Agreement>,
    pub after: Option<Agreement>,
    /// What the layer adds: after minus before.
    pub branch: Option<Agreement>,
    /// Its branches' own outputs.
    pub attention: Option<Agreement>,
    pub mlp: Option<Agreement>,
    /// What the rounding of the candidate's format alone may make of the branch, from the same input.
    pub unit: f64,
    /// The candidate's output is its input, bit for bit, and the reference's is not.
    pub adds_nothing: bool,
    pub problems: Vec<String>,
}

impl LayerProfile {
    /// What the layer adds, or the worse of its branches.
    pub fn worst(&self) -> Option<&Agreement> {
        let branches = [&self.branch, &self.attention, &self.mlp].into_iter().flatten();
        branches.max_by(|a, b| {
            let size = |a: &Agreement| a.rel_l2.unwrap_or(f64::INFINITY);
            size(a).total_cmp(&size(b))
        })
    }

    pub fn identical(&self) -> bool {
        let mut seen =
            [&self.branch, &self.attention, &self.mlp, &self.after].into_iter().flatten().peekable();
        seen.peek().is_some() && seen.all(|a| a.identical)
    }
}

/// A value in the reference and in the candidate, in one shape.
pub type Pair = (View, View);

/// A value of both dumps.
pub fn pair(reference: &Side, candidate: &Side, site: &Site) -> Result<Option<Pair>, String> {
    let (Some(mut a), Some(mut b)) = (reference.view(site)?, candidate.view(site)?) else { return Ok(None) };
    // An engine computes logits of the last token of each sequence alone.
    if a.rows != b.rows && a.cols == b.cols {
        let (first, second) = (reference.ends(), candidate.ends());
        let within = |ends: &[usize], rows: usize| ends.iter().all(|&end| end < rows);
        if b.rows == first.len() && a.rows > b.rows && within(&first, a.rows) {
            a = a.picked(&first);
        } else if a.rows == second.len() && b.rows > a.rows && within(&second, b.rows) {
            b = b.picked(&second);
        }
    }
    if a.rows * a.cols != b.rows * b.cols {
        return Err(format!(
            "{}: {}x{} in the reference, {}x{} in the candidate",
            a.place, a.rows, a.cols, b.rows, b.cols
        ));
    }
    let cols = a.cols;
    Ok(Some((a, b.reshaped(cols)?)))
}

/// Compares pairs that `read` makes of some rows, `N` at a time.
pub fn agreements<const N: usize>(
    shape: (usize, usize),
    read: impl Fn(Range<usize>, &mut [(Vec<f64>, Vec<f64>); N]) + Sync,
) -> [Agreement; N] {
    let differs: [AtomicBool; N] = std::array::from_fn(|_| AtomicBool::new(false));
    let compared = compare_panels(shape, |rows, pairs| {
        read(rows, pairs);
        for (differs, (a, b)) in differs.iter().zip(pairs.iter()) {
            if !differs.load(Relaxed) && a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits()) {
                differs.store(true, Relaxed);
            }
        }
    });
    let mut differs = differs.iter().map(|d| d.load(Relaxed));
    compared.map(|c| Agreement {
        cos: c.cos,
        gain: c.gain,
        rel_l2: c.rel_l2,
        cos_row_min: c.cos_row_min,
        row_min_index: c.row_min_index,
        identical: !differs.next().unwrap_or(true),
    })
}

pub fn agreement((a, b): &Pair) -> Agreement {
    let [agreement] = agreements((a.rows, a.cols), |rows, [(x, y)]| {
        a.read(rows.clone(), x);
        b.read(rows, y);
    });
    agreement
}

/// The stream before and after a layer, and what the layer adds, in one pass; and whether only the reference adds
/// anything.
fn stream(before: &Pair, after: &Pair) -> ([Agreement; 3], bool) {
    let moves = [AtomicBool::new(false), AtomicBool::new(false)];
    let compared = agreements((before.0.rows, before.0.cols), |rows, [(a, b), (c, d), (added, other)]| {
        before.0.read(rows.clone(), a);
        before.1.read(rows.clone(), b);
        after.0.read(rows.clone(), c);
        after.1.read(rows, d);
        for (moves, (to, (after, before))) in moves.iter().zip([(added, (c, a)), (other, (d, b))]) {
            to.clear();
            to.extend(after.iter().zip(before.iter()).map(|(after, before)| after - before));
            if !moves.load(Relaxed) && to.iter().any(|&x| x != 0.0) {
                moves.store(true, Relaxed);
            }
        }
    });
    let [reference, candidate] = moves.map(AtomicBool::into_inner);
    (compared, reference && !candidate)
}

/// Compares layer `layer` of two dumps, a few rows at a time.
pub fn layer(reference: &Side, candidate: &Side, plan: &Plan, layer: usize) -> LayerProfile {
    let mut problems = Vec::new();
    let mut both = |site: Option<&Site>| {
        pair(reference, candidate, site?).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let (first, second) = (both(Some(&plan.stream[layer])), both(Some(&plan.stream[layer + 1])));
    let mut branch = |name| {
        let site = plan.branches[layer].iter().find(|b| b.0 == name).map(|b| &b.1);
        both(site).as_ref().map(agreement)
    };
    let (attention, mlp) = (branch("attention"), branch("mlp"));
    let (mut unit, mut adds_nothing) = (0.0, false);
    let (before, after, added) = match (&first, &second) {
        (Some(before), Some(after)) if (before.0.rows, before.0.cols) == (after.0.rows, after.0.cols) => {
            unit = after.1.precision().unit().max(after.0.precision().unit());
            let ([before, after, added], idle) = stream(before, after);
            adds_nothing = idle;
            (Some(before), Some(after), Some(added))
        }
        (before, after) => (before.as_ref().map(agreement), after.as_ref().map(agreement), None),
    };
    LayerProfile { layer, before, after, branch: added, attention, mlp, unit, adds_nothing, problems }
}
