//! The memory that a kernel can reach: global memory, LDS, scratch.

use std::cell::UnsafeCell;

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

/// All regions of a launch, sorted by their start.
#[derive(Debug, Default)]
pub struct Space {
    regions: Vec<Region>,
}

impl Space {
    /// Regions must not overlap.
    pub fn new(mut regions: Vec<Region>) -> Space {
        regions.sort_by_key(|region| region.start);
        Space { regions }
    }

    /// The region that has this address, if there is one.
    pub fn find(&self, address: u64) -> Option<Region> {
        let after = self.regions.partition_point(|region| region.start <= address);
        self.regions[..after].last().copied().filter(|region| address < region.end)
    }
}

/// What the waves of a workgroup share. All of them run on one thread.
pub struct Group<'a> {
    pub space: &'a Space,
    lds: UnsafeCell<Box<[u8]>>,
    /// The workgroup's place in the grid.
    pub id: [u32; 3],
}

impl<'a> Group<'a> {
    pub fn new(space: &'a Space, lds: Box<[u8]>, id: [u32; 3]) -> Group<'a> {
        Group { space, lds: UnsafeCell::new(lds), id }
    }

    /// Bytes of LDS that the workgroup has.
    pub fn lds_len(&self) -> usize {
        // SAFETY: the group is not Sync, so no other thread is in `lds_mut`, and no reference outlives a call.
        unsafe { &*self.lds.get() }.len()
    }

    /// Gives LDS to a function that calls nothing which might ask for it again.
    pub fn with_lds<T>(&self, f: impl FnOnce(&mut [u8]) -> T) -> T {
        // SAFETY: the group is not Sync, and callers do not nest: the reference is the only one while `f` runs.
        f(unsafe { &mut *self.lds.get() })
    }
}
