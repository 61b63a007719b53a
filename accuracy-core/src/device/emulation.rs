//! Whether a device's code is emulated in this process, and what the emulator has to say of a case.
//!
//! The emulator itself is `crate::emulator`, behind the feature `emulate`. To the rest of the device layer it is HIP's
//! runtime, with one device.

use crate::arch::Arch;
use crate::env::{self, EnvError};
#[cfg(feature = "emulate")]
use crate::record::Fidelity;
use crate::record::{Emulated, Finding, LastWriter};
use crate::trace::{Request, Traced};
#[cfg(feature = "emulate")]
use crate::trace::{Wanted, Written};
use std::collections::BTreeSet;
use std::ops::Range;

/// The device that is emulated, as [`super::gpu::Device`] has it: its name and its `gcnArchName`.
pub fn device(arch: Arch) -> (String, String) {
    (format!("emulated {arch}"), format!("{arch}:sramecc+:xnack-"))
}

/// Whether this process emulates devices: what [`env::EMULATE`] says.
///
/// # Errors
/// If the variable has a value that means nothing.
pub fn emulation() -> Result<bool, EnvError> {
    env::emulates(&|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

/// Runs `f`, a launcher's call. Where the device is emulated, the waves of each workgroup that it launches keep in step: all
/// of them execute a few instructions before any goes on.
///
/// Otherwise the emulator runs a wave as far as it can, to the next barrier, which shows where a barrier is missing. A
/// kernel that leaves one out because its waves run at the same speed on the device is right in step alone.
pub fn in_step<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(feature = "emulate")]
    return crate::emulator::with_order(crate::emulator::WaveOrder::InStep, f);
    #[cfg(not(feature = "emulate"))]
    f()
}

/// Runs `f`. Where the device is emulated, the waves of each workgroup take turns in the order opposite to the usual one,
/// but for those that [`in_step`] keeps in step.
pub(crate) fn in_opposite_order<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(feature = "emulate")]
    return crate::emulator::with_order(crate::emulator::WaveOrder::LastToFirst, f);
    #[cfg(not(feature = "emulate"))]
    f()
}

/// Runs `f`. Where the device is emulated, its launches are watched for more than what they compute: barriers, accesses
/// outside of the declared buffers, values that nobody wrote and, where they are asked for, races.
pub(crate) fn scrutinised<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(feature = "emulate")]
    return crate::emulator::scrutinised(f);
    #[cfg(not(feature = "emulate"))]
    f()
}

/// A declared buffer in the memory of the device.
#[derive(Debug)]
#[cfg_attr(not(feature = "emulate"), expect(dead_code, reason = "only the emulator names memory"))]
pub(crate) struct Named {
    pub name: String,
    pub address: usize,
    pub bytes: usize,
    /// Start and end of its allocation, with the bands around it.
    pub around: Range<usize>,
    /// `None` where the elements have an order of their own.
    pub runs: Option<Runs>,
    /// Bits of an element.
    pub bits: usize,
}

/// Elements in runs, one run behind the other: the rows of a buffer, or its columns.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "emulate"), expect(dead_code, reason = "only the emulator names memory"))]
pub(crate) struct Runs {
    pub count: usize,
    /// Elements of each run, and from one run to the next.
    pub elements: usize,
    pub stride: usize,
    /// Bits of an element.
    pub bits: usize,
    /// Whether a run is a column.
    pub transposed: bool,
}

/// Tells the emulator, if there is one, what a test calls a piece of memory.
pub(crate) fn declare(named: Named) {
    #[cfg(feature = "emulate")]
    {
        use crate::emulator::scrutiny::declared::{Declared, Rows};
        let Named { name, address, bytes, around, runs, bits } = named;
        let rows = runs.map(|Runs { count, elements, stride, bits, transposed }| Rows {
            runs: count as u64,
            bits: (elements * bits) as u64,
            stride: (stride * bits) as u64,
            element: bits as u64,
            transposed,
        });
        let around = (around.start as u64, around.end as u64);
        let (start, bytes) = (address as u64, bytes as u64);
        crate::emulator::declare(Declared { name, start, bytes, around, rows, element: bits as u64 });
    }
    #[cfg(not(feature = "emulate"))]
    drop(named);
}

/// Tells the emulator that what the framework put here is not to be read before a kernel writes it.
pub(crate) fn nobody_wrote(address: usize, bytes: usize) {
    #[cfg(feature = "emulate")]
    crate::emulator::nobody_wrote(address as u64, bytes as u64);
    #[cfg(not(feature = "emulate"))]
    let _ = (address, bytes);
}

/// Takes the name of an allocation back that starts here.
pub(crate) fn forget(start: usize) {
    #[cfg(feature = "emulate")]
    crate::emulator::forget(start as u64);
    #[cfg(not(feature = "emulate"))]
    let _ = start;
}

/// An element of a declared buffer of which is asked where it comes from.
#[cfg_attr(not(feature = "emulate"), expect(dead_code, reason = "only the emulator can tell"))]
pub(crate) struct Asked {
    pub buffer: String,
    pub offset: u64,
    pub bytes: u64,
}

/// Elements of a declared buffer, by the offsets of their bytes.
pub(crate) struct Taken {
    pub buffer: String,
    pub offsets: BTreeSet<u64>,
}

/// Where an element comes from.
pub(crate) struct Answer {
    pub writer: Option<LastWriter>,
    pub took: Vec<Taken>,
    pub steered_by: Vec<Taken>,
    pub not_followed: Vec<String>,
}

/// Says where elements come from that a run of a case leaves; `None` where nothing is emulated. `targets` are the buffers
/// that the hop writes, and `run` runs the case once and says whether it ended well; that happens a few times.
#[cfg(feature = "emulate")]
pub(crate) fn ask(
    targets: Vec<String>,
    elements: Vec<Asked>,
    run: impl FnMut() -> bool,
) -> Option<Vec<Answer>> {
    use crate::emulator::provenance::{self, Question};
    let asked = |Asked { buffer, offset, bytes }| provenance::Asked { buffer, offset, bytes };
    let question = Question { targets, elements: elements.into_iter().map(asked).collect() };
    let taken = |all: Vec<provenance::Taken>| -> Vec<Taken> {
        all.into_iter().map(|provenance::Taken { buffer, offsets }| Taken { buffer, offsets }).collect()
    };
    let writer = |of: provenance::Writer| {
        let (file, line) = of.line.unzip();
        let provenance::Writer { kernel, mnemonic, offset, launch, block, wave, lane, .. } = of;
        LastWriter { kernel, mnemonic, offset, file, line, launch, block, wave, lane }
    };
    let answers = crate::emulator::ask(&question, run)?;
    let answer = |of: provenance::Answer| Answer {
        writer: of.writer.map(writer),
        took: taken(of.took),
        steered_by: taken(of.through),
        not_followed: provenance::in_words(&of.not_followed),
    };
    Some(answers.into_iter().map(answer).collect())
}

/// As above.
#[cfg(not(feature = "emulate"))]
pub(crate) fn ask(_: Vec<String>, _: Vec<Asked>, _: impl FnMut() -> bool) -> Option<Vec<Answer>> {
    None
}

/// The wave that a trace shows where nobody names another: the one that did what is wrong.
#[cfg_attr(not(feature = "emulate"), expect(dead_code, reason = "only the emulator writes traces"))]
pub(crate) struct Focus {
    pub kernel: String,
    /// The launch among those of the run, counted from 0; the kernel's first one without it.
    pub launch: Option<u32>,
    pub block: [u32; 3],
    pub wave: u32,
    pub lane: Option<u32>,
    /// The instruction that the trace ends with.
    pub offset: u64,
    /// The element that it writes: buffer, row and column.
    pub element: Option<(String, u64, u64)>,
}

/// Writes the trace of a case; `run` runs the case once. `None` where nothing is emulated.
#[cfg(feature = "emulate")]
pub(crate) fn trace(request: &Request, focus: Option<Focus>, run: impl FnOnce()) -> Option<Traced> {
    use crate::emulator::trace::Trace;
    let traced = crate::emulator::trace_run(choice(&request.wanted, focus), run)?;
    let Trace { kernel, block, wave, instructions, left_out, text } = match traced {
        Ok(trace) => trace,
        Err(problem) => return Some(Traced::Impossible(problem.to_string())),
    };
    let file = request.to.clone();
    Some(match std::fs::write(&file, text) {
        Ok(()) => Traced::Written(Written { file, kernel, block, wave, instructions, left_out }),
        Err(error) => Traced::Impossible(format!("{} cannot be written: {error}", file.display())),
    })
}

/// As above.
#[cfg(not(feature = "emulate"))]
pub(crate) fn trace(_: &Request, _: Option<Focus>, _: impl FnOnce()) -> Option<Traced> {
    None
}

/// What is wanted, and what the case shows where nothing is said.
#[cfg(feature = "emulate")]
fn choice(wanted: &Wanted, focus: Option<Focus>) -> crate::emulator::trace::Choice {
    use crate::emulator::trace::{Choice, Until, Which};
    use crate::trace::{Lane, Place};
    let named = |focus: &Focus| wanted.kernel.as_ref().is_none_or(|name| is_called(&focus.kernel, name));
    // Who names another wave wants to see that one from its first instruction on.
    let focus = focus.filter(named).filter(|focus| {
        wanted.launch.is_none()
            && wanted.block.is_none_or(|Place(block)| block == focus.block)
            && wanted.wave.is_none_or(|wave| wave == focus.wave)
    });
    let launch = match (wanted.launch, focus.as_ref().and_then(|focus| focus.launch)) {
        (Some(nth), _) => Which::Nth(nth),
        (None, Some(number)) => Which::OfRun(number.into()),
        (None, None) => Which::Nth(1),
    };
    let lane = focus.as_ref().and_then(|focus| focus.lane).unwrap_or(0);
    Choice {
        kernel: wanted.kernel.clone().or_else(|| focus.as_ref().map(|focus| focus.kernel.clone())),
        launch,
        block: wanted.block.map_or_else(|| focus.as_ref().map_or([0; 3], |f| f.block), |Place(block)| block),
        wave: wanted.wave.or(focus.as_ref().map(|focus| focus.wave)).unwrap_or(0),
        lanes: wanted.lane.unwrap_or(Lane::One(lane as u8)),
        range: wanted.range.clone(),
        most: wanted.most.clamp(1, crate::trace::MOST),
        until: focus.map(|focus| Until { offset: focus.offset, element: focus.element }),
    }
}

/// Whether a part of a kernel's name, as the code object or the source has it, is this.
#[cfg(feature = "emulate")]
fn is_called(kernel: &str, name: &str) -> bool {
    kernel.contains(name) || crate::symbol::readable(kernel).contains(name)
}

/// The emulator's report on everything that ran since it was asked last.
#[derive(Debug, Default)]
pub struct Told {
    /// Why a kernel could not run to its end, or a call of HIP was refused: whatever came after it is worth nothing.
    pub problems: Vec<String>,
    /// Calls that HIP refused, and whose error the launcher has read since. They explain a launcher that fails.
    pub handled: Vec<String>,
    pub emulated: Emulated,
    pub findings: Vec<Finding>,
}

/// Takes what the emulator has to say; `None` where there is none.
pub fn take() -> Option<Told> {
    #[cfg(feature = "emulate")]
    {
        let report = crate::emulator::take_report();
        let modelled = report.modelled.iter().map(ToString::to_string).collect();
        let fidelity = Fidelity { exact: report.exact, modelled, instructions: report.instructions };
        Some(Told {
            problems: report.problems.iter().map(ToString::to_string).collect(),
            handled: report.handled.iter().map(ToString::to_string).collect(),
            emulated: Emulated { fidelity, output: report.output },
            findings: report.findings,
        })
    }
    #[cfg(not(feature = "emulate"))]
    None
}
