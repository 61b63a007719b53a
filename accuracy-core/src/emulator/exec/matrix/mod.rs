//! Matrix instructions: MFMA, SMFMAC and the moves between VGPRs and AGPRs.
//!
//! EXEC does not mask them: all 64 lanes take part, as AMD's "Instinct MI300 ISA" says of matrix operations; the moves
//! (`v_accvgpr_*`) are vector instructions like any other, and EXEC masks those.
//!
//! # Layouts
//!
//! `D = A B + C` with A of M rows and K columns, B of K rows and N columns, for each of one or more blocks. Each lane
//! holds E elements of A, one behind the other from the lowest bits of the lowest register on, where E = M K blocks / 64:
//!
//! - Element e of A in lane l is `A[block][l % M][k]` with `block = l / M % blocks` and
//!   `k = l / (M blocks) * E + e`. B is laid out as A is, with N for M and the column for the row.
//! - An operand that takes eight registers (fp8 and bf8 in the f8f6f4 instructions, B of gfx950's sparse ones) is two of
//!   those: the first four registers hold the first half of all k, the last four the second.
//! - D and C: register r of lane l holds `D[block][i][j]`. Rows come in groups of four (float64: of one), and a register
//!   has 64 / N of those (or one group of each of several blocks, where a block is smaller than a register).
//!
//! Sources: AMD's matrix instruction calculator for CDNA3; for the f8f6f4 instructions AMD's Composable Kernel, which
//! has the printed result of a probe on hardware (`test/mx_mfma_op/scale_mapping_*.txt`).
//!
//! Sparse A holds two of each four consecutive k, in order; two bits each in the index register say which: element e
//! in bits `2 e` and `2 e + 1` of the lane that holds it. Where those need less than the register, `abid` selects which
//! of its parts they are in, unless `cbsz` is not zero.
//!
//! Block scales are one byte (E8M0) for each row and 32 k: that of row i and block s is in lane `s M + i`, in the byte
//! that the instruction selects. A scale that no vector register holds is the exponent of a float32 (bits 23 to 30),
//! as LLVM notes of the hardware (llvm/llvm-project#158117).
//!
//! # Arithmetic
//!
//! `sums.rs` has the rules. [`fidelity`] says which instructions they are established for.

mod format;
mod sums;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use super::super::isa::{Execute, Inst, Operand, Processor, Processors};
use super::super::wave::{Fault, Flow, LANES, Lanes, Wave};
use super::vector::begin;
use crate::simd::{Isa, multiversion};
use format::{Element, MAX_ELEMENTS, Side};
use sums::{Grouping, NAN_SCALE, RowScales, Term};

/// How far the result of an instruction is known to be that of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// Bit for bit, but for the payload of a NaN.
    Exact,
    /// By the scheme that other instructions are known to follow; not established for this one.
    Modelled,
}

/// One matrix instruction.
#[derive(Debug)]
pub struct Matrix {
    /// LLVM's mnemonic.
    pub mnemonic: &'static str,
    pub processors: Processors,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub blocks: usize,
    pub a: Element,
    pub b: Element,
    /// Two of each four consecutive elements of A are left out (SMFMAC).
    pub sparse: bool,
    /// `cbsz` and `abid` broadcast blocks of A.
    pub broadcasts: bool,
    /// `blgp` permutes the lanes of B.
    pub permutes: bool,
    /// The operands have block scales.
    pub scaled: bool,
    pub execute: Execute,
}

/// What the result of a matrix instruction consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    F32,
    F64,
    I32,
}

/// Where the elements of A or B are. All numbers are powers of two.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Elements that a lane holds.
    elements: usize,
    /// Binary logarithm of those of them that are consecutive in k.
    run: u32,
    /// Binary logarithm of the lanes that hold the same k: rows (or columns) times blocks.
    lanes: u32,
}

impl Layout {
    fn new(rows: usize, blocks: usize, k: usize, bits: usize) -> Layout {
        let lanes = (rows * blocks).ilog2();
        let elements = k << lanes >> LANES.ilog2();
        let run = elements.ilog2() - u32::from(elements * bits == 8 * 32);
        Layout { elements, run, lanes }
    }

    fn registers(self, bits: usize) -> usize {
        (self.elements * bits).div_ceil(32)
    }

    /// The element within a lane, and the first of the lanes that hold this k.
    fn place(self, k: usize) -> (usize, usize) {
        let groups = LANES.ilog2() - self.lanes;
        let within = k & ((1 << self.run) - 1);
        let group = k >> self.run & ((1 << groups) - 1);
        (k >> (self.run + groups) << self.run | within, group << self.lanes)
    }
}

impl Matrix {
    fn output(&self) -> Output {
        match self.a {
            Element::F64 => Output::F64,
            Element::I8 => Output::I32,
            _ => Output::F32,
        }
    }

    /// Registers of C and D.
    pub fn c_registers(&self) -> usize {
        let words = if self.output() == Output::F64 { 2 } else { 1 };
        self.m * self.n * self.blocks / LANES * words
    }

    /// Where a row of the result is: its register (for float64, the first of two), and the lane of its first column.
    pub fn row(&self, block: usize, i: usize) -> (usize, usize) {
        let (height, words) = if self.output() == Output::F64 { (0, 2) } else { (2, 1) };
        // Binary logarithms: columns, groups of rows and blocks in a register, registers of a block.
        let columns = self.n.ilog2();
        let groups = LANES.ilog2() - columns;
        let blocks = (LANES.ilog2() + height).saturating_sub(columns + self.m.ilog2());
        let register = block * (self.m << columns >> LANES.ilog2());
        let register = register + (i >> (height + groups) << height) + (i & ((1 << height) - 1));
        let group = i >> height & ((1 << groups) - 1);
        let lane = (group << blocks | block & ((1 << blocks) - 1)) << columns;
        (register * words, lane)
    }

    /// The types of A and B, and the registers that they take, with these modifiers.
    pub fn operands(&self, cbsz: u8, blgp: u8) -> Option<[(Element, usize); 2]> {
        let (a, b) = self.elements(cbsz, blgp)?;
        let a_k = if self.sparse { self.k / 2 } else { self.k };
        let a_layout = Layout::new(self.m, self.blocks, a_k, a.bits());
        let b_layout = Layout::new(self.n, self.blocks, self.k, b.bits());
        Some([(a, a_layout.registers(a.bits())), (b, b_layout.registers(b.bits()))])
    }

    fn elements(&self, cbsz: u8, blgp: u8) -> Option<(Element, Element)> {
        match self.a {
            Element::Selected => Some((Element::selected(cbsz)?, Element::selected(blgp)?)),
            a => Some((a, self.b)),
        }
    }

    /// Whether the processor has the instruction.
    pub fn is_on(&self, processor: Processor) -> bool {
        match self.processors {
            Processors::Both => true,
            Processors::Only(only) => only == processor,
        }
    }

    fn fidelity(&self, processor: Processor) -> Fidelity {
        let established = processor == Processor::Gfx942 && !self.sparse;
        if self.output() == Output::I32 || established { Fidelity::Exact } else { Fidelity::Modelled }
    }

    fn grouping(&self, a: Element) -> (usize, bool) {
        match a {
            Element::Xf32 => (4, false),
            Element::F16 | Element::Bf16 => (8, false),
            _ => (16, true),
        }
    }

    /// Whether the modifiers mean something to this instruction.
    fn check(&self, inst: &Inst) -> Result<(), Fault> {
        let bits = &inst.matrix;
        let refused = |what: &str| {
            let name = self.mnemonic;
            let text = format!(
                "{name} has {what}, which this instruction does not define; the emulator needs it to be 0"
            );
            Err(Fault::Illegal(text))
        };
        let blocks_of_a = if self.broadcasts { self.blocks } else { 1 };
        if self.a == Element::Selected {
            if self.elements(bits.cbsz, bits.blgp).is_none() {
                return refused(&format!("cbsz:{} blgp:{}", bits.cbsz, bits.blgp));
            }
            return Ok(());
        }
        if !self.sparse && (1 << bits.cbsz > blocks_of_a || bits.abid >> bits.cbsz != 0) {
            return refused(&format!("cbsz:{} abid:{}", bits.cbsz, bits.abid));
        }
        if bits.blgp != 0 && !self.permutes {
            return refused(&format!("blgp:{}", bits.blgp));
        }
        Ok(())
    }
}

/// How far an instruction's result is known: `None` for one that is no matrix instruction of this processor.
pub fn fidelity(processor: Processor, mnemonic: &str) -> Option<Fidelity> {
    if mnemonic.starts_with("v_accvgpr_") {
        return Some(Fidelity::Exact);
    }
    let found = INSTRUCTIONS.iter().find(|matrix| matrix.mnemonic == mnemonic && matrix.is_on(processor));
    found.map(|matrix| matrix.fidelity(processor))
}

/// The lane whose B a lane gets.
pub fn permuted(blgp: u8, lane: usize) -> usize {
    match blgp {
        0 => lane,
        1 => lane % 32,
        2 => lane % 32 + 32,
        3 => (lane + 16) % 64,
        quarter => lane % 16 + usize::from(quarter - 4) * 16,
    }
}

/// Vector registers that an operand names.
fn registers<'a>(wave: &'a Wave<'_>, operand: Operand, count: usize) -> Result<&'a [Lanes], Fault> {
    let found = match operand {
        Operand::Vector(first) => {
            let first = usize::from(first);
            wave.v.get(first..first + count).filter(|_| first / 256 == (first + count - 1) / 256)
        }
        _ => None,
    };
    found.ok_or_else(|| Fault::Illegal(format!("{operand:?} does not name {count} vector registers")))
}

/// What is decoded of one instruction, kept by each thread so that it need not be made again.
struct Work {
    a: Side,
    b: Side,
    /// B's registers, where their lanes are permuted.
    permuted: [Lanes; 8],
    c: [Lanes; 32],
}

impl Default for Work {
    fn default() -> Work {
        let (permuted, c) = ([Lanes::ZERO; 8], [Lanes::ZERO; 32]);
        Work { a: Side::default(), b: Side::default(), permuted, c }
    }
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

fn run(matrix: &Matrix, wave: &mut Wave<'_>, inst: &Inst) -> Flow {
    let done = WORK.with_borrow_mut(|work| execute(matrix, wave, inst, work, Isa::best()));
    match done {
        Ok(()) => Flow::Next,
        Err(fault) => wave.fail(fault),
    }
}

fn execute(
    matrix: &Matrix,
    wave: &mut Wave<'_>,
    inst: &Inst,
    work: &mut Work,
    isa: Isa,
) -> Result<(), Fault> {
    matrix.check(inst)?;
    if wave.gpr_index.is_some() {
        let detail = "with registers that s_set_gpr_idx_on makes relative".to_owned();
        return Err(Fault::Uncovered { mnemonic: matrix.mnemonic, detail });
    }
    let bits = &inst.matrix;
    let operands = matrix.operands(bits.cbsz, bits.blgp);
    let [(a_type, a_count), (b_type, b_count)] =
        operands.unwrap_or_else(|| unreachable!("modifiers were checked"));
    let words = matrix.c_registers();
    let a = registers(wave, inst.src[0], a_count)?;
    let mut b = registers(wave, inst.src[1], b_count)?;
    if matrix.permutes && bits.blgp != 0 {
        for (to, from) in work.permuted.iter_mut().zip(b) {
            to.0 = std::array::from_fn(|lane| from.0[permuted(bits.blgp, lane)]);
        }
        b = &work.permuted[..b_count];
    }
    let index = match matrix.sparse {
        true => Some(&registers(wave, inst.src[2], 1)?[0]),
        false => None,
    };
    let c = if matrix.sparse { inst.dst } else { inst.src[2] };
    match c {
        Operand::Constant(value) if matrix.output() == Output::F64 => {
            for pair in work.c[..words].as_chunks_mut::<2>().0 {
                *pair = [Lanes::splat(value as u32), Lanes::splat((value >> 32) as u32)];
            }
        }
        Operand::Constant(value) => work.c[..words].fill(Lanes::splat(value as u32)),
        operand => work.c[..words].copy_from_slice(registers(wave, operand, words)?),
    }
    registers(wave, inst.dst, words)?;
    let scales = match matrix.scaled {
        true => Some([scales(wave, inst, 0)?, scales(wave, inst, 1)?]),
        false => None,
    };
    let mut task = Task {
        matrix,
        processor: wave.processor,
        types: [a_type, b_type],
        registers: [a, b],
        index,
        scales: scales.as_ref(),
        inst,
        sides: [&mut work.a, &mut work.b],
        c: &mut work.c[..words],
    };
    let task = &mut task;
    multiversion!(isa, multiply, [], (task: &mut Task<'_>) -> ());
    if let Operand::Vector(first) = inst.dst {
        let first = usize::from(first);
        wave.v[first..first + words].copy_from_slice(&work.c[..words]);
    }
    Ok(())
}

/// The exponents of A's or B's block scales by lane.
fn scales(wave: &Wave<'_>, inst: &Inst, side: usize) -> Result<[i32; LANES], Fault> {
    let exponent = |code: u32| if code == 255 { NAN_SCALE } else { code as i32 - 127 };
    let uniform = |value: u32| [exponent(value >> 23 & 255); LANES];
    match inst.matrix.scale[side] {
        Operand::Constant(value) => Ok(uniform(value as u32)),
        Operand::Scalar(register) => Ok(uniform(wave.s[usize::from(register & 127)])),
        operand => {
            let lanes = &registers(wave, operand, 1)?[0].0;
            let shift = 8 * u32::from(inst.matrix.scale_byte[side] & 3);
            Ok(std::array::from_fn(|lane| exponent(lanes[lane] >> shift & 255)))
        }
    }
}

/// One instruction with what it reads.
struct Task<'a> {
    matrix: &'a Matrix,
    processor: Processor,
    types: [Element; 2],
    registers: [&'a [Lanes]; 2],
    /// Sparse A: which elements it holds.
    index: Option<&'a Lanes>,
    scales: Option<&'a [[i32; LANES]; 2]>,
    inst: &'a Inst,
    sides: [&'a mut Side; 2],
    /// C, then D.
    c: &'a mut [Lanes],
}

#[inline(always)]
fn multiply(task: &mut Task<'_>) {
    match (task.matrix.output(), task.matrix.n) {
        (Output::F64, 4) => multiply_64::<4>(task),
        (Output::F64, _) => multiply_64::<16>(task),
        (_, 4) => multiply_32::<4>(task),
        (_, 16) => multiply_32::<16>(task),
        _ => multiply_32::<32>(task),
    }
}

/// All but float64, for N columns.
#[inline(always)]
fn multiply_32<const N: usize>(task: &mut Task<'_>) {
    let matrix = task.matrix;
    let bits = &task.inst.matrix;
    let [a_type, b_type] = task.types;
    let stored = if matrix.sparse { matrix.k / 2 } else { matrix.k };
    let a_layout = Layout::new(matrix.m, matrix.blocks, stored, a_type.bits());
    let b_layout = Layout::new(N, matrix.blocks, matrix.k, b_type.bits());
    let [a, b] = &mut task.sides;
    a.decode(a_type, task.processor, task.registers[0], a_layout.elements);
    b.decode(b_type, task.processor, task.registers[1], b_layout.elements);
    let floats = !matches!(a_type, Element::F32 | Element::I8);
    if floats {
        a.find_powers(a_type, task.processor, a_layout.elements);
        b.find_powers(b_type, task.processor, b_layout.elements);
    }
    let (length, split) = matrix.grouping(a_type);
    // Products of at most 22 bits that have 24 more below the largest are exact in float32 from here on.
    let least = f64::from(a.least) * f64::from(b.least) >= 2f64.powi(-102);
    let largest = f64::from(a.largest) * f64::from(b.largest) <= 2f64.powi(126);
    let narrow = least && largest && !a.special && !b.special;
    let grouping = Grouping { length, split, narrow };
    let (values, powers) = (b.value.as_flattened(), b.power.as_flattened());

    // Where A's elements are, as one slice over elements and lanes, and where B's rows begin.
    let (mut a_places, mut b_places) = ([0; 128], [0; 128]);
    for (k, (a_place, b_place)) in a_places.iter_mut().zip(&mut b_places).take(matrix.k).enumerate() {
        let (element, lane) = a_layout.place(k % stored);
        *a_place = element * LANES + lane;
        let (element, lane) = b_layout.place(k);
        *b_place = element * LANES + lane;
    }
    let (a_values, a_powers) = (a.value.as_flattened(), a.power.as_flattened());
    let set = if bits.cbsz == 0 { 2 * a_layout.elements * usize::from(bits.abid) % 32 } else { 0 };
    let mut terms = [Term::default(); 128];
    for block in 0..matrix.blocks {
        let from = if matrix.broadcasts {
            (block >> bits.cbsz << bits.cbsz) + usize::from(bits.abid)
        } else {
            block
        };
        for (term, at) in terms.iter_mut().zip(b_places) {
            term.at = at + block * N;
        }
        for i in 0..matrix.m {
            let first = from * matrix.m + i;
            for (term, place) in terms[..stored].iter_mut().zip(a_places) {
                let place = (place + first) % (MAX_ELEMENTS * LANES);
                (term.value, term.power) = (a_values[place], a_powers[place]);
            }
            if let Some(index) = task.index {
                for (k, term) in terms[..stored].iter_mut().enumerate() {
                    let (element, lane) = (a_places[k] / LANES, a_places[k] % LANES + first);
                    let chosen = index.0[lane] >> (set + 2 * element) & 3;
                    term.at = b_places[k / 2 * 4 + chosen as usize];
                }
            }
            let terms = &terms[..stored];
            let (register, lane) = matrix.row(block, i);
            let row = task.c[register].0[lane..].first_chunk_mut::<N>();
            let row = row.unwrap_or_else(|| unreachable!("rows of the result lie within a register"));
            if a_type == Element::I8 {
                sums::integers(terms, values, row);
                continue;
            }
            let mut c = row.map(f32::from_bits);
            if a_type == Element::F32 {
                sums::chain(terms, values, &mut c);
            } else {
                let scales_of_a: Option<[i32; 4]> = task.scales.map(|scales| {
                    std::array::from_fn(|s| scales[0].get(s * matrix.m + i).copied().unwrap_or_default())
                });
                let scales = match (&scales_of_a, task.scales) {
                    (Some(a), Some([_, b])) => Some(RowScales { a, b }),
                    _ => None,
                };
                sums::floats(terms, values, powers, grouping, scales, &mut c);
            }
            *row = c.map(f32::to_bits);
        }
    }
}

/// Float64: a chain of fused multiply-adds. The bits that are `blgp` elsewhere negate A, B and C.
#[inline(always)]
fn multiply_64<const N: usize>(task: &mut Task<'_>) {
    let matrix = task.matrix;
    let negative = |operand: u8| u64::from(task.inst.neg >> operand & 1) << 63;
    let double = |pair: &[Lanes], lane: usize, operand: u8| {
        let bits = u64::from(pair[1].0[lane]) << 32 | u64::from(pair[0].0[lane]);
        f64::from_bits(bits ^ negative(operand))
    };
    let layout = Layout::new(matrix.m, matrix.blocks, matrix.k, 64);
    for block in 0..matrix.blocks {
        for i in 0..matrix.m {
            let (register, lane) = matrix.row(block, i);
            let pair = &mut task.c[register..register + 2];
            let mut row: [f64; N] = std::array::from_fn(|j| double(pair, lane + j, 2));
            for k in 0..matrix.k {
                let (_, first) = layout.place(k);
                let a = double(task.registers[0], first + block * matrix.m + i, 0);
                for (j, c) in row.iter_mut().enumerate() {
                    *c = a.mul_add(double(task.registers[1], first + block * N + j, 1), *c);
                }
            }
            for (j, c) in row.into_iter().enumerate() {
                let bits = if c.is_nan() { 0x7ff8_0000_0000_0000 } else { c.to_bits() };
                pair[0].0[lane + j] = bits as u32;
                pair[1].0[lane + j] = (bits >> 32) as u32;
            }
        }
    }
}

/// Defines one function and one entry of [`INSTRUCTIONS`] for each matrix instruction.
macro_rules! instructions {
    ($($name:ident $processors:ident $m:literal x $n:literal x $k:literal x $blocks:literal $a:ident $b:ident
        $($flag:ident)*;)*) => {
        /// All matrix instructions.
        pub static INSTRUCTIONS: &[Matrix] = &[$(Matrix {
            mnemonic: stringify!($name),
            processors: instructions!(@$processors),
            m: $m,
            n: $n,
            k: $k,
            blocks: $blocks,
            a: Element::$a,
            b: Element::$b,
            sparse: instructions!(@sparse $($flag)*),
            broadcasts: instructions!(@broadcasts $($flag)*),
            permutes: instructions!(@permutes $($flag)*),
            scaled: instructions!(@scaled $($flag)*),
            execute: $name,
        }),*];

        /// Where each instruction is in [`INSTRUCTIONS`].
        #[expect(non_camel_case_types, reason = "the names are mnemonics")]
        #[derive(Clone, Copy)]
        enum Place { $($name),* }

        $(pub fn $name(wave: &mut Wave<'_>, inst: &Inst) -> Flow {
            run(&INSTRUCTIONS[Place::$name as usize], wave, inst)
        })*
    };
    (@both) => { Processors::Both };
    (@gfx942) => { Processors::Only(Processor::Gfx942) };
    (@gfx950) => { Processors::Only(Processor::Gfx950) };
    (@sparse sparse $($rest:ident)*) => { true };
    (@broadcasts broadcasts $($rest:ident)*) => { true };
    (@permutes permutes $($rest:ident)*) => { true };
    (@scaled scaled $($rest:ident)*) => { true };
    (@$wanted:ident $other:ident $($rest:ident)*) => { instructions!(@$wanted $($rest)*) };
    (@$wanted:ident) => { false };
}

instructions! {
    v_mfma_f64_16x16x4_f64 both 16 x 16 x 4 x 1 F64 F64;
    v_mfma_f64_4x4x4_4b_f64 both 4 x 4 x 4 x 4 F64 F64;

    v_mfma_f32_32x32x1_2b_f32 both 32 x 32 x 1 x 2 F32 F32 broadcasts permutes;
    v_mfma_f32_16x16x1_4b_f32 both 16 x 16 x 1 x 4 F32 F32 broadcasts permutes;
    v_mfma_f32_4x4x1_16b_f32 both 4 x 4 x 1 x 16 F32 F32 broadcasts permutes;
    v_mfma_f32_32x32x2_f32 both 32 x 32 x 2 x 1 F32 F32 permutes;
    v_mfma_f32_16x16x4_f32 both 16 x 16 x 4 x 1 F32 F32 permutes;

    v_mfma_f32_32x32x4_xf32 gfx942 32 x 32 x 4 x 1 Xf32 Xf32;
    v_mfma_f32_16x16x8_xf32 gfx942 16 x 16 x 8 x 1 Xf32 Xf32;

    v_mfma_f32_32x32x4_2b_f16 both 32 x 32 x 4 x 2 F16 F16 broadcasts permutes;
    v_mfma_f32_16x16x4_4b_f16 both 16 x 16 x 4 x 4 F16 F16 broadcasts permutes;
    v_mfma_f32_4x4x4_16b_f16 both 4 x 4 x 4 x 16 F16 F16 broadcasts permutes;
    v_mfma_f32_32x32x8_f16 both 32 x 32 x 8 x 1 F16 F16;
    v_mfma_f32_16x16x16_f16 both 16 x 16 x 16 x 1 F16 F16;
    v_mfma_f32_32x32x16_f16 gfx950 32 x 32 x 16 x 1 F16 F16;
    v_mfma_f32_16x16x32_f16 gfx950 16 x 16 x 32 x 1 F16 F16;

    v_mfma_f32_32x32x4_2b_bf16 both 32 x 32 x 4 x 2 Bf16 Bf16 broadcasts permutes;
    v_mfma_f32_16x16x4_4b_bf16 both 16 x 16 x 4 x 4 Bf16 Bf16 broadcasts permutes;
    v_mfma_f32_4x4x4_16b_bf16 both 4 x 4 x 4 x 16 Bf16 Bf16 broadcasts permutes;
    v_mfma_f32_32x32x8_bf16 both 32 x 32 x 8 x 1 Bf16 Bf16;
    v_mfma_f32_16x16x16_bf16 both 16 x 16 x 16 x 1 Bf16 Bf16;
    v_mfma_f32_32x32x16_bf16 gfx950 32 x 32 x 16 x 1 Bf16 Bf16;
    v_mfma_f32_16x16x32_bf16 gfx950 16 x 16 x 32 x 1 Bf16 Bf16;

    v_mfma_f32_32x32x16_fp8_fp8 both 32 x 32 x 16 x 1 Fp8 Fp8;
    v_mfma_f32_32x32x16_fp8_bf8 both 32 x 32 x 16 x 1 Fp8 Bf8;
    v_mfma_f32_32x32x16_bf8_fp8 both 32 x 32 x 16 x 1 Bf8 Fp8;
    v_mfma_f32_32x32x16_bf8_bf8 both 32 x 32 x 16 x 1 Bf8 Bf8;
    v_mfma_f32_16x16x32_fp8_fp8 both 16 x 16 x 32 x 1 Fp8 Fp8;
    v_mfma_f32_16x16x32_fp8_bf8 both 16 x 16 x 32 x 1 Fp8 Bf8;
    v_mfma_f32_16x16x32_bf8_fp8 both 16 x 16 x 32 x 1 Bf8 Fp8;
    v_mfma_f32_16x16x32_bf8_bf8 both 16 x 16 x 32 x 1 Bf8 Bf8;

    v_mfma_i32_32x32x4_2b_i8 both 32 x 32 x 4 x 2 I8 I8 broadcasts permutes;
    v_mfma_i32_16x16x4_4b_i8 both 16 x 16 x 4 x 4 I8 I8 broadcasts permutes;
    v_mfma_i32_4x4x4_16b_i8 both 4 x 4 x 4 x 16 I8 I8 broadcasts permutes;
    v_mfma_i32_32x32x16_i8 both 32 x 32 x 16 x 1 I8 I8;
    v_mfma_i32_16x16x32_i8 both 16 x 16 x 32 x 1 I8 I8;
    v_mfma_i32_32x32x32_i8 gfx950 32 x 32 x 32 x 1 I8 I8;
    v_mfma_i32_16x16x64_i8 gfx950 16 x 16 x 64 x 1 I8 I8;

    v_mfma_f32_16x16x128_f8f6f4 gfx950 16 x 16 x 128 x 1 Selected Selected;
    v_mfma_f32_32x32x64_f8f6f4 gfx950 32 x 32 x 64 x 1 Selected Selected;
    v_mfma_scale_f32_16x16x128_f8f6f4 gfx950 16 x 16 x 128 x 1 Selected Selected scaled;
    v_mfma_scale_f32_32x32x64_f8f6f4 gfx950 32 x 32 x 64 x 1 Selected Selected scaled;

    v_smfmac_f32_16x16x32_f16 both 16 x 16 x 32 x 1 F16 F16 sparse;
    v_smfmac_f32_32x32x16_f16 both 32 x 32 x 16 x 1 F16 F16 sparse;
    v_smfmac_f32_16x16x32_bf16 both 16 x 16 x 32 x 1 Bf16 Bf16 sparse;
    v_smfmac_f32_32x32x16_bf16 both 32 x 32 x 16 x 1 Bf16 Bf16 sparse;
    v_smfmac_i32_16x16x64_i8 both 16 x 16 x 64 x 1 I8 I8 sparse;
    v_smfmac_i32_32x32x32_i8 both 32 x 32 x 32 x 1 I8 I8 sparse;
    v_smfmac_f32_16x16x64_fp8_fp8 both 16 x 16 x 64 x 1 Fp8 Fp8 sparse;
    v_smfmac_f32_16x16x64_fp8_bf8 both 16 x 16 x 64 x 1 Fp8 Bf8 sparse;
    v_smfmac_f32_16x16x64_bf8_fp8 both 16 x 16 x 64 x 1 Bf8 Fp8 sparse;
    v_smfmac_f32_16x16x64_bf8_bf8 both 16 x 16 x 64 x 1 Bf8 Bf8 sparse;
    v_smfmac_f32_32x32x32_fp8_fp8 both 32 x 32 x 32 x 1 Fp8 Fp8 sparse;
    v_smfmac_f32_32x32x32_fp8_bf8 both 32 x 32 x 32 x 1 Fp8 Bf8 sparse;
    v_smfmac_f32_32x32x32_bf8_fp8 both 32 x 32 x 32 x 1 Bf8 Fp8 sparse;
    v_smfmac_f32_32x32x32_bf8_bf8 both 32 x 32 x 32 x 1 Bf8 Bf8 sparse;

    v_smfmac_f32_16x16x64_f16 gfx950 16 x 16 x 64 x 1 F16 F16 sparse;
    v_smfmac_f32_32x32x32_f16 gfx950 32 x 32 x 32 x 1 F16 F16 sparse;
    v_smfmac_f32_16x16x64_bf16 gfx950 16 x 16 x 64 x 1 Bf16 Bf16 sparse;
    v_smfmac_f32_32x32x32_bf16 gfx950 32 x 32 x 32 x 1 Bf16 Bf16 sparse;
    v_smfmac_i32_16x16x128_i8 gfx950 16 x 16 x 128 x 1 I8 I8 sparse;
    v_smfmac_i32_32x32x64_i8 gfx950 32 x 32 x 64 x 1 I8 I8 sparse;
    v_smfmac_f32_16x16x128_fp8_fp8 gfx950 16 x 16 x 128 x 1 Fp8 Fp8 sparse;
    v_smfmac_f32_16x16x128_fp8_bf8 gfx950 16 x 16 x 128 x 1 Fp8 Bf8 sparse;
    v_smfmac_f32_16x16x128_bf8_fp8 gfx950 16 x 16 x 128 x 1 Bf8 Fp8 sparse;
    v_smfmac_f32_16x16x128_bf8_bf8 gfx950 16 x 16 x 128 x 1 Bf8 Bf8 sparse;
    v_smfmac_f32_32x32x64_fp8_fp8 gfx950 32 x 32 x 64 x 1 Fp8 Fp8 sparse;
    v_smfmac_f32_32x32x64_fp8_bf8 gfx950 32 x 32 x 64 x 1 Fp8 Bf8 sparse;
    v_smfmac_f32_32x32x64_bf8_fp8 gfx950 32 x 32 x 64 x 1 Bf8 Fp8 sparse;
    v_smfmac_f32_32x32x64_bf8_bf8 gfx950 32 x 32 x 64 x 1 Bf8 Bf8 sparse;
}

/// A move within the vector registers, or of a scalar or constant into them; EXEC masks it.
fn copy(wave: &mut Wave<'_>, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let source = match inst.src[0] {
        Operand::Constant(value) => Ok(Lanes::splat(value as u32)),
        Operand::Scalar(register) => Ok(Lanes::splat(wave.s[usize::from(register & 127)])),
        operand => registers(wave, operand, 1).map(|registers| registers[0]),
    };
    let source = match source {
        Ok(source) => source,
        Err(fault) => return wave.fail(fault),
    };
    let Operand::Vector(to) = inst.dst else {
        return wave.fail(Fault::Illegal(format!("{:?} is no vector register", inst.dst)));
    };
    let mask = *wave.mask();
    let Some(to) = wave.v.get_mut(usize::from(to)) else {
        return wave.fail(Fault::Illegal(format!("{:?} is no vector register", inst.dst)));
    };
    for lane in 0..LANES {
        to.0[lane] = to.0[lane] & !mask.0[lane] | source.0[lane] & mask.0[lane];
    }
    Flow::Next
}

pub fn v_accvgpr_read_b32(wave: &mut Wave<'_>, inst: &Inst) -> Flow {
    copy(wave, inst)
}

pub fn v_accvgpr_write_b32(wave: &mut Wave<'_>, inst: &Inst) -> Flow {
    copy(wave, inst)
}

pub fn v_accvgpr_mov_b32(wave: &mut Wave<'_>, inst: &Inst) -> Flow {
    copy(wave, inst)
}

/// Holds block scales for the matrix instruction right after it, with which it is one instruction in machine code
/// (`v_mfma_scale_*`). Alone it scales nothing, which no compiler writes.
pub fn v_mfma_ld_scale_b32(wave: &mut Wave<'_>, _inst: &Inst) -> Flow {
    wave.fail(Fault::Illegal(
        "v_mfma_ld_scale_b32 is not followed by a v_mfma_*_f8f6f4, so it scales nothing".to_owned(),
    ))
}
