//! How a run is selected, configured, interrupted and reported, by the real binary on a real crate.

mod crates;

use crates::{Fixture, Run, never_green};
use std::collections::BTreeSet;
use std::sync::LazyLock;

fn listed(arguments: &[&str]) -> Vec<String> {
    let run = never_green().accuracy(&[&["--arch", "host", "--list"], arguments].concat());
    assert_eq!(run.status, Some(0), "{run}");
    run.stdout.lines().map(String::from).collect()
}

#[test]
fn a_listed_identity_pasted_back_runs_that_case_alone() {
    let id = listed(&["is_correct"]).remove(0);
    let run = never_green().accuracy(&["--arch", "host", &id]);
    assert_eq!(run.status, Some(0), "{run}");
    assert_eq!(run.case().id, id);
}

#[test]
fn the_command_that_a_failure_prints_runs_it_again() {
    let run = never_green().accuracy(&["--arch", "host", "--timeout", "100", "::returns_early["]);
    let line =
        run.stdout.lines().find_map(|l| l.trim().strip_prefix("re-run: ")).expect("there is such a line");
    let script = format!("set -- {line}; shift 2; printf '%s\\n' \"$@\"");
    let words = std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
    let words = String::from_utf8(words).unwrap();
    let again = never_green().accuracy(&words.lines().collect::<Vec<_>>());
    assert_eq!(again.status, Some(100), "{again}");
    assert_eq!(again.case().id, run.case().id);
    assert!(line.contains("--timeout 100"), "{line}");
}

#[test]
fn an_identity_of_another_architecture_says_which_flag_is_missing() {
    let id = listed(&["is_correct"]).remove(0).replace("arch=host", "arch=gfx950");
    let run = never_green().accuracy(&["--arch", "host", &id]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("add --arch gfx950"), "{run}");
}

#[test]
fn partitions_divide_the_cases_without_rest() {
    let all: BTreeSet<String> = listed(&[]).into_iter().collect();
    for kind in ["slice", "hash"] {
        let mut seen = BTreeSet::new();
        for part in 1..=3 {
            for id in listed(&["--partition", &format!("{kind}:{part}/3")]) {
                assert!(seen.insert(id.clone()), "{id} is in two parts");
            }
        }
        assert_eq!(seen, all, "{kind}");
    }
}

#[test]
fn one_failure_does_not_stop_the_others_unless_asked_to() {
    let cases =
        ["--arch", "host", "--jobs", "1", "::exits_with_status_0[", "::returns_early[", "::is_correct["];
    let verdicts = |run: &Run| run.cases().into_iter().map(|c| c.verdict).collect::<Vec<_>>();
    let run = never_green().accuracy(&cases);
    assert_eq!(verdicts(&run), ["correct", "crashed", "crashed"], "{run}");
    assert_eq!(run.last_line(), "1 passed, 2 failed, 0 skipped");
    let run = never_green().accuracy(&[&cases[..], &["--fail-fast"]].concat());
    assert_eq!(verdicts(&run), ["correct", "crashed", "not_run"], "{run}");
    assert_eq!(run.status, Some(100), "{run}");
}

#[test]
fn an_interrupted_run_kills_its_cases_and_reports_what_did_not_run() {
    let running = never_green().start(&["--arch", "host", "--jobs", "1", "::hangs[", "::aborts["], |_| {});
    running.wait_for_case("runner::hangs::cell");
    running.signal(libc::SIGINT);
    let run = running.finish();
    assert_eq!(run.status, Some(101), "{run}");
    let verdicts: Vec<String> = run.cases().into_iter().map(|c| c.verdict).collect();
    assert!(verdicts.contains(&"not_run".to_string()), "{run}");
    assert!(run.stdout.contains("interrupted"), "{run}");
    run.assert_nothing_left_running();
}

#[test]
fn a_second_interrupt_does_not_wait_for_a_case_that_ignores_the_first() {
    let running = never_green().start(&["--arch", "host", "::hangs_and_ignores_sigterm["], |_| {});
    let case = running.wait_for_case("runner::hangs_and_ignores_sigterm::cell");
    // Only once its handler is installed does it ignore the signal.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let began = std::time::Instant::now();
    running.signal(libc::SIGINT);
    std::thread::sleep(std::time::Duration::from_millis(100));
    running.signal(libc::SIGINT);
    while std::path::Path::new(&format!("/proc/{case}")).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // After two seconds it would have been killed anyway.
    assert!(began.elapsed().as_millis() < 1900, "it took {:?}", began.elapsed());
    let run = running.finish();
    assert_eq!(run.status, Some(101), "{run}");
    assert!(!run.stdout.contains("lint:"), "nothing begins after an interrupt: {run}");
    run.assert_nothing_left_running();
}

#[test]
fn a_report_on_standard_output_is_nothing_but_json() {
    let run = never_green().accuracy(&["--arch", "host", "::is_correct[", "--report", "json=-"]);
    assert_eq!(run.status, Some(0), "{run}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["tool"]["name"], "cargo-accuracy");
    assert_eq!(report["arch"], "host");
    assert_eq!(report["summary"]["passed"], 1);
    assert_eq!(report["lint"], serde_json::json!([]));
    assert_eq!(report["cases"][0]["metrics"]["gain"], serde_json::Value::Null);
    assert!(run.stderr.contains("1 passed, 0 failed, 0 skipped"), "{run}");
    assert_eq!(Some(report), run.report, "every report says the same");
}

#[test]
fn quiet_prints_failures_and_the_summary_only() {
    let run = never_green().accuracy(&["--arch", "host", "-q", "::is_correct[", "::returns_early["]);
    assert!(!run.stdout.contains("verdict"), "{run}");
    assert!(run.stdout.starts_with("CRASHED never-green::runner::returns_early full_chain\n"), "{run}");
    assert_eq!(run.last_line(), "1 passed, 1 failed, 0 skipped");
}

#[test]
fn colours_are_for_terminals_or_by_request() {
    let case = ["--arch", "host", "::is_correct["];
    assert!(!never_green().accuracy(&case).stdout.contains('\x1b'));
    assert!(never_green().accuracy(&[&case[..], &["--color", "always"]].concat()).stdout.contains('\x1b'));
}

#[test]
fn records_of_a_run_can_be_reported_again() {
    let run = never_green().accuracy(&["--arch", "host", "::is_correct[", "::returns_early["]);
    let folder = run.stdout.lines().find_map(|l| l.strip_prefix("records in ")).expect("the folder is named");
    let kept = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), kept.path().join(entry.file_name())).unwrap();
    }
    let again = never_green().report(&[kept.path().to_str().unwrap()]);
    assert_eq!(again.status, Some(100), "{again}");
    let mut first = run.report.clone().unwrap();
    let second = again.report.clone().unwrap();
    // What the test process measured is in the record; the time of one that crashed only the runner knows.
    for (a, b) in first["cases"].as_array_mut().unwrap().iter_mut().zip(second["cases"].as_array().unwrap()) {
        a["seconds"] = b["seconds"].clone();
    }
    assert_eq!(first, second);
    assert_eq!(again.last_line(), "1 passed, 1 failed, 0 skipped");

    std::fs::remove_file(kept.path().join(name_of(kept.path(), "is_correct"))).unwrap();
    let cut = never_green().report(&[kept.path().to_str().unwrap()]);
    assert_eq!(cut.last_line(), "0 passed, 2 failed, 0 skipped");
    assert!(cut.cases().iter().any(|c| c.verdict == "not_run"), "{cut}");
}

/// File of the record whose identity contains this.
fn name_of(dir: &std::path::Path, part: &str) -> std::ffi::OsString {
    let holds = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["id"].as_str().is_some_and(|id| id.contains(part))
    };
    let mut entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .find(|e| e.path().extension().is_some_and(|x| x == "json") && holds(e.path()))
        .unwrap()
        .file_name()
}

#[test]
fn a_folder_without_records_is_not_green() {
    let empty = tempfile::tempdir().unwrap();
    let run = never_green().report(&[empty.path().to_str().unwrap()]);
    assert_eq!(run.status, Some(4), "{run}");
}

/// The same crate with a configuration file that asks for more than bfloat16 can give.
fn configured() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
        Fixture::copy("never-green", "configured", |dir| {
            crates::shards::write_all(&dir.join("shards"));
            std::fs::create_dir_all(dir.join(".config")).unwrap();
            std::fs::write(dir.join(".config/accuracy.toml"), "arch = \"host\"\nmin-cos = 0.99999999\n")
                .unwrap();
        })
    });
    &FIXTURE
}

#[test]
fn a_tensor_that_is_added_to_a_checkpoint_is_a_case_without_building_anew() {
    let layers = || {
        let run = configured().accuracy(&["--list", "::every_layer["]);
        assert_eq!(run.status, Some(0), "{run}");
        assert!(!run.stderr.contains("Compiling"), "{run}");
        run.stdout.lines().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(layers().len(), 3);
    crates::shards::write_layers(&configured().dir.join("shards"), 5);
    let more = layers();
    assert_eq!(more.len(), 5);
    assert!(more[4].contains("w=layers.4.up_proj"), "{more:?}");
    let run = configured().accuracy(&["--min-cos", "0.999", &more[4]]);
    crates::shards::write_layers(&configured().dir.join("shards"), 3);
    assert_eq!((run.status, run.case().id), (Some(0), more[4].clone()), "{run}");
}

#[test]
fn flag_beats_environment_beats_attribute_beats_file() {
    let threshold = |arguments: &[&str], environment: Option<&str>| {
        let run = configured().accuracy_with(arguments, |command| {
            command.envs(environment.map(|cos| ("ACCURACY_MIN_COS", cos)));
        });
        let expected = run.status;
        let report = run.report.as_ref().unwrap_or_else(|| panic!("{run}"));
        (report["cases"][0]["threshold"].as_f64().unwrap(), expected)
    };
    let plain = ["::kernels::correct["];
    let attribute = ["::kernels::correct_by_its_attribute["];
    let flag = ["::kernels::correct_by_its_attribute[", "--min-cos", "0.995"];
    assert_eq!(threshold(&plain, None), (0.99999999, Some(100)));
    assert_eq!(threshold(&attribute, None), (0.99, Some(0)));
    assert_eq!(threshold(&attribute, Some("0.9999999")), (0.9999999, Some(100)));
    assert_eq!(threshold(&flag, Some("0.9999999")), (0.995, Some(0)));
}

#[test]
fn an_unknown_key_is_a_usage_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[package]\nname = \"empty\"\nedition = \"2024\"\n[workspace]\n");
    write("src/lib.rs", "");
    write(".config/accuracy.toml", "arch = \"host\"\ntimeuot = 3\n");
    let run = Fixture::at(dir.path()).accuracy(&[]);
    assert_eq!(run.status, Some(2), "{run}");
    for part in [
        ".config/accuracy.toml",
        "unknown key `timeuot`",
        "known: arch, deny-hidden, emulate, jobs, library, library-path, lint, min-cos, run, timeout",
    ] {
        assert!(run.stderr.contains(part), "{run}");
    }

    write(".config/accuracy.toml", "arch = \"host\"\n");
    let run = Fixture::at(dir.path()).accuracy(&["-p", "empty"]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("does not depend on accuracy-core"), "{run}");

    let run = Fixture::at(dir.path()).accuracy(&["-p", "full"]);
    assert_eq!(run.status, Some(2), "{run}");
    assert!(run.stderr.contains("`full`"), "{run}");

    let run = Fixture::at(dir.path()).accuracy(&[]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("no selected package depends on accuracy-core"), "{run}");

    write("src/lib.rs", "fn broken(");
    let run = Fixture::at(dir.path()).accuracy(&["-p", "empty"]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("could not be built"), "{run}");
}

#[test]
fn a_segfault_under_plain_cargo_test_leaves_what_it_cut_off_as_not_run() {
    let records = tempfile::tempdir().unwrap();
    let tests =
        never_green().cargo_test(&["--lib", "--", "kernels::", "--test-threads", "1"], records.path());
    assert!(!tests.success());
    let run = never_green().report(&[records.path().to_str().unwrap()]);
    assert_eq!(run.status, Some(100), "{run}");
    let verdict = |test: &str| {
        let cases = run.report.as_ref().unwrap()["cases"].as_array().unwrap();
        let case = cases.iter().find(|c| c["test"] == test).unwrap_or_else(|| panic!("{test}: {run}"));
        case["verdict"].as_str().unwrap().to_owned()
    };
    // In the order in which libtest runs them.
    assert_eq!(verdict("correct"), "correct", "{run}");
    assert_eq!(verdict("reads_past_the_end"), "crashed", "{run}");
    assert_eq!(verdict("refused"), "not_run", "{run}");
    assert_eq!(verdict("symbol_missing"), "not_run", "{run}");
}

#[test]
fn without_a_device_of_the_architecture_nothing_runs() {
    // No machine has all of these.
    let missing = ["gfx90a", "gfx1250", "sm_100"].into_iter().find(|arch| {
        let run = never_green().accuracy(&["--arch", arch, "::correct["]);
        assert!(run.status == Some(101) || run.status == Some(100), "{run}");
        run.status == Some(101) && {
            assert!(run.stderr.contains(&format!("kernels of {arch} cannot run here")), "{run}");
            assert!(run.stderr.contains("--arch host"), "{run}");
            assert!(run.report.is_none(), "{run}");
            true
        }
    });
    assert!(missing.is_some());
}
