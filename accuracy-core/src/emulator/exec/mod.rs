//! What each instruction does, one function for each, under its mnemonic.

mod uncovered;

pub use uncovered::*;
