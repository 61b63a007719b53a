//! Runs the zoo through `cargo accuracy` and shows how well its faults are found and named, beside what other projects'
//! checks say of the same outputs.

mod naming;
mod package;
mod peers;
mod table;

use anyhow::{Context as _, bail};
use bug_zoo::{Truth, Variant};
use clap::Parser;
use naming::{Cause, Naming, naming};
use package::Package;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs every case of the zoo and shows how well its faults are found and named
#[derive(Parser)]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only cases whose identity contains one of these, as `::mxfp4[` or `kernels=right`
    #[arg(long, conflicts_with = "write")]
    only: Vec<String>,
    /// Put the table into README.md of this package, and a summary into the guide's page on limits
    #[arg(long, conflicts_with_all = ["emulate", "report"])]
    write: bool,
    /// Emulate this architecture instead of running on the host
    #[arg(long, value_name = "ARCH")]
    emulate: Option<String>,
    /// Run this package, whose folder `faults` has a table for each chain, instead of the zoo
    #[arg(
        long,
        value_name = "PACKAGE",
        num_args = 0..=1,
        default_missing_value = "kernel-faults",
        conflicts_with_all = ["write", "blind"]
    )]
    faults: Option<String>,
    /// The same as `--faults blind-faults`
    #[arg(long, conflicts_with = "write")]
    blind: bool,
    /// The profile of cargo's in which the plugin and the package are built
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,
    /// Run nothing: judge the JSON report of a run of the zoo, as another machine has written it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "only", "emulate"])]
    report: Option<PathBuf>,
    /// The folder in which the run of that report kept its tensors, for the checks of other projects
    #[arg(long, value_name = "DIR", requires = "report")]
    tensors: Option<PathBuf>,
}

/// A case as the report of `cargo accuracy` has it.
#[derive(Deserialize)]
struct Case {
    id: String,
    test: String,
    path: Option<String>,
    params: BTreeMap<String, String>,
    gate: String,
    verdict: String,
    failed_checks: Vec<String>,
    causes: Vec<Cause>,
    reason: String,
    seconds: f64,
}

#[derive(Deserialize)]
struct Report {
    cases: Vec<Case>,
}

/// A case beside the truth about it.
pub struct Judged {
    pub variant: Variant,
    pub id: String,
    /// The fault of the variant, if it shows in this case.
    pub truth: Truth,
    /// Whether the case failed its gate.
    pub failed: bool,
    pub failed_checks: Vec<String>,
    /// Named causes, the likeliest first.
    pub causes: Vec<String>,
    pub naming: Naming,
    /// What each peer's check says of the output, in the order of [`peers::CHECKS`]: whether it passes.
    pub peers: Option<Vec<bool>>,
    /// How long the case took.
    pub seconds: f64,
}

impl Judged {
    pub fn is_fault(&self) -> bool {
        self.truth != Truth::Right
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let package = match &args.faults {
        _ if args.blind => Package::with_faults(&root, package::BLIND)?,
        Some(name) => Package::with_faults(&root, name)?,
        None => Package::zoo(),
    };
    let mut first: Option<Vec<Judged>> = None;
    let mut outcomes: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    let mut all_good = true;
    for seed in args.seed..args.seed + args.seeds.max(1) {
        let began = std::time::Instant::now();
        let cases = match &args.report {
            Some(report) => {
                let outputs = args.tensors.as_deref().map(peers::outputs).transpose()?;
                judged_cases(&package, report, &outputs.unwrap_or_default())?
            }
            None => run(&package, &root, seed, first.is_none(), &args)?,
        };
        let summary = table::Summary::of(&cases);
        println!("seed {seed}: {summary}, {:.0} s", began.elapsed().as_secs_f64());
        if !package.is_zoo() {
            table::print_chains(&cases);
            table::print_peers(&cases);
        }
        table::print_seconds(&cases);
        all_good &= summary.is_good(package.least_named);
        for case in &cases {
            let outcome = Outcome { failed: case.failed, naming: case.naming, causes: case.causes.clone() };
            outcomes.entry(case.id.clone()).or_default().push(outcome);
        }
        if first.is_none() {
            table::print_misses(&cases);
            first = Some(cases);
        }
    }
    let flips = flips(&outcomes);
    for flip in &flips {
        println!("flips: {flip}");
    }
    if args.write {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let cases = first.as_deref().unwrap_or_default();
        table::write(&path, cases)?;
        table::write_summary(&root.join("accuracy-core/docs/limits.md"), cases)?;
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(PartialEq)]
struct Outcome {
    failed: bool,
    naming: Naming,
    causes: Vec<String>,
}

/// Cases that are not judged and named alike under all seeds.
fn flips(outcomes: &BTreeMap<String, Vec<Outcome>>) -> Vec<String> {
    let mut found = Vec::new();
    for (id, outcomes) in outcomes {
        let mut kinds: Vec<(String, usize)> = Vec::new();
        for o in outcomes {
            let gate = if o.failed { "fails" } else { "passes" };
            let first = o.causes.first().map_or("no cause", String::as_str);
            let kind = format!("{gate}, {first} ({:?})", o.naming);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
        }
        if kinds.len() > 1 {
            let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
            found.push(format!("{id}: {}", kinds.join("; ")));
        }
    }
    found
}

/// Runs a package with one seed.
fn run(
    package: &Package,
    root: &Path,
    seed: u64,
    with_peers: bool,
    args: &Args,
) -> anyhow::Result<Vec<Judged>> {
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let report = dir.path().join("report.json");
    let tensors = dir.path().join("tensors");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args([
        "run",
        "--quiet",
        "--profile",
        &args.profile,
        "-p",
        "cargo-accuracy",
        "--",
    ]);
    command.args(["-p", &package.name, "--profile", &args.profile, "--no-lint", "--quiet"]);
    match &args.emulate {
        None => command.args(["--arch", "host", "--timeout", "300"]),
        Some(arch) => command.args(["--arch", arch, "--emulate", "--timeout", "600"]),
    };
    command.args(["--seed", &seed.to_string(), "--report", &format!("json={}", report.display())]);
    // Memory holds the same before each run with a seed: what is not written counts in the figures. The four differ.
    let poison = [6, 1, 4, 12][(seed % 4) as usize];
    command.args(["--poison", &poison.to_string()]);
    command.args(&args.only);
    if with_peers {
        command.arg("--keep-tensors").arg(&tensors);
    }
    // What fails is what this is about; standard error stays.
    let status = command.stdout(std::process::Stdio::null()).status().context("cannot run cargo")?;
    // 0 and 100: all cases were judged.
    if !matches!(status.code(), Some(0 | 100)) {
        bail!("cargo accuracy did not finish: {status}");
    }
    let outputs = if with_peers { peers::outputs(&tensors)? } else { BTreeMap::new() };
    judged_cases(package, &report, &outputs)
}

/// The cases of a report, each beside its truth.
fn judged_cases(
    package: &Package,
    report: &Path,
    outputs: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<Vec<Judged>> {
    let text = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let report: Report = serde_json::from_str(&text).context("the report is not as expected")?;
    report.cases.into_iter().map(|case| judged(package, case, outputs)).collect()
}

fn judged(package: &Package, case: Case, outputs: &BTreeMap<String, PathBuf>) -> anyhow::Result<Judged> {
    let chain = case.test.rsplit("::").next().unwrap_or_default();
    let name = case.params.get("kernels").or(case.path.as_ref()).map_or("", String::as_str);
    let Some(variant) = package.variant(chain, name) else {
        bail!("{}: no table has this variant", case.id);
    };
    // A case that came to no verdict is no detection, and no pass either.
    let verdicts = ["correct", "suspicious", "broken", "catastrophic", "inconclusive", "crashed"];
    let judged = verdicts.contains(&&*case.verdict);
    if !judged {
        eprintln!("{}: {} ({})", case.id, case.verdict, case.reason);
    }
    let shows = variant.shows_where().all(|(axis, value)| case.params.get(axis).is_none_or(|v| v == value));
    let truth = if shows { variant.truth.clone() } else { Truth::Right };
    let naming = naming(&truth, &case.causes, package.names);
    let peers = match outputs.get(&case.id) {
        Some(path) => peers::judge(path)?,
        None => None,
    };
    Ok(Judged {
        variant,
        id: case.id,
        failed: if judged { case.gate == "fail" } else { truth == Truth::Right },
        truth,
        failed_checks: case.failed_checks,
        causes: case.causes.iter().map(|c| c.name().to_owned()).collect(),
        naming,
        peers,
        seconds: case.seconds,
    })
}
