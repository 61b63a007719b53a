//! Layouts: the order of scales and of weight codes in memory, as index maps.
//!
//! What lives here: where the element of a logical `[rows, cols]` grid sits in a buffer, and back; padding is part
//! of a layout. Offsets count elements of the buffer, not bytes. Which elements share a scale is in
//! [`crate::quant`], how codes share a byte in [`crate::dtype`].

mod data;
mod scale;

pub use data::DataLayout;
pub use scale::ScaleLayout;

/// A name that no layout has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} layout is called `{name}`; known: {known}")]
pub struct UnknownLayout {
    pub kind: &'static str,
    pub name: String,
    pub known: String,
}

/// A shape that the kernels of a layout refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("layout {layout} needs {requirement}; the shape is {rows}x{cols}")]
pub struct BadShape {
    pub layout: String,
    pub requirement: String,
    pub rows: usize,
    pub cols: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// `row / split`.
    Part,
    /// `row % split`.
    Row,
    Col,
}

/// One dimension of a buffer seen as an array: it counts `index / step % extent` of its axis.
#[derive(Clone, Copy, Debug)]
struct Digit {
    axis: Axis,
    step: usize,
    extent: usize,
}

/// The most dimensions that a layout here has.
const MAX_DIGITS: usize = 7;

/// A layout for one shape: the buffer as a dense array whose dimensions are digits of the row and column index.
///
/// Every tiled layout is a reshape and a permutation of dimensions, so this is all of them; indices up to the
/// padded extents have a place in the buffer.
#[derive(Clone, Copy, Debug)]
pub struct IndexMap {
    rows: usize,
    cols: usize,
    /// Rows are `part * split + row`.
    split: usize,
    /// Outermost first.
    digits: [Digit; MAX_DIGITS],
    count: usize,
}

impl IndexMap {
    fn new((rows, cols): (usize, usize), split: usize, digits: &[Digit]) -> IndexMap {
        let mut all = [Digit { axis: Axis::Col, step: 1, extent: 1 }; MAX_DIGITS];
        all[..digits.len()].copy_from_slice(digits);
        IndexMap { rows, cols, split: split.max(1), digits: all, count: digits.len() }
    }

    fn digits(&self) -> &[Digit] {
        &self.digits[..self.count]
    }

    /// Elements of the buffer, padding included.
    pub fn len(&self) -> usize {
        self.digits().iter().map(|d| d.extent).product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where element `(r, c)` sits.
    pub fn offset(&self, r: usize, c: usize) -> usize {
        self.digits().iter().fold(0, |offset, d| {
            let index = match d.axis {
                Axis::Part => r / self.split,
                Axis::Row => r % self.split,
                Axis::Col => c,
            };
            offset * d.extent + index / d.step % d.extent
        })
    }

    /// What each of so many columns adds to where a row begins: `offset(r, c) = offset(r, 0) + columns[c]`, as every
    /// digit is of one axis alone.
    pub fn columns(&self, count: usize) -> Vec<usize> {
        (0..count).map(|c| self.offset(0, c)).collect()
    }

    /// Which element sits at `offset`; `None` for padding and beyond the end.
    pub fn inverse(&self, offset: usize) -> Option<(usize, usize)> {
        if offset >= self.len() {
            return None;
        }
        let (mut part, mut row, mut col) = (0, 0, 0);
        let mut rest = offset;
        for d in self.digits().iter().rev() {
            let index = match d.axis {
                Axis::Part => &mut part,
                Axis::Row => &mut row,
                Axis::Col => &mut col,
            };
            *index += rest % d.extent * d.step;
            rest /= d.extent;
        }
        let r = part * self.split + row;
        (row < self.split && r < self.rows && col < self.cols).then_some((r, col))
    }
}

fn part(step: usize, extent: usize) -> Digit {
    Digit { axis: Axis::Part, step, extent }
}

fn row(step: usize, extent: usize) -> Digit {
    Digit { axis: Axis::Row, step, extent }
}

fn col(step: usize, extent: usize) -> Digit {
    Digit { axis: Axis::Col, step, extent }
}
