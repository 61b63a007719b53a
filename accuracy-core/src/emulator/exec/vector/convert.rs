//! Conversions between integers and floats of 16, 32 and 64 bits.

use super::float::{finish16, finish32, finish64, narrowed, overflow_to_greatest, widened};
use super::lanes::{choose, float64_source, map1, map2, map3, wide_map1, write64};
use super::operands::{Form, Rest, Room, begin, flush16, old, source, write, write16};
use crate::emulator::exec::number::{self, Exact, Format};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, Lanes, Round, Wave};

/// A result of 32 bits that is no float.
macro_rules! to_integer {
    ($($(#[$doc:meta])* $name:ident, $form:ident: |$a:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: u32) -> u32 {
                $body
            }
            super::lanes::unary(wave, inst, Form::$form, lane)
        }
    )*};
}

to_integer! {
    // Rust's casts are what the hardware does: toward zero, saturating, NaN to zero.
    v_cvt_u32_f32, F32: |a| to_u32(f32::from_bits(a));
    v_cvt_i32_f32, F32: |a| to_i32(f32::from_bits(a)) as u32;
    v_cvt_rpi_i32_f32, F32: |a| (f32::from_bits(a) + 0.5).floor() as i32 as u32;
    v_cvt_flr_i32_f32, F32: |a| f32::from_bits(a).floor() as i32 as u32;
}

/// As Rust's cast, in a form that becomes vector instructions.
#[inline(always)]
fn to_i32(x: f32) -> i32 {
    let inside = if x.abs() < 2_147_483_648.0 { x } else { 0.0 };
    // SAFETY: `inside` is a number whose whole part is an int32.
    let whole = unsafe { inside.to_int_unchecked::<i32>() };
    let whole = if x >= 2_147_483_648.0 { i32::MAX } else { whole };
    if x <= -2_147_483_648.0 { i32::MIN } else { whole }
}

/// As Rust's cast, in a form that becomes vector instructions.
#[inline(always)]
fn to_u32(x: f32) -> u32 {
    let upper = x >= 2_147_483_648.0;
    let rest = if upper { x - 2_147_483_648.0 } else { x };
    let rest = if (rest > 0.0) & (rest < 2_147_483_648.0) { rest } else { 0.0 };
    // SAFETY: `rest` is a number whose whole part is a positive int32.
    let whole = unsafe { rest.to_int_unchecked::<i32>() } as u32;
    let out = if upper { whole | 1 << 31 } else { whole };
    if x >= 4_294_967_296.0 { u32::MAX } else { out }
}

/// A float32 result; `exact` is for roundings other than to nearest.
macro_rules! to_float32 {
    ($($(#[$doc:meta])* $name:ident, $form:ident: |$a:ident| $fast:expr, |$b:ident, $mode:ident| $exact:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let a = source(wave, inst, 0, 0, Form::$form, &mut room);
            let $mode = wave.mode.round32();
            let mut out = if $mode == Round::NearestEven {
                map1(a, |$a| $fast)
            } else {
                map1(a, |$b| $exact as u32)
            };
            finish32(wave, inst, &mut out);
            write(wave, inst, 0, &out);
            Flow::Next
        }
    )*};
}

to_float32! {
    v_cvt_f32_i32, B32: |a| (a as i32 as f32).to_bits(),
        |a, mode| number::from_integer(Format::F32, i128::from(a as i32), mode);
    v_cvt_f32_u32, B32: |a| (a as f32).to_bits(),
        |a, mode| number::from_integer(Format::F32, i128::from(a), mode);
    v_cvt_f32_ubyte0, B32: |a| ((a & 0xff) as f32).to_bits(), |a, _mode| ((a & 0xff) as f32).to_bits();
    v_cvt_f32_ubyte1, B32: |a| ((a >> 8 & 0xff) as f32).to_bits(), |a, _mode| ((a >> 8 & 0xff) as f32).to_bits();
    v_cvt_f32_ubyte2, B32: |a| ((a >> 16 & 0xff) as f32).to_bits(), |a, _mode| ((a >> 16 & 0xff) as f32).to_bits();
    v_cvt_f32_ubyte3, B32: |a| ((a >> 24) as f32).to_bits(), |a, _mode| ((a >> 24) as f32).to_bits();
    /// A signed integer of 4 bits, divided by 16.
    v_cvt_off_f32_i4, B32: |a| (((a << 28) as i32 >> 28) as f32 / 16.0).to_bits(),
        |a, _mode| (((a << 28) as i32 >> 28) as f32 / 16.0).to_bits();
    v_cvt_f32_f16, F16: |a| quieted(widened(a & 0xffff).to_bits()), |a, _mode| quieted(widened(a & 0xffff).to_bits());
}

/// The bits of a bfloat16 are the upper half of a float32; MODE's denormals mean nothing here.
pub fn v_cvt_f32_bf16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let mut out = map1(source(wave, inst, 0, 0, Form::BF16, &mut room), |a| a << 16);
    if inst.clamp || inst.omod != 0 {
        finish32(wave, inst, &mut out);
    }
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A quiet NaN of any NaN.
#[inline(always)]
fn quieted(x: u32) -> u32 {
    if x & 0x7fff_ffff > 0x7f80_0000 { x | 0x40_0000 } else { x }
}

/// Narrows float32 to float16 in the rounding that MODE asks of float16.
#[inline(always)]
fn to_half(a: &Lanes, mode: Round) -> Lanes {
    #[inline(always)]
    fn lane(a: u32) -> u32 {
        narrowed(f32::from_bits(a))
    }
    if mode == Round::NearestEven {
        map1(a, lane)
    } else {
        map1(a, |a| number::convert(Format::F32, Format::F16, u64::from(a), mode) as u32)
    }
}

pub fn v_cvt_f16_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let a = source(wave, inst, 0, 0, Form::F32, &mut room);
    let mut out = to_half(a, wave.mode.round64_16());
    overflow_to_greatest(wave, &mut out, |lane| a.0[lane] & 0x7fff_ffff != 0x7f80_0000);
    finish16(wave, inst, &mut out);
    write16(wave, inst, Rest::Cleared, &mut out);
    Flow::Next
}

/// Two float32 as float16 in one register.
fn pack_half(wave: &mut Wave, inst: &Inst, mode: Round) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let narrow = |a: &Lanes| {
        let mut out = if mode == Round::TowardZero { map1(a, truncated) } else { to_half(a, mode) };
        if mode != Round::TowardZero {
            overflow_to_greatest(wave, &mut out, |lane| a.0[lane] & 0x7fff_ffff != 0x7f80_0000);
        }
        finish16(wave, inst, &mut out);
        out
    };
    let low = narrow(source(wave, inst, 0, 0, Form::F32, x));
    let high = narrow(source(wave, inst, 1, 0, Form::F32, y));
    let out = map2(&low, &high, |low, high| low & 0xffff | high << 16);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A float32 as float16, rounded toward zero, without a branch.
#[inline(always)]
fn truncated(bits: u32) -> u32 {
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude.wrapping_sub(0x3800_0000) >> 13;
    // Rounded to a multiple of 2^-24 first, and one less if that went up.
    let value = f32::from_bits(magnitude);
    let near = (value + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let up = near as i32 as f32 * f32::from_bits(0x3380_0000) > value;
    let small = near.wrapping_sub(u32::from(up));
    let finite = choose(magnitude < 0x3880_0000, small, normal);
    let finite = choose(magnitude >= 0x4780_0000, 0x7bff, finite);
    let out = choose(magnitude == 0x7f80_0000, 0x7c00, finite);
    let out = choose(magnitude > 0x7f80_0000, 0x7e00 | magnitude >> 13 & 0x3ff, out);
    out | bits >> 16 & 0x8000
}

pub fn v_cvt_pkrtz_f16_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    pack_half(wave, inst, Round::TowardZero)
}

pub fn v_cvt_pk_f16_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    pack_half(wave, inst, Round::NearestEven)
}

/// A float32 as bfloat16, rounded to nearest even.
#[inline(always)]
pub(super) fn to_bf16(bits: u32) -> u32 {
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return bits >> 16 | 0x40;
    }
    (bits + 0x7fff + (bits >> 16 & 1)) >> 16
}

pub fn v_cvt_pk_bf16_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    super::lanes::binary(wave, inst, Form::F32, |a, b| to_bf16(a) | to_bf16(b) << 16)
}

pub fn v_cvt_f32_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let [x, spare] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare);
    // The rounding of float32, the result, as LLVM has it (no FPDPRounding for this one).
    let mode = wave.mode.round32();
    let narrow = |a: u64| {
        if mode == Round::NearestEven && !Format::F64.is_nan(a) {
            return u64::from((f64::from_bits(a) as f32).to_bits());
        }
        number::convert(Format::F64, Format::F32, a, mode)
    };
    let [mut out, _] = wide_map1(a, narrow);
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

macro_rules! to_float64 {
    ($($name:ident, $form:ident: |$a:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let a = source(wave, inst, 0, 0, Form::$form, &mut room);
            let mut out = wide_map1([a, a], |a| {
                let $a = a as u32;
                $body
            });
            finish64(wave, inst, &mut out);
            write64(wave, inst, &out);
            Flow::Next
        }
    )*};
}

// Every float32 and every integer of 32 bits is a float64.
to_float64! {
    v_cvt_f64_f32, F32: |a| number::convert(Format::F32, Format::F64, u64::from(a), Round::NearestEven);
    v_cvt_f64_i32, B32: |a| f64::from(a as i32).to_bits();
    v_cvt_f64_u32, B32: |a| f64::from(a).to_bits();
}

macro_rules! from_float64 {
    ($($name:ident: |$a:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [[Room::uninit(); 2]; 2];
            let [x, spare] = &mut rooms;
            let a = float64_source(wave, inst, 0, x, spare);
            let [out, _] = wide_map1(a, |a| {
                let $a = f64::from_bits(a);
                u64::from($body)
            });
            write(wave, inst, 0, &out);
            Flow::Next
        }
    )*};
}

from_float64! {
    v_cvt_i32_f64: |a| a as i32 as u32;
    v_cvt_u32_f64: |a| a as u32;
}

/// A result of 16 bits that is no float.
macro_rules! to_integer16 {
    ($($name:ident, $form:ident: |$a:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let a = source(wave, inst, 0, 0, Form::$form, &mut room);
            let mut out = map1(a, |$a| u32::from($body));
            write16(wave, inst, Rest::Cleared, &mut out);
            Flow::Next
        }
    )*};
}

to_integer16! {
    v_cvt_u16_f16, F16: |a| widened(a & 0xffff) as u16;
    v_cvt_i16_f16, F16: |a| widened(a & 0xffff) as i16 as u16;
    v_cvt_norm_i16_f16, F16: |a| signed_normal(widened(a & 0xffff));
    v_cvt_norm_u16_f16, F16: |a| unsigned_normal(widened(a & 0xffff));
    v_sat_pk_u8_i16, B32: |a| saturated_byte(a) | saturated_byte(a >> 16) << 8;
}

/// An int16 saturated to uint8.
#[inline(always)]
fn saturated_byte(x: u32) -> u16 {
    (x as i16).clamp(0, 255) as u16
}

/// A value of [-1, 1] as a fraction of 32767, to nearest even; NaN is zero.
#[inline(always)]
fn signed_normal(x: f32) -> u16 {
    (f64::from(x).clamp(-1.0, 1.0) * 32767.0).round_ties_even() as i16 as u16
}

/// A value of [0, 1] as a fraction of 65535, to nearest even; NaN is zero.
#[inline(always)]
fn unsigned_normal(x: f32) -> u16 {
    (f64::from(x).clamp(0.0, 1.0) * 65535.0).round_ties_even() as u16
}

macro_rules! to_float16 {
    ($($name:ident: |$a:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let a = source(wave, inst, 0, 0, Form::B16, &mut room);
            let mode = wave.mode.round64_16();
            let mut out = map1(a, |$a| number::from_integer(Format::F16, $body, mode) as u32);
            overflow_to_greatest(wave, &mut out, |_| true);
            finish16(wave, inst, &mut out);
            write16(wave, inst, Rest::Cleared, &mut out);
            Flow::Next
        }
    )*};
}

to_float16! {
    v_cvt_f16_u16: |a| i128::from(a as u16);
    v_cvt_f16_i16: |a| i128::from(a as i16);
}

macro_rules! pack {
    ($($(#[$doc:meta])* $name:ident, $form:ident: |$a:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let part = |$a: u32| u32::from($body);
            super::lanes::binary(wave, inst, Form::$form, |a, b| part(a) | part(b) << 16)
        }
    )*};
}

pack! {
    v_cvt_pknorm_i16_f32, F32: |a| signed_normal(f32::from_bits(a));
    v_cvt_pknorm_u16_f32, F32: |a| unsigned_normal(f32::from_bits(a));
    v_cvt_pknorm_i16_f16, F16: |a| signed_normal(widened(a & 0xffff));
    v_cvt_pknorm_u16_f16, F16: |a| unsigned_normal(widened(a & 0xffff));
    v_cvt_pk_u16_u32, B32: |a| a.min(0xffff) as u16;
    v_cvt_pk_i16_i32, B32: |a| (a as i32).clamp(-0x8000, 0x7fff) as u16;
}

/// Two float16 side by side.
pub fn v_pack_b32_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let part = |a: &Lanes| {
        let mut out = map1(a, |a| a & 0xffff);
        flush16(wave, &mut out);
        out
    };
    let low = part(source(wave, inst, 0, 0, Form::F16, x));
    let high = part(source(wave, inst, 1, 0, Form::F16, y));
    let out = map2(&low, &high, |low, high| low | high << 16);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// One byte of a word replaced by a float32 as uint8, toward zero and saturated.
#[inline(always)]
fn byte_replaced(value: u32, place: u32, word: u32) -> u32 {
    let shift = 8 * (place & 3);
    word & !(0xff << shift) | u32::from(f32::from_bits(value) as u8) << shift
}

pub fn v_cvt_pk_u8_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    super::lanes::ternary(wave, inst, [Form::F32, Form::B32, Form::B32], byte_replaced)
}

pub fn v_cvt_pkaccum_u8_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::B32, y);
    let out = map3(a, b, old(wave, inst, 0, z), byte_replaced);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A float32 rounded stochastically: the highest bits of a random number are added to those that the narrower format
/// does not have, and these are cut off.
pub(super) fn stochastic(to: Format, bits: u32, random: u32) -> u32 {
    let from = Format::F32;
    let bits = u64::from(bits);
    if from.magnitude(bits) >= from.infinity() {
        return number::convert(from, to, bits, Round::NearestEven) as u32;
    }
    // One more bit of exponent leaves room above the greatest number: what is cut would never reach infinity.
    let roomy = Format { fraction: to.fraction, exponent: to.exponent + 1 };
    let x = from.split(bits);
    let rebased = Exact { exponent: x.exponent + to.bias() - roomy.bias(), ..x };
    let code = number::round(roomy, dithered(roomy, from.fraction, rebased, random), Round::TowardZero);
    let magnitude = (code & (roomy.sign() - 1)).min(to.infinity());
    let sign = if from.is_negative(bits) { to.sign() } else { 0 };
    (sign | magnitude) as u32
}

/// A number of a format with `fraction` bits, with a random part added below the last bit that another format has at
/// this exponent.
pub(super) fn dithered(to: Format, fraction: u32, x: Exact, random: u32) -> Exact {
    if x.significand == 0 {
        return x;
    }
    // As many random bits as the source's fraction has more.
    let extra = fraction - to.fraction;
    let highest = 127 - x.significand.leading_zeros() as i32;
    let exponent = (highest + x.exponent).max(1 - to.bias()) - to.fraction as i32;
    // The number in units of 2^(exponent - extra), what is below it cut off.
    let unit = exponent - extra as i32;
    let shift = x.exponent - unit;
    let significand = if shift >= 0 {
        x.significand << shift
    } else {
        x.significand.checked_shr(shift.unsigned_abs()).unwrap_or(0)
    };
    Exact { significand: significand + u128::from(random >> (32 - extra)), exponent: unit, ..x }
}

macro_rules! stochastic {
    ($($name:ident: $format:ident;)*) => {$(
        /// Into the half that `op_sel` says; the other one stays.
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [Room::uninit(); 2];
            let [x, y] = &mut rooms;
            let a = source(wave, inst, 0, 0, Form::F32, x);
            let random = source(wave, inst, 1, 0, Form::B32, y);
            let mut out = map2(a, random, |a, random| stochastic(Format::$format, a, random));
            write16(wave, inst, Rest::Kept, &mut out);
            Flow::Next
        }
    )*};
}

stochastic! {
    v_cvt_sr_f16_f32: F16;
    v_cvt_sr_bf16_f32: BF16;
}
