//! In what a kernel sums the products of a matrix product: a number format, or a tensor core with fewer bits than its
//! output has. What error that allows is judged elsewhere.

use super::Matrix;
use crate::dtype::DType;

/// How a kernel accumulates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accumulator {
    /// Every sum is rounded to this format.
    Format(DType),
    TensorCore(TensorCore),
}

impl From<DType> for Accumulator {
    fn from(format: DType) -> Self {
        Accumulator::Format(format)
    }
}

impl From<TensorCore> for Accumulator {
    fn from(core: TensorCore) -> Self {
        Accumulator::TensorCore(core)
    }
}

/// A tensor core that adds the products of one instruction, and the sum so far, in fixed point: all are shifted to the
/// largest exponent among them, and what does not fit is cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorCore {
    /// Products that one instruction adds.
    pub products: usize,
    /// Bits that are kept of the largest summand, its leading one included.
    pub bits: i32,
    /// Products after which the sum moves on to a float32 accumulator outside of the tensor core.
    pub promoted: usize,
}

/// FP8 on NVIDIA's Hopper: 32 products an instruction, 14 bits, where the kernel promotes every 128 products, as
/// block scales make it do (DeepSeek-V3 Technical Report, arXiv:2412.19437, sections 3.3.2 and 3.5.2).
pub const HOPPER_FP8: TensorCore = TensorCore { products: 32, bits: 14, promoted: 128 };

impl TensorCore {
    /// `a · bᵀ` as the tensor core sums it, and for each element the most that it can be off by: all summands of each
    /// instruction lose up to a unit in the last place of the largest. NaN and Inf count as zero.
    pub fn matmul_t(&self, a: &Matrix, b: &Matrix) -> (Matrix, Matrix) {
        let (mut out, mut error) = (Matrix::zeros(a.rows, b.rows), Matrix::zeros(a.rows, b.rows));
        let mut summands = Vec::with_capacity(self.products + 1);
        for r in 0..a.rows {
            for c in 0..b.rows {
                let (x, w) = (a.row(r), b.row(c));
                let (mut total, mut most) = (0.0, 0.0);
                for (x, w) in x.chunks(self.promoted).zip(w.chunks(self.promoted)) {
                    let mut sum = 0.0;
                    for (x, w) in x.chunks(self.products).zip(w.chunks(self.products)) {
                        summands.clear();
                        summands.push(sum);
                        summands.extend(x.iter().zip(w).map(|(x, w)| x * w).filter(|p| p.is_finite()));
                        let largest = summands.iter().fold(0.0_f64, |most, p| most.max(p.abs()));
                        if largest == 0.0 {
                            continue;
                        }
                        // A power of two that has no bit of the mantissa: dividing by it is exact.
                        let ulp = exponent(largest) * 2f64.powi(1 - self.bits);
                        sum = summands.iter().map(|p| (p / ulp).trunc()).sum::<f64>() * ulp;
                        most += summands.len() as f64 * ulp;
                    }
                    total += sum;
                }
                out.row_mut(r)[c] = total;
                error.row_mut(r)[c] = most;
            }
        }
        (out, error)
    }
}

/// The largest power of two that is not above `x`, for a positive normal number.
fn exponent(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Matrix {
        Matrix::new(1, values.len(), values.to_vec())
    }

    #[test]
    fn what_does_not_fit_beside_the_largest_is_cut_off() {
        let core = TensorCore { products: 4, bits: 4, promoted: 8 };
        // Beside 8 the last place is 1.
        let (sum, most) = core.matmul_t(&row(&[8.0, 0.75, 1.5, -1.5]), &row(&[1.0; 4]));
        assert_eq!((sum.data[0], most.data[0]), (8.0, 5.0));
        // The sum so far is a summand of the next instruction; what is promoted is none.
        let ones = |n: usize| row(&vec![1.0; n]);
        let next = [8.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
        assert_eq!(core.matmul_t(&row(&next[..8]), &ones(8)).0.data[0], 8.0);
        assert_eq!(core.matmul_t(&row(&next), &ones(12)).0.data[0], 10.0);
    }

    #[test]
    fn the_error_is_never_more_than_is_said() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 7.0 - 70.0;
        let a = Matrix::new(5, 300, (0..1500).map(value).collect());
        let b = Matrix::new(7, 300, (0..2100).map(|i| value(i + 5)).collect());
        let (sum, most) = HOPPER_FP8.matmul_t(&a, &b);
        let exact = a.matmul_t(&b);
        let off = |i: usize| (sum.data[i] - exact.data[i]).abs();
        assert!((0..35).all(|i| off(i) <= most.data[i] + 1e-6));
        // Seven multiplications of 13 bits and more are not exact.
        assert!((0..35).any(|i| off(i) > 0.0));
    }
}
