//! `cargo accuracy header`, with the C++ compiler as the judge.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINDINGS: &str = r#"
    #[kernel_library("scale")]
    unsafe extern "C" {
        fn scale(y: DevPtr<bf16>, x: DevPtr<f32>, rows: i32, factor: f32, transpose: bool, stream: Stream) -> Status;
        #[link_name = "scale_v2"]
        fn scale_again(codes: DevPtr<u8>, sums: DevPtr<c_void>, stride: i64) -> i32;
    }
"#;
const SCALE: &str = "struct bf16 { uint16_t bits; };
    extern \"C\" int scale(bf16* y, const float* x, int rows, float factor, bool transpose, Queue* stream) { return 0; }";
const SCALE_V2: &str = "enum Status : int32_t { kOk };
    extern \"C\" Status scale_v2(unsigned char* codes, double* sums, long long stride) noexcept { return kOk; }";

fn header(dir: &Path, flags: &[&str]) -> Output {
    std::fs::write(dir.join("lib.rs"), BINDINGS).unwrap();
    Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "header", "lib.rs", "--out", "include"])
        .args(flags)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// What the compiler says of a source that includes the header.
fn compile(definitions: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    assert!(header(dir.path(), &[]).status.success());
    let source = dir.path().join("scale.cpp");
    let text = format!("#include \"include/scale_launchers.h\"\nstruct Queue;\n{definitions}\n");
    std::fs::write(&source, text).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    Command::new(compiler).args(["-std=c++17", "-fsyntax-only"]).arg(source).output().unwrap()
}

fn rejected(definitions: &str, why: &str) {
    let output = compile(definitions);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "accepted: {definitions}");
    assert!(text.contains(why), "{definitions}: {text}");
}

#[test]
fn launchers_as_they_are_bound_compile() {
    let output = compile(&format!("{SCALE} ACCURACY_BOUND(scale);\n{SCALE_V2} ACCURACY_BOUND(scale_v2);"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_parameter_of_another_type_is_rejected() {
    for (from, to) in [
        ("int rows", "int64_t rows"),
        ("int rows", "unsigned rows"),
        ("float factor", "double factor"),
        ("bool transpose", "int8_t transpose"),
        ("bf16* y", "float* y"),
        ("const float* x", "const int* x"),
        ("const float* x", "float x"),
        ("int rows, float factor", "float factor, int rows"),
    ] {
        let changed = SCALE.replace(from, to);
        assert_ne!(changed, SCALE);
        rejected(&format!("{changed} ACCURACY_BOUND(scale);"), "with another type");
    }
}

#[test]
fn another_number_of_parameters_and_another_result_are_rejected() {
    rejected(
        &format!("{} ACCURACY_BOUND(scale);", SCALE.replace("int rows, ", "")),
        "another number of parameters",
    );
    rejected(
        &format!("{} ACCURACY_BOUND(scale);", SCALE.replace("int scale", "long scale")),
        "another result",
    );
}

#[test]
fn a_launcher_that_rust_does_not_bind_is_rejected() {
    rejected("extern \"C\" int scale_v3() { return 0; } ACCURACY_BOUND(scale_v3);", "scale_v3");
}

#[test]
fn a_header_that_is_out_of_date_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(header(dir.path(), &["--check"]).status.code(), Some(100));
    assert_eq!(header(dir.path(), &[]).status.code(), Some(0));
    assert_eq!(header(dir.path(), &["--check"]).status.code(), Some(0));
    let path = dir.path().join("include/scale_launchers.h");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("bool", "int")).unwrap();
    let output = header(dir.path(), &["--check"]);
    assert_eq!(output.status.code(), Some(100));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("scale_launchers.h is missing, or is not what is bound")
    );
}

/// Every launcher of this repository's kernels is compared with its binding.
#[test]
fn the_kernels_of_this_repository_include_the_header_of_their_bindings() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src");
    let status = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "header", "--check", "--out"])
        .args([kernels.join("hip"), kernels.clone()])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let files = std::fs::read_dir(kernels.join("hip")).unwrap().map(|entry| entry.unwrap().path());
    let sources: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "hip")).collect();
    assert!(sources.len() >= 30, "{sources:?}");
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        for (name, _) in text.split("\nLAUNCHER ").skip(1).filter_map(|rest| rest.split_once('(')) {
            assert!(text.contains(&format!("ACCURACY_BOUND({name});")), "{name} in {}", source.display());
        }
    }
}
