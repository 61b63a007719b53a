//! Llama and Mistral: the plain decoder. Mistral's attention has a window in every layer.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Object};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["llama", "mistral"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    let sliding = config.model_type == "mistral" || c.flag("use_sliding_window").unwrap_or(false);
    config.windows(c, |_| sliding)?;
    Ok(config)
}
