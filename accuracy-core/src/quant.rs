//! Quantisation schemes: how values share scales, and the framework's own quantiser.
//!
//! What lives here: granularity (which elements share a scale), the scheme a buffer is declared with, and the
//! float64 quantiser that producers are judged against. Number formats are in [`crate::dtype`], the order of
//! scale bytes in memory in [`crate::layout`].

use crate::dtype::{DType, F32, Overflow};
use crate::layout::ScaleLayout;
use crate::reference::Matrix;

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

/// How a buffer is quantised: what a producer is expected to write, and how a consumer reads it.
///
/// `value = code * scale`, the scale of a cell being `max(amax, amax_floor) / max`, rounded to the scale's format.
/// A cell whose values are all zero decodes to zero whatever its scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    pub dtype: DType,
    pub granularity: Granularity,
    /// Format of the stored scales.
    pub scale_dtype: DType,
    pub scale_layout: ScaleLayout,
    /// How a scale is rounded to [`Quant::scale_dtype`].
    pub scale_rounding: ScaleRounding,
    /// The value to which a cell's largest magnitude is mapped: the format's maximum unless said otherwise (engines
    /// use 224 for e4m3fnuz, too).
    pub max: f64,
    /// Smallest magnitude that a scale is computed from.
    pub amax_floor: f64,
}

/// How the exact scale becomes one that the scale's format can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleRounding {
    /// The nearest value, ties to even.
    Nearest,
    /// The nearest value that is not larger.
    Floor,
    /// The nearest value that is not smaller: no element of the cell saturates.
    Ceil,
}

impl Quant {
    fn new(dtype: DType, granularity: Granularity) -> Quant {
        Quant {
            dtype,
            granularity,
            scale_dtype: F32,
            scale_layout: ScaleLayout::RowMajor,
            scale_rounding: ScaleRounding::Nearest,
            max: dtype.max(),
            amax_floor: 0.0,
        }
    }

    /// One scale for the whole tensor.
    pub fn tensor(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Tensor)
    }

    /// One scale for each token of activations `[tokens, K]`.
    pub fn token(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Row)
    }

    /// One scale for each output channel of a weight `[N, K]`.
    pub fn channel(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Row)
    }

    /// One scale for each `1 × size` group along K.
    pub fn group(dtype: DType, size: usize) -> Quant {
        Quant::new(dtype, Granularity::Group(size))
    }

    /// One scale for each `rows × cols` block.
    pub fn block(dtype: DType, rows: usize, cols: usize) -> Quant {
        Quant::new(dtype, Granularity::Block(rows, cols))
    }

    /// Order of the scales in memory.
    pub fn layout(self, scale_layout: ScaleLayout) -> Quant {
        Quant { scale_layout, ..self }
    }

    /// Format of the scales and how they are rounded to it.
    pub fn scales(self, scale_dtype: DType, scale_rounding: ScaleRounding) -> Quant {
        Quant { scale_dtype, scale_rounding, ..self }
    }

    /// The value to which the largest magnitude of a cell is mapped.
    pub fn max(self, max: f64) -> Quant {
        Quant { max, ..self }
    }

    /// The smallest magnitude that a scale is computed from.
    pub fn amax_floor(self, amax_floor: f64) -> Quant {
        Quant { amax_floor, ..self }
    }

    /// The scale of a cell whose largest magnitude is `amax`; 1 where that is 0 and there is no floor.
    pub fn scale_of(&self, amax: f64) -> f64 {
        let amax = if amax < self.amax_floor { self.amax_floor } else { amax };
        if amax == 0.0 {
            return 1.0;
        }
        self.round_scale(amax / self.max)
    }

    fn round_scale(&self, exact: f64) -> f64 {
        let format = self.scale_dtype;
        let code = format.encode(exact, Overflow::Saturate);
        let nearest = format.decode(code);
        // Positive floats are ordered as their codes are.
        match self.scale_rounding {
            ScaleRounding::Floor if nearest > exact && code > 0 => format.decode(code - 1),
            ScaleRounding::Ceil if nearest < exact && nearest < format.max() => format.decode(code + 1),
            _ => nearest,
        }
    }

    /// The code of a value that was divided by its scale: to nearest even, saturating.
    pub fn code_of(&self, scaled: f64) -> u32 {
        self.dtype.encode(scaled.clamp(-self.max, self.max), Overflow::Saturate)
    }

    /// What is wrong with the scheme itself, if anything.
    pub fn problem(&self) -> Option<String> {
        let empty = match self.granularity {
            Granularity::Group(n) => n == 0,
            Granularity::Block(r, c) => r == 0 || c == 0,
            Granularity::Tensor | Granularity::Row => false,
        };
        if empty {
            return Some(format!("{}: a cell needs at least one row and column", self.granularity));
        }
        if !(self.max > 0.0 && self.max <= self.dtype.max()) {
            return Some(format!(
                "max {} is outside of {}'s range, (0, {}]",
                self.max,
                self.dtype,
                self.dtype.max()
            ));
        }
        if self.amax_floor < 0.0 || !self.amax_floor.is_finite() {
            return Some(format!("amax_floor {} is not a magnitude", self.amax_floor));
        }
        if self.scale_dtype.is_integer() {
            return Some(format!("{} cannot hold a scale", self.scale_dtype));
        }
        None
    }
}

/// A quantised matrix as values, before it is laid out in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    pub rows: usize,
    pub cols: usize,
    pub granularity: Granularity,
    pub dtype: DType,
    /// One code for each element, row-major.
    pub codes: Vec<u32>,
    /// One scale for each cell, row-major.
    pub scales: Vec<f64>,
}

impl Quantized {
    /// The scale of an element.
    pub fn scale_at(&self, r: usize, c: usize) -> f64 {
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let (_, grid_cols) = self.granularity.grid(self.rows, self.cols);
        self.scales[r / cell_rows * grid_cols + c / cell_cols]
    }

    /// `code * scale`, exact in float64 for scales of up to 24 significant bits.
    pub fn decode(&self) -> Matrix {
        let table = CodeTable::new(self.dtype);
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let (_, grid_cols) = self.granularity.grid(self.rows, self.cols);
        let mut out = Vec::with_capacity(self.codes.len());
        for r in 0..self.rows {
            let scales = &self.scales[r / cell_rows * grid_cols..][..grid_cols];
            let codes = self.codes[r * self.cols..(r + 1) * self.cols].chunks(cell_cols);
            for (codes, scale) in codes.zip(scales) {
                out.extend(codes.iter().map(|&code| table.value(code) * scale));
            }
        }
        Matrix::new(self.rows, self.cols, out)
    }
}

/// Decodes by table where the format is small enough.
struct CodeTable(DType, Vec<f64>);

impl CodeTable {
    fn new(dtype: DType) -> CodeTable {
        let small = dtype.bits() <= 8;
        CodeTable(
            dtype,
            if small { (0..1 << dtype.bits()).map(|c| dtype.decode(c)).collect() } else { vec![] },
        )
    }

    fn value(&self, code: u32) -> f64 {
        match self.1.get(code as usize) {
            Some(&value) => value,
            None => self.0.decode(code),
        }
    }
}

/// The framework's own quantiser, in float64: what a producer is judged against.
pub fn quantize(values: &Matrix, scheme: &Quant) -> Quantized {
    let (rows, cols) = (values.rows, values.cols);
    let (cell_rows, cell_cols) = scheme.granularity.cell(rows, cols);
    let (_, grid_cols) = scheme.granularity.grid(rows, cols);
    let scales: Vec<f64> = amax(values, scheme.granularity).into_iter().map(|a| scheme.scale_of(a)).collect();
    let codes = (0..rows * cols)
        .map(|i| {
            let (r, c) = (i / cols, i % cols);
            scheme.code_of(values.data[i] / scales[r / cell_rows * grid_cols + c / cell_cols])
        })
        .collect();
    Quantized { rows, cols, granularity: scheme.granularity, dtype: scheme.dtype, codes, scales }
}

/// The largest magnitude of each cell, row-major. NaN where the cell holds one.
pub fn amax(values: &Matrix, granularity: Granularity) -> Vec<f64> {
    let (cell_rows, cell_cols) = granularity.cell(values.rows, values.cols);
    let (grid_rows, grid_cols) = granularity.grid(values.rows, values.cols);
    let mut out = vec![0.0_f64; grid_rows * grid_cols];
    for r in 0..values.rows {
        for (c, x) in values.row(r).iter().enumerate() {
            let cell = &mut out[r / cell_rows * grid_cols + c / cell_cols];
            // Not `f64::max`, which would drop a NaN.
            if x.abs() > *cell || x.is_nan() {
                *cell = x.abs();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{E4M3FN, E8M0, INT8};

    fn ramp(rows: usize, cols: usize) -> Matrix {
        Matrix::new(rows, cols, (0..rows * cols).map(|i| ((i * 37) % 101) as f64 - 50.0).collect())
    }

    #[test]
    fn every_granularity_maps_its_cells_maximum_to_the_formats() {
        let x = ramp(5, 300);
        for granularity in
            [Granularity::Tensor, Granularity::Row, Granularity::Group(128), Granularity::Block(2, 128)]
        {
            let scheme = Quant::new(E4M3FN, granularity);
            let q = quantize(&x, &scheme);
            let (grid_rows, grid_cols) = granularity.grid(5, 300);
            assert_eq!(q.scales.len(), grid_rows * grid_cols);
            let decoded = q.decode();
            for (a, b) in amax(&x, granularity).iter().zip(amax(&decoded, granularity)) {
                // The scale is rounded to float32; the maximum's code is the format's largest.
                assert!((a - b).abs() <= a * 1e-7, "{granularity}: {a} {b}");
            }
        }
    }

    #[test]
    fn partial_edge_blocks_have_scales_of_their_own() {
        let q = quantize(&ramp(130, 129), &Quant::block(E4M3FN, 128, 128));
        assert_eq!(q.scales.len(), 4);
        assert_eq!(q.scale_at(127, 127), q.scales[0]);
        assert_eq!(q.scale_at(127, 128), q.scales[1]);
        assert_eq!(q.scale_at(128, 0), q.scales[2]);
        assert_eq!(q.scale_at(129, 128), q.scales[3]);
    }

    #[test]
    fn zero_cells_decode_to_zero() {
        for floor in [0.0, 1e-10] {
            let q = quantize(&Matrix::zeros(2, 256), &Quant::group(INT8, 128).amax_floor(floor));
            assert!(q.scales.iter().all(|s| s.is_finite() && *s > 0.0));
            assert!(q.decode().data.iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn exponent_scales_round_as_declared() {
        let scheme = |rounding| Quant::group(E4M3FN, 32).scales(E8M0, rounding).max(448.0);
        // 448 * 3 / 448 = 3 lies between 2 and 4.
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(448.0 * 3.0), 2.0);
        assert_eq!(scheme(ScaleRounding::Ceil).scale_of(448.0 * 3.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Ceil).scale_of(448.0 * 4.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(448.0 * 4.0), 4.0);
    }

    #[test]
    fn nan_in_a_cell_is_not_dropped() {
        let mut x = ramp(1, 256);
        x.data[3] = f64::NAN;
        let a = amax(&x, Granularity::Group(128));
        assert!(a[0].is_nan() && a[1].is_finite());
    }
}
