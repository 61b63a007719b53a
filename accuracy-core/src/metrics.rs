//! The verdict vector of one buffer: how far `out` is from `reference`, in float64 and by position.
//!
//! What the numbers mean, and where they fail, is in [`crate::verdict`].

use crate::reference::Matrix;

/// Rows or columns named in a record.
const WORST: usize = 5;

/// How one matrix compares with another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// `<ref, out> / (|ref| |out|)`; `None` where `out` holds a NaN or Inf that `reference` has not, or exactly one
    /// of them is zero. Two zero matrices have a cosine of 1.
    pub cos: Option<f64>,
    /// The worst cosine of a row whose reference is not zero, and which row it is.
    pub cos_row_min: Option<f64>,
    pub row_min_index: Option<usize>,
    /// `<ref, out> / <ref, ref>`.
    pub gain: Option<f64>,
    /// `|out - ref| / |ref|`.
    pub rel_l2: Option<f64>,
    /// NaN in `out` where the reference has none, or the reverse; the same for Inf (with its sign).
    pub nan_unexpected: u64,
    pub inf_unexpected: u64,
    /// Rows whose reference is zero but whose output is not, and the first of them.
    pub zero_rows_wrong: u64,
    pub zero_row_index: Option<usize>,
    /// `|out - ref|²` of each row and column and `|ref|²` of each, for [`Comparison::worst_rows`].
    row_cos: Vec<Option<f64>>,
    col_error: Vec<f64>,
    col_norm: Vec<f64>,
}

/// Compares `out` with `reference`, in one pass over both.
///
/// # Panics
/// If the shapes differ.
pub fn compare(reference: &Matrix, out: &Matrix) -> Comparison {
    assert_eq!((reference.rows, reference.cols), (out.rows, out.cols), "shapes of reference and output");
    let mut total = Sums::default();
    let mut result = Comparison {
        col_error: vec![0.0; out.cols],
        col_norm: vec![0.0; out.cols],
        row_cos: Vec::with_capacity(out.rows),
        ..Comparison::default()
    };
    for r in 0..out.rows {
        let mut row = Sums::default();
        for (c, (&x, &y)) in reference.row(r).iter().zip(out.row(r)).enumerate() {
            if x.is_finite() && y.is_finite() {
                row.add(x, y);
                result.col_error[c] += (y - x) * (y - x);
                result.col_norm[c] += x * x;
                continue;
            }
            let nan = x.is_nan() != y.is_nan();
            let inf = (x.is_infinite() || y.is_infinite()) && x != y && !nan;
            // A NaN where Inf was due, or the reverse, is counted as the NaN.
            result.nan_unexpected += u64::from(nan);
            result.inf_unexpected += u64::from(inf);
            if nan || inf {
                row.broken = true;
                result.col_error[c] = f64::INFINITY;
            }
        }
        let totals @ [xx, yy, ..] = row.totals();
        if xx == 0.0 && (yy != 0.0 || row.broken) {
            result.zero_rows_wrong += 1;
            result.zero_row_index.get_or_insert(r);
        }
        let cos = cos_of(totals, row.broken);
        if xx > 0.0 {
            let worse = match (cos, result.row_min_index.map(|_| result.cos_row_min)) {
                (_, None) => true,
                (None, Some(before)) => before.is_some(),
                (Some(now), Some(before)) => before.is_some_and(|b| now < b),
            };
            if worse {
                (result.cos_row_min, result.row_min_index) = (cos, Some(r));
            }
        }
        result.row_cos.push(cos);
        total.merge(row);
    }
    let totals @ [xx, yy, xy, dd] = total.totals();
    result.cos = cos_of(totals, total.broken);
    if !total.broken && xx > 0.0 {
        result.gain = Some(xy / xx);
        result.rel_l2 = Some((dd / xx).sqrt());
    } else if !total.broken && yy == 0.0 {
        (result.gain, result.rel_l2) = (Some(1.0), Some(0.0));
    }
    result
}

impl Comparison {
    /// The rows with the lowest cosine, worst first; none that is right to within `0.9999`.
    pub fn worst_rows(&self) -> Vec<(usize, Option<f64>)> {
        let mut rows: Vec<_> = self.row_cos.iter().copied().enumerate().collect();
        rows.retain(|(_, cos)| cos.is_none_or(|c| c < 0.9999));
        rows.sort_by(|a, b| a.1.unwrap_or(-2.0).total_cmp(&b.1.unwrap_or(-2.0)));
        rows.truncate(WORST);
        rows
    }

    /// The columns with the largest relative L2 error, worst first; none below 1 %. `None` stands for a column
    /// with an unexpected NaN or Inf, or whose reference is zero.
    pub fn worst_cols(&self) -> Vec<(usize, Option<f64>)> {
        let mut cols: Vec<(usize, f64)> = (0..self.col_error.len())
            .map(|c| {
                let error = self.col_error[c];
                (c, if error == 0.0 { 0.0 } else { (error / self.col_norm[c]).sqrt() })
            })
            .filter(|(_, error)| *error > 0.01)
            .collect();
        cols.sort_by(|a, b| b.1.total_cmp(&a.1));
        cols.truncate(WORST);
        cols.into_iter().map(|(c, error)| (c, Some(error).filter(|e| e.is_finite()))).collect()
    }
}

/// Sums over pairs of finite values.
///
/// Plain float64 sums of 10^7 alike values are wrong in the tenth digit, so short runs are summed plainly and the runs
/// with the error of each addition carried along (Neumaier).
#[derive(Default)]
struct Sums {
    run: [f64; 4],
    in_run: u32,
    high: [f64; 4],
    low: [f64; 4],
    broken: bool,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        for (sum, term) in self.run.iter_mut().zip([x * x, y * y, x * y, (y - x) * (y - x)]) {
            *sum += term;
        }
        self.in_run += 1;
        if self.in_run == 256 {
            self.close_run();
        }
    }

    fn close_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.in_run = 0;
        self.carry(run);
    }

    fn carry(&mut self, terms: [f64; 4]) {
        for (i, term) in terms.into_iter().enumerate() {
            let sum = self.high[i] + term;
            let (large, small) =
                if self.high[i].abs() >= term.abs() { (self.high[i], term) } else { (term, self.high[i]) };
            self.low[i] += (large - sum) + small;
            self.high[i] = sum;
        }
    }

    fn merge(&mut self, mut other: Sums) {
        other.close_run();
        self.carry(other.high);
        self.carry(other.low);
        self.broken |= other.broken;
    }

    /// `|x|²`, `|y|²`, `<x, y>` and `|y - x|²`.
    fn totals(&mut self) -> [f64; 4] {
        self.close_run();
        std::array::from_fn(|i| self.high[i] + self.low[i])
    }
}

fn cos_of([xx, yy, xy, _]: [f64; 4], broken: bool) -> Option<f64> {
    if broken {
        None
    } else if xx == 0.0 && yy == 0.0 {
        Some(1.0)
    } else if xx == 0.0 || yy == 0.0 {
        None
    } else {
        Some((xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
    }
}

/// Cosine of two equally long slices.
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    compare(&Matrix::new(1, a.len(), a.to_vec()), &Matrix::new(1, b.len(), b.to_vec())).cos
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    fn matrix(rows: usize, data: &[f64]) -> Matrix {
        Matrix::new(rows, data.len() / rows, data.to_vec())
    }

    #[test]
    fn a_gain_leaves_the_cosine_at_one() {
        let x = matrix(1, &[3.0, -4.0]);
        let c = compare(&x, &x.map(|v| 2.0 * v));
        assert_eq!((c.cos, c.gain, c.rel_l2), (Some(1.0), Some(2.0), Some(1.0)));
    }

    #[test]
    fn the_worst_row_hides_behind_a_massive_one_but_is_found() {
        let x = matrix(3, &[1e6, 1e6, 1.0, 2.0, 1.0, 1.0]);
        let y = matrix(3, &[1e6, 1e6, 2.0, -1.0, 1.0, 1.0]);
        let c = compare(&x, &y);
        assert!(c.cos.unwrap() > 0.999_999);
        assert_eq!((c.cos_row_min, c.row_min_index), (Some(0.0), Some(1)));
        assert_eq!(c.worst_rows(), [(1, Some(0.0))]);
    }

    #[test]
    fn nan_and_inf_are_judged_by_position_and_sign() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let same = compare(&matrix(2, &[1.0, nan, inf, -1.0]), &matrix(2, &[1.0, nan, inf, -1.0]));
        assert_eq!((same.nan_unexpected, same.inf_unexpected, same.cos), (0, 0, Some(1.0)));
        let c = compare(&matrix(1, &[1.0, 1.0, nan, inf, inf]), &matrix(1, &[nan, inf, 1.0, -inf, nan]));
        assert_eq!((c.nan_unexpected, c.inf_unexpected), (3, 2));
        assert_eq!((c.cos, c.gain, c.rel_l2), (None, None, None));
    }

    #[test]
    fn zero_rows_must_stay_zero() {
        let c = compare(&matrix(2, &[0.0, 0.0, 1.0, 1.0]), &matrix(2, &[0.0, 1e-30, 1.0, 1.0]));
        assert_eq!((c.zero_rows_wrong, c.zero_row_index), (1, Some(0)));
        assert_eq!(c.row_min_index, Some(1));
        let zeros = matrix(2, &[0.0; 4]);
        assert_eq!(compare(&zeros, &zeros).cos, Some(1.0));
        assert_eq!(compare(&zeros, &matrix(2, &[1.0; 4])).cos, None);
        assert_eq!(compare(&matrix(2, &[1.0; 4]), &zeros).cos, None);
    }

    #[test]
    fn worst_columns_name_the_ones_that_are_off() {
        let x = matrix(2, &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let y = matrix(2, &[1.0, 2.2, 3.0, 1.0, 2.2, f64::NAN]);
        let worst = compare(&x, &y).worst_cols();
        assert_eq!(worst[0], (2, None));
        assert_eq!(worst[1].0, 1);
        assert_abs_diff_eq!(worst[1].1.unwrap(), 0.1, epsilon = 1e-12);
        assert_eq!(worst.len(), 2);
    }

    #[test]
    fn ten_million_elements_keep_twelve_digits() {
        // Two vectors at a known angle: y = x + e with e orthogonal to x by construction.
        let n = 10_000_000;
        let x: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { 2.0 }).collect();
        let y: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { 1.0 + 2e-3 } else { 2.0 - 1e-3 }).collect();
        let expected = (5.0_f64 / (5.0 + 5e-6)).sqrt();
        assert_abs_diff_eq!(cosine(&x, &y).unwrap(), expected, epsilon = 1e-12);
    }
}
