//! Transformer models as lists of operations, and those operations in float64.
//!
//! [`config`] reads what `config.json` decides, [`plan`] lists a model's operations with the places of a dump that hold
//! their inputs and outputs, [`ops`] computes them with a checkpoint's weights. Reading dumps is in [`crate::dumps`];
//! comparing and judging is not done here.

pub mod config;
pub mod ops;
pub mod plan;
pub mod rope;

pub use config::{Activation, Attention, Layer, Mla, ModelConfig, ModelError, Router, Score};
pub use plan::{Op, OpKind, Place, Plan, Site};
pub use rope::Rope;
