//! Shape and strides of a buffer.

use crate::dtype::DType;
use crate::layout::DataLayout;

/// A `[rows, cols]` view: contiguous, with padded rows, or transposed.
///
/// Half of the field's layout bugs live in strided views: a kernel that multiplies in 32 bits, or takes `cols` for
/// the stride, is right on contiguous data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub rows: usize,
    pub cols: usize,
    /// Elements from one row to the next (from one column to the next where transposed); contiguous without.
    stride: Option<usize>,
    transposed: bool,
    layout: DataLayout,
}

impl Shape {
    /// Contiguous, row-major.
    pub fn new(rows: usize, cols: usize) -> Shape {
        Shape { rows, cols, stride: None, transposed: false, layout: DataLayout::RowMajor }
    }

    /// Rows `stride` elements apart (columns, where transposed). Memory between them is poisoned and must stay so; it
    /// costs nothing where it spans pages, so that `rows * stride` may go beyond 2^31.
    pub fn row_stride(self, stride: i64) -> Shape {
        Shape { stride: Some(usize::try_from(stride).unwrap_or(0)), ..self }
    }

    /// Stored column-major: element `(r, c)` at `c * stride + r`.
    pub fn transposed(self) -> Shape {
        Shape { transposed: !self.transposed, ..self }
    }

    /// The order of the elements in memory, of a buffer that is not quantised: a paged cache in bfloat16, for one. What is
    /// quantised has it from its [`crate::quant::Quant`].
    pub fn layout(self, layout: DataLayout) -> Shape {
        Shape { layout, ..self }
    }

    /// See [`Shape::layout`].
    pub(super) fn data_layout(&self) -> DataLayout {
        self.layout
    }

    /// Elements from one row to the next and from one column to the next.
    pub fn strides(&self) -> (usize, usize) {
        let (_, inner) = self.extents();
        let outer = self.stride.unwrap_or(inner);
        if self.transposed { (1, outer) } else { (outer, 1) }
    }

    /// Number of contiguous runs and elements in each.
    pub(super) fn extents(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    pub(super) fn is_contiguous(&self) -> bool {
        !self.transposed && self.stride.is_none_or(|s| s == self.cols)
    }

    pub(super) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// Elements from one run to the next.
    pub(super) fn run_stride(&self) -> usize {
        self.stride.unwrap_or(self.extents().1)
    }

    /// Bytes from the first to the last element.
    pub(super) fn bytes(&self, dtype: DType) -> usize {
        let (runs, inner) = self.extents();
        let elements = (runs - 1).saturating_mul(self.run_stride()).saturating_add(inner);
        if self.is_contiguous() {
            return dtype.packed_len(elements);
        }
        elements.saturating_mul(dtype.bits() as usize / 8)
    }

    pub(super) fn problem(&self, dtype: DType) -> Option<String> {
        let (_, inner) = self.extents();
        if self.run_stride() < inner {
            return Some(format!(
                "a stride of {} elements is less than the {inner} in a row",
                self.run_stride()
            ));
        }
        if !self.is_contiguous() && dtype.bits() < 8 {
            return Some(format!("{dtype} is packed: only contiguous views of it exist"));
        }
        if self.layout != DataLayout::RowMajor {
            if !self.is_contiguous() {
                return Some("a data layout cannot go with strides: leave out `layout`, or `row_stride` and `transposed`".into());
            }
            if let Err(bad) = self.layout.check((self.rows, self.cols)) {
                return Some(bad.to_string());
            }
        }
        if dtype.bits() < 8 && !dtype.packed_len(self.cols * 8).is_multiple_of(8) {
            return Some(format!("rows of {} {dtype} values do not end at a byte", self.cols));
        }
        None
    }
}

impl From<[usize; 2]> for Shape {
    fn from([rows, cols]: [usize; 2]) -> Shape {
        Shape::new(rows, cols)
    }
}

impl From<[i32; 2]> for Shape {
    /// A negative dimension counts as 0, which no declaration takes.
    fn from([rows, cols]: [i32; 2]) -> Shape {
        Shape::new(usize::try_from(rows).unwrap_or(0), usize::try_from(cols).unwrap_or(0))
    }
}
