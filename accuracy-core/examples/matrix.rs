//! Matrix instructions of the emulator on standard streams, for comparison with other implementations:
//!
//! `matrix list` writes all instructions, one a line, with a head that names the columns.
//! `matrix run PROCESSOR MNEMONIC [NAME=VALUE ...]` executes an instruction for each tile that it reads: registers of 64
//! little-endian u32, those of A, B, C, then the index register (sparse) or the scales of A and B (scaled). It writes
//! the registers of D. Names: cbsz, abid, blgp, neg, scale_a, scale_b.
//! `matrix bench [WORD]` writes the time of common instructions, of those with a word in their name.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use accuracy_core::emulator::exec::matrix::{INSTRUCTIONS, Matrix, fidelity};
use accuracy_core::emulator::isa::{Encoding, Inst, MatrixBits, Operand, Processor, table};
use accuracy_core::emulator::memory::{Group, Space};
use accuracy_core::emulator::wave::{Flow, LANES, Lanes, Wave};

/// Where the operands are: the first register of each.
const A: u16 = 0;
const B: u16 = 16;
const INDEX: u16 = 32;
const SCALES: [u16; 2] = [33, 34];
const C: u16 = 256;
const D: u16 = 320;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match *args {
        ["list"] => list(),
        ["run", processor, mnemonic, ref settings @ ..] => run(processor, mnemonic, settings),
        ["bench"] => bench(""),
        ["bench", word] => bench(word),
        _ => Err("usage: matrix list | run PROCESSOR MNEMONIC [NAME=VALUE ...] | bench [WORD]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("matrix: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

const PROCESSORS: [(&str, Processor); 2] = [("gfx942", Processor::Gfx942), ("gfx950", Processor::Gfx950)];

fn list() -> Done {
    println!("processor mnemonic m n k blocks a b sparse scaled fidelity");
    for (name, processor) in PROCESSORS {
        for matrix in INSTRUCTIONS.iter().filter(|matrix| matrix.is_on(processor)) {
            let Matrix { mnemonic, m, n, k, blocks, a, b, sparse, scaled, .. } = matrix;
            let known = fidelity(processor, mnemonic).ok_or("an instruction without a fidelity")?;
            println!("{name} {mnemonic} {m} {n} {k} {blocks} {a:?} {b:?} {sparse} {scaled} {known:?}");
        }
    }
    Ok(())
}

fn instruction(matrix: &Matrix, bits: MatrixBits, neg: u8) -> Inst {
    let row =
        table::row(matrix.mnemonic).unwrap_or_else(|| panic!("{} is not in the table", matrix.mnemonic));
    let (dst, c) = match matrix.sparse {
        true => (Operand::Vector(C), Operand::Vector(INDEX)),
        false => (Operand::Vector(D), Operand::Vector(C)),
    };
    Inst {
        execute: matrix.execute,
        size: 8,
        dst,
        src: [Operand::Vector(A), Operand::Vector(B), c, Operand::None],
        neg,
        matrix: bits,
        ..Inst::new(row, Encoding::Mai)
    }
}

fn find(mnemonic: &str) -> Result<&'static Matrix, String> {
    let found = INSTRUCTIONS.iter().find(|matrix| matrix.mnemonic == mnemonic);
    found.ok_or_else(|| format!("{mnemonic} is no matrix instruction; `matrix list` writes all of them"))
}

fn run(processor: &str, mnemonic: &str, settings: &[&str]) -> Done {
    let (_, processor) =
        PROCESSORS.into_iter().find(|(name, _)| *name == processor).ok_or("no such processor")?;
    let matrix = find(mnemonic)?;
    let mut bits = MatrixBits { scale: SCALES.map(Operand::Vector), ..MatrixBits::default() };
    let mut neg = 0;
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("a setting is written NAME=VALUE")?;
        let value: u8 = value.parse()?;
        match name {
            "cbsz" => bits.cbsz = value,
            "abid" => bits.abid = value,
            "blgp" => bits.blgp = value,
            "neg" => neg = value,
            "scale_a" => bits.scale_byte[0] = value,
            "scale_b" => bits.scale_byte[1] = value,
            _ => return Err(format!("there is no setting {name}").into()),
        }
    }
    let inst = instruction(matrix, bits, neg);
    let [(_, a), (_, b)] = matrix.operands(bits.cbsz, bits.blgp).ok_or("cbsz or blgp names no format")?;
    let c = matrix.c_registers();
    let mut parts = vec![(A, a), (B, b), (C, c)];
    if matrix.sparse {
        parts.push((INDEX, 1));
    }
    if matrix.scaled {
        parts.extend(SCALES.map(|register| (register, 1)));
    }
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    let tile = parts.iter().map(|(_, count)| count * LANES * 4).sum::<usize>();
    if input.len() % tile != 0 {
        return Err(format!("{} bytes are not whole tiles of {tile}", input.len()).into());
    }
    let mut out = Vec::new();
    let space = Space::default();
    let group = Group::new(&space, Box::default(), [0; 3]);
    let mut wave = Wave::new(processor, &group, 0, 0xdead_beef);
    let (words, _) = input.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    for _ in 0..input.len() / tile {
        for (first, count) in &parts {
            for register in &mut wave.v[usize::from(*first)..][..*count] {
                *register = Lanes(std::array::from_fn(|_| words.next().unwrap_or_default()));
            }
        }
        if (inst.execute)(&mut wave, &inst) != Flow::Next {
            return Err(wave.fault.map_or("no fault is told".into(), |fault| fault.to_string().into()));
        }
        let Operand::Vector(first) = inst.dst else { return Err("the result has no registers".into()) };
        for register in &wave.v[usize::from(first)..][..c] {
            out.extend(register.0.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
    io::stdout().write_all(&out)?;
    Ok(())
}

/// Random numbers of common magnitude: small bytes for 8 bits, exponents around 0 for the others.
fn fill(wave: &mut Wave<'_>, matrix: &Matrix) {
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32
    };
    let sixteen = matrix.mnemonic.ends_with("f16");
    for register in &mut wave.v[..256] {
        register.0 = std::array::from_fn(|_| match sixteen {
            true => random() & 0x87ff_87ff | 0x3800_3800,
            false => random() & 0x3f3f_3f3f,
        });
    }
    for register in SCALES {
        wave.v[usize::from(register)] = Lanes::splat(0x7f7f_7f7f);
    }
    for register in &mut wave.v[256..] {
        register.0 = std::array::from_fn(|_| (random() as i32 as f32 * 1e-9).to_bits());
    }
}

fn bench(word: &str) -> Done {
    let common = [
        (Processor::Gfx942, "v_mfma_f32_16x16x32_fp8_fp8", 0),
        (Processor::Gfx942, "v_mfma_f32_16x16x16_bf16", 0),
        (Processor::Gfx942, "v_mfma_f32_16x16x16_f16", 0),
        (Processor::Gfx942, "v_mfma_i32_16x16x32_i8", 0),
        (Processor::Gfx942, "v_mfma_f32_16x16x4_f32", 0),
        (Processor::Gfx942, "v_mfma_f64_16x16x4_f64", 0),
        (Processor::Gfx942, "v_mfma_f32_4x4x4_16b_f16", 0),
        (Processor::Gfx950, "v_mfma_f32_32x32x16_bf16", 0),
        (Processor::Gfx950, "v_mfma_f32_16x16x32_bf16", 0),
        (Processor::Gfx950, "v_mfma_f32_16x16x128_f8f6f4", 0),
        (Processor::Gfx950, "v_mfma_scale_f32_16x16x128_f8f6f4", 0),
        (Processor::Gfx950, "v_mfma_scale_f32_16x16x128_f8f6f4", 4),
        (Processor::Gfx950, "v_smfmac_f32_16x16x64_f16", 0),
    ];
    println!("{:38} {:>8} {:>24}", "instruction", "ns", "10^9 multiply-adds a s");
    for (processor, mnemonic, format) in common.into_iter().filter(|(_, mnemonic, _)| mnemonic.contains(word))
    {
        let matrix = find(mnemonic)?;
        let scale = SCALES.map(Operand::Vector);
        let bits = MatrixBits { cbsz: format, blgp: format, scale, ..MatrixBits::default() };
        let inst = instruction(matrix, bits, 0);
        let space = Space::default();
        let group = Group::new(&space, Box::default(), [0; 3]);
        let mut wave = Wave::new(processor, &group, 0, 0);
        fill(&mut wave, matrix);
        let mut best = f64::INFINITY;
        // Short ones, so that other programs interrupt few of them.
        for _ in 0..400 {
            let start = Instant::now();
            for _ in 0..20 {
                if (inst.execute)(&mut wave, &inst) != Flow::Next {
                    return Err(wave
                        .fault
                        .map_or("no fault is told".into(), |fault| fault.to_string().into()));
                }
            }
            best = best.min(start.elapsed().as_secs_f64() * 5e7);
        }
        let stored = if matrix.sparse { matrix.k / 2 } else { matrix.k };
        let products = (matrix.m * matrix.n * stored * matrix.blocks) as f64;
        let name = if format == 4 { format!("{mnemonic} (fp4)") } else { mnemonic.to_owned() };
        println!("{name:38} {best:8.0} {:24.2}", products / best);
    }
    Ok(())
}
