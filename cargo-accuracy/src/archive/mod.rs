//! `cargo accuracy archive`: test executables, kernel libraries, checkpoints and configuration in one file, for
//! `cargo accuracy run --archive` where there is no cargo, no compiler and no source.
//!
//! [`contents`] is what an archive says about itself; [`collect`] decides what goes in, [`pack`] writes the file,
//! [`unpack`] checks and unpacks it. Running is in [`crate::run`].

mod collect;
mod contents;
mod pack;
pub mod unpack;

use crate::build;
use crate::config::{Config, Sources};
use crate::exit::ExitCode;
use crate::report::style;
use crate::run::cargo::CargoArgs;
use crate::run::{self, discover};
use accuracy_core::env;
use anyhow::Context as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Flags of `cargo accuracy archive`.
#[derive(Clone, Debug, clap::Args)]
pub struct ArchiveArgs {
    /// The file to write, a tar archive compressed with zstd
    #[arg(short, long, value_name = "FILE", default_value = "accuracy.tar.zst")]
    pub out: PathBuf,
    /// Folder in which kernel libraries are looked for first, even before ACCURACY_LIBRARY_PATH (repeatable)
    #[arg(long, value_name = "DIR")]
    pub library_path: Vec<PathBuf>,
    /// Build the tests so that `run --archive FILE --emulate` can run the code of gfx942 and gfx950 without a GPU
    ///
    /// The tests still run on GPUs. `emulate = true` in the configuration of a package has the same effect.
    #[arg(long)]
    pub emulate: bool,
    #[command(flatten)]
    pub cargo: CargoArgs,
}

pub fn command(args: ArchiveArgs) -> anyhow::Result<ExitCode> {
    let metadata = args.cargo.metadata()?;
    let sources = Sources::read(&metadata)?;
    let config = Config::new(&sources)?;
    let packages = run::packages(&args.cargo, &metadata, &config)?;
    let features = match args.emulate || packages.iter().any(|package| config.emulate(&package.name)) {
        true => run::emulate::features(&args.cargo, &packages)?,
        false => Vec::new(),
    };
    let built = args.cargo.build(&metadata, &packages, &features)?;
    let binaries = discover::discover(&built, &metadata, &packages)?;
    if binaries.is_empty() {
        let why = discover::why_none(&packages, &args.cargo.features);
        crate::say!("nothing to archive: no accuracy test was found\n  {}", why.join("\n  "));
        return Ok(ExitCode::NothingRan);
    }
    // What was built before is brought up to date: an archive of it would be judged far from its sources.
    for package in metadata.workspace_packages() {
        let archs = build::built_for(&metadata, package);
        build::libraries(&metadata, &config, package, &archs, built.out_dir(&package.id))?;
        build::code_objects_again(&metadata, &config, package, None)?;
    }
    let workspace = collect::Workspace { metadata: &metadata, built: &built, binaries: &binaries };
    let collected = workspace.collect(sources, &library_folders(&args)?)?;
    for note in &collected.notes {
        crate::say!("{}note{:#}: {note}", style::NOTE, style::NOTE);
    }
    pack::write(&args.out, &collected)?;
    let size = std::fs::metadata(&args.out).map_or(0, |m| m.len());
    writeln!(crate::screen::stdout(), "{}", summary(&args, &collected, size))?;
    Ok(ExitCode::Correct)
}

/// Folders that come before the packages' own, as absolute paths.
fn library_folders(args: &ArchiveArgs) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = args.library_path.clone();
    if let Some(inherited) = std::env::var_os(env::LIBRARY_PATH) {
        folders.extend(std::env::split_paths(&inherited).filter(|folder| !folder.as_os_str().is_empty()));
    }
    for folder in &args.library_path {
        if !folder.is_dir() {
            return Err(crate::exit::usage(format!("--library-path {} is no folder", folder.display())));
        }
    }
    folders
        .iter()
        .map(|folder| std::path::absolute(folder).with_context(|| format!("folder {}", folder.display())))
        .collect()
}

/// Libraries whose names fit into the line about an archive.
const NAMED: usize = 8;

fn summary(args: &ArchiveArgs, collected: &collect::Collected, size: u64) -> String {
    let contents = &collected.contents;
    let libraries: Vec<&str> = contents.libraries().map(|(_, file)| file).collect();
    let libraries = match &libraries[..] {
        [] => "no kernel library".into(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{} kernel libraries and code objects", many.len()),
    };
    format!(
        "{}: {} test executables, {libraries}, {} other files; {:.1} MB, for {}{}",
        args.out.display(),
        contents.binaries.len(),
        contents.data_files(),
        size as f64 / 1e6,
        contents.machine,
        match contents.binaries.iter().all(|binary| binary.can_emulate) {
            true => ", with the emulator",
            false => ", without the emulator (--emulate)",
        }
    )
}
