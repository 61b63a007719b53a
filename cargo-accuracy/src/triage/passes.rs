//! Which forward passes of two dumps are triaged, and whose answer is the dumps'.

use super::findings::{Findings, Status, Step, Verdict};
use super::side::Side;
use super::walk::{Options, Steps, Walk, count};
use accuracy_core::dumps::{DumpSet, Kind, TensorId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// So many steps are all replayed.
const ALL_STEPS: usize = 8;

/// Goes through the forward passes that both dumps have, and of each through the questions, until a fault is found.
///
/// # Errors
/// A step that one of the dumps does not have.
pub fn walk(reference: DumpSet, candidate: DumpSet, options: &Options<'_>) -> Result<Findings, String> {
    let (reference, candidate) = (Arc::new(reference), Arc::new(candidate));
    let common = steps(&reference, &candidate, options.step)?;
    let (chosen, mut evidence) = choose(&reference, &candidate, &common);
    let identical = !options.allow_identical && all_identical(&reference, &candidate);
    let mut looked: Vec<Option<u64>> = Vec::new();
    let mut answer: Option<Findings> = None;
    for &(first, second) in &chosen {
        let findings = Walk::at(&reference, &candidate, (first, second), options, identical).run();
        looked.push(first);
        let worse = |old: &Findings| findings.verdict.rank() > old.verdict.rank();
        let found = findings.verdict == Verdict::Fault;
        if answer.as_ref().is_none_or(worse) {
            answer = Some(findings);
        }
        if found {
            break;
        }
    }
    let mut findings = answer.ok_or("no step is in both dumps")?;
    let (first, second) = (reference.steps(), candidate.steps());
    if options.step.is_none() && first.len().max(second.len()) > 1 {
        let only = |a: &[Option<u64>], b: &[Option<u64>]| -> Vec<Option<u64>> {
            a.iter().filter(|s| !b.contains(s)).copied().collect()
        };
        let alone = [("reference", only(&first, &second)), ("candidate", only(&second, &first))];
        let rest: Vec<Option<u64>> = common.iter().map(|c| c.0).filter(|s| !looked.contains(s)).collect();
        let told = format!("{} in both dumps; looked at: {}", count(common.len(), "step"), list(&looked));
        evidence.insert(0, told);
        if !rest.is_empty() {
            evidence.push(format!("not looked at: {}; --step N does", list(&rest)));
        }
        for (who, steps) in alone.into_iter().filter(|(_, steps)| !steps.is_empty()) {
            evidence.push(format!("in the {who} alone: {}", list(&steps)));
        }
        evidence.push(format!("the answer below is step {}'s", list(&[findings.at])));
        let step = Step { question: "which pass?", status: Status::Ok, evidence, next: None };
        findings.steps.insert(0, step);
    } else {
        findings.at = None;
    }
    Ok(findings)
}

fn steps(a: &Arc<DumpSet>, b: &Arc<DumpSet>, wanted: Option<u64>) -> Result<Vec<Steps>, String> {
    let (first, second) = (a.steps(), b.steps());
    if let Some(n) = wanted {
        let has = |steps: &[Option<u64>]| steps.contains(&Some(n));
        return match (has(&first), has(&second)) {
            (true, true) => Ok(vec![(Some(n), Some(n))]),
            (false, _) => Err(format!("the reference has no step {n}; it has {}", list(&first))),
            _ => Err(format!("the candidate has no step {n}; it has {}", list(&second))),
        };
    }
    let common: Vec<Steps> = first.iter().filter(|s| second.contains(s)).map(|&s| (s, s)).collect();
    let common = by_tokens(a, b, &common).unwrap_or(common);
    match (&common[..], &first[..], &second[..]) {
        ([_, ..], _, _) => Ok(common),
        ([], &[first], &[second]) => Ok(vec![(first, second)]),
        _ => Err(format!(
            "no step is in both dumps: {} in the reference, {} in the candidate",
            list(&first),
            list(&second)
        )),
    }
}

/// Steps that are the same passes by their tokens, where those of the same number are not: an engine has passes that
/// warm it up. `None` where the numbers do, or the tokens are not known.
fn by_tokens(a: &Arc<DumpSet>, b: &Arc<DumpSet>, common: &[Steps]) -> Option<Vec<Steps>> {
    let sequences = |set: &Arc<DumpSet>, step: Option<u64>| -> Option<Vec<Vec<i64>>> {
        let found = Side::new(set, step).by_sequence().ok()??;
        let mut all: Vec<Vec<i64>> = found.into_iter().map(|s| s.0).collect();
        all.sort_unstable();
        Some(all)
    };
    // A graph's padding is behind the tokens: one pass is the other with more.
    let same = |x: &[Vec<i64>], y: &[Vec<i64>]| {
        let (short, long) = if x.len() <= y.len() { (x, y) } else { (y, x) };
        short.iter().all(|s| long.contains(s))
    };
    let (first, second) = (a.steps(), b.steps());
    if first.len() == 1 && second.len() == 1 {
        return None;
    }
    let of_first: Vec<_> = first.iter().map(|&s| Some((s, sequences(a, s)?))).collect::<Option<_>>()?;
    let of_second: Vec<_> = second.iter().filter_map(|&s| Some((s, sequences(b, s)?))).collect();
    let numbered = |steps: &Steps| {
        let x = of_first.iter().find(|s| s.0 == steps.0)?;
        let y = of_second.iter().find(|s| s.0 == steps.1)?;
        Some(same(&x.1, &y.1))
    };
    if !common.is_empty() && common.iter().all(|steps| numbered(steps) == Some(true)) {
        return None;
    }
    let mut next = 0;
    let mut pairs = Vec::new();
    for (step, tokens) in &of_first {
        let found = (next..of_second.len()).find(|&i| same(tokens, &of_second[i].1));
        if let Some(i) = found {
            pairs.push((*step, of_second[i].0));
            next = i + 1;
        }
    }
    (!pairs.is_empty()).then_some(pairs)
}

/// The steps to replay: all of a few; of many the first two (prefill and decode), the one whose last values are
/// furthest apart, and the last. And what was seen of the others.
fn choose(a: &DumpSet, b: &DumpSet, common: &[Steps]) -> (Vec<Steps>, Vec<String>) {
    if common.len() <= ALL_STEPS {
        return (common.to_vec(), Vec::new());
    }
    let apart: Vec<f64> = common.iter().map(|&steps| end_apart(a, b, steps)).collect();
    let worst = (0..apart.len()).max_by(|&i, &j| apart[i].total_cmp(&apart[j])).unwrap_or(0);
    let chosen: BTreeSet<usize> = [0, 1, worst, common.len() - 1].into_iter().collect();
    let told = format!(
        "the last values of every step were compared: at most {:.2e} apart, in step {}",
        apart[worst],
        list(&[common[worst].0])
    );
    (chosen.into_iter().map(|i| common[i]).collect(), vec![told])
}

/// Relative L2 difference of the last value that a step has in both dumps.
fn end_apart(a: &DumpSet, b: &DumpSet, (first, second): Steps) -> f64 {
    let outputs = a.tensors.iter().rev().filter(|t| t.id.step == first && t.id.kind == Kind::Output);
    let mut pairs = outputs.filter(|t| !t.element().is_integer()).filter_map(|t| {
        let other = b.get(&TensorId { step: second, ..t.id.clone() })?;
        (t.shape() == other.shape()).then_some((t, other))
    });
    pairs.next().map_or(0.0, |(x, y)| match (x.open(), y.open()) {
        (Ok(x), Ok(y)) => x.compare(&y).rel_l2.unwrap_or(f64::INFINITY),
        _ => f64::INFINITY,
    })
}

fn all_identical(a: &DumpSet, b: &DumpSet) -> bool {
    a.tensors.len() == b.tensors.len()
        && a.tensors.iter().zip(&b.tensors).all(|(x, y)| {
            x.id == y.id
                && x.shape() == y.shape()
                && matches!((x.open(), y.open()), (Ok(x), Ok(y)) if x.raw() == y.raw())
        })
}

fn list(steps: &[Option<u64>]) -> String {
    let shown: Vec<String> =
        steps.iter().take(8).map(|s| s.map_or("none".to_owned(), |n| n.to_string())).collect();
    shown.join(", ") + if steps.len() > 8 { ", .." } else { "" }
}
