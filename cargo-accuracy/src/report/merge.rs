//! Reads the records of any number of folders and says what became of each case that was announced.

use super::emulation::Kinds;
use super::parts;
use crate::run::folder::{MANIFEST, RUN_INFO, RunInfo};
use crate::run::outcome::contradiction;
use accuracy_core::files;
use accuracy_core::folders::{self, is_manifest};
use accuracy_core::packed::Texts;
use accuracy_core::record::{self, Library, Planned, Record, RecordError, Unfinished, Verdict};
use anyhow::{Context as _, bail};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything that the folders say, a record a case.
#[derive(Debug, Default)]
pub struct Merged {
    /// In the order of the manifests; what no manifest announces comes last.
    pub records: Vec<Record>,
    pub runs: Vec<RunInfo>,
    /// What is missing, or there too often, of a run in parts; what must not stand in one report.
    pub problems: Vec<String>,
    /// Whether no folder holds anything that a run or a test process leaves.
    pub nothing: bool,
}

/// Merges folders. Within a folder the latest attempt at a case counts, and where two folders have the same case the
/// later one on the command line does, whatever it says.
pub fn read(dirs: &[PathBuf]) -> anyhow::Result<Merged> {
    let mut merged = Merged { nothing: true, ..Merged::default() };
    let known = Known::default();
    let mut kinds = Kinds::default();
    let mut at: HashMap<String, usize> = HashMap::new();
    let mut parts = Vec::new();
    let mut judged_in_parts = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for dir in dirs {
        let folder = Folder::read(dir)?;
        merged.nothing &= folder.is_empty();
        merged.problems.extend(folder.problems());
        if let Some(part) = folder.run.as_ref().and_then(|run| run.part.clone()) {
            let ids = folder.planned.iter().map(|planned| planned.id.clone());
            places.extend(ids.zip(part.places.iter().copied()));
            let libraries = folder.run.as_ref().map(|run| run.libraries.clone()).unwrap_or_default();
            judged_in_parts.push((dir.as_path(), part.of.clone(), libraries));
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
    merged.problems.extend(parts::problems(&parts));
    merged.problems.extend(parts::other_libraries(&judged_in_parts));
    merged.problems.extend(kinds.problems());
    // Parts are put together as they were divided, so that a test's cases stand in their order.
    merged.records.sort_by_cached_key(|r| places.get(&r.id).copied().unwrap_or(usize::MAX));
    Ok(merged)
}

/// Whether a folder is one that a run or a test process has left, whole or not.
pub fn is_of_a_run(dir: &Path) -> bool {
    let left = |name: &String| is_manifest(name) || name == RUN_INFO;
    folders::is_ours(dir) || file_names(dir).is_ok_and(|names| names.iter().any(left))
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
    /// How many manifests there are, and how many cases that of a whole run announces.
    manifests: usize,
    announced: Option<usize>,
    /// Cases that two test executables have, with both.
    shared: Vec<(String, [String; 2])>,
}

/// The hash that a file is named by, in its digits.
type Stem = [u8; 16];

fn stem_of(id: &str) -> Stem {
    record::file_stem(id).as_bytes().try_into().expect("a stem has sixteen digits")
}

impl Folder {
    fn read(dir: &Path) -> anyhow::Result<Folder> {
        let mut folder = Folder { path: dir.into(), ..Folder::default() };
        // With the executable that announces it.
        let mut announced: HashMap<String, Option<String>> = HashMap::new();
        for name in file_names(dir)? {
            let path = dir.join(&name);
            if is_manifest(&name) {
                let manifest = record::read_manifest(&path)?;
                folder.manifests += 1;
                if name == MANIFEST {
                    folder.announced = Some(manifest.cases.len());
                }
                for planned in manifest.cases {
                    // Several processes of one executable may announce the same cases.
                    match announced.get(&planned.id) {
                        None => {
                            announced.insert(planned.id.clone(), manifest.binary.clone());
                            folder.planned.push(planned);
                        }
                        Some(other) => {
                            if let (Some(other), Some(own)) = (other, &manifest.binary)
                                && other != own
                            {
                                folder.shared.push((planned.id, [other.clone(), own.clone()]));
                            }
                        }
                    }
                }
            } else if name == RUN_INFO {
                let text = files::read(&path, files::LIST);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
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

    fn is_empty(&self) -> bool {
        self.manifests == 0 && self.run.is_none() && self.attempts.is_empty() && self.started.is_empty()
    }

    /// Why the folder does not say all that its run did, a sentence each.
    fn problems(&self) -> Vec<String> {
        let dir = self.path.display();
        let mut problems = Vec::new();
        if self.manifests == 0 {
            problems.push(format!(
                "{dir} has no manifest, so that it is not known which cases should have left a record there"
            ));
        }
        if self.announced.is_some() && self.run.is_none() {
            problems.push(format!(
                "{dir} has no {RUN_INFO}, so that it is not known whether it holds a whole run or a part of one"
            ));
        }
        let cases = self.run.as_ref().and_then(|run| run.announced);
        if let (Some(cases), Some(announced)) = (cases, self.announced)
            && cases != announced
        {
            problems.push(format!(
                "the manifest of {dir} announces {announced} cases, and its {RUN_INFO} says that there are {cases}"
            ));
        }
        if let Some(part) = self.run.as_ref().and_then(|run| run.part.as_ref())
            && part.places.len() != self.planned.len()
        {
            problems.push(format!(
                "{dir} holds {} cases, and its {RUN_INFO} says that part {} of {} has {}",
                self.planned.len(),
                part.part,
                part.parts,
                part.places.len()
            ));
        }
        let announced: BTreeSet<Stem> = self.planned.iter().map(|planned| stem_of(&planned.id)).collect();
        let began = self.started.keys().filter(|stem| !announced.contains(*stem)).count();
        if began > 0 && self.manifests > 0 {
            problems.push(format!("{began} cases began in {dir} that no manifest announces"));
        }
        if let Some((id, [one, other])) = self.shared.first() {
            problems.push(format!(
                "{} cases are in two test executables of {dir}, such as {id} in {one} and {other}: their records have \
                 one name, so that only one of them is there; rename a test",
                self.shared.len()
            ));
        }
        problems
    }

    /// One record for every case that was announced or has left one; what they have in common is there once.
    fn records(mut self, known: &Known) -> anyhow::Result<Vec<Record>> {
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
            let mut texts = known.texts.lock().unwrap_or_else(PoisonError::into_inner);
            record.checks.share(&mut texts);
            record.power.share(&mut texts);
            drop(texts);
            record.libraries.share(&mut known.libraries.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(record)
        };
        let of = |(planned, left, started): (Planned, Option<u32>, Option<u32>)| match (left, started) {
            (Some(attempt), Some(started)) if started > attempt => cut_off(&planned),
            (Some(attempt), _) => {
                let path = record::record_path(&self.path, &planned.id, attempt);
                what_it_left(&planned, read(&path))
            }
            (None, Some(_)) => cut_off(&planned),
            (None, None) => planned.unfinished(Unfinished::NeverStarted),
        };
        let mut records: Vec<Record> = announced.into_par_iter().map(of).collect();
        for (stem, attempt) in self.attempts {
            // What it was to be a record of is not known, so nothing can stand in for it.
            let path = self.path.join(format!("{}.{attempt}.json", String::from_utf8_lossy(&stem)));
            let left = read(&path).context("a record that no manifest announces cannot be used")?;
            if stem_of(&left.id) != stem {
                bail!("{} is named after another case than its own, {}", path.display(), left.id);
            }
            if let Some(what) = left.contradiction() {
                bail!(
                    "the record {}, which no manifest announces, contradicts itself: {what}",
                    path.display()
                );
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
    match contradiction(planned, &record) {
        None => record,
        Some(what) => {
            planned.without_result(Verdict::Crashed, format!("its record contradicts itself: {what}"))
        }
    }
}

/// What records have in common.
#[derive(Default)]
struct Known {
    texts: Mutex<Texts>,
    libraries: Mutex<HashSet<Arc<[Library]>>>,
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
    use crate::report::text::fixture::{judged as record, planned};
    use crate::run::folder::Part;
    use accuracy_core::record::{
        Gate, Manifest, SCHEMA, record_path, started_path, write_json, write_record,
    };

    fn announce(dir: &Path, ids: &[&str]) {
        let cases = ids.iter().map(|id| planned(id)).collect();
        write_json(&dir.join(MANIFEST), &Manifest { schema: SCHEMA, binary: None, cases }).unwrap();
        let run = RunInfo { announced: Some(ids.len()), ..RunInfo::default() };
        write_json(&dir.join(RUN_INFO), &run).unwrap();
    }

    fn leave(dir: &Path, attempt: u32, record: &Record) {
        write_record(&record_path(dir, &record.id, attempt), record).unwrap();
    }

    fn problems(dirs: &[&Path]) -> Vec<String> {
        read(&dirs.iter().map(|d| d.to_path_buf()).collect::<Vec<_>>()).unwrap().problems
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
        assert_eq!(problems(&[folders[1].path(), folders[0].path()]), [""; 0]);
        let found = verdicts(&[folders[1].path(), folders[0].path()]);
        assert_eq!(found.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_folder_that_lacks_what_says_what_should_be_in_it_is_not_whole() {
        let whole = || {
            let dir = tempfile::tempdir().unwrap();
            announce(dir.path(), &["k::t[a]", "k::t[b]"]);
            for id in ["k::t[a]", "k::t[b]"] {
                std::fs::write(started_path(dir.path(), id, 0), "").unwrap();
                leave(dir.path(), 0, &record(id, 1.0));
            }
            dir
        };
        let told = |dir: &Path, part: &str| {
            let problems = problems(&[dir]);
            assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
        };
        assert_eq!(problems(&[whole().path()]), [""; 0]);

        let dir = whole();
        std::fs::remove_file(dir.path().join(MANIFEST)).unwrap();
        std::fs::remove_file(record_path(dir.path(), "k::t[b]", 0)).unwrap();
        told(dir.path(), "has no manifest");

        let dir = whole();
        std::fs::remove_file(dir.path().join(RUN_INFO)).unwrap();
        told(dir.path(), "has no run.json");

        // A manifest of a part of the cases, as an older copy of it may be.
        let dir = whole();
        let cases = vec![planned("k::t[a]")];
        write_json(&dir.path().join(MANIFEST), &Manifest { schema: SCHEMA, binary: None, cases }).unwrap();
        told(dir.path(), "announces 1 cases, and its run.json says that there are 2");
        std::fs::remove_file(record_path(dir.path(), "k::t[b]", 0)).unwrap();
        told(dir.path(), "1 cases began");

        // A part that says that it has more cases than are there.
        let dir = whole();
        let part = Part { part: 1, parts: 1, of: "a".into(), cases: 3, places: vec![0, 1, 2], job: None };
        let run = RunInfo { part: Some(part), ..RunInfo::default() };
        write_json(&dir.path().join(RUN_INFO), &run).unwrap();
        told(dir.path(), "holds 2 cases, and its run.json says that part 1 of 1 has 3");
        let part = Part { part: 1, parts: 1, of: "a".into(), cases: 3, places: vec![0, 1], job: None };
        let run = RunInfo { part: Some(part), ..RunInfo::default() };
        write_json(&dir.path().join(RUN_INFO), &run).unwrap();
        told(dir.path(), "the parts hold 2 of the 3 cases");
    }

    #[test]
    fn a_case_that_two_executables_have_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let announce = |pid: u32, binary: &str, ids: &[&str]| {
            let cases = ids.iter().map(|id| planned(id)).collect();
            let manifest = Manifest { schema: SCHEMA, binary: Some(binary.into()), cases };
            write_json(&dir.path().join(format!("manifest-{pid}.json")), &manifest).unwrap();
        };
        announce(1, "deps/one", &["k::t[a]"]);
        announce(2, "deps/one", &["k::t[a]", "k::t[b]"]);
        assert_eq!(problems(&[dir.path()]), [""; 0], "a process for each test announces what others do");
        announce(3, "deps/other", &["k::t[b]"]);
        let problems = problems(&[dir.path()]);
        assert!(problems[0].contains("k::t[b] in deps/one and deps/other"), "{problems:?}");
    }

    #[test]
    fn whatever_is_changed_in_a_record_it_does_not_pass_for_it() {
        let mut bad = record("k::t[a]", 0.15);
        bad.verdict = Verdict::Catastrophic;
        bad.gate = Gate::Fail;
        bad.failed_checks = vec!["cos".into()];
        bad.hops[0].failed_checks = vec!["cos".into()];
        let mut checks = serde_json::to_value(&bad.checks).unwrap();
        checks[0]["ok"] = false.into();
        checks[0]["margin"] = (-0.849).into();
        bad.checks = serde_json::from_value(checks).unwrap();
        let passes = |text: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            announce(dir.path(), &["k::t[a]"]);
            std::fs::write(record_path(dir.path(), "k::t[a]", 0), text).unwrap();
            let report = super::super::Report::new(read(&[dir.path().into()]).unwrap().records, &[]);
            report.summary.passed > 0 || report.summary.skipped > 0
        };
        // With its digest, and without one as an older version wrote it.
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), 0, &bad);
        let with_digest = std::fs::read(record_path(dir.path(), "k::t[a]", 0)).unwrap();
        let without = serde_json::to_vec(&bad).unwrap();
        assert!(!passes(&with_digest) && !passes(&without));
        let edit = |text: &[u8], pairs: &[(&str, serde_json::Value)]| {
            let mut value: serde_json::Value = serde_json::from_slice(text).unwrap();
            for (key, to) in pairs {
                value[*key] = to.clone();
            }
            serde_json::to_vec_pretty(&value).unwrap()
        };
        let none = || serde_json::json!([]);
        let claims = [("gate", "pass".into()), ("verdict", "correct".into()), ("failed_checks", none())];
        let skipped = [("gate", "pass".into()), ("verdict", "skipped".into()), ("failed_checks", none())];
        let known = [("gate", "pass".into()), ("verdict", "correct".into()), ("known_failure", "x".into())];
        for (i, pairs) in [&claims[..], &skipped, &known].into_iter().enumerate() {
            for text in [&with_digest, &without] {
                assert!(!passes(&edit(text, pairs)), "{i}");
            }
        }
        for more in [[("checks", none())], [("hops", none())], [("metrics", serde_json::json!({}))]] {
            assert!(!passes(&edit(&without, &[&claims[..], &more].concat())), "{more:?}");
        }
        // A byte of the text, wherever it is, of a record that passes.
        let good = tempfile::tempdir().unwrap();
        leave(good.path(), 0, &record("k::t[a]", 1.0));
        let good = std::fs::read(record_path(good.path(), "k::t[a]", 0)).unwrap();
        assert!(passes(&good));
        // The name of the digest itself decides nothing: without it a record is as an older version wrote it.
        let name = good.len() - 45..good.len() - 34;
        assert_eq!(&good[name.clone()], br#","digest":""#);
        for at in (0..good.len()).filter(|at| !name.contains(at)) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(!passes(&changed), "byte {at}, {:?}", good[at] as char);
        }
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
