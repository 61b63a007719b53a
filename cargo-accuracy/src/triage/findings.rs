//! What triage found: the questions with their answers, layers, operations and the verdict.

use super::profile::{Agreement, LayerProfile};
use super::replay::{Cause, Outcome};
use std::path::PathBuf;

/// The question whose answer is a measurement: which tokens the fault costs.
pub const IMPACT: &str = "does it matter?";

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at agrees.
    Agrees,
    Fault,
    Inconclusive,
    NothingInCommon,
}

impl Verdict {
    /// Which of several steps' verdicts is the dump's: the highest.
    pub fn rank(self) -> u8 {
        match self {
            Verdict::Agrees => 0,
            Verdict::NothingInCommon => 1,
            Verdict::Inconclusive => 2,
            Verdict::Fault => 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    Fault,
    Inconclusive,
    Skipped,
}

/// One question and its answer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Step {
    pub question: &'static str,
    pub status: Status,
    pub evidence: Vec<String>,
    /// What to do where the evidence is missing.
    pub next: Option<String>,
}

/// Who is wrong about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpStatus {
    Right,
    CandidateWrong,
    ReferenceWrong,
    /// Neither dump is what we compute: our reading of the operation may be wrong.
    BothWrong,
    NotReplayed,
}

/// An operation that was replayed, or could not be.
#[derive(Clone, Debug)]
pub struct OpFinding {
    pub layer: Option<usize>,
    /// Its name, by the mistake that explains it where there is one.
    pub name: String,
    /// Where its output is.
    pub place: String,
    /// Where it is not dumped, the operations that use it are its check: it moves a value, makes a table, or the next
    /// value that is dumped is right.
    pub implied: bool,
    /// It only moves a value.
    pub is_copy: bool,
    pub status: OpStatus,
    pub reference: Outcome,
    pub candidate: Outcome,
    pub cause: Option<Cause>,
}

impl OpFinding {
    /// `layer 3, router`.
    pub fn label(&self) -> String {
        let layer = self.layer.map_or(String::new(), |l| format!("layer {l}, "));
        layer + &self.name
    }

    /// Not replayed for want of what the cache held.
    pub fn lacks_cache(&self) -> bool {
        let lacks = |o: &Outcome| matches!(o, Outcome::NoCache);
        self.status == OpStatus::NotReplayed && (lacks(&self.candidate) || lacks(&self.reference))
    }

    /// Not replayed, for a reason that another dump does not remove.
    pub fn is_unusable(&self) -> bool {
        let unusable = |o: &Outcome| matches!(o, Outcome::Unusable(_));
        self.status == OpStatus::NotReplayed && (unusable(&self.candidate) || unusable(&self.reference))
    }

    /// Not replayed, and nothing else would show a fault in it.
    pub fn is_gap(&self) -> bool {
        self.status == OpStatus::NotReplayed
            && !(self.implied && matches!(self.candidate, Outcome::Missing(_)))
    }
}

/// The answer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Guilty {
    /// `None`: before the first layer or after the last.
    pub layer: Option<usize>,
    pub op: String,
    /// What speaks for it, a sentence each.
    #[serde(rename = "detail", serialize_with = "joined")]
    pub evidence: Vec<String>,
}

/// Sentences as one text, as the report has them.
fn joined<S: serde::Serializer>(sentences: &[String], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&sentences.join("; "))
}

#[derive(Debug)]
pub struct Findings {
    pub reference: PathBuf,
    pub candidate: PathBuf,
    pub checkpoint: Option<PathBuf>,
    pub verdict: Verdict,
    /// The forward pass that the rest is about, where the dumps have several.
    pub at: Option<u64>,
    pub steps: Vec<Step>,
    pub layers: Vec<LayerProfile>,
    pub ops: Vec<OpFinding>,
    pub guilty: Option<Guilty>,
    pub bad_layers: Vec<usize>,
    /// The same operation is wrong in every layer that was replayed.
    pub systematic: Option<bool>,
    /// Relative error of the stream after the first bad layer and after the last, and what independent errors of the
    /// bad layers would add up to.
    pub compounding: Option<[f64; 3]>,
    pub logits: Option<Agreement>,
}
