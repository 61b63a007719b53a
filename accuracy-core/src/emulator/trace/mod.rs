//! Keeps the instructions that one wave of one launch executes, with its registers before and after each, as text.
//!
//! The launches of a case run once more for it; all but the chosen one run as they always do. Memory is bounded by the number
//! of instructions that are kept: the first ones, or the last ones before an element was written.

mod text;
mod values;

use super::isa::{Encoding, Inst};
use super::loader::{Kernel, Module};
use super::scrutiny::declared::Declared;
use super::scrutiny::{Does, Place};
use super::wave::{LANES, Wave};
use super::workgroup::Stop;
use crate::trace::{Lane, Range};
use std::collections::{BTreeMap, HashSet, VecDeque};
use values::Value;

/// The wave whose instructions are kept, and how many of them.
#[derive(Clone, Debug)]
pub struct Choice {
    /// A kernel's name, or a part of it; any kernel without it.
    pub kernel: Option<String>,
    pub launch: Which,
    pub block: [u32; 3],
    pub wave: u32,
    pub lanes: Lane,
    pub range: Option<Range>,
    pub most: usize,
    /// Keeps the last instructions up to this one, in place of the first ones.
    pub until: Option<Until>,
}

/// The launch that is chosen among those of fitting kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Counted from 1, among the launches of kernels that fit.
    Nth(u64),
    /// Counted from 0, among all launches of the run.
    OfRun(u64),
}

/// An instruction that writes an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// Bytes from the start of the kernel's code.
    pub offset: u64,
    /// A declared buffer, row and column. Without them, any execution of the instruction counts.
    pub element: Option<(String, u64, u64)>,
}

/// Why there is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the run launched no kernel on the emulated device")]
    NoLaunch,
    #[error("no kernel was launched whose name contains `{wanted}`; launched were {launched}")]
    NotLaunched { wanted: String, launched: String },
    #[error("launch {wanted} was asked for, and there were {times}: {launched}")]
    Launch { wanted: u64, times: u64, launched: String },
    #[error(
        "workgroup {wanted:?} was asked for, and `{kernel}` was launched with {blocks:?} workgroups: each number is \
         counted from 0"
    )]
    Block { kernel: String, wanted: [u32; 3], blocks: [u32; 3] },
    #[error(
        "wave {wanted} was asked for, and a workgroup of `{kernel}` has {waves}, for {threads:?} threads: they are counted \
         from 0"
    )]
    Wave { kernel: String, wanted: u32, waves: u32, threads: [u32; 3] },
    #[error(
        "the wave executed no instruction in {range}: it executed {executed} instructions of `{kernel}`, at offsets \
         {lowest:#x} to {highest:#x}"
    )]
    Range { kernel: String, range: String, executed: u64, lowest: u64, highest: u64 },
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub kernel: String,
    pub block: [u32; 3],
    pub wave: u32,
    /// Instructions in the text, and those of the wave in the range that are not.
    pub instructions: u64,
    pub left_out: u64,
    pub text: String,
}

/// A launch that is about to begin.
#[derive(Clone, Copy)]
pub struct Launching<'a> {
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    /// The kernel's name as the source has it.
    pub readable: &'a str,
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub declared: &'a [Declared],
}

/// Bytes that an instruction accesses.
#[derive(Clone, Copy, Debug)]
struct Access {
    to: To,
    bytes: u32,
    lane: u8,
    does: Does,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Place(Place),
    /// The lane's own memory.
    Private,
    /// Outside of the range of a buffer resource, where a load gives zero.
    Clamped,
}

/// An instruction that the wave has executed, or is executing.
struct Entry {
    at: u64,
    exec: u64,
    before: Vec<Value>,
    after: Vec<Value>,
    accesses: Vec<Access>,
    /// The scalar registers before it, until it has ended.
    scalars: Option<Box<([u32; 128], bool)>>,
    /// Names of further scalar registers that it has changed, with their values before and after.
    changed: Vec<(&'static str, u64, u64)>,
    /// The condition of a branch, and its value.
    condition: Option<(&'static str, u64)>,
    /// Where the wave went on.
    next: Option<u64>,
    /// Why the wave ended here.
    stopped: Option<String>,
}

/// Watches the launches of one run for the chosen wave.
pub struct Tracer {
    choice: Choice,
    /// Launches of the run so far, and those whose kernels fit.
    launches: u64,
    fitting: u64,
    launched: BTreeMap<String, u64>,
    declared: Vec<Declared>,
    /// Whether the launch that runs is the chosen one.
    chosen: bool,
    /// Addresses of the instructions in the range; `None` for all of them.
    range: Option<HashSet<u64>>,
    entry: u64,
    /// Whether the wave that is executing an instruction is the chosen one.
    active: bool,
    open: Option<Entry>,
    kept: VecDeque<Entry>,
    /// Instructions behind the last one that wrote the element.
    since: VecDeque<Entry>,
    /// Instructions of the wave in the range, and in all, with the lowest and highest of their offsets.
    in_range: u64,
    executed: u64,
    offsets: (u64, u64),
    found: Option<Result<Trace, Problem>>,
}

impl Tracer {
    pub fn new(choice: Choice) -> Tracer {
        Tracer {
            choice,
            launches: 0,
            fitting: 0,
            launched: BTreeMap::new(),
            declared: Vec::new(),
            chosen: false,
            range: None,
            entry: 0,
            active: false,
            open: None,
            kept: VecDeque::new(),
            since: VecDeque::new(),
            in_range: 0,
            executed: 0,
            offsets: (u64::MAX, 0),
            found: None,
        }
    }

    /// A launch is about to begin: says whether it is the chosen one, which then has to run with this tracer.
    pub fn begin_launch(&mut self, launching: &Launching<'_>) -> bool {
        let Launching { module, kernel, readable, blocks, threads, declared } = *launching;
        let number = self.launches;
        self.launches += 1;
        *self.launched.entry(readable.to_owned()).or_default() += 1;
        let name = &kernel.described.name;
        let fits = |part: &String| name.contains(part.as_str()) || readable.contains(part.as_str());
        if !self.choice.kernel.as_ref().is_none_or(fits) {
            return false;
        }
        self.fitting += 1;
        let chosen = match self.choice.launch {
            Which::Nth(n) => self.fitting == n,
            Which::OfRun(n) => number == n,
        };
        if !chosen || self.found.is_some() {
            return false;
        }
        if let Some(problem) = outside(&self.choice, readable, blocks, threads) {
            self.found = Some(Err(problem));
            return false;
        }
        self.declared = declared.to_vec();
        self.entry = kernel.entry;
        self.range = self.choice.range.as_ref().map(|range| addresses(range, module, kernel));
        self.chosen = true;
        true
    }

    /// The chosen launch has ended; `stop` says where and why, if it did not end well.
    pub fn end_launch(&mut self, launching: &Launching<'_>, stop: Option<&Stop>) {
        if !self.chosen {
            return;
        }
        (self.chosen, self.active) = (false, false);
        if let Some(mut open) = self.open.take() {
            open.stopped = stop.filter(|stop| stop.pc == open.at).map(|stop| stop.fault.to_string());
            self.keep(open);
        }
        if self.choice.until.is_some() && self.kept.is_empty() {
            self.kept = std::mem::take(&mut self.since);
        }
        let (kernel, (lowest, highest)) = (launching.readable.to_owned(), self.offsets);
        self.found = Some(match &self.choice.range {
            Some(range) if self.in_range == 0 => Err(Problem::Range {
                kernel,
                range: range.to_string(),
                executed: self.executed,
                lowest: lowest.min(highest),
                highest,
            }),
            _ => Ok(Trace {
                kernel,
                block: self.choice.block,
                wave: self.choice.wave,
                instructions: self.kept.len() as u64,
                left_out: self.in_range - self.kept.len() as u64,
                text: text::write(self, launching),
            }),
        });
    }

    /// The trace, or why there is none, once the run has ended.
    pub fn into_found(self) -> Result<Trace, Problem> {
        if let Some(found) = self.found {
            return found;
        }
        let names = self.launched.iter().map(|(name, times)| match times {
            1 => format!("`{name}`"),
            times => format!("`{name}` ({times} times)"),
        });
        let launched = names.collect::<Vec<_>>().join(", ");
        Err(match (self.choice.kernel, self.choice.launch) {
            _ if launched.is_empty() => Problem::NoLaunch,
            (Some(wanted), _) if self.fitting == 0 => Problem::NotLaunched { wanted, launched },
            (_, Which::Nth(wanted)) => Problem::Launch { wanted, times: self.fitting, launched },
            (_, Which::OfRun(number)) => {
                Problem::Launch { wanted: number + 1, times: self.launches, launched }
            }
        })
    }

    /// A wave is about to execute an instruction.
    pub fn begin(&mut self, wave: &Wave, inst: &Inst, at: u64) {
        self.active = wave.index == self.choice.wave && wave.group.id == self.choice.block;
        if !self.active {
            return;
        }
        if let Some(mut before) = self.open.take() {
            // It went elsewhere, or waited, so that its end was not told.
            before.next = Some(at);
            before.end(wave, None, self.choice.lanes);
            self.keep(before);
        }
        let offset = at.wrapping_sub(self.entry);
        self.executed += 1;
        self.offsets = (self.offsets.0.min(offset), self.offsets.1.max(offset));
        if self.range.as_ref().is_some_and(|range| !range.contains(&at)) {
            return;
        }
        self.in_range += 1;
        if self.choice.until.is_some() || self.kept.len() < self.choice.most {
            self.open = Some(Entry::begin(wave, inst, at, self.choice.lanes));
        }
    }

    /// The instruction accesses memory.
    pub fn access(&mut self, place: Place, bytes: u32, lane: u8, does: Does) {
        self.note(Access { to: To::Place(place), bytes, lane, does });
    }

    /// The instruction accesses the private memory of a lane.
    pub fn private(&mut self, bytes: u32, lane: u8, does: Does) {
        self.note(Access { to: To::Private, bytes, lane, does });
    }

    /// A lane loads outside of its buffer resource.
    pub fn clamped(&mut self, lane: u8) {
        self.note(Access { to: To::Clamped, bytes: 0, lane, does: Does::Reads });
    }

    fn note(&mut self, access: Access) {
        if let Some(open) = self.open.as_mut().filter(|_| self.active) {
            open.accesses.push(access);
        }
    }

    /// The instruction was executed, and the next one follows.
    pub fn end(&mut self, wave: &Wave, inst: &Inst) {
        if let Some(mut open) = self.open.take_if(|_| self.active) {
            open.end(wave, Some(inst), self.choice.lanes);
            self.keep(open);
        }
    }

    fn keep(&mut self, entry: Entry) {
        let Some(until) = &self.choice.until else { return self.kept.push_back(entry) };
        let ends = entry.at.wrapping_sub(self.entry) == until.offset && self.writes(&entry, until);
        self.since.push_back(entry);
        if ends {
            self.kept.append(&mut self.since);
        }
        for all in [&mut self.kept, &mut self.since] {
            while all.len() > self.choice.most {
                all.pop_front();
            }
        }
    }

    /// Whether an instruction writes the element, as far as the order of the buffer's elements is known.
    fn writes(&self, entry: &Entry, until: &Until) -> bool {
        let Some((name, row, column)) = &until.element else { return true };
        let known = self.declared.iter().find(|buffer| buffer.name == *name && buffer.rows.is_some());
        let Some(buffer) = known else { return true };
        entry.accesses.iter().any(|access| match access.to {
            To::Place(Place::Global(address)) => (address..address + u64::from(access.bytes.max(1)))
                .any(|byte| buffer.element(byte) == Some((*row, *column))),
            _ => false,
        })
    }
}

/// What is wrong with a choice, for a launch of this size.
fn outside(choice: &Choice, kernel: &str, blocks: [u32; 3], threads: [u32; 3]) -> Option<Problem> {
    let kernel = kernel.to_owned();
    if choice.block.iter().zip(blocks).any(|(wanted, blocks)| *wanted >= blocks) {
        return Some(Problem::Block { kernel, wanted: choice.block, blocks });
    }
    let count: u64 = threads.iter().map(|n| u64::from(*n)).product();
    let waves = count.div_ceil(LANES as u64) as u32;
    (choice.wave >= waves).then_some(Problem::Wave { kernel, wanted: choice.wave, waves, threads })
}

/// Addresses of the instructions in a range.
fn addresses(range: &Range, module: &Module, kernel: &Kernel) -> HashSet<u64> {
    let is_in = |at: u64| match range {
        Range::Offsets { first, last } => (*first..=*last).contains(&at.wrapping_sub(kernel.entry)),
        Range::Lines { file, first, last } => module
            .line(at)
            .is_some_and(|(of, line)| of.ends_with(file.as_str()) && (*first..=*last).contains(&line)),
    };
    module.code().map(|(_, at, _)| at).filter(|at| is_in(*at)).collect()
}

impl Entry {
    fn begin(wave: &Wave, inst: &Inst, at: u64, lanes: Lane) -> Entry {
        let condition = inst.row.mnemonic.strip_prefix("s_cbranch_").and_then(|condition| {
            let exec = (condition.starts_with("exec"), "exec", wave.exec());
            let vcc = (condition.starts_with("vcc"), "vcc", wave.vcc());
            let scc = (condition.starts_with("scc"), "scc", u64::from(wave.scc));
            [exec, vcc, scc].into_iter().find(|(is, ..)| *is).map(|(_, name, value)| (name, value))
        });
        Entry {
            at,
            exec: wave.exec(),
            before: values::read(wave, inst, false, lanes),
            after: Vec::new(),
            accesses: Vec::new(),
            scalars: Some(Box::new((wave.s, wave.scc))),
            changed: Vec::new(),
            condition,
            next: None,
            stopped: None,
        }
    }

    /// Takes notice of the registers as they are afterwards. Without the instruction, only of those that it does not name.
    fn end(&mut self, wave: &Wave, inst: Option<&Inst>, lanes: Lane) {
        if let Some(inst) = inst {
            self.after = values::read(wave, inst, true, lanes);
        }
        let Some(scalars) = self.scalars.take() else { return };
        let (before, scc) = *scalars;
        let pair = |s: &[u32; 128], at: usize| u64::from(s[at + 1]) << 32 | u64::from(s[at]);
        let named = |name: &str| self.after.iter().any(|value| value.is_named(name));
        let all = [
            ("exec", pair(&before, 126), pair(&wave.s, 126)),
            ("vcc", pair(&before, 106), pair(&wave.s, 106)),
            ("m0", u64::from(before[124]), u64::from(wave.s[124])),
            ("scc", u64::from(scc), u64::from(wave.scc)),
        ];
        self.changed = all.into_iter().filter(|(name, was, is)| was != is && !named(name)).collect();
    }
}

/// Whether an instruction is a branch that may not be taken.
fn is_conditional(inst: &Inst) -> bool {
    inst.encoding == Encoding::Sopp && inst.row.mnemonic.starts_with("s_cbranch_")
}
