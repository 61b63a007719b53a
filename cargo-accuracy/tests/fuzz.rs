//! Shapes that no test lists: what is drawn, that right kernels stay green, and that a failure is shrunk to the least shape; and
//! launches that differ though nothing that they are given does.

mod crates;

use crates::{Case, Fixture, Run, shards};
use std::collections::BTreeSet;
use std::sync::LazyLock;

fn fuzzed() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
        Fixture::copy("fuzzed", "fuzzed", |dir| shards::write_sliceable(&dir.join("shards")))
    });
    &FIXTURE
}

fn run(arguments: &[&str]) -> Run {
    fuzzed().accuracy(&[&["--arch", "host", "--no-lint"], arguments].concat())
}

fn listed(arguments: &[&str]) -> Vec<String> {
    let run = run(&[&["--list"], arguments].concat());
    assert_eq!(run.status, Some(0), "{run}");
    run.stdout.lines().map(String::from).collect()
}

/// The value of a coordinate of an identity.
fn coordinate<'a>(id: &'a str, name: &str) -> Option<&'a str> {
    let inside = id.split_once('[')?.1.strip_suffix(']')?;
    inside.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn is_drawn(id: &str) -> bool {
    coordinate(id, "fuzz").is_some()
}

fn tokens(id: &str) -> usize {
    coordinate(id, "tokens").unwrap().parse().unwrap()
}

/// What a run printed behind `re-run:` of its only kind of failure, as words.
fn rerun(run: &Run) -> Vec<String> {
    let line =
        run.stdout.lines().find_map(|l| l.trim().strip_prefix("re-run: ")).expect("there is such a line");
    let script = format!("set -- {line}; shift 2; printf '%s\\n' \"$@\"");
    let words = std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
    String::from_utf8(words).unwrap().lines().map(String::from).collect()
}

/// The least shape of a run's failures, once the printed command has shown that it fails by itself.
fn least(run: &Run) -> Case {
    let words = rerun(run);
    let again = fuzzed().accuracy(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again.status, Some(100), "{again}");
    let case = again.case();
    assert_eq!(words.last(), Some(&case.id), "the command runs that case alone");
    case
}

#[test]
fn what_is_drawn_depends_on_the_seed_alone_and_pastes_back() {
    let ids = listed(&["tests::right["]);
    let drawn: Vec<&String> = ids.iter().filter(|id| is_drawn(id)).collect();
    assert_eq!((ids.len(), drawn.len()), (9, 8), "{ids:?}");
    assert_eq!(tokens(&ids[0]), 33, "a listed case shows what the checks can see");
    assert_eq!(tokens(drawn[0]), 1, "the least comes first");
    assert!(drawn.iter().all(|id| (1..=70).contains(&tokens(id))));
    assert_eq!(ids, listed(&["tests::right["]));
    assert_eq!(listed(&["--fuzz", "3", "tests::right["]), ids[..4]);
    assert_ne!(ids, listed(&["--seed", "1", "tests::right["]));
    let pasted = run(&[drawn[2]]);
    assert_eq!(pasted.status, Some(0), "{pasted}");
    assert_eq!(pasted.case().id, *drawn[2]);
}

#[test]
fn an_identity_that_describes_no_drawn_case_is_a_clear_error() {
    let id = listed(&["tests::right["]).remove(1);
    let fuzz = coordinate(&id, "fuzz").unwrap();
    let run = run(&[&id.replace(fuzz, "7:odd")]);
    assert_eq!(run.status, Some(2), "{run}");
    assert!(run.stderr.contains("`fuzz=7:odd` describes no drawn case; expected SEED:VALUES"), "{run}");
}

#[test]
fn right_kernels_are_never_blamed_and_a_refused_shape_is_skipped_unless_the_test_promises_it() {
    let run = run(&["--fuzz", "30", "tests::right[", "tests::whole_tiles["]);
    assert_eq!(run.status, Some(0), "{run}");
    let skipped: Vec<Case> = run.cases().into_iter().filter(|case| case.verdict == "skipped").collect();
    assert!(!skipped.is_empty() && skipped.iter().all(|case| case.id.contains("::whole_tiles[")), "{run}");
    assert!(skipped.iter().all(|case| !tokens(&case.id).is_multiple_of(16)));
    assert!(skipped[0].reason.starts_with("drawn, and refused in this shape: "), "{skipped:?}");
    let sliced: BTreeSet<String> = run
        .cases()
        .iter()
        .filter_map(|case| Some(coordinate(&case.id, "fuzz")?.splitn(3, ':').nth(2)?.into()))
        .collect();
    let all = |of: &str| sliced.iter().any(|slice| slice.contains(of));
    assert!(all("n16") && all("n32") && all("k128") && all("k256"), "{sliced:?}");
    assert!(run.stdout.contains(" of the cases have drawn shapes (--fuzz): 0 failed, "), "{run}");

    let promised = self::run(&["--fuzz", "12", "tests::whole_tiles_of_any_count["]);
    assert_eq!(promised.status, Some(100), "{promised}");
}

#[test]
fn a_failure_is_shrunk_to_the_least_shape_that_fails() {
    let run = run(&["--fuzz", "16", "tests::tail_of_rows["]);
    assert_eq!(run.status, Some(100), "{run}");
    let case = least(&run);
    assert_eq!(tokens(&case.id), 34, "{case:?}");
    let fuzz = coordinate(&case.id, "fuzz").unwrap();
    assert!(fuzz.ends_with(":ordinary:n16:k128"), "{fuzz}");
    assert!(case.failed_checks.iter().any(|check| check == "unwritten"), "{case:?}");
    assert!(run.stdout.contains("least shape that fails so: tokens=34,fuzz="), "{run}");
    // Each failing case names it.
    let failed = run.cases().into_iter().filter(|case| case.gate == "fail").count();
    let cases = run.report.as_ref().unwrap()["cases"].as_array().unwrap();
    let named = cases.iter().filter(|case| case["least"] == serde_json::json!(rerun(&run).last().unwrap()));
    assert_eq!(named.count(), failed, "{run}");
}

#[test]
fn a_shape_in_which_a_kernel_crashes_is_shrunk_too() {
    let run = run(&["--fuzz", "16", "tests::behind_large_inputs["]);
    assert_eq!(run.status, Some(100), "{run}");
    let case = least(&run);
    assert_eq!((tokens(&case.id), case.verdict.as_str()), (21, "crashed"), "{case:?}");
    // A process that has died left no record: the command fills memory as that process did all the same.
    let words = rerun(&run);
    let poison = words.iter().position(|word| word == "--poison").expect("the command names it");
    assert!(words[poison + 1].parse::<u64>().is_ok(), "{words:?}");
    // The shapes that do not crash are right.
    let crashes = |case: &Case| tokens(&case.id) > 20 && tokens(&case.id) % 16 != 1;
    for case in run.cases() {
        assert_eq!(case.verdict == "crashed", crashes(&case), "{case:?}");
    }
}

#[test]
fn slices_of_a_weight_find_what_its_whole_hides() {
    let run = run(&["--fuzz", "24", "tests::short_k["]);
    assert_eq!(run.status, Some(100), "{run}");
    let case = least(&run);
    assert!(case.id.contains("tokens=1,") && case.id.contains(":k128"), "{case:?}");
    assert!(run.cases().iter().all(|case| case.gate == "pass" || case.id.contains(":k128")), "{run}");
}

#[test]
fn what_there_was_no_time_for_is_skipped_and_said() {
    let run = run(&["--fuzz", "40", "--fuzz-seconds", "0.01", "--jobs", "1", "tests::right["]);
    assert_eq!(run.status, Some(0), "{run}");
    let late: Vec<Case> =
        run.cases().into_iter().filter(|case| case.reason.contains("--fuzz-seconds")).collect();
    assert_eq!(late.len(), 39, "the first is run: {run}");
    assert!(late.iter().all(|case| case.verdict == "skipped" && is_drawn(&case.id)), "{run}");
    assert!(
        run.stdout.contains("39 skipped: drawn, and not run: the time of --fuzz-seconds 0.01 was over"),
        "{run}"
    );
}

#[test]
fn plain_cargo_test_runs_drawn_cases_as_well() {
    let records = tempfile::tempdir().unwrap();
    assert!(fuzzed().cargo_test(&["tests::right::"], records.path()).success());
    let files = std::fs::read_dir(records.path()).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    assert_eq!(
        texts
            .filter(|text| text.contains("\"fuzz\":{\"seed\":") && text.contains("\"complete\":true"))
            .count(),
        8
    );
}

#[test]
fn what_differs_in_some_launches_only_has_a_name() {
    for test in ["first_launch", "first_launch_of_two_shapes", "later_launches"] {
        let run = run(&[&format!("tests::{test}[")]);
        assert_eq!(run.status, Some(100), "{run}");
        for case in run.cases() {
            assert_eq!(case.causes.first().map(String::as_str), Some("unknown"), "{case:?}");
        }
        let told = "a kernel keeps something from one launch to the next";
        assert!(run.stdout.replace("\n    ", " ").contains(told), "{run}");
        assert!(run.stdout.contains("cause: stale_state: "), "{run}");
    }
}
