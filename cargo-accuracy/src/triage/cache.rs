//! Keys and values that a pass found in the cache and whose making is not in the dumps: they cannot be replayed, only
//! compared.

use super::profile::{agreement, pair};
use super::side::Side;
use accuracy_core::dumps::Kind;
use accuracy_core::model::{Op, OpKind, Place, Plan, Site};

/// Slots of an attention module's input.
pub const KEYS: &[&str] = &["past_key_values.keys"];
pub const VALUES: &[&str] = &["past_key_values.values"];

/// What a cache holds may be off by this many times what the pass's own keys and values in the layer are off by.
const FACTOR: f64 = 3.0;

/// A layer whose cache is further apart in the two dumps than the pass's own keys and values.
#[derive(Clone, Debug)]
pub struct Apart {
    pub layer: usize,
    /// Relative error, infinite where one dump alone has a cache, and what is expected of it.
    pub error: f64,
    pub bound: f64,
}

/// The module whose attention it is.
pub fn attention_module(op: &Op) -> &str {
    let module = op.output.0.first().map_or("", |p| &p.module);
    module.rsplit_once('.').map_or("", |m| m.0)
}

/// The first layer whose cache says that passes before the dumps' first went apart.
pub fn apart(reference: &Side, candidate: &Side, plan: &Plan) -> Option<Apart> {
    let (a, b) = (reference.oldest(), candidate.oldest());
    if !a.continues() && !b.continues() {
        return None;
    }
    plan.ops.iter().filter(|op| matches!(op.kind, OpKind::Attention { .. })).find_map(|op| {
        let error = |site: &Site| match (a.view(site), b.view(site)) {
            (Ok(None), Ok(None)) => None,
            _ => Some(match pair(a, b, site) {
                Ok(Some(values)) => agreement(&values).rel_l2.unwrap_or(f64::INFINITY),
                _ => f64::INFINITY,
            }),
        };
        let held = |slots| Site(vec![Place::new(attention_module(op), Kind::Input, slots)]);
        let error_of = |held: &[Option<f64>]| held.iter().flatten().copied().reduce(f64::max);
        let cached = error_of(&[error(&held(KEYS)), error(&held(VALUES))])?;
        let own: Vec<Option<f64>> = op.inputs.iter().skip(1).map(&error).collect();
        let own = error_of(&own).filter(|e| e.is_finite()).unwrap_or(0.0);
        let bound = FACTOR * own.max(candidate.precision.unit());
        let layer = op.layer?;
        (cached > bound).then_some(Apart { layer, error: cached, bound })
    })
}
