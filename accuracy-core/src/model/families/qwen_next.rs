//! Qwen3-Next: three of four layers have linear attention by the gated delta rule, the fourth softmax attention with an
//! output gate. Norms multiply with `1 + w`, and the shared expert has a gate.

use super::{Family, NESTED};
use crate::model::config::{DeltaNet, Mixture, ModelConfig, ModelError, Object, QkNorm, Score, router};
use crate::reference::model::RopeStyle;

pub const NEXT3: Family = Family { model_types: &["qwen3_next"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.form.one_plus = true;
    config.attention.qk_norm = QkNorm::Head;
    config.attention.gate = true;
    let net = DeltaNet {
        key_heads: c.need(&["linear_num_key_heads"])?,
        value_heads: c.need(&["linear_num_value_heads"])?,
        key_dim: c.need(&["linear_key_head_dim"])?,
        value_dim: c.need(&["linear_value_head_dim"])?,
        kernel: c.need(&["linear_conv_kernel_dim"])?,
    };
    if !net.value_heads.is_multiple_of(net.key_heads) {
        return Err(c.bad(format!("{} value heads for {} key heads", net.value_heads, net.key_heads)));
    }
    config.delta = Some(net);
    let types = c.list("layer_types");
    let interval = c.count("full_attention_interval").unwrap_or(4).max(1);
    let mut made = router(c, Score::Softmax)?;
    made.renormalise = c.flag("norm_topk_prob").unwrap_or(true);
    let step = c.count("decoder_sparse_step").unwrap_or(1).max(1);
    let dense = c.list("mlp_only_layers").unwrap_or(&[]);
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let named = types.and_then(|t| t.get(i)).and_then(|t| t.as_str());
        layer.linear = named.map_or(!(i + 1).is_multiple_of(interval), |name| name == "linear_attention");
        let listed = dense.iter().any(|v| v.as_u64() == Some(i as u64));
        if !listed && (i + 1).is_multiple_of(step) {
            layer.router = Some(made.clone());
            layer.shared = true;
        }
    }
    config.form.mixture = Mixture {
        shared: "shared_expert",
        shared_gate: Some("shared_expert_gate"),
        shared_inner: c.count("shared_expert_intermediate_size"),
        ..config.form.mixture
    };
    Ok(config)
}
