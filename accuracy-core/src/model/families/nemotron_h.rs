//! Nemotron-H: each layer is one of a state space (Mamba-2), attention without a rotation, an MLP or experts. MLPs have no
//! gate and square what ReLU gives.

use super::{Family, NESTED};
use crate::model::config::{
    Inner, Mixture, ModelConfig, ModelError, Norms, Object, Parts, StateSpace, corrected_router,
};

pub const FAMILY: Family = Family { model_types: &["nemotron_h"], nested: NESTED, read };

/// What a layer is, as the configuration names it.
#[derive(Clone, Copy)]
enum Kind {
    State,
    Attention,
    Mlp,
    Experts,
}

fn kinds(c: &Object) -> Result<Vec<Kind>, ModelError> {
    if let Some(names) = c.list("layers_block_type").or(c.list("layer_types")) {
        return names
            .iter()
            .map(|name| match name.as_str().unwrap_or_default() {
                "linear_attention" | "mamba" => Ok(Kind::State),
                "full_attention" | "attention" => Ok(Kind::Attention),
                "mlp" => Ok(Kind::Mlp),
                "moe" => Ok(Kind::Experts),
                other => Err(
                    c.bad(format!("layer type `{other}`; known: linear_attention, full_attention, mlp, moe"))
                ),
            })
            .collect();
    }
    let pattern = c.text("hybrid_override_pattern").ok_or_else(|| c.missing("layers_block_type"))?;
    pattern
        .chars()
        .map(|letter| match letter {
            'M' => Ok(Kind::State),
            '*' => Ok(Kind::Attention),
            '-' => Ok(Kind::Mlp),
            'E' => Ok(Kind::Experts),
            other => Err(c.bad(format!("hybrid_override_pattern has `{other}`; known: M, *, -, E"))),
        })
        .collect()
}

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let kinds = kinds(c)?;
    let mut config = ModelConfig::decoder_of(c, kinds.len())?;
    let number = |keys: &[&str]| c.need(keys);
    let state = StateSpace {
        heads: number(&["mamba_num_heads"])?,
        head_dim: number(&["mamba_head_dim"])?,
        state: number(&["ssm_state_size"])?,
        groups: number(&["n_groups", "mamba_n_groups"])?,
        kernel: number(&["conv_kernel", "mamba_d_conv"])?,
        shortest: c.number("time_step_min").or(c.number("mamba_dt_min")).unwrap_or(0.001),
    };
    if !state.heads.is_multiple_of(state.groups) {
        return Err(c.bad(format!("{} heads of a state space in {} groups", state.heads, state.groups)));
    }
    config.state = Some(state);
    let latent = c.optional("moe_latent_size")?;
    for (layer, kind) in config.layers.iter_mut().zip(kinds) {
        layer.rope = None;
        match kind {
            Kind::State => (layer.parts, layer.linear) = (Parts::Mixer, true),
            Kind::Attention => layer.parts = Parts::Mixer,
            Kind::Mlp => layer.parts = Parts::Mlp,
            Kind::Experts => {
                layer.parts = Parts::Mlp;
                layer.router = Some(corrected_router(c)?);
                layer.shared = true;
            }
        }
    }
    config.form.stored = &["backbone"];
    config.form.embeddings = "embeddings";
    config.form.last_norm = "norm_f";
    config.form.attention = "mixer";
    config.form.mlp = "mixer";
    config.form.inner = Inner::Plain;
    config.form.norms =
        Norms { before_attention: Some("norm"), after_attention: None, before_mlp: None, after_mlp: None };
    config.form.mixture = Mixture {
        modules: &["mixer"],
        weights: "mixer",
        shared_inner: c.count("moe_shared_expert_intermediate_size"),
        latent,
        ..config.form.mixture
    };
    Ok(config)
}
