//! Writes one safetensors file, the same bytes for the same tensors.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::shard::io_error;
use super::{StDtype, WeightsError};

/// A tensor to write: row-major, little-endian.
#[derive(Clone, Debug)]
pub struct NewTensor {
    pub name: String,
    pub dtype: StDtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Writes `tensors` in their order, and `metadata` as the header's `__metadata__`.
///
/// The serializer of the safetensors crate writes the metadata in a different order each time; a shard under
/// version control should be reproducible, so the header is written here.
///
/// # Errors
/// A tensor whose bytes do not fill its shape, a name used twice, and what the file system says.
pub fn write(
    path: &Path,
    tensors: &[NewTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for tensor in tensors {
        let bits = tensor.shape.iter().try_fold(tensor.dtype.bitsize(), |n, &d| n.checked_mul(d));
        if bits != Some(tensor.bytes.len() * 8) {
            return Err(WeightsError::WrongShape {
                name: tensor.name.clone(),
                expected: format!("one that {} bytes of {} fill", tensor.bytes.len(), tensor.dtype),
                found: tensor.shape.clone(),
            });
        }
        let begin = end;
        end += tensor.bytes.len();
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(WeightsError::BadHeader {
                path: path.to_owned(),
                reason: format!("tensor `{}` given twice", tensor.name),
            });
        }
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = std::fs::File::create(path).map_err(|e| io_error(path, e))?;
    let to_file = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(&file);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in tensors {
            file.write_all(&tensor.bytes)?;
        }
        file.flush()
    };
    to_file().map_err(|e| {
        // On a full disk: half of a checkpoint could be taken for one.
        let _ = std::fs::remove_file(path);
        io_error(path, e)
    })
}
