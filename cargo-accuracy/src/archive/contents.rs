//! What an archive says about itself: its first entry, a JSON file. How it is packed is in [`super::pack`].

use crate::config::Sources;
use crate::run::cargo_env::Variable;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Component, Path};

/// Version of everything below, and of where files lie in the archive.
pub const FORMAT: u32 = 1;
/// Name of the first entry.
pub const CONTENTS: &str = "archive.json";

/// Folder of the test executables.
pub const BINARIES: &str = "binaries";
/// Folder of the folders of kernel libraries.
pub const LIBRARIES: &str = "libraries";
/// Folder in which packages and checkpoints lie to each other as they did where the archive was made.
pub const FILES: &str = "files";

/// The part that every version can read.
#[derive(Debug, Deserialize)]
pub struct Version {
    pub format: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contents {
    pub format: u32,
    pub tool: String,
    /// What the executables run on, as [`machine_of`] names it.
    pub machine: String,
    pub config: Sources,
    /// Variables of cargo's configuration.
    pub env: Vec<Variable>,
    pub binaries: Vec<ArchivedBinary>,
    /// Folders that exist though they may be empty.
    pub folders: Vec<String>,
    /// All entries but the first, in their order.
    pub files: Vec<ArchivedFile>,
}

/// A test executable with accuracy tests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArchivedBinary {
    pub path: String,
    pub package: String,
    /// As a person names it: `kernels --test fp8`.
    pub name: String,
    /// Folder of the package: the working directory of its tests.
    pub package_dir: String,
    /// Folders in which its kernel libraries are looked for, in this order.
    pub libraries: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Whether it was built with the emulator.
    #[serde(default)]
    pub can_emulate: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArchivedFile {
    pub path: String,
    pub size: u64,
}

impl Contents {
    /// Folder and file name of each kernel library.
    pub fn libraries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter_map(|file| file.path.rsplit_once('/'))
            .filter(|(folder, _)| is_below(folder, LIBRARIES))
    }

    /// How many files are neither executables nor libraries.
    pub fn data_files(&self) -> usize {
        self.files.iter().filter(|file| is_below(&file.path, FILES)).count()
    }

    /// What cannot be in an archive that this tool has written: a path that leads elsewhere, twice the same, or a
    /// reference to what is not there.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = std::collections::BTreeSet::new();
        for path in self.files.iter().map(|file| &file.path).chain(&self.folders) {
            let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
            if path.is_empty() || !inside {
                return Err(format!("the path {path:?} leads out of it"));
            }
            if !seen.insert(path.as_str()) {
                return Err(format!("it has {path:?} twice"));
            }
        }
        for binary in &self.binaries {
            for path in [&binary.path, &binary.package_dir].into_iter().chain(&binary.libraries) {
                if !seen.contains(path.as_str()) {
                    return Err(format!("{} needs {path:?}, which it does not have", binary.name));
                }
            }
        }
        Ok(())
    }
}

/// Whether a path of the archive lies in a folder of its root.
pub fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// What an executable runs on, in the names of `std::env::consts`: `x86_64-linux`.
///
/// Of the ELF header (System V ABI, chapter 4): 16 bytes of identification, then the type and the machine, two bytes
/// each, both little-endian on the machines that this tool runs on.
pub fn machine_of(executable: &Path) -> anyhow::Result<String> {
    let mut header = [0u8; 20];
    std::fs::File::open(executable)
        .and_then(|mut file| file.read_exact(&mut header))
        .with_context(|| format!("cannot read {}", executable.display()))?;
    let machine = u16::from_le_bytes([header[18], header[19]]);
    Ok(match machine {
        62 => "x86_64-linux".into(),
        183 => "aarch64-linux".into(),
        other => format!("ELF machine {other}"),
    })
}

/// What this tool runs on.
pub fn this_machine() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_an_executable_is_read_from_its_header() {
        assert_eq!(machine_of(&std::env::current_exe().unwrap()).unwrap(), this_machine());
    }

    #[test]
    fn a_path_that_leads_out_of_the_archive_is_refused() {
        for path in ["../x", "files/../../x", "/x", "files/./../x", ""] {
            let files = vec![ArchivedFile { path: path.into(), size: 0 }];
            let contents = Contents {
                format: FORMAT,
                tool: String::new(),
                machine: String::new(),
                config: Sources::default(),
                env: Vec::new(),
                binaries: Vec::new(),
                folders: Vec::new(),
                files,
            };
            assert!(contents.check().unwrap_err().contains("leads out"), "{path}");
        }
    }
}
