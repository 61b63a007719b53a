//! Set c: what serving engines put around their GEMMs. Every fault of every chain is a case.

use accuracy_core::prelude::*;
use blind_faults::*;
use model::{
    PagedAttention, cos_sin_table, expert_offsets, paged_attention, rope, rows_by_expert, topk_experts,
    topk_weights, weighted_sum, write_rows,
};

/// Adapters, and the rank of each.
const ADAPTERS: usize = 3;
const RANK: usize = 12;

/// A base product, and what each token's adapter adds to it. A token may have none.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        w = "encoder.layer.0.output.dense",
        a = "encoder.layer.0.attention.output.dense",
        b = "encoder.layer.0.intermediate.dense",
    },
    tokens = [27],
)]
fn c_lora(
    cx: &mut Case,
    #[perf(file = "faults/c_lora.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (n, k) = (160, 224);
    let w = cx.weight("w", WeightForm::from(BF16).rows(0..n).columns(0..k))?;
    let a = cx.weight("a", WeightForm::from(BF16).rows(0..ADAPTERS * RANK).columns(0..k))?;
    let b = cx.weight("b", WeightForm::from(BF16).rows(0..ADAPTERS * n).columns(0..RANK))?;
    let ids: Vec<i32> = (0..cx.tokens()).map(|t| (t * 7 + t / 4) % (ADAPTERS as i32 + 1)).collect();
    // A row for each adapter, and one of zeros.
    let scalings: Vec<f64> = [8.0, 4.0, 6.0, 0.0].iter().flat_map(|&s| [s; RANK]).collect();
    let x = cx.input("x", BF16, [cx.tokens(), k as i32])?;
    let ids = cx.indices("ids", &ids)?;
    let scalings = cx.constants("scalings", F32, [ADAPTERS + 1, RANK], &scalings)?;
    // The choice for a token without an adapter does not matter: it is multiplied by zero.
    let of = |e: usize| e % ADAPTERS;
    let first: Vec<Expr> =
        (0..=ADAPTERS).map(|e| x.matmul(&Operand::rows(&a, of(e) * RANK..(of(e) + 1) * RANK))).collect();
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let (rank, adapters, stream) = (RANK as i32, ADAPTERS as i32, cx.stream());
    let base = cx.output("base", BF16, [m, n], x.matmul(&w))?;
    let shrunk = cx.output("shrunk", F32, [m, rank], select(&ids, &first) * scalings.gather(&ids))?;
    let rows = |e: usize| of(e) * n as usize..(of(e) + 1) * n as usize;
    let second: Vec<Expr> = (0..=ADAPTERS).map(|e| shrunk.matmul(&Operand::rows(&b, rows(e)))).collect();
    let y = cx.output("y", BF16, [m, n], &base + select(&ids, &second))?;
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        c_lora_base(base.data(), x.data(), w.data(), m, n, k, kernels, stream)?;
        c_lora_shrink(
            shrunk.data(),
            x.data(),
            a.data(),
            ids.data(),
            scalings.data(),
            m,
            k,
            rank,
            adapters,
            kernels,
            stream,
        )?;
        c_lora_expand(
            y.data(),
            base.data(),
            shrunk.data(),
            b.data(),
            ids.data(),
            m,
            n,
            rank,
            adapters,
            kernels,
            stream,
        )?;
    }
    Ok(y)
}

const HEADS: usize = 8;
const KV_HEADS: usize = 4;
const D: usize = 32;
const PAGE: usize = 16;
/// Pages of a sequence.
const PAGES: usize = 3;
/// How long each sequence is, with the chunk that is new.
const LENGTHS: [i32; 4] = [9, 19, 34, 46];

/// A chunk of each sequence goes to an int8 cache of keys and an e4m3 cache of values, and attends to them.
#[accuracy_test(tokens = [24])]
fn c_kv(cx: &mut Case, #[perf(file = "faults/c_kv.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (tokens, seqs) = (cx.tokens(), LENGTHS.len());
    let chunk = tokens / seqs as i32;
    let (width, kv_width) = ((HEADS * D) as i32, (KV_HEADS * D) as i32);
    let pool = seqs * PAGES + 1;
    let tables: Vec<i32> = (0..seqs * PAGES).map(|i| (pool - 1 - i) as i32).collect();
    let of_chunk = |length: i32| (0..chunk).map(move |i| length - chunk + i);
    let positions: Vec<i32> = LENGTHS.into_iter().flat_map(of_chunk).collect();
    let page = PAGE as i32;
    let slot =
        |(t, p): (usize, &i32)| tables[t / chunk as usize * PAGES + (p / page) as usize] * page + p % page;
    let slots: Vec<i32> = positions.iter().enumerate().map(slot).collect();
    let form = PagedAttention::new(HEADS, KV_HEADS, PAGE, 0.01).queries(chunk as usize);
    let q = cx.input("q", BF16, [tokens, width])?;
    let k = cx.input("k", BF16, [tokens, kv_width])?;
    let v = cx.input("v", BF16, [tokens, kv_width])?;
    let table = cx.constants("cos_sin", F32, [PAGE * PAGES, D], &cos_sin_table(PAGE * PAGES, D, 1e4))?;
    let positions = cx.indices("positions", &positions)?;
    let slots = cx.indices("slots", &slots)?;
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("seq_lens", &LENGTHS)?;
    let cache = [pool * PAGE, KV_HEADS * D];
    let of_keys = Quant::group(INT8, D).layout(ScaleLayout::PagedHeads { block: PAGE }).amax_floor(1e-6);
    let of_values = Quant::group(E4M3FN, D)
        .data_layout(DataLayout::PagedValues { block: PAGE, head: D, vector: 8 })
        .amax_floor(1e-6);
    let k_before = cx.inout_quantized("k_cache", of_keys, cache)?;
    let v_before = cx.inout_quantized("v_cache", of_values, cache)?;
    let rotated = rope(&q, &table, &positions, RopeStyle::Neox);
    let q_rotated = cx.output("q_rotated", BF16, [tokens, width], rotated)?;
    let rotated = rope(&k, &table, &positions, RopeStyle::Neox);
    let k_cache = cx.update(&k_before, write_rows(&k_before, &rotated, &slots))?;
    let v_cache = cx.update(&v_before, write_rows(&v_before, &v, &slots))?;
    let attended = paged_attention(&q_rotated, (&k_cache, &v_cache), &tables, &lengths, form);
    let out = cx.output("out", BF16, [tokens, width], attended)?;
    let (heads, kv_heads, stream) = (HEADS as i32, KV_HEADS as i32, cx.stream());
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        let (table, positions) = (table.data(), positions.data());
        c_kv_rotate(q_rotated.data(), q.data(), table, positions, tokens, heads, chunk, kernels, stream)?;
        c_kv_write(
            k_cache.data(),
            k_cache.scales(),
            v_cache.data(),
            v_cache.scales(),
            k.data(),
            v.data(),
            table,
            positions,
            slots.data(),
            tokens,
            kv_heads,
            chunk,
            kernels,
            stream,
        )?;
        c_kv_attend(
            out.data(),
            q_rotated.data(),
            k_cache.data(),
            k_cache.scales(),
            v_cache.data(),
            v_cache.scales(),
            tables.data(),
            lengths.data(),
            tokens,
            heads,
            kv_heads,
            chunk,
            PAGES as i32,
            form.scale as f32,
            kernels,
            stream,
        )?;
    }
    Ok(out)
}

const RANKS: usize = 3;

/// The partial products of three ranks, each of which quantises its own part of K, and their sum in a residual's norm.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [20],
)]
fn c_ar(cx: &mut Case, #[perf(file = "faults/c_ar.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, eps) = (192, 128, 1e-4_f32);
    let (m, stream) = (cx.tokens(), cx.stream());
    let x = cx.input("x", BF16, [m, (RANKS * k) as i32])?;
    let gain = cx.input("gain", BF16, [1, n as i32])?;
    let before = cx.inout("residual", BF16, [m, n as i32])?;
    let (mut codes, mut weights, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for rank in 0..RANKS {
        let columns = rank * k..(rank + 1) * k;
        let form = WeightForm::from(Quant::channel(E4M3FN)).rows(0..n).columns(columns.clone());
        let w = cx.weight_named(&format!("w{rank}"), "w", form)?;
        let scheme = Quant::token(E4M3FN).amax_floor(1e-8);
        let xq = cx.quantized(&format!("xq{rank}"), x.columns(columns), scheme)?;
        parts.push(cx.output(&format!("part{rank}"), BF16, [m, n as i32], xq.matmul(&w))?);
        codes.push(xq);
        weights.push(w);
    }
    let sum = &parts[0] + &parts[1];
    let residual = cx.update(&before, sum + &parts[2] + &before)?;
    let y = cx.output("y", BF16, [m, n as i32], rms_norm(&residual, &gain, f64::from(eps)))?;
    let (n, k) = (n as i32, k as i32);
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        for (rank, xq) in codes.iter().enumerate() {
            let at = rank as i32 * k;
            c_ar_quantise(xq.data(), xq.scales(), x.data(), x.cols(), at, m, k, kernels, stream)?;
        }
        for rank in 0..RANKS {
            let (xq, w, other) = (&codes[rank], &weights[rank], (rank + RANKS - 1) % RANKS);
            c_ar_multiply(
                parts[rank].data(),
                xq.data(),
                xq.scales(),
                w.data(),
                w.scales(),
                codes[other].scales(),
                weights[other].data(),
                rank as i32,
                m,
                n,
                k,
                kernels,
                stream,
            )?;
        }
        let [p0, p1, p2] = [0, 1, 2].map(|rank| parts[rank].data());
        c_ar_norm(y.data(), residual.data(), p0, p1, p2, gain.data(), eps, m, n, kernels, stream)?;
    }
    Ok(y)
}

/// int8 with smoothing, and the outlier columns in bf16.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [34],
)]
fn c_out(cx: &mut Case, #[perf(file = "faults/c_out.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, count) = (144, 256, 24);
    let columns: Vec<i32> = (0..count as i32).map(|i| i * 10 + i * i % 7 + 3).collect();
    let smooth: Vec<f64> = (0..k as i32)
        .map(|i| if columns.contains(&i) { 0.0 } else { f64::from((i * 13 + 3) % 24 + 8) / 32.0 })
        .collect();
    let w = cx.weight("w", WeightForm::from(Quant::channel(INT8)).rows(0..n).columns(0..k))?;
    let form = WeightForm::from(BF16).rows(0..n).columns(k..k + count);
    let wo = cx.weight_named("outlier_weights", "w", form)?;
    let (m, n, k, count) = (cx.tokens(), n as i32, k as i32, count as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let smooth = cx.constants("smooth", BF16, [1, k], &smooth)?;
    let columns = cx.indices("columns", &columns)?;
    let xq = cx.quantized("xq", &x * &smooth, Quant::token(INT8).amax_floor(1e-8))?;
    let picked = cx.output("picked", BF16, [m, count], x.transpose().gather(&columns).transpose())?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w) + picked.matmul(&wo))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        c_out_quantise(xq.data(), xq.scales(), x.data(), smooth.data(), m, k, kernels, stream)?;
        c_out_pick(picked.data(), x.data(), columns.data(), m, k, count, kernels, stream)?;
        let (q, s, picked, wo) = (xq.data(), xq.scales(), picked.data(), wo.data());
        c_out_multiply(y.data(), q, s, w.data(), w.scales(), picked, wo, m, n, k, count, kernels, stream)?;
    }
    Ok(y)
}

/// A GEMM by way of a workspace that only the launcher knows, with a bias and a residual in place.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [40],
)]
fn c_sk(cx: &mut Case, #[perf(file = "faults/c_sk.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, alpha) = (96, 480, 0.75_f32);
    let w = cx.weight("w", WeightForm::from(Quant::channel(E4M3FNUZ)).rows(0..n).columns(0..k))?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let bias: Vec<f64> = (0..n).map(|i| f64::from((i * 31 + 5) % 43) / 8.0 - 2.5).collect();
    let smooth: Vec<f64> = (0..k).map(|i| f64::from((i * 11 + 5) % 27) / 16.0 + 0.375).collect();
    let x = cx.input("x", BF16, [m, k])?;
    let smooth = cx.constants("smooth", BF16, [1, k], &smooth)?;
    let bias = cx.constants("bias", BF16, [1, n], &bias)?;
    let before = cx.inout("hidden", BF16, [m, n])?;
    let scheme = Quant::token(E4M3FNUZ).max(224.0).amax_floor(1e-8);
    let xq = cx.quantized("xq", &x * &smooth, scheme)?;
    let product = xq.matmul(&w).scale(f64::from(alpha));
    let hidden = cx.update(&before, product + &bias + &before)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (q, s) = (xq.data(), xq.scales());
        c_sk_quantise(q, s, x.data(), smooth.data(), m, k, kernels, stream)?;
        let (wq, ws, bias) = (w.data(), w.scales(), bias.data());
        c_sk_multiply(hidden.data(), q, s, wq, ws, bias, alpha, m, n, k, kernels, stream)?;
    }
    Ok(hidden)
}

/// Heads, and the columns of a head of the queries, of a latent, and of a value.
const BATCH: usize = 5;
const NOPE: usize = 40;
const LATENT: usize = 56;
const VALUE: usize = 48;

/// Two products for each head, with a quantiser between them. Rows are `token * heads + head`.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        up = "encoder.layer.0.intermediate.dense",
        value = "encoder.layer.0.output.dense",
    },
    tokens = [12],
)]
fn c_bmm(cx: &mut Case, #[perf(file = "faults/c_bmm.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let tokens = cx.tokens() as usize;
    let rows = (tokens * BATCH) as i32;
    let up = cx.weight("up", WeightForm::from(BF16).rows(0..BATCH * LATENT).columns(0..NOPE))?;
    // Stored as `[latent, value]` for each head, with a scale for each.
    let form = WeightForm::from(Quant::block(E4M3FN, LATENT, VALUE));
    let value = cx.weight("value", form.rows(0..BATCH * LATENT).columns(0..VALUE))?;
    let q = cx.input("q", BF16, [rows, NOPE as i32])?;
    let heads: Vec<i32> = (0..rows).map(|row| row % BATCH as i32).collect();
    let by = cx.indices("heads", &heads)?;
    let of = |h: usize| h * LATENT..(h + 1) * LATENT;
    let each: Vec<Expr> = (0..BATCH).map(|h| q.matmul(&Operand::rows(&up, of(h)))).collect();
    let latent = cx.output("latent", BF16, [rows, LATENT as i32], select(&by, &each))?;
    let xq = cx.quantized("xq", &latent, Quant::token(E4M3FN).amax_floor(1e-8))?;
    let each: Vec<Expr> = (0..BATCH).map(|h| xq.matmul(&Operand::rows(&value, of(h)).transpose())).collect();
    let shape = Shape::from([rows, VALUE as i32]).row_stride(56);
    let out = cx.output("out", BF16, shape, select(&by, &each))?;
    let (m, heads, stream) = (tokens as i32, BATCH as i32, cx.stream());
    let (nope, r, d, stride) = (NOPE as i32, LATENT as i32, VALUE as i32, out.row_stride());
    // SAFETY: every buffer has the shape and the strides that are passed with it.
    unsafe {
        c_bmm_absorb(latent.data(), q.data(), up.data(), m, heads, nope, r, kernels, stream)?;
        c_bmm_quantise(xq.data(), xq.scales(), latent.data(), m, heads, r, kernels, stream)?;
        let (q, s, w, ws) = (xq.data(), xq.scales(), value.data(), value.scales());
        c_bmm_project(out.data(), stride, q, s, w, ws, m, heads, r, d, kernels, stream)?;
    }
    Ok(out)
}

const EXPERTS: usize = 6;
const TOPK: usize = 2;

/// Experts are chosen, tokens permuted, quantised, multiplied, and permuted back.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [21],
)]
fn c_route(
    cx: &mut Case,
    #[perf(file = "faults/c_route.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    let (n, k) = (80, 128);
    let form = WeightForm::from(Quant::block(E4M3FN, 16, 32));
    let w = cx.weight("w", form.rows(0..EXPERTS * n).columns(0..k))?;
    let (m, topk, experts) = (cx.tokens(), TOPK as i32, EXPERTS as i32);
    let rows = m * topk;
    // No two of a token are equal, and each expert is chosen by several tokens.
    let logits: Vec<f64> = (0..m * experts).map(|i| f64::from((i * 37 + 11) % 64) / 8.0 - 4.0).collect();
    let x = cx.input("x", BF16, [m, k as i32])?;
    let logits = cx.constants("logits", F32, [m, experts], &logits)?;
    let weights = cx.output("weights", F32, [m, topk], topk_weights(&logits, TOPK, true))?;
    let ids = cx.output("ids", INT32, [m, topk], topk_experts(&logits, TOPK))?;
    let sorted = cx.output("sorted", INT32, [1, rows], rows_by_expert(&ids))?;
    // A permutation sorted by its own values is its inverse.
    let inverse = cx.output("inverse", INT32, [1, rows], rows_by_expert(&sorted))?;
    let offsets = cx.output("offsets", INT32, [1, experts + 1], expert_offsets(&ids, EXPERTS))?;
    let scheme = Quant::token(E4M3FN).amax_floor(1e-8);
    let xq = cx.quantized("xq", x.repeat_rows(TOPK).gather(&sorted), scheme)?;
    let by_slot = xq.gather(&inverse);
    let each: Vec<Expr> =
        (0..EXPERTS).map(|e| by_slot.matmul(&Operand::rows(&w, e * n..(e + 1) * n))).collect();
    let (n, k) = (n as i32, k as i32);
    let down = cx.output("down", BF16, [rows, n], select(&ids, &each).gather(&sorted))?;
    let y = cx.output("y", BF16, [m, n], weighted_sum(&down.gather(&inverse), &weights))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        c_route_choose(weights.data(), ids.data(), logits.data(), m, experts, topk, kernels, stream)?;
        let (ids, sorted, inverse, offsets) = (ids.data(), sorted.data(), inverse.data(), offsets.data());
        c_route_sort(sorted, inverse, offsets, ids, rows, experts, kernels, stream)?;
        c_route_permute(xq.data(), xq.scales(), x.data(), sorted, m, topk, k, kernels, stream)?;
        c_route_multiply(
            down.data(),
            xq.data(),
            xq.scales(),
            w.data(),
            w.scales(),
            sorted,
            offsets,
            rows,
            experts,
            n,
            k,
            kernels,
            stream,
        )?;
        c_route_combine(y.data(), down.data(), weights.data(), sorted, inverse, m, topk, n, kernels, stream)?;
    }
    Ok(y)
}

/// A fused gate and up projection with 4-bit weights, the activation in MXFP8, and the down projection.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = {
        gate_up = "encoder.layer.0.intermediate.dense",
        down = "encoder.layer.0.output.dense",
    },
    tokens = [24],
)]
fn c_gu(cx: &mut Case, #[perf(file = "faults/c_gu.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (inner, n, k) = (96, 80, 128);
    let int4 = Quant::group(UINT4, 32).zero_point(ZeroPoint::per_cell(UINT4, RowMajor));
    let w = cx.weight("gate_up", WeightForm::from(int4).rows(0..2 * inner).columns(0..k))?;
    let mxfp8 = Quant::group(E4M3FN, 32).scales(E8M0, ScaleRounding::Ceil);
    let w2 = cx.weight("down", WeightForm::from(mxfp8).rows(0..n).columns(0..inner))?;
    let (m, wide, stream) = (cx.tokens(), 2 * inner as i32, cx.stream());
    let x = cx.input("x", BF16, [m, k as i32])?;
    let h = cx.output("h", BF16, [m, wide], x.matmul(&w))?;
    let activated = silu(&h.columns(0..inner)) * h.columns(inner..2 * inner);
    let hq = cx.quantized("hq", activated, mxfp8.layout(ScaleLayout::E8m0ShuffleTile))?;
    let (inner, n, k) = (inner as i32, n as i32, k as i32);
    let y = cx.output("y", BF16, [m, n], hq.matmul(&w2))?;
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (wq, ws, zeros) = (w.data(), w.scales(), w.zero_points());
        c_gu_project(h.data(), x.data(), wq, ws, zeros, m, wide, k, kernels, stream)?;
        c_gu_activate(hq.data(), hq.scales(), h.data(), m, inner, kernels, stream)?;
        let (q, s) = (hq.data(), hq.scales());
        c_gu_down(y.data(), q, s, w2.data(), w2.scales(), m, n, inner, kernels, stream)?;
    }
    Ok(y)
}
