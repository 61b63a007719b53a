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

/// A tensor core, or matrix core, that adds a group of products in fixed point: they are shifted to the largest exponent
/// among them, and what does not fit is cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorCore {
    /// Products of a group.
    pub products: usize,
    /// Bits that are kept of the largest summand, its leading one included.
    pub bits: i32,
    /// Products after which the sum moves on to a float32 accumulator outside of the tensor core; `usize::MAX` if it
    /// stays, whose error is the larger one.
    pub promoted: usize,
    pub sums: Sums,
}

/// How the products of a group join the sum so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// It is one more summand of the group, and is cut off as they are.
    CutOff,
    /// The group has a sum of its own. The sum so far is rounded down to its last place, or to the last place that it
    /// has in these bits itself, both are added, and that is rounded to float32.
    Rounded,
}

/// FP8 on NVIDIA's Hopper: 32 products an instruction, 14 bits, where the kernel promotes every 128 products, as
/// block scales make it do (DeepSeek-V3 Technical Report, arXiv:2412.19437, sections 3.3.2 and 3.5.2).
pub const HOPPER_FP8: TensorCore = TensorCore { products: 32, bits: 14, promoted: 128, sums: Sums::CutOff };

/// FP8 and BF8 on AMD's CDNA3 (MMA-Sim, arXiv:2511.10909).
pub const CDNA3_FP8: TensorCore =
    TensorCore { products: 16, bits: 25, promoted: usize::MAX, sums: Sums::Rounded };
/// Float16 on CDNA3.
pub const CDNA3_F16: TensorCore = TensorCore { products: 8, ..CDNA3_FP8 };
/// Bfloat16 on CDNA3.
pub const CDNA3_BF16: TensorCore = CDNA3_F16;
/// FP8 and the MX formats on AMD's CDNA4, whose arithmetic is not published: as CDNA3 does it.
pub const CDNA4_FP8: TensorCore = CDNA3_FP8;
/// Float16 on CDNA4, as CDNA3 does it.
pub const CDNA4_F16: TensorCore = CDNA3_F16;
/// Bfloat16 on CDNA4, as CDNA3 does it.
pub const CDNA4_BF16: TensorCore = CDNA3_BF16;

/// Half a unit in the last place of float32, relative to the value.
const HALF_ULP: f64 = 1.0 / (1 << 24) as f64;

impl TensorCore {
    /// The relative error of one sum.
    pub fn unit(&self) -> f64 {
        match self.sums {
            Sums::CutOff => 2f64.powi(-self.bits),
            Sums::Rounded => 2f64.powi(-self.bits).max(HALF_ULP),
        }
    }

    /// `a · bᵀ` as the tensor core sums it, and for each element the most that it can be off by. NaN and Inf count as
    /// zero.
    pub fn matmul_t(&self, a: &Matrix, b: &Matrix) -> (Matrix, Matrix) {
        match self.sums {
            Sums::CutOff => self.cut_off(a, b),
            Sums::Rounded => self.rounded(a, b),
        }
    }

    /// All summands of each group lose up to a unit in the last place of the largest.
    fn cut_off(&self, a: &Matrix, b: &Matrix) -> (Matrix, Matrix) {
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

    /// The bound holds for any order of the products that are summed before they are promoted, since it is the kernel
    /// that chooses which of them meet in a group.
    ///
    /// A product loses less than a unit, which is at most `u = 2^(1 - bits)` of the largest product of its group. The
    /// sums of even and odd products lose one unit each when they are joined. The sum so far loses one where the group
    /// has a larger exponent, and nothing where it has the larger one itself, since all its bits are kept then; their
    /// sum, which keeps seven bits more than float32, loses far less than another one. The largest products of all groups
    /// together are no more than all magnitudes together, nor than the largest of all for each group. With each group,
    /// the sum is rounded to float32; in any order it lies between the sum of all that is negative and the sum of all
    /// that is positive.
    ///
    /// Where the largest exponent of a group belongs to a factor that is subnormal in its format, the unit is that of the
    /// format's least normal number. E4M3 loses nothing then: no product of it is far enough below.
    fn rounded(&self, a: &Matrix, b: &Matrix) -> (Matrix, Matrix) {
        let u = 2f64.powi(1 - self.bits);
        let (mut out, mut error) = (Matrix::zeros(a.rows, b.rows), Matrix::zeros(a.rows, b.rows));
        for r in 0..a.rows {
            for c in 0..b.rows {
                let (x, w) = (a.row(r), b.row(c));
                let (mut total, mut most) = (0.0, 0.0);
                let (mut all, mut promotions) = (Extent::default(), 0.0);
                for (x, w) in x.chunks(self.promoted).zip(w.chunks(self.promoted)) {
                    let (mut sum, mut extent, mut groups) = (0.0, Extent::default(), 0.0);
                    for (x, w) in x.chunks(self.products).zip(w.chunks(self.products)) {
                        sum = add_group(x, w, sum, u, &mut extent);
                        groups += 1.0;
                    }
                    let largest = (groups * extent.largest).min(extent.positive + extent.negative);
                    most += u * (self.products as f64 + 4.0) * largest;
                    most += groups * HALF_ULP * (1.0 + 2f64.powi(-6)) * extent.most();
                    total += sum;
                    all.add(&extent);
                    promotions += 1.0;
                }
                if promotions > 1.0 {
                    // A multiplication by a scale and an addition.
                    most += 2.0 * promotions * HALF_ULP * all.most();
                }
                out.row_mut(r)[c] = total;
                error.row_mut(r)[c] = most;
            }
        }
        (out, error)
    }
}

/// Sums of positive and of negative products, as magnitudes, and the largest magnitude.
#[derive(Default)]
struct Extent {
    positive: f64,
    negative: f64,
    largest: f64,
}

impl Extent {
    fn product(&mut self, product: f64) {
        let sum = if product < 0.0 { &mut self.negative } else { &mut self.positive };
        *sum += product.abs();
        self.largest = self.largest.max(product.abs());
    }

    fn add(&mut self, other: &Extent) {
        self.positive += other.positive;
        self.negative += other.negative;
    }

    /// The most that a sum of some of the products can be.
    fn most(&self) -> f64 {
        self.positive.max(self.negative)
    }
}

/// The sum so far after one more group.
fn add_group(x: &[f64], w: &[f64], sum: f64, u: f64, extent: &mut Extent) -> f64 {
    let products = || x.iter().zip(w).map(|(x, w)| x * w).filter(|p| p.is_finite());
    let mut largest = 0.0_f64;
    for product in products() {
        extent.product(product);
        largest = largest.max(product.abs());
    }
    if largest == 0.0 {
        return sum;
    }
    let unit = exponent(largest) * u;
    let group = products().map(|p| (p / unit).trunc()).sum::<f64>() * unit;
    let unit = exponent(largest.max(sum.abs())) * u;
    let added = (sum / unit).floor() * unit + group;
    if added == 0.0 {
        return 0.0;
    }
    // To the 24 bits of float32, whose range the scales may leave here and not in a kernel.
    let ulp = exponent(added.abs()) * 2.0 * HALF_ULP;
    (added / ulp).round_ties_even() * ulp
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
        let core = TensorCore { products: 4, bits: 4, promoted: 8, sums: Sums::CutOff };
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

    /// A row times a column whose products are summed in an order of their own.
    fn shuffled(core: &TensorCore, x: &[f64], w: &[f64], seed: u64) -> (f64, f64) {
        let mut order: Vec<usize> = (0..x.len()).collect();
        let mut state = seed;
        for i in (1..order.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            order.swap(i, (state >> 33) as usize % (i + 1));
        }
        let pick = |of: &[f64]| row(&order.iter().map(|&i| of[i]).collect::<Vec<f64>>());
        let (sum, most) = core.matmul_t(&pick(x), &pick(w));
        (sum.data[0], most.data[0])
    }

    #[test]
    fn the_bound_of_a_matrix_core_holds_for_any_order() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 512.0 - 1.0;
        let scaled = |i: usize| value(i) * 2f64.powi((i * 31 % 17) as i32);
        let (k, mut inexact) = (1024, 0);
        for core in [CDNA3_FP8, CDNA3_BF16, TensorCore { promoted: 128, ..CDNA3_FP8 }] {
            for first in 0..4 {
                let mut x: Vec<f64> = (0..k).map(|i| scaled(i + first)).collect();
                let mut w: Vec<f64> = (0..k).map(|i| value(3 * i + first)).collect();
                if first == 3 {
                    // All of it cancels but for the order.
                    (0..k / 2).for_each(|i| (x[k / 2 + i], w[k / 2 + i]) = (x[i], -w[i]));
                }
                let exact: f64 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
                let (_, most) = shuffled(&core, &x, &w, 0);
                for seed in 1..50 {
                    let (sum, _) = shuffled(&core, &x, &w, seed);
                    assert!((sum - exact).abs() <= most, "{core:?} {first} {seed}: {sum} {exact} {most}");
                    inexact += usize::from((sum - exact).abs() > 0.0);
                }
            }
        }
        assert!(inexact > 500, "{inexact} of 588");
    }

    #[test]
    fn the_bound_of_a_matrix_core_is_below_the_one_of_float32() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 512.0 - 1.0;
        for (core, factor) in [(CDNA3_FP8, 3.0), (CDNA3_BF16, 1.5)] {
            let k = 2048;
            let a = Matrix::new(1, k, (0..k).map(value).collect());
            let b = Matrix::new(1, k, (0..k).map(|i| value(i + 77)).collect());
            let (_, most) = core.matmul_t(&a, &b);
            let magnitude: f64 = a.data.iter().zip(&b.data).map(|(a, b)| (a * b).abs()).sum();
            let wide = 8.0 * HALF_ULP * (k as f64).sqrt() * magnitude;
            assert!(most.data[0] * factor < wide, "{core:?}: {} against {wide}", most.data[0]);
        }
    }

    #[test]
    fn a_group_is_cut_off_and_the_sum_so_far_goes_down() {
        let u = 2f64.powi(-24);
        let sum = |x: &[f64], sum| add_group(x, &vec![1.0; x.len()], sum, u, &mut Extent::default());
        assert_eq!(sum(&[1.0, u, -1.0], 0.0), u);
        assert_eq!(sum(&[1.0, u / 2.0, -1.0], 0.0), 0.0);
        assert_eq!(sum(&[1.0, -u / 2.0, -1.0], 0.0), 0.0);
        assert_eq!(sum(&[1.0, -1.0], -u / 4.0), -u);
        // Rounded to float32, ties to even.
        assert_eq!(sum(&[u], 1.0), 1.0);
        assert_eq!(sum(&[3.0 * u], 1.0), 1.0 + 4.0 * u);
    }
}
