//! Blocks of quantised values in GGUF files: what each of their bytes means.
//!
//! Formats of one factor a group become codes and scales. Those that add a minimum have no counterpart in codes and zero
//! points: they are decoded to float32, which is what ggml computes.

use crate::dtype::{DType, E8M0, F16, Overflow};
use crate::quant::Granularity;

/// A block format of GGUF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Block {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Mxfp4,
}

/// What IQ4_NL's codes stand for.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// A weight decoded from blocks.
pub(in crate::weights) struct Decoded {
    /// Packed, row-major.
    pub codes: Vec<u8>,
    /// One for each group of the rows; empty where the codes are the values.
    pub scales: Vec<f64>,
    pub zero_points: Vec<f64>,
}

impl Block {
    pub const ALL: [Block; 12] = [
        Block::Q4_0,
        Block::Q4_1,
        Block::Q5_0,
        Block::Q5_1,
        Block::Q8_0,
        Block::Q2K,
        Block::Q3K,
        Block::Q4K,
        Block::Q5K,
        Block::Q6K,
        Block::Iq4Nl,
        Block::Mxfp4,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Block::Q4_0 => "GGUF Q4_0",
            Block::Q4_1 => "GGUF Q4_1",
            Block::Q5_0 => "GGUF Q5_0",
            Block::Q5_1 => "GGUF Q5_1",
            Block::Q8_0 => "GGUF Q8_0",
            Block::Q2K => "GGUF Q2_K",
            Block::Q3K => "GGUF Q3_K",
            Block::Q4K => "GGUF Q4_K",
            Block::Q5K => "GGUF Q5_K",
            Block::Q6K => "GGUF Q6_K",
            Block::Iq4Nl => "GGUF IQ4_NL",
            Block::Mxfp4 => "GGUF MXFP4",
        }
    }

    /// Values of a block.
    pub fn values(self) -> usize {
        match self {
            Block::Q2K | Block::Q3K | Block::Q4K | Block::Q5K | Block::Q6K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Block::Q4_0 | Block::Iq4Nl => 18,
            Block::Q4_1 => 20,
            Block::Q5_0 => 22,
            Block::Q5_1 => 24,
            Block::Q8_0 => 34,
            Block::Q2K => 84,
            Block::Q3K => 110,
            Block::Q4K => 144,
            Block::Q5K => 176,
            Block::Q6K => 210,
            Block::Mxfp4 => 17,
        }
    }

    /// Whether a value is `scale · code + minimum`.
    pub fn has_minimum(self) -> bool {
        matches!(self, Block::Q4_1 | Block::Q5_1 | Block::Q2K | Block::Q4K | Block::Q5K)
    }

    /// What codes are read as.
    pub fn dtype(self) -> DType {
        match self {
            _ if self.has_minimum() => DType::F32,
            Block::Q4_0 => DType::U4,
            Block::Mxfp4 => DType::E2M1,
            _ => DType::I8,
        }
    }

    /// The format of the scales, where there are any: a product of two stored ones fits in float32.
    pub fn scale_dtype(self) -> Option<DType> {
        match self {
            _ if self.has_minimum() => None,
            Block::Q3K | Block::Q6K => Some(DType::F32),
            Block::Mxfp4 => Some(E8M0),
            _ => Some(F16),
        }
    }

    pub fn granularity(self) -> Granularity {
        match self {
            _ if self.has_minimum() => Granularity::Tensor,
            Block::Q3K | Block::Q6K => Granularity::Group(16),
            _ => Granularity::Group(32),
        }
    }

    /// Reads whole blocks, which lie one after the other along the rows.
    pub(in crate::weights) fn decode(self, bytes: &[u8]) -> Decoded {
        let mut codes: Vec<i32> = Vec::new();
        let mut scales = Vec::new();
        let mut values = Vec::new();
        for block in bytes.chunks_exact(self.bytes()) {
            match self {
                Block::Q4_0 => {
                    scales.push(half(block, 0));
                    codes.extend(halves(&block[2..18]).map(i32::from));
                }
                Block::Iq4Nl => {
                    scales.push(half(block, 0));
                    codes.extend(halves(&block[2..18]).map(|q| i32::from(NON_LINEAR[usize::from(q)])));
                }
                Block::Mxfp4 => {
                    scales.push(E8M0.decode(u32::from(block[0])));
                    // ggml has no negative zero.
                    codes.extend(halves(&block[1..17]).map(|q| if q == 8 { 0 } else { i32::from(q) }));
                }
                Block::Q5_0 => {
                    scales.push(half(block, 0));
                    codes.extend(five_bits(&block[2..22]).map(|q| i32::from(q) - 16));
                }
                Block::Q8_0 => {
                    scales.push(half(block, 0));
                    codes.extend(block[2..34].iter().map(|&q| i32::from(q as i8)));
                }
                Block::Q3K => three_bits(block, &mut codes, &mut scales),
                Block::Q6K => six_bits(block, &mut codes, &mut scales),
                Block::Q4_1 => {
                    let (scale, minimum) = (half(block, 0), half(block, 2));
                    values.extend(halves(&block[4..20]).map(|q| scale * f64::from(q) + minimum));
                }
                Block::Q5_1 => {
                    let (scale, minimum) = (half(block, 0), half(block, 2));
                    values.extend(five_bits(&block[4..24]).map(|q| scale * f64::from(q) + minimum));
                }
                Block::Q2K => two_bits(block, &mut values),
                Block::Q4K => four_or_five_bits(block, &[0; 32], &block[16..144], &mut values),
                Block::Q5K => four_or_five_bits(block, &block[16..48], &block[48..176], &mut values),
            }
        }
        if self.has_minimum() {
            // Product and minimum are exact in float64, so this rounds once, as float32 arithmetic on exact products does.
            let codes = DType::F32.encode_bytes(&values, Overflow::Special);
            return Decoded { codes, scales: Vec::new(), zero_points: Vec::new() };
        }
        let zero_points = if self == Block::Q4_0 { vec![8.0; scales.len()] } else { Vec::new() };
        Decoded { codes: self.dtype().pack(codes.into_iter().map(|c| c as u32 & 0xff)), scales, zero_points }
    }
}

/// The float16 at a byte.
fn half(block: &[u8], at: usize) -> f64 {
    F16.decode(u32::from(u16::from_le_bytes([block[at], block[at + 1]])))
}

/// 32 nibbles: the low ones of all bytes, then the high ones.
fn halves(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|b| b & 0xf).chain(bytes.iter().map(|b| b >> 4))
}

/// 32 codes of five bits: their highest bits in a word, then the nibbles.
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    halves(&bytes[4..20]).enumerate().map(move |(i, q)| q | ((high >> i & 1) as u8) << 4)
}

/// Q2_K: 16 nibble pairs of scale and minimum, 256 codes, and a factor for each of the two.
fn two_bits(block: &[u8], values: &mut Vec<f64>) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for i in 0..256 {
        let (part, group, l) = (i / 128, i % 128 / 32, i % 32);
        let of_group = block[8 * part + 2 * group + l / 16];
        let code = block[16 + 32 * part + l] >> (2 * group) & 3;
        let (s, m) = (f64::from(of_group & 0xf), f64::from(of_group >> 4));
        values.push(scale * s * f64::from(code) - minimum * m);
    }
}

/// Q3_K: the codes' highest bits, their lower two, 16 scales of six bits, and a factor.
fn three_bits(block: &[u8], codes: &mut Vec<i32>, scales: &mut Vec<f64>) {
    let factor = half(block, 108);
    let packed = &block[96..108];
    for i in 0..16 {
        let low = packed[i % 8] >> (4 * (i / 8)) & 0xf;
        let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        scales.push(factor * (f64::from(low | high << 4) - 32.0));
    }
    for i in 0..256 {
        let (part, group, l) = (i / 128, i % 128 / 32, i % 32);
        let low = block[32 + 32 * part + l] >> (2 * group) & 3;
        let high = block[l] >> (4 * part + group) & 1;
        codes.push(i32::from(low) - if high == 1 { 0 } else { 4 });
    }
}

/// Q4_K and Q5_K: two factors, eight scales and minimums of six bits, the fifth bits, the nibbles.
fn four_or_five_bits(block: &[u8], fifth: &[u8], nibbles: &[u8], values: &mut Vec<f64>) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    let of_group = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 0xf | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    for group in 0..8 {
        let (s, m) = of_group(group);
        let (s, m) = (scale * f64::from(s), minimum * f64::from(m));
        for l in 0..32 {
            let nibble = nibbles[group / 2 * 32 + l] >> (4 * (group % 2)) & 0xf;
            let code = nibble | (fifth[l] >> group & 1) << 4;
            values.push(s * f64::from(code) - m);
        }
    }
}

/// Q6_K: the codes' lower four bits, their upper two, 16 signed scales, and a factor.
fn six_bits(block: &[u8], codes: &mut Vec<i32>, scales: &mut Vec<f64>) {
    let factor = half(block, 208);
    scales.extend(block[192..208].iter().map(|&s| factor * f64::from(s as i8)));
    for i in 0..256 {
        let (part, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = block[64 * part + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 0xf;
        let high = block[128 + 32 * part + l] >> (2 * quarter) & 3;
        codes.push(i32::from(low | high << 4) - 32);
    }
}
