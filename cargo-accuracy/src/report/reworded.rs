//! What becomes of records whose every text is worded otherwise: nothing, as no text decides.

use super::model::Report;
use super::text::fixture;
use crate::baseline::file::Line;
use crate::lint::{self, Finding, LintConfig, Severity};
use crate::run::confirm;
use accuracy_core::check_name::CheckName;
use accuracy_core::record::{
    Cause, CheckResult, Gate, Hop, Ignored, Planned, Power, PowerStatus, Record, Unfinished, Verdict,
};
use accuracy_core::verdict;

const SOURCE: &str =
    "extern \"C\" int fallback(float* q, const float* x, int m, bool flag) { return launch(q, x, m); }\n";

/// Records of all kinds that there are.
fn records() -> Vec<Record> {
    let id = |name: &str| format!("k::t[check=full_chain,arch=host,case={name}]");
    let planned = |name: &str| fixture::planned(&id(name));
    let mut known = fixture::failing(&id("known"));
    known.gate = Gate::Pass;
    known.known_failure = Some("a driver's bug".into());
    let mut ignored = fixture::failing(&id("ignored"));
    ignored.causes = vec![Cause {
        cause: "parameter_ignored".into(),
        detail: "`fallback` ignores `flag`: no byte of `q` differs".into(),
        what: "ignores `flag`".into(),
        readings: vec!["reads another".into()],
        ignored: Some(Ignored { launcher: "fallback".into(), parameter: "flag".into() }),
        confident: true,
        ..Cause::default()
    }];
    ignored.hops = vec![Hop { name: "q".into(), kernel: Some("fallback".into()), ..Hop::default() }];
    ignored.checks = vec![CheckResult {
        detail: "first at [0, 1]".into(),
        ..verdict::none(CheckName::Elements, "q", 3, "")
    }]
    .into();
    ignored.power = vec![Power {
        fault: "gain".into(),
        operand: "x".into(),
        status: PowerStatus::Unseen,
        failed_checks: Vec::new(),
        cos: None,
        claimed: true,
        detail: "twice as large".into(),
    }]
    .into();
    let mut all = vec![
        fixture::judged(&id("right"), 0.9999),
        fixture::failing(&id("wrong")),
        fixture::emulated(&id("emulated")),
        known,
        ignored,
        planned("skipped").without_result(Verdict::Skipped, "host does not decode it"),
        planned("crashed").without_result(Verdict::Crashed, "killed by signal 11"),
        planned("late").without_result(Verdict::TimedOut, "not finished after 60 s"),
        planned("missing").without_result(Verdict::NotRun, "no such file"),
        planned("doubtful").without_result(Verdict::Inconclusive, "it could not have failed"),
    ];
    let of = |planned: Planned| Unfinished::ALL.map(|why| planned.unfinished(why));
    all.extend(of(planned("unfinished")));
    all
}

fn other(text: &str) -> String {
    text.chars().rev().collect()
}

/// A record with other words wherever a person reads.
fn reworded(mut record: Record) -> Record {
    record.reason = other(&record.reason);
    record.known_failure = record.known_failure.as_deref().map(other);
    for cause in &mut record.causes {
        cause.detail = other(&cause.detail);
        cause.what = other(&cause.what.to_string()).into();
        cause.readings = cause.readings.iter().map(|words| other(&words.to_string()).into()).collect();
    }
    for finding in record.findings.iter_mut().flatten() {
        finding.detail = other(&finding.detail);
    }
    let checks = record.checks.iter().map(|c| CheckResult {
        check: c.name(),
        hop: c.hop.to_string(),
        value: c.value,
        bound: c.bound,
        margin: c.margin,
        ok: c.ok,
        detail: other(&c.detail),
    });
    record.checks = checks.collect();
    let power = record.power.iter().map(|p| Power {
        fault: p.fault.to_string(),
        operand: p.operand.to_string(),
        status: p.status,
        failed_checks: p.failed_checks.iter().map(|name| name.0.to_string()).collect(),
        cos: p.cos,
        claimed: p.claimed,
        detail: other(&p.detail),
    });
    record.power = power.collect();
    record
}

/// All that is decided about records.
fn decisions(records: Vec<Record>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("quant.hip"), SOURCE).unwrap();
    let mut findings: Vec<Finding> =
        lint::run(&[folder.path().into()], &LintConfig::default(), None).unwrap().findings;
    confirm::confirm(&mut findings, &records);
    assert!(findings.iter().any(|f| f.confirmed && f.severity == Severity::Error), "{findings:#?}");
    let of_findings = findings.iter().map(|f| format!("{:?} {:?} {}", f.parameter, f.severity, f.confirmed));
    let mut found: Vec<String> = of_findings.collect();
    for record in &records {
        found.push(format!("{} {} {:?}", record.id, record.contradiction().is_some(), Line::of(record)));
    }
    let report = Report::new(records, &[]);
    found.push(serde_json::to_string(&report.summary).unwrap());
    found.push(format!("{:?}", report.exit_code()));
    found.extend(report.told().map(|record| record.id.clone()));
    found.extend(report.unfinished().into_iter().map(|(why, n)| format!("{n} {why}")));
    found
}

#[test]
fn other_words_in_records_decide_nothing() {
    let own = decisions(records());
    let reworded: Vec<Record> = records().into_iter().map(reworded).collect();
    assert!(reworded.iter().zip(records()).any(|(a, b)| *a != b));
    assert_eq!(decisions(reworded), own);
    // A run that was cut off five ways tells each of them, and none of these cases in full.
    assert_eq!(own.iter().filter(|line| line.contains("case=unfinished")).count(), 5, "{own:#?}");
}
