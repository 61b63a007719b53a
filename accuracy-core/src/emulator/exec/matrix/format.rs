//! Number formats of the operands of matrix instructions, decoded for all lanes at once.
//!
//! The tables of [`crate::dtype`] are not used: the oracle reads numbers with those, and a fault in them must not be
//! here as well.

use super::super::super::isa::Processor;
use super::super::super::wave::{LANES, Lanes};

/// The most elements of A or B that one lane holds.
pub const MAX_ELEMENTS: usize = 32;

/// The type of the elements of A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F64,
    F32,
    /// Float32 of which the upper 19 bits count.
    Xf32,
    F16,
    Bf16,
    /// 4 bits of exponent, 3 of significand: FNUZ on gfx942, OCP's on gfx950.
    Fp8,
    /// 5 bits of exponent, 2 of significand: FNUZ on gfx942, OCP's on gfx950.
    Bf8,
    /// OCP's E2M3.
    Fp6,
    /// OCP's E3M2.
    Bf6,
    /// OCP's E2M1.
    Fp4,
    I8,
    /// One of fp8, bf8, fp6, bf6 and fp4, which the instruction names in `cbsz` (A) and `blgp` (B).
    Selected,
}

impl Element {
    pub const fn bits(self) -> usize {
        match self {
            Element::F64 => 64,
            Element::F32 | Element::Xf32 => 32,
            Element::F16 | Element::Bf16 => 16,
            Element::Fp8 | Element::Bf8 | Element::I8 | Element::Selected => 8,
            Element::Fp6 | Element::Bf6 => 6,
            Element::Fp4 => 4,
        }
    }

    /// The format that `cbsz` or `blgp` selects in an f8f6f4 instruction.
    pub const fn selected(code: u8) -> Option<Element> {
        match code {
            0 => Some(Element::Fp8),
            1 => Some(Element::Bf8),
            2 => Some(Element::Fp6),
            3 => Some(Element::Bf6),
            4 => Some(Element::Fp4),
            _ => None,
        }
    }

    /// How the bits of a small float are read; `None` for the other types.
    const fn small(self, processor: Processor) -> Option<Small> {
        // A magnitude that no code has.
        const NEVER: u32 = u32::MAX;
        let fnuz = matches!(processor, Processor::Gfx942);
        let (width, significand, bias, infinity, nan, nan_code) = match self {
            Element::F16 => (16, 10, 15, 0x7c00, 0x7c01, NEVER),
            Element::Fp8 if fnuz => (8, 3, 8, NEVER, NEVER, 0x80),
            Element::Bf8 if fnuz => (8, 2, 16, NEVER, NEVER, 0x80),
            Element::Fp8 => (8, 3, 7, NEVER, 0x7f, NEVER),
            Element::Bf8 => (8, 2, 15, 0x7c, 0x7d, NEVER),
            Element::Fp6 => (6, 3, 1, NEVER, NEVER, NEVER),
            Element::Bf6 => (6, 2, 3, NEVER, NEVER, NEVER),
            Element::Fp4 => (4, 1, 1, NEVER, NEVER, NEVER),
            _ => return None,
        };
        Some(Small { width, significand, bias, infinity, nan, nan_code })
    }
}

/// A float of at most 16 bits: one bit of sign, then the exponent, then the significand.
#[derive(Clone, Copy)]
struct Small {
    width: u32,
    /// Bits of the significand that are stored.
    significand: u32,
    bias: u32,
    /// The code of infinity without its sign.
    infinity: u32,
    /// The least code without a sign that is NaN.
    nan: u32,
    /// A single code, with its sign, that is NaN.
    nan_code: u32,
}

/// One operand, decoded: the elements of all lanes.
pub struct Side {
    /// Values by element and lane.
    pub value: Box<[[f32; LANES]; MAX_ELEMENTS]>,
    /// The power of two that belongs to each value: the value divided by it is in [1, 2), or less for a subnormal, whose
    /// power is that of the least normal number. 0 for zero, infinities and NaN.
    pub power: Box<[[f32; LANES]; MAX_ELEMENTS]>,
    /// Whether an infinity or a NaN is among them.
    pub special: bool,
    /// The least and the largest power, zeros left out.
    pub least: f32,
    pub largest: f32,
}

impl Default for Side {
    fn default() -> Side {
        let zeros = || Box::new([[0.0; LANES]; MAX_ELEMENTS]);
        Side { value: zeros(), power: zeros(), special: false, least: f32::INFINITY, largest: 0.0 }
    }
}

/// The quiet NaN without a payload.
pub const NAN: u32 = 0x7fc0_0000;

/// The code of one element in each lane.
#[inline(always)]
fn codes(registers: &[Lanes], element: usize, bits: usize) -> [u32; LANES] {
    let (register, shift) = (element * bits / 32, element * bits % 32);
    let mask = u32::MAX >> (32 - bits);
    let low = &registers[register].0;
    let mut out = [0; LANES];
    if shift + bits <= 32 {
        for (out, low) in out.iter_mut().zip(low) {
            *out = low >> shift & mask;
        }
    } else {
        let high = &registers[register + 1].0;
        for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
            *out = (low >> shift | high << (32 - shift)) & mask;
        }
    }
    out
}

impl Small {
    #[inline(always)]
    fn decode(self, code: u32) -> f32 {
        let magnitude = code & ((1 << (self.width - 1)) - 1);
        let sign = (code >> (self.width - 1)) << 31;
        let normal = (magnitude << (23 - self.significand)) + ((127 - self.bias) << 23);
        // Exponent 0 stands for the exponent of 1.
        let unit = f32::from_bits((128 - self.bias - self.significand) << 23);
        let subnormal = (magnitude as i32 as f32 * unit).to_bits();
        let finite = if magnitude >> self.significand == 0 { subnormal } else { normal };
        let bits = if magnitude == self.infinity { 0x7f80_0000 } else { finite };
        let nan = magnitude >= self.nan || code == self.nan_code;
        f32::from_bits(if nan { NAN } else { bits | sign })
    }
}

impl Side {
    /// Decodes `count` elements a lane. `element` is not [`Element::F64`] and not [`Element::Selected`].
    #[inline(always)]
    pub fn decode(&mut self, element: Element, processor: Processor, registers: &[Lanes], count: usize) {
        let bits = element.bits();
        for (index, value) in self.value[..count].iter_mut().enumerate() {
            let codes = codes(registers, index, bits);
            match element.small(processor) {
                Some(small) => {
                    for (value, code) in value.iter_mut().zip(codes) {
                        *value = small.decode(code);
                    }
                }
                None => match element {
                    Element::I8 => {
                        for (value, code) in value.iter_mut().zip(codes) {
                            *value = f32::from(code as u8 as i8);
                        }
                    }
                    Element::Bf16 => {
                        for (value, code) in value.iter_mut().zip(codes) {
                            *value = f32::from_bits(code << 16);
                        }
                    }
                    Element::Xf32 => {
                        for (value, code) in value.iter_mut().zip(codes) {
                            *value = f32::from_bits(code & 0xffff_e000);
                        }
                    }
                    _ => {
                        for (value, code) in value.iter_mut().zip(codes) {
                            *value = f32::from_bits(code);
                        }
                    }
                },
            }
        }
    }

    /// Finds the powers of the decoded values.
    #[inline(always)]
    pub fn find_powers(&mut self, element: Element, processor: Processor, count: usize) {
        let least_normal = match element.small(processor) {
            Some(small) => (128 - small.bias) << 23,
            None => 1 << 23,
        };
        let (mut least, mut largest) = ([u32::MAX; LANES], [0; LANES]);
        for (values, powers) in self.value[..count].iter().zip(&mut self.power[..count]) {
            for lane in 0..LANES {
                let exponent = values[lane].to_bits() & 0x7f80_0000;
                let power = exponent.max(least_normal);
                let zero = values[lane].to_bits() << 1 == 0;
                let power = if zero { 0 } else { power };
                largest[lane] = largest[lane].max(power);
                // Zeros wrap around to the largest number.
                least[lane] = least[lane].min(power.wrapping_sub(1));
                powers[lane] = f32::from_bits(if exponent == 0x7f80_0000 { 0 } else { power });
            }
        }
        let largest = largest.into_iter().fold(0, u32::max);
        let least = least.into_iter().fold(u32::MAX, u32::min);
        self.special = largest == 0x7f80_0000;
        self.largest = f32::from_bits(largest);
        self.least = if least == u32::MAX { f32::INFINITY } else { f32::from_bits(least + 1) };
    }
}
