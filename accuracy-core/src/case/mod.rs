//! What a test declares and calls: buffers with their meaning, and pointers for the launchers.
//!
//! [`Case`] is one run of a chain. Its declarations allocate guarded, poisoned memory, fill inputs and weights, and
//! build the expression graph; when the function returns, `Case::finish` captures every byte. What the bytes are
//! judged against is in `judge`.

mod capture;
pub mod input;
mod memory;
mod part;
pub mod poison;
pub mod sample;
mod shape;
mod tensor;
pub mod watch;
mod weight;

pub use capture::{Attempt, Captured, Kind};
pub(crate) use part::Part;
pub use shape::Shape;
pub use tensor::{Element, Tensor};
pub(crate) use weight::stored_shape;
pub use weight::{PreparedWeights, WeightForm};

use crate::arch::Arch;
use crate::device::Stream;
use crate::device::emulation::Runs;
use crate::device::host::Placement;
use crate::device::memory::{Memory, MemoryError, Runtime};
use crate::dtype::{DType, Overflow};
use crate::error::{Error, Result};
use crate::fuzz::{Drawn, Values};
use crate::layout::{DataLayout, ScaleLayout};
use crate::library::{self, LibraryError};
use crate::quant::{Padding, Quant, Quantized, ZeroPoint, quantize};
use crate::reference::model::logits_of;
use crate::reference::{BufferId, Evaluation, Expr, Matrix, Operand, eval};
use crate::weights::Checkpoint;
use input::Data;
pub(crate) use memory::Order;
use poison::Poison;
use std::collections::BTreeMap;
use std::sync::Arc;
use watch::{Watch, Watching};

/// Everything that one run of a chain depends on, besides the function itself.
#[derive(Clone)]
pub struct Setup {
    pub arch: Arch,
    pub runtime: Runtime,
    pub tokens: usize,
    /// Role and tensor of each weight.
    pub weights: BTreeMap<String, String>,
    pub checkpoint: Option<Checkpoint>,
    pub prepared: PreparedWeights,
    /// Recorded activations, `[tokens, K]`.
    pub activations: Option<Arc<Matrix>>,
    pub seed: u64,
    pub data: Data,
    /// The slice of the weight and the distribution of the inputs that fuzzing drew for this case.
    pub drawn: Option<Drawn>,
    /// The bytes that a buffer holds before a kernel writes it.
    pub poison: Poison,
    pub placement: Placement,
    pub watch: Watch,
}

/// One run of a chain.
pub struct Case {
    /// Goes before the memory does.
    _watching: Watching,
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
    zeros: Option<usize>,
    global: Option<usize>,
    /// The tensor-wide factor of two-level scales, else 1.
    factor: f64,
    /// Logical bytes (data, scales) that a leaf was filled with.
    initial: Option<(Arc<Vec<u8>>, Vec<u8>)>,
    /// Allocations that hold what the framework put there, whoever writes the data, and their bytes.
    given: Vec<(usize, Vec<u8>)>,
}

impl Buffer {
    fn new(name: &str, kind: Kind, dtype: DType, shape: Shape) -> Buffer {
        Buffer {
            name: name.into(),
            kind,
            dtype,
            shape,
            scheme: None,
            source: None,
            ideal: None,
            data: 0,
            scales: None,
            zeros: None,
            global: None,
            factor: 1.0,
            initial: None,
            given: Vec::new(),
        }
    }

    /// Allocations beside that of the elements.
    fn companions(&self) -> impl Iterator<Item = usize> + use<> {
        [self.scales, self.zeros, self.global].into_iter().flatten()
    }

    fn grid(&self) -> Option<(Quant, (usize, usize))> {
        self.scheme.map(|s| (s, s.granularity.grid(self.shape.rows, self.shape.cols)))
    }
}

impl Case {
    pub(crate) fn new(setup: Setup) -> Case {
        Case { _watching: Watching, setup, buffers: Vec::new(), allocations: Vec::new() }
    }

    /// The architecture whose kernels run.
    pub fn arch(&self) -> Arch {
        self.setup.arch
    }

    /// The number of tokens of this case, which is the number of rows of the activations.
    pub fn tokens(&self) -> i32 {
        self.setup.tokens as i32
    }

    /// Whether a launcher returned an error status, so that the test can call another launcher instead.
    ///
    /// A case fails if a launcher returns an error that the test neither passes on with `?` nor hands to this function.
    ///
    /// # Errors
    /// Every error that is not a status of the launcher, such as a missing symbol.
    ///
    /// # Example
    /// ```no_run
    /// # use accuracy_core::prelude::*;
    /// # #[kernel_library("gemm")]
    /// # unsafe extern "C" {
    /// #     fn gemm_fast(y: DevPtr<bf16>, x: DevPtr<bf16>, stream: Stream) -> Status;
    /// #     fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, stream: Stream) -> Status;
    /// # }
    /// # fn call(cx: &Case, y: &Tensor, x: &Tensor) -> Result<()> {
    /// if cx.refused(unsafe { gemm_fast(y.data(), x.data(), cx.stream()) })? {
    ///     unsafe { gemm(y.data(), x.data(), cx.stream())? };
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn refused(&self, called: Result<()>) -> Result<bool> {
        match called {
            Ok(()) => Ok(false),
            Err(Error::Library(LibraryError::Status { .. })) => {
                library::expect_failure();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// The stream on which every launcher has to launch. On the CPU it is null.
    pub fn stream(&self) -> Stream {
        Stream::new(self.setup.runtime.stream())
    }

    /// The sizes `(m, n, k)` of a GEMM: `m` tokens, and the test's only weight matrix `[n, k]` (output features, input features).
    ///
    /// # Errors
    /// If the test names no weight matrix, or several. If there are several, take the shapes from the tensors that
    /// [`Case::weight`] returns.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn sizes(cx: &mut Case) -> Result<()> {
    ///     let (m, n, k) = cx.shape()?;
    ///     let w = cx.weight("w", BF16)?;
    ///     assert_eq!((cx.tokens(), w.rows(), w.cols()), (m, n, k));
    ///     Ok(())
    /// }
    /// ```
    pub fn shape(&self) -> Result<(i32, i32, i32)> {
        let (n, k) = self.matrix()?;
        let drawn = self.setup.drawn.as_ref();
        let (of_n, of_k) = drawn.map_or((None, None), |drawn| (drawn.n, drawn.k));
        Ok((self.tokens(), of_n.unwrap_or(n) as i32, of_k.unwrap_or(k) as i32))
    }

    /// Rows and columns of the test's only matrix, as it is stored.
    fn matrix(&self) -> Result<(usize, usize)> {
        let Some(checkpoint) = &self.setup.checkpoint else {
            return Err(Error::msg("shape() needs a weight: this test names none"));
        };
        let mut found = None;
        for (role, tensor) in &self.setup.weights {
            let (rows, cols) = weight::stored_shape(checkpoint, tensor)?;
            // A matrix of one row is a matrix.
            if checkpoint.raw(tensor).is_ok_and(|raw| raw.shape.len() == 1) {
                continue;
            }
            if let Some((other, _)) = found.replace((role, (rows, cols))) {
                return Err(Error::msg(format!(
                    "shape() needs one matrix, but `{other}` and `{role}` both are: take the shapes of cx.weight(..)"
                )));
            }
        }
        match found {
            Some((_, shape)) => Ok(shape),
            None => Err(Error::msg("shape() needs a matrix among the weights: all of them are vectors")),
        }
    }

    /// Activations `x`, `[tokens, k]` in bfloat16, where `k` is the number of columns of the test's only weight matrix.
    ///
    /// If the test names recorded activations (`activations = "file.safetensors#tensor"`), these are used. Otherwise the
    /// framework generates data that can reveal a bug: rows and channels of different magnitude, outliers, a row of zeros (see
    /// [`input::ordinary`]). For another shape or format, use [`Case::input`].
    ///
    /// # Errors
    /// As [`Case::shape`]; also if a recording has fewer rows than tokens, or another number of columns.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn activations(cx: &mut Case) -> Result<()> {
    ///     let (m, _, k) = cx.shape()?;
    ///     let x = cx.activations()?;
    ///     assert_eq!((x.rows(), x.cols(), x.dtype()), (m, k, BF16));
    ///     Ok(())
    /// }
    /// ```
    pub fn activations(&mut self) -> Result<Tensor> {
        let (m, _, k) = self.shape()?;
        self.input("x", crate::dtype::BF16, [m, k])
    }

    /// An input of the chain, `[rows, cols]` in the format `dtype`. The framework fills it as [`Case::activations`] says.
    ///
    /// # Errors
    /// If the name is taken, or the shape is empty or does not fit the format.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn gate_and_up(cx: &mut Case) -> Result<Tensor> {
    ///     let x = cx.input("x", BF16, [cx.tokens(), 256])?; // gate in the left half, up in the right
    ///     cx.output("h", BF16, [cx.tokens(), 128], silu(&x.columns(0..128)) * x.columns(128..256))
    /// }
    /// ```
    pub fn input(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        self.leaf_input(name, Kind::Input, dtype, shape.into())
    }

    /// An input that is quantised already, such as a GEMM's operand where no quantiser is under test. The framework
    /// quantises made-up values; what the codes stand for is the input.
    pub fn input_quantized(&mut self, name: &str, scheme: Quant, shape: impl Into<Shape>) -> Result<Tensor> {
        let (shape, quantized, _) = self.made_quantized(name, scheme, shape.into())?;
        self.leaf(name, Kind::Input, shape, weight::Prepared::quantized(quantized, scheme, None))
    }

    /// A buffer that is filled like an input and that a kernel updates in place, `[rows, cols]` in the format `dtype`. The
    /// tensor stands for the value before the update; [`Case::update`] declares the value after it.
    ///
    /// # Errors
    /// As [`Case::input`].
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn add_residual(cx: &mut Case) -> Result<Tensor> {
    ///     let x = cx.input("x", BF16, [cx.tokens(), 256])?;
    ///     let residual = cx.inout("residual", BF16, [cx.tokens(), 256])?;
    ///     let sum = cx.update(&residual, &residual + &x)?;
    ///     // Here the launcher is called, with residual.data().
    ///     Ok(sum)
    /// }
    /// ```
    pub fn inout(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        self.leaf_input(name, Kind::Before, dtype, shape.into())
    }

    /// The same as [`Case::inout`] for a quantised buffer, such as an FP8 KV cache. The framework generates the values that it
    /// holds before, and quantises them to `scheme`.
    pub fn inout_quantized(&mut self, name: &str, scheme: Quant, shape: impl Into<Shape>) -> Result<Tensor> {
        let (shape, quantized, values) = self.made_quantized(name, scheme, shape.into())?;
        self.leaf(name, Kind::Before, shape, weight::Prepared::quantized(quantized, scheme, Some(values)))
    }

    /// Generated values, and the same values quantised by the framework.
    fn made_quantized(&self, name: &str, scheme: Quant, shape: Shape) -> Result<(Shape, Quantized, Matrix)> {
        self.check_scheme(name, &scheme, &shape)?;
        if let ZeroPoint::PerCell { .. } = scheme.zero_point {
            return Err(Error::declaration(name, "zero points for each cell are for weights only"));
        }
        let values = self.values(name, (shape.rows, shape.cols), &self.setup.data.of_weights());
        let quantized = quantize(&values, &scheme, scheme.global_factor(&values));
        Ok((shape, quantized, values))
    }

    /// A buffer of zeros that kernels add to, `[rows, cols]`. [`Case::update`] declares the value afterwards.
    pub fn zeros(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let zeros = Matrix::zeros(shape.rows, shape.cols);
        self.leaf(name, Kind::Before, shape, weight::Prepared::plain(zeros, dtype))
    }

    /// Indices that steer a kernel (token positions, block tables, expert offsets), as int32 `[1, n]`. The test gives the
    /// values, and may use the same values in what it expects.
    ///
    /// # Errors
    /// If the name is taken.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn rows_of_an_embedding(cx: &mut Case) -> Result<Tensor> {
    ///     let table = cx.weight("embedding", BF16)?; // [vocabulary, width]
    ///     let ids = cx.indices("ids", &[3, 1, 4, 1])?;
    ///     cx.output("y", BF16, [4, table.cols()], table.gather(&ids)) // [4, width]
    /// }
    /// ```
    pub fn indices(&mut self, name: &str, values: &[i32]) -> Result<Tensor> {
        let ideal = Matrix::new(1, values.len(), values.iter().map(|&v| f64::from(v)).collect());
        let shape = Shape::new(1, values.len());
        self.leaf(name, Kind::Index, shape, weight::Prepared::plain(ideal, crate::dtype::INT32))
    }

    /// An input `[rows, cols]` whose values the test gives, row-major, such as a table of cosines and sines. They are rounded
    /// to `dtype`.
    ///
    /// # Errors
    /// If there are not `rows * cols` values.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn table(cx: &mut Case) -> Result<Tensor> {
    ///     let values = model::cos_sin_table(64, 128, 10_000.0); // positions, size of a head, theta
    ///     cx.constants("cos_sin", F32, [64, 128], &values)
    /// }
    /// ```
    pub fn constants(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        values: &[f64],
    ) -> Result<Tensor> {
        let shape = shape.into();
        if values.len() != shape.rows * shape.cols {
            let (rows, cols) = (shape.rows, shape.cols);
            return Err(Error::declaration(
                name,
                format!("declared as [{rows}, {cols}], but given {} values", values.len()),
            ));
        }
        let rounded = values.iter().map(|&x| dtype.decode(dtype.encode(x, Overflow::Saturate))).collect();
        let ideal = Matrix::new(shape.rows, shape.cols, rounded);
        self.leaf(name, Kind::Constant, shape, weight::Prepared::plain(ideal, dtype))
    }

    /// Declares the value that a kernel leaves in a buffer of [`Case::inout`], [`Case::inout_quantized`] or [`Case::zeros`].
    /// The result has the shape and format of `before`; an example is at [`Case::inout`].
    ///
    /// # Errors
    /// If `before` was declared in another way, or `value` has another shape.
    pub fn update(&mut self, before: &Tensor, value: impl Operand) -> Result<Tensor> {
        let name = format!("{} (updated)", before.name());
        let buffer = &self.buffers[before.id().0];
        if buffer.kind != Kind::Before {
            return Err(Error::declaration(&name, "only a buffer declared with inout() is updated in place"));
        }
        let after = Buffer {
            scheme: buffer.scheme,
            data: buffer.data,
            scales: buffer.scales,
            global: buffer.global,
            factor: buffer.factor,
            ..Buffer::new(&name, Kind::After, buffer.dtype, buffer.shape)
        };
        let source = self.source(&name, &value, (after.shape.rows, after.shape.cols))?;
        self.buffers.push(Buffer { source: Some(source), ..after });
        Ok(self.tensor(self.buffers.len() - 1))
    }

    /// Declares an intermediate that a kernel quantises. `value`, `[rows, cols]`, is what the kernel should quantise; `scheme`
    /// says the number format, which elements share a scale, and the order of the scales in memory. The tensor has codes
    /// ([`Tensor::data`]) and scales ([`Tensor::scales`]), which the kernel has to write.
    ///
    /// # Errors
    /// If `value` has operands whose shapes do not agree, if the scheme does not fit `[rows, cols]`, or if it has zero points:
    /// only weights may have them.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn fused_norm_and_quantise(cx: &mut Case) -> Result<Tensor> {
    ///     let (x, gain) = (cx.activations()?, cx.vector("gain", BF16)?);
    ///     // One float32 scale for 128 columns of each row; the scales are stored column by column.
    ///     let scheme = Quant::group(E4M3FN, 128).layout(ColMajor);
    ///     cx.quantized("xq", rms_norm(&x, &gain, 1e-6), scheme)
    /// }
    /// ```
    pub fn quantized(&mut self, name: &str, value: impl Operand, scheme: Quant) -> Result<Tensor> {
        let (rows, cols) = value.expr().shape();
        let source = self.source(name, &value, (rows, cols))?;
        let shape = Shape::new(rows, cols);
        self.check_scheme(name, &scheme, &shape)?;
        if scheme.zero_point != ZeroPoint::None {
            return Err(Error::declaration(name, "zero points are for weights only"));
        }
        // A calibrated factor comes from the values themselves.
        let factor =
            if scheme.global_scale.is_some() { scheme.global_factor(&eval(&source, self)) } else { 1.0 };
        self.declare(Buffer {
            scheme: Some(scheme),
            source: Some(source),
            factor,
            ..Buffer::new(name, Kind::Quantized, scheme.dtype, shape)
        })
    }

    /// Declares a buffer that a kernel writes without quantising: its format `dtype`, its shape `[rows, cols]`, and the `value`
    /// that it should hold. What a test returns is the end of its chain.
    ///
    /// # Errors
    /// If `value` has another shape than is declared, or operands whose shapes do not agree. The message names them.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn gemm(cx: &mut Case) -> Result<Tensor> {
    ///     let (m, n, _) = cx.shape()?;
    ///     let (x, w) = (cx.activations()?, cx.weight("w", BF16)?);
    ///     let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    ///     // Here the launcher is called, with y.data(), x.data() and w.data().
    ///     Ok(y)
    /// }
    /// ```
    pub fn output(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        value: impl Operand,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let source = self.source(name, &value, (shape.rows, shape.cols))?;
        self.suit_router(&source)?;
        self.declare(Buffer { source: Some(source), ..Buffer::new(name, Kind::Output, dtype, shape) })
    }

    /// A weight of the checkpoint, `[n, k]` (output features, input features), in the form that the kernel takes.
    ///
    /// `role` is a key of the attribute's `weights = { .. }`. `form` is one of
    ///
    /// - a number format: the stored codes and scales, or what an engine converts them to on loading (e4m3fn to e4m3fnuz on
    ///   gfx942);
    /// - a [`Quant`]: the framework quantises the stored weight to that scheme;
    /// - a [`WeightForm`], which also has a layout of codes and scales, a row stride, or a part of the rows and columns.
    ///
    /// Columns of a weight that was quantised in act-order (`g_idx`) are sorted by their groups, as engines sort them on loading.
    /// [`Case::column_order`] returns the order, for an input that must be sorted in the same way.
    ///
    /// # Errors
    /// If the test names no such role, the tensor or one of its scales is missing from the checkpoint, or the stored weight
    /// cannot have this form. The message names the tensor and the checkpoint.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn weights(cx: &mut Case) -> Result<()> {
    ///     let stored = cx.weight("w", E4M3FN)?; // as the checkpoint has it
    ///     let shuffled = cx.weight("shuffled", WeightForm::from(E4M3FN).data_layout(DataLayout::PRESHUFFLE_16X16))?;
    ///     let quantised = cx.weight("bf16", Quant::channel(INT8))?; // from a bf16 checkpoint
    ///     Ok(())
    /// }
    /// ```
    pub fn weight(&mut self, role: &str, form: impl Into<WeightForm>) -> Result<Tensor> {
        self.weight_named(role, role, form)
    }

    /// The order in which [`Case::weight`] gives the columns of a weight: `order[i]` is the stored column that comes `i`th.
    /// `None` if they come as they are stored, which is nearly always.
    ///
    /// # Errors
    /// As [`Case::weight`].
    pub fn column_order(&self, role: &str) -> Result<Option<Vec<usize>>> {
        let (checkpoint, tensor) = self.role(role)?;
        Ok(checkpoint.linear(&tensor)?.column_order())
    }

    /// The same as [`Case::weight`], with a name for the buffer. It is needed if several buffers are made from one role, such
    /// as the shards of tensor parallelism.
    ///
    /// # Example
    /// ```
    /// # use accuracy_core::prelude::*;
    /// fn two_ranks(cx: &mut Case) -> Result<()> {
    ///     let first = cx.weight_named("w0", "w", WeightForm::from(BF16).columns(0..128))?;
    ///     let second = cx.weight_named("w1", "w", WeightForm::from(BF16).columns(128..256))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn weight_named(&mut self, name: &str, role: &str, form: impl Into<WeightForm>) -> Result<Tensor> {
        let mut form = form.into();
        let (checkpoint, tensor) = self.role(role)?;
        if let Some(drawn) = self.setup.drawn.filter(Drawn::is_sliced) {
            let whole = self.matrix()?;
            let what = "the test takes a part of the stored weight, and this drawn case another one";
            form = form.slice(whole, &drawn).ok_or_else(|| Error::declaration(name, what))?;
        }
        let data = &self.setup.data.of_weights();
        let prepared = match self.setup.prepared.find(&tensor, &form, data) {
            Some(prepared) => prepared,
            None => {
                let stored = checkpoint.linear(&tensor)?;
                let prepared = weight::prepare(&stored, &form, data).map_err(|what| {
                    let place = checkpoint.path().display();
                    Error::declaration(name, format!("{what} (tensor {tensor} of {place})"))
                })?;
                self.setup.prepared.keep(&tensor, &form, data, prepared)
            }
        };
        self.prepared_leaf(name, Kind::Weight, form.shape(prepared.rows, prepared.cols), &prepared)
    }

    /// A one-dimensional weight `[n]` of the checkpoint, such as a norm's gain or a bias, as a row `[1, n]` in `dtype`.
    ///
    /// # Errors
    /// If the test names no such role, or the tensor is missing or not a vector.
    pub fn vector(&mut self, role: &str, dtype: DType) -> Result<Tensor> {
        let (checkpoint, tensor) = self.role(role)?;
        let mut values = checkpoint.vector(&tensor)?;
        if let Some(drawn) = self.setup.drawn.filter(Drawn::is_sliced) {
            // Cases are drawn so that a vector belongs to one dimension.
            let (n, k) = self.matrix()?;
            let of = if values.len() == k { drawn.k } else { drawn.n.filter(|_| values.len() == n) };
            values.truncate(of.unwrap_or(values.len()));
        }
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

    /// Whether no input has been declared yet.
    fn is_first_input(&self) -> bool {
        !self.buffers.iter().any(|b| matches!(b.kind, Kind::Input | Kind::Before))
    }

    fn leaf_input(&mut self, name: &str, kind: Kind, dtype: DType, shape: Shape) -> Result<Tensor> {
        let (rows, cols) = (shape.rows, shape.cols);
        let recorded =
            self.setup.activations.clone().filter(|_| name == "x" && self.setup.data == Data::Ordinary);
        // Recorded activations replace drawn ones only if the case asks for ordinary values and the recording has enough rows.
        let recorded = recorded.filter(|recorded| match &self.setup.drawn {
            None => true,
            Some(drawn) => drawn.values == Values::Ordinary && recorded.rows >= rows && recorded.cols == cols,
        });
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
                // A format without the range has nothing far above or below.
                let data = if is_wide(dtype) { self.setup.data } else { self.setup.data.of_weights() };
                self.values(name, (rows, cols), &data)
            }
        };
        // What the kernel is given is the input: rounding it is no error of the chain.
        let rounded = values.map(|x| dtype.nearest(x));
        self.leaf(name, kind, shape, weight::Prepared::plain(rounded, dtype))
    }

    /// Made-up values of an input.
    fn values(&self, name: &str, (rows, cols): (usize, usize), data: &Data) -> Matrix {
        let seed = self.setup.seed;
        match &self.setup.drawn {
            Some(drawn) if self.setup.data == Data::Ordinary => {
                input::drawn(name, (rows, cols), seed, drawn.values)
            }
            _ => input::values(name, self.is_first_input(), rows, cols, seed, data),
        }
    }

    /// Allocates and fills a leaf.
    fn leaf(&mut self, name: &str, kind: Kind, shape: Shape, prepared: weight::Prepared) -> Result<Tensor> {
        self.prepared_leaf(name, kind, shape, &prepared)
    }

    fn prepared_leaf(
        &mut self,
        name: &str,
        kind: Kind,
        shape: Shape,
        prepared: &weight::Prepared,
    ) -> Result<Tensor> {
        let weight::Prepared { dtype, scheme, factor, ideal, .. } = prepared;
        let (dtype, scheme, factor) = (*dtype, *scheme, *factor);
        if let Some(scheme) = &scheme {
            self.check_scheme(name, scheme, &shape)?;
        }
        let tensor = self.declare(Buffer {
            scheme,
            ideal: ideal.clone(),
            factor,
            ..Buffer::new(name, kind, dtype, shape)
        })?;
        self.fill(tensor.id(), prepared)?;
        Ok(tensor)
    }

    /// Fills a leaf with what was prepared for it.
    fn fill(&mut self, id: BufferId, prepared: &weight::Prepared) -> Result<()> {
        let weight::Prepared { dtype, data, scheme, scales, zeros, ideal, .. } = prepared;
        let (dtype, scheme) = (*dtype, *scheme);
        self.buffers[id.0].ideal.clone_from(ideal);
        let buffer = &self.buffers[id.0];
        let shape = buffer.shape;
        let allocation = &mut self.allocations[buffer.data];
        match Order::of_buffer(scheme.as_ref(), &shape) {
            None => memory::scatter(allocation, dtype, &shape, data),
            Some(order) => {
                let len = allocation.len();
                order.write(dtype, allocation.write(0, len), shape.cols, dtype.codes(data));
            }
        }
        if let (Some(at), Some((scheme, grid))) = (buffer.scales, buffer.grid()) {
            let format = scheme.scale_dtype;
            let len = self.allocations[at].len();
            let codes = scales.iter().map(|&s| format.encode(s, Overflow::Saturate));
            Order::of_scales(&scheme, grid).write(format, self.allocations[at].write(0, len), grid.1, codes);
            if let (Some(at), Some((format, order))) = (buffer.zeros, Order::of_zeros(&scheme, grid)) {
                let len = self.allocations[at].len();
                let codes = zeros.iter().map(|&z| format.encode(z, Overflow::Saturate));
                order.write(format, self.allocations[at].write(0, len), grid.1, codes);
            }
        }
        let initial = (data.clone(), self.contents(self.buffers[id.0].scales));
        let zeros = self.buffers[id.0].zeros;
        let zeros = zeros.map(|at| (at, self.allocations[at].contents().to_vec()));
        let buffer = &mut self.buffers[id.0];
        buffer.initial = Some(initial);
        buffer.given.extend(zeros);
        self.upload(id)?;
        self.watch(id);
        Ok(())
    }

    /// Gives an input that turns out to be a router's logits values that look like those: of what is made up for any input
    /// the softmax has one winner, whose weight is 1 whatever a kernel does. What a kernel was given already stays.
    fn suit_router(&mut self, source: &Expr) -> Result<()> {
        if self.setup.data != Data::Ordinary {
            return Ok(());
        }
        for id in logits_of(source) {
            let buffer = &self.buffers[id.0];
            let recorded = self.setup.activations.is_some() && buffer.name == "x";
            let memory = &self.allocations[buffer.data];
            if buffer.kind != Kind::Input
                || buffer.scheme.is_some()
                || recorded
                || library::launched_on(memory.address(), memory.len())
            {
                continue;
            }
            let Shape { rows, cols, .. } = buffer.shape;
            let dtype = buffer.dtype;
            let values = input::router(&buffer.name, rows, cols, self.setup.seed);
            self.fill(id, &weight::Prepared::plain(values.map(|x| dtype.nearest(x)), dtype))?;
        }
        Ok(())
    }

    fn check_scheme(&self, name: &str, scheme: &Quant, shape: &Shape) -> Result<()> {
        if shape.data_layout() != DataLayout::RowMajor {
            let why = "what is quantised has its data layout from its scheme: Quant::data_layout";
            return Err(Error::declaration(name, why));
        }
        let strided = || {
            let plain = Order::of_data(scheme, shape.rows, shape.cols).is_none();
            let why = || {
                "a data layout or nibble order cannot go with strides: leave out the one or the other".into()
            };
            (!plain && !shape.is_contiguous()).then(why)
        };
        match scheme.problem().or_else(|| scheme.misfit(shape.rows, shape.cols)).or_else(strided) {
            Some(problem) => Err(Error::declaration(name, problem)),
            None => Ok(()),
        }
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

    /// Allocates a buffer with what belongs to it, and poisons it.
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
        if let Some((scheme, grid)) = buffer.grid() {
            let bytes = scheme.scale_dtype.packed_len(scheme.scale_layout.len(grid));
            let at = self.poisoned(&format!("{}.scales", buffer.name), scheme.scale_dtype, bytes)?;
            if let (Padding::Byte(byte), false) = (scheme.scale_padding, buffer.kind.is_written()) {
                self.allocations[at].write(0, bytes).fill(byte);
            }
            if let Some(scale) = scheme.static_scale {
                self.allocations[at].write(0, 4).copy_from_slice(&(scale as f32).to_le_bytes());
                buffer.given.push((at, self.allocations[at].contents().to_vec()));
            }
            buffer.scales = Some(at);
            if let Some((dtype, order)) = Order::of_zeros(&scheme, grid) {
                let name = format!("{}.zero_points", buffer.name);
                buffer.zeros = Some(self.poisoned(&name, dtype, dtype.packed_len(order.len()))?);
            }
            if let Some(global) = scheme.global_scale {
                let at = self.poisoned(&format!("{}.global_scale", buffer.name), DType::F32, 4)?;
                let stored = global.stored(buffer.factor) as f32;
                self.allocations[at].write(0, 4).copy_from_slice(&stored.to_le_bytes());
                buffer.given.push((at, self.allocations[at].contents().to_vec()));
                buffer.global = Some(at);
            }
        }
        self.name(&buffer);
        self.buffers.push(buffer);
        let id = BufferId(self.buffers.len() - 1);
        self.upload(id)?;
        if self.buffers[id.0].kind.is_written() {
            let buffer = &self.buffers[id.0];
            let given = |at: &usize| buffer.given.iter().any(|(given, _)| given == at);
            let written = buffer.companions().chain([buffer.data]).filter(|at| !given(at));
            written.for_each(|at| self.allocations[at].is_unwritten());
            self.watch(id);
        }
        Ok(self.tensor(id.0))
    }

    /// Tells an emulator what a buffer and its companions are called.
    fn name(&self, buffer: &Buffer) {
        let layout = buffer.scheme.as_ref().map_or(buffer.shape.data_layout(), |scheme| scheme.data_layout);
        let (count, elements) = buffer.shape.extents();
        let runs = Runs {
            count,
            elements,
            stride: buffer.shape.run_stride(),
            bits: buffer.dtype.bits() as usize,
            transposed: buffer.shape.is_transposed(),
        };
        let runs = (layout == DataLayout::RowMajor).then_some(runs);
        self.allocations[buffer.data].named(&buffer.name, runs, buffer.dtype.bits() as usize);
        let scale = buffer.scheme.map(|scheme| scheme.scale_dtype);
        let zero =
            buffer.grid().and_then(|(scheme, grid)| Order::of_zeros(&scheme, grid)).map(|(dtype, _)| dtype);
        for (part, at, dtype) in [
            (Part::Scales, buffer.scales, scale),
            (Part::ZeroPoints, buffer.zeros, zero),
            (Part::GlobalScale, buffer.global, Some(DType::F32)),
        ] {
            if let Some(at) = at {
                let bits = dtype.unwrap_or(DType::F32).bits() as usize;
                self.allocations[at].named(&part.name(&buffer.name), None, bits);
            }
        }
    }

    /// Brings what the framework put into a buffer to where kernels work.
    fn upload(&self, id: BufferId) -> Result<()> {
        let buffer = &self.buffers[id.0];
        let data = &self.allocations[buffer.data];
        data.upload(&memory::touched(data, buffer.dtype, &buffer.shape))?;
        for at in buffer.companions() {
            let whole = 0..self.allocations[at].len();
            self.allocations[at].upload(std::slice::from_ref(&whole))?;
        }
        Ok(())
    }

    /// Waits for all kernels.
    ///
    /// # Errors
    /// If one of them left the device in an error, with the launchers that were called.
    pub(crate) fn synchronize(&self) -> Result<()> {
        self.setup.runtime.synchronize().map_err(|source| {
            let names: Vec<String> =
                library::take_launches().iter().map(|launch| format!("`{}`", launch.launcher)).collect();
            let launchers = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            Error::Kernel { launchers, source }
        })
    }

    /// Brings everything back, once all kernels are done.
    fn download(&mut self) -> Result<()> {
        for buffer in &self.buffers {
            let data = &mut self.allocations[buffer.data];
            let ranges = memory::touched(data, buffer.dtype, &buffer.shape);
            data.download(&ranges)?;
            for at in buffer.companions() {
                let whole = 0..self.allocations[at].len();
                self.allocations[at].download(std::slice::from_ref(&whole))?;
            }
        }
        Ok(())
    }

    fn poisoned(&mut self, name: &str, dtype: DType, bytes: usize) -> Result<usize> {
        let at = self.allocate(name, bytes)?;
        self.setup.poison.fill(dtype, 0, self.allocations[at].write(0, bytes));
        Ok(at)
    }

    fn allocate(&mut self, name: &str, bytes: usize) -> Result<usize> {
        // No two allocations have the same bytes in their guard bands. So a kernel that copies one element too many from
        // one buffer to another damages the other's band, and does not write what was there.
        let salt = self.setup.poison.byte() ^ 0x33 ^ (self.allocations.len() as u8).wrapping_mul(73);
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
        let address = |at: usize| self.allocations[at].address();
        Tensor {
            id: BufferId(index),
            name: buffer.name.as_str().into(),
            dtype: buffer.dtype,
            shape: buffer.shape,
            data: address(buffer.data),
            scales: buffer.scales.zip(buffer.scheme).map(|(at, s)| (address(at), s.scale_dtype)),
            zeros: buffer.zeros.zip(buffer.grid()).and_then(|(at, (scheme, grid))| {
                Order::of_zeros(&scheme, grid).map(|(dtype, _)| (address(at), dtype))
            }),
            global: buffer.global.map(address),
        }
    }

    /// The elements of a buffer, row-major and packed.
    fn elements(&self, id: BufferId) -> Vec<u8> {
        let buffer = &self.buffers[id.0];
        let allocation = &self.allocations[buffer.data];
        let Shape { rows, cols, .. } = buffer.shape;
        match Order::of_buffer(buffer.scheme.as_ref(), &buffer.shape) {
            None => memory::gather(allocation, buffer.dtype, &buffer.shape),
            Some(order) => buffer.dtype.pack(order.read(buffer.dtype, allocation.contents(), (rows, cols))),
        }
    }

    /// Whether these are the elements of a buffer.
    fn holds(&self, id: BufferId, elements: &[u8]) -> bool {
        let buffer = &self.buffers[id.0];
        let plain = Order::of_buffer(buffer.scheme.as_ref(), &buffer.shape).is_none();
        match plain && buffer.shape.is_contiguous() {
            true => self.allocations[buffer.data].contents() == elements,
            false => self.elements(id) == elements,
        }
    }

    /// What the bytes of a leaf stand for.
    fn leaf_value(&self, buffer: &Buffer) -> Matrix {
        let Shape { rows, cols, .. } = buffer.shape;
        let Some((data, scales)) = &buffer.initial else { return Matrix::zeros(rows, cols) };
        match buffer.scheme {
            Some(scheme) => {
                let zeros = self.contents(buffer.zeros);
                read_quantized(&scheme, (rows, cols), data, scales, &zeros, buffer.factor).decode()
            }
            None => Matrix::new(rows, cols, buffer.dtype.decode_bytes(data)),
        }
    }

    fn contents(&self, at: Option<usize>) -> Vec<u8> {
        at.map_or(Vec::new(), |at| self.allocations[at].contents().to_vec())
    }
}

/// Whether a format has the range of float32.
pub(crate) fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16)
}

/// Values by declaration alone, before any quantisation.
impl Evaluation for Case {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        let buffer = &self.buffers[id.0];
        match (&buffer.ideal, &buffer.source) {
            (Some(ideal), _) => ideal.clone(),
            (None, Some(source)) => eval(source, self),
            // The codes are all that is known of the value.
            (None, None) => Arc::new(self.leaf_value(buffer)),
        }
    }

    fn rounds(&self) -> bool {
        false
    }
}

/// Reads codes, scales and zero points back into a [`Quantized`].
pub(crate) fn read_quantized(
    scheme: &Quant,
    (rows, cols): (usize, usize),
    data: &[u8],
    scales: &[u8],
    zeros: &[u8],
    global: f64,
) -> Quantized {
    let (scales, zeros) = read_scales(scheme, scheme.granularity.grid(rows, cols), scales, zeros);
    Quantized {
        rows,
        cols,
        granularity: scheme.granularity,
        dtype: scheme.dtype,
        codes: match scheme.dtype.bits() {
            8 => data[..rows * cols].iter().map(|&code| code.into()).collect(),
            _ => scheme.dtype.codes(data).take(rows * cols).collect(),
        },
        scales,
        zeros,
        global,
    }
}

/// The scales and the zero points of a grid, row-major.
pub(crate) fn read_scales(
    scheme: &Quant,
    grid: (usize, usize),
    scales: &[u8],
    zeros: &[u8],
) -> (Vec<f64>, Vec<f64>) {
    let values = |dtype: DType, order: Order, bytes: &[u8]| {
        order.read(dtype, bytes, grid).into_iter().map(|code| dtype.decode(code)).collect()
    };
    let of_scales = match scheme.scale_layout {
        ScaleLayout::RowMajor => {
            scheme.scale_dtype.decode_bytes(&scales[..scheme.scale_dtype.packed_len(grid.0 * grid.1)])
        }
        _ => values(scheme.scale_dtype, Order::of_scales(scheme, grid), scales),
    };
    let of_zeros = match (scheme.zero_point, Order::of_zeros(scheme, grid)) {
        (ZeroPoint::Fixed(z), _) => vec![f64::from(z); grid.0 * grid.1],
        (_, Some((dtype, order))) => values(dtype, order, zeros),
        _ => Vec::new(),
    };
    (of_scales, of_zeros)
}

#[cfg(test)]
mod tests;
