//! The float64 oracle: what a chain should have computed.
//!
//! [`graph`] is the expression that a test's declarations make; [`mod@eval`] computes it with float64 accumulation.
//! Nothing here knows of kernels, and no kernel shares code with it.

pub mod accumulate;
pub mod cache;
pub mod eval;
pub mod graph;
pub mod matrix;
pub mod model;
pub mod reads;
pub mod stream;

pub use accumulate::{
    Accumulator, CDNA3_BF16, CDNA3_F16, CDNA3_FP8, CDNA4_BF16, CDNA4_F16, CDNA4_FP8, HOPPER_FP8, Sums,
    TensorCore,
};
pub use eval::{Evaluation, eval, magnitudes, times_magnitudes};
pub use graph::{
    BufferId, CodeRounding, Expr, Operand, concat_columns, concat_rows, gelu, layer_norm, relu, rms_norm,
    select, sigmoid, silu, user,
};
pub use matrix::Matrix;
