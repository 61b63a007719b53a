//! One failing case, with what a person needs who has never seen it: where it broke, by how much, what may be the
//! cause, and the command that runs it alone.

use super::number;
use super::table::{Cell, Column, Table};
use super::wrap;
use crate::report::model::{Report, test_path};
use crate::report::style::{self, paint};
use accuracy_core::meta::Check;
use accuracy_core::packed::CheckView;
use accuracy_core::record::{Hop, Record, Verdict};
use std::fmt::Write as _;

/// So many rows and columns are named.
const WORST: usize = 4;

pub fn write(text: &mut String, record: &Record, report: &Report, width: Option<usize>) {
    let _ = writeln!(text, "{} {}", style::verdict(record), paint(style::BOLD, &record.id));
    let _ = writeln!(text, "  {}", paint(style::DIM, format!("at {}:{}", record.file, record.line)));
    if let Some(cos) = record.metrics.cos {
        let margin = record.margin.map_or(String::new(), |m| format!(", margin {}", number::any(Some(m))));
        let _ = writeln!(text, "  cosine {}, threshold {}{margin}", number::cosine(cos), record.threshold);
    }
    hops(text, &record.hops);
    if broken(&record.hops).is_none() && record.failed_checks.iter().any(|c| c == "chain") {
        let _ = writeln!(text, "  every hop is right by itself, but the chain as a whole loses too much");
    }
    let failed: Vec<CheckView> = record.checks.iter().filter(|c| !c.ok).collect();
    if !failed.is_empty() {
        let _ = writeln!(text, "  failed checks");
        checks(text, failed.into_iter());
    } else if !record.failed_checks.is_empty() {
        let _ = writeln!(text, "  failed checks: {}", record.failed_checks.join(", "));
    }
    if let Some(hop) = broken(&record.hops) {
        worst(text, "rows", "cosine", hop, &hop.worst_rows);
        worst(text, "columns", "relative error", hop, &hop.worst_cols);
    }
    for cause in &record.causes {
        // In the order of what they explain; what explains all of it, and alone, is a cause, the rest are guesses.
        let label = if cause.confident { "cause" } else { "perhaps" };
        let cos = cause.cos.map_or(String::new(), |cos| format!(" (cosine {})", number::cosine(cos)));
        wrap::wrap(text, &format!("{label}: {}: {}{cos}", cause.cause, cause.detail), 2, width);
    }
    let mut reason = record.reason.lines();
    if let Some(first) = reason.next() {
        let _ = writeln!(text, "  reason: {first}");
    }
    for line in reason {
        let _ = writeln!(text, "    {} {line}", paint(style::DIM, "|"));
    }
    let _ = writeln!(text, "  re-run: {}\n", paint(style::NOTE, rerun(record, &report.flags)));
}

/// What two failures have in common that need not be told twice.
pub fn kind(record: &Record) -> (&str, Check, Verdict, Option<&str>, &[String], Option<&str>) {
    (
        test_path(&record.id),
        record.check,
        record.verdict,
        broken(&record.hops).map(|hop| hop.name.as_str()),
        &record.failed_checks,
        record.reason.lines().next(),
    )
}

/// The first hop whose own checks failed: what comes after it was given wrong bytes.
fn broken(hops: &[Hop]) -> Option<&Hop> {
    hops.iter().find(|hop| !hop.failed_checks.is_empty())
}

fn hops(text: &mut String, hops: &[Hop]) {
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
    table.push(Column::left("kernel"), cells(&|_, h| h.kernel.clone().unwrap_or_else(|| "-".into())));
    table.push(Column::left("against"), cells(&|_, h| h.judged_against.clone()));
    table.push(Column::right("cosine"), cells(&|_, h| cosine(h.cos)));
    if hops.iter().any(|h| h.scale_cos.is_some()) {
        table.push(Column::right("scales"), cells(&|_, h| cosine(h.scale_cos)));
    }
    if hops.iter().any(|h| h.gain.is_some()) {
        table.push(Column::right("gain"), cells(&|_, h| h.gain.map_or_else(|| "-".into(), number::gain)));
    }
    table.push(
        Column::left("failed"),
        cells(&|i, h| {
            let checks = h.failed_checks.join(", ");
            if Some(i) == first { format!("broke first: {checks}") } else { checks }
        }),
    );
    *text += &table.render(None);
}

/// Checks with value, bound and margin. What several runs of a chain found alike is told once.
pub fn checks<'a>(text: &mut String, checks: impl Iterator<Item = CheckView<'a>>) {
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
    let mut table = Table::default();
    table.push(Column::left("check"), cells(&|c| c.check.to_string()));
    table.push(
        Column::left("buffer"),
        cells(&|c| if c.hop.is_empty() { "chain".into() } else { c.hop.to_string() }),
    );
    table.push(Column::right("value"), cells(&|c| number::any(c.value)));
    table.push(Column::right("bound"), cells(&|c| number::any(c.bound)));
    table.push(Column::right("margin"), cells(&|c| number::any(c.margin)));
    if distinct.iter().any(|c| !c.detail.is_empty()) {
        table.push(Column::left("detail"), cells(&|c| c.detail.to_string()));
    }
    *text += &table.render(None);
}

fn worst(text: &mut String, what: &str, by: &str, hop: &Hop, lines: &[(usize, Option<f64>)]) {
    if lines.is_empty() {
        return;
    }
    let lines: Vec<String> = lines
        .iter()
        .take(WORST)
        .map(|(i, value)| format!("{i} ({})", value.map_or_else(|| "none".into(), |v| format!("{v:.4}"))))
        .collect();
    let _ = writeln!(text, "  worst {what} of {} by {by}: {}", hop.name, lines.join(", "));
}

/// How this tool is called where these flags are wanted: an archive is for machines that may have no cargo.
pub fn program(flags: &[String]) -> &'static [&'static str] {
    match flags.iter().any(|flag| flag == crate::archive::FLAG) {
        true => &["cargo-accuracy"],
        false => &["cargo", "accuracy"],
    }
}

/// The command that runs this case alone, as it ran here.
pub fn rerun(record: &Record, flags: &[String]) -> String {
    let mut words = program(flags).to_vec();
    words.extend(["-p", &record.package, "--arch", &record.arch]);
    words.extend(flags.iter().map(String::as_str));
    words.push(&record.id);
    debug_assert!(record.id.starts_with(test_path(&record.id)));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// As a POSIX shell reads it back.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
