//! What a person reads: a table a test and check, then the failures, then the summary.
//!
//! [`mod@table`] lays out columns, [`failure`] tells one failing case, [`number`] writes numbers.

pub mod baseline;
pub mod failure;
#[cfg(test)]
pub mod fixture;
pub mod number;
pub mod table;
pub mod wrap;

use super::emulation;
use super::model::{Report, TestPower};
use super::style::{self, paint};
use crate::lint::Severity;
use crate::output::OutputArgs;
use crate::run::folder::test_path;
use crate::run::outcome::is_known_failure;
use accuracy_core::identity::Identity;
use accuracy_core::record::{Cause, Gate, Record, Verdict};
use anstyle::Style;
use failure::{Alike, without_figures};
use std::borrow::Cow;
use std::fmt::Write as _;
use table::{Cell, Column, Table};

/// Columns that the reader can do without, and when they go: the highest number first. The coordinates of a case,
/// its cosine and its verdict always stay.
mod drop_order {
    pub const SECONDS: u8 = 5;
    pub const CHAIN: u8 = 4;
    pub const ROW_COSINE: u8 = 3;
    pub const GAIN: u8 = 2;
    pub const FLOOR: u8 = 1;
}

/// Hidden tests that are named.
const HIDDEN: usize = 50;

/// Findings of the emulator that are told.
const FINDINGS: usize = 20;

/// Distinct causes that the summary names.
const CAUSES: usize = 6;

/// The whole report, with colours in it that the stream may take out again.
pub fn render(report: &Report, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    if let Some(line) = report.loosened_line() {
        let _ = writeln!(text, "{}", paint(style::WARN, line));
    }
    if !output.quiet {
        for group in groups(&report.records) {
            table_of(&mut text, &group, output.verbose, width);
        }
        if output.verbose {
            for test in report.tests.iter().filter(|t| !t.power.is_empty()) {
                power_of(&mut text, test);
            }
        }
    }
    failures(&mut text, report, output.verbose, width);
    for test in report.powerless() {
        let _ = writeln!(
            text,
            "{} {} on {}\n  {}\n",
            paint(style::WARN, "INCONCLUSIVE"),
            paint(style::BOLD, &test.test),
            test.arch,
            test.reason
        );
    }
    emulator(&mut text, report);
    lint(&mut text, report, output.verbose);
    if let Some(comparison) = &report.baseline {
        baseline::write(&mut text, comparison, output.verbose);
    }
    summary(&mut text, report, output.verbose, width);
    text
}

/// A block for the failures that are alike, or one for each failure if `all` are wanted.
fn failures(text: &mut String, report: &Report, all: bool, width: Option<usize>) {
    for group in &failure::alike(report.told()) {
        if all {
            for record in &group.records {
                failure::write(text, &Alike::of(record), report, all, width);
            }
        } else {
            failure::write(text, group, report, all, width);
        }
    }
    let unfinished = report.unfinished();
    for (reason, n) in &unfinished {
        let cases = if *n == 1 { "1 case" } else { &format!("{n} cases") };
        let _ = writeln!(text, "{} {cases}: {reason}", paint(style::BAD, "NOT RUN"));
    }
    if !unfinished.is_empty() {
        text.push('\n');
    }
}

/// What the emulator saw kernels do wrong, whatever their numbers were.
fn emulator(text: &mut String, report: &Report) {
    let found = emulation::findings(&report.records);
    let label = paint(style::WARN, "emulator:");
    let errors: Vec<_> = found.iter().filter(|found| found.is_error()).collect();
    for error in errors.iter().take(FINDINGS) {
        let _ = writeln!(text, "{label} {} ({})", error.words(), error.cases());
    }
    if errors.len() > FINDINGS {
        let _ = writeln!(
            text,
            "and {} more findings of the emulator, in the JSON report",
            errors.len() - FINDINGS
        );
    }
    if let Some(notes) = emulation::notes(&found) {
        let _ = writeln!(text, "{notes}");
    }
    if !found.is_empty() {
        text.push('\n');
    }
}

/// The lint's findings; one that a parameter check has confirmed says so.
fn lint(text: &mut String, report: &Report, notes: bool) {
    let shown: Vec<_> = report
        .lint
        .iter()
        .filter(|f| f.suppressed.is_none() && (notes || f.severity != Severity::Note))
        .collect();
    for finding in &shown {
        let (style, severity) = match finding.severity {
            Severity::Error => (style::BAD, "error"),
            Severity::Warning => (style::WARN, "warning"),
            Severity::Note => (style::NOTE, "note"),
        };
        let _ = writeln!(
            text,
            "{} {}: {}\n  at {}:{}\n  {}",
            paint(style, format!("lint {severity} {}", finding.rule)),
            finding.function,
            finding.message,
            finding.path,
            finding.line,
            finding.help
        );
        if finding.confirmed {
            let _ = writeln!(
                text,
                "  confirmed: the parameter check saw no byte react to `{}`",
                finding.parameter
            );
        }
    }
    if !shown.is_empty() {
        text.push('\n');
    }
}

/// The cases of one test with one check, on one architecture.
struct Group<'a> {
    title: String,
    records: Vec<&'a Record>,
}

fn groups(records: &[Record]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for record in records {
        let key = (test_path(&record.id), &record.arch, record.check);
        let i = *at.entry(key).or_insert_with(|| {
            let title = format!("{} {}", test_path(&record.id), record.check);
            groups.push(Group { title, records: Vec::new() });
            groups.len() - 1
        });
        groups[i].records.push(record);
    }
    groups
}

/// The coordinates of a case, in the order of its identity; check and test stand in the title.
fn coordinates(id: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    Identity::of(id).without(|name| name == "check").into_coordinates()
}

/// Coordinates of a group: those that are the same throughout, and those that vary.
struct Axes<'a> {
    constant: Vec<(Cow<'a, str>, String)>,
    varying: Vec<Axis<'a>>,
}

struct Axis<'a> {
    name: Cow<'a, str>,
    /// Of each record, in their order.
    values: Vec<Option<Cow<'a, str>>>,
    /// Leading segments that the tensor names of the column share.
    shared: String,
}

fn axes<'a>(records: &[&'a Record]) -> Axes<'a> {
    let mut all: Vec<Axis> = Vec::new();
    for (i, record) in records.iter().enumerate() {
        for (name, value) in coordinates(&record.id) {
            let at = all.iter().position(|axis| axis.name == name).unwrap_or_else(|| {
                all.push(Axis { name, values: vec![None; records.len()], shared: String::new() });
                all.len() - 1
            });
            all[at].values[i] = Some(value);
        }
    }
    let mut axes = Axes { constant: Vec::new(), varying: Vec::new() };
    for mut axis in all {
        match &axis.values[0] {
            Some(first) if axis.values.iter().all(|v| v.as_ref() == Some(first)) => {
                axes.constant.push((axis.name, first.to_string()))
            }
            _ => {
                axis.shared = shared_segments(axis.values.iter().flatten().map(|value| &**value));
                if !axis.shared.is_empty() {
                    axes.constant.push((axis.name.clone(), format!("{}*", axis.shared)));
                }
                axes.varying.push(axis);
            }
        }
    }
    axes
}

/// `model.layers.0.` of `model.layers.0.up_proj` and `model.layers.0.down_proj`.
fn shared_segments<'a>(mut values: impl Iterator<Item = &'a str>) -> String {
    let Some(first) = values.next() else { return String::new() };
    let mut prefix: &str = first.rfind('.').map_or("", |dot| &first[..=dot]);
    for value in values {
        while !value.starts_with(prefix) {
            let shorter = prefix.trim_end_matches('.').rfind('.').map_or(0, |dot| dot + 1);
            prefix = &prefix[..shorter];
        }
    }
    prefix.into()
}

fn table_of(text: &mut String, group: &Group, verbose: bool, width: Option<usize>) {
    let axes = axes(&group.records);
    let (skipped, rows): (Vec<&Record>, Vec<&Record>) =
        group.records.iter().partition(|r| !is_shown(r, verbose));
    let failed = rows.iter().filter(|r| r.gate == Gate::Fail).count();
    let known = rows.iter().filter(|r| is_known_failure(r)).count();
    let cases = if rows.len() == 1 { "1 case".to_string() } else { format!("{} cases", rows.len()) };
    let (state, style) = match (failed, rows.len()) {
        (0, 0) => (String::new(), style::PLAIN),
        (0, _) if known == 0 => (format!("{cases}, all correct"), style::GOOD),
        (0, _) => (format!("{cases}, {known} known to fail"), style::WARN),
        (n, _) => (format!("{cases}, {n} failed"), style::BAD),
    };
    let constants = axes.constant.iter().map(|(name, value)| (format!("{name}={value}"), style::DIM));
    title(text, &group.title, constants.chain([(state, style)]), width);
    if !rows.is_empty() {
        *text += &table(&axes, &group.records, verbose).render(width);
    }
    skips(text, &skipped);
    if verbose {
        for record in rows.iter().filter(|r| r.gate == Gate::Pass && !r.checks.is_empty()) {
            let _ = writeln!(text, "  {}", paint(style::DIM, &record.id));
            failure::checks(text, record.checks.iter(), width);
        }
    }
    text.push('\n');
}

/// The title of a group and what is true of all of it, in lines that fit.
fn title(text: &mut String, title: &str, facts: impl Iterator<Item = (String, Style)>, width: Option<usize>) {
    *text += &paint(style::BOLD, title);
    let mut column = title.chars().count();
    for (fact, style) in facts.filter(|(fact, _)| !fact.is_empty()) {
        let length = fact.chars().count();
        let gap = if width.is_some_and(|w| column + 2 + length > w) { "\n  " } else { "  " };
        column = if gap == "  " { column + 2 + length } else { 2 + length };
        let _ = write!(text, "{gap}{}", paint(style, fact));
    }
    text.push('\n');
}

/// Skipped cases are told as lines with their reasons.
fn is_shown(record: &Record, verbose: bool) -> bool {
    record.verdict != Verdict::Skipped || verbose
}

/// A line for each of `all` that is shown.
fn table(axes: &Axes, all: &[&Record], verbose: bool) -> Table {
    let mut table = Table::default();
    let rows: Vec<&Record> = all.iter().copied().filter(|r| is_shown(r, verbose)).collect();
    for axis in &axes.varying {
        let values = axis.values.iter().zip(all).filter(|(_, r)| is_shown(r, verbose)).map(|(v, _)| v);
        let values: Vec<&str> =
            values.map(|v| v.as_deref().map_or("", |v| v.strip_prefix(&*axis.shared).unwrap_or(v))).collect();
        let numeric = values.iter().all(|v| v.parse::<f64>().is_ok());
        let column = if numeric { Column::right(&axis.name) } else { Column::left(&axis.name) };
        table.push(column.shrinkable(), values.into_iter().map(Cell::plain));
    }
    let metric = |name: &str, drop: Option<u8>, write: &dyn Fn(&Record) -> Option<String>| {
        let cells: Vec<Cell> =
            rows.iter().map(|r| Cell::plain(write(r).unwrap_or_else(|| "-".into()))).collect();
        (drop.map_or(Column::right(name), |order| Column::right(name).dropped(order)), cells)
    };
    let metrics = [
        metric("cosine", None, &|r| r.metrics.cos.map(number::cosine)),
        metric("row cos", Some(drop_order::ROW_COSINE), &|r| r.metrics.cos_row_min.map(number::cosine)),
        metric("gain", Some(drop_order::GAIN), &|r| r.metrics.gain.map(number::gain)),
        metric("chain L2", Some(drop_order::CHAIN), &|r| r.metrics.chain_rel_l2.map(number::small)),
        metric("/floor", Some(drop_order::FLOOR), &|r| {
            let floor = r.metrics.noise_rel_l2.filter(|floor| *floor > 0.0)?;
            Some(format!("{:.2}x", r.metrics.chain_rel_l2? / floor))
        }),
    ];
    for (column, cells) in metrics {
        // A check without such a number has no such column.
        if cells.iter().any(|cell| cell.text != "-") || column.name == "cosine" {
            table.push(column, cells);
        }
    }
    if verbose {
        let (column, cells) = metric("s", Some(drop_order::SECONDS), &|r| Some(format!("{:.2}", r.seconds)));
        table.push(column, cells);
    }
    table.push(Column::left("verdict"), rows.iter().map(|r| verdict_cell(r)));
    table
}

fn verdict_cell(record: &Record) -> Cell {
    let mut verdict = style::verdict_text(record);
    // `FAILED` alone does not say what did.
    if let (Gate::Fail, Some(first)) = (record.gate, record.failed_checks.first()) {
        let _ = write!(verdict, " {first}");
        if record.failed_checks.len() > 1 {
            let _ = write!(verdict, " +{}", record.failed_checks.len() - 1);
        }
    }
    Cell { text: verdict, style: style::of(record) }
}

/// Skipped cases by reason.
fn skips(text: &mut String, skipped: &[&Record]) {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for record in skipped {
        match reasons.iter_mut().find(|(reason, _)| *reason == record.reason) {
            Some((_, n)) => *n += 1,
            None => reasons.push((&record.reason, 1)),
        }
    }
    for (reason, n) in reasons {
        let _ = writeln!(text, "  {}", paint(style::DIM, format!("{n} skipped: {reason}")));
    }
}

fn power_of(text: &mut String, test: &TestPower) {
    let part = if test.whole { "" } else { " (a part of its cases)" };
    let _ = writeln!(text, "{} power on {}{part}", paint(style::BOLD, &test.test), test.arch);
    let mut table = Table::default();
    table.push(Column::left("seeded fault"), test.power.iter().map(|f| Cell::plain(f.name())));
    for (name, count) in [
        ("seen", (|f| f.seen) as fn(&super::model::FaultCount) -> usize),
        ("unseen", |f| f.unseen),
        ("not applicable", |f| f.not_applicable),
    ] {
        table.push(Column::right(name), test.power.iter().map(|f| Cell::plain(count(f).to_string())));
    }
    *text += &table.render(None);
    text.push('\n');
}

/// The causes of a case that are sure, or the first guess where none is: the others are told with the case.
fn stated(record: &Record) -> impl Iterator<Item = &Cause> {
    let sure = record.causes.iter().any(|c| c.confident);
    record.causes.iter().enumerate().filter(move |(i, c)| c.confident || (*i == 0 && !sure)).map(|(_, c)| c)
}

/// What makes two causes one: neither figures nor other readings do.
fn essence(cause: &Cause) -> (&str, Option<&str>, String) {
    (&cause.cause, cause.operand.as_deref(), without_figures(&cause.detail))
}

/// The likely causes, each once: the end of the output is what is read first.
fn causes(text: &mut String, report: &Report, width: Option<usize>) {
    let mut causes: Vec<(&Cause, usize)> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for cause in report.failures().flat_map(stated) {
        let i = *at.entry(essence(cause)).or_insert_with(|| {
            causes.push((cause, 0));
            causes.len() - 1
        });
        causes[i].1 += 1;
    }
    if causes.is_empty() {
        return;
    }
    let _ = writeln!(text, "likely causes");
    for (cause, n) in causes.iter().take(CAUSES) {
        let cases = if *n == 1 { "1 case".to_string() } else { format!("{n} cases") };
        wrap::wrap(text, &format!("{}: {} ({cases})", cause.cause, cause.detail), 2, width);
    }
    if causes.len() > CAUSES {
        let _ = writeln!(text, "  and {} more", causes.len() - CAUSES);
    }
}

fn summary(text: &mut String, report: &Report, verbose: bool, width: Option<usize>) {
    let counts = &report.summary;
    // The verdict is the cosine's; such a case fails by another check.
    let otherwise =
        report.records.iter().filter(|r| r.verdict == Verdict::Correct && r.gate == Gate::Fail).count();
    let parts: Vec<String> = [
        (counts.correct - otherwise, "correct", style::GOOD),
        (otherwise, "failed with a correct cosine", style::BAD),
        (counts.suspicious, "suspicious", style::WARN),
        (counts.broken, "broken", style::BAD),
        (counts.catastrophic, "catastrophic", style::BAD),
        (counts.inconclusive, "inconclusive", style::WARN),
        (counts.skipped, "skipped", style::DIM),
        (counts.crashed, "crashed", style::BAD),
        (counts.timed_out, "timed out", style::BAD),
        (counts.not_run, "not run", style::BAD),
    ]
    .into_iter()
    .filter(|(n, ..)| *n > 0)
    .map(|(n, name, style)| paint(style, format!("{n} {name}")))
    .collect();
    let cases = if counts.cases == 1 { "1 case" } else { &format!("{} cases", counts.cases) };
    let time = report.seconds.map_or(String::new(), |s| format!(" in {s:.1} s"));
    let on = match (&report.device, &report.emulated) {
        (Some(device), Some(_)) => device.clone(),
        _ => report.archs().join(", "),
    };
    let _ = writeln!(text, "{cases}{time} on {on}: {}", parts.join(", "));
    if let Some(line) = emulation::line(report) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(line) = drawn(report) {
        let _ = writeln!(text, "{line}");
    }
    if counts.tests_inconclusive > 0 {
        let tests = if counts.tests_inconclusive == 1 { "test" } else { "tests" };
        let line = format!(
            "{} {tests} inconclusive as a whole: a declared fault is never seen",
            counts.tests_inconclusive
        );
        let _ = writeln!(text, "{}", paint(style::WARN, line));
    }
    if counts.known_failures > 0 {
        let line =
            format!("{} of those passed fail as their tests declare (known_failure)", counts.known_failures);
        let _ = writeln!(text, "{}", paint(style::WARN, line));
    }
    let unknown = report.tests.iter().filter(|t| !t.whole && !t.power.is_empty()).count();
    if unknown > 0 {
        let tests = if unknown == 1 { "1 test".to_string() } else { format!("{unknown} tests") };
        let line =
            format!("{tests} in part only: whether every declared fault is seen is judged over whole tests");
        let _ = writeln!(text, "{}", paint(style::DIM, line));
    }
    causes(text, report, width);
    if let Some(line) = lint_line(report, verbose) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(line) = report.baseline.as_ref().map(baseline::line) {
        let _ = writeln!(text, "{line}");
    }
    hidden(text, report, verbose);
    if verbose {
        for library in &report.libraries {
            let _ = writeln!(text, "judged {library}");
        }
    }
    for problem in &report.problems {
        let _ = writeln!(text, "{}: {problem}", paint(style::BAD, "INCOMPLETE"));
    }
    if let Some(folder) = &report.folder {
        let _ = writeln!(text, "{}", paint(style::DIM, format!("records in {}", folder.display())));
    }
    // The last line keeps this form, in brackets where the cases alone do not say how the run ended: scripts read it.
    let style = if counts.failed > 0 { style::BAD } else { style::PLAIN };
    let failed = paint(style, format!("{} failed", counts.failed));
    let cases = format!("{} passed, {failed}, {} skipped", counts.passed, counts.skipped);
    let _ = match beside_cases(report) {
        Some(why) if counts.failed == 0 => writeln!(text, "{} ({cases})", paint(style::BAD, why)),
        _ => writeln!(text, "{cases}"),
    };
}

/// How many cases were drawn, and what became of them.
fn drawn(report: &Report) -> Option<String> {
    let drawn = || report.records.iter().filter(|record| record.fuzz.is_some());
    let of = |verdict: fn(&Record) -> bool| drawn().filter(|record| verdict(record)).count();
    let all = drawn().count();
    let skipped = of(|record| record.verdict == Verdict::Skipped);
    let failed = of(|record| record.gate == Gate::Fail);
    (all > 0)
        .then(|| format!("{all} of the cases have drawn shapes (--fuzz): {failed} failed, {skipped} skipped"))
}

/// Tests that exist and could not run: by name, with the reason.
fn hidden(text: &mut String, report: &Report, all: bool) {
    if report.hidden.is_empty() {
        return;
    }
    let n = report.hidden.len();
    let tests = if n == 1 { "1 test exists and is".to_owned() } else { format!("{n} tests exist and are") };
    let style = if report.deny_hidden { style::BAD } else { style::WARN };
    let _ = writeln!(text, "{}", paint(style, format!("{tests} in no executable of this build")));
    let shown = if all { n } else { HIDDEN };
    for hidden in report.hidden.iter().take(shown) {
        let _ = writeln!(text, "  {hidden}");
    }
    if n > shown {
        let _ = writeln!(text, "  and {} more, named with -v", n - shown);
    }
}

/// Why a run is not green of which no case failed.
fn beside_cases(report: &Report) -> Option<String> {
    if !report.problems.is_empty() {
        let problems = match &report.problems[..] {
            [one] => one.lines().next().unwrap_or_default().to_owned(),
            several => format!("{} problems", several.len()),
        };
        return Some(format!("INCOMPLETE: {problems}"));
    }
    let counts = &report.summary;
    let vanished = report.baseline.as_ref().map_or(0, |found| found.vanished.len());
    let changed = report.baseline.as_ref().map_or(0, |found| found.unexplained().count());
    let nothing = report.baseline.as_ref().map_or(0, |found| found.nothing_compared.len());
    let of = |n: usize, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let why: Vec<String> = [
        of(vanished, "case vanished", "cases vanished"),
        of(changed, "change without a reason", "changes without a reason"),
        of(counts.tests_inconclusive, "test is inconclusive", "tests are inconclusive"),
        of(report.lint_errors(), "lint error", "lint errors"),
        of(
            nothing,
            "baseline without anything to compare with",
            "baselines without anything to compare with",
        ),
        of(report.denied_hidden(), "hidden test", "hidden tests"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match why.is_empty() {
        false => Some(format!("FAILED the gate: {}", why.join(", "))),
        true => (counts.passed == 0).then(|| "NOTHING PASSED".into()),
    }
}

/// What the lint found, where it ran.
fn lint_line(report: &Report, verbose: bool) -> Option<String> {
    let count =
        |severity| report.lint.iter().filter(|f| f.severity == severity && f.suppressed.is_none()).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let hint = if notes > 0 && !verbose { " (-v)" } else { "" };
    report.linted.then(|| {
        let style = if errors > 0 { style::BAD } else { style::PLAIN };
        let unread = match report.lint_unread {
            0 => String::new(),
            n => format!(", {} not read", if n == 1 { "1 file".into() } else { format!("{n} files") }),
        };
        format!(
            "lint: {}, {warnings} warnings, {notes} notes{hint}{unread}",
            paint(style, format!("{errors} errors"))
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::compare::Comparison;
    use crate::run::folder::RunInfo;
    use accuracy_core::meta::Check;
    use accuracy_core::record::{CheckResult, Hop};
    use fixture::record;

    fn case(coordinates: &str, cos: f64) -> Record {
        record(&format!("kernels::fp8::blockscale[check=full_chain,arch=host,{coordinates}]"), cos)
    }

    fn check(name: &str, hop: &str, value: f64, bound: f64, detail: &str) -> CheckResult {
        CheckResult {
            check: name.into(),
            hop: hop.into(),
            value: Some(value),
            bound: Some(bound),
            margin: Some(if name == "cos" { value - bound } else { 1.0 - value / bound }),
            ok: if name == "cos" { value >= bound } else { value <= bound },
            detail: detail.into(),
        }
    }

    /// A run with a case of every kind in it.
    fn report() -> Report {
        let mut records = Vec::new();
        for dtype in ["e4m3fn", "e4m3fnuz"] {
            for quant in ["primary", "fallback"] {
                for layer in ["gate_proj", "up_proj"] {
                    records.push(case(
                        &format!(
                            "dtype={dtype},quant={quant},shuffle_scale=true,tokens=33,w=model.layers.0.mlp.{layer}"
                        ),
                        0.9999986,
                    ));
                }
            }
        }
        let broken = &mut records[2];
        broken.verdict = Verdict::Catastrophic;
        broken.gate = Gate::Fail;
        broken.failed_checks = vec!["cos".into(), "chain".into()];
        broken.margin = Some(0.1505272 - 0.999);
        broken.metrics.cos = Some(0.1505272);
        broken.metrics.cos_row_min = Some(0.1219661);
        broken.metrics.chain_rel_l2 = Some(1.7439508);
        broken.checks = vec![
            check("cos", "xq", 0.1505272, 0.999, ""),
            check("cos", "y", 0.9999986, 0.999, ""),
            check("chain", "", 1.7439508, 0.0554, ""),
        ]
        .into();
        let hop = |name: &str, kernel: &str, against: &str, cos: f64| Hop {
            name: name.into(),
            kernel: Some(kernel.into()),
            judged_against: against.into(),
            cos: Some(cos),
            gain: Some(1.0),
            ..Hop::default()
        };
        broken.hops = vec![
            Hop {
                scale_cos: Some(0.1832431),
                failed_checks: vec!["cos".into()],
                worst_rows: vec![(30, Some(0.122)), (9, Some(0.1588))],
                worst_cols: vec![(83, Some(22.7)), (54, None)],
                ..hop("xq", "group_quant_fp8_fallback", "quantizer", 0.1505272)
            },
            hop("y", "gemm_a8w8_blockscale", "given_bytes", 0.9999986),
        ];
        broken.causes = vec![Cause {
            cause: "parameter_ignored".into(),
            confident: true,
            detail: "`group_quant_fp8_fallback` ignores `shuffle_scale`".into(),
            ..Cause::default()
        }];
        broken.reason = "cos of xq".into();

        let crashed = &mut records[5];
        *crashed = fixture::planned(&crashed.id).without_result(
            Verdict::Crashed,
            "killed by SIGSEGV (segmentation fault) before it left a record\nlaunching gemm_a8w8_blockscale",
        );
        for record in &mut records[6..] {
            *record = fixture::planned(&record.id)
                .without_result(Verdict::Skipped, "gfx950 does not decode e4m3fnuz natively");
        }

        let mut ignored = record(
            "kernels::fp8::blockscale[check=parameter,arch=host,dtype=e4m3fn,quant=primary,parameter=shuffle_scale,tokens=33,w=model.layers.0.mlp.gate_proj]",
            0.9999986,
        );
        ignored.check = Check::Parameter;
        ignored.metrics.chain_rel_l2 = None;
        ignored.verdict = Verdict::Inconclusive;
        ignored.gate = Gate::Fail;
        ignored.reason =
            "no byte reacts to `shuffle_scale` on any path: it could not be seen to matter".into();
        records.push(ignored);
        let run = RunInfo { flags: vec!["--release".into()], ..RunInfo::default() };
        Report { seconds: Some(3.25), ..Report::new(records, &[run]) }
    }

    fn rendered(output: &OutputArgs, width: Option<usize>) -> String {
        anstream::adapter::strip_str(&render(&report(), output, width)).to_string()
    }

    #[test]
    fn at_140_columns_everything_fits() {
        insta::assert_snapshot!(rendered(&OutputArgs::default(), Some(140)));
    }

    #[test]
    fn at_80_columns_what_matters_least_is_left_out() {
        let text = rendered(&OutputArgs::default(), Some(80));
        let tables = text.split("\nCATASTROPHIC ").next().unwrap();
        assert!(tables.lines().all(|line| line.chars().count() <= 80), "{tables}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn verbose_shows_the_checks() {
        insta::assert_snapshot!(rendered(&OutputArgs { verbose: true, ..OutputArgs::default() }, None));
    }

    #[test]
    fn a_value_with_commas_is_one_column_and_pastes_back_whole() {
        let id = |tile: &str| format!("k::t[check=full_chain,arch=host,tile={tile},tokens=33]");
        let records: Vec<Record> =
            ["(64,128)", "(64,256)"].iter().map(|tile| fixture::record(&id(tile), 0.9999)).collect();
        let lines = [failure::rerun(&records[0], &[]), failure::rerun(&records[1], &[])];
        let text = plain(&Report::new(records, &[]));
        for tile in ["(64,128)", "(64,256)"] {
            assert!(text.contains(&format!("  {tile}  ")), "{text}");
        }
        assert!(text.contains("tokens=33") && !text.contains("128)="), "{text}");
        for (line, tile) in lines.iter().zip(["(64,128)", "(64,256)"]) {
            let pasted = line.split_once('\'').and_then(|(_, rest)| rest.strip_suffix('\'')).unwrap();
            assert_eq!(pasted, id(tile), "a shell takes it as one word");
            let meant = |other: &str| crate::run::select::matches(&[pasted.to_owned()], &id(other));
            assert!(meant(tile) && ["(64,128)", "(64,256)"].iter().filter(|other| meant(other)).count() == 1);
        }
    }

    #[test]
    fn nothing_ends_in_a_space() {
        let text = rendered(&OutputArgs { verbose: true, ..OutputArgs::default() }, Some(100));
        assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
    }

    #[test]
    fn many_failures_alike_are_told_a_few_times() {
        let records: Vec<Record> = (0..40)
            .map(|i| {
                let id = format!("k::t[check=full_chain,arch=host,tokens={i}]");
                fixture::planned(&id).without_result(Verdict::NotRun, "no such file")
            })
            .collect();
        let report = Report::new(records, &[]);
        let told = |verbose| render(&report, &OutputArgs { verbose, ..OutputArgs::default() }, None);
        assert_eq!(told(false).matches("re-run:").count(), 1);
        assert!(
            told(false).contains("  40 cases fail in this way; this is the first of them\n"),
            "{}",
            told(false)
        );
        assert!(
            told(false).contains("[check=full_chain,arch=host,tokens=19]\n    and 20 more, listed with -v\n")
        );
        assert_eq!(told(true).matches("re-run:").count(), 40);
    }

    fn plain(report: &Report) -> String {
        anstream::adapter::strip_str(&render(report, &OutputArgs::default(), None)).to_string()
    }

    #[test]
    fn failures_of_one_cause_are_one_kind_whatever_their_figures() {
        let unwritten = |i: usize, place: &str| {
            let mut record = fixture::failing(&format!("k::t[check=full_chain,arch=host,tokens={i}]"));
            record.verdict = Verdict::Correct;
            record.failed_checks = (0..i % 4).map(|c| format!("check{c}")).collect();
            record.reason = format!("elements of y: first at [0, {i}]");
            record.causes[0].cause = "unwritten".into();
            record.causes[0].detail = format!("`y`: elements still hold the poison: {place}");
            record.causes[0].confident = true;
            record
        };
        let mut records: Vec<Record> =
            (0..20).map(|i| unwritten(i, &format!("the last column ({i})"))).collect();
        records.push(unwritten(20, "one element, [0, 255]"));
        for (i, (agrees, reading)) in
            [("0.999998", None), ("0.999999", Some("reads e4m3fnuz"))].into_iter().enumerate()
        {
            let mut record = unwritten(30 + i, "");
            record.causes[0].cause = "fp8_variant".into();
            record.causes[0].detail = format!("a reference that does so agrees to {agrees}");
            record.causes[0].readings = reading.map(Into::into).into_iter().collect();
            records.push(record);
        }
        let text = plain(&Report::new(records, &[]));
        assert_eq!(text.matches("re-run:").count(), 2, "{text}");
        // Each block has its table once, and what its cases are called comes behind it.
        let blocks: Vec<&str> = text.split("\nFAILED k::t full_chain\n").skip(1).collect();
        assert_eq!(blocks.len(), 2, "{text}");
        assert!(blocks[0].contains("  21 cases fail in this way"), "{text}");
        assert!(
            blocks[0].find("cause: unwritten") < blocks[0].find("[check=full_chain,arch=host,tokens=0]"),
            "{text}"
        );
        let causes = &text[text.find("likely causes\n").unwrap()..];
        let causes: Vec<&str> = causes.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(
            causes,
            [
                "  unwritten: `y`: elements still hold the poison: the last column (0) (20 cases)",
                "  unwritten: `y`: elements still hold the poison: one element, [0, 255] (1 case)",
                "  fp8_variant: a reference that does so agrees to 0.999998 (2 cases)",
            ]
        );
    }

    #[test]
    fn the_last_line_says_what_no_case_says() {
        let last = |report: &Report| plain(report).lines().last().unwrap().to_owned();
        let green = || Report::new(vec![record("k::t[arch=host]", 1.0)], &[]);
        assert_eq!(last(&green()), "1 passed, 0 failed, 0 skipped");

        let mut vanished = green();
        let gone = |id: &str| crate::baseline::compare::Vanished { id: id.into(), reason: String::new() };
        vanished.baseline = Some(Comparison {
            file: "accuracy.baseline".into(),
            compared: 1,
            vanished: vec![gone("k::a"), gone("k::b")],
            ..Comparison::default()
        });
        assert_eq!(last(&vanished), "FAILED the gate: 2 cases vanished (1 passed, 0 failed, 0 skipped)");
        vanished.problems = vec!["no baseline at accuracy.baseline".into()];
        assert_eq!(
            last(&vanished),
            "INCOMPLETE: no baseline at accuracy.baseline (1 passed, 0 failed, 0 skipped)"
        );
        assert_eq!(last(&Report::new(Vec::new(), &[])), "NOTHING PASSED (0 passed, 0 failed, 0 skipped)");
    }

    #[test]
    fn a_run_says_that_the_lint_ran() {
        let mut report = Report::new(vec![record("k::t[arch=host]", 1.0)], &[]);
        assert!(!plain(&report).contains("lint:"));
        report.linted = true;
        assert!(plain(&report).contains("\nlint: 0 errors, 0 warnings, 0 notes\n"), "{}", plain(&report));
    }

    #[test]
    fn one_change_of_many_cases_is_told_once() {
        let change = |id: &str, now: &str| crate::baseline::compare::Change {
            id: format!("k::t[tokens={id}]"),
            what: "bound of y".into(),
            before: "3.72e-3".into(),
            now: now.into(),
            reason: None,
        };
        let mut report = Report::new(vec![record("k::t[arch=host]", 1.0)], &[]);
        report.baseline = Some(Comparison {
            changes: vec![
                change("1", "3.18e-1"),
                change("2", "3.18e-1"),
                change("3", "9e-1"),
                change("4", "3.18e-1"),
            ],
            ..Comparison::default()
        });
        let text = plain(&report);
        assert!(text.contains("CHANGED k::t[tokens=1] and 2 more cases of k::t, named with -v\n"), "{text}");
        assert_eq!(text.matches("CHANGED ").count(), 2, "{text}");
        let all = render(&report, &OutputArgs { verbose: true, ..OutputArgs::default() }, None);
        assert_eq!(anstream::adapter::strip_str(&all).to_string().matches("CHANGED ").count(), 4);
    }
}
