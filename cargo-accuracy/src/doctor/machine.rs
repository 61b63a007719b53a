//! Compilers, GPU runtimes and their devices, and the variables that hide devices.

use super::Section;
use super::runtimes::Found;
use super::workspace::Workspace;
use crate::build::compiler;
use accuracy_core::arch::Arch;
use accuracy_core::device::gpu::{Device, GpuError, Kind, RuntimeInfo};
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// The first line that a program prints when it is asked for its version.
fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // nvcc and hipcc say whose they are before they say which.
    let line = text.lines().map(str::trim).find(|l| {
        l.contains("release") || l.contains("HIP version") || l.chars().any(|c| c.is_ascii_digit())
    });
    output.status.success().then(|| line.unwrap_or_default().to_string())
}

/// What builds tests and kernels.
pub fn tools(wanted: &BTreeSet<Arch>, workspace: &Workspace) -> Section {
    let mut section = Section::new("Tools");
    section.good(format!("cargo-accuracy {}", env!("CARGO_PKG_VERSION")));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    match version(&cargo, "--version") {
        Some(cargo) => section.good(cargo),
        None => section.lacks(
            workspace.is_some(),
            "no cargo on PATH",
            "install Rust (https://rustup.rs), or run an archive, which needs none: cargo-accuracy run --archive FILE",
        ),
    }
    if let Some(rustc) = version("rustc", "--version") {
        let number = rustc.split_whitespace().nth(1).unwrap_or_default();
        let least = env!("CARGO_PKG_RUST_VERSION");
        if is_older(number, least) {
            section.lacks(
                workspace.is_some(),
                rustc,
                format!("accuracy-core needs {least}: rustup update stable"),
            );
        } else {
            section.good(rustc);
        }
    }
    let host = workspace.compiles_for_host();
    let cxx = std::env::var("CXX").ok().filter(|cxx| !cxx.is_empty()).unwrap_or_else(|| "c++".into());
    match version(cxx.split_whitespace().next().unwrap_or("c++"), "--version") {
        Some(line) => section.good(format!("{line} ({cxx}): compiles HIP sources for the host")),
        None => section.lacks(
            host,
            format!("no C++ compiler ({cxx}): HIP sources cannot be compiled for the host"),
            "apt-get install g++, or name one in CXX",
        ),
    }
    // GPU kernels may come from another machine, so that their compilers are never in the way.
    let rocm = format!(
        "ROCm 6.4 or later (https://rocm.docs.amd.com), or on Debian: apt-get install {}",
        compiler::PACKAGES
    );
    for (kind, makes, get) in
        [(Kind::Hip, "AMD GPUs", rocm.as_str()), (Kind::Cuda, "NVIDIA GPUs", "the CUDA toolkit")]
    {
        let found = compiler::locate(kind).and_then(|found| {
            let path = found.program.display().to_string();
            let line = version(&path, "--version").with_context(|| format!("`{path} --version` fails"))?;
            let with = if found.debian { ", with Debian's ROCm packages" } else { "" };
            Ok(format!("{line} ({path}{with}): compiles HIP sources for {makes}"))
        });
        match found {
            Ok(what) if kind == Kind::Hip => {
                let archs: Vec<&str> = Arch::emulated().map(Arch::name).collect();
                section
                    .good(format!("{what}; `--emulate` runs those for {} without one", archs.join(" and ")));
            }
            Ok(what) => section.good(what),
            // What is built for these runs without a device, so that it is of use everywhere.
            Err(error) if kind == Kind::Hip || wanted.iter().any(|&arch| Kind::of(arch) == Some(kind)) => {
                section.note(
                    format!("{error:#}: nothing is compiled for {makes} here"),
                    format!(
                        "install {get}, or build elsewhere and bring an archive (cargo accuracy archive)"
                    ),
                )
            }
            Err(_) => {}
        }
    }
    section
}

/// Whether a version is below another, by its numbers.
fn is_older(version: &str, least: &str) -> bool {
    let numbers =
        |text: &str| -> Vec<u32> { text.split(['.', '-']).map_while(|part| part.parse().ok()).collect() };
    numbers(version) < numbers(least)
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Hip => "HIP",
        Kind::Cuda => "CUDA",
    }
}

/// Runtimes and devices.
/// Where the configuration asks for emulation (`emulates`), what can be emulated needs no device.
pub fn gpus(wanted: &BTreeSet<Arch>, found: &[Found], emulates: bool) -> Section {
    let mut section = Section::new("GPUs");
    let wanted: BTreeSet<Arch> =
        wanted.iter().copied().filter(|arch| !(emulates && arch.can_be_emulated())).collect();
    let wanted = &wanted;
    let instead = match wanted.iter().any(|arch| arch.can_be_emulated()) {
        true => "; or run with --emulate, which needs neither",
        false => "",
    };
    for Found { kind, runtime, devices } in found {
        let (kind, name) = (*kind, label(*kind));
        let needed = wanted.iter().any(|&arch| Kind::of(arch) == Some(kind));
        match runtime {
            Ok(RuntimeInfo { library, version }) => section.good(format!("{name} {version} ({library})")),
            Err(GpuError::NoRuntime { tried, .. }) => {
                let fix = match kind {
                    Kind::Hip => {
                        "install ROCm's runtime (Debian: libamdhip64-6), or add its lib folder to LD_LIBRARY_PATH"
                    }
                    Kind::Cuda => "install NVIDIA's driver; in a container start it with --gpus all",
                };
                let instead = if kind == Kind::Hip { instead } else { "" };
                section.lacks(needed, format!("no {name} runtime: tried {tried}"), format!("{fix}{instead}"));
                nodes(&mut section, kind, needed);
                continue;
            }
            Err(error) => section.lacks(needed, error.to_string(), "install the vendor's own runtime"),
        }
        match devices {
            Ok(devices) => devices.iter().for_each(|device| one_device(&mut section, wanted, device)),
            Err(GpuError::NoDevice { detail, runtime, .. }) => {
                section.lacks(
                    needed,
                    format!("{name} sees no device: {detail}"),
                    format!(
                        "check the driver, and {}{}",
                        runtime.variables(),
                        if kind == Kind::Hip { instead } else { "" }
                    ),
                );
                nodes(&mut section, kind, needed);
            }
            Err(error) => section.lacks(needed, error.to_string(), "check the driver"),
        }
    }
    for &arch in wanted {
        let Some(kind) = Kind::of(arch) else { continue };
        let devices = found.iter().find(|f| f.kind == kind).and_then(|f| f.devices.as_ref().ok());
        if let Some(devices) = devices.filter(|all| all.iter().all(|d| d.arch.parse() != Ok(arch))) {
            let there: Vec<&str> = devices.iter().map(|d| d.arch.as_str()).collect();
            section.problem(
                format!("no visible device is {arch}: there is {}", there.join(", ")),
                format!(
                    "run on a machine that has one, or with --arch {}",
                    there[0].split(':').next().unwrap_or(there[0])
                ),
            );
        }
    }
    section
}

fn one_device(section: &mut Section, wanted: &BTreeSet<Arch>, device: &Device) {
    let Device { index, name, arch, memory, .. } = device;
    let what = format!("device {index}: {name}, {arch}, {} GiB", memory >> 30);
    match arch.parse::<Arch>() {
        Ok(known) if wanted.contains(&known) => match crate::run::check_answers(device, known) {
            Ok(()) => section.good(format!("{what}; answers")),
            Err(error) => section.problem(
                format!("{what}: {error:#}"),
                "see what holds it (rocm-smi --showpids, nvidia-smi), and the kernel's log (dmesg)",
            ),
        },
        Ok(_) => section.good(what),
        Err(error) => {
            section.note(format!("{what}: {error}"), "kernels for it cannot be judged by this version")
        }
    }
}

/// The driver's device files, where the runtime is missing or sees nothing.
fn nodes(section: &mut Section, kind: Kind, needed: bool) {
    let (path, group) = match kind {
        Kind::Hip => {
            ("/dev/kfd", "add yourself to its groups (usermod -aG render,video $USER) and log in again")
        }
        Kind::Cuda => ("/dev/nvidiactl", "let yourself read and write it"),
    };
    let file = Path::new(path);
    if !file.exists() {
        if needed {
            let fix = match kind {
                Kind::Hip => {
                    "load the driver (modprobe amdgpu); in a container: --device=/dev/kfd --device=/dev/dri"
                }
                Kind::Cuda => "load the driver (modprobe nvidia); in a container: --gpus all",
            };
            section
                .problem(format!("{path} is not there: no driver, or a container without the device"), fix);
        }
    } else if let Err(error) = std::fs::File::options().read(true).write(true).open(file) {
        section.lacks(needed, format!("{path} cannot be opened: {error}"), group);
    }
}

/// Variables that choose devices, and those of the tool itself that are set.
pub fn variables(found: &[Found]) -> Section {
    let mut section = Section::new("Variables");
    let set = |name: &str| std::env::var(name).ok();
    for name in ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"]
    {
        let Some(value) = set(name) else { continue };
        match value.trim() {
            "" => section.note(
                format!("{name} is set and empty: it hides every device from its runtime"),
                format!("unset {name}"),
            ),
            list => section.good(format!("{name}={list}")),
        }
    }
    if let (Some(rocr), Some(hip)) = (set("ROCR_VISIBLE_DEVICES"), set("HIP_VISIBLE_DEVICES")) {
        section.note(
            format!(
                "HIP_VISIBLE_DEVICES={hip} counts within ROCR_VISIBLE_DEVICES={rocr}, not within the machine"
            ),
            "set one of them",
        );
    }
    let hip = found.iter().any(|f| f.kind == Kind::Hip && f.runtime.is_ok());
    if hip && set("CUDA_VISIBLE_DEVICES").is_some() && set("HIP_VISIBLE_DEVICES").is_none() {
        section.note(
            "CUDA_VISIBLE_DEVICES hides devices from HIP, too, as HIP_VISIBLE_DEVICES is not set",
            "set HIP_VISIBLE_DEVICES",
        );
    }
    let mut own: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| name.starts_with("ACCURACY_")).collect();
    own.sort();
    for (name, value) in own {
        section.good(format!("{name}={value}"));
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_older("1.94.1", "1.95"));
        assert!(is_older("1.9.0", "1.95"));
        assert!(!is_older("1.95.0", "1.95"));
        assert!(!is_older("1.100.0-nightly", "1.95"));
    }
}
