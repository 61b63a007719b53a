//! What configurations say of rotations and other transforms: compressed-tensors' `transform_config`, Quark's
//! `algo_config`, and members of others that are called so.

use serde_json::Value;

use super::{Patterns, Reader};
use crate::weights::claim::Transform;
use crate::weights::names::ModulePattern;
use crate::weights::online::Place;

/// Parts of the names of members that speak of rotations.
const WORDS: [&str; 4] = ["rotat", "hadamard", "quarot", "spinquant"];

impl Reader<'_> {
    /// Notes every transform that acts at run time.
    pub(super) fn rotations(&self) {
        if let Some(config) = self.get("transform_config") {
            self.at(config).schemes();
        }
        let algorithms = ["algo_config", "pre_quant_opt_config"].iter().filter_map(|key| self.get(key));
        for config in
            algorithms.flat_map(|value| value.as_array().map_or_else(|| vec![value], |a| a.iter().collect()))
        {
            let name = config.get("name").and_then(Value::as_str).unwrap_or("");
            if WORDS.iter().any(|word| name.contains(word)) {
                self.at(config).quark_rotation();
            }
        }
        for (key, value) in self.value.as_object().into_iter().flatten() {
            let lower = key.to_ascii_lowercase();
            let says_so = !matches!(value, Value::Null | Value::Bool(false))
                && value.as_array().is_none_or(|a| !a.is_empty());
            let says_so = says_so && value.as_object().is_none_or(|o| !o.is_empty());
            if says_so && WORDS.iter().any(|word| lower.contains(word)) {
                self.transform(key, Place::Input, Patterns::default(), Patterns::default());
            }
        }
    }

    /// `config_groups` of compressed-tensors: each scheme applied to targets, at one of several places.
    fn schemes(&self) {
        for (name, scheme) in self.object("config_groups") {
            for apply in scheme.get("apply").and_then(Value::as_array).into_iter().flatten() {
                let apply = self.at(apply);
                let place = match apply.text("location") {
                    Some("input") => Place::Input,
                    Some("output") => Place::Output,
                    // These are in the weights already, or in attention.
                    Some("weight_input" | "weight_output" | "q_attn" | "k_cache") => continue,
                    Some(other) => {
                        self.unknown(&format!("location of transform {name}"), other, None);
                        continue;
                    }
                    None => continue,
                };
                self.transform(name, place, apply.modules(&["targets"]), apply.modules(&["ignore"]));
            }
        }
    }

    /// R1 and R2 are in the weights unless R1 is kept online; R4 acts on the input of the second projection of an MLP.
    fn quark_rotation(&self) {
        if self.flag("online_r1_rotation") == Some(true) {
            self.transform("online R1", Place::Input, Patterns::default(), Patterns::default());
        }
        if self.flag("r4") == Some(true) {
            let pattern = |text: &str| ModulePattern::parse(text).ok();
            let targets = ["re:.*down_proj$", "re:.*\\.w2$"].into_iter().filter_map(pattern).collect();
            self.transform("R4", Place::Input, targets, Patterns::default());
        }
    }

    fn transform(&self, name: &str, place: Place, targets: Patterns, ignore: Patterns) {
        // A class of layers, as a target, is of any that are quantised.
        let everywhere = targets.is_empty() || targets.has_class();
        let transform = Transform { name: name.to_owned(), place, targets, ignore, everywhere };
        self.notes.transforms.borrow_mut().push(transform);
    }
}
