//! A trace as text: source lines, instructions, the values of their registers, and the memory that they access.

use super::values::Value;
use super::{Access, Entry, Launching, To, Tracer, Which, is_conditional};
use crate::emulator::isa::Inst;
use crate::emulator::scrutiny::declared::{self, Declared};
use crate::emulator::scrutiny::{Does, Place};
use crate::files;
use crate::trace::Lane;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Accesses of other lanes that are written for one instruction.
const ACCESSES: usize = 64;

/// Writes what a tracer has kept of a launch that has ended.
pub fn write(tracer: &Tracer, launching: &Launching<'_>) -> String {
    let mut text = head(tracer, launching);
    let mut sources = Sources::default();
    let (mut line, mut exec) = (None, None);
    if let Some(left_out) = tracer.in_range.checked_sub(tracer.kept.len() as u64).filter(|n| *n > 0)
        && tracer.choice.until.is_some()
    {
        text += &format!("... {left_out} instructions are not shown\n");
    }
    for entry in &tracer.kept {
        let here = launching.module.source(entry.at).map(|(path, line)| (path.to_owned(), line));
        if here != line
            && let (Some((path, number)), Some((name, _))) = (&here, launching.module.line(entry.at))
        {
            let source = sources.line(path, *number).unwrap_or_default();
            text += &format!("\n{name}:{number}  {source}\n");
        }
        line = here;
        if exec != Some(entry.exec) {
            text +=
                &format!("        exec = {:#018x}, {} lanes are on\n", entry.exec, entry.exec.count_ones());
            exec = Some(entry.exec);
        }
        instruction(&mut text, tracer, launching, entry);
        if let Some((.., is)) = entry.changed.iter().find(|(name, ..)| *name == "exec") {
            exec = Some(*is);
        }
    }
    let shown = tracer.kept.len() as u64;
    if tracer.choice.until.is_none() && tracer.in_range > shown {
        text += &format!("... {} more instructions are not shown\n", tracer.in_range - shown);
    }
    text
}

/// Names the wave, and says how its values are written.
fn head(tracer: &Tracer, launching: &Launching<'_>) -> String {
    let choice = &tracer.choice;
    let [x, y, z] = choice.block;
    let launch = match choice.launch {
        Which::Nth(n) => n,
        Which::OfRun(n) => n + 1,
    };
    let of = if matches!(choice.launch, Which::OfRun(_)) { " of the run" } else { "" };
    let mut text = format!(
        "kernel {}, launch {launch}{of}, workgroup ({x}, {y}, {z}) of {:?}, wave {}\n",
        launching.readable, launching.blocks, choice.wave
    );
    let lanes = match choice.lanes {
        Lane::One(lane) => format!("v0[{lane}] is v0 in lane {lane}; v0[*] is v0 in all lanes that are on"),
        Lane::All => "v0[4..7] is v0 in lanes 4 to 7; v0[*] is v0 in all lanes that are on".into(),
    };
    text += &format!("{lanes}; results stand behind ->\n");
    if let Some(range) = &choice.range {
        text += &format!("only {range}\n");
    }
    text
}

fn instruction(text: &mut String, tracer: &Tracer, launching: &Launching<'_>, entry: &Entry) {
    let offset = entry.at.wrapping_sub(tracer.entry);
    let inst = launching.module.instruction(entry.at);
    let words = inst.map_or_else(|| "an instruction that cannot be decoded".into(), Inst::to_string);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{offset:#06x}  {words}");
    let lanes = tracer.choice.lanes;
    values(text, &entry.before, lanes, "");
    if let Some((name, value)) = entry.condition {
        let _ = writeln!(text, "        {name} = {value:#x}");
    }
    for line in accesses(&entry.accesses, lanes, &tracer.declared) {
        let _ = writeln!(text, "        {line}");
    }
    values(text, &entry.after, lanes, "-> ");
    for (name, was, is) in &entry.changed {
        let _ = writeln!(text, "        -> {name} = {is:#x}, before {was:#x}");
    }
    let behind = entry.at + inst.map_or(4, |inst| u64::from(inst.size));
    match entry.next {
        Some(next) if next != behind => {
            let _ = writeln!(text, "        -> goes on at {:#06x}", next.wrapping_sub(tracer.entry));
        }
        None if inst.is_some_and(is_conditional) => text.push_str("        -> not taken\n"),
        _ => {}
    }
    if let Some(why) = &entry.stopped {
        let _ = writeln!(text, "        -> the launch stops here: {why}");
    }
}

/// Several values in a line where they fit.
fn values(text: &mut String, values: &[Value], lanes: Lane, before: &str) {
    let all: Vec<String> = values.iter().flat_map(|value| value.write(lanes)).collect();
    let mut line = String::new();
    for value in all {
        if !line.is_empty() && line.len() + value.len() > 100 {
            text.push_str(&format!("        {before}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line += "  ";
        }
        line += &value;
    }
    if !line.is_empty() {
        text.push_str(&format!("        {before}{line}\n"));
    }
}

/// The accesses of an instruction, a line each: those of the shown lane, and how far those of the others reach.
fn accesses(all: &[Access], lanes: Lane, declared: &[Declared]) -> Vec<String> {
    let line = |access: &Access| {
        let does = match access.does {
            Does::Reads => "reads",
            Does::Writes => "writes",
            Does::Changes => "changes",
        };
        match access.to {
            To::Clamped => {
                format!("lane {} reads outside of its buffer resource, and gets zero", access.lane)
            }
            To::Private => format!("lane {} {does} {} bytes of its own memory", access.lane, access.bytes),
            To::Place(place) => {
                format!(
                    "lane {} {does} {} bytes at {}",
                    access.lane,
                    access.bytes,
                    named(declared, place, access.bytes)
                )
            }
        }
    };
    let of_lane: Vec<&Access> = match lanes {
        Lane::All => all.iter().take(ACCESSES).collect(),
        Lane::One(lane) => all.iter().filter(|access| access.lane == lane).collect(),
    };
    // A scalar load has no lanes, and the shown lane may be off.
    let shown = if of_lane.is_empty() { all.iter().take(1).collect() } else { of_lane };
    let mut lines: Vec<String> = shown.iter().copied().map(line).collect();
    if let [first, .., last] = all
        && all.len() > shown.len()
    {
        lines.push(format!(
            "{} accesses in all: {} to {}",
            all.len(),
            place(first, declared),
            place(last, declared)
        ));
    }
    lines
}

fn place(access: &Access, declared: &[Declared]) -> String {
    match access.to {
        To::Place(place) => named(declared, place, access.bytes),
        To::Private => "private memory".into(),
        To::Clamped => "outside of the buffer resource".into(),
    }
}

/// Where some bytes are: elements of a declared buffer, if they are.
fn named(declared: &[Declared], place: Place, bytes: u32) -> String {
    let address = match place {
        Place::Lds(offset, _) => return format!("LDS {offset:#x}"),
        Place::Global(address) => address,
    };
    let Some(buffer) = declared::find(declared, address) else { return format!("{address:#x}") };
    let last = address + u64::from(bytes.max(1)) - 1;
    match (buffer.element(address), buffer.element(last)) {
        (Some(first), Some(last)) if first == last => format!("{}[{}, {}]", buffer.name, first.0, first.1),
        (Some((r, c)), Some((row, column))) if r == row => format!("{}[{r}, {c}..{column}]", buffer.name),
        (Some((r, c)), Some((row, column))) if c == column => format!("{}[{r}..{row}, {c}]", buffer.name),
        (Some((r, c)), Some((row, column))) => {
            format!("{}[{r}, {c}] to {}[{row}, {column}]", buffer.name, buffer.name)
        }
        _ => match address.checked_sub(buffer.start) {
            Some(offset) if offset < buffer.bytes => format!("byte {offset} of {}", buffer.name),
            Some(offset) => format!("{} bytes behind the end of {}", offset - buffer.bytes, buffer.name),
            None => format!("{} bytes before {} begins", buffer.start - address, buffer.name),
        },
    }
}

/// Source files, read once.
#[derive(Default)]
struct Sources(HashMap<PathBuf, Vec<String>>);

impl Sources {
    /// A line of a source file, where the file is on this machine.
    fn line(&mut self, path: &Path, number: u32) -> Option<&str> {
        if !self.0.contains_key(path) {
            let text = files::read_text(path, files::TEXT).unwrap_or_default();
            let lines = text.lines().map(|line| line.trim_end().to_owned()).collect();
            self.0.insert(path.to_owned(), lines);
        }
        let lines = self.0.get(path)?;
        lines.get((number as usize).checked_sub(1)?).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::scrutiny::declared::Rows;

    #[test]
    fn an_address_is_told_as_the_elements_of_its_buffer() {
        let rows = Rows { runs: 3, bits: 128, stride: 256, element: 32, transposed: false };
        let buffer = Declared {
            name: "x".into(),
            start: 0x1000,
            bytes: 80,
            around: (0xf00, 0x1100),
            rows: Some(rows),
            element: 32,
        };
        let all = [buffer];
        let at = |address, bytes| named(&all, Place::Global(address), bytes);
        assert_eq!(at(0x1000, 4), "x[0, 0]");
        assert_eq!(at(0x1024, 8), "x[1, 1..2]");
        assert_eq!(at(0x1010, 4), "byte 16 of x", "padding");
        assert_eq!(at(0x1054, 4), "4 bytes behind the end of x");
        assert_eq!(at(0xff0, 4), "16 bytes before x begins");
        assert_eq!(at(0x5000, 4), "0x5000");
        assert_eq!(named(&all, Place::Lds(64, 0x9000), 4), "LDS 0x40");
    }

    #[test]
    fn of_many_lanes_one_is_told_and_how_far_they_reach() {
        let access = |lane: u8| Access {
            to: To::Place(Place::Lds(4 * u32::from(lane), 0)),
            bytes: 4,
            lane,
            does: Does::Writes,
        };
        let all: Vec<Access> = (0..64).map(access).collect();
        let told = accesses(&all, Lane::One(3), &[]);
        assert_eq!(told, ["lane 3 writes 4 bytes at LDS 0xc", "64 accesses in all: LDS 0x0 to LDS 0xfc"]);
        assert_eq!(accesses(&all, Lane::All, &[]).len(), 64);
        assert_eq!(accesses(&[], Lane::All, &[]), [""; 0]);
    }
}
