//! Modules, their kernels and globals; what a kernel needs and how many of its workgroups fit on a compute unit.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{Entry, Out, Text, calls, guarded};
use super::engine::{KernelInfo, Processor};
use super::image;
use super::problem::{Failure, HandleKind, What};
use super::runtime::{Function, Module, Runtime};
use super::status::Status;
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::sync::Arc;

/// Work-items of a wave.
const WAVE: u32 = 64;
/// SIMD units of a compute unit.
const SIMDS: u32 = 4;
/// The most waves on a SIMD unit.
const WAVES_OF_SIMD: u32 = 8;
/// Vector registers of a SIMD unit for each lane, accumulation registers included, and their granule.
const VGPRS: u32 = 512;
const VGPR_GRANULE: u32 = 8;
/// Scalar registers of a SIMD unit and their granule.
const SGPRS: u32 = 800;
const SGPR_GRANULE: u32 = 16;

/// How many workgroups of a kernel a compute unit holds at once.
///
/// Source: LLVM's user guide for the AMDGPU backend, for the registers and granules of gfx90a and its successors.
pub(super) fn occupancy(processor: Processor, info: &KernelInfo, threads: u32, dynamic_lds: u64) -> u32 {
    if threads == 0 {
        return 0;
    }
    let by = |all: u32, used: u32, granule: u32| match used {
        0 => WAVES_OF_SIMD,
        used => all / used.next_multiple_of(granule),
    };
    let waves_of_simd =
        by(VGPRS, info.vgprs, VGPR_GRANULE).min(by(SGPRS, info.sgprs, SGPR_GRANULE)).min(WAVES_OF_SIMD);
    let by_waves = SIMDS * waves_of_simd / threads.div_ceil(WAVE);
    let lds = u64::from(info.static_lds) + dynamic_lds;
    let granule = u64::from(processor.lds_granule());
    match lds {
        0 => by_waves,
        lds => {
            let by_lds = u64::from(processor.lds_bytes()) / lds.next_multiple_of(granule);
            by_waves.min(u32::try_from(by_lds).unwrap_or(u32::MAX))
        }
    }
}

/// The workgroup with which a kernel keeps the most waves on a compute unit, and the grid that fills the device.
fn best_block(processor: Processor, info: &KernelInfo, dynamic_lds: u64, limit: i32) -> (u32, u32) {
    let most = info.max_workgroup_size.min(1024);
    let most = u32::try_from(limit).ok().filter(|limit| *limit > 0).map_or(most, |limit| most.min(limit));
    let sizes = (1..=most.div_ceil(WAVE)).rev().map(|waves| (waves * WAVE).min(most));
    let mut best = (0, 0);
    for threads in sizes.filter(|threads| *threads > 0) {
        let blocks = occupancy(processor, info, threads, dynamic_lds);
        // Of two sizes that are as good the larger one, which comes first.
        if blocks * threads > best.0 * best.1 {
            best = (blocks, threads);
        }
    }
    (best.0 * processor.compute_units(), best.1)
}

fn lds_of(bytes: usize) -> u64 {
    bytes as u64
}

/// `hipFuncAttributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FunctionAttributes {
    pub binary_version: c_int,
    pub cache_mode: c_int,
    pub constant_bytes: usize,
    pub local_bytes: usize,
    pub max_dynamic_shared_bytes: c_int,
    pub max_threads: c_int,
    pub registers: c_int,
    pub shared_carveout: c_int,
    pub ptx_version: c_int,
    pub shared_bytes: usize,
}

/// What `binaryVersion` and `ptxVersion` say: HIP reports the capability as one number.
fn binary_version(processor: Processor) -> c_int {
    let (major, minor) = processor.capability();
    major * 10 + minor
}

impl Runtime {
    fn max_dynamic_lds(&self, function: &Function) -> u32 {
        let set = self.state().dynamic_lds.get(&function.kernel).copied();
        let free = self.engine.processor().lds_bytes().saturating_sub(function.info.static_lds);
        set.unwrap_or(free)
    }

    fn set_dynamic_lds(&self, function: &Function, bytes: c_int) -> Result<(), Failure> {
        let most = self.engine.processor().lds_bytes().saturating_sub(function.info.static_lds);
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= most).ok_or(Status::InvalidValue)?;
        self.state().dynamic_lds.insert(function.kernel, bytes);
        Ok(())
    }

    fn attributes(&self, function: &Function) -> FunctionAttributes {
        let version = binary_version(self.engine.processor());
        let KernelInfo { scratch_bytes, max_workgroup_size, vgprs, static_lds, .. } = function.info;
        FunctionAttributes {
            binary_version: version,
            cache_mode: 0,
            constant_bytes: 0,
            local_bytes: scratch_bytes as usize,
            max_dynamic_shared_bytes: self.max_dynamic_lds(function) as c_int,
            max_threads: max_workgroup_size as c_int,
            registers: vgprs as c_int,
            shared_carveout: 0,
            ptx_version: version,
            shared_bytes: static_lds as usize,
        }
    }

    fn new_module(&self, module: Out<usize>, id: super::engine::ModuleId) -> Result<(), Failure> {
        let mut state = self.state();
        let handle = state.handle();
        state.modules.insert(handle, Module { id, functions: HashMap::new() });
        module.put(handle)
    }

    fn module_function(&self, module: usize, name: Text) -> Result<usize, Failure> {
        let missing = || Failure::handle(HandleKind::Module, module);
        let name = name.read()?;
        let id = {
            let state = self.state();
            let module = state.modules.get(&module).ok_or_else(missing)?;
            if let Some(handle) = module.functions.get(&name) {
                return Ok(*handle);
            }
            module.id
        };
        let found = Arc::new(self.find(id, &name)?);
        let mut state = self.state();
        let handle = state.handle();
        state.modules.get_mut(&module).ok_or_else(missing)?.functions.insert(name, handle);
        state.functions.insert(handle, found);
        Ok(handle)
    }

    fn unload(&self, module: usize) -> Result<(), Failure> {
        let mut state = self.state();
        let removed =
            state.modules.remove(&module).ok_or_else(|| Failure::handle(HandleKind::Module, module))?;
        for handle in removed.functions.values() {
            state.functions.remove(handle);
        }
        drop(state);
        self.forget_variables(removed.id);
        self.engine.unload(removed.id);
        Ok(())
    }

    fn load_file(&self, module: Out<usize>, path: Text) -> Result<(), Failure> {
        let bytes = std::fs::read(path.read()?).map_err(|_| Status::FileNotFound)?;
        self.new_module(module, image::load_bytes(self, &bytes)?)
    }
}

/// Which functions an occupancy call takes.
#[derive(Clone, Copy)]
enum Takes {
    HostFunction,
    ModuleFunction,
}

impl Runtime {
    fn take(&self, takes: Takes, function: usize) -> Result<Arc<Function>, Failure> {
        match takes {
            Takes::HostFunction => self.any_function(function),
            Takes::ModuleFunction => self.function(function),
        }
    }

    fn active_blocks(
        &self,
        out: Out<c_int>,
        (takes, function): (Takes, usize),
        threads: c_int,
        lds: usize,
    ) -> Result<(), Failure> {
        let threads = u32::try_from(threads).ok().filter(|n| *n > 0).ok_or(Status::InvalidValue)?;
        let function = self.take(takes, function)?;
        let blocks = if threads > function.info.max_workgroup_size.min(1024) {
            0
        } else {
            occupancy(self.engine.processor(), &function.info, threads, lds_of(lds))
        };
        out.put(blocks as c_int)
    }

    fn potential_block(
        &self,
        (grid, block): (Out<c_int>, Out<c_int>),
        (takes, function): (Takes, usize),
        lds: usize,
        limit: c_int,
    ) -> Result<(), Failure> {
        let function = self.take(takes, function)?;
        let (blocks, threads) = best_block(self.engine.processor(), &function.info, lds_of(lds), limit);
        grid.put(blocks as c_int)?;
        block.put(threads as c_int)
    }
}

calls! { entries, Fails, runtime;
    hipModuleLoad(module: Out<usize>, path: Text) {
        runtime.load_file(module, path)
    }
    hipModuleLoadData(module: Out<usize>, image: usize) {
        runtime.new_module(module, image::load(runtime, image, None)?)
    }
    hipModuleLoadDataEx(module: Out<usize>, image: usize, _count: u32, _options: usize, _values: usize) {
        // The options steer a compiler that a code object does not need.
        runtime.new_module(module, image::load(runtime, image, None)?)
    }
    hipModuleLoadFatBinary(module: Out<usize>, image: usize) {
        runtime.new_module(module, image::load(runtime, image, None)?)
    }
    hipModuleUnload(module: usize) {
        runtime.unload(module)
    }
    hipModuleGetFunction(function: Out<usize>, module: usize, name: Text) {
        function.put(runtime.module_function(module, name)?)
    }
    hipModuleGetFunctionCount(count: Out<u32>, module: usize) {
        let id = runtime.state().modules.get(&module).map(|module| module.id);
        let id = id.ok_or_else(|| Failure::handle(HandleKind::Module, module))?;
        count.put(u32::try_from(runtime.engine.kernel_count(id)).unwrap_or(u32::MAX))
    }
    hipModuleGetGlobal(address: Out<usize>, bytes: Out<usize>, module: usize, name: Text) {
        let id = runtime.state().modules.get(&module).map(|module| module.id);
        let id = id.ok_or_else(|| Failure::handle(HandleKind::Module, module))?;
        let (start, length) = runtime.variable(id, &name.read()?)?;
        address.offer(start);
        bytes.offer(length);
        Ok(())
    }
    hipLibraryLoadData(
        library: Out<usize>, code: usize, _jit: usize, _values: usize, _jit_count: u32, _options: usize,
        _option_values: usize, _option_count: u32,
    ) {
        runtime.new_module(library, image::load(runtime, code, None)?)
    }
    hipLibraryLoadFromFile(
        library: Out<usize>, path: Text, _jit: usize, _values: usize, _jit_count: u32, _options: usize,
        _option_values: usize, _option_count: u32,
    ) {
        runtime.load_file(library, path)
    }
    hipLibraryUnload(library: usize) {
        runtime.unload(library)
    }
    hipLibraryGetKernel(kernel: Out<usize>, library: usize, name: Text) {
        kernel.put(runtime.module_function(library, name)?)
    }
    hipLibraryGetKernelCount(count: Out<u32>, library: usize) {
        let id = runtime.state().modules.get(&library).map(|module| module.id);
        let id = id.ok_or_else(|| Failure::handle(HandleKind::Library, library))?;
        count.put(u32::try_from(runtime.engine.kernel_count(id)).unwrap_or(u32::MAX))
    }
    hipKernelGetName(name: Out<*const c_char>, kernel: usize) {
        name.put(runtime.function(kernel)?.name.as_ptr())
    }
    hipGetFuncBySymbol(function: Out<usize>, host_function: usize) {
        function.put(runtime.host_function_handle(host_function)?)
    }
    hipFuncGetAttributes(attributes: Out<FunctionAttributes>, function: usize) {
        let function = runtime.any_function(function)?;
        attributes.put(runtime.attributes(&function))
    }
    hipFuncGetAttribute(value: Out<c_int>, attribute: u32, function: usize) {
        let function = runtime.function(function)?;
        let all = runtime.attributes(&function);
        value.put(match attribute {
            0 => all.max_threads,
            1 => all.shared_bytes as c_int,
            2 => all.constant_bytes as c_int,
            3 => all.local_bytes as c_int,
            4 => all.registers,
            5 => all.ptx_version,
            6 => all.binary_version,
            7 => all.cache_mode,
            8 => all.max_dynamic_shared_bytes,
            9 => all.shared_carveout,
            _ => return Err(Status::InvalidValue.into()),
        })
    }
    hipFuncSetAttribute(function: usize, attribute: u32, value: c_int) {
        let function = runtime.any_function(function)?;
        match attribute {
            8 => runtime.set_dynamic_lds(&function, value),
            // A preference between LDS and cache, which these processors do not trade.
            9 => Ok(()),
            _ => Err(Status::InvalidValue.into()),
        }
    }
    hipFuncSetCacheConfig(function: usize, _config: u32) {
        runtime.any_function(function).map(drop)
    }
    hipFuncSetSharedMemConfig(function: usize, _config: u32) {
        runtime.any_function(function).map(drop)
    }
    hipOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<c_int>, function: usize, threads: c_int, lds: usize) {
        runtime.active_blocks(blocks, (Takes::HostFunction, function), threads, lds)
    }
    hipOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<c_int>, function: usize, threads: c_int, lds: usize, _flags: u32,
    ) {
        runtime.active_blocks(blocks, (Takes::HostFunction, function), threads, lds)
    }
    hipOccupancyMaxPotentialBlockSize(
        grid: Out<c_int>, block: Out<c_int>, function: usize, lds: usize, limit: c_int,
    ) {
        runtime.potential_block((grid, block), (Takes::HostFunction, function), lds, limit)
    }
    hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<c_int>, function: usize, threads: c_int, lds: usize,
    ) {
        runtime.active_blocks(blocks, (Takes::ModuleFunction, function), threads, lds)
    }
    hipModuleOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<c_int>, function: usize, threads: c_int, lds: usize, _flags: u32,
    ) {
        runtime.active_blocks(blocks, (Takes::ModuleFunction, function), threads, lds)
    }
    hipModuleOccupancyMaxPotentialBlockSize(
        grid: Out<c_int>, block: Out<c_int>, function: usize, lds: usize, limit: c_int,
    ) {
        runtime.potential_block((grid, block), (Takes::ModuleFunction, function), lds, limit)
    }
    hipModuleOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<c_int>, block: Out<c_int>, function: usize, lds: usize, limit: c_int, _flags: u32,
    ) {
        runtime.potential_block((grid, block), (Takes::ModuleFunction, function), lds, limit)
    }
    hipOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: usize, blocks: c_int, threads: c_int) {
        let function = runtime.any_function(function)?;
        let (Ok(blocks), Ok(threads)) = (u32::try_from(blocks), u32::try_from(threads)) else {
            return Err(Status::InvalidValue.into());
        };
        let processor = runtime.engine.processor();
        let most = processor.lds_bytes().checked_div(blocks).ok_or(Status::InvalidValue)?;
        if threads == 0 || occupancy(processor, &function.info, threads, 0) < blocks {
            return Err(Status::InvalidValue.into());
        }
        let granule = processor.lds_granule();
        bytes.put((most / granule * granule).saturating_sub(function.info.static_lds) as usize)
    }
    hipModuleGetTexRef(_texture: Out<usize>, _module: usize, _name: Text) {
        Err(Failure::new(Status::NotSupported, What::UnemulatedUse { what: "a texture" }))
    }
}

/// `hipKernelNameRef`: the name of a module's kernel, or null.
extern "C" fn kernel_name(function: usize) -> *const c_char {
    guarded("hipKernelNameRef", std::ptr::null(), |runtime| {
        // The string lives as long as the function does, which the runtime keeps.
        runtime.function(function).map_or(std::ptr::null(), |function| function.name.as_ptr())
    })
}

/// `hipKernelNameRefByPtr`: the name of the kernel that a host function stands for, or null.
extern "C" fn kernel_name_by_pointer(function: usize, _stream: usize) -> *const c_char {
    guarded("hipKernelNameRefByPtr", std::ptr::null(), |runtime| {
        // The string lives as long as the library is registered.
        runtime.state().host_functions.get(&function).map_or(std::ptr::null(), |known| known.name.as_ptr())
    })
}

/// Calls that do not return a status.
pub(super) fn other_entries() -> Vec<Entry> {
    vec![
        Entry { name: "hipKernelNameRef", addresses: [kernel_name as *const () as usize; 3] },
        Entry { name: "hipKernelNameRefByPtr", addresses: [kernel_name_by_pointer as *const () as usize; 3] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler has it with HIP 5.2's headers.
    #[test]
    fn attributes_of_a_function_lie_as_the_header_has_them() {
        assert_eq!(size_of::<FunctionAttributes>(), 56);
        assert_eq!(offset_of!(FunctionAttributes, constant_bytes), 8);
        assert_eq!(offset_of!(FunctionAttributes, local_bytes), 16);
        assert_eq!(offset_of!(FunctionAttributes, max_dynamic_shared_bytes), 24);
        assert_eq!(offset_of!(FunctionAttributes, max_threads), 28);
        assert_eq!(offset_of!(FunctionAttributes, registers), 32);
        assert_eq!(offset_of!(FunctionAttributes, shared_bytes), 48);
    }
}
