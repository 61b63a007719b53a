//! `--emulate`: whether a run emulates its devices, and what its tests have to be built with for that.
//!
//! It is a decision for the run as a whole, which emulates every architecture that can be emulated or none.

use super::cargo::CargoArgs;
use super::plan::Settings;
use crate::config::Config;
use crate::exit::usage;
use accuracy_core::arch::Arch;
use accuracy_core::device::gpu::Kind;
use accuracy_core::env;
use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// The cargo feature of accuracy-core.
const FEATURE: &str = "emulate";
const CORE: &str = "accuracy-core";

/// # Errors
/// A usage error where races are asked for and nothing is emulated: on a device nobody sees them.
pub fn check_races(settings: &Settings) -> anyhow::Result<()> {
    if settings.race && !settings.emulates {
        return Err(usage(format!(
            "races are found in what is emulated: add --emulate, or leave --race ({}) out",
            env::RACE
        )));
    }
    Ok(())
}

/// Names of architectures, `gfx942 or gfx950`.
fn known() -> String {
    Arch::emulated().map(Arch::name).collect::<Vec<_>>().join(" or ")
}

/// Whether a run of these packages emulates.
///
/// # Errors
/// A usage error where emulation is asked for and an architecture of the run cannot be emulated, or a runtime is named; or
/// where packages disagree.
pub fn decide<'p>(
    packages: impl Iterator<Item = &'p str> + Clone,
    settings: &Settings,
    config: &Config,
    runtime: Option<Kind>,
) -> anyhow::Result<bool> {
    let of = |package: &str| settings.arch(config, package);
    let (who, every) = match settings.emulate {
        Some(false) => return Ok(false),
        Some(true) => ("--emulate".to_owned(), true),
        None => {
            let runs_emulated = |p: &&str| of(p).is_none_or(|a| a.into_iter().any(Arch::can_be_emulated));
            let (on, off): (Vec<&str>, Vec<&str>) =
                packages.clone().filter(runs_emulated).partition(|p| config.emulate(p));
            let Some(first) = on.first() else {
                // Only the configuration of a package that runs nothing of it may ask for it.
                return match packages.clone().find(|p| config.emulate(p) && settings.arch.is_none()) {
                    Some(package) => Err(refused("emulate = true", package, of(package).unwrap_or_default())),
                    None => Ok(false),
                };
            };
            if let Some(other) = off.first() {
                return Err(usage(format!(
                    "the configuration says emulate = true for package {first} and not for {other}, and a run emulates \
                     all that can be emulated or nothing: say --emulate or --emulate=false, or run one of them with -p"
                )));
            }
            // An architecture that is named for this run alone is not what the configuration speaks of.
            ("emulate = true".to_owned(), settings.arch.is_none())
        }
    };
    if let Some(runtime) = runtime {
        return Err(usage(format!(
            "--runtime {} names the runtime of a device, and {who} runs the kernels on no device: take one of them \
             away{}",
            runtime.name(),
            if settings.emulate.is_none() { "; --emulate=false overrides the configuration" } else { "" }
        )));
    }
    for package in packages.filter(|_| every) {
        match of(package) {
            Some(archs) if archs.iter().all(|arch| arch.can_be_emulated()) => {}
            Some(archs) => return Err(refused(&who, package, archs)),
            None => {
                return Err(usage(format!(
                    "{who}: no architecture is named for {package}, and that of a visible device is not taken: name it, \
                     --arch {}",
                    known()
                )));
            }
        }
    }
    Ok(true)
}

/// Says which architecture of a package cannot be emulated, and what can be.
fn refused(who: &str, package: &str, archs: Vec<Arch>) -> anyhow::Error {
    let not: Vec<&str> = archs.into_iter().filter(|arch| !arch.can_be_emulated()).map(Arch::name).collect();
    let not = not.join(", ");
    usage(format!(
        "{who}: {not} cannot be emulated, and {package} is to run on it (--arch, {}, or the configuration): \
         name --arch {}",
        env::ARCH,
        known()
    ))
}

/// Names under which packages depend on accuracy-core, as Cargo.toml has them.
fn names_of_core(package: &Package) -> impl Iterator<Item = &str> {
    let own = (package.name == CORE).then_some(CORE);
    let dependencies = package.dependencies.iter();
    own.into_iter().chain(
        dependencies
            .filter(|d| d.name == CORE && d.kind != DependencyKind::Build)
            .map(|d| d.rename.as_deref().unwrap_or(&d.name)),
    )
}

/// The features with which cargo has to build the tests of packages, so that they can emulate.
///
/// # Errors
/// If a package's accuracy-core has no such feature.
pub fn features(cargo: &CargoArgs, packages: &[&Package]) -> anyhow::Result<Vec<String>> {
    let all = resolved(cargo)?;
    let cores: BTreeMap<&PackageId, &Package> =
        all.packages.iter().filter(|p| p.name == CORE).map(|p| (&p.id, p)).collect();
    let nodes = all.resolve.as_ref().map(|resolve| &resolve.nodes[..]).unwrap_or_default();
    let mut features = BTreeSet::new();
    for package in packages {
        let node = nodes.iter().find(|node| node.id == package.id);
        let depends = node.iter().flat_map(|node| &node.deps).map(|dependency| &dependency.pkg);
        for core in depends.chain([&package.id]).filter_map(|id| cores.get(id)) {
            anyhow::ensure!(
                core.features.contains_key(FEATURE),
                "package {} depends on accuracy-core {} ({}), which has no feature `{FEATURE}` and cannot emulate: \
                 update it to {}, the version of this tool",
                package.name,
                core.version,
                core.manifest_path,
                env!("CARGO_PKG_VERSION")
            );
        }
        features.extend(names_of_core(package).map(|name| {
            let optional = package.dependencies.iter().any(|d| {
                d.optional
                    && d.rename.as_deref().unwrap_or(&d.name) == name
                    && d.kind != DependencyKind::Build
            });
            format!("{name}{}/{FEATURE}", if optional { "?" } else { "" })
        }));
    }
    Ok(features.into_iter().collect())
}

/// The workspace with its dependencies, of this machine's platform alone: those of others may never have been fetched.
fn resolved(cargo: &CargoArgs) -> anyhow::Result<Metadata> {
    let output = Command::new("rustc").arg("-vV").stdin(Stdio::null()).output();
    let output = output.context("cannot start rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV does not say what it runs on")?;
    cargo.dependencies(host)
}

/// Refuses executables that were not built so that they can emulate. `remedy` says what to do.
///
/// # Errors
/// If there is one.
pub fn refuse(without: &[&str], remedy: &str) -> anyhow::Result<()> {
    let which = match without {
        [] => return Ok(()),
        [one] => format!("{one} was"),
        several => format!("{} test executables, such as {}, were", several.len(), several[0]),
    };
    anyhow::bail!(
        "nothing ran: {which} built without the emulator (the feature `{FEATURE}` of accuracy-core): {remedy}"
    )
}

/// What a run without a device can do instead, for its message.
pub fn hint() -> String {
    format!("--emulate runs the code of {} on this machine's processor", known().replace(" or ", " and "))
}
