//! Where a shard's tensors came from: files with their SHA-256, and the command that makes the shard again.

use anyhow::Context as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The key of the tool that wrote a file, and how its value begins.
const TOOL: &str = "tool";
const NAME: &str = "cargo-accuracy ";

/// Whether a file with this metadata in its header is a shard that this tool wrote.
pub fn is_of_a_shard(metadata: &HashMap<String, String>) -> bool {
    metadata.get(TOOL).is_some_and(|tool| tool.starts_with(NAME))
}

/// What goes into the header of each file. `tensors` are the names of those that were read.
pub fn metadata(from: &Path, tensors: &BTreeSet<String>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::new();
    // Some loaders refuse a file that does not say whose tensors these are.
    metadata.insert("format".to_string(), "pt".to_string());
    metadata.insert("command".to_string(), command_line());
    metadata.insert(TOOL.to_string(), format!("{NAME}{}", env!("CARGO_PKG_VERSION")));
    for file in files(from, tensors)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        metadata.insert(format!("source {name} sha256"), sha256(&file)?);
    }
    Ok(metadata)
}

/// The command as it was given, quoted for a shell.
fn command_line() -> String {
    let arguments = crate::invocation::arguments(std::env::args_os()).into_iter().skip(1);
    let mut line = String::from("cargo accuracy");
    for argument in arguments {
        let _ = write!(line, " {}", crate::invocation::quote(&argument.to_string_lossy()));
    }
    line
}

/// The files of the checkpoint that hold these tensors.
fn files(from: &Path, tensors: &BTreeSet<String>) -> anyhow::Result<BTreeSet<PathBuf>> {
    let index = match from.extension() {
        Some(extension) if extension == "json" => from.to_owned(),
        _ if from.is_dir() => from.join("model.safetensors.index.json"),
        _ => return Ok([from.to_owned()].into()),
    };
    let folder = index.parent().unwrap_or(Path::new(""));
    if !index.exists() {
        let mut all = BTreeSet::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "safetensors") {
                all.insert(path);
            }
        }
        return Ok(all);
    }
    let json = read_json(&index)?;
    let of = |name: &String| Some(folder.join(json["weight_map"].get(name)?.as_str()?));
    Ok(tensors.iter().filter_map(of).collect())
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = accuracy_core::files::read(path, accuracy_core::files::LIST)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not valid JSON", path.display()))
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let read = || format!("cannot read {}", path.display());
    let mut hasher = Sha256::new();
    let mut file = accuracy_core::files::open(path).with_context(read)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(read)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
