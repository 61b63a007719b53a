//! What a test binary says about the kernels that it binds, readable without running it: the plugin looks into kernel
//! libraries and code objects before anything runs.
//!
//! Each `#[kernel_library]` and `#[code_object]` leaves one [`Section`] in the ELF section [`SECTION_NAME`].

use super::{MetaError, head_and_body, sections};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Name of the ELF section, also a valid C identifier.
pub const SECTION_NAME: &str = "accuracy_bindings";

/// A block's metadata: as of a test, then what no macro knows.
#[repr(C)]
pub struct Section<const HEAD: usize, const BODY: usize, const OUT: usize, const SIZES: usize> {
    section: super::Section<HEAD, BODY>,
    out_len: [u8; 4],
    size_count: [u8; 4],
    /// `OUT_DIR` of the package, empty where it has no build script.
    out_dir: [u8; OUT],
    /// Bytes of each parameter, one function after the other.
    sizes: [[u8; 4]; SIZES],
}

impl<const HEAD: usize, const BODY: usize, const OUT: usize, const SIZES: usize>
    Section<HEAD, BODY, OUT, SIZES>
{
    /// Used by the macros.
    pub const fn new(head: &str, body: &[u8; BODY], out_dir: &str, sizes: [usize; SIZES]) -> Self {
        let bytes = out_dir.as_bytes();
        let (mut out, mut i) = ([0; OUT], 0);
        while i < OUT {
            out[i] = bytes[i];
            i += 1;
        }
        let (mut words, mut i) = ([[0; 4]; SIZES], 0);
        while i < SIZES {
            words[i] = (sizes[i] as u32).to_le_bytes();
            i += 1;
        }
        Section {
            section: super::Section::new(head, body),
            out_len: (OUT as u32).to_le_bytes(),
            size_count: (SIZES as u32).to_le_bytes(),
            out_dir: out,
            sizes: words,
        }
    }
}

/// What a block binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    KernelLibrary,
    CodeObject,
}

/// The JSON that the macros write.
#[derive(Deserialize)]
struct Body {
    kind: Kind,
    name: String,
    /// Symbol and parameters of each function.
    functions: Vec<(String, Vec<String>)>,
}

/// A function of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub symbol: String,
    /// Name and bytes.
    pub parameters: Vec<(String, u32)>,
}

/// A block of bindings.
#[derive(Clone, Debug, PartialEq)]
pub struct Bindings {
    pub package: String,
    pub manifest_dir: PathBuf,
    pub out_dir: Option<PathBuf>,
    pub kind: Kind,
    pub name: String,
    pub functions: Vec<Function>,
}

impl Bindings {
    /// Reads one block's metadata from the front of `bytes`, and says how many bytes it took.
    fn parse(bytes: &[u8], place: &str) -> Result<(Bindings, usize), MetaError> {
        let damaged = |what: &str| MetaError::Damaged { place: place.into(), what: what.into() };
        let (head, body, mut at) = head_and_body(bytes, place)?;
        let (package, manifest_dir) =
            head.split_once(super::SEPARATOR).ok_or_else(|| damaged("its head has one field, expected 2"))?;
        let body: Body =
            serde_json::from_slice(body).map_err(|e| damaged(&format!("its body is not valid: {e}")))?;
        let mut take = |len: usize| {
            let taken = bytes.get(at..at.saturating_add(len)).ok_or_else(|| damaged("it is cut off"));
            at += len;
            taken
        };
        let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (out_len, size_count) = (word(take(4)?), word(take(4)?));
        let out_dir =
            std::str::from_utf8(take(out_len as usize)?).map_err(|_| damaged("its folder is not UTF-8"))?;
        let expected: usize = body.functions.iter().map(|(_, parameters)| parameters.len()).sum();
        if size_count as usize != expected {
            return Err(damaged(&format!("it has {size_count} sizes of {expected} parameters")));
        }
        let mut sizes = take(4 * expected)?.chunks_exact(4).map(word);
        let functions = body.functions.into_iter().map(|(symbol, parameters)| Function {
            symbol,
            parameters: parameters.into_iter().zip(&mut sizes).collect(),
        });
        let bindings = Bindings {
            package: package.into(),
            manifest_dir: manifest_dir.into(),
            out_dir: (!out_dir.is_empty()).then(|| out_dir.into()),
            kind: body.kind,
            name: body.name,
            functions: functions.collect(),
        };
        Ok((bindings, at))
    }
}

/// All blocks of bindings that a test binary was linked with.
///
/// # Errors
/// If the file is no ELF file, or the metadata is damaged.
pub fn read_binary(path: &Path) -> Result<Vec<Bindings>, MetaError> {
    sections(path, SECTION_NAME, Bindings::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_reads_back_and_a_short_one_is_damaged() {
        const BODY: &[u8; 73] =
            br#"{"kind":"code_object","name":"gemm","functions":[["gemm_0",["y","m"]]]}  "#;
        static SECTION: Section<13, 73, 4, 2> = Section::new("kernels\u{1f}/some", BODY, "/out", [8, 4]);
        // SAFETY: the struct is `repr(C)` and made of byte arrays alone.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const SECTION).cast::<u8>(), size_of_val(&SECTION)) };
        let (read, used) = Bindings::parse(bytes, "here").unwrap();
        assert_eq!(used, bytes.len());
        assert_eq!(
            (read.package.as_str(), read.kind, read.name.as_str()),
            ("kernels", Kind::CodeObject, "gemm")
        );
        assert_eq!(read.out_dir, Some("/out".into()));
        assert_eq!(read.functions[0].parameters, [("y".to_string(), 8), ("m".to_string(), 4)]);
        for len in 0..bytes.len() {
            assert!(Bindings::parse(&bytes[..len], "here").is_err(), "{len}");
        }
    }
}
