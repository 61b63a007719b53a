//! Moves logical bytes (row-major, packed) into and out of strided, poisoned memory.

use super::Shape;
use super::poison::Poison;
use crate::device::memory::Memory;
use crate::dtype::{DType, NibbleOrder};
use crate::layout::{DataLayout, IndexMap};
use crate::quant::{Quant, ZeroPoint};
use std::ops::Range;

/// Gaps of views longer than this are poisoned and checked only next to the data: touching all of a view that spans
/// gigabytes would map it.
const WHOLE: usize = 64 << 20;
/// Bytes on either side of a run of data, in such a view.
const MARGIN: usize = 256;

/// Fills everything with the poison: elements and gaps.
pub fn poison(allocation: &mut Memory, dtype: DType, shape: &Shape, poison: Poison) {
    for range in touched(allocation, dtype, shape) {
        poison.fill(dtype, range.start, allocation.write(range.start, range.len()));
    }
}

/// The parts of a buffer that are ever touched: all of it, or the runs of a view that spans gigabytes.
pub fn touched(allocation: &Memory, dtype: DType, shape: &Shape) -> Vec<Range<usize>> {
    if allocation.len() <= WHOLE || shape.is_contiguous() {
        return std::iter::once(0..allocation.len()).collect();
    }
    runs(dtype, shape)
        .map(|(start, len)| start.saturating_sub(MARGIN)..(start + len + MARGIN).min(allocation.len()))
        .collect()
}

/// Bytes of the gaps between the runs that no longer hold the poison.
pub fn damaged_gaps(allocation: &Memory, dtype: DType, shape: &Shape, poison: Poison) -> usize {
    if shape.is_contiguous() {
        return 0;
    }
    let margin = if allocation.len() <= WHOLE { usize::MAX } else { MARGIN };
    let pattern = poison.pattern(dtype);
    let mut damaged = 0;
    let mut previous_end: Option<usize> = None;
    for (start, len) in runs(dtype, shape) {
        if let Some(end) = previous_end {
            let gap = start - end;
            let near = gap.min(margin);
            let mut count = |from: usize, len: usize| {
                let expected = pattern.iter().cycle().skip(from % pattern.len());
                damaged += allocation.read(from, len).iter().zip(expected).filter(|(b, e)| b != e).count();
            };
            count(end, near);
            if gap > near {
                count(start - near.min(gap - near), near.min(gap - near));
            }
        }
        previous_end = Some(start + len);
    }
    damaged
}

/// Writes elements, row-major and packed, to their places.
pub fn scatter(allocation: &mut Memory, dtype: DType, shape: &Shape, data: &[u8]) {
    if shape.is_contiguous() {
        allocation.write(0, data.len()).copy_from_slice(data);
        return;
    }
    let size = dtype.bits() as usize / 8;
    let (_, inner) = shape.extents();
    for (run, (start, len)) in runs(dtype, shape).enumerate() {
        let target = allocation.write(start, len);
        for i in 0..inner {
            let (r, c) = if shape.is_transposed() { (i, run) } else { (run, i) };
            let from = (r * shape.cols + c) * size;
            target[i * size..(i + 1) * size].copy_from_slice(&data[from..from + size]);
        }
    }
}

/// Reads elements back, row-major and packed.
pub fn gather(allocation: &Memory, dtype: DType, shape: &Shape) -> Vec<u8> {
    if shape.is_contiguous() {
        return allocation.read(0, allocation.len()).to_vec();
    }
    let size = dtype.bits() as usize / 8;
    let (_, inner) = shape.extents();
    let mut data = vec![0; shape.rows * shape.cols * size];
    for (run, (start, len)) in runs(dtype, shape).enumerate() {
        let source = allocation.read(start, len);
        for i in 0..inner {
            let (r, c) = if shape.is_transposed() { (i, run) } else { (run, i) };
            let to = (r * shape.cols + c) * size;
            data[to..to + size].copy_from_slice(&source[i * size..(i + 1) * size]);
        }
    }
    data
}

/// Where codes lie: their order, and the order of nibbles in words of eight.
#[derive(Clone, Copy)]
pub struct Order {
    pub map: IndexMap,
    pub nibbles: NibbleOrder,
}

impl Order {
    /// The order of a scheme's codes, `None` where it is row-major with the low nibble first.
    pub fn of_data(scheme: &Quant, rows: usize, cols: usize) -> Option<Order> {
        let plain = scheme.data_layout == DataLayout::RowMajor && scheme.nibbles == NibbleOrder::LowFirst;
        let order = || Order { map: scheme.data_layout.index_map((rows, cols)), nibbles: scheme.nibbles };
        (!plain).then(order)
    }

    /// The order of a buffer's elements, `None` where it is row-major.
    pub fn of_buffer(scheme: Option<&Quant>, shape: &Shape) -> Option<Order> {
        let (rows, cols) = (shape.rows, shape.cols);
        match (scheme, shape.data_layout()) {
            (Some(scheme), _) => Order::of_data(scheme, rows, cols),
            (None, DataLayout::RowMajor) => None,
            (None, layout) => {
                Some(Order { map: layout.index_map((rows, cols)), nibbles: NibbleOrder::LowFirst })
            }
        }
    }

    pub fn of_scales(scheme: &Quant, grid: (usize, usize)) -> Order {
        Order { map: scheme.scale_layout.index_map(grid), nibbles: NibbleOrder::LowFirst }
    }

    /// The format of the zero points and their order, where each cell has its own.
    pub fn of_zeros(scheme: &Quant, grid: (usize, usize)) -> Option<(DType, Order)> {
        let ZeroPoint::PerCell { dtype, layout, nibbles } = scheme.zero_point else { return None };
        Some((dtype, Order { map: layout.index_map(grid), nibbles }))
    }

    /// Codes of the buffer, padding included.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The index of code `(r, c)` in the buffer.
    pub fn index(&self, r: usize, c: usize) -> usize {
        self.nibbles.place(self.map.offset(r, c))
    }

    /// Reads the codes of a `[rows, cols]` matrix, row-major.
    pub fn read(&self, dtype: DType, bytes: &[u8], (rows, cols): (usize, usize)) -> Vec<u32> {
        let columns = self.map.columns(cols);
        let mut codes = Vec::with_capacity(rows * cols);
        for r in 0..rows {
            let row = self.map.offset(r, 0);
            codes.extend(columns.iter().map(|c| dtype.code_at(bytes, self.nibbles.place(row + c))));
        }
        codes
    }

    /// Writes the row-major codes of a matrix with that many columns; what lies between them stays.
    pub fn write(&self, dtype: DType, bytes: &mut [u8], cols: usize, codes: impl IntoIterator<Item = u32>) {
        let columns = self.map.columns(cols);
        let (mut r, mut row) = (0, 0);
        for (i, code) in codes.into_iter().enumerate() {
            if i == (r + 1) * cols {
                r += 1;
                row = self.map.offset(r, 0);
            }
            set_code(dtype, bytes, self.nibbles.place(row + columns[i - r * cols]), code);
        }
    }
}

/// The inverse of [`DType::code_at`].
fn set_code(dtype: DType, bytes: &mut [u8], index: usize, code: u32) {
    let bits = dtype.bits() as usize;
    if bits.is_multiple_of(8) {
        let size = bits / 8;
        bytes[index * size..(index + 1) * size].copy_from_slice(&code.to_le_bytes()[..size]);
        return;
    }
    if bits == 4 {
        let (byte, shift) = (&mut bytes[index / 2], index % 2 * 4);
        *byte = *byte & !(15 << shift) | (code as u8 & 15) << shift;
        return;
    }
    for bit in 0..bits {
        let at = index * bits + bit;
        let set = (code >> bit & 1) as u8;
        bytes[at / 8] = bytes[at / 8] & !(1 << (at % 8)) | set << (at % 8);
    }
}

/// Offset and length in bytes of each contiguous run.
fn runs(dtype: DType, shape: &Shape) -> impl Iterator<Item = (usize, usize)> + use<> {
    let size = dtype.bits() as usize / 8;
    let (count, inner) = shape.extents();
    let stride = shape.run_stride();
    (0..count).map(move |run| (run * stride * size, inner * size))
}
