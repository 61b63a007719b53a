//! Where a buffer is wrong and by how much, as a picture of bounded size: what a report draws. In words it is
//! `diagnose`'s.

use crate::reference::Matrix;
use serde::{Deserialize, Serialize};

/// Tiles along a side.
const TILES: usize = 32;
/// Bars of the profile of rows.
const ROWS: usize = 128;
/// Finite classes of errors above none: half a decade each, from 10^-8 on.
const CLASSES: usize = 20;

/// The error of a buffer over tiles, rows and size. The reference is not rounded to the buffer's format, so that the
/// format's own rounding is part of the error.
///
/// A relative error is `|out - ref| / |ref|` in L2, `null` where that is not finite: an unexpected NaN or Inf, or
/// something where the reference is zero. Three digits are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorMap {
    /// Shape of the buffer.
    pub rows: usize,
    pub cols: usize,
    /// Shape of a tile, powers of two as kernels' tiles are; the last ones may be cut short.
    pub tile_rows: usize,
    pub tile_cols: usize,
    /// Relative error of each tile, row by row: at most 32 by 32.
    pub tiles: Vec<Option<f32>>,
    /// Rows that share a bar of the profile: one, where there are no more than 128.
    pub row_group: usize,
    /// Relative error of the worst row of each group.
    pub row_errors: Vec<Option<f32>>,
    /// Elements by `|out - ref|` in units of the reference's root mean square: equal ones; then below 10^-7.5 and half a
    /// decade more each, up to below 10^2; then all larger ones. NaN and Inf where they are due are equal.
    pub histogram: Vec<u64>,
    /// Elements with an unexpected NaN or Inf.
    pub not_finite: u64,
}

impl ErrorMap {
    /// # Panics
    /// If the shapes differ.
    pub fn new(reference: &Matrix, out: &Matrix) -> ErrorMap {
        let (rows, cols) = (reference.rows, reference.cols);
        assert_eq!((rows, cols), (out.rows, out.cols), "shapes of reference and output");
        let tile = |n: usize| n.div_ceil(TILES).max(1).next_power_of_two();
        let (tile_rows, tile_cols) = (tile(rows), tile(cols));
        let across = cols.div_ceil(tile_cols);
        let mut tiles = vec![Sums::default(); rows.div_ceil(tile_rows) * across];
        let row_group = rows.div_ceil(ROWS).max(1);
        let mut worst_rows = vec![Some(0.0); rows.div_ceil(row_group)];
        let finite = || reference.data.iter().filter(|x| x.is_finite());
        let rms = (finite().map(|x| x * x).sum::<f64>() / finite().count().max(1) as f64).sqrt();
        let mut map = ErrorMap { rows, cols, tile_rows, tile_cols, row_group, ..ErrorMap::default() };
        map.histogram = vec![0; CLASSES + 2];
        for r in 0..rows {
            let mut of_row = Sums::default();
            for c in 0..cols {
                let (x, y) = (reference.data[r * cols + c], out.data[r * cols + c]);
                let tile = &mut tiles[r / tile_rows * across + c / tile_cols];
                if x.is_finite() && y.is_finite() {
                    tile.add(x, y);
                    of_row.add(x, y);
                    map.histogram[class((y - x).abs(), rms)] += 1;
                } else if x == y || x.is_nan() && y.is_nan() {
                    map.histogram[0] += 1;
                } else {
                    (tile.broken, of_row.broken) = (true, true);
                    map.not_finite += 1;
                }
            }
            let worst = &mut worst_rows[r / row_group];
            *worst = worst.zip(of_row.relative()).map(|(a, b): (f64, f64)| a.max(b));
        }
        map.tiles = tiles.iter().map(|t| t.relative().map(short)).collect();
        map.row_errors = worst_rows.into_iter().map(|e| e.map(short)).collect();
        map
    }
}

/// Index into the histogram.
fn class(error: f64, rms: f64) -> usize {
    if error == 0.0 {
        return 0;
    }
    // Against a reference of zeros every error is as large as can be.
    let halves = (2.0 * ((error / rms).log10() + 8.0)).floor();
    1 + halves.clamp(0.0, CLASSES as f64) as usize
}

/// Three digits: what a picture shows.
fn short(error: f64) -> f32 {
    format!("{error:.2e}").parse().expect("a number that was written as one")
}

#[derive(Clone, Default)]
struct Sums {
    reference: f64,
    difference: f64,
    broken: bool,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        self.reference += x * x;
        self.difference += (y - x) * (y - x);
    }

    fn relative(&self) -> Option<f64> {
        let error = if self.difference == 0.0 { 0.0 } else { (self.difference / self.reference).sqrt() };
        (!self.broken && error.is_finite()).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_in_its_tile_its_row_and_its_class() {
        let reference = Matrix::new(40, 300, vec![2.0; 40 * 300]);
        let mut out = reference.clone();
        out.data[39 * 300 + 17] = 2.02;
        let map = ErrorMap::new(&reference, &out);
        assert_eq!((map.tile_rows, map.tile_cols, map.row_group), (2, 16, 1));
        assert_eq!((map.tiles.len(), map.row_errors.len()), (20 * 19, 40));
        // One of 32 elements is off by 1 %: 0.01 / sqrt(32).
        let wrong: Vec<_> = map.tiles.iter().enumerate().filter(|(_, e)| **e != Some(0.0)).collect();
        assert_eq!(wrong, [(19 * 19 + 1, &Some(1.77e-3_f32))]);
        assert_eq!(map.row_errors[39], Some(5.77e-4));
        assert!(map.row_errors[..39].iter().all(|e| *e == Some(0.0)));
        // 10^-2 begins the class up to 10^-1.5; what 2.02 - 2 is in float64 lies just above it.
        assert_eq!((map.histogram[0], map.histogram[13]), (40 * 300 - 1, 1));
        assert_eq!(map.histogram.iter().sum::<u64>() + map.not_finite, 40 * 300);
    }

    #[test]
    fn what_has_no_relative_error_is_null_and_counted() {
        let reference = Matrix::new(3, 2, vec![1.0, f64::NAN, 0.0, 0.0, 1.0, 1.0]);
        let out = Matrix::new(3, 2, vec![1.0, f64::NAN, 0.5, 0.0, f64::INFINITY, 1.0]);
        let map = ErrorMap::new(&reference, &out);
        assert_eq!(map.row_errors, [Some(0.0), None, None]);
        assert_eq!(map.tiles, [Some(0.0), Some(0.0), None, Some(0.0), None, Some(0.0)]);
        assert_eq!((map.not_finite, map.histogram[0]), (1, 4));
    }

    #[test]
    fn it_stays_small_however_large_the_buffer() {
        for (rows, cols) in [(1, 1), (33, 384), (4099, 7), (1, 100_000), (513, 513)] {
            let reference = Matrix::new(rows, cols, vec![1.0; rows * cols]);
            let map = ErrorMap::new(&reference, &reference.map(|x| 1.01 * x));
            assert!(map.tiles.len() <= TILES * TILES && map.row_errors.len() <= ROWS, "{rows}x{cols}");
            assert!(map.tiles.iter().all(|e| e.is_some_and(|e| (e - 0.01).abs() < 1e-4)), "{rows}x{cols}");
            let back: ErrorMap = serde_json::from_str(&serde_json::to_string(&map).unwrap()).unwrap();
            assert_eq!(back, map);
        }
        let nothing = Matrix::new(0, 5, Vec::new());
        assert_eq!(ErrorMap::new(&nothing, &nothing).tiles, []);
    }

    #[test]
    fn against_zeros_every_error_is_the_largest() {
        let zeros = Matrix::new(1, 3, vec![0.0; 3]);
        let map = ErrorMap::new(&zeros, &Matrix::new(1, 3, vec![0.0, 1e-30, 1.0]));
        assert_eq!((map.histogram[0], map.histogram[CLASSES + 1]), (1, 2));
    }
}
