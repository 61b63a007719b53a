//! Integers and bits, 32 and 64 wide.

use super::lanes::{accumulate, binary, choose, each, shift64, ternary, unary, wide_map3, write64};
use super::operands::{Form, Room, begin, raw, scalar, source, source64, write, writers};
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Flow, LANES, Lanes, Wave, expand};

const B: Form = Form::B32;
const BBB: [Form; 3] = [B; 3];

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident: |$a:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: u32) -> u32 {
                $body
            }
            unary(wave, inst, B, lane)
        }
    )*};
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident: |$a:ident, $b:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: u32, $b: u32) -> u32 {
                $body
            }
            binary(wave, inst, B, lane)
        }
    )*};
}

macro_rules! ternary {
    ($($(#[$doc:meta])* $name:ident: |$a:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            #[inline(always)]
            fn lane($a: u32, $b: u32, $c: u32) -> u32 {
                $body
            }
            ternary(wave, inst, BBB, lane)
        }
    )*};
}

/// Instructions that saturate with `clamp`: what they do without it, and with it.
macro_rules! saturating {
    ($($name:ident: |$a:ident, $b:ident| $wrapping:expr, $saturating:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if inst.clamp {
                binary(wave, inst, B, |$a, $b| $saturating)
            } else {
                binary(wave, inst, B, |$a, $b| $wrapping)
            }
        }
    )*};
}

macro_rules! saturating3 {
    ($($name:ident: |$a:ident, $b:ident, $c:ident| $wrapping:expr, $saturating:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if inst.clamp {
                ternary(wave, inst, BBB, |$a, $b, $c| $saturating)
            } else {
                ternary(wave, inst, BBB, |$a, $b, $c| $wrapping)
            }
        }
    )*};
}

/// The low 24 bits, sign-extended.
#[inline(always)]
fn i24(x: u32) -> i32 {
    (x << 8) as i32 >> 8
}

#[inline(always)]
fn u24(x: u32) -> u32 {
    x & 0xff_ffff
}

/// Saturates to int32.
#[inline(always)]
fn sat_i32(x: i64) -> u32 {
    x.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32 as u32
}

/// Saturates to uint32.
#[inline(always)]
fn sat_u32(x: u64) -> u32 {
    x.min(u64::from(u32::MAX)) as u32
}

/// `a << 8 >> 8` of every byte: the absolute differences of the bytes of two words, summed with a start value.
#[inline(always)]
fn sad_u8(a: u32, b: u32, start: u32) -> u32 {
    let mut sum = start;
    for shift in [0, 8, 16, 24] {
        let (x, y) = (a >> shift & 0xff, b >> shift & 0xff);
        sum = sum.wrapping_add(x.abs_diff(y));
    }
    sum
}

/// As [`sad_u8`], without the bytes that are zero in `b`.
#[inline(always)]
fn msad_u8(a: u32, b: u32, start: u32) -> u32 {
    let mut sum = start;
    for shift in [0, 8, 16, 24] {
        let (x, y) = (a >> shift & 0xff, b >> shift & 0xff);
        sum = sum.wrapping_add(if y == 0 { 0 } else { x.abs_diff(y) });
    }
    sum
}

/// One byte of `v_perm_b32`: a byte of S0 above S1, the sign of every second one, 0 or 255.
#[inline(always)]
fn permuted(s0: u32, s1: u32, select: u32) -> u32 {
    let select = select & 0xff;
    let byte = choose(select & 4 != 0, s0, s1) >> (8 * (select & 3)) & 0xff;
    let sign = choose(select & 2 != 0, s0, s1) >> (15 + 16 * (select & 1)) & 1;
    let constant = choose(select == 12, 0, 0xff);
    let out = choose(select < 12, sign.wrapping_neg() & 0xff, constant);
    choose(select < 8, byte, out)
}

unary! {
    v_not_b32: |a| !a;
    v_bfrev_b32: |a| a.reverse_bits();
    v_ffbh_u32: |a| if a == 0 { u32::MAX } else { a.leading_zeros() };
    v_ffbl_b32: |a| if a == 0 { u32::MAX } else { a.trailing_zeros() };
    v_ffbh_i32: |a| {
        let flipped = a ^ ((a as i32) >> 31) as u32;
        if flipped == 0 { u32::MAX } else { flipped.leading_zeros() }
    };
    /// One step of a shift register with feedback.
    v_prng_b32: |a| a << 1 ^ if a >> 31 != 0 { 197 } else { 0 };
}

binary! {
    v_and_b32: |a, b| a & b;
    v_or_b32: |a, b| a | b;
    v_xor_b32: |a, b| a ^ b;
    v_xnor_b32: |a, b| !(a ^ b);
    v_lshrrev_b32: |a, b| b >> (a & 31);
    v_ashrrev_i32: |a, b| (b as i32 >> (a & 31)) as u32;
    v_lshlrev_b32: |a, b| b << (a & 31);
    v_min_i32: |a, b| (a as i32).min(b as i32) as u32;
    v_max_i32: |a, b| (a as i32).max(b as i32) as u32;
    v_min_u32: |a, b| a.min(b);
    v_max_u32: |a, b| a.max(b);
    v_mul_lo_u32: |a, b| a.wrapping_mul(b);
    v_mul_hi_u32: |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32;
    v_mul_hi_i32: |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32;
    v_mul_hi_i32_i24: |a, b| ((i64::from(i24(a)) * i64::from(i24(b))) >> 32) as u32;
    v_mul_hi_u32_u24: |a, b| ((u64::from(u24(a)) * u64::from(u24(b))) >> 32) as u32;
    v_bfm_b32: |a, b| ((1 << (a & 31)) - 1) << (b & 31);
    v_bcnt_u32_b32: |a, b| b.wrapping_add(a.count_ones());
}

saturating! {
    v_add_u32: |a, b| a.wrapping_add(b), a.saturating_add(b);
    v_sub_u32: |a, b| a.wrapping_sub(b), a.saturating_sub(b);
    v_subrev_u32: |a, b| b.wrapping_sub(a), b.saturating_sub(a);
    v_add_i32: |a, b| a.wrapping_add(b), (a as i32).saturating_add(b as i32) as u32;
    v_sub_i32: |a, b| a.wrapping_sub(b), (a as i32).saturating_sub(b as i32) as u32;
    v_mul_i32_i24: |a, b| i24(a).wrapping_mul(i24(b)) as u32, sat_i32(i64::from(i24(a)) * i64::from(i24(b)));
    v_mul_u32_u24: |a, b| u24(a).wrapping_mul(u24(b)), sat_u32(u64::from(u24(a)) * u64::from(u24(b)));
}

saturating3! {
    v_mad_i32_i24: |a, b, c| i24(a).wrapping_mul(i24(b)).wrapping_add(c as i32) as u32,
        sat_i32(i64::from(i24(a)) * i64::from(i24(b)) + i64::from(c as i32));
    v_mad_u32_u24: |a, b, c| u24(a).wrapping_mul(u24(b)).wrapping_add(c),
        sat_u32(u64::from(u24(a)) * u64::from(u24(b)) + u64::from(c));
    v_sad_u8: |a, b, c| sad_u8(a, b, c), sat_u32(u64::from(sad_u8(a, b, 0)) + u64::from(c));
    v_sad_hi_u8: |a, b, c| (sad_u8(a, b, 0) << 16).wrapping_add(c),
        (sad_u8(a, b, 0) << 16).saturating_add(c);
    v_sad_u16: |a, b, c| {
        let low = (a & 0xffff).abs_diff(b & 0xffff);
        c.wrapping_add(low).wrapping_add((a >> 16).abs_diff(b >> 16))
    }, {
        let low = (a & 0xffff).abs_diff(b & 0xffff);
        c.saturating_add(low + (a >> 16).abs_diff(b >> 16))
    };
    v_sad_u32: |a, b, c| a.abs_diff(b).wrapping_add(c), a.abs_diff(b).saturating_add(c);
    v_msad_u8: |a, b, c| msad_u8(a, b, c), sat_u32(u64::from(msad_u8(a, b, 0)) + u64::from(c));
}

ternary! {
    v_bfe_u32: |a, b, c| a >> (b & 31) & ((1 << (c & 31)) - 1);
    v_bfe_i32: |a, b, c| {
        let width = c & 31;
        let field = a as i32 >> (b & 31);
        let up = 32 - width.max(1);
        if width == 0 { 0 } else { (field << up >> up) as u32 }
    };
    v_bfi_b32: |a, b, c| a & b | !a & c;
    v_alignbit_b32: |a, b, c| ((u64::from(a) << 32 | u64::from(b)) >> (c & 31)) as u32;
    v_alignbyte_b32: |a, b, c| ((u64::from(a) << 32 | u64::from(b)) >> (8 * (c & 3))) as u32;
    v_min3_i32: |a, b, c| (a as i32).min(b as i32).min(c as i32) as u32;
    v_min3_u32: |a, b, c| a.min(b).min(c);
    v_max3_i32: |a, b, c| (a as i32).max(b as i32).max(c as i32) as u32;
    v_max3_u32: |a, b, c| a.max(b).max(c);
    v_med3_i32: |a, b, c| {
        let (a, b, c) = (a as i32, b as i32, c as i32);
        a.min(b).max(a.max(b).min(c)) as u32
    };
    v_med3_u32: |a, b, c| a.min(b).max(a.max(b).min(c));
    v_lshl_add_u32: |a, b, c| (a << (b & 31)).wrapping_add(c);
    v_add_lshl_u32: |a, b, c| a.wrapping_add(b) << (c & 31);
    v_add3_u32: |a, b, c| a.wrapping_add(b).wrapping_add(c);
    v_lshl_or_b32: |a, b, c| a << (b & 31) | c;
    v_and_or_b32: |a, b, c| a & b | c;
    v_or3_b32: |a, b, c| a | b | c;
    v_xad_u32: |a, b, c| (a ^ b).wrapping_add(c);
    v_lerp_u8: |a, b, c| {
        let mut out = 0;
        for shift in [0, 8, 16, 24] {
            out |= ((a >> shift & 0xff) + (b >> shift & 0xff) + (c >> shift & 1)) >> 1 << shift;
        }
        out
    };
}

/// Each byte of the result is a byte of S0 above S1, a sign, 0 or 255, as a byte of S2 says.
pub fn v_perm_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Operand::Scalar(_) | Operand::Constant(_) = inst.src[2] {
        let selectors = scalar(wave, inst.src[2], 0).to_le_bytes();
        if selectors.iter().all(|selector| !(8..12).contains(selector)) {
            return permute_alike(wave, inst, selectors);
        }
    }
    ternary(wave, inst, BBB, |a, b, c| {
        let byte = |i: u32| permuted(a, b, c >> (8 * i)) << (8 * i);
        byte(0) | byte(1) | byte(2) | byte(3)
    })
}

/// The same permutation in all lanes, without signs: shifts and masks are known before the loop.
fn permute_alike(wave: &mut Wave, inst: &Inst, selectors: [u8; 4]) -> Flow {
    let from_s0 = selectors.map(|selector| if selector & 4 != 0 { u32::MAX } else { 0 });
    let shifts = selectors.map(|selector| 8 * u32::from(selector & 3));
    let masks = selectors.map(|selector| if selector < 8 { 0xff } else { 0 });
    let constants = selectors.map(|selector| if selector > 12 { 0xff } else { 0 });
    let constant = u32::from_le_bytes(constants);
    binary(wave, inst, B, move |a, b| {
        let byte = |i: usize| ((b ^ (a ^ b) & from_s0[i]) >> shifts[i] & masks[i]) << (8 * i);
        byte(0) | byte(1) | byte(2) | byte(3) | constant
    })
}

/// A register moves; SDWA and DPP may change it on the way.
pub fn v_mov_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let out = *source(wave, inst, 0, 0, Form::SIGNED32, &mut room);
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_mov_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [low, high] = source64(wave, inst, 0, true, &mut rooms);
    let out = [*low, *high];
    write64(wave, inst, &out);
    Flow::Next
}

/// Nothing.
pub fn v_nop(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Next
}

/// Clears the flags of floating-point exceptions, which nothing here reads.
pub fn v_clrexcp(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Next
}

/// The lanes' bits of a scalar pair as words, all ones or zero.
#[inline(always)]
pub(super) fn lane_mask(wave: &Wave, operand: Operand) -> Lanes {
    spread(u64::from(scalar(wave, operand, 1)) << 32 | u64::from(scalar(wave, operand, 0)))
}

fn spread(bits: u64) -> Lanes {
    #[inline(always)]
    fn plain(bits: u64) -> Lanes {
        expand(bits)
    }
    super::lanes::widest!([] plain(bits: u64) -> Lanes)
}

pub fn v_cndmask_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let mask = lane_mask(wave, inst.src[3]);
    let a = source(wave, inst, 0, 0, Form::SIGNED32, x);
    let b = source(wave, inst, 1, 0, Form::SIGNED32, y);
    let out = super::lanes::map3(a, b, &mask, |a, b, mask| a ^ (a ^ b) & mask);
    write(wave, inst, 0, &out);
    Flow::Next
}

macro_rules! shifts64 {
    ($($name:ident: |$by:ident, $value:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            shift64(wave, inst, |$by, $value| $body)
        }
    )*};
}

shifts64! {
    v_lshlrev_b64: |by, value| value << (by & 63);
    v_lshrrev_b64: |by, value| value >> (by & 63);
    v_ashrrev_i64: |by, value| (value as i64 >> (by & 63)) as u64;
}

pub fn v_lshl_add_u64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let mut room = Room::uninit();
    let [x, z] = &mut rooms;
    let a = source64(wave, inst, 0, false, x);
    let by = source(wave, inst, 1, 0, B, &mut room);
    let c = source64(wave, inst, 2, false, z);
    let out = if inst.clamp {
        wide_map3(a, [by, by], c, |a, by, c| (a << (by & 7)).saturating_add(c))
    } else {
        shift_add(a, by, c)
    };
    write64(wave, inst, &out);
    Flow::Next
}

/// `(a << by) + c` in 64 bits, from halves of 32 bits.
fn shift_add(a: [&Lanes; 2], by: &Lanes, c: [&Lanes; 2]) -> [Lanes; 2] {
    #[inline(always)]
    fn halves(a: [&Lanes; 2], by: &Lanes, c: [&Lanes; 2]) -> [Lanes; 2] {
        let low = |i: usize| (a[0].0[i] << (by.0[i] & 7)).wrapping_add(c[0].0[i]);
        let high = |i: usize| {
            let by = by.0[i] & 7;
            // What leaves the low half; shifting by 32 at once is not possible.
            let moved = a[1].0[i] << by | a[0].0[i] >> 1 >> (31 - by);
            moved.wrapping_add(c[1].0[i]).wrapping_add(u32::from(low(i) < c[0].0[i]))
        };
        [each(low), each(high)]
    }
    super::lanes::widest!([] halves(a: [&Lanes; 2], by: &Lanes, c: [&Lanes; 2]) -> [Lanes; 2])
}

/// Writes one bit for each lane that executes, and zero for the others.
#[inline(always)]
pub(super) fn write_mask(wave: &mut Wave, inst: &Inst, to: Operand, bits: u64) {
    if let Operand::Scalar(first) = to {
        let on = writers(wave, inst);
        wave.set_s64(first, bits & on);
    }
}

/// One bit for each lane whose value is not zero; the values are 0 or 1.
#[inline(always)]
pub(super) fn gather(bits: &[u8; LANES]) -> u64 {
    let mut mask = 0;
    for (i, chunk) in bits.chunks_exact(8).enumerate() {
        let bytes = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        // Bit 0 of byte i comes to bit 56 + i.
        mask |= (bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    mask
}

type Carried = (Lanes, [u8; LANES]);

#[inline(always)]
fn carry_loop<F: Fn(u32, u32, u32) -> (u32, bool)>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Carried {
    let mut out = (Lanes::ZERO, [0; LANES]);
    for i in 0..LANES {
        let (value, carry) = f(a.0[i], b.0[i], c.0[i] & 1);
        out.0.0[i] = value;
        out.1[i] = u8::from(carry);
    }
    out
}

fn carry_map<F: Fn(u32, u32, u32) -> (u32, bool)>(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Carried {
    super::lanes::widest!([F: Fn(u32, u32, u32) -> (u32, bool)]
        carry_loop(a: &Lanes, b: &Lanes, c: &Lanes, f: F) -> Carried)
}

/// Addition and subtraction with a carry out: `f` gets the sources and the carry in. `on_clamp` is the value of a lane
/// that carries, with `clamp`.
#[inline(always)]
fn carrying<F>(wave: &mut Wave, inst: &Inst, on_clamp: u32, f: F) -> Flow
where
    F: Fn(u32, u32, u32) -> (u32, bool),
{
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let carry = lane_mask(wave, inst.src[3]);
    let a = source(wave, inst, 0, 0, B, x);
    let b = source(wave, inst, 1, 0, B, y);
    let (mut out, carries) = carry_map(a, b, &carry, f);
    if inst.clamp {
        for (value, &carry) in out.0.iter_mut().zip(&carries) {
            *value = if carry != 0 { on_clamp } else { *value };
        }
    }
    write(wave, inst, 0, &out);
    write_mask(wave, inst, inst.sdst, gather(&carries));
    Flow::Next
}

#[inline(always)]
fn add_carry(a: u32, b: u32, carry: u32) -> (u32, bool) {
    let sum = u64::from(a) + u64::from(b) + u64::from(carry);
    (sum as u32, sum >> 32 != 0)
}

#[inline(always)]
fn sub_borrow(a: u32, b: u32, borrow: u32) -> (u32, bool) {
    let taken = u64::from(b) + u64::from(borrow);
    (a.wrapping_sub(taken as u32), taken > u64::from(a))
}

pub fn v_add_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, u32::MAX, |a, b, _| a.overflowing_add(b))
}

pub fn v_sub_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, 0, |a, b, _| a.overflowing_sub(b))
}

pub fn v_subrev_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, 0, |a, b, _| b.overflowing_sub(a))
}

pub fn v_addc_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, u32::MAX, add_carry)
}

pub fn v_subb_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, 0, sub_borrow)
}

pub fn v_subbrev_co_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    carrying(wave, inst, 0, |a, b, borrow| sub_borrow(b, a, borrow))
}

/// `S0 * S1 + S2` in 64 bits, with bit 64 of the sum. `f` gives the sum without and with saturation, and that bit.
#[inline(always)]
fn mad64<F: Fn(u32, u32, u64) -> (u64, u64, bool)>(wave: &mut Wave, inst: &Inst, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let mut pair = [Room::uninit(); 2];
    let a = source(wave, inst, 0, 0, B, x);
    let b = source(wave, inst, 1, 0, B, y);
    let c = source64(wave, inst, 2, false, &mut pair);
    let (out, carries) = mad64_map([a, b], c, inst.clamp, f);
    write64(wave, inst, &out);
    write_mask(wave, inst, inst.sdst, gather(&carries));
    Flow::Next
}

type Carried64 = ([Lanes; 2], [u8; LANES]);

#[inline(always)]
fn mad64_loop<F: Fn(u32, u32, u64) -> (u64, u64, bool)>(
    factors: [&Lanes; 2],
    c: [&Lanes; 2],
    clamp: bool,
    f: F,
) -> Carried64 {
    let mut out = ([Lanes::ZERO; 2], [0; LANES]);
    for i in 0..LANES {
        let addend = u64::from(c[1].0[i]) << 32 | u64::from(c[0].0[i]);
        let (sum, saturated, carry) = f(factors[0].0[i], factors[1].0[i], addend);
        let value = if clamp { saturated } else { sum };
        out.0[0].0[i] = value as u32;
        out.0[1].0[i] = (value >> 32) as u32;
        out.1[i] = u8::from(carry);
    }
    out
}

fn mad64_map<F: Fn(u32, u32, u64) -> (u64, u64, bool)>(
    factors: [&Lanes; 2],
    c: [&Lanes; 2],
    clamp: bool,
    f: F,
) -> Carried64 {
    super::lanes::widest!([F: Fn(u32, u32, u64) -> (u64, u64, bool)]
        mad64_loop(factors: [&Lanes; 2], c: [&Lanes; 2], clamp: bool, f: F) -> Carried64)
}

pub fn v_mad_u64_u32(wave: &mut Wave, inst: &Inst) -> Flow {
    mad64(wave, inst, |a, b, c| {
        let (sum, over) = c.overflowing_add(u64::from(a) * u64::from(b));
        (sum, if over { u64::MAX } else { sum }, over)
    })
}

/// The second destination is bit 64 of the sum in 65 bits, which is its sign.
pub fn v_mad_i64_i32(wave: &mut Wave, inst: &Inst) -> Flow {
    mad64(wave, inst, |a, b, c| {
        let product = i64::from(a as i32) * i64::from(b as i32);
        let (sum, over) = product.overflowing_add(c as i64);
        let saturated = if sum < 0 { i64::MAX } else { i64::MIN };
        (sum as u64, if over { saturated } else { sum } as u64, (sum < 0) != over)
    })
}

macro_rules! sad_pairs {
    ($($name:ident: $sad:ident;)*) => {$(
        /// Four sums of absolute differences of bytes, each one byte further in S0.
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [[Room::uninit(); 2]; 2];
            let mut room = Room::uninit();
            let [x, z] = &mut rooms;
            let a = source64(wave, inst, 0, false, x);
            let b = source(wave, inst, 1, 0, B, &mut room);
            let c = source64(wave, inst, 2, false, z);
            let clamp = inst.clamp;
            let out = wide_map3(a, [b, b], c, |a, b, c| {
                let mut out = 0;
                for i in 0..4 {
                    let sum = $sad((a >> (8 * i)) as u32, b as u32, (c >> (16 * i)) as u32 & 0xffff);
                    let sum = if clamp { sum.min(0xffff) } else { sum & 0xffff };
                    out |= u64::from(sum) << (16 * i);
                }
                out
            });
            write64(wave, inst, &out);
            Flow::Next
        }
    )*};
}

sad_pairs! {
    v_qsad_pk_u16_u8: sad_u8;
    v_mqsad_pk_u16_u8: msad_u8;
}

pub fn v_mqsad_u32_u8(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let mut room = Room::uninit();
    let [low, high] = source64(wave, inst, 0, false, &mut rooms);
    let b = source(wave, inst, 1, 0, B, &mut room);
    let mut out = [Lanes::ZERO; 4];
    for (i, out) in out.iter_mut().enumerate() {
        let mut room = Room::uninit();
        let c = raw(wave, inst.src[2], i as u16, &mut room);
        for lane in 0..LANES {
            let a = (u64::from(high.0[lane]) << 32 | u64::from(low.0[lane])) >> (8 * i);
            let sum = msad_u8(a as u32, b.0[lane], 0);
            out.0[lane] =
                if inst.clamp { sum.saturating_add(c.0[lane]) } else { sum.wrapping_add(c.0[lane]) };
        }
    }
    for (i, out) in out.iter().enumerate() {
        write(wave, inst, i as u16, out);
    }
    Flow::Next
}

/// One bit of each of three sources indexes a table of eight bits.
pub fn v_bitop3_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let table = bitop_table(inst);
    ternary(wave, inst, BBB, |a, b, c| bitop3(table, a, b, c))
}

/// The table of a `v_bitop3`: the decoder puts it together from the fields of the modifiers.
pub(super) fn bitop_table(inst: &Inst) -> u32 {
    inst.imm as u32 & 0xff
}

#[inline(always)]
pub(super) fn bitop3(table: u32, a: u32, b: u32, c: u32) -> u32 {
    let mut out = 0;
    for case in 0..8 {
        let on = (table >> case & 1).wrapping_neg();
        let x = if case & 4 != 0 { a } else { !a };
        let y = if case & 2 != 0 { b } else { !b };
        let z = if case & 1 != 0 { c } else { !c };
        out |= on & x & y & z;
    }
    out
}

macro_rules! ashr_pack {
    ($($name:ident: $least:expr, $most:expr;)*) => {$(
        /// Two values shifted right and saturated to bytes, in the low half of the destination.
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [Room::uninit(); 3];
            let [x, y, z] = &mut rooms;
            let a = source(wave, inst, 0, 0, B, x);
            let b = source(wave, inst, 1, 0, B, y);
            let c = source(wave, inst, 2, 0, B, z);
            let mut out = super::lanes::map3(a, b, c, |a, b, c| {
                let byte = |x: u32| (x as i32 >> (c & 31)).clamp($least, $most) as u32 & 0xff;
                byte(a) | byte(b) << 8
            });
            super::operands::write16(wave, inst, super::operands::Rest::Kept, &mut out);
            Flow::Next
        }
    )*};
}

ashr_pack! {
    v_ashr_pk_i8_i32: -128, 127;
    v_ashr_pk_u8_i32: 0, 255;
}

/// Mean of the low and high parts of dot products: sums of products of parts of two words, and the old destination.
macro_rules! dot_accumulate {
    ($($name:ident: $dot:ident;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if inst.clamp {
                accumulate(wave, inst, B, |a, b, c| sat_i32($dot(a, b) + i64::from(c as i32)))
            } else {
                accumulate(wave, inst, B, |a, b, c| ($dot(a, b) as u32).wrapping_add(c))
            }
        }
    )*};
}

dot_accumulate! {
    v_dot2c_i32_i16: dot_i16;
    v_dot4c_i32_i8: dot_i8;
    v_dot8c_i32_i4: dot_i4;
}

/// Instructions of VOP3P whose sources are packed integers; the accumulator is the third source.
macro_rules! dot {
    ($($name:ident: $dot:ident, $sum:ty, $wide:ty, $clamped:ident;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if inst.clamp {
                ternary(wave, inst, BBB, |a, b, c| $clamped($dot(a, b) + <$wide>::from(c as $sum)))
            } else {
                ternary(wave, inst, BBB, |a, b, c| ($dot(a, b) as u32).wrapping_add(c))
            }
        }
    )*};
}

dot! {
    v_dot4_i32_i8: dot_i8, i32, i64, sat_i32;
    v_dot4_u32_u8: dot_u8, u32, u64, sat_u32;
    v_dot8_i32_i4: dot_i4, i32, i64, sat_i32;
    v_dot8_u32_u4: dot_u4, u32, u64, sat_u32;
}

#[inline(always)]
pub(super) fn dot_i16(a: u32, b: u32) -> i64 {
    let part = |x: u32, i: u32| i64::from((x >> (16 * i)) as i16);
    part(a, 0) * part(b, 0) + part(a, 1) * part(b, 1)
}

#[inline(always)]
fn dot_i8(a: u32, b: u32) -> i64 {
    let part = |x: u32, i: u32| i32::from((x >> (8 * i)) as i8);
    i64::from((0..4).map(|i| part(a, i) * part(b, i)).sum::<i32>())
}

#[inline(always)]
fn dot_u8(a: u32, b: u32) -> u64 {
    let part = |x: u32, i: u32| x >> (8 * i) & 0xff;
    u64::from((0..4).map(|i| part(a, i) * part(b, i)).sum::<u32>())
}

#[inline(always)]
fn dot_i4(a: u32, b: u32) -> i64 {
    let part = |x: u32, i: u32| (x << (28 - 4 * i)) as i32 >> 28;
    i64::from((0..8).map(|i| part(a, i) * part(b, i)).sum::<i32>())
}

#[inline(always)]
fn dot_u4(a: u32, b: u32) -> u64 {
    let part = |x: u32, i: u32| x >> (4 * i) & 15;
    u64::from((0..8).map(|i| part(a, i) * part(b, i)).sum::<u32>())
}

/// How many lower lanes have their bit in S0, added to S1. `offset` is the first lane of the half that S0 is for.
#[inline(always)]
fn mbcnt(wave: &mut Wave, inst: &Inst, below: fn(usize) -> u32) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let a = source(wave, inst, 0, 0, B, x);
    let b = source(wave, inst, 1, 0, B, y);
    let out = each(|i| b.0[i].wrapping_add((a.0[i] & below(i)).count_ones()));
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_mbcnt_lo_u32_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    mbcnt(wave, inst, |lane| if lane < 32 { (1 << lane) - 1 } else { u32::MAX })
}

pub fn v_mbcnt_hi_u32_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    mbcnt(wave, inst, |lane| if lane < 32 { 0 } else { (1 << (lane - 32)) - 1 })
}

/// The processor's table of screen partitions, which is for graphics.
pub fn v_screen_partition_4se_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let detail = "a table of graphics, which is not published for this architecture".into();
    wave.fail(crate::emulator::wave::Fault::Uncovered { mnemonic: inst.row.mnemonic, detail })
}
