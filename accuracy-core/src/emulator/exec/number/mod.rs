//! Floating point in integer arithmetic: any binary format, any rounding, independent of this machine's.
//!
//! Values are bits in the low part of a `u64`. Denormals are kept; who has to flush them does it before and after.

use std::cmp::Ordering;

use crate::emulator::wave::Round;

/// A binary floating-point format with infinities and NaN as IEEE 754 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the fraction.
    pub fraction: u32,
    /// Bits of the exponent.
    pub exponent: u32,
}

impl Format {
    pub const F16: Format = Format { fraction: 10, exponent: 5 };
    pub const BF16: Format = Format { fraction: 7, exponent: 8 };
    pub const F32: Format = Format { fraction: 23, exponent: 8 };
    pub const F64: Format = Format { fraction: 52, exponent: 11 };

    #[inline(always)]
    pub const fn sign(self) -> u64 {
        1 << (self.fraction + self.exponent)
    }

    #[inline(always)]
    pub const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// Positive infinity.
    #[inline(always)]
    pub const fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    /// The bit that a quiet NaN has.
    #[inline(always)]
    pub const fn quiet(self) -> u64 {
        1 << (self.fraction - 1)
    }

    /// The NaN that an invalid operation gives.
    #[inline(always)]
    pub const fn nan(self) -> u64 {
        self.infinity() | self.quiet()
    }

    #[inline(always)]
    pub const fn magnitude(self, bits: u64) -> u64 {
        bits & (self.sign() - 1)
    }

    #[inline(always)]
    pub const fn is_nan(self, bits: u64) -> bool {
        self.magnitude(bits) > self.infinity()
    }

    #[inline(always)]
    pub const fn is_signalling(self, bits: u64) -> bool {
        self.is_nan(bits) && bits & self.quiet() == 0
    }

    #[inline(always)]
    pub const fn is_infinite(self, bits: u64) -> bool {
        self.magnitude(bits) == self.infinity()
    }

    #[inline(always)]
    pub const fn is_zero(self, bits: u64) -> bool {
        self.magnitude(bits) == 0
    }

    #[inline(always)]
    pub const fn is_denormal(self, bits: u64) -> bool {
        let magnitude = self.magnitude(bits);
        magnitude != 0 && magnitude < 1 << self.fraction
    }

    #[inline(always)]
    pub const fn is_negative(self, bits: u64) -> bool {
        bits & self.sign() != 0
    }

    /// The biased exponent.
    #[inline(always)]
    pub const fn biased(self, bits: u64) -> i32 {
        (self.magnitude(bits) >> self.fraction) as i32
    }

    const fn signed(self, negative: bool, magnitude: u64) -> u64 {
        if negative { self.sign() | magnitude } else { magnitude }
    }

    /// The first NaN among operands, quiet.
    fn first_nan(self, operands: &[u64]) -> Option<u64> {
        operands.iter().find(|&&bits| self.is_nan(bits)).map(|bits| bits | self.quiet())
    }

    /// Significand and exponent of a finite value: it is `significand * 2^exponent`.
    pub const fn split(self, bits: u64) -> Exact {
        let biased = self.biased(bits);
        let fraction = bits & ((1 << self.fraction) - 1);
        let (significand, biased) =
            if biased == 0 { (fraction, 1) } else { (fraction | 1 << self.fraction, biased) };
        Exact {
            negative: self.is_negative(bits),
            significand: significand as u128,
            exponent: biased - self.bias() - self.fraction as i32,
            more: false,
        }
    }
}

/// A number before it is rounded: `significand * 2^exponent`, and a little more in magnitude if `more`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    pub negative: bool,
    pub significand: u128,
    pub exponent: i32,
    /// Something smaller than the last bit of the significand was cut off.
    pub more: bool,
}

impl Exact {
    /// Shifts right; what falls off is remembered in `more`.
    fn shifted_right(self, by: u32) -> Exact {
        let lost = if by >= 128 { self.significand != 0 } else { self.significand & ((1 << by) - 1) != 0 };
        let significand = if by >= 128 { 0 } else { self.significand >> by };
        Exact { significand, exponent: self.exponent + by as i32, more: self.more | lost, ..self }
    }

    /// Left-aligned, so that bit 124 is the highest one.
    fn aligned(self) -> Exact {
        let by = self.significand.leading_zeros() as i32 - 3;
        if by >= 0 {
            Exact { significand: self.significand << by, exponent: self.exponent - by, ..self }
        } else {
            self.shifted_right(by.unsigned_abs())
        }
    }

    /// The sum. `None` is an exact zero of operands that are not both zero.
    fn plus(self, other: Exact) -> Option<Exact> {
        if self.significand == 0 {
            return (other.significand != 0).then_some(other);
        }
        if other.significand == 0 {
            return Some(self);
        }
        let (x, y) = (self.aligned(), other.aligned());
        let (big, small) =
            if (x.exponent, x.significand) >= (y.exponent, y.significand) { (x, y) } else { (y, x) };
        let small = small.shifted_right((big.exponent - small.exponent) as u32);
        if big.negative == small.negative {
            let significand = big.significand + small.significand;
            return Some(Exact { significand, more: big.more | small.more, ..big });
        }
        // What was cut off belongs to the number that is taken away: the difference is a little less.
        let significand = big.significand - small.significand - u128::from(small.more);
        (significand != 0 || small.more).then_some(Exact { significand, more: big.more | small.more, ..big })
    }
}

/// Whether a magnitude grows when it is rounded.
fn rounds_up(round: Round, negative: bool, odd: bool, half: bool, rest: bool) -> bool {
    match round {
        Round::NearestEven => half && (rest || odd),
        Round::TowardZero => false,
        Round::Up => !negative && (half || rest),
        Round::Down => negative && (half || rest),
    }
}

/// The zero that a sum of opposite numbers is.
fn cancelled(format: Format, round: Round) -> u64 {
    if round == Round::Down { format.sign() } else { 0 }
}

/// Rounds a number to a format.
pub fn round(format: Format, x: Exact, round: Round) -> u64 {
    if x.significand == 0 && !x.more {
        return format.signed(x.negative, 0);
    }
    // A remainder alone: make room below it.
    let x = if x.significand == 0 { Exact { significand: 1, exponent: x.exponent - 2, ..x } } else { x };
    let highest = 127 - x.significand.leading_zeros() as i32;
    let least = 1 - format.bias();
    let exponent = (highest + x.exponent).max(least);
    let shift = exponent - format.fraction as i32 - x.exponent;
    let (kept, half, rest) = if shift <= 0 {
        (x.significand << shift.unsigned_abs(), false, x.more)
    } else if shift > 127 {
        (0, false, true)
    } else {
        let half = x.significand >> (shift - 1) & 1 != 0;
        let rest = x.significand & ((1 << (shift - 1)) - 1) != 0;
        (x.significand >> shift, half, rest | x.more)
    };
    let up = rounds_up(round, x.negative, kept & 1 != 0, half, rest);
    let kept = kept as u64 + u64::from(up);
    let biased = (exponent + format.bias()) as u64;
    // The hidden bit of a normal number adds one to the exponent; so does a carry.
    let magnitude = if biased >= 1 << format.exponent {
        format.infinity()
    } else {
        (((biased - 1) << format.fraction) + kept).min(format.infinity())
    };
    if magnitude < format.infinity() {
        return format.signed(x.negative, magnitude);
    }
    let finite = match round {
        Round::NearestEven => false,
        Round::TowardZero => true,
        Round::Up => x.negative,
        Round::Down => !x.negative,
    };
    format.signed(x.negative, format.infinity() - u64::from(finite))
}

pub fn add(format: Format, a: u64, b: u64, mode: Round) -> u64 {
    if let Some(nan) = format.first_nan(&[a, b]) {
        return nan;
    }
    match (format.is_infinite(a), format.is_infinite(b)) {
        (true, true) if a != b => return format.nan(),
        (true, _) => return a,
        (_, true) => return b,
        _ => {}
    }
    if format.is_zero(a) && format.is_zero(b) {
        return if a == b { a } else { cancelled(format, mode) };
    }
    match format.split(a).plus(format.split(b)) {
        Some(sum) => round(format, sum, mode),
        None => cancelled(format, mode),
    }
}

pub fn mul(format: Format, a: u64, b: u64, mode: Round) -> u64 {
    if let Some(nan) = format.first_nan(&[a, b]) {
        return nan;
    }
    let negative = (a ^ b) & format.sign() != 0;
    if format.is_infinite(a) || format.is_infinite(b) {
        if format.is_zero(a) || format.is_zero(b) {
            return format.nan();
        }
        return format.signed(negative, format.infinity());
    }
    round(format, product(format, a, b), mode)
}

/// The product of finite values.
fn product(format: Format, a: u64, b: u64) -> Exact {
    let (a, b) = (format.split(a), format.split(b));
    Exact {
        negative: a.negative != b.negative,
        significand: a.significand * b.significand,
        exponent: a.exponent + b.exponent,
        more: false,
    }
}

/// `a * b + c`, rounded once.
pub fn fma(format: Format, a: u64, b: u64, c: u64, mode: Round) -> u64 {
    fma_scaled(format, a, b, c, 0, mode)
}

/// `(a * b + c) * 2^power`, rounded once.
pub fn fma_scaled(format: Format, a: u64, b: u64, c: u64, power: i32, mode: Round) -> u64 {
    if let Some(nan) = format.first_nan(&[a, b, c]) {
        return nan;
    }
    let negative = (a ^ b) & format.sign() != 0;
    if format.is_infinite(a) || format.is_infinite(b) {
        if format.is_zero(a) || format.is_zero(b) {
            return format.nan();
        }
        if format.is_infinite(c) && format.is_negative(c) != negative {
            return format.nan();
        }
        return format.signed(negative, format.infinity());
    }
    if format.is_infinite(c) {
        return c;
    }
    let (x, y) = (product(format, a, b), format.split(c));
    if x.significand == 0 && y.significand == 0 {
        return if x.negative == y.negative { c } else { cancelled(format, mode) };
    }
    match x.plus(y) {
        Some(sum) => round(format, Exact { exponent: sum.exponent + power, ..sum }, mode),
        None => cancelled(format, mode),
    }
}

/// `a / b`, rounded once.
pub fn div(format: Format, a: u64, b: u64, mode: Round) -> u64 {
    if let Some(nan) = format.first_nan(&[a, b]) {
        return nan;
    }
    let negative = (a ^ b) & format.sign() != 0;
    match (format.is_infinite(a), format.is_infinite(b)) {
        (true, true) => return format.nan(),
        (true, false) => return format.signed(negative, format.infinity()),
        (false, true) => return format.signed(negative, 0),
        _ => {}
    }
    if format.is_zero(b) {
        return if format.is_zero(a) { format.nan() } else { format.signed(negative, format.infinity()) };
    }
    if format.is_zero(a) {
        return format.signed(negative, 0);
    }
    let (x, y) = (format.split(a), format.split(b));
    let left = x.significand.leading_zeros() - 1;
    let dividend = x.significand << left;
    // A significand has at most 53 bits: the quotient has 73 or more.
    let quotient = Exact {
        negative,
        significand: dividend / y.significand,
        exponent: x.exponent - left as i32 - y.exponent,
        more: dividend % y.significand != 0,
    };
    round(format, quotient, mode)
}

/// The square root, rounded once.
pub fn sqrt(format: Format, a: u64, mode: Round) -> u64 {
    if format.is_nan(a) {
        return a | format.quiet();
    }
    if format.is_zero(a) {
        return a;
    }
    if format.is_negative(a) {
        return format.nan();
    }
    if format.is_infinite(a) {
        return a;
    }
    let x = format.split(a).aligned();
    // An even exponent, and a radicand of 124 or 125 bits.
    let (radicand, exponent) =
        if x.exponent & 1 == 0 { (x.significand, x.exponent) } else { (x.significand >> 1, x.exponent + 1) };
    let root = radicand.isqrt();
    let root =
        Exact { negative: false, significand: root, exponent: exponent / 2, more: root * root != radicand };
    round(format, root, mode)
}

/// A value of one format in another one. A NaN keeps the upper bits of its payload.
pub fn convert(from: Format, to: Format, bits: u64, mode: Round) -> u64 {
    let negative = from.is_negative(bits);
    if from.is_nan(bits) {
        let payload = from.magnitude(bits) & ((1 << from.fraction) - 1);
        let payload = if to.fraction >= from.fraction {
            payload << (to.fraction - from.fraction)
        } else {
            payload >> (from.fraction - to.fraction)
        };
        return to.signed(negative, to.nan() | payload);
    }
    if from.is_infinite(bits) {
        return to.signed(negative, to.infinity());
    }
    round(to, from.split(bits), mode)
}

/// An integer as a float.
pub fn from_integer(format: Format, value: i128, mode: Round) -> u64 {
    let exact = Exact { negative: value < 0, significand: value.unsigned_abs(), exponent: 0, more: false };
    round(format, exact, mode)
}

/// The value rounded to an integer, in its format.
pub fn integral(format: Format, bits: u64, mode: Round) -> u64 {
    if format.is_nan(bits) {
        return bits | format.quiet();
    }
    if format.biased(bits) >= format.bias() + format.fraction as i32 {
        return bits;
    }
    let x = format.split(bits);
    format.signed(x.negative, round(format, whole(x, mode), Round::TowardZero) & !format.sign())
}

/// A number rounded to an integer.
fn whole(x: Exact, mode: Round) -> Exact {
    if x.exponent >= 0 {
        return x;
    }
    let by = x.exponent.unsigned_abs();
    let (kept, half, rest) = if by > 127 {
        (0, false, x.significand != 0)
    } else {
        let half = x.significand >> (by - 1) & 1 != 0;
        (x.significand >> by, half, x.significand & ((1 << (by - 1)) - 1) != 0)
    };
    let up = rounds_up(mode, x.negative, kept & 1 != 0, half, rest);
    Exact { significand: kept + u128::from(up), exponent: 0, ..x }
}

/// The value as an integer of a range: NaN is 0, what lies outside is the nearer end.
pub fn to_integer(format: Format, bits: u64, mode: Round, least: i64, most: i64) -> i64 {
    if format.is_nan(bits) {
        return 0;
    }
    let negative = format.is_negative(bits);
    let beyond = if negative { least } else { most };
    if format.is_infinite(bits) || format.biased(bits) - format.bias() > 64 {
        return beyond;
    }
    let x = whole(format.split(bits), mode);
    let magnitude = (x.significand << x.exponent.max(0)) as i128;
    let value = if negative { -magnitude } else { magnitude };
    value.clamp(i128::from(least), i128::from(most)) as i64
}

/// `bits * 2^power`.
pub fn ldexp(format: Format, bits: u64, power: i32, mode: Round) -> u64 {
    if format.is_nan(bits) {
        return bits | format.quiet();
    }
    if format.is_infinite(bits) || format.is_zero(bits) {
        return bits;
    }
    let x = format.split(bits);
    // Far beyond every exponent, and no overflow of the sum.
    let power = power.clamp(-10_000, 10_000);
    round(format, Exact { exponent: x.exponent + power, ..x }, mode)
}

/// The order of two values; `None` with a NaN.
pub fn compare(format: Format, a: u64, b: u64) -> Option<Ordering> {
    if format.is_nan(a) || format.is_nan(b) {
        return None;
    }
    let key = |bits: u64| {
        let magnitude = format.magnitude(bits) as i64;
        if format.is_negative(bits) { -magnitude } else { magnitude }
    };
    Some(key(a).cmp(&key(b)))
}

/// Exponent and significand in [0.5, 1) of a finite value that is not zero.
pub fn frexp(format: Format, bits: u64) -> (i32, u64) {
    let x = format.split(bits);
    let highest = 127 - x.significand.leading_zeros() as i32;
    let exponent = highest + x.exponent + 1;
    (exponent, ldexp(format, bits, -exponent, Round::NearestEven))
}

#[cfg(test)]
pub(super) mod tests;
