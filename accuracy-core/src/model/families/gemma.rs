//! Gemma 2 and 3: norms around both branches that multiply with `1 + w`, scaled embeddings, a window in most layers. The
//! second generation has soft caps, the third normed heads and a rotary embedding of its own for the sliding layers.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Norms, Object, QkNorm};
use crate::model::rope::Rope;
use crate::reference::model::RopeStyle;

pub const SECOND: Family = Family { model_types: &["gemma2"], nested: NESTED, read: second };
pub const THIRD: Family = Family { model_types: &["gemma3_text"], nested: NESTED, read: third };

fn common(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.form.one_plus = true;
    config.form.embedding_scale = (config.hidden as f64).sqrt();
    config.form.norms = Norms {
        before_attention: Some("input_layernorm"),
        after_attention: Some("post_attention_layernorm"),
        before_mlp: Some("pre_feedforward_layernorm"),
        after_mlp: Some("post_feedforward_layernorm"),
    };
    if let Some(scalar) = c.number("query_pre_attn_scalar") {
        config.attention.scale = scalar.powf(-0.5);
    }
    config.attention.cap = c.number("attn_logit_softcapping");
    config.form.logits_cap = c.number("final_logit_softcapping");
    Ok(config)
}

fn second(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = common(c)?;
    config.windows(c, |layer| layer.is_multiple_of(2))?;
    Ok(config)
}

fn third(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = common(c)?;
    config.attention.qk_norm = QkNorm::Head;
    let pattern = c.count("sliding_window_pattern").unwrap_or(6).max(1);
    config.windows(c, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let d = config.attention.key_dim;
    let parameters = c.optional_object(&["rope_parameters"])?;
    let of = |key: &str| parameters.as_ref().and_then(|p| p.object(key));
    let local = match of("sliding_attention") {
        Some(local) => Rope::of(c, Some(&local), d, RopeStyle::Neox)?,
        None => Rope::unscaled(d, RopeStyle::Neox, c.number("rope_local_base_freq").unwrap_or(10_000.0)),
    };
    if let Some(global) = of("full_attention") {
        config.ropes[0] = Rope::of(c, Some(&global), d, RopeStyle::Neox)?;
    }
    config.ropes.push(local);
    for layer in &mut config.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
    Ok(config)
}
