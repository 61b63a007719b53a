//! A workgroup: waves that share LDS and barriers, run in turn on one thread.

use super::executed::Counts;
use super::isa::Inst;
use super::loader::{Decoded, Module};
use super::memory::{Group, Space};
use super::wave::{Fault, Flow, Lanes, Wave};
use std::hash::Hasher;

/// Why a launch ended early: where, and what happened there.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub fault: Fault,
    /// Address of the instruction.
    pub pc: u64,
    /// The instruction as text, where there is one.
    pub instruction: Option<String>,
    pub mnemonic: Option<&'static str>,
    pub workgroup: [u32; 3],
    pub wave: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    AtBarrier,
    Ended,
}

/// What came of some time that a workgroup was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All waves have ended.
    Done,
    /// Its time is over.
    Going,
    /// Every wave that is left goes in circles: it waits for something outside of the workgroup. `anew` says that they
    /// circled elsewhere, or not at all, when they were last looked at.
    Waiting { anew: bool },
}

/// A workgroup that was started. Its waves borrow the group, which is why they are declared, and so dropped, first.
pub struct Workgroup<'a> {
    waves: Vec<Wave<'a>>,
    states: Vec<State>,
    /// Waves that went in circles when they were last looked at: a number that stands for their state.
    circling: Vec<Option<u64>>,
    /// The same of all waves when the workgroup was last found waiting.
    waited: Vec<Option<u64>>,
    order: WaveOrder,
    /// Declared last, and so dropped last.
    _group: Shared<'a>,
}

/// The group that the waves of a workgroup borrow, at a place that does not move.
struct Shared<'a>(*mut Group<'a>);

impl<'a> Shared<'a> {
    fn new(group: Group<'a>) -> Shared<'a> {
        Shared(Box::into_raw(Box::new(group)))
    }

    /// # Safety
    /// The reference must not be used once this value is dropped.
    unsafe fn borrow(&self) -> &'a Group<'a> {
        // SAFETY: the pointer came from a box, which only `drop` takes back; the caller keeps to the time before it.
        unsafe { &*self.0 }
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` and is given back once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// The order in which the waves of a workgroup take turns. What waves do between two barriers happens in opposite orders
/// in the first two: where results depend on it, a barrier is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaveOrder {
    /// Each runs as far as it can, up to a barrier, the first one first.
    #[default]
    FirstToLast,
    /// The last one first.
    LastToFirst,
    /// All execute a few instructions before any goes on.
    InStep,
}

/// Instructions that a wave may execute before another one has its turn.
const TURN: u32 = 1 << 16;
/// Instructions that a wave may execute before the others do, where they keep in step: few enough for what a device's
/// waves have behind them together, such as the reads after a barrier.
const STEP: u32 = 8;
/// Instructions that a wave may execute in step with the others.
const IN_STEP: u32 = 1 << 22;
/// Instructions in which a wave that waits has to come back to the same state.
const CIRCLE: u32 = 1 << 12;
/// How often the vector registers of a wave are looked at, which is what costs time, before it counts as busy.
const LOOKS: u32 = 4;

impl<'a> Workgroup<'a> {
    /// Makes a workgroup; `start` makes each of its waves, of which there are `count`.
    pub fn new(
        space: &'a Space,
        lds: Box<[u8]>,
        id: [u32; 3],
        number: u32,
        count: u32,
        mut start: impl FnMut(&'a Group<'a>, u32) -> Wave<'a>,
    ) -> Workgroup<'a> {
        let group = Shared::new(Group::new(space, lds, id).numbered(number));
        // SAFETY: the waves, which alone keep the reference, are dropped before the group.
        let borrowed = unsafe { group.borrow() };
        let waves: Vec<_> = (0..count).map(|index| start(borrowed, index)).collect();
        let (states, circling) = (vec![State::Running; waves.len()], vec![None; waves.len()]);
        Workgroup { waves, states, circling, waited: Vec::new(), order: WaveOrder::default(), _group: group }
    }

    /// The order in which its waves take turns.
    pub fn in_order(self, order: WaveOrder) -> Workgroup<'a> {
        Workgroup { order, ..self }
    }

    /// The register files of its waves, once they are no longer needed.
    pub fn into_registers(self) -> impl Iterator<Item = Box<[Lanes; 512]>> {
        self.waves.into_iter().map(|wave| wave.v)
    }

    /// Runs every wave until all have ended, all wait, or each has had `turns` turns.
    pub fn run(&mut self, module: &Module, turns: u32, counts: &mut Counts) -> Result<Progress, Box<Stop>> {
        for _ in 0..turns {
            if self.order == WaveOrder::InStep {
                self.steps(module, counts)?;
            }
            let last = self.waves.len() - 1;
            for turn in 0..=last {
                let index = if self.order == WaveOrder::LastToFirst { last - turn } else { turn };
                if self.states[index] == State::Running {
                    self.turn(index, module, counts)?;
                }
            }
            if self.states.iter().all(|state| *state == State::Ended) {
                let group = self.waves[0].group;
                group.space.scrutinise(|scrutiny| scrutiny.ended(group.number));
                return Ok(Progress::Done);
            }
            self.open_barrier();
            let waits =
                |(state, circling): (&State, &Option<u64>)| *state != State::Running || circling.is_some();
            if self.states.iter().zip(&self.circling).all(waits) {
                let anew = self.waited != self.circling;
                self.waited.clone_from(&self.circling);
                return Ok(Progress::Waiting { anew });
            }
        }
        Ok(Progress::Going)
    }

    /// Lets the waves go on that wait at a barrier, once all that have not ended are there.
    fn open_barrier(&mut self) {
        if self.states.iter().all(|state| *state != State::Running) {
            self.meet();
            for state in self.states.iter_mut().filter(|state| **state == State::AtBarrier) {
                *state = State::Running;
            }
        }
    }

    /// Tells what watches the launch that waves have met at a barrier.
    fn meet(&self) {
        let group = self.waves[0].group;
        if group.space.scrutiny.is_none() || self.states.iter().all(|state| *state == State::Ended) {
            return;
        }
        let ended = (0..).zip(&self.states).filter(|(_, state)| **state == State::Ended);
        let ended = ended.fold(0, |mask, (index, _): (u32, _)| mask | 1 << index);
        group.space.scrutinise(|scrutiny| scrutiny.barrier(group.number, group.id, ended));
    }

    /// Runs the waves in step, for a long while at the most, until each has ended or waits. Only then is it asked which of
    /// them go in circles, for which each runs by itself.
    fn steps(&mut self, module: &Module, counts: &mut Counts) -> Result<(), Box<Stop>> {
        for _ in 0..IN_STEP / STEP {
            let mut going = false;
            for index in 0..self.waves.len() {
                // A wave that was found in a circle is asked by its turn whether it still is.
                if self.states[index] != State::Running || self.circling[index].is_some() {
                    continue;
                }
                match run(&mut self.waves[index], module, STEP, counts) {
                    Flow::End => self.states[index] = State::Ended,
                    Flow::Barrier => self.states[index] = State::AtBarrier,
                    Flow::Fault => return Err(Box::new(self.stop(index, module))),
                    Flow::Next | Flow::Jump | Flow::Yield => going = true,
                }
            }
            self.open_barrier();
            if !going && self.states.iter().all(|state| *state != State::Running) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn turn(&mut self, index: usize, module: &Module, counts: &mut Counts) -> Result<(), Box<Stop>> {
        let wave = &mut self.waves[index];
        // A wave that was found waiting is first asked whether it still does, which is cheap.
        let before = match self.circling[index].take() {
            Some(_) => circles(wave, module, counts),
            None => Turn::Over(Flow::Next),
        };
        let flow = match before {
            Turn::Over(Flow::Next) => match run(wave, module, TURN, counts) {
                // It used all of its turn, or sleeps: does it go in circles?
                Flow::Next | Flow::Yield => circles(wave, module, counts),
                flow => Turn::Over(flow),
            },
            other => other,
        };
        match flow {
            Turn::Circles(state) => self.circling[index] = Some(state),
            Turn::Over(Flow::End) => self.states[index] = State::Ended,
            Turn::Over(Flow::Barrier) => self.states[index] = State::AtBarrier,
            Turn::Over(Flow::Fault) => return Err(Box::new(self.stop(index, module))),
            Turn::Over(Flow::Next | Flow::Jump | Flow::Yield) => {}
        }
        Ok(())
    }

    fn stop(&mut self, index: usize, module: &Module) -> Stop {
        let wave = &mut self.waves[index];
        let fault = wave
            .fault
            .take()
            .map_or_else(|| Fault::Illegal("the wave failed without a reason".into()), |f| *f);
        let pc = wave.pc;
        describe(module, pc, fault, wave.group.id, index as u32)
    }

    /// Where the first wave is that has not ended, for the report of a deadlock.
    pub fn waiting(&self, module: &Module, fault: Fault) -> Stop {
        let index = self.states.iter().position(|state| *state != State::Ended).unwrap_or(0);
        let wave = &self.waves[index];
        describe(module, wave.pc, fault, wave.group.id, index as u32)
    }
}

fn describe(module: &Module, pc: u64, fault: Fault, workgroup: [u32; 3], wave: u32) -> Stop {
    let inst = module.instruction(pc);
    let instruction = inst.map(ToString::to_string);
    Stop { fault, pc, instruction, mnemonic: inst.map(|i| i.row.mnemonic), workgroup, wave }
}

enum Turn {
    /// The wave came back to a state that it had before, which this number stands for.
    Circles(u64),
    Over(Flow),
}

/// Runs a wave for a short while and tells whether it comes back to the very state from which it started, registers and
/// all memory that it wrote on the way: then it waits for what others write.
fn circles(wave: &mut Wave, module: &Module, counts: &mut Counts) -> Turn {
    let start = Registers::of(wave);
    match come_back(wave, module, start, counts) {
        // What it writes is looked at in a second round, for few get there.
        Come::Back { .. } => {}
        Come::Away => return Turn::Over(Flow::Next),
        Come::Over(flow) => return Turn::Over(flow),
    }
    wave.watch = Some(Box::default());
    let again = come_back(wave, module, start, counts);
    let undone = wave.watch.take().is_some_and(|watch| watch.is_undone());
    match again {
        Come::Back { lowest } if undone => settle(wave, module, lowest, counts),
        Come::Back { .. } | Come::Away => Turn::Over(Flow::Next),
        Come::Over(flow) => Turn::Over(flow),
    }
}

/// Whether a wave came back to the registers that it started with.
enum Come {
    /// It did, by way of this lowest address.
    Back { lowest: u64 },
    /// Not within the time that it was given.
    Away,
    /// It stopped before.
    Over(Flow),
}

/// Numbers that stand for the registers of a wave.
#[derive(Clone, Copy, PartialEq)]
struct Registers {
    pc: u64,
    scalars: u64,
    vectors: u64,
}

impl Registers {
    fn of(wave: &Wave) -> Registers {
        Registers { pc: wave.pc, scalars: scalars(wave), vectors: vectors(wave) }
    }
}

/// Runs a wave until it comes back to the registers in `start`, for [`CIRCLE`] instructions at the most.
fn come_back(wave: &mut Wave, module: &Module, start: Registers, counts: &mut Counts) -> Come {
    let (mut looks, mut lowest) = (LOOKS, wave.pc);
    for _ in 0..CIRCLE {
        match run(wave, module, 1, counts) {
            Flow::Next | Flow::Jump | Flow::Yield => {}
            other => return Come::Over(other),
        }
        lowest = lowest.min(wave.pc);
        if wave.pc != start.pc || scalars(wave) != start.scalars {
            continue;
        }
        if vectors(wave) == start.vectors {
            return Come::Back { lowest };
        }
        looks -= 1;
        if looks == 0 {
            break;
        }
    }
    Come::Away
}

/// Lets a wave that goes in circles go on to the lowest address of its circle, so that the same circle is always described
/// by the same state.
fn settle(wave: &mut Wave, module: &Module, lowest: u64, counts: &mut Counts) -> Turn {
    for _ in 0..CIRCLE {
        if wave.pc == lowest {
            return Turn::Circles(lowest ^ scalars(wave).rotate_left(1) ^ vectors(wave).rotate_left(2));
        }
        match run(wave, module, 1, counts) {
            Flow::Next | Flow::Jump | Flow::Yield => {}
            other => return Turn::Over(other),
        }
    }
    Turn::Over(Flow::Next)
}

/// A number that stands for the scalar registers of a wave.
fn scalars(wave: &Wave) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::new();
    wave.s.iter().for_each(|word| hasher.write_u32(*word));
    hasher.write_u32(u32::from(wave.scc) | wave.mode.0 << 1);
    hasher.finish()
}

/// A number that stands for its vector registers.
fn vectors(wave: &Wave) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::new();
    for range in [0..wave.vgprs, 256..256 + wave.agprs] {
        wave.v[range].iter().flat_map(|lanes| lanes.0).for_each(|word| hasher.write_u32(word));
    }
    hasher.finish()
}

/// Executes up to `budget` instructions. [`Flow::Next`] means that the budget is used up; [`Wave::pc`] is then that of
/// the next instruction, and with [`Flow::Fault`] that of the one which failed.
fn run(wave: &mut Wave, module: &Module, budget: u32, counts: &mut Counts) -> Flow {
    let mut left = budget;
    'jump: loop {
        let Some(place) = module.at(wave.pc) else {
            let pc = wave.pc;
            return wave.fail(Fault::LeftTheCode { pc });
        };
        for (index, decoded) in place.instructions.iter().enumerate() {
            if left == 0 {
                return Flow::Next;
            }
            left -= 1;
            let at = wave.pc;
            let inst = match decoded {
                Decoded::Inst(inst) => inst,
                Decoded::Error(error) => return wave.fail(Fault::Undecodable(error.clone())),
            };
            wave.pc = at + u64::from(inst.size);
            wave.clock += 1;
            if wave.vskip && inst.encoding.is_vector() {
                continue;
            }
            counts.add(place.number, index, inst);
            if wave.waits.concern(inst) {
                let active = wave.exec() != 0;
                let missing = wave.waits.before(inst, at, active);
                // Which registers relative addressing means is not in the instruction.
                if let Some(missing) = missing.filter(|_| wave.gpr_index.is_none()) {
                    counts.add_missing_wait(at, missing, wave);
                }
            }
            if wave.scrutinised {
                begin(wave, inst, at);
            }
            match (inst.execute)(wave, inst) {
                Flow::Next if wave.scrutinised => end(wave, inst),
                Flow::Next => {}
                Flow::Jump => continue 'jump,
                Flow::Fault => {
                    wave.pc = at;
                    return Flow::Fault;
                }
                other => return other,
            }
        }
        // A piece of code that the linear sweep did not find ends here; the next one is looked up.
    }
}

/// A wave of a launch that is watched is about to execute an instruction.
#[cold]
fn begin(wave: &Wave, inst: &Inst, at: u64) {
    wave.group.space.scrutinise(|scrutiny| scrutiny.begin(wave, inst, at));
}

/// It has executed it.
#[cold]
fn end(wave: &Wave, inst: &Inst) {
    wave.group.space.scrutinise(|scrutiny| scrutiny.end(wave, inst));
}
