//! One failing case, with what a person needs who has never seen it: where it broke, by how much, what may be the
//! cause, and the command that runs it alone.

use super::number;
use super::table::{Cell, Column, Table};
use super::wrap;
use crate::invocation::{ARCHIVE, quote};
use crate::report::emulation;
use crate::report::model::Report;
use crate::report::style::{self, paint};
use crate::run::folder::test_path;
use accuracy_core::fuzz;
use accuracy_core::identity::{self, Identity};
use accuracy_core::meta::Check;
use accuracy_core::packed::CheckView;
use accuracy_core::record::{CheckName, Hop, Record, Verdict};
use std::collections::HashMap;
use std::fmt::Write as _;

/// So many rows and columns are named.
const WORST: usize = 4;
/// The name of a cause of which only the place is known.
const UNKNOWN: &str = "unknown";
/// Lines of what kernels printed that are told.
const PRINTED: usize = 10;

/// Cases of a block that are listed.
const LISTED: usize = 20;

/// One block for failures that are alike: the first of them in full, then what the others are called. `all` lists each.
pub fn write(text: &mut String, alike: &Alike, report: &Report, all: bool, width: Option<usize>) {
    let record = alike.records[0];
    let check = alike.check.map_or(String::new(), |check| format!(" {check}"));
    let title = format!("{}{check}", alike.test);
    let _ = writeln!(text, "{} {}", style::verdict(record), paint(style::BOLD, title));
    let _ = writeln!(text, "  {}", paint(style::DIM, format!("at {}:{}", record.file, record.line)));
    if alike.records.len() > 1 {
        let _ = writeln!(text, "  {} cases fail in this way; this is the first of them", alike.records.len());
    }
    if let Some(cos) = record.metrics.cos {
        let margin = record.margin.map_or(String::new(), |m| format!(", margin {}", number::any(Some(m))));
        let _ = writeln!(text, "  cosine {}, threshold {}{margin}", number::cosine(cos), record.threshold);
    }
    hops(text, &record.hops, width);
    if broken(&record.hops).is_none() && record.failed_checks.iter().any(|c| c == CheckName::Chain.name()) {
        let _ = writeln!(text, "  every hop is right by itself, but the chain as a whole loses too much");
    }
    let failed: Vec<CheckView> = record.checks.iter().filter(|c| !c.ok).collect();
    if !failed.is_empty() {
        let _ = writeln!(text, "  failed checks");
        checks(text, failed.into_iter(), width);
    } else if !record.failed_checks.is_empty() {
        let _ = writeln!(text, "  failed checks: {}", record.failed_checks.join(", "));
    }
    if let Some(hop) = broken(&record.hops) {
        worst(text, "rows", "cosine", hop, &hop.worst_rows);
        worst(text, "columns", "relative error", hop, &hop.worst_cols);
    }
    for cause in &record.causes {
        // In the order of what they explain; what explains all of it, and alone, is a cause, the rest are guesses.
        let label = cause.label();
        let cos = cause.cos.map_or(String::new(), |cos| format!(" (cosine {})", number::cosine(cos)));
        wrap::wrap(text, &format!("{label}: {}: {}{cos}", cause.cause, cause.told()), 2, width);
    }
    for origin in emulation::origins(record) {
        wrap::wrap(text, &format!("origin: {origin}"), 2, width);
    }
    for found in emulation::findings([record]).iter().filter(|found| found.is_error()).take(WORST) {
        wrap::wrap(text, &format!("emulator: {}", found.words()), 2, width);
    }
    if let Some(emulated) = record.emulated.as_ref().filter(|emulated| !emulated.output.is_empty()) {
        let _ = writeln!(text, "  printed by kernels");
        for line in emulated.output.iter().take(PRINTED) {
            let _ = writeln!(text, "    {} {line}", paint(style::DIM, "|"));
        }
        if emulated.output.len() > PRINTED {
            let _ =
                writeln!(text, "    and {} more lines, in the JSON report", emulated.output.len() - PRINTED);
        }
    }
    let mut reason = record.reason.lines();
    if let Some(first) = reason.next() {
        wrap::wrap(text, &format!("reason: {first}"), 2, width);
    }
    for line in reason {
        let _ = writeln!(text, "    {} {line}", paint(style::DIM, "|"));
    }
    if let Some(least) = &record.least {
        let shape = Identity::of(least).without(|name| !matches!(name, "tokens" | fuzz::COORDINATE));
        let _ = writeln!(text, "  least shape that fails so: {}", identity::listed(&shape.to_string()));
    }
    if alike.records.len() > 1 {
        let _ = writeln!(text, "  cases");
        let listed = if all { alike.records.len() } else { LISTED };
        for record in alike.records.iter().take(listed) {
            let _ = writeln!(text, "    {}", record.id);
        }
        if let more @ 1.. = alike.records.len().saturating_sub(listed) {
            let _ = writeln!(text, "    and {more} more, listed with -v");
        }
    }
    let _ = writeln!(text, "  re-run: {}\n", paint(style::NOTE, rerun(record, &report.flags)));
}

/// Failures that need not each be told in full.
pub struct Alike<'a> {
    pub test: &'a str,
    /// `None` of cases that did not run: the reason is the same for every check.
    pub check: Option<Check>,
    /// In the order of the report; never empty.
    pub records: Vec<&'a Record>,
}

/// Puts together the failures of one test and check with one first cause at one kernel, or, where no cause is known,
/// with one reason. Figures are no part of either.
pub fn alike<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Alike<'a>> {
    let mut groups: Vec<Alike> = Vec::new();
    let mut at = HashMap::new();
    for record in records {
        let alone = Alike::of(record);
        let (test, check) = (alone.test, alone.check);
        let kernel = broken(&record.hops).and_then(|hop| hop.kernel.as_deref());
        let why = match record.causes.first() {
            // Nothing is known of a cause that is not known, so two of them are one only where they say the same.
            Some(cause) if cause.cause == UNKNOWN => {
                format!("{UNKNOWN} {:?} {}", record.failed_checks, without_figures(&cause.detail))
            }
            Some(cause) => cause.cause.clone(),
            None => {
                let reason = record.reason.lines().next().unwrap_or_default();
                format!("{} {:?} {}", record.verdict, record.failed_checks.first(), without_figures(reason))
            }
        };
        let i = *at.entry((test, check, kernel, why)).or_insert_with(|| {
            groups.push(Alike { records: Vec::new(), ..alone });
            groups.len() - 1
        });
        groups[i].records.push(record);
    }
    groups
}

impl<'a> Alike<'a> {
    /// A failure by itself.
    pub fn of(record: &'a Record) -> Alike<'a> {
        let check = (record.verdict != Verdict::NotRun).then_some(record.check);
        Alike { test: test_path(&record.id), check, records: vec![record] }
    }

    /// `k::t full_chain: FAILED, unwritten`.
    pub fn title(&self) -> String {
        let first = self.records[0];
        let check = self.check.map_or(String::new(), |check| format!(" {check}"));
        let why = match (first.causes.first(), first.failed_checks.first()) {
            (Some(cause), _) => format!(", {}", cause.cause),
            (None, Some(check)) => format!(" {check}"),
            (None, None) => first.reason.lines().next().map_or(String::new(), |reason| format!(", {reason}")),
        };
        format!("{}{check}: {}{why}", self.test, style::verdict_text(first))
    }
}

/// A sentence with `#` for each number: what is told of two cases is the same but for these.
pub fn without_figures(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut word = false;
    while let Some(c) = chars.next() {
        let digit = |c: char| c.is_ascii_digit();
        let signed = c == '-' && chars.peek().copied().is_some_and(digit);
        if !word && (digit(c) || signed) {
            // 1.5, 2e-16, 0x7f
            let mut last = c;
            while let Some(next) = chars.peek().copied() {
                let exponent = matches!(last, 'e' | 'E') && matches!(next, '-' | '+');
                if !(next.is_ascii_alphanumeric() || next == '.' || exponent) {
                    break;
                }
                last = next;
                chars.next();
            }
            out.push('#');
            if last == '.' {
                out.push('.');
            }
            continue;
        }
        word = c.is_alphanumeric() || c == '_';
        out.push(c);
    }
    out
}

/// The first hop whose own checks failed: what comes after it was given wrong bytes.
fn broken(hops: &[Hop]) -> Option<&Hop> {
    hops.iter().find(|hop| !hop.failed_checks.is_empty())
}

fn hops(text: &mut String, hops: &[Hop], width: Option<usize>) {
    if hops.is_empty() {
        return;
    }
    let first = hops.iter().position(|hop| !hop.failed_checks.is_empty());
    let _ = writeln!(text, "  hops, in the order of the chain");
    let marked = |i: usize, cell: &str| Cell {
        text: cell.into(),
        style: if Some(i) == first { style::BAD } else { style::PLAIN },
    };
    let cells = |get: &dyn Fn(usize, &Hop) -> String| -> Vec<Cell> {
        hops.iter().enumerate().map(|(i, hop)| marked(i, &get(i, hop))).collect()
    };
    let cosine = |value: Option<f64>| value.map_or_else(|| "-".into(), number::cosine);
    let mut table = Table::default();
    table.push(Column::left(""), cells(&|i, _| if Some(i) == first { "->".into() } else { String::new() }));
    table.push(Column::left("buffer"), cells(&|_, h| h.name.clone()));
    table.push(
        Column::left("kernel").shrinkable(),
        cells(&|_, h| h.kernel.clone().unwrap_or_else(|| "-".into())),
    );
    table.push(Column::left("against").dropped(3), cells(&|_, h| h.judged_against.clone()));
    table.push(Column::right("cosine"), cells(&|_, h| cosine(h.cos)));
    if hops.iter().any(|h| h.scale_cos.is_some()) {
        table.push(Column::right("scales").dropped(1), cells(&|_, h| cosine(h.scale_cos)));
    }
    if hops.iter().any(|h| h.gain.is_some()) {
        let gain = |_, h: &Hop| h.gain.map_or_else(|| "-".into(), number::gain);
        table.push(Column::right("gain").dropped(2), cells(&gain));
    }
    table.push(
        Column::left("failed"),
        cells(&|i, h| {
            let checks = h.failed_checks.join(", ");
            if Some(i) == first { format!("broke first: {checks}") } else { checks }
        }),
    );
    *text += &table.render(width);
}

/// Checks with value, bound and margin. What several runs of a chain found alike is told once. Details that do not fit beside
/// them follow the table.
pub fn checks<'a>(text: &mut String, checks: impl Iterator<Item = CheckView<'a>>, width: Option<usize>) {
    let mut distinct: Vec<CheckView> = Vec::new();
    for check in checks {
        if !distinct.contains(&check) {
            distinct.push(check);
        }
    }
    let style_of = |check: &CheckView| if check.ok { style::PLAIN } else { style::BAD };
    let cells = |get: &dyn Fn(&CheckView) -> String| -> Vec<Cell> {
        distinct.iter().map(|c| Cell { text: get(c), style: style_of(c) }).collect()
    };
    let with_details = |details: bool| {
        let mut table = Table::default();
        table.push(Column::left("check"), cells(&|c| c.check.to_string()));
        table.push(
            Column::left("buffer"),
            cells(&|c| if c.hop.is_empty() { "chain".into() } else { c.hop.to_string() }),
        );
        table.push(Column::right("value"), cells(&|c| number::any(c.value)));
        table.push(Column::right("bound"), cells(&|c| number::any(c.bound)));
        table.push(Column::right("margin"), cells(&|c| number::any(c.margin)));
        if details {
            table.push(Column::left("detail"), cells(&|c| c.detail.to_string()));
        }
        table.render(None)
    };
    let has_details = distinct.iter().any(|c| !c.detail.is_empty());
    let whole = with_details(has_details);
    let length = |line: &str| anstream::adapter::strip_str(line).to_string().chars().count();
    if width.is_none_or(|width| whole.lines().all(|line| length(line) <= width)) {
        *text += &whole;
        return;
    }
    *text += &with_details(false);
    for check in distinct.iter().filter(|check| !check.detail.is_empty()) {
        let of = if check.hop.is_empty() { "the chain" } else { &*check.hop };
        wrap::wrap(text, &format!("{} of {of}: {}", check.check, check.detail), 2, width);
    }
}

fn worst(text: &mut String, what: &str, by: &str, hop: &Hop, lines: &[(usize, Option<f64>)]) {
    if lines.is_empty() {
        return;
    }
    let lines: Vec<String> = lines
        .iter()
        .take(WORST)
        .map(|(i, value)| format!("{i} ({})", value.map_or_else(|| "none".into(), number::gain)))
        .collect();
    let _ = writeln!(text, "  worst {what} of {} by {by}: {}", hop.name, lines.join(", "));
}

/// How this tool is called where these flags are wanted: an archive is for machines that may have no cargo.
pub fn program(flags: &[String]) -> &'static [&'static str] {
    match flags.iter().any(|flag| flag == ARCHIVE) {
        true => &["cargo-accuracy"],
        false => &["cargo", "accuracy"],
    }
}

/// The command that runs this case alone, as it ran here; of a drawn case, the least shape that fails as it does.
pub fn rerun(record: &Record, flags: &[String]) -> String {
    let mut words = program(flags).to_vec();
    words.extend(["-p", &record.package, "--arch", &record.arch]);
    words.extend(flags.iter().map(String::as_str));
    let poison = record.poison.map(|poison| poison.to_string());
    if let Some(poison) = &poison {
        words.extend(["--poison", poison]);
    }
    words.push(record.least.as_ref().unwrap_or(&record.id));
    debug_assert!(record.id.starts_with(test_path(&record.id)));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_left_out_of_what_is_compared_and_names_are_not() {
        for (text, same) in [
            ("one element, [0, 255]", "one element, [#, #]"),
            ("agrees to 0.999998.", "agrees to #."),
            ("all -2.86e-16 there, 0x7f", "all # there, #"),
            ("layers_0 of e4m3fn, fp8_block128", "layers_0 of e4m3fn, fp8_block128"),
            ("", ""),
        ] {
            assert_eq!(without_figures(text), same);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in ["k::t[check=full_chain,tokens=3]", "it's", "", "a b", "$HOME", "*", "plain-1.5"] {
            let script = format!("printf %s {}", quote(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(quote("--arch"), "--arch");
    }
}
