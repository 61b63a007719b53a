//! `--report github=PATH`: workflow commands that GitHub shows beside the diff. On by itself under GitHub Actions,
//! where the Markdown report also becomes the step's summary.

use super::model::Report;
use super::style;
use crate::baseline::compare::Comparison;
use crate::baseline::file::number;
use crate::lint::render::{annotation, escape, property};
use crate::lint::{Finding, Severity};
use crate::screen::{Holds, harmless};
use anyhow::Context as _;
use std::fmt::Write as _;
use std::io::Write as _;

/// GitHub shows ten annotations of each kind for a step.
const SHOWN: usize = 10;
/// A step's summary may be one mebibyte.
const SUMMARY: usize = 1 << 20;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    if let Some(line) = report.loosened_line() {
        let _ = writeln!(text, "::warning title=loosened gate::{}", escape(&line));
    }
    for hidden in report.hidden.iter().take(SHOWN) {
        let kind = if report.deny_hidden { "error" } else { "warning" };
        let line = u32::try_from(hidden.line).unwrap_or(0);
        text += &annotation(kind, (&hidden.file, line, None), "hidden test", &hidden.to_string());
    }
    for problem in &report.problems {
        let _ = writeln!(text, "::error title=incomplete::{}", escape(problem));
    }
    for (reason, n) in report.unfinished() {
        let message = format!("{n} cases: {reason}");
        let _ = writeln!(text, "::error title=not run::{}", escape(&message));
    }
    if let Some(found) = &report.baseline {
        baseline(&mut text, found);
    }
    let failures: Vec<_> = report.told().collect();
    for record in failures.iter().take(SHOWN) {
        let cause = record
            .causes
            .first()
            .map_or(String::new(), |c| format!("\n{}: {}: {}", c.label(), c.cause, c.told()));
        let reason = record.reason.lines().next().unwrap_or_default();
        let message = format!("{} {}\n{reason}{cause}", style::verdict_text(record), record.id);
        let title = format!("{} {}", record.test, record.verdict.name());
        text += &annotation("error", (&record.file, record.line, None), &title, &message);
    }
    for test in report.powerless().take(SHOWN.saturating_sub(failures.len())) {
        let _ = writeln!(text, "::error title={}::{}", property(&test.test), escape(&test.reason));
    }
    for (kind, severity) in [("error", Severity::Error), ("warning", Severity::Warning)] {
        let open = if severity == Severity::Error { SHOWN.saturating_sub(failures.len()) } else { SHOWN };
        let of_kind = |f: &&Finding| f.severity == severity && f.suppressed.is_none();
        for f in report.lint.iter().filter(of_kind).take(open) {
            let title = format!("{} {}", f.rule, f.parameter);
            let message = format!("{} ({})", f.message, f.help);
            text += &annotation(kind, (&f.path, f.line, Some(f.column)), &title, &message);
        }
    }
    text
}

fn baseline(text: &mut String, found: &Comparison) {
    for told in found.told_of_nothing().take(SHOWN) {
        let _ = writeln!(text, "::error title=nothing compared with the baseline::{}", escape(&told));
    }
    let vanished = found.vanished.iter().map(|v| ("vanished", format!("{}\n{}", v.id, v.reason)));
    let changed = found
        .unexplained()
        .map(|c| ("changed", format!("{}\n{}: {} -> {}, without a reason", c.id, c.what, c.before, c.now)));
    for (title, message) in vanished.chain(changed).take(SHOWN) {
        let _ = writeln!(text, "::error title={title} since the baseline::{}", escape(&message));
    }
    for r in found.regressions.iter().take(SHOWN) {
        let message = format!("{}\nerror of {}: {} -> {}", r.id, r.error, number(r.before), number(r.now));
        let _ = writeln!(text, "::warning title=regressed since the baseline::{}", escape(&message));
    }
}

/// Annotations and the step's summary, where a GitHub runner says that it takes them.
pub fn in_actions(report: &Report, stdout_taken: bool) -> anyhow::Result<()> {
    if std::env::var_os("GITHUB_ACTIONS").is_none_or(|v| v != "true") {
        return Ok(());
    }
    let text = harmless(&render(report), Holds::Commands);
    // The runner reads commands from both streams.
    if stdout_taken {
        std::io::stderr().write_all(text.as_bytes())?;
    } else {
        std::io::stdout().write_all(text.as_bytes())?;
    }
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
        let write = || format!("cannot write the step's summary {}", path.display());
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(&path).with_context(write)?;
        let before = file.metadata().map_or(0, |m| m.len() as usize);
        let summary = harmless(&super::markdown::render(report), Holds::Markup);
        if before + summary.len() < SUMMARY {
            file.write_all(summary.as_bytes()).with_context(write)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::text::fixture::failing;
    use super::*;

    #[test]
    fn annotations_are_one_line_each_escaped_and_capped() {
        let records = (0..30).map(|i| failing(&format!("k::t[arch=host,tokens={i}]"))).collect();
        let text = render(&Report::new(records, &[]));
        assert_eq!(text.lines().count(), SHOWN);
        for line in text.lines() {
            assert!(line.starts_with("::error file=kernels/src/fp8.rs,line=42,title="), "{line}");
            assert!(line.contains("%0A"), "{line}");
        }
    }
}
