//! Comparing two open tensors in panels, so that memory does not grow with them.

use rayon::prelude::*;

use super::data::TensorData;
use super::element::{Element, Real};
use crate::metrics::{Comparison, Part, Value};

/// Values decoded at a time, of either tensor and on each core.
const PANEL: usize = 1 << 16;

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
    let (rows, cols) = (reference.rows(), reference.cols());
    let height = rows.div_ceil(4 * rayon::current_num_threads());
    let step = (PANEL / cols).max(1);
    let parts: Vec<Part> = (0..rows.div_ceil(height))
        .into_par_iter()
        .map(|i| {
            let range = i * height..rows.min((i + 1) * height);
            let mut part = Part::new(range.start, range.len(), 0..cols);
            let (mut x, mut y) = (Vec::<T>::new(), Vec::<T>::new());
            for first in range.clone().step_by(step) {
                let panel = first..range.end.min(first + step);
                reference.read(panel.clone(), &mut x);
                out.read(panel.clone(), &mut y);
                for (row, (x, y)) in panel.zip(x.chunks_exact(cols).zip(y.chunks_exact(cols))) {
                    part.add(row, x, y);
                }
            }
            part
        })
        .collect();
    Comparison::join((rows, cols), parts)
}
