//! The hardware registers that `s_getreg_b32` reads and `s_setreg_b32` writes.

use super::operand::{read32, sources, write32};
use crate::emulator::isa::{Inst, Processor};
use crate::emulator::wave::{Fault, Flow, GprIndex, Mode, Wave};

/// Bits of MODE that a field of [`Wave`] holds.
const GPR_IDX_EN: u32 = 1 << 27;
const VSKIP: u32 = 1 << 28;
/// Bits of MODE that turn floating-point exceptions into traps.
const EXCP_EN: u32 = 0x1ff << 12;
/// Bits of TRAPSTS that collect floating-point exceptions.
const EXCEPTIONS: u32 = 0x1ff;

/// A part of a hardware register.
struct Part {
    register: u32,
    shift: u32,
    /// The part's bits, where they are in the register.
    mask: u32,
}

impl Part {
    fn of(inst: &Inst) -> Part {
        let bits = inst.imm as u32;
        let (register, shift, size) = (bits & 63, bits >> 6 & 31, (bits >> 11 & 31) + 1);
        let ones = if size == 32 { u32::MAX } else { (1 << size) - 1 };
        Part { register, shift, mask: ones << shift }
    }
}

/// LLVM's name of a hardware register.
fn name(register: u32) -> &'static str {
    match register {
        1 => "HW_REG_MODE",
        2 => "HW_REG_STATUS",
        3 => "HW_REG_TRAPSTS",
        4 => "HW_REG_HW_ID",
        5 => "HW_REG_GPR_ALLOC",
        6 => "HW_REG_LDS_ALLOC",
        7 => "HW_REG_IB_STS",
        15 => "HW_REG_SH_MEM_BASES",
        16 => "HW_REG_TBA_LO",
        17 => "HW_REG_TBA_HI",
        18 => "HW_REG_TMA_LO",
        19 => "HW_REG_TMA_HI",
        20 => "HW_REG_XCC_ID",
        21 => "HW_REG_SQ_PERF_SNAPSHOT_DATA",
        22 => "HW_REG_SQ_PERF_SNAPSHOT_DATA1",
        23 => "HW_REG_SQ_PERF_SNAPSHOT_PC_LO",
        24 => "HW_REG_SQ_PERF_SNAPSHOT_PC_HI",
        _ => "an unknown hardware register",
    }
}

fn mode(wave: &Wave) -> u32 {
    let switches = if wave.gpr_index.is_some() { GPR_IDX_EN } else { 0 } | if wave.vskip { VSKIP } else { 0 };
    wave.mode.0 & !(GPR_IDX_EN | VSKIP) | switches
}

fn status(wave: &Wave) -> u32 {
    let valid = 1 << 16;
    u32::from(wave.scc) | u32::from(wave.exec() == 0) << 9 | u32::from(wave.vcc() == 0) << 10 | valid
}

/// Wave and SIMD as a device deals waves out to its four SIMDs; what is not modelled is 0.
fn hw_id(wave: &Wave) -> u32 {
    (wave.index / 4) & 15 | (wave.index % 4) << 4
}

/// The size of LDS in the register's units, from bit 12 on; the base of an only workgroup is 0.
fn lds_alloc(wave: &Wave) -> u32 {
    let granule = match wave.processor {
        Processor::Gfx942 => 512,
        Processor::Gfx950 => 1280,
    };
    ((wave.group.lds_len().div_ceil(granule)) as u32 & 0x1ff) << 12
}

fn uncovered(wave: &mut Wave, inst: &Inst, part: &Part) -> Flow {
    let detail = format!("bits {:#x} of {}", part.mask, name(part.register));
    wave.fail(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail })
}

pub fn s_getreg_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let part = Part::of(inst);
    let value = match part.register {
        1 => mode(wave),
        2 => status(wave),
        // No trap is pending. Which exceptions have occurred is not recorded.
        3 if part.mask & EXCEPTIONS == 0 => 0,
        4 => hw_id(wave),
        6 => lds_alloc(wave),
        // All counters are at rest: each instruction ends before the next begins.
        7 => 0,
        20 => wave.group.xcc_id,
        _ => return uncovered(wave, inst, &part),
    };
    write32(wave, inst, (value & part.mask) >> part.shift)
}

fn setreg(wave: &mut Wave, inst: &Inst, value: u32) -> Flow {
    let part = Part::of(inst);
    if part.register != 1 {
        return uncovered(wave, inst, &part);
    }
    let new = mode(wave) & !part.mask | value << part.shift & part.mask;
    if new & EXCP_EN & !mode(wave) != 0 {
        let detail = format!("MODE {new:#x} traps on floating-point exceptions");
        return wave.fail(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail });
    }
    wave.vskip = new & VSKIP != 0;
    let enable = (wave.m0() >> 12 & 15) as u8;
    wave.gpr_index = (new & GPR_IDX_EN != 0).then_some(GprIndex { enable });
    wave.mode = Mode(new & !(GPR_IDX_EN | VSKIP));
    Flow::Next
}

pub fn s_setreg_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    sources!(wave, inst; value = read32(inst.src[0]));
    setreg(wave, inst, value)
}

pub fn s_setreg_imm32_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    setreg(wave, inst, inst.imm2)
}
