//! The search for a consumer: which hypotheses, alone or in pairs, turn the reference into what the kernel wrote.
//!
//! Hypotheses are scored on a sample of rows and columns, half of them from where the output is wrong; what scores best
//! is computed whole, and stated only if the hop's own checks would then pass.

use super::hypothesis::{Change, Hypothesis, Slot, variant};
use super::map::{self, Map};
use super::memo::Memo;
use super::output::{self, Fit};
use super::refitted;
use super::sampled::{World, all, pick};
use super::{Runs, Scope, root, table, tiles, unsteady};
use crate::case::input::{Data, Rng};
use crate::case::{Attempt, Captured};
use crate::judge::{self, JudgedHop, failed, round_overflow};
use crate::metrics::compare;
use crate::record::Cause;
use crate::reference::graph::Op;
use crate::reference::{Expr, Matrix};
use crate::verdict::{NOISE_FACTOR, comparison_checks};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
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
/// Hypotheses of each slot that are tried in pairs.
const PAIRED: usize = 60;
/// Wrong elements that are too few to tell a cause by.
const FEW: usize = 4;
/// Pairs that are tried: terms of K of all of them together, and bounds on how many they are. No clock decides, so that
/// a busy machine finds what an idle one does.
const PAIRS_TERMS: usize = 12_000_000;
const PAIRS_TERMS_LONG: usize = 4_000_000;
const PAIRS_TRIED: (usize, usize) = (400, 40_000);
/// Pairs of an operation that computes the whole of its result at a time.
const PAIRS_OF_WHOLE: usize = 4000;
/// Candidates that are computed whole.
const CONFIRMED: usize = 3;
/// Share of the error that a hypothesis must explain on the sample to be computed whole.
const EXPLAINS: f64 = 0.98;
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
    min_cos: f64,
}

/// How well something explains the output.
#[derive(Clone, Debug)]
struct Explained {
    /// Share of the error.
    score: f64,
    cos: Option<f64>,
    /// Nothing is left that the hop's checks would see.
    whole: bool,
}

impl<'a> Hop<'a> {
    /// Elements that are others `again` are taken for right: they are no result of the inputs.
    pub fn new(
        attempt: &'a Attempt,
        judged: &'a JudgedHop,
        again: Runs<'_>,
        min_cos: f64,
    ) -> Option<Hop<'a>> {
        let buffer = attempt.buffer(judged.id);
        let source = buffer.source.as_ref()?;
        let reference = Arc::new(round_overflow(&judged.reference, buffer.dtype).into_owned());
        let ordinary = !matches!(attempt.setup.data, Data::Probe(_));
        let allowed = judged.max_rel_l2.unwrap_or(1e-3) / NOISE_FACTOR;
        let accumulation = if ordinary { accumulation(source).min(8.0 * allowed) } else { 8.0 * allowed };
        let mut out = buffer.value();
        let unsteady = unsteady(buffer, again);
        let unsteady: Vec<usize> = (0..unsteady.len()).filter(|&i| unsteady[i]).collect();
        for &i in &unsteady {
            out.data[i] = reference.data[i];
        }
        Some(Hop { attempt, judged, buffer, source, reference, out, unsteady, accumulation, min_cos })
    }

    /// A reference of the whole hop, right where the output is no result of the inputs.
    fn settled(&self, mut value: Matrix) -> Matrix {
        for &i in &self.unsteady {
            value.data[i] = self.reference.data[i];
        }
        value
    }

    /// The hop as if its kernel had written `out`.
    pub fn planted(
        attempt: &'a Attempt,
        judged: &'a JudgedHop,
        out: Matrix,
        min_cos: f64,
    ) -> Option<Hop<'a>> {
        Hop::new(attempt, judged, &[], min_cos).map(|hop| Hop { out, ..hop })
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
        let checks = comparison_checks("", &comparison, self.min_cos, self.judged.max_rel_l2);
        let left = self.error(value, &self.out, &self.reference);
        Explained {
            score: 1.0 - left / before,
            cos: comparison.cos,
            whole: left <= within * before && failed(&checks).is_empty(),
        }
    }
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

/// Rows and columns that are looked at.
struct Sample {
    rows: Vec<usize>,
    cols: Vec<usize>,
    out: Matrix,
    reference: Matrix,
    /// Which of the elements are wrong.
    wrong: Vec<bool>,
    /// Those that are no result of the inputs.
    unsteady: Vec<usize>,
    /// The error of the right reference.
    before: f64,
}

impl Sample {
    fn new(hop: &Hop<'_>, map: &Map, (rows, cols): (usize, usize)) -> Sample {
        let mut rng = Rng(0x5eed);
        let rows = chosen(&map.row_count, rows, &mut rng);
        // Of the columns those that are wrong in these rows.
        let in_rows: Vec<usize> =
            (0..map.cols).map(|c| rows.iter().filter(|&&r| map.is_wrong(r, c)).count()).collect();
        let cols = chosen(&in_rows, cols, &mut rng);
        let (out, reference) = (pick(&hop.out, &rows, &cols), pick(&hop.reference, &rows, &cols));
        let wrong = rows.iter().flat_map(|&r| cols.iter().map(move |&c| map.is_wrong(r, c))).collect();
        let before = hop.error(&reference, &out, &reference);
        let at = |i: usize| rows[i / cols.len()] * hop.out.cols + cols[i % cols.len()];
        let unsteady = match hop.unsteady.is_empty() {
            true => Vec::new(),
            false => (0..out.data.len()).filter(|&i| hop.unsteady.binary_search(&at(i)).is_ok()).collect(),
        };
        Sample { rows, cols, out, reference, wrong, unsteady, before }
    }

    /// What a reference has here, right where the output is no result of the inputs.
    fn settled(&self, mut value: Matrix) -> Matrix {
        for &i in &self.unsteady {
            value.data[i] = self.reference.data[i];
        }
        value
    }

    /// The right reference where the output is right.
    fn within(&self, value: &Matrix) -> Matrix {
        let elements = value.data.iter().zip(&self.reference.data).zip(&self.wrong);
        let data = elements.map(|((x, right), wrong)| if *wrong { *x } else { *right }).collect();
        Matrix::new(value.rows, value.cols, data)
    }
}

/// Indices, two thirds of them with a count, spread over all.
fn chosen(counts: &[usize], most: usize, rng: &mut Rng) -> Vec<usize> {
    let n = counts.len();
    if n <= most {
        return all(n);
    }
    let wrong: Vec<usize> = (0..n).filter(|&i| counts[i] > 0).collect();
    let mut set = BTreeSet::new();
    let from_wrong = (most * 2 / 3).max(1).min(wrong.len());
    for i in 0..from_wrong {
        let at = (i * wrong.len() + rng.below(wrong.len() as u64) as usize) / from_wrong;
        set.insert(wrong[at.min(wrong.len() - 1)]);
    }
    while set.len() < most {
        set.insert(rng.below(n as u64) as usize);
    }
    set.into_iter().collect()
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

/// A candidate on a sample.
struct Scored {
    score: f64,
    score_in_region: f64,
    /// Correlation with the output, whatever the gain; and the gain.
    correlation: f64,
    gain: f64,
    value: Matrix,
}

impl Scored {
    fn is_off_by_a_factor(&self) -> bool {
        self.correlation > ALIKE && (self.gain - 1.0).abs() > 1e-3
    }
}

fn score(hop: &Hop<'_>, sample: &Sample, value: Matrix) -> Scored {
    let error = hop.error(&value, &sample.out, &sample.reference);
    let within = hop.error(&sample.within(&value), &sample.out, &sample.reference);
    let (mut xx, mut yy, mut xy, mut finite) = (0.0, 0.0, 0.0, 0);
    for (r, scale) in rows_rms(&sample.out).into_iter().enumerate() {
        let unit = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (x, y) in value.row(r).iter().zip(sample.out.row(r)) {
            if x.is_finite() && y.is_finite() {
                let (x, y) = (x * unit, y * unit);
                (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
                finite += 1;
            }
        }
    }
    // A few numbers among NaNs go with anything.
    let enough = xx > 0.0 && yy > 0.0 && 2 * finite >= sample.out.data.len();
    let correlation = if enough { xy / (xx * yy).sqrt() } else { 0.0 };
    Scored {
        score: 1.0 - error / sample.before,
        score_in_region: 1.0 - within / sample.before,
        correlation,
        gain: if xx > 0.0 { xy / xx } else { 0.0 },
        value,
    }
}

/// What explains the output of a failing consumer.
pub fn diagnose(
    attempt: &Attempt,
    judged: &JudgedHop,
    scope: Scope,
    again: Runs<'_>,
    min_cos: f64,
) -> Vec<Cause> {
    let Some(hop) = Hop::new(attempt, judged, again, min_cos) else { return Vec::new() };
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
    if map.count < FEW { vec![search.unknown()] } else { search.run() }
}

/// Where the output is wrong, in words.
fn place(hop: &Hop<'_>, map: &Map) -> String {
    let mut indices = Vec::new();
    for id in hop.source.buffers() {
        let buffer = hop.attempt.buffer(id);
        if buffer.dtype == crate::dtype::DType::I32 {
            indices.push((buffer, buffer.value()));
        }
    }
    let indices: Vec<_> = indices.iter().map(|(b, v)| (*b, v)).collect();
    map::expert(map, &indices).unwrap_or_else(|| map.place())
}

/// Elements that hold zero or the poison, in a region: the kernel did not write them.
fn left_out(hop: &Hop<'_>, map: &Map, place: &str) -> Option<Cause> {
    let content = map::content(map, &hop.reference, &hop.out)?;
    // Columns that are zero as a whole have not been written; single zeros may have been.
    if content != "zero" || place.contains("scattered") {
        return None;
    }
    // Zeros among right elements, as after a ReLU, are no region either.
    let (rows, cols) = (map.wrong_rows(), map.wrong_cols());
    let elements = rows.iter().flat_map(|&r| cols.iter().map(move |&c| (r, c)));
    let kept = elements.filter(|&(r, c)| hop.out.row(r)[c] != 0.0).count();
    if kept * 20 > rows.len() * cols.len() && !place.contains("tile") {
        return None;
    }
    Some(Cause {
        cause: "unwritten".into(),
        detail: match place {
            "everywhere" => {
                format!("`{}` is zero everywhere: nothing was written, or zeros", hop.buffer.name)
            }
            place => format!("`{}` is zero in {place}, and right elsewhere", hop.buffer.name),
        },
        cos: Some(1.0),
        score: Some(1.0),
        operand: None,
        confident: true,
    })
}

struct Search<'a, 'h> {
    hop: &'h Hop<'a>,
    map: &'h Map,
    before: f64,
    place: String,
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
            hypotheses.extend(tiles::fitted(self.hop.source, &world, at, &second.out));
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
                Scope::All => output::fits(&hop.reference, &hop.out, self.map, hop.buffer.dtype, hop.source),
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
        let mut candidates = self.singles(&singles, labels);
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
        let whole = |candidate: &Candidate| {
            let variant = variant(&world, self.hop.source, &hypotheses, &candidate.holding);
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
        };
        let mut stated = self.confirm(&hypotheses, &candidates, &second, &value, &whole);
        let fitted = self.fitted(&fits, &second);
        let explained = stated.iter().any(|s| s.explained.whole) || fitted.iter().any(|(_, e)| e.whole);
        if self.scope == Scope::All && !explained && !labels {
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

    /// Single hypotheses, everywhere or where the output is wrong, alone or with a constant factor.
    fn singles(&self, scored: &[(usize, Scored)], labels: bool) -> Vec<Candidate> {
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
            if !labels && scored.is_off_by_a_factor() {
                let score = scored.correlation - 1e-3;
                let gain = Some(output::snapped(scored.gain));
                found.push(Candidate { holding, gain, in_region: false, score });
            }
        }
        found
    }

    /// Hypotheses that may be half of a pair: those that change something, each as another of its slot does not.
    fn halves(
        &self,
        hypotheses: &[Hypothesis<'a>],
        scored: &[(usize, Scored)],
        sample: &Sample,
    ) -> Vec<usize> {
        let mut known: HashMap<Slot, Vec<&Matrix>> = HashMap::new();
        let alike = |x: &Matrix, y: &Matrix| self.hop.error(x, y, y) == 0.0;
        let mut found = Vec::new();
        for (i, scored) in scored {
            let of_slot = known.entry(hypotheses[*i].slot).or_insert_with(|| vec![&sample.reference]);
            let in_part = matches!(hypotheses[*i].change, Change::InPart(..));
            if hypotheses[*i].cause == "accumulation"
                || in_part
                || of_slot.iter().any(|x| alike(&scored.value, x))
            {
                continue;
            }
            of_slot.push(&scored.value);
            found.push(*i);
        }
        found
    }

    /// Two hypotheses that replace different things.
    fn pairs(
        &self,
        hypotheses: &[Hypothesis<'a>],
        halves: &[usize],
        sample: &Sample,
        first: &Sample,
        value: &(dyn Fn(&[usize], &Sample) -> Option<Matrix> + Sync),
        most: usize,
    ) -> Vec<Candidate> {
        let mut by_slot: Vec<Vec<(usize, Matrix)>> = Vec::new();
        let mut ranked: Vec<(usize, Scored)> = halves
            .par_iter()
            .filter_map(|&i| Some((i, score(self.hop, sample, value(&[i], sample)?))))
            .collect();
        ranked.sort_by(|a, b| b.1.correlation.total_cmp(&a.1.correlation));
        for (i, scored) in &ranked {
            // A hypothesis that changes next to nothing, or what another one does, is no half of a pair.
            let alike = |x: &Matrix, y: &Matrix| self.hop.error(x, y, y) == 0.0;
            let slot = hypotheses[*i].slot;
            let of = by_slot.iter().position(|of| hypotheses[of[0].0].slot == slot);
            let known = of.map_or(&[][..], |at| &by_slot[at]);
            if alike(&scored.value, &sample.reference)
                || known.iter().any(|(_, value)| alike(&scored.value, value))
            {
                continue;
            }
            match of {
                Some(at) if by_slot[at].len() < PAIRED => by_slot[at].push((*i, scored.value.clone())),
                Some(_) => {}
                None => by_slot.push(vec![(*i, scored.value.clone())]),
            }
        }
        // The best of each first; operands' own layouts and scales, and what of K is summed up, go together most often.
        let mut jobs: Vec<(usize, usize, usize)> = Vec::new();
        for (n, first) in by_slot.iter().enumerate() {
            for second in &by_slot[n + 1..] {
                for (a, (i, _)) in first.iter().enumerate() {
                    for (b, (j, _)) in second.iter().enumerate() {
                        let (x, y) = (&hypotheses[*i], &hypotheses[*j]);
                        let product = [x.slot, y.slot].contains(&Slot::Product);
                        let related = product || x.operand == y.operand;
                        jobs.push((a.max(b) / if related { 6 } else { 1 }, *i, *j));
                    }
                }
            }
        }
        jobs.sort_by_key(|job| job.0);
        let by_rank = jobs.into_iter().take(most).map(|(_, i, j)| (i, j));
        let values: Vec<(usize, &Matrix)> = ranked.iter().map(|(i, scored)| (*i, &scored.value)).collect();
        let by_fit = together(hypotheses, &values, sample, most).into_iter();
        let mut seen = HashSet::new();
        let mut tried: Vec<Vec<usize>> =
            interleaved(by_fit, by_rank).map(|(i, j)| vec![i.min(j), i.max(j)]).collect();
        tried.retain(|holding| seen.insert(holding.clone()));
        tried.truncate(most);
        tried
            .into_par_iter()
            .filter_map(|holding| {
                let score = score(self.hop, first, value(&holding, first)?).score;
                Some(Candidate { holding, gain: None, in_region: false, score })
            })
            .collect()
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
        let mut looked = 0;
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
                // What needs more faults to do the same is no rival.
                match candidate.faults().cmp(&known.candidate.faults()) {
                    Ordering::Less => {
                        known.candidate = candidate.clone();
                        known.alike.clear();
                    }
                    Ordering::Equal => known.alike.push(candidate.clone()),
                    Ordering::Greater => {}
                }
                continue;
            }
            if candidate.score < EXPLAINS {
                // Not computed whole: what the sample says is enough for a line.
                let explained = Explained { score: candidate.score, cos: None, whole: false };
                stated.push((Stated { candidate: candidate.clone(), explained, alike: Vec::new() }, here));
                continue;
            }
            if looked == CONFIRMED {
                continue;
            }
            looked += 1;
            let Some(value) = whole(candidate) else { continue };
            // In which order a kernel rounds its sums is its own affair.
            let of_sums = candidate.holding.iter().any(|&i| hypotheses[i].cause == "accumulation");
            let explained = self.hop.explains(&value, self.before, if of_sums { 0.02 } else { 0.0 });
            stated.push((Stated { candidate: candidate.clone(), explained, alike: Vec::new() }, here));
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
            .map(|(i, fit)| (i, self.hop.explains(&fit.reference, self.before, 0.0)))
            .filter(|(_, e)| e.score >= PARTLY)
            .collect();
        found.sort_by(|a, b| b.1.whole.cmp(&a.1.whole).then(b.1.score.total_cmp(&a.1.score)));
        found
    }

    /// What was found, in words and in order.
    fn report(
        &self,
        hypotheses: &[Hypothesis<'a>],
        mut stated: Vec<Stated>,
        fits: &[Fit],
        fitted: Vec<(usize, Explained)>,
    ) -> Vec<Cause> {
        stated.sort_by(|a, b| {
            let key =
                |s: &Stated| (s.explained.whole, -(s.candidate.holding.len() as i64), !s.candidate.in_region);
            key(b).cmp(&key(a)).then(b.explained.score.total_cmp(&a.explained.score))
        });
        let kernel = self.hop.buffer.kernel.map_or("the kernel".to_owned(), |k| format!("`{k}`"));
        let mut causes: Vec<Cause> = Vec::new();
        // What needs fewer faults is likelier.
        // A factor where the output is wrong is two things, as a hypothesis is that holds there only.
        let of_fit = |fit: &Fit| 1 + usize::from(fit.gain.is_some() && !self.map.is_everywhere());
        let fits_whole = fitted.iter().filter(|(_, e)| e.whole).map(|(i, _)| of_fit(&fits[*i])).min();
        let least =
            stated.iter().filter(|s| s.explained.whole).map(|s| s.candidate.faults()).chain(fits_whole).min();
        let certain: Vec<&Stated> =
            stated.iter().filter(|s| s.explained.whole && Some(s.candidate.faults()) == least).collect();
        let whole_fits: Vec<&(usize, Explained)> = fitted.iter().filter(|(_, e)| e.whole).collect();
        for s in &certain {
            let others =
                certain.iter().any(|o| self.first_cause(hypotheses, o) != self.first_cause(hypotheses, s));
            causes.extend(self.causes_of(hypotheses, s, &kernel, others));
        }
        for (i, explained) in whole_fits {
            let fit = &fits[*i];
            // A hypothesis that says more than the fit stands for it, unless many faults make the same factor.
            let common = fit.gain.is_some_and(output::is_common);
            if !certain.is_empty() && !common {
                continue;
            }
            if fit.gain.is_some() && !certain.is_empty() {
                for cause in causes.iter_mut().filter(|c| c.cause != "gain") {
                    cause.confident = false;
                    cause.detail +=
                        &format!(" (a constant factor of {} explains it as well)", factor_of(fit));
                }
                // Only a format or a scale is likelier than the factor itself.
                let likelier = ["fp8_variant", "scale_missing", "scale_inverted", "gain"];
                if !causes.iter().any(|c| likelier.contains(&c.cause.as_str())) {
                    let mut gain = self.cause_of_fit(fit, explained, false);
                    gain.confident = causes.iter().all(|c| c.cause == "k_tail_dropped");
                    causes.insert(0, gain);
                }
                continue;
            }
            // The first fit is the simplest.
            if !causes.iter().any(|c| c.cause == fit.cause) {
                causes.push(self.cause_of_fit(fit, explained, causes.is_empty()));
            }
        }
        if !causes.is_empty() {
            return causes;
        }
        // Nothing explains all of it.
        let partly = |causes: &mut Vec<Cause>, least: f64, most: f64| {
            for s in stated.iter().filter(|s| (least..most).contains(&s.explained.score)).take(2) {
                let share = 100.0 * s.explained.score;
                for mut cause in self.causes_of(hypotheses, s, &kernel, true) {
                    cause.detail = format!("explains {share:.0} % of the error: {}", cause.detail);
                    causes.push(cause);
                }
            }
            for (i, explained) in fitted.iter().filter(|(_, e)| (least..most).contains(&e.score)).take(1) {
                let mut cause = self.cause_of_fit(&fits[*i], explained, false);
                cause.detail =
                    format!("explains {:.0} % of the error: {}", 100.0 * explained.score, cause.detail);
                causes.push(cause);
            }
        };
        partly(&mut causes, 0.95, f64::INFINITY);
        causes.extend(self.lost_bits());
        causes.push(self.unknown());
        partly(&mut causes, PARTLY, 0.95);
        causes
    }

    fn first_cause(&self, hypotheses: &[Hypothesis<'a>], stated: &Stated) -> &'static str {
        hypotheses[stated.candidate.holding[0]].cause
    }

    fn unknown(&self) -> Cause {
        let content = map::content(self.map, &self.hop.reference, &self.hop.out);
        let content = content.map_or(String::new(), |what| format!(" and {what} there"));
        Cause {
            cause: "unknown".into(),
            detail: format!("`{}` is wrong {}{content}", self.hop.buffer.name, self.located()),
            cos: None,
            score: None,
            operand: None,
            confident: false,
        }
    }

    /// Small errors everywhere, of no structure: bits were lost somewhere in between.
    fn lost_bits(&self) -> Option<Cause> {
        let mild = ["elements", "rel_l2", "gain"];
        let only = |c: &crate::record::CheckResult| c.ok || mild.contains(&c.check.as_str());
        let spread = self.map.count * 10 >= self.map.rows * self.map.cols
            && self.map.wrong_rows().len() * 2 >= self.map.rows;
        if !spread || !self.hop.judged.checks.iter().all(only) || !self.is_noise() {
            return None;
        }
        Some(Cause {
            cause: "accumulation".into(),
            detail: format!(
                "`{}` has small errors everywhere that follow no operand and no order: sums or intermediate results in too few bits",
                self.hop.buffer.name
            ),
            ..Cause::default()
        })
    }

    /// Whether errors are as large in all rows and go with no value: those of another function are not.
    fn is_noise(&self) -> bool {
        let mut shares = Vec::new();
        let (mut xx, mut dd, mut xd) = (0.0, 0.0, 0.0);
        for r in 0..self.hop.out.rows {
            let (mut of_values, mut of_errors) = (0.0, 0.0);
            for (&x, &y) in self.hop.reference.row(r).iter().zip(self.hop.out.row(r)) {
                if x.is_finite() && y.is_finite() {
                    of_values += x * x;
                    of_errors += (y - x).powi(2);
                    xd += x * (y - x);
                }
            }
            (xx, dd) = (xx + of_values, dd + of_errors);
            if of_values > 0.0 {
                shares.push((of_errors / of_values).sqrt());
            }
        }
        shares.sort_by(f64::total_cmp);
        let Some(&median) = shares.get(shares.len() / 2) else { return false };
        let alike = shares.iter().filter(|s| (median / 8.0..=median * 8.0).contains(*s)).count();
        alike * 8 >= shares.len() * 7 && xd * xd <= 0.25 * xx * dd
    }

    fn located(&self) -> String {
        match self.place.as_str() {
            "everywhere" => "everywhere".into(),
            place => format!("in {place}"),
        }
    }

    fn cause_of_fit(&self, fit: &Fit, explained: &Explained, confident: bool) -> Cause {
        let region = if self.map.is_everywhere() { String::new() } else { format!(", in {}", self.place) };
        Cause {
            cause: fit.cause.into(),
            detail: format!("`{}` {}{region}", self.hop.buffer.name, fit.what),
            cos: explained.cos,
            score: Some(explained.score),
            operand: None,
            // Which fault makes a factor of each row is another question.
            confident: confident
                && explained.whole
                && !(fit.cause == "gain" && (fit.gain.is_none() || self.place.contains("scattered"))),
        }
    }

    /// One cause for each hypothesis that holds.
    fn causes_of(
        &self,
        hypotheses: &[Hypothesis<'a>],
        stated: &Stated,
        kernel: &str,
        ambiguous: bool,
    ) -> Vec<Cause> {
        let candidate = &stated.candidate;
        let own = |c: &Candidate| c.holding.iter().map(|&i| hypotheses[i].cause).collect::<BTreeSet<_>>();
        let causes = own(candidate);
        let rivals: Vec<&Candidate> = stated.alike.iter().filter(|c| own(c) != causes).collect();
        // Some scattered elements are no region.
        let scattered = candidate.in_region && self.place.contains("scattered");
        // Parts of K counted otherwise and a factor are also parts of K that have a factor each.
        let factor = candidate.gain.is_some() || causes.contains(&"gain");
        let parts = causes.contains(&"k_tail_dropped");
        let of_parts = factor && parts && causes.iter().all(|c| ["k_tail_dropped", "gain"].contains(c));
        let confident = stated.explained.whole && rivals.is_empty() && !ambiguous && !scattered && !of_parts;
        let region = match candidate.in_region {
            true => format!(", in {} only", self.place),
            false => String::new(),
        };
        let mut found: Vec<Cause> = candidate
            .holding
            .iter()
            .map(|&i| {
                let h = &hypotheses[i];
                let others: Vec<&str> = candidate
                    .holding
                    .iter()
                    .filter(|&&other| other != i)
                    .map(|&other| hypotheses[other].what.as_str())
                    .collect();
                let mut detail = format!("{kernel} {}{region}", h.what);
                if !others.is_empty() {
                    detail += &format!(", and {}", others.join(", and "));
                }
                if let Some(gain) = candidate.gain {
                    detail += &format!(", and the result is {} times as large", output::factor(gain));
                }
                if stated.explained.whole {
                    let cos = stated.explained.cos.map_or("-".into(), |c| format!("{c:.6}"));
                    detail += &format!(": a reference that does so agrees to {cos}");
                }
                let mut equal: Vec<String> = stated
                    .alike
                    .iter()
                    .filter(|c| c.holding.len() == 1)
                    .map(|c| hypotheses[c.holding[0]].what.clone())
                    .collect();
                equal.truncate(3);
                if !equal.is_empty() {
                    detail += &format!("; the same bytes come of one that {}", equal.join(", or "));
                }
                Cause {
                    cause: h.cause.into(),
                    detail,
                    cos: stated.explained.cos,
                    score: Some(stated.explained.score),
                    operand: h.operand.map(|id| self.hop.attempt.buffer(id).name.clone()),
                    confident,
                }
            })
            .collect();
        if let Some(gain) = candidate.gain {
            found.push(Cause {
                cause: "gain".into(),
                detail: format!(
                    "beside that `{}` is {} times what it should be",
                    self.hop.buffer.name,
                    output::factor(gain)
                ),
                cos: stated.explained.cos,
                score: Some(stated.explained.score),
                operand: None,
                // Many faults make such a factor, as a format's bias.
                confident: confident && !output::is_common(gain),
            });
        }
        if of_parts {
            found.sort_by_key(|cause| cause.cause != "gain");
        }
        // Other causes that make the same bytes.
        let mut named = causes;
        for rival in rivals.into_iter().filter(|r| r.holding.len() == 1) {
            let h = &hypotheses[rival.holding[0]];
            if named.contains(&h.cause) {
                continue;
            }
            named.insert(h.cause);
            found.push(Cause {
                cause: h.cause.into(),
                detail: format!("explains it equally: {kernel} {}", h.what),
                cos: stated.explained.cos,
                score: Some(stated.explained.score),
                operand: h.operand.map(|id| self.hop.attempt.buffer(id).name.clone()),
                confident: false,
            });
        }
        found
    }
}

/// Pairs of hypotheses that replace different things, those first whose effects on the sample, each as large as may be, add
/// up to most of the error.
fn together(
    hypotheses: &[Hypothesis<'_>],
    values: &[(usize, &Matrix)],
    sample: &Sample,
    most: usize,
) -> Vec<(usize, usize)> {
    let units = rows_rms(&sample.out);
    let effect = |value: &Matrix| -> Vec<f64> {
        let off = |(at, (x, right)): (usize, (&f64, &f64))| {
            let off = (x - right) / units[at / value.cols].max(f64::MIN_POSITIVE);
            // One outlier is not the whole of an effect.
            if off.is_finite() { off.clamp(-3.0, 3.0) } else { 0.0 }
        };
        value.data.iter().zip(&sample.reference.data).enumerate().map(off).collect()
    };
    let times = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let error = effect(&sample.out);
    let of: Vec<(usize, Vec<f64>)> = values.iter().map(|(i, value)| (*i, effect(value))).collect();
    let own: Vec<(f64, f64)> = of.iter().map(|(_, x)| (times(x, x), times(x, &error))).collect();
    let mut pairs: Vec<(f64, usize, usize)> = (0..of.len())
        .into_par_iter()
        .flat_map_iter(|n| {
            let (of, own) = (&of, &own);
            (n + 1..of.len()).filter_map(move |m| {
                let ((i, x), (j, y)) = (&of[n], &of[m]);
                if hypotheses[*i].slot == hypotheses[*j].slot {
                    return None;
                }
                let ((xx, xe), (yy, ye), xy) = (own[n], own[m], times(x, y));
                let rest = xx * yy - xy * xy;
                let explained = (xe * xe * yy - 2.0 * xe * ye * xy + ye * ye * xx) / rest;
                (rest > 1e-9 * xx * yy).then_some((explained, *i, *j))
            })
        })
        .collect();
    let by_share = |a: &(f64, usize, usize), b: &(f64, usize, usize)| b.0.total_cmp(&a.0);
    if pairs.len() > most {
        pairs.select_nth_unstable_by(most, by_share);
        pairs.truncate(most);
    }
    pairs.sort_by(by_share);
    pairs.into_iter().map(|(_, i, j)| (i, j)).collect()
}

/// One of each in turn, then what is left of the longer.
fn interleaved<T>(mut a: impl Iterator<Item = T>, mut b: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || Some([a.next(), b.next()]))
        .map_while(|[a, b]| (a.is_some() || b.is_some()).then_some([a, b]))
        .flatten()
        .flatten()
}

fn factor_of(fit: &Fit) -> String {
    fit.gain.map_or(String::new(), output::factor)
}

/// A candidate with what its whole reference says.
struct Stated {
    candidate: Candidate,
    explained: Explained,
    /// Candidates that make the same of the sample.
    alike: Vec<Candidate>,
}
