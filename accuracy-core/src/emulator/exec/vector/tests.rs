//! Vector instructions against independent computations.

use crate::emulator::isa::{Encoding, Execute, Inst, MatrixBits, MemoryBits, Operand, Processor, Processors, Row};
use crate::emulator::memory::{Group, Space};
use crate::emulator::wave::{Flow, LANES, Mode, Round, Wave, register};

static ROW: Row = Row {
    mnemonic: "v_test",
    encoding: Encoding::Vop3,
    opcode: 0,
    processors: Processors::Both,
    operands: &[],
    execute: |_, _| Flow::Next,
};

/// An instruction without operands and modifiers.
pub(super) fn instruction(execute: Execute) -> Inst {
    Inst {
        row: &ROW,
        execute,
        encoding: Encoding::Vop3,
        size: 8,
        dst: Operand::None,
        sdst: Operand::None,
        src: [Operand::None; 4],
        neg: 0,
        abs: 0,
        neg_hi: 0,
        op_sel: 0,
        op_sel_hi: 0,
        clamp: false,
        omod: 0,
        sdwa: None,
        dpp: None,
        imm: 0,
        imm2: 0,
        memory: MemoryBits::default(),
        matrix: MatrixBits::default(),
    }
}

/// Gives a function a wave of gfx942 whose registers are zero.
pub(super) fn with_wave<T>(f: impl FnOnce(&mut Wave) -> T) -> T {
    let space = Space::default();
    let group = Group::new(&space, vec![0; 1024].into_boxed_slice(), [0; 3]);
    let mut wave = Wave::new(Processor::Gfx942, &group, 0, 0);
    f(&mut wave)
}
