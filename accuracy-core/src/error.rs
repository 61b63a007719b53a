//! What can keep a chain from running. Wrong numbers are no error: they are a verdict.

use crate::device::gpu::GpuError;
use crate::library::LibraryError;
use crate::weights::WeightsError;

/// Result of a chain's declarations and calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a chain could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A kernel broke the device's context: only another process can go on.
    #[error("a kernel left the device in an error ({source}); launched before: {launchers}")]
    Kernel { launchers: String, source: GpuError },
    /// A declaration that does not fit together.
    #[error("`{name}`: {what}")]
    Declaration { name: String, what: String },
    #[error("cannot map {bytes} bytes for `{name}`: {source}")]
    Memory { name: String, bytes: usize, source: std::io::Error },
    /// Anything that the test itself wants to report.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error of the test's own.
    pub fn msg(text: impl std::fmt::Display) -> Error {
        Error::Other(text.to_string())
    }

    pub(crate) fn declaration(name: &str, what: impl Into<String>) -> Error {
        Error::Declaration { name: name.into(), what: what.into() }
    }
}
