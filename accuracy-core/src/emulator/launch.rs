//! A launch: argument segment and registers as the hardware's dispatcher makes them, a grid of workgroups on threads.
//!
//! Source: LLVM's user guide for the AMDGPU backend, "Kernel Dispatch", "Initial Kernel Execution State" and "Code
//! Object V5 Metadata".

use super::executed::{Counts, Executed};
use super::float_control::Plain;
use super::isa::Inst;
use super::loader::{Kernel, Module};
use super::memory::{Group, PRIVATE_APERTURE, Region, SHARED_APERTURE, Space};
use super::provenance::Tracking;
use super::scrutiny::declared::Declared;
use super::scrutiny::journal::Journal;
use super::scrutiny::races::Races;
use super::scrutiny::{Parts, Scrutiny, clocks, polls};
use super::trace::Tracer;
use super::wave::{Fault, LANES, Lanes, Mode, Wave, register, registers};
use super::workgroup::{Progress, Stop, WaveOrder, Workgroup};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is launched.
pub struct Launch<'a> {
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    /// Workgroups along x, y and z.
    pub blocks: [u32; 3],
    /// Work items of a workgroup along x, y and z.
    pub threads: [u32; 3],
    /// Work items of the last workgroup along each axis, where it is a smaller one; else 0.
    pub remainder: [u32; 3],
    /// Bytes of LDS beside what the kernel declares.
    pub dynamic_lds: u32,
    /// Whether all workgroups must be resident at once, because they wait for one another.
    pub cooperative: bool,
    /// The order in which the waves of a workgroup take turns.
    pub order: WaveOrder,
    /// The argument segment as far as the launcher fills it in: the explicit arguments at their offsets.
    pub arguments: &'a [u8],
    /// Addresses of what device code shares with the runtime.
    pub shared: Shared<'a>,
    /// What the kernel may touch beside its module and its arguments.
    pub regions: &'a [Region],
    /// Threads of this machine that the launch may use. One that is scrutinised uses one.
    pub workers: usize,
    /// What it is watched for beside what it computes.
    pub scrutiny: Option<Watched>,
}

/// What a launch is watched for, beside barriers and accesses outside of declared buffers.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub races: bool,
    /// The buffers that a test declares, in the order of their addresses.
    pub declared: Arc<Vec<Declared>>,
}

/// What registers, LDS and scratch memory hold before a kernel writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    pub registers: u32,
    pub lds: u32,
    pub scratch: u8,
}

impl Contents {
    /// A NaN in each format that has one in these bits.
    pub const USUAL: Contents = Contents { registers: POISON, lds: POISON, scratch: 0xa5 };
    /// Other bits everywhere.
    pub const OTHER: Contents = Contents { registers: !POISON, lds: !POISON, scratch: !0xa5 };
}

/// What device code shares with the runtime: addresses, 0 where there is none.
#[derive(Clone, Copy, Default)]
pub struct Shared<'a> {
    pub printf_buffer: u64,
    pub hostcall_buffer: u64,
    pub heap: u64,
    /// Called when a kernel asks the host for something.
    pub serve: Option<&'a (dyn Fn() + Sync)>,
}

/// Why a launch is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("the grid has {0:?} workgroups: each number must be 1 to 2^31 - 1")]
    Grid([u32; 3]),
    #[error("a workgroup of {threads:?} threads has {count}, and kernel `{kernel}` takes 1 to {most}")]
    Threads { kernel: String, threads: [u32; 3], count: u64, most: u64 },
    #[error("the workgroup needs {needed} bytes of LDS, and {processor} has {has}")]
    Lds { needed: u64, has: u32, processor: &'static str },
    #[error(
        "kernel `{kernel}` needs {needed} bytes of scratch memory for each thread, and the most is {most}"
    )]
    Scratch { kernel: String, needed: u32, most: u32 },
    #[error("a cooperative launch of {total} workgroups, and the device has room for {room} at a time")]
    Cooperative { total: u64, room: u64 },
    #[error("kernel `{kernel}` takes {takes} bytes of arguments, and {given} were given")]
    Arguments { kernel: String, takes: usize, given: usize },
    #[error("kernel `{kernel}` needs {what}, which the emulator does not have")]
    Needs { kernel: String, what: String },
}

/// Why a launch did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{}", .0.fault)]
    Stopped(Box<Stop>),
}

/// The most bytes of scratch memory that a thread can have on these devices.
const SCRATCH: u32 = 0x7fff_c000;
/// The most that the emulator gives to all threads of a wave together.
const SCRATCH_OF_WAVE: u64 = 1 << 30;
/// What registers and LDS hold before a kernel writes them: a NaN in each format that has one in these bits.
const POISON: u32 = 0x7fc0_dead;
/// Bytes of scratch memory of a thread whose stack the compiler cannot bound, at the least.
const STACK: u32 = 16 << 10;

impl<'a> Launch<'a> {
    /// A launch of whole workgroups by one thread of this machine, of a kernel without arguments.
    pub fn new(module: &'a Module, kernel: &'a Kernel, blocks: [u32; 3], threads: [u32; 3]) -> Launch<'a> {
        Launch {
            module,
            kernel,
            blocks,
            threads,
            remainder: [0; 3],
            dynamic_lds: 0,
            cooperative: false,
            order: WaveOrder::default(),
            arguments: &[],
            shared: Shared::default(),
            regions: &[],
            workers: 1,
            scrutiny: None,
        }
    }
}

impl Launch<'_> {
    fn threads_of_group(&self) -> u64 {
        self.threads.iter().map(|n| u64::from(*n)).product()
    }

    fn waves_of_group(&self) -> u32 {
        (self.threads_of_group() as u32).div_ceil(LANES as u32)
    }

    /// Bytes of scratch memory of each thread.
    fn scratch(&self) -> u32 {
        let descriptor = self.kernel.descriptor;
        // The stack of a kernel with recursion or indirect calls has no fixed size.
        if descriptor.has(11) { descriptor.scratch.max(STACK) } else { descriptor.scratch }
    }

    fn lds(&self) -> u64 {
        u64::from(self.kernel.descriptor.lds) + u64::from(self.dynamic_lds)
    }

    /// Workgroups of the grid.
    fn total(&self) -> u64 {
        self.blocks.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul)
    }

    /// Work items along each axis of the workgroup at a place of the grid.
    fn threads_at(&self, id: [u32; 3]) -> [u32; 3] {
        [0, 1, 2].map(|axis| match self.remainder[axis] {
            some @ 1.. if id[axis] + 1 == self.blocks[axis] => some,
            _ => self.threads[axis],
        })
    }

    fn check(&self) -> Result<(), Refused> {
        let described = &self.kernel.described;
        let descriptor = &self.kernel.descriptor;
        let kernel = || described.name.clone();
        let processor = self.module.processor;
        if self.blocks.iter().any(|n| !(1..1 << 31).contains(n)) {
            return Err(Refused::Grid(self.blocks));
        }
        let count: u64 = self.threads.iter().fold(1, |all, n| all.saturating_mul(u64::from(*n)));
        let most = described.max_workgroup_size.unwrap_or(1024).clamp(1, 1024);
        if count == 0 || count > most || self.threads.iter().any(|n| *n > 1024) {
            return Err(Refused::Threads { kernel: kernel(), threads: self.threads, count, most });
        }
        if self.lds() > u64::from(processor.lds_bytes()) {
            return Err(Refused::Lds {
                needed: self.lds(),
                has: processor.lds_bytes(),
                processor: processor.name(),
            });
        }
        let scratch = u64::from(self.scratch());
        if self.scratch() > SCRATCH || scratch * LANES as u64 > SCRATCH_OF_WAVE {
            let most = (SCRATCH_OF_WAVE / LANES as u64) as u32;
            return Err(Refused::Scratch { kernel: kernel(), needed: self.scratch(), most });
        }
        let takes = descriptor.kernarg as usize;
        if self.arguments.len() > takes {
            return Err(Refused::Arguments { kernel: kernel(), takes, given: self.arguments.len() });
        }
        if self.cooperative && self.total() > self.resident() {
            return Err(Refused::Cooperative { total: self.total(), room: self.resident() });
        }
        if self.remainder.iter().zip(self.threads).any(|(some, all)| *some >= all.max(1)) {
            return Err(Refused::Threads { kernel: kernel(), threads: self.remainder, count, most });
        }
        if descriptor.has(10) {
            return Err(Refused::Needs { kernel: kernel(), what: "waves of 32 lanes".into() });
        }
        if descriptor.preload & 127 > 0 && descriptor.user_sgprs() > 16 {
            return Err(Refused::Needs { kernel: kernel(), what: "more than 16 user SGPRs".into() });
        }
        Ok(())
    }

    /// How many workgroups the device runs at a time.
    fn resident(&self) -> u64 {
        let processor = self.module.processor;
        let registers = self.kernel.descriptor.vector_registers().max(8);
        let of_simd = (512 / registers).clamp(1, 8);
        let by_registers = (4 * of_simd / self.waves_of_group().max(1)).max(1);
        let by_lds = u64::from(processor.lds_bytes()) / self.lds().max(1);
        let of_unit = u64::from(by_registers).min(by_lds.max(1)).min(16);
        u64::from(processor.compute_units()) * of_unit
    }

    /// The argument segment, hidden arguments filled in. It is followed by the dispatch packet and a queue of zeros.
    fn segment(&self) -> Vec<u64> {
        let takes = self.kernel.descriptor.kernarg as usize;
        let mut bytes = vec![0_u8; takes.next_multiple_of(64) + PACKET + QUEUE];
        bytes[..self.arguments.len()].copy_from_slice(self.arguments);
        for argument in self.kernel.described.arguments.iter().filter(|a| a.hidden) {
            let Some(value) = self.hidden(&argument.kind) else { continue };
            let (at, size) = (argument.offset as usize, (argument.size as usize).min(8));
            if let Some(place) = bytes[..takes].get_mut(at..at.saturating_add(size)) {
                place.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        let packet = takes.next_multiple_of(64);
        let mut put =
            |at: usize, value: &[u8]| bytes[packet + at..packet + at + value.len()].copy_from_slice(value);
        put(0, &0x0502_u16.to_le_bytes());
        put(2, &3_u16.to_le_bytes());
        for (i, (threads, blocks)) in self.threads.iter().zip(self.blocks).enumerate() {
            put(4 + 2 * i, &(*threads as u16).to_le_bytes());
            let whole = threads.wrapping_mul(blocks);
            let items = match self.remainder[i] {
                0 => whole,
                some => whole.wrapping_sub(*threads).wrapping_add(some),
            };
            put(12 + 4 * i, &items.to_le_bytes());
        }
        put(24, &self.kernel.descriptor.scratch.to_le_bytes());
        put(28, &(self.lds() as u32).to_le_bytes());
        bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            .collect()
    }

    /// The value of an argument that the runtime fills in; `None` leaves it zero.
    fn hidden(&self, kind: &str) -> Option<u64> {
        let axis = |name: &str| Some(usize::from(*name.as_bytes().last()?).wrapping_sub(usize::from(b'x')));
        let of = |values: [u32; 3], name: &str| values.get(axis(name)?).map(|v| u64::from(*v));
        let dimensions = || {
            let items = [0, 1, 2].map(|i| u64::from(self.blocks[i]) * u64::from(self.threads[i]));
            1 + items.iter().rposition(|n| *n > 1).unwrap_or(0) as u64
        };
        match kind.strip_prefix("hidden_")? {
            name @ ("block_count_x" | "block_count_y" | "block_count_z") => of(self.blocks, name),
            name @ ("group_size_x" | "group_size_y" | "group_size_z") => of(self.threads, name),
            name @ ("remainder_x" | "remainder_y" | "remainder_z") => of(self.remainder, name),
            "grid_dims" => Some(dimensions()),
            "dynamic_lds_size" => Some(u64::from(self.dynamic_lds)),
            "private_base" => Some(u64::from(PRIVATE_APERTURE)),
            "shared_base" => Some(u64::from(SHARED_APERTURE)),
            "printf_buffer" => Some(self.shared.printf_buffer),
            "hostcall_buffer" => Some(self.shared.hostcall_buffer),
            "heap_v1" => Some(self.shared.heap),
            _ => None,
        }
    }

    /// What the launch is watched for. What a launch with other contents does was seen before.
    fn watched(&self, contents: Contents, journal: Option<Journal>) -> Option<Scrutiny> {
        let Some(Watched { races, declared }) = self.scrutiny.clone().filter(|_| contents == Contents::USUAL)
        else {
            return journal.map(|journal| Scrutiny::default().with_journal(Some(journal)));
        };
        let mut scrutiny = Scrutiny::default().with_journal(journal).with_buffers(declared);
        // Numbers of waves have so many bits.
        if races && self.total() < u64::from(u32::MAX / clocks::WAVES) {
            let code: Vec<(u64, &Inst)> = self.module.code().map(|(_, at, inst)| (at, inst)).collect();
            let shared = [self.shared.printf_buffer, self.shared.hostcall_buffer];
            let shared = shared.iter().filter_map(|at| self.regions.iter().find(|r| r.holds(*at, 1)));
            let apart = shared.map(|region| (region.start, region.end)).collect();
            let base = code.first().map_or(0, |(at, _)| *at);
            let waves = self.waves_of_group();
            scrutiny = scrutiny.with_races(Races::new(self.blocks, waves, base, polls::find(&code), apart));
        }
        Some(scrutiny)
    }

    /// The memory that the kernel may touch beside its arguments.
    fn memory(&self) -> Vec<Region> {
        [self.regions, &self.module.regions].concat()
    }

    /// Runs the kernel.
    ///
    /// # Errors
    /// If the device would refuse the launch, or a wave cannot go on.
    pub fn run(&self) -> Result<Executed, LaunchError> {
        self.run_with(Contents::USUAL, self.watched(Contents::USUAL, None)).0
    }

    /// Runs the kernel with these contents of what nobody wrote, and keeps what memory held before; also who last wrote the
    /// bytes that are asked for.
    pub fn run_journalled(
        &self,
        contents: Contents,
        asked: BTreeSet<u64>,
    ) -> (Result<Executed, LaunchError>, Journal) {
        let journal = Journal::new(self.memory(), asked);
        let (result, parts) = self.run_with(contents, self.watched(contents, Some(journal)));
        (result, parts.journal.unwrap_or_default())
    }

    /// Runs the kernel and follows what flows where.
    pub fn run_followed(
        &self,
        tracking: Box<Tracking>,
    ) -> (Result<Executed, LaunchError>, Option<Box<Tracking>>) {
        let (result, parts) = self.run_with(Contents::USUAL, Some(Scrutiny::following(tracking)));
        (result, parts.tracking)
    }

    /// Runs the kernel and keeps the instructions of a wave.
    pub fn run_traced(&self, tracer: Box<Tracer>) -> (Result<Executed, LaunchError>, Option<Box<Tracer>>) {
        let (result, parts) = self.run_with(Contents::USUAL, Some(Scrutiny::tracing(tracer)));
        (result, parts.tracer)
    }

    fn run_with(
        &self,
        contents: Contents,
        scrutiny: Option<Scrutiny>,
    ) -> (Result<Executed, LaunchError>, Parts) {
        if let Err(refused) = self.check() {
            return (Err(refused.into()), scrutiny.map(Scrutiny::into_parts).unwrap_or_default());
        }
        let segment = self.segment();
        let start = segment.as_ptr().expose_provenance() as u64;
        let arguments = Region { start, end: start + 8 * segment.len() as u64, writable: false };
        let mut regions = self.memory();
        regions.push(arguments);
        // The kernel's arguments are no memory that waves might race for.
        let scrutiny = scrutiny.map(|scrutiny| Mutex::new(scrutiny.apart((arguments.start, arguments.end))));
        let space = Space::new(regions).watched(scrutiny);
        let total = self.total();
        if self.cooperative {
            // As HIP's runtime does before the kernel: the barrier of the grid is for one wave of each workgroup.
            space.sync.initialise(0, u32::try_from(total - 1).unwrap_or(u32::MAX));
        }
        let workers = if space.scrutiny.is_some() { 1 } else { self.workers.max(1) };
        let workers = (workers as u64).min(total) as usize;
        let grid = Grid {
            launch: self,
            segment: &segment,
            space: &space,
            contents,
            total,
            room: self.resident(),
            next: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            states: (0..workers).map(|_| AtomicU64::new(WORKS)).collect(),
            over: AtomicBool::new(false),
            stop: Mutex::new(None),
        };
        let mut executed = Executed::default();
        if workers == 1 {
            executed.add(grid.work(0));
        } else {
            std::thread::scope(|scope| {
                let grid = &grid;
                let threads: Vec<_> =
                    (0..workers).map(|worker| scope.spawn(move || grid.work(worker))).collect();
                for thread in threads {
                    match thread.join() {
                        Ok(counts) => executed.add(counts),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        }
        let stop = grid.stop.into_inner();
        let scrutiny =
            space.scrutiny.map(|scrutiny| scrutiny.into_inner().unwrap_or_else(|e| e.into_inner()));
        let mut parts = scrutiny.map(Scrutiny::into_parts).unwrap_or_default();
        executed.seen = std::mem::take(&mut parts.seen);
        match stop.unwrap_or_else(|e| e.into_inner()) {
            Some(stop) => (Err(LaunchError::Stopped(stop)), parts),
            None => (Ok(executed), parts),
        }
    }
}

/// Bytes of an AQL dispatch packet, and of what stands for its queue.
const PACKET: usize = 64;
const QUEUE: usize = 256;

/// A grid that is being worked on.
struct Grid<'a> {
    launch: &'a Launch<'a>,
    segment: &'a [u64],
    space: &'a Space,
    contents: Contents,
    total: u64,
    /// Workgroups that the device runs at a time.
    room: u64,
    /// The next workgroup to start, in dispatch order.
    next: AtomicU64,
    resident: AtomicU64,
    /// Rises whenever a workgroup did something that others may wait for.
    progress: AtomicU64,
    /// Of each worker: [`WORKS`], [`HAS_NONE`], or the progress since which all of its workgroups have been found waiting.
    states: Box<[AtomicU64]>,
    over: AtomicBool,
    stop: Mutex<Option<Box<Stop>>>,
}

/// The state of a worker whose workgroups may get on.
const WORKS: u64 = u64::MAX;
/// The state of a worker that has no workgroup, and can start none.
const HAS_NONE: u64 = u64::MAX - 1;

/// Turns that a workgroup has before the next resident one goes on.
const TURNS: u32 = 16;

impl<'a> Grid<'a> {
    /// One worker: starts workgroups and runs them to their ends.
    fn work(&self, worker: usize) -> Executed {
        let _plain = Plain::set();
        let mut counts = Counts::new(self.launch.module);
        let mut pool = Vec::new();
        let mut groups: VecDeque<Workgroup<'_>> = VecDeque::new();
        // Groups in a row that were found waiting; rounds since a group was last started; groups in a row that were found
        // waiting just as before, and the progress of all when that began.
        let (mut idle, mut slow, mut quiet, mut since) = (0, 0_u64, 0, 0);
        let mut asked = Instant::now();
        while !self.over.load(SeqCst) {
            if idle >= groups.len() || slow > 4 * groups.len() as u64 {
                if let Some(group) = self.start(&mut pool) {
                    groups.push_front(group);
                    slow = 0;
                } else if groups.is_empty() {
                    if self.next.load(SeqCst) >= self.total {
                        // Nothing that others wait for comes from this worker any more.
                        self.states[worker].store(HAS_NONE, SeqCst);
                        break;
                    }
                    self.wait_for_room(worker);
                }
            }
            let Some(mut group) = groups.pop_front() else { continue };
            if quiet == 0 {
                since = self.progress.load(SeqCst);
                asked = Instant::now();
            }
            match group.run(self.launch.module, TURNS, &mut counts) {
                Ok(Progress::Done) => {
                    self.progress.fetch_add(1, SeqCst);
                    self.resident.fetch_sub(1, SeqCst);
                    pool.extend(group.into_registers());
                    (idle, quiet) = (0, 0);
                }
                Ok(Progress::Going) => {
                    self.progress.fetch_add(1, SeqCst);
                    groups.push_back(group);
                    slow += 1;
                    (idle, quiet) = (0, 0);
                }
                Ok(Progress::Waiting { anew }) => {
                    groups.push_back(group);
                    idle += 1;
                    quiet += 1;
                    if anew {
                        self.progress.fetch_add(1, SeqCst);
                        quiet = 0;
                    }
                    if let Some(serve) = self.launch.shared.serve {
                        serve();
                    }
                    if quiet >= groups.len() && self.nothing_to_start() {
                        self.wait_for_others(worker, since, asked.elapsed(), &groups);
                        quiet = 0;
                    }
                }
                Err(stop) => self.end(stop),
            }
        }
        counts.into_executed(self.launch.module)
    }

    fn nothing_to_start(&self) -> bool {
        self.next.load(SeqCst) >= self.total || self.resident.load(SeqCst) >= self.room
    }

    /// Other workers' workgroups fill the device: waits until one of them ends. Meanwhile this worker counts as one that has
    /// none, so that a deadlock of the others is seen.
    fn wait_for_room(&self, worker: usize) {
        self.states[worker].store(HAS_NONE, SeqCst);
        while self.resident.load(SeqCst) >= self.room
            && self.next.load(SeqCst) < self.total
            && !self.over.load(SeqCst)
        {
            std::thread::sleep(Duration::from_micros(50));
        }
        self.states[worker].store(WORKS, SeqCst);
    }

    /// All workgroups of this worker have been found waiting since the progress of all was `seen`, which took `asking`:
    /// gives others time, and reports a deadlock if none of them gets on either. A worker that sleeps through what others
    /// do waits for something that may have come: it was asked before, and does not count.
    fn wait_for_others(&self, worker: usize, seen: u64, asking: Duration, groups: &VecDeque<Workgroup<'_>>) {
        self.states[worker].store(seen, SeqCst);
        // As long as the others may need to ask theirs, so that all are seen waiting at one time.
        let until = Instant::now() + 2 * asking + Duration::from_millis(4);
        while self.progress.load(SeqCst) == seen && !self.over.load(SeqCst) {
            let waits = |state: &AtomicU64| [HAS_NONE, seen].contains(&state.load(SeqCst));
            // The progress is read once more: nobody got on while the states were read one after the other.
            if self.states.iter().all(waits) && self.progress.load(SeqCst) == seen {
                if let Some(first) = groups.front() {
                    self.end(Box::new(first.waiting(self.launch.module, Fault::Deadlock)));
                }
                break;
            }
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        self.states[worker].store(WORKS, SeqCst);
    }

    /// Ends the launch; the first reason stands.
    fn end(&self, stop: Box<Stop>) {
        self.stop.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(stop);
        self.over.store(true, SeqCst);
    }

    /// Starts the next workgroup, if there is one and the device has room.
    fn start(&self, pool: &mut Vec<Box<[Lanes; 512]>>) -> Option<Workgroup<'a>> {
        if self.resident.fetch_add(1, SeqCst) >= self.room {
            self.resident.fetch_sub(1, SeqCst);
            return None;
        }
        let number = self.next.fetch_add(1, SeqCst);
        if number >= self.total {
            self.resident.fetch_sub(1, SeqCst);
            return None;
        }
        let [x, y, _] = self.launch.blocks.map(u64::from);
        let id = [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32];
        let lds = vec![0_u8; (self.launch.lds() as usize).next_multiple_of(4)];
        let mut lds = lds.into_boxed_slice();
        lds.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&self.contents.lds.to_le_bytes()));
        let waves = self.launch.threads_at(id).iter().product::<u32>().div_ceil(LANES as u32);
        let make =
            |group: &'a Group<'a>, index| self.wave(group, index, pool.pop().unwrap_or_else(registers));
        Some(Workgroup::new(self.space, lds, id, number as u32, waves, make).in_order(self.launch.order))
    }

    /// A wave as the dispatcher starts it.
    fn wave(&self, group: &'a Group<'a>, index: u32, registers: Box<[Lanes; 512]>) -> Wave<'a> {
        let Launch { module, kernel, .. } = self.launch;
        let descriptor = kernel.descriptor;
        let poison = self.contents.registers;
        let mut wave = Wave::with_registers(module.processor, group, index, registers, poison);
        let vectors = descriptor.vector_registers().min(512);
        wave.vgprs = descriptor.accum_offset().min(vectors).min(256) as usize;
        wave.agprs = (vectors - wave.vgprs as u32).min(256) as usize;
        for range in [0..wave.vgprs, 256..256 + wave.agprs] {
            wave.v[range].fill(Lanes::splat(poison));
        }
        wave.mode = Mode(descriptor.mode());
        wave.scc = false;
        self.set_lanes(&mut wave, index, self.launch.threads_at(group.id));
        self.set_user_sgprs(&mut wave, group);
        wave.scratch_size = self.launch.scratch();
        wave.scratch = vec![self.contents.scratch; self.launch.scratch() as usize * LANES];
        wave.pc = kernel.entry + if descriptor.preload & 127 > 0 { 256 } else { 0 };
        wave
    }

    /// EXEC, and the work items' places packed into v0.
    fn set_lanes(&self, wave: &mut Wave, index: u32, threads: [u32; 3]) {
        let count = threads.iter().product::<u32>();
        let first = index * LANES as u32;
        let lanes = (count - first).min(LANES as u32);
        wave.set_exec(u64::MAX >> (LANES as u32 - lanes));
        for (lane, packed) in wave.v[0].0.iter_mut().enumerate() {
            let flat = first + lane as u32;
            let (x, y) = (flat % threads[0], flat / threads[0] % threads[1]);
            let z = flat / threads[0] / threads[1];
            *packed = x | y << 10 | z << 20;
        }
    }

    fn set_user_sgprs(&self, wave: &mut Wave, group: &Group) {
        let descriptor = self.launch.kernel.descriptor;
        let arguments = self.segment.as_ptr().expose_provenance() as u64;
        let packet = arguments + (descriptor.kernarg as u64).next_multiple_of(64);
        let mut next = 0_u8;
        let mut pair = |wave: &mut Wave, value: u64| {
            wave.set_s64(next, value);
            next += 2;
        };
        if descriptor.has(0) {
            // The buffer of private memory, which code for an architected flat scratch does not use.
            pair(wave, 0);
            pair(wave, 0);
        }
        for (bit, value) in [(1, packet), (2, packet + PACKET as u64), (3, arguments), (4, 0), (5, 0)] {
            if descriptor.has(bit) {
                pair(wave, value);
            }
        }
        if descriptor.has(6) {
            wave.s[usize::from(next)] = self.launch.scratch();
            next += 1;
        }
        // Arguments that the dispatcher loads: a count and an offset, in dwords.
        let (count, offset) = (usize::from(descriptor.preload & 127), usize::from(descriptor.preload >> 7));
        for i in 0..count {
            let word = self.segment.get((offset + i) / 2).copied().unwrap_or(0);
            let register = usize::from(next) + i;
            if register < 102 {
                wave.s[register] = (word >> (32 * ((offset + i) % 2))) as u32;
            }
        }
        let mut next = descriptor.user_sgprs() as usize;
        for (bit, value) in [(7, group.id[0]), (8, group.id[1]), (9, group.id[2]), (10, 0)] {
            if descriptor.rsrc2 >> bit & 1 != 0 {
                wave.s[next] = value;
                next += 1;
            }
        }
        wave.s[usize::from(register::M0)] = u32::MAX;
    }
}
