//! SOP2: two sources, one destination.

use super::operand::{read32, read64, sources, unexpected, write32, write64};
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Fault, Flow, Wave};

/// Defines instructions by their result and SCC. `scc` is SCC before; `keep` leaves it alone.
macro_rules! two {
    ($($(#[$doc:meta])* $name:ident: ($ra:ident, $rb:ident) $write:ident, |$a:ident, $b:ident, $scc:ident| $value:expr;)+) => {
        $($(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $a = $ra(inst.src[0]), $b = $rb(inst.src[1]));
            let $scc = wave.scc;
            let (value, scc) = $value;
            wave.scc = scc;
            $write(wave, inst, value)
        })+
    };
}

/// The value, and whether it is not zero.
fn set32(value: u32) -> (u32, bool) {
    (value, value != 0)
}

fn set64(value: u64) -> (u64, bool) {
    (value, value != 0)
}

/// `width` low bits; all of them if there are no more.
fn low32(width: u32) -> u32 {
    1u32.checked_shl(width).map_or(u32::MAX, |bit| bit - 1)
}

fn low64(width: u32) -> u64 {
    1u64.checked_shl(width).map_or(u64::MAX, |bit| bit - 1)
}

/// Offset and width of a bit field as the second source of `s_bfe_*` has them.
fn field(control: u32) -> (u32, u32) {
    (control & 63, control >> 16 & 127)
}

fn bfe_i32(a: u32, control: u32) -> u32 {
    let (offset, width) = field(control);
    let value = (a as i32 >> (offset & 31)) as u32;
    match width {
        0 => 0,
        1..=31 => ((value << (32 - width)) as i32 >> (32 - width)) as u32,
        _ => value,
    }
}

fn bfe_i64(a: u64, control: u32) -> u64 {
    let (offset, width) = field(control);
    let value = (a as i64 >> offset) as u64;
    match width {
        0 => 0,
        1..=63 => ((value << (64 - width)) as i64 >> (64 - width)) as u64,
        _ => value,
    }
}

fn carry(wide: u64) -> (u32, bool) {
    (wide as u32, wide >> 32 != 0)
}

two! {
    s_add_u32: (read32, read32) write32, |a, b, _scc| a.overflowing_add(b);
    s_sub_u32: (read32, read32) write32, |a, b, _scc| a.overflowing_sub(b);
    s_add_i32: (read32, read32) write32, |a, b, _scc| {
        let (sum, overflow) = (a as i32).overflowing_add(b as i32);
        (sum as u32, overflow)
    };
    s_sub_i32: (read32, read32) write32, |a, b, _scc| {
        let (difference, overflow) = (a as i32).overflowing_sub(b as i32);
        (difference as u32, overflow)
    };
    s_addc_u32: (read32, read32) write32, |a, b, scc| carry(u64::from(a) + u64::from(b) + u64::from(scc));
    s_subb_u32: (read32, read32) write32, |a, b, scc| {
        (a.wrapping_sub(b).wrapping_sub(u32::from(scc)), u64::from(b) + u64::from(scc) > u64::from(a))
    };
    s_min_i32: (read32, read32) write32, |a, b, _scc| if (a as i32) < b as i32 { (a, true) } else { (b, false) };
    s_min_u32: (read32, read32) write32, |a, b, _scc| if a < b { (a, true) } else { (b, false) };
    s_max_i32: (read32, read32) write32, |a, b, _scc| if a as i32 >= b as i32 { (a, true) } else { (b, false) };
    s_max_u32: (read32, read32) write32, |a, b, _scc| if a >= b { (a, true) } else { (b, false) };
    s_cselect_b32: (read32, read32) write32, |a, b, scc| (if scc { a } else { b }, scc);
    s_cselect_b64: (read64, read64) write64, |a, b, scc| (if scc { a } else { b }, scc);
    s_and_b32: (read32, read32) write32, |a, b, _scc| set32(a & b);
    s_and_b64: (read64, read64) write64, |a, b, _scc| set64(a & b);
    s_or_b32: (read32, read32) write32, |a, b, _scc| set32(a | b);
    s_or_b64: (read64, read64) write64, |a, b, _scc| set64(a | b);
    s_xor_b32: (read32, read32) write32, |a, b, _scc| set32(a ^ b);
    s_xor_b64: (read64, read64) write64, |a, b, _scc| set64(a ^ b);
    s_andn2_b32: (read32, read32) write32, |a, b, _scc| set32(a & !b);
    s_andn2_b64: (read64, read64) write64, |a, b, _scc| set64(a & !b);
    s_orn2_b32: (read32, read32) write32, |a, b, _scc| set32(a | !b);
    s_orn2_b64: (read64, read64) write64, |a, b, _scc| set64(a | !b);
    s_nand_b32: (read32, read32) write32, |a, b, _scc| set32(!(a & b));
    s_nand_b64: (read64, read64) write64, |a, b, _scc| set64(!(a & b));
    s_nor_b32: (read32, read32) write32, |a, b, _scc| set32(!(a | b));
    s_nor_b64: (read64, read64) write64, |a, b, _scc| set64(!(a | b));
    s_xnor_b32: (read32, read32) write32, |a, b, _scc| set32(!(a ^ b));
    s_xnor_b64: (read64, read64) write64, |a, b, _scc| set64(!(a ^ b));
    s_lshl_b32: (read32, read32) write32, |a, b, _scc| set32(a << (b & 31));
    s_lshl_b64: (read64, read32) write64, |a, b, _scc| set64(a << (b & 63));
    s_lshr_b32: (read32, read32) write32, |a, b, _scc| set32(a >> (b & 31));
    s_lshr_b64: (read64, read32) write64, |a, b, _scc| set64(a >> (b & 63));
    s_ashr_i32: (read32, read32) write32, |a, b, _scc| set32((a as i32 >> (b & 31)) as u32);
    s_ashr_i64: (read64, read32) write64, |a, b, _scc| set64((a as i64 >> (b & 63)) as u64);
    s_bfm_b32: (read32, read32) write32, |a, b, scc| (low32(a & 31) << (b & 31), scc);
    s_bfm_b64: (read32, read32) write64, |a, b, scc| (low64(a & 63) << (b & 63), scc);
    s_mul_i32: (read32, read32) write32, |a, b, scc| (a.wrapping_mul(b), scc);
    s_bfe_u32: (read32, read32) write32, |a, b, _scc| {
        let (offset, width) = field(b);
        set32(a >> (offset & 31) & low32(width))
    };
    s_bfe_i32: (read32, read32) write32, |a, b, _scc| set32(bfe_i32(a, b));
    s_bfe_u64: (read64, read32) write64, |a, b, _scc| {
        let (offset, width) = field(b);
        set64(a >> offset & low64(width))
    };
    s_bfe_i64: (read64, read32) write64, |a, b, _scc| set64(bfe_i64(a, b));
    s_absdiff_i32: (read32, read32) write32, |a, b, _scc| {
        set32((a as i32).wrapping_sub(b as i32).wrapping_abs() as u32)
    };
    s_mul_hi_u32: (read32, read32) write32, |a, b, scc| (((u64::from(a) * u64::from(b)) >> 32) as u32, scc);
    s_mul_hi_i32: (read32, read32) write32, |a, b, scc| {
        (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32, scc)
    };
    s_lshl1_add_u32: (read32, read32) write32, |a, b, _scc| carry((u64::from(a) << 1) + u64::from(b));
    s_lshl2_add_u32: (read32, read32) write32, |a, b, _scc| carry((u64::from(a) << 2) + u64::from(b));
    s_lshl3_add_u32: (read32, read32) write32, |a, b, _scc| carry((u64::from(a) << 3) + u64::from(b));
    s_lshl4_add_u32: (read32, read32) write32, |a, b, _scc| carry((u64::from(a) << 4) + u64::from(b));
    s_pack_ll_b32_b16: (read32, read32) write32, |a, b, scc| (a & 0xffff | b << 16, scc);
    s_pack_lh_b32_b16: (read32, read32) write32, |a, b, scc| (a & 0xffff | b & 0xffff_0000, scc);
    s_pack_hh_b32_b16: (read32, read32) write32, |a, b, scc| (a >> 16 | b & 0xffff_0000, scc);
}

/// Splits the lanes by a mask: the smaller part goes first, the other waits on a stack in scalar registers until
/// [`super::s_cbranch_join`].
pub(super) fn fork(wave: &mut Wave, mask: u64, target: u64) -> Flow {
    let exec = wave.exec();
    let (pass, fail) = (mask & exec, !mask & exec);
    if pass == exec {
        wave.pc = target;
        return Flow::Jump;
    }
    if fail == exec {
        return Flow::Next;
    }
    let depth = wave.mode.0 >> 29;
    if depth == 7 {
        let text = "s_cbranch_fork: the stack of divergent branches has no room for an eighth entry";
        return wave.fail(Fault::Illegal(text.into()));
    }
    let slot = depth as u8 * 4;
    let later = if fail.count_ones() < pass.count_ones() { (pass, target) } else { (fail, wave.pc) };
    wave.set_s64(slot, later.0);
    wave.set_s64(slot + 2, later.1);
    wave.mode.0 += 1 << 29;
    if later.0 == pass {
        wave.set_exec(fail);
        return Flow::Next;
    }
    wave.set_exec(pass);
    wave.pc = target;
    Flow::Jump
}

pub fn s_cbranch_g_fork(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; mask = read64(inst.src[0]), target = read64(inst.src[1]));
    fork(wave, mask, target)
}

/// Returns from a trap handler, which user code has not.
pub fn s_rfe_restore_b64(wave: &mut Wave, _inst: &Inst) -> Flow {
    wave.fail(Fault::Illegal("s_rfe_restore_b64 is for trap handlers alone".into()))
}

/// The register that is `M0` registers after the one that an operand names.
pub(super) fn relative(wave: &Wave, operand: Operand, registers: u32) -> Option<u8> {
    let Operand::Scalar(base) = operand else { return None };
    let index = u32::from(base).checked_add(wave.m0())?;
    (index.checked_add(registers)? <= 104).then_some(index as u8)
}

/// Ends the wave because M0 leads out of the scalar registers.
pub(super) fn outside(wave: &mut Wave, inst: &Inst) -> Flow {
    if !matches!(inst.dst, Operand::Scalar(_)) {
        return unexpected(wave, inst, "destination");
    }
    let (mnemonic, m0) = (inst.row.mnemonic, wave.m0());
    wave.fail(Fault::Illegal(format!("{mnemonic} with {m0:#x} in M0 leads out of the scalar registers")))
}
