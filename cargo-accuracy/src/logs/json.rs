//! `--report json=PATH`, schema 1.

use super::scan::{Finding, First, Source};
use super::{Outcome, Severity};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    sources: Vec<&'a str>,
    /// For each log whose lines there are.
    read: Vec<Read<'a>>,
    lines: u64,
    bytes: u64,
    failed: bool,
    findings: Vec<Entry<'a>>,
    expected: Vec<Expectation<'a>>,
}

#[derive(Serialize)]
struct Read<'a> {
    source: &'a str,
    lines: u64,
    /// Producers whose lines were seen, by name.
    producers: Vec<&'a str>,
    /// No line is a known producer's, and no rule has found anything.
    unknown: bool,
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
    /// A line that matches and proves nothing.
    no_proof: Option<NoProof<'a>>,
}

#[derive(Serialize)]
struct NoProof<'a> {
    rule: &'a str,
    first: Place<'a>,
}

#[derive(Serialize)]
struct Place<'a> {
    source: &'a str,
    line: u64,
    text: &'a str,
    before: &'a [String],
    after: &'a [String],
    reason: Option<Reason<'a>>,
}

#[derive(Serialize)]
struct Reason<'a> {
    line: u64,
    text: &'a str,
}

fn place(first: &First) -> Place<'_> {
    Place {
        source: &first.source,
        line: first.line,
        text: &first.text,
        before: &first.before,
        after: &first.after,
        reason: first.reason.as_ref().map(|(line, text)| Reason { line: *line, text }),
    }
}

fn read<'a>(outcome: &'a Outcome<'_>, source: &'a Source) -> Read<'a> {
    let producers = source.producers.iter().map(|&p| outcome.rules.producers[p].name.as_str());
    Read {
        source: &source.name,
        lines: source.lines,
        producers: producers.collect(),
        unknown: source.unknown,
    }
}

pub fn render(outcome: &Outcome) -> anyhow::Result<String> {
    // What is harmless is not first.
    let mut by_severity: Vec<&Finding> = outcome.scan.findings().iter().collect();
    by_severity.sort_by_key(|f| std::cmp::Reverse(outcome.rules[f.rule].severity));
    let findings = by_severity.into_iter().map(|f| {
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
        sources: outcome.scan.sources.iter().map(|s| s.name.as_str()).collect(),
        read: outcome.scan.sources.iter().map(|s| read(outcome, s)).collect(),
        lines: outcome.scan.lines(),
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
                no_proof: e
                    .no_proof
                    .as_ref()
                    .map(|(first, rule)| NoProof { rule: &outcome.rules[*rule].id, first: place(first) }),
            })
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
