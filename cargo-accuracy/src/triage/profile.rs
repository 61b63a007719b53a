//! Layer by layer: how far stream and branches of the two dumps are apart.
//!
//! The residual stream hides most faults (a wrong branch is a small part of it), so layers are judged by what they add.

use super::side::{Side, Value};
use accuracy_core::metrics::compare;
use accuracy_core::model::{Plan, Site};
use accuracy_core::reference::Matrix;
use serde::Serialize;

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

impl Agreement {
    pub fn of(reference: &Matrix, candidate: &Matrix) -> Agreement {
        let c = compare(reference, candidate);
        Agreement {
            cos: c.cos,
            gain: c.gain,
            rel_l2: c.rel_l2,
            cos_row_min: c.cos_row_min,
            row_min_index: c.row_min_index,
            identical: reference.data.iter().zip(&candidate.data).all(|(a, b)| a.to_bits() == b.to_bits()),
        }
    }
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

/// A value of both dumps in one shape.
pub fn pair(reference: &Side, candidate: &Side, site: &Site) -> Result<Option<(Value, Value)>, String> {
    let (Some(a), Some(b)) = (reference.load(site)?, candidate.load(site)?) else { return Ok(None) };
    if a.x.data.len() != b.x.data.len() {
        return Err(format!(
            "{}: {}x{} in the reference, {}x{} in the candidate",
            a.place, a.x.rows, a.x.cols, b.x.rows, b.x.cols
        ));
    }
    let cols = a.x.cols;
    Ok(Some((a, b.reshaped(cols)?)))
}

/// Compares layer `layer` of two dumps.
pub fn layer(reference: &Side, candidate: &Side, plan: &Plan, layer: usize) -> LayerProfile {
    let both = |site: &Site| pair(reference, candidate, site);
    let agreement = |pair: &(Value, Value)| Agreement::of(&pair.0.x, &pair.1.x);
    let stream = || {
        let (before, after) = (both(&plan.stream[layer])?, both(&plan.stream[layer + 1])?);
        let mut unit = 0.0;
        let branch = match (&before, &after) {
            (Some(before), Some(after)) if before.0.x.data.len() == after.0.x.data.len() => {
                unit = after.1.precision.unit().max(after.0.precision.unit());
                Some(Agreement::of(&minus(&after.0.x, &before.0.x), &minus(&after.1.x, &before.1.x)))
            }
            _ => None,
        };
        Ok((before.as_ref().map(agreement), after.as_ref().map(agreement), branch, unit))
    };
    let branches = || {
        let named = |name: &str| match plan.branches[layer].iter().find(|b| b.0 == name) {
            Some(branch) => both(&branch.1).map(|pair| pair.as_ref().map(agreement)),
            None => Ok(None),
        };
        [named("attention"), named("mlp")]
    };
    // Two at a time: a few tensors are held, however many layers and processors there are.
    let (stream, [attention, mlp]) = rayon::join(stream, branches);
    let mut problems = Vec::new();
    let mut or_problem = |found: Result<Option<Agreement>, String>| {
        found.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let (attention, mlp) = (or_problem(attention), or_problem(mlp));
    let (before, after, branch, unit) = stream.unwrap_or_else(|problem: String| {
        problems.push(problem);
        (None, None, None, 0.0)
    });
    LayerProfile { layer, before, after, branch, attention, mlp, unit, problems }
}

fn minus(a: &Matrix, b: &Matrix) -> Matrix {
    Matrix::new(a.rows, a.cols, a.data.iter().zip(&b.data).map(|(a, b)| a - b).collect())
}
