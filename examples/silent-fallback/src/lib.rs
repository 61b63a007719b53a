//! A kernel crate with a planted bug: `group_quant_fp8_fallback` accepts `shuffle_scale` and ignores it.
//!
//! Each kernel is right by itself, on the data that its author tried. `cargo accuracy -p silent-fallback` runs the
//! chain of quantiser and GEMM on both paths and shows what breaks.

use accuracy_core::prelude::*;

#[kernel_library("silent_fallback")]
unsafe extern "C" {
    /// Quantises `x [m, k]` in groups of 128; `shuffle_scale` writes the scales column-major.
    pub fn group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// For devices without the wave kernel.
    pub fn group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with 1x128 scales of `x` and 128x128 scales of `w`.
    pub fn gemm_a8w8_blockscale(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        shuffle_scale: bool,
        stream: Stream,
    ) -> Status;
}
