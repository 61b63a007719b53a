//! What a test binary says about its own `#[accuracy_test]` functions, readable without running it.
//!
//! Each annotated function leaves one [`Section`] of inline bytes in the ELF section [`SECTION_NAME`]. The plugin
//! reads them to know the matrix before anything runs, the test process reads its own to find its cell. What a
//! checkpoint adds (one sub-case for each tensor that a pattern matches) is in [`crate::plan`].

pub mod bindings;

use crate::check_name::FindingKind;
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the ELF section, also a valid C identifier.
pub const SECTION_NAME: &str = "accuracy_tests";
/// Version of the bytes below. A plugin refuses a binary that speaks a newer one.
pub const VERSION: u16 = 1;

/// Features of this crate that a test binary was built with, a bit each.
mod built_with {
    /// `emulate`. A plugin from before it reads another version, and refuses the binary.
    pub const EMULATE: u16 = 1;
    /// Those of this build.
    pub const HERE: u16 = if cfg!(feature = "emulate") { EMULATE } else { 0 };
}

const MAGIC: [u8; 8] = *b"ACCURACY";
/// Separates the fields of the head; cannot appear in a package, module or file name.
const SEPARATOR: char = '\u{1f}';

/// One function's metadata: fixed bytes without a pointer in them, so that the section needs no relocation.
///
/// `head` is made of what only the compiler knows (package, module path, file, line, manifest folder, package
/// version, separated by U+001F); `body` is the JSON of a [`Body`], written by the macro.
#[repr(C)]
pub struct Section<const HEAD: usize, const BODY: usize> {
    magic: [u8; 8],
    version: [u8; 2],
    /// Bits of the module of this name.
    built_with: [u8; 2],
    head_len: [u8; 4],
    body_len: [u8; 4],
    head: [u8; HEAD],
    body: [u8; BODY],
}

impl<const HEAD: usize, const BODY: usize> Section<HEAD, BODY> {
    /// Used by `#[accuracy_test]`, whose `HEAD` is `head.len()`.
    pub const fn new(head: &str, body: &[u8; BODY]) -> Self {
        let bytes = head.as_bytes();
        assert!(bytes.len() == HEAD);
        let mut copy = [0; HEAD];
        let mut i = 0;
        while i < HEAD {
            copy[i] = bytes[i];
            i += 1;
        }
        Section {
            magic: MAGIC,
            version: VERSION.to_le_bytes(),
            built_with: built_with::HERE.to_le_bytes(),
            head_len: (HEAD as u32).to_le_bytes(),
            body_len: (BODY as u32).to_le_bytes(),
            head: copy,
            body: *body,
        }
    }

    /// The bytes as they stand in the section.
    pub fn bytes(&'static self) -> &'static [u8] {
        // SAFETY: the struct is `repr(C)` and made of byte arrays alone, so it has no padding and any of its
        // bytes may be read.
        unsafe { std::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }
}

/// How a parameter of the function spans the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AxisKind {
    /// `#[variants(..)]`: number formats.
    Variants,
    /// `#[paths(primary = f, fallback = g)]`: implementations of one kernel; the first is the primary.
    Paths,
    /// `#[values(..)]`: a parameter whose values must matter.
    Values,
    /// `#[perf(..)]`: a parameter that only tunes speed; its values must not matter.
    Perf,
}

/// One parameter of the function with the labels of its values, in the order of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    pub name: String,
    pub kind: AxisKind,
    pub labels: Vec<String>,
}

/// What a cell of the matrix checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The chain against the float64 oracle, hop by hop and end to end.
    FullChain,
    /// A fallback against the primary, hop by hop, on the same inputs.
    FallbackVsPrimary,
    /// A number format against the first one, relative to both formats' noise floors.
    DtypeVariant,
    /// Whether any byte reacts to a parameter.
    Parameter,
}

impl Check {
    pub const fn name(self) -> &'static str {
        match self {
            Check::FullChain => "full_chain",
            Check::FallbackVsPrimary => "fallback_vs_primary",
            Check::DtypeVariant => "dtype_variant",
            Check::Parameter => "parameter",
        }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One generated `#[test]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the generated function inside the module that is named after the annotated one.
    pub name: String,
    pub check: Check,
    /// Index into the labels of each axis.
    pub at: Vec<usize>,
    /// Number of tokens (rows of the activations).
    pub tokens: usize,
    /// For [`Check::Parameter`]: the axis whose values are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<usize>,
}

/// `known_failure(arch = .., <axis> = .., reason = "..")`: applies where all that is named agrees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFailure {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Axis name and label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<(String, String)>,
    pub reason: String,
}

/// `nondeterministic(reason = "..", bound = ..)`: repeats may differ by this relative L2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nondeterministic {
    pub reason: String,
    pub bound: f64,
}

/// `benign(finding = "..", reason = "..")`: what the emulator finds of this kind does no harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Benign {
    pub finding: FindingKind,
    pub reason: String,
}

/// Token counts from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRange {
    pub first: usize,
    pub last: usize,
}

/// The JSON that the macro writes. One by default is a test of no name, without cells, that sets nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Name of the annotated function.
    pub name: String,
    /// Folder or file of the checkpoint, relative to the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Role and module pattern of each weight.
    #[serde(default)]
    pub weights: Vec<(String, String)>,
    /// Architectures that the test is for; none: for all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archs: Vec<String>,
    /// `file.safetensors#tensor` with recorded activations, relative to the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<String>,
    pub axes: Vec<Axis>,
    pub cells: Vec<Cell>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_failures: Vec<KnownFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nondeterministic: Option<Nondeterministic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub benign: Vec<Benign>,
    /// The token counts from which cases are drawn: `tokens = fuzz(..)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuzz: Option<TokenRange>,
    /// Whether the function takes N from [`crate::Case::shape`], so that it follows a slice of the weight's rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_n: bool,
    /// Whether it takes K from there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_k: bool,
    /// Bytes of device memory that a case of this test needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Least cosine of this test, where it is set apart from the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cos: Option<f64>,
    #[serde(default)]
    pub seed: u64,
}

/// One annotated function of a test binary.
#[derive(Clone, Debug, PartialEq)]
pub struct TestMeta {
    pub package: String,
    /// Module path as rustc names it, crate first, without the generated module.
    pub module: String,
    /// Source file as rustc names it, relative to the workspace.
    pub file: String,
    pub line: u32,
    /// Folder of the package's Cargo.toml when it was compiled.
    pub manifest_dir: PathBuf,
    /// Whether it was built with the feature `emulate`.
    pub can_emulate: bool,
    pub body: Body,
}

/// Why a binary's metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is not an object file that can be read: {source}")]
    Object { path: PathBuf, source: object::Error },
    #[error(
        "{place} speaks version {found} of the test metadata, this tool version {VERSION}: update cargo-accuracy"
    )]
    Version { place: String, found: u16 },
    #[error("the test metadata of {place} is damaged: {what}")]
    Damaged { place: String, what: String },
}

impl TestMeta {
    /// The crate's own name is left out where it is the package's, so that unit tests and integration tests read
    /// alike: `kernels::fp8::fp8_blockscale`.
    pub fn path(&self) -> String {
        let crate_name = self.package.replace('-', "_");
        let inner = match self.module.split_once("::") {
            Some((first, rest)) if first == crate_name => rest,
            None if self.module == crate_name => "",
            _ => self.module.as_str(),
        };
        [self.package.as_str(), inner, &self.body.name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("::")
    }

    /// The name under which libtest lists a cell.
    pub fn libtest_name(&self, cell: &Cell) -> String {
        let inside = self.module.split_once("::").map_or("", |(_, rest)| rest);
        [inside, &self.body.name, &cell.name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("::")
    }

    /// Reads one function's metadata from the front of `bytes`, and says how many bytes it took.
    pub fn parse(bytes: &[u8], place: &str) -> Result<(TestMeta, usize), MetaError> {
        let damaged = |what: &str| MetaError::Damaged { place: place.into(), what: what.into() };
        let (head, body, end) = head_and_body(bytes, place)?;
        let fields: Vec<&str> = head.split(SEPARATOR).collect();
        let [package, module, file, line, manifest_dir] = fields[..] else {
            return Err(damaged(&format!("its head has {} fields, expected 5", fields.len())));
        };
        let body: Body =
            serde_json::from_slice(body).map_err(|e| damaged(&format!("its body is not valid: {e}")))?;
        // The section stands in the module that the macro generates, named after the function.
        let module = module.strip_suffix(&format!("::{}", body.name)).unwrap_or(module);
        let meta = TestMeta {
            package: package.into(),
            module: module.into(),
            file: file.into(),
            line: line.parse().map_err(|_| damaged("its line is not a number"))?,
            manifest_dir: manifest_dir.into(),
            can_emulate: features_of(bytes) & built_with::EMULATE != 0,
            body,
        };
        Ok((meta, end))
    }
}

/// The bits of a [`Section`] whose head has been read.
fn features_of(bytes: &[u8]) -> u16 {
    bytes.get(10..12).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// Text and JSON of a [`Section`] at the front of `bytes`, and where it ends.
fn head_and_body<'a>(bytes: &'a [u8], place: &str) -> Result<(&'a str, &'a [u8], usize), MetaError> {
    let damaged = |what: &str| MetaError::Damaged { place: place.into(), what: what.into() };
    let word = |at: usize| -> Option<u32> {
        bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    if bytes.get(..8) != Some(&MAGIC) {
        return Err(damaged("it does not begin with its magic number"));
    }
    let cut = || damaged("it is cut off");
    let version = word(8).ok_or_else(cut)? as u16;
    if version != VERSION {
        return Err(MetaError::Version { place: place.into(), found: version });
    }
    let head_len = word(12).ok_or_else(cut)? as usize;
    let body_len = word(16).ok_or_else(cut)? as usize;
    let end = 20usize.saturating_add(head_len).saturating_add(body_len);
    let head = bytes.get(20..20 + head_len).ok_or_else(cut)?;
    let body = bytes.get(20 + head_len..end).ok_or_else(cut)?;
    let head = std::str::from_utf8(head).map_err(|_| damaged("its head is not UTF-8"))?;
    Ok((head, body, end))
}

/// All annotated functions of a test binary, in the order of module path and line.
pub fn read_binary(path: &Path) -> Result<Vec<TestMeta>, MetaError> {
    let mut tests = sections(path, SECTION_NAME, TestMeta::parse)?;
    tests.sort_by(|a, b| (&a.module, a.line, &a.body.name).cmp(&(&b.module, b.line, &b.body.name)));
    Ok(tests)
}

/// Everything in the sections of this name.
fn sections<T>(
    path: &Path,
    name: &str,
    parse: impl Fn(&[u8], &str) -> Result<(T, usize), MetaError>,
) -> Result<Vec<T>, MetaError> {
    let io = |source| MetaError::Io { path: path.into(), source };
    let file = crate::files::open(path).map_err(io)?;
    // SAFETY: a test binary is not written to while it is being read; were it truncated meanwhile the process
    // would die of SIGBUS, as it would executing it.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    let object_error = |source| MetaError::Object { path: path.into(), source };
    let object = object::File::parse(&*map).map_err(object_error)?;
    let mut found = Vec::new();
    for section in object.sections().filter(|s| s.name() == Ok(name)) {
        let mut rest = section.data().map_err(object_error)?;
        // The linker may pad between the contributions of several codegen units.
        while let Some(start) = rest.iter().position(|&b| b != 0) {
            let (one, used) = parse(&rest[start..], &path.display().to_string())?;
            found.push(one);
            rest = &rest[start + used..];
        }
    }
    Ok(found)
}
