//! Layouts of weight and activation codes.

/// The order of the codes of a `[rows, cols]` matrix in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataLayout {
    /// `r * C + c`.
    RowMajor,
}

impl DataLayout {
    pub fn name(self) -> String {
        match self {
            DataLayout::RowMajor => "row_major".to_owned(),
        }
    }

    /// Elements of the buffer, padding included.
    pub fn len(self, shape: (usize, usize)) -> usize {
        shape.0 * shape.1
    }

    /// Where element `(r, c)` sits.
    pub fn offset(self, shape: (usize, usize), r: usize, c: usize) -> usize {
        match self {
            DataLayout::RowMajor => r * shape.1 + c,
        }
    }

    /// Which element sits at `offset`; `None` for padding and beyond the end.
    pub fn inverse(self, shape: (usize, usize), offset: usize) -> Option<(usize, usize)> {
        match self {
            DataLayout::RowMajor => (offset < self.len(shape)).then(|| (offset / shape.1, offset % shape.1)),
        }
    }
}
