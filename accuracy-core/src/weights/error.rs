//! Every way a checkpoint can be broken or contradict itself.

use std::path::PathBuf;
use std::sync::Arc;

use super::StDtype;
use super::online::Online;
use crate::dtype::{DType, FnuzError};

/// Why a checkpoint or a weight in it could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("{path}: no such file or folder")]
    NotFound { path: PathBuf },

    #[error(
        "{path}: a link to {target}, which is not there (a download that was cut off?); fetch the file again"
    )]
    Dangling { path: PathBuf, target: PathBuf },

    #[error("{path}: {source}")]
    Io { path: PathBuf, source: Arc<std::io::Error> },

    #[error(
        "{path}: neither model.safetensors.index.json nor a .safetensors or .gguf file in this folder{}",
        other_formats(.others)
    )]
    NoWeights {
        path: PathBuf,
        /// Files of it that hold weights in a format that is not read.
        others: Vec<String>,
    },

    #[error("{path}: a Git LFS pointer, not the file itself; fetch that with `git lfs pull`")]
    LfsPointer { path: PathBuf },

    #[error("{path}: an HTML page, not the file itself; fetch that again")]
    HtmlPage { path: PathBuf },

    #[error(
        "{path}: a repository's folder in the Hugging Face cache; give a folder in its snapshots/, or the \
         repository's name"
    )]
    CacheFolder { path: PathBuf },

    #[error(
        "{path}: truncated: {expected} bytes expected from its header, {found} found; fetch the file again"
    )]
    Truncated { path: PathBuf, expected: u64, found: u64 },

    #[error(
        "{path}: claims a header of {length} bytes (limit 100000000) in a file of {file} bytes; \
         not a safetensors file, or a damaged one"
    )]
    HeaderTooLong { path: PathBuf, length: u64, file: u64 },

    #[error("{path}: its header is not JSON ({reason}); not a safetensors file, or a damaged one")]
    HeaderNotJson { path: PathBuf, reason: String },

    #[error("{path}: bad safetensors header: {reason}")]
    BadHeader { path: PathBuf, reason: String },

    #[error("{path}: bytes that no tensor covers: {expected} bytes expected from its header, {found} found")]
    TrailingBytes { path: PathBuf, expected: u64, found: u64 },

    #[error("{path}: bad GGUF file: {reason}")]
    BadGguf { path: PathBuf, reason: String },

    #[error("{path}: bad index: {reason}")]
    BadIndex { path: PathBuf, reason: String },

    #[error("{path}: bad configuration: {reason}")]
    ConfigUnreadable { path: PathBuf, reason: String },

    #[error("{path}: bad configuration: {reason}")]
    BadConfig { path: PathBuf, reason: String },

    #[error("{index}: names shard {shard}, which is not in its folder; fetch it")]
    ShardMissing { index: PathBuf, shard: String },

    #[error("{folder}: {} of {of} numbered files {} not there: {}; fetch {}", .missing.len(), if .missing.len() == 1 { "is" } else { "are" }, first_names(.missing), if .missing.len() == 1 { "it" } else { "them" })]
    NumberedFilesMissing { folder: PathBuf, of: usize, missing: Vec<String> },

    #[error("{index}: puts tensor `{tensor}` into {shard}, whose header does not list it")]
    NotInShard { index: PathBuf, tensor: String, shard: String },

    #[error("{path}: no tensor `{name}`{}", nearest_names(.nearest))]
    TensorMissing { path: PathBuf, name: String, nearest: Vec<String> },

    #[error("tensor `{name}` is {found}, expected {expected}")]
    WrongDtype { name: String, expected: String, found: StDtype },

    #[error("tensor `{name}` has shape {found:?}, expected {expected}")]
    WrongShape { name: String, expected: String, found: Vec<usize> },

    #[error("`{weight}` is {found} but has no scale; looked for {}", .looked_for.join(", "))]
    ScaleMissing { weight: String, found: StDtype, looked_for: Vec<String> },

    #[error("`{weight}` has no zero points, which its scheme has; looked for {looked_for}")]
    ZeroPointsMissing { weight: String, looked_for: String },

    #[error(
        "`{weight}`: quantization_config says {config}, so all zero points are {middle}, but by `{tensor}` that at \
         {cell:?} is {zero}{}", written_as(.swapped)
    )]
    NotSymmetric {
        weight: String,
        config: &'static str,
        tensor: String,
        /// Row and column of the scales' grid.
        cell: [usize; 2],
        zero: f64,
        middle: f64,
        /// The `checkpoint_format` by which all would be right, or nothing.
        swapped: &'static str,
    },

    #[error("scale `{scale}` of `{weight}` {weight_shape:?} has shape {found:?}, expected {expected}")]
    ScaleShape {
        scale: String,
        weight: String,
        weight_shape: Vec<usize>,
        found: Vec<usize>,
        expected: String,
    },

    #[error(
        "scale `{scale}` is stored as U8 and nothing says that these bytes are e8m0 exponents; \
         where they are, set \"scale_fmt\": \"ue8m0\" in quantization_config"
    )]
    ScaleIsBytes { scale: String },

    #[error(
        "quantization_config says scale_fmt ue8m0, but `{scale}` holds {value:e} at index {index}, \
         which is no power of two"
    )]
    ScaleNotPowerOfTwo { scale: String, index: usize, value: f64 },

    #[error("`{weight}`: quantization_config says {config}, the tensors say {tensors}")]
    Contradiction { weight: String, config: String, tensors: String },

    #[error("`{weight}`: {reason}")]
    Ambiguous { weight: String, reason: String },

    #[error("`{weight}`: more than one stored weight: {}", .candidates.join(", "))]
    TwoWeights { weight: String, candidates: Vec<String> },

    #[error("`{weight}` seems to be {seems}, which is not read: {reason}")]
    Unread {
        weight: String,
        /// The scheme that its tensors seem to be of.
        seems: String,
        reason: String,
    },

    #[error("`{weight}`: y = x·W does not hold for what is stored: {}", online_of(.online))]
    OnlineTransform { weight: String, online: Vec<Online> },

    #[error("tensor `{tensor}` holds {value} at index {index}, expected {expected}")]
    BadValue { tensor: String, index: usize, value: i64, expected: String },

    #[error("tensor `{tensor}`: {reason}")]
    BadState { tensor: String, reason: String },

    #[error("scale `{scale}` is {value:e}, expected a positive finite number")]
    BadScale { scale: String, value: f64 },

    #[error("`{address}`: {reason}")]
    BadPart { address: String, reason: String },

    #[error("`{weight}`: {source}")]
    Fnuz { weight: String, source: FnuzError },

    #[error(
        "`{weight}` has {count} NaN or infinite {dtype} codes, the first at {first}; \
         fnuz has finite values in their place"
    )]
    NonFiniteCodes { weight: String, dtype: DType, count: usize, first: usize },

    #[error("`{weight}`: scale {scale:e} cannot be doubled in {scale_dtype}")]
    ScaleOverflow { weight: String, scale: f64, scale_dtype: DType },

    #[error("`{spec}`: neither a path nor the name of a repository (`org/name` or `org/name@revision`)")]
    NotARepository { spec: String },

    #[error(
        "{repository}@{revision} is not in the Hugging Face cache {cache}, and nothing is downloaded here; \
         fetch it with `hf download {repository} --revision {revision}`, or set HF_HUB_CACHE"
    )]
    NotCached { repository: String, revision: String, cache: PathBuf },

    #[error("pattern `{pattern}`: {reason}")]
    BadPattern { pattern: String, reason: String },
}

impl WeightsError {
    /// Whether tensors do not have the form that a scheme has: of another scheme they may be right.
    pub(super) fn is_of_form(&self) -> bool {
        use WeightsError::*;
        matches!(self, WrongDtype { .. } | WrongShape { .. } | ScaleMissing { .. } | ScaleShape { .. })
    }

    /// The variant's name for machine output: `scale_missing`.
    pub fn kind(&self) -> &'static str {
        use WeightsError::*;
        match self {
            NotFound { .. } => "not_found",
            Dangling { .. } => "dangling_link",
            Io { .. } => "io",
            NoWeights { .. } => "no_weights",
            CacheFolder { .. } => "cache_folder",
            LfsPointer { .. } => "lfs_pointer",
            HtmlPage { .. } => "html_page",
            Truncated { .. } => "truncated",
            HeaderTooLong { .. } => "header_too_long",
            HeaderNotJson { .. } => "header_not_json",
            BadHeader { .. } => "bad_header",
            TrailingBytes { .. } => "trailing_bytes",
            BadGguf { .. } => "bad_gguf",
            BadIndex { .. } => "bad_index",
            ConfigUnreadable { .. } => "config_unreadable",
            BadConfig { .. } => "bad_config",
            ShardMissing { .. } | NumberedFilesMissing { .. } => "shard_missing",
            NotInShard { .. } => "not_in_shard",
            TensorMissing { .. } => "tensor_missing",
            WrongDtype { .. } => "wrong_dtype",
            WrongShape { .. } => "wrong_shape",
            ScaleMissing { .. } => "scale_missing",
            ZeroPointsMissing { .. } => "zero_points_missing",
            NotSymmetric { .. } => "not_symmetric",
            ScaleShape { .. } => "scale_shape",
            ScaleIsBytes { .. } => "scale_is_bytes",
            ScaleNotPowerOfTwo { .. } => "scale_not_power_of_two",
            Contradiction { .. } => "contradiction",
            Ambiguous { .. } => "ambiguous",
            TwoWeights { .. } => "two_weights",
            Unread { .. } => "unread_scheme",
            OnlineTransform { .. } => "online_transform",
            BadValue { .. } => "bad_value",
            BadState { .. } => "bad_state",
            BadScale { .. } => "bad_scale",
            BadPart { .. } => "bad_part",
            Fnuz { .. } => "fnuz",
            NonFiniteCodes { .. } => "non_finite_codes",
            ScaleOverflow { .. } => "scale_overflow",
            NotARepository { .. } => "not_a_repository",
            NotCached { .. } => "not_cached",
            BadPattern { .. } => "bad_pattern",
        }
    }
}

fn other_formats(others: &[String]) -> String {
    match others {
        [] => String::new(),
        [one] => format!("; {one} is of a format that is not read: convert it to safetensors"),
        [first, rest @ ..] => {
            format!(
                "; {first} and {} more are of formats that are not read: convert them to safetensors",
                rest.len()
            )
        }
    }
}

/// The first three names, and how many there are besides.
fn first_names(names: &[String]) -> String {
    let (first, rest) = names.split_at(names.len().min(3));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}

fn online_of(online: &[Online]) -> String {
    online.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn written_as(format: &str) -> String {
    match format {
        "" => String::new(),
        _ => format!("; with checkpoint_format {format} all would be right"),
    }
}

fn nearest_names(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; nearest: {}", nearest.join(", ")) }
}
