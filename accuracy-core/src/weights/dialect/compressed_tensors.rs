//! compressed-tensors: `config_groups`, each with its targets and how their weights are quantised.

use std::sync::Arc;

use super::{Claim, Reader, Scheme};
use crate::quant::Granularity;

impl Reader<'_> {
    pub(super) fn compressed_tensors(&self) -> Vec<Claim> {
        let default_format = self.text("format").unwrap_or("");
        // What is sparse and not quantised has no groups.
        if self.object("config_groups").next().is_none() && self.get("sparsity_config").is_none() {
            self.bad("compressed-tensors without `config_groups`".to_owned());
        }
        let skips = Arc::new(self.modules(&["ignore"]));
        let mut claims = Vec::new();
        for (name, group) in self.object("config_groups") {
            let group = self.at(group);
            let Some(weights) = group.get("weights") else { continue };
            let weights = self.at(weights);
            let format = group.text("format").unwrap_or(default_format);
            let bits = weights.count("num_bits").unwrap_or(8);
            let kind = weights.text("type").unwrap_or("int");
            let size = weights.group("group_size");
            let strategy = weights.text("strategy");
            let scheme = match (kind, bits) {
                ("float", 8) if format.starts_with("mxfp8") => Some(Scheme::Mxfp8),
                ("float", 8) => Some(Scheme::Fp8),
                ("float", 4) if format.starts_with("mxfp4") || size == Some(Granularity::Group(32)) => {
                    Some(Scheme::Mxfp4)
                }
                ("float", 4) => Some(Scheme::Nvfp4),
                ("int", 8) if format == "pack-quantized" => Some(Scheme::PackedInt8),
                // Whatever their range, these codes have a byte each.
                ("int", 2..=8) if matches!(format, "int-quantized" | "naive-quantized") => Some(Scheme::Int8),
                ("int", 8) => Some(Scheme::Int8),
                ("int", 4) => Some(Scheme::PackedInt4),
                _ => {
                    let word = format!("{bits}-bit {kind} in format {format}");
                    self.unknown(&format!("config group {name}"), &word, None);
                    None
                }
            };
            let granularity = match strategy {
                Some("tensor") => Some(Granularity::Tensor),
                Some("channel" | "token") => Some(Granularity::Row),
                Some("group" | "tensor_group") => size,
                Some("block") => weights.block("block_structure"),
                Some(other) => {
                    self.unknown(&format!("strategy of config group {name}"), other, None);
                    None
                }
                None => size,
            };
            let how = strategy.map_or_else(String::new, |s| format!(" per {s}"));
            let text = format!("compressed-tensors group `{name}`: {bits}-bit {kind} weights{how}");
            claims.push(Claim {
                granularity,
                static_input: group.has_static_scale("input_activations", "dynamic"),
                targets: group.modules(&["targets"]),
                skips: skips.clone(),
                symmetric: weights.flag("symmetric"),
                ..Claim::new(scheme, text)
            });
        }
        claims
    }
}
