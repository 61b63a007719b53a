//! Mixtures of experts in one and in two stages.
//!
//! Tokens are sorted by their experts in blocks of 32, see [`Sorted`]; weights are preshuffled 16 x 16.

use crate::launched;
use accuracy_core::device::emulation;
use accuracy_core::prelude::*;

/// Rows of a block of sorted tokens.
pub const BLOCK: usize = 32;

/// Tokens in the order of their experts, as AITER's `moe_sorting` leaves them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted {
    /// `token | slot << 24`; the number of tokens as the token, and of slots as the slot, where a block is filled up.
    pub ids: Vec<i32>,
    /// The index `token * slots + slot` of each row, `None` where a block is filled up.
    pub rows: Vec<Option<usize>>,
    /// The expert of each block.
    pub experts: Vec<i32>,
    /// How many rows there are, and how many tokens.
    pub counts: Vec<i32>,
}

impl Sorted {
    /// Sorts tokens whose experts are `experts`, `slots` of them for each token, into blocks of `block` rows.
    pub fn new(experts: &[i32], slots: usize, block: usize) -> Sorted {
        let tokens = experts.len() / slots.max(1);
        let padding = (tokens | slots << 24) as i32;
        let mut sorted =
            Sorted { ids: Vec::new(), rows: Vec::new(), experts: Vec::new(), counts: Vec::new() };
        let last = experts.iter().copied().max().unwrap_or(-1);
        for expert in 0..=last {
            let own: Vec<usize> = (0..experts.len()).filter(|&row| experts[row] == expert).collect();
            for block_rows in own.chunks(block) {
                sorted.experts.push(expert);
                for i in 0..block {
                    let row = block_rows.get(i).copied();
                    sorted.rows.push(row);
                    sorted
                        .ids
                        .push(row.map_or(padding, |row| ((row / slots) | ((row % slots) << 24)) as i32));
                }
            }
        }
        sorted.counts = vec![sorted.ids.len() as i32, tokens as i32];
        sorted
    }
}

/// A module for each kernel that does all of a mixture of experts.
macro_rules! one_stage {
    ($($name:ident: $object:tt $symbol:tt;)*) => {$(
        mod $name {
            use super::*;

            #[code_object($object)]
            unsafe extern "C" {
                /// `out` is added to. Strides are in bytes; `persistent` and `tiles` are of kernels that stay resident.
                #[link_name = $symbol]
                pub fn kernel(
                    out: Padded<DevPtr<bf16>>,
                    x: Padded<DevPtr<u8>>,
                    gate_up: Padded<DevPtr<u8>>,
                    counts: Padded<DevPtr<i32>>,
                    down: Padded<DevPtr<u8>>,
                    x_scales: Padded<DevPtr<f32>>,
                    gate_up_scales: Padded<DevPtr<f32>>,
                    down_scales: Padded<DevPtr<f32>>,
                    smooth_scales: Padded<DevPtr<f32>>,
                    sorted_ids: Padded<DevPtr<i32>>,
                    sorted_weights: Padded<DevPtr<f32>>,
                    sorted_experts: Padded<DevPtr<i32>>,
                    hidden: Padded<i32>,
                    inner: Padded<i32>,
                    tokens: Padded<i32>,
                    experts: Padded<i32>,
                    x_stride: Padded<i32>,
                    gate_up_stride: Padded<i32>,
                    down_stride: Padded<i32>,
                    out_stride: Padded<i32>,
                    gate_up_expert: Padded<i32>,
                    down_expert: Padded<i32>,
                    gate_up_scales_expert: Padded<i32>,
                    down_scales_expert: Padded<i32>,
                    smooth_scales_expert: Padded<i32>,
                    slots: Padded<i32>,
                    persistent: Padded<i32>,
                    tiles: Padded<i32>,
                );
            }
        }
    )*};
}

one_stage! {
    fp8_blocks: "fmoe.silu.fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256"
        "_ZN5aiter47fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E";
    int8_tokens: "fmoe.silu.fmoe_bf16_pertokenInt8_g1u1_vs_silu_1tg_32x256"
        "_ZN5aiter46fmoe_bf16_pertokenInt8_g1u1_vs_silu_1tg_32x256E";
}

/// Columns of the inner dimension that a workgroup of these kernels computes, and quantises with one scale in int8.
pub const INNER_TILE: usize = 256;

/// What a mixture of experts in one stage has at hand.
#[derive(Clone, Copy)]
pub struct Experts {
    /// `[tokens, hidden]`, which the kernel adds to.
    pub out: DevPtr<bf16>,
    /// `[tokens, hidden]`.
    pub x: DevPtr<u8>,
    pub x_scales: DevPtr<f32>,
    /// `[experts * 2 * inner, hidden]`: of each expert the gate's rows, then those of up.
    pub gate_up: DevPtr<u8>,
    pub gate_up_scales: DevPtr<f32>,
    /// `[experts * hidden, inner]`.
    pub down: DevPtr<u8>,
    pub down_scales: DevPtr<f32>,
    pub sorted_ids: DevPtr<i32>,
    pub sorted_weights: DevPtr<f32>,
    pub sorted_experts: DevPtr<i32>,
    pub counts: DevPtr<i32>,
}

/// How activations and weights are quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    /// FP8 with scales of 1 x 128 groups of activations, column-major, and of 128 x 128 blocks of weights.
    Fp8Blocks,
    /// Int8 with a scale for each token and each output channel.
    Int8Tokens,
}

/// Shapes of a mixture of experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsForm {
    pub coding: Coding,
    pub tokens: i32,
    pub slots: i32,
    pub experts: i32,
    pub hidden: i32,
    pub inner: i32,
    /// Blocks of sorted tokens.
    pub blocks: i32,
}

/// Launches a mixture of experts in one stage: `out += sum of weight * down(silu(gate(x)) * up(x))`.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// Every buffer must have the shape that `form` says.
pub unsafe fn experts(of: Experts, form: ExpertsForm, stream: Stream) -> Result<()> {
    let tiles = form.inner / INNER_TILE as i32;
    let grid =
        Grid { blocks: [tiles as u32, form.blocks as u32, 1], threads: [256, 1, 1], shared: 0, stream };
    let (down_scales, gate_up_scales) = match form.coding {
        Coding::Fp8Blocks => {
            let blocks = |rows: i32, columns: i32| rows / 128 * (columns / 128) * 4;
            (blocks(form.hidden, form.inner), blocks(2 * form.inner, form.hidden))
        }
        Coding::Int8Tokens => (form.hidden * 4, 2 * form.inner * 4),
    };
    macro_rules! launch {
        ($name:ident) => {
            // SAFETY: the caller vouches for the buffers; the strides are those of their shapes.
            unsafe {
                $name::kernel(
                    grid,
                    of.out.into(),
                    of.x.into(),
                    of.gate_up.into(),
                    of.counts.into(),
                    of.down.into(),
                    of.x_scales.into(),
                    of.gate_up_scales.into(),
                    of.down_scales.into(),
                    DevPtr::null().into(),
                    of.sorted_ids.into(),
                    of.sorted_weights.into(),
                    of.sorted_experts.into(),
                    form.hidden.into(),
                    form.inner.into(),
                    form.tokens.into(),
                    form.experts.into(),
                    form.hidden.into(),
                    form.hidden.into(),
                    form.inner.into(),
                    (form.hidden * 2).into(),
                    (2 * form.inner * form.hidden).into(),
                    (form.hidden * form.inner).into(),
                    gate_up_scales.into(),
                    down_scales.into(),
                    (form.inner * 4).into(),
                    form.slots.into(),
                    0.into(),
                    tiles.into(),
                )
            }
        };
    }
    launched(match form.coding {
        // Its waves exchange the largest magnitude of the first half of a tile, then that of the second at the same place of
        // shared memory, with no barrier between reading the one and writing the other.
        Coding::Fp8Blocks => emulation::in_step(|| launch!(fp8_blocks)),
        Coding::Int8Tokens => launch!(int8_tokens),
    })
}

/// A module for each kernel that does the first of two stages.
macro_rules! first_stage {
    ($($name:ident: $object:tt $symbol:tt;)*) => {$(
        mod $name {
            use super::*;

            #[code_object($object)]
            unsafe extern "C" {
                /// Strides are in bytes; `split` is the logarithm of the parts of `hidden`.
                #[link_name = $symbol]
                pub fn kernel(
                    out: Padded<DevPtr<bf16>>,
                    x: Padded<DevPtr<u8>>,
                    gate_up: Padded<DevPtr<u8>>,
                    counts: Padded<DevPtr<i32>>,
                    x_scales: Padded<DevPtr<f32>>,
                    gate_up_scales: Padded<DevPtr<f32>>,
                    smooth_scales: Padded<DevPtr<f32>>,
                    sorted_ids: Padded<DevPtr<i32>>,
                    sorted_experts: Padded<DevPtr<i32>>,
                    hidden: Padded<i32>,
                    inner: Padded<i32>,
                    tokens: Padded<i32>,
                    experts: Padded<i32>,
                    x_stride: Padded<i32>,
                    gate_up_stride: Padded<i32>,
                    out_stride: Padded<i32>,
                    gate_up_expert: Padded<i32>,
                    gate_up_scales_expert: Padded<i32>,
                    smooth_scales_expert: Padded<i32>,
                    slots: Padded<i32>,
                    split: Padded<i32>,
                    activation: Padded<i32>,
                    sorted_weights: Padded<DevPtr<f32>>,
                );
            }
        }
    )*};
}

first_stage! {
    fp8_first: "fmoe_2stages.fmoe_stage1_bf16_pertokenFp8_g1u1_32x128_3tg_pf3"
        "_ZN5aiter48fmoe_stage1_bf16_pertokenFp8_g1u1_32x128_3tg_pf3E";
    int8_first: "fmoe_2stages.fmoe_stage1_bf16_pertokenInt8_g1u1_32x128_3tg_pf2"
        "_ZN5aiter49fmoe_stage1_bf16_pertokenInt8_g1u1_32x128_3tg_pf2E";
}

/// What the first of two stages has at hand: see [`Experts`], `out` being `[tokens * slots, inner]`.
#[derive(Clone, Copy)]
pub struct FirstStage {
    pub out: DevPtr<bf16>,
    pub x: DevPtr<u8>,
    /// A scale for each token.
    pub x_scales: DevPtr<f32>,
    pub gate_up: DevPtr<u8>,
    /// A scale for each output channel.
    pub gate_up_scales: DevPtr<f32>,
    pub sorted_ids: DevPtr<i32>,
    pub sorted_experts: DevPtr<i32>,
    pub counts: DevPtr<i32>,
}

/// Launches the first of two stages, `out = silu(gate(x)) * up(x)`; `int8` says what activations and weights are, FP8 else.
/// What `form` says of their scales does not count.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// Every buffer must have the shape that `form` says.
pub unsafe fn first_stage(of: FirstStage, int8: bool, form: ExpertsForm, stream: Stream) -> Result<()> {
    /// Columns of a workgroup.
    const TILE: i32 = 128;
    let grid = Grid {
        blocks: [(form.inner / TILE) as u32, form.blocks as u32, 1],
        threads: [256, 1, 1],
        shared: 0,
        stream,
    };
    macro_rules! launch {
        ($name:ident) => {
            // SAFETY: the caller vouches for the buffers; the strides are those of their shapes.
            unsafe {
                $name::kernel(
                    grid,
                    of.out.into(),
                    of.x.into(),
                    of.gate_up.into(),
                    of.counts.into(),
                    of.x_scales.into(),
                    of.gate_up_scales.into(),
                    DevPtr::null().into(),
                    of.sorted_ids.into(),
                    of.sorted_experts.into(),
                    form.hidden.into(),
                    form.inner.into(),
                    form.tokens.into(),
                    form.experts.into(),
                    form.hidden.into(),
                    form.hidden.into(),
                    (form.slots * form.inner * 2).into(),
                    (2 * form.inner * form.hidden).into(),
                    (2 * form.inner * 4).into(),
                    (form.inner * 4).into(),
                    form.slots.into(),
                    0.into(),
                    0.into(),
                    DevPtr::null().into(),
                )
            }
        };
    }
    // The waves of the int8 kernel overwrite a tile in shared memory that others still read, with no barrier in between.
    launched(if int8 { emulation::in_step(|| launch!(int8_first)) } else { launch!(fp8_first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_one_expert_each_and_are_filled_up() {
        let sorted = Sorted::new(&[2, 0, 0, 2, 2, 0], 2, 2);
        assert_eq!(sorted.experts, [0, 0, 2, 2]);
        assert_eq!(sorted.rows, [Some(1), Some(2), Some(5), None, Some(0), Some(3), Some(4), None]);
        assert_eq!(sorted.ids[..4], [1 << 24, 1, 2 | 1 << 24, 3 | 2 << 24]);
        assert_eq!(sorted.counts, [8, 3]);
    }
}
