//! Power: would the checks have seen a fault in this very case?
//!
//! A case whose data, shape or scales hide a fault proves nothing about it. For each fault of a fixed list the
//! reference is computed once more with the fault seeded, and goes through the same checks as the kernel's output: the
//! fault is seen, unseen, or not applicable because it is the identity here (one token, one scale column, all scales
//! alike).

use crate::case::sample::columns_of;
use crate::case::{Attempt, Captured, Kind};
use crate::dtype::{BF16, DType, E8M0, F16, NibbleOrder};
use crate::judge::spread::Spread;
use crate::judge::{
    Given, JudgedHop, bounds, failed, producer_checks, round, seeded_elements, uncertainty, unit,
};
use crate::layout::{DataLayout, ScaleLayout};
use crate::metrics::compare;
use crate::quant::{Granularity, Quant, Quantized, ZeroPoint, quantize};
use crate::record::{CheckName, Power, PowerStatus};
use crate::reference::graph::{Binary, Op, Unary};
use crate::reference::{BufferId, Evaluation, Expr, Matrix, eval};
use crate::verdict::{Bounds, at_most, bounded_checks, comparison_checks};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows on which an accumulator is simulated: it takes a rounding for each product.
const ACCUMULATED_ROWS: usize = 2;

/// Seeds every fault that the chain declares. `probe` is a run on data whose large terms cancel.
///
/// Of products with large weights faults are seeded in some output columns only, see [`crate::case::sample`].
pub fn power(
    attempt: &Attempt,
    hops: &[JudgedHop],
    probe: Option<(&Attempt, &[JudgedHop])>,
    min_cos: f64,
) -> Vec<Power> {
    let probe = probe.map(|(attempt, hops)| Judged::new(attempt, hops));
    let judged = Judged::new(attempt, hops);
    let probe = probe.as_ref().map(|judged| (&*judged.attempt, &judged.hops[..]));
    seeded(&judged.attempt, &judged.hops, probe, min_cos)
}

/// A judged run, cut down to some columns where it is large.
struct Judged<'a> {
    attempt: Cow<'a, Attempt>,
    hops: Vec<Reference>,
}

/// What a hop is held against.
struct Reference {
    id: BufferId,
    reference: Arc<Matrix>,
    bounds: Bounds,
    /// Which part of the hop that is, if not all of it.
    note: Option<String>,
}

impl Reference {
    fn annotate(&self, found: &mut [Power]) {
        for power in found {
            if let Some(note) = &self.note {
                let parts = [power.detail.as_str(), note.as_str()];
                power.detail =
                    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
            }
        }
    }
}

impl<'a> Judged<'a> {
    fn new(attempt: &'a Attempt, hops: &[JudgedHop]) -> Judged<'a> {
        let sample = attempt.sample();
        let columns = sample.as_ref().map(|s| &s.columns);
        let hops = hops.iter().map(|hop| {
            let sampled = columns.and_then(|columns| columns.get(&hop.id));
            Reference {
                id: hop.id,
                reference: match sampled {
                    Some(columns) => Arc::new(columns_of(&hop.reference, columns)),
                    None => hop.reference.clone(),
                },
                bounds: hop.bounds,
                note: sampled.map(|columns| {
                    format!("in {} of {} columns", columns.len(), attempt.buffer(hop.id).cols)
                }),
            }
        });
        let hops = hops.collect();
        let attempt = sample.map_or(Cow::Borrowed(attempt), |s| Cow::Owned(s.attempt));
        Judged { attempt, hops }
    }
}

fn seeded(
    attempt: &Attempt,
    hops: &[Reference],
    probe: Option<(&Attempt, &[Reference])>,
    min_cos: f64,
) -> Vec<Power> {
    let given = Given::new(attempt);
    let mut found = Vec::new();
    for judged in hops {
        let buffer = attempt.buffer(judged.id);
        let source = buffer.source.as_ref().expect("a hop is computed from something");
        match buffer.scheme {
            Some(_) => found.extend(producer_faults(attempt, buffer, source, &given)),
            None => {
                let spread = OnceCell::new();
                let consumer = Consumer { buffer, judged, source, given: &given, spread };
                let mut faults = consumer.operand_faults(attempt);
                faults.extend(consumer.graph_faults());
                judged.annotate(&mut faults);
                found.extend(faults);
            }
        }
    }
    if let Some((attempt, hops)) = probe {
        for judged in hops {
            let mut faults = accumulator_faults(attempt, judged);
            judged.annotate(&mut faults);
            found.extend(faults);
        }
    }
    if found.iter().all(|power| power.status == PowerStatus::NotApplicable) {
        found.extend(hops.iter().map(|judged| shifted(attempt, judged, &given, min_cos)));
    }
    found
}

/// A fault that every kernel can have, for a case whose operands hide all others: each element is its neighbour's, as of an
/// index that is off by one.
fn shifted(attempt: &Attempt, judged: &Reference, given: &Given<'_>, min_cos: f64) -> Power {
    let buffer = attempt.buffer(judged.id);
    let mut faulty = Matrix::clone(&judged.reference);
    faulty.data.rotate_left(1);
    let (fault, name) = ("output_shifted", &buffer.name);
    if same_result(&faulty, &judged.reference) {
        return not_applicable(fault, name);
    }
    let source = buffer.source.as_ref().expect("a hop is computed from something");
    match buffer.scheme {
        Some(scheme) => {
            let value = eval(source, given);
            let expected = quantize(&value, &scheme, buffer.factor);
            let mut written = expected.clone();
            written.codes.rotate_left(1);
            if written == expected {
                return not_applicable(fault, name);
            }
            let comparison = compare(&expected.decode(), &written.decode());
            let mut checks = comparison_checks(name, &comparison, min_cos, None);
            let uncertainty = uncertainty(source);
            checks.extend(producer_checks(name, &scheme, &value, &expected, &written, uncertainty));
            seen(fault, name, failed(&checks), comparison.cos)
        }
        None => {
            let spread = OnceCell::new();
            Consumer { buffer, judged, source, given, spread }.judge(fault, name, &faulty)
        }
    }
}

/// A hop whose output is judged on the bytes it was given.
struct Consumer<'a> {
    buffer: &'a Captured,
    judged: &'a Reference,
    source: &'a Expr,
    given: &'a Given<'a>,
    /// What each element may be off by, once it is asked for.
    spread: OnceCell<Spread>,
}

impl Consumer<'_> {
    /// The same checks, on an output that was computed with a fault.
    fn judge(&self, fault: &str, operand: &str, faulty: &Matrix) -> Power {
        let out = round(faulty, self.buffer.dtype);
        let reference = &self.judged.reference;
        let comparison = compare(reference, &out);
        let mut checks = bounded_checks(&self.buffer.name, &comparison, &self.judged.bounds);
        if checks.iter().all(|c| c.ok) {
            let spread = self.spread.get_or_init(|| bounds(self.source, self.given));
            checks.extend(seeded_elements(self.buffer, self.source, reference, &out, spread));
        }
        let power = seen(fault, operand, failed(&checks), comparison.cos);
        match power.status {
            PowerStatus::Unseen => Power { detail: self.times_too_small(faulty, comparison.rel_l2), ..power },
            _ => power,
        }
    }

    /// By how much a fault that was not seen is too small, in words.
    fn times_too_small(&self, faulty: &Matrix, rel_l2: Option<f64>) -> String {
        let spread = self.spread.get_or_init(|| bounds(self.source, self.given));
        let mut most = 0.0_f64;
        for r in 0..faulty.rows {
            for (c, (x, y)) in self.judged.reference.row(r).iter().zip(faulty.row(r)).enumerate() {
                let allowed = spread.at(r, c) + unit(self.buffer.dtype) * x.abs();
                if (x - y).is_finite() && allowed > 0.0 {
                    most = most.max((x - y).abs() / allowed);
                }
            }
        }
        let (rel_l2, allowed) =
            (rel_l2.unwrap_or(f64::NAN), self.judged.bounds.rel_l2.unwrap_or(f64::INFINITY));
        match most {
            // The kernel declares that it rounds within a function, so only the error of the whole is bounded.
            0.0 => format!(
                "it changes the relative L2 by {rel_l2:.2e}, and what the kernel declares to round may change it by \
                 {allowed:.2e}: take a shape on which it weighs more, such as a shorter sequence for a position that is \
                 left out"
            ),
            most if most < 1e-6 => {
                "what it changes is less than a millionth of what rounding may: take another shape, on \
                                    which the fault moves more"
                    .into()
            }
            most if most < 1.0 => format!(
                "what it changes is at most {most:.2} of what rounding may: take values {:.0} times larger where it \
                 acts, or a float32 output",
                (2.0 / most).ceil()
            ),
            _ => "too few elements change: take more tokens".into(),
        }
    }

    fn operand_faults(&self, attempt: &Attempt) -> Vec<Power> {
        let mut found = Vec::new();
        for id in self.source.buffers() {
            let operand = attempt.buffer(id);
            let value = self.given.buffer(id);
            for Misreading { fault, value: misread, moves } in misreadings(operand, &value) {
                let misread = misread.filter(|misread| !identical(misread, &value));
                let faulty = misread.and_then(|misread| misled(self.source, self.given, id, misread));
                found.push(match faulty {
                    Some(faulty) if !same_result(&faulty, &self.judged.reference) => {
                        self.judge(fault, &operand.name, &faulty)
                    }
                    _ if !moves && attempt.setup.tokens > 1 => by_shape(fault, operand),
                    _ => not_applicable(fault, &operand.name),
                });
            }
        }
        found
    }

    fn graph_faults(&self) -> Vec<Power> {
        graph_mutants(self.source)
            .into_iter()
            .map(|(fault, mutant)| {
                let faulty = eval(&mutant, self.given);
                if same_result(&faulty, &self.judged.reference) {
                    return not_applicable(fault, &self.buffer.name);
                }
                self.judge(fault, &self.buffer.name, &faulty)
            })
            .collect()
    }
}

fn seen(fault: &str, operand: &str, failed_checks: Vec<String>, cos: Option<f64>) -> Power {
    Power {
        fault: fault.into(),
        operand: operand.into(),
        status: if failed_checks.is_empty() { PowerStatus::Unseen } else { PowerStatus::Seen },
        failed_checks,
        cos,
        claimed: true,
        detail: String::new(),
    }
}

fn not_applicable(fault: &str, operand: &str) -> Power {
    Power {
        fault: fault.into(),
        operand: operand.into(),
        status: PowerStatus::NotApplicable,
        failed_checks: Vec::new(),
        cos: None,
        claimed: true,
        detail: "the identity on this shape and data".into(),
    }
}

/// A fault that moves nothing in the declared shape, whatever the data: no case of the test can see it, and none has to. Of
/// one token more would show it.
fn by_shape(fault: &str, operand: &Captured) -> Power {
    Power {
        claimed: false,
        detail: format!(
            "the identity in the shape [{}, {}], whatever its values",
            operand.rows, operand.cols
        ),
        ..not_applicable(fault, &operand.name)
    }
}

/// Equal in every bit but for the kind of NaN.
fn identical(a: &Matrix, b: &Matrix) -> bool {
    a.data.iter().zip(&b.data).all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
}

/// Whether two float64 results are one value, computed in another order: what a fault gives that only exchanges terms of
/// a sum. A kernel in float32 could not show the difference.
fn same_result(a: &Matrix, b: &Matrix) -> bool {
    (0..a.rows).all(|r| {
        let row = || a.row(r).iter().zip(b.row(r));
        let finite = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
        let largest = row().fold(0.0_f64, |most, (x, y)| most.max(finite(*x)).max(finite(*y)));
        row().all(|(x, y)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= ORDER * largest)
    })
}

/// What the order of its terms may change in a float64 sum, relative to the largest result of its row.
const ORDER: f64 = 1.0 / (1_u64 << 40) as f64;

/// One way in which a consumer can misread an operand.
struct Misreading {
    fault: &'static str,
    /// What it reads; `None` where the fault makes no sense on this shape.
    value: Option<Matrix>,
    /// Whether anything is read from another place, or as another number: nothing is where the declared shape makes the
    /// fault the identity.
    moves: bool,
}

/// The ways in which a consumer can misread an operand.
fn misreadings(operand: &Captured, value: &Matrix) -> Vec<Misreading> {
    let other = |fault, value| Misreading { fault, value, moves: true };
    if operand.kind == Kind::Index {
        let mut neighbours = value.clone();
        neighbours.data.rotate_left(1);
        let moves = value.data.len() > 1;
        return vec![Misreading { fault: "index_neighbour", value: Some(neighbours), moves }];
    }
    let mut found: Vec<Misreading> = Vec::new();
    if let (Some(scheme), Some(quantized)) = (operand.scheme, operand.quantized()) {
        found.extend(misread_scales(operand, &scheme, &quantized));
        found.extend(misread_codes(operand, &scheme, &quantized).into_iter().map(|(f, v)| other(f, v)));
    }
    if operand.kind != Kind::Before && operand.kind != Kind::After && operand.source_rank() == 2 {
        let moves = operand.rows > 1 && operand.cols > 1;
        found.push(Misreading { fault: "transposed", value: transposed(operand, value), moves });
    }
    found
}

fn misread_scales(operand: &Captured, scheme: &Quant, quantized: &Quantized) -> Vec<Misreading> {
    let mut found: Vec<Misreading> = Vec::new();
    let other = |fault, value| Misreading { fault, value, moves: true };
    let grid = scheme.granularity.grid(operand.rows, operand.cols);
    let with_scales = |scales: Vec<f64>| Some(Quantized { scales, ..quantized.clone() }.decode());
    let scales = &quantized.scales;
    if matches!(scheme.granularity, Granularity::Group(_) | Granularity::Block(..)) {
        // The scales as a kernel finds them that expects the other order; from a padded one it reads padding too.
        let other = match scheme.scale_layout {
            ScaleLayout::RowMajor => ScaleLayout::ColMajor,
            _ => ScaleLayout::RowMajor,
        };
        let map = other.index_map(grid);
        let read = |i: usize| {
            let at = map.offset(i / grid.1, i % grid.1);
            scheme.scale_dtype.decode(scheme.scale_dtype.code_at(&operand.scales, at))
        };
        let own = scheme.scale_layout.index_map(grid);
        let moved = |i: usize| map.offset(i / grid.1, i % grid.1) != own.offset(i / grid.1, i % grid.1);
        let moves = (0..grid.0 * grid.1).any(moved);
        let value = with_scales((0..grid.0 * grid.1).map(read).collect());
        found.push(Misreading { fault: "scale_layout", value, moves });
    }
    if !matches!(scheme.granularity, Granularity::Tensor) {
        let neighbour = |i: usize| match (i / grid.1, i % grid.1) {
            (r, c) if grid.1 > 1 => r * grid.1 + (c + 1) % grid.1,
            (r, c) => (r + 1) % grid.0 * grid.1 + c,
        };
        let value = with_scales((0..scales.len()).map(|i| scales[neighbour(i)]).collect());
        found.push(Misreading { fault: "scale_neighbour", value, moves: scales.len() > 1 });
    }
    found.push(other("scale_missing", with_scales(vec![1.0; scales.len()])));
    if scheme.scale_dtype == E8M0 {
        found.push(other("e8m0_bias", with_scales(scales.iter().map(|s| s * 2.0).collect())));
    }
    if scheme.global_scale.is_some() {
        let inverted = Quantized { global: 1.0 / quantized.global, ..quantized.clone() };
        found.push(other("global_scale", Some(inverted.decode())));
    }
    found
}

fn misread_codes(
    operand: &Captured,
    scheme: &Quant,
    quantized: &Quantized,
) -> Vec<(&'static str, Option<Matrix>)> {
    let mut found = Vec::new();
    let (rows, cols) = (operand.rows, operand.cols);
    let decoded = |codes: Vec<u32>| Some(Quantized { codes, ..quantized.clone() }.decode());
    if let Some(twin) = fp8_twin(operand.dtype) {
        found.push(("fp8_variant", Some(Quantized { dtype: twin, ..quantized.clone() }.decode())));
    }
    let map = scheme.data_layout.index_map((rows, cols));
    // The codes in the order of memory, as the right reader of nibbles finds them.
    let mut in_memory = vec![0; rows * cols];
    for (i, &code) in quantized.codes.iter().enumerate() {
        in_memory[map.offset(i / cols, i % cols)] = code;
    }
    if operand.dtype.bits() == 4 {
        let wrong = |at: usize| match scheme.nibbles {
            // High nibble first.
            NibbleOrder::LowFirst => at ^ 1,
            // Low nibble first: the one at `at` holds another element of the word.
            order => at / 8 * 8 + order.elements()[at % 8],
        };
        let read = |i: usize| in_memory.get(wrong(map.offset(i / cols, i % cols))).copied().unwrap_or(0);
        found.push(("nibble_order", decoded((0..rows * cols).map(read).collect())));
    }
    if scheme.data_layout != DataLayout::RowMajor {
        found.push(("permuted_tiles", decoded(in_memory)));
    }
    if matches!(scheme.zero_point, ZeroPoint::PerCell { .. }) {
        let with_zeros = |f: fn(f64) -> f64| {
            let zeros = quantized.zeros.iter().map(|&z| f(z)).collect();
            Some(Quantized { zeros, ..quantized.clone() }.decode())
        };
        found.push(("zero_point", with_zeros(|_| 0.0)));
        // GPTQ stores them minus one.
        found.push(("zero_point_minus_one", with_zeros(|z| z - 1.0)));
    } else if scheme.zero_point != ZeroPoint::None {
        found.push(("zero_point", Some(Quantized { zeros: Vec::new(), ..quantized.clone() }.decode())));
    }
    found
}

impl Captured {
    /// 1 for a vector (a norm's gain, a bias), else 2.
    fn source_rank(&self) -> u32 {
        if matches!(self.kind, Kind::Weight | Kind::Constant) && self.rows == 1 { 1 } else { 2 }
    }
}

/// The variant with which a format is confused: they share their bytes.
pub fn fp8_twin(dtype: DType) -> Option<DType> {
    dtype.twin()
}

/// The elements as a kernel finds them that takes the matrix for its transpose; scales stay where they are.
fn transposed(operand: &Captured, value: &Matrix) -> Option<Matrix> {
    let (rows, cols) = (operand.rows, operand.cols);
    let source = |i: usize| (i % cols) * rows + i / cols;
    Some(match operand.quantized() {
        Some(q) => {
            Quantized { codes: (0..q.codes.len()).map(|i| q.codes[source(i)]).collect(), ..q }.decode()
        }
        None => Matrix::new(rows, cols, (0..value.data.len()).map(|i| value.data[source(i)]).collect()),
    })
}

/// Faults of a kernel that quantises, judged as its own output is.
fn producer_faults(attempt: &Attempt, buffer: &Captured, source: &Expr, given: &Given<'_>) -> Vec<Power> {
    let (Some(scheme), value) = (buffer.scheme, eval(source, given)) else { return Vec::new() };
    let expected = quantize(&value, &scheme, buffer.factor);
    let judge_operand = |fault: &str, operand: &str, written: &Quantized| {
        if *written == expected {
            return not_applicable(fault, operand);
        }
        let (reference, decoded) = (expected.decode(), written.decode());
        let comparison = compare(&reference, &decoded);
        let mut checks = comparison_checks(&buffer.name, &comparison, crate::verdict::MIN_COS, None);
        checks.extend(producer_checks(
            &buffer.name,
            &scheme,
            &value,
            &expected,
            written,
            uncertainty(source),
        ));
        seen(fault, operand, failed(&checks), comparison.cos)
    };
    let judge = |fault: &str, written: &Quantized| judge_operand(fault, &buffer.name, written);
    let mut found = vec![judge("rounding", &truncated(&expected, &value))];
    for (fault, mutant) in graph_mutants(source) {
        found.push(judge(fault, &quantize(&eval(&mutant, given), &scheme, buffer.factor)));
    }
    // Values are judged as operands of what consumes them; indices steer this kernel alone.
    for id in source.buffers().into_iter().filter(|&id| attempt.buffer(id).kind == Kind::Index) {
        let operand = attempt.buffer(id);
        for Misreading { fault, value: misread, .. } in misreadings(operand, &given.buffer(id)) {
            let faulty = misread.and_then(|misread| misled(source, given, id, misread));
            found.push(match faulty {
                Some(faulty) => {
                    judge_operand(fault, &operand.name, &quantize(&faulty, &scheme, buffer.factor))
                }
                None => not_applicable(fault, &operand.name),
            });
        }
    }
    found
}

/// What a hop computes from a misread operand; `None` where a function of the test's own does not take such values, as
/// an index that is out of range.
fn misled(source: &Expr, given: &Given<'_>, id: BufferId, misread: Matrix) -> Option<Arc<Matrix>> {
    let given = given.with_fault(id, misread);
    catch_unwind(AssertUnwindSafe(|| eval(source, &given))).ok()
}

/// Codes rounded towards zero.
fn truncated(expected: &Quantized, value: &Matrix) -> Quantized {
    let mut out = expected.clone();
    for r in 0..value.rows {
        for c in 0..value.cols {
            let i = r * value.cols + c;
            let scaled = value.data[i] / (expected.scale_at(r, c) * expected.global);
            let code = expected.codes[i];
            let here = expected.dtype.decode(code);
            if here.abs() > scaled.abs() {
                // One code nearer to zero: codes of a sign are ordered by magnitude in floats and integers alike.
                out.codes[i] = match here > 0.0 || !expected.dtype.is_integer() {
                    true => code - 1,
                    false => (code + 1) & ((1 << expected.dtype.bits()) - 1),
                };
            }
        }
    }
    out
}

/// Expressions that a kernel might compute instead.
pub(crate) fn graph_mutants(source: &Expr) -> Vec<(&'static str, Expr)> {
    let mut found: Vec<(&'static str, Expr)> = Vec::new();
    let mut kinds = Vec::new();
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { gain: Some(_), .. } | Op::LayerNorm { gain: Some(_), .. } => kinds.push("norm_weight"),
        Op::Binary { function: Binary::Mul, a, .. }
            if matches!(a.0.op, Op::Unary { function: Unary::Silu | Unary::Gelu, .. }) =>
        {
            kinds.push("gate_up_swapped");
        }
        Op::Binary { function: Binary::Add, .. } => kinds.push("addend_missing"),
        Op::User { faults, .. } => kinds.extend(faults.iter().map(|(name, _)| *name)),
        _ => {}
    });
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let mutant = source.rewrite(&|op| match (kind, op) {
            ("norm_weight", Op::RmsNorm { x, eps, .. }) => {
                Some(Op::RmsNorm { x: x.clone(), gain: None, eps: *eps })
            }
            ("norm_weight", Op::LayerNorm { x, bias, eps, .. }) => {
                Some(Op::LayerNorm { x: x.clone(), gain: None, bias: bias.clone(), eps: *eps })
            }
            ("gate_up_swapped", Op::Binary { function: Binary::Mul, a, b }) => match &a.0.op {
                Op::Unary { function, x } => {
                    Some(Op::Binary { function: Binary::Mul, a: Expr::unary_of(*function, b), b: x.clone() })
                }
                _ => None,
            },
            ("addend_missing", Op::Binary { function: Binary::Add, a, .. }) => {
                Some(Op::Scale { x: a.clone(), factor: 1.0 })
            }
            (kind, Op::User { name, inputs, rounds, faults, .. }) => {
                let (_, wrong) = faults.iter().find(|(name, _)| *name == kind)?;
                Some(Op::User {
                    name: name.clone(),
                    inputs: inputs.clone(),
                    function: wrong.clone(),
                    rounds: rounds.clone(),
                    faults: Vec::new(),
                    suspects: Vec::new(),
                })
            }
            _ => None,
        });
        found.push((kind, mutant));
    }
    found
}

/// Products summed up one by one in a narrow format.
struct Accumulating<'a> {
    given: &'a Given<'a>,
    accumulator: DType,
}

impl Evaluation for Accumulating<'_> {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        self.given.buffer(id)
    }

    fn matmul(&self, a: &Matrix, b: &Matrix) -> Matrix {
        let narrow: fn(f64) -> f64 = match self.accumulator {
            DType::F16 => |x| half::f16::from_f64(x).to_f64(),
            _ => |x| half::bf16::from_f64(x).to_f64(),
        };
        let mut out = Matrix::zeros(a.rows, b.rows);
        for r in 0..a.rows.min(ACCUMULATED_ROWS) {
            for c in 0..b.rows {
                let sum = a.row(r).iter().zip(b.row(c)).fold(0.0, |sum, (x, y)| narrow(sum + x * y));
                out.row_mut(r)[c] = sum;
            }
        }
        out
    }
}

/// A kernel that accumulates in fewer bits than declared, on data whose large terms cancel.
fn accumulator_faults(probe: &Attempt, judged: &Reference) -> Vec<Power> {
    let buffer = probe.buffer(judged.id);
    let Some(source) = buffer.source.as_ref().filter(|_| buffer.scheme.is_none()) else { return Vec::new() };
    let (mut declared, mut longest) = (Vec::new(), 0);
    source.visit(&mut |e| {
        if let Op::MatMul { a, accumulator, .. } = &e.0.op {
            declared.push(*accumulator);
            longest = longest.max(a.shape().1);
        }
    });
    // One term is no sum.
    if declared.is_empty() || longest < 2 {
        return Vec::new();
    }
    let given = Given::new(probe);
    let reference = judged.reference.head(ACCUMULATED_ROWS);
    // A NaN in what an earlier kernel was given, which each of these sums has among its terms, hides how they are rounded.
    if !reference.data.iter().any(|x| x.is_finite()) {
        return vec![not_applicable("accumulation", &buffer.name)];
    }
    let spread = OnceCell::new();
    [F16, BF16]
        .into_iter()
        .filter(|&narrow| !declared.contains(&narrow.into()))
        .map(|accumulator| {
            let faulty = eval(source, &Accumulating { given: &given, accumulator }).head(ACCUMULATED_ROWS);
            let out = round(&faulty, buffer.dtype);
            let comparison = compare(&reference, &out);
            let bound = judged.bounds.rel_l2.unwrap_or(0.0);
            let mut checks = vec![crate::verdict::none(CheckName::Inf, "", comparison.inf_unexpected, "")];
            if comparison.inf_unexpected == 0 {
                checks = vec![at_most(CheckName::Accumulation, "", comparison.rel_l2, bound)];
                // Beside a large addend, as a residual that is updated in place, only elements tell.
                if checks.iter().all(|c| c.ok) {
                    let spread = spread.get_or_init(|| bounds(source, &given));
                    checks.extend(seeded_elements(buffer, source, &reference, &out, spread));
                }
            }
            Power {
                detail: format!("accumulated in {accumulator}"),
                ..seen("accumulation", &buffer.name, failed(&checks), comparison.cos)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_only_exchanges_terms_of_a_sum_is_none() {
        let terms: Vec<f64> = (0..100).map(|i| ((i * 37 % 19) as f64 - 7.3) / 3.0).collect();
        let forwards: f64 = terms.iter().sum();
        let backwards: f64 = terms.iter().rev().sum();
        assert_ne!(forwards, backwards);
        let of = |x: f64| Matrix::new(1, 2, vec![x, 1e-3]);
        assert!(same_result(&of(forwards), &of(backwards)));
        assert!(!same_result(&of(forwards), &of(forwards * (1.0 + 1e-9))));
        assert!(!same_result(&of(f64::NAN), &of(1.0)));
        assert!(same_result(&of(f64::INFINITY), &of(f64::INFINITY)));
        assert!(!same_result(&of(f64::INFINITY), &of(f64::NEG_INFINITY)));
    }
}
