//! MiniMax-M2: all heads of queries and keys are normed together, a part of each head is rotated, sigmoid router with a
//! correction.

use super::{Family, NESTED};
use crate::model::config::{Mixture, ModelConfig, ModelError, Object, QkNorm, Router, Score, router};
use crate::reference::model::RopeStyle;

pub const M2: Family = Family { model_types: &["minimax_m2"], nested: NESTED, read };

fn read(c: &Object) -> Result<ModelConfig, ModelError> {
    let mut config = ModelConfig::rotated(c, RopeStyle::Neox)?;
    config.attention.qk_norm = QkNorm::Whole;
    let made = Router { correction: true, renormalise: true, ..router(c, Score::Sigmoid)? };
    config.layers.iter_mut().for_each(|l| l.router = Some(made.clone()));
    let modules = &["mlp", "block_sparse_moe"];
    let correction = "e_score_correction_bias";
    config.form.mixture = Mixture { modules, weights: "block_sparse_moe", correction, ..config.form.mixture };
    Ok(config)
}
