//! The folder that a run leaves: manifest, records, outputs, and what a later report needs to know of the run.

use accuracy_core::record::{self, Manifest, Planned, SCHEMA, file_stem};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// So many folders of earlier runs are kept.
const KEPT: usize = 8;
const PREFIX: &str = "run-";
/// Name of the file with the [`RunInfo`].
pub const RUN_INFO: &str = "run.json";

/// What is true of a run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    pub schema: u32,
    /// Flags beside package and architecture that a command re-running a case repeats.
    pub flags: Vec<String>,
    /// How many cases each test has, whether or not they were selected.
    pub tests: BTreeMap<String, usize>,
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
        let name = format!("{PREFIX}{}-{part}{}", timestamp(SystemTime::now()), std::process::id());
        let path = root.join(&name);
        std::fs::create_dir_all(&root)
            .and_then(|()| std::fs::create_dir(&path))
            .with_context(|| format!("cannot make {}", path.display()))?;
        record::write_json(&path.join(RUN_INFO), info)?;
        record::write_json(&path.join("manifest.json"), &Manifest { schema: SCHEMA, cases })?;

        let link = root.join("latest");
        let temporary = root.join(format!(".latest.{}", std::process::id()));
        std::os::unix::fs::symlink(&name, &temporary)
            .and_then(|()| std::fs::rename(&temporary, &link))
            .with_context(|| format!("cannot link {} to {name}", link.display()))?;
        // Whether a part on another machine is still running cannot be seen from here.
        if info.part.is_none() {
            forget_old(&root, &name);
        }
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

/// Removes all but the newest folders. One whose run is still going on stays.
fn forget_old(root: &Path, own: &str) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !name.contains("-part") && name != own)
        .collect();
    names.sort_unstable();
    let alive = |name: &str| name.rsplit('-').next().is_some_and(|pid| Path::new("/proc").join(pid).exists());
    for name in names.iter().rev().skip(KEPT - 1).filter(|name| !alive(name)) {
        // Another run may be tidying up at the same time; an old folder that stays does no harm.
        let _ = std::fs::remove_dir_all(root.join(name));
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

    #[test]
    fn the_newest_folders_are_kept_and_the_link_names_the_last() {
        let target = tempfile::tempdir().unwrap();
        let root = root(target.path());
        for i in 0..12 {
            // No process has an identity that large.
            std::fs::create_dir_all(root.join(format!("{PREFIX}20000101T0000{i:02}-99999999"))).unwrap();
        }
        std::fs::create_dir_all(root.join("of-another-runner")).unwrap();
        let run = RunFolder::create(target.path(), Vec::new(), &RunInfo::default()).unwrap();
        let runs =
            || std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(runs().filter(|n| n.starts_with(PREFIX)).count(), KEPT);
        assert!(runs().any(|n| n == "of-another-runner"));
        assert!(root.join("run-20000101T000011-99999999").exists());
        assert_eq!(std::fs::canonicalize(root.join("latest")).unwrap(), run.path.canonicalize().unwrap());
    }
}
