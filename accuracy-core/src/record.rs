//! The record that one attempt at a case leaves behind, and the manifest of what was about to run.
//!
//! A record is one JSON file, written whole under a temporary name and renamed, so that it either is complete or
//! does not exist. Its fields are those of a case in the machine-readable report; a number that does not exist is
//! `null`. Which cases should have left one is in the manifest, and a start marker tells a case that was cut off
//! from one that never began.

pub use crate::cause_family::CauseFamily;
pub use crate::check_name::{CheckName, FindingKind};
pub use crate::check_result::{CheckResult, Power, PowerStatus, Verdict};
use crate::error_map::ErrorMap;
use crate::files;
use crate::fuzz::{self, Drawn, Shape};
use crate::identity::Identity;
use crate::meta::Check;
use crate::packed::Packed;
use crate::reference::stream::ReferenceError;
use crate::symbol::readable;
use crate::trace::Traced;
use crate::words::Words;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of records and manifests.
pub const SCHEMA: u32 = 1;

/// Why a case was not brought to its end, where the reason is the run's and not the case's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    InterruptedBefore,
    InterruptedWhile,
    /// An earlier case failed, and the run was to stop there.
    AfterFailure,
    /// Records cannot be written any more.
    NoRoom,
    NeverStarted,
}

impl Unfinished {
    pub const ALL: [Unfinished; 5] = [
        Unfinished::InterruptedBefore,
        Unfinished::InterruptedWhile,
        Unfinished::AfterFailure,
        Unfinished::NoRoom,
        Unfinished::NeverStarted,
    ];

    /// The reason that a report gives.
    pub const fn words(self) -> &'static str {
        match self {
            Unfinished::InterruptedBefore => "interrupted before the start",
            Unfinished::InterruptedWhile => "interrupted while running",
            Unfinished::AfterFailure => "not started after an earlier failure (--fail-fast)",
            Unfinished::NoRoom => "not started, because records cannot be written",
            Unfinished::NeverStarted => "announced, but never started",
        }
    }
}

/// Whether a case lets a pull request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    Pass,
    Fail,
}

/// The verdict vector of a case: the worst over its hops, and what is known of the chain as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    pub cos: Option<f64>,
    pub cos_row_min: Option<f64>,
    pub row_min_index: Option<usize>,
    pub gain: Option<f64>,
    pub rel_l2: Option<f64>,
    /// Cosine of the framework's own quantised chain against the ideal product.
    pub noise_cos: Option<f64>,
    pub nan_unexpected: u64,
    pub inf_unexpected: u64,
    /// Relative L2 of the chain's output against the ideal product.
    pub chain_rel_l2: Option<f64>,
    pub chain_cos: Option<f64>,
    /// Relative L2 of the framework's own quantised chain against the ideal product.
    pub noise_rel_l2: Option<f64>,
    pub unwritten: u64,
    /// How far the reference itself may be from exact, and how far a sample of it was; `null` where no hop is a
    /// product of stored operands.
    pub reference_error: Option<ReferenceError>,
    pub guards_intact: Option<bool>,
    pub repeat_bitwise: Option<bool>,
}

/// One declared buffer that a kernel wrote, judged by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hop {
    pub name: String,
    /// The launcher that wrote it.
    pub kernel: Option<String>,
    /// The kernels that this launcher launched, in order; `null` where that cannot be seen.
    pub launched: Option<Vec<String>>,
    /// `quantizer`: against the framework's own quantiser; `given_bytes`: against the float64 result on the bytes
    /// that the kernel was really given; `primary`: against the primary path.
    pub judged_against: String,
    pub cos: Option<f64>,
    pub cos_row_min: Option<f64>,
    pub row_min_index: Option<usize>,
    pub gain: Option<f64>,
    pub rel_l2: Option<f64>,
    pub scale_cos: Option<f64>,
    /// As of [`Metrics`].
    pub reference_error: Option<ReferenceError>,
    /// Share of bytes equal to the reference's (producers, comparison with the primary).
    pub bytes_equal: Option<f64>,
    /// Rows and columns that are most wrong, with their cosine or relative error, worst first.
    pub worst_rows: Vec<(usize, Option<f64>)>,
    pub worst_cols: Vec<(usize, Option<f64>)>,
    pub failed_checks: Vec<String>,
    /// Only of a case in which a check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_map: Option<Box<ErrorMap>>,
}

/// A likely root cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenCause", into = "WrittenCause")]
pub struct Cause {
    /// Its name: that of a [`CauseFamily`], or a finer one such as `zero_point`.
    pub cause: String,
    /// A sentence: who does what, and what speaks for it. Nothing is decided by it.
    pub detail: String,
    /// What the kernel does, by itself: without the kernel's name, and without what speaks for it. Two causes of one name and
    /// operand are the same mistake where this is the same.
    pub what: Words,
    /// Other mistakes that give the same bytes.
    pub readings: Vec<Words>,
    /// Cosine of the output against the reference computed with the fault: what mending it gives.
    pub cos: Option<f64>,
    /// Share of the error that it explains, at most 1.
    pub score: Option<f64>,
    /// The operand that is read wrongly.
    pub operand: Option<String>,
    /// The parameter that no byte reacts to, where that is the mistake and was seen.
    pub ignored: Option<Ignored>,
    /// Whether nothing is left to explain, and nothing else explains as much.
    pub confident: bool,
    /// Whether columns of the output have moved, which no index of rows does. In no record.
    pub moves_columns: bool,
}

/// A parameter that was seen to change nothing, though another path of the test shows that it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// The launcher that ignores it.
    pub launcher: String,
    pub parameter: String,
}

impl Cause {
    /// All that is to be said of it: the sentence, and the other mistakes that give the same bytes.
    pub fn told(&self) -> Cow<'_, str> {
        if self.readings.is_empty() {
            return Cow::Borrowed(&self.detail);
        }
        let readings: Vec<String> = self.readings.iter().map(ToString::to_string).collect();
        Cow::Owned(format!("{}; the same bytes come of one that {}", self.detail, readings.join(", or ")))
    }

    /// What every format calls it: what explains all of an error, and alone, is a cause; anything else is a guess.
    pub fn label(&self) -> &'static str {
        if self.confident { "cause" } else { "perhaps" }
    }
}

/// A cause as reports have it: under the name of a [`CauseFamily`], with a finer one beside it.
#[derive(Serialize, Deserialize)]
struct WrittenCause {
    cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    detail: String,
    #[serde(default, skip_serializing_if = "Words::is_empty")]
    what: Words,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    readings: Vec<Words>,
    cos: Option<f64>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operand: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ignored: Option<Ignored>,
    #[serde(default)]
    confident: bool,
}

impl From<Cause> for WrittenCause {
    fn from(of: Cause) -> WrittenCause {
        let Cause { cause: name, detail, what, readings, cos, score, operand, ignored, confident, .. } = of;
        let family = CauseFamily::of(&name).name();
        let (cause, kind) = (family.to_owned(), Some(&name).filter(|name| *name != family).cloned());
        WrittenCause { cause, kind, detail, what, readings, cos, score, operand, ignored, confident }
    }
}

impl From<WrittenCause> for Cause {
    fn from(written: WrittenCause) -> Cause {
        let WrittenCause { cause, kind, detail, what, readings, cos, score, operand, ignored, confident } =
            written;
        let cause = kind.unwrap_or(cause);
        let moves_columns = false;
        Cause { cause, detail, what, readings, cos, score, operand, ignored, confident, moves_columns }
    }
}

/// A mistake that the emulator saw a kernel make, at an instruction of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    pub kernel: String,
    pub mnemonic: String,
    /// Bytes from the start of the kernel's code to the instruction.
    pub offset: u64,
    /// Source file and line, where the code object has a line table.
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Whether it fails the case.
    #[serde(default)]
    pub severity: Severity,
    /// The first workgroup and wave that were seen to do it.
    #[serde(default)]
    pub block: Option<[u32; 3]>,
    #[serde(default)]
    pub wave: Option<u32>,
    /// The lane of the wave.
    #[serde(default)]
    pub lane: Option<u32>,
    /// The declared buffer that it is about, and the element.
    #[serde(default)]
    pub buffer: Option<String>,
    #[serde(default)]
    pub row: Option<u64>,
    #[serde(default)]
    pub column: Option<u64>,
    pub detail: String,
}

/// Elements of a part of a declared buffer: `rows` of `columns`, both with their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    pub rows: [u64; 2],
    pub columns: [u64; 2],
}

/// Elements of a declared buffer, or of what is stored beside one (`xq.scales`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elements {
    pub buffer: String,
    /// How many there are; `blocks` has the first of them.
    pub count: u64,
    pub blocks: Vec<Block>,
    /// Rows and columns of the buffer, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<[u64; 2]>,
}

impl Block {
    /// How many elements it has.
    pub fn count(&self) -> u64 {
        let length = |[first, last]: [u64; 2]| (last + 1).saturating_sub(first);
        length(self.rows).saturating_mul(length(self.columns))
    }

    /// The elements that it shares with another one.
    pub fn shared(&self, other: &Block) -> Option<Block> {
        let both = |a: [u64; 2], b: [u64; 2]| {
            let (first, last) = (a[0].max(b[0]), a[1].min(b[1]));
            (first <= last).then_some([first, last])
        };
        Some(Block { rows: both(self.rows, other.rows)?, columns: both(self.columns, other.columns)? })
    }
}

/// Blocks that a sentence names.
const NAMED: usize = 4;

impl std::fmt::Display for Elements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = |[first, last]: [u64; 2]| match first == last {
            true => first.to_string(),
            false => format!("{first}..{last}"),
        };
        let named = || self.blocks.iter().take(NAMED);
        for (i, Block { rows, columns }) in named().enumerate() {
            let before = if i > 0 { ", " } else { "" };
            write!(f, "{before}{}[{}, {}]", self.buffer, range(*rows), range(*columns))?;
        }
        match self.count.saturating_sub(named().map(Block::count).sum()) {
            0 => Ok(()),
            more => write!(f, " and {more} more elements of {}", self.buffer),
        }
    }
}

/// The instruction that wrote an element last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWriter {
    pub kernel: String,
    pub mnemonic: String,
    /// Bytes from the start of the kernel's code to the instruction.
    pub offset: u64,
    /// Source file and line, where the code object has a line table.
    pub file: Option<String>,
    pub line: Option<u32>,
    /// The launch among those of a run of the case, counted from 0.
    #[serde(default)]
    pub launch: u32,
    pub block: [u32; 3],
    pub wave: u32,
    pub lane: u32,
}

/// Where one element of a hop comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The buffer, or what is stored beside it (`xq.scales`), and the element.
    pub buffer: String,
    pub row: u64,
    pub column: u64,
    /// Whether its value is wrong. Right ones are looked at to see what is not the cause.
    pub wrong: bool,
    /// None where no kernel wrote it.
    pub writer: Option<LastWriter>,
    /// Elements whose values flowed into it.
    pub took: Vec<Elements>,
    /// Elements that only decided which values did: indices in addresses, conditions of selections.
    pub steered_by: Vec<Elements>,
    /// Elements that the declaration computes it from.
    pub declared: Vec<Elements>,
    /// What it took and the declaration does not read, and the other way round.
    pub extra: Vec<Elements>,
    pub missing: Vec<Elements>,
    /// Whether the declared expression, computed from the elements that it took, is the value that was written; absent where
    /// that cannot be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed: Option<bool>,
    /// What is not known of it. Where there is something, nothing is concluded from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_followed: Vec<String>,
}

impl Origin {
    /// The element, and the line that wrote it: `y[3, 17] (quant.hip:42)`.
    pub fn place(&self) -> String {
        let Origin { buffer, row, column, writer, .. } = self;
        let element = format!("{buffer}[{row}, {column}]");
        match writer {
            None => format!("{element} was written by no kernel"),
            Some(LastWriter { kernel, mnemonic, file, line, block: [x, y, z], wave, lane, .. }) => {
                let line = match (file, line) {
                    (Some(file), Some(line)) => format!("{file}:{line}, "),
                    _ => String::new(),
                };
                format!(
                    "{element} was written by `{}` ({line}{mnemonic}, workgroup ({x}, {y}, {z}), wave {wave}, lane {lane})",
                    readable(kernel)
                )
            }
        }
    }

    /// What flowed into it, and what the declaration reads where that is something else.
    pub fn flow(&self) -> String {
        let list = |elements: &[Elements]| {
            let all: Vec<String> = elements.iter().map(ToString::to_string).collect();
            if all.is_empty() { "nothing of any declared buffer".into() } else { all.join(", ") }
        };
        let mut text = format!("took {}", list(&self.took));
        if !self.steered_by.is_empty() {
            text += &format!("; which values is decided by {}", list(&self.steered_by));
        }
        match (self.extra.is_empty(), self.missing.is_empty()) {
            (true, true) if self.not_followed.is_empty() => text += "; the declaration reads the same",
            (true, true) => {}
            (false, true) => text += &format!("; the declaration does not read {}", list(&self.extra)),
            (true, false) => text += &format!("; the declaration also reads {}", list(&self.missing)),
            (false, false) => {
                text +=
                    &format!("; the declaration reads {} and not {}", list(&self.missing), list(&self.extra));
            }
        }
        if !self.not_followed.is_empty() {
            text += &format!(" (not known: {})", self.not_followed.join("; "));
        }
        text
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It fails the case.
    Error,
    #[default]
    Note,
}

/// How far an emulation computes what the device would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Instructions of waves that were executed as the architecture documents them, bit for bit.
    pub exact: u64,
    /// Mnemonics whose arithmetic the vendor does not document in full, and which are a model of it; sorted.
    pub modelled: BTreeSet<String>,
    /// Instructions of waves that were executed in all.
    pub instructions: u64,
}

impl Fidelity {
    /// Adds what another emulation did.
    pub fn add(&mut self, other: &Fidelity) {
        self.exact = self.exact.saturating_add(other.exact);
        self.instructions = self.instructions.saturating_add(other.instructions);
        self.modelled.extend(other.modelled.iter().cloned());
    }
}

/// What the emulator did for a case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulated {
    pub fidelity: Fidelity,
    /// What kernels printed, and the assertions of theirs that failed, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// Where a file of kernels was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// In a folder of the environment's `ACCURACY_LIBRARY_PATH`.
    LibraryPath,
    /// In a folder that the package's `library-path` names.
    Named,
    /// Where the plugin has built it from the sources that the package names.
    Built,
    /// In an archive.
    Archive,
    /// In the output folder of the package's build script.
    BuildScript,
    /// In `lib/` of the package.
    Package,
}

impl Found {
    /// Where it is, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Found::LibraryPath => "found in ACCURACY_LIBRARY_PATH",
            Found::Named => "found in the package's library-path",
            Found::Built => "built from the package's sources",
            Found::Archive => "found in the archive",
            Found::BuildScript => "built by the package's build script",
            Found::Package => "found in lib/ of the package",
        }
    }

    /// Whether it was made from the sources of this very workspace or archive, so that no other may take its place
    /// unasked.
    pub const fn is_own(self) -> bool {
        matches!(self, Found::Built | Found::Archive | Found::BuildScript)
    }
}

/// The file of kernels that was judged for a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Library {
    /// The package that declares the binding.
    pub package: String,
    /// The name that it binds.
    pub name: String,
    pub path: PathBuf,
    /// Hash of its contents: XXH3, 128 bits, in hexadecimal digits.
    pub hash: String,
    pub found: Found,
    /// The file with other contents that would have been judged without `ACCURACY_LIBRARY_PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<PathBuf>,
}

impl std::fmt::Display for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Library { package, name, path, hash, found, .. } = self;
        write!(f, "{package}::{name}: {} ({hash}, {})", path.display(), found.words())?;
        match &self.passed_over {
            None => Ok(()),
            Some(other) => write!(f, "; in place of {}", other.display()),
        }
    }
}

/// Files of kernels that a case called. The cases of a test have most of them in common and may share them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Library>", into = "Vec<Library>")]
pub struct Libraries(Option<Arc<[Library]>>);

impl Libraries {
    pub fn iter(&self) -> std::slice::Iter<'_, Library> {
        self.0.as_deref().unwrap_or_default().iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Gives up its own list where the same is known.
    pub fn share(&mut self, known: &mut HashSet<Arc<[Library]>>) {
        let Some(own) = &mut self.0 else { return };
        match known.get(own) {
            Some(list) => *own = list.clone(),
            None => drop(known.insert(own.clone())),
        }
    }
}

impl From<Vec<Library>> for Libraries {
    fn from(list: Vec<Library>) -> Libraries {
        Libraries((!list.is_empty()).then(|| list.into()))
    }
}

impl From<Libraries> for Vec<Library> {
    fn from(libraries: Libraries) -> Vec<Library> {
        libraries.iter().cloned().collect()
    }
}

/// What one attempt at a case found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub id: String,
    pub package: String,
    pub test: String,
    pub file: String,
    pub line: u32,
    pub check: Check,
    pub arch: String,
    /// Name of the GPU that it ran on, or of the emulated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Present where the emulator ran it in place of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Box<Emulated>>,
    /// What the emulator saw the kernels do wrong; absent where a device or the host ran them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    /// Where some elements of the first failing hop come from, as the emulator saw it: wrong ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
    /// The instructions of one wave, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Traced>,
    /// The files of kernels that were judged.
    #[serde(default, skip_serializing_if = "Libraries::is_empty")]
    pub libraries: Libraries,
    pub dtype: Option<String>,
    pub path: Option<String>,
    /// Values of `#[values]` and `#[perf]` parameters.
    pub params: BTreeMap<String, String>,
    /// Role and tensor of each weight.
    pub weights: BTreeMap<String, String>,
    /// Dimensions by name: m, n, k.
    pub shape: BTreeMap<String, u64>,
    pub metrics: Metrics,
    pub hops: Vec<Hop>,
    pub power: Packed<Power>,
    pub checks: Packed<CheckResult>,
    /// Effective least cosine.
    pub threshold: f64,
    /// Cosine minus threshold.
    pub margin: Option<f64>,
    pub gate: Gate,
    pub failed_checks: Vec<String>,
    pub verdict: Verdict,
    pub reason: String,
    /// Why the case has not come to its end, where that says nothing about the case itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// What memory was filled with that the kernels had to write: [`crate::env::POISON`] makes it so again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poison: Option<u64>,
    /// What the process had computed before this case: other shapes of its chain, or other cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preceded_by: Vec<String>,
    /// The seed, values and slice that fuzzing drew for this case; absent if the test lists the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuzz: Option<Drawn>,
    /// The identity of the least shape that fails as this drawn case does, where the run has looked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
    /// Why the test declares that this case fails: then its failure passes the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_failure: Option<String>,
    pub causes: Vec<Cause>,
    pub seconds: f64,
    /// Last field: a record without it was not written whole.
    pub complete: bool,
}

impl Record {
    /// Whether a case was judged: it ran to its end and has a cosine's tier, or could not have seen a fault.
    fn is_judged(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Correct
                | Verdict::Suspicious
                | Verdict::Broken
                | Verdict::Catastrophic
                | Verdict::Inconclusive
        )
    }

    /// Why a record that lets its case through the gate cannot be what the framework wrote: a sentence without its
    /// subject. `None` where all that it says agrees, and for a case that fails.
    ///
    /// Each field that decides is held against those that it follows from: gate and failed checks against the checks,
    /// a check against its margin, the verdict against cosine and threshold, the worst cosine against the hops.
    pub fn contradiction(&self) -> Option<String> {
        if self.gate == Gate::Fail {
            return None;
        }
        match (self.verdict, &self.known_failure) {
            (Verdict::Skipped, None) => self.skip_contradiction(),
            (Verdict::Correct, None) => self.pass_contradiction(),
            (_, Some(_)) if self.is_judged() => self.known_failure_contradiction(),
            (verdict, _) => Some(format!("the gate is said to pass with verdict {verdict}")),
        }
    }

    fn skip_contradiction(&self) -> Option<String> {
        let ran = !self.hops.is_empty()
            || !self.checks.is_empty()
            || !self.power.is_empty()
            || !self.failed_checks.is_empty()
            || self.metrics != Metrics::default();
        if ran {
            return Some("the case is said to be skipped, and there is what only one that ran has".into());
        }
        self.reason.is_empty().then(|| "the case is said to be skipped, without a reason".into())
    }

    fn pass_contradiction(&self) -> Option<String> {
        if let Some(name) = self.failed_checks.first() {
            return Some(format!("the gate is said to pass, and check `{name}` to have failed"));
        }
        if let Some(what) = self.judged_contradiction() {
            return Some(what);
        }
        if let Some(check) = self.checks.iter().find(|c| !c.ok || c.margin.is_some_and(|m| m < 0.0)) {
            let of = if check.hop.is_empty() { String::new() } else { format!(" of {}", check.hop) };
            return Some(format!("the gate is said to pass, and check `{}`{of} does not hold", check.check));
        }
        if let Some(hop) = self.hops.iter().find(|hop| !hop.failed_checks.is_empty()) {
            return Some(format!("the gate is said to pass, and hop `{}` has failed checks", hop.name));
        }
        let m = &self.metrics;
        let wrong = [
            (m.guards_intact == Some(false), "guards_intact is false"),
            (m.nan_unexpected > 0, "there are unexpected NaN"),
            (m.inf_unexpected > 0, "there are unexpected infinities"),
            (m.unwritten > 0, "there are unwritten elements"),
        ];
        wrong
            .into_iter()
            .find(|(there, _)| *there)
            .map(|(_, what)| format!("the gate is said to pass, and {what}"))
    }

    /// A known failure passes because it fails: something has to.
    fn known_failure_contradiction(&self) -> Option<String> {
        let mut failed: Vec<&str> = self.failed_checks.iter().map(String::as_str).collect();
        let checks: Vec<_> = self.checks.iter().filter(|c| !c.ok).map(|c| c.check).collect();
        let mut checks: Vec<&str> = checks.iter().map(|name| &**name).collect();
        for names in [&mut failed, &mut checks] {
            names.sort_unstable();
            names.dedup();
        }
        if failed != checks {
            let names = |names: &[&str]| names.join(", ");
            return Some(format!(
                "its failed checks are said to be [{}], and are [{}]",
                names(&failed),
                names(&checks)
            ));
        }
        if failed.is_empty() && self.verdict == Verdict::Correct {
            return Some("it is said to be a known failure, and nothing of it fails".into());
        }
        self.judged_contradiction()
    }

    /// What is true of every case that was judged, whatever was found.
    fn judged_contradiction(&self) -> Option<String> {
        if self.hops.is_empty() {
            return Some("it is said to be judged, and has no hop".into());
        }
        if self.checks.is_empty() {
            return Some("it is said to be judged, and has no check".into());
        }
        if !(-1.0..=1.0).contains(&self.threshold) {
            return Some(format!("its threshold, {}, is no cosine", self.threshold));
        }
        let tier = crate::verdict::tier(self.metrics.cos, self.threshold);
        let is = if self.verdict == Verdict::Inconclusive { Verdict::Correct } else { self.verdict };
        let cos = || self.metrics.cos.map_or("none".into(), |cos| cos.to_string());
        if tier != is {
            return Some(format!(
                "a cosine of {} with threshold {} is {tier}, and the verdict is {}",
                cos(),
                self.threshold,
                self.verdict
            ));
        }
        let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9,
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same(self.margin, self.metrics.cos.map(|cos| cos - self.threshold)) {
            return Some("its margin is not cosine minus threshold".into());
        }
        let order = |cos: Option<f64>| cos.unwrap_or(-2.0);
        let worst = self.hops.iter().map(|hop| hop.cos).min_by(|a, b| order(*a).total_cmp(&order(*b)))?;
        (!same(worst, self.metrics.cos))
            .then(|| format!("its cosine, {}, is not that of its worst hop", cos()))
    }
}

/// A case as the manifest announces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub id: String,
    pub package: String,
    pub test: String,
    pub file: String,
    pub line: u32,
    pub check: Check,
    pub arch: String,
    pub dtype: Option<String>,
    pub path: Option<String>,
    pub params: BTreeMap<String, String>,
    pub weights: BTreeMap<String, String>,
    /// The seed, values and slice that fuzzing drew for this case; absent if the test lists the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuzz: Option<Drawn>,
}

impl Planned {
    /// The same case in another drawn shape.
    pub fn redrawn(&self, (tokens, drawn): Shape) -> Planned {
        let own = Identity::of(&self.id);
        let mut id = Identity::new(own.path());
        for (name, value) in own.coordinates().filter(|(name, _)| *name != fuzz::COORDINATE) {
            if name == "tokens" {
                id.push(name, tokens.to_string());
                id.push(fuzz::COORDINATE, drawn.to_string());
            } else {
                id.push(name, value);
            }
        }
        Planned { id: id.to_string(), fuzz: Some(drawn), ..self.clone() }
    }

    /// What a record says otherwise of the case that it is of; `None` where both agree.
    pub fn disagreement(&self, record: &Record) -> Option<String> {
        let of = |name: &str, planned: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Some(format!("its {name} is said to be {found}, and is {planned}"))
        };
        if record.package != self.package {
            return of("package", &self.package, &record.package);
        }
        if record.check != self.check {
            return of("check", &self.check, &record.check);
        }
        if record.arch != self.arch {
            return of("architecture", &self.arch, &record.arch);
        }
        None
    }

    /// A record for a case that the run did not bring to its end.
    pub fn unfinished(&self, why: Unfinished) -> Record {
        let record = self.without_result(Verdict::NotRun, why.words());
        Record { unfinished: Some(why), ..record }
    }

    /// A record for a case that came to no verdict of its own: fails the gate unless it was skipped.
    pub fn without_result(&self, verdict: Verdict, reason: impl Into<String>) -> Record {
        Record {
            schema: SCHEMA,
            id: self.id.clone(),
            package: self.package.clone(),
            test: self.test.clone(),
            file: self.file.clone(),
            line: self.line,
            check: self.check,
            arch: self.arch.clone(),
            device: None,
            emulated: None,
            findings: None,
            origins: Vec::new(),
            trace: None,
            libraries: Libraries::default(),
            dtype: self.dtype.clone(),
            path: self.path.clone(),
            params: self.params.clone(),
            weights: self.weights.clone(),
            shape: BTreeMap::new(),
            metrics: Metrics::default(),
            hops: Vec::new(),
            power: Packed::default(),
            checks: Packed::default(),
            threshold: crate::verdict::MIN_COS,
            margin: None,
            gate: if verdict == Verdict::Skipped { Gate::Pass } else { Gate::Fail },
            failed_checks: Vec::new(),
            verdict,
            reason: reason.into(),
            unfinished: None,
            poison: None,
            preceded_by: Vec::new(),
            fuzz: self.fuzz,
            least: None,
            known_failure: None,
            causes: Vec::new(),
            seconds: 0.0,
            complete: true,
        }
    }
}

/// Written before anything runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    /// The test executable that announces them, where a test process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    pub cases: Vec<Planned>,
}

/// Why a record or manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a complete record: {what}")]
    Incomplete { path: PathBuf, what: String },
    #[error("{path} is not what the framework wrote: it was changed afterwards")]
    Changed { path: PathBuf },
    #[error(
        "{path} has schema {found}, this tool reads schema {SCHEMA}: update the older of cargo-accuracy and accuracy-core"
    )]
    Schema { path: PathBuf, found: u32 },
}

/// Stable file stem of a case: its identity does not fit into a file name.
pub fn file_stem(id: &str) -> String {
    // FNV-1a, 64 bits.
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Where the record of a case's attempt goes inside a folder of records.
pub fn record_path(dir: &Path, id: &str, attempt: u32) -> PathBuf {
    dir.join(format!("{}.{attempt}.json", file_stem(id)))
}

/// Exists from the moment a case begins.
pub fn started_path(dir: &Path, id: &str, attempt: u32) -> PathBuf {
    dir.join(format!("{}.{attempt}.started", file_stem(id)))
}

/// Exists from the moment something is computed before a case in its process; holds [`ENDED`] once that has ended and the
/// device can still be used.
pub fn before_path(dir: &Path, id: &str, attempt: u32) -> PathBuf {
    started_path(dir, id, attempt).with_extension("before")
}

/// See [`before_path`].
pub const ENDED: &[u8] = b"ended";

/// Writes `value` whole: to a temporary name in the same folder, then renamed.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RecordError> {
    let bytes = serde_json::to_vec(value);
    write_bytes(path, bytes.map_err(|e| RecordError::Write { path: path.into(), source: e.into() })?)
}

/// Writes a record whole, with a digest of its text behind its last field: an accidental change is seen.
pub fn write_record(path: &Path, record: &Record) -> Result<(), RecordError> {
    let bytes = serde_json::to_vec(record);
    let mut bytes = bytes.map_err(|e| RecordError::Write { path: path.into(), source: e.into() })?;
    // The digest takes the place of the closing brace.
    bytes.pop();
    let digest = digest(&bytes);
    bytes.extend_from_slice(DIGEST);
    bytes.extend_from_slice(digest.as_bytes());
    bytes.extend_from_slice(b"\"}");
    write_bytes(path, bytes)
}

/// What stands between a record's last field and its digest.
const DIGEST: &[u8] = br#","digest":""#;
const DIGEST_LENGTH: usize = 32;

/// Hash of contents, 32 hexadecimal digits: against accidents, not against somebody who forges.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", twox_hash::XxHash3_128::oneshot(bytes))
}

/// Whether a record's text is what was written: it ends with the digest of what comes before, or has none at all, as
/// one that was written before there were digests.
fn is_unchanged(bytes: &[u8]) -> bool {
    let tail = DIGEST.len() + DIGEST_LENGTH + 2;
    if let Some((text, tail)) = bytes.len().checked_sub(tail).map(|at| bytes.split_at(at))
        && let Some(found) = tail.strip_prefix(DIGEST).and_then(|t| t.strip_suffix(b"\"}"))
    {
        return found == digest(text).as_bytes();
    }
    // One that was written anew, by another program, with the digest in it.
    let key = br#""digest""#;
    let mut keys = bytes.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
    !keys.any(|(at, _)| {
        let value =
            bytes[at + key.len()..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        let value = value.and_then(|value| value.strip_prefix(b"\"")?.get(..DIGEST_LENGTH));
        value.is_some_and(|value| value.iter().all(u8::is_ascii_hexdigit))
    })
}

fn write_bytes(path: &Path, bytes: Vec<u8>) -> Result<(), RecordError> {
    let write = |source| RecordError::Write { path: path.into(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(write)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        // A part of a record is of no use, and on a full disk its room is.
        let _ = std::fs::remove_file(&temporary);
        write(source)
    })
}

/// What says which version it was written by.
trait Versioned {
    fn schema(&self) -> u32;
}

impl Versioned for Record {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Versioned for Manifest {
    fn schema(&self) -> u32 {
        self.schema
    }
}

fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, RecordError> {
    files::read(path, limit).map_err(|source| RecordError::Read { path: path.into(), source })
}

fn parse<T: serde::de::DeserializeOwned + Versioned>(path: &Path, bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Other {
        schema: u32,
    }
    let read: Result<T, _> = serde_json::from_slice(bytes);
    // What another version wrote may have other fields as well: the version is why it cannot be read.
    let schema = match &read {
        Ok(value) => Some(value.schema()),
        Err(_) => serde_json::from_slice(bytes).ok().map(|Other { schema }| schema),
    };
    match schema.filter(|schema| *schema != SCHEMA) {
        Some(found) => Err(RecordError::Schema { path: path.into(), found }),
        None => read.map_err(|e| RecordError::Incomplete { path: path.into(), what: e.to_string() }),
    }
}

/// Reads a record; one that was cut off or changed is an error, never a partial result.
pub fn read_record(path: &Path) -> Result<Record, RecordError> {
    let bytes = read_bytes(path, files::RECORD)?;
    let record: Record = parse(path, &bytes)?;
    if !record.complete {
        return Err(RecordError::Incomplete { path: path.into(), what: "its last field is not true".into() });
    }
    if !is_unchanged(&bytes) {
        return Err(RecordError::Changed { path: path.into() });
    }
    Ok(record)
}

/// Reads a manifest.
pub fn read_manifest(path: &Path) -> Result<Manifest, RecordError> {
    parse(path, &read_bytes(path, files::LIST)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> Planned {
        Planned {
            id: "k::t[arch=gfx950]".into(),
            package: "k".into(),
            test: "t".into(),
            file: "src/lib.rs".into(),
            line: 7,
            check: Check::FullChain,
            arch: "gfx950".into(),
            dtype: None,
            path: None,
            params: BTreeMap::new(),
            weights: BTreeMap::new(),
            fuzz: None,
        }
    }

    #[test]
    fn what_an_emulator_says_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let mut record = planned().without_result(Verdict::Correct, "");
        let modelled = ["v_rcp_f32", "v_exp_f32"].map(String::from).into();
        let fidelity = Fidelity { exact: 9, modelled, instructions: 10 };
        record.emulated = Some(Box::new(Emulated { fidelity, output: vec!["printed".into()] }));
        record.findings = Some(vec![Finding {
            kind: FindingKind::MissingWait,
            kernel: "gemm".into(),
            mnemonic: "v_add_f32".into(),
            offset: 16,
            file: None,
            line: None,
            severity: Severity::Error,
            block: Some([3, 0, 0]),
            wave: Some(1),
            lane: Some(63),
            buffer: Some("x".into()),
            row: Some(2),
            column: None,
            detail: "too early".into(),
        }]);
        write_json(&path, &record).unwrap();
        assert_eq!(read_record(&path).unwrap(), record);
        let text = std::fs::read_to_string(&path).unwrap();
        for part in [
            r#""kind":"missing_wait""#,
            r#""file":null,"line":null"#,
            r#""modelled":["v_exp_f32","v_rcp_f32"]"#,
        ] {
            assert!(text.contains(part), "{text}");
        }
        // No finding is not the same as nobody who looked.
        record.findings = Some(Vec::new());
        write_json(&path, &record).unwrap();
        assert_eq!(read_record(&path).unwrap().findings, Some(Vec::new()));
    }

    #[test]
    fn a_record_from_before_there_was_an_emulator_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &planned().without_result(Verdict::Correct, "")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("emulated") && !text.contains("findings"), "{text}");
        let read = read_record(&path).unwrap();
        assert_eq!((read.emulated, read.findings), (None, None));
    }

    #[test]
    fn kinds_of_findings_are_written_as_they_are_named() {
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
