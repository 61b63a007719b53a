//! Kernels of code objects, as Triton and assemblers make them: loaded as a module of the device, launched by the host.
//!
//! `#[code_object("name")]` makes one [`CodeObject`] for each block and one [`Kernel`] for each function. The file is
//! `name_{arch}.hsaco`, `.co` or `.cubin`, looked for where kernel libraries are.

use super::{LaunchArg, LibraryError, OBSERVED, Place, TARGET};
use crate::arch::Arch;
use crate::device::Stream;
use crate::device::gpu::{Gpu, Module};
use crate::device::memory::Runtime;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

/// What code objects are called behind their architecture.
pub const EXTENSIONS: [&str; 3] = ["hsaco", "co", "cubin"];

/// File names of a code object's build for an architecture.
pub fn files(name: &str, arch: Arch) -> Vec<String> {
    EXTENSIONS.iter().map(|extension| format!("{name}_{arch}.{extension}")).collect()
}

/// How a kernel is launched. What a compiler says of its kernels is in its own metadata: Triton's `num_warps` times the
/// wavefront size is the threads of a block, its `shared` the bytes of shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks along x, y and z (Triton's programs).
    pub blocks: [u32; 3],
    /// Threads of a block along x, y and z.
    pub threads: [u32; 3],
    /// Bytes of shared memory beside what the code object itself declares.
    pub shared: u32,
    pub stream: Stream,
}

/// A code object by name, as a package binds it.
pub struct CodeObject(Place);

/// A code object that is loaded.
struct Loaded {
    gpu: &'static Gpu,
    path: PathBuf,
    module: Module,
}

impl CodeObject {
    /// Used by `#[code_object]`, which fills in the package's own folders.
    pub const fn new(
        name: &'static str,
        package: &'static str,
        manifest_dir: &'static str,
        out_dir: Option<&'static str>,
    ) -> Self {
        CodeObject(Place { name, package, manifest_dir, out_dir })
    }

    fn load(&self, arch: Arch, gpu: &'static Gpu, extra: &[PathBuf]) -> crate::Result<&'static Loaded> {
        static LOADED: OnceLock<Mutex<HashMap<PathBuf, &'static Loaded>>> = OnceLock::new();
        let path = self.0.find(arch, &files(self.0.name, arch), extra)?;
        let mut loaded = LOADED.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&known) = loaded.get(&path) {
            return Ok(known);
        }
        let image =
            std::fs::read(&path).map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        let module = gpu.load_module(&image).map_err(|source| LibraryError::Load {
            path: path.clone(),
            device: gpu.device().arch.clone(),
            source: source.into(),
        })?;
        let known: &'static _ = Box::leak(Box::new(Loaded { gpu, path: path.clone(), module }));
        loaded.insert(path, known);
        Ok(known)
    }
}

/// One kernel of a code object.
pub struct Kernel {
    object: &'static CodeObject,
    symbol: &'static str,
    parameters: &'static [&'static str],
}

impl Kernel {
    /// Used by `#[code_object]`. `parameters` are the names of the binding's parameters.
    pub const fn new(
        object: &'static CodeObject,
        symbol: &'static str,
        parameters: &'static [&'static str],
    ) -> Self {
        Kernel { object, symbol, parameters }
    }

    /// Launches the kernel with the values that `arguments` point to.
    ///
    /// # Errors
    /// If the code object or the kernel is missing, the run has no device, the driver knows the kernel's parameters and
    /// they are others, or the launch is refused.
    ///
    /// # Safety
    /// The kernel must take these arguments, and every pointer among them must be valid for what it does with it.
    pub unsafe fn launch(&self, grid: Grid, arguments: &[&dyn LaunchArg]) -> crate::Result<()> {
        let target = TARGET.with_borrow(Clone::clone);
        let Runtime::Gpu(gpu) = target.runtime else {
            let (name, kernel) = (self.object.0.name.into(), self.symbol.into());
            return Err(LibraryError::NoDevice { name, kernel, arch: target.arch }.into());
        };
        let Loaded { gpu, path, module } = self.object.load(target.arch, gpu, &target.folders)?;
        let symbol = CString::new(self.symbol).map_err(|e| crate::Error::msg(format!("kernel name: {e}")))?;
        let function = gpu.function(module, &symbol).map_err(|source| LibraryError::Kernel {
            path: path.clone(),
            kernel: self.symbol.into(),
            source: source.into(),
        })?;
        let bound: Vec<usize> = arguments.iter().map(|a| size_of_val::<dyn LaunchArg>(*a)).collect();
        if let Some(takes) = gpu.parameter_sizes(function).filter(|takes| *takes != bound) {
            let (path, kernel) = (path.clone(), self.symbol.into());
            return Err(LibraryError::Parameters { path, kernel, bound, takes }.into());
        }
        super::note(self.object.0.package, self.symbol, self.parameters, arguments, None);
        OBSERVED.set(true);
        let mut values: Vec<*mut c_void> =
            arguments.iter().map(|a| std::ptr::from_ref::<dyn LaunchArg>(*a).cast_mut().cast()).collect();
        // SAFETY: each pointer is to a value that outlives the call; the caller vouches for their types.
        let launched = unsafe { gpu.launch(function, &grid, &mut values) };
        super::launched(vec![self.symbol.into()]);
        Ok(launched?)
    }
}
