//! Machine code of gfx942 and gfx950 as text, for comparison with LLVM's disassembler:
//!
//! `disassemble FILE...` writes every instruction of bare code objects: address, bytes that it takes, text.
//! `disassemble --rows` writes the table of instructions: encoding, opcode, processors, mnemonic, opcode in VOP3,
//! operands.
//! `disassemble --words` reads lines of a processor and hexadecimal bytes (`gfx950 0002007e`) and writes what each begins
//! with: the size and text of the instruction, or 0 and why it is none.

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use accuracy_core::emulator::isa::{Encoding, Processor, Processors, decode, table};
use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHF_EXECINSTR};
use object::read::elf::{FileHeader as _, SectionHeader as _};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match args.as_slice() {
        [] => Err("name a code object, --rows or --words".into()),
        [flag] if flag == "--words" => words(&mut out),
        [flag] if flag == "--rows" => rows(&mut out),
        files => files.iter().try_for_each(|file| {
            code_object(file, &mut out).map_err(|error| format!("{file}: {error}").into())
        }),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("disassemble: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rows(out: &mut impl Write) -> Result<(), Failure> {
    for row in table::all() {
        let processors = match row.processors {
            Processors::Both => "both",
            Processors::Only(processor) => processor.name(),
        };
        let has_long_form = row.forms.long || matches!(row.encoding, Encoding::Vop3 | Encoding::Vop3b);
        let long = if has_long_form {
            (row.opcode + table::long_offset(row.encoding)).to_string()
        } else {
            "none".into()
        };
        write!(out, "{:?} {} {processors} {} {long}", row.encoding, row.opcode, row.mnemonic)?;
        for slot in row.operands {
            write!(out, " {:?}:{:?}", slot.role, slot.kind)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn words(out: &mut impl Write) -> Result<(), Failure> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (processor, hex) = line.split_once(' ').ok_or("a line is a processor and bytes")?;
        let bytes = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
            .collect::<Result<Vec<u8>, _>>()?;
        let processor = [Processor::Gfx942, Processor::Gfx950]
            .into_iter()
            .find(|known| known.name() == processor)
            .ok_or("the processors are gfx942 and gfx950")?;
        match decode(processor, &bytes) {
            Ok(inst) => writeln!(out, "{}\t{inst}", inst.size)?,
            Err(error) => writeln!(out, "0\t{error}")?,
        }
    }
    Ok(())
}

fn code_object(file: &str, out: &mut impl Write) -> Result<(), Failure> {
    let data = std::fs::read(file)?;
    let data = data.as_slice();
    let header = FileHeader64::<LE>::parse(data)?;
    // EF_AMDGPU_MACH of LLVM's "User Guide for AMDGPU Backend".
    let processor = match header.e_flags(LE).0 & 0xff {
        0x4c => Processor::Gfx942,
        0x4f => Processor::Gfx950,
        other => {
            return Err(
                format!("its processor is {other:#x}, and neither gfx942 (0x4c) nor gfx950 (0x4f)").into()
            );
        }
    };
    for section in header.sections(LE, data)?.iter() {
        if !section.sh_flags(LE).contains(SHF_EXECINSTR) {
            continue;
        }
        let code: &[u8] = section.data(LE, data)?;
        let mut at = 0;
        while at + 4 <= code.len() {
            let address = section.sh_addr(LE) + at as u64;
            match decode(processor, &code[at..code.len().min(at + 16)]) {
                Ok(inst) => {
                    writeln!(out, "{address:x} {} {inst}", inst.size)?;
                    at += usize::from(inst.size);
                }
                Err(error) => {
                    writeln!(out, "{address:x} 4 no instruction: {error}")?;
                    at += 4;
                }
            }
        }
    }
    Ok(())
}
