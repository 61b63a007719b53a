//! numpy's `.npy` and `.npz`.
//!
//! Source: `numpy.lib.format`, versions 1.0 to 3.0. Arrays of objects are pickles and are not read.

use super::data::Layout;
use super::element::Element;
use super::error::Fault;

/// Longest header that is read; numpy itself stops at 10 kB unless told otherwise.
const MAX_HEADER: usize = 1 << 16;

/// Bytes from which [`parse`] can tell where the data begins.
pub(super) const PREFIX: u64 = MAX_HEADER as u64 + 12;

pub(super) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x93NUMPY")
}

/// How the array lies behind the header, and how long the header is. `bytes` is the file's start, at least [`PREFIX`]
/// bytes of it if it has them, `len` the length of the whole file.
pub(super) fn parse(bytes: &[u8], len: u64) -> Result<(Layout, u64), Fault> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it does not begin as an npy file does")?;
    let (header, start) = match rest {
        [1, _, a, b, header @ ..] => (cut(header, usize::from(u16::from_le_bytes([*a, *b])))?, 10),
        [2 | 3, _, a, b, c, d, header @ ..] => {
            (cut(header, u32::from_le_bytes([*a, *b, *c, *d]) as usize)?, 12)
        }
        [version, ..] => return Err(Fault(format!("version {version}; 1 to 3 are known"))),
        [] => return Err("it ends within its header".into()),
    };
    let start = start + header.len() as u64;
    let header = std::str::from_utf8(header).map_err(|_| Fault::from("its header is no text"))?;
    let Header { descr, fortran, shape } = Header::parse(header)?;
    let element = element(&descr)?;
    let data = len.saturating_sub(start);
    let layout = if fortran {
        Layout::column_major(element, shape, data)
    } else {
        Layout::row_major(element, shape, data)
    }?;
    Ok((layout, start))
}

fn cut(bytes: &[u8], length: usize) -> Result<&[u8], Fault> {
    if length > MAX_HEADER {
        return Err(Fault(format!("a header of {length} bytes")));
    }
    bytes.get(..length).ok_or_else(|| "it ends within its header".into())
}

fn element(descr: &str) -> Result<Element, Fault> {
    Ok(match descr {
        "<f8" => Element::F64,
        "<f4" => Element::F32,
        "<f2" => Element::F16,
        "|b1" => Element::Bool,
        "|u1" => Element::U8,
        "|i1" => Element::I8,
        "<u2" => Element::U16,
        "<i2" => Element::I16,
        "<u4" => Element::U32,
        "<i4" => Element::I32,
        "<u8" => Element::U64,
        "<i8" => Element::I64,
        "|O" => return Err("an array of Python objects".into()),
        _ if descr.starts_with('>') => return Err(Fault(format!("big-endian elements (`{descr}`)"))),
        _ if descr.contains('c') => return Err(Fault(format!("complex elements (`{descr}`)"))),
        _ if descr.contains('V') => {
            return Err(Fault(format!(
                "elements without a type (`{descr}`): numpy does not store that they are bfloat16 or an 8-bit float; \
                 save them as float32, or as safetensors"
            )));
        }
        _ => return Err(Fault(format!("elements of type `{descr}`"))),
    })
}

/// The dictionary that a header is.
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Header, Fault> {
        let malformed = || Fault(format!("its header is malformed: {:.100}", text.trim_end()));
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        let mut rest =
            text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(malformed)?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest).ok_or_else(malformed)?;
            let after = after.trim_start().strip_prefix(':').ok_or_else(malformed)?.trim_start();
            rest = match key {
                "descr" if after.starts_with('[') => return Err("an array of records".into()),
                "descr" => {
                    let (value, after) = quoted(after).ok_or_else(malformed)?;
                    descr = Some(value.to_owned());
                    after
                }
                "fortran_order" => {
                    let value = after.starts_with("True");
                    fortran = Some(value);
                    after.strip_prefix(if value { "True" } else { "False" }).ok_or_else(malformed)?
                }
                "shape" => {
                    let (value, after) =
                        after.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(malformed)?;
                    let sizes = value.split(',').map(str::trim).filter(|t| !t.is_empty());
                    let sizes = sizes.map(|t| t.trim_end_matches('L').parse()).collect::<Result<_, _>>();
                    shape = Some(sizes.map_err(|_| malformed())?);
                    after
                }
                _ => return Err(malformed()),
            };
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
            _ => Err(malformed()),
        }
    }
}

/// A quoted string at the start of `text`, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    text[1..].split_once(quote)
}
