//! VOP3P: two values of 16 bits in one register, or two float32 in two.

use super::float::{
    BITS16, ExactOp, accumulator, exact_fma, exact_mul, finish16, finish32, float16_of, float32_of, fma_odd,
    overflow_to_greatest, widened,
};
use super::integer::dot_i16;
use super::integer16::{mad_i16_sat, mad_u16_sat};
use super::lanes::{map1, map2, map3, write64};
use super::operands::{Form, Rest, Room, begin, raw, source, write, write16};
use crate::emulator::exec::number::{self, Format};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, Lanes, Round, Wave};

/// The 16-bit values of source `i` for one half of the result, in the low halves.
#[inline(always)]
fn half_source<'a>(
    wave: &'a Wave,
    inst: &Inst,
    i: usize,
    high: bool,
    float: bool,
    room: &'a mut Room,
) -> &'a Lanes {
    let mut spare = Room::uninit();
    // DPP and SDWA choose lanes and parts of a source; `op_sel` and the signs are this function's.
    let lanes = if inst.dpp.is_some() || inst.sdwa.is_some() {
        let moved = Inst { op_sel: 0, neg: 0, abs: 0, ..inst.clone() };
        source(wave, &moved, i, 0, Form::B32, &mut spare)
    } else {
        raw(wave, inst.src[i], 0, &mut spare)
    };
    let upper = if high { inst.op_sel_hi } else { inst.op_sel } >> i & 1 != 0;
    let neg = if high { inst.neg_hi } else { inst.neg } >> i & 1 != 0;
    let shift = if upper { 16 } else { 0 };
    let sign = if neg && float { 0x8000 } else { 0 };
    let flush = float && wave.mode.denormals64_16().flush_in;
    let out = map1(lanes, |x| {
        let x = (x >> shift & 0xffff) ^ sign;
        if flush && x & 0x7c00 == 0 { x & 0x8000 } else { x }
    });
    room.write(out)
}

/// Both halves of a result, each from the halves of the sources.
#[inline(always)]
fn halves<const COUNT: usize>(
    wave: &mut Wave,
    inst: &Inst,
    float: bool,
    f: impl Fn(&Wave, [&Lanes; 3]) -> Lanes,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let half = |high: bool| {
        let mut rooms = [Room::uninit(); 3];
        let [x, y, z] = &mut rooms;
        let a = half_source(wave, inst, 0, high, float, x);
        let b = half_source(wave, inst, 1, high, float, y);
        let c = if COUNT > 2 { half_source(wave, inst, 2, high, float, z) } else { a };
        let mut out = f(wave, [a, b, c]);
        if float {
            finish16(wave, inst, &mut out);
        }
        out
    };
    let out = map2(&half(false), &half(true), |low, high| low & 0xffff | high << 16);
    write(wave, inst, 0, &out);
    Flow::Next
}

macro_rules! packed_integer {
    ($($name:ident, $count:literal: |$a:ident, $b:ident, $c:ident| $wrapping:expr, $saturating:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let clamp = inst.clamp;
            halves::<$count>(wave, inst, false, |_, [a, b, c]| {
                map3(a, b, c, |a, b, c| {
                    let [$a, $b, $c] = [a as u16, b as u16, c as u16];
                    u32::from(if clamp { $saturating } else { $wrapping })
                })
            })
        }
    )*};
}

packed_integer! {
    v_pk_mad_i16, 3: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_i16_sat(a, b, c);
    v_pk_mad_u16, 3: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_u16_sat(a, b, c);
    v_pk_mul_lo_u16, 2: |a, b, _c| a.wrapping_mul(b), a.wrapping_mul(b);
    v_pk_add_i16, 2: |a, b, _c| a.wrapping_add(b), (a as i16).saturating_add(b as i16) as u16;
    v_pk_sub_i16, 2: |a, b, _c| a.wrapping_sub(b), (a as i16).saturating_sub(b as i16) as u16;
    v_pk_add_u16, 2: |a, b, _c| a.wrapping_add(b), a.saturating_add(b);
    v_pk_sub_u16, 2: |a, b, _c| a.wrapping_sub(b), a.saturating_sub(b);
    v_pk_lshlrev_b16, 2: |a, b, _c| b << (a & 15), b << (a & 15);
    v_pk_lshrrev_b16, 2: |a, b, _c| b >> (a & 15), b >> (a & 15);
    v_pk_ashrrev_i16, 2: |a, b, _c| (b as i16 >> (a & 15)) as u16, (b as i16 >> (a & 15)) as u16;
    v_pk_max_i16, 2: |a, b, _c| (a as i16).max(b as i16) as u16, (a as i16).max(b as i16) as u16;
    v_pk_min_i16, 2: |a, b, _c| (a as i16).min(b as i16) as u16, (a as i16).min(b as i16) as u16;
    v_pk_max_u16, 2: |a, b, _c| a.max(b), a.max(b);
    v_pk_min_u16, 2: |a, b, _c| a.min(b), a.min(b);
}

fn add(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    number::add(format, a, b, mode)
}

fn mul(format: Format, a: u64, b: u64, _: u64, mode: Round) -> u64 {
    number::mul(format, a, b, mode)
}

macro_rules! packed_half {
    ($($name:ident, $count:literal: |$a:ident, $b:ident, $c:ident| $fast:expr, $exact:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            halves::<$count>(wave, inst, true, |wave, sources| {
                #[inline(always)]
                fn lane($a: f32, $b: f32, $c: f32) -> f32 {
                    $fast
                }
                float16_of(wave, sources, $exact, lane)
            })
        }
    )*};
}

packed_half! {
    v_pk_fma_f16, 3: |a, b, c| fma_odd(a, b, c), exact_fma;
    v_pk_add_f16, 2: |a, b, _c| a + b, add;
    v_pk_mul_f16, 2: |a, b, _c| a * b, mul;
}

macro_rules! packed_select {
    ($($name:ident, $count:literal: |$ieee:ident, $a:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            halves::<$count>(wave, inst, true, |wave, [a, b, c]| {
                #[inline(always)]
                fn lane<const IEEE: bool>($a: u32, $b: u32, $c: u32) -> u32 {
                    let $ieee = IEEE;
                    $body
                }
                if wave.mode.ieee() { map3(a, b, c, lane::<true>) } else { map3(a, b, c, lane::<false>) }
            })
        }
    )*};
}

packed_select! {
    v_pk_min_f16, 2: |ieee, a, b, _c| BITS16.pick::<false>(a, b, ieee);
    v_pk_max_f16, 2: |ieee, a, b, _c| BITS16.pick::<true>(a, b, ieee);
    v_pk_minimum3_f16, 3: |_ieee, a, b, c| BITS16.extreme::<false>(BITS16.extreme::<false>(a, b), c);
    v_pk_maximum3_f16, 3: |_ieee, a, b, c| BITS16.extreme::<true>(BITS16.extreme::<true>(a, b), c);
}

/// `v_fmac` of both halves, an instruction of VOP2.
pub fn v_pk_fmac_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    let packed = Inst { op_sel: 0, op_sel_hi: 7, neg_hi: inst.neg, ..inst.clone() };
    let packed = Inst { src: [inst.src[0], inst.src[1], inst.dst, inst.src[3]], ..packed };
    halves::<3>(wave, &packed, true, |wave, sources| float16_of(wave, sources, exact_fma, fma_odd))
}

/// Register 0 or 1 of a pair for one half of a packed float32 result, with its sign.
#[inline(always)]
fn pair_source<'a>(wave: &'a Wave, inst: &Inst, i: usize, high: bool, room: &'a mut Room) -> &'a Lanes {
    let word = if high { inst.op_sel_hi } else { inst.op_sel } >> i & 1;
    let neg = if high { inst.neg_hi } else { inst.neg } >> i & 1 != 0;
    let flush = wave.mode.denormals32().flush_in;
    if !neg && !flush {
        return raw(wave, inst.src[i], u16::from(word), room);
    }
    let mut spare = Room::uninit();
    let lanes = raw(wave, inst.src[i], u16::from(word), &mut spare);
    let sign = if neg { 1 << 31 } else { 0 };
    let out = map1(lanes, |x| {
        let x = x ^ sign;
        if flush && x & 0x7f80_0000 == 0 { x & 1 << 31 } else { x }
    });
    room.write(out)
}

/// One half of a packed float32 result.
#[inline(always)]
fn packed32_half<'r, const COUNT: usize, F: Fn(f32, f32, f32) -> f32>(
    wave: &Wave,
    inst: &Inst,
    high: bool,
    exact: ExactOp,
    fast: F,
    result: &'r mut Room,
) -> &'r Lanes {
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = pair_source(wave, inst, 0, high, x);
    let b = pair_source(wave, inst, 1, high, y);
    let c = if COUNT > 2 { pair_source(wave, inst, 2, high, z) } else { a };
    let out = float32_of(wave, [a, b, c], exact, fast, result);
    finish32(wave, inst, out);
    out
}

#[inline(always)]
fn packed32<const COUNT: usize, F: Fn(f32, f32, f32) -> f32>(
    wave: &mut Wave,
    inst: &Inst,
    exact: ExactOp,
    fast: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut results = [Room::uninit(); 2];
    let [x, y] = &mut results;
    // Both are computed before either is written: a source may be the destination.
    let low = packed32_half::<COUNT, _>(wave, inst, false, exact, &fast, x);
    let high = packed32_half::<COUNT, _>(wave, inst, true, exact, &fast, y);
    write(wave, inst, 0, low);
    write(wave, inst, 1, high);
    Flow::Next
}

pub fn v_pk_fma_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    packed32::<3, _>(wave, inst, exact_fma, |a, b, c| a.mul_add(b, c))
}

pub fn v_pk_mul_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    packed32::<2, _>(wave, inst, mul, |a, b, _| a * b)
}

pub fn v_pk_add_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    packed32::<2, _>(wave, inst, add, |a, b, _| a + b)
}

/// One register of each source's pair.
pub fn v_pk_mov_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let low = raw(wave, inst.src[0], u16::from(inst.op_sel & 1), x);
    let high = raw(wave, inst.src[1], u16::from(inst.op_sel >> 1 & 1), y);
    let out = [*low, *high];
    write64(wave, inst, &out);
    Flow::Next
}

/// Source `i` of `v_fma_mix` as float32: a float32, or one half of a float16 register.
#[inline(always)]
fn mixed_source<'a>(wave: &'a Wave, inst: &Inst, i: usize, room: &'a mut Room) -> &'a Lanes {
    if inst.op_sel_hi >> i & 1 == 0 {
        // `op_sel` means nothing here, and Form::F32 does not look at it.
        return source(wave, inst, i, 0, Form::F32, room);
    }
    let mut spare = Room::uninit();
    let halves = source(wave, inst, i, 0, Form::F16, &mut spare);
    let out = map1(halves, |x| widened(x & 0xffff).to_bits());
    room.write(out)
}

fn mixed<'r>(wave: &Wave, inst: &Inst, result: &'r mut Room) -> &'r mut Lanes {
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = mixed_source(wave, inst, 0, x);
    let b = mixed_source(wave, inst, 1, y);
    let c = mixed_source(wave, inst, 2, z);
    float32_of(wave, [a, b, c], exact_fma, |a, b, c| a.mul_add(b, c), result)
}

/// A fused multiply-add whose sources are float32 or float16 each.
pub fn v_fma_mix_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut result = Room::uninit();
    let out = mixed(wave, inst, &mut result);
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

/// As [`v_fma_mix_f32`], rounded to float16 into one half of the destination.
fn mixed_half(wave: &mut Wave, inst: &Inst, upper: bool) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mode = wave.mode.round64_16();
    let mut result = Room::uninit();
    let sum = mixed(wave, inst, &mut result);
    let mut out = map1(sum, |x| number::convert(Format::F32, Format::F16, u64::from(x), mode) as u32);
    let infinite = |lane: usize| sum.0[lane] & 0x7fff_ffff == 0x7f80_0000;
    overflow_to_greatest(wave, &mut out, |lane| !infinite(lane));
    finish16(wave, inst, &mut out);
    let to = Inst { op_sel: if upper { 8 } else { 0 }, ..inst.clone() };
    write16(wave, &to, Rest::Kept, &mut out);
    Flow::Next
}

pub fn v_fma_mixlo_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    mixed_half(wave, inst, false)
}

pub fn v_fma_mixhi_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    mixed_half(wave, inst, true)
}

/// The float32 values of one half of source `i` of a dot product.
fn dot_half<'a>(wave: &Wave, inst: &Inst, i: usize, high: bool, bf16: bool, room: &'a mut Room) -> &'a Lanes {
    let mut spare = Room::uninit();
    let lanes = half_source(wave, inst, i, high, !bf16, &mut spare);
    let sign = if bf16 && if high { inst.neg_hi } else { inst.neg } >> i & 1 != 0 { 0x8000 } else { 0 };
    let out = map1(lanes, |x| if bf16 { (x ^ sign) << 16 } else { widened(x).to_bits() });
    room.write(out)
}

/// Adds the products of the halves of two sources to `start`, one after the other, each sum rounded to float32.
fn dot2(wave: &Wave, inst: &Inst, bf16: bool, start: &Lanes) -> Lanes {
    let mut sum = *start;
    for high in [false, true] {
        let mut rooms = [Room::uninit(); 3];
        let [x, y, result] = &mut rooms;
        let a = dot_half(wave, inst, 0, high, bf16, x);
        let b = dot_half(wave, inst, 1, high, bf16, y);
        if bf16 {
            // A product of bfloat16 can be too large or too small for a float32; it is rounded before it is added.
            let mut room = Room::uninit();
            let product = float32_of(wave, [a, b, a], exact_mul, |a, b, _| a * b, &mut room);
            sum = *float32_of(wave, [product, &sum, a], add, |a, b, _| a + b, result);
        } else {
            if high {
                flush_between(wave, &mut sum);
            }
            sum = *float32_of(wave, [a, b, &sum], exact_fma, |a, b, c| a.mul_add(b, c), result);
        }
    }
    sum
}

/// Flushes a float32 that is the result of one operation and a source of the next, if MODE flushes either: AMD's text writes
/// a dot product of float16 as two operations on float32. (A comment in LLVM's selection of `v_dot2_f32_f16` says that the
/// instruction flushes always. No text of AMD's does, so it counts as modelled.)
fn flush_between(wave: &Wave, sum: &mut Lanes) {
    let denormals = wave.mode.denormals32();
    if denormals.flush_in || denormals.flush_out {
        *sum = map1(sum, |x| if x & 0x7f80_0000 == 0 { x & 1 << 31 } else { x });
    }
}

/// The third source of a dot product: a float32.
fn dot_addend(wave: &Wave, inst: &Inst) -> Lanes {
    let mut room = Room::uninit();
    *source(wave, inst, 2, 0, Form::F32, &mut room)
}

pub fn v_dot2_f32_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut out = dot2(wave, inst, false, &dot_addend(wave, inst));
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// The products are added first, then the third source.
pub fn v_dot2_f32_bf16(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    // Adding negative zero changes nothing.
    let products = dot2(wave, inst, true, &Lanes::splat(1 << 31));
    let addend = dot_addend(wave, inst);
    let mut result = Room::uninit();
    let out = float32_of(wave, [&products, &addend, &addend], add, |a, b, _| a + b, &mut result);
    finish32(wave, inst, out);
    write(wave, inst, 0, out);
    Flow::Next
}

/// Dot products of VOP2, which add to the destination.
fn dot2_accumulate(wave: &mut Wave, inst: &Inst, bf16: bool) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let packed = Inst { op_sel: 0, op_sel_hi: 7, neg_hi: inst.neg, ..inst.clone() };
    let mut room = Room::uninit();
    let mut flushing = Room::uninit();
    let start = *accumulator(wave, inst, &mut room, &mut flushing);
    let mut out = dot2(wave, &packed, bf16, &start);
    finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_dot2c_f32_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    dot2_accumulate(wave, inst, false)
}

pub fn v_dot2c_f32_bf16(wave: &mut Wave, inst: &Inst) -> Flow {
    dot2_accumulate(wave, inst, true)
}

/// The halves of two sources that `op_sel` and `op_sel_hi` select, packed again.
fn selected_halves(wave: &Wave, inst: &Inst) -> [Lanes; 2] {
    [0, 1].map(|i| {
        let mut rooms = [Room::uninit(); 2];
        let [x, y] = &mut rooms;
        let low = half_source(wave, inst, i, false, false, x);
        let high = half_source(wave, inst, i, true, false, y);
        map2(low, high, |low, high| low | high << 16)
    })
}

fn dot2_integer(wave: &mut Wave, inst: &Inst, f: fn(u32, u32, u32, bool) -> u32) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let [a, b] = selected_halves(wave, inst);
    let mut room = Room::uninit();
    let c = source(wave, inst, 2, 0, Form::B32, &mut room);
    let clamp = inst.clamp;
    let out = map3(&a, &b, c, |a, b, c| f(a, b, c, clamp));
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_dot2_i32_i16(wave: &mut Wave, inst: &Inst) -> Flow {
    dot2_integer(wave, inst, |a, b, c, clamp| {
        let sum = dot_i16(a, b) + i64::from(c as i32);
        let saturated = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        if clamp { saturated as u32 } else { sum as u32 }
    })
}

pub fn v_dot2_u32_u16(wave: &mut Wave, inst: &Inst) -> Flow {
    dot2_integer(wave, inst, |a, b, c, clamp| {
        let product = |i: u32| u64::from(a >> i & 0xffff) * u64::from(b >> i & 0xffff);
        let sum = product(0) + product(16) + u64::from(c);
        if clamp { sum.min(u64::from(u32::MAX)) as u32 } else { sum as u32 }
    })
}
