//! Vector instructions: one function for each instruction of the vector ALU, for all its encodings.
//!
//! | file | what is there |
//! | --- | --- |
//! | `operands` | sources as 64 lanes with their modifiers, SDWA and DPP; destinations under EXEC |
//! | `lanes` | loops over the lanes |
//! | `wide` | compiles loops for AVX2 and FMA, too |
//! | `float` | arithmetic of float32, float64 and float16 |
//! | `division` | `v_div_scale`, `v_div_fmas`, `v_div_fixup` |
//! | `transcendental` | reciprocals, roots, exponentials, logarithms, sine |
//! | `integer`, `integer16` | integers and bits |
//! | `convert` | from one type to another |
//! | `small_float` | floats of 8, 6 and 4 bits |
//! | `compare` | comparisons |
//! | `packed` | VOP3P |
//! | `cross_lane` | what moves values between lanes |
//!
//! A float is first computed with this machine's arithmetic, which rounds to nearest and keeps denormals. Denormals
//! are flushed where sources are read and results are written. Other roundings, and lanes whose result is a NaN, are
//! computed again in integer arithmetic ([`super::number`]).

mod compare;
mod convert;
mod cross_lane;
mod division;
mod float;
mod integer;
mod integer16;
mod lanes;
mod operands;
mod packed;
mod small_float;
mod transcendental;
mod wide;

pub use compare::*;
pub use convert::*;
pub use cross_lane::*;
pub use division::*;
pub use float::*;
pub use integer::*;
pub use integer16::*;
pub use packed::*;
pub use small_float::*;
pub use transcendental::*;

pub(super) use operands::begin;
pub(in crate::emulator) use operands::{dpp_source, writers};

#[cfg(test)]
mod tests;
