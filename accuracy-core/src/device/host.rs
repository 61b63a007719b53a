//! Device memory of the host architecture.
//!
//! ```text
//! | no access | guard band | contents | guard band | no access |
//! ```
//!
//! The bands hold a pattern that depends on the position, so that a write past either end shows, and by how much.
//! In [`Placement::Flush`] the contents end (but for alignment) at the inaccessible page, so that a read past the
//! end is a fault instead of a silent use of whatever lies there.

use super::fault;
use std::io;

/// Alignment of the contents in [`Placement::Flush`]: what the allocators of GPUs give, so that no kernel that works on
/// theirs is refused here.
const FLUSH_ALIGN: usize = 256;

/// Where the contents lie between the inaccessible pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A whole page of guard band on both sides, the contents aligned to a page as a device allocator would.
    Banded,
    /// The contents end at most 255 bytes before the inaccessible page.
    Flush,
}

/// One buffer with its guards.
#[derive(Debug)]
pub struct Allocation {
    map: *mut u8,
    map_len: usize,
    page: usize,
    /// Offset of the contents from the start of the map.
    start: usize,
    len: usize,
    salt: u8,
    region: fault::Region,
}

// SAFETY: the mapping belongs to this value alone and is freed once; reads and writes go through `&self`/`&mut
// self` methods or through kernels that run while the owner waits for them.
unsafe impl Send for Allocation {}

/// Bytes that a kernel left in a guard band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandDamage {
    /// First damaged byte, relative to the start of the contents when negative, to their end when not.
    pub offset: isize,
    pub bytes: usize,
}

impl Allocation {
    /// Maps `len` bytes. Pages that are never touched cost nothing, so that a view may span terabytes.
    pub fn new(name: &str, len: usize, placement: Placement, salt: u8) -> io::Result<Allocation> {
        // SAFETY: sysconf reads a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let too_long = || io::Error::new(io::ErrorKind::OutOfMemory, format!("{len} bytes do not fit"));
        let body = len.checked_next_multiple_of(page).ok_or_else(too_long)?.max(page);
        // Inaccessible page, band, contents, band, inaccessible page.
        let map_len = body.checked_add(4 * page).ok_or_else(too_long)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = map.cast::<u8>();
        let start = match placement {
            Placement::Banded => 2 * page,
            Placement::Flush => map_len - page - len.next_multiple_of(FLUSH_ALIGN),
        };
        let region = fault::register(name, map.addr() + start, len, map.addr(), map.addr() + map_len);
        let mut allocation = Allocation { map, map_len, page, start, len, salt, region };
        for edge in [0, map_len - page] {
            // SAFETY: `edge` is a page of the mapping made above.
            if unsafe { libc::mprotect(map.add(edge).cast(), page, libc::PROT_NONE) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let (before, after) = allocation.bands();
        for band in [before, after] {
            for at in band {
                let byte = allocation.pattern(at);
                // SAFETY: `bands` yields accessible offsets of the mapping.
                unsafe { allocation.map.add(at).write(byte) };
            }
        }
        allocation.len = len;
        Ok(allocation)
    }

    /// Address of the first byte of the contents.
    pub fn address(&self) -> usize {
        self.map.expose_provenance() + self.start
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads `len` bytes from `offset`.
    ///
    /// # Panics
    /// If the range is not inside the contents: a mistake of the framework, not of its user.
    pub fn read(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "read outside of a buffer");
        // SAFETY: the range was checked, the pages are readable, and no kernel runs while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.map.add(self.start + offset), len) }
    }

    /// All of the contents.
    pub fn contents(&self) -> &[u8] {
        self.read(0, self.len)
    }

    /// Writable view of `len` bytes from `offset`.
    ///
    /// # Panics
    /// If the range is not inside the contents.
    pub fn write(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "write outside of a buffer");
        // SAFETY: the range was checked, the pages are writable, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(self.start + offset), len) }
    }

    /// The first damage in the band before the contents and in the one behind.
    pub fn damage(&self) -> Vec<BandDamage> {
        let (before, after) = self.bands();
        let changed = |at: &usize| {
            // SAFETY: `bands` yields accessible offsets of the mapping.
            unsafe { self.map.add(*at).read() != self.pattern(*at) }
        };
        let mut damages = Vec::new();
        // What is nearest to the contents is named: a stray store begins there.
        let bytes = before.clone().filter(changed).count();
        if let Some(last) = before.clone().rev().find(|at| changed(at)) {
            damages.push(BandDamage { offset: last as isize - self.start as isize, bytes });
        }
        let bytes = after.clone().filter(changed).count();
        if let Some(first) = after.clone().find(|at| changed(at)) {
            damages.push(BandDamage { offset: (first - self.start - self.len) as isize, bytes });
        }
        damages
    }

    /// Length of the band before the contents.
    pub fn front(&self) -> usize {
        self.bands().0.len()
    }

    /// Length of the band behind them.
    pub fn back(&self) -> usize {
        self.bands().1.len()
    }

    /// The band before the contents.
    pub fn band_before(&self) -> &[u8] {
        self.band(self.bands().0)
    }

    /// The band behind the contents.
    pub fn band_after(&self) -> &[u8] {
        self.band(self.bands().1)
    }

    /// The band before the contents, to be overwritten with what a device has in it.
    pub fn band_before_mut(&mut self) -> &mut [u8] {
        let range = self.bands().0;
        self.band_mut(range)
    }

    /// The band behind the contents, likewise.
    pub fn band_after_mut(&mut self) -> &mut [u8] {
        let range = self.bands().1;
        self.band_mut(range)
    }

    fn band(&self, range: std::ops::Range<usize>) -> &[u8] {
        // SAFETY: `bands` yields accessible ranges of the mapping.
        unsafe { std::slice::from_raw_parts(self.map.add(range.start), range.len()) }
    }

    fn band_mut(&mut self, range: std::ops::Range<usize>) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(range.start), range.len()) }
    }

    /// Offsets of the two bands inside the mapping. At most a page each: a band before flush contents could
    /// otherwise be as long as the buffer.
    fn bands(&self) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let before = self.start.saturating_sub(self.page).max(self.page)..self.start;
        let end = self.start + self.len;
        (before, end..(end + self.page).min(self.map_len - self.page))
    }

    fn pattern(&self, at: usize) -> u8 {
        (at as u8).wrapping_mul(37) ^ (at >> 8) as u8 ^ self.salt
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        fault::unregister(&self.region);
        // SAFETY: the mapping was made by `new` and nothing refers to it any more.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poke(allocation: &Allocation, offset: isize, value: u8) {
        // SAFETY: the tests below poke only into guard bands.
        unsafe { allocation.map.offset(allocation.start as isize + offset).write(value) };
    }

    #[test]
    fn an_untouched_buffer_has_no_damage() {
        for placement in [Placement::Banded, Placement::Flush] {
            for len in [1, 63, 64, 4095, 4096, 4097, 100_000] {
                let mut a = Allocation::new("x", len, placement, 7).unwrap();
                a.write(0, len).fill(0xff);
                assert_eq!(a.damage(), vec![], "{placement:?} {len}");
            }
        }
    }

    #[test]
    fn a_write_past_either_end_is_located() {
        let a = Allocation::new("x", 100, Placement::Banded, 7).unwrap();
        let flip = |offset: isize| {
            // SAFETY: reads a guard byte.
            let old = unsafe { a.map.offset(a.start as isize + offset).read() };
            poke(&a, offset, !old);
        };
        flip(100);
        flip(101);
        assert_eq!(a.damage(), vec![BandDamage { offset: 0, bytes: 2 }]);
        flip(-1);
        assert_eq!(a.damage(), vec![BandDamage { offset: -1, bytes: 1 }, BandDamage { offset: 0, bytes: 2 }]);
    }

    #[test]
    fn a_sparse_view_of_terabytes_costs_its_touched_pages() {
        let mut a = Allocation::new("x", 1 << 40, Placement::Banded, 7).unwrap();
        a.write((1 << 40) - 1, 1)[0] = 3;
        assert_eq!(a.read((1 << 40) - 1, 1), [3]);
        assert_eq!(a.damage(), vec![]);
    }
}
