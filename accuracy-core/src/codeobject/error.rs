//! Why a file could not be read as a kernel library or a code object.

use super::target::{TargetError, TargetId};

/// What is wrong with a file. Each kind of damage has its own message, as each has its own remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "neither an ELF file, nor an offload bundle, nor an NVIDIA fatbin: it begins with {begins}{resembles}"
    )]
    Unrecognised { begins: Begins, resembles: &'static str },
    #[error(
        "cut short: {what} ends at byte {needed}, but there are only {available}; build or copy it again"
    )]
    Truncated { what: String, needed: u64, available: u64 },
    #[error("not a 64-bit little-endian ELF file, as kernel libraries and code objects are")]
    ElfClass,
    #[error("an object file: link it into a shared library (a code object is linked by lld)")]
    NotLinked,
    #[error("ELF file for machine {machine}: neither a host library nor a code object for a GPU")]
    Machine { machine: u16 },
    #[error("damaged ELF file: {0}")]
    Elf(String),
    #[error(
        "the library registers a {section} with its runtime but has no such section: it was stripped; build it again"
    )]
    FatbinMissing { section: &'static str },
    #[error(
        "the code objects are not in the library: .rocm_kpack_ref says that they are in a .kpack archive beside it"
    )]
    Kpack,
    #[error("{section} is empty")]
    FatbinEmpty { section: &'static str },
    #[error("byte {offset:#x}: expected {expected}, found {begins}")]
    Magic { offset: usize, expected: &'static str, begins: Begins },
    #[error("damaged bundle: {0}")]
    Bundle(String),
    #[error("compressed bundle of version {0}; versions 1 to 3 are known")]
    CompressedVersion(u16),
    #[error("bundle compressed by method {0}; 0 (zlib) and 1 (zstd) are known")]
    CompressionMethod(u16),
    #[error(
        "compressed bundle of {compressed} bytes claims {claimed} uncompressed: more than any bundle has"
    )]
    AbsurdSize { compressed: u64, claimed: u64 },
    #[error("the bundle does not decompress: {0}")]
    Decompress(String),
    #[error("the bundle decompresses to {found} bytes, its header says {claimed}")]
    DecompressedSize { found: u64, claimed: u64 },
    #[error("NVIDIA fatbin: {0}")]
    Fatbin(String),
    #[error("{0}")]
    Target(#[from] TargetError),
    #[error("the bundle says {entry}, but the code object in it is for {found}")]
    TargetMismatch { entry: TargetId, found: TargetId },
    #[error(
        "code object of ABI version {0}: too old, its metadata is text; compile it with -mcode-object-version=4 or later"
    )]
    OldAbi(u8),
    #[error("no AMDGPU metadata note: the runtime cannot find its kernels")]
    MetadataMissing,
    #[error("damaged AMDGPU metadata: {0}")]
    Metadata(String),
    /// An error with the place where it was found.
    #[error("{place}: {error}")]
    In { place: String, error: Box<ReadError> },
}

impl ReadError {
    pub(super) fn at(self, place: impl Into<String>) -> ReadError {
        ReadError::In { place: place.into(), error: Box::new(self) }
    }

    /// The error itself, without the places around it.
    pub fn innermost(&self) -> &ReadError {
        match self {
            ReadError::In { error, .. } => error.innermost(),
            other => other,
        }
    }
}

impl From<object::read::Error> for ReadError {
    fn from(error: object::read::Error) -> Self {
        ReadError::Elf(error.to_string())
    }
}

/// The first bytes of something, as text where they are printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begins(Vec<u8>);

impl Begins {
    pub(super) fn of(bytes: &[u8]) -> Begins {
        Begins(bytes[..bytes.len().min(8)].to_vec())
    }
}

impl std::fmt::Display for Begins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the end of the file");
        }
        if self.0.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            return write!(f, "{:?}", String::from_utf8_lossy(&self.0));
        }
        let words: Vec<String> = self.0.iter().map(|b| format!("{b:02x}")).collect();
        f.write_str(&words.join(" "))
    }
}
