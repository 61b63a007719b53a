//! SOPC and the comparing and calculating half of SOPK.

use super::operand::{read32, read64, sources, unexpected, write32};
use super::two::fork;
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, Wave};

/// Defines instructions that compare two sources and set SCC.
macro_rules! compare {
    ($($name:ident: ($ra:ident, $rb:ident), |$a:ident, $b:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $a = $ra(inst.src[0]), $b = $rb(inst.src[1]));
            wave.scc = $value;
            Flow::Next
        })+
    };
}

compare! {
    s_cmp_eq_i32: (read32, read32), |a, b| a == b;
    s_cmp_lg_i32: (read32, read32), |a, b| a != b;
    s_cmp_gt_i32: (read32, read32), |a, b| a as i32 > b as i32;
    s_cmp_ge_i32: (read32, read32), |a, b| a as i32 >= b as i32;
    s_cmp_lt_i32: (read32, read32), |a, b| (a as i32) < b as i32;
    s_cmp_le_i32: (read32, read32), |a, b| a as i32 <= b as i32;
    s_cmp_eq_u32: (read32, read32), |a, b| a == b;
    s_cmp_lg_u32: (read32, read32), |a, b| a != b;
    s_cmp_gt_u32: (read32, read32), |a, b| a > b;
    s_cmp_ge_u32: (read32, read32), |a, b| a >= b;
    s_cmp_lt_u32: (read32, read32), |a, b| a < b;
    s_cmp_le_u32: (read32, read32), |a, b| a <= b;
    s_bitcmp0_b32: (read32, read32), |a, b| a >> (b & 31) & 1 == 0;
    s_bitcmp1_b32: (read32, read32), |a, b| a >> (b & 31) & 1 == 1;
    s_bitcmp0_b64: (read64, read32), |a, b| a >> (b & 63) & 1 == 0;
    s_bitcmp1_b64: (read64, read32), |a, b| a >> (b & 63) & 1 == 1;
    s_cmp_eq_u64: (read64, read64), |a, b| a == b;
    s_cmp_lg_u64: (read64, read64), |a, b| a != b;
}

/// Defines instructions that compare a register with the constant in the instruction.
macro_rules! compare_constant {
    ($($name:ident: |$a:ident, $k:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $a = read32(inst.src[0]));
            let $k = inst.imm as u32;
            wave.scc = $value;
            Flow::Next
        })+
    };
}

/// The constant of an unsigned comparison, which is not sign-extended.
fn zero(k: u32) -> u32 {
    k & 0xffff
}

/// The constant of a signed comparison.
fn sign(k: u32) -> i32 {
    i32::from(k as i16)
}

compare_constant! {
    s_cmpk_eq_i32: |a, k| a as i32 == sign(k);
    s_cmpk_lg_i32: |a, k| a as i32 != sign(k);
    s_cmpk_gt_i32: |a, k| a as i32 > sign(k);
    s_cmpk_ge_i32: |a, k| a as i32 >= sign(k);
    s_cmpk_lt_i32: |a, k| (a as i32) < sign(k);
    s_cmpk_le_i32: |a, k| a as i32 <= sign(k);
    s_cmpk_eq_u32: |a, k| a == zero(k);
    s_cmpk_lg_u32: |a, k| a != zero(k);
    s_cmpk_gt_u32: |a, k| a > zero(k);
    s_cmpk_ge_u32: |a, k| a >= zero(k);
    s_cmpk_lt_u32: |a, k| a < zero(k);
    s_cmpk_le_u32: |a, k| a <= zero(k);
}

pub fn s_movk_i32(wave: &mut Wave, inst: &Inst) -> Flow {
    write32(wave, inst, sign(inst.imm as u32) as u32)
}

pub fn s_cmovk_i32(wave: &mut Wave, inst: &Inst) -> Flow {
    if wave.scc { s_movk_i32(wave, inst) } else { Flow::Next }
}

pub fn s_addk_i32(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; old = read32(inst.dst));
    let (sum, overflow) = (old as i32).overflowing_add(sign(inst.imm as u32));
    wave.scc = overflow;
    write32(wave, inst, sum as u32)
}

pub fn s_mulk_i32(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; old = read32(inst.dst));
    write32(wave, inst, (old as i32).wrapping_mul(sign(inst.imm as u32)) as u32)
}

/// As `s_cbranch_g_fork`, with the target in the instruction. Its mask is the register in the field of the destination.
pub fn s_cbranch_i_fork(wave: &mut Wave, inst: &Inst) -> Flow {
    let Some(mask) = read64(wave, inst.src[0]).or_else(|| read64(wave, inst.dst)) else {
        return unexpected(wave, inst, "source");
    };
    let target = super::control::target(wave, inst);
    fork(wave, mask, target)
}
