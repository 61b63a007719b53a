//! Kernels of code objects, as Triton and assemblers make them: loaded as a module of the device, launched by the host.
//!
//! `#[code_object("name")]` makes one [`CodeObject`] for each block and one [`Kernel`] for each function. The file is
//! `name_{arch}.hsaco`, `.co` or `.cubin`, looked for where kernel libraries are.

use super::{LaunchArg, LibraryError, OBSERVED, Place, TARGET, judging};
use crate::arch::Arch;
use crate::device::Grid;
use crate::device::gpu::{Arguments, Gpu, Module};
use crate::device::launches::Launched;
use crate::device::memory::Runtime;
use crate::record;
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

/// A code object by name, as a package binds it.
pub struct CodeObject(Place);

/// A code object that is loaded.
struct Loaded {
    gpu: &'static Gpu,
    path: PathBuf,
    module: Module,
    judged: record::Library,
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
        let chosen = self.0.find(arch, &files(self.0.name, arch), extra)?;
        let path = chosen.path.clone();
        let mut loaded = LOADED.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&known) = loaded.get(&path) {
            judging(self.0.package, self.0.name, &known.judged);
            return Ok(known);
        }
        let judged = self.0.judged(chosen)?;
        let image = crate::files::read(&path, crate::files::LIBRARY)
            .map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        let module = gpu.load_module(&image).map_err(|source| LibraryError::Load {
            path: path.clone(),
            device: gpu.device().arch.clone(),
            source: source.into(),
        })?;
        judging(self.0.package, self.0.name, &judged);
        let known: &'static _ = Box::leak(Box::new(Loaded { gpu, path: path.clone(), module, judged }));
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
        // SAFETY: the caller vouches for the arguments.
        unsafe { self.try_launch(grid, arguments) }.inspect_err(|error| super::failed(self.symbol, error))
    }

    /// # Safety
    /// As of [`Kernel::launch`].
    unsafe fn try_launch(&self, grid: Grid, arguments: &[&dyn LaunchArg]) -> crate::Result<()> {
        let target = TARGET.with_borrow(Clone::clone);
        let Runtime::Gpu(gpu) = target.runtime else {
            let (name, kernel) = (self.object.0.name.into(), self.symbol.into());
            return Err(LibraryError::NoDevice { name, kernel, arch: target.arch }.into());
        };
        let Loaded { gpu, path, module, .. } = self.object.load(target.arch, gpu, &target.folders)?;
        let symbol = CString::new(self.symbol).map_err(|e| crate::Error::msg(format!("kernel name: {e}")))?;
        let function = gpu.function(module, &symbol).map_err(|source| LibraryError::Kernel {
            path: path.clone(),
            kernel: self.symbol.into(),
            source: source.into(),
        })?;
        let bound: Vec<usize> = arguments.iter().map(|a| size_of_val::<dyn LaunchArg>(*a)).collect();
        let block = block(arguments);
        // A block's padding may be parameters, too.
        if let Some(takes) = gpu.parameter_sizes(function).filter(|takes| block.is_none() && *takes != bound)
        {
            let (path, kernel) = (path.clone(), self.symbol.into());
            return Err(LibraryError::Parameters { path, kernel, bound, takes }.into());
        }
        super::note(self.object.0.package, self.symbol, self.parameters, arguments, None);
        OBSERVED.set(true);
        let mut values: Vec<*mut c_void> =
            arguments.iter().map(|a| std::ptr::from_ref::<dyn LaunchArg>(*a).cast_mut().cast()).collect();
        let arguments = match &block {
            None => Arguments::Each(&mut values),
            Some(block) => Arguments::Block(block),
        };
        // SAFETY: each pointer is to a value that outlives the call; the caller vouches for their types.
        let launched = unsafe { gpu.launch(function, &grid, arguments) };
        super::launched(vec![Launched { kernel: self.symbol.into(), configuration: None }]);
        Ok(launched?)
    }
}

/// The arguments as one block of bytes; `None` where none of them is [`super::Padded`].
fn block(arguments: &[&dyn LaunchArg]) -> Option<Vec<u8>> {
    arguments.iter().find_map(|a| a.padded())?;
    let mut block = Vec::new();
    for argument in arguments {
        block.resize(block.len().next_multiple_of(align_of_val::<dyn LaunchArg>(*argument)), 0);
        let size = size_of_val::<dyn LaunchArg>(*argument);
        match argument.padded() {
            Some(word) => {
                block.extend(word.to_le_bytes());
                block.resize(block.len() + size - size_of::<u64>(), 0);
            }
            None => {
                let value = std::ptr::from_ref::<dyn LaunchArg>(*argument).cast::<u8>();
                // SAFETY: a launcher's arguments are plain values without padding of their own, of this many bytes.
                block.extend_from_slice(unsafe { std::slice::from_raw_parts(value, size) });
            }
        }
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::super::Padded;
    use super::*;
    use crate::device::DevPtr;

    #[test]
    fn padded_arguments_are_one_block_and_others_are_none() {
        let pointer = DevPtr::<f32>::null();
        assert_eq!(block(&[&pointer, &3_i32]), None);
        let block = block(&[&Padded(pointer), &Padded(-2_i32), &Padded(1.0_f32), &5_i32, &7_u64]).unwrap();
        let mut expected = vec![0; 64];
        expected[16..20].copy_from_slice(&(-2_i32).to_le_bytes());
        expected[32..36].copy_from_slice(&1.0_f32.to_le_bytes());
        expected[48..52].copy_from_slice(&5_i32.to_le_bytes());
        expected[56..64].copy_from_slice(&7_u64.to_le_bytes());
        assert_eq!(block, expected);
    }
}
