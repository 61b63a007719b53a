//! Every fault of every chain of set b is a case. Most of them fail, as they should.

use accuracy_core::prelude::*;
use blind_faults::*;
use model::{
    GroupRouting, PagedAttention, Scoring, cos_sin_table, group_topk_experts, group_topk_weights,
    paged_attention_with_sinks, rope, topk_experts, topk_weights, weighted_sum,
};

/// Numbers between `-size` and `size` without an order.
fn scattered(count: usize, size: f64) -> Vec<f64> {
    (0..count).map(|i| (((i * 29 + 7) % 41) as f64 / 20.0 - 1.0) * size).collect()
}

fn least(x: &Expr, limit: &Tensor) -> Expr {
    x - &relu(&(x - limit))
}

/// gpt-oss: MXFP4 experts with biases and a clamped SwiGLU whose gate and up columns alternate.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { up = "encoder.layer.0.intermediate.dense", down = "encoder.layer.0.intermediate.dense" },
    tokens = [21],
)]
fn b_mxmoe(
    cx: &mut Case,
    #[perf(file = "faults/b_mxmoe.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (experts, topk, inner, hidden, limit) = (4, 2, 96, 160, 2.0);
    let mxfp4 = Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even);
    let up_rows = experts * 2 * inner;
    let w1 = cx.weight("up", WeightForm::from(mxfp4).rows(0..up_rows).columns(0..hidden))?;
    let down_rows = up_rows..up_rows + experts * hidden;
    let w2 = cx.weight("down", WeightForm::from(mxfp4).rows(down_rows).columns(0..inner))?;
    let (m, e, t, i, k) = (cx.tokens(), experts as i32, topk as i32, inner as i32, hidden as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let logits = cx.input("logits", BF16, [m, e])?;
    let b1 = cx.constants("up_bias", BF16, [e, 2 * i], &scattered(experts * 2 * inner, 1.5))?;
    let b2 = cx.constants("down_bias", BF16, [e, k], &scattered(experts * hidden, 0.5))?;
    let limits = cx.constants("limit", F32, [1, i], &vec![limit; inner])?;
    let ones = cx.constants("ones", F32, [1, i], &vec![1.0; inner])?;
    let even: Vec<i32> = (0..i).map(|c| 2 * c).collect();
    let odd: Vec<i32> = (0..i).map(|c| 2 * c + 1).collect();
    let (even, odd) = (cx.indices("gate_columns", &even)?, cx.indices("up_columns", &odd)?);

    let weights = cx.output("weights", F32, [m, t], topk_weights(&logits, topk, true))?;
    let ids = cx.output("ids", INT32, [m, t], topk_experts(&logits, topk))?;
    let of_up = |e: usize| {
        let product = x.matmul(&Operand::rows(&w1, e * 2 * inner..(e + 1) * 2 * inner));
        (product + Operand::rows(&b1, e..e + 1)).repeat_rows(topk)
    };
    let raw = select(&ids, &(0..experts).map(of_up).collect::<Vec<_>>());
    let raw = cx.output("raw", BF16, [m * t, 2 * i], raw)?;
    let gate = least(&raw.transpose().gather(&even).transpose(), &limits);
    let up = least(&raw.transpose().gather(&odd).transpose(), &limits);
    let up = &up + relu(&(up.scale(-1.0) - &limits));
    let glu = &gate * sigmoid(&gate.scale(1.702));
    let h = cx.output("h", BF16, [m * t, i], (up + &ones) * glu)?;
    let of_down =
        |e: usize| h.matmul(&Operand::rows(&w2, e * hidden..(e + 1) * hidden)) + Operand::rows(&b2, e..e + 1);
    let down = select(&ids, &(0..experts).map(of_down).collect::<Vec<_>>());
    let down = cx.output("down_out", BF16, [m * t, k], down)?;
    let y = cx.output("y", BF16, [m, k], weighted_sum(&down, &weights))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        b_mxmoe_route(weights.data(), ids.data(), logits.data(), m, e, t, kernels, stream)?;
        let (w, ws, bias) = (w1.data(), w1.scales(), b1.data());
        b_mxmoe_up(raw.data(), x.data(), w, ws, bias, ids.data(), m, t, 2 * i, k, kernels, stream)?;
        b_mxmoe_activate(h.data(), raw.data(), m * t, i, limit as f32, kernels, stream)?;
        let (w, ws, bias) = (w2.data(), w2.scales(), b2.data());
        b_mxmoe_down(down.data(), h.data(), w, ws, bias, ids.data(), m, t, k, i, kernels, stream)?;
        b_mxmoe_combine(y.data(), down.data(), weights.data(), m, k, t, kernels, stream)?;
    }
    Ok(y)
}

/// Gemma's norms by 1 + gain before and after a projection with AWQ weights.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-int4-awq",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [37],
)]
fn b_awq(cx: &mut Case, #[perf(file = "faults/b_awq.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, eps) = (208, 320, 1e-6_f32);
    let (layout, nibbles) = (ColMajor, NibbleOrder::Awq);
    let scheme = Quant::group(UINT4, 32)
        .scales(F16, ScaleRounding::Nearest)
        .data_layout(DataLayout::ColMajor)
        .nibbles(nibbles)
        .layout(layout)
        .zero_point(ZeroPoint::PerCell { dtype: UINT4, layout, nibbles });
    let w = cx.weight("w", WeightForm::from(scheme).rows(0..n).columns(0..k))?;
    let ones_k = cx.constants("ones_k", F32, [1, k as i32], &vec![1.0; k])?;
    let ones_n = cx.constants("ones_n", F32, [1, n as i32], &vec![1.0; n])?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let before = cx.inout("residual", BF16, [m, n])?;
    let pre = cx.input("pre_gain", BF16, [1, k])?;
    let post = cx.input("post_gain", BF16, [1, n])?;
    let normed = cx.output("normed", BF16, [m, k], rms_norm(&x, &(&pre + &ones_k), f64::from(eps)))?;
    let y = cx.output("y", BF16, [m, n], normed.matmul(&w))?;
    let residual = cx.update(&before, &before + rms_norm(&y, &(&post + &ones_n), f64::from(eps)))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        b_awq_norm(normed.data(), x.data(), pre.data(), eps, m, k, kernels, stream)?;
        let (codes, scales, zeros) = (w.data(), w.scales(), w.zero_points());
        b_awq_multiply(y.data(), normed.data(), codes, scales, zeros, m, n, k, kernels, stream)?;
        b_awq_add(residual.data(), y.data(), post.data(), eps, m, n, k, kernels, stream)?;
    }
    Ok(residual)
}

/// GPTQ weights with zero points in act-order, parts of K in a workspace, and a bias.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [35],
)]
fn b_gptq(
    cx: &mut Case,
    #[perf(file = "faults/b_gptq.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (n, k) = (176, 256);
    let scheme = Quant::group(UINT4, 64)
        .scales(F16, ScaleRounding::Nearest)
        .data_layout(DataLayout::Preshuffle { rows: n, block: 8, vector: 8 })
        .layout(ColMajor)
        .zero_point(ZeroPoint::per_cell(UINT4, ColMajor));
    let w = cx.weight("w", WeightForm::from(scheme).rows(0..n).columns(0..k))?;
    let order: Vec<i32> = (0..k as i32).map(|i| (i * 37 + 11) % k as i32).collect();
    let order = cx.indices("order", &order)?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let bias = cx.constants("bias", BF16, [1, n], &scattered(n as usize, 2.5))?;
    let zeros = cx.zeros("acc", F32, [m, n])?;
    let acc = cx.update(&zeros, &zeros + x.transpose().gather(&order).transpose().matmul(&w))?;
    let y = cx.output("y", BF16, [m, n], &acc + &bias)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        let (codes, scales, zeros) = (w.data(), w.scales(), w.zero_points());
        let order = order.data();
        b_gptq_multiply(acc.data(), x.data(), codes, scales, zeros, order, m, n, k, kernels, stream)?;
        b_gptq_finish(y.data(), acc.data(), bias.data(), m, n, kernels, stream)?;
    }
    Ok(y)
}

/// Gemma's MLP with a calibrated int8 scale of its activations.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.attention.output.dense" },
    tokens = [35],
)]
fn b_geglu(
    cx: &mut Case,
    #[perf(file = "faults/b_geglu.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (n, k) = (176, 288);
    let w = cx.weight("w", WeightForm::from(Quant::channel(INT8)).rows(0..n).columns(0..k))?;
    let bias = cx.constants("bias", BF16, [1, n as i32], &scattered(n, 2.5))?;
    let m = cx.tokens();
    let gate_up = cx.input("gate_up", BF16, [m, 2 * k as i32])?;
    let (gate, up) = (gate_up.columns(0..k), gate_up.columns(k..2 * k));
    let (n, k) = (n as i32, k as i32);
    let cubic = &(&gate * &gate) * &gate;
    let inner = (&gate + cubic.scale(0.044715)).scale((2.0 / std::f64::consts::PI).sqrt());
    let activated = &gate * sigmoid(&inner.scale(2.0));
    let hq = cx.quantized("hq", activated * &up, Quant::tensor(INT8).static_scale(0.1))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w) + &bias)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        b_geglu_activate(hq.data(), gate_up.data(), hq.scales(), m, k, kernels, stream)?;
        let (codes, scales) = (w.data(), w.scales());
        let (q, scale) = (hq.data(), hq.scales());
        b_geglu_multiply(y.data(), q, scale, codes, scales, bias.data(), m, n, k, kernels, stream)?;
    }
    Ok(y)
}

/// Llama 4: pairs of the first half of a head rotated, norms of heads, temperatures of positions.
#[accuracy_test(tokens = [17])]
fn b_l4(cx: &mut Case, #[perf(file = "faults/b_l4.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (heads, kv_heads, d, rotated, places, eps) = (4, 2, 64, 32, 64, 1e-5_f32);
    let tokens = cx.tokens();
    let of_part = cos_sin_table(places, rotated, 1e4);
    let mut values = Vec::new();
    for angles in of_part.chunks(rotated) {
        let (cosines, sines) = angles.split_at(rotated / 2);
        values.extend(cosines.iter().copied().chain(std::iter::repeat_n(1.0, (d - rotated) / 2)));
        values.extend(sines.iter().copied().chain(std::iter::repeat_n(0.0, (d - rotated) / 2)));
    }
    let position = |t: i32| (t * 11 + 5) % 61;
    let of_rows = |heads: i32| (0..tokens * heads).map(|row| position(row / heads)).collect::<Vec<_>>();
    let (rows, kv_rows, width) = (tokens * heads, tokens * kv_heads, d as i32);
    let temperature = |p: &i32| 1.0 + 0.1 * f64::from(p / 8 + 1).ln();
    let temperatures: Vec<f64> = of_rows(heads).iter().map(temperature).collect();
    let q = cx.input("q", BF16, [rows, width])?;
    let k = cx.input("k", BF16, [kv_rows, width])?;
    let table = cx.constants("cos_sin", F32, [places as i32, width], &values)?;
    let ones = cx.constants("ones", F32, [1, width], &vec![1.0; d])?;
    let factors = cx.constants("temperatures", F32, [1, rows], &temperatures)?;
    let q_positions = cx.indices("q_positions", &of_rows(heads))?;
    let k_positions = cx.indices("k_positions", &of_rows(kv_heads))?;
    let normed = |x: &Tensor, positions: &Tensor| {
        rms_norm(&rope(x, &table, positions, RopeStyle::GptJ), &ones, f64::from(eps))
    };
    let of_queries = (normed(&q, &q_positions).transpose() * &factors).transpose();
    let k_out = cx.output("k_out", BF16, [kv_rows, width], normed(&k, &k_positions))?;
    let q_out = cx.output("q_out", BF16, [rows, width], of_queries)?;
    let (r, stream) = (rotated as i32, cx.stream());
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        let (out, from, positions) = (k_out.data(), k.data(), k_positions.data());
        b_l4_rotate(
            out,
            from,
            table.data(),
            positions,
            DevPtr::null(),
            kv_rows,
            kv_heads,
            r,
            eps,
            kernels,
            stream,
        )?;
        let (out, from, positions) = (q_out.data(), q.data(), q_positions.data());
        b_l4_rotate(
            out,
            from,
            table.data(),
            positions,
            factors.data(),
            rows,
            heads,
            r,
            eps,
            kernels,
            stream,
        )?;
    }
    Ok(q_out)
}

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 32;
const WINDOW: usize = 8;
const SCALE: f64 = 1.0 / 32.0;
const CAP: f64 = 4.0;

/// What the declaration of [`b_prefill`] says, in float64.
fn capped_prefill(of: &[&Matrix]) -> Matrix {
    let [q, k, v, starts, sinks] = of else { unreachable!("five inputs") };
    let mut out = Matrix::zeros(q.rows, q.cols);
    for t in 0..q.rows {
        let start = starts.data.iter().map(|&s| s as usize).filter(|&s| s <= t).max().unwrap_or(0);
        let seen = start.max((t + 1).saturating_sub(WINDOW))..t + 1;
        for h in 0..HEADS {
            let of_kv = h / (HEADS / KV_HEADS) * HEAD;
            let query = &q.row(t)[h * HEAD..(h + 1) * HEAD];
            let score = |p: usize| {
                let dot: f64 = query.iter().zip(&k.row(p)[of_kv..of_kv + HEAD]).map(|(a, b)| a * b).sum();
                CAP * (dot * SCALE / CAP).tanh()
            };
            let scores: Vec<f64> = seen.clone().map(score).collect();
            let largest = scores.iter().copied().fold(sinks.data[h], f64::max);
            let exp: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
            let total = exp.iter().sum::<f64>() + (sinks.data[h] - largest).exp();
            let to = &mut out.row_mut(t)[h * HEAD..(h + 1) * HEAD];
            for (p, e) in seen.clone().zip(&exp) {
                let value = &v.row(p)[of_kv..of_kv + HEAD];
                to.iter_mut().zip(value).for_each(|(to, v)| *to += e / total * v);
            }
        }
    }
    out
}

/// Prefill of three sequences with capped scores, a window and sinks.
#[accuracy_test(tokens = [37])]
fn b_prefill(
    cx: &mut Case,
    #[perf(file = "faults/b_prefill.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let tokens = cx.tokens();
    let (width, kv_width) = ((HEADS * HEAD) as i32, (KV_HEADS * HEAD) as i32);
    let q = cx.input("q", BF16, [tokens, width])?;
    let k = cx.input("k", BF16, [tokens, kv_width])?;
    let v = cx.input("v", BF16, [tokens, kv_width])?;
    let starts = cx.indices("starts", &[0, 5, 16])?;
    let sinks = cx.constants("sinks", F32, [1, HEADS as i32], &[3.0, 1.5, -0.5, 2.5])?;
    let inputs: [&dyn Operand; 5] = [&q, &k, &v, &starts, &sinks];
    let attended = user("capped_prefill", &inputs, (tokens as usize, HEADS * HEAD), capped_prefill);
    let out = cx.output("out", BF16, [tokens, width], attended)?;
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        b_prefill_attend(
            out.data(),
            q.data(),
            k.data(),
            v.data(),
            starts.data(),
            sinks.data(),
            3,
            tokens,
            HEADS as i32,
            KV_HEADS as i32,
            WINDOW as i32,
            SCALE as f32,
            CAP as f32,
            kernels,
            cx.stream(),
        )?;
    }
    Ok(out)
}

/// The last three tokens of each sequence over a paged cache; `tokens` is the number of sequences.
#[accuracy_test(tokens = [7])]
fn b_chunk(
    cx: &mut Case,
    #[perf(file = "faults/b_chunk.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (page, pages, queries, window, scale) = (8, 5, 3, 13, 1.0 / 64.0);
    let seqs = cx.tokens() as usize;
    let pool = seqs * pages + 1;
    let lengths: Vec<i32> = (0..seqs).map(|s| ((29 + 11 * s) % 36 + 4) as i32).collect();
    let tables: Vec<i32> = (0..seqs * pages).map(|i| ((i * 7 + 2) % pool) as i32).collect();
    let (rows, width) = ((seqs * queries) as i32, (HEADS * HEAD) as i32);
    let q = cx.input("q", BF16, [rows, width])?;
    let cache = Shape::new(pool * page, KV_HEADS * HEAD);
    let of_keys = cache.layout(DataLayout::PagedKeys { block: page, head: HEAD, vector: 8 });
    let keys = cx.input("keys", BF16, of_keys)?;
    let values = cx.input("values", BF16, Shape::new(pool * page, KV_HEADS * HEAD))?;
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("seq_lens", &lengths)?;
    let sinks = cx.constants("sinks", F32, [1, HEADS as i32], &[2.0, 0.5, 3.0, 1.0])?;
    let form = PagedAttention::new(HEADS, KV_HEADS, page, scale).queries(queries).window(window);
    let attended = paged_attention_with_sinks(&q, (&keys, &values), &tables, &lengths, &sinks, form);
    let out = cx.output("out", BF16, [rows, width], attended)?;
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        b_chunk_attend(
            out.data(),
            q.data(),
            keys.data(),
            values.data(),
            tables.data(),
            lengths.data(),
            sinks.data(),
            seqs as i32,
            queries as i32,
            HEADS as i32,
            KV_HEADS as i32,
            page as i32,
            pages as i32,
            window as i32,
            scale as f32,
            kernels,
            cx.stream(),
        )?;
    }
    Ok(out)
}

/// Llama 4: one NVFP4 expert for each token, whose input is multiplied with its score, beside a shared expert.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [33],
)]
fn b_nvmoe(
    cx: &mut Case,
    #[perf(file = "faults/b_nvmoe.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (experts, n, k) = (4, 112, 192);
    let nvfp4 =
        Quant::group(E2M1, 16).scales(E4M3FN, ScaleRounding::Nearest).two_level(GlobalScale::Multiply);
    let form = WeightForm::from(nvfp4.layout(ScaleLayout::Swizzle128x4));
    let w = cx.weight("w", form.rows(0..experts * n).columns(0..k))?;
    let m = cx.tokens();
    let x = cx.input("x", BF16, [m, k as i32])?;
    let logits = cx.input("logits", BF16, [m, experts as i32])?;
    let shared = cx.input("shared", BF16, [m, n as i32])?;
    let no_bias = cx.constants("no_bias", F32, [1, experts as i32], &vec![0.0; experts])?;
    let form = GroupRouting {
        groups: 1,
        chosen: 1,
        topk: 1,
        scoring: Scoring::Sigmoid,
        best: 1,
        renormalize: false,
        factor: 1.0,
    };
    let score = cx.output("score", F32, [m, 1], group_topk_weights(&logits, &no_bias, form))?;
    let ids = cx.output("ids", INT32, [m, 1], group_topk_experts(&logits, &no_bias, form))?;
    let scored = (x.transpose() * score.transpose()).transpose();
    let xq = cx.quantized("xq", scored, nvfp4)?;
    let each: Vec<Expr> = (0..experts).map(|e| xq.matmul(&Operand::rows(&w, e * n..(e + 1) * n))).collect();
    let (n, k, e) = (n as i32, k as i32, experts as i32);
    let y = cx.output("y", BF16, [m, n], select(&ids, &each) + &shared)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        b_nvmoe_route(score.data(), ids.data(), logits.data(), m, e, kernels, stream)?;
        let (codes, scales, global) = (xq.data(), xq.scales(), xq.global_scale());
        b_nvmoe_quantise(codes, scales, x.data(), score.data(), global, m, k, kernels, stream)?;
        b_nvmoe_multiply(
            y.data(),
            codes,
            scales,
            global,
            w.data(),
            w.scales(),
            w.global_scale(),
            shared.data(),
            ids.data(),
            score.data(),
            m,
            n,
            k,
            kernels,
            stream,
        )?;
    }
    Ok(y)
}

/// Gemma: a scaled embedding, the norm, and capped logits by the same table.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { table = "encoder.layer.0.attention.output.dense" },
    tokens = [37],
)]
fn b_embed(
    cx: &mut Case,
    #[perf(file = "faults/b_embed.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (vocabulary, d, factor, cap, eps) = (300, 240, 15.5, 5.0, 1e-6_f32);
    let table = cx.weight("table", WeightForm::from(BF16).rows(0..vocabulary).columns(0..d))?;
    let ones = cx.constants("ones", F32, [1, d as i32], &vec![1.0; d])?;
    let caps = cx.constants("caps", F32, [1, vocabulary as i32], &vec![cap; vocabulary])?;
    let (m, vocabulary, d) = (cx.tokens(), vocabulary as i32, d as i32);
    let ids: Vec<i32> = (0..m).map(|t| (t * 131 + 17) % vocabulary).collect();
    let ids = cx.indices("ids", &ids)?;
    let gain = cx.input("gain", BF16, [1, d])?;
    let h = cx.output("h", BF16, [m, d], table.gather(&ids).scale(factor))?;
    let normed = cx.output("normed", BF16, [m, d], rms_norm(&h, &(&gain + &ones), f64::from(eps)))?;
    let capped = sigmoid(&normed.matmul(&table).scale(2.0 / cap)).scale(2.0 * cap) - &caps;
    let logits = cx.output("logits", F32, [m, vocabulary], capped)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        b_embed_gather(h.data(), table.data(), ids.data(), factor as f32, m, vocabulary, d, kernels, stream)?;
        b_embed_norm(normed.data(), h.data(), gain.data(), eps, m, d, kernels, stream)?;
        let to = logits.data();
        b_embed_project(to, normed.data(), table.data(), cap as f32, m, vocabulary, d, kernels, stream)?;
    }
    Ok(logits)
}
