//! ModelOpt: one `quant_algo`, or one for each of `quantized_layers`.

use std::sync::Arc;

use super::{Claim, Patterns, Reader, Scheme, add};
use crate::quant::Granularity;

/// What one algorithm does to weights.
struct Algorithm {
    scheme: Scheme,
    granularity: Option<Granularity>,
    /// How the claim is worded beside the scheme.
    how: &'static str,
}

impl Reader<'_> {
    pub(super) fn modelopt(&self) -> Vec<Claim> {
        let skips = Arc::new(self.modules(&["exclude_modules", "ignore"]));
        match self.text("quant_algo") {
            Some("MIXED_PRECISION") => self.layers(&skips),
            Some(algorithm) => {
                let of_all = self.algorithm(algorithm, None, &skips);
                // Layers that differ from the rest may be listed beside it.
                let mut claims = self.layers_that_differ(algorithm, &skips);
                claims.insert(0, of_all);
                claims
            }
            None if self.get("quantized_layers").is_some() => self.layers(&skips),
            None => {
                if !self.is_of_a_cache_alone() {
                    self.bad("ModelOpt configuration without `quant_algo`".to_owned());
                }
                Vec::new()
            }
        }
    }

    /// Layers that ModelOpt has quantised in a checkpoint of another producer; `ignore` is of these alone.
    pub(super) fn modelopt_layers(&self) -> Vec<Claim> {
        self.layers(&Arc::new(self.modules(&["exclude_modules", "ignore"])))
    }

    fn layers(&self, skips: &Arc<Patterns>) -> Vec<Claim> {
        if self.object("quantized_layers").next().is_none() {
            self.bad("ModelOpt quant_algo `MIXED_PRECISION` without `quantized_layers`".to_owned());
        }
        self.layers_that_differ("", skips)
    }

    fn layers_that_differ(&self, from: &str, skips: &Arc<Patterns>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (name, layer) in self.object("quantized_layers") {
            let layer = self.at(layer);
            let algorithm = layer.text("quant_algo").unwrap_or("");
            let Some(target) = self.module("quantized_layers", name) else { continue };
            if algorithm != from {
                add(&mut claims, layer.algorithm(algorithm, Some(name), skips), Some(target));
            }
        }
        claims
    }

    fn algorithm(&self, word: &str, module: Option<&str>, skips: &Arc<Patterns>) -> Claim {
        let skips = skips.clone();
        let Some(algorithm) = algorithm(word, self.group("group_size")) else {
            self.unknown("quant_algo", word, module);
            return Claim { skips, ..Claim::new(None, format!("ModelOpt {word}")) };
        };
        let Algorithm { scheme, granularity, how } = algorithm;
        Claim { granularity, skips, ..Claim::new(Some(scheme), format!("ModelOpt {scheme}{how}")) }
    }
}

/// By the parts of the word: ModelOpt joins the weights' format with those of activations, and with what prepares them.
fn algorithm(word: &str, group: Option<Granularity>) -> Option<Algorithm> {
    let upper = word.to_ascii_uppercase();
    let has = |part: &str| upper.split('_').any(|p| p == part);
    let of = |scheme, granularity, how| Some(Algorithm { scheme, granularity, how });
    let of_16 = group.or(Some(Granularity::Group(16)));
    if has("NVFP4") {
        return of(Scheme::Nvfp4, of_16, "");
    }
    if has("MXFP4") {
        return of(Scheme::Mxfp4, Some(Granularity::Group(32)), "");
    }
    if has("MXFP8") {
        return of(Scheme::Mxfp8, Some(Granularity::Group(32)), "");
    }
    // FP8 names the format of activations where weights are int4.
    if has("INT4") || has("W4A16") || has("W4A8") {
        return of(Scheme::Int4, group, "");
    }
    if has("INT8") || has("W8A8") || has("W8A16") {
        return of(Scheme::Int8, None, "");
    }
    if has("FP8") {
        return match () {
            () if has("PB") => of(Scheme::Fp8, None, " per block"),
            () if has("PC") || (has("PER") && has("CHANNEL")) => {
                of(Scheme::Fp8, Some(Granularity::Row), " per channel")
            }
            () if upper == "FP8" => of(Scheme::Fp8, Some(Granularity::Tensor), ""),
            () => of(Scheme::Fp8, None, ""),
        };
    }
    None
}
