//! Qwen2, Qwen3, Qwen3-MoE and the text part of Qwen3-VL. From the third generation on, queries and keys are normed by
//! heads.

use super::{Family, NESTED};
use crate::model::config::{ModelConfig, ModelError, Object, QkNorm, Score, router};
use crate::reference::model::RopeStyle;

pub const DENSE2: Family = Family { model_types: &["qwen2"], nested: NESTED, read: dense };
pub const DENSE3: Family = Family { model_types: &["qwen3"], nested: NESTED, read: normed };
pub const MOE3: Family = Family { model_types: &["qwen3_moe"], nested: NESTED, read: mixture };
/// For text alone the three parts of a position are equal, so that the embedding is the plain one.
pub const VL3: Family = Family { model_types: &["qwen3_vl_text"], nested: NESTED, read: normed };

fn dense(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    let sliding = c.flag("use_sliding_window").unwrap_or(false);
    let from = c.count("max_window_layers").unwrap_or(0);
    config.windows(c, |layer| sliding && layer >= from)?;
    Ok(config)
}

fn normed(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = dense(c)?;
    config.attention.qk_norm = QkNorm::Head;
    Ok(config)
}

fn mixture(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = normed(c)?;
    let step = c.count("decoder_sparse_step").unwrap_or(1).max(1);
    let dense = c.list("mlp_only_layers").unwrap_or(&[]);
    let mut made = router(c, Score::Softmax)?;
    made.renormalise = c.flag("norm_topk_prob").unwrap_or(false);
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let listed = dense.iter().any(|v| v.as_u64() == Some(i as u64));
        layer.router = (!listed && (i + 1).is_multiple_of(step)).then(|| made.clone());
    }
    Ok(config)
}
