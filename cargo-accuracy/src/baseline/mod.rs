//! Baselines: what each correct case was judged by and how far off it was, in a file that is reviewed with the code.
//!
//! [`file`](mod@file) is the format, [`compare`] says what has changed since. It is rendered in [`crate::report`].

pub mod compare;
pub mod file;

use crate::exit::usage;
use crate::output::OutputArgs;
use crate::report::model::Report;
use crate::report::style;
use crate::run::folder::RunInfo;
use compare::{Reasons, Scope};
use file::Baseline;
use std::path::{Path, PathBuf};

/// Flags of `run` and `report`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Baseline")]
pub struct BaselineArgs {
    /// Compare with this file, which --save-baseline wrote
    ///
    /// A case whose error has grown to three times the saved one or more is a warning. The run fails if a case of the file
    /// is gone, or if a threshold or tolerance has changed and no --reason is given. A missing file is an error.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write one line for each correct case, with its thresholds and errors; cases that did not run keep their line
    #[arg(long, value_name = "FILE")]
    pub save_baseline: Option<PathBuf>,
    /// Why a threshold or tolerance has changed; --save-baseline writes the text into the file
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The baseline of a pull request, if --baseline is that of its target branch: the reasons in it count, and a case
    /// that it no longer has counts as removed on purpose
    #[arg(long, value_name = "FILE", requires = "baseline")]
    pub proposed_baseline: Option<PathBuf>,
}

impl BaselineArgs {
    /// A usage error if the baseline would be written where a report is.
    pub fn expect_apart_from(&self, output: &OutputArgs) -> anyhow::Result<()> {
        let Some(baseline) = &self.save_baseline else { return Ok(()) };
        if output.reports.iter().any(|sink| sink.path.as_ref() == Some(baseline)) {
            let path = baseline.display();
            return Err(usage(format!("--save-baseline and a --report both write {path}: name two files")));
        }
        Ok(())
    }

    /// Reads the files, before anything takes time.
    ///
    /// # Errors
    /// If one is no baseline. One that is not there is told by the report.
    pub fn load(&self) -> anyhow::Result<Baselines<'_>> {
        if self.reason.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(usage("--reason is empty: say why the threshold or tolerance is to change"));
        }
        if self.reason.is_some() && self.baseline.is_none() && self.save_baseline.is_none() {
            return Err(usage("--reason speaks of a baseline: name it with --baseline or --save-baseline"));
        }
        let load = |path: &Option<PathBuf>| path.as_deref().map(Baseline::load).transpose();
        let proposed = load(&self.proposed_baseline)?.map(|file| {
            file.ok_or_else(|| {
                let path = self.proposed_baseline.as_deref().unwrap_or(Path::new(""));
                anyhow::anyhow!("the proposed baseline {} is not there", path.display())
            })
        });
        Ok(Baselines {
            args: self,
            old: load(&self.baseline)?.flatten(),
            saved: load(&self.save_baseline)?.flatten(),
            proposed: proposed.transpose()?,
        })
    }
}

/// The files that the flags name.
pub struct Baselines<'a> {
    args: &'a BaselineArgs,
    old: Option<Baseline>,
    /// What --save-baseline will replace.
    saved: Option<Baseline>,
    proposed: Option<Baseline>,
}

impl Baselines<'_> {
    /// Compares, so that the report shows and gates it.
    pub fn compare(&self, report: &mut Report, runs: &[RunInfo]) {
        let Some(path) = &self.args.baseline else { return };
        let path = path.display().to_string();
        let Some(old) = &self.old else {
            // The first save: there is nothing to compare with yet.
            if self.args.save_baseline != self.args.baseline {
                report.problems.push(format!(
                    "the baseline {path} is not there, so nothing was compared: write it with --save-baseline {path}"
                ));
            }
            return;
        };
        let scope = Scope::of(runs);
        let mut found =
            compare::compare(path, old, &report.records, &scope, &self.reasons(self.proposed.as_ref()));
        if self.args.save_baseline == self.args.baseline {
            // What is new is being added to it.
            found.nothing_compared.clear();
        }
        report.baseline = Some(found);
    }

    fn reasons<'a>(&'a self, proposed: Option<&'a Baseline>) -> Reasons<'a> {
        Reasons { given: self.args.reason.as_deref(), proposed }
    }

    /// Writes the file of `--save-baseline`, unless a change in it has no reason.
    ///
    /// # Errors
    /// If it cannot be written, or a threshold has changed without a reason.
    pub fn save(&self, report: &Report, runs: &[RunInfo]) -> anyhow::Result<()> {
        let Some(path) = &self.args.save_baseline else { return Ok(()) };
        if !report.problems.is_empty() {
            anyhow::bail!("{} is not written: the run is not whole", path.display());
        }
        let none = Baseline::default();
        let old = self.saved.as_ref().unwrap_or(&none);
        let (scope, reasons) = (Scope::of(runs), self.reasons(self.proposed.as_ref()));
        let found = compare::compare(path.display().to_string(), old, &report.records, &scope, &reasons);
        let new = compare::renewed(old, &report.records, &found, &reasons).map_err(|changes| {
            let first = &changes[0];
            anyhow::anyhow!(
                "{} is not written: {} thresholds or tolerances have changed without a reason, such as the {} of {} \
                 from {} to {}; say why with --reason TEXT",
                path.display(),
                changes.len(),
                first.what,
                first.id,
                first.before,
                first.now,
            )
        })?;
        new.save(path)?;
        let failed = report.summary.failed;
        let left_out = match failed {
            0 => String::new(),
            n => format!("; {n} failing cases are not in it, or as they were"),
        };
        crate::say!(
            "{}note{:#}: {} has {} cases{left_out}",
            style::NOTE,
            style::NOTE,
            path.display(),
            new.0.values().map(|lines| lines.len()).sum::<usize>(),
        );
        Ok(())
    }
}
