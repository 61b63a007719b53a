//! The search for a consumer: which hypotheses, alone or in pairs, turn the reference into what the kernel wrote.
//!
//! Hypotheses are scored on a sample of rows and columns, half of them from where the output is wrong; what scores best
//! is computed whole, and stated only if the hop's own checks would then pass. `sample` scores, `pairs` chooses which
//! hypotheses are tried together, `words` says what was found.

mod pairs;
mod sample;
mod words;

use super::hypothesis::{Hypothesis, Slot, variant};
use super::map::{self, Content, Map, Pattern, Place};
use super::memo::Memo;
use super::output::{self, Fit};
use super::refitted;
use super::runs::{Runs, unsteady};
use super::sampled::{World, pick};
use super::table::{Scope, root, table};
use super::{tiles, vectors};
use crate::case::input::Data;
use crate::case::{Attempt, Captured, Kind};
use crate::check_name::Mildness;
use crate::judge::spread::{Spread, is_rounding};
use crate::judge::{self, JudgedHop, failed, round_overflow};
use crate::metrics::compare;
use crate::record::{Cause, CheckName, CheckResult};
use crate::reference::graph::Op;
use crate::reference::{Expr, Matrix};
use crate::verdict::{NOISE_FACTOR, bounded_checks};
use rayon::prelude::*;
use sample::{Sample, Scored, score};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows and columns of the first sample, on which every hypothesis is scored, and of the second, for the best.
const FIRST: (usize, usize) = (4, 10);
const SECOND: (usize, usize) = (12, 40);
/// The sample on which halves of pairs are ranked: a half explains little by itself.
const PAIRS: (usize, usize) = (8, 32);
/// The same where K is long.
const FIRST_LONG: (usize, usize) = (3, 6);
const SECOND_LONG: (usize, usize) = (8, 24);
const PAIRS_LONG: (usize, usize) = (6, 8);
const LONG: usize = 2048;
/// Hypotheses that go on to the second sample.
const KEPT: usize = 24;
/// Wrong elements that are too few to tell a cause by.
const FEW: usize = 4;
/// The same of errors of a rounding or two.
const MANY: usize = 32;
/// Pairs that are tried: terms of K of all of them together, and bounds on how many they are. No clock decides, so that
/// a busy machine finds what an idle one does.
const PAIRS_TERMS: usize = 12_000_000;
const PAIRS_TERMS_LONG: usize = 4_000_000;
const PAIRS_TRIED: (usize, usize) = (400, 40_000);
/// Pairs of an operation that computes the whole of its result at a time.
const PAIRS_OF_WHOLE: usize = 1000;
/// Candidates that are computed whole.
const CONFIRMED: usize = 3;
/// How many more, of those that make the same of the sample as one of them.
const TIES: usize = 12;
/// Share of the error that a hypothesis must explain on the sample to be computed whole.
const EXPLAINS: f64 = 0.98;
/// Share of the error that may be left where elements are off by a rounding alone.
const FINE_LEFT: f64 = 0.05;
/// Share of the error from which on a cause is worth a line.
const PARTLY: f64 = 0.5;
/// Correlation on the sample from which on only a factor can be left.
const ALIKE: f64 = 0.9999;

/// A hop that failed.
pub struct Hop<'a> {
    pub attempt: &'a Attempt,
    pub judged: &'a JudgedHop,
    pub buffer: &'a Captured,
    pub source: &'a Expr,
    pub reference: Arc<Matrix>,
    pub out: Matrix,
    /// Elements that are no result of the inputs, in order.
    unsteady: Vec<usize>,
    /// What accumulation may add to an element, relative to its row's root mean square.
    accumulation: f64,
    /// Where errors are small, so that only elements and the norm of all tell: what an element may be off by before it is rounded, relative to itself and
    /// its row's root mean square. An element is wrong then if it is no rounding of a value within that.
    fine: Option<f64>,
}

/// How well something explains the output.
#[derive(Clone, Debug)]
struct Explained {
    /// Share of the error.
    score: f64,
    cos: Option<f64>,
    /// Nothing is left that the hop's checks would see.
    whole: bool,
    /// Nearly all elements that the hypothesis explains are NaN. Any hypothesis that makes NaN explains those.
    nan_only: bool,
}

impl<'a> Hop<'a> {
    /// Elements that are others `again` are taken for right: they are no result of the inputs.
    pub fn new(attempt: &'a Attempt, judged: &'a JudgedHop, again: Runs<'_>) -> Option<Hop<'a>> {
        let buffer = attempt.buffer(judged.id);
        let source = buffer.source.as_ref()?;
        let reference = Arc::new(round_overflow(&judged.reference, buffer.dtype).into_owned());
        let ordinary = !matches!(attempt.setup.data, Data::Probe(_));
        let allowed = judged.bounds.rel_l2.unwrap_or(1e-3) / NOISE_FACTOR;
        let accumulation = if ordinary { accumulation(source).min(8.0 * allowed) } else { 8.0 * allowed };
        let mut out = buffer.value();
        let unsteady = unsteady(buffer, again);
        let unsteady: Vec<usize> = (0..unsteady.len()).filter(|&i| unsteady[i]).collect();
        for &i in &unsteady {
            out.data[i] = reference.data[i];
        }
        let fine = fine(judged, &reference);
        Some(Hop { attempt, judged, buffer, source, reference, out, unsteady, accumulation, fine })
    }

    /// A reference of the whole hop, right where the output is no result of the inputs.
    fn settled(&self, mut value: Matrix) -> Matrix {
        for &i in &self.unsteady {
            value.data[i] = self.reference.data[i];
        }
        value
    }

    /// The hop as if its kernel had written `out`.
    pub fn planted(attempt: &'a Attempt, judged: &'a JudgedHop, out: Matrix) -> Option<Hop<'a>> {
        Hop::new(attempt, judged, &[]).map(|hop| Hop { out, ..hop })
    }

    /// How far an element may be from its value.
    fn tolerance(&self, value: f64, row: f64) -> f64 {
        if self.buffer.dtype.is_integer() {
            return 0.5;
        }
        // A result below the format's normal range has an absolute error.
        1.05 * judge::unit(self.buffer.dtype) * value.abs()
            + self.accumulation * row
            + self.buffer.dtype.min_positive()
    }

    fn is_wrong(&self, value: f64, out: f64, row: f64) -> bool {
        if value.is_nan() || out.is_nan() {
            return value.is_nan() != out.is_nan();
        }
        if value.is_infinite() || out.is_infinite() {
            return value != out;
        }
        if let Some(share) = self.fine {
            return !is_rounding(self.buffer.dtype, out, value, share * (value.abs() + row));
        }
        (out - value).abs() > self.tolerance(value, row)
    }

    pub fn map(&self) -> Map {
        let rms = rows_rms(&self.reference);
        Map::new(self.out.rows, self.out.cols, |r, c| {
            self.is_wrong(self.reference.row(r)[c], self.out.row(r)[c], rms[r])
        })
    }

    /// The error of `value` on a sample, each row in units of its reference; beyond what is allowed.
    fn error(&self, value: &Matrix, out: &Matrix, reference: &Matrix) -> f64 {
        let (scale, own) = (rows_rms(reference), rows_rms(value));
        let mut total = 0.0;
        for r in 0..out.rows {
            let unit = if scale[r] > 0.0 { scale[r] } else { own[r].max(f64::MIN_POSITIVE) };
            for (&x, &y) in value.row(r).iter().zip(out.row(r)) {
                if !self.is_wrong(x, y, own[r]) {
                    continue;
                }
                let off = (y - x).abs() / unit;
                // One outlier is not the whole of a fault.
                total += if off.is_finite() { off.min(3.0).powi(2) } else { 9.0 };
            }
        }
        total
    }

    /// How well a whole reference explains the output.
    /// `within` is the share of the error that may be left.
    fn explains(&self, value: &Matrix, before: f64, within: f64) -> Explained {
        let comparison = compare(value, &self.out);
        let checks = bounded_checks("", &comparison, &self.judged.bounds);
        let left = self.error(value, &self.out, &self.reference);
        // Beside a tie one more rounding goes either way.
        let within = if self.fine.is_some() { within.max(FINE_LEFT) } else { within };
        Explained {
            score: 1.0 - left / before,
            cos: comparison.cos,
            whole: left <= within * before && failed(&checks).is_empty() && self.elements_hold(value),
            nan_only: self.explains_nan_only(value),
        }
    }

    /// Whether nearly all elements that were no rounding of their value are one of `value`. A fault whose errors are small
    /// beside those of another one is not explained with it.
    fn elements_hold(&self, value: &Matrix) -> bool {
        let failed = |c: &&CheckResult| !c.ok && c.check == CheckName::Elements;
        if self.fine.is_some() || !self.judged.checks.iter().any(|c| failed(&c)) {
            return true;
        }
        let off = |of: &Matrix| {
            let (own, right) = (rows_rms(of), rows_rms(&self.reference));
            let mut count = 0_usize;
            for r in 0..of.rows {
                // Larger values come of larger sums, whose rounding is larger.
                let larger = if right[r] > 0.0 { (own[r] / right[r]).max(1.0) } else { f64::INFINITY };
                for (c, (&x, &out)) in of.row(r).iter().zip(self.out.row(r)).enumerate() {
                    let spread = larger * self.judged.spread.at(r, c);
                    let finite = x.is_finite() && out.is_finite();
                    let alike = x == out || x.is_nan() && out.is_nan();
                    let holds = alike || finite && is_rounding(self.buffer.dtype, out, x, spread);
                    count += usize::from(!holds);
                }
            }
            count
        };
        off(value) * ELEMENTS_LEFT <= off(&self.reference)
    }

    /// The share of the wrong elements of a sample that are right by `value`: numbers that are as it has them are not so by
    /// accident, whatever else is wrong elsewhere.
    fn exact(&self, value: &Matrix, out: &Matrix, reference: &Matrix) -> f64 {
        let (own, rms) = (rows_rms(value), rows_rms(reference));
        let (mut wrong, mut explained) = (0_usize, 0_usize);
        for r in 0..out.rows {
            for ((&x, &y), &right) in value.row(r).iter().zip(out.row(r)).zip(reference.row(r)) {
                if self.is_wrong(right, y, rms[r]) {
                    wrong += 1;
                    explained += usize::from(y.is_finite() && !self.is_wrong(x, y, own[r]));
                }
            }
        }
        if wrong < FEW { 0.0 } else { explained as f64 / wrong as f64 }
    }

    /// The hop as if what is wrong in this region were right: what is left are errors of a rounding or two, if there are any.
    fn beside(&self, map: &Map) -> Option<Hop<'a>> {
        let mut out = self.out.clone();
        for r in (0..map.rows).filter(|r| map.row_count[*r] > 0) {
            for c in (0..map.cols).filter(|c| map.col_count[*c] > 0) {
                out.row_mut(r)[c] = self.buffer.dtype.nearest(self.reference.row(r)[c]);
            }
        }
        let fine = Some(fine_share(self.judged, &self.reference)?);
        let (reference, unsteady) = (self.reference.clone(), self.unsteady.clone());
        Some(Hop { out, fine, reference, unsteady, ..*self })
    }

    /// Whether most of the wrong elements that `value` explains are NaN.
    fn explains_nan_only(&self, value: &Matrix) -> bool {
        let (own, rms) = (rows_rms(value), rows_rms(&self.reference));
        let (mut numbers, mut nan) = (0_usize, 0_usize);
        for r in 0..self.out.rows {
            for (c, &out) in self.out.row(r).iter().enumerate() {
                let explained = self.is_wrong(self.reference.row(r)[c], out, rms[r])
                    && !self.is_wrong(value.row(r)[c], out, own[r]);
                match explained {
                    true if out.is_nan() => nan += 1,
                    true => numbers += 1,
                    false => {}
                }
            }
        }
        nan > NAN_FOR_A_NUMBER * numbers
    }
}

/// Of how many elements that were no rounding of their value one may be left by what explains them.
const ELEMENTS_LEFT: usize = 10;
/// Share of the wrong elements that something must explain exactly to be worth the first line, where others are left.
const EXACTLY: f64 = 0.7;

/// NaN elements for each number that is explained, of which more say nothing of how the numbers are computed.
const NAN_FOR_A_NUMBER: usize = 16;

/// See [`Hop::fine`].
fn fine(judged: &JudgedHop, reference: &Matrix) -> Option<f64> {
    let mut failed = judged.checks.iter().filter(|c| !c.ok).peekable();
    let small = failed.peek().is_some() && failed.all(|c| c.check.mildness() == Mildness::Roundings);
    if small { fine_share(judged, reference) } else { None }
}

/// The error that nine of ten elements stay below before rounding, relative to the element and to its row's root mean square.
fn fine_share(judged: &JudgedHop, reference: &Matrix) -> Option<f64> {
    if matches!(judged.spread, Spread::Unknown) {
        return None;
    }
    let rms = rows_rms(reference);
    let mut shares: Vec<f64> = Vec::new();
    for (r, rms) in rms.iter().enumerate() {
        for (c, x) in reference.row(r).iter().enumerate() {
            let size = x.abs() + rms;
            if size > 0.0 {
                shares.push(judged.spread.at(r, c) / size);
            }
        }
    }
    shares.retain(|share| share.is_finite());
    let at = shares.len() * 9 / 10;
    (at < shares.len()).then(|| *shares.select_nth_unstable_by(at, f64::total_cmp).1)
}

/// What rounding of sums may add to an element of a row, relative to the row's root mean square.
fn accumulation(source: &Expr) -> f64 {
    let mut most = 2f64.powi(-22);
    source.visit(&mut |e| {
        most += match &e.0.op {
            Op::MatMul { a, accumulator, .. } => 6.0 * judge::unit_of(*accumulator) * a.0.cols as f64,
            Op::Round { to, .. } => 4.0 * judge::unit(*to),
            op if op.only_moves() => 0.0,
            _ => 2f64.powi(-15),
        }
    });
    most
}

/// Root mean square of the finite elements of each row.
fn rows_rms(of: &Matrix) -> Vec<f64> {
    let rms = |row: &[f64]| {
        let finite = row.iter().filter(|x| x.is_finite());
        let (sum, count) = finite.fold((0.0, 0usize), |(sum, count), x| (sum + x * x, count + 1));
        if count == 0 { 0.0 } else { (sum / count as f64).sqrt() }
    };
    (0..of.rows).map(|r| rms(of.row(r))).collect()
}

/// Hypotheses that hold together, and how well they do.
#[derive(Clone, Debug)]
struct Candidate {
    holding: Vec<usize>,
    /// A constant factor beside them.
    gain: Option<f64>,
    /// Whether it holds where the output is wrong only.
    in_region: bool,
    score: f64,
}

impl Candidate {
    /// How many things would have to be wrong at once.
    fn faults(&self) -> usize {
        self.holding.len() + usize::from(self.gain.is_some()) + usize::from(self.in_region)
    }
}

/// What explains the output of a failing consumer.
pub fn diagnose(attempt: &Attempt, judged: &JudgedHop, scope: Scope, again: Runs<'_>) -> Vec<Cause> {
    let Some(hop) = Hop::new(attempt, judged, again) else { return Vec::new() };
    let map = hop.map();
    if map.count == 0 {
        return Vec::new();
    }
    let before = hop.error(&hop.reference, &hop.out, &hop.reference);
    let place = place(&hop, &map);
    if let Some(cause) = left_out(&hop, &map, &place) {
        return vec![cause];
    }
    let search = Search { hop: &hop, map: &map, before, place, scope };
    // A handful of elements fits many a hypothesis.
    let mut causes = if map.count < FEW { vec![search.unknown()] } else { search.run() };
    causes.extend(beside(&hop, &map, scope, &causes));
    causes
}

/// What is wrong outside of the region in which a hop is wrong by much, where the elements say that something is.
fn beside(hop: &Hop<'_>, map: &Map, scope: Scope, known: &[Cause]) -> Vec<Cause> {
    let elements = hop.judged.checks.iter().any(|c| !c.ok && c.check == CheckName::Elements);
    let rest = (map.rows - map.wrong_rows().len()).max(map.cols - map.wrong_cols().len());
    if !elements || hop.fine.is_some() || scope != Scope::All || rest == 0 {
        return Vec::new();
    }
    let Some(hop) = hop.beside(map) else { return Vec::new() };
    let map = hop.map();
    if map.count < MANY {
        return Vec::new();
    }
    let before = hop.error(&hop.reference, &hop.out, &hop.reference);
    let place = place(&hop, &map);
    let mut found = Search { hop: &hop, map: &map, before, place, scope }.run();
    found.retain(|c| c.cause != "unknown" && known.iter().all(|k| k.cause != c.cause));
    for cause in &mut found {
        cause.detail = format!("beside that {}", cause.detail);
    }
    found
}

/// Where the output is wrong.
fn place(hop: &Hop<'_>, map: &Map) -> Place {
    let mut indices = Vec::new();
    for id in hop.source.buffers() {
        let buffer = hop.attempt.buffer(id);
        if buffer.dtype == crate::dtype::DType::I32 {
            indices.push((buffer, buffer.value()));
        }
    }
    let indices: Vec<_> = indices.iter().map(|(b, v)| (*b, v)).collect();
    let operands: Vec<_> = hop.source.buffers().into_iter().map(|id| hop.attempt.buffer(id)).collect();
    map::expert(map, &indices).or_else(|| map::heads(map, &operands)).unwrap_or_else(|| map.place())
}

/// Elements that hold zero or the poison, in a region: the kernel did not write them.
fn left_out(hop: &Hop<'_>, map: &Map, place: &Place) -> Option<Cause> {
    let poison = hop.attempt.setup.poison;
    let at = |r: usize, c: usize| r * map.cols + c;
    let unwritten = |r: usize, c: usize| !map.is_wrong(r, c) || hop.buffer.holds(at(r, c), poison);
    if map.count >= FEW && (0..map.rows).all(|r| (0..map.cols).all(|c| unwritten(r, c))) {
        let detail = format!(
            "`{}` holds what memory held before {}: nothing was written there",
            hop.buffer.name,
            place.located()
        );
        return Some(Cause {
            cause: "unwritten".into(),
            what: detail.as_str().into(),
            detail,
            cos: Some(1.0),
            score: Some(1.0),
            confident: true,
            ..Cause::default()
        });
    }
    if let Some(cause) = stays_as_it_was(hop, map, place) {
        return Some(cause);
    }
    let content = map::content(map, &hop.reference, &hop.out)?;
    // Columns that are zero as a whole have not been written; single zeros may have been.
    if content != Content::Zero || place.is_scattered() {
        return None;
    }
    // Zeros among right elements, as after a ReLU, are no region either.
    let (rows, cols) = (map.wrong_rows(), map.wrong_cols());
    let elements = rows.iter().flat_map(|&r| cols.iter().map(move |&c| (r, c)));
    let kept = elements.filter(|&(r, c)| hop.out.row(r)[c] != 0.0).count();
    if kept * 20 > rows.len() * cols.len() && place.pattern != Pattern::Tiles {
        return None;
    }
    let detail = match place.pattern {
        Pattern::Everywhere => {
            format!("`{}` is zero everywhere: nothing was written, or zeros", hop.buffer.name)
        }
        Pattern::Region | Pattern::Tiles | Pattern::Scattered => {
            format!("`{}` is zero in {place}, and right elsewhere", hop.buffer.name)
        }
    };
    Some(Cause {
        cause: "unwritten".into(),
        what: detail.as_str().into(),
        detail,
        cos: Some(1.0),
        score: Some(1.0),
        confident: true,
        ..Cause::default()
    })
}

/// A part of a buffer that is updated in place and holds there what it held before.
fn stays_as_it_was(hop: &Hop<'_>, map: &Map, place: &Place) -> Option<Cause> {
    let in_part = hop.buffer.kind == Kind::After && place.pattern == Pattern::Region && map.count >= FEW;
    let before = hop.source.buffers().into_iter().map(|id| hop.attempt.buffer(id)).filter(|before| {
        in_part && (before.rows, before.cols, before.dtype) == (map.rows, map.cols, hop.buffer.dtype)
    });
    let mut held = before.map(|before| (before, before.value()));
    let (before, _) = held.find(|(_, value)| {
        let elements = (0..map.rows).flat_map(|r| (0..map.cols).map(move |c| (r, c)));
        elements.filter(|(r, c)| map.is_wrong(*r, *c)).all(|(r, c)| hop.out.row(r)[c] == value.row(r)[c])
    })?;
    let detail = format!(
        "`{}` holds what `{}` held before {}: nothing was written there",
        hop.buffer.name,
        before.name,
        place.located()
    );
    Some(Cause {
        cause: "unwritten".into(),
        what: detail.as_str().into(),
        detail,
        cos: Some(1.0),
        score: Some(1.0),
        confident: true,
        ..Cause::default()
    })
}

struct Search<'a, 'h> {
    hop: &'h Hop<'a>,
    map: &'h Map,
    before: f64,
    place: Place,
    scope: Scope,
}

impl<'a> Search<'a, '_> {
    fn run(&self) -> Vec<Cause> {
        let world = World::new(self.hop.attempt);
        let mut hypotheses = table(self.hop.attempt, self.hop.source, &world);
        let mut k = 1;
        self.hop.source.visit(&mut |e| {
            if let Op::MatMul { a, .. } = &e.0.op {
                k = k.max(a.shape().1);
            }
        });
        let first = Sample::new(self.hop, self.map, if k > LONG { FIRST_LONG } else { FIRST });
        let second = Sample::new(self.hop, self.map, if k > LONG { SECOND_LONG } else { SECOND });
        let at = (second.rows.as_slice(), second.cols.as_slice());
        if self.scope == Scope::Sums {
            hypotheses.retain(|h| h.slot == Slot::Product && ["overflow", "accumulation"].contains(&h.cause));
        }
        if self.scope == Scope::All {
            let counted = tiles::fitted(self.hop.source, &world, at, &second.error(), &hypotheses);
            hypotheses.extend(counted);
        }
        // A function of the test's own computes the whole of its result at a time.
        let whole_at_a_time = {
            let mut found = false;
            self.hop.source.visit(&mut |e| found |= matches!(e.0.op, Op::User { .. }));
            found
        };
        let known: Memo<Vec<usize>, Option<Arc<Matrix>>> = Memo::default();
        let under = |hypotheses: &[Hypothesis<'a>], holding: &[usize], sample: &Sample| {
            if whole_at_a_time {
                let value = known.of(holding.to_vec(), || {
                    let variant = variant(&world, self.hop.source, hypotheses, holding);
                    catch_unwind(AssertUnwindSafe(|| variant.whole())).ok().map(Arc::new)
                });
                return value.map(|value| {
                    let here = pick(&value, &sample.rows, &sample.cols);
                    sample.settled(round_overflow(&here, self.hop.buffer.dtype).into_owned())
                });
            }
            // A function of the test's own may not take what a fault makes of its operands.
            let variant = variant(&world, self.hop.source, hypotheses, holding);
            catch_unwind(AssertUnwindSafe(|| variant.at(&sample.rows, &sample.cols)))
                .ok()
                .map(|value| sample.settled(round_overflow(&value, self.hop.buffer.dtype).into_owned()))
        };
        let scored = |hypotheses: &[Hypothesis<'a>], of: Range<usize>| -> Vec<(usize, Scored)> {
            let score = |i| Some((i, score(self.hop, &first, under(hypotheses, &[i], &first)?)));
            of.into_par_iter().filter_map(score).collect()
        };
        let everywhere = hypotheses.len();
        let hop = self.hop;
        // Numbers of experts: none is a multiple of another, and two rules at once make any of them.
        let labels = hop.buffer.dtype.is_integer() && root(hop.source) == Some("router");
        let (mut singles, mut fits) = rayon::join(
            || scored(&hypotheses, 0..everywhere),
            || match self.scope {
                Scope::All => {
                    let (reference, out) = (&hop.reference, &hop.out);
                    let dtype = hop.buffer.dtype;
                    let mut found = vectors::fits(hop.attempt, hop.source, (reference, out), self.map, dtype);
                    found.extend(vectors::addends(hop.attempt, hop.source, (reference, out), self.map));
                    found.extend(output::fits(reference, out, self.map, hop.buffer.dtype, hop.source));
                    found
                }
                Scope::Sums => output::limits(&hop.reference, &hop.out, self.map, hop.buffer.dtype),
            },
        );
        fits = fits.into_iter().map(|fit| Fit { reference: hop.settled(fit.reference), ..fit }).collect();
        fits.retain(|fit| !labels || !["gain", "overflow", "addend_missing"].contains(&fit.cause));
        // What is misread in part, or scaled otherwise, is one fault: simpler than one in a region, or with a factor beside it.
        if self.scope == Scope::All && !singles.iter().any(|(_, s)| s.score >= EXPLAINS) {
            let off = |r: usize, c: usize| {
                let off = self.hop.out.row(r)[c] - self.hop.reference.row(r)[c];
                if off.is_finite() { off } else { 0.0 }
            };
            let screen = (first.rows.as_slice(), first.cols.as_slice());
            let parts = tiles::in_parts(self.hop.source, &world, &hypotheses, screen, at, &off);
            hypotheses.extend(parts);
            hypotheses.extend(refitted::hypotheses(hop.source, &world, &hop.out));
            singles.extend(scored(&hypotheses, everywhere..hypotheses.len()));
        }
        let hypotheses = hypotheses;
        let value = |holding: &[usize], sample: &Sample| under(&hypotheses, holding, sample);
        let mut candidates = self.singles(&hypotheses, &singles, labels);
        let rescore = |candidates: &mut Vec<Candidate>| {
            candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
            candidates.truncate(KEPT);
            candidates.par_iter_mut().for_each(|candidate| {
                candidate.score = value(&candidate.holding, &second).map_or(f64::NEG_INFINITY, |value| {
                    let value = match candidate.gain {
                        Some(gain) => second.settled(value.map(|x| gain * x)),
                        None => value,
                    };
                    let scored = score(self.hop, &second, value);
                    if candidate.in_region { scored.score_in_region } else { scored.score }
                });
            });
            // Stable: of equals the one that the table has first.
            candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        };
        rescore(&mut candidates);
        let whole = |candidate: &Candidate| self.whole(&world, &hypotheses, candidate);
        let mut stated = self.confirm(&hypotheses, &candidates, &second, &value, &whole);
        self.mark_left_out(&world, &hypotheses, &mut stated);
        let fitted = self.fitted(&fits, &second);
        let explained = stated.iter().any(|s| s.explained.whole) || fitted.iter().any(|(_, e)| e.whole);
        if self.scope == Scope::All && !explained && !labels && hop.fine.is_none() {
            let middle = Sample::new(self.hop, self.map, if k > LONG { PAIRS_LONG } else { PAIRS });
            let most = match whole_at_a_time {
                true => PAIRS_OF_WHOLE,
                false => {
                    let terms = if k > LONG { PAIRS_TERMS_LONG } else { PAIRS_TERMS };
                    (terms / k).clamp(PAIRS_TRIED.0, PAIRS_TRIED.1)
                }
            };
            let halves = self.halves(&hypotheses, &singles, &first);
            let mut pairs = self.pairs(&hypotheses, &halves, &middle, &first, &value, most);
            rescore(&mut pairs);
            stated.extend(self.confirm(&hypotheses, &pairs, &second, &value, &whole));
        }
        self.report(&hypotheses, stated, &fits, fitted)
    }

    /// The reference of the whole hop as a candidate has it.
    fn whole(
        &self,
        world: &World<'a>,
        hypotheses: &[Hypothesis<'a>],
        candidate: &Candidate,
    ) -> Option<Matrix> {
        let variant = variant(world, self.hop.source, hypotheses, &candidate.holding);
        let value = catch_unwind(AssertUnwindSafe(|| variant.whole())).ok()?;
        let mut value = round_overflow(&value, self.hop.buffer.dtype).into_owned();
        if let Some(gain) = candidate.gain {
            value = value.map(|x| gain * x);
        }
        value = self.hop.settled(value);
        if candidate.in_region {
            for r in 0..value.rows {
                for (c, x) in value.row_mut(r).iter_mut().enumerate() {
                    if !self.map.is_wrong(r, c) {
                        *x = self.hop.reference.row(r)[c];
                    }
                }
            }
        }
        Some(value)
    }

    /// Notes of what is stated whether leaving out the part that is misread would explain as much.
    fn mark_left_out(&self, world: &World<'a>, hypotheses: &[Hypothesis<'a>], stated: &mut [Stated]) {
        for stated in stated.iter_mut().filter(|s| s.explained.whole) {
            let [only] = stated.candidate.holding[..] else { continue };
            let Some(both) = tiles::without_the_rest(&hypotheses[only]) else { continue };
            let variant = variant(world, self.hop.source, &both, &[0, 1]);
            let value = catch_unwind(AssertUnwindSafe(|| variant.whole()));
            stated.or_left_out = value.is_ok_and(|value| {
                let value = round_overflow(&value, self.hop.buffer.dtype).into_owned();
                self.hop.explains(&self.hop.settled(value), self.before, 0.0).whole
            });
        }
    }

    /// Single hypotheses, everywhere or where the output is wrong, alone or with a constant factor.
    fn singles(
        &self,
        hypotheses: &[Hypothesis<'a>],
        scored: &[(usize, Scored)],
        labels: bool,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (i, scored) in scored {
            let holding = vec![*i];
            found.push(Candidate {
                holding: holding.clone(),
                gain: None,
                in_region: false,
                score: scored.score,
            });
            // Where nearly everything is wrong a region explains nothing better.
            if !self.map.is_everywhere() && scored.score_in_region > scored.score {
                let score = scored.score_in_region - 1e-6;
                found.push(Candidate { holding: holding.clone(), gain: None, in_region: true, score });
            }
            let gain = output::snapped(scored.gain);
            // Sums in few bits go with nearly anything, times a factor of no name.
            let named = hypotheses[*i].cause != "accumulation" || output::is_common(gain);
            if !labels && named && scored.is_off_by_a_factor() {
                let score = scored.correlation - 1e-3;
                let gain = Some(gain);
                found.push(Candidate { holding, gain, in_region: false, score });
            }
        }
        found
    }

    /// The best candidates computed whole, with those that make the same of the sample.
    fn confirm(
        &self,
        hypotheses: &[Hypothesis<'a>],
        candidates: &[Candidate],
        sample: &Sample,
        value: &(dyn Fn(&[usize], &Sample) -> Option<Matrix> + Sync),
        whole: &dyn Fn(&Candidate) -> Option<Matrix>,
    ) -> Vec<Stated> {
        let mut stated: Vec<(Stated, Matrix)> = Vec::new();
        let (mut looked, mut ties) = (0, 0);
        let explained = |candidate: &Candidate| {
            // In which order a kernel rounds its sums is its own affair.
            let of_sums = candidate.holding.iter().any(|&i| hypotheses[i].cause == "accumulation");
            let value = whole(candidate)?;
            Some(self.hop.explains(&value, self.before, if of_sums { 0.02 } else { 0.0 }))
        };
        let causes = |c: &Candidate| c.holding.iter().map(|&i| hypotheses[i].cause).collect::<BTreeSet<_>>();
        for candidate in candidates {
            if candidate.score < PARTLY {
                break;
            }
            let Some(here) = value(&candidate.holding, sample) else { continue };
            let same = |other: &(Stated, Matrix)| {
                let scaled = |x: f64, gain: Option<f64>| x * gain.unwrap_or(1.0);
                other.0.candidate.in_region == candidate.in_region
                    && other.1.data.iter().zip(&here.data).all(|(x, y)| {
                        let (x, y) = (scaled(*x, other.0.candidate.gain), scaled(*y, candidate.gain));
                        x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-9 * x.abs()
                    })
            };
            if let Some((known, _)) = stated.iter_mut().find(|s| same(s)) {
                let order = candidate.faults().cmp(&known.candidate.faults());
                // What the sample does not tell apart the whole may, as what becomes of the last row.
                let matters = !known.explained.whole
                    || order == Ordering::Less
                    || (order == Ordering::Equal && causes(candidate) != causes(&known.candidate));
                if candidate.score >= EXPLAINS && matters && ties < TIES {
                    ties += 1;
                    let Some(explained) = explained(candidate).filter(|e| e.whole) else { continue };
                    if !known.explained.whole {
                        known.candidate = candidate.clone();
                        known.explained = explained;
                        known.alike.clear();
                        continue;
                    }
                }
                // What needs more faults to do the same is no rival.
                match order {
                    Ordering::Less => {
                        known.candidate = candidate.clone();
                        known.alike.clear();
                    }
                    // A mistake that has its own name is likelier than one that reorders all columns of an operand.
                    Ordering::Equal
                        if ["nibble_order", "gate_up_swapped"]
                            .iter()
                            .any(|of| causes(candidate).contains(of))
                            && causes(&known.candidate).contains("permuted_tiles") =>
                    {
                        let other = std::mem::replace(&mut known.candidate, candidate.clone());
                        known.alike.push(other);
                    }
                    Ordering::Equal => known.alike.push(candidate.clone()),
                    Ordering::Greater => {}
                }
                continue;
            }
            if candidate.score < EXPLAINS {
                // Not computed whole: what the sample says is enough for a line.
                let explained =
                    Explained { score: candidate.score, cos: None, whole: false, nan_only: false };
                let mut partly = Stated::new(candidate, explained);
                if candidate.gain.is_none() && !candidate.in_region {
                    partly.exact = self.hop.exact(&here, &sample.out, &sample.reference);
                }
                stated.push((partly, here));
                continue;
            }
            if looked == CONFIRMED {
                continue;
            }
            looked += 1;
            let Some(explained) = explained(candidate) else { continue };
            stated.push((Stated::new(candidate, explained), here));
        }
        stated.into_iter().map(|(stated, _)| stated).collect()
    }

    fn fitted(&self, fits: &[Fit], sample: &Sample) -> Vec<(usize, Explained)> {
        let worth = |fit: &Fit| {
            let value = pick(&fit.reference, &sample.rows, &sample.cols);
            let left = self.hop.error(&value, &sample.out, &sample.reference);
            sample.before == 0.0 || 1.0 - left / sample.before >= PARTLY / 2.0
        };
        let mut found: Vec<(usize, Explained)> = fits
            .iter()
            .enumerate()
            .filter(|(_, fit)| worth(fit))
            .map(|(i, fit)| {
                // What is near the end of a step may be on either side of it.
                let within = if fit.cause == "rounding" { 0.02 } else { 0.0 };
                (i, self.hop.explains(&fit.reference, self.before, within))
            })
            .filter(|(_, e)| e.score >= PARTLY)
            .collect();
        found.sort_by(|a, b| b.1.whole.cmp(&a.1.whole).then(b.1.score.total_cmp(&a.1.score)));
        found
    }
}

/// A candidate with what its whole reference says.
struct Stated {
    candidate: Candidate,
    explained: Explained,
    /// Candidates that make the same of the sample.
    alike: Vec<Candidate>,
    /// What holds in a part of K alone holds everywhere as well, if the rest is left out.
    or_left_out: bool,
    /// Share of the wrong elements of the sample that it explains exactly, where it does not explain all.
    exact: f64,
}

impl Stated {
    fn new(candidate: &Candidate, explained: Explained) -> Stated {
        Stated { candidate: candidate.clone(), explained, alike: Vec::new(), or_left_out: false, exact: 0.0 }
    }

    /// Keeps what decodes an operand as another format, in which its codes are NaN; whatever else makes NaN, such as scales
    /// beyond the end of their buffer, is nothing that the output speaks for. Returns whether anything is left.
    fn keep_readings_as_nan(&mut self, hypotheses: &[Hypothesis<'_>]) -> bool {
        let decodes = |candidate: &Candidate| {
            candidate.holding.iter().all(|&i| matches!(hypotheses[i].slot, Slot::Format(_)))
        };
        let mut kept = std::iter::once(&self.candidate).chain(&self.alike).filter(|c| decodes(c)).cloned();
        let Some(first) = kept.next() else { return false };
        let alike = kept.collect();
        (self.candidate, self.alike) = (first, alike);
        true
    }
}
