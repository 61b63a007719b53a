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
        let (scheme, name) = (self.scheme, &self.buffer.name);
        let mut found: Vec<Rule> = Vec::new();
        let mut add = |cause: &'static str, what: String, scale: ScaleOf| {
            found.push(Rule { cause, what: what.into(), scale })
        };
        let own = |v: &Matrix, rows: Region, cols: Region| amax(v, rows, cols);
        // Other maxima.
        const MAXIMA: [f64; 11] = [448.0, 240.0, 224.0, 57344.0, 127.0, 128.0, 6.0, 7.0, 8.0, 256.0, 255.0];
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
            add(cause, what, self.rule(own, other));
        }
        // A constant factor, or one for each row.
        let of_maximum = |ratio: &f64| MAXIMA.iter().any(|max| (ratio * max / scheme.max - 1.0).abs() < 1e-5);
        if let Some(ratio) = self.ratio(0..self.grid.0).filter(|ratio| !of_maximum(ratio)) {
            let f = move |a: f64| ratio * scheme.scale_of(a);
            let what = format!("stores {} times the scales of `{name}`", factor(ratio));
            add("gain", what, self.scaled(own, f));
        }
        // A bound that many cells share.
        if let Some(most) = self.ceiling() {
            let what = format!("stores no scale of `{name}` above {most}, and saturates codes for it");
            add("overflow", what, self.scaled(own, move |a| scheme.scale_of(a).min(most)));
        }
        if let Some(least) = self.floor() {
            let what = format!("stores no scale of `{name}` below {least}: a floor under its magnitudes");
            add("overflow", what, self.scaled(own, move |a| scheme.scale_of(a).max(least)));
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
                for (to, words) in [(Rounding::Down, "down"), (Rounding::Nearest, "to the nearest one")] {
                    let what =
                        format!("rounds the scales of `{name}` {words} to powers of two, declared is up");
                    let f = move |a: f64| to.of(exact.scale_of(a));
                    add("rounding", what, self.scaled(own, f));
                }
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
        // What the last cell of a row, or a whole wave, may run into or leave out.
        for width in [64, 128, 256].into_iter().chain([cell_cols]) {
            if k % width == 0 {
                continue;
            }
            of(
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
            of(
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
        of(
            "overflow",
            "the magnitude of the first column of each cell",
            Box::new(|v, r, c| amax(v, r, c.start..c.start + 1)),
        );
        // Threads that each take every so many columns, some of which do not take part.
        for (lanes, taking) in [(64, 32), (128, 64), (256, 64), (256, 128), (512, 256), (1024, 512)] {
            if taking < cell_cols {
                of(
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
