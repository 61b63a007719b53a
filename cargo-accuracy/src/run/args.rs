//! Flags of `cargo accuracy run`.

use super::cargo::CargoArgs;
use super::select;
use crate::baseline::BaselineArgs;
use crate::output::OutputArgs;
use accuracy_core::arch::Arch;
use accuracy_core::device::gpu::Kind;
use accuracy_core::trace::{self, Lane, Place, Range, Wanted};
use accuracy_core::verdict::LeastCosine;
use std::path::PathBuf;

/// What a process of its own is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// One case on the CPU, several on a device
    #[default]
    Auto,
    /// One case
    Case,
    /// Several cases; one that fails runs again alone
    Batch,
}

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Run only the cases whose identity contains one of these texts
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Architecture whose kernels run: host, gfx942, gfx950, ... (repeatable)
    ///
    /// The default is ACCURACY_ARCH, else the configuration's `arch`, else the architecture of the visible GPU. The CPU
    /// (`host`) is used only if one of them names it. The kernel library of that architecture is opened.
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    /// Run the machine code of gfx942 and gfx950 on this machine's processor, even if such a GPU is visible
    ///
    /// Without this flag the kernels run on a GPU, and if there is none the exit status is 101. Every report says that the
    /// run was emulated. The guide's page `limits` lists what emulation does not show. --emulate=false overrides the
    /// configuration.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub emulate: Option<bool>,
    /// Also look for races between waves and between workgroups, with --emulate
    ///
    /// In one of a case's runs, every access to memory is compared with those before it. That run takes about ten times
    /// as long.
    #[arg(long)]
    pub race: bool,
    /// GPU runtime, hip or cuda, if it is not the usual one of the architecture's vendor
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<Kind>,
    /// GPUs to use, counted from 0 within HIP_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES; one case at a time runs on each
    /// [default: all visible]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub devices: Vec<usize>,
    /// Skip the silent-parameter lint
    #[arg(long)]
    pub no_lint: bool,
    /// Print the identities of the selected cases instead of running them
    #[arg(long)]
    pub list: bool,
    /// Run the tests in a file that `cargo accuracy archive` wrote; needs no cargo, no compiler and no sources
    ///
    /// The file is unpacked into the folder for temporary files (TMPDIR). Results go to --target-dir, else
    /// CARGO_TARGET_DIR, else ./target. The lint is skipped, because it reads sources.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "Manifest", "Features", "release", "profile", "lib", "bins",
        "test", "build_jobs", "locked", "offline", "frozen",
    ])]
    pub archive: Option<PathBuf>,
    /// Faults are planted, and the table is that of `cargo accuracy selftest`.
    #[arg(skip)]
    pub selftest: bool,
    /// The names of all commands, for the hint about a filter that is nearly one of them.
    #[arg(skip)]
    pub commands: Vec<String>,
    #[command(flatten)]
    pub trace: TraceArgs,
    #[command(flatten)]
    pub fuzz: FuzzArgs,
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
#[command(next_help_heading = "The instructions of one wave, with --emulate")]
pub struct TraceArgs {
    /// Run this case alone, and print the instructions of one of its waves, with registers and memory
    ///
    /// CASE is an identity, or a text that is in no other one. If the case fails, the trace is that of the wave which wrote the
    /// worst element of the first failing hop, up to that instruction, or of the wave that made the first mistake. Otherwise it
    /// is that of the first wave of the first kernel. Values are those of one lane, before and after each instruction. Source
    /// lines stand between the instructions if the code object has a line table (`cargo accuracy build` writes one).
    #[arg(long = "trace", value_name = "CASE", conflicts_with_all = ["filters", "list", "partition", "count"])]
    pub case: Option<String>,
    /// Show a kernel whose name contains this text
    #[arg(long = "trace-kernel", value_name = "NAME", requires = "case")]
    pub kernel: Option<String>,
    /// Show this one of the launches of that kernel, counted from 1
    #[arg(long = "trace-launch", value_name = "N", requires = "case",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub launch: Option<u64>,
    /// Show a wave of this workgroup, such as 3 or 3,0,1
    #[arg(long = "trace-block", value_name = "X,Y,Z", requires = "case")]
    pub block: Option<Place>,
    /// Show this wave of the workgroup, counted from 0
    #[arg(long = "trace-wave", value_name = "N", requires = "case")]
    pub wave: Option<u32>,
    /// Show the values of this lane, 0 to 63, or of all lanes
    #[arg(long = "trace-lane", value_name = "N|all", requires = "case")]
    pub lane: Option<Lane>,
    /// Show only the instructions in this range: offsets such as 0x40..0x80, or lines such as quant.hip:20..30
    #[arg(long = "trace-range", value_name = "FIRST..LAST", requires = "case")]
    pub range: Option<Range>,
    /// Show at most this many instructions [default: 400]
    #[arg(long = "trace-most", value_name = "N", requires = "case", value_parser = most)]
    pub most: Option<usize>,
}

impl TraceArgs {
    /// The instructions that are to be shown.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            kernel: self.kernel.clone(),
            launch: self.launch,
            block: self.block,
            wave: self.wave,
            lane: self.lane,
            range: self.range.clone(),
            most: self.most.unwrap_or(trace::USUAL),
        }
    }
}

fn most(text: &str) -> Result<usize, String> {
    let most = text.parse().ok().filter(|n| (1..=trace::MOST).contains(n));
    most.ok_or_else(|| format!("expected a number of instructions, 1 to {}", trace::MOST))
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Shapes that no test lists")]
pub struct FuzzArgs {
    /// Also run N cases of each chain whose shapes are drawn [default: 8 where a test has `tokens = fuzz(..)`, else none]
    ///
    /// A drawn case has another number of tokens, perhaps a slice of its weight, and inputs that are hard for its formats.
    /// Token counts at borders of tiles come first. They are drawn from the range of `tokens = fuzz(..)`, else from 1 to the
    /// largest that the test lists; a shape outside of such a range may be refused by the kernel, and is skipped then. The
    /// seed decides what is drawn. Of what fails, the least shape that fails is looked for.
    #[arg(long = "fuzz", value_name = "N", value_parser = positive)]
    pub count: Option<usize>,
    /// Start no drawn case later than this after the first one; those that are left are skipped, and counted
    #[arg(long = "fuzz-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<f64>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Judgement")]
pub struct JudgeArgs {
    /// Least cosine that counts as correct [default: the attribute's, the configuration's, 0.999]
    #[arg(long, value_name = "COSINE")]
    pub min_cos: Option<LeastCosine>,
    /// Run each chain this many times and compare the bytes of all results [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: Option<u32>,
    /// Seed of the generated inputs, instead of the seed that each test sets
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Fill unwritten memory as the run did whose report names this number [default: a random number]
    #[arg(long, value_name = "N")]
    pub poison: Option<u64>,
    /// Save the kernels' results and the float64 references of each full chain as safetensors in this folder
    ///
    /// There is one file for each case, with the case's identity in its metadata (`case`). For each buffer that a kernel
    /// wrote it has NAME, the result (quantised data is decoded, in float64), and NAME.reference, the value that it was
    /// compared with. For the end of the chain it also has NAME.quantised, the framework's quantised chain, and
    /// NAME.ideal, the chain without any quantisation.
    #[arg(long, value_name = "DIR")]
    pub keep_tensors: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runner")]
pub struct RunnerArgs {
    /// Number of processes that run at the same time [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub jobs: Option<usize>,
    /// What each process runs: one case, or a batch of cases
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub isolation: Isolation,
    /// Seconds that a case may take before it is killed [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<f64>,
    /// Start no case after the first failure; the rest are reported as not run
    #[arg(long, conflicts_with = "no_fail_fast")]
    pub fail_fast: bool,
    /// Run every case even if some fail (this is the default)
    #[arg(long)]
    pub no_fail_fast: bool,
    /// Run the K-th of N parts of the selected cases, on one of N machines; `cargo accuracy report DIR...` merges them
    ///
    /// slice:K/N takes every N-th case. hash:K/N chooses by the identity, so that a new case does not move others to
    /// another part. auto is slice:K/N with the numbers that the scheduler sets: a Slurm array, an indexed job of
    /// Kubernetes (which also needs JOB_COMPLETIONS), CI_NODE_INDEX and CI_NODE_TOTAL (set by GitLab), CircleCI, Buildkite.
    #[arg(long, value_name = "slice:K/N|hash:K/N|auto")]
    pub partition: Option<select::Wanted>,
    /// Make slices that take equally long, using the durations in this JSON report or folder of records; give every part
    /// the same one
    #[arg(long, value_name = "PATH", requires = "partition")]
    pub durations: Option<PathBuf>,
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
