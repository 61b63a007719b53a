//! Memory instructions: SMEM, DS, FLAT, GLOBAL, SCRATCH, MUBUF and MTBUF.
//!
//! Each does the same in three steps. `places` turns the instruction's address into one address of this process for
//! each lane, and checks that the kernel may use it: every access of a vector instruction comes through there.
//! `transfer` and `atomic` then move the data. The other files say which instruction does which.
//!
//! Global memory is shared with the threads that run other workgroups, as it is shared on a device. Plain accesses are
//! single accesses of the processor; atomics are the processor's.

mod atomic;
mod buffer;
mod ds;
mod flat;
mod format;
mod global_sync;
mod lds_transfer;
mod places;
mod smem;
#[cfg(test)]
mod tests;
mod transfer;

pub use buffer::*;
pub use ds::*;
pub use flat::*;
pub use format::*;
pub use global_sync::*;
pub use smem::*;

pub(in crate::emulator) use ds::{lane_of, swizzled};
