//! One mapped safetensors or GGUF file. No tensor is interpreted here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::gguf::{self, Element};
use super::{WeightsError, json};
use crate::files;

/// The limit of the format's own reader.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Debug)]
pub(crate) struct Shard {
    map: Mmap,
    /// Where the tensors' bytes begin.
    data: usize,
    header: Contents,
}

/// What a file's header lists.
#[derive(Debug)]
enum Contents {
    Safetensors(Metadata),
    Gguf(Box<gguf::Header>),
}

pub(super) fn io_error(path: &Path, source: std::io::Error) -> WeightsError {
    match source.kind() {
        std::io::ErrorKind::NotFound if path.is_symlink() => WeightsError::Dangling {
            path: path.to_owned(),
            target: std::fs::read_link(path).unwrap_or_default(),
        },
        std::io::ErrorKind::NotFound => WeightsError::NotFound { path: path.to_owned() },
        _ => WeightsError::Io { path: path.to_owned(), source: Arc::new(source) },
    }
}

/// What a download may leave in a file's place, by how its text begins.
pub(super) fn in_place_of(path: &Path, file: &[u8]) -> Option<WeightsError> {
    let path = || path.to_owned();
    if file.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Some(WeightsError::LfsPointer { path: path() });
    }
    let text = file.trim_ascii_start();
    let begins = |with: &[u8]| text.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
    (begins(b"<!doctype html") || begins(b"<html")).then(|| WeightsError::HtmlPage { path: path() })
}

impl Shard {
    /// Maps the file and checks its header; reads nothing else.
    pub fn open(path: &Path) -> Result<Shard, WeightsError> {
        let file = files::open(path).map_err(|e| io_error(path, e))?;
        let found = file.metadata().map_err(|e| io_error(path, e))?.len();
        let path = || path.to_owned();
        if found < 8 {
            return Err(WeightsError::Truncated { path: path(), expected: 8, found });
        }
        // SAFETY: the mapping is read-only and private to this value. A checkpoint file that another process
        // truncates while it is mapped would raise SIGBUS; that is documented on `Checkpoint::open`.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| io_error(&path(), e))?;
        let (header, data) = if map.starts_with(gguf::MAGIC) {
            let (header, data) = gguf::parse(&map, &path())?;
            (Contents::Gguf(Box::new(header)), data)
        } else {
            let (header, data) = parse_header(&map, path)?;
            (Contents::Safetensors(header), data)
        };
        Ok(Shard { map, data, header })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// `__metadata__`: what the file's writer says of it.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        match &self.header {
            Contents::Safetensors(header) => header.metadata().as_ref(),
            Contents::Gguf(header) => Some(&header.metadata),
        }
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        match &self.header {
            Contents::Safetensors(header) => header.info(name),
            Contents::Gguf(header) => header.tensors.get(name).map(|(info, _)| info),
        }
    }

    /// What a tensor is made of.
    pub fn element(&self, name: &str) -> Element {
        match &self.header {
            Contents::Safetensors(_) => Element::Plain,
            Contents::Gguf(header) => {
                header.tensors.get(name).map_or(Element::Plain, |(_, element)| *element)
            }
        }
    }

    /// Parameters of the model, where the file itself has them.
    pub fn model(&self) -> Option<&serde_json::Value> {
        match &self.header {
            Contents::Safetensors(_) => None,
            Contents::Gguf(header) => Some(&header.model),
        }
    }

    pub fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (begin, end) = info.data_offsets;
        &self.map[self.data + begin..self.data + end]
    }

    /// Where a tensor's bytes are in the file.
    #[cfg(feature = "dumps")]
    pub fn range(&self, info: &TensorInfo) -> std::ops::Range<u64> {
        (self.data + info.data_offsets.0) as u64..(self.data + info.data_offsets.1) as u64
    }

    pub fn names(&self) -> Vec<String> {
        match &self.header {
            Contents::Safetensors(header) => header.offset_keys(),
            Contents::Gguf(header) => header.names.clone(),
        }
    }
}

/// The header of a whole file in memory, checked against the file's length, and where the data begins.
fn parse_header(file: &[u8], path: impl Fn() -> PathBuf) -> Result<(Metadata, usize), WeightsError> {
    let found = file.len() as u64;
    let (length, rest) = file.split_first_chunk::<8>().expect("the caller checked for 8 bytes");
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > found - 8 {
        let too_long = || WeightsError::HeaderTooLong { path: path(), length, file: found };
        return Err(in_place_of(&path(), file).unwrap_or_else(too_long));
    }
    let header = &rest[..length as usize];
    let bad = |reason: String| WeightsError::BadHeader { path: path(), reason };
    let Header { metadata, mut tensors } = json::from_slice(header).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => bad(e.to_string()),
        _ => WeightsError::HeaderNotJson { path: path(), reason: e.to_string() },
    })?;
    let mut seen = HashSet::new();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return Err(bad(format!("tensor `{name}` is listed twice")));
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let header = Metadata::new(metadata, tensors).map_err(|e| bad(e.to_string()))?;
    let expected = 8 + length + header.data_len() as u64;
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(WeightsError::Truncated { path: path(), expected, found }),
        std::cmp::Ordering::Greater => Err(WeightsError::TrailingBytes { path: path(), expected, found }),
        std::cmp::Ordering::Equal => Ok((header, 8 + length as usize)),
    }
}

/// What a header lists.
///
/// The safetensors crate's own way to read it keeps every value in an untyped form first, which takes longer than all
/// else that is done to open a large checkpoint.
struct Header {
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Header, A::Error> {
        let mut header = Header { metadata: None, tensors: Vec::new() };
        while let Some(name) = members.next_key::<String>()? {
            if name == "__metadata__" {
                header.metadata = members.next_value()?;
            } else {
                header.tensors.push((name, members.next_value()?));
            }
        }
        Ok(header)
    }
}
