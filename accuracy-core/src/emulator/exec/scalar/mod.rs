//! Scalar instructions: SOP1, SOP2, SOPC, SOPK and SOPP. Scalar memory is with the other memory instructions.
//!
//! A function has the name of LLVM's mnemonic. `operand` reads and writes what they all take.

mod compare;
mod control;
mod hwreg;
mod one;
mod operand;
#[cfg(test)]
mod tests;
mod two;

pub use compare::*;
pub use control::*;
pub use hwreg::{s_getreg_b32, s_setreg_b32, s_setreg_imm32_b32};
pub use one::*;
pub use operand::{read32, read64};
pub use two::*;
