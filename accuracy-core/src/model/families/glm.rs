//! GLM-4: neighbouring elements are rotated together, half of each head; norms around both branches; gate and up in one
//! weight. GLM-4-MoE: halves of heads rotated by halves, DeepSeek's router.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Norms, Object, QkNorm, corrected_router, shared_inner};
use crate::reference::model::RopeStyle;

pub const FOURTH: Family = Family { model_types: &["glm4"], nested: NESTED, read: fourth };
pub const MOE4: Family = Family { model_types: &["glm4_moe"], nested: NESTED, read: mixture };

fn fourth(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::GptJ)?;
    config.form.norms = Norms {
        before_attention: Some("input_layernorm"),
        after_attention: Some("post_self_attn_layernorm"),
        before_mlp: Some("post_attention_layernorm"),
        after_mlp: Some("post_mlp_layernorm"),
    };
    config.form.fused_gate_up = Some("gate_up_proj");
    Ok(config)
}

fn mixture(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    if c.flag("use_qk_norm").unwrap_or(false) {
        config.attention.qk_norm = QkNorm::Head;
    }
    config.form.mixture.shared_inner = shared_inner(c);
    let router = corrected_router(c)?;
    let shared = c.count("n_shared_experts").unwrap_or(0) > 0;
    let dense = c.count("first_k_dense_replace").unwrap_or(0);
    for layer in config.layers.iter_mut().skip(dense) {
        layer.router = Some(router.clone());
        layer.shared = shared;
    }
    Ok(config)
}
