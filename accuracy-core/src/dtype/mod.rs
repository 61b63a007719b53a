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

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use fnuz::{Fnuz, FnuzError, to_fnuz};
pub use nibbles::NibbleOrder;

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// OCP FP8 e4m3: bias 7, maximum 448, NaN at `0x7f` and `0xff`, no infinities. `F8_E4M3` in safetensors.
    E4M3Fn,
    /// e4m3 of gfx942: bias 8, maximum 240, NaN at `0x80`, no infinities, no negative zero.
    E4M3Fnuz,
    /// OCP FP8 e5m2: bias 15, maximum 57344, infinities at `0x7c` and `0xfc`, NaN above them.
    E5M2,
    /// e5m2 of gfx942: bias 16, maximum 57344, NaN at `0x80`, no infinities, no negative zero.
    E5M2Fnuz,
    /// MXFP6 e3m2: bias 3, maximum 28, neither NaN nor infinities.
    E3M2,
    /// MXFP6 e2m3: bias 1, maximum 7.5, neither NaN nor infinities.
    E2M3,
    /// FP4 e2m1 (MXFP4, NVFP4): bias 1, ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}, neither NaN nor infinities.
    E2M1,
    /// The scale of MX formats: `2^(code - 127)`, NaN at `0xff`, neither sign nor zero.
    E8M0,
    /// Signed 8-bit integer.
    I8,
    /// Signed 4-bit integer in two's complement, -8 to 7.
    I4,
    /// Unsigned 4-bit integer, 0 to 15. Offset-binary int4 ("value + 8") is this format with a zero point of 8.
    U4,
    /// Signed 32-bit integer: int8 accumulators.
    I32,
}

pub const F32: DType = DType::F32;
pub const F16: DType = DType::F16;
pub const BF16: DType = DType::BF16;
pub const E4M3FN: DType = DType::E4M3Fn;
pub const E4M3FNUZ: DType = DType::E4M3Fnuz;
pub const E5M2: DType = DType::E5M2;
pub const E5M2FNUZ: DType = DType::E5M2Fnuz;
pub const E3M2: DType = DType::E3M2;
pub const E2M3: DType = DType::E2M3;
pub const E2M1: DType = DType::E2M1;
pub const E8M0: DType = DType::E8M0;
pub const INT8: DType = DType::I8;
pub const INT4: DType = DType::I4;
pub const UINT4: DType = DType::U4;
pub const INT32: DType = DType::I32;

/// What [`DType::encode`] makes of a value that rounds to more than the largest finite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Overflow {
    /// The largest finite value of the same sign; infinities too.
    Saturate,
    /// Infinity where the format has one, else NaN where it has one, else the largest finite value.
    Special,
}

impl DType {
    pub const ALL: &[DType] =
        &[F32, F16, BF16, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E3M2, E2M3, E2M1, E8M0, INT8, INT4, UINT4, INT32];

    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::E4M3Fn => "e4m3fn",
            DType::E4M3Fnuz => "e4m3fnuz",
            DType::E5M2 => "e5m2",
            DType::E5M2Fnuz => "e5m2fnuz",
            DType::E3M2 => "e3m2",
            DType::E2M3 => "e2m3",
            DType::E2M1 => "e2m1",
            DType::E8M0 => "e8m0",
            DType::I8 => "int8",
            DType::I4 => "int4",
            DType::U4 => "uint4",
            DType::I32 => "int32",
        }
    }

    /// Bits of one code.
    pub fn bits(self) -> u32 {
        match self {
            DType::F32 | DType::I32 => 32,
            DType::F16 | DType::BF16 => 16,
            DType::E3M2 | DType::E2M3 => 6,
            DType::E2M1 | DType::I4 | DType::U4 => 4,
            DType::E4M3Fn | DType::E4M3Fnuz | DType::E5M2 | DType::E5M2Fnuz | DType::E8M0 | DType::I8 => 8,
        }
    }

    /// The largest finite value.
    pub fn max(self) -> f64 {
        match self {
            DType::F32 => f64::from(f32::MAX),
            DType::F16 => 65504.0,
            DType::BF16 => f64::from(f32::from_bits(0x7f7f_0000)),
            DType::E4M3Fn => 448.0,
            DType::E4M3Fnuz => 240.0,
            DType::E5M2 | DType::E5M2Fnuz => 57344.0,
            DType::E3M2 => 28.0,
            DType::E2M3 => 7.5,
            DType::E2M1 => 6.0,
            DType::E8M0 => 2f64.powi(127),
            DType::I8 => 127.0,
            DType::I4 => 7.0,
            DType::U4 => 15.0,
            DType::I32 => f64::from(i32::MAX),
        }
    }

    /// The lowest finite value: `-max()` for signed floats, one less for signed integers, the smallest positive
    /// value for [`DType::E8M0`].
    pub fn min(self) -> f64 {
        match self {
            DType::E8M0 => 2f64.powi(-127),
            DType::U4 => 0.0,
            DType::I8 | DType::I4 | DType::I32 => -self.max() - 1.0,
            DType::F32
            | DType::F16
            | DType::BF16
            | DType::E4M3Fn
            | DType::E4M3Fnuz
            | DType::E5M2
            | DType::E5M2Fnuz
            | DType::E3M2
            | DType::E2M3
            | DType::E2M1 => -self.max(),
        }
    }

    /// The smallest positive value: the smallest subnormal where the format has subnormals.
    pub fn min_positive(self) -> f64 {
        match codec::float(self) {
            Some(f) => 2f64.powi(1 - f.bias - f.man_bits as i32),
            None if self == DType::E8M0 => 2f64.powi(-127),
            None => 1.0,
        }
    }

    /// The smallest positive value that is no subnormal; `None` for a format without subnormals.
    pub fn min_normal(self) -> Option<f64> {
        codec::float(self).map(|f| 2f64.powi(1 - f.bias))
    }

    /// All codes that are NaN, ascending.
    pub fn nan_codes(self) -> &'static [RangeInclusive<u32>] {
        match self {
            DType::F32 => &[0x7f80_0001..=0x7fff_ffff, 0xff80_0001..=0xffff_ffff],
            DType::F16 => &[0x7c01..=0x7fff, 0xfc01..=0xffff],
            DType::BF16 => &[0x7f81..=0x7fff, 0xff81..=0xffff],
            DType::E4M3Fn => &[0x7f..=0x7f, 0xff..=0xff],
            DType::E4M3Fnuz | DType::E5M2Fnuz => &[0x80..=0x80],
            DType::E5M2 => &[0x7d..=0x7f, 0xfd..=0xff],
            DType::E8M0 => &[0xff..=0xff],
            DType::E3M2 | DType::E2M3 | DType::E2M1 => &[],
            DType::I8 | DType::I4 | DType::U4 | DType::I32 => &[],
        }
    }

    pub fn is_nan_code(self, code: u32) -> bool {
        self.nan_codes().iter().any(|range| range.contains(&code))
    }

    /// The codes of plus and minus infinity.
    pub fn infinity_codes(self) -> Option<[u32; 2]> {
        match self {
            DType::F32 => Some([0x7f80_0000, 0xff80_0000]),
            DType::F16 => Some([0x7c00, 0xfc00]),
            DType::BF16 => Some([0x7f80, 0xff80]),
            DType::E5M2 => Some([0x7c, 0xfc]),
            _ => None,
        }
    }

    pub fn is_fp8(self) -> bool {
        matches!(self, DType::E4M3Fn | DType::E4M3Fnuz | DType::E5M2 | DType::E5M2Fnuz)
    }

    /// Stored bits of the significand; `None` for what is no small float.
    fn significand_bits(self) -> Option<u32> {
        codec::float(self).map(|f| f.man_bits)
    }

    /// Whether the format has an exponent; e8m0 has nothing else.
    pub fn is_float(self) -> bool {
        !self.is_integer()
    }

    pub fn is_integer(self) -> bool {
        matches!(self, DType::I8 | DType::I4 | DType::U4 | DType::I32)
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
