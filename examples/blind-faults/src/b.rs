//! Kernels of set b.

use accuracy_core::prelude::*;

#[kernel_library("blind_faults")]
unsafe extern "C" {
    /// The experts of each token and the softmax of their logits.
    pub fn b_mxmoe_route(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        m: i32,
        experts: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each slot by the gate and up rows of its expert, which alternate, and their bias.
    pub fn b_mxmoe_up(
        raw: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<u8>,
        ws: DevPtr<u8>,
        bias: DevPtr<bf16>,
        ids: DevPtr<i32>,
        m: i32,
        topk: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `(clamp(up) + 1) * g * sigmoid(1.702 * g)` of the clamped gate `g`.
    pub fn b_mxmoe_activate(
        h: DevPtr<bf16>,
        raw: DevPtr<bf16>,
        rows: i32,
        inner: i32,
        limit: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each slot by the down rows of its expert, and their bias.
    pub fn b_mxmoe_down(
        d: DevPtr<bf16>,
        h: DevPtr<bf16>,
        w: DevPtr<u8>,
        ws: DevPtr<u8>,
        bias: DevPtr<bf16>,
        ids: DevPtr<i32>,
        m: i32,
        topk: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The weighted sum of each token's slots.
    pub fn b_mxmoe_combine(
        y: DevPtr<bf16>,
        d: DevPtr<bf16>,
        weights: DevPtr<f32>,
        m: i32,
        n: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// RMSNorm of `x [m, k]` by `1 + gain`.
    pub fn b_awq_norm(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `x` by AWQ weights in groups of 32.
    pub fn b_awq_multiply(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<u8>,
        ws: DevPtr<f16>,
        zeros: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `residual += RMSNorm(y)` by `1 + gain`; `k` is the width of the first norm.
    pub fn b_awq_add(
        residual: DevPtr<bf16>,
        y: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Adds `x`, its columns in `order`, by GPTQ weights in groups of 64 to `acc`.
    pub fn b_gptq_multiply(
        acc: DevPtr<f32>,
        x: DevPtr<bf16>,
        w: DevPtr<u8>,
        ws: DevPtr<f16>,
        zeros: DevPtr<u8>,
        order: DevPtr<i32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y = acc + bias`.
    pub fn b_gptq_finish(
        y: DevPtr<bf16>,
        acc: DevPtr<f32>,
        bias: DevPtr<bf16>,
        m: i32,
        n: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `gelu_tanh(gate) * up` of `gate_up [m, 2k]`, quantised to int8 with the given scale.
    pub fn b_geglu_activate(
        q: DevPtr<i8>,
        gate_up: DevPtr<bf16>,
        scale: DevPtr<f32>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (q * scale) (w * ws)ᵀ + bias`.
    pub fn b_geglu_multiply(
        y: DevPtr<bf16>,
        q: DevPtr<i8>,
        scale: DevPtr<f32>,
        w: DevPtr<i8>,
        ws: DevPtr<f32>,
        bias: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Rotates, norms and scales rows of one head each; `factors` is null for keys.
    pub fn b_l4_rotate(
        out: DevPtr<bf16>,
        x: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        factors: DevPtr<f32>,
        rows: i32,
        heads: i32,
        rotated: i32,
        eps: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Causal attention of sequences that begin at `starts`, with a window, a cap of scores and sinks.
    pub fn b_prefill_attend(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        starts: DevPtr<i32>,
        sinks: DevPtr<f32>,
        seqs: i32,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        window: i32,
        scale: f32,
        cap: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Attention of the last `queries` tokens of each sequence over a paged cache, with a window and sinks.
    pub fn b_chunk_attend(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        keys: DevPtr<bf16>,
        values: DevPtr<bf16>,
        tables: DevPtr<i32>,
        lengths: DevPtr<i32>,
        sinks: DevPtr<f32>,
        seqs: i32,
        queries: i32,
        heads: i32,
        kv_heads: i32,
        page: i32,
        pages: i32,
        window: i32,
        scale: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The expert of each token and the sigmoid of its logit.
    pub fn b_nvmoe_route(
        score: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        m: i32,
        experts: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `x * score` quantised to NVFP4 under the given factor of the tensor.
    pub fn b_nvmoe_quantise(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        score: DevPtr<f32>,
        global: DevPtr<f32>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each token by its expert, plus `shared`; weight scales are in tiles of 128x4.
    pub fn b_nvmoe_multiply(
        y: DevPtr<bf16>,
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        global: DevPtr<f32>,
        w: DevPtr<u8>,
        ws: DevPtr<u8>,
        w_global: DevPtr<f32>,
        shared: DevPtr<bf16>,
        ids: DevPtr<i32>,
        score: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Rows `ids` of the table times `factor`.
    pub fn b_embed_gather(
        h: DevPtr<bf16>,
        table: DevPtr<bf16>,
        ids: DevPtr<i32>,
        factor: f32,
        m: i32,
        vocabulary: i32,
        d: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// RMSNorm of `h [m, d]` by `1 + gain`.
    pub fn b_embed_norm(
        y: DevPtr<bf16>,
        h: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        d: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `cap * tanh(x tableᵀ / cap)`.
    pub fn b_embed_project(
        logits: DevPtr<f32>,
        x: DevPtr<bf16>,
        table: DevPtr<bf16>,
        cap: f32,
        m: i32,
        vocabulary: i32,
        d: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
}
