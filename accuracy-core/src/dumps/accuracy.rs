//! Our own dumps: safetensors beside a manifest of one JSON object a line, appended to as the model runs.
//!
//! A line is one of `{"dump": ..}`, the first one; `{"tensor": ..}`, written before the tensor's bytes are; `{"tokens":
//! ..}`; `{"skipped": ..}`, a tensor that could not be written; `{"end": ..}` when a step is complete. What a crash cuts off is thus known by name.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::error::DumpError;
use super::file::{self, Found};
use super::{DumpSet, Kind, Merge, Producer, Rank, TensorId, Unread, folder};

const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Dump(Header),
    Tensor(Entry),
    Tokens(Tokens),
    Skipped(Skipped),
    End(End),
}

#[derive(Deserialize)]
struct Header {
    version: u32,
    rank: u32,
    tp: Option<u32>,
    pp: Option<u32>,
}

#[derive(Deserialize)]
struct Entry {
    step: u64,
    call: usize,
    module: String,
    kind: WrittenKind,
    #[serde(default)]
    slot: String,
    dtype: String,
    shape: Vec<usize>,
    /// Relative to the manifest.
    file: String,
    key: String,
    merge: Option<WrittenMerge>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    Input,
    Output,
    Parameter,
    Value,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenMerge {
    Replicated,
    Sum,
    Concat(usize),
}

#[derive(Deserialize)]
struct Tokens {
    step: u64,
    ids: Vec<Vec<i64>>,
}

#[derive(Deserialize)]
struct Skipped {
    step: u64,
    module: String,
    kind: WrittenKind,
    #[serde(default)]
    slot: String,
    reason: String,
}

#[derive(Deserialize)]
struct End {
    step: u64,
}

pub(super) fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("accuracy_dump.") && name.ends_with(".jsonl")
}

/// Whether a file is named as the hook names its tensors' files: `rank0.step000000.000.safetensors`.
pub(super) fn is_dumped(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parts: Vec<&str> = name.split('.').collect();
    let number = |text: &str, prefix: &str| {
        text.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    matches!(parts[..], [rank, step, part, "safetensors"]
        if number(rank, "rank") && number(step, "step") && number(part, ""))
}

pub(super) fn read(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::Accuracy);
    let manifests: Vec<PathBuf> = folder::files(path)?.into_iter().filter(|f| is_manifest(f)).collect();
    let mut seen: HashMap<u32, PathBuf> = HashMap::new();
    for manifest in manifests {
        let rank = read_manifest(&manifest, &mut set)?;
        if let Some(other) = seen.insert(rank, manifest.clone()) {
            return Err(DumpError::Ambiguous {
                path: path.to_owned(),
                reason: format!(
                    "two runs: both {} and {} are of rank {rank}; name the folder of one of them",
                    other.display(),
                    manifest.display()
                ),
            });
        }
    }
    Ok(set)
}

/// Adds what a manifest lists; gives its rank.
fn read_manifest(manifest: &Path, set: &mut DumpSet) -> Result<u32, DumpError> {
    let bad = |line: usize, reason: String| DumpError::Damaged {
        path: manifest.to_owned(),
        format: "manifest",
        reason: format!("line {line}: {reason}"),
    };
    let text =
        crate::files::read_text(manifest, crate::files::LIST).map_err(|e| DumpError::io(manifest, e))?;
    let parent = manifest.parent().unwrap_or(Path::new(""));
    let mut rank = None;
    let mut files: HashMap<String, Option<HashMap<String, Found>>> = HashMap::new();
    let (mut last, mut ended, mut broken) = (None, None, false);
    let count = text.lines().count();
    for (i, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        let parsed = match serde_json::from_str(line) {
            Ok(parsed) => parsed,
            Err(e) if i == count && !text.ends_with('\n') => {
                set.notes.push(format!("{}: the last line is cut off ({e})", manifest.display()));
                broken = true;
                break;
            }
            Err(e) => return Err(bad(i, e.to_string())),
        };
        let rank = match (parsed, rank) {
            (Line::Dump(header), None) if header.version == VERSION => {
                rank = Some(Rank { global: Some(header.rank), tp: header.tp, pp: header.pp });
                continue;
            }
            (Line::Dump(header), None) => {
                return Err(bad(i, format!("version {}; {VERSION} is known", header.version)));
            }
            (Line::Dump(_), Some(_)) => return Err(bad(i, "a second header: two runs in one file".into())),
            (_, None) => return Err(bad(i, "the first line is no header".into())),
            (Line::Tokens(tokens), Some(rank)) => {
                set.tokens.insert((tokens.step, rank.global), tokens.ids);
                continue;
            }
            (Line::Skipped(skipped), Some(rank)) => {
                let id = TensorId {
                    step: Some(skipped.step),
                    rank,
                    ..named(&skipped.module, skipped.kind, &skipped.slot)
                };
                set.unread.push(Unread { what: id.to_string(), reason: skipped.reason });
                continue;
            }
            (Line::End(end), Some(_)) => {
                ended = Some(end.step);
                continue;
            }
            (Line::Tensor(entry), Some(rank)) => {
                last = Some(entry.step);
                (entry, rank)
            }
        };
        let (entry, rank) = rank;
        let file = inside(parent, &entry.file)
            .ok_or_else(|| bad(i, format!("`{}` is not inside of the folder", entry.file)))?;
        if !files.contains_key(&entry.file) {
            let tensors = match file::read(&file) {
                Ok(contents) => Some(contents.tensors.into_iter().map(|f| (f.path.concat(), f)).collect()),
                Err(
                    DumpError::NotFound { .. }
                    | DumpError::Safetensors(crate::weights::WeightsError::NotFound { .. }),
                ) => None,
                Err(e) => return Err(e),
            };
            files.insert(entry.file.clone(), tensors);
        }
        let id = TensorId {
            step: Some(entry.step),
            rank,
            call: entry.call,
            ..named(&entry.module, entry.kind, &entry.slot)
        };
        let found = match &files[&entry.file] {
            None => Err(format!("{} was never written", file.display())),
            Some(tensors) => tensors.get(&entry.key).ok_or_else(|| format!("not in {}", file.display())),
        };
        match found {
            Err(reason) => set.unread.push(Unread { what: id.to_string(), reason }),
            Ok(found) if found.layout.element.name() != entry.dtype || found.layout.shape != entry.shape => {
                return Err(bad(
                    i,
                    format!(
                        "`{id}` should be {} {:?} and is {} {:?} in {}",
                        entry.dtype,
                        entry.shape,
                        found.layout.element,
                        found.layout.shape,
                        file.display()
                    ),
                ));
            }
            Ok(found) => {
                let mut tensor = found.clone().tensor(id, &file);
                tensor.merge = entry.merge.map(|merge| match merge {
                    WrittenMerge::Replicated => Merge::Replicated,
                    WrittenMerge::Sum => Merge::Sum,
                    WrittenMerge::Concat(dim) => Merge::Concat(dim),
                });
                set.tensors.push(tensor);
            }
        }
    }
    if last > ended {
        let step = last.unwrap_or(0);
        set.notes.push(format!("{}: step {step} was cut off", manifest.display()));
        let what = if broken { "its last line is half a JSON object" } else { "it has no `end`" };
        set.cut.insert(step, format!("step {step} was cut off: {what} ({})", manifest.display()));
    }
    rank.and_then(|r| r.global).ok_or_else(|| bad(1, "it is empty".into()))
}

fn named(module: &str, kind: WrittenKind, slot: &str) -> TensorId {
    let kind = match kind {
        WrittenKind::Input => Kind::Input,
        WrittenKind::Output => Kind::Output,
        WrittenKind::Parameter => Kind::Parameter,
        WrittenKind::Value => Kind::Value,
    };
    TensorId::of_module(module, kind, slot)
}

fn inside(folder: &Path, relative: &str) -> Option<PathBuf> {
    let plain = Path::new(relative).components().all(|c| matches!(c, Component::Normal(_)));
    (plain && !relative.is_empty()).then(|| folder.join(relative))
}
