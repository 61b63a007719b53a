//! Device memory and what is handed to launchers: pointers, streams, statuses.
//!
//! Three runtimes: the host, whose "device memory" is mapped by [`host`] between guard bands and inaccessible pages, and
//! HIP and CUDA ([`gpu`]), opened at run time. [`memory`] is a buffer on any of them, [`launches`] sees which kernels run.
//! Where [`mod@emulation`] is asked for, HIP's runtime is a stand-in that runs the code on this processor.
//! [`process`] is the state of the process that a launcher may change. What the bytes mean is not known here.

pub mod emulation;
pub mod fault;
pub mod gpu;
pub mod host;
mod kind;
pub mod launches;
pub mod memory;
pub mod process;

pub use emulation::emulation;
pub use kind::Kind;

use std::marker::PhantomData;

/// A pointer into device memory, as a launcher of a C ABI takes it.
///
/// It has the layout of `T*`. The host never reads through it; [`crate::Tensor`] knows the shape and strides.
#[repr(transparent)]
pub struct DevPtr<T>(*mut T);

impl<T> DevPtr<T> {
    /// The null pointer, for an optional argument that is not given.
    pub const fn null() -> Self {
        DevPtr(std::ptr::null_mut())
    }

    pub(crate) fn new(address: usize) -> Self {
        DevPtr(std::ptr::with_exposed_provenance_mut(address))
    }

    /// The address as a number.
    pub fn address(self) -> usize {
        self.0.addr()
    }
}

impl<T> Clone for DevPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevPtr<T> {}

impl<T> std::fmt::Debug for DevPtr<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.address())
    }
}

/// The stream that a launcher works on, with the layout of `hipStream_t`. On the host it is null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Stream(*mut std::ffi::c_void, PhantomData<()>);

impl Stream {
    /// The default stream.
    pub const fn null() -> Self {
        Stream(std::ptr::null_mut(), PhantomData)
    }

    pub(crate) fn as_ptr(self) -> *mut std::ffi::c_void {
        self.0
    }

    pub(crate) fn new(address: usize) -> Self {
        Stream(std::ptr::with_exposed_provenance_mut(address), PhantomData)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stream {:p}", self.0)
    }
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

/// What a launcher returns: 0 for success, anything else is an error of its own.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Status(pub i32);

impl From<i32> for Status {
    fn from(code: i32) -> Self {
        Status(code)
    }
}

impl From<()> for Status {
    fn from((): ()) -> Self {
        Status(0)
    }
}
