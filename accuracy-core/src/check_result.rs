//! What a check came to, what the checks saw of a seeded fault, and the tiers of a verdict. A record holds lists of them.

use crate::check_name::CheckName;
use serde::{Deserialize, Serialize};

/// Tiers of the cosine, and the ways in which a case can fail to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Correct,
    Suspicious,
    Broken,
    Catastrophic,
    /// The data could not have revealed the fault.
    Inconclusive,
    Skipped,
    Crashed,
    TimedOut,
    NotRun,
}

impl Verdict {
    pub const ALL: [Verdict; 9] = [
        Verdict::Correct,
        Verdict::Suspicious,
        Verdict::Broken,
        Verdict::Catastrophic,
        Verdict::Inconclusive,
        Verdict::Skipped,
        Verdict::Crashed,
        Verdict::TimedOut,
        Verdict::NotRun,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Correct => "correct",
            Verdict::Suspicious => "suspicious",
            Verdict::Broken => "broken",
            Verdict::Catastrophic => "catastrophic",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
            Verdict::Crashed => "crashed",
            Verdict::TimedOut => "timed_out",
            Verdict::NotRun => "not_run",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One check of a verdict, with everything that is needed to see how far it was from failing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    pub check: CheckName,
    /// The buffer it speaks of; empty for the chain as a whole.
    #[serde(default)]
    pub hop: String,
    pub value: Option<f64>,
    pub bound: Option<f64>,
    /// Distance to the bound in units of the bound; negative where it failed.
    pub margin: Option<f64>,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Whether the checks would have seen a fault in this very case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerStatus {
    Seen,
    Unseen,
    NotApplicable,
}

/// One seeded fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    pub fault: String,
    /// The buffer in which it was seeded.
    #[serde(default)]
    pub operand: String,
    pub status: PowerStatus,
    /// The checks that saw it.
    pub failed_checks: Vec<String>,
    /// Cosine of the faulty reference against the right one.
    pub cos: Option<f64>,
    /// Whether the case is inconclusive if no check sees this fault. If false, the record only reports which checks saw it.
    #[serde(default)]
    pub claimed: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
