//! AITER's attention kernels against float64: paged decode, MLA decode, flash attention forward.

use accuracy_core::prelude::*;
use aiter_kernels::attention::*;
use model::{Attention, attention_lse, attention_of, paged_attention, paged_attention_lse};

#[path = "declared/attention.rs"]
mod declared;
use declared::{Cache, Declared, decode, fp8};

/// `tokens` is the number of sequences.
#[accuracy_test(
    tokens = [1, 3],
    benign(
        finding = "missing_wait",
        reason = "a few hundred instructions after the load, or a barrier behind vector memory: in time on devices",
    ),
)]
fn paged(
    cx: &mut Case,
    #[values(8, 16)] gqa: usize,
    #[values(Cache::Bf16, Cache::Fp8, Cache::Int8)] cache: Cache,
) -> Result<Tensor> {
    let declared = Declared::new(cache, gqa, cx.arch());
    decode(cx, cache, declared)
}

/// Probabilities stay in bfloat16.
#[accuracy_test(
    tokens = [2],
    benign(
        finding = "missing_wait",
        reason = "a few hundred instructions after the load, or a barrier behind vector memory: in time on devices",
    ),
)]
fn paged_high_precision(cx: &mut Case) -> Result<Tensor> {
    let declared = Declared { high_precision: true, ..Declared::new(Cache::Fp8, 8, cx.arch()) };
    decode(cx, Cache::Fp8, declared)
}

/// Two query tokens of each sequence, of which the first does not see the second.
#[accuracy_test(
    tokens = [2],
    benign(
        finding = "missing_wait",
        reason = "a few hundred instructions after the load, or a barrier behind vector memory: in time on devices",
    ),
)]
fn paged_two_tokens(
    cx: &mut Case,
    #[values(8, 16)] gqa: usize,
    #[values(Cache::Fp8, Cache::Int8)] cache: Cache,
) -> Result<Tensor> {
    let declared = Declared { queries: 2, ..Declared::new(cache, gqa, cx.arch()) };
    decode(cx, cache, declared)
}

/// The same over a cache in bfloat16.
#[accuracy_test(
    tokens = [2],
    benign(
        finding = "missing_wait",
        reason = "a few hundred instructions after the load, or a barrier behind vector memory: in time on devices",
    ),
)]
fn paged_two_tokens_bf16(cx: &mut Case) -> Result<Tensor> {
    let declared = Declared { queries: 2, ..Declared::new(Cache::Bf16, 8, cx.arch()) };
    decode(cx, Cache::Bf16, declared)
}

/// MLA decode with 16 heads: values are the first 512 columns of the one key head.
#[accuracy_test(tokens = [1, 3])]
fn mla(cx: &mut Case) -> Result<Tensor> {
    mla_of(cx, BF16)
}

/// The same in FP8, whose probabilities become FP8, too. It writes bfloat16, and no log-sum-exp.
#[accuracy_test(tokens = [1, 3])]
fn mla_fp8(cx: &mut Case) -> Result<Tensor> {
    let dtype = fp8(cx.arch());
    mla_of(cx, dtype)
}

fn mla_of(cx: &mut Case, dtype: DType) -> Result<Tensor> {
    const HEADS: usize = 16;
    let (sequences, key, value) = (cx.tokens() as usize, MLA_KEY as usize, MLA_VALUE as usize);
    let lengths: Vec<i32> = (0..sequences).map(|s| (37 + 113 * s as i32) % 250 + 1).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    let mut starts = vec![0];
    lengths.iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
    let used = starts[sequences] as usize;
    let pages: Vec<i32> = (0..used).map(|i| (used - i) as i32).collect();
    // What the reference reads: a row of the same pages for each sequence.
    let row = |s: usize| {
        let own = starts[s]..starts[s + 1];
        let filled = own.map(|i| pages[i as usize]);
        filled.chain(std::iter::repeat(0)).take(longest).collect::<Vec<i32>>()
    };
    let table: Vec<i32> = (0..sequences).flat_map(row).collect();
    let scale = 1.0 / 4096.0;
    let mut given = |name: &str, shape: [usize; 2]| match dtype {
        BF16 => cx.input(name, BF16, shape),
        _ => cx.input_quantized(name, Quant::tensor(dtype), shape),
    };
    let q = given("q", [sequences, HEADS * key])?;
    let kv = given("kv_cache", [used + 1, key])?;
    let starts = cx.indices("kv_offsets", &starts)?;
    let pages = cx.indices("pages", &pages)?;
    let last = cx.indices("last_page_lengths", &vec![1; sequences])?;
    let table = cx.indices("block_tables", &table)?;
    let lengths = cx.indices("lengths", &lengths)?;
    let form = PagedAttention::new(HEADS, 1, 1, scale).value_width(value).probabilities(dtype);
    let lse = match dtype {
        BF16 => {
            let lse = paged_attention_lse(&q, &kv, &table, &lengths, form);
            cx.output("lse", F32, [sequences, HEADS], lse)?.data()
        }
        _ => DevPtr::null(),
    };
    let attended = paged_attention(&q, (&kv, &kv), &table, &lengths, form);
    let out =
        cx.output("out", if dtype == BF16 { F32 } else { BF16 }, [sequences, HEADS * value], attended)?;
    let given = Mla {
        out: out.data(),
        lse,
        q: q.data(),
        kv: kv.data(),
        kv_offsets: starts.data(),
        pages: pages.data(),
        last_page_lengths: last.data(),
        scales: (dtype != BF16).then(|| [q.scales(), kv.scales()]),
    };
    // SAFETY: every buffer has the shape that is said of it.
    unsafe { mla_decode(given, sequences as i32, scale as f32, cx.stream())? };
    Ok(out)
}

/// Flash attention of few enough positions that one of them, left out, is more than the rounding of probabilities.
#[accuracy_test(tokens = [24])]
fn flash(cx: &mut Case, #[values(false, true)] causal: bool) -> Result<Tensor> {
    flash_of(cx, causal, 2)
}

/// Many tiles of positions, of which the first queries see few. The kernel takes eight heads in another order than two.
#[accuracy_test(tokens = [160])]
fn flash_causal(cx: &mut Case, #[values(2, 8)] heads: usize) -> Result<Tensor> {
    flash_of(cx, true, heads)
}

/// One batch, `tokens` queries over 40 positions more; two heads share a key head.
fn flash_of(cx: &mut Case, causal: bool, heads: usize) -> Result<Tensor> {
    let kv_heads = heads / 2;
    let (queries, head) = (cx.tokens() as usize, HEAD as usize);
    let positions = queries + 40;
    let scale = 1.0 / 1024.0;
    let q = cx.input("q", BF16, [queries, heads * head])?;
    let k = cx.input("k", BF16, [positions, kv_heads * head])?;
    let v = cx.input("v", BF16, [positions, kv_heads * head])?;
    let of = Attention { sequences: 1, heads, kv_heads, scale, causal, probabilities: Some(BF16) };
    let lse = cx.output("lse", F32, [heads, queries], attention_lse(&q, &k, of).transpose())?;
    let out = cx.output("out", BF16, [queries, heads * head], attention_of(&q, (&k, &v), of))?;
    let given = Flash { out: out.data(), lse: lse.data(), q: q.data(), k: k.data(), v: v.data() };
    let form = FlashForm {
        batches: 1,
        queries: queries as i32,
        positions: positions as i32,
        heads: heads as i32,
        kv_heads: kv_heads as i32,
        causal,
        scale: scale as f32,
    };
    // SAFETY: every buffer has the shape that `form` says.
    unsafe { flash_forward(cx.arch(), given, form, cx.stream())? };
    Ok(out)
}
