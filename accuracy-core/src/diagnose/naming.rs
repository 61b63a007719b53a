//! What faults of the field are called: kernels in float32 by code of the tests' own, each with one thing wrong.

use super::tests::says;
use super::*;
use crate::case::input::Data;
use crate::case::{Attempt, Case, Tensor};
use crate::dtype::{BF16, E2M1, E4M3FN, F32, INT8, Overflow};
use crate::judge::tests::{K, M, MIN_COS, N, Order, bf16, linear, products, run, setup};
use crate::quant::{Quant, ScaleRounding, quantize};
use crate::reference::{Matrix, Operand, gelu, layer_norm, select, user};

fn causes(attempt: &Attempt) -> Vec<Cause> {
    let hops = judge_hops(attempt, MIN_COS);
    assert!(hops.iter().any(|h| h.checks.iter().any(|c| !c.ok)), "the fault is seen");
    causes_of(attempt, &hops)
}

/// The causes that one run on ordinary data shows in these hops.
pub(super) fn causes_of(attempt: &Attempt, hops: &[JudgedHop]) -> Vec<Cause> {
    let evidence = Evidence {
        first: (attempt, hops),
        second: None,
        probe: None,
        second_probe: None,
        one_sign: None,
        min_cos: MIN_COS,
    };
    diagnose(&evidence).causes
}

/// The first cause is one of `names` and says so.
pub(super) fn is_called(attempt: &Attempt, names: &[&str], words: &str) {
    let causes = causes(attempt);
    let first = causes.first().unwrap_or_else(|| panic!("no cause"));
    assert!(names.contains(&first.cause.as_str()) && says(first, words), "{causes:#?}");
}

#[test]
fn a_product_that_is_rounded_before_its_bias() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], x.matmul(&w) + &bias).unwrap();
        (vec![x, w, bias], y)
    };
    let rounded = run(setup(0, Data::Ordinary), declare, |of| {
        products(&of[0], &of[1], Order::Forward, |_, c, x| bf16(x) + of[2].data[c] as f32)
    });
    is_called(&rounded, &["rounding"], "rounds the product to bf16");
    // A bias that is indexed by the row.
    let by_row = run(setup(0, Data::Ordinary), declare, |of| {
        products(&of[0], &of[1], Order::Forward, |r, _, x| x + of[2].data[r] as f32)
    });
    is_called(&by_row, &["permuted_tiles"], "by the number of the row");
}

#[test]
fn a_hyperbolic_tangent_for_the_error_function() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], gelu(&(x.matmul(&w).scale(0.01) + &bias))).unwrap();
        (vec![x, w, bias], y)
    };
    let tanh = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        products(&of[0], &of[1], Order::Forward, |_, c, x| tanh(x * 0.01 + of[2].data[c] as f32))
    });
    is_called(&attempt, &["activation"], "tanh approximation");
}

#[test]
fn rows_that_are_cut_off_instead_of_rounded() {
    let declare = |case: &mut Case| {
        let [x, w, _] = linear(case);
        let y = case.output("y", BF16, [M, N], x.matmul(&w).scale(0.5)).unwrap();
        (vec![x, w], y)
    };
    let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        products(&of[0], &of[1], Order::Forward, |r, _, x| if r >= 32 { cut(0.5 * x) } else { 0.5 * x })
    });
    is_called(&attempt, &["rounding"], "truncated");
}

#[test]
fn a_sum_of_several_that_is_kept_in_few_bits() {
    let declare = |case: &mut Case| {
        let of = ["p0", "p1", "p2"].map(|name| case.input(name, F32, [M, N]).unwrap());
        let y = case.output("y", F32, [M, N], &(&of[0] + &of[1]) + &of[2]).unwrap();
        (of.to_vec(), y)
    };
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        let term = |p: usize, i: usize| of[p].data[i] as f32;
        (0..M * N).map(|i| bf16(term(0, i) + term(1, i)) + term(2, i)).collect()
    });
    is_called(&attempt, &["accumulation", "rounding"], "bf16");
}

/// Rows of the tokens' slots, each times a routing weight.
fn weighted(case: &mut Case) -> (Vec<Tensor>, Tensor) {
    let x = case.input("x", BF16, [36, N]).unwrap();
    let values: Vec<f64> = (0..36).map(|i| f64::from(((i * 17 + 5) % 37) as f32 / 37.0 + 0.05)).collect();
    let weights = case.constants("weights", F32, [12, 3], &values).unwrap();
    let ids: Vec<i32> = (0..36).map(|i| (i * 7 + i / 5) % 4).collect();
    let ids = case.indices("ids", &ids).unwrap();
    let value = user("row_weight", &[&x, &weights, &ids], (36, N), |of| {
        let mut out = of[0].clone();
        (0..36).for_each(|r| out.row_mut(r).iter_mut().for_each(|x| *x *= of[1].data[r]));
        out
    });
    let y = case.output("y", BF16, [36, N], value).unwrap();
    (vec![x, weights, ids], y)
}

#[test]
fn routing_weights_of_other_places_are_no_factors_of_their_own() {
    let of = |from: &dyn Fn(usize) -> usize| {
        run(setup(0, Data::Ordinary), weighted, |of| {
            let places = (0..36).flat_map(|r| (0..N).map(move |c| (r, c)));
            places.map(|(r, c)| of[0].row(r)[c] as f32 * of[1].data[from(r)] as f32).collect()
        })
    };
    is_called(&of(&|r| r / 3 * 3), &["router"], "the first of its 3 slots");
    let ids: Vec<usize> = (0..36).map(|i| (i * 7 + i / 5) % 4).collect();
    let mut order: Vec<usize> = (0..36).collect();
    order.sort_by_key(|&i| (ids[i], i));
    let place = |r: usize| order.iter().position(|&i| i == r).unwrap();
    is_called(&of(&place), &["router"], "`ids`");
}

#[test]
fn rows_beyond_a_length_are_told_by_it() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [20, N]).unwrap();
        let lengths: Vec<i32> = (0..20).map(|i| (i * 7) % 19 + 1).collect();
        let lengths = case.indices("lengths", &lengths).unwrap();
        let value = user("windowed", &[&x, &lengths], (20, N), |of| of[0].map(|x| 3.0 * x));
        let y = case.output("y", BF16, [20, N], value).unwrap();
        (vec![x, lengths], y)
    };
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        let places = (0..20).flat_map(|r| (0..N).map(move |c| (r, c)));
        let noise = |r: usize, c: usize| ((r * 31 + c * 17) % 13) as f32 - 6.0;
        let wrong = |r: usize, c: usize| if of[1].data[r] > 12.0 { noise(r, c) } else { 0.0 };
        places.map(|(r, c)| 3.0 * of[0].row(r)[c] as f32 + wrong(r, c)).collect()
    });
    let causes = causes(&attempt);
    assert!(causes.iter().any(|c| says(c, "`lengths` is more than 12")), "{causes:#?}");
}

#[test]
fn statistics_of_a_layer_norm() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [M, K]).unwrap();
        let [gain, bias] = ["gain", "bias"].map(|name| case.input(name, BF16, [1, K]).unwrap());
        let y = case.output("y", BF16, [M, K], layer_norm(&x, &gain, &bias, 1e-5)).unwrap();
        (vec![x, gain, bias], y)
    };
    let of = |form: fn(f32, f32, f32) -> (f32, f32)| {
        run(setup(0, Data::Ordinary), declare, move |of| {
            let row = |r: usize| {
                let x: Vec<f32> = of[0].row(r).iter().map(|x| *x as f32).collect();
                let mean = x.iter().sum::<f32>() / K as f32;
                let squares = x.iter().map(|x| x * x).sum::<f32>();
                let off = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>();
                let (shift, root) = form(mean, squares, off);
                let value =
                    move |c: usize| (x[c] - shift) / root * of[1].data[c] as f32 + of[2].data[c] as f32;
                (0..K).map(value).collect::<Vec<f32>>()
            };
            (0..M).flat_map(row).collect()
        })
    };
    is_called(&of(|mean, _, off| (mean, (off / (K as f32 - 1.0) + 1e-5).sqrt())), &["gain"], "by 319");
    is_called(
        &of(|_, _, off| (0.0, (off / K as f32 + 1e-5).sqrt())),
        &["addend_missing"],
        "does not subtract the mean",
    );
}

/// A quantiser of the tests' own that writes `codes` and `scales` of what it is given.
fn quantised(scheme: Quant, write: impl Fn(&Matrix, &mut crate::quant::Quantized)) -> Attempt {
    let mut case = Case::new(setup(0, Data::Ordinary));
    let x = case.input("x", BF16, [M, K]).unwrap();
    let q = case.quantized("q", &x, scheme).unwrap();
    let mut attempt = case.finish(&q).unwrap();
    let value = attempt.buffer(x.id()).value();
    let mut codes = quantize(&value, &scheme, 1.0);
    write(&value, &mut codes);
    let out = &mut attempt.buffers[q.id().0];
    out.data = scheme.dtype.pack(codes.codes.iter().copied()).into();
    out.scales = scheme.scale_dtype.encode_bytes(&codes.scales, Overflow::Saturate);
    attempt
}

#[test]
fn a_floor_under_magnitudes_and_a_least_code_for_zeros() {
    let scheme = Quant::group(E4M3FN, 64);
    let floor = quantised(scheme, |value, q| {
        let least = 1.0 / 448.0;
        let groups = K.div_ceil(64);
        q.scales.iter_mut().for_each(|s| *s = f64::from(s.max(least) as f32));
        for i in 0..value.data.len() {
            q.codes[i] = scheme.code_of(value.data[i] / q.scales[i / K * groups + i % K / 64]);
        }
    });
    is_called(&floor, &["overflow"], "a floor under its magnitudes");
    let zeros = quantised(Quant::token(INT8), |value, q| {
        for i in 0..value.data.len() {
            if INT8.decode(q.codes[i]) == 0.0 {
                q.codes[i] = 1;
            }
        }
    });
    is_called(&zeros, &["rounding"], "for the zeros of `q`");
}

#[test]
fn scales_of_the_first_run_that_are_used_in_a_later_one() {
    let chain = |seed: u64, scales: Option<&[f64]>| {
        let mut case = Case::new(setup(seed, Data::Ordinary));
        let x = case.input("x", BF16, [M, K]).unwrap();
        let w = case.input("w", BF16, [N, K]).unwrap();
        let q = case.quantized("q", &x, Quant::token(E4M3FN)).unwrap();
        let y = case.output("y", F32, [M, N], q.matmul(&w)).unwrap();
        let mut attempt = case.finish(&y).unwrap();
        let (value, weight) = (attempt.buffer(x.id()).value(), attempt.buffer(w.id()).value());
        let codes = quantize(&value, &Quant::token(E4M3FN), 1.0);
        let out = &mut attempt.buffers[q.id().0];
        out.data = E4M3FN.pack(codes.codes.iter().copied()).into();
        out.scales = F32.encode_bytes(&codes.scales, Overflow::Saturate);
        let mut read = attempt.buffer(q.id()).quantized().unwrap();
        let own = read.scales.clone();
        if let Some(scales) = scales {
            read.scales = scales.to_vec();
        }
        let values: Vec<f64> = products(&read.decode(), &weight, Order::Forward, |_, _, x| x)
            .into_iter()
            .map(f64::from)
            .collect();
        attempt.buffers[y.id().0].data = F32.encode_bytes(&values, Overflow::Special).into();
        (attempt, own)
    };
    let (first, scales) = chain(0, None);
    let (later, _) = chain(1, Some(&scales));
    let hops = judge_hops(&later, MIN_COS);
    let cause = kept_from_first(&first, (&later, &hops)).expect("a cause");
    assert!(cause.confident && says(&cause, "the scales that `q` had in its first run"), "{cause:?}");
}

#[test]
fn a_mistake_that_explains_two_runs_is_why_they_differ() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], gelu(&(x.matmul(&w).scale(0.01) + &bias))).unwrap();
        (vec![x, w, bias], y)
    };
    let wrote = |seed: u64, f: fn(f32) -> f32| {
        run(setup(seed, Data::Ordinary), declare, move |of| {
            products(&of[0], &of[1], Order::Forward, move |_, c, x| f(x * 0.01 + of[2].data[c] as f32))
        })
    };
    let tanh = |x: f32| 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh());
    let first = wrote(0, tanh);
    let hops = judge_hops(&first, MIN_COS);
    let found = |second: &Attempt| {
        diagnose(&Evidence {
            first: (&first, &hops),
            second: Some(second),
            probe: None,
            second_probe: None,
            one_sign: None,
            min_cos: MIN_COS,
        })
    };
    let alike = found(&wrote(1, tanh));
    assert_eq!(alike.explained, ["y"]);
    assert!(alike.causes[0].confident && alike.causes[0].cause == "activation", "{:#?}", alike.causes);
    // Two mistakes are none that explains why the runs differ.
    let apart = found(&wrote(1, |x| x.max(0.0)));
    assert_eq!(apart.explained, [""; 0]);
    assert!(apart.causes.iter().all(|c| !c.confident), "{:#?}", apart.causes);
}

/// Rows by the weight of one of three experts.
fn grouped(case: &mut Case) -> (Vec<Tensor>, Tensor) {
    let x = case.input("x", BF16, [36, K]).unwrap();
    let w = case.input("w", BF16, [3 * 64, K]).unwrap();
    let ids: Vec<i32> = (0..36).map(|i| (i * 7 + i / 5) % 3).collect();
    let ids = case.indices("ids", &ids).unwrap();
    let each: Vec<_> = (0..3).map(|e| x.matmul(&Operand::rows(&w, e * 64..(e + 1) * 64))).collect();
    let y = case.output("y", BF16, [36, 64], select(&ids, &each)).unwrap();
    (vec![x, w, ids], y)
}

#[test]
fn rows_of_an_expert_that_read_those_of_their_block() {
    let attempt = run(setup(0, Data::Ordinary), grouped, |of| {
        let (x, w, ids) = (&of[0], &of[1], &of[2].data);
        let list = |e: f64| (0..36).filter(move |&r| ids[r] == e).collect::<Vec<usize>>();
        let row = |r: usize| {
            let own = list(ids[r]);
            let place = own.iter().position(|&i| i == r).unwrap();
            own[place / 4 * 4]
        };
        let dot = |r: usize, c: usize| {
            x.row(r).iter().zip(w.row(c)).map(|(a, b)| *a as f32 * *b as f32).sum::<f32>()
        };
        let places = (0..36).flat_map(|r| (0..64).map(move |c| (r, c)));
        places.map(|(r, c)| dot(row(r), ids[r] as usize * 64 + c)).collect()
    });
    is_called(&attempt, &["router"], "the first row of its block of 4 rows of an expert");
}

#[test]
fn a_part_of_k_that_is_misread_before_a_residual_is_added() {
    let declare = |case: &mut Case| {
        let x = case.input("x", BF16, [M, K]).unwrap();
        let w = case.input_quantized("w", Quant::group(E2M1, 32), [N, K]).unwrap();
        let residual = case.input("residual", BF16, [M, N]).unwrap();
        let y = case.output("y", BF16, [M, N], x.matmul(&w) + &residual).unwrap();
        (vec![x, w, residual], y)
    };
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        let mut w = of[1].clone();
        for r in 0..N {
            let row = of[1].row(r);
            (256..K).for_each(|c| w.row_mut(r)[c] = row[c ^ 1]);
        }
        products(&of[0], &w, Order::Forward, |r, c, x| x + of[2].row(r)[c] as f32)
    });
    is_called(&attempt, &["nibble_order"], "in columns 256 to 319 only");
}

#[test]
fn a_sum_that_lacks_one_of_its_addends_in_some_rows() {
    let declare = |case: &mut Case| {
        let of = ["p0", "p1", "p2"].map(|name| case.input(name, F32, [M, N]).unwrap());
        let y = case.output("y", BF16, [M, N], &(&of[0] + &of[1]) + &of[2]).unwrap();
        (of.to_vec(), y)
    };
    let attempt = run(setup(0, Data::Ordinary), declare, |of| {
        let term = |p: usize, i: usize| of[p].data[i] as f32;
        let last = |i: usize| if i / N % 2 == 1 { 0.0 } else { term(2, i) };
        (0..M * N).map(|i| term(0, i) + term(1, i) + last(i)).collect()
    });
    is_called(&attempt, &["addend_missing"], "leaves out the addend that comes of `p2`");
}

#[test]
fn powers_of_two_that_are_rounded_in_the_wrong_direction() {
    let scheme = Quant::token(E4M3FN).scales(F32, ScaleRounding::PowerOfTwo);
    let down = quantised(scheme, |value, q| {
        q.scales.iter_mut().for_each(|s| *s /= 2.0);
        for i in 0..value.data.len() {
            q.codes[i] = scheme.code_of(value.data[i] / q.scales[i / K]);
        }
    });
    is_called(&down, &["rounding"], "down to powers of two, declared is up");
    // Half of each is the same, so that none is stated for certain.
    let causes = causes(&down);
    assert!(causes.iter().all(|c| !c.confident) && causes.iter().any(|c| c.cause == "gain"), "{causes:#?}");
}

#[test]
fn magnitudes_of_more_columns_than_a_row_has() {
    let scheme = Quant::token(E4M3FN);
    let beyond = quantised(scheme, |value, q| {
        for r in 0..M {
            let end = (r * K + K + 64).min(value.data.len());
            let amax = value.data[r * K..end].iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            q.scales[r] = f64::from((amax / 448.0) as f32);
            (r * K..r * K + K).for_each(|i| q.codes[i] = scheme.code_of(value.data[i] / q.scales[r]));
        }
    });
    is_called(&beyond, &["overflow"], "columns more than a cell has");
}

#[test]
fn a_row_of_another_distance_whose_factor_is_taken() {
    let attempt = run(setup(0, Data::Ordinary), weighted, |of| {
        let from = |r: usize| if r >= 20 { r - 11 } else { r };
        let places = (0..36).flat_map(|r| (0..N).map(move |c| (r, c)));
        places.map(|(r, c)| of[0].row(r)[c] as f32 * of[1].data[from(r)] as f32).collect()
    });
    is_called(&attempt, &["router"], "the one 11 before");
}

#[test]
fn a_table_of_cosines_and_sines_is_told_by_its_values() {
    use crate::reference::model::cos_sin_table;
    assert!(super::table::is_rotary(&Matrix::new(16, 8, cos_sin_table(16, 8, 1e4))));
    let twice = cos_sin_table(16, 8, 1e4).into_iter().map(|x| 2.0 * x).collect();
    assert!(!super::table::is_rotary(&Matrix::new(16, 8, twice)));
    assert!(!super::table::is_rotary(&Matrix::new(4, 8, vec![0.3; 32])));
}

/// A softmax of scores over the first so many columns of each row, with a sink for each of four heads, by the test itself.
fn own_softmax(case: &mut Case) -> (Vec<Tensor>, Tensor) {
    let x = case.input("x", BF16, [10, 4 * 32]).unwrap();
    let lengths: Vec<i32> = (0..10).map(|r| 5 + r * 7 % 23).collect();
    let lengths = case.indices("lengths", &lengths).unwrap();
    let tables: Vec<i32> = (0..20).map(|i| i * 3 % 20).collect();
    let tables = case.indices("tables", &tables).unwrap();
    let sinks = case.constants("sinks", F32, [1, 4], &[1.5, -0.75, 2.25, 0.5]).unwrap();
    let value = user("own_softmax", &[&x, &lengths, &tables, &sinks], (10, 128), |of| {
        let data = softmax_with_sinks(&of[0].data, &of[1].data, &of[3].data);
        Matrix::new(10, 128, data)
    });
    let y = case.output("y", BF16, [10, 128], value).unwrap();
    (vec![x, lengths, sinks], y)
}

fn softmax_with_sinks(x: &[f64], lengths: &[f64], sinks: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for (r, length) in lengths.iter().take(10).enumerate() {
        for (h, sink) in sinks.iter().enumerate() {
            let seen = r * 128 + h * 32..r * 128 + h * 32 + (*length as usize).min(32);
            let total: f64 = x[seen.clone()].iter().map(|x| x.exp()).sum::<f64>() + sink.exp();
            seen.for_each(|i| out[i] = x[i].exp() / total);
        }
    }
    out
}

#[test]
fn operands_of_the_tests_own_functions_are_left_out_scaled_or_counted_otherwise() {
    let wrote = |change: fn(&mut Vec<f64>, &mut Vec<f64>)| {
        run(setup(0, Data::Ordinary), own_softmax, move |of| {
            let (mut lengths, mut sinks) = (of[1].data.clone(), of[2].data.clone());
            change(&mut lengths, &mut sinks);
            softmax_with_sinks(&of[0].data, &lengths, &sinks).into_iter().map(|x| x as f32).collect()
        })
    };
    let none = |_: &mut Vec<f64>, sinks: &mut Vec<f64>| sinks.fill(f64::NEG_INFINITY);
    is_called(&wrote(none), &["addend_missing"], "leaves `sinks` out of a sum of exponentials");
    let scaled = |_: &mut Vec<f64>, sinks: &mut Vec<f64>| sinks.iter_mut().for_each(|x| *x *= 0.5);
    is_called(&wrote(scaled), &["gain"], "0.5");
    let whole = |lengths: &mut Vec<f64>, _: &mut Vec<f64>| {
        lengths.iter_mut().for_each(|x| *x = (*x / 8.0).ceil() * 8.0);
    };
    is_called(&wrote(whole), &["k_tail_dropped"], "rounds up each of `lengths` to a multiple of 8");
}

#[test]
fn what_columns_are_off_by_is_compared_with_what_is_added_to_them() {
    let declare = |case: &mut Case| {
        let [x, w, bias] = linear(case);
        let y = case.output("y", BF16, [M, N], x.matmul(&w) + &bias).unwrap();
        (vec![x, w, bias], y)
    };
    let wrote = |of_bias: fn(&[f64], usize) -> f64| {
        run(setup(0, Data::Ordinary), declare, move |of| {
            products(&of[0], &of[1], Order::Forward, |_, c, x| x + of_bias(&of[2].data, c) as f32)
        })
    };
    is_called(&wrote(|bias, c| 5.0 * bias[c]), &["addend_extra"], "5 times the addend that comes of `bias`");
    is_called(&wrote(|bias, c| 0.25 * bias[c]), &["gain"], "has `bias` times 0.2");
    is_called(&wrote(|bias, c| bias[c / 8 * 8]), &["permuted_tiles"], "the first of every 8");
}

#[test]
fn rows_of_an_update_that_stay_as_they_were() {
    let mut case = Case::new(setup(0, Data::Ordinary));
    let x = case.input("x", BF16, [M, N]).unwrap();
    let before = case.inout("state", BF16, [M, N]).unwrap();
    let after = case.update(&before, &x + &before).unwrap();
    let mut attempt = case.finish(&after).unwrap();
    let (x, old) = (attempt.buffer(x.id()).value(), attempt.buffer(before.id()).value());
    let more = |i: usize| if i / N < 32 { x.data[i] } else { 0.0 };
    let values: Vec<f64> = (0..M * N).map(|i| f64::from((old.data[i] + more(i)) as f32)).collect();
    let out = &mut attempt.buffers[after.id().0];
    out.data = BF16.encode_bytes(&values, Overflow::Special).into();
    is_called(&attempt, &["unwritten"], "holds what `state` held before in rows 32 and up");
}
