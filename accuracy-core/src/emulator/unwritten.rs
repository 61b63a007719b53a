//! Memory of the device that nobody has written since it was allocated, or since the framework filled it with what nobody is to
//! read.

use super::scrutiny::journal::Journal;
use std::collections::BTreeMap;

/// Bytes of the largest allocation that is kept track of.
const LARGEST: usize = 64 << 20;

/// Which bytes of an allocation were written, one bit each.
struct Bits {
    bytes: u64,
    written: Vec<u64>,
}

/// Allocations by their start.
#[derive(Default)]
pub struct Unwritten(BTreeMap<u64, Bits>);

impl Unwritten {
    /// Keeps track of an allocation, unless it is a large one.
    pub fn allocated(&mut self, start: usize, bytes: usize) {
        if bytes <= LARGEST {
            let bits = Bits { bytes: bytes as u64, written: vec![0; bytes.div_ceil(64)] };
            self.0.insert(start as u64, bits);
        }
    }

    pub fn freed(&mut self, start: usize) {
        self.0.remove(&(start as u64));
    }

    /// Keeps track of nothing that is there now.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Bytes have been written, or, if not `written`, hold again what nobody is to read.
    pub fn set(&mut self, address: u64, bytes: u64, written: bool) {
        let Some((start, bits)) = self.0.range_mut(..=address).next_back() else { return };
        let from = address - start;
        for byte in from..(from + bytes).min(bits.bytes) {
            let (word, bit) = (byte as usize / 64, 1 << (byte % 64));
            if written { bits.written[word] |= bit } else { bits.written[word] &= !bit }
        }
    }

    /// A launch has written these bytes.
    pub fn wrote(&mut self, journal: &Journal) {
        journal.addresses().for_each(|address| self.set(address, 1, true));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Turns every bit of the bytes that nobody has written. Twice is as before.
    pub fn turn(&self) {
        for (start, bits) in &self.0 {
            for (word, written) in
                bits.written.iter().enumerate().filter(|(_, written)| **written != u64::MAX)
            {
                for bit in (0..64).filter(|bit| written >> bit & 1 == 0) {
                    let byte = word as u64 * 64 + bit;
                    if byte < bits.bytes {
                        let at = std::ptr::with_exposed_provenance_mut::<u8>((start + byte) as usize);
                        // SAFETY: the byte is of an allocation of the device that is not freed yet, and no kernel runs.
                        unsafe { at.write(!at.read()) };
                    }
                }
            }
        }
    }
}
