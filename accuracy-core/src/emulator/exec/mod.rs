//! What each instruction does, one function for each, under its mnemonic.

pub mod matrix;
pub mod memory;
pub mod number;
pub mod scalar;
pub mod vector;

pub use matrix::*;
pub use memory::*;
pub use scalar::*;
pub use vector::*;

/// Which lanes an instruction reads and writes, for what follows values without computing them.
pub(super) mod lanes_of {
    pub(in crate::emulator) use super::memory::{lane_of, swizzled};
    pub(in crate::emulator) use super::vector::{dpp_source, writers};
}
