//! The e8m0 codes that producers of MX scales choose: they round the exponent in different directions.
//!
//! Two correct producers may thus differ by one exponent step on part of the blocks.

use super::{DType, Overflow};

/// How a producer rounds a block's scale to a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// `2^(floor(log2 amax) - emax)` with `emax` the exponent of the element format's maximum: OCP MX 1.0, §6.3.
    /// Elements above the maximum saturate.
    Floor,
    /// `2^ceil(log2(amax / max))`: nothing saturates.
    Ceil,
    /// As `Floor`, after rounding `amax` half up to the element format's significand: AMD Quark's "even".
    Even,
}

/// The code of the largest power of two not above `x`; `0x00` for less than `2^-127` (zero too), `0xfe` for more
/// than `2^127`, NaN (`0xff`) for NaN and negative values.
pub fn floor(x: f64) -> u32 {
    if x.is_nan() || x < 0.0 {
        return 0xff;
    }
    ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023 + 127).clamp(0, 0xfe) as u32
}

/// The code of the smallest power of two not below `x`; the ends as [`floor`].
pub fn ceil(x: f64) -> u32 {
    let code = floor(x);
    if code < 0xfe && x > DType::E8M0.decode(code) { code + 1 } else { code }
}

/// The code of the nearest power of two, halfway values up: their significand is the even one.
pub(super) fn nearest(x: f64, overflow: Overflow) -> u32 {
    let code = floor(x);
    if code == 0xff {
        return code;
    }
    // 1.5 * 2^127 is nearer to 2^128.
    if overflow == Overflow::Special && (x == 0.0 || x >= 1.5 * DType::E8M0.max()) {
        return 0xff;
    }
    if code < 0xfe && x >= 1.5 * DType::E8M0.decode(code) { code + 1 } else { code }
}

/// The e8m0 code of a block's scale, from the largest magnitude in it and its element format.
///
/// `amax` of zero gives `0x00`, the smallest scale; NaN and infinity give NaN.
pub fn scale(amax: f64, element: DType, rounding: Rounding) -> u32 {
    if !amax.is_finite() || amax < 0.0 {
        return 0xff;
    }
    // A power of two below the f64 range would round on division by `max`; such an `amax` is below 2^-127 anyway.
    let emax = floor(element.max()) as i32 - 127;
    let shifted = |code_of: f64| floor(code_of * 2f64.powi(-emax));
    match rounding {
        Rounding::Floor => shifted(amax),
        Rounding::Ceil => ceil_ratio(amax, element.max()),
        Rounding::Even => {
            let man_bits = element.float().map_or(0, |f| f.man_bits);
            let bits = amax.to_bits() + (1u64 << (52 - man_bits - 1));
            shifted(f64::from_bits(bits))
        }
    }
}

/// The code of the smallest power of two `s` with `s * max >= amax`, without the rounding of a quotient.
fn ceil_ratio(amax: f64, max: f64) -> u32 {
    let mut code = floor(amax / max).saturating_sub(1);
    while code < 0xfe && DType::E8M0.decode(code) * max < amax {
        code += 1;
    }
    code
}
