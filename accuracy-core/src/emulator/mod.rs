//! Executes the machine code of AMD's CDNA3 (gfx942) and CDNA4 (gfx950) on this machine's processor.
//!
//! The feature `isa` brings what reads instructions, `emulate` also what executes them. The floors, each of which knows
//! only those before it:
//!
//! | floor | what lives there |
//! | --- | --- |
//! | `processor` | the processors whose code can be executed |
//! | `isa` | the table of instructions; machine code to `isa::Inst`; an instruction as text |
//! | `hazards` | instructions that are too close to the one whose result they use |
//! | `lines` | which line of the source an instruction was compiled from |
//! | `examine` | a code object's instructions that meet a known fault of the hardware or have a hazard; runs nothing |
//! | `global_sync` | barriers and semaphores between the workgroups of a launch |
//! | `waits` | loads that a wave has issued and not waited for |
//! | `scrutiny` | what a launch is watched for beside what it computes: races, barriers, accesses outside of buffers |
//! | `provenance` | which elements of which declared buffers flowed into an element, and who wrote it |
//! | `trace` | the instructions of one wave, with its registers, as text |
//! | `memory` | the address space of a launch: which addresses a kernel may touch; LDS and scratch |
//! | `wave` | the registers of one wave, and what executing an instruction can lead to |
//! | `exec` | one function for each instruction |
//! | `loader` | a code object in memory, with its kernels and variables |
//! | `executed` | what a launch has executed, and what was seen on the way |
//! | `workgroup` | waves that share LDS and barriers |
//! | `launch` | a grid of workgroups, spread over threads |
//! | `unwritten` | memory of the device that nobody wrote |
//! | `rerun` | a launch once more with other contents of what nobody wrote |
//! | `findings` | what was seen, in words |
//! | `engine` | the emulated device: memory, loaded code objects, what was executed |
//! | `hip` | the stand-in for AMD's runtime, which a kernel library's launchers call |
//! | `process` | the one device that a process emulates, and what happened on it |

pub mod examine;
pub mod hazards;
pub mod isa;
pub mod lines;
pub mod processor;

// What executes instructions, beside what only reads them.
#[cfg(feature = "emulate")]
pub mod engine;
#[cfg(feature = "emulate")]
pub mod exec;
#[cfg(feature = "emulate")]
pub mod executed;
#[cfg(feature = "emulate")]
pub mod fidelity;
#[cfg(feature = "emulate")]
mod findings;
#[cfg(feature = "emulate")]
mod float_control;
#[cfg(feature = "emulate")]
pub mod global_sync;
#[cfg(feature = "emulate")]
pub mod hip;
#[cfg(feature = "emulate")]
pub mod launch;
#[cfg(feature = "emulate")]
pub mod loader;
#[cfg(feature = "emulate")]
pub mod memory;
#[cfg(feature = "emulate")]
mod process;
#[cfg(feature = "emulate")]
pub mod provenance;
#[cfg(feature = "emulate")]
mod requests;
#[cfg(feature = "emulate")]
pub mod rerun;
#[cfg(feature = "emulate")]
pub mod scrutiny;
#[cfg(feature = "emulate")]
pub mod trace;
#[cfg(feature = "emulate")]
pub mod unwritten;
#[cfg(feature = "emulate")]
pub mod waits;
#[cfg(feature = "emulate")]
pub mod wave;
#[cfg(feature = "emulate")]
pub mod workgroup;

#[cfg(feature = "emulate")]
pub use process::{
    EmulatorError, Report, ask, declare, forget, install, look_for_races, nobody_wrote, take_report,
    trace_run,
};
#[cfg(feature = "emulate")]
use requests::wave_order;
#[cfg(feature = "emulate")]
pub use requests::{scrutinised, with_order};
#[cfg(feature = "emulate")]
pub use workgroup::WaveOrder;
