//! Where a quantiser wrote its scales: the orders of the same bytes, and which of them with which rule explains them.

use super::rules::{Rule, ScaleOf, amax};
use super::{CELLS, Fault, Found, PARTLY, Producer, ROWS, scales, spread};
use crate::case::Captured;
use crate::diagnose::reading::{CellAt, scale_in_memory};
use crate::diagnose::sampled::all;
use crate::reference::Matrix;
use crate::words::says;
use std::sync::Arc;

/// Which scales are stored where.
pub(super) struct Place<'a> {
    /// Empty for the declared order.
    pub(super) what: String,
    pub(super) at: CellAt<'a>,
    /// Cells that lie in the place of another, by which they may be overwritten, row-major.
    shared: Vec<usize>,
}

impl<'a> Producer<'a, '_> {
    /// The scales under every order of the same bytes, the declared one first.
    pub(super) fn places(&self) -> Vec<Place<'a>> {
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

    fn in_order(&self, order: &str) -> Fault {
        let declared = self.scheme.scale_layout;
        let what = says!(
            "writes the scales of `{}` in {order} order, declared is {declared}: reading them as {order} explains every one",
            self.buffer.name
        );
        Fault { cause: "scale_layout", what, there_only: false }
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

    /// Which order and which rule explain the scales: the index of the order, and what to say.
    pub(super) fn explain_scales(
        &self,
        places: &[Place<'a>],
        right: &Rule,
        wrong: &[bool],
    ) -> (usize, Found) {
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
            // What changes nothing explains nothing: what is left is measured against what was wrong.
            let share = |bad: usize| 1.0 - bad as f64 / counts[2].max(1) as f64;
            (share(counts[1] + counts[3]), share(counts[3]))
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
            return (0, self.elsewhere(&of, wrong));
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
            let before = wrong.iter().filter(|w| **w).count();
            let score = 1.0 - left as f64 / before as f64;
            if score <= 0.0 {
                continue;
            }
            let mut causes = Vec::new();
            if place > 0 {
                causes.push(self.in_order(&places[place].what));
            }
            if let Some(rule) = rule {
                let Rule { cause, what, .. } = &rules[rule];
                causes.push(Fault { cause, what: what.clone(), there_only: in_region });
            }
            match &mut best {
                None => best = Some((place, Found { causes, score, ..Found::default() })),
                Some((_, known)) if score == 1.0 && known.score == 1.0 => {
                    // As good, and no more complicated: another explanation.
                    let simpler = in_region && !known.causes[0].there_only;
                    let other = causes[0].cause != known.causes[0].cause;
                    if causes.len() == known.causes.len() && other && !simpler {
                        known.rivals.push(causes[0].clone());
                    }
                }
                Some((_, known)) if score > known.score => {
                    best = Some((place, Found { causes, score, ..Found::default() }))
                }
                Some(_) => {}
            }
        }
        best.unwrap_or((0, Found { score: 0.0, ..Found::default() }))
    }

    /// Scales that are all there, that of cell `of[i]` in the place of cell `i`.
    fn elsewhere(&self, of: &[usize], wrong: &[bool]) -> Found {
        let groups = self.grid.1;
        let example = (0..of.len()).filter(|&i| wrong[i]).take(3).map(|i| {
            let name = |i: usize| format!("({}, {})", i / groups, i % groups);
            format!("that of cell {} in the place of {}", name(i), name(of[i]))
        });
        let what = says!(
            "writes the scales of `{}` in another order than {}: {}; every one is there",
            self.buffer.name,
            self.scheme.scale_layout,
            example.collect::<Vec<_>>().join(", ")
        );
        let causes = vec![Fault { cause: "scale_layout", what, there_only: false }];
        Found { causes, score: 1.0, ..Found::default() }
    }

    /// Whether each cell's scale is none that the rule gives. `only` restricts it to some cells.
    pub(super) fn wrong_cells(
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

    pub(super) fn cell_wrong(
        &self,
        place: &Place<'a>,
        rule: &ScaleOf,
        value: &Matrix,
        r: usize,
        g: usize,
    ) -> bool {
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
    pub(super) fn unsteady_scale(&self, r: usize, g: usize) -> bool {
        self.again.iter().any(|(first, second)| {
            let at = |c: &Captured| scales::right(c, &self.scheme)(r, g).to_bits();
            at(first) != at(second)
        })
    }
}
