//! Offload bundles: code objects for several targets in one piece, plain or compressed.
//!
//! Source: the documentation of clang-offload-bundler, "Bundled Code Object File Layout" and "Compressed Code Object
//! Bundle". All numbers are little-endian.

use super::elf::{Elf, Machine};
use super::error::{Begins, ReadError};
use super::target::Target;
use super::{CodeObject, CodeVisitor, Packing, elf};
use std::io::Read;
use std::ops::Range;

const PLAIN: &[u8] = b"__CLANG_OFFLOAD_BUNDLE__";
const COMPRESSED: &[u8] = b"CCOB";

/// A bundle may decompress to this many times its size and no more; code objects come to about 20 times.
const MAX_RATIO: u64 = 1000;

/// Whether a bundle begins here.
pub fn starts(bytes: &[u8]) -> bool {
    bytes.starts_with(PLAIN) || bytes.starts_with(COMPRESSED)
}

/// Reads bundles one after another, with zeros as padding between them: one for each source of a library.
pub(super) fn read_all(bytes: &[u8]) -> Result<Vec<CodeObject>, ReadError> {
    let mut code_objects = Vec::new();
    visit(bytes, &mut |id, code, packing| {
        code_objects.push(read_entry(id, code, packing)?);
        Ok(())
    })?;
    Ok(code_objects)
}

/// Is given the name of an entry, its bytes and what is around it.
type Visitor<'v> = dyn FnMut(&str, &[u8], Packing) -> Result<(), ReadError> + 'v;

/// Gives each entry that is not for the host to `visitor`.
fn visit(bytes: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ReadError> {
    let mut at = 0;
    while let Some(padding) = bytes[at..].iter().position(|b| *b != 0) {
        at += padding;
        let place = || format!("bundle at byte {at:#x}");
        let rest = &bytes[at..];
        let length = if rest.starts_with(COMPRESSED) {
            let bundle = decompress(rest).map_err(|error| error.at(place()))?;
            visit_plain(&bundle.bytes, bundle.packing, visitor).map_err(|error| error.at(place()))?;
            bundle.length
        } else if rest.starts_with(PLAIN) {
            visit_plain(rest, Packing::Bundle, visitor).map_err(|error| error.at(place()))?
        } else {
            let expected = "a bundle (__CLANG_OFFLOAD_BUNDLE__ or CCOB) or padding";
            return Err(ReadError::Magic { offset: at, expected, begins: Begins::of(rest) });
        };
        at += length;
    }
    Ok(())
}

/// Gives the code of each entry to `visitor`, with its target.
pub(super) fn visit_code(bytes: &[u8], visitor: &mut CodeVisitor<'_>) -> Result<(), ReadError> {
    visit(bytes, &mut |id, code, _| visitor(&target(id)?, code))
}

/// Takes numbers from the front of a header.
struct Header<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Header<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], ReadError> {
        let (at, available) = (self.at as u64, self.bytes.len() as u64);
        let needed = at.saturating_add(length);
        if needed > available {
            return Err(ReadError::Truncated { what: "the bundle's header".into(), needed, available });
        }
        self.at += length as usize;
        Ok(&self.bytes[self.at - length as usize..self.at])
    }

    /// A number of up to 8 bytes.
    fn number(&mut self, size: u64) -> Result<u64, ReadError> {
        Ok(self.take(size)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Code for one target out of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub target: Target,
    /// The code object: an ELF file, or SPIR-V.
    pub code: Vec<u8>,
}

/// The code objects of the one bundle that `bytes` begins with. What follows the bundle is ignored, so that a bundle
/// whose length is not known can be read.
///
/// # Errors
/// For what is no bundle, or a damaged one.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let unpacked = if bytes.starts_with(COMPRESSED) { Some(decompress(bytes)?.bytes) } else { None };
    let bundle = unpacked.as_deref().unwrap_or(bytes);
    let (places, _) = places(bundle)?;
    places
        .into_iter()
        .map(|(id, place)| Ok(Entry { target: target(id)?, code: bundle[place].to_vec() }))
        .collect()
}

/// Visits the entries of a plain bundle and returns its length in bytes.
fn visit_plain(bytes: &[u8], packing: Packing, visitor: &mut Visitor<'_>) -> Result<usize, ReadError> {
    let (places, end) = places(bytes)?;
    for (id, place) in places {
        visitor(id, &bytes[place], packing).map_err(|error| error.at(format!("entry {id}")))?;
    }
    Ok(end)
}

/// Names of entries and where they lie in their bundle.
type Places<'a> = Vec<(&'a str, Range<usize>)>;

/// The entries of a plain bundle that are not for the host: their names and where they lie. The second result is the
/// bundle's length in bytes.
fn places(bytes: &[u8]) -> Result<(Places<'_>, usize), ReadError> {
    let mut header = Header { bytes, at: 0 };
    if !bytes.starts_with(PLAIN) {
        return Err(ReadError::Magic {
            offset: 0,
            expected: "__CLANG_OFFLOAD_BUNDLE__",
            begins: Begins::of(bytes),
        });
    }
    header.take(PLAIN.len() as u64)?;
    let count = header.number(8)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (offset, size) = (header.number(8)?, header.number(8)?);
        let length = header.number(8)?;
        let id = std::str::from_utf8(header.take(length)?)
            .map_err(|_| ReadError::Bundle("the name of an entry is not UTF-8".into()))?;
        entries.push((offset, size, id));
    }
    // Sorted, so that no byte is read twice: entries overlap in no bundle that a compiler wrote.
    entries.sort();
    let mut end = header.at as u64;
    let mut places = Vec::new();
    for (offset, size, id) in entries {
        let entry = format!("entry {id}");
        let next = offset.saturating_add(size);
        if next > bytes.len() as u64 {
            return Err(ReadError::Truncated { what: entry, needed: next, available: bytes.len() as u64 });
        }
        if size > 0 && offset < end {
            let error = format!("{entry} begins at byte {offset:#x}, inside what comes before it");
            return Err(ReadError::Bundle(error));
        }
        end = end.max(next);
        if !id.starts_with("host") {
            places.push((id, offset as usize..next as usize));
        }
    }
    Ok((places, end as usize))
}

/// What an entry is for. An id is kind-triple-target; kind and triple vary between compilers, the target does not.
fn target(id: &str) -> Result<Target, ReadError> {
    if id.ends_with("amdgcnspirv") {
        return Ok(Target::Spirv);
    }
    let target = id
        .find("-gfx")
        .map(|at| &id[at + 1..])
        .ok_or_else(|| ReadError::Bundle(format!("`{id}` names no AMD target")))?;
    Ok(Target::Amd(target.parse()?))
}

fn read_entry(id: &str, code: &[u8], packing: Packing) -> Result<CodeObject, ReadError> {
    let entry = match target(id)? {
        Target::Amd(entry) => entry,
        target => {
            let size = code.len() as u64;
            return Ok(CodeObject { target, packing, size, version: None, kernels: None });
        }
    };
    if code.is_empty() {
        return Err(ReadError::Bundle("it is empty".into()));
    }
    if !code.starts_with(elf::MAGIC) {
        return Err(ReadError::Magic { offset: 0, expected: "an ELF file", begins: Begins::of(code) });
    }
    let elf = Elf::parse(code)?;
    let code_object = match elf.machine() {
        Machine::AmdGpu => elf.amd_code_object(packing)?,
        _ => return Err(ReadError::Bundle("not a code object for an AMD GPU".into())),
    };
    match &code_object.target {
        Target::Amd(found) if found.processor != entry.processor => {
            Err(ReadError::TargetMismatch { entry, found: found.clone() })
        }
        _ => Ok(code_object),
    }
}

struct Decompressed {
    bytes: Vec<u8>,
    packing: Packing,
    /// Bytes of the bundle in its compressed form, header included.
    length: usize,
}

/// Decompresses the bundle that `bytes` begins with.
fn decompress(bytes: &[u8]) -> Result<Decompressed, ReadError> {
    let mut header = Header { bytes, at: 0 };
    header.take(COMPRESSED.len() as u64)?;
    let version = header.number(2)? as u16;
    let method = header.number(2)? as u16;
    // Version 1 does not say where the bundle ends.
    let (total, claimed) = match version {
        1 => (None, header.number(4)?),
        2 => (Some(header.number(4)?), header.number(4)?),
        3 => (Some(header.number(8)?), header.number(8)?),
        _ => return Err(ReadError::CompressedVersion(version)),
    };
    let _hash = header.number(8)?;
    let available = bytes.len() as u64;
    let end = match total {
        Some(total) if total > available => {
            return Err(ReadError::Truncated {
                what: "the compressed bundle".into(),
                needed: total,
                available,
            });
        }
        Some(total) if total < header.at as u64 => {
            return Err(ReadError::Bundle(format!("its header says that it has {total} bytes")));
        }
        Some(total) => total as usize,
        None => bytes.len(),
    };
    let packed = &bytes[header.at..end];
    let compressed = packed.len() as u64;
    if claimed > compressed.saturating_mul(MAX_RATIO) {
        return Err(ReadError::AbsurdSize { compressed, claimed });
    }

    let mut unpacked = Vec::new();
    // One byte more than the header claims tells that there is more.
    let mut unpack = |reader: &mut dyn Read| {
        let result = reader.take(claimed + 1).read_to_end(&mut unpacked);
        result.map_err(|error| ReadError::Decompress(error.to_string()))
    };
    let (packing, consumed) = match method {
        0 => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(packed);
            unpack(&mut decoder)?;
            (Packing::ZlibBundle, decoder.total_in() as usize)
        }
        1 => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            let mut decoder =
                decoder.map_err(|error| ReadError::Decompress(error.to_string()))?.single_frame();
            unpack(&mut decoder)?;
            (Packing::ZstdBundle, packed.len() - decoder.finish().len())
        }
        _ => return Err(ReadError::CompressionMethod(method)),
    };
    let found = unpacked.len() as u64;
    if found != claimed {
        return Err(ReadError::DecompressedSize { found, claimed });
    }
    let length = if total.is_some() { end } else { header.at + consumed };
    Ok(Decompressed { bytes: unpacked, packing, length })
}
