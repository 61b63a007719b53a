//! Mixtral: softmax over all experts, and the weights of the chosen ones add up to 1.

use super::{Family, NESTED};
use crate::model::config::{Mixture, ModelConfig, ModelError, Object, Score, router};
use crate::reference::model::RopeStyle;

pub const FAMILY: Family = Family { model_types: &["mixtral"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.windows(c, |_| true)?;
    let mut made = router(c, Score::Softmax)?;
    made.renormalise = true;
    config.layers.iter_mut().for_each(|l| l.router = Some(made.clone()));
    let modules = &["mlp", "block_sparse_moe"];
    config.form.mixture = Mixture { modules, weights: "block_sparse_moe", ..config.form.mixture };
    Ok(config)
}
