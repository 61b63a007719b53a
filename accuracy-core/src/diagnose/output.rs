//! Hypotheses about the output alone, found by fitting it to its reference: gains, moved rows and columns, saturation.

use super::map::{Map, indices};
use crate::dtype::DType;
use crate::judge::unit;
use crate::reference::graph::{Op, Unary};
use crate::reference::{Expr, Matrix};
use crate::words::Words;

/// What a kernel would have written instead.
pub struct Fit {
    pub cause: &'static str,
    pub what: Words,
    pub reference: Matrix,
    /// The factor, of a gain.
    pub gain: Option<f64>,
    /// Whether what mistake makes such an output is a guess, however well the fit explains it.
    pub is_guess: bool,
    /// Whether columns are moved, which no index of rows does.
    pub of_columns: bool,
}

/// Factors that have a name.
const KNOWN: &[(f64, &str)] = &[
    (448.0 / 240.0, "448 / 240: the maxima of e4m3fn and e4m3fnuz"),
    (240.0 / 448.0, "240 / 448: the maxima of e4m3fnuz and e4m3fn"),
    (448.0 / 224.0, "applied or added twice, or a format's bias off by one, as of e4m3fnuz"),
    (240.0 / 224.0, "240 / 224: maxima of e4m3fnuz"),
    (224.0 / 240.0, "224 / 240: maxima of e4m3fnuz"),
    (0.5, "a format's bias off by one, as e4m3fn read as e4m3fnuz, or one of two shards left out"),
    (4.0, "two biases off by one, or a sum over 4 shards that are whole"),
    (0.25, "two biases off by one, or one of 4 shards"),
    (8.0, "a sum over 8 shards that are whole"),
    (0.125, "one of 8 shards"),
    (2.5, "a routed scaling factor applied once too often"),
    (0.4, "a routed scaling factor of 2.5 left out"),
    (127.0 / 128.0, "127 / 128: the range of int8"),
    (128.0 / 127.0, "128 / 127: the range of int8"),
    (7.0 / 8.0, "7 / 8: the range of int4"),
    (8.0 / 7.0, "8 / 7: the range of int4"),
    (-1.0, "the sign"),
];

/// The factor in words.
pub fn factor(gain: f64) -> String {
    let near = KNOWN.iter().find(|(known, _)| (gain / known - 1.0).abs() < 2e-4);
    match near {
        Some((known, words)) => format!("{:.4} ({words})", *known),
        None => format!("{gain:.4}"),
    }
}

/// The named factor, or power of two, that a fitted one is.
pub fn snapped(gain: f64) -> f64 {
    let power = gain.abs().log2().round().exp2().copysign(gain);
    let known = KNOWN.iter().map(|(known, _)| *known).chain([power]);
    known
        .min_by(|a, b| (gain / a - 1.0).abs().total_cmp(&(gain / b - 1.0).abs()))
        .filter(|known| (gain / known - 1.0).abs() < 5e-4)
        .unwrap_or(gain)
}

/// Whether a factor is one that many faults make, so that it tells none of them.
pub fn is_common(gain: f64) -> bool {
    let power = gain.abs().log2();
    (power - power.round()).abs() < 1e-3 || KNOWN.iter().any(|(known, _)| (gain / known - 1.0).abs() < 2e-4)
}

/// Fits of what comes of the size of results: how they are rounded, and where they end.
pub fn limits(reference: &Matrix, out: &Matrix, map: &Map, dtype: DType) -> Vec<Fit> {
    let mut found = rounding(reference, map, dtype);
    found.extend(gain(reference, out, map));
    found.extend(clamped(reference, out, map));
    found.extend(overflown(reference, out, map, dtype));
    found
}

/// Every fit that is worth a look. `map` says which elements are wrong.
pub fn fits(reference: &Matrix, out: &Matrix, map: &Map, dtype: DType, source: &Expr) -> Vec<Fit> {
    let mut found = limits(reference, out, map, dtype);
    found.extend(line_gains(reference, out, map));
    found.extend(moved(reference, out, map));
    found.extend(turned(reference, out));
    found.extend(tiles_turned(reference, out, map));
    found.extend(epilogues(reference, out, map, dtype));
    found.extend(offsets(reference, out, map));
    if matches!(source.0.op, Op::User { .. }) {
        found.extend(head_gains(reference, out, map));
    }
    found
}

/// The reference where the output is right, `f` of it where it is wrong.
pub(super) fn where_wrong(reference: &Matrix, map: &Map, f: impl Fn(usize, usize, f64) -> f64) -> Matrix {
    let mut out = reference.clone();
    for r in 0..out.rows {
        for (c, x) in out.row_mut(r).iter_mut().enumerate() {
            if map.is_wrong(r, c) {
                *x = f(r, c, *x);
            }
        }
    }
    out
}

/// The factor between pairs: the mean of the ratios near their median, which neither an outlier nor its rounding moves.
pub(super) fn ratio(pairs: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let mut ratios: Vec<f64> =
        pairs.filter(|(x, y)| y.is_finite() && x.is_normal()).map(|(x, y)| y / x).collect();
    let middle = ratios.len() / 2;
    if ratios.is_empty() {
        return None;
    }
    let median = *ratios.select_nth_unstable_by(middle, f64::total_cmp).1;
    let near = ratios.iter().filter(|r| (**r - median).abs() <= 0.01 * median.abs());
    let (sum, count) = near.fold((0.0, 0.0), |(sum, count), r| (sum + r, count + 1.0));
    Some(sum / count)
}

fn gain(reference: &Matrix, out: &Matrix, map: &Map) -> Option<Fit> {
    let wrong = (0..out.data.len())
        .filter(|&i| map.is_wrong(i / map.cols, i % map.cols))
        .map(|i| (reference.data[i], out.data[i]));
    let gain = ratio(wrong)?;
    if map.count < 4 || gain.abs() < 1e-6 || (gain - 1.0).abs() < 1e-5 {
        return None;
    }
    let reference = match map.is_everywhere() {
        true => reference.map(|x| gain * x),
        false => where_wrong(reference, map, |_, _, x| gain * x),
    };
    let what = match gain {
        g if (g + 1.0).abs() < 1e-3 => "has the wrong sign".into(),
        g => format!("is {} times what it should be", factor(g)),
    };
    Some(Fit {
        cause: "gain",
        what: what.into(),
        reference,
        gain: Some(gain),
        is_guess: false,
        of_columns: false,
    })
}

/// A factor for each row, or for each column.
fn line_gains(reference: &Matrix, out: &Matrix, map: &Map) -> Vec<Fit> {
    let mut found = Vec::new();
    if map.count < 16 {
        return found;
    }
    let range = |gains: &[Option<f64>]| {
        let known: Vec<f64> = gains.iter().flatten().copied().collect();
        let low = known.iter().copied().fold(f64::INFINITY, f64::min);
        let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    };
    let mut add = |line: &str, gains: Vec<Option<f64>>, of: fn(usize, usize) -> usize| {
        let (low, high) = range(&gains);
        if low.is_finite() && high - low > 1e-3 * high.abs() {
            let what = format!("has each {line} times a factor of its own, from {low:.4} to {high:.4}");
            found.push(Fit {
                cause: "gain",
                what: what.into(),
                reference: where_wrong(reference, map, |r, c, x| x * gains[of(r, c)].unwrap_or(1.0)),
                gain: None,
                is_guess: false,
                of_columns: false,
            });
        }
    };
    let pair = |r: usize, c: usize| (reference.row(r)[c], out.row(r)[c]);
    if map.cols >= 8 {
        let gains = (0..map.rows).map(|r| ratio((0..map.cols).map(|c| pair(r, c))));
        add("row", gains.collect(), |r, _| r);
    }
    if map.rows >= 8 {
        let gains = (0..map.cols).map(|c| ratio((0..map.rows).map(|r| pair(r, c))));
        add("column", gains.collect(), |_, c| c);
    }
    found
}

/// Values beyond a magnitude cut to it.
fn clamped(reference: &Matrix, out: &Matrix, map: &Map) -> Option<Fit> {
    let most = out.data.iter().filter(|x| x.is_finite()).fold(0.0_f64, |most, x| most.max(x.abs()));
    let largest = reference.data.iter().filter(|x| x.is_finite()).fold(0.0_f64, |most, x| most.max(x.abs()));
    if map.count == 0 || most == 0.0 || largest <= most * 1.0001 {
        return None;
    }
    Some(Fit {
        cause: "overflow",
        what: format!("is cut to magnitudes of at most {most}").into(),
        reference: reference.map(|x| x.clamp(-most, most)),
        gain: None,
        is_guess: false,
        of_columns: false,
    })
}

/// NaN or Inf exactly beyond a magnitude.
fn overflown(reference: &Matrix, out: &Matrix, map: &Map, dtype: DType) -> Option<Fit> {
    let broken = |i: usize| !out.data[i].is_finite() && reference.data[i].is_finite();
    let wrong: Vec<usize> =
        (0..out.data.len()).filter(|&i| map.is_wrong(i / map.cols, i % map.cols)).collect();
    // Beside what breaks, elements may be off by a rounding: they have passed through another format.
    let rounded = |i: usize| {
        let off = (out.data[i] - reference.data[i]).abs();
        off <= 2.0 * unit(dtype).max(unit(DType::F16)) * reference.data[i].abs()
    };
    if !wrong.iter().any(|&i| broken(i)) || !wrong.iter().all(|&i| broken(i) || rounded(i)) {
        return None;
    }
    let least =
        wrong.iter().filter(|&&i| broken(i)).map(|&i| reference.data[i].abs()).fold(f64::INFINITY, f64::min);
    let most = (0..out.data.len())
        .filter(|&i| !broken(i))
        .map(|i| reference.data[i].abs())
        .filter(|x| x.is_finite())
        .fold(0.0, f64::max);
    // Without a number beside them there is no magnitude from which on. The limit may have met what was rounded already.
    if most == 0.0 || least < most * (1.0 - 2f64.powi(-7)) {
        return None;
    }
    let near = if (most..=least).contains(&65504.0) { ": 65504 is the largest float16" } else { "" };
    Some(Fit {
        cause: "overflow",
        what: format!("is NaN or Inf for magnitudes from {least:.1} on{near}").into(),
        reference: where_wrong_copy(reference, out, map),
        gain: None,
        is_guess: false,
        of_columns: false,
    })
}

fn where_wrong_copy(reference: &Matrix, out: &Matrix, map: &Map) -> Matrix {
    where_wrong(reference, map, |r, c, _| out.row(r)[c])
}

/// Whole rows, or whole columns, in other places; those of the wrong rows or columns alone, where others are right.
fn moved(reference: &Matrix, out: &Matrix, map: &Map) -> Vec<Fit> {
    let mut found = Vec::new();
    let (rows, cols) = (map.wrong_rows(), map.wrong_cols());
    for (what, is_cols) in [("row", false), ("column", true)] {
        let (wrong, across) = if is_cols { (&cols, &rows) } else { (&rows, &cols) };
        // Lines that are compared, cut to where something is wrong.
        let lines = |of: &Matrix| {
            let of = if is_cols { of.transposed() } else { of.clone() };
            let data = (0..of.rows).flat_map(|r| across.iter().map(|&c| of.row(r)[c]).collect::<Vec<_>>());
            Matrix::new(of.rows, across.len(), data.collect())
        };
        let size = reference.data.len();
        let (reference_lines, out_lines) = (lines(reference), lines(out));
        // One element a line matches by chance.
        if across.len() < 3 || reference_lines.rows < 2 || wrong.is_empty() || size > 1 << 24 {
            continue;
        }
        let Some(sources) = matches(&reference_lines, &out_lines, wrong) else { continue };
        let mut moved = reference.clone();
        for (&to, &from) in wrong.iter().zip(&sources) {
            for &other in across {
                let ((r, c), (of_r, of_c)) =
                    if is_cols { ((other, to), (other, from)) } else { ((to, other), (from, other)) };
                moved.row_mut(r)[c] = reference.row(of_r)[of_c];
            }
        }
        let (cause, words) = mapping(what, wrong, &sources, reference_lines.rows);
        found.push(Fit {
            cause,
            what: words.into(),
            reference: moved,
            gain: None,
            is_guess: false,
            of_columns: is_cols,
        });
    }
    found
}

/// For each wrong row of `out` the row of `reference` that it holds; `None` if one holds none.
fn matches(reference: &Matrix, out: &Matrix, wrong: &[usize]) -> Option<Vec<usize>> {
    // A few elements tell rows apart; a candidate is then compared whole.
    let probes: Vec<usize> = {
        let step = (reference.cols / 8).max(1);
        (0..reference.cols).step_by(step).take(8).collect()
    };
    let near = |x: f64, y: f64, scale: f64| (x - y).abs() <= 0.02 * x.abs() + 0.002 * scale;
    wrong
        .iter()
        .map(|&to| {
            let y = out.row(to);
            let norm = y.iter().filter(|x| x.is_finite()).map(|x| x * x).sum::<f64>().sqrt();
            let scale = norm / (y.len() as f64).sqrt();
            let fits = |from: usize| {
                let x = reference.row(from);
                probes.iter().all(|&c| near(x[c], y[c], scale))
                    && x.iter().zip(y).filter(|(x, y)| !near(**x, **y, scale)).count() * 50 <= x.len()
            };
            // Neighbours first: the nearest explanation is the likeliest.
            let around = (1..reference.rows).flat_map(|d| [to.checked_sub(d), Some(to + d)]);
            around.flatten().filter(|&from| from < reference.rows).find(|&from| fits(from))
        })
        .collect()
}

/// A permutation in words, and the cause that makes it.
fn mapping(what: &str, to: &[usize], from: &[usize], n: usize) -> (&'static str, String) {
    let pairs = || to.iter().zip(from);
    let all = |f: &dyn Fn(usize) -> usize| pairs().all(|(&t, &s)| f(t) == s);
    if from.windows(2).all(|w| w[0] == w[1]) {
        return ("permuted_tiles", format!("has {what} {} in the place of {}", from[0], listed(what, to, n)));
    }
    let half = n / 2;
    if n.is_multiple_of(2) && all(&|i| (i + half) % n) {
        return ("gate_up_swapped", format!("has the halves of its {what}s exchanged"));
    }
    if n.is_multiple_of(2) && all(&|i| i % half * 2 + i / half) {
        return ("gate_up_swapped", format!("has alternating {what}s where it should have halves"));
    }
    if n.is_multiple_of(2) && all(&|i| i % 2 * half + i / 2) {
        return ("gate_up_swapped", format!("has its halves of {what}s where it should have them alternate"));
    }
    let shift = (from[0] as isize - to[0] as isize).rem_euclid(n as isize);
    let shift = if 2 * shift > n as isize { shift - n as isize } else { shift };
    if pairs().all(|(&t, &s)| (s as isize - t as isize - shift).rem_euclid(n as isize) == 0) {
        let places = if shift.abs() == 1 { "place" } else { "places" };
        let direction = if shift > 0 { "early" } else { "late" };
        return (
            "permuted_tiles",
            format!(
                "has its {what}s {} {places} too {direction}: {} holds {what} {}",
                shift.abs(),
                to[0],
                from[0]
            ),
        );
    }
    if all(&|i| n - 1 - i) {
        return ("permuted_tiles", format!("has its {what}s in reverse order"));
    }
    for tile in [1, 2, 4, 8, 16, 32, 64, 128] {
        if tile < n && all(&|i| i ^ tile) {
            return ("permuted_tiles", format!("has neighbouring tiles of {tile} {what}s exchanged"));
        }
    }
    // Tiles of a table in the other order, as of queries, keys and values by head.
    for tile in [1, 8, 16, 32, 64, 80, 96, 128, 256] {
        for (high, wide) in (2..=16).flat_map(|high| (2..=64).map(move |wide| (high, wide))) {
            let (whole, tiles) = (high * wide * tile, |i: usize| (i / tile / wide, i / tile % wide));
            let turned = |i: usize| (tiles(i).1 * high + tiles(i).0) * tile + i % tile;
            if whole <= n && to.iter().all(|&i| i < whole) && all(&turned) {
                let words = format!("has its tiles of {tile} {what}s, {wide} x {high} of them, transposed");
                return ("permuted_tiles", words);
            }
        }
    }
    let examples: Vec<String> = pairs().take(3).map(|(t, s)| format!("{t} holds {s}")).collect();
    ("permuted_tiles", format!("has its {what}s in another order: {}, ...", examples.join(", ")))
}

fn listed(what: &str, set: &[usize], n: usize) -> String {
    indices(what, set, n).unwrap_or_else(|| format!("all {what}s"))
}

/// The output written as its transpose.
fn turned(reference: &Matrix, out: &Matrix) -> Option<Fit> {
    let (rows, cols) = (out.rows, out.cols);
    if rows == 1 || cols == 1 {
        return None;
    }
    let data = (0..rows * cols).map(|i| reference.data[i % rows * cols + i / rows]).collect();
    Some(Fit {
        cause: "transposed",
        what: "is written as its transpose".into(),
        reference: Matrix::new(rows, cols, data),
        gain: None,
        is_guess: false,
        of_columns: false,
    })
}

/// Whether `value(row, column)` is near what is wrong, on some of it: before a whole reference is made.
fn plausible(out: &Matrix, map: &Map, value: impl Fn(usize, usize) -> f64) -> bool {
    const SAMPLE: usize = 32;
    let spread = |of: &[usize]| -> Vec<usize> {
        let step = of.len().div_ceil(SAMPLE).max(1);
        of.iter().copied().step_by(step).collect()
    };
    let (mut near, mut seen) = (0, 0);
    for r in spread(&map.wrong_rows()) {
        let row = out.row(r);
        let scale =
            (row.iter().filter(|x| x.is_finite()).map(|x| x * x).sum::<f64>() / row.len() as f64).sqrt();
        let wrong: Vec<usize> = (0..map.cols).filter(|&c| map.is_wrong(r, c)).collect();
        for c in spread(&wrong) {
            seen += 1;
            near += usize::from((value(r, c) - row[c]).abs() <= 0.02 * row[c].abs() + 0.002 * scale);
        }
    }
    near > 0 && near * 20 >= seen * 19
}

/// Each whole tile transposed, as by a store that takes rows of a matrix instruction's result for its columns.
fn tiles_turned(reference: &Matrix, out: &Matrix, map: &Map) -> Option<Fit> {
    let tiles = [4, 8, 16, 32, 64, 128].into_iter();
    tiles.filter(|&tile| tile <= reference.rows && tile <= reference.cols).find_map(|tile| {
        let (down, across) = (reference.rows / tile * tile, reference.cols / tile * tile);
        let value = |r: usize, c: usize| match r < down && c < across {
            true => reference.row(r / tile * tile + c % tile)[c / tile * tile + r % tile],
            false => reference.row(r)[c],
        };
        plausible(out, map, value).then(|| Fit {
            cause: "permuted_tiles",
            what: format!("has each tile of {tile} x {tile} transposed").into(),
            reference: where_wrong(reference, map, |r, c, _| value(r, c)),
            gain: None,
            is_guess: false,
            of_columns: false,
        })
    })
}

/// A function of each element that is not declared.
fn epilogues(reference: &Matrix, out: &Matrix, map: &Map, dtype: DType) -> Vec<Fit> {
    let extremes = |of: &Matrix| {
        let finite = of.data.iter().copied().filter(|x| x.is_finite());
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((least, most), (low, high)) = (extremes(out), extremes(reference));
    /// Cause, words and function.
    type Epilogue = (&'static str, String, Box<dyn Fn(f64) -> f64>);
    let mut functions: Vec<Epilogue> = Vec::new();
    for function in [Unary::Relu, Unary::Silu, Unary::Gelu, Unary::Sigmoid] {
        let what = format!("has passed through {function:?}, which is not declared");
        functions.push(("activation", what, Box::new(move |x| function.of(x))));
    }
    functions.push((
        "activation",
        "has passed through tanh, which is not declared".into(),
        Box::new(f64::tanh),
    ));
    functions.push(("fp8_variant", "has lost its signs".into(), Box::new(f64::abs)));
    for (own, other) in [(DType::BF16, DType::F16), (DType::F16, DType::BF16)] {
        if dtype == own {
            let what = format!("holds the bytes of {other}; declared is {own}");
            let bytes = move |x: f64| own.decode(other.encode(x, crate::dtype::Overflow::Special));
            functions.push(("fp8_variant", what, Box::new(bytes)));
        }
    }
    if most < high && most > 0.0 {
        functions.push(("overflow", format!("is cut to at most {most}"), Box::new(move |x| x.min(most))));
    }
    if least > low && least < 0.0 {
        functions.push(("overflow", format!("is cut to at least {least}"), Box::new(move |x| x.max(least))));
    }
    functions.retain(|(_, _, f)| plausible(out, map, |r, c| f(reference.row(r)[c])));
    let fit = |(cause, what, f): Epilogue| Fit {
        cause,
        what: what.into(),
        reference: reference.map(&f),
        gain: None,
        is_guess: false,
        of_columns: false,
    };
    functions.into_iter().map(fit).collect()
}

/// A factor for each row of each head: what a softmax was divided by. Of an operation with a function of its own.
fn head_gains(reference: &Matrix, out: &Matrix, map: &Map) -> Option<Fit> {
    if map.count < 64 {
        return None;
    }
    let widths = [32, 64, 80, 96, 128, 192, 256].into_iter();
    widths.filter(|&d| d < map.cols && map.cols.is_multiple_of(d)).rev().find_map(|d| {
        let gain = |r: usize, head: usize| {
            let wrong = (head * d..(head + 1) * d).filter(|&c| map.is_wrong(r, c));
            ratio(wrong.map(|c| (reference.row(r)[c], out.row(r)[c]))).unwrap_or(1.0)
        };
        let heads = map.cols / d;
        let gains: Vec<f64> = (0..map.rows * heads).map(|i| gain(i / heads, i % heads)).collect();
        let low = gains.iter().copied().fold(f64::INFINITY, f64::min);
        let high = gains.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let one_way = low > 0.0 && (high <= 1.0 + 1e-3 || low >= 1.0 - 1e-3);
        let value = |r: usize, c: usize| reference.row(r)[c] * gains[r * heads + c / d];
        (one_way && plausible(out, map, value)).then(|| {
            let (cause, what) = match high <= 1.0 + 1e-3 {
                true => ("addend_extra", "has an addend too many, as a sink"),
                false => ("addend_missing", "lacks an addend"),
            };
            Fit {
                cause,
                what: format!(
                    "has a factor for each row of each {d} columns, from {low:.4} to {high:.4}: the sum that heads of \
                     {d} are divided by {what}"
                ).into(),
                reference: where_wrong(reference, map, |r, c, _| value(r, c)),
                gain: None,
                // Whatever changes one term of the sum does so.
                is_guess: true, of_columns: false,
            }
        })
    })
}

/// A constant for each column, for each row or for all that is missing or too much.
fn offsets(reference: &Matrix, out: &Matrix, map: &Map) -> Vec<Fit> {
    let mut found = Vec::new();
    if map.rows < 8 || map.count < 16 {
        return found;
    }
    let mean: Vec<f64> = (0..map.cols)
        .map(|c| {
            let differences: Vec<f64> = (0..map.rows)
                .map(|r| out.row(r)[c] - reference.row(r)[c])
                .filter(|d| d.is_finite())
                .collect();
            let mut sorted = differences;
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
        })
        .collect();
    let mut shifted = reference.clone();
    for r in 0..shifted.rows {
        shifted.row_mut(r).iter_mut().zip(&mean).for_each(|(x, d)| *x += d);
    }
    found.push(Fit {
        cause: "addend_missing",
        what: "differs by a constant for each column: a bias is missing or added twice".into(),
        reference: shifted,
        gain: None,
        is_guess: false,
        of_columns: false,
    });
    found
}

/// The output rounded otherwise than to nearest, or to another format: everywhere, or in the rows or columns alone that
/// have wrong elements.
fn rounding(reference: &Matrix, map: &Map, dtype: DType) -> Vec<Fit> {
    let mut found = Vec::new();
    if map.count == 0 {
        return found;
    }
    let in_rows = map.wrong_rows().len() < map.rows;
    let in_cols = map.wrong_cols().len() < map.cols;
    let mut add = |what: String, f: &dyn Fn(f64) -> f64| {
        found.push(Fit {
            cause: "rounding",
            what: what.clone().into(),
            reference: reference.map(f),
            gain: None,
            is_guess: false,
            of_columns: false,
        });
        for (part, of_rows) in [(in_rows, true), (in_cols, false)] {
            if part {
                let mut rounded = reference.clone();
                for r in 0..rounded.rows {
                    for (c, x) in rounded.row_mut(r).iter_mut().enumerate() {
                        let wrong = if of_rows { map.row_count[r] > 0 } else { map.col_count[c] > 0 };
                        *x = if wrong { f(*x) } else { *x };
                    }
                }
                found.push(Fit {
                    cause: "rounding",
                    what: what.clone().into(),
                    reference: rounded,
                    gain: None,
                    is_guess: false,
                    of_columns: false,
                });
            }
        }
    };
    let overflow = crate::dtype::Overflow::Special;
    if matches!(dtype, DType::BF16 | DType::F16 | DType::F32) {
        add(format!("is truncated to {dtype}, not rounded"), &|x| {
            let code = dtype.encode(x, overflow);
            let near = dtype.decode(code);
            // One code nearer to zero: positive floats are ordered as their codes.
            if near.abs() > x.abs() && near.is_finite() { dtype.decode(code - 1) } else { near }
        });
    }
    for narrow in [DType::E4M3Fn, DType::E4M3Fnuz, DType::E5M2] {
        let saturate = crate::dtype::Overflow::Saturate;
        add(format!("is rounded to {narrow} first"), &|x| narrow.decode(narrow.encode(x, saturate)));
    }
    for narrow in [DType::F16, DType::BF16] {
        if dtype != narrow {
            add(format!("is rounded to {narrow} first"), &|x| narrow.decode(narrow.encode(x, overflow)));
        }
    }
    found
}
