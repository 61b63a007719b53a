//! Tiers of the cosine, default bounds, and the checks of a verdict.
//!
//! A verdict is a vector. Each check has a value, a bound and a margin, so that a reader sees how far a case was
//! from failing; none of them stands for the others:
//!
//! - a gain (e4m3fn read as e4m3fnuz) leaves the cosine at exactly 1;
//! - one massive row hides wrong ones from every global number, so the worst row is judged by itself;
//! - unwritten columns of a wide output cost the cosine less than quantisation does.

use crate::check_name::CheckName;
use crate::check_result::{CheckResult, Verdict};
use crate::metrics::Comparison;

/// Least cosine that counts as correct.
pub const MIN_COS: f64 = 0.999;
/// Least cosine of a single row.
pub const MIN_ROW_COS: f64 = 0.99;
/// Largest deviation of the gain from 1.
pub const MAX_GAIN: f64 = 0.01;
/// A relative L2 may be this many times what rounding and accumulation, or quantisation, allow.
pub const NOISE_FACTOR: f64 = 1.5;

/// A least cosine that somebody asks for: a number from -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct LeastCosine(f64);

impl LeastCosine {
    /// What a value has to be, for messages.
    pub const EXPECTED: &str = "a number from -1 to 1";
    pub const DEFAULT: LeastCosine = LeastCosine(MIN_COS);

    /// `None` for what is no number from -1 to 1.
    pub fn new(cos: f64) -> Option<LeastCosine> {
        (-1.0..=1.0).contains(&cos).then_some(LeastCosine(cos))
    }

    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether less counts as correct than where nobody says anything.
    pub fn is_loose(self) -> bool {
        self < LeastCosine::DEFAULT
    }
}

impl std::fmt::Display for LeastCosine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no [`LeastCosine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", LeastCosine::EXPECTED)]
pub struct NoCosine;

impl std::str::FromStr for LeastCosine {
    type Err = NoCosine;

    fn from_str(text: &str) -> Result<LeastCosine, NoCosine> {
        text.parse().ok().and_then(LeastCosine::new).ok_or(NoCosine)
    }
}

/// The least cosines that are asked for in the places where somebody may, the strongest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// By the flag or the variable of this run.
    pub run: Option<LeastCosine>,
    /// By the attribute of the test.
    pub test: Option<LeastCosine>,
    /// By the configuration of the test's package or of the workspace.
    pub configuration: Option<LeastCosine>,
}

/// Who has decided a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    Run,
    Test,
    Configuration,
    Default,
}

impl Asked {
    /// The least cosine that counts, and who has decided it. This is the only place that knows the precedence.
    pub fn decide(self) -> (LeastCosine, DecidedBy) {
        let asked = [
            (self.run, DecidedBy::Run),
            (self.test, DecidedBy::Test),
            (self.configuration, DecidedBy::Configuration),
        ];
        let first = asked.into_iter().find_map(|(cos, by)| Some((cos?, by)));
        first.unwrap_or((LeastCosine::DEFAULT, DecidedBy::Default))
    }
}

/// A number as a message has it: at most six digits that count.
pub fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return format!("{x}");
    }
    let rounded = format!("{x:.5e}");
    let Some((digits, exponent)) = rounded.split_once('e') else { return rounded };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        let plain = format!("{x:.places$}");
        return match plain.contains('.') {
            true => plain.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => plain,
        };
    }
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A cosine as a message has it: six decimals, and what is below 1 does not read as 1.
pub fn cosine_text(value: f64) -> String {
    if (0.999_999_5..1.0).contains(&value) { "0.999999".into() } else { format!("{value:.6}") }
}

/// The tier of a cosine; a cosine that does not exist (NaN in the output, a zero output) is the worst.
pub fn tier(cos: Option<f64>, min_cos: f64) -> Verdict {
    match cos {
        Some(c) if c > min_cos => Verdict::Correct,
        Some(c) if c > 0.99 => Verdict::Suspicious,
        Some(c) if c > 0.9 => Verdict::Broken,
        _ => Verdict::Catastrophic,
    }
}

/// A check that holds where `value` is at least `bound`. The margin is the distance in units of what `1` leaves.
pub fn at_least(check: CheckName, hop: &str, value: Option<f64>, bound: f64) -> CheckResult {
    CheckResult {
        check,
        hop: hop.into(),
        value,
        bound: Some(bound),
        margin: value.map(|v| v - bound),
        ok: value.is_some_and(|v| v > bound),
        detail: String::new(),
    }
}

/// A check that holds where `value` is at most `bound`. The margin is relative to the bound.
pub fn at_most(check: CheckName, hop: &str, value: Option<f64>, bound: f64) -> CheckResult {
    let margin = value.map(|v| if bound > 0.0 { 1.0 - v / bound } else { 0.0 - v });
    CheckResult {
        check,
        hop: hop.into(),
        value: value.filter(|v| v.is_finite()),
        bound: Some(bound),
        margin: margin.filter(|m| m.is_finite()),
        ok: value.is_some_and(|v| v <= bound),
        detail: String::new(),
    }
}

/// A check of a count that has to be zero.
pub fn none(check: CheckName, hop: &str, count: u64, detail: impl Into<String>) -> CheckResult {
    CheckResult { detail: detail.into(), ..at_most(check, hop, Some(count as f64), 0.0) }
}

/// What the comparison of a buffer with its reference is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Least cosine of the whole.
    pub cos: f64,
    /// Least cosine of a row.
    pub row_cos: f64,
    /// How far the gain may be from 1.
    pub gain: f64,
    /// The relative L2 that format and accumulation allow, already with [`NOISE_FACTOR`]; without it that is not judged.
    pub rel_l2: Option<f64>,
}

impl Bounds {
    /// The bounds of a hop whose kernel decides no tie.
    pub fn usual(min_cos: f64, rel_l2: Option<f64>) -> Bounds {
        Bounds { cos: min_cos, row_cos: MIN_ROW_COS, gain: MAX_GAIN, rel_l2 }
    }

    /// The same, where `ties` is the distance between two results that differ in how ties are decided. A value that is cut off
    /// to 126 where it could be 127 makes a whole row smaller, and a query on the other side of a tie turns one.
    pub fn allowing(self, ties: &Comparison) -> Bounds {
        // The distance of a cosine from 1 goes by the square of the relative L2.
        let least =
            |bound: f64, cos: Option<f64>| bound.min(1.0 - NOISE_FACTOR.powi(2) * (1.0 - cos.unwrap_or(1.0)));
        Bounds {
            cos: least(self.cos, ties.cos),
            row_cos: least(self.row_cos, ties.cos_row_min),
            gain: self.gain + ties.gain.map_or(0.0, |gain| (gain - 1.0).abs()),
            rel_l2: self.rel_l2,
        }
    }
}

/// The checks that compare a buffer with its reference, within the usual bounds; `max_rel_l2` as in [`Bounds`].
pub fn comparison_checks(
    hop: &str,
    c: &Comparison,
    min_cos: f64,
    max_rel_l2: Option<f64>,
) -> Vec<CheckResult> {
    bounded_checks(hop, c, &Bounds::usual(min_cos, max_rel_l2))
}

/// The checks that compare a buffer with its reference.
pub fn bounded_checks(hop: &str, c: &Comparison, bounds: &Bounds) -> Vec<CheckResult> {
    let mut checks = vec![at_least(CheckName::Cos, hop, c.cos, bounds.cos)];
    if let Some(row) = c.row_min_index {
        checks.push(CheckResult {
            detail: format!("row {row}"),
            ..at_least(CheckName::CosRowMin, hop, c.cos_row_min, bounds.row_cos)
        });
    }
    let detail = c.zero_row_index.map_or(String::new(), |r| format!("row {r} is not zero"));
    checks.push(none(CheckName::ZeroRows, hop, c.zero_rows_wrong, detail));
    checks.push(CheckResult {
        detail: c.gain.map_or(String::new(), |g| format!("gain {g:.6}")),
        ..at_most(CheckName::Gain, hop, c.gain.map(|g| (g - 1.0).abs()), bounds.gain)
    });
    if let Some(bound) = bounds.rel_l2 {
        checks.push(at_most(CheckName::RelL2, hop, c.rel_l2, bound));
    }
    let elements = |n: u64| if n == 1 { "1 element is".to_owned() } else { format!("{n} elements are") };
    let made = c.nan_unexpected - c.nan_missing;
    let mut detail = Vec::new();
    if made > 0 {
        detail.push(format!("{} NaN where the reference has numbers", elements(made)));
    }
    if c.nan_missing > 0 {
        detail.push(format!("{} no NaN where the reference is NaN", elements(c.nan_missing)));
    }
    checks.push(none(CheckName::Nan, hop, c.nan_unexpected, detail.join(", ")));
    checks.push(none(CheckName::Inf, hop, c.inf_unexpected, ""));
    checks
}

/// Whether every check of [`comparison_checks`] would hold for any reference whose rows are within `off` (euclidean) of
/// those that were compared with.
///
/// With `e` for the share of the reference's norm that it may be off by, the angle to it moves by at most `asin(e)`, and
/// norms and inner products by what the triangle inequality and Cauchy and Schwarz allow. What the format's rounding
/// allows moves by as much as the reference does: the distance from the nearest of a format's values never changes
/// faster than the value.
pub fn hold_within(c: &Comparison, off: &[f64], min_cos: f64, max_rel_l2: Option<f64>) -> bool {
    let share = |off: f64, norm: f64| if off == 0.0 { 0.0 } else { off / norm };
    let (mut square_off, mut square) = (0.0, 0.0);
    for ((cos, norm), &off) in c.rows().zip(off) {
        (square_off, square) = (square_off + off * off, square + norm * norm);
        let holds = norm == 0.0 && off == 0.0 || least_cos(cos, share(off, norm)) > MIN_ROW_COS;
        if !holds {
            return false;
        }
    }
    let e = share(square_off.sqrt(), square.sqrt());
    let (Some(gain), Some(rel)) = (c.gain, c.rel_l2) else { return false };
    let gain_off = e * (1.0 + rel);
    let gain_least = (gain - gain_off) / (1.0 + e).powi(2);
    let gain_most = (gain + gain_off) / (1.0 - e).powi(2);
    let rel_holds = |max: f64| (rel + e) / (1.0 - e) <= (max - NOISE_FACTOR * 1.001 * e) / (1.0 + e);
    least_cos(c.cos, e) > min_cos
        && gain_least >= 1.0 - MAX_GAIN
        && gain_most <= 1.0 + MAX_GAIN
        && max_rel_l2.is_none_or(rel_holds)
        && c.zero_rows_wrong + c.nan_unexpected + c.inf_unexpected == 0
}

/// The least cosine with anything that is off by up to a share `e` of the reference's norm; NaN where that is not less
/// than half.
fn least_cos(cos: Option<f64>, e: f64) -> f64 {
    match cos {
        Some(cos) if e < 0.5 => (cos.acos() + e.asin()).min(std::f64::consts::PI).cos(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_decides_before_the_test_and_the_test_before_the_configuration() {
        let [run, test, configuration] = [0.5, 0.6, 0.7].map(LeastCosine::new);
        let all = Asked { run, test, configuration };
        for (asked, cos, by) in [
            (all, 0.5, DecidedBy::Run),
            (Asked { run: None, ..all }, 0.6, DecidedBy::Test),
            (Asked { run: None, test: None, ..all }, 0.7, DecidedBy::Configuration),
            (Asked::default(), MIN_COS, DecidedBy::Default),
        ] {
            assert_eq!(asked.decide(), (LeastCosine::new(cos).unwrap(), by));
        }
    }

    #[test]
    fn a_least_cosine_is_a_number_from_minus_one_to_one() {
        for text in ["1.5", "-1.01", "NaN", "inf", "x", ""] {
            assert_eq!(text.parse::<LeastCosine>(), Err(NoCosine), "{text}");
        }
        for (text, cos) in [("-1", -1.0), ("0.999", 0.999), ("1", 1.0)] {
            assert_eq!(text.parse::<LeastCosine>().map(LeastCosine::get), Ok(cos));
        }
    }

    #[test]
    fn numbers_in_messages_have_six_digits_at_most() {
        for (x, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-448.0, "-448"),
            (2.0 / 3.0, "0.666667"),
            (123_456.789, "123457"),
            (1_234_567.0, "1.23457e6"),
            (1.5e-9, "1.5e-9"),
            (0.000_123_456_789, "0.000123457"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(x), text);
        }
    }

    #[test]
    fn a_nan_says_on_which_side_it_is() {
        let detail = |reference: [f64; 3], out: [f64; 3]| {
            let of = |data: [f64; 3]| crate::reference::Matrix::new(1, 3, data.to_vec());
            let checks =
                comparison_checks("y", &crate::metrics::compare(&of(reference), &of(out)), 0.999, None);
            checks.into_iter().find(|c| c.check == CheckName::Nan).unwrap().detail
        };
        let nan = f64::NAN;
        assert_eq!(detail([1.0, nan, 2.0], [1.0, nan, 2.0]), "");
        assert_eq!(
            detail([1.0, 1.0, 2.0], [1.0, nan, nan]),
            "2 elements are NaN where the reference has numbers"
        );
        assert_eq!(
            detail([1.0, nan, 2.0], [1.0, 3.0, 2.0]),
            "1 element is no NaN where the reference is NaN"
        );
        assert_eq!(
            detail([1.0, nan, 2.0], [nan, 3.0, 2.0]),
            "1 element is NaN where the reference has numbers, 1 element is no NaN where the reference is NaN"
        );
    }

    #[test]
    fn tiers_are_those_of_the_mission() {
        for (cos, verdict) in [
            (Some(1.0), Verdict::Correct),
            (Some(0.9991), Verdict::Correct),
            (Some(0.999), Verdict::Suspicious),
            (Some(0.9901), Verdict::Suspicious),
            (Some(0.99), Verdict::Broken),
            (Some(0.9001), Verdict::Broken),
            (Some(0.9), Verdict::Catastrophic),
            (Some(-1.0), Verdict::Catastrophic),
            (None, Verdict::Catastrophic),
        ] {
            assert_eq!(tier(cos, MIN_COS), verdict, "{cos:?}");
        }
    }

    #[test]
    fn a_value_that_does_not_exist_never_passes() {
        assert!(!at_least(CheckName::Cos, "", None, 0.0).ok);
        assert!(!at_most(CheckName::Gain, "", None, 1.0).ok);
        assert!(!at_most(CheckName::Gain, "", Some(f64::NAN), 1.0).ok);
        assert!(!at_least(CheckName::Cos, "", Some(f64::NAN), -1.0).ok);
    }

    /// Whatever reference lies within the error stated, the checks hold if they are said to.
    #[test]
    fn what_holds_within_an_error_holds_for_every_reference_in_it() {
        use crate::case::input::Rng;
        use crate::metrics::compare;
        use crate::reference::Matrix;
        let mut rng = Rng(3);
        let (mut held, mut close) = (0, 0);
        for round in 0..2000 {
            let mut matrix = |scale: f64| Matrix::new(3, 20, (0..60).map(|_| scale * rng.normal()).collect());
            let (reference, noise, shift) = (matrix(1.0), matrix(1.0), matrix(1.0));
            let amount = 0.03 * f64::from(round % 40) / 40.0;
            let add = |x: &Matrix, y: &Matrix, f: f64| {
                Matrix::new(3, 20, x.data.iter().zip(&y.data).map(|(x, y)| x + f * y).collect())
            };
            let out = add(&reference, &noise, amount);
            let exact = add(&reference, &shift, 0.01 * rng.unit());
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let difference = add(&exact, &reference, -1.0);
            let off: Vec<f64> = (0..3).map(|r| norm(difference.row(r))).collect();
            let c = compare(&reference, &out);
            let holds = |c: &Comparison| comparison_checks("", c, MIN_COS, Some(0.03)).iter().all(|c| c.ok);
            let exactly = compare(&exact, &out);
            if hold_within(&c, &off, MIN_COS, Some(0.03)) {
                assert!(holds(&c) && holds(&exactly), "{c:?} {exactly:?}");
                held += 1;
            } else if holds(&c) {
                close += 1;
            }
            assert_eq!(hold_within(&c, &[0.0; 3], MIN_COS, Some(0.03)), holds(&c));
        }
        assert!(held > 100 && close > 100, "{held} {close}");
    }

    #[test]
    fn a_cosine_below_one_never_reads_as_one() {
        for (value, text) in
            [(1.0, "1.000000"), (1.0 - 1e-12, "0.999999"), (0.9999986, "0.999999"), (-0.003, "-0.003000")]
        {
            assert_eq!(cosine_text(value), text);
        }
    }

    #[test]
    fn margins_change_sign_at_the_bound() {
        assert_eq!(at_most(CheckName::RelL2, "", Some(0.5), 1.0).margin, Some(0.5));
        assert_eq!(at_most(CheckName::RelL2, "", Some(2.0), 1.0).margin, Some(-1.0));
        assert!(at_least(CheckName::Cos, "", Some(0.9), 0.999).margin.unwrap() < 0.0);
    }
}
