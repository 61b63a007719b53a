//! Some columns of a chain's large products, as a run of its own.
//!
//! Whether checks would see a fault needs the product once for each fault; of a layer with a hundred million weights a
//! few hundred output columns say as much. Here a run is cut down to them: the weight keeps the rows that they are
//! computed from, with its scales in the declared layout, so that whatever takes a run takes this one.

use super::memory::Order;
use super::{Attempt, Captured, Kind, read_scales};
use crate::dtype::{DType, Overflow};
use crate::quant::{Granularity, Padding, Quant};
use crate::reference::graph::Op;
use crate::reference::{Accumulator, BufferId, Expr, Matrix};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Elements of a weight from which on its product is sampled.
const LARGE: usize = 1 << 24;
/// Places that the columns are taken from, and the least columns of each.
const PLACES: usize = 4;
const COLUMNS: usize = 128;

/// A run cut down to some output columns of its large products.
pub struct Sample {
    pub attempt: Attempt,
    /// The columns that are left of an output.
    pub columns: BTreeMap<BufferId, Vec<usize>>,
}

impl Attempt {
    /// `None` where no product is large, or none that nothing is computed from.
    pub fn sample(&self) -> Option<Sample> {
        self.sample_from(LARGE)
    }

    /// The same for weights of at least so many elements.
    pub(super) fn sample_from(&self, large: usize) -> Option<Sample> {
        let mut attempt = self.clone();
        let mut columns = BTreeMap::new();
        for (id, buffer) in self.hops() {
            let Some((a, weight, accumulator)) = self.large_product(id, buffer, large) else { continue };
            let operand = self.buffer(weight);
            let Some(rows) = places(operand) else { continue };
            let rows: Vec<usize> = rows.into_iter().flatten().collect();
            let sampled = operand.rows_sample(&rows, self.setup.poison.byte());
            let b = Expr::buffer(weight, rows.len(), operand.cols);
            let mut output = buffer.columns_sample(&rows);
            output.source = Some(a.matmul_of(b, accumulator));
            attempt.buffers[weight.0] = sampled;
            attempt.buffers[id.0] = output;
            columns.insert(id, rows);
        }
        (!columns.is_empty()).then_some(Sample { attempt, columns })
    }

    /// The operands of an unquantised output that is a large weight's product and the end of its chain, the weight being
    /// used nowhere else.
    fn large_product(
        &self,
        id: BufferId,
        buffer: &Captured,
        large: usize,
    ) -> Option<(Expr, BufferId, Accumulator)> {
        let Op::MatMul { a, b, accumulator } = &buffer.source.as_ref()?.0.op else { return None };
        let Op::Buffer(weight) = b.0.op else { return None };
        let operand = self.buffer(weight);
        let uses = |of: BufferId| self.hops().filter(|(_, b)| reads(b, of)).count();
        let fits = operand.kind == Kind::Weight
            && operand.rows * operand.cols >= large
            && buffer.scheme.is_none()
            && buffer.kind == Kind::Output
            && uses(weight) == 1
            && uses(id) == 0
            && !a.buffers().contains(&weight);
        fits.then(|| (a.clone(), weight, *accumulator))
    }
}

fn reads(buffer: &Captured, of: BufferId) -> bool {
    buffer.source.as_ref().is_some_and(|source| source.buffers().contains(&of))
}

/// Ranges of rows, spread over the weight, whose borders are borders of scale cells, and as many in all as its layouts
/// take.
fn places(weight: &Captured) -> Option<Vec<Range<usize>>> {
    let cell = match weight.scheme.map(|s| s.granularity) {
        None | Some(Granularity::Tensor) => 1,
        Some(granularity) => granularity.cell(weight.rows, weight.cols).0,
    };
    let height = cell * COLUMNS.div_ceil(cell);
    let steps = weight.rows / height;
    if steps < 2 * PLACES {
        return None;
    }
    let ranges: Vec<_> = (0..PLACES)
        .map(|i| (steps - 1) * i / (PLACES - 1) * height)
        .map(|start| start..start + height)
        .collect();
    let fits = weight.scheme.is_none_or(|s| s.misfit(PLACES * height, weight.cols).is_none());
    fits.then_some(ranges)
}

impl Captured {
    /// Some rows of a weight.
    fn rows_sample(&self, rows: &[usize], poison: u8) -> Captured {
        let bits = self.dtype.bits() as usize;
        let row_bits = self.cols * bits;
        let data: Vec<u8> = if row_bits.is_multiple_of(8) {
            rows.iter().flat_map(|r| &self.data[r * row_bits / 8..(r + 1) * row_bits / 8]).copied().collect()
        } else {
            let at = rows.iter().flat_map(|r| (0..self.cols).map(move |c| r * self.cols + c));
            self.dtype.pack(at.map(|at| self.dtype.code_at(&self.data, at)))
        };
        let mut out = Captured {
            rows: rows.len(),
            ideal: self.ideal.as_ref().map(|ideal| Arc::new(rows_of(ideal, rows))),
            memory: None,
            data: Arc::new(data),
            ..self.clone()
        };
        if let Some(scheme) = self.scheme {
            out.lay_out(&scheme, self, rows, poison);
        }
        out
    }

    /// Scales, zero points and codes of some rows of `whole`, in the scheme's layouts.
    fn lay_out(&mut self, scheme: &Quant, whole: &Captured, rows: &[usize], poison: u8) {
        let shape = (self.rows, self.cols);
        if let Some(order) = Order::of_data(scheme, shape.0, shape.1) {
            let mut memory = vec![poison; self.dtype.packed_len(order.len())];
            order.write(self.dtype, &mut memory, shape.1, self.dtype.codes(&self.data));
            self.memory = Some(memory);
        }
        if scheme.granularity == Granularity::Tensor {
            return;
        }
        let grid = scheme.granularity.grid(whole.rows, whole.cols);
        let (scales, zeros) = read_scales(scheme, grid, &whole.scales, &whole.zeros);
        let cell = scheme.granularity.cell(whole.rows, whole.cols).0;
        let of_rows = |all: &[f64]| -> Vec<f64> {
            rows.iter().step_by(cell).flat_map(|r| &all[r / cell * grid.1..][..grid.1]).copied().collect()
        };
        let grid = scheme.granularity.grid(shape.0, shape.1);
        let write = |order: Order, dtype: DType, fill: u8, values: &[f64]| {
            let mut bytes = vec![fill; dtype.packed_len(order.len())];
            order.write(
                dtype,
                &mut bytes,
                grid.1,
                values.iter().map(|&x| dtype.encode(x, Overflow::Saturate)),
            );
            bytes
        };
        let padding = if let Padding::Byte(byte) = scheme.scale_padding { byte } else { poison };
        self.scales = write(Order::of_scales(scheme, grid), scheme.scale_dtype, padding, &of_rows(&scales));
        if let Some((dtype, order)) = Order::of_zeros(scheme, grid) {
            self.zeros = write(order, dtype, poison, &of_rows(&zeros));
        }
    }

    /// Some columns of an unquantised output.
    fn columns_sample(&self, columns: &[usize]) -> Captured {
        let size = self.dtype.bits() as usize / 8;
        let element = |r: usize, c: usize| &self.data[(r * self.cols + c) * size..][..size];
        let data: Vec<u8> =
            (0..self.rows).flat_map(|r| columns.iter().flat_map(move |&c| element(r, c))).copied().collect();
        Captured { cols: columns.len(), data: Arc::new(data), ..self.clone() }
    }
}

fn rows_of(values: &Matrix, rows: &[usize]) -> Matrix {
    let data = rows.iter().flat_map(|&r| values.row(r)).copied().collect();
    Matrix::new(rows.len(), values.cols, data)
}

/// The given columns.
pub fn columns_of(values: &Matrix, columns: &[usize]) -> Matrix {
    let data = (0..values.rows).flat_map(|r| columns.iter().map(move |&c| values.row(r)[c])).collect();
    Matrix::new(values.rows, columns.len(), data)
}
