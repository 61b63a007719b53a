//! The command line: every command with its help. It stands above all commands, and none of them imports it.

use crate::exit::ExitCode;
use crate::{
    archive, build, compare, completions, doctor, dtypes, header, init, inspect, lint, logs, probe, report,
    run, selftest, shard, triage, weights,
};
use clap::CommandFactory as _;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy                           every case, on the configured arch
  cargo accuracy -p kernels --arch gfx950  one package, on one architecture
  cargo accuracy --arch gfx950 --emulate   that GPU's code, without the GPU
  cargo accuracy shuffle_scale=true        cases whose identity contains this
  cargo accuracy 'kernels::fp8::gemm[..]'  one case: its identity in quotes
  cargo accuracy --list                    the identities; nothing is run
  cargo accuracy --report json=FILE        results for a machine, too
  cargo accuracy report                    print the last run's tables again
  cargo accuracy --baseline FILE           changes since --save-baseline FILE
  cargo accuracy --partition slice:1/4     a quarter of the cases; merge later

More commands: `cargo accuracy --help` lists them, `cargo accuracy COMMAND --help` explains one.

Columns: `cosine` is that of the worst hop (a hop is one kernel of the chain), `row cos` that of its worst row. `gain` \
is the factor by which the output is too large, 1 where it is right. `chain L2` is the relative error of the whole \
chain against the ideal result; `/floor` is the same error divided by what the number formats alone lose. If the \
terminal is too narrow, columns are left out in this order: s, chain L2, row cos, gain, /floor.

Exit status: 0 everything is correct; 100 a case or a lint finding failed; 101 it could not build or finish; \
4 nothing ran; 2 wrong usage.";

const ARCHIVE_EXAMPLES: &str = "\
Examples:
  cargo accuracy archive -p kernels --release --out kernels.tar.zst
  cargo accuracy archive --library-path build/gpu   libraries built elsewhere
  cargo accuracy archive --emulate                  runs gfx950 code anywhere
  cargo-accuracy run --archive kernels.tar.zst      on the other machine

The archive holds: the test executables, lib{name}_{arch}.so for every architecture (from --library-path and \
ACCURACY_LIBRARY_PATH, the package's `library-path`, what `cargo accuracy build` has built, the output folder of the \
build script, `lib/` of the package), the checkpoints and activations that tests name by relative paths, and the \
configuration. It does not hold files that a test opens by itself.";

const BUILD_EXAMPLES: &str = "\
Examples:
  cargo accuracy build --arch gfx950         every library of the workspace
  cargo accuracy build -p kernels --arch host
  cargo accuracy build --arch gfx942,gfx950 --bundle    one file for both

A library is built again only if the content of its sources, its flags or its compiler has changed; the time of a \
file does not matter. The path of each built library is printed.";

const HEADER_EXAMPLES: &str = "\
Examples:
  cargo accuracy header --out src/hip        {library}_launchers.h
  cargo accuracy header --out src/hip --check    fails if they are out of date

Include the header in the launchers' source and write ACCURACY_BOUND(name); after a launcher's definition. The C++ \
compiler then rejects the launcher if its arguments differ from those that Rust binds.";

const SELFTEST_EXAMPLES: &str = "\
Examples:
  cargo accuracy selftest                one case for each check of each test
  cargo accuracy selftest -p kernels fp8

Shows whether your tests would notice a fault. Each known fault is planted in the reference of a chain; the checks that \
then fail are those that would fail if a kernel had the fault.

Exit status: 0 every fault that can matter is noticed; 100 one is not; 101, 4 and 2 as for `run`.";

const REPORT_EXAMPLES: &str = "\
Examples:
  cargo accuracy report                                the last run
  cargo accuracy report records-gfx942 records-gfx950  two machines, merged
  cargo accuracy report DIR --report markdown=comment.md

A run lists its cases before it starts them. A listed case that left no record is reported as not run, and fails.

Exit status: as for `run`, over everything that was merged.";

const LINT_EXAMPLES: &str = "\
Examples:
  cargo accuracy lint                          the current folder
  cargo accuracy lint --since origin/main      functions that changed
  cargo accuracy lint --explain                the rules
  cargo accuracy lint --explain SP202          one of them, with example and fix
  cargo accuracy lint --save-baseline lint.json       begin in an old repository
  cargo accuracy lint --baseline lint.json --report sarif=lint.sarif

Exit status: 0 no error, or only errors that are in the baseline; 100 errors; 4 there was no source file; 101 it could not finish; 2 wrong usage.";

const DTYPES_EXAMPLES: &str = "\
Examples:
  cargo accuracy dtypes                  all formats, and which GPU reads them
  cargo accuracy dtypes e4m3fnuz         every code of one format
  cargo accuracy dtypes e2m1 --format json";

const INSPECT_EXAMPLES: &str = "\
Examples:
  cargo accuracy inspect lib/libgemm_gfx950.so
  cargo accuracy inspect --arch gfx942 --arch gfx950 libgemm.so   needs both
  cargo accuracy inspect -v kernel.hsaco     arguments, registers, memory

The file is only read, never loaded, so a library for a GPU can be inspected
anywhere. Instructions of gfx942 and gfx950 that run into a known hardware bug
(an erratum) are listed with the compiler flag that avoids them, and
instructions that use a result too soon because an s_nop is missing (a hazard)
with the one before and the s_nop. Neither changes the exit status.

Exit status: 0; 100 no code for an --arch; 101 a file cannot be read; 2 wrong
usage.";

const INIT_EXAMPLES: &str = "\
Examples:
  cargo accuracy init                  in a kernel crate, old or new
  cargo accuracy init -p kernels       one package of a workspace
  cargo accuracy init --no-ci          without the workflow

Adds what is missing and changes nothing else: accuracy-core as a dependency of the package and of its build script; \
the architecture in [package.metadata.accuracy] and the kernels' sources in [[package.metadata.accuracy.library]]; \
build.rs, src/hip/first.hip, shards/first.safetensors, tests/accuracy.rs and .github/workflows/accuracy.yml. The \
result builds, and its test passes.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  cargo accuracy doctor                  for the configured architectures
  cargo accuracy doctor --arch gfx950    what a run on that GPU needs
  cargo accuracy doctor --format json    for a machine

Looks at compilers, GPU runtimes, devices, the variables that hide devices, and, in a workspace, at the kernel libraries \
and checkpoints that its tests name. Nothing is built, and nothing is changed.

Exit status: 0 a run can start; 100 something prevents it; 2 wrong usage.";

/// Judges the numbers of inference kernels against a float64 oracle.
///
/// Without a command it runs the accuracy tests: it builds the workspace's tests with cargo, finds every
/// `#[accuracy_test]`, runs each case in a separate process, prints tables of cosines, and ends with status 0 only if
/// every case is correct.
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
    /// Plant every known fault in the reference of each chain, and show which checks notice it
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(Box<run::RunArgs>),
    /// Merge the results of runs, from any machine and any test runner, and print or write reports
    #[command(after_help = REPORT_EXAMPLES)]
    Report(report::ReportArgs),
    /// Find functions that accept a parameter and ignore it, in Rust, Python and C++/HIP/CUDA sources
    #[command(after_help = LINT_EXAMPLES)]
    Lint(lint::cli::LintArgs),
    /// List what a checkpoint holds: every weight, its scheme and scales, and what is missing or contradictory
    Weights(weights::WeightsArgs),
    /// Show the number formats: their ranges, all codes of one, and which architecture reads which
    #[command(after_help = DTYPES_EXAMPLES)]
    Dtypes(dtypes::DtypesArgs),
    /// Cut a small shard for tests out of a checkpoint, and quantise it if you ask for it
    Shard(shard::ShardArgs),
    /// List what kernel libraries and code objects hold: architectures, kernels, arguments, launchers
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(inspect::InspectArgs),
    /// Build the kernel libraries whose sources Cargo.toml names, without running them
    #[command(after_help = BUILD_EXAMPLES)]
    Build(build::KernelBuildArgs),
    /// Write the bindings of `#[kernel_library]` as C++ headers, so that the compiler checks the launchers against them
    #[command(after_help = HEADER_EXAMPLES)]
    Header(header::HeaderArgs),
    /// Find the layer and the operation where a model goes wrong, from two dumps and its checkpoint
    Triage(triage::TriageArgs),
    /// Compare two files or folders of tensors: safetensors, npy, npz, .pt, and the dumps of inference engines
    Compare(compare::CompareArgs),
    /// Find failed builds, silent fallbacks and NaN in a server's log, and lines that prove that a kernel ran
    Logs(logs::LogsArgs),
    /// Send prompts with known answers to a server, and compare its answers with each other and with a reference server
    Probe(probe::ProbeArgs),
    /// Set up a kernel crate: dependencies, configuration, a first test, a CI workflow; overwrites nothing
    #[command(after_help = INIT_EXAMPLES)]
    Init(init::InitArgs),
    /// Check this machine and workspace for what a run needs, with a fix for each thing that is missing
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
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
            Command::Run(args) => run::command(run::RunArgs { commands: names(), ..*args }),
            Command::Archive(args) => archive::command(*args),
            Command::Selftest(args) => selftest::command(*args),
            Command::Report(args) => report::command(args),
            Command::Lint(args) => lint::cli::command(args),
            Command::Weights(args) => weights::command(args),
            Command::Dtypes(args) => dtypes::command(args),
            Command::Shard(args) => shard::command(args),
            Command::Inspect(args) => inspect::command(args),
            Command::Build(args) => build::command(args),
            Command::Header(args) => header::command(args),
            Command::Triage(args) => triage::command(args),
            Command::Compare(args) => compare::command(args),
            Command::Logs(args) => logs::command(args),
            Command::Probe(args) => probe::command(args),
            Command::Init(args) => init::command(args),
            Command::Doctor(args) => doctor::command(args),
            Command::Completions(args) => completions::command(&args, Cli::command()),
            Command::DeviceAnswers(args) => run::answers(&args),
            Command::EndOrphans(args) => run::end_orphans(&args),
        }
    }
}

/// The names of all commands, for the hint about a filter that is nearly one of them.
fn names() -> Vec<String> {
    let commands = Cli::command();
    commands.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::{arguments, command_like};
    use clap::Parser as _;
    use std::ffi::OsString;

    fn parse(line: &[&str]) -> Cli {
        let words = line.iter().map(|w| OsString::from(*w));
        Cli::try_parse_from(arguments(words)).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_in_80_columns() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  cargo accuracy"), "{name} has no example:\n{help}");
            // Prose is wrapped, examples would break.
            let wide: Vec<&str> = help.lines().filter(|l| l.starts_with(' ') && l.len() > 80).collect();
            assert_eq!(wide, [""; 0], "{name} is wider than 80 columns");
        }
    }

    #[test]
    fn a_filter_that_is_nearly_a_command_is_told_from_others() {
        let commands = names();
        for (filter, command) in
            [("lnt", "lint"), ("lintt", "lint"), ("list", "lint"), ("doctr", "doctor"), ("tiage", "triage")]
        {
            assert_eq!(command_like(filter, &commands), Some(command), "{filter}");
        }
        for filter in ["fp8", "gemm", "lint::x", "", "t", "linear"] {
            assert_eq!(command_like(filter, &commands), None, "{filter}");
        }
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
