//! No code decides by the text of a message. What a sentence says is a field or a type beside it, and this looks through the
//! sources for code that reads sentences all the same.

use std::path::{Path, PathBuf};

/// Fields that hold text for people.
const TEXTS: [&str; 8] =
    ["detail", "reason", "what", "words", "readings", "description()", "told()", "located()"];
/// What looks into a text. Whoever measures, copies or joins one does not.
const READERS: [&str; 12] = [
    "contains(",
    "starts_with(",
    "ends_with(",
    "strip_prefix(",
    "strip_suffix(",
    "split(",
    "split_once(",
    "rsplit(",
    "rsplit_once(",
    "find(",
    "replace(",
    "replacen(",
];
/// What stands between a text and what looks into it without changing which text that is.
const BETWEEN: [&str; 7] =
    [".as_str()", ".as_deref()", ".to_string()", ".as_ref()", ".unwrap_or_default()", ".trim()", ".clone()"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A source without its tests, each chain of calls on one line.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = own.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
    lines.join("\n").replace("\n.", ".")
}

/// Lines of a source in which a text for people is looked into.
fn decisions(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines() {
        for text in TEXTS {
            for (at, _) in line.match_indices(text) {
                let before = line[..at].chars().next_back();
                let is_field = before == Some('.');
                let mut rest = &line[at + text.len()..];
                while let Some(next) = BETWEEN.iter().find_map(|between| rest.strip_prefix(between)) {
                    rest = next;
                }
                let looks =
                    rest.strip_prefix('.').is_some_and(|rest| READERS.iter().any(|r| rest.starts_with(r)));
                let compares = rest.starts_with(" == \"") || rest.starts_with(" != \"");
                if is_field && (looks || compares) {
                    found.push(line.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn no_code_looks_into_a_text_for_people() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&core.join("src"), &mut files);
    let own = files.len();
    // A package by itself has no other beside it.
    let plugin = core.with_file_name("cargo-accuracy").join("src");
    if plugin.is_dir() {
        sources(&plugin, &mut files);
    }
    assert!(own > 100, "{own} files");
    let of_tests = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| ["tests.rs", "naming.rs", "reworded.rs"].contains(&name))
    };
    // What these read was written by somebody else: servers, logs, build tools; the emulator has texts of its own.
    let foreign = ["lint", "logs", "probe", "emulator", "init"];
    let reads_foreign = |path: &Path| path.components().any(|c| foreign.iter().any(|f| c.as_os_str() == *f));
    let mut found = Vec::new();
    for path in files.iter().filter(|path| !of_tests(path) && !reads_foreign(path)) {
        found.extend(decisions(&code(path)).into_iter().map(|line| format!("{}: {line}", path.display())));
    }
    assert!(found.is_empty(), "decided by a text:\n{}", found.join("\n"));
}

#[test]
fn what_reads_a_sentence_is_found() {
    for bad in [
        "if cause.detail.starts_with(\"`x` ignores\") {",
        "let what = c.detail.split(\": a reference that\").next();",
        "if h.what.contains(\"again from the first\") {",
        "if record.reason.as_str() == \"interrupted\" {",
        "found.place.words.to_string().ends_with(THERE)",
    ] {
        assert_eq!(decisions(bad).len(), 1, "{bad}");
    }
    for good in ["detail.push_str(&cause.detail);", "let detail = what.replace(1, 2);", "c.detail.is_empty()"]
    {
        assert!(decisions(good).is_empty(), "{good}");
    }
}
