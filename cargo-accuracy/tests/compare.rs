//! `cargo accuracy compare` as a process, on the dumps of the reader's tests.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn dumps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../accuracy-core/tests/dumps")
}

fn compare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "compare"])
        .args(arguments)
        .current_dir(dumps())
        .env("COLUMNS", "140")
        .output()
        .unwrap()
}

fn run(arguments: &[&str], status: i32) -> String {
    let output = compare(arguments);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    text
}

fn json(arguments: &[&str], status: i32) -> Value {
    let output = compare(&[arguments, &["--report", "json=-"]].concat());
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes a one-dimensional or two-dimensional float32 array.
fn npy(path: &Path, shape: &str, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy_of(path, "<f4", shape, &bytes);
}

fn npy_of(path: &Path, format: &str, shape: &str, values: &[u8]) {
    let header = format!("{{'descr': '{format}', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_dump_equals_itself_and_the_table_says_so() {
    let text = run(&["accuracy", "accuracy"], 0);
    assert!(text.contains("model.layers.0.mlp output") && text.contains("equal"), "{text}");
    let report = json(&["accuracy", "accuracy"], 0);
    assert_eq!(report["summary"]["failed"], 0);
    assert_eq!(report["summary"]["not_compared"], 0);
    assert_eq!(report["tensors"][0]["verdict"], "correct");
}

#[test]
fn dumps_of_two_producers_meet_where_both_have_a_tensor() {
    // One step of ours and the only one of the debugger's.
    let report =
        json(&["--common", "huggingface", "accuracy", "layers.1 input 0", "down_proj", "lm_head"], 4);
    assert_eq!(
        report["summary"]["compared"], 0,
        "two steps on one side and none on the other are not mixed up"
    );
}

#[test]
fn formats_are_mixed_and_a_narrower_one_is_judged_by_its_values() {
    let report = json(&["--common", "safetensors", "pt/types.pt"], 0);
    assert!(report["summary"]["compared"].as_u64().unwrap() > 15);
    let text = run(&["numpy/f32.npy", "numpy/f16.npy"], 100);
    assert!(text.contains("[2, 3] in the reference, [2, 1] in the candidate"), "{text}");
}

#[test]
fn what_differs_fails_and_says_in_which_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (a, b) = (path("a.npy"), path("b.npy"));
    npy(&a, "(2, 2)", &[1.0, 2.0, 3.0, -4.0]);
    for (values, check) in [
        ([1.0, 2.0, 3.0, f32::NAN], "nan"),
        ([2.0, 4.0, 6.0, -8.0], "gain"),
        ([2.0, -1.0, 3.0, -4.0], "cos_row_min"),
        ([-1.0, 2.0, -3.0, 4.0], "cos"),
    ] {
        npy(&b, "(2, 2)", &values);
        let report = json(&[&text(&a), &text(&b)], 100);
        let failed = report["tensors"][0]["failed_checks"].as_array().unwrap();
        assert!(failed.iter().any(|c| c == check), "{check}: {report}");
        assert!(report["tensors"][0]["metrics"]["cos"].is_null() == (check == "nan"), "{report}");
    }
    npy(&b, "(2, 2)", &[1.0, 2.0, 3.0, -4.000001]);
    run(&[&text(&a), &text(&b)], 0);
}

#[test]
fn missing_tensors_are_named_and_fail_unless_only_common_ones_are_wanted() {
    let text = run(&["-v", "pt/views.pt", "pt/nested.pt"], 100);
    assert!(
        text.contains("transposed: not in pt/nested.pt") && text.contains("pair.0: not in pt/views.pt"),
        "{text}"
    );
    run(&["--common", "pt/views.pt", "pt/nested.pt"], 4);
    let text = run(&["--common", "numpy/f32.npy", "numpy/f16.npy"], 100);
    assert!(text.contains("[2, 3] in the reference"), "both have it: {text}");
    let report = json(&["pt/unreadable.pt", "pt/unreadable.pt"], 100);
    assert_eq!(report["problems"][0]["kind"], "unreadable");
}

#[test]
fn integers_are_equal_or_not() {
    let report = json(&["sglang-hook", "sglang-hook", "input_ids"], 0);
    assert_eq!(report["tensors"][0]["metrics"]["unequal"], 0);
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("i64.npy");
    let mut bytes = std::fs::read(dumps().join("numpy/i64.npy")).unwrap();
    let at = bytes.len() - 8;
    bytes[at] += 1;
    std::fs::write(&changed, bytes).unwrap();
    let text = run(&["numpy/i64.npy", changed.to_str().unwrap()], 100);
    assert!(text.contains("1 DIFFER") && text.contains("1 differ, 0 equal"), "{text}");
}

#[test]
fn what_is_wrong_with_a_tensor_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.npy"), path("b.npy"));
    npy(Path::new(&a), "(2, 2)", &[1.0, 2.0, 3.0, -4.0]);
    for (values, said) in [
        ([1.0, f32::NAN, 3.0, f32::NAN], "2 NaN on one side alone"),
        ([1.0, f32::INFINITY, 3.0, -4.0], "1 Inf that the other side has not"),
        ([0.0; 4], "one side is all zero"),
        ([1.0, 2.0, -3.0, 4.0], "worst row 1, cosine -1"),
    ] {
        npy(Path::new(&b), "(2, 2)", &values);
        let text = run(&[&a, &b], 100);
        assert!(text.contains(said), "{said} in {text}");
    }
    let text = run(&[&a, &a], 0);
    assert!(
        text.contains("1 tensor compared, 0 differ, 1 equal") && text.contains("one and the same"),
        "{text}"
    );
}

#[test]
fn float64_is_compared_over_all_of_its_range() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.npy"), path("b.npy"));
    // Squares of these overflow, or vanish.
    for unit in [1e300, 1.0, 1e-300, 5e-324 * 1e6] {
        let write = |path: &str, values: [f64; 4]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| (v * unit).to_le_bytes()).collect();
            npy_of(Path::new(path), "<f8", "(2, 2)", &bytes);
        };
        write(&a, [1.0, 2.0, 3.0, -4.0]);
        write(&b, [1.5, 3.0, 4.5, -6.0]);
        let tensor = &json(&[&a, &b], 100)["tensors"][0];
        let near = |key: &str, expected: f64| {
            let value =
                tensor["metrics"][key].as_f64().unwrap_or_else(|| panic!("{unit:e}: no {key}: {tensor}"));
            assert!((value - expected).abs() < 1e-5, "{unit:e}: {key} is {value}");
        };
        near("cos", 1.0);
        near("gain", 1.5);
        near("rel_l2", 0.5);
        write(&b, [4.0, -3.0, -2.0, 1.0]);
        let cos = json(&[&a, &b], 100)["tensors"][0]["metrics"]["cos"].as_f64().unwrap();
        assert!(cos < 0.0, "{unit:e}: {cos}");
    }
}

#[test]
fn unreadable_files_and_wrong_flags_have_their_own_status() {
    let text = run(&["pt/legacy.pt", "pt/bare.pt"], 101);
    assert!(text.contains("pt/legacy.pt") && text.contains("torch before 1.6"), "{text}");
    run(&["pt/missing.pt", "pt/bare.pt"], 101);
    run(&["pt/bare.pt"], 2);
    run(&["pt/bare.pt", "pt/bare.pt", "--a-from", "nobody"], 2);
    let text = run(&["pt/bare.pt", "pt/bare.pt", "no such name"], 4);
    assert!(text.contains("no tensor's name contains no such name"), "{text}");
    for cosine in ["2", "nan"] {
        run(&["pt/bare.pt", "pt/bare.pt", "--min-cos", cosine], 2);
    }
}

#[test]
fn the_hook_is_printed_as_it_is_in_the_repository() {
    let hook = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/accuracy_dump.py"))
        .unwrap();
    assert_eq!(run(&["--print-hook"], 0), hook);
}
