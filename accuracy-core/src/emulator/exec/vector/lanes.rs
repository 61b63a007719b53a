//! Loops over the lanes of a wave, compiled for AVX2 and FMA beside what every processor has.

pub(super) use super::operands::each;
use super::operands::{
    Form, Rest, Room, begin, flush_source64, flushed64, old, source, source64, write, write16,
};
pub(super) use super::wide::widest;
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, LANES, Lanes, Wave};

/// `a` if `on`, else `b`, in a form that never becomes a branch.
#[inline(always)]
pub(super) fn choose(on: bool, a: u32, b: u32) -> u32 {
    b ^ (a ^ b) & u32::from(on).wrapping_neg()
}

#[inline(always)]
fn loop1<F: Fn(u32) -> u32>(a: &Lanes, f: F) -> Lanes {
    each(|i| f(a.0[i]))
}

#[inline(always)]
fn loop2<F: Fn(u32, u32) -> u32>(a: &Lanes, b: &Lanes, f: F) -> Lanes {
    each(|i| f(a.0[i], b.0[i]))
}

#[inline(always)]
fn loop3<F: Fn(u32, u32, u32) -> u32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Lanes {
    each(|i| f(a.0[i], b.0[i], c.0[i]))
}

/// Applies a function to every lane.
pub(super) fn map1<F: Fn(u32) -> u32>(a: &Lanes, f: F) -> Lanes {
    widest!([F: Fn(u32) -> u32] loop1(a: &Lanes, f: F) -> Lanes)
}

/// Applies a function to every lane.
pub(super) fn map2<F: Fn(u32, u32) -> u32>(a: &Lanes, b: &Lanes, f: F) -> Lanes {
    widest!([F: Fn(u32, u32) -> u32] loop2(a: &Lanes, b: &Lanes, f: F) -> Lanes)
}

/// Applies a function to every lane.
pub(super) fn map3<F: Fn(u32, u32, u32) -> u32>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Lanes {
    widest!([F: Fn(u32, u32, u32) -> u32] loop3(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Lanes)
}

/// A value of 64 bits in every lane: the low and the high dwords.
pub(super) type Pair = [Lanes; 2];

#[inline(always)]
fn word64(low: &Lanes, high: &Lanes, i: usize) -> u64 {
    u64::from(high.0[i]) << 32 | u64::from(low.0[i])
}

#[inline(always)]
fn split64(f: impl Fn(usize) -> u64) -> Pair {
    let mut out = [Lanes::ZERO; 2];
    for i in 0..LANES {
        let value = f(i);
        out[0].0[i] = value as u32;
        out[1].0[i] = (value >> 32) as u32;
    }
    out
}

#[inline(always)]
fn wide_loop1<F: Fn(u64) -> u64>(a: [&Lanes; 2], f: F) -> Pair {
    split64(|i| f(word64(a[0], a[1], i)))
}

#[inline(always)]
fn wide_loop2<F: Fn(u64, u64) -> u64>(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Pair {
    split64(|i| f(word64(a[0], a[1], i), word64(b[0], b[1], i)))
}

#[inline(always)]
fn wide_loop3<F: Fn(u64, u64, u64) -> u64>(a: [&Lanes; 2], b: [&Lanes; 2], c: [&Lanes; 2], f: F) -> Pair {
    split64(|i| f(word64(a[0], a[1], i), word64(b[0], b[1], i), word64(c[0], c[1], i)))
}

/// Applies a function to the 64 bits of every lane.
pub(super) fn wide_map1<F: Fn(u64) -> u64>(a: [&Lanes; 2], f: F) -> Pair {
    widest!([F: Fn(u64) -> u64] wide_loop1(a: [&Lanes; 2], f: F) -> Pair)
}

/// Applies a function to the 64 bits of every lane.
pub(super) fn wide_map2<F: Fn(u64, u64) -> u64>(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Pair {
    widest!([F: Fn(u64, u64) -> u64] wide_loop2(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Pair)
}

/// Applies a function to the 64 bits of every lane.
pub(super) fn wide_map3<F: Fn(u64, u64, u64) -> u64>(
    a: [&Lanes; 2],
    b: [&Lanes; 2],
    c: [&Lanes; 2],
    f: F,
) -> Pair {
    widest!([F: Fn(u64, u64, u64) -> u64]
        wide_loop3(a: [&Lanes; 2], b: [&Lanes; 2], c: [&Lanes; 2], f: F) -> Pair)
}

/// A result of 32 bits from one source.
#[inline(always)]
pub(super) fn unary<F: Fn(u32) -> u32>(wave: &mut Wave, inst: &Inst, form: Form, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let out = map1(source(wave, inst, 0, 0, form, &mut room), f);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A result of 32 bits from two sources.
#[inline(always)]
pub(super) fn binary<F: Fn(u32, u32) -> u32>(wave: &mut Wave, inst: &Inst, form: Form, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let out = map2(source(wave, inst, 0, 0, form, x), source(wave, inst, 1, 0, form, y), f);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A result of 32 bits from three sources.
#[inline(always)]
pub(super) fn ternary<F: Fn(u32, u32, u32) -> u32>(
    wave: &mut Wave,
    inst: &Inst,
    forms: [Form; 3],
    f: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, forms[0], x);
    let b = source(wave, inst, 1, 0, forms[1], y);
    let c = source(wave, inst, 2, 0, forms[2], z);
    let out = map3(a, b, c, f);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A result of 32 bits from two sources and the old destination.
#[inline(always)]
pub(super) fn accumulate<F: Fn(u32, u32, u32) -> u32>(
    wave: &mut Wave,
    inst: &Inst,
    form: Form,
    f: F,
) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, form, x);
    let b = source(wave, inst, 1, 0, form, y);
    let out = map3(a, b, old(wave, inst, 0, z), f);
    write(wave, inst, 0, &out);
    Flow::Next
}

/// A result of 16 bits from up to three sources of 16 bits.
#[inline(always)]
pub(super) fn half<F: Fn(u16, u16, u16) -> u16>(wave: &mut Wave, inst: &Inst, rest: Rest, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::B16, x);
    let b = source(wave, inst, 1, 0, Form::B16, y);
    let c = source(wave, inst, 2, 0, Form::B16, z);
    let mut out = map3(a, b, c, |a, b, c| u32::from(f(a as u16, b as u16, c as u16)));
    write16(wave, inst, rest, &mut out);
    Flow::Next
}

/// Writes both dwords of a 64-bit result.
#[inline(always)]
pub(super) fn write64(wave: &mut Wave, inst: &Inst, out: &Pair) {
    write(wave, inst, 0, &out[0]);
    write(wave, inst, 1, &out[1]);
}

/// A result of 64 bits from a source of 32 and one of 64.
#[inline(always)]
pub(super) fn shift64<F: Fn(u32, u64) -> u64>(wave: &mut Wave, inst: &Inst, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let mut rooms = [Room::uninit(); 2];
    let by = source(wave, inst, 0, 0, Form::B32, &mut room);
    let value = source64(wave, inst, 1, false, &mut rooms);
    let out = wide_map2([by, by], value, |by, value| f(by as u32, value));
    write64(wave, inst, &out);
    Flow::Next
}

/// The float64 source `i`, its denormals flushed if MODE says so.
#[inline(always)]
pub(super) fn float64_source<'a>(
    wave: &'a Wave,
    inst: &Inst,
    i: usize,
    rooms: &'a mut [Room; 2],
    spare: &'a mut [Room; 2],
) -> [&'a Lanes; 2] {
    let pair = source64(wave, inst, i, true, rooms);
    if wave.mode.denormals64_16().flush_in { flush_source64(pair, spare) } else { pair }
}

/// Flushes denormals of float64 results if MODE says so.
pub(super) fn flush64(wave: &Wave, out: &mut Pair) {
    if wave.mode.denormals64_16().flush_out {
        let [low, high] = out;
        for (low, high) in low.0.iter_mut().zip(&mut high.0) {
            let value = flushed64(u64::from(*high) << 32 | u64::from(*low));
            *low = value as u32;
            *high = (value >> 32) as u32;
        }
    }
}
