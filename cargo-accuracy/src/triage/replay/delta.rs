//! Gated delta networks.

use super::mistakes::Mistake;
use super::{Replay, Stop, need};
use crate::triage::side::Side;
use crate::triage::value::Value;
use accuracy_core::model::Op;
use accuracy_core::model::ops::{self, Precision, Weights};
use accuracy_core::reference::Matrix;
use std::ops::Range;

impl Replay<'_> {
    /// The output of a delta rule for a step's tokens, its state computed from the steps before.
    pub(super) fn delta(
        &self,
        side: &Side,
        op: &Op,
        module: &str,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Matrix, Stop> {
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
        if !mistake.no_state {
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
        let y = ops::delta_rule(net, &stored, (&joined.0, &joined.1), &ranges, mistake.delta, p);
        let mut out = Matrix::zeros(own.x.rows, y.cols);
        for (row, at) in back {
            out.row_mut(row).copy_from_slice(y.row(at));
        }
        Ok(out)
    }
}
