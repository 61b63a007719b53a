//! `cargo accuracy shard`: carves a small shard for tests out of a real checkpoint.
//!
//! [`scheme`] knows what a weight becomes, [`provenance`] what it came from; here the tensors are chosen, written and
//! read back.

mod provenance;
mod scheme;

use crate::exit::{ExitCode, usage};
use accuracy_core::metrics::cosine;
use accuracy_core::weights::{Checkpoint, NewTensor, write};
use anyhow::Context as _;
use scheme::{Converted, Scheme};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  cargo accuracy shard --from checkpoint --tensors 'model.layers.0.mlp.*' --out shards/mlp
  cargo accuracy shard --from model.safetensors --tensors 'encoder.layer.0.{part}.dense' \\
      --tensors encoder.layer.0.output.LayerNorm --to fp8-block --out shards/fp8";

/// Flags of `cargo accuracy shard`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShardArgs {
    /// Checkpoint: a safetensors file, an index, or a folder that holds either
    #[arg(long, value_name = "CHECKPOINT")]
    pub from: PathBuf,
    /// Modules or tensors to take, such as `model.layers.{layer}.mlp.*`; a capture or `*` stands for one or more
    /// characters other than `.` (repeatable)
    #[arg(long, value_name = "GLOB", required = true)]
    pub tensors: Vec<String>,
    /// What weight matrices become [default: as they are stored]; vectors, such as the weights of norms, stay as they
    /// are
    #[arg(long, value_name = "SCHEME", value_enum)]
    pub to: Option<Scheme>,
    /// Folder to write; must not hold a checkpoint
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Begin another file when one would be larger than this many MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_file_size: u64,
}

pub fn command(args: ShardArgs) -> anyhow::Result<ExitCode> {
    let checkpoint = Checkpoint::open(&args.from)?;
    require_empty(&args.out)?;
    let names = select(&checkpoint, &args.tensors)?;

    let mut tensors: Vec<NewTensor> = Vec::new();
    let mut sources = BTreeSet::new();
    let mut converted = Vec::new();
    for name in &names {
        let one = scheme::convert(&checkpoint, name, args.to)?;
        sources.extend(one.sources.iter().cloned());
        tensors.extend(one.tensors.iter().cloned());
        converted.push(one);
    }
    let config = match args.to {
        Some(scheme) => scheme.quantization_config(),
        None => provenance::stored_config(&args.from)?,
    };
    let metadata = provenance::metadata(&args.from, &sources)?;
    let files = write_all(&args, tensors, &metadata, config.as_ref())?;
    verify(&args.out, &converted)?;

    for one in &converted {
        anstream::println!("{one}");
    }
    anstream::println!("{} tensors in {} of {}", converted.len(), files.join(", "), args.out.display());
    Ok(ExitCode::Correct)
}

/// Refuses to mix a new checkpoint with one that is there: stale files would be read as a part of it.
fn require_empty(out: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(out) else { return Ok(()) };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", out.display()))?.path();
        let extension = path.extension().unwrap_or_default();
        if extension == "safetensors" || extension == "json" {
            return Err(usage(format!(
                "--out {}: {} is there already; remove it or name another folder",
                out.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// Full names of the weights and vectors that the patterns match, each once.
fn select(checkpoint: &Checkpoint, patterns: &[String]) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for pattern in patterns {
        let matches = checkpoint.matches(pattern)?;
        if matches.is_empty() {
            let held: Vec<&str> = checkpoint.names().take(5).collect();
            return Err(usage(format!(
                "--tensors {pattern:?} matches nothing in {}, which holds {} tensors: {}, ...",
                checkpoint.path().display(),
                checkpoint.names().count(),
                held.join(", ")
            )));
        }
        for found in matches {
            // A pattern may match a module and its weight tensor: they are the same.
            let module = found.name.strip_suffix(".weight").unwrap_or(&found.name).to_string();
            if !names.contains(&module) {
                names.push(module);
            }
        }
    }
    Ok(names)
}

/// Writes the files, the index where there are several, and `config.json`; returns the names of the files.
fn write_all(
    args: &ShardArgs,
    tensors: Vec<NewTensor>,
    metadata: &BTreeMap<String, String>,
    config: Option<&serde_json::Value>,
) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let limit = usize::try_from(args.max_file_size << 20).unwrap_or(usize::MAX);
    let mut files: Vec<Vec<NewTensor>> = Vec::new();
    let mut size = 0;
    for tensor in tensors {
        let length = tensor.bytes.len();
        if files.is_empty() || size + length > limit {
            files.push(Vec::new());
            size = 0;
        }
        size += length;
        files.last_mut().expect("a file has just been begun").push(tensor);
    }
    let count = files.len();
    let name = |i: usize| match count {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let mut weight_map = BTreeMap::new();
    let mut total = 0;
    for (i, file) in files.iter().enumerate() {
        write(&args.out.join(name(i)), file, metadata)?;
        total += file.iter().map(|t| t.bytes.len()).sum::<usize>();
        weight_map.extend(file.iter().map(|t| (t.name.clone(), name(i))));
    }
    if count > 1 {
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&args.out.join("model.safetensors.index.json"), &index)?;
    }
    let config = match config {
        Some(config) => serde_json::json!({"quantization_config": config}),
        None => serde_json::json!({}),
    };
    write_json(&args.out.join("config.json"), &config)?;
    Ok((0..count).map(name).collect())
}

fn write_json(path: &Path, value: &serde_json::Value) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads everything back the way a test will, and compares it with what was meant to be written.
fn verify(out: &Path, converted: &[Converted]) -> anyhow::Result<()> {
    let written = Checkpoint::open(out)?;
    for one in converted {
        let values = match one.shape[..] {
            [_] => written.vector(&one.name)?,
            _ => written.linear(&one.name)?.values(),
        };
        anyhow::ensure!(
            values == one.values,
            "{} reads back differently from what was written to {}: this is a bug of cargo accuracy",
            one.name,
            out.display()
        );
    }
    Ok(())
}

impl std::fmt::Display for Converted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{} [{}] {}", self.name, shape.join(", "), self.became)?;
        match cosine(&self.original, &self.values) {
            Some(cos) if self.original != self.values => write!(f, ", cosine {cos:.7} to what it was"),
            _ => Ok(()),
        }
    }
}
