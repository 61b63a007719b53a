//! Kernels of production-like chains with planted faults.
//!
//! Each chain has a table in `faults/`: a row is a fault with its true causes, declared before anything ran, and one
//! sentence. The launchers take its number as their last argument; 0 is the right kernel, and so are numbers from 900 on.

use accuracy_core::prelude::*;

#[kernel_library("kernel_faults")]
unsafe extern "C" {
    /// Quantises `x [m, k]` to e4m3 in groups of 128, the last of a row maybe shorter; scales are column-major.
    pub fn bs_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The product over columns `from` to `to`, `p [m, n]`.
    pub fn bs_multiply(
        p: DevPtr<f32>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        from: i32,
        to: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y = p0 + p1`, `count` elements.
    pub fn bs_reduce(
        y: DevPtr<bf16>,
        p0: DevPtr<f32>,
        p1: DevPtr<f32>,
        count: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `residual += x`, and its RMSNorm quantised to e4m3 with a scale for each token.
    pub fn rn_norm(
        residual: DevPtr<bf16>,
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ + bias`.
    pub fn rn_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        bias: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `gate_up [rows, 2k]`, quantised to e4m3 in groups of 64.
    pub fn moe_activate(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        gate_up: DevPtr<bf16>,
        rows: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each slot by the weight of its expert, times its routing weight.
    pub fn moe_multiply(
        down: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        sorted: DevPtr<i32>,
        positions: i32,
        n: i32,
        k: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The sum of each token's slots.
    pub fn moe_combine(
        y: DevPtr<bf16>,
        down: DevPtr<bf16>,
        m: i32,
        n: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Attention of one token of each sequence; `window` is 0 and `sinks` null where there are none.
    pub fn att_decode(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        tables: DevPtr<i32>,
        lengths: DevPtr<i32>,
        sinks: DevPtr<f32>,
        seqs: i32,
        heads: i32,
        kv_heads: i32,
        page: i32,
        pages: i32,
        window: i32,
        scale: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// LayerNorm of `x [m, k]` times `smooth`, quantised to int8 with a scale for each token.
    pub fn sq_norm(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        bias: DevPtr<bf16>,
        smooth: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `gelu((xq * xs) ((wq - zeros) * ws)ᵀ + bias)`.
    pub fn sq_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        zeros: DevPtr<i8>,
        bias: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Norms and rotates queries and keys by head, and writes keys and values to their slots of the caches.
    pub fn qk_write(
        q_out: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        q_gain: DevPtr<bf16>,
        k_gain: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        eps: f32,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to MXFP4 with swizzled scales.
    pub fn mx_quantise(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `hidden += (xq * xs) (wq * ws)ᵀ`.
    pub fn mx_multiply(
        hidden: DevPtr<bf16>,
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
    /// Quantises rows that are `stride` elements apart to int8 with a scale for each token.
    pub fn st_quantise(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        stride: i64,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Half the product, into rows that are `stride` elements apart.
    pub fn st_multiply(
        y: DevPtr<bf16>,
        stride: i64,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
}
