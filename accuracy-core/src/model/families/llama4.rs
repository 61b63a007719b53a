//! Llama 4: neighbouring elements are rotated together, three layers of four attend within chunks, the fourth has no
//! rotation and scaled queries. Queries and keys are normed without a weight, behind the rotation. Experts take inputs that
//! are multiplied with sigmoids of the router's logits.

use super::Family;
use crate::model::config::{
    Given, Mixture, ModelConfig, ModelError, Object, QkNorm, Score, Stack, Temperature, Weighed, router,
};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family {
    model_types: &["llama4_text"],
    nested: ("language_model.model", "language_model.lm_head"),
    read,
};

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::GptJ)?;
    if c.flag("use_qk_norm").unwrap_or(true) {
        config.attention.qk_norm = QkNorm::Unit;
    }
    if c.flag("attn_temperature_tuning").unwrap_or(true) {
        let floor = c.number("floor_scale").unwrap_or(8192.0);
        config.attention.temperature =
            Some(Temperature { floor, scale: c.number("attn_scale").unwrap_or(0.1) });
    }
    let made = router(c, Score::Sigmoid)?;
    let number = |key: &str| c.list(key).filter(|all| !all.is_empty());
    let (rotates, mixed, types) = (number("no_rope_layers"), number("moe_layers"), number("layer_types"));
    let interval = c.count("no_rope_layer_interval").unwrap_or(4).max(1);
    let step = c.count("interleave_moe_layer_step").unwrap_or(1).max(1);
    let chunk = c.optional("attention_chunk_size")?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let told = rotates.and_then(|all| all.get(i)).and_then(|v| v.as_u64());
        if !told.map_or(!(i + 1).is_multiple_of(interval), |v| v != 0) {
            layer.rope = None;
        }
        let named = types.and_then(|all| all.get(i)).and_then(|v| v.as_str());
        let chunked = named.map_or(layer.rope.is_some(), |name| name == "chunked_attention");
        layer.chunk = chunk.filter(|_| chunked);
        let listed = mixed.map(|all| all.iter().any(|v| v.as_u64() == Some(i as u64)));
        if listed.unwrap_or((i + 1).is_multiple_of(step)) {
            layer.router = Some(made.clone());
            layer.shared = true;
        }
    }
    config.form.mlp = "feed_forward";
    config.form.mixture = Mixture {
        modules: &["feed_forward"],
        weights: "feed_forward",
        gate: "router",
        shared: "shared_expert",
        shared_inner: config.inner,
        given: Given::All,
        weighed: Weighed::Input,
        stack: Stack::InOut,
        ..config.form.mixture
    };
    config.inner = c.count("intermediate_size_mlp");
    Ok(config)
}
