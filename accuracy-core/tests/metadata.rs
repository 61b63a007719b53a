//! What this test binary says about its own annotated functions is what it runs: its metadata section against its
//! own `--list`, and cells that really run, on a kernel written here. The expansion leaves every lint alone.
#![deny(warnings, clippy::all, clippy::pedantic)]
#![expect(clippy::many_single_char_names, reason = "they are the names of a GEMM's operands and sizes")]

use accuracy_core::meta::{self, AxisKind, Check, KnownFailure, Nondeterministic, TestMeta};
use accuracy_core::prelude::*;
use std::collections::BTreeSet;
use std::process::Command;

/// `y = x · bᵀ`, clamped at 0 or not: `x [m, k]`, `b [n, k]`, `y [m, n]`, row-major.
fn gemm([y, x, b]: [DevPtr<bf16>; 3], sizes: [i32; 3], activation: Option<fn(f32) -> f32>, tile: usize) {
    let [m, n, k] = sizes.map(|size| usize::try_from(size).expect("a size"));
    let read = |p: DevPtr<bf16>, len: usize| -> Vec<f32> {
        let first: *const bf16 = std::ptr::with_exposed_provenance(p.address());
        // SAFETY: the tests below pass buffers of these sizes, which live until the case is finished.
        (0..len).map(|i| unsafe { first.add(i).read() }.to_f32()).collect()
    };
    let (x, b) = (read(x, m * k), read(b, n * k));
    let first: *mut bf16 = std::ptr::with_exposed_provenance_mut(y.address());
    for columns in (0..n).step_by(tile) {
        for i in 0..m {
            for j in columns..n.min(columns + tile) {
                let (row, col) = (&x[i * k..][..k], &b[j * k..][..k]);
                let sum: f32 = row.iter().zip(col).map(|(a, b)| a * b).sum();
                let value = bf16::from_f32(activation.map_or(sum, |f| f(sum)));
                // SAFETY: as above; `y` has m × n elements.
                unsafe { first.add(i * n + j).write(value) };
            }
        }
    }
}

#[accuracy_test(
    tokens = [3, 17],
    min_cos = 0.9999,
    seed = 18_446_744_073_709_551_615,
    known_failure(arch = "gfx942", positive = true, reason = "a \"quoted\" reason: \\ and é"),
    known_failure(reason = "what the test itself computes is inconclusive"),
    nondeterministic(reason = "tests the metadata", bound = 2.5e-7),
)]
fn bf16_gemm(
    cx: &mut Case,
    #[values(false, true)] positive: bool,
    #[perf(16, 64)] tile: usize,
) -> Result<Tensor> {
    let (m, n, k) = (cx.tokens(), 40, 96);
    let x = cx.input("x", BF16, [m, k])?;
    let b = cx.input("b", BF16, [n, k])?;
    let product = x.matmul(&b);
    let y = cx.output("y", BF16, [m, n], if positive { relu(&product) } else { product })?;
    gemm([y.data(), x.data(), b.data()], [m, n, k], positive.then_some(|x| x.max(0.0)), tile);
    Ok(y)
}

mod inside {
    use super::gemm;
    use accuracy_core::prelude::*;

    #[accuracy_test(tokens = [2], known_failure(reason = "what the test itself computes is inconclusive"))]
    fn nested(cx: &mut Case, #[variants(BF16)] dtype: DType) -> Result<Tensor> {
        let (m, n, k) = (cx.tokens(), 8, 1024);
        let x = cx.input("x", dtype, [m, k])?;
        let b = cx.input("b", dtype, [n, k])?;
        let y = cx.output("y", dtype, [m, n], x.matmul(&b))?;
        gemm([y.data(), x.data(), b.data()], [m, n, k], None, 8);
        Ok(y)
    }
}

fn own_metadata() -> Vec<TestMeta> {
    meta::read_binary(&std::env::current_exe().expect("this process has a file"))
        .expect("its metadata is sound")
}

fn of<'a>(tests: &'a [TestMeta], name: &str) -> &'a TestMeta {
    tests.iter().find(|t| t.body.name == name).unwrap_or_else(|| panic!("{name} is not in the section"))
}

#[test]
fn the_section_holds_exactly_the_cells_that_the_binary_lists() {
    let own = own_metadata();
    let registered: BTreeSet<String> =
        own.iter().flat_map(|t| t.body.cells.iter().map(|cell| t.libtest_name(cell))).collect();
    assert_eq!(registered.len(), own.iter().map(|t| t.body.cells.len()).sum::<usize>(), "names are distinct");

    let exe = std::env::current_exe().expect("this process has a file");
    let output = Command::new(exe).args(["--list", "--format=terse"]).output().expect("it can be run again");
    let listed = String::from_utf8(output.stdout).expect("a list is text");
    let listed: BTreeSet<String> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| name.contains("::"))
        .map(String::from)
        .collect();
    assert!(!listed.is_empty());
    assert_eq!(registered, listed);
}

#[test]
fn the_metadata_is_what_the_attributes_say() {
    let own = own_metadata();
    assert_eq!(own.len(), 2);
    let test = of(&own, "bf16_gemm");
    assert_eq!(test.package, env!("CARGO_PKG_NAME"));
    assert_eq!(test.module, module_path!());
    assert_eq!(test.file, file!());
    assert_eq!(test.manifest_dir.to_str(), Some(env!("CARGO_MANIFEST_DIR")));
    let source =
        std::fs::read_to_string(test.manifest_dir.join("tests/metadata.rs")).expect("the source is here");
    let line = source.lines().nth(test.line as usize - 1).expect("the line is inside the file");
    assert_eq!(line, "fn bf16_gemm(");
    assert_eq!(of(&own, "nested").module, format!("{}::inside", module_path!()));

    let body = &test.body;
    let axes: Vec<(&str, AxisKind, Vec<&str>)> = body
        .axes
        .iter()
        .map(|a| (a.name.as_str(), a.kind, a.labels.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        axes,
        [("positive", AxisKind::Values, vec!["false", "true"]), ("tile", AxisKind::Perf, vec!["16", "64"]),]
    );
    assert_eq!(body.min_cos, Some(0.9999));
    assert_eq!(body.seed, u64::MAX);
    assert_eq!((&body.checkpoint, &body.activations), (&None, &None));
    let known = KnownFailure {
        arch: Some("gfx942".into()),
        at: vec![("positive".into(), "true".into())],
        reason: "a \"quoted\" reason: \\ and é".into(),
    };
    let computed = KnownFailure {
        arch: None,
        at: Vec::new(),
        reason: "what the test itself computes is inconclusive".into(),
    };
    assert_eq!(body.known_failures, [known, computed]);
    let nondeterministic = Nondeterministic { reason: "tests the metadata".into(), bound: 2.5e-7 };
    assert_eq!(body.nondeterministic, Some(nondeterministic));

    let cells = |check| body.cells.iter().filter(move |c| c.check == check);
    assert_eq!(cells(Check::FullChain).count(), 2 * 2 * 2);
    assert_eq!(cells(Check::FallbackVsPrimary).count(), 0);
    assert_eq!(cells(Check::DtypeVariant).count(), 0);
    assert_eq!(cells(Check::Parameter).count(), 1);
}
