//! Every byte of a run, read back when the chain's function has returned.

use super::memory::{self, Order};
use super::poison::Poison;
use super::{Buffer, Case, Setup, Tensor, read_quantized, read_scales};
use crate::device::host::BandDamage;
use crate::device::process::Change;
use crate::dtype::DType;
use crate::error::Result;
use crate::library::{self, Changer, Failure, Launch};
use crate::quant::{Granularity, Padding, Quant, Quantized};
use crate::reference::stream::Weight;
use crate::reference::{BufferId, Expr, Matrix};
use std::sync::Arc;

/// What a buffer is to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Input,
    Weight,
    /// An intermediate that a kernel quantises.
    Quantized,
    Output,
    /// An input whose values the test gives.
    Constant,
    /// Integers that steer a kernel, given by the test.
    Index,
    /// A buffer that is updated in place, before.
    Before,
    /// The same buffer, after.
    After,
}

impl Kind {
    /// Whether a kernel has to write it.
    pub fn is_written(self) -> bool {
        matches!(self, Kind::Quantized | Kind::Output | Kind::After)
    }
}

/// One buffer after a run.
#[derive(Clone)]
pub struct Captured {
    pub name: String,
    /// The buffer that was declared first in the same memory: the one before an update in place, else this one.
    pub lies_in: BufferId,
    pub kind: Kind,
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
    pub scheme: Option<Quant>,
    pub source: Option<Expr>,
    pub ideal: Option<Arc<Matrix>>,
    /// Elements, row-major and packed.
    pub data: Arc<Vec<u8>>,
    /// The scale buffer as it lies in memory, padding included.
    pub scales: Vec<u8>,
    /// The zero points as they lie in memory.
    pub zeros: Vec<u8>,
    /// The tensor-wide factor of two-level scales, else 1.
    pub factor: f64,
    /// The elements as they lie in memory, where that is not row-major with the low nibble first.
    pub memory: Option<Vec<u8>>,
    /// Elements from one row to the next, and from one column to the next.
    pub strides: (usize, usize),
    /// Whether a kernel changed it that only reads it.
    pub changed: bool,
    /// The launcher of that kernel, where the run was watched.
    pub changed_by: Option<&'static str>,
    /// Whether the test itself wrote what it holds, as far as the run was watched: no launcher changed it since.
    pub by_test: bool,
    /// Bytes between strided rows that a kernel wrote.
    pub gaps_written: usize,
    /// What was written past the ends, of the data and of the scales.
    pub damage: Vec<(String, BandDamage)>,
    /// The launcher that was first given the buffer.
    pub kernel: Option<&'static str>,
    /// The kernels that it launched; `None` where that cannot be seen.
    pub launched: Option<Vec<String>>,
}

/// One run of a chain.
#[derive(Clone)]
pub struct Attempt {
    pub setup: Setup,
    pub buffers: Vec<Captured>,
    pub launches: Vec<Launch>,
    /// Calls of launchers that failed, whatever the test made of that.
    pub failures: Vec<Failure>,
    /// The changes to the process's state (rounding mode, signal handlers, ...) that no launcher made.
    pub changes: Vec<(Changer, Change)>,
    /// What the chain's function returned: the end of the chain.
    pub result: BufferId,
}

impl Case {
    /// Reads everything back, once all kernels are done. `result` is what the chain's function returned.
    ///
    /// # Errors
    /// If the device does not give its memory back.
    pub(crate) fn finish(mut self, result: &Tensor) -> Result<Attempt> {
        self.download()?;
        let (launches, failures) = (library::take_launches(), library::take_failures());
        let seen = self.undo_damage(&launches);
        let buffers = (0..self.buffers.len())
            .map(|i| {
                let buffer = &self.buffers[i];
                let mut allocations = std::iter::once(buffer.data).chain(buffer.companions());
                let by_test = buffer.kind.is_written() && allocations.any(|at| seen.by_test.contains(&at));
                let changed_by = seen.damage.iter().find(|d| d.buffer.0 == i).map(|d| d.launcher);
                Captured { by_test, ..self.capture(BufferId(i), changed_by, &launches) }
            })
            .collect();
        let (result, setup) = (result.id(), self.setup);
        Ok(Attempt { setup, buffers, launches, failures, changes: Vec::new(), result })
    }

    fn capture(&self, id: BufferId, changed_by: Option<&'static str>, launches: &[Launch]) -> Captured {
        let buffer: &Buffer = &self.buffers[id.0];
        let allocation = &self.allocations[buffer.data];
        let scales = self.contents(buffer.scales);
        let mut damage: Vec<_> = allocation.damage().into_iter().map(|d| (buffer.name.clone(), d)).collect();
        for (at, what) in
            [(buffer.scales, "scales"), (buffer.zeros, "zero_points"), (buffer.global, "global_scale")]
        {
            let found = at.map_or(Vec::new(), |at| self.allocations[at].damage());
            damage.extend(found.into_iter().map(|d| (format!("{}.{what}", buffer.name), d)));
        }
        let given = buffer.given.iter().any(|(at, bytes)| self.allocations[*at].contents() != bytes);
        let launch = launches.iter().find(|launch| launch.touches(allocation.address(), allocation.len()));
        // The value before an update is what the framework put there; what is there now is the value after.
        let (data, scales, changed) = match (&buffer.initial, buffer.kind) {
            (Some(initial), Kind::Before) => (initial.0.clone(), initial.1.clone(), false),
            (Some(initial), _) => {
                let changed = !self.holds(id, &initial.0) || initial.1 != scales;
                (initial.0.clone(), initial.1.clone(), changed)
            }
            (None, _) => (self.elements(id).into(), scales, false),
        };
        let ordered = Order::of_buffer(buffer.scheme.as_ref(), &buffer.shape);
        Captured {
            name: buffer.name.clone(),
            lies_in: self.buffers.iter().position(|b| b.data == buffer.data).map_or(id, BufferId),
            kind: buffer.kind,
            dtype: buffer.dtype,
            rows: buffer.shape.rows,
            cols: buffer.shape.cols,
            strides: buffer.shape.strides(),
            scheme: buffer.scheme,
            source: buffer.source.clone(),
            ideal: buffer.ideal.clone(),
            gaps_written: memory::damaged_gaps(allocation, buffer.dtype, &buffer.shape, self.setup.poison),
            data,
            scales,
            zeros: self.contents(buffer.zeros),
            factor: buffer.factor,
            memory: ordered.map(|_| allocation.contents().to_vec()),
            changed: changed || given || changed_by.is_some(),
            changed_by,
            by_test: false,
            damage,
            kernel: launch.map(|launch| launch.launcher),
            launched: launch.and_then(|launch| launch.kernels.clone()),
        }
    }
}

impl Captured {
    /// Codes and scales, for a buffer that has them.
    pub fn quantized(&self) -> Option<Quantized> {
        self.scheme.map(|scheme| {
            let shape = (self.rows, self.cols);
            read_quantized(&scheme, shape, &self.data, &self.scales, &self.zeros, self.factor)
        })
    }

    /// The buffer as the right operand of a product, decoded as it is multiplied.
    pub fn stored(&self) -> Weight<'_> {
        let plain = (Granularity::Tensor, Vec::new(), Vec::new());
        let (granularity, scales, zeros) = self.scheme.map_or(plain, |scheme| {
            let grid = scheme.granularity.grid(self.rows, self.cols);
            let (scales, zeros) = read_scales(&scheme, grid, &self.scales, &self.zeros);
            (scheme.granularity, scales, zeros)
        });
        Weight {
            rows: self.rows,
            cols: self.cols,
            dtype: self.dtype,
            codes: self.data[..].into(),
            granularity,
            scales: scales.into(),
            zeros: zeros.into(),
            global: self.factor,
            column_groups: None,
            magnitudes: false,
        }
    }

    /// The values that the bytes stand for.
    pub fn value(&self) -> Matrix {
        if self.factor == 1.0 {
            return self.stored().values(0..self.rows);
        }
        match self.quantized() {
            Some(quantized) => quantized.decode(),
            None => Matrix::new(self.rows, self.cols, self.dtype.decode_bytes(&self.data)),
        }
    }

    /// Whether all elements hold the same value: such data cannot reveal a fault.
    pub fn is_constant(&self) -> bool {
        self.rows * self.cols > 1 && self.stored().is_constant()
    }

    /// Whether the same values lie differently in memory: other strides, or elements or scales in another order.
    pub fn lies_differently(&self, other: &Captured) -> bool {
        let order = |c: &Captured| {
            // A stride over a dimension of one element leads nowhere.
            ((c.rows > 1).then_some(c.strides.0), (c.cols > 1).then_some(c.strides.1))
        };
        order(self) != order(other)
            || self.scales != other.scales
            || self.zeros != other.zeros
            || (self.memory.is_some() || other.memory.is_some()) && self.in_memory() != other.in_memory()
    }

    /// The elements as they lie in memory, strides left out.
    fn in_memory(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or(&self.data)
    }

    /// Whether an element holds what this poison puts there; never of packed codes, which share a byte.
    pub fn holds(&self, element: usize, poison: Poison) -> bool {
        let size = self.dtype.bits() as usize / 8;
        let bytes = self.data.get(element * size..(element + 1) * size);
        size > 0 && bytes.is_some_and(poison.held(self.dtype))
    }

    /// Elements and scales that neither run wrote: they hold the poison of this run here and that of `other` there.
    /// The positions of padding between scales are not counted.
    pub fn unwritten(&self, poison: Poison, other: &Captured, other_poison: Poison) -> u64 {
        let size = (self.dtype.bits() as usize / 8).max(1);
        let (data, other_data) = (self.in_memory(), other.in_memory());
        let (here, there) = (poison.held(self.dtype), other_poison.held(self.dtype));
        let pairs = data.chunks(size).zip(other_data.chunks(size));
        let mut count = pairs.filter(|(a, b)| here(a) && there(b)).count() as u64;
        // A static scale is the framework's own.
        if let Some(scheme) = self.scheme.filter(|s| s.static_scale.is_none()) {
            let size = scheme.scale_dtype.bits() as usize / 8;
            let (here, there) = (poison.held(scheme.scale_dtype), other_poison.held(scheme.scale_dtype));
            let unwritten =
                |at: &usize| here(&self.scales[*at..at + size]) && there(&other.scales[*at..at + size]);
            count += self.scale_places(&scheme).filter(unwritten).count() as u64;
        }
        count
    }

    /// Byte offsets of the scales, padding left out.
    fn scale_places(&self, scheme: &Quant) -> impl Iterator<Item = usize> + use<> {
        let size = scheme.scale_dtype.bits() as usize / 8;
        let grid = scheme.granularity.grid(self.rows, self.cols);
        let map = scheme.scale_layout.index_map(grid);
        (0..grid.0 * grid.1).map(move |i| map.offset(i / grid.1, i % grid.1) * size)
    }

    /// Bytes of the scales' padding that are not what the scheme declares.
    pub fn wrong_padding(&self) -> u64 {
        let Some((scheme, Padding::Byte(byte))) = self.scheme.map(|s| (s, s.scale_padding)) else { return 0 };
        let size = scheme.scale_dtype.bits() as usize / 8;
        let mut padding = vec![true; self.scales.len()];
        for at in self.scale_places(&scheme) {
            padding[at..at + size].fill(false);
        }
        self.scales.iter().zip(padding).filter(|&(&b, is_padding)| is_padding && b != byte).count() as u64
    }

    /// Whether what a kernel wrote is bitwise the same; padding between scales is not compared.
    pub fn same_bytes(&self, other: &Captured) -> bool {
        if self.data != other.data {
            return false;
        }
        let Some(scheme) = self.scheme else { return true };
        let size = scheme.scale_dtype.bits() as usize / 8;
        self.scale_places(&scheme).all(|at| self.scales[at..at + size] == other.scales[at..at + size])
    }
}

impl Attempt {
    /// The buffers that kernels wrote, in the order of their declarations.
    pub fn hops(&self) -> impl Iterator<Item = (BufferId, &Captured)> {
        self.buffers.iter().enumerate().filter(|(_, b)| b.kind.is_written()).map(|(i, b)| (BufferId(i), b))
    }

    pub fn buffer(&self, id: BufferId) -> &Captured {
        &self.buffers[id.0]
    }

    /// How many buffers are declared before the hop that an expression declares; none if it is of no hop.
    pub(crate) fn made_before(&self, source: &Expr) -> usize {
        let is_own = |b: &Captured| b.source.as_ref().is_some_and(|own| Arc::ptr_eq(&own.0, &source.0));
        self.buffers.iter().position(is_own).unwrap_or(0)
    }
}
