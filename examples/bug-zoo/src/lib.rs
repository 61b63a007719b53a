//! Kernels with planted faults, and right ones that look odd.
//!
//! Each chain has a table in `zoo/`: a row is a variant of its kernels with the true cause of its fault, the bug in
//! the field that it models, and one sentence. The variant is a template argument of the kernels in `hip/`, so that the
//! fault is in the kernel's own code. What the framework makes of them is in `README.md`, which this package's binary
//! writes.

use accuracy_core::prelude::*;

/// Chain and table.
pub const CHAINS: [(&str, &str); 1] = [("fp8", include_str!("../zoo/fp8.csv"))];

/// A row of a table.
#[derive(Clone, Debug)]
pub struct Variant {
    pub chain: &'static str,
    pub name: &'static str,
    /// Its place in the table, by which launchers know it.
    pub number: i32,
    /// The true cause: any one of several where they cannot be told apart from outside, all of them where there are
    /// several at once; none for a right kernel.
    pub truth: Truth,
    /// How the chain is declared and called.
    setup: &'static str,
    /// The bug in the field that it models.
    pub models: &'static str,
    pub what: &'static str,
}

/// What is wrong with a variant, in the names that records use for causes.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    Right,
    OneOf(Vec<&'static str>),
    All(Vec<&'static str>),
}

impl Truth {
    fn parse(text: &'static str) -> Truth {
        match text {
            "" => Truth::Right,
            _ if text.contains('+') => Truth::All(text.split('+').collect()),
            _ => Truth::OneOf(text.split('|').collect()),
        }
    }
}

impl std::fmt::Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Truth::Right => Ok(()),
            Truth::OneOf(causes) => f.write_str(&causes.join(" or ")),
            Truth::All(causes) => f.write_str(&causes.join(" and ")),
        }
    }
}

impl Variant {
    /// Whether its setup has this word.
    pub fn is(&self, word: &str) -> bool {
        self.setup.split(' ').any(|w| w == word)
    }
}

/// All variants of a chain; none of one that there is not.
pub fn variants(chain: &str) -> Vec<Variant> {
    let Some(&(chain, table)) = CHAINS.iter().find(|(name, _)| *name == chain) else { return Vec::new() };
    table.lines().skip(1).zip(0..).filter_map(|(line, number)| row(chain, line, number)).collect()
}

fn row(chain: &'static str, line: &'static str, number: i32) -> Option<Variant> {
    let mut fields = line.splitn(5, ',');
    let mut next = || fields.next();
    let (name, truth, setup, models) = (next()?, Truth::parse(next()?), next()?, next()?);
    Some(Variant { chain, name, number, truth, setup, models, what: next()?.trim_matches('"') })
}

/// The variant of a chain by its name.
///
/// # Errors
/// If there is none.
pub fn variant(chain: &str, name: &str) -> Result<Variant> {
    variants(chain)
        .into_iter()
        .find(|v| v.name == name)
        .ok_or_else(|| Error::msg(format!("zoo/{chain}.csv has no variant `{name}`")))
}

#[kernel_library("bug_zoo")]
unsafe extern "C" {
    /// Quantises `x [m, k]` to e4m3 in groups of 128; `shuffle_scale` writes the scales column-major.
    pub fn fp8_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with 1x128 scales of `x` and 128x128 scales of `w`.
    pub fn fp8_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_of_every_table_is_a_variant_with_a_name_of_its_own() {
        for (chain, table) in CHAINS {
            let found = variants(chain);
            assert_eq!(found.len(), table.lines().count() - 1, "{chain}");
            assert_eq!(found.iter().map(|v| v.name).collect::<HashSet<_>>().len(), found.len(), "{chain}");
            for variant in &found {
                assert!(!variant.what.is_empty(), "{chain}: {}", variant.name);
                let models = variant.truth == Truth::Right || !variant.models.is_empty();
                assert!(models, "{chain}: {} names no bug in the field", variant.name);
            }
        }
    }
}
