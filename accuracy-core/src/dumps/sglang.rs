//! SGLang: its dumper (`debug_utils/dumper.py`), a file for each value, and its forward hook
//! (`debug_utils/tensor_dump_forward_hook.py`), a file for each pass.
//!
//! The dumper's files are named by `key=value` pairs. Three generations differ in what counts passes
//! (`forward_pass_id`, `curr_step`, `step`), whether the rank is among the pairs or ends the folder's name, and whether
//! a file holds the value alone or a dictionary of `value` and `meta`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::error::DumpError;
use super::file::{Contents, Found};
use super::folder::{files, read_all};
use super::names::{last, number};
use super::{DumpSet, Kind, Producer, Rank, TensorId, Unread};

const STEPS: [&str; 3] = ["step", "curr_step", "forward_pass_id"];

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn is_dumped(path: &Path) -> bool {
    let name = file_name(path);
    name.ends_with(".pt") && name.split_once('=').is_some_and(|(key, _)| STEPS.contains(&key))
}

/// The pairs of a file's name.
fn pairs(path: &Path) -> Result<BTreeMap<String, String>, DumpError> {
    let name = file_name(path);
    let bad = |reason: String| DumpError::Name {
        path: path.parent().unwrap_or(path).to_owned(),
        producer: "SGLang's dumper",
        name: name.clone(),
        reason,
    };
    let mut pairs = BTreeMap::new();
    for pair in name.strip_suffix(".pt").unwrap_or(&name).split("___") {
        let (key, value) = pair.split_once('=').ok_or_else(|| bad(format!("`{pair}` has no `=`")))?;
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(bad(format!("`{key}` is there twice")));
        }
    }
    for key in ["dump_index", "layer_id", "rank"].into_iter().chain(STEPS) {
        if let Some(value) = pairs.get(key).filter(|v| v.parse::<u64>().is_err()) {
            return Err(bad(format!("`{key}` is `{value}`, not a number")));
        }
    }
    if !pairs.contains_key("name") {
        return Err(bad("there is no `name`".into()));
    }
    Ok(pairs)
}

pub(super) fn read_dumper(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::SglangDumper);
    let wanted: Vec<PathBuf> = files(path)?.into_iter().filter(|f| is_dumped(f)).collect();
    let folders = ranks_of_folders(path, &wanted)?;
    let mut entries = Vec::new();
    for (file, contents) in wanted.iter().zip(read_all(&wanted)?) {
        let pairs = pairs(file)?;
        let number = |key: &str| pairs.get(key).and_then(|v| v.parse::<u64>().ok());
        let folder = file.parent().unwrap_or(path);
        let rank = number("rank").map(|n| n as u32).or_else(|| folders.get(folder).copied().flatten());
        let step = STEPS.iter().find_map(|key| number(key));
        entries.push(((step, rank, number("dump_index")), file, pairs, contents));
    }
    entries.sort_by_key(|(key, ..)| *key);
    let mut plain = 0;
    for ((step, rank, _), file, pairs, contents) in entries {
        let base =
            TensorId { step, rank: Rank { global: rank, ..Rank::default() }, ..dumped_id(&pairs["name"]) };
        let layer = pairs.get("layer_id").and_then(|v| v.parse().ok()).or(base.layer);
        let wrapped = contents.fields.iter().any(|(path, _)| path.first().is_some_and(|key| key == "meta"));
        let id = |path: &[String]| {
            let inner = if wrapped { path.strip_prefix(&["value".to_owned()])? } else { path };
            let slot: Vec<&str> = Some(&*base.slot)
                .filter(|s| !s.is_empty())
                .into_iter()
                .chain(inner.iter().map(|s| &**s))
                .collect();
            Some(TensorId { layer, slot: slot.join("."), ..base.clone() })
        };
        let mut tags: BTreeMap<String, String> = pairs.clone();
        for known in ["name", "rank", "layer_id"].into_iter().chain(STEPS) {
            tags.remove(known);
        }
        let dims = contents.fields.iter().find(|(path, _)| path.iter().eq(["meta", "dims"]));
        tags.extend(dims.map(|(_, dims)| ("dims".to_owned(), dims.clone())));
        plain += usize::from(contents.tensors.is_empty() && contents.unread.is_empty());
        for (path, reason) in &contents.unread {
            if let Some(id) = id(path) {
                set.unread.push(Unread { what: id.to_string(), reason: reason.clone() });
            }
        }
        for found in contents.tensors {
            if let Some(id) = id(&found.path) {
                let mut tensor = found.tensor(id, file);
                tensor.tags = tags.clone();
                set.tensors.push(tensor);
            }
        }
    }
    if plain > 0 {
        set.notes.push(format!("{plain} files hold plain values and no tensor"));
    }
    Ok(set)
}

/// The rank of each folder with dumped files: one run has one folder, or in the first generation one for each rank,
/// called `sglang_dump_{time}_{rank}`.
fn ranks_of_folders(path: &Path, files: &[PathBuf]) -> Result<HashMap<PathBuf, Option<u32>>, DumpError> {
    let mut folders: Vec<PathBuf> = files.iter().filter_map(|f| Some(f.parent()?.to_owned())).collect();
    folders.sort();
    folders.dedup();
    let rank = |folder: &PathBuf| {
        let name = folder.file_name()?.to_string_lossy().into_owned();
        let (time, rank) = name.strip_prefix("sglang_dump_")?.split_once('_')?;
        time.parse::<f64>().ok()?;
        number(rank, "")
    };
    let ranks: HashMap<PathBuf, Option<u32>> = folders.iter().map(|f| (f.clone(), rank(f))).collect();
    let mut seen: HashMap<Option<u32>, &PathBuf> = HashMap::new();
    for folder in &folders {
        if let Some(other) = seen.insert(ranks[folder], folder) {
            return Err(DumpError::Ambiguous {
                path: path.to_owned(),
                reason: format!(
                    "two runs: both {} and {} hold dumped files; name one of the folders",
                    other.display(),
                    folder.display()
                ),
            });
        }
    }
    Ok(ranks)
}

/// The dumper's own hooks write `non_intrusive__{module}.inputs.{argument}` and `.output[.{index}]`; parameters and
/// gradients have prefixes, too.
fn dumped_id(name: &str) -> TensorId {
    if let Some(rest) = name.strip_prefix("grad__") {
        return TensorId { kind: Kind::Gradient, ..TensorId::value(rest) };
    }
    if let Some(rest) = name.strip_prefix("param__") {
        return TensorId { kind: Kind::Parameter, ..TensorId::value(rest) };
    }
    let Some(rest) = name.strip_prefix("non_intrusive__") else { return TensorId::value(name) };
    let parts: Vec<&str> = rest.split('.').collect();
    match parts.iter().rposition(|part| matches!(*part, "inputs" | "output")) {
        Some(at) => {
            let kind = if parts[at] == "inputs" { Kind::Input } else { Kind::Output };
            TensorId::of_module(parts[..at].join("."), kind, parts[at + 1..].join("."))
        }
        None => TensorId::value(rest),
    }
}

pub(super) fn is_pass(path: &Path) -> bool {
    pass_number(path).is_some()
}

fn pass_number(path: &Path) -> Option<u64> {
    number(file_name(path).strip_suffix(".pt")?, "Pass")
}

/// `TP0_PP0_Rank0_pid4711`.
fn process(folder: &Path) -> Option<(Rank, u64)> {
    let name = file_name(folder);
    let [tp, pp, rank, pid] = name.split('_').collect::<Vec<_>>().try_into().ok()?;
    let rank = Rank { global: number(rank, "Rank"), tp: number(tp, "TP"), pp: number(pp, "PP") };
    Some((rank, number(pid, "pid")?))
}

pub(super) fn read_hook(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::SglangHook);
    let wanted: Vec<PathBuf> = files(path)?.into_iter().filter(|f| is_pass(f)).collect();
    let mut folders: HashMap<Rank, PathBuf> = HashMap::new();
    for (file, contents) in wanted.iter().zip(read_all(&wanted)?) {
        let folder = file.parent().unwrap_or(path);
        let rank = process(folder).map_or(Rank::default(), |(rank, _)| rank);
        let other = folders.entry(rank).or_insert_with(|| folder.to_owned());
        if *other != folder {
            return Err(DumpError::Ambiguous {
                path: path.to_owned(),
                reason: format!(
                    "two runs: {} and {} are of the same rank; name one of the folders",
                    other.display(),
                    folder.display()
                ),
            });
        }
        let step = pass_number(file).unwrap_or(0);
        passed(&mut set, file, step, rank, contents);
    }
    Ok(set)
}

/// Adds a pass. The hook writes a pass when the module `model` returns, before it notes what that returned, so that the
/// output of `model` and of everything after it stands at the head of the next pass's file.
fn passed(set: &mut DumpSet, file: &Path, pass: u64, rank: Rank, contents: Contents) {
    let of_model = |found: &Found| found.path.first().is_some_and(|key| key.starts_with("model."));
    let first = contents.tensors.iter().position(of_model).unwrap_or(0);
    let id = |path: &[String], step: u64| {
        let (module, slot) = path.split_first().map_or(("", &path[..0]), |(module, slot)| (&**module, slot));
        let id = match module.split_once(".forward_batch_info.") {
            Some((module, field)) => TensorId::of_module(module, Kind::Input, field),
            None => TensorId::of_module(module, Kind::Output, slot.join(".")),
        };
        TensorId { step: Some(step), rank, ..id }
    };
    for (path, reason) in &contents.unread {
        set.unread.push(Unread { what: id(path, pass).to_string(), reason: reason.clone() });
    }
    for (i, found) in contents.tensors.into_iter().enumerate() {
        let late = i < first;
        if late && pass == 0 {
            let what = id(&found.path, pass).to_string();
            let reason = format!("{} precedes the first pass in its file", last(&what));
            set.unread.push(Unread { what, reason });
            continue;
        }
        let id = id(&found.path, pass - u64::from(late));
        set.tensors.push(found.tensor(id, file));
    }
}
