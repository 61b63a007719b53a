//! What a launch is watched for beside what it computes: every access of a kernel to memory passes through here, if the
//! launch is scrutinised.
//!
//! A scrutinised launch runs on one thread of this machine, so that what is seen does not depend on who came first.

pub mod barriers;
pub mod clocks;
pub mod declared;
pub mod journal;
pub mod polls;
pub mod races;
mod shadow;

use super::isa::{Encoding, Inst, Mark, Row};
use super::provenance::Tracking;
use super::trace::Tracer;
use super::waits;
use super::wave::Wave;
use barriers::{Barriers, Wrong};
use declared::{Declared, Outside};
use journal::{Journal, Writer};
use races::{Queue, Races, Touch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The wave that executes an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The workgroup's number in dispatch order.
    pub group: u32,
    /// The workgroup's place in the grid.
    pub workgroup: [u32; 3],
    pub wave: u32,
}

/// Where a wave's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// At an address of this process.
    Global(u64),
    /// At an offset in the workgroup's LDS. The second number is the address in this process.
    Lds(u32, u64),
}

impl Place {
    /// The address in this process.
    fn address(self) -> u64 {
        match self {
            Place::Global(address) | Place::Lds(_, address) => address,
        }
    }
}

/// What a lane does with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Reads,
    Writes,
    /// An atomic, which reads and writes.
    Changes,
}

/// Something that was seen, at an instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub what: What,
    pub workgroup: [u32; 3],
    pub wave: u32,
    pub lane: Option<u8>,
    /// The address in global memory that it is about.
    pub address: Option<u64>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Two waves use the same bytes, one of them writes, and nothing orders the two.
    Race(races::Race),
    /// What is written, or an address, depends on what nobody wrote; on this, where only that was found.
    Uninitialised { source: Option<Source>, address: bool },
    /// Not all of a workgroup takes part in a barrier in the same way.
    Barrier(Wrong),
    /// A buffer resource gave zero for a load outside of it.
    Clamped,
    /// An access outside of a declared buffer, or to the padding between its rows.
    OutOfBounds { outside: Outside, does: Does, bytes: u32 },
}

/// Where a value comes from that nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Lds,
    Registers,
    Scratch,
    /// Global memory.
    Memory,
}

/// What kind of thing was seen: at one instruction each is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Race,
    Uninitialised,
    Barrier,
    Divergence,
    Clamped,
    OutOfBounds,
}

impl What {
    pub fn kind(&self) -> Kind {
        match self {
            What::Race(_) => Kind::Race,
            What::Uninitialised { .. } => Kind::Uninitialised,
            What::Barrier(Wrong::Lanes { .. }) => Kind::Divergence,
            What::Barrier(_) => Kind::Barrier,
            What::Clamped => Kind::Clamped,
            What::OutOfBounds { .. } => Kind::OutOfBounds,
        }
    }
}

/// What was seen, by the address of the instruction.
pub type Sightings = BTreeMap<(u64, Kind), Sighting>;

/// The instruction that a wave is executing.
#[derive(Clone, Copy, Debug)]
struct Current {
    who: Who,
    at: u64,
    queue: Queue,
    /// Whether a plain load or store orders memory as an atomic does.
    orders: bool,
    polls: bool,
    /// Whether an atomic is one of numbers that are summed or compared as floats: nobody hands anything over with it.
    float: bool,
    /// Whether an atomic gives its old value back.
    returns: bool,
}

/// Bytes that are about to be written, as they were before.
struct Before {
    place: Place,
    bytes: u32,
    lane: u8,
    held: [u8; 16],
}

/// What is watched in a launch.
#[derive(Default)]
pub struct Scrutiny {
    races: Option<Races>,
    journal: Option<Journal>,
    barriers: Option<Barriers>,
    declared: Arc<Vec<Declared>>,
    current: Option<Current>,
    /// The writes of the instruction that is being executed.
    before: Vec<Before>,
    seen: Sightings,
    /// What flows where, of a launch that is followed.
    tracking: Option<Box<Tracking>>,
    /// Keeps the instructions of a wave, of a launch that is traced.
    tracer: Option<Box<Tracer>>,
}

/// State that a watched launch gives back.
#[derive(Default)]
pub struct Parts {
    pub seen: Sightings,
    pub journal: Option<Journal>,
    pub tracking: Option<Box<Tracking>>,
    pub tracer: Option<Box<Tracer>>,
}

impl Scrutiny {
    /// Looks for races, too.
    pub fn with_races(self, races: Races) -> Scrutiny {
        Scrutiny { races: Some(races), ..self }
    }

    /// Keeps what memory held before it was written.
    pub fn with_journal(self, journal: Option<Journal>) -> Scrutiny {
        Scrutiny { journal, ..self }
    }

    /// Looks at barriers, and at accesses outside of these buffers, which are in the order of their addresses.
    pub fn with_buffers(self, declared: Arc<Vec<Declared>>) -> Scrutiny {
        Scrutiny { declared, barriers: Some(Barriers::default()), ..self }
    }

    /// Leaves memory out, by start and end, in which no races are looked for.
    pub fn apart(mut self, memory: (u64, u64)) -> Scrutiny {
        if let Some(races) = &mut self.races {
            races.leave_out(memory);
        }
        self
    }

    /// Follows what flows where, and looks at nothing else.
    pub fn following(tracking: Box<Tracking>) -> Scrutiny {
        Scrutiny { tracking: Some(tracking), ..Scrutiny::default() }
    }

    /// Keeps the instructions of a wave, and looks at nothing else.
    pub fn tracing(tracer: Box<Tracer>) -> Scrutiny {
        Scrutiny { tracer: Some(tracer), ..Scrutiny::default() }
    }

    pub fn into_parts(self) -> Parts {
        let Scrutiny { seen, journal, tracking, tracer, .. } = self;
        Parts { seen, journal, tracking, tracer }
    }

    /// A wave is about to execute an instruction.
    pub fn begin(&mut self, wave: &Wave, inst: &Inst, at: u64) {
        if let Some(tracking) = &mut self.tracking {
            return tracking.begin(wave, inst, at);
        }
        if let Some(tracer) = &mut self.tracer {
            return tracer.begin(wave, inst, at);
        }
        self.look(wave.who(), inst, at, wave.exec());
    }

    fn look(&mut self, who: Who, inst: &Inst, at: u64, lanes: u64) {
        self.current = None;
        if inst.encoding == Encoding::Sopp {
            match inst.row.opcode {
                waits::WAITCNT => {
                    let (vector, shared) = waits::counts(inst.imm as u16);
                    if let Some(races) = &mut self.races {
                        races.wait(who, vector, shared);
                    }
                }
                BARRIER => {
                    if let Some(barriers) = &mut self.barriers {
                        barriers.comes(who.group, who.wave, at, lanes);
                    }
                }
                _ => {}
            }
            return;
        }
        let Some(queue) = Queue::of(inst.encoding) else { return };
        if let Some(barriers) = &mut self.barriers
            && let Some((barrier, wrong)) = barriers.executes(who.group, who.wave, at, lanes)
        {
            self.tell(barrier, What::Barrier(wrong), who, None, None);
        }
        let polls = self.races.as_ref().is_some_and(|races| races.polls(at));
        let atomic = inst.row.is(Mark::Atomic);
        let orders = !atomic && queue != Queue::Local && (inst.memory.sc0 || inst.memory.sc1);
        let returns = queue == Queue::Local || inst.memory.sc0;
        self.current = Some(Current { who, at, queue, orders, polls, float: is_float(inst.row), returns });
        if let Some(races) = &mut self.races {
            races.issue(who, queue);
        }
    }

    /// The wave accesses bytes. What is about to be written is looked at again when it has been.
    pub fn access(&mut self, place: Place, bytes: u32, lane: u8, does: Does) {
        if let Some(tracking) = &mut self.tracking {
            return tracking.access(place, bytes, lane, does);
        }
        if let Some(tracer) = &mut self.tracer {
            return tracer.access(place, bytes, lane, does);
        }
        let Some(current) = self.current else { return };
        if let Place::Global(address) = place {
            if let Some(journal) = self.journal.as_mut().filter(|_| does != Does::Reads) {
                journal.note(address, bytes, Writer { who: current.who, at: current.at, lane });
            }
            let outside = declared::outside(&self.declared, address, u64::from(bytes));
            if let Some(outside) = outside {
                let what = What::OutOfBounds { outside, does, bytes };
                self.note(&current, lane, place, Some(what));
            }
        }
        if self.races.is_none() {
            return;
        }
        if does == Does::Writes {
            let mut held = [0; 16];
            held[..(bytes as usize).min(16)].copy_from_slice(bytes_at(place.address(), bytes.min(16)));
            self.before.push(Before { place, bytes: bytes.min(16), lane, held });
            return;
        }
        let touch = touch(&current, lane);
        if let Some(races) = &mut self.races {
            let race = races.access(touch, place, bytes, does);
            self.note(&current, lane, place, race.map(What::Race));
        }
    }

    /// The wave accesses bytes of a lane's own memory, which matters only to what follows values.
    pub fn private(&mut self, address: u64, bytes: u32, lane: u8, does: Does) {
        if let Some(tracking) = &mut self.tracking {
            tracking.private(address, bytes, lane, does);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.private(bytes, lane, does);
        }
    }

    /// The instruction has been executed.
    pub fn end(&mut self, wave: &Wave, inst: &Inst) {
        if let Some(tracking) = &mut self.tracking {
            return tracking.end(wave, inst);
        }
        if let Some(tracer) = &mut self.tracer {
            return tracer.end(wave, inst);
        }
        let Some(current) = self.current else { return };
        let mut before = std::mem::take(&mut self.before);
        for write in before.drain(..) {
            let now = bytes_at(write.place.address(), write.bytes);
            // Who writes what is there already changes nothing, whenever it happens.
            let changes = *now != write.held[..write.bytes as usize];
            if let Some(races) = self.races.as_mut().filter(|_| changes || current.orders) {
                let race = races.access(touch(&current, write.lane), write.place, write.bytes, Does::Writes);
                self.note(&current, write.lane, write.place, race.map(What::Race));
            }
        }
        self.before = before;
    }

    /// All waves of a workgroup that have not ended have come to a barrier.
    pub fn barrier(&mut self, group: u32, workgroup: [u32; 3], ended: u64) {
        if let Some(races) = &mut self.races {
            races.barrier(group, ended);
        }
        if let Some(barriers) = &mut self.barriers
            && let Some((at, wave, wrong)) = barriers.meet(group, ended)
        {
            self.tell(at, What::Barrier(wrong), Who { group, workgroup, wave }, None, None);
        }
    }

    /// A lane loads outside of its buffer resource, and gets zero.
    pub fn clamped(&mut self, lane: u8) {
        if let Some(tracer) = &mut self.tracer {
            return tracer.clamped(lane);
        }
        if let Some(current) = self.current {
            self.tell(current.at, What::Clamped, current.who, Some(lane), None);
        }
    }

    /// A workgroup has ended.
    pub fn ended(&mut self, group: u32) {
        if let Some(tracking) = &mut self.tracking {
            tracking.ended(group);
        }
        if let Some(races) = &mut self.races {
            races.ended(group);
        }
        if let Some(barriers) = &mut self.barriers {
            barriers.ended(group);
        }
    }

    /// A wave comes to a place where it waits for waves of other workgroups, or lets them go on.
    pub fn releases(&mut self, who: Who, resource: usize) {
        if let Some(races) = &mut self.races {
            races.release_at(who, resource as u64);
        }
    }

    /// A wave goes on that has waited for others.
    pub fn acquires(&mut self, who: Who, resource: usize) {
        if let Some(races) = &mut self.races {
            races.acquire_at(who, resource as u64);
        }
    }

    fn note(&mut self, current: &Current, lane: u8, place: Place, what: Option<What>) {
        let Some(what) = what else { return };
        let address = match place {
            Place::Global(address) => Some(address),
            Place::Lds(..) => None,
        };
        self.tell(current.at, what, current.who, Some(lane), address);
    }

    /// Keeps the first of its kind at an instruction.
    fn tell(&mut self, at: u64, what: What, who: Who, lane: Option<u8>, address: Option<u64>) {
        let Who { workgroup, wave, .. } = who;
        let sighting = Sighting { what, workgroup, wave, lane, address };
        self.seen.entry((at, sighting.what.kind())).or_insert(sighting);
    }
}

/// The opcode of `s_barrier`.
const BARRIER: u16 = 10;

fn touch(current: &Current, lane: u8) -> Touch {
    let Current { who, at, queue, orders, polls, float, returns } = *current;
    Touch { who, at, lane, queue, orders, polls, float, returns }
}

/// Whether an atomic takes its data as floats.
fn is_float(row: &Row) -> bool {
    ["_f16", "_bf16", "_f32", "_f64"].iter().any(|end| row.mnemonic.ends_with(end))
}

/// Bytes of a place that the kernel may use.
fn bytes_at<'a>(address: u64, bytes: u32) -> &'a [u8] {
    // SAFETY: the place was checked when the instruction's addresses were made, what a launch may touch stays until it ends,
    // and a scrutinised launch is alone on its thread: nobody writes while the slice is looked at.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address as usize), bytes as usize) }
}
