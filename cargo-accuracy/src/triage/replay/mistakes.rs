//! Known mistakes, and which of them an operation of a kind may have.

use accuracy_core::dtype::DType;
use accuracy_core::model::config::{Inner, Weighed};
use accuracy_core::model::inputs::quantised;
use accuracy_core::model::ops::{self, Precision};
use accuracy_core::model::{Activation, ModelConfig, Op, OpKind, Place, QkNorm, Rope, Router, Site, rope};
use accuracy_core::quant::{Granularity, Quant};
use accuracy_core::reference::Matrix;
use accuracy_core::reference::model::RopeStyle;
use std::collections::BTreeSet;
use std::ops::Range;

/// Columns that are not where they should be, or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Each two neighbours are exchanged.
    Pairs,
    /// Of so many equal parts this one is left out.
    Without { parts: usize, index: usize },
    /// So many equal parts are in the opposite order.
    Backwards(usize),
    /// All columns are those of so many further on.
    Rolled(usize),
}

impl Moved {
    pub(super) fn of(self, x: &Matrix) -> Matrix {
        let cols = x.cols;
        let from = |c: usize| match self {
            Moved::Pairs => Some(c ^ 1).filter(|&c| c < cols),
            Moved::Without { parts, index } => Some(c).filter(|c| c / (cols / parts).max(1) != index),
            Moved::Backwards(parts) => {
                let size = (cols / parts).max(1);
                Some((parts - 1 - (c / size).min(parts - 1)) * size + c % size)
            }
            Moved::Rolled(by) => Some((c + by) % cols.max(1)),
        };
        let row =
            |r: usize| (0..cols).map(move |c| from(c).filter(|&c| c < cols).map_or(0.0, |c| x.row(r)[c]));
        Matrix::new(x.rows, cols, (0..x.rows).flat_map(row).collect())
    }
}

/// Mistakes with the logits of sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinksMistake {
    Missing,
    /// Each head has that of so many further on.
    Rolled(usize),
    /// They are multiplied with the scale of the scores.
    Scaled,
    /// Two to the power of them is taken in place of e.
    Binary,
}

/// Mistakes with positions that are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PaddingMistake {
    Seen,
    /// The token beside it counts as padding, too.
    Longer,
    /// Its last position does not.
    Shorter,
}

impl PaddingMistake {
    /// Which keys are hidden in place of the padding.
    pub(super) fn of(self, padding: &[bool], sequences: &[Range<usize>]) -> Vec<bool> {
        let mut out = padding.to_vec();
        for own in sequences.iter().filter(|s| s.end <= padding.len()) {
            for row in own.clone() {
                let near = [row.checked_sub(1), Some(row + 1)];
                let mut beside = near.into_iter().flatten().filter(|r| own.contains(r)).map(|r| padding[r]);
                out[row] = match self {
                    PaddingMistake::Seen => false,
                    PaddingMistake::Longer => padding[row] || beside.any(|hidden| hidden),
                    PaddingMistake::Shorter => padding[row] && beside.all(|hidden| hidden),
                };
            }
        }
        out
    }
}

/// Mistakes with the choice of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexerMistake {
    NotRotated,
    Pairs,
    NoRelu,
    /// All heads count the same.
    Unweighted,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NormMistake {
    Twice,
    NoWeight,
    Skipped,
    OnePlus,
    Eps(f64),
    Centred,
    NoBias,
    /// By groups of so many columns in place of all together.
    Grouped(usize),
}

/// A mistake in an operation.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    /// The weight is another layer's.
    pub(super) layer: Option<usize>,
    pub(super) norm: Option<NormMistake>,
    /// The weight is this one.
    pub(super) weight: Option<String>,
    /// Each row is made of the row before it.
    pub(super) other_rows: bool,
    /// Experts are chosen by this router.
    pub(super) router: Option<Router>,
    /// This summand is added twice.
    pub(super) twice: Option<usize>,
    /// The factor of a sum is not applied.
    pub(super) unscaled: bool,
    /// Experts have the weights of those so many further on.
    pub(super) next_expert: usize,
    /// The routing weights of a token's experts are those of the expert before.
    pub(super) rolled_slots: bool,
    /// Routing weights are applied to the experts' input in place of their output, or the other way round.
    pub(super) weighed_elsewhere: bool,
    /// How often the bias is added; of experts, those of the first products and that of the last.
    pub(super) bias: f64,
    pub(super) bias_down: f64,
    /// The bias is this module's.
    pub(super) bias_of: Option<String>,
    /// A product, or a summand's number of a sum, takes its value from here.
    pub(super) instead: Option<(usize, Site)>,
    /// Before they are quantised, inputs are cut off at this share of what their scale is for.
    pub(super) clip: f64,
    /// All of the input has one scale, so many times as large as it need be.
    pub(super) static_scale: Option<f64>,
    /// The gate of an output is not applied.
    pub(super) no_gate: bool,
    /// A step begins with an empty state.
    pub(super) no_state: bool,
    pub(super) delta: Option<ops::DeltaMistake>,
    pub(super) state: Option<ops::StateMistake>,
    /// A gate is applied before the norm in place of behind it, or the other way round.
    pub(super) other_order: bool,
    /// Positions are cut into chunks of so many, or not.
    pub(super) chunk: Option<Option<usize>>,
    /// Heads are not normed behind the rotation.
    pub(super) no_unit_norm: bool,
    /// Queries are not scaled by their position.
    pub(super) no_temperature: bool,
    /// Routing weights lack this factor still: what they make is multiplied with it in the sum with the shared expert.
    pub(super) late: Option<f64>,
    /// A sum is multiplied with this.
    pub(super) scaled: Option<f64>,
    /// Experts of this part of so many are left out.
    pub(super) without_experts: Option<(usize, usize)>,
    /// Positions are rounded to bf16.
    pub(super) rounded: bool,
    /// Queries and keys are normed after the rotation.
    pub(super) norm_last: bool,
    /// Pairs of keys alone.
    pub(super) style_k: Option<RopeStyle>,
    /// Other elements of a product's input are read, or of its output written.
    pub(super) read: Option<Moved>,
    pub(super) written: Option<Moved>,
    /// The heads of queries, of keys and of values are those of so many further on.
    pub(super) rolled: [usize; 3],
    /// A token does not see itself, but for the first.
    pub(super) strict: bool,
    pub(super) padding: Option<PaddingMistake>,
    /// Attention sees all positions in place of the chosen ones.
    pub(super) unchosen: bool,
    pub(super) no_cap: bool,
    /// Keys, values or both are stored in this format.
    pub(super) cache: Option<(DType, [bool; 2])>,
    pub(super) sinks: Option<SinksMistake>,
    pub(super) swapped: bool,
    pub(super) alike: bool,
    pub(super) activation: Option<Activation>,
    pub(super) only: Option<usize>,
    /// How inputs are quantised, which is no mistake.
    pub(super) inputs: Option<Quant>,
    /// The other half of the head is rotated.
    pub(super) second_half: bool,
    pub(super) style: Option<RopeStyle>,
    pub(super) table: Option<Rope>,
    pub(super) q_shift: f64,
    pub(super) rotate_q: bool,
    pub(super) rotate_k: bool,
    pub(super) scale: f64,
    pub(super) not_causal: bool,
    pub(super) window: Option<Option<usize>>,
    pub(super) tiled: bool,
}

impl Default for Mistake {
    fn default() -> Mistake {
        Mistake {
            layer: None,
            norm: None,
            router: None,
            twice: None,
            unscaled: false,
            next_expert: 0,
            rolled_slots: false,
            weighed_elsewhere: false,
            weight: None,
            other_rows: false,
            bias: 1.0,
            bias_down: 1.0,
            bias_of: None,
            instead: None,
            clip: 1.0,
            static_scale: None,
            no_gate: false,
            no_state: false,
            delta: None,
            state: None,
            other_order: false,
            chunk: None,
            no_unit_norm: false,
            no_temperature: false,
            late: None,
            scaled: None,
            without_experts: None,
            rounded: false,
            norm_last: false,
            style_k: None,
            read: None,
            written: None,
            rolled: [0; 3],
            strict: false,
            padding: None,
            unchosen: false,
            no_cap: false,
            cache: None,
            sinks: None,
            swapped: false,
            alike: false,
            activation: None,
            only: None,
            inputs: None,
            second_half: false,
            style: None,
            table: None,
            q_shift: 0.0,
            rotate_q: true,
            rotate_k: true,
            scale: 1.0,
            not_causal: false,
            window: None,
            tiled: false,
        }
    }
}

impl Mistake {
    /// The elements of a head of `d` that are rotated.
    pub(super) fn part(&self, dims: usize, d: usize) -> Range<usize> {
        if self.second_half { d - dims..d } else { 0..dims }
    }

    /// What a product takes of its input.
    pub(super) fn taken(&self, x: &Matrix, scheme: Quant, p: Precision) -> Matrix {
        let largest = |values: &[f64]| values.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        if let Some(factor) = self.static_scale {
            let scale = factor * largest(&x.data) / scheme.max;
            return match scale > 0.0 {
                true => quantised(x, &Quant::tensor(scheme.dtype).max(scheme.max).static_scale(scale), p),
                false => x.clone(),
            };
        }
        if self.clip == 1.0 {
            return quantised(x, &scheme, p);
        }
        let size = match scheme.granularity {
            Granularity::Group(n) => n,
            _ => x.cols,
        };
        let mut cut = x.clone();
        for row in cut.data.chunks_exact_mut(x.cols.max(1)) {
            for group in row.chunks_mut(size.max(1)) {
                let limit = self.clip * largest(group);
                group.iter_mut().for_each(|v| *v = v.clamp(-limit, limit));
            }
        }
        quantised(&cut, &scheme, p)
    }

    /// The name of a weight in the layer that it is taken of.
    pub(super) fn of_layer(&self, op: &Op, weight: &str) -> String {
        if let Some(other) = &self.weight {
            return other.clone();
        }
        match (op.layer, self.layer) {
            (Some(own), Some(other)) => weight.replacen(&format!(".{own}."), &format!(".{other}."), 1),
            _ => weight.to_owned(),
        }
    }
}

pub(super) type Named = (Option<&'static str>, String, Mistake);

/// One summand of a value that engines pass as two.
pub(super) fn summand(site: &Site, which: usize) -> Site {
    let parts = site.0.iter().filter(|p| !p.plus.is_empty());
    let one = parts.map(|p| match which {
        0 => Place { plus: &[], ..p.clone() },
        _ => Place { slots: p.plus, plus: &[], ..p.clone() },
    });
    Site(one.collect())
}

/// The name of a module without its path.
pub(super) fn last(module: &str) -> &str {
    module.rsplit_once('.').map_or(module, |m| m.1)
}

/// A mistake of the operation itself, with the words for it.
fn named(detail: &str, mistake: Mistake) -> Named {
    (None, detail.to_owned(), mistake)
}

fn of_layer(layer: usize) -> String {
    format!("the weight is layer {layer}'s")
}

/// Mistakes that an operation of this kind is known for.
pub(super) fn mistakes_of(op: &Op, config: Option<&ModelConfig>, has_bias: bool) -> Vec<Named> {
    let one = |detail: &str, mistake: Mistake| vec![named(detail, mistake)];
    match &op.kind {
        OpKind::Norm { .. } => of_norm(op, config),
        OpKind::Linear { .. } => of_linear(op, config, has_bias),
        OpKind::Gated(activation) | OpKind::Activation(activation) | OpKind::Experts { activation, .. } => {
            of_activation(op, *activation, config)
        }
        OpKind::Sum { scale } => of_sum(op.inputs.len(), *scale),
        OpKind::Attention { window, chunk, sinks, rope, gate, .. } => {
            let rope = config.and_then(|c| c.rope(*rope));
            let mut all = config.map_or(Vec::new(), |c| of_attention(*window, sinks.is_some(), c, rope));
            all.extend(of_chunks(*chunk));
            all.extend(config.map_or(Vec::new(), |c| of_temperature(c, rope)));
            if *gate {
                all.extend(one(
                    "the gate of the output is not applied",
                    Mistake { no_gate: true, ..Mistake::default() },
                ));
            }
            all
        }
        OpKind::Rotate { rope } => config
            .and_then(|c| Some(of_rotation(c.rope(Some(*rope))?, c.attention.key_dim)))
            .unwrap_or_default(),
        OpKind::Embedding { scale, .. } if *scale != 1.0 => {
            one("the multiplier is missing", Mistake { unscaled: true, ..Mistake::default() })
        }
        OpKind::Delta { .. } => of_delta(),
        OpKind::State { .. } => of_state(),
        OpKind::UnitNorm { .. } => {
            one("nothing is normed", Mistake { norm: Some(NormMistake::Skipped), ..Mistake::default() })
        }
        OpKind::GatedNorm { .. } => of_gated_norm(config),
        OpKind::Blend => of_blend(),
        OpKind::Logits { scale, cap } => of_logits(*scale, *cap),
        OpKind::Copy => vec![
            named("nothing is passed on: it is zero", Mistake { scaled: Some(0.0), ..Mistake::default() }),
            named("it is twice what it should be", Mistake { scaled: Some(2.0), ..Mistake::default() }),
        ],
        OpKind::Embedding { .. }
        | OpKind::RopeTable { .. }
        | OpKind::Router { .. }
        | OpKind::Indexer(_)
        | OpKind::FirstHalves { .. } => Vec::new(),
    }
}

/// Mistakes of a norm.
fn of_norm(op: &Op, config: Option<&ModelConfig>) -> Vec<Named> {
    let OpKind::Norm { weight, bias, eps, one_plus, .. } = &op.kind else { return Vec::new() };
    let none = Mistake::default();
    let layers = 0..if op.layer.is_some() { config.map_or(0, |c| c.layers.len()) } else { 0 };
    let norm = |n| Mistake { norm: Some(n), ..none.clone() };
    let gain = if *one_plus { "w in place of 1 + w" } else { "1 + w in place of w" };
    let mut all = vec![
        named("the weight is not applied", norm(NormMistake::NoWeight)),
        named(&format!("the weight is applied as {gain}"), norm(NormMistake::OnePlus)),
        named("nothing is normed", norm(NormMistake::Skipped)),
        named("it is normed twice", norm(NormMistake::Twice)),
        named("the residual is not added before the norm", Mistake { only: Some(0), ..none.clone() }),
        named("the residual alone is normed", Mistake { only: Some(1), ..none.clone() }),
    ];
    for (detail, other) in config.map_or(Vec::new(), |c| other_gains(c, op.layer, weight)) {
        all.push(named(&detail, Mistake { weight: Some(other), ..none.clone() }));
    }
    if bias.is_some() {
        all.push(named("the bias is missing", norm(NormMistake::NoBias)));
    }
    if let Some(d) = config.filter(|c| c.attention.qk_norm == QkNorm::Whole).map(|c| c.attention.key_dim)
        && ["q_norm", "k_norm"].contains(&last(weight))
    {
        all.push(named("each head is normed by itself, not all together", norm(NormMistake::Grouped(d))));
    }
    if bias.is_none() {
        all.push(named("the mean is subtracted, as LayerNorm does", norm(NormMistake::Centred)));
    }
    for layer in layers.filter(|&l| Some(l) != op.layer) {
        all.push(named(&of_layer(layer), Mistake { layer: Some(layer), ..none.clone() }));
    }
    for other in [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3].into_iter().filter(|e| e != eps) {
        all.push(named(&format!("epsilon {other:e} in place of {eps:e}"), norm(NormMistake::Eps(other))));
    }
    all
}

/// Mistakes of a product.
fn of_linear(op: &Op, config: Option<&ModelConfig>, has_bias: bool) -> Vec<Named> {
    let none = Mistake::default();
    let layers = 0..if op.layer.is_some() { config.map_or(0, |c| c.layers.len()) } else { 0 };
    let mut all = Vec::new();
    if has_bias {
        all.push(named("the bias is missing", Mistake { bias: 0.0, ..none.clone() }));
        for times in [2u8, 4, 8] {
            let detail = format!("the bias is added {times} times, as if once a rank");
            all.push(named(&detail, Mistake { bias: f64::from(times), ..none.clone() }));
        }
    }
    all.push(named(
        "pairs of the input's columns are exchanged, as if the two values of a byte were",
        Mistake { read: Some(Moved::Pairs), ..none.clone() },
    ));
    all.push(named("each row is made of the row before it", Mistake { other_rows: true, ..none.clone() }));
    for parts in [2, 4, 8] {
        for index in 0..parts {
            let detail = format!("part {} of {parts} of the sum is missing, as if a rank's", index + 1);
            let read = Some(Moved::Without { parts, index });
            all.push(named(&detail, Mistake { read, ..none.clone() }));
        }
        let detail =
            format!("{parts} parts of the output are in the opposite order, as if ranks' parts were");
        all.push(named(&detail, Mistake { written: Some(Moved::Backwards(parts)), ..none.clone() }));
    }
    // A product is dear, so only the neighbours are tried.
    let near = op.layer.map_or(0..0, |own| own.saturating_sub(1)..own + 2);
    for layer in layers.filter(|l| near.contains(l) && Some(*l) != op.layer) {
        all.push(named(&of_layer(layer), Mistake { layer: Some(layer), ..none.clone() }));
    }
    all
}

/// Mistakes of an activation, of experts with them.
fn of_activation(op: &Op, activation: Activation, config: Option<&ModelConfig>) -> Vec<Named> {
    let none = Mistake::default();
    let with = |activation| Mistake { activation: Some(activation), ..none.clone() };
    let mut all = Vec::new();
    let plain =
        matches!(op.kind, OpKind::Activation(_)) || config.is_some_and(|c| c.form.inner == Inner::Plain);
    if !plain {
        all.push(named("gate and up are swapped", Mistake { swapped: true, ..none.clone() }));
    }
    if let Activation::Clamped { alpha, limit, plus } = activation {
        let clamped = |alpha, limit, plus| with(Activation::Clamped { alpha, limit, plus });
        all.push(named("alpha is 1", clamped(1.0, limit, plus)));
        all.push(named("nothing is clamped", clamped(alpha, f64::INFINITY, plus)));
        all.push(named("up is taken in place of up + 1", clamped(alpha, limit, 0.0)));
    } else if matches!(op.kind, OpKind::Activation(_)) {
        let quick = Activation::Clamped { alpha: 1.702, limit: f64::INFINITY, plus: 0.0 };
        all.push(named("the activation is x * sigmoid(1.702 x), quick GELU", with(quick)));
    }
    for (name, other) in [
        ("SiLU", Activation::Silu),
        ("GELU", Activation::Gelu),
        ("GELU (tanh)", Activation::GeluTanh),
        ("ReLU", Activation::Relu),
        ("the square of ReLU", Activation::Relu2),
    ] {
        if other != activation {
            all.push(named(&format!("the activation is {name}"), with(other)));
        }
    }
    if let OpKind::Experts { experts, weighed, .. } = op.kind {
        all.extend(of_experts(experts, weighed));
    }
    all
}

/// Mistakes of experts, but for their activation.
fn of_experts(experts: usize, weighed: Weighed) -> Vec<Named> {
    let none = Mistake::default();
    let elsewhere = match weighed {
        Weighed::Output => "the routing weights are applied to the experts' input",
        Weighed::Input => "the routing weights are applied to the experts' output",
    };
    let mut all = vec![
        named("the routing weights are not applied", Mistake { alike: true, ..none.clone() }),
        named(elsewhere, Mistake { weighed_elsewhere: true, ..none.clone() }),
        named(
            "the routing weights of a token's experts are in another order",
            Mistake { rolled_slots: true, ..none.clone() },
        ),
        named("each expert has the weights of the one behind it", Mistake { next_expert: 1, ..none.clone() }),
    ];
    for parts in [2, 4, 8].into_iter().filter(|p| experts.is_multiple_of(*p)) {
        for index in 0..parts {
            let size = experts / parts;
            let (first, last) = (index * size, (index + 1) * size - 1);
            let detail = format!("experts {first} to {last} are missing, as if a rank's");
            let mistake = Mistake { without_experts: Some((parts, index)), ..none.clone() };
            all.push(named(&detail, mistake));
        }
    }
    for index in 0..2 {
        let read = Some(Moved::Without { parts: 2, index });
        let detail = format!("half {} of the experts' inner columns is missing, as if a rank's", index + 1);
        all.push(named(&detail, Mistake { read, ..none.clone() }));
    }
    all.push(named("the experts' biases are missing", Mistake { bias: 0.0, ..none.clone() }));
    all.push(named("the experts' biases are added twice", Mistake { bias: 2.0, ..none.clone() }));
    for times in [0u8, 2, 4, 8] {
        let detail = match times {
            0 => "the bias of the experts' down_proj is missing".to_owned(),
            n => format!("the bias of the experts' down_proj is added {n} times, as if once a rank"),
        };
        all.push(named(&detail, Mistake { bias_down: f64::from(times), ..none.clone() }));
    }
    all
}

/// Mistakes of a sum.
fn of_sum(count: usize, scale: f64) -> Vec<Named> {
    let none = Mistake::default();
    let mut all = Vec::new();
    for i in 0..count {
        let only = Mistake { only: Some(i), ..none.clone() };
        all.push(named(&format!("only summand {} of {count} is there", i + 1), only));
        let twice = Mistake { twice: Some(i), ..none.clone() };
        all.push(named(&format!("summand {} of {count} is added twice", i + 1), twice));
    }
    if scale != 1.0 {
        all.push(named("the multiplier is missing", Mistake { unscaled: true, ..none.clone() }));
    }
    all
}

/// Mistakes of a gated delta network.
fn of_delta() -> Vec<Named> {
    let none = Mistake::default();
    let with = |mistake| Mistake { delta: Some(mistake), ..none.clone() };
    vec![
        named("beta is taken without its sigmoid", with(ops::DeltaMistake::RawRate)),
        named("queries and keys are not normed to length 1", with(ops::DeltaMistake::NotNormed)),
        named("the state does not decay", with(ops::DeltaMistake::NoDecay)),
        named("what a key already recalls is not taken off its value", with(ops::DeltaMistake::NoCorrection)),
        named("the activation behind the convolution is missing", with(ops::DeltaMistake::NoActivation)),
        named("the convolution sees the present token alone", with(ops::DeltaMistake::NoConvolution)),
        named(
            "value head h goes with key head h % key heads (tiled) in place of h / group",
            with(ops::DeltaMistake::Tiled),
        ),
        named("the state of the passes before is not carried on", with(ops::DeltaMistake::Restarted)),
        named(
            "neither the state nor the convolution of the passes before is carried on",
            Mistake { no_state: true, ..none },
        ),
    ]
}

/// Mistakes of a state space.
fn of_state() -> Vec<Named> {
    use ops::StateMistake as State;
    let none = Mistake::default();
    let with = |detail: &str, mistake| named(detail, Mistake { state: Some(mistake), ..none.clone() });
    vec![
        with("the skip D x is missing", State::NoSkip),
        with("the bias of the time steps is missing", State::NoStepBias),
        with("time steps are not put through softplus", State::RawStep),
        with("the state does not decay", State::NoDecay),
        with("the activation behind the convolution is missing", State::NoActivation),
        with("the convolution sees the present token alone", State::NoConvolution),
        with("the bias of the convolution is missing", State::NoConvolutionBias),
        with("B and C are exchanged", State::Exchanged),
        with("what is written is not scaled by the time step", State::StepOfDecayAlone),
        with("head h has the B and C of group h % groups in place of h / heads of a group", State::Tiled),
        with("the state of the passes before is not carried on", State::Restarted),
        named(
            "neither the state nor the convolution of the passes before is carried on",
            Mistake { no_state: true, ..none.clone() },
        ),
    ]
}

/// Mistakes of chunks of positions.
fn of_chunks(chunk: Option<usize>) -> Vec<Named> {
    let none = Mistake::default();
    let Some(size) = chunk else { return Vec::new() };
    let mut all = vec![
        named("the chunks are ignored", Mistake { chunk: Some(None), ..none.clone() }),
        named(
            &format!("a window of {size} is taken in place of chunks"),
            Mistake { chunk: Some(None), window: Some(Some(size)), ..none.clone() },
        ),
    ];
    for other in [size / 2, size - 1, size + 1, 2 * size].into_iter().filter(|&n| n > 0) {
        let detail = format!("chunks are of {other} in place of {size}");
        all.push(named(&detail, Mistake { chunk: Some(Some(other)), ..none.clone() }));
    }
    all
}

/// Mistakes of queries that are scaled by their position, and of heads that are normed behind the rotation.
fn of_temperature(config: &ModelConfig, rope: Option<&Rope>) -> Vec<Named> {
    let none = Mistake::default();
    let form = &config.attention;
    let mut all = Vec::new();
    if form.temperature.is_some() && rope.is_none() {
        all.push(named(
            "queries are not scaled by their position",
            Mistake { no_temperature: true, ..none.clone() },
        ));
        for shift in [-1.0, 1.0] {
            let detail = format!("the positions that queries are scaled by are off by {shift}");
            all.push(named(&detail, Mistake { q_shift: shift, ..none.clone() }));
        }
    }
    if form.qk_norm == QkNorm::Unit && rope.is_some() {
        all.push(named("queries and keys are not normed", Mistake { no_unit_norm: true, ..none }));
    }
    all
}

/// Mistakes of a norm that is gated.
fn of_gated_norm(config: Option<&ModelConfig>) -> Vec<Named> {
    let none = Mistake::default();
    let norm = |n| Mistake { norm: Some(n), ..none.clone() };
    let all = config.and_then(|c| c.state).filter(|net| net.groups > 1);
    let together =
        all.map(|net| named("all groups are normed together", norm(NormMistake::Grouped(net.inner()))));
    let order = "the gate is applied on the other side of the norm";
    let more = [named(order, Mistake { other_order: true, ..none.clone() })].into_iter().chain(together);
    more.chain([
        named("the gate is not applied", Mistake { no_gate: true, ..none.clone() }),
        named("the weight is not applied", norm(NormMistake::NoWeight)),
        named("the weight is applied as 1 + w in place of w", norm(NormMistake::OnePlus)),
        named("nothing is normed", norm(NormMistake::Skipped)),
    ])
    .collect()
}

/// Mistakes of routed experts beside a shared one.
fn of_blend() -> Vec<Named> {
    let none = Mistake::default();
    vec![
        named("the gate of the shared expert is not applied", Mistake { no_gate: true, ..none.clone() }),
        named("the shared expert is missing", Mistake { only: Some(0), ..none.clone() }),
        named("the routed experts are missing", Mistake { only: Some(1), ..none.clone() }),
        named("the shared expert is added twice", Mistake { twice: Some(1), ..none }),
    ]
}

/// Mistakes of logits.
fn of_logits(scale: f64, cap: Option<f64>) -> Vec<Named> {
    let none = Mistake::default();
    let mut all = Vec::new();
    if cap.is_some() {
        all.push(named("the soft cap is missing", Mistake { no_cap: true, ..none.clone() }));
    }
    if scale != 1.0 {
        all.push(named("the multiplier is missing", Mistake { unscaled: true, ..none.clone() }));
    }
    all
}

/// Ways of quantising an input that are not the configuration's.
pub(super) fn other_quantisers(scheme: &Quant) -> Vec<Named> {
    let mut all: Vec<(String, Quant)> = Vec::new();
    for (format, max) in [(DType::E5M2, 57344.0), (DType::E4M3Fn, 448.0), (DType::I8, 127.0)] {
        if format != scheme.dtype {
            let detail =
                format!("inputs are quantised to {} in place of {}", format.name(), scheme.dtype.name());
            all.push((detail, Quant { dtype: format, ..*scheme }.max(max)));
        }
    }
    for (what, other) in [
        ("one scale for the whole input", Quant::tensor(scheme.dtype)),
        ("one scale for each token", Quant::token(scheme.dtype)),
    ] {
        let other = other.max(scheme.max);
        if other.granularity != scheme.granularity && scheme.static_scale.is_none() {
            all.push((format!("inputs are quantised with {what}"), other));
        }
    }
    all.retain(|(_, scheme)| scheme.problem().is_none());
    let none = Mistake::default();
    let mut all: Vec<Named> =
        all.into_iter().map(|(d, q)| (None, d, Mistake { inputs: Some(q), ..none.clone() })).collect();
    for clip in [0.5, 0.25] {
        let detail =
            format!("the scales of the input are {clip} of what they should be: large values are clipped");
        all.push((None, detail, Mistake { inputs: Some(*scheme), clip, ..none.clone() }));
    }
    for factor in [1.0, 2.0, 4.0, 8.0, 16.0] {
        let detail = format!("the input has one scale, {factor} times as large as its largest value needs");
        all.push((
            None,
            detail,
            Mistake { inputs: Some(*scheme), static_scale: Some(factor), ..none.clone() },
        ));
    }
    all
}

/// Weights of other norms that may be taken for one: of the same layer, of q for k, of the last layer for the final one.
fn other_gains(config: &ModelConfig, layer: Option<usize>, own: &str) -> Vec<(String, String)> {
    let Some(index) = layer.or(config.layers.len().checked_sub(1)) else { return Vec::new() };
    let at = format!("{}.layers.{index}", config.form.prefix);
    let n = config.form.norms;
    let around = [n.before_attention, n.after_attention, n.before_mlp, n.after_mlp];
    let mut names: Vec<String> = around.into_iter().flatten().map(|name| format!("{at}.{name}")).collect();
    if own.ends_with("q_norm") || own.ends_with("k_norm") {
        names = ["q_norm", "k_norm"].map(|name| format!("{at}.self_attn.{name}")).to_vec();
    } else {
        names.push(format!("{}.{}", config.form.prefix, config.form.last_norm));
    }
    names.retain(|name| name != own);
    names.into_iter().map(|name| (format!("the weight is {name}'s"), name)).collect()
}

/// Mistakes of a rotation that is an operation by itself.
fn of_rotation(rope: &Rope, head: usize) -> Vec<Named> {
    let none = Mistake::default();
    let other = match rope.style {
        RopeStyle::Neox => (RopeStyle::GptJ, "pairs (2i, 2i+1) in place of (i, i+d/2)"),
        RopeStyle::GptJ => (RopeStyle::Neox, "pairs (i, i+d/2) in place of (2i, 2i+1)"),
    };
    let mut all = vec![
        (None, other.1.to_owned(), Mistake { style: Some(other.0), ..none.clone() }),
        (None, "nothing is rotated".to_owned(), Mistake { rotate_q: false, ..none.clone() }),
        (
            None,
            "the sign of the sine is flipped".to_owned(),
            Mistake { table: Some(backwards(rope)), ..none.clone() },
        ),
    ];
    for shift in [-1.0, 1.0] {
        all.push((None, format!("positions are off by {shift}"), Mistake { q_shift: shift, ..none.clone() }));
    }
    for (detail, table) in tables(rope).into_iter().chain(shorter(rope)).chain(longer(rope, head)) {
        all.push((None, detail, Mistake { table: Some(table), ..none.clone() }));
    }
    all.push((None, "positions are rounded to bf16".to_owned(), Mistake { rounded: true, ..none }));
    all
}

/// Mistakes of attention.
fn of_attention(window: Option<usize>, sinks: bool, config: &ModelConfig, rope: Option<&Rope>) -> Vec<Named> {
    let mut all = of_masks(window, config);
    all.extend(of_heads(config));
    if sinks {
        all.extend(of_sinks(config.attention.heads));
    }
    all.extend(of_scales(config));
    if let Some(rope) = rope {
        all.extend(of_rotated_attention(config, rope));
    }
    all
}

/// Which positions a token sees, and the cap of the scores.
fn of_masks(window: Option<usize>, config: &ModelConfig) -> Vec<Named> {
    let none = Mistake::default();
    let mut all: Vec<Named> = Vec::new();
    let mut attention = |detail: String, mistake: Mistake| all.push((None, detail, mistake));
    let form = &config.attention;
    if form.causal {
        attention("the causal mask is missing".into(), Mistake { not_causal: true, ..none.clone() });
        attention("a token does not see itself".into(), Mistake { strict: true, ..none.clone() });
    }
    for (detail, padding) in [
        ("padding is attended to", PaddingMistake::Seen),
        ("the token beside the padding is not attended to", PaddingMistake::Longer),
        ("the last position of the padding is attended to", PaddingMistake::Shorter),
    ] {
        attention(detail.into(), Mistake { padding: Some(padding), ..none.clone() });
    }
    if form.indexer.is_some() {
        let detail = "all positions are attended to, not the chosen ones alone";
        attention(detail.into(), Mistake { unchosen: true, ..none.clone() });
    }
    if form.cap.is_some() {
        attention("the soft cap of the scores is missing".into(), Mistake { no_cap: true, ..none.clone() });
    }
    let others: BTreeSet<usize> = config.layers.iter().filter_map(|l| l.window).collect();
    for w in others.into_iter().filter(|w| Some(*w) != window) {
        let mistake = Mistake { window: Some(Some(w)), ..none.clone() };
        attention(format!("a window of {w} is applied, as in other layers"), mistake);
    }
    if let Some(w) = window {
        for other in [w - 1, w + 1, 2 * w] {
            let mistake = Mistake { window: Some(Some(other)), ..none.clone() };
            attention(format!("the window is {other} in place of {w}"), mistake);
        }
        attention("the sliding window is ignored".into(), Mistake { window: Some(None), ..none.clone() });
    }
    all
}

/// Which heads are taken, and in which format keys and values are stored.
fn of_heads(config: &ModelConfig) -> Vec<Named> {
    let none = Mistake::default();
    let mut all: Vec<Named> = Vec::new();
    let mut attention = |detail: String, mistake: Mistake| all.push((None, detail, mistake));
    let form = &config.attention;
    if form.heads > 1 {
        for by in 1..form.heads.min(MOST_HEADS) {
            let detail = format!("heads of queries are those {by} further on");
            attention(detail, Mistake { rolled: [by, 0, 0], ..none.clone() });
        }
    }
    if form.kv_heads > 1 {
        for by in 1..form.kv_heads.min(MOST_HEADS) {
            for (what, rolled) in
                [("keys", [0, by, 0]), ("values", [0, 0, by]), ("keys and values", [0, by, by])]
            {
                let detail = format!("heads of {what} are those {by} further on");
                attention(detail, Mistake { rolled, ..none.clone() });
            }
        }
    }
    for format in [DType::E4M3Fn, DType::E4M3Fnuz, DType::E5M2] {
        for (what, which) in [
            ("keys and values are", [true, true]),
            ("keys are", [true, false]),
            ("values are", [false, true]),
        ] {
            let detail = format!("{what} rounded to {} without a scale", format.name());
            attention(detail, Mistake { cache: Some((format, which)), ..none.clone() });
        }
    }
    if form.kv_heads > 1 && form.kv_heads < form.heads {
        let detail = "query head h uses key head h % kv_heads (tiled) in place of h / group";
        attention(detail.into(), Mistake { tiled: true, ..none.clone() });
    }
    all
}

/// Mistakes of the logits of sinks.
fn of_sinks(heads: usize) -> Vec<Named> {
    let none = Mistake::default();
    let mut all: Vec<Named> = Vec::new();
    let mut attention = |detail: String, mistake: Mistake| all.push((None, detail, mistake));
    for (detail, sinks) in [
        ("the sinks are ignored", SinksMistake::Missing),
        ("the sinks are multiplied with the scale of the scores", SinksMistake::Scaled),
        ("two to the power of the sinks is taken in place of e", SinksMistake::Binary),
    ] {
        attention(detail.into(), Mistake { sinks: Some(sinks), ..none.clone() });
    }
    for by in 1..heads.min(MOST_HEADS) {
        let mistake = Mistake { sinks: Some(SinksMistake::Rolled(by)), ..none.clone() };
        attention(format!("the sinks of heads are those of heads {by} further on"), mistake);
    }
    all
}

/// Mistakes of the factor of the scores.
fn of_scales(config: &ModelConfig) -> Vec<Named> {
    let form = &config.attention;
    let d = form.key_dim as f64;
    let mut scales = vec![
        ("the scores are not scaled".to_owned(), 1.0 / form.scale),
        ("the scores are scaled by 1/d".to_owned(), 1.0 / (d * form.scale)),
    ];
    if (form.scale * d.sqrt() - 1.0).abs() > 1e-9 {
        let detail = match form.mla {
            Some(_) => "YaRN's mscale of the scores is missing".to_owned(),
            None => format!("the scores are scaled by 1/sqrt(d) in place of {}", form.scale),
        };
        scales.push((detail, 1.0 / (form.scale * d.sqrt())));
    }
    let (plain, heads) = (config.hidden / form.heads.max(1), form.heads);
    if form.mla.is_none() && plain > 0 && plain != form.key_dim {
        let wrong = (plain as f64).powf(-0.5) / form.scale;
        scales.push((format!("the scores are scaled for heads of hidden / {heads}, {plain}"), wrong));
    }
    if let Some(mla) = form.mla {
        let wrong = (mla.nope as f64).powf(-0.5) / d.powf(-0.5);
        scales.push(("the scores are scaled for the part without rotation".to_owned(), wrong));
    }
    scales
        .into_iter()
        .map(|(detail, scale)| (None, detail, Mistake { scale, ..Mistake::default() }))
        .collect()
}

/// Mistakes of the rotation of queries and keys.
fn of_rotated_attention(config: &ModelConfig, rope: &Rope) -> Vec<Named> {
    let none = Mistake::default();
    let form = &config.attention;
    let mut all = Vec::new();
    let mut rope_twist =
        |detail: &str, mistake: Mistake| all.push((Some("rope"), detail.to_owned(), mistake));
    let other = match rope.style {
        RopeStyle::Neox => (RopeStyle::GptJ, "pairs (2i, 2i+1) in place of (i, i+d/2)"),
        RopeStyle::GptJ => (RopeStyle::Neox, "pairs (i, i+d/2) in place of (2i, 2i+1)"),
    };
    rope_twist(other.1, Mistake { style: Some(other.0), ..none.clone() });
    for shift in [-1.0, 1.0] {
        rope_twist(
            &format!("positions of queries are off by {shift}"),
            Mistake { q_shift: shift, ..none.clone() },
        );
    }
    rope_twist("the sign of the sine is flipped", Mistake { table: Some(backwards(rope)), ..none.clone() });
    if rope.dims < form.key_dim {
        rope_twist("the other end of each head is rotated", Mistake { second_half: true, ..none.clone() });
    }
    rope_twist("queries are not rotated", Mistake { rotate_q: false, ..none.clone() });
    rope_twist("keys are not rotated", Mistake { rotate_k: false, ..none.clone() });
    rope_twist(
        "neither queries nor keys are rotated",
        Mistake { rotate_q: false, rotate_k: false, ..none.clone() },
    );
    for (detail, table) in tables(rope).into_iter().chain(other_tables(config, rope)) {
        rope_twist(&detail, Mistake { table: Some(table), ..none.clone() });
    }
    // Of latent attention the rotated elements are a part of their own.
    let other_parts = shorter(rope).into_iter().chain(longer(rope, form.key_dim));
    for (detail, table) in other_parts.filter(|_| form.mla.is_none()) {
        rope_twist(&detail, Mistake { table: Some(table), ..none.clone() });
    }
    rope_twist("positions are rounded to bf16", Mistake { rounded: true, ..none.clone() });
    if form.mla.is_some() {
        rope_twist(&format!("keys alone: {}", other.1), Mistake { style_k: Some(other.0), ..none.clone() });
    }
    if form.qk_norm == QkNorm::Head {
        rope_twist("queries and keys are normed after the rotation", Mistake { norm_last: true, ..none });
    }
    all
}

/// Heads that are tried to be others: all of a usual number.
const MOST_HEADS: usize = 16;

/// Other tables than the configuration's.
pub(super) fn tables(rope: &Rope) -> Vec<(String, Rope)> {
    let mut tables = Vec::new();
    let rounded = rope.inv_freq.iter().map(|&f| Precision::BF16.round(f)).collect();
    tables.push(("frequencies are rounded to bf16".to_owned(), Rope { inv_freq: rounded, ..rope.clone() }));
    let plain = Rope { inv_freq: rope::plain(rope.dims, rope.theta), factor: 1.0, ..rope.clone() };
    if plain.inv_freq != rope.inv_freq {
        tables.push(("frequencies are not scaled as the configuration says".to_owned(), plain));
    }
    if rope.factor != 1.0 {
        let without = Rope { factor: 1.0, ..rope.clone() };
        tables.push(("the attention factor of cosines and sines is missing".to_owned(), without));
        let twice = Rope { factor: rope.factor.powi(2), ..rope.clone() };
        tables.push(("the attention factor of cosines and sines is applied twice".to_owned(), twice));
    }
    for (times, what) in [(2.0, "twice"), (0.5, "half")] {
        let inv_freq = rope.inv_freq.iter().map(|f| times * f).collect();
        let again = if times > 1.0 { ", as if the rotation was done twice" } else { "" };
        let detail = format!("angles are {what} what they should be{again}");
        tables.push((detail, Rope { inv_freq, ..rope.clone() }));
    }
    for theta in [1e3, 1e4, 1e5, 1.5e5, 5e5, 1e6, 1e7].into_iter().filter(|&t| t != rope.theta) {
        let ratio: Vec<f64> =
            rope.inv_freq.iter().zip(rope::plain(rope.dims, rope.theta)).map(|(a, b)| a / b).collect();
        let inv_freq = rope::plain(rope.dims, theta).iter().zip(ratio).map(|(f, r)| f * r).collect();
        let theta_text = format!("theta {theta:e} in place of {:e}", rope.theta);
        tables.push((theta_text, Rope { theta, inv_freq, ..rope.clone() }));
    }
    tables
}

/// Angles of the other sign.
pub(super) fn backwards(rope: &Rope) -> Rope {
    Rope { inv_freq: rope.inv_freq.iter().map(|f| -f).collect(), ..rope.clone() }
}

/// The rotary embeddings of the model's other layers.
pub(super) fn other_tables(config: &ModelConfig, own: &Rope) -> Vec<(String, Rope)> {
    let others = config.ropes.iter().filter(|r| *r != own && r.dims == own.dims);
    others.map(|r| ("the table is that of other layers".to_owned(), r.clone())).collect()
}

/// A rotation of whole heads, of which a part should be rotated.
fn longer(rope: &Rope, head: usize) -> Option<(String, Rope)> {
    let whole = Rope { dims: head, inv_freq: rope::plain(head, rope.theta), ..rope.clone() };
    let detail = format!("all {head} elements of each head are rotated in place of {}", rope.dims);
    (rope.dims < head).then_some((detail, whole))
}

/// Rotations of the first half of the elements that should be rotated.
fn shorter(rope: &Rope) -> Vec<(String, Rope)> {
    let dims = rope.dims / 2;
    if dims < 2 || !dims.is_multiple_of(2) {
        return Vec::new();
    }
    let own = rope.inv_freq[..dims / 2].to_vec();
    let table = |inv_freq: Vec<f64>| Rope { dims, inv_freq, ..rope.clone() };
    vec![
        (
            format!("only the first {dims} elements of each head are rotated, with frequencies of {dims}"),
            table(rope::plain(dims, rope.theta)),
        ),
        (format!("only the first {dims} elements of each head are rotated"), table(own)),
    ]
}
