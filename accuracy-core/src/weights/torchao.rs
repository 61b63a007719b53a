//! What torchao writes of its tensors into the metadata of a safetensors file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Checkpoint;
use super::roles::TORCHAO;

/// The list of all tensors that the metadata describes.
const NAMES: &str = "tensor_names";

/// The class of a tensor and its other members, as the metadata has them.
#[derive(Debug, Default)]
pub(super) struct Torchao {
    pub class: Option<String>,
    members: Value,
}

impl Torchao {
    /// A member that is a number format: `{"_type": "torch.dtype", "_data": "bfloat16"}`.
    fn dtype(&self, member: &str) -> Option<&str> {
        let dtype = self.members.get(member)?;
        dtype.get("_data").unwrap_or(dtype).as_str()
    }

    /// Whether scales lie in tiles of 128 rows and 4 groups.
    pub fn is_in_tiles(&self) -> bool {
        self.members.get("is_swizzled_scales").and_then(Value::as_bool) == Some(true)
    }

    /// Whether the elements are FP4, two a byte; those of FP6 have a byte each.
    pub fn is_of_fp4(&self) -> bool {
        self.dtype("elem_dtype").is_some_and(|dtype| dtype.starts_with("float4_e2m1fn"))
    }

    /// Whether int4 weights are symmetric, as for FP8 activations.
    pub fn is_symmetric(&self) -> bool {
        self.dtype("activation_dtype").is_some_and(|dtype| dtype.starts_with("float8"))
    }
}

impl Checkpoint {
    /// What a safetensors file with the weights of these modules has to say of them in its metadata: of torchao's, which
    /// class each is. Without it their codes may be read as those of another class.
    pub fn descriptions(&self, modules: &[String]) -> BTreeMap<String, String> {
        let of = |module: &String| {
            let weight = format!("{module}.weight");
            Some((weight.clone(), self.description(&format!("{module}{TORCHAO}"), &weight)?))
        };
        let mut all: BTreeMap<String, String> = modules.iter().filter_map(of).collect();
        if !all.is_empty() {
            let names: Vec<&String> = all.keys().collect();
            all.insert(NAMES.to_owned(), json!(names).to_string());
        }
        all
    }

    /// What the file that holds these codes has in its metadata on `weight`.
    fn description(&self, codes: &str, weight: &str) -> Option<String> {
        let shard = self.shard(&self.0.shards[*self.0.tensors.get(codes)?]).ok()?;
        shard.metadata()?.get(weight).cloned()
    }

    /// What the file that holds these codes says of `weight`.
    pub(super) fn torchao(&self, codes: &str, weight: &str) -> Torchao {
        let said = || {
            let value: Value = serde_json::from_str(&self.description(codes, weight)?).ok()?;
            let class = value.get("_type")?.as_str().map(str::to_owned);
            Some(Torchao { class, members: value.get("_data").cloned().unwrap_or_default() })
        };
        said().unwrap_or_default()
    }
}
