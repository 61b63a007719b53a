//! The memory that a kernel can reach: global memory, LDS, scratch.

use super::global_sync::GlobalSync;
use super::scrutiny::Scrutiny;
use std::cell::{Cell, UnsafeCell};
use std::collections::HashMap;
use std::sync::Mutex;

/// Upper 32 bits of the flat addresses that mean LDS.
pub const SHARED_APERTURE: u32 = 0x0001_0000;
/// Upper 32 bits of the flat addresses that mean scratch.
pub const PRIVATE_APERTURE: u32 = 0x0002_0000;

/// A piece of this process's memory that kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    pub writable: bool,
}

impl Region {
    /// A region without a single address.
    pub const EMPTY: Region = Region { start: 0, end: 0, writable: false };

    /// Whether all of `bytes` bytes from an address on are inside.
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        let size = self.end - self.start;
        bytes <= size && address.wrapping_sub(self.start) <= size - bytes
    }
}

/// What the workgroups of a launch share.
#[derive(Default)]
pub struct Space {
    /// Sorted by their start.
    regions: Vec<Region>,
    /// With what their waves wait for one another.
    pub sync: GlobalSync,
    /// What they are watched for, if they are. The launch then has one thread, so nobody waits for the lock.
    pub scrutiny: Option<Mutex<Scrutiny>>,
}

impl Space {
    /// Regions must not overlap.
    pub fn new(mut regions: Vec<Region>) -> Space {
        regions.sort_by_key(|region| region.start);
        Space { regions, ..Space::default() }
    }

    /// Watches what happens in it.
    pub fn watched(self, scrutiny: Option<Mutex<Scrutiny>>) -> Space {
        Space { scrutiny, ..self }
    }

    /// Calls `f` with what the launch is watched for, if it is.
    pub fn scrutinise<T>(&self, f: impl FnOnce(&mut Scrutiny) -> T) -> Option<T> {
        let scrutiny = self.scrutiny.as_ref()?;
        Some(f(&mut scrutiny.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
    }

    /// The region that has this address, if there is one.
    pub fn find(&self, address: u64) -> Option<Region> {
        let after = self.regions.partition_point(|region| region.start <= address);
        self.regions[..after].last().copied().filter(|region| address < region.end)
    }

    /// The region that has all of `bytes` bytes from an address on, and may be written if `write` is set.
    pub fn find_all(&self, address: u64, bytes: u64, write: bool) -> Option<Region> {
        self.find(address).filter(|region| region.holds(address, bytes) && (region.writable || !write))
    }

    /// Says where an address is that a kernel may not use, to follow "reads 4 bytes at 0x10, ".
    pub fn place(&self, address: u64, bytes: u64) -> String {
        if address < NULL_BYTES {
            return "which is a null pointer".into();
        }
        let show = |region: &Region| format!("{:#x}..{:#x}", region.start, region.end);
        let after = self.regions.partition_point(|region| region.start <= address);
        let before = self.regions[..after].last();
        let behind = self.regions.get(after);
        if let Some(region) = before.filter(|region| address < region.end) {
            return if region.holds(address, bytes) {
                format!("in memory that the kernel may not write ({})", show(region))
            } else {
                let over = address + bytes - region.end;
                format!("of which the last {over} are behind the end of the memory at {}", show(region))
            };
        }
        let over = before.map(|region| (address - region.end, region));
        let under = behind.map(|region| (region.start - address, region));
        match (over, under) {
            (Some((distance, region)), under) if under.is_none_or(|(other, _)| distance <= other) => {
                format!("{distance} bytes behind the end of the memory at {}", show(region))
            }
            (_, Some((distance, region))) => {
                format!("{distance} bytes before the start of the memory at {}", show(region))
            }
            _ => "and the kernel has no memory at all".into(),
        }
    }
}

/// No system maps memory below this address: a pointer to it is null, or an element of an array at null.
const NULL_BYTES: u64 = 0x1_0000;

/// How many lanes' accesses a buffer resource has clamped: loads gave zero, stores and atomics did nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clamped {
    pub loads: u64,
    pub stores: u64,
}

/// What the waves of a workgroup share. All of them run on one thread.
pub struct Group<'a> {
    pub space: &'a Space,
    lds: UnsafeCell<Box<[u8]>>,
    /// The workgroup's place in the grid.
    pub id: [u32; 3],
    /// Its number in the order in which workgroups are started.
    pub number: u32,
    /// The number of the device's die that runs the workgroup (`HW_REG_XCC_ID`).
    pub xcc_id: u32,
    /// Serves what the kernel asks of the host (`printf`, `assert`): called when a wave interrupts the host, and
    /// whenever one sleeps.
    pub host: Option<&'a dyn Fn()>,
    /// Accesses that buffer resources have clamped so far.
    pub clamped: Cell<Clamped>,
}

impl<'a> Group<'a> {
    pub fn new(space: &'a Space, lds: Box<[u8]>, id: [u32; 3]) -> Group<'a> {
        let clamped = Cell::default();
        Group { space, lds: UnsafeCell::new(lds), id, number: 0, xcc_id: 0, host: None, clamped }
    }

    /// The same with its number in the order in which workgroups are started.
    pub fn numbered(self, number: u32) -> Group<'a> {
        Group { number, ..self }
    }

    /// Bytes of LDS that the workgroup has.
    pub fn lds_len(&self) -> usize {
        // SAFETY: the group is not Sync, so no other thread is in `with_lds`, and no reference outlives a call.
        unsafe { &*self.lds.get() }.len()
    }

    /// Gives LDS to a function that calls nothing which might ask for it again.
    pub fn with_lds<T>(&self, f: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: the group is not Sync, and callers do not nest: the reference is the only one while `f` runs.
        f(unsafe { &mut *self.lds.get() })
    }

    /// Address of the first byte of LDS. It stays the same as long as the group lives.
    pub(super) fn lds_start(&self) -> *mut u8 {
        // SAFETY: the group is not Sync, and the reference ends here; only the address goes out.
        unsafe { &mut *self.lds.get() }.as_mut_ptr()
    }

    /// Lets the host do what the kernel has asked of it.
    pub fn serve_host(&self) {
        if let Some(serve) = self.host {
            serve();
        }
    }

    /// Counts lanes whose loads gave zero because the address was out of the buffer resource's range.
    pub fn count_clamped_loads(&self, lanes: u32) {
        let mut clamped = self.clamped.get();
        clamped.loads += u64::from(lanes);
        self.clamped.set(clamped);
    }

    /// Counts lanes whose stores or atomics did nothing because the address was out of the range.
    pub fn count_clamped_stores(&self, lanes: u32) {
        let mut clamped = self.clamped.get();
        clamped.stores += u64::from(lanes);
        self.clamped.set(clamped);
    }
}

/// The bytes that a wave has written since somebody watches it, as they were before, by their address in this process.
/// They tell whether the wave has left memory as it was.
#[derive(Debug, Default)]
pub struct Watch(HashMap<u64, u8>);

impl Watch {
    /// Notes what `bytes` bytes hold that the wave is about to write, and may write.
    pub fn note(&mut self, address: u64, bytes: u32) {
        for byte in address..address + u64::from(bytes) {
            // SAFETY: the caller is about to write these bytes, which were checked for that.
            self.0.entry(byte).or_insert_with(|| unsafe { byte_at(byte) });
        }
    }

    /// Whether all of them hold again what they held before. No memory may have been freed since.
    pub fn is_undone(&self) -> bool {
        // SAFETY: the bytes were checked when they were written, and what a launch may touch stays until it ends.
        self.0.iter().all(|(byte, before)| unsafe { byte_at(*byte) } == *before)
    }
}

/// # Safety
///
/// The byte must be readable. Another thread may write it meanwhile.
unsafe fn byte_at(address: u64) -> u8 {
    // SAFETY: the caller's word.
    unsafe { std::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() }
}
