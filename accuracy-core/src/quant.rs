//! Quantisation schemes: how values share scales, and the framework's own quantiser.
//!
//! What lives here: granularity (which elements share a scale), the scheme a buffer is declared with, and the
//! float64 quantiser that producers are judged against. Number formats are in [`crate::dtype`], the order of
//! scale bytes in memory in [`crate::layout`].


/// Which elements of a `[rows, cols]` matrix share one scale.
///
/// Activations are `[tokens, K]` and weights `[N, K]`, so `Row` is "per token" for the one and "per output
/// channel" for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One scale for the whole matrix.
    Tensor,
    /// One scale for each row: per token, per channel.
    Row,
    /// One scale for each run of `n` columns within a row: `1 × n` groups. The last may be partial.
    Group(usize),
    /// One scale for each `rows × cols` block. Edge blocks may be partial.
    Block(usize, usize),
}

impl Granularity {
    /// Rows and columns of one cell of the scale grid, for a matrix of that shape.
    pub fn cell(self, rows: usize, cols: usize) -> (usize, usize) {
        match self {
            Granularity::Tensor => (rows.max(1), cols.max(1)),
            Granularity::Row => (1, cols.max(1)),
            Granularity::Group(n) => (1, n.max(1)),
            Granularity::Block(r, c) => (r.max(1), c.max(1)),
        }
    }

    /// Shape of the scale grid: `[ceil(rows / cell rows), ceil(cols / cell cols)]`.
    pub fn grid(self, rows: usize, cols: usize) -> (usize, usize) {
        let (r, c) = self.cell(rows, cols);
        (rows.div_ceil(r), cols.div_ceil(c))
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Granularity::Tensor => f.write_str("per tensor"),
            Granularity::Row => f.write_str("per row"),
            Granularity::Group(n) => write!(f, "group 1x{n}"),
            Granularity::Block(r, c) => write!(f, "block {r}x{c}"),
        }
    }
}
