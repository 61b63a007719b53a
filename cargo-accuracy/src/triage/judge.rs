//! One replayed output against what a dump has: within what rounding explains, or not.

use accuracy_core::metrics::compare;
use accuracy_core::quant::Quant;
use accuracy_core::reference::Matrix;

/// An output may be off by this many times the noise of an implementation that rounds every intermediate value: others
/// round elsewhere, not more often.
const FACTOR: f64 = 3.0;
/// The same for single rows, whose noise is one draw of few values.
const ROW_FACTOR: f64 = 8.0;
/// Noise, however much a format makes of it, changes the size of the whole by no more than this, or than its mean over
/// rows would.
const MAX_GAIN: f64 = 1e-2;

/// What is known of a value that several ranks have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranks {
    #[default]
    Agree,
    /// Each has a summand of it.
    Summands,
    /// They should have the same and do not.
    Apart,
    /// The sum over ranks was done once too often.
    SummedTwice,
    /// The sum over ranks was never done.
    NeverSummed,
}

/// How far an output is from its replay.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    pub cos: Option<f64>,
    pub gain: Option<f64>,
    /// How far the gain may be from 1.
    pub gain_bound: f64,
    /// Relative L2 error and what noise allows of it.
    pub error: f64,
    pub bound: f64,
    /// The row that is furthest beyond its own bound.
    pub row: Option<usize>,
    pub row_error: f64,
    pub row_bound: f64,
    /// Rows beyond their bound, and all of them.
    pub rows_bad: usize,
    pub rows: usize,
    /// NaN or Inf where the replay has none.
    pub non_finite: u64,
    pub ok: bool,
    /// Right or wrong only if nothing comes before the step's tokens, which the dump does not show.
    pub alone: bool,
    /// Operations of the plan whose outputs are not in the dump and were computed on the way.
    pub through: Vec<usize>,
    pub ranks: Ranks,
    /// It would be right if the factor of the routing weights were applied later.
    pub late: bool,
    /// How its inputs were quantised, as far as the comparison tells.
    pub inputs: Option<Quant>,
    /// What is odd about it, in words.
    pub notes: Vec<String>,
}

/// Judges `out` against `exact`; `noisy` is the same computed with rounding, `unit` the output format's, `extra` an error
/// relative to each row that accumulation in f32 may add.
pub fn judge(exact: &Matrix, noisy: &Matrix, out: &Matrix, unit: f64, extra: &[f64]) -> Judged {
    judge_rows([exact, noisy, out], unit, extra, &|row| row, true)
}

/// [`judge`] of weights of experts, most of which are zero.
pub fn judge_choice([exact, noisy, out]: [&Matrix; 3], unit: f64, extra: &[f64]) -> Judged {
    judge_rows([exact, noisy, out], unit, extra, &|row| row, false)
}

/// [`judge`] of the rows that are not `hidden` (empty: of all): the hidden ones have no right answer.
pub fn judge_shown(all: [&Matrix; 3], unit: f64, extra: &[f64], hidden: &[bool]) -> Judged {
    if hidden.is_empty() {
        return judge(all[0], all[1], all[2], unit, extra);
    }
    let kept: Vec<usize> = (0..hidden.len()).filter(|&r| !hidden[r]).collect();
    let extra: Vec<f64> = kept.iter().filter_map(|&r| extra.get(r).copied()).collect();
    let [exact, noisy, out] = all.map(|m| rows_of(m, &kept));
    judge_rows([&exact, &noisy, &out], unit, &extra, &|row| kept[row], true)
}

/// NaN and Inf in hidden rows where the replay has none: they may reach what is not hidden.
pub fn judge_hidden(judged: &mut Judged, exact: &Matrix, out: &Matrix, hidden: &[bool]) {
    let rows = (0..hidden.len()).filter(|&r| hidden[r] && exact.row(r).iter().all(|x| x.is_finite()));
    let odd = rows.map(|r| out.row(r).iter().filter(|x| !x.is_finite()).count() as u64).sum::<u64>();
    if odd > 0 {
        judged.ok = false;
        judged.non_finite += odd;
        judged.notes.push(format!("NaN or infinite in rows of padding, where it should not be: {odd}"));
    }
}

/// Relative L2 error of the rows that are not hidden.
pub fn error_shown(exact: &Matrix, out: &Matrix, hidden: &[bool]) -> f64 {
    if hidden.len() != exact.rows {
        return relative_error(exact, out);
    }
    let kept: Vec<usize> = (0..hidden.len()).filter(|&r| !hidden[r]).collect();
    relative_error(&rows_of(exact, &kept), &rows_of(out, &kept))
}

/// Some rows of a matrix.
pub fn rows_of(x: &Matrix, rows: &[usize]) -> Matrix {
    Matrix::new(rows.len(), x.cols, rows.iter().flat_map(|&r| x.row(r).to_vec()).collect())
}

/// `number` says by what number people know a row.
fn judge_rows(
    [exact, noisy, out]: [&Matrix; 3],
    unit: f64,
    extra: &[f64],
    number: &dyn Fn(usize) -> usize,
    dense: bool,
) -> Judged {
    let compared = compare(exact, out);
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    let norm = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>();
    let (mut noise, mut size, mut error, mut added, mut fourth) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for r in 0..exact.rows {
        let n = norm(exact.row(r));
        noise += square(exact.row(r), noisy.row(r));
        error += square(exact.row(r), out.row(r));
        added += extra.get(r).map_or(0.0, |e| e * e * n);
        size += n;
        fourth += n * n;
    }
    // Rows that carry the whole: their errors are independent draws, of which the gain is a mean.
    let draws = if fourth > 0.0 { size * size / fourth } else { 1.0 };
    let relative = |x: f64| if size > 0.0 { (x / size).sqrt() } else { x.sqrt() };
    // One rounding of the output is about 0.4 of the unit in the mean square.
    let floor = relative(noise).max(0.4 * unit) + relative(added);
    let mut judged = Judged {
        cos: compared.cos,
        gain: compared.gain,
        error: relative(error),
        bound: FACTOR * floor,
        gain_bound: MAX_GAIN.max(FACTOR * floor / draws.sqrt()),
        rows: exact.rows,
        non_finite: compared.nan_unexpected + compared.inf_unexpected,
        ..Judged::default()
    };
    let mut worst = 0.0;
    for r in 0..exact.rows {
        let n = norm(exact.row(r)).sqrt();
        let row_noise = square(exact.row(r), noisy.row(r)).sqrt();
        let bound = ROW_FACTOR * (row_noise.max(floor * n) + extra.get(r).map_or(0.0, |e| e * n)) + 1e-30;
        let off = square(exact.row(r), out.row(r)).sqrt();
        let ratio = if off.is_nan() { f64::INFINITY } else { off / bound };
        judged.rows_bad += usize::from(ratio > 1.0);
        if ratio > worst || judged.row.is_none() {
            worst = ratio;
            judged.row = Some(r);
            let scale = if n > 0.0 { n } else { 1.0 };
            (judged.row_error, judged.row_bound) = (off / scale, bound / scale);
        }
    }
    let gain_holds = judged.gain.is_none_or(|g| (g - 1.0).abs() <= judged.gain_bound);
    judged.ok = judged.non_finite == 0 && judged.error <= judged.bound && worst <= 1.0 && gain_holds;
    if !judged.ok {
        judged.notes = describe(&judged, exact, out, number);
        if dense {
            judged.notes.extend(unwritten(exact, out));
        }
    }
    judged.row = judged.row.map(number);
    judged
}

/// Relative L2 error alone; infinite of matrices of different shapes.
pub fn relative_error(exact: &Matrix, out: &Matrix) -> f64 {
    if (exact.rows, exact.cols) != (out.rows, out.cols) {
        return f64::INFINITY;
    }
    compare(exact, out).rel_l2.unwrap_or(f64::INFINITY)
}

fn describe(judged: &Judged, exact: &Matrix, out: &Matrix, number: &dyn Fn(usize) -> usize) -> Vec<String> {
    let mut notes = Vec::new();
    if judged.non_finite > 0 {
        let values = if judged.non_finite == 1 { "value is" } else { "values are" };
        notes.push(format!("{} {values} NaN or infinite and should not be", judged.non_finite));
        return notes;
    }
    let gain = judged.gain.unwrap_or(1.0);
    let unexplained = relative_error(&exact.map(|x| gain * x), out);
    if (gain - 1.0).abs() > judged.bound.min(judged.gain_bound) && unexplained <= judged.bound {
        notes.push(format!("right but for a constant: scaled by {gain:.4}"));
        return notes;
    }
    if judged.rows > 1 && judged.rows_bad > 0 && judged.rows_bad * 4 <= judged.rows {
        let row = judged.row.unwrap_or(0);
        let zero = if out.row(row).iter().all(|&v| v == 0.0) { ", which is zero" } else { "" };
        let (bad, all, worst) = (judged.rows_bad, judged.rows, number(row));
        notes.push(format!("{bad} of {all} tokens are wrong, worst {worst}{zero}"));
    }
    notes
}

/// Columns that are zero and should not be.
fn unwritten(exact: &Matrix, out: &Matrix) -> Option<String> {
    let dead = (0..out.cols).filter(|&c| {
        (0..out.rows).all(|r| out.row(r)[c] == 0.0) && (0..out.rows).any(|r| exact.row(r)[c] != 0.0)
    });
    let dead: Vec<usize> = dead.collect();
    match (dead.first(), dead.last()) {
        (Some(first), Some(last)) if dead.len() < out.cols => {
            Some(format!("{} of {} columns are zero ({first} to {last}): not written", dead.len(), out.cols))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy_core::model::ops::Precision;

    fn noise(rows: usize, cols: usize, seed: u64) -> Matrix {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
        };
        Matrix::new(rows, cols, (0..rows * cols).map(|_| next()).collect())
    }

    #[test]
    fn rounding_passes_and_a_factor_of_one_percent_does_not() {
        let x = noise(32, 64, 1);
        let rounded = Precision::BF16.apply(x.clone());
        assert!(judge(&x, &rounded, &rounded, Precision::BF16.unit(), &[]).ok);
        let scaled = Precision::BF16.apply(x.map(|v| 0.99 * v));
        let judged = judge(&x, &rounded, &scaled, Precision::BF16.unit(), &[]);
        assert!(!judged.ok);
        assert!(judged.notes[0].contains("scaled by 0.99"), "{:?}", judged.notes);
    }

    #[test]
    fn room_for_noise_is_none_for_a_factor() {
        let (x, draw) = (noise(32, 64, 1), noise(32, 64, 5));
        // As much as activations in FP8 make.
        let with = |seed: &Matrix, scale: f64| {
            let values = x.data.iter().zip(&seed.data).map(|(x, n)| scale * (x + 0.024 * n)).collect();
            Matrix::new(32, 64, values)
        };
        let noisy = with(&draw, 1.0);
        let other = noise(32, 64, 9);
        assert!(judge(&x, &noisy, &with(&other, 1.0), 0.0, &[]).ok);
        let judged = judge(&x, &noisy, &with(&other, 0.95), 0.0, &[]);
        assert!(judged.error < judged.bound && !judged.ok, "{judged:?}");
        assert!(judged.notes[0].contains("scaled by 0.95"), "{:?}", judged.notes);
    }

    #[test]
    fn hidden_rows_count_only_where_they_are_not_finite() {
        let x = noise(8, 16, 3);
        let hidden: Vec<bool> = (0..8).map(|r| r < 3).collect();
        let mut out = x.clone();
        out.row_mut(1).reverse();
        assert_eq!(error_shown(&x, &out, &hidden), 0.0);
        assert!(judge_shown([&x, &x, &out], 0.0, &[], &hidden).ok);
        out.row_mut(5).reverse();
        let judged = judge_shown([&x, &x, &out], 0.0, &[], &hidden);
        assert_eq!((judged.ok, judged.row, judged.rows_bad, judged.rows), (false, Some(5), 1, 5));
        let mut out = x.clone();
        out.row_mut(2)[7] = f64::NAN;
        let mut judged = judge_shown([&x, &x, &out], 0.0, &[], &hidden);
        assert!(judged.ok);
        judge_hidden(&mut judged, &x, &out, &hidden);
        assert_eq!((judged.ok, judged.non_finite), (false, 1));
    }

    #[test]
    fn one_wrong_token_and_unwritten_columns_are_named() {
        let x = noise(64, 32, 2);
        let mut out = x.clone();
        out.row_mut(7).reverse();
        let judged = judge(&x, &x, &out, Precision::BF16.unit(), &[]);
        assert_eq!((judged.ok, judged.row, judged.rows_bad), (false, Some(7), 1));
        let mut out = x.clone();
        (0..64).for_each(|r| out.row_mut(r)[30..].fill(0.0));
        let judged = judge(&x, &x, &out, Precision::BF16.unit(), &[]);
        assert!(
            judged.notes.iter().any(|n| n.contains("2 of 32 columns are zero (30 to 31)")),
            "{:?}",
            judged.notes
        );
    }
}
