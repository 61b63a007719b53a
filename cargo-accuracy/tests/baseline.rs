//! Baselines, by the real binary on a real kernel.

mod crates;

use crates::{Run, never_green};
use std::path::{Path, PathBuf};

const CASES: &[&str] = &["--arch", "host", "::kernels::correct[", "::kernels::correct_by_its_attribute["];

fn run(arguments: &[&str]) -> Run {
    never_green().accuracy(&[CASES, arguments].concat())
}

/// A baseline of both cases.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accuracy.baseline");
    let run = run(&["--save-baseline", path.to_str().unwrap()]);
    assert_eq!(run.status, Some(0), "{run}");
    (dir, path)
}

fn compared(path: &Path, arguments: &[&str]) -> Run {
    run(&[&["--baseline", path.to_str().unwrap()], arguments].concat())
}

fn change(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// The report with a baseline in it is as its published schema says.
#[track_caller]
fn assert_valid(run: &Run) {
    let schema = never_green().plugin().args(["accuracy", "report", "--schema"]).output().unwrap().stdout;
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let report = run.report.as_ref().unwrap();
    assert!(report["baseline"].is_object(), "{run}");
    let errors: Vec<String> =
        validator.iter_errors(report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn the_file_has_a_line_a_case_and_saving_again_changes_nothing() {
    let (_dir, path) = saved();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("cos>")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(text.contains("\n[host]\nnever-green::kernels::correct["), "{text}");
    assert!(lines[0].contains("] cos>0.999 ") && lines[1].contains("] cos>0.99 "), "{text}");
    assert!(lines.iter().all(|line| line.contains(" y=1.") && line.contains(" chain=")), "{text}");
    let again = run(&["--save-baseline", path.to_str().unwrap()]);
    assert_eq!(again.status, Some(0), "{again}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn nothing_changed_is_said() {
    let (_dir, path) = saved();
    let run = compared(&path, &[]);
    assert_eq!(run.status, Some(0), "{run}");
    assert!(run.stdout.contains(": 2 compared, nothing changed\n"), "{run}");
    assert_eq!(run.report.as_ref().unwrap()["baseline"]["compared"], 2);
    // The records say the same later.
    let folder = never_green().folder_of(&run);
    let report = never_green().report(&[folder.to_str().unwrap(), "--baseline", path.to_str().unwrap()]);
    assert_eq!(report.status, Some(0), "{report}");
    assert_eq!(report.report.unwrap()["baseline"], run.report.unwrap()["baseline"]);
}

#[test]
fn an_error_that_has_grown_is_a_warning() {
    let (dir, path) = saved();
    change(&path, " y=1.", " y=0.1");
    let markdown = dir.path().join("comment.md");
    let run = compared(&path, &["--report", &format!("markdown={}", markdown.display())]);
    assert_eq!(run.status, Some(0), "{run}");
    assert!(run.stdout.contains("REGRESSED never-green::kernels::correct["), "{run}");
    assert!(run.stdout.contains("1 regressed"), "{run}");
    assert_valid(&run);
    assert_eq!(run.report.unwrap()["baseline"]["regressions"][0]["error"], "y");
    let text = std::fs::read_to_string(markdown).unwrap();
    assert!(text.contains("- **regressed** `never-green::kernels::correct["), "{text}");
}

#[test]
fn a_threshold_that_changed_needs_a_reason_which_the_file_keeps() {
    let (dir, path) = saved();
    let looser = ["--min-cos", "0.9985"];
    let silent = compared(&path, &looser);
    assert_eq!(silent.status, Some(100), "{silent}");
    assert!(silent.stdout.contains("least cosine: 0.999 -> 0.9985, without a reason"), "{silent}");
    assert_eq!(
        silent.last_line(),
        "FAILED the gate: 2 changes without a reason (2 passed, 0 failed, 0 skipped)"
    );
    assert_valid(&silent);
    assert_eq!(silent.report.unwrap()["baseline"]["changes"][0]["reason"], serde_json::Value::Null);

    let before = std::fs::read_to_string(&path).unwrap();
    let save = [&looser[..], &["--save-baseline", path.to_str().unwrap()]].concat();
    let refused = run(&save);
    assert_eq!(refused.status, Some(101), "{refused}");
    assert!(refused.stderr.contains("say why with --reason"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);

    let proposed = dir.path().join("proposed");
    std::fs::copy(&path, &proposed).unwrap();
    let told =
        run(&[&looser[..], &["--save-baseline", proposed.to_str().unwrap(), "--reason", "bf16 sums"]]
            .concat());
    assert_eq!(told.status, Some(0), "{told}");
    assert!(std::fs::read_to_string(&proposed).unwrap().contains(" because \"bf16 sums\"\n"));
    assert_eq!(compared(&proposed, &looser).status, Some(0));
    // Against the file of the branch that the change goes to, its own file gives the reason.
    let reviewed =
        compared(&path, &[&looser[..], &["--proposed-baseline", proposed.to_str().unwrap()]].concat());
    assert_eq!(reviewed.status, Some(0), "{reviewed}");
    assert!(reviewed.stdout.contains("0.999 -> 0.9985, because: bf16 sums"), "{reviewed}");
}

#[test]
fn a_case_that_vanished_fails_and_a_new_one_is_listed() {
    let (_dir, path) = saved();
    change(&path, "never-green::kernels::correct[", "never-green::kernels::correct_no_more[");
    let run = compared(&path, &[]);
    assert_eq!(run.status, Some(100), "{run}");
    assert!(run.stdout.contains("VANISHED never-green::kernels::correct_no_more["), "{run}");
    assert!(run.stdout.contains("there is no test never-green::kernels::correct_no_more any more"), "{run}");
    assert!(run.stdout.contains("\nnew never-green::kernels::correct["), "{run}");
    assert_valid(&run);
    assert_eq!(run.report.unwrap()["summary"]["passed"], 2);
}

#[test]
fn cases_that_were_not_selected_have_not_vanished() {
    let (_dir, path) = saved();
    let run = never_green().accuracy(&[
        "--arch",
        "host",
        "::kernels::correct[",
        "--baseline",
        path.to_str().unwrap(),
    ]);
    assert_eq!(run.status, Some(0), "{run}");
    assert!(run.stdout.contains(": 1 compared, 1 not in this report\n"), "{run}");
}

#[test]
fn a_baseline_that_is_missing_or_damaged_is_never_green() {
    let (dir, path) = saved();
    let missing = compared(&dir.path().join("absent"), &[]);
    assert_eq!(missing.status, Some(101), "{missing}");
    assert!(missing.stdout.contains("INCOMPLETE: the baseline "), "{missing}");
    assert!(missing.stdout.contains("nothing was compared"), "{missing}");
    change(&path, "cos>0.999", "0.999");
    let damaged = compared(&path, &[]);
    assert_eq!(damaged.status, Some(101), "{damaged}");
    assert!(damaged.stderr.contains("is no baseline of cargo accuracy: line 6"), "{damaged}");
    assert!(damaged.report.is_none(), "nothing ran: {damaged}");
}
