//! Data that can reveal a bug.
//!
//! Uniform positive data, or any data whose scales are all alike, lets most layout bugs pass; so inputs here have rows
//! and channels of very different magnitude, outlier channels, both signs, a zero row and a tiny one. A second kind
//! of data makes large terms cancel, which shows in which format a kernel accumulates.

use crate::dtype::DType;
use crate::fuzz::Values;
use crate::reference::Matrix;

/// Which data a run is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Ordinary,
    /// Large terms cancel along K.
    Probe(Probe),
    /// All terms have one sign, so that sums grow as large as they can: a narrow accumulator overflows.
    OneSign,
    /// Rows in turn far above and far below what is usual, as far as an input's own format goes: on its way through a
    /// narrower one such a row overflows, or is flushed. Weights are as on ordinary data.
    Extremes,
}

impl Data {
    /// The data that goes with it for weights and for inputs that are quantised already.
    pub fn of_weights(&self) -> Data {
        match self {
            Data::Extremes => Data::Ordinary,
            data => *data,
        }
    }
}

/// What rows of a wide format are multiplied with at the ends of their range: beyond the largest float16, and where
/// float16 has few bits left.
const FAR: [f64; 2] = [131_072.0, 1.0 / 1_048_576.0];

/// Which part of an input changes its sign in the second half of each pair of blocks.
///
/// A chain that multiplies two halves of its input (SwiGLU) cancels only if one of them does and the other does not;
/// which pattern suits a chain is found by evaluating its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The whole input.
    Whole,
    /// The whole of the first input; others have magnitudes that repeat themselves, as weights have.
    First,
    /// The right half of the columns; the left repeats itself.
    RightHalf,
    /// The left half of the columns; the right repeats itself.
    LeftHalf,
}

impl Probe {
    pub const ALL: [Probe; 4] = [Probe::Whole, Probe::First, Probe::RightHalf, Probe::LeftHalf];
}

/// Columns that mirror each other: the group size of block-scaled formats, so that pairs share no scale cell but have
/// equal ones.
const BLOCK: usize = 128;

/// An input's values, before they are rounded to its format. `first` says whether it is the chain's first input.
pub fn values(name: &str, first: bool, rows: usize, cols: usize, seed: u64, data: &Data) -> Matrix {
    let mut rng = stream(name, seed);
    match data {
        Data::Ordinary => ordinary(rows, cols, &mut rng),
        Data::OneSign => one_sign(rows, cols, &mut rng),
        Data::Extremes => {
            let mut values = ordinary(rows, cols, &mut rng);
            for r in 0..rows {
                values.row_mut(r).iter_mut().for_each(|x| *x *= FAR[r % 2]);
            }
            values
        }
        Data::Probe(Probe::First) if !first => weight_values(ordinary(rows, cols, &mut rng), data),
        Data::Probe(probe) => cancelling(rows, cols, *probe, &mut rng),
    }
}

/// The values of a drawn case's input, before they are rounded to its format.
pub fn drawn(name: &str, (rows, cols): (usize, usize), seed: u64, values: Values) -> Matrix {
    let mut rng = stream(name, seed);
    let mut out = ordinary(rows, cols, &mut rng);
    match values {
        Values::Ordinary => {}
        Values::Tails => {
            let tail = cols - (cols / 16).min(TAIL);
            for r in 0..rows {
                for x in &mut out.row_mut(r)[tail..] {
                    *x *= 16.0;
                }
            }
            out.row_mut(rows - 1).iter_mut().for_each(|x| *x *= 8.0);
        }
        Values::Sparse => {
            for r in 0..rows {
                // No row is zero throughout that would not be so otherwise.
                let kept = rng.below(cols as u64) as usize;
                for (c, x) in out.row_mut(r).iter_mut().enumerate() {
                    if rng.below(16) != 0 && c != kept {
                        *x = 0.0;
                    }
                }
            }
        }
        Values::Ties => {
            for r in 0..rows {
                let format = &TIES[r % TIES.len()];
                for (c, x) in out.row_mut(r).iter_mut().enumerate() {
                    let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
                    // With the largest value of the format in each of its groups, the scale is a power of two.
                    if c % GROUP == 0 {
                        *x = sign * format.largest;
                    } else if rng.below(16) == 0 {
                        *x = sign * format.tie(&mut rng);
                    } else {
                        *x = (*x * format.largest / 8.0).clamp(-format.largest, format.largest);
                    }
                }
            }
        }
    }
    out
}

/// Most columns that are the tail of a row.
const TAIL: usize = 3;
/// Columns of the smallest group that shares a scale, but for those of NVFP4.
const GROUP: usize = 32;

/// A format of few bits, by its largest value and by what is half-way between two of its values.
struct Coarse {
    largest: f64,
    kind: Steps,
}

/// How the values of a coarse format lie.
enum Steps {
    /// This many to each power of two, from the first exponent to the last.
    Binary { to_each: u64, exponents: (i32, i32) },
    /// One for each whole number.
    Whole,
}

/// e4m3fn, e4m3fnuz, int8 and e2m1.
const TIES: [Coarse; 4] = [
    Coarse { largest: 448.0, kind: Steps::Binary { to_each: 8, exponents: (-4, 7) } },
    Coarse { largest: 240.0, kind: Steps::Binary { to_each: 8, exponents: (-4, 6) } },
    Coarse { largest: 127.0, kind: Steps::Whole },
    Coarse { largest: 6.0, kind: Steps::Binary { to_each: 2, exponents: (0, 1) } },
];

impl Coarse {
    /// A positive number half-way between two neighbours.
    fn tie(&self, rng: &mut Rng) -> f64 {
        match self.kind {
            Steps::Whole => rng.below(self.largest as u64) as f64 + 0.5,
            Steps::Binary { to_each, exponents: (first, last) } => {
                let exponent = first + rng.below((last - first) as u64 + 1) as i32;
                let step = (2 * rng.below(to_each) + 1) as f64 / (2 * to_each) as f64;
                2f64.powi(exponent) * (1.0 + step)
            }
        }
    }
}

/// One stream of numbers for each name, whatever the order of declarations.
fn stream(name: &str, seed: u64) -> Rng {
    let start = seed ^ 0x9e37_79b9_7f4a_7c15;
    Rng(name.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
}

/// Normal values, times a lognormal factor for each row and channel; one channel in 48 is an outlier, 16 to 48 times
/// as large. From 8 rows on one is zero, from 16 on one is a thousandth of the others.
pub fn ordinary(rows: usize, cols: usize, rng: &mut Rng) -> Matrix {
    let channel: Vec<f64> = (0..cols)
        .map(|_| {
            let factor = (0.5 * rng.normal()).exp();
            if rng.below(48) == 0 { factor * (16.0 + 32.0 * rng.unit()) } else { factor }
        })
        .collect();
    let mut out = Matrix::zeros(rows, cols);
    for r in 0..rows {
        let mut factor = (0.8 * rng.normal()).exp();
        if rows >= 8 && r == rows / 2 {
            factor = 0.0;
        } else if rows >= 16 && r == rows - 2 {
            factor *= 1e-3;
        }
        for (c, x) in out.row_mut(r).iter_mut().enumerate() {
            *x = rng.normal() * factor * channel[c];
        }
    }
    out
}

/// Logits as a router gives them: a preference for each expert and a deviation for each token, whose softmax has no single
/// winner however many experts there are. From 8 rows on one is zero, so that all of its experts are equal.
pub fn router(name: &str, rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut rng = stream(name, seed);
    let expert: Vec<f64> = (0..cols).map(|_| 0.5 * rng.normal()).collect();
    let mut out = Matrix::zeros(rows, cols);
    for r in 0..rows {
        let factor = if rows >= 8 && r == rows / 2 { 0.0 } else { (0.3 * rng.normal()).exp() };
        for (c, x) in out.row_mut(r).iter_mut().enumerate() {
            *x = factor * (expert[c] + 1.2 * rng.normal());
        }
    }
    out
}

/// Between a half and one, times a lognormal factor for each row.
fn one_sign(rows: usize, cols: usize, rng: &mut Rng) -> Matrix {
    let mut out = Matrix::zeros(rows, cols);
    for r in 0..rows {
        let factor = (0.8 * rng.normal()).exp();
        out.row_mut(r).iter_mut().for_each(|x| *x = factor * (0.5 + 0.5 * rng.unit()));
    }
    out
}

/// Blocks in pairs: the first half of the blocks positive, the second their negatives but for four elements in each
/// row, so that partial sums grow with K while the result stays small.
fn cancelling(rows: usize, cols: usize, probe: Probe, rng: &mut Rng) -> Matrix {
    let mut out = Matrix::zeros(rows, cols);
    let halves: &[(std::ops::Range<usize>, f64)] = &match probe {
        Probe::Whole | Probe::First => vec![(0..cols, -1.0)],
        Probe::RightHalf => vec![(0..cols / 2, 1.0), (cols / 2..cols, -1.0)],
        Probe::LeftHalf => vec![(0..cols / 2, -1.0), (cols / 2..cols, 1.0)],
    };
    for r in 0..rows {
        let row = out.row_mut(r);
        for (range, sign) in halves {
            let part = &mut row[range.clone()];
            let (block, pairs) = mirror(part.len());
            let half = pairs * block;
            for x in part.iter_mut() {
                *x = 1.0 + rng.unit();
            }
            for i in 0..half {
                part[half + i] = sign * part[i];
            }
            // What is left beyond the pairs is small.
            part[2 * half..].iter_mut().for_each(|x| *x *= 2f64.powi(-6));
            if *sign < 0.0 && half >= 8 {
                for _ in 0..4 {
                    let i = half + rng.below(half as u64) as usize;
                    part[i] = -1.0 - rng.unit();
                }
            }
        }
    }
    out
}

/// Length of a block and number of pairs of blocks in `cols` columns.
fn mirror(cols: usize) -> (usize, usize) {
    if cols >= 2 * BLOCK { (BLOCK, cols / (2 * BLOCK)) } else { (1, cols / 2) }
}

/// A weight for the run's kind of data: as it is, or with magnitudes that repeat themselves where the activations
/// change their sign.
pub fn weight_values(mut weight: Matrix, data: &Data) -> Matrix {
    match data {
        Data::Ordinary | Data::Extremes => return weight,
        Data::OneSign => return weight.map(f64::abs),
        Data::Probe(_) => {}
    }
    let (block, pairs) = mirror(weight.cols);
    let half = block * pairs;
    for r in 0..weight.rows {
        let row = weight.row_mut(r);
        row.iter_mut().for_each(|x| *x = x.abs());
        for i in 0..half {
            row[half + i] = row[i];
        }
    }
    weight
}

/// Puts codes into an 8-bit weight `[rows, cols]` that only some formats read alike: `0x00`, `0x7f`, `0x80`, `0xff`.
/// Those that are finite go into ordinary data; NaN and Inf, which spread over a whole output column, into the probe.
/// Returns the indices of the elements that changed.
pub fn inject_specials(
    dtype: DType,
    (rows, cols): (usize, usize),
    codes: &mut [u8],
    data: &Data,
) -> Vec<usize> {
    if dtype.bits() != 8 || rows < 8 || *data == Data::OneSign {
        return Vec::new();
    }
    let mut changed = Vec::new();
    for (i, code) in [0x00_u8, 0x7f, 0x80, 0xff, 0x7c].into_iter().enumerate() {
        let finite = dtype.decode(code.into()).is_finite();
        if finite != (*data == Data::Ordinary) {
            continue;
        }
        let (row, col) = (rows / 8 * (i + 1), (cols / 7 * (i + 1)) % cols);
        let at = row * cols + col;
        codes[at] = code;
        changed.push(at);
    }
    changed
}

/// SplitMix64: the same numbers on every machine.
pub struct Rng(pub u64);

impl Rng {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * 2f64.powi(-53)
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_data_has_spread_signs_a_zero_row_and_a_tiny_one() {
        let x = values("x", true, 33, 384, 0, &Data::Ordinary);
        let norm = |r: usize| x.row(r).iter().map(|v| v * v).sum::<f64>().sqrt();
        assert_eq!(norm(16), 0.0);
        assert!(norm(31) < 0.05 * norm(30));
        let norms: Vec<f64> = (0..33).filter(|r| ![16, 31].contains(r)).map(norm).collect();
        let (low, high) =
            (norms.iter().copied().fold(f64::MAX, f64::min), norms.iter().copied().fold(0.0, f64::max));
        assert!(high > 5.0 * low);
        assert!(x.data.iter().any(|v| *v < 0.0) && x.data.iter().any(|v| *v > 0.0));
        assert_eq!(x, values("x", true, 33, 384, 0, &Data::Ordinary), "the same seed gives the same data");
        assert_ne!(x, values("x", true, 33, 384, 1, &Data::Ordinary));
        assert_ne!(x, values("y", true, 33, 384, 0, &Data::Ordinary));
    }

    #[test]
    fn drawn_values_are_finite_and_of_the_kind_that_was_asked_for() {
        for (rows, cols) in [(1, 1), (1, 7), (5, 96), (33, 384)] {
            for values in Values::ALL {
                let x = drawn("x", (rows, cols), 7, values);
                assert!(x.data.iter().all(|v| v.is_finite() && v.abs() < 65504.0), "{values:?}");
                assert_eq!(x, drawn("x", (rows, cols), 7, values), "the same seed gives the same data");
                assert!(x.data.iter().any(|v| *v != 0.0), "{values:?} [{rows}, {cols}]");
            }
        }
        let zeros = |x: &Matrix| x.data.iter().filter(|v| **v == 0.0).count();
        assert!(zeros(&drawn("x", (33, 384), 7, Values::Sparse)) > 33 * 384 * 8 / 10);
        let norm = |x: &Matrix, r: usize| x.row(r).iter().map(|v| v * v).sum::<f64>().sqrt();
        let tails = drawn("x", (33, 384), 7, Values::Tails);
        assert_eq!(
            norm(&tails, 32),
            8.0 * {
                let mut row = drawn("x", (33, 384), 7, Values::Ordinary).row(32).to_vec();
                row[381..].iter_mut().for_each(|v| *v *= 16.0);
                row.iter().map(|v| v * v).sum::<f64>().sqrt()
            }
        );
        // Each tie is exact in bfloat16, and half-way between two codes of its row's format.
        use crate::dtype::{BF16, E2M1, E4M3FN, E4M3FNUZ, INT8};
        let ties = drawn("x", (8, 384), 7, Values::Ties);
        for (r, dtype) in [E4M3FN, E4M3FNUZ, INT8, E2M1].into_iter().enumerate() {
            let between = ties.row(r).iter().filter(|x| {
                let near = |by: f64| dtype.nearest(**x * (1.0 + by));
                BF16.nearest(**x) == **x && near(1e-9) - **x == **x - near(-1e-9) && near(1e-9) != **x
            });
            assert!(between.count() > 10, "{dtype}");
            assert!(ties.row(r).iter().all(|x| x.abs() <= dtype.nearest(x.abs().max(6.0)).max(448.0)));
        }
    }

    #[test]
    fn a_router_s_logits_have_no_single_winner() {
        for (seed, experts) in [(0, 8), (1, 128), (2, 128), (3, 512)] {
            let logits = router("logits", 33, experts, seed);
            for r in 0..33 {
                let most = logits.row(r).iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.row(r).iter().map(|x| (x - most).exp()).sum();
                assert!(1.0 / sum < 0.95, "row {r} of {experts} experts: {}", 1.0 / sum);
            }
        }
    }

    #[test]
    fn terms_of_one_sign_sum_up_beyond_int16_and_float16() {
        use crate::dtype::{E4M3FN, INT8};
        use crate::quant::{Quant, quantize};
        let x = values("x", true, 4, 384, 0, &Data::OneSign);
        let w = weight_values(ordinary(16, 384, &mut Rng(5)), &Data::OneSign);
        assert!(x.data.iter().chain(&w.data).all(|v| *v >= 0.0));
        for (dtype, most) in [(INT8, 32767.0), (E4M3FN, 65504.0)] {
            let scheme = Quant::token(dtype);
            let codes = |m: &Matrix| {
                let q = quantize(m, &scheme, 1.0);
                Matrix::new(m.rows, m.cols, q.codes.iter().map(|c| dtype.decode(*c)).collect())
            };
            let sums = codes(&x).matmul_t(&codes(&w));
            assert!(sums.data.iter().any(|s| *s > most), "{dtype}");
        }
    }

    #[test]
    fn the_probe_cancels_by_two_orders_of_magnitude() {
        for (cols, least) in [(384, 50.0), (1536, 50.0), (96, 10.0)] {
            let x = values("x", true, 4, cols, 0, &Data::Probe(Probe::Whole));
            let w = weight_values(ordinary(16, cols, &mut Rng(5)), &Data::Probe(Probe::Whole));
            let product = x.matmul_t(&w).norm();
            let magnitude = x.map(f64::abs).matmul_t(&w.map(f64::abs)).norm();
            assert!(magnitude > least * product, "{cols}: {magnitude} {product}");
        }
    }
}
