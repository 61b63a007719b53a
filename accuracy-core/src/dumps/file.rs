//! The tensors of one file, of any format.

use std::path::Path;
use std::sync::Arc;

use super::data::{DataFile, Layout, Storage};
use super::element::Element;
use super::error::DumpError;
use super::zip::Entry;
use super::{DumpTensor, TensorId, npy, torch, zip};
use crate::weights::shard::Shard;

/// Names of files that may hold tensors end in one of these.
pub(super) const EXTENSIONS: [&str; 5] = ["safetensors", "npy", "npz", "pt", "pth"];

/// What a file holds, by path inside of it.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: Vec<Found>,
    /// Path and reason.
    pub unread: Vec<(Vec<String>, String)>,
    /// Text and numbers beside the tensors; only a `.pt` has them.
    pub fields: Vec<(Vec<String>, String)>,
    /// What there is if there is no tensor.
    pub root: String,
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Keys and indices; empty where the tensor is all that the file holds.
    pub path: Vec<String>,
    pub layout: Layout,
    pub storage: Storage,
}

impl Found {
    pub fn tensor(self, id: TensorId, path: &Path) -> DumpTensor {
        DumpTensor {
            id,
            merge: None,
            tags: Default::default(),
            path: path.to_owned(),
            layout: self.layout,
            storage: self.storage,
        }
    }
}

/// Reads a file's directory, by what it begins with.
pub(super) fn read(path: &Path) -> Result<Contents, DumpError> {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return safetensors(path);
    }
    let len = std::fs::metadata(path).map_err(|e| DumpError::io(path, e))?.len();
    if len == 0 {
        return Err(DumpError::Damaged {
            path: path.to_owned(),
            format: "file of tensors",
            reason: "it is empty".into(),
        });
    }
    let (file, map) = DataFile::open(path)?;
    let bytes = &map[..];
    let unsupported =
        |what: &str, hint| DumpError::Unsupported { path: path.to_owned(), what: what.into(), hint };
    if npy::is_npy(bytes) {
        let (layout, start) =
            npy::parse(bytes, bytes.len() as u64).map_err(|e| e.in_file(path, "npy file"))?;
        let storage = Storage::Plain { file, range: start..bytes.len() as u64 };
        return Ok(Contents {
            tensors: vec![Found { path: Vec::new(), layout, storage }],
            ..Contents::default()
        });
    }
    if torch::is_legacy(bytes) {
        return Err(unsupported(
            "a file of torch before 1.6",
            "save it again: torch.save(torch.load(file), file) writes the zip format",
        ));
    }
    if !zip::is_zip(bytes) {
        return Err(match bytes {
            [0x80, ..] => {
                unsupported("a plain pickle", "save tensors with torch.save, numpy.save or safetensors")
            }
            _ => unsupported(
                "a file that is neither npy nor a zip archive",
                "tensors are read from safetensors, npy, npz and .pt",
            ),
        });
    }
    let entries = zip::entries(bytes).map_err(|e| e.in_file(path, "zip archive"))?;
    if entries.iter().any(|e| e.name.ends_with(".npy")) {
        return npz(path, &file, bytes, entries);
    }
    let contents = torch::parse(bytes).map_err(|e| e.in_file(path, ".pt file"))?;
    let tensors = contents.tensors.into_iter().map(|t| Found {
        path: t.path,
        layout: t.layout,
        storage: storage(&file, t.entry, 0),
    });
    Ok(Contents {
        tensors: tensors.collect(),
        unread: contents.unread,
        fields: contents.fields,
        root: contents.root,
    })
}

fn storage(file: &Arc<DataFile>, entry: Entry, skip: u64) -> Storage {
    let file = file.clone();
    if entry.deflated {
        Storage::Deflated { file, entry, skip }
    } else {
        Storage::Plain { file, range: entry.stored.start + skip..entry.stored.end }
    }
}

fn npz(path: &Path, file: &Arc<DataFile>, bytes: &[u8], entries: Vec<Entry>) -> Result<Contents, DumpError> {
    let mut contents = Contents { root: format!("{} files", entries.len()), ..Contents::default() };
    for entry in entries {
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name).to_owned();
        let parsed =
            zip::extract(bytes, &entry, npy::PREFIX).and_then(|start| npy::parse(&start, entry.size));
        match parsed {
            Ok((layout, skip)) => {
                contents.tensors.push(Found { path: vec![name], layout, storage: storage(file, entry, skip) })
            }
            Err(fault) if entry.name.ends_with(".npy") && entry.size > 0 => {
                contents.unread.push((vec![name], fault.0))
            }
            Err(fault) => return Err(fault.in_file(path, "npz file")),
        }
    }
    Ok(contents)
}

fn safetensors(path: &Path) -> Result<Contents, DumpError> {
    let shard = Shard::open(path)?;
    let (file, _) = DataFile::open(path)?;
    let mut contents = Contents { root: format!("{} tensors", shard.names().len()), ..Contents::default() };
    for name in shard.names() {
        let info = shard.info(&name).expect("listed by the same header");
        let range = shard.range(info);
        let Some(element) = Element::of_safetensors(info.dtype) else {
            contents.unread.push((vec![name.clone()], format!("elements of type {}", info.dtype)));
            continue;
        };
        let layout = Layout::row_major(element, info.shape.clone(), range.end - range.start)
            .map_err(|e| e.in_file(path, "safetensors file"))?;
        let storage = Storage::Plain { file: file.clone(), range };
        contents.tensors.push(Found { path: vec![name], layout, storage });
    }
    Ok(contents)
}
