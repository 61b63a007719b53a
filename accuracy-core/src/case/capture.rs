//! Every byte of a run, read back when the chain's function has returned.

use super::{Buffer, Case, Setup, Tensor, memory, read_quantized};
use crate::device::host::BandDamage;
use crate::dtype::DType;
use crate::error::Result;
use crate::library::{self, Launch};
use crate::quant::{Quant, Quantized};
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
    pub kind: Kind,
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
    pub scheme: Option<Quant>,
    pub source: Option<Expr>,
    pub ideal: Option<Arc<Matrix>>,
    /// Elements, row-major and packed.
    pub data: Vec<u8>,
    /// The scale buffer as it lies in memory, padding included.
    pub scales: Vec<u8>,
    /// Elements from one row to the next, and from one column to the next.
    pub strides: (usize, usize),
    /// For leaves: whether a kernel changed them.
    pub changed: bool,
    /// Bytes between strided rows that a kernel wrote.
    pub gaps_written: usize,
    /// What was written past the ends, of the data and of the scales.
    pub damage: Vec<(String, BandDamage)>,
    /// The launcher that was first given the buffer.
    pub kernel: Option<&'static str>,
}

/// One run of a chain.
#[derive(Clone)]
pub struct Attempt {
    pub setup: Setup,
    pub buffers: Vec<Captured>,
    pub launches: Vec<Launch>,
    /// What the chain's function returned: the end of the chain.
    pub result: BufferId,
}

impl Case {
    /// Reads everything back. `result` is what the chain's function returned.
    ///
    /// # Errors
    /// If a kernel left the device in an error, or it does not answer.
    pub(crate) fn finish(mut self, result: &Tensor) -> Result<Attempt> {
        self.download()?;
        let launches = library::take_launches();
        let buffers = (0..self.buffers.len()).map(|i| self.capture(BufferId(i), &launches)).collect();
        Ok(Attempt { result: result.id(), setup: self.setup, buffers, launches })
    }

    fn capture(&self, id: BufferId, launches: &[Launch]) -> Captured {
        let buffer: &Buffer = &self.buffers[id.0];
        let allocation = &self.allocations[buffer.data];
        let (data, scales) = self.bytes(id);
        let mut damage: Vec<_> = allocation.damage().into_iter().map(|d| (buffer.name.clone(), d)).collect();
        if let Some(at) = buffer.scales {
            let of_scales = self.allocations[at].damage();
            damage.extend(of_scales.into_iter().map(|d| (format!("{}.scales", buffer.name), d)));
        }
        let kernel = launches
            .iter()
            .find(|launch| launch.touches(allocation.address(), allocation.len()))
            .map(|launch| launch.launcher);
        // The value before an update is what the framework put there; what is there now is the value after.
        let (data, scales, changed) = match (&buffer.initial, buffer.kind) {
            (Some(initial), Kind::Before) => (initial.0.clone(), initial.1.clone(), false),
            (Some(initial), _) => {
                let changed = initial.0 != data || initial.1 != scales;
                (initial.0.clone(), initial.1.clone(), changed)
            }
            (None, _) => (data, scales, false),
        };
        Captured {
            name: buffer.name.clone(),
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
            changed,
            damage,
            kernel,
        }
    }
}

impl Captured {
    /// Codes and scales, for a buffer that has them.
    pub fn quantized(&self) -> Option<Quantized> {
        self.scheme.map(|scheme| read_quantized(&scheme, self.rows, self.cols, &self.data, &self.scales))
    }

    /// The values that the bytes stand for.
    pub fn value(&self) -> Matrix {
        match self.quantized() {
            Some(quantized) => quantized.decode(),
            None => Matrix::new(
                self.rows,
                self.cols,
                self.dtype.codes(&self.data).map(|c| self.dtype.decode(c)).collect(),
            ),
        }
    }

    /// Whether all elements hold the same value: such data cannot reveal a fault.
    pub fn is_constant(&self) -> bool {
        let value = self.value();
        value.data.len() > 1 && value.data.iter().all(|x| *x == value.data[0])
    }

    /// Whether the same values lie differently in memory: other strides, or scales in another order.
    pub fn lies_differently(&self, other: &Captured) -> bool {
        let order = |c: &Captured| {
            // A stride over a dimension of one element leads nowhere.
            ((c.rows > 1).then_some(c.strides.0), (c.cols > 1).then_some(c.strides.1))
        };
        order(self) != order(other) || self.scales != other.scales
    }

    /// Elements and scales that neither run wrote: they hold the poison of this run here and that of `other` there.
    /// The positions of padding between scales are not counted.
    pub fn unwritten(&self, poison: u8, other: &Captured, other_poison: u8) -> u64 {
        let same =
            |a: &[u8], b: &[u8]| a.iter().all(|&x| x == poison) && b.iter().all(|&x| x == other_poison);
        let size = (self.dtype.bits() as usize / 8).max(1);
        let mut count =
            self.data.chunks(size).zip(other.data.chunks(size)).filter(|(a, b)| same(a, b)).count() as u64;
        if let Some(scheme) = self.scheme {
            let size = (scheme.scale_dtype.bits() as usize / 8).max(1);
            let grid = scheme.granularity.grid(self.rows, self.cols);
            for i in 0..grid.0 * grid.1 {
                let at = scheme.scale_layout.offset(grid, i / grid.1, i % grid.1) * size;
                count += u64::from(same(&self.scales[at..at + size], &other.scales[at..at + size]));
            }
        }
        count
    }

    /// Whether what a kernel wrote is bitwise the same; padding between scales is not compared.
    pub fn same_bytes(&self, other: &Captured) -> bool {
        if self.data != other.data {
            return false;
        }
        let Some(scheme) = self.scheme else { return true };
        let size = (scheme.scale_dtype.bits() as usize / 8).max(1);
        let grid = scheme.granularity.grid(self.rows, self.cols);
        (0..grid.0 * grid.1).all(|i| {
            let at = scheme.scale_layout.offset(grid, i / grid.1, i % grid.1) * size;
            self.scales[at..at + size] == other.scales[at..at + size]
        })
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
}
