//! OLMo 2: norms behind both branches and none before them; all heads of queries and keys are normed together.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Norms, Object, QkNorm};
use crate::reference::model::RopeStyle;

pub const SECOND: Family = Family { model_types: &["olmo2"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.attention.qk_norm = QkNorm::Whole;
    config.form.norms = Norms {
        before_attention: None,
        after_attention: Some("post_attention_layernorm"),
        before_mlp: None,
        after_mlp: Some("post_feedforward_layernorm"),
    };
    Ok(config)
}
