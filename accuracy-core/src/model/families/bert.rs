//! BERT, MiniLM and their kin: encoders without rotation and without a mask of the future.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Object};

pub const FAMILY: Family = Family { model_types: &["bert"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::decoder(c)?;
    config.norm_eps = c.number("layer_norm_eps").ok_or_else(|| c.missing("layer_norm_eps"))?;
    config.attention.causal = false;
    config.layers.iter_mut().for_each(|l| l.rope = None);
    Ok(config)
}
