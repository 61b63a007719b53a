//! The checks of a verdict: what each is called in records and reports, how little its failure may mean, and what it says.
//! A check that is added here has all three, and nothing else lists them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of mistake that the emulator found in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    OutOfBounds,
    Uninitialised,
    Race,
    MissingWait,
    Barrier,
    Divergence,
    Erratum,
}

impl FindingKind {
    pub const ALL: [FindingKind; 7] = [
        FindingKind::OutOfBounds,
        FindingKind::Uninitialised,
        FindingKind::Race,
        FindingKind::MissingWait,
        FindingKind::Barrier,
        FindingKind::Divergence,
        FindingKind::Erratum,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            FindingKind::OutOfBounds => "out_of_bounds",
            FindingKind::Uninitialised => "uninitialised",
            FindingKind::Race => "race",
            FindingKind::MissingWait => "missing_wait",
            FindingKind::Barrier => "barrier",
            FindingKind::Divergence => "divergence",
            FindingKind::Erratum => "erratum",
        }
    }
}

/// How far off a result may be of which only checks up to this one fail. The diagnosis asks, since what lost a few bits
/// fails other checks than what read the wrong memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mildness {
    /// Elements that are off by a rounding or two.
    Roundings,
    /// A result that is off a little throughout.
    Slight,
    /// Single rows that are far off, as sums in few bits leave them where terms cancel.
    Rows,
    /// Nothing mild.
    Grave,
}

macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $mildness:ident: $says:literal;)*) => {
        /// A check of a verdict.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum CheckName {
            $($(#[$doc])* $variant,)*
            /// The emulator has seen a kernel make this mistake.
            Emulator(FindingKind),
            /// One that this version does not know, of a record that a newer one wrote.
            Unknown(Box<str>),
        }

        impl CheckName {
            /// All but those of the emulator.
            pub const ALL: &'static [CheckName] = &[$(CheckName::$variant),*];

            /// As records and reports have it.
            pub fn name(&self) -> &str {
                match self {
                    $(CheckName::$variant => $name,)*
                    CheckName::Emulator(kind) => kind.name(),
                    CheckName::Unknown(name) => name,
                }
            }

            pub fn mildness(&self) -> Mildness {
                match self {
                    $(CheckName::$variant => Mildness::$mildness,)*
                    CheckName::Emulator(_) | CheckName::Unknown(_) => Mildness::Grave,
                }
            }

            /// One phrase that says what the check compares.
            pub fn description(&self) -> &'static str {
                match self {
                    $(CheckName::$variant => $says,)*
                    CheckName::Emulator(_) => "the emulator saw a kernel make this mistake",
                    CheckName::Unknown(_) => "a check of a newer version",
                }
            }
        }

        impl From<&str> for CheckName {
            fn from(name: &str) -> CheckName {
                let emulator = || FindingKind::ALL.into_iter().find(|kind| kind.name() == name);
                match name {
                    $($name => CheckName::$variant,)*
                    _ => emulator().map_or_else(|| CheckName::Unknown(name.into()), CheckName::Emulator),
                }
            }
        }
    };
}

checks! {
    Cos = "cos", Grave: "the cosine of a buffer with its reference";
    CosRowMin = "cos_row_min", Rows: "the least cosine of a single row";
    ZeroRows = "zero_rows", Grave: "rows that should be zero are";
    Gain = "gain", Slight: "the factor between a buffer and its reference";
    RelL2 = "rel_l2", Roundings: "the norm of the error against what rounding and accumulation allow";
    Nan = "nan", Grave: "NaN where the reference has numbers, or none where it has NaN";
    Inf = "inf", Grave: "infinities where the reference has none";
    Elements = "elements", Roundings: "elements that are no rounding of their value";
    Codes = "codes", Grave: "the codes that a quantiser wrote";
    Scales = "scales", Grave: "the scales that a quantiser wrote";
    Padding = "padding", Grave: "what pads the scales of a layout";
    Accumulation = "accumulation", Grave: "the norm of the error where large terms cancel";
    Chain = "chain", Grave: "the end of the chain against the ideal result";
    VariantsAgree = "variants_agree", Grave: "two number formats give the same result within their noise";
    VariantsDiffer = "variants_differ", Grave: "two number formats have different codes";
    Parameter = "parameter", Grave: "some byte reacts to a parameter";
    Unwritten = "unwritten", Grave: "elements that no kernel wrote";
    Repeat = "repeat", Grave: "two runs on the same inputs give the same bytes";
    Guards = "guards", Grave: "memory around a buffer is as it was";
    Gaps = "gaps", Grave: "memory between the rows of a strided buffer is as it was";
    InputsUnchanged = "inputs_unchanged", Grave: "what a kernel only reads is as it was";
    ProcessState = "process_state", Grave: "rounding mode, flush-to-zero, locale and signal handlers are as they were";
    Status = "status", Grave: "the test passes on what its launchers return";
    Kernel = "kernel", Grave: "a launcher launches a kernel that its binding expects";
    KnownFailure = "known_failure", Grave: "what is declared to fail still does";
    Order = "order", Grave: "the case is right after another shape of its test, too";
    ProcessLeftBehind = "process_left_behind", Grave: "the case leaves no process running";
    Equal = "equal", Grave: "integers are equal";
}

impl CheckName {
    /// Whether its value is a cosine, which says most in its last digits.
    pub fn is_cosine(&self) -> bool {
        matches!(self, CheckName::Cos | CheckName::CosRowMin)
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<String> for CheckName {
    fn from(name: String) -> CheckName {
        name.as_str().into()
    }
}

impl From<CheckName> for String {
    fn from(check: CheckName) -> String {
        check.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_as_the_check_that_it_is() {
        let emulator = FindingKind::ALL.map(CheckName::Emulator);
        let all: Vec<CheckName> = CheckName::ALL.iter().cloned().chain(emulator).collect();
        for check in &all {
            assert_eq!(CheckName::from(check.name()), *check);
            assert!(!check.description().is_empty());
            assert_eq!(all.iter().filter(|other| other.name() == check.name()).count(), 1, "{check}");
        }
    }

    #[test]
    fn a_check_of_a_newer_version_keeps_its_name() {
        let read: CheckName = serde_json::from_str("\"of_tomorrow\"").unwrap();
        assert_eq!(read, CheckName::Unknown("of_tomorrow".into()));
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"of_tomorrow\"");
        assert_eq!(read.mildness(), Mildness::Grave);
    }
}
