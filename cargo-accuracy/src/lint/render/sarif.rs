//! SARIF 2.1.0, as OASIS specifies it and GitHub's code scanning reads it.

use serde_json::{Value, json};

use crate::lint::config::Level;
use crate::lint::rules;
use crate::lint::{Finding, LintReport, Place, Severity, Suppression};

pub fn sarif(report: &LintReport, version: &str) -> Value {
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    let notifications: Vec<Value> = report
        .problems
        .iter()
        .map(|p| {
            json!({
                "level": "warning",
                "message": { "text": p.reason },
                "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&p.path) } } }],
            })
        })
        .collect();
    document(rules(), results, notifications, version)
}

/// The reporting descriptors of the lint's rules, in the order of their index.
pub fn rules() -> Vec<Value> {
    rules::ALL
        .iter()
        .map(|r| {
            let level = match r.level {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Note => "note",
                Level::Off => "none",
            };
            let severity = match r.level {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Note | Level::Off => "recommendation",
            };
            json!({
                "id": r.code,
                "name": pascal(r.name),
                "shortDescription": { "text": r.summary },
                "fullDescription": { "text": r.documentation().lines().next().unwrap_or(r.summary) },
                "help": { "text": r.documentation(), "markdown": r.documentation() },
                "defaultConfiguration": { "level": level },
                "properties": {
                    "tags": ["correctness", "numerics", "kernel"],
                    "precision": r.precision,
                    "problem.severity": severity,
                },
            })
        })
        .collect()
}

/// One run of the tool.
pub fn document(rules: Vec<Value>, results: Vec<Value>, notifications: Vec<Value>, version: &str) -> Value {
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "cargo-accuracy", "semanticVersion": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{ "executionSuccessful": true, "toolExecutionNotifications": notifications }],
            "results": results,
        }],
    })
}

pub fn result(f: &Finding) -> Value {
    let level = match f.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut out = json!({
        "ruleId": f.rule,
        "ruleIndex": rules::ALL.iter().position(|r| r.code == f.rule),
        "level": level,
        "message": { "text": format!("{}. Fix: {}.", f.message, f.help) },
        "locations": [location(&f.path, f.line, f.column, None)],
        "partialFingerprints": { "accuracySilentParam/v1": f.fingerprint },
        "properties": {
            "param": f.parameter,
            "function": f.function,
            "callee": f.callee,
            "twin": f.twin,
            "confidence": f.confidence,
        },
    });
    if !f.related.is_empty() {
        let related: Vec<Value> = f
            .related
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let mut l = location(&p.path, p.line, p.column, Some(&p.message));
                l["id"] = json!(i + 1);
                l
            })
            .collect();
        out["relatedLocations"] = json!(related);
    }
    if !f.code_flow.is_empty() {
        let steps: Vec<Value> = f.code_flow.iter().map(step).collect();
        out["codeFlows"] = json!([{ "threadFlows": [{ "locations": steps }] }]);
    }
    match &f.suppressed {
        Some(Suppression::InSource(why)) => {
            out["suppressions"] = json!([{ "kind": "inSource", "justification": why }]);
        }
        Some(Suppression::Baseline) => {
            out["suppressions"] = json!([{ "kind": "external", "justification": "in the baseline" }]);
            out["baselineState"] = json!("unchanged");
        }
        None => {}
    }
    out
}

fn step(p: &Place) -> Value {
    json!({ "location": location(&p.path, p.line, p.column, Some(&p.message)) })
}

pub fn location(path: &str, line: u32, column: u32, message: Option<&str>) -> Value {
    let mut out = json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(path) },
            "region": { "startLine": line, "startColumn": column },
        },
    });
    if let Some(m) = message {
        out["message"] = json!({ "text": m });
    }
    out
}

/// A relative reference; characters that a URI does not allow are escaped.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"/-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn pascal(name: &str) -> String {
    name.split('-')
        .map(|w| {
            let mut c = w.chars();
            c.next().map_or_else(String::new, |f| f.to_uppercase().collect::<String>() + c.as_str())
        })
        .collect()
}
