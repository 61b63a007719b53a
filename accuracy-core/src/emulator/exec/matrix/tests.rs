use super::super::super::isa::{Encoding, MatrixBits};
use super::super::super::memory::{Group, Space};
use super::super::super::wave::GprIndex;
use super::*;

const A: u16 = 0;
const B: u16 = 16;
const INDEX: u16 = 32;
const SCALES: [u16; 2] = [33, 34];
const C: u16 = 256;
const D: u16 = 320;

fn instruction(dst: Operand, src: [Operand; 3], matrix: MatrixBits) -> Inst {
    Inst {
        execute: v_accvgpr_mov_b32,
        size: 8,
        dst,
        src: [src[0], src[1], src[2], Operand::None],
        matrix,
        ..Inst::new(crate::emulator::isa::table::row("v_accvgpr_mov_b32").unwrap(), Encoding::Mai)
    }
}

fn usual(matrix: &Matrix, bits: MatrixBits) -> Inst {
    let (a, b) = (Operand::Vector(A), Operand::Vector(B));
    let bits = MatrixBits { scale: SCALES.map(Operand::Vector), ..bits };
    match matrix.sparse {
        true => instruction(Operand::Vector(C), [a, b, Operand::Vector(INDEX)], bits),
        false => instruction(Operand::Vector(D), [a, b, Operand::Vector(C)], bits),
    }
}

fn find(mnemonic: &str) -> &'static Matrix {
    INSTRUCTIONS.iter().find(|matrix| matrix.mnemonic == mnemonic).unwrap()
}

fn on_wave<T>(processor: Processor, f: impl FnOnce(&mut Wave<'_>) -> T) -> T {
    let space = Space::default();
    let group = Group::new(&space, Box::default(), [0; 3]);
    f(&mut Wave::new(processor, &group, 0, 0))
}

fn random(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as u32
}

const BOTH: [Processor; 2] = [Processor::Gfx942, Processor::Gfx950];

/// Codes of -2, -1, 0, 1 and 2.
fn small_integer(element: Element, processor: Processor, value: i32) -> u64 {
    let fnuz = processor == Processor::Gfx942;
    let float = match element {
        Element::F64 => return f64::from(value).to_bits(),
        Element::I8 => return u64::from(value as i8 as u8),
        Element::F32 | Element::Xf32 => return u64::from((value as f32).to_bits()),
        Element::Bf16 => return u64::from((value as f32).to_bits() >> 16),
        Element::F16 => [0x3c00, 0x4000, 0x8000],
        Element::Fp8 if fnuz => [0x40, 0x48, 0x80],
        Element::Bf8 if fnuz => [0x40, 0x44, 0x80],
        Element::Fp8 => [0x38, 0x40, 0x80],
        Element::Bf8 => [0x3c, 0x40, 0x80],
        Element::Fp6 => [0x08, 0x10, 0x20],
        Element::Bf6 => [0x0c, 0x10, 0x20],
        Element::Fp4 => [0x2, 0x4, 0x8],
        Element::Selected => unreachable!("a format was selected"),
    };
    match value {
        0 => 0,
        1 | 2 => float[value as usize - 1],
        _ => float[-value as usize - 1] | float[2],
    }
}

/// Writes the code of one element of a lane.
fn put(wave: &mut Wave<'_>, first: u16, lane: usize, element: usize, bits: usize, code: u64) {
    for bit in 0..bits {
        let at = element * bits + bit;
        let word = &mut wave.v[usize::from(first) + at / 32].0[lane];
        *word = *word & !(1 << (at % 32)) | ((code >> bit & 1) as u32) << (at % 32);
    }
}

/// Lane and element of A[block][i][k], as AMD's calculator computes them.
fn place(
    rows: usize,
    size: usize,
    blocks: usize,
    bits: usize,
    block: usize,
    i: usize,
    k: usize,
) -> (usize, usize) {
    let held = size / (64 / (rows * blocks));
    let (run, half) = match held * bits {
        256 => (held / 2, size / 2),
        _ => (held, size),
    };
    let within = k % half;
    (within / run * rows * blocks + block * rows + i, k / half * run + within % run)
}

#[test]
fn every_instruction_multiplies_matrices_of_small_integers() {
    let mut state = 3;
    for processor in BOTH {
        for matrix in INSTRUCTIONS.iter().filter(|matrix| matrix.is_on(processor)) {
            let codes: &[u8] = if matrix.a == Element::Selected { &[0, 1, 2, 3, 4] } else { &[0] };
            for (cbsz, blgp) in codes.iter().flat_map(|a| codes.iter().map(move |b| (*a, *b))) {
                multiply_small_integers(&mut state, processor, matrix, cbsz, blgp);
            }
        }
    }
}

fn multiply_small_integers(state: &mut u64, processor: Processor, matrix: &Matrix, cbsz: u8, blgp: u8) {
    let [(a_type, _), (b_type, _)] = matrix.operands(cbsz, blgp).unwrap();
    let Matrix { m, n, k, blocks, .. } = *matrix;
    let mut integer = || random(state) as i32 % 5 / 2;
    on_wave(processor, |wave| {
        let mut a = vec![0; blocks * m * k];
        let mut b = vec![0; blocks * n * k];
        for block in 0..blocks {
            for (i, k1) in (0..m).flat_map(|i| (0..k).map(move |k1| (i, k1))) {
                if matrix.sparse {
                    // Of four elements the second and the last are there.
                    let (lane, element) = place(m, k / 2, 1, a_type.bits(), 0, i, k1 / 2);
                    put(wave, INDEX, lane, element, 2, [1, 3][element % 2]);
                    if k1 % 2 == 0 {
                        continue;
                    }
                }
                let value = integer();
                a[(block * m + i) * k + k1] = value;
                let (stored, size) = if matrix.sparse { (k1 / 2, k / 2) } else { (k1, k) };
                let (lane, element) = place(m, size, blocks, a_type.bits(), block, i, stored);
                put(wave, A, lane, element, a_type.bits(), small_integer(a_type, processor, value));
            }
            for (j, k1) in (0..n).flat_map(|j| (0..k).map(move |k1| (j, k1))) {
                let value = integer();
                b[(block * n + j) * k + k1] = value;
                let (lane, element) = place(n, k, blocks, b_type.bits(), block, j, k1);
                put(wave, B, lane, element, b_type.bits(), small_integer(b_type, processor, value));
            }
        }
        wave.v[usize::from(SCALES[0])] = Lanes::splat(127 + 3);
        wave.v[usize::from(SCALES[1])] = Lanes::splat(127 - 2);
        let inst = usual(matrix, MatrixBits { cbsz, blgp, ..MatrixBits::default() });
        assert_eq!((matrix.execute)(wave, &inst), Flow::Next, "{:?}", wave.fault);
        let Operand::Vector(first) = inst.dst else { unreachable!("a result is in registers") };
        for block in 0..blocks {
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (register, lane) = matrix.row(block, i);
                let register = usize::from(first) + register;
                let bits = wave.v[register].0[lane + j];
                let found = match matrix.output() {
                    Output::F32 => f64::from(f32::from_bits(bits)),
                    Output::I32 => f64::from(bits as i32),
                    Output::F64 => {
                        f64::from_bits(u64::from(wave.v[register + 1].0[lane + j]) << 32 | u64::from(bits))
                    }
                };
                let (a, b) = (&a[(block * m + i) * k..][..k], &b[(block * n + j) * k..][..k]);
                let sum: i32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let scale = if matrix.scaled { 2.0 } else { 1.0 };
                let name = matrix.mnemonic;
                assert_eq!(
                    found,
                    f64::from(sum) * scale,
                    "{name} {cbsz} {blgp} block {block} row {i} column {j}"
                );
            }
        }
    });
}

/// Rows of the result, as AMD's calculator places them.
#[test]
fn results_are_where_the_calculator_says() {
    for matrix in INSTRUCTIONS {
        let (height, words) = if matrix.output() == Output::F64 { (1, 2) } else { (4, 1) };
        let (m, n) = (matrix.m, matrix.n);
        for (block, i) in (0..matrix.blocks).flat_map(|block| (0..m).map(move |i| (block, i))) {
            let groups = 64 / n;
            let blocks = 64usize.div_ceil(n * m / height);
            let register = block * (m * n / 64) + i / (height * groups) * height + i % height;
            let lane = (block % blocks) * n + (i / height) % groups * blocks * n;
            assert_eq!(matrix.row(block, i), (register * words, lane), "{} {block} {i}", matrix.mnemonic);
        }
    }
}

#[test]
fn all_vector_instruction_sets_give_the_same_bits() {
    let mut state = 11;
    for processor in BOTH {
        for matrix in INSTRUCTIONS.iter().filter(|matrix| matrix.is_on(processor)) {
            for round in 0..4 {
                on_wave(processor, |wave| {
                    // Any bits in the first round, later numbers of similar size.
                    let mask = if round == 0 { u32::MAX } else { 0xbb3f_bb3f };
                    for register in wave.v.iter_mut() {
                        register.0 = std::array::from_fn(|_| random(&mut state) & mask);
                    }
                    let inst = usual(matrix, MatrixBits::default());
                    let before = wave.v.clone();
                    let mut results = Vec::new();
                    for isa in Isa::available() {
                        *wave.v = *before;
                        execute(matrix, wave, &inst, &mut Work::default(), isa).unwrap();
                        results.push((isa, wave.v.clone()));
                    }
                    for (isa, result) in &results {
                        assert!(*result == results[0].1, "{} on {isa:?}, round {round}", matrix.mnemonic);
                    }
                });
            }
        }
    }
}

/// The first result of an instruction whose first row and column are these, all else being zero.
fn dot(mnemonic: &str, processor: Processor, a: &[u64], b: &[u64], c: f32) -> f32 {
    let matrix = find(mnemonic);
    on_wave(processor, |wave| {
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            for (first, rows, code) in [(A, matrix.m, *a), (B, matrix.n, *b)] {
                let bits = matrix.a.bits();
                let (lane, element) = place(rows, matrix.k, matrix.blocks, bits, 0, 0, k);
                put(wave, first, lane, element, bits, code);
            }
        }
        wave.v[usize::from(C)].0[0] = c.to_bits();
        let inst = usual(matrix, MatrixBits::default());
        assert_eq!((matrix.execute)(wave, &inst), Flow::Next, "{:?}", wave.fault);
        f32::from_bits(wave.v[usize::from(D)].0[0])
    })
}

fn bf16(value: f32) -> u64 {
    u64::from(value.to_bits() >> 16)
}

#[test]
fn products_are_cut_off_at_24_bits_below_the_largest() {
    let dot =
        |a: [f32; 3], c| dot("v_mfma_f32_16x16x16_bf16", Processor::Gfx942, &a.map(bf16), &[bf16(1.0); 3], c);
    let bit = |exponent| 2f32.powi(exponent);
    assert_eq!(dot([1.0, bit(-24), -1.0], 0.0), bit(-24));
    assert_eq!(dot([1.0, bit(-25), -1.0], 0.0), 0.0);
    // Toward zero on both sides.
    assert_eq!(dot([1.0, -bit(-25), -1.0], 0.0), 0.0);
    // The accumulator goes down.
    assert_eq!(dot([1.0, -1.0, 0.0], bit(-26)), 0.0);
    assert_eq!(dot([1.0, -1.0, 0.0], -bit(-26)), -bit(-24));
}

#[test]
fn a_product_beyond_float32_is_infinite() {
    let huge = bf16(2f32.powi(100));
    let dot = |a: &[u64], b: &[u64]| dot("v_mfma_f32_16x16x16_bf16", Processor::Gfx942, a, b, 0.0);
    let minus = huge | 0x8000;
    assert_eq!(dot(&[huge], &[huge]), f32::INFINITY);
    assert_eq!(dot(&[minus], &[huge]), f32::NEG_INFINITY);
    assert!(dot(&[minus, huge], &[huge, huge]).is_nan());
    // A sum that is too large becomes infinite by rounding.
    let below = bf16(2f32.powi(64));
    let less = bf16(1.75 * 2f32.powi(63));
    assert_eq!(dot(&[below, below], &[less, less]), f32::INFINITY);
}

#[test]
fn fp8_drops_an_accumulator_that_is_far_below() {
    // FNUZ: 0x40 is 1, 0xc0 is -1. The accumulator is 25 and 26 places below.
    let dot =
        |c| dot("v_mfma_f32_16x16x32_fp8_fp8", Processor::Gfx942, &[0x40, 0x40, 0xc0, 0xc0], &[0x40; 4], c);
    assert_eq!(dot(-2f32.powi(-25)), -2f32.powi(-24));
    assert_eq!(dot(-2f32.powi(-26)), 0.0);
    assert_eq!(dot(2f32.powi(-24)), 2f32.powi(-24));
}

#[test]
fn fp8_is_fnuz_on_gfx942_and_ocp_on_gfx950() {
    let name = "v_mfma_f32_16x16x32_fp8_fp8";
    assert_eq!(dot(name, Processor::Gfx942, &[0x38], &[0x38], 0.0), 0.25);
    assert_eq!(dot(name, Processor::Gfx950, &[0x38], &[0x38], 0.0), 1.0);
    assert!(dot(name, Processor::Gfx942, &[0x80], &[0x38], 0.0).is_nan());
    assert_eq!(dot(name, Processor::Gfx950, &[0x80], &[0x38], 0.0), 0.0);
    assert!(dot(name, Processor::Gfx950, &[0x7f], &[0x38], 0.0).is_nan());
}

#[test]
fn xf32_takes_19_bits() {
    let name = "v_mfma_f32_16x16x8_xf32";
    let a = u64::from((1.0 + 2f32.powi(-10) + 2f32.powi(-11)).to_bits());
    let one = u64::from(1f32.to_bits());
    assert_eq!(dot(name, Processor::Gfx942, &[a], &[one], 0.0), 1.0 + 2f32.powi(-10));
}

#[test]
fn a_scale_belongs_to_a_row_and_32_of_k() {
    // fp8 in lane group g, register half h: k = 64 h + 16 g + 0 to 15, so its scale is that of block 2 h + g / 2.
    let matrix = find("v_mfma_scale_f32_16x16x128_f8f6f4");
    for (half, group) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)] {
        on_wave(Processor::Gfx950, |wave| {
            let row = 5;
            put(wave, A, group * 16 + row, half * 16 + 7, 8, 0x38);
            for lane in 0..LANES {
                for element in 0..32 {
                    put(wave, B, lane, element, 8, 0x38);
                }
            }
            // The scales are in byte 2: 2^lane for A; byte 1: 2^-1 for B.
            wave.v[usize::from(SCALES[0])] =
                Lanes(std::array::from_fn(|lane| (127 + lane as u32) << 16 | 0xff00_ffff));
            wave.v[usize::from(SCALES[1])] = Lanes::splat(0xffff_7eff);
            let mut inst = usual(matrix, MatrixBits::default());
            inst.matrix.scale_byte = [2, 1];
            assert_eq!((matrix.execute)(wave, &inst), Flow::Next, "{:?}", wave.fault);
            let (register, lane) = matrix.row(0, row);
            let found = f32::from_bits(wave.v[usize::from(D) + register].0[lane]);
            let expected = (2 * half + group / 2) * 16 + row;
            assert_eq!(found, 2f32.powi(expected as i32 - 1), "half {half} group {group}");
            // A scale outside of the vector registers is the exponent of a float32.
            inst.matrix.scale[0] = Operand::Constant(u64::from(4f32.to_bits()));
            assert_eq!((matrix.execute)(wave, &inst), Flow::Next, "{:?}", wave.fault);
            assert_eq!(f32::from_bits(wave.v[usize::from(D) + register].0[lane]), 2.0);
        });
    }
}

#[test]
fn exec_masks_moves_and_no_products() {
    on_wave(Processor::Gfx942, |wave| {
        wave.set_exec(2);
        wave.v[usize::from(C)] = Lanes::splat(7);
        let matrix = find("v_mfma_i32_16x16x32_i8");
        assert_eq!((matrix.execute)(wave, &usual(matrix, MatrixBits::default())), Flow::Next);
        assert_eq!(wave.v[usize::from(D)], Lanes::splat(7));

        let move_ = instruction(
            Operand::Vector(300),
            [Operand::Constant(9), Operand::None, Operand::None],
            MatrixBits::default(),
        );
        assert_eq!(v_accvgpr_write_b32(wave, &move_), Flow::Next);
        let mut expected = Lanes::ZERO;
        expected.0[1] = 9;
        assert_eq!(wave.v[300], expected);
        let back = instruction(
            Operand::Vector(3),
            [Operand::Vector(300), Operand::None, Operand::None],
            MatrixBits::default(),
        );
        assert_eq!(v_accvgpr_read_b32(wave, &back), Flow::Next);
        assert_eq!(wave.v[3], expected);
    });
}

#[test]
fn register_indexing_reaches_the_accumulation_registers() {
    on_wave(Processor::Gfx950, |wave| {
        wave.v[256 + 9] = Lanes::splat(5);
        wave.s[124] = 8;
        wave.gpr_index = Some(GprIndex { enable: 1 });
        let back = |from| {
            let src = [Operand::Vector(from), Operand::None, Operand::None];
            instruction(Operand::Vector(3), src, MatrixBits::default())
        };
        assert_eq!(v_accvgpr_read_b32(wave, &back(256 + 1)), Flow::Next);
        assert_eq!((wave.v[3], wave.gpr_index), (Lanes::splat(5), Some(GprIndex { enable: 1 })));
        assert_eq!(v_accvgpr_read_b32(wave, &back(256 + 250)), Flow::Fault);
        let fault = wave.fault.take().map(|fault| fault.to_string()).unwrap_or_default();
        assert!(fault.contains("a258; the last one is a255"), "{fault}");
    });
}

#[test]
fn constants_serve_as_accumulator() {
    on_wave(Processor::Gfx942, |wave| {
        let matrix = find("v_mfma_f32_16x16x16_f16");
        let mut inst = usual(matrix, MatrixBits::default());
        inst.src[2] = Operand::Constant(u64::from((-4f32).to_bits()));
        assert_eq!((matrix.execute)(wave, &inst), Flow::Next);
        assert_eq!(wave.v[usize::from(D) + 3], Lanes::splat((-4f32).to_bits()));
        let matrix = find("v_mfma_f64_16x16x4_f64");
        let mut inst = usual(matrix, MatrixBits::default());
        inst.src[2] = Operand::Constant(0.5f64.to_bits());
        // The third bit negates C.
        inst.neg = 4;
        assert_eq!((matrix.execute)(wave, &inst), Flow::Next);
        assert_eq!(wave.v[usize::from(D) + 7], Lanes::splat(((-0.5f64).to_bits() >> 32) as u32));
    });
}

#[test]
fn what_an_instruction_does_not_define_is_refused() {
    let refused = |mnemonic: &str, cbsz, abid, blgp| {
        on_wave(Processor::Gfx950, |wave| {
            let matrix = find(mnemonic);
            let inst = usual(matrix, MatrixBits { cbsz, abid, blgp, ..MatrixBits::default() });
            (matrix.execute)(wave, &inst) == Flow::Fault && wave.fault.is_some()
        })
    };
    assert!(refused("v_mfma_f32_16x16x32_fp8_fp8", 1, 0, 0));
    assert!(refused("v_mfma_f32_16x16x32_fp8_fp8", 0, 0, 1));
    assert!(refused("v_mfma_f32_4x4x4_16b_f16", 2, 4, 0));
    assert!(!refused("v_mfma_f32_4x4x4_16b_f16", 2, 3, 7));
    assert!(refused("v_mfma_f32_16x16x128_f8f6f4", 5, 0, 0));
    on_wave(Processor::Gfx950, |wave| {
        let matrix = find("v_mfma_f32_32x32x16_bf16");
        let mut inst = usual(matrix, MatrixBits::default());
        inst.src[0] = Operand::Vector(254);
        assert_eq!((matrix.execute)(wave, &inst), Flow::Fault);
    });
}

#[test]
fn only_what_is_established_counts_as_exact() {
    use Processor::{Gfx942, Gfx950};
    assert_eq!(fidelity(Gfx942, "v_mfma_f32_16x16x32_fp8_fp8"), Some(Fidelity::Exact));
    assert_eq!(fidelity(Gfx950, "v_mfma_f32_16x16x32_fp8_fp8"), Some(Fidelity::Modelled));
    assert_eq!(fidelity(Gfx942, "v_smfmac_f32_16x16x32_f16"), Some(Fidelity::Modelled));
    assert_eq!(fidelity(Gfx950, "v_mfma_i32_16x16x64_i8"), Some(Fidelity::Exact));
    assert_eq!(fidelity(Gfx942, "v_mfma_i32_16x16x64_i8"), None);
    assert_eq!(fidelity(Gfx942, "v_add_f32"), None);
}
