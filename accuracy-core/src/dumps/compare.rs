//! Comparing two open tensors in panels, so that memory does not grow with them.

use super::data::TensorData;
use super::element::{Element, Real};
use crate::metrics::{Comparison, Value, compare_panels};

impl TensorData {
    /// How `out` compares with this tensor as the reference, rows by rows.
    ///
    /// # Panics
    /// If the numbers of rows or columns differ.
    pub fn compare(&self, out: &TensorData) -> Comparison {
        assert_eq!((self.rows(), self.cols()), (out.rows(), out.cols()), "shapes of reference and output");
        let same = || self.element() == out.element() && self.raw() == out.raw();
        if self.rows() == 0 || same() {
            return Comparison::of_equals();
        }
        // f32 holds what most formats hold, and is half the work.
        let narrow = |t: &TensorData| {
            !matches!(t.element(), Element::F64 | Element::U32 | Element::I32 | Element::U64 | Element::I64)
        };
        if narrow(self) && narrow(out) { in_panels::<f32>(self, out) } else { in_panels::<f64>(self, out) }
    }
}

fn in_panels<T: Real + Value>(reference: &TensorData, out: &TensorData) -> Comparison {
    let shape = (reference.rows(), reference.cols());
    let [comparison] = compare_panels::<T, 1>(shape, |rows, [(x, y)]| {
        reference.read(rows.clone(), x);
        out.read(rows, y);
    });
    comparison
}
