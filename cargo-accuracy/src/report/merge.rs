//! Reads the records of any number of folders and says what became of each case that was announced.

use super::parts;
use crate::run::folder::{RUN_INFO, RunInfo};
use crate::run::{may_pass, unfinished};
use accuracy_core::record::{self, Gate, Planned, Record, RecordError, Verdict};
use anyhow::Context as _;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Everything that the folders say, a record a case.
#[derive(Debug, Default)]
pub struct Merged {
    /// In the order of the manifests; what no manifest announces comes last.
    pub records: Vec<Record>,
    pub runs: Vec<RunInfo>,
    /// What is missing, or there too often, of a run in parts.
    pub problems: Vec<String>,
}

/// Merges folders. Within a folder the latest attempt at a case counts, and where two folders have the same case the
/// later one on the command line does, whatever it says.
pub fn read(dirs: &[PathBuf]) -> anyhow::Result<Merged> {
    let mut merged = Merged::default();
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
        for record in folder.records()? {
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
    planned: Vec<Planned>,
    /// Latest attempt by the stem of its file name: its number and its record.
    attempts: BTreeMap<String, (u32, PathBuf)>,
    /// Stems and attempts of cases that began.
    started: BTreeMap<String, u32>,
    run: Option<RunInfo>,
}

impl Folder {
    fn read(dir: &Path) -> anyhow::Result<Folder> {
        let mut folder = Folder::default();
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
                        let newer = folder.attempts.get(stem).is_none_or(|(other, _)| *other < attempt);
                        if newer {
                            folder.attempts.insert(stem.into(), (attempt, path));
                        }
                    }
                    Kind::Started => {
                        let latest = folder.started.entry(stem.into()).or_insert(attempt);
                        *latest = attempt.max(*latest);
                    }
                }
            }
        }
        Ok(folder)
    }

    /// One record for every case that was announced or has left one.
    fn records(mut self) -> anyhow::Result<Vec<Record>> {
        let announced: Vec<_> = self
            .planned
            .into_iter()
            .map(|planned| {
                let stem = record::file_stem(&planned.id);
                let left = self.attempts.remove(&stem);
                (planned, left, self.started.get(&stem).copied())
            })
            .collect();
        let of = |(planned, left, started): (Planned, Option<(u32, PathBuf)>, Option<u32>)| match (
            left, started,
        ) {
            (Some((attempt, _)), Some(started)) if started > attempt => cut_off(&planned),
            (Some((_, path)), _) => what_it_left(&planned, record::read_record(&path)),
            (None, Some(_)) => cut_off(&planned),
            (None, None) => planned.without_result(Verdict::NotRun, unfinished::NEVER_STARTED),
        };
        let mut records: Vec<Record> = announced.into_par_iter().map(of).collect();
        for (_, path) in self.attempts.into_values() {
            // What it was to be a record of is not known, so nothing can stand in for it.
            let left = record::read_record(&path);
            records.push(left.context("a record that no manifest announces cannot be used")?);
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
fn attempt(name: &str) -> Option<(&str, u32, Kind)> {
    let (stem, rest) = name.split_once('.')?;
    let (attempt, extension) = rest.split_once('.')?;
    let kind = match extension {
        "json" => Kind::Record,
        "started" => Kind::Started,
        _ => return None,
    };
    let hash = stem.len() == 16 && stem.bytes().all(|b| b.is_ascii_hexdigit());
    hash.then_some((stem, attempt.parse().ok()?, kind))
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
    fn a_damaged_record_that_nothing_announces_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(record_path(dir.path(), "k::t[a]", 0), "{").unwrap();
        read(&[dir.path().into()]).unwrap_err();
    }
}
