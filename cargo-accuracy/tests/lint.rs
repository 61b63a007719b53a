//! The silent-parameter lint by its real binary: every rule over every fixture, suppressions, baselines,
//! `--since`, the reports, and sources that want to break it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const RULES: [&str; 16] = [
    "SP001", "SP002", "SP003", "SP004", "SP005", "SP006", "SP007", "SP101", "SP102", "SP103", "SP201",
    "SP202", "SP203", "SP204", "SP205", "SP206",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint/fixtures")
}

/// A copy of a folder of fixtures where nothing lies around it: the lint reads the repository around what it is given.
fn alone(folder: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let out = tempfile::tempdir().unwrap();
    copy(folder, out.path());
    out
}

fn lint(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "lint"])
        .args(args)
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR")
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the binary runs")
}

fn findings(folder: &Path, args: &[&str]) -> Vec<Value> {
    let mut all = vec!["--no-cache", "--report", "json=-"];
    all.extend(args);
    let out = lint(folder, &all);
    let report: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    report["lint"].as_array().expect("`lint` is an array").clone()
}

fn text<'a>(f: &'a Value, field: &str) -> &'a str {
    f[field].as_str().unwrap_or_default()
}

/// What the fixture's own header promises: (rule, function, parameter, is a note).
fn expected(path: &Path) -> BTreeSet<(String, String, String, bool)> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter_map(|l| l.trim_start_matches(['#', '/', ' ']).strip_prefix("expect"))
        .filter_map(|l| {
            let (note, rest) = match l.strip_prefix("-note: ") {
                Some(rest) => (true, rest),
                None => (false, l.strip_prefix(": ")?),
            };
            let mut words = rest.split(' ');
            Some((words.next()?.to_owned(), words.next()?.to_owned(), words.next()?.to_owned(), note))
        })
        .collect()
}

#[test]
fn every_rule_finds_its_positive_fixtures_and_nothing_in_the_negative_ones() {
    let mut failures = Vec::new();
    for rule in RULES {
        let folder = fixtures().join(rule.to_lowercase());
        // Rules that are off by default are switched on for their own fixtures.
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("on.toml");
        fs::write(&path, if rule == "SP007" { "[lint.rules]\nSP007 = \"warn\"\n" } else { "" }).unwrap();
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        for kind in ["positive", "negative"] {
            // What belongs together is linted together: a binding has two sides.
            let of_kind: Vec<&str> =
                names.iter().map(String::as_str).filter(|n| n.starts_with(kind)).collect();
            assert!(!of_kind.is_empty(), "{rule} has a {kind} fixture");
            let mut args = vec!["."];
            args.extend(["--config", path.to_str().unwrap()]);
            let beside = alone(&folder);
            for other in names.iter().filter(|n| !n.starts_with(kind)) {
                fs::remove_file(beside.path().join(other)).unwrap();
            }
            let found = findings(beside.path(), &args);
            for name in of_kind {
                let wanted = expected(&folder.join(name));
                assert_eq!(wanted.is_empty(), kind == "negative", "{rule}/{name}");
                let notes: BTreeSet<_> = wanted.iter().filter(|w| w.3).map(|w| w.0.clone()).collect();
                let got: BTreeSet<_> = found
                    .iter()
                    .filter(|f| text(f, "path") == name)
                    .filter(|f| text(f, "severity") != "note" || notes.contains(text(f, "rule")))
                    .map(|f| {
                        let field = |k| text(f, k).to_owned();
                        (field("rule"), field("function"), field("parameter"), text(f, "severity") == "note")
                    })
                    .collect();
                failures.extend(
                    (got != wanted).then(|| format!("{rule}/{name}: found {got:?}, expected {wanted:?}")),
                );
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_rule_over_every_fixture() {
    let found = findings(alone(&fixtures()).path(), &["."]);
    let mut out = String::new();
    for f in &found {
        out.push_str(&format!(
            "{}:{}:{} {} {} {} {}\n    {}\n",
            text(f, "path"),
            f["line"],
            f["column"],
            text(f, "severity"),
            text(f, "rule"),
            text(f, "function"),
            text(f, "parameter"),
            text(f, "message")
        ));
    }
    insta::assert_snapshot!(out);
}

/// The dispatch of the mission: the fallback loses `shuffle_scale`.
const SEED: [(&str, &str); 3] = [
    (
        "quant.py",
        "def group_quant(out, x, scales, shuffle_scale=False):\n    return launch(out, x, scales, shuffle_scale)\n\n\
         def group_quant_fallback(out, x, scales, shuffle_scale=False):\n    return launch(out, x, scales)\n",
    ),
    (
        "quant.cu",
        "void group_quant(float* q, const float* x, bool shuffle_scale) { launch(q, x, shuffle_scale); }\n\
         void group_quant_fallback(float* q, const float* x, bool shuffle_scale) { launch(q, x); }\n",
    ),
    (
        "quant.rs",
        "pub fn group_quant(q: &mut [u8], x: &[f32], shuffle_scale: bool) { launch(q, x, shuffle_scale) }\n\
         pub fn group_quant_fallback(q: &mut [u8], x: &[f32], shuffle_scale: bool) { launch(q, x, false) }\n",
    ),
];

#[test]
fn the_default_command_finds_the_dropped_scale_layout_in_all_three_languages_and_fails() {
    for (name, source) in SEED {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), source).unwrap();
        let out = lint(folder.path(), &[]);
        let shown = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(100), "{name}: {shown}");
        assert!(shown.contains("error[SP203]") && shown.contains("shuffle_scale"), "{name}: {shown}");
        assert!(shown.contains("raise when it is not the default"), "{name}: {shown}");
    }
}

#[test]
fn a_fallback_that_drops_the_order_of_the_scales_fails() {
    for name in
        ["col_major", "row_major", "b_col_major", "transposed_scales", "layout", "scale_order", "order"]
    {
        let folder = tempfile::tempdir().unwrap();
        for (file, value) in [("quant.hip", name), ("quant_fallback.hip", "false")] {
            let function = file.trim_end_matches(".hip");
            let source = format!(
                "extern \"C\" int {function}(void* q, float* s, const void* x, int m, int k, bool {name}) {{\n\
                 launch(q, s, x, m, k, {value});\n return 0;\n}}\n"
            );
            fs::write(folder.path().join(file), source).unwrap();
        }
        let out = lint(folder.path(), &[]);
        let shown = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(100), "{shown}");
        let message = format!("`quant_fallback` never reads `{name}`; its twin `quant` honours it");
        assert!(shown.contains(&message), "{name}: {shown}");
    }
    // A name silences nothing: what the twin honours is missed, whatever it is called.
    for name in ["raster_order", "loop_order", "sm_major"] {
        let folder = tempfile::tempdir().unwrap();
        let source = SEED[1].1.replace("shuffle_scale", name);
        fs::write(folder.path().join("quant.cu"), source).unwrap();
        assert_eq!(lint(folder.path(), &[]).status.code(), Some(100), "{name}");
    }
}

#[test]
fn functions_of_one_name_in_sources_of_two_libraries_are_no_twins() {
    let kernel = |reads: &str| {
        format!(
            "__global__ void gemm_kernel(float* y, const float* x, int m, int n) {{ y[n] = x[{reads}]; }}\n"
        )
    };
    let twins = |other: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gemm.hip"), kernel("n")).unwrap();
        fs::write(folder.path().join(other), kernel("m")).unwrap();
        findings(folder.path(), &[])
            .iter()
            .filter(|f| text(f, "rule") == "SP203")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(twins("first.hip"), [] as [Value; 0]);
    let found = twins("gemm_v2.hip");
    let message = "`gemm_kernel` never reads `m`; its twin `gemm_kernel` in gemm_v2.hip honours it";
    assert_eq!(found.len(), 1);
    assert!(text(&found[0], "message").starts_with(message), "{found:?}");
}

#[test]
fn folders_named_dist_or_build_are_read_and_gitignored_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    for sub in ["dist", "build", "ignored"] {
        fs::create_dir(folder.path().join(sub)).unwrap();
        fs::write(folder.path().join(sub).join("quant.py"), SEED[0].1).unwrap();
    }
    fs::write(folder.path().join(".gitignore"), "ignored/\n").unwrap();
    let found = findings(folder.path(), &[]);
    let paths: BTreeSet<_> = found.iter().map(|f| text(f, "path")).collect();
    assert_eq!(paths, BTreeSet::from(["build/quant.py", "dist/quant.py"]));
}

#[test]
fn a_suppression_needs_a_reason_and_something_to_suppress() {
    for ((name, source), comment) in SEED.iter().zip(["#", "//", "//"]) {
        let folder = tempfile::tempdir().unwrap();
        let line = format!("{comment} accuracy: ignore[SP203] shuffle_scale -- the layout is fixed here\n");
        let at = source.rfind(if name.ends_with("py") {
            "def "
        } else if name.ends_with("rs") {
            "pub fn"
        } else {
            "void"
        });
        let mut text_of = (*source).to_owned();
        text_of.insert_str(at.unwrap(), &line);
        fs::write(folder.path().join(name), &text_of).unwrap();
        let out = lint(folder.path(), &[]);
        assert_eq!(out.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&out.stdout));

        fs::write(folder.path().join(name), text_of.replace(" -- the layout is fixed here", "")).unwrap();
        let out = lint(folder.path(), &[]);
        assert_eq!(out.status.code(), Some(100), "{name}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("gives no reason"), "{name}");

        fs::write(folder.path().join(name), text_of.replace("SP203] shuffle_scale", "SP201] other")).unwrap();
        let out = lint(folder.path(), &[]);
        assert!(String::from_utf8_lossy(&out.stdout).contains("suppresses nothing"), "{name}");
    }
}

#[test]
fn a_baseline_survives_moved_lines_and_lets_new_findings_fail() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("quant.py");
    fs::write(&file, SEED[0].1).unwrap();
    assert_eq!(lint(folder.path(), &["--save-baseline", "known.json"]).status.code(), Some(0));
    assert_eq!(lint(folder.path(), &["--baseline", "known.json"]).status.code(), Some(0));
    fs::write(&file, format!("import torch\n\n\n{}", SEED[0].1)).unwrap();
    assert_eq!(lint(folder.path(), &["--baseline", "known.json"]).status.code(), Some(0));
    fs::write(&file, SEED[0].1.replace("shuffle_scale", "transpose_scale")).unwrap();
    assert_eq!(lint(folder.path(), &["--baseline", "known.json"]).status.code(), Some(100));
    fs::write(folder.path().join("known.json"), "{}").unwrap();
    let out = lint(folder.path(), &["--baseline", "known.json"]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("known.json"));
}

#[test]
fn since_reports_only_functions_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let out = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .current_dir(folder.path())
            .output()
            .expect("git runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let other = "def norm(x, weight, eps):\n    return x * weight\n\n\n";
    fs::write(folder.path().join("quant.py"), format!("{other}{}", SEED[0].1)).unwrap();
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "start"]);
    assert!(findings(folder.path(), &["--since", "HEAD"]).is_empty());
    let changed = format!("{other}{}", SEED[0].1).replace("x * weight", "weight * x");
    fs::write(folder.path().join("quant.py"), changed).unwrap();
    let found = findings(folder.path(), &["--since", "HEAD"]);
    let params: Vec<_> = found.iter().map(|f| text(f, "parameter")).collect();
    assert_eq!(params, ["eps"]);
    let out = lint(folder.path(), &["--since", "no-such-revision"]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("no-such-revision"));
}

#[test]
fn the_cache_never_serves_a_changed_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    fs::write(folder.path().join("quant.py"), SEED[0].1).unwrap();
    let run = || lint(folder.path(), &["--report", "json=out.json"]);
    assert_eq!(run().status.code(), Some(100));
    let first = fs::read(folder.path().join("out.json")).unwrap();
    assert!(folder.path().join("target/accuracy/lint-cache.bin").is_file());
    assert_eq!(run().status.code(), Some(100));
    assert_eq!(first, fs::read(folder.path().join("out.json")).unwrap());
    fs::write(
        folder.path().join("quant.py"),
        SEED[0].1.replace("launch(out, x, scales)", "launch(out, x, scales, shuffle_scale)"),
    )
    .unwrap();
    assert_eq!(run().status.code(), Some(0));
    fs::write(folder.path().join("target/accuracy/lint-cache.bin"), b"damaged").unwrap();
    assert_eq!(run().status.code(), Some(0));
}

#[test]
fn the_reports_hold_what_their_formats_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("quant.py"), SEED[0].1).unwrap();
    let out = lint(folder.path(), &["--report", "sarif=lint.sarif", "--report", "github=-"]);
    let github = String::from_utf8_lossy(&out.stdout);
    assert!(github.starts_with("::error file=quant.py,line=4,"), "{github}");
    let sarif: Value = serde_json::from_slice(&fs::read(folder.path().join("lint.sarif")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), RULES.len());
    let result = &run["results"][0];
    assert_eq!(result["ruleId"], "SP203");
    assert_eq!(run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize]["id"], "SP203");
    assert_eq!(result["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"], "quant.py");
    assert!(result["partialFingerprints"]["accuracySilentParam/v1"].is_string());
    let bad = lint(folder.path(), &["--report", "html=x"]);
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("html"));
}

#[test]
fn explain_prints_a_rules_documentation() {
    let folder = tempfile::tempdir().unwrap();
    for rule in RULES {
        let out = lint(folder.path(), &["--explain", rule]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && text.starts_with(rule) && text.contains("Fix:"), "{text}");
        assert!(text.contains("who disagrees"), "{text}");
    }
    assert_eq!(lint(folder.path(), &["--explain", "SP999"]).status.code(), Some(2));
}

#[test]
fn configuration_sets_levels_names_and_folders_and_rejects_unknown_keys() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("quant.py"), SEED[0].1).unwrap();
    let config = |text: &str| fs::write(folder.path().join("accuracy.toml"), text).unwrap();
    config("[lint.rules]\nSP203 = \"off\"\n");
    assert!(findings(folder.path(), &[]).iter().all(|f| text(f, "rule") != "SP203"));
    config("[lint.rules]\nSP203 = { level = \"warn\", require = \"twin\" }\n");
    assert_eq!(lint(folder.path(), &[]).status.code(), Some(0));
    config("[lint]\nexclude = [\"quant.py\"]\n");
    assert!(findings(folder.path(), &[]).is_empty());
    config("[lint]\nexclude = [\"*.py\"]\n");
    assert!(findings(folder.path(), &[]).is_empty());
    config("[lint.names]\nperf = [\"shuffle_*\"]\n");
    assert_eq!(lint(folder.path(), &[]).status.code(), Some(0));
    for wrong in
        ["[lint]\nexlude = []\n", "[lint.rules]\nSP999 = \"warn\"\n", "[lint.rules]\nSP001 = \"loud\"\n"]
    {
        config(wrong);
        let out = lint(folder.path(), &[]);
        let shown = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && shown.contains("accuracy.toml"), "{wrong}: {shown}");
    }
}

#[test]
fn hostile_sources_are_reported_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let deep = |open: &str, close: &str| format!("x = {}1{}", open.repeat(10_000), close.repeat(10_000));
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("good.py", SEED[0].1.as_bytes());
    write("deep.py", format!("{}\n", deep("(", ")")).as_bytes());
    write("deep.cu", format!("int f() {{ int {}; }}\n", deep("(", ")")).as_bytes());
    write("deep.rs", format!("fn f() {{ let {}; }}\n", deep("(", ")")).as_bytes());
    write("lists.py", format!("{}\n", deep("[", "]")).as_bytes());
    write("nots.py", format!("def f(p):\n    return {}p\n", "not ".repeat(50_000)).as_bytes());
    write("sum.py", format!("def f(p):\n    return p{}\n", " + p".repeat(50_000)).as_bytes());
    write("attributes.py", format!("def f(p):\n    return p{}\n", ".a".repeat(50_000)).as_bytes());
    write("sum.cu", format!("int f(int p) {{ return p{}; }}\n", " + p".repeat(50_000)).as_bytes());
    write("types.rs", format!("fn f(p: i32) -> {}u8 {{ g(p) }}\n", "<".repeat(5_600)).as_bytes());
    write("references.rs", format!("fn f(p: {}i32) {{}}\n", "&".repeat(19_000)).as_bytes());
    write("returns.rs", format!("fn f(p: i32) -> i32 {{ {}p }}\n", "return ".repeat(9_000)).as_bytes());
    write("minus.rs", format!("fn f(p: i32) -> i32 {{ {}p }}\n", "-".repeat(50_000)).as_bytes());
    write(
        "elses.cu",
        format!("void f(int p) {{ if(p) g(); {} }}\n", "else if(p) g();".repeat(5_000)).as_bytes(),
    );
    write("latin1.py", b"x = '\xe9'\n");
    write("broken.py", b"def f(:\n");
    write("huge.cu", &vec![b' '; 50 << 20]);
    let started = std::time::Instant::now();
    let out = lint(folder.path(), &["--report", "json=out.json"]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert_eq!(out.status.code(), Some(100), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&fs::read(folder.path().join("out.json")).unwrap()).unwrap();
    let problems: BTreeSet<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    for name in [
        "deep.py",
        "deep.cu",
        "deep.rs",
        "lists.py",
        "nots.py",
        "latin1.py",
        "broken.py",
        "huge.cu",
        "minus.rs",
        "types.rs",
        "references.rs",
    ] {
        assert!(problems.contains(name), "{name}: {problems:?}");
    }
    assert!(report["lint"].as_array().unwrap().iter().any(|f| text(f, "path") == "good.py"));
}

/// One case of `cases.txt`: its title, whether something has to be found, what, and the files.
struct Case<'t> {
    title: &'t str,
    found: bool,
    expected: BTreeSet<(String, String)>,
    files: Vec<(&'t str, String)>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let sections = text.split("\n### ").skip(1);
    sections
        .map(|section| {
            let mut lines = section.lines();
            let (kind, title) = lines.next().unwrap().split_once(": ").unwrap();
            let mut case =
                Case { title, found: kind == "found", expected: BTreeSet::new(), files: Vec::new() };
            for line in lines {
                if let Some(name) = line.strip_prefix("--- ") {
                    case.files.push((name, String::new()));
                } else if let Some((_, source)) = case.files.last_mut() {
                    source.push_str(line);
                    source.push('\n');
                } else if let Some((function, parameter)) =
                    line.strip_prefix("expect: ").and_then(|l| l.split_once(' '))
                {
                    case.expected.insert((function.to_owned(), parameter.to_owned()));
                }
            }
            assert_eq!(case.found, !case.expected.is_empty(), "{title}");
            case
        })
        .collect()
}

#[test]
fn faults_are_found_whatever_their_names_and_what_only_looks_faulty_is_not() {
    let text_of = fs::read_to_string(fixtures().parent().unwrap().join("cases.txt")).unwrap();
    let cases = cases(&text_of);
    assert!(cases.len() >= 89, "{}", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in &case.files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        let got: BTreeSet<_> = findings(folder.path(), &["."])
            .iter()
            .filter(|f| text(f, "severity") != "note")
            .map(|f| (text(f, "function").to_owned(), text(f, "parameter").to_owned()))
            .collect();
        let right = if case.found { got.is_superset(&case.expected) } else { got.is_empty() };
        failures.extend((!right).then(|| format!("{}: {got:?}, expected {:?}", case.title, case.expected)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_is_found_whatever_folder_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("slow/deep")).unwrap();
    fs::create_dir_all(root.join("fast")).unwrap();
    fs::write(root.join("pyproject.toml"), "").unwrap();
    let (fast, slow) = SEED[0].1.split_once("\n\n").unwrap();
    fs::write(root.join("fast/quant.py"), fast).unwrap();
    fs::write(root.join("slow/deep/quant.py"), slow).unwrap();
    let keyed = |found: &[Value]| -> Vec<String> {
        found
            .iter()
            .map(|f| format!("{} {} {}", text(f, "rule"), text(f, "fingerprint"), text(f, "message")))
            .collect()
    };
    let whole = findings(&root, &["."]);
    assert_eq!(whole.iter().map(|f| text(f, "path")).collect::<Vec<_>>(), ["slow/deep/quant.py"]);
    assert_eq!(text(&whole[0], "severity"), "error");
    let absolute = root.join("slow");
    for given in [".", "slow", "./slow/deep", "slow/deep/quant.py", absolute.to_str().unwrap()] {
        assert_eq!(findings(&root, &[given]), whole, "{given}");
    }
    assert_eq!(keyed(&findings(&root.join("slow"), &["."])), keyed(&whole));
    assert_eq!(keyed(&findings(Path::new("/"), &[absolute.to_str().unwrap()])), keyed(&whole));
    assert!(findings(&root, &["fast"]).is_empty());
}

#[test]
fn vendored_and_generated_files_are_counted_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (path, head) in [
        ("third_party/a.py", ""),
        ("lib/module/b.py", ""),
        ("made/c.py", "# This file is automatically generated. Do not edit.\n"),
        ("marked/d.py", ""),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{head}{}", SEED[0].1)).unwrap();
    }
    fs::write(folder.path().join(".gitmodules"), "[submodule \"m\"]\n\tpath = lib/module\n").unwrap();
    fs::write(folder.path().join(".gitattributes"), "marked/** linguist-vendored\n").unwrap();
    let out = lint(folder.path(), &["--no-cache"]);
    let shown = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{shown}");
    assert!(shown.contains("0 errors, 0 warnings"), "{shown}");
    assert!(shown.contains("4 in vendored or generated files"), "{shown}");
    let kinds: BTreeSet<_> =
        findings(folder.path(), &[]).iter().map(|f| text(f, "apart").to_owned()).collect();
    assert_eq!(kinds, BTreeSet::from(["generated".to_owned(), "vendored".to_owned()]));
}

#[test]
fn several_parameters_of_one_call_are_one_block_and_the_last_line_counts() {
    let folder = tempfile::tempdir().unwrap();
    let source = "def run(q, k, v, out, lengths, scale, cap=0.0, bias=None, mode=\"a\"):\n\
                  \x20   if mode == \"b\":\n        return slow(q, k, v, out, lengths, scale)\n\
                  \x20   return fast(q, k, v, out, lengths, scale, cap, bias)\n";
    fs::write(folder.path().join("run.py"), source).unwrap();
    fs::write(folder.path().join("quant.py"), SEED[0].1).unwrap();
    let out = lint(folder.path(), &["--no-cache"]);
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(shown.matches("warning[SP201]").count(), 1, "{shown}");
    assert!(shown.contains("likewise `"), "{shown}");
    assert!(shown.contains("by rule: 2 SP201 arm-drop, 1 SP203 twin-asymmetry"), "{shown}");
    assert!(shown.contains("silent parameters: 1 error, 2 warnings in 3 functions of 2 files"), "{shown}");
    // Quiet keeps what fails.
    let quiet = lint(folder.path(), &["--no-cache", "-q"]);
    let shown = String::from_utf8_lossy(&quiet.stdout).into_owned();
    assert!(shown.contains("error[SP203]") && !shown.contains("SP201"), "{shown}");
    // Machines that annotate a change see what fails or warns.
    fs::write(folder.path().join("note.py"), "def f(x, scale):\n    del scale\n    return x\n").unwrap();
    let github = lint(folder.path(), &["--no-cache", "--report", "github=-"]);
    let github = String::from_utf8_lossy(&github.stdout).into_owned();
    assert!(github.contains("::error ") && github.contains("::warning ") && !github.contains("::notice"));
}

#[test]
fn what_cannot_be_read_changes_the_last_line_and_the_status() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good.py"), "def f(x):\n    return x\n").unwrap();
    fs::write(folder.path().join("bad.py"), "def f(x):\n    return (\n\ndef g(:\n").unwrap();
    fs::create_dir(folder.path().join("nothing")).unwrap();
    let out = lint(folder.path(), &["--no-cache"]);
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{shown}");
    assert!(shown.contains("bad.py:4: ") || shown.contains("bad.py:3: "), "{shown}");
    assert!(shown.lines().last().unwrap().contains("1 file not read"), "{shown}");
    let out = lint(folder.path(), &["--no-cache", "bad.py"]);
    assert_eq!(out.status.code(), Some(101), "{}", String::from_utf8_lossy(&out.stdout));
    let out = lint(folder.path(), &["--no-cache", "nothing"]);
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(4), "where there is no source, nothing was looked at: {shown}");
    assert!(shown.lines().last().unwrap().contains("no source file in nothing"), "{shown}");
    // Outside of a repository there is nothing to compare with.
    let out = lint(folder.path(), &["--no-cache", "--since", "HEAD"]);
    let shown = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && shown.contains("in no git repository"), "{shown}");
    assert_eq!(shown.trim().lines().count(), 1, "{shown}");
}

/// A small generator of the same mutations on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Deletes, repeats, swaps and inserts pieces of a source, now and then bytes that are no UTF-8.
fn mutate(source: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const PIECES: [&str; 24] = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "/*",
        "*/",
        "#",
        "\\\n",
        "lambda x: ",
        "not ",
        "else ",
        "<<<",
        ">>>",
        "#define X(a) a \\\n",
        "if (",
        "def f(",
        "\u{e9}",
        "\t",
        "*",
    ];
    let mut out = source.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = random.below(out.len());
        let end = (at + 1 + random.below(40)).min(out.len());
        match random.below(7) {
            0 => drop(out.drain(at..end)),
            1 => {
                let piece = out[at..end].to_vec();
                let times = 1 + random.below(30);
                out.splice(at..at, piece.repeat(times));
            }
            2 | 3 => {
                let piece = PIECES[random.below(PIECES.len())];
                let most = if random.below(10) == 0 { 2_000 } else { 3 };
                let times = 1 + random.below(most);
                out.splice(at..at, piece.repeat(times).into_bytes());
            }
            4 => {
                let from = random.below(other.len());
                let to = (from + random.below(400)).min(other.len());
                out.splice(at..at, other[from..to].iter().copied());
            }
            5 => out.truncate(at),
            _ => out[at..end].reverse(),
        }
        if out.is_empty() {
            out.push(b'x');
        }
    }
    if random.below(50) == 0 {
        out.push(0xff);
    }
    out
}

/// `ACCURACY_FUZZ_SECONDS` prolongs it; a run without it takes a few seconds.
#[test]
fn mutated_sources_never_break_the_lint() {
    let mut sources: Vec<(String, Vec<u8>)> = Vec::new();
    for rule in fs::read_dir(fixtures()).unwrap() {
        for file in fs::read_dir(rule.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let extension = path.extension().unwrap().to_string_lossy().into_owned();
            sources.push((extension, fs::read(&path).unwrap()));
        }
    }
    sources.sort();
    let seconds: u64 = std::env::var("ACCURACY_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let seed = std::env::var("ACCURACY_FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    let started = std::time::Instant::now();
    let mut runs = 0u32;
    while started.elapsed().as_secs() < seconds {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..100 {
            let (extension, source) = &sources[random.below(sources.len())];
            let other = &sources[random.below(sources.len())].1;
            fs::write(folder.path().join(format!("m{i}.{extension}")), mutate(source, other, &mut random))
                .unwrap();
        }
        let batch = std::time::Instant::now();
        let out = lint(folder.path(), &["--no-cache", "-v"]);
        let shown = String::from_utf8_lossy(&out.stderr).into_owned();
        if !matches!(out.status.code(), Some(0 | 100)) || batch.elapsed().as_secs() > 20 {
            let kept = folder.keep();
            panic!("batch {runs}, {:?}, {:?}, in {}: {shown}", out.status, batch.elapsed(), kept.display());
        }
        runs += 1;
    }
    assert!(runs > 0);
}
