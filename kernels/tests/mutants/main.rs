//! One-line faults in the kernels, each of which must turn a case red.
//!
//! Every mutant is compiled into a kernel library of its own, which the accuracy tests of this crate then open
//! instead of the right one. `cargo test -p kernels --test mutants -- --nocapture` prints which check saw what.
//!
//! These are compiled for the host. What only the code for GPUs has is in `emulated.rs`.

mod emulated;

use accuracy_core::build::HostLibrary;
use accuracy_core::env;
use accuracy_core::record::{self, Gate, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A chain of the crate's tests: its test binary, one case of it, and the sources it needs.
struct Chain {
    binary: &'static str,
    case: &'static str,
    sources: &'static [&'static str],
}

const FP8: Chain = Chain {
    binary: "fp8",
    case: "blockscale::full_chain_dtype_e4m3fn_quant_primary_shuffle_scale_true_tokens_33",
    sources: &["group_quant_fp8", "gemm_a8w8_blockscale"],
};
const FP8_FALLBACK: Chain = Chain {
    binary: "fp8",
    case: "blockscale::fallback_vs_primary_dtype_e4m3fn_quant_fallback_shuffle_scale_true_tokens_33",
    sources: &["group_quant_fp8", "group_quant_fp8_fallback", "gemm_a8w8_blockscale"],
};
const FP8_PARAMETER: Chain = Chain {
    binary: "fp8",
    case: "blockscale::parameter_shuffle_scale_dtype_e4m3fn_quant_fallback_tokens_128",
    sources: FP8_FALLBACK.sources,
};
const RMSNORM: Chain = Chain {
    binary: "fp8",
    case: "::full_chain_dtype_e4m3fn_norm_quant_primary_shuffle_scale_false_tokens_33",
    sources: &["rmsnorm_group_quant_fp8", "gemm_a8w8_blockscale"],
};
const SWIGLU: Chain = Chain {
    binary: "fp8",
    case: "swiglu::full_chain_dtype_e4m3fn_act_quant_primary_shuffle_scale_false_tokens_33",
    sources: &["swiglu_group_quant_fp8", "gemm_a8w8_blockscale"],
};
const INT8: Chain = Chain {
    binary: "int8",
    case: "per_token::full_chain_quant_primary_tokens_33",
    sources: &["token_quant_int8", "gemm_a8w8_int8"],
};
const BF16: Chain = Chain {
    binary: "bf16",
    case: "gemm::full_chain_gemm_primary_transpose_x_false_tokens_33",
    sources: &["gemm_bf16"],
};
const BF16_FALLBACK: Chain = Chain {
    binary: "bf16",
    case: "gemm::full_chain_gemm_fallback_transpose_x_true_tokens_33",
    sources: &["gemm_bf16", "gemm_bf16_fallback"],
};
const STRIDED: Chain =
    Chain { binary: "bf16", case: "strided::full_chain_gemm_primary", sources: &["gemm_bf16"] };

const MXFP4: Chain = Chain {
    binary: "mxfp4",
    case: "gemm::full_chain_quant_primary_shuffle_scale_true_rounding_scalerounding_even_tokens_33",
    sources: &["mx_quant", "gemm_a4w4"],
};
const INT4: Chain = Chain {
    binary: "int4",
    case: "awq::full_chain_gemm_primary_shape_592_384_tokens_33",
    sources: &["gemm_a16w4"],
};
const GPTQ: Chain = Chain {
    binary: "int4",
    case: "gptq::full_chain_gemm_primary_shape_592_384_tokens_33",
    sources: &["gemm_a16w4"],
};
const NVFP4: Chain = Chain {
    binary: "nvfp4",
    case: "gemm::full_chain_quant_primary_is_sf_swizzled_true_tokens_33",
    sources: &["nvfp4_quant", "gemm_swizzled"],
};
const MXFP8: Chain = Chain {
    binary: "mxfp8",
    case: "gemm::full_chain_quant_primary_tokens_33",
    sources: &["mx_quant", "gemm_swizzled"],
};
const PER_TOKEN: Chain = Chain {
    binary: "fp8",
    case: "per_token::full_chain_dtype_e4m3fn_quant_primary_preshuffled_true_tokens_33",
    sources: &["token_quant_fp8", "gemm_a8w8_fp8"],
};
const DEEP_GEMM: Chain = Chain {
    binary: "fp8",
    case: "deep_gemm::full_chain_dtype_e4m3fn_cast_primary_ue8m0_true_tokens_33",
    sources: &["per_token_cast_to_fp8", "fp8_gemm_nt"],
};
const DEEP_GEMM_F32: Chain =
    Chain { case: "deep_gemm::full_chain_dtype_e4m3fn_cast_primary_ue8m0_false_tokens_33", ..DEEP_GEMM };
const INT8_ZERO_POINT: Chain = Chain {
    binary: "int8",
    case: "zero_point::full_chain_quant_primary_tokens_33",
    sources: &["token_quant_int8", "gemm_a8w8_int8_zero_point"],
};
const EXPERTS: Chain = Chain {
    binary: "moe",
    case: "experts::full_chain_kernels_primary_renormalize_true_shards_2_tokens_17",
    sources: &["moe_route", "mx_quant", "grouped_gemm_mxfp8", "moe_weighted_sum"],
};
const EXPERTS_PARAMETER: Chain = Chain {
    binary: "moe",
    case: "experts::parameter_renormalize_kernels_primary_tokens_17",
    sources: &[
        "moe_route",
        "moe_route_fallback",
        "mx_quant",
        "mx_quant_fallback",
        "grouped_gemm_mxfp8",
        "moe_weighted_sum",
    ],
};
const ATTENTION: Chain = Chain {
    binary: "attention",
    case: "decode::full_chain_dtype_e4m3fn_write_primary_style_ropestyle_gptj_tokens_9",
    sources: &["rope_kv_write", "paged_decode"],
};

/// What is changed: source, the text that stands in it once, and what stands there instead.
type Mutant = (&'static Chain, &'static str, &'static str, &'static str);

const MUTANTS: &[Mutant] = &[
    // Scale index.
    (&FP8, "gemm_a8w8_blockscale.hip", "/ kGroup * groups + group]", "/ kGroup + group * groups]"),
    (
        &FP8,
        "gemm_a8w8_blockscale.hip",
        "/ kGroup * groups + group]",
        "/ kGroup * groups + (group + 1) % groups]",
    ),
    (&FP8, "gemm_a8w8_blockscale.hip", "group * m + r :", "group * m + (r + 1) % m :"),
    (&INT8, "gemm_a8w8_int8.hip", "sum[i][j], xs[row], ws[column]", "sum[i][j], xs[row], ws[first_column]"),
    // A dropped parameter.
    (&FP8, "gemm_a8w8_blockscale.hip", "shuffle_scale ? group * m + r :", "false ? group * m + r :"),
    (&FP8, "group_quant.h", "shuffle_scale ? group * m + row :", "false ? group * m + row :"),
    (&FP8_FALLBACK, "group_quant_fallback.h", "group(shuffle_scale ? m : 1)", "group(1)"),
    (
        &FP8_PARAMETER,
        "group_quant_fallback.h",
        ": row(shuffle_scale ? 1 : groups), group(shuffle_scale ? m : 1) {}",
        ": row(groups), group(1) {}",
    ),
    (&BF16_FALLBACK, "gemm_bf16_fallback.hip", "transpose_x ? ldx : 1", "1"),
    // Clamp and maximum.
    (&FP8, "group_quant.h", "1e-10f) / F::max", "1e-10f) / 240.0f"),
    (&FP8, "fp8.h", "code = F::max_code;", "code = F::max_code - 1;"),
    (&INT8, "token_quant_int8.hip", "-127.0f), 127.0f)", "-127.0f), 63.0f)"),
    // Rounding.
    (&FP8, "fp8.h", "(1u << (shift - 1)) - 1 + (magnitude >> shift & 1)", "0"),
    (&INT8, "token_quant_int8.hip", "rintf(", "truncf("),
    (&BF16, "bf16.h", "(bits + 0x7fff + ((bits >> 16) & 1)) >> 16", "bits >> 16"),
    // The magnitude's reduction.
    (&FP8, "reduce.h", "mask = kLanes / 2", "mask = kLanes / 4"),
    (&FP8, "group_quant.h", "fmaxf(amax, fabsf(x[i]))", "fmaxf(amax, x[i])"),
    // Number format.
    (&FP8, "fp8.h", "mantissa = 3, bias = 7", "mantissa = 3, bias = 8"),
    (&FP8, "fp8.h", "bits | uint32_t{code & 0x80u} << 24", "bits"),
    // Tail.
    (&FP8, "gemm_blockscale.h", "k0 < (group + 1) * kGroup;", "k0 < (group + 1) * kGroup - kTileK;"),
    (&FP8, "gemm_blockscale.h", "if (first + row < rows)", "if (first + row + 1 < rows)"),
    (&BF16, "tile.h", "column + j < n;", "column + j < n - 1;"),
    (&BF16, "tile.h", "row + i < m;", "row + i < m - 1;"),
    // Stride.
    (&STRIDED, "gemm_bf16.hip", "r * ld + c]", "r * k + c]"),
    (&STRIDED, "gemm_bf16.hip", "r * ld + c]", "static_cast<int32_t>(r * ld) + c]"),
    (&BF16, "tile.h", "(row + i) * ldy", "(row + i) * n"),
    // Accumulator.
    (
        &FP8,
        "gemm_blockscale.h",
        "sum.v[i][j] += of_group.v[i][j] * scale;",
        "sum.v[i][j] = to_float(to_bf16(sum.v[i][j] + of_group.v[i][j] * scale));",
    ),
    (
        &BF16,
        "tile.h",
        "sum.v[i][j] += a.v[i] * b.v[j];",
        "sum.v[i][j] = to_float(to_bf16(sum.v[i][j] + a.v[i] * b.v[j]));",
    ),
    (&INT8, "gemm_a8w8_int8.hip", "int32_t sum[kPerThread]", "int16_t sum[kPerThread]"),
    // Fused stages.
    (&RMSNORM, "rmsnorm_group_quant_fp8.hip", "/ k + eps)", "/ k)"),
    (&RMSNORM, "rmsnorm_group_quant_fp8.hip", "/ k + eps)", "/ (k - 1) + eps)"),
    (&RMSNORM, "rmsnorm_group_quant_fp8.hip", " * to_float(g.v[i])", ""),
    (
        &RMSNORM,
        "rmsnorm_group_quant_fp8.hip",
        "*reinterpret_cast<Pack<bf16, kPerLane>*>(residual + i) = packed;",
        "",
    ),
    (&SWIGLU, "swiglu_group_quant_fp8.hip", "expf(-x)", "expf(x)"),
    (&SWIGLU, "swiglu_group_quant_fp8.hip", "gate_up + row * 2 * k +", "gate_up + row * k +"),
    // MX formats. Of the first both quantiser and GEMM have their part, and agree with each other.
    (&MXFP4, "mx.h", "(int64_t{groups} + 7) / 8 * 8;", "int64_t{groups};"),
    (&MXFP4, "mx.h", "if (rounding == kEven) amax += 1u << (23 - E::mantissa - 1);", ""),
    (&MXFP4, "mx.h", "uint32_t{code} << 23", "(uint32_t{code} + 1) << 23"),
    (&MXFP4, "mx_quant.h", "(a >= 3.5f)", "(a >= 3.0f)"),
    (&MXFP4, "mx_quant.h", "code << (i % E::per_byte * 4)", "code << (4 - i % E::per_byte * 4)"),
    (&MXFP4, "gemm_a4w4.hip", "row % 16 * kRun) / 2", "row % 16 * 16) / 2"),
    // int4 and zero points.
    (&INT4, "int4.h", "element / 2 + element % 2 * 4", "element"),
    (&INT4, "int4.h", "static_cast<int32_t>(zero)) * scale", "static_cast<int32_t>(zero) - 1) * scale"),
    (&INT4, "int4.h", "scales[g * n + row]", "scales[row * groups + g]"),
    (
        &GPTQ,
        "int4.h",
        "codes[column / 8 * n + row] >> (4 * (column",
        "codes[column / 8 * n + row] >> (4 * (7 - column",
    ),
    (&GPTQ, "int4.h", "zero = 8;", "zero = 7;"),
    (&GPTQ, "int4.h", "0x1p112f", "0x1p113f"),
    (&INT8_ZERO_POINT, "gemm_a8w8_int8_zero_point.hip", "int64_t{wz[column]}", "int64_t{0}"),
    (&INT8_ZERO_POINT, "gemm_a8w8_int8_zero_point.hip", "int64_t{wz[column]}", "int64_t{wz[0]}"),
    // Two-level scales and tiles of 128x4. Of the first two both quantiser and GEMM have their part.
    (&NVFP4, "swizzle_128x4.h", "(int64_t{groups} + 3) / 4", "int64_t{groups} / 4"),
    (&NVFP4, "swizzle_128x4.h", "row % 32 * 16 + row % 128 / 32 * 4", "row % 128 / 4 * 16 + row % 4 * 4"),
    (&NVFP4, "nvfp4_quant.hip", "*global / E2m1::max", "*global / 4.0f"),
    (&NVFP4, "nvfp4_quant.hip", "0.0f : *global / scale", "0.0f : 1.0f / scale"),
    (&NVFP4, "gemm_swizzled.hip", "1.0f / *x_global / *w_global", "1.0f / *x_global"),
    (&NVFP4, "gemm_swizzled.hip", "group = (k0 + column) / T::group", "group = k0 / T::group"),
    (&MXFP8, "gemm_swizzled.hip", "return decode_e8m0(code);", "return decode<E4m3fn>(code);"),
    (&MXFP8, "gemm_swizzled.hip", "first_column, n, k0, k, true);", "first_column, n, k0, k, false);"),
    // Preshuffled codes, scales of channels.
    (&PER_TOKEN, "gemm_blockscale.h", "row % 16 * kBytes", "row % 16 * 32"),
    (&PER_TOKEN, "gemm_a8w8_fp8.hip", "if (!preshuffled) return", "if (true) return"),
    (&PER_TOKEN, "gemm_a8w8_fp8.hip", "return s[row];", "return s[0];"),
    (&PER_TOKEN, "token_quant_fp8.hip", "1e-10f) / F::max", "1e-10f) / 240.0f"),
    // DeepGEMM's scales.
    (&DEEP_GEMM, "mn_major.h", "(rows + 3) / 4 * 4", "rows"),
    (
        &DEEP_GEMM,
        "mn_major.h",
        "4 * (group / 4 * aligned_rows(rows) + row) + group % 4",
        "group * aligned_rows(rows) + row",
    ),
    (&DEEP_GEMM, "per_token_cast_to_fp8.hip", "kCeil", "kFloor"),
    (&DEEP_GEMM_F32, "mn_major.h", "(rows + 3) / 4 * 4", "rows"),
    (&DEEP_GEMM_F32, "fp8_gemm_nt.hip", "s[row / kGroup * groups + group]", "s[row / kGroup * groups]"),
    // Experts.
    (&EXPERTS_PARAMETER, "moe_route.hip", "renormalize ? mine / chosen : mine", "mine / chosen"),
    (&EXPERTS, "moe_route.hip", "int winner = !taken && left == best", "int winner = left != best"),
    (
        &EXPERTS,
        "grouped_gemm_mxfp8.hip",
        "ws += int64_t{expert} * n * (ld / kMxGroup);",
        "ws += int64_t{expert} * n;",
    ),
    (&EXPERTS, "grouped_gemm_mxfp8.hip", "column_of_k = first_k + k0 + c", "column_of_k = k0 + c"),
    (
        &EXPERTS,
        "grouped_gemm_mxfp8.hip",
        "const int64_t r = sorted[first + row + i];",
        "const int64_t r = first + row + i;",
    ),
    (&EXPERTS, "moe_weighted_sum.hip", "a[i] + b[i]", "a[i]"),
    (&EXPERTS, "mx_quant.hip", "to_float(g.v[i]);", "to_float(u.v[i]);"),
    // Attention.
    (
        &ATTENTION,
        "rope_kv_write.hip",
        "args.neox ? i : 2 * i, second = args.neox ? i + half : 2 * i + 1;",
        "i, second = i + half;",
    ),
    (&ATTENTION, "rope_kv_write.hip", "int64_t{args.positions[token]}", "token"),
    (&ATTENTION, "rope_kv_write.hip", "(rotated_b / *args.k_scale)", "(rotated_b / *args.v_scale)"),
    (&ATTENTION, "paged_decode.hip", "kv_head = head / heads_of_key;", "kv_head = head % kv_heads;"),
    (&ATTENTION, "paged_decode.hip", "int64_t{table[p / block]}", "int64_t{block_tables[p / block]}"),
    (
        &ATTENTION,
        "paged_decode.hip",
        "for (int32_t p = 0; p < length; ++p)",
        "for (int32_t p = 0; p < length - 1; ++p)",
    ),
    (&ATTENTION, "paged_decode.hip", "total * *v_scale / sum", "total / sum"),
];

#[test]
fn every_one_line_fault_in_the_kernels_turns_a_case_red() {
    let binaries = test_binaries(&[]);
    // The control: the sources as they are pass, built and opened in the same way.
    for chain in [
        &FP8,
        &FP8_FALLBACK,
        &FP8_PARAMETER,
        &RMSNORM,
        &SWIGLU,
        &INT8,
        &BF16,
        &BF16_FALLBACK,
        &STRIDED,
        &MXFP4,
        &INT4,
        &GPTQ,
        &INT8_ZERO_POINT,
        &NVFP4,
        &MXFP8,
        &PER_TOKEN,
        &DEEP_GEMM,
        &DEEP_GEMM_F32,
        &EXPERTS,
        &EXPERTS_PARAMETER,
        &ATTENTION,
    ] {
        let (records, crashed) = run(chain, &binaries, |_, _| ());
        assert!(!crashed && !records.is_empty(), "{} does not run", chain.case);
        let red: Vec<_> = records.iter().filter(|r| r.gate == Gate::Fail).map(|r| &r.id).collect();
        assert!(red.is_empty(), "red without a fault: {red:?}");
    }
    let survivors = Mutex::new(Vec::new());
    let next = Mutex::new(MUTANTS.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(mutant) = next.lock().unwrap().next() else { return };
                    let result = run(mutant.0, &binaries, |name, text| plant(mutant, name, text));
                    if !is_seen(mutant, result) {
                        survivors.lock().unwrap().push(mutant_name(mutant));
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "not seen by any check: {survivors:#?}");
}

/// Edits the file that a mutant changes.
fn plant(&(_, file, from, to): &Mutant, name: &str, text: &mut String) {
    if name == file {
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
        *text = text.replace(from, to);
    }
}

/// Whether a check saw the mutant. Prints which did.
fn is_seen(mutant: &Mutant, (records, crashed): (Vec<Record>, bool)) -> bool {
    let mut seen: Vec<String> = records
        .iter()
        .filter(|r| r.gate == Gate::Fail)
        .flat_map(|r| r.failed_checks.iter().cloned())
        .collect();
    seen.sort();
    seen.dedup();
    if crashed {
        seen.push("crashed".into());
    }
    println!("{}\n    {}", mutant_name(mutant), seen.join(" "));
    !seen.is_empty()
}

fn mutant_name((_, file, from, to): &Mutant) -> String {
    format!("{file}: {from} -> {to}")
}

/// Writes the sources with some of them edited into a folder.
fn write_sources(to: &Path, wanted: impl Fn(&str) -> bool, edit: impl Fn(&str, &mut String)) {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hip")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if wanted(&name) {
            let mut text = std::fs::read_to_string(&path).unwrap();
            edit(&name, &mut text);
            std::fs::write(to.join(name), text).unwrap();
        }
    }
}

/// Runs a chain on a library whose sources were edited; its records, and whether the process died.
fn run(
    chain: &Chain,
    binaries: &BTreeMap<String, PathBuf>,
    edit: impl Fn(&str, &mut String),
) -> (Vec<Record>, bool) {
    let dir = tempfile::tempdir().unwrap();
    write_sources(dir.path(), |_| true, edit);
    HostLibrary::new("kernels")
        .files(chain.sources.iter().map(|name| dir.path().join(format!("{name}.hip"))))
        // Some mutants leave a variable unused.
        .flag("-w")
        .out_dir(dir.path())
        .target(TARGET)
        .try_compile()
        .unwrap();
    run_on(dir.path(), chain, binaries, &[])
}

/// Runs a chain on the library in a folder; its records, and whether the process died.
fn run_on(
    folder: &Path,
    chain: &Chain,
    binaries: &BTreeMap<String, PathBuf>,
    variables: &[(&str, &str)],
) -> (Vec<Record>, bool) {
    let records = TempDir::new().unwrap();
    let mut child = Command::new(&binaries[chain.binary])
        .arg(chain.case)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env(env::LIBRARY_PATH, folder)
        .env(env::LIBRARY_WINS, "1")
        .env(env::RECORDS, records.path())
        .env(env::POISON, "6")
        .env(env::ALONE, "1")
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A mutant may loop for ever.
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let records = std::fs::read_dir(records.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter_map(|path| record::read_record(&path).ok())
        .collect();
    (records, status.code().is_none())
}

/// The target that this test was built for, as the compiler of the kernels wants it.
const TARGET: &str = env!("KERNELS_TARGET");

/// The crate's other test binaries by name, built with these features.
fn test_binaries(features: &[&str]) -> BTreeMap<String, PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--no-run", "--features", &features.join(",")]);
    for binary in ["fp8", "int8", "bf16", "mxfp4", "mxfp8", "nvfp4", "int4", "moe", "attention"] {
        command.args(["--test", binary]);
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    executables(command)
}

/// What a command of cargo builds in this package, by name.
fn executables(mut command: Command) -> BTreeMap<String, PathBuf> {
    command.args(["--message-format=json", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?} does not build");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|m| {
            let name = m["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(m["executable"].as_str()?)))
        })
        .collect()
}
