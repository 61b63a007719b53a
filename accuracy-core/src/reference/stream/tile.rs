//! The inner product: `out[m, n] += x[m, k] · w[n, k]ᵀ` on operands that are packed and in cache.
//!
//! Vectors lie along K, as the operands do, so that nothing is transposed: a tile of rows by rows keeps one vector of
//! partial sums for each pair, and adds them up at the end of the block.

use crate::simd::Isa;

/// Elements that operands are packed in: float32, or float64 where that is not enough.
pub(super) trait Element: Copy + Send + Sync + 'static {
    const ZERO: Self;
    /// `size_of` in a place where a constant is needed.
    const SIZE: usize;
    fn from_f64(x: f64) -> Self;
    fn abs(self) -> Self;
    fn is_finite(self) -> bool;
    /// Partial sums that [`Element::multiply`] has of each output.
    fn lanes(isa: Isa) -> usize;

    /// `out[r, c] += Σ x[r, i] · w[c, i]` for `r < rows`, `c < cols`. Rows of `x` and `w` are `ld` elements apart, of
    /// which the first `k`, a multiple of [`GRAIN`], count; those of `out` are `ld_out` apart. Columns are taken
    /// [`COLUMNS`] at a time: `w` and `out` have room for that many.
    ///
    /// # Panics
    /// If a slice is too short.
    fn multiply(isa: Isa, block: Block<'_, Self>, out: &mut [f64]);

    /// The sum of squares of as many elements as make up whole multiples of [`GRAIN`].
    fn square(isa: Isa, row: &[Self]) -> f64;
}

/// Columns of a block are filled up with zeros to a multiple of this many, the widest vector.
pub(super) const GRAIN: usize = 16;
/// Rows of the weight that a tile takes at most.
pub(super) const COLUMNS: usize = 8;

/// Operands of [`Element::multiply`].
#[derive(Clone, Copy)]
pub(super) struct Block<'a, E> {
    pub x: &'a [E],
    pub rows: usize,
    pub w: &'a [E],
    pub cols: usize,
    pub ld: usize,
    pub k: usize,
    pub ld_out: usize,
}

impl<E> Block<'_, E> {
    fn check(&self, out: &[f64]) {
        let cols = self.cols.next_multiple_of(COLUMNS);
        assert!(self.k <= self.ld && self.k.is_multiple_of(GRAIN) && cols <= self.ld_out, "block");
        assert!(self.x.len() >= self.rows * self.ld, "left operand");
        assert!(self.w.len() >= cols * self.ld, "right operand");
        assert!(self.rows == 0 || out.len() >= (self.rows - 1) * self.ld_out + cols, "output");
    }
}

/// A vector of partial sums.
trait Lanes: Copy {
    type Element;
    const COUNT: usize;
    fn zero() -> Self;
    /// # Safety
    /// `from` points to `COUNT` elements.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// `self + a * b`
    fn add_product(self, a: Self, b: Self) -> Self;
    fn sum(self) -> f64;
    /// Adds the sum of each of four vectors to one of four elements.
    /// # Safety
    /// `out` points to four elements.
    #[inline(always)]
    unsafe fn add_sums(four: [Self; 4], out: *mut f64) {
        for (i, vector) in four.into_iter().enumerate() {
            // SAFETY: the caller says that there are four.
            unsafe { *out.add(i) += vector.sum() };
        }
    }
}

/// `R` by `C` products of rows.
///
/// # Safety
/// `x` points to `R` rows and `w` to `C` rows, each `ld` elements from the next and of at least `k`; `out` to `R` rows
/// of `C` that are `ld_out` apart.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const C: usize>(
    x: *const V::Element,
    w: *const V::Element,
    ld: usize,
    k: usize,
    out: *mut f64,
    ld_out: usize,
) {
    let mut sums = [[V::zero(); C]; R];
    let mut i = 0;
    while i < k {
        let mut b = [V::zero(); C];
        for (c, b) in b.iter_mut().enumerate() {
            // SAFETY: inside of row `c`, as the caller says.
            *b = unsafe { V::load(w.add(c * ld + i)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: inside of row `r`.
            let a = unsafe { V::load(x.add(r * ld + i)) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = sum.add_product(a, b);
            }
        }
        i += V::COUNT;
    }
    const { assert!(C.is_multiple_of(4)) };
    for (r, sums) in sums.into_iter().enumerate() {
        for c in (0..C).step_by(4) {
            let four = [sums[c], sums[c + 1], sums[c + 2], sums[c + 3]];
            // SAFETY: inside of row `r` of `out`.
            unsafe { V::add_sums(four, out.add(r * ld_out + c)) };
        }
    }
}

/// All tiles of a block: `TALL` by four where there are as many rows; few rows by eight, so that sums do not wait for
/// each other.
#[inline(always)]
fn tiles<V: Lanes, const TALL: usize>(block: Block<'_, V::Element>, out: &mut [f64]) {
    block.check(out);
    let Block { x, rows, w, cols, ld, k, ld_out } = block;
    let (x, w, out) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    let mut r = 0;
    while r < rows {
        let height = (rows - r).min(TALL);
        let width = if height > 2 { 4 } else { COLUMNS };
        let mut c = 0;
        while c < cols {
            // SAFETY: `check` has seen that all three reach to row `rows` and column `cols`, the latter rounded up to
            // the width of a tile.
            unsafe {
                let (x, w, out) = (x.add(r * ld), w.add(c * ld), out.add(r * ld_out + c));
                match height {
                    1 => tile::<V, 1, COLUMNS>(x, w, ld, k, out, ld_out),
                    2 => tile::<V, 2, COLUMNS>(x, w, ld, k, out, ld_out),
                    3 => tile::<V, 3, 4>(x, w, ld, k, out, ld_out),
                    4 => tile::<V, 4, 4>(x, w, ld, k, out, ld_out),
                    5 => tile::<V, 5, 4>(x, w, ld, k, out, ld_out),
                    _ => tile::<V, TALL, 4>(x, w, ld, k, out, ld_out),
                }
            }
            c += width;
        }
        r += height;
    }
}

/// The sum of squares of as many elements as make up whole multiples of [`GRAIN`], summed by vectors.
#[inline(always)]
fn squares<V: Lanes>(row: &[V::Element]) -> f64 {
    const { assert!(GRAIN.is_multiple_of(V::COUNT)) };
    // Four sums, so that they do not wait for each other.
    let mut sums = [V::zero(); 4];
    for at in (0..row.len() / GRAIN * GRAIN).step_by(V::COUNT) {
        // SAFETY: up to `COUNT` elements from there are within whole multiples of `GRAIN`.
        let x = unsafe { V::load(row.as_ptr().add(at)) };
        let [first, rest @ ..] = sums;
        sums = [rest[0], rest[1], rest[2], first.add_product(x, x)];
    }
    sums.into_iter().map(V::sum).sum()
}

/// Sixteen 512-bit or 256-bit registers and more hold 24 vectors of sums, eight of the latter 12.
const TALL: usize = 6;
const SHORT: usize = 3;

macro_rules! element {
    ($element:ty, $avx512:ty, $avx2:ty, $neon:ty, $lanes:literal) => {
        impl Element for $element {
            const ZERO: $element = 0.0;
            const SIZE: usize = size_of::<$element>();

            fn from_f64(x: f64) -> $element {
                x as $element
            }

            fn abs(self) -> $element {
                self.abs()
            }

            fn is_finite(self) -> bool {
                self.is_finite()
            }

            fn lanes(isa: Isa) -> usize {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => <$avx512 as Lanes>::COUNT,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => <$avx2 as Lanes>::COUNT,
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => <$neon as Lanes>::COUNT,
                    Isa::Plain => $lanes,
                }
            }

            fn multiply(isa: Isa, block: Block<'_, $element>, out: &mut [f64]) {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => {
                        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                        fn wide(block: Block<'_, $element>, out: &mut [f64]) {
                            tiles::<$avx512, TALL>(block, out);
                        }
                        // SAFETY: an `Isa` is only made where the machine has its instructions.
                        unsafe { wide(block, out) }
                    }
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => {
                        #[target_feature(enable = "avx2,fma")]
                        fn wide(block: Block<'_, $element>, out: &mut [f64]) {
                            tiles::<$avx2, SHORT>(block, out);
                        }
                        // SAFETY: as above.
                        unsafe { wide(block, out) }
                    }
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => tiles::<$neon, TALL>(block, out),
                    Isa::Plain => tiles::<[$element; $lanes], SHORT>(block, out),
                }
            }

            fn square(isa: Isa, row: &[$element]) -> f64 {
                let total = match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => {
                        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                        fn wide(row: &[$element]) -> f64 {
                            squares::<$avx512>(row)
                        }
                        // SAFETY: as above.
                        unsafe { wide(row) }
                    }
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => {
                        #[target_feature(enable = "avx2,fma")]
                        fn wide(row: &[$element]) -> f64 {
                            squares::<$avx2>(row)
                        }
                        // SAFETY: as above.
                        unsafe { wide(row) }
                    }
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => squares::<$neon>(row),
                    Isa::Plain => squares::<[$element; $lanes]>(row),
                };
                // Beyond this, squares may have left the range of float32.
                if (2f64.powi(-80)..2f64.powi(120)).contains(&total) {
                    return total;
                }
                row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
            }
        }

        impl Lanes for [$element; $lanes] {
            type Element = $element;
            const COUNT: usize = $lanes;

            #[inline(always)]
            fn zero() -> Self {
                [0.0; $lanes]
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: the caller says that there are as many.
                unsafe { from.cast::<Self>().read_unaligned() }
            }
            #[inline(always)]
            fn add_product(mut self, a: Self, b: Self) -> Self {
                for (sum, (a, b)) in self.iter_mut().zip(a.into_iter().zip(b)) {
                    *sum += a * b;
                }
                self
            }
            #[inline(always)]
            fn sum(self) -> f64 {
                self.into_iter().map(f64::from).sum()
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;
#[cfg(target_arch = "x86_64")]
element!(f64, arch::__m512d, arch::__m256d, (), 4);
#[cfg(target_arch = "x86_64")]
element!(f32, arch::__m512, arch::__m256, (), 8);
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64 as arch;
#[cfg(target_arch = "aarch64")]
element!(f64, (), (), arch::float64x2_t, 4);
#[cfg(target_arch = "aarch64")]
element!(f32, (), (), arch::float32x4_t, 8);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
element!(f64, (), (), (), 4);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
element!(f32, (), (), (), 8);

/// Implements [`Lanes`] for a register. The methods are inlined into functions that may use its instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! register {
    ($type:ty, $element:ty, $count:literal, $zero:expr, $load:path, |$sum:ident, $a:ident, $b:ident| $add_product:expr,
     |$all:ident| $total:expr $(, |$four:ident| $totals:expr)?) => {
        impl Lanes for $type {
            type Element = $element;
            const COUNT: usize = $count;

            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: only called from functions that may use the instruction.
                unsafe { $zero }
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: as above; the caller says that there are as many elements.
                unsafe { $load(from) }
            }
            #[inline(always)]
            fn add_product(self, $a: Self, $b: Self) -> Self {
                let $sum = self;
                // SAFETY: as above.
                unsafe { $add_product }
            }
            #[inline(always)]
            fn sum(self) -> f64 {
                let $all = self;
                // SAFETY: as above.
                unsafe { $total }
            }
            $(
                #[inline(always)]
                unsafe fn add_sums($four: [Self; 4], out: *mut f64) {
                    // SAFETY: as above; the caller says that there are four elements.
                    unsafe { _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), $totals)) };
                }
            )?
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::{Lanes, arch::*};

    register!(
        __m512d,
        f64,
        8,
        _mm512_setzero_pd(),
        _mm512_loadu_pd,
        |sum, a, b| _mm512_fmadd_pd(a, b, sum),
        |all| _mm512_reduce_add_pd(all),
        |four| {
            // Pairs of two vectors, then lanes of 128 bits, are transposed and added: `[a, b, a, b, ..]`, and so on.
            let pairs = |a, b| _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            let (ab, cd) = (pairs(four[0], four[1]), pairs(four[2], four[3]));
            let even = _mm512_shuffle_f64x2::<0b10_00_10_00>(ab, cd);
            let all = _mm512_add_pd(even, _mm512_shuffle_f64x2::<0b11_01_11_01>(ab, cd));
            let even = _mm512_castpd512_pd256(_mm512_shuffle_f64x2::<0b10_00_10_00>(all, all));
            _mm256_add_pd(even, _mm512_castpd512_pd256(_mm512_shuffle_f64x2::<0b11_01_11_01>(all, all)))
        }
    );
    register!(
        __m512,
        f32,
        16,
        _mm512_setzero_ps(),
        _mm512_loadu_ps,
        |sum, a, b| _mm512_fmadd_ps(a, b, sum),
        |all| {
            let low = _mm512_cvtps_pd(_mm512_castps512_ps256(all));
            let high = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(all));
            _mm512_reduce_add_pd(_mm512_add_pd(low, high))
        },
        |four| {
            let pairs = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let [ab, cd] = [pairs(four[0], four[1]), pairs(four[2], four[3])].map(|x| _mm512_castps_pd(x));
            let [low, high] = [_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd)];
            let all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            // `[a, b, c, d]` in each lane of 128 bits.
            let half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
            let (low, high) = (_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            _mm256_add_pd(_mm256_cvtps_pd(low), _mm256_cvtps_pd(high))
        }
    );
    register!(
        __m256d,
        f64,
        4,
        _mm256_setzero_pd(),
        _mm256_loadu_pd,
        |sum, a, b| _mm256_fmadd_pd(a, b, sum),
        |all| {
            let pair = _mm_add_pd(_mm256_castpd256_pd128(all), _mm256_extractf128_pd::<1>(all));
            _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)))
        },
        |four| {
            let (ab, cd) = (_mm256_hadd_pd(four[0], four[1]), _mm256_hadd_pd(four[2], four[3]));
            let crossed = _mm256_permute2f128_pd::<0x21>(ab, cd);
            _mm256_add_pd(_mm256_blend_pd::<0b1100>(ab, cd), crossed)
        }
    );
    register!(
        __m256,
        f32,
        8,
        _mm256_setzero_ps(),
        _mm256_loadu_ps,
        |sum, a, b| _mm256_fmadd_ps(a, b, sum),
        |all| {
            let low = _mm256_cvtps_pd(_mm256_castps256_ps128(all));
            Lanes::sum(_mm256_add_pd(low, _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(all))))
        },
        |four| {
            let (ab, cd) = (_mm256_hadd_ps(four[0], four[1]), _mm256_hadd_ps(four[2], four[3]));
            let all = _mm256_hadd_ps(ab, cd);
            let (low, high) = (_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            _mm256_add_pd(_mm256_cvtps_pd(low), _mm256_cvtps_pd(high))
        }
    );
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::{Lanes, arch::*};

    register!(float64x2_t, f64, 2, vdupq_n_f64(0.0), vld1q_f64, |sum, a, b| vfmaq_f64(sum, a, b), |all| {
        vaddvq_f64(all)
    });
    register!(float32x4_t, f32, 4, vdupq_n_f32(0.0), vld1q_f32, |sum, a, b| vfmaq_f32(sum, a, b), |all| {
        vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(all)), vcvt_high_f64_f32(all)))
    });
}
