//! What `config.json` claims about a checkpoint's quantisation. The tensors decide in [`super::resolve`].

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::names::ModulePattern;
use super::shard::{in_place_of, io_error};
use super::{Scheme, WeightsError};
use crate::quant::Granularity;

pub(super) const METHODS: &[&str] =
    &["fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "quark", "mxfp4", "gptq", "awq"];

const MODEL: &str = "config.json";
const MODELOPT: &str = "hf_quant_config.json";
/// The configuration files that a checkpoint's folder may have.
pub(super) const FILES: &[&str] = &[MODEL, MODELOPT];

/// One scheme that the configuration says some weights have. A checkpoint of mixed precision has several.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    pub scheme: Scheme,
    /// `None` where the configuration leaves it to the tensors.
    pub granularity: Option<Granularity>,
    /// Scales are powers of two, however they are stored.
    pub ue8m0: bool,
    /// GPTQ's first version stores zero points minus one.
    pub zeros_minus_one: bool,
    /// Whether zero is the middle of the codes everywhere, where the configuration says.
    pub symmetric: Option<bool>,
    /// The input is quantised with a scale that the checkpoint has.
    pub static_input: bool,
    /// The modules that have it; empty for all that no other claim names.
    pub targets: Vec<ModulePattern>,
    /// As the configuration words it, for messages.
    pub text: String,
}

/// The parts of `config.json` that the reader uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    /// `None` where there is no configuration file.
    pub path: Option<PathBuf>,
    /// Empty where nothing is said about quantisation.
    pub claims: Vec<Claim>,
    /// Modules said to be left unquantised.
    pub skipped: Vec<ModulePattern>,
    /// What the claims were read from.
    pub quantization: Option<Value>,
    /// `config.json`.
    pub model: Value,
}

impl Config {
    /// Reads `config.json` and, for ModelOpt, `hf_quant_config.json` in a folder. Neither need exist.
    pub fn read(folder: &Path) -> Result<Config, WeightsError> {
        let path = folder.join(MODEL);
        let Some(model) = read_json(&path)? else {
            return Config::from_modelopt_file(folder, Value::Null);
        };
        let quantization = ["quantization_config", "compression_config"]
            .iter()
            .flat_map(|key| [model.get(key), model.get("text_config").and_then(|t| t.get(key))])
            .flatten()
            .find(|value| !value.is_null());
        let Some(quantization) = quantization else {
            let config = Config::from_modelopt_file(folder, model)?;
            return Ok(Config { path: Some(config.path.unwrap_or(path)), ..config });
        };
        let reader = Reader { path: &path, value: quantization };
        let (mut claims, skipped) = reader.claims()?;
        // DeepSeek-V4: FP8, but for the routed experts.
        if model.get("expert_dtype").and_then(Value::as_str) == Some("fp4") {
            let granularity = Some(Granularity::Group(32));
            claims.push(Claim { granularity, ..claim(Scheme::Mxfp4, "expert_dtype fp4".to_owned()) });
        }
        let quantization = Some(quantization.clone());
        Ok(Config { path: Some(path), claims, skipped, quantization, model })
    }

    fn from_modelopt_file(folder: &Path, model: Value) -> Result<Config, WeightsError> {
        let path = folder.join(MODELOPT);
        let Some(file) = read_json(&path)? else { return Ok(Config { model, ..Config::default() }) };
        let quantization = file.get("quantization").unwrap_or(&file);
        let (claims, skipped) = Reader { path: &path, value: quantization }.modelopt()?;
        let quantization = Some(quantization.clone());
        Ok(Config { path: Some(path), claims, skipped, quantization, model })
    }

    /// What is said about one module: the claims that name it, else those about all others.
    pub fn claims_of(&self, module: &str) -> Vec<&Claim> {
        let pick = |which: &dyn Fn(&Claim) -> bool| -> Vec<&Claim> {
            self.claims.iter().filter(|claim| which(claim)).collect()
        };
        let named = pick(&|claim| claim.targets.iter().any(|t| t.names(module)));
        if !named.is_empty() {
            return named;
        }
        let of_others = pick(&|c| c.targets.is_empty() || c.targets.iter().any(ModulePattern::is_class));
        // Engines fuse modules and rename them, so a module that nobody names may be one that somebody means.
        if of_others.is_empty() { self.claims.iter().collect() } else { of_others }
    }

    /// Whether what is quantised is listed and this module is not.
    pub fn leaves_out(&self, module: &str) -> bool {
        let means_others = |c: &Claim| c.targets.is_empty() || c.targets.iter().any(ModulePattern::is_class);
        let may_mean = |c: &Claim| c.targets.iter().any(|target| target.may_mean(module));
        !self.claims.is_empty() && !self.claims.iter().any(|c| means_others(c) || may_mean(c))
    }

    /// A text of the model, such as `model_type`, or a flag.
    pub fn model(&self, key: &str) -> Option<&Value> {
        self.model.get(key).or_else(|| self.model.get("text_config")?.get(key))
    }

    /// A count of the model, such as `hidden_size`, from the top level or from `text_config`.
    pub fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.model(key)?.as_u64()?).ok()
    }
}

fn read_json(path: &Path) -> Result<Option<Value>, WeightsError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    };
    let bad = |reason| WeightsError::BadConfig { path: path.to_owned(), reason };
    let value: Value = serde_json::from_slice(&bytes)
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

/// A JSON object and the file it is from.
#[derive(Clone, Copy)]
struct Reader<'a> {
    path: &'a Path,
    value: &'a Value,
}

type Claims = (Vec<Claim>, Vec<ModulePattern>);

impl<'a> Reader<'a> {
    fn bad(&self, reason: String) -> WeightsError {
        WeightsError::BadConfig { path: self.path.to_owned(), reason }
    }

    /// A member that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn at(&self, value: &'a Value) -> Reader<'a> {
        Reader { path: self.path, value }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, WeightsError> {
        let not_text = |v: &Value| self.bad(format!("`{key}` is {v}, expected a string"));
        self.get(key).map(|v| v.as_str().ok_or_else(|| not_text(v))).transpose()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, WeightsError> {
        let number = |v: &Value| v.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
        let not_count = |v: &Value| self.bad(format!("`{key}` is {v}, expected a positive whole number"));
        self.get(key).map(|v| number(v).ok_or_else(|| not_count(v))).transpose()
    }

    /// `group_size`, where -1 stands for one group a row.
    fn group(&self, key: &str) -> Result<Option<Granularity>, WeightsError> {
        if self.get(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(Some(Granularity::Row));
        }
        Ok(self.count(key)?.map(Granularity::Group))
    }

    fn pair(&self, key: &str) -> Result<Option<(usize, usize)>, WeightsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let numbers: Option<Vec<usize>> = value
            .as_array()
            .map(|a| a.iter().map(|v| v.as_u64().filter(|&n| n > 0)?.try_into().ok()).collect())
            .unwrap_or(None);
        match numbers.as_deref() {
            Some(&[rows, cols]) => Ok(Some((rows, cols))),
            _ => Err(self.bad(format!("`{key}` is {value}, expected two positive whole numbers"))),
        }
    }

    /// The modules that a list speaks of.
    fn modules(&self, key: &str) -> Result<Vec<ModulePattern>, WeightsError> {
        let list = self.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(|text| self.module(key, text)).collect()
    }

    fn module(&self, key: &str, text: &str) -> Result<ModulePattern, WeightsError> {
        ModulePattern::parse(text).map_err(|reason| self.bad(format!("`{key}`: {reason}")))
    }

    /// Whether a member, which describes how a layer's input is quantised, says that its scale is stored.
    fn has_static_scale(&self, key: &str, dynamic: &str) -> bool {
        self.get(key).and_then(|input| input.get(dynamic)).and_then(Value::as_bool) == Some(false)
    }

    fn claims(&self) -> Result<Claims, WeightsError> {
        match self.text("quant_method")? {
            Some("fp8") => self.fp8(),
            Some("fbgemm_fp8") => {
                let claim = Claim {
                    granularity: Some(Granularity::Row),
                    ..claim(Scheme::Fp8, "quant_method fbgemm_fp8".to_owned())
                };
                Ok((vec![claim], self.modules("modules_to_not_convert")?))
            }
            Some("compressed-tensors") => self.compressed_tensors(),
            Some("modelopt" | "modelopt_fp4") => self.modelopt(),
            Some("quark") => self.quark(),
            Some("mxfp4") => {
                let claim = Claim {
                    granularity: Some(Granularity::Group(32)),
                    ..claim(Scheme::Mxfp4, "quant_method mxfp4".to_owned())
                };
                Ok((vec![claim], self.modules("modules_to_not_convert")?))
            }
            Some("gptq") => self.gptq(),
            Some("awq") => self.awq(),
            Some(method) => {
                Err(WeightsError::UnknownMethod { path: self.path.to_owned(), method: method.to_owned() })
            }
            // ModelOpt and early compressed-tensors files name their producer otherwise.
            None if self.get("quant_algo").is_some() => self.modelopt(),
            None if self.get("config_groups").is_some() => self.compressed_tensors(),
            None => Err(self.bad("quantization_config without `quant_method`".to_owned())),
        }
    }

    fn fp8(&self) -> Result<Claims, WeightsError> {
        if let Some(format @ ("e5m2" | "float8_e5m2")) = self.text("fmt")? {
            return Err(self.bad(format!("fmt `{format}`: weights of quant_method fp8 are e4m3")));
        }
        let block = self.pair("weight_block_size")?;
        let text = match block {
            Some((r, c)) => format!("quant_method fp8 with weight_block_size [{r}, {c}]"),
            None => "quant_method fp8 without weight_block_size".to_owned(),
        };
        let claim = Claim {
            granularity: block.map(|(r, c)| Granularity::Block(r, c)),
            ue8m0: self.text("scale_fmt")? == Some("ue8m0"),
            static_input: self.text("activation_scheme")? == Some("static"),
            ..claim(Scheme::Fp8, text)
        };
        let mut skipped = self.modules("modules_to_not_convert")?;
        skipped.extend(self.modules("ignored_layers")?);
        Ok((vec![claim], skipped))
    }

    fn compressed_tensors(&self) -> Result<Claims, WeightsError> {
        let default_format = self.text("format")?.unwrap_or("");
        let groups = self.get("config_groups").and_then(Value::as_object);
        let groups =
            groups.ok_or_else(|| self.bad("compressed-tensors without `config_groups`".to_owned()))?;
        let mut claims = Vec::new();
        for (name, group) in groups {
            let group = self.at(group);
            let Some(weights) = group.get("weights") else { continue };
            let weights = self.at(weights);
            let format = group.text("format")?.unwrap_or(default_format);
            let bits = weights.count("num_bits")?.unwrap_or(8);
            let kind = weights.text("type")?.unwrap_or("int");
            let size = weights.group("group_size")?;
            let strategy = weights.text("strategy")?;
            let scheme = match (kind, bits) {
                ("float", 8) if format.starts_with("mxfp8") => Scheme::Mxfp8,
                ("float", 8) => Scheme::Fp8,
                ("float", 4) if format.starts_with("mxfp4") => Scheme::Mxfp4,
                ("float", 4) => Scheme::Nvfp4,
                ("int", 8) if format == "pack-quantized" => Scheme::PackedInt8,
                ("int", 8) => Scheme::Int8,
                ("int", 4) => Scheme::PackedInt4,
                _ => {
                    return Err(self.bad(format!(
                        "config group `{name}`: {bits}-bit {kind} weights in format `{format}`"
                    )));
                }
            };
            let granularity = match strategy {
                Some("tensor") => Some(Granularity::Tensor),
                Some("channel" | "token") => Some(Granularity::Row),
                Some("group" | "tensor_group") => size,
                Some("block") => weights.pair("block_structure")?.map(|(r, c)| Granularity::Block(r, c)),
                None => size,
                Some(other) => return Err(self.bad(format!("config group `{name}`: strategy `{other}`"))),
            };
            let how = strategy.map_or_else(String::new, |s| format!(" per {s}"));
            let text = format!("compressed-tensors group `{name}`: {bits}-bit {kind} weights{how}");
            claims.push(Claim {
                granularity,
                static_input: group.has_static_scale("input_activations", "dynamic"),
                targets: group.modules("targets")?,
                symmetric: weights.flag("symmetric"),
                ..claim(scheme, text)
            });
        }
        Ok((claims, self.modules("ignore")?))
    }

    fn modelopt(&self) -> Result<Claims, WeightsError> {
        let mut skipped = self.modules("exclude_modules")?;
        skipped.extend(self.modules("ignore")?);
        let claims = match self.text("quant_algo")? {
            Some("MIXED_PRECISION") => {
                let layers = self.get("quantized_layers").and_then(Value::as_object);
                let layers = layers.ok_or_else(|| {
                    self.bad("ModelOpt quant_algo `MIXED_PRECISION` without `quantized_layers`".to_owned())
                })?;
                let mut claims: Vec<Claim> = Vec::new();
                for (name, layer) in layers {
                    let layer = self.at(layer);
                    let claim = layer.modelopt_layer(layer.text("quant_algo")?.unwrap_or(""))?;
                    let target = self.module("quantized_layers", name)?;
                    match claims.iter_mut().find(|c| c.text == claim.text) {
                        Some(known) => known.targets.push(target),
                        None => claims.push(Claim { targets: vec![target], ..claim }),
                    }
                }
                claims
            }
            Some(algorithm) => vec![self.modelopt_layer(algorithm)?],
            None if self.get("kv_cache_quant_algo").is_some() => Vec::new(),
            None => return Err(self.bad("ModelOpt configuration without `quant_algo`".to_owned())),
        };
        Ok((claims, skipped))
    }

    fn modelopt_layer(&self, algorithm: &str) -> Result<Claim, WeightsError> {
        let (scheme, granularity) = match algorithm {
            "NVFP4" => (Scheme::Nvfp4, self.group("group_size")?.unwrap_or(Granularity::Group(16))),
            "FP8" => (Scheme::Fp8, Granularity::Tensor),
            "FP8_PER_CHANNEL_PER_TOKEN" => (Scheme::Fp8, Granularity::Row),
            "MXFP8" => (Scheme::Mxfp8, Granularity::Group(32)),
            other => {
                return Err(self.bad(format!(
                    "ModelOpt quant_algo `{other}`; supported: NVFP4, FP8, FP8_PER_CHANNEL_PER_TOKEN, MXFP8, \
                     MIXED_PRECISION"
                )));
            }
        };
        let how = if algorithm == "FP8_PER_CHANNEL_PER_TOKEN" { " per channel" } else { "" };
        Ok(Claim { granularity: Some(granularity), ..claim(scheme, format!("ModelOpt {scheme}{how}")) })
    }

    fn quark(&self) -> Result<Claims, WeightsError> {
        let layers = |key| self.get(key).and_then(Value::as_object).into_iter().flatten();
        let global = self.get("global_quant_config").into_iter().map(|config| (None, config));
        let configs = global
            .chain(layers("layer_quant_config").map(|(name, config)| (Some(name), config)))
            // Of which modules a class is, only the model's code says.
            .chain(layers("layer_type_quant_config").map(|(_, config)| (None, config)));
        let mut claims: Vec<Claim> = Vec::new();
        for (name, config) in configs {
            let Some(weight) = config.get("weight").filter(|w| !w.is_null()) else { continue };
            if weight.is_array() {
                return Err(
                    self.bad("Quark weights quantised in several stages are not supported".to_owned())
                );
            }
            let weight = self.at(weight);
            let dtype = weight.text("dtype")?.unwrap_or("");
            let qscheme = weight.text("qscheme")?.unwrap_or("");
            let group = weight.group("group_size")?;
            let granularity = match qscheme {
                "per_tensor" => Some(Granularity::Tensor),
                "per_channel" => Some(Granularity::Row),
                "per_group" => group,
                other => return Err(self.bad(format!("Quark qscheme `{other}`"))),
            };
            let scheme = match (dtype, weight.text("scale_format")?) {
                ("fp8_e4m3", Some("e8m0")) => Scheme::Mxfp8,
                ("fp8_e4m3", _) => Scheme::Fp8,
                ("fp4" | "mx", _) => Scheme::Mxfp4,
                ("fp6_e2m3", _) => Scheme::Mxfp6E2M3,
                ("fp6_e3m2", _) => Scheme::Mxfp6E3M2,
                ("int8", _) => Scheme::Int8,
                (other, _) => return Err(self.bad(format!("Quark weight dtype `{other}`"))),
            };
            let target = name.map(|name| self.module("layer_quant_config", name)).transpose()?;
            let claim = Claim {
                granularity,
                static_input: self.at(config).has_static_scale("input_tensors", "is_dynamic"),
                targets: target.into_iter().collect(),
                ..claim(scheme, format!("Quark {dtype} weights {qscheme}"))
            };
            let same = |c: &&mut Claim| {
                (&c.text, c.static_input, c.targets.is_empty())
                    == (&claim.text, claim.static_input, claim.targets.is_empty())
            };
            match claims.iter_mut().find(same) {
                Some(known) => known.targets.extend(claim.targets),
                None => claims.push(claim),
            }
        }
        if claims.is_empty() {
            return Err(self.bad("Quark configuration without a weight in `global_quant_config`".to_owned()));
        }
        Ok((claims, self.modules("exclude")?))
    }

    fn gptq(&self) -> Result<Claims, WeightsError> {
        let scheme = match self.bits("gptq", &[4, 8])? {
            8 => Scheme::GptqInt8,
            _ => Scheme::Gptq,
        };
        let bits = if scheme == Scheme::GptqInt8 { "bits 8 and " } else { "" };
        let zeros_minus_one = match self.text("checkpoint_format")? {
            None | Some("gptq") => true,
            Some("gptq_v2") => false,
            Some(other) => {
                return Err(self.bad(format!("GPTQ checkpoint_format `{other}`; supported: gptq, gptq_v2")));
            }
        };
        let claim = Claim {
            granularity: self.group("group_size")?,
            zeros_minus_one,
            symmetric: self.flag("sym"),
            ..claim(scheme, format!("quant_method gptq with {bits}group_size {}", self.shown("group_size")))
        };
        Ok((vec![claim], self.modules("modules_to_not_convert")?))
    }

    fn awq(&self) -> Result<Claims, WeightsError> {
        self.bits("awq", &[4])?;
        if let Some(version) = self.text("version")?
            && !version.eq_ignore_ascii_case("gemm")
        {
            return Err(self.bad(format!("AWQ version `{version}`; supported: gemm")));
        }
        let key = if self.get("group_size").is_some() { "group_size" } else { "q_group_size" };
        let claim = Claim {
            granularity: self.group(key)?,
            symmetric: self.flag("zero_point").map(|has_zero_points| !has_zero_points),
            ..claim(Scheme::Awq, format!("quant_method awq with group_size {}", self.shown(key)))
        };
        Ok((vec![claim], self.modules("modules_to_not_convert")?))
    }

    /// Bits of a code, 4 where nothing is said.
    fn bits(&self, method: &str, supported: &[usize]) -> Result<usize, WeightsError> {
        let key = if self.get("bits").is_some() { "bits" } else { "w_bit" };
        let bits = self.count(key)?.unwrap_or(4);
        if supported.contains(&bits) {
            return Ok(bits);
        }
        let supported: Vec<String> = supported.iter().map(usize::to_string).collect();
        Err(self.bad(format!("{method} with {bits} bits; supported: {}", supported.join(", "))))
    }

    fn shown(&self, key: &str) -> String {
        self.get(key).map_or_else(|| "unset".to_owned(), Value::to_string)
    }
}

fn claim(scheme: Scheme, text: String) -> Claim {
    Claim {
        scheme,
        granularity: None,
        ue8m0: false,
        zeros_minus_one: false,
        symmetric: None,
        static_input: false,
        targets: Vec::new(),
        text,
    }
}
