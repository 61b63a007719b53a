//! Scales that a kernel took from other places, in whatever order: what it must have scaled an operand with is fitted to
//! the output, and looked for among the operand's own scales.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::reading::{Cells, Reading};
use super::sampled::{Variant, World, all};
use super::tiles;
use crate::dtype::E8M0;
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use rayon::prelude::*;
use std::sync::Arc;

/// Elements that there must be for each scale that is fitted, and that are taken at most.
const FOR_EACH: usize = 2;
const ON: usize = 256;
/// Products that all of it may take.
const PRODUCTS: usize = 1 << 25;
/// A scale that a kernel took is one of the operand's if it is so near to it, in standard deviations, or in parts of itself.
const NEAR: f64 = 8.0;
const NEAREST: f64 = 2e-4;
/// Logarithm of the odds against all of them being so by accident.
const ODDS: f64 = 30.0;
/// Tiles of rows within which an order may repeat itself, how near a scale must be to the one that all tiles agree on, and
/// how many scales must agree.
const TILES: [usize; 6] = [4, 8, 16, 32, 64, 128];
const WITHIN: f64 = 0.02;
const AGREE: usize = 4;

/// From a row and a group to those whose scale is taken.
type Cell = (usize, usize);

/// The hypotheses that an operand is scaled with the scales of other cells, where the output says so.
pub fn hypotheses<'a>(source: &Expr, world: &World<'a>, out: &Matrix) -> Vec<Hypothesis<'a>> {
    let Some((product, factor)) = tiles::product(source) else { return Vec::new() };
    let Op::MatMul { a, b, .. } = &product.0.op else { return Vec::new() };
    let mut found = Vec::new();
    for (side, other, turned) in [(a, b, false), (b, a, true)] {
        let Op::Buffer(id) = side.0.op else { continue };
        let element = |line: usize, on: usize| if turned { out.row(on)[line] } else { out.row(line)[on] };
        let Some(fit) = Fit::new(id, other, world, factor, &element) else { continue };
        let operand = world.attempt.buffer(id);
        let distinct = operand.scheme.is_some_and(|scheme| scheme.scale_dtype != E8M0);
        let known = fit.in_tiles().or_else(|| fit.anywhere().filter(|_| distinct));
        let Some((words, from)) = known else { continue };
        let (groups, cells) = (fit.used.cols, fit.cells);
        let at = move |r: usize, g: usize| {
            let (row, group) = from.get(r * groups + g).copied().unwrap_or((r, g));
            (cells.at)(row / cells.rows, group)
        };
        found.push(Hypothesis {
            cause: "scale_layout",
            slot: Slot::Scales(id),
            operand: Some(id),
            what: format!("scales `{}` with its scales in another order, {words}", operand.name).into(),
            change: Change::Scales(Cells { rows: 1, cols: cells.cols, at: Arc::new(at) }),
            sense: Sense::Other,
            also: None,
        });
    }
    found
}

/// What an operand must have been scaled with.
struct Fit<'a> {
    /// A row of the operand each, a group of its columns each: as fitted, and as they should be.
    used: Matrix,
    own: Matrix,
    /// Relative standard deviations of what is fitted.
    deviations: Matrix,
    cells: Cells<'a>,
}

impl<'a> Fit<'a> {
    /// Of operand `id`, whose rows' products with those of `other` are `out(row, row of other)`, but for `factor`.
    fn new(
        id: BufferId,
        other: &Expr,
        world: &World<'a>,
        factor: f64,
        out: &dyn Fn(usize, usize) -> f64,
    ) -> Option<Fit<'a>> {
        let operand = world.attempt.buffer(id);
        let right = Reading::right(operand);
        let cells = right.scales.clone()?;
        let (rows, groups) = (operand.rows, operand.cols.div_ceil(cells.cols));
        let on: Vec<usize> = (0..other.shape().0).step_by(other.shape().0.div_ceil(ON)).collect();
        let products = rows * on.len() * operand.cols;
        if rows * groups < AGREE || on.len() < FOR_EACH * groups + 2 || products > PRODUCTS {
            return None;
        }
        let mut unscaled = right;
        unscaled.scales = Some(Cells { at: Arc::new(|_, _| 1.0), ..cells.clone() });
        let codes = unscaled.block(id.0, &all(rows), &all(operand.cols), &world.decoded);
        let others = Variant::new(world, other.clone()).at(&on, &all(operand.cols));
        let out: Vec<Vec<f64>> = (0..rows).map(|r| on.iter().map(|&on| out(r, on)).collect()).collect();
        // What each row was scaled with, and how sure that is.
        let fitted: Vec<[Vec<f64>; 2]> = out
            .par_iter()
            .enumerate()
            .map(|(r, out)| {
                let sums = |o: usize| -> Vec<f64> {
                    let terms = codes.row(r).chunks(cells.cols).zip(others.row(o).chunks(cells.cols));
                    terms.map(|(x, y)| factor * x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>()).collect()
                };
                // Each in units of its own rounding.
                let least = 0.01 * (out.iter().map(|y| y * y).sum::<f64>() / out.len() as f64).sqrt();
                let equation = |o: usize| -> (Vec<f64>, f64) {
                    let unit = out[o].abs() + least;
                    (sums(o).into_iter().map(|x| x / unit).collect(), out[o] / unit)
                };
                let equations: Vec<(Vec<f64>, f64)> = (0..out.len()).map(equation).collect();
                // A group of zeros may have any scale: nothing is known of the row.
                let unknown = || vec![f64::NAN; groups];
                let Some(used) = tiles::least_squares(equations.iter().cloned(), groups) else {
                    return [unknown(), unknown()];
                };
                let left = |(terms, sum): &(Vec<f64>, f64)| {
                    (sum - terms.iter().zip(&used).map(|(x, y)| x * y).sum::<f64>()).powi(2)
                };
                let left = equations.iter().map(left).sum::<f64>() / (equations.len() - groups) as f64;
                let deviation = |g: usize| {
                    let square: f64 = equations.iter().map(|(terms, _)| terms[g] * terms[g]).sum();
                    (left / square).sqrt() / used[g].abs()
                };
                let deviations = (0..groups).map(deviation).collect();
                [used, deviations]
            })
            .collect();
        let (used, deviations): (Vec<_>, Vec<_>) = fitted.into_iter().map(|[used, off]| (used, off)).unzip();
        let used = Matrix::new(rows, groups, used.concat());
        let deviations = Matrix::new(rows, groups, deviations.concat());
        let own = (0..rows).flat_map(|r| (0..groups).map(move |g| (r, g)));
        let own = Matrix::new(rows, groups, own.map(|(r, g)| (cells.at)(r / cells.rows, g)).collect());
        let of_rows = used.data.iter().filter(|x| **x > 0.0).count();
        let unknown = used.data.iter().filter(|x| x.is_nan()).count();
        let usable = 8 * unknown <= used.data.len() && of_rows + unknown == used.data.len();
        let own_usable = own.data.iter().all(|x| x.is_finite() && *x > 0.0);
        (usable && own_usable).then_some(Fit { used, own, deviations, cells })
    }

    /// How far what a cell was scaled with is from a scale; 0 where that is not known.
    fn off(&self, (r, g): Cell, scale: f64) -> f64 {
        let off = (self.used.row(r)[g] / scale - 1.0).abs();
        if off.is_nan() { 0.0 } else { off }
    }

    fn is_wrong(&self, (r, g): Cell) -> bool {
        self.off((r, g), self.own.row(r)[g]) > WITHIN
    }

    /// An order of the rows of each tile, the same in all.
    fn in_tiles(&self) -> Option<(String, Vec<Cell>)> {
        let (rows, groups) = (self.used.rows, self.used.cols);
        TILES.into_iter().find_map(|tile| {
            let whole = rows / tile;
            if whole * groups < AGREE {
                return None;
            }
            let agrees = |to: usize, from: usize| {
                (0..whole).all(|t| {
                    let scales = self.own.row(t * tile + from).iter().enumerate();
                    scales.into_iter().all(|(g, scale)| self.off((t * tile + to, g), *scale) <= WITHIN)
                })
            };
            // Its own place, if that will do.
            let of = |to: usize| (0..tile).map(|by| to ^ by).find(|&from| from < tile && agrees(to, from));
            let order: Option<Vec<usize>> = (0..tile).map(of).collect();
            let order = order.filter(|order| order.iter().enumerate().any(|(to, from)| to != *from))?;
            let moved = order.iter().enumerate().filter(|(to, from)| to != *from).take(3);
            let words: Vec<String> =
                moved.map(|(to, from)| format!("row {to} with that of row {from}")).collect();
            let from = |r: usize| if r / tile < whole { r / tile * tile + order[r % tile] } else { r };
            let cells = (0..rows).flat_map(|r| (0..groups).map(move |g| (r, g)));
            Some((
                format!("in each {tile} rows {}", words.join(", ")),
                cells.map(|(r, g)| (from(r), g)).collect(),
            ))
        })
    }

    /// The scale that is nearest, wherever it is, if that cannot be an accident.
    fn anywhere(&self) -> Option<(String, Vec<Cell>)> {
        let groups = self.used.cols;
        let cell = |i: usize| (i / groups, i % groups);
        let mut sorted: Vec<(f64, usize)> = self.own.data.iter().copied().zip(0..).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (least, most) = (sorted.first()?.0, sorted.last()?.0);
        let wrong: Vec<usize> = (0..self.own.data.len()).filter(|&i| self.is_wrong(cell(i))).collect();
        let near = |i: usize| (NEAR * self.deviations.data[i]).max(NEAREST);
        let accident = |i: &usize| {
            let window = 2.0 * near(*i) * sorted.len() as f64;
            (window / (most / least).ln()).clamp(1e-6, 1.0)
        };
        if -wrong.iter().map(|i| accident(i).ln()).sum::<f64>() < ODDS {
            return None;
        }
        let mut from: Vec<Cell> = (0..self.own.data.len()).map(cell).collect();
        for &i in &wrong {
            let at = sorted.partition_point(|(scale, _)| *scale < self.used.data[i]);
            let nearest = sorted[at.saturating_sub(1)..(at + 1).min(sorted.len())]
                .iter()
                .min_by(|a, b| self.off(cell(i), a.0).total_cmp(&self.off(cell(i), b.0)))?;
            if self.off(cell(i), nearest.0) > near(i) {
                return None;
            }
            from[i] = cell(nearest.1);
        }
        let name =
            |(r, g): Cell| if groups == 1 { format!("row {r}") } else { format!("row {r}, group {g}") };
        let words: Vec<String> = wrong
            .iter()
            .take(3)
            .map(|&i| format!("{} with that of {}", name(cell(i)), name(from[i])))
            .collect();
        Some((words.join("; "), from))
    }
}
