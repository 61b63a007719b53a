//! Instructions that meet a known fault of the hardware, as text and as JSON.

use super::place;
use crate::report::style::{self, paint};
use accuracy_core::emulator::examine::Met;
use accuracy_core::emulator::isa::errata::{ERRATA, Erratum};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Each erratum with the instructions that meet it; those that none meets are left out.
fn by_erratum(found: &[Met]) -> impl Iterator<Item = (&'static Erratum, Vec<&Met>)> {
    ERRATA.iter().filter_map(move |erratum| {
        let of_it: Vec<&Met> = found.iter().filter(|f| f.erratum.name == erratum.name).collect();
        (!of_it.is_empty()).then_some((erratum, of_it))
    })
}

/// What a person reads: nothing where no instruction meets an erratum.
pub fn render(found: &[Met], verbose: bool) -> String {
    let mut text = String::new();
    for (erratum, found) in by_erratum(found) {
        let (instructions, meet) = match found.len() {
            1 => ("1 instruction".to_owned(), "meets"),
            n => (format!("{n} instructions"), "meet"),
        };
        let targets = place::targets(found.iter().map(|met| &met.place));
        let heading = format!("{instructions} for {targets} {meet} a fault of the hardware");
        let _ = writeln!(text, "\n  {}", paint(style::WARN, heading));
        let _ = writeln!(text, "    {}: {} {}", erratum.name, erratum.mnemonic, erratum.form);
        let _ = writeln!(text, "    effect: the instruction {}", erratum.effect);
        let _ = writeln!(text, "    avoid it: compile with {}", erratum.avoided_by);
        let _ = writeln!(text, "    source: {}", erratum.source);
        place::list(&mut text, found.iter().map(|met| place::line(&met.place)), verbose);
    }
    text
}

/// An object for each erratum that an instruction meets: what it is, and all of those instructions.
pub fn json(found: &[Met]) -> Value {
    by_erratum(found)
        .map(|(erratum, found)| {
            let instructions: Vec<Value> = found.iter().map(|met| place::json(&met.place)).collect();
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
