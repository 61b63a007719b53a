//! Products that lack the end of K, where an expression has several: one of two kinds of columns, or one of two operands.

use super::at_node;
use crate::case::Attempt;
use crate::reference::Expr;
use crate::reference::graph::Op;

/// Lengths of K tiles.
const TILES: [usize; 6] = [4, 8, 16, 32, 64, 128];

/// For a hop with several products: the hop in which one of them leaves out the last part of its K, and that in words.
pub fn tails(source: &Expr, attempt: &Attempt) -> Vec<(String, Expr)> {
    let mut products: Vec<(usize, Expr, Expr)> = Vec::new();
    let mut at = 0;
    source.visit(&mut |e| {
        if let Op::MatMul { a, b, .. } = &e.0.op {
            products.push((at, a.clone(), b.clone()));
        }
        at += 1;
    });
    let length = |a: &Expr| a.shape().1;
    // Where all have the same K others say it of all at once.
    if products.iter().all(|(_, a, _)| length(a) == length(&products[0].1)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, a, b) in products {
        let k = length(&a);
        let mut ends: Vec<usize> = TILES
            .iter()
            .map(|tile| if k % tile == 0 { k.saturating_sub(*tile) } else { k / tile * tile })
            .collect();
        ends.retain(|end| *end > 0 && *end < k);
        ends.sort_unstable();
        ends.dedup();
        let names: Vec<String> =
            b.buffers().iter().map(|id| format!("`{}`", attempt.buffer(*id).name)).collect();
        for end in ends {
            let part = |x: &Expr| {
                let op = Op::Columns { x: x.clone(), range: 0..end };
                Expr::of_op(op, (x.shape().0, end))
            };
            let mutant = at_node(source, at, &|product| match &product.0.op {
                Op::MatMul { a, b, accumulator } => {
                    let op = Op::MatMul { a: part(a), b: part(b), accumulator: *accumulator };
                    Expr::of_op(op, product.shape())
                }
                _ => product,
            });
            let what = format!(
                "leaves out the last {} of K = {k} of the product with {}",
                k - end,
                names.join(" and ")
            );
            found.push((what, mutant));
        }
    }
    found
}
