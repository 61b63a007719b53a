//! What a run found, as a person and as a machine reads it; and `cargo accuracy report`.
//!
//! [`model`] counts and decides, [`merge`] reads folders of records and [`parts`] whether a run is whole, [`emulation`]
//! puts into words what an emulator says; the others render.

pub mod emulation;
mod github;
pub mod html;
pub mod json;
mod junit;
mod markdown;
mod merge;
pub mod model;
mod parts;
#[cfg(test)]
mod reworded;
mod sarif;
mod sink;
pub mod style;
pub mod text;

pub use model::Report;

use crate::baseline::BaselineArgs;
use crate::exit::ExitCode;
use crate::output::{OutputArgs, Sink, width};
use crate::run::folder;
use accuracy_core::record::Record;
use anyhow::Context as _;
use rayon::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Flags of `cargo accuracy report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// Folders with the results of runs, from any test runner and machine; if a case is in two of them, the later one
    /// counts [default: the newest folder in the target folder's `accuracy`]
    ///
    /// If a run was split into parts (`run --partition`), each part must be given exactly once; otherwise the exit status
    /// is 101.
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Print only the JSON Schema of `--report json=...`
    #[arg(long, conflicts_with_all = ["dirs", "reports"])]
    pub schema: bool,
    #[command(flatten)]
    pub manifest: clap_cargo::Manifest,
    /// The target folder that the runs used
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    #[command(flatten)]
    pub baseline: BaselineArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub fn command(args: ReportArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    if args.schema {
        std::io::stdout().write_all(json::SCHEMA.as_bytes())?;
        return Ok(ExitCode::Correct);
    }
    args.baseline.expect_apart_from(&args.output)?;
    let baselines = args.baseline.load()?;
    let dirs = match &args.dirs[..] {
        [] => vec![newest(&args)?],
        dirs => dirs.to_vec(),
    };
    let merged = merge::read(&dirs)?;
    if merged.records.is_empty() && (merged.nothing || merged.problems.is_empty()) {
        let dirs: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
        crate::say!("nothing to report: {} announce no case and hold no record", dirs.join(", "));
        return Ok(ExitCode::NothingRan);
    }
    let mut report = Report::new(merged.records, &merged.runs);
    report.folder = if let [dir] = &dirs[..] { Some(dir.clone()) } else { None };
    report.problems = merged.problems;
    baselines.compare(&mut report, &merged.runs);
    render(&report, &args.output)?;
    baselines.save(&report, &merged.runs)?;
    let code = report.exit_code();
    // The process ends: giving back what tens of thousands of records hold, piece by piece, would take its time.
    std::mem::forget(report);
    Ok(code)
}

/// The records in a folder, one for every case that was announced or has left one.
pub fn records(dir: &Path) -> anyhow::Result<Vec<Record>> {
    Ok(merge::read(&[dir.to_path_buf()])?.records)
}

/// The folder that a run has left last.
fn newest(args: &ReportArgs) -> anyhow::Result<PathBuf> {
    let target = match &args.target_dir {
        Some(dir) => dir.clone(),
        None => {
            let metadata = args.manifest.metadata().no_deps().exec();
            metadata.context("cannot find the target folder with cargo metadata")?.target_directory.into()
        }
    };
    let root = folder::root(&target);
    let none =
        || format!("no run has left records in {}; name a folder, or run `cargo accuracy`", root.display());
    let mut newest = None;
    for entry in std::fs::read_dir(&root).with_context(none)? {
        let entry = entry.with_context(none)?;
        // The link `latest` is one of the others again.
        if entry.file_type().is_ok_and(|t| t.is_dir()) && merge::is_of_a_run(&entry.path()) {
            let modified = entry.metadata().and_then(|m| m.modified()).with_context(none)?;
            newest = newest.max(Some((modified, entry.path())));
        }
    }
    newest.map(|(_, path)| path).with_context(none)
}

/// Prints the tables and writes the reports that the flags ask for.
pub fn render(report: &Report, output: &OutputArgs) -> anyhow::Result<()> {
    let (files, stdout): (Vec<&Sink>, Vec<&Sink>) = output.reports.iter().partition(|s| s.path.is_some());
    // Each renders by itself; what goes to standard output keeps its order.
    let (shown, written) = rayon::join(
        || show(report, output),
        || files.into_par_iter().with_max_len(1).try_for_each(|sink| sink::write(sink, report)),
    );
    shown.and(written)?;
    stdout.into_iter().try_for_each(|sink| sink::write(sink, report))?;
    github::in_actions(report, output.stdout_taken())
}

fn show(report: &Report, output: &OutputArgs) -> anyhow::Result<()> {
    let human = text::render(report, output, width(output.stdout_taken()));
    if output.stdout_taken() {
        crate::screen::stderr().write_all(human.as_bytes())?;
    } else {
        let mut stdout = crate::screen::stdout();
        stdout.write_all(human.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}
