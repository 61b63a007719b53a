//! What the output of a wrong product tells about its mistake: factors and places that are fitted to it, not tried.
//!
//! A fit has far fewer unknowns than the output has values. It explains the output only if what remains is within what
//! rounding allows, so that garbage is never explained.

use super::judge::relative_error;
use accuracy_core::model::ops::{Precision, Weights};
use accuracy_core::quant::{Granularity, Quant};
use accuracy_core::reference::Matrix;
use accuracy_core::weights::WeightsError;
use std::ops::Range;

/// With fewer rows, a factor for each column explains too much by chance.
const ROWS: usize = 4;
/// Columns for which the one that they are a copy of is looked for.
const LOOKED: usize = 512;
/// Rows of weights that are decoded at a time.
const PANEL: usize = 512;
/// A factor that is further from 1 than this is off.
const OFF: f64 = 0.01;
/// Factors agree with a reading of them if this share of them does.
const MOST: f64 = 0.9;

/// A mistake that was fitted, and the relative error that is left.
pub type Fit = (String, f64);

/// A product that is wrong.
pub struct Product<'a> {
    pub weights: Weights<'a>,
    /// The weight's name in the checkpoint.
    pub weight: &'a str,
    /// The input as the product takes it, and how it was quantised.
    pub x: &'a Matrix,
    pub inputs: Option<&'a Quant>,
    /// What it should give, and what it gave.
    pub exact: &'a Matrix,
    pub out: &'a Matrix,
    /// What other products of the same input should give.
    pub others: &'a [(String, Matrix)],
    /// Columns of one head, where the output is heads.
    pub head: Option<usize>,
    /// The error that rounding allows.
    pub bound: f64,
}

impl Product<'_> {
    /// All fits that leave nothing but rounding.
    pub fn fits(&self) -> Vec<Fit> {
        if self.exact.rows != self.out.rows || self.exact.cols != self.out.cols || self.exact.rows < ROWS {
            return Vec::new();
        }
        let blocks = self.blocks().ok().flatten();
        let found =
            [self.moved(), self.channels(), self.constant(), blocks, self.input_scales().ok().flatten()];
        found.into_iter().flatten().filter(|fit| fit.1 <= 1.5 * self.bound).collect()
    }

    /// Columns that are copies of other columns, of this product or of another one of the same input.
    fn moved(&self) -> Option<Fit> {
        let (own, out) = (columns(self.exact), columns(self.out));
        let wrong: Vec<usize> =
            (0..out.len()).filter(|&c| apart(&own[c], &out[c]) > 2.0 * self.bound + 1e-12).collect();
        let step = wrong.len().div_ceil(LOOKED).max(1);
        let mut pool: Vec<(Option<usize>, usize, Vec<f64>)> =
            own.iter().enumerate().map(|(c, v)| (None, c, v.clone())).collect();
        for (which, other) in self.others.iter().enumerate().filter(|o| o.1.1.rows == self.exact.rows) {
            pool.extend(columns(&other.1).into_iter().enumerate().map(|(c, v)| (Some(which), c, v)));
        }
        let mut sources: Vec<(usize, Option<usize>, usize)> = Vec::new();
        for &c in wrong.iter().step_by(step) {
            let best =
                pool.iter().map(|p| apart(&p.2, &out[c])).enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
            if best.1 > 8.0 * self.bound {
                return None;
            }
            sources.push((c, pool[best.0].0, pool[best.0].1));
        }
        let &(_, which, _) = sources.first()?;
        if sources.iter().any(|s| s.1 != which) {
            return None;
        }
        let source = |c: usize| sources.iter().find(|s| s.0 == c).map(|s| s.2);
        let shift = sources.iter().map(|s| s.2 as i64 - s.0 as i64).collect::<Vec<_>>();
        let same = shift.iter().all(|s| *s == shift[0]);
        let from = match which {
            Some(which) => columns(&self.others[which].1),
            None => own.clone(),
        };
        // What was seen in some of the columns has to hold in all of them.
        let order = self.head.filter(|_| which.is_none()).and_then(|d| head_order(&sources, d));
        let read = |c: usize| -> Option<usize> {
            if let Some((_, place)) = &order {
                return Some(place(c));
            }
            if same {
                return usize::try_from(c as i64 + shift[0]).ok();
            }
            source(c)
        };
        let mut made = self.exact.clone();
        for &c in &wrong {
            let values = from.get(read(c)?)?;
            (0..made.rows).for_each(|r| made.row_mut(r)[c] = values[r]);
        }
        let shown = |c: usize, last: usize| {
            if c == last { format!("column {c}") } else { format!("columns {c} to {last}") }
        };
        let (first, last) = (wrong[0], *wrong.last()?);
        let detail = match (which, &order) {
            (Some(which), _) if same => {
                let (a, b) = (read(first)?, read(last)?);
                format!("{} are {}'s {}", shown(first, last), self.others[which].0, shown(a, b))
            }
            (Some(which), _) => format!("{} columns are {}'s", wrong.len(), self.others[which].0),
            (None, Some((told, _))) => (*told).to_owned(),
            (None, None) if same => format!("{} are those {} further on", shown(first, last), shift[0]),
            (None, None) => {
                let (c, _, at) = sources[0];
                format!("{} columns are in another order: {c} is {at}", wrong.len())
            }
        };
        Some((detail, relative_error(&made, self.out)))
    }

    /// A factor for each column.
    fn channels(&self) -> Option<Fit> {
        let (own, out) = (columns(self.exact), columns(self.out));
        let factor = |c: usize| {
            let size = dot(&own[c], &own[c]);
            if size > 0.0 { dot(&own[c], &out[c]) / size } else { 1.0 }
        };
        let factors: Vec<f64> = (0..own.len()).map(factor).collect();
        let off: Vec<usize> =
            (0..own.len()).filter(|&c| (factors[c] - 1.0).abs() > OFF.max(self.bound)).collect();
        let (&first, &last) = (off.first()?, off.last()?);
        if off.len() < 2 && own.len() > 1 && self.exact.rows < 2 * ROWS {
            return None;
        }
        let mut made = self.exact.clone();
        made.data
            .chunks_exact_mut(made.cols)
            .for_each(|row| row.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f));
        // One unknown for each column takes a part of the noise with it.
        let rows = self.exact.rows as f64;
        let error = relative_error(&made, self.out) * (rows / (rows - 1.0)).sqrt();
        if error > 1.5 * self.bound {
            return None;
        }
        let even = off.iter().all(|&c| (factors[c] / factors[first] - 1.0).abs() < OFF.max(2.0 * self.bound));
        let whole = off.len() == last - first + 1;
        let detail = if even && off.len() == own.len() {
            // The whole is scaled, which the comparison itself says.
            return None;
        } else if even && whole {
            format!("columns {first} to {last} are scaled by {:.4}", factors[first])
        } else if let Some(told) = self.neighbours(&factors) {
            told
        } else {
            let (low, high) = bounds(off.iter().map(|&c| factors[c]));
            format!("{} columns are scaled, each by a factor of its own ({low:.3} to {high:.3})", off.len())
        };
        Some((detail, error))
    }

    /// What is added to each row: another bias than the checkpoint's.
    fn constant(&self) -> Option<Fit> {
        let rows = self.exact.rows as f64;
        if self.exact.rows < 2 * ROWS {
            return None;
        }
        let mut added = vec![0.0; self.exact.cols];
        for r in 0..self.exact.rows {
            let both = self.exact.row(r).iter().zip(self.out.row(r));
            added.iter_mut().zip(both).for_each(|(to, (a, b))| *to += (b - a) / rows);
        }
        let mut made = self.exact.clone();
        made.data
            .chunks_exact_mut(made.cols.max(1))
            .for_each(|row| row.iter_mut().zip(&added).for_each(|(v, a)| *v += a));
        let error = relative_error(&made, self.out) * (rows / (rows - 1.0)).sqrt();
        let base = self.weight.split('#').next().unwrap_or(self.weight);
        let detail = match self.weights.has(&format!("{base}.bias")) {
            true => "the bias is another one: a constant is added to each column",
            false => "a constant is added to each column, as a bias that the checkpoint does not have",
        };
        (error <= 1.5 * self.bound).then(|| (detail.to_owned(), error))
    }

    /// Whether the factors of columns are the ratio of a neighbour's scale to their own.
    fn neighbours(&self, factors: &[f64]) -> Option<String> {
        let scales = self.row_sizes().ok()?;
        let n = scales.len();
        if n != factors.len() {
            return None;
        }
        let readings = [("before", n - 1), ("behind", 1)];
        readings.into_iter().find_map(|(what, by)| {
            let fits = |c: &usize| (scales[(c + by) % n] / scales[*c] / factors[*c] - 1.0).abs() < 0.02;
            let all = (0..n).filter(fits).count();
            (all as f64 >= MOST * n as f64)
                .then(|| format!("each channel has the scale of the one {what} it"))
        })
    }

    /// The largest weight of each row.
    fn row_sizes(&self) -> Result<Vec<f64>, WeightsError> {
        let mut all = Vec::new();
        self.panels(PANEL, |w, _| {
            all.extend((0..w.rows).map(|r| w.row(r).iter().fold(0.0f64, |a, v| a.max(v.abs()))));
        })?;
        Ok(all)
    }

    /// Calls `each` with some rows of the weight at a time.
    fn panels(&self, step: usize, mut each: impl FnMut(&Matrix, Range<usize>)) -> Result<(), WeightsError> {
        let info = self.weights.0.describe(self.weight)?;
        let (base, start) = match self.weight.split_once('#') {
            Some((base, rows)) => (base, rows.split("..").next().and_then(|s| s.parse().ok()).unwrap_or(0)),
            None => (self.weight, 0),
        };
        let rows = self.exact.cols;
        if rows <= step && start == 0 && rows == info.rows {
            let w = self.weights.0.linear(self.weight)?;
            each(&Matrix::new(rows, info.cols, w.values()), 0..rows);
            return Ok(());
        }
        for from in (0..rows).step_by(step) {
            let to = (from + step).min(rows);
            let w = self.weights.0.linear(&format!("{base}#{}..{}", start + from, start + to))?;
            each(&Matrix::new(to - from, info.cols, w.values()), from..to);
        }
        Ok(())
    }

    /// A factor for each block of quantised weights.
    fn blocks(&self) -> Result<Option<Fit>, WeightsError> {
        let info = self.weights.0.describe(self.weight)?;
        let (rows, cols) = match info.granularity {
            Granularity::Block(rows, cols) => (rows, cols),
            Granularity::Group(cols) => (1, cols),
            Granularity::Tensor | Granularity::Row => return Ok(None),
        };
        let (k, parts) = (self.x.cols, self.x.cols.div_ceil(cols.max(1)));
        if rows * self.exact.rows < 2 * parts || self.weight.contains('#') {
            return Ok(None);
        }
        let biased = self.weights.has(&format!("{}.bias", self.weight));
        let mut made = self.out.clone();
        let mut factors: Vec<Vec<f64>> = Vec::new();
        let step = PANEL.div_ceil(rows) * rows;
        self.panels(step, |w, at| {
            for first in (0..w.rows).step_by(rows) {
                let own = first..(first + rows).min(w.rows);
                let block =
                    Matrix::new(own.len(), w.cols, w.data[own.start * w.cols..own.end * w.cols].to_vec());
                let products: Vec<Matrix> = (0..parts)
                    .map(|j| {
                        let part = j * cols..((j + 1) * cols).min(k);
                        self.x.columns(part.clone()).matmul_t(&block.columns(part))
                    })
                    .collect();
                let place = at.start + own.start..at.start + own.end;
                // A bias is no part of any block.
                let rest = |m: &Matrix| -> Vec<f64> {
                    let mut values = m.columns(place.clone()).data;
                    if biased {
                        let exact = self.exact.columns(place.clone());
                        for (i, v) in values.iter_mut().enumerate() {
                            *v -= exact.data[i] - products.iter().map(|p| p.data[i]).sum::<f64>();
                        }
                    }
                    values
                };
                let wanted = rest(self.out);
                let found = least_squares(&products, &wanted).unwrap_or(vec![1.0; parts]);
                for (i, r) in (0..made.rows).flat_map(|r| (0..place.len()).map(move |_| r)).enumerate() {
                    let column = place.start + i % place.len();
                    let change: f64 = products.iter().zip(&found).map(|(p, f)| (f - 1.0) * p.data[i]).sum();
                    made.row_mut(r)[column] = self.exact.row(r)[column] + change;
                }
                factors.push(found);
            }
        })?;
        let freedom = (rows * self.exact.rows) as f64;
        let error = relative_error(&made, self.out) * (freedom / (freedom - parts as f64)).sqrt();
        let all = || factors.iter().flatten().copied();
        // A factor is known as well as its block shows in the output.
        let tolerance = (4.0 * self.bound * (parts as f64).sqrt() / (freedom / parts as f64).sqrt()).max(OFF);
        let off = all().filter(|f| (f - 1.0).abs() > tolerance).count();
        if off == 0 || error > 1.5 * self.bound {
            return Ok(None);
        }
        let scales = self.weights.0.linear(self.weight)?.scales;
        let grid = (factors.len(), parts);
        let told = other_cells(&factors, &scales, grid, tolerance);
        let detail = told.unwrap_or_else(|| {
            let wrong =
                (0..grid.0 * grid.1).find(|i| (factors[i / parts][i % parts] - 1.0).abs() > tolerance);
            let at = wrong.unwrap_or(0);
            let factor = factors[at / parts][at % parts];
            let many = if off == 1 {
                "the scale of 1 block".to_owned()
            } else {
                format!("the scales of {off} blocks")
            };
            format!(
                "{many} of the weight of {} is wrong: block row {}, column {} is scaled by {factor:.3}",
                grid.0 * grid.1,
                at / parts,
                at % parts
            )
        });
        Ok(Some((detail, error)))
    }

    /// A factor for each scale of the input.
    fn input_scales(&self) -> Result<Option<Fit>, WeightsError> {
        let Some(scheme) = self.inputs else { return Ok(None) };
        let size = match scheme.granularity {
            Granularity::Row => self.x.cols,
            Granularity::Group(n) => n,
            Granularity::Block(..) | Granularity::Tensor => return Ok(None),
        };
        let parts = self.x.cols.div_ceil(size.max(1));
        if self.exact.cols < 2 * parts || self.x.rows != self.exact.rows {
            return Ok(None);
        }
        let mut products: Vec<Matrix> = vec![Matrix::zeros(self.x.rows, self.exact.cols); parts];
        self.panels(PANEL, |w, at| {
            for (j, product) in products.iter_mut().enumerate() {
                let part = j * size..((j + 1) * size).min(self.x.cols);
                let y = self.x.columns(part.clone()).matmul_t(&w.columns(part));
                (0..y.rows).for_each(|r| product.row_mut(r)[at.clone()].copy_from_slice(y.row(r)));
            }
        })?;
        let mut made = self.exact.clone();
        let mut factors: Vec<Vec<f64>> = Vec::new();
        for t in 0..made.rows {
            let rows: Vec<Matrix> =
                products.iter().map(|p| Matrix::new(1, p.cols, p.row(t).to_vec())).collect();
            let whole = |c: usize| rows.iter().map(|r| r.data[c]).sum::<f64>();
            let wanted: Vec<f64> =
                (0..made.cols).map(|c| self.out.row(t)[c] - (self.exact.row(t)[c] - whole(c))).collect();
            let found = least_squares(&rows, &wanted).unwrap_or(vec![1.0; parts]);
            for c in 0..made.cols {
                made.row_mut(t)[c] +=
                    rows.iter().zip(&found).map(|(r, f)| (f - 1.0) * r.data[c]).sum::<f64>();
            }
            factors.push(found);
        }
        let freedom = self.exact.cols as f64;
        let error = relative_error(&made, self.out) * (freedom / (freedom - parts as f64)).sqrt();
        let tolerance = (4.0 * self.bound * parts as f64 / freedom.sqrt()).max(2.0 * OFF);
        let off = factors.iter().flatten().filter(|f| (*f - 1.0).abs() > tolerance).count();
        if off == 0 || error > 1.5 * self.bound {
            return Ok(None);
        }
        let scales: Vec<f64> = (0..self.x.rows)
            .flat_map(|t| (0..parts).map(move |j| (t, j)))
            .map(|(t, j)| {
                let group = &self.x.row(t)[j * size..((j + 1) * size).min(self.x.cols)];
                group.iter().fold(0.0f64, |a, v| a.max(v.abs()))
            })
            .collect();
        let detail = other_inputs(&factors, &scales, parts, tolerance)
            .unwrap_or_else(|| format!("{off} of {} scales of the input are wrong", factors.len() * parts));
        Ok(Some((detail, error)))
    }
}

type Grid = (usize, usize);
type Reading = (&'static str, fn(usize, usize, Grid) -> (usize, usize));

/// Which other block's scale each block has, if its factor says so.
fn other_cells(factors: &[Vec<f64>], scales: &[f64], grid: Grid, tolerance: f64) -> Option<String> {
    if scales.len() != grid.0 * grid.1 {
        return None;
    }
    let readings: [Reading; 7] = [
        ("each block has the scale of the block row before it", |i, j, g| ((i + g.0 - 1) % g.0, j)),
        ("each block has the scale of the block row behind it", |i, j, g| ((i + 1) % g.0, j)),
        ("each block has the scale of the block before it", |i, j, g| (i, (j + g.1 - 1) % g.1)),
        ("each block has the scale of the block behind it", |i, j, g| (i, (j + 1) % g.1)),
        ("the scales are those of block rows of half the size: row i has that of row i / 2", |i, j, _| {
            (i / 2, j)
        }),
        ("the scales are read transposed", |i, j, g| {
            let at = j * g.0 + i;
            (at / g.1, at % g.1)
        }),
        (
            "the scales are those of block columns of half the size: column j has that of column j / 2",
            |i, j, _| (i, j / 2),
        ),
    ];
    let all = grid.0 * grid.1;
    readings.into_iter().find_map(|(told, place)| {
        let fits = |at: &usize| {
            let (i, j) = (at / grid.1, at % grid.1);
            let (r, c) = place(i, j, grid);
            let ratio = scales[r * grid.1 + c] / scales[*at];
            (ratio / factors[i][j] - 1.0).abs() < 2.0 * tolerance
        };
        ((0..all).filter(fits).count() as f64 >= MOST * all as f64).then(|| told.to_owned())
    })
}

/// Which other group's scale each group of the input has.
fn other_inputs(factors: &[Vec<f64>], scales: &[f64], parts: usize, tolerance: f64) -> Option<String> {
    let tokens = factors.len();
    let readings: [Reading; 5] = [
        ("the input has the scales of its groups in the opposite order", |t, j, g| (t, g.1 - 1 - j)),
        ("each group of the input has the scale of the group before it", |t, j, g| (t, (j + g.1 - 1) % g.1)),
        ("each group of the input has the scale of the group behind it", |t, j, g| (t, (j + 1) % g.1)),
        ("each token's input has the scale of the token before it", |t, j, g| ((t + g.0 - 1) % g.0, j)),
        ("each token's input has the scale of the token behind it", |t, j, g| ((t + 1) % g.0, j)),
    ];
    let grid = (tokens, parts);
    readings.into_iter().find_map(|(told, place)| {
        let fits = |at: &usize| {
            let (t, j) = (at / parts, at % parts);
            let (r, c) = place(t, j, grid);
            let ratio = scales[r * parts + c] / scales[*at];
            (ratio / factors[t][j] - 1.0).abs() < 2.0 * tolerance
        };
        let all = tokens * parts;
        ((0..all).filter(fits).count() as f64 >= MOST * all as f64).then(|| told.to_owned())
    })
}

type Place = Box<dyn Fn(usize) -> usize>;

/// Whether the columns of each head are in the order of the other rotary layout.
fn head_order(sources: &[(usize, Option<usize>, usize)], d: usize) -> Option<(&'static str, Place)> {
    let half = d / 2;
    let readings: [(&str, Place); 2] = [
        (
            "the columns of each head are in the order of pairs (2i, 2i+1), which rotation by halves does not expect",
            Box::new(move |c| c / d * d + c % d % 2 * half + c % d / 2),
        ),
        (
            "the columns of each head are in the order of halves (i, i+d/2), which rotation by pairs does not expect",
            Box::new(move |c| c / d * d + c % d % half.max(1) * 2 + c % d / half.max(1)),
        ),
    ];
    readings.into_iter().find(|(_, place)| sources.iter().all(|&(c, _, at)| place(c) == at))
}

fn columns(x: &Matrix) -> Vec<Vec<f64>> {
    (0..x.cols).map(|c| (0..x.rows).map(|r| x.row(r)[c]).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Relative difference of the second from the first.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let size = dot(a, a).sqrt();
    let off = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    if off == 0.0 { 0.0 } else { off / size.max(f64::MIN_POSITIVE) }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// The factors of some products whose sum comes nearest to `wanted`; `None` if they are not determined.
pub fn least_squares(products: &[Matrix], wanted: &[f64]) -> Option<Vec<f64>> {
    let n = products.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row: Vec<f64> = products.iter().map(|p| dot(&products[i].data, &p.data)).collect();
            row.push(dot(&products[i].data, wanted));
            row
        })
        .collect();
    let largest = (0..n).map(|i| rows[i][i]).fold(0.0, f64::max);
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() <= 1e-12 * largest {
            return None;
        }
        let pivot = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != i) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(&pivot).skip(i).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    Some((0..n).map(|i| rows[i][n] / rows[i][i]).collect())
}

/// What an expert does that explains why some tokens are wrong.
pub struct Mixed<'a> {
    /// Of the tokens that are wrong, what their experts' sum is and should be.
    pub out: &'a Matrix,
    pub exact: &'a Matrix,
    /// Of each of them, the experts and their weights.
    pub chosen: &'a [Vec<(usize, f64)>],
}

impl Mixed<'_> {
    /// Experts that all of the tokens have chosen.
    pub fn common(&self) -> Vec<usize> {
        let Some((first, rest)) = self.chosen.split_first() else { return Vec::new() };
        let has = |row: &[(usize, f64)], e: usize| row.iter().any(|c| c.0 == e);
        first.iter().map(|c| c.0).filter(|&e| rest.iter().all(|row| has(row, e))).collect()
    }

    /// What is left if an expert's output is replaced by `other` for all of the tokens; with no output of its own, the
    /// expert is left out.
    pub fn replaced(&self, expert: usize, own: &Matrix, other: Option<&Matrix>) -> f64 {
        let mut made = self.exact.clone();
        for t in 0..made.rows {
            let weight: f64 = self.chosen[t].iter().filter(|c| c.0 == expert).map(|c| c.1).sum();
            for (c, v) in made.row_mut(t).iter_mut().enumerate() {
                *v += weight * (other.map_or(0.0, |o| o.row(t)[c]) - own.row(t)[c]);
            }
        }
        relative_error(&made, self.out)
    }

    /// What is left if some multiple of an expert's output, another one for each token, is on top.
    pub fn on_top(&self, output: &Matrix) -> (f64, Vec<f64>) {
        let mut made = self.exact.clone();
        let mut factors = Vec::new();
        for t in 0..made.rows {
            let rest: Vec<f64> = self.out.row(t).iter().zip(self.exact.row(t)).map(|(o, e)| o - e).collect();
            let size = dot(output.row(t), output.row(t));
            let factor = if size > 0.0 { dot(output.row(t), &rest) / size } else { 0.0 };
            made.row_mut(t).iter_mut().zip(output.row(t)).for_each(|(v, y)| *v += factor * y);
            factors.push(factor);
        }
        (relative_error(&made, self.out), factors)
    }
}

/// A position in bf16, which has every integer up to 256 and not all above.
pub fn rounded(position: f64) -> f64 {
    Precision::BF16.round(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, cols: usize, mut state: u64) -> Matrix {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
        };
        Matrix::new(rows, cols, (0..rows * cols).map(|_| next()).collect())
    }

    #[test]
    fn factors_of_parts_of_a_sum_are_found_and_garbage_has_none() {
        let parts: Vec<Matrix> = (0..3).map(|i| noise(8, 16, 40 + i)).collect();
        let wanted: Vec<f64> = (0..8 * 16)
            .map(|i| parts[0].data[i] + 1.5 * parts[1].data[i] - 0.25 * parts[2].data[i])
            .collect();
        let found = least_squares(&parts, &wanted).unwrap();
        for (found, factor) in found.iter().zip([1.0, 1.5, -0.25]) {
            assert!((found - factor).abs() < 1e-9, "{found} {factor}");
        }
        let twice = vec![parts[0].clone(), parts[0].clone()];
        assert!(least_squares(&twice, &wanted).is_none());
    }

    #[test]
    fn blocks_with_the_scale_of_another_are_told_and_single_ones_are_not_a_rule() {
        let scales: Vec<f64> = (0..12).map(|i| 1.0 + 0.37 * f64::from(i)).collect();
        let grid = (4, 3);
        let as_read = |place: fn(usize, usize) -> (usize, usize)| -> Vec<Vec<f64>> {
            let factor = |i: usize, j: usize| {
                let (r, c) = place(i, j);
                scales[r * 3 + c] / scales[i * 3 + j]
            };
            (0..4).map(|i| (0..3).map(|j| factor(i, j)).collect()).collect()
        };
        let told = |factors: &[Vec<f64>]| other_cells(factors, &scales, grid, 0.01);
        assert!(told(&as_read(|i, j| (i / 2, j))).unwrap().contains("half the size: row i"));
        assert!(told(&as_read(|i, j| (i, (j + 1) % 3))).unwrap().contains("block behind"));
        let mut one = as_read(|i, j| (i, j));
        one[2][1] = 1.4;
        assert_eq!(told(&one), None);
    }

    #[test]
    fn an_expert_that_all_wrong_tokens_share_is_found_with_what_it_did() {
        let (own, other) = (noise(4, 6, 2), noise(4, 6, 3));
        let chosen: Vec<Vec<(usize, f64)>> = (0..4).map(|t| vec![(t + 7, 0.4), (5, 0.6)]).collect();
        let exact = noise(4, 6, 4);
        let mut out = exact.clone();
        for i in 0..out.data.len() {
            out.data[i] += 0.6 * (other.data[i] - own.data[i]);
        }
        let mixed = Mixed { out: &out, exact: &exact, chosen: &chosen };
        assert_eq!(mixed.common(), [5]);
        assert!(mixed.replaced(5, &own, Some(&other)) < 1e-12);
        assert!(mixed.replaced(5, &own, None) > 0.1);
        let (left, factors) = mixed.on_top(&own);
        assert!(left > 0.1 && factors.len() == 4);
    }
}
