//! What each instruction does, one function for each, under its mnemonic.

pub mod number;
pub mod vector;
pub use vector::*;
