//! The emulated device: its memory, the code objects that are loaded on it, launches one after the other.

use super::executed::Executed;
use super::findings::Scene;
use super::isa::Processor;
use super::launch::{Launch, LaunchError, Refused, Shared, Watched};
use super::loader::{LoadError, Module};
use super::memory::Region;
use super::provenance::Tracking;
use super::scrutiny::declared::Declared;
use super::trace::{Launching, Tracer};
use super::unwritten::Unwritten;
use super::wave::Fault;
use super::workgroup::{Stop, WaveOrder};
use super::{hip, requests, rerun};
use crate::record::{Finding, FindingKind};
use crate::symbol::readable;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// The emulated device of a process.
pub struct Device {
    processor: Processor,
    /// Threads of this machine that a launch may use.
    workers: usize,
    modules: Mutex<HashMap<u64, Arc<Module>>>,
    allocations: Mutex<BTreeMap<usize, Block>>,
    /// Host memory that kernels may touch: start and bytes.
    mapped: Mutex<BTreeMap<usize, usize>>,
    next: AtomicU64,
    executed: Mutex<Executed>,
    findings: Mutex<BTreeMap<(String, u64, FindingKind), Finding>>,
    /// The buffers that tests declare, by the start of their allocations.
    declared: Mutex<BTreeMap<u64, Declared>>,
    /// Whether launches that are scrutinised are looked at for races, too.
    races: AtomicBool,
    unwritten: Mutex<Unwritten>,
    /// What flows where, while a case runs once more to find that out.
    tracking: Mutex<Option<Box<Tracking>>>,
    /// Keeps the instructions of a wave, while a case runs once more for that.
    tracer: Mutex<Option<Box<Tracer>>>,
}

/// One allocation: a mapping with an inaccessible page behind it.
struct Block {
    bytes: usize,
    mapped: usize,
    kind: hip::MemoryKind,
}

/// How a launch ended.
type Outcome = Result<Executed, LaunchError>;

/// Bits of a kernel's handle that are its number among the kernels of its module.
const KERNEL_BITS: u32 = 24;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Device {
    pub fn new(processor: Processor, workers: usize) -> Device {
        Device {
            processor,
            workers,
            modules: Mutex::default(),
            allocations: Mutex::default(),
            mapped: Mutex::default(),
            next: AtomicU64::new(1),
            executed: Mutex::default(),
            findings: Mutex::default(),
            declared: Mutex::default(),
            races: AtomicBool::new(false),
            unwritten: Mutex::default(),
            tracking: Mutex::default(),
            tracer: Mutex::default(),
        }
    }

    pub fn processor(&self) -> Processor {
        self.processor
    }

    /// What was executed since the last call.
    pub fn take_executed(&self) -> Executed {
        std::mem::take(&mut *lock(&self.executed))
    }

    /// The mistakes that kernels were seen to make since the last call, by kernel and offset.
    pub fn take_findings(&self) -> Vec<Finding> {
        std::mem::take(&mut *lock(&self.findings)).into_values().collect()
    }

    /// Keeps mistakes of a launch, each place of a kernel once.
    fn keep(&self, found: impl IntoIterator<Item = Finding>) {
        let mut findings = lock(&self.findings);
        for finding in found {
            findings.entry((finding.kernel.clone(), finding.offset, finding.kind)).or_insert(finding);
        }
    }

    /// Keeps the mistakes of a launch that has ended well.
    fn keep_findings(&self, scene: &Scene<'_>, executed: &Executed) {
        let missing = executed.missing_waits.iter().map(|(at, unawaited)| scene.missing_wait(*at, unawaited));
        let errata = executed.errata.iter().map(|(at, erratum)| scene.erratum(*at, erratum));
        let hazards = executed.hazards.iter().map(|(at, hazard)| scene.hazard(*at, hazard));
        let seen = executed.seen.iter().map(|((at, _), sighting)| scene.seen(*at, sighting));
        self.keep(missing.chain(hazards).chain(errata).chain(seen));
    }

    /// Names the memory of a buffer.
    pub fn declare(&self, declared: Declared) {
        lock(&self.declared).insert(declared.around.0, declared);
    }

    /// The buffer whose allocation starts here is no more.
    pub fn forget(&self, start: u64) {
        lock(&self.declared).remove(&start);
    }

    /// What the framework put into this memory is not to be read by a kernel before somebody writes it.
    pub fn nobody_wrote(&self, address: u64, bytes: u64) {
        lock(&self.unwritten).set(address, bytes, false);
    }

    /// Follows what flows where in the launches to come; gives back what was followed before.
    pub fn follow(&self, tracking: Option<Box<Tracking>>) -> Option<Box<Tracking>> {
        std::mem::replace(&mut *lock(&self.tracking), tracking)
    }

    /// Runs a launch that is followed.
    fn followed(&self, run: &Launch<'_>, declared: &[Declared], mut tracking: Box<Tracking>) -> Outcome {
        tracking.begin_launch(run.module, declared);
        let (result, tracking) = run.run_followed(tracking);
        if let Some(mut tracking) = tracking {
            let Launch { module, kernel, .. } = run;
            tracking.end_launch(|at| {
                let mnemonic = module.instruction(at).map_or("?", |inst| inst.row.mnemonic);
                let offset = at.wrapping_sub(kernel.entry);
                (kernel.described.name.clone(), mnemonic.to_owned(), offset, module.line(at))
            });
            *lock(&self.tracking) = Some(tracking);
        }
        result
    }

    /// Keeps the instructions of a wave in the launches to come; gives back what was kept before.
    pub fn trace(&self, tracer: Option<Box<Tracer>>) -> Option<Box<Tracer>> {
        std::mem::replace(&mut *lock(&self.tracer), tracer)
    }

    /// Runs a launch while a wave is looked for whose instructions are to be kept.
    fn traced(&self, run: &Launch<'_>, declared: &[Declared], mut tracer: Box<Tracer>) -> Outcome {
        let readable = readable(&run.kernel.described.name);
        let Launch { module, kernel, blocks, threads, .. } = *run;
        let launching = Launching { module, kernel, readable: &readable, blocks, threads, declared };
        if !tracer.begin_launch(&launching) {
            *lock(&self.tracer) = Some(tracer);
            return run.run();
        }
        let (result, tracer) = run.run_traced(tracer);
        if let Some(mut tracer) = tracer {
            let stop = match &result {
                Err(LaunchError::Stopped(stop)) => Some(&**stop),
                _ => None,
            };
            tracer.end_launch(&launching, stop);
            *lock(&self.tracer) = Some(tracer);
        }
        result
    }

    /// Looks for races in launches that are scrutinised.
    pub fn look_for_races(&self, look: bool) {
        self.races.store(look, Relaxed);
    }

    fn module(&self, id: u64) -> Option<Arc<Module>> {
        lock(&self.modules).get(&id).cloned()
    }

    /// The module of a kernel, and the kernel's number there.
    fn kernel_of(&self, id: hip::KernelId) -> Option<(Arc<Module>, usize)> {
        let module = self.module(id.0 >> KERNEL_BITS)?;
        let number = (id.0 & ((1 << KERNEL_BITS) - 1)) as usize;
        (number < module.kernels.len()).then_some((module, number))
    }

    /// Everything that a kernel may touch: all allocations, all code objects, host memory that is mapped.
    fn regions(&self) -> Vec<Region> {
        let region = |start: usize, bytes: usize| Region {
            start: start as u64,
            end: (start + bytes) as u64,
            writable: true,
        };
        let mut regions: Vec<Region> =
            lock(&self.allocations).iter().map(|(start, block)| region(*start, block.bytes)).collect();
        regions.extend(lock(&self.mapped).iter().map(|(start, bytes)| region(*start, *bytes)));
        regions
    }
}

const PAGE: usize = 4096;

/// Maps memory with an inaccessible page behind it.
fn map(bytes: usize) -> Option<(usize, usize)> {
    let mapped = bytes.checked_next_multiple_of(PAGE)?.checked_add(PAGE)?;
    // SAFETY: an anonymous mapping at an address that the system chooses touches no other memory; its last page is
    // inside of it.
    unsafe {
        let (read_write, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        let address = libc::mmap(std::ptr::null_mut(), mapped, read_write, flags, -1, 0);
        if address == libc::MAP_FAILED {
            return None;
        }
        let start = address.expose_provenance();
        let behind = std::ptr::with_exposed_provenance_mut(start + mapped - PAGE);
        if libc::mprotect(behind, PAGE, libc::PROT_NONE) != 0 {
            libc::munmap(address, mapped);
            return None;
        }
        Some((start, mapped))
    }
}

/// Why a kernel, which the stand-in names, did not end well: the instruction and where it stands in the source.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .stop.fault, self.place())]
pub struct Stopped {
    pub stop: Stop,
    /// The instruction's address as the code object counts it.
    pub offset: u64,
    pub line: Option<(String, u32)>,
}

impl Stopped {
    fn place(&self) -> String {
        let Stop { instruction, workgroup: [x, y, z], wave, .. } = &self.stop;
        let instruction = instruction.as_deref().unwrap_or("no instruction");
        let line = self.line.as_ref().map_or(String::new(), |(file, line)| format!(" ({file}:{line})"));
        format!(
            ", in `{instruction}` at offset {:#x}{line}, workgroup ({x}, {y}, {z}), wave {wave}",
            self.offset
        )
    }
}

impl hip::Engine for Device {
    fn processor(&self) -> Processor {
        self.processor
    }

    fn load(&self, code_object: &[u8]) -> Result<hip::ModuleId, hip::LoadError> {
        let module = Module::load(code_object, self.processor).map_err(|error| hip::LoadError {
            kind: match &error {
                LoadError::OtherProcessor { .. } => hip::LoadErrorKind::OtherProcessor,
                LoadError::Memory { .. } => hip::LoadErrorKind::Memory,
                _ => hip::LoadErrorKind::Invalid,
            },
            cause: Arc::new(error),
        })?;
        let id = self.next.fetch_add(1, Relaxed);
        lock(&self.modules).insert(id, Arc::new(module));
        Ok(hip::ModuleId(id))
    }

    fn unload(&self, module: hip::ModuleId) {
        lock(&self.modules).remove(&module.0);
    }

    fn kernel(&self, module: hip::ModuleId, name: &str) -> Option<hip::KernelId> {
        let kernels = &self.module(module.0)?.kernels;
        let number = kernels.iter().position(|kernel| kernel.described.name == name)?;
        Some(hip::KernelId(module.0 << KERNEL_BITS | number as u64))
    }

    fn kernel_count(&self, module: hip::ModuleId) -> usize {
        self.module(module.0).map_or(0, |module| module.kernels.len())
    }

    fn kernel_info(&self, kernel: hip::KernelId) -> hip::KernelInfo {
        self.kernel_of(kernel).map_or_else(hip::KernelInfo::default, |(module, number)| {
            hip::KernelInfo::from(&module.kernels[number].described)
        })
    }

    fn variable(&self, module: hip::ModuleId, name: &str) -> Option<(usize, usize)> {
        let module = self.module(module.0)?;
        let (address, bytes) = *module.variables.get(name)?;
        Some((address as usize, bytes as usize))
    }

    fn printf_formats(&self, module: hip::ModuleId) -> Vec<String> {
        self.module(module.0).map_or(Vec::new(), |module| module.printf_formats.clone())
    }

    fn allocate(&self, bytes: usize, kind: hip::MemoryKind) -> Option<usize> {
        let (start, mapped) = map(bytes)?;
        lock(&self.allocations).insert(start, Block { bytes, mapped, kind });
        if let Some(tracking) = &mut *lock(&self.tracking) {
            tracking.forget(start as u64, bytes as u64);
        }
        if kind == hip::MemoryKind::Device && requests::is_scrutinised() {
            lock(&self.unwritten).allocated(start, bytes);
        }
        Some(start)
    }

    fn free(&self, address: usize) -> bool {
        let Some(block) = lock(&self.allocations).remove(&address) else { return false };
        lock(&self.unwritten).freed(address);
        // SAFETY: the mapping was made by `map` with this length, and is in no list any more.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(address), block.mapped) };
        true
    }

    fn allocation(&self, address: usize) -> Option<hip::Allocation> {
        let allocations = lock(&self.allocations);
        let (start, block) = allocations.range(..=address).next_back()?;
        let found = hip::Allocation { start: *start, bytes: block.bytes, kind: block.kind };
        (address < start + block.bytes).then_some(found)
    }

    fn host_copies(&self, from: usize, to: usize, bytes: usize) {
        if let Some(tracking) = &mut *lock(&self.tracking) {
            tracking.host_copied(from as u64, to as u64, bytes as u64);
        }
        lock(&self.unwritten).set(to as u64, bytes as u64, true);
    }

    fn host_writes(&self, address: usize, bytes: usize) {
        if let Some(tracking) = &mut *lock(&self.tracking) {
            tracking.host_wrote(address as u64, bytes as u64);
        }
        lock(&self.unwritten).set(address as u64, bytes as u64, true);
    }

    fn map_host(&self, address: usize, bytes: usize) {
        lock(&self.mapped).insert(address, bytes);
    }

    fn unmap_host(&self, address: usize) {
        lock(&self.mapped).remove(&address);
    }

    fn launch(&self, launch: &hip::Launch) -> Result<(), hip::LaunchError> {
        let failed = |kind, cause: hip::Cause| hip::LaunchError { kind, cause };
        let Some((module, number)) = self.kernel_of(launch.kernel) else {
            let cause = Refused::Needs { kernel: "?".into(), what: "a module that is still loaded".into() };
            return Err(failed(hip::LaunchErrorKind::Configuration, Arc::new(cause)));
        };
        let kernel = &module.kernels[number];
        let serve = || {
            launch.service.serve();
        };
        let regions = self.regions();
        let declared: Arc<Vec<Declared>> = Arc::new(lock(&self.declared).values().cloned().collect());
        let run = Launch {
            remainder: launch.remainder,
            dynamic_lds: launch.dynamic_lds,
            cooperative: launch.cooperative,
            order: launch.order,
            arguments: launch.arguments,
            shared: Shared {
                printf_buffer: launch.printf_buffer as u64,
                hostcall_buffer: launch.hostcall_buffer as u64,
                heap: 0,
                serve: Some(&serve),
            },
            regions: &regions,
            workers: self.workers,
            scrutiny: requests::is_scrutinised()
                .then(|| Watched { races: self.races.load(Relaxed), declared: declared.clone() }),
            ..Launch::new(&module, kernel, launch.blocks, launch.threads)
        };
        // What a kernel has said to the host cannot be taken back.
        let can_repeat = launch.printf_buffer == 0 && launch.hostcall_buffer == 0;
        let tracking = lock(&self.tracking).take();
        let tracer = lock(&self.tracer).take();
        let is_repeated = tracking.is_some() || tracer.is_some();
        let mut unwritten = lock(&self.unwritten);
        let result = if let Some(tracking) = tracking {
            unwritten.forget();
            self.followed(&run, &declared, tracking)
        } else if let Some(tracer) = tracer {
            unwritten.forget();
            self.traced(&Launch { scrutiny: None, ..run }, &declared, tracer)
        } else if run.scrutiny.is_some() && can_repeat {
            rerun::run(&run, &mut unwritten)
        } else {
            // Nobody notes what it writes.
            unwritten.forget();
            run.run()
        };
        drop(unwritten);
        let in_step = launch.order == WaveOrder::InStep;
        let scene = Scene { module: &module, kernel, declared: &declared, in_step };
        match result {
            // The case was counted and looked at before.
            Ok(_) if is_repeated => Ok(()),
            Ok(mut executed) => {
                self.keep_findings(&scene, &executed);
                executed.missing_waits.clear();
                executed.seen.clear();
                lock(&self.executed).add(executed);
                Ok(())
            }
            Err(LaunchError::Refused(refused)) => {
                use hip::LaunchErrorKind::{Configuration, CooperativeTooLarge, Resources};
                let kind = match refused {
                    Refused::Lds { .. } | Refused::Scratch { .. } => Resources,
                    Refused::Cooperative { .. } => CooperativeTooLarge,
                    _ => Configuration,
                };
                Err(failed(kind, Arc::new(refused)))
            }
            Err(LaunchError::Stopped(stop)) => {
                self.keep(scene.stopped(&stop));
                let kind = match &stop.fault {
                    Fault::Memory { .. } | Fault::Misaligned { .. } => hip::LaunchErrorKind::IllegalAddress,
                    _ => hip::LaunchErrorKind::Failure,
                };
                let (offset, line) = (module.offset(stop.pc), module.line(stop.pc));
                Err(failed(kind, Arc::new(Stopped { stop: *stop, offset, line })))
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for (start, block) in std::mem::take(&mut *lock(&self.allocations)) {
            // SAFETY: the mapping was made by `map` with this length; nothing runs on a device that is dropped.
            unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), block.mapped) };
        }
    }
}
