//! The rules by which quantisers compute a scale, the right one and those they have by mistake.

use super::{Producer, Region, scales};
use crate::diagnose::output::factor;
use crate::diagnose::sampled::Variant;
use crate::diagnose::scales::Rounding;
use crate::dtype::{E5M2, E8M0, F32};
use crate::judge::DIVISION;
use crate::power::fp8_twin;
use crate::quant::{Quant, ScaleRounding};
use crate::reference::graph::Op;
use crate::reference::{Expr, Matrix};
use crate::words::Words;
use std::rc::Rc;
use std::sync::Arc;

/// The rule by which a kernel computes a scale.
pub(super) struct Rule {
    pub(super) cause: &'static str,
    pub(super) what: Words,
    pub(super) scale: ScaleOf,
}

/// The smallest and the largest scale that cell `(r, g)` of these values may be given.
pub(super) type ScaleOf = Rc<dyn Fn(&Matrix, usize, usize) -> (f64, f64)>;

/// A magnitude of some rows and columns.
type Magnitude = Box<dyn Fn(&Matrix, Region, Region) -> f64>;

impl Producer<'_, '_> {
    /// The rule on the values as they are, each cell once.
    pub(super) fn tabulated(&self, rule: &Rule) -> Rule {
        let groups = self.grid.1;
        let cells = 0..self.grid.0 * groups;
        let table: Vec<_> = cells.map(|i| (rule.scale)(&self.value, i / groups, i % groups)).collect();
        let scale = Rc::new(move |_: &Matrix, r: usize, g: usize| table[r * groups + g]);
        Rule { cause: rule.cause, what: rule.what.clone(), scale }
    }

    pub(super) fn right_rule(&self) -> Rule {
        Rule { cause: "", what: Words::default(), scale: self.rule(amax, self.scheme) }
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

    /// Rules for scales that quantisers have by mistake.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Rules { by: self, found: Vec::new() };
        rules.maxima();
        rules.fitted();
        rules.roundings();
        rules.functions();
        rules.floors();
        rules.neighbours();
        rules.inner();
        rules.parts();
        rules.beyond();
        rules.lanes();
        rules.found
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

    /// The largest scale that is stored, if several cells have it.
    fn ceiling(&self) -> Option<f64> {
        let at = scales::right(self.buffer, &self.scheme);
        let stored = (0..self.grid.0).flat_map(|r| (0..self.grid.1).map(move |g| (r, g)));
        let stored: Vec<f64> = stored.map(|(r, g)| at(r, g)).collect();
        let most = stored.iter().copied().filter(|s| s.is_finite()).fold(0.0, f64::max);
        (most > 0.0 && stored.iter().filter(|s| **s == most).count() > 2).then_some(most)
    }

    /// The smallest scale that is stored, if several cells of other magnitudes have it.
    fn floor(&self) -> Option<f64> {
        let at = scales::right(self.buffer, &self.scheme);
        let stored = (0..self.grid.0).flat_map(|r| (0..self.grid.1).map(move |g| (r, g)));
        let of_values = |&(r, g): &(usize, usize)| {
            let (rows, cols) = self.rect(r, g);
            amax(&self.value, rows, cols) > 0.0
        };
        let stored: Vec<f64> = stored.filter(of_values).map(|(r, g)| at(r, g)).collect();
        let least = stored.iter().copied().filter(|s| *s > 0.0).fold(f64::INFINITY, f64::min);
        (least.is_finite() && stored.iter().filter(|s| **s == least).count() > 2).then_some(least)
    }

    /// Rows whose scales are all off by a factor of their own, near 1: what the row was divided by lost bits.
    pub(super) fn rows_off(&self) -> Option<(f64, f64)> {
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
}

/// Largest codes that quantisers map a magnitude to.
const MAXIMA: [f64; 11] = [448.0, 240.0, 224.0, 57344.0, 127.0, 128.0, 6.0, 7.0, 8.0, 256.0, 255.0];

/// Rules of a quantiser, those that it may have by mistake.
struct Rules<'p, 'a, 'h> {
    by: &'p Producer<'a, 'h>,
    found: Vec<Rule>,
}

impl Rules<'_, '_, '_> {
    fn add(&mut self, cause: &'static str, what: String, scale: ScaleOf) {
        self.found.push(Rule { cause, what: what.into(), scale });
    }

    /// The scheme's rule on the magnitude of other elements.
    fn of(&mut self, cause: &'static str, what: &str, f: Magnitude) {
        let scale = self.by.rule(move |v, r, c| f(v, r, c), self.by.scheme);
        self.add(cause, format!("takes {what} for the scales of `{}`", self.by.buffer.name), scale);
    }

    /// Other maxima.
    fn maxima(&mut self) {
        let by = self.by;
        let scheme = by.scheme;
        let name = &by.buffer.name;
        for max in MAXIMA {
            if max == scheme.max {
                continue;
            }
            let cause = match fp8_twin(scheme.dtype) {
                Some(twin) if twin.max() == max || max == 224.0 || max == E5M2.max() => "fp8_variant",
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
            self.add(cause, what, by.rule(amax, other));
        }
    }

    /// A constant factor, or a bound that many cells share.
    fn fitted(&mut self) {
        let by = self.by;
        let scheme = by.scheme;
        let name = &by.buffer.name;
        let of_maximum = |ratio: &f64| MAXIMA.iter().any(|max| (ratio * max / scheme.max - 1.0).abs() < 1e-5);
        if let Some(ratio) = by.ratio(0..by.grid.0).filter(|ratio| !of_maximum(ratio)) {
            let f = move |a: f64| ratio * scheme.scale_of(a);
            let what = format!("stores {} times the scales of `{name}`", factor(ratio));
            self.add("gain", what, by.scaled(amax, f));
        }
        // A bound that many cells share.
        if let Some(most) = by.ceiling() {
            let what = format!("stores no scale of `{name}` above {most}, and saturates codes for it");
            self.add("overflow", what, by.scaled(amax, move |a| scheme.scale_of(a).min(most)));
        }
        if let Some(least) = by.floor() {
            let what = format!("stores no scale of `{name}` below {least}: a floor under its magnitudes");
            self.add("overflow", what, by.scaled(amax, move |a| scheme.scale_of(a).max(least)));
        }
    }

    /// Other roundings of the scale.
    fn roundings(&mut self) {
        let by = self.by;
        let scheme = by.scheme;
        let name = &by.buffer.name;
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
                    self.add("rounding", what, by.rule(amax, Quant { scale_rounding: rounding, ..scheme }));
                }
            }
            // Half of what is rounded up is what is rounded down: neither is stated for certain.
            if scheme.scale_rounding == ScaleRounding::Ceil {
                let exact = Quant { scale_rounding: ScaleRounding::Nearest, scale_dtype: F32, ..scheme };
                let what =
                    format!("rounds the e8m0 scales of `{name}` down to powers of two, declared is up");
                let f = move |a: f64| Rounding::Down.of(exact.scale_of(a));
                self.add("rounding", what, by.scaled(amax, f));
            }
            for (times, words) in [(2.0, "one step too large"), (0.5, "one step too small")] {
                let f = move |a: f64| times * scheme.scale_of(a);
                self.add("gain", format!("writes e8m0 scales of `{name}` {words}"), by.scaled(amax, f));
            }
        } else {
            let rounded = |to: Rounding| move |a: f64| to.of(scheme.scale_of(a));
            if scheme.scale_rounding == ScaleRounding::PowerOfTwo {
                let what =
                    format!("stores the scales of `{name}` as they are, not rounded up to powers of two");
                let exact = Quant { scale_rounding: ScaleRounding::Nearest, ..scheme };
                self.add("rounding", what, by.rule(amax, exact));
                for (to, words) in [(Rounding::Down, "down"), (Rounding::Nearest, "to the nearest one")] {
                    let what =
                        format!("rounds the scales of `{name}` {words} to powers of two, declared is up");
                    let f = move |a: f64| to.of(exact.scale_of(a));
                    self.add("rounding", what, by.scaled(amax, f));
                }
            }
            for to in Rounding::ALL {
                let meant = match to {
                    Rounding::Up => " (if that is meant, declare `ScaleRounding::PowerOfTwo`)",
                    _ => "",
                };
                let what = format!("rounds the scales of `{name}` {to}{meant}");
                self.add("rounding", what, by.scaled(amax, rounded(to)));
            }
        }
    }

    /// Other functions of the magnitude.
    fn functions(&mut self) {
        let by = self.by;
        let scheme = by.scheme;
        let name = &by.buffer.name;
        self.add(
            "scale_inverted",
            format!("stores max / amax for `{name}`, the inverse of its scales"),
            by.scaled(amax, move |a| 1.0 / scheme.scale_of(a)),
        );
        self.add("scale_missing", format!("stores 1 for every scale of `{name}`"), by.scaled(amax, |_| 1.0));
        self.add(
            "gain",
            format!("stores the magnitudes of `{name}` for scales, not divided by {}", scheme.max),
            by.scaled(amax, |a| a),
        );
        self.add(
            "scale_inverted",
            format!("stores the squares of the scales of `{name}`"),
            by.scaled(amax, move |a| scheme.scale_of(a).powi(2)),
        );
        for times in [2.0, 0.5] {
            if scheme.scale_dtype != E8M0 {
                let f = move |a: f64| times * scheme.scale_of(a);
                self.add("gain", format!("stores {times} times the scales of `{name}`"), by.scaled(amax, f));
            }
        }
        if by.buffer.factor != 1.0 {
            let factor = by.buffer.factor;
            let f = move |a: f64| scheme.scale_of(a * factor);
            self.add(
                "scale_missing",
                format!("leaves the tensor-wide scale out of the scales of `{name}`"),
                by.scaled(amax, f),
            );
            let f = move |a: f64| scheme.scale_of(a * factor * factor);
            self.add(
                "scale_inverted",
                format!(
                    "multiplies with the tensor-wide scale for the scales of `{name}` instead of dividing"
                ),
                by.scaled(amax, f),
            );
        }
    }

    /// Other floors under the magnitudes, or something that is added to them.
    fn floors(&mut self) {
        let by = self.by;
        let scheme = by.scheme;
        let name = &by.buffer.name;
        for floor in [0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2] {
            if floor != scheme.amax_floor {
                let what = format!(
                    "takes magnitudes of at least {floor:e} for `{name}`, declared is {:e}",
                    scheme.amax_floor
                );
                self.add("overflow", what, by.rule(amax, Quant { amax_floor: floor, ..scheme }));
            }
            if floor > 0.0 {
                let what = format!("adds {floor:e} to the magnitudes of `{name}`");
                self.add("overflow", what, by.scaled(amax, move |a| scheme.scale_of(a + floor)));
            }
        }
    }

    /// Magnitudes of other groups and rows.
    fn neighbours(&mut self) {
        let by = self.by;
        let (groups, rows) = (by.grid.1, by.grid.0);
        let (cell_rows, cell_cols) = by.cell;
        let (m, k) = (by.buffer.rows, by.buffer.cols);
        if groups > 1 {
            let at = move |g: usize| g * cell_cols..((g + 1) * cell_cols).min(k);
            self.of(
                "scale_neighbour",
                "the magnitude of the next group",
                Box::new(move |v, r, c| amax(v, r, at((c.start / cell_cols + 1) % groups))),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the previous group",
                Box::new(move |v, r, c| amax(v, r, at((c.start / cell_cols + groups - 1) % groups))),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the row's first group",
                Box::new(move |v, r, _| amax(v, r, at(0))),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the whole row",
                Box::new(move |v, r, _| amax(v, r, 0..k)),
            );
            self.of(
                "scale_neighbour",
                "the largest magnitude of the row so far",
                Box::new(move |v, r, c| amax(v, r, 0..c.end)),
            );
            for wide in [2, 4] {
                let words = format!("the magnitude of groups of {}", wide * cell_cols);
                self.of(
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
            self.of(
                "scale_neighbour",
                "the magnitude of the next row",
                Box::new(move |v, r, c| amax(v, at((r.start / cell_rows + 1) % rows), c)),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the previous row",
                Box::new(move |v, r, c| amax(v, at((r.start / cell_rows + rows - 1) % rows), c)),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the whole tensor",
                Box::new(move |v, _, _| amax(v, 0..m, 0..k)),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the group over all rows",
                Box::new(move |v, _, c| amax(v, 0..m, c)),
            );
            self.of(
                "scale_neighbour",
                "the largest magnitude of the group in this row and those before",
                Box::new(move |v, r, c| amax(v, 0..r.end, c)),
            );
            self.of(
                "scale_neighbour",
                "the magnitude of the first row",
                Box::new(move |v, _, c| amax(v, at(0), c)),
            );
        }
    }

    /// Magnitudes of what the values are computed from.
    fn inner(&mut self) {
        let by = self.by;
        let (m, k) = (by.buffer.rows, by.buffer.cols);
        let mut inner: Vec<(String, Expr)> = Vec::new();
        by.source.visit(&mut |e| {
            let words = match &e.0.op {
                Op::Unary { function, .. } => format!("the magnitude of {function:?} alone"),
                Op::Columns { range, .. } => format!("the magnitude of columns {range:?} alone"),
                Op::Buffer(id) => format!("the magnitude of `{}`", by.attempt.buffer(*id).name),
                _ => return,
            };
            if e.shape() == (m, k) && !Arc::ptr_eq(&e.0, &by.source.0) {
                inner.push((words, e.clone()));
            }
        });
        let all = by.source.buffers();
        for (words, expr) in inner {
            // A magnitude without one of the operands ignores it.
            let ignores = expr.buffers().len() < all.len();
            let cause = if ignores { "parameter_ignored" } else { "overflow" };
            let value = Variant::new(by.world, expr).whole();
            self.of(cause, &words, Box::new(move |_, r, c| amax(&value, r, c)));
        }
    }

    /// Magnitudes of a part of each cell.
    fn parts(&mut self) {
        let by = self.by;
        let (_, cell_cols) = by.cell;
        let k = by.buffer.cols;
        for parts in [2, 4, 8, 16] {
            if cell_cols >= 2 * parts {
                self.of(
                    "overflow",
                    &format!("the magnitude of the first {} of each cell's columns", cell_cols / parts),
                    Box::new(move |v, r, c| {
                        let len = (c.len() / parts).max(1);
                        amax(v, r, c.start..c.start + len)
                    }),
                );
            }
        }
        self.of(
            "overflow",
            "the magnitude of the second half of each cell's columns",
            Box::new(|v, r, c| amax(v, r, c.start + c.len() / 2..c.end)),
        );
        for left in [1, 2, 4, 8, 16, 32] {
            if left < cell_cols {
                self.of(
                    "overflow",
                    &format!("the magnitude of all but the last {left} of each cell's columns"),
                    Box::new(move |v, r, c| amax(v, r, c.start..c.end.saturating_sub(left).max(c.start + 1))),
                );
            }
        }
        for stride in [2, 4, 8] {
            self.of(
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
            if !k.is_multiple_of(tile) && tile < k {
                let end = k / tile * tile;
                self.of(
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
    }

    /// Magnitudes of what the last cell of a row, or a whole wave, may run into.
    fn beyond(&mut self) {
        let by = self.by;
        let (_, cell_cols) = by.cell;
        let k = by.buffer.cols;
        for width in [64, 128, 256].into_iter().chain([cell_cols]) {
            if k.is_multiple_of(width) {
                continue;
            }
            self.of(
                "overflow",
                &format!("the magnitude of {width} columns in the last cell of each row, beyond its end,"),
                Box::new(move |v, r, c| {
                    let own = amax(v, r.clone(), c.clone());
                    if c.end < k || c.len() >= width {
                        return own;
                    }
                    let beyond = |r: usize| {
                        let from = r * k + k;
                        let to = (r * k + c.start + width).min(v.data.len());
                        v.data[from.min(to)..to].iter().fold(0.0_f64, |most, x| most.max(x.abs()))
                    };
                    r.map(beyond).fold(own, f64::max)
                }),
            );
        }
        for more in [1, 2, 4, 8, 16, 32, 64, 128] {
            self.of(
                "overflow",
                &format!("the magnitude of {more} columns more than a cell has, on into what follows,"),
                Box::new(move |v, r, c| {
                    let beyond = |r: usize| {
                        let from = r * k + c.end;
                        let to = (from + more).min(v.data.len());
                        v.data[from.min(to)..to].iter().fold(0.0_f64, |most, x| most.max(x.abs()))
                    };
                    r.clone().map(beyond).fold(amax(v, r, c.clone()), f64::max)
                }),
            );
        }
    }

    /// Magnitudes of the columns of some threads, which each take every so many, and no magnitudes at all.
    fn lanes(&mut self) {
        let by = self.by;
        let (_, cell_cols) = by.cell;
        let extreme = |sign: f64| {
            move |v: &Matrix, r: Region, c: Region| {
                let most = r
                    .flat_map(|r| v.row(r)[c.clone()].iter().copied())
                    .fold(0.0, |most: f64, x| most.max(sign * x));
                most.max(0.0)
            }
        };
        self.of(
            "overflow",
            "the magnitude of the first column of each cell",
            Box::new(|v, r, c| amax(v, r, c.start..c.start + 1)),
        );
        for (lanes, taking) in [(64, 32), (128, 64), (256, 64), (256, 128), (512, 256), (1024, 512)] {
            if taking < cell_cols {
                self.of(
                    "overflow",
                    &format!("the magnitude of the first {taking} of every {lanes} columns"),
                    Box::new(move |v, r, c| {
                        let taken = c.clone().filter(|i| (i - c.start) % lanes < taking);
                        let taken: Vec<usize> = taken.collect();
                        r.flat_map(|r| taken.iter().map(move |c| (r, *c)))
                            .fold(0.0, |most: f64, (r, c)| most.max(v.row(r)[c].abs()))
                    }),
                );
            }
        }
        self.of("overflow", "the largest value, not the largest magnitude,", Box::new(extreme(1.0)));
        self.of("overflow", "the most negative value, not the largest magnitude,", Box::new(extreme(-1.0)));
        self.of(
            "scale_neighbour",
            "the mean magnitude",
            Box::new(|v, r, c| {
                let count = (r.len() * c.len()) as f64;
                r.flat_map(|r| v.row(r)[c.clone()].iter().copied()).map(f64::abs).sum::<f64>() / count
            }),
        );
        self.of(
            "scale_neighbour",
            "the root mean square",
            Box::new(|v, r, c| {
                let count = (r.len() * c.len()) as f64;
                (r.flat_map(|r| v.row(r)[c.clone()].iter().copied()).map(|x| x * x).sum::<f64>() / count)
                    .sqrt()
            }),
        );
    }
}

/// The largest magnitude of a rectangle, NaN if it holds one.
pub(super) fn amax(value: &Matrix, rows: Region, cols: Region) -> f64 {
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
