//! Where an element comes from: who wrote it last, and which elements of which declared buffers flowed into it.
//!
//! The launches of a case run once more. Every register, every byte of LDS and scratch, and every byte of memory that kernels
//! write has a set of bytes of declared buffers (`sets`) beside it, and each instruction says what it makes of them
//! (`rules` for registers, `memory` for accesses). Only the workgroups from which something flows into the elements that are
//! asked about are followed; a first run finds those that write them, and later ones those that wrote what these have read.
//!
//! Values are followed, and what decides which value is taken, which is kept apart from values: an index in an address, the
//! condition of a selection, and the condition of a branch or of a lane that is on (`branches`). Only a store that a lane leaves
//! out because of a value leaves no trace: an element that another instruction wrote before does not name that value.

mod branches;
mod memory;
mod registers;
mod rules;
mod sets;

use super::isa::{Encoding, Inst};
use super::loader::Module;
use super::scrutiny::declared::Declared;
use super::scrutiny::{Does, Place, Who};
use super::wave::{LANES, Wave, register};
use branches::Branches;
use memory::{Access, Pages};
use registers::Registers;
use rules::Step;
use sets::{EMPTY, Id, MOST_BYTES, Sets};
pub use sets::{Lost, in_words};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The elements of declared buffers whose origin a run of a case is to find.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The declared buffers that the hop writes: what a kernel of the run has written there is no input.
    pub targets: Vec<String>,
    pub elements: Vec<Asked>,
}

/// An element: bytes of a declared buffer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub buffer: String,
    pub offset: u64,
    pub bytes: u64,
}

/// The instruction that wrote an element last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub kernel: String,
    pub mnemonic: String,
    /// Bytes from the start of the kernel's code.
    pub offset: u64,
    pub line: Option<(String, u32)>,
    /// The launch among those of the run, counted from 0.
    pub launch: u32,
    pub block: [u32; 3],
    pub wave: u32,
    pub lane: u32,
    /// Launch and number of its workgroup.
    part: Part,
}

/// Bytes of a declared buffer, by the offsets of the elements that they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub buffer: String,
    pub offsets: BTreeSet<u64>,
}

/// Where an element comes from.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// None where no kernel wrote it.
    pub writer: Option<Writer>,
    /// What flowed into it.
    pub took: Vec<Taken>,
    /// What only decided which values did.
    pub through: Vec<Taken>,
    /// What is not known.
    pub not_followed: BTreeSet<Lost>,
}

/// Numbers of scalar registers begin here, see [`crate::emulator::isa::uses`].
const SCALARS: usize = 512;

/// A workgroup of a launch of the run.
type Part = (u32, u32);

/// A declared buffer that lies in memory while a kernel runs.
struct Lies {
    around: (u64, u64),
    start: u64,
    end: u64,
    /// Bytes of an element, at least one.
    element: u64,
    /// The number of its first byte in sets.
    first: u64,
    target: bool,
}

/// A declared buffer that was seen in this run.
struct Named {
    name: String,
    start: u64,
    first: u64,
    bytes: u64,
    element: u64,
}

/// The last write of a byte that is asked about, in the launch that runs.
#[derive(Clone, Copy)]
struct Wrote {
    who: Who,
    at: u64,
    lane: u8,
}

/// The instruction that is being executed.
#[derive(Clone, Copy)]
struct Current {
    who: Who,
    at: u64,
    exec: u64,
    /// Whether its workgroup is followed.
    followed: bool,
}

/// One run of a case that is followed.
pub struct Tracking {
    question: Question,
    followed: HashSet<Part>,
    /// Workgroups that write what is asked about, or wrote what those that are followed read.
    needed: BTreeSet<Part>,
    launch: u32,
    named: Vec<Named>,
    next: u64,
    lies: Vec<Lies>,
    asked: BTreeMap<u64, usize>,
    fresh: BTreeMap<u64, Wrote>,
    writers: BTreeMap<u64, Writer>,
    sets: Sets,
    pages: Pages,
    lds: HashMap<u32, Vec<Id>>,
    waves: HashMap<(u32, u32), Box<Registers>>,
    /// The wave whose registers are at hand.
    active: ((u32, u32), Box<Registers>),
    current: Option<Current>,
    accesses: Vec<Access>,
    /// Sets of what workgroups left by atomics that are not followed, until somebody reads them.
    changed: HashSet<Id>,
    /// Bytes of declared buffers that have no number any more.
    too_many: bool,
    /// The branches of the module that runs, by the address of its first kernel.
    branches: Option<(u64, Branches)>,
    /// Conditions of branches that decided whether memory was written, by workgroup.
    decided: HashMap<Part, Id>,
}

impl Tracking {
    fn new(question: Question, followed: HashSet<Part>) -> Tracking {
        Tracking {
            question,
            followed,
            needed: BTreeSet::new(),
            launch: 0,
            named: Vec::new(),
            next: 0,
            lies: Vec::new(),
            asked: BTreeMap::new(),
            fresh: BTreeMap::new(),
            writers: BTreeMap::new(),
            sets: Sets::default(),
            pages: Pages::default(),
            lds: HashMap::new(),
            waves: HashMap::new(),
            active: ((u32::MAX, 0), Box::default()),
            current: None,
            accesses: Vec::new(),
            changed: HashSet::new(),
            too_many: false,
            branches: None,
            decided: HashMap::new(),
        }
    }

    /// A launch of a kernel of this module is about to begin, where these buffers are declared, in the order of their addresses.
    pub fn begin_launch(&mut self, module: &Module, declared: &[Declared]) {
        let entry = module.kernels.first().map_or(0, |kernel| kernel.entry);
        if !self.followed.is_empty() && self.branches.as_ref().is_none_or(|(of, _)| *of != entry) {
            self.branches = Some((entry, Branches::of(module)));
        }
        self.lies.clear();
        self.asked.clear();
        for buffer in declared.iter() {
            let element = buffer.element.div_ceil(8).max(1);
            let known = self.named.iter().find(|n| n.name == buffer.name && n.bytes == buffer.bytes);
            let first = match known {
                Some(named) => named.first,
                None => {
                    let first = self.next;
                    self.next += buffer.bytes;
                    self.too_many |= self.next > MOST_BYTES;
                    let (name, start, bytes) = (buffer.name.clone(), buffer.start, buffer.bytes);
                    self.named.push(Named { name, start, first, bytes, element });
                    first
                }
            };
            if let Some(named) = self.named.iter_mut().find(|named| named.first == first) {
                named.start = buffer.start;
            }
            for (i, asked) in self.question.elements.iter().enumerate() {
                if asked.buffer == buffer.name {
                    let from = buffer.start + asked.offset;
                    self.asked.extend((from..from + asked.bytes).map(|byte| (byte, i)));
                }
            }
            self.lies.push(Lies {
                around: buffer.around,
                start: buffer.start,
                end: buffer.start + buffer.bytes,
                element,
                first,
                target: self.question.targets.contains(&buffer.name),
            });
        }
    }

    /// It has ended. `named` gives the kernel, the mnemonic, the offset and the line of an instruction by its address.
    pub fn end_launch(&mut self, named: impl Fn(u64) -> (String, String, u64, Option<(String, u32)>)) {
        for (byte, wrote) in std::mem::take(&mut self.fresh) {
            let (kernel, mnemonic, offset, line) = named(wrote.at);
            let (block, wave, lane) = (wrote.who.workgroup, wrote.who.wave, u32::from(wrote.lane));
            let launch = self.launch;
            let part = (launch, wrote.who.group);
            let writer = Writer { kernel, mnemonic, offset, line, launch, block, wave, lane, part };
            self.writers.insert(byte, writer);
        }
        self.launch += 1;
        self.lds.clear();
        self.waves.clear();
        self.active = ((u32::MAX, 0), Box::default());
        self.current = None;
    }

    /// The host has written memory, or zeroed it: nothing of a declared buffer flowed there.
    pub fn host_wrote(&mut self, address: u64, bytes: u64) {
        self.pages.fill(address, bytes, EMPTY);
        let written: Vec<u64> = self.writers.range(address..address + bytes).map(|(byte, _)| *byte).collect();
        written.iter().for_each(|byte| drop(self.writers.remove(byte)));
    }

    /// The host has had bytes copied.
    pub fn host_copied(&mut self, from: u64, to: u64, bytes: u64) {
        let sets: Vec<Id> = (0..bytes).map(|i| self.copied(from + i)).collect();
        self.host_wrote(to, bytes);
        for (i, set) in (0..).zip(sets) {
            if set != EMPTY {
                self.pages.set(to + i, set);
            }
        }
    }

    fn copied(&mut self, address: u64) -> Id {
        match self.lies.iter().find(|lies| (lies.start..lies.end).contains(&address)) {
            Some(lies) if !lies.target => byte_of(lies, address),
            _ => self.pages.get(address),
        }
    }

    /// Memory that is freed, or that was just allocated, has nothing in it.
    pub fn forget(&mut self, address: u64, bytes: u64) {
        self.pages.fill(address, bytes, EMPTY);
    }

    /// A wave is about to execute an instruction.
    pub fn begin(&mut self, wave: &Wave, inst: &Inst, at: u64) {
        self.accesses.clear();
        let who = wave.who();
        let followed = self.followed.contains(&(self.launch, who.group));
        self.current = Some(Current { who, at, exec: wave.exec(), followed });
        if !followed {
            return;
        }
        self.activate((who.group, who.wave));
        self.active.1.come_to(at);
        self.branches(wave, inst, at);
        let moves = inst.encoding == Encoding::Ds && memory::moves_lanes(inst.row.mnemonic);
        if !inst.encoding.is_memory() || moves {
            let mut step = Step { sets: &mut self.sets, registers: &mut self.active.1, wave, inst };
            step.run();
            step.depends();
        }
    }

    /// If the instruction is a branch whose condition something flowed into, everything up to where its ways meet depends on
    /// that.
    fn branches(&mut self, wave: &Wave, inst: &Inst, at: u64) {
        let Some(condition) = inst.row.mnemonic.strip_prefix("s_cbranch_") else { return };
        let Tracking { active: (_, registers), sets, branches: Some((_, branches)), .. } = self else {
            return;
        };
        let all = |registers: &Registers, sets: &mut Sets, first: u8| {
            sets.union_of((0..LANES).map(|bit| registers.bit(first.into(), bit)))
        };
        if condition.starts_with("exec") {
            // Code that no lane executes does nothing; so only what is left out has to be told.
            if wave.exec() == 0 && all(registers, sets, register::EXEC) != EMPTY {
                let region = branches.region(at);
                let lanes: Vec<Id> =
                    (0..LANES).map(|lane| sets.through(registers.bit(register::EXEC.into(), lane))).collect();
                for written in region.written.iter().filter(|written| **written < SCALARS) {
                    registers.add_to_lanes(sets, *written, &lanes);
                }
            }
            return;
        }
        let set = match condition {
            _ if condition.starts_with("vcc") => all(registers, sets, register::VCC),
            _ if condition.starts_with("scc") => registers.scc,
            _ => EMPTY,
        };
        if set == EMPTY {
            return;
        }
        let (region, set) = (branches.region(at), sets.through(set));
        for written in &region.written {
            match written.checked_sub(SCALARS) {
                None => registers.add_to_lanes(sets, *written, &[set; LANES]),
                Some(scalar) => registers.add_to_scalar(sets, scalar, set),
            }
        }
        registers.enter(sets, region.join, set);
        if region.stores
            && let Some(current) = self.current
        {
            let decided = self.decided.entry((self.launch, current.who.group)).or_insert(EMPTY);
            *decided = self.sets.union(*decided, set);
        }
    }

    fn activate(&mut self, key: (u32, u32)) {
        if self.active.0 == key {
            return;
        }
        let next = self.waves.remove(&key).unwrap_or_default();
        let (before, registers) = std::mem::replace(&mut self.active, (key, next));
        if before.0 != u32::MAX {
            self.waves.insert(before, registers);
        }
    }

    /// The instruction accesses memory.
    pub fn access(&mut self, place: Place, bytes: u32, lane: u8, does: Does) {
        self.accesses.push(Access { place, bytes, lane, does });
    }

    /// The instruction accesses the private memory of a lane.
    pub fn private(&mut self, address: u64, bytes: u32, lane: u8, does: Does) {
        // Nobody else sees it, so its address is as good as any.
        self.accesses.push(Access { place: Place::Global(address), bytes, lane, does });
    }

    /// The instruction was executed.
    pub fn end(&mut self, wave: &Wave, inst: &Inst) {
        if !inst.encoding.is_memory() || memory::moves_lanes(inst.row.mnemonic) {
            return;
        }
        let Some(current) = self.current else { return };
        if current.followed {
            self.moved(wave, inst, &current);
        } else {
            self.passed(&current);
        }
    }

    /// A workgroup has ended.
    pub fn ended(&mut self, group: u32) {
        self.lds.remove(&group);
        self.waves.retain(|(of, _), _| *of != group);
        if self.active.0.0 == group {
            self.active = ((u32::MAX, 0), Box::default());
        }
    }

    /// What is known of each element that was asked about.
    fn answers(&self) -> Vec<Answer> {
        self.question.elements.iter().map(|asked| self.answer(asked)).collect()
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let Some(named) = self.named.iter().find(|named| named.name == asked.buffer) else {
            let not_followed = BTreeSet::from([Lost::NoLaunch]);
            return Answer { not_followed, ..Answer::default() };
        };
        let mut answer = Answer::default();
        let from = named.start + asked.offset;
        let (mut took, mut through) = (BTreeSet::new(), BTreeSet::new());
        for byte in from..from + asked.bytes {
            let held = self.sets.held(self.pages.get(byte));
            took.extend(held.bytes);
            through.extend(held.through);
            answer.not_followed.extend(held.lost);
        }
        if self.too_many {
            answer.not_followed.insert(Lost::Bytes);
        }
        answer.writer = (from..from + asked.bytes).find_map(|byte| self.writers.get(&byte)).cloned();
        for part in answer.writer.iter().map(|writer| writer.part) {
            let held = self.sets.held(self.decided.get(&part).copied().unwrap_or(EMPTY));
            through.extend(held.through);
        }
        let through = through.difference(&took).copied().collect();
        (answer.took, answer.through) = (self.taken(&took), self.taken(&through));
        answer
    }

    fn taken(&self, bytes: &BTreeSet<u32>) -> Vec<Taken> {
        let of = |named: &Named| {
            let range = named.first as u32..(named.first + named.bytes) as u32;
            let offsets: BTreeSet<u64> = bytes
                .range(range)
                .map(|byte| (u64::from(*byte) - named.first) / named.element * named.element)
                .collect();
            (!offsets.is_empty()).then(|| Taken { buffer: named.name.clone(), offsets })
        };
        self.named.iter().filter_map(of).collect()
    }
}

/// The set of the element that a byte of a buffer is in.
fn byte_of(lies: &Lies, address: u64) -> Id {
    let offset = (address - lies.start) / lies.element * lies.element;
    Sets::byte((lies.first + offset).min(MOST_BYTES - 1) as u32)
}

/// The buffer in whose allocation an address lies. Buffers are in the order of their addresses.
fn find(lies: &[Lies], address: u64) -> Option<&Lies> {
    let after = lies.partition_point(|buffer| buffer.around.0 <= address);
    lies[..after].last().filter(|buffer| address < buffer.around.1)
}

/// Runs after which no more workgroups are looked for.
const RUNS: usize = 4;
/// Workgroups that are followed at most.
const GROUPS: usize = 256;

/// Runs a case as often as it takes to follow what flows into some elements. `run` runs it once, with the tracking that it is
/// given, and gives that back; `None` where the run did not end well.
pub fn ask(
    question: &Question,
    mut run: impl FnMut(Box<Tracking>) -> Option<Box<Tracking>>,
) -> Option<Vec<Answer>> {
    let mut followed = HashSet::new();
    for last in (0..=RUNS).map(|n| n == RUNS) {
        let tracking = run(Box::new(Tracking::new(question.clone(), followed.clone())))?;
        let more: Vec<Part> =
            tracking.needed.iter().filter(|part| !followed.contains(part)).copied().collect();
        if more.is_empty() || last || followed.len() + more.len() > GROUPS {
            let mut answers = tracking.answers();
            if followed.is_empty() && !more.is_empty() {
                let why = Lost::Groups { count: more.len(), most: GROUPS };
                for answer in &mut answers {
                    answer.not_followed.insert(why);
                }
            }
            return Some(answers);
        }
        followed.extend(more);
    }
    None
}
