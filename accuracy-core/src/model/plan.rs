//! A model as operations, each with the places of a dump where its inputs and its output are.
//!
//! Modules are called as transformers calls them; what engines call otherwise, fuse or pass along is in
//! [`place`](super::place) and appears here as further places of the same values.

use super::config::{
    Activation, DeltaNet, Given, Indexer, Inner, Layer, Mixture, ModelConfig, Parts, QkNorm, Router, Stack,
    StateSpace, Weighed,
};
use super::place::{
    ATTEND_K, ATTEND_Q, ATTENDS, EXPERT_IDS, EXPERT_WEIGHTS, EXPERTS_OUTPUT, FUSED_GATE_UP, FUSED_LATENT,
    FUSED_QKV, GIVEN_COS, GIVEN_SIN, LAYER_RESIDUAL, LOGITS, LOGITS_INPUT, LOGITS_OUTPUT, Names, RESIDUAL,
    Sharing, Site,
};
use crate::dumps::Kind;

/// What an operation computes.
#[derive(Clone, Debug, PartialEq)]
pub enum OpKind {
    /// Rows of a table, multiplied with `scale`; bit for bit where that is 1. Input: token ids.
    Embedding {
        weight: String,
        scale: f64,
    },
    /// RMSNorm over groups of `width` columns; LayerNorm with `bias`. `one_plus`: the weight counts as `1 + w`.
    Norm {
        weight: String,
        bias: Option<String>,
        eps: f64,
        width: Option<usize>,
        one_plus: bool,
    },
    Linear {
        weight: String,
    },
    /// Cosines and sines of the configuration's embedding of that index. Output: the cosines; the sines are in slot 1.
    RopeTable {
        rope: usize,
    },
    /// Rotates each head of its input.
    Rotate {
        rope: usize,
    },
    /// Inputs q, k, v; of latent attention q, `kv_b_proj`'s and `kv_a_proj`'s output. Rotates and attends.
    Attention {
        window: Option<usize>,
        chunk: Option<usize>,
        sinks: Option<String>,
        rope: Option<usize>,
        /// Where an engine's dump has q and k after the rotation.
        rotated: Vec<Site>,
        /// Where a dump has the keys that each query sees, if they are chosen.
        chosen: Option<Site>,
        /// The last input is the projection of queries whose second half of each head gates the output.
        gate: bool,
    },
    /// Chooses the keys that each query sees. Inputs: its queries, its keys, and the weights of its heads.
    Indexer(Indexer),
    /// The first half of each head of `2 * d` columns.
    FirstHalves {
        d: usize,
    },
    /// The gated delta rule behind its convolution, with the weights of this module. Inputs: the projections of queries,
    /// keys, values and gates, and of the rates.
    Delta {
        module: String,
    },
    /// A state space behind its convolution, with the weights of this module. Input: the projection.
    State {
        module: String,
    },
    /// RMSNorm of parts of each row, and the SiLU of gates. Inputs: what is normed, and the projection that has the gates.
    GatedNorm {
        weight: String,
        eps: f64,
        gates: Gates,
    },
    /// RMSNorm of each head of `d` columns, without a weight. Inputs: rotated heads, and the same before the rotation by
    /// that embedding.
    UnitNorm {
        eps: f64,
        d: usize,
        rope: usize,
    },
    /// The first input, and the second times the sigmoid of the third.
    Blend,
    /// Inputs gate and up.
    Gated(Activation),
    Activation(Activation),
    /// Input: logits. Outputs: weights, then indices.
    Router {
        router: Router,
        correction: Option<String>,
    },
    /// Inputs: hidden states, indices, weights, and the router's logits.
    Experts {
        module: String,
        activation: Activation,
        experts: usize,
        weighed: Weighed,
        stack: Stack,
    },
    /// The first input and `scale` times the others.
    Sum {
        scale: f64,
    },
    /// `cap * tanh(scale * x / cap)`, or `scale * x` without a cap.
    Logits {
        scale: f64,
        cap: Option<f64>,
    },
    /// The output is the input, bit for bit.
    Copy,
}

/// Which gates a norm has, and when they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// A delta net's, behind the norm of each head.
    OfDelta,
    /// A state space's, before the norm of each group of heads.
    OfState,
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
    /// No operation of the plan takes its output.
    pub last: bool,
    /// It is a part of a mixture of experts, where an engine may apply the routing weights' factor at another place.
    pub of_experts: bool,
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
    pub logits: Site,
}

struct Builder<'a> {
    ops: Vec<Op>,
    layer: Option<usize>,
    config: &'a ModelConfig,
}

impl Builder<'_> {
    fn op(&mut self, name: &str, kind: OpKind, inputs: Vec<Site>, output: Site) {
        self.ops.push(Op {
            name: name.to_owned(),
            layer: self.layer,
            kind,
            inputs,
            output,
            last: false,
            of_experts: false,
        });
    }

    /// The last operation is a part of a mixture of experts.
    fn of_experts(&mut self) {
        if let Some(op) = self.ops.last_mut() {
            op.of_experts = true;
        }
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

    /// A norm of the stream or of a branch.
    fn rms(&mut self, module: String, from: Site) {
        let whole = Sharing::Whole(self.config.hidden);
        let input = norm_input(&module).shared(whole).or(from);
        self.norm(module, self.config.norm_eps, input, whole);
    }

    fn norm(&mut self, module: String, eps: f64, input: Site, sharing: Sharing) {
        let name = last(&module).to_owned();
        let one_plus = self.config.form.one_plus;
        let kind = OpKind::Norm { weight: module.clone(), bias: None, eps, width: None, one_plus };
        self.op(&name, kind, vec![input], Site::output(module).shared(sharing));
    }

    fn copy(&mut self, from: Site, to: Site) {
        self.op("wiring", OpKind::Copy, vec![from], to);
    }
}

/// A norm's input: engines that fuse it with the residual's addition pass two summands.
fn norm_input(module: &str) -> Site {
    Site::input(module).plus(RESIDUAL).or(Site::input(module))
}

/// The stream that a norm of an engine has added up.
fn norm_sum(module: &str) -> Site {
    Site::slot(module, Kind::Output, &["1"])
}

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

impl Plan {
    /// The operations of a known architecture. `tied`: the checkpoint has no `lm_head` of its own.
    pub fn of(config: &ModelConfig, tied: bool) -> Plan {
        if config.model_type == "bert" { bert(config) } else { decoder(config, tied) }
    }

    /// The checkpoint calls the module `from` of the dumps `to`.
    pub fn stored_under(&mut self, from: &str, to: &str) {
        let move_to = |name: &mut String| {
            if let Some(rest) = name.strip_prefix(from).filter(|rest| rest.starts_with('.')) {
                *name = format!("{to}{rest}");
            }
        };
        for op in &mut self.ops {
            match &mut op.kind {
                OpKind::Embedding { weight, .. }
                | OpKind::Linear { weight }
                | OpKind::GatedNorm { weight, .. } => move_to(weight),
                OpKind::Norm { weight, bias, .. } => {
                    move_to(weight);
                    bias.iter_mut().for_each(move_to);
                }
                OpKind::Attention { sinks, .. } => sinks.iter_mut().for_each(move_to),
                OpKind::Delta { module } | OpKind::State { module } | OpKind::Experts { module, .. } => {
                    move_to(module);
                }
                OpKind::Router { correction, .. } => correction.iter_mut().for_each(move_to),
                OpKind::RopeTable { .. }
                | OpKind::Rotate { .. }
                | OpKind::FirstHalves { .. }
                | OpKind::UnitNorm { .. }
                | OpKind::Indexer(_)
                | OpKind::Blend
                | OpKind::Gated(_)
                | OpKind::Activation(_)
                | OpKind::Sum { .. }
                | OpKind::Logits { .. }
                | OpKind::Copy => {}
            }
        }
    }
}

/// The stream between the layers: what enters a layer, what the one before it gives, what the norm behind adds up.
fn between(config: &ModelConfig, i: usize) -> Site {
    let form = &config.form;
    let layer = |i: usize| format!("{}.layers.{i}", form.prefix);
    let count = config.layers.len();
    let mut site = Site::default();
    let norm = if i < count {
        let module = layer(i);
        site = Site::input(module.clone()).plus(LAYER_RESIDUAL).or(Site::input(module.clone()));
        form.norms.before_attention.map(|norm| format!("{module}.{norm}"))
    } else {
        Some(format!("{}.{}", form.prefix, form.last_norm))
    };
    if i > 0 {
        let out = Site::output(layer(i - 1));
        let given = out.clone().plus(RESIDUAL).or(out);
        // What follows a layer is its output; what enters one may have been made of it.
        site = if i == count { given.or(site) } else { site.or(given) };
    } else if form.embedding_scale == 1.0 {
        site = site.or(Site::output(format!("{}.{}", form.prefix, form.embeddings)));
    }
    if let Some(norm) = norm {
        site = site.or(norm_input(&norm));
        if i > 0 {
            site = site.or(norm_sum(&norm));
        }
    }
    site.shared(Sharing::Whole(config.hidden))
}

fn decoder(config: &ModelConfig, tied: bool) -> Plan {
    let mut b = Builder { ops: Vec::new(), layer: None, config };
    let form = &config.form;
    let at = |name: &str| format!("{}.{name}", form.prefix);
    let whole = Sharing::Whole(config.hidden);
    let table = at(form.embeddings);
    let count = config.layers.len();
    let stream: Vec<Site> = (0..=count).map(|i| between(config, i)).collect();
    let ids = Site::slot(&table, Kind::Input, &["0", "", "input", "input_"]);
    let embedded = Site::output(&table).shared(Sharing::Sum(config.hidden));
    let embedded = if form.embedding_scale == 1.0 {
        embedded
    } else {
        Site::any([Site::input(at("layers.0")).shared(whole), embedded])
    };
    let kind = OpKind::Embedding { weight: table, scale: form.embedding_scale };
    b.op("embedding", kind, vec![ids], embedded);
    // One table for all layers is made once; of several, each layer's is checked where it is used.
    let shared_table = config.ropes.len() == 1;
    if shared_table {
        let module = at("rotary_emb");
        let positions = Site::slot(&module, Kind::Input, &["position_ids", "1"]);
        let given = Site::slot(at(&format!("layers.0.{}", form.attention)), Kind::Input, GIVEN_COS);
        let cos = Site::slot(&module, Kind::Output, &["0"]).or(given);
        b.op("rope", OpKind::RopeTable { rope: 0 }, vec![positions], cos);
    }
    let (mut branches, mut modules) = (Vec::new(), Vec::new());
    for (i, layer) in config.layers.iter().enumerate() {
        let module = at(&format!("layers.{i}"));
        b.layer = Some(i);
        branches.push(decoder_layer(&mut b, layer, i, &stream[i], &stream[i + 1]));
        modules.push(module);
    }
    b.layer = None;
    let norm = at(form.last_norm);
    b.rms(norm.clone(), stream[count].clone());
    let normed = Site::output(&norm).shared(whole);
    let read = Site::input(form.head).or(Site::slot(LOGITS, Kind::Input, LOGITS_INPUT)).shared(whole);
    b.copy(normed.clone(), read.clone());
    let weight = if tied { at(form.embeddings) } else { form.head.to_owned() };
    let parts = config.vocabulary.map_or(Sharing::Unknown, |v| Sharing::Columns(v, 1));
    let (logits, head) = (Site::slot(LOGITS, Kind::Output, LOGITS_OUTPUT), Site::output(form.head));
    let scaled = form.logits_scale != 1.0 || form.logits_cap.is_some();
    let head = if scaled { head } else { head.or(logits.clone()) }.shared(parts);
    let kind = OpKind::Linear { weight };
    b.op("lm_head", kind, vec![read.or(normed)], head.clone());
    let logits = if scaled {
        let all = Site::slot("", Kind::Output, &["logits"]).or(logits).shared(parts);
        let kind = OpKind::Logits { scale: form.logits_scale, cap: form.logits_cap };
        b.op("logits", kind, vec![head], all.clone());
        all
    } else {
        head
    };
    if let Some(op) = b.ops.last_mut() {
        op.last = true;
    }
    Plan { ops: b.ops, stream, branches, modules, logits }
}

type Branches = Vec<(&'static str, Site)>;

fn decoder_layer(b: &mut Builder, layer: &Layer, i: usize, before: &Site, after: &Site) -> Branches {
    let config = b.config;
    let form = &config.form;
    let module = format!("{}.layers.{i}", form.prefix);
    let at = |name: &str| format!("{module}.{name}");
    let whole = Sharing::Whole(config.hidden);
    // What enters the layer is what left the one before it.
    if i > 0 {
        let out = Site::output(format!("{}.layers.{}", form.prefix, i - 1));
        let into = Site::input(module.clone());
        b.copy(
            out.clone().plus(RESIDUAL).or(out).shared(whole),
            into.clone().plus(LAYER_RESIDUAL).or(into).shared(whole),
        );
    }
    let normed = match form.norms.before_attention {
        Some(norm) => {
            b.copy(before.clone(), norm_input(&at(norm)).shared(whole));
            b.rms(at(norm), before.clone());
            Site::output(at(norm)).shared(whole)
        }
        None => before.clone(),
    };
    let sum = OpKind::Sum { scale: form.branch_scale };
    match layer.parts {
        Parts::Both => {}
        Parts::Mixer => {
            let branch = mixer(b, layer, i, &module, &normed);
            b.op("residual", sum, vec![before.clone(), branch.clone()], left(config, i, after));
            return vec![("attention", branch)];
        }
        Parts::Mlp => {
            let branch = feed_forward(b, layer, &module, &normed);
            b.op("residual", sum, vec![before.clone(), branch.clone()], left(config, i, after));
            return vec![("mlp", branch)];
        }
    }
    let attention = mixer(b, layer, i, &module, &normed);
    let branch = match form.norms.after_attention {
        Some(norm) => {
            b.rms(at(norm), attention.clone());
            Site::output(at(norm)).shared(whole)
        }
        None => attention.clone(),
    };
    let into_block = into_block(config, layer, &module);
    let middle = match form.norms.before_mlp {
        Some(norm) => norm_input(&at(norm)).or(norm_sum(&at(norm))).shared(whole),
        None => into_block.clone(),
    };
    b.op("residual", sum.clone(), vec![before.clone(), branch], middle.clone());
    let normed = match form.norms.before_mlp {
        Some(norm) => {
            b.rms(at(norm), middle.clone());
            Site::output(at(norm)).shared(whole)
        }
        None => middle.clone(),
    };
    let mlp = feed_forward(b, layer, &module, &normed);
    let branch = match form.norms.after_mlp {
        Some(norm) => {
            b.rms(at(norm), mlp.clone());
            Site::output(at(norm)).shared(whole)
        }
        None => mlp.clone(),
    };
    b.op("residual", sum, vec![middle, branch], left(config, i, after));
    vec![("attention", attention), ("mlp", mlp)]
}

/// The modules of a layer's MLP or experts.
fn blocks<'a>(config: &'a ModelConfig, layer: &Layer) -> Vec<&'a str> {
    let form = &config.form;
    if layer.router.is_some() { form.mixture.modules.to_vec() } else { vec![form.mlp] }
}

fn into_block(config: &ModelConfig, layer: &Layer, module: &str) -> Site {
    let inputs = blocks(config, layer).into_iter().map(|m| Site::input(format!("{module}.{m}")));
    Site::any(inputs).shared(Sharing::Whole(config.hidden))
}

/// An MLP or experts, from the normed stream to what is added to it.
fn feed_forward(b: &mut Builder, layer: &Layer, module: &str, normed: &Site) -> Site {
    let config = b.config;
    let form = &config.form;
    let block = into_block(config, layer, module);
    // What is not normed is the block's input itself.
    if form.norms.before_mlp.is_some() || layer.parts == Parts::Mlp {
        b.copy(normed.clone(), block.clone());
    }
    let into = block.or(normed.clone());
    let made = match &layer.router {
        None => dense(b, &format!("{module}.{}", form.mlp), form.fused_gate_up, config.inner, &into),
        Some(router) => mixture(b, layer, router, module, &into),
    };
    let outputs = blocks(config, layer).into_iter().map(|m| Site::output(format!("{module}.{m}")));
    Site::any(outputs).shared(Sharing::Sum(config.hidden)).or(made)
}

/// Attention of some kind, from the normed stream to what is added to it.
fn mixer(b: &mut Builder, layer: &Layer, i: usize, module: &str, normed: &Site) -> Site {
    let config = b.config;
    match (config.delta.filter(|_| layer.linear), config.state.filter(|_| layer.linear)) {
        (Some(net), _) => linear_attention(b, net, module, normed),
        (None, Some(net)) => state_space(b, net, module, normed),
        (None, None) => attention(b, layer, i, module, normed),
    }
}

/// What leaves a layer.
fn left(config: &ModelConfig, i: usize, after: &Site) -> Site {
    let out = Site::output(format!("{}.layers.{i}", config.form.prefix));
    out.clone().plus(RESIDUAL).or(out).shared(Sharing::Whole(config.hidden)).or(after.clone())
}

/// Attention from the normed stream to what is added to it.
fn attention(b: &mut Builder, layer: &Layer, i: usize, module: &str, normed: &Site) -> Site {
    let config = b.config;
    let block = format!("{module}.{}", config.form.attention);
    let at = |name: &str| format!("{block}.{name}");
    if let Some(rope) = layer.rope {
        if config.ropes.len() == 1 {
            const TABLES: [(Names, Names); 2] = [(&["0"], GIVEN_COS), (&["1"], GIVEN_SIN)];
            for (made, given) in TABLES {
                let rotary = format!("{}.rotary_emb", config.form.prefix);
                let first = format!("{}.layers.0.{}", config.form.prefix, config.form.attention);
                let table = Site::slot(rotary, Kind::Output, made).or(Site::slot(first, Kind::Input, given));
                b.op("rope", OpKind::Copy, vec![table], Site::slot(&block, Kind::Input, given));
            }
        } else {
            let given = Site::slot(&block, Kind::Input, GIVEN_COS);
            b.op("rope", OpKind::RopeTable { rope }, vec![Site::default()], given);
        }
    }
    let a = &config.attention;
    let columns = Sharing::Columns(a.heads * a.value_dim, a.value_dim);
    // What attends to latents gives latents in some engines, and what its module is part of the projection, too.
    let attends = match a.mla {
        None => Site::any(ATTENDS.iter().map(|m| Site::output(at(m)))),
        Some(_) => Site::default(),
    };
    let (attends, into) = (attends.shared(columns), Site::input(at("o_proj")).shared(columns));
    // A gate comes between what attends and the projection of its output.
    let context = if a.gate { into.clone() } else { into.clone().or(attends.clone()) };
    let (inputs, rotated) =
        if a.mla.is_some() { (latent(b, &at, normed), Vec::new()) } else { heads(b, layer, i, &at, normed) };
    let chosen = a.indexer.map(|indexer| choosing(b, indexer, &at, normed));
    let sinks = a.sinks.then(|| at("sinks"));
    let kind = OpKind::Attention {
        window: layer.window,
        chunk: layer.chunk,
        sinks,
        rope: layer.rope,
        rotated,
        chosen,
        gate: a.gate,
    };
    b.op("attention", kind, inputs, context.clone());
    if !a.gate && a.mla.is_none() {
        b.copy(attends, into);
    }
    let out = Site::output(at("o_proj")).shared(Sharing::Sum(config.hidden));
    b.op("o_proj", OpKind::Linear { weight: at("o_proj") }, vec![context], out.clone());
    let whole = Site::output(&block).shared(Sharing::Sum(config.hidden));
    b.copy(out.clone(), whole.clone());
    whole.or(out)
}

/// Linear attention from the normed stream to what is added to it.
fn linear_attention(b: &mut Builder, net: DeltaNet, module: &str, normed: &Site) -> Site {
    let hidden = b.config.hidden;
    let block = format!("{module}.linear_attn");
    let at = |name: &str| format!("{block}.{name}");
    let (keys, values) = (net.key_heads * net.key_dim, net.value_heads * net.value_dim);
    let mut projected = Vec::new();
    for (name, width) in [("in_proj_qkvz", 2 * keys + 2 * values), ("in_proj_ba", 2 * net.value_heads)] {
        b.copy(normed.clone(), Site::input(at(name)).shared(Sharing::Whole(hidden)));
        let out = Site::output(at(name)).shared(Sharing::Columns(width, width / net.key_heads));
        let from = Site::input(at(name)).or(normed.clone());
        b.op(name, OpKind::Linear { weight: at(name) }, vec![from], out.clone());
        projected.push(out);
    }
    let columns = Sharing::Columns(values, net.value_dim);
    let core = Site::slot(at("norm"), Kind::Input, &["0", "hidden_states", "x"]).shared(columns);
    b.op("delta_rule", OpKind::Delta { module: block.clone() }, projected.clone(), core.clone());
    let kind = OpKind::GatedNorm { weight: at("norm"), eps: b.config.norm_eps, gates: Gates::OfDelta };
    let gated = Site::output(at("norm")).shared(columns);
    b.op("linear_attn.norm", kind, vec![core, projected.swap_remove(0)], gated.clone());
    let into = Site::input(at("out_proj")).shared(columns);
    b.copy(gated.clone(), into.clone());
    let out = Site::output(at("out_proj")).shared(Sharing::Sum(hidden));
    b.op("out_proj", OpKind::Linear { weight: at("out_proj") }, vec![into.or(gated)], out.clone());
    let whole = Site::output(block).shared(Sharing::Sum(hidden));
    b.copy(out.clone(), whole.clone());
    whole.or(out)
}

/// A state space from the normed stream to what is added to it.
fn state_space(b: &mut Builder, net: StateSpace, module: &str, normed: &Site) -> Site {
    let hidden = b.config.hidden;
    let block = format!("{module}.{}", b.config.form.attention);
    let at = |name: &str| format!("{block}.{name}");
    b.copy(normed.clone(), Site::input(at("in_proj")).shared(Sharing::Whole(hidden)));
    let from = Site::input(at("in_proj")).or(normed.clone());
    let projected = Site::output(at("in_proj"));
    b.op("in_proj", OpKind::Linear { weight: at("in_proj") }, vec![from], projected.clone());
    let columns = Sharing::Columns(net.inner(), net.head_dim);
    let core = Site::slot(at("norm"), Kind::Input, &["0", "hidden_states", "x"]).shared(columns);
    b.op("state_space", OpKind::State { module: block.clone() }, vec![projected.clone()], core.clone());
    let kind = OpKind::GatedNorm { weight: at("norm"), eps: b.config.norm_eps, gates: Gates::OfState };
    let gated = Site::output(at("norm")).shared(columns);
    b.op("mixer.norm", kind, vec![core, projected], gated.clone());
    let into = Site::input(at("out_proj")).shared(columns);
    b.copy(gated.clone(), into.clone());
    let out = Site::output(at("out_proj")).shared(Sharing::Sum(hidden));
    b.op("out_proj", OpKind::Linear { weight: at("out_proj") }, vec![into.or(gated)], out.clone());
    let whole = Site::output(&block).shared(Sharing::Sum(hidden));
    b.copy(out.clone(), whole.clone());
    whole.or(out)
}

/// Queries, keys and values; and where queries and keys are after the rotation. Behind them the projection that has the
/// output's gates, where there are any.
fn heads(
    b: &mut Builder,
    layer: &Layer,
    i: usize,
    at: &dyn Fn(&str) -> String,
    normed: &Site,
) -> (Vec<Site>, Vec<Site>) {
    let config = b.config;
    let a = &config.attention;
    let (q, kv) = (a.heads * a.key_dim, a.kv_heads * a.key_dim);
    let widths = [if a.gate { 2 * q } else { q }, kv, kv];
    let mut gates = None;
    let fused = Site::any(FUSED_QKV.iter().map(|m| Site::input(at(m)))).shared(Sharing::Whole(config.hidden));
    b.copy(normed.clone(), fused.clone());
    let (mut inputs, mut rotated) = (Vec::new(), Vec::new());
    for (index, name) in ["q", "k", "v"].into_iter().enumerate() {
        let (proj, width) = (at(&format!("{name}_proj")), widths[index]);
        let gated = a.gate && name == "q";
        let unit = if gated { 2 * a.key_dim } else { a.key_dim };
        let mut sharing = Sharing::Columns(width, unit);
        b.copy(normed.clone(), Site::input(proj.clone()));
        let part = |m: &&str| Site::output(at(m)).fused(&widths, a.key_dim, index);
        let mut out = Site::output(&proj).or(Site::any(FUSED_QKV.iter().map(part))).shared(sharing);
        let start = widths[..index].iter().sum::<usize>();
        let weight = match config.form.fused_qkv {
            Some(fused) => format!("{}#{start}..{}", at(fused), start + width),
            None => proj.clone(),
        };
        let from = Site::input(proj).or(fused.clone()).or(normed.clone());
        b.op(&format!("{name}_proj"), OpKind::Linear { weight }, vec![from], out.clone());
        if name == "v" {
            inputs.push(out);
            continue;
        }
        if gated {
            sharing = Sharing::Columns(q, a.key_dim);
            let part = Site::input(at("q_norm")).shared(sharing);
            b.op("q_proj", OpKind::FirstHalves { d: a.key_dim }, vec![out.clone()], part.clone());
            gates = Some(std::mem::replace(&mut out, part));
        }
        if matches!(a.qk_norm, QkNorm::Head | QkNorm::Whole) {
            let norm = at(&format!("{name}_norm"));
            let by_head = (a.qk_norm == QkNorm::Head).then_some(a.key_dim);
            let kind = OpKind::Norm {
                weight: norm.clone(),
                bias: None,
                eps: config.norm_eps,
                width: by_head,
                one_plus: config.form.one_plus,
            };
            let input = Site::input(&norm).shared(sharing).or(out);
            out = Site::output(&norm).shared(sharing);
            b.op(&format!("{name}_norm"), kind, vec![input], out.clone());
        }
        if let Some(rope) = layer.rope {
            let first = format!("{}.layers.0.{}.rotary_emb", config.form.prefix, config.form.attention);
            let slots: [Names; 2] = [&["0"], &["1"]];
            let attends = if name == "q" { ATTEND_Q } else { ATTEND_K };
            let rotates = config.layers.iter().filter(|l| l.rope.is_some());
            let own = match i {
                0 => Site::default(),
                _ => Site::slot(at("rotary_emb"), Kind::Output, slots[index]),
            };
            let turned = Site::any(ATTENDS.iter().map(|m| Site::slot(at(m), Kind::Input, attends)))
                .or(own)
                .or(Site::slot(first, Kind::Output, slots[index]).call(i, rotates.count()))
                .shared(sharing);
            if a.qk_norm == QkNorm::Unit {
                let norm = at("qk_norm");
                let into = Site::input(&norm).call(index, 2).shared(sharing);
                b.op("rope", OpKind::Rotate { rope }, vec![out.clone()], into.clone());
                let normed = Site::output(&norm).call(index, 2).shared(sharing).or(turned);
                let kind = OpKind::UnitNorm { eps: config.norm_eps, d: a.key_dim, rope };
                b.op(&format!("{name}_norm"), kind, vec![into, out.clone()], normed.clone());
                rotated.push(normed);
            } else {
                b.op("rope", OpKind::Rotate { rope }, vec![out.clone()], turned.clone());
                rotated.push(turned);
            }
        }
        inputs.push(out);
    }
    inputs.extend(gates);
    (inputs, rotated)
}

/// What chooses the keys that each query sees, from the normed stream and the latents of the queries. Where the choice is.
fn choosing(b: &mut Builder, indexer: Indexer, at: &dyn Fn(&str) -> String, normed: &Site) -> Site {
    let block = |name: &str| at(&format!("indexer.{name}"));
    let latents = Site::output(at("q_a_layernorm"));
    let mut inputs = Vec::new();
    for (name, from) in [("wq_b", &latents), ("wk", normed), ("weights_proj", normed)] {
        b.copy(from.clone(), Site::input(block(name)));
        let mut out = Site::output(block(name));
        let input = Site::input(block(name)).or(from.clone());
        b.op(&format!("indexer.{name}"), OpKind::Linear { weight: block(name) }, vec![input], out.clone());
        if name == "wk" {
            let norm = block("k_norm");
            let kind = OpKind::Norm {
                weight: norm.clone(),
                bias: Some(format!("{norm}.bias")),
                eps: 1e-6,
                width: None,
                one_plus: false,
            };
            let input = Site::input(&norm).or(out);
            out = Site::output(&norm);
            b.op("indexer.k_norm", kind, vec![input], out.clone());
        }
        inputs.push(out);
    }
    let chosen = Site::slot(at("indexer"), Kind::Output, &["", "0"]);
    b.op("indexer", OpKind::Indexer(indexer), inputs, chosen.clone());
    chosen
}

/// Latent attention's queries, expanded keys and values, and latents.
fn latent(b: &mut Builder, at: &dyn Fn(&str) -> String, normed: &Site) -> Vec<Site> {
    let config = b.config;
    let a = &config.attention;
    let Some(mla) = a.mla else { return Vec::new() };
    let narrow = mla.kv_lora + mla.rope;
    let q_width = Sharing::Columns(a.heads * a.key_dim, a.key_dim);
    let fused = |index: usize| {
        let widths = [mla.q_lora.unwrap_or(0), narrow];
        Site::any(FUSED_LATENT.iter().map(|m| Site::output(at(m)).fused(&widths, usize::MAX, index)))
    };
    let joint = Site::any(FUSED_LATENT.iter().map(|m| Site::input(at(m))));
    b.copy(normed.clone(), joint.clone());
    let q = if mla.q_lora.is_some() {
        let down = Site::output(at("q_a_proj")).or(fused(0));
        b.copy(normed.clone(), Site::input(at("q_a_proj")));
        let from = Site::input(at("q_a_proj")).or(joint.clone()).or(normed.clone());
        b.op("q_a_proj", OpKind::Linear { weight: at("q_a_proj") }, vec![from], down.clone());
        b.copy(down.clone(), Site::input(at("q_a_layernorm")));
        // transformers builds the two latent norms with their class's own epsilon.
        let input = Site::input(at("q_a_layernorm")).or(down);
        b.norm(at("q_a_layernorm"), 1e-6, input, Sharing::Unknown);
        "q_b_proj"
    } else {
        "q_proj"
    };
    let from = if mla.q_lora.is_some() { Site::output(at("q_a_layernorm")) } else { normed.clone() };
    let queries = Site::output(at(q)).shared(q_width);
    b.op(q, OpKind::Linear { weight: at(q) }, vec![Site::input(at(q)).or(from)], queries.clone());
    let kv_a = at("kv_a_proj_with_mqa");
    b.copy(normed.clone(), Site::input(kv_a.clone()));
    let down = Site::output(kv_a.clone()).or(fused(1));
    let from = Site::input(kv_a.clone()).or(joint).or(normed.clone());
    b.op("kv_a_proj_with_mqa", OpKind::Linear { weight: kv_a }, vec![from], down.clone());
    let narrowed = Site(down.0.iter().filter(|p| p.fused.is_none()).cloned().collect());
    let narrowed = narrowed.columns(0..mla.kv_lora);
    b.copy(narrowed.clone(), Site::input(at("kv_a_layernorm")));
    let input = Site::input(at("kv_a_layernorm")).or(narrowed);
    b.norm(at("kv_a_layernorm"), 1e-6, input, Sharing::Unknown);
    let width = a.heads * (mla.nope + a.value_dim);
    let expanded = Site::output(at("kv_b_proj")).shared(Sharing::Columns(width, mla.nope + a.value_dim));
    let from = Site::input(at("kv_b_proj")).or(Site::output(at("kv_a_layernorm")));
    b.op("kv_b_proj", OpKind::Linear { weight: at("kv_b_proj") }, vec![from], expanded.clone());
    vec![queries, expanded, down]
}

/// A gated MLP; what it gives.
fn dense(b: &mut Builder, module: &str, fused: Option<&str>, inner: Option<usize>, into: &Site) -> Site {
    let config = b.config;
    if config.form.inner == Inner::Plain {
        return plain_mlp(b, module, inner, into);
    }
    let at = |name: &str| format!("{module}.{name}");
    let joint =
        Site::any(FUSED_GATE_UP.iter().map(|m| Site::input(at(m)))).shared(Sharing::Whole(config.hidden));
    b.copy(into.clone(), joint.clone());
    let columns = inner.map_or(Sharing::Unknown, |n| Sharing::Columns(n, 1));
    let mut parts = Vec::new();
    for (index, name) in ["gate_proj", "up_proj"].into_iter().enumerate() {
        b.copy(into.clone(), Site::input(at(name)));
        let both = inner.map(|n| [n, n]);
        let part = |m: &&str| {
            let site = Site::output(at(m));
            both.map_or(Site::default(), |both| site.fused(&both, 1, index))
        };
        let out = Site::output(at(name)).or(Site::any(FUSED_GATE_UP.iter().map(part))).shared(columns);
        let weight = match (fused, inner) {
            (Some(fused), Some(n)) => format!("{}#{}..{}", at(fused), index * n, (index + 1) * n),
            _ => at(name),
        };
        let from = Site::input(at(name)).or(joint.clone()).or(into.clone());
        b.op(name, OpKind::Linear { weight }, vec![from], out.clone());
        parts.push(out);
    }
    // An engine's activation takes both parts and multiplies; transformers' is of the gate alone.
    let acted =
        Site::any(FUSED_GATE_UP.iter().map(|m| Site::output(at("act_fn")).beside(&at(m)))).shared(columns);
    let into_down = Site::input(at("down_proj")).shared(columns);
    b.copy(acted.clone(), into_down.clone());
    let inside = into_down.or(acted);
    b.op("swiglu", OpKind::Gated(config.activation), parts, inside.clone());
    let out = Site::output(at("down_proj")).shared(Sharing::Sum(config.hidden));
    b.op("down_proj", OpKind::Linear { weight: at("down_proj") }, vec![inside], out.clone());
    b.copy(out.clone(), Site::output(module).shared(Sharing::Sum(config.hidden)));
    out
}

/// An MLP without a gate; what it gives.
fn plain_mlp(b: &mut Builder, module: &str, inner: Option<usize>, into: &Site) -> Site {
    let config = b.config;
    let at = |name: &str| format!("{module}.{name}");
    let columns = inner.map_or(Sharing::Unknown, |n| Sharing::Columns(n, 1));
    b.copy(into.clone(), Site::input(at("up_proj")).shared(Sharing::Whole(config.hidden)));
    let up = Site::output(at("up_proj")).shared(columns);
    let from = Site::input(at("up_proj")).or(into.clone());
    b.op("up_proj", OpKind::Linear { weight: at("up_proj") }, vec![from], up.clone());
    let acted = Site::output(at("act_fn")).shared(columns);
    let inside = Site::input(at("down_proj")).shared(columns);
    b.copy(acted.clone(), inside.clone());
    let inside = inside.or(acted);
    b.op("activation", OpKind::Activation(config.activation), vec![up], inside.clone());
    let out = Site::output(at("down_proj")).shared(Sharing::Sum(config.hidden));
    b.op("down_proj", OpKind::Linear { weight: at("down_proj") }, vec![inside], out.clone());
    b.copy(out.clone(), Site::output(module).shared(Sharing::Sum(config.hidden)));
    out
}

/// A mixture of experts; what it gives.
fn mixture(b: &mut Builder, layer: &Layer, router: &Router, module: &str, into: &Site) -> Site {
    let config = b.config;
    let names = config.form.mixture;
    let any = |site: &dyn Fn(String) -> Site, name: &str| {
        Site::any(names.modules.iter().map(|block| site(format!("{module}.{block}.{name}"))))
    };
    let input = |name: &str| any(&|m| Site::input(m), name);
    let output = |name: &str| any(&|m| Site::output(m), name);
    let slot = |name: &str, kind: Kind, slots: Names| any(&|m| Site::slot(m, kind, slots), name);
    let stored = |name: &str| format!("{module}.{}.{name}", names.weights);
    let (whole, sum) = (Sharing::Whole(config.hidden), Sharing::Sum(config.hidden));
    let (wide, routed_sum) = match names.latent {
        None => (whole, sum),
        Some(width) => (Sharing::Whole(width), Sharing::Sum(width)),
    };
    let gate = names.gate;
    b.copy(into.clone(), input(gate).shared(whole));
    let kind = OpKind::Linear { weight: stored(gate) };
    let logits = match names.given {
        Given::Chosen => output(gate),
        Given::All => slot(gate, Kind::Output, &["1"]).or(output(gate)),
    };
    b.op("router", kind, vec![input(gate).shared(whole).or(into.clone())], logits.clone());
    let correction = router.correction.then(|| stored(names.correction));
    let given = match names.given {
        Given::Chosen => slot(gate, Kind::Output, &["1"]),
        Given::All => slot(gate, Kind::Output, &["0"]).with(&["1"]),
    };
    let weights = given.or(slot("topk", Kind::Output, &["0", "topk_weights"])).or(slot(
        "experts",
        Kind::Input,
        EXPERT_WEIGHTS,
    ));
    let indices = slot(gate, Kind::Output, &["2"])
        .or(slot("topk", Kind::Output, &["1", "topk_ids"]))
        .or(slot("experts", Kind::Input, EXPERT_IDS));
    let kind = OpKind::Router { router: router.clone(), correction };
    b.op("router", kind, vec![logits.clone(), indices.clone()], weights.clone());
    b.copy(indices.clone(), slot("experts", Kind::Input, EXPERT_IDS));
    b.copy(weights.clone(), slot("experts", Kind::Input, EXPERT_WEIGHTS));
    b.of_experts();
    let narrowed = match names.latent {
        None => into.clone(),
        Some(_) => projected(b, [&input, &output], "fc1_latent_proj", stored("fc1_latent_proj"), into),
    };
    let taken = match names.weighed {
        Weighed::Output => {
            b.copy(narrowed.clone(), input("experts").shared(wide));
            input("experts").shared(wide).or(narrowed)
        }
        // What experts are given in transformers has their weights in it already.
        Weighed::Input => narrowed,
    };
    let kind = experts_kind(config, &names, router, stored("experts"));
    let inputs = vec![
        taken,
        slot("experts", Kind::Input, EXPERT_IDS).or(indices),
        slot("experts", Kind::Input, EXPERT_WEIGHTS).or(weights),
        logits,
    ];
    let routed = any(
        &|m| {
            let site = Site::slot(m.clone(), Kind::Output, EXPERTS_OUTPUT);
            // Some engines' experts give the sum with the shared expert, which is what the block gives.
            let site = if layer.shared { site.unlike(m.trim_end_matches(".experts")) } else { site };
            if names.weighed == Weighed::Input { site.stacked(router.experts) } else { site }
        },
        "experts",
    )
    .shared(routed_sum);
    b.op("experts", kind, inputs, routed.clone());
    b.of_experts();
    let routed = match names.latent {
        None => routed,
        Some(_) => projected(b, [&input, &output], "fc2_latent_proj", stored("fc2_latent_proj"), &routed),
    };
    let block = any(&|m| Site::output(m.trim_end_matches('.').to_owned()), "").shared(sum);
    if layer.shared {
        let shared = format!("{module}.{}.{}", names.modules[0], names.shared);
        b.copy(into.clone(), Site::input(&shared).shared(whole));
        let out = dense(b, &shared, None, names.shared_inner, into);
        let mut all = vec![routed, Site::output(shared).shared(sum).or(out)];
        let kind = match names.shared_gate {
            None => OpKind::Sum { scale: 1.0 },
            Some(gate) => {
                let gate = format!("{module}.{}.{gate}", names.modules[0]);
                b.copy(into.clone(), Site::input(&gate).shared(whole));
                let out = Site::output(&gate);
                let from = Site::input(&gate).or(into.clone());
                b.op("shared_expert_gate", OpKind::Linear { weight: gate }, vec![from], out.clone());
                all.push(out);
                OpKind::Blend
            }
        };
        b.op("experts", kind, all, block.clone());
        b.of_experts();
        block
    } else {
        b.copy(routed.clone(), block);
        routed
    }
}

fn experts_kind(config: &ModelConfig, names: &Mixture, router: &Router, module: String) -> OpKind {
    OpKind::Experts {
        module,
        activation: config.activation,
        experts: router.experts,
        weighed: names.weighed,
        stack: names.stack,
    }
}

/// A projection between the stream and the experts' own width; what it gives.
fn projected(
    b: &mut Builder,
    [input, output]: [&dyn Fn(&str) -> Site; 2],
    name: &str,
    weight: String,
    from: &Site,
) -> Site {
    b.copy(from.clone(), input(name));
    let out = output(name);
    b.op(name, OpKind::Linear { weight }, vec![input(name).or(from.clone())], out.clone());
    out
}

/// The encoder of BERT, MiniLM and their kin; the embedding layer is compared, not replayed.
fn bert(config: &ModelConfig) -> Plan {
    let mut b = Builder { ops: Vec::new(), layer: None, config };
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
            one_plus: false,
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
        let kind = OpKind::Attention {
            window: layer.window,
            chunk: None,
            sinks: None,
            rope: None,
            rotated: Vec::new(),
            chosen: None,
            gate: false,
        };
        b.op("attention", kind, inputs, Site::input(dense.clone()));
        named(&mut b, "attention.output.dense", Site::default());
        let norm1 = at("attention.output.LayerNorm");
        b.op(
            "residual",
            OpKind::Sum { scale: 1.0 },
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
        b.op(
            "residual",
            OpKind::Sum { scale: 1.0 },
            vec![middle, Site::output(narrow.clone())],
            Site::input(norm2.clone()),
        );
        b.module("output.LayerNorm", norm2.clone(), norm(norm2.clone()), Site::default());
        stream.push(into);
        branches.push(vec![("attention", Site::output(dense)), ("mlp", Site::output(narrow))]);
        before = Site::output(module.clone()).or(Site::output(norm2));
        modules.push(module);
    }
    stream.push(before);
    Plan { ops: b.ops, stream, branches, modules, logits: Site::default() }
}
