//! What families of models have of their own, a file each. To add one: a file, and an entry in [`FAMILIES`].

mod bert;
mod deepseek;
mod deepseek_v32;
mod gemma;
mod glm;
mod gpt_oss;
mod granite;
mod llama;
mod llama4;
mod minimax;
mod mixtral;
mod nemotron_h;
mod olmo;
mod phi;
mod qwen;
mod qwen_next;

use super::config::{ModelConfig, ModelError, Object};
use super::inputs::Inputs;
use std::path::Path;

/// Models that compute alike.
#[derive(Debug)]
pub struct Family {
    /// What `config.json` calls them.
    pub model_types: &'static [&'static str],
    /// Where the model and its head are within one that sees, too, and keeps this one's configuration in `text_config`.
    pub nested: (&'static str, &'static str),
    pub read: fn(&Object) -> Result<ModelConfig, ModelError>,
}

/// Where most models that see have their language model.
pub(super) const NESTED: (&str, &str) = ("model.language_model", "lm_head");

pub const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &llama4::FAMILY,
    &qwen::DENSE2,
    &qwen::DENSE3,
    &qwen::MOE3,
    &qwen::VL3,
    &qwen_next::NEXT3,
    &mixtral::FAMILY,
    &deepseek::FAMILY,
    &deepseek_v32::FAMILY,
    &gpt_oss::FAMILY,
    &gemma::SECOND,
    &gemma::THIRD,
    &phi::FAMILY,
    &glm::FOURTH,
    &glm::MOE4,
    &olmo::SECOND,
    &granite::FAMILY,
    &minimax::M2,
    &nemotron_h::FAMILY,
    &bert::FAMILY,
];

pub fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|f| f.model_types.contains(&model_type))
}

/// The types of model that are known.
pub fn known() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|f| f.model_types.iter().copied()).collect()
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// It cannot be read, a key is missing, or the architecture is not known.
    pub fn read(path: &Path) -> Result<ModelConfig, ModelError> {
        let file = Object::read(path)?;
        let inputs = Inputs::read(&file);
        let (c, nested) = match file.object("text_config") {
            Some(text) if file.count("hidden_size").is_none() => (text, true),
            _ => (file, false),
        };
        let model_type = c.text("model_type").ok_or_else(|| c.missing("model_type"))?;
        match find(model_type) {
            Some(family) => {
                let mut config = ModelConfig { inputs, ..(family.read)(&c)? };
                if nested {
                    (config.form.prefix, config.form.head) = family.nested;
                }
                config.check(&c).map(|()| config)
            }
            None => Err(ModelError::Unknown {
                path: path.to_owned(),
                model_type: model_type.to_owned(),
                known: known(),
            }),
        }
    }
}
