//! Accidents by which a run could end green, hang, or lose something, each tried on the real binary. All that were thought
//! of are listed in `accidents.md`, with the test that tries them.

mod crates;
mod many;

use crates::{Fixture, Run, never_green, shards};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const LIST: &str = include_str!("accidents.md");

/// The rows of the list: what, how it was tried, what is right, the test.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = LIST
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| what |") && !line.starts_with("| ---"));
    rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn the_list_is_long_and_all_of_it_is_tried_by_tests_that_exist() {
    let rows = rows();
    assert!(rows.len() >= 150, "{} accidents", rows.len());
    assert!(rows.iter().all(|row| row.len() == 4 && row.iter().all(|cell| !cell.is_empty())), "{rows:?}");
    let distinct: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(distinct.len(), rows.len(), "an accident is listed twice");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for test in rows.iter().map(|row| row[3]) {
        let (file, name) = test.trim_matches('`').split_once("::").unwrap_or_else(|| panic!("{test}"));
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains(&format!("fn {name}(")), "{file} has no test {name}");
    }
}

/// The plugin on its own, which must end soon.
fn plugin(arguments: &[&str], dir: &Path, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.args(arguments).current_dir(dir).stdin(std::process::Stdio::null());
    for name in ["GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "ACCURACY_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    change(&mut command);
    // Files: who waits for the end of a process before reading its pipes may wait for ever.
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        // What waits for a FIFO or reads a device without end is ended here.
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{arguments:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().unwrap();
    let written = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
        bytes
    };
    Output { status, stdout: written(&mut stdout), stderr: written(&mut stderr) }
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].iter().map(|bytes| String::from_utf8_lossy(bytes)).collect()
}

fn fifo(path: &Path) {
    let name = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn what_is_no_regular_file_is_an_error_at_once_wherever_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    many::write(&dir.join("records"), 8);
    fifo(&dir.join("fifo"));
    fifo(&dir.join("fifo.py"));
    std::fs::create_dir(dir.join("ck")).unwrap();
    fifo(&dir.join("ck/f.safetensors"));
    let index = r#"{"weight_map": {"a.weight": "f.safetensors"}}"#;
    std::fs::write(dir.join("ck/model.safetensors.index.json"), index).unwrap();
    for arguments in [
        &["report", "records", "--baseline", "fifo"][..],
        &["report", "records", "--baseline", "/dev/zero"],
        &["report", "records", "--save-baseline", "/dev/full"],
        &["report", "records", "--baseline", "records"],
        &["logs", "/dev/zero"],
        &["logs", "fifo"],
        &["weights", "ck"],
        &["weights", "ck/f.safetensors"],
        &["inspect", "fifo"],
        &["inspect", "/dev/zero"],
        &["lint", "--no-cache", "fifo.py"],
        &["lint", "--no-cache", "/dev/null"],
        &["lint", "--no-cache", "--config", "fifo"],
        &["compare", "fifo", "fifo"],
        &["run", "--archive", "fifo"],
        &["run", "--archive", "/dev/zero"],
    ] {
        let output = plugin(arguments, dir, |_| {});
        let text = said(&output);
        let code = output.status.code();
        assert!(matches!(code, Some(1..=2 | 100..=101)), "{arguments:?}: {code:?}, {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_fifo_in_place_of_a_record_or_manifest_does_not_stop_a_report() {
    for file in ["manifest.json", "run.json"] {
        let dir = tempfile::tempdir().unwrap();
        many::write(dir.path(), 8);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        fifo(&dir.path().join(file));
        let output = plugin(&["report", "."], dir.path(), |_| {});
        assert_eq!(output.status.code(), Some(101), "{file}: {}", said(&output));
        assert!(said(&output).contains("it is a FIFO"), "{file}: {}", said(&output));
    }
}

#[test]
fn a_source_that_is_named_and_cannot_be_parsed_is_no_green_lint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.py"), "def f(x):\n    return x\n").unwrap();
    std::fs::write(dir.path().join("syn.py"), "def f(x:\n").unwrap();
    std::fs::write(dir.path().join("latin.py"), b"def f(x):\n    return '\xe9'\n").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no source\n").unwrap();
    fifo(&dir.path().join("fifo.py"));
    // Beside one that is fine, and also where the second run finds all of it in its cache.
    for bad in ["syn.py", "latin.py", "notes.txt", "fifo.py"] {
        for _ in 0..2 {
            let output = plugin(&["lint", "good.py", bad], dir.path(), |command| {
                command.env("CARGO_TARGET_DIR", dir.path().join("target"));
            });
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(101), "{bad}: {}", said(&output));
            assert!(text.lines().last().unwrap().contains("1 file not read"), "{bad}: {text}");
        }
    }
    // In a folder they are counted.
    let output = plugin(&["lint", "--no-cache", "."], dir.path(), |_| {});
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("2 files not read"), "{}", said(&output));
}

#[test]
fn folders_that_do_not_say_what_should_be_in_them_are_incomplete() {
    let report = |dir: &Path| plugin(&["report", "."], dir, |_| {});
    for missing in ["manifest.json", "run.json"] {
        let dir = tempfile::tempdir().unwrap();
        many::write(dir.path(), 100);
        std::fs::remove_file(dir.path().join(missing)).unwrap();
        let output = report(dir.path());
        assert_eq!(output.status.code(), Some(101), "{missing}: {}", said(&output));
        assert!(said(&output).contains(missing.trim_end_matches(".json")), "{missing}: {}", said(&output));
    }
}

#[test]
fn what_records_say_neither_drives_a_terminal_nor_commands_a_ci() {
    let dir = tempfile::tempdir().unwrap();
    let ids = many::write(dir.path(), 2 * many::FAILING);
    let path = |id: &str| accuracy_core::record::record_path(dir.path(), id, 0);
    let read = |id: &String| accuracy_core::record::read_record(&path(id)).ok();
    let mut record = ids
        .iter()
        .filter_map(read)
        .find(|r| r.gate == accuracy_core::record::Gate::Fail && !r.causes.is_empty())
        .unwrap();
    let hostile = "x\n::error::owned\n  ::add-mask::y\n##[error]owned\u{202e}\u{1b}]0;owned\u{7}\u{9b}2J";
    record.reason = hostile.into();
    record.causes[0].detail = hostile.into();
    record.hops[0].name = hostile.into();
    accuracy_core::record::write_record(&path(&record.id), &record).unwrap();
    for format in ["none", "json", "junit", "markdown", "sarif", "html", "github"] {
        let sink = format!("{format}=-");
        let arguments: &[&str] = match format {
            "none" => &["report", ".", "-v", "--color", "always"],
            _ => &["report", ".", "--color", "always", "--report", &sink],
        };
        let output = plugin(arguments, dir.path(), |command| {
            command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", dir.path().join("summary.md"));
        });
        let text =
            format!("{}{}", said(&output), std::fs::read_to_string(dir.path().join("summary.md")).unwrap());
        for line in text.lines() {
            let meant = line.starts_with("::error file=") || line.starts_with("::error title=");
            assert!(meant || !line.trim_start().starts_with("::"), "{format}: {line}");
            assert!(!line.contains("##["), "{format}: {line}");
        }
        for c in ['\u{202e}', '\u{7}', '\u{9b}'] {
            assert!(!text.contains(c), "{format}: {c:?}");
        }
        assert!(!text.contains("\u{1b}]"), "{format}");
    }
}

/// The plugin with no room for a file of more than so many bytes, as where a disk is full.
fn with_room_for(bytes: u64, arguments: &[&str], dir: &Path) -> Output {
    use std::os::unix::process::CommandExt as _;
    plugin(arguments, dir, |command| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: both calls may be made between fork and exec, and `limit` is one.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
                Ok(())
            });
        }
    })
}

#[test]
fn a_report_that_a_full_disk_cuts_off_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    many::write(&dir.path().join("records"), 100);
    for format in ["json", "junit", "html"] {
        let output = with_room_for(
            8192,
            &["report", "records", "-q", "--report", &format!("{format}=out")],
            dir.path(),
        );
        assert_eq!(output.status.code(), Some(101), "{format}: {}", said(&output));
        assert!(said(&output).contains("cannot write the report out"), "{format}: {}", said(&output));
        assert!(!dir.path().join("out").exists(), "{format}");
    }
}

/// A file of tensors, with a name, a shape and bytes for each, all of them bf16.
fn safetensors(path: &Path, tensors: &[(&str, &[usize], Vec<u8>)]) {
    let tensor = |(name, shape, bytes): &(&str, &[usize], Vec<u8>)| accuracy_core::weights::NewTensor {
        name: (*name).to_owned(),
        dtype: accuracy_core::weights::StDtype::BF16,
        shape: shape.to_vec(),
        bytes: bytes.clone(),
    };
    let tensors: Vec<_> = tensors.iter().map(tensor).collect();
    accuracy_core::weights::write(path, &tensors, &Default::default()).unwrap();
}

/// A matrix of ones.
fn ones(rows: usize, cols: usize) -> Vec<u8> {
    [0x80, 0x3f].repeat(rows * cols)
}

#[test]
fn a_shard_that_a_full_disk_cuts_off_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("ck")).unwrap();
    safetensors(&dir.path().join("ck/model.safetensors"), &[("a.weight", &[64, 64], ones(64, 64))]);
    std::fs::write(dir.path().join("ck/config.json"), "{}").unwrap();
    let arguments = ["shard", "--from", "ck", "--tensors", "**", "--out", "out"];
    let output = with_room_for(4096, &arguments, dir.path());
    assert_eq!(output.status.code(), Some(101), "{}", said(&output));
    assert!(!dir.path().join("out/model.safetensors").exists(), "{}", said(&output));
}

#[test]
fn a_report_is_written_over_nothing_that_was_read_and_no_two_into_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    many::write(&dir.join("records"), 8);
    let record = std::fs::read_dir(dir.join("records")).unwrap().map(|entry| entry.unwrap().path());
    let record = record.filter(|path| path.to_str().unwrap().ends_with(".0.json")).min().unwrap();
    let record = format!("json={}", record.strip_prefix(dir).unwrap().display());
    std::os::unix::fs::symlink("records/run.json", dir.join("link")).unwrap();
    safetensors(&dir.join("a.safetensors"), &[("a", &[2, 2], ones(2, 2))]);
    std::fs::write(dir.join("server.log"), "[aiter] finish build [module_quant], cost 1s\n").unwrap();
    std::fs::write(dir.join("source.py"), "def f(x):\n    return x\n").unwrap();
    let contents = || {
        let folders = [dir.to_owned(), dir.join("records")];
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files
            .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = contents();
    for (status, arguments) in [
        (101, &["report", "records", "--report", "json=records/manifest.json"][..]),
        (101, &["report", "records", "--report", "html=link"]),
        (101, &["report", "records", "--report", &record]),
        (2, &["report", "records", "--report", "json=x", "--report", "html=x"]),
        (2, &["report", "records", "--report", "json=-", "--report", "markdown=-"]),
        (2, &["report", "records", "--report", "json=x", "--save-baseline", "x"]),
        (101, &["compare", "a.safetensors", "a.safetensors", "--report", "json=a.safetensors"]),
        (101, &["logs", "server.log", "--report", "json=server.log"]),
        (2, &["lint", "--no-cache", "source.py", "--report", "json=source.py"]),
    ] {
        let output = plugin(arguments, dir, |_| {});
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", said(&output));
        assert_eq!(contents(), before, "{arguments:?}");
    }
}

#[test]
fn files_of_weights_that_are_missing_or_not_read_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, tensor: &str| {
        safetensors(&dir.path().join(name), &[(tensor, &[4, 4], ones(4, 4))]);
    };
    file("model-00001-of-00003.safetensors", "a.weight");
    file("model-00003-of-00003.safetensors", "c.weight");
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let survey = || plugin(&["weights", "."], dir.path(), |_| {});
    let output = survey();
    assert_eq!(output.status.code(), Some(100), "{}", said(&output));
    assert!(
        said(&output).contains("1 of 3 numbered files is not there: model-00002-of-00003"),
        "{}",
        said(&output)
    );
    file("model-00002-of-00003.safetensors", "b.weight");
    assert_eq!(survey().status.code(), Some(0), "{}", said(&survey()));
    let index = r#"{"weight_map": {"a.weight": "model-00001-of-00003.safetensors"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let output = survey();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        said(&output).contains("model-00002-of-00003.safetensors and 1 more in the folder: not read"),
        "{}",
        said(&output)
    );
}

#[test]
fn weights_of_zeros_are_told_where_values_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: [(&str, &[usize], Vec<u8>); 2] =
        [("a.weight", &[4, 4], vec![0; 32]), ("b.weight", &[4, 4], ones(4, 4))];
    safetensors(&dir.path().join("model.safetensors"), &tensors);
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let output = plugin(&["weights", ".", "--scan"], dir.path(), |_| {});
    assert!(said(&output).contains("`a`: every byte of its codes is zero"), "{}", said(&output));
    assert!(!said(&output).contains("`b`: every"), "{}", said(&output));
}

#[test]
fn tensors_without_elements_compare_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        safetensors(&dir.path().join(format!("{name}.safetensors")), &[("x", &[0, 4], Vec::new())]);
    }
    let output = plugin(&["compare", "a.safetensors", "b.safetensors"], dir.path(), |_| {});
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
}

#[test]
fn a_log_in_which_nothing_is_looked_for_is_not_green() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "known.log",
        "[aiter] finish build [module_quant], cost 1s\n[aiter] failed jit build [module_mla]\n",
    );
    write("quiet.log", "[aiter] finish build [module_quant], cost 1s\n");
    write("other.log", "hello\nworld\n");
    write("none.toml", "");
    write("less.toml", "[[rule]]\nid = \"aiter-jit-build-failed\"\ndisabled = true\n");
    for (status, text, arguments) in [
        (4, "other.log: none of its 2 lines", &["logs", "other.log"][..]),
        (0, "other.log: none of its 2 lines", &["logs", "quiet.log", "other.log"]),
        (2, "there is no rule", &["logs", "quiet.log", "--rules", "none.toml", "--own-rules-only"]),
        (0, "taken out: aiter-jit-build-failed", &["logs", "known.log", "--rules", "less.toml"]),
        (100, "", &["logs", "known.log"]),
        (0, "", &["logs", "quiet.log"]),
    ] {
        let output = plugin(arguments, dir.path(), |_| {});
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn sources_are_known_by_extensions_of_any_case() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("A.PY"), "def f(x):\n    return x\n").unwrap();
    std::fs::write(dir.path().join("B.CU"), "int f(int a) { return a; }\n").unwrap();
    let output = plugin(&["lint", "--no-cache", "."], dir.path(), |_| {});
    assert!(said(&output).contains("in 2 functions of 2 files"), "{}", said(&output));
}

#[test]
fn a_workspace_that_cargo_cannot_read_stands_in_the_way_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Cargo.toml"), "[package\nname =\n").unwrap();
    let output = plugin(&["doctor"], dir.path(), |_| {});
    assert_eq!(output.status.code(), Some(100), "{}", said(&output));
    assert!(said(&output).contains("cargo cannot read the workspace"), "{}", said(&output));
}

/// A copy of a kernel crate that this file's tests may change one after the other, built by a build script.
fn fixture() -> (&'static Fixture, std::fs::File) {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
        Fixture::copy("never-green", "accidents", |dir| shards::write_all(&dir.join("shards")))
    });
    let lock = std::fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("accidents.lock")).unwrap();
    lock.lock().unwrap();
    (&FIXTURE, lock)
}

const CORRECT: [&str; 3] = ["--arch", "host", "::kernels::correct["];

/// The library that a run judged, as its report says.
fn judged(run: &Run) -> PathBuf {
    let report = run.report.as_ref().unwrap_or_else(|| panic!("no report: {run}"));
    let library = &report["libraries"][0];
    assert_eq!(library["name"], "faulty", "{library}");
    library["path"].as_str().unwrap().into()
}

#[test]
fn a_library_that_the_environment_names_does_not_take_the_place_of_the_one_that_was_built() {
    let run = never_green().accuracy(&[&CORRECT[..], &["-v"]].concat());
    assert_eq!(run.status, Some(0), "{run}");
    let built = judged(&run);
    assert_eq!(run.report.as_ref().unwrap()["libraries"][0]["found"], "build_script", "{run}");
    assert_eq!(
        run.report.as_ref().unwrap()["cases"][0]["libraries"],
        run.report.as_ref().unwrap()["libraries"]
    );
    assert!(run.stdout.contains(&format!("judged never-green::faulty: {}", built.display())), "{run}");

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libfaulty_host.so");
    let with = |wins: Option<&str>| {
        never_green().accuracy_with(&CORRECT, |command| {
            command.env("ACCURACY_LIBRARY_PATH", folder.path());
            wins.map(|wins| command.env("ACCURACY_LIBRARY_WINS", wins));
        })
    };
    // The same contents are the same library.
    std::fs::copy(&built, &copy).unwrap();
    let run = with(None);
    assert_eq!((run.status, judged(&run)), (Some(0), copy.clone()), "{run}");
    // Others are not, unless they are meant: then the top of every report says so.
    let mut bytes = std::fs::read(&built).unwrap();
    bytes.extend_from_slice(b"another build");
    std::fs::write(&copy, bytes).unwrap();
    for wins in [None, Some("0"), Some("")] {
        let run = with(wins);
        assert_eq!(run.status, Some(101), "{run}");
        assert!(run.stderr.contains("would not: take the folder out of the variable"), "{run}");
    }
    let run = with(Some("1"));
    assert_eq!((run.status, judged(&run)), (Some(0), copy.clone()), "{run}");
    assert!(run.stdout.starts_with("the gate is loosened: "), "{run}");
    assert!(run.stdout.lines().next().unwrap().contains(copy.to_str().unwrap()), "{run}");
    // And under plain cargo test.
    let records = tempfile::tempdir().unwrap();
    let output = never_green().cargo_test_with(&["--lib", "kernels::correct::"], |command| {
        command.env("ACCURACY_LIBRARY_PATH", folder.path()).env("ACCURACY_RECORDS", records.path());
    });
    assert!(!output.status.success() && said(&output).contains("would be judged"), "{}", said(&output));
}

#[test]
fn a_source_whose_contents_change_is_built_again_whatever_its_time() {
    let (fixture, _alone) = fixture();
    let run = fixture.accuracy(&CORRECT);
    assert_eq!(run.status, Some(0), "{run}");
    let source = fixture.dir.join("hip/faulty.hip");
    let text = std::fs::read_to_string(&source).unwrap();
    let time = source.metadata().unwrap().modified().unwrap();
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let write = |text: &str, time| {
        std::fs::write(&source, text).unwrap();
        std::fs::File::options().write(true).open(&source).unwrap().set_modified(time).unwrap();
    };
    // As `rsync -a`, `cp -p` and `tar x` leave a file.
    assert!(text.contains("to_bf16(sum)"));
    write(&text.replace("to_bf16(sum)", "to_bf16(1.5f * sum)"), past);
    let plain = fixture.cargo_test_with(&["--lib", "kernels::correct::"], |_| {});
    let run = fixture.accuracy(&CORRECT);
    write(&text, past);
    let again = fixture.accuracy(&CORRECT);
    write(&text, time);
    assert!(!plain.status.success() && said(&plain).contains("goes by contents"), "{}", said(&plain));
    assert_eq!(run.status, Some(100), "{run}");
    assert_eq!(again.status, Some(0), "{again}");
}

#[test]
fn a_library_that_is_replaced_while_the_run_goes_on_is_judged_by_no_case() {
    let (fixture, _alone) = fixture();
    let built = judged(&fixture.accuracy(&CORRECT));
    let before = std::fs::read(&built).unwrap();
    let running = fixture.start(&["--arch", "host", "--jobs", "1", "--no-lint", "::kernels::"], |_| {});
    running.wait_for_case("kernels::correct::full_chain_tokens_5");
    // As another build does it: a new file under the old name.
    let put = |bytes: &[u8]| {
        let temporary = built.with_extension("new");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(&temporary, &built).unwrap();
    };
    put(&[&before[..], b"another build"].concat());
    let run = running.finish();
    put(&before);
    assert_eq!(run.status, Some(100), "{run}");
    let last = run.cases().into_iter().find(|case| case.id.contains("::times_zero[")).unwrap();
    assert_eq!((last.verdict.as_str(), last.gate.as_str()), ("crashed", "fail"), "{run}");
    assert!(last.reason.contains("was written while the run was going on"), "{run}");
}

#[test]
fn a_record_of_an_earlier_cargo_test_is_not_taken_for_that_of_a_test_that_crashed() {
    let (fixture, _alone) = fixture();
    let records = tempfile::tempdir().unwrap();
    let arguments = ["--lib", "kernels::correct::"];
    assert!(fixture.cargo_test(&arguments, records.path()).success());
    let folder = records.path().to_str().unwrap();
    let green = fixture.report(&[folder]);
    let source = fixture.dir.join("hip/faulty.hip");
    let text = std::fs::read_to_string(&source).unwrap();
    let launcher = "GEMM(gemm) {\n";
    assert!(text.contains(launcher));
    std::fs::write(&source, text.replace(launcher, &format!("{launcher}    __builtin_trap();\n"))).unwrap();
    let crashed = fixture.cargo_test(&arguments, records.path());
    std::fs::write(&source, text).unwrap();
    let report = fixture.report(&[folder]);
    assert_eq!((green.status, green.case().verdict.as_str()), (Some(0), "correct"), "{green}");
    assert!(!crashed.success());
    assert!(!matches!(report.status, Some(0)), "{report}");
    assert!(report.cases().iter().all(|case| case.verdict != "correct"), "{report}");
}

/// A workspace of three packages: two bind a library of the same name, and only the first one's is wrong; the third takes
/// no part in a run.
fn twins() -> (tempfile::TempDir, Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"twin-a\", \"twin-b\", \"twin-c\"]\n";
    write("Cargo.toml", &format!("{members}[profile.dev]\ndebug = false\n"));
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    let core =
        format!("accuracy-core = {{ path = {:?}, features = [\"runtime\"] }}\n", root.join("accuracy-core"));
    let kernel =
        std::fs::read_to_string(root.join("cargo-accuracy/testdata/never-green/hip/faulty.hip")).unwrap();
    let head = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n")
    };
    let library = "[[package.metadata.accuracy.library]]\nname = \"twin\"\nsources = [\"hip\"]\n";
    let binding = "use accuracy_core::prelude::*;\n#[kernel_library(\"twin\")]\nunsafe extern \"C\" {\n    pub fn gemm(y: DevPtr<bf16>, x: DevPtr<bf16>, w: DevPtr<bf16>, m: i32, n: i32, k: i32, stream: Stream) -> Status;\n}\n";
    write("twin-a/Cargo.toml", &format!("{}[dependencies]\n{core}{library}", head("twin-a")));
    write("twin-a/src/lib.rs", binding);
    write("twin-a/hip/gemm.hip", &kernel.replace("to_bf16(sum)", "to_bf16(1.5f * sum)"));
    write(
        "twin-b/Cargo.toml",
        &format!("{}[dependencies]\n{core}twin-a = {{ path = \"../twin-a\" }}\n{library}", head("twin-b")),
    );
    write("twin-b/src/lib.rs", binding);
    write("twin-b/hip/gemm.hip", &kernel);
    let test = |name: &str, package: &str| {
        format!(
            "#[accuracy_test(checkpoint = \"shards/good\", weights = {{ w = \"up_proj\" }}, tokens = [5])]\nfn {name}(cx: &mut Case) -> Result<Tensor> {{\n    let (m, n, k) = cx.shape()?;\n    let (x, w) = (cx.activations()?, cx.weight(\"w\", BF16)?);\n    let y = cx.output(\"y\", BF16, [m, n], x.matmul(&w))?;\n    unsafe {{ {package}::gemm(y.data(), x.data(), w.data(), m, n, k, cx.stream()) }}?;\n    Ok(y)\n}}\n"
        )
    };
    let tests = format!(
        "use accuracy_core::prelude::*;\n{}{}",
        test("of_the_other", "twin_a"),
        test("of_its_own", "twin_b")
    );
    write("twin-b/tests/both.rs", &tests);
    shards::write_all(&folder.path().join("twin-b/shards"));
    write(
        "twin-c/Cargo.toml",
        &format!("{}[dependencies]\n{core}[package.metadata.accuracy]\nrun = false\n", head("twin-c")),
    );
    write("twin-c/src/lib.rs", "");
    let fixture = Fixture::in_shared_target(folder.path());
    (folder, fixture)
}

#[test]
fn bindings_open_the_libraries_of_their_own_packages_and_a_package_that_is_left_out_is_named() {
    let (_folder, workspace) = twins();
    for selection in [&["--arch", "host"][..], &["--arch", "host", "-p", "twin-b"]] {
        let run = workspace.accuracy(&[selection, &["--no-lint"]].concat());
        assert_eq!(run.status, Some(100), "{run}");
        let verdict = |test: &str| {
            let cases = run.cases();
            let case = cases.iter().find(|case| case.id.contains(&format!("::{test}[")));
            case.unwrap_or_else(|| panic!("no case of {test}: {run}")).gate.clone()
        };
        assert_eq!([verdict("of_the_other"), verdict("of_its_own")], ["fail", "pass"], "{run}");
        let top = run.stdout.lines().next().unwrap_or_default();
        let told = top.contains("package twin-c is left out (configuration)");
        // Whoever names packages has chosen.
        assert_eq!(told, selection.len() == 2, "{run}");
    }
}

#[test]
fn a_test_that_this_build_leaves_out_is_named_with_the_reason_and_can_be_made_to_fail() {
    let (fixture, _alone) = fixture();
    let test = "#[accuracy_core::accuracy_test(tokens = [1])]\nfn NAME(cx: &mut accuracy_core::Case) -> accuracy_core::Result<accuracy_core::Tensor> {\n    cx.activations()\n}\n";
    let path = fixture.dir.join("tests/left_out.rs");
    let with = |attribute: &str| format!("{attribute}\n{}", test.replace("NAME", "left_out_by_a_feature"));
    std::fs::write(&path, with("#![cfg(feature = \"hidden\")]")).unwrap();
    let arguments = [&CORRECT[..], &["::left_out_by_a_feature["]].concat();
    let run = fixture.accuracy(&arguments);
    let config = fixture.dir.join(".config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("accuracy.toml"), "deny-hidden = true\n").unwrap();
    let denied = fixture.accuracy(&arguments);
    std::fs::remove_dir_all(&config).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(run.status, Some(0), "{run}");
    let hidden = &run.report.as_ref().unwrap()["hidden"];
    assert_eq!(hidden[0]["test"], "left_out_by_a_feature", "{run}");
    assert_eq!(hidden[0]["reason"], "left out by #[cfg(feature=\"hidden\")]", "{run}");
    assert!(run.stdout.contains("1 test exists and is in no executable of this build"), "{run}");
    assert_eq!(denied.status, Some(100), "{denied}");
    assert!(denied.last_line().starts_with("FAILED the gate: 1 hidden test"), "{denied}");
}

#[test]
fn a_test_that_the_manifest_leaves_out_is_named_with_the_reason() {
    let (fixture, _alone) = fixture();
    let source = |name: &str| {
        format!(
            "#[accuracy_core::accuracy_test(tokens = [1])]\nfn {name}(cx: &mut accuracy_core::Case) -> accuracy_core::Result<accuracy_core::Tensor> {{\n    cx.activations()\n}}\n"
        )
    };
    let tests = fixture.dir.join("tests");
    let files = ["without_its_feature", "switched_off", "in_no_target"];
    for name in files {
        std::fs::write(tests.join(format!("{name}.rs")), source(name)).unwrap();
    }
    let manifest = fixture.dir.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let changed = text.replace("publish = false", "publish = false\nautotests = false");
    let target = |name: &str, more: &str| format!("[[test]]\nname = \"{name}\"\n{more}\n");
    let targets = [
        target("without_its_feature", "required-features = [\"hidden\"]"),
        target("switched_off", "test = false"),
    ];
    std::fs::write(&manifest, changed + &targets.concat()).unwrap();
    let filters: Vec<String> = files.iter().map(|name| format!("::{name}[")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let run = fixture.accuracy(&[&CORRECT[..], &filters].concat());
    std::fs::write(&manifest, text).unwrap();
    for name in files {
        std::fs::remove_file(tests.join(format!("{name}.rs"))).unwrap();
    }
    let hidden = run.report.as_ref().unwrap_or_else(|| panic!("{run}"))["hidden"].as_array().unwrap().clone();
    let reason_of = |test: &str| {
        let found = hidden.iter().find(|hidden| hidden["test"] == test);
        found.unwrap_or_else(|| panic!("{test} is not named: {run}"))["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason_of("without_its_feature").contains("required-features = [\"hidden\"]"), "{run}");
    assert!(reason_of("switched_off").contains("`test = false`"), "{run}");
    assert!(reason_of("in_no_target").contains("autotests = false?"), "{run}");
}

/// The folder that the last `cargo test` has left.
fn last_test_folder(fixture: &Fixture) -> PathBuf {
    let library = judged(&fixture.accuracy(&CORRECT));
    let target = library.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).unwrap();
    let entries = std::fs::read_dir(target.join("accuracy")).unwrap().map(|entry| entry.unwrap().path());
    let of_test = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("test-"));
    of_test.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).expect("a folder of cargo test")
}

#[test]
fn a_report_after_cargo_test_has_every_process_of_the_last_invocation() {
    let (fixture, _alone) = fixture();
    let kernels = fixture.dir.join("src/kernels.rs");
    let kernels = format!("#[path = {:?}]\nmod kernels;\n", kernels.to_str().unwrap());
    let test = |name: &str, source: &str| {
        let path = fixture.dir.join("tests").join(format!("{name}.rs"));
        std::fs::write(&path, source).unwrap();
        // The library's tests fail. Those of the second file pass, and their process is the last.
        let flags = ["--no-fail-fast", "--lib", "--test", name, "--", "--skip", "other::kernels::nan"];
        let tests = ["kernels::nan::", "kernels::correct::"];
        let output = fixture.cargo_test_with(&[&flags[..], &tests[..]].concat(), |_| {});
        std::fs::remove_file(&path).unwrap();
        assert!(!output.status.success(), "{}", said(&output));
        fixture.report(&[last_test_folder(fixture).to_str().unwrap()])
    };
    let apart = test("second", &format!("mod other {{\n{kernels}}}\n"));
    // The crate has the library's name, and so its cases have the library's identities.
    let shared = test("never_green", &kernels);

    assert_eq!(apart.status, Some(100), "{apart}");
    let ids: BTreeSet<String> = apart.cases().into_iter().map(|case| case.id).collect();
    assert_eq!(ids.len(), 3, "two cases of one process, one of the other: {ids:?}");
    assert!(ids.iter().any(|id| id.contains("::other::kernels::correct[")), "{ids:?}");
    assert_eq!(apart.last_line(), "2 passed, 1 failed, 0 skipped");
    assert_eq!(shared.status, Some(101), "{shared}");
    assert!(shared.stdout.contains("are in two test executables of"), "{shared}");
}

#[test]
fn whatever_loosens_the_gate_stands_in_the_first_line_of_a_green_report() {
    let dir = tempfile::tempdir().unwrap();
    let sinks: Vec<String> = ["junit", "markdown", "html", "sarif", "github"]
        .map(|format| format!("{format}={}", dir.path().join(format).display()))
        .to_vec();
    let mut arguments = vec!["--arch", "host", "--no-lint", "--min-cos", "0.9", "::kernels::correct["];
    for sink in &sinks {
        arguments.extend(["--report", sink]);
    }
    let run = never_green().accuracy(&arguments);
    assert_eq!(run.status, Some(0), "{run}");
    let line = "the gate is loosened: least cosine 0.9 (flag); the lint is left out (flag)";
    assert!(run.stdout.starts_with(line), "{run}");
    assert_eq!(run.report.as_ref().unwrap()["loosened"].as_array().unwrap().len(), 2, "{run}");
    for format in ["junit", "markdown", "html", "sarif", "github"] {
        let text = std::fs::read_to_string(dir.path().join(format)).unwrap();
        assert!(text.contains("the gate is loosened"), "{format}: {text}");
    }
    // The records say so later, too; and a run that loosens nothing says nothing.
    let folder = never_green().folder_of(&run);
    let report = never_green().report(&[folder.to_str().unwrap()]);
    assert!(report.stdout.starts_with(line), "{report}");
    let run = never_green().accuracy_with(&CORRECT, |command| {
        command.env("ACCURACY_MIN_COS", "0.5");
    });
    assert!(run.stdout.starts_with("the gate is loosened: least cosine 0.5 (environment)"), "{run}");
    let run = never_green().accuracy(&CORRECT);
    assert!(!run.stdout.contains("loosened"), "{run}");
}

#[test]
fn repeats_that_may_differ_and_rules_that_are_off_stand_in_the_first_line() {
    let run = never_green().accuracy(&["--arch", "host", "::correct_if_repeats_may_differ["]);
    assert_eq!(run.status, Some(0), "{run}");
    let first = run.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("the gate is loosened: repeats of "), "{run}");
    assert!(first.ends_with("correct_if_repeats_may_differ may differ by 0.001 (attribute)"), "{run}");

    let (fixture, _alone) = fixture();
    let config = fixture.dir.join(".config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("accuracy.toml"), "[lint.rules.SP101]\nlevel = \"off\"\n").unwrap();
    let run = fixture.accuracy(&CORRECT);
    std::fs::remove_dir_all(&config).unwrap();
    assert_eq!(run.status, Some(0), "{run}");
    let first = run.stdout.lines().next().unwrap_or_default();
    assert_eq!(first, "the gate is loosened: lint rules SP101 are no errors (configuration)", "{run}");
}

#[test]
fn a_report_to_a_fifo_is_written_once_somebody_reads() {
    let dir = tempfile::tempdir().unwrap();
    many::write(&dir.path().join("records"), 8);
    let path = dir.path().join("pipe");
    fifo(&path);
    let reader = std::thread::spawn({
        let path = path.clone();
        move || std::fs::read_to_string(path).unwrap()
    });
    let sink = format!("json={}", path.display());
    let output = plugin(&["report", "records", "--report", &sink], dir.path(), |_| {});
    assert!(matches!(output.status.code(), Some(0 | 100)), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(report["cases"].as_array().unwrap().len(), 8, "{report}");
}
