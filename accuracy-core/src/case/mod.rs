//! What a test declares and calls: buffers with their meaning, and pointers for the launchers.
//!
//! [`Case`] is one run of a chain. Its declarations allocate guarded, poisoned memory, fill inputs and weights, and
//! build the expression graph; when the function returns, [`Case::finish`] captures every byte. What the bytes are
//! judged against is in [`crate::judge`].

mod capture;
pub mod input;
mod memory;
mod shape;
mod tensor;
mod weight;

pub use capture::{Attempt, Captured, Kind};
pub use shape::Shape;
pub use tensor::{Element, Tensor};
pub use weight::WeightForm;

use crate::arch::Arch;
use crate::device::Stream;
use crate::device::host::Placement;
use crate::device::memory::{Memory, MemoryError, Runtime};
use crate::dtype::{DType, Overflow};
use crate::error::{Error, Result};
use crate::quant::{Quant, Quantized};
use crate::reference::{BufferId, Expr, Matrix, Operand};
use crate::weights::Checkpoint;
use input::Data;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that one run of a chain depends on, besides the function itself.
#[derive(Clone)]
pub struct Setup {
    pub arch: Arch,
    pub runtime: Runtime,
    pub tokens: usize,
    /// Role and tensor of each weight.
    pub weights: BTreeMap<String, String>,
    pub checkpoint: Option<Checkpoint>,
    /// Recorded activations, `[tokens, K]`.
    pub activations: Option<Arc<Matrix>>,
    pub seed: u64,
    pub data: Data,
    /// Byte with which memory is filled that a kernel has to write.
    pub poison: u8,
    pub placement: Placement,
}

/// One run of a chain.
pub struct Case {
    setup: Setup,
    buffers: Vec<Buffer>,
    allocations: Vec<Memory>,
}

/// A declared buffer.
pub(crate) struct Buffer {
    name: String,
    kind: Kind,
    dtype: DType,
    shape: Shape,
    /// For quantised data: how it is scaled.
    scheme: Option<Quant>,
    /// What it is computed from; leaves have none.
    source: Option<Expr>,
    /// For leaves: the value before any quantisation.
    ideal: Option<Arc<Matrix>>,
    /// Indices into the allocations.
    data: usize,
    scales: Option<usize>,
    /// Logical bytes (data, scales) that a leaf was filled with.
    initial: Option<(Vec<u8>, Vec<u8>)>,
}

impl Case {
    pub(crate) fn new(setup: Setup) -> Case {
        Case { setup, buffers: Vec::new(), allocations: Vec::new() }
    }

    /// The architecture whose kernels run.
    pub fn arch(&self) -> Arch {
        self.setup.arch
    }

    /// Rows of the activations.
    pub fn tokens(&self) -> i32 {
        self.setup.tokens as i32
    }

    /// The stream to launch on.
    pub fn stream(&self) -> Stream {
        Stream::new(self.setup.runtime.stream())
    }

    /// `(m, n, k)`: the tokens, and the `[n, k]` of the test's one matrix among its weights.
    ///
    /// # Errors
    /// If the test names no matrix, or several: then `cx.weight(..)` has their shapes.
    pub fn shape(&self) -> Result<(i32, i32, i32)> {
        let Some(checkpoint) = &self.setup.checkpoint else {
            return Err(Error::msg("shape() needs a weight: this test names none"));
        };
        let mut found = None;
        for (role, tensor) in &self.setup.weights {
            let (rows, cols) = weight::stored_shape(checkpoint, tensor)?;
            if rows == 1 {
                continue;
            }
            if let Some((other, _)) = found.replace((role, (rows, cols))) {
                return Err(Error::msg(format!(
                    "shape() needs one matrix, but `{other}` and `{role}` both are: take the shapes of cx.weight(..)"
                )));
            }
        }
        match found {
            Some((_, (n, k))) => Ok((self.tokens(), n as i32, k as i32)),
            None => Err(Error::msg("shape() needs a matrix among the weights: all of them are vectors")),
        }
    }

    /// Activations `[tokens, k]` in bfloat16, `k` being that of the test's one matrix.
    ///
    /// Where the test names recorded activations these are used, else data that can reveal a bug (see
    /// [`input::ordinary`]).
    pub fn activations(&mut self) -> Result<Tensor> {
        let (m, _, k) = self.shape()?;
        self.input("x", crate::dtype::BF16, [m, k])
    }

    /// An input of the chain, filled by the framework.
    pub fn input(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        self.leaf_input(name, Kind::Input, dtype, shape.into())
    }

    /// A buffer that is filled like an input and that a kernel updates in place. The tensor stands for its value
    /// before; [`Case::update`] declares what becomes of it.
    pub fn inout(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        self.leaf_input(name, Kind::Before, dtype, shape.into())
    }

    /// Declares what a kernel leaves in an [`Case::inout`] buffer.
    pub fn update(&mut self, before: &Tensor, value: impl Operand) -> Result<Tensor> {
        let name = format!("{} (updated)", before.name());
        let buffer = &self.buffers[before.id().0];
        if buffer.kind != Kind::Before {
            return Err(Error::declaration(&name, "only a buffer declared with inout() is updated in place"));
        }
        let (dtype, shape, data) = (buffer.dtype, buffer.shape, buffer.data);
        let source = self.source(&name, &value, (shape.rows, shape.cols))?;
        self.buffers.push(Buffer {
            name,
            kind: Kind::After,
            dtype,
            shape,
            scheme: None,
            source: Some(source),
            ideal: None,
            data,
            scales: None,
            initial: None,
        });
        Ok(self.tensor(self.buffers.len() - 1))
    }

    /// An intermediate that a kernel quantises: what it is computed from, and how it is scaled.
    pub fn quantized(&mut self, name: &str, value: impl Operand, scheme: Quant) -> Result<Tensor> {
        if let Some(problem) = scheme.problem() {
            return Err(Error::declaration(name, problem));
        }
        let (rows, cols) = value.expr().shape();
        let source = self.source(name, &value, (rows, cols))?;
        let shape = Shape::new(rows, cols);
        let grid = scheme.granularity.grid(rows, cols);
        let scales = scheme.scale_dtype.packed_len(scheme.scale_layout.len(grid));
        self.declare(Buffer {
            name: name.into(),
            kind: Kind::Quantized,
            dtype: scheme.dtype,
            shape,
            scheme: Some(scheme),
            source: Some(source),
            ideal: None,
            data: 0,
            scales: Some(scales),
            initial: None,
        })
    }

    /// An output that a kernel writes: its format, its shape and what it should hold.
    pub fn output(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        value: impl Operand,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let source = self.source(name, &value, (shape.rows, shape.cols))?;
        self.declare(Buffer {
            name: name.into(),
            kind: Kind::Output,
            dtype,
            shape,
            scheme: None,
            source: Some(source),
            ideal: None,
            data: 0,
            scales: None,
            initial: None,
        })
    }

    /// A weight of the checkpoint, as the kernel takes it: a number format (the stored codes, or what an engine
    /// makes of them on loading), or a whole scheme to quantise to.
    pub fn weight(&mut self, role: &str, form: impl Into<WeightForm>) -> Result<Tensor> {
        let form = form.into();
        let (checkpoint, tensor) = self.role(role)?;
        let stored = checkpoint.linear(&tensor)?;
        let prepared = weight::prepare(&stored, &form, &self.setup.data).map_err(|what| {
            Error::declaration(role, format!("{what} (tensor {tensor} of {})", checkpoint.path().display()))
        })?;
        self.leaf(role, Kind::Weight, form.shape(prepared.rows, prepared.cols), prepared)
    }

    /// A one-dimensional weight `[n]`, such as a norm's gain, as a row `[1, n]`.
    pub fn vector(&mut self, role: &str, dtype: DType) -> Result<Tensor> {
        let (checkpoint, tensor) = self.role(role)?;
        let values = checkpoint.vector(&tensor)?;
        let ideal = Matrix::new(1, values.len(), values);
        let ideal = input::weight_values(ideal, &self.setup.data);
        let shape = Shape::new(1, ideal.cols);
        self.leaf(role, Kind::Weight, shape, weight::Prepared::plain(ideal, dtype))
    }

    fn role(&self, role: &str) -> Result<(Checkpoint, String)> {
        let Some(tensor) = self.setup.weights.get(role) else {
            let known = self.setup.weights.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".into() } else { known };
            return Err(Error::declaration(
                role,
                format!("no weight of this test has this role; it names {known}"),
            ));
        };
        let checkpoint = self.setup.checkpoint.clone();
        Ok((
            checkpoint.ok_or_else(|| Error::declaration(role, "the test names no checkpoint"))?,
            tensor.clone(),
        ))
    }

    fn leaf_input(&mut self, name: &str, kind: Kind, dtype: DType, shape: Shape) -> Result<Tensor> {
        let (rows, cols) = (shape.rows, shape.cols);
        let recorded =
            self.setup.activations.clone().filter(|_| name == "x" && self.setup.data == Data::Ordinary);
        let values = match recorded {
            Some(recorded) => {
                if recorded.rows < rows || recorded.cols != cols {
                    return Err(Error::declaration(
                        name,
                        format!(
                            "recorded activations are [{}, {}], needed are [at least {rows}, {cols}]",
                            recorded.rows, recorded.cols
                        ),
                    ));
                }
                recorded.head(rows)
            }
            None => {
                let first = !self.buffers.iter().any(|b| matches!(b.kind, Kind::Input | Kind::Before));
                input::values(name, first, rows, cols, self.setup.seed, &self.setup.data)
            }
        };
        // What the kernel is given is the input: rounding it is no error of the chain.
        let rounded = values.map(|x| dtype.decode(dtype.encode(x, Overflow::Saturate)));
        self.leaf(name, kind, shape, weight::Prepared::plain(rounded, dtype))
    }

    /// Allocates and fills a leaf.
    fn leaf(&mut self, name: &str, kind: Kind, shape: Shape, prepared: weight::Prepared) -> Result<Tensor> {
        let weight::Prepared { dtype, data, scheme, scales, ideal, .. } = prepared;
        let scale_bytes = scheme.map(|s| {
            let grid = s.granularity.grid(shape.rows, shape.cols);
            s.scale_dtype.packed_len(s.scale_layout.len(grid))
        });
        let tensor = self.declare(Buffer {
            name: name.into(),
            kind,
            dtype,
            shape,
            scheme,
            source: None,
            ideal: Some(Arc::new(ideal)),
            data: 0,
            scales: scale_bytes,
            initial: None,
        })?;
        let buffer = &self.buffers[tensor.id().0];
        memory::scatter(&mut self.allocations[buffer.data], buffer.dtype, &shape, &data);
        if let Some(at) = buffer.scales {
            // Padding between the scales keeps its poison.
            let scheme = buffer.scheme.expect("a buffer with scales has a scheme");
            let grid = scheme.granularity.grid(shape.rows, shape.cols);
            memory::place_scales(&mut self.allocations[at], &scheme, grid, &scales);
        }
        self.buffers[tensor.id().0].initial = Some(self.bytes(tensor.id()));
        self.upload(tensor.id())?;
        Ok(tensor)
    }

    fn source(&self, name: &str, value: &impl Operand, expected: (usize, usize)) -> Result<Expr> {
        let value = value.expr();
        if let Some(problem) = value.problem() {
            return Err(Error::declaration(name, problem));
        }
        if value.shape() != expected {
            let ((r, c), (er, ec)) = (value.shape(), expected);
            return Err(Error::declaration(
                name,
                format!("declared as [{er}, {ec}], but its value is [{r}, {c}]"),
            ));
        }
        Ok(value)
    }

    /// Allocates a buffer (its `scales` being a length in bytes here) and poisons it.
    fn declare(&mut self, mut buffer: Buffer) -> Result<Tensor> {
        if self.buffers.iter().any(|b| b.name == buffer.name) {
            return Err(Error::declaration(
                &buffer.name,
                "declared twice: each buffer needs a name of its own",
            ));
        }
        let Shape { rows, cols, .. } = buffer.shape;
        if rows == 0 || cols == 0 {
            return Err(Error::declaration(&buffer.name, format!("[{rows}, {cols}] has no elements")));
        }
        if let Some(problem) = buffer.shape.problem(buffer.dtype) {
            return Err(Error::declaration(&buffer.name, problem));
        }
        let bytes = buffer.shape.bytes(buffer.dtype);
        buffer.data = self.allocate(&buffer.name, bytes)?;
        memory::poison(&mut self.allocations[buffer.data], buffer.dtype, &buffer.shape, self.setup.poison);
        if let Some(bytes) = buffer.scales {
            let at = self.allocate(&format!("{}.scales", buffer.name), bytes)?;
            self.allocations[at].write(0, bytes).fill(self.setup.poison);
            buffer.scales = Some(at);
        }
        self.buffers.push(buffer);
        let id = BufferId(self.buffers.len() - 1);
        self.upload(id)?;
        Ok(self.tensor(id.0))
    }

    /// Brings what the framework put into a buffer to where kernels work.
    fn upload(&self, id: BufferId) -> Result<()> {
        let buffer = &self.buffers[id.0];
        let data = &self.allocations[buffer.data];
        data.upload(&memory::touched(data, buffer.dtype, &buffer.shape))?;
        if let Some(at) = buffer.scales {
            let scales = &self.allocations[at];
            scales.upload(std::slice::from_ref(&(0..scales.len())))?;
        }
        Ok(())
    }

    /// Brings everything back, once all kernels are done.
    fn download(&mut self) -> Result<()> {
        self.setup.runtime.synchronize()?;
        for buffer in &self.buffers {
            let data = &mut self.allocations[buffer.data];
            let ranges = memory::touched(data, buffer.dtype, &buffer.shape);
            data.download(&ranges)?;
            if let Some(at) = buffer.scales {
                let len = self.allocations[at].len();
                self.allocations[at].download(std::slice::from_ref(&(0..len)))?;
            }
        }
        Ok(())
    }

    fn allocate(&mut self, name: &str, bytes: usize) -> Result<usize> {
        let salt = self.setup.poison ^ 0x33;
        let memory = Memory::new(name, bytes, self.setup.placement, salt, self.setup.runtime).map_err(
            |e| match e {
                MemoryError::Host(source) => Error::Memory { name: name.into(), bytes, source },
                MemoryError::Gpu(error) => Error::Gpu(error),
            },
        )?;
        self.allocations.push(memory);
        Ok(self.allocations.len() - 1)
    }

    fn tensor(&self, index: usize) -> Tensor {
        let buffer = &self.buffers[index];
        Tensor::new(
            BufferId(index),
            &buffer.name,
            buffer.dtype,
            buffer.shape,
            self.allocations[buffer.data].address(),
            buffer.scales.map(|at| {
                let scheme = buffer.scheme.expect("a buffer with scales has a scheme");
                (self.allocations[at].address(), scheme.scale_dtype)
            }),
        )
    }

    /// Logical bytes of a buffer: its elements row-major and packed, and its scale buffer as it lies.
    fn bytes(&self, id: BufferId) -> (Vec<u8>, Vec<u8>) {
        let buffer = &self.buffers[id.0];
        let data = memory::gather(&self.allocations[buffer.data], buffer.dtype, &buffer.shape);
        let scales = buffer.scales.map_or(Vec::new(), |at| {
            let allocation = &self.allocations[at];
            allocation.read(0, allocation.len()).to_vec()
        });
        (data, scales)
    }
}

/// Reads codes and scales back into a [`Quantized`].
pub(crate) fn read_quantized(
    scheme: &Quant,
    rows: usize,
    cols: usize,
    data: &[u8],
    scales: &[u8],
) -> Quantized {
    let grid = scheme.granularity.grid(rows, cols);
    let scales = (0..grid.0 * grid.1)
        .map(|i| {
            let at = scheme.scale_layout.offset(grid, i / grid.1, i % grid.1);
            scheme.scale_dtype.decode(scheme.scale_dtype.code_at(scales, at))
        })
        .collect();
    Quantized {
        rows,
        cols,
        granularity: scheme.granularity,
        dtype: scheme.dtype,
        codes: scheme.dtype.codes(data).take(rows * cols).collect(),
        scales,
    }
}
