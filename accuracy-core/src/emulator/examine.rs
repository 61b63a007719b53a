//! Looks through the instructions of code objects without running them: which meet a known fault of the hardware
//! ([`super::isa::errata`]), and which come too soon behind the one whose result they use ([`super::hazards`]).

use super::hazards::{self, Hazard};
use super::isa::errata::{Erratum, erratum_of};
use super::isa::{Inst, Processor, decode};
use super::lines::Lines;
use crate::codeobject::{self, MachineCode, ReadError, Target};

/// What the instructions of a file are noteworthy for, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    pub errata: Vec<Met>,
    pub hazards: Vec<TooSoon>,
}

/// An instruction that meets a known fault of the hardware.
#[derive(Clone, Debug)]
pub struct Met {
    pub erratum: &'static Erratum,
    pub place: Place,
}

/// An instruction that comes too soon behind another one.
#[derive(Clone, Debug)]
pub struct TooSoon {
    pub hazard: Hazard,
    pub place: Place,
    /// The other one.
    pub first: Place,
}

/// An instruction of a code object.
#[derive(Clone, Debug)]
pub struct Place {
    /// The target that the code object was built for.
    pub target: Target,
    /// The function that has the instruction, where a symbol says so.
    pub function: Option<String>,
    /// The instruction's address as a disassembly of the code object shows it.
    pub offset: u64,
    pub mnemonic: &'static str,
    /// The instruction as LLVM writes it.
    pub instruction: String,
    /// File and line of the source, where the code object has a line table.
    pub line: Option<(String, u32)>,
}

/// Looks through a kernel library or code object. Code for processors other than gfx942 and gfx950 is passed over.
///
/// # Errors
/// As [`codeobject::read`].
pub fn examine(file: &[u8]) -> Result<Examined, ReadError> {
    let mut found = Examined::default();
    codeobject::visit(file, &mut |target, code| {
        if let Some(processor) = processor(target) {
            let mut object = CodeObject { target, processor, file: code, lines: None };
            for segment in codeobject::machine_code(code)? {
                object.examine(&segment, &mut found);
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// The processor whose instructions a target's code consists of.
fn processor(target: &Target) -> Option<Processor> {
    let Target::Amd(target) = target else { return None };
    [Processor::Gfx942, Processor::Gfx950].into_iter().find(|known| known.name() == target.processor)
}

struct CodeObject<'a> {
    target: &'a Target,
    processor: Processor,
    file: &'a [u8],
    /// The line table, once something was found: reading it takes longer than decoding the code.
    lines: Option<Option<Lines>>,
}

impl CodeObject<'_> {
    /// Function by function: no instruction goes on in the next one, since code between the two is padding, and no function
    /// jumps into another one.
    fn examine(&mut self, segment: &MachineCode<'_>, found: &mut Examined) {
        let starts = segment.functions.iter().map(|f| (f.address, Some(f.name.as_str())));
        let starts: Vec<(u64, Option<&str>)> = [(segment.address, None)].into_iter().chain(starts).collect();
        for (i, (start, function)) in starts.iter().enumerate() {
            let place = |address: u64| {
                let offset = usize::try_from(address.saturating_sub(segment.address)).unwrap_or(usize::MAX);
                offset.min(segment.code.len())
            };
            let end = starts.get(i + 1).map_or(segment.code.len(), |(next, _)| place(*next));
            if let Some(code) = segment.code.get(place(*start)..end) {
                self.function(*function, *start, code, found);
            }
        }
    }

    fn function(&mut self, function: Option<&str>, start: u64, code: &[u8], found: &mut Examined) {
        let mut instructions: Vec<(u64, Inst)> = Vec::new();
        let mut at = 0;
        while at + 4 <= code.len() {
            match decode(self.processor, &code[at..code.len().min(at + 16)]) {
                Ok(inst) => {
                    let size = usize::from(inst.size);
                    instructions.push((start.saturating_add(at as u64), inst));
                    at += size;
                }
                Err(_) => at += 4,
            }
        }
        let code: Vec<(u64, &Inst)> = instructions.iter().map(|(at, inst)| (*at, inst)).collect();
        for (at, inst) in &code {
            if let Some(erratum) = erratum_of(self.processor, inst) {
                let place = self.place(function, *at, inst);
                found.errata.push(Met { erratum, place });
            }
        }
        for (second, hazard) in hazards::find(self.processor, &code) {
            let [place, first] =
                [second, hazard.first.1].map(|number| self.place(function, code[number].0, code[number].1));
            found.hazards.push(TooSoon { hazard, place, first });
        }
    }

    fn place(&mut self, function: Option<&str>, offset: u64, inst: &Inst) -> Place {
        let lines = self.lines.get_or_insert_with(|| Lines::read(self.file));
        Place {
            target: self.target.clone(),
            function: function.map(str::to_owned),
            offset,
            mnemonic: inst.row.mnemonic,
            instruction: inst.to_string(),
            line: lines.as_ref().and_then(|lines| lines.find(offset)),
        }
    }
}
