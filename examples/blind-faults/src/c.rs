//! Kernels of set c.

use accuracy_core::prelude::*;

#[kernel_library("blind_faults")]
unsafe extern "C" {
    /// `base [m, n] = x wᵀ`.
    pub fn c_lora_base(
        base: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The first matrix of each token's adapter, times the adapter's scaling; `adapters` stands for no adapter.
    pub fn c_lora_shrink(
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        a: DevPtr<bf16>,
        ids: DevPtr<i32>,
        scalings: DevPtr<f32>,
        m: i32,
        k: i32,
        rank: i32,
        adapters: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y = base +` the second matrix of each token's adapter.
    pub fn c_lora_expand(
        y: DevPtr<bf16>,
        base: DevPtr<bf16>,
        s: DevPtr<f32>,
        b: DevPtr<bf16>,
        ids: DevPtr<i32>,
        m: i32,
        n: i32,
        rank: i32,
        adapters: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Rotates the queries of a chunk.
    pub fn c_kv_rotate(
        to: DevPtr<bf16>,
        q: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        tokens: i32,
        heads: i32,
        chunk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Rotates keys, and writes keys to an int8 cache and values to an e4m3 cache, with a scale for each head of a token.
    pub fn c_kv_write(
        k_cache: DevPtr<i8>,
        k_scales: DevPtr<f32>,
        v_cache: DevPtr<u8>,
        v_scales: DevPtr<f32>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        tokens: i32,
        kv_heads: i32,
        chunk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Causal attention of a chunk over both caches.
    pub fn c_kv_attend(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        k_cache: DevPtr<i8>,
        k_scales: DevPtr<f32>,
        v_cache: DevPtr<u8>,
        v_scales: DevPtr<f32>,
        tables: DevPtr<i32>,
        lengths: DevPtr<i32>,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        chunk: i32,
        pages: i32,
        scale: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `k` columns from `at` on to e4m3 with a scale for each token.
    pub fn c_ar_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        stride: i32,
        at: i32,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// A rank's part of the product; `other_*` are those of another rank.
    pub fn c_ar_multiply(
        p: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        other_xs: DevPtr<f32>,
        other_wq: DevPtr<u8>,
        rank: i32,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `residual += p0 + p1 + p2`, and its RMSNorm.
    pub fn c_ar_norm(
        y: DevPtr<bf16>,
        residual: DevPtr<bf16>,
        p0: DevPtr<bf16>,
        p1: DevPtr<bf16>,
        p2: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        n: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `x * smooth` in int8 with a scale for each token.
    pub fn c_out_quantise(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        smooth: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The outlier columns.
    pub fn c_out_pick(
        picked: DevPtr<bf16>,
        x: DevPtr<bf16>,
        columns: DevPtr<i32>,
        m: i32,
        k: i32,
        count: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y = (xq * xs) (wq * ws)ᵀ + picked woᵀ`.
    pub fn c_out_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        picked: DevPtr<bf16>,
        wo: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        count: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `x * smooth` in e4m3fnuz with a scale for each token.
    pub fn c_sk_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        smooth: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `hidden += alpha (xq * xs) (wq * ws)ᵀ + bias`, by way of a workspace.
    pub fn c_sk_multiply(
        hidden: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        bias: DevPtr<bf16>,
        alpha: f32,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each head of the queries by the head's weight, `[r, d]`.
    pub fn c_bmm_absorb(
        latent: DevPtr<bf16>,
        q: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        heads: i32,
        d: i32,
        r: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises to e4m3 with a scale for each head of a token.
    pub fn c_bmm_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        heads: i32,
        r: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each head by the head's weight, which is stored `[r, d]`, into rows that are `stride` elements apart.
    pub fn c_bmm_project(
        out: DevPtr<bf16>,
        stride: i64,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        heads: i32,
        r: i32,
        d: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The experts of each token and their renormalised weights.
    pub fn c_route_choose(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<f32>,
        m: i32,
        experts: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Slots by expert, where each slot went, and where each expert begins.
    pub fn c_route_sort(
        sorted: DevPtr<i32>,
        inverse: DevPtr<i32>,
        offsets: DevPtr<i32>,
        ids: DevPtr<i32>,
        rows: i32,
        experts: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The tokens of the sorted slots in e4m3 with a scale for each.
    pub fn c_route_permute(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        sorted: DevPtr<i32>,
        m: i32,
        topk: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each permuted row by the weight of its expert.
    pub fn c_route_multiply(
        down: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        sorted: DevPtr<i32>,
        offsets: DevPtr<i32>,
        rows: i32,
        experts: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The weighted sum of each token's slots.
    pub fn c_route_combine(
        y: DevPtr<bf16>,
        down: DevPtr<bf16>,
        weights: DevPtr<f32>,
        sorted: DevPtr<i32>,
        inverse: DevPtr<i32>,
        m: i32,
        topk: i32,
        n: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `h [m, n] = x wᵀ` with 4-bit weights that have scales and zero points in groups of 32.
    pub fn c_gu_project(
        h: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<u8>,
        ws: DevPtr<f32>,
        zeros: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `h [m, 2k]` in MXFP8 with shuffled scales.
    pub fn c_gu_activate(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        h: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y = (xq * xs) (wq * ws)ᵀ` in MXFP8.
    pub fn c_gu_down(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
}
