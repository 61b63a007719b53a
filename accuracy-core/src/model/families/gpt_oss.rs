//! gpt-oss: sinks, a window in every second layer, a clamped activation, softmax over the chosen experts.

use super::{Family, NESTED};
use crate::model::config::{Activation, Mixture, ModelConfig, ModelError, Object, Score, router};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["gpt_oss"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.attention.sinks = true;
    config.windows(c, |layer| layer.is_multiple_of(2))?;
    let limit = c.number("swiglu_limit").unwrap_or(7.0);
    config.activation =
        Activation::Clamped { alpha: c.number("swiglu_alpha").unwrap_or(1.702), limit, plus: 1.0 };
    let made = router(c, Score::SoftmaxOfChosen)?;
    config.layers.iter_mut().for_each(|l| l.router = Some(made.clone()));
    config.form.mixture = Mixture { gate: "router", ..config.form.mixture };
    Ok(config)
}
