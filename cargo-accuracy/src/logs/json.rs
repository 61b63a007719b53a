//! `--report json=PATH`, schema 1.

use super::scan::First;
use super::{Outcome, Severity};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    sources: &'a [String],
    lines: u64,
    bytes: u64,
    failed: bool,
    findings: Vec<Entry<'a>>,
    expected: Vec<Expectation<'a>>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Entry<'a> {
    rule: &'a str,
    project: &'a str,
    kind: &'a str,
    severity: Severity,
    what: &'a str,
    count: u64,
    first: Place<'a>,
    help: &'a str,
}

#[derive(Serialize)]
struct Expectation<'a> {
    pattern: &'a str,
    seen: bool,
    first: Option<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    source: &'a str,
    line: u64,
    text: &'a str,
    before: &'a [String],
    after: &'a [String],
}

fn place(first: &First) -> Place<'_> {
    Place {
        source: &first.source,
        line: first.line,
        text: &first.text,
        before: &first.before,
        after: &first.after,
    }
}

pub fn render(outcome: &Outcome) -> anyhow::Result<String> {
    let findings = outcome.scan.findings().iter().map(|f| {
        let rule = &outcome.rules[f.rule];
        Entry {
            rule: &rule.id,
            project: &rule.project,
            kind: &rule.kind,
            severity: rule.severity,
            what: &f.what,
            count: f.count,
            first: place(&f.first),
            help: &rule.help,
        }
    });
    let document = Document {
        schema: 1,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        sources: &outcome.sources,
        lines: outcome.scan.lines,
        bytes: outcome.scan.bytes,
        failed: outcome.failed(),
        findings: findings.collect(),
        expected: outcome
            .scan
            .expected()
            .map(|e| Expectation {
                pattern: &e.pattern,
                seen: e.first.is_some(),
                first: e.first.as_ref().map(place),
            })
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
