//! Which tiles of K a product has counted, and how often, and in which of them an operand is misread: fitted to the
//! output, not guessed.

use super::hypothesis::{Change, Hypothesis, Part, Slot, variant};
use super::product::Product;
use super::sampled::{Variant, World, all};
use crate::reference::graph::Op;
use crate::reference::{Expr, Matrix};

/// Lengths of K tiles that are tried, the longest first.
const TILES: [usize; 6] = [512, 256, 128, 64, 32, 16];
/// Tiles of K that are told apart.
const MOST: usize = 64;
/// How far a fitted count may be from a whole number: the output is rounded.
const NEAR: f64 = 0.06;
/// The same of what is only there or not.
const CLEAR: f64 = 0.25;

/// The hypothesis that each tile of K was counted so many times, where whole numbers that are not all alike fit `out`: the
/// output at `rows` × `cols`.
pub fn fitted(
    source: &Expr,
    world: &World<'_>,
    (rows, cols): (&[usize], &[usize]),
    out: &Matrix,
) -> Option<Hypothesis<'static>> {
    let (product, factor) = product(source)?;
    let Op::MatMul { a, b, .. } = &product.0.op else { return None };
    let k = a.shape().1;
    let values = |e: &Expr, at: &[usize]| Variant::new(world, e.clone()).at(at, &all(k));
    let (a, b) = (values(a, rows), values(b, cols));
    let (tile, counts) = TILES.into_iter().find_map(|tile| {
        let tiles = k.div_ceil(tile);
        if !(3..=MOST).contains(&tiles) || rows.len() * cols.len() < 3 * tiles {
            return None;
        }
        let counts = counts(&a, &b, out, tile, factor)?;
        let whole = counts.iter().all(|c| (c - c.round()).abs() < NEAR && (-1.0..=4.0).contains(&c.round()));
        let counts: Vec<f64> = counts.into_iter().map(f64::round).collect();
        // All of K counted twice is a factor of the result.
        let alike = counts.iter().all(|c| *c == counts[0]);
        (whole && !alike).then_some((tile, counts))
    })?;
    Some(Hypothesis {
        cause: "k_tail_dropped",
        slot: Slot::Product,
        operand: None,
        what: words(&counts, tile, k),
        change: Change::Product(Product::Tiles { tile, counts }),
        also: None,
    })
}

/// Hypotheses about an operand of a product, each in those tiles of K alone in which it fits `out`: what a kernel does
/// to the last tile, or to every second one.
pub fn in_parts<'a>(
    source: &Expr,
    world: &World<'a>,
    hypotheses: &[Hypothesis<'a>],
    (rows, cols): (&[usize], &[usize]),
    out: &Matrix,
) -> Vec<Hypothesis<'a>> {
    let Some((product, factor)) = product(source) else { return Vec::new() };
    let Op::MatMul { a: left, b: right, .. } = &product.0.op else { return Vec::new() };
    let k = left.shape().1;
    let read =
        |e: &Expr, at: &[usize], holding: &[usize]| variant(world, e, hypotheses, holding).at(at, &all(k));
    let (a, b) = (read(left, rows, &[]), read(right, cols, &[]));
    let mut error = Matrix::zeros(out.rows, out.cols);
    for r in 0..out.rows {
        for c in 0..out.cols {
            let right: f64 = a.row(r).iter().zip(b.row(c)).map(|(x, y)| x * y).sum();
            error.row_mut(r)[c] = out.row(r)[c] - factor * right;
        }
    }
    let mut found = Vec::new();
    for (i, hypothesis) in hypotheses.iter().enumerate() {
        let Some(id) = hypothesis.slot.operand() else { continue };
        // Of a product of two operands that are read as they are.
        let of_left = matches!(left.0.op, Op::Buffer(other) if other == id);
        let of_right = matches!(right.0.op, Op::Buffer(other) if other == id);
        if of_left == of_right || hypothesis.also.is_some() {
            continue;
        }
        // What the hypothesis adds to an operand, times the other.
        let minus = |x: Matrix, y: &Matrix| {
            let data = x.data.iter().zip(&y.data).map(|(x, y)| x - y).collect();
            Matrix::new(x.rows, x.cols, data)
        };
        let (a, b) = match of_left {
            true => (minus(read(left, rows, &[i]), &a), b.clone()),
            false => (a.clone(), minus(read(right, cols, &[i]), &b)),
        };
        let Some((tile, tiles)) = parts(&a, &b, &error, factor) else { continue };
        let runs = runs(&tiles, tile, k);
        found.push(Hypothesis {
            what: format!("{}, in columns {runs} only", hypothesis.what),
            change: Change::InPart(Part { tile, tiles: tiles.into() }, Box::new(hypothesis.change.clone())),
            ..hypothesis.clone()
        });
    }
    found
}

/// The tiles of K that make up the error; `None` if none do, or all.
fn parts(a: &Matrix, b: &Matrix, error: &Matrix, factor: f64) -> Option<(usize, Vec<bool>)> {
    if a.data.iter().chain(&b.data).any(|x| !x.is_finite()) {
        return None;
    }
    let k = a.cols;
    TILES.into_iter().find_map(|tile| {
        let tiles = k.div_ceil(tile);
        if !(2..=MOST).contains(&tiles) || error.data.len() < 3 * tiles {
            return None;
        }
        // Tiles that the hypothesis leaves as they are add nothing.
        let changed = |t: &usize| {
            let of = t * tile..((t + 1) * tile).min(k);
            let any = |m: &Matrix| (0..m.rows).any(|r| m.row(r)[of.clone()].iter().any(|x| *x != 0.0));
            any(a) && any(b)
        };
        let kept: Vec<usize> = (0..tiles).filter(changed).collect();
        if kept.len() < 2 {
            return None;
        }
        let found = counts_of(a, b, error, tile, &kept, factor)?;
        let clear =
            found.iter().all(|c| (c - c.round()).abs() < CLEAR && [0.0, 1.0].contains(&c.round().abs()));
        let mut of = vec![false; tiles];
        kept.iter().zip(&found).for_each(|(&t, c)| of[t] = c.round() == 1.0);
        let some = kept.iter().any(|&t| of[t]) && kept.iter().any(|&t| !of[t]);
        (clear && some).then_some((tile, of))
    })
}

/// Tiles in words.
fn runs(tiles: &[bool], tile: usize, k: usize) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, _) in tiles.iter().enumerate().filter(|(_, of)| **of) {
        let end = ((i + 1) * tile).min(k);
        match runs.last_mut() {
            Some((_, to)) if *to == i * tile => *to = end,
            _ => runs.push((i * tile, end)),
        }
    }
    let said: Vec<String> = runs.iter().take(3).map(|(from, to)| format!("{from} to {}", to - 1)).collect();
    let more = if runs.len() > 3 { format!(" and {} ranges more", runs.len() - 3) } else { String::new() };
    format!("{}{more}", said.join(", "))
}

/// The product that a hop is, but for a factor and roundings.
fn product(source: &Expr) -> Option<(&Expr, f64)> {
    match &source.0.op {
        Op::MatMul { .. } => Some((source, 1.0)),
        Op::Round { x, .. } => product(x),
        Op::Scale { x, factor } => product(x).map(|(product, of)| (product, of * factor)),
        _ => None,
    }
}

/// The least squares `counts` of `out = factor * sum over tiles of counts[tile] * (a · bᵀ over that tile)`, each row in
/// units of its own.
fn counts(a: &Matrix, b: &Matrix, out: &Matrix, tile: usize, factor: f64) -> Option<Vec<f64>> {
    counts_of(a, b, out, tile, &all(a.cols.div_ceil(tile)), factor)
}

/// The same over some of the tiles.
fn counts_of(
    a: &Matrix,
    b: &Matrix,
    out: &Matrix,
    tile: usize,
    kept: &[usize],
    factor: f64,
) -> Option<Vec<f64>> {
    let (k, tiles) = (a.cols, kept.len());
    let mut normal = vec![vec![0.0; tiles + 1]; tiles];
    for r in 0..out.rows {
        let square: f64 = out.row(r).iter().filter(|y| y.is_finite()).map(|y| y * y).sum();
        if square == 0.0 {
            continue;
        }
        for (c, &y) in out.row(r).iter().enumerate() {
            let parts: Vec<f64> = kept
                .iter()
                .map(|t| {
                    let of = t * tile..((t + 1) * tile).min(k);
                    let terms = a.row(r)[of.clone()].iter().zip(&b.row(c)[of]);
                    factor * terms.map(|(x, y)| x * y).sum::<f64>()
                })
                .collect();
            if !y.is_finite() || parts.iter().any(|p| !p.is_finite()) {
                continue;
            }
            for i in 0..tiles {
                for j in 0..tiles {
                    normal[i][j] += parts[i] * parts[j] / square;
                }
                normal[i][tiles] += parts[i] * y / square;
            }
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
    let mut runs: Vec<(usize, usize, f64)> = Vec::new();
    for (i, &count) in counts.iter().enumerate() {
        match runs.last_mut() {
            Some((_, to, known)) if *known == count => *to = ((i + 1) * tile).min(k),
            _ => runs.push((i * tile, ((i + 1) * tile).min(k), count)),
        }
    }
    let said: Vec<String> = runs
        .iter()
        .filter(|(_, _, count)| *count != 1.0)
        .take(4)
        .map(|(from, to, count)| match count {
            0.0 => format!("leave out {from} to {} of K = {k}", to - 1),
            count => format!("count {from} to {} of K = {k} {count} times", to - 1),
        })
        .collect();
    format!("the products {}", said.join(" and "))
}
