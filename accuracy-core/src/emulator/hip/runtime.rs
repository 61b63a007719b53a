//! What the stand-in knows: handles, registered libraries, and what became of the device.

use super::engine::{Allocation, Engine, KernelId, KernelInfo, MemoryKind, ModuleId};
use super::graph::{Capture, Graph};
use super::output::Output;
use super::problem::{Failure, HandleKind, Home, Problem, What};
use super::status::Status;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

/// The stand-in for HIP's runtime, on one engine.
pub(super) struct Runtime {
    pub engine: Arc<dyn Engine>,
    state: Mutex<State>,
    problems: Mutex<Vec<Problem>>,
    /// The error that every call returns once a kernel has ended with a fault.
    lost: OnceLock<Status>,
    pub output: Output,
}

/// Handles and what they stand for.
#[derive(Default)]
pub(super) struct State {
    handles: usize,
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Event>,
    pub modules: HashMap<usize, Module>,
    /// `hipFunction_t`.
    pub functions: HashMap<usize, Arc<Function>>,
    /// Most bytes of dynamic LDS of a function, where `hipFuncSetAttribute` has set it.
    pub dynamic_lds: HashMap<KernelId, u32>,
    pub fat_binaries: HashMap<usize, FatBinary>,
    /// Host functions that stand for kernels, by address.
    pub host_functions: HashMap<usize, HostFunction>,
    /// Host variables that stand for device variables, by address.
    pub host_variables: HashMap<usize, HostVariable>,
    /// Device variables whose address has been asked for: bytes by address.
    pub variables: BTreeMap<usize, usize>,
    /// Addresses of those variables by the module that they belong to.
    pub variables_of: HashMap<ModuleId, Vec<usize>>,
    /// Modules whose host calls use phases.
    pub phases: HashSet<ModuleId>,
    /// Host memory of `hipHostRegister`: bytes and flags by address.
    pub registered: BTreeMap<usize, (usize, u32)>,
    /// Flags of `hipHostMalloc` and its like by address.
    pub flags: HashMap<usize, u32>,
    pub pools: HashMap<usize, Pool>,
    pub graphs: HashMap<usize, Graph>,
    /// The graph that each node belongs to.
    pub nodes: HashMap<usize, usize>,
    pub graph_execs: HashMap<usize, Graph>,
    /// Captures under way, by the stream that each began on.
    pub captures: HashMap<usize, Capture>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub flags: u32,
    pub priority: i32,
    /// The number that `hipStreamGetId` gives.
    pub id: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub flags: u32,
    pub recorded: Option<Instant>,
    /// The stream whose capture recorded it.
    pub capture: Option<usize>,
}

/// A code object that `hipModuleLoad` and its like have loaded.
pub(super) struct Module {
    pub id: ModuleId,
    /// Handles of its functions, by name.
    pub functions: HashMap<String, usize>,
}

/// A kernel that can be launched.
#[derive(Debug)]
pub(super) struct Function {
    pub kernel: KernelId,
    pub module: ModuleId,
    pub info: KernelInfo,
    /// For calls that return the name.
    pub name: CString,
}

/// A library's fat binary, as the library registered it.
pub(super) struct FatBinary {
    /// Address of the bundle.
    pub image: usize,
    pub loaded: Option<Result<ModuleId, Failure>>,
    /// Managed variables: name and address of the pointer on the host.
    pub managed: Vec<(String, usize)>,
}

pub(super) struct HostFunction {
    pub fat_binary: usize,
    /// As the library registered it; calls return it whether or not the code object can be loaded.
    pub name: CString,
    /// Its `hipFunction_t`, once it was asked for.
    pub handle: Option<usize>,
}

pub(super) struct HostVariable {
    pub fat_binary: usize,
    pub name: String,
    pub bytes: usize,
    /// For a managed variable its memory.
    pub managed: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pool {
    pub reuse: [i32; 3],
    pub release_threshold: u64,
}

/// Handles start here: no address of a process on either host is as high.
const FIRST_HANDLE: usize = 0x00a1_0000_0000_0000;
const HANDLE_STEP: usize = 0x40;

impl State {
    /// A handle that was never given before.
    pub fn handle(&mut self) -> usize {
        self.handles += 1;
        FIRST_HANDLE + self.handles * HANDLE_STEP
    }
}

impl Runtime {
    pub fn new(engine: Arc<dyn Engine>) -> Runtime {
        Runtime {
            engine,
            state: Mutex::default(),
            problems: Mutex::default(),
            lost: OnceLock::new(),
            output: Output::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn report(&self, problem: Problem) {
        self.problems.lock().unwrap_or_else(|e| e.into_inner()).push(problem);
    }

    /// Notes a problem that does not make the call fail.
    pub fn note(&self, call: &'static str, what: What) {
        self.report(Problem { call, what });
    }

    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut self.problems.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// The error of a kernel's fault, if there was one.
    pub fn lost(&self) -> Option<Status> {
        self.lost.get().copied()
    }

    /// Gives the device up after a kernel's fault: from here on every call returns this status.
    pub fn lose(&self, status: Status) {
        // The first fault stays.
        let _ = self.lost.set(status);
    }

    /// The memory that holds this address, and what it is; `None` for host memory that HIP knows nothing of.
    pub fn memory(&self, address: usize) -> Option<(Allocation, Home)> {
        if let Some(allocation) = self.engine.allocation(address) {
            let home = match allocation.kind {
                MemoryKind::Device => Home::Device,
                MemoryKind::Host => Home::Pinned,
                MemoryKind::Managed => Home::Managed,
            };
            return Some((allocation, home));
        }
        let state = self.state();
        let holds = |start: usize, bytes: usize| address.checked_sub(start).is_some_and(|at| at < bytes);
        if let Some((&start, &bytes)) = state.variables.range(..=address).next_back()
            && holds(start, bytes)
        {
            return Some((Allocation { start, bytes, kind: MemoryKind::Device }, Home::Device));
        }
        let (&start, &(bytes, _)) = state.registered.range(..=address).next_back()?;
        holds(start, bytes).then_some((Allocation { start, bytes, kind: MemoryKind::Host }, Home::Pinned))
    }

    /// The kernel that a `hipFunction_t` stands for.
    pub fn function(&self, handle: usize) -> Result<Arc<Function>, Failure> {
        self.state()
            .functions
            .get(&handle)
            .cloned()
            .ok_or_else(|| Failure::handle(HandleKind::Function, handle))
    }

    /// Looks a kernel up in a loaded code object.
    pub fn find(&self, module: ModuleId, name: &str) -> Result<Function, Failure> {
        let missing = || What::NoKernel { kernel: name.into() };
        let kernel =
            self.engine.kernel(module, name).ok_or_else(|| Failure::new(Status::NotFound, missing()))?;
        let info = self.engine.kernel_info(kernel);
        // A name with a zero in it cannot come out of a symbol table.
        let name = CString::new(name).unwrap_or_default();
        Ok(Function { kernel, module, info, name })
    }

    /// Address and bytes of a variable; copies to and from it are allowed from here on.
    pub fn variable(&self, module: ModuleId, name: &str) -> Result<(usize, usize), Failure> {
        let missing = || Failure::new(Status::NotFound, What::NoVariable { variable: name.into() });
        let (address, bytes) = self.engine.variable(module, name).ok_or_else(missing)?;
        let mut state = self.state();
        if state.variables.insert(address, bytes).is_none() {
            state.variables_of.entry(module).or_default().push(address);
        }
        Ok((address, bytes))
    }
}
