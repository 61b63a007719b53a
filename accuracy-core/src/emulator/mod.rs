//! Executes the machine code of AMD's CDNA3 (gfx942) and CDNA4 (gfx950) on this machine's processor.
//!
//! The floors, each of which knows only those before it:
//!
//! | floor | what lives there |
//! | --- | --- |
//! | [`processor`] | the processors whose code can be executed |
//! | [`isa`] | the table of instructions; machine code to [`isa::Inst`]; an instruction as text |
//! | [`memory`] | the address space of a launch: which addresses a kernel may touch; LDS and scratch |
//! | [`wave`] | the registers of one wave, and what executing an instruction can lead to |
//! | [`exec`] | one function for each instruction |
//! | [`workgroup`] | waves that share LDS and barriers |
//! | [`loader`] | a code object in memory, with its kernels and variables |
//! | [`launch`] | a grid of workgroups, spread over threads |
//! | [`engine`] | the emulated device: memory, loaded code objects, what was executed |
//! | [`hip`] | the stand-in for AMD's runtime, which a kernel library's launchers call |

pub mod engine;
pub mod exec;
pub mod fidelity;
mod float_control;
pub mod hip;
pub mod isa;
pub mod launch;
pub mod lines;
pub mod loader;
pub mod memory;
pub mod processor;
pub mod wave;
pub mod workgroup;

use crate::arch::Arch;
use engine::Device;
use processor::Processor;
use std::sync::{Arc, OnceLock};

/// Why no device can be emulated.
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
static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();

/// Makes an emulated device the only one that HIP's runtime has in this process. `workers` threads of this machine run its
/// kernels.
///
/// # Errors
/// If the architecture is none that can be emulated, another one is emulated already, or a HIP runtime is loaded.
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

/// What happened on the emulated device since it was asked last.
#[derive(Debug, Default)]
pub struct Report {
    /// What a launcher or a kernel did that it must not, or that is not emulated: what came after it is worth nothing.
    pub problems: Vec<hip::Problem>,
    /// What kernels printed, a line each.
    pub output: Vec<String>,
    /// Wave instructions that were executed, and how many of them as AMD documents them bit for bit.
    pub instructions: u64,
    pub exact: u64,
    /// The mnemonics of the others, sorted.
    pub modelled: Vec<&'static str>,
}

/// Takes what happened on the emulated device; empty where none is installed.
pub fn take_report() -> Report {
    let Some(device) = DEVICE.get() else { return Report::default() };
    let executed = device.take_executed();
    let mut report = Report {
        problems: hip::take_problems(),
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
