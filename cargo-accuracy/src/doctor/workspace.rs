//! Configuration, kernel libraries and checkpoints of the workspace, as its sources name them.

use super::runtimes::Found;
use super::{DoctorArgs, Section};
use crate::build;
use crate::config::{Config, Sources};
use crate::declared::Declared;
use crate::run::cargo::manifest_dir;
use crate::run::discover;
use accuracy_core::arch::Arch;
use accuracy_core::codeobject::{self, Contents, Target};
use accuracy_core::device::gpu::Kind;
use accuracy_core::env;
use accuracy_core::library::{code_object, parse_file_name};
use accuracy_core::weights::Checkpoint;

use cargo_metadata::{DependencyKind, Metadata, Package, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The workspace around the current folder, if there is one.
pub struct Workspace(Around);

/// What `cargo metadata` has found there.
enum Around {
    Workspace(Box<Inner>),
    /// No `Cargo.toml` in the current folder or above it.
    Nothing,
    /// There is one, and cargo cannot read it: what cargo says.
    Unreadable(String),
}

struct Inner {
    metadata: Metadata,
    config: anyhow::Result<Config>,
    /// Names of packages that take part in a run, with what they declare.
    packages: BTreeMap<String, Declared>,
}

/// Whether a manifest is named, or is in the current folder or above it.
fn has_manifest(args: &DoctorArgs) -> bool {
    let here = std::env::current_dir().unwrap_or_default();
    args.manifest.manifest_path.is_some() || here.ancestors().any(|folder| folder.join("Cargo.toml").exists())
}

impl Workspace {
    pub fn read(args: &DoctorArgs) -> Workspace {
        let mut command = args.manifest.metadata();
        let metadata = match command.no_deps().exec() {
            Ok(metadata) => metadata,
            Err(_) if !has_manifest(args) => return Workspace(Around::Nothing),
            Err(error) => return Workspace(Around::Unreadable(error.to_string().trim().to_owned())),
        };
        let config = Sources::read(&metadata).and_then(|sources| Config::new(&sources));
        let takes_part = |package: &&Package| {
            let by_default = config.as_ref().map_or(true, |c| c.runs_by_default(&package.name));
            discover::can_have_tests(package) && by_default
        };
        let packages = metadata
            .workspace_packages()
            .into_iter()
            .filter(takes_part)
            .map(|package| (package.name.to_string(), Declared::of(manifest_dir(package))))
            .collect();
        Workspace(Around::Workspace(Box::new(Inner { metadata, config, packages })))
    }

    fn inner(&self) -> Option<&Inner> {
        match &self.0 {
            Around::Workspace(inner) => Some(inner),
            Around::Nothing | Around::Unreadable(_) => None,
        }
    }

    pub fn is_some(&self) -> bool {
        self.inner().is_some()
    }

    /// The architectures that a run would be for.
    pub fn wanted(&self, named: &[Arch]) -> BTreeSet<Arch> {
        if !named.is_empty() {
            return named.iter().copied().collect();
        }
        if let Some(arch) = std::env::var(env::ARCH).ok().and_then(|name| name.parse().ok()) {
            return BTreeSet::from([arch]);
        }
        let Some(Inner { config: Ok(config), packages, .. }) = self.inner() else { return BTreeSet::new() };
        packages.keys().filter_map(|name| config.arch(name)).flatten().collect()
    }

    /// Whether the configuration of a package asks for emulation.
    pub fn emulates(&self) -> bool {
        let Some(Inner { config: Ok(config), packages, .. }) = self.inner() else { return false };
        packages.keys().any(|name| config.emulate(name))
    }

    /// Whether a build script compiles kernels for the host.
    pub fn compiles_for_host(&self) -> bool {
        self.inner().is_some_and(|inner| inner.members().any(|(package, _)| compiles_for_host(package)))
    }

    /// What the configuration says, and what packages depend on.
    pub fn configuration(&self, named: &[Arch]) -> Section {
        let mut section = Section::new("Workspace");
        if let Around::Unreadable(said) = &self.0 {
            section.problem(
                format!("cargo cannot read the workspace: {said}"),
                "mend the Cargo.toml that it names",
            );
            return section;
        }
        let Some(inner) = self.inner() else {
            section.note(
                "the current folder is in no Cargo workspace: kernel libraries and checkpoints are not looked at",
                "come again in the folder of a kernel crate; `cargo accuracy init` sets one up",
            );
            return section;
        };
        let config = match &inner.config {
            Ok(config) => config,
            Err(error) => {
                section.problem(format!("{error:#}"), "mend the configuration");
                return section;
            }
        };
        if inner.packages.is_empty() {
            section.problem(
                format!("no package of {} depends on accuracy-core", inner.metadata.workspace_root),
                "cargo accuracy init -p PACKAGE",
            );
        }
        for (package, declared) in inner.members() {
            let name = &package.name;
            let tests = match declared.tests.len() {
                0 => "no accuracy test".into(),
                1 => "1 accuracy test".into(),
                n => format!("{n} accuracy tests"),
            };
            let configured: Option<Vec<&str>> =
                config.arch(name).map(|archs| archs.into_iter().map(Arch::name).collect());
            match configured {
                Some(archs) => section.good(format!("{name}: {tests}, arch = {}", archs.join(", "))),
                None if !named.is_empty() || std::env::var_os(env::ARCH).is_some() => {
                    section.good(format!("{name}: {tests}, no configured architecture"));
                }
                None => section.problem(
                    format!("{name}: {tests}, and no architecture is named for it"),
                    "arch = \"host\" in .config/accuracy.toml, or --arch",
                ),
            }
            if declared.tests.is_empty() {
                section.note(
                    format!("{name} depends on accuracy-core and its sources have no #[accuracy_test]"),
                    format!("cargo accuracy init -p {name} writes a first one"),
                );
            }
            for (file, error) in &declared.unread {
                section.note(format!("{}: {error}", inner.shown(file)), "its attributes were not read");
            }
        }
        section
    }

    /// Whether the libraries that the sources name are there, and hold code for what a run would be for.
    pub fn libraries(&self, wanted: &BTreeSet<Arch>, found: &[Found]) -> Section {
        let mut section = Section::new("Kernel libraries");
        let Some(inner) = self.inner() else { return section };
        for (package, declared) in inner.members() {
            let folders = inner.folders(package);
            let mut seen = BTreeSet::new();
            for library in declared.libraries.iter().filter(|l| seen.insert((&l.name, l.code_object))) {
                let is_file_of = |file: &str| {
                    parse_file_name(file).filter(|(name, _)| *name == library.name).map(|(_, arch)| arch)
                };
                let builds = builds(&folders, library.code_object, is_file_of);
                for (arch, path) in &builds {
                    let matched = check(path, *arch, found);
                    let shown = inner.shown(path);
                    match matched {
                        Ok(()) => section.good(format!("{}: {shown}", library.name)),
                        Err((what, fix)) => {
                            section.lacks(wanted.contains(arch), format!("{shown} {what}"), fix);
                        }
                    }
                }
                for &arch in wanted.iter().filter(|arch| !builds.contains_key(arch)) {
                    if !library.code_object && inner.names_sources(package, &library.name, arch) {
                        let (name, package) = (&library.name, &package.name);
                        section.good(format!(
                            "{name}: a run builds lib{name}_{arch}.so of the sources that {package} names"
                        ));
                    } else {
                        missing(&mut section, package, library, arch);
                    }
                }
            }
        }
        section
    }

    /// Whether the checkpoints that tests name can be read.
    pub fn checkpoints(&self) -> Section {
        let mut section = Section::new("Checkpoints");
        let Some(inner) = self.inner() else { return section };
        let mut seen = BTreeSet::new();
        for (package, declared) in inner.members() {
            let dir = manifest_dir(package);
            for test in &declared.tests {
                let activations = test.activations.as_deref().and_then(|text| text.split('#').next());
                for spec in test.checkpoint.as_deref().into_iter().chain(activations) {
                    let path = dir.join(spec);
                    if !seen.insert(inner.shown(&path)) {
                        continue;
                    }
                    match Checkpoint::open(&path) {
                        Ok(checkpoint) => {
                            let tensors = checkpoint.names().count();
                            let unit = if tensors == 1 { "tensor" } else { "tensors" };
                            section.good(format!("{}: {tensors} {unit}", inner.shown(checkpoint.path())));
                        }
                        Err(error) => {
                            let fix = if is_pointer(&path) {
                                "it is a pointer of Git LFS: git lfs pull".to_string()
                            } else {
                                format!(
                                    "carve it: cargo accuracy shard --from MODEL --tensors PATTERN --out {}",
                                    inner.shown(&path)
                                )
                            };
                            let (name, at) = (&test.name, &test.at);
                            section.problem(
                                format!(
                                    "{error}, which `{name}` reads ({}:{})",
                                    inner.shown(&at.file),
                                    at.line
                                ),
                                fix,
                            );
                        }
                    }
                }
            }
        }
        section
    }
}

impl Inner {
    fn members(&self) -> impl Iterator<Item = (&Package, &Declared)> {
        let all = self.metadata.workspace_packages();
        self.packages.iter().filter_map(move |(name, declared)| {
            Some((*all.iter().find(|p| p.name.as_str() == name)?, declared))
        })
    }

    fn shown(&self, path: &Path) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        path.strip_prefix(here).unwrap_or(&path).display().to_string()
    }

    /// Whether a package's Cargo.toml names the sources of a library for an architecture.
    fn names_sources(&self, package: &Package, library: &str, arch: Arch) -> bool {
        let Ok(config) = &self.config else { return false };
        config.libraries(&package.name).iter().any(|table| table.name == library && table.is_for(arch.name()))
    }

    /// Where a run would look for the libraries of a package, those of every profile that was built.
    fn folders(&self, package: &Package) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = std::env::var_os(env::LIBRARY_PATH)
            .map(|list| std::env::split_paths(&list).collect())
            .unwrap_or_default();
        if let Ok(config) = &self.config {
            folders.extend(build::folders(&self.metadata, config, package));
        }
        let target = self.metadata.target_directory.as_std_path();
        let prefix = format!("{}-", package.name);
        for profile in subfolders(target) {
            let mut outs: Vec<PathBuf> = subfolders(&profile.join("build"))
                .into_iter()
                .filter(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
                .map(|dir| dir.join("out"))
                .collect();
            // Of several builds of one profile the last is the one that tests were linked with.
            outs.sort_by_key(|out| std::cmp::Reverse(out.metadata().and_then(|m| m.modified()).ok()));
            folders.extend(outs);
        }
        folders.push(manifest_dir(package).join("lib"));
        folders
    }
}

fn subfolders(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

fn compiles_for_host(package: &Package) -> bool {
    let script = package.targets.iter().any(|t| t.kind.contains(&TargetKind::CustomBuild));
    script
        && package.dependencies.iter().any(|d| d.name == "accuracy-core" && d.kind == DependencyKind::Build)
}

/// The first build of each architecture, in the order of the folders.
fn builds(
    folders: &[PathBuf],
    code_object: bool,
    is_file_of: impl Fn(&str) -> Option<Arch>,
) -> BTreeMap<Arch, PathBuf> {
    let mut builds = BTreeMap::new();
    for folder in folders {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
        files.sort();
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if code_object::EXTENSIONS.contains(&&*extension) == code_object
                && let Some(arch) = is_file_of(&name)
            {
                builds.entry(arch).or_insert(path);
            }
        }
    }
    builds
}

/// Whether a file holds code for the architecture of its name, and for the visible device of that architecture.
fn check(path: &Path, arch: Arch, found: &[Found]) -> Result<(), (String, String)> {
    let contents = accuracy_core::files::read(path, accuracy_core::files::LIBRARY)
        .map_err(|e| e.to_string())
        .and_then(|bytes| codeobject::read(&bytes).map_err(|e| e.to_string()))
        .map_err(|error| (format!("cannot be read: {error}"), "build it again".to_string()))?;
    let held = || {
        let targets: BTreeSet<String> = contents.code_objects.iter().map(|c| c.target.to_string()).collect();
        if targets.is_empty() {
            "no code for a GPU".into()
        } else {
            targets.into_iter().collect::<Vec<_>>().join(", ")
        }
    };
    if arch == Arch::Host {
        let fits = contents.host.is_some() && contents.code_objects.is_empty();
        return if fits {
            Ok(())
        } else {
            Err((format!("is called host, and holds {}", held()), "build it with HostLibrary".into()))
        };
    }
    let named: Target = arch.name().parse().expect("every GPU's architecture is a target");
    if !runs_on(&contents, &named) {
        return Err((
            format!("has no code for {arch}: it holds {}", held()),
            match Kind::of(arch) {
                Some(Kind::Cuda) => format!("compile it with -arch={arch}"),
                _ => format!("compile it with --offload-arch={arch}"),
            },
        ));
    }
    // The device may have features, such as xnack, that the name of its architecture does not tell.
    let device = found
        .iter()
        .filter_map(|f| f.devices.as_ref().ok())
        .flatten()
        .find(|device| device.arch.parse() == Ok(arch))
        .and_then(|device| device.arch.parse::<Target>().ok());
    match device.filter(|device| !runs_on(&contents, device)) {
        None => Ok(()),
        Some(device) => Err((
            format!("does not run on the visible {device}: it holds {}", held()),
            format!("compile it with --offload-arch={device}, or without features"),
        )),
    }
}

fn runs_on(contents: &Contents, device: &Target) -> bool {
    contents.code_objects.iter().any(|c| c.target.runs_on(device))
}

fn missing(section: &mut Section, package: &Package, library: &crate::declared::Library, arch: Arch) {
    let name = &library.name;
    if library.code_object {
        if arch != Arch::Host {
            section.problem(
                format!("{name}: no {name}_{arch}.hsaco, .co or .cubin ({})", library.at),
                format!(
                    "put it into {}/lib, or its folder into {}",
                    manifest_dir(package).display(),
                    env::LIBRARY_PATH
                ),
            );
        }
    } else if arch == Arch::Host && compiles_for_host(package) {
        section.good(format!("{name}: lib{name}_host.so is made when the tests are built"));
    } else if arch == Arch::Host {
        section.problem(
            format!("{name}: no lib{name}_host.so, and no build script makes it"),
            format!("cargo accuracy init -p {} shows how", package.name),
        );
    } else {
        section.problem(
            format!("{name}: no lib{name}_{arch}.so ({})", library.at),
            format!(
                "build it for {arch} and put it into {}/lib, or its folder into {}",
                manifest_dir(package).display(),
                env::LIBRARY_PATH
            ),
        );
    }
}

/// Whether a file, or the weights in a folder, are what Git LFS leaves in place of a file that was not fetched.
fn is_pointer(path: &Path) -> bool {
    let path = if path.is_dir() { path.join("model.safetensors") } else { path.to_path_buf() };
    let small = path.metadata().is_ok_and(|m| m.len() < 1024);
    small && std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"version https://git-lfs"))
}
