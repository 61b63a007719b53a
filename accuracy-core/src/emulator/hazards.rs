//! Instructions that use a register too soon behind the one that writes it, where the hardware does not wait by itself: code
//! needs `s_nop` or other instructions in between.
//!
//! The emulator executes one instruction after the other, so that such code computes right here and wrong on the device. A
//! compiler inserts the wait states; hand-written assembly may lack them. They are looked for in the code as a whole, along
//! every way on which it may be executed.
//!
//! Some of the documented numbers are more than a device needs. The assembly that AITER ships for gfx942 and gfx950 is right on
//! devices; where it has fewer wait states, the hardware waits by itself, and code that has as many is told of in a note.
//!
//! Sources: AMD's "Instinct MI300 ISA" and "Instinct MI350 ISA", "Manually Inserted Wait States (NOPs)"; for the numbers of
//! the matrix instructions, which those give by passes, also the hazards that LLVM's back end for AMD GPUs knows.

use super::isa::uses::{Span, name};
use super::isa::{Encoding, Inst, Kind, OpSel, Operand, Processor, Role, Select};
use std::collections::HashMap;

/// Wait states beyond which no instruction matters.
const MOST: u8 = 20;
/// Instructions that are looked at behind another one, where ways meet.
const STEPS: usize = 128;
/// Wait states beside its own that a jump takes at the least on gfx942: AITER's attention reads a sum of 8 passes behind one
/// and three other instructions. Of gfx950 there is no such code.
const JUMP_ON_GFX942: u8 = 4;
/// Scalar registers by their numbers in [`name`].
const SCALARS: u16 = 512;
const VCC: u16 = SCALARS + 106;
const M0: u16 = SCALARS + 124;
const EXEC: u16 = SCALARS + 126;

/// How an instruction depends on another one that is too close before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// It reads the register.
    Reads,
    /// It overwrites the register.
    Overwrites,
    /// It overwrites a register that the other one is still reading.
    OverwritesSource,
    /// It depends on a register or mode without naming it.
    DependsOn,
}

/// Two instructions that are too close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// Address of the first one, and its place in the code that was looked through.
    pub first: (u64, usize),
    pub uses: Uses,
    /// The register, by its number in [`name`]; none where it is about something else.
    pub register: Option<u16>,
    /// Wait states that have to be between the two, and those that are.
    pub needed: u8,
    pub found: u8,
    /// Wait states that pass at the least on the device.
    pub time: u8,
    /// Wait states with which shipped assembly is right on the device, though fewer than are documented.
    pub enough: u8,
}

impl Hazard {
    /// Whether the hardware is known to wait by itself in code like this.
    pub fn is_harmless(&self) -> bool {
        self.time >= self.enough
    }

    /// The register as LLVM writes it ("v4", "s0"), the first one of several; none where it is about something else.
    pub fn register_name(&self) -> Option<String> {
        self.register.map(|number| name(number.into()))
    }

    /// What a person reads of it, beside the second instruction. `first` names the first one and its place.
    pub fn words(&self, first: &str) -> String {
        let Hazard { needed, found, .. } = self;
        let waits = match self.is_harmless() {
            true => "are documented; the hardware waits by itself in code like this".to_owned(),
            false => format!("are needed: {} is missing", self.remedy()),
        };
        format!("{self} {found} wait states behind {first}, and {needed} {waits}")
    }

    /// The instructions that make up for the wait states that are missing: "s_nop 3".
    pub fn remedy(&self) -> String {
        // One takes 16 wait states at the most.
        let missing = self.needed.saturating_sub(self.found);
        let full = std::iter::repeat_n(16, usize::from(missing / 16));
        let nops: Vec<String> = full
            .chain((!missing.is_multiple_of(16)).then_some(missing % 16))
            .map(|states| format!("s_nop {}", states - 1))
            .collect();
        nops.join(" and ")
    }
}

impl std::fmt::Display for Hazard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let register = self.register_name().unwrap_or_else(|| "a hardware register".into());
        match self.uses {
            Uses::Reads => write!(f, "reads {register}"),
            Uses::Overwrites => write!(f, "overwrites {register}"),
            Uses::OverwritesSource => write!(f, "overwrites {register}, which is still being read"),
            Uses::DependsOn => write!(f, "depends on {register}"),
        }
    }
}

/// The hazards of some code, which is in the order of its addresses: for each instruction that has one its place in `code`,
/// with the hazard that lacks most.
pub fn find(processor: Processor, code: &[(u64, &Inst)]) -> Vec<(usize, Hazard)> {
    let known: Vec<Known> = code.iter().map(|(_, inst)| Known::new(processor, inst)).collect();
    let ways = Ways::new(processor, code);
    let mut found = Vec::new();
    let mut open = Vec::new();
    // For each instruction from how far it was come by, and for which second one.
    let mut seen: Vec<(usize, Apart)> = vec![(usize::MAX, Apart::default()); code.len()];
    for second in (0..code.len()).filter(|i| known[*i].is_second) {
        let mut worst: Option<Hazard> = None;
        open.clear();
        open.extend(ways.before(second).map(|way| (way.at, Apart::default().along(way))));
        let mut steps = 0;
        while let Some((first, apart)) = open.pop() {
            steps += 1;
            let (seen_for, nearest) = &mut seen[first];
            let is_known = *seen_for == second;
            if steps > STEPS || is_known && nearest.is_within(apart) {
                continue;
            }
            if !is_known || apart.is_within(*nearest) {
                (*seen_for, *nearest) = (second, apart);
            }
            let needs = known[first].needs(&known[second]).filter(|needs| needs.needed > apart.states);
            if let Some(Needs { needed, enough, uses, register }) = needs {
                let time = apart.time_behind(&known[first]);
                let first = (code[first].0, first);
                let hazard = Hazard { first, uses, register, needed, found: apart.states, time, enough };
                let rank = |hazard: &Hazard| (!hazard.is_harmless(), hazard.needed - hazard.found);
                if worst.is_none_or(|worst| rank(&worst) < rank(&hazard)) {
                    worst = Some(hazard);
                }
            }
            let apart = apart.behind(&known[first]);
            if apart.states < MOST {
                open.extend(ways.before(first).map(|way| (way.at, apart.along(way))));
            }
        }
        found.extend(worst.map(|hazard| (second, hazard)));
    }
    found
}

/// How far an instruction is before another one, on one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Apart {
    /// Wait states as they are documented: each instruction takes one.
    states: u8,
    /// Wait states that pass at the least on the device, matrix instructions left out.
    time: u8,
    /// Whether a matrix instruction is in between.
    matrix: bool,
}

impl Apart {
    fn behind(self, between: &Known) -> Apart {
        Apart {
            states: self.states.saturating_add(between.states),
            time: self.time.saturating_add(between.states),
            matrix: self.matrix || between.matrix.is_some(),
        }
    }

    fn along(self, way: Way) -> Apart {
        Apart { time: self.time.saturating_add(way.delay), ..self }
    }

    fn time_behind(self, first: &Known) -> u8 {
        // A matrix instruction begins when the one before it has gone through all its passes.
        let passes = first.matrix.filter(|_| self.matrix).map_or(0, |matrix| matrix.passes + 1);
        self.time.max(passes)
    }

    /// Whether this is no further than another one in any respect.
    fn is_within(self, other: Apart) -> bool {
        self.states <= other.states && self.time <= other.time && self.matrix <= other.matrix
    }
}

/// Which instructions may be executed directly before which.
struct Ways {
    /// Whether the one before in memory may be.
    falls: Vec<bool>,
    /// Branches, by where they go.
    branches: HashMap<usize, Vec<usize>>,
    /// See [`Way::delay`].
    jump: u8,
}

impl Ways {
    fn new(processor: Processor, code: &[(u64, &Inst)]) -> Ways {
        let ends = |inst: &Inst| {
            matches!(inst.row.mnemonic, "s_branch" | "s_endpgm" | "s_setpc_b64" | "s_swappc_b64")
        };
        let mut falls = vec![false; code.len()];
        let mut branches: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, (at, inst)) in code.iter().enumerate() {
            let behind = at + u64::from(inst.size);
            if let Some((next, _)) = code.get(i + 1)
                && *next == behind
            {
                falls[i + 1] = !ends(inst);
            }
            let branches_to = inst.encoding == Encoding::Sopp
                && (inst.row.mnemonic == "s_branch" || inst.row.mnemonic.starts_with("s_cbranch_"));
            if branches_to {
                let to = behind.wrapping_add_signed(4 * i64::from(inst.imm));
                if let Ok(to) = code.binary_search_by_key(&to, |(at, _)| *at) {
                    branches.entry(to).or_default().push(i);
                }
            }
        }
        let jump = match processor {
            Processor::Gfx942 => JUMP_ON_GFX942,
            Processor::Gfx950 => 0,
        };
        Ways { falls, branches, jump }
    }

    fn before<'a>(&'a self, at: usize) -> impl Iterator<Item = Way> + use<'a> {
        let falls = self.falls[at].then(|| Way { at: at.wrapping_sub(1), delay: 0 });
        let branches = self.branches.get(&at).into_iter().flatten();
        falls.into_iter().chain(branches.map(|at| Way { at: *at, delay: self.jump }))
    }
}

/// An instruction that may be executed before another one.
#[derive(Clone, Copy)]
struct Way {
    at: usize,
    /// Wait states beside its own that the way to the other one takes at the least on the device.
    delay: u8,
}

/// Wait states that have to be between two instructions.
#[derive(Clone, Copy)]
struct Needs {
    needed: u8,
    /// See [`Hazard::enough`].
    enough: u8,
    uses: Uses,
    register: Option<u16>,
}

/// Collects what two instructions need, and keeps what is needed most.
#[derive(Default)]
struct Most(Option<Needs>);

impl Most {
    fn add(&mut self, needed: u8, uses: Uses, register: Option<u16>) {
        self.add_if(needed, needed, uses, register);
    }

    /// The same where fewer wait states than are documented are enough.
    fn add_if(&mut self, needed: u8, enough: u8, uses: Uses, register: Option<u16>) {
        let rank = |needs: &Needs| (needs.enough, needs.needed);
        let needs = Needs { needed, enough, uses, register };
        if register.is_some() && self.0.is_none_or(|most| rank(&most) < rank(&needs)) {
            self.0 = Some(needs);
        }
    }
}

/// A matrix instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Matrix {
    unit: Unit,
    passes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// float64.
    Double,
    /// float32 sources.
    Single,
    /// Everything else.
    Small,
}

/// The properties of an instruction that decide which hazards it has.
#[derive(Clone, Copy)]
struct Known {
    processor: Processor,
    mnemonic: &'static str,
    uses: super::isa::uses::Uses,
    /// Wait states that it takes.
    states: u8,
    /// Whether it may come second in a hazard.
    is_second: bool,
    is_vector: bool,
    is_vector_memory: bool,
    is_dpp: bool,
    /// The register that DPP takes from other lanes: the first source.
    moved: Option<u16>,
    is_transcendental: bool,
    is_dot: bool,
    /// It writes a part of its destination, by OP_SEL or SDWA.
    writes_part: bool,
    writes_exec: bool,
    reads_vcc: bool,
    matrix: Option<Matrix>,
    /// The accumulator of a matrix or dot instruction.
    accumulator: Option<Span>,
    /// A register that selects a lane.
    lane: Option<u16>,
    /// Three or four registers that a store is still reading.
    stored: Option<Span>,
    /// A register of the hardware that is set or read.
    hardware: Option<u16>,
    needs_m0: bool,
}

impl Known {
    fn new(processor: Processor, inst: &Inst) -> Known {
        let mnemonic = inst.row.mnemonic;
        let starts = |all: &[&str]| all.iter().any(|start| mnemonic.starts_with(start));
        let is_vector_memory = inst.encoding.is_memory() && inst.encoding != Encoding::Smem;
        let is_vector = inst.encoding.is_vector() && !is_vector_memory;
        let matrix = matrix(inst);
        let is_dot = is_vector && starts(&["v_dot"]);
        let selects = matches!(inst.row.modifiers.op_sel, OpSel::Used | OpSel::UsedButThird);
        let upper = inst.encoding == Encoding::Vop3 && selects && inst.op_sel & 8 != 0;
        let part = inst.sdwa.is_some_and(|sdwa| sdwa.dst != Select::Dword);
        let reads = |register: u16| {
            inst.uses.spans().iter().any(|s| !s.written && s.registers().contains(&usize::from(register)))
        };
        let hardware = starts(&["s_setreg", "s_getreg"]).then_some(inst.imm as u16 & 0x3f);
        let needs_m0 = (inst.memory.lds || mnemonic.contains("_lds_") && !mnemonic.starts_with("ds_"))
            || mnemonic == "s_sendmsg"
            || mnemonic.contains("_addtid_");
        Known {
            processor,
            mnemonic,
            uses: inst.uses,
            states: if mnemonic == "s_nop" { (inst.imm as u8 & 15) + 1 } else { 1 },
            is_second: is_vector || is_vector_memory || hardware.is_some() || needs_m0,
            is_vector,
            is_vector_memory,
            is_dpp: inst.dpp.is_some(),
            moved: match inst.src[0] {
                Operand::Vector(register) if inst.dpp.is_some() => Some(register),
                _ => None,
            },
            is_transcendental: is_transcendental(mnemonic),
            is_dot,
            writes_part: upper || part,
            writes_exec: starts(&["v_cmpx"]),
            reads_vcc: reads(VCC) || starts(&["v_div_fmas"]),
            matrix,
            accumulator: accumulator(inst, matrix.is_some() || is_dot),
            lane: match (mnemonic, inst.src[1]) {
                ("v_readlane_b32" | "v_writelane_b32", Operand::Scalar(s)) => Some(SCALARS + u16::from(s)),
                _ => None,
            },
            stored: stored(inst),
            hardware,
            needs_m0,
        }
    }

    fn written(&self) -> impl Iterator<Item = Span> + '_ {
        self.uses.spans().iter().copied().filter(|span| span.written)
    }

    fn read(&self) -> impl Iterator<Item = Span> + '_ {
        self.uses.spans().iter().copied().filter(|span| !span.written)
    }

    /// The first register of these kinds that this one writes and another one reads.
    fn read_by(&self, other: &Known, vectors: bool) -> Option<u16> {
        self.written()
            .filter(|span| (span.first < SCALARS) == vectors)
            .find_map(|span| other.read().find_map(|read| shared(span, read)))
    }

    fn overwritten_by(&self, other: &Known) -> Option<u16> {
        let written = self.written().filter(|span| span.first < SCALARS);
        written.into_iter().find_map(|span| other.written().find_map(|write| shared(span, write)))
    }

    /// The wait states that have to be between this instruction and a later one.
    fn needs(&self, second: &Known) -> Option<Needs> {
        let mut most = Most::default();
        if self.matrix.is_some() {
            self.matrix_needs(second, &mut most);
        } else if self.is_vector {
            self.vector_needs(second, &mut most);
        }
        if let Some(stored) = self.stored
            && second.is_vector
        {
            // The data of a wide store is read in the cycles behind its issue.
            let register = second.written().find_map(|write| shared(stored, write));
            most.add(2, Uses::OverwritesSource, register);
        }
        if second.needs_m0 && !self.is_vector {
            // AITER's kernels load into LDS directly behind the instruction that sets M0.
            let register = self.written().find_map(|span| shared(span, one(M0)));
            most.add_if(1, 0, Uses::DependsOn, register);
        }
        if most.0.is_none()
            && self.mnemonic.starts_with("s_setreg")
            && self.hardware.is_some()
            && self.hardware == second.hardware
        {
            most.0 = Some(Needs { needed: 2, enough: 2, uses: Uses::DependsOn, register: None });
        }
        most.0
    }

    /// Wait states behind a vector instruction that is no matrix instruction.
    fn vector_needs(&self, second: &Known, most: &mut Most) {
        let scalar = || self.read_by(second, false);
        let vector = || self.read_by(second, true);
        if second.is_vector {
            // AITER's kernels read a mask directly behind the comparison that writes it.
            most.add_if(2, 0, Uses::Reads, scalar());
            let vcc = self.written().find_map(|span| shared(span, pair(VCC)));
            if second.mnemonic.starts_with("v_div_fmas") {
                most.add(4, Uses::Reads, vcc);
            } else if second.reads_vcc {
                most.add_if(2, 0, Uses::Reads, vcc);
            }
            let selects =
                second.lane.and_then(|lane| self.written().find_map(|span| shared(span, one(lane))));
            most.add(4, Uses::Reads, selects);
        }
        if second.is_vector_memory {
            // AITER's all_reduce has two.
            most.add_if(5, 2, Uses::Reads, scalar());
        }
        if self.writes_exec {
            let moves_lanes = matches!(
                second.mnemonic,
                "v_readlane_b32"
                    | "v_readfirstlane_b32"
                    | "v_writelane_b32"
                    | "v_permlane16_swap_b32"
                    | "v_permlane32_swap_b32"
            );
            if second.matrix.is_some() || moves_lanes {
                most.add(4, Uses::DependsOn, Some(EXEC));
            }
            if second.is_dpp {
                most.add(5, Uses::DependsOn, Some(EXEC));
            }
        }
        match second.mnemonic {
            "v_readlane_b32" | "v_readfirstlane_b32" => most.add(1, Uses::Reads, vector()),
            "v_permlane16_swap_b32" | "v_permlane32_swap_b32" => most.add(2, Uses::Reads, vector()),
            _ => {}
        }
        if let Some(moved) = second.moved {
            // AITER's kernels take a register from other lanes directly behind its write.
            most.add_if(2, 0, Uses::Reads, self.written().find_map(|span| shared(span, one(moved))));
        }
        if second.matrix.is_some() && !self.is_dot {
            // AITER's backward attention for gfx950 has one.
            let enough = match self.processor {
                Processor::Gfx942 => 2,
                Processor::Gfx950 => 1,
            };
            most.add_if(2, enough, Uses::Reads, vector());
        }
        if self.is_transcendental && second.is_vector && !second.is_transcendental {
            most.add(1, Uses::Reads, vector());
        }
        if self.writes_part && second.is_vector {
            most.add(1, Uses::Reads, vector());
        }
        if self.is_dot && second.matrix.is_none() {
            self.dot_needs(second, most);
        }
    }

    /// A dot product may be accumulated by the same instruction at once.
    fn dot_needs(&self, second: &Known, most: &mut Most) {
        let same = self.mnemonic == second.mnemonic;
        if !same {
            most.add(3, Uses::Reads, self.read_by(second, true));
            if second.is_vector || second.is_vector_memory {
                most.add(3, Uses::Overwrites, self.overwritten_by(second));
            }
            return;
        }
        let others = second.read().filter(|read| Some(*read) != second.accumulator);
        let mut read = others.filter(|read| read.first < SCALARS);
        most.add(3, Uses::Reads, read.find_map(|read| self.written().find_map(|span| shared(span, read))));
    }

    /// Wait states behind a matrix instruction.
    fn matrix_needs(&self, second: &Known, most: &mut Most) {
        let Some(first @ Matrix { unit, passes }) = self.matrix else { return };
        let late = u8::from(self.processor == Processor::Gfx950 && passes != 2);
        let result = match unit {
            Unit::Small => passes + 3 + late,
            Unit::Single => passes + 2,
            Unit::Double => {
                if passes == 4 {
                    6
                } else {
                    11
                }
            }
        };
        if let Some(matrix) = second.matrix {
            for read in second.read().filter(|read| read.first < SCALARS) {
                let register = self.written().find_map(|span| shared(span, read));
                let is_accumulator = second.accumulator.is_some_and(|span| same(span, read));
                let whole = self.written().any(|span| same(span, read));
                let needed = match is_accumulator {
                    false => result,
                    true if whole => first.accumulates(matrix),
                    true => first.accumulates_part(matrix, late),
                };
                most.add(needed, Uses::Reads, register);
            }
            return;
        }
        if unit == Unit::Double && matches!(second.mnemonic, "v_fma_f64" | "v_fmac_f64") {
            let register = self.written().next().map(|span| span.first);
            most.add(2, Uses::DependsOn, register);
        }
        if !(second.is_vector || second.is_vector_memory) {
            return;
        }
        let read = match (unit, second.is_vector_memory) {
            (Unit::Double, true) => {
                if passes == 4 {
                    9
                } else {
                    18
                }
            }
            _ => result,
        };
        // AITER's kernels read and overwrite sums sooner than a compiler: its fmoe reads them right behind the last pass.
        let enough = |sooner: u8, needed: u8| if unit == Unit::Small { sooner } else { needed };
        most.add_if(read, enough(passes, read), Uses::Reads, self.read_by(second, true));
        most.add_if(result, enough(passes + 1, result), Uses::Overwrites, self.overwritten_by(second));
        // Its accumulator is read in its last passes.
        if let Some(accumulator) = self.accumulator.filter(|_| unit == Unit::Small) {
            let register = second.written().find_map(|write| shared(accumulator, write));
            most.add(passes - 1, Uses::OverwritesSource, register);
        }
    }
}

impl Matrix {
    /// Wait states before another one may add to the whole result of this one.
    fn accumulates(self, second: Matrix) -> u8 {
        match (self.unit, second.unit) {
            (Unit::Double, Unit::Double) if self.passes == 4 && second.passes == 4 => 4,
            (Unit::Double, _) => 0,
            _ if self.passes == 2 => 2,
            _ => 0,
        }
    }

    /// The same where the accumulator is only partly the result of this one.
    fn accumulates_part(self, second: Matrix, late: u8) -> u8 {
        match (self.unit, second.unit) {
            (Unit::Double, Unit::Small) => 0,
            (Unit::Double, _) => {
                if self.passes == 4 {
                    4
                } else {
                    9
                }
            }
            (Unit::Single, Unit::Small) => 0,
            (Unit::Single, _) => self.passes,
            (Unit::Small, _) => self.passes + 1 + late,
        }
    }
}

/// How a matrix instruction computes; `None` for any other instruction.
fn matrix(inst: &Inst) -> Option<Matrix> {
    let shape = inst.row.mnemonic;
    let rest =
        ["v_mfma_scale_", "v_mfma_", "v_smfmac_"].iter().find_map(|start| shape.strip_prefix(start))?;
    if rest.starts_with("ld_scale") {
        return None;
    }
    let size = rest.split('_').nth(1).unwrap_or_default();
    let blocks = rest.split('_').any(|part| part == "2b" || part == "4b");
    let unit = match rest {
        _ if rest.ends_with("_f64") => Unit::Double,
        _ if rest.ends_with("_f32") => Unit::Single,
        _ => Unit::Small,
    };
    // A format of 8 bits takes twice the passes of one of 6 or 4.
    let wide = rest.ends_with("f8f6f4") && (inst.matrix.cbsz < 2 || inst.matrix.blgp < 2);
    let passes = match unit {
        Unit::Double => {
            if size.starts_with("4x4") {
                4
            } else {
                8
            }
        }
        _ if size.starts_with("4x4") => 2,
        Unit::Single if size.starts_with("16x16") => 8,
        _ if size.starts_with("16x16") => {
            if blocks || wide {
                8
            } else {
                4
            }
        }
        Unit::Single => 16,
        _ => {
            if blocks || wide {
                16
            } else {
                8
            }
        }
    };
    Some(Matrix { unit, passes })
}

fn is_transcendental(mnemonic: &str) -> bool {
    ["v_rcp_", "v_rsq_", "v_sqrt_", "v_exp_", "v_log_", "v_sin_", "v_cos_"]
        .iter()
        .any(|start| mnemonic.starts_with(start))
}

/// The registers that an instruction adds to: the third source, or the destination that is also a source.
fn accumulator(inst: &Inst, accumulates: bool) -> Option<Span> {
    if !accumulates {
        return None;
    }
    let tied = inst.row.operands.first().is_some_and(|slot| slot.role == Role::DstSrc);
    let Operand::Vector(first) = (if tied { inst.dst } else { inst.src[2] }) else { return None };
    inst.uses.spans().iter().copied().find(|span| !span.written && span.first == first)
}

/// The data of a store of more than 64 bits, if it is one whose data may be overwritten too soon.
fn stored(inst: &Inst) -> Option<Span> {
    let store = inst.row.mnemonic.contains("store");
    let offset = match inst.encoding {
        Encoding::Mubuf | Encoding::Mtbuf => matches!(inst.src[2], Operand::Scalar(_)),
        Encoding::Flat | Encoding::Global | Encoding::Scratch => false,
        _ => return None,
    };
    // A buffer store with a scalar offset takes a cycle more, in which its data is read.
    let Operand::Vector(first) = inst.src[1] else { return None };
    let data = inst.row.operands.iter().find(|slot| slot.role == Role::Src && slot.kind != Kind::Mask)?;
    let count = data.kind.registers();
    (store && !offset && count > 2).then_some(Span { first, count: count as u8, written: false })
}

fn one(first: u16) -> Span {
    Span { first, count: 1, written: false }
}

fn pair(first: u16) -> Span {
    Span { first, count: 2, written: false }
}

/// The first register that two operands share.
fn shared(a: Span, b: Span) -> Option<u16> {
    let first = a.first.max(b.first);
    let end = (a.first + u16::from(a.count)).min(b.first + u16::from(b.count));
    (first < end).then_some(first)
}

/// Whether two operands are the same registers.
fn same(a: Span, b: Span) -> bool {
    (a.first, a.count) == (b.first, b.count)
}
