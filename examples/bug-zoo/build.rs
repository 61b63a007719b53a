//! Compiles the kernels for the host architecture. The variants of each chain are the rows of a table in `zoo/`.

use std::path::Path;

const CHAINS: [&str; 10] =
    ["atomics", "attention", "bf16", "fp8", "int4", "int8", "moe", "mxfp4", "norm", "swiglu"];

fn main() {
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    let header: String = CHAINS.iter().map(|chain| variants(chain)).collect();
    std::fs::write(Path::new(&out).join("variants.h"), format!("#pragma once\n#include <cstdint>\n{header}"))
        .expect("OUT_DIR can be written");
    accuracy_core::build::HostLibrary::new("bug_zoo")
        .files(CHAINS.map(|chain| format!("hip/{chain}.hip")))
        .include("../../kernels/src/hip")
        .include(out)
        .flag("-Wextra")
        .compile();
}

/// `enum class V` in the chain's namespace, and `FOR_EACH_<CHAIN>(X)` over its names.
fn variants(chain: &str) -> String {
    let path = format!("zoo/{chain}.csv");
    println!("cargo::rerun-if-changed={path}");
    let table = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let names: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let each: String = names.iter().map(|name| format!(" X({name})")).collect();
    format!(
        "namespace zoo::{chain} {{\nenum class V : int32_t {{ {} }};\n}}\n#define FOR_EACH_{}(X){each}\n",
        names.join(", "),
        chain.to_uppercase()
    )
}
