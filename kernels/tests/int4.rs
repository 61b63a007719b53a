//! Weight-only int4 with zero points: bfloat16 activations times weights in groups, in two packings.

use accuracy_core::prelude::*;
use kernels::*;

fn packed(packing: Int4Packing, group: usize) -> Quant {
    let int4 = Quant::group(UINT4, group).scales(BF16, ScaleRounding::Nearest);
    match packing {
        Int4Packing::Awq => {
            let (dtype, layout, nibbles) = (UINT4, ColMajor, NibbleOrder::Awq);
            int4.data_layout(DataLayout::ColMajor)
                .nibbles(nibbles)
                .layout(layout)
                .zero_point(ZeroPoint::PerCell { dtype, layout, nibbles })
        }
        Int4Packing::CompressedTensors => {
            int4.zero_point(ZeroPoint::per_cell(UINT4, ScaleLayout::Tile { rows: 8, groups: 1 }))
        }
    }
}

#[accuracy_test(
    checkpoint = "shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn weight_only(
    cx: &mut Case,
    #[paths(primary = gemm_a16w4, fallback = gemm_a16w4_fallback)] gemm: GemmA16w4,
    #[values(Int4Packing::Awq, Int4Packing::CompressedTensors)] packing: Int4Packing,
    #[values(file = "tests/a16w4_shapes.csv", columns = ["n", "group"])] shape: (usize, usize),
) -> Result<Tensor> {
    let (n, group) = shape;
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(packed(packing, group)).rows(0..n))?;
    let n = w.rows();
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape and packing that are passed with it.
    unsafe {
        gemm(
            y.data(),
            x.data(),
            w.data(),
            w.scales(),
            w.zero_points(),
            m,
            n,
            k,
            group as i32,
            packing as i32,
            cx.stream(),
        )?;
    }
    Ok(y)
}
