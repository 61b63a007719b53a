//! Reads the records of any number of folders and says what became of each case that was announced.

use super::emulation::Kinds;
use super::parts;
use crate::run::folder::{RUN_INFO, RunInfo};
use crate::run::{may_pass, unfinished};
use accuracy_core::packed::Texts;
use accuracy_core::record::{self, Gate, Planned, Record, RecordError, Verdict};
use anyhow::{Context as _, bail};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Everything that the folders say, a record a case.
#[derive(Debug, Default)]
pub struct Merged {
    /// In the order of the manifests; what no manifest announces comes last.
    pub records: Vec<Record>,
    pub runs: Vec<RunInfo>,
    /// What is missing, or there too often, of a run in parts; what must not stand in one report.
    pub problems: Vec<String>,
}

/// Merges folders. Within a folder the latest attempt at a case counts, and where two folders have the same case the
/// later one on the command line does, whatever it says.
pub fn read(dirs: &[PathBuf]) -> anyhow::Result<Merged> {
    let mut merged = Merged::default();
    let known = Mutex::default();
    let mut kinds = Kinds::default();
    let mut at: HashMap<String, usize> = HashMap::new();
    let mut parts = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for dir in dirs {
        let folder = Folder::read(dir)?;
        if let Some(part) = folder.run.as_ref().and_then(|run| run.part.clone()) {
            let ids = folder.planned.iter().map(|planned| planned.id.clone());
            places.extend(ids.zip(part.places.iter().copied()));
            parts.push((dir.as_path(), part));
        }
        merged.runs.extend(folder.run.clone());
        let emulated = folder.run.as_ref().map(|run| run.emulated.clone()).unwrap_or_default();
        let records = folder.records(&known)?;
        kinds.add(dir, &emulated, &records);
        if let [_] = dirs {
            merged.records = records;
            break;
        }
        for record in records {
            match at.get(&record.id) {
                Some(&i) => merged.records[i] = record,
                None => {
                    at.insert(record.id.clone(), merged.records.len());
                    merged.records.push(record);
                }
            }
        }
    }
    merged.problems = parts::problems(&parts);
    merged.problems.extend(kinds.problems());
    // Parts are put together as they were divided, so that a test's cases stand in their order.
    merged.records.sort_by_cached_key(|r| places.get(&r.id).copied().unwrap_or(usize::MAX));
    Ok(merged)
}

/// Whether a folder is one in which a run has announced cases.
pub fn has_manifest(dir: &Path) -> bool {
    file_names(dir).is_ok_and(|names| names.iter().any(|name| is_manifest(name)))
}

fn is_manifest(name: &str) -> bool {
    name.starts_with("manifest") && name.ends_with(".json")
}

fn file_names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("cannot read the folder {}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(context)? {
        names.extend(entry.with_context(context)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

#[derive(Debug, Default)]
struct Folder {
    path: PathBuf,
    planned: Vec<Planned>,
    /// Number of the latest attempt that left a record, by the stem of its file name.
    attempts: BTreeMap<Stem, u32>,
    /// Stems and attempts of cases that began.
    started: HashMap<Stem, u32>,
    run: Option<RunInfo>,
}

/// The hash that a file is named by, in its digits.
type Stem = [u8; 16];

fn stem_of(id: &str) -> Stem {
    record::file_stem(id).as_bytes().try_into().expect("a stem has sixteen digits")
}

impl Folder {
    fn read(dir: &Path) -> anyhow::Result<Folder> {
        let mut folder = Folder { path: dir.into(), ..Folder::default() };
        let mut announced = BTreeSet::new();
        for name in file_names(dir)? {
            let path = dir.join(&name);
            if is_manifest(&name) {
                for planned in record::read_manifest(&path)?.cases {
                    // Several processes of one run may announce the same cases.
                    if announced.insert(planned.id.clone()) {
                        folder.planned.push(planned);
                    }
                }
            } else if name == RUN_INFO {
                let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let run = serde_json::from_slice(&text);
                folder.run = Some(run.with_context(|| format!("{} is damaged", path.display()))?);
            } else if let Some((stem, attempt, kind)) = attempt(&name) {
                match kind {
                    Kind::Record => {
                        let latest = folder.attempts.entry(stem).or_insert(attempt);
                        *latest = attempt.max(*latest);
                    }
                    Kind::Started => {
                        let latest = folder.started.entry(stem).or_insert(attempt);
                        *latest = attempt.max(*latest);
                    }
                }
            }
        }
        Ok(folder)
    }

    /// One record for every case that was announced or has left one; what they have in common is there once.
    fn records(mut self, known: &Mutex<Texts>) -> anyhow::Result<Vec<Record>> {
        let announced: Vec<_> = self
            .planned
            .into_iter()
            .map(|planned| {
                let stem = stem_of(&planned.id);
                let left = self.attempts.remove(&stem);
                (planned, left, self.started.get(&stem).copied())
            })
            .collect();
        let read = |path: &Path| {
            let mut record = record::read_record(path)?;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            record.checks.share(&mut known);
            record.power.share(&mut known);
            Ok(record)
        };
        let of = |(planned, left, started): (Planned, Option<u32>, Option<u32>)| match (left, started) {
            (Some(attempt), Some(started)) if started > attempt => cut_off(&planned),
            (Some(attempt), _) => {
                let path = record::record_path(&self.path, &planned.id, attempt);
                what_it_left(&planned, read(&path))
            }
            (None, Some(_)) => cut_off(&planned),
            (None, None) => planned.without_result(Verdict::NotRun, unfinished::NEVER_STARTED),
        };
        let mut records: Vec<Record> = announced.into_par_iter().map(of).collect();
        for (stem, attempt) in self.attempts {
            // What it was to be a record of is not known, so nothing can stand in for it.
            let path = self.path.join(format!("{}.{attempt}.json", String::from_utf8_lossy(&stem)));
            let left = read(&path).context("a record that no manifest announces cannot be used")?;
            if stem_of(&left.id) != stem {
                bail!("{} is named after another case than its own, {}", path.display(), left.id);
            }
            records.push(left);
        }
        Ok(records)
    }
}

fn what_it_left(planned: &Planned, read: Result<Record, RecordError>) -> Record {
    match read {
        Ok(record) if record.id == planned.id => consistent(planned, record),
        Ok(record) => {
            planned.without_result(Verdict::Crashed, format!("its record is of another case: {}", record.id))
        }
        Err(error) => planned.without_result(Verdict::Crashed, error.to_string()),
    }
}

fn cut_off(planned: &Planned) -> Record {
    planned.without_result(Verdict::Crashed, "it started but left no record: its process died or was killed")
}

fn consistent(planned: &Planned, record: Record) -> Record {
    if record.gate == Gate::Pass && !may_pass(&record) {
        return planned.without_result(
            Verdict::Crashed,
            format!(
                "its record contradicts itself: the gate is said to pass with verdict {}",
                record.verdict
            ),
        );
    }
    record
}

enum Kind {
    Record,
    Started,
}

/// `<16 hexadecimal digits>.<attempt>.json` or `.started`.
fn attempt(name: &str) -> Option<(Stem, u32, Kind)> {
    let (stem, rest) = name.split_once('.')?;
    let (attempt, extension) = rest.split_once('.')?;
    let kind = match extension {
        "json" => Kind::Record,
        "started" => Kind::Started,
        _ => return None,
    };
    let stem: Stem = stem.as_bytes().try_into().ok()?;
    stem.iter().all(u8::is_ascii_hexdigit).then_some((stem, attempt.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::{planned, record};
    use crate::run::folder::Part;
    use accuracy_core::record::{Manifest, SCHEMA, record_path, started_path, write_json};

    fn announce(dir: &Path, ids: &[&str]) {
        let cases = ids.iter().map(|id| planned(id)).collect();
        write_json(&dir.join("manifest.json"), &Manifest { schema: SCHEMA, cases }).unwrap();
    }

    fn leave(dir: &Path, attempt: u32, record: &Record) {
        write_json(&record_path(dir, &record.id, attempt), record).unwrap();
    }

    fn verdicts(dirs: &[&Path]) -> Vec<(String, Verdict)> {
        let dirs: Vec<PathBuf> = dirs.iter().map(|d| d.to_path_buf()).collect();
        read(&dirs).unwrap().records.into_iter().map(|r| (r.id, r.verdict)).collect()
    }

    #[test]
    fn every_announced_case_is_accounted_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        announce(dir, &["k::t[a]", "k::t[b]", "k::t[c]", "k::t[d]"]);
        leave(dir, 0, &record("k::t[a]", 1.0));
        std::fs::write(started_path(dir, "k::t[b]", 0), "").unwrap();
        std::fs::write(record_path(dir, "k::t[d]", 0), "{\"schema\": 1, \"id\": \"k::t[").unwrap();
        assert_eq!(
            verdicts(&[dir]),
            [
                ("k::t[a]".into(), Verdict::Correct),
                ("k::t[b]".into(), Verdict::Crashed),
                ("k::t[c]".into(), Verdict::NotRun),
                ("k::t[d]".into(), Verdict::Crashed),
            ]
        );
    }

    #[test]
    fn the_latest_attempt_counts_even_when_it_left_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        announce(dir, &["k::t[a]", "k::t[b]"]);
        let mut bad = record("k::t[a]", 0.5);
        bad.verdict = Verdict::Catastrophic;
        bad.gate = Gate::Fail;
        leave(dir, 0, &bad);
        leave(dir, 1, &record("k::t[a]", 1.0));
        leave(dir, 0, &record("k::t[b]", 1.0));
        std::fs::write(started_path(dir, "k::t[b]", 1), "").unwrap();
        assert_eq!(
            verdicts(&[dir]),
            [("k::t[a]".into(), Verdict::Correct), ("k::t[b]".into(), Verdict::Crashed)]
        );
    }

    #[test]
    fn the_later_folder_wins_whatever_it_says() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        announce(first.path(), &["k::t[a]", "k::t[b]"]);
        leave(first.path(), 0, &record("k::t[a]", 1.0));
        leave(first.path(), 0, &record("k::t[b]", 1.0));
        announce(second.path(), &["k::t[b]"]);
        assert_eq!(
            verdicts(&[first.path(), second.path()]),
            [("k::t[a]".into(), Verdict::Correct), ("k::t[b]".into(), Verdict::NotRun)]
        );
    }

    #[test]
    fn parts_are_put_together_in_the_order_of_the_whole() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let ids: Vec<String> = (0..5).map(|i| format!("k::t[{i}]")).collect();
        for (k, folder) in folders.iter().enumerate() {
            let places: Vec<usize> = (0..5).filter(|i| i % 2 == k).collect();
            announce(folder.path(), &places.iter().map(|&i| ids[i].as_str()).collect::<Vec<_>>());
            let part = Part { part: k as u64 + 1, parts: 2, of: "a".into(), cases: 5, places, job: None };
            let run = RunInfo { part: Some(part), ..RunInfo::default() };
            write_json(&folder.path().join(RUN_INFO), &run).unwrap();
        }
        let found = verdicts(&[folders[1].path(), folders[0].path()]);
        assert_eq!(found.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_record_that_says_pass_and_means_fail_does_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        announce(dir.path(), &["k::t[a]"]);
        let mut liar = record("k::t[a]", 0.5);
        liar.verdict = Verdict::Broken;
        leave(dir.path(), 0, &liar);
        assert_eq!(verdicts(&[dir.path()]), [("k::t[a]".into(), Verdict::Crashed)]);
    }

    #[test]
    fn a_record_of_another_case_under_this_name_does_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        announce(dir.path(), &["k::t[a]"]);
        write_json(&record_path(dir.path(), "k::t[a]", 0), &record("k::t[b]", 1.0)).unwrap();
        assert_eq!(verdicts(&[dir.path()]), [("k::t[a]".into(), Verdict::Crashed)]);
    }

    #[test]
    fn a_record_under_the_name_of_a_case_that_nothing_announces_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        announce(dir.path(), &["k::t[a]"]);
        leave(dir.path(), 0, &record("k::t[a]", 0.5));
        write_json(&record_path(dir.path(), "k::t[b]", 0), &record("k::t[a]", 1.0)).unwrap();
        let error = read(&[dir.path().into()]).unwrap_err().to_string();
        assert!(error.contains("another case than its own, k::t[a]"), "{error}");
    }

    #[test]
    fn a_damaged_record_that_nothing_announces_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(record_path(dir.path(), "k::t[a]", 0), "{").unwrap();
        read(&[dir.path().into()]).unwrap_err();
    }
}
