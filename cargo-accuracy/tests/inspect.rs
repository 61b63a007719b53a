//! `cargo accuracy inspect` as a process: on libraries written here, and on those that `cargo accuracy build` leaves.
//!
//! The latter are looked for in `ACCURACY_GPU_KERNELS`, or else in the target folder. Where there are none
//! these tests say that they are skipped, or fail if `ACCURACY_REQUIRE_GPU_KERNELS` is set, as it is in CI.

#[path = "../../accuracy-core/tests/codeobject/fixture.rs"]
#[expect(dead_code, reason = "the tests of the reader use the rest")]
mod fixture;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn inspect(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "inspect"])
        .args(arguments)
        .env("COLUMNS", "80")
        .output()
        .unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = inspect(&[&["--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_library_is_told_in_a_few_lines() {
    let files = Files::new();
    let output = inspect(&[&files.add("libscale.so", &fixture::hip_library())]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let (_, text) = text.split_once("libscale.so").unwrap();
    insta::assert_snapshot!(text, @r"
    : kernel library
      gfx942  2 code objects in bundles, version 6, 1360 bytes
      gfx950  2 code objects in bundles, version 6, 1360 bytes
      soname
        libfixture.so.1
      launchers (x86_64)
        add  scale
        and 1 of C++ linkage
      needs
        libamdhip64.so.6  libc.so.6

      2 kernels for gfx942 and gfx950
      kernel  bytes  arguments
      scale      20  y:ptr 4 +1 hidden
      scale      20  y:ptr 4 +1 hidden
    ");
}

#[test]
fn verbose_lists_every_argument() {
    let files = Files::new();
    let text = stdout(&inspect(&["-v", &files.add("scale.co", &fixture::scale("gfx950"))]));
    let (_, text) = text.split_once("scale.co").unwrap();
    insta::assert_snapshot!(text, @r"
    : code object
      gfx950  1 code object bare, version 6, 680 bytes

      1 kernel for gfx950
      kernel    LDS  scratch  VGPR  AGPR  SGPR  spills  wave  threads  bytes
      scale   17408        0    72     -     -       -    64      256     20

      scale
       offset bytes  kind
            0     8  global_buffer  y
            8     4  by_value
           16     4  hidden_block_count_x
    ");
}

#[test]
fn an_architecture_that_is_missing_fails() {
    let files = Files::new();
    let hip = files.add("libscale.so", &fixture::hip_library());
    let host = files.add("libhost.so", &fixture::library(&["scale"], &[], &[], &[]));
    for (file, arch, expected) in [
        (&hip, "gfx950", 0),
        (&hip, "gfx942:sramecc+:xnack-", 0),
        (&hip, "gfx90a", 100),
        (&hip, "sm_90", 100),
        (&hip, "host", 100),
        (&host, "host", 0),
        (&host, "gfx950", 100),
        (&host, "gfx950:fast+", 2),
        (&host, "mi300", 2),
    ] {
        let output = inspect(&[file, "--arch", arch]);
        assert_eq!(status(&output), expected, "{arch}: {}", stderr(&output));
    }
    let error = stderr(&inspect(&[&hip, "--arch", "gfx90a"]));
    assert!(error.contains("libscale.so has no code for gfx90a: it has gfx942, gfx950"), "{error}");
    let error = stderr(&inspect(&[&host, "--arch", "gfx950"]));
    assert!(error.contains("no code for gfx950: it has code for the CPU (x86_64) only"), "{error}");
}

#[test]
fn a_feature_that_does_not_match_is_missing() {
    let files = Files::new();
    let metadata = fixture::metadata("gfx942:xnack+", vec![]);
    let xnack = files.add("k.co", &fixture::code_object(0x74c, &metadata).bytes());
    assert_eq!(status(&inspect(&[&xnack, "--arch", "gfx942:sramecc+:xnack+"])), 0);
    let output = inspect(&[&xnack, "--arch", "gfx942:sramecc+:xnack-"]);
    assert_eq!(status(&output), 100);
    let error = stderr(&output);
    assert!(error.contains("no code for gfx942:sramecc+:xnack-: it has gfx942:xnack+"), "{error}");
}

#[test]
fn what_cannot_be_read_does_not_hide_what_can() {
    let files = Files::new();
    let good = files.add("good.co", &fixture::scale("gfx950"));
    let bad = files.add("bad.co", &fixture::scale("gfx950")[..600]);
    let output = inspect(&[&bad, &good, "no such file", "--arch", "gfx942"]);
    assert_eq!(status(&output), 101);
    assert!(stdout(&output).contains("good.co: code object"));
    let error = stderr(&output);
    for part in [
        "bad.co: cut short: the section table",
        "no such file: No such file",
        "good.co has no code for gfx942",
    ] {
        assert!(error.contains(part), "expected `{part}` in {error}");
    }
    let report = json(&[&bad, &good, "--arch", "gfx942"]);
    assert!(report[0]["error"].as_str().unwrap().contains("cut short"));
    assert_eq!(report[1]["missing"], serde_json::json!(["gfx942"]));
    assert_eq!(report[1]["architectures"], serde_json::json!(["gfx950"]));
    let argument = &report[1]["contents"]["code_objects"][0]["kernels"][0]["arguments"][2];
    let expected = serde_json::json!(
        {"offset": 16, "size": 4, "kind": "hidden_block_count_x", "name": null, "hidden": true}
    );
    assert_eq!(argument, &expected);
}

/// A code object for an architecture with a kernel of the given instructions, a line each from line 6 on, and its line
/// table. `None` where there is no assembler.
fn assembled(test: &str, arch: &str, instructions: &[&str]) -> Option<Vec<u8>> {
    let source = format!(
        ".amdgcn_target \"amdgcn-amd-amdhsa--{arch}\"
.text
.p2align 8
.type scale,@function
scale:
    {}
    s_endpgm
.rodata
.p2align 6
.amdhsa_kernel scale
    .amdhsa_next_free_vgpr 8
    .amdhsa_next_free_sgpr 8
    .amdhsa_accum_offset 8
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--{arch}
amdhsa.kernels:
  - .name: scale
    .symbol: scale.kd
    .kernarg_segment_size: 0
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 8
    .vgpr_count: 8
    .max_flat_workgroup_size: 64
...
.end_amdgpu_metadata
",
        instructions.join("\n    ")
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scale.s"), source).unwrap();
    let built = ["/usr/lib/llvm-22/bin/clang", "clang-22"].into_iter().find_map(|clang| {
        let mut command = Command::new(clang);
        command.args(["-target", "amdgcn-amd-amdhsa", &format!("-mcpu={arch}"), "-x", "assembler", "-g"]);
        command.args(["scale.s", "-o", "scale.co"]).current_dir(&folder).output().ok()
    });
    let Some(output) = built else {
        let reason =
            "no clang 22, which assembles code for AMD GPUs; kernels/install-compiler.sh installs it";
        assert!(std::env::var_os("ACCURACY_REQUIRE_GPU_KERNELS").is_none(), "{reason}");
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
        return None;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    Some(std::fs::read(folder.path().join("scale.co")).unwrap())
}

const LOSES_PRODUCTS: &str = "v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1] op_sel:[0,1,0]";
const LOSES_NOTHING: &str = "v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1] op_sel:[0,1,0] op_sel_hi:[1,0,1]";

#[test]
fn an_instruction_that_meets_an_erratum_is_told_with_its_line_and_the_flag_that_avoids_it() {
    let test = "an_instruction_that_meets_an_erratum_is_told_with_its_line_and_the_flag_that_avoids_it";
    let code = [LOSES_NOTHING, LOSES_PRODUCTS, "s_nop 0", LOSES_PRODUCTS];
    let Some(code_object) = assembled(test, "gfx950", &code) else { return };
    let files = Files::new();
    let bare = files.add("scale.co", &code_object);
    let output = inspect(&["--arch", "gfx950", &bare]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let (_, text) = text.split_once("bytes  ").unwrap();
    insta::assert_snapshot!(text, @r"
    arguments
      scale       0  none

      2 instructions for gfx950 meet a fault of the hardware
        packed-fma-high-broadcast: v_pk_fma_f32 op_sel:[0,1,0] with op_sel_hi:[*,1,*], which takes the high half of the second source for both results
        effect: the instruction now and then does not add to the low result, which so lacks whole products
        avoid it: compile with -Xclang -target-feature -Xclang -packed-fp32-ops
        source: https://github.com/ROCm/rocMLIR/pull/2459
        0x1408  scale.s:7  in scale  v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1] op_sel:[0,1,0]
        0x1414  scale.s:9  in scale  v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1] op_sel:[0,1,0]
    ");
    // The same in a library and in JSON.
    let bundle = fixture::bundle(&[("hipv4-amdgcn-amd-amdhsa--gfx950", code_object)]);
    let library = files.add("libscale.so", &fixture::hip_library_with(&bundle));
    let report = json(&[&bare, &library]);
    for file in report.as_array().unwrap() {
        let errata = file["errata"].as_array().unwrap();
        assert_eq!(errata.len(), 1, "{file}");
        assert_eq!(errata[0]["name"], "packed-fma-high-broadcast");
        assert_eq!(errata[0]["avoided_by"], "-Xclang -target-feature -Xclang -packed-fp32-ops");
        assert_eq!(errata[0]["instructions"].as_array().unwrap().len(), 2);
        let expected = serde_json::json!({
            "target": "gfx950",
            "function": "scale",
            "offset": 0x1408,
            "mnemonic": "v_pk_fma_f32",
            "instruction": LOSES_PRODUCTS,
            "file": "scale.s",
            "line": 7,
        });
        assert_eq!(errata[0]["instructions"][0], expected);
    }
}

#[test]
fn code_without_such_an_instruction_or_for_another_architecture_has_no_errata() {
    let test = "code_without_such_an_instruction_or_for_another_architecture_has_no_errata";
    let files = Files::new();
    for (arch, code) in [("gfx950", LOSES_NOTHING), ("gfx942", LOSES_PRODUCTS)] {
        let Some(code_object) = assembled(test, arch, &[code]) else { return };
        let file = files.add(&format!("{arch}.co"), &code_object);
        let text = stdout(&inspect(&[&file]));
        assert!(text.contains("1 kernel for") && !text.contains("fault"), "{text}");
        assert_eq!(json(&[&file])[0]["errata"], serde_json::json!([]));
    }
}

#[test]
fn an_instruction_that_lacks_an_s_nop_is_told_with_both_lines_and_what_is_missing() {
    let test = "an_instruction_that_lacks_an_s_nop_is_told_with_both_lines_and_what_is_missing";
    let code = [
        // The sum of the matrix cores is read too soon on one of two ways, and overwritten in time.
        "v_mfma_f32_32x32x16_fp8_fp8 v[0:15], v[16:17], v[18:19], 0",
        "s_cbranch_scc0 .Lsoon",
        "s_nop 15",
        "s_nop 15",
        ".Lsoon: v_add_f32 v20, v4, v4",
        // Enough wait states.
        "v_rcp_f32 v21, v20",
        "s_nop 0",
        "v_add_f32 v22, v21, v21",
        // Fewer than documented, and right on devices.
        "v_cmp_eq_u32 s[0:1], v20, v21",
        "v_cndmask_b32 v23, v20, v21, s[0:1]",
    ];
    let files = Files::new();
    for arch in ["gfx942", "gfx950"] {
        let Some(code_object) = assembled(test, arch, &code) else { return };
        let file = files.add(&format!("{arch}.co"), &code_object);
        let report = json(&[&file]);
        assert_eq!(report[0]["errata"], serde_json::json!([]));
        let hazards = report[0]["hazards"].as_array().unwrap();
        let [read, mask] = &hazards[..] else { panic!("{hazards:#?}") };
        let needed = if arch == "gfx950" { 12 } else { 11 };
        let expected = serde_json::json!({
            "target": arch,
            "function": "scale",
            "offset": 0x1414,
            "mnemonic": "v_add_f32",
            "instruction": "v_add_f32_e32 v20, v4, v4",
            "file": "scale.s",
            "line": 10,
            "severity": "error",
            "uses": "reads",
            "register": "v4",
            "wait_states": { "needed": needed, "found": 1 },
            "behind": {
                "target": arch,
                "function": "scale",
                "offset": 0x1400,
                "mnemonic": "v_mfma_f32_32x32x16_fp8_fp8",
                "instruction": "v_mfma_f32_32x32x16_fp8_fp8 v[0:15], v[16:17], v[18:19], 0",
                "file": "scale.s",
                "line": 6,
            },
        });
        assert_eq!(read, &expected);
        assert_eq!((&mask["severity"], &mask["line"]), (&"note".into(), &15.into()), "{mask}");
    }
    let file = files.0.path().join("gfx950.co");
    let output = inspect(&[file.to_str().unwrap()]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let (_, text) = text.split_once("bytes  ").unwrap();
    insta::assert_snapshot!(text, @r"
    arguments
      scale       0  none

      1 instruction for gfx950 comes too soon behind the one whose result it uses
        The hardware does not wait by itself: s_nop has to stand in between.
        0x1414  scale.s:10  in scale  v_add_f32_e32 v20, v4, v4
          reads v4 1 wait states behind v_mfma_f32_32x32x16_fp8_fp8 at 0x1400 (scale.s:6), and 12 are needed: s_nop 10 is missing

      1 instruction has fewer wait states than are documented; the hardware waits by itself (--verbose lists them)
    ");
}

#[test]
fn code_with_all_its_wait_states_has_no_hazard() {
    let test = "code_with_all_its_wait_states_has_no_hazard";
    let files = Files::new();
    let code = ["v_rcp_f32 v21, v20", "s_nop 0", "v_add_f32 v22, v21, v21", "s_endpgm", "v_mov_b32 v22, v21"];
    for arch in ["gfx942", "gfx950"] {
        let Some(code_object) = assembled(test, arch, &code) else { return };
        let file = files.add(&format!("{arch}.co"), &code_object);
        let text = stdout(&inspect(&["-v", &file]));
        assert!(text.contains("1 kernel for") && !text.contains("wait states"), "{text}");
        assert_eq!(json(&[&file])[0]["hazards"], serde_json::json!([]));
    }
}

/// The folder of the libraries for GPUs, or why a test of them is skipped.
fn gpu_kernels(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ACCURACY_GPU_KERNELS").map_or_else(
        || {
            // A folder for each workspace that shares this target folder.
            let kernels = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("accuracy").join("kernels");
            let of_package =
                |path: &PathBuf| path.parent().is_some_and(|p| p.to_string_lossy().contains("/kernels-"));
            let entries = std::fs::read_dir(&kernels).into_iter().flatten().flatten();
            let mut latest = entries.map(|entry| entry.path().join("latest")).filter(of_package);
            latest.find(|folder| folder.join("libkernels_gfx950.so").is_file()).unwrap_or(kernels)
        },
        PathBuf::from,
    );
    if folder.join("libkernels_gfx950.so").is_file() {
        return Some(folder);
    }
    let reason = format!(
        "no libkernels_gfx950.so in {}; `cargo accuracy build -p kernels --arch gfx950` builds it",
        folder.display()
    );
    assert!(std::env::var_os("ACCURACY_REQUIRE_GPU_KERNELS").is_none(), "{reason}");
    // Not eprintln!, which the test harness keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    None
}

/// What the sources say: each `LAUNCHER name(`.
fn launchers_in_sources() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src/hip");
    let mut launchers = BTreeSet::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "hip") {
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.split("\nLAUNCHER ").skip(1).filter_map(|rest| rest.split_once('('));
            launchers.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
    launchers
}

fn kernels(contents: &Value, arch: &str) -> Vec<(String, Vec<u64>, u64)> {
    let of_arch = |c: &&Value| c["target"] == arch;
    let code_objects = contents["code_objects"].as_array().unwrap().iter().filter(of_arch);
    let kernels = code_objects.flat_map(|c| c["kernels"].as_array().unwrap());
    let mut kernels: Vec<_> = kernels
        .map(|kernel| {
            let explicit = kernel["arguments"].as_array().unwrap().iter().filter(|a| a["hidden"] == false);
            let sizes = explicit.map(|a| a["size"].as_u64().unwrap()).collect();
            (kernel["name"].as_str().unwrap().to_owned(), sizes, kernel["kernarg_size"].as_u64().unwrap())
        })
        .collect();
    kernels.sort();
    kernels
}

#[test]
fn the_kernels_of_this_repository_are_in_their_libraries() {
    let Some(folder) = gpu_kernels("the_kernels_of_this_repository_are_in_their_libraries") else { return };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let report = json(&[
        &path("libkernels_gfx942.so"),
        &path("libkernels_gfx950.so"),
        &path("libkernels_gfx942-gfx950.so"),
    ]);
    let files = report.as_array().unwrap();
    let architectures: Vec<&Value> = files.iter().map(|f| &f["architectures"]).collect();
    assert_eq!(
        serde_json::json!(architectures),
        serde_json::json!([["gfx942"], ["gfx950"], ["gfx942", "gfx950"]])
    );
    let sources = launchers_in_sources();
    assert!(sources.contains("gemm_bf16") && sources.len() >= 12, "{sources:?}");
    for file in files {
        let host = &file["contents"]["host"];
        let launchers: BTreeSet<String> = serde_json::from_value(host["launchers"].clone()).unwrap();
        assert_eq!(launchers, sources);
        assert!(host["needed"].to_string().contains("libamdhip64.so."), "{host}");
    }
    let packings = |file: &Value| -> BTreeSet<String> {
        let code_objects = file["contents"]["code_objects"].as_array().unwrap();
        code_objects.iter().map(|c| c["packing"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(packings(&files[0]), ["bundle".to_owned()].into());
    assert_eq!(packings(&files[2]), ["zstd_bundle".to_owned()].into());

    // Compressed and plain, one architecture or the other: the interfaces are the same.
    let gfx942 = kernels(&files[0]["contents"], "gfx942");
    assert_eq!(kernels(&files[1]["contents"], "gfx950"), gfx942);
    assert_eq!(kernels(&files[2]["contents"], "gfx942"), gfx942);
    assert_eq!(kernels(&files[2]["contents"], "gfx950"), gfx942);
    let gemm = gfx942.iter().find(|(name, ..)| name.contains("gemm_bf16_kernelILb1E")).unwrap();
    // y, ldy, x, ldx, w, ldw, m, n, k, as the source has them.
    assert_eq!(gemm.1, [8, 8, 8, 8, 8, 8, 4, 4, 4]);
    assert_eq!(gemm.2, 60);
}

#[test]
fn a_bare_code_object_has_the_kernels_of_its_library() {
    let Some(folder) = gpu_kernels("a_bare_code_object_has_the_kernels_of_its_library") else { return };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let report = json(&[&path("gemm_bf16_gfx950.co"), &path("libkernels_gfx950.so")]);
    assert_eq!(report[0]["contents"]["form"], "code_object");
    let bare = kernels(&report[0]["contents"], "gfx950");
    assert_eq!(bare.len(), 2);
    let library = kernels(&report[1]["contents"], "gfx950");
    assert!(bare.iter().all(|kernel| library.contains(kernel)));
}

#[test]
fn damage_to_a_real_library_is_told() {
    let Some(folder) = gpu_kernels("damage_to_a_real_library_is_told") else { return };
    let files = Files::new();
    for name in ["libkernels_gfx950.so", "libkernels_gfx942-gfx950.so"] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let half = files.add("half.so", &bytes[..bytes.len() / 2]);
        let output = inspect(&[&half]);
        assert_eq!(status(&output), 101);
        assert!(stderr(&output).contains("cut short"), "{}", stderr(&output));
        let whole = files.add("whole.so", &bytes);
        assert_eq!(status(&inspect(&[&whole, "--arch", "gfx90a"])), 100);
    }
}
