//! Why a dump cannot be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::weights::WeightsError;

/// Why a dump, or a tensor in it, cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{path}: no such file or folder")]
    NotFound { path: PathBuf },

    #[error("{path}: {source}")]
    Io { path: PathBuf, source: Arc<std::io::Error> },

    #[error("{path}: not a readable {format}: {reason}")]
    Damaged { path: PathBuf, format: &'static str, reason: String },

    #[error("{path}: {what} cannot be read here; {hint}")]
    Unsupported { path: PathBuf, what: String, hint: &'static str },

    #[error("{path}: holds no tensor; {found}")]
    NoTensor { path: PathBuf, found: String },

    #[error("{path}: {reason}")]
    Ambiguous { path: PathBuf, reason: String },

    #[error("{path}: `{name}` is no name that {producer} gives: {reason}")]
    Name { path: PathBuf, producer: &'static str, name: String, reason: String },

    #[error(
        "{path}: was {expected} bytes when its header was read and is {found} now; it is still being written"
    )]
    Changed { path: PathBuf, expected: u64, found: u64 },

    #[error(transparent)]
    Safetensors(#[from] WeightsError),
}

impl DumpError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> DumpError {
        match source.kind() {
            std::io::ErrorKind::NotFound => DumpError::NotFound { path: path.to_owned() },
            _ => DumpError::Io { path: path.to_owned(), source: Arc::new(source) },
        }
    }
}

/// What is wrong with some bytes, before it is known which file they are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub String);

impl Fault {
    pub fn in_file(self, path: &Path, format: &'static str) -> DumpError {
        DumpError::Damaged { path: path.to_owned(), format, reason: self.0 }
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Fault {
        Fault(text.to_owned())
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault(text)
    }
}
