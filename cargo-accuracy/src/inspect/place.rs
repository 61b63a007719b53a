//! Where an instruction of a code object is, as text and as JSON.

use crate::report::style::{self, paint};
use accuracy_core::emulator::examine::Place;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How many instructions of a kind are listed without `--verbose`.
const LISTED: usize = 10;

/// The targets of some instructions, for a heading: "gfx942 and gfx950".
pub fn targets<'a>(places: impl Iterator<Item = &'a Place>) -> String {
    let targets: BTreeSet<String> = places.map(|place| place.target.to_string()).collect();
    targets.into_iter().collect::<Vec<_>>().join(" and ")
}

/// Writes the entries of a list: all of them, or the first ten and how many more there are.
pub fn list(text: &mut String, entries: impl ExactSizeIterator<Item = String>, verbose: bool) {
    let count = entries.len();
    let listed = if verbose { count } else { LISTED };
    for entry in entries.take(listed) {
        let _ = writeln!(text, "    {entry}");
    }
    if count > listed {
        let rest = format!("and {} more, which --verbose lists", count - listed);
        let _ = writeln!(text, "    {}", paint(style::DIM, rest));
    }
}

/// Where an instruction is, and the instruction.
pub fn line(place: &Place) -> String {
    let mut line = format!("{:#x}", place.offset);
    if let Some((file, number)) = &place.line {
        let _ = write!(line, "  {file}:{number}");
    }
    if let Some(function) = &place.function {
        let _ = write!(line, "  in {}", super::text::short_name(function));
    }
    let _ = write!(line, "  {}", place.instruction);
    line
}

/// The same in a sentence, without the function: "v_rcp_f32 at 0x1400 (scale.s:6)".
pub fn in_words(place: &Place) -> String {
    let line = place.line.as_ref().map_or(String::new(), |(file, line)| format!(" ({file}:{line})"));
    format!("{} at {:#x}{line}", place.mnemonic, place.offset)
}

pub fn json(place: &Place) -> Value {
    let (file, line) = place.line.as_ref().map(|(file, line)| (file, line)).unzip();
    json!({
        "target": place.target.to_string(),
        "function": place.function,
        "offset": place.offset,
        "mnemonic": place.mnemonic,
        "instruction": place.instruction,
        "file": file,
        "line": line,
    })
}
