//! What the configuration of a checkpoint claims about its quantisation. The tensors decide in [`super::resolve`].
//!
//! A configuration never keeps a checkpoint from being read: what is damaged in it is a problem, a word that is not
//! known leaves the modules that it speaks of to their tensors, and both are listed. How each producer words its claims
//! is in [`super::dialect`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::dialect::Reader;
use super::names::ModulePattern;
use super::online::Transform;
use super::shard::{in_place_of, io_error};
use super::{Scheme, WeightsError, json};
use crate::quant::Granularity;

const MODEL: &str = "config.json";
const MODELOPT: &str = "hf_quant_config.json";
const MISTRAL: &str = "params.json";
/// The configuration files that a checkpoint's folder may have.
pub(super) const FILES: &[&str] = &[MODEL, MODELOPT, MISTRAL];

/// Where in `config.json` quantisation is spoken of.
const QUANTIZATION: [&str; 2] = ["quantization_config", "compression_config"];

/// How deep configurations of a model's parts are nested.
const MOST_LEVELS: usize = 4;

/// What Mistral's `params.json` calls parameters of the model.
const OF_MISTRAL: [(&str, &str); 4] = [
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "n_kv_heads"),
    ("num_hidden_layers", "n_layers"),
];

/// One scheme that the configuration says some weights have. A checkpoint of mixed precision has several.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// `None` where it is named by a word that is not known: then the tensors decide alone.
    pub scheme: Option<Scheme>,
    /// `None` where the configuration leaves it to the tensors.
    pub granularity: Option<Granularity>,
    /// Scales are powers of two, however they are stored.
    pub ue8m0: bool,
    /// Whether zero points are stored minus one, as in GPTQ's first version; `None` where that is not said.
    pub zeros_minus_one: Option<bool>,
    /// Whether zero is the middle of the codes everywhere, where the configuration says.
    pub symmetric: Option<bool>,
    /// Eight codes share a word in AWQ's order, where the configuration says.
    pub reordered: Option<bool>,
    /// Integer codes have no sign.
    pub unsigned: bool,
    /// Codes are stored `[K, N]` and scales likewise, whatever the scheme's usual order.
    pub transposed: bool,
    /// The configuration would name blocks and does not: a scale is of the tensor or of a row.
    pub without_blocks: bool,
    /// The input is quantised with a scale that the checkpoint has.
    pub static_input: bool,
    /// The modules that have it; none for all that no other claim names.
    pub targets: Patterns,
    /// The modules that do not have it after all.
    pub skips: Arc<Patterns>,
    /// As the configuration words it, for messages.
    pub text: String,
}

impl Claim {
    pub fn new(scheme: Option<Scheme>, text: String) -> Claim {
        Claim {
            scheme,
            granularity: None,
            ue8m0: false,
            zeros_minus_one: None,
            symmetric: None,
            reordered: None,
            unsigned: false,
            transposed: false,
            without_blocks: false,
            static_input: false,
            targets: Patterns::default(),
            skips: Arc::default(),
            text,
        }
    }

    /// Whether it is of all modules that no other claim names.
    fn is_of_others(&self) -> bool {
        self.targets.is_empty() || self.targets.has_class()
    }
}

/// Entries of `targets`, `ignore` and the like. Plain names, of which there may be tens of thousands, are looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    names: HashSet<String>,
    all: Vec<ModulePattern>,
}

impl Patterns {
    pub fn push(&mut self, pattern: ModulePattern) {
        if pattern.is_name() {
            self.names.insert(pattern.text().to_owned());
        }
        self.all.push(pattern);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn has_class(&self) -> bool {
        self.all.iter().any(ModulePattern::is_class)
    }

    /// The entry that names this module, or a module around it.
    pub fn names(&self, module: &str) -> Option<&str> {
        if self.all.is_empty() {
            return None;
        }
        let ends = module.match_indices('.').map(|(dot, _)| dot).chain([module.len()]);
        ends.map(|end| &module[..end]).find_map(|name| self.names.get(name).map(String::as_str)).or_else(
            || {
                let others = self.all.iter().filter(|pattern| !pattern.is_name());
                others.into_iter().find(|pattern| pattern.names(module)).map(ModulePattern::text)
            },
        )
    }

    fn may_mean(&self, module: &str) -> bool {
        self.all.iter().any(|pattern| pattern.may_mean(module))
    }
}

impl FromIterator<ModulePattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = ModulePattern>>(patterns: I) -> Patterns {
        let mut all = Patterns::default();
        patterns.into_iter().for_each(|pattern| all.push(pattern));
        all
    }
}

/// A word of the configuration that is not known here: modules that it speaks of are read by their tensors alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The configuration file.
    pub path: PathBuf,
    /// The member that has it: `quant_algo`.
    pub key: String,
    /// As it is written there.
    pub word: String,
    /// The modules that it is said of, as the configuration names them; none for all that nothing else names.
    pub modules: Vec<String>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} `{}` is not known here, so ", self.path.display(), self.key, self.word)?;
        match &self.modules[..] {
            [] => write!(f, "weights are")?,
            [one] => write!(f, "`{one}` is")?,
            [first, rest @ ..] => write!(f, "`{first}` and {} more are", rest.len())?,
        }
        f.write_str(" read by names, dtypes and shapes of their tensors alone")
    }
}

/// What is wrong or not known in a configuration, collected while it is read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub problems: RefCell<Vec<WeightsError>>,
    pub unknown: RefCell<Vec<UnknownWord>>,
    pub transforms: RefCell<Vec<Transform>>,
}

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
        let said = |place: &&'a Value| keys.iter().find_map(|key| place.get(key).filter(|v| !v.is_null()));
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
