//! Dumps: tensors that a model's run left behind, from several producers, in one form.
//!
//! What lives here: reading files, finding out which tensor of which module, layer, step and rank each one is, and
//! decoding and comparing its values. Aligning two dumps and judging them is not done here.
//!
//! A [`DumpSet`] reads headers and pickles when it is opened; a tensor's file is mapped while the tensor is
//! [open](DumpTensor::open), and its values are decoded by rows. Code in a pickle is never run.

mod accuracy;
mod compare;
mod data;
mod element;
mod error;
mod file;
mod folder;
mod huggingface;
mod msprobe;
mod names;
mod npy;
mod pickle;
mod producer;
mod sglang;
mod torch;
mod zip;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use data::TensorData;
pub use element::{Element, Real};
pub use error::DumpError;

use crate::weights::natural_cmp;
use data::{Layout, Storage};

/// Who wrote a dump, which decides what its names mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// `accuracy_dump.py`, this project's own hook.
    Accuracy,
    /// `sglang.srt.debug_utils.dumper`, all of its file names.
    SglangDumper,
    /// SGLang's `--debug-tensor-dump-output-folder`.
    SglangHook,
    /// msprobe (MindStudio), module and API level.
    Msprobe,
    /// `transformers.model_debugging_utils` with `use_repr=False`.
    HuggingFace,
    /// Safetensors, npy, npz and `.pt` files of no known producer: a name is all that is known of a tensor.
    Files,
}

impl Producer {
    pub const ALL: [Producer; 6] = [
        Producer::Accuracy,
        Producer::SglangDumper,
        Producer::SglangHook,
        Producer::Msprobe,
        Producer::HuggingFace,
        Producer::Files,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Producer::Accuracy => "accuracy",
            Producer::SglangDumper => "sglang-dumper",
            Producer::SglangHook => "sglang-hook",
            Producer::Msprobe => "msprobe",
            Producer::HuggingFace => "huggingface",
            Producer::Files => "files",
        }
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Producer {
    type Err = String;

    fn from_str(name: &str) -> Result<Producer, String> {
        Producer::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Producer::ALL.iter().map(|p| p.name()).collect();
            format!("no producer of dumps is called `{name}`; known: {}", known.join(", "))
        })
    }
}

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Input,
    Output,
    Parameter,
    Gradient,
    /// A value that was dumped under a name of its own.
    Value,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::Output => "output",
            Kind::Parameter => "parameter",
            Kind::Gradient => "gradient",
            Kind::Value => "value",
        }
    }
}

/// Which process wrote a tensor; what a producer does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    pub global: Option<u32>,
    /// Rank in its tensor-parallel group.
    pub tp: Option<u32>,
    /// Rank in its pipeline.
    pub pp: Option<u32>,
}

/// How the parts that several ranks wrote make one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Every rank has the whole.
    Replicated,
    /// The parts are summands.
    Sum,
    /// The parts follow each other in this dimension.
    Concat(usize),
}

/// Which tensor of a run it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorId {
    /// The forward pass, as the producer counts them.
    pub step: Option<u64>,
    pub rank: Rank,
    /// From the module's path or from what the producer says; `None` where neither names one.
    pub layer: Option<usize>,
    /// Path of the module as in the model (`model.layers.0.mlp`), empty for the model itself; for [`Kind::Value`] the
    /// name that it was dumped under.
    pub module: String,
    pub kind: Kind,
    /// Which input or output: an index, a keyword, or a path of them; empty where there is only one.
    pub slot: String,
    /// How often the same had been written before in the same step.
    pub call: usize,
}

impl TensorId {
    fn value(name: impl Into<String>) -> TensorId {
        let module = name.into();
        TensorId {
            step: None,
            rank: Rank::default(),
            layer: names::layer(&module),
            module,
            kind: Kind::Value,
            slot: String::new(),
            call: 0,
        }
    }

    fn of_module(module: impl Into<String>, kind: Kind, slot: impl Into<String>) -> TensorId {
        TensorId { kind, slot: slot.into(), ..TensorId::value(module) }
    }
}

/// `model.layers.0.mlp output 1 (step 2, rank 0, call 3)`, without what is not there.
impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.module.is_empty() { "(model)" } else { &self.module })?;
        if self.kind != Kind::Value {
            write!(f, " {}", self.kind.name())?;
        }
        if !self.slot.is_empty() {
            write!(f, " {}", self.slot)?;
        }
        let mut notes = Vec::new();
        if let Some(layer) = self.layer.filter(|_| names::layer(&self.module).is_none()) {
            notes.push(format!("layer {layer}"));
        }
        notes.extend(self.step.map(|n| format!("step {n}")));
        notes.extend(self.rank.global.map(|n| format!("rank {n}")));
        if self.call > 0 {
            notes.push(format!("call {}", self.call));
        }
        if notes.is_empty() { Ok(()) } else { write!(f, " ({})", notes.join(", ")) }
    }
}

/// A tensor of a dump: what and where it is. Its values are read by [`DumpTensor::open`].
#[derive(Clone, Debug)]
pub struct DumpTensor {
    pub id: TensorId,
    pub merge: Option<Merge>,
    /// What else the producer says about it, such as `dims` and `recompute_status` of SGLang's dumper.
    pub tags: BTreeMap<String, String>,
    /// The file that it is in.
    pub path: PathBuf,
    layout: Layout,
    storage: Storage,
}

impl DumpTensor {
    pub fn element(&self) -> Element {
        self.layout.element
    }

    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Maps its file; a deflated one is extracted instead.
    ///
    /// # Errors
    /// The file is gone, has changed its length, or its deflate stream is damaged.
    pub fn open(&self) -> Result<TensorData, DumpError> {
        TensorData::open(&self.storage, &self.layout)
    }
}

/// Something that a dump names or holds and that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Its name, or its file's.
    pub what: String,
    pub reason: String,
}

/// All tensors of a dump, in the order in which they were written where the producer says so.
#[derive(Clone, Debug)]
pub struct DumpSet {
    pub path: PathBuf,
    pub producer: Producer,
    pub tensors: Vec<DumpTensor>,
    /// Tensors that are announced but missing, or of a type that is not read.
    pub unread: Vec<Unread>,
    /// What a reader of results should know about the dump.
    pub notes: Vec<String>,
    /// Steps that were being written when the run ended, and how that is known.
    pub cut: BTreeMap<u64, String>,
    /// Token ids that the producer recorded as such, by step and rank; one list a sequence.
    pub tokens: BTreeMap<(u64, Option<u32>), Vec<Vec<i64>>>,
}

impl DumpSet {
    /// Opens a file or a folder, whoever wrote it. Files must not be truncated by others while they are read: a mapped
    /// page that is gone ends the process with SIGBUS.
    ///
    /// # Errors
    /// A file that cannot be read, a folder that more than one producer or more than one run seems to have written,
    /// a name that its producer cannot have given, and a dump without any tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<DumpSet, DumpError> {
        let path = path.as_ref();
        let producer = producer::producer(path)?;
        DumpSet::open_as(path, producer)
    }

    /// Opens a file or a folder of a known producer.
    ///
    /// # Errors
    /// As [`DumpSet::open`].
    pub fn open_as(path: impl AsRef<Path>, producer: Producer) -> Result<DumpSet, DumpError> {
        let path = path.as_ref();
        let mut set = match producer {
            Producer::Accuracy => accuracy::read(path),
            Producer::SglangDumper => sglang::read_dumper(path),
            Producer::SglangHook => sglang::read_hook(path),
            Producer::Msprobe => msprobe::read(path),
            Producer::HuggingFace => huggingface::read(path),
            Producer::Files => folder::read(path),
        }?;
        if set.tensors.is_empty() {
            let found = match &set.unread[..] {
                [] => "nor does anything in it name one".to_owned(),
                [first, rest @ ..] => {
                    format!("{} unreadable: {}: {}", 1 + rest.len(), first.what, first.reason)
                }
            };
            return Err(DumpError::NoTensor { path: path.to_owned(), found });
        }
        set.count_calls();
        Ok(set)
    }

    fn new(path: &Path, producer: Producer) -> DumpSet {
        DumpSet {
            path: path.to_owned(),
            producer,
            tensors: Vec::new(),
            unread: Vec::new(),
            notes: Vec::new(),
            cut: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// Numbers what was written more than once, where the producer has not done so.
    fn count_calls(&mut self) {
        let mut next: HashMap<TensorId, usize> = HashMap::new();
        for tensor in &mut self.tensors {
            let count = next.entry(tensor.id.clone()).or_default();
            tensor.id.call += *count;
            *count += 1;
        }
    }

    /// The steps that there are, ascending.
    pub fn steps(&self) -> Vec<Option<u64>> {
        sorted(self.tensors.iter().map(|t| t.id.step))
    }

    /// The ranks that there are, ascending.
    pub fn ranks(&self) -> Vec<Rank> {
        sorted(self.tensors.iter().map(|t| t.id.rank))
    }

    /// The layers that there are, ascending.
    pub fn layers(&self) -> Vec<usize> {
        sorted(self.tensors.iter().filter_map(|t| t.id.layer))
    }

    /// The tensor with that identity.
    pub fn get(&self, id: &TensorId) -> Option<&DumpTensor> {
        self.tensors.iter().find(|t| t.id == *id)
    }

    /// Tensors of one module, in order.
    pub fn module<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a DumpTensor> {
        self.tensors.iter().filter(move |t| t.id.module == module)
    }

    /// The token ids of a step in one rank: as recorded, else from a tensor of integers called `input_ids`, else what
    /// went into the embedding; all sequences one after the other. `None` where there are none of these.
    ///
    /// # Errors
    /// The tensor's file cannot be read any more.
    pub fn token_ids(&self, step: Option<u64>, rank: Rank) -> Result<Option<Vec<i64>>, DumpError> {
        if let Some(ids) = self.tokens.get(&(step.unwrap_or(0), rank.global)) {
            return Ok(Some(ids.concat()));
        }
        let here = |t: &&DumpTensor| t.id.step == step && t.id.rank == rank && t.element().is_integer();
        let named = |t: &&DumpTensor| {
            t.id.slot == "input_ids" || (t.id.kind == Kind::Value && names::last(&t.id.module) == "input_ids")
        };
        let embedded = |t: &&DumpTensor| {
            t.id.kind == Kind::Input
                && matches!(names::last(&t.id.module), "embed_tokens" | "wte" | "word_embeddings")
        };
        let mut tensors = self.tensors.iter().filter(here);
        let found = tensors.clone().find(named).or_else(|| tensors.find(embedded));
        found.map_or(Ok(None), |t| Ok(t.open()?.integers()))
    }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// By step, rank, then names with numbers in their order.
fn natural(a: &DumpTensor, b: &DumpTensor) -> Ordering {
    let (a, b) = (&a.id, &b.id);
    (a.step, a.rank)
        .cmp(&(b.step, b.rank))
        .then_with(|| natural_cmp(&a.module, &b.module))
        .then_with(|| (a.layer, a.kind).cmp(&(b.layer, b.kind)))
        .then_with(|| natural_cmp(&a.slot, &b.slot))
}
