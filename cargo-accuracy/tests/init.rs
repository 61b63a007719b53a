//! `init` on fresh crates: what it writes builds and passes, and it overwrites nothing. Also the guide's code, which is
//! compiled in such a crate.

mod crates;

use crates::Fixture;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What `cargo new --lib` makes, in a repository.
struct Fresh {
    fixture: Fixture,
    _folder: tempfile::TempDir,
}

impl Fresh {
    fn new() -> Fresh {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("my-kernels");
        let made = Command::new("cargo")
            .args(["new", "--quiet", "--lib", "--vcs", "none"])
            .arg(&dir)
            .output()
            .expect("cargo can be started");
        assert!(made.status.success(), "{}", text(&made));
        std::fs::create_dir(dir.join(".git")).unwrap();
        Fresh { fixture: Fixture::in_shared_target(&dir), _folder: folder }
    }

    fn dir(&self) -> &Path {
        &self.fixture.dir
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn plugin(&self, arguments: &[&str]) -> Output {
        self.fixture.plugin().arg("accuracy").args(arguments).output().expect("the plugin can be started")
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                match entry.is_dir() {
                    true => walk(&entry, files),
                    false => drop(files.insert(entry.clone(), std::fs::read(&entry).unwrap())),
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(self.dir(), &mut files);
        files
    }
}

fn text(output: &Output) -> String {
    format!(
        "exit status {:?}\n--- stdout\n{}\n--- stderr\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}", text(output));
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn what_init_writes_builds_and_passes() {
    let fresh = Fresh::new();
    let init = fresh.plugin(&["init", "--offline"]);
    assert_status(&init, 0);
    let said = String::from_utf8(init.stdout).unwrap();
    for path in [
        "Cargo.toml",
        "build.rs",
        "src/hip/first.hip",
        "shards/first.safetensors",
        "tests/accuracy.rs",
        ".github/workflows/accuracy.yml",
    ] {
        assert!(fresh.dir().join(path).is_file(), "{path} was not written");
        assert!(said.contains(path), "{path} is not named:\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "colours in a pipe: {said}");
    // The folder that accuracy-core comes from here is nowhere on a runner.
    let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["cargo install --locked --git URL cargo-accuracy", "accuracy-core = { git = \"URL\" }"] {
        assert!(flat.contains(part), "not said: {part}\n{said}");
    }

    // A second time there is nothing to do.
    let before = fresh.files();
    let again = fresh.plugin(&["init", "--offline"]);
    assert_status(&again, 0);
    assert!(
        String::from_utf8_lossy(&again.stdout).contains("Everything is there already"),
        "{}",
        text(&again)
    );
    assert!(before == fresh.files(), "a second init has changed something");

    // Cargo takes versions from here, so that nothing is looked up on the network.
    std::fs::copy(repository().join("Cargo.lock"), fresh.dir().join("Cargo.lock")).unwrap();
    let run = fresh.fixture.accuracy(&[]);
    assert_eq!(run.status, Some(0), "{run}");
    let cases = run.cases();
    assert!(cases.len() >= 2, "{run}");
    assert!(cases.iter().all(|case| case.verdict == "correct" && case.gate == "pass"), "{run}");

    let selftest = fresh.plugin(&["selftest", "--offline"]);
    assert_status(&selftest, 0);
    assert!(text(&selftest).contains(" faults planted in 1 chains: "), "{}", text(&selftest));

    let doctor = fresh.plugin(&["doctor", "--format", "json"]);
    assert_status(&doctor, 0);
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!((&found["problems"], &found["archs"][0]), (&0.into(), &"host".into()), "{found:#}");
    let whats = found.to_string();
    for part in ["libmy_kernels_host.so", "first.safetensors: 1 tensor", "1 accuracy test, arch = host"] {
        assert!(whats.contains(part), "doctor does not say {part}: {found:#}");
    }

    the_code_of_the_guide_compiles(&fresh);
}

/// Tests in the guide are compiled as tests of the fresh crate; as documentation they would be left out.
fn the_code_of_the_guide_compiles(fresh: &Fresh) {
    let mut blocks = 0;
    let docs = repository().join("accuracy-core/docs");
    for entry in std::fs::read_dir(docs).unwrap() {
        let page = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let code = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
        for (language, code) in code {
            if language.starts_with("rust") && code.contains("#[accuracy_test") {
                let shown = code.lines().filter(|line| !line.starts_with("# "));
                fresh.write(
                    &format!("tests/guide_{blocks}.rs"),
                    &shown.map(|line| format!("{line}\n")).collect::<String>(),
                );
                blocks += 1;
            }
        }
    }
    assert!(blocks > 0, "the guide has no test");
    // The README's test binds nothing by itself: it is that of the guide, without what a first look can do without.
    let page = std::fs::read_to_string(repository().join("accuracy-core/docs/first-test.md")).unwrap();
    let bindings =
        page.split("```rust,no_run\n").nth(1).and_then(|code| code.split("#[accuracy_test").next());
    let bindings = bindings.expect("the guide binds launchers").to_owned();
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let test = readme
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the README has a test");
    assert!(test.contains("#[accuracy_test("), "{test}");
    fresh.write("tests/readme.rs", &format!("{bindings}{test}"));
    // Launchers may be bound in `src`, too.
    fresh.write("src/lib.rs", &bindings);
    let built = fresh.fixture.cargo(&["check", "--all-targets", "--offline", "--quiet"]);
    assert_status(&built, 0);
    // Of a crate on which only tests and the build script depend, cargo 1.95 panics here.
    let documented =
        fresh.fixture.cargo(&["doc", "-p", "accuracy-core", "--no-deps", "--offline", "--quiet"]);
    assert_status(&documented, 0);
}

#[test]
fn a_crate_that_binds_in_src_and_depends_for_tests_only_is_told_what_to_change() {
    let fresh = Fresh::new();
    let core = repository().join("accuracy-core");
    let manifest = std::fs::read_to_string(fresh.dir().join("Cargo.toml")).unwrap();
    let dependency = format!("\n[dev-dependencies]\naccuracy-core = {{ path = {core:?} }}\n");
    fresh.write("Cargo.toml", &(manifest + &dependency));
    fresh.write(
        "src/lib.rs",
        "#[accuracy_core::kernel_library(\"mine\")]\nunsafe extern \"C\" {\n    fn f(s: accuracy_core::prelude::Stream);\n}\n",
    );
    let init = fresh.plugin(&["init", "--offline", "--no-ci"]);
    assert_status(&init, 0);
    let said = text(&init).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("move accuracy-core from [dev-dependencies] to [dependencies]"), "{said}");
    assert!(said.contains("lib.rs:1 binds `mine`"), "{said}");
}

#[test]
fn what_is_there_is_kept() {
    let fresh = Fresh::new();
    let own = [
        ("build.rs", "fn main() {}\n"),
        ("tests/accuracy.rs", "// ours\n"),
        ("src/hip/first.hip", "// ours\n"),
        (".github/workflows/accuracy.yml", "name: ours\n"),
        (".config/accuracy.toml", "arch = \"gfx950\"\n"),
    ];
    let paths: Vec<PathBuf> = own.iter().map(|(path, text)| fresh.write(path, text)).collect();
    let init = fresh.plugin(&["init", "--offline"]);
    assert_status(&init, 0);
    for ((_, text), path) in own.iter().zip(&paths) {
        assert_eq!(std::fs::read_to_string(path).unwrap(), *text, "{} was changed", path.display());
    }
    let said = String::from_utf8(init.stdout).unwrap();
    assert!(said.contains("to do") && said.contains("accuracy_core::build::declared();"), "{said}");
    let manifest = std::fs::read_to_string(fresh.dir().join("Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("[package.metadata.accuracy]"),
        "the architecture is configured twice:\n{manifest}"
    );
}

#[test]
fn a_member_of_a_workspace_is_set_up_and_the_profile_goes_to_the_root() {
    let fresh = Fresh::new();
    fresh.write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"one\", \"two\"]\n");
    for name in ["one", "two"] {
        fresh.write(
            &format!("{name}/Cargo.toml"),
            &format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
        );
        fresh.write(&format!("{name}/src/lib.rs"), "");
    }
    let unnamed = fresh.plugin(&["init", "--offline"]);
    assert_status(&unnamed, 2);
    assert!(text(&unnamed).contains("one, two"), "{}", text(&unnamed));

    let init = fresh.plugin(&["init", "--offline", "-p", "two", "--no-ci"]);
    assert_status(&init, 0);
    let read = |path: &str| std::fs::read_to_string(fresh.dir().join(path)).unwrap();
    assert!(read("Cargo.toml").contains("[profile.dev.package.accuracy-core]"));
    assert!(read("two/Cargo.toml").contains("[package.metadata.accuracy]"));
    assert!(read("two/tests/accuracy.rs").contains("#[kernel_library(\"two\")]"));
    assert!(!read("one/Cargo.toml").contains("accuracy"));
    assert!(!fresh.dir().join(".github").exists());
}

#[test]
fn without_a_package_it_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::in_shared_target(folder.path());
    let output = fixture.plugin().args(["accuracy", "init"]).output().unwrap();
    assert_status(&output, 2);
    assert!(text(&output).contains("cargo new --lib my-kernels"), "{}", text(&output));
}

#[test]
fn the_workflow_is_the_example_and_installs_this_version() {
    let ci = repository().join("examples/ci");
    let read = |name: &str| std::fs::read_to_string(ci.join(name)).unwrap();
    let written = include_str!("../src/init/files/accuracy.yml");
    assert_eq!(read("accuracy.yml"), written);
    let version = format!("CARGO_ACCURACY: \"{}\"", env!("CARGO_PKG_VERSION"));
    for name in ["accuracy.yml", "accuracy-gpu.yml"] {
        assert!(read(name).contains(&version), "{name} installs another version than {version}");
    }
}
