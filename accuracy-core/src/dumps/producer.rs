//! Which producer wrote a folder. Each producer's own file says what it recognises.

use std::path::Path;

use super::error::DumpError;
use super::folder::files;
use super::{Producer, accuracy, huggingface, msprobe, sglang};

/// Who wrote a file or folder; more than one answer is an error.
pub(super) fn producer(path: &Path) -> Result<Producer, DumpError> {
    if path.is_file() {
        return Ok(Producer::Files);
    }
    let files = files(path)?;
    let by = |producer| match producer {
        Producer::Accuracy => accuracy::is_manifest,
        Producer::SglangDumper => sglang::is_dumped,
        Producer::SglangHook => sglang::is_pass,
        Producer::Msprobe => msprobe::is_dumped,
        Producer::HuggingFace => huggingface::is_tree,
        Producer::Files => |_: &Path| false,
    };
    let found = Producer::ALL.into_iter().filter(|p| files.iter().any(|f| by(*p)(f)));
    match found.collect::<Vec<_>>()[..] {
        [] => match files.iter().find(|f| accuracy::is_dumped(f)) {
            None => Ok(Producer::Files),
            Some(file) => Err(DumpError::Ambiguous {
                path: path.to_owned(),
                reason: format!(
                    "{} is of accuracy_dump.py, and the manifest that says what is in it is not there; copy \
                     accuracy_dump.rank*.jsonl, too",
                    file.file_name().unwrap_or_default().to_string_lossy()
                ),
            }),
        },
        [one] => Ok(one),
        [a, b, ..] => Err(DumpError::Ambiguous {
            path: path.to_owned(),
            reason: format!("looks like a dump of {a} and like one of {b}; name the folder of one of them"),
        }),
    }
}
