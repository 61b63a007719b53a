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
