//! Why kernels cannot be called.

use crate::arch::Arch;
use crate::device::gpu::GpuError;
use std::path::PathBuf;

/// Why a launcher could not be called, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "kernels `{name}` have no build for {arch}: found {found}\n  looked for {files} in {}\n  build it for {arch}, or add its folder to {}",
        list(searched),
        crate::env::LIBRARY_PATH
    )]
    WrongArch { name: String, arch: Arch, files: String, found: String, searched: Vec<PathBuf> },
    #[error(
        "kernels `{name}` were not found\n  looked for {files} in {}\n  build it for {arch}, or add its folder to {}",
        list(searched),
        crate::env::LIBRARY_PATH
    )]
    NotFound { name: String, arch: Arch, files: String, searched: Vec<PathBuf> },
    #[error(
        "{path} in {} would be judged, and {built}, which was built from this workspace's sources, would not: take the \
         folder out of the variable, or set {}=1 where it is meant to win",
        crate::env::LIBRARY_PATH,
        crate::env::LIBRARY_WINS
    )]
    PassedOver { path: PathBuf, built: PathBuf },
    #[error(
        "{path} was built before {changed} was changed, which cargo has not seen: its time is older than the build; run \
         `touch {changed}`, or `cargo accuracy`, which goes by contents"
    )]
    Stale { path: PathBuf, changed: PathBuf },
    #[error("kernel library {path} cannot be opened: {}", loader_says(source))]
    Open { path: PathBuf, source: libloading::Error },
    #[error(
        "kernel library {path} has no launcher `{symbol}`: export it with extern \"C\" and default visibility ({})",
        loader_says(source)
    )]
    Symbol { path: PathBuf, symbol: String, source: libloading::Error },
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("code object {path} cannot be loaded on this device ({device}): {source}")]
    Load { path: PathBuf, device: String, source: Box<GpuError> },
    #[error(
        "code object {path} has no kernel `{kernel}` ({source}); `cargo accuracy inspect {path}` lists what it has"
    )]
    Kernel { path: PathBuf, kernel: String, source: Box<GpuError> },
    #[error(
        "kernel `{kernel}` of {path} takes {} but is bound with {}: compilers add parameters of their own at the end, and bind every one",
        sizes(takes),
        sizes(bound)
    )]
    Parameters { path: PathBuf, kernel: String, bound: Vec<usize>, takes: Vec<usize> },
    #[error("kernel `{kernel}` of code object `{name}` runs on a GPU alone, and this run is for {arch}")]
    NoDevice { name: String, kernel: String, arch: Arch },
    #[error("launcher `{launcher}` returned status {status}{meaning}")]
    Status { launcher: String, status: i32, meaning: &'static str },
}

pub(super) fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no folder".into();
    }
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What the dynamic linker said, such as which library it did not find.
pub(super) fn loader_says(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

pub(super) fn sizes(parameters: &[usize]) -> String {
    let bytes: Vec<String> = parameters.iter().map(ToString::to_string).collect();
    format!("{} parameters of {} bytes", bytes.len(), bytes.join(", "))
}
