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
    let mut problems = Vec::new();
    let mut both = |site: &Site| {
        pair(reference, candidate, site).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let before = both(&plan.stream[layer]);
    let after = both(&plan.stream[layer + 1]);
    let mut unit = 0.0;
    let agreement = |pair: &(Value, Value)| Agreement::of(&pair.0.x, &pair.1.x);
    let branch = match (&before, &after) {
        (Some(before), Some(after)) if before.0.x.data.len() == after.0.x.data.len() => {
            unit = after.1.precision.unit().max(after.0.precision.unit());
            Some(Agreement::of(&minus(&after.0.x, &before.0.x), &minus(&after.1.x, &before.1.x)))
        }
        _ => None,
    };
    let (before, after) = (before.as_ref().map(agreement), after.as_ref().map(agreement));
    let mut named = |name: &str| {
        let site = plan.branches[layer].iter().find(|b| b.0 == name)?;
        both(&site.1).as_ref().map(agreement)
    };
    let (attention, mlp) = (named("attention"), named("mlp"));
    LayerProfile { layer, before, after, branch, attention, mlp, unit, problems }
}

fn minus(a: &Matrix, b: &Matrix) -> Matrix {
    Matrix::new(a.rows, a.cols, a.data.iter().zip(&b.data).map(|(a, b)| a - b).collect())
}
