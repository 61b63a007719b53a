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
//! - [`consumer`]: the search; [`sampled`], [`reading`]: evaluation of some rows and columns under hypotheses;
//! - [`map`]: which elements are wrong, in words.
//!
//! What a single check proves by itself (guards, unwritten elements, repeats) is named by the harness.

mod codes;
mod consumer;
mod graph;
mod hypothesis;
mod map;
mod output;
mod product;
mod reading;
mod sampled;
mod scales;

use crate::case::Attempt;
use crate::judge::JudgedHop;
use crate::record::Cause;

/// Failing hops of one run that are looked into: each was judged on what it was given, so each has a cause of its own.
const HOPS: usize = 2;

/// The ranked causes of the hops of a run that failed. `second` is a run on the same inputs with other poison, where
/// there is one: elements that differ between the two are no result of the inputs, and are left out.
pub fn diagnose(attempt: &Attempt, second: Option<&Attempt>, hops: &[JudgedHop], min_cos: f64) -> Vec<Cause> {
    let failing = hops.iter().filter(|judged| judged.checks.iter().any(|check| !check.ok));
    let mut causes = Vec::new();
    for judged in failing.take(HOPS) {
        let buffer = attempt.buffer(judged.id);
        if consumer::is_consumer(buffer) {
            let unsteady = second.map(|second| consumer::differing(buffer, second.buffer(judged.id)));
            causes.extend(consumer::diagnose(attempt, judged, unsteady.as_deref(), min_cos));
        } else {
            causes.extend(judged.causes.iter().cloned());
        }
    }
    causes
}

#[cfg(test)]
mod tests;
