//! Tests for the numbers of inference kernels: the library behind [`#[accuracy_test]`](macro@accuracy_test).
//!
//! You write one function that declares a chain of buffers and calls your kernels. The framework makes a matrix of tests of it.
//! For each test it provides the data and the memory, computes in float64 what every kernel should have written, compares, and
//! names the likely cause of a difference. `cargo test`, `cargo nextest run` and the plugin `cargo accuracy` run these tests.
//!
//! # A first test
//!
//! `cargo accuracy init` writes a test like this one, with the two kernels and a build script that compiles them for the CPU.
//!
//! ```no_run
//! use accuracy_core::prelude::*;
//!
//! #[kernel_library("my_kernels")] // binds libmy_kernels_<arch>.so, which is opened when a test runs
//! unsafe extern "C" {
//!     fn token_quant(q: DevPtr<i8>, s: DevPtr<f32>, x: DevPtr<bf16>, m: i32, k: i32, stream: Stream) -> Status;
//!     fn gemm(y: DevPtr<f32>, xq: DevPtr<i8>, xs: DevPtr<f32>, wq: DevPtr<i8>, ws: DevPtr<f32>, m: i32, n: i32, k: i32, stream: Stream) -> Status;
//! }
//!
//! #[accuracy_test(
//!     checkpoint = "shards/first.safetensors",
//!     weights = { w = "model.layers.{layer}.mlp.{part}_proj" }, // a case for each tensor that matches
//!     tokens = [1, 33],
//! )]
//! fn first(cx: &mut Case) -> Result<Tensor> {
//!     let (m, n, k) = cx.shape()?;
//!     let x = cx.activations()?;                                    // bf16 [m, k]
//!     let w = cx.weight("w", Quant::channel(INT8))?;                // int8 [n, k], a scale for each row
//!     let xq = cx.quantized("xq", &x, Quant::token(INT8))?;         // what token_quant will write
//!     let y = cx.output("y", F32, [m, n], xq.matmul(&w))?;          // what gemm will compute from that
//!     unsafe {
//!         token_quant(xq.data(), xq.scales(), x.data(), m, k, cx.stream())?;
//!         gemm(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, cx.stream())?;
//!     }
//!     Ok(y)
//! }
//! ```
//!
//! # Where to go on
//!
//! | you want | look at |
//! | --- | --- |
//! | to be led through a first test | [`guide::first_test`] |
//! | the parameters of a test: formats, paths, values | [`macro@accuracy_test`] |
//! | to bind launchers, or kernels of a code object | [`macro@kernel_library`], [`macro@code_object`] |
//! | to declare inputs, weights, intermediates and outputs | the methods of [`Case`] |
//! | pointers and shapes for a launcher | [`Tensor`], [`Shape`] |
//! | how a buffer is quantised, and the order of its scales | [`Quant`](quant::Quant), [`ScaleLayout`](layout::ScaleLayout), [`guide::layout`] |
//! | formulas: products, norms, activations, attention | [`Operand`](reference::Operand), [`mod@reference`], [`reference::model`] |
//! | to understand a failure | [`guide::verdict`], [`guide::names`] |
//!
//! A test needs only the [`prelude`]. The modules below say more of what is in it. Everything else is the engine: it is hidden
//! from this documentation, the plugin and generated code use it, and it may change in any version.
//!
//! # Features
//!
//! | feature | what it is for |
//! | --- | --- |
//! | `runtime` (default) | tests |
//! | `build` | build scripts: `build::declared()` compiles the kernels for the CPU |
//! | `emulate` | runs the code of gfx942 and gfx950 on this machine's processor; `cargo accuracy --emulate` switches it on |
//! | `isa`, `codeobject`, `dumps` | what the plugin reads: machine code, kernel libraries, dumps of hidden states |

#[cfg(feature = "runtime")]
pub mod arch;
#[cfg(feature = "build")]
pub mod build;
#[cfg(feature = "runtime")]
pub mod case;
#[cfg(feature = "runtime")]
mod cause_family;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod check_name;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod check_result;
#[doc(hidden)]
#[cfg(any(feature = "codeobject", all(feature = "emulate", feature = "runtime")))]
pub mod codeobject;
#[cfg(feature = "runtime")]
pub mod device;
#[cfg(feature = "runtime")]
mod diagnose;
#[cfg(feature = "runtime")]
pub mod dtype;
#[doc(hidden)]
#[cfg(feature = "dumps")]
pub mod dumps;
#[doc(hidden)]
#[cfg(all(any(feature = "emulate", feature = "isa"), feature = "runtime"))]
pub mod emulator;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod env;
#[cfg(feature = "runtime")]
pub mod error;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod error_map;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod files;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod folders;
#[cfg(feature = "runtime")]
pub mod fuzz;
#[cfg(all(any(doc, doctest), feature = "runtime"))]
pub mod guide;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod harness;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod identity;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod judge;
#[cfg(feature = "runtime")]
pub mod layout;
#[cfg(feature = "runtime")]
pub mod library;
#[doc(hidden)]
#[cfg(any(feature = "build", feature = "runtime"))]
pub mod made_of;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod meta;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod metrics;
#[doc(hidden)]
#[cfg(feature = "dumps")]
pub mod model;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub(crate) mod origins;
#[cfg(feature = "runtime")]
pub mod packed;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod plan;
#[cfg(feature = "runtime")]
mod power;
#[cfg(feature = "runtime")]
pub mod quant;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod record;
#[cfg(feature = "runtime")]
pub mod reference;
#[cfg(feature = "runtime")]
mod simd;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod symbol;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod trace;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod verdict;
#[doc(hidden)]
#[cfg(feature = "runtime")]
pub mod weights;
#[cfg(feature = "runtime")]
#[doc(hidden)]
pub mod words;

#[cfg(feature = "runtime")]
pub use accuracy_macros::{accuracy_test, code_object, kernel_library};
#[cfg(feature = "runtime")]
pub use case::{Case, Shape, Tensor, WeightForm};
#[cfg(feature = "runtime")]
pub use error::{Error, Result};
#[cfg(feature = "runtime")]
pub use half::{bf16, f16};

/// What a file with accuracy tests needs: `use accuracy_core::prelude::*;`
#[cfg(feature = "runtime")]
pub mod prelude {
    pub use crate::arch::Arch;
    pub use crate::case::{Case, Shape, Tensor, WeightForm};
    pub use crate::device::{DevPtr, Status, Stream};
    pub use crate::dtype::{
        BF16, DType, E2M1, E2M3, E3M2, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E8M0, F16, F32, INT4, INT8, INT32,
        NibbleOrder, UINT4,
    };
    pub use crate::error::{Error, Result};
    pub use crate::layout::DataLayout;
    pub use crate::layout::ScaleLayout::{self, ColMajor, RowMajor};
    pub use crate::library::{Grid, Padded};
    pub use crate::quant::{GlobalScale, Granularity, Padding, Quant, ScaleRounding, ZeroPoint};
    pub use crate::reference::model::{self, AttentionQuant, PagedAttention, RopeStyle};
    pub use crate::reference::{
        CDNA3_BF16, CDNA3_F16, CDNA3_FP8, CDNA4_BF16, CDNA4_F16, CDNA4_FP8, CodeRounding, Expr, HOPPER_FP8,
        Matrix, Operand, TensorCore, concat_columns, concat_rows, gelu, layer_norm, relu, rms_norm, select,
        sigmoid, silu, user,
    };
    pub use crate::{accuracy_test, bf16, code_object, f16, kernel_library};
}
