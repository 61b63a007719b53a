//! AMD Quark: `global_quant_config`, and others for layers by name or class.

use std::sync::Arc;

use serde_json::Value;

use super::{Claim, Patterns, Reader, Scheme, add};
use crate::quant::Granularity;

/// A weight that is quantised several times: the order is that in which Quark does it.
enum Stages<'a> {
    One(Reader<'a>),
    /// FP8 with one scale, whose values are then int4.
    Int4OfFp8(Reader<'a>),
    /// FP4 of groups, whose scales are then FP8 with one scale.
    Nvfp4(Reader<'a>),
}

impl<'a> Stages<'a> {
    /// `None` for an order that is not known.
    fn of(stages: &[Reader<'a>]) -> Option<Stages<'a>> {
        let word = |stage: &Reader, key: &str| {
            stage.value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let is_of_scales = |stage: &Reader| stage.flag("is_scale_quant") == Some(true);
        match *stages {
            [one] => Some(Stages::One(one)),
            [first, last] if is_of_scales(&last) => {
                let nvfp4 = word(&first, "dtype") == "fp4"
                    && word(&last, "dtype") == "fp8_e4m3"
                    && word(&last, "qscheme") == "per_tensor";
                nvfp4.then_some(Stages::Nvfp4(first))
            }
            [first, last] if !is_of_scales(&first) => {
                let int4_of_fp8 = word(&first, "dtype").starts_with("fp8")
                    && word(&first, "qscheme") == "per_tensor"
                    && matches!(word(&last, "dtype").as_str(), "int4" | "uint4");
                int4_of_fp8.then_some(Stages::Int4OfFp8(last))
            }
            _ => None,
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn quark(&self) -> Vec<Claim> {
        let skips = Arc::new(self.modules(&["exclude"]));
        let reordered =
            match self.get("export").and_then(|export| export.get("pack_method")).and_then(Value::as_str) {
                Some("order") => Some(false),
                Some("reorder") => Some(true),
                _ => None,
            };
        let global = self.get("global_quant_config").into_iter().map(|config| (None, config));
        let configs = global
            .chain(self.object("layer_quant_config").map(|(name, config)| (Some(name), config)))
            // Of which modules a class is, only the model's code says.
            .chain(self.object("layer_type_quant_config").map(|(_, config)| (None, config)));
        let mut claims: Vec<Claim> = Vec::new();
        for (name, config) in configs {
            let Some(weight) = config.get("weight").filter(|w| !w.is_null()) else { continue };
            let target = match name {
                Some(name) => match self.module("layer_quant_config", name) {
                    Some(target) => Some(target),
                    None => continue,
                },
                None => None,
            };
            let name = name.map(String::as_str);
            let claim = self.weight(self.at(config), weight, name, &skips);
            add(&mut claims, Claim { reordered, ..claim }, target);
        }
        if claims.is_empty() && !self.is_of_a_cache_alone() {
            self.bad("Quark configuration without a weight in `global_quant_config`".to_owned());
        }
        claims
    }

    fn weight(
        &self,
        layer: Reader<'a>,
        weight: &'a Value,
        module: Option<&str>,
        skips: &Arc<Patterns>,
    ) -> Claim {
        let static_input = layer.has_static_scale("input_tensors", "is_dynamic");
        let common = |claim: Claim| Claim { static_input, skips: skips.clone(), ..claim };
        let stages: Vec<Reader> = match weight.as_array() {
            Some(stages) => stages.iter().map(|stage| self.at(stage)).collect(),
            None => vec![self.at(weight)],
        };
        let weight = match Stages::of(&stages) {
            Some(Stages::One(codes) | Stages::Int4OfFp8(codes)) => codes,
            Some(Stages::Nvfp4(codes)) => {
                let text = "Quark fp4 weights per_group with FP8 scales".to_owned();
                let granularity = codes.group("group_size");
                return common(Claim { granularity, ..Claim::new(Some(Scheme::Nvfp4), text) });
            }
            None => {
                let words: Vec<&str> = stages.iter().filter_map(|s| s.value.get("dtype")?.as_str()).collect();
                let word = words.join(", then ");
                self.unknown("weight of several stages", &word, module);
                return common(Claim::new(None, format!("Quark {word} weights")));
            }
        };
        let dtype = weight.text("dtype").unwrap_or("");
        let qscheme = weight.text("qscheme").unwrap_or("");
        let granularity = match qscheme {
            "per_tensor" => Some(Granularity::Tensor),
            "per_channel" | "per_token" => Some(Granularity::Row),
            "per_group" => weight.group("group_size"),
            "per_block" => weight.block("block_size"),
            other => {
                self.unknown("qscheme", other, module);
                None
            }
        };
        let e8m0 = ["scale_format", "scale_type"].iter().any(|key| {
            let format = weight.get(key).and_then(Value::as_str);
            format.is_some_and(|format| format.contains("e8m0"))
        });
        let grouped = matches!(granularity, Some(Granularity::Group(_)));
        let word = match dtype {
            "mx" => weight.text("mx_element_dtype").unwrap_or("fp4"),
            word => word,
        };
        let scheme = match word {
            "fp8_e4m3" | "fp8_e5m2" if e8m0 && grouped => Some(Scheme::Mxfp8),
            "fp8_e4m3" | "fp8_e5m2" | "fp8_e4m3fn" | "fp8_e4m3fnuz" | "fp8_e5m2fnuz" => Some(Scheme::Fp8),
            // NVFP4's groups are half as long, and their scales are FP8.
            "fp4" if !e8m0 && granularity == Some(Granularity::Group(16)) => Some(Scheme::Nvfp4),
            "fp4" => Some(Scheme::Mxfp4),
            "fp6_e2m3" => Some(Scheme::Mxfp6E2M3),
            "fp6_e3m2" => Some(Scheme::Mxfp6E3M2),
            "int8" => Some(Scheme::Int8),
            "int4" | "uint4" => Some(Scheme::QuarkInt4),
            "bfloat16" | "float16" | "float32" => Some(Scheme::Unquantized),
            other => {
                self.unknown("dtype", other, module);
                None
            }
        };
        let symmetric =
            weight.flag("symmetric").filter(|_| word.starts_with("int") || word.starts_with("uint"));
        let text = format!("Quark {dtype} weights {qscheme}");
        let integers = word.contains("int");
        common(Claim {
            granularity,
            symmetric,
            unsigned: word.starts_with("uint"),
            transposed: integers && qscheme == "per_group",
            ..Claim::new(scheme, text)
        })
    }
}
