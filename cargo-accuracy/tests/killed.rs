//! A run that is killed at any moment leaves records that can be read, says what is missing, and leaves no process and
//! no terminal in disorder.

mod crates;

use crates::{Run, never_green};

fn report_of(run: &Run) -> Run {
    never_green().report(&[never_green().folder_of(run).to_str().unwrap()])
}

/// Test and verdict of each case.
fn verdicts(run: &Run) -> Vec<(String, String)> {
    let test = |id: &str| id.split('[').next().unwrap().rsplit("::").next().unwrap().to_owned();
    run.cases().into_iter().map(|case| (test(&case.id), case.verdict)).collect()
}

fn pair(test: &str, verdict: &str) -> (String, String) {
    (test.into(), verdict.into())
}

#[test]
fn cases_that_an_interrupted_run_did_not_come_to_are_one_line() {
    let cases = ["::hangs[", "::leaves_a_child[", "::prints_garbage[", "::leaves_a_truncated_record["];
    let running = never_green().start(&[&["--arch", "host", "--jobs", "1"], &cases[..]].concat(), |_| {});
    running.wait_for_case("runner::hangs::cell");
    running.signal(libc::SIGINT);
    let run = running.finish();
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stdout.contains("NOT RUN 1 case: interrupted while running\n"), "{run}");
    assert!(run.stdout.contains("NOT RUN 3 cases: interrupted before the start\n"), "{run}");
    assert!(!run.stdout.contains("re-run:"), "{run}");
    assert!(run.stdout.contains("INCOMPLETE: the run was interrupted\n"), "{run}");
    assert_eq!(run.last_line(), "0 passed, 4 failed, 0 skipped");
    run.assert_nothing_left_running();
    assert_eq!(report_of(&run).last_line(), "0 passed, 4 failed, 0 skipped");
}

#[test]
fn a_killed_plugin_leaves_its_records_and_no_process() {
    // The case that hangs has a child of its own.
    let cases = ["::is_correct[", "::hangs_and_ignores_sigterm[", "::leaves_a_child_that_ends_by_itself["];
    let running = never_green().start(&[&["--arch", "host", "--jobs", "1"], &cases[..]].concat(), |_| {});
    running.wait_for_case("runner::hangs_and_ignores_sigterm::cell");
    running.wait_for_case("600");
    running.signal(libc::SIGKILL);
    let run = running.finish();
    assert_eq!(run.status, None, "{run}");
    run.assert_soon_nothing_left_running();
    let report = report_of(&run);
    assert_eq!(report.status, Some(100), "{report}");
    let expected = [
        pair("is_correct", "correct"),
        pair("hangs_and_ignores_sigterm", "not_run"),
        pair("leaves_a_child_that_ends_by_itself", "not_run"),
    ];
    assert_eq!(verdicts(&report), expected, "{report}");
    assert!(report.stdout.contains("NOT RUN 2 cases: announced, but never started\n"), "{report}");
}

#[test]
fn a_killed_plugin_leaves_no_unpacked_archive() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar.zst");
    let made = never_green().plugin().args(["archive", "--offline", "--out"]).arg(&archive).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let elsewhere = crates::Fixture::at(dir.path());
    let arguments = ["--archive", archive.to_str().unwrap(), "--arch", "host", "::hangs["];
    let running = elsewhere.start_archived(&arguments, |command| {
        command.env("TMPDIR", &unpacked);
    });
    running.wait_for_case("runner::hangs::cell");
    running.signal(libc::SIGKILL);
    let run = running.finish();
    run.assert_soon_nothing_left_running();
    assert_eq!(std::fs::read_dir(&unpacked).unwrap().count(), 0, "{run}");
}

#[test]
fn a_killed_case_is_a_crash_and_the_others_run() {
    let cases = ["::hangs[", "::is_correct["];
    let running = never_green().start(&[&["--arch", "host", "--jobs", "1"], &cases[..]].concat(), |_| {});
    let pid = running.wait_for_case("runner::hangs::cell");
    // SAFETY: kill takes plain integers. The process is a test's that hangs.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
    let run = running.finish();
    assert_eq!(run.status, Some(100), "{run}");
    assert_eq!(verdicts(&run), [pair("is_correct", "correct"), pair("hangs", "crashed")], "{run}");
    assert!(run.stdout.contains("killed by SIGKILL"), "{run}");
    assert_eq!(verdicts(&report_of(&run)), verdicts(&run));
}

#[test]
fn where_records_have_no_room_the_run_ends_with_its_table_and_says_so() {
    let cases = ["::is_correct[", "::takes_the_room_for_records[", "::aborts["];
    let run = never_green().accuracy(&[&["--arch", "host", "--jobs", "1"], &cases[..]].concat());
    assert_eq!(run.status, Some(101), "{run}");
    assert_eq!(run.last_line(), "1 passed, 2 failed, 0 skipped", "{run}");
    assert!(
        run.stdout.contains("CRASHED never-green::runner::takes_the_room_for_records full_chain\n"),
        "{run}"
    );
    assert!(run.stdout.contains("NOT RUN 1 case: not started, because records cannot be written\n"), "{run}");
    let problem = run.stdout.lines().find(|line| line.starts_with("INCOMPLETE: ")).expect("it is said");
    assert!(problem.contains("records cannot be written: cannot write "), "{run}");
    assert_eq!(problem.matches("(os error 27)").count(), 1, "{run}");
    // Nor has the report that was asked for.
    assert!(run.stderr.contains("cannot write the report"), "{run}");
    assert_eq!(run.stderr.matches("(os error 27)").count(), 1, "{run}");

    // The test has left a record that it passes, before it died.
    let report = report_of(&run);
    let expected = [
        pair("is_correct", "correct"),
        pair("takes_the_room_for_records", "not_run"),
        pair("aborts", "not_run"),
    ];
    assert_eq!((report.status, &verdicts(&report)[..]), (Some(100), &expected[..]), "{report}");
}

#[test]
fn ctrl_c_leaves_the_terminal_as_it_was() {
    let (running, mut terminal) =
        never_green().start_on_terminal(&["--arch", "host", "--jobs", "1", "::hangs["]);
    let modes = terminal.modes();
    running.wait_for_case("runner::hangs::cell");
    // The bar is drawn now and then.
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.press(3);
    let run = running.finish();
    assert_eq!(run.status, Some(101), "{run}");
    run.assert_nothing_left_running();
    assert_eq!(terminal.modes(), modes);
    let text = terminal.text();
    let plain: String = anstream::adapter::strip_str(&text).to_string();
    assert!(plain.ends_with("0 passed, 1 failed, 0 skipped\r\n"), "{text:?}");
    assert_eq!(
        text.matches("\u{1b}[?25l").count(),
        text.matches("\u{1b}[?25h").count(),
        "the cursor: {text:?}"
    );
    assert!(!text.contains("\u{1b}[?1049h"), "another screen: {text:?}");
    // What is coloured is plain again at the end of its line.
    for line in text.lines() {
        if let Some(at) = line.rfind("\u{1b}[") {
            assert!(["\u{1b}[0m", "\u{1b}[2K"].iter().any(|end| line[at..].starts_with(end)), "{line:?}");
        }
    }
}
