//! What flows from the sources of an instruction into its destinations, for instructions that touch no memory.
//!
//! Where nothing is said of an instruction, everything that it reads flows into everything that it writes, which is never too
//! little. Instructions that move bytes, halves or bits from one place to another have rules, so that it is not too much
//! either: the neighbours of an element share its register.

use super::registers::{CLEAN, Dword, Registers};
use super::sets::{EMPTY, Id, Lost, Sets};
use crate::emulator::exec::lanes_of;
use crate::emulator::exec::matrix::{INSTRUCTIONS, Matrix, permuted};
use crate::emulator::isa::{
    Encoding, Inst, Kind, Mark, OpSel, Operand, Role, Row, Select, Slot, Special, Unused,
};
use crate::emulator::wave::{LANES, Wave, register};

/// What an instruction makes of the bytes of its sources.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Everything into everything.
    Mixes,
    /// Each byte stays where it is.
    Moves,
    /// Bit by bit: a byte takes the same byte of each source.
    Bitwise,
    /// The same, and a zero that nothing flowed into lets nothing through: of the first two sources.
    Masks,
    /// The source with this number, shifted by the other one.
    Left {
        value: usize,
        by: usize,
    },
    Right {
        value: usize,
        by: usize,
        signed: bool,
    },
    /// A shift to the left of source 0 by source 1, beside source 2.
    LeftOr,
    Field {
        signed: bool,
    },
    Align {
        bits: bool,
    },
    Permutes,
    Selects,
    /// Two values of 16 bits, each from the halves that the instruction names.
    Halves,
    /// Two values of 32 bits.
    Pairs,
    PairMoves,
    /// The first source into the lower half, the second into the upper one.
    Packs,
    /// A float as a byte: two into a half, or one into a byte.
    PacksBytes,
    PacksByte,
    /// Two values as two nibbles of one byte.
    PacksNibbles,
    /// A byte, or two, that the instruction names, as floats.
    OfByte(usize),
    OfCode,
    OfTwoCodes,
}

fn rule(row: &Row) -> Rule {
    let name = row.mnemonic;
    match name {
        "v_mov_b32"
        | "v_mov_b64"
        | "v_not_b32"
        | "v_accvgpr_read_b32"
        | "v_accvgpr_write_b32"
        | "v_accvgpr_mov_b32" => Rule::Moves,
        "v_and_b32" | "v_and_or_b32" => Rule::Masks,
        "v_or_b32" | "v_xor_b32" | "v_xnor_b32" | "v_or3_b32" | "v_bfi_b32" | "v_bitop3_b32" => Rule::Bitwise,
        "v_lshlrev_b32" | "v_lshlrev_b64" => Rule::Left { value: 1, by: 0 },
        "v_lshrrev_b32" | "v_lshrrev_b64" => Rule::Right { value: 1, by: 0, signed: false },
        "v_ashrrev_i32" | "v_ashrrev_i64" => Rule::Right { value: 1, by: 0, signed: true },
        "v_lshl_or_b32" => Rule::LeftOr,
        "v_bfe_u32" => Rule::Field { signed: false },
        "v_bfe_i32" => Rule::Field { signed: true },
        "v_alignbit_b32" => Rule::Align { bits: true },
        "v_alignbyte_b32" => Rule::Align { bits: false },
        "v_perm_b32" => Rule::Permutes,
        "v_cndmask_b32" => Rule::Selects,
        "v_pk_mov_b32" => Rule::PairMoves,
        "v_cvt_pk_bf16_f32"
        | "v_cvt_pk_f16_f32"
        | "v_cvt_pkrtz_f16_f32"
        | "v_cvt_pknorm_i16_f32"
        | "v_cvt_pknorm_u16_f32"
        | "v_cvt_pk_u16_u32"
        | "v_cvt_pk_i16_i32"
        | "v_pack_b32_f16" => Rule::Packs,
        "v_cvt_pk_fp8_f32"
        | "v_cvt_pk_bf8_f32"
        | "v_cvt_scalef32_pk_fp8_f32"
        | "v_cvt_scalef32_pk_bf8_f32" => Rule::PacksBytes,
        "v_cvt_sr_fp8_f32" | "v_cvt_sr_bf8_f32" => Rule::PacksByte,
        "v_cvt_scalef32_pk_fp4_f32" | "v_cvt_scalef32_pk_fp4_f16" | "v_cvt_scalef32_pk_fp4_bf16" => {
            Rule::PacksNibbles
        }
        "v_cvt_f32_ubyte0" => Rule::OfByte(0),
        "v_cvt_f32_ubyte1" => Rule::OfByte(1),
        "v_cvt_f32_ubyte2" => Rule::OfByte(2),
        "v_cvt_f32_ubyte3" => Rule::OfByte(3),
        "v_cvt_f32_fp8" | "v_cvt_f32_bf8" => Rule::OfCode,
        "v_cvt_pk_f32_fp8" | "v_cvt_pk_f32_bf8" => Rule::OfTwoCodes,
        _ => {
            let halves =
                |slot: &Slot| matches!(slot.kind, Kind::PkF16 | Kind::PkBF16 | Kind::PkI16 | Kind::PkU16);
            let pairs = |slot: &Slot| slot.kind == Kind::PkF32;
            match row.encoding {
                Encoding::Vop3p if row.operands.iter().all(halves) => Rule::Halves,
                Encoding::Vop3p if !row.operands.is_empty() && row.operands.iter().all(pairs) => Rule::Pairs,
                _ if name == "v_pk_fmac_f16" => Rule::Halves,
                _ => Rule::Mixes,
            }
        }
    }
}

/// Instructions whose results no rule follows. None of them is in compiled code of a kernel that computes with data.
fn is_unknown(row: &Row) -> bool {
    let name = row.mnemonic;
    ["s_movrel", "s_quadmask", "s_bitreplicate", "v_screen_partition"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Whether some bits may be other than zero, so that they let something through.
fn lets_through(set: Id, value: u32) -> bool {
    set != EMPTY || value != 0
}

/// One instruction of a wave, about to be executed.
pub struct Step<'s, 'w> {
    pub sets: &'s mut Sets,
    pub registers: &'s mut Registers,
    pub wave: &'s Wave<'w>,
    pub inst: &'s Inst,
}

impl Step<'_, '_> {
    /// Follows what flows.
    pub fn run(&mut self) {
        let inst = self.inst;
        let touched = inst.uses.spans().iter().any(|span| span.registers().any(|r| self.registers.has(r)));
        let is_scalar = !inst.encoding.is_vector();
        if !(touched || is_scalar && self.registers.scc != EMPTY) {
            return;
        }
        if is_unknown(inst.row) || self.wave.gpr_index.is_some() {
            return self.unknown();
        }
        match inst.encoding {
            Encoding::Sop1 | Encoding::Sop2 | Encoding::Sopk | Encoding::Sopc => self.scalar(),
            Encoding::Sopp => {}
            Encoding::Vopc => self.compares(),
            Encoding::Mai | Encoding::Vop3px2 if !inst.row.mnemonic.starts_with("v_accvgpr") => self.matrix(),
            Encoding::Ds => self.moves_lanes(),
            _ if inst.row.operands.first().is_some_and(|slot| slot.kind == Kind::Mask) => self.compares(),
            _ => match inst.row.mnemonic {
                "v_readfirstlane_b32" | "v_readlane_b32" => self.reads_lane(),
                "v_writelane_b32" => self.writes_lane(),
                "v_swap_b32" => self.swaps(),
                "v_permlane16_swap_b32" => self.swaps_groups(16),
                "v_permlane32_swap_b32" => self.swaps_groups(32),
                _ => self.vector(),
            },
        }
    }

    /// What the instruction has written also depends on what decided that it is executed: branches, and whether a lane is on. A
    /// lane that is off keeps what it has, which depends on that, too.
    pub fn depends(&mut self) {
        let decided = self.registers.decided(self.sets);
        let exec = usize::from(register::EXEC);
        let masked = self.registers.has(512 + exec) || self.registers.has(513 + exec);
        if decided == EMPTY && !masked {
            return;
        }
        let is_matrix = matches!(self.inst.encoding, Encoding::Mai | Encoding::Vop3px2)
            && !self.inst.row.mnemonic.starts_with("v_accvgpr");
        let lanes: Vec<Id> = (0..LANES)
            .map(|lane| {
                let on = if masked && !is_matrix { self.registers.bit(exec, lane) } else { EMPTY };
                let on = self.sets.through(on);
                self.sets.union(decided, on)
            })
            .collect();
        let written = self.inst.uses.spans().iter().filter(|span| span.written);
        for register in written.flat_map(|span| span.registers()) {
            match register.checked_sub(512) {
                None => self.registers.add_to_lanes(self.sets, register, &lanes),
                Some(scalar) => self.registers.add_to_scalar(self.sets, scalar, decided),
            }
        }
        if matches!(self.inst.encoding, Encoding::Sop1 | Encoding::Sop2 | Encoding::Sopk | Encoding::Sopc) {
            self.registers.scc = self.sets.union(self.registers.scc, decided);
        }
    }

    /// Everything that the instruction names may hold anything. With relative addressing, so may any vector register.
    fn unknown(&mut self) {
        let why = match self.wave.gpr_index {
            Some(_) => Lost::Relative(self.inst.row.mnemonic),
            None => Lost::Instruction(self.inst.row.mnemonic),
        };
        let lost = self.sets.lost(why);
        let vectors = self.inst.encoding.is_vector();
        let all = self.wave.gpr_index.is_some() && vectors;
        let named =
            self.inst.uses.spans().iter().filter(|span| span.written).flat_map(|span| span.registers());
        let registers: Vec<usize> = if all { (0..512).collect() } else { named.collect() };
        for r in registers {
            match r.checked_sub(512) {
                Some(scalar) => self.registers.set_scalar(scalar, [lost; 4]),
                None => (0..LANES).for_each(|lane| self.registers.set_vector(r, lane, [lost; 4])),
            }
        }
    }

    // Scalar instructions.

    fn width(slot: Slot) -> usize {
        32 * usize::from(slot.kind.registers())
    }

    /// The set of one bit of an operand.
    fn bit_of(&mut self, operand: Operand, bit: usize) -> Id {
        match operand {
            Operand::Scalar(r) => self.registers.bit(usize::from(r), bit),
            Operand::Special(Special::Scc) => self.registers.scc,
            _ => EMPTY,
        }
    }

    fn value_bit(&self, operand: Operand, bit: usize) -> u32 {
        match operand {
            Operand::Scalar(r) => self.wave.s[(usize::from(r) + bit / 32) & 127] >> (bit % 32) & 1,
            Operand::Constant(value) => (value >> bit & 1) as u32,
            _ => 1,
        }
    }

    /// The set of all bits of a scalar operand.
    fn all_of(&mut self, operand: Operand, width: usize) -> Id {
        let mut all = EMPTY;
        for bit in 0..width {
            let set = self.bit_of(operand, bit);
            all = self.sets.union(all, set);
        }
        all
    }

    fn set_bits(&mut self, operand: Operand, bits: &[Id]) {
        let Operand::Scalar(r) = operand else { return };
        for (bit, set) in bits.iter().enumerate() {
            self.registers.set_bit(usize::from(r), bit, *set);
        }
    }

    fn scalar(&mut self) {
        let inst = self.inst;
        let name = inst.row.mnemonic;
        let slots = inst.row.operands;
        let sources: Vec<(Operand, usize)> = slots
            .iter()
            .filter(|slot| slot.role == Role::Src)
            .zip(inst.src)
            .map(|(slot, operand)| (operand, Self::width(*slot)))
            .collect();
        let destination = slots.first().filter(|slot| matches!(slot.role, Role::Dst | Role::DstSrc)).copied();
        let old =
            destination.filter(|slot| slot.role == Role::DstSrc).map(|slot| (inst.dst, Self::width(slot)));
        let mut all = EMPTY;
        for (operand, width) in sources.iter().copied().chain(old) {
            let set = self.all_of(operand, width);
            all = self.sets.union(all, set);
        }
        let width = destination.map_or(0, Self::width);
        let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        let bitwise = ["s_and", "s_or", "s_xor", "s_nand", "s_nor", "s_xnor", "s_not", "s_mov_b", "s_wqm"];
        let exec = Operand::Scalar(register::EXEC);
        if inst.encoding == Encoding::Sopc || name.starts_with("s_cmpk") {
            self.registers.scc = all;
            return;
        }
        if name.starts_with("s_cselect") || name.starts_with("s_cmov") {
            let chosen = match (self.wave.scc, sources.len()) {
                (true, _) => sources.first().copied(),
                (false, 2) => sources.get(1).copied(),
                // Nothing is moved.
                _ => return,
            };
            let by = self.sets.union(self.registers.scc, all);
            let by = self.sets.through(by);
            let bits: Vec<Id> = (0..width)
                .map(|bit| {
                    let set = chosen.map_or(EMPTY, |(operand, _)| self.bit_of(operand, bit));
                    self.sets.union(set, by)
                })
                .collect();
            return self.set_bits(inst.dst, &bits);
        }
        if starts(&bitwise) && !name.contains("wrexec") {
            let saves = name.contains("saveexec");
            let operands: Vec<Operand> =
                sources.iter().map(|(operand, _)| *operand).chain(saves.then_some(exec)).collect();
            let masks = name.starts_with("s_and_b") || name.starts_with("s_and_saveexec");
            // A one that nothing flowed into lets nothing through: so lanes are switched on again behind a branch.
            let joins = name.starts_with("s_or_b") || name.starts_with("s_or_saveexec");
            let mut bits = Vec::with_capacity(width);
            for bit in 0..width {
                let mut set = EMPTY;
                let mut cut = false;
                for operand in &operands {
                    let of = self.bit_of(*operand, bit);
                    let value = self.value_bit(*operand, bit);
                    cut |= masks && !lets_through(of, value) || joins && !lets_through(of, value ^ 1);
                    set = self.sets.union(set, of);
                }
                bits.push(if cut { EMPTY } else { set });
            }
            if saves {
                let before: Vec<Id> = (0..width).map(|bit| self.bit_of(exec, bit)).collect();
                self.set_bits(inst.dst, &before);
                self.set_bits(exec, &bits);
            } else {
                self.set_bits(inst.dst, &bits);
            }
            if !name.starts_with("s_mov") {
                self.registers.scc = all;
            }
            return;
        }
        let shift = |step: &Self, count: u32| {
            let (by, _) = sources[1];
            (0..5 + u32::from(count == 64)).fold(0, |n, bit| n | step.value_bit(by, bit as usize) << bit)
                as usize
        };
        if starts(&["s_lshl_b", "s_lshr_b", "s_ashr_i"]) {
            let by = shift(self, width as u32);
            let (value, _) = sources[0];
            let amount = self.all_of(sources[1].0, 32);
            let bits: Vec<Id> = (0..width)
                .map(|bit| {
                    let from = match name.starts_with("s_lshl") {
                        true => bit.checked_sub(by),
                        false if name.starts_with("s_ashr") => Some((bit + by).min(width - 1)),
                        false => Some(bit + by).filter(|from| *from < width),
                    };
                    let set = from.map_or(EMPTY, |from| self.bit_of(value, from));
                    self.sets.union(set, amount)
                })
                .collect();
            self.set_bits(inst.dst, &bits);
            self.registers.scc = all;
            return;
        }
        if name.starts_with("s_addc") || name.starts_with("s_subb") {
            all = self.sets.union(all, self.registers.scc);
        }
        if width > 0 {
            self.set_bits(inst.dst, &vec![all; width]);
        }
        // Only immediates and addresses leave the condition as it is.
        if !starts(&[
            "s_movk", "s_getpc", "s_getreg", "s_mul", "s_pack", "s_bfm", "s_sext", "s_brev", "s_ff", "s_flb",
        ]) {
            self.registers.scc = all;
        }
    }

    // Vector instructions.

    /// Dword `word` of a source in a lane, after DPP and SDWA.
    fn source(&mut self, i: usize, word: usize, lane: usize) -> Dword {
        match self.inst.src[i] {
            Operand::Vector(r) => {
                let mut lane = lane;
                if let Some(dpp) = self.inst.dpp.filter(|_| i == 0) {
                    match lanes_of::dpp_source(dpp.control, lane) {
                        Some(from) if self.wave.exec() >> from & 1 != 0 => lane = from,
                        _ => return CLEAN,
                    }
                }
                let dword = self.registers.vector(usize::from(r) + word, lane);
                match self.inst.sdwa.filter(|_| i < 2) {
                    Some(sdwa) => select(dword, sdwa.src[i], sdwa.sext[i]),
                    None => dword,
                }
            }
            Operand::Scalar(r) => self.registers.scalar(self.sets, usize::from(r) + word),
            _ => CLEAN,
        }
    }

    /// The value of that dword.
    fn value(&self, i: usize, word: usize, lane: usize) -> u32 {
        match self.inst.src[i] {
            Operand::Vector(r) => {
                let mut lane = lane;
                if let Some(dpp) = self.inst.dpp.filter(|_| i == 0) {
                    lane = lanes_of::dpp_source(dpp.control, lane).unwrap_or(lane);
                }
                let value = self.wave.v[(usize::from(r) + word) & 511].0[lane];
                match self.inst.sdwa.filter(|_| i < 2) {
                    Some(sdwa) => selected_value(value, sdwa.src[i], sdwa.sext[i]),
                    None => value,
                }
            }
            Operand::Scalar(r) => self.wave.s[(usize::from(r) + word) & 127],
            Operand::Constant(bits) => (bits >> (32 * (word & 1))) as u32,
            // What is not known lets everything through.
            _ => u32::MAX,
        }
    }

    /// The parts of a source that a value of its kind is in, one set.
    fn whole(&mut self, i: usize, kind: Kind, lane: usize) -> Id {
        let inst = self.inst;
        if is_half(kind) {
            let dword = self.source(i, 0, lane);
            let upper = inst.sdwa.is_none() && names_halves(inst) && inst.op_sel >> i & 1 != 0;
            let at = if upper { 2 } else { 0 };
            return self.sets.union(dword[at], dword[at + 1]);
        }
        if inst.row.is(Mark::Mixes) && inst.op_sel_hi >> i & 1 != 0 {
            let dword = self.source(i, 0, lane);
            let at = if inst.op_sel >> i & 1 != 0 { 2 } else { 0 };
            return self.sets.union(dword[at], dword[at + 1]);
        }
        let mut all = EMPTY;
        for word in 0..usize::from(kind.registers()) {
            let dword = self.source(i, word, lane);
            all = self.sets.union_of(dword.into_iter().chain([all]));
        }
        all
    }

    /// Everything that the instruction reads in a lane, but for what it overwrites.
    fn everything(&mut self, lane: usize) -> Id {
        let (mut all, mut i) = (EMPTY, 0);
        let row = self.inst.row;
        for slot in row.operands {
            match slot.role {
                Role::Src if slot.kind == Kind::Mask => {
                    let set = self.bit_of(self.inst.src[3], lane);
                    all = self.sets.union(all, set);
                }
                Role::Src if i < 3 => {
                    let set = self.whole(i, slot.kind, lane);
                    all = self.sets.union(all, set);
                    i += 1;
                }
                _ => {}
            }
        }
        all
    }

    fn old(&self, word: usize, lane: usize) -> Dword {
        match self.inst.dst {
            Operand::Vector(r) => self.registers.vector(usize::from(r) + word, lane),
            _ => CLEAN,
        }
    }

    fn vector(&mut self) {
        let inst = self.inst;
        let Some(slot) =
            inst.row.operands.first().filter(|slot| matches!(slot.role, Role::Dst | Role::DstSrc))
        else {
            return;
        };
        let words = usize::from(slot.kind.registers());
        let rule = rule(inst.row);
        let lanes = lanes_of::writers(self.wave, inst);
        let mut results: Vec<(usize, Vec<Dword>, Id)> = Vec::new();
        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
            let (dwords, carry) = self.lane(rule, *slot, words, lane);
            results.push((lane, dwords, carry));
        }
        if let Operand::Vector(r) = inst.dst {
            for (lane, dwords, _) in &results {
                for (word, dword) in dwords.iter().enumerate() {
                    let dword = self.placed(*dword, word, *lane);
                    self.registers.set_vector(usize::from(r) + word, *lane, dword);
                }
            }
        }
        if let Operand::Scalar(r) = inst.sdst {
            // The bits of lanes that are off become zero.
            for lane in 0..LANES {
                let set = results.iter().find(|(of, ..)| *of == lane).map_or(EMPTY, |(.., carry)| *carry);
                self.registers.set_bit(usize::from(r), lane, set);
            }
        }
    }

    /// Where SDWA puts a result.
    fn placed(&self, dword: Dword, word: usize, lane: usize) -> Dword {
        let Some(sdwa) = self.inst.sdwa else { return dword };
        let (first, count) = extent(sdwa.dst);
        if count == 4 {
            return dword;
        }
        let old = self.old(word, lane);
        let top = dword[count - 1];
        std::array::from_fn(|byte| match byte.checked_sub(first) {
            Some(at) if at < count => dword[at],
            Some(_) if sdwa.unused == Unused::SignExtend => top,
            _ if sdwa.unused == Unused::Preserve => old[byte],
            _ => EMPTY,
        })
    }

    /// What a lane's destination gets, and its bit of the scalar one.
    fn lane(&mut self, rule: Rule, slot: Slot, words: usize, lane: usize) -> (Vec<Dword>, Id) {
        let inst = self.inst;
        let dword = match rule {
            Rule::Moves => {
                return ((0..words).map(|word| self.source(0, word, lane)).collect(), EMPTY);
            }
            Rule::Masks | Rule::Bitwise => {
                let count = inst.row.operands.len() - 1;
                let sources: Vec<Dword> = (0..count.min(3)).map(|i| self.source(i, 0, lane)).collect();
                let values: Vec<u32> = (0..count.min(3)).map(|i| self.value(i, 0, lane)).collect();
                std::array::from_fn(|byte| {
                    let open = |i: usize| lets_through(sources[i][byte], values[i] >> (8 * byte) & 0xff);
                    let cut = rule == Rule::Masks && !(open(0) && open(1));
                    let skip = if cut { 2 } else { 0 };
                    self.sets.union_of(sources.iter().skip(skip).map(|source| source[byte]))
                })
            }
            Rule::Left { value, by } | Rule::Right { value, by, .. } => {
                let wide = 32 * words;
                let count = self.value(by, 0, lane) as usize % wide;
                let amount = self.source(by, 0, lane);
                let amount = self.sets.union_of(amount);
                let bytes: Vec<Id> = (0..words).flat_map(|word| self.source(value, word, lane)).collect();
                let (left, signed) = match rule {
                    Rule::Right { signed, .. } => (false, signed),
                    _ => (true, false),
                };
                let bytes = self.shifted(&bytes, count, left, signed);
                let all: Vec<Id> = bytes.into_iter().map(|set| self.sets.union(set, amount)).collect();
                return (all.chunks(4).map(|dword| std::array::from_fn(|i| dword[i])).collect(), EMPTY);
            }
            Rule::LeftOr => {
                let count = self.value(1, 0, lane) as usize % 32;
                let (value, other) = (self.source(0, 0, lane), self.source(2, 0, lane));
                let amount = self.source(1, 0, lane);
                let amount = self.sets.union_of(amount);
                let bytes = self.shifted(&value, count, true, false);
                std::array::from_fn(|i| self.sets.union_of([bytes[i], other[i], amount]))
            }
            Rule::Field { signed } => {
                let (from, width) =
                    (self.value(1, 0, lane) as usize % 32, self.value(2, 0, lane) as usize % 32);
                let value = self.source(0, 0, lane);
                let places = [self.source(1, 0, lane), self.source(2, 0, lane)];
                let places = self.sets.union_of(places.into_iter().flatten());
                let bytes = self.shifted(&value, from, false, signed);
                let top = if width == 0 { EMPTY } else { bytes[(width - 1) / 8] };
                std::array::from_fn(|i| {
                    let set = match 8 * i < width {
                        true => bytes[i],
                        false if signed => top,
                        false => EMPTY,
                    };
                    self.sets.union(set, places)
                })
            }
            Rule::Align { bits } => {
                let by = self.value(2, 0, lane) as usize;
                let count = if bits { by % 32 } else { 8 * (by % 4) };
                let (high, low) = (self.source(0, 0, lane), self.source(1, 0, lane));
                let amount = self.source(2, 0, lane);
                let amount = self.sets.union_of(amount);
                let bytes: Vec<Id> = low.into_iter().chain(high).collect();
                let bytes = self.shifted(&bytes, count, false, false);
                std::array::from_fn(|i| self.sets.union(bytes[i], amount))
            }
            Rule::Permutes => {
                let (high, low) = (self.source(0, 0, lane), self.source(1, 0, lane));
                let selector = self.value(2, 0, lane);
                let by = self.source(2, 0, lane);
                std::array::from_fn(|i| {
                    let set = match selector >> (8 * i) & 0xff {
                        n @ 0..=3 => low[n as usize],
                        n @ 4..=7 => high[n as usize - 4],
                        // The sign of a half.
                        8 => low[1],
                        9 => low[3],
                        10 => high[1],
                        11 => high[3],
                        _ => EMPTY,
                    };
                    let by = self.sets.through(by[i]);
                    self.sets.union(set, by)
                })
            }
            Rule::Selects => {
                let mask = inst.src[3];
                let second = self.value_bit(mask, lane) != 0;
                let condition = self.bit_of(mask, lane);
                let (no, yes) = (self.source(0, 0, lane), self.source(1, 0, lane));
                let (chosen, other) = if second { (yes, no) } else { (no, yes) };
                std::array::from_fn(|i| {
                    let by = self.sets.union(condition, other[i]);
                    let by = self.sets.through(by);
                    self.sets.union(chosen[i], by)
                })
            }
            Rule::Halves => {
                let count = inst.row.operands.iter().filter(|slot| slot.role == Role::Src).count();
                let (low, high) = match inst.encoding {
                    Encoding::Vop3p => (inst.op_sel, inst.op_sel_hi),
                    _ => (0, 7),
                };
                let mut halves = [EMPTY; 2];
                for i in 0..count.min(3) {
                    let dword = self.source(i, 0, lane);
                    for (half, select) in halves.iter_mut().zip([low, high]) {
                        let at = if select >> i & 1 != 0 { 2 } else { 0 };
                        *half = self.sets.union_of([*half, dword[at], dword[at + 1]]);
                    }
                }
                if slot.role == Role::DstSrc {
                    let old = self.old(0, lane);
                    halves = [0, 1].map(|h| self.sets.union_of([halves[h], old[2 * h], old[2 * h + 1]]));
                }
                [halves[0], halves[0], halves[1], halves[1]]
            }
            Rule::Pairs | Rule::PairMoves => {
                let count = inst.row.operands.iter().filter(|slot| slot.role == Role::Src).count();
                let mut both = Vec::with_capacity(2);
                for (word, select) in [inst.op_sel, inst.op_sel_hi].into_iter().enumerate() {
                    if rule == Rule::PairMoves {
                        let of = usize::from(inst.op_sel >> word & 1);
                        both.push(self.source(word, of, lane));
                        continue;
                    }
                    let mut all = EMPTY;
                    for i in 0..count.min(3) {
                        let dword = self.source(i, usize::from(select >> i & 1), lane);
                        all = self.sets.union_of(dword.into_iter().chain([all]));
                    }
                    both.push([all; 4]);
                }
                return (both, EMPTY);
            }
            Rule::Packs => {
                let kinds: Vec<Kind> = inst.row.operands[1..].iter().map(|slot| slot.kind).collect();
                let (low, high) = (self.whole(0, kinds[0], lane), self.whole(1, kinds[1], lane));
                [low, low, high, high]
            }
            Rule::PacksBytes | Rule::PacksByte | Rule::PacksNibbles => {
                let mut dword = self.old(0, lane);
                let slots = &inst.row.operands[1..];
                let parts: Vec<Id> =
                    (0..slots.len().min(3)).map(|i| self.whole(i, slots[i].kind, lane)).collect();
                if rule == Rule::PacksBytes {
                    let at = if inst.op_sel & 8 != 0 { 2 } else { 0 };
                    let scale = parts.get(2).copied().unwrap_or(EMPTY);
                    dword[at] = self.sets.union(parts[0], scale);
                    dword[at + 1] = self.sets.union(parts[1], scale);
                } else {
                    dword[usize::from(inst.op_sel >> 2 & 3)] = self.sets.union_of(parts);
                }
                dword
            }
            Rule::OfByte(byte) => [self.source(0, 0, lane)[byte]; 4],
            Rule::OfCode => {
                let dword = self.source(0, 0, lane);
                let all = match inst.op_sel == 0 || inst.sdwa.is_some() {
                    true => dword[0],
                    false => self.sets.union_of(dword),
                };
                [all; 4]
            }
            Rule::OfTwoCodes => {
                let dword = self.source(0, 0, lane);
                let at = if inst.sdwa.is_none() && inst.op_sel & 1 != 0 { 2 } else { 0 };
                return (vec![[dword[at]; 4], [dword[at + 1]; 4]], EMPTY);
            }
            Rule::Mixes => {
                let mut all = self.everything(lane);
                if is_half(slot.kind) {
                    if slot.role == Role::DstSrc && !inst.row.is(Mark::Mixes) {
                        let old = self.old(0, lane);
                        all = self.sets.union_of([all, old[0], old[1]]);
                    }
                    return (vec![self.half(all, lane)], all);
                }
                if slot.role == Role::DstSrc {
                    for word in 0..words {
                        let old = self.old(word, lane);
                        all = self.sets.union_of(old.into_iter().chain([all]));
                    }
                }
                return (vec![[all; 4]; words], all);
            }
        };
        (vec![dword], EMPTY)
    }

    /// A result of 16 bits, in the half where it goes.
    fn half(&self, set: Id, lane: usize) -> Dword {
        let inst = self.inst;
        let old = self.old(0, lane);
        let upper = inst.op_sel & 8 != 0 && names_halves(inst) || inst.row.mnemonic == "v_fma_mixhi_f16";
        let cleared =
            matches!(inst.row.encoding, Encoding::Vop1 | Encoding::Vop2) && !inst.row.is(Mark::Mixes);
        match (upper, cleared) {
            (true, _) => [old[0], old[1], set, set],
            (false, true) => [set, set, EMPTY, EMPTY],
            (false, false) => [set, set, old[2], old[3]],
        }
    }

    /// Bytes moved by some bits.
    fn shifted(&mut self, bytes: &[Id], count: usize, left: bool, signed: bool) -> Vec<Id> {
        let (whole, rest) = (count / 8, count % 8);
        let top = bytes[bytes.len() - 1];
        let at = |i: Option<usize>| match i {
            Some(i) if i < bytes.len() => bytes[i],
            Some(_) if signed => top,
            _ => EMPTY,
        };
        (0..bytes.len())
            .map(|i| {
                let (first, second) = match left {
                    true => (i.checked_sub(whole), i.checked_sub(whole + 1)),
                    false => (Some(i + whole), Some(i + whole + 1)),
                };
                let second = if rest == 0 { EMPTY } else { at(second) };
                self.sets.union(at(first), second)
            })
            .collect()
    }

    fn compares(&mut self) {
        let exec = self.wave.exec();
        let sets: Vec<Id> = (0..LANES)
            .map(|lane| if exec >> lane & 1 != 0 { self.everything(lane) } else { EMPTY })
            .collect();
        self.set_bits(self.inst.dst, &sets);
        if self.inst.row.mnemonic.starts_with("v_cmpx") {
            self.set_bits(Operand::Scalar(register::EXEC), &sets);
        }
    }

    fn reads_lane(&mut self) {
        let exec = self.wave.exec();
        let (lane, by) = match self.inst.row.mnemonic {
            "v_readlane_b32" => {
                let by = self.source(1, 0, 0);
                (self.value(1, 0, 0) as usize % LANES, self.sets.union_of(by))
            }
            _ => (if exec == 0 { 0 } else { exec.trailing_zeros() as usize }, EMPTY),
        };
        let by = self.sets.through(by);
        let dword = self.source(0, 0, lane);
        let dword = dword.map(|set| self.sets.union(set, by));
        if let Operand::Scalar(r) = self.inst.dst {
            self.registers.set_scalar(usize::from(r), dword);
        }
    }

    fn writes_lane(&mut self) {
        let lane = self.value(1, 0, 0) as usize % LANES;
        let dword = self.source(0, 0, lane);
        if let Operand::Vector(r) = self.inst.dst {
            self.registers.set_vector(usize::from(r), lane, dword);
        }
    }

    fn swaps(&mut self) {
        let (Operand::Vector(x), Operand::Vector(y)) = (self.inst.dst, self.inst.src[0]) else { return };
        let (x, y) = (usize::from(x), usize::from(y));
        for lane in (0..LANES).filter(|lane| self.wave.exec() >> lane & 1 != 0) {
            let (first, second) = (self.registers.vector(x, lane), self.registers.vector(y, lane));
            self.registers.set_vector(x, lane, second);
            self.registers.set_vector(y, lane, first);
        }
    }

    fn swaps_groups(&mut self, width: usize) {
        let (Operand::Vector(x), Operand::Vector(y)) = (self.inst.dst, self.inst.src[0]) else { return };
        let (x, y) = (usize::from(x), usize::from(y));
        for lane in (0..LANES).filter(|lane| lane & width == 0) {
            let (of_first, of_second) =
                (self.registers.vector(x, lane + width), self.registers.vector(y, lane));
            self.registers.set_vector(x, lane + width, of_second);
            self.registers.set_vector(y, lane, of_first);
        }
    }

    /// `ds_swizzle_b32`, `ds_permute_b32` and `ds_bpermute_b32`, which touch no memory.
    fn moves_lanes(&mut self) {
        let inst = self.inst;
        let exec = self.wave.exec();
        let on = |lane: &usize| exec >> lane & 1 != 0;
        let swizzles = inst.row.mnemonic == "ds_swizzle_b32";
        let data = if swizzles && inst.src[0] != Operand::None { inst.src[0] } else { inst.src[1] };
        let (Operand::Vector(data), Operand::Vector(to)) = (data, inst.dst) else { return };
        let mut results = [CLEAN; LANES];
        for lane in (0..LANES).filter(on) {
            let (from, into, by) = if swizzles {
                (lanes_of::swizzled(inst.imm as u32 & 0xffff, lane as u32) as usize, lane, EMPTY)
            } else {
                let named = lanes_of::lane_of(self.value(0, 0, lane), inst);
                let by = self.source(0, 0, lane);
                let by = self.sets.union_of(by);
                let by = self.sets.through(by);
                if inst.row.mnemonic == "ds_permute_b32" { (lane, named, by) } else { (named, lane, by) }
            };
            let dword = if on(&from) { self.registers.vector(usize::from(data), from) } else { CLEAN };
            results[into] = dword.map(|set| self.sets.union(set, by));
        }
        for lane in (0..LANES).filter(on) {
            self.registers.set_vector(usize::from(to), lane, results[lane]);
        }
    }

    // Matrix instructions.

    fn matrix(&mut self) {
        let inst = self.inst;
        let found =
            INSTRUCTIONS.iter().find(|m| m.mnemonic == inst.row.mnemonic && m.is_on(self.wave.processor));
        let Some((matrix, operands)) =
            found.and_then(|m| Some((m, m.operands(inst.matrix.cbsz, inst.matrix.blgp)?)))
        else {
            return self.unknown();
        };
        let broadcasts = matrix.broadcasts && inst.matrix.cbsz != 0;
        if broadcasts {
            return self.unknown();
        }
        let lane_of_b = |lane: usize| if matrix.permutes { permuted(inst.matrix.blgp, lane) } else { lane };
        let mut index = EMPTY;
        if matrix.sparse {
            for lane in 0..LANES {
                let dword = self.source(2, 0, lane);
                index = self.sets.union_of(dword.into_iter().chain([index]));
            }
            index = self.sets.through(index);
        }
        let rows = self.side(matrix, 0, operands[0].1, matrix.m, |lane| lane);
        let columns = self.side(matrix, 1, operands[1].1, matrix.n, lane_of_b);
        let c = if matrix.sparse { inst.dst } else { inst.src[2] };
        let words = matrix.c_registers() / (matrix.m * matrix.n * matrix.blocks / LANES);
        let Operand::Vector(to) = inst.dst else { return };
        let mut results = Vec::new();
        for block in 0..matrix.blocks {
            for i in 0..matrix.m {
                let (register, first) = matrix.row(block, i);
                for j in 0..matrix.n {
                    let (lane, product) = (
                        first + j,
                        self.sets.union(rows[block * matrix.m + i], columns[block * matrix.n + j]),
                    );
                    let mut all = self.sets.union(product, index);
                    if let Operand::Vector(c) = c {
                        for word in 0..words {
                            let dword = self.registers.vector(usize::from(c) + register + word, lane);
                            all = self.sets.union_of(dword.into_iter().chain([all]));
                        }
                    }
                    results.push((register, lane, all));
                }
            }
        }
        for (register, lane, set) in results {
            for word in 0..words {
                self.registers.set_vector(usize::from(to) + register + word, lane, [set; 4]);
            }
        }
    }

    /// What flows from each row of A, or column of B, of each block.
    fn side(
        &mut self,
        matrix: &Matrix,
        i: usize,
        registers: usize,
        count: usize,
        lane_of: impl Fn(usize) -> usize,
    ) -> Vec<Id> {
        let mut sets = vec![EMPTY; count * matrix.blocks];
        let Operand::Vector(first) = self.inst.src[i] else { return sets };
        for lane in 0..LANES {
            let at = lane / count % matrix.blocks * count + lane % count;
            let from = lane_of(lane);
            for register in 0..registers {
                let dword = self.registers.vector(usize::from(first) + register, from);
                sets[at] = self.sets.union_of([sets[at]].into_iter().chain(dword));
            }
            if matrix.scaled {
                let byte = usize::from(self.inst.matrix.scale_byte[i] & 3);
                let scale = match self.inst.matrix.scale[i] {
                    Operand::Vector(r) => self.registers.vector(usize::from(r), lane)[byte],
                    Operand::Scalar(r) => {
                        let dword = self.registers.scalar(self.sets, usize::from(r));
                        self.sets.union_of(dword)
                    }
                    _ => EMPTY,
                };
                sets[at] = self.sets.union(sets[at], scale);
            }
        }
        sets
    }
}

/// Whether an instruction's OP_SEL names halves of its sources and destination.
fn names_halves(inst: &Inst) -> bool {
    matches!(inst.row.modifiers.op_sel, OpSel::Used | OpSel::UsedButThird)
}

fn is_half(kind: Kind) -> bool {
    matches!(kind, Kind::B16 | Kind::I16 | Kind::U16 | Kind::F16 | Kind::BF16)
}

/// First byte and number of bytes of a part.
fn extent(part: Select) -> (usize, usize) {
    match part {
        Select::Byte0 => (0, 1),
        Select::Byte1 => (1, 1),
        Select::Byte2 => (2, 1),
        Select::Byte3 => (3, 1),
        Select::Word0 => (0, 2),
        Select::Word1 => (2, 2),
        Select::Dword => (0, 4),
    }
}

/// The part of a dword that SDWA selects, extended.
fn select(dword: Dword, part: Select, signed: bool) -> Dword {
    let (first, count) = extent(part);
    let rest = if signed { dword[first + count - 1] } else { EMPTY };
    std::array::from_fn(|i| if i < count { dword[first + i] } else { rest })
}

fn selected_value(value: u32, part: Select, signed: bool) -> u32 {
    let (first, count) = extent(part);
    let up = value << (32 - 8 * (first + count));
    let down = 32 - 8 * count as u32;
    if signed { (up as i32 >> down) as u32 } else { up >> down }
}
