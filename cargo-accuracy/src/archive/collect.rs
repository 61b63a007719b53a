//! What goes into an archive, and where: the files that a run in this workspace would read, as far as tests name
//! them. What a test opens by itself is not known here.

use super::contents::*;
use crate::build;
use crate::config::{Config, Sources};
use crate::run::cargo::Built;
use crate::run::discover::Binary;
use accuracy_core::library;
use accuracy_core::weights::{Checkpoint, WeightsError};
use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// What a build left.
pub struct Workspace<'a> {
    pub metadata: &'a Metadata,
    pub built: &'a Built,
    pub binaries: &'a [Binary],
}

/// Everything that an archive is made of.
pub struct Collected {
    pub contents: Contents,
    /// Where each of the contents' files is to be read.
    pub sources: Vec<PathBuf>,
    /// What a person should know of what is not in it.
    pub notes: Vec<String>,
}

impl Workspace<'_> {
    /// Collects the executables and what they need. Kernel libraries are looked for in `library_folders` first.
    pub fn collect(&self, config: Sources, library_folders: &[PathBuf]) -> anyhow::Result<Collected> {
        let mut files = BTreeMap::new();
        let mut notes = Vec::new();
        let data = Data::of(self.binaries, &mut notes)?;
        let base = data.base(self.metadata.workspace_root.as_std_path());
        for (to, from) in &data.files {
            add(&mut files, below(to, &base)?, from)?;
        }
        let named = libraries_in(library_folders)?;
        for (file, path) in &named {
            add(&mut files, format!("{LIBRARIES}/named/{file}"), path)?;
        }
        let packages = self.package_libraries(&Config::new(&config)?)?;
        for (index, package) in packages.iter().enumerate() {
            for (file, path) in package.files.iter().filter(|(file, _)| !named.contains_key(*file)) {
                add(&mut files, package.place(index, file), path)?;
            }
        }

        let mut binaries = Vec::new();
        for (index, binary) in self.binaries.iter().enumerate() {
            let name = binary.path.file_name().unwrap_or_default().to_string_lossy();
            let path = format!("{BINARIES}/{index}-{name}");
            add(&mut files, path.clone(), &binary.path)?;
            let package = self
                .member(&binary.package)
                .with_context(|| format!("{} is no package of the workspace", binary.package))?;
            binaries.push(ArchivedBinary {
                path,
                package: binary.package.clone(),
                name: binary.name.clone(),
                package_dir: below(&binary.working_dir, &base)?,
                libraries: self.library_folders(binary, package, &packages, &named)?,
                env: self.built.portable_environment(package),
                can_emulate: binary.can_emulate(),
            });
        }
        let mut folders: BTreeSet<String> = binaries.iter().flat_map(|b| b.libraries.clone()).collect();
        for folder in &data.folders {
            folders.insert(below(folder, &base)?);
        }
        let machine = machine_of(&self.binaries[0].path)?;

        let mut archived = Vec::with_capacity(files.len());
        let mut sources = Vec::with_capacity(files.len());
        for (path, source) in files {
            let size = source.metadata().with_context(|| format!("cannot read {}", source.display()))?.len();
            archived.push(ArchivedFile { path, size });
            sources.push(source);
        }
        let contents = Contents {
            format: FORMAT,
            tool: env!("CARGO_PKG_VERSION").into(),
            machine,
            config,
            env: self.built.configured.clone(),
            binaries,
            folders: folders.into_iter().collect(),
            files: archived,
        };
        contents.check().map_err(|what| anyhow::anyhow!("the archive would be of no use: {what}"))?;
        Ok(Collected { contents, sources, notes })
    }

    fn member(&self, name: &str) -> Option<&Package> {
        self.metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == name)
    }

    /// The libraries of every package that took part in the build and has some.
    fn package_libraries(&self, config: &Config) -> anyhow::Result<Vec<PackageLibraries>> {
        let mut packages = Vec::new();
        for (id, dir) in &self.built.package_dirs {
            let member = self.metadata.workspace_packages().into_iter().find(|package| package.id == *id);
            let own = member.map(|package| build::folders(self.metadata, config, package));
            let out_dir = self.built.out_dir(id).map(Path::to_path_buf);
            // The order of the test process.
            let folders: Vec<_> = own.into_iter().flatten().chain(out_dir).chain([dir.join("lib")]).collect();
            let files = libraries_in(&folders)?;
            if !files.is_empty() {
                let label = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                packages.push(PackageLibraries { id: id.clone(), label, files });
            }
        }
        Ok(packages)
    }

    /// Where a test executable finds its libraries: those named on the command line, those of its own package, those
    /// of the packages that may be linked into it.
    fn library_folders(
        &self,
        binary: &Binary,
        package: &Package,
        packages: &[PackageLibraries],
        named: &BTreeMap<String, PathBuf>,
    ) -> anyhow::Result<Vec<String>> {
        let linked = self.linked(package);
        let mut used: Vec<(usize, &PackageLibraries)> = packages
            .iter()
            .enumerate()
            .filter(|(_, libraries)| {
                let member = self.metadata.workspace_members.contains(&libraries.id);
                // Of other packages cargo's metadata does not say here whose dependencies they are.
                !member || linked.contains(&libraries.id)
            })
            .collect();
        used.sort_by_key(|(_, libraries)| libraries.id != package.id);

        let all: Vec<&PackageLibraries> = used.iter().map(|(_, libraries)| *libraries).collect();
        if let Some((name, one, other)) = clash(&all, named)? {
            anyhow::bail!(
                "{} links two packages with a kernel library `{name}` each, {one} and {other}, which an archive \
                 cannot tell apart: rename one of them",
                binary.name,
            );
        }
        let mut folders: Vec<String> = Vec::new();
        if !named.is_empty() {
            folders.push(format!("{LIBRARIES}/named"));
        }
        folders.extend(used.iter().map(|(index, libraries)| libraries.folder(*index)));
        Ok(folders)
    }

    /// The members of the workspace that may be linked into the tests of one.
    fn linked(&self, package: &Package) -> BTreeSet<PackageId> {
        let mut linked = BTreeSet::new();
        let mut open = vec![package];
        while let Some(package) = open.pop() {
            if linked.insert(package.id.clone()) {
                let dependencies = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Build);
                open.extend(dependencies.filter_map(|d| self.member(&d.name)));
            }
        }
        linked
    }
}

/// Kernel libraries of one package, by file name.
struct PackageLibraries {
    id: PackageId,
    /// Name of the package's folder.
    label: String,
    files: BTreeMap<String, PathBuf>,
}

impl PackageLibraries {
    fn folder(&self, index: usize) -> String {
        // Two packages may be in folders of the same name.
        format!("{LIBRARIES}/{index}-{}", self.label)
    }

    fn place(&self, index: usize, file: &str) -> String {
        format!("{}/{file}", self.folder(index))
    }

    fn by_name(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in self.files.keys() {
            if let Some((name, _)) = library::parse_file_name(file) {
                names.entry(name).or_default().push(file);
            }
        }
        names
    }
}

/// Two packages with different libraries of one name, and that name: all bindings of a process look in the same
/// folders of an archive, and one of them would get the other's library.
fn clash<'a>(
    packages: &[&'a PackageLibraries],
    named: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<Option<(&'a str, &'a str, &'a str)>> {
    let mut owners: BTreeMap<&str, &PackageLibraries> = BTreeMap::new();
    for &libraries in packages {
        for (name, files) in libraries.by_name() {
            let Some(other) = owners.insert(name, libraries) else { continue };
            // Those that the command line names are taken for every package, here as in the workspace.
            let all_named = files.iter().all(|file| named.contains_key(*file));
            if !all_named && !same(libraries, other, name)? {
                return Ok(Some((name, &other.label, &libraries.label)));
            }
        }
    }
    Ok(None)
}

/// Whether two packages have the same builds of a library.
fn same(one: &PackageLibraries, other: &PackageLibraries, name: &str) -> anyhow::Result<bool> {
    let (files, others) = (&one.by_name()[name], &other.by_name()[name]);
    if files != others {
        return Ok(false);
    }
    for file in files {
        let read = |path: &Path| {
            accuracy_core::files::read(path, accuracy_core::files::LIBRARY)
                .with_context(|| format!("cannot read kernel library {}", path.display()))
        };
        if read(&one.files[*file])? != read(&other.files[*file])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Kernel libraries by file name; of two the one in the earlier folder. A folder may be missing.
fn libraries_in(folders: &[PathBuf]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let context = || format!("cannot read folder {}", folder.display());
        for entry in std::fs::read_dir(folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if library::parse_file_name(name).is_some() && path.is_file() {
                found.entry(name.to_string()).or_insert(path);
            }
        }
    }
    Ok(found)
}

/// Package folders, checkpoints and recorded activations, by the places that tests name.
#[derive(Default)]
struct Data {
    /// From the place to where it is read. They differ where a package is reached through a link.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Folders that have to exist.
    folders: BTreeSet<PathBuf>,
}

impl Data {
    fn of(binaries: &[Binary], notes: &mut Vec<String>) -> anyhow::Result<Data> {
        let mut data = Data::default();
        let mut named = BTreeSet::new();
        for binary in binaries {
            let package = &binary.working_dir;
            data.folders.insert(package.clone());
            for body in binary.tests.iter().map(|test| &test.body) {
                let recorded = body.activations.as_deref().map(|a| a.rsplit_once('#').map_or(a, |(f, _)| f));
                let places = body.checkpoint.as_deref().into_iter().chain(recorded);
                named.extend(places.map(|place| (package.clone(), place.to_string())));
            }
        }
        for (package, place) in &named {
            if let Err(note) = data.add(package, place)? {
                notes.push(note);
            }
        }
        Ok(data)
    }

    /// Adds what a test of `package` names. What cannot be archived is left out with a note: its cases fail when they
    /// run, and say so.
    fn add(&mut self, package: &Path, place: &str) -> anyhow::Result<Result<(), String>> {
        if Path::new(place).is_absolute() {
            return Ok(Err(format!(
                "{place} is an absolute path and not archived: it must exist where the archive runs"
            )));
        }
        let from = package.join(place);
        let files = match Checkpoint::paths(&from) {
            Ok(files) => files,
            Err(WeightsError::NotFound { path }) => {
                return Ok(Err(format!("{} is not there, so it is not archived", path.display())));
            }
            Err(error) => return Err(error.into()),
        };
        let to = self.walk(package, Path::new(place));
        let (from, to) = match from.is_dir() {
            true => (from.as_path(), to.as_path()),
            false => (from.parent().unwrap_or(Path::new("")), to.parent().unwrap_or(Path::new(""))),
        };
        self.folders.insert(to.into());
        for file in files {
            let name = file.strip_prefix(from).context("a file of a checkpoint is outside of its folder")?;
            self.files.insert(to.join(name), file);
        }
        Ok(Ok(()))
    }

    /// Where a relative path leads in a tree without links. The folders on the way have to exist, or `x/../y` would
    /// lead nowhere.
    fn walk(&mut self, package: &Path, place: &Path) -> PathBuf {
        let mut at = package.to_path_buf();
        for component in place.components() {
            match component {
                Component::ParentDir => {
                    self.folders.insert(at.clone());
                    at.pop();
                }
                Component::Normal(name) => at.push(name),
                _ => {}
            }
        }
        at
    }

    /// The folder that holds all of them and the workspace.
    fn base(&self, workspace: &Path) -> PathBuf {
        let mut base = workspace.to_path_buf();
        for path in self.folders.iter().chain(self.files.keys()) {
            while !path.starts_with(&base) && base.pop() {}
        }
        base
    }
}

/// The place in the archive of a path in `base`.
fn below(path: &Path, base: &Path) -> anyhow::Result<String> {
    let inner = path.strip_prefix(base).with_context(|| format!("{} is not absolute", path.display()))?;
    let inner = inner.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(if inner.is_empty() { FILES.into() } else { format!("{FILES}/{inner}") })
}

fn add(files: &mut BTreeMap<String, PathBuf>, path: String, source: &Path) -> anyhow::Result<()> {
    if let Some(other) = files.insert(path.clone(), source.into()) {
        anyhow::bail!("{} and {} would both be {path} in the archive", other.display(), source.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_different_libraries_of_one_name_are_told() {
        let root = tempfile::tempdir().unwrap();
        let package = |label: &str, files: &[(&str, &str)]| {
            let dir = root.path().join(label);
            std::fs::create_dir(&dir).unwrap();
            for (file, text) in files {
                std::fs::write(dir.join(file), text).unwrap();
            }
            let id = PackageId { repr: label.into() };
            PackageLibraries { id, label: label.into(), files: libraries_in(&[dir]).unwrap() }
        };
        let a = package("a", &[("libgemm_host.so", "1"), ("libmoe_host.so", "2"), ("README.md", "")]);
        let same = package("same", &[("libgemm_host.so", "1")]);
        let other = package("other", &[("libgemm_host.so", "3")]);
        // A binding of `a` would get the library of this one on that architecture.
        let other_arch = package("other_arch", &[("libgemm_gfx950.so", "1")]);
        let none = BTreeMap::new();
        assert_eq!(clash(&[&a, &same], &none).unwrap(), None);
        assert_eq!(clash(&[&a, &other], &none).unwrap(), Some(("gemm", "a", "other")));
        assert_eq!(clash(&[&a, &other_arch], &none).unwrap(), Some(("gemm", "a", "other_arch")));
        let named = other.files.clone();
        assert_eq!(clash(&[&a, &other], &named).unwrap(), None);
    }

    #[test]
    fn relative_places_keep_leading_where_they_led() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["ws/crates/a", "ws/shards/x", "outside"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["ws/shards/x/model.safetensors", "ws/shards/x/README.md", "outside/a.safetensors"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        let package = root.path().join("ws/crates/a");
        let mut data = Data::default();
        data.folders.insert(package.clone());
        data.add(&package, "../../shards/x").unwrap().unwrap();
        assert_eq!(data.base(&root.path().join("ws")), root.path().join("ws"));
        data.add(&package, "../../../outside/a.safetensors").unwrap().unwrap();
        let base = data.base(&root.path().join("ws"));
        assert_eq!(base, root.path());
        let names: Vec<String> = data.files.keys().map(|file| below(file, &base).unwrap()).collect();
        assert_eq!(names, ["files/outside/a.safetensors", "files/ws/shards/x/model.safetensors"]);
        for folder in ["files/ws/crates/a", "files/ws/crates"] {
            let folders: Vec<String> = data.folders.iter().map(|f| below(f, &base).unwrap()).collect();
            assert!(folders.contains(&folder.to_string()), "{folders:?}");
        }
    }
}
