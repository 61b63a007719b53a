//! Names the likely root cause of a hop that failed.
//!
//! Each hypothesis is one thing that a kernel may have done instead of what it should: read scales in another order,
//! take one format for another, leave out the last tile of K. The reference is computed as if it held, and its score is
//! the share of the error that it explains in the output that was really produced. A cause is stated with confidence
//! only if nothing is left that the hop's checks would see, and nothing else explains as much; `unknown` comes with the
//! error map in words.
//!
//! - `scales`, `codes`, `product`, `graph`: the families of hypotheses about operands, sums and expressions;
//! - `output`: fits of the output to its reference: gains, moved rows and columns, saturation;
//! - `consumer`, `producer`: the searches; `sampled`, `reading`: evaluation of some rows and columns under hypotheses;
//! - `map`: which elements are wrong, in words; `accumulation`: sums that lose bits in no order that can be told;
//! - `evident`: what a single check proves by itself: guards, unwritten elements, repeats.

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
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr};
pub use evident::evident;
use hypothesis::{Hypothesis, Slot};
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
    /// A run on data whose large terms cancel, and the same once more.
    pub probe: Option<(&'a Attempt, &'a [JudgedHop])>,
    pub second_probe: Option<&'a Attempt>,
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
        // What a kernel reads from beyond its operands is another in each run, and may be explained all the same.
        let mut found = one(attempt, judged, &[], evidence.min_cos);
        let again = evidence.second.map(|second| second.buffer(judged.id));
        if found.iter().all(|c| !c.confident)
            && let Some(again) = again.filter(|again| !again.same_bytes(attempt.buffer(judged.id)))
        {
            found = one(attempt, judged, &[(attempt.buffer(judged.id), again)], evidence.min_cos);
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
            let mut found = one(probe, &on_probe[i], &pairs, evidence.min_cos);
            if found.iter().all(|c| !c.confident) {
                found.extend(accumulation::diagnose((attempt, &hops[i]), (probe, &on_probe[i])));
                found.sort_by_key(|c| !c.confident);
            }
            causes.extend(found);
        }
    }
    causes
}

/// Pairs of runs on the same inputs: what differs between the two of a pair is no result of the inputs.
type Runs<'a> = &'a [(&'a Captured, &'a Captured)];

/// The ranked causes of one hop.
fn one(attempt: &Attempt, judged: &JudgedHop, again: Runs<'_>, min_cos: f64) -> Vec<Cause> {
    let buffer = attempt.buffer(judged.id);
    let mut causes = match buffer.scheme {
        None => consumer::diagnose(attempt, judged, again, min_cos),
        Some(_) => producer::diagnose(attempt, judged, again),
    };
    // Whatever is wrong with what a router writes is wrong with the router.
    if let Some(operation) = buffer.source.as_ref().and_then(root) {
        for cause in &mut causes {
            if matches!(
                cause.cause.as_str(),
                "unknown"
                    | "permuted_tiles"
                    | "gate_up_swapped"
                    | "transposed"
                    | "addend_missing"
                    | "k_tail_dropped"
            ) {
                cause.cause = operation.into();
            }
        }
    }
    causes
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
    of_both(&mut found, attempt);
    name_by_operation(source, &mut found);
    found
}

/// Two operands of the same format that are misread alike.
fn of_both<'a>(found: &mut Vec<Hypothesis<'a>>, attempt: &Attempt) {
    let general = |h: &Hypothesis<'_>| {
        let name = h.operand.map_or("", |id| &attempt.buffer(id).name);
        h.what.replace(&format!("`{name}`"), "`_`")
    };
    let alike = |h: &Hypothesis<'_>| {
        (matches!(h.slot, Slot::Format(_)) || h.cause == "nibble_order") && h.also.is_none()
    };
    let mut both = Vec::new();
    for (i, first) in found.iter().enumerate().filter(|(_, h)| alike(h)) {
        let twin = found[i + 1..]
            .iter()
            .find(|h| alike(h) && h.operand != first.operand && general(h) == general(first));
        if let Some(second) = twin {
            let other = second.operand.map_or("", |id| &attempt.buffer(id).name);
            both.push(Hypothesis {
                what: format!("{}, and of `{other}` as well", first.what),
                also: Some((second.slot, second.change.clone())),
                ..first.clone()
            });
        }
    }
    found.extend(both);
}

/// Operands of a rotary embedding or of the routing of experts give their faults its name.
fn name_by_operation(source: &Expr, found: &mut [Hypothesis<'_>]) {
    let mut rename = |ids: Vec<BufferId>, cause: &'static str| {
        for h in found.iter_mut().filter(|h| h.operand.is_some_and(|id| ids.contains(&id))) {
            if !matches!(h.cause, "rounding" | "accumulation") {
                h.cause = cause;
            }
        }
    };
    source.visit(&mut |e| match &e.0.op {
        // The index says which expert's rows.
        Op::Gather { index, .. } => rename(index.buffers(), "router"),
        Op::Select { by, .. } => rename(by.buffers(), "router"),
        Op::User { name, inputs, .. } => match (operation(name), name.as_str()) {
            // Of what is rotated only the table and the positions steer.
            (Some("rope"), _) => rename(inputs.iter().skip(1).flat_map(|i| i.buffers()).collect(), "rope"),
            (Some(cause), _) => rename(inputs.iter().flat_map(|i| i.buffers()).collect(), cause),
            (None, "paged_attention") => {
                rename(inputs.iter().skip(3).take(1).flat_map(|i| i.buffers()).collect(), "permuted_tiles");
                rename(inputs.iter().skip(4).flat_map(|i| i.buffers()).collect(), "k_tail_dropped");
            }
            _ => {}
        },
        _ => {}
    });
}

/// The cause that all faults of an operation of [`crate::reference::model`] go by.
fn operation(name: &str) -> Option<&'static str> {
    match name {
        "rope" => Some("rope"),
        "topk_experts" | "topk_weights" | "rows_by_expert" | "expert_offsets" | "weighted_sum" => {
            Some("router")
        }
        _ => None,
    }
}

/// The operation that a hop is, below what only moves its result.
fn root(source: &Expr) -> Option<&'static str> {
    match &source.0.op {
        Op::User { name, .. } => operation(name),
        Op::Round { x, .. } | Op::Columns { x, .. } | Op::Rows { x, .. } | Op::Transpose { x } => root(x),
        _ => None,
    }
}

/// Which elements differ within any pair of runs.
fn unsteady(buffer: &Captured, runs: Runs<'_>) -> Vec<bool> {
    let mut all = vec![false; buffer.rows * buffer.cols];
    for (first, second) in runs {
        all.iter_mut().zip(differing(first, second)).for_each(|(all, here)| *all |= here);
    }
    all
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
