//! FP8 chains: group-quantised activations times block-scaled weights.

use accuracy_core::prelude::*;
use kernels::*;

/// Scales of 1x128 activation groups, as the quantisers of this crate write them.
fn groups(dtype: DType, shuffle_scale: bool) -> Quant {
    Quant::group(dtype, 128).amax_floor(1e-10).layout(if shuffle_scale { ColMajor } else { RowMajor })
}

/// Quantise, then multiply with a DeepSeek-style weight.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33, 128],
)]
fn blockscale(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = group_quant_fp8, fallback = group_quant_fp8_fallback)] quant: GroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let format = format_code(dtype)?;
    let x = cx.activations()?;
    let w = cx.weight("w", dtype)?;
    let xq = cx.quantized("xq", &x, groups(dtype, shuffle_scale))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, format, shuffle_scale, cx.stream())?;
        gemm_a8w8_blockscale(
            y.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// RMSNorm fused with the quantiser, then the up projection.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = {
        w = "encoder.layer.{layer}.intermediate.dense",
        gain = "encoder.layer.{layer}.attention.output.LayerNorm.weight",
    },
    tokens = [1, 33],
)]
fn rmsnorm(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = rmsnorm_group_quant_fp8, fallback = rmsnorm_group_quant_fp8_fallback)]
    norm_quant: RmsnormGroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let eps = 1e-6_f32;
    let (m, n, k) = cx.shape()?;
    let format = format_code(dtype)?;
    let x = cx.activations()?;
    let gain = cx.vector("gain", BF16)?;
    let w = cx.weight("w", dtype)?;
    let hq = cx.quantized("hq", rms_norm(&x, &gain, eps.into()), groups(dtype, shuffle_scale))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        norm_quant(
            hq.data(),
            hq.scales(),
            x.data(),
            gain.data(),
            eps,
            m,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
        gemm_a8w8_blockscale(
            y.data(),
            hq.data(),
            hq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// The residual is updated in place before it is normalised and quantised.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = {
        w = "encoder.layer.{layer}.intermediate.dense",
        gain = "encoder.layer.{layer}.attention.output.LayerNorm.weight",
    },
    tokens = [33],
)]
fn add_rmsnorm(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = add_rmsnorm_group_quant_fp8, fallback = add_rmsnorm_group_quant_fp8_fallback)]
    norm_quant: AddRmsnormGroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let eps = 1e-6_f32;
    let (m, n, k) = cx.shape()?;
    let format = format_code(dtype)?;
    let x = cx.activations()?;
    let gain = cx.vector("gain", BF16)?;
    let w = cx.weight("w", dtype)?;
    let residual = cx.inout("residual", BF16, [m, k])?;
    let sum = cx.update(&residual, &residual + &x)?;
    let hq = cx.quantized("hq", rms_norm(&sum, &gain, eps.into()), groups(dtype, shuffle_scale))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        norm_quant(
            hq.data(),
            hq.scales(),
            residual.data(),
            x.data(),
            gain.data(),
            eps,
            m,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
        gemm_a8w8_blockscale(
            y.data(),
            hq.data(),
            hq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// SwiGLU fused with the quantiser, then the down projection.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.output.dense" },
    tokens = [1, 33],
)]
fn swiglu(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = swiglu_group_quant_fp8, fallback = swiglu_group_quant_fp8_fallback)]
    act_quant: SwigluGroupQuantFp8,
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let format = format_code(dtype)?;
    let gate_up = cx.input("gate_up", BF16, [m, 2 * k])?;
    let w = cx.weight("w", dtype)?;
    let (gate, up) = (gate_up.columns(0..k as usize), gate_up.columns(k as usize..2 * k as usize));
    let hq = cx.quantized("hq", silu(&gate) * up, groups(dtype, shuffle_scale))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        act_quant(hq.data(), hq.scales(), gate_up.data(), m, k, format, shuffle_scale, cx.stream())?;
        gemm_a8w8_blockscale(
            y.data(),
            hq.data(),
            hq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// The weight preshuffled, as aiter's kernels for the matrix cores take it.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33],
)]
fn bpreshuffle(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = group_quant_fp8, fallback = group_quant_fp8_fallback)] quant: GroupQuantFp8,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let (format, shuffle_scale) = (format_code(dtype)?, true);
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(dtype).data_layout(DataLayout::PRESHUFFLE_16X16))?;
    let xq = cx.quantized("xq", &x, groups(dtype, shuffle_scale))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, format, shuffle_scale, cx.stream())?;
        gemm_a8w8_blockscale_bpreshuffle(
            y.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            shuffle_scale,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// A scale for each token and output channel.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-token",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn per_token(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = token_quant_fp8, fallback = token_quant_fp8_fallback)] quant: TokenQuantFp8,
    #[values(false, true)] preshuffled: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let format = format_code(dtype)?;
    let x = cx.activations()?;
    let order = if preshuffled { DataLayout::PRESHUFFLE_16X16 } else { DataLayout::RowMajor };
    let w = cx.weight("w", WeightForm::from(dtype).data_layout(order))?;
    let xq = cx.quantized("xq", &x, Quant::token(dtype).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), m, k, format, cx.stream())?;
        gemm_a8w8_fp8(
            y.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            m,
            n,
            k,
            format,
            preshuffled,
            cx.stream(),
        )?;
    }
    Ok(y)
}

/// DeepGEMM's scales: columns aligned to 16 bytes and, with `ue8m0`, powers of two of each row packed into words, of
/// which three groups do not fill one.
#[accuracy_test(
    checkpoint = "shards/minilm-fp8-block",
    weights = { w = "encoder.layer.{layer}.{part}.dense" },
    tokens = [1, 33],
    known_failure(arch = "gfx942", reason = "DeepGEMM's formats are the OCP ones, which gfx942 does not decode"),
)]
fn deep_gemm(
    cx: &mut Case,
    #[variants(E4M3FN)] dtype: DType,
    #[paths(primary = per_token_cast_to_fp8, fallback = per_token_cast_to_fp8_fallback)]
    cast: PerTokenCastToFp8,
    #[values(false, true)] ue8m0: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let x = cx.activations()?;
    let of_rows = Quant::group(dtype, 128).amax_floor(1e-4);
    let packed = of_rows.scales(E8M0, ScaleRounding::Ceil).layout(ScaleLayout::PackedWords);
    let w = cx.weight("w", if ue8m0 { packed.into() } else { WeightForm::from(dtype) })?;
    let xq = if ue8m0 { packed } else { of_rows.layout(ScaleLayout::ColMajorAligned4) };
    let xq = cx.quantized("xq", &x, xq)?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        cast(xq.data(), xq.scales(), x.data(), m, k, ue8m0, cx.stream())?;
        fp8_gemm_nt(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, ue8m0, cx.stream())?;
    }
    Ok(y)
}
