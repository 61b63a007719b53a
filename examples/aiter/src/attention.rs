//! Attention: paged decode, MLA decode and flash attention forward.
//!
//! Strides are in bytes, as the kernels take them.

use crate::launched;
use accuracy_core::device::emulation;
use accuracy_core::dtype::DType;
use accuracy_core::prelude::*;
use std::ffi::c_void;

/// The columns of a head of paged decode and of flash attention.
pub const HEAD: i32 = 128;
/// Positions of a block of a paged cache.
pub const BLOCK: i32 = 16;
/// Columns of MLA's keys, whose first [`MLA_VALUE`] are its values.
pub const MLA_KEY: i32 = 576;
pub const MLA_VALUE: i32 = 512;

/// A module for each kernel of paged decode, `[seqs, heads * 128]` over caches of `[pages, kv heads, ..]`.
macro_rules! paged {
    ($($name:ident: $object:tt $symbol:tt ($($more:tt)*);)*) => {$(
        mod $name {
            use super::*;

            #[code_object($object)]
            unsafe extern "C" {
                /// `scale` is that of the scores times `log2(e)`; `table_stride` blocks are a sequence's row of the table.
                #[link_name = $symbol]
                pub fn kernel(
                    out: Padded<DevPtr<bf16>>,
                    q: Padded<DevPtr<bf16>>,
                    k: Padded<DevPtr<c_void>>,
                    v: Padded<DevPtr<c_void>>,
                    block_tables: Padded<DevPtr<i32>>,
                    lengths: Padded<DevPtr<i32>>,
                    k_scales: Padded<DevPtr<f32>>,
                    v_scales: Padded<DevPtr<f32>>,
                    scale: Padded<f32>,
                    table_stride: Padded<i32>,
                    kv_heads: Padded<i32>,
                    q_stride: Padded<i32>,
                    page_stride: Padded<i32>,
                    head_stride: Padded<i32>,
                    gqa: Padded<i32>,
                    $($more)*
                );
            }
        }
    )*};
}

paged! {
    bf16_gqa8: "pa.pa_bf16_noquant_gqa8_1tg_4w" "_ZN5aiter27pa_bf16_noquant_gqa8_1tg_4wE"
        (q_offsets: Padded<DevPtr<i32>>);
    bf16_gqa16: "pa.pa_bf16_noquant_gqa16_1tg_4w" "_ZN5aiter28pa_bf16_noquant_gqa16_1tg_4wE"
        (q_offsets: Padded<DevPtr<i32>>);
    fp8_gqa8: "pa.pa_bf16_pertokenFp8_gqa8_2tg_4w" "_ZN5aiter31pa_bf16_pertokenFp8_gqa8_2tg_4wE" ();
    fp8_gqa16: "pa.pa_bf16_pertokenFp8_gqa16_2tg_4w" "_ZN5aiter32pa_bf16_pertokenFp8_gqa16_2tg_4wE" ();
    int8_gqa8: "pa.pa_bf16_pertokenInt8_gqa8_2tg_4w" "_ZN5aiter32pa_bf16_pertokenInt8_gqa8_2tg_4wE" ();
    int8_gqa16: "pa.pa_bf16_pertokenInt8_gqa16_2tg_4w" "_ZN5aiter33pa_bf16_pertokenInt8_gqa16_2tg_4wE" ();
    fp8_gqa8_hp: "pa.pa_bf16_pertokenFp8_gqa8_2tg_4w_hp" "_ZN5aiter34pa_bf16_pertokenFp8_gqa8_2tg_4w_hpE" ();
    bf16_gqa8_tokens: "pa.pa_bf16_noquant_gqa8_1tg_4w_mtp_msk1" "_ZN5aiter36pa_bf16_noquant_gqa8_1tg_4w_mtp_msk1E"
        (q_offsets: Padded<DevPtr<i32>>);
    fp8_gqa8_tokens: "pa.pa_bf16_pertokenFp8_gqa8_1tg_4w_mtp_msk1" "_ZN5aiter40pa_bf16_pertokenFp8_gqa8_1tg_4w_mtp_msk1E"
        (q_offsets: Padded<DevPtr<i32>>);
    fp8_gqa16_tokens: "pa.pa_bf16_pertokenFp8_gqa16_1tg_4w_mtp_msk1" "_ZN5aiter41pa_bf16_pertokenFp8_gqa16_1tg_4w_mtp_msk1E"
        (q_offsets: Padded<DevPtr<i32>>);
    int8_gqa8_tokens: "pa.pa_bf16_pertokenInt8_gqa8_1tg_4w_mtp_msk1" "_ZN5aiter41pa_bf16_pertokenInt8_gqa8_1tg_4w_mtp_msk1E"
        (q_offsets: Padded<DevPtr<i32>>);
    int8_gqa16_tokens: "pa.pa_bf16_pertokenInt8_gqa16_1tg_4w_mtp_msk1" "_ZN5aiter42pa_bf16_pertokenInt8_gqa16_1tg_4w_mtp_msk1E"
        (q_offsets: Padded<DevPtr<i32>>);
}

/// What a kernel of paged decode has at hand. A cache of bfloat16 has no scales.
#[derive(Clone, Copy)]
pub struct Paged {
    pub out: DevPtr<bf16>,
    pub q: DevPtr<bf16>,
    pub k: DevPtr<c_void>,
    pub v: DevPtr<c_void>,
    pub k_scales: DevPtr<f32>,
    pub v_scales: DevPtr<f32>,
    pub block_tables: DevPtr<i32>,
    pub lengths: DevPtr<i32>,
    /// The first query token of each sequence, where there are several.
    pub q_offsets: DevPtr<i32>,
}

/// Shapes of paged decode.
#[derive(Clone, Copy, Debug)]
pub struct PagedForm {
    pub cache: DType,
    pub sequences: i32,
    pub kv_heads: i32,
    /// Query heads of a key head.
    pub gqa: i32,
    /// Query tokens of each sequence.
    pub queries: i32,
    /// Blocks in a row of the block tables.
    pub blocks: i32,
    /// What scores are multiplied with.
    pub scale: f32,
    /// The variant that keeps probabilities in bfloat16.
    pub high_precision: bool,
}

/// Launches the kernel that AITER's `pa_fwd` picks.
///
/// # Errors
/// As of any launch, and where there is no kernel for such a form.
///
/// # Safety
/// Every buffer must have the shape that `form` says.
pub unsafe fn paged_decode(of: Paged, form: PagedForm, stream: Stream) -> Result<()> {
    let element = form.cache.bits() as i32 / 8;
    let (head_stride, heads) = (BLOCK * HEAD * element, form.gqa * form.kv_heads);
    let grid = Grid {
        blocks: [form.kv_heads as u32, form.sequences as u32, 1],
        threads: [256, 1, 1],
        shared: 0,
        stream,
    };
    macro_rules! launch {
        ($name:ident $($more:expr)?) => {
            // SAFETY: the caller vouches for the buffers; the strides are those of their shapes.
            unsafe {
                $name::kernel(
                    grid,
                    of.out.into(),
                    of.q.into(),
                    of.k.into(),
                    of.v.into(),
                    of.block_tables.into(),
                    of.lengths.into(),
                    of.k_scales.into(),
                    of.v_scales.into(),
                    (form.scale * std::f32::consts::LOG2_E).into(),
                    form.blocks.into(),
                    form.kv_heads.into(),
                    (heads * HEAD * 2).into(),
                    (form.kv_heads * head_stride).into(),
                    head_stride.into(),
                    form.gqa.into(),
                    $($more)?
                )
            }
        };
    }
    let offsets = || of.q_offsets.into();
    let fp8 = matches!(form.cache, DType::E4M3Fn | DType::E4M3Fnuz);
    launched(match (form.cache, form.gqa, form.queries) {
        (DType::BF16, 8, 1) => launch!(bf16_gqa8 DevPtr::null().into()),
        (DType::BF16, 16, 1) => launch!(bf16_gqa16 DevPtr::null().into()),
        (DType::BF16, 8, 2..) => launch!(bf16_gqa8_tokens offsets()),
        (_, 8, 1) if fp8 && form.high_precision => launch!(fp8_gqa8_hp),
        (_, 8, 1) if fp8 => launch!(fp8_gqa8),
        (_, 16, 1) if fp8 => launch!(fp8_gqa16),
        (_, 8, 2..) if fp8 => launch!(fp8_gqa8_tokens offsets()),
        (_, 16, 2..) if fp8 => launch!(fp8_gqa16_tokens offsets()),
        (DType::I8, 8, 1) => launch!(int8_gqa8),
        (DType::I8, 16, 1) => launch!(int8_gqa16),
        (DType::I8, 8, 2..) => launch!(int8_gqa8_tokens offsets()),
        (DType::I8, 16, 2..) => launch!(int8_gqa16_tokens offsets()),
        _ => Err(Error::msg(format!("AITER has no kernel of paged decode for {form:?}"))),
    })
}

#[code_object("mla.mla_dec_stage1_bf16_a16w16_subQ16_mqa16")]
unsafe extern "C" {
    /// MLA decode in bfloat16 with 16 heads: attention in float32, and its log-sum-exp, of each part of the positions.
    #[link_name = "_ZN5aiter39mla_dec_stage1_bf16_a16w16_subQ16_mqa16E"]
    fn mla_bf16(
        out: Padded<DevPtr<c_void>>,
        lse: Padded<DevPtr<f32>>,
        q: Padded<DevPtr<c_void>>,
        kv: Padded<DevPtr<c_void>>,
        kv_offsets: Padded<DevPtr<i32>>,
        pages: Padded<DevPtr<i32>>,
        last_page_lengths: Padded<DevPtr<i32>>,
        scale: Padded<f32>,
        rows: Padded<i32>,
        splits: Padded<i32>,
        q_stride: Padded<i32>,
        page_stride: Padded<i32>,
        log2_page: Padded<i32>,
    );
}

#[code_object("mla.mla_a8w8_qh16_qseqlen1_gqaratio16")]
unsafe extern "C" {
    /// MLA decode in FP8 with 16 heads, as [`mla_bf16`]; queries have one scale and the cache has one. What is one part is
    /// written in bfloat16, and without its log-sum-exp.
    #[link_name = "_ZN5aiter33mla_a8w8_qh16_qseqlen1_gqaratio16E"]
    fn mla_fp8(
        out: Padded<DevPtr<c_void>>,
        lse: Padded<DevPtr<f32>>,
        q: Padded<DevPtr<c_void>>,
        kv: Padded<DevPtr<c_void>>,
        kv_offsets: Padded<DevPtr<i32>>,
        pages: Padded<DevPtr<i32>>,
        last_page_lengths: Padded<DevPtr<i32>>,
        scale: Padded<f32>,
        rows: Padded<i32>,
        splits: Padded<i32>,
        q_stride: Padded<i32>,
        page_stride: Padded<i32>,
        log2_page: Padded<i32>,
        q_offsets: Padded<DevPtr<i32>>,
        split_offsets: Padded<DevPtr<i32>>,
        final_out: Padded<DevPtr<bf16>>,
        q_scale: Padded<DevPtr<f32>>,
        kv_scale: Padded<DevPtr<f32>>,
    );
}

/// What MLA decode has at hand.
#[derive(Clone, Copy)]
pub struct Mla {
    /// `[seqs, 16 * 512]`; float32 of bfloat16, and bfloat16 of FP8.
    pub out: DevPtr<c_void>,
    /// `[seqs, 16]`; null where queries and cache are FP8.
    pub lse: DevPtr<f32>,
    /// `[seqs, 16 * 576]`.
    pub q: DevPtr<c_void>,
    /// `[pages, 576]`: a position a page.
    pub kv: DevPtr<c_void>,
    /// Where each sequence's pages begin in `pages`.
    pub kv_offsets: DevPtr<i32>,
    pub pages: DevPtr<i32>,
    pub last_page_lengths: DevPtr<i32>,
    /// The scales of queries and cache, where both are FP8. Both are bfloat16 otherwise.
    pub scales: Option<[DevPtr<f32>; 2]>,
}

/// Launches MLA decode of one query token of each sequence with 16 heads, positions in one part.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// Every buffer must have the shape that is said of it.
pub unsafe fn mla_decode(of: Mla, sequences: i32, scale: f32, stream: Stream) -> Result<()> {
    const HEADS: i32 = 16;
    let grid = Grid { blocks: [1, sequences as u32, 1], threads: [256, 1, 1], shared: 0, stream };
    let element = if of.scales.is_some() { 1 } else { 2 };
    macro_rules! launch {
        ($kernel:ident $(, $more:expr)*) => {
            // SAFETY: the caller vouches for the buffers; the strides are those of their shapes.
            unsafe {
                $kernel(
                    grid,
                    of.out.into(),
                    of.lse.into(),
                    of.q.into(),
                    of.kv.into(),
                    of.kv_offsets.into(),
                    of.pages.into(),
                    of.last_page_lengths.into(),
                    scale.into(),
                    HEADS.into(),
                    1.into(),
                    (HEADS * MLA_KEY * element).into(),
                    (MLA_KEY * element).into(),
                    0.into(),
                    $($more.into()),*
                )
            }
        };
    }
    launched(match of.scales {
        None => launch!(mla_bf16),
        // From the second tile of positions on, its waves overwrite in shared memory what others still read.
        Some([q, kv]) => {
            emulation::in_step(|| launch!(mla_fp8, DevPtr::null(), DevPtr::null(), DevPtr::null(), q, kv))
        }
    })
}

/// A module for each kernel of flash attention.
macro_rules! flash {
    ($($name:ident: $object:tt $symbol:tt;)*) => {$(
        mod $name {
            use super::*;

            #[code_object($object)]
            unsafe extern "C" {
                /// `tile_stride` is that of 256 queries; `option` is 5, or 3 where causal heads are no multiple of 8.
                #[link_name = $symbol]
                pub fn kernel(
                    out: Padded<DevPtr<bf16>>,
                    q: Padded<DevPtr<bf16>>,
                    k: Padded<DevPtr<bf16>>,
                    v: Padded<DevPtr<bf16>>,
                    lse: Padded<DevPtr<f32>>,
                    scale: Padded<f32>,
                    queries: Padded<i32>,
                    q_stride: Padded<i32>,
                    tile_stride: Padded<i32>,
                    q_head: Padded<i32>,
                    q_batch: Padded<i32>,
                    gqa: Padded<i32>,
                    k_stride: Padded<i32>,
                    k_head: Padded<i32>,
                    k_batch: Padded<i32>,
                    option: Padded<i32>,
                    store_lse: Padded<i32>,
                    positions: Padded<i32>,
                    key_width: Padded<i32>,
                    value_width: Padded<i32>,
                    heads: Padded<i32>,
                    v_stride: Padded<i32>,
                    v_head: Padded<i32>,
                    v_batch: Padded<i32>,
                    out_stride: Padded<i32>,
                    out_head: Padded<i32>,
                    out_batch: Padded<i32>,
                    q_offsets: Padded<DevPtr<i32>>,
                    k_offsets: Padded<DevPtr<i32>>,
                    lse_head: Padded<i32>,
                    q_padding: Padded<DevPtr<i32>>,
                    k_padding: Padded<DevPtr<i32>>,
                );
            }
        }
    )*};
}

flash! {
    flash_gfx942: "fmha_v3_fwd.MI300.fwd_hd128_bf16_rtne" "_ZN5aiter24fmha_fwd_hd128_bf16_rtneE";
    flash_gfx942_causal:
        "fmha_v3_fwd.MI300.fwd_hd128_bf16_causal_rtne" "_ZN5aiter31fmha_fwd_hd128_bf16_causal_rtneE";
    flash_gfx950: "fmha_v3_fwd.fwd_hd128_bf16" "_ZN5aiter19fmha_fwd_hd128_bf16E";
    flash_gfx950_causal: "fmha_v3_fwd.fwd_hd128_bf16_causal" "_ZN5aiter26fmha_fwd_hd128_bf16_causalE";
}

/// What flash attention has at hand: `[batches * queries, heads * 128]` over `[batches * positions, kv heads * 128]`.
#[derive(Clone, Copy)]
pub struct Flash {
    pub out: DevPtr<bf16>,
    /// `[batches * heads, queries]`.
    pub lse: DevPtr<f32>,
    pub q: DevPtr<bf16>,
    pub k: DevPtr<bf16>,
    pub v: DevPtr<bf16>,
}

/// Shapes of flash attention.
#[derive(Clone, Copy, Debug)]
pub struct FlashForm {
    pub batches: i32,
    pub queries: i32,
    pub positions: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub causal: bool,
    pub scale: f32,
}

/// Launches flash attention forward, which rounds to bfloat16 to the nearest even.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// Every buffer must have the shape that `form` says.
pub unsafe fn flash_forward(arch: Arch, of: Flash, form: FlashForm, stream: Stream) -> Result<()> {
    /// Queries of a tile.
    const TILE: i32 = 256;
    let tiles = (form.queries + TILE - 1) / TILE;
    // A causal workgroup has a tile from either end.
    let groups = if form.causal { (tiles + 1) / 2 } else { tiles };
    let grid = Grid {
        blocks: [groups, form.heads, form.batches].map(|n| n as u32),
        threads: [512, 1, 1],
        shared: 0,
        stream,
    };
    let option = if form.causal && form.heads % 8 != 0 { 3 } else { 5 };
    let head = HEAD * 2;
    let (q_stride, k_stride) = (form.heads * head, form.kv_heads * head);
    let (q_batch, k_batch) = (form.queries * q_stride, form.positions * k_stride);
    macro_rules! launch {
        ($name:ident) => {
            // SAFETY: the caller vouches for the buffers; the strides are those of their shapes.
            unsafe {
                $name::kernel(
                    grid,
                    of.out.into(),
                    of.q.into(),
                    of.k.into(),
                    of.v.into(),
                    of.lse.into(),
                    form.scale.into(),
                    form.queries.into(),
                    q_stride.into(),
                    (TILE * q_stride).into(),
                    head.into(),
                    q_batch.into(),
                    (form.heads / form.kv_heads).into(),
                    k_stride.into(),
                    head.into(),
                    k_batch.into(),
                    option.into(),
                    1.into(),
                    form.positions.into(),
                    HEAD.into(),
                    HEAD.into(),
                    form.heads.into(),
                    k_stride.into(),
                    head.into(),
                    k_batch.into(),
                    q_stride.into(),
                    head.into(),
                    q_batch.into(),
                    DevPtr::null().into(),
                    DevPtr::null().into(),
                    (form.queries * 4).into(),
                    DevPtr::null().into(),
                    DevPtr::null().into(),
                )
            }
        };
    }
    launched(match (arch, form.causal) {
        (Arch::Gfx942, false) => launch!(flash_gfx942),
        (Arch::Gfx942, true) => launch!(flash_gfx942_causal),
        (Arch::Gfx950, false) => launch!(flash_gfx950),
        (Arch::Gfx950, true) => launch!(flash_gfx950_causal),
        (other, _) => {
            Err(Error::msg(format!("AITER has flash attention for gfx942 and gfx950, not for {other}")))
        }
    })
}
