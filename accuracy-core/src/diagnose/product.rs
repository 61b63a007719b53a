//! Wrong ways to sum up the terms of a product, as a computation.

use crate::dtype::DType;
use crate::reference::Matrix;
use std::ops::Range;

/// A wrong way to sum up `sum over k of a[k] * b[k]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Product {
    /// The terms of `range` counted so many times.
    Weighted { range: Range<usize>, times: f64 },
    /// Each tile of K counted so many times.
    Tiles { tile: usize, counts: Vec<f64> },
    /// Of every `period` terms these are left out.
    Periodic { period: usize, out: Range<usize> },
    /// The kernel runs on to this length, into what follows each row in memory; beyond the end of a buffer it may find 0,
    /// as a bounded load does.
    Overrun { to: usize, zeros: bool },
    /// The sum rounded to a format after every `block` terms, from the first to the last.
    Rounded { to: DType, block: usize },
    /// Parts of K summed up apart, each rounded to a format, then their sums, which are rounded as well.
    SplitK { to: DType, parts: usize },
    /// Parts of so many terms rounded to a format, and added up exactly.
    Parts { to: DType, block: usize },
    /// Codes of each scale's group multiplied and summed up before they are scaled, in too narrow a format.
    Codes(Narrow),
}

/// Formats in which codes are summed up that do not hold their sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Narrow {
    /// Rounded after every term, to Inf beyond 65504.
    F16,
    Bf16,
    /// The sum of a group rounded once.
    GroupF16,
    GroupBf16,
    /// Integers of so many bits, which wrap around or saturate.
    Wrapping(u32),
    Saturating(u32),
    /// Each two products added in 16 bits, which saturate, the first operand 128 higher than it is: bytes without a sign
    /// times bytes with one.
    Pairs,
    /// The product of both scales rounded, the sum of codes not.
    ScalesF16,
    ScalesBf16,
}

impl Narrow {
    pub const ALL: [Narrow; 15] = [
        Narrow::F16,
        Narrow::Bf16,
        Narrow::GroupF16,
        Narrow::GroupBf16,
        Narrow::Wrapping(16),
        Narrow::Saturating(16),
        Narrow::Wrapping(20),
        Narrow::Saturating(20),
        Narrow::Saturating(21),
        Narrow::Saturating(22),
        Narrow::Wrapping(24),
        Narrow::Saturating(24),
        Narrow::Pairs,
        Narrow::ScalesF16,
        Narrow::ScalesBf16,
    ];

    pub fn words(self) -> (&'static str, String) {
        let sums = |how: &str| format!("sums up the codes of each group {how}");
        match self {
            Narrow::F16 => ("overflow", sums("in float16, which ends at 65504")),
            Narrow::Bf16 => ("accumulation", sums("in bfloat16")),
            Narrow::GroupF16 => {
                ("overflow", sums("and rounds the sum of each group to float16, which ends at 65504"))
            }
            Narrow::GroupBf16 => ("accumulation", sums("and rounds the sum of each group to bfloat16")),
            Narrow::Wrapping(bits) => ("overflow", sums(&format!("in {bits} bits, which wrap around"))),
            Narrow::Saturating(bits) => ("overflow", sums(&format!("in {bits} bits, which saturate"))),
            Narrow::Pairs => (
                "overflow",
                sums("by twos in 16 bits, which saturate, 128 added to those of the first operand"),
            ),
            Narrow::ScalesF16 => ("rounding", "rounds the product of both scales to float16".into()),
            Narrow::ScalesBf16 => ("rounding", "rounds the product of both scales to bfloat16".into()),
        }
    }

    /// The scale of a group of both operands.
    pub fn scale(self, scale: f64) -> f64 {
        match self {
            Narrow::ScalesF16 => narrow(DType::F16)(scale),
            Narrow::ScalesBf16 => narrow(DType::BF16)(scale),
            _ => scale,
        }
    }

    /// The sum of a group.
    pub fn sum(self, a: &[f64], b: &[f64]) -> f64 {
        let f16 = narrow(DType::F16);
        let bf16 = narrow(DType::BF16);
        match self {
            Narrow::F16 => a.iter().zip(b).fold(0.0, |sum, (x, y)| f16(sum + x * y)),
            Narrow::Bf16 => a.iter().zip(b).fold(0.0, |sum, (x, y)| bf16(sum + x * y)),
            Narrow::GroupF16 => f16(dot(a, b)),
            Narrow::GroupBf16 => bf16(dot(a, b)),
            Narrow::ScalesF16 | Narrow::ScalesBf16 => dot(a, b),
            Narrow::Pairs => {
                let pair = |(x, y): (&[f64], &[f64])| {
                    let beyond: f64 = y.iter().map(|y| 128.0 * y).sum();
                    (dot(x, y) + beyond).clamp(-32768.0, 32767.0) - beyond
                };
                a.chunks(2).zip(b.chunks(2)).map(pair).sum()
            }
            Narrow::Wrapping(bits) => {
                let (sum, range) = (dot(a, b), 2f64.powi(bits as i32));
                sum - range * (sum / range).round()
            }
            Narrow::Saturating(bits) => {
                let most = 2f64.powi(bits as i32 - 1) - 1.0;
                a.iter().zip(b).fold(0.0, |sum: f64, (x, y)| (sum + x * y).clamp(-most - 1.0, most))
            }
        }
    }
}

impl Product {
    /// Whether it counts terms otherwise and sums them up as it should.
    pub fn only_weights(&self) -> bool {
        matches!(self, Product::Weighted { .. } | Product::Tiles { .. } | Product::Periodic { .. })
    }

    /// How many columns beyond `k` the kernel reads.
    pub fn beyond(&self, k: usize) -> usize {
        match self {
            Product::Overrun { to, .. } => to.saturating_sub(k),
            _ => 0,
        }
    }

    /// `a` with the columns weighted as the product counts them; `None` if more than that is wrong.
    pub fn weighted(&self, mut a: Matrix, k: usize) -> Option<Matrix> {
        for r in 0..a.rows {
            let row = a.row_mut(r);
            match self {
                Product::Weighted { range, times } => {
                    row[range.start.min(k)..range.end.min(k)].iter_mut().for_each(|x| *x *= times);
                }
                Product::Tiles { tile, counts } => {
                    for (part, count) in row.chunks_mut(*tile).zip(counts) {
                        part.iter_mut().for_each(|x| *x *= count);
                    }
                }
                Product::Periodic { period, out } => {
                    let left_out = row.iter_mut().enumerate().filter(|(i, _)| out.contains(&(i % period)));
                    left_out.for_each(|(_, x)| *x = 0.0);
                }
                _ => return None,
            }
        }
        Some(a)
    }

    /// `a · bᵀ`, wrongly.
    pub fn of(&self, a: &Matrix, b: &Matrix, k: usize) -> Matrix {
        match self {
            // Of operands that are no codes with scales there is nothing to leave for later.
            Product::Overrun { .. } | Product::Codes(_) => times(a, b),
            Product::Weighted { .. } | Product::Tiles { .. } | Product::Periodic { .. } => {
                self.weighted(a.clone(), k).map_or_else(|| times(a, b), |a| times(&a, b))
            }
            Product::Parts { to, block } => {
                let narrow = narrow(*to);
                each(a, b, |x, y| {
                    x.chunks(*block).zip(y.chunks(*block)).map(|(x, y)| narrow(dot(x, y))).sum()
                })
            }
            Product::Rounded { to, block } => {
                let narrow = narrow(*to);
                each(a, b, |x, y| {
                    x.chunks(*block).zip(y.chunks(*block)).fold(0.0, |sum, (x, y)| narrow(sum + dot(x, y)))
                })
            }
            Product::SplitK { to, parts } => {
                let narrow = narrow(*to);
                let part = k.div_ceil(*parts).max(1);
                each(a, b, |x, y| {
                    x.chunks(part)
                        .zip(y.chunks(part))
                        .fold(0.0, |sum, (x, y)| narrow(sum + narrow(dot(x, y))))
                })
            }
        }
    }
}

/// `a · bᵀ`. A few outputs are not worth the packing of a large product.
pub fn times(a: &Matrix, b: &Matrix) -> Matrix {
    if a.rows * b.rows > 1024 { a.matmul_t(b) } else { each(a, b, lanes) }
}

/// A sum of products in eight lanes.
fn lanes(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (whole, rest) = (a.chunks_exact(8).zip(b.chunks_exact(8)), a.len() / 8 * 8);
    for (x, y) in whole {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + dot(&a[rest..], &b[rest..])
}

fn each(a: &Matrix, b: &Matrix, f: impl Fn(&[f64], &[f64]) -> f64) -> Matrix {
    let mut out = Matrix::zeros(a.rows, b.rows);
    for r in 0..a.rows {
        for c in 0..b.rows {
            out.row_mut(r)[c] = f(a.row(r), b.row(c));
        }
    }
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn narrow(to: DType) -> fn(f64) -> f64 {
    match to {
        DType::F16 => |x| half::f16::from_f64(x).to_f64(),
        DType::BF16 => |x| half::bf16::from_f64(x).to_f64(),
        _ => |x| f64::from(x as f32),
    }
}
