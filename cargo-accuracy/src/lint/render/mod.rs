//! How a report is shown: text for people, JSON, SARIF and GitHub annotations for machines.

pub mod sarif;
mod text;

pub use sarif::sarif;
pub use text::text;

use super::{LintReport, Severity};

/// The machine output: the `lint` array of the command line's contract.
pub fn json(report: &LintReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}

/// Workflow commands that GitHub shows beside the diff.
pub fn github(report: &LintReport) -> String {
    let mut out = String::new();
    for f in report.findings.iter().filter(|f| f.suppressed.is_none()) {
        let kind = match f.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let property = |s: &str| escape(s).replace(':', "%3A").replace(',', "%2C");
        out.push_str(&format!(
            "::{kind} file={},line={},col={},title={} {}::{}\n",
            property(&f.path),
            f.line,
            f.column,
            f.rule,
            property(&f.parameter),
            escape(&format!("{} ({})", f.message, f.help))
        ));
    }
    out
}

fn escape(s: &str) -> String {
    s.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
