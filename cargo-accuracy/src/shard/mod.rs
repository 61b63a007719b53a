//! `cargo accuracy shard`: carves a small shard for tests out of a real checkpoint.
//!
//! [`scheme`] knows what a weight becomes, [`tensors`] what that is called and how it is packed, [`provenance`] what it
//! came from, [`bias`] what comes along with it; [`convert`] makes one of the other. Here the tensors are chosen, written and read back.

mod bias;
mod convert;
mod provenance;
mod scheme;
mod tensors;

use crate::exit::{ExitCode, usage};
use accuracy_core::weights::{Carve, Checkpoint, NewTensor, Role, WeightsError, role, write};
use anyhow::Context as _;
use convert::{Converted, Plan};
pub use provenance::is_of_a_shard;
use scheme::Scheme;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  cargo accuracy shard --from checkpoint --tensors 'model.layers.0.mlp.*' \\
      --out shards/mlp
  cargo accuracy shard --from model.safetensors --to fp8-block \\
      --out shards/fp8 --tensors 'encoder.layer.0.{part}.dense' \\
      --tensors encoder.layer.0.output.LayerNorm
  cargo accuracy shard --from org/name --out shards/experts \\
      --tensors 'model.layers.3.mlp.experts.{proj}' --experts 0..4 --rows 0..512
  cargo accuracy shard --from q4.gguf --tensors 'blk.0.*' --to bf16 --out shards

Exit status: 0 everything is written; 100 some weights could not be taken, and standard error names them; 101 nothing is \
written; 2 wrong usage.";

/// Parameters of the model by which parts of fused weights and the weight of `lm_head` are found.
const MODEL_KEYS: [&str; 6] = [
    "model_type",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
];
/// What says how weights are stored beside `quantization_config`.
const STORED_KEYS: [&str; 1] = ["expert_dtype"];

/// Flags of `cargo accuracy shard`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShardArgs {
    /// Checkpoint: a safetensors or GGUF file, an index, a folder that holds either, or org/name or org/name@revision of the
    /// Hugging Face cache
    #[arg(long, value_name = "CHECKPOINT")]
    pub from: String,
    /// Modules (taken with their biases) or tensors to take, such as `model.layers.{layer}.mlp.*` (repeatable). `{name}`
    /// and `*` stand for one or more characters other than `.`, `**` for any characters
    #[arg(long, value_name = "GLOB", required = true)]
    pub tensors: Vec<String>,
    /// Format of the weight matrices in the shard [default: as they are stored]; vectors, such as the weights of norms, are
    /// copied unchanged
    #[arg(long, value_name = "SCHEME", value_enum)]
    pub to: Option<Scheme>,
    /// Rows (output features) to take of every weight matrix and its bias; the range must not cut a scale's block
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub rows: Option<Range<usize>>,
    /// Columns (input features) to take of every weight matrix
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub columns: Option<Range<usize>>,
    /// Experts to take of tensors that hold several experts
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub experts: Option<Range<usize>>,
    /// Number of columns that share a scale in the int4 schemes [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(8..))]
    pub group_size: Option<u16>,
    /// Folder to write to; it must not hold a checkpoint already
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start a new file before one becomes larger than this many MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_file_size: u64,
}

/// `0..512`
fn range(text: &str) -> Result<Range<usize>, String> {
    let (begin, end) = text.split_once("..").ok_or("expected a range such as 0..512")?;
    let number = |text: &str| text.parse::<usize>().map_err(|e| format!("{text:?}: {e}"));
    let range = number(begin)?..number(end)?;
    if range.is_empty() { Err(format!("{text} is empty")) } else { Ok(range) }
}

pub fn command(args: ShardArgs) -> anyhow::Result<ExitCode> {
    if args.group_size.is_some() && !args.to.is_some_and(Scheme::has_group_size) {
        return Err(usage("--group-size is for --to int4-awq, int4-gptq and int4-pack".to_string()));
    }
    let checkpoint = Checkpoint::open_named(&args.from).map_err(|e| match e {
        WeightsError::NotARepository { .. } => usage(e.to_string()),
        e => e.into(),
    })?;
    require_empty(&args.out)?;
    let names = select(&checkpoint, &args.tensors)?;

    let part =
        Carve { experts: args.experts.clone(), rows: args.rows.clone(), columns: args.columns.clone() };
    let plan = Plan { to: args.to, group: args.group_size.unwrap_or(128).into(), part };
    let mut tensors: Vec<NewTensor> = Vec::new();
    let mut sources = BTreeSet::new();
    let mut converted = Vec::new();
    let mut refused: Vec<anyhow::Error> = Vec::new();
    for name in &names {
        let mut one = match convert::convert(&checkpoint, name, &plan) {
            Ok(one) => one,
            Err(error) if names.len() > 1 && is_of_one_weight(&error) => {
                refused.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        sources.extend(one.sources.iter().cloned());
        tensors.append(&mut one.tensors);
        converted.push(one);
    }
    if converted.is_empty() {
        return Err(refused.swap_remove(0));
    }
    if args.experts.is_some() && converted.iter().all(|one| one.experts.is_none()) {
        return Err(usage("--experts: none of the tensors is shared by several experts".to_string()));
    }
    let quantization = match args.to {
        Some(scheme) => scheme.quantization_config(plan.group),
        None => checkpoint.quantization_config().cloned(),
    };
    let stored: &[&str] = if args.to.is_none() { &STORED_KEYS } else { &[] };
    let config = config(&checkpoint, &[&MODEL_KEYS[..], stored].concat(), quantization);
    let mut metadata = provenance::metadata(checkpoint.path(), &sources)?;
    if args.to.is_none() {
        metadata.extend(checkpoint.descriptions(&names));
    }
    let files = write_all(&args, &tensors, &metadata, &config)?;
    verify(&args.out, &tensors, &converted)?;

    for one in &converted {
        writeln!(crate::screen::stdout(), "{one}")?;
    }
    let (count, files) = (converted.len(), files.join(", "));
    writeln!(crate::screen::stdout(), "{count} tensors in {files} of {}", args.out.display())?;
    for error in &refused {
        crate::say!("not taken: {error:#}");
    }
    Ok(if refused.is_empty() { ExitCode::Correct } else { ExitCode::Failed })
}

/// Whether a weight cannot be taken for what it is itself, so that others can.
fn is_of_one_weight(error: &anyhow::Error) -> bool {
    use WeightsError::*;
    matches!(
        error.downcast_ref(),
        Some(
            WrongDtype { .. }
                | WrongShape { .. }
                | ScaleMissing { .. }
                | ScaleShape { .. }
                | ScaleIsBytes { .. }
                | ScaleNotPowerOfTwo { .. }
                | ZeroPointsMissing { .. }
                | NotSymmetric { .. }
                | Contradiction { .. }
                | Ambiguous { .. }
                | TwoWeights { .. }
                | TensorMissing { .. }
                | BadValue { .. }
                | BadScale { .. }
                | BadState { .. }
                | Unread { .. }
                | OnlineTransform { .. }
        )
    )
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
            return Err(usage(no_match(checkpoint, pattern)));
        }
        for found in matches {
            // A pattern may match a module and its weight tensor. To the module its bias belongs, too.
            let (module, biases) = match role(&found.name) {
                Role::Weight { module } => (module.to_string(), Vec::new()),
                _ => (found.name.clone(), bias::of(checkpoint, &found.name)),
            };
            for name in [module].into_iter().chain(biases) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    Ok(names)
}

fn no_match(checkpoint: &Checkpoint, pattern: &str) -> String {
    let modules = checkpoint.modules();
    let hint = match role(pattern) {
        Role::Companion { module } if checkpoint.raw(pattern).is_ok() => {
            format!("; a scale comes with its weight: name {module:?}")
        }
        _ if pattern.contains('*') && !pattern.contains("**") => {
            "; `*` stops at a dot, `**` does not".to_string()
        }
        _ => String::new(),
    };
    format!(
        "--tensors {pattern:?} matches nothing in {}{hint}; there are {} modules with a weight, such as {}",
        checkpoint.path().display(),
        modules.len(),
        modules[..modules.len().min(5)].join(", ")
    )
}

/// `config.json`: how the tensors are quantised, and what parts of them are called.
fn config(checkpoint: &Checkpoint, keys: &[&str], quantization: Option<Value>) -> Value {
    let source = checkpoint.config();
    let mut config = serde_json::Map::new();
    for key in keys {
        let value = source.get(key).or_else(|| source.get("text_config")?.get(key));
        config.extend(value.map(|value| ((*key).to_string(), value.clone())));
    }
    config.extend(quantization.map(|value| ("quantization_config".to_string(), value)));
    config.into()
}

/// Writes the files, the index where there are several, and `config.json`; returns the names of the files.
fn write_all(
    args: &ShardArgs,
    tensors: &[NewTensor],
    metadata: &BTreeMap<String, String>,
    config: &Value,
) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let limit = usize::try_from(args.max_file_size << 20).unwrap_or(usize::MAX);
    let mut files: Vec<&[NewTensor]> = Vec::new();
    let (mut begin, mut size) = (0, 0);
    for (i, tensor) in tensors.iter().enumerate() {
        let length = tensor.bytes.len();
        if i > begin && size + length > limit {
            files.push(&tensors[begin..i]);
            (begin, size) = (i, 0);
        }
        size += length;
    }
    files.push(&tensors[begin..]);
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
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&args.out.join("model.safetensors.index.json"), &index)?;
    }
    write_json(&args.out.join("config.json"), config)?;
    Ok((0..count).map(name).collect())
}

fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads everything back the way a test will, and compares it with what was meant to be written.
fn verify(out: &Path, tensors: &[NewTensor], converted: &[Converted]) -> anyhow::Result<()> {
    let written = Checkpoint::open(out)?;
    let same = |name: &str, same: bool| {
        anyhow::ensure!(
            same,
            "{name} reads back differently from what was written to {}: this is a bug of cargo accuracy",
            out.display()
        );
        Ok(())
    };
    for tensor in tensors {
        let raw = written.raw(&tensor.name)?;
        same(
            &tensor.name,
            (raw.dtype, raw.shape, raw.bytes) == (tensor.dtype, &tensor.shape, &tensor.bytes),
        )?;
    }
    for matrix in converted.iter().flat_map(|one| &one.matrices) {
        same(&matrix.address, matrix.are(&written.linear(&matrix.address)?.values()))?;
    }
    Ok(())
}
