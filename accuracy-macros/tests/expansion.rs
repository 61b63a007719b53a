//! The expansion inside crates of their own: it warns of nothing, and what the compiler finds wrong with the user's
//! code it finds at the user's own token.

use std::path::Path;
use std::process::Command;

/// An error or a warning, and the source text that it underlines first.
#[derive(Debug, PartialEq)]
struct Diagnostic {
    level: String,
    message: String,
    at: String,
}

/// Checks `tests/crates/{name}.rs` as a library crate, with or without its tests.
fn check(name: &str, tests: bool) -> Vec<Diagnostic> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}_{tests}"));
    let core = here.join("../accuracy-core");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[lib]\npath = \"{name}.rs\"\n\n\
         [dependencies]\naccuracy-core = {{ path = {core:?} }}\n\n[workspace]\n"
    );
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(here.join("../Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let source = here.join(format!("tests/crates/{name}.rs"));
    std::fs::copy(source, folder.join(format!("{name}.rs"))).unwrap();

    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--message-format=json"])
        .args(tests.then_some("--tests"))
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let messages: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let finished = messages.iter().find(|m| m["reason"] == "build-finished");
    let finished = finished.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let diagnostics: Vec<Diagnostic> = messages
        .iter()
        .filter(|m| m["reason"] == "compiler-message" && m["target"]["name"] == name)
        .map(|m| &m["message"])
        // The closing summary has no place.
        .filter(|m| m["spans"].as_array().is_some_and(|spans| !spans.is_empty()))
        .map(|m| {
            let span = m["spans"].as_array().unwrap().iter().find(|s| s["is_primary"] == true).unwrap();
            let line = span["text"][0]["text"].as_str().unwrap();
            let column = |key: &str| usize::try_from(span[key].as_u64().unwrap()).unwrap() - 1;
            Diagnostic {
                level: m["level"].as_str().unwrap().into(),
                message: m["message"].as_str().unwrap().into(),
                at: line[column("column_start")..column("column_end")].into(),
            }
        })
        .collect();
    assert_eq!(finished["success"], diagnostics.iter().all(|d| d.level != "error"), "{diagnostics:?}");
    diagnostics
}

fn errors(name: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> =
        check(name, true).into_iter().filter(|d| d.level == "error").map(|d| (d.at, d.message)).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn right_code_compiles_without_a_warning_with_and_without_tests() {
    assert_eq!(check("clean", false), []);
    assert_eq!(check("clean", true), []);
}

#[test]
fn wrong_types_are_reported_at_the_user_s_tokens() {
    let found = errors("types");
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(places, ["\"x\"", "&", "2.5", "Option", "String", "g"], "{found:#?}");
    for (at, message) in &found {
        let expected = if at == "String" { "LaunchArg` is not satisfied" } else { "mismatched types" };
        assert!(message.contains(expected), "{at}: {message}");
    }
}

#[test]
fn a_mistake_brings_no_other_errors_with_it() {
    let found = errors("mistakes");
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    let expected = [
        "\"libquant_gemm\"",
        "*const i32",
        "64",
        "async",
        "chekpoint",
        "const",
        "dtype: DType",
        "f32",
        "no_result",
        "stream",
        "tile",
        "unsafe",
    ];
    assert_eq!(places, expected, "{found:#?}");
}

#[test]
fn unknown_names_are_reported_at_the_user_s_tokens() {
    let found = errors("names");
    let places: Vec<&str> = found.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(places, ["E4M3", "LARGE", "quantise"], "{found:#?}");
    assert!(found.iter().all(|(_, message)| message.starts_with("cannot find")), "{found:#?}");
}
