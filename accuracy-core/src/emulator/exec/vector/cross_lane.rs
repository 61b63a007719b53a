//! What moves values between lanes, and between lanes and scalar registers. EXEC has no part in it.

use super::lanes::each;
use super::operands::{Form, Room, begin, old, raw, scalar, source};
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Flow, LANES, Wave};

fn write_scalar(wave: &mut Wave, inst: &Inst, value: u32) {
    if let Operand::Scalar(register) = inst.dst {
        wave.s[usize::from(register) & 127] = value;
    }
}

/// The first lane that executes; lane 0 if none does.
pub fn v_readfirstlane_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let exec = wave.exec();
    let lane = if exec == 0 { 0 } else { exec.trailing_zeros() as usize };
    let mut room = Room::uninit();
    let value = raw(wave, inst.src[0], 0, &mut room).0[lane];
    write_scalar(wave, inst, value);
    Flow::Next
}

/// The lane that a scalar operand names.
fn selected(wave: &Wave, operand: Operand) -> usize {
    scalar(wave, operand, 0) as usize & (LANES - 1)
}

pub fn v_readlane_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let lane = selected(wave, inst.src[1]);
    let mut room = Room::uninit();
    let value = raw(wave, inst.src[0], 0, &mut room).0[lane];
    write_scalar(wave, inst, value);
    Flow::Next
}

pub fn v_writelane_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let lane = selected(wave, inst.src[1]);
    let value = scalar(wave, inst.src[0], 0);
    if let Operand::Vector(register) = inst.dst {
        wave.v[usize::from(register) & 511].0[lane] = value;
    }
    Flow::Next
}

/// Exchanges two registers in the lanes that execute.
pub fn v_swap_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let (Operand::Vector(x), Operand::Vector(y)) = (inst.dst, inst.src[0]) else { return Flow::Next };
    let (x, y) = (usize::from(x) & 511, usize::from(y) & 511);
    let mask = *wave.mask();
    let (first, second) = (wave.v[x], wave.v[y]);
    super::operands::blend(&mut wave.v[x], &second, &mask);
    super::operands::blend(&mut wave.v[y], &first, &mask);
    Flow::Next
}

/// Exchanges groups of `width` lanes: odd ones of the first register with even ones of the second.
fn swap_groups(wave: &mut Wave, inst: &Inst, width: usize) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let (Operand::Vector(x), Operand::Vector(y)) = (inst.dst, inst.src[0]) else { return Flow::Next };
    let (mut rooms, form) = ([Room::uninit(); 2], Form::B32);
    let [room, spare] = &mut rooms;
    let (mut first, mut second) = (*old(wave, inst, 0, room), *source(wave, inst, 0, 0, form, spare));
    if x == y {
        // One register takes both parts: the halves of a pair of groups change places.
        let before = first;
        first = each(|lane| before.0[lane ^ width]);
        second = first;
    } else {
        for lane in (0..LANES).filter(|lane| lane & width == 0) {
            std::mem::swap(&mut second.0[lane], &mut first.0[lane + width]);
        }
    }
    wave.v[usize::from(x) & 511] = first;
    wave.v[usize::from(y) & 511] = second;
    Flow::Next
}

pub fn v_permlane16_swap_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    swap_groups(wave, inst, 16)
}

pub fn v_permlane32_swap_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    swap_groups(wave, inst, 32)
}
