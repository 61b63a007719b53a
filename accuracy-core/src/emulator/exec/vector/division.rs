//! The steps of IEEE division: `v_div_scale` scales numerator and denominator out of the way of overflow and denormals,
//! `v_div_fmas` takes the scale out of the last refinement, `v_div_fixup` gives the special cases.
//!
//! AMD's pseudocode multiplies by 2^32 (2^64) in `v_div_fmas` and scales a huge denominator up. With that the quotients
//! would be wrong. What is here makes the compiler's sequence give the correctly rounded quotient: a huge denominator
//! is scaled down, the result is scaled by 2^64 (2^128) up or down, as the exponent of S2 says, and a refinement that
//! ended in NaN is an overflow.

use super::float::{ExactOp, exact_fma, finish16, finish32, finish64, float32_of, float64_of};
use super::integer::{lane_mask, write_mask};
use super::lanes::{float64_source, wide_map3, write64};
use super::operands::{Form, Rest, Room, begin, source, write, write16};
use crate::emulator::exec::number::{self, Exact, Format};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, LANES, Lanes, Round, Wave};

/// Scales one of the operands of a division: the result, and whether `v_div_fmas` has to take a scale out.
fn div_scale(format: Format, s0: u64, s1: u64, s2: u64, mode: Round) -> (u64, bool) {
    // Bits of scale, the distance that is near overflow, the exponent of a tiny numerator.
    let (scale, near, tiny) = if format == Format::F32 { (64, 96, 23) } else { (128, 768, 53) };
    let nearest = Round::NearestEven;
    let by = |power| number::ldexp(format, s0, power, mode);
    let one = (format.bias() as u64) << format.fraction;
    let is = |other: u64| number::compare(format, s0, other) == Some(std::cmp::Ordering::Equal);
    if format.is_zero(s2) || format.is_zero(s1) {
        return (format.nan(), false);
    }
    if format.biased(s2) - format.biased(s1) >= near {
        // The quotient is near the greatest number.
        return (if is(s1) { by(scale) } else { s0 }, true);
    }
    if format.is_denormal(s1) {
        return (by(scale), false);
    }
    let reciprocal = format.is_denormal(number::div(format, one, s1, nearest));
    let quotient = format.is_denormal(number::div(format, s2, s1, nearest));
    match (reciprocal, quotient) {
        (true, true) => (if is(s1) { by(-scale) } else { s0 }, true),
        (true, false) => (by(-scale), false),
        (false, true) => (if is(s2) { by(scale) } else { s0 }, true),
        (false, false) if format.biased(s2) <= tiny => (by(scale), false),
        (false, false) => (s0, false),
    }
}

/// Whether a lane needs no scaling, told from exponents alone.
#[inline(always)]
fn ordinary(s1: u32, s2: u32) -> bool {
    let exponent = |x: u32| (x >> 23 & 0xff) as i32;
    let (den, num) = (exponent(s1), exponent(s2));
    let distance = num - den;
    den > 0 && den < 252 && num > 23 && num < 255 && distance < 96 && distance > -125
}

pub fn v_div_scale_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::F32, y);
    let c = source(wave, inst, 2, 0, Form::F32, z);
    let mut out = *a;
    let mut scaled = 0;
    let mode = wave.mode.round32();
    for lane in 0..LANES {
        let (s0, s1, s2) = (a.0[lane], b.0[lane], c.0[lane]);
        if !ordinary(s1, s2) {
            let (value, bit) = div_scale(Format::F32, u64::from(s0), u64::from(s1), u64::from(s2), mode);
            out.0[lane] = value as u32;
            scaled |= u64::from(bit) << lane;
        }
    }
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    write_mask(wave, inst, inst.sdst, scaled);
    Flow::Next
}

pub fn v_div_scale_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 6];
    let [x, y, z, spare_x, spare_y, spare_z] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare_x);
    let b = float64_source(wave, inst, 1, y, spare_y);
    let c = float64_source(wave, inst, 2, z, spare_z);
    let word = |x: [&Lanes; 2], i: usize| u64::from(x[1].0[i]) << 32 | u64::from(x[0].0[i]);
    let mut out = [*a[0], *a[1]];
    let mut scaled = 0;
    let mode = wave.mode.round64_16();
    for lane in 0..LANES {
        let (s0, s1, s2) = (word(a, lane), word(b, lane), word(c, lane));
        let exponent = |x: u64| Format::F64.biased(x);
        let distance = exponent(s2) - exponent(s1);
        let middle = (1..2044).contains(&exponent(s1)) && (54..2047).contains(&exponent(s2));
        if middle && (-1021..768).contains(&distance) {
            continue;
        }
        let (value, bit) = div_scale(Format::F64, s0, s1, s2, mode);
        out[0].0[lane] = value as u32;
        out[1].0[lane] = (value >> 32) as u32;
        scaled |= u64::from(bit) << lane;
    }
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    write_mask(wave, inst, inst.sdst, scaled);
    Flow::Next
}

/// A fused multiply-add whose result is scaled before it is rounded.
fn scaled_fma(format: Format, a: u64, b: u64, c: u64, mode: Round) -> u64 {
    let scale = if format == Format::F32 { 64 } else { 128 };
    let power = if format.biased(c) > format.bias() { scale } else { -scale };
    number::fma_scaled(format, a, b, c, power, mode)
}

pub fn v_div_fmas_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let mask = lane_mask(wave, inst.src[3]);
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::F32, y);
    let c = source(wave, inst, 2, 0, Form::F32, z);
    let exact: ExactOp = exact_fma;
    let mut result = Room::uninit();
    let out = float32_of(wave, [a, b, c], exact, |a, b, c| a.mul_add(b, c), &mut result);
    let mode = wave.mode.round32();
    for lane in 0..LANES {
        if mask.0[lane] != 0 {
            let [a, b, c] = [a, b, c].map(|x| u64::from(x.0[lane]));
            out.0[lane] = scaled_fma(Format::F32, a, b, c, mode) as u32;
        }
    }
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

pub fn v_div_fmas_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 6];
    let [x, y, z, spare_x, spare_y, spare_z] = &mut rooms;
    let mask = lane_mask(wave, inst.src[3]);
    let a = float64_source(wave, inst, 0, x, spare_x);
    let b = float64_source(wave, inst, 1, y, spare_y);
    let c = float64_source(wave, inst, 2, z, spare_z);
    let mode = wave.mode.round64_16();
    let exact: ExactOp = exact_fma;
    let mut out = float64_of(wave, [a, b, c], exact, |a, b, c| a.mul_add(b, c));
    let word = |x: [&Lanes; 2], i: usize| u64::from(x[1].0[i]) << 32 | u64::from(x[0].0[i]);
    for lane in 0..LANES {
        if mask.0[lane] != 0 {
            let [a, b, c] = [a, b, c].map(|x| word(x, lane));
            let value = scaled_fma(Format::F64, a, b, c, mode);
            out[0].0[lane] = value as u32;
            out[1].0[lane] = (value >> 32) as u32;
        }
    }
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}

/// The quotient S0 of S2 and S1, or what a special case gives.
fn div_fixup(format: Format, s0: u64, s1: u64, s2: u64, mode: Round) -> u64 {
    let negative = (s1 ^ s2) & format.sign();
    if format.is_nan(s2) {
        return s2 | format.quiet();
    }
    if format.is_nan(s1) {
        return s1 | format.quiet();
    }
    let zero = (format.is_zero(s2), format.is_zero(s1));
    let infinite = (format.is_infinite(s2), format.is_infinite(s1));
    if zero == (true, true) || infinite == (true, true) {
        // The documents give these a sign.
        return format.sign() | format.nan();
    }
    if zero.1 || infinite.0 {
        return negative | format.infinity();
    }
    if infinite.1 || zero.0 {
        return negative;
    }
    let least = match format {
        Format::F32 => -150,
        Format::F64 => -1075,
        // Float16 has no such case.
        _ => i32::MIN,
    };
    if format.biased(s2) - format.biased(s1) < least {
        let tiny = Exact { negative: negative != 0, significand: 1, exponent: -4000, more: false };
        return number::round(format, tiny, mode);
    }
    if format.is_nan(s0) && format != Format::F16 {
        // The refinement of a quotient that is too large ends in infinity minus infinity. Float16 has no such step.
        let huge = Exact { negative: negative != 0, significand: 1, exponent: 4000, more: false };
        return number::round(format, huge, mode);
    }
    negative | format.magnitude(s0)
}

pub fn v_div_fixup_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::F32, y);
    let c = source(wave, inst, 2, 0, Form::F32, z);
    let mode = wave.mode.round32();
    let mut out = super::lanes::map3(a, b, c, |a, b, c| {
        if ordinary(b, c) && a & 0x7fff_ffff <= 0x7f80_0000 {
            a & 0x7fff_ffff | (b ^ c) & 0x8000_0000
        } else {
            div_fixup(Format::F32, u64::from(a), u64::from(b), u64::from(c), mode) as u32
        }
    });
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_div_fixup_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 6];
    let [x, y, z, spare_x, spare_y, spare_z] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare_x);
    let b = float64_source(wave, inst, 1, y, spare_y);
    let c = float64_source(wave, inst, 2, z, spare_z);
    let mode = wave.mode.round64_16();
    let mut out = wide_map3(a, b, c, |a, b, c| div_fixup(Format::F64, a, b, c, mode));
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}

fn fixup16(wave: &mut Wave, inst: &Inst, rest: Rest) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F16, x);
    let b = source(wave, inst, 1, 0, Form::F16, y);
    let c = source(wave, inst, 2, 0, Form::F16, z);
    let mode = wave.mode.round64_16();
    let mut out = super::lanes::map3(a, b, c, |a, b, c| {
        let [a, b, c] = [a, b, c].map(|x| u64::from(x & 0xffff));
        div_fixup(Format::F16, a, b, c, mode) as u32
    });
    finish16(wave, inst, &mut out);
    write16(wave, inst, rest, &mut out);
    Flow::Next
}

pub fn v_div_fixup_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    fixup16(wave, inst, Rest::Kept)
}

pub fn v_div_fixup_legacy_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    fixup16(wave, inst, Rest::Cleared)
}
