//! NVIDIA fatbins, by architecture; the code in them is not read.
//!
//! NVIDIA documents no layout. This is what `cuobjdump` shows and what public readers of the format agree on: a header
//! of 16 bytes (magic, version, header size, size of what follows), then entries with a header each: kind at byte 0,
//! header size at 4, size of what follows at 8, compute capability at 28.

use super::error::{Begins, ReadError};
use super::target::Target;
use super::{CodeObject, Packing};

pub(super) const MAGIC: &[u8] = &[0x50, 0xed, 0x55, 0xba];

const PTX: u16 = 1;
const CUBIN: u16 = 2;

/// Reads fatbins one after another, with zeros as padding between them.
pub(super) fn read_all(bytes: &[u8]) -> Result<Vec<CodeObject>, ReadError> {
    let mut code_objects = Vec::new();
    let mut at = 0;
    while let Some(padding) = bytes[at..].iter().position(|b| *b != 0) {
        at += padding;
        let rest = &bytes[at..];
        if !rest.starts_with(MAGIC) {
            let expected = "a fatbin (50 ed 55 ba) or padding";
            return Err(ReadError::Magic { offset: at, expected, begins: Begins::of(rest) });
        }
        at += read(rest, &mut code_objects).map_err(|error| error.at(format!("fatbin at byte {at:#x}")))?;
    }
    Ok(code_objects)
}

/// Reads one fatbin and returns its length in bytes.
fn read(bytes: &[u8], code_objects: &mut Vec<CodeObject>) -> Result<usize, ReadError> {
    const HEADER: u64 = 16;
    let header = part(bytes, 0, HEADER, "its header")?;
    let header_size = u64::from(u16_at(header, 6));
    if header_size < HEADER {
        return Err(ReadError::Fatbin(format!("its header claims {header_size} bytes")));
    }
    let body = part(bytes, header_size, u64_at(header, 8), "its body")?;
    let mut rest = body;
    while !rest.is_empty() {
        const ENTRY: u64 = 32;
        let entry = part(rest, 0, ENTRY, "the header of an entry")?;
        let header_size = u64::from(u32_at(entry, 4));
        if header_size < ENTRY {
            return Err(ReadError::Fatbin(format!("the header of an entry claims {header_size} bytes")));
        }
        let code = part(rest, header_size, u64_at(entry, 8), "an entry")?;
        let sm = u32_at(entry, 28);
        let target = match u16_at(entry, 0) {
            PTX => Some(Target::Ptx { sm }),
            CUBIN => Some(Target::Cubin { sm }),
            // Intermediate code for the linker, which no device runs.
            _ => None,
        };
        if let Some(target) = target {
            let size = code.len() as u64;
            let packing = Packing::Fatbin;
            code_objects.push(CodeObject { target, packing, size, version: None, kernels: None });
        }
        rest = &rest[header_size as usize + code.len()..];
    }
    Ok(header_size as usize + body.len())
}

fn part<'a>(bytes: &'a [u8], offset: u64, size: u64, what: &str) -> Result<&'a [u8], ReadError> {
    let (needed, available) = (offset.saturating_add(size), bytes.len() as u64);
    if needed > available {
        return Err(ReadError::Truncated { what: what.into(), needed, available });
    }
    Ok(&bytes[offset as usize..needed as usize])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
