//! Brings the shared objects into the process: written to a temporary folder, opened, filled in.

use super::abi::{self, Entry, Out, Text, Version};
use super::names::{self, Name, Returns};
use super::problem::{Failure, Problem, What};
use super::status::Status;
use super::stub::{self, Machine};
use super::{device, graph, launch, memory, modules, registration, streams};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, OnceLock};

/// Why the stand-in cannot become this process's HIP runtime.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{soname} is loaded already. Emulation has to begin before anything opens a HIP runtime")]
    Loaded { soname: &'static str },
    #[error("emulation has begun already in this process")]
    Twice,
    #[error("no folder for {soname} can be written: {tried}. Set TMPDIR to one from which programs may run")]
    Write { soname: &'static str, tried: String },
    #[error("{soname} cannot be loaded: {error}. Set TMPDIR to a folder from which programs may run")]
    Open { soname: &'static str, error: String },
}

/// Writes, opens and fills in the object of each version.
pub(super) fn load_all() -> Result<(), InstallError> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(|e| e.into_inner());
    if *done {
        return Err(InstallError::Twice);
    }
    for version in Version::ALL {
        if is_loaded(version.soname()) {
            return Err(InstallError::Loaded { soname: version.soname() });
        }
    }
    let entries = entries();
    for version in Version::ALL {
        load(version, &entries)?;
    }
    *done = true;
    Ok(())
}

/// All emulated calls.
pub(super) fn entries() -> HashMap<&'static str, Entry> {
    let lists = [
        device::entries(),
        device::version_entries(),
        device::versioned_entries(),
        device::other_entries(),
        graph::entries(),
        launch::entries(),
        launch::other_entries(),
        memory::entries(),
        memory::versioned_entries(),
        modules::entries(),
        modules::other_entries(),
        registration::other_entries(),
        streams::entries(),
        streams::other_entries(),
    ];
    let own = [
        memory::versioned!("hipGetProcAddress", get_proc_address),
        memory::versioned!("hipGetDriverEntryPoint", get_entry_point),
        memory::versioned!("hipGetDriverEntryPoint_spt", get_entry_point),
    ];
    lists.into_iter().flatten().chain(own).map(|entry| (entry.name, entry)).collect()
}

/// The names of the objects' symbols, in the order of their tables.
fn exported() -> &'static [Name] {
    static NAMES: OnceLock<Vec<Name>> = OnceLock::new();
    NAMES.get_or_init(names::all)
}

fn is_loaded(soname: &str) -> bool {
    let Ok(soname) = CString::new(soname) else { return false };
    // SAFETY: with RTLD_NOLOAD this only finds what is loaded already.
    unsafe {
        let handle = libc::dlopen(soname.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if handle.is_null() {
            return false;
        }
        libc::dlclose(handle);
    }
    true
}

fn load(version: Version, entries: &HashMap<&'static str, Entry>) -> Result<(), InstallError> {
    let soname = version.soname();
    let names: Vec<&str> = exported().iter().map(|name| name.name).collect();
    let open = |error: String| InstallError::Open { soname, error };
    let machine = Machine::host().ok_or_else(|| open("no such object can be written here".into()))?;
    let file = stub::write(machine, soname, &names);
    let (handle, tried) = write_and_open(soname, &file)?;
    let Some(handle) = handle else { return Err(open(tried.join("; "))) };
    let Ok(symbol) = CString::new(stub::TABLE) else { return Err(open("no table".into())) };
    OBJECTS[version as usize - Version::V5 as usize].store(handle, Release);
    // SAFETY: the object was opened and is never closed.
    let table = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
    if table.is_null() {
        return Err(open(last_error()));
    }
    // SAFETY: the table has an entry for the handler and one for each name, and lies in writable data of an object
    // that nobody else knows yet.
    let table = unsafe { std::slice::from_raw_parts_mut(table.cast::<usize>(), names.len() + 1) };
    table[0] = unemulated as *const () as usize;
    for (slot, name) in table[1..].iter_mut().zip(&names) {
        if let Some(entry) = entries.get(name) {
            *slot = entry.addresses[version as usize - Version::V5 as usize];
        }
    }
    Ok(())
}

/// Handles of the opened objects, by version.
static OBJECTS: [AtomicPtr<c_void>; 3] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 3];

/// Where the call of this name begins, in the object of this version.
fn find_call(
    version: Version,
    name: Text,
    address: Out<usize>,
    newer: bool,
    found: Out<u32>,
) -> Result<(), Failure> {
    let name = name.read()?;
    let name = match name.as_str() {
        "hipGetDeviceProperties" if newer => "hipGetDevicePropertiesR0600",
        "hipChooseDevice" if newer => "hipChooseDeviceR0600",
        name => name,
    };
    let known = exported().iter().any(|exported| exported.name == name);
    let symbol = CString::new(name).ok().filter(|_| known);
    let object = OBJECTS[version as usize - Version::V5 as usize].load(Acquire);
    let place = match &symbol {
        // SAFETY: the object was opened and is never closed.
        Some(symbol) if !object.is_null() => unsafe { libc::dlsym(object, symbol.as_ptr()) },
        _ => std::ptr::null_mut(),
    };
    // Found, or symbol not found.
    found.offer(u32::from(place.is_null()));
    if place.is_null() {
        return Err(Status::InvalidValue.into());
    }
    address.put(place.expose_provenance())
}

/// `hipGetProcAddress`. Whoever names a version from 6.0 on means the newer structures.
extern "C" fn get_proc_address<const V: u8>(
    name: Text,
    address: Out<usize>,
    hip_version: c_int,
    _flags: u64,
    found: Out<u32>,
) -> c_int {
    abi::call("hipGetProcAddress", abi::AfterFault::Works, |_| {
        find_call(Version::of(V), name, address, hip_version >= 600, found)
    })
}

/// `hipGetDriverEntryPoint`, which came with HIP 7.
extern "C" fn get_entry_point<const V: u8>(
    name: Text,
    address: Out<usize>,
    _flags: u64,
    found: Out<u32>,
) -> c_int {
    abi::call("hipGetDriverEntryPoint", abi::AfterFault::Works, |_| {
        find_call(Version::of(V), name, address, true, found)
    })
}

/// What `dlerror` says.
fn last_error() -> String {
    // SAFETY: dlerror returns null or a string that lasts until this thread's next call of the loader.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "the loader gives no reason".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// Opens the object from the first folder that allows it, and says what the others said. The object's file is gone
/// afterwards; what is mapped stays.
fn write_and_open(
    soname: &'static str,
    file: &[u8],
) -> Result<(Option<*mut c_void>, Vec<String>), InstallError> {
    let (mut refused, mut unwritable) = (Vec::new(), Vec::new());
    let beside_test = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    for folder in [Some(std::env::temp_dir()), Some("/dev/shm".into()), beside_test].into_iter().flatten() {
        let temporary = match temporary_folder(&folder) {
            Ok(temporary) => temporary,
            Err(error) => {
                unwritable.push(format!("{}: {error}", folder.display()));
                continue;
            }
        };
        let opened = open_in(&temporary, soname, file);
        let _ = std::fs::remove_dir_all(&temporary);
        match opened {
            Ok(handle) => return Ok((Some(handle), refused)),
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() {
        return Err(InstallError::Write { soname, tried: unwritable.join(", ") });
    }
    Ok((None, refused))
}

/// A new folder that only this user can enter.
fn temporary_folder(parent: &Path) -> io::Result<PathBuf> {
    let mut template = parent.join("accuracy-hip-XXXXXX").as_os_str().as_bytes().to_vec();
    template.push(0);
    // SAFETY: the template ends with a zero; mkdtemp writes into it and returns it.
    if unsafe { libc::mkdtemp(template.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    template.pop();
    Ok(PathBuf::from(std::ffi::OsString::from(std::ffi::OsStr::from_bytes(&template))))
}

fn open_in(folder: &Path, soname: &str, file: &[u8]) -> Result<*mut c_void, String> {
    let path = folder.join(soname);
    std::fs::write(&path, file).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // Local: a library finds the calls of the SONAME that it needs, and not those of another version that came first.
    // SAFETY: the object has no initialisers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() { Err(last_error()) } else { Ok(handle) }
}

/// Where calls lead that are not emulated. The number is that of the call in the table.
extern "C" fn unemulated(index: u32) -> u64 {
    /// `HIPRTC_ERROR_INTERNAL_ERROR`.
    const RTC_INTERNAL_ERROR: u64 = 11;
    let Some(name) = exported().get(index as usize) else { return 0 };
    if name.returns == Returns::Status {
        let code = abi::call(name.name, abi::AfterFault::Works, |_| {
            Err(Failure::new(Status::NotSupported, What::Unemulated))
        });
        return code as u64;
    }
    abi::guarded(name.name, (), |runtime| {
        runtime.report(Problem { call: name.name, what: What::Unemulated });
    });
    match name.returns {
        Returns::Rtc => RTC_INTERNAL_ERROR,
        Returns::Status | Returns::Pointer | Returns::Number | Returns::Nothing => 0,
    }
}
