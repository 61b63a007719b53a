//! Operations of a model that no family describes: what the names of modules, the shapes of their weights and the
//! numbers of the reference tell. Attention, routing and sums are not among them.

use super::judge::relative_error;
use super::side::Side;
use accuracy_core::dumps::{DumpTensor, Kind};
use accuracy_core::model::config::Object;
use accuracy_core::model::ops::{self, Precision, Weights};
use accuracy_core::model::{Activation, Op, OpKind, Plan, Site};
use accuracy_core::reference::Matrix;
use std::collections::BTreeSet;

/// A reading of a module has to come this near to what the reference computed.
const NEAR: f64 = 0.02;
/// What configurations call the epsilon of their norms.
const EPSILONS: [&str; 6] =
    ["rms_norm_eps", "layer_norm_eps", "norm_eps", "layer_norm_epsilon", "norm_epsilon", "layernorm_epsilon"];
/// Rows that a reading is tried on.
const ROWS: usize = 16;

/// Adds to a plan of layers the operations that are recognised, in the order of the reference's dump. False if there
/// are none.
pub fn recognise(plan: &mut Plan, side: &Side, weights: Weights<'_>, config: Option<&Object>) -> bool {
    let eps = config.and_then(|c| EPSILONS.iter().find_map(|key| c.number(key)));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let here = |t: &&DumpTensor| t.id.step == side.step && t.id.kind == Kind::Output && t.id.call == 0;
    for tensor in side.set.tensors.iter().filter(here) {
        let module = tensor.id.module.as_str();
        if module.is_empty() || !seen.insert(module) {
            continue;
        }
        let Some(kind) = reading(side, weights, module, eps) else { continue };
        let name = match tensor.id.layer {
            Some(layer) => {
                let mark = format!(".{layer}.");
                module.split_once(&mark).map_or(module, |(_, rest)| rest)
            }
            None => module,
        };
        plan.ops.push(Op {
            name: name.to_owned(),
            layer: tensor.id.layer.filter(|&layer| layer < plan.modules.len()),
            kind,
            inputs: vec![Site::input(module)],
            output: Site::output(module),
            last: true,
            of_experts: false,
        });
    }
    !plan.ops.is_empty()
}

/// What a module computes, if some reading of it gives what the reference has.
fn reading(side: &Side, weights: Weights<'_>, module: &str, eps: Option<f64>) -> Option<OpKind> {
    let out = side.load(&Site::output(module)).ok()??;
    let input = side.load(&Site::input(module)).ok()?;
    let Some(input) = input else {
        let ids = side.integers(&Site::slot(module, Kind::Input, &["0", "", "input", "input_ids"])).ok()??.0;
        let rows = weights.rows(module, &ids).ok().filter(|rows| rows.cols == out.x.cols)?;
        let scale = gain(&rows, &out.x)?;
        // What a model multiplies with is known better than what is left of it after rounding.
        let usual = [1.0, (rows.cols as f64).sqrt()].into_iter().find(|s| (scale / s - 1.0).abs() < 5e-3);
        let scale = usual.unwrap_or(scale);
        let near = relative_error(&rows.map(|x| scale * x), &out.x) < NEAR;
        return near.then(|| OpKind::Embedding { weight: module.to_owned(), scale });
    };
    let rows = input.x.rows.min(ROWS);
    let (x, y) = (first(&input.x, rows), first(&out.x, rows.min(out.x.rows)));
    if let Ok(info) = weights.0.describe(module) {
        let fits = info.cols == x.cols && info.rows == y.cols && input.x.rows == out.x.rows;
        return fits.then(|| OpKind::Linear { weight: module.to_owned() });
    }
    if (x.rows, x.cols) != (y.rows, y.cols) {
        return None;
    }
    if let Ok(weight) = weights.vector(&format!("{module}.weight")) {
        return norm(weights, module, &weight, eps, (&x, &y));
    }
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];
    let apart = |a: &Activation| relative_error(&x.map(|v| ops::activate(*a, v)), &y);
    let best = activations.into_iter().min_by(|a, b| apart(a).total_cmp(&apart(b)))?;
    (apart(&best) < NEAR).then_some(OpKind::Activation(best))
}

/// A norm, by either gain, with or without the mean, and the epsilon that fits.
fn norm(
    weights: Weights<'_>,
    module: &str,
    weight: &[f64],
    eps: Option<f64>,
    (x, y): (&Matrix, &Matrix),
) -> Option<OpKind> {
    if weight.is_empty() || x.cols != weight.len() {
        return None;
    }
    let bias = format!("{module}.bias");
    let centred = weights.vector(&bias).ok();
    let mut best: Option<(f64, OpKind)> = None;
    for one_plus in [false, true] {
        let gain: Vec<f64> = weight.iter().map(|w| if one_plus { 1.0 + w } else { *w }).collect();
        for eps in eps.map_or(vec![1e-5, 1e-6, 1e-12, 1e-8], |eps| vec![eps]) {
            let made = ops::norm(x, &gain, centred.as_deref(), eps, Precision::Exact);
            let error = relative_error(&made, y);
            if best.as_ref().is_none_or(|b| error < b.0) {
                let kind = OpKind::Norm {
                    weight: module.to_owned(),
                    bias: centred.as_ref().map(|_| bias.clone()),
                    eps,
                    width: None,
                    one_plus,
                };
                best = Some((error, kind));
            }
        }
    }
    best.filter(|b| b.0 < NEAR).map(|b| b.1)
}

fn first(x: &Matrix, rows: usize) -> Matrix {
    Matrix::new(rows, x.cols, x.data[..rows * x.cols].to_vec())
}

/// What the first has to be multiplied with to come nearest to the second.
fn gain(x: &Matrix, y: &Matrix) -> Option<f64> {
    let dot = |a: &Matrix, b: &Matrix| a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum::<f64>();
    let size = dot(x, x);
    (x.data.len() == y.data.len() && size > 0.0).then(|| dot(x, y) / size)
}
