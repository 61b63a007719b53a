//! The folder that a run leaves: manifest, records, outputs, and what a later report needs to know of the run.

use super::hidden::Hidden;
use super::loosened::Loosening;
use accuracy_core::files;
use accuracy_core::folders::{self, Kind};
use accuracy_core::identity;
use accuracy_core::record::Library;
use accuracy_core::record::{self, Manifest, Planned, SCHEMA, file_stem};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the manifest of a run; test processes number theirs.
pub const MANIFEST: &str = "manifest.json";

pub use accuracy_core::folders::RUN_INFO;

/// A part of another run than the newest ones goes when nothing has been written to it for so long: whether a part on
/// another machine is still running cannot be seen from here.
const PART_RESTS: Duration = Duration::from_secs(24 * 3600);

/// What is true of a run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    pub schema: u32,
    /// Flags beside package and architecture that a command re-running a case repeats.
    pub flags: Vec<String>,
    /// How many cases each test has, whether or not they were selected.
    pub tests: BTreeMap<String, usize>,
    /// How many cases the manifest announces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<usize>,
    /// The packages that took part, whether or not they have tests.
    pub packages: Vec<String>,
    /// The GPUs that the run used, or emulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The architectures whose code was emulated.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub emulated: BTreeSet<String>,
    /// Which part of a run it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The files of kernels that its tests bind, as they were when it began.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub libraries: BTreeSet<Library>,
    /// What makes its gate looser than it is by itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub loosened: BTreeSet<Loosening>,
    /// Tests that its sources declare and that could not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Hidden>,
    /// Whether one of those fails the gate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deny_hidden: bool,
}

/// One of the parts that make up a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1.
    pub part: u64,
    pub parts: u64,
    /// What it is a part of: the same in all parts of one run, and in no other run.
    pub of: String,
    /// Cases of all parts together.
    pub cases: usize,
    /// Where each of its cases stands among all of them.
    pub places: Vec<usize>,
    /// What the scheduler calls the job that all parts belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// The path of a case's test: its identity without the coordinates.
pub fn test_path(id: &str) -> &str {
    identity::path(id)
}

/// What a test on an architecture is called where all of them are counted.
pub fn test_key(id: &str, arch: &str) -> String {
    format!("{}[arch={arch}]", test_path(id))
}

/// Folder in which all runs leave theirs.
pub fn root(target: &Path) -> PathBuf {
    target.join("accuracy")
}

#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
}

impl RunFolder {
    /// Makes a folder of its own for this run and writes the manifest into it.
    pub fn create(target: &Path, cases: Vec<Planned>, info: &RunInfo) -> anyhow::Result<RunFolder> {
        let root = root(target);
        // Parts that run on other machines may share the disk, and processes there may have the same number.
        let part = info.part.as_ref().map_or(String::new(), |p| format!("part{}of{}-", p.part, p.parts));
        let prefix = Kind::Run.prefix();
        let name = format!("{prefix}{}-{part}{}", timestamp(SystemTime::now()), std::process::id());
        let path = root.join(&name);
        std::fs::create_dir_all(&root)
            .and_then(|()| std::fs::create_dir(&path))
            .and_then(|()| folders::make(&path))
            .with_context(|| format!("cannot make {}", path.display()))?;
        let info = RunInfo { announced: Some(cases.len()), ..info.clone() };
        record::write_json(&path.join(RUN_INFO), &info)?;
        record::write_json(&path.join(MANIFEST), &Manifest { schema: SCHEMA, binary: None, cases })?;

        let link = root.join("latest");
        let temporary = root.join(format!(".latest.{}", std::process::id()));
        std::os::unix::fs::symlink(&name, &temporary)
            .and_then(|()| std::fs::rename(&temporary, &link))
            .with_context(|| format!("cannot link {} to {name}", link.display()))?;
        forget_old(&root, &path);
        Ok(RunFolder { path })
    }

    pub fn output_path(&self, id: &str) -> PathBuf {
        self.path.join(format!("{}.out", file_stem(id)))
    }

    /// Where a case's standard output and error go, in the order in which it writes them.
    pub fn create_output(&self, id: &str) -> anyhow::Result<File> {
        let path = self.output_path(id);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Removes all but the newest folders of runs, of `cargo test` and of nextest. Parts are told apart by the run that they
/// are of: an older run of the same part goes by number, parts of older runs by number and age.
fn forget_old(root: &Path, own: &Path) {
    folders::forget_old(root, Kind::Test, own);
    folders::forget_old(root, Kind::Nextest, own);
    let mut whole = 0;
    let mut runs: Vec<String> = Vec::new();
    let mut again: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for dir in folders::made(root, Kind::Run) {
        let info = files::read(&dir.join(RUN_INFO), files::LIST).ok();
        let info = info.and_then(|text| serde_json::from_slice::<RunInfo>(&text).ok());
        let old = match info.and_then(|info| info.part) {
            None => {
                whole += 1;
                whole > folders::KEPT
            }
            Some(part) => {
                if !runs.contains(&part.of) {
                    runs.push(part.of.clone());
                }
                let of_old_run = runs.iter().position(|of| *of == part.of) >= Some(folders::KEPT);
                let times = again.entry((part.of, part.part)).or_default();
                *times += 1;
                let modified = dir.metadata().and_then(|data| data.modified());
                let rests = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > PART_RESTS));
                *times > folders::KEPT || of_old_run && rests
            }
        };
        if old && dir != own {
            folders::remove(&dir);
        }
    }
}

/// `20260131T235959`, in UTC: sorts as text.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970-01-01 to a date: years that begin in March have their leap day last.
    let z = day + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{date:02}T{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_dates() {
        for (seconds, text) in [
            (0, "19700101T000000"),
            (951_782_400, "20000229T000000"),
            (1_709_251_199, "20240229T235959"),
            (1_709_251_200, "20240301T000000"),
            (4_102_444_799, "20991231T235959"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    /// A folder of an earlier run, of a process that has ended.
    fn earlier(root: &Path, i: usize, part: Option<Part>) -> PathBuf {
        let path = root.join(format!("run-20000101T0000{i:02}-99999999"));
        folders::make(&path).unwrap();
        record::write_json(&path.join(RUN_INFO), &RunInfo { part, ..RunInfo::default() }).unwrap();
        let age = Duration::from_secs(1000 - i as u64) + PART_RESTS;
        File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    }

    #[test]
    fn the_newest_folders_are_kept_and_the_link_names_the_last() {
        let target = tempfile::tempdir().unwrap();
        let root = root(target.path());
        let earlier: Vec<PathBuf> = (0..12).map(|i| earlier(&root, i, None)).collect();
        let notes = root.join("run-1998-notes");
        std::fs::create_dir_all(&notes).unwrap();
        let run = RunFolder::create(target.path(), Vec::new(), &RunInfo::default()).unwrap();
        let there: Vec<bool> = earlier.iter().map(|path| path.exists()).collect();
        let expected: Vec<bool> = (0..12).map(|i| i >= 12 + 1 - folders::KEPT).collect();
        assert_eq!(there, expected);
        assert!(notes.exists());
        assert_eq!(std::fs::canonicalize(root.join("latest")).unwrap(), run.path.canonicalize().unwrap());
    }

    #[test]
    fn parts_of_the_newest_runs_stay_and_the_same_part_run_again_goes_by_number() {
        let part = |of: usize, part: u64| {
            Some(Part { part, parts: 20, of: of.to_string(), cases: 0, places: Vec::new(), job: None })
        };
        let target = tempfile::tempdir().unwrap();
        let of_one_run: Vec<PathBuf> =
            (0..20).map(|i| earlier(&root(target.path()), i, part(0, i as u64 + 1))).collect();
        RunFolder::create(target.path(), Vec::new(), &RunInfo::default()).unwrap();
        assert!(of_one_run.iter().all(|path| path.exists()), "all are parts of the newest run in parts");

        let target = tempfile::tempdir().unwrap();
        let again: Vec<PathBuf> = (0..12).map(|i| earlier(&root(target.path()), i, part(0, 1))).collect();
        RunFolder::create(target.path(), Vec::new(), &RunInfo::default()).unwrap();
        assert_eq!(again.iter().filter(|path| path.exists()).count(), folders::KEPT);

        let target = tempfile::tempdir().unwrap();
        let runs: Vec<PathBuf> = (0..12).map(|i| earlier(&root(target.path()), i, part(i, 1))).collect();
        RunFolder::create(target.path(), Vec::new(), &RunInfo::default()).unwrap();
        assert_eq!(runs.iter().filter(|path| path.exists()).count(), folders::KEPT);
    }
}
