//! Which tiles of K a product has counted, and how often: fitted to the output, not guessed.

use super::hypothesis::{Change, Hypothesis, Slot};
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

/// The hypothesis that each tile of K was counted so many times, where whole numbers, other than all 1, fit `out`:
/// the output at `rows` × `cols`.
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
        let one = counts.iter().all(|c| *c == 1.0) || counts.iter().all(|c| *c == 0.0);
        (whole && !one).then_some((tile, counts))
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
    let (k, tiles) = (a.cols, a.cols.div_ceil(tile));
    let mut normal = vec![vec![0.0; tiles + 1]; tiles];
    for r in 0..out.rows {
        let square: f64 = out.row(r).iter().filter(|y| y.is_finite()).map(|y| y * y).sum();
        if square == 0.0 {
            continue;
        }
        for (c, &y) in out.row(r).iter().enumerate() {
            let parts: Vec<f64> = (0..k)
                .step_by(tile)
                .map(|from| {
                    let of = from..(from + tile).min(k);
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
