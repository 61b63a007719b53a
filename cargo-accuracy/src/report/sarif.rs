//! `--report sarif=PATH`: SARIF 2.1.0 of the lint's findings and of the cases that fail, as code scanning reads it.

use super::model::Report;
use super::style;
use crate::lint::render::sarif::{document, location, result, rules};
use accuracy_core::record::Record;
use serde_json::{Value, json};

/// Of failing cases.
const RULE: &str = "accuracy-case";

pub fn render(report: &Report) -> anyhow::Result<String> {
    let mut rules = rules();
    let index = rules.len();
    rules.push(json!({
        "id": RULE,
        "name": "AccuracyCase",
        "shortDescription": { "text": "a kernel chain whose numbers are wrong" },
        "fullDescription": { "text": "A case of an accuracy test fails: its result is not what its declarations say." },
        "help": { "text": "Re-run the case alone with the command in its message." },
        "defaultConfiguration": { "level": "error" },
        "properties": { "tags": ["correctness", "numerics", "kernel"], "problem.severity": "error" },
    }));
    let cases = report.failures().map(|record| case(record, index, report));
    let results: Vec<Value> = report.lint.iter().map(result).chain(cases).collect();
    let notes = report.loosened_line().into_iter().chain(report.hidden.iter().map(ToString::to_string));
    let notes = notes.map(|text| json!({ "level": "warning", "message": { "text": text } })).collect();
    let mut text = serde_json::to_string_pretty(&document(rules, results, notes, env!("CARGO_PKG_VERSION")))?;
    text.push('\n');
    Ok(text)
}

fn case(record: &Record, index: usize, report: &Report) -> Value {
    let causes: Vec<String> =
        record.causes.iter().map(|c| format!(" {}: {}: {}.", c.label(), c.cause, c.told())).collect();
    let reason = record.reason.lines().next().unwrap_or_default();
    let command = super::text::failure::rerun(record, &report.flags);
    json!({
        "ruleId": RULE,
        "ruleIndex": index,
        "level": "error",
        "message": {
            "text": format!("{} {}: {reason}.{} Re-run: {command}", style::verdict_text(record), record.id, causes.concat()),
        },
        "locations": [location(&record.file, record.line.max(1), 1, None)],
        // The identity of a case stays the same when lines move.
        "partialFingerprints": { "accuracyCase/v1": blake3::hash(record.id.as_bytes()).to_hex().as_str() },
        "properties": {
            "verdict": record.verdict,
            "cos": record.metrics.cos,
            "failed_checks": record.failed_checks,
            "causes": record.causes,
        },
    })
}
