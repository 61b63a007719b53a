//! How a kernel reads an operand: where it takes codes and scales from, and what it decodes them as.
//!
//! A right reading follows the operand's scheme; a hypothesis replaces one part of it. Elements are read one by one, so
//! that a sample of a large weight costs no more than itself.

use super::memo::Memo;
use crate::case::{Captured, Order};
use crate::dtype::{DType, Overflow};
use crate::layout::ScaleLayout;
use crate::quant::{Quant, ZeroPoint};
use crate::reference::Matrix;
use std::sync::{Arc, OnceLock};

/// The codes that a kernel takes for a row's elements in some columns; `None` beyond the buffer.
pub type CodesAt<'a> = Arc<dyn Fn(usize, &[usize]) -> Vec<Option<u32>> + Send + Sync + 'a>;
/// The scale or zero point that a kernel takes for a cell of the grid; NaN beyond the buffer.
pub type CellAt<'a> = Arc<dyn Fn(usize, usize) -> f64 + Send + Sync + 'a>;

/// The value that a kernel takes a code for.
pub type Decode<'a> = Arc<dyn Fn(u32) -> f64 + Send + Sync + 'a>;

/// Rows and columns that share a scale, and the scale of each cell.
#[derive(Clone)]
pub struct Cells<'a> {
    pub rows: usize,
    pub cols: usize,
    pub at: CellAt<'a>,
}

/// Tiles of an operand's columns, and in which of them it is misread.
#[derive(Clone, Debug)]
pub struct Part {
    pub tile: usize,
    pub tiles: Arc<[bool]>,
}

impl Part {
    pub fn contains(&self, column: usize) -> bool {
        self.tiles.get(column / self.tile).copied().unwrap_or(false)
    }
}

/// One way to read an operand.
#[derive(Clone)]
pub struct Reading<'a> {
    /// Distinguishes readings whose codes differ, for the cache of decoded samples.
    pub codes_key: usize,
    pub codes: CodesAt<'a>,
    /// The same for what they are decoded as.
    pub decode_key: usize,
    pub decode: Decode<'a>,
    bits: u32,
    pub scales: Option<Cells<'a>>,
    pub zeros: Option<CellAt<'a>>,
    /// What becomes of a code from which its zero point was subtracted, before it is scaled.
    pub difference: Option<fn(f64) -> f64>,
    pub factor: f64,
    /// What values are rounded to once they are scaled.
    pub rounded: Option<DType>,
    /// Where this holds, if not everywhere, and how the rest is read.
    pub part: Option<(Part, Arc<Reading<'a>>)>,
    /// Columns: beyond them a kernel that runs on reads what follows in memory.
    cols: usize,
}

/// Operand, reading, format and rows, of all columns.
type Key = (usize, usize, usize, Vec<usize>);

/// Decoded codes of samples, which many hypotheses share.
#[derive(Default)]
pub struct Decoded(Memo<Key, Arc<Matrix>>);

/// Elements that the cache of decoded samples may hold.
const CACHED: usize = 1 << 20;

/// Codes that are taken one by one.
pub fn each<'a>(code: impl Fn(usize, usize) -> Option<u32> + Send + Sync + 'a) -> CodesAt<'a> {
    Arc::new(move |r, cols| cols.iter().map(|&c| code(r, c)).collect())
}

/// The codes as they lie in `order` in memory.
pub fn in_order(operand: &Captured, order: Order) -> CodesAt<'_> {
    let columns = OnceLock::new();
    Arc::new(move |r, cols| {
        let columns: &Vec<usize> = columns.get_or_init(|| order.map.columns(operand.cols));
        let first = order.map.offset(r, 0);
        let place = |c: usize| columns.get(c).map_or_else(|| order.map.offset(r, c), |by| first + by);
        cols.iter().map(|&c| code_in_memory(operand, order.nibbles.place(place(c)))).collect()
    })
}

impl<'a> Reading<'a> {
    /// As the operand's scheme has it.
    pub fn right(operand: &'a Captured) -> Reading<'a> {
        let cols = operand.cols;
        let dtype = operand.dtype;
        let mut reading = Reading {
            codes_key: 0,
            codes: each(Reading::code_of(operand)),
            decode_key: 0,
            decode: Arc::new(move |code| dtype.decode(code)),
            bits: dtype.bits(),
            scales: None,
            zeros: None,
            difference: None,
            factor: operand.factor,
            rounded: None,
            part: None,
            cols,
        };
        if let Some(scheme) = operand.scheme {
            let grid = scheme.granularity.grid(operand.rows, cols);
            let (rows, cols) = scheme.granularity.cell(operand.rows, cols);
            let map = Order::of_scales(&scheme, grid);
            // Beyond a row's last group a plain order goes on.
            let place = move |r: usize, g: usize| match scheme.scale_layout {
                ScaleLayout::RowMajor if g >= grid.1 => r * grid.1 + g,
                ScaleLayout::ColMajor if g >= grid.1 => g * grid.0 + r,
                _ => map.index(r, g),
            };
            let at = move |r: usize, g: usize| scale_in_memory(operand, &scheme, place(r, g));
            reading.scales = Some(Cells { rows, cols, at: Arc::new(at) });
            reading.zeros = match (scheme.zero_point, Order::of_zeros(&scheme, grid)) {
                (ZeroPoint::Fixed(z), _) => Some(Arc::new(move |_, _| f64::from(z))),
                (_, Some((dtype, order))) => Some(Arc::new(move |r, g| {
                    let at = order.index(r, g);
                    let there = at < operand.zeros.len() * 8 / dtype.bits() as usize;
                    if there { dtype.decode(dtype.code_at(&operand.zeros, at)) } else { f64::NAN }
                })),
                _ => None,
            };
        }
        reading
    }

    /// The code of an element as it should be read. Beyond a row's end the next one begins; `None` beyond the buffer.
    pub fn code_of(operand: &'a Captured) -> impl Fn(usize, usize) -> Option<u32> + Copy + use<'a> {
        let (dtype, cols) = (operand.dtype, operand.cols);
        let codes = operand.data.len() * 8 / dtype.bits() as usize;
        move |r, c| Some(r * cols + c).filter(|at| *at < codes).map(|at| dtype.code_at(&operand.data, at))
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
            false => Arc::new(self.values(rows, cols)),
            true => {
                let key = (operand, self.codes_key, self.decode_key, rows.to_vec());
                decoded.0.of(key, || Arc::new(self.values(rows, cols)))
            }
        };
        let mut out = Arc::unwrap_or_clone(values);
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
        let plain = self.rounded.is_none() && self.difference.is_none() && self.part.is_none();
        self.codes_key == 0 && self.decode_key == 0 && plain
    }

    fn scale(&self, out: &mut Matrix, scales: &Cells<'a>, rows: &[usize], cols: &[usize]) {
        for (row, &r) in rows.iter().enumerate() {
            let grid_row = r / scales.rows;
            let mut left = (out.row_mut(row), cols);
            while let Some(&first) = left.1.first() {
                // What is scaled by the row is so to whatever length.
                let length = if scales.cols >= self.cols { usize::MAX } else { scales.cols };
                let group = first / length;
                let of_group = group * length..(group + 1).saturating_mul(length);
                let run = left.1.iter().take_while(|c| of_group.contains(*c)).count();
                let scale = (scales.at)(grid_row, group) * self.factor;
                let zero = self.zeros.as_ref().map_or(0.0, |zeros| zeros(grid_row, group));
                let (here, rest) = left.0.split_at_mut(run);
                match self.difference {
                    None => here.iter_mut().for_each(|x| *x = (*x - zero) * scale),
                    Some(f) => here.iter_mut().for_each(|x| *x = f(*x - zero) * scale),
                }
                left = (rest, &left.1[run..]);
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
            out.extend((self.codes)(r, cols).into_iter().map(|code| code.map_or(f64::NAN, value)));
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
