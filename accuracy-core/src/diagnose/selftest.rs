//! Every hypothesis planted on the reference side: which of the checks would have seen it.
//!
//! What power does with a few faults for every case, this does with the whole table: the reference is computed with the
//! fault, rounded as the kernel would have, and goes through the hop's own checks.

use super::consumer;
use super::hypothesis::{Change, Hypothesis, variant};
use super::product::Product;
use super::sampled::{World, all};
use super::table::table;
use crate::case::{Attempt, Captured};
use crate::judge::{JudgedHop, failed, producer_checks, round, uncertainty};
use crate::metrics::compare;
use crate::quant::{Quant, quantize};
use crate::record::{CheckName, Power, PowerStatus};
use crate::reference::{Expr, Matrix};
use crate::verdict::{at_most, bounded_checks, none};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rows on which sums in few bits are simulated: each product is rounded.
const SUMMED_ROWS: usize = 2;

/// Plants every fault of the table in every hop. `probe` is a run on data whose large terms cancel.
pub fn selftest(
    attempt: &Attempt,
    hops: &[JudgedHop],
    probe: Option<(&Attempt, &[JudgedHop])>,
) -> Vec<Power> {
    let mut found = Vec::new();
    for (i, judged) in hops.iter().enumerate() {
        let buffer = attempt.buffer(judged.id);
        let Some(source) = &buffer.source else { continue };
        let world = World::new(attempt);
        let hypotheses = table(attempt, source, &world);
        // Sums in few bits are for the data whose terms cancel.
        let (sums, others): (Vec<usize>, Vec<usize>) =
            (0..hypotheses.len()).partition(|&i| hypotheses[i].cause == "accumulation");
        for h in others {
            let variant = variant(&world, source, &hypotheses, &[h]);
            let faulty = catch_unwind(AssertUnwindSafe(|| variant.whole())).ok();
            let planted = |faulty: Matrix| match buffer.scheme {
                None => in_values(attempt, judged, &faulty),
                Some(scheme) => in_codes(attempt, judged, (source, &scheme), &faulty),
            };
            found.push(power(attempt, buffer, &hypotheses[h], faulty.map_or(Seen::Nothing, planted)));
        }
        let Some((probe, on_probe)) = probe.filter(|_| buffer.scheme.is_none()) else { continue };
        let judged = &on_probe[i];
        let world = World::new(probe);
        let hypotheses = table(probe, source, &world);
        for h in sums {
            let variant = variant(&world, source, &hypotheses, &[h]);
            let rows = all(buffer.rows.min(SUMMED_ROWS));
            let faulty = catch_unwind(AssertUnwindSafe(|| variant.at(&rows, &all(buffer.cols)))).ok();
            let seen = faulty.map_or(Seen::Nothing, |faulty| in_sums(judged, &faulty, buffer));
            found.push(power(probe, buffer, &hypotheses[h], seen));
        }
    }
    found
}

/// What the checks say of a planted fault.
enum Seen {
    /// No element differs by more than its rounding.
    Nothing,
    /// The checks that failed, and the cosine.
    By(Vec<String>, Option<f64>),
}

fn power(attempt: &Attempt, buffer: &Captured, hypothesis: &Hypothesis<'_>, seen: Seen) -> Power {
    let operand = hypothesis.operand.map_or(&buffer.name, |id| &attempt.buffer(id).name);
    let (status, failed_checks, cos) = match seen {
        Seen::Nothing => (PowerStatus::NotApplicable, Vec::new(), None),
        Seen::By(checks, cos) if checks.is_empty() => (PowerStatus::Unseen, checks, cos),
        Seen::By(checks, cos) => (PowerStatus::Seen, checks, cos),
    };
    Power {
        fault: hypothesis.cause.into(),
        operand: operand.clone(),
        status,
        failed_checks,
        cos,
        detail: hypothesis.what.to_string(),
        claimed: match &hypothesis.change {
            // Sums that are rounded seldom lose no more than float32 may.
            Change::Product(Product::Rounded { block, .. }) => *block == 1,
            Change::Product(Product::SplitK { .. }) => false,
            _ => true,
        },
    }
}

fn in_values(attempt: &Attempt, judged: &JudgedHop, faulty: &Matrix) -> Seen {
    let buffer = attempt.buffer(judged.id);
    let out = round(faulty, buffer.dtype);
    let Some(hop) = consumer::Hop::planted(attempt, judged, out) else { return Seen::Nothing };
    let wrong = hop.map().count;
    if wrong == 0 {
        return Seen::Nothing;
    }
    let comparison = compare(&hop.reference, &hop.out);
    let mut checks = bounded_checks("", &comparison, &judged.bounds);
    // Where it is known what each may be off by, every element is judged.
    if let Some(elements) = judged.checks.iter().find(|check| check.check == CheckName::Elements) {
        let bound = elements.bound.unwrap_or(0.0);
        checks.push(at_most(CheckName::Elements, "", Some(wrong as f64), bound));
    }
    Seen::By(failed(&checks), comparison.cos)
}

fn in_codes(
    attempt: &Attempt,
    judged: &JudgedHop,
    (source, scheme): (&Expr, &Quant),
    faulty: &Matrix,
) -> Seen {
    let buffer = attempt.buffer(judged.id);
    let world = World::new(attempt);
    let value = variant(&world, source, &[], &[]).whole();
    let (expected, written) =
        (quantize(&value, scheme, buffer.factor), quantize(faulty, scheme, buffer.factor));
    let uncertainty = uncertainty(source);
    let near = |(x, y): (&f64, &f64)| (x - y).abs() <= x.abs() * uncertainty || (x.is_nan() && y.is_nan());
    if value.data.iter().zip(&faulty.data).all(near) {
        return Seen::Nothing;
    }
    let comparison = compare(&expected.decode(), &written.decode());
    let mut checks = bounded_checks("", &comparison, &judged.bounds);
    checks.extend(producer_checks("", scheme, &value, &expected, &written, uncertainty));
    Seen::By(failed(&checks), comparison.cos)
}

fn in_sums(judged: &JudgedHop, faulty: &Matrix, buffer: &Captured) -> Seen {
    let reference = judged.reference.head(faulty.rows);
    let out = round(faulty, buffer.dtype);
    let comparison = compare(&reference, &out);
    let mut checks = vec![none(CheckName::Inf, "", comparison.inf_unexpected, "")];
    if comparison.inf_unexpected == 0 {
        checks = vec![at_most(
            CheckName::Accumulation,
            "",
            comparison.rel_l2,
            judged.bounds.rel_l2.unwrap_or(0.0),
        )];
    }
    if comparison.rel_l2 == Some(0.0) {
        return Seen::Nothing;
    }
    Seen::By(failed(&checks), comparison.cos)
}
