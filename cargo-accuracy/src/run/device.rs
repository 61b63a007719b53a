//! Where cases run: the CPU, the visible devices of the architectures that a run needs, and devices that are emulated, each
//! a place of its own.

use super::plan::Settings;
use super::{emulate, pool, unix};
use crate::exit::{ExitCode, usage};
use accuracy_core::arch::Arch;
use accuracy_core::device::emulation;
use accuracy_core::device::gpu::{self, Device, Gpu, Kind};
use accuracy_core::env;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a device may take to copy a few bytes there and back, the start of its runtime included.
const ANSWER: Duration = Duration::from_secs(20);

impl Visible {
    fn of(device: &Device) -> Visible {
        let (variable, visible) = visible_list(device.runtime);
        // An entry of the caller's own list may be a number or a UUID; without a list it is the device's number.
        let value = visible.get(device.index).cloned().unwrap_or_else(|| device.index.to_string());
        Visible { device: device.clone(), variable, value }
    }
}

/// Whether a visible device works; as [`Places::check_answers`], outside of a run.
///
/// # Errors
/// What it said, or that it said nothing.
pub fn check_answers(device: &Device, arch: Arch) -> anyhow::Result<()> {
    Places(vec![Place { arch, on: On::Device(Visible::of(device)) }]).check_answers(0)
}

/// All places of a run.
pub struct Places(Vec<Place>);

struct Place {
    arch: Arch,
    on: On,
}

/// What runs the kernels.
enum On {
    Cpu,
    Device(Visible),
    Emulator(Emulated),
}

/// A device that is emulated.
struct Emulated {
    name: String,
    target: String,
    /// How many threads each of its cases may use.
    threads: usize,
    /// Whether they are looked at for races.
    race: bool,
    /// A visible device of the architecture, which is not used.
    idle: Option<Device>,
}

impl Place {
    fn device(&self) -> Option<&Visible> {
        match &self.on {
            On::Device(visible) => Some(visible),
            On::Cpu | On::Emulator(_) => None,
        }
    }
}

/// A device, and the variable by which a process sees it alone.
struct Visible {
    device: Device,
    variable: &'static str,
    value: String,
}

impl Places {
    /// Looks for devices of each architecture but the host's and those that are emulated; `chosen` are those of
    /// `--devices`.
    ///
    /// # Errors
    /// If an architecture has no device, with what was found instead: a run without its device is no run.
    pub fn find(
        archs: impl IntoIterator<Item = Arch>,
        settings: &Settings,
        runtime: Option<Kind>,
        chosen: &[usize],
    ) -> anyhow::Result<Places> {
        let mut places = Vec::new();
        for arch in archs.into_iter().collect::<BTreeSet<_>>() {
            match Kind::of(arch) {
                None => places.push(Place { arch, on: On::Cpu }),
                Some(own) if settings.is_emulated(arch) => {
                    let (name, target) = emulation::device(arch);
                    let cores = std::thread::available_parallelism().map_or(1, usize::from);
                    // A device that cannot be asked is none that a report could speak of.
                    let visible = gpu::devices(own).unwrap_or_default();
                    let idle = visible.into_iter().find(|device| device.arch.parse() == Ok(arch));
                    let threads = (cores / settings.jobs).max(1);
                    let emulated = Emulated { name, target, threads, race: settings.race, idle };
                    places.push(Place { arch, on: On::Emulator(emulated) });
                }
                Some(own) => {
                    let devices = devices(arch, runtime.unwrap_or(own), chosen)?;
                    places.extend(devices.into_iter().map(|device| Place { arch, on: On::Device(device) }));
                }
            }
        }
        if !chosen.is_empty() && places.iter().all(|place| place.device().is_none()) {
            return Err(usage(match places.iter().any(|place| matches!(place.on, On::Emulator(_))) {
                true => "--devices chooses among GPUs, and none is used: what runs is emulated",
                false => "--devices chooses among GPUs, and only the CPU is used: name one with --arch",
            }));
        }
        Ok(Places(places))
    }

    /// The devices, for a report.
    pub fn describe(&self) -> Option<String> {
        let name = |place: &Place| match &place.on {
            On::Cpu => None,
            On::Device(Visible { device, .. }) => {
                Some(format!("{} ({}, {})", device.name, device.arch, device.library))
            }
            On::Emulator(Emulated { name, idle: None, .. }) => Some(name.clone()),
            On::Emulator(Emulated { name, idle: Some(device), .. }) => {
                Some(format!("{name} ({}, {}, is visible and was not used)", device.name, device.arch))
            }
        };
        let names: Vec<String> = self.0.iter().filter_map(name).collect();
        (!names.is_empty()).then(|| names.join("; "))
    }

    /// Name of the emulated device that stands for those of an architecture.
    pub fn emulated(&self, arch: &str) -> Option<&str> {
        self.0[self.of(arch)].iter().find_map(|place| match &place.on {
            On::Emulator(emulated) => Some(emulated.name.as_str()),
            On::Cpu | On::Device(_) => None,
        })
    }

    /// The architectures that are emulated.
    pub fn all_emulated(&self) -> BTreeSet<String> {
        let emulated = self.0.iter().filter(|place| matches!(place.on, On::Emulator(_)));
        emulated.map(|place| place.arch.name().to_owned()).collect()
    }

    /// Those that run an architecture's cases.
    pub fn of(&self, arch: &str) -> Range<usize> {
        let start = self.0.iter().position(|place| place.arch.name() == arch).unwrap_or(0);
        start..start + self.0.iter().filter(|place| place.arch.name() == arch).count()
    }

    /// Name and `gcnArchName`, or compute capability, of each device of an architecture.
    pub fn targets(&self, arch: &str) -> Vec<(String, &str)> {
        let target = |place: usize| match &self.0[place].on {
            On::Cpu => None,
            On::Device(visible) => Some((self.name(place), visible.device.arch.as_str())),
            On::Emulator(emulated) => Some((self.name(place), emulated.target.as_str())),
        };
        self.of(arch).filter_map(target).collect()
    }

    /// Bytes of the largest device of an architecture; memory of the host is not counted.
    pub fn largest_memory(&self, arch: &str) -> Option<u64> {
        self.0[self.of(arch)].iter().filter_map(|place| Some(place.device()?.device.memory)).max()
    }

    /// As the pool sees them. The processes are spread over the devices, several on each: most of a case's time goes
    /// into the reference, on the CPU.
    pub fn for_pool(&self, jobs: usize) -> Vec<pool::Place> {
        let place = |place: &Place| match place.device() {
            None => pool::Place { slots: jobs, memory: None },
            Some(visible) => {
                let slots = jobs.div_ceil(self.of(place.arch.name()).len());
                pool::Place { slots, memory: Some(visible.device.memory) }
            }
        };
        self.0.iter().map(place).collect()
    }

    /// The variables by which a process knows this place: that which shows it this device alone, or those of an emulation.
    pub fn environment(&self, place: usize) -> Vec<(&'static str, String)> {
        match &self.0[place].on {
            On::Cpu => Vec::new(),
            On::Device(visible) => vec![(visible.variable, visible.value.clone())],
            On::Emulator(emulated) => {
                let race = if emulated.race { "1" } else { "0" };
                let threads = emulated.threads.to_string();
                vec![(env::EMULATE, "1".into()), (env::EMULATE_THREADS, threads), (env::RACE, race.into())]
            }
        }
    }

    pub fn is_device(&self, place: usize) -> bool {
        self.0[place].device().is_some()
    }

    pub fn name(&self, place: usize) -> String {
        match &self.0[place].on {
            On::Cpu => "the CPU".into(),
            On::Device(Visible { device, .. }) => {
                format!("device {} ({}, {})", device.index, device.name, device.arch)
            }
            On::Emulator(emulated) => format!("the {}", emulated.name),
        }
    }

    /// Whether a device still works, asked by a process of its own: the answer of a broken one may never come.
    ///
    /// # Errors
    /// What it said, or that it said nothing.
    pub fn check_answers(&self, place: usize) -> anyhow::Result<()> {
        let Place { arch, on: On::Device(visible) } = &self.0[place] else { return Ok(()) };
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command
            .args([ANSWERS, arch.name(), visible.device.runtime.name()])
            .env(visible.variable, &visible.value)
            .env_remove(env::EMULATE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        unix::die_together(&mut command);
        let mut child = command.spawn().context("cannot start a process that asks the device")?;
        let began = Instant::now();
        while began.elapsed() < ANSWER {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => {
                    let mut said = String::new();
                    if let Some(mut errors) = child.stderr.take() {
                        errors.read_to_string(&mut said).context("cannot read what a process says")?;
                    }
                    anyhow::bail!("to a new process it reports {}", said.trim().trim_start_matches("error: "))
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        // One that is stuck in the driver stays: nobody can wait for it.
        let _ = child.kill();
        anyhow::bail!("a few bytes did not come back in {} s", ANSWER.as_secs())
    }
}

/// The architectures of all visible devices, of one runtime or of both; none where there is no runtime or no device.
pub fn visible_archs(runtime: Option<Kind>) -> Vec<Arch> {
    let kinds = runtime.map_or(vec![Kind::Hip, Kind::Cuda], |kind| vec![kind]);
    let devices = kinds.into_iter().filter_map(|kind| gpu::devices(kind).ok()).flatten();
    let archs: BTreeSet<Arch> = devices.filter_map(|device| device.arch.parse().ok()).collect();
    archs.into_iter().collect()
}

/// The visible devices of an architecture, or those among them that were chosen.
fn devices(arch: Arch, kind: Kind, chosen: &[usize]) -> anyhow::Result<Vec<Visible>> {
    let all = gpu::devices(kind).with_context(|| format!("kernels of {arch} cannot run here"))?;
    let instead = if arch.can_be_emulated() { format!("; {}", emulate::hint()) } else { String::new() };
    let list = || -> String {
        let line = |d: &Device| format!("\n  {}: {} ({})", d.index, d.name, d.arch);
        all.iter().map(line).collect()
    };
    let fits = |device: &Device| device.arch.parse() == Ok(arch);
    for &index in chosen {
        match all.get(index) {
            Some(device) if fits(device) => {}
            Some(device) => {
                let found = &device.arch;
                return Err(usage(format!(
                    "--devices {index}: it is {found}, not {arch}; visible are{}",
                    list()
                )));
            }
            None => return Err(usage(format!("--devices {index}: there is none; visible are{}", list()))),
        }
    }
    let variable = visible_list(kind).0;
    let found: Vec<Visible> = all
        .iter()
        .filter(|device| fits(device) && (chosen.is_empty() || chosen.contains(&device.index)))
        .map(Visible::of)
        .collect();
    if found.is_empty() {
        anyhow::bail!(
            "kernels of {arch} cannot run here: no visible device is one; there are{}\n\
             choose others with {variable}, or use --arch {}{instead}; `cargo accuracy inspect` looks at a library without a device",
            list(),
            all[0].arch.split(':').next().unwrap_or_default()
        );
    }
    Ok(found)
}

/// The variable that a runtime's processes choose their devices by, and what the caller allows. HIP heeds CUDA's
/// variable where its own is not set. Its numbers are those within ROCR_VISIBLE_DEVICES, which stays as it is.
fn visible_list(kind: Kind) -> (&'static str, Vec<String>) {
    let list = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
        Some(value.split(',').map(|entry| entry.trim().to_string()).collect())
    };
    match kind {
        Kind::Cuda => ("CUDA_VISIBLE_DEVICES", list("CUDA_VISIBLE_DEVICES").unwrap_or_default()),
        Kind::Hip => (
            "HIP_VISIBLE_DEVICES",
            list("HIP_VISIBLE_DEVICES").or_else(|| list("CUDA_VISIBLE_DEVICES")).unwrap_or_default(),
        ),
    }
}

/// Name of the command by which this program asks a device in a process of its own.
const ANSWERS: &str = "device-answers";

#[derive(Clone, Debug, clap::Args)]
pub struct AnswersArgs {
    pub arch: Arch,
    pub runtime: Kind,
}

/// Copies a few bytes to the first visible device and back.
pub fn answers(args: &AnswersArgs) -> anyhow::Result<ExitCode> {
    Gpu::open(args.runtime, args.arch)?.check_answers()?;
    Ok(ExitCode::Correct)
}
