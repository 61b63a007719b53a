//! Which elements of which buffers an element of a declared expression is computed from.
//!
//! This follows the shapes of the expression alone, and looks at values only where these say which row is taken.

use super::eval::{Evaluation, eval};
use super::graph::{Arrangement, BufferId, Expr, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Elements of a matrix: some rows of some columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rect {
    pub rows: (usize, usize),
    pub cols: (usize, usize),
}

impl Rect {
    /// Ranges are up to, and without, their ends.
    pub fn new(rows: Range<usize>, cols: Range<usize>) -> Rect {
        Rect { rows: (rows.start, rows.end), cols: (cols.start, cols.end) }
    }

    pub fn rows(&self) -> Range<usize> {
        self.rows.0..self.rows.1
    }

    pub fn cols(&self) -> Range<usize> {
        self.cols.0..self.cols.1
    }
}

/// What an element of an expression is computed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Elements whose values it is computed from.
    pub values: BTreeMap<BufferId, BTreeSet<Rect>>,
    /// Elements that say which values these are, such as the index of an expert.
    pub steering: BTreeMap<BufferId, BTreeSet<Rect>>,
    /// Buffers of which a function reads an unknown part: any of their elements may be needed.
    pub any: BTreeSet<BufferId>,
}

impl Reads {
    /// What the elements of an expression in `at` are computed from.
    pub fn of(expr: &Expr, at: Rect, with: &dyn Evaluation) -> Reads {
        let mut reads = Reads::default();
        reads.add(expr, at, with, false);
        reads
    }

    fn add(&mut self, expr: &Expr, at: Rect, with: &dyn Evaluation, steers: bool) {
        let (rows, cols) = (at.rows(), at.cols());
        match &expr.0.op {
            Op::Buffer(id) => {
                let of = if steers { &mut self.steering } else { &mut self.values };
                of.entry(*id).or_default().insert(at);
            }
            Op::MatMul { a, b, .. } => {
                let depth = a.shape().1;
                self.add(a, Rect::new(rows, 0..depth), with, steers);
                self.add(b, Rect::new(cols, 0..depth), with, steers);
            }
            Op::RmsNorm { x, gain, .. } => {
                self.add(x, Rect::new(rows, 0..x.shape().1), with, steers);
                if let Some(gain) = gain {
                    self.add(gain, Rect::new(0..1, cols.clone()), with, steers);
                }
            }
            Op::LayerNorm { x, gain, bias, .. } => {
                self.add(x, Rect::new(rows, 0..x.shape().1), with, steers);
                for of_columns in gain.iter().chain(bias) {
                    self.add(of_columns, Rect::new(0..1, cols.clone()), with, steers);
                }
            }
            Op::Unary { x, .. } | Op::Scale { x, .. } | Op::Round { x, .. } => self.add(x, at, with, steers),
            Op::Binary { a, b, .. } => {
                self.add(a, at.clone(), with, steers);
                let of_b = if b.shape().0 == a.shape().0 { at } else { Rect::new(0..1, cols) };
                self.add(b, of_b, with, steers);
            }
            Op::Columns { x, range } => {
                let cols = range.start + cols.start..range.start + cols.end;
                self.add(x, Rect::new(rows, cols), with, steers);
            }
            Op::Rows { x, range } => {
                let rows = range.start + rows.start..range.start + rows.end;
                self.add(x, Rect::new(rows, cols), with, steers);
            }
            Op::RepeatRows { x, times } => {
                let times = (*times).max(1);
                self.add(x, Rect::new(rows.start / times..rows.end.div_ceil(times), cols), with, steers);
            }
            Op::Gather { x, index } => {
                let chosen = eval(index, with);
                let width = index.shape().1.max(1);
                for r in rows {
                    self.add(
                        index,
                        Rect::new(r / width..r / width + 1, r % width..r % width + 1),
                        with,
                        true,
                    );
                    if let Some(row) = row(chosen.data.get(r), x.shape().0) {
                        self.add(x, Rect::new(row..row + 1, cols.clone()), with, steers);
                    }
                }
            }
            Op::Select { choices, by } => {
                let chosen = eval(by, with);
                let width = by.shape().1.max(1);
                for r in rows {
                    self.add(by, Rect::new(r / width..r / width + 1, r % width..r % width + 1), with, true);
                    if let Some(choice) = row(chosen.data.get(r), choices.len()) {
                        self.add(&choices[choice], Rect::new(r..r + 1, cols.clone()), with, steers);
                    }
                }
            }
            Op::Transpose { x } => self.add(x, Rect { rows: at.cols, cols: at.rows }, with, steers),
            Op::Arrange { parts, arrangement } => {
                for (part, of_part) in arranged(parts, *arrangement, expr.shape().1, &at) {
                    self.add(&parts[part], of_part, with, steers);
                }
            }
            Op::Quantize { x, scheme, .. } => {
                let (of_rows, of_cols) = x.shape();
                let (r, c) = scheme.granularity.cell(of_rows, of_cols);
                let whole = |range: Range<usize>, cell: usize, most: usize| {
                    range.start / cell * cell..(range.end.div_ceil(cell) * cell).min(most)
                };
                let cells = match scheme.static_scale {
                    Some(_) => at,
                    None => Rect::new(whole(rows, r, of_rows), whole(cols, c, of_cols)),
                };
                self.add(x, cells, with, steers);
            }
            // What a function reads for one of its elements is for itself to know.
            Op::User { .. } => self.any.extend(expr.buffers()),
            Op::Invalid(_) => {}
        }
    }
}

/// The operands that the elements in `at` of a result with `cols` columns are copied from, and where they lie there.
fn arranged(parts: &[Expr], arrangement: Arrangement, cols: usize, at: &Rect) -> Vec<(usize, Rect)> {
    let overlap = |of: &Range<usize>, before: usize, length: usize| {
        let (start, end) = (of.start.max(before), of.end.min(before + length));
        (start < end).then(|| start - before..end - before)
    };
    let mut before = 0;
    let mut found = Vec::new();
    match arrangement {
        Arrangement::Beside | Arrangement::Below => {
            for (i, part) in parts.iter().enumerate() {
                let beside = arrangement == Arrangement::Beside;
                let length = if beside { part.shape().1 } else { part.shape().0 };
                let of = if beside { at.cols() } else { at.rows() };
                if let Some(own) = overlap(&of, before, length) {
                    let (rows, cols) = if beside { (at.rows(), own) } else { (own, at.cols()) };
                    found.push((i, Rect::new(rows, cols)));
                }
                before += length;
            }
        }
        Arrangement::ColumnRepeated => found.push((0, Rect::new(at.rows(), 0..1))),
        Arrangement::Reshaped => {
            let width = parts[0].shape().1.max(1);
            for r in at.rows().filter(|_| !at.cols().is_empty()) {
                let (first, last) = (r * cols + at.cols().start, r * cols + at.cols().end - 1);
                let own = match first / width == last / width {
                    true => first % width..last % width + 1,
                    false => 0..width,
                };
                found.push((0, Rect::new(first / width..last / width + 1, own)));
            }
        }
    }
    found
}

/// The row that an index names.
fn row(index: Option<&f64>, count: usize) -> Option<usize> {
    let index = *index?;
    (index >= 0.0 && index < count as f64 && index.fract() == 0.0).then_some(index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Matrix, Operand, concat_columns, concat_rows, rms_norm};
    use std::sync::Arc;

    /// Every buffer holds the numbers 2, 0, 1.
    struct Fixed;

    impl Evaluation for Fixed {
        fn buffer(&self, _: BufferId) -> Arc<Matrix> {
            Arc::new(Matrix::new(1, 3, vec![2.0, 0.0, 1.0]))
        }
    }

    fn at(r: usize, c: usize) -> Rect {
        Rect::new(r..r + 1, c..c + 1)
    }

    fn only(rect: Rect) -> BTreeSet<Rect> {
        BTreeSet::from([rect])
    }

    #[test]
    fn elements_that_are_copied_to_another_place_are_read_from_where_they_were() {
        let (a, b) = (Expr::buffer(BufferId(0), 4, 6), Expr::buffer(BufferId(1), 4, 2));
        let of = |expr: &Expr, at: Rect| Reads::of(expr, at, &Fixed).values;
        let beside = of(&concat_columns(&[&a, &b]), Rect::new(1..2, 5..7));
        assert_eq!(beside[&BufferId(0)], only(at(1, 5)));
        assert_eq!(beside[&BufferId(1)], only(at(1, 0)));
        let below = of(&concat_rows(&[&a, &a.scale(2.0)]), at(6, 3));
        assert_eq!(below[&BufferId(0)], only(at(2, 3)));
        let reshaped = of(&a.reshape(8, 3), Rect::new(3..4, 1..3));
        assert_eq!(reshaped[&BufferId(0)], only(Rect::new(1..2, 4..6)));
        let times = of(&(&a * &b.columns(1..2)), at(3, 4));
        assert_eq!(times[&BufferId(1)], only(at(3, 1)));
    }

    #[test]
    fn an_element_of_a_product_reads_a_row_of_each_operand() {
        let (a, b) = (Expr::buffer(BufferId(0), 4, 8), Expr::buffer(BufferId(1), 6, 8));
        let reads = Reads::of(&a.matmul(&b), at(3, 5), &Fixed);
        assert_eq!(reads.values[&BufferId(0)], only(Rect::new(3..4, 0..8)));
        assert_eq!(reads.values[&BufferId(1)], only(Rect::new(5..6, 0..8)));
        assert!(reads.any.is_empty());
    }

    #[test]
    fn an_index_says_which_row_is_read_and_is_no_value() {
        let (x, index) = (Expr::buffer(BufferId(0), 5, 8), Expr::buffer(BufferId(1), 1, 3));
        let reads = Reads::of(&x.gather(&index), at(2, 4), &Fixed);
        assert_eq!(reads.values, BTreeMap::from([(BufferId(0), only(at(1, 4)))]));
        assert_eq!(reads.steering, BTreeMap::from([(BufferId(1), only(at(0, 2)))]));
    }

    #[test]
    fn a_norm_reads_its_row_and_a_gain_of_its_column() {
        let (x, gain) = (Expr::buffer(BufferId(0), 4, 8), Expr::buffer(BufferId(1), 1, 8));
        let reads = Reads::of(&rms_norm(&x, &gain, 1e-6).columns(2..6), at(1, 3), &Fixed);
        assert_eq!(reads.values[&BufferId(0)], only(Rect::new(1..2, 0..8)));
        assert_eq!(reads.values[&BufferId(1)], only(at(0, 5)));
    }

    #[test]
    fn of_a_function_nothing_is_known() {
        let x = Expr::buffer(BufferId(0), 4, 8);
        let reads = Reads::of(&super::super::user("f", &[&x], (4, 8), |of| of[0].clone()), at(0, 0), &Fixed);
        assert_eq!(reads.any, BTreeSet::from([BufferId(0)]));
        assert!(reads.values.is_empty());
    }
}
