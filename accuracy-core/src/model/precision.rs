//! The formats in which an engine keeps intermediate values.

use crate::reference::Matrix;
use half::{bf16, f16};

/// Where intermediate values are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Exact,
    BF16,
    F16,
    F32,
}

impl Precision {
    /// To the nearest, ties to even; overflow is infinite.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Precision::Exact => x,
            Precision::F32 => f64::from(x as f32),
            Precision::BF16 => bf16::from_f64(x).to_f64(),
            Precision::F16 => f16::from_f64(x).to_f64(),
        }
    }

    /// Largest relative error of one rounding of a normal number.
    pub fn unit(self) -> f64 {
        match self {
            Precision::Exact => 0.0,
            Precision::F32 => 2f64.powi(-24),
            Precision::BF16 => 2f64.powi(-9),
            Precision::F16 => 2f64.powi(-12),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Precision::Exact => "f64",
            Precision::BF16 => "bf16",
            Precision::F16 => "f16",
            Precision::F32 => "f32",
        }
    }

    pub fn apply(self, mut m: Matrix) -> Matrix {
        if self != Precision::Exact {
            m.data.iter_mut().for_each(|x| *x = self.round(*x));
        }
        m
    }
}
