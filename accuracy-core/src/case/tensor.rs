//! The handle of a declared buffer.

use super::Shape;
use crate::device::DevPtr;
use crate::dtype::DType;
use crate::reference::graph::operators;
use crate::reference::{BufferId, Expr, Operand};
use std::sync::Arc;

/// A declared buffer: pointers for launchers, and a leaf for expressions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(super) id: BufferId,
    pub(super) name: Arc<str>,
    pub(super) dtype: DType,
    pub(super) shape: Shape,
    pub(super) data: usize,
    pub(super) scales: Option<(usize, DType)>,
    pub(super) zeros: Option<(usize, DType)>,
    pub(super) global: Option<usize>,
}

impl Tensor {
    pub(crate) fn id(&self) -> BufferId {
        self.id
    }

    /// The name that the test declared.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number format of the elements, or of the codes if the buffer is quantised.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of rows.
    pub fn rows(&self) -> i32 {
        self.shape.rows as i32
    }

    /// The number of columns.
    pub fn cols(&self) -> i32 {
        self.shape.cols as i32
    }

    /// Elements from one row to the next.
    pub fn row_stride(&self) -> i64 {
        self.shape.strides().0 as i64
    }

    /// Elements from one column to the next.
    pub fn col_stride(&self) -> i64 {
        self.shape.strides().1 as i64
    }

    /// Elements from one contiguous run to the next: the row stride, or the column stride of a transposed view. This
    /// is the leading dimension as BLAS has it.
    pub fn leading_dimension(&self) -> i64 {
        self.shape.run_stride() as i64
    }

    /// Device pointer to the first element, for a launcher. `T` follows from the binding: `DevPtr<bf16>` for bfloat16,
    /// `DevPtr<u8>` for codes of 8 bits or less.
    ///
    /// # Panics
    /// If `T` cannot hold the buffer's format: the binding and the declaration disagree.
    pub fn data<T: Element>(&self) -> DevPtr<T> {
        assert!(
            T::holds(self.dtype),
            "`{}` holds {}, which the launcher takes as {}: declare the one or bind the other differently",
            self.name,
            self.dtype,
            T::NAME
        );
        DevPtr::new(self.data)
    }

    /// Device pointer to the first scale, in the order that the buffer's scheme declares.
    ///
    /// # Panics
    /// If the buffer has no scales, or `T` cannot hold their format.
    pub fn scales<T: Element>(&self) -> DevPtr<T> {
        self.companion("scales", self.scales, "it is not declared as quantised")
    }

    /// Pointer to the first zero point.
    ///
    /// # Panics
    /// If the buffer has no zero points of its own, or `T` cannot hold their format.
    pub fn zero_points<T: Element>(&self) -> DevPtr<T> {
        self.companion("zero points", self.zeros, "its scheme has no ZeroPoint::PerCell")
    }

    /// Pointer to the tensor-wide factor of two-level scales, as it is stored.
    ///
    /// # Panics
    /// If the scales have one level.
    pub fn global_scale(&self) -> DevPtr<f32> {
        self.companion("global scale", self.global.map(|at| (at, DType::F32)), "its scales have one level")
    }

    fn companion<T: Element>(&self, what: &str, place: Option<(usize, DType)>, why_not: &str) -> DevPtr<T> {
        let Some((address, dtype)) = place else {
            panic!("`{}` ({}) has no {what}: {why_not}", self.name, self.dtype);
        };
        let powers = if dtype == DType::E8M0 && T::holds(DType::F32) {
            ": powers of two stored as float32 are declared as .scales(F32, ScaleRounding::PowerOfTwo)"
        } else {
            ""
        };
        assert!(
            T::holds(dtype),
            "the {what} of `{}` are {dtype}, which the launcher takes as {}{powers}",
            self.name,
            T::NAME
        );
        DevPtr::new(address)
    }
}

impl Operand for Tensor {
    fn expr(&self) -> Expr {
        Expr::buffer(self.id, self.shape.rows, self.shape.cols)
    }
}

/// A type that launchers use for the elements of a buffer.
pub trait Element {
    const NAME: &'static str;
    fn holds(dtype: DType) -> bool;
}

macro_rules! elements {
    ($($t:ty, $name:literal: $holds:expr,)*) => {$(
        impl Element for $t {
            const NAME: &'static str = $name;
            fn holds(dtype: DType) -> bool {
                let holds: fn(DType) -> bool = $holds;
                holds(dtype)
            }
        }
    )*};
}

elements! {
    f32, "f32": |dtype| dtype == DType::F32,
    half::f16, "f16": |dtype| dtype == DType::F16,
    half::bf16, "bf16": |dtype| dtype == DType::BF16,
    i8, "i8": |dtype| dtype == DType::I8,
    // Eight nibbles share a word.
    i32, "i32": |dtype| dtype == DType::I32 || dtype.bits() == 4,
    u16, "u16": |dtype| dtype.bits() == 16,
    u32, "u32": |dtype| dtype == DType::F32 || dtype.bits() == 4,
}

impl Element for u8 {
    const NAME: &'static str = "u8";
    /// Bytes: every format of 8 bits or less, packed where it is less.
    fn holds(dtype: DType) -> bool {
        dtype.bits() <= 8
    }
}

impl Element for std::ffi::c_void {
    const NAME: &'static str = "void";
    fn holds(_: DType) -> bool {
        true
    }
}

operators!((Expr, &Tensor), (&Tensor, Expr), (&Expr, &Tensor), (&Tensor, &Expr), (&Tensor, &Tensor));
