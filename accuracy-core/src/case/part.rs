//! The parts of a declared buffer: its elements, and what is stored beside them.

use super::Captured;
use super::memory::Order;
use crate::dtype::DType;

/// One of the arrays that make up a declared buffer; each is allocated separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    Elements,
    Scales,
    ZeroPoints,
    GlobalScale,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Elements, Part::Scales, Part::ZeroPoints, Part::GlobalScale];

    /// The name of this part in reports, such as `xq.scales`.
    pub fn name(self, buffer: &str) -> String {
        match self {
            Part::Elements => buffer.to_owned(),
            Part::Scales => format!("{buffer}.scales"),
            Part::ZeroPoints => format!("{buffer}.zero_points"),
            Part::GlobalScale => format!("{buffer}.global_scale"),
        }
    }
}

/// How the elements of a part lie in memory.
pub(crate) struct Places {
    pub rows: usize,
    pub cols: usize,
    /// Bits of an element, and its index in memory, row-major.
    pub bits: usize,
    pub indices: Vec<usize>,
}

impl Places {
    /// Offsets of the bytes that stand for an element: its first, or each that it shares with others.
    pub fn offsets(&self, r: usize, c: usize) -> impl Iterator<Item = u64> + use<> {
        let from = self.indices[r * self.cols + c] * self.bits;
        let first = from as u64 / 8;
        let last = if self.bits < 8 { (from + self.bits - 1) as u64 / 8 } else { first };
        first..=last
    }

    /// Bytes of an element.
    pub fn bytes(&self) -> usize {
        self.bits.div_ceil(8)
    }
}

impl Captured {
    /// How a part of the buffer lies in memory; `None` where there is no such part, or its order is not known.
    pub(crate) fn places(&self, part: Part) -> Option<Places> {
        let of = |dtype: DType, (rows, cols): (usize, usize), index: &dyn Fn(usize, usize) -> usize| Places {
            rows,
            cols,
            bits: dtype.bits() as usize,
            indices: (0..rows * cols).map(|i| index(i / cols, i % cols)).collect(),
        };
        let shape = (self.rows, self.cols);
        if part == Part::Elements {
            let order = self.scheme.and_then(|scheme| Order::of_data(&scheme, self.rows, self.cols));
            return match order {
                Some(order) => Some(of(self.dtype, shape, &|r, c| order.index(r, c))),
                None if self.memory.is_some() => None,
                None => Some(of(self.dtype, shape, &|r, c| r * self.strides.0 + c * self.strides.1)),
            };
        }
        let scheme = self.scheme?;
        let grid = scheme.granularity.grid(self.rows, self.cols);
        match part {
            Part::Scales => {
                let order = Order::of_scales(&scheme, grid);
                Some(of(scheme.scale_dtype, grid, &|r, c| order.index(r, c)))
            }
            Part::ZeroPoints => {
                let (dtype, order) = Order::of_zeros(&scheme, grid)?;
                Some(of(dtype, grid, &|r, c| order.index(r, c)))
            }
            Part::GlobalScale => scheme.global_scale.map(|_| of(DType::F32, (1, 1), &|_, _| 0)),
            Part::Elements => None,
        }
    }
}
