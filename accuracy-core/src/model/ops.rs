//! The operations in float64, with the weights of a checkpoint.
//!
//! Each takes a [`Precision`]: exact, or rounded to a format wherever a straightforward implementation in that format
//! stores a value. How far the two are apart is the noise that an implementation in that format may show.

use super::config::{Activation, Attention, DeltaNet, Router, Score, Stack, StateSpace};
use super::inputs::Inputs;
pub use super::precision::Precision;
use crate::dtype::DType;
use crate::quant::Quant;
use crate::reference::Matrix;
use crate::reference::model::RopeStyle;
use crate::weights::{Checkpoint, RawTensor, Scheme, StDtype, WeightInfo, WeightsError};
use rayon::prelude::*;
use std::ops::Range;

/// Weights decoded at a time.
const PANEL: usize = 1 << 21;
/// Rows of queries whose scores are held at a time.
const QUERIES: usize = 256;

/// A norm over groups of `width` columns: RMSNorm, or LayerNorm with `bias`.
pub fn norm(x: &Matrix, weight: &[f64], bias: Option<&[f64]>, eps: f64, p: Precision) -> Matrix {
    let width = weight.len();
    let mut out = x.clone();
    for group in out.data.chunks_exact_mut(width) {
        let n = width as f64;
        let mean = if bias.is_some() { group.iter().sum::<f64>() / n } else { 0.0 };
        let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = (variance + eps).sqrt().recip();
        for (i, v) in group.iter_mut().enumerate() {
            *v = match bias {
                Some(bias) => p.round((*v - mean) * scale * weight[i] + bias[i]),
                None => p.round(p.round(*v * scale) * weight[i]),
            };
        }
    }
    out
}

/// `cap * tanh(x / cap)`; `x` without a cap.
pub fn soft_cap(x: f64, cap: Option<f64>) -> f64 {
    cap.map_or(x, |cap| cap * (x / cap).tanh())
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// A function of one value; of [`Activation::Clamped`], its gate.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => silu(x),
        Activation::Gelu => 0.5 * x * (1.0 + libm_erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Clamped { alpha, limit, .. } => {
            let x = x.min(limit);
            x / (1.0 + (-alpha * x).exp())
        }
    }
}

/// The error function, by its series near 0 and by the continued fraction of its complement elsewhere; to 1e-15.
fn libm_erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        return (2.0 / std::f64::consts::PI.sqrt() * sum).copysign(x);
    }
    let mut fraction = 0.0;
    for k in (1..60).rev() {
        fraction = k as f64 / 2.0 / (a + fraction);
    }
    (1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())).copysign(x)
}

/// `activation(gate) * up`.
pub fn gated(activation: Activation, gate: f64, up: f64, p: Precision) -> f64 {
    match activation {
        Activation::Clamped { limit, plus, .. } => {
            let up = up.clamp(-limit, limit);
            p.round(p.round(activate(activation, gate)) * p.round(up + plus))
        }
        _ => p.round(p.round(activate(activation, gate)) * up),
    }
}

/// Elementwise [`gated`]; shapes must agree.
pub fn gated_all(activation: Activation, gate: &Matrix, up: &Matrix, p: Precision) -> Matrix {
    let data = gate.data.iter().zip(&up.data).map(|(&g, &u)| gated(activation, g, u, p)).collect();
    Matrix::new(gate.rows, gate.cols, data)
}

/// A product with stored weights, and what bounds the error of accumulating it.
#[derive(Clone, Debug)]
pub struct Product {
    pub y: Matrix,
    /// Frobenius norm of the weights.
    pub weight_norm: f64,
}

/// Weights of a checkpoint, read as they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a>(pub &'a Checkpoint);

impl Weights<'_> {
    /// A vector: `name` or `name.weight`.
    ///
    /// # Errors
    /// It is not there, or no vector of floats.
    pub fn vector(&self, name: &str) -> Result<Vec<f64>, WeightsError> {
        self.0.vector(name)
    }

    /// All values of a tensor of floats, whatever its shape.
    ///
    /// # Errors
    /// It is not there, or holds no floats.
    pub fn flat(&self, tensor: &str) -> Result<Vec<f64>, WeightsError> {
        let raw = self.0.raw(tensor)?;
        Ok(float(&raw)?.decode_bytes(raw.bytes))
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.0.raw(tensor).is_ok()
    }

    /// Whether a module has a weight, quantised or not.
    fn is_there(&self, module: &str) -> bool {
        self.has(&format!("{module}.weight")) || self.0.describe(module).is_ok()
    }

    /// `x · Wᵀ + bias`, the bias where `module.bias` is there; of weights decoded by panels.
    ///
    /// # Errors
    /// The weight is missing or damaged, or its columns are not those of `x`.
    pub fn linear(&self, module: &str, x: &Matrix, p: Precision) -> Result<Product, WeightsError> {
        let info = self.0.describe(module)?;
        require_alone(&info)?;
        if info.cols != x.cols {
            return Err(WeightsError::WrongShape {
                name: module.to_owned(),
                expected: format!("{} columns, as its input has", x.cols),
                found: vec![info.rows, info.cols],
            });
        }
        // Some rows of a tensor: `qkv_proj#0..64`.
        let (base, part) = match module.split_once('#').and_then(|(base, rows)| Some((base, range(rows)?))) {
            Some((base, rows)) if rows.end <= info.rows => (base, rows),
            _ => (module, 0..info.rows),
        };
        let bias = format!("{base}.bias");
        let bias = if self.has(&bias) { Some(self.vector(&bias)?) } else { None };
        let bias = bias.as_ref().and_then(|b| b.get(part.clone()));
        let step = (PANEL / info.cols.max(1) / 512 * 512).max(512);
        let panels: Vec<Range<usize>> =
            part.clone().step_by(step).map(|r| r..(r + step).min(part.end)).collect();
        let whole = part.len() == info.rows && panels.len() == 1;
        let parts: Result<Vec<(Matrix, f64)>, WeightsError> = panels
            .par_iter()
            .map(|rows| {
                let address =
                    if whole { base.to_owned() } else { format!("{base}#{}..{}", rows.start, rows.end) };
                let w = Matrix::new(rows.len(), info.cols, self.0.linear(&address)?.values());
                let w = p.apply(w);
                let norm = w.data.iter().map(|v| v * v).sum::<f64>();
                Ok((x.matmul_t(&w), norm))
            })
            .collect();
        let mut y = Matrix::zeros(x.rows, part.len());
        let mut weight_norm = 0.0;
        for (rows, (product, norm)) in panels.iter().zip(parts?) {
            weight_norm += norm;
            for r in 0..x.rows {
                y.row_mut(r)[rows.start - part.start..rows.end - part.start].copy_from_slice(product.row(r));
            }
        }
        for row in y.data.chunks_exact_mut(part.len().max(1)) {
            for (c, v) in row.iter_mut().enumerate() {
                *v = p.round(*v + bias.map_or(0.0, |b| b[c]));
            }
        }
        Ok(Product { y, weight_norm: weight_norm.sqrt() })
    }

    /// Rows `ids` of a table, as stored.
    ///
    /// # Errors
    /// The table is missing or damaged, or an id is none of its rows.
    pub fn rows(&self, module: &str, ids: &[i64]) -> Result<Matrix, WeightsError> {
        let info = self.0.describe(module)?;
        let raw = self.0.raw(&format!("{module}.weight"))?;
        let dtype = float(&raw)?;
        let size = dtype.bits() as usize / 8 * info.cols;
        let mut out = Matrix::zeros(ids.len(), info.cols);
        for (r, &id) in ids.iter().enumerate() {
            let row = usize::try_from(id).ok().filter(|&i| i < info.rows).ok_or_else(|| {
                WeightsError::WrongShape {
                    name: raw.name.to_owned(),
                    expected: format!("more than {id} rows, for token {id}"),
                    found: raw.shape.to_vec(),
                }
            })?;
            out.row_mut(r).copy_from_slice(&dtype.decode_bytes(&raw.bytes[row * size..(row + 1) * size]));
        }
        Ok(out)
    }

    /// Gate, up and down of one expert, with their biases.
    ///
    /// # Errors
    /// The expert's weights are missing or damaged.
    pub fn expert(&self, module: &str, e: usize, stack: Stack) -> Result<Expert, WeightsError> {
        let plain = |name: &str| format!("{module}.{e}.{name}");
        for [gate, up, down] in [["gate_proj", "up_proj", "down_proj"], ["w1", "w3", "w2"]] {
            if self.is_there(&plain(gate)) {
                let gate = self.matrix(&plain(gate))?;
                return Ok(Expert {
                    gate: Some(gate),
                    up: self.matrix(&plain(up))?,
                    down: self.matrix(&plain(down))?,
                    biases: None,
                });
            }
        }
        // Without a gate.
        if self.is_there(&plain("up_proj")) {
            let (up, down) = (self.matrix(&plain("up_proj"))?, self.matrix(&plain("down_proj"))?);
            return Ok(Expert { gate: None, up, down, biases: None });
        }
        let fused = format!("{module}.gate_up_proj");
        let down = format!("{module}.down_proj");
        if self.has(&format!("{module}.up_proj")) {
            let up = self.matrix(&format!("{module}.up_proj#{e}"))?;
            return Ok(Expert { gate: None, up, down: self.matrix(&format!("{down}#{e}"))?, biases: None });
        }
        if stack == Stack::InOut
            && let (Ok(gate_up), Ok(stored)) = (self.0.raw(&fused), self.0.raw(&down))
            && let ([_, hidden, both], [_, inner, out]) = (gate_up.shape, stored.shape)
        {
            let gate_up = Matrix::new(*hidden, *both, slice(&gate_up, e)?);
            let part = |columns: Range<usize>| gate_up.columns(columns).transposed();
            let down = Matrix::new(*inner, *out, slice(&stored, e)?).transposed();
            let (gate, up) = (part(0..both / 2), part(both / 2..*both));
            return Ok(Expert { gate: Some(gate), up, down, biases: None });
        }
        let biases = match (self.0.raw(&format!("{fused}_bias")), self.0.raw(&format!("{down}_bias"))) {
            (Ok(a), Ok(b)) => {
                let gate_up = slice(&a, e)?;
                let (gate, up) = halves(&gate_up);
                Some([gate, up, slice(&b, e)?])
            }
            _ => None,
        };
        // transformers' gpt-oss in floats: `[experts, in, out]`, gate and up in turn.
        if biases.is_some()
            && let (Ok(gate_up), Ok(down)) = (self.0.raw(&fused), self.0.raw(&down))
            && let ([_, hidden, both], [_, inner, _]) = (gate_up.shape, down.shape)
        {
            let gate_up = Matrix::new(*hidden, *both, slice(&gate_up, e)?).transposed();
            let pick = |first: usize| {
                let data = (first..*both).step_by(2).flat_map(|r| gate_up.row(r).to_vec()).collect();
                Matrix::new(both / 2, *hidden, data)
            };
            let down = slice(&down, e)?;
            let down = Matrix::new(*inner, down.len() / inner.max(&1), down).transposed();
            return Ok(Expert { gate: Some(pick(0)), up: pick(1), down, biases });
        }
        let gate = self.matrix(&format!("{fused}#{e}.gate"))?;
        let up = self.matrix(&format!("{fused}#{e}.up"))?;
        Ok(Expert { gate: Some(gate), up, down: self.matrix(&format!("{down}#{e}"))?, biases })
    }

    fn matrix(&self, address: &str) -> Result<Matrix, WeightsError> {
        require_alone(&self.0.describe(address)?)?;
        let weight = self.0.linear(address)?;
        Ok(Matrix::new(weight.rows, weight.cols, weight.values()))
    }
}

/// `0..64`.
fn range(rows: &str) -> Option<Range<usize>> {
    let (start, end) = rows.split_once("..")?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// Nothing is done to the layer's input or output at run time, so that its product is that of the stored weight.
fn require_alone(info: &WeightInfo) -> Result<(), WeightsError> {
    match &info.online[..] {
        [] => Ok(()),
        online => Err(WeightsError::OnlineTransform { weight: info.name.clone(), online: online.to_vec() }),
    }
}

fn float(raw: &RawTensor) -> Result<DType, WeightsError> {
    match raw.dtype {
        StDtype::F32 => Ok(DType::F32),
        StDtype::F16 => Ok(DType::F16),
        StDtype::BF16 => Ok(DType::BF16),
        found => Err(WeightsError::WrongDtype {
            name: raw.name.to_owned(),
            expected: "F32, F16 or BF16".to_owned(),
            found,
        }),
    }
}

/// Values of `tensor[e]`.
fn slice(raw: &RawTensor, e: usize) -> Result<Vec<f64>, WeightsError> {
    let experts = raw.shape.first().copied().unwrap_or(0);
    if e >= experts {
        return Err(WeightsError::WrongShape {
            name: raw.name.to_owned(),
            expected: format!("more than {e} experts"),
            found: raw.shape.to_vec(),
        });
    }
    let size = raw.bytes.len() / experts;
    Ok(float(raw)?.decode_bytes(&raw.bytes[e * size..(e + 1) * size]))
}

fn halves(interleaved: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let every = |first: usize| interleaved.iter().skip(first).step_by(2).copied().collect();
    (every(0), every(1))
}

/// One expert's weights: `[inner, hidden]` twice and `[hidden, inner]`.
#[derive(Clone, Debug)]
pub struct Expert {
    /// `None`: nothing is multiplied with what is activated.
    pub gate: Option<Matrix>,
    pub up: Matrix,
    pub down: Matrix,
    pub biases: Option<[Vec<f64>; 3]>,
}

impl Expert {
    /// `down(activation(gate x) * (up x))`, without a gate `down(activation(up x))`. `input` is what is done to the input of each product.
    pub fn apply(
        &self,
        x: &Matrix,
        activation: Activation,
        p: Precision,
        input: &dyn Fn(&Matrix) -> Matrix,
    ) -> Matrix {
        let add = |mut y: Matrix, which: usize| {
            for row in y.data.chunks_exact_mut(y.cols.max(1)) {
                for (c, v) in row.iter_mut().enumerate() {
                    *v = p.round(*v + self.biases.as_ref().map_or(0.0, |b| b[which][c]));
                }
            }
            y
        };
        let x = input(x);
        let up = add(x.matmul_t(&self.up), 1);
        let inside = match &self.gate {
            Some(gate) => gated_all(activation, &add(x.matmul_t(gate), 0), &up, p),
            None => p.apply(up.map(|x| activate(activation, x))),
        };
        add(input(&inside).matmul_t(&self.down), 2)
    }
}

/// `sum over the chosen experts of weight * expert(x)`. `indices` and `weights`: `[tokens, topk]`; an index that is no
/// expert is left out. `input` is what is done to the input of each product.
///
/// # Errors
/// As of `expert`.
pub fn experts<E>(
    x: &Matrix,
    indices: &[i64],
    weights: &Matrix,
    count: usize,
    (activation, p): (Activation, Precision),
    input: &(dyn Fn(&Matrix) -> Matrix + Sync),
    expert: impl Fn(usize) -> Result<Expert, E> + Sync,
) -> Result<Matrix, E>
where
    E: Send,
{
    let topk = weights.cols;
    let mut out = Matrix::zeros(x.rows, x.cols);
    // A few experts at a time: their outputs are held until they are added in order.
    for first in (0..count).step_by(8) {
        let range = first..(first + 8).min(count);
        let parts: Result<Vec<_>, E> = range
            .into_par_iter()
            .map(|e| {
                let mine: Vec<usize> = (0..indices.len()).filter(|&i| indices[i] == e as i64).collect();
                if mine.is_empty() {
                    return Ok(None);
                }
                let data = mine.iter().flat_map(|&i| x.row(i / topk).to_vec()).collect();
                let rows = Matrix::new(mine.len(), x.cols, data);
                Ok(Some((expert(e)?.apply(&rows, activation, p, input), mine)))
            })
            .collect();
        for (y, mine) in parts?.into_iter().flatten() {
            for (r, &i) in mine.iter().enumerate() {
                let w = weights.data[i];
                for (to, &v) in out.row_mut(i / topk).iter_mut().zip(y.row(r)) {
                    *to = p.round(*to + p.round(w * v));
                }
            }
        }
    }
    Ok(out)
}

/// What a router chose: for each token its experts and their weights, in the order of choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub indices: Vec<i64>,
    pub weights: Matrix,
}

/// Chooses experts from logits, `[tokens, experts]`.
pub fn route(router: &Router, logits: &Matrix, correction: Option<&[f64]>, p: Precision) -> Choice {
    let k = router.topk;
    let mut choice =
        Choice { indices: Vec::with_capacity(logits.rows * k), weights: Matrix::zeros(logits.rows, k) };
    for t in 0..logits.rows {
        let scores = scores(router, logits.row(t), p);
        let chosen = choose(router, &scores, correction);
        let mut weights: Vec<f64> = chosen.iter().map(|&e| scores[e]).collect();
        if router.score == Score::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        if router.renormalise {
            let total: f64 = weights.iter().sum::<f64>() + 1e-20;
            weights.iter_mut().for_each(|w| *w /= total);
        }
        for (to, w) in choice.weights.row_mut(t).iter_mut().zip(weights) {
            *to = p.round(w * router.scaling);
        }
        choice.indices.extend(chosen.iter().map(|&e| e as i64));
    }
    choice
}

/// The weights that a router gives to experts that are chosen already, in their order; 0 for an index that is no expert.
pub fn weigh(router: &Router, logits: &Matrix, indices: &[i64], p: Precision) -> Matrix {
    let k = indices.len().checked_div(logits.rows).unwrap_or(0);
    let mut out = Matrix::zeros(logits.rows, k);
    for t in 0..logits.rows {
        let scores = scores(router, logits.row(t), p);
        let of = |e: &i64| usize::try_from(*e).ok().and_then(|e| scores.get(e).copied()).unwrap_or(0.0);
        let mut weights: Vec<f64> = indices[t * k..(t + 1) * k].iter().map(of).collect();
        if router.score == Score::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        let total = if router.renormalise { weights.iter().sum::<f64>() + 1e-20 } else { 1.0 };
        let row = out.row_mut(t).iter_mut().zip(weights);
        row.for_each(|(to, w)| *to = p.round(w / total * router.scaling));
    }
    out
}

fn scores(router: &Router, logits: &[f64], p: Precision) -> Vec<f64> {
    match router.score {
        Score::Softmax => softmax(logits),
        Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Score::SoftmaxOfChosen => logits.iter().map(|&x| p.round(x)).collect(),
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = x.iter().map(|v| (v - largest).exp()).collect();
    let total: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / total).collect()
}

/// Experts in descending order of `scores + correction`, within the groups that are kept.
fn choose(router: &Router, scores: &[f64], correction: Option<&[f64]>) -> Vec<usize> {
    let mut by: Vec<f64> = scores.to_vec();
    if let Some(correction) = correction {
        by.iter_mut().zip(correction).for_each(|(s, c)| *s += c);
    }
    if let Some((groups, kept)) = router.groups {
        let size = by.len() / groups;
        let best = |group: usize| {
            let mut members = by[group * size..(group + 1) * size].to_vec();
            members.sort_by(|a, b| b.total_cmp(a));
            members.iter().take(2).sum::<f64>()
        };
        let sums: Vec<f64> = (0..groups).map(best).collect();
        for &group in &descending(&sums)[kept..] {
            by[group * size..(group + 1) * size].fill(f64::NEG_INFINITY);
        }
    }
    let mut order = descending(&by);
    order.truncate(router.topk);
    order
}

fn descending(values: &[f64]) -> Vec<usize> {
    // 0 and -0 are equal; the total order of floats has them in that order.
    let value = |i: usize| values[i] + 0.0;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    order
}

/// Rotates the heads of `x`, `[tokens, heads * d]`: the elements `range` of each head, by the angles of its token,
/// `[tokens, len / 2]`.
pub fn rotate(
    x: &mut Matrix,
    d: usize,
    range: Range<usize>,
    (cos, sin): (&Matrix, &Matrix),
    style: RopeStyle,
    p: Precision,
) {
    let half = range.len() / 2;
    for t in 0..x.rows {
        for head in x.row_mut(t).chunks_exact_mut(d) {
            let head = &mut head[range.clone()];
            for i in 0..half {
                let (a, b) = match style {
                    RopeStyle::Neox => (i, i + half),
                    RopeStyle::GptJ => (2 * i, 2 * i + 1),
                };
                let (c, s) = (cos.row(t)[i], sin.row(t)[i]);
                let (x, y) = (head[a], head[b]);
                head[a] = p.round(p.round(x * c) - p.round(y * s));
                head[b] = p.round(p.round(y * c) + p.round(x * s));
            }
        }
    }
}

/// Weights of a gated delta net beside its projections.
#[derive(Clone, Debug)]
pub struct DeltaWeights {
    /// `[channels, kernel]`
    pub convolution: Vec<f64>,
    pub a_log: Vec<f64>,
    pub dt_bias: Vec<f64>,
}

/// What a wrong delta rule may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaMistake {
    /// The rate is not put through the sigmoid.
    RawRate,
    /// Queries and keys are not normed.
    NotNormed,
    NoDecay,
    /// What a key already recalls is not taken off its value.
    NoCorrection,
    NoActivation,
    /// The convolution sees the present token alone.
    NoConvolution,
    /// Value head `h` has key head `h % key_heads`.
    Tiled,
    /// A step begins with an empty state; what its convolution sees goes on.
    Restarted,
}

/// The columns of a value head's part of the projections: queries, keys, values and gates lie beside each other in each
/// key head.
fn delta_columns(net: DeltaNet, head: usize) -> [Range<usize>; 4] {
    let each = net.value_heads / net.key_heads;
    let (group, within) = (head / each, head % each);
    let start = group * (2 * net.key_dim + 2 * each * net.value_dim);
    let values = start + 2 * net.key_dim + within * net.value_dim;
    let gates = values + each * net.value_dim;
    [
        start..start + net.key_dim,
        start + net.key_dim..start + 2 * net.key_dim,
        values..values + net.value_dim,
        gates..gates + net.value_dim,
    ]
}

/// The gates of all value heads, `[tokens, value_heads * value_dim]`, of the joint projection.
pub fn delta_gates(net: DeltaNet, projected: &Matrix) -> Matrix {
    let row = |r: usize| {
        (0..net.value_heads).flat_map(move |h| projected.row(r)[delta_columns(net, h)[3].clone()].to_vec())
    };
    Matrix::new(projected.rows, net.value_heads * net.value_dim, (0..projected.rows).flat_map(row).collect())
}

/// Whether a step's own rows begin at a row.
fn begins(own: &[bool], row: usize) -> bool {
    let is_own = |row: usize| own.get(row).copied().unwrap_or(false);
    is_own(row) && row.checked_sub(1).is_none_or(|before| !is_own(before))
}

/// What one head gives: tokens with their values.
type OfHead = Vec<(usize, Vec<f64>)>;

/// The gated delta rule (Yang et al. 2024) token by token: for each value head
/// `S = exp(g) S`, `S += k (beta (v - S' k))'`, `o = S' q`, with queries and keys behind a causal convolution and SiLU
/// and of length 1, queries scaled by the root of their dimension. `projected`: queries, keys, values and gates of all
/// tokens; `rates`: beta's and the decay's. `own`: rows of the step that is asked for. Sequences start with an empty state.
pub fn delta_rule(
    net: DeltaNet,
    weights: &DeltaWeights,
    (projected, rates): (&Matrix, &Matrix),
    (sequences, own): (&[Range<usize>], &[bool]),
    mistake: Option<DeltaMistake>,
    p: Precision,
) -> Matrix {
    let (each, keys) = (net.value_heads / net.key_heads, net.key_heads * net.key_dim);
    let mut out = Matrix::zeros(projected.rows, net.value_heads * net.value_dim);
    let heads: Vec<usize> = (0..net.value_heads).collect();
    let parts: Vec<(usize, OfHead)> = heads
        .par_iter()
        .map(|&h| {
            let (group, within) = (h / each, h % each);
            let [mut q_at, mut k_at, v_at, _] = delta_columns(net, h);
            let mut of_keys = group;
            if mistake == Some(DeltaMistake::Tiled) {
                of_keys = h % net.key_heads;
                [q_at, k_at, ..] = delta_columns(net, of_keys * each);
            }
            // Channels of the convolution: all queries, all keys, all values.
            let channels =
                [of_keys * net.key_dim, keys + of_keys * net.key_dim, 2 * keys + h * net.value_dim];
            let rate = group * 2 * each + within;
            let decay = rate + each;
            let mut rows = Vec::new();
            for sequence in sequences {
                let convolved = |t: usize, at: &Range<usize>, channel: usize| -> Vec<f64> {
                    let value = |i: usize| {
                        let w =
                            &weights.convolution[(channel + i) * net.kernel..(channel + i + 1) * net.kernel];
                        let sum: f64 = (0..net.kernel)
                            .filter(|&back| t >= sequence.start + back)
                            .filter(|&back| back == 0 || mistake != Some(DeltaMistake::NoConvolution))
                            .map(|back| w[net.kernel - 1 - back] * projected.row(t - back)[at.start + i])
                            .sum();
                        let sum = p.round(sum);
                        p.round(if mistake == Some(DeltaMistake::NoActivation) { sum } else { silu(sum) })
                    };
                    (0..at.len()).map(value).collect()
                };
                let unit = |x: Vec<f64>| -> Vec<f64> {
                    if mistake == Some(DeltaMistake::NotNormed) {
                        return x;
                    }
                    let size = (x.iter().map(|v| v * v).sum::<f64>() + 1e-6).sqrt();
                    x.into_iter().map(|v| v / size).collect()
                };
                let mut state = vec![0.0; net.key_dim * net.value_dim];
                for t in sequence.clone() {
                    if mistake == Some(DeltaMistake::Restarted) && begins(own, t) {
                        state.fill(0.0);
                    }
                    let q = unit(convolved(t, &q_at, channels[0]));
                    let k = unit(convolved(t, &k_at, channels[1]));
                    let v = convolved(t, &v_at, channels[2]);
                    let raw = rates.row(t)[rate];
                    let beta = match mistake {
                        Some(DeltaMistake::RawRate) => raw,
                        _ => p.round(1.0 / (1.0 + (-raw).exp())),
                    };
                    let step = rates.row(t)[decay] + weights.dt_bias[h];
                    // softplus
                    let softened = step.max(0.0) + (-step.abs()).exp().ln_1p();
                    let kept = (-weights.a_log[h].exp() * softened).exp();
                    if mistake != Some(DeltaMistake::NoDecay) {
                        state.iter_mut().for_each(|s| *s *= kept);
                    }
                    for (j, v) in v.iter().enumerate() {
                        let recalled: f64 =
                            k.iter().enumerate().map(|(i, k)| k * state[i * net.value_dim + j]).sum();
                        let recalled =
                            if mistake == Some(DeltaMistake::NoCorrection) { 0.0 } else { recalled };
                        let delta = beta * (v - recalled);
                        k.iter().enumerate().for_each(|(i, k)| state[i * net.value_dim + j] += k * delta);
                    }
                    let scale = (net.key_dim as f64).powf(-0.5);
                    let read = |j: usize| -> f64 {
                        q.iter().enumerate().map(|(i, q)| q * scale * state[i * net.value_dim + j]).sum()
                    };
                    rows.push((t, (0..net.value_dim).map(|j| p.round(read(j))).collect()));
                }
            }
            (h, rows)
        })
        .collect();
    for (h, rows) in parts {
        for (t, values) in rows {
            out.row_mut(t)[h * net.value_dim..(h + 1) * net.value_dim].copy_from_slice(&values);
        }
    }
    out
}

/// Weights of a state space beside its projections.
#[derive(Clone, Debug)]
pub struct StateWeights {
    /// `[channels, kernel]`
    pub convolution: Vec<f64>,
    /// Of each channel; empty for none.
    pub convolution_bias: Vec<f64>,
    pub a_log: Vec<f64>,
    pub dt_bias: Vec<f64>,
    pub d: Vec<f64>,
}

/// What a wrong state space may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateMistake {
    NoSkip,
    NoStepBias,
    /// The time step is not put through softplus.
    RawStep,
    NoDecay,
    NoActivation,
    NoConvolution,
    NoConvolutionBias,
    /// What is written takes the place of what is read, and the other way round.
    Exchanged,
    /// The time step does not scale what is written.
    StepOfDecayAlone,
    /// Head `h` has group `h % groups`.
    Tiled,
    /// The time step has no lower limit.
    NoLimit,
    /// A step begins with an empty state; what its convolution sees goes on.
    Restarted,
}

/// The gates of all heads, the first columns of the projection.
pub fn state_gates(net: StateSpace, projected: &Matrix) -> Matrix {
    projected.columns(0..net.inner())
}

/// Mamba-2's scan (Dao and Gu 2024) token by token: for each head `S = exp(dt A) S + dt x B'`, `y = S C + D x`, with
/// `A = -exp(a_log)`, `dt = softplus(raw + bias)`, and x, B and C behind a causal convolution and SiLU. `hidden`: rows that
/// are padding, which write nothing; empty for none. `limited`: rows whose time step has a lower limit. `own`: rows of the
/// step that is asked for. Sequences start with an empty state.
pub fn state_space(
    net: StateSpace,
    weights: &StateWeights,
    projected: &Matrix,
    sequences: &[Range<usize>],
    [hidden, limited, own]: [&[bool]; 3],
    mistake: Option<StateMistake>,
    p: Precision,
) -> Matrix {
    let (inner, shared) = (net.inner(), net.groups * net.state);
    let is = |m: StateMistake| mistake == Some(m);
    let padded = |t: usize| hidden.get(t).copied().unwrap_or(false);
    let mut out = Matrix::zeros(projected.rows, inner);
    let each = (net.heads / net.groups).max(1);
    let parts: Vec<(usize, OfHead)> = (0..net.heads)
        .into_par_iter()
        .map(|h| {
            let group = if is(StateMistake::Tiled) { h % net.groups } else { h / each };
            let (mut write, mut read) = (inner + group * net.state, inner + shared + group * net.state);
            if is(StateMistake::Exchanged) {
                std::mem::swap(&mut write, &mut read);
            }
            let mut rows = Vec::new();
            for sequence in sequences {
                let convolved = |t: usize, channels: Range<usize>| -> Vec<f64> {
                    let value = |c: usize| {
                        let w = &weights.convolution[c * net.kernel..(c + 1) * net.kernel];
                        let sum: f64 = (0..net.kernel)
                            .filter(|&back| t >= sequence.start + back && !padded(t - back))
                            .filter(|&back| back == 0 || !is(StateMistake::NoConvolution))
                            .map(|back| w[net.kernel - 1 - back] * projected.row(t - back)[inner + c])
                            .sum();
                        let bias = weights.convolution_bias.get(c).copied().unwrap_or(0.0);
                        let bias = if is(StateMistake::NoConvolutionBias) { 0.0 } else { bias };
                        let sum = p.round(sum + bias);
                        p.round(if is(StateMistake::NoActivation) { sum } else { silu(sum) })
                    };
                    channels.map(value).collect()
                };
                let mut state = vec![0.0; net.head_dim * net.state];
                for t in sequence.clone() {
                    if is(StateMistake::Restarted) && begins(own, t) {
                        state.fill(0.0);
                    }
                    let x = convolved(t, h * net.head_dim..(h + 1) * net.head_dim);
                    let (b, c) =
                        (convolved(t, write..write + net.state), convolved(t, read..read + net.state));
                    let raw = projected.row(t)[2 * inner + 2 * shared + h];
                    let bias = if is(StateMistake::NoStepBias) { 0.0 } else { weights.dt_bias[h] };
                    let raw = p.round(raw + bias);
                    let softened = p.round(raw.max(0.0) + (-raw.abs()).exp().ln_1p());
                    let step = if is(StateMistake::RawStep) { raw } else { softened };
                    let bounded = limited.get(t).copied().unwrap_or(false) && !is(StateMistake::NoLimit);
                    let step = if bounded { step.max(net.shortest) } else { step };
                    let kept =
                        if is(StateMistake::NoDecay) { 1.0 } else { (-weights.a_log[h].exp() * step).exp() };
                    let written = if is(StateMistake::StepOfDecayAlone) { 1.0 } else { step };
                    let skip = if is(StateMistake::NoSkip) { 0.0 } else { weights.d[h] };
                    let mut values = Vec::with_capacity(net.head_dim);
                    for (i, &x) in x.iter().enumerate() {
                        let row = &mut state[i * net.state..(i + 1) * net.state];
                        for (s, b) in row.iter_mut().zip(&b) {
                            *s = kept * *s + if padded(t) { 0.0 } else { written * x * b };
                        }
                        let sum: f64 = row.iter().zip(&c).map(|(s, c)| s * c).sum();
                        values.push(p.round(sum + skip * x));
                    }
                    rows.push((t, values));
                }
            }
            (h, rows)
        })
        .collect();
    for (h, rows) in parts {
        for (t, values) in rows {
            out.row_mut(t)[h * net.head_dim..(h + 1) * net.head_dim].copy_from_slice(&values);
        }
    }
    out
}

/// Queries, keys and values, `[tokens, heads * d]`. There may be fewer queries than keys.
#[derive(Clone, Debug)]
pub struct Heads {
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
}

/// What decides which positions a query sees.
#[derive(Clone, Debug)]
pub struct Mask<'a> {
    /// Rows of keys and values of each sequence.
    pub sequences: &'a [Range<usize>],
    /// Rows of queries of each sequence: those of its last tokens.
    pub queries: &'a [Range<usize>],
    pub causal: bool,
    pub window: Option<usize>,
    /// Keys that nobody sees; empty for none.
    pub padding: &'a [bool],
    /// Positions are cut into chunks, and a position sees its own.
    pub chunk: Option<Chunk<'a>>,
    /// The keys that each query sees, counted from its sequence's first one.
    pub chosen: Option<Chosen<'a>>,
    /// A mistake: a position does not see itself, unless it is a sequence's first.
    pub strict: bool,
}

/// Keys that queries have chosen: so many for each of them.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    pub each: usize,
    pub keys: &'a [i64],
}

/// Chunks of positions.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    pub size: usize,
    /// Where the first row of keys of each sequence is, counted from its first token; padding is before it.
    pub first: &'a [i64],
}

/// Softmax attention within each sequence, which has as many keys as queries at least. Query head `h` uses key head `h / (heads / kv_heads)`, with `tiled`
/// `h % kv_heads`. `sinks`: a logit for each head without a value. Rows of padding are left zero.
pub fn attention(
    heads: &Heads,
    form: &Attention,
    mask: &Mask<'_>,
    sinks: Option<&[f64]>,
    tiled: bool,
    p: Precision,
) -> Matrix {
    let (dk, dv) = (form.key_dim, form.value_dim);
    let mut out = Matrix::zeros(heads.q.rows, form.heads * dv);
    let padded = |t: usize| mask.padding.get(t).copied().unwrap_or(false);
    for (number, (sequence, queries)) in mask.sequences.iter().zip(mask.queries).enumerate() {
        let chunk_of = |row: usize| {
            mask.chunk.map_or(0, |chunk| {
                let first = chunk.first.get(number).copied().unwrap_or(0);
                (first + (row - sequence.start) as i64).div_euclid(chunk.size.max(1) as i64)
            })
        };
        // The key row of a query.
        let key = |q: usize| sequence.end - queries.len() + (q - queries.start);
        let rows = |m: &Matrix, columns: Range<usize>, rows: Range<usize>| {
            let data = rows.clone().flat_map(|r| m.row(r)[columns.clone()].to_vec()).collect();
            Matrix::new(rows.len(), columns.len(), data)
        };
        let chunks: Vec<(usize, usize)> = (0..form.heads)
            .flat_map(|h| queries.clone().step_by(QUERIES).map(move |start| (h, start)))
            .collect();
        let parts: Vec<Matrix> = chunks
            .par_iter()
            .map(|&(h, start)| {
                let end = (start + QUERIES).min(queries.end);
                let group = if tiled { h % form.kv_heads } else { h / (form.heads / form.kv_heads) };
                let q = rows(&heads.q, h * dk..(h + 1) * dk, start..end);
                let k = rows(&heads.k, group * dk..(group + 1) * dk, sequence.clone());
                let mut v = rows(&heads.v, group * dv..(group + 1) * dv, sequence.clone());
                // What nobody sees may be NaN, which a weight of 0 would not undo.
                (0..v.rows).filter(|j| padded(sequence.start + j)).for_each(|j| v.row_mut(j).fill(0.0));
                let mut scores = q.matmul_t(&k);
                for r in 0..scores.rows {
                    let t = key(start + r);
                    let row = scores.row_mut(r);
                    let chosen = mask.chosen.map(|chosen| {
                        let mut all = vec![false; sequence.len()];
                        let own = (start + r) * chosen.each..(start + r + 1) * chosen.each;
                        let keys = chosen.keys.get(own).unwrap_or(&[]);
                        for key in keys.iter().filter_map(|&k| usize::try_from(k).ok()) {
                            if let Some(seen) = all.get_mut(key) {
                                *seen = true;
                            }
                        }
                        all
                    });
                    for (j, s) in row.iter_mut().enumerate() {
                        let at = sequence.start + j;
                        let later = mask.causal && at > t;
                        let itself = mask.strict && at == t && t > sequence.start;
                        let outside = mask.window.is_some_and(|w| at <= t && t - at >= w);
                        let elsewhere = chunk_of(at) != chunk_of(t);
                        let unchosen = chosen.as_ref().is_some_and(|all| !all[j]);
                        let seen = !(padded(at) || later || itself || outside || elsewhere || unchosen);
                        let score = p.round(p.round(*s) * form.scale);
                        *s = if seen { soft_cap(score, form.cap) } else { f64::NEG_INFINITY };
                    }
                    let sink = sinks.map(|s| s[h]);
                    let largest = row.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
                    let shifted =
                        |s: f64| if s == f64::NEG_INFINITY { 0.0 } else { p.round(s - largest).exp() };
                    row.iter_mut().for_each(|s| *s = shifted(*s));
                    let total = row.iter().sum::<f64>() + sink.map_or(0.0, shifted);
                    row.iter_mut().for_each(|s| *s = if total > 0.0 { p.round(*s / total) } else { 0.0 });
                }
                p.apply(scores.matmul_t(&v.transposed()))
            })
            .collect();
        for (&(h, start), part) in chunks.iter().zip(parts) {
            for r in 0..part.rows {
                if !padded(key(start + r)) {
                    out.row_mut(start + r)[h * dv..(h + 1) * dv].copy_from_slice(part.row(r));
                }
            }
        }
    }
    out
}

impl Inputs {
    /// The quantisers of one module's input; none if its weight is not quantised for it.
    pub fn of(&self, weights: &Weights<'_>, module: &str) -> Vec<Quant> {
        let scheme = weights.0.describe(module).map(|info| info.scheme);
        if !matches!(scheme, Ok(Scheme::Fp8 | Scheme::Nvfp4 | Scheme::Int8)) {
            return Vec::new();
        }
        let base = module.split('#').next().unwrap_or(module);
        let scale = weights.vector(&format!("{base}.input_scale")).ok().and_then(|s| s.first().copied());
        match scale.filter(|_| self.stored) {
            Some(scale) => {
                let own = |q: &Quant| {
                    // The stored scale is e4m3fn's; the other encoding has half its range.
                    let factor = if q.dtype == DType::E4M3Fnuz { 2.0 } else { 1.0 };
                    q.static_scale(scale * factor)
                };
                self.schemes.iter().map(own).collect()
            }
            None => self.schemes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn the_error_function_has_its_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, y) in
            [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.0, 0.999_977_909_5)]
        {
            assert_abs_diff_eq!(libm_erf(x), y, epsilon = 1e-10);
            assert_abs_diff_eq!(libm_erf(-x), -y, epsilon = 1e-10);
        }
        assert_abs_diff_eq!(libm_erf(2.499_999_999), libm_erf(2.500_000_001), epsilon = 1e-11);
    }

    #[test]
    fn groups_that_are_dropped_are_not_chosen_from() {
        let router = Router {
            experts: 4,
            topk: 2,
            score: Score::Sigmoid,
            correction: true,
            groups: Some((2, 1)),
            renormalise: true,
            scaling: 2.0,
        };
        // The best single expert is in the weaker group.
        let logits = Matrix::new(1, 4, vec![3.0, -9.0, 2.0, 1.0]);
        let choice = route(&router, &logits, Some(&[0.0; 4]), Precision::Exact);
        assert_eq!(choice.indices, [2, 3]);
        assert_abs_diff_eq!(choice.weights.data.iter().sum::<f64>(), 2.0, epsilon = 1e-12);
        // A correction chooses but does not weigh.
        let choice = route(&router, &logits, Some(&[0.0, 5.0, 0.0, 0.0]), Precision::Exact);
        assert_eq!(choice.indices, [1, 0]);
        assert!(choice.weights.data[0] < 0.001);
    }

    #[test]
    fn a_window_includes_the_position_itself() {
        let form = Attention {
            heads: 1,
            kv_heads: 1,
            key_dim: 2,
            value_dim: 1,
            scale: 1.0,
            cap: None,
            causal: true,
            sinks: false,
            qk_norm: super::super::config::QkNorm::None,
            mla: None,
            temperature: None,
            indexer: None,
            gate: false,
        };
        let heads = Heads {
            q: Matrix::zeros(4, 2),
            k: Matrix::zeros(4, 2),
            v: Matrix::new(4, 1, vec![1., 2., 4., 8.]),
        };
        let all: Vec<Range<usize>> = std::iter::once(0..4).collect();
        let mask = Mask {
            sequences: &all,
            queries: &all,
            causal: true,
            window: Some(2),
            padding: &[],
            chunk: None,
            chosen: None,
            strict: false,
        };
        let y = attention(&heads, &form, &mask, None, false, Precision::Exact);
        assert_eq!(y.data, [1.0, 1.5, 3.0, 6.0]);
        // Chunks of two, of which the first began one position before the first key.
        let chunk = Some(Chunk { size: 2, first: &[1] });
        let y = attention(
            &heads,
            &form,
            &Mask { chunk, window: None, ..mask.clone() },
            None,
            false,
            Precision::Exact,
        );
        assert_eq!(y.data, [1.0, 2.0, 3.0, 8.0]);
        let padded = Heads { v: Matrix::new(4, 1, vec![f64::NAN, 2., 4., 8.]), ..heads.clone() };
        let mask = Mask { padding: &[true, false, false, false], ..mask };
        let y = attention(&padded, &form, &mask, None, false, Precision::Exact);
        assert_eq!(y.data, [0.0, 2.0, 3.0, 6.0]);
        let mask = Mask { padding: &[], ..mask };
        let last: Vec<Range<usize>> = std::iter::once(0..2).collect();
        let two = Heads { q: Matrix::zeros(2, 2), ..heads.clone() };
        let y =
            attention(&two, &form, &Mask { queries: &last, ..mask.clone() }, None, false, Precision::Exact);
        assert_eq!(y.data, [3.0, 6.0]);
        let y = attention(&heads, &form, &mask, Some(&[0.0]), false, Precision::Exact);
        assert_eq!(y.data[0], 0.5);
    }
}
