//! What tensors are for by their names, in the conventions of all producers.

use super::{Checkpoint, online};

/// Endings of a weight's tensor; what precedes is the module.
pub(super) const WEIGHTS: &[&str] =
    &[".weight", ".qweight", ".weight_packed", ".blocks", "_blocks", ".compressed", ".W_q", TORCHAO];

/// How torchao's codes of a module's weight end.
pub(super) const TORCHAO: &str = "._weight_qdata";

/// Endings of tensors that belong to a weight; what precedes is the module or its weight.
const COMPANIONS: &[&str] = &[
    "._weight_scale",
    "._weight_zero_point",
    "._weight_per_tensor_scale",
    "._weight_scale_and_zero",
    ".weight_global_scale",
    ".weight_zero_point_2",
    ".weight_zero_point",
    ".weight_scale_inv",
    ".weight_offset",
    ".weight_scale_2",
    ".weight_scale1",
    ".weight_scale",
    ".weight_shape",
    ".weight_g_idx",
    ".weight_format",
    ".qscale_weight",
    ".bitmask",
    ".qzeros",
    ".scales",
    ".g_idx",
    ".scale",
    ".SCB",
    "_scale_inv",
    "_scales",
    "_scale",
];

/// What follows the name of a weight's own tensor in bitsandbytes.
const OF_A_TENSOR: &[&str] = &[".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
/// The same, before the name of the format.
pub(super) const QUANT_STATE: &str = ".quant_state.";

/// Words that name of a layer's scales those of its input.
const INPUT: [&str; 8] = ["input", "inputs", "activation", "activations", "act", "in", "x", "a"];
/// Words of activations that are no layer's input: outputs, what attention multiplies, the KV cache.
const OTHER_ACTIVATIONS: [&str; 9] = ["output", "out", "prob", "softmax", "attn", "kv", "q", "k", "v"];
/// Words that may stand beside these in the name of a scale, and say nothing of whose it is.
const BESIDE: [&str; 8] = ["global", "inv", "static", "per", "tensor", "token", "channel", "2"];
/// Words of which one has to be there.
const SCALE: [&str; 6] = ["scale", "scales", "qscale", "zero", "point", "amax"];

/// What a tensor is for by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// The weight of a module; of a norm or an embedding, too.
    Weight { module: &'a str },
    /// A scale, zero point or the like of a module's weight.
    Companion { module: &'a str },
    /// A scale or zero point of activations or of the KV cache: no weight is read with it.
    ActivationScale,
    /// A bias, or anything else.
    Other,
}

/// What a tensor is for by its name.
pub fn role(tensor: &str) -> Role<'_> {
    if activation(tensor).is_some() {
        return Role::ActivationScale;
    }
    match (module_of(tensor), companion(tensor)) {
        (Some(module), _) => Role::Weight { module },
        (None, Some((module, _))) => Role::Companion { module },
        (None, None) => Role::Other,
    }
}

pub(super) fn module_of(tensor: &str) -> Option<&str> {
    WEIGHTS.iter().find_map(|ending| tensor.strip_suffix(ending)).filter(|m| !m.is_empty())
}

/// The module that a scale, zero point or the like belongs to by its name, and the ending that says so.
fn companion(tensor: &str) -> Option<(&str, &'static str)> {
    let state = || tensor.find(QUANT_STATE).map(|at| (&tensor[..at], QUANT_STATE));
    let of_a_tensor = || OF_A_TENSOR.iter().find_map(|e| Some((tensor.strip_suffix(e)?, *e)));
    if let Some((weight, ending)) = of_a_tensor().or_else(state) {
        return Some((module_of(weight).unwrap_or(weight), ending)).filter(|(module, _)| !module.is_empty());
    }
    let (module, ending) = COMPANIONS.iter().find_map(|e| Some((tensor.strip_suffix(e)?, *e)))?;
    (!module.is_empty()).then_some((module, ending))
}

/// Whose scale a scale of activations is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation<'a> {
    /// The input of this module.
    Input {
        module: &'a str,
    },
    Other,
}

/// By the words of the name's last part: one says that it is a scale, one whose, and no other is there.
fn activation(tensor: &str) -> Option<Activation<'_>> {
    let (module, last) = tensor.rsplit_once('.').unwrap_or(("", tensor));
    // torchao keeps the scale of the input with the weight: `_weight_act_per_tensor_scale`.
    let last = last.strip_prefix("_weight_").unwrap_or(last);
    if last.starts_with("weight") || !["scale", "zero_point", "amax"].iter().any(|word| last.contains(word)) {
        return None;
    }
    // A quantiser may be a module of its own: `q_proj.input_quantizer._amax`.
    if let Some((outer, quantizer)) = module.rsplit_once('.')
        && let Some(whose) = quantizer.strip_suffix("_quantizer")
        && SCALE.contains(&last.trim_start_matches('_'))
    {
        return match whose {
            "input" => Some(Activation::Input { module: outer }),
            "weight" => None,
            _ => Some(Activation::Other),
        };
    }
    let words: Vec<&str> = last.split('_').filter(|word| !word.is_empty()).collect();
    let known =
        |word: &&str| [&INPUT[..], &OTHER_ACTIVATIONS, &BESIDE, &SCALE].iter().any(|l| l.contains(word));
    let has = |words: &[&str], list: &[&str]| words.iter().any(|word| list.contains(word));
    if module.is_empty() || !has(&words, &SCALE) {
        return None;
    }
    if words.iter().all(known) {
        return match () {
            () if has(&words, &OTHER_ACTIVATIONS) => Some(Activation::Other),
            () if has(&words, &INPUT) => Some(Activation::Input { module }),
            () => None,
        };
    }
    // Experts that share a tensor have no module of their own: `experts.gate_up_proj_input_scale`.
    let of_input = words.iter().rposition(|word| ["input", "activation", "act"].contains(word))?;
    let own = &words[of_input..];
    let prefix = last.find(&format!("_{}", own.join("_")))?;
    let ends_there = last.len() == prefix + 1 + own.join("_").len();
    (own.iter().all(known) && has(own, &SCALE) && ends_there)
        .then(|| Activation::Input { module: &tensor[..module.len() + 1 + prefix] })
}

/// The module whose input this tensor is a scale of.
pub(super) fn input_scale_of(tensor: &str) -> Option<&str> {
    let is_zero_point = tensor.ends_with("zero_point");
    match activation(tensor) {
        Some(Activation::Input { module }) if !is_zero_point => Some(module),
        _ => None,
    }
}

/// The module whose input's scale or zero point this tensor is.
pub(super) fn input_of(tensor: &str) -> Option<&str> {
    match activation(tensor) {
        Some(Activation::Input { module }) => Some(module),
        _ => None,
    }
}

/// Whether a scale or the like has no weight that it could belong to.
pub(super) fn is_orphan(checkpoint: &Checkpoint, tensor: &str) -> bool {
    if activation(tensor).is_some() {
        return false;
    }
    let Some((module, _)) = companion(tensor) else { return false };
    if of_fused_experts(checkpoint, module).is_some() {
        return false;
    }
    let dims = || checkpoint.raw(tensor).map_or(0, |t| t.shape.len());
    (!may_be_a_parameter(tensor) || dims() > 1) && weight_tensors(checkpoint, module).is_empty()
}

/// The tensor of experts that share one, where `experts.gate_up_proj_weight_scale` makes `module` end with `_weight`.
fn of_fused_experts<'m>(checkpoint: &Checkpoint, module: &'m str) -> Option<&'m str> {
    module.strip_suffix("_weight").filter(|tensor| checkpoint.has(tensor))
}

/// Models have parameters that are called like scales, too, such as `logit_scale`, a norm's `norm.scale`, and the
/// scales of a KV cache; they are numbers or vectors.
pub(super) fn may_be_a_parameter(tensor: &str) -> bool {
    companion(tensor).is_some_and(|(_, ending)| matches!(ending, "_scale" | ".scale"))
}

/// Names of the tensors that hold the weight of `module`.
pub(super) fn weight_tensors(checkpoint: &Checkpoint, module: &str) -> Vec<String> {
    let named = WEIGHTS.iter().map(|ending| format!("{module}{ending}")).chain([module.to_owned()]);
    named.filter(|name| checkpoint.has(name)).collect()
}

/// Whether a tensor comes with a weight and is none itself: its scale, what describes its packing, a rotation of its
/// layer.
pub(super) fn comes_with_a_weight(checkpoint: &Checkpoint, tensor: &str) -> bool {
    if activation(tensor)
        .is_some_and(|a| matches!(a, Activation::Input { module } if checkpoint.has_weight(module)))
    {
        return true;
    }
    if let Some((module, _)) = companion(tensor)
        && (!may_be_a_parameter(tensor)
            || checkpoint.has_weight(module)
            || of_fused_experts(checkpoint, module).is_some())
        && activation(tensor).is_none()
    {
        return true;
    }
    // HQQ's and sparse weights have companions of everyday names.
    let beside =
        |module: &str| ["W_q", "compressed"].iter().any(|name| checkpoint.has(&format!("{module}.{name}")));
    let own = module_of(tensor).is_some();
    (!own && tensor.rsplit_once('.').is_some_and(|(module, _)| beside(module)))
        || online::is_beside_a_weight(tensor)
        || online::of_tensor(checkpoint, tensor).is_some()
}

/// Tensors that only one scheme has, and the scheme, of those that are not read: any one of a row's tensors is a sign.
const FOREIGN: [(&[&str], &str); 13] = [
    (&["codebooks", "codes"], "AQLM"),
    (&["Qidxs"], "QuIP#"),
    (&["trellis"], "EXL3"),
    (&["q_weight", "q_scale"], "EXL2"),
    (&["centroids", "indices"], "VPTQ"),
    (&["meta", "weight_packed"], "Marlin with 2:4 sparsity"),
    (&["B_24", "B_meta"], "Marlin with 2:4 sparsity"),
    (&["dense_weights"], "SpQR"),
    (&["oweight", "lookup_table"], "SqueezeLLM"),
    (&["biases", "scales", "weight"], "MLX"),
    (&["s_channel", "B"], "QQQ"),
    (&["_data", "_scale"], "Quanto"),
    (&["scale2", "W_q"], "SINQ"),
];

/// The scheme that a module's weight seems to be of, where it is one that is not read: all tensors of a row are there.
pub(super) fn foreign(checkpoint: &Checkpoint, module: &str) -> Option<&'static str> {
    checkpoint.extras().foreign.get(module).copied()
}

/// The same for a module of which this tensor is the first, by a look for all others.
pub(super) fn foreign_by(checkpoint: &Checkpoint, tensor: &str) -> Option<(String, &'static str)> {
    let (module, name) = tensor.rsplit_once('.')?;
    if !FOREIGN.iter().any(|(names, _)| names[0] == name) {
        return None;
    }
    let there = |name: &&str| checkpoint.has(&format!("{module}.{name}"));
    let (_, scheme) = FOREIGN.iter().find(|(names, _)| names.iter().all(there))?;
    Some((module.to_owned(), *scheme))
}

/// The module whose weight is of a scheme that is not read, if this is the first of its tensors.
pub(super) fn foreign_module<'t>(checkpoint: &Checkpoint, tensor: &'t str) -> Option<&'t str> {
    let (module, name) = tensor.rsplit_once('.')?;
    let is_sign = FOREIGN.iter().any(|(names, _)| names[0] == name);
    (is_sign && foreign(checkpoint, module).is_some()).then_some(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_inputs_are_known_under_every_name() {
        for name in [
            "input_scale",
            "activation_scale",
            "act_scale",
            "qscale_act",
            "input_global_scale",
            "input_scale_inv",
            "x_scale",
            "a_scale",
            "in_scale",
            "activation_scales",
            "static_input_scale",
            "input_quantizer._amax",
            "_weight_act_per_tensor_scale",
        ] {
            let tensor = format!("l.0.mlp.up_proj.{name}");
            assert_eq!(input_scale_of(&tensor), Some("l.0.mlp.up_proj"), "{tensor}");
            assert_eq!(role(&tensor), Role::ActivationScale, "{tensor}");
        }
        assert_eq!(input_scale_of("m.experts.gate_up_proj_input_scale"), Some("m.experts.gate_up_proj"));
        for name in
            ["output_scale", "k_scale", "v_scale", "kv_scale", "prob_scale", "q_scale", "softmax_scale"]
        {
            let tensor = format!("l.0.self_attn.{name}");
            assert_eq!((input_scale_of(&tensor), role(&tensor)), (None, Role::ActivationScale), "{tensor}");
        }
    }

    #[test]
    fn scales_of_weights_stay_theirs() {
        for (tensor, module) in [
            ("m.weight_scale", "m"),
            ("m.scale", "m"),
            ("e.in_proj_scale_inv", "e.in_proj"),
            ("e.linear_in_scale", "e.linear_in"),
            ("m.qscale_weight", "m"),
            ("m._weight_scale", "m"),
            ("m._weight_per_tensor_scale", "m"),
            ("m.weight.absmax", "m"),
            ("m.weight.quant_state.bitsandbytes__nf4", "m"),
        ] {
            assert_eq!(role(tensor), Role::Companion { module }, "{tensor}");
        }
        assert_eq!(role("logit_scale"), Role::Companion { module: "logit" });
        assert_eq!(role("m.bias"), Role::Other);
    }
}
