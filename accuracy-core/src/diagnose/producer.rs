//! The search for a producer: what a quantiser that wrote these codes and scales did instead of what it should.
//!
//! Codes and scales are explained apart, since faults of either leave the other alone: where the scales were written and
//! by which rule they come from their cells; then where the codes were written, what they were divided by and how they
//! were rounded. What neither explains may be the values themselves: then the hypotheses of [`super::hypothesis`] about
//! the operands and the expression are tried. All on a sample of rows first; what is stated holds for every element.

use super::hypothesis::{Hypothesis, variant};
use super::map::{self, Map};
use super::output::factor;
use super::reading::{CellAt, Reading, scale_in_memory};
use super::sampled::{Variant, World, all};
use super::scales::Rounding;
use super::{Runs, codes, scales, table, unsteady};
use crate::case::{Attempt, Captured, Kind};
use crate::dtype::{BF16, DType, E8M0, F16, F32, Overflow};
use crate::judge::{DIVISION, JudgedHop, uncertainty};
use crate::metrics::compare;
use crate::power::fp8_twin;
use crate::quant::{Quant, ScaleRounding, quantize};
use crate::record::Cause;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// Rows of the scale grid in the sample.
const ROWS: usize = 6;
/// Columns of each sampled row whose codes are looked at.
const COLS: usize = 96;
/// Cells of each sampled row of the grid whose scales are looked at.
const CELLS: usize = 64;
/// Of what explains only what is wrong, not what is right.
const THERE: &str = ", there only";
/// Share of wrong elements from which on something is worth a line.
const PARTLY: f64 = 0.5;

/// The rule by which a kernel computes a scale.
struct Rule {
    cause: &'static str,
    what: String,
    scale: ScaleOf,
}

/// The smallest and the largest scale that cell `(r, g)` of these values may be given.
type ScaleOf = Rc<dyn Fn(&Matrix, usize, usize) -> (f64, f64)>;

type Region = std::ops::Range<usize>;

/// A magnitude of some rows and columns.
type Magnitude = Box<dyn Fn(&Matrix, Region, Region) -> f64>;

/// Which scales are stored where.
struct Place<'a> {
    /// Empty for the declared order.
    what: String,
    at: CellAt<'a>,
    /// Cells that lie in the place of another, by which they may be overwritten, row-major.
    shared: Vec<usize>,
}

/// How a kernel makes a code of a value that was divided by its scale.
struct Coding {
    cause: &'static str,
    what: String,
    /// What the value is rounded to before it is divided.
    first: Option<DType>,
    /// Which scale it divides by.
    by: By,
    /// The value that the code stands for.
    value: Rc<dyn Fn(f64) -> f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The one that is found in memory.
    Written,
    /// The one that should be there.
    Right,
    /// Of the cells that are given: (rows, groups) further.
    Other(isize, isize),
    /// None.
    One,
    /// The inverse of the right one: it multiplies.
    Inverse,
    /// The right one, rounded.
    Rounded(Rounding),
}

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

/// What was found out about the scales or the codes.
#[derive(Clone, Debug, Default)]
struct Found {
    causes: Vec<(&'static str, String)>,
    /// Share of what was wrong that it explains.
    score: f64,
    /// Other causes that explain as much.
    rivals: Vec<(&'static str, String)>,
}

impl<'a> Producer<'a, '_> {
    fn run(&self) -> Vec<Cause> {
        let places = self.places();
        let declared = &places[0];
        let right_rule = self.right_rule();
        // What is asked of each code is looked up: the magnitude of a whole tensor for each of its codes takes forever.
        let right_here = self.tabulated(&right_rule);
        let scale_wrong = self.wrong_cells(declared, &right_here.scale, &self.value, None);
        let default =
            Coding { cause: "", what: String::new(), first: None, by: By::Written, value: self.nearest() };
        let own = Reading::right(self.buffer);
        let map = self.map(&scale_wrong, &default, &own, declared, &right_here);
        let zero_cells = self.zero_cells();
        if map.count == 0 && scale_wrong.iter().all(|w| !w) {
            return zero_cells.into_iter().collect();
        }
        if let Some(cause) = zero_cells {
            return vec![cause];
        }
        let located = self.located(&map);
        if let Some(cause) = self.unchanged(&map, &located).or_else(|| self.zeros(&map)) {
            return vec![cause];
        }
        let (place, scales) = self.explain_scales(&places, &right_rule, &scale_wrong);
        let explained_place = &places[place];
        let codes = self.explain_codes(&map, explained_place, &right_here, &own);
        let complete = scales.score == 1.0 && codes.score == 1.0;
        let faults = scales.causes.len() + codes.causes.len();
        // One fault of the values is likelier than two of what is made of them.
        if !complete || faults > 1 {
            let values = self.explain_values(&map, &scale_wrong, declared, &right_rule, &default, &own);
            let better = |found: &Found| {
                found.score == 1.0 || (!complete && found.score > scales.score.min(codes.score))
            };
            if let Some(found) = values.filter(better) {
                return match found.score {
                    1.0 => self.report(&[found], declared, &located),
                    _ => self.partly(&[found], &map, &located),
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
            causes.extend(self.partly(&[scales, codes], &map, &located));
            return causes;
        }
        self.partly(&[scales, codes], &map, &located)
    }

    /// Where the map is wrong, in words.
    fn located(&self, map: &Map) -> String {
        match map.place() {
            place if place == "everywhere" => "everywhere".into(),
            place => format!("in {place}"),
        }
    }

    /// Codes that are zero everywhere.
    fn zeros(&self, map: &Map) -> Option<Cause> {
        let written = self.buffer.value();
        (map.count >= 8 && written.data.iter().all(|x| *x == 0.0)).then(|| Cause {
            cause: "unwritten".into(),
            detail: format!("`{}` is zero everywhere: nothing was written, or zeros", self.buffer.name),
            cos: Some(1.0),
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
        })
    }

    /// Codes of a buffer that is updated in place, wrong where they are what they were before.
    fn unchanged(&self, map: &Map, located: &str) -> Option<Cause> {
        let before = self.source.buffers().into_iter().map(|id| self.attempt.buffer(id)).find(|b| {
            b.kind == Kind::Before && (b.rows, b.cols, b.dtype) == (map.rows, map.cols, self.buffer.dtype)
        })?;
        let code = |b: &Captured, i: usize| b.dtype.code_at(&b.data, i);
        let mut wrong = (0..map.rows * map.cols).filter(|i| map.is_wrong(i / map.cols, i % map.cols));
        (map.count >= 8 && wrong.all(|i| code(self.buffer, i) == code(before, i))).then(|| Cause {
            cause: "unwritten".into(),
            detail: format!(
                "{} leaves `{}` as it was before {located}: nothing was written there",
                self.kernel(),
                self.buffer.name
            ),
            cos: Some(1.0),
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
        })
    }

    /// The scales under every order of the same bytes, the declared one first.
    fn places(&self) -> Vec<Place<'a>> {
        let (buffer, scheme) = (self.buffer, self.scheme);
        let mut found =
            vec![Place { what: String::new(), at: scales::right(buffer, &scheme), shared: Vec::new() }];
        for (name, place) in scales::orders(&scheme, self.grid) {
            let (rows, groups) = self.grid;
            let mut places: Vec<(usize, usize)> =
                (0..rows * groups).map(|i| (place(i / groups, i % groups), i)).collect();
            places.sort_unstable();
            let together = places.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1);
            let mut shared: Vec<usize> = together.flatten().map(|(_, cell)| *cell).collect();
            // An order in which most would overwrite one another is none.
            if 4 * shared.len() > rows * groups {
                shared.clear();
            }
            shared.sort_unstable();
            let at = Arc::new(move |r, g| scale_in_memory(buffer, &scheme, place(r, g)));
            found.push(Place { what: name, at, shared });
        }
        found
    }

    fn rect(&self, r: usize, g: usize) -> (Region, Region) {
        let ((rows, cols), (m, k)) = (self.cell, (self.buffer.rows, self.buffer.cols));
        (r * rows..((r + 1) * rows).min(m), g * cols..((g + 1) * cols).min(k))
    }

    /// The rule on the values as they are, each cell once.
    fn tabulated(&self, rule: &Rule) -> Rule {
        let groups = self.grid.1;
        let cells = 0..self.grid.0 * groups;
        let table: Vec<_> = cells.map(|i| (rule.scale)(&self.value, i / groups, i % groups)).collect();
        let scale = Rc::new(move |_: &Matrix, r: usize, g: usize| table[r * groups + g]);
        Rule { cause: rule.cause, what: rule.what.clone(), scale }
    }

    fn right_rule(&self) -> Rule {
        Rule { cause: "", what: String::new(), scale: self.rule(amax, self.scheme) }
    }

    /// The scheme's rule, on another magnitude.
    fn rule(&self, magnitude: impl Fn(&Matrix, Region, Region) -> f64 + 'static, scheme: Quant) -> ScaleOf {
        let f = move |amax: f64| scheme.scale_of(amax);
        self.scaled(magnitude, f)
    }

    /// A rule from the magnitude of a cell and a function of it.
    fn scaled(
        &self,
        magnitude: impl Fn(&Matrix, Region, Region) -> f64 + 'static,
        f: impl Fn(f64) -> f64 + 'static,
    ) -> ScaleOf {
        let (cell, shape, factor, off) =
            (self.cell, (self.buffer.rows, self.buffer.cols), self.buffer.factor, self.uncertainty);
        let slack = if self.scheme.scale_dtype == F32 { DIVISION } else { 0.0 };
        Rc::new(move |value, r, g| {
            let rows = r * cell.0..((r + 1) * cell.0).min(shape.0);
            let cols = g * cell.1..((g + 1) * cell.1).min(shape.1);
            let amax = magnitude(value, rows, cols) / factor;
            let (a, b) = (f(amax * (1.0 - off)), f(amax * (1.0 + off)));
            (a.min(b) * (1.0 - slack), a.max(b) * (1.0 + slack))
        })
    }

    /// Whether each cell's scale is none that the rule gives. `only` restricts it to some cells.
    fn wrong_cells(
        &self,
        place: &Place<'a>,
        rule: &ScaleOf,
        value: &Matrix,
        only: Option<&[bool]>,
    ) -> Vec<bool> {
        let (rows, groups) = self.grid;
        (0..rows * groups)
            .map(|i| {
                if only.is_some_and(|only| !only[i]) {
                    return false;
                }
                let (r, g) = (i / groups, i % groups);
                self.cell_wrong(place, rule, value, r, g)
            })
            .collect()
    }

    fn cell_wrong(&self, place: &Place<'a>, rule: &ScaleOf, value: &Matrix, r: usize, g: usize) -> bool {
        let (rows, cols) = self.rect(r, g);
        let own = amax(value, rows, cols);
        // A cell of zeros may have any finite scale.
        if own == 0.0 || own.is_nan() {
            return false;
        }
        let written = (place.at)(r, g);
        if self.unsteady_scale(r, g) || place.shared.binary_search(&(r * self.grid.1 + g)).is_ok() {
            return false;
        }
        let (low, high) = rule(value, r, g);
        !(low <= written && written <= high)
    }

    /// Whether the scale at its declared place differs between two runs.
    fn unsteady_scale(&self, r: usize, g: usize) -> bool {
        self.again.iter().any(|(first, second)| {
            let at = |c: &Captured| scales::right(c, &self.scheme)(r, g).to_bits();
            at(first) != at(second)
        })
    }

    /// The nearest code's value.
    fn nearest(&self) -> Rc<dyn Fn(f64) -> f64> {
        let scheme = self.scheme;
        Rc::new(move |x| scheme.dtype.decode(scheme.code_of(x)))
    }

    /// Whether the code of an element is not what the coding makes of its value.
    fn code_wrong(
        &self,
        (r, c): (usize, usize),
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
        value: &Matrix,
    ) -> bool {
        let (gr, gc) = (r / self.cell.0, c / self.cell.1);
        let (rows, groups) = self.grid;
        let right = |r: usize, g: usize| {
            let (low, high) = (rule.scale)(value, r, g);
            (low + high) / 2.0
        };
        let code = (reading.codes)(r, &[c])[0].map_or(f64::NAN, |code| self.scheme.dtype.decode(code));
        let fits = |scale: f64| {
            if scale == 0.0 || scale.is_nan() {
                return true;
            }
            let coded = |sign: f64| {
                let x = value.row(r)[c] * (1.0 + sign * self.uncertainty);
                let x = coding.first.map_or(x, |to| to.decode(to.encode(x, Overflow::Saturate)));
                (coding.value)(x / (scale * self.buffer.factor) * (1.0 + sign * DIVISION))
            };
            let (a, b) = (coded(-1.0), coded(1.0));
            (a.min(b) <= code && code <= a.max(b)) || (code.is_nan() && (a.is_nan() || b.is_nan()))
        };
        let scale = match coding.by {
            By::Written => (place.at)(gr, gc),
            // A magnitude at the end of a step has either power of two, and none between them.
            By::Right if self.scheme.scale_dtype == E8M0 => {
                let (low, high) = (rule.scale)(value, gr, gc);
                return [low, high].into_iter().all(|scale| !fits(scale));
            }
            By::Right => right(gr, gc),
            By::Other(dr, dg) => {
                let step = |i: usize, by: isize, n: usize| (i as isize + by).rem_euclid(n as isize) as usize;
                right(step(gr, dr, rows), step(gc, dg, groups))
            }
            By::One => 1.0,
            By::Inverse => 1.0 / right(gr, gc),
            By::Rounded(to) => to.of(right(gr, gc)),
        };
        !fits(scale)
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

    /// Which order and which rule explain the scales: the index of the order, and what to say.
    fn explain_scales(&self, places: &[Place<'a>], right: &Rule, wrong: &[bool]) -> (usize, Found) {
        let nothing = Found { score: 1.0, ..Found::default() };
        let groups = self.grid.1;
        if wrong.iter().all(|w| !w) {
            return (0, nothing);
        }
        let wrong_rows: Vec<usize> =
            (0..self.grid.0).filter(|r| wrong[r * groups..][..groups].contains(&true)).collect();
        let rows = self.sample(&wrong_rows, ROWS);
        let columns = spread(&all(groups), CELLS);
        let cells: Vec<(usize, usize)> =
            rows.iter().flat_map(|&r| columns.iter().map(move |&g| (r, g))).collect();
        // The share of the cells that an order and a rule explain, of all and of those that were wrong.
        let share = |place: &Place<'a>, rule: &ScaleOf| {
            let mut counts = [0usize; 4];
            for &(r, g) in &cells {
                let bad = usize::from(self.cell_wrong(place, rule, &self.value, r, g));
                let was = usize::from(wrong[r * groups + g]);
                counts[2 * was] += 1;
                counts[2 * was + 1] += bad;
            }
            let share = |n: usize, bad: usize| if n == 0 { 1.0 } else { 1.0 - bad as f64 / n as f64 };
            (share(counts[0] + counts[2], counts[1] + counts[3]), share(counts[2], counts[3]))
        };
        let rules = self.rules();
        let mut candidates: Vec<(f64, usize, Option<usize>, bool)> = Vec::new();
        let mut consider = |place: usize, rule: Option<usize>| {
            let of = rule.map_or(&right.scale, |i| &rules[i].scale);
            let (everywhere, where_wrong) = share(&places[place], of);
            candidates.push((everywhere, place, rule, false));
            if place == 0 {
                candidates.push((where_wrong - 1e-6, place, rule, true));
            }
        };
        for place in 1..places.len() {
            consider(place, None);
        }
        for rule in 0..rules.len() {
            consider(0, Some(rule));
        }
        // Orders whose scales go with the magnitudes, under every rule.
        let mut by_order: Vec<(f64, usize)> =
            (1..places.len()).map(|p| (self.agreement(&places[p], right, &cells).abs(), p)).collect();
        by_order.sort_by(|a, b| b.0.total_cmp(&a.0));
        for &(_, place) in by_order.iter().take(3) {
            for rule in 0..rules.len() {
                consider(place, Some(rule));
            }
        }
        let of_scales =
            |c: &(f64, usize, Option<usize>, bool)| c.2.is_none_or(|i| rules[i].cause != "rounding");
        candidates.sort_by(|a, b| {
            let parts =
                |c: &(f64, usize, Option<usize>, bool)| usize::from(c.1 > 0) + usize::from(c.2.is_some());
            b.0.total_cmp(&a.0)
                .then(parts(a).cmp(&parts(b)))
                .then(a.3.cmp(&b.3))
                .then(of_scales(a).cmp(&of_scales(b)))
        });
        if candidates.first().is_none_or(|best| best.0 < 1.0)
            && let Some(of) = self.permuted(right)
        {
            let example = (0..of.len()).filter(|&i| wrong[i]).take(3).map(|i| {
                let name = |i: usize| format!("({}, {})", i / groups, i % groups);
                format!("that of cell {} in the place of {}", name(i), name(of[i]))
            });
            let what = format!(
                "writes the scales of `{}` in another order than {}: {}; every one is there",
                self.buffer.name,
                self.scheme.scale_layout,
                example.collect::<Vec<_>>().join(", ")
            );
            let causes = vec![("scale_layout", what)];
            return (0, Found { causes, score: 1.0, rivals: Vec::new() });
        }
        // The best of them on every cell.
        let mut best: Option<(usize, Found)> = None;
        for &(score, place, rule, in_region) in candidates.iter().take(6) {
            if score < PARTLY {
                break;
            }
            let of = rule.map_or(&right.scale, |i| &rules[i].scale);
            let only = in_region.then_some(wrong);
            let left = self.wrong_cells(&places[place], of, &self.value, only).iter().filter(|w| **w).count();
            let before = if in_region { wrong.iter().filter(|w| **w).count() } else { wrong.len() };
            let score = 1.0 - left as f64 / before as f64;
            let mut causes = Vec::new();
            if place > 0 {
                causes.push(("scale_layout", self.order_words(&places[place].what)));
            }
            if let Some(rule) = rule {
                let region = if in_region { THERE } else { "" };
                causes.push((rules[rule].cause, format!("{}{region}", rules[rule].what)));
            }
            match &mut best {
                None => best = Some((place, Found { causes, score, rivals: Vec::new() })),
                Some((_, known)) if score == 1.0 && known.score == 1.0 => {
                    // As good, and no more complicated: another explanation.
                    let simpler = in_region && !known.causes[0].1.ends_with(THERE);
                    if causes.len() == known.causes.len() && causes[0].0 != known.causes[0].0 && !simpler {
                        known.rivals.push(causes[0].clone());
                    }
                }
                Some((_, known)) if score > known.score => {
                    best = Some((place, Found { causes, score, rivals: Vec::new() }))
                }
                Some(_) => {}
            }
        }
        best.unwrap_or((0, Found { score: 0.0, ..Found::default() }))
    }

    /// The cell in whose place the scale of each cell was written, if all of them were, in whatever order.
    fn permuted(&self, right: &Rule) -> Option<Vec<usize>> {
        let groups = self.grid.1;
        let cells = self.grid.0 * groups;
        if cells < 8 || self.buffer.scales.len() * 8 / self.scheme.scale_dtype.bits() as usize != cells {
            return None;
        }
        let at = |i: usize| (i / groups, i % groups);
        let written = scales::right(self.buffer, &self.scheme);
        let mut by_written: Vec<(f64, usize)> = (0..cells).map(|i| (written(at(i).0, at(i).1), i)).collect();
        let mut by_right: Vec<((f64, f64), usize)> =
            (0..cells).map(|i| ((right.scale)(&self.value, at(i).0, at(i).1), i)).collect();
        by_written.sort_by(|a, b| a.0.total_cmp(&b.0));
        by_right.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
        let mut of = vec![0; cells];
        for ((scale, place), ((low, high), cell)) in by_written.into_iter().zip(by_right) {
            if !(low..=high).contains(&scale) {
                return None;
            }
            of[cell] = place;
        }
        Some(of)
    }

    fn order_words(&self, order: &str) -> String {
        let declared = self.scheme.scale_layout;
        format!(
            "writes the scales of `{}` in {order} order, declared is {declared}: reading them as {order} explains every one",
            self.buffer.name
        )
    }

    /// Correlation of the logarithms of scales as written and as they should be.
    fn agreement(&self, place: &Place<'a>, right: &Rule, cells: &[(usize, usize)]) -> f64 {
        let pairs: Vec<(f64, f64)> = cells
            .iter()
            .map(|&(r, g)| ((place.at)(r, g).ln(), (right.scale)(&self.value, r, g).0.ln()))
            .filter(|(a, b)| a.is_finite() && b.is_finite())
            .collect();
        let n = pairs.len() as f64;
        let (sx, sy) = pairs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for (x, y) in pairs {
            let (x, y) = (x - sx / n, y - sy / n);
            (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
        }
        if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 }
    }

    /// Rules for scales that quantisers have by mistake.
    fn rules(&self) -> Vec<Rule> {
        let (scheme, name) = (self.scheme, &self.buffer.name);
        let mut found: Vec<Rule> = Vec::new();
        let mut add =
            |cause: &'static str, what: String, scale: ScaleOf| found.push(Rule { cause, what, scale });
        let own = |v: &Matrix, rows: Region, cols: Region| amax(v, rows, cols);
        // Other maxima.
        const MAXIMA: [f64; 11] = [448.0, 240.0, 224.0, 57344.0, 127.0, 128.0, 6.0, 7.0, 8.0, 256.0, 255.0];
        for max in MAXIMA {
            if max == scheme.max {
                continue;
            }
            let cause = match fp8_twin(scheme.dtype) {
                Some(twin) if twin.max() == max || max == 224.0 => "fp8_variant",
                _ => "gain",
            };
            let what = format!("maps the magnitudes of `{name}` to {max}, declared is {}", scheme.max);
            let other = Quant {
                max,
                // With floor and even the maximum is the format's.
                scale_rounding: if scheme.scale_dtype == E8M0 {
                    ScaleRounding::Ceil
                } else {
                    scheme.scale_rounding
                },
                ..scheme
            };
            add(cause, what, self.rule(own, other));
        }
        // A constant factor, or one for each row.
        let of_maximum = |ratio: &f64| MAXIMA.iter().any(|max| (ratio * max / scheme.max - 1.0).abs() < 1e-5);
        if let Some(ratio) = self.ratio(0..self.grid.0).filter(|ratio| !of_maximum(ratio)) {
            let f = move |a: f64| ratio * scheme.scale_of(a);
            let what = format!("stores {} times the scales of `{name}`", factor(ratio));
            add("gain", what, self.scaled(own, f));
        }
        // Other roundings of the scale.
        if scheme.scale_dtype == E8M0 {
            for (rounding, words) in [
                (ScaleRounding::Floor, "down"),
                (ScaleRounding::Ceil, "up"),
                (ScaleRounding::Even, "after rounding the magnitude (even)"),
                (ScaleRounding::Nearest, "to the nearest"),
            ] {
                if rounding != scheme.scale_rounding {
                    let what = format!(
                        "rounds the e8m0 scales of `{name}` {words}, declared is {:?}",
                        scheme.scale_rounding
                    );
                    add("rounding", what, self.rule(own, Quant { scale_rounding: rounding, ..scheme }));
                }
            }
            for (times, words) in [(2.0, "one step too large"), (0.5, "one step too small")] {
                let f = move |a: f64| times * scheme.scale_of(a);
                add("gain", format!("writes e8m0 scales of `{name}` {words}"), self.scaled(own, f));
            }
        } else {
            let rounded = |to: Rounding| move |a: f64| to.of(scheme.scale_of(a));
            if scheme.scale_rounding == ScaleRounding::PowerOfTwo {
                let what =
                    format!("stores the scales of `{name}` as they are, not rounded up to powers of two");
                let exact = Quant { scale_rounding: ScaleRounding::Nearest, ..scheme };
                add("rounding", what, self.rule(own, exact));
            }
            for to in Rounding::ALL {
                let meant = match to {
                    Rounding::Up => " (if that is meant, declare `ScaleRounding::PowerOfTwo`)",
                    _ => "",
                };
                let what = format!("rounds the scales of `{name}` {to}{meant}");
                add("rounding", what, self.scaled(own, rounded(to)));
            }
        }
        // Other functions of the magnitude.
        add(
            "scale_inverted",
            format!("stores max / amax for `{name}`, the inverse of its scales"),
            self.scaled(own, move |a| 1.0 / scheme.scale_of(a)),
        );
        add("scale_missing", format!("stores 1 for every scale of `{name}`"), self.scaled(own, |_| 1.0));
        add(
            "gain",
            format!("stores the magnitudes of `{name}` for scales, not divided by {}", scheme.max),
            self.scaled(own, |a| a),
        );
        add(
            "scale_inverted",
            format!("stores the squares of the scales of `{name}`"),
            self.scaled(own, move |a| scheme.scale_of(a).powi(2)),
        );
        for times in [2.0, 0.5] {
            if scheme.scale_dtype != E8M0 {
                let f = move |a: f64| times * scheme.scale_of(a);
                add("gain", format!("stores {times} times the scales of `{name}`"), self.scaled(own, f));
            }
        }
        if self.buffer.factor != 1.0 {
            let factor = self.buffer.factor;
            let f = move |a: f64| scheme.scale_of(a * factor);
            add(
                "scale_missing",
                format!("leaves the tensor-wide scale out of the scales of `{name}`"),
                self.scaled(own, f),
            );
            let f = move |a: f64| scheme.scale_of(a * factor * factor);
            add(
                "scale_inverted",
                format!(
                    "multiplies with the tensor-wide scale for the scales of `{name}` instead of dividing"
                ),
                self.scaled(own, f),
            );
        }
        for floor in [0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2] {
            if floor != scheme.amax_floor {
                let what = format!(
                    "takes magnitudes of at least {floor:e} for `{name}`, declared is {:e}",
                    scheme.amax_floor
                );
                add("overflow", what, self.rule(own, Quant { amax_floor: floor, ..scheme }));
            }
            if floor > 0.0 {
                let what = format!("adds {floor:e} to the magnitudes of `{name}`");
                add("overflow", what, self.scaled(own, move |a| scheme.scale_of(a + floor)));
            }
        }
        // Other elements.
        let (groups, rows) = (self.grid.1, self.grid.0);
        let (cell_rows, cell_cols) = self.cell;
        let (m, k) = (self.buffer.rows, self.buffer.cols);
        let mut of = |cause: &'static str, what: &str, f: Magnitude| {
            add(
                cause,
                format!("takes {what} for the scales of `{name}`"),
                self.rule(move |v, r, c| f(v, r, c), scheme),
            );
        };
        if groups > 1 {
            let at = move |g: usize| g * cell_cols..((g + 1) * cell_cols).min(k);
            of(
                "scale_neighbour",
                "the magnitude of the next group",
                Box::new(move |v, r, c| amax(v, r, at((c.start / cell_cols + 1) % groups))),
            );
            of(
                "scale_neighbour",
                "the magnitude of the previous group",
                Box::new(move |v, r, c| amax(v, r, at((c.start / cell_cols + groups - 1) % groups))),
            );
            of(
                "scale_neighbour",
                "the magnitude of the row's first group",
                Box::new(move |v, r, _| amax(v, r, at(0))),
            );
            of(
                "scale_neighbour",
                "the magnitude of the whole row",
                Box::new(move |v, r, _| amax(v, r, 0..k)),
            );
            of(
                "scale_neighbour",
                "the largest magnitude of the row so far",
                Box::new(move |v, r, c| amax(v, r, 0..c.end)),
            );
            for wide in [2, 4] {
                let words = format!("the magnitude of groups of {}", wide * cell_cols);
                of(
                    "scale_neighbour",
                    &words,
                    Box::new(move |v, r, c| {
                        let from = c.start / (wide * cell_cols) * wide * cell_cols;
                        amax(v, r, from..(from + wide * cell_cols).min(k))
                    }),
                );
            }
        }
        if rows > 1 {
            let at = move |r: usize| r * cell_rows..((r + 1) * cell_rows).min(m);
            of(
                "scale_neighbour",
                "the magnitude of the next row",
                Box::new(move |v, r, c| amax(v, at((r.start / cell_rows + 1) % rows), c)),
            );
            of(
                "scale_neighbour",
                "the magnitude of the previous row",
                Box::new(move |v, r, c| amax(v, at((r.start / cell_rows + rows - 1) % rows), c)),
            );
            of(
                "scale_neighbour",
                "the magnitude of the whole tensor",
                Box::new(move |v, _, _| amax(v, 0..m, 0..k)),
            );
            of(
                "scale_neighbour",
                "the magnitude of the group over all rows",
                Box::new(move |v, _, c| amax(v, 0..m, c)),
            );
            of(
                "scale_neighbour",
                "the largest magnitude of the group in this row and those before",
                Box::new(move |v, r, c| amax(v, 0..r.end, c)),
            );
            of(
                "scale_neighbour",
                "the magnitude of the first row",
                Box::new(move |v, _, c| amax(v, at(0), c)),
            );
        }
        // Of what the values are computed from.
        let mut inner: Vec<(String, Expr)> = Vec::new();
        self.source.visit(&mut |e| {
            let words = match &e.0.op {
                Op::Unary { function, .. } => format!("the magnitude of {function:?} alone"),
                Op::Columns { range, .. } => format!("the magnitude of columns {range:?} alone"),
                Op::Buffer(id) => format!("the magnitude of `{}`", self.attempt.buffer(*id).name),
                _ => return,
            };
            if e.shape() == (m, k) && !Arc::ptr_eq(&e.0, &self.source.0) {
                inner.push((words, e.clone()));
            }
        });
        for (words, expr) in inner {
            let value = Variant::new(self.world, expr).whole();
            of("overflow", &words, Box::new(move |_, r, c| amax(&value, r, c)));
        }
        for parts in [2, 4, 8, 16] {
            if cell_cols >= 2 * parts {
                of(
                    "overflow",
                    &format!("the magnitude of the first {} of each cell's columns", cell_cols / parts),
                    Box::new(move |v, r, c| {
                        let len = (c.len() / parts).max(1);
                        amax(v, r, c.start..c.start + len)
                    }),
                );
            }
        }
        of(
            "overflow",
            "the magnitude of the second half of each cell's columns",
            Box::new(|v, r, c| amax(v, r, c.start + c.len() / 2..c.end)),
        );
        for left in [1, 2, 4, 8, 16, 32] {
            if left < cell_cols {
                of(
                    "overflow",
                    &format!("the magnitude of all but the last {left} of each cell's columns"),
                    Box::new(move |v, r, c| amax(v, r, c.start..c.end.saturating_sub(left).max(c.start + 1))),
                );
            }
        }
        for stride in [2, 4, 8] {
            of(
                "overflow",
                &format!("the magnitude of every {stride}th column"),
                Box::new(move |v, r, c| {
                    r.flat_map(|r| c.clone().step_by(stride).map(move |c| (r, c)))
                        .fold(0.0, |most: f64, (r, c)| most.max(v.row(r)[c].abs()))
                }),
            );
        }
        for tile in [16, 32, 64, 128, 256, 512] {
            // The end of K beyond whole tiles.
            if k % tile != 0 && tile < k {
                let end = k / tile * tile;
                of(
                    "overflow",
                    &format!("the magnitude of the columns before {end}"),
                    Box::new(
                        move |v, r, c| {
                            if c.start >= end { 0.0 } else { amax(v, r, c.start..c.end.min(end)) }
                        },
                    ),
                );
            }
        }
        let extreme = |sign: f64| {
            move |v: &Matrix, r: Region, c: Region| {
                let most = r
                    .flat_map(|r| v.row(r)[c.clone()].iter().copied())
                    .fold(0.0, |most: f64, x| most.max(sign * x));
                most.max(0.0)
            }
        };
        of("overflow", "the largest value, not the largest magnitude,", Box::new(extreme(1.0)));
        of("overflow", "the most negative value, not the largest magnitude,", Box::new(extreme(-1.0)));
        of(
            "scale_neighbour",
            "the mean magnitude",
            Box::new(|v, r, c| {
                let count = (r.len() * c.len()) as f64;
                r.flat_map(|r| v.row(r)[c.clone()].iter().copied()).map(f64::abs).sum::<f64>() / count
            }),
        );
        of(
            "scale_neighbour",
            "the root mean square",
            Box::new(|v, r, c| {
                let count = (r.len() * c.len()) as f64;
                (r.flat_map(|r| v.row(r)[c.clone()].iter().copied()).map(|x| x * x).sum::<f64>() / count)
                    .sqrt()
            }),
        );
        found
    }

    /// The factor by which the scales of some rows of the grid are off, if it is one.
    fn ratio(&self, rows: Region) -> Option<f64> {
        let right = self.right_rule();
        let at = scales::right(self.buffer, &self.scheme);
        let mut ratios: Vec<f64> = rows
            .flat_map(|r| (0..self.grid.1).map(move |g| (r, g)))
            .filter(|&(r, g)| {
                let (rows, cols) = self.rect(r, g);
                amax(&self.value, rows, cols) > 0.0
            })
            .map(|(r, g)| {
                let (low, high) = (right.scale)(&self.value, r, g);
                at(r, g) / ((low + high) / 2.0)
            })
            .filter(|x| x.is_finite() && *x > 0.0)
            .collect();
        ratios.sort_by(f64::total_cmp);
        let median = *ratios.get(ratios.len() / 2)?;
        ((median - 1.0).abs() > 1e-5).then_some(median)
    }

    /// Rows whose scales are all off by a factor of their own, near 1: what the row was divided by lost bits.
    fn rows_off(&self) -> Option<(f64, f64)> {
        if self.scheme.scale_dtype == E8M0 || self.grid.1 < 2 {
            return None;
        }
        let (right, at) = (self.right_rule(), scales::right(self.buffer, &self.scheme));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for r in 0..self.grid.0 {
            let Some(ratio) = self.ratio(r..r + 1) else { continue };
            let alike = (0..self.grid.1).all(|g| {
                let (rows, cols) = self.rect(r, g);
                let (least, most) = (right.scale)(&self.value, r, g);
                amax(&self.value, rows, cols) == 0.0
                    || (least * ratio * (1.0 - 1e-4)..=most * ratio * (1.0 + 1e-4)).contains(&at(r, g))
            });
            if !alike {
                return None;
            }
            (low, high) = (low.min(ratio), high.max(ratio));
        }
        (low.is_finite() && high - low > 1e-6).then_some((low, high))
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
            cos: None,
            score: Some(1.0),
            operand: Some(self.buffer.name.clone()),
            confident: true,
        })
    }

    /// Ways of coding that quantisers have by mistake.
    fn codings(&self) -> Vec<Coding> {
        let (scheme, name) = (self.scheme, &self.buffer.name);
        let dtype = scheme.dtype;
        let nearest = self.nearest();
        let mut found = Vec::new();
        let mut add = |cause: &'static str, what: String, by: By, value: Rc<dyn Fn(f64) -> f64>| {
            found.push(Coding { cause, what, first: None, by, value });
        };
        for (cause, words, by) in [
            ("scale_missing", "without dividing by the scales", By::One),
            ("scale_inverted", "by multiplying with the scales", By::Inverse),
            ("scale_neighbour", "with the scale of the next group", By::Other(0, 1)),
            ("scale_neighbour", "with the scale of the previous group", By::Other(0, -1)),
            ("scale_neighbour", "with the scale of the next row", By::Other(1, 0)),
            ("scale_neighbour", "with the scale of the previous row", By::Other(-1, 0)),
        ] {
            add(cause, format!("quantises `{name}` {words}"), by, nearest.clone());
        }
        let mut values: Vec<f64> = (0..1u32 << dtype.bits().min(8)).map(|code| dtype.decode(code)).collect();
        values.retain(|x| x.is_finite());
        values.sort_by(f64::total_cmp);
        let values = Rc::new(values);
        let nearest_of = nearest.clone();
        let step = move |x: f64, toward: fn(f64, f64) -> bool| {
            let near = nearest_of(x);
            if !toward(near, x) {
                return near;
            }
            // The neighbour on the other side of x.
            let below = values.partition_point(|v| *v <= x);
            let at = if near > x { below.checked_sub(1) } else { Some(below) };
            at.and_then(|at| values.get(at)).copied().unwrap_or(near)
        };
        for (words, toward) in [
            ("truncates", (|near: f64, x: f64| near.abs() > x.abs()) as fn(f64, f64) -> bool),
            ("rounds down", |near, x| near > x),
            ("rounds up", |near, x| near < x),
            ("rounds away from zero", |near, x| near.abs() < x.abs()),
        ] {
            for by in [By::Written, By::Right] {
                let step = step.clone();
                let what = format!("{words} the codes of `{name}` instead of rounding to nearest");
                add("rounding", what, by, Rc::new(move |x| step(x, toward)));
            }
        }
        for most in [448.0, 240.0, 224.0, 127.0, 120.0, 64.0, 63.0, 7.0, 6.0, 4.0] {
            if most < scheme.max {
                for by in [By::Written, By::Right] {
                    let nearest = nearest.clone();
                    add(
                        "overflow",
                        format!("cuts the codes of `{name}` at {most}, the largest is {}", scheme.max),
                        by,
                        Rc::new(move |x: f64| nearest(x.clamp(-most, most))),
                    );
                }
            }
        }
        let wrap = move |x: f64| match dtype.is_integer() {
            true => dtype.decode((x.round_ties_even() as i64 & ((1 << dtype.bits()) - 1)) as u32),
            false => dtype.decode(dtype.encode(x, Overflow::Special)),
        };
        add("overflow", format!("does not saturate the codes of `{name}`"), By::Written, Rc::new(wrap));
        let others: &[DType] = match dtype.bits() {
            8 => &[DType::E4M3Fn, DType::E4M3Fnuz, DType::E5M2, DType::E5M2Fnuz, DType::I8],
            4 => &[DType::E2M1, DType::I4, DType::U4],
            _ => &[],
        };
        for &other in others.iter().filter(|&&o| o != dtype) {
            for by in [By::Written, By::Right] {
                add(
                    "fp8_variant",
                    format!("writes the codes of `{name}` as {other}, declared is {dtype}"),
                    by,
                    Rc::new(move |x| dtype.decode(other.encode(x, Overflow::Saturate))),
                );
            }
        }
        for (times, words) in [(2.0, "twice"), (0.5, "half"), (4.0, "four times"), (0.25, "a quarter of")] {
            for by in [By::Written, By::Right] {
                let nearest = nearest.clone();
                let what = format!("writes codes of `{name}` that stand for {words} the values");
                add("gain", what, by, Rc::new(move |x| nearest(times * x)));
            }
        }
        for most in [127.0, 120.0, 64.0, 63.0, 240.0, 224.0, 7.0, 6.0, 4.0, 3.0] {
            if most < scheme.max {
                let (up, down) = (nearest.clone(), nearest.clone());
                let what =
                    format!("cuts positive codes of `{name}` at {most}, the largest is {}", scheme.max);
                add("overflow", what, By::Written, Rc::new(move |x| up(x.min(most))));
                let what =
                    format!("cuts negative codes of `{name}` at -{most}, the largest is {}", scheme.max);
                add("overflow", what, By::Written, Rc::new(move |x| down(x.max(-most))));
            }
        }
        if dtype.is_fp8() {
            let (near, exact) = (nearest.clone(), nearest.clone());
            let what = format!("writes NaN or Inf for the largest magnitudes of `{name}`");
            let nan = move |x: f64| if near(x).abs() >= scheme.max { f64::NAN } else { near(x) };
            add("overflow", what, By::Written, Rc::new(nan));
            let what = format!("writes NaN for magnitudes of `{name}` from {} on", scheme.max);
            let nan = move |x: f64| if x.abs() >= scheme.max { f64::NAN } else { exact(x) };
            add("overflow", what, By::Written, Rc::new(nan));
        }
        // Codes of another format, under the scale that suits it.
        for &other in others.iter().filter(|&&o| o != dtype && dtype.is_fp8() && o.is_fp8()) {
            let ratio = other.max() / scheme.max;
            for by in [By::Written, By::Right] {
                let what = format!(
                    "scales `{name}` to {} and writes codes of {other}, declared is {dtype} with {}",
                    other.max(),
                    scheme.max
                );
                let value = move |x: f64| dtype.decode(other.encode(x * ratio, Overflow::Saturate));
                add("fp8_variant", what, by, Rc::new(value));
            }
        }
        // The one scale of another tensor.
        let one_scale = |b: &Captured| {
            let scheme = b.scheme.filter(|s| s.granularity.grid(b.rows, b.cols) == (1, 1))?;
            Some(scales::right(b, &scheme)(0, 0) * b.factor).filter(|s| s.is_finite() && *s > 0.0)
        };
        if let Some(own) = one_scale(self.buffer) {
            for other in self.attempt.buffers.iter().filter(|b| b.name != *name) {
                let Some(ratio) = one_scale(other).map(|s| own / s).filter(|r| *r != 1.0) else { continue };
                let nearest = nearest.clone();
                let what = format!("divides `{name}` by the scale of `{}`", other.name);
                add("scale_neighbour", what, By::Written, Rc::new(move |x| nearest(ratio * x)));
            }
        }
        for &other in others.iter().filter(|&&o| o != dtype && dtype.is_fp8()) {
            let what = format!(
                "writes the codes of `{name}` as {other} that does not saturate, declared is {dtype}"
            );
            add(
                "fp8_variant",
                what,
                By::Written,
                Rc::new(move |x| dtype.decode(other.encode(x, Overflow::Special))),
            );
        }
        for to in [BF16, F16] {
            let nearest = nearest.clone();
            add(
                "rounding",
                format!("rounds the values of `{name}` to {to} between scaling and coding"),
                By::Written,
                Rc::new(move |x| nearest(to.decode(to.encode(x, Overflow::Special)))),
            );
        }
        let least = if dtype == DType::E2M1 {
            1.0
        } else {
            2f64.powi(match dtype {
                DType::E4M3Fn => -6,
                DType::E4M3Fnuz => -7,
                DType::E5M2 => -14,
                DType::E5M2Fnuz => -15,
                _ => -1000,
            })
        };
        let of = nearest.clone();
        add(
            "rounding",
            format!("writes 0 for the subnormals of `{name}`"),
            By::Written,
            Rc::new(move |x| match of(x) {
                code if code.abs() < least => 0.0,
                code => code,
            }),
        );
        let of = nearest.clone();
        add("rounding", format!("loses the signs of `{name}`"), By::Written, Rc::new(move |x| of(x.abs())));
        let of = nearest.clone();
        add("gain", format!("writes `{name}` with the wrong sign"), By::Written, Rc::new(move |x| of(-x)));
        add("unwritten", format!("leaves the codes of `{name}` zero"), By::Written, Rc::new(|_| 0.0));
        if scheme.scale_dtype != E8M0 {
            for to in Rounding::ALL {
                let what =
                    format!("divides `{name}` by its scales rounded {to}, and stores them as they are");
                add("rounding", what, By::Rounded(to), nearest.clone());
            }
        }
        for first in [dtype, BF16, F16].into_iter().chain(others.iter().copied()) {
            if first.is_integer() || first.bits() < dtype.bits() {
                continue;
            }
            for by in [By::Written, By::Right] {
                let what = format!("rounds the values of `{name}` to {first} before it scales them");
                found.push(Coding {
                    cause: "rounding",
                    what,
                    first: Some(first),
                    by,
                    value: nearest.clone(),
                });
            }
        }
        found
    }

    /// What explains the codes, given where the scales are.
    fn explain_codes(&self, map: &Map, place: &Place<'a>, right: &Rule, own: &Reading<'a>) -> Found {
        let nothing = Found { score: 1.0, ..Found::default() };
        let default =
            Coding { cause: "", what: String::new(), first: None, by: By::Written, value: self.nearest() };
        let given =
            Coding { cause: "", what: String::new(), first: None, by: By::Right, value: self.nearest() };
        let wrong_rows = map.wrong_rows();
        let rows = spread(&wrong_rows, 2 * ROWS);
        let mut elements: Vec<(usize, usize)> = Vec::new();
        for &r in &rows {
            let wrong: Vec<usize> = (0..map.cols).filter(|&c| map.is_wrong(r, c)).collect();
            elements.extend(spread(&wrong, COLS).into_iter().map(|c| (r, c)));
        }
        let others: Vec<(usize, usize)> = spread(&all(map.rows), 2 * ROWS)
            .into_iter()
            .flat_map(|r| spread(&all(map.cols), COLS / 2).into_iter().map(move |c| (r, c)))
            .filter(|&(r, c)| !map.is_wrong(r, c) && !self.unsteady[r * map.cols + c])
            .collect();
        let bad = |elements: &[(usize, usize)], coding: &Coding, reading: &Reading<'a>| {
            let wrong =
                |at: &&(usize, usize)| self.code_wrong(**at, coding, reading, place, right, &self.value);
            elements.iter().filter(wrong).count()
        };
        // Right as they are, under the scales as they were found, or under the right ones.
        if bad(&elements, &default, own) == 0 || bad(&elements, &given, own) == 0 {
            let all_right = |coding: &Coding| self.left(map, coding, own, place, right) == 0;
            if all_right(&default) || all_right(&given) {
                return nothing;
            }
        }
        let mut candidates: Vec<(f64, Coding, Reading<'a>, bool)> = Vec::new();
        let mut consider = |coding: Coding, reading: &Reading<'a>| {
            let (wrong, other) = (bad(&elements, &coding, reading), bad(&others, &coding, reading));
            let score = 1.0 - wrong as f64 / elements.len().max(1) as f64;
            candidates.push((score, coding, reading.clone(), other > 0));
        };
        for coding in self.codings() {
            consider(coding, own);
        }
        for hypothesis in codes::places(self.id, self.buffer, self.attempt.setup.poison) {
            let super::hypothesis::Change::Codes(codes) = &hypothesis.change else { continue };
            let mut reading = own.clone();
            reading.codes = codes.clone();
            for by in [By::Written, By::Right] {
                let what = hypothesis.what.replacen("reads", "writes", 1).replacen("takes", "writes", 1);
                consider(
                    Coding { cause: hypothesis.cause, what, first: None, by, value: self.nearest() },
                    &reading,
                );
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.3.cmp(&b.3)));
        let total = map.count as f64;
        let mut best = Found::default();
        for (score, coding, reading, in_region) in candidates.iter().take(4) {
            if *score < PARTLY {
                break;
            }
            let left = self.left(map, coding, reading, place, right) as f64;
            let outside =
                if *in_region { 0.0 } else { self.left_outside(map, coding, reading, place, right) as f64 };
            let score =
                if outside > 0.0 { 1.0 - (left + outside) / (total + outside) } else { 1.0 - left / total };
            let region = if *in_region { THERE } else { "" };
            let cause = (coding.cause, format!("{}{region}", coding.what));
            if score > best.score {
                best = Found { causes: vec![cause], score, rivals: Vec::new() };
            } else if score == best.score
                && best
                    .causes
                    .first()
                    .is_some_and(|(c, what)| *c != cause.0 && (what.ends_with(THERE) || !in_region))
            {
                best.rivals.push(cause);
            }
        }
        best
    }

    /// Wrong elements whose codes a coding does not explain.
    fn left(
        &self,
        map: &Map,
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
    ) -> usize {
        self.count(map, true, coding, reading, place, rule)
    }

    fn left_outside(
        &self,
        map: &Map,
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
    ) -> usize {
        self.count(map, false, coding, reading, place, rule)
    }

    fn count(
        &self,
        map: &Map,
        wrong: bool,
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
    ) -> usize {
        let mut count = 0;
        for r in 0..map.rows {
            for c in 0..map.cols {
                let look = map.is_wrong(r, c) == wrong && !self.unsteady[r * map.cols + c];
                count +=
                    usize::from(look && self.code_wrong((r, c), coding, reading, place, rule, &self.value));
            }
        }
        count
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
            let region = if in_region { THERE } else { "" };
            let cause = (hypotheses[i].cause, format!("{}{region}", hypotheses[i].what));
            match &mut best {
                Some(known) if score == known.score && known.causes[0].0 != cause.0 => {
                    known.rivals.push(cause)
                }
                Some(known) if score <= known.score => {}
                _ => best = Some(Found { causes: vec![cause], score, rivals: Vec::new() }),
            }
        }
        best
    }

    /// Everything is explained.
    fn report(&self, found: &[Found], place: &Place<'a>, located: &str) -> Vec<Cause> {
        let expected = quantize(&self.value, &self.scheme, self.buffer.factor);
        let read: Vec<f64> =
            (0..self.grid.0 * self.grid.1).map(|i| (place.at)(i / self.grid.1, i % self.grid.1)).collect();
        let cos = self.buffer.quantized().and_then(|written| {
            let read = crate::quant::Quantized { scales: read, ..written };
            compare(&expected.decode(), &read.decode()).cos
        });
        let mut causes = Vec::new();
        let only_layout = found.iter().flat_map(|f| &f.causes).all(|(cause, _)| *cause == "scale_layout");
        for part in found {
            let kernel = self.kernel();
            for (cause, what) in &part.causes {
                let place = if located == "everywhere" { String::new() } else { format!(" ({located})") };
                causes.push(Cause {
                    cause: (*cause).into(),
                    detail: format!("{kernel} {what}{place}"),
                    // The fix of anything else rewrites the codes.
                    cos: if only_layout { cos } else { Some(1.0).filter(|_| part.score == 1.0) },
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    // Some scattered elements are no region, and fit many a coding.
                    confident: part.score == 1.0
                        && part.rivals.is_empty()
                        && !(what.ends_with(THERE) && located.contains("scattered")),
                });
            }
            for (cause, what) in &part.rivals {
                if causes.iter().any(|c| c.cause == *cause) {
                    continue;
                }
                causes.push(Cause {
                    cause: (*cause).into(),
                    detail: format!("explains it equally: {kernel} {what}"),
                    cos: None,
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    confident: false,
                });
            }
        }
        causes
    }

    fn kernel(&self) -> String {
        self.buffer.kernel.map_or("the kernel".to_owned(), |k| format!("`{k}`"))
    }

    /// Something is left.
    fn partly(&self, found: &[Found], map: &Map, located: &str) -> Vec<Cause> {
        let mut causes: Vec<Cause> = Vec::new();
        let kernel = self.kernel();
        for part in found {
            for (cause, what) in &part.causes {
                causes.push(Cause {
                    cause: (*cause).into(),
                    detail: format!("explains {:.0} % of what is wrong: {kernel} {what}", 100.0 * part.score),
                    cos: None,
                    score: Some(part.score),
                    operand: Some(self.buffer.name.clone()),
                    confident: false,
                });
            }
        }
        let written = self.buffer.value();
        let reference = &self.value;
        let content =
            map::content(map, reference, &written).map_or(String::new(), |w| format!(" and {w} there"));
        let unknown = Cause {
            cause: "unknown".into(),
            detail: format!("`{}` is wrong {located}{content}", self.buffer.name),
            ..Cause::default()
        };
        let at = causes.iter().position(|c| c.score.unwrap_or(0.0) < 0.95).unwrap_or(causes.len());
        causes.insert(at, unknown);
        causes
    }
}

/// The largest magnitude of a rectangle, NaN if it holds one.
fn amax(value: &Matrix, rows: Region, cols: Region) -> f64 {
    let mut most = 0.0;
    for r in rows {
        for x in &value.row(r)[cols.clone()] {
            if x.abs() > most || x.is_nan() {
                most = x.abs();
            }
        }
    }
    most
}

/// Some of a list, spread evenly over it.
fn spread(of: &[usize], most: usize) -> Vec<usize> {
    if of.len() <= most {
        return of.to_vec();
    }
    (0..most).map(|i| of[i * of.len() / most]).collect()
}
