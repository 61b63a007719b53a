//! Quantisation schemes: how values share scales, and the framework's own quantiser.
//!
//! What lives here: granularity (which elements share a scale), the scheme a buffer is declared with, and the
//! float64 quantiser that producers are judged against. Number formats are in [`crate::dtype`], the order of
//! scale bytes in memory in [`crate::layout`].

use crate::dtype::{DType, E8M0, F32, NibbleOrder, Overflow, e8m0};
use crate::layout::{DataLayout, ScaleLayout};
use crate::reference::Matrix;
use std::ops::Range;

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

impl Granularity {
    /// Of the values `of` of all cells of a matrix, those of a part whose borders are borders of cells.
    ///
    /// # Errors
    /// A border that cuts through a cell.
    pub fn part_of(
        self,
        (all_rows, all_cols): (usize, usize),
        of: &[f64],
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> Result<Vec<f64>, String> {
        let (cell_rows, cell_cols) = self.cell(all_rows, all_cols);
        let on_border = |at: usize, cell: usize, end: usize| at.is_multiple_of(cell) || at == end;
        if self != Granularity::Tensor
            && !(on_border(rows.start, cell_rows, all_rows)
                && on_border(rows.end, cell_rows, all_rows)
                && on_border(cols.start, cell_cols, all_cols)
                && on_border(cols.end, cell_cols, all_cols))
        {
            return Err(format!(
                "rows {rows:?} and columns {cols:?} cut through a scale's cell of {cell_rows}x{cell_cols} ({self})"
            ));
        }
        let (_, grid_cols) = self.grid(all_rows, all_cols);
        let columns = cols.start / cell_cols..cols.end.div_ceil(cell_cols);
        let grid_rows = rows.start / cell_rows..rows.end.div_ceil(cell_rows);
        Ok(grid_rows.flat_map(|r| of[r * grid_cols..][columns.clone()].iter().copied()).collect())
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
/// `value = (code - zero point) * scale * global scale`, the scale of a cell being `max(amax, amax_floor) / max`,
/// rounded to the scale's format. A cell whose values are all zero decodes to zero whatever its scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    pub dtype: DType,
    pub granularity: Granularity,
    /// Order of the codes in memory.
    pub data_layout: DataLayout,
    /// Order in which eight 4-bit codes that are neighbours in [`Quant::data_layout`] share a word.
    pub nibbles: NibbleOrder,
    /// Format of the stored scales.
    pub scale_dtype: DType,
    pub scale_layout: ScaleLayout,
    /// What the padding of the scales' layout holds.
    pub scale_padding: Padding,
    /// How a scale is rounded to [`Quant::scale_dtype`].
    pub scale_rounding: ScaleRounding,
    /// The scale, where a kernel is given it instead of computing one.
    pub static_scale: Option<f64>,
    /// The float32 factor of the whole tensor, where scales have two levels.
    pub global_scale: Option<GlobalScale>,
    pub zero_point: ZeroPoint,
    /// The value to which a cell's largest magnitude is mapped: the format's maximum unless said otherwise (engines
    /// use 224 for e4m3fnuz, too).
    pub max: f64,
    /// Smallest magnitude that a scale is computed from.
    pub amax_floor: f64,
}

/// How the exact scale becomes one that the scale's format can hold.
///
/// For e8m0 scales `Floor`, `Ceil` and `Even` are the producers' own rules, see [`e8m0::Rounding`]. Of float32 scales
/// only `Nearest` and `PowerOfTwo` make a difference, and others are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleRounding {
    /// The nearest value, ties to even.
    Nearest,
    /// The nearest value that is not larger.
    Floor,
    /// The nearest value that is not smaller: no element of the cell saturates.
    Ceil,
    /// [`e8m0::Rounding::Even`], of e8m0 scales only.
    Even,
    /// The least power of two that is not smaller, of float32 and bfloat16 scales: `2^ceil(log2(amax / max))`, as
    /// DeepGEMM casts with `use_ue8m0` where the scales stay float32.
    PowerOfTwo,
}

/// What lies between the scales of a layout that pads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Anything: it stays poisoned, a producer need not write it, and no result may depend on it.
    Any,
    /// This byte: weights are given with it and a producer has to write it. Consumers that multiply padded tiles
    /// ask for `0x00` or, of e8m0 scales, `0x7f` (1.0).
    Byte(u8),
}

/// What is subtracted from a code before it is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoint {
    /// Nothing: code 0 means 0.
    None,
    /// The same for every cell and known to the kernel: 8 for offset-binary int4.
    Fixed(i32),
    /// One for each cell, in a buffer of its own. Only a weight can have them; the guide's page on layouts shows how a chain
    /// declares activations with zero points.
    PerCell {
        dtype: DType,
        layout: ScaleLayout,
        /// Order in which eight 4-bit zero points that are neighbours in `layout` share a word.
        nibbles: NibbleOrder,
    },
}

impl ZeroPoint {
    /// One for each cell, in the order of `layout`; of 4-bit formats the first in the low nibble.
    pub fn per_cell(dtype: DType, layout: ScaleLayout) -> ZeroPoint {
        ZeroPoint::PerCell { dtype, layout, nibbles: NibbleOrder::LowFirst }
    }
}

/// How the tensor-wide factor of two-level scales is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalScale {
    /// `value = code * scale * global`: ModelOpt's `weight_scale_2`.
    Multiply,
    /// `value = code * scale / global`: compressed-tensors' `weight_global_scale`.
    Divide,
}

impl GlobalScale {
    /// What is stored for a factor; its own inverse.
    pub fn stored(self, factor: f64) -> f64 {
        match self {
            GlobalScale::Multiply => factor,
            GlobalScale::Divide => 1.0 / factor,
        }
    }

    /// The factor nearest to `exact` whose stored form is a float32.
    pub fn round(self, exact: f64) -> f64 {
        self.stored(f64::from(self.stored(exact) as f32))
    }
}

impl Quant {
    fn new(dtype: DType, granularity: Granularity) -> Quant {
        Quant {
            dtype,
            granularity,
            data_layout: DataLayout::RowMajor,
            nibbles: NibbleOrder::LowFirst,
            scale_dtype: F32,
            scale_layout: ScaleLayout::RowMajor,
            scale_padding: Padding::Any,
            scale_rounding: ScaleRounding::Nearest,
            static_scale: None,
            global_scale: None,
            zero_point: ZeroPoint::None,
            max: dtype.max(),
            amax_floor: 0.0,
        }
    }

    /// One scale for the whole tensor.
    ///
    /// # Example
    /// All constructors give float32 scales in row-major order; methods change that.
    /// ```
    /// # use accuracy_core::prelude::*;
    /// let scheme = Quant::group(E4M3FN, 128)      // one scale for each 1 × 128 group along K
    ///     .layout(ColMajor)                       // scales are stored column by column
    ///     .amax_floor(1e-10);                     // the kernel computes scales from max(amax, 1e-10)
    /// assert_eq!((scheme.max, scheme.scale_dtype), (448.0, F32));
    /// ```
    pub fn tensor(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Tensor)
    }

    /// One scale for each row of activations `[tokens, K]`, that is, for each token.
    pub fn token(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Row)
    }

    /// One scale for each row of a weight `[N, K]`, that is, for each output channel.
    pub fn channel(dtype: DType) -> Quant {
        Quant::new(dtype, Granularity::Row)
    }

    /// One scale for each `1 × size` group of a row, along K.
    pub fn group(dtype: DType, size: usize) -> Quant {
        Quant::new(dtype, Granularity::Group(size))
    }

    /// One scale for each block of `rows × cols` elements, such as 128 × 128.
    pub fn block(dtype: DType, rows: usize, cols: usize) -> Quant {
        Quant::new(dtype, Granularity::Block(rows, cols))
    }

    /// Order of the scales in memory.
    pub fn layout(self, scale_layout: ScaleLayout) -> Quant {
        Quant { scale_layout, ..self }
    }

    /// Order of the codes in memory.
    pub fn data_layout(self, data_layout: DataLayout) -> Quant {
        Quant { data_layout, ..self }
    }

    /// Order in which eight 4-bit codes share a word.
    pub fn nibbles(self, nibbles: NibbleOrder) -> Quant {
        Quant { nibbles, ..self }
    }

    /// What the padding of the scales' layout holds.
    pub fn padding(self, scale_padding: Padding) -> Quant {
        Quant { scale_padding, ..self }
    }

    /// The scale is given to the kernel: an engine's calibrated scale of a whole tensor, rounded to float32.
    pub fn static_scale(self, scale: f64) -> Quant {
        Quant { static_scale: Some(f64::from(scale as f32)), ..self }
    }

    /// Scales of two levels: NVFP4 has e4m3 scales of groups, and a float32 for the tensor that maps the largest of
    /// them to their format's maximum. The latter is given to the kernel.
    pub fn two_level(self, global_scale: GlobalScale) -> Quant {
        Quant { global_scale: Some(global_scale), ..self }
    }

    /// What is subtracted from a code. With a fixed one the range is symmetric, -7 to 7 for offset-binary int4.
    pub fn zero_point(self, zero_point: ZeroPoint) -> Quant {
        let max = match zero_point {
            ZeroPoint::Fixed(z) => (self.dtype.max() - f64::from(z)).min(f64::from(z) - self.dtype.min()),
            _ => self.max,
        };
        Quant { zero_point, max, ..self }
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
        if let Some(scale) = self.static_scale {
            return scale;
        }
        let amax = if amax < self.amax_floor { self.amax_floor } else { amax };
        if amax == 0.0 {
            return 1.0;
        }
        let of_producer = match self.scale_rounding {
            _ if self.scale_dtype != E8M0 => None,
            ScaleRounding::Nearest | ScaleRounding::PowerOfTwo => None,
            ScaleRounding::Floor => Some(e8m0::Rounding::Floor),
            // With a maximum of its own the rule is the general one.
            ScaleRounding::Ceil if self.max != self.dtype.max() => None,
            ScaleRounding::Ceil => Some(e8m0::Rounding::Ceil),
            ScaleRounding::Even => Some(e8m0::Rounding::Even),
        };
        match of_producer {
            Some(rounding) => E8M0.decode(e8m0::scale(amax, self.dtype, rounding)),
            None => self.round_scale(amax / self.max),
        }
    }

    fn round_scale(&self, exact: f64) -> f64 {
        if self.scale_rounding == ScaleRounding::PowerOfTwo {
            return E8M0.decode(e8m0::ceil(exact));
        }
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
        self.code_above(scaled, 0.0)
    }

    fn code_above(&self, scaled: f64, zero: f64) -> u32 {
        let scaled = match self.zero_point {
            ZeroPoint::PerCell { .. } => scaled,
            _ => scaled.clamp(-self.max, self.max),
        };
        self.dtype.encode(scaled + zero, Overflow::Saturate)
    }

    /// The tensor-wide factor for these values, 1 without one: the largest scale becomes its format's maximum.
    pub fn global_factor(&self, values: &Matrix) -> f64 {
        let Some(global) = self.global_scale else { return 1.0 };
        let amax = amax(values, Granularity::Tensor).first().copied().unwrap_or(0.0);
        let exact = amax / (self.max * self.scale_dtype.max());
        if exact > 0.0 && exact.is_finite() { global.round(exact) } else { 1.0 }
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
        if let Some(problem) = self.zero_point_problem() {
            return Some(problem);
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
        if self.scale_dtype.is_integer() || self.scale_dtype.bits() < 8 {
            return Some(format!("{} cannot hold a scale", self.scale_dtype));
        }
        if self.nibbles != NibbleOrder::LowFirst && self.dtype.bits() != 4 {
            return Some(format!("a nibble order is for 4-bit formats, not for {}", self.dtype));
        }
        self.scale_problem()
    }

    fn scale_problem(&self) -> Option<String> {
        let rounding = self.scale_rounding;
        if rounding == ScaleRounding::Even && self.scale_dtype != E8M0 {
            return Some(format!(
                "ScaleRounding::Even is a rule of e8m0 scales, not of {}",
                self.scale_dtype
            ));
        }
        if rounding == ScaleRounding::PowerOfTwo && !matches!(self.scale_dtype, DType::F32 | DType::BF16) {
            return Some(format!(
                "ScaleRounding::PowerOfTwo is for scales stored as float32 or bfloat16, not as {}{}",
                self.scale_dtype,
                if self.scale_dtype == E8M0 {
                    ", which has no other values: declare ScaleRounding::Ceil"
                } else {
                    ""
                }
            ));
        }
        if matches!(rounding, ScaleRounding::Floor | ScaleRounding::Ceil) && self.scale_dtype == F32 {
            return Some(format!(
                "ScaleRounding::{rounding:?} has no effect on float32 scales, which may be off by a division's rounding: \
                 declare Nearest, or PowerOfTwo for powers of two stored as float32"
            ));
        }
        let by_exponent = matches!(rounding, ScaleRounding::Floor | ScaleRounding::Even);
        if self.scale_dtype == E8M0 && by_exponent && self.max != self.dtype.max() {
            return Some(format!(
                "{rounding:?} takes e8m0 scales from the exponent of {}'s maximum, {}: max({}) would have no effect",
                self.dtype,
                self.dtype.max(),
                self.max
            ));
        }
        if let Some(scale) = self.static_scale {
            if !(scale > 0.0 && scale.is_finite()) {
                return Some(format!("{scale} is no scale: a static one is positive and finite"));
            }
            if self.granularity != Granularity::Tensor || self.scale_dtype != F32 {
                return Some(format!(
                    "a static scale is one float32 for the tensor; declared are {} scales {}",
                    self.scale_dtype, self.granularity
                ));
            }
        }
        if self.global_scale.is_some() && self.scale_dtype.bits() != 8 {
            return Some(format!(
                "two levels need a narrow format for the groups' scales, not {}",
                self.scale_dtype
            ));
        }
        None
    }

    fn zero_point_problem(&self) -> Option<String> {
        match self.zero_point {
            ZeroPoint::None if self.dtype == DType::U4 => Some(
                "uint4 has no negative values: declare zero_point(ZeroPoint::Fixed(8)) or one per cell"
                    .into(),
            ),
            ZeroPoint::None => None,
            _ if !self.dtype.is_integer() => Some(format!("{} takes no zero point", self.dtype)),
            ZeroPoint::Fixed(z) if self.dtype.decode(z as u32) != f64::from(z) => {
                Some(format!("the zero point {z} is no value of {}", self.dtype))
            }
            ZeroPoint::Fixed(_) => None,
            ZeroPoint::PerCell { dtype, nibbles, .. } => {
                if !dtype.is_integer() {
                    return Some(format!("{dtype} cannot hold a zero point: expected an integer format"));
                }
                (nibbles != NibbleOrder::LowFirst && dtype.bits() != 4)
                    .then(|| format!("a nibble order is for 4-bit zero points, not for {dtype}"))
            }
        }
    }

    /// Why a matrix of this shape cannot lie in memory as declared, if it cannot.
    pub fn misfit(&self, rows: usize, cols: usize) -> Option<String> {
        let grid = self.granularity.grid(rows, cols);
        let words = |what: &str, order: NibbleOrder, count: usize| {
            (order != NibbleOrder::LowFirst && !count.is_multiple_of(8)).then(|| {
                format!("{count} {what} do not fill whole words of eight, as {order:?} nibbles need")
            })
        };
        if let Err(e) = self.data_layout.check((rows, cols)) {
            return Some(e.to_string());
        }
        if let Err(e) = self.scale_layout.check(grid) {
            return Some(format!("scales: {e}"));
        }
        if let ZeroPoint::PerCell { layout, nibbles, .. } = self.zero_point {
            if let Err(e) = layout.check(grid) {
                return Some(format!("zero points: {e}"));
            }
            if let Some(problem) = words("zero points", nibbles, layout.len(grid)) {
                return Some(problem);
            }
        }
        words("codes", self.nibbles, rows * cols)
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
    /// One zero point for each cell, in units of a code; empty where zero means zero.
    pub zeros: Vec<f64>,
    /// The tensor-wide factor, 1 without one.
    pub global: f64,
}

impl Quantized {
    /// The scale of an element, without the tensor-wide factor.
    pub fn scale_at(&self, r: usize, c: usize) -> f64 {
        self.scales[self.cell_of(r, c)]
    }

    fn cell_of(&self, r: usize, c: usize) -> usize {
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let (_, grid_cols) = self.granularity.grid(self.rows, self.cols);
        r / cell_rows * grid_cols + c / cell_cols
    }

    /// `(code - zero) * scale * global`, exact in float64 for scales of up to 24 significant bits and no global one.
    pub fn decode(&self) -> Matrix {
        let table = CodeTable::new(self.dtype);
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let (_, grid_cols) = self.granularity.grid(self.rows, self.cols);
        let mut out = Vec::with_capacity(self.codes.len());
        for r in 0..self.rows {
            let first = r / cell_rows * grid_cols;
            let codes = self.codes[r * self.cols..(r + 1) * self.cols].chunks(cell_cols);
            for (codes, cell) in codes.zip(first..first + grid_cols) {
                let zero = self.zeros.get(cell).copied().unwrap_or(0.0);
                let scale = self.scales[cell];
                out.extend(codes.iter().map(|&code| (table.value(code) - zero) * scale * self.global));
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

/// The framework's own quantiser, in float64: what a producer is judged against. Of two-level scales the factor of the
/// tensor is `global`, see [`Quant::global_factor`].
pub fn quantize(values: &Matrix, scheme: &Quant, global: f64) -> Quantized {
    let (rows, cols) = (values.rows, values.cols);
    let (scales, zeros) = match scheme.zero_point {
        ZeroPoint::PerCell { dtype, .. } => asymmetric(values, scheme, dtype),
        zero_point => {
            let amax = amax(values, scheme.granularity);
            let scales: Vec<f64> = amax.into_iter().map(|a| scheme.scale_of(a / global)).collect();
            let zeros = match zero_point {
                ZeroPoint::Fixed(z) => vec![f64::from(z); scales.len()],
                _ => Vec::new(),
            };
            (scales, zeros)
        }
    };
    let granularity = scheme.granularity;
    let mut out =
        Quantized { rows, cols, granularity, dtype: scheme.dtype, codes: Vec::new(), scales, zeros, global };
    let (cell_rows, cell_cols) = granularity.cell(rows, cols);
    let (_, grid_cols) = granularity.grid(rows, cols);
    let mut codes = Vec::with_capacity(rows * cols);
    for r in 0..rows {
        let first = r / cell_rows * grid_cols;
        for (values, cell) in values.row(r).chunks(cell_cols).zip(first..) {
            let zero = out.zeros.get(cell).copied().unwrap_or(0.0);
            let scale = out.scales[cell] * global;
            // A scale that is too small for its format is zero, and so is what it stands for.
            let scaled = |x: f64| if scale == 0.0 { 0.0 } else { x / scale };
            codes.extend(values.iter().map(|&x| scheme.code_above(scaled(x), zero)));
        }
    }
    out.codes = codes;
    out
}

/// Scales and zero points that map each cell's range, widened to hold 0, to the format's: `(max - min) / (qmax -
/// qmin)` and `qmin - min / scale`, rounded. This is what AutoAWQ and compressed-tensors do.
fn asymmetric(values: &Matrix, scheme: &Quant, zero_dtype: DType) -> (Vec<f64>, Vec<f64>) {
    let (cell_rows, cell_cols) = scheme.granularity.cell(values.rows, values.cols);
    let (grid_rows, grid_cols) = scheme.granularity.grid(values.rows, values.cols);
    let mut ranges = vec![(0.0_f64, 0.0_f64); grid_rows * grid_cols];
    for r in 0..values.rows {
        for (c, &x) in values.row(r).iter().enumerate() {
            let (low, high) = &mut ranges[r / cell_rows * grid_cols + c / cell_cols];
            (*low, *high) = (low.min(x), high.max(x));
        }
    }
    let (qmin, qmax) = (scheme.dtype.min(), scheme.dtype.max());
    ranges
        .into_iter()
        .map(|(low, high)| {
            let width = high - low;
            let scale = if width == 0.0 { 1.0 } else { scheme.round_scale(width / (qmax - qmin)) };
            let scale = if scale == 0.0 { 1.0 } else { scale };
            let zero = (qmin - low / scale).round_ties_even().clamp(qmin, qmax);
            (scale, zero.clamp(zero_dtype.min(), zero_dtype.max()))
        })
        .unzip()
}

/// The largest magnitude of each cell, row-major. NaN where the cell holds one.
pub fn amax(values: &Matrix, granularity: Granularity) -> Vec<f64> {
    let (cell_rows, cell_cols) = granularity.cell(values.rows, values.cols);
    let (grid_rows, grid_cols) = granularity.grid(values.rows, values.cols);
    let mut out = vec![0.0_f64; grid_rows * grid_cols];
    for r in 0..values.rows {
        let cells = &mut out[r / cell_rows * grid_cols..][..grid_cols];
        for (values, cell) in values.row(r).chunks(cell_cols).zip(cells) {
            for x in values {
                // Not `f64::max`, which would drop a NaN.
                if x.abs() > *cell || x.is_nan() {
                    *cell = x.abs();
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{E2M1, E4M3FN, INT8, UINT4};

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
            let q = quantize(&x, &scheme, 1.0);
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
        let q = quantize(&ramp(130, 129), &Quant::block(E4M3FN, 128, 128), 1.0);
        assert_eq!(q.scales.len(), 4);
        assert_eq!(q.scale_at(127, 127), q.scales[0]);
        assert_eq!(q.scale_at(127, 128), q.scales[1]);
        assert_eq!(q.scale_at(128, 0), q.scales[2]);
        assert_eq!(q.scale_at(129, 128), q.scales[3]);
    }

    #[test]
    fn zero_cells_decode_to_zero() {
        for floor in [0.0, 1e-10] {
            let q = quantize(&Matrix::zeros(2, 256), &Quant::group(INT8, 128).amax_floor(floor), 1.0);
            assert!(q.scales.iter().all(|s| s.is_finite() && *s > 0.0));
            assert!(q.decode().data.iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn exponent_scales_round_as_declared() {
        let scheme = |rounding| Quant::group(E4M3FN, 32).scales(E8M0, rounding).max(448.0);
        // 448 * 3 = 1344 lies in the binade of 2^10, the format's maximum in that of 2^8.
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(448.0 * 3.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(512.0 * 3.0 - 1.0), 4.0);
        // 2047 rounds up to the next binade.
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(2047.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Even).scale_of(2047.0), 8.0);
        assert_eq!(scheme(ScaleRounding::Ceil).scale_of(448.0 * 3.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Ceil).scale_of(448.0 * 4.0), 4.0);
        assert_eq!(scheme(ScaleRounding::Floor).scale_of(448.0 * 4.0), 4.0);
    }

    #[test]
    fn powers_of_two_are_float32_scales_and_others_are_wrong() {
        let scheme = Quant::group(E4M3FN, 128).scales(F32, ScaleRounding::PowerOfTwo);
        assert_eq!(scheme.problem(), None);
        for (amax, scale) in [(448.0, 1.0), (448.0001, 2.0), (224.0, 0.5), (3.0, 1.0 / 128.0)] {
            assert_eq!(scheme.scale_of(amax), scale, "{amax}");
        }
        let x = ramp(3, 300);
        let expected = quantize(&x, &scheme, 1.0);
        assert_eq!(expected.scales, vec![0.125; 9]);
        let failed = |written: &Quantized| {
            let checks = crate::judge::producer_checks("x", &scheme, &x, &expected, written, 0.0);
            checks
                .into_iter()
                .filter(|check| !check.ok)
                .map(|check| check.check.name().to_owned())
                .collect::<Vec<_>>()
        };
        assert!(failed(&expected).is_empty());
        let plain = quantize(&x, &Quant::group(E4M3FN, 128), 1.0);
        assert_eq!(failed(&plain)[0], "scales");
    }

    #[test]
    fn a_rounding_without_effect_is_refused() {
        let problem = |dtype, rounding| Quant::group(E4M3FN, 32).scales(dtype, rounding).problem();
        for rounding in [ScaleRounding::Ceil, ScaleRounding::Floor] {
            assert!(
                problem(F32, rounding).unwrap().contains("PowerOfTwo for powers of two stored as float32")
            );
            assert_eq!(problem(E8M0, rounding), None);
        }
        assert_eq!(problem(F32, ScaleRounding::Nearest), None);
        assert!(problem(E8M0, ScaleRounding::PowerOfTwo).unwrap().contains("declare ScaleRounding::Ceil"));
        assert!(problem(E4M3FN, ScaleRounding::PowerOfTwo).is_some());
    }

    #[test]
    fn zero_points_map_each_cells_range_to_the_formats() {
        let x = Matrix::new(2, 64, (0..128).map(|i| f64::from(i % 64) * 0.25 - 3.0).collect());
        for dtype in [UINT4, INT8] {
            let scheme =
                Quant::group(dtype, 32).zero_point(ZeroPoint::per_cell(dtype, ScaleLayout::RowMajor));
            assert_eq!(scheme.problem(), None);
            let q = quantize(&x, &scheme, 1.0);
            assert_eq!(q.zeros.len(), 4);
            // The first cell reaches from -3 to 4.75, the second, widened to hold 0, from 0 to 12.75.
            let steps = dtype.max() - dtype.min();
            assert!((q.scales[0] - 7.75 / steps).abs() < 1e-7 && (q.scales[1] - 12.75 / steps).abs() < 1e-7);
            assert_eq!(q.zeros[1], dtype.min());
            for ((i, a), b) in x.data.iter().enumerate().zip(q.decode().data) {
                assert!((a - b).abs() <= q.scales[i / 32] * 1.001, "{dtype}: {a} {b}");
            }
        }
    }

    #[test]
    fn offset_binary_is_symmetric() {
        let scheme = Quant::group(UINT4, 32).zero_point(ZeroPoint::Fixed(8));
        let x = Matrix::new(1, 32, (0..32).map(|i| f64::from(i) - 14.0).collect());
        let q = quantize(&x, &scheme, 1.0);
        assert_eq!((q.codes[14], q.codes[31], q.zeros[0]), (8, 15, 8.0));
        assert_eq!(q.decode().data[31], 7.0 * q.scales[0]);
        assert!(Quant::group(UINT4, 32).problem().unwrap().contains("ZeroPoint"));
        assert!(scheme.zero_point(ZeroPoint::Fixed(16)).problem().unwrap().contains("16"));
    }

    #[test]
    fn two_levels_map_the_largest_scale_to_its_formats_maximum() {
        let x = ramp(4, 64);
        for global_scale in [GlobalScale::Multiply, GlobalScale::Divide] {
            let scheme =
                Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest).two_level(global_scale);
            assert_eq!(scheme.problem(), None);
            let global = scheme.global_factor(&x);
            assert!((global / (50.0 / (6.0 * 448.0)) - 1.0).abs() < 1e-7);
            let stored = global_scale.stored(global) as f32;
            assert_eq!(global_scale.stored(f64::from(stored)), global);
            let q = quantize(&x, &scheme, global);
            assert_eq!(q.scales.iter().copied().fold(0.0, f64::max), 448.0);
            let (a, b) = (x.norm(), crate::metrics::compare(&x, &q.decode()).rel_l2.unwrap());
            assert!(a > 0.0 && b < 0.15, "{b}");
        }
    }

    #[test]
    fn a_part_has_the_scales_of_its_cells_and_does_not_cut_one() {
        let q = quantize(&ramp(4, 96), &Quant::block(E4M3FN, 2, 32), 1.0);
        let part = |rows, cols| q.granularity.part_of((4, 96), &q.scales, &rows, &cols);
        assert_eq!(part(2..4, 32..96).unwrap(), [q.scale_at(2, 32), q.scale_at(2, 64)]);
        assert_eq!(part(0..4, 64..96).unwrap(), [q.scale_at(0, 64), q.scale_at(2, 64)]);
        assert!(part(1..4, 0..96).unwrap_err().contains("2x32"));
        assert!(part(0..4, 0..40).is_err());
        let tensor = Granularity::Tensor.part_of((4, 96), &[0.5], &(1..3), &(7..9));
        assert_eq!(tensor.unwrap(), [0.5]);
    }

    #[test]
    fn nan_in_a_cell_is_not_dropped() {
        let mut x = ramp(1, 256);
        x.data[3] = f64::NAN;
        let a = amax(&x, Granularity::Group(128));
        assert!(a[0].is_nan() && a[1].is_finite());
    }
}
