//! One-line faults in what only the code for GPUs has: matrix cores, the layout of their operands over lanes, block scales,
//! conversions, barriers. The plugin compiles them, and the cases run emulated.
//!
//! `cargo test -p kernels --test mutants -- --ignored --nocapture` runs them; it takes a compiler for AMD's GPUs
//! (`install-compiler.sh`). The emulator does not reorder memory accesses, so a missing wait cannot be seen here.

use super::{Chain, Mutant, is_seen, mutant_name, plant, run_on, write_sources};
use accuracy_core::env;
use accuracy_core::record::{Gate, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// A chain that runs on one architecture, and the faults that it has to see.
struct Target {
    arch: &'static str,
    chain: Chain,
    mutants: &'static [(&'static str, &'static str, &'static str)],
}

const TARGETS: &[Target] = &[
    Target {
        arch: "gfx942",
        chain: Chain {
            binary: "fp8",
            case: "blockscale::full_chain_dtype_e4m3fnuz_quant_primary_shuffle_scale_true_tokens_33",
            sources: &["group_quant_fp8", "gemm_a8w8_blockscale"],
        },
        mutants: &[
            // Places of operands and results.
            ("mfma.h", "threadIdx.x % kWave / kMfmaTile", "threadIdx.x % 32 / kMfmaTile"),
            ("mfma_tile.h", "kMfmaTile + lane_quarter() * 4;", "kMfmaTile + lane_quarter();"),
            (
                "mfma_tile.h",
                "return number * kMfmaTile + lane_row();",
                "return lane_row() * kTilesAcross + number;",
            ),
            // Products.
            ("gemm_blockscale.h", "(x_row(x) + byte, w_row", "(x_row(x) + (byte ^ kFp8Bytes), w_row"),
            ("mfma.h", "mfma_f32_16x16x32_fp8_fp8(fragment(x)", "mfma_f32_16x16x32_bf8_fp8(fragment(x)"),
            // Sums.
            (
                "gemm_blockscale.h",
                "w_row(w, number) + byte, of_group)",
                "w_row(w, number) + byte, sums[number])",
            ),
            (
                "gemm_blockscale.h",
                "sums[number][i] += of_group[i] * scale;",
                "sums[0][i] += of_group[i] * scale;",
            ),
            // Tiles in LDS.
            ("mfma_tile.h", "__syncthreads();", ""),
            ("mfma_tile.h", "x_tile = x_tiles[step % 2]", "x_tile = x_tiles[0]"),
            // Conversions.
            (
                "fp8.h",
                "encode_pair_natively<F, true>(x[i + 2], x[i + 3]",
                "encode_pair_natively<F, true>(x[i + 3], x[i + 2]",
            ),
            ("fp8.h", "encode_pair_natively<F, true>(x[i + 2]", "encode_pair_natively<F, false>(x[i + 2]"),
        ],
    },
    Target {
        arch: "gfx950",
        chain: Chain {
            binary: "int8",
            case: "per_token::full_chain_quant_primary_tokens_33",
            sources: &["token_quant_int8", "gemm_a8w8_int8"],
        },
        mutants: &[
            // The order of K within a lane.
            ("mfma.h", "mfma_i32_16x16x64_i8(x, w", "mfma_i32_16x16x64_i8(x.yxzw, w"),
            ("gemm_int8.h", "row < rows ? k - column : 0", "row < rows ? k - column - 1 : 0"),
            (
                "gemm_int8.h",
                "multiply_int8(of_x, of_w, sums.products[number])",
                "multiply_int8(of_x, of_w, sums.products[0])",
            ),
        ],
    },
    Target {
        arch: "gfx942",
        chain: Chain {
            binary: "int8",
            case: "zero_point::full_chain_quant_primary_tokens_33",
            sources: &["token_quant_int8", "gemm_a8w8_int8_zero_point"],
        },
        mutants: &[
            // The sums of columns of W instead of those of rows of X.
            (
                "gemm_int8.h",
                "multiply_int8(of_x, ones_of_int8(), sums.of_x)",
                "multiply_int8(ones_of_int8(), of_x, sums.of_x)",
            ),
        ],
    },
    Target {
        arch: "gfx942",
        chain: Chain {
            binary: "bf16",
            case: "gemm::full_chain_gemm_primary_transpose_x_true_tokens_33",
            sources: &["gemm_bf16"],
        },
        mutants: &[
            ("mfma.h", "16x16x16bf16_1k(a, b", "16x16x16bf16_1k(a.yxzw, b"),
            (
                "gemm_bf16.hip",
                "matrix[(column + i) * ld + row]",
                "matrix[(column + i) * ld + rows - 1 - row]",
            ),
        ],
    },
    Target {
        arch: "gfx950",
        chain: Chain {
            binary: "mxfp4",
            case: "gemm::full_chain_quant_primary_shuffle_scale_true_rounding_scalerounding_even_tokens_33",
            sources: &["mx_quant", "gemm_a4w4"],
        },
        mutants: &[
            // Scales of other rows, and of the other half of K.
            (
                "gemm_a4w4.hip",
                "0, 1>(x_codes[0], of_x, codes_of_4_bits(odd)",
                "0, 0>(x_codes[0], of_x, codes_of_4_bits(odd)",
            ),
            ("gemm_a4w4.hip", "2, 2>(x_codes[1]", "0, 2>(x_codes[1]"),
            ("gemm_a4w4.hip", "(rows_of_wave / 16 % 2 * 8)", "0"),
            ("gemm_a4w4.hip", "? (scales & ~0xffff) | first :", "? one << 16 | first :"),
            // Conversions.
            ("mx_quant.h", "x.v[0], x.v[1], exponent, 0)", "x.v[1], x.v[0], exponent, 0)"),
            ("mx_quant.h", "x.v[2], x.v[3], exponent, 1)", "x.v[2], x.v[3], exponent, 0)"),
        ],
    },
    Target {
        arch: "gfx950",
        chain: Chain {
            binary: "mxfp8",
            case: "gemm::full_chain_quant_primary_tokens_33",
            sources: &["mx_quant", "gemm_swizzled"],
        },
        mutants: &[
            ("mfma.h", "b = fragment(row + kStepBytes)", "b = fragment(row)"),
            // The halves of K exchanged in both operands: their products stay, their scales do not.
            (
                "mfma.h",
                "return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};",
                "return {b.x, b.y, b.z, b.w, a.x, a.y, a.z, a.w};",
            ),
            ("mfma_tile.h", "multiply_scaled<e4m3, 0, 2>", "multiply_scaled<e4m3, 0, 1>"),
            ("gemm_swizzled.hip", "kMxGroup) + lane_quarter();", "kMxGroup);"),
        ],
    },
    Target {
        arch: "gfx950",
        chain: Chain {
            binary: "attention",
            case: "decode::full_chain_dtype_e4m3fn_write_primary_style_ropestyle_gptj_tokens_9",
            sources: &["rope_kv_write", "paged_decode"],
        },
        mutants: &[
            // The softmax that goes along.
            ("paged_decode.hip", "totals[tile][i] *= shrink;", ""),
            ("paged_decode.hip", "sum[i] * shrink +", "sum[i] +"),
            (
                "paged_decode.hip",
                "inside ? scores[tile][i] * score_scale : -INFINITY",
                "scores[tile][i] * score_scale",
            ),
            ("paged_decode.hip", "mask = kMfmaTile / 2", "mask = kMfmaTile / 4"),
            (
                "paged_decode.hip",
                "probabilities[lane_row()][step + lane_quarter()]",
                "probabilities[lane_row()][step]",
            ),
        ],
    },
];

#[test]
#[ignore = "needs a compiler for AMD's GPUs"]
fn every_one_line_fault_in_the_code_for_gpus_turns_a_case_red() {
    let binaries = super::test_binaries(&["accuracy-core/emulate"]);
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "-p", "cargo-accuracy"]);
    let plugin = &super::executables(command)["cargo-accuracy"];
    let survivors = Mutex::new(Vec::new());
    let next = Mutex::new(TARGETS.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(target) = next.lock().unwrap().next() else { return };
                    let found = survivors_of(target, plugin, &binaries);
                    survivors.lock().unwrap().extend(found);
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "not seen by any check: {survivors:#?}");
}

/// The mutants that no check sees.
fn survivors_of(target: &'static Target, plugin: &Path, binaries: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let Target { arch, chain, mutants } = target;
    let package = Package::new(chain);
    let run = |edit: &dyn Fn(&str, &mut String)| {
        let folder = package.build(chain, plugin, arch, edit);
        let variables = [(env::ARCH, *arch), (env::EMULATE, "1"), (env::EMULATE_THREADS, "1")];
        run_on(&folder, chain, binaries, &variables)
    };
    // The control.
    let (records, crashed): (Vec<Record>, bool) = run(&|_, _| ());
    assert!(!crashed && !records.is_empty(), "{} does not run on {arch}", chain.case);
    let red: Vec<_> = records.iter().filter(|r| r.gate == Gate::Fail).map(|r| &r.id).collect();
    assert!(red.is_empty(), "red without a fault on {arch}: {red:?}");

    let mut survivors = Vec::new();
    for &(file, from, to) in *mutants {
        let mutant: Mutant = (chain, file, from, to);
        if !is_seen(&mutant, run(&|name, text| plant(&mutant, name, text))) {
            survivors.push(format!("{arch}: {}", mutant_name(&mutant)));
        }
    }
    survivors
}

/// A package with the sources of a chain and nothing else. Its folder stays, so that the plugin compiles what a mutant
/// changes, and no more.
struct Package(TempDir);

impl Package {
    fn new(chain: &Chain) -> Package {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.path().join("src/hip")).unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        let manifest = "[package]\nname = \"kernels\"\nedition = \"2024\"\n[workspace]\n\
                        [[package.metadata.accuracy.library]]\nname = \"kernels\"\nsources = [\"src/hip\"]\n\
                        flags = [\"-w\"]\n";
        std::fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        write_sources(&dir.path().join("src/hip"), |name| is_part(chain, name), |_, _| ());
        Package(dir)
    }

    /// Builds the edited sources; the folder of the library.
    fn build(&self, chain: &Chain, plugin: &Path, arch: &str, edit: &dyn Fn(&str, &mut String)) -> PathBuf {
        let dir = self.0.path();
        write_sources(&dir.join("src/hip"), |name| is_part(chain, name), edit);
        let mut command = Command::new(plugin);
        command.args(["build", "--arch", arch, "--manifest-path"]).arg(dir.join("Cargo.toml"));
        command.arg("--target-dir").arg(dir.join("target"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        Path::new(printed.lines().last().expect("the library that was built")).parent().unwrap().into()
    }
}

/// Headers, and the sources of the chain.
fn is_part(chain: &Chain, name: &str) -> bool {
    name.strip_suffix(".hip").is_none_or(|source| chain.sources.contains(&source))
}
