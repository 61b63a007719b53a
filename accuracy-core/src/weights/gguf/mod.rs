//! GGUF files as containers: their header, and where tensors lie. What blocks of codes hold is in [`block`].
//!
//! Source of the layout: the GGUF specification and ggml's block structures, version 2 and 3, little-endian.

mod block;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::{StDtype, WeightsError};

pub use block::Block;
pub(super) use block::Decoded;

pub(super) const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays within arrays that are followed; more are a damaged file.
const MAX_DEPTH: usize = 8;

/// What a GGUF file's header lists.
#[derive(Debug)]
pub(super) struct Header {
    /// Tensors by name. A quantised one is `[..., bytes of a row]` of U8.
    pub tensors: HashMap<String, (TensorInfo, Element)>,
    /// Names in the order of the file.
    pub names: Vec<String>,
    /// Key-value pairs but arrays.
    pub metadata: HashMap<String, String>,
    /// The same for the model's parameters, by the names that `config.json` has for them.
    pub model: Value,
}

/// What a tensor of a GGUF file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Numbers, of the dtype that the tensor says.
    Plain,
    Block(Block),
    /// A type that is not read, by its name or number.
    Other(&'static str, u32),
}

/// The types that ggml numbers: name, elements of a block, bytes of a block; what is read of them.
const TYPES: [(u32, &str, u64, u64, Kind); 33] = [
    (0, "F32", 1, 4, Kind::Plain(StDtype::F32)),
    (1, "F16", 1, 2, Kind::Plain(StDtype::F16)),
    (2, "Q4_0", 32, 18, Kind::Block(Block::Q4_0)),
    (3, "Q4_1", 32, 20, Kind::Block(Block::Q4_1)),
    (6, "Q5_0", 32, 22, Kind::Block(Block::Q5_0)),
    (7, "Q5_1", 32, 24, Kind::Block(Block::Q5_1)),
    (8, "Q8_0", 32, 34, Kind::Block(Block::Q8_0)),
    (9, "Q8_1", 32, 36, Kind::Other),
    (10, "Q2_K", 256, 84, Kind::Block(Block::Q2K)),
    (11, "Q3_K", 256, 110, Kind::Block(Block::Q3K)),
    (12, "Q4_K", 256, 144, Kind::Block(Block::Q4K)),
    (13, "Q5_K", 256, 176, Kind::Block(Block::Q5K)),
    (14, "Q6_K", 256, 210, Kind::Block(Block::Q6K)),
    (15, "Q8_K", 256, 292, Kind::Other),
    (16, "IQ2_XXS", 256, 66, Kind::Other),
    (17, "IQ2_XS", 256, 74, Kind::Other),
    (18, "IQ3_XXS", 256, 98, Kind::Other),
    (19, "IQ1_S", 256, 50, Kind::Other),
    (20, "IQ4_NL", 32, 18, Kind::Block(Block::Iq4Nl)),
    (21, "IQ3_S", 256, 110, Kind::Other),
    (22, "IQ2_S", 256, 82, Kind::Other),
    (23, "IQ4_XS", 256, 136, Kind::Other),
    (24, "I8", 1, 1, Kind::Plain(StDtype::I8)),
    (25, "I16", 1, 2, Kind::Plain(StDtype::I16)),
    (26, "I32", 1, 4, Kind::Plain(StDtype::I32)),
    (27, "I64", 1, 8, Kind::Plain(StDtype::I64)),
    (28, "F64", 1, 8, Kind::Plain(StDtype::F64)),
    (29, "IQ1_M", 256, 56, Kind::Other),
    (30, "BF16", 1, 2, Kind::Plain(StDtype::BF16)),
    (34, "TQ1_0", 256, 54, Kind::Other),
    (35, "TQ2_0", 256, 66, Kind::Other),
    (39, "MXFP4", 32, 17, Kind::Block(Block::Mxfp4)),
    (40, "NVFP4", 64, 36, Kind::Other),
];

#[derive(Clone, Copy)]
enum Kind {
    Plain(StDtype),
    Block(Block),
    Other,
}

/// A tensor as the header lists it.
struct Listed {
    name: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// Reads the header of a whole file in memory; with it, where the data begins.
///
/// # Errors
/// A file of another kind or version, a damaged or truncated one, each with what is wrong.
pub(super) fn parse(file: &[u8], path: &Path) -> Result<(Header, usize), WeightsError> {
    let mut cursor = Cursor { file, at: MAGIC.len(), path };
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        let swapped = (2..=3).contains(&version.swap_bytes());
        return Err(cursor.bad(match swapped {
            true => "is big-endian; convert it to little-endian".to_owned(),
            false => format!("GGUF version {version}, expected 2 or 3"),
        }));
    }
    let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
    // A pair takes 13 bytes and a tensor 24 at the least, so that a damaged count is not believed.
    cursor.require(pairs.checked_mul(13).and_then(|n| n.checked_add(tensors.checked_mul(24)?)))?;
    let mut metadata = HashMap::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..pairs {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        if let Some(value) = cursor.value(kind, 0)? {
            if key == "general.alignment" {
                let parsed = value.parse::<u64>().ok().filter(|n| n.is_power_of_two());
                let wrong = || cursor.bad(format!("general.alignment is {value}, expected a power of two"));
                alignment = parsed.ok_or_else(wrong)?;
            }
            metadata.insert(key, value);
        }
    }
    let mut listed = Vec::new();
    for _ in 0..tensors {
        let name = cursor.string()?;
        let dimensions = cursor.u32()?;
        if dimensions > 8 {
            return Err(cursor.bad(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<u64>, _>>()?;
        shape.reverse();
        listed.push(Listed { name, shape, kind: cursor.u32()?, offset: cursor.u64()? });
    }
    let data = (cursor.at as u64).next_multiple_of(alignment);
    let found = file.len() as u64;
    let space = found.saturating_sub(data);
    let mut ends: Vec<u64> = listed.iter().map(|tensor| tensor.offset).collect();
    ends.push(space);
    ends.sort_unstable();
    let mut header = Header { tensors: HashMap::new(), names: Vec::new(), model: model(&metadata), metadata };
    for tensor in listed {
        let (info, element, end) = cursor.placed(&tensor, &ends)?;
        if end > space {
            return Err(WeightsError::Truncated { path: path.to_owned(), expected: data + end, found });
        }
        let twice = header.tensors.insert(tensor.name.clone(), (info, element)).is_some();
        if twice {
            return Err(cursor.bad(format!("tensor `{}` is listed twice", tensor.name)));
        }
        header.names.push(tensor.name);
    }
    // Without tensors there need be no data.
    Ok((header, (data as usize).min(file.len())))
}

/// Parameters of the model under the names that `config.json` has for them.
fn model(metadata: &HashMap<String, String>) -> Value {
    let mut model = serde_json::Map::new();
    let Some(architecture) = metadata.get("general.architecture") else { return Value::Null };
    model.insert("model_type".to_owned(), architecture.clone().into());
    for (ours, theirs) in [
        ("hidden_size", "embedding_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
    ] {
        let number = metadata.get(&format!("{architecture}.{theirs}")).and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number {
            model.insert(ours.to_owned(), number.into());
        }
    }
    model.into()
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    fn bad(&self, reason: String) -> WeightsError {
        WeightsError::BadGguf { path: self.path(), reason }
    }

    /// So many more bytes have to be there.
    fn require(&self, bytes: Option<u64>) -> Result<(), WeightsError> {
        let left = (self.file.len() - self.at) as u64;
        match bytes {
            Some(bytes) if bytes <= left => Ok(()),
            _ => {
                let expected = bytes.map_or(u64::MAX, |bytes| bytes.saturating_add(self.at as u64));
                Err(WeightsError::Truncated { path: self.path(), expected, found: self.file.len() as u64 })
            }
        }
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], WeightsError> {
        self.require(Some(bytes))?;
        let taken = &self.file[self.at..][..bytes as usize];
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, WeightsError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Result<u64, WeightsError> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    fn string(&mut self) -> Result<String, WeightsError> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.bad("a name that is not UTF-8".to_owned()))
    }

    /// A value of that type as text; `None` for an array.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<String>, WeightsError> {
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => return self.string().map(Some),
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                self.require(Some(count))?;
                for _ in 0..count {
                    self.value(kind, depth + 1)?;
                }
                return Ok(None);
            }
            _ => return Err(self.bad(format!("a value of type {kind}, which there is none"))),
        };
        let bytes = self.take(size)?;
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        // Sign extension of what is narrower than a word.
        let signed = || (bits << (64 - 8 * size)) as i64 >> (64 - 8 * size);
        Ok(Some(match kind {
            1 | 3 | 5 | 11 => signed().to_string(),
            6 => f32::from_bits(bits as u32).to_string(),
            7 => (bits != 0).to_string(),
            12 => f64::from_bits(bits).to_string(),
            _ => bits.to_string(),
        }))
    }

    /// Where a tensor lies and how it is described; with it the end of its bytes.
    fn placed(&self, tensor: &Listed, ends: &[u64]) -> Result<(TensorInfo, Element, u64), WeightsError> {
        let too_large = || self.bad(format!("tensor `{}` has shape {:?}", tensor.name, tensor.shape));
        let known = TYPES.iter().find(|(number, ..)| *number == tensor.kind);
        let count = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        let (dtype, element, shape, bytes) = match known {
            Some(&(_, name, of_a_block, bytes_of_a_block, kind)) => {
                let row = tensor.shape.last().copied().unwrap_or(1);
                if !row.is_multiple_of(of_a_block) {
                    let reason = format!(
                        "tensor `{}` of {name} has rows of {row}, expected a multiple of {of_a_block}",
                        tensor.name
                    );
                    return Err(self.bad(reason));
                }
                let bytes = (count / of_a_block).checked_mul(bytes_of_a_block).ok_or_else(too_large)?;
                let mut shape = tensor.shape.clone();
                let (dtype, element) = match kind {
                    Kind::Plain(dtype) => (dtype, Element::Plain),
                    Kind::Block(block) => (StDtype::U8, Element::Block(block)),
                    Kind::Other => (StDtype::U8, Element::Other(name, tensor.kind)),
                };
                if element != Element::Plain
                    && let Some(last) = shape.last_mut()
                {
                    *last = row / of_a_block * bytes_of_a_block;
                }
                (dtype, element, shape, bytes)
            }
            None => {
                // How long a block is is not known: up to what comes next.
                let next = ends.iter().find(|&&end| end > tensor.offset).copied().unwrap_or(tensor.offset);
                let bytes = next - tensor.offset;
                (StDtype::U8, Element::Other("", tensor.kind), vec![bytes], bytes)
            }
        };
        let end = tensor.offset.checked_add(bytes).ok_or_else(too_large)?;
        let shape: Option<Vec<usize>> = shape.into_iter().map(|d| usize::try_from(d).ok()).collect();
        let info = TensorInfo {
            dtype,
            shape: shape.ok_or_else(too_large)?,
            data_offsets: (tensor.offset as usize, end as usize),
        };
        Ok((info, element, end))
    }
}
