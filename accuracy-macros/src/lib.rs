//! `#[accuracy_test]`, `#[kernel_library]` and `#[code_object]`.
//!
//! What lives here: the syntax of the attributes, the errors for every way to get it wrong, and the expansion.
//! What the expansion calls, and what a cell of the matrix then does, is in `accuracy-core`, which re-exports them.

mod attribute;
mod cells;
mod csv;
mod errors;
mod expand;
mod function;
mod json;
mod kernel_library;
mod pattern;

use kernel_library::Binds;
use proc_macro::TokenStream;

/// Turns one function that calls kernels into a matrix of ordinary `#[test]`s.
///
/// The first parameter is the case. Every other parameter is an axis of the matrix and carries one of
///
/// | attribute | values |
/// | --- | --- |
/// | `#[variants(E4M3FN, E4M3FNUZ)]` | number formats, constants of `accuracy_core::dtype` |
/// | `#[paths(primary = f, fallback = g)]` | implementations of one kernel; the first is the primary |
/// | `#[values(false, true)]` | values of a parameter that must change some bytes |
/// | `#[perf(64, 128)]` | values of a parameter that only tunes speed and must not change the results |
///
/// The values of `values` and `perf` may come from a CSV file beside `Cargo.toml`, so that each row of a table of tuned
/// configurations is a case: `#[perf(file = "tuned.csv", column = "split_k")]`, or for a tuple
/// `#[perf(file = "tuned.csv", columns = ["tile_m", "tile_n"])]`. A field that is a Rust literal has that value, any
/// other field is a string. Rows that are equal in these columns give one value.
///
/// The attribute itself takes
///
/// | key | meaning |
/// | --- | --- |
/// | `checkpoint = "shards/tiny"` | safetensors folder or file, relative to the package |
/// | `weights = { w = "layers.{layer}.{part}_proj" }` | roles and the modules they range over; `{name}` captures, and a capture of a later role must be one of the first |
/// | `tokens = [1, 33, 128]` | numbers of tokens, which are the rows of the activations (default: this list) |
/// | `archs = ["gfx942"]` | architectures that the test is for; on others its cases are skipped |
/// | `activations = "recorded.safetensors#x"` | recorded activations, instead of generated ones |
/// | `min_cos = 0.9995` | least cosine that counts as correct, instead of the run's |
/// | `memory = "24 GiB"` | device memory that a case needs; it starts only when so much is free |
/// | `seed = 7` | seed of the generated inputs |
/// | `known_failure(arch = "gfx942", quant = fallback, reason = "..")` | cases that are known to fail; if one of them passes, the run fails, so that you remove the mark (repeatable) |
/// | `nondeterministic(reason = "..", bound = 1e-3)` | runs on the same inputs may differ by this relative L2 error |
/// | `benign(finding = "missing_wait", reason = "..")` | findings of the emulator of this kind do no harm (repeatable) |
///
/// The tests are in a module with the function's name. Their checks are: `full_chain` for every combination of all
/// axes and tokens, `fallback_vs_primary` where a path is not the primary, `dtype_variant` where a number format is
/// not the first, and `parameter` for each `#[values]` axis with two or more values, at the largest of the tokens.
#[proc_macro_attribute]
pub fn accuracy_test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::accuracy_test(attribute.into(), item.into()).into()
}

/// Binds the launchers of a kernel library that is opened at run time.
///
/// `#[kernel_library("quant_gemm")]` on an `unsafe extern "C"` block makes of each function a wrapper that looks the
/// symbol up in `libquant_gemm.so`, calls it and turns a status other than success into an error that names the
/// launcher, and a type alias with the function's name in CamelCase, for `#[paths]` parameters. A launcher returns
/// `Status`, `i32` or nothing. `safe fn` makes a safe wrapper, `#[link_name = ".."]` names another symbol,
/// `#[expect_kernel = "regex"]` the kernel that the launcher has to launch on a GPU.
#[proc_macro_attribute]
pub fn kernel_library(attribute: TokenStream, item: TokenStream) -> TokenStream {
    kernel_library::expand(Binds::Launchers, attribute.into(), item.into()).into()
}

/// Binds kernels of a code object, as Triton and assemblers make them.
///
/// `#[code_object("matmul")]` on an `unsafe extern "C"` block makes of each function a wrapper that loads
/// `matmul_{arch}.hsaco`, `.co` or `.cubin`, and launches the kernel of that name on the grid that is its first argument.
/// All of the kernel's parameters follow, including those that a compiler adds at the end (Triton's scratch memories).
/// `#[link_name = ".."]` names another kernel. The type aliases are those of `#[kernel_library]`.
#[proc_macro_attribute]
pub fn code_object(attribute: TokenStream, item: TokenStream) -> TokenStream {
    kernel_library::expand(Binds::Kernels, attribute.into(), item.into()).into()
}
