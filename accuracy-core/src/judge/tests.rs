//! Elements that are no rounding of their value, at hops of every kind: kernels in float32 by code of the tests' own, right
//! ones in several orders and wrong ones that round once more than declared.

use super::*;
use crate::arch::Arch;
use crate::case::input::{Data, Probe};
use crate::case::watch::Watch;
use crate::case::{Case, PreparedWeights, Setup, Tensor};
use crate::device::host::Placement;
use crate::device::memory::Runtime;
use crate::dtype::{BF16, E2M1, E4M3FN, E8M0, F32, INT32, Overflow};
use crate::power::power;
use crate::quant::ScaleRounding;
use crate::record::PowerStatus;
use crate::reference::model::{topk_experts, topk_weights};
use crate::reference::{Operand, gelu, rms_norm, silu, user};
use std::collections::BTreeMap;

pub(crate) const MIN_COS: f64 = 0.999;
pub(crate) const M: usize = 37;
pub(crate) const K: usize = 320;
pub(crate) const N: usize = 176;

pub(crate) fn setup(seed: u64, data: Data) -> Setup {
    Setup {
        arch: Arch::Host,
        tokens: M,
        weights: BTreeMap::new(),
        checkpoint: None,
        prepared: PreparedWeights::default(),
        activations: None,
        seed,
        data,
        drawn: None,
        poison: Poison::of_byte(0xa5),
        placement: Placement::Banded,
        watch: Watch::Nothing,
        runtime: Runtime::Host,
    }
}

/// A chain of one hop: its declaration, and what it holds once a kernel of the test has run.
pub(crate) fn run(
    setup: Setup,
    declare: impl Fn(&mut Case) -> (Vec<Tensor>, Tensor),
    kernel: impl Fn(&[Matrix]) -> Vec<f32>,
) -> Attempt {
    let mut case = Case::new(setup);
    let (inputs, y) = declare(&mut case);
    let mut attempt = case.finish(&y).unwrap();
    let given: Vec<Matrix> = inputs.iter().map(|t| attempt.buffer(t.id()).value()).collect();
    let out = &mut attempt.buffers[y.id().0];
    let values: Vec<f64> = kernel(&given).into_iter().map(f64::from).collect();
    out.data = out.dtype.encode_bytes(&values, Overflow::Special).into();
    attempt
}

fn failed_checks(attempt: &Attempt) -> Vec<String> {
    judge_hops(attempt, MIN_COS).iter().flat_map(|hop| failed(&hop.checks)).collect()
}

pub(crate) fn bf16(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

/// Sums in float32: in order, backwards, or in two halves.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Forward,
    Backward,
    Halves,
}

pub(crate) const ORDERS: [Order; 3] = [Order::Forward, Order::Backward, Order::Halves];

pub(crate) fn dot(a: &[f64], b: &[f64], order: Order) -> f32 {
    let terms: Vec<f32> = a.iter().zip(b).map(|(a, b)| *a as f32 * *b as f32).collect();
    let sum = |of: &[f32]| of.iter().fold(0.0, |sum, x| sum + x);
    match order {
        Order::Forward => sum(&terms),
        Order::Backward => terms.iter().rev().fold(0.0, |sum, x| sum + x),
        Order::Halves => sum(&terms[..K / 2]) + sum(&terms[K / 2..]),
    }
}

pub(crate) fn products(
    a: &Matrix,
    b: &Matrix,
    order: Order,
    f: impl Fn(usize, usize, f32) -> f32,
) -> Vec<f32> {
    let places = (0..a.rows).flat_map(|r| (0..b.rows).map(move |c| (r, c)));
    places.map(|(r, c)| f(r, c, dot(a.row(r), b.row(c), order))).collect()
}

/// What a kernel makes of the inputs.
type Kernel<'a> = dyn Fn(&[Matrix]) -> Vec<f32> + 'a;

/// Right kernels pass with every seed, and each wrong one fails by the elements alone or with other checks.
fn elements_tell(
    declare: impl Fn(&mut Case) -> (Vec<Tensor>, Tensor) + Copy,
    right: &[&Kernel<'_>],
    wrong: &[&Kernel<'_>],
) {
    for seed in 0..8 {
        for (i, kernel) in right.iter().enumerate() {
            let attempt = run(setup(seed, Data::Ordinary), declare, kernel);
            assert_eq!(failed_checks(&attempt), [""; 0], "right kernel {i}, seed {seed}");
        }
        for (i, kernel) in wrong.iter().enumerate() {
            let failed = failed_checks(&run(setup(seed, Data::Ordinary), declare, kernel));
            assert!(failed.contains(&"elements".to_owned()), "wrong kernel {i}, seed {seed}: {failed:?}");
        }
    }
}

pub(crate) fn linear(case: &mut Case) -> [Tensor; 3] {
    let x = case.input("x", BF16, [M, K]).unwrap();
    let w = case.input("w", BF16, [N, K]).unwrap();
    let bias = case.input("bias", BF16, [1, N]).unwrap();
    [x, w, bias]
}

#[test]
fn after_a_bias() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], x.matmul(&w) + &bias).unwrap();
        (vec![x, w, bias], y)
    };
    let kernel = |order: Order, round: fn(f32) -> f32| {
        move |of: &[Matrix]| products(&of[0], &of[1], order, |_, c, x| round(x) + of[2].data[c] as f32)
    };
    let right = ORDERS.map(|order| kernel(order, |x| x));
    let right: Vec<&Kernel<'_>> = right.iter().map(|k| k as &Kernel<'_>).collect();
    elements_tell(declare, &right, &[&kernel(Order::Forward, bf16)]);
}

#[test]
fn after_an_activation() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], gelu(&(x.matmul(&w).scale(0.01) + &bias))).unwrap();
        (vec![x, w, bias], y)
    };
    // The error function's own series, in float64: no code of the oracle's.
    let erf = |x: f64| {
        let terms = (0..60).scan(x, |term, n| {
            let here = *term / (2.0 * f64::from(n) + 1.0);
            *term *= -x * x / f64::from(n + 1);
            Some(here)
        });
        if x.abs() > 4.0 { x.signum() } else { terms.sum::<f64>() * 2.0 / std::f64::consts::PI.sqrt() }
    };
    let gelu = move |x: f32| 0.5 * x * (1.0 + erf(f64::from(x) / std::f64::consts::SQRT_2) as f32);
    let tanh = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
    let of = |order: Order, f: &dyn Fn(f32) -> f32, of: &[Matrix]| {
        products(&of[0], &of[1], order, |_, c, x| f(x * 0.01 + of[2].data[c] as f32))
    };
    elements_tell(
        declare,
        &[&|given| of(Order::Forward, &gelu, given), &|given| of(Order::Halves, &gelu, given)],
        &[&|given| of(Order::Forward, &tanh, given), &|given| of(Order::Forward, &|x| gelu(bf16(x)), given)],
    );
}

#[test]
fn after_a_factor_for_each_row_of_the_test_s_own() {
    let declare = |case: &mut Case| {
        let [x, w, _] = linear(case);
        let weights = case.input("weights", F32, [M, 1]).unwrap();
        let weighted = user("row_weight", &[&x.matmul(&w), &weights], (M, N), |of| {
            let mut out = of[0].clone();
            (0..M).for_each(|r| out.row_mut(r).iter_mut().for_each(|x| *x *= of[1].data[r]));
            out
        });
        let y = case.output("y", BF16, [M, N], weighted).unwrap();
        (vec![x, w, weights], y)
    };
    let kernel = |order: Order, round: fn(f32) -> f32| {
        move |of: &[Matrix]| products(&of[0], &of[1], order, |r, _, x| round(x) * of[2].data[r] as f32)
    };
    elements_tell(
        declare,
        &[&kernel(Order::Forward, |x| x), &kernel(Order::Backward, |x| x)],
        &[&kernel(Order::Forward, bf16)],
    );
}

#[test]
fn of_a_sum_of_partials_or_of_gathered_rows() {
    let parts =
        |case: &mut Case, dtype| ["p0", "p1", "p2"].map(|name| case.input(name, dtype, [M, N]).unwrap());
    let sum = |round: fn(f32) -> f32, of: &[Matrix]| -> Vec<f32> {
        let term = |p: usize, i: usize| of[p].data[i] as f32;
        (0..M * N).map(|i| round(round(term(0, i)) + round(term(1, i))) + term(2, i)).collect()
    };
    let reversed = |of: &[Matrix]| -> Vec<f32> {
        (0..M * N).map(|i| of[2].data[i] as f32 + of[1].data[i] as f32 + of[0].data[i] as f32).collect()
    };
    let declare = |case: &mut Case| {
        let of = parts(case, F32);
        let y = case.output("y", BF16, [M, N], &(&of[0] + &of[1]) + &of[2]).unwrap();
        (of.to_vec(), y)
    };
    elements_tell(declare, &[&|of| sum(|x| x, of), &reversed], &[&|of| sum(bf16, of)]);

    let index: Vec<i32> = (0..M as i32).map(|r| (r * 7 + 3) % M as i32).collect();
    let index = &index;
    let declare = |case: &mut Case| {
        let down = case.input("down", BF16, [M, N]).unwrap();
        let ids = case.indices("ids", index).unwrap();
        let twice = case.output("y", BF16, [M, N], &(&down + &down.gather(&ids)) + &down).unwrap();
        (vec![down], twice)
    };
    let gathered = |round: fn(f32) -> f32, of: &[Matrix]| -> Vec<f32> {
        let term = |r: usize, c: usize| of[0].row(r)[c] as f32;
        let places = (0..M).flat_map(|r| (0..N).map(move |c| (r, c)));
        places.map(|(r, c)| round(term(r, c) + term(index[r] as usize, c)) + term(r, c)).collect()
    };
    elements_tell(declare, &[&|of| gathered(|x| x, of)], &[&|of| gathered(bf16, of)]);
}

#[test]
fn of_an_update_in_place_and_of_rows_that_are_cut_off() {
    let declare = |case: &mut Case| {
        let [x, w, _] = linear(case);
        let hidden = case.inout("hidden", BF16, [M, N]).unwrap();
        let y = case.update(&hidden, &hidden + &x.matmul(&w).scale(0.5)).unwrap();
        (vec![x, w, hidden], y)
    };
    let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    let kernel = |round: fn(f32) -> f32, last: &dyn Fn(usize, f32) -> f32, of: &[Matrix]| {
        products(&of[0], &of[1], Order::Forward, |r, c, x| last(r, round(x * 0.5) + of[2].row(r)[c] as f32))
    };
    elements_tell(
        declare,
        &[&|of| kernel(|x| x, &|_, x| x, of)],
        &[&|of| kernel(bf16, &|_, x| x, of), &|of| {
            kernel(|x| x, &|r, x| if r >= 32 { cut(x) } else { x }, of)
        }],
    );
}

#[test]
fn norms_and_gates_in_float32_are_roundings_of_their_values() {
    let norm = |case: &mut Case| {
        let x = case.input("x", BF16, [M, K]).unwrap();
        let gain = case.input("gain", BF16, [1, K]).unwrap();
        let y = case.output("y", BF16, [M, K], rms_norm(&x, &gain, 1e-6)).unwrap();
        (vec![x, gain], y)
    };
    let normed = |round: fn(f32) -> f32, of: &[Matrix]| -> Vec<f32> {
        let row = |r: usize| {
            let sum = of[0].row(r).iter().fold(0.0f32, |sum, x| sum + *x as f32 * *x as f32);
            let root = 1.0 / (sum / K as f32 + 1e-6).sqrt();
            let value = move |c: usize| round(of[0].row(r)[c] as f32 * root) * of[1].data[c] as f32;
            (0..K).map(value)
        };
        (0..M).flat_map(row).collect()
    };
    elements_tell(norm, &[&|of| normed(|x| x, of)], &[&|of| normed(bf16, of)]);
    let gate = |case: &mut Case| {
        let [a, b] = ["gate", "up"].map(|name| case.input(name, BF16, [M, N]).unwrap());
        let y = case.output("y", BF16, [M, N], silu(&a) * &b).unwrap();
        (vec![a, b], y)
    };
    let gated = |f: fn(f32) -> f32, of: &[Matrix]| -> Vec<f32> {
        (0..M * N).map(|i| f(of[0].data[i] as f32) * of[1].data[i] as f32).collect()
    };
    elements_tell(
        gate,
        &[&|of| gated(|x| x / (1.0 + (-x).exp()), of), &|of| {
            gated(|x| 0.5 * x * (1.0 + (0.5 * x).tanh()), of)
        }],
        &[&|of| gated(|x| bf16(x / (1.0 + (-x).exp())), of)],
    );
}

/// Ties of a four-bit format are many; away from zero they are as near as to even.
#[test]
fn ties_of_a_quantiser_cost_no_cosine_anything() {
    let scheme = Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even);
    for seed in 0..8 {
        let mut case = Case::new(setup(seed, Data::Ordinary));
        let x = case.input("x", BF16, [M, 352]).unwrap();
        let q = case.quantized("q", &x, scheme).unwrap();
        let mut attempt = case.finish(&q).unwrap();
        let value = attempt.buffer(x.id()).value();
        let mut codes = quantize(&value, &scheme, 1.0);
        for i in 0..value.data.len() {
            let scaled = value.data[i] / codes.scale_at(i / 352, i % 352);
            let up = scaled + scaled * 1e-9;
            codes.codes[i] = scheme.code_of(up);
        }
        let out = &mut attempt.buffers[q.id().0];
        out.data = E2M1.pack(codes.codes.iter().copied()).into();
        out.scales = codes.scales.iter().map(|s| E8M0.encode(*s, Overflow::Saturate) as u8).collect();
        assert_eq!(failed_checks(&attempt), [""; 0], "seed {seed}");
        // A code further is wrong.
        let out = &mut attempt.buffers[q.id().0];
        let mut wrong: Vec<u32> = E2M1.codes(&out.data).collect();
        wrong[5] ^= 2;
        out.data = E2M1.pack(wrong).into();
        assert_eq!(failed_checks(&attempt).last().map(String::as_str), Some("codes"), "seed {seed}");
    }
}

/// Whatever a function rounds within it, one head or a tenth of the rows is held to that by itself.
#[test]
fn what_is_wrong_in_one_part_is_not_diluted_by_the_rest() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [64, 256]).unwrap();
        let same = |of: &[&Matrix]| of[0].clone();
        let Op::User { name, inputs, function, faults, suspects, .. } =
            &user("attend", &[&x], (64, 256), same).0.op.clone()
        else {
            unreachable!()
        };
        let rounded = Op::User {
            name: name.clone(),
            inputs: inputs.clone(),
            function: function.clone(),
            rounds: vec![Rounding::Loosely(E4M3FN)],
            faults: faults.clone(),
            suspects: suspects.clone(),
        };
        let y = case.output("y", BF16, [64, 256], Expr::of_op(rounded, (64, 256))).unwrap();
        (vec![x], y)
    };
    let mut in_a_part = 0;
    for seed in 0..8 {
        let written = |wrong: &dyn Fn(usize, usize) -> f64| {
            run(setup(seed, Data::Ordinary), declare, |of| {
                // What the function rounds within is off by up to half a unit, one way or the other.
                let noise = |i: usize| 1.0 + 0.03 * ((i * 7919 % 101) as f64 / 50.0 - 1.0);
                let places = (0..64).flat_map(|r| (0..256).map(move |c| (r, c)));
                places.map(|(r, c)| (of[0].row(r)[c] * noise(r * 256 + c) * wrong(r, c)) as f32).collect()
            })
        };
        assert_eq!(failed_checks(&written(&|_, _| 1.0)), [""; 0], "seed {seed}");
        for rows in [41..42, 5..7, 10..14] {
            let attempt = written(&|r, _| if rows.contains(&r) { 1.25 } else { 1.0 });
            let mut checks = judge_hops(&attempt, MIN_COS).remove(0).checks;
            checks.retain(|check| !check.ok);
            assert!(!checks.is_empty(), "seed {seed}: rows {rows:?} are a quarter too large");
            in_a_part += usize::from(checks.iter().any(|check| check.detail.starts_with("in row")));
        }
    }
    assert!(in_a_part > 6, "the whole shows it but {in_a_part} times");
}

/// A kernel may decide its ties otherwise, and a fault that makes no more difference than that would not be seen.
#[test]
fn a_seeded_fault_is_held_against_the_bounds_that_the_kernel_has() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [M, K]).unwrap();
        let times = |factor: f64| move |of: &[&Matrix]| of[0].map(|x| x * factor);
        let halved = user("halve", &[&x], (M, K), times(0.5));
        let halved = halved.fault("within_ties", times(0.51)).fault("beyond_ties", times(0.54));
        let Op::User { name, inputs, function, faults, suspects, .. } = &halved.0.op else { unreachable!() };
        let with_ties = Op::User {
            name: name.clone(),
            inputs: inputs.clone(),
            function: function.clone(),
            rounds: vec![Rounding::Ties(Arc::new(times(0.51)))],
            faults: faults.clone(),
            suspects: suspects.clone(),
        };
        let y = case.output("y", F32, [M, K], Expr::of_op(with_ties, (M, K))).unwrap();
        (vec![x], y)
    };
    let on_the_other_side =
        run(setup(0, Data::Ordinary), declare, |of| of[0].data.iter().map(|x| (x * 0.51) as f32).collect());
    assert_eq!(failed_checks(&on_the_other_side), [""; 0]);
    let attempt =
        run(setup(0, Data::Ordinary), declare, |of| of[0].data.iter().map(|x| (x * 0.5) as f32).collect());
    let hops = judge_hops(&attempt, MIN_COS);
    let status = |fault: &str| {
        let found = power(&attempt, &hops, None, MIN_COS);
        found.into_iter().find(|power| power.fault == fault).map(|power| power.status)
    };
    assert_eq!(status("within_ties"), Some(PowerStatus::Unseen));
    assert_eq!(status("beyond_ties"), Some(PowerStatus::Seen));
}

fn unseen(attempt: &Attempt, probe: Option<&Attempt>) -> Vec<String> {
    let hops = judge_hops(attempt, MIN_COS);
    let on_probe = probe.map(|probe| judge_hops(probe, MIN_COS));
    let found = power(attempt, &hops, probe.zip(on_probe.as_deref()), MIN_COS);
    assert!(found.iter().any(|p| p.status == PowerStatus::Seen), "{found:?}");
    let unseen = found.into_iter().filter(|p| p.status == PowerStatus::Unseen);
    unseen.map(|p| format!("{} of {}: {}", p.fault, p.operand, p.detail)).collect()
}

#[test]
fn an_accumulator_is_judged_where_the_product_is_and_not_where_a_residual_drowns_it() {
    let declare = |case: &mut Case| {
        let hidden = case.inout("hidden", BF16, [M, N]).unwrap();
        let x = case.input("x", BF16, [M, K]).unwrap();
        let w = case.input("w", BF16, [N, K]).unwrap();
        let y = case.update(&hidden, &hidden + &x.matmul(&w).scale(1e-3)).unwrap();
        (vec![x, w, hidden], y)
    };
    let right =
        |of: &[Matrix]| products(&of[0], &of[1], Order::Forward, |r, c, x| x * 1e-3 + of[2].row(r)[c] as f32);
    let attempt = run(setup(0, Data::Ordinary), declare, right);
    let probe = run(setup(0, Data::Probe(Probe::First)), declare, right);
    assert_eq!(unseen(&attempt, Some(&probe)), [""; 0]);
}

#[test]
fn a_fault_that_changes_nothing_in_a_shape_is_not_applicable() {
    // Of one token and one head nothing has another order; what is left is an index that is off by one.
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [1, N]).unwrap();
        let bias = case.input("bias", BF16, [1, N]).unwrap();
        let y = user("scaled", &[&x, &bias], (1, N), |of| {
            Matrix::new(1, N, of[0].data.iter().zip(&of[1].data).map(|(x, b)| x * b).collect())
        });
        let y = case.output("y", BF16, [1, N], y).unwrap();
        (vec![x, bias], y)
    };
    let right =
        |of: &[Matrix]| -> Vec<f32> { (0..N).map(|i| of[0].data[i] as f32 * of[1].data[i] as f32).collect() };
    assert_eq!(unseen(&run(setup(0, Data::Ordinary), declare, right), None), [""; 0]);
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [M, N]).unwrap();
        let weights = case.input("weights", F32, [M, 1]).unwrap();
        let heads = case.input_quantized("heads", Quant::block(crate::dtype::E4M3FN, M, 16), [M, N]).unwrap();
        let y = user("weighted", &[&x, &weights, &heads], (M, N), |of| {
            let mut out = of[0].clone();
            for r in 0..M {
                let row = out.row_mut(r).iter_mut().zip(of[2].row(r));
                row.for_each(|(x, h)| *x = *x * of[1].data[r] + h);
            }
            out
        });
        let y = case.output("y", BF16, [M, N], y).unwrap();
        (vec![x, weights, heads], y)
    };
    let right = |of: &[Matrix]| -> Vec<f32> {
        let places = (0..M).flat_map(|r| (0..N).map(move |c| (r, c)));
        let value =
            |(r, c): (usize, usize)| of[0].row(r)[c] as f32 * of[1].data[r] as f32 + of[2].row(r)[c] as f32;
        places.map(value).collect()
    };
    assert_eq!(unseen(&run(setup(0, Data::Ordinary), declare, right), None), [""; 0]);
}

#[test]
fn a_fault_that_is_too_small_to_see_says_how_much_larger_it_has_to_be() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [4, N]).unwrap();
        let bias = case.constants("bias", F32, [1, N], &[1e-9; N]).unwrap();
        let y = case.output("y", BF16, [4, N], &x.scale(100.0) + &bias).unwrap();
        (vec![x, bias], y)
    };
    let right = |of: &[Matrix]| -> Vec<f32> { of[0].data.iter().map(|x| *x as f32 * 100.0).collect() };
    let unseen = unseen(&run(setup(0, Data::Ordinary), declare, right), None);
    assert!(
        unseen.iter().any(|u| u.starts_with("addend_missing") && u.contains("times larger")),
        "{unseen:?}"
    );
}

#[test]
fn routing_of_a_router_s_logits_is_conclusive_however_many_experts_there_are() {
    for (tokens, experts) in [(1, 128), (1, 8), (9, 16), (33, 128)] {
        for seed in 0..4 {
            let mut case = Case::new(setup(seed, Data::Ordinary));
            let logits = case.input("logits", BF16, [tokens, experts]).unwrap();
            let w =
                case.output("weights", F32, [tokens, 4], topk_weights(&logits, 4, seed % 2 == 0)).unwrap();
            let ids = case.output("ids", INT32, [tokens, 4], topk_experts(&logits, 4)).unwrap();
            let mut attempt = case.finish(&w).unwrap();
            let given = attempt.buffer(logits.id()).value();
            let (mut weights, mut chosen) = (Vec::new(), Vec::new());
            for t in 0..tokens {
                // The first of equals, 0 and -0 among them, as a kernel that compares with `>` has it.
                let mut left: Vec<f32> = given.row(t).iter().map(|x| *x as f32).collect();
                let most = left.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let all: f32 = left.iter().map(|x| (x - most).exp()).sum();
                let first = chosen.len();
                for _ in 0..4 {
                    let best = (1..experts).fold(0, |best, e| if left[e] > left[best] { e } else { best });
                    chosen.push(best as f64);
                    weights.push(f64::from((left[best] - most).exp() / all));
                    left[best] = f32::NEG_INFINITY;
                }
                if seed % 2 == 0 {
                    let total: f64 = weights[first..].iter().sum();
                    weights[first..].iter_mut().for_each(|w| *w /= total);
                }
            }
            attempt.buffers[w.id().0].data = F32.encode_bytes(&weights, Overflow::Special).into();
            attempt.buffers[ids.id().0].data = INT32.encode_bytes(&chosen, Overflow::Special).into();
            assert_eq!(failed_checks(&attempt), [""; 0], "{tokens} tokens, {experts} experts, seed {seed}");
            assert_eq!(unseen(&attempt, None), [""; 0], "{tokens} tokens, {experts} experts, seed {seed}");
        }
    }
}

#[test]
fn what_passes_through_a_narrower_format_is_seen_at_the_ends_of_the_range() {
    let declare = |case: &mut Case| {
        let [a, b] = ["a", "b"].map(|name| case.input(name, BF16, [17, 48]).unwrap());
        let y = case.output("y", BF16, [17, 48], &a + &b).unwrap();
        (vec![a, b], y)
    };
    let sum = |through: fn(f32) -> f32, of: &[Matrix]| -> Vec<f32> {
        (0..17 * 48).map(|i| through(of[0].data[i] as f32) + through(of[1].data[i] as f32)).collect()
    };
    let half = |x: f32| half::f16::from_f32(x).to_f32();
    let clamped = |x: f32| half::f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32();
    for seed in 0..8 {
        let at = |through: fn(f32) -> f32| {
            let attempt = run(setup(seed, Data::Extremes), declare, |of| sum(through, of));
            let hops = within_range(&attempt, judge_hops(&attempt, MIN_COS));
            assert_eq!(hops.len(), 1);
            failed(&hops[0].checks)
        };
        assert_eq!(at(|x| x), [""; 0]);
        assert!(at(half).contains(&"inf".to_owned()));
        assert!(at(clamped).contains(&"elements".to_owned()));
    }
}

/// A quantiser's input with one NaN, and the kernel's codes and scales: `spreads` says whether the NaN makes its whole group NaN.
fn quantised_nan(change: impl Fn(&mut Vec<f64>, &mut Vec<f64>)) -> Vec<String> {
    let scheme = Quant::group(E4M3FN, 32);
    let mut case = Case::new(setup(0, Data::Ordinary));
    let mut values: Vec<f64> = (0..128).map(|i| f64::from(i * 37 % 29) - 14.0).collect();
    values[40] = f64::NAN;
    let x = case.constants("x", BF16, [2, 64], &values).unwrap();
    let q = case.quantized("q", &x, scheme).unwrap();
    let mut attempt = case.finish(&q).unwrap();
    let mut scales: Vec<f64> = values
        .chunks(32)
        .map(|cell| cell.iter().filter(|x| !x.is_nan()).fold(0.0_f64, |most, x| most.max(x.abs())))
        .map(|amax| f64::from((amax / 448.0) as f32))
        .collect();
    let mut codes: Vec<f64> = (0..128).map(|i| values[i] / scales[i / 32]).collect();
    change(&mut codes, &mut scales);
    let out = &mut attempt.buffers[q.id().0];
    out.data = E4M3FN.encode_bytes(&codes, Overflow::Saturate).into();
    out.scales = F32.encode_bytes(&scales, Overflow::Special);
    judge_hops(&attempt, MIN_COS).iter().flat_map(|hop| failed(&hop.checks)).collect()
}

#[test]
fn a_nan_makes_its_group_nan_or_itself_alone() {
    // `fmaxf` passes over it.
    assert_eq!(quantised_nan(|_, _| {}), [""; 0]);
    // Torch's `amax` does not.
    assert_eq!(quantised_nan(|_, scales| scales[1] = f64::NAN), [""; 0]);
    // A NaN that is lost, and a scale or a number beside it that is wrong.
    assert!(quantised_nan(|codes, _| codes[40] = 0.0).contains(&"nan".to_owned()));
    assert!(quantised_nan(|_, scales| scales[1] *= 2.0).contains(&"scales".to_owned()));
    assert!(quantised_nan(|codes, _| codes[41] += 64.0).contains(&"codes".to_owned()));
}
