//! Dense float64 matrices and their product.

use std::ops::Range;

/// A row-major `[rows, cols]` matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f64>,
}

impl Matrix {
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// # Panics
    /// If `data` does not hold `rows * cols` values.
    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Matrix {
        assert_eq!(data.len(), rows * cols, "a {rows}x{cols} matrix");
        Matrix { rows, cols, data }
    }

    pub fn row(&self, r: usize) -> &[f64] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    pub fn row_mut(&mut self, r: usize) -> &mut [f64] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Matrix {
        Matrix { rows: self.rows, cols: self.cols, data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// The given columns.
    pub fn columns(&self, range: Range<usize>) -> Matrix {
        let data = (0..self.rows).flat_map(|r| self.row(r)[range.clone()].iter().copied()).collect();
        Matrix { rows: self.rows, cols: range.len(), data }
    }

    /// The first `n` rows, all if there are fewer.
    pub fn head(&self, n: usize) -> Matrix {
        let rows = self.rows.min(n);
        Matrix { rows, cols: self.cols, data: self.data[..rows * self.cols].to_vec() }
    }

    pub fn transposed(&self) -> Matrix {
        let mut out = Matrix::zeros(self.cols, self.rows);
        for r in 0..self.rows {
            for c in 0..self.cols {
                out.data[c * self.rows + r] = self.data[r * self.cols + c];
            }
        }
        out
    }

    /// Root of the sum of squares over finite elements.
    pub fn norm(&self) -> f64 {
        self.data.iter().filter(|x| x.is_finite()).map(|x| x * x).sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_the_sum_of_products() {
        for (m, n, k) in [(1, 1, 1), (1, 7, 5), (3, 1, 130), (17, 19, 23), (33, 65, 129)] {
            let value = |i: usize| ((i * 7919 + 13) % 101) as f64 - 50.0;
            let a = Matrix::new(m, k, (0..m * k).map(value).collect());
            let b = Matrix::new(n, k, (0..n * k).map(|i| value(i + 31)).collect());
            let product = a.matmul_t(&b);
            for r in 0..m {
                for c in 0..n {
                    // Integers of this size are exact in any order of summation.
                    let expected: f64 = (0..k).map(|i| a.row(r)[i] * b.row(c)[i]).sum();
                    assert_eq!(product.row(r)[c], expected, "{m}x{n}x{k} at {r},{c}");
                }
            }
        }
    }

    #[test]
    fn nan_stays_in_its_row_and_column() {
        let mut b = Matrix::new(5, 9, vec![1.0; 45]);
        b.data[2 * 9 + 4] = f64::NAN;
        let product = Matrix::new(3, 9, vec![1.0; 27]).matmul_t(&b);
        for r in 0..3 {
            for c in 0..5 {
                assert_eq!(product.row(r)[c].is_nan(), c == 2, "{r},{c}");
            }
        }
    }
}
