//! `--report html=PATH`: one page that needs nothing beside itself. The verdict and what concerns all cases is markup; the
//! cases are a block of JSON, from which `page.js` makes the table and the case that is looked at.

mod elements;
pub mod shell;

use super::emulation::{self, grouped};
use super::model::Report;
use super::style;
use super::text::{failure, number};
use crate::baseline::compare::Comparison;
use crate::baseline::file::number as number_of;
use crate::exit::ExitCode;
use crate::lint::Severity;
use crate::run::folder::test_path;
use crate::run::outcome::is_known_failure;
use accuracy_core::identity;
use accuracy_core::meta::Check;
use accuracy_core::packed::{CheckView, Name, PowerView};
use accuracy_core::record::{Cause, Gate, Hop, PowerStatus, Record, Verdict};
use serde::Serialize;
use shell::{Page, escape};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;

const SCRIPT: &str = include_str!("page.js");
/// Bytes that the details of cases may take; the rest of a case is a row. What failed comes first.
const DETAILS: usize = 24 << 20;
/// Findings of the lint, and changes since the baseline, that are shown.
const FINDINGS: usize = 200;
/// Failing cases that a page without its script lists.
const LISTED: usize = 100;

pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut body = String::from("<div class=\"page\">\n");
    heading(&mut body, report);
    notes(&mut body, report);
    body += &elements::pictures(report.failures());
    counts(&mut body, report);
    body += TABLE;
    without_script(&mut body, report);
    body += "</div>\n";
    let title = format!("{} – accuracy", outcome(report).words());
    Page { title: &title, body: &body }.write(SCRIPT, |out| data(report, out), out)
}

/// What the script fills.
const TABLE: &str = r#"<main>
<form class="bar" role="search" hidden>
<label class="find">Filter: words of the identity, verdict or cause; -word excludes; / jumps here
<input type="search" id="find" autocomplete="off" spellcheck="false"></label>
<label>Test <select id="test"><option value="">all</option></select></label>
<label>Outcome <select id="outcome"><option value="">all</option><option value="failed">failed</option><option value="passed">passed</option></select></label>
<output id="shown" aria-live="polite"></output>
</form>
<div class="split" id="split">
<div class="list">
<table id="table" hidden><caption class="hidden">Cases. Arrow keys move, Enter shows a case, Escape closes it.</caption>
<thead><tr id="heads"></tr></thead><tbody id="rows"></tbody></table>
<p class="empty" id="empty" hidden>No case matches the filter.</p>
<nav class="pages" id="pages" aria-label="Pages of the table" hidden><button type="button" id="previous">Previous</button><span id="page"></span><button type="button" id="next">Next</button></nav>
</div>
<section class="detail" id="detail" tabindex="-1" aria-label="The case" hidden></section>
</div>
</main>
"#;

/// The verdict of the whole: a class of the page's style, a word, and what it says beside that.
struct Outcome {
    class: &'static str,
    word: &'static str,
    rest: String,
}

impl Outcome {
    fn words(&self) -> String {
        format!("{}: {}", self.word, self.rest)
    }
}

fn outcome(report: &Report) -> Outcome {
    let s = &report.summary;
    let mut parts = Vec::new();
    if s.failed > 0 {
        parts.push(format!("{} of {} cases", grouped(s.failed as u64), grouped(s.cases as u64)));
    }
    for (count, what) in
        [(s.tests_inconclusive, "tests that prove too little"), (report.lint_errors(), "silent parameters")]
    {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let (class, word, rest) = match report.exit_code() {
        ExitCode::Correct => ("good", "Passed", format!("{} cases", grouped(s.passed as u64))),
        _ if !report.problems.is_empty() => ("bad", "Incomplete", report.problems.join("; ")),
        ExitCode::NothingRan => ("warn", "Nothing ran", "not a single case was judged".into()),
        _ => ("bad", "Failed", parts.join(", ")),
    };
    Outcome { class, word, rest }
}

fn heading(body: &mut String, report: &Report) {
    let Outcome { class, word, rest } = outcome(report);
    let mut facts = vec![format!("on {}", report.archs().join(", "))];
    if let Some(device) = &report.device {
        facts[0] += &format!(" ({device})");
    }
    let least = report.records.iter().filter_map(|r| r.metrics.cos).fold(f64::INFINITY, f64::min);
    if least.is_finite() {
        facts.push(format!("least cosine {}", number::cosine(least)));
    }
    facts.extend(report.min_cos.map(|min| format!("threshold {min}")));
    facts.extend(emulation::line(report));
    facts.extend(report.seconds.map(|s| format!("{s:.1} s")));
    let loosened = report.loosened_line().map_or(String::new(), |line| {
        format!("<p class=\"meta wrap\"><span class=\"badge warn\">loosened</span> {}</p>\n", escape(&line))
    });
    let _ = writeln!(
        body,
        "<header class=\"top {class}\"><p class=\"tool\">cargo accuracy {}</p>\n\
         <h1><span class=\"word\">{}</span>: {}</h1>\n{loosened}<p class=\"meta wrap\">{}</p></header>",
        env!("CARGO_PKG_VERSION"),
        escape(word),
        escape(&rest),
        escape(&facts.join(" · "))
    );
}

/// What is not a case's: tests as a whole, and the lint.
fn notes(body: &mut String, report: &Report) {
    let tests: Vec<String> = report
        .powerless()
        .map(|t| {
            format!(
                "<li><code class=\"wrap\">{}</code> on {}: {}</li>",
                escape(&t.test),
                escape(&t.arch),
                escape(&t.reason)
            )
        })
        .collect();
    note(body, "tests that prove too little", &tests, tests.len());
    let item =
        |text: &dyn std::fmt::Display| format!("<li class=\"wrap\">{}</li>", escape(&text.to_string()));
    let hidden: Vec<String> = report.hidden.iter().map(|hidden| item(hidden)).collect();
    note(body, "tests that exist and are in no executable of this build", &hidden, hidden.len());
    let libraries: Vec<String> = report.libraries.iter().map(|library| item(library)).collect();
    note(body, "kernel libraries that were judged", &libraries, libraries.len());
    let found = emulation::findings(&report.records);
    let lines: Vec<String> = found
        .iter()
        .take(FINDINGS)
        .map(|found| {
            format!(
                "<li><span class=\"badge warn\">{}</span> <span class=\"wrap\">{}</span> <span class=\"dim\">{}</span></li>",
                found.kind().name(),
                escape(&found.words()),
                found.cases()
            )
        })
        .collect();
    note(body, "findings of the emulator", &lines, found.len());
    if let Some(found) = &report.baseline {
        baseline(body, found);
    }
    let mut findings: Vec<_> =
        report.lint.iter().filter(|f| f.suppressed.is_none() && f.severity != Severity::Note).collect();
    findings.sort_by_key(|f| f.severity);
    let lines: Vec<String> = findings
        .iter()
        .take(FINDINGS)
        .map(|f| {
            let (class, word) =
                if f.severity == Severity::Error { ("bad", "error") } else { ("warn", "warning") };
            format!(
                "<li><span class=\"badge {class}\">{word}</span> <code class=\"wrap\">{}:{}</code> {} <span class=\"dim\">{} ({})</span></li>",
                escape(&f.path),
                f.line,
                escape(&f.message),
                escape(&f.help),
                escape(f.rule)
            )
        })
        .collect();
    note(body, "silent parameters", &lines, findings.len());
}

/// What has changed since the baseline: what fails first.
fn baseline(body: &mut String, found: &Comparison) {
    let item = |class: &str, word: &str, id: &str, rest: String| {
        format!(
            "<li><span class=\"badge {class}\">{word}</span> <code class=\"wrap\">{}</code> {}</li>",
            escape(id),
            escape(&rest)
        )
    };
    let mut lines: Vec<String> =
        found.told_of_nothing().map(|told| item("bad", "nothing compared", "", told)).collect();
    lines.extend(found.vanished.iter().map(|v| item("bad", "vanished", &v.id, v.reason.clone())));
    let mut changes: Vec<_> = found.changes.iter().collect();
    changes.sort_by_key(|c| c.reason.is_some());
    lines.extend(changes.into_iter().map(|c| {
        let class = if c.reason.is_some() { "known" } else { "bad" };
        let why = c.reason.as_ref().map_or("without a reason".into(), |why| format!("because: {why}"));
        item(class, "changed", &c.id, format!("{}: {} → {}, {why}", c.what, c.before, c.now))
    }));
    lines.extend(found.regressions.iter().map(|r| {
        let (before, now) = (number_of(r.before), number_of(r.now));
        item("warn", "regressed", &r.id, format!("error of {}: {before} → {now}", r.error))
    }));
    lines.extend(found.without.iter().map(|p| item("warn", "nothing to compare with", p, String::new())));
    lines.extend(found.new.iter().map(|id| item("skip", "new", id, String::new())));
    lines.extend(found.removed.iter().map(|id| item("skip", "removed", id, String::new())));
    let count = lines.len();
    lines.truncate(FINDINGS);
    note(body, &format!("changes since the baseline {}", escape(&found.file)), &lines, count);
}

fn note(body: &mut String, what: &str, lines: &[String], count: usize) {
    if lines.is_empty() {
        return;
    }
    let more = match count - lines.len() {
        0 => String::new(),
        n => format!("<li>and {n} more, in the other reports</li>"),
    };
    let open = if count <= 5 { " open" } else { "" };
    let _ = writeln!(
        body,
        "<details class=\"note\"{open}><summary>{count} {what}</summary><ul>{}{more}</ul></details>",
        lines.concat()
    );
}

/// A button for each verdict that occurs, what matters most first.
fn counts(body: &mut String, report: &Report) {
    let mut counts: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for record in &report.records {
        let rank = CLASSES.iter().position(|c| *c == class(record)).unwrap_or(CLASSES.len());
        *counts.entry((rank, label(record))).or_default() += 1;
    }
    *body += "<ul class=\"counts\" aria-label=\"Cases by verdict; a button shows those alone\">";
    for ((rank, label), count) in counts {
        let label = escape(&label);
        let _ = write!(
            body,
            "<li><button type=\"button\" aria-pressed=\"false\" data-verdict=\"{label}\"><b>{}</b>\
             <span class=\"badge {}\">{label}</span></button></li>",
            grouped(count as u64),
            CLASSES[rank]
        );
    }
    *body += "</ul>\n";
}

/// Where scripts do not run, what failed is a list.
fn without_script(body: &mut String, report: &Report) {
    *body += "<noscript><p>The table needs JavaScript, which is off here";
    let failed = report.summary.failed;
    *body += if failed > LISTED { "; the first failing cases are:</p><ul>" } else { ".</p><ul>" };
    for record in report.failures().take(LISTED) {
        let _ = write!(
            body,
            "<li><span class=\"badge {}\">{}</span> <code class=\"wrap\">{}</code> {}</li>",
            class(record),
            escape(&label(record)),
            escape(&record.id),
            escape(&why(record))
        );
    }
    *body += "</ul></noscript>\n";
}

/// The verdict as the table has it.
fn label(record: &Record) -> String {
    style::verdict_text(record).to_lowercase()
}

/// Looks of a verdict, what matters most first; as in the script.
const CLASSES: [&str; 5] = ["bad", "warn", "known", "good", "skip"];

/// Which of [`CLASSES`] a record has.
fn class(record: &Record) -> &'static str {
    match (record.gate, record.verdict) {
        (Gate::Pass, Verdict::Skipped) => "skip",
        (Gate::Pass, _) if is_known_failure(record) => "known",
        (Gate::Pass, _) => "good",
        (Gate::Fail, Verdict::Suspicious | Verdict::Inconclusive) => "warn",
        (Gate::Fail, _) => "bad",
    }
}

/// The cause if one is known, else the reason.
fn why(record: &Record) -> String {
    let reason = record.reason.lines().next().unwrap_or_default();
    match record.causes.first() {
        Some(cause) if record.gate == Gate::Fail => {
            format!("{}{}", if cause.confident { "" } else { "perhaps " }, cause.cause)
        }
        _ => reason.into(),
    }
}

#[derive(Serialize)]
struct Data<'a> {
    tests: Vec<Test<'a>>,
    archs: usize,
    /// The words before a case's identity that run it again.
    program: &'static [&'static str],
    flags: &'a [String],
}

#[derive(Serialize)]
struct Test<'a> {
    path: &'a str,
    package: &'a str,
    arch: &'a str,
    file: &'a str,
    line: u32,
}

/// Test, coordinates, class, verdict, cosine, worst row, gain, chain, the same over the floor, seconds, why.
type Row<'a> = (usize, Option<&'a str>, &'static str, String, Num, Num, Num, Num, Num, Num, String);

/// Everything beside the row: what is empty is left out.
#[derive(Serialize)]
struct Detail<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<&'a str>,
    check: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    params: &'a BTreeMap<String, String>,
    weights: &'a BTreeMap<String, String>,
    shape: &'a BTreeMap<String, u64>,
    threshold: f64,
    margin: Num,
    hops: Vec<HopOf<'a>>,
    /// Check, buffer, value, bound, margin, whether it holds, detail.
    checks: Vec<CheckOf<'a>>,
    /// Fault, operand, status, the checks that saw it, cosine.
    power: Vec<PowerOf<'a>>,
    /// Cause, detail, cosine, whether it is certain.
    causes: Vec<(&'a str, Cow<'a, str>, Num, bool)>,
    metrics: BTreeMap<&'static str, serde_json::Value>,
    /// Findings of the emulator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
    /// Where elements of the first failing hop come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    origins: Vec<String>,
    /// What kernels printed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    printed: &'a [String],
}

type CheckOf<'a> = (Cow<'a, str>, Cow<'a, str>, Num, Num, Num, bool, Cow<'a, str>);
type PowerOf<'a> = (Cow<'a, str>, Cow<'a, str>, PowerStatus, Vec<Name<'a>>, Num);

#[derive(Serialize)]
struct HopOf<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    against: &'a str,
    cos: Num,
    gain: Num,
    rel_l2: Num,
    scale_cos: Num,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    failed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error_map: Option<&'a accuracy_core::error_map::ErrorMap>,
}

type Num = Option<f64>;

/// Nine digits, which is more than is shown.
fn short(value: Num) -> Num {
    let short = |v: f64| {
        // What is smaller than that has no digits to spare.
        if v.abs() < 1e-290 {
            return v;
        }
        let places = 8 - v.abs().log10().floor() as i32;
        let scale = 10_f64.powi(places.abs());
        if places < 0 { (v / scale).round() * scale } else { (v * scale).round() / scale }
    };
    value.filter(|v| v.is_finite()).map(short)
}

/// A case a line. Details of cases are written as long as there is room for them, those of what failed first.
fn data(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut tests: Vec<Test<'_>> = Vec::new();
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    let mut of_records = Vec::with_capacity(report.records.len());
    for record in &report.records {
        let path = test_path(&record.id);
        of_records.push(*known.entry((path, &record.arch)).or_insert_with(|| {
            let (package, arch, file) = (&record.package, &record.arch, &record.file);
            tests.push(Test { path, package, arch, file, line: record.line });
            tests.len() - 1
        }));
    }
    let mut text = Vec::new();
    let mut detailed = vec![false; report.records.len()];
    let mut room = DETAILS;
    for gate in [Gate::Fail, Gate::Pass] {
        for (record, detailed) in report.records.iter().zip(&mut detailed).filter(|(r, _)| r.gate == gate) {
            text.clear();
            serde_json::to_writer(&mut text, &detail_of(record))?;
            let Some(left) = room.checked_sub(text.len()) else { break };
            (room, *detailed) = (left, true);
        }
    }
    let mut flags = report.flags.clone();
    if let Some(poison) = report.poison() {
        flags.extend(["--poison".to_owned(), poison.to_string()]);
    }
    let data =
        Data { tests, archs: report.archs().len(), program: failure::program(&report.flags), flags: &flags };
    text = serde_json::to_vec(&data)?;
    text.pop();
    text.extend_from_slice(b",\"rows\":[\n");
    for (i, ((record, test), detailed)) in report.records.iter().zip(of_records).zip(detailed).enumerate() {
        text.extend_from_slice(if i > 0 { b",\n" } else { b"" });
        serde_json::to_writer(&mut text, &row(record, test))?;
        text.pop();
        text.push(b',');
        serde_json::to_writer(&mut text, &detailed.then(|| detail_of(record)))?;
        text.push(b']');
        out.write_all(&text)?;
        text.clear();
    }
    out.write_all(&text)?;
    out.write_all(b"]}")?;
    Ok(())
}

fn row(record: &Record, test: usize) -> Row<'_> {
    let m = &record.metrics;
    let at = Some(identity::listed(&record.id)).filter(|at| !at.is_empty());
    let floor = m
        .chain_rel_l2
        .zip(m.noise_rel_l2)
        .filter(|(_, noise)| *noise > 0.0)
        .map(|(chain, noise)| chain / noise);
    (
        test,
        at,
        class(record),
        label(record),
        short(m.cos),
        short(m.cos_row_min),
        short(m.gain),
        short(m.chain_rel_l2),
        short(floor),
        short(Some(record.seconds)),
        why(record),
    )
}

fn detail_of(record: &Record) -> Detail<'_> {
    let m = &record.metrics;
    let mut metrics: BTreeMap<&'static str, serde_json::Value> = BTreeMap::new();
    for (name, count) in [
        ("unexpected NaN", m.nan_unexpected),
        ("unexpected Inf", m.inf_unexpected),
        ("unwritten", m.unwritten),
    ] {
        if count > 0 {
            metrics.insert(name, count.into());
        }
    }
    if let Some(row) = m.row_min_index {
        metrics.insert("worst row", row.into());
    }
    Detail {
        reason: &record.reason,
        known: record.known_failure.as_deref(),
        check: record.check,
        dtype: record.dtype.as_deref(),
        path: record.path.as_deref(),
        params: &record.params,
        weights: &record.weights,
        shape: &record.shape,
        threshold: record.threshold,
        margin: short(record.margin),
        hops: record.hops.iter().map(hop).collect(),
        checks: record.checks.iter().map(check).collect(),
        power: record.power.iter().map(power).collect(),
        causes: record.causes.iter().map(cause).collect(),
        metrics,
        findings: emulation::findings([record]).iter().map(emulation::Found::words).collect(),
        origins: emulation::origins(record).collect(),
        printed: record.emulated.as_ref().map_or(&[], |emulated| &emulated.output),
    }
}

fn hop(hop: &Hop) -> HopOf<'_> {
    let launched = hop.launched.as_ref().filter(|l| !l.is_empty()).map(|l| format!(" ({})", l.join(", ")));
    HopOf {
        name: &hop.name,
        kernel: hop.kernel.as_ref().map(|kernel| kernel.clone() + &launched.unwrap_or_default()),
        against: &hop.judged_against,
        cos: short(hop.cos),
        gain: short(hop.gain),
        rel_l2: short(hop.rel_l2),
        scale_cos: short(hop.scale_cos),
        failed: &hop.failed_checks,
        error_map: hop.error_map.as_deref(),
    }
}

fn check(c: CheckView<'_>) -> CheckOf<'_> {
    (c.check, c.hop, short(c.value), short(c.bound), short(c.margin), c.ok, c.detail)
}

fn power(p: PowerView<'_>) -> PowerOf<'_> {
    (p.fault, p.operand, p.status, p.failed_checks, short(p.cos))
}

fn cause(c: &Cause) -> (&str, Cow<'_, str>, Num, bool) {
    (&c.cause, c.told(), short(c.cos), c.confident)
}
