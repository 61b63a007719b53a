//! Every case that the discovered tests have on the wanted architectures, before filters.

use super::args::RunArgs;
use super::discover::Binary;
use super::folder::{Part, test_key};
use super::select::{self, Meant, Partition, Wanted};
use crate::config::{self, Config};
use crate::exit::usage;
use accuracy_core::arch::Arch;
use accuracy_core::env;
use accuracy_core::identity::Identity;
use accuracy_core::plan;
use accuracy_core::record::Planned;
use accuracy_core::verdict::LeastCosine;
use anyhow::Context as _;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

const DEFAULT_TIMEOUT: f64 = 300.0;
/// A year: an instant plus this is an instant.
const LONGEST_TIMEOUT: f64 = 365.0 * 86_400.0;

/// A case and what is to become of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub planned: Planned,
    /// Index of the executable.
    pub binary: usize,
    /// Name by which libtest runs it.
    pub libtest: String,
    pub timeout: Duration,
    /// Bytes of device memory that it declares to need.
    pub memory: u64,
    pub fate: Fate,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    Run,
    /// Not for this architecture.
    Skip(String),
    /// Its matrix cannot be laid out: a checkpoint is missing, say. Its identity lacks the tensors of these roles.
    Impossible {
        why: String,
        roles: Vec<String>,
    },
}

/// The settings of a run, each by its precedence.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From the flag or the environment.
    pub arch: Option<Vec<Arch>>,
    /// Those of the visible devices, where nothing names one.
    pub visible: Vec<Arch>,
    /// Whether the flag or the environment asks for emulation, or forbids it.
    pub emulate: Option<bool>,
    /// Whether the run emulates what can be emulated: [`super::emulate::decide`].
    pub emulates: bool,
    /// Whether what is emulated is looked at for races.
    pub race: bool,
    /// From the flag or the environment: wins over the attribute of a test.
    pub min_cos: Option<LeastCosine>,
    pub timeout: Option<f64>,
    pub jobs: usize,
    pub repeat: Option<u32>,
    pub seed: Option<u64>,
    /// Drawn cases of each chain.
    pub fuzz: Option<usize>,
    /// With what memory is filled that kernels have to write: named, or drawn for this run.
    pub poison: u64,
    pub partition: Option<Partition>,
    /// Of an earlier run, by identity.
    pub durations: Option<HashMap<String, f64>>,
}

impl Settings {
    pub fn new(args: &RunArgs, config: &Config) -> anyhow::Result<Settings> {
        let arch = match &args.arch[..] {
            [] => config::arch_from_env()?,
            named => Some(named.to_vec()),
        };
        let min_cos = match args.judge.min_cos {
            Some(cos) => Some(cos),
            None => config::from_env(env::MIN_COS, LeastCosine::EXPECTED)?,
        };
        let timeout = match args.runner.timeout {
            Some(seconds) => Some(seconds),
            None => config::from_env("ACCURACY_TIMEOUT", "a positive number of seconds")?,
        };
        if let Some(seconds) = timeout.filter(|s: &f64| !(s.is_finite() && *s > 0.0)) {
            return Err(usage(format!("ACCURACY_TIMEOUT={seconds}: expected a positive number of seconds")));
        }
        let jobs = match args.runner.jobs {
            Some(jobs) => Some(jobs),
            None => config::from_env::<std::num::NonZeroUsize>("ACCURACY_JOBS", "a positive whole number")?
                .map(usize::from)
                .or(config.jobs()),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let repeat = match args.judge.repeat {
            Some(repeat) => Some(repeat),
            None => config::from_env::<std::num::NonZeroU32>(env::REPEAT, "a positive whole number")?
                .map(u32::from),
        };
        let seed = match args.judge.seed {
            Some(seed) => Some(seed),
            None => config::from_env(env::SEED, "a whole number without a sign")?,
        };
        let fuzz = match args.fuzz.count {
            Some(count) => Some(count),
            None => config::from_env::<std::num::NonZeroUsize>(env::FUZZ, "a positive whole number")?
                .map(usize::from),
        };
        let poison = match args.judge.poison {
            Some(poison) => Some(poison),
            None => config::from_env(env::POISON, "a whole number without a sign")?,
        };
        let poison = poison.unwrap_or_else(drawn);
        let partition = args.runner.partition.map(Wanted::resolve).transpose()?;
        let durations = args.runner.durations.as_deref().map(durations).transpose()?;
        let (jobs, visible, emulates) = (jobs.unwrap_or_else(cores), Vec::new(), false);
        let emulate = emulation_asked_for(args.emulate)?;
        Ok(Settings {
            arch,
            visible,
            emulate,
            emulates,
            race: races_asked_for(args.race)?,
            min_cos,
            timeout,
            jobs,
            repeat,
            seed,
            fuzz,
            poison,
            partition,
            durations,
        })
    }

    /// Architectures on which a package runs; `None` where nothing names one.
    pub fn arch(&self, config: &Config, package: &str) -> Option<Vec<Arch>> {
        let visible = || Some(self.visible.clone()).filter(|archs| !archs.is_empty());
        let mut archs = self.arch.clone().or_else(|| config.arch(package)).or_else(visible)?;
        let mut seen = BTreeSet::new();
        archs.retain(|arch| seen.insert(*arch));
        Some(archs)
    }

    /// Whether the cases of an architecture are emulated.
    pub fn is_emulated(&self, arch: Arch) -> bool {
        self.emulates && arch.can_be_emulated()
    }

    fn timeout(&self, config: &Config, package: &str) -> Duration {
        let seconds = self.timeout.or_else(|| config.timeout(package)).unwrap_or(DEFAULT_TIMEOUT);
        Duration::from_secs_f64(seconds.min(LONGEST_TIMEOUT))
    }
}

/// A number that no two runs are likely to share, short enough to be copied by hand.
fn drawn() -> u64 {
    RandomState::new().hash_one(std::process::id()) & 0xffff
}

/// Whether the command line or the environment asks for emulation; the configuration decides where they say nothing.
fn emulation_asked_for(flag: Option<bool>) -> anyhow::Result<Option<bool>> {
    match flag {
        Some(flag) => Ok(Some(flag)),
        None => match config::from_env::<u8>(env::EMULATE, "1 to emulate, 0 to run on a device")? {
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            None => Ok(None),
            Some(other) => {
                Err(usage(format!("{}={other}: expected 1 to emulate, 0 to run on a device", env::EMULATE)))
            }
        },
    }
}

/// Whether the flag or the environment asks for races.
///
/// # Errors
/// If the variable has a value that means nothing.
fn races_asked_for(flag: bool) -> anyhow::Result<bool> {
    let expected = "1 to look for races, 0 not to";
    match config::from_env::<u8>(env::RACE, expected)? {
        Some(1) => Ok(true),
        None | Some(0) => Ok(flag),
        Some(other) => Err(usage(format!("{}={other}: expected {expected}", env::RACE))),
    }
}

/// All cases of all tests, in the order of executables, architectures and source. The drawn cases of a test come behind its
/// listed ones, among them those whose whole identity is a filter.
pub fn lay_out(
    binaries: &[Binary],
    settings: &Settings,
    config: &Config,
    filters: &[String],
) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (index, binary) in binaries.iter().enumerate() {
        let archs = settings.arch(config, &binary.package).unwrap_or_default();
        for arch in archs {
            for test in &binary.tests {
                let timeout = settings.timeout(config, &binary.package);
                let case = |planned, cell: usize, fate| Case {
                    planned,
                    binary: index,
                    libtest: test.libtest_name(&test.body.cells[cell]),
                    timeout,
                    memory: test.body.memory.unwrap_or(0),
                    fate,
                };
                match plan::expand(test, arch) {
                    Ok(listed) => {
                        let mut drawn = plan::drawn(test, &listed, settings.fuzz, settings.seed)?;
                        for filter in filters {
                            let named = plan::by_identity(test, &listed, filter);
                            let named = named.map_err(|error| usage(error.to_string()))?;
                            let known = |id: &str| drawn.iter().any(|case| case.planned.id == id);
                            drawn.extend(named.filter(|case| !known(&case.planned.id)));
                        }
                        let all = listed.into_iter().chain(drawn);
                        cases.extend(
                            all.map(|sub| {
                                case(sub.planned, sub.cell, sub.skip.map_or(Fate::Run, Fate::Skip))
                            }),
                        );
                    }
                    Err(e) => cases.extend(test.body.cells.iter().enumerate().map(|(i, cell)| {
                        let planned = plan::planned(test, cell, arch, &BTreeMap::new());
                        let roles = test.body.weights.iter().map(|(role, _)| role.clone());
                        let roles = roles.collect::<BTreeSet<_>>().into_iter().collect();
                        case(planned, i, Fate::Impossible { why: e.to_string(), roles })
                    })),
                }
            }
        }
    }
    let mut seen: BTreeMap<&str, &Case> = BTreeMap::new();
    for case in &cases {
        if let Some(other) = seen.insert(&case.planned.id, case) {
            anyhow::bail!(
                "two cases have the identity {}: {}:{} in {} and {}:{} in {}",
                case.planned.id,
                other.planned.file,
                other.planned.line,
                binaries[other.binary].name,
                case.planned.file,
                case.planned.line,
                binaries[case.binary].name,
            );
        }
    }
    Ok(cases)
}

/// How many listed cases each test has, by its path and architecture.
pub fn totals(cases: &[Case]) -> BTreeMap<String, usize> {
    let mut totals = BTreeMap::new();
    for case in cases.iter().filter(|case| case.planned.fuzz.is_none()) {
        *totals.entry(test_key(&case.planned.id, &case.planned.arch)).or_default() += 1;
    }
    totals
}

/// What a run takes of all cases.
pub struct Selected {
    pub cases: Vec<Case>,
    /// Which part it is, where it is one.
    pub part: Option<Part>,
}

/// The cases that filters and partition leave. `origin` is what the cases come from, where that is one file.
pub fn select(
    cases: Vec<Case>,
    args: &RunArgs,
    settings: &Settings,
    origin: Option<&str>,
) -> anyhow::Result<Selected> {
    let mut cases = filtered(cases, &args.filters);
    let Some(partition) = &settings.partition else { return Ok(Selected { cases, part: None }) };
    let ids: Vec<&str> = cases.iter().map(|case| case.planned.id.as_str()).collect();
    let parts = partition.divide(&ids, settings.durations.as_ref())?;
    let part = Part {
        part: partition.part,
        parts: partition.parts,
        of: fingerprint(&ids, &parts, settings, origin),
        cases: ids.len(),
        places: (0..ids.len()).filter(|&i| parts[i] == partition.part).collect(),
        job: partition.job.clone(),
    };
    let mut at = 0..;
    cases.retain(|_| at.next().is_some_and(|i: usize| parts[i] == partition.part));
    Ok(Selected { cases, part: Some(part) })
}

/// The cases that the filters mean. What could not be laid out is left out only where no tensor's name could bring it in,
/// or where a filter names something else: then a note says so.
fn filtered(cases: Vec<Case>, filters: &[String]) -> Vec<Case> {
    // What is known of every identity: all but its tensors.
    let known: Vec<String> = cases.iter().map(|case| without_tensors(&case.planned)).collect();
    let names_known = |filter: &String| known.iter().any(|id| id.contains(filter.as_str()));
    let (elsewhere, by_tensor): (Vec<&String>, Vec<&String>) = filters.iter().partition(|f| names_known(f));
    let mut left_out = BTreeMap::new();
    let takes: Vec<bool> = cases
        .iter()
        .map(|case| match &case.fate {
            Fate::Impossible { why, roles } if !filters.is_empty() => {
                let meant = |filter: &String| select::meant(filter, &case.planned.id, roles);
                let taken = by_tensor.iter().any(|f| meant(f) != Meant::No)
                    || elsewhere.iter().any(|f| meant(f) == Meant::Yes);
                if !taken && elsewhere.iter().any(|f| meant(f) == Meant::Perhaps) {
                    left_out.insert(format!("{}::{}", case.planned.package, case.planned.test), why);
                }
                taken
            }
            _ => select::matches(filters, &case.planned.id),
        })
        .collect();
    for (test, why) in left_out {
        let style = crate::report::style::NOTE;
        crate::say!("{style}note{style:#}: {test} is not in this run, and could not be: {why}");
    }
    let mut takes = takes.into_iter();
    cases.into_iter().filter(|_| takes.next() == Some(true)).collect()
}

/// An identity without the tensors, which come last in it.
fn without_tensors(planned: &Planned) -> String {
    let mut text = Identity::of(&planned.id).without(|name| planned.weights.contains_key(name)).to_string();
    // The tensors would follow here.
    if !planned.weights.is_empty() {
        text.pop();
    }
    text
}

/// What all parts of one run have in common: where the tests come from, the cases, who runs which, and how.
fn fingerprint(ids: &[&str], parts: &[u64], settings: &Settings, origin: Option<&str>) -> String {
    let mut hasher = blake3::Hasher::new();
    let judged = (settings.min_cos.map(LeastCosine::get), settings.repeat, settings.seed);
    hasher.update(format!("{}\n{origin:?}\n{judged:?}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    if settings.emulates {
        // Parts that a device ran are parts of another run.
        hasher.update(b"emulated\n");
    }
    for (id, part) in ids.iter().zip(parts) {
        hasher.update(format!("{part} {id}\n").as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Seconds by identity, of a JSON report or of the records in a folder.
pub fn durations(path: &Path) -> anyhow::Result<HashMap<String, f64>> {
    #[derive(Deserialize)]
    struct Timed {
        id: String,
        seconds: f64,
    }
    #[derive(Deserialize)]
    struct Document {
        cases: Vec<Timed>,
    }
    let context = || format!("cannot read durations from {}", path.display());
    let timed: Vec<(String, f64)> = if path.is_dir() {
        let records = crate::report::records(path).with_context(context)?;
        records.into_iter().map(|record| (record.id, record.seconds)).collect()
    } else {
        let text = accuracy_core::files::read(path, accuracy_core::files::LIBRARY).with_context(context)?;
        let document: Document = serde_json::from_slice(&text)
            .with_context(context)
            .context("expected what `--report json=FILE` writes, or a folder of records")?;
        document.cases.into_iter().map(|case| (case.id, case.seconds)).collect()
    };
    Ok(timed.into_iter().filter(|(_, seconds)| seconds.is_finite() && *seconds > 0.0).collect())
}
