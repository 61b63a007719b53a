//! Layouts of scale grids.

/// The order of a `[rows, groups]` grid of scales in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScaleLayout {
    /// `r * C + c`.
    RowMajor,
    /// `c * R + r`.
    ColMajor,
}

impl ScaleLayout {
    pub fn name(self) -> String {
        match self {
            ScaleLayout::RowMajor => "row_major".to_owned(),
            ScaleLayout::ColMajor => "col_major".to_owned(),
        }
    }

    /// Elements of the buffer, padding included.
    pub fn len(self, grid: (usize, usize)) -> usize {
        grid.0 * grid.1
    }

    /// Where scale `(r, c)` of the grid sits.
    pub fn offset(self, grid: (usize, usize), r: usize, c: usize) -> usize {
        match self {
            ScaleLayout::RowMajor => r * grid.1 + c,
            ScaleLayout::ColMajor => c * grid.0 + r,
        }
    }

    /// Which scale sits at `offset`; `None` for padding and beyond the end.
    pub fn inverse(self, grid: (usize, usize), offset: usize) -> Option<(usize, usize)> {
        if offset >= self.len(grid) {
            return None;
        }
        Some(match self {
            ScaleLayout::RowMajor => (offset / grid.1, offset % grid.1),
            ScaleLayout::ColMajor => (offset % grid.0, offset / grid.0),
        })
    }
}
