//! Chains of set a. Every fault of every chain is a case. Most of them fail, as they should.

use accuracy_core::prelude::*;
use blind_faults::*;
use model::{
    GroupRouting, PagedAttention, Scoring, cos_sin_table, expert_offsets, group_topk_experts,
    group_topk_weights, paged_attention, rope, rows_by_expert, softmax, topk_experts, weighted_sum,
    write_rows,
};

/// A latent projection: its first columns are normed for two consumers, the others are rotated.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        down = "encoder.layer.0.attention.output.dense",
        up = "encoder.layer.0.intermediate.dense",
    },
    tokens = [29],
)]
fn a_lat(cx: &mut Case, #[perf(file = "faults/a_lat.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, r, d, eps) = (256, 320, 192, 32, 1e-6_f32);
    let w = cx.weight("down", WeightForm::from(BF16).rows(0..r + d).columns(0..k))?;
    let wq = cx.weight_named("wq", "up", WeightForm::from(BF16).rows(0..n).columns(0..r))?;
    let wkv = cx.weight_named("wkv", "up", WeightForm::from(BF16).rows(n..2 * n).columns(0..r))?;
    let m = cx.tokens();
    let x = cx.input("x", BF16, [m, k as i32])?;
    let gain = cx.input("gain", BF16, [1, r as i32])?;
    let table = cx.constants("cos_sin", F32, [64, d as i32], &cos_sin_table(64, d, 1e4))?;
    let positions: Vec<i32> = (0..m).map(|t| (t * 7 + 5) % 60).collect();
    let positions = cx.indices("positions", &positions)?;
    let (width, of_r, of_d) = ((r + d) as i32, r as i32, d as i32);
    let c = cx.output("c", BF16, [m, width], x.matmul(&w))?;
    let latent = Operand::columns(&c, 0..r);
    let rotated = rope(&Operand::columns(&c, r..r + d), &table, &positions, RopeStyle::GptJ);
    let cn = cx.output("cn", BF16, [m, of_r], rms_norm(&latent, &gain, f64::from(eps)))?;
    let kpe = cx.output("kpe", BF16, [m, of_d], rotated)?;
    let n = n as i32;
    let q = cx.output("q", BF16, [m, n], cn.matmul(&wq))?;
    let kv = cx.output("kv", BF16, [m, n], cn.matmul(&wkv))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every position is in the table.
    unsafe {
        a_lat_down(c.data(), x.data(), w.data(), m, width, k as i32, kernels, stream)?;
        let (gain, table, positions) = (gain.data(), table.data(), positions.data());
        a_lat_norm(
            cn.data(),
            kpe.data(),
            c.data(),
            gain,
            table,
            positions,
            eps,
            m,
            of_r,
            of_d,
            kernels,
            stream,
        )?;
        a_lat_up(q.data(), cn.data(), wq.data(), m, n, of_r, 0, kernels, stream)?;
        a_lat_up(kv.data(), cn.data(), wkv.data(), m, n, of_r, 1, kernels, stream)?;
    }
    Ok(q)
}

/// Routing by sigmoid scores in groups, the order of slots, and the sum with a shared expert.
#[accuracy_test(tokens = [26])]
fn a_rt(cx: &mut Case, #[perf(file = "faults/a_rt.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (m, experts, n) = (cx.tokens(), 16, 96);
    let form = GroupRouting {
        groups: 4,
        chosen: 2,
        topk: 4,
        scoring: Scoring::Sigmoid,
        best: 2,
        renormalize: true,
        factor: 2.5,
    };
    let topk = form.topk as i32;
    let bias: Vec<f64> = (0..experts).map(|e| f64::from((e * 7 + 3) % experts) / 32.0 - 0.2).collect();
    let logits = cx.input("logits", F32, [m, experts])?;
    let bias = cx.constants("bias", F32, [1, experts], &bias)?;
    let each = cx.input("down", BF16, [m * topk, n])?;
    let shared = cx.input("shared", BF16, [m, n])?;
    let weights = cx.output("weights", F32, [m, topk], group_topk_weights(&logits, &bias, form))?;
    let ids = cx.output("ids", INT32, [m, topk], group_topk_experts(&logits, &bias, form))?;
    let sorted = cx.output("sorted", INT32, [1, m * topk], rows_by_expert(&ids))?;
    let offsets = cx.output("offsets", INT32, [1, experts + 1], expert_offsets(&ids, experts as usize))?;
    let y = cx.output("y", BF16, [m, n], weighted_sum(&each, &weights) + &shared)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        a_rt_route(
            weights.data(),
            ids.data(),
            logits.data(),
            bias.data(),
            m,
            experts,
            form.groups as i32,
            form.chosen as i32,
            topk,
            form.factor as f32,
            kernels,
            stream,
        )?;
        a_rt_sort(sorted.data(), offsets.data(), ids.data(), m * topk, experts, kernels, stream)?;
        a_rt_combine(y.data(), each.data(), weights.data(), shared.data(), m, n, topk, kernels, stream)?;
    }
    Ok(y)
}

/// A shared expert in block-scaled e4m3fnuz, added to the routed experts' result in place.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        gate_up = "encoder.layer.0.intermediate.dense",
        down = "encoder.layer.0.output.dense",
    },
    tokens = [27],
)]
fn a_sh(cx: &mut Case, #[perf(file = "faults/a_sh.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, inner, k) = (320, 256, 384);
    let form = WeightForm::from(Quant::block(E4M3FNUZ, 128, 128));
    let w13 = cx.weight("gate_up", form.clone().rows(0..2 * inner).columns(0..k))?;
    let w2 = cx.weight("down", form.rows(0..n).columns(0..inner))?;
    let scheme = Quant::group(E4M3FNUZ, 128).amax_floor(1e-10);
    let m = cx.tokens();
    let x = cx.input("x", BF16, [m, k as i32])?;
    let routed = cx.inout("hidden", BF16, [m, n as i32])?;
    let xq = cx.quantized("xq", &x, scheme.layout(ColMajor))?;
    let gu = cx.output("gate_up_out", BF16, [m, 2 * inner as i32], xq.matmul(&w13))?;
    let (gate, up) = (Operand::columns(&gu, 0..inner), Operand::columns(&gu, inner..2 * inner));
    let hq = cx.quantized("hq", silu(&gate) * up, scheme)?;
    let y = cx.update(&routed, hq.matmul(&w2) + &routed)?;
    let (n, inner, k, stream) = (n as i32, inner as i32, k as i32, cx.stream());
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        a_sh_quantise(xq.data(), xq.scales(), x.data(), m, k, kernels, stream)?;
        let (q, s, wq, ws) = (xq.data(), xq.scales(), w13.data(), w13.scales());
        a_sh_gate_up(gu.data(), q, s, wq, ws, m, 2 * inner, k, kernels, stream)?;
        a_sh_activate(hq.data(), hq.scales(), gu.data(), m, inner, kernels, stream)?;
        let (q, s, wq, ws) = (hq.data(), hq.scales(), w2.data(), w2.scales());
        a_sh_down(y.data(), q, s, wq, ws, m, n, inner, kernels, stream)?;
    }
    Ok(y)
}

const LATENT: usize = 64;
const ROTATED: usize = 16;
const WIDTH: usize = LATENT + ROTATED;
const PAGE: usize = 8;
const PAGES: usize = 5;

/// The table of a rotation that leaves the first `LATENT` columns of `WIDTH` as they are: their angles are 0.
fn table_of_rows(positions: usize) -> Vec<f64> {
    let rotated = cos_sin_table(positions, ROTATED, 1e4);
    let row = |angles: &[f64]| {
        let (cosines, sines) = angles.split_at(ROTATED / 2);
        [&[1.0; LATENT / 2][..], cosines, &[0.0; LATENT / 2], sines].concat()
    };
    rotated.chunks(ROTATED).flat_map(row).collect()
}

/// MLA over a paged cache in e4m3fn; `tokens` is the number of sequences.
#[accuracy_test(tokens = [17])]
fn a_pg(cx: &mut Case, #[perf(file = "faults/a_pg.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (seqs, heads) = (cx.tokens() as usize, 4);
    let pool = seqs * PAGES + 1;
    let positions: Vec<i32> = (0..seqs).map(|s| ((31 + 11 * s) % (PAGE * PAGES - 1)) as i32).collect();
    let lengths: Vec<i32> = positions.iter().map(|p| p + 1).collect();
    let tables: Vec<i32> = (0..seqs * PAGES).map(|i| ((i * 5 + 3) % pool) as i32).collect();
    let page = PAGE as i32;
    let slots: Vec<i32> = positions
        .iter()
        .enumerate()
        .map(|(s, p)| tables[s * PAGES + (p / page) as usize] * page + p % page)
        .collect();
    let form = PagedAttention::new(heads, 1, PAGE, 1.0 / 256.0).value_width(LATENT);
    let (rows, width) = (seqs as i32, WIDTH as i32);
    let q = cx.input("q", BF16, [rows, heads as i32 * width])?;
    let kv = cx.input("kv", BF16, [rows, width])?;
    let count = PAGE * PAGES;
    let table = cx.constants("cos_sin", F32, [count + 8, WIDTH], &table_of_rows(count + 8))?;
    let positions = cx.indices("positions", &positions)?;
    let slots = cx.indices("slots", &slots)?;
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("seq_lens", &lengths)?;
    let scheme = Quant::tensor(E4M3FN).static_scale(0.3);
    let before = cx.inout_quantized("cache", scheme, [pool * PAGE, WIDTH])?;
    let row = rope(&kv, &table, &positions, RopeStyle::GptJ);
    let cache = cx.update(&before, write_rows(&before, &row, &slots))?;
    let attended = paged_attention(&q, (&cache, &cache), &tables, &lengths, form);
    let out = cx.output("out", BF16, [seqs, heads * LATENT], attended)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        let (to, scale) = (cache.data(), cache.scales());
        a_pg_write(
            to,
            kv.data(),
            table.data(),
            positions.data(),
            slots.data(),
            scale,
            rows,
            kernels,
            stream,
        )?;
        a_pg_decode(
            out.data(),
            q.data(),
            cache.data(),
            cache.scales(),
            tables.data(),
            lengths.data(),
            rows,
            heads as i32,
            page,
            PAGES as i32,
            form.scale as f32,
            kernels,
            stream,
        )?;
    }
    Ok(out)
}

/// A fused norm with two results: bf16 for a router's gate, e4m3fn for a product.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        gate = "encoder.layer.0.attention.output.dense",
        w = "encoder.layer.0.intermediate.dense",
    },
    tokens = [30],
)]
fn a_nq(cx: &mut Case, #[perf(file = "faults/a_nq.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, experts, k, eps) = (288, 24, 384, 1e-6_f32);
    let gate = cx.weight("gate", WeightForm::from(BF16).rows(0..experts))?;
    let w = cx.weight("w", WeightForm::from(Quant::block(E4M3FN, 128, 128)).rows(0..n))?;
    let (m, n, experts) = (cx.tokens(), n as i32, experts as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let gain = cx.input("gain", BF16, [1, k])?;
    let before = cx.inout("residual", BF16, [m, k])?;
    let residual = cx.update(&before, &before + &x)?;
    let normed = rms_norm(&residual, &gain, f64::from(eps));
    let scheme = Quant::group(E4M3FN, 128)
        .scales(F32, ScaleRounding::PowerOfTwo)
        .layout(ScaleLayout::ColMajorAligned4)
        .amax_floor(1e-4);
    let h = cx.output("h", BF16, [m, k], normed.clone())?;
    let hq = cx.quantized("hq", normed, scheme)?;
    let logits = cx.output("logits", F32, [m, experts], h.matmul(&gate))?;
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (q, s) = (hq.data(), hq.scales());
        a_nq_norm(residual.data(), h.data(), q, s, x.data(), gain.data(), eps, m, k, kernels, stream)?;
        a_nq_gate(logits.data(), h.data(), gate.data(), m, experts, k, kernels, stream)?;
        a_nq_multiply(y.data(), hq.data(), hq.scales(), w.data(), w.scales(), m, n, k, kernels, stream)?;
    }
    Ok(y)
}

/// Tokens of each sequence, 61 in all.
const LENGTHS: [i32; 17] = [4, 2, 5, 3, 1, 6, 2, 8, 1, 5, 3, 2, 7, 4, 1, 3, 4];

/// The last token of each sequence through the final norm, the vocabulary in two shards, and sampling.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [61],
)]
fn a_lm(cx: &mut Case, #[perf(file = "faults/a_lm.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (vocabulary, k, shard, eps, by) = (400, 256, 200, 1e-5_f32, 1.25_f32);
    let w = cx.weight("w", WeightForm::from(BF16).rows(0..vocabulary).columns(0..k))?;
    let (vocabulary, k, seqs) = (vocabulary as i32, k as i32, LENGTHS.len() as i32);
    let ends: Vec<i32> = LENGTHS
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(*end - 1)
        })
        .collect();
    let hidden = cx.input("hidden", BF16, [cx.tokens(), k])?;
    let gain = cx.input("gain", BF16, [1, k])?;
    let last = cx.indices("last", &ends)?;
    let of_last = rms_norm(&hidden.gather(&last), &gain, f64::from(eps));
    let normed = cx.output("normed", BF16, [seqs, k], of_last)?;
    let logits = cx.output("logits", F32, [seqs, vocabulary], normed.matmul(&w))?;
    let probabilities =
        cx.output("probabilities", F32, [seqs, vocabulary], softmax(&logits.scale(f64::from(by))))?;
    let ids = cx.output("ids", INT32, [seqs, 1], topk_experts(&logits, 1))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        a_lm_gather_norm(
            normed.data(),
            hidden.data(),
            last.data(),
            gain.data(),
            eps,
            seqs,
            k,
            kernels,
            stream,
        )?;
        for (from, to) in [(0, shard), (shard, vocabulary)] {
            let (y, x) = (logits.data(), normed.data());
            a_lm_head(y, x, w.data(), seqs, vocabulary, k, from, to, kernels, stream)?;
        }
        let (p, ids) = (probabilities.data(), ids.data());
        a_lm_sample(p, ids, logits.data(), seqs, vocabulary, shard, by, kernels, stream)?;
    }
    Ok(probabilities)
}

const EXPERTS: usize = 4;
const TOPK: usize = 2;

/// A contiguous grouped product: rows are gathered by expert, and each expert's are filled up to a multiple of 8.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [20],
)]
fn a_gg(cx: &mut Case, #[perf(file = "faults/a_gg.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, m) = (256, 256, cx.tokens() as usize);
    let form = WeightForm::from(Quant::block(E4M3FN, 128, 128));
    let w = cx.weight("w", form.rows(0..EXPERTS * n).columns(0..k))?;
    // The second expert of a token is 1 to 3 behind its first one; experts have 7, 9, 14 and 10 slots.
    let expert = |slot: usize| {
        let token = slot / TOPK;
        ([1, 2, 3, 2][token % 4] + slot % TOPK * (1 + token % 3)) % EXPERTS
    };
    let (mut tokens, mut experts, mut places) = (Vec::new(), Vec::new(), vec![0; m * TOPK]);
    for e in 0..EXPERTS {
        for slot in (0..m * TOPK).filter(|&slot| expert(slot) == e) {
            places[slot] = tokens.len() as i32;
            tokens.push((slot / TOPK) as i32);
        }
        // The last token fills up.
        tokens.resize(tokens.len().next_multiple_of(8), m as i32 - 1);
        experts.resize(tokens.len(), e as i32);
    }
    let values: Vec<f64> =
        (0..m * TOPK).map(|i| f64::from(((i * 17 + 5) % 37) as f32 / 37.0 + 0.05)).collect();
    let x = cx.input("x", BF16, [m, k])?;
    let tokens = cx.indices("row_tokens", &tokens)?;
    let experts = cx.indices("row_experts", &experts)?;
    let places = cx.indices("places", &places)?;
    let weights = cx.constants("weights", F32, [m, TOPK], &values)?;
    let scheme = Quant::group(E4M3FN, 128).amax_floor(1e-4).layout(ColMajor);
    let xq = cx.quantized("xq", x.gather(&tokens), scheme)?;
    let each: Vec<Expr> = (0..EXPERTS).map(|e| xq.matmul(&Operand::rows(&w, e * n..(e + 1) * n))).collect();
    let up = cx.output("up", BF16, [xq.rows(), n as i32], select(&experts, &each))?;
    let y = cx.output("y", BF16, [m, n], weighted_sum(&up.gather(&places), &weights))?;
    let (m, n, k, rows) = (m as i32, n as i32, k as i32, xq.rows());
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        a_gg_quantise(xq.data(), xq.scales(), x.data(), tokens.data(), rows, k, kernels, stream)?;
        a_gg_multiply(
            up.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            experts.data(),
            rows,
            n,
            k,
            EXPERTS as i32,
            kernels,
            stream,
        )?;
        a_gg_combine(y.data(), up.data(), places.data(), weights.data(), m, n, TOPK as i32, kernels, stream)?;
    }
    Ok(y)
}

/// Products of each head: absorbed queries, which are quantised to e4m3fnuz, and the way back.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        uk = "encoder.layer.0.attention.output.dense",
        uv = "encoder.layer.0.intermediate.dense",
    },
    tokens = [16],
)]
fn a_ab(cx: &mut Case, #[perf(file = "faults/a_ab.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (heads, d, latent, out) = (4, 48, 96, 64);
    let uk = cx.weight("uk", WeightForm::from(BF16).rows(0..heads * latent).columns(0..d))?;
    let form = WeightForm::from(Quant::channel(E4M3FNUZ));
    let uv = cx.weight("uv", form.rows(0..heads * out).columns(0..latent))?;
    let rows = cx.tokens() * heads as i32;
    let of_rows: Vec<i32> = (0..rows).map(|r| r % heads as i32).collect();
    let of_rows = cx.indices("heads", &of_rows)?;
    let q = cx.input("q", BF16, [rows, d as i32])?;
    let absorbed: Vec<Expr> =
        (0..heads).map(|h| q.matmul(&Operand::rows(&uk, h * latent..(h + 1) * latent))).collect();
    let c = cx.output("latent", BF16, [rows, latent as i32], select(&of_rows, &absorbed))?;
    let cq = cx.quantized("cq", &c, Quant::token(E4M3FNUZ))?;
    let expanded: Vec<Expr> =
        (0..heads).map(|h| cq.matmul(&Operand::rows(&uv, h * out..(h + 1) * out))).collect();
    let v = cx.output("v", BF16, [rows, out as i32], select(&of_rows, &expanded))?;
    let (heads, d, latent, out, stream) = (heads as i32, d as i32, latent as i32, out as i32, cx.stream());
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        a_ab_absorb(c.data(), q.data(), uk.data(), rows, heads, latent, d, kernels, stream)?;
        a_ab_quantise(cq.data(), cq.scales(), c.data(), rows, heads, latent, kernels, stream)?;
        let (x, s, w, ws) = (cq.data(), cq.scales(), uv.data(), uv.scales());
        a_ab_expand(v.data(), x, s, w, ws, rows, heads, out, latent, kernels, stream)?;
    }
    Ok(v)
}
