//! Checkpoints: safetensors and GGUF files, their index, and the schemes that quantised weights are stored in.
//!
//! What lives here: reading a stored weight into codes, scales and zero points in one logical form, and writing
//! small files. Quantising is in [`crate::quant`], number formats in [`crate::dtype`].
//!
//! A [`Checkpoint`] maps its files: opening one reads headers only, and a shard only when a tensor of it is asked
//! for.

mod carve;
mod claim;
mod config;
mod dialect;
mod error;
mod gguf;
mod hub;
mod json;
mod made;
mod names;
mod online;
mod packed;
mod part;
mod pattern;
mod resolve;
mod roles;
pub(crate) mod shard;
mod stored;
mod torchao;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
pub use safetensors::Dtype as StDtype;
use serde::Deserialize;

pub use carve::Carve;
pub use claim::UnknownWord;
pub use error::WeightsError;
pub use gguf::{Block, Element};
pub use hub::{cached_snapshot, hub_cache};
pub use json::from_slice as from_json;
pub use online::{Online, Place};
pub use pattern::{Match, natural_cmp};
pub use roles::{Role, role};
pub use stored::{GlobalScale, Scheme, StoredWeight, WeightInfo};
pub use write::{NewTensor, write};

use config::Config;
use shard::{Shard, io_error};

/// Names that the index in a checkpoint's folder may have: Hugging Face's and Mistral's.
const INDICES: [&str; 2] = ["model.safetensors.index.json", "consolidated.safetensors.index.json"];

/// What the files of Mistral's own form are called, which may lie beside the same weights under other names.
const CONSOLIDATED: &str = "consolidated";

/// A checkpoint: one safetensors file, or a folder of them with their index and `config.json`.
#[derive(Clone, Debug)]
pub struct Checkpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// The index file, where the checkpoint has one.
    index: Option<PathBuf>,
    shards: Vec<Lazy>,
    /// Files of weights in the folder that are none of these.
    left_out: Vec<PathBuf>,
    /// All tensors, in byte order.
    names: Vec<Arc<str>>,
    /// Which shard holds a tensor.
    tensors: HashMap<Arc<str>, usize>,
    config: Config,
    extras: OnceLock<Extras>,
}

/// What tensors that are no weights say of modules, by the modules' names.
#[derive(Debug, Default)]
struct Extras {
    /// Scales and zero points of inputs.
    inputs: HashMap<String, Vec<Arc<str>>>,
    /// What is done to inputs and outputs at run time.
    online: HashMap<String, Vec<Online>>,
    /// Tensors that hold what is done there.
    beside: HashMap<String, Vec<Arc<str>>>,
    /// The scheme of a weight that is of one which is not read.
    foreign: HashMap<String, &'static str>,
}

impl Inner {
    fn new(
        path: &Path,
        index: Option<&Path>,
        shards: Vec<Lazy>,
        tensors: BTreeMap<String, usize>,
        config: Config,
    ) -> Inner {
        let tensors: Vec<(Arc<str>, usize)> = tensors.into_iter().map(|(name, i)| (name.into(), i)).collect();
        Inner {
            path: path.to_owned(),
            index: index.map(Path::to_owned),
            left_out: left_out(path, &shards),
            shards,
            names: tensors.iter().map(|(name, _)| name.clone()).collect(),
            tensors: tensors.into_iter().collect(),
            config,
            extras: OnceLock::new(),
        }
    }
}

#[derive(Debug)]
struct Lazy {
    path: PathBuf,
    shard: OnceLock<Shard>,
}

impl Lazy {
    fn new(path: PathBuf) -> Lazy {
        Lazy { path, shard: OnceLock::new() }
    }

    fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn open(&self) -> Result<&Shard, WeightsError> {
        if let Some(shard) = self.shard.get() {
            return Ok(shard);
        }
        let shard = Shard::open(&self.path)?;
        Ok(self.shard.get_or_init(|| shard))
    }
}

/// A tensor as it is stored: row-major, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    pub name: &'a str,
    pub dtype: StDtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
    /// What it is made of, where that is no number of a dtype: a block format of a GGUF file, whose `shape` counts the
    /// bytes of a row.
    pub element: Element,
}

/// One file of a checkpoint, as its header describes it.
#[derive(Clone, Debug)]
pub struct FileInfo<'a> {
    pub path: &'a Path,
    /// Size of the file.
    pub bytes: u64,
    /// `__metadata__` of its header.
    pub metadata: Option<&'a HashMap<String, String>>,
    /// Tensors that it holds and that the index does not list, or puts elsewhere.
    pub unlisted: Vec<String>,
}

/// `model.safetensors.index.json`; the optional `metadata` is not used.
#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

/// Which shard holds which tensor; shards are named by paths inside the index's folder.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let bad = |reason: String| WeightsError::BadIndex { path: index.to_owned(), reason };
    let bytes = crate::files::read(index, crate::files::LIST).map_err(|e| io_error(index, e))?;
    let file: IndexFile = json::from_slice(&bytes)
        .map_err(|e| shard::in_place_of(index, &bytes).unwrap_or_else(|| bad(e.to_string())))?;
    for (tensor, shard) in &file.weight_map {
        let inside = Path::new(shard).components().all(|c| matches!(c, Component::Normal(_)));
        if shard.is_empty() || !inside {
            return Err(bad(format!(
                "tensor `{tensor}` is in `{shard}`, which is not a path inside the folder"
            )));
        }
    }
    if file.weight_map.is_empty() {
        return Err(bad("`weight_map` is empty".to_owned()));
    }
    Ok(file.weight_map)
}

/// Endings of files that hold weights in formats that are not read.
const OTHER_FORMATS: [&str; 9] = ["bin", "pt", "pth", "ckpt", "ggml", "h5", "msgpack", "npz", "onnx"];

/// The folder's safetensors files, or where there are none its GGUF files.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let files = files_of(folder, &["safetensors"])?;
    if files.is_empty() {
        return files_of(folder, &["gguf"]);
    }
    let of_mistral = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CONSOLIDATED))
    };
    // Mistral's repositories have all weights twice, under the names of either form.
    let (mistral, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(of_mistral);
    Ok(if others.is_empty() { mistral } else { others })
}

/// The files of weights in a folder that was opened and from which nothing is read.
fn left_out(path: &Path, shards: &[Lazy]) -> Vec<PathBuf> {
    let files = if path.is_dir() { files_of(path, &["safetensors"]).unwrap_or_default() } else { Vec::new() };
    let read: HashSet<&Path> = shards.iter().map(|shard| shard.path.as_path()).collect();
    files.into_iter().filter(|file| !read.contains(file.as_path())).collect()
}

/// What a file is called that is one of several: `model-00002-of-00007.safetensors`.
struct Numbered<'n> {
    before: &'n str,
    /// The digits of its number, which are as many in all of them.
    digits: usize,
    number: usize,
    of: usize,
    after: &'n str,
}

impl<'n> Numbered<'n> {
    fn parse(name: &'n str) -> Option<Numbered<'n>> {
        let (front, back) = name.rsplit_once("-of-")?;
        let (before, number) = front.rsplit_once('-')?;
        let digits = back.bytes().take_while(u8::is_ascii_digit).count();
        let (of, after) = back.split_at(digits);
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let numbers = all_digits(number) && all_digits(of);
        let [number, of] = [number, of].map(|text| (text.len(), text.parse::<usize>().ok()));
        (numbers && after.starts_with('.')).then_some(())?;
        Some(Numbered { before, digits: number.0, number: number.1?, of: of.1?, after })
    }
}

/// Most files that a checkpoint is split into; a larger number in a name is none.
const MOST_FILES: usize = 100_000;

/// The names of numbered files that the names of others say should be there, and how many there should be.
fn numbered_files_missing(files: &[Lazy]) -> Option<(usize, Vec<String>)> {
    let names: Vec<String> = files.iter().map(Lazy::file_name).collect();
    let mut sets: BTreeMap<(&str, usize, usize, &str), HashSet<usize>> = BTreeMap::new();
    for n in names.iter().filter_map(|name| Numbered::parse(name)).filter(|n| n.of <= MOST_FILES) {
        sets.entry((n.before, n.digits, n.of, n.after)).or_default().insert(n.number);
    }
    let mut all = 0;
    let mut missing = Vec::new();
    for ((before, digits, of, after), there) in sets {
        all += of;
        let absent = (1..=of).filter(|number| !there.contains(number));
        missing.extend(absent.map(|number| format!("{before}-{number:0digits$}-of-{of:0digits$}{after}")));
    }
    (!missing.is_empty()).then_some((all, missing))
}

/// The index of a folder, if it has one.
fn index_of(folder: &Path) -> Option<PathBuf> {
    INDICES.iter().map(|name| folder.join(name)).find(|index| index.exists() || index.is_symlink())
}

/// The folder's files with one of these endings, in order.
fn files_of(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, WeightsError> {
    let io = |e| io_error(folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

impl Checkpoint {
    /// Opens a safetensors or GGUF file, an index file, or a folder that holds either, and reads the configuration beside
    /// it. What is wrong with that is no error, see [`Checkpoint::configuration_problems`].
    ///
    /// The files stay mapped; they must not be truncated while the checkpoint is in use.
    ///
    /// # Errors
    /// What is missing or broken, with its path. Shards of an index are looked at when first used.
    pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
        let kind = std::fs::metadata(path).map_err(|e| io_error(path, e))?;
        if kind.is_dir() {
            return Checkpoint::open_folder(path);
        }
        // A GGUF file says itself what it holds; a configuration beside it is of other files.
        if path.extension().is_some_and(|e| e == "gguf") {
            return Checkpoint::from_files(path, vec![path.to_owned()], Config::default());
        }
        let config = Config::read(path.parent().unwrap_or(Path::new("")));
        if path.extension().is_some_and(|e| e == "json") {
            return Checkpoint::from_index(path, path, config);
        }
        Checkpoint::from_files(path, vec![path.to_owned()], config)
    }

    /// Opens a path, or else a repository `org/name` or `org/name@revision` of the Hugging Face cache. Nothing is
    /// downloaded.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and a repository that is not in the cache.
    pub fn open_named(spec: &str) -> Result<Checkpoint, WeightsError> {
        let path = Path::new(spec);
        if path.exists() {
            return Checkpoint::open(path);
        }
        let Some((repository, revision)) = hub::split(spec) else {
            return Err(if path.components().count() > 2 || spec.contains('.') {
                WeightsError::NotFound { path: path.to_owned() }
            } else {
                WeightsError::NotARepository { spec: spec.to_owned() }
            });
        };
        Checkpoint::open(&cached_snapshot(&hub_cache(), repository, revision)?)
    }

    /// The files that [`Checkpoint::open`] and every later use of the checkpoint may read, as far as they are there.
    ///
    /// No tensor is read, so damaged ones are listed too; of an index that cannot be read only the index itself.
    ///
    /// # Errors
    /// The path is not there, or a folder cannot be listed.
    pub fn paths(path: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        let kind = std::fs::metadata(path).map_err(|e| io_error(path, e))?;
        let folder = if kind.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let mut files: Vec<PathBuf> = config::FILES.iter().map(|name| folder.join(name)).collect();
        let index = match kind.is_dir() {
            true => index_of(folder).filter(|index| index.exists()),
            false => Some(path.to_owned()).filter(|file| file.extension().is_some_and(|e| e == "json")),
        };
        match index {
            Some(index) => {
                let shards = read_index(&index).unwrap_or_default();
                files.extend(shards.into_values().map(|shard| folder.join(shard)));
                files.push(index);
            }
            None if kind.is_dir() => files.extend(weight_files(folder)?),
            None => files.push(path.to_owned()),
        }
        files.retain(|file| file.is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    fn open_folder(folder: &Path) -> Result<Checkpoint, WeightsError> {
        let config = Config::read(folder);
        if let Some(index) = index_of(folder).filter(|index| index.exists()) {
            return Checkpoint::from_index(folder, &index, config);
        }
        let files = weight_files(folder)?;
        if files.is_empty() && folder.join("snapshots").is_dir() {
            return Err(WeightsError::CacheFolder { path: folder.to_owned() });
        }
        if files.is_empty() {
            let others = files_of(folder, &OTHER_FORMATS)?;
            let name = |file: PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let others = others.into_iter().map(name).collect();
            return Err(WeightsError::NoWeights { path: folder.to_owned(), others });
        }
        Checkpoint::from_files(folder, files, config)
    }

    fn from_files(path: &Path, files: Vec<PathBuf>, config: Config) -> Result<Checkpoint, WeightsError> {
        let shards: Vec<Lazy> = files.into_iter().map(Lazy::new).collect();
        let mut config = config;
        let mut tensors = BTreeMap::new();
        for (i, lazy) in shards.iter().enumerate() {
            if let Some(model) = lazy.open()?.model() {
                config = Config { model: model.clone(), ..Config::default() };
            }
            for name in lazy.open()?.names() {
                if let Some(first) = tensors.insert(name.clone(), i) {
                    let reason = format!("tensor `{name}` is also in {}", shards[first].path.display());
                    return Err(WeightsError::BadHeader { path: lazy.path.clone(), reason });
                }
            }
        }
        // A file on its own was named by somebody who knows that it is one of several.
        if path.is_dir()
            && let Some((of, missing)) = numbered_files_missing(&shards)
        {
            let folder = path.to_owned();
            config.problems.push(WeightsError::NumberedFilesMissing { folder, of, missing });
        }
        Ok(Checkpoint(Arc::new(Inner::new(path, None, shards, tensors, config))))
    }

    fn from_index(path: &Path, index: &Path, config: Config) -> Result<Checkpoint, WeightsError> {
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut by_name = BTreeMap::new();
        let mut shards = Vec::new();
        let mut tensors = BTreeMap::new();
        for (tensor, shard) in read_index(index)? {
            let i = *by_name.entry(shard).or_insert_with_key(|shard| {
                shards.push(Lazy::new(folder.join(shard)));
                shards.len() - 1
            });
            tensors.insert(tensor, i);
        }
        Ok(Checkpoint(Arc::new(Inner::new(path, Some(index), shards, tensors, config))))
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Files of weights in the folder from which nothing is read: the index does not name them, or they hold the same
    /// weights in another producer's form.
    pub fn files_left_out(&self) -> impl Iterator<Item = &Path> {
        self.0.left_out.iter().map(PathBuf::as_path)
    }

    /// All tensor names, in byte order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names.iter().map(|name| &**name)
    }

    fn has_weight(&self, module: &str) -> bool {
        !roles::weight_tensors(self, module).is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.0.tensors.contains_key(name)
    }

    /// One tensor as it is stored.
    ///
    /// # Errors
    /// No such tensor; its shard is missing or broken.
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, WeightsError> {
        let Some((name, &i)) = self.0.tensors.get_key_value(name) else {
            return Err(self.tensor_missing(name));
        };
        let lazy = &self.0.shards[i];
        let shard = self.shard(lazy)?;
        let Some(info) = shard.info(name) else {
            return Err(WeightsError::NotInShard {
                index: self.0.index.clone().unwrap_or_default(),
                tensor: name.to_string(),
                shard: lazy.file_name(),
            });
        };
        let element = shard.element(name);
        Ok(RawTensor { name, dtype: info.dtype, shape: &info.shape, bytes: shard.bytes(info), element })
    }

    fn extras(&self) -> &Extras {
        self.0.extras.get_or_init(|| {
            let mut extras = Extras::default();
            for name in &self.0.names {
                extras.foreign.extend(roles::foreign_by(self, name));
                if let Some(module) = roles::input_of(name) {
                    extras.inputs.entry(module.to_owned()).or_default().push(name.clone());
                } else if let Some((module, online)) = online::said_by(self, name) {
                    extras.online.entry(module.to_owned()).or_default().push(online);
                    extras.beside.entry(module.to_owned()).or_default().push(name.clone());
                } else if let Some(module) = online::second_of_two(name) {
                    extras.beside.entry(module.to_owned()).or_default().push(name.clone());
                }
            }
            extras
        })
    }

    /// The scale of a module's input.
    fn input_scale(&self, module: &str) -> Option<&str> {
        let inputs = self.extras().inputs.get(module)?;
        inputs.iter().map(|name| &**name).find(|name| roles::input_scale_of(name).is_some())
    }

    /// Names from this one on, in byte order.
    fn names_from<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> + use<'s> {
        let first = self.0.names.partition_point(|other| &**other < name);
        self.0.names[first..].iter().map(|name| &**name)
    }

    fn tensor_missing(&self, name: &str) -> WeightsError {
        // Names of layers differ in few places: the longest common beginning and end find the likely ones.
        let common = |other: &str| {
            let (a, b) = (name.as_bytes(), other.as_bytes());
            let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
            let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
            (start + end).min(a.len()).min(b.len())
        };
        let mut scored: Vec<(usize, &str)> = self.names().map(|n| (common(n), n)).collect();
        scored.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| pattern::natural_cmp(a.1, b.1)));
        let nearest = scored.iter().filter(|s| s.0 > 0).take(3).map(|s| s.1.to_owned()).collect();
        WeightsError::TensorMissing { path: self.0.path.clone(), name: name.to_owned(), nearest }
    }

    /// A stored weight matrix `[rows, cols]` = `[N, K]` with its scales.
    ///
    /// `module` is `model.layers.0.mlp.gate_proj` or the full name of the weight's tensor. Part of a fused tensor
    /// is addressed behind `#`: an expert (`experts.gate_up_proj#3`), `gate`, `up`, `q`, `k`, `v` or a range of rows
    /// (`#3.gate`, `qkv_proj#k`, `#0..512`). The scheme is what the tensors say; `quantization_config` must agree
    /// with them and decides what they leave open.
    ///
    /// # Errors
    /// What is missing, of the wrong dtype or shape, or contradictory, each its own variant.
    pub fn linear(&self, module: &str) -> Result<StoredWeight<'_>, WeightsError> {
        resolve::resolve(self, module)?.load()
    }

    /// What [`Checkpoint::linear`] would read, from headers alone. Of a part, `rows` are those of the whole tensor;
    /// of experts that share a tensor, the first stands for all unless the address names one.
    ///
    /// # Errors
    /// As [`Checkpoint::linear`], but for what only the values show.
    pub fn describe(&self, module: &str) -> Result<WeightInfo, WeightsError> {
        Ok(resolve::resolve_any(self, module)?.info)
    }

    /// Modules that have a weight, each once; layer 2 before layer 10. Among them are norms and embeddings.
    pub fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> =
            self.names().filter(|n| !self.is_transform(n)).filter_map(roles::module_of).collect();
        modules.sort_by(|a, b| pattern::natural_cmp(a, b));
        modules.dedup();
        modules
    }

    /// Scales, zero points and the like without a weight that they could belong to.
    pub fn orphans(&self) -> Vec<&str> {
        self.names().filter(|name| roles::is_orphan(self, name)).collect()
    }

    /// Whether a tensor is one of [`Checkpoint::orphans`].
    pub fn is_orphan(&self, tensor: &str) -> bool {
        roles::is_orphan(self, tensor)
    }

    /// Whether a tensor comes with a weight and is none itself: its scale, what describes how it is packed, a rotation or
    /// other transform of its layer.
    pub fn comes_with_a_weight(&self, tensor: &str) -> bool {
        roles::comes_with_a_weight(self, tensor)
    }

    /// Whether a tensor is a rotation or another transform of a layer's input or output.
    pub fn is_transform(&self, tensor: &str) -> bool {
        online::of_tensor(self, tensor).is_some()
    }

    /// The module whose weight is of a scheme that is not read, of which this tensor is the first.
    pub fn foreign_module<'t>(&self, tensor: &'t str) -> Option<&'t str> {
        roles::foreign_module(self, tensor)
    }

    /// What is wrong with the configuration: a file that cannot be read, a member of another kind than it should be.
    /// Weights are read as if it said nothing there.
    pub fn configuration_problems(&self) -> &[WeightsError] {
        &self.0.config.problems
    }

    /// Words of the configuration that are not known. What they are said of is read by its tensors alone.
    pub fn unknown_words(&self) -> &[UnknownWord] {
        &self.0.config.unknown
    }

    /// What the configuration says about quantisation, in its words; empty where it says nothing.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.config.claims.iter().map(|claim| claim.text.as_str())
    }

    /// `config.json` as it is, null where there is none.
    pub fn config(&self) -> &serde_json::Value {
        &self.0.config.model
    }

    /// The `quantization_config` of `config.json`, wherever in it, or what ModelOpt's `hf_quant_config.json` has in
    /// its place.
    pub fn quantization_config(&self) -> Option<&serde_json::Value> {
        self.0.config.quantization.as_ref()
    }

    /// Opens every file and checks its header; no tensor is read.
    ///
    /// Each item is a file, or why it cannot be used: an index names files that are not there, say.
    pub fn files(&self) -> Vec<Result<FileInfo<'_>, WeightsError>> {
        let shards = self.0.shards.par_iter().enumerate();
        let files = shards.map(|(i, lazy)| {
            let shard = self.shard(lazy)?;
            let listed = |name: &String| self.0.tensors.get(name.as_str()) == Some(&i);
            let unlisted = shard.names().into_iter().filter(|name| !listed(name)).collect();
            Ok(FileInfo { path: &lazy.path, bytes: shard.len(), metadata: shard.metadata(), unlisted })
        });
        files.collect()
    }

    fn shard<'s>(&self, lazy: &'s Lazy) -> Result<&'s Shard, WeightsError> {
        lazy.open().map_err(|e| match (e, &self.0.index) {
            (WeightsError::NotFound { .. }, Some(index)) => {
                WeightsError::ShardMissing { index: index.clone(), shard: lazy.file_name() }
            }
            (e, _) => e,
        })
    }

    /// A vector of floats, such as the weight of a norm: the tensor `name`, or `name.weight`. A single number, such
    /// as the scale of a KV cache, is a vector of one.
    ///
    /// # Errors
    /// No such tensor, of more than one dimension, or not of f32, f16 or bf16.
    pub fn vector(&self, name: &str) -> Result<Vec<f64>, WeightsError> {
        let weight = format!("{name}.weight");
        let tensor = self.raw(if !self.has(name) && self.has(&weight) { &weight } else { name })?;
        let Some(dtype) = stored::float_dtype(tensor.dtype) else {
            return Err(WeightsError::WrongDtype {
                name: tensor.name.to_owned(),
                expected: "F32, F16 or BF16".to_owned(),
                found: tensor.dtype,
            });
        };
        if tensor.shape.len() > 1 {
            return Err(WeightsError::WrongShape {
                name: tensor.name.to_owned(),
                expected: "one dimension".to_owned(),
                found: tensor.shape.to_vec(),
            });
        }
        Ok(dtype.decode_bytes(tensor.bytes))
    }

    /// Modules with a weight, and tensors other than weights' companions (scales, zero points) and the scales of
    /// their inputs, whose whole name matches; layer 2 before layer 10.
    ///
    /// In `encoder.layer.{layer}.attention.{proj}` a capture matches one or more characters other than `.`, the
    /// same text wherever it is repeated; `*` is a capture without a name, and `**` one that may match `.`, too.
    ///
    /// # Errors
    /// A pattern that does not parse. No match is an empty list.
    pub fn matches(&self, pattern: &str) -> Result<Vec<Match>, WeightsError> {
        let text = pattern;
        let pattern = pattern::Pattern::parse(pattern)?;
        let mut found = BTreeMap::new();
        for tensor in self.names() {
            // A rotation is handed out only where it is asked for by its full name.
            let asked_for = tensor == text && self.is_transform(tensor);
            if roles::comes_with_a_weight(self, tensor) && !asked_for {
                continue;
            }
            for name in [roles::module_of(tensor), Some(tensor)].into_iter().flatten() {
                if let Some(captures) = pattern.matches(name) {
                    found.insert(name, captures);
                }
            }
        }
        let mut matches: Vec<Match> =
            found.into_iter().map(|(name, captures)| Match { name: name.to_owned(), captures }).collect();
        matches.sort_by(|a, b| pattern::natural_cmp(&a.name, &b.name));
        Ok(matches)
    }
}
