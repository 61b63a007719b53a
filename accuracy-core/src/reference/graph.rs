//! The expression graph that a chain's declarations make.
//!
//! A leaf is a buffer of the test; everything else says how one buffer is computed from others. Shapes are checked
//! when a node is made; a node that does not fit carries the reason to the declaration that uses it, which reports
//! it, so that a chain reads as a formula and no operator returns a `Result`.

use super::{Accumulator, Matrix};
use crate::dtype::{DType, F32, Overflow};
use crate::quant::Quant;
use std::ops::Range;
use std::sync::Arc;

/// A few units in the last place of float32: what a kernel's division or multiplication by a reciprocal may be off.
pub(crate) const DIVISION: f64 = 1.0 / (1 << 21) as f64;

/// Index of a buffer in its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// A function of the user's own, on float64 matrices.
pub type UserFn = dyn Fn(&[&Matrix]) -> Matrix + Send + Sync;

/// A wrong result that the diagnosis of a function tries; no test is asked whether it would see it.
#[derive(Clone)]
pub struct Suspect {
    /// A name of the report's causes.
    pub cause: &'static str,
    /// What the kernel does.
    pub what: String,
    pub function: Arc<UserFn>,
}

#[derive(Clone)]
pub enum Op {
    Buffer(BufferId),
    /// `a · bᵀ`, accumulated by the kernel as is said.
    MatMul {
        a: Expr,
        b: Expr,
        accumulator: Accumulator,
    },
    /// `x / sqrt(mean(x²) + eps) * gain` over each row.
    RmsNorm {
        x: Expr,
        gain: Option<Expr>,
        eps: f64,
    },
    /// `(x - mean) / sqrt(var + eps) * gain + bias` over each row.
    LayerNorm {
        x: Expr,
        gain: Option<Expr>,
        bias: Option<Expr>,
        eps: f64,
    },
    Unary {
        function: Unary,
        x: Expr,
    },
    /// Elementwise; `b` may be one row, which then goes with every row of `a`.
    Binary {
        function: Binary,
        a: Expr,
        b: Expr,
    },
    Scale {
        x: Expr,
        factor: f64,
    },
    Columns {
        x: Expr,
        range: Range<usize>,
    },
    /// Rows `range` of `x`.
    Rows {
        x: Expr,
        range: Range<usize>,
    },
    /// Each row of `x` so many times over.
    RepeatRows {
        x: Expr,
        times: usize,
    },
    /// Row `index[r]` of `x` as row `r`.
    Gather {
        x: Expr,
        index: Expr,
    },
    /// Row `r` of `choices[by[r]]` as row `r`.
    Select {
        choices: Vec<Expr>,
        by: Expr,
    },
    Transpose {
        x: Expr,
    },
    /// Elements of one or several operands, each in another place.
    Arrange {
        parts: Vec<Expr>,
        arrangement: Arrangement,
    },
    /// The kernel rounds here, by declaration.
    Round {
        x: Expr,
        to: DType,
    },
    /// The kernel quantises here, by declaration, and keeps codes and scales to itself.
    Quantize {
        x: Expr,
        scheme: Quant,
        codes: CodeRounding,
    },
    User {
        name: String,
        inputs: Vec<Expr>,
        function: Arc<UserFn>,
        /// To what the kernel rounds within the function, by declaration.
        rounds: Vec<Rounding>,
        /// What a wrong kernel might compute instead, by the name of the fault.
        faults: Vec<(&'static str, Arc<UserFn>)>,
        /// What else the diagnosis tries.
        suspects: Vec<Suspect>,
    },
    /// Something that does not fit; the declaration that uses it fails with this.
    Invalid(String),
}

/// Where the elements of an operand, or of several, lie in a result that copies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// One operand, its elements in the same order in rows of another length.
    Reshaped,
    /// Operands beside each other, with as many rows each.
    Beside,
    /// Operands below each other, with as many columns each.
    Below,
    /// An operand of one column, which stands for every column of the result.
    ColumnRepeated,
}

impl Arrangement {
    /// The operand that an element of a result with `cols` columns is copied from, and its row and column there.
    pub(crate) fn source(self, parts: &[Expr], cols: usize, r: usize, c: usize) -> (usize, usize, usize) {
        match self {
            Arrangement::Reshaped => {
                let (at, width) = (r * cols + c, parts[0].shape().1.max(1));
                (0, at / width, at % width)
            }
            Arrangement::ColumnRepeated => (0, r, 0),
            Arrangement::Beside => {
                let (part, c) = within(parts.iter().map(|part| part.shape().1), c);
                (part, r, c)
            }
            Arrangement::Below => {
                let (part, r) = within(parts.iter().map(|part| part.shape().0), r);
                (part, r, c)
            }
        }
    }
}

/// The part, of parts of these lengths one behind the other, that `at` lies in, and its place there.
fn within(lengths: impl Iterator<Item = usize>, at: usize) -> (usize, usize) {
    let mut before = 0;
    for (part, length) in lengths.enumerate() {
        if at < before + length {
            return (part, at - before);
        }
        before += length;
    }
    (0, 0)
}

/// How a value in units of its scale becomes a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRounding {
    /// The nearest one.
    Nearest,
    /// The nearest one that is not larger in magnitude: a conversion to an integer that truncates.
    TowardZero,
}

impl CodeRounding {
    /// What the code stands for that `x` becomes.
    pub fn round(self, dtype: DType, x: f64) -> f64 {
        let nearest = dtype.nearest(x);
        match self {
            CodeRounding::Nearest => nearest,
            // An integer that a division in float64 has left below itself is one.
            CodeRounding::TowardZero if dtype.is_integer() => dtype.nearest((x + x * 2f64.powi(-40)).trunc()),
            CodeRounding::TowardZero if nearest.abs() > x.abs() => {
                // Codes of a sign are in the order of their magnitudes.
                dtype.decode(dtype.encode(nearest, Overflow::Saturate) - 1)
            }
            CodeRounding::TowardZero => nearest,
        }
    }

    /// The same, where a value that float32 may take for one on the other side of a tie, or of an integer that it is cut off
    /// to, goes to the other side.
    pub(crate) fn round_to_other_side(self, dtype: DType, x: f64) -> f64 {
        let near = self.round(dtype, x);
        let sides = [1.0 - DIVISION, 1.0 + DIVISION].map(|factor| self.round(dtype, x * factor));
        sides.into_iter().find(|side| *side != near).unwrap_or(near)
    }
}

/// What a kernel rounds to on its way.
#[derive(Clone)]
pub enum Rounding {
    /// What the function gives where every value next to a tie goes to the other side of it.
    Ties(Arc<UserFn>),
    /// The reference does the same: only values next to a tie may differ.
    Alike(DType),
    /// The reference does so as well, but what is rounded depends on the kernel's order of work.
    Loosely(DType),
}

impl Op {
    /// The same operation on what `go` makes of its operands, in the order of [`Expr::visit`].
    pub(crate) fn of_operands(&self, go: &mut dyn FnMut(&Expr) -> Expr) -> Op {
        match self {
            Op::Buffer(id) => Op::Buffer(*id),
            Op::MatMul { a, b, accumulator } => Op::MatMul { a: go(a), b: go(b), accumulator: *accumulator },
            Op::RmsNorm { x, gain, eps } => {
                Op::RmsNorm { x: go(x), gain: gain.as_ref().map(&mut *go), eps: *eps }
            }
            Op::LayerNorm { x, gain, bias, eps } => Op::LayerNorm {
                x: go(x),
                gain: gain.as_ref().map(&mut *go),
                bias: bias.as_ref().map(&mut *go),
                eps: *eps,
            },
            Op::Unary { function, x } => Op::Unary { function: *function, x: go(x) },
            Op::Binary { function, a, b } => Op::Binary { function: *function, a: go(a), b: go(b) },
            Op::Scale { x, factor } => Op::Scale { x: go(x), factor: *factor },
            Op::Columns { x, range } => Op::Columns { x: go(x), range: range.clone() },
            Op::Rows { x, range } => Op::Rows { x: go(x), range: range.clone() },
            Op::RepeatRows { x, times } => Op::RepeatRows { x: go(x), times: *times },
            Op::Gather { x, index } => Op::Gather { x: go(x), index: go(index) },
            Op::Select { choices, by } => {
                Op::Select { choices: choices.iter().map(&mut *go).collect(), by: go(by) }
            }
            Op::Transpose { x } => Op::Transpose { x: go(x) },
            Op::Arrange { parts, arrangement } => {
                Op::Arrange { parts: parts.iter().map(&mut *go).collect(), arrangement: *arrangement }
            }
            Op::Round { x, to } => Op::Round { x: go(x), to: *to },
            Op::Quantize { x, scheme, codes } => Op::Quantize { x: go(x), scheme: *scheme, codes: *codes },
            Op::User { name, inputs, function, rounds, faults, suspects } => Op::User {
                name: name.clone(),
                inputs: inputs.iter().map(&mut *go).collect(),
                function: function.clone(),
                rounds: rounds.clone(),
                faults: faults.clone(),
                suspects: suspects.clone(),
            },
            Op::Invalid(why) => Op::Invalid(why.clone()),
        }
    }

    /// Whether elements are copied as they are.
    pub fn only_moves(&self) -> bool {
        matches!(
            self,
            Op::Buffer(_)
                | Op::Columns { .. }
                | Op::Rows { .. }
                | Op::RepeatRows { .. }
                | Op::Gather { .. }
                | Op::Select { .. }
                | Op::Transpose { .. }
                | Op::Arrange { .. }
        )
    }
}

/// Elementwise functions of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `x / (1 + exp(-x))`
    Silu,
    /// `x/2 * (1 + erf(x / sqrt 2))`
    Gelu,
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

/// Elementwise functions of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
}

pub struct Node {
    pub op: Op,
    pub rows: usize,
    pub cols: usize,
}

/// A float-valued `[rows, cols]` expression. Cheap to clone.
#[derive(Clone)]
pub struct Expr(pub(crate) Arc<Node>);

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.op {
            Op::Buffer(id) => write!(f, "#{}", id.0),
            Op::MatMul { a, b, .. } => write!(f, "matmul({a:?}, {b:?})"),
            Op::RmsNorm { x, .. } => write!(f, "rms_norm({x:?})"),
            Op::LayerNorm { x, .. } => write!(f, "layer_norm({x:?})"),
            Op::Unary { function, x } => write!(f, "{function:?}({x:?})"),
            Op::Binary { function, a, b } => write!(f, "{function:?}({a:?}, {b:?})"),
            Op::Scale { x, factor } => write!(f, "{factor} * {x:?}"),
            Op::Columns { x, range } => write!(f, "{x:?}[{range:?}]"),
            Op::Rows { x, range } => write!(f, "rows({x:?}, {range:?})"),
            Op::RepeatRows { x, times } => write!(f, "repeat_rows({x:?}, {times})"),
            Op::Gather { x, index } => write!(f, "gather({x:?}, {index:?})"),
            Op::Select { choices, by } => write!(f, "select({choices:?}, {by:?})"),
            Op::Transpose { x } => write!(f, "transpose({x:?})"),
            Op::Arrange { parts, arrangement } => write!(f, "{arrangement:?}({parts:?})"),
            Op::Round { x, to } => write!(f, "round({x:?}, {to})"),
            Op::Quantize { x, scheme, .. } => write!(f, "quantize({x:?}, {})", scheme.dtype),
            Op::User { name, inputs, .. } => write!(f, "{name}({inputs:?})"),
            Op::Invalid(why) => write!(f, "invalid: {why}"),
        }
    }
}

impl Expr {
    pub(crate) fn buffer(id: BufferId, rows: usize, cols: usize) -> Expr {
        Expr(Arc::new(Node { op: Op::Buffer(id), rows, cols }))
    }

    fn node(op: Op, rows: usize, cols: usize) -> Expr {
        Expr(Arc::new(Node { op, rows, cols }))
    }

    fn invalid(why: String) -> Expr {
        Expr::node(Op::Invalid(why), 0, 0)
    }

    pub(super) fn unfit(why: String) -> Expr {
        Expr::invalid(why)
    }

    /// An operation that does not fit its operands, unless one of them is already the problem.
    fn mismatch(operands: &[&Expr], why: String) -> Expr {
        let earlier = operands.iter().find_map(|e| e.problem()).map(String::from);
        Expr::invalid(earlier.unwrap_or(why))
    }

    /// A node of an operation whose operands are known to fit.
    pub(crate) fn of_op(op: Op, (rows, cols): (usize, usize)) -> Expr {
        Expr::node(op, rows, cols)
    }

    pub(crate) fn unary_of(function: Unary, x: &Expr) -> Expr {
        unary(function, x)
    }

    /// `[rows, cols]`.
    pub fn shape(&self) -> (usize, usize) {
        (self.0.rows, self.0.cols)
    }

    /// Why the expression does not fit together, if it does not.
    pub fn problem(&self) -> Option<&str> {
        match &self.0.op {
            Op::Invalid(why) => Some(why),
            op => operands(op).into_iter().find_map(|e| e.problem()),
        }
    }

    /// Calls `f` on every node, operands first.
    pub fn visit(&self, f: &mut dyn FnMut(&Expr)) {
        for operand in operands(&self.0.op) {
            operand.visit(f);
        }
        f(self);
    }

    /// Whether a function of the test's own, or one of [`super::model`], is among the operations.
    pub(crate) fn has_user(&self) -> bool {
        let mut found = false;
        self.visit(&mut |e| found |= matches!(e.0.op, Op::User { .. }));
        found
    }

    /// Buffers that the expression reads, each once, in the order of their ids.
    pub fn buffers(&self) -> Vec<BufferId> {
        let mut found = Vec::new();
        self.visit(&mut |e| {
            if let Op::Buffer(id) = e.0.op {
                found.push(id);
            }
        });
        found.sort();
        found.dedup();
        found
    }

    /// The same expression with `f` applied to each node, operands first; where `f` has nothing to say the node
    /// stays.
    pub fn rewrite(&self, f: &dyn Fn(&Op) -> Option<Op>) -> Expr {
        let op = self.0.op.of_operands(&mut |e| e.rewrite(f));
        let op = f(&op).unwrap_or(op);
        Expr::node(op, self.0.rows, self.0.cols)
    }

    /// A wrong result of this function for the diagnosis to try.
    pub(crate) fn suspect(
        self,
        cause: &'static str,
        what: String,
        wrong: impl Fn(&[&Matrix]) -> Matrix + Send + Sync + 'static,
    ) -> Expr {
        match &self.0.op {
            Op::User { name, inputs, function, rounds, faults, suspects } => {
                let mut suspects = suspects.clone();
                suspects.push(Suspect { cause, what, function: Arc::new(wrong) });
                let (inputs, function, faults) = (inputs.clone(), function.clone(), faults.clone());
                let (name, rounds) = (name.clone(), rounds.clone());
                let op = Op::User { name, inputs, function, rounds, faults, suspects };
                Expr::of_op(op, self.shape())
            }
            _ => self,
        }
    }

    /// For a function of the framework's: what the kernel rounds to within it.
    pub(super) fn rounding(self, to: Rounding) -> Expr {
        match &self.0.op {
            Op::User { name, inputs, function, rounds, faults, suspects } => {
                let mut rounds = rounds.clone();
                rounds.push(to);
                let (name, inputs, function) = (name.clone(), inputs.clone(), function.clone());
                let (faults, suspects) = (faults.clone(), suspects.clone());
                Expr::of_op(Op::User { name, inputs, function, rounds, faults, suspects }, self.shape())
            }
            _ => self,
        }
    }

    /// The same expression with its functions' values next to a tie on the other side of it; `None` where no function says
    /// what that gives.
    pub(crate) fn with_ties_on_the_other_side(&self) -> Option<Expr> {
        let mut found = false;
        let mut op = self.0.op.of_operands(&mut |operand| {
            let other = operand.with_ties_on_the_other_side();
            found |= other.is_some();
            other.unwrap_or_else(|| operand.clone())
        });
        if let Op::User { function, rounds, .. } = &mut op {
            let other = rounds.iter().find_map(|rounding| match rounding {
                Rounding::Ties(other) => Some(other.clone()),
                _ => None,
            });
            found |= other.is_some();
            *function = other.unwrap_or_else(|| function.clone());
        }
        found.then(|| Expr::of_op(op, self.shape()))
    }

    /// For a function of the user's own: what a kernel with the fault `name` might compute instead. Power shows whether
    /// the test's checks would see it.
    pub fn fault(
        self,
        name: &'static str,
        wrong: impl Fn(&[&Matrix]) -> Matrix + Send + Sync + 'static,
    ) -> Expr {
        match &self.0.op {
            Op::User { name: of, inputs, function, rounds, faults, suspects } => {
                let mut faults = faults.clone();
                faults.push((name, Arc::new(wrong)));
                let op = Op::User {
                    name: of.clone(),
                    inputs: inputs.clone(),
                    function: function.clone(),
                    rounds: rounds.clone(),
                    faults,
                    suspects: suspects.clone(),
                };
                Expr::node(op, self.0.rows, self.0.cols)
            }
            Op::Invalid(_) => self,
            _ => Expr::invalid("fault() is for the result of user()".into()),
        }
    }

    /// `self · bᵀ` of operands that are known to fit.
    pub(crate) fn matmul_of(self, b: Expr, accumulator: Accumulator) -> Expr {
        let (rows, cols) = (self.0.rows, b.0.rows);
        Expr::node(Op::MatMul { a: self, b, accumulator }, rows, cols)
    }

    /// For the result of a matmul: declares the format in which the kernel sums, or the matrix unit that does, such as
    /// [`CDNA3_FP8`](super::CDNA3_FP8) or [`HOPPER_FP8`](super::HOPPER_FP8). Without it the sums are expected in [`F32`]. A
    /// narrower declaration allows a larger error, and the report shows it.
    pub fn accumulate_in(self, accumulator: impl Into<Accumulator>) -> Expr {
        let accumulator = accumulator.into();
        match &self.0.op {
            Op::MatMul { a, b, .. } => {
                Expr::node(Op::MatMul { a: a.clone(), b: b.clone(), accumulator }, self.0.rows, self.0.cols)
            }
            Op::Invalid(_) => self,
            _ => Expr::invalid("accumulate_in() is for the result of matmul()".into()),
        }
    }
}

/// The operands of a node.
pub(crate) fn operands(op: &Op) -> Vec<&Expr> {
    match op {
        Op::Buffer(_) | Op::Invalid(_) => vec![],
        Op::MatMul { a, b, .. } | Op::Binary { a, b, .. } => vec![a, b],
        Op::RmsNorm { x, gain, .. } => std::iter::once(x).chain(gain).collect(),
        Op::LayerNorm { x, gain, bias, .. } => std::iter::once(x).chain(gain).chain(bias).collect(),
        Op::Unary { x, .. }
        | Op::Scale { x, .. }
        | Op::Columns { x, .. }
        | Op::Rows { x, .. }
        | Op::RepeatRows { x, .. }
        | Op::Transpose { x }
        | Op::Quantize { x, .. }
        | Op::Round { x, .. } => vec![x],
        Op::Gather { x, index } => vec![x, index],
        Op::Select { choices, by } => choices.iter().chain([by]).collect(),
        Op::Arrange { parts: inputs, .. } | Op::User { inputs, .. } => inputs.iter().collect(),
    }
}

/// What [tensors](crate::Tensor) and [expressions](Expr) have in common: both can be used in formulas.
///
/// `+`, `-` and `*` work element by element; the right operand may be one row `[1, cols]`, which then goes with every row of
/// the left one, or one column `[rows, 1]`, which goes with every column. No operator returns a `Result`: if shapes do not agree, the declaration that uses the formula
/// ([`Case::output`](crate::Case::output) and the like) returns the error.
pub trait Operand {
    /// As an expression.
    fn expr(&self) -> Expr;

    /// The product `self · otherᵀ`: `[m, k] × [n, k] → [m, n]`. The second operand is not transposed first, because weights are
    /// stored as `[output features, input features]`. The kernel is expected to sum in float32; [`Expr::accumulate_in`]
    /// declares another format.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn gemm_with_bias(cx: &mut Case) -> Result<Tensor> {
    ///     let (m, n, _) = cx.shape()?;
    ///     let (x, w) = (cx.activations()?, cx.weight("w", BF16)?);
    ///     let bias = cx.vector("bias", BF16)?; // [1, n]
    ///     cx.output("y", BF16, [m, n], x.matmul(&w).accumulate_in(F16) + &bias)
    /// }
    /// ```
    fn matmul(&self, other: &impl Operand) -> Expr
    where
        Self: Sized,
    {
        let (a, b) = (self.expr(), other.expr());
        let ((m, k), (n, k2)) = (a.shape(), b.shape());
        if k != k2 {
            let why = format!("matmul of [{m}, {k}] with [{n}, {k2}]: the last dimensions must agree");
            return Expr::mismatch(&[&a, &b], why);
        }
        Expr::node(Op::MatMul { a, b, accumulator: F32.into() }, m, n)
    }

    /// The columns `range`: `[rows, range.len()]`.
    fn columns(&self, range: Range<usize>) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        if range.start >= range.end || range.end > cols {
            return Expr::mismatch(&[&x], format!("columns {range:?} of [{rows}, {cols}]"));
        }
        let width = range.len();
        Expr::node(Op::Columns { x, range }, rows, width)
    }

    /// The rows `range`, for example one expert of stacked weights: `[range.len(), cols]`. A [tensor](crate::Tensor) has a
    /// `rows()` of its own, which is their number: there, write [`row_range`](Operand::row_range).
    fn rows(&self, range: Range<usize>) -> Expr
    where
        Self: Sized,
    {
        self.row_range(range)
    }

    /// The rows `range`: `[range.len(), cols]`.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// /// The product with the second of several experts, whose weights lie below each other.
    /// fn of_second_expert(x: &Tensor, w: &Tensor, n: usize) -> Expr {
    ///     x.matmul(&w.row_range(n..2 * n))
    /// }
    /// ```
    fn row_range(&self, range: Range<usize>) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        if range.start >= range.end || range.end > rows {
            return Expr::mismatch(&[&x], format!("rows {range:?} of [{rows}, {cols}]"));
        }
        let count = range.len();
        Expr::node(Op::Rows { x, range }, count, cols)
    }

    /// Each row repeated `times` times, for example a token for each of its experts: `[rows * times, cols]`.
    fn repeat_rows(&self, times: usize) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        Expr::node(Op::RepeatRows { x, times }, rows * times, cols)
    }

    /// Row `index[i]` of `self` as row `i`: `[number of indices, cols]`. An index out of range gives a row of NaN.
    fn gather(&self, index: &impl Operand) -> Expr
    where
        Self: Sized,
    {
        let (x, index) = (self.expr(), index.expr());
        let ((_, cols), (r, c)) = (x.shape(), index.shape());
        Expr::node(Op::Gather { x, index }, r * c, cols)
    }

    /// The same elements in the same order, in rows of `cols`: `[rows, cols]`. Heads of `d` columns side by side become rows
    /// by `x.reshape(tokens * heads, d)`.
    fn reshape(&self, rows: usize, cols: usize) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (own_rows, own_cols) = x.shape();
        if rows * cols != own_rows * own_cols {
            let why = format!(
                "[{own_rows}, {own_cols}] reshaped to [{rows}, {cols}]: it has {} elements, and that {}",
                own_rows * own_cols,
                rows * cols
            );
            return Expr::mismatch(&[&x], why);
        }
        Expr::node(Op::Arrange { parts: vec![x], arrangement: Arrangement::Reshaped }, rows, cols)
    }

    /// Rows and columns exchanged: `[cols, rows]`.
    fn transpose(&self) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        Expr::node(Op::Transpose { x }, cols, rows)
    }

    /// Declares that the kernel rounds to `dtype` here, for example when it stores an intermediate in bfloat16. The ideal result,
    /// with which the whole chain is compared, is not rounded.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn norm_in_bf16(cx: &mut Case) -> Result<Tensor> {
    ///     let (x, gain) = (cx.activations()?, cx.vector("gain", BF16)?);
    ///     let normed = rms_norm(&x, &gain, 1e-6).round(BF16);
    ///     cx.quantized("xq", normed, Quant::token(E4M3FN))
    /// }
    /// ```
    fn round(&self, dtype: DType) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        Expr::node(Op::Round { x, to: dtype }, rows, cols)
    }

    /// Declares that the kernel quantises here and does not write the codes and scales to a buffer, because it keeps them in
    /// registers or shared memory. The result is the decoded value, code times scale. The ideal result is not quantised.
    fn quantize(&self, scheme: Quant, codes: CodeRounding) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        if let Some(why) = scheme.problem().or_else(|| scheme.misfit(rows, cols)) {
            return Expr::mismatch(&[&x], why);
        }
        Expr::node(Op::Quantize { x, scheme, codes }, rows, cols)
    }

    /// Every element times `factor`.
    fn scale(&self, factor: f64) -> Expr
    where
        Self: Sized,
    {
        let x = self.expr();
        let (rows, cols) = x.shape();
        Expr::node(Op::Scale { x, factor }, rows, cols)
    }
}

impl Operand for Expr {
    fn expr(&self) -> Expr {
        self.clone()
    }
}

impl<T: Operand> Operand for &T {
    fn expr(&self) -> Expr {
        (*self).expr()
    }
}

/// RMSNorm of each row: `x / sqrt(mean(x²) + eps) * gain`, with `x` `[rows, cols]` and `gain` `[1, cols]`.
///
/// # Example
/// ```
/// # use accuracy_core::prelude::*;
/// fn norm(cx: &mut Case) -> Result<Tensor> {
///     let (x, gain) = (cx.activations()?, cx.vector("gain", BF16)?);
///     cx.output("y", BF16, [x.rows(), x.cols()], rms_norm(&x, &gain, 1e-6))
/// }
/// ```
pub fn rms_norm(x: &impl Operand, gain: &impl Operand, eps: f64) -> Expr {
    let (x, gain) = (x.expr(), gain.expr());
    let (rows, cols) = x.shape();
    if gain.shape() != (1, cols) {
        let why = format!("rms_norm of [{rows}, {cols}] with a gain of {:?}", gain.shape());
        return Expr::mismatch(&[&x, &gain], why);
    }
    Expr::node(Op::RmsNorm { x, gain: Some(gain), eps }, rows, cols)
}

/// LayerNorm of each row: `(x - mean) / sqrt(var + eps) * gain + bias`, with `x` `[rows, cols]`, `gain` and `bias` `[1, cols]`.
pub fn layer_norm(x: &impl Operand, gain: &impl Operand, bias: &impl Operand, eps: f64) -> Expr {
    let (x, gain, bias) = (x.expr(), gain.expr(), bias.expr());
    let (rows, cols) = x.shape();
    if gain.shape() != (1, cols) || bias.shape() != (1, cols) {
        let why = format!(
            "layer_norm of [{rows}, {cols}] with a gain of {:?} and a bias of {:?}",
            gain.shape(),
            bias.shape()
        );
        return Expr::mismatch(&[&x, &gain, &bias], why);
    }
    Expr::node(Op::LayerNorm { x, gain: Some(gain), bias: Some(bias), eps }, rows, cols)
}

fn unary(function: Unary, x: &impl Operand) -> Expr {
    let x = x.expr();
    let (rows, cols) = x.shape();
    Expr::node(Op::Unary { function, x }, rows, cols)
}

/// The activation `x / (1 + exp(-x))` of each element.
pub fn silu(x: &impl Operand) -> Expr {
    unary(Unary::Silu, x)
}

/// The activation `x/2 * (1 + erf(x / sqrt 2))` of each element; this is not the tanh approximation.
pub fn gelu(x: &impl Operand) -> Expr {
    unary(Unary::Gelu, x)
}

/// The activation `max(x, 0)` of each element.
pub fn relu(x: &impl Operand) -> Expr {
    unary(Unary::Relu, x)
}

/// The function `1 / (1 + exp(-x))` of each element.
pub fn sigmoid(x: &impl Operand) -> Expr {
    unary(Unary::Sigmoid, x)
}

/// Row `r` of `choices[by[r]]` as row `r`. A grouped GEMM computes this: `by` names the expert of each row, and `choices` has
/// the product with each expert. All choices have the same shape, with one row for each element of `by`. An index out of range
/// gives a row of NaN.
pub fn select(by: &impl Operand, choices: &[Expr]) -> Expr {
    let by = by.expr();
    let (rows, cols) = choices.first().map_or((0, 0), Expr::shape);
    let count = by.shape().0 * by.shape().1;
    if rows != count || choices.iter().any(|c| c.shape() != (rows, cols)) {
        let shapes: Vec<_> = choices.iter().map(Expr::shape).collect();
        let why = format!("select by {count} indices from {shapes:?}: all need that many rows and be alike");
        let operands: Vec<&Expr> = choices.iter().chain([&by]).collect();
        return Expr::mismatch(&operands, why);
    }
    Expr::node(Op::Select { choices: choices.to_vec(), by }, rows, cols)
}

/// The operands beside each other: `[rows, sum of their columns]`.
///
/// # Example
/// ```
/// # use accuracy_core::prelude::*;
/// /// A query of multi-head latent attention: the part without positions, then the rotated one.
/// fn query(nope: &Tensor, rotated: &Expr) -> Expr {
///     concat_columns(&[nope, rotated])
/// }
/// ```
pub fn concat_columns(parts: &[&dyn Operand]) -> Expr {
    let parts: Vec<Expr> = parts.iter().map(|part| part.expr()).collect();
    let rows = parts.first().map_or(0, |part| part.shape().0);
    let cols = parts.iter().map(|part| part.shape().1).sum();
    arranged(parts, Arrangement::Beside, (rows, cols), |part| part.0 == rows)
}

/// The operands below each other: `[sum of their rows, cols]`.
pub fn concat_rows(parts: &[&dyn Operand]) -> Expr {
    let parts: Vec<Expr> = parts.iter().map(|part| part.expr()).collect();
    let rows = parts.iter().map(|part| part.shape().0).sum();
    let cols = parts.first().map_or(0, |part| part.shape().1);
    arranged(parts, Arrangement::Below, (rows, cols), |part| part.1 == cols)
}

fn arranged(
    parts: Vec<Expr>,
    arrangement: Arrangement,
    (rows, cols): (usize, usize),
    fits: impl Fn((usize, usize)) -> bool,
) -> Expr {
    let shapes: Vec<(usize, usize)> = parts.iter().map(Expr::shape).collect();
    if shapes.is_empty() || !shapes.iter().all(|shape| fits(*shape)) {
        let (alike, how) = match arrangement {
            Arrangement::Below => ("columns", "below each other"),
            _ => ("rows", "beside each other"),
        };
        let why = format!("{shapes:?} {how}: at least one is needed, and all with as many {alike}");
        return Expr::mismatch(&parts.iter().collect::<Vec<_>>(), why);
    }
    Expr::node(Op::Arrange { parts, arrangement }, rows, cols)
}

/// A function that the test defines. It gets the `inputs` as float64 matrices and returns a `[rows, cols]` matrix. The framework
/// cannot check such a function; a mistake in it is a mistake of the reference.
///
/// # Example
/// ```
/// # use accuracy_core::prelude::*;
/// fn clipped(cx: &mut Case) -> Result<Tensor> {
///     let x = cx.activations()?;
///     let (rows, cols) = (x.rows() as usize, x.cols() as usize);
///     let clip = user("clip", &[&x], (rows, cols), |inputs| inputs[0].map(|v| v.clamp(-1.0, 1.0)));
///     cx.output("y", BF16, [x.rows(), x.cols()], clip)
/// }
/// ```
pub fn user(
    name: &str,
    inputs: &[&dyn Operand],
    (rows, cols): (usize, usize),
    function: impl Fn(&[&Matrix]) -> Matrix + Send + Sync + 'static,
) -> Expr {
    let inputs = inputs.iter().map(|i| i.expr()).collect();
    Expr::node(
        Op::User {
            name: name.into(),
            inputs,
            function: Arc::new(function),
            rounds: Vec::new(),
            faults: Vec::new(),
            suspects: Vec::new(),
        },
        rows,
        cols,
    )
}

pub(crate) fn binary(function: Binary, a: Expr, b: Expr) -> Expr {
    let ((rows, cols), other) = (a.shape(), b.shape());
    let fits = other == (rows, cols) || other == (1, cols);
    if !fits && other == (rows, 1) {
        let op = Op::Arrange { parts: vec![b], arrangement: Arrangement::ColumnRepeated };
        let b = Expr::node(op, rows, cols);
        return Expr::node(Op::Binary { function, a, b }, rows, cols);
    }
    if !fits {
        let why = format!(
            "{function:?} of [{rows}, {cols}] and [{}, {}]: shapes must agree, or the second be one row or one column",
            other.0, other.1
        );
        return Expr::mismatch(&[&a, &b], why);
    }
    Expr::node(Op::Binary { function, a, b }, rows, cols)
}

/// `+`, `-` and `*` on expressions and on references to anything that can be computed with.
/// Implements `+`, `-` and `*` for pairs of operands. The tensors of a case, which stand above this module, use it too.
macro_rules! operators {
    ($(($left:ty, $right:ty)),*) => {$(
        $crate::reference::graph::operators!(@one $left, $right, Add, add);
        $crate::reference::graph::operators!(@one $left, $right, Sub, sub);
        $crate::reference::graph::operators!(@one $left, $right, Mul, mul);
    )*};
    (@one $left:ty, $right:ty, $name:ident, $method:ident) => {
        impl std::ops::$name<$right> for $left {
            type Output = $crate::reference::Expr;
            fn $method(self, other: $right) -> $crate::reference::Expr {
                use $crate::reference::Operand as _;
                $crate::reference::graph::binary($crate::reference::graph::Binary::$name, self.expr(), other.expr())
            }
        }
    };
}
pub(crate) use operators;

operators!((Expr, Expr), (Expr, &Expr), (&Expr, Expr), (&Expr, &Expr));
