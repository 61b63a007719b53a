//! The arithmetic of the matrix cores: how one row of the result comes about.

use super::super::super::wave::LANES;
use super::format::NAN;

/// One product of a row of A with B: an element of A, and where the row of B begins that it meets.
#[derive(Clone, Copy, Default)]
pub struct Term {
    pub value: f32,
    pub power: f32,
    /// Index of B's first column in B's values, as one slice over elements and lanes.
    pub at: usize,
}

/// What [`floats`] needs to know besides the terms.
#[derive(Clone, Copy)]
pub struct Grouping {
    /// Products that are summed before the accumulator is added.
    pub length: usize,
    /// Products of even and of odd k have a sum each.
    pub split: bool,
    /// All powers and products are normal float32 numbers, and no infinity or NaN is among them.
    pub narrow: bool,
}

/// Exponents of the block scales that belong to one row.
#[derive(Clone, Copy)]
pub struct RowScales<'a> {
    /// A's exponent for each block of 32 products.
    pub a: &'a [i32],
    /// B's exponent for each block and column: the columns of block b begin at `b * N`.
    pub b: &'a [i32; LANES],
}

/// The exponent of a block scale that is NaN: far from what two others can sum up to.
pub const NAN_SCALE: i32 = 1 << 20;
/// Products that share a block scale.
pub const SCALE_BLOCK: usize = 32;

/// `2^exponent`. Below 2^-1000 it stays at that, which a multiplication of at most 2^40 and `floor` cannot tell apart.
#[inline(always)]
fn pow2(exponent: i32) -> f64 {
    f64::from_bits(((exponent.max(-1000) + 1023) as u64) << 52)
}

/// Exponent of a sum without any product that is not zero.
const NOTHING: i32 = -9999;

/// Sums of products, cut off at 24 bits below the largest power among them: a whole number of `2^(exponent - 24)`.
struct Sums<const N: usize> {
    sum: [f64; N],
    exponent: [i32; N],
}

#[inline(always)]
fn columns<const N: usize, T>(b: &[T], at: usize) -> &[T; N] {
    b[at..].first_chunk().unwrap_or_else(|| unreachable!("rows of B lie within B"))
}

/// The sums of every `step`th term, in float32: exact, since products have at most 22 bits and are normal numbers.
#[inline(always)]
fn narrow_sums<const N: usize>(terms: &[Term], step: usize, values: &[f32], powers: &[f32]) -> Sums<N> {
    let mut largest = [0.0f32; N];
    for term in terms.iter().step_by(step) {
        let powers = columns::<N, f32>(powers, term.at);
        for j in 0..N {
            let power = term.power * powers[j];
            largest[j] = if power > largest[j] { power } else { largest[j] };
        }
    }
    let mut scale = [0.0f32; N];
    for j in 0..N {
        // 2^24 divided by the largest power. Where that is zero, so are all products, and any number will do.
        scale[j] = f32::from_bits((278u32 << 23).wrapping_sub(largest[j].to_bits()));
    }
    let mut total = [0i32; N];
    for term in terms.iter().step_by(step) {
        let values = columns::<N, f32>(values, term.at);
        for j in 0..N {
            let product = term.value * values[j] * scale[j];
            // SAFETY: `narrow` says that values are finite and products normal; a product is below 4 times its power,
            // so this one is below 2^26.
            total[j] += unsafe { product.to_int_unchecked::<i32>() };
        }
    }
    let mut out = Sums { sum: [0.0; N], exponent: [NOTHING; N] };
    for j in 0..N {
        out.sum[j] = f64::from(total[j]);
        let exponent = (largest[j].to_bits() >> 23) as i32 - 127;
        out.exponent[j] = if largest[j] == 0.0 { NOTHING } else { exponent };
    }
    out
}

/// The same for any terms, in float64. Infinite and NaN products, and those of magnitude 2^128 or more, which become
/// infinite, go into `special`.
#[inline(always)]
fn wide_sums<const N: usize>(
    terms: &[Term],
    step: usize,
    values: &[f32],
    powers: &[f32],
    special: &mut [f64; N],
) -> Sums<N> {
    const OVERFLOW: f64 = (1u128 << 127) as f64 * 2.0;
    let mut largest = [0.0f64; N];
    for term in terms.iter().step_by(step) {
        let powers = columns::<N, f32>(powers, term.at);
        for j in 0..N {
            let power = f64::from(term.power) * f64::from(powers[j]);
            largest[j] = if power > largest[j] { power } else { largest[j] };
        }
    }
    let mut out = Sums { sum: [0.0; N], exponent: [NOTHING; N] };
    for (out, largest) in out.exponent.iter_mut().zip(largest) {
        let exponent = (largest.to_bits() >> 52) as i32 - 1023;
        *out = if largest == 0.0 { NOTHING } else { exponent };
    }
    for term in terms.iter().step_by(step) {
        let values = columns::<N, f32>(values, term.at);
        for j in 0..N {
            let product = f64::from(term.value) * f64::from(values[j]);
            let usual = product.abs() < OVERFLOW;
            special[j] += match product {
                _ if usual => 0.0,
                p if p.is_nan() => f64::NAN,
                p => f64::INFINITY.copysign(p),
            };
            let product = if usual { product } else { 0.0 };
            out.sum[j] += (product * pow2(24 - out.exponent[j].max(-600))).trunc();
        }
    }
    out
}

/// Two sums as one: both are aligned to the larger exponent, and what is below 24 bits goes down.
#[inline(always)]
fn join<const N: usize>(mut even: Sums<N>, odd: &Sums<N>) -> Sums<N> {
    for j in 0..N {
        let exponent = even.exponent[j].max(odd.exponent[j]);
        let even_sum = (even.sum[j] * pow2(even.exponent[j] - exponent)).floor();
        let odd_sum = (odd.sum[j] * pow2(odd.exponent[j] - exponent)).floor();
        even.sum[j] = even_sum + odd_sum;
        even.exponent[j] = exponent;
    }
    even
}

/// Adds the sums to the accumulators.
#[inline(always)]
fn accumulate<const N: usize>(sums: &Sums<N>, split: bool, c: &mut [f32; N]) {
    for (j, c) in c.iter_mut().enumerate() {
        let own = ((c.to_bits() >> 23 & 255) as i32).max(1) - 127;
        let exponent = sums.exponent[j].max(own);
        // Both as whole numbers of 2^(exponent - 32).
        let dot = (sums.sum[j] * pow2(sums.exponent[j] - exponent + 8)).floor();
        let added = (f64::from(*c) * pow2(24 - exponent)).floor() * 256.0;
        let added = if split && own < exponent - 25 { 0.0 } else { added };
        let total = dot + added;
        // 31 bits are kept below its leading one, but none below 2^-157.
        let leading = (total.to_bits() >> 52 & 2047) as i32 - 1023;
        let lost = (leading - 31).max(-125 - exponent).max(0);
        let kept = (total * pow2(-lost)).floor() * pow2(lost);
        let rounded = (kept * pow2(exponent - 32)) as f32;
        let finite = c.to_bits() & 0x7f80_0000 != 0x7f80_0000;
        *c = if finite { rounded } else { *c };
    }
}

/// One row of a float32 result from f16, bf16, xf32 or smaller floats: group after group of products is summed in fixed
/// point, and added to the accumulator in fixed point.
///
/// Established for CDNA3 by MMA-Sim (arXiv:2511.10909): in each group, products are cut off at 24 bits below the largest
/// power of two of a product (of its factors, so that the product itself may be up to four times that), and summed. The
/// sum is aligned with the accumulator and rounded down at 32 bits, the accumulator at 24. Their sum is normalised, with
/// -126 as the least exponent, rounded down at 31 bits, and to nearest even to float32.
///
/// With `split` (fp8, bf8) the products of even and odd k are summed apart, both sums aligned with each other and
/// rounded down at 24 bits; an accumulator more than 25 binary places below the sum counts as zero.
#[inline(always)]
pub fn floats<const N: usize>(
    terms: &[Term],
    values: &[f32],
    powers: &[f32],
    grouping: Grouping,
    scales: Option<RowScales<'_>>,
    c: &mut [f32; N],
) {
    for (group, terms) in terms.chunks(grouping.length).enumerate() {
        let mut special = [0.0; N];
        let step = if grouping.split { 2 } else { 1 };
        let mut sums = if grouping.narrow {
            narrow_sums::<N>(terms, step, values, powers)
        } else {
            wide_sums::<N>(terms, step, values, powers, &mut special)
        };
        if grouping.split {
            let terms = &terms[1..];
            let odd = if grouping.narrow {
                narrow_sums::<N>(terms, step, values, powers)
            } else {
                wide_sums::<N>(terms, step, values, powers, &mut special)
            };
            sums = join(sums, &odd);
        }
        if let Some(scales) = scales {
            let block = group * grouping.length / SCALE_BLOCK;
            let (a, b) = (scales.a[block], columns::<N, i32>(scales.b, block * N));
            for j in 0..N {
                let exponent = a + b[j];
                let known = exponent < NAN_SCALE / 2;
                // A sum without a product stays below all others.
                let shifted = sums.exponent[j] + if known { exponent } else { 0 };
                sums.exponent[j] = if sums.exponent[j] == NOTHING { NOTHING } else { shifted };
                special[j] = if known { special[j] } else { f64::NAN };
            }
        }
        let before = *c;
        accumulate(&sums, grouping.split, c);
        let any = special.iter().fold(0, |any, special| any | special.to_bits());
        if any != 0 {
            for j in 0..N {
                // An infinite product outweighs all finite ones, also where those overflow.
                let infinite = if before[j].is_finite() { 0.0 } else { before[j] };
                c[j] = if special[j] == 0.0 { c[j] } else { infinite + special[j] as f32 };
            }
        }
    }
    canonical(c);
}

/// One row of a float32 result from float32: a chain of fused multiply-adds.
#[inline(always)]
pub fn chain<const N: usize>(terms: &[Term], values: &[f32], c: &mut [f32; N]) {
    for term in terms {
        let values = columns::<N, f32>(values, term.at);
        for j in 0..N {
            c[j] = term.value.mul_add(values[j], c[j]);
        }
    }
    canonical(c);
}

/// One row of an int32 result, which wraps around. The products' sum is exact in float32: at most 128 of at most 2^14.
#[inline(always)]
pub fn integers<const N: usize>(terms: &[Term], values: &[f32], c: &mut [u32; N]) {
    let mut sum = [0.0f32; N];
    for term in terms {
        let values = columns::<N, f32>(values, term.at);
        for j in 0..N {
            sum[j] += term.value * values[j];
        }
    }
    for j in 0..N {
        c[j] = c[j].wrapping_add(sum[j] as i32 as u32);
    }
}

/// Every NaN as the quiet one without a payload: which one the matrix cores give is not established.
#[inline(always)]
fn canonical<const N: usize>(c: &mut [f32; N]) {
    for c in c {
        *c = if c.is_nan() { f32::from_bits(NAN) } else { *c };
    }
}
