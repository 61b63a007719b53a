//! Moves logical bytes (row-major, packed) into and out of strided, poisoned memory.

use super::Shape;
use crate::device::memory::Memory;
use crate::dtype::{DType, Overflow};
use crate::quant::Quant;
use std::ops::Range;

/// Gaps of views longer than this are poisoned and checked only next to the data: touching all of a view that spans
/// gigabytes would map it.
const WHOLE: usize = 64 << 20;
/// Bytes on either side of a run of data, in such a view.
const MARGIN: usize = 256;

/// Fills everything with the poison: elements and gaps.
pub fn poison(allocation: &mut Memory, dtype: DType, shape: &Shape, poison: u8) {
    for range in touched(allocation, dtype, shape) {
        allocation.write(range.start, range.len()).fill(poison);
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
pub fn damaged_gaps(allocation: &Memory, dtype: DType, shape: &Shape, poison: u8) -> usize {
    if shape.is_contiguous() {
        return 0;
    }
    let margin = if allocation.len() <= WHOLE { usize::MAX } else { MARGIN };
    let mut damaged = 0;
    let mut previous_end: Option<usize> = None;
    for (start, len) in runs(dtype, shape) {
        if let Some(end) = previous_end {
            let gap = start - end;
            let near = gap.min(margin);
            let mut count = |from: usize, len: usize| {
                damaged += allocation.read(from, len).iter().filter(|&&b| b != poison).count();
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

/// Encodes scales (row-major over their grid) and writes them where the layout has them.
pub fn place_scales(allocation: &mut Memory, scheme: &Quant, grid: (usize, usize), scales: &[f64]) {
    let format = scheme.scale_dtype;
    let size = format.bits() as usize / 8;
    for (i, &scale) in scales.iter().enumerate() {
        let at = scheme.scale_layout.offset(grid, i / grid.1, i % grid.1);
        let code = format.encode(scale, Overflow::Saturate).to_le_bytes();
        allocation.write(at * size, size).copy_from_slice(&code[..size]);
    }
}

/// Offset and length in bytes of each contiguous run.
fn runs(dtype: DType, shape: &Shape) -> impl Iterator<Item = (usize, usize)> + use<> {
    let size = dtype.bits() as usize / 8;
    let (count, inner) = shape.extents();
    let stride = shape.run_stride();
    (0..count).map(move |run| (run * stride * size, inner * size))
}
