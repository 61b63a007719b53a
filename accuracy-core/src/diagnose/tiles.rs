//! Which tiles of K a product has counted, and how often, and in which of them an operand is misread: fitted to the
//! output, not guessed.

use super::hypothesis::{Change, Hypothesis, Misreading, Sense, Slot, variant};
use super::product::Product;
use super::reading::Part;
use super::sampled::{Variant, World, all};
use crate::reference::graph::{Binary, Op};
use crate::reference::{Expr, Matrix};
use crate::words::Words;
use rayon::prelude::*;

/// Lengths of K tiles that are tried, the longest first.
const TILES: [usize; 6] = [512, 256, 128, 64, 32, 16];
/// Tiles of K that are told apart.
const MOST: usize = 64;
/// How far a fitted count may be from a whole number: the output is rounded.
const CLEAR: f64 = 0.25;
/// Rows of the other operand over which an error is summed up to see which hypotheses it goes with, and of how many of
/// these, for each operand, the parts are fitted.
const MANY: usize = 128;
const LIKELY: usize = 10;

/// Hypotheses that each tile of K was counted so many times, where whole numbers that are not all alike fit `error`: what
/// the output at `rows` × `cols` is off by, NaN where it is right. What is added to a product does not change that.
pub fn fitted<'a>(
    source: &Expr,
    world: &World<'a>,
    (rows, cols): (&[usize], &[usize]),
    error: &Matrix,
    hypotheses: &[Hypothesis<'a>],
) -> Vec<Hypothesis<'a>> {
    let Some((product, factor)) = product_of_sum(source) else { return Vec::new() };
    let Op::MatMul { a, b, .. } = &product.0.op else { return Vec::new() };
    let k = a.shape().1;
    let values = |e: &Expr, at: &[usize]| Variant::new(world, e.clone()).at(at, &all(k));
    let terms = Terms::new(&values(a, rows), &values(b, cols), factor);
    let of_tiles = |tile: usize| {
        let tiles = k.div_ceil(tile);
        if !(3..=MOST).contains(&tiles) || rows.len() * cols.len() < 3 * tiles {
            return None;
        }
        let more = terms.by(tile).counts(error, &all(tiles))?;
        let counts: Vec<f64> = more.into_iter().map(|more| 1.0 + more).collect();
        // A tile in which little is added up tells its count less exactly; what only seems to fit is found out later.
        let whole = counts.iter().all(|c| (c - c.round()).abs() < CLEAR && (-1.0..=4.0).contains(&c.round()));
        let mut counts: Vec<f64> = counts.into_iter().map(f64::round).collect();
        // All of K counted twice is a factor of the result, whatever else is.
        for common in [4.0, 3.0, 2.0] {
            if counts.iter().all(|c| c % common == 0.0) {
                counts.iter_mut().for_each(|c| *c /= common);
            }
        }
        let alike = counts.iter().all(|c| *c == counts[0]);
        (whole && !alike).then_some((tile, counts))
    };
    let mut found: Vec<Hypothesis<'a>> = Vec::new();
    for (tile, counts) in TILES.into_iter().filter_map(of_tiles) {
        let what = Words::from(words(&counts, tile, k));
        if found.iter().any(|known| known.what == what) {
            continue;
        }
        let twice = counts.iter().all(|count| [1.0, 2.0].contains(count));
        let misread =
            if twice { read_twice_as_large(hypotheses, (tile, &counts), k, [a, b]) } else { Vec::new() };
        let counted = counted(what, Product::Tiles { tile, counts: counts.clone() });
        // From some column on a kernel may well decode otherwise; what it counts twice are parts that overlap.
        let to_the_end = runs(&counts, tile, k).len() == 2 && counts.last() == Some(&2.0);
        match to_the_end {
            true => found.extend(misread.into_iter().chain([counted])),
            false => found.extend([counted].into_iter().chain(misread)),
        }
    }
    found
}

/// The readings of an operand as another format, in tiles that seem to be counted twice: but for a few codes, a format whose
/// bias is one less makes the same of them.
fn read_twice_as_large<'a>(
    hypotheses: &[Hypothesis<'a>],
    (tile, counts): (usize, &[f64]),
    k: usize,
    sides: [&Expr; 2],
) -> Vec<Hypothesis<'a>> {
    let tiles: Vec<bool> = counts.iter().map(|count| *count == 2.0).collect();
    let columns = columns(&tiles, tile, k);
    let is_operand = |id| sides.iter().any(|side| matches!(side.0.op, Op::Buffer(other) if other == id));
    let readings = hypotheses.iter().filter(|h| {
        let misread = matches!(h.slot, Slot::Format(id) if is_operand(id)) && h.also.is_none();
        misread && matches!(h.sense, Sense::Misreads(Misreading::As(..)))
    });
    let in_part = |h: &Hypothesis<'a>| Hypothesis {
        what: h.what.and(format_args!(", in columns {columns} only")),
        change: Change::InPart(Part { tile, tiles: tiles.clone().into() }, Box::new(h.change.clone())),
        ..h.clone()
    };
    readings.map(in_part).collect()
}

/// Hypotheses about an operand of a product, each in those tiles of K alone in which it fits `out`: what a kernel does
/// to the last tile, or to every second one.
///
/// `screen` are the rows and columns on which the likely ones are told, `rows` × `cols` those on which these are fitted;
/// `error` is how far an element of the hop is from its reference.
pub fn in_parts<'a>(
    source: &Expr,
    world: &World<'a>,
    hypotheses: &[Hypothesis<'a>],
    screen: (&[usize], &[usize]),
    (rows, cols): (&[usize], &[usize]),
    error: &(dyn Fn(usize, usize) -> f64 + Sync),
) -> Vec<Hypothesis<'a>> {
    let Some((product, factor)) = product_of_sum(source) else { return Vec::new() };
    let Op::MatMul { a: left, b: right, .. } = &product.0.op else { return Vec::new() };
    let k = left.shape().1;
    let read = |e: &Expr, at: &[usize], holding: &[usize]| {
        variant(world, e, hypotheses, holding).operand(e, at, &all(k))
    };
    // Of a product of two operands that are read as they are: whose hypothesis it is.
    let operands: Vec<(usize, bool)> = (0..hypotheses.len())
        .filter(|&i| hypotheses[i].also.is_none())
        .filter_map(|i| {
            let id = hypotheses[i].slot.operand()?;
            let is = |side: &Expr| matches!(side.0.op, Op::Buffer(other) if other == id);
            (is(left) != is(right)).then_some((i, is(left)))
        })
        .collect();
    if operands.is_empty() {
        return Vec::new();
    }
    // What a hypothesis adds to an operand.
    let added = |i: usize, of_left: bool, at: &[usize]| {
        let side = if of_left { left } else { right };
        let (wrong, right) = (read(side, at, &[i]), read(side, at, &[]));
        let data = wrong.data.iter().zip(&right.data).map(|(x, y)| x - y).collect();
        Matrix::new(wrong.rows, wrong.cols, data)
    };
    let likely = {
        let many = |n: usize| -> Vec<usize> { (0..n).step_by(n.div_ceil(MANY)).collect() };
        let (m, n) = (many(left.shape().0), many(right.shape().0));
        let (of_left, of_right) = rayon::join(
            || Gradient::new(screen.0, &n, &read(right, &n, &[]), &|r, c| error(r, c) / factor),
            || Gradient::new(screen.1, &m, &read(left, &m, &[]), &|c, r| error(r, c) / factor),
        );
        let tile = TILES.into_iter().rev().find(|tile| k.div_ceil(*tile) <= MOST).unwrap_or(TILES[0]);
        let mut scored: Vec<(f64, usize, bool)> = operands
            .par_iter()
            .map(|&(i, is_left)| {
                let (gradient, side, at) =
                    if is_left { (&of_left, left, screen.0) } else { (&of_right, right, screen.1) };
                (gradient.explained(&read(side, at, &[i]), &read(side, at, &[]), tile), i, is_left)
            })
            .collect();
        // The best of each operand: shares of different operands are not alike.
        scored.sort_by(|a, b| b.2.cmp(&a.2).then(b.0.total_cmp(&a.0)));
        let mut scored: Vec<_> =
            scored.chunk_by(|a, b| a.2 == b.2).flat_map(|of| &of[..of.len().min(LIKELY)]).copied().collect();
        scored.sort_by_key(|(_, i, _)| *i);
        scored
    };
    let mut off = Matrix::zeros(rows.len(), cols.len());
    for (i, &r) in rows.iter().enumerate() {
        off.row_mut(i).iter_mut().zip(cols).for_each(|(x, &c)| *x = error(r, c));
    }
    let (a, b) = (read(left, rows, &[]), read(right, cols, &[]));
    likely
        .into_par_iter()
        .filter_map(|(_, i, of_left)| {
            let terms = match of_left {
                true => Terms::new(&added(i, true, rows), &b, factor),
                false => Terms::new(&a, &added(i, false, cols), factor),
            };
            let (tile, tiles) = parts(&terms, &off)?;
            let hypothesis = &hypotheses[i];
            let columns = columns(&tiles, tile, k);
            Some(Hypothesis {
                what: hypothesis.what.and(format_args!(", in columns {columns} only")),
                change: Change::InPart(
                    Part { tile, tiles: tiles.into() },
                    Box::new(hypothesis.change.clone()),
                ),
                ..hypothesis.clone()
            })
        })
        .collect()
}

/// What holds in some tiles of K alone, and the rest of them left out: two hypotheses.
pub fn without_the_rest<'a>(of: &Hypothesis<'a>) -> Option<[Hypothesis<'a>; 2]> {
    let Change::InPart(Part { tile, tiles }, change) = &of.change else { return None };
    let counts = tiles.iter().map(|there| if *there { 1.0 } else { 0.0 }).collect();
    let everywhere = Hypothesis { change: Change::clone(change), ..of.clone() };
    let product = Product::Tiles { tile: *tile, counts };
    Some([everywhere, counted("leaves out the rest of K".into(), product)])
}

fn counted(what: Words, product: Product) -> Hypothesis<'static> {
    Hypothesis {
        cause: "k_tail_dropped",
        slot: Slot::Product,
        operand: None,
        what,
        change: Change::Product(product),
        sense: Sense::Other,
        also: None,
    }
}

/// How the error of a product goes with each element of an operand, summed up over many elements of the other one: the
/// error is `D · bᵀ` where `D` was added to the operand `a`, so that `D` is seen in `error · b`.
struct Gradient {
    /// `error · b`, a row of the operand each.
    of: Matrix,
    /// The squares of each column of `b`, summed up.
    squares: Vec<f64>,
    /// The squares of the error, summed up.
    error: f64,
}

impl Gradient {
    /// Of `rows` of an operand whose products with `b`, the rows `others` of the other one, are off by `error`.
    fn new(rows: &[usize], others: &[usize], b: &Matrix, error: &dyn Fn(usize, usize) -> f64) -> Gradient {
        let mut of = Matrix::zeros(rows.len(), b.cols);
        let (mut squares, mut total) = (vec![0.0; b.cols], 0.0);
        for (j, &other) in others.iter().enumerate() {
            squares.iter_mut().zip(b.row(j)).for_each(|(sum, x)| *sum += x * x);
            for (i, &r) in rows.iter().enumerate() {
                let off = error(r, other);
                total += off * off;
                if off != 0.0 {
                    of.row_mut(i).iter_mut().zip(b.row(j)).for_each(|(sum, x)| *sum += off * x);
                }
            }
        }
        Gradient { of, squares, error: total }
    }

    /// The share of the error that an operand explains that is `wrong` and not `right` in those tiles in which that makes
    /// the error smaller.
    fn explained(&self, wrong: &Matrix, right: &Matrix, tile: usize) -> f64 {
        let (mut along, mut most) = (0.0, 0.0);
        let tiles = wrong.cols.div_ceil(tile);
        for t in 0..tiles {
            let (mut with, mut own) = (0.0, 0.0);
            for r in 0..wrong.rows {
                for c in t * tile..((t + 1) * tile).min(wrong.cols) {
                    let added = wrong.row(r)[c] - right.row(r)[c];
                    if added.is_finite() {
                        with += added * self.of.row(r)[c];
                        own += added * added * self.squares[c];
                    }
                }
            }
            if with > 0.5 * own {
                along += with;
                most += own;
            }
        }
        if self.error > 0.0 { (2.0 * along - most) / self.error } else { 0.0 }
    }
}

/// The tiles of K that make up the error; `None` if none do, or all.
fn parts(terms: &Terms, error: &Matrix) -> Option<(usize, Vec<bool>)> {
    let finite = |i: usize| terms.sums.row(i).iter().all(|x| x.is_finite());
    let elements = (0..terms.sums.rows).filter(|&i| finite(i)).count();
    let of_tiles = |tile: usize| {
        let tiles = terms.k.div_ceil(tile);
        if !(2..=MOST).contains(&tiles) || elements < 3 * tiles {
            return None;
        }
        let terms = terms.by(tile);
        // Tiles that the hypothesis leaves as they are add nothing.
        let kept: Vec<usize> =
            (0..tiles).filter(|&t| (0..terms.sums.rows).any(|i| terms.sums.row(i)[t] != 0.0)).collect();
        if kept.len() < 2 {
            return None;
        }
        let found = terms.counts(error, &kept)?;
        let clear =
            found.iter().all(|c| (c - c.round()).abs() < CLEAR && [0.0, 1.0].contains(&c.round().abs()));
        let mut of = vec![false; tiles];
        kept.iter().zip(&found).for_each(|(&t, c)| of[t] = c.round() == 1.0);
        let some = kept.iter().any(|&t| of[t]) && kept.iter().any(|&t| !of[t]);
        (clear && some).then(|| (terms.left(error, &of), tile, of))
    };
    // The longest tiles of those that leave as little, but for what rounding leaves.
    let found: Vec<_> = TILES.into_iter().filter_map(of_tiles).collect();
    let least = found.iter().map(|(left, ..)| *left).min_by(f64::total_cmp)?;
    found.into_iter().find(|(left, ..)| *left <= 1.5 * least).map(|(_, tile, of)| (tile, of))
}

/// Runs of tiles that are alike, as columns from and to: what they are is third.
fn runs<T: Copy + PartialEq>(tiles: &[T], tile: usize, k: usize) -> Vec<(usize, usize, T)> {
    let of = tiles.chunk_by(PartialEq::eq).scan(0, |at, run| {
        let from = *at;
        *at += run.len();
        Some((from * tile, (*at * tile).min(k) - 1, run[0]))
    });
    of.collect()
}

/// Tiles in words.
fn columns(tiles: &[bool], tile: usize, k: usize) -> String {
    let of: Vec<_> = runs(tiles, tile, k).into_iter().filter(|(.., there)| *there).collect();
    let said: Vec<String> = of.iter().take(3).map(|(from, to, _)| format!("{from} to {to}")).collect();
    let more = if of.len() > 3 { format!(" and {} ranges more", of.len() - 3) } else { String::new() };
    format!("{}{more}", said.join(", "))
}

/// The product that a hop is, but for a factor and roundings.
pub fn product(source: &Expr) -> Option<(&Expr, f64)> {
    match &source.0.op {
        Op::MatMul { .. } => Some((source, 1.0)),
        Op::Round { x, .. } => product(x),
        Op::Scale { x, factor } => product(x).map(|(product, of)| (product, of * factor)),
        _ => None,
    }
}

/// The product that a hop is, but for a factor, roundings and what is added to it: the hop is off by what its product is
/// off by.
fn product_of_sum(source: &Expr) -> Option<(&Expr, f64)> {
    let found = match &source.0.op {
        Op::Binary { function: Binary::Add, a, b } => product_of_sum(a).or_else(|| product_of_sum(b)),
        Op::Binary { function: Binary::Sub, a, b } => {
            product_of_sum(a).or_else(|| product_of_sum(b).map(|(product, of)| (product, -of)))
        }
        Op::Round { x, .. } => product_of_sum(x),
        Op::Scale { x, factor } => product_of_sum(x).map(|(product, of)| (product, of * factor)),
        _ => product(source),
    };
    found.filter(|(product, _)| product.shape() == source.shape())
}

/// Products of a sample's rows and columns, summed up tile by tile.
struct Terms {
    k: usize,
    tile: usize,
    /// An element of the sample each row, a tile each column.
    sums: Matrix,
}

impl Terms {
    /// `factor * a · bᵀ` in the shortest tiles.
    fn new(a: &Matrix, b: &Matrix, factor: f64) -> Terms {
        let tile = TILES[TILES.len() - 1];
        let mut sums = Vec::with_capacity(a.rows * b.rows * a.cols.div_ceil(tile));
        for r in 0..a.rows {
            for c in 0..b.rows {
                let tiles = a.row(r).chunks(tile).zip(b.row(c).chunks(tile));
                sums.extend(tiles.map(|(x, y)| factor * x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>()));
            }
        }
        Terms { k: a.cols, tile, sums: Matrix::new(a.rows * b.rows, a.cols.div_ceil(tile), sums) }
    }

    /// The same in longer tiles.
    fn by(&self, tile: usize) -> Terms {
        let together = tile / self.tile;
        let rows = (0..self.sums.rows).map(|i| self.sums.row(i));
        let data = rows.flat_map(|row| row.chunks(together).map(|of| of.iter().sum::<f64>())).collect();
        let sums = Matrix::new(self.sums.rows, self.k.div_ceil(tile), data);
        Terms { k: self.k, tile, sums }
    }

    /// The error that these tiles leave, in squares, each row of it in units of its own.
    fn left(&self, error: &Matrix, of: &[bool]) -> f64 {
        let mut left = 0.0;
        for r in 0..error.rows {
            let (mut own, mut rest) = (0.0, 0.0);
            for (c, &off) in error.row(r).iter().enumerate() {
                let sums = self.sums.row(r * error.cols + c).iter().zip(of);
                let explained: f64 = sums.filter(|(_, of)| **of).map(|(x, _)| x).sum();
                if off.is_finite() && explained.is_finite() {
                    own += off * off;
                    rest += (off - explained).powi(2);
                }
            }
            if own > 0.0 {
                left += rest / own;
            }
        }
        left
    }

    /// The least squares counts of `out = sum over the kept tiles of counts[tile] * sums[tile]`, each row of `out` in
    /// units of its own.
    fn counts(&self, out: &Matrix, kept: &[usize]) -> Option<Vec<f64>> {
        let squares: Vec<f64> =
            (0..out.rows).map(|r| out.row(r).iter().filter(|y| y.is_finite()).map(|y| y * y).sum()).collect();
        let elements = (0..out.rows * out.cols).filter(|i| squares[i / out.cols] > 0.0).map(|i| {
            let unit = squares[i / out.cols].sqrt();
            let sums = self.sums.row(i);
            (kept.iter().map(|&t| sums[t] / unit).collect(), out.data[i] / unit)
        });
        least_squares(elements, kept.len())
    }
}

/// The `n` factors of the terms that come nearest to the sums, in squares; what is not finite is left out.
pub fn least_squares(equations: impl Iterator<Item = (Vec<f64>, f64)>, n: usize) -> Option<Vec<f64>> {
    let mut normal = vec![vec![0.0; n + 1]; n];
    for (terms, sum) in equations {
        if !sum.is_finite() || terms.iter().any(|x| !x.is_finite()) {
            continue;
        }
        for (x, row) in terms.iter().zip(&mut normal) {
            row.iter_mut().zip(&terms).for_each(|(to, y)| *to += x * y);
            row[n] += x * sum;
        }
    }
    solved(normal)
}

/// The solution of a system of equations, each with its right side behind; `None` of a singular one.
fn solved(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&p, &q| rows[p][i].abs().total_cmp(&rows[q][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() < 1e-12 {
            return None;
        }
        let (done, left) = rows.split_at_mut(i + 1);
        let own = &done[i];
        for row in left {
            let times = row[i] / own[i];
            row.iter_mut().zip(own).skip(i).for_each(|(x, y)| *x -= times * y);
        }
    }
    let mut out = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * out[j]).sum();
        out[i] = (rows[i][n] - known) / rows[i][i];
    }
    Some(out)
}

fn words(counts: &[f64], tile: usize, k: usize) -> String {
    let said: Vec<String> = runs(counts, tile, k)
        .into_iter()
        .filter(|(.., count)| *count != 1.0)
        .take(4)
        .map(|(from, to, count)| match count {
            0.0 => format!("leaves out {from} to {to} of K = {k}"),
            count => format!("counts {from} to {to} of K = {k} {count} times"),
        })
        .collect();
    said.join(" and ")
}
