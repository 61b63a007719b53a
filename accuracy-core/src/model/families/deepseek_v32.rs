//! DeepSeek-V3.2: DeepSeek-V3 with an indexer, which chooses the positions that a token attends to.

use super::{Family, NESTED, deepseek};
use crate::model::config::{Indexer, ModelConfig, ModelError, Object};

pub const FAMILY: Family = Family { model_types: &["deepseek_v32"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = deepseek::read(c)?;
    let indexer = Indexer {
        heads: c.need(&["index_n_heads"])?,
        dim: c.need(&["index_head_dim"])?,
        rope: c.need(&["qk_rope_head_dim"])?,
        topk: c.need(&["index_topk"])?,
    };
    if indexer.rope > indexer.dim || indexer.heads == 0 {
        return Err(c.bad(format!("an indexer of {} heads of {}", indexer.heads, indexer.dim)));
    }
    config.attention.indexer = Some(indexer);
    let types = c.list("mlp_layer_types");
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let named = types.and_then(|all| all.get(i)).and_then(|name| name.as_str());
        if named == Some("dense") {
            (layer.router, layer.shared) = (None, false);
        }
    }
    Ok(config)
}
