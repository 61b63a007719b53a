//! The directory of a zip archive, as torch and numpy write it: stored or deflated entries, zip64.
//!
//! Source: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5. Nothing is extracted here.

use std::io::Read as _;
use std::ops::Range;

use super::error::Fault;

/// How often the densest deflate stream repeats itself: 258 bytes for 2 bits.
const MAX_RATIO: u64 = 1032;

/// One file in an archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: String,
    /// Bytes once extracted.
    pub size: u64,
    /// Where its bytes are in the archive, as they are stored.
    pub stored: Range<u64>,
    pub deflated: bool,
}

/// Whether these are the first bytes of a zip archive.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

pub(super) fn entries(archive: &[u8]) -> Result<Vec<Entry>, Fault> {
    let end = end_of_directory(archive)?;
    let directory = directory(archive, end)?;
    let mut entries = Vec::new();
    let mut rest = directory;
    while rest.len() >= 46 && rest.starts_with(b"PK\x01\x02") {
        let (flags, method) = (u16_at(rest, 8), u16_at(rest, 10));
        let lengths = [u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32)].map(usize::from);
        let [name, extra, comment] = lengths;
        let length = 46 + name + extra + comment;
        let header = rest.get(..length).ok_or("its directory ends within an entry")?;
        let name = String::from_utf8_lossy(&header[46..46 + name]).into_owned();
        let extra = &header[46 + lengths[0]..46 + lengths[0] + extra];
        let sizes = sizes(header, extra).ok_or_else(|| Fault(format!("entry `{name}` has bad sizes")))?;
        let (size, compressed, local) = sizes;
        rest = &rest[length..];
        if flags & 1 != 0 {
            return Err(Fault(format!("entry `{name}` is encrypted")));
        }
        let deflated = match method {
            0 => false,
            8 => true,
            other => return Err(Fault(format!("entry `{name}` has compression method {other}"))),
        };
        let bad = || Fault(format!("entry `{name}` lies outside of the file"));
        let local_at = usize::try_from(local).map_err(|_| bad())?;
        let local = archive.get(local_at..).filter(|l| l.len() >= 30 && l.starts_with(b"PK\x03\x04"));
        let local = local.ok_or_else(|| Fault(format!("entry `{name}` has no header of its own")))?;
        let start = local_at as u64 + 30 + u64::from(u16_at(local, 26)) + u64::from(u16_at(local, 28));
        let stop = start.checked_add(compressed).filter(|&stop| stop <= archive.len() as u64);
        let stored = start..stop.ok_or_else(bad)?;
        let possible =
            if deflated { compressed.saturating_mul(MAX_RATIO) >= size } else { compressed == size };
        if !possible {
            return Err(Fault(format!("entry `{name}` claims {size} bytes out of {compressed} stored ones")));
        }
        entries.push(Entry { name, size, stored, deflated });
    }
    if entries.is_empty() {
        return Err("the archive is empty, or its directory is damaged".into());
    }
    Ok(entries)
}

/// The bytes of an entry, of which at most `limit` are wanted.
pub(super) fn extract(archive: &[u8], entry: &Entry, limit: u64) -> Result<Vec<u8>, Fault> {
    let stored = &archive[entry.stored.start as usize..entry.stored.end as usize];
    let wanted = entry.size.min(limit);
    if !entry.deflated {
        return Ok(stored[..wanted as usize].to_vec());
    }
    let mut bytes = Vec::new();
    let read = flate2::read::DeflateDecoder::new(stored).take(wanted).read_to_end(&mut bytes);
    match read {
        Ok(n) if n as u64 == wanted => Ok(bytes),
        Ok(n) => Err(Fault(format!("entry `{}` is {n} bytes, not {}", entry.name, entry.size))),
        Err(e) => Err(Fault(format!("entry `{}`: {e}", entry.name))),
    }
}

/// Where the record at the end is: behind it there is at most a comment of 65535 bytes.
fn end_of_directory(archive: &[u8]) -> Result<usize, Fault> {
    let last = archive.len().checked_sub(22).ok_or("too short for a zip archive")?;
    let first = last.saturating_sub(0xffff);
    (first..=last)
        .rev()
        .find(|&at| {
            archive[at..].starts_with(b"PK\x05\x06")
                && at + 22 + usize::from(u16_at(archive, at + 20)) == archive.len()
        })
        .ok_or_else(|| "the end of the zip directory is missing; the file was cut off".into())
}

/// The central directory's bytes.
fn directory(archive: &[u8], end: usize) -> Result<&[u8], Fault> {
    let disks = [u16_at(archive, end + 4), u16_at(archive, end + 6)];
    if disks.iter().any(|&d| d != 0 && d != 0xffff) {
        return Err("an archive of several parts".into());
    }
    let mut size = u64::from(u32_at(archive, end + 12));
    let mut start = u64::from(u32_at(archive, end + 16));
    let locator = end.checked_sub(20).filter(|&at| archive[at..].starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator {
        let at = usize::try_from(u64_at(archive, locator + 8)).unwrap_or(usize::MAX);
        let record = archive.get(at..).filter(|r| r.len() >= 56 && r.starts_with(b"PK\x06\x06"));
        let record = record.ok_or("its zip64 directory record is missing")?;
        (size, start) = (u64_at(record, 40), u64_at(record, 48));
    }
    let stop = start.checked_add(size).filter(|&stop| stop <= end as u64);
    let stop = stop.ok_or("its directory lies outside of the file")?;
    Ok(&archive[start as usize..stop as usize])
}

/// Extracted size, stored size, and where the local header is; the zip64 field holds those that are all ones.
fn sizes(header: &[u8], mut extra: &[u8]) -> Option<(u64, u64, u64)> {
    let mut fields = [u32_at(header, 24), u32_at(header, 20), u32_at(header, 42)].map(u64::from);
    while extra.len() >= 4 && fields.contains(&0xffff_ffff) {
        let length = usize::from(u16_at(extra, 2));
        let data = extra.get(4..4 + length)?;
        if u16_at(extra, 0) == 1 {
            let mut values = data.as_chunks::<8>().0.iter();
            for field in fields.iter_mut().filter(|f| **f == 0xffff_ffff) {
                *field = u64::from_le_bytes(*values.next()?);
            }
            break;
        }
        extra = &extra[4 + length..];
    }
    let [size, compressed, local] = fields;
    Some((size, compressed, local))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
