//! The stand-in, driven as a library drives it: through the addresses in its tables, on an engine that only takes
//! notes.

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

/// An engine that takes notes. Its code objects are text: a kernel a line (`kernel NAME BYTES:OFFSET...`), a variable
/// a line (`variable NAME BYTES`).
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
                name: argument.starts_with("12@").then(|| "pad".into()),
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
        let (open, handled) = take_problems();
        open.into_iter().chain(handled).map(|problem| problem.what).collect()
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
const KERNEL: &str =
    "\nkernel padded 4@0 12@4\nkernel scale 8@0 8@8 4@16 1@20\nkernel nothing\nvariable table 64";

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

#[test]
fn arguments_that_do_not_fit_the_metadata_are_named() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"scale");
    let launch = |arguments: *const usize, extra: *const usize| {
        call!(
            hip,
            "hipModuleLaunchKernel",
            (
                function => usize, 1 => u32, 1 => u32, 1 => u32, 64 => u32, 1 => u32, 1 => u32, 0 => u32,
                0 => usize, arguments => *const usize, extra => *const usize,
            )
        )
    };
    let null = std::ptr::null();
    assert_eq!(launch(null, null), 1);
    assert!(matches!(hip.problem(), What::NoArguments { takes: 4, .. }));

    let value = 0_u64;
    let pointer = (&raw const value).expose_provenance();
    assert_eq!(launch([pointer, pointer, 0, pointer].as_ptr(), null), 1);
    assert!(matches!(hip.problem(), What::NullArgument { index: 2, .. }));

    let buffer = [0_u8; 128];
    for (size, takes) in [(20_usize, 21_usize), (128, 21)] {
        let extra = [1, buffer.as_ptr().expose_provenance(), 2, (&raw const size).expose_provenance(), 3];
        assert_eq!(launch(null, extra.as_ptr()), 1);
        let problem = hip.problem();
        assert!(
            matches!(problem, What::ArgumentBytes { takes: t, passed, .. } if t == takes && passed == size)
        );
    }
    assert_eq!(launch(null, [17_usize, 0, 3].as_ptr()), 1);
    assert!(matches!(hip.problem(), What::Extra { key: 17 }));
    assert!(hip.notes.launches().is_empty());
}

#[test]
fn padding_at_the_end_may_be_left_out_of_a_buffer() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"padded");
    let (buffer, size) = ([3_u8; 4], 4_usize);
    let extra = [1, buffer.as_ptr().expose_provenance(), 2, (&raw const size).expose_provenance(), 3];
    let status = call!(
        hip,
        "hipModuleLaunchKernel",
        (
            function => usize, 1 => u32, 1 => u32, 1 => u32, 64 => u32, 1 => u32, 1 => u32, 0 => u32,
            0 => usize, std::ptr::null() => *const usize, extra.as_ptr() => *const usize,
        )
    );
    assert_eq!(status, 0);
    let expected = [[3; 4], [0; 4], [0; 4], [0; 4]].concat();
    assert_eq!(hip.notes.launches()[0].arguments, expected);
}

#[test]
fn a_grid_that_cannot_be_launched_is_refused_and_the_next_launch_runs() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"nothing");
    let launch = |blocks: u32, threads: u32, lds: u32| {
        call!(
            hip,
            "hipModuleLaunchKernel",
            (
                function => usize, blocks => u32, 1 => u32, 1 => u32, threads => u32, 1 => u32, 1 => u32,
                lds => u32, 0 => usize, std::ptr::null() => *const usize, std::ptr::null() => *const usize,
            )
        )
    };
    let refused = |(blocks, threads, lds): (u32, u32, u32), status: Status, expected: ShapeError| {
        assert_eq!(launch(blocks, threads, lds), status.code());
        let problem = hip.problem();
        assert!(matches!(&problem, What::Shape { reason, .. } if *reason == expected), "{problem}");
    };
    refused((0, 64, 0), Status::InvalidConfiguration, ShapeError::Zero);
    refused((1, 0, 0), Status::InvalidConfiguration, ShapeError::Zero);
    refused((u32::MAX, 64, 0), Status::InvalidConfiguration, ShapeError::Grid);
    let too_many = ShapeError::Workgroup { threads: 2048, most: 512 };
    refused((1, 2048, 0), Status::InvalidConfiguration, too_many);
    let too_much = ShapeError::Lds { bytes: 164_000, most: 163_840 };
    refused((1, 64, 163_000), Status::InvalidValue, too_much);
    assert_eq!(launch(1, 512, 162_840), 0);
    assert_eq!(hip.notes.launches().len(), 1);
    assert!(hip.problems().is_empty());
}

#[test]
fn a_fault_is_reported_by_every_later_call() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"nothing");
    let launch = || {
        call!(
            hip,
            "hipModuleLaunchKernel",
            (
                function => usize, 1 => u32, 1 => u32, 1 => u32, 64 => u32, 1 => u32, 1 => u32, 0 => u32,
                0 => usize, std::ptr::null() => *const usize, std::ptr::null() => *const usize,
            )
        )
    };
    // What never began is forgotten.
    hip.notes.fail_next(LaunchErrorKind::Resources);
    assert_eq!(launch(), Status::LaunchOutOfResources.code());
    assert!(matches!(hip.problem(), What::Kernel { kernel, .. } if kernel == "nothing"));
    assert_eq!(call!(hip, "hipGetLastError", ()), Status::LaunchOutOfResources.code());
    assert_eq!(call!(hip, "hipGetLastError", ()), 0);
    assert_eq!(launch(), 0);

    // A launcher that asks has heard of it, and may go on with something else; a fault is beyond that.
    let handled = || {
        assert_ne!(call!(hip, "hipGetLastError", ()), 0);
        let (open, handled) = take_problems();
        (open.len(), handled.len())
    };
    hip.notes.fail_next(LaunchErrorKind::Configuration);
    assert_ne!(launch(), 0);
    assert_eq!(handled(), (0, 1));

    hip.notes.fail_next(LaunchErrorKind::IllegalAddress);
    assert_eq!(launch(), Status::IllegalAddress.code());
    assert!(matches!(hip.problem(), What::Kernel { .. }));
    for _ in 0..2 {
        assert_eq!(call!(hip, "hipGetLastError", ()), Status::IllegalAddress.code());
        assert_eq!(call!(hip, "hipDeviceSynchronize", ()), Status::IllegalAddress.code());
        assert_eq!(call!(hip, "hipStreamSynchronize", (0 => usize)), Status::IllegalAddress.code());
        let mut address = 0_usize;
        let status = call!(hip, "hipMalloc", (&raw mut address => *mut usize, 4 => usize));
        assert_eq!(status, Status::IllegalAddress.code());
    }
    // Names of errors still work, and what follows from the fault is no problem of its own.
    let name = call!(hip, "hipGetErrorName", (700 => c_int) -> *const c_char);
    // SAFETY: the call returns a static string.
    let name = unsafe { CStr::from_ptr(name) };
    assert_eq!(name, c"hipErrorIllegalAddress");
    assert_eq!(lost(), Some(Status::IllegalAddress));
    assert!(hip.problems().is_empty());
}

#[test]
fn a_copy_beyond_an_allocation_is_refused_and_changes_nothing() {
    let hip = StandIn::new();
    let device = hip.malloc(64);
    let mut host = [7_u8; 128];
    let address = host.as_mut_ptr().expose_provenance();
    let copy = |to: usize, from: usize, bytes: usize, kind: c_int| call!(hip, "hipMemcpy", (to => usize, from => usize, bytes => usize, kind => c_int));
    assert_eq!(copy(device, address, 64, 1), 0);
    assert_eq!(copy(device + 60, address, 8, 1), 1);
    assert!(matches!(
        hip.problem(),
        What::Range { side: Side::Destination, bytes: 8, left: 4, allocation: 64, .. }
    ));
    host.fill(0);
    assert_eq!(copy(address, device + 1, 64, 2), 1);
    assert!(matches!(hip.problem(), What::Range { side: Side::Source, left: 63, .. }));
    assert_eq!(host, [0; 128]);
    assert_eq!(copy(address, device, 64, 4), 0);
    assert_eq!(host[..64], [7; 64]);
    assert!(hip.problems().is_empty());

    // Both sides are host memory, which no copy to a device can be.
    assert_eq!(copy(address, address + 64, 8, 1), 1);
    assert!(matches!(hip.problem(), What::Direction { side: Side::Destination, found: Home::Pageable, .. }));
    // A direction that is only wrong is carried out, as the runtime does, and named.
    assert_eq!(copy(device, device, 8, 1), 0);
    assert!(matches!(hip.problem(), What::Direction { side: Side::Source, found: Home::Device, .. }));
    assert_eq!(copy(device, 8, 4, 1), 1);
    assert!(matches!(hip.problem(), What::Address { side: Side::Source, address: 8 }));
    assert_eq!(copy(device, address, usize::MAX, 1), 1);
    assert!(matches!(hip.problem(), What::Address { .. }));
    assert_eq!(copy(0, 0, 0, 4), 0);
    assert_eq!(copy(device, address, 4, 9), Status::InvalidMemcpyDirection.code());
}

#[test]
fn sets_and_copies_in_two_and_three_dimensions_touch_what_they_name() {
    let hip = StandIn::new();
    let device = hip.malloc(256);
    let mut host = [0_u8; 256];
    let address = host.as_mut_ptr().expose_provenance();
    let write = call!(
        hip,
        "hipStreamWriteValue64",
        (0 => usize, device + 8 => usize, 0x0102_0304_0506_0708 => u64, 0 => u32)
    );
    assert_eq!(write, 0);
    // SAFETY: the allocation has 256 bytes.
    let written = unsafe { std::ptr::with_exposed_provenance::<u64>(device + 8).read() };
    assert_eq!(written, 0x0102_0304_0506_0708);
    let wait = |value: u32, flags: u32| {
        let mask = u32::MAX;
        call!(
            hip,
            "hipStreamWaitValue32",
            (0 => usize, device + 8 => usize, value => u32, flags => u32, mask => u32)
        )
    };
    assert_eq!([wait(0x0506_0708, 1), wait(0x0506_0707, 0), wait(0x8, 2)], [0; 3]);
    assert_eq!(wait(0x0506_0709, 0), Status::NotSupported.code());
    assert!(matches!(hip.problem(), What::UnemulatedUse { .. }));
    assert_eq!(call!(hip, "hipMemset", (device => usize, 0x11 => c_int, 256 => usize)), 0);
    assert_eq!(
        call!(hip, "hipMemset2D", (device + 1 => usize, 16 => usize, 0x22 => c_int, 4 => usize, 3 => usize)),
        0
    );
    assert_eq!(call!(hip, "hipMemsetD32", (device + 128 => usize, 0x0403_0201 => u32, 2 => usize)), 0);
    assert_eq!(call!(hip, "hipMemsetD16", (device + 250 => usize, 0x0605 => u16, 3 => usize)), 0);
    assert_eq!(call!(hip, "hipMemsetD16", (device + 252 => usize, 0x0605 => u16, 3 => usize)), 1);
    assert!(matches!(hip.problem(), What::Range { .. }));
    let status = call!(
        hip,
        "hipMemcpy2D",
        (
            address => usize, 8 => usize, device => usize, 16 => usize, 8 => usize, 4 => usize, 2 => c_int,
        )
    );
    assert_eq!(status, 0);
    let row = [0x11, 0x22, 0x22, 0x22, 0x22, 0x11, 0x11, 0x11];
    assert_eq!(host[..32], [row, row, row, [0x11; 8]].concat());
    assert_eq!(host[32..], [0; 224]);
    let back = call!(
        hip,
        "hipMemcpyDtoH",
        (address => usize, device + 128 => usize, 128 => usize)
    );
    assert_eq!(back, 0);
    assert_eq!(host[..8], [1, 2, 3, 4, 1, 2, 3, 4]);
    assert_eq!(host[122..128], [5, 6, 5, 6, 5, 6]);
    // Rows that overlap the next one.
    let overlap = call!(
        hip,
        "hipMemcpy2D",
        (device => usize, 4 => usize, address => usize, 8 => usize, 8 => usize, 2 => usize, 1 => c_int)
    );
    assert_eq!(overlap, Status::InvalidPitchValue.code());
    assert!(hip.problems().is_empty());
}

#[test]
fn memory_is_freed_once() {
    let hip = StandIn::new();
    let device = hip.malloc(64);
    assert_eq!(call!(hip, "hipFree", (0 => usize)), 0);
    assert_eq!(call!(hip, "hipFree", (device + 8 => usize)), 1);
    assert!(matches!(hip.problem(), What::Free { .. }));
    assert_eq!(call!(hip, "hipFree", (device => usize)), 0);
    assert_eq!(call!(hip, "hipFree", (device => usize)), 1);
    assert!(matches!(hip.problem(), What::Free { .. }));
    let mut address = 1_usize;
    assert_eq!(call!(hip, "hipMalloc", (&raw mut address => *mut usize, 0 => usize)), 0);
    assert_eq!(address, 0);
    assert_eq!(call!(hip, "hipMalloc", (&raw mut address => *mut usize, 1 << 50 => usize)), 2);
    assert_eq!(call!(hip, "hipMalloc", (std::ptr::null_mut() => *mut usize, 8 => usize)), 1);
    assert!(hip.problems().is_empty());
}

/// The bundle, the registration and the launch that a compiler makes of `scale<<<..>>>(..)`.
#[test]
fn a_registered_kernel_is_found_in_the_bundle_and_its_managed_variable_is_connected() {
    let hip = StandIn::new();
    let code = format!("#{KERNEL}\nvariable counter 8");
    let bundle = bundle(&[("gfx942", "# other"), ("gfx950:xnack-", &code)]);
    let wrapper = [0x4849_5046_usize | 1 << 32, bundle.as_ptr().expose_provenance(), 0];
    let fat = call!(hip, "__hipRegisterFatBinary", (wrapper.as_ptr() => *const usize) -> usize);
    // The host's functions and variables are only addresses.
    let (host_function, host_table, mut managed) = (0x1234_5670_usize, 0x1234_5678_usize, 0_usize);
    let initial = 42_u64;
    call!(
        hip,
        "__hipRegisterFunction",
        (
            fat => usize, host_function => usize, 0 => usize, c"scale".as_ptr() => *const c_char, 0 => u32,
            0 => usize, 0 => usize, 0 => usize, 0 => usize, 0 => usize,
        ) -> ()
    );
    call!(
        hip,
        "__hipRegisterVar",
        (
            fat => usize, host_table => usize, 0 => usize, c"table".as_ptr() => *const c_char, 0 => c_int,
            64 => usize, 0 => c_int, 0 => c_int,
        ) -> ()
    );
    call!(
        hip,
        "__hipRegisterManagedVar",
        (
            fat => usize, &raw mut managed => *mut usize, &raw const initial => *const u64,
            c"counter".as_ptr() => *const c_char, 8 => usize, 8 => u32,
        ) -> ()
    );
    // SAFETY: registration has allocated 8 bytes and put the initial value there.
    assert_eq!(unsafe { std::ptr::with_exposed_provenance::<u64>(managed).read() }, 42);

    let dim = |x: u32| abi::Dim3 { x, y: 1, z: 1 };
    let push = call!(
        hip,
        "__hipPushCallConfiguration",
        (dim(3) => abi::Dim3, dim(128) => abi::Dim3, 16 => usize, 0 => usize)
    );
    assert_eq!(push, 0);
    let (mut blocks, mut threads, mut lds, mut stream) = (dim(0), dim(0), 0_usize, 1_usize);
    let pop = call!(
        hip,
        "__hipPopCallConfiguration",
        (
            &raw mut blocks => *mut abi::Dim3, &raw mut threads => *mut abi::Dim3, &raw mut lds => *mut usize,
            &raw mut stream => *mut usize,
        )
    );
    assert_eq!((pop, blocks, threads, lds, stream), (0, dim(3), dim(128), 16, 0));
    let value = 0x0102_0304_0506_0708_u64;
    let pointers = [(&raw const value).expose_provenance(); 4];
    let status = call!(
        hip,
        "hipLaunchKernel",
        (
            host_function => usize, blocks => abi::Dim3, threads => abi::Dim3,
            pointers.as_ptr() => *const usize, lds => usize, stream => usize,
        )
    );
    assert_eq!(status, 0, "{:?}", hip.problems());
    let launched = &hip.notes.launches()[0];
    assert_eq!(
        (launched.kernel.as_str(), launched.blocks, launched.threads),
        ("scale", [3, 1, 1], [128, 1, 1])
    );
    assert_eq!(launched.arguments.len(), 21);

    let name = call!(hip, "hipKernelNameRefByPtr", (host_function => usize, 0 => usize) -> *const c_char);
    // SAFETY: the call returns the function's name, which lasts.
    let name = unsafe { CStr::from_ptr(name) };
    assert_eq!(name, c"scale");
    let (device_counter, _) = hip.notes.variable(ModuleId(1), "counter").unwrap();
    // SAFETY: the engine's variable has 8 bytes.
    assert_eq!(unsafe { std::ptr::with_exposed_provenance::<usize>(device_counter).read() }, managed);

    let (mut address, mut bytes) = (0_usize, 0_usize);
    assert_eq!(call!(hip, "hipGetSymbolAddress", (&raw mut address => *mut usize, host_table => usize)), 0);
    assert_eq!(call!(hip, "hipGetSymbolSize", (&raw mut bytes => *mut usize, host_table => usize)), 0);
    assert_eq!(bytes, 64);
    let to_symbol = |bytes: usize, offset: usize| {
        let from = [9_u8; 64];
        let from = from.as_ptr().expose_provenance();
        call!(
            hip,
            "hipMemcpyToSymbol",
            (host_table => usize, from => usize, bytes => usize, offset => usize, 1 => c_int)
        )
    };
    assert_eq!((to_symbol(4, 60), to_symbol(8, 60)), (0, 1));
    assert!(matches!(hip.problem(), What::Range { left: 4, .. }));
    // SAFETY: the variable has 64 bytes.
    let table = unsafe { std::ptr::with_exposed_provenance::<[u8; 64]>(address).read() };
    assert_eq!(table[59..], [0, 9, 9, 9, 9]);

    call!(hip, "__hipUnregisterFatBinary", (fat => usize) -> ());
    assert!(hip.notes.state().modules.is_empty());
    let status = call!(
        hip,
        "hipLaunchKernel",
        (
            host_function => usize, blocks => abi::Dim3, threads => abi::Dim3,
            pointers.as_ptr() => *const usize, lds => usize, stream => usize,
        )
    );
    assert_eq!(status, Status::InvalidDeviceFunction.code());
    assert!(matches!(hip.problem(), What::NotAKernel { .. }));
}

/// A plain bundle with an entry for each target.
fn bundle(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut header = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    header.extend((entries.len() as u64).to_le_bytes());
    let ids: Vec<String> = entries.iter().map(|(t, _)| format!("hipv4-amdgcn-amd-amdhsa--{t}")).collect();
    let length = header.len() + ids.iter().map(|id| 24 + id.len()).sum::<usize>();
    let mut at = length as u64;
    let mut code: Vec<u8> = Vec::new();
    for (id, (_, text)) in ids.iter().zip(entries) {
        for number in [at, text.len() as u64, id.len() as u64] {
            header.extend(number.to_le_bytes());
        }
        header.extend(id.as_bytes());
        code.extend(text.as_bytes());
        at += text.len() as u64;
    }
    header.extend(code);
    header
}

#[test]
fn the_code_object_of_a_bundle_is_chosen_as_the_runtime_chooses_it() {
    let chosen = |entries: &[&str]| {
        let entries: Vec<(&str, &str)> = entries.iter().map(|target| (*target, *target)).collect();
        image::choose(&bundle(&entries), Processor::Gfx950)
            .map(|code| String::from_utf8(code).unwrap())
            .map_err(|failure| (failure.status, failure.problem.map(|what| what.to_string()).unwrap()))
    };
    assert_eq!(chosen(&["gfx942", "gfx950"]).unwrap(), "gfx950");
    assert_eq!(chosen(&["gfx9-4-generic", "gfx950:sramecc+:xnack-"]).unwrap(), "gfx950:sramecc+:xnack-");
    assert_eq!(chosen(&["gfx9-4-generic", "gfx942"]).unwrap(), "gfx9-4-generic");
    assert_eq!(chosen(&["gfx950:xnack+", "gfx950:xnack-"]).unwrap(), "gfx950:xnack-");
    let (status, text) = chosen(&["gfx942", "gfx950:xnack+"]).unwrap_err();
    assert_eq!(status, Status::NoBinaryForGpu);
    assert!(text.contains("gfx950:sramecc+:xnack-") && text.contains("gfx942, gfx950:xnack+"), "{text}");
    assert_eq!(
        image::choose(b"__CLANG_OFFLOAD_BUNDLE__", Processor::Gfx950).unwrap_err().status,
        Status::InvalidImage
    );
}

#[test]
fn a_compressed_bundle_is_read_although_its_length_is_not_passed() {
    use std::io::Write;
    let hip = StandIn::new();
    let plain = bundle(&[("gfx942", "# other"), ("gfx950", &format!("#{KERNEL}"))]);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    // Magic, version 2, zlib, bytes in all, bytes unpacked, hash.
    let mut image = b"CCOB\x02\0\0\0".to_vec();
    image.extend((24 + packed.len() as u32).to_le_bytes());
    image.extend((plain.len() as u32).to_le_bytes());
    image.extend([0; 8]);
    image.extend(packed);
    image.extend([0xaa; 100]);
    let mut module = 0_usize;
    let image = image.as_ptr();
    assert_eq!(call!(hip, "hipModuleLoadData", (&raw mut module => *mut usize, image => *const u8)), 0);
    hip.function(module, c"nothing");
    let (mut function, name) = (0_usize, c"other".as_ptr());
    let missing = call!(
        hip,
        "hipModuleGetFunction",
        (&raw mut function => *mut usize, module => usize, name => *const c_char)
    );
    assert_eq!(missing, Status::NotFound.code());
    assert!(matches!(hip.problem(), What::NoKernel { kernel } if kernel == "other"));
    assert_eq!(call!(hip, "hipModuleUnload", (module => usize)), 0);
    assert!(hip.notes.state().modules.is_empty());
}

#[test]
fn what_is_no_code_object_is_an_error_and_no_crash() {
    let hip = StandIn::new();
    let mut module = 0_usize;
    let mut load = |image: *const u8| call!(hip, "hipModuleLoadData", (&raw mut module => *mut usize, image => *const u8));
    assert_eq!(load(std::ptr::null()), 1);
    assert!(hip.problems().is_empty());
    // Nothing is mapped there.
    assert_eq!(load(std::ptr::without_provenance(0x10_0000)), Status::InvalidImage.code());
    assert!(matches!(hip.problem(), What::Bundle(_)));
    assert_eq!(load([b'x'; 256].as_ptr()), Status::InvalidImage.code());
    assert!(matches!(hip.problem(), What::Load(_)));
    // An ELF file whose tables lie far outside.
    let mut elf = [0xff_u8; 4096];
    elf[..4].copy_from_slice(b"\x7fELF");
    assert_eq!(load(elf.as_ptr()), Status::InvalidImage.code());
    assert!(matches!(hip.problem(), What::Load(_)));
    // A bundle that claims entries without end.
    let mut endless = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    endless.resize(256, 0xff);
    assert_eq!(load(endless.as_ptr()), Status::InvalidImage.code());
    assert!(matches!(hip.problem(), What::Bundle(_)));
}

#[test]
fn pointer_attributes_are_those_of_the_version_that_asks() {
    for (version, device, host) in [(Version::V5, 1, 0), (Version::V6, 2, 1), (Version::V7, 2, 1)] {
        let hip = StandIn::of(version);
        let mut attributes = [0xaaaa_aaaa_u32; 8];
        let mut ask = |address: usize| {
            let place = attributes.as_mut_ptr();
            let status = call!(hip, "hipPointerGetAttributes", (place => *mut u32, address => usize));
            (status, attributes)
        };
        let address = hip.malloc(64);
        let (status, found) = ask(address + 8);
        assert_eq!((status, found[0], found[1]), (0, device, 0));
        assert_eq!(
            usize::from_le_bytes(
                [found[2].to_le_bytes(), found[3].to_le_bytes()].concat().try_into().unwrap()
            ),
            address + 8
        );
        let mut pinned = 0_usize;
        assert_eq!(call!(hip, "hipHostMalloc", (&raw mut pinned => *mut usize, 64 => usize, 2 => u32)), 0);
        let (status, found) = ask(pinned);
        assert_eq!((status, found[0], found[7]), (0, host, 2));
        let pageable = [0_u8; 8];
        let (status, found) = ask(pageable.as_ptr().expose_provenance());
        if version == Version::V5 {
            assert_eq!(status, 1);
        } else {
            assert_eq!((status, found[0]), (0, 0));
        }
        let mut number = 0;
        assert_eq!(call!(hip, "hipRuntimeGetVersion", (&raw mut number => *mut c_int)), 0);
        assert_eq!(number / 10_000_000, version as c_int);
        assert!(hip.problems().is_empty());
    }
}

#[test]
fn properties_name_the_architecture_in_both_layouts() {
    let hip = StandIn::new();
    for (call, size, name) in
        [("hipGetDeviceProperties", 792, 396), ("hipGetDevicePropertiesR0600", 1472, 1160)]
    {
        let mut bytes = vec![0xaa_u8; size + 8];
        assert_eq!(call!(hip, call, (bytes.as_mut_ptr() => *mut u8, 0 => c_int)), 0);
        assert!(bytes[name..].starts_with(b"gfx950:sramecc+:xnack-\0"));
        assert!(bytes.starts_with(b"emulated gfx950\0"));
        assert_eq!(bytes[size..], [0xaa; 8]);
        assert_eq!(call!(hip, call, (bytes.as_mut_ptr() => *mut u8, 1 => c_int)), 101);
    }
}

#[test]
fn events_and_streams_are_done_as_soon_as_they_are_asked() {
    let hip = StandIn::new();
    let (mut stream, mut start, mut stop) = (0_usize, 0_usize, 0_usize);
    assert_eq!(call!(hip, "hipStreamCreateWithFlags", (&raw mut stream => *mut usize, 1 => u32)), 0);
    for event in [&raw mut start, &raw mut stop] {
        assert_eq!(call!(hip, "hipEventCreate", (event => *mut usize)), 0);
    }
    let mut milliseconds = -1.0_f32;
    let elapsed = |place: *mut f32| call!(hip, "hipEventElapsedTime", (place => *mut f32, start => usize, stop => usize));
    assert_eq!(elapsed(&raw mut milliseconds), 400);
    assert_eq!(call!(hip, "hipEventRecord", (start => usize, stream => usize)), 0);
    assert_eq!(call!(hip, "hipStreamWaitEvent", (2 => usize, start => usize, 0 => u32)), 0);
    assert_eq!(call!(hip, "hipEventRecord", (stop => usize, 0 => usize)), 0);
    assert_eq!(call!(hip, "hipEventQuery", (stop => usize)), 0);
    assert_eq!(elapsed(&raw mut milliseconds), 0);
    assert!((0.0..1000.0).contains(&milliseconds));
    assert_eq!(call!(hip, "hipStreamDestroy", (stream => usize)), 0);
    assert!(hip.problems().is_empty());
    assert_eq!(call!(hip, "hipStreamQuery", (stream => usize)), 400);
    assert!(matches!(hip.problem(), What::Handle { kind: HandleKind::Stream, .. }));
    assert_eq!(call!(hip, "hipEventSynchronize", (77 => usize)), 400);
    assert!(matches!(hip.problem(), What::Handle { kind: HandleKind::Event, .. }));
}

#[test]
fn a_captured_stream_runs_when_its_graph_is_launched() {
    extern "C" fn count(data: *mut c_void) {
        // SAFETY: the test passes a counter.
        unsafe { *data.cast::<u32>() += 1 };
    }
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"nothing");
    let device = hip.malloc(64);
    let (mut stream, mut other, mut event) = (0_usize, 0_usize, 0_usize);
    for place in [&raw mut stream, &raw mut other] {
        assert_eq!(call!(hip, "hipStreamCreate", (place => *mut usize)), 0);
    }
    assert_eq!(call!(hip, "hipEventCreate", (&raw mut event => *mut usize)), 0);
    let mut calls = 0_u32;
    assert_eq!(call!(hip, "hipStreamBeginCapture", (stream => usize, 0 => u32)), 0);
    let fill = call!(hip, "hipMemsetAsync", (device => usize, 5 => c_int, 64 => usize, stream => usize));
    assert_eq!(fill, 0);
    // The other stream joins by the event.
    assert_eq!(call!(hip, "hipEventRecord", (event => usize, stream => usize)), 0);
    assert_eq!(call!(hip, "hipStreamWaitEvent", (other => usize, event => usize, 0 => u32)), 0);
    let launch = call!(
        hip,
        "hipModuleLaunchKernel",
        (
            function => usize, 1 => u32, 1 => u32, 1 => u32, 64 => u32, 1 => u32, 1 => u32, 0 => u32,
            other => usize, std::ptr::null() => *const usize, std::ptr::null() => *const usize,
        )
    );
    assert_eq!(launch, 0);
    let data = (&raw mut calls).cast::<c_void>();
    let host = call!(
        hip,
        "hipLaunchHostFunc",
        (stream => usize, count => extern "C" fn(*mut c_void), data => *mut c_void)
    );
    assert_eq!(host, 0);
    assert_eq!(call!(hip, "hipStreamSynchronize", (stream => usize)), 900);
    assert!(hip.notes.launches().is_empty());
    let (mut graph, mut exec, mut nodes) = (0_usize, 0_usize, 0_usize);
    assert_eq!(call!(hip, "hipStreamEndCapture", (stream => usize, &raw mut graph => *mut usize)), 0);
    let null = std::ptr::null_mut();
    let count = call!(
        hip,
        "hipGraphGetNodes",
        (graph => usize, null => *mut usize, &raw mut nodes => *mut usize)
    );
    assert_eq!((count, nodes), (0, 3));
    let ready = call!(
        hip,
        "hipGraphInstantiate",
        (&raw mut exec => *mut usize, graph => usize, null => *mut usize, null => *mut usize, 0 => usize)
    );
    assert_eq!(ready, 0);
    for round in 1..=2 {
        assert_eq!(call!(hip, "hipGraphLaunch", (exec => usize, stream => usize)), 0);
        assert_eq!((hip.notes.launches().len(), calls), (1, round));
    }
    let mut host = [0_u8; 64];
    let back = call!(
        hip,
        "hipMemcpyDtoH",
        (host.as_mut_ptr() => *mut u8, device => usize, 64 => usize)
    );
    assert_eq!((back, host), (0, [5; 64]));
    assert_eq!(call!(hip, "hipGraphExecDestroy", (exec => usize)), 0);
    assert_eq!(call!(hip, "hipGraphDestroy", (graph => usize)), 0);
    assert!(hip.problems().is_empty());
}

#[test]
fn work_items_that_do_not_fill_the_last_workgroup_are_told() {
    let hip = StandIn::new();
    let function = hip.function(hip.module(KERNEL), c"nothing");
    let status = call!(
        hip,
        "hipExtModuleLaunchKernel",
        (
            function => usize, 130 => u32, 4 => u32, 1 => u32, 64 => u32, 2 => u32, 1 => u32, 0 => usize,
            0 => usize, 0 => usize, 0 => usize, 0 => usize, 0 => usize, 0 => u32,
        )
    );
    assert_eq!(status, 0);
    let launched = &hip.notes.launches()[0];
    assert_eq!((launched.blocks, launched.remainder, launched.threads), ([2, 2, 1], [2, 0, 0], [64, 2, 1]));
}

#[test]
fn occupancy_follows_from_registers_waves_and_lds() {
    let info = |vgprs, sgprs, static_lds| KernelInfo {
        name: String::new(),
        arguments: Vec::new(),
        kernarg_bytes: 0,
        vgprs,
        agprs: 0,
        sgprs,
        static_lds,
        scratch_bytes: 0,
        max_workgroup_size: 1024,
    };
    let blocks = |info: &KernelInfo, threads, lds| modules::occupancy(Processor::Gfx942, info, threads, lds);
    // 8 waves on each of 4 SIMD units.
    assert_eq!(blocks(&info(32, 32, 0), 64, 0), 32);
    assert_eq!(blocks(&info(32, 32, 0), 1024, 0), 2);
    // 512 registers: 5 waves of 96, 2 of 256, 1 of 260.
    assert_eq!(blocks(&info(96, 32, 0), 64, 0), 20);
    assert_eq!(blocks(&info(256, 32, 0), 256, 0), 2);
    assert_eq!(blocks(&info(260, 32, 0), 256, 0), 1);
    // 64 KiB of LDS.
    assert_eq!(blocks(&info(32, 32, 20 << 10), 64, 0), 3);
    assert_eq!(blocks(&info(32, 32, 0), 64, 64 << 10), 1);
    assert_eq!(blocks(&info(32, 32, 1), 64, 64 << 10), 0);
}

#[test]
fn a_panic_does_not_leave_the_call() {
    let hip = StandIn::new();
    let status = abi::call("hipMalloc", abi::AfterFault::Fails, |_| panic!("a bug"));
    assert_eq!(status, Status::Unknown.code());
    assert!(matches!(hip.problem(), What::Panic { message } if message == "a bug"));
}

/// The objects themselves: what the loader makes of them, and where their calls lead. In a process of its own, because
/// another test may have loaded the library whose place they take.
#[test]
fn the_loader_takes_the_objects_and_calls_arrive() {
    const ALONE: &str = "ACCURACY_TEST_OF_THE_LOADER";
    if std::env::var_os(ALONE).is_none() {
        let mut process = std::process::Command::new(std::env::current_exe().unwrap());
        let test = "emulator::hip::tests::the_loader_takes_the_objects_and_calls_arrive";
        let output = process.args(["--exact", test]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let hip = StandIn::new();
    library::load_all().unwrap();
    assert!(matches!(library::load_all(), Err(InstallError::Twice)));
    for version in Version::ALL {
        let soname = CString::new(version.soname()).unwrap();
        let call = |name: &CStr| {
            // SAFETY: with RTLD_NOLOAD only what is loaded is found, and it is never closed.
            let address = unsafe {
                let handle = libc::dlopen(soname.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
                assert!(!handle.is_null());
                libc::dlsym(handle, name.as_ptr())
            };
            assert!(!address.is_null(), "{name:?}");
            address
        };
        let mut number = 0;
        // SAFETY: the types are those of HIP's headers, or the call takes nothing that it looks at.
        unsafe {
            let tell = std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_int) -> c_int>(call(
                c"hipRuntimeGetVersion",
            ));
            assert_eq!(tell(&mut number), 0);
            assert_eq!(number, version.number());
            type Many = extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> c_int;
            let unknown = std::mem::transmute::<*mut c_void, Many>(call(c"hipGraphicsMapResources"));
            assert_eq!(unknown(1, 2, 3, 4, 5, 6, 7, 8), Status::NotSupported.code());
            type Find = extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut u32) -> c_int;
            let find = std::mem::transmute::<*mut c_void, Find>(call(c"hipGetProcAddress"));
            let (mut place, mut missing) = (std::ptr::null_mut(), 7);
            let name = c"hipGetDeviceProperties".as_ptr();
            assert_eq!((find(name, &mut place, 600, 0, &mut missing), missing), (0, 0));
            assert_eq!(place, call(c"hipGetDevicePropertiesR0600"));
            assert_eq!((find(c"nothing".as_ptr(), &mut place, 600, 0, &mut missing), missing), (1, 1));
            let text = std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> *const c_char>(call(
                c"hiprtcGetErrorString",
            ));
            assert!(text(1).is_null());
        }
        let (problems, _) = take_problems();
        let calls: Vec<&str> = problems.iter().map(|problem| problem.call).collect();
        assert_eq!(calls, ["hipGraphicsMapResources", "hiprtcGetErrorString"]);
        assert!(problems.iter().all(|problem| matches!(problem.what, What::Unemulated)));
    }
    drop(hip);
}

#[test]
fn every_emulated_call_is_a_name_that_the_runtime_exports() {
    let exported: std::collections::BTreeSet<_> = names::all().iter().map(|name| name.name).collect();
    let unknown: Vec<_> = library::entries().into_keys().filter(|name| !exported.contains(name)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
}
