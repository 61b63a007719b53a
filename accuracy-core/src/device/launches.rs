//! Which kernels a launcher really launches: the runtimes' launch calls, observed where kernel libraries make them.
//!
//! A library reaches the runtime through slots of its own, one for each imported function, that the loader fills in.
//! Once a library is open, [`observe`] writes functions of this module into those of the launch calls, in it and in
//! whatever it brought along; they note the kernel's name and go on to the runtime. Host libraries, in which a launch
//! is a loop, call a hook instead (`hip_host/hip/hip_runtime.h`). A library with the CUDA runtime linked into it
//! (nvcc's default; `-cudart shared` is the other) imports no launch call and cannot be observed.
//!
//! What a launcher launches on another thread, or by a graph, is not seen.

use crate::symbol::readable;
use libloading::Library;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

thread_local! {
    /// Kernels launched by this thread since they were last taken.
    static LAUNCHED: RefCell<Vec<Launched>> = const { RefCell::new(Vec::new()) };
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launched {
    /// Demangled and without parameters, `?` where the runtime does not tell.
    pub kernel: String,
    /// A number that stands for the grid and the arguments that are no pointers; `None` where these are not seen.
    pub configuration: Option<u64>,
}

/// The kernels that this thread has launched since the last call.
pub fn take() -> Vec<Launched> {
    LAUNCHED.with_borrow_mut(std::mem::take)
}

/// How a runtime is asked for a kernel's name.
#[derive(Clone, Copy)]
enum Handle {
    /// The address of the function that stands for the kernel on the host.
    HipFunction,
    /// `hipFunction_t`.
    HipModule,
    CudaFunction,
    /// `CUkernel`.
    CudaKernel,
    /// `CUfunction`.
    CudaModule,
}

/// A launch call: its own address in the runtime, once a library that imports it is open, and what takes its place.
struct Call {
    symbol: &'static CStr,
    own: &'static AtomicPtr<c_void>,
    ours: *const c_void,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: c_uint,
    y: c_uint,
    z: c_uint,
}

type Pointer = *mut c_void;

/// Defines a replacement for each launch call, with the signature that the runtime's header gives it.
macro_rules! calls {
    ($($function:ident = $symbol:literal, $handle:ident: $kernel:ident in ($($argument:ident: $ty:ty),*);)*) => {
        $(
            mod $function {
                use super::*;
                pub static OWN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                pub unsafe extern "C" fn call($($argument: $ty),*) -> c_int {
                    note(Handle::$handle, $kernel as Pointer);
                    let own = OWN.load(SeqCst);
                    // SAFETY: a slot is only given this function once the address of the call itself is known, which
                    // has this type, and the arguments are those of the caller.
                    unsafe {
                        let own: unsafe extern "C" fn($($ty),*) -> c_int = std::mem::transmute(own);
                        own($($argument),*)
                    }
                }
            }
        )*
        fn calls() -> Vec<Call> {
            vec![$(Call { symbol: $symbol, own: &$function::OWN, ours: $function::call as *const c_void }),*]
        }
    };
}

calls! {
    hip_launch = c"hipLaunchKernel", HipFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    hip_launch_spt = c"hipLaunchKernel_spt", HipFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    hip_cooperative = c"hipLaunchCooperativeKernel", HipFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: c_uint, stream: Pointer);
    hip_ext = c"hipExtLaunchKernel", HipFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer, start: Pointer,
         stop: Pointer, flags: c_int);
    hip_config = c"hipLaunchKernelExC", HipFunction: f in (config: Pointer, f: Pointer, args: Pointer);
    hip_module = c"hipModuleLaunchKernel", HipModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
         stream: Pointer, args: Pointer, extra: Pointer);
    hip_module_cooperative = c"hipModuleLaunchCooperativeKernel", HipModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
         stream: Pointer, args: Pointer);
    hip_module_config = c"hipDrvLaunchKernelEx", HipModule: f in
        (config: Pointer, f: Pointer, args: Pointer, extra: Pointer);
    hip_module_ext = c"hipExtModuleLaunchKernel", HipModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: usize,
         stream: Pointer, args: Pointer, extra: Pointer, start: Pointer, stop: Pointer, flags: c_uint);
    // The header declares it without C linkage.
    hip_module_ext_mangled =
        c"_Z24hipExtModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_tPPvS4_P11ihipEvent_tS6_j",
        HipModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: usize,
         stream: Pointer, args: Pointer, extra: Pointer, start: Pointer, stop: Pointer, flags: c_uint);
    cuda_launch = c"cudaLaunchKernel", CudaFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    cuda_launch_ptsz = c"cudaLaunchKernel_ptsz", CudaFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    // What nvcc 13 makes of `<<<>>>`.
    cuda_kernel = c"__cudaLaunchKernel", CudaKernel: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    cuda_kernel_ptsz = c"__cudaLaunchKernel_ptsz", CudaKernel: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    cuda_cooperative = c"cudaLaunchCooperativeKernel", CudaFunction: f in
        (f: Pointer, grid: Dim3, block: Dim3, args: Pointer, shared: usize, stream: Pointer);
    cuda_config = c"cudaLaunchKernelExC", CudaFunction: f in (config: Pointer, f: Pointer, args: Pointer);
    cuda_module = c"cuLaunchKernel", CudaModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
         stream: Pointer, args: Pointer, extra: Pointer);
    cuda_module_cooperative = c"cuLaunchCooperativeKernel", CudaModule: f in
        (f: Pointer, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
         stream: Pointer, args: Pointer);
    cuda_module_config = c"cuLaunchKernelEx", CudaModule: f in
        (config: Pointer, f: Pointer, args: Pointer, extra: Pointer);
}

/// Notes a launch under the kernel's name, or under `?` where the runtime does not tell it.
fn note(handle: Handle, kernel: Pointer) {
    static NAMES: OnceLock<Mutex<HashMap<usize, String>>> = OnceLock::new();
    let mut names = NAMES.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
    let name = names
        .entry(kernel.addr())
        .or_insert_with(|| name_of(handle, kernel).map_or_else(|| "?".into(), |name| readable(&name)));
    let launch = Launched { kernel: name.clone(), configuration: None };
    LAUNCHED.with_borrow_mut(|launched| launched.push(launch));
}

fn name_of(handle: Handle, kernel: Pointer) -> Option<String> {
    type Tell = unsafe extern "C" fn(Pointer) -> *const c_char;
    type TellByPointer = unsafe extern "C" fn(Pointer, Pointer) -> *const c_char;
    type TellInto = unsafe extern "C" fn(*mut *const c_char, Pointer) -> c_int;
    let into = |symbol: &CStr| -> Option<*const c_char> {
        let tell = runtime_symbol(symbol)?;
        let mut name = std::ptr::null();
        // SAFETY: the three functions that are asked for have this type; `kernel` is what the caller was given.
        let code = unsafe { std::mem::transmute::<Pointer, TellInto>(tell)(&mut name, kernel) };
        (code == 0).then_some(name)
    };
    // SAFETY: the types are those of HIP's header; `kernel` is what the caller was given.
    let name = unsafe {
        match handle {
            Handle::HipFunction => std::mem::transmute::<Pointer, TellByPointer>(runtime_symbol(
                c"hipKernelNameRefByPtr",
            )?)(kernel, std::ptr::null_mut()),
            Handle::HipModule => {
                std::mem::transmute::<Pointer, Tell>(runtime_symbol(c"hipKernelNameRef")?)(kernel)
            }
            Handle::CudaFunction => into(c"cudaFuncGetName")?,
            Handle::CudaKernel => into(c"cuKernelGetName")?,
            Handle::CudaModule => into(c"cuFuncGetName")?,
        }
    };
    // SAFETY: a pointer that is not null is a C string of the runtime.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// A function of a runtime that is loaded, whoever brought it along.
fn runtime_symbol(symbol: &CStr) -> Option<Pointer> {
    // CUDA's driver is loaded by its runtime, and only when that is first used.
    let driver = c"libcuda.so.1".to_owned();
    // The file of HIP's stand-in may be called otherwise.
    let emulated = CString::new(super::kind::STAND_IN).unwrap_or_default();
    let runtimes = RUNTIMES.lock().unwrap_or_else(|e| e.into_inner());
    runtimes.iter().chain([&driver, &emulated]).find_map(|file| {
        // SAFETY: with RTLD_NOLOAD this only finds what is loaded already; the handle is never closed, so what it leads
        // to stays.
        let found = unsafe {
            let handle = libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if handle.is_null() { std::ptr::null_mut() } else { libc::dlsym(handle, symbol.as_ptr()) }
        };
        (!found.is_null()).then_some(found)
    })
}

/// File names of the runtimes that libraries have brought along.
static RUNTIMES: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

/// Observes the launches of a library that has just been opened, and of what it brought along. `false` where it has no
/// launch call that could be observed.
pub fn observe(path: &Path, library: &Library) -> bool {
    host::observe(path, library) || imports::observe()
}

/// Host libraries, whose launches are loops.
mod host {
    use super::*;
    use object::{Object, ObjectSymbol};

    /// Functions of the host libraries by address.
    static SYMBOLS: Mutex<Vec<(usize, usize, String)>> = Mutex::new(Vec::new());

    unsafe extern "C" fn launched(kernel: *const c_void) {
        record(kernel, None);
    }

    unsafe extern "C" fn configured(kernel: *const c_void, configuration: u64) {
        record(kernel, Some(configuration));
    }

    fn record(kernel: *const c_void, configuration: Option<u64>) {
        let symbols = SYMBOLS.lock().unwrap_or_else(|e| e.into_inner());
        let at = kernel.addr();
        let name = symbols
            .iter()
            .find(|(start, size, _)| (*start..*start + (*size).max(1)).contains(&at))
            .map_or("?".into(), |(_, _, name)| readable(name));
        let launch = Launched { kernel: name, configuration };
        LAUNCHED.with_borrow_mut(|launched| launched.push(launch));
    }

    pub fn observe(path: &Path, library: &Library) -> bool {
        type Hook = *mut Option<unsafe extern "C" fn(*const c_void)>;
        // SAFETY: the symbol is a variable of this type in hip_host's header, which alone has the name; nothing
        // launches yet.
        let hook = unsafe {
            let Ok(hook) = library.get::<Hook>("hip_host_on_launch") else { return false };
            **hook = Some(launched);
            hook.addr()
        };
        type Configured = *mut Option<unsafe extern "C" fn(*const c_void, u64)>;
        // SAFETY: as above. Libraries that were built with an earlier header have no such variable.
        unsafe {
            if let Ok(hook) = library.get::<Configured>("hip_host_on_configured_launch") {
                **hook = Some(configured);
            }
        }
        // Kernels are local symbols, which the loader does not know; the file does.
        if let Some(symbols) = read(path, hook) {
            SYMBOLS.lock().unwrap_or_else(|e| e.into_inner()).extend(symbols);
        }
        true
    }

    /// The file's functions, moved to where it is loaded: `hook` is the address of the hook there.
    fn read(path: &Path, hook: usize) -> Option<Vec<(usize, usize, String)>> {
        let bytes = std::fs::read(path).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let all = || file.symbols().chain(file.dynamic_symbols());
        let base =
            hook.checked_sub(all().find(|s| s.name() == Ok("hip_host_on_launch"))?.address() as usize)?;
        let functions = all().filter(|s| s.kind() == object::SymbolKind::Text && s.is_definition());
        let entry = |s: object::Symbol<'_, '_>| {
            Some((base + s.address() as usize, s.size() as usize, s.name().ok()?.to_string()))
        };
        let entries = functions.filter_map(entry).collect();
        Some(entries)
    }
}

/// Slots of imported functions, in every loaded object.
mod imports {
    use super::*;

    /// Objects by the address of their dynamic section, and how many slots were found in each.
    static SEEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

    /// A part of an object's dynamic section (ELF-64 little-endian; the loader has relocated its addresses, or not).
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Dyn {
        tag: i64,
        value: u64,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Rela {
        offset: u64,
        info: u64,
        addend: i64,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sym {
        name: u32,
        info: u8,
        other: u8,
        section: u16,
        value: u64,
        size: u64,
    }

    const DT_PLTRELSZ: i64 = 2;
    const DT_STRTAB: i64 = 5;
    const DT_SYMTAB: i64 = 6;
    const DT_RELA: i64 = 7;
    const DT_RELASZ: i64 = 8;
    const DT_JMPREL: i64 = 23;
    /// Relocations that put a function's address, and nothing else, into a slot: absolute, global data, jump slot.
    #[cfg(target_arch = "x86_64")]
    const SLOTS: [u32; 3] = [1, 6, 7];
    #[cfg(target_arch = "aarch64")]
    const SLOTS: [u32; 3] = [257, 1025, 1026];

    /// Writes our functions into the slots of all objects that are new. `true` if there is a slot in any of them.
    pub fn observe() -> bool {
        let mut found: Vec<(CString, usize, usize)> = Vec::new();
        // SAFETY: the callback gets the pointer that is passed here, and only while the call lasts.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
        let calls = calls();
        let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
        let mut any = false;
        for (name, base, dynamic) in found {
            if !seen.insert(dynamic) {
                continue;
            }
            let file = name.to_string_lossy();
            let file = file.rsplit('/').next().unwrap_or_default();
            if ["libamdhip64.so", "libcudart.so", "libcuda.so"].iter().any(|r| file.starts_with(r)) {
                RUNTIMES.lock().unwrap_or_else(|e| e.into_inner()).insert(name.clone());
                // A runtime's calls of itself are no launches of anyone else.
                continue;
            }
            // SAFETY: base and dynamic section are those of an object that the loader has mapped.
            any |= unsafe { redirect(&name, base, dynamic, &calls) };
        }
        any
    }

    unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _size: usize, to: Pointer) -> c_int {
        // SAFETY: the loader passes a valid description; `to` is the vector of `observe`.
        unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            let dynamic = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC);
            // The program itself has no name; it launches nothing.
            if let Some(dynamic) = dynamic.filter(|_| !info.dlpi_name.is_null() && *info.dlpi_name != 0) {
                let base = info.dlpi_addr as usize;
                let name = CStr::from_ptr(info.dlpi_name).to_owned();
                (*to.cast::<Vec<(CString, usize, usize)>>()).push((
                    name,
                    base,
                    base + dynamic.p_vaddr as usize,
                ));
            }
        }
        0
    }

    /// # Safety
    /// `base` and `dynamic` must be the load address and the dynamic section of a loaded object.
    unsafe fn redirect(name: &CStr, base: usize, dynamic: usize, calls: &[Call]) -> bool {
        let mut entries = std::collections::BTreeMap::new();
        let mut at = std::ptr::with_exposed_provenance::<Dyn>(dynamic);
        // SAFETY: a dynamic section ends with an entry whose tag is 0.
        unsafe {
            while (*at).tag != 0 {
                entries.insert((*at).tag, (*at).value as usize);
                at = at.add(1);
            }
        }
        // glibc relocates these addresses in place, other loaders leave them as they are in the file.
        let place = |tag| entries.get(&tag).map(|&value| if value < base { base + value } else { value });
        let (Some(symbols), Some(strings)) = (place(DT_SYMTAB), place(DT_STRTAB)) else { return false };
        let mut any = false;
        for (table, size) in [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)] {
            let (Some(table), Some(&bytes)) = (place(table), entries.get(&size)) else { continue };
            let table = std::ptr::with_exposed_provenance::<Rela>(table);
            for i in 0..bytes / size_of::<Rela>() {
                // SAFETY: the table has this many entries; symbol and name indices are the linker's, inside of theirs.
                let (rela, symbol) = unsafe {
                    let rela = *table.add(i);
                    let symbol =
                        std::ptr::with_exposed_provenance::<Sym>(symbols).add((rela.info >> 32) as usize);
                    let name =
                        std::ptr::with_exposed_provenance::<c_char>(strings).add((*symbol).name as usize);
                    (rela, CStr::from_ptr(name))
                };
                if !SLOTS.contains(&(rela.info as u32)) {
                    continue;
                }
                let Some(call) = calls.iter().find(|call| call.symbol == symbol) else { continue };
                // SAFETY: the relocation says that the loader keeps the address of this very function there.
                any |= unsafe { replace(name, call, base + rela.offset as usize) };
            }
        }
        any
    }

    /// # Safety
    /// `slot` must be the place of a function pointer that stands for `call`, in the object of this name.
    unsafe fn replace(object: &CStr, call: &Call, slot: usize) -> bool {
        // SAFETY: with RTLD_NOLOAD nothing is loaded; dlsym looks where the object's own references lead to.
        let own = unsafe {
            let handle = libc::dlopen(object.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if handle.is_null() {
                return false;
            }
            libc::dlsym(handle, call.symbol.as_ptr())
        };
        if own.is_null() {
            return false;
        }
        call.own.store(own, SeqCst);
        // SAFETY: sysconf takes a plain number; the page holds the slot. Writing a pointer is atomic, and both values
        // lead to the same call.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let start = std::ptr::with_exposed_provenance_mut::<c_void>(slot & !(page - 1));
            // The loader may have made it read-only once it was filled in.
            if libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return false;
            }
            (*std::ptr::with_exposed_provenance::<AtomicPtr<c_void>>(slot))
                .store(call.ours.cast_mut(), SeqCst);
        }
        true
    }
}
