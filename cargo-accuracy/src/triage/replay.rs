//! Replays operations of the plan from a dump's own inputs, and tries known mistakes on those that are wrong.

use super::cache::{KEYS, VALUES, attention_module};
use super::fits::{Mixed, Product, rounded};
use super::judge::{
    Judged, Ranks, error_shown, judge_choice, judge_hidden, judge_shown, relative_error, rows_of,
};
use super::layout::Link;
use super::side::{Computed, Side};
use super::value::{Held, Value};
use accuracy_core::dtype::{DType, Overflow};
use accuracy_core::dumps::Kind;
use accuracy_core::model::config::{Attention, Mla};
use accuracy_core::model::inputs::quantised;
use accuracy_core::model::ops::{self, Heads, Mask, Precision, Weights};
use accuracy_core::model::place::{GIVEN_COS, GIVEN_SIN, Names};
use accuracy_core::model::{
    Activation, ModelConfig, Op, OpKind, Place, Plan, QkNorm, Rope, Router, Score, Sharing, Site, rope,
};
use accuracy_core::quant::{Granularity, Quant};
use accuracy_core::reference::Matrix;
use accuracy_core::reference::model::RopeStyle;
use accuracy_core::weights::Checkpoint;
use std::collections::BTreeSet;
use std::ops::Range;

/// What replaying attention takes where the step's tokens are not the first.
pub const CACHE: &str = "keys and values of earlier positions";

/// What a replay found.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This is not in the dump.
    Missing(String),
    /// It attends to earlier positions, whose keys and values are not in the dump.
    NoCache,
    /// It is there, but cannot be used.
    Unusable(String),
    Judged(Box<Judged>),
}

/// A mistake whose result comes closest to what the dump has.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The operation that it is a mistake of, where that is not the operation's own name.
    pub op: Option<&'static str>,
    pub detail: String,
    /// Relative error of the dump against the mistaken replay.
    pub error: f64,
    /// Whether nothing but noise is left.
    pub explains: bool,
}

/// A model whose operations are replayed.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    pub checkpoint: &'a Checkpoint,
    pub config: Option<&'a ModelConfig>,
    /// The whole model is computed from its tokens: what is rounded is quantised, too, and what is exact is not.
    pub whole: bool,
}

/// A value that is not there ends a replay without a result.
enum Stop {
    Missing(String),
    NoCache,
    Unusable(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Unusable(error.to_string())
    }
}

fn name_of(site: &Site) -> String {
    site.0.first().map_or("an input".to_owned(), |p| format!("{} {}", p.module, p.kind.name()))
}

/// A value of the dump.
fn dumped(side: &Side, site: &Site) -> Result<Value, Stop> {
    side.load(site).map_err(Stop::Unusable)?.ok_or_else(|| Stop::Missing(name_of(site)))
}

/// A value of the dump; else what its layer's operations make of the values that are, with rounding to `p` or without.
fn need(side: &Side, site: &Site, p: Precision) -> Result<Value, Stop> {
    match side.load(site).map_err(Stop::Unusable)? {
        Some(value) => Ok(value),
        None => side.made(site, p).map_err(Stop::Unusable)?.ok_or_else(|| Stop::Missing(name_of(site))),
    }
}

fn need_integers(side: &Side, site: &Site) -> Result<Vec<i64>, Stop> {
    let name = || site.0.first().map_or("indices".to_owned(), |p| format!("{} {}", p.module, p.kind.name()));
    let found = side.integers(site).map_err(Stop::Unusable)?;
    found.map(|f| f.0).ok_or_else(|| Stop::Missing(name()))
}

impl Replay<'_> {
    /// Replays one operation on one side; `index` is its number in the plan. An output that is not in the dump is kept
    /// for the operations after it.
    pub fn op(&self, side: &Side, index: usize, op: &Op) -> Outcome {
        side.begin();
        match self.judged(side, index, op) {
            Ok(judged) => Outcome::Judged(Box::new(judged)),
            Err(Stop::Missing(what)) => Outcome::Missing(what),
            Err(Stop::NoCache) => Outcome::NoCache,
            Err(Stop::Unusable(why)) => Outcome::Unusable(why),
        }
    }

    fn judged(&self, side: &Side, index: usize, op: &Op) -> Result<Judged, Stop> {
        match &op.kind {
            OpKind::RopeTable { rope } => return self.rope_table(side, op, *rope),
            OpKind::Router { router, correction } => {
                return self.router(side, index, op, router, correction.as_deref());
            }
            OpKind::Copy => {
                let indices = |site: &Site| side.integers(site).map_err(Stop::Unusable);
                if let (Some((from, _)), Some((out, shape))) = (indices(&op.inputs[0])?, indices(&op.output)?)
                {
                    if from.len() != out.len() {
                        return Err(Stop::Unusable(format!("{} indices, then {}", from.len(), out.len())));
                    }
                    let (&cols, lead) = shape.split_last().unwrap_or((&1, &[]));
                    let hidden = side.hidden(lead);
                    let rows = |ids: &[i64]| {
                        let values = ids.iter().map(|&i| i as f64).collect();
                        Matrix::new(out.len() / cols.max(1), cols, values)
                    };
                    let (from, out) = (rows(&from), rows(&out));
                    return Ok(judge_shown([&from, &from, &out], 0.0, &[], &hidden));
                }
            }
            _ => {}
        }
        let out = match dumped(side, &op.output) {
            // Nothing is made of logits, and attention is replayed with the rotation.
            Err(Stop::Missing(what))
                if op.last && !self.whole || matches!(op.kind, OpKind::Rotate { .. }) =>
            {
                return Err(Stop::Missing(what));
            }
            Err(Stop::Missing(what)) => {
                let inputs = if self.whole { self.quantisers(op).first().copied() } else { None };
                let (exact, noisy, extra) = self.computed(side, op, None, side.precision, inputs.as_ref())?;
                let made = Computed { exact, noisy, extra, undecided: Vec::new() };
                side.keep(index, op, &op.output, made);
                return Err(Stop::Missing(what));
            }
            out => out?,
        };
        // Inputs may be quantised as the configuration says, or not at all as by a reference.
        let mut best: Option<Judged> = None;
        for inputs in std::iter::once(None).chain(self.quantisers(op).into_iter().map(Some)) {
            let judged = self.compared(side, op, out.clone(), inputs)?;
            let ratio = |j: &Judged| if j.ok { 0.0 } else { j.error / j.bound.max(f64::MIN_POSITIVE) };
            if best.as_ref().is_none_or(|b| ratio(&judged) < ratio(b)) {
                best = Some(judged);
            }
            if best.as_ref().is_some_and(|b| b.ok) {
                break;
            }
        }
        let mut best = best.ok_or_else(|| Stop::Unusable("nothing to compare with".to_owned()))?;
        if let Some(scaling) = self.scaling(op).filter(|_| !best.ok) {
            let twist = Twist { late: Some(scaling), inputs: best.inputs, ..Twist::default() };
            let out = dumped(side, &op.output)?;
            best.late = self.holds(side, op, out, &twist)?;
        }
        Ok(best)
    }

    /// The factor of the routing weights that an engine may apply later: to what the experts give, as it adds the shared
    /// expert to it.
    fn scaling(&self, op: &Op) -> Option<f64> {
        let layer = self.config?.layers.get(op.layer?)?;
        let router = layer.router.as_ref().filter(|r| r.scaling != 1.0 && layer.shared)?;
        let mixes = matches!(op.kind, OpKind::Experts { .. } | OpKind::Sum { .. } | OpKind::Copy);
        (mixes && op.of_experts).then_some(router.scaling)
    }

    /// Whether an output is that of a changed operation.
    fn holds(&self, side: &Side, op: &Op, out: Value, twist: &Twist) -> Result<bool, Stop> {
        let p = out.precision;
        let exact = self.plain(side, op, Precision::Exact, twist)?;
        let noisy = self.plain(side, op, p, twist)?;
        let extra = vec![16.0 * Precision::F32.unit() + side.inherited(); exact.rows];
        let hidden = side.hidden(&out.lead);
        let value = Value::new(exact, Vec::new(), p, String::new());
        let out = same_shape(&value, out)?;
        let mut hidden = if hidden.len() == value.x.rows { hidden } else { Vec::new() };
        let undecided = side.undecided();
        if undecided.len() == value.x.rows && undecided.contains(&true) {
            hidden.resize(value.x.rows, false);
            hidden.iter_mut().zip(&undecided).for_each(|(h, u)| *h |= u);
        }
        Ok(judge_shown([&value.x, &noisy, &out.x], p.unit(), &extra, &hidden).ok)
    }

    /// The quantisers of an operation's input that the configuration allows.
    fn quantisers(&self, op: &Op) -> Vec<Quant> {
        let Some(config) = self.config else { return Vec::new() };
        let weights = Weights(self.checkpoint);
        match &op.kind {
            OpKind::Linear { weight } => config.inputs.of(&weights, weight),
            OpKind::Experts { module, .. } => {
                let names = ["0.gate_proj", "0.w1", "gate_up_proj#0"];
                let all = names.iter().map(|n| config.inputs.of(&weights, &format!("{module}.{n}")));
                all.into_iter().find(|all| !all.is_empty()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// One output against its replay with inputs quantised in one way.
    fn compared(&self, side: &Side, op: &Op, out: Value, inputs: Option<Quant>) -> Result<Judged, Stop> {
        let p = out.precision;
        let (exact, noisy, extra) = self.computed(side, op, Some(&out), p, inputs.as_ref())?;
        let exact = Value::new(exact, Vec::new(), p, format!("the replay of {}", op.name));
        let hidden = side.hidden(&out.lead);
        let out = same_shape(&exact, out)?;
        let mut hidden = if hidden.len() == out.x.rows { hidden } else { Vec::new() };
        let undecided = side.undecided();
        if undecided.len() == out.x.rows && undecided.contains(&true) {
            hidden.resize(out.x.rows, false);
            hidden.iter_mut().zip(&undecided).for_each(|(h, u)| *h |= u);
        }
        if !hidden.is_empty() && !hidden.contains(&false) {
            return Err(Stop::Unusable(format!(
                "{}: rounding decides the experts of every token",
                out.place
            )));
        }
        let through = side.through();
        let unit = if op.kind == OpKind::Copy && through.is_empty() { 0.0 } else { p.unit() };
        let mut judged = judge_shown([&exact.x, &noisy, &out.x], unit, &extra, &hidden);
        // A query that sees nothing may well give NaN.
        if !matches!(op.kind, OpKind::Attention { .. }) {
            judge_hidden(&mut judged, &exact.x, &out.x, &hidden);
        }
        let reduced = self.reduced(side, op, &out, &judged);
        if out.held == Held::Apart && !self.takes_apart(side, op) {
            judged.ok = false;
            judged
                .notes
                .insert(0, "the ranks have different values where all should have the same".to_owned());
            judged.ranks = Ranks::Apart;
        } else if let Some(ranks) = reduced {
            judged.ranks = ranks;
        } else if out.held == Held::Summands {
            judged.ranks = Ranks::Summands;
        }
        Ok(Judged { through, alone: side.is_alone(), inputs, ..judged })
    }

    /// Whether an input is no longer the same in all ranks, so that the output cannot be.
    fn takes_apart(&self, side: &Side, op: &Op) -> bool {
        op.inputs.iter().any(|site| matches!(side.load(site), Ok(Some(v)) if v.held == Held::Apart))
    }

    /// A sum over ranks that was done once too often: the output is as many times too large as there are ranks.
    fn reduced(&self, side: &Side, op: &Op, out: &Value, judged: &Judged) -> Option<Ranks> {
        let ranks = side.ranks() as f64;
        let sums = op.output.0.iter().any(|p| matches!(p.sharing, Sharing::Sum(_)));
        let gain = judged.gain?;
        let twice = sums && ranks > 1.0 && out.held == Held::Well && (gain / ranks - 1.0).abs() < 0.02;
        (twice && !judged.ok).then_some(Ranks::SummedTwice)
    }

    /// The exact result, the one with rounding, and each row's error from accumulation in f32.
    fn computed(
        &self,
        side: &Side,
        op: &Op,
        out: Option<&Value>,
        p: Precision,
        inputs: Option<&Quant>,
    ) -> Result<(Matrix, Matrix, Vec<f64>), Stop> {
        let (exact, noisy, mut extra) = if let OpKind::Linear { weight } = &op.kind {
            let weights = Weights(self.checkpoint);
            let input = |p: Precision| -> Result<Matrix, Stop> {
                let x = need(side, &op.inputs[0], p)?;
                let x = match out {
                    Some(out) => last_rows(side, x, out.x.rows),
                    None => x.x,
                };
                let inputs = inputs.filter(|_| !self.whole || p != Precision::Exact);
                Ok(inputs.map_or_else(|| x.clone(), |scheme| quantised(&x, scheme, p)))
            };
            let x = input(Precision::Exact)?;
            let exact = weights.linear(weight, &x, Precision::Exact)?;
            // Weights that are stored wider than the model computes are rounded on loading.
            let noisy = weights.linear(weight, &input(p)?, p)?.y;
            let noisy = match op.output.0.iter().any(|place| matches!(place.sharing, Sharing::Sum(_))) {
                true => self.by_ranks(side, weight, &x, noisy, p)?,
                false => noisy,
            };
            let extra = (0..x.rows).map(|r| {
                let size = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
                let y = size(exact.y.row(r));
                if y > 0.0 { Precision::F32.unit() * size(x.row(r)) * exact.weight_norm / y } else { 0.0 }
            });
            let extra: Vec<f64> = extra.collect();
            (exact.y, noisy, extra)
        } else {
            let run = |p: Precision| {
                let inputs = inputs.filter(|_| !self.whole || p != Precision::Exact).copied();
                self.plain(side, op, p, &Twist { inputs, ..Twist::default() })
            };
            let exact = run(Precision::Exact)?;
            let unit = if op.kind == OpKind::Copy { 0.0 } else { 16.0 * Precision::F32.unit() };
            let extra = vec![unit; exact.rows];
            (exact, run(p)?, extra)
        };
        let inherited = side.inherited();
        extra.iter_mut().for_each(|e| *e += inherited);
        Ok((exact, noisy, extra))
    }

    /// A product whose parts were computed by several ranks and rounded before they were added.
    fn by_ranks(
        &self,
        side: &Side,
        weight: &str,
        x: &Matrix,
        once: Matrix,
        p: Precision,
    ) -> Result<Matrix, Stop> {
        let ranks = side.ranks();
        if ranks < 2 || !x.cols.is_multiple_of(ranks) {
            return Ok(once);
        }
        let weights = Weights(self.checkpoint);
        let width = x.cols / ranks;
        let bias = weights.linear(weight, &Matrix::zeros(x.rows, x.cols), Precision::Exact)?.y;
        let mut sum = bias.clone();
        for rank in 0..ranks {
            let mut part = Matrix::zeros(x.rows, x.cols);
            for r in 0..x.rows {
                let columns = rank * width..(rank + 1) * width;
                part.row_mut(r)[columns.clone()].copy_from_slice(&x.row(r)[columns]);
            }
            let y = weights.linear(weight, &part, Precision::Exact)?.y;
            for ((to, y), b) in sum.data.iter_mut().zip(&y.data).zip(&bias.data) {
                *to += p.round(y - b);
            }
        }
        // Whatever rounds more is what an engine may do.
        let exact = weights.linear(weight, x, Precision::Exact)?.y;
        for ((to, once), exact) in sum.data.iter_mut().zip(&once.data).zip(&exact.data) {
            let rounded = p.round(*to);
            *to = if (once - exact).abs() > (rounded - exact).abs() { *once } else { rounded };
        }
        Ok(sum)
    }

    /// An operation with a mistake in it, or with none.
    fn plain(&self, side: &Side, op: &Op, p: Precision, twist: &Twist) -> Result<Matrix, Stop> {
        let weights = Weights(self.checkpoint);
        Ok(match &op.kind {
            OpKind::Embedding { weight, scale } => {
                let ids = match need_integers(side, &op.inputs[0]) {
                    Ok(ids) => ids,
                    Err(_) => {
                        side.tokens().map_err(Stop::Unusable)?.ok_or(Stop::Missing("token ids".into()))?
                    }
                };
                let rows = weights.rows(weight, &ids)?;
                // The factor is stored in the model's format.
                let scale = if twist.unscaled { 1.0 } else { p.round(*scale) };
                p.apply(if scale == 1.0 { rows } else { rows.map(|x| x * scale) })
            }
            OpKind::Norm { weight, bias, eps, width, one_plus } => {
                let x = match twist.only {
                    Some(only) => dumped(side, &summand(&op.inputs[0], only))?.x,
                    None => need(side, &op.inputs[0], p)?.x,
                };
                let mut w = weights.vector(&twist.of_layer(op, weight))?;
                let bias = bias.as_ref().map(|b| weights.vector(b)).transpose()?;
                if w.is_empty() || x.data.len() % w.len() != 0 || width.is_some_and(|n| n != w.len()) {
                    return Err(Stop::Unusable(format!(
                        "{weight} has {} values, its input {:?}",
                        w.len(),
                        x.cols
                    )));
                }
                if *one_plus != (twist.norm == Some(Norm::OnePlus)) {
                    w.iter_mut().for_each(|w| *w += 1.0);
                }
                if twist.norm == Some(Norm::NoWeight) {
                    w.fill(1.0);
                }
                if twist.norm == Some(Norm::Skipped) {
                    return Ok(x);
                }
                let eps = if let Some(Norm::Eps(eps)) = twist.norm { eps } else { *eps };
                let zeros = vec![0.0; w.len()];
                let bias = match twist.norm {
                    Some(Norm::Centred) => Some(&zeros[..]),
                    Some(Norm::NoBias) if bias.is_some() => Some(&zeros[..]),
                    _ => bias.as_deref(),
                };
                match twist.norm {
                    Some(Norm::Grouped(d)) if d > 0 && w.len().is_multiple_of(d) && d < w.len() => {
                        let ones = vec![1.0; d];
                        let mut y = ops::norm(&x, &ones, None, eps, p);
                        let all = w.len();
                        y.data.chunks_exact_mut(all).for_each(|row| {
                            row.iter_mut().zip(&w).for_each(|(v, w)| *v = p.round(*v * w));
                        });
                        y
                    }
                    _ => ops::norm(&x, &w, bias, eps, p),
                }
            }
            OpKind::Linear { weight } => {
                let x = match &twist.instead {
                    Some((_, site)) => dumped(side, site)?.x,
                    None => need(side, &op.inputs[0], p)?.x,
                };
                let x = twist.inputs.map_or_else(|| x.clone(), |scheme| twist.taken(&x, scheme, p));
                let x = twist.read.map_or_else(|| x.clone(), |read| read.of(&x));
                let mut y = weights.linear(&twist.of_layer(op, weight), &x, p)?.y;
                if twist.bias != 1.0 {
                    let bias = weights.vector(&format!("{weight}.bias"))?;
                    y.data.chunks_exact_mut(bias.len().max(1)).for_each(|row| {
                        row.iter_mut().zip(&bias).for_each(|(v, b)| *v += (twist.bias - 1.0) * b);
                    });
                }
                if let Some(other) = &twist.bias_of {
                    let own = weights.vector(&format!("{weight}.bias"))?;
                    let other = weights.vector(&format!("{other}.bias"))?;
                    if own.len() != other.len() {
                        return Err(Stop::Missing("a bias of that length".to_owned()));
                    }
                    y.data.chunks_exact_mut(own.len().max(1)).for_each(|row| {
                        row.iter_mut().zip(own.iter().zip(&other)).for_each(|(v, (a, b))| *v += b - a);
                    });
                }
                if twist.other_rows && y.rows > 1 {
                    y.data.rotate_right(y.cols);
                }
                twist.written.map_or_else(|| y.clone(), |written| written.of(&y))
            }
            OpKind::Attention { window, sinks, gate, .. } => {
                let mut y = self.attention(side, op, *window, sinks.as_deref(), p, twist)?;
                if let Some(site) = op.inputs.last().filter(|_| *gate && !twist.no_gate) {
                    let projected = need(side, site, p)?.reshaped(2 * y.cols).map_err(Stop::Unusable)?.x;
                    let d = self.config.map_or(1, |c| c.attention.key_dim).max(1);
                    for r in 0..y.rows.min(projected.rows) {
                        for c in 0..y.cols {
                            let gate = projected.row(r)[c / d * 2 * d + d + c % d];
                            let value = &mut y.row_mut(r)[c];
                            *value = p.round(*value * p.round(1.0 / (1.0 + (-gate).exp())));
                        }
                    }
                }
                y
            }
            OpKind::FirstHalves { d } => {
                let x = need(side, &op.inputs[0], p)?.x;
                let data = x.data.chunks_exact(2 * d).flat_map(|head| head[..*d].to_vec()).collect();
                Matrix::new(x.rows, x.cols / 2, data)
            }
            OpKind::Delta { module } => self.delta(side, op, module, p, twist)?,
            OpKind::GatedNorm { weight, eps } => {
                let config =
                    self.config.ok_or_else(|| Stop::Unusable("a gate needs a config.json".into()))?;
                let net = config.delta.ok_or_else(|| Stop::Unusable("no delta net".into()))?;
                let gates = ops::delta_gates(net, &need(side, &op.inputs[1], p)?.x);
                let core = need(side, &op.inputs[0], p)?.reshaped(gates.cols).map_err(Stop::Unusable)?.x;
                let mut w = weights.vector(&twist.of_layer(op, weight))?;
                match twist.norm {
                    Some(Norm::NoWeight) => w.fill(1.0),
                    Some(Norm::OnePlus) => w.iter_mut().for_each(|w| *w += 1.0),
                    _ => {}
                }
                if w.is_empty() || !gates.cols.is_multiple_of(w.len()) || core.rows != gates.rows {
                    return Err(Stop::Unusable(format!("{weight} has {} values", w.len())));
                }
                let mut y = match twist.norm {
                    Some(Norm::Skipped) => core,
                    _ => ops::norm(&core, &w, None, *eps, p),
                };
                if !twist.no_gate {
                    let gated = y.data.iter().zip(&gates.data).map(|(y, g)| p.round(y * ops::silu(*g)));
                    y.data = gated.collect();
                }
                y
            }
            OpKind::Blend => {
                let routed = need(side, &op.inputs[0], p)?;
                let shared = same_shape(&routed, need(side, &op.inputs[1], p)?)?.x;
                let gate = need(side, &op.inputs[2], p)?.x;
                let mut y = routed.x;
                if gate.data.len() != y.rows {
                    return Err(Stop::Unusable(format!("{} gates for {} tokens", gate.data.len(), y.rows)));
                }
                let (first, second) = match twist.only {
                    Some(0) => (1.0, 0.0),
                    Some(_) => (0.0, 1.0),
                    None => (1.0, if twist.twice == Some(1) { 2.0 } else { 1.0 }),
                };
                for r in 0..y.rows {
                    let gate = if twist.no_gate { 1.0 } else { p.round(1.0 / (1.0 + (-gate.data[r]).exp())) };
                    y.row_mut(r).iter_mut().zip(shared.row(r)).for_each(|(y, s)| {
                        *y = p.round(first * *y + p.round(second * gate * s));
                    });
                }
                y
            }
            OpKind::Rotate { rope } => self.rotated(side, op, *rope, p, twist)?,
            OpKind::Logits { scale, cap } => {
                let x = need(side, &op.inputs[0], p)?.x;
                let scale = if twist.unscaled { 1.0 } else { *scale };
                let cap = cap.filter(|_| !twist.no_cap);
                p.apply(x.map(|x| ops::soft_cap(scale * x, cap)))
            }
            OpKind::Gated(activation) => {
                let (gate, up) = (need(side, &op.inputs[0], p)?, need(side, &op.inputs[1], p)?);
                let up = same_shape(&gate, up)?;
                let activation = twist.activation.unwrap_or(*activation);
                let (gate, up) = if twist.swapped { (up.x, gate.x) } else { (gate.x, up.x) };
                ops::gated_all(activation, &gate, &up, p)
            }
            OpKind::Activation(activation) => {
                let activation = twist.activation.unwrap_or(*activation);
                p.apply(need(side, &op.inputs[0], p)?.x.map(|x| ops::activate(activation, x)))
            }
            OpKind::Experts { module, activation, experts } => {
                let x = need(side, &op.inputs[0], p)?.x;
                let indices = match need_integers(side, &op.inputs[1]) {
                    Ok(indices) => indices,
                    Err(missing) => match side.made(&op.inputs[1], p).map_err(Stop::Unusable)? {
                        Some(made) => made.x.data.iter().map(|&e| e as i64).collect(),
                        None => return Err(missing),
                    },
                };
                let mut w = need(side, &op.inputs[2], p)?.x;
                let indices = match &twist.router {
                    None => indices,
                    Some(router) => {
                        let logits = need(side, &op.inputs[3], p)?.x;
                        let choice = ops::route(router, &logits, None, p);
                        w = choice.weights;
                        choice.indices
                    }
                };
                let shared = op.layer.and_then(|i| self.config?.layers.get(i)).is_some_and(|l| l.shared);
                if shared && indices.contains(&(*experts as i64)) {
                    return Err(Stop::Unusable(format!(
                        "expert {experts} is chosen: the shared expert runs among the routed ones, which is not replayed"
                    )));
                }
                if w.rows != x.rows || indices.len() != w.data.len() {
                    return Err(Stop::Unusable(format!(
                        "{} indices and {}x{} weights for {} tokens",
                        indices.len(),
                        w.rows,
                        w.cols,
                        x.rows
                    )));
                }
                if twist.alike {
                    w.data.fill(1.0);
                }
                let k = w.cols;
                // Weights that are in the dump lack the factor already.
                if let Some(scaling) = twist.late.filter(|_| !matches!(side.load(&op.inputs[2]), Ok(Some(_))))
                {
                    w.data.iter_mut().for_each(|w| *w /= scaling);
                }
                if let Some((parts, index)) = twist.without_experts {
                    let size = (*experts).div_ceil(parts).max(1) as i64;
                    let gone = |e: i64| e / size == index as i64;
                    w.data.iter_mut().zip(&indices).filter(|(_, e)| gone(**e)).for_each(|(w, _)| *w = 0.0);
                }
                if twist.rolled_slots && k > 1 {
                    w.data.chunks_exact_mut(k).for_each(|row| row.rotate_right(1));
                }
                let activation = twist.activation.unwrap_or(*activation);
                let expert = |e: usize| -> Result<_, accuracy_core::weights::WeightsError> {
                    let mut expert = weights.expert(module, (e + twist.next_expert) % (*experts).max(1))?;
                    if let Some(read) = twist.read {
                        expert.down = read.of(&expert.down);
                    }
                    if twist.swapped {
                        std::mem::swap(&mut expert.gate, &mut expert.up);
                    }
                    if let Some(biases) = &mut expert.biases {
                        biases.iter_mut().flatten().for_each(|b| *b *= twist.bias);
                        biases[2].iter_mut().for_each(|b| *b *= twist.bias_down);
                    }
                    expert.gate = p.apply(expert.gate);
                    expert.up = p.apply(expert.up);
                    expert.down = p.apply(expert.down);
                    Ok(expert)
                };
                let input =
                    |x: &Matrix| twist.inputs.map_or_else(|| x.clone(), |scheme| twist.taken(x, scheme, p));
                if !twist.weighs_input {
                    return Ok(ops::experts(&x, &indices, &w, *experts, (activation, p), &input, expert)?);
                }
                // A row for each choice, weighed before the expert.
                let choices = (0..indices.len()).flat_map(|i| {
                    let weight = w.data[i];
                    x.row(i / k).iter().map(move |v| weight * v).collect::<Vec<_>>()
                });
                let rows = Matrix::new(indices.len(), x.cols, choices.collect());
                let ones = Matrix::new(indices.len(), 1, vec![1.0; indices.len()]);
                let y = ops::experts(&rows, &indices, &ones, *experts, (activation, p), &input, expert)?;
                let mut sum = Matrix::zeros(x.rows, y.cols);
                for i in 0..y.rows {
                    sum.row_mut(i / k).iter_mut().zip(y.row(i)).for_each(|(to, v)| *to += v);
                }
                sum
            }
            OpKind::Sum { scale } => {
                let mut sum = need(side, &op.inputs[0], p)?;
                if let Some(only) = twist.only {
                    return Ok(need(side, &op.inputs[only], p)?.x);
                }
                if twist.twice == Some(0) {
                    sum.x = sum.x.map(|x| 2.0 * x);
                }
                if let Some(scaling) = twist.late {
                    sum.x = sum.x.map(|x| scaling * x);
                }
                if let Some((0, site)) = &twist.instead {
                    sum = same_shape(&sum, dumped(side, site)?)?;
                }
                for (i, input) in op.inputs.iter().enumerate().skip(1) {
                    let next = match &twist.instead {
                        Some((at, site)) if *at == i => dumped(side, site)?,
                        _ => need(side, input, p)?,
                    };
                    let next = same_shape(&sum, next)?;
                    let scale = if twist.twice == Some(i) { 2.0 * scale } else { *scale };
                    let scale = if twist.unscaled { 1.0 } else { scale };
                    sum.x.data.iter_mut().zip(&next.x.data).for_each(|(a, b)| *a = p.round(*a + scale * b));
                }
                if let Some(scaling) = twist.scaled {
                    sum.x = sum.x.map(|x| scaling * x);
                }
                sum.x
            }
            OpKind::Copy => {
                let mut from = need(side, &op.inputs[0], p)?;
                if let Some(scaling) = twist.late {
                    from.x = from.x.map(|x| x / scaling);
                }
                match side.load(&op.output).map_err(Stop::Unusable)? {
                    Some(out) if out.x.cols == from.x.cols => last_rows(side, from, out.x.rows),
                    _ => from.x,
                }
            }
            OpKind::RopeTable { .. } | OpKind::Router { .. } => {
                return Err(Stop::Unusable(format!("{} has no replay of this kind", op.name)));
            }
        })
    }

    /// Heads after the rotation, of an engine that rotates in a module of its own.
    fn rotated(
        &self,
        side: &Side,
        op: &Op,
        rope: usize,
        p: Precision,
        twist: &Twist,
    ) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("rotation needs a config.json".into()))?;
        let d = config.attention.key_dim;
        let x = need(side, &op.inputs[0], p)?;
        let width = x.x.data.len() / side.tokens_of(&x, d).max(1);
        let mut x = x.reshaped(width).map_err(Stop::Unusable)?;
        let rope = twist.table.as_ref().map_or_else(|| self.rope(rope), Ok)?;
        let mut positions = self.positions_of(side, &x, twist.q_shift);
        if twist.rounded {
            positions.iter_mut().for_each(|p| *p = rounded(*p));
        }
        let table = table(rope, &positions);
        let half = rope.dims / 2;
        let (cos, sin) = (p.apply(table.columns(0..half)), p.apply(table.columns(half..2 * half)));
        let style = twist.style.unwrap_or(rope.style);
        if twist.rotate_q {
            ops::rotate(&mut x.x, d, twist.part(rope.dims, d), (&cos, &sin), style, p);
        }
        Ok(x.x)
    }

    /// The position of each row of an engine's value.
    fn positions_of(&self, side: &Side, x: &Value, shift: f64) -> Vec<f64> {
        let recorded = side.positions.as_ref().filter(|p| !p.is_empty());
        let position = |t: usize| recorded.map_or(t as f64, |p| p[t % p.len()] as f64);
        (0..x.x.rows).map(|t| position(t) + shift).collect()
    }

    fn rope(&self, index: usize) -> Result<&Rope, Stop> {
        let rope = self.config.and_then(|c| c.rope(Some(index)));
        rope.ok_or_else(|| Stop::Unusable("the configuration describes no rotary embedding".into()))
    }

    /// Cosines and sines beside each other, against those of the configuration.
    fn rope_table(&self, side: &Side, op: &Op, rope: usize) -> Result<Judged, Stop> {
        let rope = self.rope(rope)?;
        let (cos, positions) = self.given_table(side, op, rope)?;
        let p = cos.precision;
        let exact = table(rope, &positions);
        let found = cos.x;
        let noisy = p.apply(exact.clone());
        // Angles are products in f32, so that an error of a unit in the angle shows in cosine and sine.
        let extra = positions.iter().map(|p| 4.0 * Precision::F32.unit() * (1.0 + p)).collect::<Vec<_>>();
        let hidden = side.hidden(&cos.lead);
        let judged = judge_shown([&exact, &noisy, &found], p.unit(), &extra, &hidden);
        Ok(judged)
    }

    fn router(
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
        let indices = need_integers(side, &op.inputs[1])?;
        let out = dumped(side, &op.output)?;
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

    /// The output of a delta rule for a step's tokens, its state computed from the steps before.
    fn delta(&self, side: &Side, op: &Op, module: &str, p: Precision, twist: &Twist) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("a delta rule needs a config.json".into()))?;
        let net = config.delta.ok_or_else(|| Stop::Unusable("no delta net".into()))?;
        let weights = Weights(self.checkpoint);
        let stored = ops::DeltaWeights {
            convolution: weights.flat(&format!("{module}.conv1d.weight"))?,
            a_log: weights.flat(&format!("{module}.A_log"))?,
            dt_bias: weights.flat(&format!("{module}.dt_bias"))?,
        };
        let channels = 2 * net.key_heads * net.key_dim + net.value_heads * net.value_dim;
        if stored.convolution.len() != channels * net.kernel
            || stored.a_log.len() != net.value_heads
            || stored.dt_bias.len() != net.value_heads
        {
            return Err(Stop::Unusable(format!(
                "{module}: {} values of a convolution, {} of A_log, {} of dt_bias",
                stored.convolution.len(),
                stored.a_log.len(),
                stored.dt_bias.len()
            )));
        }
        let load = |step: &Side| -> Result<(Value, Matrix, Vec<Range<usize>>), Stop> {
            let projected = need(step, &op.inputs[0], p)?;
            let rates =
                need(step, &op.inputs[1], p)?.reshaped(2 * net.value_heads).map_err(Stop::Unusable)?.x;
            let width = channels + net.value_heads * net.value_dim;
            if projected.x.cols != width || projected.x.rows != rates.rows {
                return Err(Stop::Unusable(format!("{}: {} columns", projected.place, projected.x.cols)));
            }
            let sequences = step.sequences(&projected);
            Ok((projected, rates, sequences))
        };
        let (own, rates, sequences) = load(side)?;
        // Rows of each sequence: of which step, and which of it.
        let mut earlier = Vec::new();
        let mut before: Vec<Vec<(usize, Range<usize>)>> = vec![Vec::new(); sequences.len()];
        if !twist.no_state {
            if side.layout.is_some() {
                for (links, chain) in before.iter_mut().zip(&side.chains) {
                    *links = chain.clone().ok_or(Stop::NoCache)?;
                }
            } else if side.oldest().continues() {
                return Err(Stop::NoCache);
            }
            for step in &side.history {
                earlier.push(load(step)?);
            }
            if side.layout.is_none() {
                for (number, (_, _, ranges)) in earlier.iter().enumerate() {
                    if ranges.len() != sequences.len() {
                        return Err(Stop::Unusable("steps with different numbers of sequences".to_owned()));
                    }
                    before
                        .iter_mut()
                        .zip(ranges)
                        .for_each(|(links, rows)| links.push((number, rows.clone())));
                }
            }
        }
        let (mut x, mut r, mut ranges, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut count = 0;
        for (sequence, links) in sequences.iter().zip(&before) {
            let start = count;
            let mut take = |x_of: &Matrix, r_of: &Matrix, rows: &Range<usize>| {
                for row in rows.clone().filter(|&row| row < x_of.rows) {
                    x.extend_from_slice(x_of.row(row));
                    r.extend_from_slice(r_of.row(row));
                    count += 1;
                }
            };
            for (step, rows) in links {
                let (values, rates, _) = earlier.get(*step).ok_or(Stop::NoCache)?;
                take(&values.x, rates, rows);
            }
            take(&own.x, &rates, sequence);
            back.extend(sequence.clone().rev().enumerate().map(|(i, row)| (row, count - 1 - i)));
            ranges.push(start..count);
        }
        let joined = (Matrix::new(count, own.x.cols, x), Matrix::new(count, rates.cols, r));
        let y = ops::delta_rule(net, &stored, (&joined.0, &joined.1), &ranges, twist.delta, p);
        let mut out = Matrix::zeros(own.x.rows, y.cols);
        for (row, at) in back {
            out.row_mut(row).copy_from_slice(y.row(at));
        }
        Ok(out)
    }

    fn attention(
        &self,
        side: &Side,
        op: &Op,
        window: Option<usize>,
        sinks: Option<&str>,
        p: Precision,
        twist: &Twist,
    ) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("attention needs a config.json".into()))?;
        let mut form = config.attention.clone();
        let (heads, sequences, queries) = if side.layout.is_some() {
            self.gathered(side, op, config, p, twist)?
        } else {
            // A step that continues others attends to their keys and values.
            let first = side.oldest();
            let mut parts = Vec::new();
            if first.continues() {
                match self.cached(first, op, config)? {
                    Some(earlier) => parts.push(earlier),
                    None => self.starts(first, op, config)?,
                }
            }
            let mut start =
                parts.first().map_or(Vec::new(), |(_, ranges)| ranges.iter().map(Range::len).collect());
            for step in side.history.iter().chain([side]) {
                let part = self.heads(step, op, config, &start, p, twist)?;
                start.resize(part.1.len(), 0);
                start.iter_mut().zip(&part.1).for_each(|(start, range)| *start += range.len());
                parts.push(part);
            }
            let queries = parts[parts.len() - 1].1.clone();
            let (heads, sequences) = join(parts)?;
            (heads, sequences, queries)
        };
        let padding = side.padding(heads.k.rows);
        form.scale *= twist.scale;
        let mask = Mask {
            sequences: &sequences,
            queries: &queries,
            causal: form.causal && !twist.not_causal,
            window: twist.window.unwrap_or(window),
            padding: if twist.sees_padding { &[] } else { &padding },
            strict: twist.strict,
        };
        let mut sinks = sinks.map(|s| Weights(self.checkpoint).vector(s)).transpose()?;
        match (twist.sinks, &mut sinks) {
            (Some(Sinks::Missing), _) => sinks = None,
            (Some(Sinks::Rolled(by)), Some(all)) if by < all.len() => all.rotate_left(by),
            (Some(Sinks::Scaled), Some(all)) => all.iter_mut().for_each(|s| *s *= form.scale),
            (Some(Sinks::Binary), Some(all)) => {
                all.iter_mut().for_each(|s| *s *= std::f64::consts::LN_2);
            }
            _ => {}
        }
        if twist.no_cap {
            form.cap = None;
        }
        let mut heads = heads;
        for (x, (by, d)) in [&mut heads.q, &mut heads.k, &mut heads.v]
            .into_iter()
            .zip(twist.rolled.into_iter().zip([form.key_dim, form.key_dim, form.value_dim]))
        {
            if by > 0 {
                *x = Moved::Rolled(by * d).of(x);
            }
        }
        if let Some((format, [keys, values])) = twist.cache {
            let stored = |x: f64| format.decode(format.encode(x, Overflow::Saturate));
            if keys {
                heads.k = heads.k.map(stored);
            }
            if values {
                heads.v = heads.v.map(stored);
            }
        }
        Ok(ops::attention(&heads, &form, &mask, sinks.as_deref(), twist.tiled, p))
    }

    /// Heads of a step of an engine, whose sequences follow each other in one row, with the keys and values of their
    /// earlier tokens: all rows, and those of each sequence's keys and of its queries.
    fn gathered(
        &self,
        side: &Side,
        op: &Op,
        config: &ModelConfig,
        p: Precision,
        twist: &Twist,
    ) -> Result<Gathered, Stop> {
        let layout = side.layout.as_ref().ok_or(Stop::NoCache)?;
        let chains: Vec<&Vec<Link>> =
            side.chains.iter().map(|c| c.as_ref().ok_or(Stop::NoCache)).collect::<Result<_, _>>()?;
        let own = self.heads(side, op, config, &[], p, twist)?.0;
        if own.q.rows < layout.tokens() || own.k.rows < layout.tokens() {
            return Err(Stop::Unusable(format!("{} queries of {} tokens", own.q.rows, layout.tokens())));
        }
        let mut earlier: Vec<Option<Heads>> = Vec::new();
        for (i, step) in side.history.iter().enumerate() {
            let used = chains.iter().any(|links| links.iter().any(|link| link.0 == i));
            let heads = used.then(|| self.heads(step, op, config, &[], p, twist)).transpose()?;
            earlier.push(heads.map(|h| h.0));
        }
        let (mut k, mut v) = (Vec::new(), Vec::new());
        let (mut keys, mut queries) = (Vec::new(), Vec::new());
        let mut count = 0;
        let mut take = |heads: &Heads, rows: Range<usize>| {
            count += rows.len();
            for row in rows {
                k.extend_from_slice(heads.k.row(row));
                v.extend_from_slice(heads.v.row(row));
            }
            count
        };
        let mut start = 0;
        for (sequence, links) in layout.sequences.iter().zip(chains) {
            for (step, rows) in links {
                let Some(heads) = earlier[*step].as_ref().filter(|h| rows.end <= h.k.rows) else {
                    return Err(Stop::NoCache);
                };
                take(heads, rows.clone());
            }
            let end = take(&own, sequence.rows.clone());
            keys.push(start..end);
            queries.push(sequence.rows.clone());
            start = end;
        }
        let (k, v) = (Matrix::new(start, own.k.cols, k), Matrix::new(start, own.v.cols, v));
        Ok((Heads { q: own.q, k, v }, keys, queries))
    }

    /// Keys and values that the cache had before a step, as accuracy_dump.py writes them: `[sequences, heads, length, d]`.
    /// Of latent attention these are latents and rotated parts; the keys and values made of them are `kv_b_proj`'s.
    fn cached(&self, side: &Side, op: &Op, config: &ModelConfig) -> Result<Option<Sequences>, Stop> {
        let form = &config.attention;
        let load = |slots: &'static [&'static str]| {
            let place = Place::new(attention_module(op), Kind::Input, slots);
            side.load(&Site(vec![place])).map_err(Stop::Unusable)
        };
        let (Some(k), Some(v)) = (load(KEYS)?, load(VALUES)?) else { return Ok(None) };
        let (&[sequences, _, length], true) = (&k.lead[..], k.lead == v.lead) else {
            return Err(Stop::Unusable(format!("{} {:?}, {} {:?}", k.place, k.lead, v.place, v.lead)));
        };
        let ranges: Vec<Range<usize>> = (0..sequences).map(|s| s * length..(s + 1) * length).collect();
        let q = Matrix::zeros(0, form.heads * form.key_dim);
        let (k, v) = match form.mla {
            None => (tokens_first(&k), tokens_first(&v)),
            Some(mla) => {
                let kv = need(side, &op.inputs[1], Precision::Exact)?;
                let kv = kv.reshaped(form.heads * (mla.nope + form.value_dim)).map_err(Stop::Unusable)?.x;
                let own = own_rows(&kv, &ranges, &[])?;
                let mut rotated = tokens_first(&v);
                if self.rope_of(op).is_some_and(|r| r.style == RopeStyle::GptJ) {
                    pairs_together(&mut rotated);
                }
                expanded(form, mla, &rows_of(&kv, &own), &rotated)?
            }
        };
        let wide = |m: &Matrix, d: usize| m.cols == form.kv_heads * d;
        if !wide(&k, form.key_dim) || !wide(&v, form.value_dim) {
            return Err(Stop::Unusable(format!("a cache of {} and {} columns", k.cols, v.cols)));
        }
        Ok(Some((Heads { q, k, v }, ranges)))
    }

    /// Whether a step's tokens have none before them, though their positions do not begin at 0: by its mask `[.., queries,
    /// keys]`, or by the keys that latent attention makes. Where neither tells, it is supposed.
    fn starts(&self, side: &Side, op: &Op, config: &ModelConfig) -> Result<(), Stop> {
        let mask = side.shape(&Place::new(attention_module(op), Kind::Input, &["attention_mask"]));
        if let Some(&[.., queries, keys]) = mask {
            return if queries == keys { Ok(()) } else { Err(Stop::NoCache) };
        }
        if let Some(mla) = config.attention.mla {
            let width = config.attention.heads * (mla.nope + config.attention.value_dim);
            let rows = |site: &Site, width: usize| {
                let value = side.load(site).map_err(Stop::Unusable)?;
                Ok::<_, Stop>(value.map(|v| v.x.data.len() / width))
            };
            let keys = rows(&op.inputs[1], width)?;
            if let (Some(keys), Some(tokens)) = (keys, rows(&op.inputs[2], mla.kv_lora + mla.rope)?) {
                return if keys == tokens { Ok(()) } else { Err(Stop::NoCache) };
            }
        }
        side.suppose_alone();
        Ok(())
    }

    /// Rotated queries and keys, and values, of one step; and the rows of each sequence. `start`: how many tokens each
    /// sequence has before it, none where it is empty.
    fn heads(
        &self,
        side: &Side,
        op: &Op,
        config: &ModelConfig,
        start: &[usize],
        p: Precision,
        twist: &Twist,
    ) -> Result<(Heads, Vec<Range<usize>>), Stop> {
        let form = &config.attention;
        let q = tokens_before_heads(side, need(side, &op.inputs[0], p)?, form.heads);
        let token = Value { lead: q.lead.clone(), ..q.clone() };
        let mut q = q.reshaped(form.heads * form.key_dim).map_err(Stop::Unusable)?.x;
        let tokens = q.rows;
        let lead = match token.lead[..] {
            // `[sequences, length, heads]` of a norm by heads.
            [a, b, heads] if heads == form.heads => vec![a, b],
            _ => token.lead.clone(),
        };
        let sequences = side.sequences(&Value { lead, ..token });
        let own = self.rope_of(op);
        let style = twist.style.or(own.map(|r| r.style)).unwrap_or(RopeStyle::Neox);
        let style_k = twist.style_k.unwrap_or(style);
        let turn = |x: &mut Matrix, d: usize, range: Range<usize>, shift: f64, style| -> Result<(), Stop> {
            let Some(rope) = own else { return Ok(()) };
            let (cos, sin) = self.angles(side, op, rope, &sequences, tokens, shift, twist)?;
            let (cos, sin) = (p.apply(cos), p.apply(sin));
            if cos.cols < range.len() / 2 {
                return Err(Stop::Unusable(format!("{} angles for {} elements", cos.cols, range.len())));
            }
            ops::rotate(x, d, range, (&cos, &sin), style, p);
            Ok(())
        };
        let done = self.after_rotation(side, op, tokens)?;
        let Some(mla) = form.mla else {
            let read = |i: usize, d: usize| -> Result<Matrix, Stop> {
                let value = tokens_before_heads(side, need(side, &op.inputs[i], p)?, form.kv_heads);
                let value = value.reshaped(form.kv_heads * d).map_err(Stop::Unusable)?;
                match value.x.rows == tokens {
                    true => Ok(value.x),
                    false => Err(Stop::Unusable(format!(
                        "{}: {} rows, expected {tokens}",
                        value.place, value.x.rows
                    ))),
                }
            };
            let v = read(2, form.value_dim)?;
            if let Some([q, k]) = done {
                return Ok((Heads { q, k, v }, sequences));
            }
            let mut k = read(1, form.key_dim)?;
            let dims = twist.table.as_ref().or(own).map_or(0, |r| r.dims);
            let part = twist.part(dims, form.key_dim);
            if twist.norm_last {
                (q, k) =
                    (self.before_norm(side, op, "q_norm", &q)?, self.before_norm(side, op, "k_norm", &k)?);
            }
            if twist.rotate_q {
                turn(&mut q, form.key_dim, part.clone(), twist.q_shift, style)?;
            }
            if twist.rotate_k {
                turn(&mut k, form.key_dim, part, 0.0, style_k)?;
            }
            if twist.norm_last {
                (q, k) = (self.normed(op, "q_norm", &q, p)?, self.normed(op, "k_norm", &k, p)?);
            }
            return Ok((Heads { q, k, v }, sequences));
        };
        let kv = match need(side, &op.inputs[1], p) {
            // What attends to latents expands nothing: of an earlier step it is computed from the latents here.
            Err(Stop::Missing(_)) => {
                let module = attention_module(op);
                let latents = dumped(side, &Site::output(format!("{module}.kv_a_layernorm")))?;
                let latents = latents.reshaped(mla.kv_lora).map_err(Stop::Unusable)?.x;
                Weights(self.checkpoint).linear(&format!("{module}.kv_b_proj"), &latents, p)?.y
            }
            found => {
                let width = form.heads * (mla.nope + form.value_dim);
                found?.reshaped(width).map_err(Stop::Unusable)?.x
            }
        };
        let latent =
            need(side, &op.inputs[2], p)?.reshaped(mla.kv_lora + mla.rope).map_err(Stop::Unusable)?.x;
        if latent.rows != tokens || kv.rows < tokens {
            return Err(Stop::Unusable(format!("{tokens} queries, {} keys", kv.rows)));
        }
        // Rows behind the last token are a graph's of a fixed size.
        let own = match kv.rows == tokens {
            true => (0..tokens).collect(),
            false => own_rows(&kv, &sequences, start)?,
        };
        let mut rotated = latent.columns(mla.kv_lora..mla.kv_lora + mla.rope);
        let d = form.key_dim;
        if twist.rotate_q {
            turn(&mut q, d, mla.nope..d, twist.q_shift, style)?;
        }
        if twist.rotate_k {
            turn(&mut rotated, mla.rope, 0..mla.rope, 0.0, style_k)?;
            if style_k != style {
                // Scores take elements of queries and keys in one order.
                match style {
                    RopeStyle::GptJ => pairs_together(&mut rotated),
                    RopeStyle::Neox => pairs_apart(&mut rotated),
                }
            }
        }
        let (k, v) = expanded(form, mla, &rows_of(&kv, &own), &rotated)?;
        Ok((Heads { q, k, v }, sequences))
    }

    /// Queries or keys before their norm, shaped like those after it.
    fn before_norm(&self, side: &Side, op: &Op, norm: &str, like: &Matrix) -> Result<Matrix, Stop> {
        let value = dumped(side, &Site::input(format!("{}.{norm}", attention_module(op))))?;
        let value = value.reshaped(like.cols).map_err(Stop::Unusable)?;
        if value.x.rows == like.rows { Ok(value.x) } else { Err(Stop::Missing(format!("{norm} input"))) }
    }

    /// The norm of queries or keys.
    fn normed(&self, op: &Op, norm: &str, x: &Matrix, p: Precision) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("a norm needs a config.json".into()))?;
        let mut w = Weights(self.checkpoint).vector(&format!("{}.{norm}", attention_module(op)))?;
        if config.form.one_plus {
            w.iter_mut().for_each(|w| *w += 1.0);
        }
        if w.is_empty() || !x.cols.is_multiple_of(w.len()) {
            return Err(Stop::Unusable(format!("{norm} has {} values", w.len())));
        }
        Ok(ops::norm(x, &w, None, config.norm_eps, p))
    }

    fn rope_of(&self, op: &Op) -> Option<&Rope> {
        match &op.kind {
            OpKind::Attention { rope, .. } => self.config?.rope(*rope),
            OpKind::Rotate { rope } => self.config?.rope(Some(*rope)),
            _ => None,
        }
    }

    /// Queries and keys that an engine's dump has after the rotation.
    fn after_rotation(&self, side: &Side, op: &Op, tokens: usize) -> Result<Option<[Matrix; 2]>, Stop> {
        let OpKind::Attention { rotated, .. } = &op.kind else { return Ok(None) };
        let Some(form) = self.config.map(|c| &c.attention) else { return Ok(None) };
        let fits = |m: &Matrix, heads: usize| m.rows == tokens && m.cols == heads * form.key_dim;
        let [q, k] = &rotated[..] else { return Ok(None) };
        let load = |site: &Site| -> Result<Option<Matrix>, Stop> {
            let Some(value) = side.load(site).map_err(Stop::Unusable)? else { return Ok(None) };
            let cols = value.x.data.len() / tokens.max(1);
            Ok(Some(value.reshaped(cols).map_err(Stop::Unusable)?.x))
        };
        Ok(match (load(q)?, load(k)?) {
            (Some(q), Some(k)) if fits(&q, form.heads) && fits(&k, form.kv_heads) => Some([q, k]),
            _ => None,
        })
    }

    /// Cosines and sines for each token: those that the layer was given, else those of its positions.
    #[expect(clippy::too_many_arguments, reason = "one place that knows where angles may come from")]
    fn angles(
        &self,
        side: &Side,
        op: &Op,
        rope: &Rope,
        sequences: &[Range<usize>],
        tokens: usize,
        shift: f64,
        twist: &Twist,
    ) -> Result<(Matrix, Matrix), Stop> {
        let half = twist.table.as_ref().unwrap_or(rope).dims / 2;
        if shift == 0.0 && twist.table.is_none() && !twist.rounded {
            let given = |slot: Names, other: Names| {
                if self.config.is_some_and(|c| c.ropes.len() > 1) {
                    return Site::slot(attention_module(op), Kind::Input, slot);
                }
                Site(vec![
                    Place::new(attention_module(op), Kind::Input, slot),
                    Place::new("model.rotary_emb", Kind::Output, other),
                ])
            };
            let cos = side.load(&given(GIVEN_COS, &["0"])).map_err(Stop::Unusable)?;
            let sin = side.load(&given(GIVEN_SIN, &["1"])).map_err(Stop::Unusable)?;
            if let (Some(cos), Some(sin)) = (cos, sin)
                && cos.x.cols >= half
                && cos.x.rows > 0
                && tokens.is_multiple_of(cos.x.rows)
            {
                let spread = |m: &Matrix| {
                    let data = (0..tokens).flat_map(|t| m.row(t % m.rows)[..half].to_vec()).collect();
                    Matrix::new(tokens, half, data)
                };
                return Ok((spread(&cos.x), spread(&sin.x)));
            }
        }
        let rope = twist.table.as_ref().unwrap_or(rope);
        let recorded = |t: usize| match &side.positions {
            // One row of positions may be all sequences'.
            Some(p) if !p.is_empty() && tokens.is_multiple_of(p.len()) => Some(p[t % p.len()] as f64),
            _ => None,
        };
        let mut positions: Vec<f64> = (0..tokens).map(|t| recorded(t).unwrap_or(0.0) + shift).collect();
        for s in sequences {
            for t in s.clone().filter(|&t| t < tokens && recorded(t).is_none()) {
                positions[t] = (t - s.start) as f64 + shift;
            }
        }
        if twist.rounded {
            positions.iter_mut().for_each(|p| *p = rounded(*p));
        }
        let table = table(rope, &positions);
        Ok((table.columns(0..half), table.columns(half..2 * half)))
    }

    /// The mistakes that come closest to what a dump has for an operation that is wrong.
    pub fn causes(&self, side: &Side, plan: &Plan, op: &Op, judged: &Judged) -> Option<Cause> {
        match &op.kind {
            OpKind::Router { router, correction } => {
                return self.router_causes(side, op, router, correction.as_deref(), judged);
            }
            OpKind::RopeTable { rope } => return self.table_causes(side, op, *rope, judged),
            _ => {}
        }
        let out = dumped(side, &op.output).ok()?;
        let hidden = side.hidden(&out.lead);
        let has_bias = match &op.kind {
            OpKind::Linear { weight } => Weights(self.checkpoint).has(&format!("{weight}.bias")),
            _ => false,
        };
        let mut twists = twists(op, self.config, has_bias);
        twists.extend(self.other_places(plan, op, has_bias));
        if matches!(op.kind, OpKind::Experts { .. }) && !judged.through.is_empty() {
            // The choice is not in the dump, so that the mistake may be the router's.
            twists.iter_mut().for_each(|named| named.0 = Some("experts"));
            let layer = op.layer.and_then(|i| self.config?.layers.get(i)?.router.as_ref());
            let others = layer.filter(|r| !r.correction).map_or(Vec::new(), |r| other_routers(r));
            twists.extend(others.into_iter().map(|(detail, router)| {
                let twist = Twist { router: Some(router), ..Twist::default() };
                (Some("router"), detail.to_owned(), twist)
            }));
        }
        twists.extend(self.quantisers(op).first().into_iter().flat_map(other_quantisers));
        if twice(side, plan, op) {
            let detail = "the layer is executed twice".to_owned();
            return Some(Cause { op: None, detail, error: 0.0, explains: true });
        }
        let tried = twists.into_iter().filter_map(|(name, detail, twist)| {
            let twist = Twist { inputs: twist.inputs.or(judged.inputs), ..twist };
            let x = self.plain(side, op, Precision::Exact, &twist).ok()?;
            // Of logits, the rows that are asked for.
            let x = match &op.kind {
                OpKind::Linear { .. } => {
                    let all = Value::new(x, Vec::new(), out.precision, String::new());
                    last_rows(side, all, out.x.rows)
                }
                _ => x,
            };
            let value = Value::new(x, Vec::new(), out.precision, String::new());
            let out = same_shape(&value, out.clone()).ok()?;
            Some((name, detail, error_shown(&value.x, &out.x, &hidden)))
        });
        let mut tried: Vec<_> = tried.collect();
        let explained = tried.iter().any(|t| explains(t.2, judged));
        if !explained {
            let fitted = match &op.kind {
                OpKind::Linear { weight } => self.fitted(side, plan, op, weight, &out, judged),
                OpKind::Experts { .. } => self.mixed(side, op, &out, judged).unwrap_or_default(),
                _ => Vec::new(),
            };
            tried.extend(fitted.into_iter().map(|(detail, error)| (None, detail, error)));
        }
        best(tried.into_iter(), judged)
    }

    /// Values and biases of other modules that an operation may have taken for its own.
    fn other_places(&self, plan: &Plan, op: &Op, has_bias: bool) -> Vec<Named> {
        let none = Twist::default();
        let mut all: Vec<Named> = Vec::new();
        let Some(layer) = op.layer else { return all };
        let beside = || plan.ops.iter().filter(move |o| o.layer == Some(layer));
        if let OpKind::Linear { weight } = &op.kind {
            if has_bias {
                for name in
                    beside().filter_map(linear_of).filter(|w| *w != weight && parent(w) == parent(weight))
                {
                    let twist = Twist { bias_of: Some(name.to_owned()), ..none.clone() };
                    all.push((None, format!("the bias is {}'s", last(name)), twist));
                }
            }
            for norm in beside().filter(|o| matches!(o.kind, OpKind::Norm { .. })) {
                let before = Twist { instead: Some((0, norm.inputs[0].clone())), ..none.clone() };
                all.push((None, format!("its input is what {} norms, not yet normed", norm.name), before));
                let after = Twist { instead: Some((0, norm.output.clone())), ..none.clone() };
                all.push((None, format!("its input is the output of {}", norm.name), after));
            }
        }
        if let (OpKind::Sum { .. }, Some(scaling)) = (&op.kind, self.scaling(op)) {
            let all_of_it = Twist { scaled: Some(scaling), ..none.clone() };
            let detail =
                "the shared expert is multiplied with the scaling factor of the routing weights, too";
            all.push((None, detail.to_owned(), all_of_it));
            let again = Twist { late: Some(scaling), ..none.clone() };
            all.push((None, "the scaling factor of the routing weights is applied twice".to_owned(), again));
        }
        if let OpKind::Sum { .. } = &op.kind {
            for norm in beside().filter(|o| matches!(o.kind, OpKind::Norm { .. })) {
                for summand in 0..op.inputs.len() {
                    let detail = format!("summand {} is the output of {}", summand + 1, norm.name);
                    let twist = Twist { instead: Some((summand, norm.output.clone())), ..none.clone() };
                    all.push((None, detail, twist));
                }
            }
        }
        all
    }

    /// What the output of a product tells by itself.
    fn fitted(
        &self,
        side: &Side,
        plan: &Plan,
        op: &Op,
        weight: &str,
        out: &Value,
        judged: &Judged,
    ) -> Vec<(String, f64)> {
        let weights = Weights(self.checkpoint);
        let Ok(x) = need(side, &op.inputs[0], Precision::Exact) else { return Vec::new() };
        let hidden = side.hidden(&x.lead);
        let x = last_rows(side, x, out.x.rows);
        if x.rows != out.x.rows {
            return Vec::new();
        }
        let shown: Vec<usize> =
            (0..x.rows).filter(|&r| !hidden.get(r).copied().unwrap_or(false)).take(FITTED).collect();
        let (x, out) = (rows_of(&x, &shown), rows_of(&out.x, &shown));
        let taken = |x: &Matrix, scheme: Option<&Quant>| {
            scheme.map_or_else(|| x.clone(), |scheme| quantised(x, scheme, Precision::Exact))
        };
        let product = |name: &str, x: &Matrix| weights.linear(name, x, Precision::Exact).ok().map(|y| y.y);
        let head =
            self.config.map(|c| c.attention.key_dim).filter(|_| matches!(last(weight), "q_proj" | "k_proj"));
        // An output that is quantised badly does not tell how its input was.
        let schemes = self.quantisers(op);
        let mut all = Vec::new();
        for inputs in [judged.inputs].into_iter().chain(schemes.first().map(|q| Some(*q))) {
            let x = taken(&x, inputs.as_ref());
            let Some(exact) = product(weight, &x).filter(|y| y.cols == out.cols) else { continue };
            let siblings = plan.ops.iter().filter(|o| o.layer == op.layer && o.layer.is_some());
            let others = siblings
                .filter_map(linear_of)
                .filter(|w| *w != weight && parent(w) == parent(weight))
                .filter_map(|w| Some((last(w).to_owned(), product(w, &x)?)))
                .collect::<Vec<_>>();
            let product = Product {
                weights,
                weight,
                x: &x,
                inputs: inputs.as_ref(),
                exact: &exact,
                out: &out,
                others: &others,
                head,
                bound: judged.bound,
            };
            all.extend(product.fits());
        }
        all
    }

    /// What one expert did that explains the tokens that are wrong.
    fn mixed(&self, side: &Side, op: &Op, out: &Value, judged: &Judged) -> Option<Vec<(String, f64)>> {
        let OpKind::Experts { module, activation, experts } = &op.kind else { return None };
        let weights = Weights(self.checkpoint);
        let x = need(side, &op.inputs[0], Precision::Exact).ok()?.x;
        let ids = need_integers(side, &op.inputs[1]).ok()?;
        let w = need(side, &op.inputs[2], Precision::Exact).ok()?.x;
        let exact = self
            .plain(side, op, Precision::Exact, &Twist { inputs: judged.inputs, ..Twist::default() })
            .ok()?;
        if out.x.rows != exact.rows
            || out.x.cols != exact.cols
            || ids.len() != w.data.len()
            || w.rows != x.rows
        {
            return None;
        }
        let hidden = side.hidden(&out.lead);
        let apart = |r: usize| {
            let one = |m: &Matrix| Matrix::new(1, m.cols, m.row(r).to_vec());
            relative_error(&one(&exact), &one(&out.x))
        };
        // A row has its own noise.
        let bad = |r: &usize| !hidden.get(*r).copied().unwrap_or(false) && apart(*r) > 3.0 * judged.bound;
        let rows: Vec<usize> = (0..exact.rows).filter(bad).take(WRONG_TOKENS).collect();
        let wrong = (0..exact.rows).filter(bad).count();
        if rows.is_empty() {
            return None;
        }
        let k = w.cols;
        let chosen: Vec<Vec<(usize, f64)>> = rows
            .iter()
            .map(|&r| {
                (0..k).filter_map(|s| Some((usize::try_from(ids[r * k + s]).ok()?, w.row(r)[s]))).collect()
            })
            .collect();
        let (x, exact, out) = (rows_of(&x, &rows), rows_of(&exact, &rows), rows_of(&out.x, &rows));
        let mixed = Mixed { out: &out, exact: &exact, chosen: &chosen };
        let run = |module: &str, e: usize| -> Option<Matrix> {
            let expert = weights.expert(module, e).ok()?;
            let input = |x: &Matrix| {
                judged.inputs.map_or_else(|| x.clone(), |scheme| quantised(x, &scheme, Precision::Exact))
            };
            Some(expert.apply(&x, *activation, Precision::Exact, &input))
        };
        let tokens = |n: usize| if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
        let mut all = Vec::new();
        for expert in mixed.common() {
            let own = run(module, expert)?;
            let left_out = mixed.replaced(expert, &own, None);
            all.push((format!("expert {expert} is left out for {}", tokens(wrong)), left_out));
            if *experts <= MOST_EXPERTS {
                for other in (0..*experts).filter(|&e| e != expert) {
                    let error = mixed.replaced(expert, &own, Some(&run(module, other)?));
                    all.push((
                        format!("expert {expert} has the weights of expert {other} for {}", tokens(wrong)),
                        error,
                    ));
                }
            }
            for layer in op.layer.into_iter().flat_map(|i| [i.wrapping_sub(1), i + 1]) {
                let stored = op.layer.map(|i| module.replacen(&format!(".{i}."), &format!(".{layer}."), 1));
                if let Some(other) = stored.and_then(|module| run(&module, expert)) {
                    let error = mixed.replaced(expert, &own, Some(&other));
                    all.push((
                        format!("expert {expert} has the weights of layer {layer}'s expert {expert}"),
                        error,
                    ));
                }
            }
        }
        if *experts <= MOST_EXPERTS {
            for e in 0..*experts {
                let (error, factors) = mixed.on_top(&run(module, e)?);
                let had = |t: usize| chosen[t].iter().find(|c| c.0 == e).map_or(0.0, |c| c.1);
                let told = match () {
                    () if (0..rows.len()).all(|t| had(t) == 0.0) => {
                        format!(
                            "the output of expert {e} is added for {} that did not choose it",
                            tokens(wrong)
                        )
                    }
                    () if (0..rows.len()).all(|t| (factors[t] / had(t) - 1.0).abs() < 0.02) => {
                        format!("expert {e} is added twice for {}", tokens(wrong))
                    }
                    () => format!("expert {e} has another routing weight for {}", tokens(wrong)),
                };
                all.push((told, error));
            }
        }
        Some(all)
    }

    fn table_causes(&self, side: &Side, op: &Op, rope: usize, judged: &Judged) -> Option<Cause> {
        let own = self.rope(rope).ok()?;
        let (found, at) = self.given_table(side, op, own).ok()?;
        let hidden = side.hidden(&found.lead);
        let mut tried: Vec<(String, Matrix)> = Vec::new();
        for shift in [-1.0, 1.0] {
            let moved: Vec<f64> = at.iter().map(|p| p + shift).collect();
            tried.push((format!("positions are off by {shift}"), table(own, &moved)));
        }
        let near: Vec<f64> = at.iter().map(|&p| rounded(p)).collect();
        tried.push(("positions are rounded to bf16".to_owned(), table(own, &near)));
        let others = self.config.map_or(Vec::new(), |c| other_tables(c, own));
        let back = ("the sign of the sine is flipped".to_owned(), backwards(own));
        let all = others.into_iter().chain(tables(own)).chain(std::iter::once(back));
        tried.extend(all.map(|(detail, other)| (detail, table(&other, &at))));
        let tried = tried.into_iter().filter(|(_, made)| made.cols == found.x.cols);
        best(tried.map(|(detail, made)| (None, detail, error_shown(&made, &found.x, &hidden))), judged)
    }

    /// Cosines and sines of a dump beside each other, and the positions that they are of.
    fn given_table(&self, side: &Side, op: &Op, rope: &Rope) -> Result<(Value, Vec<f64>), Stop> {
        let cos = dumped(side, &op.output)?;
        let sine =
            |p: &Place| Place { slots: if p.slots == ["0"] { &["1"] } else { GIVEN_SIN }, ..p.clone() };
        let sin = dumped(side, &Site(op.output.0.iter().map(sine).collect()))?;
        let half = rope.dims / 2;
        if cos.x.cols < half || cos.x.cols != sin.x.cols || cos.x.rows != sin.x.rows {
            return Err(Stop::Unusable(format!("{}: {} columns, expected {half}", cos.place, cos.x.cols)));
        }
        let positions = positions(side, &op.inputs[0], cos.x.rows)?;
        let x = beside(&cos.x.columns(0..half), &sin.x.columns(0..half));
        Ok((Value { x, ..cos }, positions))
    }

    fn router_causes(
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

/// Whether nothing but noise is left of an error.
fn explains(error: f64, judged: &Judged) -> bool {
    error <= 1.5 * judged.bound && error < 0.5 * judged.error
}

/// The mistake that comes closest. It explains the error only if nothing but noise is left of it, and it is not worth
/// telling unless most of the error is gone. Of several that explain as much, none is more likely than another.
fn best(tried: impl Iterator<Item = (Option<&'static str>, String, f64)>, judged: &Judged) -> Option<Cause> {
    let mut tried: Vec<_> = tried.filter(|t| !t.2.is_nan()).collect();
    tried.sort_by(|a, b| a.2.total_cmp(&b.2));
    let (op, detail, error) = tried.first()?.clone();
    let explained = explains(error, judged);
    let alike = tried.iter().skip(1).filter(|t| explained && explains(t.2, judged) && t.2 <= ALIKE * error);
    let others: Vec<&str> = alike.map(|t| t.1.as_str()).take(2).collect();
    let detail = if others.is_empty() { detail } else { format!("{detail}, or {}", others.join(", or ")) };
    let cause = Cause { op, detail, error, explains: explained };
    (explained || error < CLOSE * judged.error).then_some(cause)
}

/// Mistakes whose results are off by no more than this many times of each other cannot be told apart.
const ALIKE: f64 = 1.05;
/// A mistake that leaves more than this of the error is not worth telling.
const CLOSE: f64 = 0.15;

/// Each sequence's last rows, where only so many are passed on: a head computes no others.
fn last_rows(side: &Side, from: Value, wanted: usize) -> Matrix {
    if wanted >= from.x.rows {
        return from.x;
    }
    let sequences = side.sequences(&from);
    let count = sequences.len().max(1);
    let (kept, rest) = (wanted / count, wanted % count);
    if rest > 0 || sequences.iter().any(|s| s.len() < kept) {
        return from.x;
    }
    let rows: Vec<usize> = sequences.into_iter().flat_map(|s| s.end - kept..s.end).collect();
    rows_of(&from.x, &rows)
}

fn same_shape(expected: &Value, found: Value) -> Result<Value, Stop> {
    if expected.x.data.len() != found.x.data.len() {
        return Err(Stop::Unusable(format!(
            "{} is {}x{}, {} is {}x{}",
            found.place, found.x.rows, found.x.cols, expected.place, expected.x.rows, expected.x.cols
        )));
    }
    found.reshaped(expected.x.cols.max(1)).map_err(Stop::Unusable)
}

/// A value by heads as rows of tokens. Some models norm heads that are before the tokens already.
fn tokens_before_heads(side: &Side, value: Value, heads: usize) -> Value {
    match value.lead[..] {
        [sequences, h, length] if h == heads && side.length == Some(length) && length != heads => {
            let lead = vec![sequences, length];
            Value { x: tokens_first(&value), lead, ..value }
        }
        _ => value,
    }
}

/// `[sequences, heads, length, d]` as rows of tokens.
fn tokens_first(value: &Value) -> Matrix {
    let &[sequences, heads, length] = &value.lead[..] else { return value.x.clone() };
    let d = value.x.cols;
    let mut out = Matrix::zeros(sequences * length, heads * d);
    for (row, from) in value.x.data.chunks_exact(d.max(1)).enumerate() {
        let (s, h, t) = (row / length / heads, row / length % heads, row % length);
        out.row_mut(s * length + t)[h * d..(h + 1) * d].copy_from_slice(from);
    }
    out
}

/// Rotated pairs as `(2i, 2i+1)`, from transformers' `(i, i + d/2)`, which it moves them to as it rotates them.
fn pairs_together(x: &mut Matrix) {
    let cols = x.cols.max(1);
    for row in x.data.chunks_exact_mut(cols) {
        let moved: Vec<f64> = (0..cols).map(|c| row[c / 2 + c % 2 * (cols / 2)]).collect();
        row.copy_from_slice(&moved);
    }
}

/// The other way round.
fn pairs_apart(x: &mut Matrix) {
    let cols = x.cols.max(1);
    for row in x.data.chunks_exact_mut(cols) {
        let half = (cols / 2).max(1);
        let moved: Vec<f64> = (0..cols).map(|c| row[c % half * 2 + c / half]).collect();
        row.copy_from_slice(&moved);
    }
}

/// The rows of latent attention's expanded keys and values that are of a step's tokens. With a cache, transformers
/// expands the latents of all positions again, and of a static one its empty places, too.
fn own_rows(kv: &Matrix, sequences: &[Range<usize>], start: &[usize]) -> Result<Vec<usize>, Stop> {
    let tokens = sequences.iter().map(Range::len).sum::<usize>();
    if kv.rows == tokens {
        return Ok((0..tokens).collect());
    }
    let per = kv.rows / sequences.len().max(1);
    let start = |s: usize| start.get(s).copied().unwrap_or(0);
    if kv.rows != per * sequences.len() || sequences.iter().enumerate().any(|(s, r)| start(s) + r.len() > per)
    {
        return Err(Stop::Unusable(format!("{tokens} queries, {} keys", kv.rows)));
    }
    let rows =
        sequences.iter().enumerate().flat_map(|(s, r)| s * per + start(s)..s * per + start(s) + r.len());
    Ok(rows.collect())
}

/// Keys and values of all heads from latent attention's: the part that is not rotated from `kv`, the rotated one the same
/// for all heads.
fn expanded(form: &Attention, mla: Mla, kv: &Matrix, rotated: &Matrix) -> Result<(Matrix, Matrix), Stop> {
    let (d, width) = (form.key_dim, mla.nope + form.value_dim);
    if rotated.rows != kv.rows || rotated.cols != mla.rope {
        return Err(Stop::Unusable(format!(
            "{}x{} rotated keys for {} tokens of {}",
            rotated.rows, rotated.cols, kv.rows, mla.rope
        )));
    }
    let mut k = Matrix::zeros(kv.rows, form.heads * d);
    let mut v = Matrix::zeros(kv.rows, form.heads * form.value_dim);
    for t in 0..kv.rows {
        for h in 0..form.heads {
            let from = &kv.row(t)[h * width..(h + 1) * width];
            let key = &mut k.row_mut(t)[h * d..(h + 1) * d];
            key[..mla.nope].copy_from_slice(&from[..mla.nope]);
            key[mla.nope..].copy_from_slice(rotated.row(t));
            let values = &mut v.row_mut(t)[h * form.value_dim..(h + 1) * form.value_dim];
            values.copy_from_slice(&from[mla.nope..]);
        }
    }
    Ok((k, v))
}

/// Heads of tokens, and which rows are a sequence.
type Sequences = (Heads, Vec<Range<usize>>);

/// All heads, and the rows of each sequence's keys and of its queries.
type Gathered = (Heads, Vec<Range<usize>>, Vec<Range<usize>>);

/// Keys and values of the steps of a generation one after the other in each sequence, with the queries of the last step;
/// and the rows of each sequence's keys.
fn join(parts: Vec<Sequences>) -> Result<Sequences, Stop> {
    let [.., (last, queries)] = &parts[..] else { unreachable!("a step at least") };
    if parts.iter().any(|p| p.1.len() != queries.len()) {
        return Err(Stop::Unusable("steps of one generation with different numbers of sequences".to_owned()));
    }
    let (mut sequences, mut order) = (Vec::new(), Vec::new());
    for s in 0..queries.len() {
        let start = order.len();
        for (step, (_, ranges)) in parts.iter().enumerate() {
            order.extend(ranges[s].clone().map(|row| (step, row)));
        }
        sequences.push(start..order.len());
    }
    let gather = |of: &dyn Fn(&Heads) -> &Matrix| {
        let cols = of(last).cols;
        let data = order.iter().flat_map(|&(step, row)| of(&parts[step].0).row(row).to_vec()).collect();
        Matrix::new(order.len(), cols, data)
    };
    Ok((Heads { q: last.q.clone(), k: gather(&|h| &h.k), v: gather(&|h| &h.v) }, sequences))
}

fn positions(side: &Side, site: &Site, rows: usize) -> Result<Vec<f64>, Stop> {
    match side.integers(site).map_err(Stop::Unusable)? {
        Some((ids, _)) if ids.len() == rows => Ok(ids.iter().map(|&i| i as f64).collect()),
        _ => Ok(match &side.positions {
            Some(all) if !all.is_empty() && rows.is_multiple_of(all.len()) => {
                (0..rows).map(|i| all[i % all.len()] as f64).collect()
            }
            Some(all) if rows > 0 && all.len().is_multiple_of(rows) => {
                all[..rows].iter().map(|&p| p as f64).collect()
            }
            _ => (0..rows).map(|i| i as f64).collect(),
        }),
    }
}

fn table(rope: &Rope, positions: &[f64]) -> Matrix {
    let rows = positions.iter().flat_map(|&p| {
        let (cos, sin) = rope.angles(p);
        cos.into_iter().chain(sin)
    });
    Matrix::new(positions.len(), rope.dims / 2 * 2, rows.collect())
}

fn beside(a: &Matrix, b: &Matrix) -> Matrix {
    let data =
        (0..a.rows).flat_map(|r| a.row(r).iter().chain(b.row(r)).copied().collect::<Vec<_>>()).collect();
    Matrix::new(a.rows, a.cols + b.cols, data)
}

/// Other tables than the configuration's.
fn tables(rope: &Rope) -> Vec<(String, Rope)> {
    let mut tables = Vec::new();
    let rounded = rope.inv_freq.iter().map(|&f| Precision::BF16.round(f)).collect();
    tables.push(("frequencies are rounded to bf16".to_owned(), Rope { inv_freq: rounded, ..rope.clone() }));
    let plain = Rope { inv_freq: rope::plain(rope.dims, rope.theta), factor: 1.0, ..rope.clone() };
    if plain.inv_freq != rope.inv_freq {
        tables.push(("frequencies are not scaled as the configuration says".to_owned(), plain));
    }
    if rope.factor != 1.0 {
        let without = Rope { factor: 1.0, ..rope.clone() };
        tables.push(("the attention factor of cosines and sines is missing".to_owned(), without));
        let twice = Rope { factor: rope.factor.powi(2), ..rope.clone() };
        tables.push(("the attention factor of cosines and sines is applied twice".to_owned(), twice));
    }
    for theta in [1e3, 1e4, 1e5, 1.5e5, 5e5, 1e6, 1e7].into_iter().filter(|&t| t != rope.theta) {
        let ratio: Vec<f64> =
            rope.inv_freq.iter().zip(rope::plain(rope.dims, rope.theta)).map(|(a, b)| a / b).collect();
        let inv_freq = rope::plain(rope.dims, theta).iter().zip(ratio).map(|(f, r)| f * r).collect();
        let theta_text = format!("theta {theta:e} in place of {:e}", rope.theta);
        tables.push((theta_text, Rope { theta, inv_freq, ..rope.clone() }));
    }
    tables
}

/// Columns that are not where they should be, or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// Each two neighbours are exchanged.
    Pairs,
    /// Of so many equal parts this one is left out.
    Without { parts: usize, index: usize },
    /// So many equal parts are in the opposite order.
    Backwards(usize),
    /// All columns are those of so many further on.
    Rolled(usize),
}

impl Moved {
    fn of(self, x: &Matrix) -> Matrix {
        let cols = x.cols;
        let from = |c: usize| match self {
            Moved::Pairs => Some(c ^ 1).filter(|&c| c < cols),
            Moved::Without { parts, index } => Some(c).filter(|c| c / (cols / parts).max(1) != index),
            Moved::Backwards(parts) => {
                let size = (cols / parts).max(1);
                Some((parts - 1 - (c / size).min(parts - 1)) * size + c % size)
            }
            Moved::Rolled(by) => Some((c + by) % cols.max(1)),
        };
        let row =
            |r: usize| (0..cols).map(move |c| from(c).filter(|&c| c < cols).map_or(0.0, |c| x.row(r)[c]));
        Matrix::new(x.rows, cols, (0..x.rows).flat_map(row).collect())
    }
}

/// Mistakes with the logits of sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sinks {
    Missing,
    /// Each head has that of so many further on.
    Rolled(usize),
    /// They are multiplied with the scale of the scores.
    Scaled,
    /// Two to the power of them is taken in place of e.
    Binary,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Norm {
    NoWeight,
    Skipped,
    OnePlus,
    Eps(f64),
    Centred,
    NoBias,
    /// By groups of so many columns in place of all together.
    Grouped(usize),
}

/// A mistake in an operation.
#[derive(Clone, Debug)]
struct Twist {
    /// The weight is another layer's.
    layer: Option<usize>,
    norm: Option<Norm>,
    /// The weight is this one.
    weight: Option<String>,
    /// Each row is made of the row before it.
    other_rows: bool,
    /// Experts are chosen by this router.
    router: Option<Router>,
    /// This summand is added twice.
    twice: Option<usize>,
    /// The factor of a sum is not applied.
    unscaled: bool,
    /// Experts have the weights of those so many further on.
    next_expert: usize,
    /// The routing weights of a token's experts are those of the expert before.
    rolled_slots: bool,
    /// Routing weights are applied to the experts' input.
    weighs_input: bool,
    /// How often the bias is added; of experts, those of the first products and that of the last.
    bias: f64,
    bias_down: f64,
    /// The bias is this module's.
    bias_of: Option<String>,
    /// A product, or a summand's number of a sum, takes its value from here.
    instead: Option<(usize, Site)>,
    /// Before they are quantised, inputs are cut off at this share of what their scale is for.
    clip: f64,
    /// All of the input has one scale, so many times as large as it need be.
    static_scale: Option<f64>,
    /// The gate of an output is not applied.
    no_gate: bool,
    /// A step begins with an empty state.
    no_state: bool,
    delta: Option<ops::DeltaMistake>,
    /// Routing weights lack this factor still: what they make is multiplied with it in the sum with the shared expert.
    late: Option<f64>,
    /// A sum is multiplied with this.
    scaled: Option<f64>,
    /// Experts of this part of so many are left out.
    without_experts: Option<(usize, usize)>,
    /// Positions are rounded to bf16.
    rounded: bool,
    /// Queries and keys are normed after the rotation.
    norm_last: bool,
    /// Pairs of keys alone.
    style_k: Option<RopeStyle>,
    /// Other elements of a product's input are read, or of its output written.
    read: Option<Moved>,
    written: Option<Moved>,
    /// The heads of queries, of keys and of values are those of so many further on.
    rolled: [usize; 3],
    /// A token does not see itself, but for the first.
    strict: bool,
    sees_padding: bool,
    no_cap: bool,
    /// Keys, values or both are stored in this format.
    cache: Option<(DType, [bool; 2])>,
    sinks: Option<Sinks>,
    swapped: bool,
    alike: bool,
    activation: Option<Activation>,
    only: Option<usize>,
    /// How inputs are quantised, which is no mistake.
    inputs: Option<Quant>,
    /// The other half of the head is rotated.
    second_half: bool,
    style: Option<RopeStyle>,
    table: Option<Rope>,
    q_shift: f64,
    rotate_q: bool,
    rotate_k: bool,
    scale: f64,
    not_causal: bool,
    window: Option<Option<usize>>,
    tiled: bool,
}

impl Default for Twist {
    fn default() -> Twist {
        Twist {
            layer: None,
            norm: None,
            router: None,
            twice: None,
            unscaled: false,
            next_expert: 0,
            rolled_slots: false,
            weighs_input: false,
            weight: None,
            other_rows: false,
            bias: 1.0,
            bias_down: 1.0,
            bias_of: None,
            instead: None,
            clip: 1.0,
            static_scale: None,
            no_gate: false,
            no_state: false,
            delta: None,
            late: None,
            scaled: None,
            without_experts: None,
            rounded: false,
            norm_last: false,
            style_k: None,
            read: None,
            written: None,
            rolled: [0; 3],
            strict: false,
            sees_padding: false,
            no_cap: false,
            cache: None,
            sinks: None,
            swapped: false,
            alike: false,
            activation: None,
            only: None,
            inputs: None,
            second_half: false,
            style: None,
            table: None,
            q_shift: 0.0,
            rotate_q: true,
            rotate_k: true,
            scale: 1.0,
            not_causal: false,
            window: None,
            tiled: false,
        }
    }
}

impl Twist {
    /// The elements of a head of `d` that are rotated.
    fn part(&self, dims: usize, d: usize) -> Range<usize> {
        if self.second_half { d - dims..d } else { 0..dims }
    }

    /// What a product takes of its input.
    fn taken(&self, x: &Matrix, scheme: Quant, p: Precision) -> Matrix {
        let largest = |values: &[f64]| values.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        if let Some(factor) = self.static_scale {
            let scale = factor * largest(&x.data) / scheme.max;
            return match scale > 0.0 {
                true => quantised(x, &Quant::tensor(scheme.dtype).max(scheme.max).static_scale(scale), p),
                false => x.clone(),
            };
        }
        if self.clip == 1.0 {
            return quantised(x, &scheme, p);
        }
        let size = match scheme.granularity {
            Granularity::Group(n) => n,
            _ => x.cols,
        };
        let mut cut = x.clone();
        for row in cut.data.chunks_exact_mut(x.cols.max(1)) {
            for group in row.chunks_mut(size.max(1)) {
                let limit = self.clip * largest(group);
                group.iter_mut().for_each(|v| *v = v.clamp(-limit, limit));
            }
        }
        quantised(&cut, &scheme, p)
    }

    /// The name of a weight in the layer that it is taken of.
    fn of_layer(&self, op: &Op, weight: &str) -> String {
        if let Some(other) = &self.weight {
            return other.clone();
        }
        match (op.layer, self.layer) {
            (Some(own), Some(other)) => weight.replacen(&format!(".{own}."), &format!(".{other}."), 1),
            _ => weight.to_owned(),
        }
    }
}

/// One summand of a value that engines pass as two.
fn summand(site: &Site, which: usize) -> Site {
    let parts = site.0.iter().filter(|p| !p.plus.is_empty());
    let one = parts.map(|p| match which {
        0 => Place { plus: &[], ..p.clone() },
        _ => Place { slots: p.plus, plus: &[], ..p.clone() },
    });
    Site(one.collect())
}

type Named = (Option<&'static str>, String, Twist);

/// Tokens that a fit takes: more tell no more, and columns are many.
const FITTED: usize = 64;
/// Tokens with wrong experts that are looked into.
const WRONG_TOKENS: usize = 12;
/// Of more experts than these, only those that wrong tokens chose are looked into.
const MOST_EXPERTS: usize = 64;

/// How many experts an operation chooses from.
fn experts_of(op: &Op) -> usize {
    match op.kind {
        OpKind::Experts { experts, .. } => experts,
        _ => 0,
    }
}

/// The weight of a product.
fn linear_of(op: &Op) -> Option<&str> {
    match &op.kind {
        OpKind::Linear { weight } => Some(weight),
        _ => None,
    }
}

fn parent(module: &str) -> &str {
    module.rsplit_once('.').map_or("", |m| m.0)
}

/// The name of a module without its path.
fn last(module: &str) -> &str {
    module.rsplit_once('.').map_or(module, |m| m.1)
}

/// Whether the modules of an operation's layer ran twice in the pass, and those of no other layer.
fn twice(side: &Side, plan: &Plan, op: &Op) -> bool {
    let again = |layer: usize| {
        let norms =
            plan.ops.iter().filter(|o| o.layer == Some(layer) && matches!(o.kind, OpKind::Norm { .. }));
        let called = norms
            .filter_map(|o| o.output.0.first())
            .map(|p| Site(vec![Place { call: 1, calls: None, ..p.clone() }]));
        called.into_iter().any(|site| matches!(side.load(&site), Ok(Some(_))))
    };
    let layers = || 0..plan.modules.len();
    matches!(op.kind, OpKind::Sum { .. })
        && op.layer.is_some_and(|own| again(own) && layers().filter(|&l| l != own).all(|l| !again(l)))
}

/// Mistakes that an operation of this kind is known for.
fn twists(op: &Op, config: Option<&ModelConfig>, has_bias: bool) -> Vec<Named> {
    let none = Twist::default();
    let plain = |detail: &str, twist: Twist| (None, detail.to_owned(), twist);
    let layers = 0..if op.layer.is_some() { config.map_or(0, |c| c.layers.len()) } else { 0 };
    let of_layer = |layer: usize| format!("the weight is layer {layer}'s");
    match &op.kind {
        OpKind::Norm { weight, bias, eps, one_plus, .. } => {
            let norm = |n| Twist { norm: Some(n), ..none.clone() };
            let gain = if *one_plus { "w in place of 1 + w" } else { "1 + w in place of w" };
            let mut all = vec![
                plain("the weight is not applied", norm(Norm::NoWeight)),
                plain(&format!("the weight is applied as {gain}"), norm(Norm::OnePlus)),
                plain("nothing is normed", norm(Norm::Skipped)),
                plain("the residual is not added before the norm", Twist { only: Some(0), ..none.clone() }),
                plain("the residual alone is normed", Twist { only: Some(1), ..none.clone() }),
            ];
            for (detail, other) in config.map_or(Vec::new(), |c| other_gains(c, op.layer, weight)) {
                all.push(plain(&detail, Twist { weight: Some(other), ..none.clone() }));
            }
            if bias.is_some() {
                all.push(plain("the bias is missing", norm(Norm::NoBias)));
            }
            if let Some(d) =
                config.filter(|c| c.attention.qk_norm == QkNorm::Whole).map(|c| c.attention.key_dim)
                && ["q_norm", "k_norm"].contains(&last(weight))
            {
                all.push(plain("each head is normed by itself, not all together", norm(Norm::Grouped(d))));
            }
            if bias.is_none() {
                all.push(plain("the mean is subtracted, as LayerNorm does", norm(Norm::Centred)));
            }
            for layer in layers.filter(|&l| Some(l) != op.layer) {
                all.push(plain(&of_layer(layer), Twist { layer: Some(layer), ..none.clone() }));
            }
            for other in [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3].into_iter().filter(|e| e != eps) {
                all.push(plain(&format!("epsilon {other:e} in place of {eps:e}"), norm(Norm::Eps(other))));
            }
            all
        }
        OpKind::Linear { .. } => {
            let mut all = Vec::new();
            if has_bias {
                all.push(plain("the bias is missing", Twist { bias: 0.0, ..none.clone() }));
                for times in [2u8, 4, 8] {
                    let detail = format!("the bias is added {times} times, as if once a rank");
                    all.push(plain(&detail, Twist { bias: f64::from(times), ..none.clone() }));
                }
            }
            all.push(plain(
                "pairs of the input's columns are exchanged, as if the two values of a byte were",
                Twist { read: Some(Moved::Pairs), ..none.clone() },
            ));
            all.push(plain(
                "each row is made of the row before it",
                Twist { other_rows: true, ..none.clone() },
            ));
            for parts in [2, 4, 8] {
                for index in 0..parts {
                    let detail =
                        format!("part {} of {parts} of the sum is missing, as if a rank's", index + 1);
                    let read = Some(Moved::Without { parts, index });
                    all.push(plain(&detail, Twist { read, ..none.clone() }));
                }
                let detail =
                    format!("{parts} parts of the output are in the opposite order, as if ranks' parts were");
                all.push(plain(&detail, Twist { written: Some(Moved::Backwards(parts)), ..none.clone() }));
            }
            // A product is dear, so only the neighbours are tried.
            let near = op.layer.map_or(0..0, |own| own.saturating_sub(1)..own + 2);
            for layer in layers.filter(|l| near.contains(l) && Some(*l) != op.layer) {
                all.push(plain(&of_layer(layer), Twist { layer: Some(layer), ..none.clone() }));
            }
            all
        }
        OpKind::Gated(a) | OpKind::Activation(a) | OpKind::Experts { activation: a, .. } => {
            let with = |activation| Twist { activation: Some(activation), ..none.clone() };
            let mut all = vec![plain("gate and up are swapped", Twist { swapped: true, ..none.clone() })];
            if let Activation::Clamped { alpha, limit, plus } = *a {
                let clamped = |alpha, limit, plus| with(Activation::Clamped { alpha, limit, plus });
                all.push(plain("alpha is 1", clamped(1.0, limit, plus)));
                all.push(plain("nothing is clamped", clamped(alpha, f64::INFINITY, plus)));
                all.push(plain("up is taken in place of up + 1", clamped(alpha, limit, 0.0)));
            } else if matches!(op.kind, OpKind::Activation(_)) {
                let quick = Activation::Clamped { alpha: 1.702, limit: f64::INFINITY, plus: 0.0 };
                all.push(plain("the activation is x * sigmoid(1.702 x), quick GELU", with(quick)));
            }
            for (name, other) in [
                ("SiLU", Activation::Silu),
                ("GELU", Activation::Gelu),
                ("GELU (tanh)", Activation::GeluTanh),
                ("ReLU", Activation::Relu),
            ] {
                if other != *a {
                    all.push(plain(&format!("the activation is {name}"), with(other)));
                }
            }
            if matches!(op.kind, OpKind::Experts { .. }) {
                all.push(plain("the routing weights are not applied", Twist { alike: true, ..none.clone() }));
                all.push(plain(
                    "the routing weights are applied to the experts' input",
                    Twist { weighs_input: true, ..none.clone() },
                ));
                all.push(plain(
                    "the routing weights of a token's experts are in another order",
                    Twist { rolled_slots: true, ..none.clone() },
                ));
                all.push(plain(
                    "each expert has the weights of the one behind it",
                    Twist { next_expert: 1, ..none.clone() },
                ));
                for parts in [2, 4, 8].into_iter().filter(|p| experts_of(op).is_multiple_of(*p)) {
                    for index in 0..parts {
                        let size = experts_of(op) / parts;
                        let (first, last) = (index * size, (index + 1) * size - 1);
                        let detail = format!("experts {first} to {last} are missing, as if a rank's");
                        let twist = Twist { without_experts: Some((parts, index)), ..none.clone() };
                        all.push(plain(&detail, twist));
                    }
                }
                for index in 0..2 {
                    let read = Some(Moved::Without { parts: 2, index });
                    let detail = format!(
                        "half {} of the experts' inner columns is missing, as if a rank's",
                        index + 1
                    );
                    all.push(plain(&detail, Twist { read, ..none.clone() }));
                }
                all.push(plain("the experts' biases are missing", Twist { bias: 0.0, ..none.clone() }));
                all.push(plain("the experts' biases are added twice", Twist { bias: 2.0, ..none.clone() }));
                for times in [0u8, 2, 4, 8] {
                    let detail = match times {
                        0 => "the bias of the experts' down_proj is missing".to_owned(),
                        n => format!(
                            "the bias of the experts' down_proj is added {n} times, as if once a rank"
                        ),
                    };
                    all.push(plain(&detail, Twist { bias_down: f64::from(times), ..none.clone() }));
                }
            }
            all
        }
        OpKind::Sum { scale } => {
            let count = op.inputs.len();
            let mut all = Vec::new();
            for i in 0..count {
                let only = Twist { only: Some(i), ..none.clone() };
                all.push(plain(&format!("only summand {} of {count} is there", i + 1), only));
                let twice = Twist { twice: Some(i), ..none.clone() };
                all.push(plain(&format!("summand {} of {count} is added twice", i + 1), twice));
            }
            if *scale != 1.0 {
                all.push(plain("the multiplier is missing", Twist { unscaled: true, ..none.clone() }));
            }
            all
        }
        OpKind::Attention { window, sinks, rope, gate, .. } => {
            let rope = config.and_then(|c| c.rope(*rope));
            let mut all = attention_twists(*window, sinks.is_some(), config, rope);
            if *gate {
                all.push(plain("the gate of the output is not applied", Twist { no_gate: true, ..none }));
            }
            all
        }
        OpKind::Rotate { rope } => {
            config.and_then(|c| c.rope(Some(*rope))).map_or(Vec::new(), rotation_twists)
        }
        OpKind::Embedding { scale, .. } if *scale != 1.0 => {
            vec![plain("the multiplier is missing", Twist { unscaled: true, ..none })]
        }
        OpKind::Embedding { .. } | OpKind::RopeTable { .. } | OpKind::Router { .. } | OpKind::Copy => {
            Vec::new()
        }
        OpKind::FirstHalves { .. } => Vec::new(),
        OpKind::Delta { .. } => {
            let with = |mistake| Twist { delta: Some(mistake), ..none.clone() };
            vec![
                plain("beta is taken without its sigmoid", with(ops::DeltaMistake::RawRate)),
                plain("queries and keys are not normed to length 1", with(ops::DeltaMistake::NotNormed)),
                plain("the state does not decay", with(ops::DeltaMistake::NoDecay)),
                plain(
                    "what a key already recalls is not taken off its value",
                    with(ops::DeltaMistake::NoCorrection),
                ),
                plain(
                    "the activation behind the convolution is missing",
                    with(ops::DeltaMistake::NoActivation),
                ),
                plain("the convolution sees the present token alone", with(ops::DeltaMistake::NoConvolution)),
                plain("the state of the passes before is not carried on", Twist { no_state: true, ..none }),
            ]
        }
        OpKind::GatedNorm { .. } => {
            let norm = |n| Twist { norm: Some(n), ..none.clone() };
            vec![
                plain("the gate is not applied", Twist { no_gate: true, ..none.clone() }),
                plain("the weight is not applied", norm(Norm::NoWeight)),
                plain("the weight is applied as 1 + w in place of w", norm(Norm::OnePlus)),
                plain("nothing is normed", norm(Norm::Skipped)),
            ]
        }
        OpKind::Blend => vec![
            plain("the gate of the shared expert is not applied", Twist { no_gate: true, ..none.clone() }),
            plain("the shared expert is missing", Twist { only: Some(0), ..none.clone() }),
            plain("the routed experts are missing", Twist { only: Some(1), ..none.clone() }),
            plain("the shared expert is added twice", Twist { twice: Some(1), ..none }),
        ],
        OpKind::Logits { scale, cap } => {
            let mut all = Vec::new();
            if cap.is_some() {
                all.push(plain("the soft cap is missing", Twist { no_cap: true, ..none.clone() }));
            }
            if *scale != 1.0 {
                all.push(plain("the multiplier is missing", Twist { unscaled: true, ..none.clone() }));
            }
            all
        }
    }
}

/// Routers with a known mistake.
fn other_routers(router: &Router) -> Vec<(&'static str, Router)> {
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

/// Ways of quantising an input that are not the configuration's.
fn other_quantisers(scheme: &Quant) -> Vec<Named> {
    let mut all: Vec<(String, Quant)> = Vec::new();
    for (format, max) in [(DType::E5M2, 57344.0), (DType::E4M3Fn, 448.0), (DType::I8, 127.0)] {
        if format != scheme.dtype {
            let detail =
                format!("inputs are quantised to {} in place of {}", format.name(), scheme.dtype.name());
            all.push((detail, Quant { dtype: format, ..*scheme }.max(max)));
        }
    }
    for (what, other) in [
        ("one scale for the whole input", Quant::tensor(scheme.dtype)),
        ("one scale for each token", Quant::token(scheme.dtype)),
    ] {
        let other = other.max(scheme.max);
        if other.granularity != scheme.granularity && scheme.static_scale.is_none() {
            all.push((format!("inputs are quantised with {what}"), other));
        }
    }
    all.retain(|(_, scheme)| scheme.problem().is_none());
    let none = Twist::default();
    let mut all: Vec<Named> =
        all.into_iter().map(|(d, q)| (None, d, Twist { inputs: Some(q), ..none.clone() })).collect();
    for clip in [0.5, 0.25] {
        let detail =
            format!("the scales of the input are {clip} of what they should be: large values are clipped");
        all.push((None, detail, Twist { inputs: Some(*scheme), clip, ..none.clone() }));
    }
    for factor in [1.0, 2.0, 4.0, 8.0, 16.0] {
        let detail = format!("the input has one scale, {factor} times as large as its largest value needs");
        all.push((None, detail, Twist { inputs: Some(*scheme), static_scale: Some(factor), ..none.clone() }));
    }
    all
}

/// Weights of other norms that may be taken for one: of the same layer, of q for k, of the last layer for the final one.
fn other_gains(config: &ModelConfig, layer: Option<usize>, own: &str) -> Vec<(String, String)> {
    let Some(index) = layer.or(config.layers.len().checked_sub(1)) else { return Vec::new() };
    let at = format!("{}.layers.{index}", config.form.prefix);
    let n = config.form.norms;
    let around = [n.before_attention, n.after_attention, n.before_mlp, n.after_mlp];
    let mut names: Vec<String> = around.into_iter().flatten().map(|name| format!("{at}.{name}")).collect();
    if own.ends_with("q_norm") || own.ends_with("k_norm") {
        names = ["q_norm", "k_norm"].map(|name| format!("{at}.self_attn.{name}")).to_vec();
    } else {
        names.push(format!("{}.norm", config.form.prefix));
    }
    names.retain(|name| name != own);
    names.into_iter().map(|name| (format!("the weight is {name}'s"), name)).collect()
}

/// Mistakes of a rotation that is an operation by itself.
fn rotation_twists(rope: &Rope) -> Vec<Named> {
    let none = Twist::default();
    let other = match rope.style {
        RopeStyle::Neox => (RopeStyle::GptJ, "pairs (2i, 2i+1) in place of (i, i+d/2)"),
        RopeStyle::GptJ => (RopeStyle::Neox, "pairs (i, i+d/2) in place of (2i, 2i+1)"),
    };
    let mut all = vec![
        (None, other.1.to_owned(), Twist { style: Some(other.0), ..none.clone() }),
        (None, "nothing is rotated".to_owned(), Twist { rotate_q: false, ..none.clone() }),
        (
            None,
            "the sign of the sine is flipped".to_owned(),
            Twist { table: Some(backwards(rope)), ..none.clone() },
        ),
    ];
    for shift in [-1.0, 1.0] {
        all.push((None, format!("positions are off by {shift}"), Twist { q_shift: shift, ..none.clone() }));
    }
    for (detail, table) in tables(rope).into_iter().chain(shorter(rope)) {
        all.push((None, detail, Twist { table: Some(table), ..none.clone() }));
    }
    all.push((None, "positions are rounded to bf16".to_owned(), Twist { rounded: true, ..none }));
    all
}

/// Angles of the other sign.
fn backwards(rope: &Rope) -> Rope {
    Rope { inv_freq: rope.inv_freq.iter().map(|f| -f).collect(), ..rope.clone() }
}

fn attention_twists(
    window: Option<usize>,
    sinks: bool,
    config: Option<&ModelConfig>,
    rope: Option<&Rope>,
) -> Vec<Named> {
    let none = Twist::default();
    let mut all: Vec<Named> = Vec::new();
    let mut attention = |detail: String, twist: Twist| all.push((None, detail, twist));
    let Some(config) = config else { return all };
    let form = &config.attention;
    if form.causal {
        attention("the causal mask is missing".into(), Twist { not_causal: true, ..none.clone() });
        attention("a token does not see itself".into(), Twist { strict: true, ..none.clone() });
    }
    attention("padding is attended to".into(), Twist { sees_padding: true, ..none.clone() });
    if form.cap.is_some() {
        attention("the soft cap of the scores is missing".into(), Twist { no_cap: true, ..none.clone() });
    }
    if form.heads > 1 {
        for by in 1..form.heads.min(MOST_HEADS) {
            let detail = format!("heads of queries are those {by} further on");
            attention(detail, Twist { rolled: [by, 0, 0], ..none.clone() });
        }
    }
    if form.kv_heads > 1 {
        for by in 1..form.kv_heads.min(MOST_HEADS) {
            for (what, rolled) in
                [("keys", [0, by, 0]), ("values", [0, 0, by]), ("keys and values", [0, by, by])]
            {
                let detail = format!("heads of {what} are those {by} further on");
                attention(detail, Twist { rolled, ..none.clone() });
            }
        }
    }
    for format in [DType::E4M3Fn, DType::E4M3Fnuz, DType::E5M2] {
        for (what, which) in [
            ("keys and values are", [true, true]),
            ("keys are", [true, false]),
            ("values are", [false, true]),
        ] {
            let detail = format!("{what} rounded to {} without a scale", format.name());
            attention(detail, Twist { cache: Some((format, which)), ..none.clone() });
        }
    }
    if form.kv_heads > 1 && form.kv_heads < form.heads {
        let detail = "query head h uses key head h % kv_heads (tiled) in place of h / group";
        attention(detail.into(), Twist { tiled: true, ..none.clone() });
    }
    let others: BTreeSet<usize> = config.layers.iter().filter_map(|l| l.window).collect();
    for w in others.into_iter().filter(|w| Some(*w) != window) {
        let twist = Twist { window: Some(Some(w)), ..none.clone() };
        attention(format!("a window of {w} is applied, as in other layers"), twist);
    }
    if let Some(w) = window {
        for other in [w - 1, w + 1, 2 * w] {
            let twist = Twist { window: Some(Some(other)), ..none.clone() };
            attention(format!("the window is {other} in place of {w}"), twist);
        }
        attention("the sliding window is ignored".into(), Twist { window: Some(None), ..none.clone() });
    }
    if sinks {
        for (detail, sinks) in [
            ("the sinks are ignored", Sinks::Missing),
            ("the sinks are multiplied with the scale of the scores", Sinks::Scaled),
            ("two to the power of the sinks is taken in place of e", Sinks::Binary),
        ] {
            attention(detail.into(), Twist { sinks: Some(sinks), ..none.clone() });
        }
        for by in 1..form.heads.min(MOST_HEADS) {
            let twist = Twist { sinks: Some(Sinks::Rolled(by)), ..none.clone() };
            attention(format!("the sinks of heads are those of heads {by} further on"), twist);
        }
    }
    let d = form.key_dim as f64;
    let mut scales = vec![
        ("the scores are not scaled".to_owned(), 1.0 / form.scale),
        ("the scores are scaled by 1/d".to_owned(), 1.0 / (d * form.scale)),
    ];
    if (form.scale * d.sqrt() - 1.0).abs() > 1e-9 {
        scales.push(("YaRN's mscale of the scores is missing".to_owned(), 1.0 / (form.scale * d.sqrt())));
    }
    let (plain, heads) = (config.hidden / form.heads.max(1), form.heads);
    if form.mla.is_none() && plain > 0 && plain != form.key_dim {
        let wrong = (plain as f64).powf(-0.5) / form.scale;
        scales.push((format!("the scores are scaled for heads of hidden / {heads}, {plain}"), wrong));
    }
    if let Some(mla) = form.mla {
        let wrong = (mla.nope as f64).powf(-0.5) / d.powf(-0.5);
        scales.push(("the scores are scaled for the part without rotation".to_owned(), wrong));
    }
    for (detail, scale) in scales {
        attention(detail, Twist { scale, ..none.clone() });
    }
    let Some(rope) = rope else { return all };
    let mut rope_twist = |detail: &str, twist: Twist| all.push((Some("rope"), detail.to_owned(), twist));
    let other = match rope.style {
        RopeStyle::Neox => (RopeStyle::GptJ, "pairs (2i, 2i+1) in place of (i, i+d/2)"),
        RopeStyle::GptJ => (RopeStyle::Neox, "pairs (i, i+d/2) in place of (2i, 2i+1)"),
    };
    rope_twist(other.1, Twist { style: Some(other.0), ..none.clone() });
    for shift in [-1.0, 1.0] {
        rope_twist(
            &format!("positions of queries are off by {shift}"),
            Twist { q_shift: shift, ..none.clone() },
        );
    }
    rope_twist("the sign of the sine is flipped", Twist { table: Some(backwards(rope)), ..none.clone() });
    if rope.dims < form.key_dim {
        rope_twist("the other end of each head is rotated", Twist { second_half: true, ..none.clone() });
    }
    rope_twist("queries are not rotated", Twist { rotate_q: false, ..none.clone() });
    rope_twist("keys are not rotated", Twist { rotate_k: false, ..none.clone() });
    rope_twist(
        "neither queries nor keys are rotated",
        Twist { rotate_q: false, rotate_k: false, ..none.clone() },
    );
    for (detail, table) in tables(rope).into_iter().chain(other_tables(config, rope)) {
        rope_twist(&detail, Twist { table: Some(table), ..none.clone() });
    }
    // Of latent attention the rotated elements are a part of their own.
    for (detail, table) in shorter(rope).into_iter().filter(|_| form.mla.is_none()) {
        rope_twist(&detail, Twist { table: Some(table), ..none.clone() });
    }
    rope_twist("positions are rounded to bf16", Twist { rounded: true, ..none.clone() });
    if form.mla.is_some() {
        rope_twist(&format!("keys alone: {}", other.1), Twist { style_k: Some(other.0), ..none.clone() });
    }
    if form.qk_norm == QkNorm::Head {
        rope_twist("queries and keys are normed after the rotation", Twist { norm_last: true, ..none });
    }
    all
}

/// The rotary embeddings of the model's other layers.
fn other_tables(config: &ModelConfig, own: &Rope) -> Vec<(String, Rope)> {
    let others = config.ropes.iter().filter(|r| *r != own && r.dims == own.dims);
    others.map(|r| ("the table is that of other layers".to_owned(), r.clone())).collect()
}

/// Rotations of the first half of the elements that should be rotated.
fn shorter(rope: &Rope) -> Vec<(String, Rope)> {
    let dims = rope.dims / 2;
    if dims < 2 || !dims.is_multiple_of(2) {
        return Vec::new();
    }
    let own = rope.inv_freq[..dims / 2].to_vec();
    let table = |inv_freq: Vec<f64>| Rope { dims, inv_freq, ..rope.clone() };
    vec![
        (
            format!("only the first {dims} elements of each head are rotated, with frequencies of {dims}"),
            table(rope::plain(dims, rope.theta)),
        ),
        (format!("only the first {dims} elements of each head are rotated"), table(own)),
    ]
}

/// Heads that are tried to be others: all of a usual number.
const MOST_HEADS: usize = 16;

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
