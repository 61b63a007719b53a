//! How far a right kernel may be from the float64 value of each element before it rounds its result.
//!
//! A kernel that computes in float32 makes an error in every operation. This module carries a bound on that error from
//! the operands of a declared expression to its result, element by element: products add what their accumulator allows,
//! sums and factors add roundings of float32, and a declared rounding adds nothing unless its value lies next to a tie.
//! An element that is no rounding of any value within its bound was rounded once more than declared, or is wrong.
//!
//! A function of the test's own has no known formula. Its inputs are disturbed a little, a few times, and its bound is a
//! multiple of what that changes.

use super::{COMPUTED, DIVISION, Product};
use crate::case::input::Rng;
use crate::dtype::DType;
use crate::quant::{Quant, amax};
use crate::reference::graph::{Binary, CodeRounding, Op, Unary, operands};
use crate::reference::stream::{self, Precision, Weight};
use crate::reference::{BufferId, Evaluation, Expr, Matrix, eval, times_magnitudes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Half a unit in the last place of float32.
const U: f64 = 1.0 / (1 << 24) as f64;
/// Below this float32 has no normal numbers, and a kernel may flush them.
const TINY: f64 = f32::MIN_POSITIVE as f64;
/// A value this near to a tie, relative to itself, is one.
const TIE: f64 = 1.0 / (1_u64 << 40) as f64;
/// How often the inputs of a function of the test's own are disturbed, and by what share of their size.
const DISTURBED: usize = 3;
const DISTURBANCE: f64 = 16.0 * U;
/// How many times what such a disturbance changes a right kernel may be off by.
const OF_DISTURBANCE: f64 = 4.0;

/// The bound of each element.
#[derive(Clone)]
pub enum Spread {
    /// The kernel has the value itself: it only copies.
    Exact,
    Each(Arc<Matrix>),
    /// Nothing is known: the kernel declares that it rounds within a function.
    Unknown,
}

impl Spread {
    fn each(of: Matrix) -> Spread {
        Spread::Each(Arc::new(of))
    }

    fn is_unknown(&self) -> bool {
        matches!(self, Spread::Unknown)
    }

    /// The bound of an element; infinite where none is known.
    pub fn at(&self, r: usize, c: usize) -> f64 {
        match self {
            Spread::Exact => 0.0,
            Spread::Each(of) => of.row(r)[c],
            Spread::Unknown => f64::INFINITY,
        }
    }
}

/// Whether `out` is a rounding to `dtype` of a value within `spread` of `x`.
pub fn is_rounding(dtype: DType, out: f64, x: f64, spread: f64) -> bool {
    if !spread.is_finite() {
        return true;
    }
    // A tie may go either way.
    let spread = spread.max(TIE * x.abs());
    // Rounding keeps the order, and leaves what is a value of the format.
    (out - x).abs() <= spread || dtype.nearest(x - spread) <= out && out <= dtype.nearest(x + spread)
}

/// A value and its bound. The value of a buffer is left where it is: a weight may be large.
struct Bounded {
    value: Option<Arc<Matrix>>,
    spread: Spread,
}

/// The value of an expression and the bound of each of its elements. `products` is what the accumulators of its products
/// allow, in the order of [`Expr::visit`].
pub(super) fn of(source: &Expr, given: &dyn Evaluation, products: &[Product]) -> (Arc<Matrix>, Spread) {
    let mut walk = Walk { given, products: products.iter() };
    let bounded = walk.bounded(source);
    (bounded.value.unwrap_or_else(|| eval(source, given)), bounded.spread)
}

struct Walk<'a> {
    given: &'a dyn Evaluation,
    products: std::slice::Iter<'a, Product>,
}

impl Walk<'_> {
    fn bounded(&mut self, expr: &Expr) -> Bounded {
        let op = &expr.0.op;
        if let Op::Buffer(_) = op {
            return Bounded { value: None, spread: Spread::Exact };
        }
        let of: Vec<(&Expr, Bounded)> = operands(op).into_iter().map(|e| (e, self.bounded(e))).collect();
        let product = match op {
            Op::MatMul { .. } => self.products.next(),
            _ => None,
        };
        let values: Vec<_> = of.iter().map(|(_, bounded)| bounded.value.clone()).collect();
        let value = self.apply(expr, &values);
        let spread = match of.iter().any(|(_, bounded)| bounded.spread.is_unknown()) {
            true => Spread::Unknown,
            false => self.spread(expr, &of, product, &value),
        };
        Bounded { value: Some(value), spread }
    }

    /// The operation of `expr` on `values` in the place of its operands, where they are known.
    fn apply(&self, expr: &Expr, values: &[Option<Arc<Matrix>>]) -> Arc<Matrix> {
        let (mut at, mut leaves) = (0, Vec::new());
        let op = expr.0.op.of_operands(&mut |operand| {
            let value = values[at].clone();
            at += 1;
            match value {
                None => operand.clone(),
                Some(value) => {
                    leaves.push(value);
                    let (rows, cols) = operand.shape();
                    Expr::buffer(BufferId(LEAVES + leaves.len() - 1), rows, cols)
                }
            }
        });
        eval(&Expr::of_op(op, expr.shape()), &Local { given: self.given, leaves })
    }

    fn spread(
        &self,
        expr: &Expr,
        of: &[(&Expr, Bounded)],
        product: Option<&Product>,
        value: &Arc<Matrix>,
    ) -> Spread {
        let operand = |i: usize| {
            let (expr, bounded): &(&Expr, Bounded) = &of[i];
            bounded.value.clone().unwrap_or_else(|| eval(expr, self.given))
        };
        let spread = |i: usize| &of[i].1.spread;
        let each = |f: &dyn Fn(usize, usize, f64) -> f64| {
            let mut out = Matrix::zeros(value.rows, value.cols);
            for r in 0..value.rows {
                let x = value.row(r);
                out.row_mut(r).iter_mut().enumerate().for_each(|(c, s)| *s = f(r, c, x[c]) + TINY);
            }
            Spread::each(out)
        };
        match &expr.0.op {
            Op::Buffer(_) | Op::Invalid(_) => Spread::Exact,
            Op::MatMul { b, .. } => {
                let Some(Product { measure, share, .. }) = product else { return Spread::Unknown };
                // What the operands may be off by goes into every product.
                let of_a = match spread(0) {
                    Spread::Each(s) => Some(times_magnitudes(s, b, self.given)),
                    _ => None,
                };
                let of_b = match spread(1) {
                    Spread::Each(s) => Some(operand(0).map(f64::abs).matmul_t(s)),
                    _ => None,
                };
                let more = |m: &Option<Matrix>, r: usize, c: usize| m.as_ref().map_or(0.0, |m| m.row(r)[c]);
                each(&|r, c, x| {
                    share * measure.row(r)[c] + 4.0 * U * x.abs() + more(&of_a, r, c) + more(&of_b, r, c)
                })
            }
            Op::Scale { factor, .. } => {
                each(&|r, c, x| factor.abs() * spread(0).at(r, c) + 2.0 * U * x.abs())
            }
            Op::Binary { function, .. } => {
                let (a, b) = (operand(0), operand(1));
                let row_of_b = |r: usize| if b.rows == a.rows { r } else { 0 };
                each(&|r, c, v| {
                    let (x, y) = (a.row(r)[c].abs(), b.row(row_of_b(r))[c].abs());
                    let (of_x, of_y) = (spread(0).at(r, c), spread(1).at(row_of_b(r), c));
                    match function {
                        // In whichever order several terms are added.
                        Binary::Add | Binary::Sub => of_x + of_y + 2.0 * U * (x + y),
                        Binary::Mul => x * of_y + y * of_x + of_x * of_y + 2.0 * U * v.abs(),
                    }
                })
            }
            Op::Unary { function, .. } => {
                let x = operand(0);
                each(&|r, c, v| {
                    let (at, off) = (x.row(r)[c], spread(0).at(r, c));
                    let moved = [at - off, at + off].map(|x| (function.of(x) - v).abs());
                    let moved = if off == 0.0 { 0.0 } else { moved[0].max(moved[1]) };
                    moved + of_function(*function, at, v)
                })
            }
            Op::RmsNorm { eps, .. } => {
                let x = operand(0);
                let factors = |r: usize| {
                    let squares = x.row(r).iter().map(|x| x * x).sum::<f64>() + eps * x.cols as f64;
                    let of_x = (0..x.cols).map(|c| x.row(r)[c].abs() * spread(0).at(r, c)).sum::<f64>();
                    (squares, of_x)
                };
                let rows: Vec<(f64, f64)> = (0..x.rows).map(factors).collect();
                let gain = (of.len() > 1).then(|| operand(1));
                each(&|r, c, v| {
                    let (squares, of_x) = rows[r];
                    let gain = gain.as_ref().map_or(1.0, |g| g.data[c].abs());
                    let root = (squares / x.cols as f64).sqrt();
                    let own = if root > 0.0 { gain / root * spread(0).at(r, c) } else { 0.0 };
                    let of_row = if squares > 0.0 { of_x / squares } else { 0.0 };
                    own + v.abs() * (of_row + COMPUTED)
                })
            }
            Op::LayerNorm { eps, gain, bias, .. } => {
                let x = operand(0);
                let rows: Vec<[f64; 4]> = (0..x.rows)
                    .map(|r| {
                        let row = x.row(r);
                        let n = row.len() as f64;
                        let mean = row.iter().sum::<f64>() / n;
                        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps;
                        let square = row.iter().map(|x| x * x).sum::<f64>() / n;
                        let off = (0..x.cols).map(|c| spread(0).at(r, c)).sum::<f64>() / n;
                        // A mean of squares may be taken before the square of the mean is subtracted.
                        let of_sums = U * n.sqrt() * square.sqrt();
                        [variance.sqrt(), off + of_sums, COMPUTED + U * n.sqrt() * square / variance, mean]
                    })
                    .collect();
                let gain = gain.as_ref().map(|_| operand(1));
                let bias = bias.as_ref().map(|_| operand(of.len() - 1));
                each(&|r, c, v| {
                    let [root, off, relative, _] = rows[r];
                    let gain = gain.as_ref().map_or(1.0, |g| g.data[c].abs());
                    let bias = bias.as_ref().map_or(0.0, |b| b.data[c]);
                    let here = spread(0).at(r, c) + off + 2.0 * U * x.row(r)[c].abs();
                    gain / root * here + (v - bias).abs() * relative + 4.0 * U * bias.abs()
                })
            }
            Op::Round { to, .. } => {
                let x = operand(0);
                each(&|r, c, v| {
                    let (x, off) = (x.row(r)[c], spread(0).at(r, c));
                    let off = off.max(TIE * x.abs());
                    let moved = [x - off, x + off].map(|x| (to.nearest(x) - v).abs());
                    moved[0].max(moved[1])
                })
            }
            Op::Quantize { scheme, codes, .. } => {
                let x = operand(0);
                Spread::each(quantised(&x, value, spread(0), scheme, *codes))
            }
            Op::User { function, rounds, inputs, .. } if rounds.is_empty() => {
                let values: Vec<Arc<Matrix>> = (0..of.len()).map(operand).collect();
                let moves: Vec<bool> = inputs.iter().map(|input| self.is_float(input)).collect();
                let spreads: Vec<&Spread> = (0..of.len()).map(spread).collect();
                disturbed(&**function, &values, &spreads, &moves, value).map_or(Spread::Unknown, Spread::each)
            }
            Op::User { .. } => Spread::Unknown,
            op => {
                debug_assert!(op.only_moves());
                let moved = |i: usize| match spread(i) {
                    Spread::Each(s) => s.clone(),
                    _ => Arc::new(Matrix::zeros(of[i].0.0.rows, of[i].0.0.cols)),
                };
                if (0..of.len()).all(|i| matches!(spread(i), Spread::Exact)) {
                    return Spread::Exact;
                }
                let values: Vec<Option<Arc<Matrix>>> = (0..of.len())
                    .map(|i| match op {
                        // The index says what is copied, and is none of it.
                        Op::Gather { .. } | Op::Select { .. } if i + 1 == of.len() => Some(operand(i)),
                        _ => Some(moved(i)),
                    })
                    .collect();
                Spread::Each(self.apply(expr, &values))
            }
        }
    }

    /// Whether an expression is computed from numbers that are no indices.
    fn is_float(&self, expr: &Expr) -> bool {
        let ids = expr.buffers();
        ids.is_empty() || ids.into_iter().any(|id| !self.given.is_index(id))
    }
}

/// What an activation in float32 may be off by at `x`, where it is `v`.
fn of_function(function: Unary, x: f64, v: f64) -> f64 {
    match function {
        Unary::Relu => 0.0,
        // The exponential of a product with log2(e) has a relative error that grows with its argument; by a hyperbolic
        // tangent, or an error function, what is left of 1 has an absolute one.
        Unary::Silu | Unary::Gelu => U * (8.0 * x.abs() + 16.0 * v.abs() + 4.0 * (x * v).abs()),
        Unary::Sigmoid => U * (8.0 + 4.0 * (x * v).abs()),
    }
}

/// What becomes of codes whose values, and whose scale, are a little off.
fn quantised(x: &Matrix, value: &Matrix, spread: &Spread, scheme: &Quant, codes: CodeRounding) -> Matrix {
    let mut out = Matrix::zeros(x.rows, x.cols);
    let largest = amax(x, scheme.granularity);
    let offs = (0..x.rows).flat_map(|r| (0..x.cols).map(move |c| spread.at(r, c)));
    // The largest magnitude of a cell is off by no more than the element of it that is off the most.
    let largest_off = amax(&Matrix::new(x.rows, x.cols, offs.collect()), scheme.granularity);
    let (cell_rows, cell_cols) = scheme.granularity.cell(x.rows, x.cols);
    let (_, grid_cols) = scheme.granularity.grid(x.rows, x.cols);
    for r in 0..x.rows {
        for c in 0..x.cols {
            let cell = r / cell_rows * grid_cols + c / cell_cols;
            let amax = largest[cell];
            let (at, off) = (x.row(r)[c], spread.at(r, c));
            let share = if amax > 0.0 { largest_off[cell] / amax } else { 0.0 };
            let relative = DIVISION + share;
            // Nothing is known of what nothing bounds.
            let mut most = if off.is_finite() && share.is_finite() { 0.0 } else { f64::INFINITY };
            for amax in [amax * (1.0 - relative), amax * (1.0 + relative)] {
                let scale = scheme.scale_of(amax);
                for x in [at - off - at.abs() * DIVISION, at + off + at.abs() * DIVISION] {
                    most = most.max((codes.round(scheme.dtype, x / scale) * scale - value.row(r)[c]).abs());
                }
            }
            out.row_mut(r)[c] = most;
        }
    }
    out
}

/// A multiple of what a function of the test's own changes when its inputs do.
fn disturbed(
    function: &crate::reference::graph::UserFn,
    values: &[Arc<Matrix>],
    spreads: &[&Spread],
    moves: &[bool],
    value: &Matrix,
) -> Option<Matrix> {
    let mut rng = Rng(0x5eed);
    let mut most = Matrix::zeros(value.rows, value.cols);
    for _ in 0..DISTURBED {
        let inputs: Vec<Matrix> = values
            .iter()
            .zip(spreads.iter().zip(moves))
            .map(|(value, (spread, &moves))| {
                let mut input = Matrix::clone(value);
                for r in (0..input.rows).filter(|_| moves) {
                    for (c, x) in input.row_mut(r).iter_mut().enumerate() {
                        let mut sign = || 2.0 * rng.unit() - 1.0;
                        *x += sign() * DISTURBANCE * *x + sign() * spread.at(r, c) / OF_DISTURBANCE;
                    }
                }
                input
            })
            .collect();
        let inputs: Vec<&Matrix> = inputs.iter().collect();
        let moved = catch_unwind(AssertUnwindSafe(|| function(&inputs))).ok()?;
        let differences = moved.data.iter().zip(&value.data).map(|(x, y)| (x - y).abs());
        most.data.iter_mut().zip(differences).for_each(|(most, off)| *most = most.max(off));
    }
    for r in 0..value.rows {
        let finite = value.row(r).iter().filter(|x| x.is_finite());
        let largest = finite.fold(0.0_f64, |most, x| most.max(x.abs()));
        for (s, x) in most.row_mut(r).iter_mut().zip(value.row(r)) {
            *s = OF_DISTURBANCE * *s + COMPUTED * x.abs() + 4.0 * U * largest + TINY;
        }
    }
    Some(most)
}

/// Numbers of buffers from here on are values that are known already.
const LEAVES: usize = 1 << 40;

/// Buffers as given, beside values that are known already.
struct Local<'a> {
    given: &'a dyn Evaluation,
    leaves: Vec<Arc<Matrix>>,
}

impl Evaluation for Local<'_> {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        match id.0.checked_sub(LEAVES) {
            Some(leaf) => self.leaves[leaf].clone(),
            None => self.given.buffer(id),
        }
    }

    fn stored(&self, id: BufferId) -> Option<Weight<'_>> {
        if id.0 >= LEAVES { None } else { self.given.stored(id) }
    }

    fn matmul(&self, a: &Matrix, b: &Matrix) -> Matrix {
        self.given.matmul(a, b)
    }

    fn precision(&self) -> Precision {
        self.given.precision()
    }

    fn note(&self, product: &stream::Product) {
        self.given.note(product);
    }

    fn rounds(&self) -> bool {
        self.given.rounds()
    }

    fn is_index(&self, id: BufferId) -> bool {
        id.0 < LEAVES && self.given.is_index(id)
    }
}

/// The share of an output's elements that may be no rounding of their value, where a function of the test's own is among
/// its operations: that may round within itself, and a value next to a tie goes either way there.
pub(super) fn forgiven(source: &Expr, elements: usize) -> usize {
    let mut of_user = false;
    source.visit(&mut |e| of_user |= matches!(e.0.op, Op::User { .. }));
    if of_user { elements / 256 } else { 0 }
}
