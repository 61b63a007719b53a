//! Decode by table, encode by scaling to an integer and rounding that once.

use super::{DType, Overflow, Values};

/// A sign bit, `exp_bits` of exponent and `man_bits` of significand; exponent field 0 holds the subnormals.
#[derive(Clone, Copy)]
pub(super) struct Float {
    pub man_bits: u32,
    pub bias: i32,
    /// Code of the largest finite value.
    max_code: u32,
    sign_bit: u32,
    /// No negative zero: its code is the NaN.
    pub unsigned_zero: bool,
    /// Code of plus infinity, of a positive quiet NaN.
    infinity: Option<u32>,
    nan: Option<u32>,
}

impl Float {
    /// A format all of whose codes are finite values.
    pub const fn new(exp_bits: u32, man_bits: u32, bias: i32) -> Float {
        let sign_bit = 1 << (exp_bits + man_bits);
        let max_code = sign_bit - 1;
        Float { man_bits, bias, max_code, sign_bit, unsigned_zero: false, infinity: None, nan: None }
    }

    /// As IEEE 754 has it: infinity at this code, NaN above it, and this NaN for what has no value.
    pub const fn with_infinity(self, infinity: u32, nan: u32) -> Float {
        Float { max_code: infinity - 1, infinity: Some(infinity), nan: Some(nan), ..self }
    }

    /// No infinities, and NaN at the last code of each sign.
    pub const fn with_nan_at_the_end(self) -> Float {
        Float { max_code: self.sign_bit - 2, nan: Some(self.sign_bit - 1), ..self }
    }

    /// `fnuz`: NaN in place of negative zero, and no infinities.
    pub const fn without_negative_zero(self) -> Float {
        Float { unsigned_zero: true, nan: Some(self.sign_bit), ..self }
    }

    /// The codes of plus and minus infinity.
    pub fn infinities(self) -> Option<[u32; 2]> {
        self.infinity.map(|code| [code, code | self.sign_bit])
    }
}

/// `2^e` for a normal f64 exponent.
pub(super) const fn exp2(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// The value of a code of at most 8 bits, for the tables.
const fn decode_small(dtype: DType, code: u32) -> f64 {
    let unused = 32 - dtype.row().bits;
    match dtype.row().values {
        Values::PowerOfTwo if code == 0xff => f64::NAN,
        Values::PowerOfTwo => exp2(code as i32 - 127),
        Values::Signed => ((code << unused) as i32 >> unused) as f64,
        Values::Unsigned => (code << unused >> unused) as f64,
        Values::Float(f) => {
            let code = code & (2 * f.sign_bit - 1);
            let magnitude = code & (f.sign_bit - 1);
            let negative = code & f.sign_bit != 0;
            let value = match f.infinity {
                _ if f.unsigned_zero && code == f.sign_bit => f64::NAN,
                Some(infinity) if magnitude == infinity => f64::INFINITY,
                _ if magnitude > f.max_code => f64::NAN,
                _ => {
                    let exponent = (magnitude >> f.man_bits) as i32;
                    let significand = magnitude & ((1 << f.man_bits) - 1);
                    let implicit = if exponent > 0 { 1 << f.man_bits } else { 0 };
                    let exponent = if exponent > 0 { exponent } else { 1 };
                    (significand + implicit) as f64 * exp2(exponent - f.bias - f.man_bits as i32)
                }
            };
            if negative { -value } else { value }
        }
    }
}

const fn table(dtype: DType) -> [f64; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = decode_small(dtype, code as u32);
        code += 1;
    }
    table
}

pub(super) fn decode(dtype: DType, code: u32) -> f64 {
    macro_rules! by_table {
        ($dtype:expr) => {{
            static TABLE: [f64; 256] = table($dtype);
            TABLE[(code & 0xff) as usize]
        }};
    }
    match dtype {
        DType::F32 => f64::from(f32::from_bits(code)),
        DType::F16 => half::f16::from_bits(code as u16).to_f64(),
        DType::BF16 => f64::from(f32::from_bits(code << 16)),
        DType::I32 => f64::from(code as i32),
        DType::E4M3Fn => by_table!(DType::E4M3Fn),
        DType::E4M3Fnuz => by_table!(DType::E4M3Fnuz),
        DType::E5M2 => by_table!(DType::E5M2),
        DType::E5M2Fnuz => by_table!(DType::E5M2Fnuz),
        DType::E3M2 => by_table!(DType::E3M2),
        DType::E2M3 => by_table!(DType::E2M3),
        DType::E2M1 => by_table!(DType::E2M1),
        DType::E8M0 => by_table!(DType::E8M0),
        DType::I8 => by_table!(DType::I8),
        DType::I4 => by_table!(DType::I4),
        DType::U4 => by_table!(DType::U4),
    }
}

pub(super) fn encode(dtype: DType, x: f64, overflow: Overflow) -> u32 {
    match dtype {
        DType::F32 if x.abs() <= f64::from(f32::MAX) => return (x as f32).to_bits(),
        DType::BF16 if (f64::from(f32::MIN_POSITIVE)..=DType::BF16.max()).contains(&x.abs()) => {
            return encode_bf16(x);
        }
        _ => {}
    }
    match dtype.row().values {
        Values::Float(f) => encode_float(f, x, overflow),
        Values::PowerOfTwo => super::e8m0::nearest(x, overflow),
        Values::Signed | Values::Unsigned => {
            // A saturating cast, which also takes NaN to 0.
            let code = x.round_ties_even().clamp(dtype.min(), dtype.max()) as i32;
            code as u32 & (u32::MAX >> (32 - dtype.bits()))
        }
    }
}

/// To the nearest integer, ties to even, below 2^51: from 2^52 on a float64 has no place for fractions. Processors from
/// before SSE 4.1 have no instruction for it, and a call costs as much as all the rest of an encoding.
fn round_small(x: f64) -> f64 {
    const LAST: f64 = 1.5 * (1u64 << 52) as f64;
    (x + LAST) - LAST
}

/// A normal number: 45 of the significand's 52 bits are rounded away, and the exponent's bias is another.
fn encode_bf16(x: f64) -> u32 {
    let bits = x.to_bits();
    let rounded = bits + ((1 << 44) - 1) + (bits >> 45 & 1);
    let magnitude = (rounded >> 45 & 0x3_ffff) as u32 - ((1023 - 127) << 7);
    (bits >> 63 << 15) as u32 | magnitude
}

fn encode_float(f: Float, x: f64, overflow: Overflow) -> u32 {
    let sign = if x.is_sign_negative() { f.sign_bit } else { 0 };
    if x.is_nan() {
        return match f.nan {
            Some(nan) => nan | sign,
            None => f.sign_bit,
        };
    }
    // Codes of finite values ascend with the magnitude, so `fraction` units above the code of `2^exponent` is the
    // code wanted, also where rounding carries into the next exponent.
    let emin = 1 - f.bias;
    let bits = x.abs().to_bits();
    let exponent = ((bits >> 52) as i32 - 1023).max(emin);
    let magnitude = if exponent > emin + (f.max_code >> f.man_bits) as i32 {
        u32::MAX
    } else {
        let units = round_small(x.abs() * exp2(f.man_bits as i32 - exponent)) as u32;
        (((exponent - emin) as u32) << f.man_bits) + units
    };
    if magnitude > f.max_code {
        return match overflow {
            Overflow::Saturate => f.max_code | sign,
            Overflow::Special => f.infinity.or(f.nan).unwrap_or(f.max_code) | sign,
        };
    }
    if magnitude == 0 && f.unsigned_zero { 0 } else { magnitude | sign }
}
