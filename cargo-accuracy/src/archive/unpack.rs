//! Opens an archive, checks that it is whole and meant for this tool and machine, and unpacks it.

use super::contents::*;
use crate::config::Config;
use crate::exit::usage;
use crate::run::cargo::MANIFEST_DIR;
use crate::run::discover::Binary;
use accuracy_core::arch::Arch;
use accuracy_core::{env, library, meta};
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// More than the description of any archive needs.
const MAX_CONTENTS: u64 = 256 << 20;

type Stream = tar::Archive<zstd::Decoder<'static, BufReader<Hashed>>>;

/// A file of which everything that is read is hashed.
struct Hashed {
    file: File,
    hasher: blake3::Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// An archive of which nothing but its description has been read.
pub struct Archive {
    path: PathBuf,
    pub contents: Contents,
    pub config: Config,
}

impl Archive {
    pub fn open(path: &Path) -> anyhow::Result<Archive> {
        let bytes = first_entry(path)?;
        let foreign = |e| anyhow::anyhow!("{} is no archive of cargo accuracy: {e}", path.display());
        let version: Version = serde_json::from_slice(&bytes).map_err(foreign)?;
        if version.format != FORMAT {
            anyhow::bail!(
                "{} has format {} (cargo-accuracy {}), and this is cargo-accuracy {}, which reads format {FORMAT}: \
                 make the archive with the version that runs it",
                path.display(),
                version.format,
                version.tool,
                env!("CARGO_PKG_VERSION"),
            );
        }
        let contents: Contents = serde_json::from_slice(&bytes).map_err(foreign)?;
        contents.check().map_err(|what| anyhow::anyhow!("{} is damaged: {what}", path.display()))?;
        if contents.machine != this_machine() {
            anyhow::bail!(
                "the test executables of {} are for {}, and this machine is {}: make the archive on a machine of \
                 this kind",
                path.display(),
                contents.machine,
                this_machine()
            );
        }
        let config = Config::new(&contents.config)?;
        Ok(Archive { path: path.into(), contents, config })
    }

    /// Unpacks all files into a folder of their own, among those for temporary files.
    pub fn unpack(&self) -> anyhow::Result<Unpacked> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let root = std::env::temp_dir().join(format!("cargo-accuracy-{}-{now}", std::process::id()));
        let root = std::path::absolute(&root).with_context(|| format!("folder {}", root.display()))?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&root)
            .with_context(|| format!("cannot make {} (TMPDIR names another place)", root.display()))?;
        let mut unpacked = Unpacked { root, hash: String::new() };
        unpacked.hash = self
            .unpack_into(&unpacked.root)
            .with_context(|| format!("cannot unpack {}", self.path.display()))?;
        Ok(unpacked)
    }

    /// Returns the hash of the file.
    fn unpack_into(&self, root: &Path) -> anyhow::Result<String> {
        for folder in &self.contents.folders {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut stream = open(&self.path)?;
        let mut entries = stream.entries().with_context(cut)?.skip(1);
        for file in &self.contents.files {
            let mut entry =
                entries.next().with_context(|| format!("{} is missing", file.path))?.with_context(cut)?;
            let path = entry.path().with_context(cut)?.into_owned();
            let plain = entry.header().entry_type() == tar::EntryType::Regular;
            if path != Path::new(&file.path) || !plain || entry.size() != file.size {
                anyhow::bail!(
                    "it is damaged: {} ({} bytes) stands where {} ({} bytes) is announced",
                    path.display(),
                    entry.size(),
                    file.path,
                    file.size
                );
            }
            write(&mut entry, &root.join(&file.path), file)?;
        }
        if let Some(entry) = entries.next() {
            let path = entry.with_context(cut)?.path().with_context(cut)?.into_owned();
            anyhow::bail!("it is damaged: it holds {}, which it does not announce", path.display());
        }
        drop(entries);
        // The checksum stands at the end.
        let mut decoder = stream.into_inner();
        std::io::copy(&mut decoder, &mut std::io::sink()).with_context(cut)?;
        Ok(decoder.finish().into_inner().hasher.finalize().to_hex().to_string())
    }

    /// Names of the packages that have tests in it.
    pub fn packages(&self) -> BTreeSet<&str> {
        self.contents.binaries.iter().map(|b| b.package.as_str()).collect()
    }

    /// The executables of the packages that the command line selects.
    pub fn selected(&self, workspace: &clap_cargo::Workspace) -> anyhow::Result<Vec<&ArchivedBinary>> {
        let packages = self.packages();
        for name in workspace.package.iter().chain(&workspace.exclude) {
            if !packages.contains(name.as_str()) {
                return Err(usage(format!(
                    "no package of {} is called `{name}`; there are: {}",
                    self.path.display(),
                    packages.into_iter().collect::<Vec<_>>().join(", ")
                )));
            }
        }
        let chosen = |b: &&ArchivedBinary| {
            (workspace.package.is_empty() || workspace.package.contains(&b.package))
                && !workspace.exclude.contains(&b.package)
        };
        Ok(self.contents.binaries.iter().filter(chosen).collect())
    }

    /// An error where kernel libraries are at hand for a package, but none of this architecture.
    pub fn require_library(&self, package: &str, arch: Arch) -> anyhow::Result<()> {
        let binaries = self.contents.binaries.iter().filter(|b| b.package == package);
        let folders: BTreeSet<&str> = binaries.flat_map(|b| &b.libraries).map(String::as_str).collect();
        let found: Vec<&str> = self
            .contents
            .libraries()
            .filter(|(folder, _)| folders.contains(folder))
            .map(|(_, file)| file)
            .collect();
        let is_for = |file: &str| library::parse_file_name(file).is_some_and(|(_, a)| a == arch);
        let elsewhere = inherited_folders()
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .any(|file| is_for(&file));
        if found.is_empty() || elsewhere || found.iter().any(|file| is_for(file)) {
            return Ok(());
        }
        anyhow::bail!(
            "{} holds no kernel library of {package} for {arch}; it holds {}: build it for {arch} and make the \
             archive again, or name its folder in {}",
            self.path.display(),
            found.join(", "),
            env::LIBRARY_PATH
        )
    }
}

/// An unpacked archive. Its folder is removed with it.
#[derive(Debug)]
pub struct Unpacked {
    root: PathBuf,
    /// Tells this archive from every other.
    pub hash: String,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever clears the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Unpacked {
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An executable as the runner takes it, with everything that it reads below this folder.
    pub fn binary(&self, archived: &ArchivedBinary, contents: &Contents) -> anyhow::Result<Binary> {
        let path = self.root.join(&archived.path);
        let package_dir = self.root.join(&archived.package_dir);
        let mut tests = meta::read_binary(&path)?;
        for test in &mut tests {
            test.manifest_dir = package_dir.clone();
        }
        let dir = package_dir.display().to_string();
        let mut environment: Vec<(String, String)> =
            contents.env.iter().filter_map(|variable| variable.to_set()).collect();
        environment.extend(archived.env.iter().cloned());
        environment.extend([(MANIFEST_DIR.to_string(), dir.clone()), (env::PACKAGE_DIR.to_string(), dir)]);
        let inherited = inherited_folders();
        if !inherited.is_empty() {
            // Tests run in the folders of their packages.
            let joined = std::env::join_paths(&inherited).with_context(|| {
                format!("a folder of kernel libraries has a colon in its name: {inherited:?}")
            })?;
            environment.push((env::LIBRARY_PATH.into(), joined.to_string_lossy().into_owned()));
        }
        // No two packages of an executable have a library of one name in it: see `clash` of what collects.
        let own = archived.libraries.iter().map(|folder| self.root.join(folder));
        let lines: String = own.map(|folder| format!("*\tarchive\t{}\n", folder.display())).collect();
        if !lines.is_empty() {
            environment.push((env::KERNEL_FOLDERS.into(), lines));
        }
        Ok(Binary {
            path,
            package: archived.package.clone(),
            name: archived.name.clone(),
            tests,
            working_dir: package_dir,
            environment,
        })
    }
}

/// Folders of kernel libraries that the environment names; they come before the archive's own.
fn inherited_folders() -> Vec<PathBuf> {
    let inherited = std::env::var_os(env::LIBRARY_PATH).unwrap_or_default();
    std::env::split_paths(&inherited)
        .filter(|folder| !folder.as_os_str().is_empty())
        .filter_map(|folder| std::path::absolute(folder).ok())
        .collect()
}

fn cut() -> String {
    "it is damaged or cut off: copy it again, or make it again".into()
}

fn open(path: &Path) -> anyhow::Result<Stream> {
    let file = accuracy_core::files::open(path)
        .with_context(|| format!("cannot open archive {}", path.display()))?;
    let hashed = Hashed { file, hasher: blake3::Hasher::new() };
    let decoder = zstd::Decoder::new(hashed).context("cannot start zstd")?;
    Ok(tar::Archive::new(decoder))
}

/// The bytes of the archive's description.
fn first_entry(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut stream = open(path)?;
    let mut read = || -> anyhow::Result<Vec<u8>> {
        let entry = stream.entries()?.next().context("it is empty")??;
        let name = entry.path()?.into_owned();
        if name != Path::new(CONTENTS) {
            anyhow::bail!("it begins with {} and not with {CONTENTS}", name.display());
        }
        if entry.size() > MAX_CONTENTS {
            anyhow::bail!("its description is said to have {} bytes", entry.size());
        }
        let size = entry.size();
        let mut bytes = Vec::new();
        entry.take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            anyhow::bail!("it is cut off");
        }
        Ok(bytes)
    };
    read().with_context(|| format!("{} cannot be read as an archive of cargo accuracy", path.display()))
}

fn write(from: &mut impl Read, path: &Path, file: &ArchivedFile) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(context)?;
    }
    let runs = is_below(&file.path, BINARIES) || is_below(&file.path, LIBRARIES);
    let mode = if runs { 0o755 } else { 0o644 };
    // Nothing of that name may be there yet.
    let mut to = File::options().write(true).create_new(true).mode(mode).open(path).with_context(context)?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = file.size;
    while left > 0 {
        let n = from.read(&mut buffer).with_context(cut)?;
        if n == 0 {
            anyhow::bail!("{}: {}", file.path, cut());
        }
        std::io::Write::write_all(&mut to, &buffer[..n]).with_context(context)?;
        left = left.saturating_sub(n as u64);
    }
    Ok(())
}
