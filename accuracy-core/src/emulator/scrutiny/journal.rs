//! The global memory that a launch writes, as it was before: so that it can be put back, and two launches compared.

use super::Who;
use crate::emulator::memory::Region;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: u64 = 4096;

/// A page of memory, as far as one region has it.
struct Before {
    start: u64,
    held: Vec<u8>,
    /// Which of its bytes were written, one bit each.
    written: Vec<u64>,
}

/// The instruction that wrote a byte last.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub who: Who,
    pub at: u64,
    pub lane: u8,
}

/// What a launch wrote.
#[derive(Default)]
pub struct Journal {
    /// What the kernel may touch, by start.
    regions: Vec<Region>,
    /// By page and start of the region.
    pages: BTreeMap<(u64, u64), Before>,
    /// Bytes whose last writer is to be known.
    asked: BTreeSet<u64>,
    writers: BTreeMap<u64, Writer>,
}

impl Journal {
    /// A journal of what is written in these regions, which also notes who wrote the bytes in `asked` last.
    pub fn new(mut regions: Vec<Region>, asked: BTreeSet<u64>) -> Journal {
        regions.sort_by_key(|region| region.start);
        Journal { regions, asked, ..Journal::default() }
    }

    /// Bytes are about to be written that the kernel may write.
    pub fn note(&mut self, address: u64, bytes: u32, writer: Writer) {
        let end = address + u64::from(bytes);
        let mut from = address;
        while from < end {
            let until = end.min((from / PAGE + 1) * PAGE);
            self.note_in_page(from, until);
            from = until;
        }
        if !self.asked.is_empty() {
            for byte in self.asked.range(address..end) {
                self.writers.insert(*byte, writer);
            }
        }
    }

    fn note_in_page(&mut self, from: u64, until: u64) {
        let after = self.regions.partition_point(|region| region.start <= from);
        let Some(region) = self.regions[..after].last() else { return };
        let page = from / PAGE;
        let before = self.pages.entry((page, region.start)).or_insert_with(|| {
            let start = region.start.max(page * PAGE);
            let held = bytes(start, region.end.min((page + 1) * PAGE) - start).to_vec();
            Before { start, held, written: vec![0; PAGE as usize / 64] }
        });
        for byte in from - page * PAGE..until - page * PAGE {
            before.written[byte as usize / 64] |= 1 << (byte % 64);
        }
    }

    /// Who wrote the bytes last that were asked for.
    pub fn writers(&self) -> &BTreeMap<u64, Writer> {
        &self.writers
    }

    /// Every byte that was written, with what it held before and what it holds now.
    fn each(&self) -> impl Iterator<Item = (u64, u8, u8)> {
        self.pages.iter().flat_map(|((page, _), before)| {
            let now = bytes(before.start, before.held.len() as u64);
            let skipped = before.start - page * PAGE;
            before.held.iter().zip(now).enumerate().filter_map(move |(i, (held, now))| {
                let byte = i as u64 + skipped;
                let is_written = before.written[byte as usize / 64] >> (byte % 64) & 1 != 0;
                is_written.then_some((before.start + i as u64, *held, *now))
            })
        })
    }

    /// The bytes that were written.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.each().map(|(at, ..)| at)
    }

    /// What was written, as it is now.
    pub fn result(&self) -> Written {
        Written(self.each().map(|(at, _, now)| (at, now)).collect())
    }

    /// Puts everything back as it was before.
    pub fn undo(&self) {
        self.each().for_each(|(at, held, _)| put(at, held));
    }

    /// What a byte held before.
    pub fn held(&self, address: u64) -> Option<u8> {
        let after = self.regions.partition_point(|region| region.start <= address);
        let region = self.regions[..after].last()?;
        let before = self.pages.get(&(address / PAGE, region.start))?;
        before.held.get((address - before.start) as usize).copied()
    }
}

/// Bytes that a launch wrote, by address, in order.
#[derive(Clone, Default)]
pub struct Written(Vec<(u64, u8)>);

impl Written {
    pub fn get(&self, address: u64) -> Option<u8> {
        let at = self.0.binary_search_by_key(&address, |(at, _)| *at).ok()?;
        Some(self.0[at].1)
    }

    /// The addresses that hold something else after another launch, `most` of them at most: what one of the two did not write
    /// is what `held` says.
    pub fn differences(
        &self,
        other: &Written,
        held: impl Fn(u64) -> Option<u8>,
        most: usize,
    ) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while found.len() < most {
            let (at, one, two) = match (a.peek(), b.peek()) {
                (None, None) => break,
                (Some(&&(x, one)), Some(&&(y, two))) if x == y => {
                    a.next();
                    b.next();
                    (x, Some(one), Some(two))
                }
                (Some(&&(x, one)), other) if other.is_none_or(|&&(y, _)| x < y) => {
                    a.next();
                    (x, Some(one), held(x))
                }
                (_, Some(&&(y, two))) => {
                    b.next();
                    (y, held(y), Some(two))
                }
                (Some(_), None) => break,
            };
            if one != two {
                found.insert(at);
            }
        }
        found
    }
}

fn bytes<'a>(start: u64, count: u64) -> &'a [u8] {
    // SAFETY: the bytes are of a region that the kernel may use, which stays until the launch has ended, and no other thread
    // works on the launch.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start as usize), count as usize) }
}

fn put(address: u64, value: u8) {
    // SAFETY: the kernel wrote the byte, so it was checked for that; nobody else works on the launch.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address as usize).write(value) }
}

impl Written {
    /// Writes it again.
    pub fn put_back(&self) {
        self.0.iter().for_each(|(at, value)| put(*at, *value));
    }
}
