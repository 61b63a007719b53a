//! NVFP4: scales of two levels, those of groups in tiles of 128x4.

use accuracy_core::prelude::*;
use kernels::*;

/// 592 output features are no multiple of 128 rows, 22 groups none of 4: the tiles of scales have padding.
#[accuracy_test(
    checkpoint = "shards/minilm-nvfp4",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn gemm(
    cx: &mut Case,
    #[paths(primary = nvfp4_quant, fallback = nvfp4_quant_fallback)] quant: Nvfp4Quant,
    #[values(false, true)] is_sf_swizzled: bool,
) -> Result<Tensor> {
    let (m, n, k) = cx.shape()?;
    let nvfp4 = Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest).two_level(GlobalScale::Divide);
    let x = cx.activations()?;
    let w = cx.weight("w", nvfp4.layout(ScaleLayout::Swizzle128x4))?;
    let layout = if is_sf_swizzled { ScaleLayout::Swizzle128x4 } else { RowMajor };
    let xq = cx.quantized("xq", &x, nvfp4.layout(layout))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        quant(xq.data(), xq.scales(), x.data(), xq.global_scale(), m, k, is_sf_swizzled, cx.stream())?;
        gemm_nvfp4(
            y.data(),
            xq.data(),
            xq.scales(),
            xq.global_scale(),
            w.data(),
            w.scales(),
            w.global_scale(),
            m,
            n,
            k,
            is_sf_swizzled,
            cx.stream(),
        )?;
    }
    Ok(y)
}
