//! Whether the weights are those of the model that `config.json` describes: its layers, experts and dimensions, and
//! layers that lack what others like them have. How weights are stored is looked at in [`super::survey`].

use super::survey::{Finding, Severity, Survey};
use accuracy_core::weights::{Checkpoint, Role, role};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What precedes a layer's number.
const LAYERS: [&str; 5] = ["layers", "layer", "h", "blocks", "block"];
/// More layers than this are a damaged number.
const MAX_LAYERS: usize = 10_000;

/// Parts of the names of stacks of layers that `num_hidden_layers` does not count.
const TOWERS: [&str; 7] = ["vision", "visual", "image", "audio", "speech", "mtp", "draft"];
/// Where a model of several keeps the configuration of its language model.
const LANGUAGE: [&str; 3] = ["text_config", "llm_config", "language_config"];
/// Keys by which some stored layers serve as several, or not all of a kind are there.
const SHARING: [&str; 5] =
    ["is_encoder_decoder", "decoder_layers", "num_hidden_groups", "layer_sharing", "block_configs"];
const EXPERTS: [&str; 4] = ["n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts"];
const MORE_LAYERS: [&str; 3] = ["num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"];
/// What the other projections of a block are for nothing without.
const OUTPUTS: [&str; 3] = ["o_proj", "out_proj", "down_proj"];
/// A weight's name, rows and columns.
type Shape<'a> = (&'a str, usize, usize);

/// The layers of one part of a model, by number, with the names of what each has.
struct Stack<'n> {
    /// `model.layers`
    path: &'n str,
    layers: BTreeMap<usize, Vec<&'n str>>,
}

/// Adds what it finds. What is left of a checkpoint after `cargo accuracy shard` is no model, nor is one file of
/// several.
pub fn check(checkpoint: &Checkpoint, survey: &mut Survey) {
    if survey.carved || !is_whole(checkpoint) {
        return;
    }
    let names: Vec<&str> = checkpoint.names().collect();
    let stacks = stacks(&names);
    let config = checkpoint.config();
    let model = LANGUAGE.iter().find_map(|key| config.get(key)).unwrap_or(config);
    let layers = count(model, "num_hidden_layers").filter(|_| !shares_layers(config, model));
    if let Some(layers) = layers.filter(|&n| n > MAX_LAYERS) {
        let message = format!("config.json says num_hidden_layers {layers}, which no model has");
        survey.findings.push(Finding::error("missing_layers", "config.json", message));
        return;
    }
    for stack in &stacks {
        let described = layers.filter(|_| !stack.is_tower());
        unlike(stack, described, &[config, model], &mut survey.findings);
    }
    let Some(layers) = layers else { return };
    let of_language: Vec<&Stack> = stacks.iter().filter(|stack| !stack.is_tower()).collect();
    let whole: Vec<&Stack> = of_language.iter().copied().filter(|s| s.lacks(layers).is_empty()).collect();
    match whole[..] {
        [] => missing_layers(&of_language, layers, &mut survey.findings),
        [stack] => {
            beyond(stack, layers, model, &mut survey.findings);
            if let Some((key, experts)) = EXPERTS.iter().find_map(|key| Some((*key, count(model, key)?))) {
                missing_experts(stack, key, experts, survey);
            }
            dimensions(stack, layers, model, survey);
        }
        // Which of them is the language model's is not known.
        _ => (),
    }
}

/// Whether all tensors of a model should be here.
fn is_whole(checkpoint: &Checkpoint) -> bool {
    let path = checkpoint.path();
    path.is_dir() || path.extension().is_some_and(|e| e == "json") || path.ends_with("model.safetensors")
}

fn count(config: &Value, key: &str) -> Option<usize> {
    usize::try_from(config.get(key)?.as_u64()?).ok()
}

fn shares_layers(config: &Value, model: &Value) -> bool {
    let set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    SHARING.iter().any(|key| [config, model].iter().any(|c| c.get(key).is_some_and(set)))
}

impl Stack<'_> {
    fn is_tower(&self) -> bool {
        TOWERS.iter().any(|tower| self.path.contains(tower))
    }

    /// Those of the first `count` layers that are not there.
    fn lacks(&self, count: usize) -> Vec<usize> {
        (0..count).filter(|layer| !self.layers.contains_key(layer)).collect()
    }

    /// The layer's number of a weight of this stack, and its name within the layer.
    fn within<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        let (number, rest) = name.strip_prefix(self.path)?.strip_prefix('.')?.split_once('.')?;
        Some((number.parse().ok()?, rest))
    }
}

/// The stacks of layers, in the order of the names.
fn stacks<'n>(names: &[&'n str]) -> Vec<Stack<'n>> {
    let mut stacks: Vec<Stack> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for name in names {
        let member = match role(name) {
            Role::Weight { module } => module,
            Role::Companion { .. } | Role::ActivationScale => continue,
            Role::Other => name,
        };
        let Some((path, layer, member)) = split(member) else { continue };
        let i = *at.entry(path).or_insert_with(|| {
            stacks.push(Stack { path, layers: BTreeMap::new() });
            stacks.len() - 1
        });
        stacks[i].layers.entry(layer).or_default().push(member);
    }
    for members in stacks.iter_mut().flat_map(|stack| stack.layers.values_mut()) {
        members.sort_unstable();
        members.dedup();
    }
    stacks
}

/// `model.layers.3.mlp.up_proj`: `model.layers`, 3 and `mlp.up_proj`.
fn split(name: &str) -> Option<(&str, usize, &str)> {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if LAYERS.contains(&part)
            && let Some((number, rest)) = name.get(end + 1..).and_then(|after| after.split_once('.'))
            && number.bytes().all(|b| b.is_ascii_digit())
        {
            return Some((&name[..end], number.parse().ok()?, rest));
        }
        end += 1;
    }
    None
}

/// What `config.json` says of a layer beside all others: the entries of its lists with one for each layer.
fn described(configs: &[&Value], layers: usize, layer: usize) -> String {
    let of_layer = |(key, value): (&String, &Value)| match value {
        Value::Array(list) if list.len() >= layers => list.get(layer).map(Value::to_string),
        Value::String(text) if key.ends_with("pattern") => text.get(layer..=layer).map(str::to_owned),
        _ => None,
    };
    let members = configs.iter().filter_map(|config| config.as_object()).flatten();
    members.filter_map(of_layer).collect::<Vec<_>>().join(" ")
}

/// Layers that have nothing but what others of their stack have, and not all of it.
///
/// Layers of another kind, as dense ones among those with experts, have something of their own. Those that are the
/// more are taken to be right, and those beyond `layers` predict further tokens.
fn unlike(stack: &Stack, layers: Option<usize>, configs: &[&Value], findings: &mut Vec<Finding>) {
    let mut kinds: BTreeMap<(String, &[&str]), Vec<usize>> = BTreeMap::new();
    for (&layer, members) in &stack.layers {
        if layers.is_some_and(|layers| layer >= layers) {
            continue;
        }
        let described = layers.filter(|&n| n > 1).map(|n| described(configs, n, layer)).unwrap_or_default();
        kinds.entry((described, members)).or_default().push(layer);
    }
    for ((described, has), lacking) in &kinds {
        let others = kinds.iter().filter(|((d, all), layers)| {
            d == described && all.len() > has.len() && layers.len() >= lacking.len() && is_subset(has, all)
        });
        let nearest = others.min_by_key(|((_, all), layers)| (all.len(), std::cmp::Reverse(layers.len())));
        let Some(((_, all), layers)) = nearest else { continue };
        let has: BTreeSet<&str> = has.iter().copied().collect();
        let missing: Vec<&str> = all.iter().copied().filter(|member| !has.contains(member)).collect();
        let broken = missing.iter().find(|member| leaves_a_block_without_output(member, &has));
        let first = broken.unwrap_or(&missing[0]);
        let name = format!("{}.{}.{first}", stack.path, lacking[0]);
        let message = format!(
            "`{}.*.{first}`{} missing in {}, which {} all else that {} {}{}",
            stack.path,
            match missing.len() {
                1 => " is".to_owned(),
                n => format!(" and {} more are", n - 1),
            },
            layers_of(lacking),
            if lacking.len() == 1 { "has" } else { "have" },
            layers_of(layers),
            if layers.len() == 1 { "has" } else { "have" },
            if broken.is_some() { "; nothing else gives the block's output" } else { "" }
        );
        let severity = if broken.is_some() { Severity::Error } else { Severity::Warning };
        let kind = if broken.is_some() { "missing_weight" } else { "uneven_layers" };
        findings.push(Finding { severity, ..Finding::warning(kind, &name, message) });
    }
}

/// Both sorted.
fn is_subset(few: &[&str], many: &[&str]) -> bool {
    let mut many = many.iter();
    few.iter().all(|member| many.by_ref().any(|other| other == member))
}

/// Whether `missing` is the output projection of a block of which other projections are there.
fn leaves_a_block_without_output(missing: &str, has: &BTreeSet<&str>) -> bool {
    let Some((block, projection)) = missing.rsplit_once('.') else { return false };
    let of_block = |member: &&str| {
        let own = member.strip_prefix(block).and_then(|rest| rest.strip_prefix('.'));
        own.is_some_and(|own| own.contains("_proj") && !own.ends_with("bias"))
    };
    OUTPUTS.contains(&projection) && has.iter().any(of_block)
}

fn missing_layers(stacks: &[&Stack], layers: usize, findings: &mut Vec<Finding>) {
    let Some(stack) = stacks.iter().max_by_key(|stack| stack.layers.len()) else { return };
    let message = format!(
        "config.json says num_hidden_layers {layers}, and `{}.*` lacks {}",
        stack.path,
        layers_of(&stack.lacks(layers))
    );
    findings.push(Finding::error("missing_layers", stack.path, message));
}

fn beyond(stack: &Stack, layers: usize, model: &Value, findings: &mut Vec<Finding>) {
    let more: usize = MORE_LAYERS.iter().filter_map(|key| count(model, key)).sum();
    let beyond: Vec<usize> = stack.layers.range(layers.saturating_add(more)..).map(|(&n, _)| n).collect();
    if !beyond.is_empty() {
        let message = format!(
            "`{}.*` has {} beyond num_hidden_layers {layers} of config.json",
            stack.path,
            layers_of(&beyond)
        );
        findings.push(Finding::warning("extra_layers", stack.path, message));
    }
}

/// Of layers that have experts as tensors of their own, those that lack some; and stacked ones of another number.
fn missing_experts(stack: &Stack, key: &str, experts: usize, survey: &mut Survey) {
    for (layer, members) in &stack.layers {
        let mut there: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for member in members {
            let Some((path, expert)) = member.split_once("experts.") else { continue };
            // Shared experts are counted elsewhere.
            if path.ends_with('_') {
                continue;
            }
            let Some(Ok(expert)) = expert.split('.').next().map(str::parse) else { continue };
            there.entry(path).or_default().insert(expert);
        }
        for (path, there) in there {
            let missing: Vec<usize> = (0..experts).filter(|expert| !there.contains(expert)).collect();
            if !missing.is_empty() {
                let name = format!("{}.{layer}.{path}experts", stack.path);
                let message =
                    format!("config.json says {key} {experts}, and `{name}.*` lacks {}", ranges(&missing));
                survey.findings.push(Finding::error("missing_experts", &name, message));
            }
        }
    }
    let mut findings = Vec::new();
    for weight in &survey.weights {
        let info = &weight.info;
        if let Some(stacked) = info.experts
            && stacked != experts
            && stack.within(&info.name).is_some_and(|(_, member)| member.contains("experts"))
        {
            let message =
                format!("config.json says {key} {experts}, and `{}` is of {stacked} experts", info.name);
            findings.push(Finding::error("expert_count", &info.name, message));
        }
    }
    survey.findings.extend(findings);
}

/// Rows and columns that `config.json` gives, of weights whose names are the same in all models.
fn dimensions(stack: &Stack, layers: usize, model: &Value, survey: &mut Survey) {
    let mut hidden: Vec<(Shape, usize)> = Vec::new();
    let mut intermediate: Vec<(Shape, usize)> = Vec::new();
    let mut findings = Vec::new();
    for weight in &survey.weights {
        let info = &weight.info;
        let (name, rows, cols) = (info.name.as_str(), info.rows, info.cols);
        let shape = (name, rows, cols);
        let Some((layer, member)) = stack.within(name) else {
            if name.ends_with("embed_tokens")
                && let Some(vocabulary) = count(model, "vocab_size").filter(|&v| rows < v)
            {
                let message = format!(
                    "config.json says vocab_size {vocabulary}, and `{name}` [{rows}, {cols}] has {rows} rows"
                );
                findings.push(Finding::error("dimensions", name, message));
            }
            continue;
        };
        if layer >= layers {
            continue;
        }
        match member {
            "self_attn.q_proj"
            | "self_attn.k_proj"
            | "self_attn.v_proj"
            | "self_attn.qkv_proj"
            | "self_attn.q_a_proj"
            | "self_attn.kv_a_proj_with_mqa" => hidden.push((shape, cols)),
            "self_attn.o_proj" => hidden.push((shape, rows)),
            "mlp.gate_proj" | "mlp.up_proj" => {
                hidden.push((shape, cols));
                intermediate.push((shape, rows));
            }
            "mlp.down_proj" => {
                hidden.push((shape, rows));
                intermediate.push((shape, cols));
            }
            _ => (),
        }
    }
    for (key, found) in [("hidden_size", hidden), ("intermediate_size", intermediate)] {
        let Some(expected) = count(model, key) else { continue };
        let other: Vec<_> = found.iter().filter(|(_, n)| *n != expected).collect();
        let Some(((name, rows, cols), n)) = other.first() else { continue };
        let message = format!(
            "config.json says {key} {expected}, and {} of {} weights have another, `{name}` [{rows}, {cols}] {n}",
            other.len(),
            found.len()
        );
        // Some models widen the blocks of a few layers.
        let all = other.len() == found.len();
        let severity = if all { Severity::Error } else { Severity::Warning };
        findings.push(Finding { severity, ..Finding::warning("dimensions", name, message) });
    }
    survey.findings.extend(findings);
}

/// `layer 3`, `layers 0-2, 5`
fn layers_of(numbers: &[usize]) -> String {
    format!("layer{} {}", if numbers.len() == 1 { "" } else { "s" }, ranges(numbers))
}

/// Ascending numbers: `0-2, 5`.
fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    let text = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_layer() {
        assert_eq!(split("model.layers.3.mlp.up_proj"), Some(("model.layers", 3, "mlp.up_proj")));
        assert_eq!(split("h.11.attn"), Some(("h", 11, "attn")));
        assert_eq!(split("encoder.block.0.layer.1.wo"), Some(("encoder.block", 0, "layer.1.wo")));
        for name in ["model.norm", "layers.x.y", "layers.3", "layers", "projector.0.linear", "layers..x"] {
            assert_eq!(split(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_are_told_in_ranges() {
        assert_eq!(layers_of(&[4]), "layer 4");
        assert_eq!(layers_of(&[0, 1, 2, 5, 7, 8]), "layers 0-2, 5, 7-8");
    }
}
