//! Judges a run of a chain: each hop against what its kernel was really given, and the whole against the ideal.
//!
//! - A *producer* (a kernel that quantises) is judged against the framework's own quantiser on the values that the
//!   kernel was given. Decoded values gate; where a value lies within rounding error of a tie, either neighbour is
//!   right.
//! - A *consumer* is judged against the float64 result on the decoded bytes that it was given, whatever wrote them.
//!   What its output format and its declared accumulation allow is the measure.
//! - The *chain* is judged against its ideal value, before any quantisation, in units of what the framework's own
//!   quantised chain loses.

pub mod spread;

use crate::case::poison::Poison;
use crate::case::{self, Attempt, Captured, Kind};
use crate::dtype::DType;
use crate::library::Changer;
use crate::metrics::{Comparison, compare, cosine};
use crate::quant::{Padding, Quant, Quantized, amax, quantize};
use crate::record::{CheckName, CheckResult, Hop};
use crate::reference::graph::{Op, Rounding};
use crate::reference::stream::{self, Precision, ReferenceError, Weight};
use crate::reference::{Accumulator, BufferId, Evaluation, Expr, Matrix, eval, magnitudes};
use crate::verdict::{
    Bounds, MAX_GAIN, NOISE_FACTOR, at_most, bounded_checks, comparison_checks, hold_within, none, short,
};
use rayon::prelude::*;
use spread::{Spread, forgiven, is_rounding};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use crate::reference::graph::DIVISION;
/// Relative error of a value that a kernel computes in float32 before it quantises (a norm, an activation).
const COMPUTED: f64 = 1.0 / (1 << 17) as f64;

/// Values of the buffers as the kernels left them.
pub struct Given<'a> {
    attempt: &'a Attempt,
    values: RefCell<HashMap<BufferId, Arc<Matrix>>>,
    /// Buffers that are read as something else: a seeded fault.
    faults: HashMap<BufferId, Arc<Matrix>>,
    precision: Cell<Precision>,
    /// How far products were from exact.
    error: Cell<Option<ReferenceError>>,
}

impl<'a> Given<'a> {
    pub fn new(attempt: &'a Attempt) -> Given<'a> {
        Given {
            attempt,
            values: RefCell::default(),
            faults: HashMap::new(),
            precision: Cell::new(Precision::Double),
            error: Cell::default(),
        }
    }

    /// The same, but `id` reads as `value`.
    pub fn with_fault(&self, id: BufferId, value: Matrix) -> Given<'a> {
        let values = RefCell::new(self.values.borrow().clone());
        let faults = HashMap::from([(id, Arc::new(value))]);
        Given { values, faults, ..Given::new(self.attempt) }
    }
}

impl Evaluation for Given<'_> {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        if let Some(value) = self.faults.get(&id) {
            return value.clone();
        }
        let known = self.values.borrow().get(&id).cloned();
        known.unwrap_or_else(|| {
            let value = Arc::new(self.attempt.buffer(id).value());
            self.values.borrow_mut().insert(id, value.clone());
            value
        })
    }

    fn stored(&self, id: BufferId) -> Option<Weight<'_>> {
        let known = self.faults.contains_key(&id) || self.values.borrow().contains_key(&id);
        (!known).then(|| self.attempt.buffer(id).stored())
    }

    fn precision(&self) -> Precision {
        self.precision.get()
    }

    fn note(&self, product: &stream::Product) {
        self.error.set(Some(self.error.get().map_or(product.error, |known| known.worst(product.error))));
    }

    fn is_index(&self, id: BufferId) -> bool {
        let buffer = self.attempt.buffer(id);
        buffer.dtype.is_integer() && buffer.scheme.is_none()
    }
}

/// Values as the declarations have them, without any kernel.
struct Declared<'a> {
    attempt: &'a Attempt,
    values: RefCell<HashMap<BufferId, Arc<Matrix>>>,
    /// Whether quantisation and rounding take place.
    quantised: bool,
    precision: Precision,
    /// What the last product may be off by (euclidean).
    off: Cell<f64>,
}

impl<'a> Declared<'a> {
    fn new(attempt: &'a Attempt, quantised: bool, precision: Precision) -> Declared<'a> {
        Declared { attempt, values: RefCell::default(), quantised, precision, off: Cell::default() }
    }
}

impl Evaluation for Declared<'_> {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        let known = self.values.borrow().get(&id).cloned();
        known.unwrap_or_else(|| {
            let buffer = self.attempt.buffer(id);
            let value = match &buffer.source {
                None if self.quantised => Arc::new(buffer.value()),
                None => buffer.ideal.clone().unwrap_or_else(|| Arc::new(buffer.value())),
                Some(source) => {
                    let value = eval(source, self);
                    if self.quantised { Arc::new(stored(buffer, &value)) } else { value }
                }
            };
            self.values.borrow_mut().insert(id, value.clone());
            value
        })
    }

    fn stored(&self, id: BufferId) -> Option<Weight<'_>> {
        let buffer = self.attempt.buffer(id);
        let leaf = buffer.source.is_none() && (self.quantised || buffer.ideal.is_none());
        (leaf && !self.values.borrow().contains_key(&id)).then(|| buffer.stored())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn note(&self, product: &stream::Product) {
        self.off.set(norm(&product.row_errors));
    }

    fn rounds(&self) -> bool {
        self.quantised
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// What the framework itself would store of `value` in this buffer.
fn stored(buffer: &Captured, value: &Matrix) -> Matrix {
    match &buffer.scheme {
        Some(scheme) => quantize(value, scheme, buffer.factor).decode(),
        None => round(value, buffer.dtype),
    }
}

/// Every element rounded to `dtype`.
pub fn round(value: &Matrix, dtype: DType) -> Matrix {
    value.map(|x| dtype.nearest(x))
}

/// A hop with everything that was found out about it.
pub struct JudgedHop {
    pub id: BufferId,
    pub hop: Hop,
    pub checks: Vec<CheckResult>,
    /// What the kernel should have written, decoded.
    pub reference: Arc<Matrix>,
    /// What its comparison is held against. Only a consumer has a bound of the relative L2.
    pub bounds: Bounds,
    /// How far each element of a consumer may be from its value before it is rounded; kept where a check failed.
    pub spread: Spread,
}

/// Judges every hop of a run.
pub fn judge_hops(attempt: &Attempt, min_cos: f64) -> Vec<JudgedHop> {
    let given = Given::new(attempt);
    let judged = attempt.hops().map(|(id, buffer)| {
        let mut judged = judge_hop(&given, id, buffer, min_cos);
        judged.hop.reference_error = given.error.take();
        judged
    });
    judged.collect()
}

fn judge_hop(given: &Given<'_>, id: BufferId, buffer: &Captured, min_cos: f64) -> JudgedHop {
    let source = buffer.source.as_ref().expect("a buffer that a kernel writes is computed from something");
    if let Some(scheme) = buffer.scheme {
        let judged = judge_producer(buffer, &scheme, source, &eval(source, given), min_cos);
        return JudgedHop { id, ..judged };
    }
    let of_products = Accumulation::new(source, given);
    let written = given.buffer(id);
    if let Some(judged) = judge_in_single(given, id, buffer, source, &of_products, &written, min_cos) {
        return judged;
    }
    let (value, mut spread) = match source.has_user() {
        // Whose inputs are disturbed: that is left out where checks of another sort fail anyway.
        true => (eval(source, given), Spread::Unknown),
        false => spread::of(source, given, &of_products.products),
    };
    let bounds = of_products.hop_bounds(source, &value, buffer.dtype, min_cos);
    let comparison = compare(&round_overflow(&value, buffer.dtype), &written);
    let mut checks = bounded_checks(&buffer.name, &comparison, &bounds);
    if source.has_user() && checks.iter().all(|c| c.ok || c.check == CheckName::RelL2) {
        (_, spread) = spread::of(source, given, &of_products.products);
    }
    checks.extend(spread_check(buffer, source, &value, &written, &spread, given.attempt.setup.poison));
    if matches!(spread, Spread::Unknown) && checks.iter().all(|c| c.ok) {
        let rounded = round_overflow(&value, buffer.dtype);
        checks.extend(of_products.wrong_region(buffer, source, &rounded, &written));
    }
    let hop = hop(buffer, "given_bytes", &comparison, &checks);
    // Of a hop that is right nobody asks, and it is as large as the reference.
    let spread = if checks.iter().all(|c| c.ok) { Spread::Unknown } else { spread };
    JudgedHop { id, hop, checks, reference: value, bounds, spread }
}

/// The elements of an output that are a rounding of their value, whatever is declared around a product. `None` where
/// nothing is known of what a right kernel may be off by.
fn spread_check(
    buffer: &Captured,
    source: &Expr,
    value: &Matrix,
    written: &Matrix,
    spread: &Spread,
    poison: Poison,
) -> Option<CheckResult> {
    if matches!(spread, Spread::Unknown) {
        return None;
    }
    let right = |r: usize, c: usize, x: f64, out: f64| is_rounding(buffer.dtype, out, x, spread.at(r, c));
    Some(elements_check(buffer, source, value, written, poison, &right))
}

/// What each element of a hop may be off by before it is rounded.
pub fn bounds(source: &Expr, given: &dyn Evaluation) -> Spread {
    spread::of(source, given, &Accumulation::new(source, given).products).1
}

/// The check `elements` of an `out` that was computed with a seeded fault.
pub fn seeded_elements(
    buffer: &Captured,
    source: &Expr,
    value: &Matrix,
    out: &Matrix,
    spread: &Spread,
) -> Option<CheckResult> {
    spread_check(buffer, source, value, out, spread, Poison::of_byte(0))
}

/// `elements`: outputs that are no rounding of their value, not even if that were off by what a right kernel may be. One
/// wrong element of a million costs no norm anything, and is wrong all the same; and what is rounded once more than
/// declared is wrong in many elements by next to nothing.
fn elements_check(
    buffer: &Captured,
    source: &Expr,
    value: &Matrix,
    written: &Matrix,
    poison: Poison,
    right: &(dyn Fn(usize, usize, f64, f64) -> bool + Sync),
) -> CheckResult {
    let rows = (0..value.rows).into_par_iter().map(|r| {
        let (mut wrong, mut first) = (0, None);
        for (c, (&x, &out)) in value.row(r).iter().zip(written.row(r)).enumerate() {
            // NaN and Inf are judged by their position.
            if x.is_finite() && out.is_finite() && !right(r, c, x, out) {
                wrong += 1;
                first.get_or_insert((r, c, out, x));
            }
        }
        (wrong, first)
    });
    let (wrong, first) = rows.reduce(|| (0, None), |a, b| (a.0 + b.0, a.1.or(b.1)));
    let detail = first.map_or(String::new(), |(r, c, out, x)| {
        let found = match buffer.holds(r * value.cols + c, poison) {
            true => "not written (poison)".to_owned(),
            false => short(out),
        };
        format!("first at [{r}, {c}]: {found}, expected {}", short(x))
    });
    let bound = forgiven(source, value.data.len());
    CheckResult { detail, ..at_most(CheckName::Elements, &buffer.name, Some(wrong as f64), bound as f64) }
}

/// Magnitudes between which float32 has room for the squares and products of a hop.
const ROOM: std::ops::Range<f64> = 1e-15..1e15;

/// Whether a hop has the range of float32 from end to end, by its declaration: whatever its operands are, it has no
/// reason to overflow or to flush.
pub fn declares_range(attempt: &Attempt, buffer: &Captured) -> bool {
    let Some(source) = &buffer.source else { return false };
    let wide = case::is_wide;
    let own = match &buffer.scheme {
        None => wide(buffer.dtype),
        Some(scheme) => {
            let scales = wide(scheme.scale_dtype) || scheme.scale_dtype == DType::E8M0;
            scales && scheme.static_scale.is_none() && scheme.global_scale.is_none()
        }
    };
    let mut all = own;
    source.visit(&mut |e| {
        all &= match &e.0.op {
            // What an activation is given has a range of its own, to which a kernel may cut it.
            Op::User { .. } | Op::Unary { .. } => false,
            Op::Round { to, .. } => wide(*to),
            Op::Quantize { scheme, .. } => wide(scheme.scale_dtype) && scheme.static_scale.is_none(),
            Op::MatMul { accumulator: Accumulator::Format(format), .. } => wide(*format),
            Op::Buffer(id) => {
                let operand = attempt.buffer(*id);
                operand.scheme.is_some() || operand.dtype.is_integer() || wide(operand.dtype)
            }
            _ => true,
        };
    });
    all
}

/// The hops of a run on data at both ends of the range that a right kernel computes as any other.
pub fn within_range(attempt: &Attempt, hops: Vec<JudgedHop>) -> Vec<JudgedHop> {
    let room = |x: &f64| *x == 0.0 || ROOM.contains(&x.abs());
    let fits = |hop: &JudgedHop| {
        let buffer = attempt.buffer(hop.id);
        let operands = buffer.source.as_ref().map_or(Vec::new(), Expr::buffers);
        let given = operands.iter().all(|id| {
            let operand = attempt.buffer(*id);
            operand.source.is_none() && operand.kind == Kind::Weight || operand.value().data.iter().all(room)
        });
        declares_range(attempt, buffer) && given && hop.reference.data.iter().all(room)
    };
    hops.into_iter().filter(fits).collect()
}

/// Multiply-adds from which on float32 blocks are worth a second look at what they leave open.
const SINGLE_FROM: usize = 1 << 22;
/// Elements that are settled one by one; where more are open, all are computed in float64.
const SETTLED: usize = 4096;

/// Judges a product of a stored weight that was computed in float32 blocks, if the hop passes with room for all that
/// these may be off by. What fails or comes close is left to float64, and so is an output whose own rounding is not well
/// above the error of the blocks.
fn judge_in_single(
    given: &Given<'_>,
    id: BufferId,
    buffer: &Captured,
    source: &Expr,
    of_products: &Accumulation,
    written: &Matrix,
    min_cos: f64,
) -> Option<JudgedHop> {
    let Op::MatMul { a, b, .. } = &source.0.op else { return None };
    let Op::Buffer(weight) = b.0.op else { return None };
    let weight = given.stored(weight)?;
    let [Product { measure: magnitude, magnitudes: true, .. }] = &of_products.products[..] else {
        return None;
    };
    let a = eval(a, given);
    if a.rows * weight.rows * weight.cols < SINGLE_FROM {
        return None;
    }
    // The magnitudes are products in float32 blocks themselves.
    let stated = Precision::Single.error(a.cols) * (1.0 + 2f64.powi(-10));
    if stated * magnitude.norm() > unit(buffer.dtype) / 16.0 * written.norm() {
        return None;
    }
    given.precision.set(Precision::Single);
    let value = eval(source, given);
    given.precision.set(Precision::Double);
    let error = given.error.take();
    // What would become Inf, or nearly.
    if value.data.iter().any(|x| x.abs() >= 0.99 * buffer.dtype.max()) {
        return None;
    }
    let max_rel_l2 = NOISE_FACTOR * of_products.allowed(source, &value, buffer.dtype);
    let comparison = compare(&value, written);
    let mut checks = comparison_checks(&buffer.name, &comparison, min_cos, Some(max_rel_l2));
    let off: Vec<f64> = (0..magnitude.rows).map(|r| stated * norm(magnitude.row(r))).collect();
    if checks.iter().any(|c| !c.ok) || !hold_within(&comparison, &off, min_cos, Some(max_rel_l2)) {
        return None;
    }
    let exact = |r: usize, c: usize| weight.dot(c, a.row(r));
    let settle = Settle { stated, exact: &exact };
    checks.push(of_products.elements_in_single(
        buffer,
        source,
        (&value, written),
        settle,
        given.attempt.setup.poison,
    )?);
    if checks.iter().any(|c| !c.ok) {
        return None;
    }
    let hop = hop(buffer, "given_bytes", &comparison, &checks);
    given.error.set(error);
    let (bounds, spread) = (Bounds::usual(min_cos, Some(max_rel_l2)), Spread::Unknown);
    Some(JudgedHop { id, hop, checks, reference: value, bounds, spread })
}

/// What is done about elements that a reference in float32 blocks leaves open.
#[derive(Clone, Copy)]
struct Settle<'a> {
    /// What it may be off by, as a share of the magnitudes.
    stated: f64,
    /// The element in float64.
    exact: &'a (dyn Fn(usize, usize) -> f64 + Sync),
}

/// Values beyond the format's range become what the format has for them: Inf, or its largest.
pub fn round_overflow(value: &Matrix, dtype: DType) -> Cow<'_, Matrix> {
    let max = dtype.max();
    if value.data.iter().all(|x| x.abs() <= max || !x.is_finite()) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.map(|x| if x.is_finite() && x.abs() > max { dtype.nearest(x) } else { x }))
}

fn hop(buffer: &Captured, against: &str, comparison: &Comparison, checks: &[CheckResult]) -> Hop {
    Hop {
        name: buffer.name.clone(),
        kernel: buffer.kernel.map(String::from),
        launched: buffer.launched.clone(),
        judged_against: against.into(),
        cos: comparison.cos,
        cos_row_min: comparison.cos_row_min,
        row_min_index: comparison.row_min_index,
        gain: comparison.gain,
        rel_l2: comparison.rel_l2,
        scale_cos: None,
        reference_error: None,
        bytes_equal: None,
        worst_rows: comparison.worst_rows(),
        worst_cols: comparison.worst_cols(),
        failed_checks: failed(checks),
        error_map: None,
    }
}

/// Names of the checks that did not hold, each once.
pub fn failed(checks: &[CheckResult]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for check in checks.iter().filter(|c| !c.ok) {
        if !names.iter().any(|name| name == check.check.name()) {
            names.push(check.check.name().to_owned());
        }
    }
    names
}

/// Judges what a kernel quantised against the framework's own quantiser on `value`.
fn judge_producer(
    buffer: &Captured,
    scheme: &Quant,
    source: &Expr,
    value: &Arc<Matrix>,
    min_cos: f64,
) -> JudgedHop {
    let written = buffer.quantized().expect("a buffer with a scheme is quantised");
    let expected = past_nan(quantize(value, scheme, buffer.factor), value, scheme, &written, buffer.factor);
    let scale_errors = ScaleErrors::new(scheme, value, &written, uncertainty(source));
    let settled = settled_ties(scheme, value, &expected, &written, &scale_errors, uncertainty(source));
    let reference = Arc::new(settled.decode());
    let comparison = compare(&reference, &written.decode());
    let mut checks = comparison_checks(&buffer.name, &comparison, min_cos, None);
    checks.extend(scale_and_code_checks(
        &buffer.name,
        scheme,
        value,
        &expected,
        &written,
        &scale_errors,
        uncertainty(source),
    ));
    if scheme.scale_padding != Padding::Any {
        let detail = "bytes between the scales are not what the scheme declares";
        let wrong = buffer.wrong_padding();
        checks.push(none(CheckName::Padding, &buffer.name, wrong, if wrong > 0 { detail } else { "" }));
    }
    let mut hop = hop(buffer, "quantizer", &comparison, &checks);
    hop.scale_cos = scale_cosine(value, scheme, &expected, &written);
    let equal = expected.codes.iter().zip(&written.codes).filter(|(a, b)| a == b).count();
    hop.bytes_equal = Some(equal as f64 / expected.codes.len() as f64);
    let spread = Spread::Unknown;
    let bounds = Bounds::usual(min_cos, None);
    JudgedHop { id: BufferId(0), hop, checks, reference, bounds, spread }
}

/// What is expected of cells that hold NaN and were given a finite scale. A maximum that NaN spreads through makes the whole cell
/// NaN, as `amax` of torch does; one that passes over NaN, as `fmaxf` does, leaves the numbers of the cell as they are. Engines
/// have both. An element that is NaN itself stays so.
fn past_nan(
    mut expected: Quantized,
    value: &Matrix,
    scheme: &Quant,
    written: &Quantized,
    factor: f64,
) -> Quantized {
    if !value.data.iter().any(|x| x.is_nan()) {
        return expected;
    }
    let of_numbers = quantize(&numbers(value), scheme, factor);
    let of_nan: Vec<bool> = amax(value, scheme.granularity)
        .iter()
        .zip(&written.scales)
        .map(|(amax, scale)| amax.is_nan() && !scale.is_nan())
        .collect();
    let (cell_rows, cell_cols) = scheme.granularity.cell(value.rows, value.cols);
    let (_, grid_cols) = scheme.granularity.grid(value.rows, value.cols);
    for (i, x) in value.data.iter().enumerate() {
        let cell = i / value.cols / cell_rows * grid_cols + i % value.cols / cell_cols;
        if of_nan[cell] {
            expected.scales[cell] = of_numbers.scales[cell];
            expected.codes[i] = if x.is_nan() { scheme.code_of(f64::NAN) } else { of_numbers.codes[i] };
        }
    }
    expected
}

/// The values with 0 for NaN.
fn numbers(value: &Matrix) -> Matrix {
    value.map(|x| if x.is_nan() { 0.0 } else { x })
}

/// The cosine of the scales, cells of zeros left out: these decode to zero with any finite scale.
fn scale_cosine(value: &Matrix, scheme: &Quant, expected: &Quantized, written: &Quantized) -> Option<f64> {
    let scales = expected.scales.iter().zip(&written.scales);
    let bound = amax(value, scheme.granularity).into_iter().zip(scales).filter(|(amax, _)| *amax != 0.0);
    let (expected, written): (Vec<f64>, Vec<f64>) = bound.map(|(_, (a, b))| (*a, *b)).unzip();
    cosine(&expected, &written)
}

/// `scales`: the worst relative error of a scale whose cell is not zero. `codes`: elements that are no nearest code
/// of their value, not even if it were off by its uncertainty.
pub fn producer_checks(
    name: &str,
    scheme: &Quant,
    value: &Matrix,
    expected: &Quantized,
    written: &Quantized,
    uncertainty: f64,
) -> Vec<CheckResult> {
    let errors = ScaleErrors::new(scheme, value, written, uncertainty);
    scale_and_code_checks(name, scheme, value, expected, written, &errors, uncertainty)
}

fn scale_and_code_checks(
    name: &str,
    scheme: &Quant,
    value: &Matrix,
    expected: &Quantized,
    written: &Quantized,
    errors: &ScaleErrors,
    uncertainty: f64,
) -> Vec<CheckResult> {
    let (worst_at, worst) = errors.worst();
    let (_, grid_cols) = scheme.granularity.grid(value.rows, value.cols);
    let mut scales = at_most(CheckName::Scales, name, Some(worst), errors.bound);
    if !scales.ok {
        scales.detail = format!(
            "worst at cell [{}, {}]: {}, expected {}",
            worst_at / grid_cols,
            worst_at % grid_cols,
            short(written.scales[worst_at]),
            short(expected.scales[worst_at])
        );
    }
    let (cell_rows, cell_cols) = scheme.granularity.cell(value.rows, value.cols);
    let (mut wrong, mut first) = (0, None);
    for r in 0..value.rows {
        for c in 0..value.cols {
            let i = r * value.cols + c;
            let cell = r / cell_rows * grid_cols + c / cell_cols;
            // Codes are judged by themselves: where the scale written is wrong, with the right one.
            let scale = if errors.right(cell) { written.scales[cell] } else { expected.scales[cell] };
            let code = written.codes[i];
            if code == expected.codes[i] && scale == expected.scales[cell] {
                continue;
            }
            // What is scaled by zero or NaN is that, whatever its code.
            if scale == 0.0 || scale.is_nan() {
                continue;
            }
            let scaled = value.data[i] / (scale * written.global);
            if !is_nearest(scheme, code, scaled, uncertainty) {
                wrong += 1;
                let decode = |code| scheme.dtype.decode(code);
                first.get_or_insert((r, c, decode(code), decode(scheme.code_of(scaled))));
            }
        }
    }
    let detail = first.map_or(String::new(), |(r, c, here, nearest)| {
        format!(
            "first at [{r}, {c}]: {here}, nearest to the value is {nearest} (in units of the scale written)"
        )
    });
    vec![scales, none(CheckName::Codes, name, wrong, detail)]
}

/// Whether a code is one of those nearest to a value in units of its scale, or would be if the value were off by its
/// uncertainty: next to a tie either neighbour is.
fn is_nearest(scheme: &Quant, code: u32, scaled: f64, uncertainty: f64) -> bool {
    let spread = scaled.abs() * (uncertainty + DIVISION);
    let decode = |code| scheme.dtype.decode(code);
    let (low, high) = (decode(scheme.code_of(scaled - spread)), decode(scheme.code_of(scaled + spread)));
    let here = decode(code);
    // A NaN compares false and counts as wrong, unless it is what was expected.
    (low <= here && here <= high) || (here.is_nan() && low.is_nan())
}

/// What is expected, with the kernel's own choice wherever a value lies next to a tie: a tie that goes the other way is no
/// error, and costs no cosine anything. Where the scale that was written is right, codes are those of that scale.
fn settled_ties(
    scheme: &Quant,
    value: &Matrix,
    expected: &Quantized,
    written: &Quantized,
    errors: &ScaleErrors,
    uncertainty: f64,
) -> Quantized {
    let mut settled = expected.clone();
    let (cell_rows, cell_cols) = scheme.granularity.cell(value.rows, value.cols);
    let (_, grid_cols) = scheme.granularity.grid(value.rows, value.cols);
    for (i, &x) in value.data.iter().enumerate() {
        let cell = i / value.cols / cell_rows * grid_cols + i % value.cols / cell_cols;
        let (theirs, own) = (written.scales[cell], expected.scales[cell]);
        let (code, usual) = (written.codes[i], expected.codes[i]);
        let usable = |scale: f64| scale != 0.0 && scale.is_finite();
        if (code, theirs) == (usual, own) || !errors.right(cell) || !usable(theirs) || !usable(own) {
            continue;
        }
        // Where the other side is no nearest code either, it is no tie.
        if is_nearest(scheme, usual, x / (own * expected.global), uncertainty) {
            let scaled = x / (theirs * written.global);
            settled.scales[cell] = theirs;
            settled.codes[i] = match is_nearest(scheme, code, scaled, uncertainty) {
                true => code,
                false => scheme.code_of(scaled),
            };
        }
    }
    settled
}

/// How far each scale is from what its cell asks for.
struct ScaleErrors {
    /// Relative errors, 0 within the uncertainty of the cell's maximum and for cells of zeros.
    errors: Vec<f64>,
    bound: f64,
}

impl ScaleErrors {
    fn new(scheme: &Quant, value: &Matrix, written: &Quantized, uncertainty: f64) -> ScaleErrors {
        let of_all = amax(value, scheme.granularity);
        // What a maximum gives that passes over NaN.
        let of_numbers = match of_all.iter().any(|amax| amax.is_nan()) {
            true => amax(&numbers(value), scheme.granularity),
            false => of_all.clone(),
        };
        let error = |((&of_all, &of_numbers), &scale): ((&f64, &f64), &f64)| {
            let amax = if of_all.is_nan() && !scale.is_nan() { of_numbers } else { of_all };
            // A cell of zeros decodes to zero with any finite scale; NaN shows in the decoded values.
            if amax == 0.0 || amax.is_nan() {
                return 0.0;
            }
            let amax = amax / written.global;
            let low = scheme.scale_of(amax * (1.0 - uncertainty));
            let high = scheme.scale_of(amax * (1.0 + uncertainty));
            if scale.is_nan() {
                f64::INFINITY
            } else if scale < low {
                (low - scale) / low
            } else if scale > high {
                (scale - high) / high
            } else {
                0.0
            }
        };
        let errors = of_all.iter().zip(&of_numbers).zip(&written.scales).map(error).collect();
        // float32 scales may be computed with a reciprocal; formats with few bits leave no such room.
        let bound = if scheme.scale_dtype == DType::F32 { DIVISION } else { 0.0 };
        ScaleErrors { errors, bound }
    }

    fn right(&self, cell: usize) -> bool {
        self.errors[cell] <= self.bound
    }

    fn worst(&self) -> (usize, f64) {
        let worst = (0..self.errors.len()).max_by(|&a, &b| self.errors[a].total_cmp(&self.errors[b]));
        worst.map_or((0, 0.0), |cell| (cell, self.errors[cell]))
    }
}

/// Relative error that a kernel may make in a value before it quantises it.
pub fn uncertainty(source: &Expr) -> f64 {
    let mut total = DIVISION;
    source.visit(&mut |e| {
        total += match &e.0.op {
            op if op.only_moves() => 0.0,
            // A value next to a tie of this rounding may go either way: one unit in the last place.
            Op::Round { to, .. } => unit(*to) * 2.0,
            Op::Quantize { scheme, .. } => unit(scheme.dtype) * 2.0,
            Op::MatMul { accumulator, .. } => unit_of(*accumulator) * 64.0,
            _ => COMPUTED,
        }
    });
    total
}

/// Half a unit in the last place, relative to the value.
pub(crate) fn unit(dtype: DType) -> f64 {
    // Formats of less than 8 bits are written with block scales, whose own rounding hides theirs.
    dtype.half_unit().filter(|_| dtype.bits() >= 8).unwrap_or(0.0)
}

/// The square of the relative error where reference and kernel round the same values to a format: one value in 256 may lie
/// so near to a tie that it goes the other way. Values that have few bits themselves do so more often than others.
fn ties(to: DType) -> f64 {
    unit(to).powi(2) / 256.0
}

/// The same as [`unit`], of a sum.
pub(crate) fn unit_of(accumulator: Accumulator) -> f64 {
    match accumulator {
        Accumulator::Format(format) => unit(format),
        Accumulator::TensorCore(core) => core.unit(),
    }
}

/// The relative L2 that rounding to `dtype` and the declared accumulation account for.
///
/// Rounding is measured on the reference itself. Accumulating `K` products in a format with unit roundoff `u` makes
/// an error of about `u · sqrt(K)/2 · |A||B|`: each of K sums is rounded once, and the errors are independent. What a
/// tensor core makes is measured as well, by summing as it does.
pub fn allowed(source: &Expr, value: &Matrix, dtype: DType, given: &dyn Evaluation) -> f64 {
    Accumulation::new(source, given).allowed(source, value, dtype)
}

/// A term of the square of a norm. NaN and infinities are codes that were put there: other checks judge them.
fn finite_square(_: usize, _: usize, x: f64) -> f64 {
    if x.is_finite() { x * x } else { 0.0 }
}

/// What the declaration of a hop allows.
struct Accumulation {
    /// What the accumulator of each product allows, in the order of [`Expr::visit`].
    products: Vec<Product>,
    /// The result where what the kernel quantises within a function goes to the other side of each tie; `None` where no
    /// function has any.
    other_ties: Option<Arc<Matrix>>,
}

struct Product {
    /// Norm of the error that is expected.
    error: f64,
    /// What each element may be off by is `share` of this: of `|A||B|`, or of the most that a tensor core can make.
    measure: Matrix,
    share: f64,
    /// Whether it is `|A||B|`.
    magnitudes: bool,
}

impl Product {
    fn new(a: &Expr, b: &Expr, accumulator: Accumulator, given: &dyn Evaluation) -> Product {
        match accumulator {
            Accumulator::Format(format) => {
                let magnitude = magnitudes(a, b, given);
                let roundings = (a.shape().1 as f64).sqrt();
                let error = unit(format) * roundings / 2.0 * magnitude.norm();
                let share = 8.0 * unit(format).max(unit(DType::F32)) * roundings;
                Product { error, measure: magnitude, share, magnitudes: true }
            }
            Accumulator::TensorCore(core) => {
                let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
                let (a, b) = (eval(a, given).map(finite), eval(b, given).map(finite));
                let (summed, most) = core.matmul_t(&a, &b);
                let exact = a.matmul_t(&b);
                let off = summed.data.iter().zip(&exact.data).map(|(x, y)| (x - y).powi(2));
                Product { error: off.sum::<f64>().sqrt(), measure: most, share: 1.0, magnitudes: false }
            }
        }
    }
}

impl Accumulation {
    fn new(source: &Expr, given: &dyn Evaluation) -> Accumulation {
        let mut found = Vec::new();
        source.visit(&mut |e| {
            if let Op::MatMul { a, b, accumulator } = &e.0.op {
                found.push(Product::new(a, b, *accumulator, given));
            }
        });
        let other_ties = source.with_ties_on_the_other_side().map(|other| eval(&other, given));
        Accumulation { products: found, other_ties }
    }

    /// See [`allowed`].
    fn allowed(&self, source: &Expr, value: &Matrix, dtype: DType) -> f64 {
        let whole = Region::whole(value);
        (self.squares_in(source, value, dtype, &whole) + self.ties_in(value, &whole)).sqrt()
    }

    /// The square of the relative error of a part of the result, but for ties.
    fn squares_in(&self, source: &Expr, value: &Matrix, dtype: DType, region: &Region) -> f64 {
        let norm = region.sum(value, finite_square).sqrt();
        if norm == 0.0 {
            return unit(DType::F32).powi(2);
        }
        let rounding = region.sum(value, |_, _, x| {
            let difference = dtype.nearest(x) - x;
            if difference.is_finite() { difference * difference } else { 0.0 }
        });
        let mut squares = rounding / (norm * norm) + (4.0 * unit(DType::F32)).powi(2);
        let mut products = self.products.iter();
        let share = region.size() as f64 / value.data.len() as f64;
        source.visit(&mut |e| {
            squares += match &e.0.op {
                Op::MatMul { .. } => {
                    products.next().map_or(0.0, |product| share * (product.error / norm).powi(2))
                }
                Op::Round { to, .. } => unit(*to).powi(2),
                Op::Scale { .. } => 0.0,
                Op::Quantize { scheme, .. } => ties(scheme.dtype),
                Op::User { rounds, .. } => {
                    let of = |rounding: &Rounding| match rounding {
                        Rounding::Ties(_) => 0.0,
                        Rounding::Alike(to) => ties(*to),
                        Rounding::Loosely(to) => unit(*to).powi(2),
                    };
                    COMPUTED.powi(2) + rounds.iter().map(of).sum::<f64>()
                }
                op if op.only_moves() => 0.0,
                _ => COMPUTED.powi(2),
            }
        });
        squares
    }

    /// The square of the relative error of a part of the result where everything that is quantised in between goes to the
    /// other side of a tie.
    fn ties_in(&self, value: &Matrix, region: &Region) -> f64 {
        let Some(other) = &self.other_ties else { return 0.0 };
        let square = region.sum(value, finite_square);
        let off = region.sum(value, |r, c, x| finite_square(r, c, x - other.row(r)[c]));
        if square > 0.0 { off / square } else { 0.0 }
    }

    /// A part of a result that is further off than its own declaration allows, where the whole is not: some rows, a head, an
    /// expert. It is for hops whose elements have no bound of their own, which the norm of the whole would dilute.
    fn wrong_region(
        &self,
        buffer: &Captured,
        source: &Expr,
        value: &Matrix,
        written: &Matrix,
    ) -> Option<CheckResult> {
        let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
        let mut worst: Option<(f64, CheckResult)> = None;
        let regions = Region::parts(value);
        let ties: Vec<(usize, f64)> = regions.iter().map(|r| (r.size(), self.ties_in(value, r))).collect();
        for region in regions {
            let off = region.sum(value, |r, c, x| finite((x - written.row(r)[c]).powi(2)));
            let square = region.sum(value, |_, _, x| finite(x * x));
            if square == 0.0 {
                continue;
            }
            // Which ties go to the other side, and whether several of a part do at once, is chance: a part may be as far
            // off as the one of those that are no smaller that is moved most.
            let ties = ties.iter().filter(|t| t.0 >= region.size()).fold(0.0, |most: f64, t| most.max(t.1));
            let allowed = (self.squares_in(source, value, buffer.dtype, &region) + ties).sqrt();
            let product = region.sum(value, |r, c, x| finite(x * written.row(r)[c]));
            for (name, error, bound) in [
                (CheckName::RelL2, (off / square).sqrt(), REGION_FACTOR * allowed),
                (CheckName::Gain, (product / square - 1.0).abs(), REGION_FACTOR * MAX_GAIN + allowed),
            ] {
                if error > bound && worst.as_ref().is_none_or(|(most, _)| error / bound > *most) {
                    let check = at_most(name, &buffer.name, Some(error), bound);
                    worst =
                        Some((error / bound, CheckResult { detail: format!("in {region} alone"), ..check }));
                }
            }
        }
        worst.map(|(_, check)| check)
    }

    /// What a hop with this declaration is held against, by the judge and for a seeded fault alike.
    fn hop_bounds(&self, source: &Expr, value: &Matrix, dtype: DType, min_cos: f64) -> Bounds {
        let usual = Bounds::usual(min_cos, Some(NOISE_FACTOR * self.allowed(source, value, dtype)));
        match &self.other_ties {
            None => usual,
            Some(other) => usual.allowing(&compare(value, other)),
        }
    }

    /// [`elements_check`] of a product that was computed in float32 blocks. An element is right if it is so however far
    /// off `value` may be, or with its exact value; at most [`SETTLED`] are looked at like that, and more are wrong.
    ///
    /// The allowance of an element is `8 · u · sqrt(K) · |A||B|`, sixteen times the expected error of K rounded sums, or
    /// the most that a tensor core can make, and four roundings of float32 for scales that are multiplied in.
    fn elements_in_single(
        &self,
        buffer: &Captured,
        source: &Expr,
        (value, written): (&Matrix, &Matrix),
        Settle { stated, exact }: Settle<'_>,
        poison: Poison,
    ) -> Option<CheckResult> {
        let Product { measure, share, .. } = self.products.last()?;
        let settled = AtomicUsize::new(0);
        let right = |r: usize, c: usize, x: f64, out: f64| {
            let most = |x: f64| share * measure.row(r)[c] + 4.0 * unit(DType::F32) * x.abs();
            let spread = most(x) - (1.0 + 2f64.powi(-10)) * stated * measure.row(r)[c];
            if spread >= 0.0 && is_rounding(buffer.dtype, out, x, spread) {
                return true;
            }
            if settled.fetch_add(1, Ordering::Relaxed) >= SETTLED {
                return false;
            }
            let x = exact(r, c);
            is_rounding(buffer.dtype, out, x, most(x))
        };
        Some(elements_check(buffer, source, value, written, poison, &right))
    }
}

/// How much more a part of a result may be off by than its declaration makes likely. A part has fewer elements, so that
/// chance weighs more than in [`NOISE_FACTOR`].
const REGION_FACTOR: f64 = 4.0;
/// Elements that a part has at least.
const REGION_ELEMENTS: usize = 128;
/// Elements that are looked at for the parts of one result along one dimension, over all levels.
const REGION_WORK: usize = 1 << 26;
/// Columns that a part has at least: a small head.
const REGION_COLUMNS: usize = 32;

/// Some rows or some columns of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    rows: Range<usize>,
    cols: Range<usize>,
    /// Which of the two is a part.
    of_rows: bool,
}

impl Region {
    fn whole(of: &Matrix) -> Region {
        Region { rows: 0..of.rows, cols: 0..of.cols, of_rows: true }
    }

    /// Halves, quarters and so on of the rows down to a single one, and of the columns down to the width of a head.
    fn parts(of: &Matrix) -> Vec<Region> {
        fn halves(range: Range<usize>, least: usize, take: &mut dyn FnMut(Range<usize>)) {
            let middle = range.start + range.len().div_ceil(2);
            for half in [range.start..middle, middle..range.end] {
                if half.len() >= least && half.len() < range.len() {
                    take(half.clone());
                    halves(half, least, take);
                }
            }
        }
        let whole = Region::whole(of);
        // Each level of halves looks at every element: a large result is not divided so often.
        let levels = (REGION_WORK / of.data.len().max(1)).clamp(2, 31);
        let mut parts = Vec::new();
        halves(whole.rows.clone(), (of.rows >> levels).max(1), &mut |rows| {
            parts.push(Region { rows, ..whole.clone() })
        });
        halves(whole.cols.clone(), REGION_COLUMNS.max(of.cols >> levels), &mut |cols| {
            parts.push(Region { cols, of_rows: false, ..whole.clone() })
        });
        parts.retain(|part| part.size() >= REGION_ELEMENTS);
        parts
    }

    fn size(&self) -> usize {
        self.rows.len() * self.cols.len()
    }

    /// The sum of what `f` makes of each element, by its row, column and value.
    fn sum(&self, of: &Matrix, f: impl Fn(usize, usize, f64) -> f64) -> f64 {
        let of_row = |r: usize| -> f64 {
            of.row(r)[self.cols.clone()].iter().zip(self.cols.clone()).map(|(x, c)| f(r, c, *x)).sum()
        };
        self.rows.clone().map(of_row).sum()
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, part) = if self.of_rows { ("row", &self.rows) } else { ("column", &self.cols) };
        match part.len() {
            1 => write!(f, "{what} {}", part.start),
            _ => write!(f, "{what}s {} to {}", part.start, part.end - 1),
        }
    }
}

/// How far terms cancel in the products of an expression: `|A||B| / |AB|`, the least over its matmuls.
pub fn cancellation(source: &Expr, given: &dyn Evaluation) -> Option<f64> {
    let mut least: Option<f64> = None;
    source.visit(&mut |e| {
        if let Op::MatMul { a, b, .. } = &e.0.op {
            let (product, magnitude) = (eval(e, given), magnitudes(a, b, given));
            let norm = |of: &Matrix| {
                // A column with NaN or Inf says nothing about either.
                let finite = of.data.iter().zip(&product.data).filter(|(_, product)| product.is_finite());
                finite.map(|(x, _)| x * x).sum::<f64>().sqrt()
            };
            let ratio = norm(&magnitude) / norm(&product);
            least = Some(least.map_or(ratio, |l| l.min(ratio)));
        }
    });
    least
}

/// The end of the chain against its ideal value.
pub struct Chain {
    /// The output against the ideal.
    pub chain: Comparison,
    /// The framework's own quantised chain against the ideal: the format's noise floor.
    pub noise: Comparison,
    pub check: CheckResult,
}

/// Judges the end of the chain. `hops` are those of the run: where nothing is quantised the end may be off by what its
/// own declared accumulation makes.
pub fn judge_chain(attempt: &Attempt, hops: &[JudgedHop]) -> Chain {
    let end = hops.iter().find(|hop| hop.id == attempt.result).and_then(|hop| hop.bounds.rel_l2);
    chain_in_single(attempt, end).unwrap_or_else(|| chain_in_double(attempt, end))
}

/// The chain whose end is its only product, in float32 blocks: if the check holds whatever these are off by.
///
/// Only the ideal has to be exact. What the framework's own chain loses is a measure of what a right one may; it rounds
/// to the same formats, whose ties fall either way in any chain.
fn chain_in_single(attempt: &Attempt, end: Option<f64>) -> Option<Chain> {
    let products = |id: BufferId| {
        let mut found = 0;
        let source = attempt.buffer(id).source.as_ref();
        source
            .into_iter()
            .for_each(|s| s.visit(&mut |e| found += usize::from(matches!(e.0.op, Op::MatMul { .. }))));
        found
    };
    let source = attempt.buffer(attempt.result).source.as_ref()?;
    let last = matches!(source.0.op, Op::MatMul { .. });
    let all: usize = (0..attempt.buffers.len()).map(|i| products(BufferId(i))).sum();
    if !last || all != 1 {
        return None;
    }
    let declared = Declared::new(attempt, false, Precision::Single);
    let ideal = declared.buffer(attempt.result);
    let off = declared.off.get() / norm(&ideal.data);
    let own = Declared::new(attempt, true, Precision::Single).buffer(attempt.result);
    let noise = compare(&ideal, &own);
    let chain = compare(&ideal, &attempt.buffer(attempt.result).value());
    let floor = noise.rel_l2.filter(|floor| *floor >= COMPUTED)?;
    let check = at_most(CheckName::Chain, "", chain.rel_l2, (NOISE_FACTOR * floor).max(end.unwrap_or(0.0)));
    let least = NOISE_FACTOR * (floor - off) / (1.0 + off);
    let holds = (chain.rel_l2? + off) / (1.0 - off) <= least.max(end.unwrap_or(0.0));
    (off < 0.5 && check.ok && holds).then_some(Chain { chain, noise, check })
}

fn chain_in_double(attempt: &Attempt, end: Option<f64>) -> Chain {
    let ideal = ideal(attempt);
    let own = framework_chain(attempt);
    let noise = compare(&ideal, &own);
    let chain = compare(&ideal, &attempt.buffer(attempt.result).value());
    let mut floor = noise.rel_l2.unwrap_or(0.0);
    if floor < COMPUTED {
        // Formats that lose next to nothing: what arithmetic loses is more.
        let end = attempt.buffer(attempt.result);
        let declared = Declared::new(attempt, true, Precision::Double);
        floor = end.source.as_ref().map_or(floor, |s| floor.max(allowed(s, &ideal, end.dtype, &declared)));
    }
    // A chain that loses nothing, such as a copy, is allowed what float32 rounds.
    let floor = floor.max(2f64.powi(-24));
    let check = at_most(CheckName::Chain, "", chain.rel_l2, (NOISE_FACTOR * floor).max(end.unwrap_or(0.0)));
    Chain { chain, noise, check }
}

/// The chain's value before any quantisation.
pub fn ideal(attempt: &Attempt) -> Arc<Matrix> {
    let declared = Declared::new(attempt, false, Precision::Double);
    declared.buffer(attempt.result)
}

/// What the framework's own quantised chain makes of the inputs.
pub fn framework_chain(attempt: &Attempt) -> Arc<Matrix> {
    declared_value(attempt, attempt.result)
}

fn declared_value(attempt: &Attempt, id: BufferId) -> Arc<Matrix> {
    let declared = Declared::new(attempt, true, Precision::Double);
    declared.buffer(id)
}

/// How far each product of the chain cancels on the chain's own inputs, judged by declarations alone.
pub fn declared_cancellation(attempt: &Attempt) -> Vec<f64> {
    let declared = Declared::new(attempt, true, Precision::Double);
    let hops = attempt.hops().filter(|(_, b)| b.kind != Kind::Quantized);
    hops.filter_map(|(_, b)| cancellation(b.source.as_ref()?, &declared)).collect()
}

/// Checks on memory: guards, gaps and inputs of one run.
pub fn memory_checks(attempt: &Attempt) -> Vec<CheckResult> {
    let mut checks = Vec::new();
    let mut guards = none(CheckName::Guards, "", 0, "");
    for (name, damage) in attempt.buffers.iter().flat_map(|b| &b.damage) {
        let place = match damage.offset {
            -1 => "right before its start".into(),
            o if o < 0 => format!("{} bytes before its start", -o),
            0 => "right behind its end".into(),
            o => format!("from {o} bytes behind its end"),
        };
        if guards.ok {
            guards = none(CheckName::Guards, name, damage.bytes as u64, format!("written {place}"));
        }
    }
    checks.push(guards);
    let mut gaps = none(CheckName::Gaps, "", 0, "");
    for buffer in attempt.buffers.iter().filter(|b| b.gaps_written > 0) {
        gaps = none(
            CheckName::Gaps,
            &buffer.name,
            buffer.gaps_written as u64,
            "bytes written between its strided rows",
        );
    }
    checks.push(gaps);
    let mut inputs = none(CheckName::InputsUnchanged, "", 0, "");
    for buffer in attempt.buffers.iter().filter(|b| b.changed) {
        let who = buffer.changed_by.map_or("a kernel".into(), |launcher| format!("`{launcher}`"));
        let what = match buffer.kind.is_written() {
            true => "to this intermediate, which it only reads; it is judged as it was before",
            false => "to this input; declare it inout() if it may",
        };
        inputs = none(CheckName::InputsUnchanged, &buffer.name, 1, format!("{who} wrote {what}"));
    }
    checks.push(inputs);
    checks.extend(state_check(attempt));
    checks.extend(status_check(attempt));
    checks
}

/// `process_state`: what a launcher, a library or the test changed of the process's state on which the reference depends,
/// too. `None` where nothing was changed.
fn state_check(attempt: &Attempt) -> Option<CheckResult> {
    let of_launches = attempt
        .launches
        .iter()
        .flat_map(|launch| launch.changes.iter().map(move |(by, change)| (*by, launch.launcher, change)));
    let others = attempt.changes.iter().map(|(by, change)| (*by, "", change));
    let mut told: Vec<String> = Vec::new();
    for (by, launcher, change) in of_launches.chain(others) {
        let text = match by {
            Changer::Launcher => format!("`{launcher}` changed {change}"),
            Changer::Opening => format!(
                "opening the library of `{launcher}` changed {change}: one of its constructors does, as -ffast-math links one in"
            ),
            Changer::Test => format!("the test itself changed {change}"),
            Changer::Earlier => {
                format!(
                    "something that ran before the test, such as a library that it links, changed {change}"
                )
            }
        };
        if !told.contains(&text) {
            told.push(text);
        }
    }
    let detail = format!("{}; it was put back for the reference", told.join("; "));
    (!told.is_empty()).then(|| none(CheckName::ProcessState, "", told.len() as u64, detail))
}

/// `status`: launchers that failed without the test passing their errors on. `None` where there is none.
fn status_check(attempt: &Attempt) -> Option<CheckResult> {
    let failure = attempt.failures.first()?;
    let detail = format!(
        "{}, and the test went on: pass the error on with `?`, or ask cx.refused(..) where another launcher may take over",
        failure.error
    );
    Some(none(CheckName::Status, "", attempt.failures.len() as u64, detail))
}

/// Whether each launcher launched a kernel that its binding expects; `None` where no binding expects any.
pub fn kernel_check(attempt: &Attempt) -> Option<CheckResult> {
    let mut check = None;
    for launch in &attempt.launches {
        let Some(expected) = launch.expected else { continue };
        check.get_or_insert_with(|| none(CheckName::Kernel, "", 0, ""));
        let launcher = launch.launcher;
        let wrong = match (regex_lite::Regex::new(expected), &launch.kernels) {
            (Err(error), _) => format!("expect_kernel of `{launcher}` is no regular expression: {error}"),
            (_, None) => format!(
                "which kernels `{launcher}` launches cannot be seen: its library imports no launch call; link the CUDA runtime with -cudart shared"
            ),
            (Ok(regex), Some(kernels)) if kernels.iter().any(|kernel| regex.is_match(kernel)) => continue,
            (_, Some(kernels)) => {
                let ran = if kernels.is_empty() { "none".into() } else { kernels.join(", ") };
                format!("`{launcher}` launched {ran}, and is expected to launch {expected:?}")
            }
        };
        return Some(none(CheckName::Kernel, "", 1, &wrong));
    }
    check
}

/// Elements that neither of two runs with different poisons wrote.
pub fn unwritten_checks(first: &Attempt, second: &Attempt) -> Vec<CheckResult> {
    first
        .hops()
        .zip(second.hops())
        .filter(|((_, a), _)| a.kind != Kind::After)
        .map(|((_, a), (_, b))| {
            let count = a.unwritten(first.setup.poison, b, second.setup.poison);
            none(
                CheckName::Unwritten,
                &a.name,
                count,
                if count > 0 { "elements or scales still hold the poison" } else { "" },
            )
        })
        .collect()
}

/// Whether two runs on the same inputs wrote the same bytes, or, where a kernel is declared nondeterministic,
/// values within its bound.
pub fn repeat_checks(first: &Attempt, second: &Attempt, bound: Option<f64>) -> Vec<CheckResult> {
    first
        .hops()
        .zip(second.hops())
        .map(|((_, a), (_, b))| {
            let same = a.same_bytes(b);
            match bound {
                Some(bound) => {
                    let between = if same { Some(0.0) } else { compare(&a.value(), &b.value()).rel_l2 };
                    at_most(CheckName::Repeat, &a.name, between, bound)
                }
                None => {
                    let differing = a.data.iter().zip(&b.data[..]).filter(|(x, y)| x != y).count().max(1);
                    let why = "bytes differ between two runs on the same inputs: the kernel reads memory that nobody \
                               wrote, or it is nondeterministic";
                    none(CheckName::Repeat, &a.name, if same { 0 } else { differing as u64 }, if same { "" } else { why })
                }
            }
        })
        .collect()
}

/// A fallback's run against the primary's on the same inputs, hop by hop.
///
/// Codes may differ where a value lies at a tie; what that does to a consumer is added to its allowance, unless the
/// producer before it is itself wrong.
pub fn judge_against_primary(fallback: &Attempt, primary: &Attempt, min_cos: f64) -> Vec<JudgedHop> {
    let mut upstream_right = true;
    let (given, given_primary) = (Given::new(fallback), Given::new(primary));
    let mut judged = Vec::new();
    for ((id, f), (_, p)) in fallback.hops().zip(primary.hops()) {
        let source = f.source.as_ref().expect("a buffer that a kernel writes is computed from something");
        let reference = given_primary.buffer(id);
        let mut comparison = compare(&reference, &given.buffer(id));
        let equal = f.data.iter().zip(&p.data[..]).filter(|(a, b)| a == b).count();
        let mut checks;
        let (mut max_rel_l2, mut scale_cos) = (None, None);
        if let (Some(scheme), Some(theirs), Some(ours)) = (f.scheme, p.quantized(), f.quantized()) {
            let value = eval(source, &given);
            let errors = ScaleErrors::new(&scheme, &value, &ours, uncertainty(source));
            let settled = settled_ties(&scheme, &value, &theirs, &ours, &errors, uncertainty(source));
            let settled = compare(&settled.decode(), &ours.decode());
            checks = comparison_checks(&f.name, &settled, min_cos, None);
            checks.extend(producer_checks(&f.name, &scheme, &value, &theirs, &ours, uncertainty(source)));
            comparison = settled;
            scale_cos = scale_cosine(&value, &scheme, &theirs, &ours);
        } else {
            let (own, other) = (eval(source, &given), eval(source, &given_primary));
            let ties = if upstream_right { compare(&other, &own).rel_l2.unwrap_or(0.0) } else { 0.0 };
            let each = allowed(source, &own, f.dtype, &given);
            max_rel_l2 = Some(NOISE_FACTOR * (2.0 * each.powi(2) + ties.powi(2)).sqrt());
            checks = comparison_checks(&f.name, &comparison, min_cos, max_rel_l2);
        }
        upstream_right &= checks.iter().all(|c| c.ok);
        let mut hop = hop(f, "primary", &comparison, &checks);
        hop.bytes_equal = Some(equal as f64 / f.data.len() as f64);
        hop.scale_cos = scale_cos;
        let spread = Spread::Unknown;
        let bounds = Bounds::usual(min_cos, max_rel_l2);
        judged.push(JudgedHop { id, hop, checks, reference, bounds, spread });
    }
    judged
}

#[cfg(test)]
pub(crate) mod tests;
