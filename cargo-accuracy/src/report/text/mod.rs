//! What a person reads: a table a test and check, then the failures, then the summary.
//!
//! [`table`] lays out columns, [`failure`] tells one failing case, [`number`] writes numbers.

mod failure;
#[cfg(test)]
pub mod fixture;
mod number;
pub mod table;
pub mod wrap;

use super::model::{Report, TestPower, test_path};
use super::style::{self, paint};
use crate::cli::OutputArgs;
use crate::run::is_known_failure;
use accuracy_core::record::{Gate, Record, Verdict};
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

/// Width to fit tables into; `None` where nobody's terminal is to be spared.
pub fn width(stderr: bool) -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c > 0) {
        return Some(columns);
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = if stderr { libc::STDERR_FILENO } else { libc::STDOUT_FILENO };
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` is one.
    let known = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) } == 0;
    (known && size.ws_col > 0).then_some(size.ws_col.into())
}

/// The whole report, with colours in it that the stream may take out again.
pub fn render(report: &Report, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
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
    for record in report.failures() {
        failure::write(&mut text, record, report);
    }
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
    summary(&mut text, report);
    text
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
fn coordinates(id: &str) -> Vec<(&str, &str)> {
    let inside = id.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).unwrap_or("");
    inside.split(',').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name != "check").collect()
}

/// Coordinates of a group: those that are the same throughout, and those that vary.
struct Axes<'a> {
    constant: Vec<(&'a str, String)>,
    varying: Vec<&'a str>,
    /// Leading segments that the tensor names of a column share.
    shared: Vec<(&'a str, String)>,
}

fn axes<'a>(records: &[&'a Record]) -> Axes<'a> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in records.iter().flat_map(|r| coordinates(&r.id)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut axes = Axes { constant: Vec::new(), varying: Vec::new(), shared: Vec::new() };
    for name in names {
        let values: Vec<Option<&str>> = records.iter().map(|r| coordinate(r, name)).collect();
        match values[0] {
            Some(first) if values.iter().all(|v| *v == Some(first)) => {
                axes.constant.push((name, first.into()))
            }
            _ => {
                let prefix = shared_segments(values.iter().copied().flatten());
                if !prefix.is_empty() {
                    axes.constant.push((name, format!("{prefix}*")));
                    axes.shared.push((name, prefix));
                }
                axes.varying.push(name);
            }
        }
    }
    axes
}

fn coordinate<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    coordinates(&record.id).into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
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
        group.records.iter().partition(|r| r.verdict == Verdict::Skipped && !verbose);
    let failed = rows.iter().filter(|r| r.gate == Gate::Fail).count();
    let known = rows.iter().filter(|r| is_known_failure(r)).count();
    let mut title = paint(style::BOLD, &group.title);
    let constants: Vec<String> =
        axes.constant.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let _ = write!(title, "  {}", paint(style::DIM, constants.join(" ")));
    let cases = if rows.len() == 1 { "1 case".to_string() } else { format!("{} cases", rows.len()) };
    let state = match (failed, rows.len()) {
        (0, 0) => String::new(),
        (0, _) if known == 0 => paint(style::GOOD, format!("{cases}, all correct")),
        (0, _) => format!("{cases}, {}", paint(style::WARN, format!("{known} known to fail"))),
        (n, _) => format!("{cases}, {}", paint(style::BAD, format!("{n} failed"))),
    };
    // On a narrow terminal the counts stand on a line of their own.
    let plain = group.title.len() + 2 + constants.join(" ").len() + 2 + cases.len() + 13;
    let gap = if width.is_some_and(|w| plain > w) { "\n  " } else { "  " };
    let _ = writeln!(text, "{title}{}{state}", if state.is_empty() { "" } else { gap });
    if !rows.is_empty() {
        *text += &table(&axes, &rows, verbose).render(width);
    }
    skips(text, &skipped);
    if verbose {
        for record in rows.iter().filter(|r| r.gate == Gate::Pass && !r.checks.is_empty()) {
            let _ = writeln!(text, "  {}", paint(style::DIM, &record.id));
            failure::checks(text, record.checks.iter());
        }
    }
    text.push('\n');
}

fn table(axes: &Axes, rows: &[&Record], verbose: bool) -> Table {
    let mut table = Table::default();
    for name in &axes.varying {
        let prefix = axes.shared.iter().find(|(n, _)| n == name).map_or("", |(_, prefix)| prefix);
        let values: Vec<&str> = rows
            .iter()
            .map(|r| coordinate(r, name).map_or("", |v| v.strip_prefix(prefix).unwrap_or(v)))
            .collect();
        let numeric = values.iter().all(|v| v.parse::<f64>().is_ok());
        let column = if numeric { Column::right(name) } else { Column::left(name) };
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

fn summary(text: &mut String, report: &Report) {
    let counts = &report.summary;
    let parts: Vec<String> = [
        (counts.correct, "correct", style::GOOD),
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
    let _ = writeln!(text, "{cases}{time} on {}: {}", report.archs().join(", "), parts.join(", "));
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
    if let Some(folder) = &report.folder {
        let _ = writeln!(text, "{}", paint(style::DIM, format!("records in {}", folder.display())));
    }
    // The last line keeps this form: scripts read it.
    let style = if counts.failed > 0 { style::BAD } else { style::PLAIN };
    let failed = paint(style, format!("{} failed", counts.failed));
    let _ = writeln!(text, "{} passed, {failed}, {} skipped", counts.passed, counts.skipped);
}
