//! Replays operations of the plan from a dump's own inputs, and tries known mistakes on those that are wrong.

use super::cache::{KEYS, VALUES, attention_module};
use super::judge::{Judged, error_shown, judge, judge_hidden, judge_shown, relative_error, rows_of};
use super::side::{Side, Value};
use accuracy_core::dumps::Kind;
use accuracy_core::model::config::{Attention, Mla};
use accuracy_core::model::ops::{self, Heads, Mask, Precision, Weights};
use accuracy_core::model::plan::{GIVEN_COS, GIVEN_SIN};
use accuracy_core::model::{Activation, ModelConfig, Op, OpKind, Place, Rope, Router, Score, Site, rope};
use accuracy_core::reference::Matrix;
use accuracy_core::reference::model::RopeStyle;
use accuracy_core::weights::Checkpoint;
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
#[derive(Debug)]
pub struct Replay<'a> {
    pub checkpoint: &'a Checkpoint,
    pub config: Option<&'a ModelConfig>,
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
            OpKind::RopeTable => return self.rope_table(side, op),
            OpKind::Router { router, correction } => {
                return self.router(side, op, router, correction.as_deref());
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
            // Logits are the end: nothing is made of them.
            Err(Stop::Missing(what)) if op.name != "lm_head" => {
                let (exact, noisy, extra) = self.computed(side, op, side.precision)?;
                side.keep(index, op, exact, noisy, &extra);
                return Err(Stop::Missing(what));
            }
            out => out?,
        };
        let p = out.precision;
        let (exact, noisy, extra) = self.computed(side, op, p)?;
        let exact =
            Value { x: exact, lead: Vec::new(), precision: p, place: format!("the replay of {}", op.name) };
        let hidden = side.hidden(&out.lead);
        let out = same_shape(&exact, out)?;
        let hidden = if hidden.len() == out.x.rows { hidden } else { Vec::new() };
        let through = side.through();
        let unit = if op.kind == OpKind::Copy && through.is_empty() { 0.0 } else { p.unit() };
        let mut judged = judge_shown([&exact.x, &noisy, &out.x], unit, &extra, &hidden);
        // A query that sees nothing may well give NaN.
        if !matches!(op.kind, OpKind::Attention { .. }) {
            judge_hidden(&mut judged, &exact.x, &out.x, &hidden);
        }
        Ok(Judged { through, alone: side.is_alone(), ..judged })
    }

    /// The exact result, the one with rounding, and each row's error from accumulation in f32.
    fn computed(&self, side: &Side, op: &Op, p: Precision) -> Result<(Matrix, Matrix, Vec<f64>), Stop> {
        let (exact, noisy, mut extra) = if let OpKind::Linear { weight } = &op.kind {
            let weights = Weights(self.checkpoint);
            let x = need(side, &op.inputs[0], Precision::Exact)?.x;
            let exact = weights.linear(weight, &x, Precision::Exact)?;
            // Weights that are stored wider than the model computes are rounded on loading.
            let noisy = weights.linear(weight, &need(side, &op.inputs[0], p)?.x, p)?.y;
            let extra = (0..x.rows).map(|r| {
                let size = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
                let y = size(exact.y.row(r));
                if y > 0.0 { Precision::F32.unit() * size(x.row(r)) * exact.weight_norm / y } else { 0.0 }
            });
            let extra: Vec<f64> = extra.collect();
            (exact.y, noisy, extra)
        } else {
            let run = |p: Precision| self.plain(side, op, p, &Twist::default());
            let exact = run(Precision::Exact)?;
            let unit = if op.kind == OpKind::Copy { 0.0 } else { 16.0 * Precision::F32.unit() };
            let extra = vec![unit; exact.rows];
            (exact, run(p)?, extra)
        };
        let inherited = side.inherited();
        extra.iter_mut().for_each(|e| *e += inherited);
        Ok((exact, noisy, extra))
    }

    /// An operation with a mistake in it, or with none.
    fn plain(&self, side: &Side, op: &Op, p: Precision, twist: &Twist) -> Result<Matrix, Stop> {
        let weights = Weights(self.checkpoint);
        Ok(match &op.kind {
            OpKind::Embedding { weight } => {
                let ids = match need_integers(side, &op.inputs[0]) {
                    Ok(ids) => ids,
                    Err(_) => {
                        side.tokens().map_err(Stop::Unusable)?.ok_or(Stop::Missing("token ids".into()))?
                    }
                };
                p.apply(weights.rows(weight, &ids)?)
            }
            OpKind::Norm { weight, bias, eps, width } => {
                let x = need(side, &op.inputs[0], p)?.x;
                let mut w = weights.vector(&twist.of_layer(op, weight))?;
                let bias = bias.as_ref().map(|b| weights.vector(b)).transpose()?;
                if w.is_empty() || x.data.len() % w.len() != 0 || width.is_some_and(|n| n != w.len()) {
                    return Err(Stop::Unusable(format!(
                        "{weight} has {} values, its input {:?}",
                        w.len(),
                        x.cols
                    )));
                }
                match twist.norm {
                    Some(Norm::NoWeight) => w.fill(1.0),
                    Some(Norm::OnePlus) => w.iter_mut().for_each(|w| *w += 1.0),
                    _ => {}
                }
                let eps = if let Some(Norm::Eps(eps)) = twist.norm { eps } else { *eps };
                let zeros = vec![0.0; w.len()];
                let centred = twist.norm == Some(Norm::Centred);
                let bias = if centred { Some(&zeros[..]) } else { bias.as_deref() };
                ops::norm(&x, &w, bias, eps, p)
            }
            OpKind::Linear { weight } => {
                let x = need(side, &op.inputs[0], p)?.x;
                let mut y = weights.linear(&twist.of_layer(op, weight), &x, p)?.y;
                if twist.no_bias
                    && let Ok(bias) = weights.vector(&format!("{weight}.bias"))
                {
                    y.data.chunks_exact_mut(bias.len()).for_each(|row| {
                        row.iter_mut().zip(&bias).for_each(|(v, b)| *v -= b);
                    });
                }
                y
            }
            OpKind::Attention { window, sinks } => {
                self.attention(side, op, *window, sinks.as_deref(), p, twist)?
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
                let indices = need_integers(side, &op.inputs[1])?;
                let mut w = need(side, &op.inputs[2], p)?.x;
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
                let activation = twist.activation.unwrap_or(*activation);
                let expert = |e: usize| -> Result<_, accuracy_core::weights::WeightsError> {
                    let mut expert = weights.expert(module, e)?;
                    if twist.swapped {
                        std::mem::swap(&mut expert.gate, &mut expert.up);
                    }
                    if twist.no_bias {
                        expert.biases = None;
                    }
                    expert.gate = p.apply(expert.gate);
                    expert.up = p.apply(expert.up);
                    expert.down = p.apply(expert.down);
                    Ok(expert)
                };
                ops::experts(&x, &indices, &w, *experts, activation, p, expert)?
            }
            OpKind::Sum => {
                let mut sum = need(side, &op.inputs[0], p)?;
                if let Some(only) = twist.only {
                    return Ok(need(side, &op.inputs[only], p)?.x);
                }
                for input in &op.inputs[1..] {
                    let next = same_shape(&sum, need(side, input, p)?)?;
                    sum.x.data.iter_mut().zip(&next.x.data).for_each(|(a, b)| *a = p.round(*a + b));
                }
                sum.x
            }
            OpKind::Copy => {
                let from = need(side, &op.inputs[0], p)?;
                match side.load(&op.output).map_err(Stop::Unusable)? {
                    Some(out) => last_rows(side, from, &out),
                    None => from.x,
                }
            }
            OpKind::RopeTable | OpKind::Router { .. } => {
                return Err(Stop::Unusable(format!("{} has no replay of this kind", op.name)));
            }
        })
    }

    fn rope(&self) -> Result<&Rope, Stop> {
        let rope = self.config.and_then(|c| c.rope.as_ref());
        rope.ok_or_else(|| Stop::Unusable("the configuration describes no rotary embedding".into()))
    }

    /// Cosines and sines beside each other, against those of the configuration.
    fn rope_table(&self, side: &Side, op: &Op) -> Result<Judged, Stop> {
        let rope = self.rope()?;
        let cos = dumped(side, &op.output)?;
        let sine =
            |p: &Place| Place { slots: if p.slots == ["0"] { &["1"] } else { &[GIVEN_SIN] }, ..p.clone() };
        let sin = dumped(side, &Site(op.output.0.iter().map(sine).collect()))?;
        let half = rope.dims / 2;
        if cos.x.cols < half || cos.x.cols != sin.x.cols || cos.x.rows != sin.x.rows {
            return Err(Stop::Unusable(format!("{}: {} columns, expected {half}", cos.place, cos.x.cols)));
        }
        let positions = positions(side, &op.inputs[0], cos.x.rows)?;
        let p = cos.precision;
        let exact = table(rope, &positions);
        let found = beside(&cos.x.columns(0..half), &sin.x.columns(0..half));
        let noisy = p.apply(exact.clone());
        // Angles are products in f32, so that an error of a unit in the angle shows in cosine and sine.
        let extra = positions.iter().map(|p| 4.0 * Precision::F32.unit() * (1.0 + p)).collect::<Vec<_>>();
        let hidden = side.hidden(&cos.lead);
        let mut judged = judge_shown([&exact, &noisy, &found], p.unit(), &extra, &hidden);
        if !judged.ok
            && let Some(cause) = best(
                tables(rope).into_iter().map(|(detail, other)| {
                    (None, detail, relative_error(&table(&other, &positions), &found))
                }),
                judged.bound,
            )
            && cause.explains
        {
            judged.notes.insert(0, cause.detail);
        }
        Ok(judged)
    }

    fn router(
        &self,
        side: &Side,
        op: &Op,
        router: &Router,
        correction: Option<&str>,
    ) -> Result<Judged, Stop> {
        let (logits, indices, out) = self.routed(side, op)?;
        let correction = correction.map(|name| Weights(self.checkpoint).vector(name)).transpose()?;
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
            let tie = || {
                let leaning = lean(&logits, t, &chosen);
                let again = ops::route(router, &leaning, correction.as_deref(), Precision::Exact);
                chosen == sorted(&again.indices)
            };
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
        let mut judged = judge(&expected, &noisy, &found, p.unit(), &extra);
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
        if ties > 0 {
            judged.notes.push(format!("{ties} of {tokens} tokens are near ties that rounding decides"));
        }
        Ok(judged)
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
        let padding = side.padding(heads.k.rows);
        form.scale *= twist.scale;
        let mask = Mask {
            sequences: &sequences,
            queries: &queries,
            causal: form.causal && !twist.not_causal,
            window: twist.window.unwrap_or(window),
            padding: &padding,
        };
        let sinks =
            sinks.filter(|_| !twist.no_sinks).map(|s| Weights(self.checkpoint).vector(s)).transpose()?;
        Ok(ops::attention(&heads, &form, &mask, sinks.as_deref(), twist.tiled, p))
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
                if config.rope.as_ref().is_some_and(|r| r.style == RopeStyle::GptJ) {
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
        let q = need(side, &op.inputs[0], p)?;
        let token = Value { lead: q.lead.clone(), ..q.clone() };
        let mut q = q.reshaped(form.heads * form.key_dim).map_err(Stop::Unusable)?.x;
        let tokens = q.rows;
        let lead = match token.lead[..] {
            // `[sequences, length, heads]` of a norm by heads.
            [a, b, heads] if heads == form.heads => vec![a, b],
            _ => token.lead.clone(),
        };
        let sequences = side.sequences(&Value { lead, ..token });
        let style = twist.style.or(config.rope.as_ref().map(|r| r.style)).unwrap_or(RopeStyle::Neox);
        let turn = |x: &mut Matrix, d: usize, range: Range<usize>, shift: f64| -> Result<(), Stop> {
            let Some(rope) = &config.rope else { return Ok(()) };
            let (cos, sin) = self.angles(side, op, rope, &sequences, tokens, shift, twist)?;
            let (cos, sin) = (p.apply(cos), p.apply(sin));
            ops::rotate(x, d, range, (&cos, &sin), style, p);
            Ok(())
        };
        let Some(mla) = form.mla else {
            let read = |i: usize, d: usize| -> Result<Matrix, Stop> {
                let value =
                    need(side, &op.inputs[i], p)?.reshaped(form.kv_heads * d).map_err(Stop::Unusable)?;
                match value.x.rows == tokens {
                    true => Ok(value.x),
                    false => Err(Stop::Unusable(format!(
                        "{}: {} rows, expected {tokens}",
                        value.place, value.x.rows
                    ))),
                }
            };
            let (mut k, v) = (read(1, form.key_dim)?, read(2, form.value_dim)?);
            let dims = config.rope.as_ref().map_or(0, |r| r.dims);
            if twist.rotate_q {
                turn(&mut q, form.key_dim, 0..dims, twist.q_shift)?;
            }
            if twist.rotate_k {
                turn(&mut k, form.key_dim, 0..dims, 0.0)?;
            }
            return Ok((Heads { q, k, v }, sequences));
        };
        let kv = need(side, &op.inputs[1], p)?
            .reshaped(form.heads * (mla.nope + form.value_dim))
            .map_err(Stop::Unusable)?
            .x;
        let latent =
            need(side, &op.inputs[2], p)?.reshaped(mla.kv_lora + mla.rope).map_err(Stop::Unusable)?.x;
        if latent.rows != tokens || kv.rows < tokens {
            return Err(Stop::Unusable(format!("{tokens} queries, {} keys", kv.rows)));
        }
        let own = own_rows(&kv, &sequences, start)?;
        let mut rotated = latent.columns(mla.kv_lora..mla.kv_lora + mla.rope);
        let d = form.key_dim;
        if twist.rotate_q {
            turn(&mut q, d, mla.nope..d, twist.q_shift)?;
        }
        if twist.rotate_k {
            turn(&mut rotated, mla.rope, 0..mla.rope, 0.0)?;
        }
        let (k, v) = expanded(form, mla, &rows_of(&kv, &own), &rotated)?;
        Ok((Heads { q, k, v }, sequences))
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
        let half = rope.dims / 2;
        if shift == 0.0 && twist.table.is_none() {
            let given = |slot: &'static [&'static str], other: &'static [&'static str]| {
                Site(vec![
                    Place::new(attention_module(op), Kind::Input, slot),
                    Place::new("model.rotary_emb", Kind::Output, other),
                ])
            };
            let cos = side.load(&given(&[GIVEN_COS], &["0"])).map_err(Stop::Unusable)?;
            let sin = side.load(&given(&[GIVEN_SIN], &["1"])).map_err(Stop::Unusable)?;
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
        let positions: Vec<f64> = sequences
            .iter()
            .flat_map(|s| s.clone().map(|t| recorded(t).unwrap_or((t - s.start) as f64) + shift))
            .collect();
        let table = table(rope, &positions);
        Ok((table.columns(0..half), table.columns(half..2 * half)))
    }

    /// The mistakes that come closest to what a dump has for an operation that is wrong.
    pub fn causes(&self, side: &Side, op: &Op, judged: &Judged) -> Option<Cause> {
        if let OpKind::Router { router, correction } = &op.kind {
            return self.router_causes(side, op, router, correction.as_deref(), judged.bound);
        }
        let out = dumped(side, &op.output).ok()?;
        let hidden = side.hidden(&out.lead);
        let twists = twists(op, self.config);
        let tried = twists.into_iter().filter_map(|(name, detail, twist)| {
            let x = self.plain(side, op, Precision::Exact, &twist).ok()?;
            let value = Value { x, lead: Vec::new(), precision: out.precision, place: String::new() };
            let out = same_shape(&value, out.clone()).ok()?;
            Some((name, detail, error_shown(&value.x, &out.x, &hidden)))
        });
        best(tried, judged.bound).filter(|c| c.explains || c.error < 0.5 * judged.error)
    }

    fn router_causes(
        &self,
        side: &Side,
        op: &Op,
        router: &Router,
        correction: Option<&str>,
        bound: f64,
    ) -> Option<Cause> {
        let (logits, indices, out) =
            self.routed(side, op).ok().filter(|found| found.2.x.cols == router.topk)?;
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
        let mut tries: Vec<(&str, Router, Option<&[f64]>)> = Vec::new();
        let right = correction.as_deref();
        let with = |change: &dyn Fn(&mut Router)| {
            let mut r = router.clone();
            change(&mut r);
            r
        };
        tries.push(("the correction bias is ignored", router.clone(), None));
        tries.push(("groups are ignored", with(&|r| r.groups = None), right));
        tries.push((
            "weights are renormalised or not, the other way round",
            with(&|r| r.renormalise = !r.renormalise),
            right,
        ));
        tries.push(("the scaling factor is missing", with(&|r| r.scaling = 1.0), right));
        tries.push(("softmax in place of sigmoid", with(&|r| r.score = Score::Softmax), right));
        tries.push(("sigmoid in place of softmax", with(&|r| r.score = Score::Sigmoid), right));
        let tries = tries.into_iter().filter(|(_, r, c)| r != router || c.is_some() != right.is_some());
        let tried = tries.map(|(detail, r, c)| {
            let choice = ops::route(&r, &logits.x, c, Precision::Exact);
            let error = error_shown(&dense(&choice.indices, &choice.weights), &found, &hidden);
            (None, detail.to_owned(), error)
        });
        best(tried, bound)
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

/// One token's logits, moved towards a choice by as much as rounding may have: the chosen up, the others down.
fn lean(logits: &Value, token: usize, chosen: &[i64]) -> Matrix {
    let unit = 2.0 * logits.precision.unit();
    let moved = logits.x.row(token).iter().enumerate().map(|(e, &v)| {
        let towards = if chosen.contains(&(e as i64)) { 1.0 } else { -1.0 };
        v + towards * unit * v.abs().max(1.0)
    });
    Matrix::new(1, logits.x.cols, moved.collect())
}

fn best(tried: impl Iterator<Item = (Option<&'static str>, String, f64)>, bound: f64) -> Option<Cause> {
    let (op, detail, error) = tried.min_by(|a, b| a.2.total_cmp(&b.2))?;
    Some(Cause { op, detail, error, explains: error <= 1.5 * bound })
}

/// Each sequence's last rows, where only so many are passed on: a head computes no others.
fn last_rows(side: &Side, from: Value, to: &Value) -> Matrix {
    let sequences = side.sequences(&from);
    let (kept, rest) = (to.x.rows / sequences.len(), to.x.rows % sequences.len());
    if from.x.cols != to.x.cols
        || to.x.rows >= from.x.rows
        || rest > 0
        || sequences.iter().any(|s| s.len() < kept)
    {
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
        _ => Ok((0..rows).map(|i| i as f64).collect()),
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Norm {
    NoWeight,
    OnePlus,
    Eps(f64),
    Centred,
}

/// A mistake in an operation.
#[derive(Clone, Debug)]
struct Twist {
    /// The weight is another layer's.
    layer: Option<usize>,
    norm: Option<Norm>,
    no_bias: bool,
    swapped: bool,
    alike: bool,
    activation: Option<Activation>,
    only: Option<usize>,
    style: Option<RopeStyle>,
    table: Option<Rope>,
    q_shift: f64,
    rotate_q: bool,
    rotate_k: bool,
    scale: f64,
    not_causal: bool,
    window: Option<Option<usize>>,
    no_sinks: bool,
    tiled: bool,
}

impl Default for Twist {
    fn default() -> Twist {
        Twist {
            layer: None,
            norm: None,
            no_bias: false,
            swapped: false,
            alike: false,
            activation: None,
            only: None,
            style: None,
            table: None,
            q_shift: 0.0,
            rotate_q: true,
            rotate_k: true,
            scale: 1.0,
            not_causal: false,
            window: None,
            no_sinks: false,
            tiled: false,
        }
    }
}

impl Twist {
    /// The name of a weight in the layer that it is taken of.
    fn of_layer(&self, op: &Op, weight: &str) -> String {
        match (op.layer, self.layer) {
            (Some(own), Some(other)) => weight.replacen(&format!(".{own}."), &format!(".{other}."), 1),
            _ => weight.to_owned(),
        }
    }
}

type Named = (Option<&'static str>, String, Twist);

/// Mistakes that an operation of this kind is known for.
fn twists(op: &Op, config: Option<&ModelConfig>) -> Vec<Named> {
    let none = Twist::default();
    let plain = |detail: &str, twist: Twist| (None, detail.to_owned(), twist);
    let layers = 0..if op.layer.is_some() { config.map_or(0, |c| c.layers.len()) } else { 0 };
    let of_layer = |layer: usize| format!("the weight is layer {layer}'s");
    match &op.kind {
        OpKind::Norm { bias, eps, .. } => {
            let norm = |n| Twist { norm: Some(n), ..none.clone() };
            let mut all = vec![
                plain("the weight is not applied", norm(Norm::NoWeight)),
                plain("the weight is applied as 1 + w", norm(Norm::OnePlus)),
            ];
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
            let mut all = vec![plain("the bias is missing", Twist { no_bias: true, ..none.clone() })];
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
            if let Activation::Clamped { alpha, limit } = *a {
                let clamped = |alpha, limit| with(Activation::Clamped { alpha, limit });
                all.push(plain("alpha is 1", clamped(1.0, limit)));
                all.push(plain("nothing is clamped", clamped(alpha, f64::INFINITY)));
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
                all.push(plain("the experts' biases are missing", Twist { no_bias: true, ..none }));
            }
            all
        }
        OpKind::Sum => (0..op.inputs.len())
            .map(|i| {
                let detail = format!("only summand {} of {} is there", i + 1, op.inputs.len());
                plain(&detail, Twist { only: Some(i), ..none.clone() })
            })
            .collect(),
        OpKind::Attention { window, sinks } => attention_twists(*window, sinks.is_some(), config),
        OpKind::Embedding { .. } | OpKind::RopeTable | OpKind::Router { .. } | OpKind::Copy => Vec::new(),
    }
}

fn attention_twists(window: Option<usize>, sinks: bool, config: Option<&ModelConfig>) -> Vec<Named> {
    let none = Twist::default();
    let mut all: Vec<Named> = Vec::new();
    let mut attention = |detail: String, twist: Twist| all.push((None, detail, twist));
    let Some(config) = config else { return all };
    let form = &config.attention;
    if form.causal {
        attention("the causal mask is missing".into(), Twist { not_causal: true, ..none.clone() });
    }
    if form.kv_heads > 1 && form.kv_heads < form.heads {
        let detail = "query head h uses key head h % kv_heads (tiled) in place of h / group";
        attention(detail.into(), Twist { tiled: true, ..none.clone() });
    }
    if let Some(w) = window {
        for other in [w - 1, w + 1, 2 * w] {
            let twist = Twist { window: Some(Some(other)), ..none.clone() };
            attention(format!("the window is {other} in place of {w}"), twist);
        }
        attention("the sliding window is ignored".into(), Twist { window: Some(None), ..none.clone() });
    }
    if sinks {
        attention("the sinks are ignored".into(), Twist { no_sinks: true, ..none.clone() });
    }
    let d = form.key_dim as f64;
    let mut scales = vec![
        ("the scores are not scaled".to_owned(), 1.0 / form.scale),
        ("the scores are scaled by 1/d".to_owned(), 1.0 / (d * form.scale)),
    ];
    if (form.scale * d.sqrt() - 1.0).abs() > 1e-9 {
        scales.push(("YaRN's mscale of the scores is missing".to_owned(), 1.0 / (form.scale * d.sqrt())));
    }
    if let Some(mla) = form.mla {
        let wrong = (mla.nope as f64).powf(-0.5) / d.powf(-0.5);
        scales.push(("the scores are scaled for the part without rotation".to_owned(), wrong));
    }
    for (detail, scale) in scales {
        attention(detail, Twist { scale, ..none.clone() });
    }
    let Some(rope) = &config.rope else { return all };
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
    rope_twist("queries are not rotated", Twist { rotate_q: false, ..none.clone() });
    rope_twist("keys are not rotated", Twist { rotate_k: false, ..none.clone() });
    rope_twist(
        "neither queries nor keys are rotated",
        Twist { rotate_q: false, rotate_k: false, ..none.clone() },
    );
    for (detail, table) in tables(rope) {
        rope_twist(&detail, Twist { table: Some(table), ..none.clone() });
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
            let logits =
                Value { x, lead: vec![1], precision: Precision::BF16, place: "the router".to_owned() };
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
