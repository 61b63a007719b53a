//! Decoding attention: rotary embedding, FP8 KV-cache write, paged attention with two query heads to a key head.

use accuracy_core::prelude::*;
use kernels::*;
use model::{cos_sin_table, paged_attention, rope, write_rows};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const D: usize = 64;
/// Positions of a block, and blocks of a sequence.
const BLOCK: usize = 16;
const BLOCKS: usize = 3;

/// Where the sequences lie: lengths from 1 to three blocks, blocks in descending order with one left over.
struct Paging {
    lengths: Vec<i32>,
    tables: Vec<i32>,
    /// Position and slot of each sequence's new token.
    positions: Vec<i32>,
    slots: Vec<i32>,
    rows: usize,
}

fn paging(seqs: usize) -> Paging {
    let pool = seqs * BLOCKS + 1;
    let lengths: Vec<i32> = (0..seqs).map(|s| ((36 + s * 19) % (BLOCK * BLOCKS)) as i32 + 1).collect();
    let tables: Vec<i32> = (0..seqs * BLOCKS).map(|i| (pool - 1 - i) as i32).collect();
    let positions: Vec<i32> = lengths.iter().map(|length| length - 1).collect();
    let block = BLOCK as i32;
    let slot = |(s, p): (usize, &i32)| tables[s * BLOCKS + (p / block) as usize] * block + p % block;
    let slots = positions.iter().enumerate().map(slot).collect();
    Paging { lengths, tables, positions, slots, rows: pool * BLOCK }
}

/// `tokens` is the number of sequences, each of which has one new token.
#[accuracy_test(tokens = [1, 9])]
fn decode(
    cx: &mut Case,
    #[variants(E4M3FN, E4M3FNUZ)] dtype: DType,
    #[paths(primary = rope_kv_write, fallback = rope_kv_write_fallback)] write: RopeKvWrite,
    #[values(RopeStyle::Neox, RopeStyle::GptJ)] style: RopeStyle,
) -> Result<Tensor> {
    let (seqs, format) = (cx.tokens(), format_code(dtype)?);
    let (heads, kv_heads, d) = (HEADS as i32, KV_HEADS as i32, D as i32);
    let paging = paging(seqs as usize);
    // Inputs here are larger than a model's: the softmax would have one winner with 1 / sqrt(d).
    let form = PagedAttention::new(HEADS, KV_HEADS, BLOCK, 1.0 / 512.0);
    let q = cx.input("q", BF16, [seqs, heads * d])?;
    let k = cx.input("k", BF16, [seqs, kv_heads * d])?;
    let v = cx.input("v", BF16, [seqs, kv_heads * d])?;
    let table = cx.constants("cos_sin", F32, [BLOCK * BLOCKS, D], &cos_sin_table(BLOCK * BLOCKS, D, 1e4))?;
    let positions = cx.indices("positions", &paging.positions)?;
    let slots = cx.indices("slots", &paging.slots)?;
    let tables = cx.indices("block_tables", &paging.tables)?;
    let lengths = cx.indices("seq_lens", &paging.lengths)?;
    let cache = [paging.rows, KV_HEADS * D];
    let k_before = cx.inout_quantized("k_cache", Quant::tensor(dtype).static_scale(0.25), cache)?;
    let v_before = cx.inout_quantized("v_cache", Quant::tensor(dtype).static_scale(0.4), cache)?;

    let q_rotated = cx.output("q_rotated", BF16, [seqs, heads * d], rope(&q, &table, &positions, style))?;
    let rotated = rope(&k, &table, &positions, style);
    let k_cache = cx.update(&k_before, write_rows(&k_before, &rotated, &slots))?;
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
            format,
            style == RopeStyle::Neox,
            cx.stream(),
        )?;
        paged_decode(
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
            BLOCK as i32,
            BLOCKS as i32,
            form.scale as f32,
            format,
            cx.stream(),
        )?;
    }
    Ok(out)
}
