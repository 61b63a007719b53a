//! What compilers put into a library's initialisers: its fat binary, kernels and device variables.

use super::abi::{Entry, Out, Text, guarded};
use super::engine::{MemoryKind, ModuleId};
use super::image;
use super::problem::{Failure, HandleKind, Problem, What};
use super::runtime::{FatBinary, Function, HostFunction, HostVariable, Runtime};
use super::status::Status;
use std::ffi::{CString, c_int};
use std::sync::Arc;

impl Runtime {
    /// Loads a fat binary if that has not been done.
    fn load_fat_binary(&self, handle: usize) -> Result<ModuleId, Failure> {
        let missing = || Failure::handle(HandleKind::FatBinary, handle);
        let image = {
            let state = self.state();
            let fat_binary = state.fat_binaries.get(&handle).ok_or_else(missing)?;
            if let Some(loaded) = &fat_binary.loaded {
                return loaded.clone();
            }
            fat_binary.image
        };
        let loaded = image::load(self, image, None);
        let mut state = self.state();
        let fat_binary = state.fat_binaries.get_mut(&handle).ok_or_else(missing)?;
        match (&fat_binary.loaded, loaded) {
            // Another thread was faster.
            (Some(first), second) => {
                if let Ok(second) = second {
                    self.engine.unload(second);
                }
                return first.clone();
            }
            (None, loaded) => fat_binary.loaded = Some(loaded.clone()),
        }
        let loaded = fat_binary.loaded.clone().unwrap_or_else(|| Err(missing()));
        let managed = fat_binary.managed.clone();
        drop(state);
        if let Ok(module) = loaded {
            managed.iter().try_for_each(|(name, pointer)| self.connect(module, name, *pointer))?;
        }
        loaded
    }

    /// Tells the device's side of a managed variable where its memory is.
    fn connect(&self, module: ModuleId, name: &str, pointer: usize) -> Result<(), Failure> {
        // A variable that no kernel uses may be left out of the code object.
        let Some((address, bytes)) = self.engine.variable(module, name) else { return Ok(()) };
        if bytes < size_of::<usize>() {
            return Err(Failure::new(Status::InvalidSymbol, What::NoVariable { variable: name.into() }));
        }
        // SAFETY: `pointer` is the host's variable, which registration has filled in; the engine's variable has room
        // for an address.
        unsafe {
            let memory = std::ptr::with_exposed_provenance::<usize>(pointer).read_unaligned();
            std::ptr::with_exposed_provenance_mut::<usize>(address).write_unaligned(memory);
        }
        Ok(())
    }

    /// The `hipFunction_t` of the kernel that a host function stands for.
    pub fn host_function_handle(&self, address: usize) -> Result<usize, Failure> {
        let missing = || Failure::new(Status::InvalidDeviceFunction, What::NotAKernel { address });
        let (fat_binary, name) = {
            let state = self.state();
            let function = state.host_functions.get(&address).ok_or_else(missing)?;
            if let Some(handle) = function.handle {
                return Ok(handle);
            }
            (function.fat_binary, function.name.clone())
        };
        let module = self.load_fat_binary(fat_binary)?;
        let found = self
            .find(module, &name.to_string_lossy())
            .map_err(|failure| Failure { status: Status::InvalidDeviceFunction, ..failure })?;
        let mut state = self.state();
        let handle = state.handle();
        state.host_functions.get_mut(&address).ok_or_else(missing)?.handle = Some(handle);
        state.functions.insert(handle, Arc::new(found));
        Ok(handle)
    }

    /// The kernel that a host function stands for.
    pub fn host_function(&self, address: usize) -> Result<Arc<Function>, Failure> {
        self.function(self.host_function_handle(address)?)
    }

    /// The kernel that a host function or a `hipFunction_t` stands for: some calls take either.
    pub fn any_function(&self, handle: usize) -> Result<Arc<Function>, Failure> {
        let known = self.state().functions.get(&handle).cloned();
        known.map_or_else(|| self.host_function(handle), Ok)
    }

    /// Address and bytes of the device variable that a host variable stands for.
    pub fn host_variable(&self, address: usize) -> Result<(usize, usize), Failure> {
        let missing = || Failure::new(Status::InvalidSymbol, What::NotAVariable { address });
        let (fat_binary, name) = {
            let state = self.state();
            let variable = state.host_variables.get(&address).ok_or_else(missing)?;
            if let Some(memory) = variable.managed {
                return Ok((memory, variable.bytes));
            }
            (variable.fat_binary, variable.name.clone())
        };
        let module = self.load_fat_binary(fat_binary)?;
        self.variable(module, &name).map_err(|failure| Failure { status: Status::InvalidSymbol, ..failure })
    }

    fn register_managed(
        &self,
        fat_binary: usize,
        pointer: Out<usize>,
        initial: usize,
        name: Text,
        bytes: usize,
    ) -> Result<(), Failure> {
        let name = name.read()?;
        if bytes == 0 {
            return Err(Status::InvalidValue.into());
        }
        let memory = self.engine.allocate(bytes, MemoryKind::Managed).ok_or(Status::OutOfMemory)?;
        if initial != 0 {
            // SAFETY: the compiler passes the variable's initial value, of the variable's size.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    std::ptr::with_exposed_provenance::<u8>(initial),
                    std::ptr::with_exposed_provenance_mut::<u8>(memory),
                    bytes,
                );
            }
        }
        pointer.put(memory)?;
        let mut state = self.state();
        let owner = state
            .fat_binaries
            .get_mut(&fat_binary)
            .ok_or_else(|| Failure::handle(HandleKind::FatBinary, fat_binary))?;
        owner.managed.push((name.clone(), pointer.address()));
        let variable = HostVariable { fat_binary, name, bytes, managed: Some(memory) };
        state.host_variables.insert(pointer.address(), variable);
        Ok(())
    }

    fn unregister(&self, handle: usize) {
        let mut state = self.state();
        let Some(fat_binary) = state.fat_binaries.remove(&handle) else { return };
        let ended: Vec<usize> = state
            .host_functions
            .extract_if(|_, function| function.fat_binary == handle)
            .filter_map(|(_, function)| function.handle)
            .collect();
        ended.iter().for_each(|function| {
            state.functions.remove(function);
        });
        let variables = state.host_variables.extract_if(|_, variable| variable.fat_binary == handle);
        let memory: Vec<usize> = variables.filter_map(|(_, variable)| variable.managed).collect();
        drop(state);
        memory.iter().for_each(|address| {
            self.engine.free(*address);
        });
        if let Some(Ok(module)) = fat_binary.loaded {
            self.forget_variables(module);
            self.engine.unload(module);
        }
    }

    /// Forgets the variables of a module that is about to go: other memory may take their addresses.
    pub fn forget_variables(&self, module: ModuleId) {
        let mut state = self.state();
        let gone = state.variables_of.remove(&module).unwrap_or_default();
        gone.iter().for_each(|address| {
            state.variables.remove(address);
        });
    }
}

/// `__hipRegisterFatBinary`. The result stands for the library in the other calls.
extern "C" fn register_fat_binary(wrapper: usize) -> usize {
    let call = "__hipRegisterFatBinary";
    guarded(call, 0, |runtime| {
        let (image, loaded) = match image::unwrap(wrapper) {
            Ok(bundle) => (bundle, None),
            Err(failure) => {
                if let Some(what) = &failure.problem {
                    runtime.report(Problem { call, what: (**what).clone() });
                }
                // Launches of the library's kernels fail with the same error.
                (0, Some(Err(failure)))
            }
        };
        let mut state = runtime.state();
        let handle = state.handle();
        state.fat_binaries.insert(handle, FatBinary { image, loaded, managed: Vec::new() });
        handle
    })
}

extern "C" fn register_function(
    fat_binary: usize,
    host_function: usize,
    _device_function: usize,
    name: Text,
    _thread_limit: u32,
    _thread: usize,
    _block: usize,
    _threads: usize,
    _blocks: usize,
    _warp_size: usize,
) {
    guarded("__hipRegisterFunction", (), |runtime| {
        // What was read from a C string has no zero in it.
        if let Ok(name) = name.read().map(|name| CString::new(name).unwrap_or_default()) {
            let function = HostFunction { fat_binary, name, handle: None };
            runtime.state().host_functions.insert(host_function, function);
        }
    });
}

extern "C" fn register_variable(
    fat_binary: usize,
    host_variable: usize,
    _host_name: usize,
    name: Text,
    _external: c_int,
    bytes: usize,
    _constant: c_int,
    _global: c_int,
) {
    guarded("__hipRegisterVar", (), |runtime| {
        if let Ok(name) = name.read() {
            let variable = HostVariable { fat_binary, name, bytes, managed: None };
            runtime.state().host_variables.insert(host_variable, variable);
        }
    });
}

extern "C" fn register_managed_variable(
    fat_binary: usize,
    pointer: Out<usize>,
    initial: usize,
    name: Text,
    bytes: usize,
    _align: u32,
) {
    let call = "__hipRegisterManagedVar";
    guarded(call, (), |runtime| {
        if let Err(Failure { problem: Some(what), .. }) =
            runtime.register_managed(fat_binary, pointer, initial, name, bytes)
        {
            runtime.report(Problem { call, what: *what });
        }
    });
}

extern "C" fn unregister_fat_binary(fat_binary: usize) {
    guarded("__hipUnregisterFatBinary", (), |runtime| runtime.unregister(fat_binary));
}

/// Textures and surfaces of a library: they are registered whether it uses them or not, and calls that use them are
/// not emulated.
extern "C" fn register_nothing() {}

/// Calls that do not return a status.
pub(super) fn other_entries() -> Vec<Entry> {
    let entry = |name, function: *const ()| Entry { name, addresses: [function as usize; 3] };
    vec![
        entry("__hipRegisterFatBinary", register_fat_binary as *const ()),
        entry("__hipRegisterFunction", register_function as *const ()),
        entry("__hipRegisterVar", register_variable as *const ()),
        entry("__hipRegisterManagedVar", register_managed_variable as *const ()),
        entry("__hipRegisterSurface", register_nothing as *const ()),
        entry("__hipRegisterTexture", register_nothing as *const ()),
        entry("__hipUnregisterFatBinary", unregister_fat_binary as *const ()),
    ]
}
