//! `--report junit=PATH`: JUnit XML as Jenkins, GitLab and GitHub's test reporters read it. A suite is a test function
//! on an architecture, a test case is a case of its matrix.
//!
//! Of what is around, the schema of Jenkins' xUnit plugin (`junit-10.xsd`) allows least: a test case has no properties, no
//! file and no line, and is refused with them. So the metrics stand in its output, as `[[PROPERTY|cos=0.9999986]]`, which
//! Jenkins and GitLab show beside a failure, and test management tools read as properties. The file is the suite's.

use super::emulation;
use super::model::Report;
use super::text::failure::{self, Alike};
use super::text::number;
use crate::run::folder::test_key;
use accuracy_core::identity;
use accuracy_core::record::{Fidelity, Gate, Record, Verdict};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// What became of a test case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped,
    /// Wrong numbers.
    Failure,
    /// It came to none.
    Error,
}

/// A test case; all text is plain.
struct Case<'a> {
    name: &'a str,
    class: &'a str,
    outcome: Outcome,
    kind: &'a str,
    message: &'a str,
    text: String,
    seconds: Option<f64>,
    properties: Vec<(&'static str, String)>,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, class: &'a str, outcome: Outcome, kind: &'a str, message: &'a str) -> Case<'a> {
        let (text, properties) = (String::new(), Vec::new());
        Case { name, class, outcome, kind, message, text, seconds: None, properties }
    }
}

/// Suite by suite: no more than one case is held.
pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut suites: Vec<(String, Vec<&Record>)> = Vec::new();
    let mut text = String::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for record in &report.records {
        let key = test_key(&record.id, &record.arch);
        let at = *at.entry(key).or_insert_with_key(|key| {
            suites.push((key.clone(), Vec::new()));
            suites.len() - 1
        });
        suites[at].1.push(record);
    }
    let powerless: HashMap<String, _> = report.powerless().map(|t| (test_key(&t.test, &t.arch), t)).collect();
    let lint = lint(report);
    let whole = whole(report);
    let mut totals = Totals::default();
    let of_suites: Vec<Totals> = suites
        .iter()
        .map(|(key, records)| {
            let mut totals = Totals::default();
            records.iter().for_each(|r| totals.add(outcome(r), r.seconds));
            powerless.get(key).iter().for_each(|_| totals.add(Outcome::Failure, 0.0));
            totals
        })
        .collect();
    let loosened = report.loosened_line();
    let mut top: Vec<Case> = Vec::new();
    top.extend(loosened.iter().map(|line| Case::new(line, "the gate", Outcome::Passed, "loosened", line)));
    let judged: Vec<String> = report.libraries.iter().map(ToString::to_string).collect();
    top.extend(
        judged.iter().map(|library| Case::new(library, "judged", Outcome::Passed, "library", library)),
    );
    let of_top = Totals::of(&top);
    let of_lists = [Totals::of(&lint), Totals::of(&whole)];
    of_suites.iter().chain(&of_lists).chain([&of_top]).for_each(|t| totals.merge(t));

    out.write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
    writeln!(out, "<testsuites name=\"cargo-accuracy\"{}>", totals.attributes(false))?;
    if !top.is_empty() {
        open(out, "what was judged, and how", &of_top, None)?;
        top.iter().try_for_each(|case| write(out, &mut text, case))?;
        out.write_all(b"  </testsuite>\n")?;
    }
    for ((key, records), totals) in suites.iter().zip(&of_suites) {
        open(out, key, totals, Some(&records[0].file))?;
        for record in records {
            write(out, &mut text, &case(record, report))?;
        }
        // What no case shows alone: the test as a whole could not have seen a fault.
        if let Some(test) = powerless.get(key) {
            let case = Case::new("power", &test.test, Outcome::Failure, "power", &test.reason);
            write(out, &mut text, &case)?;
        }
        out.write_all(b"  </testsuite>\n")?;
    }
    for ((name, cases), totals) in
        [("silent parameters", &lint), ("baseline and completeness", &whole)].into_iter().zip(&of_lists)
    {
        if !cases.is_empty() {
            open(out, name, totals, None)?;
            cases.iter().try_for_each(|case| write(out, &mut text, case))?;
            out.write_all(b"  </testsuite>\n")?;
        }
    }
    out.write_all(b"</testsuites>\n")?;
    Ok(())
}

fn lint(report: &Report) -> Vec<Case<'_>> {
    let open = report.lint.iter().filter(|f| f.suppressed.is_none());
    open.map(|f| {
        let error = f.severity == crate::lint::Severity::Error;
        let outcome = if error { Outcome::Failure } else { Outcome::Passed };
        let mut case = Case::new(&f.function, &f.path, outcome, f.rule, &f.message);
        case.text = format!("{}:{}\n{}", f.path, f.line, f.help);
        case.properties = vec![("rule", f.rule.into()), ("parameter", f.parameter.clone())];
        case
    })
    .collect()
}

/// What fails though no case of the report does: cases that are gone, changes without a reason, parts that are missing.
fn whole(report: &Report) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for problem in &report.problems {
        cases.push(Case::new(
            "every part and record is there",
            "incomplete",
            Outcome::Error,
            "incomplete",
            problem,
        ));
    }
    for hidden in &report.hidden {
        let outcome = if report.deny_hidden { Outcome::Failure } else { Outcome::Skipped };
        let mut case = Case::new(&hidden.test, &hidden.package, outcome, "hidden", &hidden.reason);
        case.text = hidden.to_string();
        cases.push(case);
    }
    if let Some(found) = &report.baseline {
        for place in &found.nothing_compared {
            let message = "no case was compared with the baseline";
            cases.push(Case::new(place, "baseline", Outcome::Failure, "nothing compared", message));
        }
        for v in &found.vanished {
            cases.push(Case::new(&v.id, "vanished", Outcome::Failure, "vanished", &v.reason));
        }
        for c in found.unexplained() {
            let mut case =
                Case::new(&c.id, "changed", Outcome::Failure, "changed", "changed without a reason");
            case.text = format!("{}: {} -> {}, without a reason", c.what, c.before, c.now);
            cases.push(case);
        }
    }
    cases
}

fn outcome(record: &Record) -> Outcome {
    match (record.gate, record.verdict) {
        (Gate::Pass, Verdict::Skipped) => Outcome::Skipped,
        (Gate::Pass, _) => Outcome::Passed,
        (Gate::Fail, Verdict::Crashed | Verdict::TimedOut | Verdict::NotRun) => Outcome::Error,
        (Gate::Fail, _) => Outcome::Failure,
    }
}

fn case<'a>(record: &'a Record, report: &Report) -> Case<'a> {
    let (path, coordinates) = (identity::path(&record.id), identity::listed(&record.id));
    let outcome = outcome(record);
    let message = match outcome {
        Outcome::Skipped => &record.reason,
        _ => record.reason.lines().next().unwrap_or_default(),
    };
    let mut case = Case::new(coordinates, path, outcome, record.verdict.name(), message);
    if matches!(outcome, Outcome::Failure | Outcome::Error) {
        let mut text = String::new();
        failure::write(&mut text, &Alike::of(record), report, true, None);
        case.text = anstream::adapter::strip_str(&text).to_string();
    }
    case.seconds = Some(record.seconds.max(0.0));
    let m = &record.metrics;
    let numbers = [
        ("cos", m.cos),
        ("cos_row_min", m.cos_row_min),
        ("gain", m.gain),
        ("rel_l2", m.rel_l2),
        ("chain_rel_l2", m.chain_rel_l2),
        ("noise_rel_l2", m.noise_rel_l2),
        ("margin", record.margin),
    ];
    case.properties.push(("verdict", record.verdict.name().into()));
    case.properties
        .extend(numbers.into_iter().filter_map(|(name, value)| Some((name, format!("{}", value?)))));
    case.properties.push(("threshold", format!("{}", record.threshold)));
    if !record.failed_checks.is_empty() {
        case.properties.push(("failed_checks", record.failed_checks.join(" ")));
    }
    if let Some(emulated) = &record.emulated {
        let Fidelity { exact, modelled, instructions } = &emulated.fidelity;
        case.properties.push(("emulated", "true".into()));
        case.properties.push(("exact", format!("{exact} of {instructions}")));
        if !modelled.is_empty() {
            let modelled: Vec<&str> = modelled.iter().map(String::as_str).collect();
            case.properties.push(("modelled", modelled.join(" ")));
        }
    }
    let findings = emulation::findings([record]);
    case.properties.extend(findings.iter().map(|found| ("finding", found.words())));
    case.properties.extend(emulation::origins(record).map(|origin| ("origin", origin)));
    for cause in &record.causes {
        let cos = cause.cos.map_or(String::new(), |cos| format!(" (cosine {})", number::cosine(cos)));
        case.properties.push((cause.label(), format!("{}: {}{cos}", cause.cause, cause.told())));
    }
    case
}

#[derive(Default)]
struct Totals {
    tests: usize,
    skipped: usize,
    failures: usize,
    errors: usize,
    seconds: f64,
}

impl Totals {
    fn of(cases: &[Case<'_>]) -> Totals {
        let mut totals = Totals::default();
        cases.iter().for_each(|case| totals.add(case.outcome, 0.0));
        totals
    }

    fn add(&mut self, outcome: Outcome, seconds: f64) {
        self.tests += 1;
        self.skipped += usize::from(outcome == Outcome::Skipped);
        self.failures += usize::from(outcome == Outcome::Failure);
        self.errors += usize::from(outcome == Outcome::Error);
        self.seconds += seconds.max(0.0);
    }

    fn merge(&mut self, other: &Totals) {
        self.tests += other.tests;
        self.skipped += other.skipped;
        self.failures += other.failures;
        self.errors += other.errors;
        self.seconds += other.seconds;
    }

    fn attributes(&self, skipped: bool) -> String {
        let Totals { tests, failures, errors, seconds, .. } = self;
        let skipped = if skipped { format!(" skipped=\"{}\"", self.skipped) } else { String::new() };
        format!(
            " tests=\"{tests}\"{skipped} failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\""
        )
    }
}

fn open(out: &mut dyn Write, name: &str, totals: &Totals, file: Option<&str>) -> io::Result<()> {
    write!(out, "  <testsuite name=\"{}\"{}", attribute(name), totals.attributes(true))?;
    if let Some(file) = file {
        write!(out, " file=\"{}\"", attribute(file))?;
    }
    out.write_all(b">\n")
}

/// Writes a test case, by way of `text`.
fn write(out: &mut dyn Write, text: &mut String, case: &Case<'_>) -> io::Result<()> {
    text.clear();
    let (name, class) = (attribute(case.name), attribute(case.class));
    let _ = write!(text, "    <testcase name=\"{name}\" classname=\"{class}\"");
    if let Some(seconds) = case.seconds {
        let _ = write!(text, " time=\"{seconds:.3}\"");
    }
    *text += ">\n";
    let (kind, message) = (attribute(case.kind), attribute(case.message));
    let ending = match case.outcome {
        Outcome::Passed => None,
        Outcome::Skipped => {
            let _ = writeln!(text, "      <skipped message=\"{message}\"/>");
            None
        }
        Outcome::Failure => Some("failure"),
        Outcome::Error => Some("error"),
    };
    if let Some(ending) = ending {
        let of = element(&case.text);
        let _ = writeln!(text, "      <{ending} type=\"{kind}\" message=\"{message}\">{of}</{ending}>");
    }
    if !case.properties.is_empty() {
        *text += "      <system-out>";
        for (i, (name, value)) in case.properties.iter().enumerate() {
            let end = if i > 0 { "\n" } else { "" };
            let line = value.replace(['\n', '\r'], " ");
            let _ = write!(text, "{end}[[PROPERTY|{name}={}]]", element(&line));
        }
        *text += "</system-out>\n";
    }
    *text += "    </testcase>\n";
    out.write_all(text.as_bytes())
}

/// Text as it stands in an attribute, in which a reader makes a space of a line's end.
fn attribute(text: &str) -> Escaped<'_> {
    Escaped { text, attribute: true }
}

/// Text as it stands in an element.
fn element(text: &str) -> Escaped<'_> {
    Escaped { text, attribute: false }
}

/// What XML 1.0 has no place for becomes a replacement character.
struct Escaped<'a> {
    text: &'a str,
    attribute: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = |c: char| match c {
            '&' => Some("&amp;"),
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '"' => Some("&quot;"),
            '\n' => self.attribute.then_some("&#10;"),
            '\t' => self.attribute.then_some("&#9;"),
            '\r' => Some("&#13;"),
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => Some("\u{fffd}"),
            _ => None,
        };
        let mut rest = self.text;
        while let Some((at, instead, c)) = rest.char_indices().find_map(|(at, c)| Some((at, instead(c)?, c)))
        {
            f.write_str(&rest[..at])?;
            f.write_str(instead)?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::fixture::{failing, record};
    use super::*;

    fn rendered(report: &Report) -> String {
        let mut out = Vec::new();
        render(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reader_of_the_format_finds_every_case_with_its_outcome() {
        let mut skipped = record("k::t[arch=host,dtype=e4m3fnuz]", 1.0).clone();
        skipped.verdict = Verdict::Skipped;
        skipped.reason = "host does not decode e4m3fnuz".into();
        let records = vec![
            record("k::t[arch=host,tokens=1]", 0.9999986),
            failing("k::t[arch=host,tokens=33]"),
            skipped,
        ];
        let report = Report::new(records, &[]);
        let text = rendered(&report);
        let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (3, 1, 0));
        let suite = &read.test_suites[0];
        assert_eq!(suite.name.as_str(), "k::t[arch=host]");
        assert_eq!(suite.skipped, 1);
        assert_eq!(suite.test_cases[0].name.as_str(), "arch=host,tokens=1");
        let output = suite.test_cases[0].system_out.as_ref().unwrap();
        assert!(output.as_str().lines().any(|line| line == "[[PROPERTY|cos=0.9999986]]"), "{text}");
        assert!(text.contains("re-run: cargo accuracy"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    /// Every case has at most one outcome, and what XML does not allow is not in it.
    #[test]
    fn hostile_text_stays_text() {
        let hostile = "a]]><failure/>\"'&<\u{1b}[31m\0\u{ffff}\nb";
        let mut bad = failing(&format!("k::t[arch=host,w={hostile}]"));
        bad.reason = hostile.into();
        bad.causes[0].detail = hostile.into();
        let text = rendered(&Report::new(vec![bad, record("k::u[arch=host]", 1.0)], &[]));
        let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
        assert_eq!((read.tests, read.failures, read.test_suites.len()), (2, 1, 2), "{text}");
        let case = &read.test_suites[0].test_cases[0];
        assert!(case.name.as_str().contains("a]]><failure/>\"'&<"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || (' '..'\u{fffe}').contains(&c)), "{text}");
        assert_eq!(text.matches("<failure").count(), 1);
    }
}
