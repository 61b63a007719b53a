//! A case never passes by accident: the real binary on a crate in which every case tries to.

mod crates;

use crates::{Fixture, Run};

fn never_green() -> &'static Fixture {
    static FIXTURE: std::sync::LazyLock<Fixture> = std::sync::LazyLock::new(|| Fixture::copy("never-green"));
    &FIXTURE
}

/// Runs one test of the crate, by its name.
fn run(test: &str) -> Run {
    never_green().accuracy(&["--arch", "host", &format!("::{test}[")])
}

#[test]
fn a_correct_case_passes() {
    let run = run("is_correct");
    assert_eq!(run.status, Some(0), "{run}");
    assert_eq!(run.case().verdict, "correct", "{run}");
    assert_eq!(run.last_line(), "1 passed, 0 failed, 0 skipped");
}

#[test]
fn a_test_that_exits_with_status_0_fails() {
    let run = run("exits_with_status_0");
    run.assert_failed("crashed", "left no record");
}

#[test]
fn a_test_that_returns_early_without_a_record_fails() {
    run("returns_early").assert_failed("crashed", "left no record");
}

#[test]
fn a_segfault_fails_with_the_signal_and_the_output() {
    let run = run("segfaults");
    run.assert_failed("crashed", "SIGSEGV");
    assert!(run.case().reason.contains("about to write to address 8"), "{run}");
}

#[test]
fn a_segfault_that_the_test_could_explain_is_explained() {
    let run = run("segfaults_and_says_why");
    run.assert_failed("crashed", "write past the end of y");
    assert_eq!(run.case().causes, ["out_of_bounds"], "{run}");
}

#[test]
fn an_abort_fails() {
    run("aborts").assert_failed("crashed", "SIGABRT");
}

#[test]
fn an_abort_after_a_passing_record_fails() {
    run("aborts_after_its_record").assert_failed("crashed", "SIGABRT");
}

#[test]
fn a_panic_after_a_passing_record_fails() {
    run("panics_after_its_record").assert_failed("crashed", "exited with status 101");
}

#[test]
fn a_test_that_hangs_is_killed_when_its_time_is_over() {
    let began = std::time::Instant::now();
    let run = never_green().accuracy(&["--arch", "host", "--timeout", "0.5", "::hangs["]);
    run.assert_failed("timed_out", "0.5 s");
    assert!(began.elapsed().as_secs() < 60, "took {:?}", began.elapsed());
}

#[test]
fn a_hanging_test_that_ignores_sigterm_dies_with_its_children() {
    let run = never_green().accuracy(&["--arch", "host", "--timeout", "0.5", "::hangs_and_ignores_sigterm["]);
    run.assert_failed("timed_out", "0.5 s");
    run.assert_nothing_left_running();
}

#[test]
fn a_test_that_leaves_a_child_behind_fails_and_the_child_dies() {
    let run = run("leaves_a_child");
    run.assert_failed("correct", "(sleep)");
    assert_eq!(run.case().failed_checks, ["process_left_behind"], "{run}");
    run.assert_nothing_left_running();
}

#[test]
fn a_child_that_fled_into_a_session_of_its_own_is_found() {
    let run = run("leaves_a_grandchild_in_a_session_of_its_own");
    run.assert_failed("correct", "(sleep)");
    run.assert_nothing_left_running();
}

#[test]
fn a_child_that_ends_by_itself_is_no_failure() {
    let run = run("leaves_a_child_that_ends_by_itself");
    assert_eq!(run.status, Some(0), "{run}");
}

#[test]
fn garbage_on_standard_output_is_no_record() {
    let run = run("prints_garbage");
    run.assert_failed("crashed", "left no record");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!run.stdout.contains(control), "control characters reach the terminal: {:?}", run.stdout);
}

#[test]
fn a_truncated_record_fails() {
    run("leaves_a_truncated_record").assert_failed("crashed", "not a complete record");
}

#[test]
fn a_record_without_its_last_field_fails() {
    run("leaves_an_incomplete_record").assert_failed("crashed", "not a complete record");
}

#[test]
fn a_record_of_another_case_fails() {
    run("leaves_a_record_of_another_case").assert_failed("crashed", "another case");
}

#[test]
fn a_record_that_contradicts_itself_fails() {
    run("leaves_a_record_that_contradicts_itself").assert_failed("crashed", "contradicts itself");
}

#[test]
fn a_record_of_a_later_schema_fails() {
    run("leaves_a_record_of_a_later_schema").assert_failed("crashed", "schema 99");
}

#[test]
fn a_filter_that_matches_nothing_is_not_green() {
    let run = never_green().accuracy(&["--arch", "host", "no_such_case"]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("`no_such_case` matched none of"), "{run}");
}

#[test]
fn a_test_that_is_compiled_out_by_a_feature_is_not_green() {
    let run = run("is_compiled_out_by_a_feature");
    assert_eq!(run.status, Some(4), "{run}");
}

#[test]
fn without_an_architecture_nothing_runs() {
    let run = never_green().accuracy(&["::is_correct["]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("--arch host"), "{run}");
}
