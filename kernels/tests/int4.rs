//! Weight-only int4: bfloat16 activations times weights in groups, as three producers pack them.

use accuracy_core::prelude::*;
use kernels::*;

/// `n` rows and `k` columns of the weight, which its producer has packed like that.
fn weight_only(
    cx: &mut Case,
    gemm: GemmA16w4,
    packing: Int4Packing,
    (n, k): (usize, usize),
) -> Result<Tensor> {
    let (group, scale) = match packing {
        Int4Packing::Awq => (32, F16),
        Int4Packing::CompressedTensors => (64, BF16),
        Int4Packing::Gptq => (128, F16),
    };
    let int4 = Quant::group(UINT4, group).scales(scale, ScaleRounding::Nearest);
    let packed = match packing {
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
        // Words of eight columns, those of all rows one after the other.
        Int4Packing::Gptq => int4
            .data_layout(DataLayout::Preshuffle { rows: n, block: 8, vector: 8 })
            .layout(ColMajor)
            .zero_point(ZeroPoint::Fixed(8)),
    };
    let m = cx.tokens();
    let x = cx.input("x", BF16, [m, k as i32])?;
    let w = cx.weight("w", WeightForm::from(packed).rows(0..n).columns(0..k))?;
    let (n, k) = (w.rows(), w.cols());
    let y = cx.output("y", BF16, [m, n], x.matmul(&w))?;
    let zeros = if packing == Int4Packing::Gptq { DevPtr::null() } else { w.zero_points() };
    let (group, packing) = (group as i32, packing as i32);
    // SAFETY: every buffer has the shape and packing that are passed with it.
    unsafe { gemm(y.data(), x.data(), w.data(), w.scales(), zeros, m, n, k, group, packing, cx.stream())? };
    Ok(y)
}

#[accuracy_test(
    checkpoint = "shards/minilm-int4-awq",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn awq(
    cx: &mut Case,
    #[paths(primary = gemm_a16w4, fallback = gemm_a16w4_fallback)] gemm: GemmA16w4,
    #[values(file = "tests/a16w4_shapes.csv", columns = ["n", "k"])] shape: (usize, usize),
) -> Result<Tensor> {
    weight_only(cx, gemm, Int4Packing::Awq, shape)
}

#[accuracy_test(
    checkpoint = "shards/minilm-int4-gptq",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn gptq(
    cx: &mut Case,
    #[paths(primary = gemm_a16w4, fallback = gemm_a16w4_fallback)] gemm: GemmA16w4,
    #[values(file = "tests/a16w4_shapes.csv", columns = ["n", "k"])] shape: (usize, usize),
) -> Result<Tensor> {
    weight_only(cx, gemm, Int4Packing::Gptq, shape)
}

#[accuracy_test(
    checkpoint = "shards/minilm-int4-pack",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [1, 33],
)]
fn compressed_tensors(
    cx: &mut Case,
    #[paths(primary = gemm_a16w4, fallback = gemm_a16w4_fallback)] gemm: GemmA16w4,
    #[values(file = "tests/a16w4_shapes.csv", columns = ["n", "k"])] shape: (usize, usize),
) -> Result<Tensor> {
    weight_only(cx, gemm, Int4Packing::CompressedTensors, shape)
}
