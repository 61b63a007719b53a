//! Evaluates an expression at some rows and columns only, under hypotheses about how operands are read and products
//! are summed up.

use super::memo::Memo;
use super::product::{Narrow, Product, times};
use super::reading::{CellAt, Cells, Decoded, Reading};
use crate::case::Attempt;
use crate::dtype::{DType, Overflow};
use crate::judge::{unit, unit_of};
use crate::quant::Granularity;
use crate::reference::eval::quantized;
use crate::reference::graph::{Arrangement, Binary, Op};
use crate::reference::stream::{Left, Precision, Weight};
use crate::reference::{Accumulator, BufferId, Evaluation, Expr, Matrix, eval};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What a failing hop's kernel was given.
pub struct World<'a> {
    pub attempt: &'a Attempt,
    pub decoded: Decoded,
    whole: Memo<BufferId, Arc<Matrix>>,
    scaled: Memo<Key, Arc<Matrix>>,
}

/// An operand, the hypotheses about how it is read, and its rows.
type Key = (BufferId, Vec<usize>, Vec<usize>);

/// Operands on samples that are kept, and elements of the largest of them.
const KEPT: usize = 1024;
const LARGEST: usize = 1 << 17;

impl<'a> World<'a> {
    pub fn new(attempt: &'a Attempt) -> World<'a> {
        World { attempt, decoded: Decoded::default(), whole: Memo::default(), scaled: Memo::default() }
    }

    /// A whole buffer as it should be read.
    pub fn whole(&self, id: BufferId) -> Arc<Matrix> {
        self.whole.of(id, || Arc::new(self.attempt.buffer(id).value()))
    }
}

/// What the hop computes if the hypotheses hold.
pub struct Variant<'a, 'w> {
    pub world: &'w World<'a>,
    pub source: Expr,
    pub readings: HashMap<BufferId, Reading<'a>>,
    /// Which hypotheses made them.
    pub keys: HashMap<BufferId, Vec<usize>>,
    /// Buffers, such as indices, that are read as other values.
    pub values: HashMap<BufferId, Arc<Matrix>>,
    pub product: Option<Product>,
    /// Results of functions of the test's own, by their node.
    functions: Memo<usize, Arc<Matrix>>,
}

impl<'a, 'w> Variant<'a, 'w> {
    pub fn new(world: &'w World<'a>, source: Expr) -> Variant<'a, 'w> {
        Variant {
            world,
            source,
            readings: HashMap::new(),
            keys: HashMap::new(),
            values: HashMap::new(),
            product: None,
            functions: Memo::default(),
        }
    }

    /// The hop's elements at `rows` × `cols`.
    pub fn at(&self, rows: &[usize], cols: &[usize]) -> Matrix {
        self.block(&self.source, rows, cols)
    }

    /// The whole of the hop, columns in panels so that no weight is decoded whole.
    pub fn whole(&self) -> Matrix {
        const PANEL: usize = 256;
        let (m, n) = self.source.shape();
        let rows = all(m);
        let panels = match &self.source.0.op {
            Op::MatMul { b, .. } => {
                let as_stored = matches!(b.0.op, Op::Buffer(id) if self.stored(id).is_some())
                    && self.product.as_ref().is_none_or(Product::only_weights);
                n > PANEL && !as_stored
            }
            _ => false,
        };
        if !panels {
            return self.at(&rows, &all(n));
        }
        let mut out = Matrix::zeros(m, n);
        for from in (0..n).step_by(PANEL) {
            let cols: Vec<usize> = (from..(from + PANEL).min(n)).collect();
            let panel = self.at(&rows, &cols);
            for r in 0..m {
                out.row_mut(r)[from..from + cols.len()].copy_from_slice(panel.row(r));
            }
        }
        out
    }

    fn buffer(&self, id: BufferId, rows: &[usize], cols: &[usize]) -> Matrix {
        if let Some(value) = self.values.get(&id) {
            return pick(value, rows, cols);
        }
        let reading = self.readings.get(&id).cloned();
        let reading = reading.unwrap_or_else(|| Reading::right(self.world.attempt.buffer(id)));
        reading.block(id.0, rows, cols, &self.world.decoded)
    }

    fn block(&self, expr: &Expr, rows: &[usize], cols: &[usize]) -> Matrix {
        let same = |x: &Expr| self.block(x, rows, cols);
        match &expr.0.op {
            Op::Buffer(id) => self.buffer(*id, rows, cols),
            Op::MatMul { a, b, accumulator } => {
                let k = a.0.cols;
                if let Some(out) = self.whole_product((a, b), rows, cols, *accumulator) {
                    return out;
                }
                if let Some(Product::Codes(narrow)) = &self.product
                    && let Some(out) = self.of_codes(a, b, rows, cols, *narrow)
                {
                    return out;
                }
                let length = k + self.product.as_ref().map_or(0, |p| p.beyond(k));
                let ks = all(length);
                let (mut a, mut b) = (self.operand(a, rows, &ks), self.operand(b, cols, &ks));
                if let Some(Product::Overrun { zeros: true, .. }) = self.product {
                    for operand in [&mut a, &mut b] {
                        let operand = Arc::make_mut(operand);
                        for r in 0..operand.rows {
                            let beyond = operand.row_mut(r)[k..].iter_mut();
                            beyond.filter(|x| x.is_nan()).for_each(|x| *x = 0.0);
                        }
                    }
                }
                match &self.product {
                    None => times(&a, &b),
                    Some(product) => product.of(&a, &b, k),
                }
            }
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => self.norm(&expr.0.op, rows, cols),
            Op::Unary { x, .. } => {
                let x = same(x);
                // The same function, on a leaf that stands for the sample.
                let Op::Unary { function, .. } = &expr.0.op else { unreachable!("matched above") };
                let leaf = Expr::buffer(BufferId(0), x.rows, x.cols);
                Matrix::clone(&eval(&Expr::unary_of(*function, &leaf), &One(Arc::new(x))))
            }
            Op::Binary { function, a, b } => {
                let mut out = same(a);
                let other = if b.0.rows == a.0.rows { same(b) } else { self.block(b, &[0], cols) };
                for r in 0..out.rows {
                    let other = other.row(if other.rows == out.rows { r } else { 0 });
                    for (x, &y) in out.row_mut(r).iter_mut().zip(other) {
                        *x = match function {
                            Binary::Add => *x + y,
                            Binary::Sub => *x - y,
                            Binary::Mul => *x * y,
                        };
                    }
                }
                out
            }
            Op::Scale { x, factor } => same(x).map(|x| x * factor),
            Op::Columns { x, range } => {
                self.block(x, rows, &cols.iter().map(|c| c + range.start).collect::<Vec<_>>())
            }
            Op::Rows { x, range } => {
                self.block(x, &rows.iter().map(|r| r + range.start).collect::<Vec<_>>(), cols)
            }
            Op::RepeatRows { x, times } => {
                self.block(x, &rows.iter().map(|r| r / times).collect::<Vec<_>>(), cols)
            }
            Op::Transpose { x } => self.block(x, cols, rows).transposed(),
            Op::Arrange { parts, arrangement } => self.arranged(expr, (parts, *arrangement), rows, cols),
            Op::Round { x, to } => same(x).map(|x| to.decode(to.encode(x, Overflow::Special))),
            Op::Gather { x, index } => {
                let of: Vec<_> = self.indices(index, rows, x.0.rows);
                let known: Vec<usize> = of.iter().map(|i| i.unwrap_or(0)).collect();
                let mut out = self.block(x, &known, cols);
                for (r, _) in of.iter().enumerate().filter(|(_, i)| i.is_none()) {
                    out.row_mut(r).fill(f64::NAN);
                }
                out
            }
            Op::Select { choices, by } => {
                let of = self.indices(by, rows, choices.len());
                let mut out = Matrix::new(rows.len(), cols.len(), vec![f64::NAN; rows.len() * cols.len()]);
                for (i, choice) in choices.iter().enumerate() {
                    let at: Vec<usize> = (0..rows.len()).filter(|&r| of[r] == Some(i)).collect();
                    if at.is_empty() {
                        continue;
                    }
                    let chosen = self.block(choice, &at.iter().map(|&r| rows[r]).collect::<Vec<_>>(), cols);
                    for (from, &to) in at.iter().enumerate() {
                        out.row_mut(to).copy_from_slice(chosen.row(from));
                    }
                }
                out
            }
            Op::Quantize { x, scheme, codes } => {
                // Scales are of cells that the sample cuts through.
                let node = Arc::as_ptr(&expr.0) as usize;
                let value = self.functions.of(node, || {
                    let whole = self.block(x, &all(x.0.rows), &all(x.0.cols));
                    Arc::new(quantized(&whole, scheme, |dtype, x| codes.round(dtype, x)))
                });
                pick(&value, rows, cols)
            }
            Op::User { inputs, function, .. } => {
                let node = Arc::as_ptr(&expr.0) as usize;
                let value = self.functions.of(node, || {
                    let inputs: Vec<Matrix> =
                        inputs.iter().map(|i| self.block(i, &all(i.0.rows), &all(i.0.cols))).collect();
                    Arc::new(function(&inputs.iter().collect::<Vec<_>>()))
                });
                pick(&value, rows, cols)
            }
            Op::Invalid(_) => Matrix::zeros(rows.len(), cols.len()),
        }
    }

    /// Elements that are copied from other places of `parts`: of each part the rows and columns that any of them needs.
    fn arranged(
        &self,
        expr: &Expr,
        (parts, arrangement): (&[Expr], Arrangement),
        rows: &[usize],
        cols: &[usize],
    ) -> Matrix {
        let source = |r: usize, c: usize| arrangement.source(parts, expr.0.cols, r, c);
        let mut needed = vec![(BTreeSet::new(), BTreeSet::new()); parts.len()];
        for (&r, &c) in rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c))) {
            let (part, r, c) = source(r, c);
            needed[part].0.insert(r);
            needed[part].1.insert(c);
        }
        let places = |of: BTreeSet<usize>| of.into_iter().collect::<Vec<_>>();
        let blocks: Vec<(Vec<usize>, Vec<usize>, Matrix)> = needed
            .into_iter()
            .zip(parts)
            .map(|((rows, cols), part)| {
                let (rows, cols) = (places(rows), places(cols));
                let value = match rows.is_empty() {
                    true => Matrix::zeros(0, 0),
                    false => self.block(part, &rows, &cols),
                };
                (rows, cols, value)
            })
            .collect();
        let mut out = Matrix::zeros(rows.len(), cols.len());
        for (to, &r) in rows.iter().enumerate() {
            for (out, &c) in out.row_mut(to).iter_mut().zip(cols) {
                let (part, r, c) = source(r, c);
                let (rows, cols, value) = &blocks[part];
                if let (Ok(r), Ok(c)) = (rows.binary_search(&r), cols.binary_search(&c)) {
                    *out = value.row(r)[c];
                }
            }
        }
        out
    }

    /// An operand of a product, which many variants read alike.
    pub fn operand(&self, expr: &Expr, rows: &[usize], ks: &[usize]) -> Arc<Matrix> {
        let id = match expr.0.op {
            Op::Buffer(id) if ks.len() == expr.0.cols && rows.len() * ks.len() <= LARGEST => id,
            _ => return Arc::new(self.block(expr, rows, ks)),
        };
        if self.values.contains_key(&id) {
            return Arc::new(self.block(expr, rows, ks));
        }
        let key = (id, self.keys.get(&id).cloned().unwrap_or_default(), rows.to_vec());
        self.world.scaled.limit(KEPT);
        self.world.scaled.of(key, || Arc::new(self.block(expr, rows, ks)))
    }

    /// The whole of a large product whose right operand is stored as it should be but for its scales.
    fn whole_product(
        &self,
        (a, b): (&Expr, &Expr),
        rows: &[usize],
        cols: &[usize],
        accumulator: Accumulator,
    ) -> Option<Matrix> {
        let Op::Buffer(id) = b.0.op else { return None };
        let (shape, k) = ((a.0.rows, b.0.rows), a.0.cols);
        if (rows.len(), cols.len()) != shape || shape.0 * shape.1 * k < 1 << 22 {
            return None;
        }
        let weight = self.stored(id)?;
        let a = self.block(a, rows, &all(k));
        let a = match &self.product {
            None => a,
            Some(product) => product.weighted(a, k)?,
        };
        // As the reference itself is computed where it may be.
        let single = unit_of(accumulator) >= unit(DType::F32);
        let left = Left::new(&a, if single { Precision::Single } else { Precision::Double });
        Some(match left.suits(&weight) {
            true => left.product(&weight).values,
            false => Left::new(&a, Precision::Double).product(&weight).values,
        })
    }

    /// A buffer under its reading, if that changes nothing but scales and zero points.
    fn stored(&self, id: BufferId) -> Option<Weight<'a>> {
        let operand = self.world.attempt.buffer(id);
        if self.values.contains_key(&id) {
            return None;
        }
        let stored = operand.stored();
        let Some(reading) = self.readings.get(&id) else { return Some(stored) };
        let cells = reading.scales.as_ref().filter(|_| reading.only_scales())?;
        let granularity = Granularity::Block(cells.rows, cells.cols);
        let (grid_rows, groups) = granularity.grid(operand.rows, operand.cols);
        let grid = |at: &CellAt<'a>| -> Vec<f64> {
            (0..grid_rows * groups).map(|i| at(i / groups, i % groups)).collect()
        };
        Some(Weight {
            granularity,
            scales: grid(&cells.at).into(),
            zeros: reading.zeros.as_ref().map_or(Vec::new(), grid).into(),
            global: reading.factor,
            ..stored
        })
    }

    /// A product whose codes are summed up by group, then scaled; `None` of operands that have no scales.
    fn of_codes(&self, a: &Expr, b: &Expr, rows: &[usize], cols: &[usize], narrow: Narrow) -> Option<Matrix> {
        let side = |e: &Expr, at: &[usize]| {
            let Op::Buffer(id) = e.0.op else { return None };
            let operand = self.world.attempt.buffer(id);
            let reading = self.readings.get(&id).cloned().unwrap_or_else(|| Reading::right(operand));
            let cells = reading.scales.clone()?;
            let mut plain = reading;
            plain.factor = 1.0;
            let factor = operand.factor;
            plain.scales = Some(Cells { at: Arc::new(|_, _| 1.0), ..cells.clone() });
            let codes = plain.block(id.0, at, &all(operand.cols), &self.world.decoded);
            Some((codes, cells, factor))
        };
        let ((a, a_cells, a_factor), (b, b_cells, b_factor)) = (side(a, rows)?, side(b, cols)?);
        let k = a.cols;
        let group = a_cells.cols.min(b_cells.cols).min(k).max(1);
        let mut out = Matrix::zeros(a.rows, b.rows);
        for (i, &r) in rows.iter().enumerate() {
            for (j, &c) in cols.iter().enumerate() {
                let mut sum = 0.0;
                for from in (0..k).step_by(group) {
                    let to = (from + group).min(k);
                    let scale = (a_cells.at)(r / a_cells.rows, from / a_cells.cols)
                        * (b_cells.at)(c / b_cells.rows, from / b_cells.cols);
                    sum += narrow.sum(&a.row(i)[from..to], &b.row(j)[from..to]) * narrow.scale(scale);
                }
                out.row_mut(i)[j] = sum * a_factor * b_factor;
            }
        }
        Some(out)
    }

    /// Norms need their whole rows.
    fn norm(&self, op: &Op, rows: &[usize], cols: &[usize]) -> Matrix {
        let (x, gain, bias) = match op {
            Op::RmsNorm { x, gain, .. } => (x, gain, &None),
            Op::LayerNorm { x, gain, bias, .. } => (x, gain, bias),
            _ => unreachable!("called for norms"),
        };
        let x = self.block(x, rows, &all(x.0.cols));
        let row = |e: &Expr| Arc::new(self.block(e, &[0], &all(e.0.cols)));
        let operands = Many(
            [Some(Arc::new(x)), gain.as_ref().map(row), bias.as_ref().map(row)]
                .map(|m| m.unwrap_or_else(|| Arc::new(Matrix::zeros(0, 0)))),
        );
        let leaf = |i: usize| Expr::buffer(BufferId(i), operands.0[i].rows, operands.0[i].cols);
        let (gain, bias) = (gain.as_ref().map(|_| leaf(1)), bias.as_ref().map(|_| leaf(2)));
        let op = match op {
            Op::RmsNorm { eps, .. } => Op::RmsNorm { x: leaf(0), gain, eps: *eps },
            Op::LayerNorm { eps, .. } => Op::LayerNorm { x: leaf(0), gain, bias, eps: *eps },
            _ => unreachable!("called for norms"),
        };
        let node = Expr::of_op(op, leaf(0).shape());
        pick(&eval(&node, &operands), &all(rows.len()), cols)
    }

    /// The indices of `rows`, where there is such a thing.
    fn indices(&self, index: &Expr, rows: &[usize], len: usize) -> Vec<Option<usize>> {
        let cols = index.0.cols;
        rows.iter()
            .map(|r| {
                let i = self.block(index, &[r / cols], &[r % cols]).data[0];
                (i >= 0.0 && i < len as f64 && i.fract() == 0.0).then_some(i as usize)
            })
            .collect()
    }
}

struct One(Arc<Matrix>);

impl Evaluation for One {
    fn buffer(&self, _: BufferId) -> Arc<Matrix> {
        self.0.clone()
    }
}

struct Many([Arc<Matrix>; 3]);

impl Evaluation for Many {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        self.0[id.0].clone()
    }
}

/// `0..n`, as indices.
pub fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

/// Some rows and columns of a matrix.
pub fn pick(of: &Matrix, rows: &[usize], cols: &[usize]) -> Matrix {
    let mut data = Vec::with_capacity(rows.len() * cols.len());
    for &r in rows {
        let row = of.row(r);
        data.extend(cols.iter().map(|&c| row[c]));
    }
    Matrix::new(rows.len(), cols.len(), data)
}
