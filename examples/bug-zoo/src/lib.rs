//! Kernels with planted faults, and right ones that look odd.
//!
//! Each chain has a table in `zoo/`: a row is a variant of its kernels with the true cause of its fault, the bug in
//! the field that it models, and one sentence. The variant is a template argument of the kernels in `hip/`, so that the
//! fault is in the kernel's own code. What the framework makes of them is in `README.md`, which this package's binary
//! writes.

pub mod tables;

use accuracy_core::prelude::*;
pub use tables::{Truth, Variant};

/// Chain and table.
pub const CHAINS: [(&str, &str); 14] = [
    ("fp8", include_str!("../zoo/fp8.csv")),
    ("int8", include_str!("../zoo/int8.csv")),
    ("mxfp4", include_str!("../zoo/mxfp4.csv")),
    ("int4", include_str!("../zoo/int4.csv")),
    ("bf16_gemm", include_str!("../zoo/bf16.csv")),
    ("atomics", include_str!("../zoo/atomics.csv")),
    ("swiglu", include_str!("../zoo/swiglu.csv")),
    ("norm", include_str!("../zoo/norm.csv")),
    ("attention", include_str!("../zoo/attention.csv")),
    ("moe", include_str!("../zoo/moe.csv")),
    ("silent_scale", include_str!("../zoo/silent_scale.csv")),
    ("silent_transpose", include_str!("../zoo/silent_transpose.csv")),
    ("silent_style", include_str!("../zoo/silent_style.csv")),
    ("silent_renormalize", include_str!("../zoo/silent_renormalize.csv")),
];

/// All variants of a chain of the zoo; none of one that there is not.
pub fn variants(chain: &str) -> Vec<Variant> {
    let Some((chain, table)) = CHAINS.iter().find(|(name, _)| *name == chain) else { return Vec::new() };
    table.lines().skip(1).zip(0..).filter_map(|(line, number)| Variant::parse(chain, line, number)).collect()
}

/// The variant of a chain by its name.
///
/// # Errors
/// If there is none.
pub fn variant(chain: &str, name: &str) -> Result<Variant> {
    variants(chain)
        .into_iter()
        .find(|v| v.name == name)
        .ok_or_else(|| Error::msg(format!("zoo/{chain}.csv has no variant `{name}`")))
}

#[kernel_library("bug_zoo")]
unsafe extern "C" {
    /// Quantises `x [m, k]` to e4m3 in groups of 128; `shuffle_scale` writes the scales column-major.
    pub fn fp8_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// The same under the name of a fallback.
    pub fn fp8_quantise_fallback(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with 1x128 scales of `x` and 128x128 scales of `w`.
    pub fn fp8_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<f32>,
        wq: DevPtr<u8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to int8 with a scale for each token.
    pub fn int8_quantise(
        q: DevPtr<i8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ` with a scale for each token and output channel.
    pub fn int8_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<i8>,
        xs: DevPtr<f32>,
        wq: DevPtr<i8>,
        ws: DevPtr<f32>,
        m: i32,
        n: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Quantises `x [m, k]` to MXFP4; `rounding` is 0 for down, 1 for up, 2 for even.
    pub fn mxfp4_quantise(
        q: DevPtr<u8>,
        s: DevPtr<u8>,
        x: DevPtr<bf16>,
        m: i32,
        k: i32,
        rounding: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = (xq * xs) (wq * ws)ᵀ`, both MXFP4; `wq` preshuffled, `ws` swizzled.
    pub fn mxfp4_multiply(
        y: DevPtr<bf16>,
        xq: DevPtr<u8>,
        xs: DevPtr<u8>,
        wq: DevPtr<u8>,
        ws: DevPtr<u8>,
        m: i32,
        n: i32,
        k: i32,
        shuffle_scale: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = x ((q - z) * s)ᵀ` with 4-bit weights in groups; `packing` is 0 for AWQ, 1 for compressed-tensors.
    pub fn int4_multiply(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        qweight: DevPtr<u32>,
        scales: DevPtr<bf16>,
        qzeros: DevPtr<u32>,
        m: i32,
        n: i32,
        k: i32,
        group: i32,
        packing: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = alpha x wᵀ`, rows of `x` and `y` so many elements apart; `x` may be stored transposed.
    pub fn bf16_multiply(
        y: DevPtr<bf16>,
        ldy: i64,
        x: DevPtr<bf16>,
        ldx: i64,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        alpha: f32,
        transpose_x: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// The same under the name of a fallback.
    pub fn bf16_multiply_fallback(
        y: DevPtr<bf16>,
        ldy: i64,
        x: DevPtr<bf16>,
        ldx: i64,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        alpha: f32,
        transpose_x: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `y [m, n] = x wᵀ` in float32, by split-K and atomics.
    pub fn atomics_multiply(
        y: DevPtr<f32>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// `silu(gate) * up` of `gate_up [m, 2k]`, quantised to e4m3 in groups of 128.
    pub fn swiglu_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        gate_up: DevPtr<bf16>,
        m: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// RMSNorm of `x [m, k]`, quantised to e4m3 in groups of 128.
    pub fn norm_quantise(
        q: DevPtr<u8>,
        s: DevPtr<f32>,
        x: DevPtr<bf16>,
        gain: DevPtr<bf16>,
        eps: f32,
        m: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Rotates queries and keys, and writes keys and values to their slots of the e4m3 cache.
    pub fn attention_write(
        q_out: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        cos_sin: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        neox: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// The same under the name of a fallback.
    pub fn attention_write_fallback(
        q_out: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        q: DevPtr<bf16>,
        k: DevPtr<bf16>,
        v: DevPtr<bf16>,
        cos_sin: DevPtr<f32>,
        positions: DevPtr<i32>,
        slots: DevPtr<i32>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        tokens: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        neox: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Attention of one token of each sequence over a paged e4m3 cache.
    pub fn attention_decode(
        out: DevPtr<bf16>,
        q: DevPtr<bf16>,
        k_cache: DevPtr<u8>,
        v_cache: DevPtr<u8>,
        k_scale: DevPtr<f32>,
        v_scale: DevPtr<f32>,
        block_tables: DevPtr<i32>,
        seq_lens: DevPtr<i32>,
        seqs: i32,
        heads: i32,
        kv_heads: i32,
        d: i32,
        block: i32,
        max_blocks: i32,
        scale: f32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Softmax over `logits + bias`, and the `topk` largest of each token with their experts.
    pub fn moe_route(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        bias: DevPtr<f32>,
        m: i32,
        experts: i32,
        topk: i32,
        renormalize: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// The same under the name of a fallback.
    pub fn moe_route_fallback(
        weights: DevPtr<f32>,
        ids: DevPtr<i32>,
        logits: DevPtr<bf16>,
        bias: DevPtr<f32>,
        m: i32,
        experts: i32,
        topk: i32,
        renormalize: bool,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// Each row of `y [rows, n]` by the weight of its expert, `w [experts, n, k]`.
    pub fn moe_multiply(
        y: DevPtr<f32>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        ids: DevPtr<i32>,
        rows: i32,
        topk: i32,
        experts: i32,
        n: i32,
        k: i32,
        variant: i32,
        stream: Stream,
    ) -> Status;
    /// The experts' outputs by their weights, times a factor.
    pub fn moe_combine(
        y: DevPtr<bf16>,
        weights: DevPtr<f32>,
        x: DevPtr<f32>,
        m: i32,
        n: i32,
        topk: i32,
        scaling: f32,
        variant: i32,
        stream: Stream,
    ) -> Status;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `enum class V` in the chain's namespace, and `FOR_EACH_<CHAIN>(X)` over its names.
    fn for_kernels(chain: &str, table: &str) -> String {
        let names: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        let each: String = names.iter().map(|name| format!(" X({name})")).collect();
        format!(
            "namespace zoo::{chain} {{\nenum class V : int32_t {{ {} }};\n}}\n#define FOR_EACH_{}(X){each}\n",
            names.join(", "),
            chain.to_uppercase()
        )
    }

    #[test]
    fn the_kernels_know_the_variants_of_the_tables() {
        let tables = CHAINS.iter().filter(|(chain, _)| !chain.starts_with("silent_"));
        let mut each: Vec<String> =
            tables.map(|(chain, table)| for_kernels(chain.trim_end_matches("_gemm"), table)).collect();
        each.sort();
        let head = "#pragma once\n// The rows of the tables in zoo/, written by this package's tests.\n#include <cstdint>\n";
        let text = format!("{head}{}", each.concat());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/hip/variants.h");
        if std::env::var_os("ZOO_WRITE").is_some() {
            std::fs::write(path, &text).expect("the header can be written");
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            text == there,
            "hip/variants.h is not what the tables say: ZOO_WRITE=1 cargo test -p bug-zoo --lib"
        );
    }

    #[test]
    fn every_row_of_every_table_is_a_variant_with_a_name_of_its_own() {
        let each = CHAINS.iter().map(|&(chain, table)| (variants(chain), chain, table.lines().count() - 1));
        for (found, chain, rows) in each {
            assert_eq!(found.len(), rows, "{chain}");
            tables::assert_told(chain, &found);
        }
    }

    #[test]
    fn every_package_with_faults_has_tables_that_can_be_read() {
        for package in ["kernel-faults", "blind-faults"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("faults");
            let chains = tables::read(&dir).unwrap_or_else(|e| panic!("{package}: {e:#}"));
            assert!(!chains.is_empty(), "{package} has no tables");
            for (chain, found) in &chains {
                tables::assert_told(chain, found);
            }
        }
    }
}
