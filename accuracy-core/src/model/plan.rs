//! A model as operations, each with the places of a dump where its inputs and its output are.
//!
//! Names of modules are those of transformers; vLLM's and SGLang's fused projections and their layers that return hidden
//! states and residual apart are alternatives of the same places.

use super::config::{Activation, Layer, ModelConfig, Router};
use crate::dumps::Kind;
use std::ops::Range;

/// Slots under which a module's first argument or result appears.
const FIRST: &[&str] = &["", "0", "hidden_states"];

/// Slots under which an attention module is given cosines and sines.
pub const GIVEN_COS: &str = "position_embeddings.0";
pub const GIVEN_SIN: &str = "position_embeddings.1";

/// One place where a value may be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub module: String,
    pub kind: Kind,
    /// Any one of these slots.
    pub slots: &'static [&'static str],
    /// A second slot that is added: the residual that vLLM's layers pass along.
    pub plus: Option<&'static str>,
    /// These columns of it only.
    pub columns: Option<Range<usize>>,
}

impl Place {
    pub fn new(module: impl Into<String>, kind: Kind, slots: &'static [&'static str]) -> Place {
        Place { module: module.into(), kind, slots, plus: None, columns: None }
    }
}

/// A value of the model: places to look for it, the best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Site(pub Vec<Place>);

impl Site {
    pub fn input(module: impl Into<String>) -> Site {
        Site(vec![Place::new(module, Kind::Input, FIRST)])
    }

    pub fn output(module: impl Into<String>) -> Site {
        Site(vec![Place::new(module, Kind::Output, FIRST)])
    }

    fn slot(module: impl Into<String>, kind: Kind, slots: &'static [&'static str]) -> Site {
        Site(vec![Place::new(module, kind, slots)])
    }

    /// Where else it may be.
    fn or(mut self, other: Site) -> Site {
        self.0.extend(other.0);
        self
    }

    fn columns(mut self, columns: Range<usize>) -> Site {
        self.0.iter_mut().for_each(|p| p.columns = Some(columns.clone()));
        self
    }

    fn plus(mut self, slot: &'static str) -> Site {
        self.0.iter_mut().for_each(|p| p.plus = Some(slot));
        self
    }
}

/// What an operation computes.
#[derive(Clone, Debug, PartialEq)]
pub enum OpKind {
    /// Rows of a table, bit for bit. Input: token ids.
    Embedding {
        weight: String,
    },
    /// RMSNorm over groups of `width` columns; LayerNorm with `bias`.
    Norm {
        weight: String,
        bias: Option<String>,
        eps: f64,
        width: Option<usize>,
    },
    Linear {
        weight: String,
    },
    /// Cosines and sines. Output: the cosines; the sines are in slot 1.
    RopeTable,
    /// Inputs q, k, v; of latent attention q, `kv_b_proj`'s and `kv_a_proj`'s output. Rotates and attends.
    Attention {
        window: Option<usize>,
        sinks: Option<String>,
    },
    /// Inputs gate and up.
    Gated(Activation),
    Activation(Activation),
    /// Input: logits. Outputs: weights, then indices.
    Router {
        router: Router,
        correction: Option<String>,
    },
    /// Inputs: hidden states, indices, weights.
    Experts {
        module: String,
        activation: Activation,
        experts: usize,
    },
    /// Sum of the inputs.
    Sum,
    /// The output is the input, bit for bit.
    Copy,
}

/// One operation of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What reports call it: `q_proj`, `attention`, `residual`.
    pub name: String,
    pub layer: Option<usize>,
    pub kind: OpKind,
    pub inputs: Vec<Site>,
    pub output: Site,
}

/// All operations of a model, in order of execution, and its residual stream.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    /// The stream before layer 0, 1, ..., and after the last one.
    pub stream: Vec<Site>,
    /// Outputs of each layer's branches, `(name, site)`.
    pub branches: Vec<Vec<(&'static str, Site)>>,
    /// The module of each layer.
    pub modules: Vec<String>,
}

struct Builder {
    ops: Vec<Op>,
    layer: Option<usize>,
}

impl Builder {
    fn op(&mut self, name: &str, kind: OpKind, inputs: Vec<Site>, output: Site) {
        self.ops.push(Op { name: name.to_owned(), layer: self.layer, kind, inputs, output });
    }

    /// A module whose first input and output are dumped; `from` is where its input comes from.
    fn module(&mut self, name: &str, module: String, kind: OpKind, from: Site) {
        let inputs = vec![Site::input(module.clone()).or(from)];
        self.op(name, kind, inputs, Site::output(module));
    }

    fn linear(&mut self, module: String, from: Site) {
        let name = last(&module).to_owned();
        self.module(&name, module.clone(), OpKind::Linear { weight: module }, from);
    }

    fn rms(&mut self, module: String, eps: f64, width: Option<usize>, from: Site) {
        let name = last(&module).to_owned();
        let kind = OpKind::Norm { weight: module.clone(), bias: None, eps, width };
        self.op(&name, kind, vec![norm_input(&module).or(from)], Site::output(module));
    }

    fn copy(&mut self, from: Site, to: Site) {
        self.op("wiring", OpKind::Copy, vec![from], to);
    }
}

/// A norm's input: engines that fuse it with the residual's addition pass two summands.
fn norm_input(module: &str) -> Site {
    Site::input(module).plus("1").or(Site::input(module))
}

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

impl Plan {
    /// The operations of a known architecture. `tied`: the checkpoint has no `lm_head` of its own.
    pub fn of(config: &ModelConfig, tied: bool) -> Plan {
        if config.model_type == "bert" { bert(config) } else { decoder(config, tied) }
    }
}

fn decoder(config: &ModelConfig, tied: bool) -> Plan {
    let mut b = Builder { ops: Vec::new(), layer: None };
    let table = "model.embed_tokens";
    let ids = Site::slot(table, Kind::Input, &["0", "", "input"]);
    b.op("embedding", OpKind::Embedding { weight: table.to_owned() }, vec![ids], Site::output(table));
    if config.rope.is_some() {
        let module = "model.rotary_emb";
        let positions = Site::slot(module, Kind::Input, &["position_ids", "1"]);
        let given = Site::slot("model.layers.0.self_attn", Kind::Input, &[GIVEN_COS]);
        let cos = Site::slot(module, Kind::Output, &["0"]).or(given);
        b.op("rope", OpKind::RopeTable, vec![positions], cos);
    }
    let count = config.layers.len();
    let (mut stream, mut branches, mut modules) = (Vec::new(), Vec::new(), Vec::new());
    for (i, layer) in config.layers.iter().enumerate() {
        let module = format!("model.layers.{i}");
        let before = Site::input(module.clone());
        let before = if i == 0 {
            before.or(Site::output(table))
        } else {
            let previous = Site::output(format!("model.layers.{}", i - 1));
            before.or(previous.clone().plus("1")).or(previous)
        };
        let before = before.or(Site::input(format!("{module}.input_layernorm")));
        b.layer = Some(i);
        decoder_layer(&mut b, config, layer, &module, &before, i + 1 == count);
        stream.push(before);
        let mlp = Site::output(format!("{module}.mlp"));
        branches.push(vec![("attention", Site::output(format!("{module}.self_attn"))), ("mlp", mlp)]);
        modules.push(module);
    }
    b.layer = None;
    let last_layer = Site::output(format!("model.layers.{}", count.saturating_sub(1)));
    let after = last_layer.clone().plus("1").or(last_layer).or(Site::input("model.norm"));
    b.rms("model.norm".to_owned(), config.norm_eps, None, after.clone());
    b.copy(Site::output("model.norm"), Site::input("lm_head"));
    let weight = if tied { table } else { "lm_head" };
    let head = OpKind::Linear { weight: weight.to_owned() };
    b.module("lm_head", "lm_head".to_owned(), head, Site::output("model.norm"));
    stream.push(after);
    Plan { ops: b.ops, stream, branches, modules }
}

fn decoder_layer(
    b: &mut Builder,
    config: &ModelConfig,
    layer: &Layer,
    module: &str,
    before: &Site,
    final_: bool,
) {
    let at = |name: &str| format!("{module}.{name}");
    let attn = |name: &str| format!("{module}.self_attn.{name}");
    let (norm1, norm2) = (at("input_layernorm"), at("post_attention_layernorm"));
    b.copy(before.clone(), norm_input(&norm1));
    b.rms(norm1.clone(), config.norm_eps, None, before.clone());
    let normed = Site::output(norm1);
    let a = &config.attention;
    let context = attn("o_proj");
    if config.rope.is_some() {
        const TABLES: [[&[&str]; 2]; 2] = [[&["0"], &[GIVEN_COS]], [&["1"], &[GIVEN_SIN]]];
        for [made, given] in TABLES {
            let first = Site::slot("model.layers.0.self_attn", Kind::Input, given);
            let table = Site::slot("model.rotary_emb", Kind::Output, made).or(first);
            b.op("rope", OpKind::Copy, vec![table], Site::slot(at("self_attn"), Kind::Input, given));
        }
    }
    let core = |inputs: Vec<Site>, b: &mut Builder| {
        let kind = OpKind::Attention { window: layer.window, sinks: a.sinks.then(|| attn("sinks")) };
        b.op("attention", kind, inputs, Site::input(context.clone()).or(Site::output(attn("attn"))));
    };
    if let Some(mla) = a.mla {
        let q = if mla.q_lora.is_some() {
            b.copy(normed.clone(), Site::input(attn("q_a_proj")));
            b.linear(attn("q_a_proj"), normed.clone());
            b.copy(Site::output(attn("q_a_proj")), Site::input(attn("q_a_layernorm")));
            // transformers builds the two latent norms with their class's own epsilon.
            b.rms(attn("q_a_layernorm"), 1e-6, None, Site::output(attn("q_a_proj")));
            b.linear(attn("q_b_proj"), Site::output(attn("q_a_layernorm")));
            attn("q_b_proj")
        } else {
            b.linear(attn("q_proj"), normed.clone());
            attn("q_proj")
        };
        let kv_a = attn("kv_a_proj_with_mqa");
        b.copy(normed.clone(), Site::input(kv_a.clone()));
        b.linear(kv_a.clone(), normed.clone());
        let latent = Site::output(kv_a.clone()).columns(0..mla.kv_lora);
        b.copy(latent.clone(), Site::input(attn("kv_a_layernorm")));
        b.rms(attn("kv_a_layernorm"), 1e-6, None, latent);
        b.linear(attn("kv_b_proj"), Site::output(attn("kv_a_layernorm")));
        core(vec![Site::output(q), Site::output(attn("kv_b_proj")), Site::output(kv_a)], b);
    } else {
        let (q, kv) = (a.heads * a.key_dim, a.kv_heads * a.key_dim);
        let mut inputs = Vec::new();
        for (name, columns) in [("q", 0..q), ("k", q..q + kv), ("v", q + kv..q + 2 * kv)] {
            let proj = attn(&format!("{name}_proj"));
            let fused = attn("qkv_proj");
            b.copy(normed.clone(), Site::input(proj.clone()));
            let from = Site::input(fused.clone()).or(normed.clone());
            let mut out = Site::output(proj.clone()).or(Site::output(fused).columns(columns));
            let linear = OpKind::Linear { weight: proj.clone() };
            b.op(&format!("{name}_proj"), linear, vec![Site::input(proj).or(from)], out.clone());
            if a.qk_norm && name != "v" {
                let norm = attn(&format!("{name}_norm"));
                let kind = OpKind::Norm {
                    weight: norm.clone(),
                    bias: None,
                    eps: config.norm_eps,
                    width: Some(a.key_dim),
                };
                b.module(&format!("{name}_norm"), norm.clone(), kind, out);
                out = Site::output(norm);
            }
            inputs.push(out);
        }
        core(inputs, b);
    }
    b.linear(context, Site::output(attn("attn")));
    let attention = Site::output(at("self_attn")).or(Site::output(attn("o_proj")));
    b.copy(Site::output(attn("o_proj")), Site::output(at("self_attn")));
    let middle = norm_input(&norm2);
    b.op("residual", OpKind::Sum, vec![before.clone(), attention], middle.clone());
    b.rms(norm2.clone(), config.norm_eps, None, Site::default());
    let normed = Site::output(norm2);
    b.copy(normed.clone(), Site::input(at("mlp")));
    let into = Site::input(at("mlp")).or(normed);
    match &layer.router {
        None => dense(b, &at("mlp"), config.activation, &into),
        Some(router) => mixture(b, config, layer, router, &at("mlp"), &into),
    }
    let after = Site::output(module).plus("1").or(Site::output(module));
    b.op("residual", OpKind::Sum, vec![middle, Site::output(at("mlp"))], after.clone());
    if final_ {
        b.copy(after, Site::input("model.norm"));
    }
}

fn dense(b: &mut Builder, module: &str, activation: Activation, into: &Site) {
    let at = |name: &str| format!("{module}.{name}");
    b.copy(into.clone(), Site::input(at("gate_proj")));
    b.copy(into.clone(), Site::input(at("up_proj")));
    for name in ["gate_proj", "up_proj"] {
        b.linear(at(name), into.clone());
    }
    let gate_up = vec![Site::output(at("gate_proj")), Site::output(at("up_proj"))];
    b.op("swiglu", OpKind::Gated(activation), gate_up, Site::input(at("down_proj")));
    b.linear(at("down_proj"), Site::default());
    b.copy(Site::output(at("down_proj")), Site::output(module));
}

fn mixture(b: &mut Builder, config: &ModelConfig, layer: &Layer, router: &Router, module: &str, into: &Site) {
    let at = |name: &str| format!("{module}.{name}");
    let gate = at(if config.model_type == "gpt_oss" { "router" } else { "gate" });
    b.copy(into.clone(), Site::input(gate.clone()));
    b.module("router", gate.clone(), OpKind::Linear { weight: gate.clone() }, into.clone());
    let experts = at("experts");
    let correction = router.correction.then(|| format!("{gate}.e_score_correction_bias"));
    let slot = |module: &String, kind, slots| Site::slot(module.clone(), kind, slots);
    let weights =
        slot(&gate, Kind::Output, &["1"]).or(slot(&experts, Kind::Input, &["2", "routing_weights"]));
    let indices = slot(&gate, Kind::Output, &["2"]).or(slot(&experts, Kind::Input, &["1", "router_indices"]));
    let kind = OpKind::Router { router: router.clone(), correction };
    b.op("router", kind, vec![Site::output(gate), indices.clone()], weights.clone());
    b.copy(indices.clone(), slot(&experts, Kind::Input, &["1", "router_indices"]));
    b.copy(weights.clone(), slot(&experts, Kind::Input, &["2", "routing_weights"]));
    b.copy(into.clone(), Site::input(experts.clone()));
    let kind =
        OpKind::Experts { module: experts.clone(), activation: config.activation, experts: router.experts };
    let here = |slots| slot(&experts, Kind::Input, slots);
    let inputs = vec![
        Site::input(experts.clone()).or(into.clone()),
        here(&["1", "router_indices"]).or(indices),
        here(&["2", "routing_weights"]).or(weights),
    ];
    b.op("experts", kind, inputs, Site::output(experts.clone()));
    let routed = Site::output(experts);
    if layer.shared {
        let shared = at("shared_experts");
        b.copy(into.clone(), Site::input(shared.clone()));
        dense(b, &shared, config.activation, into);
        b.op("experts", OpKind::Sum, vec![routed, Site::output(shared)], Site::output(module));
    } else {
        b.copy(routed, Site::output(module));
    }
}

/// The encoder of BERT, MiniLM and their kin; the embedding layer is compared, not replayed.
fn bert(config: &ModelConfig) -> Plan {
    let mut b = Builder { ops: Vec::new(), layer: None };
    let (mut stream, mut branches, mut modules) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = Site::output("embeddings");
    for (i, layer) in config.layers.iter().enumerate() {
        b.layer = Some(i);
        let module = format!("encoder.layer.{i}");
        let at = |name: &str| format!("{module}.{name}");
        let into = Site::input(module.clone()).or(before.clone());
        let norm = |module: String| OpKind::Norm {
            weight: module.clone(),
            bias: Some(format!("{module}.bias")),
            eps: config.norm_eps,
            width: None,
        };
        let named = |b: &mut Builder, name: &str, from: Site| {
            b.module(name, at(name), OpKind::Linear { weight: at(name) }, from);
        };
        b.copy(before.clone(), Site::input(module.clone()));
        let mut inputs = Vec::new();
        for name in ["query", "key", "value"] {
            let proj = at(&format!("attention.self.{name}"));
            b.copy(into.clone(), Site::input(proj.clone()));
            b.linear(proj.clone(), into.clone());
            inputs.push(Site::output(proj));
        }
        let dense = at("attention.output.dense");
        let kind = OpKind::Attention { window: layer.window, sinks: None };
        b.op("attention", kind, inputs, Site::input(dense.clone()));
        named(&mut b, "attention.output.dense", Site::default());
        let norm1 = at("attention.output.LayerNorm");
        b.op(
            "residual",
            OpKind::Sum,
            vec![into.clone(), Site::output(dense.clone())],
            Site::input(norm1.clone()),
        );
        b.module("attention.output.LayerNorm", norm1.clone(), norm(norm1.clone()), Site::default());
        let middle = Site::output(norm1);
        let wide = at("intermediate.dense");
        b.copy(middle.clone(), Site::input(wide.clone()));
        named(&mut b, "intermediate.dense", middle.clone());
        let narrow = at("output.dense");
        let activated = Site::input(narrow.clone());
        b.op("activation", OpKind::Activation(config.activation), vec![Site::output(wide)], activated);
        named(&mut b, "output.dense", Site::default());
        let norm2 = at("output.LayerNorm");
        b.op("residual", OpKind::Sum, vec![middle, Site::output(narrow.clone())], Site::input(norm2.clone()));
        b.module("output.LayerNorm", norm2.clone(), norm(norm2.clone()), Site::default());
        stream.push(into);
        branches.push(vec![("attention", Site::output(dense)), ("mlp", Site::output(narrow))]);
        before = Site::output(module.clone()).or(Site::output(norm2));
        modules.push(module);
    }
    stream.push(before);
    Plan { ops: b.ops, stream, branches, modules }
}
