//! Every variant of every chain is a case. Most of them fail, as they should.

use accuracy_core::prelude::*;
use bug_zoo::*;
use model::{cos_sin_table, paged_attention, rope, topk_experts, topk_weights, weighted_sum, write_rows};

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn fp8(cx: &mut Case, #[perf(file = "zoo/fp8.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("fp8", kernels)?;
    fp8_chain(cx, &kernels, (fp8_quantise, kernels.number), kernels.is("shuffle_scale"))
}

/// The planted bug of a silent fallback: a parameter that is accepted and ignored.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn silent_scale(
    cx: &mut Case,
    #[paths(
        right = (fp8_quantise, "right"),
        multiplies_by_the_reciprocal = (fp8_quantise_fallback, "multiplies_by_the_reciprocal"),
        scales_written_row_major = (fp8_quantise_fallback, "scales_written_row_major"),
        scales_written_column_major = (fp8_quantise_fallback, "scales_written_column_major"),
    )]
    quantise: (Fp8Quantise, &str),
    #[values(false, true)] shuffle_scale: bool,
) -> Result<Tensor> {
    let right = variant("fp8", "right")?;
    let number = variant("fp8", quantise.1)?.number;
    fp8_chain(cx, &right, (quantise.0, number), shuffle_scale)
}

/// 400 output features are no multiple of 128 nor of 64.
fn fp8_chain(
    cx: &mut Case,
    kernels: &Variant,
    (quantise, number): (Fp8Quantise, i32),
    shuffle_scale: bool,
) -> Result<Tensor> {
    let dtype = if kernels.is("fnuz") { E4M3FNUZ } else { E4M3FN };
    let order = if shuffle_scale { ColMajor } else { RowMajor };
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let tiles = if kernels.is("preshuffled") { DataLayout::PRESHUFFLE_16X16 } else { DataLayout::RowMajor };
    let w =
        cx.weight("w", WeightForm::from(Quant::block(dtype, 128, 128)).data_layout(tiles).rows(0..400))?;
    let n = w.rows();
    let xq = cx.quantized("xq", &x, Quant::group(dtype, 128).amax_floor(1e-10).layout(order))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    let (xs, ws) = (xq.scales(), w.scales());
    // SAFETY: every buffer has the shape that is passed with it. Some variants leave it on purpose, into bands.
    unsafe {
        quantise(xq.data(), xs, x.data(), m, k, shuffle_scale, number, cx.stream())?;
        fp8_multiply(
            y.data(),
            xq.data(),
            xs,
            w.data(),
            ws,
            m,
            n,
            k,
            shuffle_scale,
            kernels.number,
            cx.stream(),
        )?;
    }
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn int8(cx: &mut Case, #[perf(file = "zoo/int8.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let v = variant("int8", kernels)?.number;
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(Quant::channel(INT8)).rows(0..400))?;
    let n = w.rows();
    let xq = cx.quantized("xq", &x, Quant::token(INT8).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        int8_quantise(xq.data(), xq.scales(), x.data(), m, k, v, cx.stream())?;
        int8_multiply(y.data(), xq.data(), xq.scales(), w.data(), w.scales(), m, n, k, v, cx.stream())?;
    }
    Ok(y)
}

/// 400 output features are no multiple of 256 rows, 12 groups none of 8: both scale buffers have padding.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn mxfp4(cx: &mut Case, #[perf(file = "zoo/mxfp4.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("mxfp4", kernels)?;
    let (rule, code) = match (kernels.is("floor"), kernels.is("ceil")) {
        (true, _) => (ScaleRounding::Floor, 0),
        (_, true) => (ScaleRounding::Ceil, 1),
        _ => (ScaleRounding::Even, 2),
    };
    let shuffle_scale = kernels.is("shuffle_scale");
    let (m, _, k) = cx.shape()?;
    let group = Quant::group(E2M1, 32);
    let swizzled = group.scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle);
    let x = cx.activations()?;
    let tiles = swizzled.data_layout(DataLayout::PRESHUFFLE_16X16_4BIT);
    let w = cx.weight("w", WeightForm::from(tiles).rows(0..400))?;
    let n = w.rows();
    let layout = if shuffle_scale { ScaleLayout::E8m0Shuffle } else { RowMajor };
    let xq = cx.quantized("xq", &x, group.scales(E8M0, rule).layout(layout))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w))?;
    let (xs, ws, v) = (xq.scales(), w.scales(), kernels.number);
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        mxfp4_quantise(xq.data(), xs, x.data(), m, k, code, shuffle_scale, v, cx.stream())?;
        mxfp4_multiply(y.data(), xq.data(), xs, w.data(), ws, m, n, k, shuffle_scale, v, cx.stream())?;
    }
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn int4(cx: &mut Case, #[perf(file = "zoo/int4.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("int4", kernels)?;
    let int4 = Quant::group(UINT4, 128).scales(BF16, ScaleRounding::Nearest);
    let (packing, scheme) = if kernels.is("awq") {
        let (dtype, layout, nibbles) = (UINT4, ColMajor, NibbleOrder::Awq);
        let int4 = int4.data_layout(DataLayout::ColMajor).nibbles(nibbles).layout(layout);
        (0, int4.zero_point(ZeroPoint::PerCell { dtype, layout, nibbles }))
    } else {
        (1, int4.zero_point(ZeroPoint::per_cell(UINT4, ScaleLayout::Tile { rows: 8, groups: 1 })))
    };
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(scheme).rows(0..400))?;
    let n = w.rows();
    let product = if kernels.is("rounded") { x.matmul(&w.round(BF16)) } else { x.matmul(&w) };
    let y = cx.output("y", BF16, [m, n], product)?;
    let (zeros, v) = (w.zero_points(), kernels.number);
    // SAFETY: every buffer has the shape and packing that are passed with it.
    unsafe {
        int4_multiply(y.data(), x.data(), w.data(), w.scales(), zeros, m, n, k, 128, packing, v, cx.stream())?
    };
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn bf16_gemm(cx: &mut Case, #[perf(file = "zoo/bf16.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("bf16_gemm", kernels)?;
    let multiply = (bf16_multiply as Bf16Multiply, kernels.number);
    bf16_chain(cx, multiply, kernels.is("plain"), kernels.is("transposed"))
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
)]
fn silent_transpose(
    cx: &mut Case,
    #[paths(
        right = (bf16_multiply, "right"),
        split_k_in_float32 = (bf16_multiply_fallback, "split_k_in_float32"),
        transpose_ignored = (bf16_multiply_fallback, "transpose_ignored"),
        activations_read_transposed = (bf16_multiply_fallback, "activations_read_transposed"),
    )]
    multiply: (Bf16Multiply, &str),
    #[values(false, true)] transpose_x: bool,
) -> Result<Tensor> {
    let number = variant("bf16_gemm", multiply.1)?.number;
    bf16_chain(cx, (multiply.0, number), true, transpose_x)
}

/// Without `plain` there is a factor of two. Rows of the output, and of activations that are not stored transposed,
/// have gaps between them.
fn bf16_chain(
    cx: &mut Case,
    (multiply, number): (Bf16Multiply, i32),
    plain: bool,
    transpose_x: bool,
) -> Result<Tensor> {
    let (m, _, k) = cx.shape()?;
    let shape = Shape::from([m, k]);
    let shape = if transpose_x { shape.transposed() } else { shape.row_stride(i64::from(k) + 8) };
    let x = cx.input("x", BF16, shape)?;
    let w = cx.weight("w", WeightForm::from(BF16).rows(0..400))?;
    let n = w.rows();
    let product = if plain { x.matmul(&w) } else { x.matmul(&w).scale(2.0) };
    let y = cx.output("y", BF16, Shape::from([m, n]).row_stride(i64::from(n) + 8), product)?;
    let (ldy, ldx, alpha) = (y.leading_dimension(), x.leading_dimension(), if plain { 1.0 } else { 2.0 });
    // SAFETY: every buffer has the shape and the strides that are passed with it.
    unsafe {
        multiply(y.data(), ldy, x.data(), ldx, w.data(), m, n, k, alpha, transpose_x, number, cx.stream())?;
    }
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [33],
    nondeterministic(reason = "parts of K are added by atomics", bound = 1e-5),
)]
fn atomics(
    cx: &mut Case,
    #[perf(file = "zoo/atomics.csv", column = "name")] kernels: &str,
) -> Result<Tensor> {
    let v = variant("atomics", kernels)?.number;
    let (m, _, k) = cx.shape()?;
    let x = cx.activations()?;
    let w = cx.weight("w", WeightForm::from(BF16).rows(0..400))?;
    let n = w.rows();
    let y = cx.output("y", F32, [m, n], x.matmul(&w))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe { atomics_multiply(y.data(), x.data(), w.data(), m, n, k, v, cx.stream())? };
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.attention.output.dense" },
    tokens = [33],
)]
fn swiglu(cx: &mut Case, #[perf(file = "zoo/swiglu.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("swiglu", kernels)?;
    let (m, _, k) = cx.shape()?;
    let gate_up = cx.input("gate_up", BF16, [m, 2 * k])?;
    let (gate, up) = (gate_up.columns(0..k as usize), gate_up.columns(k as usize..2 * k as usize));
    let product = if kernels.is("rounded") { silu(&gate).round(BF16) * up } else { silu(&gate) * up };
    // SAFETY: every buffer has the shape that is passed with it.
    quantised_product(cx, product, k, |q, s, stream| unsafe {
        swiglu_quantise(q, s, gate_up.data(), m, k, kernels.number, stream)
    })
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        w = "encoder.layer.{layer}.attention.output.dense",
        gain = "encoder.layer.{layer}.attention.output.LayerNorm.weight",
    },
    tokens = [33],
)]
fn norm(cx: &mut Case, #[perf(file = "zoo/norm.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("norm", kernels)?;
    let (m, _, k) = cx.shape()?;
    let eps = 1e-6;
    let x = cx.activations()?;
    let gain = cx.vector("gain", BF16)?;
    let ones = user("ones", &[&gain], (1, k as usize), |inputs| inputs[0].map(|_| 1.0));
    let normed = if kernels.is("rounded") {
        rms_norm(&x, &ones, f64::from(eps)).round(BF16) * &gain
    } else {
        rms_norm(&x, &gain, f64::from(eps))
    };
    // SAFETY: every buffer has the shape that is passed with it.
    quantised_product(cx, normed, k, |q, s, stream| unsafe {
        norm_quantise(q, s, x.data(), gain.data(), eps, m, k, kernels.number, stream)
    })
}

/// `value`, quantised by `quantise` in groups of 128, times the test's weight by the right GEMM.
fn quantised_product(
    cx: &mut Case,
    value: Expr,
    k: i32,
    quantise: impl Fn(DevPtr<u8>, DevPtr<f32>, Stream) -> Result<()>,
) -> Result<Tensor> {
    let w = cx.weight("w", Quant::block(E4M3FN, 128, 128))?;
    let (m, n) = (cx.tokens(), w.rows());
    let hq = cx.quantized("hq", value, Quant::group(E4M3FN, 128).amax_floor(1e-10))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w))?;
    let (right, stream) = (variant("fp8", "right")?.number, cx.stream());
    quantise(hq.data(), hq.scales(), stream)?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        fp8_multiply(y.data(), hq.data(), hq.scales(), w.data(), w.scales(), m, n, k, false, right, stream)?
    };
    Ok(y)
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const D: usize = 64;
/// Positions of a block, and blocks of a sequence.
const BLOCK: usize = 16;
const BLOCKS: usize = 3;

/// `tokens` is the number of sequences, each of which has one new token.
#[accuracy_test(tokens = [9])]
fn attention(
    cx: &mut Case,
    #[perf(file = "zoo/attention.csv", column = "name")] kernels: &str,
) -> Result<Tensor> {
    let kernels = variant("attention", kernels)?;
    let style = if kernels.is("gptj") { RopeStyle::GptJ } else { RopeStyle::Neox };
    attention_chain(cx, (attention_write, kernels.number), kernels.number, style)
}

#[accuracy_test(tokens = [9])]
fn silent_style(
    cx: &mut Case,
    #[paths(
        right = (attention_write, "right"),
        fused_rotation = (attention_write_fallback, "fused_rotation"),
        style_ignored = (attention_write_fallback, "style_ignored"),
        style_ignored_for_keys = (attention_write_fallback, "style_ignored_for_keys"),
        pairs_whatever_the_style = (attention_write_fallback, "pairs_whatever_the_style"),
    )]
    write: (AttentionWrite, &str),
    #[values(RopeStyle::Neox, RopeStyle::GptJ)] style: RopeStyle,
) -> Result<Tensor> {
    let right = variant("attention", "right")?.number;
    let number = variant("attention", write.1)?.number;
    attention_chain(cx, (write.0, number), right, style)
}

fn attention_chain(
    cx: &mut Case,
    (write, number): (AttentionWrite, i32),
    decode: i32,
    style: RopeStyle,
) -> Result<Tensor> {
    let seqs = cx.tokens();
    let (heads, kv_heads, d) = (HEADS as i32, KV_HEADS as i32, D as i32);
    // Lengths from 1 to three blocks; blocks in descending order with one left over.
    let (count, block) = (seqs as usize, BLOCK as i32);
    let pool = count * BLOCKS + 1;
    let lengths: Vec<i32> = (0..count).map(|s| ((36 + s * 19) % (BLOCK * BLOCKS)) as i32 + 1).collect();
    let tables: Vec<i32> = (0..count * BLOCKS).map(|i| (pool - 1 - i) as i32).collect();
    let positions: Vec<i32> = lengths.iter().map(|length| length - 1).collect();
    let slot = |(s, p): (usize, &i32)| tables[s * BLOCKS + (p / block) as usize] * block + p % block;
    let slots: Vec<i32> = positions.iter().enumerate().map(slot).collect();

    // Inputs here are larger than a model's: the softmax would have one winner with 1 / sqrt(d).
    let form = PagedAttention::new(HEADS, KV_HEADS, BLOCK, 1.0 / 512.0);
    let q = cx.input("q", BF16, [seqs, heads * d])?;
    let k = cx.input("k", BF16, [seqs, kv_heads * d])?;
    let v = cx.input("v", BF16, [seqs, kv_heads * d])?;
    let table = cx.constants("cos_sin", F32, [BLOCK * BLOCKS, D], &cos_sin_table(BLOCK * BLOCKS, D, 1e4))?;
    let positions = cx.indices("positions", &positions)?;
    let slots = cx.indices("slots", &slots)?;
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("seq_lens", &lengths)?;
    let cache = [pool * BLOCK, KV_HEADS * D];
    let k_before = cx.inout_quantized("k_cache", Quant::tensor(E4M3FN).static_scale(0.25), cache)?;
    let v_before = cx.inout_quantized("v_cache", Quant::tensor(E4M3FN).static_scale(0.4), cache)?;

    let q_rotated = cx.output("q_rotated", BF16, [seqs, heads * d], rope(&q, &table, &positions, style))?;
    let k_cache =
        cx.update(&k_before, write_rows(&k_before, &rope(&k, &table, &positions, style), &slots))?;
    let v_cache = cx.update(&v_before, write_rows(&v_before, &v, &slots))?;
    let attended = paged_attention(&q_rotated, (&k_cache, &v_cache), &tables, &lengths, form);
    let out = cx.output("out", BF16, [seqs, heads * d], attended)?;
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        write(
            q_rotated.data(),
            k_cache.data(),
            v_cache.data(),
            q.data(),
            k.data(),
            v.data(),
            table.data(),
            positions.data(),
            slots.data(),
            k_cache.scales(),
            v_cache.scales(),
            seqs,
            heads,
            kv_heads,
            d,
            style == RopeStyle::Neox,
            number,
            cx.stream(),
        )?;
        attention_decode(
            out.data(),
            q_rotated.data(),
            k_cache.data(),
            v_cache.data(),
            k_cache.scales(),
            v_cache.scales(),
            tables.data(),
            lengths.data(),
            seqs,
            heads,
            kv_heads,
            d,
            block,
            BLOCKS as i32,
            form.scale as f32,
            decode,
            cx.stream(),
        )?;
    }
    Ok(out)
}

const EXPERTS: usize = 4;
const TOPK: usize = 2;
/// What is added to the logits: experts are unevenly loaded.
const BIAS: [f64; EXPERTS] = [0.5, 0.0, -1.0, 0.25];

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [17],
)]
fn moe(cx: &mut Case, #[perf(file = "zoo/moe.csv", column = "name")] kernels: &str) -> Result<Tensor> {
    let kernels = variant("moe", kernels)?;
    moe_chain(cx, (moe_route, kernels.number), kernels.number, kernels.is("renormalize"))
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.{layer}.intermediate.dense" },
    tokens = [17],
)]
fn silent_renormalize(
    cx: &mut Case,
    #[paths(
        right = (moe_route, "right"),
        experts_from_the_last = (moe_route_fallback, "experts_from_the_last"),
        renormalize_ignored = (moe_route_fallback, "renormalize_ignored"),
        always_renormalized = (moe_route_fallback, "always_renormalized"),
    )]
    route: (MoeRoute, &str),
    #[values(false, true)] renormalize: bool,
) -> Result<Tensor> {
    let right = variant("moe", "right")?.number;
    let number = variant("moe", route.1)?.number;
    moe_chain(cx, (route.0, number), right, renormalize)
}

/// Four experts of 96 output features, two for each token, and a routed scaling factor of 2.5.
fn moe_chain(cx: &mut Case, (route, number): (MoeRoute, i32), v: i32, renormalize: bool) -> Result<Tensor> {
    let (m, _, k) = cx.shape()?;
    let (topk, experts, n, scaling) = (TOPK as i32, EXPERTS as i32, 96, 2.5);
    let x = cx.input("x", BF16, [m, k])?;
    let logits = cx.input("logits", BF16, [m, experts])?;
    let bias = cx.constants("bias", F32, [1, experts], &BIAS)?;
    let w = cx.weight("w", WeightForm::from(BF16).rows(0..EXPERTS * n))?;
    let n = n as i32;
    let scores = &logits + &bias;
    let weights = cx.output("weights", F32, [m, topk], topk_weights(&scores, TOPK, renormalize))?;
    let ids = cx.output("ids", INT32, [m, topk], topk_experts(&scores, TOPK))?;
    let of =
        |e: i32| x.matmul(&Operand::rows(&w, (e * n) as usize..((e + 1) * n) as usize)).repeat_rows(TOPK);
    let each = select(&ids, &(0..experts).map(of).collect::<Vec<_>>());
    let hidden = cx.output("hidden", F32, [m * topk, n], each)?;
    let y = cx.output("y", BF16, [m, n], weighted_sum(&hidden, &weights).scale(scaling))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        route(
            weights.data(),
            ids.data(),
            logits.data(),
            bias.data(),
            m,
            experts,
            topk,
            renormalize,
            number,
            cx.stream(),
        )?;
        moe_multiply(
            hidden.data(),
            x.data(),
            w.data(),
            ids.data(),
            m * topk,
            topk,
            experts,
            n,
            k,
            v,
            cx.stream(),
        )?;
        moe_combine(y.data(), weights.data(), hidden.data(), m, n, topk, scaling as f32, v, cx.stream())?;
    }
    Ok(y)
}
