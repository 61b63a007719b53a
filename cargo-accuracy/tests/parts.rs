//! Runs in parts: every case in one of them, and a report that is whole only with each of them, once.

mod crates;

use crates::{Run, never_green};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Cases that pass.
const CASES: &[&str] = &[
    "--arch",
    "host",
    "::is_correct[",
    "::leaves_a_child_that_ends_by_itself[",
    "::correct[",
    "_by_its_attribute[",
];

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    never_green().accuracy_with(&[CASES, arguments].concat(), |command| {
        let schedulers = ["CI_NODE_", "SLURM_ARRAY_", "JOB_COMPLETION", "CIRCLE_", "BUILDKITE_"];
        for (name, _) in std::env::vars().filter(|(name, _)| schedulers.iter().any(|s| name.starts_with(s))) {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
    })
}

fn part(partition: &str, more: &[&str]) -> PathBuf {
    let run = run(&[&["--partition", partition], more].concat(), &[]);
    assert_eq!(run.status, Some(0), "{run}");
    never_green().folder_of(&run)
}

fn report(folders: &[&PathBuf]) -> Run {
    never_green().report(&folders.iter().map(|f| f.to_str().unwrap()).collect::<Vec<_>>())
}

#[test]
fn the_parts_of_a_run_are_one_report_and_a_missing_or_doubled_one_is_told() {
    let parts: Vec<PathBuf> = (1..=3).map(|k| part(&format!("slice:{k}/3"), &[])).collect();
    let whole = report(&[&parts[0], &parts[1], &parts[2]]);
    assert_eq!(whole.status, Some(0), "{whole}");
    let ids: BTreeSet<String> = whole.cases().into_iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), 4, "{whole}");
    assert_eq!(whole.report.as_ref().unwrap()["problems"], serde_json::json!([]));

    let missing = report(&[&parts[0], &parts[2]]);
    assert_eq!(missing.status, Some(101), "{missing}");
    assert!(missing.stdout.contains("INCOMPLETE: part 2 of 3 is missing, of a run of 4 cases"), "{missing}");
    assert_eq!(missing.report.unwrap()["problems"].as_array().unwrap().len(), 1);

    let again = part("slice:2/3", &[]);
    let doubled = report(&[&parts[0], &parts[1], &again, &parts[2]]);
    assert_eq!(doubled.status, Some(101), "{doubled}");
    assert!(doubled.stdout.contains("part 2 of 3 is there 2 times"), "{doubled}");
    let replaced = report(&[&parts[0], &again, &parts[2]]);
    assert_eq!(replaced.status, Some(0), "{replaced}");

    let other = part("slice:2/3", &["--seed", "7"]);
    let mixed = report(&[&parts[0], &other, &parts[2]]);
    assert_eq!(mixed.status, Some(101), "{mixed}");
    assert!(mixed.stdout.contains("parts of 2 different runs"), "{mixed}");
}

#[test]
fn more_parts_than_cases_are_whole_too() {
    let runs: Vec<Run> = (1..=5).map(|k| run(&["--partition", &format!("slice:{k}/5")], &[])).collect();
    assert_eq!(runs[4].status, Some(4), "{}", runs[4]);
    let folders: Vec<PathBuf> = runs.iter().map(|run| never_green().folder_of(run)).collect();
    let whole = report(&folders.iter().collect::<Vec<_>>());
    assert_eq!(whole.status, Some(0), "{whole}");
}

#[test]
fn auto_takes_what_the_scheduler_says_and_guesses_nothing() {
    let slurm = |id| {
        let array = [
            ("SLURM_ARRAY_JOB_ID", "12"),
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", "0"),
            ("SLURM_ARRAY_TASK_MAX", "1"),
            ("SLURM_ARRAY_TASK_STEP", "1"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
        ];
        run(&["--partition", "auto"], &array)
    };
    let (first, second) = (slurm("0"), slurm("1"));
    assert!(first.stderr.contains("part 1 of 2 (Slurm 12): 2 of 4 cases"), "{first}");
    let folders = [never_green().folder_of(&first), never_green().folder_of(&second)];
    assert_eq!(report(&[&folders[0], &folders[1]]).status, Some(0));
    // The same parts of another job: what is left of an earlier one is not taken for the part.
    let other = run(
        &["--partition", "auto"],
        &[("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "2"), ("CI_PIPELINE_ID", "9")],
    );
    let mixed = report(&[&folders[0], &never_green().folder_of(&other)]);
    assert_eq!(mixed.status, Some(101), "{mixed}");
    assert!(mixed.stdout.contains("different jobs (CI 9, Slurm 12)"), "{mixed}");

    let nothing = run(&["--partition", "auto"], &[]);
    assert_eq!(nothing.status, Some(2), "{nothing}");
    assert!(nothing.stderr.contains("no scheduler numbers this process"), "{nothing}");
}

/// What a scheduler sets for the part `k` of two, counted from 0, and how the run calls it.
type Scheduler = (fn(usize) -> Vec<(&'static str, String)>, &'static str);

const SCHEDULERS: [Scheduler; 4] = [
    // The pod of an indexed job whose manifest sets JOB_COMPLETIONS.
    (|k| vec![("JOB_COMPLETION_INDEX", k.to_string()), ("JOB_COMPLETIONS", "2".into())], ""),
    // GitLab's `parallel: 2`; a GitHub matrix, whose workflow sets the first two.
    (
        |k| {
            let id = ("CI_PIPELINE_ID", "31".into());
            vec![("CI_NODE_INDEX", (k + 1).to_string()), ("CI_NODE_TOTAL", "2".into()), id]
        },
        " (CI 31)",
    ),
    (
        |k| {
            let id = ("CIRCLE_WORKFLOW_ID", "d4".into());
            vec![("CIRCLE_NODE_INDEX", k.to_string()), ("CIRCLE_NODE_TOTAL", "2".into()), id]
        },
        " (CircleCI d4)",
    ),
    (
        |k| {
            let id = ("BUILDKITE_BUILD_ID", "e5".into());
            vec![("BUILDKITE_PARALLEL_JOB", k.to_string()), ("BUILDKITE_PARALLEL_JOB_COUNT", "2".into()), id]
        },
        " (Buildkite e5)",
    ),
];

#[test]
fn pods_and_jobs_of_a_matrix_are_parts_of_one_report() {
    let all: BTreeSet<String> = run(&[], &[]).cases().into_iter().map(|c| c.id).collect();
    for (environment, job) in SCHEDULERS {
        let parts: Vec<Run> = (0..2)
            .map(|k| {
                let environment = environment(k);
                let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
                let part = run(&["--partition", "auto"], &environment);
                assert_eq!(part.status, Some(0), "{part}");
                let told = format!("part {} of 2{job}: 2 of 4 cases", k + 1);
                assert!(part.stderr.contains(&told), "{told}: {part}");
                part
            })
            .collect();
        let folders: Vec<PathBuf> = parts.iter().map(|part| never_green().folder_of(part)).collect();
        // In whichever order they have ended.
        let whole = report(&[&folders[1], &folders[0]]);
        assert_eq!(whole.status, Some(0), "{whole}");
        let ids: BTreeSet<String> = whole.cases().into_iter().map(|c| c.id).collect();
        assert_eq!(ids, all, "{job}");
        // A pod that was evicted, a job that was never scheduled.
        for (left, lost) in [(0, 2), (1, 1)] {
            let missing = report(&[&folders[left]]);
            assert_eq!(missing.status, Some(101), "{missing}");
            let told = format!("INCOMPLETE: part {lost} of 2 is missing, of a run of 4 cases");
            assert!(missing.stdout.contains(&told), "{missing}");
        }
    }
    // A pod is told its index alone.
    let alone = run(&["--partition", "auto"], &[("JOB_COMPLETION_INDEX", "0")]);
    assert_eq!(alone.status, Some(2), "{alone}");
    assert!(
        alone.stderr.contains("JOB_COMPLETIONS is not set; Kubernetes tells a container its index only"),
        "{alone}"
    );
}

#[test]
fn slices_are_balanced_by_an_earlier_run() {
    let dir = tempfile::tempdir().unwrap();
    let all = run(&[], &[]);
    let mut earlier = all.report.clone().unwrap();
    // One case takes as long as all others.
    let cases = earlier["cases"].as_array_mut().unwrap();
    for (i, case) in cases.iter_mut().enumerate() {
        case["seconds"] = serde_json::json!(if i == 0 { 90.0 } else { 30.0 });
    }
    let slow = cases[0]["id"].as_str().unwrap().to_owned();
    let path = dir.path().join("earlier.json");
    std::fs::write(&path, earlier.to_string()).unwrap();
    let list = |partition: &str| {
        let run = run(&["--partition", partition, "--durations", path.to_str().unwrap(), "--list"], &[]);
        run.stdout.lines().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(list("slice:1/2"), [slow]);
    assert_eq!(list("slice:2/2").len(), 3);
    let folder = never_green().folder_of(&all);
    let refused = run(&["--partition", "hash:1/2", "--durations", folder.to_str().unwrap()], &[]);
    assert_eq!(refused.status, Some(2), "{refused}");
}
