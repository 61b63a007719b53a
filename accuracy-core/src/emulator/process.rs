//! The one device that a process emulates, and what happened on it.

use super::engine::Device;
use super::processor::Processor;
use super::provenance::{self, Answer, Question};
use super::scrutiny::declared::Declared;
use super::trace::{Choice, Problem, Trace, Tracer};
use super::{fidelity, hip};
use crate::arch::Arch;
use crate::record::Finding;
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

/// Says where elements come from that a case leaves. `run` runs the case, and says whether it ended well.
pub fn ask(question: &Question, mut run: impl FnMut() -> bool) -> Option<Vec<Answer>> {
    let device = DEVICE.get()?;
    provenance::ask(question, |tracking| {
        device.follow(Some(tracking));
        let ended_well = run();
        device.follow(None).filter(|_| ended_well)
    })
}

/// Keeps the instructions of a wave that a run of a case executes; `None` where nothing is emulated.
pub fn trace_run(choice: Choice, run: impl FnOnce()) -> Option<Result<Trace, Problem>> {
    let device = DEVICE.get()?;
    device.trace(Some(Box::new(Tracer::new(choice))));
    run();
    device.trace(None).map(|tracer| tracer.into_found())
}

/// Gives a piece of the device's memory the name that a test has for it.
pub fn declare(declared: Declared) {
    if let Some(device) = DEVICE.get() {
        device.declare(declared);
    }
}

/// What the framework put into this memory is not to be read by a kernel before somebody writes it.
pub fn nobody_wrote(address: u64, bytes: u64) {
    if let Some(device) = DEVICE.get() {
        device.nobody_wrote(address, bytes);
    }
}

/// The buffer whose allocation starts here is freed.
pub fn forget(start: u64) {
    if let Some(device) = DEVICE.get() {
        device.forget(start);
    }
}

/// Looks for races in launches that are scrutinised.
pub fn look_for_races(look: bool) {
    if let Some(device) = DEVICE.get() {
        device.look_for_races(look);
    }
}

/// What happened on the emulated device since it was asked last.
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
    /// The mistakes that kernels were seen to make.
    pub findings: Vec<Finding>,
}

/// Takes what happened on the emulated device; empty where none is installed.
pub fn take_report() -> Report {
    let Some(device) = DEVICE.get() else { return Report::default() };
    let executed = device.take_executed();
    let (problems, handled) = hip::take_problems();
    let mut report = Report {
        problems,
        handled,
        output: hip::take_output().lines().map(str::to_owned).collect(),
        findings: device.take_findings(),
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
