//! Every fault of every chain is a case. Most of them fail, as they should.

use accuracy_core::prelude::*;
use kernel_faults::*;
use model::{PagedAttention, cos_sin_table, paged_attention, paged_attention_with_sinks, write_rows};

/// Two parts of K whose sum is the result.
#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [37],
)]
fn bs(cx: &mut Case, #[perf(file = "faults/bs.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, split) = (304, 416, 256);
    let form = WeightForm::from(Quant::block(E4M3FN, 128, 128)).data_layout(DataLayout::PRESHUFFLE_16X16);
    let w = cx.weight("w", form.rows(0..n).columns(0..k))?;
    let (m, n, k, at) = (cx.tokens(), n as i32, k as i32, split as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let mut scheme = Quant::group(E4M3FN, 128).amax_floor(1e-10).layout(ColMajor);
    if (200..300).contains(&kernels) {
        scheme = scheme.scales(F32, ScaleRounding::PowerOfTwo);
    }
    let xq = cx.quantized("xq", &x, scheme)?;
    let part = |range: std::ops::Range<usize>| {
        Operand::columns(&xq, range.clone()).matmul(&Operand::columns(&w, range))
    };
    let p0 = cx.output("p0", F32, [m, n], part(0..split))?;
    let p1 = cx.output("p1", F32, [m, n], part(split..k as usize))?;
    let y = cx.output("y", BF16, [m, n], &p0 + &p1)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        bs_quantise(xq.data(), xq.scales(), x.data(), m, k, kernels, stream)?;
        for (p, from, to) in [(&p0, 0, at), (&p1, at, k)] {
            let (xq, xs) = (xq.data(), xq.scales());
            bs_multiply(p.data(), xq, xs, w.data(), w.scales(), m, n, k, from, to, kernels, stream)?;
        }
        bs_reduce(y.data(), p0.data(), p1.data(), m * n, kernels, stream)?;
    }
    Ok(y)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [37],
)]
fn rn(cx: &mut Case, #[perf(file = "faults/rn.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, eps) = (176, 320, 1e-5_f32);
    let w = cx.weight("w", WeightForm::from(Quant::channel(E4M3FN)).rows(0..n).columns(0..k))?;
    let bias: Vec<f64> = (0..n).map(|i| ((i * 29 + 7) % 41) as f64 / 8.0 - 2.5).collect();
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let before = cx.inout("residual", BF16, [m, k])?;
    let gain = cx.input("gain", BF16, [1, k])?;
    let bias = cx.constants("bias", BF16, [1, n], &bias)?;
    let residual = cx.update(&before, &x + &before)?;
    let normed = rms_norm(&residual, &gain, f64::from(eps));
    let xq = cx.quantized("xq", normed, Quant::token(E4M3FN))?;
    let y = cx.output("y", BF16, [m, n], xq.matmul(&w) + &bias)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (q, s) = (xq.data(), xq.scales());
        rn_norm(residual.data(), q, s, x.data(), gain.data(), eps, m, k, kernels, stream)?;
        rn_multiply(y.data(), q, s, w.data(), w.scales(), bias.data(), m, n, k, kernels, stream)?;
    }
    Ok(y)
}

const TOPK: usize = 3;
const EXPERTS: usize = 5;

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.intermediate.dense" },
    tokens = [29],
)]
fn moe(cx: &mut Case, #[perf(file = "faults/moe.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, tokens) = (160, 192, cx.tokens() as usize);
    let rows = tokens * TOPK;
    let form = WeightForm::from(Quant::block(E4M3FN, 32, 64));
    let w = cx.weight("w", form.rows(0..EXPERTS * n).columns(0..k))?;
    let gate_up = cx.input("gate_up", BF16, [rows as i32, 2 * k as i32])?;
    let values: Vec<f64> = (0..rows).map(|i| f64::from(((i * 17 + 5) % 37) as f32 / 37.0 + 0.05)).collect();
    // Three experts of each token, none twice.
    let ids: Vec<i32> =
        (0..rows).map(|i| ((i / TOPK * 3 + i / TOPK / 4 + i % TOPK * 2) % EXPERTS) as i32).collect();
    let mut sorted: Vec<i32> = Vec::new();
    for expert in 0..EXPERTS as i32 {
        sorted.extend((0..rows as i32).filter(|&slot| ids[slot as usize] == expert));
        sorted.resize(sorted.len().next_multiple_of(4), -1);
    }
    let positions = sorted.len() as i32;
    let weights = cx.constants("weights", F32, [tokens as i32, TOPK as i32], &values)?;
    let ids = cx.indices("ids", &ids)?;
    let sorted = cx.indices("sorted", &sorted)?;
    let (gate, up) = (gate_up.columns(0..k), gate_up.columns(k..2 * k));
    let hq = cx.quantized("hq", silu(&gate) * up, Quant::group(E4M3FN, 64))?;
    let each: Vec<Expr> = (0..EXPERTS).map(|e| hq.matmul(&Operand::rows(&w, e * n..(e + 1) * n))).collect();
    let weighted = user("row_weight", &[&select(&ids, &each), &weights], (rows, n), |of| {
        let mut out = of[0].clone();
        for r in 0..out.rows {
            out.row_mut(r).iter_mut().for_each(|x| *x *= of[1].data[r]);
        }
        out
    });
    let (m, n, k, topk) = (tokens as i32, n as i32, k as i32, TOPK as i32);
    let down = cx.output("down", BF16, [rows as i32, n], weighted)?;
    let mut of_slots = Vec::new();
    for s in 0..TOPK {
        let rows: Vec<i32> = (0..tokens).map(|t| (t * TOPK + s) as i32).collect();
        of_slots.push(down.gather(&cx.indices(&format!("slot{s}"), &rows)?));
    }
    let sum = &of_slots[0] + &of_slots[1];
    let y = cx.output("y", BF16, [m, n], sum + &of_slots[2])?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        moe_activate(hq.data(), hq.scales(), gate_up.data(), m * topk, k, kernels, stream)?;
        moe_multiply(
            down.data(),
            hq.data(),
            hq.scales(),
            w.data(),
            w.scales(),
            weights.data(),
            ids.data(),
            sorted.data(),
            positions,
            n,
            k,
            topk,
            kernels,
            stream,
        )?;
        moe_combine(y.data(), down.data(), m, n, topk, kernels, stream)?;
    }
    Ok(y)
}

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const D: usize = 32;
const PAGE: usize = 8;
const PAGES: usize = 6;
const WINDOW: usize = 12;
const SCALE: f64 = 1.0 / 64.0;

/// `tokens` is the number of sequences.
#[accuracy_test(tokens = [7])]
fn att(cx: &mut Case, #[perf(file = "faults/att.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    attention(cx, kernels, Windowed::No)
}

/// The same with a window and sinks, as the framework has them.
#[accuracy_test(tokens = [7])]
fn window(
    cx: &mut Case,
    #[perf(file = "faults/window.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    attention(cx, kernels, Windowed::Declared)
}

/// The same as a function of the test.
#[accuracy_test(tokens = [7])]
fn user_window(
    cx: &mut Case,
    #[perf(file = "faults/user_window.csv", column = "name")] kernels: i32,
) -> Result<Tensor> {
    attention(cx, kernels, Windowed::OfTheTest)
}

#[derive(PartialEq)]
enum Windowed {
    No,
    Declared,
    OfTheTest,
}

fn attention(cx: &mut Case, kernels: i32, windowed: Windowed) -> Result<Tensor> {
    let seqs = cx.tokens() as usize;
    let pool = seqs * PAGES + 1;
    let lengths: Vec<i32> = (0..seqs).map(|s| ((41 + 17 * s) % 47 + 1) as i32).collect();
    let tables: Vec<i32> = (0..seqs * PAGES).map(|i| ((i * 5 + 3) % pool) as i32).collect();
    let scheme = Quant::block(E4M3FN, pool * PAGE, D);
    let cache = [pool * PAGE, KV_HEADS * D];
    let q = cx.input("q", BF16, [seqs as i32, (HEADS * D) as i32])?;
    let k_cache = cx.inout_quantized("k_cache", scheme, cache)?;
    let v_cache = cx.inout_quantized("v_cache", scheme, cache)?;
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("seq_lens", &lengths)?;
    let sinks: Vec<f64> = (0..HEADS).map(|h| 4.0 - 1.5 * h as f64).collect();
    let sinks = cx.constants("sinks", F32, [1, HEADS as i32], &sinks)?;
    let form = PagedAttention::new(HEADS, KV_HEADS, PAGE, SCALE);
    let caches = (&k_cache, &v_cache);
    let attended = match windowed {
        Windowed::No => paged_attention(&q, caches, &tables, &lengths, form),
        Windowed::Declared => {
            paged_attention_with_sinks(&q, caches, &tables, &lengths, &sinks, form.window(WINDOW))
        }
        Windowed::OfTheTest => {
            let inputs: [&dyn Operand; 6] = [&q, &k_cache, &v_cache, &tables, &lengths, &sinks];
            user("windowed_attention", &inputs, (seqs, HEADS * D), windowed_attention)
        }
    };
    let out = cx.output("out", BF16, [seqs as i32, (HEADS * D) as i32], attended)?;
    let plain = windowed == Windowed::No;
    // SAFETY: every buffer has the shape that is passed with it; without sinks their pointer is null.
    unsafe {
        att_decode(
            out.data(),
            q.data(),
            k_cache.data(),
            v_cache.data(),
            k_cache.scales(),
            v_cache.scales(),
            tables.data(),
            lengths.data(),
            if plain { DevPtr::null() } else { sinks.data() },
            seqs as i32,
            HEADS as i32,
            KV_HEADS as i32,
            PAGE as i32,
            PAGES as i32,
            if plain { 0 } else { WINDOW as i32 },
            SCALE as f32,
            kernels,
            cx.stream(),
        )?;
    }
    Ok(out)
}

fn windowed_attention(of: &[&Matrix]) -> Matrix {
    let [q, k, v, tables, lengths, sinks] = of else { unreachable!("six inputs") };
    let mut out = Matrix::zeros(q.rows, q.cols);
    for s in 0..q.rows {
        let length = lengths.data[s] as usize;
        let seen: Vec<usize> = (length.saturating_sub(WINDOW)..length)
            .map(|p| tables.data[s * PAGES + p / PAGE] as usize * PAGE + p % PAGE)
            .collect();
        for h in 0..HEADS {
            let kv = h / (HEADS / KV_HEADS) * D;
            let query = &q.row(s)[h * D..(h + 1) * D];
            let score = |&slot: &usize| {
                SCALE * query.iter().zip(&k.row(slot)[kv..kv + D]).map(|(a, b)| a * b).sum::<f64>()
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let largest = scores.iter().copied().fold(sinks.data[h], f64::max);
            let exp: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
            let total = exp.iter().sum::<f64>() + (sinks.data[h] - largest).exp();
            let to = &mut out.row_mut(s)[h * D..(h + 1) * D];
            for (slot, e) in seen.iter().zip(&exp) {
                to.iter_mut().zip(&v.row(*slot)[kv..kv + D]).for_each(|(to, v)| *to += e / total * v);
            }
        }
    }
    out
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [37],
)]
fn sq(cx: &mut Case, #[perf(file = "faults/sq.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k, eps) = (200, 272, 1e-5_f32);
    let scheme = Quant::channel(INT8).zero_point(ZeroPoint::per_cell(INT8, RowMajor));
    let w = cx.weight("w", WeightForm::from(scheme).rows(0..n).columns(0..k))?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let bias: Vec<f64> = (0..n).map(|i| f64::from((i * 29 + 7) % 41) / 16.0 - 1.25).collect();
    let smooth: Vec<f64> = (0..k).map(|i| f64::from((i * 13 + 3) % 29) / 16.0 + 0.25).collect();
    let x = cx.input("x", BF16, [m, k])?;
    let gain = cx.input("gain", BF16, [1, k])?;
    let norm_bias = cx.input("norm_bias", BF16, [1, k])?;
    let smooth = cx.constants("smooth", BF16, [1, k], &smooth)?;
    let bias = cx.constants("bias", BF16, [1, n], &bias)?;
    let normed = layer_norm(&x, &gain, &norm_bias, f64::from(eps)) * &smooth;
    let xq = cx.quantized("xq", normed, Quant::token(INT8))?;
    let y = cx.output("y", BF16, [m, n], gelu(&(xq.matmul(&w) + &bias)))?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (q, s) = (xq.data(), xq.scales());
        let (gain, shift, smooth) = (gain.data(), norm_bias.data(), smooth.data());
        sq_norm(q, s, x.data(), gain, shift, smooth, eps, m, k, kernels, stream)?;
        let (wq, ws, zeros) = (w.data(), w.scales(), w.zero_points());
        sq_multiply(y.data(), q, s, wq, ws, zeros, bias.data(), m, n, k, kernels, stream)?;
    }
    Ok(y)
}

const HEAD: usize = 48;
const ROTATED: usize = 24;

/// The heads of `x` normed by `gain` and the first part of each rotated.
fn normed_and_rotated(of: &[&Matrix]) -> Matrix {
    let [x, gain, table, positions] = of else { unreachable!("four inputs") };
    let mut out = (*x).clone();
    for r in 0..x.rows {
        let angles = table.row(positions.data[r] as usize);
        for head in out.row_mut(r).chunks_mut(HEAD) {
            let root = (head.iter().map(|x| x * x).sum::<f64>() / HEAD as f64 + 1e-6).sqrt();
            head.iter_mut().zip(&gain.data).for_each(|(x, g)| *x *= g / root);
            let half = ROTATED / 2;
            for i in 0..half {
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angles[i] - b * angles[half + i];
                head[i + half] = b * angles[i] + a * angles[half + i];
            }
        }
    }
    out
}

#[accuracy_test(tokens = [11])]
fn qk(cx: &mut Case, #[perf(file = "faults/qk.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let tokens = cx.tokens();
    let (heads, kv_heads, count) = (4, 2, tokens as usize);
    let (width, kv_width) = (heads * HEAD as i32, kv_heads * HEAD as i32);
    let q = cx.input("q", BF16, [tokens, width])?;
    let k = cx.input("k", BF16, [tokens, kv_width])?;
    let v = cx.input("v", BF16, [tokens, kv_width])?;
    let q_gain = cx.input("q_gain", BF16, [1, HEAD as i32])?;
    let k_gain = cx.input("k_gain", BF16, [1, HEAD as i32])?;
    let table = cx.constants("cos_sin", F32, [64, ROTATED as i32], &cos_sin_table(64, ROTATED, 1e4))?;
    let positions: Vec<i32> = (0..tokens).map(|t| (t * 7 + 5) % 60).collect();
    let slots: Vec<i32> = (0..tokens).map(|t| if t == 2 { -1 } else { (t * 13 + 3) % 40 }).collect();
    let positions = cx.indices("positions", &positions)?;
    let slots = cx.indices("slots", &slots)?;
    let cache = [40, kv_width as usize];
    let k_before = cx.inout_quantized("k_cache", Quant::tensor(E4M3FN).static_scale(0.25), cache)?;
    let v_before = cx.inout_quantized("v_cache", Quant::tensor(E4M3FN).static_scale(0.4), cache)?;
    let of = |x: &Tensor, gain: &Tensor| {
        let shape = (count, x.cols() as usize);
        user("norm_rope", &[x, gain, &table, &positions], shape, normed_and_rotated)
    };
    let q_out = cx.output("q_out", BF16, [tokens, width], of(&q, &q_gain))?;
    let k_cache = cx.update(&k_before, write_rows(&k_before, &of(&k, &k_gain), &slots))?;
    let v_cache = cx.update(&v_before, write_rows(&v_before, &v, &slots))?;
    // SAFETY: every buffer has the shape that is passed with it, and every index is in range.
    unsafe {
        qk_write(
            q_out.data(),
            k_cache.data(),
            v_cache.data(),
            q.data(),
            k.data(),
            v.data(),
            q_gain.data(),
            k_gain.data(),
            table.data(),
            positions.data(),
            slots.data(),
            k_cache.scales(),
            v_cache.scales(),
            1e-6,
            tokens,
            heads,
            kv_heads,
            kernels,
            cx.stream(),
        )?;
    }
    Ok(q_out)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [37],
)]
fn mx(cx: &mut Case, #[perf(file = "faults/mx.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k) = (144, 352);
    let scheme = Quant::group(E2M1, 32).scales(E8M0, ScaleRounding::Even).layout(ScaleLayout::E8m0Shuffle);
    let w = cx.weight("w", WeightForm::from(scheme).rows(0..n).columns(0..k))?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let x = cx.input("x", BF16, [m, k])?;
    let before = cx.inout("hidden", BF16, [m, n])?;
    let xq = cx.quantized("xq", &x, scheme)?;
    let hidden = cx.update(&before, xq.matmul(&w) + &before)?;
    let stream = cx.stream();
    // SAFETY: every buffer has the shape that is passed with it.
    unsafe {
        let (q, s) = (xq.data(), xq.scales());
        mx_quantise(q, s, x.data(), m, k, kernels, stream)?;
        mx_multiply(hidden.data(), q, s, w.data(), w.scales(), m, n, k, kernels, stream)?;
    }
    Ok(hidden)
}

#[accuracy_test(
    checkpoint = "../../kernels/shards/minilm-bf16",
    weights = { w = "encoder.layer.0.output.dense" },
    tokens = [37],
)]
fn st(cx: &mut Case, #[perf(file = "faults/st.csv", column = "name")] kernels: i32) -> Result<Tensor> {
    let (n, k) = (200, 272);
    let w = cx.weight("w", WeightForm::from(Quant::channel(INT8)).rows(0..n).columns(0..k))?;
    let (m, n, k) = (cx.tokens(), n as i32, k as i32);
    let x = cx.input("x", BF16, Shape::from([m, k]).row_stride(304))?;
    let xq = cx.quantized("xq", &x, Quant::token(INT8))?;
    let y = cx.output("y", BF16, Shape::from([m, n]).row_stride(224), xq.matmul(&w).scale(0.5))?;
    let (ldx, ldy, stream) = (x.leading_dimension(), y.leading_dimension(), cx.stream());
    // SAFETY: every buffer has the shape and the strides that are passed with it.
    unsafe {
        let (q, s) = (xq.data(), xq.scales());
        st_quantise(q, s, x.data(), ldx, m, k, kernels, stream)?;
        st_multiply(y.data(), ldy, q, s, w.data(), w.scales(), m, n, k, kernels, stream)?;
    }
    Ok(y)
}
