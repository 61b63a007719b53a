//! `--report junit=PATH`: JUnit XML as Jenkins, GitLab and GitHub's test reporters read it. A suite is a test function
//! on an architecture, a test case is a case of its matrix, the metrics are its properties.

use super::model::{Report, test_key};
use super::text::{failure, number};
use accuracy_core::record::{Gate, Record, Verdict};
use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

pub fn render(report: &Report) -> anyhow::Result<String> {
    let mut document = quick_junit::Report::new("cargo-accuracy");
    let mut suites: Vec<(String, TestSuite)> = Vec::new();
    for record in &report.records {
        let key = test_key(&record.id, &record.arch);
        let at = suites.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            suites.push((key.clone(), TestSuite::new(key)));
            suites.len() - 1
        });
        suites[at].1.add_test_case(case(record, report));
    }
    for (key, mut suite) in suites {
        // What no case shows alone: the test as a whole could not have seen a fault.
        if let Some(test) = report.powerless().find(|t| test_key(&t.test, &t.arch) == key) {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type("power").set_message(test.reason.clone());
            suite.add_test_case(named("power", &test.test, status));
        }
        document.add_test_suite(suite);
    }
    if !report.lint.is_empty() {
        let mut suite = TestSuite::new("silent parameters");
        for finding in report.lint.iter().filter(|f| f.suppressed.is_none()) {
            let error = finding.severity == crate::lint::Severity::Error;
            let mut status = if error {
                TestCaseStatus::non_success(NonSuccessKind::Failure)
            } else {
                TestCaseStatus::success()
            };
            if error {
                status.set_type(finding.rule).set_message(finding.message.clone());
                status.set_description(format!("{}:{}\n{}", finding.path, finding.line, finding.help));
            }
            let name = format!("{} {} {}", finding.rule, finding.function, finding.parameter);
            suite.add_test_case(named(&name, &finding.path, status));
        }
        document.add_test_suite(suite);
    }
    let whole = whole(report);
    if !whole.test_cases.is_empty() {
        document.add_test_suite(whole);
    }
    Ok(document.to_string()?)
}

/// What fails though no case of the report does: cases that are gone, changes without a reason, parts that are missing.
fn whole(report: &Report) -> TestSuite {
    let mut suite = TestSuite::new("baseline and completeness");
    let mut add = |kind, what: &str, name: &str, message: String| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(what).set_message(message);
        suite.add_test_case(named(name, what, status));
    };
    for problem in &report.problems {
        add(NonSuccessKind::Error, "incomplete", "every part and record is there", problem.clone());
    }
    if let Some(found) = &report.baseline {
        for vanished in &found.vanished {
            add(NonSuccessKind::Failure, "vanished", &vanished.id, vanished.reason.clone());
        }
        for c in found.unexplained() {
            let message = format!("{}: {} -> {}, without a reason", c.what, c.before, c.now);
            add(NonSuccessKind::Failure, "changed", &c.id, message);
        }
    }
    suite
}

fn named(name: &str, class: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case
}

fn case(record: &Record, report: &Report) -> TestCase {
    let status = match (record.gate, record.verdict) {
        (Gate::Pass, Verdict::Skipped) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(record.reason.clone());
            status
        }
        (Gate::Pass, _) => TestCaseStatus::success(),
        (Gate::Fail, verdict) => {
            // A failure is a wrong number; an error is a case that came to none.
            let ran = !matches!(verdict, Verdict::Crashed | Verdict::TimedOut | Verdict::NotRun);
            let kind = if ran { NonSuccessKind::Failure } else { NonSuccessKind::Error };
            let mut status = TestCaseStatus::non_success(kind);
            let reason = record.reason.lines().next().unwrap_or_default();
            status.set_type(verdict.name()).set_message(reason);
            let mut text = String::new();
            failure::write(&mut text, record, report, None);
            status.set_description(anstream::adapter::strip_str(&text).to_string());
            status
        }
    };
    let (path, coordinates) = record.id.split_once('[').unwrap_or((&record.id, ""));
    let mut case = named(coordinates.trim_end_matches(']'), path, status);
    case.set_time(Duration::from_secs_f64(record.seconds.max(0.0)));
    case.extra.insert("file".into(), record.file.clone().into());
    case.extra.insert("line".into(), record.line.to_string().into());
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
    let mut properties: Vec<(&str, String)> = vec![("verdict", record.verdict.name().into())];
    properties.extend(numbers.into_iter().filter_map(|(name, value)| Some((name, format!("{}", value?)))));
    properties.push(("threshold", format!("{}", record.threshold)));
    if !record.failed_checks.is_empty() {
        properties.push(("failed_checks", record.failed_checks.join(" ")));
    }
    for cause in &record.causes {
        let cos = cause.cos.map_or(String::new(), |cos| format!(" (cosine {})", number::cosine(cos)));
        properties.push(("cause", format!("{}: {}{cos}", cause.cause, cause.detail)));
    }
    for (name, value) in properties {
        case.add_property(Property::new(name, value));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::super::text::fixture::{failing, record};
    use super::*;

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
        let text = render(&report).unwrap();
        let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (3, 1, 0));
        let suite = &read.test_suites[0];
        assert_eq!(suite.name.as_str(), "k::t[arch=host]");
        assert_eq!(suite.skipped, 1);
        assert_eq!(suite.test_cases[0].name.as_str(), "arch=host,tokens=1");
        let properties = &suite.test_cases[0].properties;
        assert!(
            properties.iter().any(|p| p.name.as_str() == "cos" && p.value.as_str() == "0.9999986"),
            "{text}"
        );
        assert!(text.contains("re-run: cargo accuracy"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
