//! Evaluates an expression in float64.

use super::cache;
use super::graph::{Binary, BufferId, Expr, Op, Unary};
use super::matrix::Matrix;
use super::stream::{Precision, Product, Weight};
use crate::dtype::DType;
use crate::quant::{Quant, amax};
use std::borrow::Cow;
use std::sync::Arc;

/// What leaves are worth, and whether declared rounding takes place.
pub trait Evaluation {
    /// The value of a buffer.
    fn buffer(&self, id: BufferId) -> Arc<Matrix>;

    /// A buffer as it is stored, where its value is what that stands for: products are computed from it, panel by panel,
    /// and its values never exist whole.
    fn stored(&self, _id: BufferId) -> Option<Weight<'_>> {
        None
    }

    /// `a · bᵀ`; a seeded fault of the accumulator has its own.
    fn matmul(&self, a: &Matrix, b: &Matrix) -> Matrix {
        a.matmul_t(b)
    }

    /// What products with stored buffers are computed in, where float32 has the range.
    fn precision(&self) -> Precision {
        Precision::Double
    }

    /// Is told of every product with a stored buffer.
    fn note(&self, _product: &Product) {}

    /// Whether [`Op::Round`] rounds. The ideal result does not know of it.
    fn rounds(&self) -> bool {
        true
    }

    /// Whether a buffer holds integers that name something, and no numbers that are computed with.
    fn is_index(&self, _id: BufferId) -> bool {
        false
    }
}

/// What the codes and scales stand for that a kernel makes of `x` on its way.
pub(crate) fn quantized(x: &Matrix, scheme: &Quant, round: impl Fn(DType, f64) -> f64) -> Matrix {
    let mut out = x.clone();
    let amax = amax(x, scheme.granularity);
    let (cell_rows, cell_cols) = scheme.granularity.cell(x.rows, x.cols);
    let (_, grid_cols) = scheme.granularity.grid(x.rows, x.cols);
    for r in 0..x.rows {
        let first = r / cell_rows * grid_cols;
        for (cell, values) in out.row_mut(r).chunks_mut(cell_cols).enumerate() {
            let scale = scheme.scale_of(amax[first + cell]);
            values.iter_mut().for_each(|x| *x = round(scheme.dtype, *x / scale) * scale);
        }
    }
    out
}

/// The value of `expr`.
pub fn eval(expr: &Expr, with: &dyn Evaluation) -> Arc<Matrix> {
    let operand = |e: &Expr| eval(e, with);
    let out = match &expr.0.op {
        Op::Buffer(id) => return with.buffer(*id),
        Op::MatMul { a, b, .. } => match stored(b, with) {
            Some(weight) => {
                let product = cache::product(&operand(a), &weight, with.precision());
                with.note(&product);
                product.values
            }
            None => with.matmul(&operand(a), &operand(b)),
        },
        Op::RmsNorm { x, gain, eps } => {
            let mut out = Matrix::clone(&operand(x));
            let gain = gain.as_ref().map(operand);
            for r in 0..out.rows {
                let row = out.row_mut(r);
                let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
                let factor = 1.0 / (mean + eps).sqrt();
                for (c, x) in row.iter_mut().enumerate() {
                    *x *= factor * gain.as_ref().map_or(1.0, |g| g.data[c]);
                }
            }
            out
        }
        Op::LayerNorm { x, gain, bias, eps } => {
            let mut out = Matrix::clone(&operand(x));
            let (gain, bias) = (gain.as_ref().map(operand), bias.as_ref().map(operand));
            for r in 0..out.rows {
                let row = out.row_mut(r);
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
                let factor = 1.0 / (variance + eps).sqrt();
                for (c, x) in row.iter_mut().enumerate() {
                    let gain = gain.as_ref().map_or(1.0, |g| g.data[c]);
                    *x = (*x - mean) * factor * gain + bias.as_ref().map_or(0.0, |b| b.data[c]);
                }
            }
            out
        }
        Op::Unary { function, x } => operand(x).map(|x| function.of(x)),
        Op::Binary { function, a, b } => {
            let (a, b) = (operand(a), operand(b));
            let b = if b.rows == a.rows {
                Cow::Borrowed(&b.data)
            } else {
                Cow::Owned(b.data.iter().copied().cycle().take(a.data.len()).collect())
            };
            let f = |x: f64, y: f64| match function {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::Mul => x * y,
            };
            Matrix::new(a.rows, a.cols, a.data.iter().zip(b.iter()).map(|(&x, &y)| f(x, y)).collect())
        }
        Op::Scale { x, factor } => operand(x).map(|x| x * factor),
        Op::Columns { x, range } => operand(x).columns(range.clone()),
        Op::Rows { x, range } => {
            let x = operand(x);
            Matrix::new(range.len(), x.cols, x.data[range.start * x.cols..range.end * x.cols].to_vec())
        }
        Op::RepeatRows { x, times } => {
            let x = operand(x);
            let rows = (0..x.rows * times).flat_map(|r| x.row(r / times).to_vec());
            Matrix::new(x.rows * times, x.cols, rows.collect())
        }
        Op::Gather { x, index } => {
            let (x, index) = (operand(x), operand(index));
            let rows = index.data.iter().map(|&i| at(&x, i));
            Matrix::new(index.data.len(), x.cols, rows.flatten().collect())
        }
        Op::Select { choices, by } => {
            let (choices, by) = (choices.iter().map(operand).collect::<Vec<_>>(), operand(by));
            let rows = by.data.iter().enumerate().map(|(r, &i)| {
                let nan = || vec![f64::NAN; expr.0.cols];
                index(i, choices.len()).map_or_else(nan, |i| choices[i].row(r).to_vec())
            });
            Matrix::new(expr.0.rows, expr.0.cols, rows.flatten().collect())
        }
        Op::Transpose { x } => operand(x).transposed(),
        Op::Arrange { parts, arrangement } => {
            let values: Vec<_> = parts.iter().map(operand).collect();
            let (rows, cols) = expr.shape();
            let element = |at: usize| {
                let (part, r, c) = arrangement.source(parts, cols, at / cols, at % cols);
                values[part].row(r)[c]
            };
            Matrix::new(rows, cols, (0..rows * cols).map(element).collect())
        }
        Op::Round { x, to } => {
            let x = operand(x);
            if !with.rounds() {
                return x;
            }
            x.map(|x| to.nearest(x))
        }
        Op::Quantize { x, scheme, codes } => {
            let x = operand(x);
            if !with.rounds() {
                return x;
            }
            quantized(&x, scheme, |dtype, x| codes.round(dtype, x))
        }
        Op::User { name, inputs, function, .. } => {
            let values: Vec<_> = inputs.iter().map(operand).collect();
            let out = function(&values.iter().map(|v| &**v).collect::<Vec<_>>());
            let declared = (expr.0.rows, expr.0.cols);
            assert_eq!(
                (out.rows, out.cols),
                declared,
                "shape returned by the function `{name}`, and declared"
            );
            out
        }
        Op::Invalid(_) => Matrix::zeros(expr.0.rows, expr.0.cols),
    };
    Arc::new(out)
}

/// The buffer that an expression is, as it is stored.
fn stored<'a>(expr: &Expr, with: &'a dyn Evaluation) -> Option<Weight<'a>> {
    match expr.0.op {
        Op::Buffer(id) => with.stored(id),
        _ => None,
    }
}

/// `|a| · |b|ᵀ`, 0 standing for what is not finite. Sums of what is not negative lose nothing by cancellation, so
/// float32 within blocks is as good as the error that is measured with them.
pub fn magnitudes(a: &Expr, b: &Expr, with: &dyn Evaluation) -> Matrix {
    times_magnitudes(&eval(a, with), b, with)
}

/// The same of an `a` that is at hand.
pub fn times_magnitudes(a: &Matrix, b: &Expr, with: &dyn Evaluation) -> Matrix {
    let magnitude = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
    let a = a.map(magnitude);
    let Some(weight) = stored(b, with) else { return a.matmul_t(&eval(b, with).map(magnitude)) };
    let weight = Weight { magnitudes: true, ..weight };
    cache::product(&a, &weight, Precision::Single).values
}

/// An index that a kernel may have written.
fn index(i: f64, len: usize) -> Option<usize> {
    (i >= 0.0 && i < len as f64 && i.fract() == 0.0).then_some(i as usize)
}

/// The row that `i` names, NaN where there is none.
fn at(x: &Matrix, i: f64) -> Vec<f64> {
    index(i, x.rows).map_or_else(|| vec![f64::NAN; x.cols], |r| x.row(r).to_vec())
}

impl Unary {
    pub(crate) fn of(self, x: f64) -> f64 {
        match self {
            Unary::Silu => x / (1.0 + (-x).exp()),
            Unary::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            // `f64::max` would turn NaN into 0.
            Unary::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// The error function to about 1e-15: its Maclaurin series below 2.5, the continued fraction of `erfc` above.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return a;
    }
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..100 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else if a < 6.0 {
        let mut fraction = a;
        for n in (1..=60).rev() {
            fraction = a + f64::from(n) / 2.0 / fraction;
        }
        1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::graph::{gelu, layer_norm, rms_norm, silu};
    use approx::assert_abs_diff_eq;

    struct Leaves(Vec<Arc<Matrix>>);
    impl Evaluation for Leaves {
        fn buffer(&self, id: BufferId) -> Arc<Matrix> {
            self.0[id.0].clone()
        }
    }

    #[test]
    fn erf_agrees_with_tabulated_values() {
        // Abramowitz and Stegun, table 7.1, and symmetry.
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.6, 0.999_763_965_583_470_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert_abs_diff_eq!(erf(x), y, epsilon = 4e-15);
            assert_abs_diff_eq!(erf(-x), -y, epsilon = 4e-15);
        }
        assert_eq!(erf(9.0), 1.0);
    }

    #[test]
    fn norms_follow_their_definition() {
        let x = Expr::buffer(BufferId(0), 1, 4);
        let gain = Expr::buffer(BufferId(1), 1, 4);
        let bias = Expr::buffer(BufferId(2), 1, 4);
        let leaves = Leaves(vec![
            Arc::new(Matrix::new(1, 4, vec![1.0, -3.0, 5.0, 1.0])),
            Arc::new(Matrix::new(1, 4, vec![1.0, 2.0, 0.5, -1.0])),
            Arc::new(Matrix::new(1, 4, vec![0.0, 0.0, 10.0, 0.0])),
        ]);
        // mean of squares 9, with eps 7 the root is 4.
        let rms = eval(&rms_norm(&x, &gain, 7.0), &leaves);
        assert_eq!(rms.data, [0.25, -1.5, 0.625, -0.25]);
        // mean 1, variance 8, with eps 8 the root is 4.
        let layer = eval(&layer_norm(&x, &gain, &bias, 8.0), &leaves);
        assert_eq!(layer.data, [0.0, -2.0, 10.5, 0.0]);
    }

    #[test]
    fn activations_and_broadcast() {
        let x = Expr::buffer(BufferId(0), 2, 2);
        let row = Expr::buffer(BufferId(1), 1, 2);
        let leaves = Leaves(vec![
            Arc::new(Matrix::new(2, 2, vec![0.0, 1.0, -1.0, 2.0])),
            Arc::new(Matrix::new(1, 2, vec![10.0, 20.0])),
        ]);
        assert_eq!(eval(&(&x + &row), &leaves).data, [10.0, 21.0, 9.0, 22.0]);
        let s = eval(&silu(&x), &leaves);
        assert_abs_diff_eq!(s.data[1], 0.731_058_578_630_004_9, epsilon = 1e-15);
        let g = eval(&gelu(&x), &leaves);
        assert_abs_diff_eq!(g.data[1], 0.841_344_746_068_542_9, epsilon = 1e-15);
        assert_abs_diff_eq!(g.data[2], -0.158_655_253_931_457_05, epsilon = 1e-15);
    }

    #[test]
    fn shapes_that_do_not_fit_say_so() {
        let a = Expr::buffer(BufferId(0), 2, 3);
        let b = Expr::buffer(BufferId(1), 4, 5);
        use crate::reference::Operand;
        let problem = (a.matmul(&b) + &a).problem().unwrap().to_string();
        assert!(problem.contains("[2, 3]") && problem.contains("[4, 5]"), "{problem}");
    }
}
