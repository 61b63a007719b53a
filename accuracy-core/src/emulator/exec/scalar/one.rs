//! SOP1: one source, one destination.

use super::operand::{read32, read64, sources, write32, write64};
use super::two::{outside, relative};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, GprIndex, Wave, register};

/// Defines instructions by their result and SCC, where `scc` is SCC before.
macro_rules! one {
    ($($name:ident: $read:ident $write:ident, |$a:ident, $scc:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $a = $read(inst.src[0]));
            let $scc = wave.scc;
            let (value, scc) = $value;
            wave.scc = scc;
            $write(wave, inst, value)
        })+
    };
}

fn set32(value: u32) -> (u32, bool) {
    (value, value != 0)
}

fn set64(value: u64) -> (u64, bool) {
    (value, value != 0)
}

/// A position, or all ones if nothing was found at any of the `bits` positions.
fn found(position: u32, bits: u32) -> u32 {
    if position < bits { position } else { u32::MAX }
}

/// One bit for each group of four: whether any of them is set.
fn quads(bits: u64) -> u64 {
    (0..16).fold(0, |all, quad| all | u64::from(bits >> (4 * quad) & 15 != 0) << quad)
}

/// All four bits of a group where any of them is set.
fn whole_quads(bits: u64) -> u64 {
    (0..16).fold(0, |all, quad| if bits >> (4 * quad) & 15 != 0 { all | 15 << (4 * quad) } else { all })
}

/// Bits at the even positions, doubled to the odd ones.
fn doubled(bits: u32) -> u64 {
    (0..32).fold(0, |all, bit| all | (u64::from(bits >> bit & 1) * 3) << (2 * bit))
}

one! {
    s_mov_b32: read32 write32, |a, scc| (a, scc);
    s_mov_b64: read64 write64, |a, scc| (a, scc);
    s_not_b32: read32 write32, |a, _scc| set32(!a);
    s_not_b64: read64 write64, |a, _scc| set64(!a);
    s_wqm_b32: read32 write32, |a, _scc| set32(whole_quads(u64::from(a)) as u32);
    s_wqm_b64: read64 write64, |a, _scc| set64(whole_quads(a));
    s_brev_b32: read32 write32, |a, scc| (a.reverse_bits(), scc);
    s_brev_b64: read64 write64, |a, scc| (a.reverse_bits(), scc);
    s_bcnt0_i32_b32: read32 write32, |a, _scc| set32(a.count_zeros());
    s_bcnt0_i32_b64: read64 write32, |a, _scc| set32(a.count_zeros());
    s_bcnt1_i32_b32: read32 write32, |a, _scc| set32(a.count_ones());
    s_bcnt1_i32_b64: read64 write32, |a, _scc| set32(a.count_ones());
    s_ff0_i32_b32: read32 write32, |a, scc| (found(a.trailing_ones(), 32), scc);
    s_ff0_i32_b64: read64 write32, |a, scc| (found(a.trailing_ones(), 64), scc);
    s_ff1_i32_b32: read32 write32, |a, scc| (found(a.trailing_zeros(), 32), scc);
    s_ff1_i32_b64: read64 write32, |a, scc| (found(a.trailing_zeros(), 64), scc);
    s_flbit_i32_b32: read32 write32, |a, scc| (found(a.leading_zeros(), 32), scc);
    s_flbit_i32_b64: read64 write32, |a, scc| (found(a.leading_zeros(), 64), scc);
    s_flbit_i32: read32 write32, |a, scc| (found((a ^ (a as i32 >> 31) as u32).leading_zeros(), 32), scc);
    s_flbit_i32_i64: read64 write32, |a, scc| (found((a ^ (a as i64 >> 63) as u64).leading_zeros(), 64), scc);
    s_sext_i32_i8: read32 write32, |a, scc| (i32::from(a as i8) as u32, scc);
    s_sext_i32_i16: read32 write32, |a, scc| (i32::from(a as i16) as u32, scc);
    s_quadmask_b32: read32 write32, |a, _scc| set32(quads(u64::from(a)) as u32);
    s_quadmask_b64: read64 write64, |a, _scc| set64(quads(a));
    s_abs_i32: read32 write32, |a, _scc| set32((a as i32).wrapping_abs() as u32);
    s_bitreplicate_b64_b32: read32 write64, |a, scc| (doubled(a), scc);
}

pub fn s_cmov_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if wave.scc { s_mov_b32(wave, inst) } else { Flow::Next }
}

pub fn s_cmov_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    if wave.scc { s_mov_b64(wave, inst) } else { Flow::Next }
}

/// Defines instructions that change one bit of their destination.
macro_rules! bitset {
    ($($name:ident: $read:ident $write:ident, |$old:ident, $bit:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $bit = read32(inst.src[0]), $old = $read(inst.dst));
            $write(wave, inst, $value)
        })+
    };
}

bitset! {
    s_bitset0_b32: read32 write32, |old, bit| old & !(1 << (bit & 31));
    s_bitset0_b64: read64 write64, |old, bit| old & !(1 << (bit & 63));
    s_bitset1_b32: read32 write32, |old, bit| old | 1 << (bit & 31);
    s_bitset1_b64: read64 write64, |old, bit| old | 1 << (bit & 63);
}

/// Defines instructions that change EXEC. `save` keeps what it was, `wrexec` writes what it becomes.
macro_rules! exec {
    ($($name:ident: $what:ident, |$s:ident, $exec:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            sources!(wave, inst; $s = read64(inst.src[0]));
            let $exec = wave.exec();
            let lanes = $value;
            wave.scc = lanes != 0;
            // EXEC last: it may be the destination as well, and the operation wins.
            let flow = write64(wave, inst, exec!(@$what $exec, lanes));
            wave.set_exec(lanes);
            flow
        })+
    };
    (@save $before:ident, $after:ident) => { $before };
    (@wrexec $before:ident, $after:ident) => { $after };
}

exec! {
    s_and_saveexec_b64: save, |s, exec| s & exec;
    s_or_saveexec_b64: save, |s, exec| s | exec;
    s_xor_saveexec_b64: save, |s, exec| s ^ exec;
    s_andn2_saveexec_b64: save, |s, exec| s & !exec;
    s_orn2_saveexec_b64: save, |s, exec| s | !exec;
    s_nand_saveexec_b64: save, |s, exec| !(s & exec);
    s_nor_saveexec_b64: save, |s, exec| !(s | exec);
    s_xnor_saveexec_b64: save, |s, exec| !(s ^ exec);
    s_andn1_saveexec_b64: save, |s, exec| !s & exec;
    s_orn1_saveexec_b64: save, |s, exec| !s | exec;
    s_andn1_wrexec_b64: wrexec, |s, exec| !s & exec;
    s_andn2_wrexec_b64: wrexec, |s, exec| s & !exec;
}

pub fn s_getpc_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    write64(wave, inst, wave.pc)
}

pub fn s_setpc_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; target = read64(inst.src[0]));
    wave.pc = target;
    Flow::Jump
}

pub fn s_swappc_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; target = read64(inst.src[0]));
    let back = wave.pc;
    let flow = write64(wave, inst, back);
    if flow == Flow::Fault {
        return flow;
    }
    wave.pc = target;
    Flow::Jump
}

/// Returns from a trap handler, which user code has not.
pub fn s_rfe_b64(wave: &mut Wave, _inst: &Inst) -> Flow {
    wave.fail(Fault::Illegal("s_rfe_b64 is for trap handlers alone".into()))
}

pub fn s_movrels_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    match relative(wave, inst.src[0], 1) {
        Some(from) => write32(wave, inst, wave.s[usize::from(from)]),
        None => outside(wave, inst),
    }
}

pub fn s_movrels_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    match relative(wave, inst.src[0], 2) {
        Some(from) => write64(wave, inst, wave.s64(from)),
        None => outside(wave, inst),
    }
}

pub fn s_movreld_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; value = read32(inst.src[0]));
    match relative(wave, inst.dst, 1) {
        Some(to) => {
            wave.s[usize::from(to)] = value;
            Flow::Next
        }
        None => outside(wave, inst),
    }
}

pub fn s_movreld_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; value = read64(inst.src[0]));
    match relative(wave, inst.dst, 2) {
        Some(to) => {
            wave.set_s64(to, value);
            Flow::Next
        }
        None => outside(wave, inst),
    }
}

/// Goes on with the lanes that a fork put aside, or with the code after it once all have been here.
pub fn s_cbranch_join(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; saved = read32(inst.src[0]));
    let depth = wave.mode.0 >> 29;
    if depth == saved {
        return Flow::Next;
    }
    if depth == 0 {
        let text = "s_cbranch_join: no fork has put lanes aside";
        return wave.fail(Fault::Illegal(text.into()));
    }
    wave.mode.0 -= 1 << 29;
    let slot = (depth - 1) as u8 * 4;
    wave.set_exec(wave.s64(slot));
    wave.pc = wave.s64(slot + 2);
    Flow::Jump
}

/// Sets bits 0 to 7 of M0, the index of relative addressing of vector registers.
pub fn s_set_gpr_idx_idx(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; index = read32(inst.src[0]));
    set_m0(wave, 0xff, index);
    Flow::Next
}

/// Changes the bits of M0 that `mask` has.
pub(super) fn set_m0(wave: &mut Wave, mask: u32, bits: u32) {
    let m0 = &mut wave.s[usize::from(register::M0)];
    *m0 = *m0 & !mask | bits & mask;
}

/// Turns relative addressing of vector registers on: the index goes to bits 0 to 7 of M0, which operands it is for
/// (bits 0 to 2: sources 0 to 2; bit 3: the destination) to bits 12 to 15.
pub fn s_set_gpr_idx_on(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; index = read32(inst.src[0]));
    let enable = inst.imm as u32 & 15;
    set_m0(wave, 0xf0ff, index & 0xff | enable << 12);
    wave.gpr_index = Some(GprIndex { enable: enable as u8 });
    Flow::Next
}

pub fn s_set_gpr_idx_off(wave: &mut Wave, _inst: &Inst) -> Flow {
    wave.gpr_index = None;
    Flow::Next
}

/// Chooses the operands that relative addressing is for, without turning it on or off.
pub fn s_set_gpr_idx_mode(wave: &mut Wave, inst: &Inst) -> Flow {
    let enable = inst.imm as u32 & 15;
    set_m0(wave, 0xf000, enable << 12);
    if let Some(index) = &mut wave.gpr_index {
        index.enable = enable as u8;
    }
    Flow::Next
}

/// Turns the skipping of vector instructions on or off. Who runs the wave does the skipping.
pub fn s_setvskip(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; bits = read32(inst.src[0]), bit = read32(inst.src[1]));
    wave.vskip = bits >> (bit & 31) & 1 != 0;
    Flow::Next
}
