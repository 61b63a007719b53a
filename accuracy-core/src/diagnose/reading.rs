//! How a kernel reads an operand: where it takes codes and scales from, and what it decodes them as.
//!
//! A right reading follows the operand's scheme; a hypothesis replaces one part of it. Elements are read one by one, so
//! that a sample of a large weight costs no more than itself.

use super::hypothesis::Part;
use crate::case::{Captured, Order};
use crate::dtype::{DType, Overflow};
use crate::quant::{Quant, ZeroPoint};
use crate::reference::Matrix;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The code that a kernel takes for element `(row, column)`; `None` beyond the buffer.
pub type CodeAt<'a> = Rc<dyn Fn(usize, usize) -> Option<u32> + 'a>;
/// The scale or zero point that a kernel takes for a cell of the grid; NaN beyond the buffer.
pub type CellAt<'a> = Rc<dyn Fn(usize, usize) -> f64 + 'a>;

/// The value that a kernel takes a code for.
pub type Decode<'a> = Rc<dyn Fn(u32) -> f64 + 'a>;

/// Rows and columns that share a scale, and the scale of each cell.
#[derive(Clone)]
pub struct Cells<'a> {
    pub rows: usize,
    pub cols: usize,
    pub at: CellAt<'a>,
}

/// One way to read an operand.
#[derive(Clone)]
pub struct Reading<'a> {
    /// Distinguishes readings whose codes differ, for the cache of decoded samples.
    pub codes_key: usize,
    pub codes: CodeAt<'a>,
    /// The same for what they are decoded as.
    pub decode_key: usize,
    pub decode: Decode<'a>,
    bits: u32,
    pub scales: Option<Cells<'a>>,
    pub zeros: Option<CellAt<'a>>,
    pub factor: f64,
    /// What values are rounded to once they are scaled.
    pub rounded: Option<DType>,
    /// Where this holds, if not everywhere, and how the rest is read.
    pub part: Option<(Part, Rc<Reading<'a>>)>,
    /// Columns: beyond them a kernel that runs on reads what follows in memory.
    cols: usize,
}

/// Operand, reading, format and rows, of all columns.
type Key = (usize, usize, usize, Vec<usize>);

/// Decoded codes of samples, which many hypotheses share.
#[derive(Default)]
pub struct Decoded(RefCell<HashMap<Key, Rc<Matrix>>>);

/// Elements that the cache of decoded samples may hold.
const CACHED: usize = 1 << 20;

impl<'a> Reading<'a> {
    /// As the operand's scheme has it.
    pub fn right(operand: &'a Captured) -> Reading<'a> {
        let cols = operand.cols;
        let (dtype, data) = (operand.dtype, &operand.data);
        let codes = operand.data.len() * 8 / dtype.bits() as usize;
        let at = move |r: usize, c: usize| {
            let at = r * cols + c;
            (at < codes).then(|| dtype.code_at(data, at))
        };
        let mut reading = Reading {
            codes_key: 0,
            codes: Rc::new(at),
            decode_key: 0,
            decode: Rc::new(move |code| dtype.decode(code)),
            bits: dtype.bits(),
            scales: None,
            zeros: None,
            factor: operand.factor,
            rounded: None,
            part: None,
            cols,
        };
        if let Some(scheme) = operand.scheme {
            let grid = scheme.granularity.grid(operand.rows, cols);
            let (rows, cols) = scheme.granularity.cell(operand.rows, cols);
            let map = Order::of_scales(&scheme, grid);
            let at = move |r: usize, g: usize| scale_in_memory(operand, &scheme, map.index(r, g));
            reading.scales = Some(Cells { rows, cols, at: Rc::new(at) });
            reading.zeros = match (scheme.zero_point, Order::of_zeros(&scheme, grid)) {
                (ZeroPoint::Fixed(z), _) => Some(Rc::new(move |_, _| f64::from(z))),
                (_, Some((dtype, order))) => Some(Rc::new(move |r, g| {
                    let at = order.index(r, g);
                    let there = at < operand.zeros.len() * 8 / dtype.bits() as usize;
                    if there { dtype.decode(dtype.code_at(&operand.zeros, at)) } else { f64::NAN }
                })),
                _ => None,
            };
        }
        reading
    }

    /// The elements at `rows` × `cols`.
    pub fn block(&self, operand: usize, rows: &[usize], cols: &[usize], decoded: &Decoded) -> Matrix {
        let mut out = self.everywhere(operand, rows, cols, decoded);
        if let Some((part, elsewhere)) = &self.part {
            let other = elsewhere.everywhere(operand, rows, cols, decoded);
            for r in 0..out.rows {
                let row = out.row_mut(r).iter_mut().zip(other.row(r)).zip(cols);
                row.filter(|(_, c)| !part.contains(**c)).for_each(|((x, other), _)| *x = *other);
            }
        }
        out
    }

    fn everywhere(&self, operand: usize, rows: &[usize], cols: &[usize], decoded: &Decoded) -> Matrix {
        let whole =
            cols.len() == self.cols && cols.first() == Some(&0) && cols.last() == Some(&(self.cols - 1));
        let values = match whole && rows.len() * cols.len() <= CACHED {
            false => Rc::new(self.values(rows, cols)),
            true => {
                let key = (operand, self.codes_key, self.decode_key, rows.to_vec());
                let known = decoded.0.borrow().get(&key).cloned();
                known.unwrap_or_else(|| {
                    let values = Rc::new(self.values(rows, cols));
                    decoded.0.borrow_mut().insert(key, values.clone());
                    values
                })
            }
        };
        let mut out = Rc::unwrap_or_clone(values);
        if let Some(scales) = &self.scales {
            self.scale(&mut out, scales, rows, cols);
        }
        if let Some(to) = self.rounded {
            out.data.iter_mut().for_each(|x| *x = to.decode(to.encode(*x, Overflow::Special)));
        }
        out
    }

    /// Whether codes are read as they should be.
    pub fn only_scales(&self) -> bool {
        self.codes_key == 0 && self.decode_key == 0 && self.rounded.is_none() && self.part.is_none()
    }

    fn scale(&self, out: &mut Matrix, scales: &Cells<'a>, rows: &[usize], cols: &[usize]) {
        for (row, &r) in rows.iter().enumerate() {
            let grid_row = r / scales.rows;
            let (mut group, mut scale, mut zero) = (usize::MAX, 0.0, 0.0);
            for (x, &c) in out.row_mut(row).iter_mut().zip(cols) {
                if c / scales.cols != group {
                    group = c / scales.cols;
                    scale = (scales.at)(grid_row, group) * self.factor;
                    zero = self.zeros.as_ref().map_or(0.0, |zeros| zeros(grid_row, group));
                }
                *x = (*x - zero) * scale;
            }
        }
    }

    /// The codes decoded, without scales.
    fn values(&self, rows: &[usize], cols: &[usize]) -> Matrix {
        let small = self.bits <= 8;
        let table: Vec<f64> = match small {
            true => (0..1u32 << self.bits).map(|code| (self.decode)(code)).collect(),
            false => Vec::new(),
        };
        let value = |code: u32| match small {
            true => table.get(code as usize).copied().unwrap_or(f64::NAN),
            false => (self.decode)(code),
        };
        let mut out = Vec::with_capacity(rows.len() * cols.len());
        for &r in rows {
            out.extend(cols.iter().map(|&c| (self.codes)(r, c).map_or(f64::NAN, value)));
        }
        Matrix::new(rows.len(), cols.len(), out)
    }
}

/// The scale at `index` of the buffer as it lies in memory, NaN beyond it.
pub fn scale_in_memory(operand: &Captured, scheme: &Quant, index: usize) -> f64 {
    let format = scheme.scale_dtype;
    match index < operand.scales.len() * 8 / format.bits() as usize {
        true => format.decode(format.code_at(&operand.scales, index)),
        false => f64::NAN,
    }
}

/// The code at `index` of the elements as they lie in memory.
pub fn code_in_memory(operand: &Captured, index: usize) -> Option<u32> {
    let bytes = operand.memory.as_ref().unwrap_or(&operand.data);
    (index < bytes.len() * 8 / operand.dtype.bits() as usize).then(|| operand.dtype.code_at(bytes, index))
}
