//! The command line: commands and the flags that several of them share.

use crate::exit::ExitCode;
use crate::report::sink::Format;
use crate::{
    archive, compare, dtypes, inspect, lint, logs, probe, report, run, selftest, shard, triage, weights,
};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy                               every case, on the configured architecture
  cargo accuracy -p kernels --arch gfx950      one package, on one architecture
  cargo accuracy shuffle_scale=true            the cases whose identity contains this
  cargo accuracy 'kernels::fp8::gemm[...]'     one case: paste its identity in quotes
  cargo accuracy --list                        the identities, without running anything
  cargo accuracy --report json=accuracy.json   machine-readable results beside the tables
  cargo accuracy report                        the tables of the last run again
  cargo accuracy --baseline FILE               what has changed since --save-baseline FILE
  cargo accuracy --partition slice:1/4         a quarter of the cases; `report DIR...` merges the four

Columns: the cosine is that of the worst hop, `row cos` that of its worst row, `gain` the scale by which the output
is off; `chain L2` is the relative error of the whole chain against the ideal product, `/floor` the same in units of
what the number formats alone lose. A table too wide for the terminal leaves out, in this order: s, chain L2, row cos,
gain, /floor.

Exit status: 0 everything correct; 100 something failed the gate; 101 could not build or finish;
4 nothing ran; 2 usage.";

const ARCHIVE_EXAMPLES: &str = "\
Examples:
  cargo accuracy archive -p kernels --release --out kernels.tar.zst
  cargo accuracy archive --library-path build/gpu     with kernel libraries that were built elsewhere
  cargo-accuracy run --archive kernels.tar.zst --arch gfx950     on the other machine

What goes in: the test executables, lib{name}_{arch}.so for every architecture (from --library-path and
ACCURACY_LIBRARY_PATH, the output folder of the build script, `lib/` of the package), the checkpoints and activations
that tests name by relative paths, and the configuration. What a test opens by itself does not.";

/// Judges the numbers of inference kernels against a float64 oracle.
///
/// Without a command it runs the accuracy tests: it builds the workspace's tests with cargo, finds every
/// `#[accuracy_test]`, runs each case in a process of its own, prints tables of cosines and exits by the gate.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo-accuracy", bin_name = "cargo accuracy", version, after_help = EXAMPLES)]
#[command(styles = clap_cargo::style::CLAP_STYLING, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build, run and judge accuracy tests (the default)
    #[command(after_help = EXAMPLES)]
    Run(Box<run::RunArgs>),
    /// Put test executables, kernel libraries and checkpoints into one file, for machines without cargo
    #[command(after_help = ARCHIVE_EXAMPLES)]
    Archive(Box<archive::ArchiveArgs>),
    /// Plant every known fault in the reference of each chain, and show which checks see it
    Selftest(Box<run::RunArgs>),
    /// Merge the records of runs, on any machine and under any runner, and render them
    Report(report::ReportArgs),
    /// Find functions that accept a parameter and ignore it, in Rust, Python and C++/HIP/CUDA sources
    Lint(lint::cli::LintArgs),
    /// Say what a checkpoint holds: every weight, its scheme and scales, and what is missing or contradictory
    Weights(weights::WeightsArgs),
    /// Show the number formats: ranges, every code of one, and which architecture decodes what
    Dtypes(dtypes::DtypesArgs),
    /// Carve a small shard for tests out of a checkpoint, quantised if wanted
    Shard(shard::ShardArgs),
    /// Say what kernel libraries and code objects hold: architectures, kernels, arguments, launchers
    Inspect(inspect::InspectArgs),
    /// Find the layer and the operation where a model goes wrong, from two dumps and its checkpoint
    Triage(triage::TriageArgs),
    /// Compare two files or folders of tensors: safetensors, npy, npz, .pt, and the dumps of inference engines
    Compare(compare::CompareArgs),
    /// Find failed builds, silent fallbacks and NaN in a server's log, and proof that a kernel ran
    Logs(logs::LogsArgs),
    /// Ask a server prompts with known answers, and compare it with itself and with a reference
    Probe(probe::ProbeArgs),
    /// Ask a device whether it still works; `run` does so after a crash
    #[command(hide = true)]
    DeviceAnswers(run::AnswersArgs),
    /// End what a run leaves that is killed; `run` starts it
    #[command(hide = true)]
    EndOrphans(run::OrphansArgs),
}

impl Cli {
    pub fn dispatch(self) -> anyhow::Result<ExitCode> {
        match self.command.unwrap_or_else(|| Command::Run(Box::new(self.run))) {
            Command::Run(args) => run::command(*args),
            Command::Archive(args) => archive::command(*args),
            Command::Selftest(args) => selftest::command(*args),
            Command::Report(args) => report::command(args),
            Command::Lint(args) => lint::cli::command(args),
            Command::Weights(args) => weights::command(args),
            Command::Dtypes(args) => dtypes::command(args),
            Command::Shard(args) => shard::command(args),
            Command::Inspect(args) => inspect::command(args),
            Command::Triage(args) => triage::command(args),
            Command::Compare(args) => compare::command(args),
            Command::Logs(args) => logs::command(args),
            Command::Probe(args) => probe::command(args),
            Command::DeviceAnswers(args) => run::answers(&args),
            Command::EndOrphans(args) => run::end_orphans(&args),
        }
    }
}

/// `cargo accuracy X` reaches this program as `cargo-accuracy accuracy X`; drops the extra word.
pub fn arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|a| a == "accuracy") {
        arguments.remove(1);
    }
    arguments
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// For everything that is printed from here on.
    pub fn apply(self) {
        match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// How a command that only answers writes its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TextOrJson {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How much is printed, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Also print every check with its value, bound and margin, the power table, and skipped cases
    #[arg(short, long)]
    pub verbose: bool,
    /// Print failures and the summary only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
    /// Write a machine-readable report; `-` as PATH is standard output, and the tables then go to standard error
    /// (repeatable; formats: json, junit, markdown, html, sarif, github)
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    pub reports: Vec<report::sink::Sink>,
}

impl OutputArgs {
    /// Whether a report takes standard output, so that what a person reads goes to standard error.
    pub fn stdout_taken(&self) -> bool {
        self.reports.iter().any(|sink| sink.path.is_none())
    }

    /// An error if a report is asked for in a format that the command does not write.
    pub fn expect_formats(&self, command: &str, formats: &[Format]) -> anyhow::Result<()> {
        self.reports.iter().try_for_each(|sink| sink.expect(command, formats))
    }

    /// An error if a report is asked for in a format that only runs have.
    pub fn expect_json(&self, command: &str) -> anyhow::Result<()> {
        self.expect_formats(command, &[Format::Json])
    }

    /// Applies `--color` to everything that is printed from here on.
    pub fn apply_color(&self) {
        self.color.apply();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    fn parse(line: &[&str]) -> Cli {
        let words = line.iter().map(|w| OsString::from(*w));
        Cli::try_parse_from(arguments(words)).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn three_spellings_of_a_command_are_the_same() {
        for line in [&["cargo-accuracy", "accuracy", "report"][..], &["cargo-accuracy", "report"]] {
            assert!(matches!(parse(line).command, Some(Command::Report(_))), "{line:?}");
        }
    }

    #[test]
    fn run_is_the_default_and_takes_its_flags_and_filters() {
        for line in [
            &["cargo-accuracy", "accuracy", "-p", "kernels", "--arch", "host", "fp8"][..],
            &["cargo-accuracy", "run", "-p", "kernels", "--arch", "host", "fp8"],
        ] {
            let cli = parse(line);
            let args = match cli.command {
                Some(Command::Run(args)) => *args,
                None => cli.run,
                other => panic!("{line:?}: {other:?}"),
            };
            assert_eq!(args.filters, ["fp8"], "{line:?}");
            assert_eq!(args.cargo.workspace.package, ["kernels"], "{line:?}");
        }
    }
}
