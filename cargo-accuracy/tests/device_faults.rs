//! Kernels that go wrong as kernels do on a device: each is caught, reported as itself, and nothing else is harmed.
//!
//! Here they run on the host; on a GPU the same crate runs from an archive.

mod crates;

use crates::{Case, Fixture, Run, shards};
use std::sync::LazyLock;

fn device_faults() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
        Fixture::copy("device-faults", "device-faults", |dir| shards::write_all(&dir.join("shards")))
    });
    &FIXTURE
}

fn run() -> &'static Run {
    static RUN: LazyLock<Run> =
        LazyLock::new(|| device_faults().accuracy(&["--arch", "host", "--timeout", "20"]));
    &RUN
}

fn case(test: &str) -> Case {
    let run = run();
    let found = run.cases().into_iter().find(|case| case.id.contains(&format!("::{test}[")));
    found.unwrap_or_else(|| panic!("no case of {test}: {run}"))
}

#[track_caller]
fn assert_check_failed(test: &str, check: &str) {
    let case = case(test);
    assert_eq!(case.gate, "fail", "{case:?}");
    assert!(case.failed_checks.iter().any(|c| c == check), "{case:?}");
}

#[test]
fn unwritten_output_is_reported_as_unwritten() {
    assert_check_failed("nothing_written", "unwritten");
    assert_check_failed("last_column_unwritten", "unwritten");
}

#[test]
fn a_grid_that_is_kept_from_another_shape_fails() {
    let case = case("first_grid_kept");
    assert_eq!((case.gate.as_str(), &*case.failed_checks[0]), ("fail", "order"), "{case:?}");
}

#[test]
fn zero_times_what_was_in_memory_fails() {
    let case = case("times_zero");
    assert_eq!(case.gate, "fail", "{case:?}");
    assert_eq!(case.failed_checks, ["repeat"], "{case:?}");
    assert!(case.reason.contains("reads what nobody has written"), "{case:?}");
}

#[test]
fn a_write_one_element_past_either_end_damages_a_guard() {
    assert_check_failed("past_the_end", "guards");
    assert_check_failed("before_the_start", "guards");
}

#[test]
fn a_modified_input_is_reported_as_such() {
    assert_check_failed("input_modified", "inputs_unchanged");
    let case = case("input_modified");
    assert!(case.reason.contains("`gemm_modifies_its_input` wrote to this input"), "{case:?}");
}

#[test]
fn a_consumer_that_damages_its_operand_is_charged_itself() {
    let case = case("operand_damaged");
    assert_eq!((case.gate.as_str(), case.verdict.as_str()), ("fail", "correct"), "{case:?}");
    assert_eq!(case.failed_checks, ["inputs_unchanged"], "{case:?}");
    assert!(case.reason.contains("of h: `gemm_modifies_its_input` wrote to this intermediate"), "{case:?}");
}

#[test]
fn a_launch_that_the_runtime_refuses_is_reported_with_its_launcher() {
    let case = case("block_too_large");
    assert_eq!(case.verdict, "not_run", "{case:?}");
    assert!(case.reason.contains("`gemm_in_a_block_too_large` returned status 3"), "{case:?}");
}

#[test]
fn a_launcher_that_falls_back_inside_itself_is_found_out() {
    assert_check_failed("falls_back", "kernel");
    let case = case("falls_back");
    assert!(case.reason.contains("launched (anonymous namespace)::gemm_kernel, and is expected"), "{case:?}");
}

#[test]
fn a_fallback_that_launches_the_kernel_of_the_primary_was_not_compared() {
    let cases = run().cases();
    let compared =
        cases.iter().find(|c| c.id.contains("::same_kernel[") && c.id.contains("fallback_vs_primary"));
    let case = compared.unwrap_or_else(|| panic!("{}", run()));
    assert_eq!((case.gate.as_str(), case.verdict.as_str()), ("fail", "inconclusive"), "{case:?}");
    assert!(
        case.reason.contains("launched the same kernel ((anonymous namespace)::gemm_kernel)"),
        "{case:?}"
    );
}

#[test]
fn a_store_to_an_illegal_address_crashes_its_own_process() {
    let case = case("illegal_address");
    assert_eq!(case.verdict, "crashed", "{case:?}");
    assert!(case.reason.contains("SIGSEGV"), "{case:?}");
}

#[test]
fn a_kernel_that_never_ends_is_killed() {
    let case = case("never_ends");
    assert_eq!(case.verdict, "timed_out", "{case:?}");
    run().assert_nothing_left_running();
}

#[test]
fn atomic_sums_are_the_same_each_time_on_the_host_which_adds_in_order() {
    assert_eq!(case("atomic_sums").gate, "pass");
}

#[test]
fn what_is_correct_stays_correct_beside_all_that() {
    for test in ["correct", "correct_after_all_that"] {
        let case = case(test);
        assert_eq!((case.gate.as_str(), case.verdict.as_str()), ("pass", "correct"), "{case:?}");
    }
    assert_eq!(run().status, Some(100), "{}", run());
}
