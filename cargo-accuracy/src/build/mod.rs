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
use accuracy_core::build::LibraryTable;
use accuracy_core::device::gpu::Kind;
use accuracy_core::files;
use anyhow::Context as _;
use cargo_metadata::{Metadata, Package};
use compiler::Compiler;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use unit::Unit;

/// Flags of `cargo accuracy build`.
#[derive(Clone, Debug, clap::Args)]
pub struct KernelBuildArgs {
    /// Architecture to build for: host, gfx942, gfx950, sm_90, ... (repeatable)
    ///
    /// The default is ACCURACY_ARCH, else the configuration's `arch`.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    /// Put the code of all architectures into one library, compressed: lib{name}_gfx942-gfx950.so
    #[arg(long)]
    pub bundle: bool,
    /// Build a code object, as hipModuleLoad takes it, from the source with this name, instead of libraries (repeatable)
    #[arg(long, value_name = "SOURCE", conflicts_with = "bundle")]
    pub code_object: Vec<String>,
    /// Print the value of ACCURACY_LIBRARY_PATH with which plain `cargo test` finds the built libraries
    #[arg(long)]
    pub library_path: bool,
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
        let named =
            if args.arch.is_empty() { crate::config::arch_from_env()? } else { Some(args.arch.clone()) };
        let archs = named.or_else(|| config.arch(&package.name)).with_context(|| {
            format!("no architecture is named for {}: name one with --arch", package.name)
        })?;
        built.extend(match (&args.code_object[..], args.bundle) {
            ([], false) => libraries(&metadata, &config, package, &archs, None)?,
            ([], true) => bundles(&metadata, &config, package, &archs)?,
            (wanted, _) => code_objects(&metadata, &config, package, &archs, wanted)?,
        });
    }
    if built.is_empty() {
        crate::say!("nothing to build: no [[package.metadata.accuracy.library]] in the selected packages");
        return Ok(ExitCode::NothingRan);
    }
    if args.library_path {
        let folders: BTreeSet<PathBuf> =
            built.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
        let line = std::env::join_paths(&folders)
            .with_context(|| format!("a folder of kernel libraries has a colon in its name: {folders:?}"))?;
        writeln!(crate::screen::stdout(), "{}", line.to_string_lossy())?;
        return Ok(ExitCode::Correct);
    }
    for path in built {
        writeln!(crate::screen::stdout(), "{}", path.display())?;
    }
    Ok(ExitCode::Correct)
}

/// Where the libraries of a package are built: a folder for this package in this workspace, however many of either share
/// the target folder. In it each file that was built has a folder of its own, named by its contents, and is never
/// written again; [`LATEST`] has links to the latest ones.
fn folder(metadata: &Metadata, package: &Package) -> PathBuf {
    let place = blake3::hash(manifest_dir(package).as_os_str().as_encoded_bytes()).to_hex();
    let name = format!("{}-{}", package.name, &place[..8]);
    metadata.target_directory.as_std_path().join("accuracy").join("kernels").join(name)
}

/// Folder of links to what was built last.
const LATEST: &str = "latest";
/// Contents of a file that are kept beside the latest: a case that is running may not have opened its own yet.
const KEPT: usize = 8;

/// Where a package's kernels are beside its build script's output and `lib/`, in the order in which they are looked for:
/// the folders that it names, and the one where its libraries are built.
pub fn folders(metadata: &Metadata, config: &Config, package: &Package) -> Vec<PathBuf> {
    named(config, package).chain([folder(metadata, package).join(LATEST)]).collect()
}

/// The names of what was built last of a package.
fn latest(metadata: &Metadata, package: &Package) -> impl Iterator<Item = String> {
    let links = std::fs::read_dir(folder(metadata, package).join(LATEST)).into_iter().flatten().flatten();
    links.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The architectures for which libraries of a package were built before.
pub fn built_for(metadata: &Metadata, package: &Package) -> Vec<Arch> {
    latest(metadata, package)
        .filter(|name| name.ends_with(".so"))
        .filter_map(|name| accuracy_core::library::parse_file_name(&name).map(|(_, arch)| arch))
        .collect()
}

/// Brings code objects up to date that were built before, and says where they are: `build --code-object` names them once,
/// and what runs later must not be older than its sources. Only those for `archs`, or for any where that is `None`.
///
/// # Errors
/// As of [`libraries`], and if the source of one is gone.
pub fn code_objects_again(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
    archs: Option<&[Arch]>,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut built = Vec::new();
    for file in latest(metadata, package) {
        let Some((name, arch)) = parse_code_object(&file) else { continue };
        if archs.is_some_and(|archs| !archs.contains(&arch)) {
            continue;
        }
        let link = folder(metadata, package).join(LATEST).join(&file);
        built.extend(code_objects(metadata, config, package, &[arch], &[name.to_owned()]).with_context(
            || format!("{} was built before; remove it if nothing needs it any more", link.display()),
        )?);
    }
    Ok(built)
}

/// Name and architecture of `{name}_{arch}.co`.
fn parse_code_object(file: &str) -> Option<(&str, Arch)> {
    let (name, arch) = file.strip_suffix(".co")?.rsplit_once('_')?;
    Some((name, arch.parse().ok()?))
}

fn named<'a>(config: &'a Config, package: &'a Package) -> impl Iterator<Item = PathBuf> + 'a {
    config.library_path(&package.name).iter().map(|named| manifest_dir(package).join(named))
}

/// What a test process is told of a package's kernels, a line each, as ACCURACY_KERNEL_FOLDERS has it: the folders that
/// the package names, and those of the files that were `built` for this run.
///
/// # Errors
/// If a folder has a name that does not fit into a line.
pub fn kernel_folders(config: &Config, package: &Package, built: &[PathBuf]) -> anyhow::Result<String> {
    let mut folders: Vec<(&str, PathBuf)> = named(config, package).map(|dir| ("named", dir)).collect();
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    folders.extend(built.iter().map(|path| ("built", parent(path))));
    let mut lines = String::new();
    for (found, dir) in folders {
        let text = |path: &Path| {
            let text = path.to_str().filter(|text| !text.contains(['\t', '\n']));
            let text = text.with_context(|| format!("the folder {path:?} is no line of text"))?;
            anyhow::Ok(text.to_owned())
        };
        lines += &format!("{}\t{found}\t{}\n", text(manifest_dir(package))?, text(&dir)?);
    }
    Ok(lines)
}

/// Keeps others from building the same package's libraries for as long as it lives.
fn lock(out: &Path) -> anyhow::Result<std::fs::File> {
    let context = || format!("cannot lock {}", out.display());
    std::fs::create_dir_all(out).with_context(context)?;
    let file = std::fs::File::create(out.join("lock")).with_context(context)?;
    file.lock().with_context(context)?;
    Ok(file)
}

/// Puts a file that was built where its contents say, and says where. Whoever has the file of an earlier build keeps it.
fn publish(out: &Path, built: &Path) -> anyhow::Result<PathBuf> {
    let context = || format!("cannot keep {}", built.display());
    let bytes = files::read(built, files::LIBRARY).with_context(context)?;
    let hash = blake3::hash(&bytes).to_hex();
    let name = built.file_name().unwrap_or_default();
    let dir = out.join(&hash[..16]);
    let path = dir.join(name);
    if !files::read(&path, files::LIBRARY).is_ok_and(|known| known == bytes) {
        std::fs::create_dir_all(&dir).with_context(context)?;
        let temporary = dir.join(format!(".{}.tmp", std::process::id()));
        std::fs::write(&temporary, &bytes).with_context(context)?;
        std::fs::rename(&temporary, &path).with_context(context)?;
    }
    let links = out.join(LATEST);
    std::fs::create_dir_all(&links).with_context(context)?;
    let temporary = links.join(format!(".{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let target = Path::new("..").join(&hash[..16]).join(name);
    std::os::unix::fs::symlink(target, &temporary)
        .and_then(|()| std::fs::rename(&temporary, links.join(name)))
        .with_context(context)?;
    forget_old(out, name, &path);
    Ok(path)
}

/// Removes what is oldest of a file's contents.
fn forget_old(out: &Path, name: &std::ffi::OsStr, own: &Path) {
    let of_name = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path().join(name));
    let mut old: Vec<_> = of_name
        .filter(|path| {
            path != own && path.parent().and_then(Path::file_name).is_some_and(|dir| dir != LATEST)
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    old.sort_by(|one, other| other.cmp(one));
    for (_, path) in old.into_iter().skip(KEPT) {
        // What stays does no harm; a folder that holds anything else stays.
        let _ = std::fs::remove_file(&path);
        let _ = path.parent().map(std::fs::remove_dir);
    }
}

/// Builds a package's libraries for architectures, and says where they are. Those that its build script has left in
/// `left` for the host are not built once more.
///
/// # Errors
/// If a source is missing, there is no compiler for an architecture, or it fails: with its command and what it said.
pub fn libraries(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
    archs: &[Arch],
    left: Option<&Path>,
) -> anyhow::Result<Vec<PathBuf>> {
    let (dir, out) = (manifest_dir(package), folder(metadata, package));
    if config.libraries(&package.name).is_empty() {
        return Ok(Vec::new());
    }
    let _lock = lock(&out)?;
    let mut built = Vec::new();
    for library in config.libraries(&package.name) {
        for &arch in archs.iter().filter(|arch| library.is_for(arch.name())).collect::<BTreeSet<_>>() {
            let file = format!("lib{}_{arch}.so", library.name);
            if let Some(own) = left.map(|folder| folder.join(&file)).filter(|own| own.is_file()) {
                forget(&out.join(LATEST).join(file))?;
                built.push(own);
                continue;
            }
            let path =
                build(library, &[arch], dir, &out).with_context(|| cannot(library, package, arch.name()))?;
            built.push(path);
        }
    }
    Ok(built)
}

/// Removes a library that would be found before the one that is meant.
fn forget(library: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(library) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", library.display()))
        }
        _ => Ok(()),
    }
}

fn cannot(library: &LibraryTable, package: &Package, archs: &str) -> String {
    format!("kernel library `{}` of package {} cannot be built for {archs}", library.name, package.name)
}

/// Builds a package's libraries for all of these architectures in one file each, `lib{name}_{arch}-{arch}.so`.
///
/// # Errors
/// As of [`libraries`], and if they are not AMD's.
fn bundles(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
    archs: &[Arch],
) -> anyhow::Result<Vec<PathBuf>> {
    let archs: Vec<Arch> = archs.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let _lock = lock(&folder(metadata, package))?;
    if let Some(other) = archs.iter().find(|arch| Kind::of(**arch) != Some(Kind::Hip)) {
        return Err(usage(format!(
            "--bundle: only code for AMD's GPUs shares a library, and {other} is none"
        )));
    }
    let (dir, out) = (manifest_dir(package), folder(metadata, package));
    let libraries = config.libraries(&package.name).iter();
    let all = libraries.filter(|library| archs.iter().all(|arch| library.is_for(arch.name())));
    all.map(|library| {
        build(library, &archs, dir, &out).with_context(|| cannot(library, package, &names(&archs)))
    })
    .collect()
}

fn names(archs: &[Arch]) -> String {
    archs.iter().map(|arch| arch.name()).collect::<Vec<_>>().join("-")
}

/// The folder of what the compiler makes of the package's bindings: headers, for sources that have themselves checked.
fn bound_headers(dir: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let include = out.join("include");
    for (file, text) in header::headers(&header::of_package(dir))? {
        header::write_if_changed(&include.join(file), &text)?;
    }
    Ok(include)
}

/// What compiles a source of a library into `output`.
fn unit(
    library: &LibraryTable,
    compiler: &Compiler,
    dir: &Path,
    include: &Path,
    source: PathBuf,
    output: PathBuf,
) -> Unit {
    let mut command = compiler.compile();
    command.current_dir(dir).args(&library.flags);
    for folder in &library.include {
        command.arg("-I").arg(folder);
    }
    command.arg("-I").arg(include).arg(&source).arg("-o").arg(&output);
    Unit { command, inputs: vec![source], output }
}

fn build(library: &LibraryTable, archs: &[Arch], dir: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let sources = library.files(dir).map_err(|error| usage(error.to_string()))?;
    let include = bound_headers(dir, out)?;
    let compiler = compiler::find(archs, out)?;
    let name = format!("{}_{}", library.name, names(archs));
    let objects = out.join("objects").join(&name);
    std::fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
    let units: Vec<Unit> = sources
        .into_iter()
        .map(|source| {
            // Two sources may have one name in different folders.
            let name: String = source
                .strip_prefix(dir)
                .unwrap_or(&source)
                .to_string_lossy()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
                .collect();
            let mut unit = unit(library, &compiler, dir, &include, source, objects.join(format!("{name}.o")));
            unit.command.args(["-c", "-MMD", "-MF"]).arg(unit.output.with_extension("d"));
            unit
        })
        .collect();
    let file = objects.join(format!("lib{name}.so"));
    let mut command = compiler.link();
    let inputs: Vec<PathBuf> = units.iter().map(|unit| unit.output.clone()).collect();
    command.current_dir(dir).args(&inputs).args(&library.link).arg("-o").arg(&file);
    let link = Unit { command, inputs, output: file.clone() };
    let compiled = units.par_iter().try_for_each(|unit| unit.bring_up_to_date(&compiler));
    compiled.and_then(|()| link.bring_up_to_date(&compiler)).inspect_err(|_| {
        // Nothing is to find what was built before of other sources. The error says more than one of this.
        let _ = forget(&out.join(LATEST).join(format!("lib{name}.so")));
    })?;
    publish(out, &file)
}

/// Compiles the sources that are called so into bare code objects, `{source}_{arch}.co`.
///
/// # Errors
/// As of [`libraries`], if no source is called so, or an architecture is none of AMD's.
fn code_objects(
    metadata: &Metadata,
    config: &Config,
    package: &Package,
    archs: &[Arch],
    wanted: &[String],
) -> anyhow::Result<Vec<PathBuf>> {
    let (dir, out) = (manifest_dir(package), folder(metadata, package));
    let _lock = lock(&out)?;
    let include = bound_headers(dir, &out)?;
    let mut built = Vec::new();
    for &arch in archs.iter().collect::<BTreeSet<_>>() {
        if Kind::of(arch) != Some(Kind::Hip) {
            return Err(usage(format!("--code-object: {arch} is none of AMD's GPUs")));
        }
        let compiler = compiler::find(&[arch], &out)?;
        for name in wanted {
            let mut found = None;
            for library in config.libraries(&package.name).iter().filter(|l| l.is_for(arch.name())) {
                let files = library.files(dir).map_err(|error| usage(error.to_string()))?;
                let source =
                    files.into_iter().find(|file| file.file_stem().is_some_and(|stem| stem == &**name));
                found = found.or(source.map(|source| (library, source)));
            }
            let (library, source) = found.ok_or_else(|| {
                usage(format!("--code-object {name}: no library of {} has a source called so", package.name))
            })?;
            let objects = out.join("objects");
            std::fs::create_dir_all(&objects)
                .with_context(|| format!("cannot make {}", objects.display()))?;
            let output = objects.join(format!("{name}_{arch}.co"));
            let mut unit = unit(library, &compiler, dir, &include, source, output.clone());
            unit.command.args(["--cuda-device-only", "--no-gpu-bundle-output"]);
            // Without a part for the host, clang's driver passes over -MMD; its compiler lists the headers all the same.
            for argument in ["-dependency-file".as_ref(), output.with_extension("d").as_os_str()] {
                unit.command.arg("-Xclang").arg(argument);
            }
            for argument in ["-MT".as_ref(), output.as_os_str()] {
                unit.command.arg("-Xclang").arg(argument);
            }
            unit.bring_up_to_date(&compiler).with_context(|| cannot(library, package, arch.name()))?;
            built.push(publish(&out, &output)?);
        }
    }
    Ok(built)
}
