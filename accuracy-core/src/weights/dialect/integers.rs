//! GPTQ, AWQ and AutoRound: weights of a few bits, packed into int32.

use std::sync::Arc;

use super::{Claim, Patterns, Reader, Scheme};
use crate::quant::Granularity;

/// How a producer packs codes of a few bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gptq,
    Awq,
}

/// The scheme of codes of so many bits; `None` where no packing of them is known.
fn scheme(packing: Packing, bits: usize) -> Option<Scheme> {
    match (packing, bits) {
        (Packing::Gptq, 2) => Some(Scheme::GptqInt2),
        (Packing::Gptq, 3) => Some(Scheme::GptqInt3),
        (Packing::Gptq, 4) => Some(Scheme::Gptq),
        (Packing::Gptq, 8) => Some(Scheme::GptqInt8),
        (Packing::Awq, 4) => Some(Scheme::Awq),
        _ => None,
    }
}

impl Reader<'_> {
    /// Bits of a code, where they are given.
    fn bits(&self) -> Option<usize> {
        let key = ["bits", "w_bit", "wbits"].into_iter().find(|key| self.get(key).is_some())?;
        self.count(key)
    }

    /// The scheme of so many bits; others are noted.
    fn of_bits(&self, packing: Packing, bits: usize, module: Option<&str>) -> Option<Scheme> {
        let scheme = scheme(packing, bits);
        if scheme.is_none() {
            self.unknown("bits", &bits.to_string(), module);
        }
        scheme
    }

    pub(super) fn gptq(&self) -> Vec<Claim> {
        let format = self.text("checkpoint_format").or_else(|| self.text("format"));
        let zeros_minus_one = match format {
            None | Some("gptq") => Some(true),
            Some("gptq_v2") => Some(false),
            Some(other) => {
                self.unknown("checkpoint_format", other, None);
                None
            }
        };
        let bits = self.bits().unwrap_or(4);
        let said = if bits == 4 { String::new() } else { format!("bits {bits} and ") };
        let base = Claim {
            granularity: self.group("group_size"),
            zeros_minus_one,
            symmetric: self.flag("sym"),
            ..Claim::new(
                self.of_bits(Packing::Gptq, bits, None),
                format!("quant_method gptq with {said}group_size {}", self.shown("group_size")),
            )
        };
        let mut skips = self.modules(&["modules_to_not_convert"]);
        let mut claims = vec![base];
        // GPTQModel: other parameters for modules that a regular expression names, `-:` before it for none at all.
        for (pattern, value) in self.object("dynamic") {
            let regex = format!("re:{}", pattern.trim_start_matches("+:").trim_start_matches("-:"));
            let Some(target) = self.module("dynamic", &regex) else { continue };
            if pattern.starts_with("-:") {
                skips.push(target);
            } else {
                let own = self.at(value);
                claims.push(self.of_a_module(
                    &claims[0],
                    own,
                    Packing::Gptq,
                    bits,
                    [target].into_iter().collect(),
                ));
            }
        }
        with_skips(claims, skips)
    }

    pub(super) fn awq(&self) -> Vec<Claim> {
        let mut scheme = self.of_bits(Packing::Awq, self.bits().unwrap_or(4), None);
        if let Some(version) = self.text("version")
            && !version.eq_ignore_ascii_case("gemm")
        {
            self.unknown("version", version, None);
            scheme = None;
        }
        let key = if self.get("group_size").is_some() { "group_size" } else { "q_group_size" };
        let claim = Claim {
            granularity: self.group(key),
            symmetric: self.flag("zero_point").map(|has_zero_points| !has_zero_points),
            ..Claim::new(scheme, format!("quant_method awq with group_size {}", self.shown(key)))
        };
        self.skipping(vec![claim], &["modules_to_not_convert"])
    }

    /// AutoRound packs as GPTQ's first or second version does, or as AWQ does, and names modules that differ.
    pub(super) fn auto_round(&self) -> Vec<Claim> {
        let word =
            self.text("packing_format").or_else(|| self.text("backend")).unwrap_or("auto_round:auto_gptq");
        let data_type = self.text("data_type").unwrap_or("int");
        let bits = self.bits().unwrap_or(4);
        let mut skips = self.modules(&["modules_to_not_convert"]);
        let claim = |scheme| Claim {
            granularity: self.group("group_size"),
            ..Claim::new(scheme, format!("AutoRound {word} with group_size {}", self.shown("group_size")))
        };
        let floats = match (data_type, bits) {
            ("int", _) => None,
            (fp, 8) if fp.starts_with("mx") => Some(Scheme::Mxfp8),
            (fp, 4) if fp.starts_with("mx") => Some(Scheme::Mxfp4),
            (fp, 4) if fp.starts_with("nv") => Some(Scheme::Nvfp4),
            (fp, 8) if fp.starts_with("fp") => Some(Scheme::Fp8),
            (other, _) => {
                self.unknown("data_type", other, None);
                return with_skips(vec![claim(None)], skips);
            }
        };
        if let Some(floats) = floats {
            return with_skips(vec![Claim { granularity: None, ..claim(Some(floats)) }], skips);
        }
        let (packing, zeros_minus_one) = match word {
            word if word.contains("awq") => (Packing::Awq, Some(false)),
            word if word.contains("gptqmodel") => (Packing::Gptq, Some(false)),
            word if word.contains("gptq") => (Packing::Gptq, Some(true)),
            word if word.starts_with("auto_round") => (Packing::Gptq, Some(false)),
            other => {
                self.unknown("packing_format", other, None);
                return with_skips(vec![claim(None)], skips);
            }
        };
        let symmetric = self.flag("sym").filter(|_| packing == Packing::Gptq);
        let base = Claim { zeros_minus_one, symmetric, ..claim(self.of_bits(packing, bits, None)) };
        let mut claims = vec![base];
        for (name, value) in self.object("extra_config") {
            let own = self.at(value);
            let regex = name.contains(['*', '^', '$', '(', '\\', '|']).then(|| format!("re:{name}"));
            let Some(target) = self.module("extra_config", regex.as_deref().unwrap_or(name)) else {
                continue;
            };
            if own.bits().is_some_and(|bits| bits >= 16) {
                skips.push(target);
            } else {
                claims.push(self.of_a_module(&claims[0], own, packing, bits, [target].into_iter().collect()));
            }
        }
        with_skips(claims, skips)
    }

    /// The claim of all others, with what is said otherwise of one module.
    fn of_a_module(
        &self,
        base: &Claim,
        own: Reader,
        packing: Packing,
        bits: usize,
        targets: Patterns,
    ) -> Claim {
        let own_bits = own.bits();
        let scheme = match own_bits {
            Some(own_bits) if own_bits != bits => self.of_bits(packing, own_bits, None),
            _ => base.scheme,
        };
        let said = own_bits.map(|bits| format!("bits {bits} and ")).unwrap_or_default();
        let granularity: Option<Granularity> = own.group("group_size").or(base.granularity);
        Claim {
            scheme,
            granularity,
            symmetric: own.flag("sym").or(base.symmetric),
            targets,
            text: format!("{} for {said}some modules", base.text),
            ..base.clone()
        }
    }
}

fn with_skips(claims: Vec<Claim>, skips: Patterns) -> Vec<Claim> {
    let skips = Arc::new(skips);
    claims.into_iter().map(|claim| Claim { skips: skips.clone(), ..claim }).collect()
}
