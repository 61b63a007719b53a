//! The words that chains are declared in: each is used as a test would, by right kernels in float32, which no check blames, and
//! by wrong ones.

use super::*;
use crate::case::input::Data;
use crate::case::{Attempt, Case, Tensor};
use crate::dtype::{BF16, F32, INT8, INT32, Overflow};
use crate::judge::failed;
use crate::judge::tests::{MIN_COS, run, setup};
use crate::reference::model::{
    GroupRouting, PagedAttention, RopeStyle, Scoring, cos_sin_table, group_topk_experts, group_topk_weights,
    paged_attention, paged_attention_with_sinks, partial_rope,
};
use crate::reference::{Matrix, Operand, concat_columns, concat_rows, user};

fn failures(attempt: &Attempt) -> Vec<String> {
    judge_hops(attempt, MIN_COS).iter().flat_map(|hop| failed(&hop.checks)).collect()
}

/// The first cause of a wrong kernel, and what it says.
fn first(attempt: &Attempt) -> (String, String) {
    let hops = judge_hops(attempt, MIN_COS);
    let evidence = Evidence {
        first: (attempt, &hops),
        second: None,
        probe: None,
        second_probe: None,
        one_sign: None,
        min_cos: MIN_COS,
    };
    let causes = diagnose(&evidence).causes;
    causes.first().map_or(Default::default(), |cause| (cause.cause.clone(), cause.told().into_owned()))
}

#[test]
fn a_column_goes_with_every_column() {
    const ROWS: usize = 24;
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [ROWS, 64]).unwrap();
        let weights: Vec<f64> = (0..ROWS).map(|r| 0.1 + (r * 7 % 11) as f64 / 8.0).collect();
        let weights = case.constants("weights", F32, [ROWS, 1], &weights).unwrap();
        let y = case.output("y", BF16, [ROWS, 64], &x * &weights).unwrap();
        (vec![x, weights], y)
    };
    let by = |from: fn(usize) -> usize| {
        run(setup(0, Data::Ordinary), declare, move |of| {
            let places = (0..ROWS).flat_map(|r| (0..64).map(move |c| (r, c)));
            places.map(|(r, c)| of[0].row(r)[c] as f32 * of[1].data[from(r)] as f32).collect()
        })
    };
    assert_eq!(failures(&by(|r| r)), [""; 0]);
    let (cause, told) = first(&by(|r| (r + 1) % ROWS));
    assert_eq!(cause, "permuted_tiles", "{told}");
    assert!(told.contains("the factor of the next row"), "{told}");
}

/// Queries of multi-head latent attention: of each head 32 columns without a position, 16 that are rotated.
fn latent(case: &mut Case) -> (Vec<Tensor>, Tensor) {
    let (tokens, heads) = (12, 2);
    let nope = case.input("nope", BF16, [tokens * heads, 32]).unwrap();
    let q = case.input("q", BF16, [tokens, heads * 48]).unwrap();
    let table = case.constants("cos_sin", F32, [64, 16], &cos_sin_table(64, 16, 1e4)).unwrap();
    let positions: Vec<i32> = (0..tokens as i32).map(|t| t * 5 + 1).collect();
    let positions = case.indices("positions", &positions).unwrap();
    let turned = partial_rope(&q, (48, 32..48), &table, &positions, RopeStyle::Neox);
    let turned = turned.reshape(tokens * heads, 48).columns(32..48);
    let y = case.output("y", BF16, [tokens * heads, 48], concat_columns(&[&nope, &turned])).unwrap();
    (vec![nope, q, table, positions], y)
}

/// What a kernel writes that rotates the 16 columns from `at` on.
fn turned(of: &[Matrix], at: usize) -> Vec<f32> {
    let [nope, q, table, positions] = of else { panic!("four inputs") };
    let mut out = Vec::new();
    for row in 0..24 {
        let (t, h) = (row / 2, row % 2);
        let angles = table.row(positions.data[t] as usize);
        let mut head: Vec<f32> = q.row(t)[h * 48..][..48].iter().map(|x| *x as f32).collect();
        let before = head.clone();
        for i in 0..8 {
            let (cosine, sine) = (angles[i] as f32, angles[8 + i] as f32);
            let (a, b) = (before[at + i], before[at + 8 + i]);
            head[at + i] = a * cosine - b * sine;
            head[at + 8 + i] = b * cosine + a * sine;
        }
        out.extend(nope.row(row).iter().map(|x| *x as f32));
        out.extend(&head[32..]);
    }
    out
}

#[test]
fn a_part_of_each_head_is_rotated_and_put_beside_the_rest() {
    let right = run(setup(0, Data::Ordinary), latent, |of| turned(of, 32));
    assert_eq!(failures(&right), [""; 0]);
    let (cause, told) = first(&run(setup(0, Data::Ordinary), latent, |of| turned(of, 0)));
    assert_eq!(cause, "rope", "{told}");
}

#[test]
fn parts_that_lie_below_each_other_are_told_when_they_are_exchanged() {
    let declare = |case: &mut Case| {
        let of = ["first", "second"].map(|name| case.input(name, BF16, [10, 40]).unwrap());
        let y = case.output("y", BF16, [20, 40], concat_rows(&[&of[0], &of[1]])).unwrap();
        (of.to_vec(), y)
    };
    let wrote = |order: [usize; 2]| {
        run(setup(0, Data::Ordinary), declare, move |of| {
            order.iter().flat_map(|i| of[*i].data.iter().map(|x| *x as f32)).collect()
        })
    };
    assert_eq!(failures(&wrote([0, 1])), [""; 0]);
    let (cause, told) = first(&wrote([1, 0]));
    assert_eq!(cause, "permuted_tiles", "{told}");
}

const SEQS: usize = 5;
const PAGE: usize = 4;
const PAGES: usize = 6;

/// Queries, one cache of keys of 24 columns whose first 16 are the values, tables, lengths and sinks.
fn paged(case: &mut Case, form: PagedAttention, sinks: bool) -> (Vec<Tensor>, Tensor) {
    let (d, width, rows) = (24, 16, SEQS * form.queries);
    let q = case.input("q", BF16, [rows, form.heads * d]).unwrap();
    let cache = case.input("cache", BF16, [SEQS * PAGES * PAGE, d]).unwrap();
    let tables: Vec<i32> = (0..(SEQS * PAGES) as i32).map(|i| i * 7 % 30).collect();
    let tables = case.indices("tables", &tables).unwrap();
    let lengths: Vec<i32> = (0..SEQS as i32).map(|s| 3 + s * 5).collect();
    let lengths = case.indices("lengths", &lengths).unwrap();
    let values: Vec<f64> = (0..form.heads).map(|h| 0.5 * h as f64 - 0.25).collect();
    let of_heads = case.constants("sinks", F32, [1, form.heads], &values).unwrap();
    let value = match sinks {
        true => paged_attention_with_sinks(&q, (&cache, &cache), &tables, &lengths, &of_heads, form),
        false => paged_attention(&q, (&cache, &cache), &tables, &lengths, form),
    };
    let y = case.output("y", BF16, [rows, form.heads * width], value).unwrap();
    (vec![q, cache, tables, lengths, of_heads], y)
}

/// The same by a kernel of its own: `window` positions, each score through `cap`.
fn attended(
    of: &[Matrix],
    form: PagedAttention,
    sinks: bool,
    window: usize,
    cap: fn(f32) -> f32,
) -> Vec<f32> {
    let [q, cache, tables, lengths, of_heads] = of else { panic!("five inputs") };
    let mut out = Vec::new();
    for row in 0..q.rows {
        let (s, i) = (row / form.queries, row % form.queries);
        let end = (lengths.data[s] as usize).saturating_sub(form.queries - 1 - i);
        let slot = |p: usize| tables.data[s * PAGES + p / PAGE] as usize * PAGE + p % PAGE;
        for h in 0..form.heads {
            let query = &q.row(row)[h * 24..][..24];
            let dot = |p: usize| {
                let terms = query.iter().zip(cache.row(slot(p))).map(|(a, b)| *a as f32 * *b as f32);
                cap(form.scale as f32 * terms.sum::<f32>())
            };
            let seen: Vec<usize> = (end.saturating_sub(window)..end).collect();
            let scores: Vec<f32> = seen.iter().map(|&p| dot(p)).collect();
            let of_sink = if sinks { of_heads.data[h] as f32 } else { f32::NEG_INFINITY };
            let most = scores.iter().copied().fold(of_sink, f32::max);
            let powers: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
            let sink = (of_sink - most).exp();
            let total: f32 = powers.iter().sum::<f32>() + sink;
            out.extend((0..16).map(|c| {
                let terms = seen.iter().zip(&powers).map(|(&p, e)| e * cache.row(slot(p))[c] as f32);
                terms.sum::<f32>() / total
            }));
        }
    }
    out
}

#[test]
fn attention_has_windows_sinks_caps_several_queries_and_narrow_values() {
    let form = PagedAttention::new(4, 1, PAGE, 0.5).queries(2).window(6).soft_cap(3.0).value_width(16);
    let wrote = |sinks: bool, window: usize, cap: fn(f32) -> f32| {
        let declare = move |case: &mut Case| paged(case, form, sinks);
        run(setup(0, Data::Ordinary), declare, move |of| attended(of, form, sinks, window, cap))
    };
    let capped = |x: f32| 3.0 * (x / 3.0).tanh();
    for sinks in [false, true] {
        assert_eq!(failures(&wrote(sinks, 6, capped)), [""; 0], "{sinks}");
    }
    let (cause, told) = first(&wrote(true, 6, |x| x));
    assert_eq!(cause, "activation", "{told}");
    assert!(told.contains("does not cap the scores at 3"), "{told}");
    let (cause, told) = first(&wrote(true, 7, capped));
    assert_eq!(cause, "k_tail_dropped", "{told}");
    assert!(told.contains("more than its window of 6"), "{told}");
}

#[test]
fn experts_are_chosen_by_sigmoids_with_a_bias_that_is_no_part_of_the_weights() {
    let form = GroupRouting {
        groups: 1,
        chosen: 1,
        topk: 3,
        scoring: Scoring::Sigmoid,
        best: 1,
        renormalize: true,
        factor: 1.0,
    };
    let declare = |weights: bool| {
        move |case: &mut Case| {
            let logits = case.input("logits", BF16, [20, 16]).unwrap();
            let bias: Vec<f64> = (0..16).map(|e| f64::from(e * 5 % 7) / 8.0).collect();
            let bias = case.constants("bias", F32, [1, 16], &bias).unwrap();
            let value = match weights {
                true => group_topk_weights(&logits, &bias, form),
                false => group_topk_experts(&logits, &bias, form),
            };
            let y = case.output("y", F32, [20, 3], value).unwrap();
            (vec![logits, bias], y)
        }
    };
    let route = |weights: bool, bias_counts: bool| {
        run(setup(0, Data::Ordinary), declare(weights), move |of| {
            let mut out = Vec::new();
            for t in 0..20 {
                let score = |e: usize| 1.0 / (1.0 + (-of[0].row(t)[e] as f32).exp());
                let by = |e: usize| score(e) + if bias_counts { of[1].data[e] as f32 } else { 0.0 };
                let mut order: Vec<usize> = (0..16).collect();
                order.sort_by(|&a, &b| by(b).total_cmp(&by(a)).then(a.cmp(&b)));
                let total: f32 = order[..3].iter().map(|&e| score(e)).sum();
                out.extend(order[..3].iter().map(|&e| if weights { score(e) / total } else { e as f32 }));
            }
            out
        })
    };
    for weights in [false, true] {
        assert_eq!(failures(&route(weights, true)), [""; 0], "{weights}");
        assert_eq!(first(&route(weights, false)).0, "router", "{weights}");
    }
}

/// The least and the largest of a row, zero among them.
fn ends(row: &[f64]) -> (f64, f64) {
    row.iter().fold((0.0, 0.0), |(low, high), x| (low.min(*x), high.max(*x)))
}

#[test]
fn activations_have_zero_points_in_a_buffer_beside_their_codes() {
    const M: usize = 10;
    let mut case = Case::new(setup(0, Data::Ordinary));
    let x = case.input("x", BF16, [M, 64]).unwrap();
    let w = case.input("w", BF16, [24, 64]).unwrap();
    let scales = user("scales", &[&x], (M, 1), |of| {
        let scale = |(low, high): (f64, f64)| ((high - low) / 255.0).max(1e-10);
        Matrix::new(M, 1, (0..M).map(|r| scale(ends(of[0].row(r)))).collect())
    });
    let scales = case.output("scales", F32, [M, 1], scales).unwrap();
    let zeros = user("zeros", &[&x, &scales], (M, 1), |of| {
        let zero = |r: usize| (-128.0 - ends(of[0].row(r)).0 / of[1].data[r]).round_ties_even();
        Matrix::new(M, 1, (0..M).map(zero).collect())
    });
    let zeros = case.output("zeros", INT32, [M, 1], zeros).unwrap();
    let codes = user("codes", &[&x, &scales, &zeros], (M, 64), |of| {
        let code = |r: usize, x: f64| (x / of[1].data[r]).round_ties_even() + of[2].data[r];
        let each = (0..M).flat_map(|r| of[0].row(r).iter().map(move |x| (r, *x)));
        Matrix::new(M, 64, each.map(|(r, x)| code(r, x).clamp(-128.0, 127.0)).collect())
    });
    let codes = case.output("codes", INT8, [M, 64], codes).unwrap();
    let y = case.output("y", BF16, [M, 24], ((&codes - &zeros) * &scales).matmul(&w)).unwrap();
    let mut attempt = case.finish(&y).unwrap();
    let (given, w) = (attempt.buffer(x.id()).value(), attempt.buffer(w.id()).value());
    let mut wrote = |zero_counts: bool| {
        let (mut of_scales, mut of_zeros, mut of_codes, mut of_y) = (vec![], vec![], vec![], vec![]);
        for r in 0..M {
            let row: Vec<f32> = given.row(r).iter().map(|x| *x as f32).collect();
            let (low, high) =
                row.iter().fold((0.0_f32, 0.0_f32), |(low, high), x| (low.min(*x), high.max(*x)));
            let scale = ((high - low) / 255.0).max(1e-10);
            let zero = (-128.0 - low / scale).round_ties_even();
            let code = |x: &f32| ((x / scale).round_ties_even() + zero).clamp(-128.0, 127.0);
            let own: Vec<f32> = row.iter().map(code).collect();
            let less = if zero_counts { zero } else { 0.0 };
            of_y.extend(
                (0..24).map(|c| {
                    own.iter().zip(w.row(c)).map(|(q, w)| (q - less) * scale * *w as f32).sum::<f32>()
                }),
            );
            of_scales.push(scale);
            of_zeros.push(zero);
            of_codes.extend(own);
        }
        for (tensor, values) in [(&scales, of_scales), (&zeros, of_zeros), (&codes, of_codes), (&y, of_y)] {
            let out = &mut attempt.buffers[tensor.id().0];
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            out.data = out.dtype.encode_bytes(&values, Overflow::Saturate).into();
        }
        judge_hops(&attempt, MIN_COS)
            .iter()
            .filter(|hop| !failed(&hop.checks).is_empty())
            .map(|hop| hop.hop.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(wrote(true), [""; 0]);
    assert_eq!(wrote(false), ["y"]);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut case = Case::new(setup(0, Data::Ordinary));
    let x = case.input("x", BF16, [6, 8]).unwrap();
    let short = case.input("short", BF16, [5, 1]).unwrap();
    for (expr, words) in [
        (x.reshape(5, 8), "[6, 8] reshaped to [5, 8]: it has 48 elements, and that 40"),
        (concat_columns(&[&x, &short]), "[(6, 8), (5, 1)] beside each other"),
        (concat_rows(&[&x, &short]), "[(6, 8), (5, 1)] below each other"),
        (&x * &short, "or the second be one row or one column"),
        (x.row_range(4..7), "rows 4..7 of [6, 8]"),
    ] {
        assert!(expr.problem().is_some_and(|why| why.contains(words)), "{words}: {:?}", expr.problem());
    }
}
