//! What makes the gate of a run looser than it is by itself, and who asked for it. Every report says so at its top.

use crate::lint::LintConfig;
use accuracy_core::record::{Library, Record};
use accuracy_core::verdict::MIN_COS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Who loosens the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Flag,
    Environment,
    Configuration,
    Attribute,
    /// A record says what, and not who.
    Unknown,
}

impl By {
    const fn words(self) -> &'static str {
        match self {
            By::Flag => "flag",
            By::Environment => "environment",
            By::Configuration => "configuration",
            By::Attribute => "attribute",
            By::Unknown => "attribute, configuration or environment",
        }
    }
}

/// What is looser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A least cosine below the default.
    LeastCosine,
    /// Repeats may differ.
    Repeats,
    /// A finding of the emulator fails no case.
    Findings,
    /// A case passes although it fails.
    KnownFailures,
    /// The lint does not look, or does not look everywhere.
    Lint,
    /// Another library than the one that was built is judged.
    Library,
    /// A package takes no part.
    Package,
    /// A threshold or bound that is not what the baseline has.
    Baseline,
}

/// One thing that makes the gate looser.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Loosening {
    pub what: What,
    pub by: By,
    /// In words, without who.
    pub detail: String,
}

impl std::fmt::Display for Loosening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.by.words())
    }
}

/// Something that makes the gate looser.
pub fn loosening(what: What, by: By, detail: String) -> Loosening {
    Loosening { what, by, detail }
}

/// The whole in one line; `None` where nothing is looser.
pub fn line<'a>(all: impl IntoIterator<Item = &'a Loosening>) -> Option<String> {
    let words: Vec<String> = all.into_iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| format!("the gate is loosened: {}", words.join("; ")))
}

/// What a configuration of the lint leaves out.
pub fn of_lint(config: &LintConfig) -> BTreeSet<Loosening> {
    config.loosened().into_iter().map(|detail| loosening(What::Lint, By::Configuration, detail)).collect()
}

/// What the files that were judged say: of those that took another's place.
pub fn of_libraries<'a>(libraries: impl Iterator<Item = &'a Library>) -> BTreeSet<Loosening> {
    let others = libraries.filter(|library| library.passed_over.is_some());
    others
        .map(|library| {
            let detail = format!("{} is judged in place of what was built", library.path.display());
            loosening(What::Library, By::Environment, detail)
        })
        .collect()
}

/// What records show, beside what their runs say.
pub fn of_records(records: &[Record], known: &BTreeSet<Loosening>) -> BTreeSet<Loosening> {
    let mut all = BTreeSet::new();
    let judged = records.iter().filter(|record| !record.checks.is_empty());
    let least = judged.map(|record| record.threshold).fold(f64::INFINITY, f64::min);
    if least < MIN_COS && !known.iter().any(|one| one.what == What::LeastCosine) {
        all.insert(loosening(What::LeastCosine, By::Unknown, format!("least cosine {least}")));
    }
    let failures = records.iter().filter(|record| crate::run::outcome::is_known_failure(record)).count();
    if failures > 0 {
        let detail = format!("{failures} of those that pass are known failures");
        all.insert(loosening(What::KnownFailures, By::Attribute, detail));
    }
    all
}

/// Thresholds and bounds that are not what the baseline has, for a reason that somebody gave.
pub fn of_baseline(changes: usize) -> Option<Loosening> {
    let detail = format!("{changes} thresholds or bounds are not those of the baseline, for a reason");
    (changes > 0).then(|| loosening(What::Baseline, By::Flag, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::judged;

    #[test]
    fn what_records_show_is_told_once_and_strict_ones_say_nothing() {
        let none = BTreeSet::new();
        let mut loose = judged("k::t[a]", 0.9999);
        assert_eq!(of_records(&[loose.clone()], &none), none);
        loose.threshold = 0.9;
        let found = of_records(&[loose.clone()], &none);
        let told = line(&found).unwrap();
        assert!(told.starts_with("the gate is loosened: least cosine 0.9 ("), "{told}");
        let known = BTreeSet::from([loosening(What::LeastCosine, By::Flag, "least cosine 0.9".into())]);
        assert_eq!(of_records(&[loose], &known), none, "the run has told of it");
        assert_eq!(line(&none), None);
    }
}
