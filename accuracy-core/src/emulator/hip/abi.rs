//! The boundary to C: arguments as HIP's callers pass them, and what every call does around its body.

use super::problem::{Failure, Problem, What};
use super::runtime::Runtime;
use super::status::Status;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock};

/// A place for a result; null where the caller wants none or made a mistake.
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// A place of our own.
    pub fn to(place: &mut T) -> Out<T> {
        Out(place)
    }

    /// No place: the result is not wanted.
    pub const fn none() -> Out<T> {
        Out(std::ptr::null_mut())
    }

    /// The same place for a result of another type, where that depends on another argument.
    pub fn of<U>(out: Out<U>) -> Out<T> {
        Out(out.0.cast())
    }

    /// Writes a result that every caller has to ask for.
    pub fn put(self, value: T) -> Result<(), Failure> {
        if self.0.is_null() {
            return Err(Status::InvalidValue.into());
        }
        self.offer(value);
        Ok(())
    }

    /// Writes a result that the caller may leave out.
    pub fn offer(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: values of this type only come from HIP's callers, who pass null or a place for a `T`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Writes an element of an array.
    pub fn put_at(self, index: usize, value: T) -> Result<(), Failure> {
        if self.0.is_null() {
            return Err(Status::InvalidValue.into());
        }
        // SAFETY: values of this type only come from HIP's callers, who say how many elements there are.
        unsafe { self.0.add(index).write_unaligned(value) };
        Ok(())
    }

    pub fn address(self) -> usize {
        self.0.expose_provenance()
    }
}

impl<T> From<Out<T>> for In<T> {
    /// What the caller put there before.
    fn from(out: Out<T>) -> Self {
        In(out.0)
    }
}

/// A structure or an array that the caller passes; null where there is none.
#[repr(transparent)]
pub(super) struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// The same place, read as another type, where that depends on another argument.
    pub fn of<U>(value: In<U>) -> In<T> {
        In(value.0.cast())
    }

    pub fn none() -> In<T> {
        In(std::ptr::null())
    }

    /// The structure at an address that the caller passed as a number.
    pub fn from_address(address: usize) -> In<T> {
        In(std::ptr::with_exposed_provenance(address))
    }

    pub fn get(self) -> Result<T, Failure> {
        self.at(0)
    }

    /// An element of an array.
    pub fn at(self, index: usize) -> Result<T, Failure> {
        if self.0.is_null() {
            return Err(Status::InvalidValue.into());
        }
        // SAFETY: values of this type only come from HIP's callers, who pass null or a `T`, or as many as they say.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    pub fn array(self, count: usize) -> Result<Vec<T>, Failure> {
        (0..count).map(|index| self.at(index)).collect()
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// A C string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Text(*const c_char);

impl Text {
    /// The text; bytes that are not UTF-8 are replaced.
    pub fn read(self) -> Result<String, Failure> {
        if self.0.is_null() {
            return Err(Status::InvalidValue.into());
        }
        // SAFETY: values of this type only come from HIP's callers, who pass null or a C string.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }
}

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dim3 {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

impl From<Dim3> for [u32; 3] {
    fn from(dim: Dim3) -> Self {
        [dim.x, dim.y, dim.z]
    }
}

impl From<[u32; 3]> for Dim3 {
    fn from([x, y, z]: [u32; 3]) -> Self {
        Dim3 { x, y, z }
    }
}

/// The major version of HIP, as the SONAME says it: layouts and numbers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V5 = 5,
    V6 = 6,
    V7 = 7,
}

impl Version {
    pub const ALL: [Version; 3] = [Version::V5, Version::V6, Version::V7];

    /// The file name that kernel libraries ask for.
    pub const fn soname(self) -> &'static str {
        match self {
            Version::V5 => "libamdhip64.so.5",
            Version::V6 => "libamdhip64.so.6",
            Version::V7 => "libamdhip64.so.7",
        }
    }

    /// What `hipRuntimeGetVersion` says: major * 10^7 + minor * 10^5 + patch.
    pub const fn number(self) -> c_int {
        match self {
            Version::V5 => 50_700_000,
            Version::V6 => 60_400_000,
            Version::V7 => 70_200_000,
        }
    }

    /// The version with this number; calls whose layout depends on it have the number as a parameter.
    pub(super) const fn of(number: u8) -> Version {
        match number {
            5 => Version::V5,
            6 => Version::V6,
            _ => Version::V7,
        }
    }
}

/// An emulated call: its name and its address for each version.
pub(super) struct Entry {
    pub name: &'static str,
    pub addresses: [usize; 3],
}

/// Whether a call still works after a kernel's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterFault {
    Fails,
    Works,
}

/// Defines calls that return `hipError_t`. A call's other names stand behind it. `entries` lists them.
macro_rules! calls {
    ($entries:ident, $after:ident, $runtime:ident;
     $($name:ident $(= $alias:literal)* ($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            extern "C" fn $name($($argument: $ty),*) -> std::ffi::c_int {
                $crate::emulator::hip::abi::call(
                    stringify!($name),
                    $crate::emulator::hip::abi::AfterFault::$after,
                    |$runtime: &$crate::emulator::hip::runtime::Runtime| {
                        let _ = $runtime;
                        $body
                    },
                )
            }
        )*
        pub(super) fn $entries() -> Vec<$crate::emulator::hip::abi::Entry> {
            let mut entries = Vec::new();
            $(
                let addresses = [$name as *const () as usize; 3];
                entries.push($crate::emulator::hip::abi::Entry { name: stringify!($name), addresses });
                $(entries.push($crate::emulator::hip::abi::Entry { name: $alias, addresses });)*
            )*
            entries
        }
    };
}
pub(super) use calls;

/// The runtime that calls go to.
static CURRENT: RwLock<Option<Arc<Runtime>>> = RwLock::new(None);

pub(super) fn current() -> Option<Arc<Runtime>> {
    CURRENT.read().unwrap_or_else(|e| e.into_inner()).clone()
}

pub(super) fn set_current(runtime: Arc<Runtime>) {
    *CURRENT.write().unwrap_or_else(|e| e.into_inner()) = Some(runtime);
}

thread_local! {
    /// What `hipGetLastError` returns: the last failure that was not read yet.
    static LAST_ERROR: Cell<Status> = const { Cell::new(Status::Success) };
    /// What `hipExtGetLastError` returns: how the last call ended.
    static LAST_CALL: Cell<Status> = const { Cell::new(Status::Success) };
}

/// Returns and forgets the last failure.
pub(super) fn take_last_error() -> Status {
    LAST_ERROR.replace(Status::Success)
}

pub(super) fn last_error() -> Status {
    LAST_ERROR.get()
}

/// Returns and forgets how the last call ended.
pub(super) fn take_last_call() -> Status {
    LAST_CALL.replace(Status::Success)
}

/// What every call that returns a status does around its body.
pub(super) fn call(
    name: &'static str,
    after: AfterFault,
    body: impl FnOnce(&Runtime) -> Result<(), Failure>,
) -> c_int {
    let status = guarded(name, Status::Unknown, |runtime| {
        let lost = runtime.lost().filter(|_| after == AfterFault::Fails);
        match lost.map_or_else(|| body(runtime), |status| Err(status.into())) {
            Ok(()) => Status::Success,
            Err(failure) => {
                if let Some(what) = failure.problem {
                    runtime.report(Problem { call: name, what: *what });
                }
                failure.status
            }
        }
    });
    LAST_CALL.set(status);
    if !matches!(status, Status::Success | Status::NotReady) {
        LAST_ERROR.set(status);
    }
    status.code()
}

/// Runs the body of a call, with `failed` as its result if it panics or no runtime is installed: a panic must not
/// reach C code.
pub(super) fn guarded<R>(name: &'static str, failed: R, body: impl FnOnce(&Runtime) -> R) -> R {
    let Some(runtime) = current() else { return failed };
    match catch_unwind(AssertUnwindSafe(|| body(&runtime))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let message = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            runtime.report(Problem { call: name, what: What::Panic { message: message.into() } });
            failed
        }
    }
}
