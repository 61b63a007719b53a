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
        if narrow(self) && narrow(out) {
            return in_panels::<f32>(self, out, |_| {});
        }
        match scale(self.largest().max(out.largest())) {
            None => in_panels::<f64>(self, out, |_| {}),
            Some(scale) => in_panels::<f64>(self, out, |values| values.iter_mut().for_each(|v| *v *= scale)),
        }
    }

    /// The largest finite magnitude of a tensor.
    fn largest(&self) -> f64 {
        const ROWS: usize = 64;
        let mut values: Vec<f64> = Vec::new();
        let mut largest = 0.0f64;
        for first in (0..self.rows()).step_by(ROWS) {
            self.read(first..self.rows().min(first + ROWS), &mut values);
            let finite = values.iter().map(|v| v.abs()).filter(|v| v.is_finite());
            largest = finite.fold(largest, f64::max);
        }
        largest
    }
}

/// The power of two that brings the largest magnitude near 1, where sums of squares would overflow or vanish without it.
/// Both sides are multiplied by it, so that no figure of the comparison changes.
fn scale(largest: f64) -> Option<f64> {
    /// Squares of these, and sums of 2^40 of them, are normal numbers.
    const SAFE: std::ops::RangeInclusive<f64> = 1e-120..=1e140;
    let apart = largest > 0.0 && !SAFE.contains(&largest);
    // 2^1023 is the largest power there is; what is smaller than its reciprocal comes near enough.
    apart.then(|| 2f64.powi((-largest.log2().floor()).clamp(-1022.0, 1023.0) as i32))
}

fn in_panels<T: Real + Value>(
    reference: &TensorData,
    out: &TensorData,
    change: impl Fn(&mut [T]) + Sync,
) -> Comparison {
    let shape = (reference.rows(), reference.cols());
    let [comparison] = compare_panels::<T, 1>(shape, |rows, [(x, y)]| {
        reference.read(rows.clone(), x);
        out.read(rows, y);
        change(x);
        change(y);
    });
    comparison
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn magnitudes_whose_squares_are_no_numbers_are_brought_near_1() {
        assert_eq!([scale(0.0), scale(1.0), scale(3e38), scale(1e-45)], [None; 4]);
        for largest in [1e300, f64::MAX, 1e-200, f64::MIN_POSITIVE, 5e-324] {
            let scaled = largest * scale(largest).unwrap();
            assert!((1e-20..=4.0).contains(&scaled), "{largest:e} becomes {scaled:e}");
        }
    }
}
