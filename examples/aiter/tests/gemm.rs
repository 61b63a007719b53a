//! Matrix products and routers of AITER, each as a chain: quantised by a kernel of `kernels` or by the framework, then
//! multiplied. At the end are declarations that do not fit their kernel, which have to fail.

use accuracy_core::device::emulation;
use accuracy_core::prelude::*;
use aiter_kernels::gemm::{self, Mxfp4, Scaled, Size};
use kernels::{dynamic_mxfp4_quant, format_code, group_quant_fp8, rounding_code, token_quant_int8};
use model::{topk_experts, topk_weights};

/// Scales of 1x32 groups in the order of the matrix cores.
fn mxfp4() -> Quant {
    Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle)
}

fn preshuffled_mxfp4() -> Quant {
    mxfp4().data_layout(DataLayout::PRESHUFFLE_16X16_4BIT)
}

fn codes_and_scales(of: &Tensor) -> Mxfp4 {
    Mxfp4 { codes: of.data(), scales: of.scales() }
}

fn scaled(of: &Tensor) -> Scaled {
    Scaled { codes: of.data(), scales: of.scales() }
}

/// `y = x wᵀ` by one of AITER's MXFP4 kernels, on operands that are quantised as `x_scheme` and `w_scheme` say.
fn f4gemm_of(cx: &mut Case, kernel: &str, (x_scheme, w_scheme): (Quant, Quant), k: i32) -> Result<Tensor> {
    let kernel = gemm::f4gemm(kernel)?;
    let (m, n) = (cx.tokens(), kernel.tile.n);
    let x = cx.input_quantized("x", x_scheme, [m, k])?;
    let w = cx.input_quantized("w", w_scheme, [n, k])?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let size = Size { m, n, k };
        kernel.launch(y.data(), codes_and_scales(&x), codes_and_scales(&w), size, 0, cx.stream())?;
    }
    Ok(y)
}

/// Every kernel, on a tile that is not full and, of the small ones, on two tiles.
#[accuracy_test(
    tokens = [1, 37],
    archs = ["gfx950"],
)]
fn f4gemm(cx: &mut Case, #[perf(file = "f4gemm.csv", column = "name")] kernel: &str) -> Result<Tensor> {
    f4gemm_of(cx, kernel, (mxfp4(), preshuffled_mxfp4()), 512)
}

/// The kernel whose weight is not preshuffled. It writes whole tiles of 256 rows, whatever M is.
#[accuracy_test(
    tokens = [256],
    archs = ["gfx950"],
)]
fn f4gemm_plain(cx: &mut Case) -> Result<Tensor> {
    let (m, n, k) = (cx.tokens(), 256, 512);
    let x = cx.input_quantized("x", mxfp4(), [m, k])?;
    let w = cx.input_quantized("w", mxfp4(), [n, k])?;
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let size = Size { m, n, k };
        gemm::f4gemm_of_plain_weight(
            y.data(),
            codes_and_scales(&x),
            codes_and_scales(&w),
            size,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// From bf16 activations on, with a weight of a real model; N is no multiple of 256 rows of scales.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [1, 33],
    archs = ["gfx950"],
)]
fn f4gemm_chain(
    cx: &mut Case,
    #[perf("f4gemm_32x128", "f4gemm_64x384", "f4gemm_128x128")] kernel: &str,
) -> Result<Tensor> {
    let kernel = gemm::f4gemm(kernel)?;
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", preshuffled_mxfp4())?;
    let xq = cx.quantized("xq", &x, mxfp4())?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let rounding = rounding_code(ScaleRounding::Even)?;
        dynamic_mxfp4_quant(xq.data(), xq.scales(), x.data(), m, k, rounding, true, cx.stream())?;
        let size = Size { m, n, k };
        kernel.launch(y.data(), codes_and_scales(&xq), codes_and_scales(&w), size, 0, cx.stream())?;
    }
    Ok(y)
}

/// Two blocks share the depth; each adds what it has, rounded to bf16, to what the output holds.
#[accuracy_test(
    tokens = [37],
    nondeterministic(reason = "blocks add to the output in the order in which they end", bound = 1e-2),
    archs = ["gfx950"],
)]
fn f4gemm_split(cx: &mut Case, #[perf("f4gemm_128x512", "f4gemm_256x256")] kernel: &str) -> Result<Tensor> {
    let kernel = gemm::f4gemm(kernel)?;
    let (m, n, k) = (cx.tokens(), kernel.tile.n, 1024);
    let x = cx.input_quantized("x", mxfp4(), [m, k])?;
    let w = cx.input_quantized("w", preshuffled_mxfp4(), [n, k])?;
    let before = cx.inout("y", BF16, [m, n])?;
    let half =
        |columns: std::ops::Range<usize>| x.columns(columns.clone()).matmul(&w.columns(columns)).round(BF16);
    let k_half = k as usize / 2;
    let first = (&before + half(0..k_half)).round(BF16);
    let y = cx.update(&before, first + half(k_half..k as usize))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let size = Size { m, n, k };
        kernel.launch(y.data(), codes_and_scales(&x), codes_and_scales(&w), size, 1, cx.stream())?;
    }
    Ok(y)
}

/// How the waves of a workgroup take turns on the emulator.
#[derive(Clone, Copy, PartialEq)]
enum Waves {
    InStep,
    UpToABarrier,
}

/// FP8 with scales of 1x128 groups, column-major, and of 128x128 blocks. The kernels read scales of whole tiles of 256
/// output features: a multiple of 256 of them is taken.
fn mi350(cx: &mut Case, dtype: DType, kernel: &str, waves: Waves) -> Result<Tensor> {
    let kernel = gemm::mi350(kernel)?;
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let tiles = WeightForm::from(dtype).data_layout(DataLayout::PRESHUFFLE_16X16);
    let w = cx.weight("w", tiles.rows(0..256))?;
    let n = w.rows();
    let scheme = Quant::group(dtype, 128).amax_floor(1e-10).layout(ColMajor);
    // Our quantiser has the formats of the architecture alone; the framework's has all.
    let ours = cx.arch().native(dtype);
    let xq = if ours { cx.quantized("xq", &x, scheme)? } else { cx.input_quantized("xq", scheme, [m, k])? };
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        if ours {
            let format = format_code(dtype)?;
            group_quant_fp8(xq.data(), xq.scales(), x.data(), m, k, format, true, cx.stream())?;
        }
        let launch = || kernel.launch(y.data(), scaled(&xq), scaled(&w), Size { m, n, k }, cx.stream());
        if waves == Waves::InStep { emulation::in_step(launch)? } else { launch()? }
    }
    Ok(y)
}

/// Waves keep in step, as a device's nearly do: see the next test.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [16, 33, 130],
    archs = ["gfx950"],
)]
fn blockscale_mi350(
    cx: &mut Case,
    #[variants(E4M3FN)] dtype: DType,
    #[perf("blockscale_mi350_x32", "blockscale_mi350_x64", "blockscale_mi350_x96", "blockscale_mi350_x128")]
    kernel: &str,
) -> Result<Tensor> {
    mi350(cx, dtype, kernel, Waves::InStep)
}

/// The epilogue writes to LDS what other waves may not have read yet: there is no barrier in between. It shows where a
/// wave runs up to a barrier.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [130],
    archs = ["gfx950"],
    known_failure(arch = "gfx950", reason = "a race: the epilogue overwrites a tile that other waves still read"),
)]
fn blockscale_mi350_waves_apart(
    cx: &mut Case,
    #[variants(E4M3FN)] dtype: DType,
    #[perf("blockscale_mi350_x32", "blockscale_mi350_x64", "blockscale_mi350_x96", "blockscale_mi350_x128")]
    kernel: &str,
) -> Result<Tensor> {
    mi350(cx, dtype, kernel, Waves::UpToABarrier)
}

/// The same on gfx942, with the scales of the weight column-major. K is a multiple of 256: with one of 128 the kernel
/// reads a step behind the activations.
fn flatmm(cx: &mut Case, dtype: DType) -> Result<Tensor> {
    /// Tiles whose columns are cut into runs of 16 bytes, four of them side by side.
    const TILES: DataLayout = DataLayout::Preshuffle { rows: 16, block: 64, vector: 16 };
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(dtype).layout(ColMajor).data_layout(TILES).rows(0..256))?;
    let n = w.rows();
    let scheme = Quant::group(dtype, 128).amax_floor(1e-10).layout(ColMajor);
    let ours = cx.arch().native(dtype);
    let xq = if ours { cx.quantized("xq", &x, scheme)? } else { cx.input_quantized("xq", scheme, [m, k])? };
    let y = cx.output("y", F16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        if ours {
            let format = format_code(dtype)?;
            group_quant_fp8(xq.data(), xq.scales(), x.data(), m, k, format, true, cx.stream())?;
        }
        gemm::blockscale_flatmm(y.data(), scaled(&xq), scaled(&w), Size { m, n, k }, cx.stream())?;
    }
    Ok(y)
}

/// Whole tiles of M alone: see the next test.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [128],
    archs = ["gfx942"],
)]
fn blockscale_flatmm(cx: &mut Case, #[variants(E4M3FNUZ)] dtype: DType) -> Result<Tensor> {
    flatmm(cx, dtype)
}

/// The kernel reads activation scales of whole tiles of 128 rows, behind the end of what its launcher is given.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [33],
    archs = ["gfx942"],
    known_failure(arch = "gfx942", reason = "scales are read behind their end where M is no multiple of 128"),
)]
fn blockscale_flatmm_tail(cx: &mut Case, #[variants(E4M3FNUZ)] dtype: DType) -> Result<Tensor> {
    flatmm(cx, dtype)
}

/// A scale for each token and each output channel, and a bias.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-int8-channel",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33, 130],
    archs = ["gfx942"],
)]
fn i8gemm(cx: &mut Case, #[perf("i8gemm_128x128", "i8gemm_192x128")] kernel: &str) -> Result<Tensor> {
    let kernel = gemm::i8gemm(kernel)?;
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(INT8).data_layout(DataLayout::PRESHUFFLE_32X16))?;
    let bias = cx.input("bias", F32, [1, n])?;
    let xq = cx.quantized("xq", &x, Quant::token(INT8).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w) + &bias)?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        token_quant_int8(xq.data(), xq.scales(), x.data(), m, k, cx.stream())?;
        let (x, w) = (
            Scaled { codes: xq.data(), scales: xq.scales() },
            Scaled { codes: w.data(), scales: w.scales() },
        );
        kernel.launch(y.data(), x, w, bias.data(), Size { m, n, k }, cx.stream())?;
    }
    Ok(y)
}

/// bf16 operands, a float32 output.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33],
    archs = ["gfx942", "gfx950"],
)]
fn bf16gemm(
    cx: &mut Case,
    #[perf("bf16gemm_32x64", "bf16gemm_48x64", "bf16gemm_64x64", "bf16gemm_96x64")] kernel: &str,
) -> Result<Tensor> {
    let kernel = gemm::bf16gemm(kernel)?;
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let y = cx.output("y", F32, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe { kernel.launch(y.data(), x.data(), w.data(), Size { m, n, k }, 1, cx.stream())? };
    Ok(y)
}

/// Blocks that share the depth add to what the output holds.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [33],
    archs = ["gfx942", "gfx950"],
    nondeterministic(reason = "blocks add to the output in the order in which they end", bound = 1e-5),
)]
fn bf16gemm_split(
    cx: &mut Case,
    #[perf("bf16gemm_32x64", "bf16gemm_96x64")] kernel: &str,
    #[perf(2, 4)] parts: i32,
) -> Result<Tensor> {
    let kernel = gemm::bf16gemm(kernel)?;
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", BF16)?;
    let before = cx.inout("y", F32, [m, n])?;
    let y = cx.update(&before, &before + x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe { kernel.launch(y.data(), x.data(), w.data(), Size { m, n, k }, parts, cx.stream())? };
    Ok(y)
}

/// The eight routers. Their last block has one token.
#[accuracy_test(
    tokens = [1, 33],
    archs = ["gfx942"],
)]
fn topksoftmax(
    cx: &mut Case,
    #[perf(
        "topksoftmax_4x128x6",
        "topksoftmax_4x128x8",
        "topksoftmax_4x256x6",
        "topksoftmax_4x256x8",
        "topksoftmax_12x128x6",
        "topksoftmax_12x128x8",
        "topksoftmax_12x256x6",
        "topksoftmax_12x256x8"
    )]
    kernel: &str,
    #[values(false, true)] renormalize: bool,
) -> Result<Tensor> {
    let kernel = gemm::topksoftmax(kernel)?;
    let (m, topk) = (cx.tokens(), kernel.topk as usize);
    let logits = cx.input("logits", F32, [m, kernel.experts])?;
    let ids = cx.output("ids", INT32, [m, kernel.topk], topk_experts(&logits, topk))?;
    let weights = cx.output("weights", F32, [m, kernel.topk], topk_weights(&logits, topk, renormalize))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe { kernel.launch(ids.data(), weights.data(), logits.data(), m, renormalize, cx.stream())? };
    Ok(weights)
}

/// The activation scales lie as a plain matrix, the kernel reads them in the order of the matrix cores.
#[accuracy_test(
    tokens = [37],
    archs = ["gfx950"],
    known_failure(reason = "the declaration is wrong on purpose: scales are plain where the kernel wants them shuffled"),
)]
fn wrong_plain_scales(cx: &mut Case) -> Result<Tensor> {
    let plain = mxfp4().layout(RowMajor);
    f4gemm_of(cx, "f4gemm_32x128", (plain, preshuffled_mxfp4()), 512)
}

/// The weight lies as a plain matrix, the kernel reads tiles of it.
#[accuracy_test(
    tokens = [37],
    archs = ["gfx950"],
    known_failure(reason = "the declaration is wrong on purpose: the weight is not preshuffled"),
)]
fn wrong_plain_weight(cx: &mut Case) -> Result<Tensor> {
    f4gemm_of(cx, "f4gemm_32x128", (mxfp4(), mxfp4()), 512)
}

/// K is no multiple of 256 columns.
#[accuracy_test(
    tokens = [37],
    archs = ["gfx950"],
    known_failure(reason = "the declaration is wrong on purpose: the kernel takes multiples of 256 columns"),
)]
fn wrong_tail_of_k(cx: &mut Case) -> Result<Tensor> {
    f4gemm_of(cx, "f4gemm_32x128", (mxfp4(), preshuffled_mxfp4()), 384)
}

/// Codes that gfx950 does not decode: each is read as twice what it stands for.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [33],
    archs = ["gfx950"],
    known_failure(reason = "the declaration is wrong on purpose: e4m3fnuz where the kernel reads e4m3fn"),
)]
fn wrong_fnuz(cx: &mut Case) -> Result<Tensor> {
    mi350(cx, E4M3FNUZ, "blockscale_mi350_x128", Waves::InStep)
}

/// Codes that gfx942 does not decode.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [128],
    archs = ["gfx942"],
    known_failure(reason = "the declaration is wrong on purpose: e4m3fn where the kernel reads e4m3fnuz"),
)]
fn wrong_fn(cx: &mut Case) -> Result<Tensor> {
    flatmm(cx, E4M3FN)
}
