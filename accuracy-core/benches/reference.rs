//! What a check costs: the streaming reference and the verdict vector. `compare.sh` runs it beside PyTorch.
//!
//! One measurement a call, printed as a line of JSON; run it in a fresh process each time, as a check is.

use accuracy_core::dtype::{DType, E2M1, E4M3FN, E8M0, F32, INT8, UINT4};
use accuracy_core::metrics::{Comparison, Part, compare_slices};
use accuracy_core::quant::Granularity;
use accuracy_core::reference::Matrix;
use accuracy_core::reference::stream::{Left, Precision, ReferenceError, Weight};
use accuracy_core::verdict::{MIN_COS, comparison_checks, hold_within};
use accuracy_core::weights::{Checkpoint, StDtype};
use half::bf16;
use rayon::prelude::*;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "expected one of:
  check DIR M [single|double]        one check of `w` in a checkpoint against its y.M = x.M · wᵀ
  synthetic SCHEME N K M [single|double]  the same on made-up data: fp8, mxfp4, int4 or int8
  verdict ROWS COLS                  the verdict vector of two float32 matrices, and the read bandwidth";

fn main() {
    let begin = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|e| panic!("{text}: {e}"));
    let precision = |args: &[&str]| match args {
        [] => None,
        ["single"] => Some(Precision::Single),
        ["double"] => Some(Precision::Double),
        other => panic!("{other:?}: single or double"),
    };
    match args[..] {
        ["check", dir, m, ref rest @ ..] => check(begin, Path::new(dir), number(m), precision(rest)),
        ["synthetic", scheme, n, k, m, ref rest @ ..] => {
            synthetic(scheme, number(n), number(k), number(m), precision(rest));
        }
        ["verdict", rows, cols] => verdict(number(rows), number(cols)),
        // `cargo bench` calls without arguments.
        [] => synthetic("fp8", 4096, 4096, 16, None),
        _ => panic!("{USAGE}"),
    }
}

/// Opens a shard, multiplies, and compares: all that a check does but for running a kernel.
fn check(begin: Instant, dir: &Path, m: usize, precision: Option<Precision>) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let stored = checkpoint.linear("w").unwrap();
    let bf16s = |name: String| {
        let raw = checkpoint.raw(&name).unwrap();
        assert_eq!(raw.dtype, StDtype::BF16, "{name}");
        // SAFETY: any two bytes are a bfloat16; `align_to` takes care of the alignment, which the asserts below show.
        let (before, values, after) = unsafe { raw.bytes.align_to::<bf16>() };
        assert!(before.is_empty() && after.is_empty(), "{name} is not aligned");
        values
    };
    let x = bf16s(format!("x.{m}")).iter().map(|x| x.to_f64()).collect();
    let x = Matrix::new(m, stored.cols, x);
    let out = bf16s(format!("y.{m}"));
    report(begin, &Weight::from(&stored), &x, out, precision);
}

fn synthetic(scheme: &str, n: usize, k: usize, m: usize, precision: Option<Precision>) {
    let (dtype, granularity, scale_dtype) = match scheme {
        "fp8" => (E4M3FN, Granularity::Block(128, 128), F32),
        "mxfp4" => (E2M1, Granularity::Group(32), E8M0),
        "int4" => (UINT4, Granularity::Group(128), F32),
        "int8" => (INT8, Granularity::Row, F32),
        other => panic!("{other}: {USAGE}"),
    };
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state >> 32
    };
    let code = |random: u64| match dtype {
        // Neither NaN.
        DType::E4M3Fn if random & 0x7f == 0x7f => 0,
        _ => random as u8,
    };
    let codes: Vec<u8> = (0..dtype.packed_len(n * k)).map(|_| code(random())).collect();
    let grid = granularity.grid(n, k);
    let scale = |random: u64| {
        scale_dtype.decode(if scale_dtype == E8M0 {
            120 + random as u32 % 4
        } else {
            (0.01 + random as f32 / 1e12).to_bits()
        })
    };
    let weight = Weight {
        rows: n,
        cols: k,
        dtype,
        codes: codes.into(),
        granularity,
        scales: (0..grid.0 * grid.1).map(|_| scale(random())).collect(),
        zeros: if dtype == UINT4 { vec![8.0; grid.0 * grid.1].into() } else { Vec::new().into() },
        global: 1.0,
        column_groups: None,
        magnitudes: false,
    };
    let x = (0..m * k).map(|_| random() as i32 as f64 * 2f64.powi(-31)).collect();
    let x = Matrix::new(m, k, x);
    let out = vec![bf16::ONE; m * n];
    report(Instant::now(), &weight, &x, &out, precision);
}

/// Without a precision as a check does it: in float32 blocks, and in float64 where these leave the verdict open.
fn report(begin: Instant, weight: &Weight<'_>, x: &Matrix, out: &[bf16], precision: Option<Precision>) {
    let compare = |precision| {
        let left = Left::new(x, precision);
        assert!(left.suits(weight));
        let (parts, error) = left.times(weight, |panel| {
            let mut part = Part::new(0, x.rows, panel.columns.clone());
            for r in 0..x.rows {
                part.add(r, panel.row(r), &out[r * weight.rows..][panel.columns.clone()]);
            }
            (part, panel.square())
        });
        let norm = parts.iter().map(|(_, square)| square).sum::<f64>().sqrt();
        let parts = parts.into_iter().map(|(part, _)| part);
        (Comparison::join((x.rows, weight.rows), parts), error, left.row_errors(norm))
    };
    let (mut comparison, mut error, off) = compare(precision.unwrap_or(Precision::Single));
    // What rounding to bfloat16 allows: a uniform error of half a unit in the last place, and half again.
    let max_rel_l2 = Some(1.5 * 2f64.powi(-8) / 3f64.sqrt());
    let passes = comparison_checks("", &comparison, MIN_COS, max_rel_l2).iter().all(|check| check.ok);
    let settled = passes && hold_within(&comparison, &off, MIN_COS, max_rel_l2);
    if precision.is_none() && !settled {
        (comparison, error, _) = compare(Precision::Double);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let ReferenceError { stated, observed, samples } = error;
    println!(
        "{{\"seconds\": {seconds}, \"settled\": {settled}, \"n\": {}, \"k\": {}, \"m\": {}, \"cos\": {}, \"rel_l2\": {}, \"stated\": {stated:e}, \"observed\": {observed:e}, \"samples\": {samples}, \"weight_bytes\": {}, \"peak_bytes\": {}, \"anonymous_bytes\": {}}}",
        weight.rows,
        weight.cols,
        x.rows,
        comparison.cos.unwrap_or(-2.0),
        comparison.rel_l2.unwrap_or(-1.0),
        weight.codes.len(),
        status("VmHWM"),
        status("RssAnon"),
    );
}

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}

fn verdict(rows: usize, cols: usize) {
    let make = |seed: u64| -> Vec<f32> {
        let value = |i: usize| {
            let mixed = (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((mixed >> 40) as f32 - 8_388_608.0) / 8_388_608.0
        };
        (0..rows * cols).into_par_iter().map(value).collect()
    };
    let x = make(0);
    let y: Vec<f32> = x.par_iter().zip(make(99)).map(|(x, noise)| x + 0.02 * noise).collect();
    // The quickest way in which all of both can be read: each value goes into a sum.
    let read = || {
        let sum = |x: &[f32]| {
            let mut sums = [0_u32; 64];
            for x in x.chunks_exact(64) {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum ^= x.to_bits());
            }
            sums.into_iter().fold(0, |a, b| a ^ b)
        };
        let halves = x.par_chunks(1 << 18).zip(y.par_chunks(1 << 18));
        halves.map(|(x, y)| sum(x) ^ sum(y)).reduce(|| 0, |a, b| a ^ b)
    };
    let mut best = [f64::INFINITY; 2];
    let mut cos = None;
    for _ in 0..3 {
        let begin = Instant::now();
        black_box(read());
        best[0] = best[0].min(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        cos = compare_slices((rows, cols), &x, &y).cos;
        best[1] = best[1].min(begin.elapsed().as_secs_f64());
    }
    println!(
        "{{\"seconds\": {}, \"read_seconds\": {}, \"bytes\": {}, \"cos\": {:.17}}}",
        best[1],
        best[0],
        8 * rows * cols,
        cos.unwrap_or(-2.0)
    );
}
