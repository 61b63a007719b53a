//! Accumulation that no model reproduces bit for bit: told by how its error grows with the terms that cancel.
//!
//! Sums in few bits err in proportion to the magnitudes `|A||B|` that were summed up, not to the result. So a kernel
//! whose errors are small on ordinary data, and the same share of `|A||B|` on data whose large terms cancel, has lost
//! bits while it summed up.

use super::sampled::{Variant, World, all, pick};
use crate::case::Attempt;
use crate::check_name::Mildness;
use crate::dtype::F32;
use crate::judge::{JudgedHop, unit};
use crate::record::{Cause, CheckResult};
use crate::reference::graph::Op;
use crate::reference::{Expr, Matrix};

/// Rows and columns of the sample.
const SAMPLE: (usize, usize) = (16, 64);
/// Errors on ordinary data may be this many times those on cancelling data, both as shares of the magnitudes: more is
/// no matter of accumulation.
const ALIKE: f64 = 8.0;
/// The largest error, in root mean squares, that roundings may add up to.
const TOWERS: f64 = 16.0;
/// How many times those of another row or column the errors of one may be, as shares of the magnitudes.
const UNEVEN: f64 = 16.0;

/// The cause, if the errors of a hop on ordinary data and on cancelling data say so.
pub fn diagnose(first: (&Attempt, &JudgedHop), probe: (&Attempt, &JudgedHop)) -> Option<Cause> {
    let buffer = first.0.buffer(first.1.id);
    // Low accumulators leave ordinary data nearly right.
    let nearly = |c: &CheckResult| c.ok || c.check.mildness() <= Mildness::Rows;
    if !first.1.checks.iter().all(nearly) {
        return None;
    }
    let (product, k) = product(buffer.source.as_ref()?)?;
    let ordinary = share(first, &product)?;
    let cancelling = share(probe, &product)?;
    // Everywhere, and on ordinary data hidden by the rounding of the result or alike.
    if cancelling.wrong < 0.3 || cancelling.error > 0.02 || ordinary.error > ALIKE * cancelling.error {
        return None;
    }
    // A few errors that tower above the rest are no roundings.
    if ordinary.worst > TOWERS * ordinary.error.max(cancelling.error) {
        return None;
    }
    // Nor are errors that go with the column, or the row.
    if cancelling.uneven > UNEVEN {
        return None;
    }
    // A random walk of K roundings.
    let expected = unit(F32) * (k as f64).sqrt() / 4.0;
    let kernel = buffer.kernel.map_or("the kernel".to_owned(), |k| format!("`{k}`"));
    Some(Cause {
        cause: "accumulation".into(),
        detail: format!(
            "{kernel} loses bits while it sums up `{}`: where large terms cancel its errors are {:.1e} of their magnitudes, those of sums in float32 about {expected:.0e}",
            buffer.name, cancelling.error
        ),
        score: Some(1.0),
        confident: true,
        ..Cause::default()
    })
}

struct Share {
    /// Root mean square of error / magnitude.
    error: f64,
    /// The largest.
    worst: f64,
    /// The root mean square of a row or column, one with large errors over one with small ones.
    uneven: f64,
    /// Share of the elements that are no rounding of their value.
    wrong: f64,
}

fn share((attempt, judged): (&Attempt, &JudgedHop), product: &Expr) -> Option<Share> {
    let buffer = attempt.buffer(judged.id);
    let Op::MatMul { a, b, .. } = &product.0.op else { return None };
    let world = World::new(attempt);
    let step = |n: usize, most: usize| all(n).into_iter().step_by(n.div_ceil(most)).collect::<Vec<_>>();
    let rows = step(buffer.rows, SAMPLE.0);
    let cols = step(buffer.cols, SAMPLE.1);
    let absolute = |e: &Expr, rows: &[usize]| {
        let values = Variant::new(&world, e.clone()).at(rows, &all(e.shape().1));
        values.map(|x| if x.is_finite() { x.abs() } else { 0.0 })
    };
    let magnitude = absolute(a, &rows).matmul_t(&absolute(b, &cols));
    let (value, out): (Matrix, Matrix) =
        (pick(&judged.reference, &rows, &cols), pick(&buffer.value(), &rows, &cols));
    let (mut sum, mut count, mut wrong, mut worst) = (0.0, 0.0, 0.0, 0.0_f64);
    for ((&x, &y), &m) in value.data.iter().zip(&out.data).zip(&magnitude.data) {
        if !x.is_finite() || !y.is_finite() || m == 0.0 {
            continue;
        }
        // Beyond what rounding the result takes.
        let error = ((x - y).abs() - unit(buffer.dtype) * x.abs()).max(0.0);
        wrong += f64::from(u8::from(error > 8.0 * unit(F32) * m));
        sum += (error / m).powi(2);
        worst = worst.max(error / m);
        count += 1.0;
    }
    let uneven = uneven(&value, &out, &magnitude).max(uneven(
        &value.transposed(),
        &out.transposed(),
        &magnitude.transposed(),
    ));
    (count > 0.0).then(|| Share { error: (sum / count).sqrt(), worst, uneven, wrong: wrong / count })
}

/// The errors of the rows, as shares of the magnitudes: the ninth tenth of them over the first.
fn uneven(value: &Matrix, out: &Matrix, magnitude: &Matrix) -> f64 {
    let of_row = |r: usize| {
        let elements = value.row(r).iter().zip(out.row(r)).zip(magnitude.row(r));
        let finite = elements.filter(|((x, y), m)| x.is_finite() && y.is_finite() && **m > 0.0);
        let (sum, n) =
            finite.fold((0.0, 0usize), |(sum, n), ((x, y), m)| (sum + ((x - y) / m).powi(2), n + 1));
        (n > 0).then(|| (sum / n as f64).sqrt())
    };
    let mut errors: Vec<f64> = (0..value.rows).filter_map(of_row).collect();
    errors.sort_by(f64::total_cmp);
    let n = errors.len();
    if n == 0 { 1.0 } else { errors[n * 9 / 10] / errors[n / 10].max(f64::MIN_POSITIVE) }
}

/// The one product of an expression that is rounded, scaled or added to and nothing else.
fn product(source: &Expr) -> Option<(Expr, usize)> {
    match &source.0.op {
        Op::MatMul { a, .. } => Some((source.clone(), a.shape().1)),
        Op::Round { x, .. } => product(x),
        _ => None,
    }
}
