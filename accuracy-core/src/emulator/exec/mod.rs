//! What each instruction does, one function for each, under its mnemonic.

pub mod memory;
pub mod scalar;
