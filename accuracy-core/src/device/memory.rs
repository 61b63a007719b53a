//! A buffer that kernels work on: host memory with guards, and, where the kernels run on a GPU, its copy there.
//!
//! The framework fills and reads the host side only. On a GPU the whole of it, guard bands included, is copied over
//! when it has been filled and back when the chain has run, so that the checks are the same on every runtime.

use super::emulation::{self, Named, Runs};
use super::gpu::{Gpu, GpuError};
use super::host::{Allocation, BandDamage, Placement};
use std::ops::Range;

/// Where the kernels of a run find their memory.
#[derive(Clone, Copy)]
pub enum Runtime {
    Host,
    Gpu(&'static Gpu),
}

impl Runtime {
    /// Waits for everything that was launched.
    pub fn synchronize(self) -> Result<(), GpuError> {
        match self {
            Runtime::Host => Ok(()),
            Runtime::Gpu(gpu) => gpu.synchronize(),
        }
    }

    /// Address of the stream that launchers are given.
    pub fn stream(self) -> usize {
        match self {
            Runtime::Host => 0,
            Runtime::Gpu(gpu) => gpu.stream(),
        }
    }
}

/// Why memory cannot be had or copied.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error(transparent)]
    Host(#[from] std::io::Error),
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// One buffer.
pub struct Memory {
    host: Allocation,
    gpu: Option<OnGpu>,
}

struct OnGpu {
    gpu: &'static Gpu,
    /// Start of the device's allocation: that of the band before the contents.
    address: usize,
}

impl Memory {
    pub fn new(
        name: &str,
        len: usize,
        placement: Placement,
        salt: u8,
        runtime: Runtime,
    ) -> Result<Memory, MemoryError> {
        match runtime {
            Runtime::Host => Ok(Memory { host: Allocation::new(name, len, placement, salt)?, gpu: None }),
            Runtime::Gpu(gpu) => {
                // A device has no inaccessible pages to end at; its contents are aligned as its allocator does.
                let host = Allocation::new(name, len, Placement::Banded, salt)?;
                let address = gpu.allocate(host.front() + host.len() + host.back())?;
                Ok(Memory { host, gpu: Some(OnGpu { gpu, address }) })
            }
        }
    }

    /// Where the contents lie, as kernels see them.
    pub fn view(&self) -> View {
        View { gpu: self.gpu.as_ref().map(|on| on.gpu), address: self.address() }
    }

    /// Address of the first byte of the contents, as kernels see it.
    pub fn address(&self) -> usize {
        match &self.gpu {
            None => self.host.address(),
            Some(on) => on.address + self.host.front(),
        }
    }

    pub fn len(&self) -> usize {
        self.host.len()
    }

    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// The framework's view of `len` bytes from `offset`.
    ///
    /// # Panics
    /// If the range is not inside the contents.
    pub fn read(&self, offset: usize, len: usize) -> &[u8] {
        self.host.read(offset, len)
    }

    /// All of the contents.
    pub fn contents(&self) -> &[u8] {
        self.host.contents()
    }

    /// A part of the contents, to be filled.
    ///
    /// # Panics
    /// If the range is not inside the contents.
    pub fn write(&mut self, offset: usize, len: usize) -> &mut [u8] {
        self.host.write(offset, len)
    }

    /// What was written past either end.
    pub fn damage(&self) -> Vec<BandDamage> {
        self.host.damage()
    }

    /// Tells the emulator what the test calls this memory, how its elements lie (see [`Named::runs`]), and how many bits they
    /// have.
    pub(crate) fn named(&self, name: &str, runs: Option<Runs>, bits: usize) {
        let Some(on) = &self.gpu else { return };
        let end = on.address + self.host.front() + self.host.len() + self.host.back();
        let (name, around) = (name.to_owned(), on.address..end);
        let (address, bytes) = (self.address(), self.host.len());
        emulation::declare(Named { name, address, bytes, around, runs, bits });
    }

    /// Tells the emulator that a kernel has to write the contents before one reads them.
    pub(crate) fn is_unwritten(&self) {
        if self.gpu.is_some() {
            emulation::nobody_wrote(self.address(), self.len());
        }
    }

    /// Copies bands and `ranges` of the contents to where the kernels work. What of a large, sparse buffer is in no range
    /// is never touched.
    pub fn upload(&self, ranges: &[Range<usize>]) -> Result<(), GpuError> {
        let Some(on) = &self.gpu else { return Ok(()) };
        let front = self.host.front();
        on.gpu.upload(on.address, self.host.band_before())?;
        for range in ranges {
            on.gpu.upload(on.address + front + range.start, self.host.read(range.start, range.len()))?;
        }
        on.gpu.upload(on.address + front + self.host.len(), self.host.band_after())
    }

    /// Copies bands and `ranges` of the contents back.
    pub fn download(&mut self, ranges: &[Range<usize>]) -> Result<(), GpuError> {
        let Some(on) = &self.gpu else { return Ok(()) };
        let (gpu, address, front, len) = (on.gpu, on.address, self.host.front(), self.host.len());
        gpu.download(address, self.host.band_before_mut())?;
        for range in ranges {
            gpu.download(address + front + range.start, self.host.write(range.start, range.len()))?;
        }
        gpu.download(address + front + len, self.host.band_after_mut())
    }
}

/// The contents of a buffer as kernels see them, without a borrow of it.
#[derive(Clone, Copy)]
pub struct View {
    gpu: Option<&'static Gpu>,
    address: usize,
}

impl View {
    /// Reads a part of the contents, once every kernel is done.
    ///
    /// # Errors
    /// If the device is in an error.
    ///
    /// # Safety
    /// The buffer must still be there, the range be inside of its contents, and no other thread write to it.
    pub unsafe fn read(&self, range: &Range<usize>) -> Result<Vec<u8>, GpuError> {
        let address = self.address + range.start;
        match self.gpu {
            // SAFETY: the caller vouches for the range.
            None => Ok(unsafe {
                std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), range.len()).to_vec()
            }),
            Some(gpu) => {
                let mut bytes = vec![0; range.len()];
                gpu.synchronize()?;
                gpu.download(address, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(on) = &self.gpu {
            emulation::forget(on.address);
            on.gpu.free(on.address);
        }
    }
}
