//! Folders of records below `<target>/accuracy`: which of them this project made, and which of those may go.
//!
//! A marker in a folder says who made it, and under which name. Without it, or under another name, a folder is
//! somebody else's and stays; so does one in which anything lies that this project does not write.

use std::path::{Path, PathBuf};

/// Name of the file that says that a folder was made here. It holds the folder's own name.
pub const MARKER: &str = ".cargo-accuracy";
/// Name of the file with what is true of a run as a whole.
pub const RUN_INFO: &str = "run.json";
/// So many folders of each kind are kept.
pub const KEPT: usize = 8;

/// What left a folder of records, by the beginning of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run of the plugin, or a part of one.
    Run,
    /// One invocation of `cargo test`.
    Test,
    /// One run of `cargo nextest`.
    Nextest,
}

impl Kind {
    pub const fn prefix(self) -> &'static str {
        match self {
            Kind::Run => "run-",
            Kind::Test => "test-",
            Kind::Nextest => "nextest-",
        }
    }
}

/// Whether a name is that of a manifest.
pub fn is_manifest(name: &str) -> bool {
    name.starts_with("manifest") && name.ends_with(".json")
}

/// Makes a folder, where it is not there yet, and marks it as this project's.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn make(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(MARKER), dir.file_name().unwrap_or_default().as_encoded_bytes())
}

/// Whether this project made the folder, under the name that it has.
pub fn is_ours(dir: &Path) -> bool {
    let folder = dir.symlink_metadata().is_ok_and(|data| data.is_dir());
    let name = dir.file_name().unwrap_or_default().as_encoded_bytes();
    folder && crate::files::read(&dir.join(MARKER), 4096).is_ok_and(|text| text == name)
}

/// The folders of one kind that this project made, the newest first.
pub fn made(root: &Path, kind: Kind) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind.prefix())))
        .filter(|path| is_ours(path))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Removes all but the newest folders of a kind; `own` and those whose process is alive stay.
pub fn forget_old(root: &Path, kind: Kind, own: &Path) {
    for dir in made(root, kind).iter().filter(|dir| *dir != own).skip(KEPT - 1) {
        remove(dir);
    }
}

/// Removes a folder of records, if this project made it, nothing else lies in it, and its process has ended.
///
/// Another process may be tidying up at the same time, and an old folder that stays does no harm: so no error is told.
pub fn remove(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let alive = name.rsplit('-').next().is_some_and(|pid| Path::new("/proc").join(pid).exists());
    if alive || !is_ours(dir) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { return };
        let written_here = entry.file_type().is_ok_and(|t| t.is_file())
            && entry.file_name().to_str().is_some_and(is_written_here);
        if !written_here {
            return;
        }
        files.push(entry.path());
    }
    // The marker goes last: what is left of a removal that was cut off is still known.
    files.sort_by_key(|path| path.file_name().is_some_and(|name| name == MARKER));
    for file in files {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_dir(dir);
}

/// Whether a file of a folder of records has a name that only this project gives.
fn is_written_here(name: &str) -> bool {
    // What a process that was killed has not renamed yet.
    let name = match name.strip_prefix('.') {
        Some(rest) if rest.ends_with(".tmp") => rest,
        _ => name,
    };
    let of_case = |name: &str| {
        let stem = name.split('.').next().unwrap_or_default();
        stem.len() == 16 && stem.bytes().all(|b| b.is_ascii_hexdigit())
    };
    name == MARKER || name.starts_with(RUN_INFO) || name.starts_with("manifest") || of_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process has an identity that large.
    fn name(kind: Kind, i: usize) -> String {
        format!("{}2000-{i:02}-99999999", kind.prefix())
    }

    fn there(root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_marked_folders_go_and_only_the_oldest_of_each_kind() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for kind in [Kind::Run, Kind::Test, Kind::Nextest] {
            for i in 0..12 {
                let dir = root.join(name(kind, i));
                make(&dir).unwrap();
                std::fs::write(dir.join("0123456789abcdef.0.json"), "{}").unwrap();
                if (kind, i) == (Kind::Run, 0) {
                    // One of ours in which a person has left something.
                    std::fs::write(dir.join("notes"), "mine").unwrap();
                }
                let age = std::time::SystemTime::now() - std::time::Duration::from_secs(1000 - i as u64);
                std::fs::File::open(&dir).unwrap().set_modified(age).unwrap();
            }
        }
        // A person's own, whatever it is called, and a copy of one of ours.
        for own in ["run-1998-notes", "run-1998-99999999", "test-results"] {
            std::fs::create_dir(root.join(own)).unwrap();
            std::fs::write(root.join(own).join("notes"), "mine").unwrap();
        }
        let copy = root.join("run-0000-copy");
        make(&copy).unwrap();
        std::fs::write(copy.join(MARKER), name(Kind::Run, 3)).unwrap();

        for kind in [Kind::Run, Kind::Test, Kind::Nextest] {
            forget_old(root, kind, &root.join("none"));
        }
        let names = there(root);
        for kind in [Kind::Run, Kind::Test, Kind::Nextest] {
            let left: Vec<usize> = (0..12).filter(|i| names.contains(&name(kind, *i))).collect();
            let newest: Vec<usize> = (12 + 1 - KEPT..12).collect();
            let with_notes = if kind == Kind::Run { vec![0] } else { Vec::new() };
            assert_eq!(left, [with_notes, newest].concat(), "{kind:?}");
        }
        for kept in ["run-1998-notes", "run-1998-99999999", "test-results", "run-0000-copy"] {
            assert!(names.iter().any(|name| name == kept), "{kept} is gone");
        }
    }

    #[test]
    fn a_folder_of_a_living_process_and_a_link_stay() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let living = root.join(format!("run-2000-{}", std::process::id()));
        make(&living).unwrap();
        remove(&living);
        assert!(living.exists());
        let elsewhere = root.join(name(Kind::Run, 1));
        make(&elsewhere).unwrap();
        let link = root.join("run-link-99999999");
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        remove(&link);
        assert!(elsewhere.exists() && link.exists());
    }
}
