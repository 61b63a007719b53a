//! What the configuration of a checkpoint claims about its quantisation. The tensors decide in [`super::resolve`].
//!
//! A configuration never keeps a checkpoint from being read: what is damaged in it is a problem, a word that is not
//! known leaves the modules that it speaks of to their tensors, and both are listed. How each producer words its claims
//! is in [`super::dialect`].

use std::path::Path;

use serde_json::Value;

use super::claim::{Claim, Notes, Transform, UnknownWord};
use super::dialect::Reader;
use super::shard::{in_place_of, io_error};
use super::{Scheme, WeightsError, json};
use crate::quant::Granularity;

const MODEL: &str = "config.json";
const MODELOPT: &str = "hf_quant_config.json";
const MISTRAL: &str = "params.json";
/// What quantisers of integers wrote beside `config.json` before they wrote into it, and whose method each is.
const INTEGERS: [(&str, &str); 2] = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];
/// The configuration files that a checkpoint's folder may have.
pub(super) const FILES: &[&str] = &[MODEL, MODELOPT, MISTRAL, INTEGERS[0].0, INTEGERS[1].0];

/// Where in `config.json` quantisation is spoken of.
const QUANTIZATION: [&str; 2] = ["quantization_config", "compression_config"];

/// Other names of the same member; models have members of these names that are something else, too.
const ELSEWHERE: [&str; 2] = ["quantization", "quant_config"];

/// How deep configurations of a model's parts are nested.
const MOST_LEVELS: usize = 4;

/// What Mistral's `params.json` calls parameters of the model.
const OF_MISTRAL: [(&str, &str); 4] = [
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "n_kv_heads"),
    ("num_hidden_layers", "n_layers"),
];

/// The parts of `config.json` that the reader uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    /// Empty where nothing is said about quantisation.
    pub claims: Vec<Claim>,
    /// What is done to inputs and outputs of layers at run time.
    pub transforms: Vec<Transform>,
    /// What the claims were read from.
    pub quantization: Option<Value>,
    /// `config.json`.
    pub model: Value,
    /// Files that cannot be read, and members that are not of the kind they should be.
    pub problems: Vec<WeightsError>,
    pub unknown: Vec<UnknownWord>,
}

impl Config {
    /// Reads `config.json` and, for ModelOpt, `hf_quant_config.json` in a folder, or Mistral's `params.json`. None need
    /// exist, and what is damaged in them becomes a problem of the configuration.
    pub fn read(folder: &Path) -> Config {
        let notes = Notes::default();
        let read = |name: &str| {
            let path = folder.join(name);
            let value = read_json(&path).unwrap_or_else(|problem| {
                notes.problems.borrow_mut().push(problem);
                None
            });
            (path, value)
        };
        let (mut path, mut model) = read(MODEL);
        let mut mistral = false;
        if model.is_none() && notes.problems.borrow().is_empty() {
            let (path_of_params, params) = read(MISTRAL);
            mistral = params.is_some();
            (path, model) = (path_of_params, params);
        }
        let model = model.unwrap_or_default();
        let keys = if mistral { &["quantization"][..] } else { &QUANTIZATION };
        let mut quantization = find_quantization(&model, keys).cloned();
        if quantization.is_none() {
            let (file, value) = read(MODELOPT);
            if let Some(value) = value {
                quantization = Some(value.get("quantization").unwrap_or(&value).clone());
                path = file;
            }
        }
        for (name, method) in INTEGERS.iter().filter(|_| quantization.is_none()) {
            let (file, value) = read(name);
            if let Some(mut value) = value {
                if let Some(members) = value.as_object_mut() {
                    members.entry("quant_method").or_insert_with(|| Value::from(*method));
                }
                quantization = Some(value);
                path = file;
                break;
            }
        }
        let mut claims = match &quantization {
            Some(value) => Reader::new(&path, value, &notes).claims(),
            None => Vec::new(),
        };
        // DeepSeek-V4: FP8, but for the routed experts.
        if !claims.is_empty() && model.get("expert_dtype").and_then(Value::as_str) == Some("fp4") {
            let granularity = Some(Granularity::Group(32));
            let text = "expert_dtype fp4".to_owned();
            claims.push(Claim { granularity, ..Claim::new(Some(Scheme::Mxfp4), text) });
        }
        Config {
            claims,
            transforms: notes.transforms.into_inner(),
            quantization,
            model,
            problems: notes.problems.into_inner(),
            unknown: notes.unknown.into_inner(),
        }
    }

    /// What is said about one module: the claims that name it, else those about all others.
    pub fn claims_of(&self, module: &str) -> Vec<&Claim> {
        let has = |claim: &&Claim| claim.skips.names(module).is_none();
        let named = self.claims.iter().filter(|claim| claim.targets.names(module).is_some());
        let named: Vec<&Claim> = named.filter(has).collect();
        if !named.is_empty() {
            return named;
        }
        // Engines fuse modules and rename them, so a module that nobody names may be one that somebody means.
        let any_of_others = self.claims.iter().any(Claim::is_of_others);
        self.claims.iter().filter(|claim| !any_of_others || claim.is_of_others()).filter(has).collect()
    }

    /// The entry that says that this module is left unquantised: every claim that could be of it leaves it out.
    pub fn skipped(&self, module: &str) -> Option<&str> {
        if !self.claims_of(module).is_empty() {
            return None;
        }
        self.claims.iter().find_map(|claim| claim.skips.names(module))
    }

    /// Whether what is quantised is listed and this module is not.
    pub fn leaves_out(&self, module: &str) -> bool {
        let named = |c: &Claim| c.is_of_others() || c.targets.names(module).is_some();
        let may_mean = |c: &Claim| c.targets.may_mean(module);
        !self.claims.is_empty() && !self.claims.iter().any(named) && !self.claims.iter().any(may_mean)
    }

    /// A text of the model, such as `model_type`, or a flag.
    pub fn model(&self, key: &str) -> Option<&Value> {
        let of_mistral = OF_MISTRAL.iter().find(|(ours, _)| *ours == key).map(|(_, theirs)| *theirs);
        self.model
            .get(key)
            .or_else(|| self.model.get("text_config")?.get(key))
            .or_else(|| self.model.get(of_mistral?))
    }

    /// A count of the model, such as `hidden_size`, from the top level or from `text_config`.
    pub fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.model(key)?.as_u64()?).ok()
    }
}

/// Models that are made of several have the configuration of each as a member: `text_config`, `llm_config`,
/// `thinker_config`. The outermost that speaks of quantisation does.
fn find_quantization<'a>(model: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    let mut level = vec![model];
    for _ in 0..MOST_LEVELS {
        let said = |place: &&'a Value| {
            let named = keys.iter().find_map(|key| place.get(key).filter(|v| !v.is_null()));
            let of_a_method = |value: &&'a Value| value.get("quant_method").is_some_and(Value::is_string);
            named.or_else(|| ELSEWHERE.iter().find_map(|key| place.get(key).filter(of_a_method)))
        };
        if let Some(found) = level.iter().find_map(said) {
            return Some(found);
        }
        let parts = |place: &'a Value| place.as_object().into_iter().flatten();
        let inner = level.into_iter().flat_map(parts).filter(|(key, _)| key.ends_with("_config"));
        level = inner.map(|(_, part)| part).collect();
    }
    None
}

fn read_json(path: &Path) -> Result<Option<Value>, WeightsError> {
    let bytes = match crate::files::read(path, crate::files::LIST) {
        Ok(bytes) => bytes,
        // A link that leads nowhere is a file that could not be fetched.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    };
    let bad = |reason| WeightsError::ConfigUnreadable { path: path.to_owned(), reason };
    let value: Value = json::from_slice(&bytes)
        .map_err(|e| in_place_of(path, &bytes).unwrap_or_else(|| bad(format!("not JSON: {e}"))))?;
    let found = match &value {
        Value::Object(_) => return Ok(Some(value)),
        Value::Array(_) => "a list",
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
    };
    Err(bad(format!("is {found}, expected a JSON object")))
}
