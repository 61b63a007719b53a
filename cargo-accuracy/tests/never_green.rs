//! A case never passes by accident: the real binary on a crate in which every case tries to.

mod crates;

use crates::{Run, never_green};

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
fn a_test_that_changes_the_directory_leaves_its_record_where_the_run_wants_it() {
    let run = run("changes_the_directory");
    assert_eq!(run.status, Some(0), "{run}");
    assert_eq!(run.case().verdict, "correct", "{run}");
}

#[test]
fn a_test_that_removes_the_folder_of_records_fails() {
    run("removes_the_folder_of_records").assert_failed("crashed", "left no record");
}

#[test]
fn a_test_that_stops_itself_is_killed_when_its_time_is_over() {
    let run = never_green().accuracy(&["--arch", "host", "--timeout", "0.5", "::stops_itself["]);
    run.assert_failed("timed_out", "0.5 s");
    run.assert_nothing_left_running();
}

#[test]
fn a_copy_of_a_test_that_goes_on_with_it_fails_it_and_dies() {
    let run = run("forks");
    assert_eq!(run.status, Some(100), "{run}");
    assert_eq!(run.case().failed_checks, ["process_left_behind"], "{run}");
    run.assert_nothing_left_running();
}

#[test]
fn a_test_that_closes_its_standard_output_is_judged_by_its_record() {
    let run = run("closes_standard_output");
    assert_eq!(run.status, Some(0), "{run}");
}

#[test]
fn a_test_that_prints_without_end_is_killed_and_its_last_lines_alone_are_kept() {
    let run = never_green().accuracy(&["--arch", "host", "--timeout", "0.5", "::prints_without_end["]);
    run.assert_failed("timed_out", "0.5 s");
    let reason = run.case().reason;
    assert!(reason.contains("tokens 1 to 5 are written") && reason.len() < 10_000, "{} bytes", reason.len());
}

#[test]
fn a_record_whose_cosine_is_no_number_fails() {
    let run = run("leaves_a_record_whose_cosine_is_no_number");
    assert_eq!((run.status, run.case().verdict.as_str()), (Some(100), "crashed"), "{run}");
}

#[test]
fn a_record_larger_than_any_is_not_read() {
    let run = run("leaves_a_record_larger_than_any");
    run.assert_failed("crashed", "its record cannot be used");
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
fn a_record_whose_checks_cosine_hops_or_skip_contradict_its_gate_fails() {
    for (test, reason) in [
        ("leaves_a_record_with_a_failed_check", "check `cos` of y does not hold"),
        ("leaves_a_record_with_a_cosine_below_its_threshold", "is catastrophic, and the verdict is correct"),
        ("leaves_a_record_without_hops", "has no hop"),
        ("leaves_a_record_without_checks", "has no check"),
        ("leaves_a_record_that_says_skipped", "it was to run, and its record says that it was skipped"),
        ("changes_its_record_afterwards", "it was changed afterwards"),
        ("leaves_a_fifo_in_place_of_its_record", "it is a FIFO"),
    ] {
        run(test).assert_failed("crashed", reason);
        // In a batch, a record that cannot be believed is not what lets the case pass either.
        let batch = ["--arch", "host", "--isolation", "batch", &format!("::{test}[")];
        never_green().accuracy(&batch).assert_failed("crashed", reason);
    }
}

#[test]
fn a_record_of_a_later_schema_fails() {
    run("leaves_a_record_of_a_later_schema").assert_failed("crashed", "schema 99");
}

#[test]
fn a_filter_that_matches_nothing_is_not_green() {
    let run = never_green().accuracy(&["--arch", "host", "::no_such_case["]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("`::no_such_case[` matched none of"), "{run}");
}

#[test]
fn a_filter_by_tensor_does_not_leave_out_a_test_whose_tensors_cannot_be_listed() {
    for filter in ["w=layers.0.up_proj", "layers.0.up"] {
        let run = never_green().accuracy(&["--arch", "host", filter]);
        assert_eq!(run.status, Some(100), "{run}");
        let verdict = |test: &str| {
            let cases = run.cases();
            let case = cases.iter().find(|case| case.id.contains(test));
            case.map(|case| (case.verdict.clone(), case.reason.contains("absent"))).unwrap_or_default()
        };
        assert_eq!(verdict("::every_layer["), ("correct".into(), false), "{run}");
        assert_eq!(verdict("::shard_missing["), ("not_run".into(), true), "{run}");
    }
}

#[test]
fn a_filter_by_the_name_of_a_test_leaves_others_out_and_says_which_could_not_be_listed() {
    let run = never_green().accuracy(&["--arch", "host", "every_layer"]);
    assert_eq!(run.status, Some(0), "{run}");
    assert!(run.stderr.contains("shard_missing is not in this run, and could not be: "), "{run}");
    let run = never_green().accuracy(&["--arch", "host", "::every_layer["]);
    assert!(!run.stderr.contains("shard_missing"), "no tensor is called so: {run}");
}

#[test]
fn a_selftest_of_a_test_whose_tensors_cannot_be_listed_is_not_green() {
    let output = never_green()
        .plugin()
        .args([
            "accuracy",
            "selftest",
            "--offline",
            "--arch",
            "host",
            "::kernels::correct[",
            "::shard_missing[",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(said.contains("no faults were planted: ") && said.contains("shards/absent"), "{said}");
    assert!(said.contains(" faults planted in 1 chains"), "{said}");
}

#[test]
fn a_test_that_is_compiled_out_by_a_feature_is_not_green() {
    let run = run("is_compiled_out_by_a_feature");
    assert_eq!(run.status, Some(4), "{run}");
    let run = never_green().accuracy(&[
        "--arch",
        "host",
        "--features",
        "hidden",
        "::is_compiled_out_by_a_feature[",
    ]);
    assert_eq!(run.status, Some(0), "{run}");
}

#[test]
fn an_executable_without_any_test_is_not_green_and_the_feature_is_named() {
    let run = never_green().accuracy(&["--arch", "host", "--test", "hidden"]);
    assert_eq!(run.status, Some(4), "{run}");
    assert!(run.stderr.contains("no accuracy test was found"), "{run}");
    assert!(run.stderr.contains("features that are off and may hide them: hidden"), "{run}");
}

#[test]
fn without_an_architecture_nothing_runs() {
    let run = never_green().accuracy(&["::is_correct["]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("--arch host"), "{run}");
}

#[test]
fn a_correct_kernel_passes() {
    let run = run("correct");
    assert_eq!(run.status, Some(0), "{run}");
}

#[test]
fn a_kernel_that_adds_to_zeros_passes() {
    let run = run("added_to_zeros");
    assert_eq!(run.status, Some(0), "{run}");
}

/// The run fails because of this check.
#[track_caller]
fn assert_check_failed(run: &Run, check: &str) {
    assert_eq!(run.status, Some(100), "{run}");
    let case = run.case();
    assert_eq!(case.gate, "fail", "{run}");
    assert!(case.failed_checks.iter().any(|c| c == check), "{case:?}");
    assert!(run.stdout.contains(check), "{run}");
    assert_eq!(run.last_line(), "0 passed, 1 failed, 0 skipped");
}

#[test]
fn a_launcher_that_refuses_fails_with_its_name_and_status() {
    let run = run("refused");
    run.assert_failed("not_run", "`gemm_refuses` returned status 2");
}

#[test]
fn a_nan_in_the_output_fails() {
    assert_check_failed(&run("nan"), "nan");
}

#[test]
fn an_output_that_is_never_written_fails() {
    assert_check_failed(&run("nothing_written"), "unwritten");
}

#[test]
fn an_output_of_which_a_column_is_not_written_fails() {
    assert_check_failed(&run("last_column_unwritten"), "unwritten");
}

#[test]
fn a_write_past_the_end_fails() {
    assert_check_failed(&run("past_the_end"), "guards");
}

#[test]
fn a_read_past_the_end_crashes_at_the_inaccessible_page_and_is_explained() {
    let run = run("reads_past_the_end");
    run.assert_failed("crashed", "past the end of `x`");
    assert_eq!(run.case().causes, ["out_of_bounds"], "{run}");
}

#[test]
fn a_write_before_the_start_fails() {
    assert_check_failed(&run("before_the_start"), "guards");
}

#[test]
fn a_modified_input_fails() {
    assert_check_failed(&run("input_modified"), "inputs_unchanged");
}

#[test]
fn a_result_that_differs_on_a_repeat_fails() {
    assert_check_failed(&run("never_twice_the_same"), "repeat");
}

#[test]
fn a_symbol_that_is_missing_is_named_with_its_library() {
    let run = run("symbol_missing");
    run.assert_failed("not_run", "no launcher `gemm_that_is_not_there`");
    assert!(run.case().reason.contains("libfaulty_host.so"), "{run}");
}

#[test]
fn a_launcher_that_its_library_lacks_is_told_before_anything_runs() {
    let run = never_green().accuracy(&["--arch", "host", "--features", "unbound", "--test", "unbound"]);
    assert_eq!(run.status, Some(101), "{run}");
    for part in ["nothing ran", "libfaulty_host.so", "exports no launcher `gemm_of_tomorrow`"] {
        assert!(run.stderr.contains(part), "{run}");
    }
    assert!(run.report.is_none(), "{run}");
}

#[test]
fn a_library_that_is_missing_is_named_with_where_it_was_looked_for() {
    let run = run("library_missing");
    run.assert_failed("not_run", "kernels `absent` were not found");
    assert!(run.case().reason.contains("libabsent_host.so"), "{run}");
    assert!(run.case().reason.contains("never-green/lib"), "{run}");
}

#[test]
fn a_library_for_another_architecture_is_named_with_what_was_found() {
    let run = run("library_for_another_architecture");
    run.assert_failed("not_run", "kernels `foreign` have no build for host");
    assert!(run.case().reason.contains("libforeign_gfx942.so"), "{run}");
}

#[test]
fn a_shard_that_is_missing_fails() {
    run("shard_missing").assert_failed("not_run", "shards/absent");
}

#[test]
fn a_shard_that_is_truncated_fails() {
    run("shard_truncated").assert_failed("not_run", "truncated");
}

#[test]
fn a_header_of_absurd_length_fails() {
    run("header_of_absurd_length").assert_failed("not_run", "claims a header of 9223372036854775807 bytes");
}

#[test]
fn a_tensor_that_is_missing_fails() {
    run("tensor_missing").assert_failed("not_run", "matches \"down_proj\"");
}

#[test]
fn a_weight_of_the_wrong_dtype_fails() {
    run("wrong_dtype").assert_failed("not_run", "`integers.weight` is I64");
}

#[test]
fn a_weight_of_the_wrong_shape_fails() {
    run("wrong_shape").assert_failed("not_run", "`cube.weight` has shape [4, 48, 256]");
}

#[test]
fn a_scale_that_is_missing_fails() {
    run("scale_missing").assert_failed("not_run", "has no scale; looked for up_proj.weight_scale_inv");
}

#[test]
fn a_scale_of_the_wrong_shape_fails() {
    run("scale_of_wrong_shape").assert_failed("not_run", "has shape [2, 1], expected [1, 2]");
}

#[test]
fn constant_data_is_inconclusive() {
    run("constant_data").assert_failed("inconclusive", "all elements of `w` are the same");
}

#[test]
fn a_known_failure_passes_and_is_counted_as_one() {
    let run = run("past_the_end_as_known");
    assert_eq!(run.status, Some(0), "{run}");
    assert_eq!(run.report.as_ref().unwrap()["summary"]["known_failures"], 1);
    assert!(run.stdout.contains("(known)"), "{run}");
}

#[test]
fn a_known_failure_that_succeeds_fails() {
    assert_check_failed(&run("correct_against_expectation"), "known_failure");
}

#[test]
fn a_right_kernel_of_two_shapes_passes_after_the_other_shape() {
    let run = run("correct_in_two_shapes");
    assert_eq!(run.status, Some(0), "{run}");
    let before: Vec<&serde_json::Value> = run.report.as_ref().unwrap()["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["preceded_by"][0])
        .collect();
    assert_eq!(before, ["tokens=9", "tokens=5"], "{run}");
}

#[test]
fn a_kernel_that_keeps_its_first_shape_fails_and_the_difference_is_the_finding() {
    for isolation in ["case", "batch"] {
        let run =
            never_green().accuracy(&["--arch", "host", "--isolation", isolation, "::first_shape_kept["]);
        assert_eq!(run.status, Some(100), "{run}");
        let cases = run.cases();
        let wrong: Vec<_> = cases.iter().filter(|case| case.gate == "fail").collect();
        assert_eq!(wrong.len(), 1, "{run}");
        assert!(wrong[0].id.contains("tokens=9"), "{run}");
        assert_eq!(wrong[0].failed_checks[0], "order", "{run}");
        assert!(wrong[0].reason.contains("passes alone"), "{run}");
        assert!(run.stdout.contains("kept_from_first_call"), "{run}");
    }
}

#[test]
fn a_kernel_that_multiplies_what_nobody_wrote_by_zero_fails() {
    for poison in 0..4 {
        let poison = poison.to_string();
        let run = never_green().accuracy(&["--arch", "host", "--poison", &poison, "::times_zero["]);
        assert_check_failed(&run, "repeat");
        assert_eq!(run.report.as_ref().unwrap()["cases"][0]["poison"].to_string(), poison, "{run}");
        assert!(run.stdout.contains(&format!("--poison {poison} ")), "the command repeats it: {run}");
    }
}

#[test]
fn what_memory_holds_is_drawn_for_each_run() {
    let drawn = || run("times_zero").report.as_ref().unwrap()["cases"][0]["poison"].as_u64().unwrap();
    let first = drawn();
    // Three equal draws of 65,536 are none.
    assert!((0..3).any(|_| drawn() != first));
}

#[test]
fn a_launcher_that_changes_the_rounding_mode_fails_by_name() {
    let run = run("rounds_upward");
    assert_check_failed(&run, "process_state");
    let reason = run.case().reason;
    let told = "`gemm_rounds_upward` changed the rounding mode from to nearest to upward";
    assert!(reason.contains(told), "{run}");
    assert_eq!(run.case().failed_checks, ["process_state"], "the reference rounds as ever: {run}");
}

#[test]
fn a_launcher_that_takes_a_signal_over_fails_by_name() {
    let run = run("handles_a_signal");
    assert_check_failed(&run, "process_state");
    assert!(run.case().reason.contains("the handler of SIGFPE from the default to ignoring it"), "{run}");
}

#[test]
fn a_library_whose_constructor_changes_the_rounding_mode_fails_by_name() {
    let run = run("constructed");
    assert_check_failed(&run, "process_state");
    let told = "opening the library of `gemm_of_a_constructed_library` changed the rounding mode";
    assert!(run.case().reason.contains(told), "{run}");
}

#[test]
fn what_the_test_computes_itself_is_no_result_of_a_kernel() {
    run("computed_by_the_test").assert_failed("inconclusive", "`y` holds what the test itself wrote");
    run("computed_by_the_test_after_a_launcher")
        .assert_failed("inconclusive", "`y` holds what the test itself wrote");
}

#[test]
fn an_error_of_a_launcher_that_the_test_drops_fails() {
    let run_dropped = run("status_dropped");
    assert_check_failed(&run_dropped, "status");
    assert!(run_dropped.case().reason.contains("`gemm_refuses` returned status 2"), "{run_dropped}");
    let missing = run("missing_launcher_dropped");
    assert_check_failed(&missing, "status");
    assert!(missing.case().reason.contains("gemm_that_is_not_there"), "{missing}");
}

#[test]
fn a_launcher_may_refuse_where_the_test_asks() {
    let run = run("refusal_asked_for");
    assert_eq!(run.status, Some(0), "{run}");
}
