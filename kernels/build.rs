//! Compiles the kernels for the host architecture.

use accuracy_core::build::HostLibrary;

const SOURCES: [&str; 34] = [
    "fp8_gemm_nt",
    "gemm_a16w4",
    "gemm_a16w4_fallback",
    "gemm_a4w4",
    "gemm_a8w8_blockscale",
    "gemm_a8w8_fp8",
    "gemm_a8w8_int8",
    "gemm_a8w8_int8_zero_point",
    "gemm_bf16",
    "gemm_bf16_fallback",
    "gemm_swizzled",
    "group_quant_fp8",
    "group_quant_fp8_fallback",
    "grouped_gemm_mxfp8",
    "moe_route",
    "moe_route_fallback",
    "moe_weighted_sum",
    "mx_quant",
    "mx_quant_fallback",
    "nvfp4_quant",
    "nvfp4_quant_fallback",
    "paged_decode",
    "per_token_cast_to_fp8",
    "per_token_cast_to_fp8_fallback",
    "rmsnorm_group_quant_fp8",
    "rmsnorm_group_quant_fp8_fallback",
    "rope_kv_write",
    "rope_kv_write_fallback",
    "swiglu_group_quant_fp8",
    "swiglu_group_quant_fp8_fallback",
    "token_quant_fp8",
    "token_quant_fp8_fallback",
    "token_quant_int8",
    "token_quant_int8_fallback",
];

fn main() {
    let sources = SOURCES.map(|name| format!("src/hip/{name}.hip"));
    // For the tests that compile the kernels once more, with faults in them.
    println!("cargo:rustc-env=KERNELS_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    HostLibrary::new("kernels").files(sources).flag("-Wextra").compile();
}
