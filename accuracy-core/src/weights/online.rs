//! What is done to a layer's input or output at run time, so that the stored weight alone does not give `y = x·W`:
//! rotations, smoothing factors, low-rank corrections.

use std::fmt;

use super::Checkpoint;

/// What is done to a layer's input or output at run time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Online {
    /// The input or output is multiplied by a matrix, a Hadamard matrix or a trained one.
    Transform {
        /// As the configuration or the tensor calls it: `R4`.
        name: String,
        place: Place,
    },
    /// Each column of the input is multiplied by a factor of its own, stored in this tensor.
    InputFactors { tensor: String },
    /// The product of two small matrices is added to the weight; this tensor is the first of them.
    LowRank { tensor: String },
}

/// Where a transform acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Input,
    Output,
}

impl Online {
    /// Whether the weight is one of rotated vectors: no other form of it may be handed out as the layer's weight.
    pub fn rotates(&self) -> bool {
        matches!(self, Online::Transform { .. })
    }
}

impl fmt::Display for Online {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Online::Transform { name, place: Place::Input } => {
                write!(f, "its input is rotated at run time ({name})")
            }
            Online::Transform { name, place: Place::Output } => {
                write!(f, "its output is rotated at run time ({name})")
            }
            Online::InputFactors { tensor } => write!(f, "its input is multiplied by `{tensor}` at run time"),
            Online::LowRank { tensor } => write!(f, "a low-rank product is added to it (`{tensor}`)"),
        }
    }
}

/// Endings of a transform's own module inside of a layer, by where it acts: compressed-tensors joins them to its name.
const PLACES: [(&str, Option<Place>); 6] = [
    ("_weight_input", None),
    ("_weight_output", None),
    ("_input", Some(Place::Input)),
    ("_output", Some(Place::Output)),
    ("_q_attn", None),
    ("_k_cache", None),
];

/// Words in the names of tensors that are rotations.
const ROTATIONS: [&str; 5] = ["rotation", "Rotation", "hadamard", "Hadamard", "had_matrix"];

/// Endings of tensors that hold a factor for each column of the input.
const INPUT_FACTORS: [&str; 5] =
    [".pre_quant_scale", ".smooth_scale", ".smooth_factor", ".input_prescale", "._weight_act_pre_scale"];
/// Endings of the first of two matrices whose product is added to the weight.
const LOW_RANK: [&str; 3] = [".svdquant_lora_a", ".lora_down", ".proj_down"];

/// The layer that a tensor transforms, and how; `None` for what is no transform.
///
/// A transform is a module inside of a layer with a weight, called as compressed-tensors calls it, or a tensor that is
/// called a rotation.
pub(super) fn of_tensor<'t>(checkpoint: &Checkpoint, tensor: &'t str) -> Option<(&'t str, Option<Online>)> {
    let path = tensor.strip_suffix(".weight").unwrap_or(tensor);
    let (layer, name) = path.rsplit_once('.').unwrap_or(("", path));
    if ROTATIONS.iter().any(|word| name.contains(word)) && !layer.is_empty() {
        // The inverse of an offline rotation is part of a gradient, not of the layer.
        let online = (!name.contains("backward"))
            .then(|| Online::Transform { name: name.to_owned(), place: Place::Input });
        return Some((layer, online));
    }
    let (ending, place) =
        PLACES.iter().find(|(ending, _)| name.len() > ending.len() && name.ends_with(ending))?;
    let inside_of_a_layer = tensor.len() > path.len() && checkpoint.has_weight(layer);
    inside_of_a_layer.then(|| {
        let name = name[..name.len() - ending.len()].to_owned();
        (layer, place.map(|place| Online::Transform { name, place }))
    })
}

/// The layer that a tensor says something of, and what is done to that layer's input or output.
pub(super) fn said_by<'t>(checkpoint: &Checkpoint, tensor: &'t str) -> Option<(&'t str, Online)> {
    let of = |endings: &[&str]| endings.iter().find_map(|ending| tensor.strip_suffix(ending));
    let named = || tensor.to_owned();
    if let Some(layer) = of(&INPUT_FACTORS) {
        return Some((layer, Online::InputFactors { tensor: named() }));
    }
    if let Some(layer) = of(&LOW_RANK) {
        return Some((layer, Online::LowRank { tensor: named() }));
    }
    let (layer, online) = of_tensor(checkpoint, tensor)?;
    Some((layer, online?))
}

/// All that is done to a layer's input and output at run time.
pub(super) fn of_module(checkpoint: &Checkpoint, module: &str) -> Vec<Online> {
    let mut online: Vec<Online> = checkpoint.extras().online.get(module).cloned().unwrap_or_default();
    for transform in &checkpoint.0.config.transforms {
        let of_it = Online::Transform { name: transform.name.clone(), place: transform.place };
        if transform.acts_on(module) && !online.contains(&of_it) {
            online.push(of_it);
        }
    }
    online
}

/// Endings of the second of two matrices whose product is added to the weight.
const LOW_RANK_SECOND: [&str; 3] = [".svdquant_lora_b", ".lora_up", ".proj_up"];

/// The layer of which this tensor is the second of two matrices whose product is added to its weight.
pub(super) fn second_of_two(tensor: &str) -> Option<&str> {
    LOW_RANK_SECOND.iter().find_map(|ending| tensor.strip_suffix(ending))
}

/// Whether a tensor is read with a layer beside its weight: a factor of its input, part of a low-rank correction.
pub(super) fn is_beside_a_weight(tensor: &str) -> bool {
    INPUT_FACTORS.iter().chain(&LOW_RANK).chain(&LOW_RANK_SECOND).any(|ending| tensor.ends_with(ending))
}
