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
//! - `grouped`: rows of experts, of blocks of them and of slots, taken for one another;
//! - `refitted`: scales that were taken from other places, fitted to the output;
//! - `vectors`: factors of rows and columns that are those of others;
//! - `tiles`: which parts of K a product has counted, fitted to the output;
//! - `consumer`, `producer`: the searches; `sampled`, `reading`: evaluation of some rows and columns under hypotheses;
//! - `memo`: what many hypotheses share;
//! - `map`: which elements are wrong, in words; `accumulation`: sums that lose bits in no order that can be told;
//! - `state`: what a kernel keeps from its first call;
//! - `evident`: what a single check proves by itself: guards, unwritten elements, repeats.

mod accumulation;
mod codes;
mod consumer;
mod evident;
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
mod sampled;
mod scales;
mod selftest;
mod state;
mod tiles;
mod vectors;

use crate::case::{Attempt, Captured};
use crate::judge::{JudgedHop, judge_hops};
use crate::record::Cause;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use crate::words::Words;
pub use evident::{Unsteady, evident};
use hypothesis::{Hypothesis, Misreading, Sense, Slot};
use sampled::World;
pub use selftest::selftest;
pub use state::kept_from_first;

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
        let mut found = one(attempt, judged, Scope::All, &[], evidence.min_cos);
        let second = evidence.second.filter(|second| !second.buffer(judged.id).same_bytes(buffer));
        if let Some(second) = second {
            // What a kernel reads from memory that nobody wrote is another in each run: what explains both runs in full
            // explains why they differ. What explains one of them is an accident of that run.
            if found.iter().any(|c| c.confident) {
                let hops = on_second.get_or_insert_with(|| judge_hops(second, evidence.min_cos));
                let there = one(second, &hops[i], Scope::All, &[], evidence.min_cos);
                if alike(&found, &there) {
                    explained.push(buffer.name.clone());
                } else {
                    found.clear();
                }
            }
            if found.iter().all(|c| !c.confident) {
                found =
                    one(attempt, judged, Scope::All, &[(buffer, second.buffer(judged.id))], evidence.min_cos);
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
            let mut found = one(probe, &on_probe[i], Scope::All, &pairs, evidence.min_cos);
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
        let of_sums = |i: usize| one(one_sign, &on_it[i], Scope::Sums, &[], evidence.min_cos);
        let found = failing(on_it).into_iter().flat_map(of_sums);
        let found: Vec<Cause> = found.collect();
        // What this run does not name for certain is less than what the ordinary one says.
        if causes.is_empty() || found.iter().any(|c| c.confident) {
            causes.splice(0..0, found);
        }
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

/// Pairs of runs on the same inputs: what differs between the two of a pair is no result of the inputs.
type Runs<'a> = &'a [(&'a Captured, &'a Captured)];

/// Which hypotheses are tried.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    All,
    /// How sums are rounded and where they end: what data of one sign shows that ordinary data does not.
    Sums,
}

/// The ranked causes of one hop.
fn one(attempt: &Attempt, judged: &JudgedHop, scope: Scope, again: Runs<'_>, min_cos: f64) -> Vec<Cause> {
    let buffer = attempt.buffer(judged.id);
    let mut causes = match buffer.scheme {
        None => consumer::diagnose(attempt, judged, scope, again, min_cos),
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
                "unknown" | "permuted_tiles" | "gate_up_swapped" => true,
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

/// Every hypothesis about how an expression is computed.
fn table<'a>(attempt: &'a Attempt, source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut found = Vec::new();
    for id in source.buffers() {
        let operand = attempt.buffer(id);
        found.extend(scales::hypotheses(id, operand));
        found.extend(codes::hypotheses(id, operand, attempt.setup.poison.byte(), &|| world.whole(id)));
    }
    found.extend(graph::hypotheses(source, attempt));
    found.extend(product::hypotheses(source));
    found.extend(scales::exchanged(&source.buffers(), attempt));
    found.extend(codes::exchanged(source, attempt));
    found.extend(codes::steering(source, world));
    found.extend(codes::experts(source, attempt));
    found.extend(grouped::hypotheses(source, world));
    of_both(&mut found, attempt);
    name_by_operation(source, world, &mut found);
    found
}

/// Two operands of the same format that are misread alike.
fn of_both<'a>(found: &mut Vec<Hypothesis<'a>>, attempt: &Attempt) {
    let misreading = |h: &Hypothesis<'_>| match h.sense {
        // Other places of columns are one operand's own; two weights of a layer may well lie in memory alike.
        Sense::Misreads(misreading) if h.also.is_none() => {
            let packed = h.cause == "nibble_order" || matches!(misreading, Misreading::Order(..));
            let whole = matches!(h.slot, Slot::Format(_) | Slot::Scales(_) | Slot::Rounded(_));
            (packed || whole).then_some(misreading)
        }
        _ => None,
    };
    let mut both = Vec::new();
    for (i, first) in found.iter().enumerate() {
        let Some(own) = misreading(first) else { continue };
        let alike = |h: &&Hypothesis<'_>| {
            h.operand != first.operand && h.cause == first.cause && misreading(h) == Some(own)
        };
        let twin = found[i + 1..].iter().find(alike);
        if let Some(second) = twin {
            let other = second.operand.map_or("", |id| &attempt.buffer(id).name);
            both.push(Hypothesis {
                what: first.what.and(format_args!(", and of `{other}` as well")),
                also: Some((second.slot, second.change.clone())),
                ..first.clone()
            });
        }
    }
    found.extend(both);
}

/// Operands of a rotary embedding or of the routing of experts give their faults its name.
fn name_by_operation(source: &Expr, world: &World<'_>, found: &mut [Hypothesis<'_>]) {
    let mut rename_if =
        |ids: Vec<BufferId>, cause: &'static str, applies: &dyn Fn(&Hypothesis<'_>) -> bool| {
            for h in found.iter_mut().filter(|h| h.operand.is_some_and(|id| ids.contains(&id))) {
                if applies(h) {
                    h.cause = cause;
                }
            }
        };
    let steers = |h: &Hypothesis<'_>| !matches!(h.cause, "rounding" | "accumulation");
    let moves = |h: &Hypothesis<'_>| matches!(h.cause, "permuted_tiles" | "transposed");
    // One factor for each row, where the rows are of experts: a routing weight.
    let mut selects = false;
    let mut multiplied: Vec<BufferId> = Vec::new();
    source.visit(&mut |e| match &e.0.op {
        Op::Select { .. } => selects = true,
        Op::MatMul { a, b, .. } => multiplied.extend(a.buffers().into_iter().chain(b.buffers())),
        _ => {}
    });
    if selects {
        let weighs = |id: &BufferId| {
            let operand = world.attempt.buffer(*id);
            let plain = operand.scheme.is_none() && !operand.dtype.is_integer();
            plain && operand.rows * operand.cols == source.shape().0 && !multiplied.contains(id)
        };
        rename_if(source.buffers().into_iter().filter(weighs).collect(), "router", &steers);
    }
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { gain: Some(gain), .. } | Op::LayerNorm { gain: Some(gain), .. } => {
            rename_if(gain.buffers(), "norm_weight", &moves);
        }
        // Halves of a fused matrix.
        Op::Columns { x, range } if 2 * range.len() == x.shape().1 => {
            let halves = |h: &Hypothesis<'_>| h.sense == Sense::HalvesOfColumns;
            rename_if(x.buffers(), "gate_up_swapped", &halves);
        }
        // The index says which expert's rows.
        Op::Gather { index, .. } => rename_if(index.buffers(), "router", &steers),
        Op::Select { by, .. } => rename_if(by.buffers(), "router", &steers),
        Op::User { name, inputs, .. } => match (operation(name), name.as_str()) {
            // Of what is rotated only the table and the positions steer.
            (Some("rope"), _) => {
                rename_if(inputs.iter().skip(1).flat_map(|i| i.buffers()).collect(), "rope", &steers)
            }
            // Of a weighted sum the weights do; what is summed has faults of its own.
            (Some(cause), "weighted_sum") => {
                rename_if(inputs.iter().skip(1).flat_map(|i| i.buffers()).collect(), cause, &steers)
            }
            (Some(cause), _) => rename_if(inputs.iter().flat_map(|i| i.buffers()).collect(), cause, &steers),
            (None, "paged_attention") => {
                rename_if(
                    inputs.iter().skip(3).take(1).flat_map(|i| i.buffers()).collect(),
                    "permuted_tiles",
                    &steers,
                );
                rename_if(
                    inputs.iter().skip(4).take(1).flat_map(|i| i.buffers()).collect(),
                    "k_tail_dropped",
                    &steers,
                );
            }
            // A function of the test that is given a table of cosines and sines rotates.
            (None, _) => {
                let buffers = || {
                    inputs.iter().flat_map(|i| match i.0.op {
                        Op::Buffer(id) => Some(id),
                        _ => None,
                    })
                };
                let table = buffers().find(|id| is_rotary(&world.whole(*id)));
                if let Some(table) = table {
                    let places = world.whole(table).rows as f64;
                    let rows = inputs.first().map_or(0, |x| x.shape().0);
                    let steering = buffers().filter(|&id| {
                        let of = world.attempt.buffer(id);
                        let positions = of.dtype.is_integer() && of.rows * of.cols == rows;
                        id == table || positions && world.whole(id).data.iter().all(|p| *p < places)
                    });
                    rename_if(steering.collect(), "rope", &steers);
                }
            }
        },
        _ => {}
    });
}

/// Whether each row of a table is the cosines and sines of some angles, in halves or in pairs.
fn is_rotary(table: &Matrix) -> bool {
    let half = table.cols / 2;
    if table.rows < 2 || table.cols < 2 || !table.cols.is_multiple_of(2) {
        return false;
    }
    let on_circle = |a: f64, b: f64| (a * a + b * b - 1.0).abs() < 2f64.powi(-6);
    let rows = || (0..table.rows).map(|r| table.row(r));
    let moves = table.data.iter().any(|x| (0.1..0.9).contains(&x.abs()));
    let halves = || rows().all(|row| (0..half).all(|i| on_circle(row[i], row[half + i])));
    let pairs = || rows().all(|row| row.chunks(2).all(|of| on_circle(of[0], of[1])));
    moves && (halves() || pairs())
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
        Op::Select { .. } => Some("router"),
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
mod naming;
#[cfg(test)]
mod tests;
