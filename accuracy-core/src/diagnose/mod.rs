//! Names the likely root cause of a hop that failed.
//!
//! Each hypothesis is one thing that a kernel may have done instead of what it should: read scales in another order,
//! take one format for another, leave out the last tile of K. The reference is computed as if it held, and its score is
//! the share of the error that it explains in the output that was really produced. A cause is stated with confidence
//! only if nothing is left that the hop's checks would see, and nothing else explains as much; `unknown` comes with the
//! error map in words.
//!
//! - [`scales`], [`codes`], [`product`], [`graph`]: the families of hypotheses about operands, sums and expressions;
//! - [`output`]: fits of the output to its reference: gains, moved rows and columns, saturation;
//! - [`consumer`], [`producer`]: the searches; [`sampled`], [`reading`]: evaluation of some rows and columns under hypotheses;
//! - [`map`]: which elements are wrong, in words; [`accumulation`]: sums that lose bits in no order that can be told;
//! - [`mod@evident`]: what a single check proves by itself: guards, unwritten elements, repeats.

mod accumulation;
mod codes;
mod consumer;
mod evident;
mod graph;
mod hypothesis;
mod map;
mod output;
mod producer;
mod product;
mod reading;
mod sampled;
mod scales;
mod selftest;

use crate::case::{Attempt, Captured};
use crate::judge::JudgedHop;
use crate::record::Cause;
use crate::reference::Expr;
pub use evident::evident;
use hypothesis::Hypothesis;
use sampled::World;
pub use selftest::selftest;

/// Failing hops of one run that are looked into: each was judged on what it was given, so each has a cause of its own.
const HOPS: usize = 2;

/// What is known of a case that failed.
pub struct Evidence<'a> {
    /// A run on ordinary data, and its hops as judged.
    pub first: (&'a Attempt, &'a [JudgedHop]),
    /// A run on the same inputs with other poison: elements that differ between the two are no result of the inputs, and
    /// are left out.
    pub second: Option<&'a Attempt>,
    /// A run on data whose large terms cancel.
    pub probe: Option<(&'a Attempt, &'a [JudgedHop])>,
    pub min_cos: f64,
}

/// The ranked causes of the hops that failed: in the ordinary run, or where that is right in the one whose terms cancel.
pub fn diagnose(evidence: &Evidence<'_>) -> Vec<Cause> {
    let failing = |hops: &'_ [JudgedHop]| -> Vec<usize> {
        let failed = |i: &usize| hops[*i].checks.iter().any(|check| !check.ok);
        (0..hops.len()).filter(failed).take(HOPS).collect()
    };
    let (attempt, hops) = evidence.first;
    let mut causes = Vec::new();
    for i in failing(hops) {
        let judged = &hops[i];
        let again = evidence.second.map(|second| second.buffer(judged.id));
        let mut found = one(attempt, judged, again, evidence.min_cos);
        if found.iter().all(|c| !c.confident)
            && let Some((probe, on_probe)) = evidence.probe
            && let Some(cause) = accumulation::diagnose((attempt, judged), (probe, &on_probe[i]))
        {
            found.insert(0, cause);
        }
        causes.extend(found);
    }
    if let Some((probe, on_probe)) = evidence.probe.filter(|_| causes.is_empty()) {
        for i in failing(on_probe) {
            let mut found = one(probe, &on_probe[i], None, evidence.min_cos);
            if found.iter().all(|c| !c.confident) {
                found.extend(accumulation::diagnose((attempt, &hops[i]), (probe, &on_probe[i])));
                found.sort_by_key(|c| !c.confident);
            }
            causes.extend(found);
        }
    }
    causes
}

/// The ranked causes of one hop.
fn one(attempt: &Attempt, judged: &JudgedHop, again: Option<&Captured>, min_cos: f64) -> Vec<Cause> {
    match attempt.buffer(judged.id).scheme {
        None => consumer::diagnose(attempt, judged, again, min_cos),
        Some(_) => producer::diagnose(attempt, judged, again),
    }
}

/// Every hypothesis about how an expression is computed.
fn table<'a>(attempt: &'a Attempt, source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut found = Vec::new();
    for id in source.buffers() {
        let operand = attempt.buffer(id);
        found.extend(scales::hypotheses(id, operand));
        found.extend(codes::hypotheses(id, operand, attempt.setup.poison, &|| world.whole(id)));
    }
    found.extend(graph::hypotheses(source));
    found.extend(product::hypotheses(source));
    found
}

/// Which elements differ between two runs on the same inputs.
fn differing(first: &Captured, second: &Captured) -> Vec<bool> {
    if first.dtype.bits() < 8 {
        return first
            .dtype
            .codes(&first.data)
            .zip(first.dtype.codes(&second.data))
            .map(|(a, b)| a != b)
            .collect();
    }
    let size = first.dtype.bits() as usize / 8;
    first.data.chunks(size).zip(second.data.chunks(size)).map(|(a, b)| a != b).collect()
}

#[cfg(test)]
mod tests;
