//! The stand-in, driven as a library drives it: through the addresses in its tables, on an engine that only takes notes.

use super::abi::{self, Version};
use super::engine::*;
use super::runtime::Runtime;
use super::*;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard};

/// Calls a function of the stand-in by its name, with these arguments of these types.
macro_rules! call {
    ($stand_in:expr, $name:expr, ($($argument:expr => $ty:ty),* $(,)?) -> $result:ty) => {{
        // SAFETY: the tests pass the types of HIP's headers.
        let function = unsafe {
            std::mem::transmute::<*const c_void, extern "C" fn($($ty),*) -> $result>($stand_in.address($name))
        };
        function($($argument),*)
    }};
    ($stand_in:expr, $name:expr, ($($argument:expr => $ty:ty),* $(,)?)) => {
        call!($stand_in, $name, ($($argument => $ty),*) -> c_int)
    };
}

/// An engine that takes notes. Its code objects are text: a kernel a line (`kernel NAME BYTES:OFFSET...`), a variable a
/// line (`variable NAME BYTES`).
#[derive(Default)]
pub(super) struct Notes {
    state: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    allocations: BTreeMap<usize, (Box<[u128]>, usize, MemoryKind)>,
    modules: HashMap<u64, String>,
    kernels: Vec<(u64, KernelInfo)>,
    variables: HashMap<(u64, String), (usize, usize)>,
    launches: Vec<Launched>,
    next_error: Option<LaunchErrorKind>,
    mapped: BTreeMap<usize, usize>,
    next_module: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Launched {
    kernel: String,
    blocks: [u32; 3],
    remainder: [u32; 3],
    threads: [u32; 3],
    dynamic_lds: u32,
    arguments: Vec<u8>,
    cooperative: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("noted")]
struct NotedError;

impl Notes {
    fn state(&self) -> MutexGuard<'_, Noted> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn launches(&self) -> Vec<Launched> {
        std::mem::take(&mut self.state().launches)
    }

    fn fail_next(&self, kind: LaunchErrorKind) {
        self.state().next_error = Some(kind);
    }
}

fn kernel_of(line: &str) -> Option<KernelInfo> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != "kernel" {
        return None;
    }
    let name = words.next()?.to_owned();
    let arguments: Vec<Argument> = words
        .map(|argument| {
            let (bytes, offset) = argument.split_once('@').unwrap();
            Argument {
                offset: offset.parse().unwrap(),
                bytes: bytes.parse().unwrap(),
                kind: "by_value".into(),
            }
        })
        .collect();
    let kernarg_bytes = arguments.iter().map(|a| a.offset + a.bytes).max().unwrap_or(0);
    Some(KernelInfo {
        name,
        arguments,
        kernarg_bytes,
        vgprs: 96,
        agprs: 0,
        sgprs: 40,
        static_lds: 1000,
        scratch_bytes: 16,
        max_workgroup_size: 512,
    })
}

impl Engine for Notes {
    fn processor(&self) -> Processor {
        Processor::Gfx950
    }

    fn load(&self, code_object: &[u8]) -> Result<ModuleId, LoadError> {
        let text = code_object.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).ok().filter(|text| text.starts_with('#'));
        let error = LoadError { kind: LoadErrorKind::Invalid, cause: Arc::new(NotedError) };
        let text = text.ok_or(error)?.to_owned();
        let mut state = self.state();
        state.next_module += 1;
        let id = state.next_module;
        state.modules.insert(id, text);
        Ok(ModuleId(id))
    }

    fn unload(&self, module: ModuleId) {
        self.state().modules.remove(&module.0);
    }

    fn kernel(&self, module: ModuleId, name: &str) -> Option<KernelId> {
        let mut state = self.state();
        let info = state.modules.get(&module.0)?.lines().filter_map(kernel_of).find(|k| k.name == name)?;
        state.kernels.push((module.0, info));
        Some(KernelId(state.kernels.len() as u64 - 1))
    }

    fn kernel_count(&self, module: ModuleId) -> usize {
        self.state().modules.get(&module.0).map_or(0, |text| text.lines().filter_map(kernel_of).count())
    }

    fn kernel_info(&self, kernel: KernelId) -> KernelInfo {
        self.state().kernels[kernel.0 as usize].1.clone()
    }

    fn variable(&self, module: ModuleId, name: &str) -> Option<(usize, usize)> {
        let mut state = self.state();
        let bytes: usize = state.modules.get(&module.0)?.lines().find_map(|line| {
            line.strip_prefix("variable ")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
        })?;
        let place = state.variables.entry((module.0, name.into())).or_insert_with(|| {
            let memory: &'static mut [u8] = Box::leak(vec![0; bytes].into_boxed_slice());
            (memory.as_mut_ptr().expose_provenance(), bytes)
        });
        Some(*place)
    }

    fn printf_formats(&self, _module: ModuleId) -> Vec<String> {
        Vec::new()
    }

    fn allocate(&self, bytes: usize, kind: MemoryKind) -> Option<usize> {
        assert_ne!(bytes, 0);
        if bytes > 1 << 40 {
            return None;
        }
        let mut memory = vec![0_u128; bytes.div_ceil(16)].into_boxed_slice();
        let address = memory.as_mut_ptr().expose_provenance();
        self.state().allocations.insert(address, (memory, bytes, kind));
        Some(address)
    }

    fn free(&self, address: usize) -> bool {
        self.state().allocations.remove(&address).is_some()
    }

    fn allocation(&self, address: usize) -> Option<Allocation> {
        let state = self.state();
        let (&start, (_, bytes, kind)) = state.allocations.range(..=address).next_back()?;
        (address - start < *bytes).then_some(Allocation { start, bytes: *bytes, kind: *kind })
    }

    fn map_host(&self, address: usize, bytes: usize) {
        self.state().mapped.insert(address, bytes);
    }

    fn unmap_host(&self, address: usize) {
        self.state().mapped.remove(&address);
    }

    fn launch(&self, launch: &Launch) -> Result<(), LaunchError> {
        let mut state = self.state();
        if let Some(kind) = state.next_error.take() {
            return Err(LaunchError { kind, cause: Arc::new(NotedError) });
        }
        let kernel = state.kernels[launch.kernel.0 as usize].1.name.clone();
        let Launch { blocks, remainder, threads, dynamic_lds, cooperative, .. } = *launch;
        let arguments = launch.arguments.to_vec();
        state.launches.push(Launched {
            kernel,
            blocks,
            remainder,
            threads,
            dynamic_lds,
            arguments,
            cooperative,
        });
        Ok(())
    }
}

/// The stand-in on a new engine, for as long as the test holds it.
struct StandIn {
    notes: Arc<Notes>,
    version: Version,
    calls: HashMap<&'static str, abi::Entry>,
    _alone: MutexGuard<'static, ()>,
}

impl StandIn {
    fn new() -> StandIn {
        StandIn::of(Version::V6)
    }

    fn of(version: Version) -> StandIn {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
        let notes = Arc::new(Notes::default());
        abi::set_current(Arc::new(Runtime::new(notes.clone())));
        abi::take_last_error();
        StandIn { notes, version, calls: library::entries(), _alone: alone }
    }

    fn address(&self, name: &str) -> *const c_void {
        let addresses = self.calls[name].addresses;
        std::ptr::with_exposed_provenance(addresses[self.version as usize - 5])
    }

    fn problems(&self) -> Vec<What> {
        take_problems().into_iter().map(|problem| problem.what).collect()
    }

    /// The one problem since the last question.
    fn problem(&self) -> What {
        let problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    fn malloc(&self, bytes: usize) -> usize {
        let mut address = 0_usize;
        let status = call!(self, "hipMalloc", (&raw mut address => *mut usize, bytes => usize));
        assert_eq!(status, 0);
        address
    }

    /// A loaded module of this text.
    fn module(&self, text: &str) -> usize {
        let image = CString::new(format!("# {}{text}", "-".repeat(64))).unwrap();
        let mut module = 0_usize;
        let image = image.as_ptr();
        assert_eq!(
            call!(self, "hipModuleLoadData", (&raw mut module => *mut usize, image => *const c_char)),
            0
        );
        module
    }

    fn function(&self, module: usize, name: &CStr) -> usize {
        let mut function = 0_usize;
        let name = name.as_ptr();
        let status = call!(
            self,
            "hipModuleGetFunction",
            (&raw mut function => *mut usize, module => usize, name => *const c_char)
        );
        assert_eq!(status, 0);
        function
    }
}

/// The machine code of `a * x` is not needed: what arrives at the engine is.
const KERNEL: &str = "\nkernel scale 8@0 8@8 4@16 1@20\nkernel nothing\nvariable table 64";

#[test]
fn arguments_come_to_their_offsets_from_pointers_and_from_a_buffer() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"scale");
    let (y, x, n, flag) = (0x1111_2222_3333_4444_u64, 0x5555_6666_7777_8888_u64, 77_u32, 1_u8);
    let mut pointers =
        [(&raw const y).addr(), (&raw const x).addr(), (&raw const n).addr(), (&raw const flag).addr()];
    let mut expected = [y.to_le_bytes(), x.to_le_bytes()].concat();
    expected.extend(n.to_le_bytes());
    expected.push(flag);
    let launch = |arguments: *mut usize, extra: *mut usize| {
        call!(
            hip,
            "hipModuleLaunchKernel",
            (
                function => usize, 4 => u32, 3 => u32, 2 => u32, 64 => u32, 2 => u32, 1 => u32, 512 => u32,
                0 => usize, arguments => *mut usize, extra => *mut usize,
            )
        )
    };
    // The addresses of locals, as a launcher passes them.
    for pointer in &mut pointers {
        *pointer = std::ptr::without_provenance::<u8>(*pointer).expose_provenance();
    }
    let _exposed = [
        (&raw const y).expose_provenance(),
        (&raw const x).expose_provenance(),
        (&raw const n).expose_provenance(),
        (&raw const flag).expose_provenance(),
    ];
    assert_eq!(launch(pointers.as_mut_ptr(), std::ptr::null_mut()), 0);

    let mut buffer = expected.clone();
    buffer.resize(32, 0xaa);
    let mut size = buffer.len();
    let mut extra = [1, buffer.as_mut_ptr().expose_provenance(), 2, (&raw mut size).expose_provenance(), 3];
    assert_eq!(launch(std::ptr::null_mut(), extra.as_mut_ptr()), 0);

    let launched = Launched {
        kernel: "scale".into(),
        blocks: [4, 3, 2],
        remainder: [0; 3],
        threads: [64, 2, 1],
        dynamic_lds: 512,
        arguments: expected,
        cooperative: false,
    };
    assert_eq!(hip.notes.launches(), [launched.clone(), launched]);
    assert!(hip.problems().is_empty());
}
