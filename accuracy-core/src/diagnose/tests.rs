//! Faults planted in what a kernel wrote, by code of the tests' own, and what the search says of them.

use super::*;
use crate::arch::Arch;
use crate::case::input::{Data, Rng};
use crate::case::{Case, PreparedWeights, Setup};
use crate::device::host::Placement;
use crate::device::memory::Runtime;
use crate::dtype::{BF16, DType, E4M3FN, E4M3FNUZ, E8M0, Overflow};
use crate::judge::judge_hops;
use crate::layout::ScaleLayout::{self, ColMajor, RowMajor};
use crate::quant::{Quant, ScaleRounding, quantize};
use crate::reference::{BufferId, Matrix, Operand};
use crate::words::reworded;
use std::collections::BTreeMap;

const MIN_COS: f64 = 0.999;

fn setup() -> Setup {
    Setup {
        arch: Arch::Host,
        tokens: 1,
        weights: BTreeMap::new(),
        checkpoint: None,
        prepared: PreparedWeights::default(),
        activations: None,
        seed: 0,
        data: Data::Ordinary,
        drawn: None,
        poison: crate::case::poison::Poison::of_byte(0xa5),
        placement: Placement::Banded,
        watch: crate::case::watch::Watch::Nothing,
        runtime: Runtime::Host,
    }
}

/// A product of quantised activations and a quantised weight; what its kernels wrote is filled in by the tests.
struct Gemm {
    attempt: Attempt,
    y: BufferId,
    /// Codes decoded, and scales by cell.
    a: Side,
    b: Side,
}

/// An operand apart: elements without scales, scales of the grid.
#[derive(Clone)]
struct Side {
    rows: usize,
    cols: usize,
    codes: Vec<u32>,
    format: DType,
    cell: (usize, usize),
    groups: usize,
    scales: Vec<f64>,
}

impl Side {
    fn new(values: &Matrix, scheme: &Quant) -> Side {
        let q = quantize(values, scheme, 1.0);
        let cell = scheme.granularity.cell(values.rows, values.cols);
        let groups = scheme.granularity.grid(values.rows, values.cols).1;
        Side {
            rows: values.rows,
            cols: values.cols,
            codes: q.codes,
            format: scheme.dtype,
            cell,
            groups,
            scales: q.scales,
        }
    }

    fn grid(&self) -> (usize, usize) {
        (self.rows.div_ceil(self.cell.0), self.groups)
    }

    fn values(&self) -> Matrix {
        let value = |i: usize| {
            let (r, c) = (i / self.cols, i % self.cols);
            let scale = self.scales[r / self.cell.0 * self.groups + c / self.cell.1];
            self.format.decode(self.codes[i]) * scale
        };
        Matrix::new(self.rows, self.cols, (0..self.codes.len()).map(value).collect())
    }
}

fn random(rows: usize, cols: usize, seed: u64) -> Matrix {
    crate::case::input::ordinary(rows, cols, &mut Rng(seed))
}

fn gemm((m, n, k): (usize, usize, usize), activations: Quant, weights: Quant) -> Gemm {
    let mut case = Case::new(setup());
    let x = case.input("x", BF16, [m, k]).unwrap();
    let w = case.inout_quantized("w", weights, [n, k]).unwrap();
    let xq = case.quantized("xq", &x, activations).unwrap();
    let y = case.output("y", BF16, [m, n], xq.matmul(&w)).unwrap();
    let mut attempt = case.finish(&y).unwrap();
    let (xq, w, y) = (xq.id(), w.id(), y.id());
    let a = Side::new(&random(m, k, 1), &activations);
    let b = Side::new(&random(n, k, 2), &weights);
    for (id, side, scheme) in [(xq, &a, activations), (w, &b, weights)] {
        let buffer = &mut attempt.buffers[id.0];
        buffer.data = scheme.dtype.pack(side.codes.iter().copied()).into();
        let format = scheme.scale_dtype;
        let mut laid = vec![0u32; scheme.scale_layout.len(side.grid())];
        for (i, &s) in side.scales.iter().enumerate() {
            let at = scheme.scale_layout.offset(side.grid(), i / side.groups, i % side.groups);
            laid[at] = format.encode(s, Overflow::Saturate);
        }
        buffer.scales = format.pack(laid);
    }
    attempt.buffers[w.0].kind = crate::case::Kind::Weight;
    Gemm { attempt, y, a, b }
}

impl Gemm {
    /// What a kernel wrote that computed `value`.
    fn wrote(mut self, value: &Matrix) -> Gemm {
        self.attempt.buffers[self.y.0].data = BF16.encode_bytes(&value.data, Overflow::Special).into();
        self
    }

    fn causes(&self) -> Vec<Cause> {
        let mut hops = judge_hops(&self.attempt, MIN_COS);
        hops.retain(|h| h.id == self.y);
        assert!(hops[0].checks.iter().any(|c| !c.ok), "the fault is seen");
        diagnose(&Evidence {
            first: (&self.attempt, &hops),
            second: None,
            probe: None,
            second_probe: None,
            one_sign: None,
            min_cos: MIN_COS,
        })
        .causes
    }
}

fn fp8_block(layout: ScaleLayout) -> (Quant, Quant) {
    (Quant::group(E4M3FN, 128).layout(layout), Quant::block(E4M3FN, 128, 128))
}

/// `sum over k`, plainly.
fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let mut out = Matrix::zeros(a.rows, b.rows);
    for r in 0..a.rows {
        for c in 0..b.rows {
            out.data[r * b.rows + c] =
                (0..a.cols).map(|k| a.data[r * a.cols + k] * b.data[c * a.cols + k]).sum();
        }
    }
    out
}

#[track_caller]
fn expect_first(causes: &[Cause], cause: &str, words: &str) {
    let first = causes.first().unwrap_or_else(|| panic!("no cause at all"));
    assert_eq!(first.cause, cause, "{causes:#?}");
    assert!(says(first, words), "{words:?} in {causes:#?}");
    assert!(first.confident, "{causes:#?}");
}

/// Whether a cause has these words. In the process that words everything anew it must not have any of the sources' own.
pub fn says(cause: &Cause, words: &str) -> bool {
    if reworded::wanted() {
        return !cause.what.to_string().contains("the ");
    }
    cause.detail.contains(words)
}

/// All tests of the diagnosis hold, in another process, where every message is worded anew: which causes are found, in
/// which order, and which of them for certain.
#[test]
fn other_words_for_everything_change_no_cause() {
    if reworded::wanted() {
        return;
    }
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    process.args(["diagnose::tests::", "diagnose::naming::"]).env(reworded::VARIABLE, "1");
    let output = process.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("test diagnose::tests::a_quantisers_faults_are_told_apart ... ok"), "{told}");
}

/// Both are named, neither with confidence.
#[track_caller]
fn expect_open(causes: &[Cause], both: [&str; 2]) {
    assert!(both.iter().all(|cause| causes.iter().any(|c| c.cause == *cause)), "{causes:#?}");
    assert!(causes.iter().all(|c| !c.confident), "{causes:#?}");
}

const SHAPE: (usize, usize, usize) = (33, 256, 640);

/// The largest value of each group of e4m3fnuz has the code that is NaN in e4m3fn. Whatever makes NaN explains such an output:
/// no layout, overflow or tail is told, and the other format at most as a guess.
#[test]
fn an_output_of_nan_alone_speaks_for_nothing_with_confidence() {
    let activations = Quant::group(E4M3FNUZ, 128).layout(ColMajor);
    let g = gemm(SHAPE, activations, Quant::block(E4M3FNUZ, 128, 128));
    let read = Side { format: E4M3FN, ..g.a.clone() };
    let y = product(&read.values(), &g.b.values());
    // Rows of zeros are right.
    assert!(y.data.iter().all(|y| y.is_nan() || *y == 0.0) && y.data.iter().any(|y| y.is_nan()));
    let causes = g.wrote(&y).causes();
    assert!(causes.iter().all(|c| !c.confident), "{causes:#?}");
    let alone = ["fp8_variant", "unknown"];
    assert!(causes.iter().all(|c| alone.contains(&c.cause.as_str())), "{causes:#?}");
}

#[test]
fn the_right_product_is_right() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let y = product(&g.a.values(), &g.b.values());
    let g = g.wrote(&y);
    let hops = judge_hops(&g.attempt, MIN_COS);
    let last = hops.iter().find(|h| h.id == g.y).unwrap();
    assert!(last.checks.iter().all(|c| c.ok));
}

#[test]
fn scales_in_another_order_are_named_on_either_operand() {
    let (x, w) = fp8_block(ColMajor);
    let g = gemm(SHAPE, x, w);
    // The memory holds g * m + r; the kernel reads r * groups + g.
    let mut a = g.a.clone();
    let (rows, groups) = a.grid();
    for r in 0..rows {
        for c in 0..groups {
            let flat = r * groups + c;
            a.scales[r * groups + c] = g.a.scales[flat % rows * groups + flat / rows];
        }
    }
    let y = product(&a.values(), &g.b.values());
    let g = g.wrote(&y);
    let causes = g.causes();
    expect_first(&causes, "scale_layout", "as row_major; they lie in col_major order");
    assert_eq!(causes[0].operand.as_deref(), Some("xq"));
    assert!(causes[0].cos.unwrap() > 0.99999);

    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut b = g.b.clone();
    let (rows, groups) = b.grid();
    for r in 0..rows {
        for c in 0..groups {
            b.scales[r * groups + c] = g.b.scales[(c * rows + r) % (rows * groups)];
        }
    }
    let y = product(&g.a.values(), &b.values());
    let causes = g.wrote(&y).causes();
    expect_first(&causes, "scale_layout", "the scales of `w` as col_major");
}

#[test]
fn missing_inverted_and_neighbouring_scales_are_told_apart() {
    let (x, w) = fp8_block(RowMajor);
    for (cause, words, f) in [
        ("scale_missing", "does not apply", (|_, _| 1.0) as fn(&Side, usize) -> f64),
        ("scale_inverted", "divides", |s, i| 1.0 / s.scales[i]),
        ("scale_neighbour", "next group", |s, i| s.scales[i / s.groups * s.groups + (i + 1) % s.groups]),
        ("scale_neighbour", "next row", |s, i| s.scales[(i + s.groups) % s.scales.len()]),
        ("scale_neighbour", "first group", |s, i| s.scales[i / s.groups * s.groups]),
    ] {
        let g = gemm(SHAPE, x, w);
        let mut a = g.a.clone();
        a.scales = (0..a.scales.len()).map(|i| f(&g.a, i)).collect();
        let y = product(&a.values(), &g.b.values());
        expect_first(&g.wrote(&y).causes(), cause, words);
    }
}

#[test]
fn a_format_taken_for_another_is_named() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut b = g.b.clone();
    b.format = DType::E5M2;
    let y = product(&g.a.values(), &b.values());
    expect_first(&g.wrote(&y).causes(), "fp8_variant", "the e4m3fn codes of `w` as e5m2");
    // Its twin is a gain of 2 unless a code tells the two apart.
    let g = gemm(SHAPE, x, w);
    let mut b = g.b.clone();
    assert!(b.codes.contains(&0x80));
    b.format = E4M3FNUZ;
    let y = product(&g.a.values(), &b.values());
    expect_first(&g.wrote(&y).causes(), "fp8_variant", "the e4m3fn codes of `w` as e4m3fnuz");
    let g = gemm(SHAPE, x, w);
    let y = product(&g.a.values(), &g.b.values()).map(|x| x / 2.0);
    let causes = g.wrote(&y).causes();
    assert_eq!(causes[0].cause, "fp8_variant", "{causes:#?}");
    assert!(!causes[0].confident && says(&causes[0], "constant factor"), "{causes:#?}");
}

#[test]
fn a_transposed_or_shuffled_operand_is_named() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm((33, 256, 640), x, w);
    let mut b = g.b.clone();
    b.codes = (0..b.codes.len()).map(|i| g.b.codes[i % b.cols * b.rows + i / b.cols]).collect();
    let y = product(&g.a.values(), &b.values());
    expect_first(&g.wrote(&y).causes(), "transposed", "`w` as col_major");
    // 16x16-byte tiles read from plain memory.
    let g = gemm((33, 256, 640), x, w);
    let mut b = g.b.clone();
    let at = |n: usize, k: usize| {
        n / 16 * 16 * 640 + k / 32 * 32 * 16 + k % 32 / 16 * 16 * 16 + n % 16 * 16 + k % 16
    };
    b.codes = (0..b.codes.len()).map(|i| g.b.codes[at(i / 640, i % 640)]).collect();
    let y = product(&g.a.values(), &b.values());
    expect_first(&g.wrote(&y).causes(), "permuted_tiles", "preshuffle_16x16");
    // Both operands, by the same mistake.
    let g = gemm((48, 256, 640), x, w);
    let shuffled = |side: &Side| {
        let codes = (0..side.codes.len()).map(|i| side.codes[at(i / 640, i % 640)]).collect();
        Side { codes, ..side.clone() }.values()
    };
    let y = product(&shuffled(&g.a), &shuffled(&g.b));
    expect_first(&g.wrote(&y).causes(), "permuted_tiles", "of `xq` as well");
}

#[test]
fn a_dropped_or_doubled_tile_of_k_is_named() {
    let (x, w) = fp8_block(RowMajor);
    for (from, to, times, words) in [
        (608, 640, 0.0, "the last 32"),
        (512, 640, 0.0, "the last 128"),
        (576, 640, 2.0, "twice"),
        (256, 384, 0.0, "leaves out 256 to 383 of K = 640"),
        (320, 352, 3.0, "counts 320 to 351 of K = 640 3 times"),
    ] {
        let g = gemm(SHAPE, x, w);
        let mut a = g.a.values();
        for r in 0..a.rows {
            a.row_mut(r)[from..to].iter_mut().for_each(|x| *x *= times);
        }
        let y = product(&a, &g.b.values());
        expect_first(&g.wrote(&y).causes(), "k_tail_dropped", words);
    }
}

/// A sample of rows rarely holds the one that tells these apart.
#[test]
fn what_becomes_of_the_last_row_is_told_on_the_whole() {
    let (x, w) = fp8_block(RowMajor);
    let shape = (200, 256, 640);
    for (words, next) in [
        (
            "the next row, the last with its own",
            (|r, rows| (r + 1usize).min(rows - 1)) as fn(usize, usize) -> usize,
        ),
        ("the next row: a reference", |r, rows| (r + 1) % rows),
        ("the previous row, the first with its own", |r, _| r.saturating_sub(1)),
    ] {
        let g = gemm(shape, x, w);
        let mut a = g.a.clone();
        let (rows, groups) = a.grid();
        a.scales =
            (0..rows * groups).map(|i| g.a.scales[next(i / groups, rows) * groups + i % groups]).collect();
        let y = product(&a.values(), &g.b.values());
        expect_first(&g.wrote(&y).causes(), "scale_neighbour", words);
    }
}

#[test]
fn all_of_k_twice_and_a_part_of_it_once_more_are_two_causes() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut a = g.a.values();
    for r in 0..a.rows {
        let (most, last) = a.row_mut(r).split_at_mut(576);
        most.iter_mut().for_each(|x| *x *= 2.0);
        last.iter_mut().for_each(|x| *x *= 4.0);
    }
    let y = product(&a, &g.b.values());
    expect_open(&g.wrote(&y).causes(), ["gain", "k_tail_dropped"]);
}

/// Scales far below 1 that divide make what is right beside them too small to see.
#[test]
fn a_part_of_k_that_is_misread_may_be_the_only_one_that_is_summed_up() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut b = g.b.clone();
    let groups = b.groups;
    for (i, scale) in b.scales.iter_mut().enumerate() {
        *scale = if i % groups < 3 { 1e6 / *scale } else { 0.0 };
    }
    let mut g = g;
    // What divides 1e6 is a scale of its own: the weights that the kernel was given are as small.
    g.b.scales.iter_mut().for_each(|s| *s *= 1e-6);
    let format = w.scale_dtype;
    let encoded = g.b.scales.iter().map(|&s| format.encode(s, Overflow::Saturate)).collect::<Vec<_>>();
    let id = g.attempt.buffers.iter().position(|b| b.name == "w").unwrap();
    g.attempt.buffers[id].scales = format.pack(encoded);
    let y = product(&g.a.values(), &b.values());
    expect_open(&g.wrote(&y).causes(), ["scale_inverted", "k_tail_dropped"]);
}

#[test]
fn what_was_left_zero_is_said_in_words() {
    let (x, w) = fp8_block(RowMajor);
    for (wrong, words) in [
        ((|_, c| c >= 192) as fn(usize, usize) -> bool, "columns 192 and up"),
        (|r, _| r == 32, "the last row (32)"),
        (|_, c| c % 128 == 127, "the last column of every 128"),
    ] {
        let g = gemm(SHAPE, x, w);
        let mut y = product(&g.a.values(), &g.b.values());
        for i in 0..y.data.len() {
            if wrong(i / y.cols, i % y.cols) {
                y.data[i] = 0.0;
            }
        }
        expect_first(&g.wrote(&y).causes(), "unwritten", words);
    }
}

#[test]
fn gains_and_moved_rows_are_fitted() {
    let (x, w) = fp8_block(RowMajor);
    let run = |f: &dyn Fn(&Matrix) -> Matrix| {
        let g = gemm(SHAPE, x, w);
        let y = f(&product(&g.a.values(), &g.b.values()));
        g.wrote(&y).causes()
    };
    expect_first(&run(&|y| y.map(|x| 448.0 / 240.0 * x)), "gain", "448 / 240");
    expect_first(&run(&|y| y.map(|x| 1.37 * x)), "gain", "1.37");
    let mut shifted = |y: &Matrix| {
        let mut out = y.clone();
        out.data.rotate_left(y.cols);
        out
    };
    expect_first(&run(&mut shifted), "permuted_tiles", "1 place too early");
    let halves = |y: &Matrix| {
        let mut out = y.clone();
        (0..y.rows).for_each(|r| out.row_mut(r).rotate_left(128));
        out
    };
    expect_first(&run(&halves), "gate_up_swapped", "halves");
    let turned = |y: &Matrix| {
        let mut out = y.clone();
        for r in 0..32 {
            let from = |c: usize| y.row(r / 16 * 16 + c % 16)[c / 16 * 16 + r % 16];
            out.row_mut(r).iter_mut().enumerate().for_each(|(c, x)| *x = from(c));
        }
        out
    };
    expect_first(&run(&turned), "permuted_tiles", "each tile of 16 x 16 transposed");
    expect_first(&run(&|y| y.map(|x| x.max(0.0))), "activation", "Relu");
}

#[test]
fn scales_of_other_rows_are_told_by_which() {
    let scheme = Quant::group(E4M3FN, 128);
    let weights = Quant::group(E4M3FN, 128);
    for (row, words) in [
        (
            (|r, rows| if r ^ 16 < rows { r ^ 16 } else { r }) as fn(usize, usize) -> usize,
            "neighbouring tiles of 16",
        ),
        (|r, rows| r.min(rows - 2), "the last with that of the row before"),
        (|r, _| r % 32, "row r % 32"),
    ] {
        let g = gemm(SHAPE, scheme, weights);
        let mut b = g.b.clone();
        let (rows, groups) = b.grid();
        for i in 0..rows * groups {
            b.scales[i] = g.b.scales[row(i / groups, rows) * groups + i % groups];
        }
        let y = product(&g.a.values(), &b.values());
        expect_first(&g.wrote(&y).causes(), "scale_neighbour", words);
    }
}

#[test]
fn two_causes_at_once_are_both_named_or_none_with_confidence() {
    let (x, w) = fp8_block(ColMajor);
    let g = gemm(SHAPE, x, w);
    let (mut a, mut b) = (g.a.clone(), g.b.clone());
    let (rows, groups) = a.grid();
    for flat in 0..rows * groups {
        a.scales[flat] = g.a.scales[flat % rows * groups + flat / rows];
    }
    b.format = DType::E5M2;
    let y = product(&a.values(), &b.values());
    let causes = g.wrote(&y).causes();
    let named: Vec<&str> = causes.iter().map(|c| c.cause.as_str()).collect();
    assert!(named.contains(&"scale_layout") && named.contains(&"fp8_variant"), "{causes:#?}");
}

#[test]
fn noise_is_unknown() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut y = product(&g.a.values(), &g.b.values());
    let mut rng = Rng(9);
    for r in 0..y.rows {
        let rms = (y.row(r).iter().map(|x| x * x).sum::<f64>() / y.cols as f64).sqrt();
        y.row_mut(r).iter_mut().for_each(|x| *x += 0.3 * rms * rng.normal());
    }
    let causes = g.wrote(&y).causes();
    assert_eq!(causes[0].cause, "unknown", "{causes:#?}");
    assert!(causes.iter().all(|c| !c.confident), "{causes:#?}");
}

#[test]
fn e8m0_scales_are_diagnosed_as_well() {
    let mx = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil);
    let g = gemm((64, 128, 256), mx.layout(ScaleLayout::E8m0Shuffle), mx);
    // Read plainly from the shuffled buffer.
    let mut a = g.a.clone();
    let grid = a.grid();
    let mut memory = vec![f64::NAN; ScaleLayout::E8m0Shuffle.len(grid)];
    for (i, &s) in g.a.scales.iter().enumerate() {
        memory[ScaleLayout::E8m0Shuffle.offset(grid, i / 8, i % 8)] = s;
    }
    a.scales = memory[..a.scales.len()].to_vec();
    let y = product(&a.values(), &g.b.values());
    expect_first(&g.wrote(&y).causes(), "scale_layout", "as row_major; they lie in e8m0_shuffle order");
}

#[test]
fn scales_in_an_order_that_nobody_has_heard_of_are_found_among_the_operands_own() {
    // Any order at all, of activations whose every scale is fitted to many elements.
    let (x, w) = fp8_block(RowMajor);
    let g = gemm((33, 256, 384), x, w);
    let mut a = g.a.clone();
    let n = a.scales.len();
    a.scales = (0..n).map(|i| g.a.scales[i * 37 % n]).collect();
    let y = product(&a.values(), &g.b.values());
    expect_first(&g.wrote(&y).causes(), "scale_layout", "scales `xq` with its scales in another order");
    // The same order in each tile of eight rows, of a weight whose scales are fitted to few.
    let (x, w) = (Quant::group(E4M3FN, 128), Quant::group(E4M3FN, 128));
    let g = gemm((33, 256, 384), x, w);
    let mut b = g.b.clone();
    let groups = b.groups;
    let of = [0, 3, 6, 1, 4, 7, 2, 5];
    b.scales = (0..b.scales.len())
        .map(|i| g.b.scales[(i / groups / 8 * 8 + of[i / groups % 8]) * groups + i % groups])
        .collect();
    let y = product(&g.a.values(), &b.values());
    expect_first(&g.wrote(&y).causes(), "scale_layout", "in each 8 rows row 1 with that of row 3");
    // Scales that are nobody's are in no order.
    let g = gemm((33, 256, 384), x, w);
    let mut b = g.b.clone();
    let mut rng = Rng(5);
    b.scales.iter_mut().for_each(|s| *s *= (0.3 * rng.normal()).exp());
    let y = product(&g.a.values(), &b.values());
    let causes = g.wrote(&y).causes();
    assert!(causes.iter().all(|c| c.cause != "scale_layout" || !c.confident), "{causes:#?}");
}

/// Codes and scales that a quantiser makes of its input.
type Quantiser<'a> = &'a dyn Fn(&Matrix) -> (Vec<u32>, Vec<f64>);

/// A quantiser that wrote `codes` and `scales` of `x`, laid out by the test.
fn quantiser(scheme: Quant, (m, k): (usize, usize), f: Quantiser<'_>) -> Vec<Cause> {
    let mut case = Case::new(setup());
    let x = case.input("x", BF16, [m, k]).unwrap();
    let xq = case.quantized("xq", &x, scheme).unwrap();
    let mut attempt = case.finish(&xq).unwrap();
    let (codes, scales) = f(&attempt.buffer(x.id()).value());
    let buffer = &mut attempt.buffers[xq.id().0];
    buffer.data = scheme.dtype.pack(codes).into();
    buffer.scales =
        scheme.scale_dtype.pack(scales.iter().map(|&s| scheme.scale_dtype.encode(s, Overflow::Saturate)));
    let hops = judge_hops(&attempt, MIN_COS);
    assert!(hops[0].checks.iter().any(|c| !c.ok), "the fault is seen");
    diagnose(&Evidence {
        first: (&attempt, &hops),
        second: None,
        probe: None,
        second_probe: None,
        one_sign: None,
        min_cos: MIN_COS,
    })
    .causes
}

/// Scales `magnitude / max` of groups of 128, and codes of `x / divisor`.
fn groups_of_128(
    x: &Matrix,
    max: f64,
    magnitude: impl Fn(&[f64]) -> f64,
    code: impl Fn(f64, f64) -> u32,
) -> (Vec<u32>, Vec<f64>) {
    let scales: Vec<f64> = x
        .data
        .chunks(128)
        .map(|g| f64::from((magnitude(g) / max) as f32))
        .map(|s| if s == 0.0 { 1.0 } else { s })
        .collect();
    let codes = x.data.iter().enumerate().map(|(i, &v)| code(v, scales[i / 128])).collect();
    (codes, scales)
}

fn absolute(g: &[f64]) -> f64 {
    g.iter().fold(0.0, |m: f64, x| m.max(x.abs()))
}

fn nearest(v: f64, s: f64) -> u32 {
    E4M3FN.encode(v / s, Overflow::Saturate)
}

#[test]
fn a_quantisers_faults_are_told_apart() {
    let scheme = Quant::group(E4M3FN, 128);
    let run = |f: Quantiser<'_>| quantiser(scheme, (33, 640), f);
    expect_first(&run(&|x| groups_of_128(x, 240.0, absolute, nearest)), "fp8_variant", "240");
    let elsewhere = |x: &Matrix| {
        let (codes, scales) = groups_of_128(x, 448.0, absolute, nearest);
        let n = scales.len();
        (codes, (0..n).map(|i| scales[i * 37 % n]).collect())
    };
    expect_first(&run(&elsewhere), "scale_layout", "every one is there");
    let cast = |x: &Matrix| {
        let twice = |v: f64, s: f64| nearest(E4M3FN.decode(E4M3FN.encode(v, Overflow::Saturate)), s);
        groups_of_128(x, 448.0, absolute, twice)
    };
    expect_first(&run(&cast), "rounding", "before it scales them");
    expect_first(
        &run(&|x| groups_of_128(x, 448.0, |g| g.iter().fold(0.0, |m: f64, x| m.max(*x)), nearest)),
        "overflow",
        "largest value",
    );
    expect_first(
        &run(&|x| {
            groups_of_128(x, 448.0, absolute, |v, s| {
                let near = E4M3FN.encode(v / s, Overflow::Saturate);
                if E4M3FN.decode(near).abs() > (v / s).abs() { near - 1 } else { near }
            })
        }),
        "rounding",
        "truncates",
    );
    // Scales transposed in memory.
    expect_first(
        &run(&|x| {
            let (codes, scales) = groups_of_128(x, 448.0, absolute, nearest);
            let turned = (0..scales.len()).map(|at| scales[at % 33 * 5 + at / 33]).collect();
            (codes, turned)
        }),
        "scale_layout",
        "col_major",
    );
    // The inverse stored.
    expect_first(
        &run(&|x| {
            let (codes, scales) = groups_of_128(x, 448.0, absolute, nearest);
            (codes, scales.iter().map(|s| 1.0 / s).collect())
        }),
        "scale_inverted",
        "inverse",
    );
    // Codes saturate at the other variant's maximum.
    expect_first(
        &run(&|x| groups_of_128(x, 448.0, absolute, |v, s| nearest((v / s).clamp(-240.0, 240.0), 1.0))),
        "overflow",
        "at 240",
    );
    // The values are those of the next row.
    expect_first(
        &run(&|x| {
            let mut next = x.clone();
            next.data.rotate_left(640);
            groups_of_128(&next, 448.0, absolute, nearest)
        }),
        "permuted_tiles",
        "the next row of `x`",
    );
    // Codes transposed, and scales in another order: two causes.
    let causes = run(&|x| {
        let (codes, scales) = groups_of_128(x, 448.0, absolute, nearest);
        let turned = (0..scales.len()).map(|at| scales[at % 33 * 5 + at / 33]).collect();
        let turned_codes = (0..codes.len()).map(|at| codes[at % 33 * 640 + at / 33]).collect();
        (turned_codes, turned)
    });
    let named: Vec<&str> = causes.iter().map(|c| c.cause.as_str()).collect();
    assert_eq!(named, ["scale_layout", "transposed"], "{causes:#?}");
}

#[test]
fn sums_in_few_bits_are_named_with_their_format() {
    let (x, w) = fp8_block(RowMajor);
    for (block, words) in [(1, "accumulates products in bf16"), (128, "bf16 after every 128")] {
        let g = gemm(SHAPE, x, w);
        let (a, b) = (g.a.values(), g.b.values());
        let mut y = Matrix::zeros(a.rows, b.rows);
        for r in 0..a.rows {
            for c in 0..b.rows {
                let mut sum = 0.0_f32;
                for (x, y) in a.row(r).chunks(block).zip(b.row(c).chunks(block)) {
                    let part: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                    sum = half::bf16::from_f32(sum + part as f32).to_f32();
                }
                y.row_mut(r)[c] = f64::from(sum);
            }
        }
        expect_first(&g.wrote(&y).causes(), "accumulation", words);
    }
}

/// `cargo test --release -p accuracy-core --lib -- --ignored --nocapture search_takes`.
#[test]
#[ignore = "a measurement: prints how long the check and the search take at N = K = 7168, M = 64"]
fn search_takes() {
    let (x, w) = fp8_block(ColMajor);
    let g = gemm((64, 7168, 7168), x, w);
    let mut a = g.a.clone();
    let (rows, groups) = a.grid();
    for flat in 0..rows * groups {
        a.scales[flat] = g.a.scales[flat % rows * groups + flat / rows];
    }
    let y = a.values().matmul_t(&g.b.values());
    let mut rng = Rng(3);
    let mut noise = y.clone();
    noise.data.iter_mut().for_each(|x| *x *= 1.0 + 0.5 * rng.normal());
    for (what, y) in [("a cause", y), ("no cause at all", noise)] {
        let mut attempt = g.attempt.clone();
        attempt.buffers[g.y.0].data = BF16.encode_bytes(&y.data, Overflow::Special).into();
        let began = std::time::Instant::now();
        let mut hops = judge_hops(&attempt, MIN_COS);
        // A case judges its hops on three kinds of data.
        let check = 3 * began.elapsed();
        hops.retain(|h| h.id == g.y);
        let began = std::time::Instant::now();
        let causes = diagnose(&Evidence {
            first: (&attempt, &hops),
            second: None,
            probe: None,
            second_probe: None,
            one_sign: Some((&attempt, &hops)),
            min_cos: MIN_COS,
        })
        .causes;
        println!("{what}: check {check:?}, search {:?}: {}", began.elapsed(), causes[0].cause);
    }
}

#[test]
fn inf_beyond_a_magnitude_is_an_overflow() {
    let (x, w) = fp8_block(RowMajor);
    // Inf from float16's limit on, after a factor.
    let g = gemm(SHAPE, x, w);
    let y = product(&g.a.values(), &g.b.values());
    let most = y.data.iter().fold(0.0_f64, |m, x| m.max(x.abs())) / 3.0;
    let y = y.map(|x| if x.abs() > most { f64::INFINITY.copysign(x) } else { x });
    let causes = g.wrote(&y).causes();
    assert_eq!(causes[0].cause, "overflow", "{causes:#?}");
}

#[test]
fn half_of_each_group_and_a_wrong_sign_in_one_element_are_told_apart() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut a = g.a.values();
    for r in 0..a.rows {
        a.row_mut(r).iter_mut().enumerate().filter(|(k, _)| k % 128 >= 64).for_each(|(_, x)| *x = 0.0);
    }
    let y = product(&a, &g.b.values());
    expect_first(&g.wrote(&y).causes(), "k_tail_dropped", "second half of every 128");
    let g = gemm(SHAPE, x, w);
    let mut y = product(&g.a.values(), &g.b.values());
    y.row_mut(7)[130] *= -1.0;
    let causes = g.wrote(&y).causes();
    assert_eq!(causes[0].cause, "unknown", "{causes:#?}");
    assert!(says(&causes[0], "[7, 130]"), "{causes:#?}");
}

#[test]
fn a_tile_of_k_read_in_another_order_is_named_with_its_columns() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let (a, right) = (g.a.values(), g.b.values());
    let mut b = right.clone();
    for r in 0..b.rows {
        for c in b.cols - 128..b.cols {
            b.row_mut(r)[c] = right.row(r)[c ^ 16];
        }
    }
    let causes = g.wrote(&product(&a, &b)).causes();
    let columns = format!("in columns {} to {} only", b.cols - 128, b.cols - 1);
    expect_first(&causes, "permuted_tiles", &columns);
    assert!(causes[0].confident, "{causes:#?}");
}

#[test]
fn scales_applied_twice_have_no_name_but_are_told() {
    let (x, w) = fp8_block(RowMajor);
    let g = gemm(SHAPE, x, w);
    let mut a = g.a.clone();
    a.scales.iter_mut().for_each(|s| *s *= *s);
    let y = product(&a.values(), &g.b.values());
    expect_first(&g.wrote(&y).causes(), "unknown", "applies the scales of `xq` twice");
}
