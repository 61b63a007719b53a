//! Operations as the model has them, with a mistake in them or with none.

use super::mistakes::{Mistake, NormMistake, summand};
use super::{Replay, Stop, dumped, last_rows, need, need_integers, same_shape};
use crate::triage::side::Side;
use accuracy_core::model::config::{Stack, Weighed};
use accuracy_core::model::ops::{self, Expert, Precision, Weights};
use accuracy_core::model::plan::Gates;
use accuracy_core::model::{Activation, Op, OpKind};
use accuracy_core::reference::Matrix;
use accuracy_core::weights::WeightsError;

/// One operation that is replayed: from a side's values, rounding as that side does, with one mistake or none.
#[derive(Clone, Copy)]
struct Step<'a> {
    replay: &'a Replay<'a>,
    side: &'a Side,
    op: &'a Op,
    p: Precision,
    mistake: &'a Mistake,
}

/// What a norm is made of.
#[derive(Clone, Copy)]
struct NormOf<'a> {
    weight: &'a str,
    bias: Option<&'a str>,
    eps: f64,
    width: Option<usize>,
    one_plus: bool,
}

/// The weights of a layer's experts.
#[derive(Clone, Copy)]
struct ExpertsOf<'a> {
    module: &'a str,
    stack: Stack,
    experts: usize,
}

impl Replay<'_> {
    /// An operation with a mistake in it, or with none.
    pub(super) fn plain(
        &self,
        side: &Side,
        op: &Op,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Matrix, Stop> {
        let step = Step { replay: self, side, op, p, mistake };
        let input = |index: usize| need(side, &op.inputs[index], p);
        Ok(match &op.kind {
            OpKind::Embedding { weight, scale } => step.embedding(weight, *scale)?,
            OpKind::Norm { weight, bias, eps, width, one_plus } => {
                let bias = bias.as_deref();
                step.norm(NormOf { weight, bias, eps: *eps, width: *width, one_plus: *one_plus })?
            }
            OpKind::Linear { weight } => step.linear(weight)?,
            OpKind::Attention { sinks, gate, .. } => step.attention(sinks.as_deref(), *gate)?,
            OpKind::FirstHalves { d } => {
                let x = input(0)?.x;
                let data = x.data.chunks_exact(2 * d).flat_map(|head| head[..*d].to_vec()).collect();
                Matrix::new(x.rows, x.cols / 2, data)
            }
            OpKind::Delta { module } => self.delta(side, op, module, p, mistake)?,
            OpKind::State { module } => self.state(side, op, module, p, mistake)?,
            OpKind::GatedNorm { weight, eps, gates } => step.gated_norm(weight, *eps, *gates)?,
            OpKind::UnitNorm { eps, d, rope } => step.unit_norm(*eps, *d, *rope)?,
            OpKind::Blend => step.blend()?,
            OpKind::Rotate { rope } => self.rotated(side, op, *rope, p, mistake)?,
            OpKind::Logits { scale, cap } => {
                let x = input(0)?.x;
                let scale = if mistake.unscaled { 1.0 } else { *scale };
                let cap = cap.filter(|_| !mistake.no_cap);
                p.apply(x.map(|x| ops::soft_cap(scale * x, cap)))
            }
            OpKind::Gated(activation) => {
                let (gate, up) = (input(0)?, input(1)?);
                let up = same_shape(&gate, up)?;
                let activation = mistake.activation.unwrap_or(*activation);
                let (gate, up) = if mistake.swapped { (up.x, gate.x) } else { (gate.x, up.x) };
                ops::gated_all(activation, &gate, &up, p)
            }
            OpKind::Activation(activation) => {
                let activation = mistake.activation.unwrap_or(*activation);
                p.apply(input(0)?.x.map(|x| ops::activate(activation, x)))
            }
            OpKind::Experts { module, activation, experts, weighed, stack } => {
                step.experts(ExpertsOf { module, stack: *stack, experts: *experts }, *activation, *weighed)?
            }
            OpKind::Sum { scale } => step.sum(*scale)?,
            OpKind::Copy => step.copy()?,
            OpKind::RopeTable { .. } | OpKind::Router { .. } | OpKind::Indexer(_) => {
                return Err(Stop::Unusable(format!("{} has no replay of this kind", op.name)));
            }
        })
    }

    /// The weights of an expert, rounded as the dump is.
    fn expert(
        &self,
        of: ExpertsOf<'_>,
        index: usize,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Expert, WeightsError> {
        let weights = Weights(self.checkpoint);
        let mut expert = weights.expert(of.module, index, of.stack)?;
        if let Some(read) = mistake.read {
            expert.down = read.of(&expert.down);
        }
        if let Some(gate) = expert.gate.as_mut().filter(|_| mistake.swapped) {
            std::mem::swap(gate, &mut expert.up);
        }
        if let Some(biases) = &mut expert.biases {
            biases.iter_mut().flatten().for_each(|b| *b *= mistake.bias);
            biases[2].iter_mut().for_each(|b| *b *= mistake.bias_down);
        }
        expert.gate = expert.gate.map(|gate| p.apply(gate));
        expert.up = p.apply(expert.up);
        expert.down = p.apply(expert.down);
        Ok(expert)
    }
}

impl Step<'_> {
    /// Rows of the vocabulary, times a factor.
    fn embedding(&self, weight: &str, scale: f64) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let weights = Weights(replay.checkpoint);
        let ids = match need_integers(side, &op.inputs[0]) {
            Ok(ids) => ids,
            Err(_) => side.tokens().map_err(Stop::Unusable)?.ok_or(Stop::Missing("token ids".into()))?,
        };
        let rows = weights.rows(weight, &ids)?;
        // The factor is stored in the model's format.
        let scale = if mistake.unscaled { 1.0 } else { p.round(scale) };
        Ok(p.apply(if scale == 1.0 { rows } else { rows.map(|x| x * scale) }))
    }

    /// A norm over the whole row, or over parts of it as long as its weight.
    fn norm(&self, norm: NormOf) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let NormOf { weight, bias, eps, width, one_plus } = norm;
        let weights = Weights(replay.checkpoint);
        let x = match mistake.only {
            Some(only) => dumped(side, &summand(&op.inputs[0], only))?.x,
            None => need(side, &op.inputs[0], p)?.x,
        };
        let mut w = weights.vector(&mistake.of_layer(op, weight))?;
        let bias = bias.map(|b| weights.vector(b)).transpose()?;
        if w.is_empty() || x.data.len() % w.len() != 0 || width.is_some_and(|n| n != w.len()) {
            return Err(Stop::Unusable(format!("{weight} has {} values, its input {:?}", w.len(), x.cols)));
        }
        if one_plus != (mistake.norm == Some(NormMistake::OnePlus)) {
            w.iter_mut().for_each(|w| *w += 1.0);
        }
        if mistake.norm == Some(NormMistake::NoWeight) {
            w.fill(1.0);
        }
        if mistake.norm == Some(NormMistake::Skipped) {
            return Ok(x);
        }
        let eps = if let Some(NormMistake::Eps(eps)) = mistake.norm { eps } else { eps };
        let zeros = vec![0.0; w.len()];
        let bias = match mistake.norm {
            Some(NormMistake::Centred) => Some(&zeros[..]),
            Some(NormMistake::NoBias) if bias.is_some() => Some(&zeros[..]),
            _ => bias.as_deref(),
        };
        Ok(match mistake.norm {
            Some(NormMistake::Grouped(d)) if d > 0 && w.len().is_multiple_of(d) && d < w.len() => {
                by_groups(&x, &w, d, eps, p)
            }
            Some(NormMistake::Twice) => ops::norm(&ops::norm(&x, &w, bias, eps, p), &w, bias, eps, p),
            _ => ops::norm(&x, &w, bias, eps, p),
        })
    }

    /// A product, with its bias where there is one.
    fn linear(&self, weight: &str) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let weights = Weights(replay.checkpoint);
        let x = match &mistake.instead {
            Some((_, site)) => dumped(side, site)?.x,
            None => need(side, &op.inputs[0], p)?.x,
        };
        let x = mistake.inputs.map_or_else(|| x.clone(), |scheme| mistake.taken(&x, scheme, p));
        let x = mistake.read.map_or_else(|| x.clone(), |read| read.of(&x));
        let mut y = weights.linear(&mistake.of_layer(op, weight), &x, p)?.y;
        if mistake.bias != 1.0 {
            let bias = weights.vector(&format!("{weight}.bias"))?;
            y.data.chunks_exact_mut(bias.len().max(1)).for_each(|row| {
                row.iter_mut().zip(&bias).for_each(|(v, b)| *v += (mistake.bias - 1.0) * b);
            });
        }
        if let Some(other) = &mistake.bias_of {
            let own = weights.vector(&format!("{weight}.bias"))?;
            let other = weights.vector(&format!("{other}.bias"))?;
            if own.len() != other.len() {
                return Err(Stop::Missing("a bias of that length".to_owned()));
            }
            y.data.chunks_exact_mut(own.len().max(1)).for_each(|row| {
                row.iter_mut().zip(own.iter().zip(&other)).for_each(|(v, (a, b))| *v += b - a);
            });
        }
        if mistake.other_rows && y.rows > 1 {
            y.data.rotate_right(y.cols);
        }
        Ok(mistake.written.map_or_else(|| y.clone(), |written| written.of(&y)))
    }

    /// Attention, and the gate of its output.
    fn attention(&self, sinks: Option<&str>, gate: bool) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let mut y = replay.attention(side, op, sinks, p, mistake)?;
        if let Some(site) = op.inputs.last().filter(|_| gate && !mistake.no_gate) {
            let projected = need(side, site, p)?.reshaped(2 * y.cols).map_err(Stop::Unusable)?.x;
            let d = replay.config.map_or(1, |c| c.attention.key_dim).max(1);
            for r in 0..y.rows.min(projected.rows) {
                for c in 0..y.cols {
                    let gate = projected.row(r)[c / d * 2 * d + d + c % d];
                    let value = &mut y.row_mut(r)[c];
                    *value = p.round(*value * p.round(1.0 / (1.0 + (-gate).exp())));
                }
            }
        }
        Ok(y)
    }

    /// A norm of each head, times the SiLU of a gate.
    fn gated_norm(&self, weight: &str, eps: f64, which: Gates) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let weights = Weights(replay.checkpoint);
        let config = replay.config.ok_or_else(|| Stop::Unusable("a gate needs a config.json".into()))?;
        let projected = need(side, &op.inputs[1], p)?.x;
        let (gates, group) = match (which, config.delta, config.state) {
            (Gates::OfDelta, Some(net), _) => (ops::delta_gates(net, &projected), None),
            (Gates::OfState, _, Some(net)) if projected.cols == net.projected() => {
                (ops::state_gates(net, &projected), Some(net.inner() / net.groups))
            }
            _ => return Err(Stop::Unusable(format!("{weight}: gates in {} columns", projected.cols))),
        };
        let core = need(side, &op.inputs[0], p)?.reshaped(gates.cols).map_err(Stop::Unusable)?.x;
        let mut w = weights.vector(&mistake.of_layer(op, weight))?;
        match mistake.norm {
            Some(NormMistake::NoWeight) => w.fill(1.0),
            Some(NormMistake::OnePlus) => w.iter_mut().for_each(|w| *w += 1.0),
            _ => {}
        }
        if w.is_empty() || !gates.cols.is_multiple_of(w.len()) || core.rows != gates.rows {
            return Err(Stop::Unusable(format!("{weight} has {} values", w.len())));
        }
        let gated = |mut y: Matrix| {
            if !mistake.no_gate {
                y.data.iter_mut().zip(&gates.data).for_each(|(y, g)| *y = p.round(*y * ops::silu(*g)));
            }
            y
        };
        let normed = |x: Matrix| {
            let size = match mistake.norm {
                Some(NormMistake::Grouped(d)) => d,
                _ => group.unwrap_or(w.len()),
            };
            match mistake.norm {
                Some(NormMistake::Skipped) => x,
                _ => by_groups(&x, &w, size, eps, p),
            }
        };
        let gate_first = (group.is_some()) != mistake.other_order;
        Ok(if gate_first { normed(gated(core)) } else { gated(normed(core)) })
    }

    /// A norm of each head without a weight, behind the rotation.
    fn unit_norm(&self, eps: f64, d: usize, rope: usize) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let x = match side.load(&op.inputs[0]).map_err(Stop::Unusable)? {
            Some(rotated) => rotated.reshaped(d).map_err(Stop::Unusable)?.x,
            None => {
                let before = Op { inputs: vec![op.inputs[1].clone()], ..op.clone() };
                let x = replay.rotated(side, &before, rope, p, mistake)?;
                Matrix::new(x.data.len() / d.max(1), d, x.data)
            }
        };
        Ok(match mistake.norm {
            Some(NormMistake::Skipped) => x,
            Some(NormMistake::Eps(eps)) => ops::norm(&x, &vec![1.0; d], None, eps, p),
            _ => ops::norm(&x, &vec![1.0; d], None, eps, p),
        })
    }

    /// What the routed experts make, and what the shared one does times its gate.
    fn blend(&self) -> Result<Matrix, Stop> {
        let Step { side, op, p, mistake, .. } = *self;
        let routed = need(side, &op.inputs[0], p)?;
        let shared = same_shape(&routed, need(side, &op.inputs[1], p)?)?.x;
        let gate = need(side, &op.inputs[2], p)?.x;
        let mut y = routed.x;
        if gate.data.len() != y.rows {
            return Err(Stop::Unusable(format!("{} gates for {} tokens", gate.data.len(), y.rows)));
        }
        let (first, second) = match mistake.only {
            Some(0) => (1.0, 0.0),
            Some(_) => (0.0, 1.0),
            None => (1.0, if mistake.twice == Some(1) { 2.0 } else { 1.0 }),
        };
        for r in 0..y.rows {
            let gate = if mistake.no_gate { 1.0 } else { p.round(1.0 / (1.0 + (-gate.data[r]).exp())) };
            y.row_mut(r).iter_mut().zip(shared.row(r)).for_each(|(y, s)| {
                *y = p.round(first * *y + p.round(second * gate * s));
            });
        }
        Ok(y)
    }

    /// A sum in the order of its inputs, rounded after each.
    fn sum(&self, scale: f64) -> Result<Matrix, Stop> {
        let Step { side, op, p, mistake, .. } = *self;
        let mut sum = need(side, &op.inputs[0], p)?;
        if let Some(only) = mistake.only {
            return Ok(need(side, &op.inputs[only], p)?.x);
        }
        if mistake.twice == Some(0) {
            sum.x = sum.x.map(|x| 2.0 * x);
        }
        if let Some(scaling) = mistake.late {
            sum.x = sum.x.map(|x| scaling * x);
        }
        if let Some((0, site)) = &mistake.instead {
            sum = same_shape(&sum, dumped(side, site)?)?;
        }
        for (i, input) in op.inputs.iter().enumerate().skip(1) {
            let next = match &mistake.instead {
                Some((at, site)) if *at == i => dumped(side, site)?,
                _ => need(side, input, p)?,
            };
            let next = same_shape(&sum, next)?;
            let scale = if mistake.twice == Some(i) { 2.0 * scale } else { scale };
            let scale = if mistake.unscaled { 1.0 } else { scale };
            sum.x.data.iter_mut().zip(&next.x.data).for_each(|(a, b)| *a = p.round(*a + scale * b));
        }
        if let Some(scaling) = mistake.scaled {
            sum.x = sum.x.map(|x| scaling * x);
        }
        Ok(sum.x)
    }

    /// The same values, or the last rows of them.
    fn copy(&self) -> Result<Matrix, Stop> {
        let Step { side, op, p, mistake, .. } = *self;
        let mut from = need(side, &op.inputs[0], p)?;
        if let Some(factor) = mistake.scaled {
            from.x = from.x.map(|x| factor * x);
        }
        if let Some(scaling) = mistake.late {
            from.x = from.x.map(|x| x / scaling);
        }
        // What is passed on in a narrower format is rounded.
        if p != Precision::Exact && p.unit() > from.precision.unit() {
            from.x = p.apply(from.x);
        }
        Ok(match side.load(&op.output).map_err(Stop::Unusable)? {
            Some(out) if out.x.cols == from.x.cols => last_rows(side, from, out.x.rows),
            _ => from.x,
        })
    }

    /// Which experts each token has, and with which weights.
    fn chosen(&self, tokens: usize, experts: usize) -> Result<(Vec<i64>, Matrix), Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let topk = op.layer.and_then(|i| replay.config?.layers.get(i)?.router.as_ref()).map(|r| r.topk);
        let all = side.load(&op.inputs[2]).map_err(Stop::Unusable)?.filter(|w| w.x.cols == experts);
        let mut given = all.filter(|_| topk.is_some_and(|k| k < experts)).map(|w| positive(&w.x));
        let indices = match need_integers(side, &op.inputs[1]) {
            Ok(indices) => {
                given = None;
                indices
            }
            Err(_) if given.is_some() => Vec::new(),
            Err(missing) => match side.made(&op.inputs[1], p).map_err(Stop::Unusable)? {
                Some(made) => made.x.data.iter().map(|&e| e as i64).collect(),
                None => return Err(missing),
            },
        };
        let (indices, mut w) = match given {
            Some(given) => given,
            None => (indices, need(side, &op.inputs[2], p)?.x),
        };
        let indices = match &mistake.router {
            None => indices,
            Some(router) => {
                let logits = need(side, &op.inputs[3], p)?.x;
                let choice = ops::route(router, &logits, None, p);
                w = choice.weights;
                choice.indices
            }
        };
        let shared = op.layer.and_then(|i| replay.config?.layers.get(i)).is_some_and(|l| l.shared);
        if shared && indices.contains(&(experts as i64)) {
            return Err(Stop::Unusable(format!(
                "expert {experts} is chosen: the shared expert runs among the routed ones, which is not replayed"
            )));
        }
        if w.rows != tokens || indices.len() != w.data.len() {
            return Err(Stop::Unusable(format!(
                "{} indices and {}x{} weights for {tokens} tokens",
                indices.len(),
                w.rows,
                w.cols,
            )));
        }
        self.weigh(&indices, &mut w, experts);
        Ok((indices, w))
    }

    /// What mistakes make of routing weights.
    fn weigh(&self, indices: &[i64], w: &mut Matrix, experts: usize) {
        let Step { side, op, mistake, .. } = *self;
        if mistake.alike {
            w.data.fill(1.0);
        }
        let k = w.cols;
        // Weights that are in the dump lack the factor already.
        if let Some(scaling) = mistake.late.filter(|_| !matches!(side.load(&op.inputs[2]), Ok(Some(_)))) {
            w.data.iter_mut().for_each(|w| *w /= scaling);
        }
        if let Some((parts, index)) = mistake.without_experts {
            let size = experts.div_ceil(parts).max(1) as i64;
            let gone = |e: i64| e / size == index as i64;
            w.data.iter_mut().zip(indices).filter(|(_, e)| gone(**e)).for_each(|(w, _)| *w = 0.0);
        }
        if mistake.rolled_slots && k > 1 {
            w.data.chunks_exact_mut(k).for_each(|row| row.rotate_right(1));
        }
    }

    /// The sum of what each token's experts make of it, times their weights.
    fn experts(&self, of: ExpertsOf, activation: Activation, weighed: Weighed) -> Result<Matrix, Stop> {
        let Step { replay, side, op, p, mistake } = *self;
        let experts = of.experts;
        let x = need(side, &op.inputs[0], p)?.x;
        let (indices, w) = self.chosen(x.rows, experts)?;
        let k = w.cols;
        let activation = mistake.activation.unwrap_or(activation);
        let expert =
            |index: usize| replay.expert(of, (index + mistake.next_expert) % experts.max(1), p, mistake);
        let input =
            |x: &Matrix| mistake.inputs.map_or_else(|| x.clone(), |scheme| mistake.taken(x, scheme, p));
        if (weighed == Weighed::Input) == mistake.weighed_elsewhere {
            return Ok(ops::experts(&x, &indices, &w, experts, (activation, p), &input, expert)?);
        }
        // A row for each choice, weighed before the expert.
        let choices = (0..indices.len()).flat_map(|i| {
            let weight = w.data[i];
            x.row(i / k).iter().map(move |v| p.round(weight * v)).collect::<Vec<_>>()
        });
        let rows = Matrix::new(indices.len(), x.cols, choices.collect());
        let ones = Matrix::new(indices.len(), 1, vec![1.0; indices.len()]);
        let y = ops::experts(&rows, &indices, &ones, experts, (activation, p), &input, expert)?;
        let mut sum = Matrix::zeros(x.rows, y.cols);
        for i in 0..y.rows {
            sum.row_mut(i / k).iter_mut().zip(y.row(i)).for_each(|(to, v)| *to += v);
        }
        Ok(sum)
    }
}

/// A norm over groups of `size` columns, with a weight for each column of the row.
fn by_groups(x: &Matrix, weight: &[f64], size: usize, eps: f64, p: Precision) -> Matrix {
    if size == weight.len() || size == 0 {
        return ops::norm(x, weight, None, eps, p);
    }
    let mut y = ops::norm(x, &vec![1.0; size], None, eps, p);
    y.data.chunks_exact_mut(weight.len()).for_each(|row| {
        row.iter_mut().zip(weight).for_each(|(v, w)| *v = p.round(*v * w));
    });
    y
}

/// The experts that have a weight, and these weights, of the weights of all experts: as many for each token as the one
/// with the most has.
pub(super) fn positive(all: &Matrix) -> (Vec<i64>, Matrix) {
    let most = (0..all.rows).map(|r| all.row(r).iter().filter(|w| **w != 0.0).count()).max().unwrap_or(0);
    let (mut indices, mut weights) = (Vec::new(), Vec::new());
    for r in 0..all.rows {
        let mut row: Vec<(usize, f64)> = all.row(r).iter().copied().enumerate().collect();
        row.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (expert, weight) in row.into_iter().take(most) {
            indices.push(expert as i64);
            weights.push(weight);
        }
    }
    (indices, Matrix::new(all.rows, most, weights))
}
