//! The two GPU runtimes, opened at run time and never linked: HIP (`libamdhip64.so`) and CUDA's driver
//! (`libcuda.so.1`).
//!
//! Both offer the same dozen calls with the same meaning; they differ in names and in how a context is made. One
//! [`Gpu`] serves a process: its first visible device, chosen by the caller's `*_VISIBLE_DEVICES`.

pub use super::kind::Kind;
use super::kind::STAND_IN;
use crate::arch::Arch;
use crate::env::{self, EnvError};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// Why a GPU cannot be used, or what it reported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    #[error(
        "the {runtime} runtime is not on this machine: tried {tried}. Run where it is, or use --arch host{}; `cargo accuracy inspect` looks at a library without a device",
        without_device(runtime)
    )]
    NoRuntime { runtime: Kind, tried: String },
    #[error("{library} has no `{symbol}`: it is not a {runtime} runtime that this version knows")]
    NoSymbol { library: String, symbol: &'static str, runtime: Kind },
    #[error(
        "{library} reports no device ({detail}). Check the driver and {}, or use --arch host{}",
        runtime.variables(),
        without_device(runtime)
    )]
    NoDevice { library: String, detail: String, runtime: Kind },
    #[error(
        "the visible device is {found} ({name}), not {wanted}: choose another with {variables}, or use --arch {found}"
    )]
    WrongArch { found: String, name: String, wanted: Arch, variables: &'static str },
    #[error("{call} failed: {error} ({code})")]
    Call { call: &'static str, error: String, code: i32 },
    #[error(
        "{} asks for emulation, and these tests were built without the emulator: build them with the feature `emulate` of accuracy-core, as `cargo accuracy --emulate` does",
        env::EMULATE
    )]
    BuiltWithoutEmulator,
    #[error("the emulator cannot start: {error}")]
    Emulator { error: String },
    #[error(transparent)]
    Variable(#[from] EnvError),
    #[error("the device gives other bytes back than it was given ({wrong} of {bytes})")]
    Memory { wrong: usize, bytes: usize },
}

/// Loads HIP's stand-in, with one device of this architecture.
///
/// # Errors
/// If the tests were built without the emulator, or it cannot start.
#[cfg(feature = "emulate")]
fn emulate(arch: Arch) -> Result<(), GpuError> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let told = |error: String| GpuError::Emulator { error };
    let races = env::looks_for_races(&variable).map_err(|error| told(error.to_string()))?;
    crate::emulator::install(arch, env::emulation_threads(&variable))
        .map_err(|error| told(error.to_string()))?;
    crate::emulator::look_for_races(races);
    Ok(())
}

/// As above.
#[cfg(not(feature = "emulate"))]
fn emulate(_: Arch) -> Result<(), GpuError> {
    Err(GpuError::BuiltWithoutEmulator)
}

/// What runs the code of some of AMD's GPUs where there is none, as the end of a sentence.
fn without_device(runtime: &Kind) -> String {
    let emulated: Vec<&str> = Arch::emulated().map(Arch::name).collect();
    match runtime {
        Kind::Hip => {
            format!(", or run the code of {} on this processor with --emulate", emulated.join(" and "))
        }
        Kind::Cuda => String::new(),
    }
}

/// A loaded runtime: the calls that are needed, under the names that it has for them.
struct Api {
    kind: Kind,
    file: &'static str,
    library: Library,
}

type Simple = unsafe extern "C" fn() -> c_int;
type OnFlags = unsafe extern "C" fn(c_uint) -> c_int;
type CountInto = unsafe extern "C" fn(*mut c_int) -> c_int;
type OnPointer = unsafe extern "C" fn(*mut c_void) -> c_int;
type Allocate = unsafe extern "C" fn(*mut *mut c_void, usize) -> c_int;
type NewStream = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;

impl Api {
    fn open(kind: Kind) -> Result<Api, GpuError> {
        for &file in kind.libraries() {
            // SAFETY: loading the vendor's runtime runs its initialisers, as linking it would.
            if let Ok(library) = unsafe { Library::new(file) } {
                return Ok(Api { kind, file, library });
            }
        }
        Err(GpuError::NoRuntime { runtime: kind, tried: kind.libraries().join(", ") })
    }

    /// The stand-in that the emulator has loaded for a device of this architecture.
    fn emulated(arch: Arch) -> Result<Api, GpuError> {
        emulate(arch)?;
        let file = STAND_IN;
        // Only what is loaded already: a runtime of the vendor's of this name is not meant.
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD;
        // SAFETY: nothing is loaded, so no initialiser runs.
        let library = unsafe { libloading::os::unix::Library::open(Some(file), flags) };
        let library = library.map_err(|error| GpuError::Emulator { error: error.to_string() })?;
        Ok(Api { kind: Kind::Hip, file, library: library.into() })
    }

    /// # Safety
    /// `F` must be the type with which the runtime declares the symbol.
    unsafe fn get<F: Copy>(&self, symbol: &'static str) -> Result<F, GpuError> {
        // SAFETY: the caller vouches for the type.
        unsafe { self.library.get::<F>(symbol) }.map(|s| *s).map_err(|_| GpuError::NoSymbol {
            library: self.file.into(),
            symbol,
            runtime: self.kind,
        })
    }

    /// Turns a status into a result that has the runtime's own name for it.
    fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuError> {
        if code == 0 { Ok(()) } else { Err(GpuError::Call { call, error: self.error_name(code), code }) }
    }

    fn error_name(&self, code: c_int) -> String {
        // SAFETY: both functions are declared with these types in the runtimes' headers, and return static strings.
        let text = unsafe {
            match self.kind {
                Kind::Hip => self
                    .get::<unsafe extern "C" fn(c_int) -> *const c_char>("hipGetErrorName")
                    .map(|name| name(code)),
                Kind::Cuda => self
                    .get::<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>("cuGetErrorName")
                    .map(|name| {
                        let mut text = std::ptr::null();
                        let _ = name(code, &mut text);
                        text
                    }),
            }
        };
        match text {
            // SAFETY: a pointer that is not null is a C string of the runtime, alive as long as the library.
            Ok(text) if !text.is_null() => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
            _ => "unknown error".into(),
        }
    }

    /// How many devices are visible: at least one, or an error that says why there is none.
    fn count(&self) -> Result<c_int, GpuError> {
        // SAFETY: the types are those of the runtimes' headers, and the out pointer is to a local.
        let devices = unsafe {
            let count = match self.kind {
                Kind::Hip => self.get::<CountInto>("hipGetDeviceCount")?,
                Kind::Cuda => {
                    let code = self.get::<OnFlags>("cuInit")?(0);
                    if code != 0 {
                        return Err(self.no_device(&self.error_name(code)));
                    }
                    self.get::<CountInto>("cuDeviceGetCount")?
                }
            };
            let mut devices = 0;
            let code = count(&mut devices);
            if code != 0 {
                return Err(self.no_device(&self.error_name(code)));
            }
            devices
        };
        if devices <= 0 {
            return Err(self.no_device("none is visible"));
        }
        Ok(devices)
    }

    fn devices(&self) -> Result<Vec<Device>, GpuError> {
        (0..self.count()?).map(|index| self.device(index)).collect()
    }

    fn device(&self, index: c_int) -> Result<Device, GpuError> {
        type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
        type Handle = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
        let mut name = [0 as c_char; 256];
        let mut memory = 0;
        // SAFETY: the types are those of the runtimes' headers; every out pointer is to a local of that type, and the
        // buffer for the name is larger than what is said of it.
        let arch = unsafe {
            let (get_name, get_memory, calls) = match self.kind {
                Kind::Hip => (
                    self.get::<Name>("hipDeviceGetName")?,
                    self.get::<Memory>("hipDeviceTotalMem")?,
                    ["hipDeviceGetName", "hipDeviceTotalMem"],
                ),
                Kind::Cuda => (
                    self.get::<Name>("cuDeviceGetName")?,
                    self.get::<Memory>("cuDeviceTotalMem_v2")?,
                    ["cuDeviceGetName", "cuDeviceTotalMem_v2"],
                ),
            };
            let handle = match self.kind {
                // HIP's handle of a device is its index.
                Kind::Hip => index,
                Kind::Cuda => {
                    let mut handle = 0;
                    self.check("cuDeviceGet", self.get::<Handle>("cuDeviceGet")?(&mut handle, index))?;
                    handle
                }
            };
            self.check(calls[0], get_name(name.as_mut_ptr(), 255, handle))?;
            self.check(calls[1], get_memory(&mut memory, handle))?;
            match self.kind {
                Kind::Hip => self.gcn_arch_name(index)?,
                Kind::Cuda => {
                    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
                    let attribute = self.get::<Attribute>("cuDeviceGetAttribute")?;
                    let (mut major, mut minor) = (0, 0);
                    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
                    self.check("cuDeviceGetAttribute", attribute(&mut major, 75, handle))?;
                    self.check("cuDeviceGetAttribute", attribute(&mut minor, 76, handle))?;
                    format!("sm_{major}{minor}")
                }
            }
        };
        // SAFETY: the buffer is zeroed, and longer than what was allowed to be written.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let (runtime, library) = (self.kind, self.file);
        Ok(Device { runtime, library, index: index as usize, name, arch, memory: memory as u64 })
    }

    /// `gcnArchName`, with its feature suffix. The structure's layout changed with HIP 6, behind a versioned symbol; in
    /// both the field is the only text behind the device's name that begins as an architecture does (`sm_` where HIP is
    /// emulated on another vendor's device).
    fn gcn_arch_name(&self, index: c_int) -> Result<String, GpuError> {
        type Properties = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
        // Larger than any version of the structure.
        let mut bytes = [0_u8; 8192];
        // SAFETY: the buffer is larger than the structure that the function fills.
        let code = unsafe {
            let get = self
                .get::<Properties>("hipGetDevicePropertiesR0600")
                .or_else(|_| self.get::<Properties>("hipGetDeviceProperties"))?;
            get(bytes.as_mut_ptr().cast(), index)
        };
        self.check("hipGetDeviceProperties", code)?;
        let text = bytes[256..]
            .windows(4)
            .position(|w| (&w[..3] == b"gfx" || &w[..3] == b"sm_") && w[3].is_ascii_digit())
            .map(|at| &bytes[256 + at..])
            .and_then(|rest| CStr::from_bytes_until_nul(rest).ok());
        text.map(|t| t.to_string_lossy().into_owned())
            .ok_or_else(|| self.no_device("the device's properties name no gfx architecture"))
    }

    fn no_device(&self, detail: &str) -> GpuError {
        GpuError::NoDevice { library: self.file.into(), detail: detail.into(), runtime: self.kind }
    }
}

/// What a machine has for an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub runtime: Kind,
    /// File name of the runtime.
    pub library: &'static str,
    /// Its place among the visible devices.
    pub index: usize,
    pub name: String,
    /// As the runtime reports it: `gfx942:sramecc+:xnack-`, `sm_90`.
    pub arch: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// The visible devices of a runtime, without making a context on any.
///
/// # Errors
/// If the runtime is not there or sees no device.
pub fn devices(kind: Kind) -> Result<Vec<Device>, GpuError> {
    Api::open(kind)?.devices()
}

/// A runtime that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// File name of the library.
    pub library: &'static str,
    /// What the library says of itself: HIP's own version, or the newest CUDA that the driver knows.
    pub version: String,
}

/// The runtime and its version, whether or not it sees a device.
///
/// # Errors
/// If the runtime is not there, or does not tell its version.
pub fn runtime(kind: Kind) -> Result<RuntimeInfo, GpuError> {
    let api = Api::open(kind)?;
    let call = match kind {
        Kind::Hip => "hipRuntimeGetVersion",
        Kind::Cuda => "cuDriverGetVersion",
    };
    let mut number = 0;
    // SAFETY: both take a pointer to an int, which is to a local.
    api.check(call, unsafe { api.get::<CountInto>(call)?(&mut number) })?;
    let version = match kind {
        // HIP_VERSION = major * 10^7 + minor * 10^5 + patch.
        Kind::Hip => format!("{}.{}.{}", number / 10_000_000, number / 100_000 % 100, number % 100_000),
        // CUDA_VERSION = major * 1000 + minor * 10.
        Kind::Cuda => format!("{}.{}", number / 1000, number % 1000 / 10),
    };
    Ok(RuntimeInfo { library: api.file, version })
}

/// The first visible device, if it has this architecture.
fn first(api: &Api, wanted: Arch) -> Result<Device, GpuError> {
    api.count()?;
    let device = api.device(0)?;
    if device.arch.parse::<Arch>().ok() != Some(wanted) {
        let Device { name, arch: found, .. } = device;
        return Err(GpuError::WrongArch { found, name, wanted, variables: api.kind.variables() });
    }
    Ok(device)
}

/// A loaded code object.
pub struct Module(usize);

/// A kernel of a loaded code object.
#[derive(Clone, Copy)]
pub struct Function(usize);

/// The arguments of a kernel's launch.
pub enum Arguments<'a> {
    /// A pointer to each argument.
    Each(&'a mut [*mut c_void]),
    /// All of them as one block of bytes.
    Block(&'a [u8]),
}

/// The device of this process, with a context and a stream.
pub struct Gpu {
    api: Api,
    device: Device,
    context: usize,
    stream: usize,
}

impl Gpu {
    /// Opens the first visible device, once for each process; where [`emulation`](super::emulation()) is asked for, the
    /// emulated one.
    pub fn open(kind: Kind, wanted: Arch) -> Result<&'static Gpu, GpuError> {
        static GPU: OnceLock<Result<Gpu, GpuError>> = OnceLock::new();
        match GPU.get_or_init(|| Gpu::new(kind, wanted)) {
            Ok(gpu) if gpu.device.runtime == kind && gpu.device.arch.parse() == Ok(wanted) => Ok(gpu),
            Ok(gpu) => Err(GpuError::WrongArch {
                found: gpu.device.arch.clone(),
                name: gpu.device.name.clone(),
                wanted,
                variables: gpu.api.kind.variables(),
            }),
            Err(error) => Err(error.clone()),
        }
    }

    fn new(kind: Kind, wanted: Arch) -> Result<Gpu, GpuError> {
        let api = if super::emulation()? { Api::emulated(wanted)? } else { Api::open(kind)? };
        let device = first(&api, wanted)?;
        let mut gpu = Gpu { api, device, context: 0, stream: 0 };
        // SAFETY: the types are those of the runtimes' headers; the out pointers are to locals.
        unsafe {
            match kind {
                Kind::Hip => {
                    gpu.api.check(
                        "hipSetDevice",
                        gpu.api.get::<unsafe extern "C" fn(c_int) -> c_int>("hipSetDevice")?(0),
                    )?;
                }
                Kind::Cuda => {
                    // The primary context is the one that kernel libraries built on the runtime API use.
                    type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
                    let mut context = std::ptr::null_mut();
                    let retain = gpu.api.get::<Retain>("cuDevicePrimaryCtxRetain")?;
                    gpu.api.check("cuDevicePrimaryCtxRetain", retain(&mut context, 0))?;
                    gpu.context = context.expose_provenance();
                }
            }
            gpu.make_current()?;
            let mut stream = std::ptr::null_mut();
            // A stream that does not wait for the default one: a kernel that ignores its stream shows.
            const NON_BLOCKING: c_uint = 1;
            let (create, call) = match kind {
                Kind::Hip => {
                    (gpu.api.get::<NewStream>("hipStreamCreateWithFlags")?, "hipStreamCreateWithFlags")
                }
                Kind::Cuda => (gpu.api.get::<NewStream>("cuStreamCreate")?, "cuStreamCreate"),
            };
            gpu.api.check(call, create(&mut stream, NON_BLOCKING))?;
            gpu.stream = stream.expose_provenance();
        }
        Ok(gpu)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Address of the stream that launchers are given.
    pub fn stream(&self) -> usize {
        self.stream
    }

    /// Contexts belong to threads, and tests run on many.
    fn make_current(&self) -> Result<(), GpuError> {
        // SAFETY: the types are those of the runtimes' headers; the context was retained by `new`.
        unsafe {
            match self.api.kind {
                Kind::Hip => {
                    let set = self.api.get::<unsafe extern "C" fn(c_int) -> c_int>("hipSetDevice")?;
                    self.api.check("hipSetDevice", set(0))
                }
                Kind::Cuda => {
                    let set = self.api.get::<OnPointer>("cuCtxSetCurrent")?;
                    self.api
                        .check("cuCtxSetCurrent", set(std::ptr::with_exposed_provenance_mut(self.context)))
                }
            }
        }
    }

    /// Allocates device memory, aligned as the runtime does (256 bytes or more).
    pub fn allocate(&self, bytes: usize) -> Result<usize, GpuError> {
        self.make_current()?;
        let mut pointer = std::ptr::null_mut();
        // SAFETY: hipMalloc and cuMemAlloc_v2 take a pointer to the result and a size.
        unsafe {
            let (allocate, call) = match self.api.kind {
                Kind::Hip => (self.api.get::<Allocate>("hipMalloc")?, "hipMalloc"),
                Kind::Cuda => (self.api.get::<Allocate>("cuMemAlloc_v2")?, "cuMemAlloc_v2"),
            };
            self.api.check(call, allocate(&mut pointer, bytes))?;
        }
        Ok(pointer.addr())
    }

    /// Frees what [`Gpu::allocate`] gave. An error is of no use to anyone: a broken device has already said so.
    pub fn free(&self, address: usize) {
        let symbol = match self.api.kind {
            Kind::Hip => "hipFree",
            Kind::Cuda => "cuMemFree_v2",
        };
        // SAFETY: both take the pointer that the runtime's allocator gave.
        if let Ok(free) = unsafe { self.api.get::<OnPointer>(symbol) } {
            // SAFETY: as above.
            let _ = unsafe { free(std::ptr::without_provenance_mut(address)) };
        }
    }

    /// Copies to the device, and waits for it.
    pub fn upload(&self, address: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.make_current()?;
        // SAFETY: the types are those of the headers; `bytes` is readable, and the caller passes an address inside of
        // an allocation with as many bytes behind it, or the runtime reports the error.
        unsafe {
            match self.api.kind {
                Kind::Hip => self.hip_copy(address, bytes.as_ptr().addr(), bytes.len(), 1),
                Kind::Cuda => {
                    type Copy = unsafe extern "C" fn(usize, *const c_void, usize) -> c_int;
                    let copy = self.api.get::<Copy>("cuMemcpyHtoD_v2")?;
                    self.api.check("cuMemcpyHtoD_v2", copy(address, bytes.as_ptr().cast(), bytes.len()))
                }
            }
        }
    }

    /// Copies from the device, and waits for it.
    pub fn download(&self, address: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.make_current()?;
        // SAFETY: as for `upload`; `bytes` is writable.
        unsafe {
            match self.api.kind {
                Kind::Hip => self.hip_copy(bytes.as_mut_ptr().expose_provenance(), address, bytes.len(), 2),
                Kind::Cuda => {
                    type Copy = unsafe extern "C" fn(*mut c_void, usize, usize) -> c_int;
                    let copy = self.api.get::<Copy>("cuMemcpyDtoH_v2")?;
                    self.api.check("cuMemcpyDtoH_v2", copy(bytes.as_mut_ptr().cast(), address, bytes.len()))
                }
            }
        }
    }

    /// # Safety
    /// One side is host memory of `bytes` bytes, readable or writable as `kind` (1 to the device, 2 from it) needs.
    unsafe fn hip_copy(&self, to: usize, from: usize, bytes: usize, kind: c_int) -> Result<(), GpuError> {
        type Copy = unsafe extern "C" fn(usize, usize, usize, c_int) -> c_int;
        // SAFETY: hipMemcpy takes two pointers, a size and a kind; the caller vouches for the host side.
        let code = unsafe { self.api.get::<Copy>("hipMemcpy")?(to, from, bytes, kind) };
        self.api.check("hipMemcpy", code)
    }

    /// Loads a code object. It stays loaded: kernels of it may run until the process ends.
    pub fn load_module(&self, image: &[u8]) -> Result<Module, GpuError> {
        self.make_current()?;
        let (symbol, mut module) =
            (self.either("hipModuleLoadData", "cuModuleLoadData"), std::ptr::null_mut());
        // SAFETY: both take a pointer to the result and one to an image, whose length is in it; a vector of the image's
        // own is followed by zeros, so that what is cut short is read no further than that.
        let code = unsafe {
            type Load = unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int;
            let padded = [image, &[0; 4096]].concat();
            self.api.get::<Load>(symbol)?(&mut module, padded.as_ptr().cast())
        };
        self.api.check(symbol, code)?;
        Ok(Module(module.expose_provenance()))
    }

    /// A kernel of a loaded code object.
    pub fn function(&self, module: &Module, name: &CStr) -> Result<Function, GpuError> {
        self.make_current()?;
        let symbol = self.either("hipModuleGetFunction", "cuModuleGetFunction");
        let mut function = std::ptr::null_mut();
        // SAFETY: both take a pointer to the result, a module that the runtime has made, and a C string.
        let code = unsafe {
            type Find = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int;
            let module = std::ptr::with_exposed_provenance_mut(module.0);
            self.api.get::<Find>(symbol)?(&mut function, module, name.as_ptr())
        };
        self.api.check(symbol, code)?;
        Ok(Function(function.expose_provenance()))
    }

    /// Bytes of each parameter of a kernel, where the driver tells: CUDA's does from 12.4 on.
    pub fn parameter_sizes(&self, function: Function) -> Option<Vec<usize>> {
        type Info = unsafe extern "C" fn(*mut c_void, usize, *mut usize, *mut usize) -> c_int;
        if self.api.kind != Kind::Cuda {
            return None;
        }
        // SAFETY: the type is that of cuda.h.
        let info = unsafe { self.api.get::<Info>("cuFuncGetParamInfo") }.ok()?;
        let size = |index| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is the driver's own, the results are locals; an index past the last is an error.
            let code = unsafe {
                info(std::ptr::with_exposed_provenance_mut(function.0), index, &mut offset, &mut size)
            };
            (code == 0).then_some(size)
        };
        Some((0..).map_while(size).collect())
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The kernel must take these arguments: as many, and each pointer must be to a value of the type that it takes; or
    /// a block with such values at their places.
    pub unsafe fn launch(
        &self,
        function: Function,
        grid: &super::Grid,
        arguments: Arguments<'_>,
    ) -> Result<(), GpuError> {
        type Launch = unsafe extern "C" fn(
            *mut c_void,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int;
        /// Without asking for more a CUDA kernel gets this much shared memory.
        const USUAL_SHARED: u32 = 48 << 10;
        /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
        const MAX_DYNAMIC_SHARED: c_int = 8;
        /// `HIP_LAUNCH_PARAM_BUFFER_POINTER` and `_SIZE`, whose values CUDA's have, too. The end of the list differs.
        const BUFFER_POINTER: usize = 1;
        const BUFFER_SIZE: usize = 2;
        self.make_current()?;
        let kernel = std::ptr::with_exposed_provenance_mut(function.0);
        if self.api.kind == Kind::Cuda && grid.shared > USUAL_SHARED {
            type SetAttribute = unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int;
            // SAFETY: the type is that of cuda.h, the function the driver's own.
            let code = unsafe {
                let set = self.api.get::<SetAttribute>("cuFuncSetAttribute")?;
                set(kernel, MAX_DYNAMIC_SHARED, grid.shared as c_int)
            };
            self.api.check("cuFuncSetAttribute", code)?;
        }
        let symbol = self.either("hipModuleLaunchKernel", "cuLaunchKernel");
        let ([bx, by, bz], [tx, ty, tz]) = (grid.blocks, grid.threads);
        let mut bytes = match &arguments {
            Arguments::Each(_) => 0,
            Arguments::Block(block) => block.len(),
        };
        let mut extra = [std::ptr::null_mut(); 5];
        let (each, extra) = match arguments {
            Arguments::Each(each) => (each.as_mut_ptr(), std::ptr::null_mut()),
            Arguments::Block(block) => {
                let key = std::ptr::without_provenance_mut;
                extra[0] = key(BUFFER_POINTER);
                extra[1] = block.as_ptr().cast_mut().cast();
                extra[2] = key(BUFFER_SIZE);
                extra[3] = std::ptr::from_mut(&mut bytes).cast();
                extra[4] = key(match self.api.kind {
                    Kind::Hip => 3,
                    Kind::Cuda => 0,
                });
                (std::ptr::null_mut(), extra.as_mut_ptr())
            }
        };
        // SAFETY: the type is that of both headers; the caller vouches for the arguments.
        let code = unsafe {
            self.api.get::<Launch>(symbol)?(
                kernel,
                bx,
                by,
                bz,
                tx,
                ty,
                tz,
                grid.shared,
                grid.stream.as_ptr(),
                each,
                extra,
            )
        };
        self.api.check(symbol, code)
    }

    fn either(&self, hip: &'static str, cuda: &'static str) -> &'static str {
        match self.api.kind {
            Kind::Hip => hip,
            Kind::Cuda => cuda,
        }
    }

    /// Waits for everything that was launched, on any stream. An error of a kernel comes to light here.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.make_current()?;
        let symbol = match self.api.kind {
            Kind::Hip => "hipDeviceSynchronize",
            Kind::Cuda => "cuCtxSynchronize",
        };
        // SAFETY: both take nothing and return a status.
        let code = unsafe { self.api.get::<Simple>(symbol)?() };
        self.api.check(symbol, code)
    }

    /// Whether the device still works: bytes go there and come back. A device that hangs keeps this from returning.
    pub fn check_answers(&self) -> Result<(), GpuError> {
        let sent: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
        let mut back = vec![0; sent.len()];
        let address = self.allocate(sent.len())?;
        let copied = self.upload(address, &sent).and_then(|()| self.download(address, &mut back));
        self.free(address);
        copied?;
        self.synchronize()?;
        match sent.iter().zip(&back).filter(|(a, b)| a != b).count() {
            0 => Ok(()),
            wrong => Err(GpuError::Memory { wrong, bytes: sent.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_but_the_host_has_a_runtime() {
        for &arch in Arch::ALL {
            let expected = match arch.name() {
                "host" => None,
                name if name.starts_with("gfx") => Some(Kind::Hip),
                _ => Some(Kind::Cuda),
            };
            assert_eq!(Kind::of(arch), expected, "{arch}");
        }
    }

    #[test]
    fn a_machine_without_the_device_says_what_is_missing() {
        for (kind, arch) in [(Kind::Hip, Arch::Gfx950), (Kind::Cuda, Arch::Sm90)] {
            match Api::open(kind).and_then(|api| first(&api, arch)) {
                // A machine that has the device: then it must be that one.
                Ok(device) => assert_eq!(device.arch.parse(), Ok(arch)),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("--arch") && text.contains("lib") | text.contains("device"),
                        "{text}"
                    );
                }
            }
        }
    }
}
