//! The verdict vector of one buffer: how far `out` is from `reference`, in float64 and by position.
//!
//! What the numbers mean, and where they fail, is in [`crate::verdict`].

use crate::reference::Matrix;
use crate::simd::{Isa, multiversion, prefetch};
use rayon::prelude::*;
use std::ops::Range;

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
    /// Those of `nan_unexpected` where `reference` has the NaN, and `out` has none.
    pub nan_missing: u64,
    /// Rows whose reference is zero but whose output is not, and the first of them.
    pub zero_rows_wrong: u64,
    pub zero_row_index: Option<usize>,
    /// The cosine of each row and `|ref|` of it; `|out - ref|²` and `|ref|²` of each column.
    row_cos: Vec<Option<f64>>,
    row_norm: Vec<f64>,
    col_error: Vec<f64>,
    col_norm: Vec<f64>,
}

/// Values that are compared: each is a float64.
pub trait Value: Copy + Send + Sync {
    fn get(self) -> f64;
    /// Neither NaN nor Inf.
    fn is_finite(self) -> bool;
}

impl Value for f64 {
    #[inline(always)]
    fn get(self) -> f64 {
        self
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        self.abs() < f64::INFINITY
    }
}

impl Value for f32 {
    #[inline(always)]
    fn get(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        self.abs() < f32::INFINITY
    }
}

impl Value for half::bf16 {
    #[inline(always)]
    fn get(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.to_bits()) << 16))
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        self.to_bits() & 0x7f80 != 0x7f80
    }
}

impl Value for half::f16 {
    #[inline(always)]
    fn get(self) -> f64 {
        self.to_f64()
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        self.to_bits() & 0x7c00 != 0x7c00
    }
}

/// Compares `out` with `reference`, in one pass over both.
///
/// # Panics
/// If the shapes differ.
pub fn compare(reference: &Matrix, out: &Matrix) -> Comparison {
    assert_eq!((reference.rows, reference.cols), (out.rows, out.cols), "shapes of reference and output");
    compare_slices((reference.rows, reference.cols), &reference.data, &out.data)
}

/// The same for two row-major `[rows, cols]` matrices of any float format, on all cores where they are large.
///
/// # Panics
/// If a slice does not hold `rows * cols` values.
pub fn compare_slices<X: Value, Y: Value>(
    (rows, cols): (usize, usize),
    reference: &[X],
    out: &[Y],
) -> Comparison {
    assert_eq!(reference.len(), rows * cols, "values of a {rows}x{cols} reference");
    assert_eq!(out.len(), rows * cols, "values of a {rows}x{cols} output");
    let part = |rows: Range<usize>, columns: Range<usize>| {
        let mut part = Part::new(rows.start, rows.len(), columns.clone());
        for r in rows {
            let row = r * cols + columns.start..r * cols + columns.end;
            part.add(r, &reference[row.clone()], &out[row]);
        }
        part
    };
    if rows * cols < PARALLEL {
        return Comparison::join((rows, cols), [part(0..rows, 0..cols)]);
    }
    let pieces = 4 * rayon::current_num_threads();
    let parts: Vec<Part> = if rows >= pieces {
        let height = rows.div_ceil(pieces);
        let range = |i: usize| i * height..rows.min((i + 1) * height);
        (0..rows.div_ceil(height)).into_par_iter().map(|i| part(range(i), 0..cols)).collect()
    } else {
        let width = cols.div_ceil(pieces).next_multiple_of(RUN);
        let range = |i: usize| i * width..cols.min((i + 1) * width);
        (0..cols.div_ceil(width)).into_par_iter().map(|i| part(0..rows, range(i))).collect()
    };
    Comparison::join((rows, cols), parts)
}

/// Compares `N` pairs of `[rows, cols]` matrices that are read a few rows at a time, on all cores, so that memory does
/// not grow with them. `read` makes those rows of each pair, reference and output; the vectors hold what it was last given.
///
/// # Panics
/// If `read` makes other than `cols` values a row.
pub fn compare_panels<T: Value, const N: usize>(
    (rows, cols): (usize, usize),
    read: impl Fn(Range<usize>, &mut [(Vec<T>, Vec<T>); N]) + Sync,
) -> [Comparison; N] {
    let height = rows.div_ceil(4 * rayon::current_num_threads()).max(1);
    let step = (PANEL / cols.max(1)).max(1);
    let parts: Vec<[Part; N]> = (0..rows.div_ceil(height))
        .into_par_iter()
        .map(|i| {
            let range = i * height..rows.min((i + 1) * height);
            let mut parts = std::array::from_fn(|_| Part::new(range.start, range.len(), 0..cols));
            let mut values = std::array::from_fn(|_| (Vec::new(), Vec::new()));
            for first in range.clone().step_by(step) {
                let panel = first..range.end.min(first + step);
                read(panel.clone(), &mut values);
                for (part, (x, y)) in parts.iter_mut().zip(&values) {
                    assert_eq!((x.len(), y.len()), (panel.len() * cols, panel.len() * cols), "values read");
                    for (row, at) in panel.clone().zip((0..).step_by(cols.max(1))) {
                        part.add(row, &x[at..at + cols], &y[at..at + cols]);
                    }
                }
            }
            parts
        })
        .collect();
    let mut of_pairs: [Vec<Part>; N] = std::array::from_fn(|_| Vec::with_capacity(parts.len()));
    for parts in parts {
        of_pairs.iter_mut().zip(parts).for_each(|(pair, part)| pair.push(part));
    }
    of_pairs.map(|parts| Comparison::join((rows, cols), parts))
}

/// Values read at a time, of each matrix and on each core.
const PANEL: usize = 1 << 15;
/// Elements from which on it pays to wake other cores.
const PARALLEL: usize = 1 << 18;
/// Pairs that are added up plainly.
const RUN: usize = 1024;

/// The comparison of a part of two matrices: some rows, some columns.
pub struct Part {
    isa: Isa,
    first_row: usize,
    first_column: usize,
    rows: Vec<Sums>,
    col_error: Vec<f64>,
    col_norm: Vec<f64>,
    nan: u64,
    inf: u64,
    nan_missing: u64,
}

impl Part {
    pub fn new(first_row: usize, rows: usize, columns: Range<usize>) -> Part {
        Part {
            isa: Isa::best(),
            first_row,
            first_column: columns.start,
            rows: vec![Sums::default(); rows],
            col_error: vec![0.0; columns.len()],
            col_norm: vec![0.0; columns.len()],
            nan: 0,
            inf: 0,
            nan_missing: 0,
        }
    }

    /// Adds row `r` of the whole, at the part's columns.
    ///
    /// # Panics
    /// If the row is none of the part's, or not as long as the part is wide.
    pub fn add<X: Value, Y: Value>(&mut self, r: usize, reference: &[X], out: &[Y]) {
        assert_eq!((reference.len(), out.len()), (self.col_error.len(), self.col_error.len()), "columns");
        let row = &mut self.rows[r - self.first_row];
        let columns = self.col_error.chunks_mut(RUN).zip(self.col_norm.chunks_mut(RUN));
        for ((x, y), (error, norm)) in reference.chunks(RUN).zip(out.chunks(RUN)).zip(columns) {
            let sums = multiversion!(
                self.isa, sums_of, [X: Value, Y: Value],
                (x: &[X], y: &[Y], error: &mut [f64], norm: &mut [f64]) -> Option<[f64; 4]>
            );
            match sums {
                Some(sums) => row.carry(sums),
                None => {
                    let (nan, inf) = row.one_by_one(x, y, error, norm);
                    self.nan += nan;
                    self.inf += inf;
                    let missing = x.iter().zip(y).filter(|(x, y)| x.get().is_nan() && !y.get().is_nan());
                    self.nan_missing += missing.count() as u64;
                }
            }
        }
    }
}

/// `|x|²`, `|y|²`, `<x, y>` and `|y - x|²` of a run, the first and the last also added to those of the columns; `None`,
/// and nothing done, where a value is not finite.
#[inline(always)]
fn sums_of<X: Value, Y: Value>(x: &[X], y: &[Y], error: &mut [f64], norm: &mut [f64]) -> Option<[f64; 4]> {
    const LANES: usize = 16;
    let len = x.len();
    let (y, error, norm) = (&y[..len], &mut error[..len], &mut norm[..len]);
    let mut finite = true;
    for (x, y) in x.iter().zip(y) {
        finite &= x.is_finite() & y.is_finite();
    }
    if !finite {
        return None;
    }
    let mut sums = [[0.0; LANES]; 4];
    let whole = len / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (x, y) = (&x[at..at + LANES], &y[at..at + LANES]);
        let (error, norm) = (&mut error[at..at + LANES], &mut norm[at..at + LANES]);
        // A machine does not look beyond the page that it reads, which is about as long as a run.
        prefetch(x.as_ptr().wrapping_add(RUN));
        prefetch(y.as_ptr().wrapping_add(RUN));
        for i in 0..LANES {
            let (x, y) = (x[i].get(), y[i].get());
            let (square, difference) = (x * x, y - x);
            sums[0][i] += square;
            sums[1][i] += y * y;
            sums[2][i] += x * y;
            sums[3][i] += difference * difference;
            norm[i] += square;
            error[i] += difference * difference;
        }
    }
    for i in whole..len {
        let (x, y) = (x[i].get(), y[i].get());
        for (sums, term) in sums.iter_mut().zip([x * x, y * y, x * y, (y - x) * (y - x)]) {
            sums[i - whole] += term;
        }
        norm[i] += x * x;
        error[i] += (y - x) * (y - x);
    }
    Some(sums.map(|lanes| lanes.into_iter().sum()))
}

impl Comparison {
    /// How two matrices of the same bytes compare; their rows are not looked at.
    pub fn of_equals() -> Comparison {
        Comparison { cos: Some(1.0), gain: Some(1.0), rel_l2: Some(0.0), ..Comparison::default() }
    }

    /// The comparison of the whole, from parts that make it up.
    pub fn join((rows, cols): (usize, usize), parts: impl IntoIterator<Item = Part>) -> Comparison {
        let mut result = Comparison {
            col_error: vec![0.0; cols],
            col_norm: vec![0.0; cols],
            row_cos: Vec::with_capacity(rows),
            row_norm: Vec::with_capacity(rows),
            ..Comparison::default()
        };
        let mut of_rows = vec![Sums::default(); rows];
        for part in parts {
            result.nan_unexpected += part.nan;
            result.inf_unexpected += part.inf;
            result.nan_missing += part.nan_missing;
            for (all, of_part) in of_rows[part.first_row..].iter_mut().zip(part.rows) {
                all.merge(&of_part);
            }
            let columns = part.first_column..part.first_column + part.col_error.len();
            let add =
                |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            add(&mut result.col_error[columns.clone()], &part.col_error);
            add(&mut result.col_norm[columns], &part.col_norm);
        }
        let mut total = Sums::default();
        for (r, row) in of_rows.iter().enumerate() {
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
            result.row_norm.push(xx.sqrt());
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
}

impl Comparison {
    /// The cosine of each row, and `|ref|` of it.
    pub fn rows(&self) -> impl Iterator<Item = (Option<f64>, f64)> {
        self.row_cos.iter().copied().zip(self.row_norm.iter().copied())
    }

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

/// Sums over pairs of finite values: `|x|²`, `|y|²`, `<x, y>` and `|y - x|²`.
///
/// Plain float64 sums of 10^7 alike values are wrong in the tenth digit, so short runs are summed plainly and the runs
/// with the error of each addition carried along (Neumaier).
#[derive(Clone, Default)]
struct Sums {
    high: [f64; 4],
    low: [f64; 4],
    broken: bool,
}

impl Sums {
    fn carry(&mut self, terms: [f64; 4]) {
        for (i, term) in terms.into_iter().enumerate() {
            let sum = self.high[i] + term;
            let (large, small) =
                if self.high[i].abs() >= term.abs() { (self.high[i], term) } else { (term, self.high[i]) };
            self.low[i] += (large - sum) + small;
            self.high[i] = sum;
        }
    }

    /// A run in which some values are not finite; how many NaN and Inf were not expected.
    fn one_by_one<X: Value, Y: Value>(
        &mut self,
        x: &[X],
        y: &[Y],
        error: &mut [f64],
        norm: &mut [f64],
    ) -> (u64, u64) {
        let (mut nans, mut infs) = (0, 0);
        for (i, (x, y)) in x.iter().zip(y).map(|(x, y)| (x.get(), y.get())).enumerate() {
            if x.is_finite() && y.is_finite() {
                self.carry([x * x, y * y, x * y, (y - x) * (y - x)]);
                error[i] += (y - x) * (y - x);
                norm[i] += x * x;
                continue;
            }
            let nan = x.is_nan() != y.is_nan();
            let inf = (x.is_infinite() || y.is_infinite()) && x != y && !nan;
            // A NaN where Inf was due, or the reverse, is counted as the NaN.
            nans += u64::from(nan);
            infs += u64::from(inf);
            if nan || inf {
                self.broken = true;
                error[i] = f64::INFINITY;
            }
        }
        (nans, infs)
    }

    fn merge(&mut self, other: &Sums) {
        self.carry(other.high);
        self.carry(other.low);
        self.broken |= other.broken;
    }

    fn totals(&self) -> [f64; 4] {
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
    compare_slices((1, a.len()), a, b).cos
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

    /// Sums in integers: float32 values of limited range, times a power of two, have products of at most 80 bits.
    #[test]
    fn the_cosine_is_right_to_twelve_digits() {
        use crate::case::input::Rng;
        let mut rng = Rng(1);
        let (rows, cols) = (1000, 1003);
        let mut value = || (rng.normal() as f32).clamp(-8.0, 8.0);
        let x: Vec<f32> = (0..rows * cols).map(|_| value()).collect();
        let y: Vec<f32> = x.iter().map(|x| (x * 1.001 + 0.01 * value()).clamp(-8.0, 8.0)).collect();
        let fixed = |x: f32| {
            let units = f64::from(x) * 2f64.powi(48);
            // Finer parts than 2^-48 are none in values above 2^-24; smaller ones become zero.
            if units.fract() == 0.0 { units as i128 } else { 0 }
        };
        let x: Vec<f32> = x.into_iter().map(|x| if fixed(x) == 0 { 0.0 } else { x }).collect();
        let y: Vec<f32> = y.into_iter().map(|y| if fixed(y) == 0 { 0.0 } else { y }).collect();
        let (mut xx, mut yy, mut xy) = (0_i128, 0_i128, 0_i128);
        for (&x, &y) in x.iter().zip(&y) {
            let (x, y) = (fixed(x), fixed(y));
            (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
        }
        let expected = xy as f64 / ((xx as f64).sqrt() * (yy as f64).sqrt());
        let found = compare_slices((rows, cols), &x, &y);
        assert_abs_diff_eq!(found.cos.unwrap(), expected, epsilon = 1e-12);
        assert_abs_diff_eq!(found.gain.unwrap(), xy as f64 / xx as f64, epsilon = 1e-12);
        assert!(found.cos.unwrap() < 0.99996);
        // However the work is shared out.
        assert_abs_diff_eq!(compare_slices((1, rows * cols), &x, &y).cos.unwrap(), expected, epsilon = 1e-12);
    }

    #[test]
    fn every_instruction_set_and_format_gives_the_same_sums() {
        use half::{bf16, f16};
        let x: Vec<f32> = (0..1037).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let y: Vec<f32> = x.iter().map(|x| x + 0.5).collect();
        let sums = |isa: Isa, add: &dyn Fn(&mut Part)| {
            let mut part = Part { isa, ..Part::new(0, 1, 0..x.len()) };
            add(&mut part);
            let totals = part.rows[0].totals();
            (totals, part.col_error)
        };
        let expected = sums(Isa::Plain, &|part| part.add(0, &x, &y));
        assert_eq!(expected.0[3], 1037.0 * 0.25);
        for isa in Isa::available() {
            // Integers and halves of this size are exact in all of these formats.
            let b: Vec<bf16> = y.iter().map(|&y| bf16::from_f32(y)).collect();
            let h: Vec<f16> = y.iter().map(|&y| f16::from_f32(y)).collect();
            let d: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            assert_eq!(sums(isa, &|part| part.add(0, &x, &y)), expected, "{isa:?}");
            assert_eq!(sums(isa, &|part| part.add(0, &d, &b)), expected, "{isa:?}");
            assert_eq!(sums(isa, &|part| part.add(0, &d, &h)), expected, "{isa:?}");
        }
    }
}
