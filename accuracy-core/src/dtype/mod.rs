//! Number formats of inference: names, ranges, special codes, decode, encode and packing.
//!
//! What lives here: single values and runs of codes. How values share scales is in [`crate::quant`], the order of
//! codes and scales in memory in [`crate::layout`], which hardware reads what in [`crate::arch`].
//!
//! Sources: OCP 8-bit Floating Point Specification 1.0 (e4m3fn, e5m2), OCP Microscaling Formats 1.0 (e3m2, e2m3,
//! e2m1, e8m0), arXiv:2206.02915 (the `fnuz` formats).

mod codec;
pub mod e8m0;
mod fnuz;
mod nibbles;

use codec::Float;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use fnuz::{Fnuz, FnuzError, to_fnuz};
pub use nibbles::NibbleOrder;

/// Declares every format once: its variant, its constant and its [`Row`]. `DType`, [`DType::ALL`] and [`DType::row`] are
/// made of these rows, so a format that is added cannot be left out of one of them.
macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident as $constant:ident: $row:expr;)*) => {
        /// A number format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        $(pub const $constant: DType = DType::$variant;)*

        impl DType {
            pub const ALL: &[DType] = &[$(DType::$variant),*];

            /// What is particular to the format.
            const fn row(self) -> &'static Row {
                match self {
                    $(DType::$variant => {
                        const ROW: Row = $row;
                        &ROW
                    })*
                }
            }
        }
    };
}

/// What is particular to one format. Everything else that is asked of a format follows from it.
struct Row {
    name: &'static str,
    /// Bits of one code.
    bits: u32,
    values: Values,
    /// The largest finite value, from the format's specification.
    max: f64,
    /// All codes that are NaN, ascending.
    nan: &'static [RangeInclusive<u32>],
    /// The format with the same bits and another bias, with which it is confused.
    twin: Option<DType>,
}

/// How a code becomes a value.
#[derive(Clone, Copy)]
enum Values {
    /// A sign, an exponent and a significand.
    Float(Float),
    /// `2^(code - 127)`; the largest code is NaN.
    PowerOfTwo,
    /// Two's complement.
    Signed,
    Unsigned,
}

/// `exp_bits` and `man_bits` of exponent and significand beside a sign bit, and the bias of the exponent.
const fn float(exp_bits: u32, man_bits: u32, bias: i32) -> Float {
    Float::new(exp_bits, man_bits, bias)
}

formats! {
    /// IEEE 754 binary32.
    F32 as F32: Row {
        name: "f32",
        bits: 32,
        values: Values::Float(float(8, 23, 127).with_infinity(0x7f80_0000, 0x7fc0_0000)),
        max: f32::MAX as f64,
        nan: &[0x7f80_0001..=0x7fff_ffff, 0xff80_0001..=0xffff_ffff],
        twin: None,
    };
    /// IEEE 754 binary16.
    F16 as F16: Row {
        name: "f16",
        bits: 16,
        values: Values::Float(float(5, 10, 15).with_infinity(0x7c00, 0x7e00)),
        max: 65504.0,
        nan: &[0x7c01..=0x7fff, 0xfc01..=0xffff],
        twin: None,
    };
    /// bfloat16: the upper half of a binary32.
    BF16 as BF16: Row {
        name: "bf16",
        bits: 16,
        values: Values::Float(float(8, 7, 127).with_infinity(0x7f80, 0x7fc0)),
        max: f32::from_bits(0x7f7f_0000) as f64,
        nan: &[0x7f81..=0x7fff, 0xff81..=0xffff],
        twin: None,
    };
    /// OCP FP8 e4m3: bias 7, maximum 448, NaN at `0x7f` and `0xff`, no infinities. `F8_E4M3` in safetensors.
    E4M3Fn as E4M3FN: Row {
        name: "e4m3fn",
        bits: 8,
        values: Values::Float(float(4, 3, 7).with_nan_at_the_end()),
        max: 448.0,
        nan: &[0x7f..=0x7f, 0xff..=0xff],
        twin: Some(DType::E4M3Fnuz),
    };
    /// e4m3 of gfx942: bias 8, maximum 240, NaN at `0x80`, no infinities, no negative zero.
    E4M3Fnuz as E4M3FNUZ: Row {
        name: "e4m3fnuz",
        bits: 8,
        values: Values::Float(float(4, 3, 8).without_negative_zero()),
        max: 240.0,
        nan: &[0x80..=0x80],
        twin: Some(DType::E4M3Fn),
    };
    /// OCP FP8 e5m2: bias 15, maximum 57344, infinities at `0x7c` and `0xfc`, NaN above them.
    E5M2 as E5M2: Row {
        name: "e5m2",
        bits: 8,
        values: Values::Float(float(5, 2, 15).with_infinity(0x7c, 0x7e)),
        max: 57344.0,
        nan: &[0x7d..=0x7f, 0xfd..=0xff],
        twin: Some(DType::E5M2Fnuz),
    };
    /// e5m2 of gfx942: bias 16, maximum 57344, NaN at `0x80`, no infinities, no negative zero.
    E5M2Fnuz as E5M2FNUZ: Row {
        name: "e5m2fnuz",
        bits: 8,
        values: Values::Float(float(5, 2, 16).without_negative_zero()),
        max: 57344.0,
        nan: &[0x80..=0x80],
        twin: Some(DType::E5M2),
    };
    /// MXFP6 e3m2: bias 3, maximum 28, neither NaN nor infinities.
    E3M2 as E3M2: Row {
        name: "e3m2",
        bits: 6,
        values: Values::Float(float(3, 2, 3)),
        max: 28.0,
        nan: &[],
        twin: None,
    };
    /// MXFP6 e2m3: bias 1, maximum 7.5, neither NaN nor infinities.
    E2M3 as E2M3: Row {
        name: "e2m3",
        bits: 6,
        values: Values::Float(float(2, 3, 1)),
        max: 7.5,
        nan: &[],
        twin: None,
    };
    /// FP4 e2m1 (MXFP4, NVFP4): bias 1, ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}, neither NaN nor infinities.
    E2M1 as E2M1: Row {
        name: "e2m1",
        bits: 4,
        values: Values::Float(float(2, 1, 1)),
        max: 6.0,
        nan: &[],
        twin: None,
    };
    /// The scale of MX formats: `2^(code - 127)`, NaN at `0xff`, neither sign nor zero.
    E8M0 as E8M0: Row {
        name: "e8m0",
        bits: 8,
        values: Values::PowerOfTwo,
        max: codec::exp2(127),
        nan: &[0xff..=0xff],
        twin: None,
    };
    /// Signed 8-bit integer.
    I8 as INT8: Row { name: "int8", bits: 8, values: Values::Signed, max: 127.0, nan: &[], twin: None };
    /// Signed 4-bit integer in two's complement, -8 to 7.
    I4 as INT4: Row { name: "int4", bits: 4, values: Values::Signed, max: 7.0, nan: &[], twin: None };
    /// Unsigned 4-bit integer, 0 to 15. Offset-binary int4 ("value + 8") is this format with a zero point of 8.
    U4 as UINT4: Row { name: "uint4", bits: 4, values: Values::Unsigned, max: 15.0, nan: &[], twin: None };
    /// Signed 32-bit integer: int8 accumulators.
    I32 as INT32: Row { name: "int32", bits: 32, values: Values::Signed, max: i32::MAX as f64, nan: &[], twin: None };
}

/// What [`DType::encode`] makes of a value that rounds to more than the largest finite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Overflow {
    /// The largest finite value of the same sign; infinities too.
    Saturate,
    /// Infinity where the format has one, else NaN where it has one, else the largest finite value.
    Special,
}

impl DType {
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Bits of one code.
    pub fn bits(self) -> u32 {
        self.row().bits
    }

    /// The largest finite value.
    pub fn max(self) -> f64 {
        self.row().max
    }

    /// The lowest finite value: `-max()` for signed floats, one less for signed integers, the smallest positive
    /// value for [`DType::E8M0`].
    pub fn min(self) -> f64 {
        match self.row().values {
            Values::Float(_) => -self.max(),
            Values::PowerOfTwo => self.min_positive(),
            Values::Signed => -self.max() - 1.0,
            Values::Unsigned => 0.0,
        }
    }

    /// The smallest positive value: the smallest subnormal where the format has subnormals.
    pub fn min_positive(self) -> f64 {
        match self.row().values {
            Values::Float(f) => 2f64.powi(1 - f.bias - f.man_bits as i32),
            Values::PowerOfTwo => 2f64.powi(-127),
            Values::Signed | Values::Unsigned => 1.0,
        }
    }

    /// The smallest positive value that is no subnormal; `None` for a format without subnormals.
    pub fn min_normal(self) -> Option<f64> {
        self.float().map(|f| 2f64.powi(1 - f.bias))
    }

    /// Sign, exponent and significand; `None` for powers of two and integers.
    const fn float(self) -> Option<Float> {
        match self.row().values {
            Values::Float(f) => Some(f),
            Values::PowerOfTwo | Values::Signed | Values::Unsigned => None,
        }
    }

    /// Half a unit in the last place, relative to the value; `None` for powers of two and integers.
    pub(crate) fn half_unit(self) -> Option<f64> {
        self.float().map(|f| 2f64.powi(-(f.man_bits as i32) - 1))
    }

    /// All codes that are NaN, ascending.
    pub fn nan_codes(self) -> &'static [RangeInclusive<u32>] {
        self.row().nan
    }

    pub fn is_nan_code(self, code: u32) -> bool {
        self.nan_codes().iter().any(|range| range.contains(&code))
    }

    /// The codes of plus and minus infinity.
    pub fn infinity_codes(self) -> Option<[u32; 2]> {
        self.float()?.infinities()
    }

    pub fn is_fp8(self) -> bool {
        self.bits() == 8 && self.float().is_some()
    }

    /// Whether it is a variant of gfx942: no negative zero, whose code is the NaN.
    pub fn is_fnuz(self) -> bool {
        self.float().is_some_and(|f| f.unsigned_zero)
    }

    /// The FP8 variant with which this one is confused, because they share their codes: e4m3fn and e4m3fnuz, e5m2 and
    /// e5m2fnuz.
    pub fn twin(self) -> Option<DType> {
        self.row().twin
    }

    /// Whether the format has an exponent; e8m0 has nothing else.
    pub fn is_float(self) -> bool {
        !self.is_integer()
    }

    pub fn is_integer(self) -> bool {
        matches!(self.row().values, Values::Signed | Values::Unsigned)
    }

    /// Bytes that `count` packed codes take.
    pub fn packed_len(self, count: usize) -> usize {
        (count * self.bits() as usize).div_ceil(8)
    }

    /// The value of a code, exactly: each format here is a subset of f64. Bits above [`DType::bits`] are ignored.
    pub fn decode(self, code: u32) -> f64 {
        codec::decode(self, code)
    }

    /// The code of the value nearest to `x`, ties to the even significand, rounded once from f64.
    ///
    /// NaN gives a quiet NaN of the same sign where the format has one; without one, negative zero in e3m2, e2m3
    /// and e2m1 (as ml_dtypes has it) and 0 in the integers. A value that rounds to zero keeps its sign where the
    /// format has a negative zero. e8m0 has neither sign nor zero: negative values give NaN, and zero is an
    /// overflow at the lower end, `0x00` when saturating and NaN otherwise. See [`e8m0`] for the codes that
    /// producers of scales choose. Integers always saturate.
    pub fn encode(self, x: f64, overflow: Overflow) -> u32 {
        codec::encode(self, x, overflow)
    }

    /// The value nearest to `x`, ties to the even significand; beyond the format's range what it has for that.
    pub fn nearest(self, x: f64) -> f64 {
        self.decode(self.encode(x, Overflow::Special))
    }

    /// The code at `index` of a dense little-endian bit stream: low nibble first for 4 bits, little-endian words
    /// for 16 and 32, four codes in three bytes for 6.
    ///
    /// # Panics
    /// When `bytes` ends before that code.
    pub fn code_at(self, bytes: &[u8], index: usize) -> u32 {
        match self.bits() {
            4 => u32::from(bytes[index / 2] >> (4 * (index % 2))) & 0xf,
            6 => {
                let bit = index * 6;
                let low = u32::from(bytes[bit / 8]);
                let high = if bit % 8 > 2 { u32::from(bytes[bit / 8 + 1]) } else { 0 };
                (low | high << 8) >> (bit % 8) & 0x3f
            }
            8 => u32::from(bytes[index]),
            16 => u32::from(u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])),
            _ => {
                let b = &bytes[4 * index..4 * index + 4];
                u32::from_le_bytes([b[0], b[1], b[2], b[3]])
            }
        }
    }

    /// All whole codes of `bytes`, in the order of [`DType::code_at`].
    pub fn codes(self, bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> + '_ {
        (0..bytes.len() * 8 / self.bits() as usize).map(move |i| self.code_at(bytes, i))
    }

    /// The values of all whole codes of `bytes`, in the order of [`DType::code_at`].
    pub fn decode_bytes(self, bytes: &[u8]) -> Vec<f64> {
        // The formats that most buffers are in, without asking again for each code.
        let words = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match self {
            DType::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
            }
            DType::BF16 => words.map(|code| f32::from_bits(u32::from(code) << 16).into()).collect(),
            DType::F16 => words.map(|code| half::f16::from_bits(code).to_f64()).collect(),
            _ => self.codes(bytes).map(|code| self.decode(code)).collect(),
        }
    }

    /// Packs codes in the order of [`DType::code_at`]; the last byte is filled with zero bits.
    pub fn pack(self, codes: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let bits = self.bits();
        if bits == 8 {
            return codes.into_iter().map(|code| code as u8).collect();
        }
        let mut bytes = Vec::new();
        let (mut pending, mut filled) = (0u64, 0);
        for code in codes {
            pending |= (u64::from(code) & ((1 << bits) - 1)) << filled;
            filled += bits;
            while filled >= 8 {
                bytes.push(pending as u8);
                pending >>= 8;
                filled -= 8;
            }
        }
        if filled > 0 {
            bytes.push(pending as u8);
        }
        bytes
    }

    /// Encodes and packs: the inverse of [`DType::decode_bytes`].
    pub fn encode_bytes(self, values: &[f64], overflow: Overflow) -> Vec<u8> {
        self.pack(values.iter().map(|&x| self.encode(x, overflow)))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no [`DType`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no number format is called `{0}`; known: {known}", known = known_names())]
pub struct UnknownDType(pub String);

fn known_names() -> String {
    DType::ALL.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<Self, UnknownDType> {
        DType::ALL.iter().copied().find(|d| d.name() == name).ok_or_else(|| UnknownDType(name.to_owned()))
    }
}
