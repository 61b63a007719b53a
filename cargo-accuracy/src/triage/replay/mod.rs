//! Replays operations of the plan from a dump's own inputs, and tries known mistakes on those that are wrong.

mod attention;
mod causes;
mod delta;
mod indexer;
mod mistakes;
mod operations;
mod rope;
mod router;
mod state;

use super::judge::{Judged, Ranks, judge_hidden, judge_shown, rows_of};
use super::side::{Computed, Side};
use super::value::{Held, Value};
use accuracy_core::model::inputs::quantised;
use accuracy_core::model::ops::{Precision, StateMistake, Weights};
use accuracy_core::model::{ModelConfig, Op, OpKind, Sharing, Site};
use accuracy_core::quant::Quant;
use accuracy_core::reference::Matrix;
use accuracy_core::weights::Checkpoint;
use mistakes::Mistake;

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
            OpKind::Indexer(indexer) => return self.indexer(side, op, *indexer),
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
                if op.last && !self.whole
                    || matches!(op.kind, OpKind::Rotate { .. } | OpKind::UnitNorm { .. }) =>
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
        // Implementations differ in whether time steps have a lower limit.
        if let (OpKind::State { .. }, false) = (&op.kind, best.ok) {
            let mistake = Mistake { state: Some(StateMistake::NoLimit), ..Mistake::default() };
            let out = dumped(side, &op.output)?;
            if self.holds(side, op, out, &mistake)? {
                best.ok = true;
                best.notes.clear();
            }
        }
        if let Some(scaling) = self.scaling(op).filter(|_| !best.ok) {
            let mistake = Mistake { late: Some(scaling), inputs: best.inputs, ..Mistake::default() };
            let out = dumped(side, &op.output)?;
            best.late = self.holds(side, op, out, &mistake)?;
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
    fn holds(&self, side: &Side, op: &Op, out: Value, mistake: &Mistake) -> Result<bool, Stop> {
        let p = within(side, op, out.precision);
        let exact = self.plain(side, op, Precision::Exact, mistake)?;
        let noisy = self.plain(side, op, p, mistake)?;
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
        let p = within(side, op, out.precision);
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
        // A copy is the same bit for bit, unless it is made narrower.
        let copied = op.kind == OpKind::Copy && through.is_empty() && noisy.data == exact.x.data;
        let unit = if copied { 0.0 } else { p.unit() };
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
                self.plain(side, op, p, &Mistake { inputs, ..Mistake::default() })
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
}

/// The format that an operation rounds to. What is scanned is kept in float32, made of values that are not.
fn within(side: &Side, op: &Op, out: Precision) -> Precision {
    match op.kind {
        OpKind::State { .. } | OpKind::GatedNorm { .. } if side.precision.unit() > out.unit() => {
            side.precision
        }
        _ => out,
    }
}

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
