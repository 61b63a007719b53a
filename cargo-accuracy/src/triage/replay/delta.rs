//! Gated delta networks.

use super::mistakes::Mistake;
use super::state::Joined;
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
        let own = load(side)?;
        let earlier = match mistake.no_state {
            true => Vec::new(),
            false => side.history.iter().map(load).collect::<Result<Vec<_>, _>>()?,
        };
        let joined = Joined::of(
            side,
            &own.2,
            &earlier.iter().map(|e| &e.2[..]).collect::<Vec<_>>(),
            !mistake.no_state,
        )?;
        let values: Vec<&Matrix> = earlier.iter().map(|e| &e.0.x).chain([&own.0.x]).collect();
        let rates: Vec<&Matrix> = earlier.iter().map(|e| &e.1).chain([&own.1]).collect();
        let (x, r) = (joined.rows_of(&values)?, joined.rows_of(&rates)?);
        let own_rows = joined.own_rows(side);
        let places = (&joined.ranges[..], &own_rows[..]);
        let y = ops::delta_rule(net, &stored, (&x, &r), places, mistake.delta, p);
        Ok(joined.last(&y, own.0.x.rows))
    }
}
