//! Integers of 16 bits.

use super::integer::{bitop_table, bitop3};
use super::lanes::{half, ternary};
use super::operands::{Form, Rest};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, Wave};

macro_rules! half {
    ($($name:ident, $rest:ident: |$a:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            half(wave, inst, Rest::$rest, |$a, $b, $c| $body)
        }
    )*};
}

/// Instructions that saturate with `clamp`: what they do without it, and with it.
macro_rules! saturating_half {
    ($($name:ident, $rest:ident: |$a:ident, $b:ident, $c:ident| $wrapping:expr, $saturating:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if inst.clamp {
                half(wave, inst, Rest::$rest, |$a, $b, $c| $saturating)
            } else {
                half(wave, inst, Rest::$rest, |$a, $b, $c| $wrapping)
            }
        }
    )*};
}

/// `a * b + c` saturated to uint16.
#[inline(always)]
pub(super) fn mad_u16_sat(a: u16, b: u16, c: u16) -> u16 {
    (u64::from(a) * u64::from(b) + u64::from(c)).min(0xffff) as u16
}

/// `a * b + c` saturated to int16.
#[inline(always)]
pub(super) fn mad_i16_sat(a: u16, b: u16, c: u16) -> u16 {
    let [a, b, c] = [a, b, c].map(|x| i64::from(x as i16));
    (a * b + c).clamp(-0x8000, 0x7fff) as u16
}

half! {
    v_mul_lo_u16, Cleared: |a, b, _c| a.wrapping_mul(b);
    v_lshlrev_b16, Cleared: |a, b, _c| b << (a & 15);
    v_lshrrev_b16, Cleared: |a, b, _c| b >> (a & 15);
    v_ashrrev_i16, Cleared: |a, b, _c| (b as i16 >> (a & 15)) as u16;
    v_max_u16, Cleared: |a, b, _c| a.max(b);
    v_min_u16, Cleared: |a, b, _c| a.min(b);
    v_max_i16, Cleared: |a, b, _c| (a as i16).max(b as i16) as u16;
    v_min_i16, Cleared: |a, b, _c| (a as i16).min(b as i16) as u16;
    v_min3_i16, Kept: |a, b, c| (a as i16).min(b as i16).min(c as i16) as u16;
    v_min3_u16, Kept: |a, b, c| a.min(b).min(c);
    v_max3_i16, Kept: |a, b, c| (a as i16).max(b as i16).max(c as i16) as u16;
    v_max3_u16, Kept: |a, b, c| a.max(b).max(c);
    v_med3_i16, Kept: |a, b, c| {
        let [a, b, c] = [a as i16, b as i16, c as i16];
        a.min(b).max(a.max(b).min(c)) as u16
    };
    v_med3_u16, Kept: |a, b, c| a.min(b).max(a.max(b).min(c));
}

saturating_half! {
    v_add_u16, Cleared: |a, b, _c| a.wrapping_add(b), a.saturating_add(b);
    v_sub_u16, Cleared: |a, b, _c| a.wrapping_sub(b), a.saturating_sub(b);
    v_subrev_u16, Cleared: |a, b, _c| b.wrapping_sub(a), b.saturating_sub(a);
    v_add_i16, Kept: |a, b, _c| a.wrapping_add(b), (a as i16).saturating_add(b as i16) as u16;
    v_sub_i16, Kept: |a, b, _c| a.wrapping_sub(b), (a as i16).saturating_sub(b as i16) as u16;
    v_mad_u16, Kept: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_u16_sat(a, b, c);
    v_mad_i16, Kept: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_i16_sat(a, b, c);
    v_mad_legacy_u16, Cleared: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_u16_sat(a, b, c);
    v_mad_legacy_i16, Cleared: |a, b, c| a.wrapping_mul(b).wrapping_add(c), mad_i16_sat(a, b, c);
}

const MIXED: [Form; 3] = [Form::B16, Form::B16, Form::B32];

pub fn v_mad_u32_u16(wave: &mut Wave, inst: &Inst) -> Flow {
    if inst.clamp {
        ternary(wave, inst, MIXED, |a, b, c| ((a & 0xffff) * (b & 0xffff)).saturating_add(c))
    } else {
        ternary(wave, inst, MIXED, |a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c))
    }
}

pub fn v_mad_i32_i16(wave: &mut Wave, inst: &Inst) -> Flow {
    let product = |a: u32, b: u32| i32::from(a as i16) * i32::from(b as i16);
    if inst.clamp {
        ternary(wave, inst, MIXED, |a, b, c| product(a, b).saturating_add(c as i32) as u32)
    } else {
        ternary(wave, inst, MIXED, |a, b, c| product(a, b).wrapping_add(c as i32) as u32)
    }
}

/// As `v_bitop3_b32`, for 16 bits.
pub fn v_bitop3_b16(wave: &mut Wave, inst: &Inst) -> Flow {
    let table = bitop_table(inst);
    half(wave, inst, Rest::Kept, |a, b, c| bitop3(table, u32::from(a), u32::from(b), u32::from(c)) as u16)
}
