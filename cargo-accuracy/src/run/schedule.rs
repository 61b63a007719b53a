//! Which part of a run this process is, as the scheduler says that started it.
//!
//! | scheduler | part | of how many |
//! | --- | --- | --- |
//! | Slurm array | `SLURM_ARRAY_TASK_ID`, counted from `_MIN` in steps of `_STEP` | `SLURM_ARRAY_TASK_COUNT` |
//! | Kubernetes indexed job | `JOB_COMPLETION_INDEX`, from 0 | `JOB_COMPLETIONS`, which the manifest has to set |
//! | GitLab `parallel:`, and what sets the same | `CI_NODE_INDEX`, from 1 | `CI_NODE_TOTAL` |
//! | CircleCI `parallelism:` | `CIRCLE_NODE_INDEX`, from 0 | `CIRCLE_NODE_TOTAL` |
//! | Buildkite `parallelism:` | `BUILDKITE_PARALLEL_JOB`, from 0 | `BUILDKITE_PARALLEL_JOB_COUNT` |
//!
//! Sources: sbatch(1), "output environment variables"; kubernetes.io, "Indexed Job for Parallel Processing with Static
//! Work Assignment"; the predefined variables of the GitLab, CircleCI and Buildkite documentation. GitHub sets none for
//! a matrix: its workflow sets GitLab's, from `matrix` and `strategy.job-total`.

/// A part, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub part: u64,
    pub parts: u64,
    /// The job that all parts belong to, where the scheduler says which.
    pub job: Option<String>,
}

struct Scheduler {
    name: &'static str,
    part: &'static str,
    parts: &'static str,
    /// The number of the first part; Slurm says it itself.
    first: u64,
    /// Identity of the job that all parts share.
    job: Option<&'static str>,
    /// What to do where the number of parts is not set.
    remedy: &'static str,
}

const SCHEDULERS: [Scheduler; 5] = [
    Scheduler {
        name: "Slurm",
        part: "SLURM_ARRAY_TASK_ID",
        parts: "SLURM_ARRAY_TASK_COUNT",
        first: 0,
        job: Some("SLURM_ARRAY_JOB_ID"),
        remedy: "this Slurm is older than arrays that are counted",
    },
    Scheduler {
        name: "Kubernetes",
        part: "JOB_COMPLETION_INDEX",
        parts: "JOB_COMPLETIONS",
        first: 0,
        job: None,
        remedy: "Kubernetes tells a container its index only: set it in the manifest to what `completions` says",
    },
    Scheduler {
        name: "CI",
        part: "CI_NODE_INDEX",
        parts: "CI_NODE_TOTAL",
        first: 1,
        job: Some("CI_PIPELINE_ID"),
        remedy: "set both",
    },
    Scheduler {
        name: "CircleCI",
        part: "CIRCLE_NODE_INDEX",
        parts: "CIRCLE_NODE_TOTAL",
        first: 0,
        job: Some("CIRCLE_WORKFLOW_ID"),
        remedy: "set both",
    },
    Scheduler {
        name: "Buildkite",
        part: "BUILDKITE_PARALLEL_JOB",
        parts: "BUILDKITE_PARALLEL_JOB_COUNT",
        first: 0,
        job: Some("BUILDKITE_BUILD_ID"),
        remedy: "set both",
    },
];

/// What the environment says.
///
/// # Errors
/// If no scheduler numbers this process, several do, or the numbers do not fit: all cases, or the wrong ones, would
/// run without anybody noticing.
pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Scheduled, String> {
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let mut found: Vec<&Scheduler> = SCHEDULERS.iter().filter(|s| get(s.part).is_some()).collect();
    let Some(scheduler) = found.pop() else {
        let known: Vec<&str> = SCHEDULERS.iter().map(|s| s.part).collect();
        return Err(format!(
            "--partition auto: no scheduler numbers this process; looked for {}: name the part, --partition slice:K/N",
            known.join(", ")
        ));
    };
    if let Some(other) = found.pop() {
        return Err(format!(
            "--partition auto: both {} ({}) and {} ({}) number this process: name the part, --partition slice:K/N",
            other.name, other.part, scheduler.name, scheduler.part
        ));
    }
    let number = |name: &str| {
        let value =
            get(name).ok_or_else(|| format!("--partition auto: {name} is not set; {}", scheduler.remedy))?;
        value.parse::<u64>().map_err(|_| format!("--partition auto: {name}={value:?} is no whole number"))
    };
    let (id, parts) = (number(scheduler.part)?, number(scheduler.parts)?);
    let (first, step) = match scheduler.name {
        "Slurm" => (number("SLURM_ARRAY_TASK_MIN")?, number("SLURM_ARRAY_TASK_STEP")?.max(1)),
        _ => (scheduler.first, 1),
    };
    if scheduler.name == "Slurm" {
        let last = number("SLURM_ARRAY_TASK_MAX")?;
        if last.checked_sub(first).map(|span| span / step + 1) != Some(parts) {
            return Err(format!(
                "--partition auto: the Slurm array of {parts} tasks from {first} to {last} has gaps, so that its tasks \
                 cannot be counted: submit one without, such as --array=1-{parts}, or name the part, \
                 --partition slice:K/N"
            ));
        }
    }
    let part = id.checked_sub(first).map(|index| index / step + 1).filter(|part| *part <= parts);
    let Some(part) = part else {
        return Err(format!(
            "--partition auto: {}={id} is none of the {parts} parts of {}, counted from {first}",
            scheduler.part, scheduler.parts
        ));
    };
    let job = scheduler.job.and_then(get).map(|id| format!("{} {id}", scheduler.name));
    Ok(Scheduled { part, parts, job })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduled(variables: &[(&str, &str)]) -> Result<(u64, u64, Option<String>), String> {
        from_environment(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
            .map(|s| (s.part, s.parts, s.job))
    }

    fn slurm<'a>(
        id: &'a str,
        min: &'a str,
        max: &'a str,
        step: &'a str,
        count: &'a str,
    ) -> [(&'a str, &'a str); 6] {
        [
            ("SLURM_ARRAY_JOB_ID", "77"),
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
        ]
    }

    #[test]
    fn every_scheduler_is_understood() {
        let job = |name: &str| Some(name.to_owned());
        assert_eq!(scheduled(&slurm("3", "1", "4", "1", "4")), Ok((3, 4, job("Slurm 77"))));
        assert_eq!(scheduled(&slurm("0", "0", "3", "1", "4")), Ok((1, 4, job("Slurm 77"))));
        assert_eq!(scheduled(&slurm("8", "0", "12", "4", "4")), Ok((3, 4, job("Slurm 77"))));
        assert_eq!(scheduled(&[("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "4")]), Ok((1, 4, None)));
        let gitlab = [("CI_NODE_INDEX", "4"), ("CI_NODE_TOTAL", "4"), ("CI_PIPELINE_ID", "9")];
        assert_eq!(scheduled(&gitlab), Ok((4, 4, job("CI 9"))));
        assert_eq!(scheduled(&[("CIRCLE_NODE_INDEX", "3"), ("CIRCLE_NODE_TOTAL", "4")]), Ok((4, 4, None)));
        let buildkite = [("BUILDKITE_PARALLEL_JOB", "1"), ("BUILDKITE_PARALLEL_JOB_COUNT", "2")];
        assert_eq!(scheduled(&buildkite), Ok((2, 2, None)));
    }

    #[test]
    fn what_does_not_number_this_process_is_an_error_that_says_so() {
        for (variables, what) in [
            (&[][..], "no scheduler numbers this process"),
            (&[("JOB_COMPLETION_INDEX", "2")][..], "JOB_COMPLETIONS is not set"),
            (&[("CI_NODE_INDEX", "0"), ("CI_NODE_TOTAL", "4")][..], "CI_NODE_INDEX=0 is none of the 4 parts"),
            (&[("CI_NODE_INDEX", "5"), ("CI_NODE_TOTAL", "4")][..], "CI_NODE_INDEX=5 is none of the 4 parts"),
            (&[("CI_NODE_INDEX", "x"), ("CI_NODE_TOTAL", "4")][..], "\"x\" is no whole number"),
            (
                &[("CI_NODE_INDEX", "1"), ("CIRCLE_NODE_INDEX", "0")][..],
                "both CI (CI_NODE_INDEX) and CircleCI",
            ),
            (&slurm("7", "0", "7", "1", "3")[..], "has gaps"),
        ] {
            let error = scheduled(variables).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
