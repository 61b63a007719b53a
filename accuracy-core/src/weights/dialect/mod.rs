//! How producers word their claims about quantisation: one file for each family, all read into [`Claim`]s.
//!
//! Nothing here fails. A member of the wrong kind is noted as a problem and left out, a word that is not known becomes
//! a claim without a scheme.

mod compressed_tensors;
mod integers;
mod modelopt;
mod quark;
mod rotations;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::claim::{Claim, Notes, Patterns, UnknownWord};
use super::names::ModulePattern;
use super::{Scheme, WeightsError};
use crate::quant::Granularity;

/// A JSON object, the file that it is from, and where to note what is wrong in it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    path: &'a Path,
    value: &'a Value,
    notes: &'a Notes,
}

impl<'a> Reader<'a> {
    pub fn new(path: &'a Path, value: &'a Value, notes: &'a Notes) -> Reader<'a> {
        Reader { path, value, notes }
    }

    fn bad(&self, reason: String) {
        let problem = WeightsError::BadConfig { path: self.path.to_owned(), reason };
        self.notes.problems.borrow_mut().push(problem);
    }

    /// Notes a word that is not known, of one module or of all that nothing else names.
    fn unknown(&self, key: &str, word: &str, module: Option<&str>) {
        let mut unknown = self.notes.unknown.borrow_mut();
        let module = module.map(str::to_owned);
        match unknown.iter_mut().find(|u| u.key == key && u.word == word && !u.modules.is_empty()) {
            Some(known) if module.is_some() => known.modules.extend(module),
            _ => unknown.push(UnknownWord {
                path: self.path.to_owned(),
                key: key.to_owned(),
                word: word.to_owned(),
                modules: module.into_iter().collect(),
            }),
        }
    }

    /// A member that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn at(&self, value: &'a Value) -> Reader<'a> {
        Reader { value, ..*self }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        if value.as_str().is_none() {
            self.bad(format!("`{key}` is {value}, expected a string"));
        }
        value.as_str()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    fn count(&self, key: &str) -> Option<usize> {
        let value = self.get(key)?;
        let count = value.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
        if count.is_none() {
            self.bad(format!("`{key}` is {value}, expected a positive whole number"));
        }
        count
    }

    /// `group_size`, where -1 stands for one group a row.
    fn group(&self, key: &str) -> Option<Granularity> {
        match self.get(key)?.as_i64() {
            Some(-1) => Some(Granularity::Row),
            _ => self.count(key).map(Granularity::Group),
        }
    }

    /// Rows and columns of a block.
    fn block(&self, key: &str) -> Option<Granularity> {
        let value = self.get(key)?;
        let numbers: Option<Vec<usize>> = value
            .as_array()
            .map(|a| a.iter().map(|v| v.as_u64().filter(|&n| n > 0)?.try_into().ok()).collect())
            .unwrap_or(None);
        match numbers.as_deref() {
            Some(&[rows, cols]) => Some(Granularity::Block(rows, cols)),
            _ => {
                self.bad(format!("`{key}` is {value}, expected two positive whole numbers"));
                None
            }
        }
    }

    fn object(&self, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.get(key).and_then(Value::as_object).into_iter().flatten()
    }

    /// The modules that lists speak of.
    fn modules(&self, keys: &[&str]) -> Patterns {
        let entries = keys.iter().flat_map(|key| {
            let list = self.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).filter_map(|text| self.module(key, text))
        });
        entries.collect()
    }

    fn module(&self, key: &str, text: &str) -> Option<ModulePattern> {
        ModulePattern::parse(text).map_err(|reason| self.bad(format!("`{key}`: {reason}"))).ok()
    }

    /// Whether a member, which describes how a layer's input is quantised, says that its scale is stored.
    fn has_static_scale(&self, key: &str, dynamic: &str) -> bool {
        self.get(key).and_then(|input| input.get(dynamic)).and_then(Value::as_bool) == Some(false)
    }

    fn shown(&self, key: &str) -> String {
        self.get(key).map_or_else(|| "unset".to_owned(), Value::to_string)
    }

    /// What a `quantization_config` claims: by its `quant_method`, then what other producers have added for named
    /// modules.
    pub fn claims(&self) -> Vec<Claim> {
        if !self.value.is_object() {
            self.bad(format!("the quantisation's configuration is {}, expected an object", self.value));
            return Vec::new();
        }
        self.rotations();
        let method = self.method().map(str::to_ascii_lowercase);
        let mut claims = match method.as_deref() {
            Some("fp8") => {
                let mut claims = self.fp8();
                // A checkpoint of FP8 of which ModelOpt or another producer has quantised some modules again.
                if self.get("quantized_layers").is_some() {
                    claims.extend(self.modelopt_layers());
                } else if self.get("config_groups").is_some() {
                    claims.extend(self.compressed_tensors());
                }
                claims
            }
            Some("fbgemm_fp8") => {
                let claim = Claim {
                    granularity: Some(Granularity::Row),
                    ..Claim::new(Some(Scheme::Fp8), "quant_method fbgemm_fp8".to_owned())
                };
                self.skipping(vec![claim], &["modules_to_not_convert"])
            }
            Some("compressed-tensors") => self.compressed_tensors(),
            Some("modelopt" | "modelopt_fp4" | "modelopt_mxfp8" | "modelopt_mixed") => self.modelopt(),
            Some("quark") => self.quark(),
            Some("mxfp4") => {
                let claim = Claim {
                    granularity: Some(Granularity::Group(32)),
                    ..Claim::new(Some(Scheme::Mxfp4), "quant_method mxfp4".to_owned())
                };
                self.skipping(vec![claim], &["modules_to_not_convert"])
            }
            Some("gptq" | "gptqmodel" | "gptq_marlin") => self.gptq(),
            Some("awq" | "awq_marlin") => self.awq(),
            Some("auto-round" | "auto_round" | "autoround" | "intel/auto-round") => self.auto_round(),
            Some("w4afp8" | "w4a8_fp8") => self.w4afp8(),
            Some("bitsandbytes" | "bnb") => self.bitsandbytes(),
            Some("hqq") => self.skipping(
                vec![Claim::new(Some(Scheme::Hqq), "quant_method hqq".to_owned())],
                &["skip_modules"],
            ),
            // What its tensors are is said in the files' own metadata.
            Some("torchao") => self.skipping(
                vec![Claim::new(None, "quant_method torchao".to_owned())],
                &["modules_to_not_convert"],
            ),
            Some(method) => {
                let unless_told = self.unless_told_otherwise();
                if unless_told.is_empty() {
                    self.unknown("quant_method", method, None);
                    // All microscaling formats have exponents for scales, whatever else the method does.
                    let ue8m0 = method.split(['_', '-']).any(|part| part.starts_with("mx"));
                    let claim = Claim { ue8m0, ..Claim::new(None, format!("quant_method {method}")) };
                    let ignored =
                        ["modules_to_not_convert", "ignore", "ignored_layers", "exclude", "exclude_modules"];
                    return self.skipping(vec![claim], &ignored);
                }
                self.unknown("quant_method", method, None);
                unless_told
            }
            None => self.unless_told_otherwise(),
        };
        if claims.is_empty() && self.value.as_object().is_some_and(serde_json::Map::is_empty) {
            self.bad("a configuration of quantisation that says nothing".to_owned());
        } else if claims.is_empty() && self.get("bits").is_some() && self.method().is_none() {
            // MLX names no method; what its tensors are called tells.
            self.unknown("quantization_config without `quant_method`, with bits", &self.shown("bits"), None);
        } else if claims.is_empty() && self.method().is_none() && !self.is_of_a_cache_alone() {
            self.bad("quantization_config without `quant_method`".to_owned());
        }
        claims.shrink_to_fit();
        claims
    }

    /// The method's word. GPTQModel calls the member `method`, too, and engines that compute experts otherwise keep the
    /// method of the tensors in `linear_quant_method`.
    fn method(&self) -> Option<&'a str> {
        ["linear_quant_method", "quant_method", "method"].into_iter().find_map(|key| self.text(key))
    }

    /// Only the KV cache is quantised.
    fn is_of_a_cache_alone(&self) -> bool {
        ["kv_cache_quant_algo", "kv_cache_scheme", "kv_cache_quant_config"]
            .iter()
            .any(|k| self.get(k).is_some())
    }

    /// By the members that only one producer has: ModelOpt, early compressed-tensors and Mistral name no method.
    fn unless_told_otherwise(&self) -> Vec<Claim> {
        if self.get("quant_algo").is_some() || self.get("quantized_layers").is_some() {
            self.modelopt()
        } else if self.get("config_groups").is_some() {
            self.compressed_tensors()
        } else if self.get("global_quant_config").is_some() || self.get("layer_quant_config").is_some() {
            self.quark()
        } else if self.get("qformat_weight").is_some() {
            self.mistral()
        } else {
            Vec::new()
        }
    }

    /// The claims, of all modules but those that are listed.
    fn skipping(&self, claims: Vec<Claim>, lists: &[&str]) -> Vec<Claim> {
        let skips = Arc::new(self.modules(lists));
        claims.into_iter().map(|claim| Claim { skips: skips.clone(), ..claim }).collect()
    }

    fn fp8(&self) -> Vec<Claim> {
        if let Some(format @ ("e5m2" | "float8_e5m2")) = self.text("fmt") {
            self.unknown("fmt", format, None);
        }
        let block = self.block("weight_block_size");
        let text = match block {
            Some(Granularity::Block(r, c)) => format!("quant_method fp8 with weight_block_size [{r}, {c}]"),
            _ => "quant_method fp8 without weight_block_size".to_owned(),
        };
        let claim = Claim {
            granularity: block,
            without_blocks: self.get("weight_block_size").is_none(),
            ue8m0: self.text("scale_fmt") == Some("ue8m0"),
            static_input: self.text("activation_scheme") == Some("static"),
            ..Claim::new(Some(Scheme::Fp8), text)
        };
        // `ignore` is a word of those who quantise modules again, and speaks of what they have done.
        self.skipping(vec![claim], &["modules_to_not_convert", "ignored_layers"])
    }

    /// Mistral's own `params.json`.
    fn mistral(&self) -> Vec<Claim> {
        let word = self.text("qformat_weight").unwrap_or("");
        let (scheme, granularity) = match word {
            "fp8_e4m3" => (Some(Scheme::Fp8), Some(Granularity::Tensor)),
            word => {
                self.unknown("qformat_weight", word, None);
                (None, None)
            }
        };
        let static_input = self.text("qscheme_act") == Some("TENSOR");
        let text = format!("Mistral's qformat_weight {word}");
        vec![Claim { granularity, static_input, ..Claim::new(scheme, text) }]
    }

    /// int4 experts in a checkpoint of FP8, with FP8 activations.
    fn w4afp8(&self) -> Vec<Claim> {
        let mut claims = self.fp8();
        let mut group = self.group("group_size").or_else(|| self.group("weight_group_size"));
        if group.is_none() {
            group = Some(Granularity::Group(128));
        }
        for claim in &mut claims {
            claim.text = format!("quant_method w4afp8, of FP8 {}", claim.text);
            // Only the experts' inputs have one.
            claim.static_input = false;
        }
        let text = "quant_method w4afp8, of int4".to_owned();
        let skips = claims.first().map(|claim| claim.skips.clone()).unwrap_or_default();
        claims.push(Claim { granularity: group, skips, ..Claim::new(Some(Scheme::Int4), text) });
        claims
    }

    fn bitsandbytes(&self) -> Vec<Claim> {
        let scheme = match (
            self.flag("load_in_4bit").or(self.flag("_load_in_4bit")),
            self.text("bnb_4bit_quant_type"),
        ) {
            (Some(true), Some("fp4")) => Some(Scheme::BnbFp4),
            (Some(true), Some("nf4") | None) => Some(Scheme::BnbNf4),
            (Some(true), Some(other)) => {
                self.unknown("bnb_4bit_quant_type", other, None);
                None
            }
            _ => Some(Scheme::Int8),
        };
        let text = match scheme {
            Some(scheme) => format!("bitsandbytes {scheme}"),
            None => "bitsandbytes".to_owned(),
        };
        self.skipping(vec![Claim::new(scheme, text)], &["llm_int8_skip_modules"])
    }
}

/// Adds a claim of one module to those that are otherwise the same.
fn add(claims: &mut Vec<Claim>, claim: Claim, target: Option<ModulePattern>) {
    let same = |c: &Claim| {
        (&c.text, c.static_input, c.targets.is_empty()) == (&claim.text, claim.static_input, target.is_none())
    };
    let at = match claims.iter().position(same) {
        Some(at) => at,
        None => {
            claims.push(claim);
            claims.len() - 1
        }
    };
    if let Some(target) = target {
        claims[at].targets.push(target);
    }
}
