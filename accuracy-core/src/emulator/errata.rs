//! Finds the instructions of code objects that meet a known fault of the hardware ([`super::isa::errata`]).

use super::isa::errata::{Erratum, erratum_of};
use super::isa::{Processor, decode};
use super::lines::Lines;
use crate::codeobject::{self, ReadError, Target};

/// An instruction that meets a fault.
#[derive(Clone, Debug)]
pub struct Found {
    pub erratum: &'static Erratum,
    /// The target that the code object was built for.
    pub target: Target,
    /// The function that has the instruction, where a symbol says so.
    pub function: Option<String>,
    /// The instruction's address as a disassembly of the code object shows it.
    pub offset: u64,
    /// The instruction as LLVM writes it.
    pub instruction: String,
    /// File and line of the source, where the code object has a line table.
    pub line: Option<(String, u32)>,
}

/// The instructions of a kernel library or code object that meet a fault, in the order of the file. Code for processors
/// other than gfx942 and gfx950 is passed over.
///
/// # Errors
/// As [`codeobject::read`].
pub fn find(file: &[u8]) -> Result<Vec<Found>, ReadError> {
    let mut found = Vec::new();
    codeobject::visit(file, &mut |target, code| {
        if let Some(processor) = processor(target) {
            of_code_object(target, processor, code, &mut found)?;
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

fn of_code_object(
    target: &Target,
    processor: Processor,
    file: &[u8],
    found: &mut Vec<Found>,
) -> Result<(), ReadError> {
    let mut lines = None;
    for segment in codeobject::machine_code(file)? {
        let mut functions = segment.functions.iter().peekable();
        let mut function = None;
        let mut at = 0;
        while at + 4 <= segment.code.len() {
            let offset = segment.address.saturating_add(at as u64);
            while let Some(begins) = functions.next_if(|f| f.address <= offset) {
                function = Some(begins);
            }
            // No instruction goes on in the next function: code between the two is padding.
            let room = functions.peek().map_or(segment.code.len(), |next| {
                usize::try_from(next.address - segment.address).unwrap_or(usize::MAX).min(segment.code.len())
            });
            let Ok(inst) = decode(processor, &segment.code[at..room.min(at + 16)]) else {
                at += 4;
                continue;
            };
            at += usize::from(inst.size);
            let Some(erratum) = erratum_of(processor, &inst) else { continue };
            let lines = lines.get_or_insert_with(|| Lines::read(file));
            found.push(Found {
                erratum,
                target: target.clone(),
                function: function.map(|f| f.name.clone()),
                offset,
                instruction: inst.to_string(),
                line: lines.as_ref().and_then(|lines| lines.find(offset)),
            });
        }
    }
    Ok(())
}
