//! Transformer models as lists of operations, and those operations in float64.
//!
//! [`config`] reads what `config.json` decides, [`inputs`] how it has inputs quantised, [`families`] has what families of models differ in, [`plan`] lists a
//! model's operations with the [places](place) of a dump that hold their inputs and outputs, [`ops`] computes them with a checkpoint's weights. Reading dumps is in [`crate::dumps`];
//! comparing and judging is not done here.

pub mod config;
pub mod families;
pub mod inputs;
mod object;
pub mod ops;
pub mod place;
pub mod plan;
mod precision;
pub mod rope;

pub use config::{
    Activation, Attention, DeltaNet, Indexer, Layer, Mla, ModelConfig, ModelError, QkNorm, Router, Score,
    StateSpace,
};
pub use inputs::Inputs;
pub use place::{Place, Sharing, Site};
pub use plan::{Op, OpKind, Plan};
pub use rope::Rope;
