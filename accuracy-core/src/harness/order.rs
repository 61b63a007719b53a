//! What a process computes before a case: the chain of its test in other shapes.
//!
//! A kernel may keep something of its first call, such as a grid in a `static`, a workspace or a table. In a process that
//! computes one shape alone that is always right. So a process computes other shapes of the test before it comes to its
//! case: a small one before a large case, a large one before a small case. Of a test with one shape it draws another.

use crate::meta::{Cell, Check, TestMeta};
use crate::plan::SubCase;
use crate::record::ENDED;
use std::borrow::Cow;
use std::path::PathBuf;

/// How many tensors of a test are looked at for one of another shape: a model has few shapes, and they alternate.
const TENSORS: usize = 16;

/// What comes before a case in its process.
#[derive(Debug, Default)]
pub struct Order<'a> {
    /// Cases of the test, or a shape that it does not list.
    pub before: Vec<Cow<'a, SubCase>>,
    /// File that is there as soon as something runs before the case; [`ENDED`] is in it once that has ended.
    pub marker: PathBuf,
}

impl Order<'_> {
    /// Runs what comes before, and says what it was. Whether that is right is of no account here, it is a case of its own;
    /// `run` says whether the device can still be used.
    pub fn begin(&self, case: &SubCase, mut run: impl FnMut(&SubCase) -> bool) -> Vec<String> {
        if self.before.is_empty() {
            return Vec::new();
        }
        // Without the marker a crash is taken for the case's own.
        let _ = std::fs::write(&self.marker, b"");
        if self.before.iter().all(|before| run(before)) {
            let _ = std::fs::write(&self.marker, ENDED);
        }
        self.before.iter().map(|before| difference(case, before)).collect()
    }
}

/// Whether a process may compute shapes that the test does not list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// It runs cases for the plugin, which runs a case once more whose process died of them.
    Drawn,
    /// It runs all tests of an executable, and would take them with it.
    None,
}

/// The sub-cases that are to be computed before `case`, in this order. `shape` says what shape a sub-case's weights have.
///
/// Where tensors have several shapes, the first sub-case differs in them and in the tokens, so that something kept of either
/// shows. The last one differs in the tokens alone, which shows what is kept for each tensor.
pub fn before<'a>(
    meta: &TestMeta,
    case: &SubCase,
    all: &'a [SubCase],
    unlisted: Unlisted,
    shape: impl Fn(&SubCase) -> Option<Vec<(usize, usize)>>,
) -> Vec<Cow<'a, SubCase>> {
    let cell = |case: &SubCase| -> &Cell { &meta.body.cells[case.cell] };
    let own = cell(case);
    if own.check != Check::FullChain {
        return Vec::new();
    }
    let alike = |other: &&SubCase| {
        let of = cell(other);
        of.check == own.check && of.at == own.at && other.skip.is_none()
    };
    let tokens = || all.iter().filter(alike).map(|other| other.tokens);
    // The least, which costs least; before the least itself the one above.
    let least = tokens().filter(|tokens| *tokens < case.tokens).min();
    let other_tokens = least.or_else(|| tokens().filter(|tokens| *tokens > case.tokens).min());
    let mut found = Vec::new();
    // Weights cost more than their products with few tokens, so the cases with the fewest have them.
    if least.is_none() {
        let tokens = other_tokens.unwrap_or(case.tokens);
        let own_shape = shape(case);
        let candidates = all.iter().filter(alike).filter(|other| other.tokens == tokens);
        found.extend(candidates.take(TENSORS).find(|other| {
            other.planned.weights != case.planned.weights
                && shape(other).is_some_and(|of| Some(of) != own_shape)
        }));
    }
    if let Some(tokens) = other_tokens {
        let same_weights =
            |other: &&SubCase| other.tokens == tokens && other.planned.weights == case.planned.weights;
        found.extend(all.iter().filter(alike).find(same_weights));
    }
    if found.is_empty() && unlisted == Unlisted::Drawn {
        let tokens = if case.tokens > 1 { 1 } else { 2 };
        return vec![Cow::Owned(SubCase { tokens, ..case.clone() })];
    }
    found.into_iter().map(Cow::Borrowed).collect()
}

/// In what `other` differs from `case`: `tokens=33,w=model.layers.0.up_proj`.
fn difference(case: &SubCase, other: &SubCase) -> String {
    let tokens = other.tokens;
    let weights = other
        .planned
        .weights
        .iter()
        .filter(|(role, tensor)| case.planned.weights.get(*role) != Some(*tensor));
    std::iter::once(format!("tokens={tokens}"))
        .chain(weights.map(|(role, tensor)| format!("{role}={tensor}")))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::meta::Body;
    use crate::plan;
    use std::collections::BTreeMap;

    fn test(checks: &[Check], tokens: &[usize]) -> TestMeta {
        let cells = checks.iter().flat_map(|&check| {
            tokens.iter().map(move |&tokens| Cell {
                name: "c".into(),
                check,
                at: Vec::new(),
                tokens,
                axis: None,
            })
        });
        let body = Body { name: "t".into(), cells: cells.collect(), ..Body::default() };
        TestMeta {
            package: "p".into(),
            module: "p::m".into(),
            file: "tests/m.rs".into(),
            line: 1,
            manifest_dir: PathBuf::new(),
            can_emulate: false,
            body,
        }
    }

    /// Every case with what comes before it. The name of a tensor says its shape.
    fn orders(meta: &TestMeta, tensors: &[&str]) -> Vec<(String, Vec<String>)> {
        orders_with(meta, tensors, Unlisted::None)
    }

    fn orders_with(meta: &TestMeta, tensors: &[&str], unlisted: Unlisted) -> Vec<(String, Vec<String>)> {
        let cells = meta.body.cells.iter().enumerate();
        let all: Vec<SubCase> = cells
            .flat_map(|(cell, of)| {
                tensors.iter().map(move |tensor| {
                    let weights = BTreeMap::from([("w".to_owned(), (*tensor).to_owned())]);
                    let planned = plan::planned(meta, of, Arch::Host, &weights);
                    SubCase { planned, cell, tokens: of.tokens, skip: None }
                })
            })
            .collect();
        let shape = |case: &SubCase| Some(vec![(case.planned.weights["w"].len(), 1)]);
        all.iter()
            .map(|case| {
                let found = before(meta, case, &all, unlisted, shape);
                let name = format!("{} {}", case.tokens, case.planned.weights["w"]);
                (name, found.iter().map(|other| difference(case, other)).collect())
            })
            .collect()
    }

    #[test]
    fn a_small_shape_comes_before_large_ones_and_a_large_one_before_the_smallest() {
        let meta = test(&[Check::FullChain], &[33, 1, 128]);
        let expected = [("33 w", "tokens=1"), ("1 w", "tokens=33"), ("128 w", "tokens=1")];
        let expected = expected.map(|(name, before)| (name.to_owned(), vec![before.to_owned()]));
        assert_eq!(orders(&meta, &["w"]), expected);
    }

    #[test]
    fn weights_of_another_shape_come_first_of_all_before_the_smallest_case() {
        let meta = test(&[Check::FullChain], &[1, 33]);
        let orders: BTreeMap<_, _> = orders(&meta, &["up", "qp", "down"]).into_iter().collect();
        assert_eq!(orders["1 up"], ["tokens=33,w=down", "tokens=33"]);
        assert_eq!(orders["1 down"], ["tokens=33,w=up", "tokens=33"]);
        assert_eq!(orders["33 down"], ["tokens=1"]);
        // With one number of tokens the weights alone differ.
        let orders = super::tests::orders(&test(&[Check::FullChain], &[7]), &["up", "down"]);
        assert_eq!(orders[0].1, ["tokens=7,w=down"]);
    }

    #[test]
    fn a_test_of_one_shape_has_another_drawn_where_the_plugin_runs_it() {
        let before =
            |check, tokens| orders_with(&test(&[check], &[tokens]), &["up"], Unlisted::Drawn)[0].1.clone();
        assert_eq!(before(Check::FullChain, 5), ["tokens=1"]);
        assert_eq!(before(Check::FullChain, 1), ["tokens=2"]);
        assert!(before(Check::Parameter, 5).is_empty());
        let listed = orders_with(&test(&[Check::FullChain], &[33, 9]), &["up"], Unlisted::Drawn);
        assert_eq!(listed[0].1, ["tokens=9"]);
    }

    #[test]
    fn a_test_of_one_shape_has_nothing_before_its_cases_in_an_executable_of_all_tests() {
        assert!(orders(&test(&[Check::FullChain], &[5]), &["up", "qp"]).iter().all(|(_, b)| b.is_empty()));
        // The other checks compute several chains in any case, and compare them.
        assert!(orders(&test(&[Check::Parameter], &[1, 33]), &["w"]).iter().all(|(_, b)| b.is_empty()));
    }
}
