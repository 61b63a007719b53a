//! What paged decode is declared as.

use accuracy_core::prelude::*;
use aiter_kernels::attention::*;
use model::paged_attention;

/// Key heads of paged decode.
const KV_HEADS: usize = 2;
/// Blocks of a sequence at the most: more positions than the 256 of which probabilities share a scale.
const BLOCKS: usize = 20;

/// The format of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cache {
    Bf16,
    Fp8,
    Int8,
}

/// The FP8 that the architecture multiplies.
pub fn fp8(arch: Arch) -> DType {
    if arch == Arch::Gfx942 { E4M3FNUZ } else { E4M3FN }
}

/// Sequences of lengths from a few positions to nearly all blocks, their blocks in descending order.
struct Paging {
    lengths: Vec<i32>,
    tables: Vec<i32>,
    slots: usize,
}

fn paging(sequences: usize) -> Paging {
    let (block, pool) = (BLOCK as usize, sequences * BLOCKS + 1);
    let length = |s: usize| (37 + s * 118) % (block * BLOCKS) + 3;
    Paging {
        lengths: (0..sequences).map(|s| length(s) as i32).collect(),
        tables: (0..sequences * BLOCKS).map(|i| (pool - 1 - i) as i32).collect(),
        slots: pool * block,
    }
}

/// What a test says of the kernel that it launches, where it may say something wrong.
#[derive(Clone, Copy)]
pub struct Declared {
    pub dtype: DType,
    /// Elements of a run in the caches' layouts.
    pub vector: usize,
    /// The layout of the scales.
    pub scales: ScaleLayout,
    pub queries: usize,
    pub high_precision: bool,
    pub gqa: usize,
}

impl Declared {
    pub fn new(cache: Cache, gqa: usize, arch: Arch) -> Declared {
        let dtype = match cache {
            Cache::Bf16 => BF16,
            Cache::Fp8 => fp8(arch),
            Cache::Int8 => INT8,
        };
        let scales = ScaleLayout::PagedHeads { block: BLOCK as usize };
        let vector = 128 / dtype.bits() as usize;
        Declared { dtype, vector, scales, queries: 1, high_precision: false, gqa }
    }
}

/// Declares paged decode of `cx.tokens()` sequences as `declared` has it, and launches the kernel for `cache`.
pub fn decode(cx: &mut Case, cache: Cache, declared: Declared) -> Result<Tensor> {
    let Declared { dtype, vector, scales, queries, high_precision, gqa } = declared;
    let (sequences, block, head) = (cx.tokens() as usize, BLOCK as usize, HEAD as usize);
    let Paging { lengths, tables, slots } = paging(sequences);
    let (heads, rows) = (gqa * KV_HEADS, sequences * queries);
    // Inputs here are larger than a model's: the softmax would have one winner with 1 / sqrt(d).
    let scale = 1.0 / 2048.0;
    let q = cx.input("q", BF16, [rows, heads * head])?;
    let (keys, values) =
        (DataLayout::PagedKeys { block, head, vector }, DataLayout::PagedValues { block, head, vector });
    let shape = Shape::new(slots, KV_HEADS * head);
    let mut cached = |name: &str, layout: DataLayout| match dtype {
        BF16 => cx.input(name, BF16, shape.layout(layout)),
        _ => cx.input_quantized(name, Quant::group(dtype, head).data_layout(layout).layout(scales), shape),
    };
    let (k, v) = (cached("k_cache", keys)?, cached("v_cache", values)?);
    let tables = cx.indices("block_tables", &tables)?;
    let lengths = cx.indices("lengths", &lengths)?;
    let offsets: Vec<i32> = (0..=sequences).map(|s| (s * queries) as i32).collect();
    let offsets = cx.indices("q_offsets", &offsets)?;

    let mut form = PagedAttention::new(heads, KV_HEADS, block, scale).queries(queries);
    form = match cache {
        Cache::Bf16 => form.probabilities(BF16),
        // The conversion to int8 truncates.
        Cache::Int8 => {
            form.quantized(AttentionQuant { dtype, codes: CodeRounding::TowardZero, positions: Some(256) })
        }
        Cache::Fp8 if high_precision => form.probabilities(BF16).quantized(AttentionQuant {
            dtype,
            codes: CodeRounding::Nearest,
            positions: None,
        }),
        Cache::Fp8 => {
            form.quantized(AttentionQuant { dtype, codes: CodeRounding::Nearest, positions: Some(256) })
        }
    };
    let attended = paged_attention(&q, (&k, &v), &tables, &lengths, form);
    let out = cx.output("out", BF16, [rows, heads * head], attended)?;
    let of = |tensor: &Tensor| if dtype == BF16 { DevPtr::null() } else { tensor.scales() };
    let given = Paged {
        out: out.data(),
        q: q.data(),
        k: k.data(),
        v: v.data(),
        k_scales: of(&k),
        v_scales: of(&v),
        block_tables: tables.data(),
        lengths: lengths.data(),
        q_offsets: offsets.data(),
    };
    let form = PagedForm {
        cache: Declared::new(cache, gqa, cx.arch()).dtype,
        sequences: sequences as i32,
        kv_heads: KV_HEADS as i32,
        gqa: gqa as i32,
        queries: queries as i32,
        blocks: BLOCKS as i32,
        scale: scale as f32,
        high_precision,
    };
    // SAFETY: every buffer has the shape that `form` says.
    unsafe { paged_decode(given, form, cx.stream())? };
    Ok(out)
}
