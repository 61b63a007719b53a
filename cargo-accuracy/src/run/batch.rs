//! Several cases in one process, where starting a process costs more than a case does: a device's context is made in
//! tenths of a second, one process after the other.
//!
//! Whatever does not pass in a batch, for a fault of its own or of a case before it, runs again in a process of its own. If
//! it passes there, [`super::order`] says which of the two counts.

use super::folder::RunFolder;
use super::outcome::contradiction;
use super::plan::Case;
use super::pool::{End, Finished};
use accuracy_core::record::{self, Gate, Planned, Record, Verdict};

/// Most cases of a batch.
const MOST: usize = 32;
/// What libtest exits with when a test has failed.
const TESTS_FAILED: i32 = 101;

/// Groups cases that one process can run, so many that every slot gets two groups. `cases` are indices into `all`.
pub fn groups(cases: &[usize], all: &[Case], slots: usize) -> Vec<Vec<usize>> {
    let together =
        |a: usize, b: usize| all[a].binary == all[b].binary && all[a].planned.arch == all[b].planned.arch;
    let size = cases.len().div_ceil(2 * slots.max(1)).clamp(1, MOST);
    cases
        .chunk_by(|&a, &b| together(a, b))
        .flat_map(|same| same.chunks(size))
        .map(<[usize]>::to_vec)
        .collect()
}

/// What a batch says of one of its cases.
#[derive(Debug)]
pub enum Outcome {
    /// It has passed beyond doubt.
    Passed(Box<Record>),
    /// It failed, in a process that ended as one with failing cases does.
    Failed(Box<Record>),
    /// Nothing that could be relied on.
    Unknown,
}

/// What a batch says of each of its cases.
pub fn outcomes(cases: &[&Planned], folder: &RunFolder, attempt: u32, finished: &Finished) -> Vec<Outcome> {
    let read = |planned: &&Planned| {
        let record = record::read_record(&record::record_path(&folder.path, &planned.id, attempt)).ok()?;
        (record.id == planned.id).then_some(record)
    };
    let records: Vec<Option<Record>> = cases.iter().map(read).collect();
    let all_passed = records.iter().all(|r| r.as_ref().is_some_and(|r| r.gate == Gate::Pass));
    // A process that ends badly without a case that says so may have ended badly in any of them.
    let ended_well = match &finished.end {
        End::Exited(status) => status.success() || status.code() == Some(TESTS_FAILED) && !all_passed,
        _ => false,
    };
    let trusted = ended_well && finished.left.is_empty();
    // What is wrong beside a case that broke the device may be wrong for that.
    let broken = records.iter().flatten().any(|r| matches!(r.verdict, Verdict::Crashed | Verdict::TimedOut));
    let outcome = |(record, planned): (Option<Record>, &&Planned)| match record {
        // Whether a device can run a case is for a process of its own to say.
        Some(record) if !trusted || record.verdict == Verdict::Skipped => Outcome::Unknown,
        Some(record) if record.gate == Gate::Pass && contradiction(planned, &record).is_none() => {
            Outcome::Passed(Box::new(record))
        }
        Some(record) if !broken && record.gate == Gate::Fail => Outcome::Failed(Box::new(record)),
        _ => Outcome::Unknown,
    };
    records.into_iter().zip(cases).map(outcome).collect()
}

/// How many cases of a batch are done: it may take its time as long as this grows.
pub fn done(paths: &[std::path::PathBuf]) -> usize {
    paths.iter().filter(|path| path.exists()).count()
}

/// Removes what a batch has left of a case that runs again.
///
/// # Errors
/// If its record stays: it would be taken for that of the second run.
pub fn forget(planned: &Planned, folder: &RunFolder, attempt: u32) -> std::io::Result<()> {
    let started = record::started_path(&folder.path, &planned.id, attempt);
    for path in [
        record::record_path(&folder.path, &planned.id, attempt),
        started.with_extension("fault"),
        record::before_path(&folder.path, &planned.id, attempt),
        folder.output_path(&planned.id),
        started,
    ] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
