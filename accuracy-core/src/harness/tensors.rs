//! Keeps what a chain wrote beside what it should have written, for a person or another tool to look at.

use crate::case::Attempt;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::judge::{JudgedHop, framework_chain, ideal};
use crate::record::file_stem;
use crate::reference::Matrix;
use crate::weights::{self, NewTensor, StDtype};
use std::collections::BTreeMap;
use std::path::Path;

/// Characters of an identity that a file's name begins with: file systems end names at 255 bytes.
const READABLE: usize = 160;

/// Writes a file to `dir` whose name begins as `id` does and ends in a hash of it, `id` being in its metadata as `case`.
///
/// Of each buffer that a kernel wrote: its name, as it was written (what is quantised: decoded, in float64), and
/// `.reference`, what it was judged against. Of the end of the chain also `.quantised`, the framework's own quantised
/// chain, and `.ideal`, without any quantisation.
pub fn keep(dir: &Path, id: &str, attempt: &Attempt, hops: &[JudgedHop]) -> Result<()> {
    let mut tensors = Vec::new();
    for judged in hops {
        let buffer = attempt.buffer(judged.id);
        let stored = match (&buffer.scheme, buffer.dtype) {
            (None, DType::BF16) => Some(StDtype::BF16),
            (None, DType::F16) => Some(StDtype::F16),
            (None, DType::F32) => Some(StDtype::F32),
            (None, DType::I32) => Some(StDtype::I32),
            _ => None,
        };
        tensors.push(match stored {
            Some(dtype) => NewTensor {
                name: buffer.name.clone(),
                dtype,
                shape: vec![buffer.rows, buffer.cols],
                bytes: buffer.data.to_vec(),
            },
            None => float64(buffer.name.clone(), &buffer.value()),
        });
        tensors.push(float64(format!("{}.reference", buffer.name), &judged.reference));
    }
    let end = &attempt.buffer(attempt.result).name;
    tensors.push(float64(format!("{end}.quantised"), &framework_chain(attempt)));
    tensors.push(float64(format!("{end}.ideal"), &ideal(attempt)));
    let path = dir.join(file_name(id));
    let metadata = BTreeMap::from([("case".to_owned(), id.to_owned()), ("end".to_owned(), end.clone())]);
    std::fs::create_dir_all(dir).map_err(|e| Error::msg(format!("cannot create {}: {e}", dir.display())))?;
    Ok(weights::write(&path, &tensors, &metadata)?)
}

/// Letters, digits and dashes of a case's identity, as many as fit, and its hash: two of them never have one name.
fn file_name(id: &str) -> String {
    let mut readable = String::new();
    for c in id.chars() {
        match c.is_ascii_alphanumeric() || c == '_' {
            true => readable.push(c),
            false if readable.ends_with('-') => {}
            false => readable.push('-'),
        }
    }
    readable.truncate(READABLE);
    format!("{}-{}.safetensors", readable.trim_matches('-'), file_stem(id))
}

fn float64(name: String, value: &Matrix) -> NewTensor {
    let bytes = value.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    NewTensor { name, dtype: StDtype::F64, shape: vec![value.rows, value.cols], bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_case() {
        let name = file_name("kernels::fp8[check=full_chain,tokens=33]");
        assert!(
            name.starts_with("kernels-fp8-check-full_chain-tokens-33-") && name.ends_with(".safetensors")
        );
        let long = |last: &str| file_name(&format!("k::t[{}{last}]", "a=b,".repeat(100)));
        assert!(long("1").len() < 255 && long("1") != long("2"));
    }
}
