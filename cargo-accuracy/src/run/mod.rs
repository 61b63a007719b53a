//! `cargo accuracy run`: builds, discovers, runs a process per case, and judges by what each left.
//!
//! [`cargo`] builds, and [`cargo_env`] knows what it would set for tests; [`device`] looks for what the kernels run on, and
//! [`emulate`] decides whether that is an emulator;
//! [`discover`] finds the tests in the executables, [`kernels`] looks into the libraries that they bind; [`plan`] lays out
//! their cases, [`hidden`] the tests that are in none of them; [`select`] takes some, perhaps as [`schedule`] finds out; [`folder`] is where records go; [`pool`]
//! runs processes, with [`unix`] below it and [`orphans`] beside it;
//! [`phases`] says what runs after what; [`batch`] lets several cases share one, and [`order`] tells what that makes wrong; [`shrink`] looks for the least shape
//! of a failure; [`outcome`] turns their ends into
//! records; [`trace`] shows the instructions of one of them. What is printed is in [`crate::report`].

pub mod args;
mod batch;
pub mod cargo;
pub mod cargo_env;
pub mod confirm;
mod device;
pub mod discover;
pub mod emulate;
pub mod folder;
pub mod hidden;
mod kernels;
pub mod loosened;
mod loosened_by_settings;
mod order;
mod orphans;
pub mod outcome;
mod phases;
mod plan;
mod pool;
mod progress;
mod schedule;
pub mod select;
mod shrink;
mod trace;
mod unix;

pub use args::RunArgs;
pub use device::{AnswersArgs, answers, check_answers};
pub use orphans::{OrphansArgs, command as end_orphans};

use crate::archive::unpack::{Archive, Unpacked};
use crate::baseline::Baselines;
use crate::build;
use crate::config::{Config, Sources};
use crate::exit::{ExitCode, usage};
use crate::invocation::{self, command_like};
use crate::lint::{self, Baseline, Finding, LintConfig};
use crate::output;
use crate::report::{self, Report};
use crate::selftest;
use accuracy_core::device::gpu::Kind;
use accuracy_core::env;
use accuracy_core::identity::Identity;
use accuracy_core::record::{self, Gate, Library, Planned, Record, SCHEMA, Verdict};
use accuracy_core::verdict::LeastCosine;
use anyhow::Context as _;
use args::Isolation;
use cargo::CargoArgs;
use cargo_metadata::{Metadata, Package};
use device::Places;
use discover::Binary;
use folder::{RunFolder, RunInfo};
use hidden::Hidden;
use orphans::Guard;
use phases::Done;
use plan::{Case, Fate, Selected, Settings};
use pool::{End, Job, Need};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// This runner makes one attempt at each case.
const ATTEMPT: u32 = 0;

pub fn command(mut args: RunArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    args.filters.extend(args.trace.case.clone());
    match &args.archive {
        Some(path) => run_archive(&args, path),
        None => run_workspace(&args),
    }
}

fn run_workspace(args: &RunArgs) -> anyhow::Result<ExitCode> {
    args.baseline.expect_apart_from(&args.output)?;
    let baselines = args.baseline.load()?;
    let metadata = args.cargo.metadata()?;
    let config = Config::new(&Sources::read(&metadata)?)?;
    let mut settings = Settings::new(args, &config)?;
    let packages = packages(&args.cargo, &metadata, &config)?;
    if packages.is_empty() {
        crate::say!("nothing ran: no selected package depends on accuracy-core and takes part in a run");
        return Ok(ExitCode::NothingRan);
    }
    let names = packages.iter().map(|p| p.name.as_str());
    settings.emulates = emulate::decide(names.clone(), &settings, &config, args.runtime)?;
    emulate::check_races(&settings)?;
    trace::check(args, &settings)?;
    require_arch(names, &mut settings, &config, args.runtime)?;
    let archs = packages.iter().filter_map(|p| settings.arch(&config, &p.name)).flatten();
    let find = || Places::find(archs, &settings, args.runtime, &args.devices);
    let places = (!args.list).then(find).transpose()?;

    let features = match settings.emulates {
        true => emulate::features(&args.cargo, &packages)?,
        false => Vec::new(),
    };
    let built = args.cargo.build(&metadata, &packages, &features)?;
    let mut binaries = discover::discover(&built, &metadata, &packages)?;
    if settings.emulates {
        emulate::refuse(&cannot_emulate(&binaries), "make accuracy-core a dependency of its package")?;
    }
    if places.is_some() {
        let mut folders: BTreeMap<PathBuf, String> = BTreeMap::new();
        for binary in &mut binaries {
            let archs = settings.arch(&config, &binary.package).unwrap_or_default();
            let mut lines = String::new();
            // Those of each package whose bindings are linked in, whether or not its own tests are part of the run.
            for package in binding(binary, &metadata)? {
                let dir = cargo::manifest_dir(package).to_path_buf();
                if let std::collections::btree_map::Entry::Vacant(entry) = folders.entry(dir.clone()) {
                    let out_dir = built.out_dir(&package.id);
                    let mut fresh = build::libraries(&metadata, &config, package, &archs, out_dir)?;
                    fresh.extend(build::code_objects_again(&metadata, &config, package, Some(&archs))?);
                    entry.insert(build::kernel_folders(&config, package, &fresh)?);
                }
                lines += &folders[&dir];
            }
            if !lines.is_empty() {
                binary.environment.push((env::KERNEL_FOLDERS.into(), lines));
            }
        }
    }
    if args.cargo.names_packages() {
        for package in packages.iter().filter(|p| !binaries.iter().any(|b| b.package == p.name.as_str())) {
            let why = discover::why_none(&[package], &args.cargo.features);
            crate::say!("{}note{:#}: {}", report::style::NOTE, report::style::NOTE, why.join("; "));
        }
    }
    let cases = plan::lay_out(&binaries, &settings, &config, &args.filters)?;
    if cases.is_empty() {
        let why = discover::why_none(&packages, &args.cargo.features);
        crate::say!("nothing ran: no accuracy test was found\n  {}", why.join("\n  "));
        return Ok(ExitCode::NothingRan);
    }
    let target = metadata.target_directory.as_std_path();
    let ready = Ready {
        settings: &settings,
        config: &config,
        binaries: &binaries,
        packages: packages.iter().map(|package| package.name.to_string()).collect(),
        cases,
        places,
        target,
        unpacked: None,
        baselines,
        left_out: left_out(args, &metadata, &config),
        // Whoever names targets leaves the others out.
        hidden: match args.cargo.names_targets() {
            true => Vec::new(),
            false => {
                hidden::tests(&packages, &binaries, metadata.workspace_root.as_std_path(), &args.filters)
            }
        },
        lint_config: (!args.no_lint)
            .then(|| LintConfig::load(metadata.workspace_root.as_std_path()))
            .transpose()?,
    };
    ready.run(args, || lint(&packages, &metadata))
}

/// The same from a file: nothing is built, and cargo is not asked.
fn run_archive(args: &RunArgs, path: &Path) -> anyhow::Result<ExitCode> {
    let baselines = args.baseline.load()?;
    let archive = Archive::open(path)?;
    let mut settings = Settings::new(args, &archive.config)?;
    let selected = archive.selected(&args.cargo.workspace)?;
    let packages: BTreeSet<&str> = selected.iter().map(|binary| binary.package.as_str()).collect();
    if packages.is_empty() {
        crate::say!("nothing ran: every package of {} is excluded", path.display());
        return Ok(ExitCode::NothingRan);
    }
    settings.emulates = emulate::decide(packages.iter().copied(), &settings, &archive.config, args.runtime)?;
    emulate::check_races(&settings)?;
    trace::check(args, &settings)?;
    if settings.emulates {
        let without: Vec<&str> =
            selected.iter().filter(|b| !b.can_emulate).map(|b| b.name.as_str()).collect();
        let again = format!("make {} again with `cargo accuracy archive --emulate`", path.display());
        emulate::refuse(&without, &again)?;
    }
    require_arch(packages.iter().copied(), &mut settings, &archive.config, args.runtime)?;
    let mut places = None;
    if !args.list {
        let mut archs = BTreeSet::new();
        for package in &packages {
            for arch in settings.arch(&archive.config, package).unwrap_or_default() {
                archive.require_library(package, arch)?;
                archs.insert(arch);
            }
        }
        places = Some(Places::find(archs, &settings, args.runtime, &args.devices)?);
    }
    let unpacked = archive.unpack()?;
    let mut binaries = Vec::new();
    for archived in selected {
        let binary = unpacked.binary(archived, &archive.contents)?;
        discover::check_list(&binary).context("an executable of the archive does not run on this machine")?;
        binaries.push(binary);
    }
    let cases = plan::lay_out(&binaries, &settings, &archive.config, &args.filters)?;
    if cases.is_empty() {
        crate::say!("nothing ran: the executables of {} hold no accuracy test", path.display());
        return Ok(ExitCode::NothingRan);
    }
    let target = match &args.cargo.build.target_dir {
        Some(dir) => dir.clone(),
        None => std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from),
    };
    let target = std::path::absolute(&target).with_context(|| format!("folder {}", target.display()))?;
    let ready = Ready {
        settings: &settings,
        config: &archive.config,
        binaries: &binaries,
        packages: packages.into_iter().map(str::to_owned).collect(),
        cases,
        places,
        target: &target,
        unpacked: Some(&unpacked),
        baselines,
        left_out: Vec::new(),
        hidden: Vec::new(),
        lint_config: None,
    };
    // The sources are where the archive was made.
    ready.run(args, || Ok(Linted::default()))
}

/// Everything that a run needs once there are executables, wherever they come from.
struct Ready<'a> {
    settings: &'a Settings,
    config: &'a Config,
    binaries: &'a [Binary],
    /// The packages that take part.
    packages: Vec<String>,
    cases: Vec<Case>,
    /// `None` where nothing is to run.
    places: Option<Places>,
    /// Folder in which records get one of their own.
    target: &'a Path,
    /// The archive that all of it comes from.
    unpacked: Option<&'a Unpacked>,
    baselines: Baselines<'a>,
    /// Packages that the configuration leaves out.
    left_out: Vec<String>,
    /// Tests that are in no executable.
    hidden: Vec<Hidden>,
    /// Where sources are looked into.
    lint_config: Option<LintConfig>,
}

impl Ready<'_> {
    /// Runs those of the cases that the command line selects, and reports; `lint` adds what it finds.
    fn run(self, args: &RunArgs, lint: impl FnOnce() -> anyhow::Result<Linted>) -> anyhow::Result<ExitCode> {
        let Ready {
            settings, config, binaries, packages, cases, places, target, unpacked, baselines, ..
        } = self;
        let (left_out, hidden, lint_config) = (self.left_out, self.hidden, self.lint_config);
        let tests = plan::totals(&cases);
        let (known, sample) = (cases.len(), cases[0].planned.id.clone());
        let origin = unpacked.map(|unpacked| unpacked.hash.as_str());
        let Selected { cases: mut selected, part } = plan::select(cases, args, settings, origin)?;
        let mut info = RunInfo {
            schema: SCHEMA,
            flags: flags_to_repeat(args, settings),
            tests,
            packages,
            device: places.as_ref().and_then(Places::describe),
            emulated: places.as_ref().map(Places::all_emulated).unwrap_or_default(),
            part,
            announced: None,
            libraries: BTreeSet::new(),
            loosened: loosened_by_settings::of_run(args, settings, config, binaries, &selected, &left_out),
            deny_hidden: hidden.iter().any(|hidden| config.deny_hidden(&hidden.package)),
            hidden,
        };
        if args.selftest {
            // What cannot be laid out stays, and says that no fault was planted in it.
            let meant = selected.iter().filter(|case| !matches!(case.fate, Fate::Skip(_)));
            let chosen = selftest::representative(meant.map(|case| &case.planned));
            selected.retain(|case| chosen.contains(&case.planned.id));
        }
        trace::only(args, &mut selected, || why_nothing_selected(args, known, &sample))?;
        if selected.is_empty() {
            if info.part.as_ref().is_some_and(|part| part.cases > 0) && places.is_some() {
                // More parts than cases: whoever merges them must not miss this one.
                RunFolder::create(target, Vec::new(), &info)?;
            }
            crate::say!("nothing ran: {}", why_nothing_selected(args, known, &sample));
            return Ok(ExitCode::NothingRan);
        }
        let Some(places) = places else {
            output::write_lines(&args.output, selected.iter().map(|case| &case.planned.id))?;
            return Ok(ExitCode::Correct);
        };

        info.libraries = kernels::check(binaries, &selected, &places)?;
        info.loosened.extend(loosened::of_libraries(info.libraries.iter()));
        if !args.no_lint {
            info.loosened.extend(lint_config.as_ref().map(loosened::of_lint).unwrap_or_default());
        }
        if let Some(part) = &info.part {
            let job = part.job.as_ref().map_or(String::new(), |job| format!(" ({job})"));
            let (part, parts, all) = (part.part, part.parts, part.cases);
            crate::say!("part {part} of {parts}{job}: {} of {all} cases", selected.len());
        }
        let planned = selected.iter().map(|c| c.planned.clone()).collect();
        let folder = RunFolder::create(target, planned, &info)?;
        let began = std::time::Instant::now();
        let guard = Guard::start(&folder.path, unpacked.map(Unpacked::root))?;
        let spared = guard.pid();
        let libraries = &info.libraries;
        let run =
            Run { args, settings, config, binaries, places: &places, folder: &folder, spared, libraries };
        let Done { records, problem, interrupted } = phases::run(&run, &selected)?;
        let problem = problem.or(trace::show(args, &records)?);

        if args.selftest {
            let width = output::width(args.output.stdout_taken());
            let (mut text, code) = selftest::render(&records, width);
            if let (Some(device), true) = (&info.device, settings.emulates) {
                text += &format!("the kernels ran on {device}\n");
            }
            output::write_lines(&args.output, std::iter::once(&text.trim_end().to_owned()))?;
            return Ok(if problem.is_some() { ExitCode::Unfinished } else { code });
        }
        let infos = [info];
        let mut report = Report::new(records, &infos);
        report.min_cos = settings.min_cos.map(LeastCosine::get).or(report.min_cos);
        report.seconds = Some(began.elapsed().as_secs_f64());
        report.folder = Some(folder.path.clone());
        // Who interrupts a run waits for nothing that has not begun.
        if !args.no_lint && !interrupted {
            let linted = lint()?;
            (report.lint, report.lint_unread, report.linted) = (linted.findings, linted.unread, true);
            confirm::confirm(&mut report.lint, &report.records);
        }
        report.problems.extend(problem);
        baselines.compare(&mut report, &infos);
        report::render(&report, &args.output)?;
        baselines.save(&report, &infos)?;
        Ok(report.exit_code())
    }
}

/// The packages of the workspace that declare the kernels which an executable binds.
fn binding<'m>(binary: &Binary, metadata: &'m Metadata) -> anyhow::Result<Vec<&'m Package>> {
    let blocks = accuracy_core::meta::bindings::read_binary(&binary.path)?;
    let dirs: BTreeSet<&Path> = blocks.iter().map(|block| block.manifest_dir.as_path()).collect();
    let of_block = |package: &&Package| {
        dirs.contains(cargo::manifest_dir(package)) || package.name.as_str() == binary.package
    };
    Ok(metadata.workspace_packages().into_iter().filter(of_block).collect())
}

/// Names of the executables that were not built so that they can emulate.
fn cannot_emulate(binaries: &[Binary]) -> Vec<&str> {
    binaries.iter().filter(|binary| !binary.can_emulate()).map(|binary| binary.name.as_str()).collect()
}

/// What the lint has found, and how many files it could not look into.
#[derive(Default)]
struct Linted {
    findings: Vec<Finding>,
    unread: usize,
}

/// Names of the packages that take no part, as their configuration says and the command line does not.
fn left_out(args: &RunArgs, metadata: &Metadata, config: &Config) -> Vec<String> {
    let selected = args.cargo.selected(metadata);
    let left_out = selected.into_iter().filter(|p| {
        !args.cargo.names_packages() && discover::can_have_tests(p) && !config.runs_by_default(&p.name)
    });
    left_out.map(|package| package.name.to_string()).collect()
}

/// The silent-parameter lint over the sources of the packages that were run.
fn lint(packages: &[&Package], metadata: &Metadata) -> anyhow::Result<Linted> {
    let root = metadata.workspace_root.as_std_path();
    let here = std::env::current_dir()?;
    let config = LintConfig::load(root)?;
    // Findings name files as a person would, from where the command was given.
    let paths: Vec<PathBuf> = packages
        .iter()
        .filter_map(|p| p.manifest_path.as_std_path().parent())
        .map(|dir| dir.strip_prefix(&here).unwrap_or(dir).to_path_buf())
        .map(|dir| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir })
        .collect();
    // The same folder as that of `cargo accuracy lint`: only files that have changed since are read again.
    let cache = metadata.target_directory.as_std_path().join("accuracy");
    let mut report = lint::run(&paths, &config, Some(&cache))?;
    if let Some(path) = &config.baseline {
        Baseline::load(&root.join(path))?.apply(&mut report);
    }
    Ok(Linted { findings: report.findings, unread: report.unread })
}

/// The packages whose tests are built: those that cargo would take. Of a run that does not name them, packages are
/// left out that cannot have an accuracy test, or that the configuration leaves out.
pub fn packages<'m>(
    cargo: &CargoArgs,
    metadata: &'m Metadata,
    config: &Config,
) -> anyhow::Result<Vec<&'m Package>> {
    let mut packages = cargo.selected(metadata);
    let members =
        || metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(", ");
    for name in &cargo.workspace.package {
        if !packages.iter().any(|p| p.name.as_str() == name) {
            return Err(usage(format!(
                "no package of this workspace is called `{name}`; there are: {}",
                members()
            )));
        }
    }
    if !cargo.names_packages() {
        packages.retain(|p| discover::can_have_tests(p) && config.runs_by_default(&p.name));
    }
    Ok(packages)
}

/// Where nothing names an architecture, the visible devices' are taken, and there have to be some.
fn require_arch<'p>(
    packages: impl Iterator<Item = &'p str>,
    settings: &mut Settings,
    config: &Config,
    runtime: Option<Kind>,
) -> anyhow::Result<()> {
    let without: Vec<&str> = packages.filter(|name| settings.arch(config, name).is_none()).collect();
    if without.is_empty() {
        return Ok(());
    }
    settings.visible = device::visible_archs(runtime);
    if !settings.visible.is_empty() {
        return Ok(());
    }
    let places: String = config.places.iter().map(|p| format!("\n  {p}")).collect();
    anyhow::bail!(
        "no architecture is named for {}, no GPU is visible, and the CPU is never taken silently.\n\
         Looked for --arch, ACCURACY_ARCH, [package.metadata.accuracy] and\
         {places}\n\
         Name one: `--arch host` runs the kernels on the CPU, `--arch gfx950` on that GPU, and `--arch gfx950 --emulate` \
         that GPU's code without one; or write `arch = \"host\"` into .config/accuracy.toml",
        without.join(", ")
    )
}

fn why_nothing_selected(args: &RunArgs, known: usize, sample: &str) -> String {
    let mut why = match &args.filters[..] {
        [] => format!("this part of the {known} cases is empty"),
        filters => {
            let filters: Vec<String> = filters.iter().map(|f| format!("`{f}`")).collect();
            format!("{} matched none of {known} cases; one of them is {sample}", filters.join(", "))
        }
    };
    for command in args.filters.iter().filter_map(|filter| command_like(filter, &args.commands)) {
        why += &format!("\ndid you mean the command `cargo accuracy {command}`?");
    }
    // A pasted identity names its architecture.
    let sample = Identity::of(sample);
    let own = sample.get("arch").unwrap_or_default();
    for filter in &args.filters {
        let pasted = Identity::of(filter);
        if let Some(arch) = pasted.get("arch").filter(|arch| !own.starts_with(arch)) {
            why += &format!("\nthe identity names arch={arch}: add --arch {arch}");
        }
    }
    why
}

fn flags_to_repeat(args: &RunArgs, settings: &Settings) -> Vec<String> {
    let mut flags = args.cargo.flags_to_repeat();
    if settings.emulates {
        flags.push("--emulate".into());
    }
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            flags.extend([flag.to_string(), value]);
        }
    };
    add(invocation::ARCHIVE, args.archive.as_ref().map(|path| path.display().to_string()));
    add("--runtime", args.runtime.map(|r| r.name().to_string()));
    add("--min-cos", settings.min_cos.map(|v| v.to_string()));
    add("--repeat", settings.repeat.map(|v| v.to_string()));
    add("--seed", settings.seed.map(|v| v.to_string()));
    add("--timeout", settings.timeout.map(|v| v.to_string()));
    flags
}

/// Everything that running the selected cases needs.
struct Run<'a> {
    args: &'a RunArgs,
    settings: &'a Settings,
    config: &'a Config,
    binaries: &'a [Binary],
    places: &'a Places,
    folder: &'a RunFolder,
    /// A child of this process that runs no case.
    spared: unix::Pid,
    /// The files of kernels, as they were before the first case.
    libraries: &'a BTreeSet<Library>,
}

/// What a process computes before a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// Other shapes of its test.
    Others,
    Nothing,
}

impl Run<'_> {
    /// The record of a drawn case for which there was no time.
    fn out_of_time(&self, case: &Case) -> Record {
        let seconds = self.args.fuzz.seconds.unwrap_or_default();
        let reason = format!("drawn, and not run: the time of --fuzz-seconds {seconds} was over");
        Record {
            device: self.places.emulated(&case.planned.arch).map(str::to_owned),
            ..case.planned.without_result(Verdict::Skipped, reason)
        }
    }

    /// Removes what an earlier run of cases has left.
    fn forget<'p>(&self, cases: impl Iterator<Item = &'p Planned>) -> anyhow::Result<()> {
        for planned in cases {
            batch::forget(planned, self.folder, ATTEMPT)
                .with_context(|| format!("cannot remove what the first run of {} has left", planned.id))?;
        }
        Ok(())
    }

    /// Whether a case shares a process with others.
    fn in_batch(&self, case: &Case) -> bool {
        match self.args.runner.isolation {
            // Drawn cases come last, one after another for as long as they may.
            _ if case.planned.fuzz.is_some() => false,
            // A run that stops at the first failure is to meet it as soon as it can.
            Isolation::Auto => {
                let arch = self.places.of(&case.planned.arch);
                !self.args.runner.fail_fast && arch.into_iter().all(|place| self.places.is_device(place))
            }
            Isolation::Case => false,
            Isolation::Batch => true,
        }
    }

    fn needs(&self, groups: &[Vec<usize>], cases: &[Case]) -> Vec<Need> {
        let need = |group: &Vec<usize>| Need {
            places: self.places.of(&cases[group[0]].planned.arch),
            memory: group.iter().map(|&i| cases[i].memory).max().unwrap_or(0),
        };
        groups.iter().map(need).collect()
    }

    /// The record of a case that need not run to have one.
    fn settled(&self, case: &Case) -> Option<Record> {
        let planned = &case.planned;
        let record = |verdict, reason: &str| Record {
            // It belongs to the emulated cases, though nothing ran.
            device: self.places.emulated(&planned.arch).map(str::to_owned),
            ..planned.without_result(verdict, reason)
        };
        match &case.fate {
            Fate::Skip(reason) => Some(record(Verdict::Skipped, reason)),
            Fate::Impossible { why, .. } => Some(record(Verdict::NotRun, why)),
            Fate::Run => {
                let most = self.places.largest_memory(&planned.arch)?;
                let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
                (case.memory > most).then(|| {
                    let (needs, has) = (gib(case.memory), gib(most));
                    let reason = format!(
                        "it declares to need {needs:.1} GiB, and the largest device has {has:.1} GiB"
                    );
                    planned.without_result(Verdict::NotRun, reason)
                })
            }
        }
    }

    /// Whether a device is of no more use after a case that ended badly on it. Says so.
    fn is_lost(&self, place: usize, end: &End, verdict: Verdict) -> bool {
        if !self.places.is_device(place) || !matches!(verdict, Verdict::Crashed | Verdict::TimedOut) {
            return false;
        }
        let answer = match end {
            End::Stuck => Err(anyhow::anyhow!("a process that used it cannot be killed")),
            _ => self.places.check_answers(place),
        };
        if let Err(error) = &answer {
            let (name, warning) = (self.places.name(place), report::style::WARN);
            crate::say!(
                "{warning}warning{warning:#}: {name} no longer answers and runs nothing more: {error:#}"
            );
        }
        answer.is_err()
    }

    /// A process for cases of one executable and architecture.
    fn job(&self, cases: &[&Case], place: usize, company: Company) -> anyhow::Result<Job> {
        let case = cases[0];
        let binary = &self.binaries[case.binary];
        let ids = cases.iter().map(|case| case.planned.id.as_str()).collect::<Vec<_>>().join("\n");
        let tests: BTreeSet<&str> = cases.iter().map(|case| case.libtest.as_str()).collect();
        let output = self.folder.create_output(&case.planned.id)?;
        let mut command = binary.command();
        command
            .arg("--exact")
            .args(tests)
            .args(["--nocapture", "--include-ignored", "--test-threads", "1"])
            .env(env::CASE, &ids)
            .env(env::RECORDS, &self.folder.path)
            .env(env::ATTEMPT, ATTEMPT.to_string())
            .env(env::ARCH, &case.planned.arch)
            .env(env::SCHEMA, SCHEMA.to_string())
            .stdin(Stdio::null())
            .stderr(output.try_clone().context("cannot duplicate a file descriptor")?)
            .stdout(output)
            .env_remove(env::EMULATE)
            .env_remove(env::EMULATE_THREADS)
            .env_remove(env::RACE)
            .env_remove(env::TRACE)
            .envs(self.places.environment(place));
        for (name, value) in [
            (env::RUNTIME, self.args.runtime.map(|r| r.name().to_string())),
            (env::MIN_COS, self.settings.min_cos.map(|v| v.to_string())),
            (env::DEFAULT_MIN_COS, self.config.min_cos(&binary.package).map(|v| v.to_string())),
            (env::REPEAT, self.settings.repeat.map(|v| v.to_string())),
            (env::SEED, self.settings.seed.map(|v| v.to_string())),
            (env::POISON, Some(self.settings.poison.to_string())),
            (env::ALONE, (company == Company::Nothing).then(|| "1".to_owned())),
        ] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if self.args.selftest {
            command.env(env::SELFTEST, "1");
        }
        if let Some(dir) = &self.args.judge.keep_tensors {
            // Tests run in the folders of their packages.
            let dir = std::path::absolute(dir).with_context(|| format!("folder {}", dir.display()))?;
            command.env(env::KEEP_TENSORS, dir);
        }
        if let Some(request) = trace::request(self.args, self.folder) {
            command.env(env::TRACE, serde_json::to_string(&request)?);
        }
        let path = |case: &&Case| record::record_path(&self.folder.path, &case.planned.id, ATTEMPT);
        let records: Vec<PathBuf> = cases.iter().map(path).collect();
        let done: Option<Box<dyn Fn() -> usize>> = match records.len() {
            1 => None,
            _ => Some(Box::new(move || batch::done(&records))),
        };
        Ok(Job { command, timeout: case.timeout, done, mark: ids })
    }

    fn judge(&self, planned: &Planned, finished: &pool::Finished) -> Record {
        let output = self.folder.output_path(&planned.id);
        let evidence = outcome::Evidence {
            planned,
            records: &self.folder.path,
            attempt: ATTEMPT,
            output: &output,
            libraries: self.libraries,
            poison: self.settings.poison,
        };
        let record = evidence.judge(finished);
        if record.gate == Gate::Pass {
            // Thousands of outputs that say "test result: ok" help nobody. One that cannot be removed stays.
            let _ = std::fs::remove_file(&output);
        }
        record
    }

    /// Leaves the record for a later report, in the place of the test's own.
    fn keep(&self, record: &Record) -> anyhow::Result<()> {
        let path = record::record_path(&self.folder.path, &record.id, ATTEMPT);
        record::write_record(&path, record).map_err(|error| {
            // What the test itself has left may say that it passes.
            let _ = std::fs::remove_file(&path);
            error.into()
        })
    }
}
