//! What was seen on the emulated device, in words, with the names that the test and the source have for it.

use super::executed::Unawaited;
use super::hazards::Hazard;
use super::isa::errata::Erratum;
use super::loader::{Kernel, Module};
use super::scrutiny::barriers::Wrong;
use super::scrutiny::declared::{self, Declared, Outside};
use super::scrutiny::races::Race;
use super::scrutiny::{Does, Sighting, Source, What};
use super::wave::Fault;
use super::workgroup::Stop;
use crate::record::{Finding, FindingKind, Severity};

/// A kernel, and the buffers that are declared where it runs.
pub struct Scene<'a> {
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    pub declared: &'a [Declared],
    /// Whether the test says that the waves of a workgroup keep in step, which orders them.
    pub in_step: bool,
}

/// An access this many bytes from a buffer may have been meant for it; a null pointer is further off.
const NEAR: u64 = 64 << 20;

impl Scene<'_> {
    fn mnemonic(&self, at: u64) -> &'static str {
        self.module.instruction(at).map_or("?", |inst| inst.row.mnemonic)
    }

    /// An instruction: "ds_read_b32 at offset 0x1a4 (gemm.hip:42)".
    fn instruction(&self, at: u64) -> String {
        let offset = at.wrapping_sub(self.kernel.entry);
        let line = self.module.line(at).map_or(String::new(), |(file, line)| format!(" ({file}:{line})"));
        format!("{} at offset {offset:#x}{line}", self.mnemonic(at))
    }

    fn finding(&self, kind: FindingKind, severity: Severity, at: u64, detail: String) -> Finding {
        let (file, line) = self.module.line(at).unzip();
        Finding {
            kind,
            severity,
            kernel: self.kernel.described.name.clone(),
            mnemonic: self.mnemonic(at).into(),
            offset: at.wrapping_sub(self.kernel.entry),
            file,
            line,
            block: None,
            wave: None,
            lane: None,
            buffer: None,
            row: None,
            column: None,
            detail,
        }
    }

    /// What is said of a register that was used before its load was waited for.
    pub fn missing_wait(&self, at: u64, unawaited: &Unawaited) -> Finding {
        let Unawaited { missing, workgroup, wave } = unawaited;
        let detail = format!(
            "{missing}, which the {} at offset {:#x} has yet to write: no s_waitcnt between the two waits for it",
            self.mnemonic(missing.load),
            missing.load.wrapping_sub(self.kernel.entry),
        );
        let (block, wave) = (Some(*workgroup), Some(*wave));
        Finding { block, wave, ..self.finding(FindingKind::MissingWait, Severity::Error, at, detail) }
    }

    /// Words about an instruction that is too close to the one whose result it uses.
    pub fn hazard(&self, at: u64, hazard: &Hazard) -> Finding {
        let detail = hazard.words(&self.instruction(hazard.first.0));
        let severity = if hazard.is_harmless() { Severity::Note } else { Severity::Error };
        self.finding(FindingKind::MissingWait, severity, at, detail)
    }

    /// What is said of an instruction that meets a fault of the hardware, which the emulator does not have.
    pub fn erratum(&self, at: u64, erratum: &Erratum) -> Finding {
        let detail = format!(
            "on {} the instruction {} ({}); the compiler does not make it with {} ({})",
            self.module.processor.name(),
            erratum.effect,
            erratum.name,
            erratum.avoided_by,
            erratum.source
        );
        self.finding(FindingKind::Erratum, Severity::Note, at, detail)
    }

    /// What is said of something else that was seen.
    pub fn seen(&self, at: u64, sighting: &Sighting) -> Finding {
        let Sighting { what, workgroup, wave, lane, address } = sighting;
        let named = address.and_then(|address| Some((address, declared::find(self.declared, address)?)));
        let element = named.and_then(|(address, buffer)| buffer.element(address)).unzip();
        let (kind, severity, detail) = self.words(what, *workgroup);
        Finding {
            block: Some(*workgroup),
            wave: Some(*wave),
            lane: lane.map(u32::from),
            buffer: named.map(|(_, buffer)| buffer.name.clone()),
            row: element.0,
            column: element.1,
            ..self.finding(kind, severity, at, detail)
        }
    }

    /// What is said of an access outside of all memory, at which the launch ended; `None` where it ended for another reason.
    pub fn stopped(&self, stop: &Stop) -> Option<Finding> {
        let Fault::Memory { lane, address, .. } = &stop.fault else { return None };
        let distance = |buffer: &Declared| {
            let (start, end) = buffer.around;
            start.saturating_sub(*address).max(address.saturating_sub(end))
        };
        let nearest = self.declared.iter().min_by_key(|buffer| distance(buffer));
        let nearest = nearest.filter(|buffer| distance(buffer) <= NEAR);
        Some(Finding {
            block: Some(stop.workgroup),
            wave: Some(stop.wave),
            lane: Some(u32::from(*lane)),
            buffer: nearest.map(|buffer| buffer.name.clone()),
            ..self.finding(FindingKind::OutOfBounds, Severity::Error, stop.pc, stop.fault.to_string())
        })
    }

    fn words(&self, what: &What, workgroup: [u32; 3]) -> (FindingKind, Severity, String) {
        use Severity::{Error, Note};
        match what {
            What::Race(race) => {
                let severity = if self.in_step && race.other_workgroup == workgroup { Note } else { Error };
                (FindingKind::Race, severity, self.race(race, workgroup))
            }
            What::Uninitialised { source, address } => {
                let source = match source {
                    Some(Source::Lds) => "LDS that nobody wrote",
                    Some(Source::Registers) => "a register that nobody wrote",
                    Some(Source::Scratch) => "scratch memory that nobody wrote",
                    Some(Source::Memory) => "memory that nobody wrote",
                    None => "registers, LDS or memory that nobody wrote",
                };
                let detail = match address {
                    false => format!(
                        "what it writes depends on {source}: with other contents it writes other bytes"
                    ),
                    true => format!(
                        "its address depends on {source}: with other contents it is outside of all memory"
                    ),
                };
                (FindingKind::Uninitialised, Error, detail)
            }
            What::Barrier(Wrong::WentRound { wave, behind }) => {
                let behind = self.instruction(*behind);
                let detail = format!(
                    "wave {wave} of the workgroup ended without coming to this barrier, and has executed code that the \
                     others execute behind it: {behind}"
                );
                (FindingKind::Barrier, Error, detail)
            }
            What::Barrier(Wrong::Elsewhere { wave, other }) => {
                let other = self.instruction(*other);
                let detail = format!("wave {wave} waits at another barrier at the same time: {other}");
                (FindingKind::Barrier, Note, detail)
            }
            What::Barrier(Wrong::Lanes { lane, behind }) => {
                let behind = self.instruction(*behind);
                let detail = format!(
                    "lane {lane} is off at this barrier and goes on afterwards ({behind}): the barrier stands in code that \
                     only some threads of a wave execute"
                );
                (FindingKind::Divergence, Error, detail)
            }
            What::Clamped => {
                let detail =
                    "loads outside of the range that its buffer resource has, and gets zero".to_owned();
                (FindingKind::OutOfBounds, Note, detail)
            }
            What::OutOfBounds { outside, does, bytes } => {
                let place = match outside {
                    Outside::Before { name, distance, .. } => {
                        format!("{distance} bytes before `{name}` begins")
                    }
                    Outside::Behind { name, distance, .. } => {
                        format!("{distance} bytes behind the end of `{name}`")
                    }
                    Outside::Padding { name, run, distance, transposed } => {
                        let run = if *transposed { format!("column {run}") } else { format!("row {run}") };
                        format!("{distance} bytes behind the end of {run} of `{name}`, in the padding")
                    }
                };
                // Where a vector reaches over an end, what it reads there may be masked afterwards. If it counts, the case's
                // runs differ, for the bytes there do.
                let severity = if *does == Does::Reads && outside.may_be_masked() { Note } else { Error };
                (FindingKind::OutOfBounds, severity, format!("{} {bytes} bytes, {place}", verb(*does)))
            }
        }
    }

    fn race(&self, race: &Race, workgroup: [u32; 3]) -> String {
        let Race { other, other_workgroup, other_wave, other_writes, does, lds, transfer } = race;
        let place = lds.map_or("memory".into(), |offset| format!("LDS (offset {offset:#x})"));
        let who = match *other_workgroup == workgroup {
            true => format!("wave {other_wave} of the same workgroup"),
            false => {
                let [x, y, z] = other_workgroup;
                format!("wave {other_wave} of workgroup ({x}, {y}, {z})")
            }
        };
        let lacks = match (transfer, *other_workgroup == workgroup) {
            (true, _) => {
                "that wave does not wait for its transfer (s_waitcnt vmcnt(0)) before a barrier between the two"
            }
            (false, true) => {
                "no barrier orders the two: there is none, or that wave does not wait for its access (s_waitcnt) before it"
            }
            (false, false) => {
                "nothing orders workgroups but an atomic behind s_waitcnt, and a launch of its own"
            }
        };
        let other_does = if *other_writes { "writes" } else { "reads" };
        format!("{} {place} that {who} {other_does} in {}: {lacks}", verb(*does), self.instruction(*other))
    }
}

fn verb(does: Does) -> &'static str {
    match does {
        Does::Reads => "reads",
        Does::Writes => "writes",
        Does::Changes => "changes",
    }
}
