//! Names the likely root cause of a hop that failed.
//!
//! Each hypothesis is one thing that a kernel may have done instead of what it should: read scales in another order,
//! take one format for another, leave out the last tile of K. The reference is computed as if it held, and its score is
//! the share of the error that it explains in the output that was really produced. A cause is stated with confidence
//! only if nothing is left that the hop's checks would see, and nothing else explains as much; `unknown` comes with the
//! error map in words.
//!
//! - `table`: every hypothesis about one expression, of the families `scales`, `codes`, `sums` and `graph`;
//! - `functions`: operands of functions that the test defines;
//! - `row_vectors`: operands of one row, such as gains and factors of columns, taken by another column;
//! - `columns_by_index`: columns that two indices choose, as of gate and up;
//! - `output`: fits of the output to its reference: gains, moved rows and columns, saturation;
//! - `grouped`: rows of experts, of blocks of them and of slots, taken for one another;
//! - `refitted`: scales that were taken from other places, fitted to the output;
//! - `vectors`: factors of rows and columns that are those of others;
//! - `tiles`: which parts of K a product has counted, fitted to the output;
//! - `consumer`, `producer`: the searches; `sampled`, `reading`, `product`: evaluation of some rows and columns under
//!   hypotheses;
//! - `memo`: what many hypotheses share; `runs`: what differs between runs on the same inputs;
//! - `map`: which elements are wrong, in words; `accumulation`: sums that lose bits in no order that can be told;
//! - `state`: what a kernel keeps from its first call;
//! - `evident`: what a single check proves by itself: guards, unwritten elements, repeats.

mod accumulation;
mod codes;
mod columns_by_index;
mod consumer;
mod evident;
mod functions;
mod graph;
mod grouped;
mod hypothesis;
mod map;
mod memo;
mod output;
mod producer;
mod product;
mod reading;
mod refitted;
mod row_vectors;
mod runs;
mod sampled;
mod scales;
mod selftest;
mod state;
mod sums;
mod table;
mod tiles;
mod vectors;

use crate::case::Attempt;
use crate::judge::{JudgedHop, judge_hops};
use crate::record::Cause;
use crate::reference::graph::Op;
use crate::words::Words;
pub use evident::{Unsteady, evident};
use runs::Runs;
pub use selftest::selftest;
pub use state::kept_from_first;
use table::{Scope, keeps_columns, root};

/// Failing hops of one run that are looked into: each was judged on what it was given, so each has a cause of its own.
const HOPS: usize = 3;

/// What is known of a case that failed.
pub struct Evidence<'a> {
    /// A run on ordinary data, and its hops as judged.
    pub first: (&'a Attempt, &'a [JudgedHop]),
    /// A run on the same inputs with other poison: elements that differ between the two are no result of the inputs, and
    /// are left out.
    pub second: Option<&'a Attempt>,
    /// A run on data whose large terms cancel, and the same once more.
    pub probe: Option<(&'a Attempt, &'a [JudgedHop])>,
    pub second_probe: Option<&'a Attempt>,
    /// A run on data of one sign, where that is wrong.
    pub one_sign: Option<(&'a Attempt, &'a [JudgedHop])>,
    pub min_cos: f64,
}

/// What was found out about a case that failed.
#[derive(Default)]
pub struct Findings {
    /// Ranked.
    pub causes: Vec<Cause>,
    /// Hops whose bytes differ between runs because of that very cause: it explains both runs in full, as one that reads
    /// memory which nobody wrote.
    pub explained: Vec<String>,
}

/// The ranked causes of the hops that failed: in the ordinary run, or where that is right in the one whose terms cancel.
pub fn diagnose(evidence: &Evidence<'_>) -> Findings {
    let failing = |hops: &'_ [JudgedHop]| -> Vec<usize> {
        let failed = |i: &usize| hops[*i].checks.iter().any(|check| !check.ok);
        (0..hops.len()).filter(failed).take(HOPS).collect()
    };
    let (attempt, hops) = evidence.first;
    let (mut causes, mut explained) = (Vec::new(), Vec::new());
    let mut on_second: Option<Vec<JudgedHop>> = None;
    for i in failing(hops) {
        let judged = &hops[i];
        let buffer = attempt.buffer(judged.id);
        let mut found = one(attempt, judged, Scope::All, &[]);
        let second = evidence.second.filter(|second| !second.buffer(judged.id).same_bytes(buffer));
        if let Some(second) = second {
            // What a kernel reads from memory that nobody wrote is another in each run: what explains both runs in full
            // explains why they differ. What explains one of them is an accident of that run.
            if found.iter().any(|c| c.confident) {
                let hops = on_second.get_or_insert_with(|| judge_hops(second, evidence.min_cos));
                let there = one(second, &hops[i], Scope::All, &[]);
                if alike(&found, &there) {
                    explained.push(buffer.name.clone());
                } else {
                    found.clear();
                }
            }
            if found.iter().all(|c| !c.confident) {
                found = one(attempt, judged, Scope::All, &[(buffer, second.buffer(judged.id))]);
            }
        }
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
            let id = on_probe[i].id;
            let pair = |a: &'_ Attempt, b: Option<&'_ Attempt>| {
                b.map(|b| (a.buffer(id).clone(), b.buffer(id).clone()))
            };
            let pairs: Vec<_> = [pair(attempt, evidence.second), pair(probe, evidence.second_probe)]
                .into_iter()
                .flatten()
                .collect();
            let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a, b)).collect();
            let mut found = one(probe, &on_probe[i], Scope::All, &pairs);
            if found.iter().all(|c| !c.confident) {
                found.extend(accumulation::diagnose((attempt, &hops[i]), (probe, &on_probe[i])));
                found.sort_by_key(|c| !c.confident);
            }
            causes.extend(found);
        }
    }
    // Where nothing cancels, what overflows does so in most of the elements.
    // What differs between runs cannot be told there from what is wrong.
    let steady = evidence
        .second
        .is_none_or(|second| hops.iter().all(|h| second.buffer(h.id).same_bytes(attempt.buffer(h.id))));
    let open = steady && causes.iter().all(|c| !c.confident);
    if let Some((one_sign, on_it)) = evidence.one_sign.filter(|_| open) {
        let of_sums = |i: usize| one(one_sign, &on_it[i], Scope::Sums, &[]);
        let found = failing(on_it).into_iter().flat_map(of_sums);
        let found: Vec<Cause> = found.collect();
        // What this run does not name for certain is less than what the ordinary one says.
        if causes.is_empty() || found.iter().any(|c| c.confident) {
            causes.splice(0..0, found);
        }
    }
    // A name that the table of families lacks is in no document and no schema.
    #[cfg(test)]
    for cause in &causes {
        assert!(
            crate::record::CauseFamily::named(&cause.cause).is_some(),
            "`{}` is in no table",
            cause.cause
        );
    }
    Findings { causes, explained }
}

/// Whether two runs are said to have the same cause for certain.
fn alike(first: &[Cause], second: &[Cause]) -> bool {
    fn certain(of: &[Cause]) -> Vec<(&str, Option<&str>, &Words)> {
        let certain = of.iter().filter(|c| c.confident);
        certain.map(|c| (c.cause.as_str(), c.operand.as_deref(), &c.what)).collect()
    }
    certain(first) == certain(second)
}

/// The ranked causes of one hop.
fn one(attempt: &Attempt, judged: &JudgedHop, scope: Scope, again: Runs<'_>) -> Vec<Cause> {
    let buffer = attempt.buffer(judged.id);
    let mut causes = match buffer.scheme {
        None => consumer::diagnose(attempt, judged, scope, again),
        Some(_) => producer::diagnose(attempt, judged, again),
    };
    // Whatever is wrong with what a router writes is wrong with the router.
    if let Some(operation) = buffer.source.as_ref().and_then(root) {
        let multiplies = buffer.source.as_ref().is_some_and(|source| {
            let mut found = false;
            source.visit(&mut |e| found |= matches!(e.0.op, Op::MatMul { .. }));
            found
        });
        for cause in &mut causes {
            let of_operation = match cause.cause.as_str() {
                "unknown" => true,
                "permuted_tiles" | "gate_up_swapped" => {
                    !(cause.moves_columns && buffer.source.as_ref().is_some_and(keeps_columns))
                }
                // An expert's own product may be wrong, whoever has chosen it.
                "transposed" | "addend_missing" | "k_tail_dropped" => !multiplies,
                _ => false,
            };
            if of_operation {
                cause.cause = operation.into();
            }
        }
    }
    causes
}

#[cfg(test)]
mod naming;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vocabulary;
