//! Without the plugin: where records go, and which cases this process is about to run.

use crate::env::Settings;
use crate::folders::{self, Kind};
use crate::meta;
use crate::plan;
use crate::record::{self, Manifest};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// `<target>/accuracy/<run>/`: one folder for a run of `cargo nextest`, one for an invocation of `cargo test`, which all
/// of its processes share, and one for a process that neither has started.
pub fn records_dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let (kind, run) = match (std::env::var("NEXTEST_RUN_ID"), invocation()) {
            (Ok(id), _) => (Kind::Nextest, id),
            (Err(_), Some(cargo)) => (Kind::Test, cargo),
            (Err(_), None) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (Kind::Test, format!("{}-{}", now.as_secs(), std::process::id()))
            }
        };
        let root = target_dir().unwrap_or_else(std::env::temp_dir).join("accuracy");
        let dir = root.join(format!("{}{run}", kind.prefix()));
        // Where it cannot be made, the first case that writes to it says so.
        if folders::make(&dir).is_ok() {
            folders::forget_old(&root, kind, &dir);
        }
        dir
    })
    .clone()
}

/// Names the invocation of cargo that this process is part of: by the boot, the moment at which that cargo started, and
/// its process. `None` where none of the processes above this one is the cargo that ran the test.
fn invocation() -> Option<String> {
    let cargo = std::fs::canonicalize(std::env::var_os("CARGO")?).ok()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // A runner, as cargo's configuration names one, may stand between.
    let mut pid = std::os::unix::process::parent_id();
    while pid > 1 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (parent, started) = parent_and_start(&stat)?;
        if std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == cargo) {
            return Some(format!("{}-{started}-{pid}", boot.get(..8)?));
        }
        pid = parent;
    }
    None
}

/// Parent and start, in ticks since the boot, out of a line of `/proc/<pid>/stat`.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    // The second field is the program's name in brackets, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// The target folder that holds this test binary, recognised by the tag that cargo puts there.
fn target_dir() -> Option<PathBuf> {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
}

/// Where products are kept: where `asked` says, else beside the records of this target folder.
pub fn cache_dir(asked: Option<&Path>) -> Option<PathBuf> {
    match asked {
        Some(dir) if dir == Path::new("off") => None,
        Some(dir) => Some(dir.into()),
        None => target_dir().map(|dir| dir.join("accuracy-cache")),
    }
}

/// What memory is poisoned with in this process, where nothing says so: drawn once.
pub fn drawn_poison() -> u64 {
    static DRAWN: OnceLock<u64> = OnceLock::new();
    // A number that is copied from a report by hand.
    *DRAWN.get_or_init(|| RandomState::new().hash_one(std::process::id()) & 0xffff)
}

/// Writes a manifest of what this process is going to run, once.
pub fn announce(records: &Path, settings: &Settings) {
    let arch = settings.arch;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let selected = Selection::from_args(std::env::args().skip(1));
        let Ok(tests) =
            std::env::current_exe().map_err(drop).and_then(|exe| meta::read_binary(&exe).map_err(drop))
        else {
            eprintln!("accuracy: this binary's metadata cannot be read, so no manifest was written");
            return;
        };
        let mut cases = Vec::new();
        for test in &tests {
            let chosen = |cell: usize| selected.contains(&test.libtest_name(&test.body.cells[cell]));
            match plan::expand(test, arch) {
                Ok(listed) => {
                    let drawn = plan::drawn(test, &listed, settings.fuzz, settings.seed).unwrap_or_default();
                    let all = listed.into_iter().chain(drawn);
                    cases.extend(all.filter(|c| chosen(c.cell)).map(|c| c.planned));
                }
                Err(_) => cases.extend(
                    (0..test.body.cells.len())
                        .filter(|&i| chosen(i))
                        .map(|i| plan::planned(test, &test.body.cells[i], arch, &Default::default())),
                ),
            }
        }
        // What an earlier process has left under the same name says nothing of this one.
        for planned in &cases {
            let _ = std::fs::remove_file(record::record_path(records, &planned.id, 0));
            let _ = std::fs::remove_file(record::started_path(records, &planned.id, 0));
        }
        let path = records.join(format!("manifest-{}.json", std::process::id()));
        let binary = std::env::current_exe().ok().map(|exe| exe.display().to_string());
        if let Err(error) = record::write_json(&path, &Manifest { schema: record::SCHEMA, binary, cases }) {
            eprintln!("accuracy: {error}");
        }
    });
}

/// Which tests libtest was asked to run, by its own arguments.
#[derive(Debug, Default, PartialEq)]
struct Selection {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
}

impl Selection {
    fn from_args(args: impl Iterator<Item = String>) -> Selection {
        let mut selection = Selection::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => selection.exact = true,
                "--skip" => selection.skip.extend(args.next()),
                // Options of libtest that take a value of their own.
                "--test-threads" | "--logfile" | "--color" | "--format" | "--shuffle-seed" | "-Z" => {
                    args.next();
                }
                flag if flag.starts_with('-') => {
                    if let Some(skip) = flag.strip_prefix("--skip=") {
                        selection.skip.push(skip.into());
                    }
                }
                _ => selection.filters.push(arg),
            }
        }
        selection
    }

    fn contains(&self, name: &str) -> bool {
        let matches =
            |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(args: &[&str]) -> Selection {
        Selection::from_args(args.iter().map(|a| a.to_string()))
    }

    #[test]
    fn parent_and_start_are_read_whatever_the_program_is_called() {
        let fields = "S 41 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2";
        for name in ["cargo", "a) S 1 (b", "with blanks ) )"] {
            assert_eq!(parent_and_start(&format!("77 ({name}) {fields}")), Some((41, 9876)), "{name}");
        }
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(parent_and_start(&own).unwrap().0, std::os::unix::process::parent_id());
    }

    #[test]
    fn libtests_own_arguments_decide_what_is_announced() {
        assert!(selection(&[]).contains("a::b"));
        assert!(selection(&["--nocapture", "--test-threads", "1", "a"]).contains("a::b"));
        assert!(!selection(&["--test-threads", "1", "c"]).contains("a::b"));
        assert!(!selection(&["--exact", "a"]).contains("a::b"));
        assert!(selection(&["a::b", "--exact", "--nocapture"]).contains("a::b"));
        assert!(!selection(&["--skip", "b"]).contains("a::b"));
        assert!(!selection(&["--skip=b", "a"]).contains("a::b"));
    }
}
