//! Who used which bytes last: a cell for each dword of the pages that were touched, or for each byte where less than a dword
//! was used.

use std::collections::HashMap;

/// Bytes of memory that one page describes.
const PAGE: u64 = 1024;

/// An access: the wave, how many accesses it had made, and the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The wave's number in the launch; [`Stamp::NOBODY`] has the largest.
    pub wave: u32,
    /// Number of the access among those of the wave's queue.
    pub number: u32,
    /// The instruction, as bytes from the start of the code.
    pub at: u32,
    pub how: How,
}

/// What kind of access it was, as far as others have to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// It orders memory, as atomics do.
    pub atomic: bool,
    /// It reads a flag that it waits for.
    pub polls: bool,
    /// It comes into LDS out of global memory.
    pub transfer: bool,
}

impl Stamp {
    pub const NOBODY: Stamp =
        Stamp { wave: u32::MAX, number: 0, at: 0, how: How { atomic: false, polls: false, transfer: false } };

    pub fn is_nobody(&self) -> bool {
        self.wave == u32::MAX
    }
}

/// The last accesses to some bytes: the write, and the last reads of two waves.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub write: Stamp,
    pub reads: [Stamp; 2],
}

const UNTOUCHED: Cell = Cell { write: Stamp::NOBODY, reads: [Stamp::NOBODY; 2] };

struct Page {
    /// Bytes of a cell: 4, or 1 where somebody used less.
    unit: u64,
    cells: Vec<Cell>,
}

impl Page {
    fn split(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        self.cells = cells.into_iter().flat_map(|cell| [cell; 4]).collect();
        self.unit = 1;
    }
}

/// The cells of touched pages. An address is any number.
#[derive(Default)]
pub struct Shadow {
    pages: Vec<Page>,
    at: HashMap<u64, usize>,
    /// The page that was asked for last, and where it is.
    last: Option<(u64, usize)>,
    /// Bytes that all pages take.
    taken: usize,
}

impl Shadow {
    /// Bytes that the cells take.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Calls `f` with each cell of some bytes.
    pub fn each(&mut self, address: u64, bytes: u32, mut f: impl FnMut(&mut Cell)) {
        let end = address + u64::from(bytes);
        let mut from = address;
        while from < end {
            let until = end.min((from / PAGE + 1) * PAGE);
            let page = self.page(from / PAGE);
            if page.unit == 4 && (from | until) & 3 != 0 {
                page.split();
                self.taken += (PAGE as usize * 3 / 4) * size_of::<Cell>();
            }
            let index = self.index(from / PAGE);
            let page = &mut self.pages[index];
            let unit = page.unit;
            let cells = (from % PAGE / unit) as usize..((until - 1) % PAGE / unit + 1) as usize;
            page.cells[cells].iter_mut().for_each(&mut f);
            from = until;
        }
    }

    fn page(&mut self, number: u64) -> &mut Page {
        let index = self.index(number);
        &mut self.pages[index]
    }

    fn index(&mut self, number: u64) -> usize {
        if let Some((last, index)) = self.last
            && last == number
        {
            return index;
        }
        let pages = &mut self.pages;
        let taken = &mut self.taken;
        let index = *self.at.entry(number).or_insert_with(|| {
            pages.push(Page { unit: 4, cells: vec![UNTOUCHED; (PAGE / 4) as usize] });
            *taken += (PAGE / 4) as usize * size_of::<Cell>();
            pages.len() - 1
        });
        self.last = Some((number, index));
        index
    }
}
