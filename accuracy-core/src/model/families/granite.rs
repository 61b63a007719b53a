//! Granite: Llama with multipliers of embeddings, scores, branches and logits.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Object};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["granite"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.form.embedding_scale = c.number("embedding_multiplier").unwrap_or(1.0);
    config.form.branch_scale = c.number("residual_multiplier").unwrap_or(1.0);
    config.form.logits_scale = 1.0 / c.number("logits_scaling").unwrap_or(1.0);
    if let Some(scale) = c.number("attention_multiplier") {
        config.attention.scale = scale;
    }
    Ok(config)
}
