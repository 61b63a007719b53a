//! Annotated code that is right, in a crate that allows nothing: the expansion must not be what warns.
#![deny(warnings, missing_docs, unsafe_code, unused, trivial_casts, unreachable_pub, unused_results)]
#![deny(single_use_lifetimes)]

use accuracy_core::prelude::*;

#[kernel_library("quant_gemm")]
unsafe extern "C" {
    /// Quantises groups of 128.
    pub fn group_quant_fp8(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        // Names that the expansion might have used itself.
        entry: i32,
        status: i32,
        stream: Stream,
    ) -> Status;
    fn group_quant_fp8_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        entry: i32,
        status: i32,
        stream: Stream,
    ) -> i32;
    #[link_name = "gemm_a8w8_v2"]
    unsafe fn gemm(y: DevPtr<bf16>);
    /// Forgets what it tuned.
    pub safe fn reset_tuning();
    #[cfg(any())]
    fn compiled_out(x: Missing) -> i32;
}

// A second block of the same library.
#[kernel_library("quant_gemm")]
unsafe extern "C" {
    safe fn set_tile(tile: i32) -> i32;
}

#[cfg(test)]
const WIDE: i32 = 128;

/// Keeps its documentation.
#[accuracy_test(
    checkpoint = "shards/tiny",
    weights = { w = "model.{layer}.{part}_proj", b = "model.{layer}.bias" },
    tokens = [1, 33],
    activations = "recorded.safetensors#x",
    min_cos = 0.9995,
    seed = 7,
    known_failure(arch = "gfx942", quant = fallback, shuffle_scale = true, reason = "a \"quoted\" reason"),
    known_failure(dtype = E4M3FNUZ, tile = WIDE, mode = "b", reason = "another"),
    nondeterministic(reason = "atomics", bound = 1e-3),
)]
fn chain(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = group_quant_fp8, fallback = self::group_quant_fp8_fallback)] quant: GroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
    #[perf(64, WIDE, -1)] tile: i32,
    #[values("a", "b")] mode: &str,
    #[values(1.5)]
    #[expect(unused_variables, reason = "lints of a parameter are kept")]
    scale: f32,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    reset_tuning()?;
    set_tile(tile)?;
    let x = cx.activations()?;
    let q = cx.quantized("q", &x, Quant::group(dtype, 128))?;
    let w = cx.weight("w", dtype)?;
    let y = cx.output("y", BF16, [m, n], q.matmul(&w))?;
    if mode == "a" {
        #[expect(unsafe_code, reason = "calls launchers")]
        // SAFETY: the pointers are those of buffers with these extents.
        unsafe {
            quant(q.data(), q.scales(), x.data(), m, k, shuffle_scale, tile, tile, cx.stream())?;
            gemm(y.data())?;
        }
    }
    Ok(y)
}

#[accuracy_test]
fn without_axes(cx: &mut Case) -> Result<Tensor> {
    let x = cx.input("x", BF16, [1, 8])?;
    cx.output("y", BF16, [1, 8], &x)
}

#[accuracy_test]
#[cfg(any())]
fn compiled_out_test(cx: &mut Case) -> Result<Tensor> {
    missing(cx)
}
