//! Whether this machine has the devices that a run needs. Nothing is run on them here.

use accuracy_core::arch::Arch;
use accuracy_core::device::gpu::{self, Kind};
use anyhow::Context as _;
use std::collections::BTreeSet;

/// Looks for a device of each architecture but the host's, and describes those that were found.
///
/// # Errors
/// If one is missing, with what was found instead: a run without its device is no run.
pub fn require(
    archs: impl IntoIterator<Item = Arch>,
    runtime: Option<Kind>,
) -> anyhow::Result<Option<String>> {
    let mut found = Vec::new();
    for arch in archs.into_iter().collect::<BTreeSet<_>>() {
        let Some(own) = Kind::of(arch) else { continue };
        let device = gpu::probe(runtime.unwrap_or(own), arch)
            .with_context(|| format!("kernels of {arch} cannot run here"))?;
        found.push(format!("{} ({}, {})", device.name, device.arch, device.library));
    }
    Ok((!found.is_empty()).then(|| found.join("; ")))
}
