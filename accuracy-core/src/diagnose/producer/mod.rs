//! The search for a producer: what a quantiser that wrote these codes and scales did instead of what it should.
//!
//! Codes and scales are explained apart, since faults of either leave the other alone: where the scales were written and
//! by which rule they come from their cells; then where the codes were written, what they were divided by and how they
//! were rounded. What neither explains may be the values themselves: then the hypotheses of [`super::hypothesis`] about
//! the operands and the expression are tried. All on a sample of rows first; what is stated holds for every element.

use super::hypothesis::{Hypothesis, variant};
use super::map::{self, Map, Pattern, Place as Where};
use super::reading::Reading;
use super::runs::{Runs, unsteady};
use super::sampled::{Variant, World, all};
use super::scales;
use super::table::table;
use crate::case::{Attempt, Captured, Kind};
use crate::dtype::DType;
use crate::judge::{JudgedHop, uncertainty};
use crate::metrics::compare;
use crate::quant::{Quant, quantize};
use crate::record::Cause;
use crate::reference::{BufferId, Expr, Matrix};
use crate::words::{Words, says};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use codings::{By, Coding};
use orders::Place;
use rules::{Rule, amax};

mod codings;
mod orders;
mod rules;

/// Rows of the scale grid in the sample.
const ROWS: usize = 6;
/// Columns of each sampled row whose codes are looked at.
const COLS: usize = 96;
/// Cells of each sampled row of the grid whose scales are looked at.
const CELLS: usize = 64;
/// Share of wrong elements from which on something is worth a line.
const PARTLY: f64 = 0.5;

type Region = std::ops::Range<usize>;

struct Producer<'a, 'w> {
    attempt: &'a Attempt,
    id: BufferId,
    buffer: &'a Captured,
    source: &'a Expr,
    scheme: Quant,
    grid: (usize, usize),
    cell: (usize, usize),
    value: Matrix,
    uncertainty: f64,
    world: &'w World<'a>,
    /// Elements that differ between runs.
    unsteady: Vec<bool>,
    /// Pairs of runs on the same inputs.
    again: Runs<'w>,
}

/// What explains the bytes of a failing producer.
pub fn diagnose(attempt: &Attempt, judged: &JudgedHop, again: Runs<'_>) -> Vec<Cause> {
    let buffer = attempt.buffer(judged.id);
    let (Some(source), Some(scheme)) = (&buffer.source, buffer.scheme) else { return Vec::new() };
    let world = World::new(attempt);
    let value = Variant::new(&world, source.clone()).whole();
    let producer = Producer {
        attempt,
        id: judged.id,
        buffer,
        source,
        scheme,
        grid: scheme.granularity.grid(buffer.rows, buffer.cols),
        cell: scheme.granularity.cell(buffer.rows, buffer.cols),
        value,
        uncertainty: uncertainty(source),
        world: &world,
        unsteady: unsteady(buffer, again),
        again,
    };
    producer.run()
}

/// One thing that a quantiser does instead of what it should.
#[derive(Clone, Debug)]
struct Fault {
    cause: &'static str,
    what: Words,
    /// Whether it explains only what is wrong: what is right was made as it should be.
    there_only: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.what, if self.there_only { ", there only" } else { "" })
    }
}

/// What was found out about the scales or the codes.
#[derive(Clone, Debug, Default)]
struct Found {
    causes: Vec<Fault>,
    /// Share of what was wrong that it explains.
    score: f64,
    /// Other causes that explain as much.
    rivals: Vec<Fault>,
    /// What it explains is too little to tell it from others by.
    few: bool,
}

impl<'a> Producer<'a, '_> {
    fn run(&self) -> Vec<Cause> {
        let places = self.places();
        let declared = &places[0];
        let right_rule = self.right_rule();
        // What is asked of each code is looked up: the magnitude of a whole tensor for each of its codes takes forever.
        let right_here = self.tabulated(&right_rule);
        let scale_wrong = self.wrong_cells(declared, &right_here.scale, &self.value, None);
        let default = self.right_coding(By::Written);
        let own = Reading::right(self.buffer);
        let map = self.map(&scale_wrong, &default, &own, declared, &right_here);
        let zero_cells = self.zero_cells();
        if map.count == 0 && scale_wrong.iter().all(|w| !w) {
            return zero_cells.into_iter().collect();
        }
        let mut causes = self.search(&map, &places, &scale_wrong, (&right_rule, &right_here), &default, &own);
        // A scale that is inverted is infinite where nothing is, whatever the epsilon.
        if let Some(cause) = zero_cells.filter(|_| causes.iter().all(|c| c.cause != "scale_inverted")) {
            causes.push(cause);
        }
        causes
    }

    /// What explains cells that are not zero.
    fn search(
        &self,
        map: &Map,
        places: &[Place<'a>],
        scale_wrong: &[bool],
        (right_rule, right_here): (&Rule, &Rule),
        default: &Coding,
        own: &Reading<'a>,
    ) -> Vec<Cause> {
        let declared = &places[0];
        let located = map.place();
        if let Some(cause) = self.unchanged(map, &located).or_else(|| self.zeros(map)) {
            return vec![cause];
        }
        let (place, scales) = self.explain_scales(places, right_rule, scale_wrong);
        let explained_place = &places[place];
        let codes = self.explain_codes(map, explained_place, right_here, own);
        let complete = scales.score == 1.0 && codes.score == 1.0;
        let faults = scales.causes.len() + codes.causes.len();
        // One fault of the values is likelier than two of what is made of them.
        if !complete || faults > 1 {
            let values = self.explain_values(map, scale_wrong, declared, right_rule, default, own);
            let better = |found: &Found| {
                found.score == 1.0 || (!complete && found.score > scales.score.min(codes.score))
            };
            if let Some(found) = values.filter(better) {
                return match found.score {
                    1.0 => self.report(&[found], declared, &located),
                    _ => self.partly(&[found], map, &located),
                };
            }
        }
        if complete {
            return self.report(&[scales, codes], explained_place, &located);
        }
        if let Some((low, high)) = self.rows_off() {
            let near = low > 0.8 && high < 1.25;
            let mut causes = vec![Cause {
                cause: if near { "accumulation" } else { "gain" }.into(),
                detail: format!(
                    "{} scales each row of `{}` by a factor of its own, from {low:.4} to {high:.4}: {}",
                    self.kernel(),
                    self.buffer.name,
                    if near { "a sum over the row lost bits" } else { "a sum over the row is wrong" }
                ),
                score: Some(1.0),
                operand: Some(self.buffer.name.clone()),
                ..Cause::default()
            }];
            causes.extend(self.partly(&[scales, codes], map, &located));
            return causes;
        }
        self.partly(&[scales, codes], map, &located)
    }

    /// Codes that are zero everywhere.
    fn zeros(&self, map: &Map) -> Option<Cause> {
        let written = self.buffer.value();
        (map.count >= 8 && written.data.iter().all(|x| *x == 0.0)).then(|| Cause {
            cause: "unwritten".into(),
            detail: format!("`{}` is zero everywhere: nothing was written, or zeros", self.buffer.name),
            what: "writes zeros, or nothing".into(),
            cos: Some(1.0),
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
            ..Cause::default()
        })
    }

    /// Codes of a buffer that is updated in place, wrong where they are what they were before.
    fn unchanged(&self, map: &Map, located: &Where) -> Option<Cause> {
        let before = self.source.buffers().into_iter().map(|id| self.attempt.buffer(id)).find(|b| {
            b.kind == Kind::Before && (b.rows, b.cols, b.dtype) == (map.rows, map.cols, self.buffer.dtype)
        })?;
        let code = |b: &Captured, i: usize| b.dtype.code_at(&b.data, i);
        let mut wrong = (0..map.rows * map.cols).filter(|i| map.is_wrong(i / map.cols, i % map.cols));
        (map.count >= 8 && wrong.all(|i| code(self.buffer, i) == code(before, i))).then(|| Cause {
            cause: "unwritten".into(),
            detail: format!(
                "{} leaves `{}` as it was before {}: nothing was written there",
                self.kernel(),
                self.buffer.name,
                located.located()
            ),
            what: says!("leaves it as it was before {}", located.located()),
            cos: Some(1.0),
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
            ..Cause::default()
        })
    }

    fn rect(&self, r: usize, g: usize) -> (Region, Region) {
        let ((rows, cols), (m, k)) = (self.cell, (self.buffer.rows, self.buffer.cols));
        (r * rows..((r + 1) * rows).min(m), g * cols..((g + 1) * cols).min(k))
    }

    fn map(
        &self,
        scale_wrong: &[bool],
        default: &Coding,
        own: &Reading<'a>,
        declared: &Place<'a>,
        rule: &Rule,
    ) -> Map {
        Map::new(self.buffer.rows, self.buffer.cols, |r, c| {
            if self.unsteady[r * self.buffer.cols + c] {
                return false;
            }
            scale_wrong[r / self.cell.0 * self.grid.1 + c / self.cell.1]
                || self.code_wrong((r, c), default, own, declared, rule, &self.value)
        })
    }

    /// Cells to look at: some rows of the grid with wrong ones, and some of the others.
    fn sample(&self, wrong_rows: &[usize], most: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = spread(wrong_rows, most * 2 / 3);
        rows.extend(spread(&all(self.grid.0), most.saturating_sub(rows.len())));
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// NaN for cells of zeros: zero divided by zero.
    fn zero_cells(&self) -> Option<Cause> {
        let at = scales::right(self.buffer, &self.scheme);
        let written = self.buffer.value();
        // -0 of a format is the only NaN of its twin without one: a right division may have written it.
        let signed_zero = matches!(self.scheme.dtype, DType::E4M3Fnuz | DType::E5M2Fnuz);
        let mut first = None;
        for i in 0..self.grid.0 * self.grid.1 {
            let (r, g) = (i / self.grid.1, i % self.grid.1);
            let (rows, cols) = self.rect(r, g);
            if amax(&self.value, rows.clone(), cols.clone()) != 0.0 || self.unsteady_scale(r, g) {
                continue;
            }
            let scale = at(r, g);
            if signed_zero && scale.is_finite() && scale != 0.0 {
                continue;
            }
            let broken = !scale.is_finite()
                || rows.clone().any(|r| written.row(r)[cols.clone()].iter().any(|x| !x.is_finite()));
            if broken {
                first.get_or_insert((rows.start, cols.start));
            }
        }
        let (row, col) = first?;
        Some(Cause {
            cause: "overflow".into(),
            detail: format!(
                "{} divides zero by zero: NaN or Inf for cells of `{}` whose values are all zero, the first at [{row}, {col}]; take their scale from a magnitude of at least some epsilon",
                self.kernel(),
                self.buffer.name
            ),
            what: says!("divides zero by zero at [{row}, {col}]"),
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
            ..Cause::default()
        })
    }

    /// Whether other values explain scales and codes as they are.
    fn explain_values(
        &self,
        map: &Map,
        scale_wrong: &[bool],
        declared: &Place<'a>,
        rule: &Rule,
        default: &Coding,
        own: &Reading<'a>,
    ) -> Option<Found> {
        let hypotheses: Vec<Hypothesis<'a>> = table(self.attempt, self.source, self.world);
        let (grid_rows, groups) = self.grid;
        let wrong_grid: Vec<usize> = (0..grid_rows)
            .filter(|r| {
                let (rows, _) = self.rect(*r, 0);
                scale_wrong[r * groups..][..groups].contains(&true)
                    || rows.clone().any(|r| map.row_count[r] > 0)
            })
            .collect();
        let sampled = self.sample(&wrong_grid, ROWS);
        let rows: Vec<usize> = sampled.iter().flat_map(|&r| self.rect(r, 0).0).collect();
        let cols = all(self.buffer.cols);
        // A cell of many rows has its scale from all of them, but some tell whether the codes are explained.
        let (wrong, other): (Vec<usize>, Vec<usize>) = rows.iter().partition(|&&r| map.row_count[r] > 0);
        let looked: Vec<usize> = [wrong, other].iter().flat_map(|of| spread(of, 4 * ROWS)).collect();
        let evaluate = |holding: &[usize]| {
            let variant = variant(self.world, self.source, &hypotheses, holding);
            let part = catch_unwind(AssertUnwindSafe(|| variant.at(&rows, &cols))).ok()?;
            let mut value = self.value.clone();
            for (i, &r) in rows.iter().enumerate() {
                value.row_mut(r).copy_from_slice(part.row(i));
            }
            Some(value)
        };
        // Elements that are not as the values have it, of those that were wrong and of all; rows by themselves.
        let bad = |value: &Matrix, rows: &mut dyn Iterator<Item = usize>, step: usize, of_wrong: bool| {
            let (mut bad, mut seen) = (0usize, 0usize);
            // Codes that are neighbours share a cell.
            let mut cell_before: Option<((usize, usize), bool)> = None;
            for r in rows {
                for c in (0..self.buffer.cols).step_by(step) {
                    let at = r * self.buffer.cols + c;
                    if self.unsteady[at] || (of_wrong && !map.is_wrong(r, c)) {
                        continue;
                    }
                    seen += 1;
                    let at_cell = (r / self.cell.0, c / self.cell.1);
                    let cell = match cell_before {
                        Some((known, wrong)) if known == at_cell => wrong,
                        _ => self.cell_wrong(declared, &rule.scale, value, at_cell.0, at_cell.1),
                    };
                    cell_before = Some((at_cell, cell));
                    bad += usize::from(cell || self.code_wrong((r, c), default, own, declared, rule, value));
                }
            }
            (bad, seen)
        };
        let step = (self.buffer.cols / COLS).max(1);
        let mut scored: Vec<(f64, usize, bool)> = Vec::new();
        for i in 0..hypotheses.len() {
            let Some(value) = evaluate(&[i]) else { continue };
            let share =
                |(bad, seen): (usize, usize)| if seen == 0 { 0.0 } else { 1.0 - bad as f64 / seen as f64 };
            let wrong = share(bad(&value, &mut looked.iter().copied(), step, true));
            let whole = share(bad(&value, &mut looked.iter().copied(), step, false));
            scored.push((wrong, i, whole < 1.0));
        }
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
        let mut best: Option<Found> = None;
        for &(score, i, in_region) in scored.iter().take(4) {
            if score < PARTLY {
                break;
            }
            let whole = variant(self.world, self.source, &hypotheses, &[i]);
            let Ok(value) = catch_unwind(AssertUnwindSafe(|| whole.whole())) else { continue };
            let (left, seen) = bad(&value, &mut (0..self.buffer.rows), 1, in_region);
            let score = 1.0 - left as f64 / seen.max(1) as f64;
            let (cause, what) = (hypotheses[i].cause, hypotheses[i].what.clone());
            let fault = Fault { cause, what, there_only: in_region };
            match &mut best {
                Some(known) if score == known.score && known.causes[0].cause != cause => {
                    known.rivals.push(fault)
                }
                Some(known) if score <= known.score => {}
                _ => best = Some(Found { causes: vec![fault], score, ..Found::default() }),
            }
        }
        best
    }

    /// Everything is explained.
    fn report(&self, found: &[Found], place: &Place<'a>, located: &Where) -> Vec<Cause> {
        let expected = quantize(&self.value, &self.scheme, self.buffer.factor);
        let read: Vec<f64> =
            (0..self.grid.0 * self.grid.1).map(|i| (place.at)(i / self.grid.1, i % self.grid.1)).collect();
        let cos = self.buffer.quantized().and_then(|written| {
            let read = crate::quant::Quantized { scales: read, ..written };
            compare(&expected.decode(), &read.decode()).cos
        });
        let mut causes = Vec::new();
        let only_layout = found.iter().flat_map(|f| &f.causes).all(|fault| fault.cause == "scale_layout");
        for part in found {
            let kernel = self.kernel();
            for fault in &part.causes {
                let place = match located.pattern {
                    Pattern::Everywhere => String::new(),
                    Pattern::Region | Pattern::Tiles | Pattern::Scattered => {
                        format!(" ({})", located.located())
                    }
                };
                let what = says!("{fault}{place}");
                causes.push(Cause {
                    cause: fault.cause.into(),
                    detail: format!("{kernel} {what}"),
                    what,
                    // The fix of anything else rewrites the codes.
                    cos: if only_layout { cos } else { Some(1.0).filter(|_| part.score == 1.0) },
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    // Some scattered elements are no region, and fit many a coding.
                    confident: part.score == 1.0
                        && !part.few
                        && part.rivals.is_empty()
                        && !(fault.there_only && located.is_scattered()),
                    ..Cause::default()
                });
            }
            for fault in &part.rivals {
                if causes.iter().any(|c| c.cause == fault.cause) {
                    continue;
                }
                causes.push(Cause {
                    cause: fault.cause.into(),
                    detail: format!("explains it equally: {kernel} {fault}"),
                    what: says!("{fault}"),
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    ..Cause::default()
                });
            }
        }
        causes
    }

    fn kernel(&self) -> String {
        self.buffer.kernel.map_or("the kernel".to_owned(), |k| format!("`{k}`"))
    }

    /// Something is left.
    fn partly(&self, found: &[Found], map: &Map, located: &Where) -> Vec<Cause> {
        let mut causes: Vec<Cause> = Vec::new();
        let kernel = self.kernel();
        for part in found {
            for fault in &part.causes {
                causes.push(Cause {
                    cause: fault.cause.into(),
                    detail: format!(
                        "explains {:.0} % of what is wrong: {kernel} {fault}",
                        100.0 * part.score
                    ),
                    what: says!("{fault}"),
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    ..Cause::default()
                });
            }
        }
        let written = self.buffer.value();
        let reference = &self.value;
        let content =
            map::content(map, reference, &written).map_or(String::new(), |w| format!(" and {w} there"));
        let unknown = Cause {
            cause: "unknown".into(),
            detail: format!("`{}` is wrong {}{content}", self.buffer.name, located.located()),
            ..Cause::default()
        };
        let at = causes.iter().position(|c| c.score.unwrap_or(0.0) < 0.95).unwrap_or(causes.len());
        causes.insert(at, unknown);
        causes
    }
}

/// Some of a list, spread evenly over it.
fn spread(of: &[usize], most: usize) -> Vec<usize> {
    if of.len() <= most {
        return of.to_vec();
    }
    (0..most).map(|i| of[i * of.len() / most]).collect()
}
