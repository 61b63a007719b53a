//! How well the cause of a fault was named.

use bug_zoo::{Truth, tables};
use serde::Deserialize;

/// A cause as the report of `cargo accuracy` has it.
#[derive(Deserialize)]
pub struct Cause {
    cause: String,
    /// A finer name.
    kind: Option<String>,
    #[serde(default)]
    confident: bool,
}

impl Cause {
    pub fn name(&self) -> &str {
        self.kind.as_deref().unwrap_or(&self.cause)
    }

    fn is_unknown(&self) -> bool {
        self.name() == tables::UNKNOWN
    }
}

/// The names in which a package's tables tell the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those of reports, with the finer ones wherever there is one.
    Finer,
    /// Those of the table in docs/names.md, or finer ones: a truth that names a family stands for all of it.
    Families,
}

impl Names {
    fn says(self, truth: &str, cause: &Cause) -> bool {
        cause.name() == truth || self == Names::Families && cause.cause == truth
    }
}

/// How well the cause was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The true cause first, or of two at once both.
    Right,
    /// No cause, `unknown`, or a wrong one without confidence.
    Open,
    /// A wrong cause with confidence, or one of two alone.
    Wrong,
}

pub fn naming(truth: &Truth, causes: &[Cause], names: Names) -> Naming {
    let (right, all) = match truth {
        Truth::Right => return Naming::Open,
        Truth::OneOf(right) => (right, false),
        Truth::All(right) => (right, true),
    };
    let is_true = |cause: &Cause| right.iter().any(|truth| names.says(truth, cause));
    let said = |truth: &String| causes.iter().any(|cause| names.says(truth, cause));
    // What has no name cannot be asked for beside what has one.
    let complete = !all || right.iter().all(|truth| truth == tables::UNKNOWN || said(truth));
    let misleads = |cause: &Cause| cause.confident && (!complete || !cause.is_unknown() && !is_true(cause));
    // For what has no name a guess that is called one is as good as none.
    let nameless = right.iter().any(|truth| truth == tables::UNKNOWN);
    match causes.first() {
        _ if causes.iter().any(misleads) => Naming::Wrong,
        Some(first) if complete && (is_true(first) || nameless) => Naming::Right,
        _ => Naming::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn causes(names: &[(&str, bool)]) -> Vec<Cause> {
        let cause =
            |&(cause, confident): &(&str, bool)| Cause { cause: cause.to_owned(), kind: None, confident };
        names.iter().map(cause).collect()
    }

    #[test]
    fn one_of_two_causes_with_confidence_is_wrong() {
        let both = Truth::All(truth(&["scale_layout", "fp8_variant"]));
        let named = |names| naming(&both, &causes(names), Names::Finer);
        assert_eq!(named(&[("scale_layout", true), ("fp8_variant", true)]), Naming::Right);
        assert_eq!(named(&[("scale_layout", true)]), Naming::Wrong);
        assert_eq!(named(&[("unknown", false), ("scale_layout", false)]), Naming::Open);
        assert_eq!(named(&[]), Naming::Open);
    }

    #[test]
    fn the_first_cause_counts_and_confidence_must_be_right() {
        let gain = Truth::OneOf(truth(&["gain"]));
        let named = |names| naming(&gain, &causes(names), Names::Finer);
        assert_eq!(named(&[("gain", false), ("rope", false)]), Naming::Right);
        assert_eq!(named(&[("rope", false), ("gain", false)]), Naming::Open);
        assert_eq!(named(&[("gain", true), ("rope", true)]), Naming::Wrong);
        assert_eq!(named(&[("unknown", false)]), Naming::Open);
    }

    #[test]
    fn what_has_no_name_is_right_as_unknown_or_as_a_guess() {
        let nameless = Truth::OneOf(truth(&["unknown"]));
        let named = |names| naming(&nameless, &causes(names), Names::Families);
        assert_eq!(named(&[("unknown", false)]), Naming::Right);
        assert_eq!(named(&[("gain", false)]), Naming::Right);
        assert_eq!(named(&[("gain", true)]), Naming::Wrong);
        assert_eq!(named(&[("gain", false), ("rope", true)]), Naming::Wrong);
        assert_eq!(named(&[]), Naming::Open);
        let or_gain = Truth::OneOf(truth(&["unknown", "gain"]));
        assert_eq!(naming(&or_gain, &causes(&[("gain", true)]), Names::Families), Naming::Right);
        let and_gain = Truth::All(truth(&["unknown", "gain"]));
        assert_eq!(naming(&and_gain, &causes(&[("gain", true)]), Names::Families), Naming::Right);
        assert_eq!(naming(&and_gain, &causes(&[("unknown", false)]), Names::Families), Naming::Open);
    }

    #[test]
    fn a_family_stands_for_its_finer_names_where_tables_have_families() {
        let rounding =
            [Cause { cause: "accumulation".into(), kind: Some("rounding".into()), confident: true }];
        let family = Truth::OneOf(truth(&["accumulation"]));
        assert_eq!(naming(&family, &rounding, Names::Families), Naming::Right);
        assert_eq!(naming(&family, &rounding, Names::Finer), Naming::Wrong);
        let other = Truth::OneOf(truth(&["zero_point"]));
        assert_eq!(naming(&other, &rounding, Names::Families), Naming::Wrong);
    }
}
