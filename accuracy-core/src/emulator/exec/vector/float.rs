//! Arithmetic of float32, float64 and float16.

use super::lanes::{
    Pair, choose, each, float64_source, flush64, map1, map2, map3, wide_map1, wide_map2, widest, write64,
};
use super::operands::{Form, Rest, Room, begin, flush16, flush32, old, source, write, write16};
use crate::emulator::exec::number::{self, Format};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, LANES, Lanes, Round, Wave};

/// What a float result goes through before it is written: the output modifier and the clamp.
#[inline(always)]
pub(super) fn finish32(wave: &Wave, inst: &Inst, out: &mut Lanes) {
    if inst.clamp || inst.omod != 0 || wave.mode.0 & 0x20 == 0 {
        modify(wave, inst, Format::F32, out);
    }
}

/// As [`finish32`] for float16 in the low halves.
#[inline(always)]
pub(super) fn finish16(wave: &Wave, inst: &Inst, out: &mut Lanes) {
    if inst.clamp || inst.omod != 0 || wave.mode.0 & 0x80 == 0 {
        modify(wave, inst, Format::F16, out);
    }
}

/// As [`finish32`] for float64.
#[inline(always)]
pub(super) fn finish64(wave: &Wave, inst: &Inst, out: &mut Pair) {
    if inst.clamp || inst.omod != 0 || wave.mode.0 & 0x80 == 0 {
        flush64(wave, out);
        let [low, high] = out;
        for (low, high) in low.0.iter_mut().zip(&mut high.0) {
            let value = modified(wave, inst, Format::F64, u64::from(*high) << 32 | u64::from(*low));
            *low = value as u32;
            *high = (value >> 32) as u32;
        }
    }
}

#[cold]
#[inline(never)]
fn modify(wave: &Wave, inst: &Inst, format: Format, out: &mut Lanes) {
    if format == Format::F32 {
        flush32(wave, out)
    } else {
        flush16(wave, out)
    };
    for lane in &mut out.0 {
        *lane = modified(wave, inst, format, u64::from(*lane)) as u32;
    }
}

/// A result after the output modifier and the clamp.
///
/// The hardware ignores output modifiers where denormals are kept and where MODE asks for IEEE behaviour.
pub(super) fn modified(wave: &Wave, inst: &Inst, format: Format, value: u64) -> u64 {
    let denormals = if format == Format::F32 { wave.mode.denormals32() } else { wave.mode.denormals64_16() };
    let value = match inst.omod {
        1..=3 if denormals.flush_out && !wave.mode.ieee() => scaled(format, inst.omod, value),
        _ => value,
    };
    if inst.clamp { clamped(format, wave.mode.dx10_clamp(), value) } else { value }
}

/// Times 2, times 4 or divided by 2; negative zero and denormals become zero.
fn scaled(format: Format, omod: u8, value: u64) -> u64 {
    let power = [0, 1, 2, -1][usize::from(omod & 3)];
    let value = number::ldexp(format, value, power, Round::NearestEven);
    if format.is_denormal(value) || format.is_zero(value) { 0 } else { value }
}

/// Into [0, 1].
pub(super) fn clamped(format: Format, nan_is_zero: bool, value: u64) -> u64 {
    let one = (format.bias() as u64) << format.fraction;
    if format.is_nan(value) {
        if nan_is_zero { 0 } else { value }
    } else if format.is_negative(value) {
        0
    } else {
        value.min(one)
    }
}

/// Fills `room`; says whether a NaN came out.
#[inline(always)]
fn float_loop<F: Fn(f32, f32, f32) -> f32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F, room: &mut Room) -> bool {
    let out = room.write(Lanes::ZERO);
    // The largest code without its sign: those of NaN are above infinity's.
    let mut largest = 0;
    for i in 0..LANES {
        let value = f(f32::from_bits(a.0[i]), f32::from_bits(b.0[i]), f32::from_bits(c.0[i])).to_bits();
        largest = largest.max(value & 0x7fff_ffff);
        out.0[i] = value;
    }
    largest > 0x7f80_0000
}

fn float_fill<F: Fn(f32, f32, f32) -> f32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F, room: &mut Room) -> bool {
    widest!([F: Fn(f32, f32, f32) -> f32]
        float_loop(a: &Lanes, b: &Lanes, c: &Lanes, f: F, room: &mut Room) -> bool)
}

/// Computes in this machine's arithmetic; says whether a NaN came out.
#[inline(always)]
pub(super) fn float_map<'r, F: Fn(f32, f32, f32) -> f32>(
    a: &Lanes,
    b: &Lanes,
    c: &Lanes,
    f: F,
    room: &'r mut Room,
) -> (&'r mut Lanes, bool) {
    let nan = float_fill(a, b, c, f, room);
    // SAFETY: `float_fill` has written all lanes.
    (unsafe { room.assume_init_mut() }, nan)
}

/// An operation of [`number`] with three sources; those that it does not have are zero.
pub(super) type ExactOp = fn(Format, u64, u64, u64, Round) -> u64;

/// Computes lanes again in integer arithmetic: all of them, or those that are NaN.
#[cold]
#[inline(never)]
pub(super) fn mend(
    format: Format,
    out: &mut Lanes,
    [a, b, c]: [&Lanes; 3],
    exact: ExactOp,
    mode: Round,
    all: bool,
) {
    let part = |x: u32| if format.sign() == 1 << 15 { u64::from(x & 0xffff) } else { u64::from(x) };
    for i in 0..LANES {
        if all || format.is_nan(part(out.0[i])) {
            out.0[i] = exact(format, part(a.0[i]), part(b.0[i]), part(c.0[i]), mode) as u32;
        }
    }
}

/// A float32 result of three lanes vectors, exact in every mode.
#[inline(always)]
pub(super) fn float32_of<'r, F: Fn(f32, f32, f32) -> f32>(
    wave: &Wave,
    [a, b, c]: [&Lanes; 3],
    exact: ExactOp,
    fast: F,
    room: &'r mut Room,
) -> &'r mut Lanes {
    let (out, nan) = float_map(a, b, c, fast, room);
    let mode = wave.mode.round32();
    if nan || mode != Round::NearestEven {
        mend(Format::F32, out, [a, b, c], exact, mode, mode != Round::NearestEven);
    }
    out
}

/// A float32 result of up to three sources: `count` of them, and `accumulate` takes the third from the destination.
#[inline(always)]
fn float32<const COUNT: usize, const ACCUMULATE: bool, F: Fn(f32, f32, f32) -> f32>(
    wave: &mut Wave,
    inst: &Inst,
    exact: ExactOp,
    fast: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 4];
    let [x, y, z, flushing] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = if COUNT > 1 { source(wave, inst, 1, 0, Form::F32, y) } else { a };
    let c = if ACCUMULATE {
        accumulator(wave, inst, z, flushing)
    } else if COUNT > 2 {
        source(wave, inst, 2, 0, Form::F32, z)
    } else {
        a
    };
    let mut result = Room::uninit();
    let out = float32_of(wave, [a, b, c], exact, fast, &mut result);
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

/// The old destination as a float32 source; `v_fmac_f32` may negate it.
#[inline(always)]
pub(super) fn accumulator<'a>(
    wave: &'a Wave,
    inst: &Inst,
    room: &'a mut Room,
    spare: &'a mut Room,
) -> &'a Lanes {
    let c = old(wave, inst, 0, room);
    if (inst.neg | inst.abs) & 4 == 0 && wave.mode.0 & 0x10 != 0 {
        return c;
    }
    let flush = wave.mode.denormals32().flush_in;
    let out = map1(c, |c| {
        let c = if inst.abs & 4 != 0 { c & 0x7fff_ffff } else { c };
        let c = if inst.neg & 4 != 0 { c ^ 1 << 31 } else { c };
        if flush && c & 0x7f80_0000 == 0 { c & 1 << 31 } else { c }
    });
    spare.write(out)
}

macro_rules! float32 {
    ($($(#[$doc:meta])* $name:ident, $count:literal, $accumulate:literal:
        |$a:ident, $b:ident, $c:ident| $fast:expr, $exact:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: f32, $b: f32, $c: f32) -> f32 {
                $fast
            }
            float32::<$count, $accumulate, _>(wave, inst, $exact, lane)
        }
    )*};
}

fn exact_add(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    number::add(format, a, b, mode)
}

fn exact_sub(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    number::add(format, a, negated(format, b), mode)
}

fn exact_subrev(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    // The first source comes first where both are NaN.
    if format.is_nan(a) {
        return a | format.quiet();
    }
    number::add(format, b, negated(format, a), mode)
}

/// The opposite number. A NaN keeps its sign: the hardware subtracts, it does not negate a source.
fn negated(format: Format, x: u64) -> u64 {
    if format.is_nan(x) { x } else { x ^ format.sign() }
}

pub(super) fn exact_mul(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    number::mul(format, a, b, mode)
}

fn exact_mul_legacy(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    if format.is_zero(a) || format.is_zero(b) { 0 } else { number::mul(format, a, b, mode) }
}

pub(super) fn exact_fma(format: Format, a: u64, b: u64, c: u64, mode: Round) -> u64 {
    number::fma(format, a, b, c, mode)
}

/// Multiplies and adds with a rounding after each.
fn exact_mad(format: Format, a: u64, b: u64, c: u64, mode: Round) -> u64 {
    if !format.is_nan(a) && !format.is_nan(b) && format.is_nan(c) {
        return c | format.quiet();
    }
    number::add(format, number::mul(format, a, b, mode), c, mode)
}

macro_rules! integral {
    ($($name:ident: $mode:expr;)*) => {$(
        fn $name(format: Format, a: u64, _: u64, _: u64, _: Round) -> u64 {
            number::integral(format, a, $mode)
        }
    )*};
}

integral! {
    exact_trunc: Round::TowardZero;
    exact_ceil: Round::Up;
    exact_floor: Round::Down;
    exact_rndne: Round::NearestEven;
}

fn exact_fract(format: Format, a: u64, _: u64, _: u64, mode: Round) -> u64 {
    let floor = number::integral(format, a, Round::Down);
    let below_one = ((format.bias() as u64) << format.fraction) - 1;
    if format.is_nan(a) {
        return a | format.quiet();
    }
    let fract = number::add(format, a, floor ^ format.sign(), mode);
    // Rounding down gives an exact zero a sign, which makes it the greater code.
    if format.is_nan(fract) || format.is_negative(fract) { fract } else { fract.min(below_one) }
}

float32! {
    v_add_f32, 2, false: |a, b, _c| a + b, exact_add;
    v_sub_f32, 2, false: |a, b, _c| a - b, exact_sub;
    v_subrev_f32, 2, false: |a, b, _c| b - a, exact_subrev;
    v_mul_f32, 2, false: |a, b, _c| a * b, exact_mul;
    /// Zero times anything is zero.
    v_mul_legacy_f32, 2, false:
        |a, b, _c| if a == 0.0 || b == 0.0 { 0.0 } else { a * b }, exact_mul_legacy;
    v_fma_f32, 3, false: |a, b, c| a.mul_add(b, c), exact_fma;
    v_fmac_f32, 2, true: |a, b, c| a.mul_add(b, c), exact_fma;
    v_fmamk_f32, 3, false: |a, b, c| a.mul_add(b, c), exact_fma;
    v_fmaak_f32, 3, false: |a, b, c| a.mul_add(b, c), exact_fma;
    v_trunc_f32, 1, false: |a, _b, _c| a.trunc(), exact_trunc;
    v_ceil_f32, 1, false: |a, _b, _c| a.ceil(), exact_ceil;
    v_floor_f32, 1, false: |a, _b, _c| a.floor(), exact_floor;
    v_rndne_f32, 1, false: |a, _b, _c| a.round_ties_even(), exact_rndne;
    /// The distance to the next lower integer, always below 1.
    v_fract_f32, 1, false: |a, _b, _c| {
        let fract = a - a.floor();
        if fract >= 1.0 { f32::from_bits(0x3f7f_ffff) } else { fract }
    }, exact_fract;
}

type Checked64 = (Pair, bool);

#[inline(always)]
fn double_loop<F: Fn(f64, f64, f64) -> f64>(
    a: [&Lanes; 2],
    b: [&Lanes; 2],
    c: [&Lanes; 2],
    f: F,
) -> Checked64 {
    let word = |x: [&Lanes; 2], i: usize| f64::from_bits(u64::from(x[1].0[i]) << 32 | u64::from(x[0].0[i]));
    let mut out = [Lanes::ZERO; 2];
    let mut nan = false;
    for i in 0..LANES {
        let value = f(word(a, i), word(b, i), word(c, i));
        nan |= value.is_nan();
        let bits = value.to_bits();
        out[0].0[i] = bits as u32;
        out[1].0[i] = (bits >> 32) as u32;
    }
    (out, nan)
}

fn double_map<F: Fn(f64, f64, f64) -> f64>(
    a: [&Lanes; 2],
    b: [&Lanes; 2],
    c: [&Lanes; 2],
    f: F,
) -> Checked64 {
    widest!([F: Fn(f64, f64, f64) -> f64]
        double_loop(a: [&Lanes; 2], b: [&Lanes; 2], c: [&Lanes; 2], f: F) -> Checked64)
}

#[cold]
#[inline(never)]
fn mend64(out: &mut Pair, sources: [[&Lanes; 2]; 3], exact: ExactOp, mode: Round, all: bool) {
    let word = |x: [&Lanes; 2], i: usize| u64::from(x[1].0[i]) << 32 | u64::from(x[0].0[i]);
    for i in 0..LANES {
        let bits = u64::from(out[1].0[i]) << 32 | u64::from(out[0].0[i]);
        if all || Format::F64.is_nan(bits) {
            let [a, b, c] = sources.map(|source| word(source, i));
            let value = exact(Format::F64, a, b, c, mode);
            out[0].0[i] = value as u32;
            out[1].0[i] = (value >> 32) as u32;
        }
    }
}

/// A float64 result of three vectors of lanes, exact in every mode.
#[inline(always)]
pub(super) fn float64_of<F: Fn(f64, f64, f64) -> f64>(
    wave: &Wave,
    [a, b, c]: [[&Lanes; 2]; 3],
    exact: ExactOp,
    fast: F,
) -> Pair {
    let (mut out, nan) = double_map(a, b, c, fast);
    let mode = wave.mode.round64_16();
    if nan || mode != Round::NearestEven {
        mend64(&mut out, [a, b, c], exact, mode, mode != Round::NearestEven);
    }
    out
}

/// A float64 result of up to three sources, as [`float32`].
#[inline(always)]
fn float64<const COUNT: usize, const ACCUMULATE: bool, F: Fn(f64, f64, f64) -> f64>(
    wave: &mut Wave,
    inst: &Inst,
    exact: ExactOp,
    fast: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 6];
    let [x, y, z, spare_x, spare_y, spare_z] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare_x);
    let b = if COUNT > 1 { float64_source(wave, inst, 1, y, spare_y) } else { a };
    let c = if ACCUMULATE {
        double_accumulator(wave, inst, z, spare_z)
    } else if COUNT > 2 {
        float64_source(wave, inst, 2, z, spare_z)
    } else {
        a
    };
    let mut out = float64_of(wave, [a, b, c], exact, fast);
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}

#[inline(always)]
fn double_accumulator<'a>(
    wave: &'a Wave,
    inst: &Inst,
    rooms: &'a mut [Room; 2],
    spare: &'a mut [Room; 2],
) -> [&'a Lanes; 2] {
    let [low, high] = rooms;
    let pair = [old(wave, inst, 0, low), old(wave, inst, 1, high)];
    let flush = wave.mode.denormals64_16().flush_in;
    if (inst.neg | inst.abs) & 4 == 0 && !flush {
        return pair;
    }
    let out = wide_map1(pair, |c| {
        let c = if inst.abs & 4 != 0 { c & !(1 << 63) } else { c };
        let c = if inst.neg & 4 != 0 { c ^ 1 << 63 } else { c };
        if flush { super::operands::flushed64(c) } else { c }
    });
    let [first, second] = spare;
    [first.write(out[0]), second.write(out[1])]
}

macro_rules! float64 {
    ($($(#[$doc:meta])* $name:ident, $count:literal, $accumulate:literal:
        |$a:ident, $b:ident, $c:ident| $fast:expr, $exact:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: f64, $b: f64, $c: f64) -> f64 {
                $fast
            }
            float64::<$count, $accumulate, _>(wave, inst, $exact, lane)
        }
    )*};
}

float64! {
    v_add_f64, 2, false: |a, b, _c| a + b, exact_add;
    v_mul_f64, 2, false: |a, b, _c| a * b, exact_mul;
    v_fma_f64, 3, false: |a, b, c| a.mul_add(b, c), exact_fma;
    v_fmac_f64, 2, true: |a, b, c| a.mul_add(b, c), exact_fma;
    v_trunc_f64, 1, false: |a, _b, _c| a.trunc(), exact_trunc;
    v_ceil_f64, 1, false: |a, _b, _c| a.ceil(), exact_ceil;
    v_floor_f64, 1, false: |a, _b, _c| a.floor(), exact_floor;
    v_rndne_f64, 1, false: |a, _b, _c| a.round_ties_even(), exact_rndne;
    /// The distance to the next lower integer, always below 1.
    v_fract_f64, 1, false: |a, _b, _c| {
        let fract = a - a.floor();
        if fract >= 1.0 { f64::from_bits(0x3fef_ffff_ffff_ffff) } else { fract }
    }, exact_fract;
}

/// A float16 as float32, without a branch. A signalling NaN stays one.
#[inline(always)]
pub(super) fn widened(half: u32) -> f32 {
    let magnitude = (half & 0x7fff) << 13;
    // The exponent's bias grows by 112; the product is exact, for denormals too.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = magnitude | 0x7f80_0000;
    let bits = choose(half & 0x7c00 == 0x7c00, special, scaled);
    f32::from_bits(bits | (half & 0x8000) << 16)
}

/// A float32 as float16, rounded to nearest even, without a branch.
#[inline(always)]
pub(super) fn narrowed(value: f32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = (magnitude.wrapping_sub(0x3800_0000).wrapping_add(0xfff + (magnitude >> 13 & 1))) >> 13;
    // Adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
    let finite = choose(magnitude < 0x3880_0000, small, normal);
    let out = choose(magnitude >= 0x4780_0000, 0x7c00, finite);
    let out = choose(magnitude > 0x7f80_0000, nan, out);
    out | bits >> 16 & 0x8000
}

/// `a * b + c` of float16 values, to float32 with rounding to odd, so that rounding to float16 is exact.
#[inline(always)]
pub(super) fn fma_odd(a: f32, b: f32, c: f32) -> f32 {
    // Eleven bits times eleven are exact in float32.
    let product = a * b;
    let sum = product + c;
    let back = sum - product;
    let error = (product - (sum - back)) + (c - back);
    let bits = sum.to_bits();
    // One up in magnitude, or one down where the error has the other sign.
    let toward = bits.wrapping_add(1).wrapping_sub((error.to_bits() ^ bits) >> 31 << 1);
    f32::from_bits(choose((error.abs() > 0.0) & (bits & 1 == 0), toward, bits))
}

type Checked = (Lanes, bool);

#[inline(always)]
fn half_loop<F: Fn(f32, f32, f32) -> f32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Checked {
    let out = each(|i| {
        let half = |x: &Lanes| widened(x.0[i] & 0xffff);
        narrowed(f(half(a), half(b), half(c)))
    });
    let nan = out.0.iter().fold(0, |any, &x| any | u32::from(x & 0x7fff > 0x7c00)) != 0;
    (out, nan)
}

fn half_map<F: Fn(f32, f32, f32) -> f32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Checked {
    widest!([F: Fn(f32, f32, f32) -> f32] half_loop(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Checked)
}

/// A float16 result of three vectors of lanes; `fast` computes in float32.
#[inline(always)]
pub(super) fn float16_of<F: Fn(f32, f32, f32) -> f32>(
    wave: &Wave,
    [a, b, c]: [&Lanes; 3],
    exact: ExactOp,
    fast: F,
) -> Lanes {
    let (mut out, nan) = half_map(a, b, c, fast);
    let mode = wave.mode.round64_16();
    if nan || mode != Round::NearestEven {
        mend(Format::F16, &mut out, [a, b, c], exact, mode, mode != Round::NearestEven);
    }
    overflow_to_greatest(wave, &mut out, |lane| [a, b, c].iter().all(|x| x.0[lane] & 0x7fff != 0x7c00));
    out
}

/// FP16_OVFL of MODE: where the sources are finite, an infinite float16 becomes the greatest number.
#[inline(always)]
pub(super) fn overflow_to_greatest(wave: &Wave, out: &mut Lanes, finite: impl Fn(usize) -> bool) {
    if wave.mode.0 >> 23 & 1 != 0 {
        for (lane, out) in out.0.iter_mut().enumerate() {
            if *out & 0x7fff == 0x7c00 && finite(lane) {
                *out -= 1;
            }
        }
    }
}

/// A float16 result of up to three sources, as [`float32`]; `fast` computes in float32.
#[inline(always)]
fn float16<const COUNT: usize, const ACCUMULATE: bool, F: Fn(f32, f32, f32) -> f32>(
    wave: &mut Wave,
    inst: &Inst,
    rest: Rest,
    exact: ExactOp,
    fast: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F16, x);
    let b = if COUNT > 1 { source(wave, inst, 1, 0, Form::F16, y) } else { a };
    let c = if ACCUMULATE {
        half_accumulator(wave, inst, z)
    } else if COUNT > 2 {
        source(wave, inst, 2, 0, Form::F16, z)
    } else {
        a
    };
    let mut out = float16_of(wave, [a, b, c], exact, fast);
    finish16(wave, inst, &mut out);
    write16(wave, inst, rest, &mut out);
    Flow::Next
}

fn half_accumulator<'a>(wave: &Wave, inst: &Inst, room: &'a mut Room) -> &'a Lanes {
    let mut spare = Room::uninit();
    let c = old(wave, inst, 0, &mut spare);
    let flush = wave.mode.denormals64_16().flush_in;
    let out = map1(c, |c| {
        let c = if inst.op_sel & 8 != 0 { c >> 16 } else { c };
        let c = if inst.abs & 4 != 0 { c & !0x8000 } else { c };
        let c = if inst.neg & 4 != 0 { c ^ 0x8000 } else { c };
        if flush && c & 0x7c00 == 0 { c & 0xffff_8000 } else { c }
    });
    room.write(out)
}

macro_rules! float16 {
    ($($(#[$doc:meta])* $name:ident, $count:literal, $accumulate:literal, $rest:ident:
        |$a:ident, $b:ident, $c:ident| $fast:expr, $exact:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: f32, $b: f32, $c: f32) -> f32 {
                $fast
            }
            float16::<$count, $accumulate, _>(wave, inst, Rest::$rest, $exact, lane)
        }
    )*};
}

/// Rounded to float16 and back.
#[inline(always)]
fn through_half(x: f32) -> f32 {
    widened(narrowed(x))
}

// Sums and products of float16 have at most twice its bits: rounding to float32 first changes nothing.
float16! {
    v_add_f16, 2, false, Cleared: |a, b, _c| a + b, exact_add;
    v_sub_f16, 2, false, Cleared: |a, b, _c| a - b, exact_sub;
    v_subrev_f16, 2, false, Cleared: |a, b, _c| b - a, exact_subrev;
    v_mul_f16, 2, false, Cleared: |a, b, _c| a * b, exact_mul;
    v_mac_f16, 2, true, Kept: |a, b, c| through_half(a * b) + c, exact_mad;
    v_madmk_f16, 3, false, Kept: |a, b, c| through_half(a * b) + c, exact_mad;
    v_madak_f16, 3, false, Kept: |a, b, c| through_half(a * b) + c, exact_mad;
    v_mad_f16, 3, false, Kept: |a, b, c| through_half(a * b) + c, exact_mad;
    v_mad_legacy_f16, 3, false, Cleared: |a, b, c| through_half(a * b) + c, exact_mad;
    v_fma_f16, 3, false, Kept: |a, b, c| fma_odd(a, b, c), exact_fma;
    v_fma_legacy_f16, 3, false, Cleared: |a, b, c| fma_odd(a, b, c), exact_fma;
    v_trunc_f16, 1, false, Cleared: |a, _b, _c| a.trunc(), exact_trunc;
    v_ceil_f16, 1, false, Cleared: |a, _b, _c| a.ceil(), exact_ceil;
    v_floor_f16, 1, false, Cleared: |a, _b, _c| a.floor(), exact_floor;
    v_rndne_f16, 1, false, Cleared: |a, _b, _c| a.round_ties_even(), exact_rndne;
    /// The distance to the next lower integer, always below 1.
    v_fract_f16, 1, false, Cleared: |a, _b, _c| {
        // Rounding to float16 could give 1.
        let fract = a - a.floor();
        if fract >= 0.9995 { f32::from_bits(0x3f7f_e000) } else { fract }
    }, exact_fract;
}

/// Constants of a format in 32 bits, for loops without a branch.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    magnitude: u32,
    infinity: u32,
    quiet: u32,
    /// Shift that brings the sign to bit 31.
    up: u32,
}

pub(super) const BITS32: Bits =
    Bits { magnitude: 0x7fff_ffff, infinity: 0x7f80_0000, quiet: 0x40_0000, up: 0 };
pub(super) const BITS16: Bits = Bits { magnitude: 0x7fff, infinity: 0x7c00, quiet: 0x200, up: 16 };

impl Bits {
    #[inline(always)]
    fn is_nan(self, x: u32) -> bool {
        x & self.magnitude > self.infinity
    }

    #[inline(always)]
    fn is_signalling(self, x: u32) -> bool {
        self.is_nan(x) & (x & self.quiet == 0)
    }

    /// A number that is ordered as the floats are, negative zero below positive zero.
    #[inline(always)]
    fn key(self, x: u32) -> i32 {
        let x = (x << self.up) as i32;
        x ^ ((x >> 31) as u32 >> 1) as i32
    }

    #[inline(always)]
    pub(super) fn pick<const MAX: bool>(self, a: u32, b: u32, ieee: bool) -> u32 {
        let first = if MAX { self.key(a) > self.key(b) } else { self.key(a) < self.key(b) };
        let out = choose(first, a, b);
        let out = choose(self.is_nan(b), a, out);
        let out = choose(self.is_nan(a), b, out);
        let out = choose(ieee & self.is_signalling(b), b | self.quiet, out);
        choose(ieee & self.is_signalling(a), a | self.quiet, out)
    }

    /// The median as the hardware takes it: with a NaN, the least.
    #[inline(always)]
    pub(super) fn median(self, a: u32, b: u32, c: u32, ieee: bool) -> u32 {
        let nan = self.is_nan(a) | self.is_nan(b) | self.is_nan(c);
        let least = self.pick::<false>(self.pick::<false>(a, b, ieee), c, ieee);
        let greater = |x: u32, y: u32| choose(self.key(x) > self.key(y), x, y);
        let most = greater(greater(a, b), c);
        let same = |x: u32| (x == most) | ((x | most) & self.magnitude == 0);
        // The greatest one is left out; zeros of both signs are the same here.
        let x = choose(same(a), b, a);
        let y = choose(same(a) | same(b), c, b);
        choose(nan, least, greater(x, y))
    }

    /// The lesser or greater one; a NaN wins.
    #[inline(always)]
    pub(super) fn extreme<const MAX: bool>(self, a: u32, b: u32) -> u32 {
        let first = if MAX { self.key(a) > self.key(b) } else { self.key(a) < self.key(b) };
        let out = choose(first, a, b);
        let out = choose(self.is_nan(b), b | self.quiet, out);
        choose(self.is_nan(a), a | self.quiet, out)
    }
}

macro_rules! select32 {
    ($($(#[$doc:meta])* $name:ident: |$ieee:ident, $a:ident, $b:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [Room::uninit(); 2];
            let [x, y] = &mut rooms;
            let a = source(wave, inst, 0, 0, Form::F32, x);
            let b = source(wave, inst, 1, 0, Form::F32, y);
            #[inline(always)]
            fn lane<const IEEE: bool>($a: u32, $b: u32) -> u32 {
                let $ieee = IEEE;
                $body
            }
            let mut out =
                if wave.mode.ieee() { map2(a, b, lane::<true>) } else { map2(a, b, lane::<false>) };
            finish32(wave, inst, &mut out);
            write(wave, inst, 0, &out);
            Flow::Next
        }
    )*};
    ($($(#[$doc:meta])* $name:ident: |$ieee:ident, $a:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [Room::uninit(); 3];
            let [x, y, z] = &mut rooms;
            let a = source(wave, inst, 0, 0, Form::F32, x);
            let b = source(wave, inst, 1, 0, Form::F32, y);
            let c = source(wave, inst, 2, 0, Form::F32, z);
            #[inline(always)]
            fn lane<const IEEE: bool>($a: u32, $b: u32, $c: u32) -> u32 {
                let $ieee = IEEE;
                $body
            }
            let mut out =
                if wave.mode.ieee() { map3(a, b, c, lane::<true>) } else { map3(a, b, c, lane::<false>) };
            finish32(wave, inst, &mut out);
            write(wave, inst, 0, &out);
            Flow::Next
        }
    )*};
}

select32! {
    v_min_f32: |ieee, a, b| BITS32.pick::<false>(a, b, ieee);
    v_max_f32: |ieee, a, b| BITS32.pick::<true>(a, b, ieee);
}

select32! {
    v_min3_f32: |ieee, a, b, c| BITS32.pick::<false>(BITS32.pick::<false>(a, b, ieee), c, ieee);
    v_max3_f32: |ieee, a, b, c| BITS32.pick::<true>(BITS32.pick::<true>(a, b, ieee), c, ieee);
    v_med3_f32: |ieee, a, b, c| BITS32.median(a, b, c, ieee);
    v_minimum3_f32: |_ieee, a, b, c| BITS32.extreme::<false>(BITS32.extreme::<false>(a, b), c);
    v_maximum3_f32: |_ieee, a, b, c| BITS32.extreme::<true>(BITS32.extreme::<true>(a, b), c);
    /// The face of a cube map that a direction points at.
    v_cubeid_f32: |_ieee, x, y, z| cube(x, y, z, |axis, _, _, _, negative| {
        (2.0 * axis as f32 + f32::from(u8::from(negative))).to_bits()
    });
    v_cubesc_f32: |_ieee, x, y, z| cube(x, y, z, |axis, x, _, z, negative| match (axis, negative) {
        (2, true) => x ^ SIGN,
        (2, false) | (1, _) => x,
        (_, true) => z,
        (_, false) => z ^ SIGN,
    });
    v_cubetc_f32: |_ieee, x, y, z| cube(x, y, z, |axis, _, y, z, negative| match (axis, negative) {
        (1, true) => z ^ SIGN,
        (1, false) => z,
        _ => y ^ SIGN,
    });
}

/// Twice the coordinate of the greatest magnitude.
pub fn v_cubema_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::F32, y);
    let c = source(wave, inst, 2, 0, Form::F32, z);
    let major = map3(a, b, c, |x, y, z| cube(x, y, z, |axis, x, y, z, _| [x, y, z][axis]));
    let two = Lanes::splat(2.0_f32.to_bits());
    let exact: ExactOp = exact_mul;
    let mut result = Room::uninit();
    let out = float32_of(wave, [&major, &two, &major], exact, |a, b, _| a * b, &mut result);
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

const SIGN: u32 = 1 << 31;

/// Finds the axis of the greatest magnitude and whether the direction is negative along it.
#[inline(always)]
fn cube(x: u32, y: u32, z: u32, f: impl Fn(usize, u32, u32, u32, bool) -> u32) -> u32 {
    let [ax, ay, az] = [x, y, z].map(|v| f32::from_bits(v).abs());
    let axis = if az >= ax && az >= ay {
        2
    } else if ay >= ax {
        1
    } else {
        0
    };
    f(axis, x, y, z, f32::from_bits([x, y, z][axis]) < 0.0)
}

macro_rules! select16 {
    ($($name:ident, $count:literal, $rest:ident: |$ieee:ident, $a:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [Room::uninit(); 3];
            let [x, y, z] = &mut rooms;
            let a = source(wave, inst, 0, 0, Form::F16, x);
            let b = source(wave, inst, 1, 0, Form::F16, y);
            let c = if $count > 2 { source(wave, inst, 2, 0, Form::F16, z) } else { a };
            #[inline(always)]
            fn lane<const IEEE: bool>($a: u32, $b: u32, $c: u32) -> u32 {
                let $ieee = IEEE;
                let [$a, $b, $c] = [$a & 0xffff, $b & 0xffff, $c & 0xffff];
                $body
            }
            let mut out =
                if wave.mode.ieee() { map3(a, b, c, lane::<true>) } else { map3(a, b, c, lane::<false>) };
            finish16(wave, inst, &mut out);
            write16(wave, inst, Rest::$rest, &mut out);
            Flow::Next
        }
    )*};
}

select16! {
    v_min_f16, 2, Cleared: |ieee, a, b, _c| BITS16.pick::<false>(a, b, ieee);
    v_max_f16, 2, Cleared: |ieee, a, b, _c| BITS16.pick::<true>(a, b, ieee);
    v_min3_f16, 3, Kept: |ieee, a, b, c| BITS16.pick::<false>(BITS16.pick::<false>(a, b, ieee), c, ieee);
    v_max3_f16, 3, Kept: |ieee, a, b, c| BITS16.pick::<true>(BITS16.pick::<true>(a, b, ieee), c, ieee);
    v_med3_f16, 3, Kept: |ieee, a, b, c| BITS16.median(a, b, c, ieee);
}

#[inline(always)]
fn pick64(a: u64, b: u64, ieee: bool, max: bool) -> u64 {
    let format = Format::F64;
    if ieee && format.is_signalling(a) {
        return a | format.quiet();
    }
    if ieee && format.is_signalling(b) {
        return b | format.quiet();
    }
    if format.is_nan(a) {
        return b;
    }
    if format.is_nan(b) {
        return a;
    }
    let key = |x: u64| x as i64 ^ ((x as i64 >> 63) as u64 >> 1) as i64;
    if (key(a) < key(b)) != max { a } else { b }
}

macro_rules! select64 {
    ($($name:ident: $max:literal;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [[Room::uninit(); 2]; 4];
            let [x, y, spare_x, spare_y] = &mut rooms;
            let a = float64_source(wave, inst, 0, x, spare_x);
            let b = float64_source(wave, inst, 1, y, spare_y);
            let ieee = wave.mode.ieee();
            let mut out = wide_map2(a, b, |a, b| pick64(a, b, ieee, $max));
            finish64(wave, inst, &mut out);
            write64(wave, inst, &out);
            Flow::Next
        }
    )*};
}

select64! {
    v_min_f64: false;
    v_max_f64: true;
}

/// `S0 * 2^S1`.
pub fn v_ldexp_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F32, x);
    let b = source(wave, inst, 1, 0, Form::B32, y);
    let exact: ExactOp = |format, a, power, _, mode| number::ldexp(format, a, power as u32 as i32, mode);
    // Exact in float64, so that there is one rounding.
    let fast = |a: f32, power: f32, _: f32| {
        let power = (power.to_bits() as i32).clamp(-600, 600);
        (f64::from(a) * f64::from_bits(((power + 1023) as u64) << 52)) as f32
    };
    let mut result = Room::uninit();
    let out = float32_of(wave, [a, b, b], exact, fast, &mut result);
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

pub fn v_ldexp_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::F16, x);
    let b = source(wave, inst, 1, 0, Form::B16, y);
    let mode = wave.mode.round64_16();
    let mut out = each(|i| {
        let power = i32::from(b.0[i] as i16);
        number::ldexp(Format::F16, u64::from(a.0[i] & 0xffff), power, mode) as u32
    });
    overflow_to_greatest(wave, &mut out, |lane| a.0[lane] & 0x7fff != 0x7c00);
    finish16(wave, inst, &mut out);
    write16(wave, inst, Rest::Cleared, &mut out);
    Flow::Next
}

pub fn v_ldexp_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let mut room = Room::uninit();
    let [x, spare] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare);
    let power = source(wave, inst, 1, 0, Form::B32, &mut room);
    let mode = wave.mode.round64_16();
    let mut out =
        wide_map2(a, [power, power], |a, power| number::ldexp(Format::F64, a, power as u32 as i32, mode));
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}

/// The exponent of a value whose significand is in [0.5, 1); zero for zero, infinity and NaN.
fn exponent_of(format: Format, bits: u64) -> i32 {
    if format.magnitude(bits) >= format.infinity() || format.is_zero(bits) {
        return 0;
    }
    number::frexp(format, bits).0
}

/// The significand in [0.5, 1) with the sign; zero, infinity and NaN as they are.
fn significand_of(format: Format, bits: u64) -> u64 {
    if format.is_nan(bits) {
        return bits | format.quiet();
    }
    if format.is_infinite(bits) || format.is_zero(bits) {
        return bits;
    }
    number::frexp(format, bits).1
}

pub fn v_frexp_exp_i32_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let out = map1(source(wave, inst, 0, 0, Form::F32, &mut room), |a| {
        // A denormal float32 is a normal float64.
        let biased = (f64::from(f32::from_bits(a & 0x7fff_ffff)).to_bits() >> 52) as u32;
        let none = a & 0x7fff_ffff == 0 || a & 0x7f80_0000 == 0x7f80_0000;
        if none { 0 } else { biased.wrapping_sub(1022) }
    });
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_frexp_mant_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let a = source(wave, inst, 0, 0, Form::F32, &mut room);
    let mut out = map1(a, |a| significand_of(Format::F32, u64::from(a)) as u32);
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_frexp_exp_i16_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let a = source(wave, inst, 0, 0, Form::F16, &mut room);
    let mut out = map1(a, |a| exponent_of(Format::F16, u64::from(a & 0xffff)) as u32 & 0xffff);
    write16(wave, inst, Rest::Cleared, &mut out);
    Flow::Next
}

pub fn v_frexp_mant_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let a = source(wave, inst, 0, 0, Form::F16, &mut room);
    let mut out = map1(a, |a| significand_of(Format::F16, u64::from(a & 0xffff)) as u32);
    finish16(wave, inst, &mut out);
    write16(wave, inst, Rest::Cleared, &mut out);
    Flow::Next
}

pub fn v_frexp_exp_i32_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let [x, spare] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare);
    let out = wide_map1(a, |a| u64::from(exponent_of(Format::F64, a) as u32));
    write(wave, inst, 0, &out[0]);
    Flow::Next
}

pub fn v_frexp_mant_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let [x, spare] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare);
    let mut out = wide_map1(a, |a| significand_of(Format::F64, a));
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}
