//! Loads that wait for a flag: a loop that reads the same place again and again and writes nothing.
//!
//! A compiler moves a plain load whose address does not change out of its loop. One that is still there is volatile or
//! atomic, which machine code does not say of LDS: what it reads orders memory as an atomic does.

use crate::emulator::isa::uses::{COUNT, Span};
use crate::emulator::isa::{Encoding, Inst, Mark, Operand};
use std::collections::HashSet;

/// Instructions of the longest loop that is looked at.
const LONGEST: usize = 64;

/// The addresses of such loads in code whose instructions come in the order of their addresses.
pub fn find(code: &[(u64, &Inst)]) -> HashSet<u64> {
    let mut found = HashSet::new();
    for (index, (at, inst)) in code.iter().enumerate() {
        if inst.encoding != Encoding::Sopp || !inst.row.mnemonic.contains("branch") {
            continue;
        }
        let target =
            at.wrapping_add(u64::from(inst.size)).wrapping_add_signed(i64::from(inst.imm as i16) * 4);
        let first = code[..=index].partition_point(|(address, _)| *address < target);
        if target <= *at && index - first.min(index) < LONGEST {
            in_loop(&code[first..=index], &mut found);
        }
    }
    found
}

fn in_loop(body: &[(u64, &Inst)], found: &mut HashSet<u64>) {
    let is_memory = |inst: &Inst| inst.encoding.is_memory();
    let writes = |inst: &Inst| {
        inst.row.is(Mark::Atomic)
            || inst.memory.lds
            || inst.dst == Operand::None && inst.src[1] != Operand::None
    };
    if body.iter().any(|(_, inst)| is_memory(inst) && writes(inst)) {
        return;
    }
    let mut written = [false; COUNT];
    let spans = |inst: &Inst, is_written: bool| {
        let spans: Vec<Span> =
            inst.uses.spans().iter().filter(|s| s.written == is_written).copied().collect();
        spans
    };
    for (_, inst) in body {
        spans(inst, true).into_iter().flat_map(Span::registers).for_each(|register| written[register] = true);
    }
    for (at, inst) in body.iter().filter(|(_, inst)| is_memory(inst) && inst.dst != Operand::None) {
        if !spans(inst, false).into_iter().flat_map(Span::registers).any(|register| written[register]) {
            found.insert(*at);
        }
    }
}
