//! Kernels of set a: parts of DeepSeek-V3 and Kimi.

use accuracy_core::prelude::*;

#[kernel_library("blind_faults")]
unsafe extern "C" {
    /// `c [m, n] = x wᵀ`.
    pub fn a_lat_down(
        c: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The RMSNorm of the first `r` columns of `c`, and the other `d` rotated in pairs of neighbours.
    pub fn a_lat_norm(
        cn: DevPtr<bf16>,
        kpe: DevPtr<bf16>,
        c: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        eps: f32,
        m: i32,
        r: i32,
        d: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = cn wᵀ`; `second` is 0 for the first consumer and 1 for the second.
    pub fn a_lat_up(
        y: DevPtr<bf16>,
        cn: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        second: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Experts of each token by sigmoid scores, a bias for the selection and groups of experts, and their weights.
    pub fn a_rt_route(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<f32>,
        bias: DevPtr<f32>,
        m: i32,
        experts: i32,
        groups: i32,
        chosen: i32,
        topk: i32,
        factor: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The slots in the order of their experts, and how many slots the experts before each one have.
    pub fn a_rt_sort(
        sorted: DevPtr<i32>,
        offsets: DevPtr<i32>,
        ids: DevPtr<i32>,
        rows: i32,
        experts: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The weighted sum of each token's slots, and the shared expert.
    pub fn a_rt_combine(
        y: DevPtr<bf16>,
        down: DevPtr<bf16>,
        weights: DevPtr<f32>,
        shared: DevPtr<bf16>,
        m: i32,
        n: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to e4m3fnuz in groups of 128; scales are column-major.
    pub fn a_sh_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `gu [m, n]`, gate and up beside each other.
    pub fn a_sh_gate_up(
        gu: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `gu [m, 2k]`, quantised to e4m3fnuz in groups of 128; scales are row-major.
    pub fn a_sh_activate(
        hq: DevPtr<u8>,
        hs: DevPtr<f32>,
        gu: DevPtr<bf16>,
        m: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Adds the product to `y [m, n]`.
    pub fn a_sh_down(
        y: DevPtr<bf16>,
        hq: DevPtr<u8>,
        hs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Writes a row of each sequence to its slot, the last 16 of its 80 columns rotated.
    pub fn a_pg_write(
        cache: DevPtr<u8>,
        kv: DevPtr<bf16>,
        table: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        scale: DevPtr<f32>,
        seqs: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Attention of one token of each sequence; values are the first 64 of the 80 columns of keys.
    pub fn a_pg_decode(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        cache: DevPtr<u8>,
        of_cache: DevPtr<f32>,
        tables: DevPtr<i32>,
        lengths: DevPtr<i32>,
        seqs: i32,
        heads: i32,
        page: i32,
        pages: i32,
        softmax_scale: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `residual += x`, and its RMSNorm in bf16 and in e4m3fn with scales that are powers of two.
    pub fn a_nq_norm(
        residual: DevPtr<bf16>,
        h: DevPtr<bf16>,
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
    /// `logits [m, n] = h wᵀ`.
    pub fn a_nq_gate(
        logits: DevPtr<f32>,
        h: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ`.
    pub fn a_nq_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The RMSNorm of the rows `last` of `hidden`.
    pub fn a_lm_gather_norm(
        normed: DevPtr<bf16>,
        hidden: DevPtr<bf16>,
        last: DevPtr<i32>,
        gain: DevPtr<bf16>,
        eps: f32,
        seqs: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The columns `from` to `to` of the logits.
    pub fn a_lm_head(
        logits: DevPtr<f32>,
        normed: DevPtr<bf16>,
        w: DevPtr<bf16>,
        seqs: i32,
        vocabulary: i32,
        k: i32,
        from: i32,
        to: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The softmax of the logits times `by`, and the likeliest token.
    pub fn a_lm_sample(
        probabilities: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<f32>,
        seqs: i32,
        vocabulary: i32,
        shard: i32,
        by: f32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The rows `tokens` of `x`, quantised to e4m3fn in groups of 128; scales are column-major.
    pub fn a_gg_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        tokens: DevPtr<i32>,
        rows: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each row by the weight of its expert.
    pub fn a_gg_multiply(
        up: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        experts: DevPtr<i32>,
        rows: i32,
        n: i32,
        k: i32,
        count: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// The weighted sum of the rows `places` of each token.
    pub fn a_gg_combine(
        y: DevPtr<bf16>,
        up: DevPtr<bf16>,
        places: DevPtr<i32>,
        weights: DevPtr<f32>,
        m: i32,
        n: i32,
        topk: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each row, a head of a token, by the weight of its head.
    pub fn a_ab_absorb(
        latent: DevPtr<bf16>,
        q: DevPtr<bf16>,
        w: DevPtr<bf16>,
        rows: i32,
        heads: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises each row to e4m3fnuz with a scale of its own.
    pub fn a_ab_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        latent: DevPtr<bf16>,
        rows: i32,
        heads: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
    /// Each row by the weight of its head, which has a scale for each output channel.
    pub fn a_ab_expand(
        v: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        rows: i32,
        heads: i32,
        n: i32,
        k: i32,
        fault: i32,
        stream: Stream,
    ) -> Status;
}
