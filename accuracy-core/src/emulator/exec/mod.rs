//! What each instruction does, one function for each, under its mnemonic.

pub mod matrix;
pub use matrix::*;
