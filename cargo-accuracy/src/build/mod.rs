//! Kernel libraries whose sources `[package.metadata.accuracy]` names: built for each architecture of a run, or by
//! `cargo accuracy build`. What has not changed is not built again.
//!
//! [`compiler`] knows which compiler an architecture needs and its flags, [`unit`](mod@unit) compiles and links.

pub mod compiler;
mod unit;

use crate::config::{Config, Sources};
use crate::exit::{ExitCode, usage};
use crate::header;
use crate::run::cargo::{CargoArgs, manifest_dir};
use accuracy_core::arch::Arch;
use accuracy_core::env;
use anyhow::Context as _;
use cargo_metadata::{Metadata, Package};
use rayon::prelude::*;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use unit::Unit;

/// A table `[[package.metadata.accuracy.library]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Library {
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
    /// The architectures that it is built for; all where none is named.
    #[serde(default, deserialize_with = "archs")]
    pub archs: Vec<Arch>,
}

fn archs<'de, D: Deserializer<'de>>(names: D) -> Result<Vec<Arch>, D::Error> {
    let names = Vec::<String>::deserialize(names)?;
    names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
}

/// Flags of `cargo accuracy build`.
#[derive(Clone, Debug, clap::Args)]
pub struct KernelBuildArgs {
    /// Architecture to build for: host, gfx942, gfx950, sm_90, ... (repeatable)
    ///
    /// Without it the environment's ACCURACY_ARCH, and without that the configuration's `arch`.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    #[command(flatten)]
    pub cargo: CargoArgs,
}

pub fn command(args: KernelBuildArgs) -> anyhow::Result<ExitCode> {
    let metadata = args.cargo.metadata()?;
    let config = Config::new(&Sources::read(&metadata)?)?;
    let mut built = Vec::new();
    for package in args.cargo.selected(&metadata) {
        if config.libraries(&package.name).is_empty() {
            continue;
        }
        let named = if args.arch.is_empty() { crate::run::arch_from_env()? } else { Some(args.arch.clone()) };
        let archs = named.or_else(|| config.arch(&package.name)).with_context(|| {
            format!("no architecture is named for {}: name one with --arch", package.name)
        })?;
        built.extend(libraries(&metadata, &config, package, &archs)?);
    }
    if built.is_empty() {
        anstream::eprintln!(
            "nothing to build: no [[package.metadata.accuracy.library]] in the selected packages"
        );
        return Ok(ExitCode::NothingRan);
    }
    for path in built {
        writeln!(std::io::stdout(), "{}", path.display())?;
    }
    Ok(ExitCode::Correct)
}

/// Where the libraries of a package are built.
pub fn folder(metadata: &Metadata, package: &Package) -> PathBuf {
    metadata.target_directory.as_std_path().join("accuracy").join("kernels").join(package.name.as_str())
}

/// Where a package's kernels are beside its build script's output and `lib/`, in the order in which they are looked for:
/// the folders that it names, and the one where its libraries are built.
pub fn folders(metadata: &Metadata, config: &Config, package: &Package) -> Vec<PathBuf> {
    let named = config.library_path(&package.name).iter().map(|named| manifest_dir(package).join(named));
    named.chain([folder(metadata, package)]).collect()
}

/// The value of ACCURACY_LIBRARY_PATH with which a package's tests find them, too: behind what it says already. `None`
/// where the package names neither.
pub fn library_path(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
) -> anyhow::Result<Option<String>> {
    if config.libraries(&package.name).is_empty() && config.library_path(&package.name).is_empty() {
        return Ok(None);
    }
    let named = std::env::var_os(env::LIBRARY_PATH).unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty());
    let folders = folders(metadata, config, package);
    let joined = std::env::join_paths(named.chain(folders.iter().cloned()))
        .with_context(|| format!("a folder of kernel libraries has a colon in its name: {folders:?}"))?;
    Ok(Some(joined.to_string_lossy().into_owned()))
}

/// Builds a package's libraries for architectures, and says where they are.
///
/// # Errors
/// If a source is missing, there is no compiler for an architecture, or it fails: with its command and what it said.
pub fn libraries(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
    archs: &[Arch],
) -> anyhow::Result<Vec<PathBuf>> {
    let (dir, out) = (manifest_dir(package), folder(metadata, package));
    let mut built = Vec::new();
    for library in config.libraries(&package.name) {
        let archs = archs.iter().filter(|arch| library.archs.is_empty() || library.archs.contains(arch));
        for &arch in archs.collect::<BTreeSet<_>>() {
            let path = build(library, arch, dir, &out).with_context(|| {
                format!(
                    "kernel library `{}` of package {} cannot be built for {arch}",
                    library.name, package.name
                )
            })?;
            built.push(path);
        }
    }
    Ok(built)
}

fn build(library: &Library, arch: Arch, dir: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let sources = sources(library, dir)?;
    let include = out.join("include");
    // What Rust binds, for sources that have themselves checked.
    for (file, text) in header::headers(&header::of_package(dir))? {
        header::write_if_changed(&include.join(file), &text)?;
    }
    let compiler = compiler::find(arch, out)?;
    let objects = out.join("objects").join(format!("{}_{arch}", library.name));
    std::fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
    let units: Vec<Unit> = sources
        .iter()
        .map(|source| {
            // Two sources may have one name in different folders.
            let name: String = source
                .strip_prefix(dir)
                .unwrap_or(source)
                .to_string_lossy()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
                .collect();
            let object = objects.join(format!("{name}.o"));
            let mut command = compiler.compile();
            command.current_dir(dir).args(&library.flags);
            for folder in &library.include {
                command.arg("-I").arg(folder);
            }
            command.arg("-I").arg(&include).args(["-MMD", "-MF"]).arg(object.with_extension("d"));
            command.arg("-c").arg(source).arg("-o").arg(&object);
            Unit { command, inputs: vec![source.clone()], output: object }
        })
        .collect();
    units.par_iter().try_for_each(|unit| unit.bring_up_to_date(&compiler))?;
    let file = out.join(format!("lib{}_{arch}.so", library.name));
    let mut command = compiler.link();
    let inputs: Vec<PathBuf> = units.into_iter().map(|unit| unit.output).collect();
    command.current_dir(dir).args(&inputs).args(&library.link).arg("-o").arg(&file);
    Unit { command, inputs, output: file.clone() }.bring_up_to_date(&compiler)?;
    Ok(file)
}

/// The files that a library is made of.
fn sources(library: &Library, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    const EXTENSIONS: [&str; 6] = ["hip", "cu", "cpp", "cc", "cxx", "c++"];
    let mut files = Vec::new();
    for named in &library.sources {
        let path = dir.join(named);
        if path.is_file() {
            files.push(path);
        } else if path.is_dir() {
            let entries =
                std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut found = Vec::new();
            for entry in entries {
                let file = entry?.path();
                if file.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)) {
                    found.push(file);
                }
            }
            if found.is_empty() {
                return Err(usage(format!(
                    "folder {} has no source (.{})",
                    path.display(),
                    EXTENSIONS.join(", .")
                )));
            }
            found.sort();
            files.extend(found);
        } else {
            return Err(usage(format!(
                "source {} is not there, looked for in {}",
                named.display(),
                dir.display()
            )));
        }
    }
    if files.is_empty() {
        return Err(usage("it names no sources"));
    }
    Ok(files)
}
