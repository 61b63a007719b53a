//! The library behind `#[accuracy_test]`. How it is used, page by page: [`guide`].

#[cfg(feature = "runtime")]
pub mod arch;
#[cfg(feature = "build")]
pub mod build;
#[cfg(feature = "runtime")]
pub mod case;
#[cfg(feature = "runtime")]
pub mod check_name;
#[cfg(any(feature = "codeobject", all(feature = "emulate", feature = "runtime")))]
pub mod codeobject;
#[cfg(feature = "runtime")]
pub mod device;
#[cfg(feature = "runtime")]
pub mod diagnose;
#[cfg(feature = "runtime")]
pub mod dtype;
#[cfg(feature = "dumps")]
pub mod dumps;
#[cfg(all(any(feature = "emulate", feature = "isa"), feature = "runtime"))]
pub mod emulator;
#[cfg(feature = "runtime")]
pub mod env;
#[cfg(feature = "runtime")]
pub mod error;
#[cfg(feature = "runtime")]
pub mod error_map;
#[cfg(feature = "runtime")]
pub mod files;
#[cfg(feature = "runtime")]
pub mod folders;
#[cfg(all(any(doc, doctest), feature = "runtime"))]
pub mod guide;
#[cfg(feature = "runtime")]
pub mod harness;
#[cfg(feature = "runtime")]
pub mod identity;
#[cfg(feature = "runtime")]
pub mod judge;
#[cfg(feature = "runtime")]
pub mod layout;
#[cfg(feature = "runtime")]
pub mod library;
#[cfg(any(feature = "build", feature = "runtime"))]
pub mod made_of;
#[cfg(feature = "runtime")]
pub mod meta;
#[cfg(feature = "runtime")]
pub mod metrics;
#[cfg(feature = "dumps")]
pub mod model;
#[cfg(feature = "runtime")]
pub mod packed;
#[cfg(feature = "runtime")]
pub mod plan;
#[cfg(feature = "runtime")]
pub mod power;
#[cfg(feature = "runtime")]
pub mod quant;
#[cfg(feature = "runtime")]
pub mod record;
#[cfg(feature = "runtime")]
pub mod reference;
#[cfg(feature = "runtime")]
mod simd;
#[cfg(feature = "runtime")]
pub mod verdict;
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
        Matrix, Operand, TensorCore, gelu, layer_norm, relu, rms_norm, select, sigmoid, silu, user,
    };
    pub use crate::{accuracy_test, bf16, code_object, f16, kernel_library};
}
