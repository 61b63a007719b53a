//! Streaming dequantise-and-multiply: `x · Wᵀ` for a stored weight that never exists as floats.
//!
//! Rows of the weight are taken in panels. A block of a panel's columns is decoded and scaled into a buffer that stays
//! in cache, multiplied with the same columns of all rows of `x`, and added to the panel's outputs in float64. What
//! becomes of a finished panel is the caller's: it may be compared at once, so that the product need not exist whole
//! either.
//!
//! # Error
//! With [`Precision::Double`] operands are float64, and so is everything that is computed with them. With
//! [`Precision::Single`] values of the weight and of `x` are rounded to float32, and products are summed in float32
//! over [`BLOCK`] columns of `K`, by vectors of `L` partial sums for each output, so that each adds up at most
//! `n = BLOCK / L` products; across blocks sums are float64. The error of output `(r, c)` is then at most
//! `(n + 8) · 2^-24` of the sum of the magnitudes of its products, `(|A||B|)_rc`, and so of `|x_r| · |w_c|` (euclidean
//! norms). A sum of `n` products that are rounded to a relative `u` each errs by less than `n·u/(1 - n·u)` of the sum of
//! their magnitudes (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1); beside those of the sum there
//! is a rounding of `x`, of the scale, of the scaled value and of the product, up to three where partial sums are added
//! up, and one stands for the terms of second order. With [`Precision::Double`] it is at most `(K + 3) · 2^-53` of the
//! same. Some outputs of every product are held against exact dot products, see [`ReferenceError`].

mod decode;
mod tile;

use super::Matrix;
use crate::dtype::DType;
use crate::quant::Granularity;
use crate::simd::{Isa, multiversion, prefetch};
use crate::weights::StoredWeight;
use decode::{CHUNK, Decoded, Decoder, STEP, Scaling};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::{Deref, DerefMut, Range};
use tile::{Block, COLUMNS, Element, GRAIN};

/// Columns of K that are decoded at a time.
pub const BLOCK: usize = 512;
const _: () = assert!(BLOCK.is_multiple_of(CHUNK) && BLOCK.is_power_of_two());
/// Rows of the weight in a panel: 128 by [`BLOCK`] float64 are a quarter of a usual second-level cache.
const PANEL: usize = 128;
/// Multiply-adds below which a product is left to one thread.
const PARALLEL: usize = 1 << 24;
/// Rows of `x` that are multiplied before the next ones: their block stays in the second-level cache, too.
const ROWS: usize = 96;
/// Rows of `x` up to which few rows of the weight are multiplied as soon as they are decoded, in the first-level cache.
const FEW: usize = 16;

/// What operands and sums within a block are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

impl Precision {
    /// What [the module](self) says about the error of an output of a product over `cols` columns: a multiple of the sum
    /// of its products' magnitudes, and so of `|x_r| |w_c|`.
    pub fn error(self, cols: usize) -> f64 {
        self.error_on(Isa::best(), cols)
    }

    fn error_on(self, isa: Isa, cols: usize) -> f64 {
        match self {
            Precision::Single => {
                let products = cols.min(BLOCK).next_multiple_of(GRAIN) / f32::lanes(isa);
                (products + 8) as f64 * 2f64.powi(-24)
            }
            Precision::Double => (cols + 3) as f64 * 2f64.powi(-53),
        }
    }
}

/// A weight `[rows, cols]` = `[N, K]` as it is stored: `value = (code - zero) * scale * global`.
#[derive(Clone, Debug)]
pub struct Weight<'a> {
    pub rows: usize,
    pub cols: usize,
    pub dtype: DType,
    /// Row-major codes in the order of [`DType::code_at`], without gaps.
    pub codes: Cow<'a, [u8]>,
    pub granularity: Granularity,
    /// One for each cell of the scale grid, row-major; empty where nothing is scaled.
    pub scales: Cow<'a, [f64]>,
    /// One for each cell, in units of a code; empty where zero means zero.
    pub zeros: Cow<'a, [f64]>,
    /// The tensor-wide factor, 1 without one.
    pub global: f64,
    /// Which column of the scale grid each column uses, where that is not `c / group`.
    pub column_groups: Option<&'a [usize]>,
    /// Whether magnitudes are meant instead of values, and 0 instead of what is not finite.
    pub magnitudes: bool,
}

impl<'a> From<&'a StoredWeight<'_>> for Weight<'a> {
    fn from(stored: &'a StoredWeight<'_>) -> Weight<'a> {
        Weight {
            rows: stored.rows,
            cols: stored.cols,
            dtype: stored.dtype,
            codes: Cow::Borrowed(&stored.codes),
            granularity: stored.granularity,
            scales: Cow::Borrowed(&stored.scales),
            zeros: Cow::Borrowed(&stored.zero_points),
            global: stored.global_scale.map_or(1.0, |g| g.apply(1.0)),
            column_groups: stored.column_groups.as_deref(),
            magnitudes: false,
        }
    }
}

impl Weight<'_> {
    /// The value of one element, by its definition.
    ///
    /// # Panics
    /// If the weight has no such element, or fewer codes or scales than it says.
    pub fn value(&self, r: usize, c: usize) -> f64 {
        self.row(r, |code| self.dtype.decode(code))(c)
    }

    /// `x · w_r`, correct to about the last place of float64.
    ///
    /// # Panics
    /// As [`Weight::value`].
    pub fn dot(&self, r: usize, x: &[f64]) -> f64 {
        exact(x, self.row(r, |code| self.dtype.decode(code)))
    }

    /// The values of some rows.
    ///
    /// # Panics
    /// If the weight has fewer, or fewer codes or scales than it says.
    pub fn values(&self, rows: Range<usize>) -> Matrix {
        let decoder = Decoder::new(self.dtype);
        let mut scales = Scales::new();
        let mut block = vec![0.0; BLOCK];
        let mut data = Vec::with_capacity(rows.len() * self.cols);
        for r in rows.clone() {
            for start in (0..self.cols).step_by(BLOCK) {
                let part = start..self.cols.min(start + BLOCK);
                Right::Stored(self, &decoder).read(Isa::best(), &mut scales, r, part.clone(), &mut block);
                data.extend_from_slice(&block[..part.len()]);
            }
        }
        Matrix::new(rows.len(), self.cols, data)
    }

    /// Whether all elements have the same value.
    pub fn is_constant(&self) -> bool {
        let first = if self.codes.is_empty() { 0.0 } else { self.value(0, 0) };
        // Whatever is not constant shows that soon.
        (0..self.rows).all(|r| (0..self.cols).all(|c| self.value(r, c) == first))
    }

    /// The values of a row by the definition of a value, those of codes being known.
    fn row(&self, r: usize, decode: impl Fn(u32) -> f64) -> impl Fn(usize) -> f64 {
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let first = r / cell_rows * self.granularity.grid(self.rows, self.cols).1;
        move |c| {
            let code = decode(self.dtype.code_at(&self.codes, r * self.cols + c));
            let value = if self.scales.is_empty() {
                code * self.global
            } else {
                let cell = first + self.column_groups.map_or_else(|| c / cell_cols, |groups| groups[c]);
                (code - self.zeros.get(cell).copied().unwrap_or(0.0)) * self.scales[cell] * self.global
            };
            match self.magnitudes {
                false => value,
                true if value.is_finite() => value.abs(),
                true => 0.0,
            }
        }
    }

    /// Columns that share a scale wherever they begin at a multiple of as many: a power of two up to [`BLOCK`].
    fn step(&self) -> usize {
        let (_, cell_cols) = self.granularity.cell(self.rows, self.cols);
        if self.column_groups.is_some() {
            1
        } else if self.scales.is_empty() || cell_cols >= self.cols {
            BLOCK
        } else {
            let step = 1 << cell_cols.trailing_zeros().min(BLOCK.ilog2());
            if step < STEP { 1 } else { step }
        }
    }

    /// Whether float32 holds scaled values, and their products with values from `smallest` to `largest`, without overflow
    /// and as normal numbers, and differences from zero points exactly.
    fn fits_single(&self, smallest: f64, largest: f64) -> bool {
        let whole = |z: &f64| *z == f64::from(*z as i32) && z.abs() <= 1024.0;
        if !self.zeros.par_chunks(PART).all(|zeros| zeros.iter().all(whole)) {
            return false;
        }
        // NaN spreads in float32 as it does in float64.
        let (low, high) = match self.scales.is_empty() {
            true if self.dtype.bits() > 8 => return false,
            true => (1.0, 1.0),
            false => self.scales.par_chunks(PART).map(extremes).reduce(|| NONE, wider),
        };
        let (low, high) = (low * self.global.abs(), high * self.global.abs());
        let least = smallest.min(1.0);
        let reach = self.dtype.max().max(-self.dtype.min()) + 1024.0;
        let normal = 2f64.powi(-126);
        reach * high * largest.max(1.0) * (self.cols as f64) < 2f64.powi(126)
            && self.dtype.min_positive() * low * least >= normal
            && low.min(least) >= normal
    }
}

/// Values that a thread looks at at a time.
const PART: usize = 1 << 16;
/// The extremes of no values.
const NONE: (f64, f64) = (f64::INFINITY, 0.0);

/// The least and the largest magnitude of what is finite and not zero.
fn extremes(values: &[f64]) -> (f64, f64) {
    #[inline(always)]
    fn each(values: &[f64]) -> (f64, f64) {
        let (mut lows, mut highs) = ([NONE.0; 16], [NONE.1; 16]);
        let (chunks, rest) = values.as_chunks();
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        for chunk in chunks.iter().chain([&last]) {
            let magnitudes = chunk.map(f64::abs);
            for ((low, high), x) in lows.iter_mut().zip(&mut highs).zip(magnitudes) {
                let least = if x > 0.0 { x } else { f64::INFINITY };
                *low = if least < *low { least } else { *low };
                let most = if x < f64::INFINITY { x } else { 0.0 };
                *high = if most > *high { most } else { *high };
            }
        }
        lows.into_iter().zip(highs).fold(NONE, wider)
    }
    multiversion!(Isa::best(), each, [], (values: &[f64]) -> (f64, f64))
}

/// The extremes of the values of both.
fn wider(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// The right operand of a product.
enum Right<'a> {
    Stored(&'a Weight<'a>, &'a Decoder),
    Values(&'a Matrix),
}

impl Right<'_> {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize) {
        match self {
            Right::Stored(weight, _) => (weight.rows, weight.cols),
            Right::Values(values) => (values.rows, values.cols),
        }
    }

    /// `x · w_r`, as [`exact`] has it.
    fn dot(&self, r: usize, x: &[f64]) -> f64 {
        match self {
            Right::Stored(weight, decoder) => exact(x, weight.row(r, |code| decoder.value(code))),
            Right::Values(values) => {
                let row = values.row(r);
                exact(x, |k| row[k])
            }
        }
    }

    /// Columns `part` of row `r`, in `out[..part.len()]`; what follows may be overwritten.
    fn read<E: Decoded>(
        &self,
        isa: Isa,
        scales: &mut Scales<E>,
        r: usize,
        part: Range<usize>,
        out: &mut [E],
    ) {
        match self {
            Right::Stored(weight, decoder) => {
                let len = part.len();
                scales.decode(isa, decoder, weight, r, part, out);
                if weight.magnitudes {
                    let magnitude = |x: &mut E| *x = if x.is_finite() { x.abs() } else { E::ZERO };
                    out[..len].iter_mut().for_each(magnitude);
                }
            }
            Right::Values(values) => {
                for (to, &from) in out.iter_mut().zip(&values.row(r)[part]) {
                    *to = E::from_f64(from);
                }
            }
        }
    }
}

/// One finished panel: `values[r, i]` is output `(r, columns.start + i)`.
pub struct Panel<'a> {
    /// Rows of the weight: columns of the product.
    pub columns: Range<usize>,
    /// Elements from one row of `values` to the next.
    pub stride: usize,
    values: &'a [f64],
    /// `|w_c|` of each column.
    pub norms: &'a [f64],
}

impl Panel<'_> {
    /// Row `r` of the product, at the panel's columns.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.values[r * self.stride..][..self.columns.len()]
    }

    /// `Σ |w_c|²` over its columns.
    pub fn square(&self) -> f64 {
        self.norms[..self.columns.len()].iter().map(|norm| norm * norm).sum()
    }
}

/// `x`, packed for products with weights of as many columns.
pub struct Left<'a> {
    x: &'a Matrix,
    /// The least magnitude but zero and the largest finite one, and the euclidean norm of each row.
    smallest: f64,
    largest: f64,
    norms: Vec<f64>,
    packed: Packed,
}

enum Packed {
    Single(Blocks<f32>),
    Double(Blocks<f64>),
}

/// Blocks of columns one after the other, each row-major and filled up with zeros.
struct Blocks<E> {
    data: Lines<E>,
    ld: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements that begin at a cache line: a load of a vector that lies in two takes twice as long.
struct Lines<E> {
    elements: Vec<E>,
    range: Range<usize>,
}

impl<E: Element> Lines<E> {
    fn zeros(len: usize) -> Lines<E> {
        let elements = vec![E::ZERO; len + LINE / E::SIZE];
        let first = elements.as_ptr().align_offset(LINE).min(LINE / E::SIZE);
        Lines { elements, range: first..first + len }
    }
}

impl<E> Deref for Lines<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.elements[self.range.clone()]
    }
}

impl<E> DerefMut for Lines<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.elements[self.range.clone()]
    }
}

/// Elements from one row of a block to the next: a cache line more than a power of two, so that rows do not fall on
/// each other in a cache.
fn leading(bytes: usize) -> usize {
    BLOCK + LINE / bytes
}

fn pack<E: Decoded>(x: &Matrix) -> Blocks<E> {
    let ld = leading(E::SIZE);
    let mut data = Lines::zeros(x.cols.div_ceil(BLOCK) * x.rows * ld);
    data.par_chunks_exact_mut((x.rows * ld).max(1)).enumerate().for_each(|(b, block)| {
        let columns = b * BLOCK..x.cols.min((b + 1) * BLOCK);
        for (r, row) in block.chunks_exact_mut(ld).enumerate() {
            for (to, &from) in row.iter_mut().zip(&x.row(r)[columns.clone()]) {
                *to = E::from_f64(from);
            }
        }
    });
    Blocks { data, ld }
}

impl<'a> Left<'a> {
    /// Packs `x`; what it holds is rounded to float32 for [`Precision::Single`].
    pub fn new(x: &'a Matrix, precision: Precision) -> Left<'a> {
        let extremes = x.data.par_chunks(PART).map(extremes);
        let (smallest, largest) = extremes.reduce(|| NONE, wider);
        let norm = |r| x.row(r).iter().map(|x| x * x).sum::<f64>().sqrt();
        let norms = (0..x.rows).into_par_iter().with_min_len(16).map(norm).collect();
        let packed = match precision {
            Precision::Single => Packed::Single(pack(x)),
            Precision::Double => Packed::Double(pack(x)),
        };
        Left { x, smallest, largest, norms, packed }
    }

    pub fn precision(&self) -> Precision {
        match self.packed {
            Packed::Single(_) => Precision::Single,
            Packed::Double(_) => Precision::Double,
        }
    }

    /// `|x_r|`.
    pub fn norm(&self, r: usize) -> f64 {
        self.norms[r]
    }

    fn error_on(&self, isa: Isa) -> f64 {
        self.precision().error_on(isa, self.x.cols)
    }

    /// Whether the values of `weight` times these stay in the range of float32; with [`Precision::Double`] they always
    /// do.
    pub fn suits(&self, weight: &Weight<'_>) -> bool {
        self.precision() == Precision::Double || weight.fits_single(self.smallest, self.largest)
    }

    /// `x · Wᵀ`, panel by panel on as many threads as rayon has: what `each` makes of the panels, in order, and how far
    /// a sample of outputs is from exact.
    ///
    /// # Panics
    /// If the inner dimensions differ, there are fewer codes or scales than `weight` says, or the sample is further from
    /// exact than it may be.
    pub fn times<R: Send>(
        &self,
        weight: &Weight<'_>,
        each: impl Fn(Panel<'_>) -> R + Sync,
    ) -> (Vec<R>, ReferenceError) {
        self.times_on(Isa::best(), &Right::Stored(weight, &Decoder::new(weight.dtype)), each)
    }

    fn times_on<R: Send>(
        &self,
        isa: Isa,
        right: &Right<'_>,
        each: impl Fn(Panel<'_>) -> R + Sync,
    ) -> (Vec<R>, ReferenceError) {
        assert_eq!(self.x.cols, right.shape().1, "inner dimensions");
        let sampled = |panel: Panel<'_>| {
            let error = self.sample(right, &panel);
            (each(panel), error)
        };
        let found = match &self.packed {
            Packed::Single(x) => panels(isa, self.x.rows, x, right, sampled),
            Packed::Double(x) => panels(isa, self.x.rows, x, right, sampled),
        };
        let mut error = ReferenceError { stated: self.error_on(isa), observed: 0.0, samples: 0 };
        let results = found.into_iter().map(|(result, (observed, samples))| {
            error.observed = error.observed.max(observed);
            error.samples += samples;
            result
        });
        let results = results.collect();
        assert!(error.holds(), "the reference is further from exact products than it may be: {error:?}");
        (results, error)
    }

    /// The error of some outputs of a panel over `|x_r| |w_c|`, the largest, and how many they were.
    fn sample(&self, right: &Right<'_>, panel: &Panel<'_>) -> (f64, usize) {
        let (rows, len) = (self.x.rows, panel.columns.len());
        let mut worst: f64 = 0.0;
        let count = if rows * len == 0 { 0 } else { SAMPLES };
        for i in 0..count {
            // Spread without a pattern: multiples of the golden ratio.
            let at = (panel.columns.start * SAMPLES + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (r, c) = ((at >> 40) % rows, (at >> 8) % (1 << 32) % len);
            let exact = right.dot(panel.columns.start + c, self.x.row(r));
            let value = panel.row(r)[c];
            let scale = self.norms[r] * panel.norms[c];
            // NaN and Inf have no distance; below the range of normal numbers nothing is relative.
            let error = match scale.is_finite() {
                true => (value - exact).abs() / scale.max(2f64.powi(-900)),
                false => 0.0,
            };
            let error = if error.is_nan() { f64::INFINITY } else { error };
            worst = worst.max(error);
        }
        (worst, count)
    }

    /// The whole product.
    ///
    /// # Panics
    /// As [`Left::times`].
    pub fn product(&self, weight: &Weight<'_>) -> Product {
        self.whole(&Right::Stored(weight, &Decoder::new(weight.dtype)))
    }

    /// The most that each row of a product may be off by (euclidean), of a weight of that norm.
    pub fn row_errors(&self, weight_norm: f64) -> Vec<f64> {
        self.norms.iter().map(|norm| self.precision().error(self.x.cols) * norm * weight_norm).collect()
    }

    fn whole(&self, right: &Right<'_>) -> Product {
        let columns = right.shape().0;
        let mut out = Matrix::zeros(self.x.rows, columns);
        let target = Target(out.data.as_mut_ptr());
        let (squares, error) = self.times_on(Isa::best(), right, |panel| {
            let target = &target;
            for r in 0..self.x.rows {
                let row = panel.row(r);
                // SAFETY: `out` has `rows` rows of `columns`, and each panel writes its own columns.
                unsafe {
                    let to = target.0.add(r * columns + panel.columns.start);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to, row.len());
                }
            }
            panel.square()
        });
        Product { values: out, error, row_errors: self.row_errors(squares.iter().sum::<f64>().sqrt()) }
    }
}

impl Matrix {
    /// `self · otherᵀ`: `[m, k] × [n, k] → [m, n]`, products and sums in float64.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    pub fn matmul_t(&self, other: &Matrix) -> Matrix {
        multiply(self, other)
    }
}

/// `x · otherᵀ` in float64.
///
/// # Panics
/// As [`Left::times`].
pub(super) fn multiply(x: &Matrix, other: &Matrix) -> Matrix {
    Left::new(x, Precision::Double).whole(&Right::Values(other)).values
}

/// A whole product, and how far it may be from exact.
pub struct Product {
    pub values: Matrix,
    pub error: ReferenceError,
    /// The most that each row may be off by (euclidean), where it is finite.
    pub row_errors: Vec<f64>,
}

/// Outputs of each panel that are held against exact dot products.
const SAMPLES: usize = 2;

/// How far a product may be from exact, and how far a sample of it was: multiples of `|x_r| |w_c|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceError {
    /// What [the module](self) proves.
    pub stated: f64,
    pub observed: f64,
    /// Outputs that were held against exact dot products.
    pub samples: usize,
}

impl ReferenceError {
    /// The worst of two.
    pub fn worst(self, other: ReferenceError) -> ReferenceError {
        ReferenceError {
            stated: self.stated.max(other.stated),
            observed: self.observed.max(other.observed),
            samples: self.samples + other.samples,
        }
    }

    /// Whether the sample keeps to what is stated.
    pub fn holds(&self) -> bool {
        self.observed <= self.stated
    }
}

/// `x · w_c`, correct to about the last place of float64: products and sums with their rounding errors carried along
/// (Ogita, Rump and Oishi, *Accurate sum and dot product*, algorithm 5.3).
fn exact<W: Fn(usize) -> f64>(x: &[f64], w: W) -> f64 {
    multiversion!(Isa::best(), exact_by, [W: Fn(usize) -> f64], (x: &[f64], w: W) -> f64)
}

#[inline(always)]
fn exact_by<W: Fn(usize) -> f64>(x: &[f64], w: W) -> f64 {
    let (mut sum, mut low) = (0.0_f64, 0.0_f64);
    for (i, &x) in x.iter().enumerate() {
        let w = w(i);
        let product = x * w;
        let next = sum + product;
        let part = next - sum;
        low += (sum - (next - part)) + (product - part) + x.mul_add(w, -product);
        sum = next;
    }
    // What overflowed has no low part.
    if low.is_finite() { sum + low } else { sum }
}

/// Where panels go, each to its own columns.
struct Target(*mut f64);
// SAFETY: threads write to places that do not overlap.
unsafe impl Sync for Target {}

fn panels<E: Decoded, R: Send>(
    isa: Isa,
    rows: usize,
    x: &Blocks<E>,
    right: &Right<'_>,
    each: impl Fn(Panel<'_>) -> R + Sync,
) -> Vec<R> {
    let (columns, k) = right.shape();
    // Other cores are not woken for little; for more, each gets some.
    let threads = if rows * columns * k < PARALLEL { 1 } else { rayon::current_num_threads() };
    let height = columns.div_ceil(threads).next_multiple_of(COLUMNS).clamp(COLUMNS, PANEL);
    let compute = |buffers: &mut Buffers<E>, i: usize| {
        let columns = i * height..columns.min((i + 1) * height);
        buffers.multiply(isa, rows, x, right, columns.clone());
        each(Panel { columns, stride: height, values: &buffers.out, norms: &buffers.norms })
    };
    let count = columns.div_ceil(height);
    if threads == 1 {
        let mut buffers = Buffers::new(rows, height, x.ld);
        return (0..count).map(|i| compute(&mut buffers, i)).collect();
    }
    (0..count).into_par_iter().map_init(|| Buffers::new(rows, height, x.ld), compute).collect()
}

/// What a thread works in.
struct Buffers<E> {
    decoded: Lines<E>,
    out: Lines<f64>,
    norms: Vec<f64>,
    scales: Scales<E>,
    height: usize,
}

/// The scales of a row's block of columns.
struct Scales<E> {
    factors: Vec<E>,
    zeros: Vec<E>,
}

impl<E: Decoded> Scales<E> {
    fn new() -> Scales<E> {
        Scales { factors: Vec::with_capacity(BLOCK), zeros: Vec::with_capacity(BLOCK) }
    }

    fn decode(
        &mut self,
        isa: Isa,
        decoder: &Decoder,
        weight: &Weight<'_>,
        r: usize,
        part: Range<usize>,
        out: &mut [E],
    ) {
        let step = weight.step();
        let (cell_rows, cell_cols) = weight.granularity.cell(weight.rows, weight.cols);
        let cell = r / cell_rows * weight.granularity.grid(weight.rows, weight.cols).1;
        self.factors.clear();
        self.zeros.clear();
        if weight.scales.is_empty() {
            self.factors.resize(part.len().div_ceil(step), E::from_f64(weight.global));
        }
        let (mut c, mut column) = (part.start, part.start / cell_cols);
        if cell_cols == step && weight.column_groups.is_none() && !weight.scales.is_empty() {
            let cells = cell + column..cell + part.end.div_ceil(step);
            let factor = |scale: &f64| E::from_f64(scale * weight.global);
            self.factors.extend(weight.scales[cells.clone()].iter().map(factor));
            if !weight.zeros.is_empty() {
                self.zeros.extend(weight.zeros[cells].iter().map(|&zero| E::from_f64(zero)));
            }
            c = part.end;
        }
        while !weight.scales.is_empty() && c < part.end {
            let (cell, end) = match weight.column_groups {
                Some(groups) => (cell + groups[c], c + 1),
                // All columns of the same cell.
                None => (cell + column, ((column + 1) * cell_cols).min(part.end)),
            };
            let steps = self.factors.len() + (end - c).div_ceil(step);
            self.factors.resize(steps, E::from_f64(weight.scales[cell] * weight.global));
            if let Some(&zero) = weight.zeros.get(cell) {
                self.zeros.resize(steps, E::from_f64(zero));
            }
            (c, column) = (end, column + 1);
        }
        let (bits, len) = (weight.dtype.bits() as usize, weight.cols);
        let scaling = Scaling { step, factors: &self.factors, zeros: &self.zeros };
        // Rows of an odd number of 4-bit codes begin within a byte.
        let (row, first) = match (r * len * bits).is_multiple_of(8) {
            true => (&weight.codes[r * len * bits / 8..], part.start),
            false => (&weight.codes[..], r * len + part.start),
        };
        // Pieces of rows are too short for the machine to see what comes next.
        let next = part.len().min(weight.cols - part.end);
        let codes = (first + part.len()) * bits / 8;
        bring(row, codes..codes + next * bits / 8);
        let cells = cell + part.end / cell_cols..cell + (part.end + next).div_ceil(cell_cols);
        bring(&weight.scales, cells.clone());
        bring(&weight.zeros, cells);
        E::decode(isa, decoder, row, first, part.len(), &scaling, out);
    }
}

/// Brings what is soon read into the second-level cache.
fn bring<T>(from: &[T], range: Range<usize>) {
    for line in from[range.start.min(from.len())..range.end.min(from.len())].chunks(LINE / size_of::<T>()) {
        prefetch(line.as_ptr());
    }
}

impl<E: Decoded> Buffers<E> {
    fn new(rows: usize, height: usize, ld: usize) -> Buffers<E> {
        Buffers {
            decoded: Lines::zeros(height * ld),
            out: Lines::zeros(rows * height),
            norms: vec![0.0; height],
            scales: Scales::new(),
            height,
        }
    }

    fn multiply(&mut self, isa: Isa, rows: usize, x: &Blocks<E>, right: &Right<'_>, columns: Range<usize>) {
        let (ld, height) = (x.ld, self.height);
        self.out.fill(0.0);
        self.norms.fill(0.0);
        let batch = if rows <= FEW { COLUMNS } else { height };
        for first in (0..columns.len()).step_by(batch) {
            let cols = batch.min(columns.len() - first);
            for (b, x) in x.data.chunks_exact((rows * ld).max(1)).enumerate() {
                let part = b * BLOCK..right.shape().1.min((b + 1) * BLOCK);
                let k = part.len().next_multiple_of(GRAIN);
                for (i, row) in self.decoded.chunks_exact_mut(ld).take(cols).enumerate() {
                    right.read(isa, &mut self.scales, columns.start + first + i, part.clone(), row);
                    row[part.len()..k].fill(E::ZERO);
                    self.norms[first + i] += E::square(isa, &row[..k]);
                }
                for (x, out) in x.chunks(ROWS * ld).zip(self.out.chunks_mut(ROWS * height)) {
                    let (rows, w) = (x.len() / ld, &self.decoded[..]);
                    let block = Block { x, rows, w, cols, ld, k, ld_out: height };
                    E::multiply(isa, block, &mut out[first..]);
                }
            }
        }
        self.norms.iter_mut().for_each(|n| *n = n.sqrt());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::input::Rng;
    use crate::dtype::{
        BF16, E2M1, E2M3, E3M2, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, F16, F32, INT4, INT8, UINT4,
    };

    fn values(rows: usize, cols: usize, seed: u64) -> Matrix {
        let mut rng = Rng(seed);
        Matrix::new(rows, cols, (0..rows * cols).map(|_| rng.normal()).collect())
    }

    /// Every finite code of a format, at random.
    fn weight(dtype: DType, granularity: Granularity, (rows, cols): (usize, usize)) -> Weight<'static> {
        let mut rng = Rng(dtype as u64 + 1);
        let code = |rng: &mut Rng| loop {
            let code = (rng.next_u64() >> 16) as u32 & (u32::MAX >> (32 - dtype.bits()));
            let value = dtype.decode(code);
            if value.is_finite() && (dtype.bits() <= 8 || value.abs() < 1e3) {
                return code;
            }
        };
        let codes = dtype.pack((0..rows * cols).map(|_| code(&mut rng)));
        let cells = match dtype.bits() <= 8 {
            true => granularity.grid(rows, cols).0 * granularity.grid(rows, cols).1,
            false => 0,
        };
        let zeros = if dtype.is_integer() { cells } else { 0 };
        Weight {
            rows,
            cols,
            dtype,
            codes: codes.into(),
            granularity,
            scales: (0..cells).map(|_| f64::from((0.5 + rng.unit()) as f32)).collect(),
            zeros: (0..zeros).map(|_| rng.below(8) as f64).collect(),
            global: 0.75,
            column_groups: None,
            magnitudes: false,
        }
    }

    /// Each output against the exact dot product, on every set of instructions and in both precisions.
    fn assert_close(x: &Matrix, weight: &Weight<'_>) {
        let decoder = Decoder::new(weight.dtype);
        let right = Right::Stored(weight, &decoder);
        for isa in Isa::available() {
            for precision in [Precision::Single, Precision::Double] {
                let left = Left::new(x, precision);
                assert!(left.suits(weight) || weight.dtype.bits() > 8);
                let (panels, error) = left.times_on(isa, &right, |panel| {
                    let rows = (0..x.rows).map(|r| panel.row(r).to_vec()).collect::<Vec<_>>();
                    (panel.columns.clone(), rows, panel.norms[..panel.columns.len()].to_vec())
                });
                assert!(error.holds() && error.samples > 0, "{error:?}");
                let mut next = 0;
                for (columns, rows, norms) in panels {
                    assert_eq!(columns.start, next);
                    next = columns.end;
                    for (i, c) in columns.enumerate() {
                        let norm: f64 = (0..x.cols).map(|k| weight.value(c, k).powi(2)).sum::<f64>().sqrt();
                        assert!(
                            (norms[i] / norm - 1.0).abs() < 1e-5,
                            "{isa:?} norm {c}: {} {norm}",
                            norms[i]
                        );
                        for (r, row) in rows.iter().enumerate() {
                            let expected = exact(x.row(r), |k| weight.value(c, k));
                            let bound = left.error_on(isa) * left.norm(r) * norm;
                            assert!(
                                (row[i] - expected).abs() <= bound,
                                "{isa:?} {precision:?} {} at [{r}, {c}]: {} {expected} {bound}",
                                weight.dtype,
                                row[i]
                            );
                        }
                    }
                }
                assert_eq!(next, weight.rows);
            }
        }
    }

    #[test]
    fn every_format_is_within_the_stated_error_on_every_instruction_set() {
        let x = values(5, 640, 1);
        for dtype in [E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E3M2, E2M3, E2M1, INT8, INT4, UINT4, F32, F16, BF16] {
            assert_close(&x, &weight(dtype, Granularity::Group(32), (21, 640)));
        }
    }

    #[test]
    fn every_granularity_and_shape_is_within_the_stated_error() {
        for (m, n, k) in [(1, 1, 1), (1, 9, 130), (2, 300, 96), (7, 17, 515), (13, 130, 1100), (100, 12, 64)]
        {
            let x = values(m, k, 2);
            for granularity in [
                Granularity::Tensor,
                Granularity::Row,
                Granularity::Group(128),
                Granularity::Group(24),
                Granularity::Group(96),
                Granularity::Block(128, 128),
                Granularity::Block(3, 5),
            ] {
                assert_close(&x, &weight(E4M3FN, granularity, (n, k)));
                assert_close(&x, &weight(INT4, granularity, (n, k)));
                assert_close(&x, &Weight { magnitudes: true, ..weight(INT4, granularity, (n, k)) });
            }
        }
    }

    #[test]
    fn every_instruction_set_decodes_to_the_same_values() {
        fn same<E: Decoded + PartialEq + std::fmt::Debug>(w: &Weight<'_>)
        where
            f64: From<E>,
        {
            let decoder = Decoder::new(w.dtype);
            for part in [0..w.cols.min(BLOCK), w.cols / BLOCK * BLOCK..w.cols] {
                for r in 0..w.rows {
                    let row = |isa| {
                        let mut out = vec![E::ZERO; BLOCK];
                        let right = Right::Stored(w, &decoder);
                        right.read(isa, &mut Scales::new(), r, part.clone(), &mut out);
                        out.truncate(part.len());
                        out
                    };
                    let plain = row(Isa::Plain);
                    for (i, (x, c)) in plain.iter().zip(part.clone()).enumerate() {
                        let exact = w.value(r, c);
                        // Two roundings of the scale, and one of the product.
                        let error = exact.abs() * 3.0 * 2f64.powi(if E::SIZE == 4 { -24 } else { -53 });
                        let difference = (f64::from(*x) - exact).abs();
                        assert!(difference <= error, "{} {} [{r}, {c}] {i}", w.dtype, w.granularity);
                    }
                    for isa in Isa::available() {
                        assert_eq!(row(isa), plain, "{isa:?} {} {} row {r} {part:?}", w.dtype, w.granularity);
                    }
                }
            }
        }
        for dtype in [E4M3FN, E5M2FNUZ, E2M3, E2M1, INT8, INT4, UINT4, BF16] {
            for group in [3, 16, 24, 32, 48, 96, 128, 512, 1024, 4096] {
                for cols in [40, 512, 1064, 1065] {
                    let w = weight(dtype, Granularity::Group(group), (3, cols));
                    same::<f32>(&w);
                    same::<f64>(&w);
                }
            }
        }
    }

    #[test]
    fn norms_are_right_where_squares_leave_the_range_of_float32() {
        let x = values(2, 640, 6);
        for scale in [2f64.powi(-100), 2f64.powi(-60), 2f64.powi(90)] {
            let mut w = weight(INT8, Granularity::Row, (9, 640));
            w.scales.to_mut().fill(scale);
            w.zeros = Cow::Borrowed(&[]);
            let left = Left::new(&x, Precision::Single);
            assert!(left.suits(&w), "{scale:e}");
            assert_close(&x, &w);
        }
    }

    #[test]
    fn elements_begin_at_a_cache_line() {
        for len in [0, 1, 100, 5000] {
            let (single, double) = (Lines::<f32>::zeros(len), Lines::<f64>::zeros(len));
            assert_eq!((single.len(), double.len()), (len, len));
            assert!(
                single.as_ptr().addr().is_multiple_of(LINE) && double.as_ptr().addr().is_multiple_of(LINE)
            );
        }
    }

    #[test]
    fn extremes_are_of_what_is_finite_and_not_zero() {
        let mut values = vec![0.0; 100];
        assert_eq!(extremes(&values), NONE);
        (values[3], values[40], values[99]) = (-5.0, f64::NAN, 2.5);
        (values[17], values[18]) = (f64::NEG_INFINITY, -0.0);
        assert_eq!(extremes(&values), (2.5, 5.0));
        for at in 0..100 {
            let mut one = vec![1.0; 100];
            one[at] = -7.0;
            assert_eq!(extremes(&one), (1.0, 7.0));
            one[at] = 0.125;
            assert_eq!(extremes(&one), (0.125, 1.0));
        }
    }

    #[test]
    fn columns_may_name_their_groups() {
        let groups: Vec<usize> = (0..256).map(|c| c * 7 % 2).collect();
        let x = values(3, 256, 3);
        assert_close(
            &x,
            &Weight { column_groups: Some(&groups), ..weight(INT4, Granularity::Group(128), (8, 256)) },
        );
    }

    #[test]
    fn nan_and_infinity_stay_in_their_row_and_column() {
        let mut x = values(9, 300, 4);
        x.row_mut(4)[7] = f64::NAN;
        let mut w = weight(E5M2, Granularity::Row, (40, 300));
        w.codes.to_mut()[12 * 300 + 5] = 0x7c;
        w.codes.to_mut()[30 * 300 + 299] = 0x7e;
        for isa in Isa::available() {
            for precision in [Precision::Single, Precision::Double] {
                let left = Left::new(&x, precision);
                let decoder = Decoder::new(w.dtype);
                let right = Right::Stored(&w, &decoder);
                let (panels, error) = left.times_on(isa, &right, |panel| {
                    let rows = (0..9).map(|r| panel.row(r).to_vec()).collect::<Vec<_>>();
                    (panel.columns, rows)
                });
                assert!(error.holds(), "{error:?}");
                for (columns, rows) in panels {
                    for (r, row) in rows.iter().enumerate() {
                        for (c, y) in columns.clone().zip(row) {
                            let kind = if r == 4 || c == 30 {
                                f64::is_nan
                            } else if c == 12 {
                                f64::is_infinite
                            } else {
                                f64::is_finite
                            };
                            assert!(kind(*y), "{isa:?} {precision:?} [{r}, {c}]: {y}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn scales_beyond_float32_are_left_to_float64() {
        let x = values(2, 64, 5);
        let mut w = weight(E4M3FN, Granularity::Row, (8, 64));
        w.scales.to_mut()[3] = 2f64.powi(-120);
        assert!(!Left::new(&x, Precision::Single).suits(&w));
        assert!(Left::new(&x, Precision::Double).suits(&w));
        w.scales.to_mut()[3] = 2f64.powi(120);
        assert!(!Left::new(&x, Precision::Single).suits(&w));
    }
}
