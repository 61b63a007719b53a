//! `cargo accuracy init`: sets up a kernel crate with what it lacks. It asks nothing and overwrites nothing.
//!
//! What it writes is under `files/`; [`steps`] decides and does, this file talks.

mod steps;

use crate::config::{Config, Sources};
use crate::declared::Declared;
use crate::exit::{ExitCode, usage};
use crate::output::Color;
use crate::report::style::{self, paint};
use crate::report::text::wrap;
use crate::run::cargo::manifest_dir;
use cargo_metadata::{Metadata, Package};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use steps::{Did, Done};

/// Flags of `cargo accuracy init`.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Package to set up [default: the package in the current folder]
    #[arg(short, long, value_name = "NAME")]
    pub package: Option<String>,
    #[command(flatten)]
    pub manifest: clap_cargo::Manifest,
    /// Folder of accuracy-core [default: the folder next to this program's source if it still exists, else the registry]
    #[arg(long, value_name = "DIR")]
    pub core: Option<PathBuf>,
    /// Do not write the CI workflow
    #[arg(long)]
    pub no_ci: bool,
    /// Do not access the network
    #[arg(long)]
    pub offline: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

pub fn command(args: InitArgs) -> anyhow::Result<ExitCode> {
    args.color.apply();
    let mut command = args.manifest.metadata();
    command.no_deps();
    let metadata = command.exec().map_err(|error| {
        let said = match &error {
            cargo_metadata::Error::CargoMetadata { stderr } => stderr.trim().to_string(),
            other => other.to_string(),
        };
        usage(format!(
            "no Cargo package to set up: {said}\n\
             make one first: cargo new --lib my-kernels && cd my-kernels && cargo accuracy init"
        ))
    })?;
    let package = package(&metadata, args.package.as_deref())?;
    let config = Config::new(&Sources::read(&metadata)?)?;
    let declared = Declared::of(manifest_dir(package));
    let done =
        steps::Setup { args: &args, metadata: &metadata, package, declared: &declared }.run(&config)?;
    crate::screen::stdout().write_all(say(&metadata, package, &declared, &done).as_bytes())?;
    Ok(ExitCode::Correct)
}

/// The package that is named, or that the current folder is in, or the only one.
fn package<'m>(metadata: &'m Metadata, name: Option<&str>) -> anyhow::Result<&'m Package> {
    let members = metadata.workspace_packages();
    let names = || members.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = name {
        return members.iter().copied().find(|p| p.name.as_str() == name).ok_or_else(|| {
            usage(format!("no package of this workspace is called `{name}`; there are: {}", names()))
        });
    }
    if let [only] = members[..] {
        return Ok(only);
    }
    let here = std::env::current_dir()?;
    let inside = members.iter().copied().filter(|p| here.starts_with(manifest_dir(p)));
    inside
        .max_by_key(|p| manifest_dir(p).as_os_str().len())
        .filter(|p| manifest_dir(p) != metadata.workspace_root.as_std_path())
        .or_else(|| metadata.root_package())
        .ok_or_else(|| usage(format!("this workspace has several packages: name one with -p: {}", names())))
}

/// What was done, and what to do next.
fn say(metadata: &Metadata, package: &Package, declared: &Declared, done: &[Done]) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let shown = |path: &Path| path.strip_prefix(&here).unwrap_or(path).display().to_string();
    const INDENT: usize = 8;
    let mut text = format!("{}\n", paint(style::BOLD, &package.name));
    let width = done.iter().map(|d| shown(&d.path).chars().count()).max().unwrap_or(0);
    for Done { did, path, what } in done {
        let (word, style) = match did {
            Did::Wrote => ("wrote", style::GOOD),
            Did::Added => ("added", style::GOOD),
            Did::Kept => ("kept", style::DIM),
            Did::Left => ("to do", style::WARN),
        };
        // A line that is too long goes on under its path.
        let head = format!("{:width$}  ", shown(path));
        let mut lines = String::new();
        wrap::wrap(&mut lines, &format!("{head}{what}"), INDENT, crate::output::width(false));
        let _ = write!(text, "  {} {}", paint(style, format!("{word:5}")), &lines[INDENT..]);
    }
    if done.iter().all(|d| d.did == Did::Kept) {
        text += "Everything is there already.\n";
    }

    let mut next = Vec::new();
    let name = &package.name;
    let only = metadata.workspace_packages().len() == 1;
    let run = if only { "cargo accuracy".into() } else { format!("cargo accuracy -p {name}") };
    next.push((run, "builds, runs and judges the tests on the CPU".to_string()));
    next.push(("cargo accuracy doctor".into(), "says what this machine has and lacks".into()));
    let first = manifest_dir(package).join(steps::KERNEL);
    let own: Vec<String> =
        declared.kernels.iter().filter(|path| **path != first).map(|path| shown(path)).collect();
    if declared.tests.is_empty() {
        next.push((
            "cargo accuracy shard --help".into(),
            "carves real weights out of a checkpoint, for tests".into(),
        ));
    }
    let _ = writeln!(text, "\n{}", paint(style::BOLD, "Next"));
    let width = next.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, what) in next {
        let _ = writeln!(text, "  {command:width$}  {what}");
    }
    if let Some(source) = own.first().filter(|_| declared.tests.is_empty()) {
        let others = if own.len() > 1 { format!(" and {} more", own.len() - 1) } else { String::new() };
        let _ = writeln!(
            text,
            "  Then your own kernels ({source}{others}): add the sources to build.rs with .file(..), and bind\n  \
             their launchers as tests/accuracy.rs does."
        );
    }
    text
}
