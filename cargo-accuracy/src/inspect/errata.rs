//! Instructions that meet a known fault of the hardware, as text and as JSON. They are found by
//! [`accuracy_core::emulator::errata`].

use crate::report::style::{self, paint};
use accuracy_core::emulator::errata::Found;
use accuracy_core::emulator::isa::errata::{ERRATA, Erratum};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How many instructions of an erratum are listed without `--verbose`.
const LISTED: usize = 10;

/// Each erratum with the instructions that meet it; those that none meets are left out.
fn by_erratum(found: &[Found]) -> impl Iterator<Item = (&'static Erratum, Vec<&Found>)> {
    ERRATA.iter().filter_map(move |erratum| {
        let of_it: Vec<&Found> = found.iter().filter(|f| f.erratum.name == erratum.name).collect();
        (!of_it.is_empty()).then_some((erratum, of_it))
    })
}

/// What a person reads: nothing where no instruction meets an erratum.
pub fn render(found: &[Found], verbose: bool) -> String {
    let mut text = String::new();
    for (erratum, found) in by_erratum(found) {
        let (instructions, meet) = match found.len() {
            1 => ("1 instruction".to_owned(), "meets"),
            n => (format!("{n} instructions"), "meet"),
        };
        let targets: BTreeSet<String> = found.iter().map(|f| f.target.to_string()).collect();
        let targets = targets.into_iter().collect::<Vec<_>>().join(" and ");
        let heading = format!("{instructions} for {targets} {meet} a fault of the hardware");
        let _ = writeln!(text, "\n  {}", paint(style::WARN, heading));
        let _ = writeln!(text, "    {}: {} {}", erratum.name, erratum.mnemonic, erratum.form);
        let _ = writeln!(text, "    effect: the instruction {}", erratum.effect);
        let _ = writeln!(text, "    avoid it: compile with {}", erratum.avoided_by);
        let _ = writeln!(text, "    source: {}", erratum.source);
        let listed = if verbose { found.len() } else { LISTED };
        for found in found.iter().take(listed) {
            let _ = writeln!(text, "    {}", line(found));
        }
        if found.len() > listed {
            let rest = format!("and {} more, which --verbose lists", found.len() - listed);
            let _ = writeln!(text, "    {}", paint(style::DIM, rest));
        }
    }
    text
}

/// Where an instruction is, and the instruction.
fn line(found: &Found) -> String {
    let mut line = format!("{:#x}", found.offset);
    if let Some((file, number)) = &found.line {
        let _ = write!(line, "  {file}:{number}");
    }
    if let Some(function) = &found.function {
        let _ = write!(line, "  in {}", super::text::short_name(function));
    }
    let _ = write!(line, "  {}", found.instruction);
    line
}

/// An object for each erratum that an instruction meets: what it is, and all of those instructions.
pub fn json(found: &[Found]) -> Value {
    by_erratum(found)
        .map(|(erratum, found)| {
            let instructions: Vec<Value> = found
                .iter()
                .map(|found| {
                    let (file, line) = found.line.clone().unzip();
                    json!({
                        "target": found.target.to_string(),
                        "function": found.function,
                        "offset": found.offset,
                        "instruction": found.instruction,
                        "file": file,
                        "line": line,
                    })
                })
                .collect();
            json!({
                "name": erratum.name,
                "mnemonic": erratum.mnemonic,
                "form": erratum.form,
                "effect": erratum.effect,
                "avoided_by": erratum.avoided_by,
                "source": erratum.source,
                "instructions": instructions,
            })
        })
        .collect()
}
