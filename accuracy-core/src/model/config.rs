//! What `config.json` decides about a model's arithmetic: Llama, Qwen3, Qwen3-MoE, DeepSeek-V3, gpt-oss and BERT.
//!
//! Weights and quantisation are not read here ([`crate::weights`]). No value is assumed that the file could say.

use super::rope::{Rope, yarn_mscale};
use crate::reference::model::RopeStyle;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why a model's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}: cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Bad { path: PathBuf, reason: String },
    #[error(
        "{}: model_type `{model_type}` is not known; known: {}. Describe its operations in a mapping file (--mapping)",
        path.display(), KNOWN.join(", ")
    )]
    Unknown { path: PathBuf, model_type: String },
}

pub const KNOWN: &[&str] =
    &["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3", "gpt_oss", "bert"];

/// A JSON object and the file it is from.
#[derive(Clone, Debug)]
pub struct Object {
    path: PathBuf,
    value: serde_json::Map<String, Value>,
}

impl Object {
    pub fn read(path: &Path) -> Result<Object, ModelError> {
        let text = crate::files::read(path, crate::files::TEXT)
            .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        let bad = |reason: String| ModelError::Bad { path: path.to_owned(), reason };
        match serde_json::from_slice(&text).map_err(|e| bad(format!("not JSON: {e}")))? {
            Value::Object(value) => Ok(Object { path: path.to_owned(), value }),
            _ => Err(bad("not a JSON object".to_owned())),
        }
    }

    pub fn bad(&self, reason: String) -> ModelError {
        ModelError::Bad { path: self.path.clone(), reason }
    }

    pub fn missing(&self, key: &str) -> ModelError {
        self.bad(format!("`{key}` is missing, or not what it should be"))
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        self.value.get(key)?.as_f64()
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.value.get(key)?.as_bool()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    pub fn object(&self, key: &str) -> Option<Object> {
        let value = self.value.get(key)?.as_object()?.clone();
        Some(Object { path: self.path.clone(), value })
    }

    fn list(&self, key: &str) -> Option<&[Value]> {
        Some(self.value.get(key)?.as_array()?)
    }

    fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.value.get(key)?.as_u64()?).ok()
    }

    /// A count that may be left out or `null`, but is not zero.
    fn optional(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match self.count(key).filter(|&n| n > 0) {
                Some(n) => Ok(Some(n)),
                None => Err(self.bad(format!("`{key}` is {value}, expected a count"))),
            },
        }
    }

    /// An object under the first of several names that is there and not `null`.
    pub fn optional_object(&self, keys: &[&str]) -> Result<Option<Object>, ModelError> {
        let there = keys.iter().find(|key| self.value.get(**key).is_some_and(|v| !v.is_null()));
        let Some(key) = there else { return Ok(None) };
        self.object(key).map(Some).ok_or_else(|| self.bad(format!("`{key}` is not an object")))
    }

    /// A count under the first of several names that is there, and not zero.
    fn need(&self, keys: &[&str]) -> Result<usize, ModelError> {
        let found = keys.iter().find_map(|key| self.count(key)).filter(|&n| n > 0);
        let there = keys.iter().find(|key| self.value.contains_key(**key));
        found.ok_or_else(|| self.missing(there.unwrap_or(&keys[0])))
    }
}

/// The nonlinearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// With the error function.
    Gelu,
    GeluTanh,
    Relu,
    /// gpt-oss: `(clamp(up, ±limit) + 1) * g * sigmoid(alpha * g)` with `g = min(gate, limit)`.
    Clamped {
        alpha: f64,
        limit: f64,
    },
}

/// Scores of experts from the router's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Over all experts, before choosing.
    Softmax,
    Sigmoid,
    /// Over the chosen ones (gpt-oss).
    SoftmaxOfChosen,
}

/// How a mixture of experts chooses and weighs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    pub experts: usize,
    pub topk: usize,
    pub score: Score,
    /// `e_score_correction_bias` is added for choosing only.
    pub correction: bool,
    /// Groups of experts, and how many of them are kept.
    pub groups: Option<(usize, usize)>,
    pub renormalise: bool,
    pub scaling: f64,
}

/// Multi-head latent attention (DeepSeek).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mla {
    /// `None`: queries are projected at once.
    pub q_lora: Option<usize>,
    pub kv_lora: usize,
    pub nope: usize,
    pub rope: usize,
}

/// What the layers' attention has in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// What scores are multiplied with.
    pub scale: f64,
    pub causal: bool,
    /// A learnt logit for each head that takes part in the softmax alone.
    pub sinks: bool,
    /// RMSNorm of each head of q and k before the rotation.
    pub qk_norm: bool,
    pub mla: Option<Mla>,
}

/// No model comes near it; a damaged number is not to fill the memory.
const MAX_LAYERS: usize = 10_000;

/// What differs between layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// A position attends to so many, itself included.
    pub window: Option<usize>,
    /// `None`: a dense MLP.
    pub router: Option<Router>,
    /// An expert that every token passes through.
    pub shared: bool,
}

/// The arithmetic of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub model_type: String,
    pub hidden: usize,
    pub norm_eps: f64,
    pub attention: Attention,
    pub rope: Option<Rope>,
    pub activation: Activation,
    pub layers: Vec<Layer>,
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// It cannot be read, a key is missing, or the architecture is not known.
    pub fn read(path: &Path) -> Result<ModelConfig, ModelError> {
        let file = Object::read(path)?;
        let c = match file.object("text_config") {
            Some(text) if file.count("hidden_size").is_none() => text,
            _ => file,
        };
        let model_type = c.text("model_type").ok_or_else(|| c.missing("model_type"))?.to_owned();
        if !KNOWN.contains(&model_type.as_str()) {
            return Err(ModelError::Unknown { path: path.to_owned(), model_type });
        }
        let hidden = c.need(&["hidden_size"])?;
        let heads = c.need(&["num_attention_heads"])?;
        let layers = c.need(&["num_hidden_layers"])?;
        if layers > MAX_LAYERS {
            return Err(c.bad(format!("num_hidden_layers {layers}: more than {MAX_LAYERS}")));
        }
        let bert = model_type == "bert";
        let eps_key = if bert { "layer_norm_eps" } else { "rms_norm_eps" };
        let norm_eps = c.number(eps_key).ok_or_else(|| c.missing(eps_key))?;
        let activation = activation(&c, &model_type)?;
        let (attention, rope) = if model_type == "deepseek_v3" {
            latent(&c, heads)?
        } else {
            let d = c.count("head_dim").filter(|&d| d > 0).unwrap_or(hidden / heads);
            let kv_heads = c.count("num_key_value_heads").unwrap_or(heads);
            if kv_heads == 0 || heads % kv_heads != 0 || d % 2 != 0 {
                return Err(c.bad(format!("{heads} heads, {kv_heads} kv heads of {d}")));
            }
            let rope = if bert { None } else { Some(Rope::read(&c, d, RopeStyle::Neox)?) };
            let attention = Attention {
                heads,
                kv_heads,
                key_dim: d,
                value_dim: d,
                scale: (d as f64).powf(-0.5),
                causal: !bert,
                sinks: model_type == "gpt_oss",
                qk_norm: model_type.starts_with("qwen3"),
                mla: None,
            };
            (attention, rope)
        };
        let layers = (0..layers).map(|i| layer(&c, &model_type, i)).collect::<Result<_, _>>()?;
        Ok(ModelConfig { model_type, hidden, norm_eps, attention, rope, activation, layers })
    }
}

fn activation(c: &Object, model_type: &str) -> Result<Activation, ModelError> {
    if model_type == "gpt_oss" {
        let limit = c.number("swiglu_limit").unwrap_or(7.0);
        return Ok(Activation::Clamped { alpha: c.number("swiglu_alpha").unwrap_or(1.702), limit });
    }
    let named =
        c.value.get("hidden_act").map(|v| v.as_str().ok_or_else(|| c.missing("hidden_act"))).transpose()?;
    match named.unwrap_or("silu") {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(c.bad(format!("hidden_act `{other}`; known: silu, gelu, gelu_pytorch_tanh, relu"))),
    }
}

fn latent(c: &Object, heads: usize) -> Result<(Attention, Option<Rope>), ModelError> {
    let (nope, dims) = (c.need(&["qk_nope_head_dim"])?, c.need(&["qk_rope_head_dim"])?);
    let style = if c.flag("rope_interleave").unwrap_or(true) { RopeStyle::GptJ } else { RopeStyle::Neox };
    let rope = Rope::read(c, dims, style)?;
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
    let attention = Attention {
        heads,
        kv_heads: heads,
        key_dim,
        value_dim: c.need(&["v_head_dim"])?,
        scale,
        causal: true,
        sinks: false,
        qk_norm: false,
        mla: Some(mla),
    };
    Ok((attention, Some(rope)))
}

fn layer(c: &Object, model_type: &str, index: usize) -> Result<Layer, ModelError> {
    let named = |types: &[Value]| types.get(index).and_then(Value::as_str).map(|t| t == "sliding_attention");
    let sliding = match c.list("layer_types").and_then(named) {
        Some(sliding) => sliding,
        None if model_type == "gpt_oss" => index.is_multiple_of(2),
        None if model_type == "mistral" => true,
        None => c.flag("use_sliding_window").unwrap_or(false),
    };
    let window = c.optional("sliding_window")?.filter(|_| sliding);
    let experts = &["num_local_experts", "num_experts", "n_routed_experts"];
    let base = |score| -> Result<Router, ModelError> {
        Ok(Router {
            experts: c.need(experts)?,
            topk: c.need(&["num_experts_per_tok"])?,
            score,
            correction: false,
            groups: None,
            renormalise: false,
            scaling: 1.0,
        })
    };
    let router = match model_type {
        "gpt_oss" => Some(base(Score::SoftmaxOfChosen)?),
        "qwen3_moe" => {
            let step = c.count("decoder_sparse_step").unwrap_or(1).max(1);
            let dense = c
                .list("mlp_only_layers")
                .is_some_and(|list| list.iter().any(|v| v.as_u64() == Some(index as u64)));
            let renormalise = c.flag("norm_topk_prob").unwrap_or(false);
            let sparse = !dense && (index + 1).is_multiple_of(step);
            sparse.then(|| Ok(Router { renormalise, ..base(Score::Softmax)? })).transpose()?
        }
        "deepseek_v3" if index >= c.count("first_k_dense_replace").unwrap_or(0) => {
            let groups = (c.optional("n_group")?.unwrap_or(1), c.optional("topk_group")?.unwrap_or(1));
            Some(Router {
                correction: true,
                groups: Some(groups).filter(|g| g.0 > 1),
                renormalise: c.flag("norm_topk_prob").unwrap_or(true),
                scaling: c.number("routed_scaling_factor").unwrap_or(1.0),
                ..base(Score::Sigmoid)?
            })
        }
        _ => None,
    };
    if let Some(r) = &router
        && (r.topk > r.experts
            || r.groups.is_some_and(|(n, k)| k > n || r.experts % n != 0 || k * (r.experts / n) < r.topk))
    {
        let groups = r.groups.map_or(String::new(), |(all, kept)| format!(", from {kept} of {all} groups"));
        return Err(c.bad(format!("a router that chooses {} of {} experts{groups}", r.topk, r.experts)));
    }
    let shared = router.is_some() && c.count("n_shared_experts").unwrap_or(0) > 0;
    Ok(Layer { window, router, shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_there_and_wrong_is_named_and_not_replaced_by_a_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let read = |key: &str, value: &str| {
            let mut config = serde_json::json!({
                "model_type": "deepseek_v3", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
                "rms_norm_eps": 1e-6, "hidden_act": "silu", "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
                "kv_lora_rank": 24, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
            });
            config[key] = serde_json::from_str(value).unwrap();
            std::fs::write(&path, config.to_string()).unwrap();
            ModelConfig::read(&path)
        };
        for (key, value) in [
            ("hidden_act", "null"),
            ("n_group", "0"),
            ("topk_group", "-1"),
            ("sliding_window", "-3"),
            ("rope_parameters", "[]"),
            ("rope_scaling", "\"yarn\""),
        ] {
            let error = read(key, value).unwrap_err().to_string();
            assert!(error.contains(key), "{key} {value}: {error}");
        }
        for key in ["n_group", "sliding_window", "rope_scaling", "rope_parameters"] {
            read(key, "null").unwrap();
        }
    }
}
