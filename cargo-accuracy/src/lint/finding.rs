//! A finding as every renderer, the baseline and the run's report see it.

use serde::{Deserialize, Serialize};

use super::Apart;
use super::config::Confidence;
use super::source::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Note,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    pub path: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// The evidence of a finding in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// What is proven of the parameter.
    pub proven: String,
    /// Who says that it matters.
    pub disagrees: Vec<String>,
    /// Why ignoring it may be right.
    pub excuses: Vec<String>,
    /// What sort of thing the parameter is.
    pub kind: Kind,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    /// Relative to where the lint ran, with `/`.
    pub path: String,
    /// 1-based.
    pub line: u32,
    pub column: u32,
    /// Qualified name of the function whose parameter is ignored.
    pub function: String,
    pub parameter: String,
    pub message: String,
    pub help: String,
    pub confidence: Confidence,
    /// What the severity follows from.
    pub evidence: Shown,
    /// Where the finding stands among others of its severity; more is more telling.
    pub order: i32,
    /// Stays the same when lines move: rule, path, function, parameter and callee.
    pub fingerprint: String,
    /// The callee that loses the parameter, or the function that honours it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Place>,
    /// The way from the parameter to the function that ignores it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub code_flow: Vec<Place>,
    /// The file is vendored or generated: the finding is counted apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: Option<Apart>,
    /// A run has shown that the function, or the launcher of the kernel, ignores the parameter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// In the baseline or suppressed in the source, with the reason: it does not fail the gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppression>,
    /// Lines of the definition, for suppression and `--since`.
    #[serde(skip)]
    pub span: (u32, u32),
    /// Where the twin is defined.
    #[serde(skip)]
    pub twin_span: Option<(String, u32, u32)>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "justification")]
pub enum Suppression {
    InSource(String),
    Baseline,
}
