//! What `config.json` decides about a model's arithmetic. What a family of models has of its own is in
//! [`families`](super::families).
//!
//! Weights and quantisation are not read here ([`crate::weights`]). No value is assumed that the file could say.

use super::inputs::Inputs;
pub use super::object::{ModelError, Object};
use super::place::Names;
use super::rope::Rope;
use crate::reference::model::RopeStyle;
use serde_json::Value;

/// The nonlinearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// With the error function.
    Gelu,
    GeluTanh,
    Relu,
    /// The square of ReLU.
    Relu2,
    /// gpt-oss: `(clamp(up, ±limit) + plus) * g * sigmoid(alpha * g)` with `g = min(gate, limit)`; `plus` is 1.
    Clamped {
        alpha: f64,
        limit: f64,
        plus: f64,
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

/// What chooses the positions that a token attends to (DeepSeek-V3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexer {
    pub heads: usize,
    pub dim: usize,
    /// First elements of a head that are rotated, by halves.
    pub rope: usize,
    /// Positions that are chosen.
    pub topk: usize,
}

/// Linear attention by the gated delta rule (Qwen3-Next).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNet {
    pub key_heads: usize,
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// Tokens that the convolution sees.
    pub kernel: usize,
}

/// Mamba-2's state space (Nemotron-H).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateSpace {
    pub heads: usize,
    pub head_dim: usize,
    /// Elements of a head's state for each of its values.
    pub state: usize,
    /// Groups of heads that share what is read and written.
    pub groups: usize,
    /// Tokens that the convolution sees.
    pub kernel: usize,
    /// Time steps of a prefill are no shorter in transformers; engines and steps of decoding know no limit.
    pub shortest: f64,
}

impl StateSpace {
    /// Columns of the values.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of the projection: gates, values, what is written, what is read, and time steps.
    pub fn projected(&self) -> usize {
        2 * self.inner() + 2 * self.groups * self.state + self.heads
    }
}

/// RMSNorm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    None,
    /// Of each head before the rotation, with one weight for all heads.
    Head,
    /// Of all heads together before the rotation.
    Whole,
    /// Of each head after the rotation and without a weight, in layers that rotate (Llama 4).
    Unit,
}

/// Queries of layers without a rotation are multiplied with `1 + scale * ln(1 + floor((position + 1) / floor))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    pub floor: f64,
    pub scale: f64,
}

impl Temperature {
    pub fn at(&self, position: f64) -> f64 {
        1.0 + self.scale * ((position + 1.0) / self.floor).floor().ln_1p()
    }
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
    /// Scores are `cap * tanh(score / cap)`.
    pub cap: Option<f64>,
    pub causal: bool,
    /// A learnt logit for each head that takes part in the softmax alone.
    pub sinks: bool,
    pub qk_norm: QkNorm,
    pub mla: Option<Mla>,
    pub temperature: Option<Temperature>,
    pub indexer: Option<Indexer>,
    /// Each head of queries has as many columns again, whose sigmoid the output is multiplied with.
    pub gate: bool,
}

/// Where most families keep the correction of a router.
pub(super) const CORRECTION: &str = "gate.e_score_correction_bias";

/// No model comes near it; a damaged number is not to fill the memory.
const MAX_LAYERS: usize = 10_000;

/// What a layer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Attention of some kind, and an MLP or experts.
    Both,
    /// Attention of some kind alone.
    Mixer,
    /// An MLP or experts alone.
    Mlp,
}

/// What differs between layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub parts: Parts,
    /// A position attends to so many, itself included.
    pub window: Option<usize>,
    /// Positions are cut into chunks of so many, and a position attends to its own chunk.
    pub chunk: Option<usize>,
    /// The index of its rotary embedding; `None`: it has none.
    pub rope: Option<usize>,
    /// `None`: a dense MLP.
    pub router: Option<Router>,
    /// An expert that every token passes through.
    pub shared: bool,
    /// Linear attention or a state space in place of softmax attention.
    pub linear: bool,
}

/// Whether MLPs and experts multiply what is activated with a second projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    Gated,
    /// `down(activation(up x))`.
    Plain,
}

/// What an expert's routing weight is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighed {
    Output,
    /// Llama 4.
    Input,
}

/// Rows and columns of a weight that all experts share a tensor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// `[experts, out, in]`
    OutIn,
    /// `[experts, in, out]`, gate before up.
    InOut,
}

/// What a router's module gives in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Logits, weights of the chosen experts, and which these are.
    Chosen,
    /// Weights of all experts, zero for those that are not chosen, and logits.
    All,
}

/// The norms of a decoder's layer, by the names of their modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norms {
    pub before_attention: Option<&'static str>,
    pub after_attention: Option<&'static str>,
    pub before_mlp: Option<&'static str>,
    pub after_mlp: Option<&'static str>,
}

/// Modules of a mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// The block, as a dump may call it.
    pub modules: Names,
    /// The block in the checkpoint.
    pub weights: &'static str,
    pub gate: &'static str,
    /// The correction for choosing, in the block of the checkpoint.
    pub correction: &'static str,
    /// The expert that every token passes through, and the linear whose sigmoid it is multiplied with.
    pub shared: &'static str,
    pub shared_gate: Option<&'static str>,
    /// Inner columns of that expert, where the file says it.
    pub shared_inner: Option<usize>,
    pub given: Given,
    pub weighed: Weighed,
    pub stack: Stack,
    /// Experts take and give so many columns, between two projections.
    pub latent: Option<usize>,
}

/// How a decoder is put together, beside its attention and its experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// The module that has the embedding, the layers and the final norm.
    pub prefix: &'static str,
    /// What checkpoints may call that module otherwise.
    pub stored: Names,
    /// Modules in it: the embedding, the norm behind the last layer, and those of a layer.
    pub embeddings: &'static str,
    pub last_norm: &'static str,
    pub attention: &'static str,
    pub mlp: &'static str,
    /// The module that makes logits.
    pub head: &'static str,
    pub inner: Inner,
    /// Embeddings are multiplied with it.
    pub embedding_scale: f64,
    /// Norms multiply with `1 + weight`.
    pub one_plus: bool,
    pub norms: Norms,
    pub mixture: Mixture,
    /// What attention and MLP give is multiplied with it before it is added to the stream.
    pub branch_scale: f64,
    /// Logits are multiplied with it.
    pub logits_scale: f64,
    /// Logits are `cap * tanh(logit / cap)`.
    pub logits_cap: Option<f64>,
    /// The checkpoint has queries, keys and values, or gate and up, in one weight of this name.
    pub fused_qkv: Option<&'static str>,
    pub fused_gate_up: Option<&'static str>,
}

/// The arithmetic of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub model_type: String,
    pub hidden: usize,
    /// Inner columns of a dense MLP, where the file says it.
    pub inner: Option<usize>,
    pub vocabulary: Option<usize>,
    pub norm_eps: f64,
    pub attention: Attention,
    pub delta: Option<DeltaNet>,
    pub state: Option<StateSpace>,
    pub ropes: Vec<Rope>,
    pub activation: Activation,
    pub layers: Vec<Layer>,
    pub form: Form,
    pub inputs: Inputs,
}

impl ModelConfig {
    /// A decoder as Llama is one: what other families are changes of.
    pub(super) fn decoder(c: &Object) -> Result<ModelConfig, ModelError> {
        ModelConfig::decoder_of(c, c.need(&["num_hidden_layers"])?)
    }

    /// The same with so many layers, which not every file says.
    pub(super) fn decoder_of(c: &Object, layers: usize) -> Result<ModelConfig, ModelError> {
        let model_type = c.text("model_type").ok_or_else(|| c.missing("model_type"))?.to_owned();
        let hidden = c.need(&["hidden_size"])?;
        let heads = c.need(&["num_attention_heads"])?;
        if layers > MAX_LAYERS {
            return Err(c.bad(format!("num_hidden_layers {layers}: more than {MAX_LAYERS}")));
        }
        let d = c.count("head_dim").filter(|&d| d > 0).unwrap_or(hidden / heads);
        let kv_heads = c.count("num_key_value_heads").unwrap_or(heads);
        if kv_heads == 0 || heads % kv_heads != 0 || !d.is_multiple_of(2) {
            return Err(c.bad(format!("{heads} heads, {kv_heads} kv heads of {d}")));
        }
        let attention = Attention {
            heads,
            kv_heads,
            key_dim: d,
            value_dim: d,
            scale: (d as f64).powf(-0.5),
            cap: None,
            causal: true,
            sinks: false,
            qk_norm: QkNorm::None,
            mla: None,
            temperature: None,
            indexer: None,
            gate: false,
        };
        let form = Form {
            prefix: "model",
            stored: &[],
            embeddings: "embed_tokens",
            last_norm: "norm",
            attention: "self_attn",
            mlp: "mlp",
            head: "lm_head",
            inner: Inner::Gated,
            embedding_scale: 1.0,
            one_plus: false,
            norms: Norms {
                before_attention: Some("input_layernorm"),
                after_attention: None,
                before_mlp: Some("post_attention_layernorm"),
                after_mlp: None,
            },
            mixture: Mixture {
                modules: &["mlp"],
                weights: "mlp",
                gate: "gate",
                correction: CORRECTION,
                shared: "shared_experts",
                shared_gate: None,
                shared_inner: None,
                given: Given::Chosen,
                weighed: Weighed::Output,
                stack: Stack::OutIn,
                latent: None,
            },
            branch_scale: 1.0,
            logits_scale: 1.0,
            logits_cap: None,
            fused_qkv: None,
            fused_gate_up: None,
        };
        let layer = Layer {
            parts: Parts::Both,
            window: None,
            chunk: None,
            rope: Some(0),
            router: None,
            shared: false,
            linear: false,
        };
        let keys = ["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"];
        let norm_eps = keys.into_iter().find_map(|key| c.number(key));
        Ok(ModelConfig {
            model_type,
            hidden,
            inner: c.count("intermediate_size"),
            vocabulary: c.count("vocab_size"),
            norm_eps: norm_eps.ok_or_else(|| c.missing("rms_norm_eps"))?,
            attention,
            delta: None,
            state: None,
            ropes: Vec::new(),
            activation: activation(c, "silu")?,
            layers: vec![layer; layers],
            form,
            inputs: Inputs::default(),
        })
    }

    /// The same with its rotary embedding, of whole heads or as much of them as the file says.
    pub(super) fn rotated(c: &Object, style: RopeStyle) -> Result<ModelConfig, ModelError> {
        let mut config = ModelConfig::decoder(c)?;
        let (dims, head) = (rotated_dims(c, config.attention.key_dim), config.attention.key_dim);
        if dims == 0 || dims > head || !dims.is_multiple_of(2) {
            return Err(c.bad(format!("{dims} rotated elements of heads of {head}")));
        }
        config.ropes = vec![Rope::read(c, dims, style)?];
        Ok(config)
    }

    /// Windows of the layers that `layer_types` calls sliding, else of those that `sliding` says.
    pub(super) fn windows(&mut self, c: &Object, sliding: impl Fn(usize) -> bool) -> Result<(), ModelError> {
        let types = c.list("layer_types");
        let window = c.optional("sliding_window")?;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let named = types.and_then(|t| t.get(i)).and_then(Value::as_str);
            let slides = named.map_or_else(|| sliding(i), |t| t == "sliding_attention");
            layer.window = window.filter(|_| slides);
        }
        Ok(())
    }

    pub(super) fn check(&self, c: &Object) -> Result<(), ModelError> {
        for r in self.layers.iter().filter_map(|l| l.router.as_ref()) {
            if r.topk > r.experts
                || r.groups.is_some_and(|(n, k)| k > n || r.experts % n != 0 || k * (r.experts / n) < r.topk)
            {
                let groups =
                    r.groups.map_or(String::new(), |(all, kept)| format!(", from {kept} of {all} groups"));
                return Err(
                    c.bad(format!("a router that chooses {} of {} experts{groups}", r.topk, r.experts))
                );
            }
        }
        Ok(())
    }

    /// The rotary embedding of a layer.
    pub fn rope(&self, index: Option<usize>) -> Option<&Rope> {
        self.ropes.get(index?)
    }
}

/// Elements of a head that are rotated.
pub(super) fn rotated_dims(c: &Object, head: usize) -> usize {
    let scaling = c.object("rope_parameters").or_else(|| c.object("rope_scaling"));
    let told = scaling.and_then(|s| s.number("partial_rotary_factor"));
    let factor = told.or(c.number("partial_rotary_factor")).unwrap_or(1.0);
    c.count("rotary_dim").unwrap_or((head as f64 * factor) as usize)
}

pub(super) fn activation(c: &Object, default: &str) -> Result<Activation, ModelError> {
    let key = ["hidden_activation", "hidden_act", "mlp_hidden_act"]
        .into_iter()
        .find(|key| c.value.contains_key(*key));
    let named = key.map(|key| c.text(key).ok_or_else(|| c.missing(key))).transpose()?;
    match named.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::Relu2),
        other => {
            Err(c.bad(format!("hidden_act `{other}`; known: silu, gelu, gelu_pytorch_tanh, relu, relu2")))
        }
    }
}

/// A router as the usual keys describe it.
pub(super) fn router(c: &Object, score: Score) -> Result<Router, ModelError> {
    Ok(Router {
        experts: c.need(&["num_local_experts", "num_experts", "n_routed_experts"])?,
        topk: c.need(&["num_experts_per_tok"])?,
        score,
        correction: false,
        groups: None,
        renormalise: false,
        scaling: 1.0,
    })
}

/// DeepSeek's router, which several families have: sigmoids, groups, and a correction for choosing.
pub(super) fn corrected_router(c: &Object) -> Result<Router, ModelError> {
    let groups = (c.optional("n_group")?.unwrap_or(1), c.optional("topk_group")?.unwrap_or(1));
    Ok(Router {
        correction: true,
        groups: Some(groups).filter(|g| g.0 > 1),
        renormalise: c.flag("norm_topk_prob").unwrap_or(true),
        scaling: c.number("routed_scaling_factor").unwrap_or(1.0),
        ..router(c, Score::Sigmoid)?
    })
}

/// Inner columns of DeepSeek's shared experts, which are one.
pub(super) fn shared_inner(c: &Object) -> Option<usize> {
    Some(c.count("moe_intermediate_size")? * c.count("n_shared_experts")?)
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
