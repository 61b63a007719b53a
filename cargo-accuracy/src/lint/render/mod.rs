//! How a report is shown: text for people, JSON, SARIF and GitHub annotations for machines.

pub mod sarif;
mod text;

pub use sarif::sarif;
pub use text::{Detail, text};

use super::{LintReport, Severity};

/// The machine output: the `lint` array of the command line's contract.
pub fn json(report: &LintReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}

/// Workflow commands that GitHub shows beside the diff: what fails or warns.
pub fn github(report: &LintReport) -> String {
    let mut out = String::new();
    for f in report.findings.iter().filter(|f| f.suppressed.is_none()) {
        let kind = match f.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => continue,
        };
        let title = format!("{} {}", f.rule, f.parameter);
        let message = format!("{} ({})", f.message, f.help);
        out.push_str(&annotation(kind, (&f.path, f.line, Some(f.column)), &title, &message));
    }
    out
}

/// One workflow command: an annotation at a file, line and column.
pub fn annotation(kind: &str, place: (&str, u32, Option<u32>), title: &str, message: &str) -> String {
    let (file, line, column) = place;
    let column = column.map_or(String::new(), |c| format!(",col={c}"));
    let (file, title) = (property(file), property(title));
    format!("::{kind} file={file},line={line}{column},title={title}::{}\n", escape(message))
}

/// A property of a workflow command.
pub fn property(s: &str) -> String {
    escape(s).replace(':', "%3A").replace(',', "%2C")
}

/// The message of a workflow command.
pub fn escape(s: &str) -> String {
    s.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
