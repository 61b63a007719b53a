//! Executes the machine code of AMD's CDNA3 (gfx942) and CDNA4 (gfx950) on this machine's processor.
//!
//! The feature `isa` brings what reads instructions, `emulate` also what executes them. The floors, each of which knows
//! only those before it:
//!
//! | floor | what lives there |
//! | --- | --- |
//! | `processor` | the processors whose code can be executed |
//! | `isa` | the table of instructions; machine code to `isa::Inst`; an instruction as text |
//! | `errata` | the instructions of a code object that meet a known fault of the hardware |
//! | `lines` | which line of the source an instruction was compiled from |
//! | `global_sync` | barriers and semaphores between the workgroups of a launch |
//! | `memory` | the address space of a launch: which addresses a kernel may touch; LDS and scratch |
//! | `wave` | the registers of one wave, and what executing an instruction can lead to |
//! | `exec` | one function for each instruction |
//! | `workgroup` | waves that share LDS and barriers |
//! | `loader` | a code object in memory, with its kernels and variables |
//! | `launch` | a grid of workgroups, spread over threads |
//! | `engine` | the emulated device: memory, loaded code objects, what was executed |
//! | `hip` | the stand-in for AMD's runtime, which a kernel library's launchers call |

pub mod errata;
pub mod isa;
pub mod lines;
pub mod processor;

// What executes instructions, beside what only reads them.
#[cfg(feature = "emulate")]
pub mod engine;
#[cfg(feature = "emulate")]
pub mod exec;
#[cfg(feature = "emulate")]
pub mod fidelity;
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
pub mod wave;
#[cfg(feature = "emulate")]
pub mod workgroup;

#[cfg(feature = "emulate")]
use crate::arch::Arch;
#[cfg(feature = "emulate")]
use engine::Device;
#[cfg(feature = "emulate")]
use processor::Processor;
#[cfg(feature = "emulate")]
use std::cell::Cell;
#[cfg(feature = "emulate")]
use std::sync::{Arc, OnceLock};

/// Why no device can be emulated.
#[cfg(feature = "emulate")]
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error("{0} cannot be emulated: the emulator runs the code of gfx942 and gfx950")]
    Arch(Arch),
    #[error(
        "this process already emulates {there}, and {wanted} was asked for: one process emulates one device"
    )]
    Other { there: &'static str, wanted: &'static str },
    #[error(transparent)]
    StandIn(#[from] hip::InstallError),
}

/// The emulated device of this process.
#[cfg(feature = "emulate")]
static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();

/// Makes an emulated device the only one that HIP's runtime has in this process. `workers` threads of this machine run its
/// kernels.
///
/// # Errors
/// If the architecture is none that can be emulated, another one is emulated already, or a HIP runtime is loaded.
#[cfg(feature = "emulate")]
pub fn install(arch: Arch, workers: usize) -> Result<(), EmulatorError> {
    let processor = match arch {
        Arch::Gfx942 => Processor::Gfx942,
        Arch::Gfx950 => Processor::Gfx950,
        other => return Err(EmulatorError::Arch(other)),
    };
    let mut first = false;
    let device = DEVICE.get_or_init(|| {
        first = true;
        Arc::new(Device::new(processor, workers))
    });
    if first {
        hip::install(device.clone())?;
    }
    match device.processor() {
        there if there == processor => Ok(()),
        there => Err(EmulatorError::Other { there: there.name(), wanted: processor.name() }),
    }
}

#[cfg(feature = "emulate")]
thread_local! {
    static IN_STEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose launches on this thread keep the waves of each workgroup in step. What that is good for stands at
/// [`crate::device::emulation::in_step`].
#[cfg(feature = "emulate")]
pub fn in_step<T>(f: impl FnOnce() -> T) -> T {
    /// Sets back what was there before, also when `f` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IN_STEP.set(self.0);
        }
    }
    let _before = Before(IN_STEP.replace(true));
    f()
}

/// What happened on the emulated device since it was asked last.
#[cfg(feature = "emulate")]
#[derive(Debug, Default)]
pub struct Report {
    /// What a launcher or a kernel did that it must not, or that is not emulated: what came after it is worth nothing.
    pub problems: Vec<hip::Problem>,
    /// What the runtime refused a launcher that has read its last error since, and so may have done something else.
    pub handled: Vec<hip::Problem>,
    /// What kernels printed, a line each.
    pub output: Vec<String>,
    /// Wave instructions that were executed, and how many of them as AMD documents them bit for bit.
    pub instructions: u64,
    pub exact: u64,
    /// The mnemonics of the others, sorted.
    pub modelled: Vec<&'static str>,
}

/// Takes what happened on the emulated device; empty where none is installed.
#[cfg(feature = "emulate")]
pub fn take_report() -> Report {
    let Some(device) = DEVICE.get() else { return Report::default() };
    let executed = device.take_executed();
    let (problems, handled) = hip::take_problems();
    let mut report = Report {
        problems,
        handled,
        output: hip::take_output().lines().map(str::to_owned).collect(),
        ..Report::default()
    };
    for (mnemonic, count) in executed.instructions {
        report.instructions += count;
        if fidelity::is_modelled(device.processor(), mnemonic) {
            report.modelled.push(mnemonic);
        } else {
            report.exact += count;
        }
    }
    report.modelled.sort_unstable();
    report
}
