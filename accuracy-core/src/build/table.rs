//! Kernel libraries as `Cargo.toml` names them: `[[package.metadata.accuracy.library]]`. The plugin builds them for every
//! architecture, and a build script those of the host, out of the same table.

use super::BuildError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A table `[[package.metadata.accuracy.library]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryTable {
    /// As `#[kernel_library]` names it.
    pub name: String,
    /// HIP, CUDA or C++ files, relative to the package; a folder stands for those in it.
    pub sources: Vec<PathBuf>,
    /// Folders of headers, relative to the package.
    #[serde(default)]
    pub include: Vec<PathBuf>,
    /// Flags for the compiler, behind those that are always given.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Flags for the linker, behind the objects.
    #[serde(default)]
    pub link: Vec<String>,
    /// Names of the architectures that it is built for; all where none is named.
    #[serde(default)]
    pub archs: Vec<String>,
}

impl LibraryTable {
    /// Whether it is built for an architecture.
    pub fn is_for(&self, arch: &str) -> bool {
        self.archs.is_empty() || self.archs.iter().any(|named| named == arch)
    }

    /// The files that the library is made of, in the order of the table; those of a folder by name.
    ///
    /// # Errors
    /// If a source is not there, a folder has none, or none is named.
    pub fn files(&self, package: &Path) -> Result<Vec<PathBuf>, BuildError> {
        const EXTENSIONS: [&str; 6] = ["hip", "cu", "cpp", "cc", "cxx", "c++"];
        let library = || self.name.clone();
        let mut files = Vec::new();
        for named in &self.sources {
            let path = package.join(named);
            if path.is_file() {
                files.push(path);
                continue;
            }
            if !path.is_dir() {
                let (source, folder) = (named.clone(), package.to_path_buf());
                return Err(BuildError::SourceMissing { library: library(), source, folder });
            }
            let read = |error| BuildError::Read { path: path.clone(), error };
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(read)? {
                let file = entry.map_err(read)?.path();
                if file.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)) {
                    found.push(file);
                }
            }
            if found.is_empty() {
                return Err(BuildError::EmptyFolder { folder: path, extensions: EXTENSIONS.join(", .") });
            }
            found.sort();
            files.extend(found);
        }
        match files.is_empty() {
            true => Err(BuildError::NoSources { library: library() }),
            false => Ok(files),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    accuracy: Accuracy,
}

/// What else there is, the plugin reads.
#[derive(Default, Deserialize)]
struct Accuracy {
    #[serde(default)]
    library: Vec<LibraryTable>,
}

/// The kernel libraries that a package's `Cargo.toml` names.
///
/// # Errors
/// If it cannot be read, or a table in it has keys or values that mean nothing.
pub fn tables(manifest: &Path) -> Result<Vec<LibraryTable>, BuildError> {
    let path = || manifest.to_path_buf();
    let text = std::fs::read_to_string(manifest).map_err(|error| BuildError::Read { path: path(), error })?;
    let read: Manifest = toml::from_str(&text)
        .map_err(|error| BuildError::Manifest { path: path(), error: error.to_string() })?;
    Ok(read.package.metadata.accuracy.library)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str) -> Result<Vec<LibraryTable>, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        std::fs::write(&manifest, format!("[package]\nname = \"k\"\n{table}")).unwrap();
        tables(&manifest)
    }

    #[test]
    fn a_package_names_its_libraries_or_none() {
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("[package.metadata.accuracy]\narch = \"host\"\n").unwrap(), []);
        let table = "[[package.metadata.accuracy.library]]\nname = \"gemm\"\nsources = [\"hip\"]\n";
        let library = read(&format!("{table}archs = [\"gfx950\"]\n")).unwrap().remove(0);
        assert_eq!((library.name.as_str(), &library.sources[..]), ("gemm", &[PathBuf::from("hip")][..]));
        assert!(library.is_for("gfx950") && !library.is_for("host"));
        assert!(read(table).unwrap()[0].is_for("host"));
        let error = read(&format!("{table}flag = [\"-w\"]\n")).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("unknown field `flag`"), "{error}");
    }

    #[test]
    fn a_folder_stands_for_its_sources_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let table = |sources: &[&str]| LibraryTable {
            name: "gemm".into(),
            sources: sources.iter().map(PathBuf::from).collect(),
            include: Vec::new(),
            flags: Vec::new(),
            link: Vec::new(),
            archs: Vec::new(),
        };
        std::fs::create_dir(folder.path().join("hip")).unwrap();
        let error = table(&["hip"]).files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no source (.hip, .cu"), "{error}");
        for file in ["hip/b.hip", "hip/a.cpp", "hip/a.h", "c.cu"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let files = table(&["c.cu", "hip"]).files(folder.path()).unwrap();
        assert_eq!(files, ["c.cu", "hip/a.cpp", "hip/b.hip"].map(|file| folder.path().join(file)));
        let error = table(&["d.hip"]).files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`d.hip`") && error.contains("looked for in"), "{error}");
        assert!(matches!(table(&[]).files(folder.path()), Err(BuildError::NoSources { .. })));
    }
}
