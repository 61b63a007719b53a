//! One fault for each proposal that came of chains by other writers, planted in kernels of the tests' own.

use super::naming::{causes_of, is_called};
use super::*;
use crate::case::input::Data;
use crate::case::{Attempt, Case, Tensor};
use crate::dtype::{BF16, E4M3FN, F32};
use crate::judge::tests::{K, M, MIN_COS, N, Order, linear, products, run, setup};
use crate::quant::{Quant, quantize};
use crate::reference::model::{RopeStyle, cos_sin_table, rope};
use crate::reference::{Matrix, Operand};

#[test]
fn parts_of_k_that_count_twice_before_a_bias_and_a_residual() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let residual = case.input("residual", BF16, [M, N]).unwrap();
        let y = case.output("y", BF16, [M, N], x.matmul(&w).scale(0.5) + &bias + &residual).unwrap();
        (vec![x, w, bias, residual], y)
    };
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        // Slices of 96, each of which takes in 16 of the next one.
        let mut x = of[0].clone();
        let twice = |c: usize| c >= 96 && c % 96 < 16;
        for r in 0..M {
            let row = x.row_mut(r);
            (0..K).filter(|c| twice(*c)).for_each(|c| row[c] *= 2.0);
        }
        let rest = |r: usize, c: usize| of[2].data[c] as f32 + of[3].row(r)[c] as f32;
        products(&x, &of[1], Order::Forward, |r, c, x| 0.5 * x + rest(r, c))
    });
    is_called(&attempt, &["k_tail_dropped"], "counts 96 to 111 of K = 320 2 times");
}

#[test]
fn an_addend_that_every_rank_adds() {
    let declare = |case: &mut Case| {
        let of = ["p0", "p1", "p2", "residual"].map(|name| case.input(name, BF16, [M, N]).unwrap());
        let sum = &(&of[0] + &of[1]) + &of[2];
        let y = case.output("y", BF16, [M, N], sum + &of[3]).unwrap();
        (of.to_vec(), y)
    };
    let wrote = |times: [f32; 4]| {
        run(setup(0, Data::Ordinary), declare, move |of| {
            let sum = |i: usize| times.iter().zip(of).map(|(times, of)| times * of.data[i] as f32).sum();
            (0..M * N).map(sum).collect()
        })
    };
    is_called(&wrote([1.0, 1.0, 1.0, 3.0]), &["addend_extra"], "3 times the addend that comes of `residual`");
    is_called(&wrote([2.0, 1.0, 1.0, 1.0]), &["addend_extra"], "2 times the addend that comes of `p0`");
    is_called(&wrote([1.0, 0.0, 1.0, 1.0]), &["addend_missing"], "`p1`");
}

#[test]
fn scales_of_another_rank() {
    const ROWS: usize = 24;
    let mut case = Case::new(setup(0, Data::Ordinary));
    let x = case.input("x", BF16, [ROWS, 256]).unwrap();
    let scheme = Quant::token(E4M3FN);
    let of = ["xq0", "xq1"].map(|name| case.quantized(name, &x, scheme).unwrap());
    let w = case.input("w", BF16, [N, 256]).unwrap();
    let y = case.output("y", BF16, [ROWS, N], of[1].matmul(&w)).unwrap();
    let mut attempt = case.finish(&y).unwrap();
    let value = attempt.buffer(x.id()).value();
    let parts = [1.0, 0.37].map(|times| {
        let of_row = |i: usize| times * value.data[i] * (1.0 + (i / 256 * 7 % 5) as f64 * times);
        quantize(&Matrix::new(ROWS, 256, (0..value.data.len()).map(of_row).collect()), &scheme, 1.0)
    });
    for (id, part) in of.iter().map(Tensor::id).zip(&parts) {
        let buffer = &mut attempt.buffers[id.0];
        buffer.data = E4M3FN.pack(part.codes.iter().copied()).into();
        buffer.scales = F32.encode_bytes(&part.scales, crate::dtype::Overflow::Special);
    }
    let (codes, other) = (attempt.buffer(of[1].id()).value(), &parts[0].scales);
    let own = &parts[1].scales;
    let weight = attempt.buffer(w.id()).value();
    let out = products(&codes, &weight, Order::Forward, |r, _, x| x * (other[r] / own[r]) as f32);
    let values: Vec<f64> = out.into_iter().map(f64::from).collect();
    attempt.buffers[y.id().0].data = BF16.encode_bytes(&values, crate::dtype::Overflow::Special).into();
    let mut hops = judge_hops(&attempt, MIN_COS);
    hops.retain(|hop| hop.id == y.id());
    let causes = causes_of(&attempt, &hops);
    assert_eq!(causes[0].cause, "scale_neighbour", "{causes:#?}");
    assert!(super::tests::says(&causes[0], "with the scales of `xq0`"), "{causes:#?}");
}

/// Heads of 32 columns, a row each, of which the first 16 are rotated: the angles of the others are 0.
fn partly_rotated(case: &mut Case) -> (Vec<Tensor>, Tensor) {
    let mut table = Vec::new();
    for angles in cos_sin_table(40, 16, 1e4).chunks(16) {
        table.extend(angles[..8].iter().copied().chain([1.0; 8]));
        table.extend(angles[8..].iter().copied().chain([0.0; 8]));
    }
    let x = case.input("x", BF16, [24, 32]).unwrap();
    let table = case.constants("table", F32, [40, 32], &table).unwrap();
    // Two heads of each token.
    let positions: Vec<i32> = (0..24).map(|r| r / 2 * 7 % 37 + 1).collect();
    let positions = case.indices("positions", &positions).unwrap();
    let y = case.output("y", BF16, [24, 32], rope(&x, &table, &positions, RopeStyle::GptJ)).unwrap();
    (vec![x, table, positions], y)
}

#[test]
fn a_part_of_a_head_that_is_rotated_otherwise() {
    type Pair = fn(usize) -> (usize, usize, usize);
    type Turn = fn(f64, f64, f64, f64) -> (f64, f64);
    let wrote = |pairs: usize, pair: Pair, turn: Turn, position: fn(usize) -> usize| {
        run(setup(0, Data::Ordinary), partly_rotated, move |of| {
            let mut out = of[0].clone();
            for r in 0..24 {
                let angles = of[1].row(of[2].data[position(r)] as usize);
                for i in 0..pairs {
                    let (a, b, angle) = pair(i);
                    let (x, y) = (of[0].row(r)[a], of[0].row(r)[b]);
                    let turned = turn(x, y, angles[angle], angles[16 + angle]);
                    (out.row_mut(r)[a], out.row_mut(r)[b]) = turned;
                }
            }
            out.data.into_iter().map(|x| x as f32).collect()
        })
    };
    let neighbours: Pair = |i| (2 * i, 2 * i + 1, i);
    let forwards: Turn = |x, y, cos, sin| (x * cos - y * sin, y * cos + x * sin);
    let own: fn(usize) -> usize = |r| r;
    let is_rope = |attempt: &Attempt, words: &str| is_called(attempt, &["rope"], words);
    is_rope(&wrote(8, |i| (i, i + 8, i), forwards, own), "pairs elements that are 8 apart");
    is_rope(&wrote(8, |i| (2 * i, 2 * i + 1, i / 2), forwards, own), "pair p / 2");
    is_rope(&wrote(16, |i| (2 * i, 2 * i + 1, i % 8), forwards, own), "by the same angles");
    is_rope(
        &wrote(8, neighbours, |x, y, cos, sin| (x * cos - y * sin, y * cos - x * sin), own),
        "the second of each pair with the wrong sign",
    );
    is_rope(
        &wrote(8, neighbours, |x, y, cos, sin| (x * sin - y * cos, y * sin + x * cos), own),
        "sines for cosines",
    );
    is_rope(&wrote(8, neighbours, forwards, |r| r / 2), "the one at i / 2");
    // The right kernel has no cause.
    let right = wrote(8, neighbours, forwards, own);
    assert!(judge_hops(&right, 0.999).iter().all(|hop| hop.checks.iter().all(|check| check.ok)));
}
