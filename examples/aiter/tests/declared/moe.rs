//! What a mixture of experts is declared as.

use accuracy_core::prelude::*;
use aiter_kernels::moe::*;

pub const EXPERTS: usize = 3;
pub const SLOTS: usize = 2;
pub const HIDDEN: usize = 512;
pub const INNER: usize = 256;

/// What a test says of the kernel that it launches, where it may say something wrong.
#[derive(Clone, Copy)]
pub struct Declared {
    /// The format of activations and weights.
    pub dtype: DType,
    /// Whether the gate's rows come before those of up.
    pub gate_first: bool,
    /// How weights lie in memory.
    pub weights: DataLayout,
    /// How the scales of activations lie in memory.
    pub scales: ScaleLayout,
}

impl Declared {
    pub fn new(coding: Coding, arch: Arch) -> Declared {
        let dtype = match coding {
            Coding::Int8Tokens => INT8,
            Coding::Fp8Blocks if arch == Arch::Gfx942 => E4M3FNUZ,
            Coding::Fp8Blocks => E4M3FN,
        };
        let weights = DataLayout::PRESHUFFLE_16X16;
        Declared { dtype, gate_first: true, weights, scales: ScaleLayout::ColMajor }
    }
}

/// Declares a mixture of experts of `cx.tokens()` tokens as `declared` has it, and launches the kernel for `coding`.
pub fn mixture(cx: &mut Case, coding: Coding, declared: Declared) -> Result<Tensor> {
    let Declared { dtype, gate_first, weights: layout, scales } = declared;
    let tokens = cx.tokens() as usize;
    let Routed { experts: experts_of, weights: weights_of, sorted } = Routed::new(tokens);
    let sorted_weights: Vec<f64> =
        sorted.rows.iter().map(|row| row.map_or(0.0, |row| weights_of[row])).collect();
    let (of_x, of_weight, of_hidden, codes) = match coding {
        Coding::Fp8Blocks => (
            Quant::group(dtype, 128).layout(scales),
            Quant::block(dtype, 128, 128),
            // On gfx950, too, the largest value of a group becomes 240: the kernel has the range of e4m3fnuz.
            Quant::group(dtype, 128).max(240.0),
            CodeRounding::Nearest,
        ),
        // The conversion to int8 truncates.
        Coding::Int8Tokens => (
            Quant::token(dtype),
            Quant::channel(dtype),
            Quant::group(dtype, INNER_TILE),
            CodeRounding::TowardZero,
        ),
    };
    let of_weight = of_weight.data_layout(layout);
    let x = cx.input_quantized("x", of_x, [tokens, HIDDEN])?;
    let gate_up = cx.input_quantized("gate_up", of_weight, [EXPERTS * 2 * INNER, HIDDEN])?;
    let down = cx.input_quantized("down", of_weight, [EXPERTS * HIDDEN, INNER])?;
    let experts_of = cx.indices("experts", &experts_of)?;
    let ids = cx.indices("sorted_ids", &sorted.ids)?;
    let sorted_weights = cx.constants("sorted_weights", F32, [1, sorted.ids.len()], &sorted_weights)?;
    let sorted_experts = cx.indices("sorted_experts", &sorted.experts)?;
    let counts = cx.indices("counts", &sorted.counts)?;
    let before = cx.zeros("out", BF16, [tokens, HIDDEN])?;

    let half = |e: usize, up: bool| {
        let from = (2 * e + usize::from(up == gate_first)) * INNER;
        x.matmul(&Operand::rows(&gate_up, from..from + INNER)).repeat_rows(SLOTS)
    };
    let of_experts = |up: bool| select(&experts_of, &(0..EXPERTS).map(|e| half(e, up)).collect::<Vec<_>>());
    let hidden = (silu(&of_experts(false)) * of_experts(true)).quantize(of_hidden, codes);
    let projected = |e: usize| hidden.matmul(&Operand::rows(&down, e * HIDDEN..(e + 1) * HIDDEN));
    let projected = select(&experts_of, &(0..EXPERTS).map(projected).collect::<Vec<_>>());
    // The part of each expert becomes bfloat16 with its weight, and is added in bfloat16.
    let mut sum = before.expr();
    for slot in 0..SLOTS {
        let rows: Vec<i32> = (0..tokens).map(|token| (token * SLOTS + slot) as i32).collect();
        let rows = cx.indices(&format!("rows_of_slot_{slot}"), &rows)?;
        let weights: Vec<f64> = (0..tokens * HIDDEN).map(|i| weights_of[i / HIDDEN * SLOTS + slot]).collect();
        let weights = cx.constants(&format!("weights_of_slot_{slot}"), F32, [tokens, HIDDEN], &weights)?;
        sum = (sum + (projected.gather(&rows) * &weights).round(BF16)).round(BF16);
    }
    let out = cx.update(&before, sum)?;
    let given = Experts {
        out: out.data(),
        x: x.data(),
        x_scales: x.scales(),
        gate_up: gate_up.data(),
        gate_up_scales: gate_up.scales(),
        down: down.data(),
        down_scales: down.scales(),
        sorted_ids: ids.data(),
        sorted_weights: sorted_weights.data(),
        sorted_experts: sorted_experts.data(),
        counts: counts.data(),
    };
    let form = ExpertsForm {
        coding,
        tokens: tokens as i32,
        slots: SLOTS as i32,
        experts: EXPERTS as i32,
        hidden: HIDDEN as i32,
        inner: INNER as i32,
        blocks: sorted.experts.len() as i32,
    };
    // SAFETY: every buffer has the shape that `form` says.
    unsafe { experts(given, form, cx.stream())? };
    Ok(out)
}

/// Tokens of three experts, two of them for each token.
pub struct Routed {
    /// The expert of each slot of each token.
    pub experts: Vec<i32>,
    pub weights: Vec<f64>,
    pub sorted: Sorted,
}

impl Routed {
    /// The first expert has most tokens, the last few.
    pub fn new(tokens: usize) -> Routed {
        let of = |t: usize| if t % 5 == 1 { [2, 1] } else { [0, 1 + i32::from(t.is_multiple_of(3))] };
        let experts: Vec<i32> = (0..tokens).flat_map(of).collect();
        let weights = (0..experts.len()).map(|r| 0.25 + (r * 7 % 11) as f64 / 16.0).collect();
        let sorted = Sorted::new(&experts, SLOTS, BLOCK);
        Routed { experts, weights, sorted }
    }
}
