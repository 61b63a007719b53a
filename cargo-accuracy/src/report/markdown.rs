//! `--report markdown=PATH`: a comment on a pull request. The verdict first, then what failed with its cause and the
//! command that runs it alone, then the cosine tables, folded. Never longer than a comment may be.

use super::emulation;
use super::model::Report;
use super::style;
use super::text::failure::{self, Alike};
use super::text::{self, number};
use crate::baseline::compare::Comparison;
use crate::baseline::file::number as number_of;
use crate::lint::{Finding, Severity};
use crate::run::folder::test_path;
use accuracy_core::identity;
use accuracy_core::record::{Gate, Record, Verdict};
use std::collections::HashMap;
use std::fmt::Write as _;

/// GitHub takes comments of 65,536 characters.
const LIMIT: usize = 60_000;
/// Cases of one group that are listed.
const LISTED: usize = 20;
/// What is kept free for the tables' end and the closing line.
const RESERVE: usize = 2_000;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    heading(&mut text, report);
    for problem in &report.problems {
        let _ = writeln!(text, "**Incomplete**: {}\n", inline(problem));
    }
    // Failures may take two thirds, so that some of the tables always follow.
    let alike = failure::alike(report.told());
    let told = section(&mut text, alike.iter(), LIMIT * 2 / 3, |text, group| {
        failing(text, group.records[0], report);
        others(text, group);
    });
    let untold: usize = alike[told..].iter().map(|group| group.records.len()).sum();
    if untold > 0 {
        let _ = writeln!(text, "{untold} more failing cases are in the other reports.\n");
    }
    for (reason, n) in report.unfinished() {
        let _ = writeln!(text, "**NOT RUN** {n} cases: {}\n", inline(reason));
    }
    for test in report.powerless() {
        let _ = writeln!(text, "**INCONCLUSIVE** `{}`: {}\n", test.test, inline(&test.reason));
    }
    if !report.hidden.is_empty() {
        let _ = writeln!(text, "#### Tests that exist and are in no executable of this build\n");
        let lines: Vec<String> =
            report.hidden.iter().map(|h| format!("- {}", inline(&h.to_string()))).collect();
        list(&mut text, &lines, LIMIT - 5 * RESERVE);
    }
    if let Some(comparison) = &report.baseline {
        baseline(&mut text, comparison);
    }
    findings(&mut text, report);
    lint(&mut text, &report.lint);
    tables(&mut text, report);
    if !report.libraries.is_empty() {
        let _ = writeln!(text, "<details><summary>{} kernel libraries</summary>\n", report.libraries.len());
        let lines: Vec<String> =
            report.libraries.iter().map(|l| format!("- {}", inline(&l.to_string()))).collect();
        list(&mut text, &lines, LIMIT);
        let _ = writeln!(text, "</details>\n");
    }
    text
}

fn heading(text: &mut String, report: &Report) {
    let s = &report.summary;
    let passes = report.exit_code() == crate::exit::ExitCode::Correct;
    let mark = if passes { "✅" } else { "❌" };
    let mut parts = vec![format!("{} passed", s.passed)];
    for (count, what) in [
        (s.failed, "failed"),
        (report.baseline.as_ref().map_or(0, Comparison::errors), "not as in the baseline"),
        (report.lint_errors(), "silent parameters"),
        (s.tests_inconclusive, "tests prove too little"),
        (s.known_failures, "known failures"),
        (s.skipped, "skipped"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let _ = writeln!(text, "### {mark} Accuracy: {}\n", parts.join(", "));
    if let Some(line) = report.loosened_line() {
        let _ = writeln!(text, "**{}**\n", inline(&line));
    }
    let least = report.records.iter().filter_map(|r| r.metrics.cos).fold(f64::INFINITY, f64::min);
    let mut line = format!("{} cases on {}", s.cases, report.archs().join(", "));
    if let Some(device) = &report.device {
        let _ = write!(line, " ({device})");
    }
    if least.is_finite() {
        let _ = write!(line, ", least cosine {}", number::cosine(least));
    }
    if let Some(min_cos) = report.min_cos {
        let _ = write!(line, ", threshold {min_cos}");
    }
    let _ = writeln!(text, "{line}\n");
    if let Some(line) = emulation::line(report) {
        let _ = writeln!(text, "{line}\n");
    }
}

/// What the emulator saw kernels do wrong.
fn findings(text: &mut String, report: &Report) {
    let found = emulation::findings(&report.records);
    if found.is_empty() {
        return;
    }
    let _ = writeln!(text, "#### Findings of the emulator\n");
    let errors: Vec<_> = found.iter().filter(|found| found.is_error()).collect();
    let told = section(text, errors.iter(), LIMIT - 5 * RESERVE, |text, found| {
        let _ = writeln!(text, "- {} ({})", inline(&found.words()), found.cases());
    });
    if told < errors.len() {
        let _ = writeln!(text, "- and {} more", errors.len() - told);
    }
    if let Some(notes) = emulation::notes(&found) {
        let _ = writeln!(text, "- {}", inline(&notes));
    }
    text.push('\n');
}

/// Appends what `write` makes of each item while there is room; returns for how many there was.
fn section<T>(
    text: &mut String,
    items: impl Iterator<Item = T>,
    limit: usize,
    write: impl Fn(&mut String, T),
) -> usize {
    let mut told = 0;
    for item in items {
        let mut one = String::new();
        write(&mut one, item);
        if text.len() + one.len() > limit {
            break;
        }
        *text += &one;
        told += 1;
    }
    told
}

fn failing(text: &mut String, record: &Record, report: &Report) {
    let cos = record.metrics.cos.map_or(String::new(), |c| format!(", cosine {}", number::cosine(c)));
    let _ = writeln!(text, "**{}** `{}`{cos}", style::verdict_text(record), record.id);
    let hops: Vec<String> = record
        .hops
        .iter()
        .map(|hop| {
            let cos = hop.cos.map_or_else(|| "-".into(), number::cosine);
            if hop.failed_checks.is_empty() {
                format!("`{}` {cos}", hop.name)
            } else {
                format!("**`{}` {cos}** ({})", hop.name, hop.failed_checks.join(", "))
            }
        })
        .collect();
    if !hops.is_empty() {
        let _ = writeln!(text, "- {}", hops.join(" → "));
    }
    for cause in record.causes.iter().take(3) {
        let cos = cause.cos.map_or(String::new(), |c| format!(" → cosine {}", number::cosine(c)));
        let (label, name) = (cause.label(), &cause.cause);
        let _ = writeln!(text, "- {label} **{name}**: {}{cos}", inline(&cause.told()));
    }
    for origin in emulation::origins(record) {
        let _ = writeln!(text, "- origin: {}", inline(&origin));
    }
    if record.causes.is_empty()
        && let Some(reason) = record.reason.lines().next()
    {
        let _ = writeln!(text, "- {}", inline(reason));
    }
    let _ = writeln!(
        text,
        "- `{}:{}`\n\n```sh\n{}\n```\n",
        record.file,
        record.line,
        failure::rerun(record, &report.flags)
    );
}

/// The cases that fail as the first of their group does, folded.
fn others(text: &mut String, group: &Alike<'_>) {
    let Some((_, others)) = group.records.split_first().filter(|(_, others)| !others.is_empty()) else {
        return;
    };
    let title = inline(&group.title());
    let _ = writeln!(text, "<details><summary>and {} more of <code>{title}</code></summary>\n", others.len());
    for record in others.iter().take(LISTED) {
        let _ = writeln!(text, "- `{}`", record.id);
    }
    if let more @ 1.. = others.len().saturating_sub(LISTED) {
        let _ = writeln!(text, "- and {more} more, in the other reports");
    }
    let _ = writeln!(text, "\n</details>\n");
}

fn lint(text: &mut String, findings: &[Finding]) {
    let shown = |f: &&Finding| f.suppressed.is_none() && f.severity != Severity::Note;
    let count = findings.iter().filter(shown).count();
    if count == 0 {
        return;
    }
    let _ = writeln!(text, "#### Silent parameters\n");
    let told = section(text, findings.iter().filter(shown), LIMIT - 5 * RESERVE, |text, f| {
        let error = if f.severity == Severity::Error { "**error** " } else { "" };
        let _ = writeln!(text, "- {error}{} `{}:{}` {}", f.rule, f.path, f.line, inline(&f.message));
    });
    if told < count {
        let _ = writeln!(text, "- and {} more", count - told);
    }
    text.push('\n');
}

/// What has changed since the baseline: in the open what needs a decision, folded what is only new.
fn baseline(text: &mut String, found: &Comparison) {
    let _ = writeln!(text, "#### Baseline: {}\n", anstream::adapter::strip_str(&text::baseline::line(found)));
    let mut lines: Vec<String> = Vec::new();
    lines.extend(found.told_of_nothing().map(|told| format!("- **nothing compared**: {}", inline(&told))));
    lines.extend(found.vanished.iter().map(|v| format!("- **vanished** `{}`: {}", v.id, inline(&v.reason))));
    lines.extend(found.changes.iter().map(|c| {
        let reason = match &c.reason {
            Some(reason) => format!("because: {}", inline(reason)),
            None => "**without a reason**".to_owned(),
        };
        format!("- **changed** `{}`: {} {} → {}, {reason}", c.id, c.what, c.before, c.now)
    }));
    lines.extend(found.regressions.iter().map(|r| {
        format!(
            "- **regressed** `{}`: error of {} {} → {}",
            r.id,
            r.error,
            number_of(r.before),
            number_of(r.now)
        )
    }));
    lines.extend(
        found.without.iter().map(|place| format!("- nothing to compare with: it has no case of {place}")),
    );
    list(text, &lines, LIMIT - 5 * RESERVE);
    for (what, ids) in [("new", &found.new), ("removed", &found.removed)] {
        if !ids.is_empty() {
            let _ = writeln!(text, "<details><summary>{} {what}</summary>\n", ids.len());
            let lines: Vec<String> = ids.iter().map(|id| format!("- `{id}`")).collect();
            list(text, &lines, LIMIT - 5 * RESERVE);
            let _ = writeln!(text, "</details>\n");
        }
    }
}

/// Lines while there is room, and how many more there are.
fn list(text: &mut String, lines: &[String], limit: usize) {
    let told = section(text, lines.iter(), limit, |text, line| {
        let _ = writeln!(text, "{line}");
    });
    if told < lines.len() {
        let _ = writeln!(text, "- and {} more", lines.len() - told);
    }
    if !lines.is_empty() {
        text.push('\n');
    }
}

/// One folded table a test.
fn tables(text: &mut String, report: &Report) {
    let mut order: Vec<(&str, Vec<&Record>)> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    for record in &report.records {
        let path = test_path(&record.id);
        let at = *at.entry(path).or_insert_with(|| {
            order.push((path, Vec::new()));
            order.len() - 1
        });
        order[at].1.push(record);
    }
    let told = section(text, order.iter(), LIMIT - RESERVE, |text, (path, cases)| {
        let failed = cases.iter().filter(|r| r.gate == Gate::Fail).count();
        let outcome = if failed > 0 {
            format!("{failed} of {} failed", cases.len())
        } else {
            format!("{} cases", cases.len())
        };
        let _ = writeln!(text, "<details><summary><code>{path}</code>: {outcome}</summary>\n");
        let _ = writeln!(
            text,
            "| case | cosine | row cos | gain | verdict |\n| --- | ---: | ---: | ---: | --- |"
        );
        // What failed first: a long table is cut at its end.
        let mut sorted = cases.clone();
        sorted.sort_by_key(|r| r.gate == Gate::Pass);
        for record in sorted.iter().take(60) {
            let coordinates = identity::listed(&record.id);
            let m = &record.metrics;
            let cell = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "-".into(), show);
            let verdict = match record.verdict {
                Verdict::Skipped => format!("skipped: {}", inline(&record.reason)),
                _ => style::verdict_text(record),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {verdict} |",
                cells(coordinates),
                cell(m.cos, number::cosine),
                cell(m.cos_row_min, number::cosine),
                cell(m.gain, number::gain)
            );
        }
        if sorted.len() > 60 {
            let _ = writeln!(text, "\n{} more cases", sorted.len() - 60);
        }
        let _ = writeln!(text, "\n</details>\n");
    });
    if told < order.len() {
        let _ = writeln!(text, "{} more tests are in the other reports.", order.len() - told);
    }
}

/// Text of ours within a line of Markdown.
fn inline(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|").replace('<', "&lt;")
}

/// A case's coordinates as a cell.
fn cells(coordinates: &str) -> String {
    format!("`{}`", coordinates.replace('|', "\\|").replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::super::text::fixture::{failing, record};
    use super::*;

    #[test]
    fn the_verdict_comes_first_and_a_failure_tells_cause_and_command() {
        let report = Report::new(
            vec![record("k::t[arch=host,tokens=1]", 0.9999986), failing("k::t[arch=host,tokens=33]")],
            &[],
        );
        let text = render(&report);
        assert!(text.starts_with("### ❌ Accuracy: 1 passed, 1 failed\n"), "{text}");
        for part in
            ["scale_layout", "cargo accuracy -p kernels", "<details>", "| `arch=host,tokens=1` | 0.999999 |"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn failures_of_one_cause_are_told_once_with_their_number() {
        let of = |count: usize| {
            let records = (0..count).map(|i| failing(&format!("k::t[arch=host,tokens={i}]"))).collect();
            render(&Report::new(records, &[]))
        };
        let text = of(12);
        assert_eq!(text.matches("perhaps **scale_layout**").count(), 1, "{text}");
        assert!(
            text.contains("and 11 more of <code>k::t full_chain: CATASTROPHIC, scale_layout</code>"),
            "{text}"
        );
        for i in 1..12 {
            assert!(text.contains(&format!("\n- `k::t[arch=host,tokens={i}]`\n")), "{i}: {text}");
        }
        assert!(!text.contains("in the other reports"), "{text}");
        assert!(of(25).contains("- and 4 more, in the other reports"), "{}", of(25));
    }

    #[test]
    fn a_comment_fits_whatever_the_size_and_says_what_it_left_out() {
        let records =
            (0..50_000).map(|i| failing(&format!("k::t{}[arch=host,tokens={i}]", i % 500))).collect();
        let text = render(&Report::new(records, &[]));
        assert!(text.len() < LIMIT, "{}", text.len());
        assert!(
            text.contains("more failing cases are in the other reports"),
            "{}",
            &text[text.len() - 300..]
        );
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
}
