//! Without the plugin: where records go, and which cases this process is about to run.

use crate::arch::Arch;
use crate::meta;
use crate::plan;
use crate::record::{self, Manifest};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// `<target>/accuracy/<run>/`: one folder for a run of `cargo nextest`, one for each process of `cargo test`.
pub fn records_dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let run = match std::env::var("NEXTEST_RUN_ID") {
            Ok(id) => format!("nextest-{id}"),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("test-{}-{}", now.as_secs(), std::process::id())
            }
        };
        target_dir().unwrap_or_else(std::env::temp_dir).join("accuracy").join(run)
    })
    .clone()
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
pub fn announce(records: &Path, arch: Arch) {
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
                Ok(all) => cases.extend(all.into_iter().filter(|c| chosen(c.cell)).map(|c| c.planned)),
                Err(_) => cases.extend(
                    (0..test.body.cells.len())
                        .filter(|&i| chosen(i))
                        .map(|i| plan::planned(test, &test.body.cells[i], arch, &Default::default())),
                ),
            }
        }
        let path = records.join(format!("manifest-{}.json", std::process::id()));
        if let Err(error) = record::write_json(&path, &Manifest { schema: record::SCHEMA, cases }) {
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
