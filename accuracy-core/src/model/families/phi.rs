//! Phi-3: one weight for queries, keys and values, one for gate and up.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Object};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["phi3"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.windows(c, |_| true)?;
    config.form.fused_qkv = Some("qkv_proj");
    config.form.fused_gate_up = Some("gate_up_proj");
    Ok(config)
}
