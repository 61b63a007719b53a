//! DeepSeek-V3 and Kimi K2: latent attention, groups of experts, experts that every token takes.

use super::{Family, NESTED};
use crate::model::config::{Attention, Mla, ModelConfig, ModelError, Object, corrected_router, shared_inner};
use crate::model::rope::{Rope, yarn_mscale};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["deepseek_v3", "kimi_k2"], nested: NESTED, read };

pub(super) fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::decoder(c)?;
    let heads = config.attention.heads;
    let (nope, dims) = (c.need(&["qk_nope_head_dim"])?, c.need(&["qk_rope_head_dim"])?);
    let style = if c.flag("rope_interleave").unwrap_or(true) { RopeStyle::GptJ } else { RopeStyle::Neox };
    config.ropes = vec![Rope::read(c, dims, style)?];
    let key_dim = nope + dims;
    let mut scale = (key_dim as f64).powf(-0.5);
    // DeepSeek scales the scores where others scale cosines and sines.
    if let Some(scaling) = c.optional_object(&["rope_parameters", "rope_scaling"])?
        && scaling.text("rope_type").or(scaling.text("type")).is_some_and(|t| t != "default")
        && let (Some(factor), Some(all)) = (scaling.number("factor"), scaling.number("mscale_all_dim"))
        && all != 0.0
    {
        scale *= yarn_mscale(factor, all).powi(2);
    }
    let mla = Mla { q_lora: c.count("q_lora_rank"), kv_lora: c.need(&["kv_lora_rank"])?, nope, rope: dims };
    config.attention = Attention {
        kv_heads: heads,
        key_dim,
        value_dim: c.need(&["v_head_dim"])?,
        scale,
        mla: Some(mla),
        ..config.attention
    };
    let dense = c.count("first_k_dense_replace").unwrap_or(0);
    if dense < config.layers.len() {
        let router = corrected_router(c)?;
        let shared = c.count("n_shared_experts").unwrap_or(0) > 0;
        for layer in &mut config.layers[dense..] {
            layer.router = Some(router.clone());
            layer.shared = shared;
        }
    }
    config.form.mixture.shared_inner = shared_inner(c);
    config.windows(c, |_| false)?;
    Ok(config)
}
