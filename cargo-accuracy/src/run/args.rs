//! Flags of `cargo accuracy run`.

use super::batch::Isolation;
use super::cargo::CargoArgs;
use super::select::Wanted;
use crate::baseline::BaselineArgs;
use crate::cli::OutputArgs;
use accuracy_core::arch::Arch;
use accuracy_core::device::gpu::Kind;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Run the cases whose identity contains one of these, or is one of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Architecture whose kernels run: host, gfx942, gfx950, ... (repeatable)
    ///
    /// Without it the environment's ACCURACY_ARCH, without that the configuration's `arch`, and without that the visible
    /// GPU's; the CPU is never taken without being named.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    /// Run the code of gfx942 and gfx950 on this machine's processor, also where such a GPU is visible
    ///
    /// Without it the kernels run on a device, and without a device the exit status is 101. The report says that the run was
    /// emulated; what emulation does not show is in the guide (limits). --emulate=false overrides the configuration.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub emulate: Option<bool>,
    /// With --emulate, look for races between waves and workgroups, too
    ///
    /// In one of a case's runs every access to memory is then compared with those before it, which takes about ten times as
    /// long.
    #[arg(long)]
    pub race: bool,
    /// GPU runtime, hip or cuda, where it is not the vendor's own for the architecture
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<Kind>,
    /// GPUs that run cases, counted from 0 within HIP_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES [default: all visible]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub devices: Vec<usize>,
    /// Leave the silent-parameter lint of the packages' sources out
    #[arg(long)]
    pub no_lint: bool,
    /// Print the identities of the selected cases instead of running them
    #[arg(long)]
    pub list: bool,
    /// Run what `cargo accuracy archive` has put into this file: needs no cargo, no compiler and no source
    ///
    /// It is unpacked into the folder for temporary files (TMPDIR). Records go to --target-dir, else
    /// CARGO_TARGET_DIR, else ./target. The lint is left out: it reads sources.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "Manifest", "Features", "release", "profile", "lib", "bins",
        "test", "build_jobs", "locked", "offline", "frozen",
    ])]
    pub archive: Option<PathBuf>,
    /// Faults are planted, and the table is that of `cargo accuracy selftest`.
    #[arg(skip)]
    pub selftest: bool,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[command(flatten)]
    pub baseline: BaselineArgs,
    #[command(flatten)]
    pub runner: RunnerArgs,
    #[command(flatten)]
    pub cargo: CargoArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Judgement")]
pub struct JudgeArgs {
    /// Least cosine that counts as correct [default: the attribute's, the configuration's, 0.999]
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub min_cos: Option<f64>,
    /// Run each chain this often and compare the bytes [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: Option<u32>,
    /// Seed of the generated inputs, in place of each test's own
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What memory holds that kernels have to write: repeats a run whose report names this number [default: drawn]
    #[arg(long, value_name = "N")]
    pub poison: Option<u64>,
    /// Keep what the kernels of each full chain wrote, and the float64 references, as safetensors in this folder
    ///
    /// One file a case, which is named in its metadata (`case`). Of each buffer that a kernel wrote: NAME, as it was
    /// written (what is quantised: decoded, in float64), and NAME.reference, what it was judged against; of the end of
    /// the chain also NAME.quantised, the framework's own quantised chain, and NAME.ideal, without any quantisation.
    #[arg(long, value_name = "DIR")]
    pub keep_tensors: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runner")]
pub struct RunnerArgs {
    /// Processes at a time [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub jobs: Option<usize>,
    /// What runs in a process of its own: a case, or a batch of them
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub isolation: Isolation,
    /// Seconds that a case may take before it is killed [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<f64>,
    /// Start nothing more after the first failure; what did not run is reported
    #[arg(long, conflicts_with = "no_fail_fast")]
    pub fail_fast: bool,
    /// Run everything, whatever fails (the default: a table with holes is of little use)
    #[arg(long)]
    pub no_fail_fast: bool,
    /// Run the K-th of N parts of the selected cases, on one of N machines; `cargo accuracy report DIR...` merges them
    ///
    /// slice:K/N takes every N-th in their order; hash:K/N goes by the identity, so that a new case moves no other;
    /// auto is slice:K/N with what the scheduler says: a Slurm array, an indexed job of Kubernetes (which also needs
    /// JOB_COMPLETIONS), CI_NODE_INDEX and CI_NODE_TOTAL (GitLab sets them), CircleCI, Buildkite.
    #[arg(long, value_name = "slice:K/N|hash:K/N|auto")]
    pub partition: Option<Wanted>,
    /// Make slices that take equally long, by the durations in this JSON report or folder of records; every part
    /// needs the same
    #[arg(long, value_name = "PATH", requires = "partition")]
    pub durations: Option<PathBuf>,
}

pub fn cosine(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|c| (-1.0..=1.0).contains(c))
        .ok_or_else(|| "expected a number from -1 to 1".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|s: &f64| *s > 0.0 && s.is_finite())
        .ok_or_else(|| "expected a positive number of seconds".into())
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a positive whole number".into())
}
