//! Hypotheses about how a kernel sums up its products: which part of K it takes, and in what it accumulates.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use super::product::{Narrow, Product};
use crate::dtype::{BF16, F16};
use crate::reference::Expr;
use crate::reference::graph::Op;
use std::ops::Range;

/// Lengths of K tiles that kernels have.
const TILES: [usize; 8] = [8, 16, 32, 64, 128, 256, 512, 1024];

/// Every hypothesis about the products of an expression.
pub fn hypotheses(source: &Expr) -> Vec<Hypothesis<'static>> {
    let (mut lengths, mut declared) = (Vec::new(), Vec::new());
    source.visit(&mut |e| {
        if let Op::MatMul { a, accumulator, .. } = &e.0.op {
            lengths.push(a.0.cols);
            declared.push(*accumulator);
        }
    });
    let Some(&k) = lengths.iter().max() else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |cause: &'static str, what: String, product: Product| {
        found.push(Hypothesis {
            cause,
            slot: Slot::Product,
            operand: None,
            what: what.into(),
            change: Change::Product(product),
            sense: Sense::Other,
            also: None,
        });
    };
    let mut ranges: Vec<(Range<usize>, String)> = Vec::new();
    for tile in TILES.into_iter().filter(|&t| t < k) {
        let whole = k / tile * tile;
        let last = if whole == k { k - tile } else { whole };
        ranges.push((last..k, format!("the last {} of K = {k} (a tile of {tile})", k - last)));
        // The last whole tile and the rest.
        if whole != k && whole >= tile {
            ranges.push((whole - tile..k, format!("the last {} of K = {k}", k - (whole - tile))));
            ranges.push((whole - tile..whole, format!("the last whole tile of {tile} of K = {k}")));
        }
        ranges.push((0..tile, format!("the first {tile} of K = {k}")));
    }
    if k > 1 {
        ranges.push((k - 1..k, format!("the last of K = {k}")));
        ranges.push((k / 2..k, format!("the second half of K = {k}")));
        ranges.push((0..k / 2, format!("the first half of K = {k}")));
    }
    let mut seen: Vec<Range<usize>> = Vec::new();
    for (range, words) in ranges {
        if seen.contains(&range) {
            continue;
        }
        seen.push(range.clone());
        let weighted = |times| Product::Weighted { range: range.clone(), times };
        add("k_tail_dropped", format!("leaves out {words}"), weighted(0.0));
        add("k_tail_dropped", format!("counts {words} twice"), weighted(2.0));
    }
    for period in [2, 4, 8, 16, 32, 64, 128, 256].into_iter().filter(|&p| p < k) {
        let half = period / 2;
        for (out, words) in
            [(half..period, "second"), (0..half, "first"), (period - 1..period, "last of the second")]
        {
            add(
                "k_tail_dropped",
                format!("leaves out the {words} half of every {period} of K"),
                Product::Periodic { period, out },
            );
        }
    }
    // To the end of a tile, or a whole one further.
    let ends = TILES.iter().flat_map(|&tile| [k.next_multiple_of(tile), k + tile]);
    let mut ends: Vec<usize> = ends.filter(|&to| to != k && to <= 2 * k).collect();
    ends.sort_unstable();
    ends.dedup();
    for to in ends {
        let what = format!("runs on from K = {k} to {to}, into what follows each row");
        add("k_tail_dropped", what.clone(), Product::Overrun { to, zeros: false });
        let what = format!("{what}, and finds 0 beyond the last");
        add("k_tail_dropped", what, Product::Overrun { to, zeros: true });
    }
    for to in [F16, BF16] {
        if declared.contains(&to.into()) {
            continue;
        }
        for block in [1, 2, 4, 8, 16, 32, 64, 128, 256].into_iter().filter(|&b| b < k) {
            let what = match block {
                1 => format!("accumulates products in {to}"),
                _ => format!("rounds its sum to {to} after every {block} products"),
            };
            add("accumulation", what, Product::Rounded { to, block });
        }
        for block in [32, 64, 128, 256].into_iter().filter(|&b| b < k) {
            let what = format!("rounds the sum of every {block} products to {to} before it adds it");
            add("accumulation", what, Product::Parts { to, block });
        }
        for parts in [2, 3, 4].into_iter().filter(|&p| p < k) {
            let what = format!("splits K in {parts} parts and rounds their sums to {to} before it adds them");
            add("accumulation", what, Product::Parts { to, block: k.div_ceil(parts) });
        }
        for parts in [2, 3, 4, 8, 16].into_iter().filter(|&p| p < k) {
            let what = format!("splits K in {parts} parts and keeps their sums in {to}");
            add("accumulation", what, Product::SplitK { to, parts });
        }
    }
    if of_codes(source) {
        for narrow in Narrow::ALL {
            let (cause, words) = narrow.words();
            add(cause, words, Product::Codes(narrow));
        }
    }
    found
}

/// Whether the product is one of two buffers, whose codes can be summed up before they are scaled.
fn of_codes(source: &Expr) -> bool {
    match &source.0.op {
        Op::MatMul { a, b, .. } => matches!(a.0.op, Op::Buffer(_)) && matches!(b.0.op, Op::Buffer(_)),
        Op::Round { x, .. } | Op::Scale { x, .. } => of_codes(x),
        Op::Binary { a, .. } => of_codes(a),
        _ => false,
    }
}
