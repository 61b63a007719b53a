//! State spaces, and what all layers with a state need: a step's tokens behind those of the steps before.

use super::mistakes::Mistake;
use super::{Replay, Stop, need};
use crate::triage::side::Side;
use accuracy_core::model::Op;
use accuracy_core::model::ops::{self, Precision, Weights};
use accuracy_core::reference::Matrix;
use std::ops::Range;

/// A step's tokens behind those of the steps before, sequence by sequence.
pub(super) struct Joined {
    /// Of each row, its step and its row there; the step itself comes after all earlier ones.
    rows: Vec<(usize, usize)>,
    /// Rows of each sequence.
    pub(super) ranges: Vec<Range<usize>>,
    /// The step's own rows, and where they are now.
    own: Vec<(usize, usize)>,
}

impl Joined {
    /// `sequences` are the step's, `earlier` those of each step before it. `carried`: the state of earlier steps goes on.
    pub(super) fn of(
        side: &Side,
        sequences: &[Range<usize>],
        earlier: &[&[Range<usize>]],
        carried: bool,
    ) -> Result<Joined, Stop> {
        let mut before: Vec<Vec<(usize, Range<usize>)>> = vec![Vec::new(); sequences.len()];
        if carried && side.layout.is_some() {
            for (links, chain) in before.iter_mut().zip(&side.chains) {
                *links = chain.clone().ok_or(Stop::NoCache)?;
            }
        } else if carried {
            if side.oldest().continues() {
                return Err(Stop::NoCache);
            }
            for (number, ranges) in earlier.iter().enumerate() {
                if ranges.len() != sequences.len() {
                    return Err(Stop::Unusable("steps with different numbers of sequences".to_owned()));
                }
                let links = before.iter_mut().zip(*ranges);
                links.for_each(|(links, rows)| links.push((number, rows.clone())));
            }
        }
        let mut joined = Joined { rows: Vec::new(), ranges: Vec::new(), own: Vec::new() };
        for (sequence, links) in sequences.iter().zip(&before) {
            let start = joined.rows.len();
            for (step, rows) in links {
                joined.rows.extend(rows.clone().map(|row| (*step, row)));
            }
            for row in sequence.clone() {
                joined.own.push((row, joined.rows.len()));
                joined.rows.push((side.history.len(), row));
            }
            joined.ranges.push(start..joined.rows.len());
        }
        Ok(joined)
    }

    /// The rows of all steps' values, the last one the step's own.
    pub(super) fn rows_of(&self, values: &[&Matrix]) -> Result<Matrix, Stop> {
        let (own, earlier) = values.split_last().ok_or(Stop::NoCache)?;
        let mut data = Vec::new();
        for (step, row) in &self.rows {
            let from = earlier.get(*step).unwrap_or(own);
            if *row >= from.rows {
                return Err(Stop::NoCache);
            }
            data.extend_from_slice(from.row(*row));
        }
        Ok(Matrix::new(self.rows.len(), own.cols, data))
    }

    /// What is told of each row of a step.
    fn marks(&self, of: &dyn Fn(usize, usize) -> bool) -> Vec<bool> {
        self.rows.iter().map(|&(step, row)| of(step, row)).collect()
    }

    /// Which rows are the step's own.
    pub(super) fn own_rows(&self, side: &Side) -> Vec<bool> {
        self.marks(&|step, _| step == side.history.len())
    }

    /// The step's own rows of a result for all rows.
    pub(super) fn last(&self, y: &Matrix, rows: usize) -> Matrix {
        let mut out = Matrix::zeros(rows, y.cols);
        for &(row, at) in &self.own {
            out.row_mut(row).copy_from_slice(y.row(at));
        }
        out
    }
}

/// A step's projection, the rows of each sequence, and which rows are padding.
struct Projected {
    x: Matrix,
    sequences: Vec<Range<usize>>,
    hidden: Vec<bool>,
}

impl Replay<'_> {
    /// The output of a state space for a step's tokens, its state computed from the steps before.
    pub(super) fn state(
        &self,
        side: &Side,
        op: &Op,
        module: &str,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("a state space needs a config.json".into()))?;
        let net = config.state.ok_or_else(|| Stop::Unusable("no state space".into()))?;
        let weights = Weights(self.checkpoint);
        let at = |name: &str| format!("{module}.{name}");
        let bias = at("conv1d.bias");
        let stored = ops::StateWeights {
            convolution: weights.flat(&at("conv1d.weight"))?,
            convolution_bias: if weights.has(&bias) { weights.flat(&bias)? } else { Vec::new() },
            a_log: weights.flat(&at("A_log"))?,
            dt_bias: weights.flat(&at("dt_bias"))?,
            d: weights.flat(&at("D"))?,
        };
        let channels = net.inner() + 2 * net.groups * net.state;
        let per_head = [&stored.a_log, &stored.dt_bias, &stored.d];
        if stored.convolution.len() != channels * net.kernel || per_head.iter().any(|v| v.len() != net.heads)
        {
            return Err(Stop::Unusable(format!(
                "{module}: {} values of a convolution of {channels} channels, {:?} of A_log, dt_bias and D for {} heads",
                stored.convolution.len(),
                per_head.map(Vec::len),
                net.heads
            )));
        }
        let load = |step: &Side| -> Result<Projected, Stop> {
            let projected = need(step, &op.inputs[0], p)?;
            if projected.x.cols != net.projected() {
                return Err(Stop::Unusable(format!("{}: {} columns", projected.place, projected.x.cols)));
            }
            let (sequences, hidden) = (step.sequences(&projected), step.hidden(&projected.lead));
            Ok(Projected { x: projected.x, sequences, hidden })
        };
        let own = load(side)?;
        let steps = match mistake.no_state {
            true => Vec::new(),
            false => side.history.iter().map(load).collect::<Result<Vec<_>, _>>()?,
        };
        let earlier: Vec<&[Range<usize>]> = steps.iter().map(|s| &s.sequences[..]).collect();
        let joined = Joined::of(side, &own.sequences, &earlier, !mistake.no_state)?;
        let values: Vec<&Matrix> = steps.iter().map(|s| &s.x).chain([&own.x]).collect();
        let of = |step: usize| steps.get(step).unwrap_or(&own);
        let hidden = joined.marks(&|step, row| of(step).hidden.get(row).copied().unwrap_or(false));
        // A step of one token for each sequence is one of decoding, which knows no limit.
        let limited = joined.marks(&|step, _| of(step).sequences.iter().any(|rows| rows.len() > 1));
        let x = joined.rows_of(&values)?;
        let own_rows = joined.own_rows(side);
        let marks = [&hidden[..], &limited, &own_rows];
        let y = ops::state_space(net, &stored, &x, &joined.ranges, marks, mistake.state, p);
        Ok(joined.last(&y, own.x.rows))
    }
}
