//! Instructions that come too soon behind the one whose result they use, as text and as JSON.

use super::place;
use crate::report::style::{self, paint};
use accuracy_core::emulator::examine::TooSoon;
use accuracy_core::emulator::hazards::Uses;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a person reads: nothing where no instruction comes too soon. Where shipped code shows that the hardware waits by
/// itself, the instructions are counted, and listed with `verbose`.
pub fn render(found: &[TooSoon], verbose: bool) -> String {
    let mut text = String::new();
    let (harmless, wrong): (Vec<&TooSoon>, Vec<&TooSoon>) =
        found.iter().partition(|found| found.hazard.is_harmless());
    if !wrong.is_empty() {
        let (instructions, come, they) = match wrong.len() {
            1 => ("1 instruction".to_owned(), "comes", "it uses"),
            n => (format!("{n} instructions"), "come", "they use"),
        };
        let targets = place::targets(wrong.iter().map(|found| &found.place));
        let heading =
            format!("{instructions} for {targets} {come} too soon behind the one whose result {they}");
        let _ = writeln!(text, "\n  {}", paint(style::WARN, heading));
        let _ = writeln!(text, "    The hardware does not wait by itself: s_nop has to stand in between.");
        place::list(&mut text, wrong.iter().map(|found| entry(found)), verbose);
    }
    if !harmless.is_empty() {
        let count = match harmless.len() {
            1 => "1 instruction has".to_owned(),
            n => format!("{n} instructions have"),
        };
        let listed = if verbose { "" } else { " (--verbose lists them)" };
        let heading =
            format!("{count} fewer wait states than are documented; the hardware waits by itself{listed}");
        let _ = writeln!(text, "\n  {}", paint(style::DIM, heading));
        if verbose {
            place::list(&mut text, harmless.iter().map(|found| entry(found)), true);
        }
    }
    text
}

/// Two lines: the instruction, and what it needs.
fn entry(found: &TooSoon) -> String {
    let words = found.hazard.words(&place::in_words(&found.first));
    format!("{}\n      {words}", place::line(&found.place))
}

/// An object for each instruction.
pub fn json(found: &[TooSoon]) -> Value {
    let one = |found: &TooSoon| {
        let hazard = &found.hazard;
        let mut object = place::json(&found.place);
        object["severity"] = if hazard.is_harmless() { "note" } else { "error" }.into();
        object["uses"] = match hazard.uses {
            Uses::Reads => "reads",
            Uses::Overwrites => "overwrites",
            Uses::OverwritesSource => "overwrites_source",
            Uses::DependsOn => "depends_on",
        }
        .into();
        object["register"] = hazard.register_name().into();
        object["wait_states"] = json!({ "needed": hazard.needed, "found": hazard.found });
        object["behind"] = place::json(&found.first);
        object
    };
    found.iter().map(one).collect()
}
