//! The decision tree: which questions are asked of the dumps, in which order, and what follows from the answers.

use super::cache::{Apart, apart};
use super::findings::{Findings, Guilty, IMPACT, OpFinding, OpStatus, Status, Step, Verdict};
use super::judge::Ranks;
use super::profile::{Agreement, LayerProfile, agreements, layer, pair};
use super::recognise::recognise;
use super::replay::{CACHE, Outcome, Replay};
use super::side::Side;
use super::stale::repeated;
use super::whole::explained;
use accuracy_core::dumps::{DumpSet, DumpTensor, TensorId};
use accuracy_core::model::config::Object;
use accuracy_core::model::ops::Weights;
use accuracy_core::model::place::{LAYER_RESIDUAL, RESIDUAL};
use accuracy_core::model::{ModelConfig, ModelError, OpKind, Plan, Site};
use accuracy_core::weights::Checkpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A step of the reference and the one of the candidate that it is compared with.
pub type Steps = (Option<u64>, Option<u64>);

/// Operations without a dumped output that the next dumped value is a check of. Over more of them rounding adds up to
/// what could hide a fault: then only a fault can be seen, not that there is none.
const NEAR: usize = 3;
/// Logits that are this many roundings apart need no explanation.
const UNSEEN: f64 = 4.0;
/// Roundings that may part two runs before layer 0: sums of embeddings and a norm.
const ENTERING: f64 = 8.0;

pub struct Options<'a> {
    pub checkpoint: Option<&'a Checkpoint>,
    pub mapping: Option<Plan>,
    pub step: Option<u64>,
    pub all_layers: bool,
    pub allow_identical: bool,
}

/// The questions to one forward pass.
pub struct Walk<'a> {
    pub findings: Findings,
    pub reference: Side,
    pub candidate: Side,
    pub options: &'a Options<'a>,
    /// The two dumps are the same, byte for byte, and should not be.
    identical: bool,
    /// The plan is a mapping file's, which need not list all that a layer computes.
    partial: bool,
    /// The plan has what is recognised of a model that is not known.
    recognised: bool,
    /// The dumps lay their tokens out differently, and rows are compared in one order.
    arranged: bool,
}

/// How many operations came out how.
#[derive(Clone, Copy, Debug)]
struct Tally {
    right: usize,
    wrong: usize,
    reference: usize,
    both: usize,
    missing: usize,
}

impl Tally {
    fn replayed(self) -> usize {
        self.right + self.wrong + self.reference + self.both
    }
}

impl<'a> Walk<'a> {
    pub fn at(
        reference: &Arc<DumpSet>,
        candidate: &Arc<DumpSet>,
        (first, second): Steps,
        options: &'a Options<'a>,
        identical: bool,
    ) -> Walk<'a> {
        Walk {
            findings: Findings {
                reference: reference.path.clone(),
                candidate: candidate.path.clone(),
                checkpoint: options.checkpoint.map(|c| c.path().to_owned()),
                verdict: Verdict::Inconclusive,
                at: first,
                steps: Vec::new(),
                layers: Vec::new(),
                ops: Vec::new(),
                guilty: None,
                bad_layers: Vec::new(),
                systematic: None,
                compounding: None,
                logits: None,
            },
            reference: Side::new(reference, first),
            candidate: Side::new(candidate, second),
            options,
            identical,
            partial: false,
            recognised: false,
            arranged: false,
        }
    }

    pub fn step(
        &mut self,
        question: &'static str,
        status: Status,
        evidence: Vec<String>,
        next: Option<String>,
    ) {
        self.findings.steps.push(Step { question, status, evidence, next });
    }

    pub fn run(mut self) -> Findings {
        self.ask();
        self.findings
    }

    fn ask(&mut self) {
        let aligned = self.tokens() && self.masks();
        let fresh = self.stale();
        let Some((plan, config)) = self.plan() else {
            self.findings.verdict = Verdict::NothingInCommon;
            return;
        };
        if !aligned || !self.one_model(&plan, config.as_ref()) {
            return;
        }
        self.layers(&plan);
        self.replay(&plan, config.as_ref());
        self.logits(&plan);
        self.whole(&plan, config.as_ref());
        self.conclude(fresh);
    }

    /// The same question was asked: token ids are equal.
    fn tokens(&mut self) -> bool {
        let question = "same input?";
        let both = (self.reference.tokens(), self.candidate.tokens());
        let next = "record the ids: accuracy_dump.py does, or dump embed_tokens' input";
        match both {
            (Ok(Some(a)), Ok(Some(b))) if a == b && !self.laid_out_otherwise() => {
                self.step(question, Status::Ok, vec![format!("{}: equal", count(a.len(), "token id"))], None);
                true
            }
            (Ok(Some(a)), Ok(Some(b))) if self.arrange(a.len(), b.len()) => {
                let (first, second) = (count(a.len(), "token id"), count(b.len(), "row"));
                let evidence = format!("{first}, and {second} in another layout: the sequences are equal");
                self.step(question, Status::Ok, vec![evidence], None);
                true
            }
            (Ok(Some(a)), Ok(Some(b))) => {
                let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
                let evidence = format!(
                    "{} ids in the reference, {} in the candidate; they differ from {at} on",
                    a.len(),
                    b.len()
                );
                let next = "dump both runs with the same prompt, batch and padding".to_owned();
                self.step(question, Status::Inconclusive, vec![evidence], Some(next));
                false
            }
            (Err(e), _) | (_, Err(e)) => {
                self.step(question, Status::Inconclusive, vec![e], Some(next.to_owned()));
                true
            }
            (a, _) => {
                let who = if matches!(a, Ok(None)) { "the reference" } else { "the candidate" };
                let evidence = vec![format!("{who} records no token ids: assumed equal")];
                self.step(question, Status::Skipped, evidence, Some(next.to_owned()));
                true
            }
        }
    }

    /// One dump has the tokens in a batch, the other in one row, or both in rows of other lengths.
    fn laid_out_otherwise(&self) -> bool {
        let (a, b) = (&self.reference, &self.candidate);
        a.layout.is_some() != b.layout.is_some() && (a.mask.is_some() || b.mask.is_some())
    }

    /// Finds each sequence of one dump in the other, so that rows can be compared although the dumps lay them out
    /// otherwise: a batch with padding, or one row of all tokens. False if the sequences are not the same.
    fn arrange(&mut self, rows: usize, others: usize) -> bool {
        let both = [&self.reference, &self.candidate].map(|side| side.by_sequence().ok().flatten());
        let [Some(first), Some(second)] = both else { return false };
        if self.reference.layout.is_none() && self.candidate.layout.is_none() {
            return false;
        }
        let tokens = |s: &[(Vec<i64>, Vec<usize>)]| s.iter().map(|s| s.0.len()).sum::<usize>();
        // Rows behind the last token are a graph's of a fixed size: all of them the same id.
        let padded = |own: &[(Vec<i64>, Vec<usize>)], other: &[(Vec<i64>, Vec<usize>)]| {
            let ids: Vec<i64> = own.iter().flat_map(|s| s.0.clone()).collect();
            let wanted: Vec<i64> = other.iter().flat_map(|s| s.0.clone()).collect();
            let rest = ids.get(wanted.len()..).filter(|rest| !rest.is_empty() && ids.starts_with(&wanted));
            rest.is_some_and(|rest| rest.iter().all(|id| *id == rest[0]))
        };
        if tokens(&first) != tokens(&second) {
            let counts = (tokens(&first), tokens(&second));
            if padded(&second, &first) && self.candidate.layout.is_some() {
                self.candidate.cut(counts.0);
            } else if padded(&first, &second) && self.reference.layout.is_some() {
                self.reference.cut(counts.1);
            } else {
                return false;
            }
            let same = self.reference.by_sequence().ok().flatten().map(|s| tokens(&s))
                == self.candidate.by_sequence().ok().flatten().map(|s| tokens(&s));
            return same && self.arrange(rows, others);
        }
        let mut free: Vec<bool> = vec![true; second.len()];
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (ids, places) in &first {
            let found = (0..second.len()).find(|&i| free[i] && second[i].0 == *ids);
            let Some(found) = found else { return false };
            free[found] = false;
            from.extend_from_slice(places);
            to.extend_from_slice(&second[found].1);
        }
        self.reference.arrange(from, rows);
        self.candidate.arrange(to, others);
        self.arranged = true;
        true
    }

    /// The same tokens are padding. A dump without a mask has the other's.
    fn masks(&mut self) -> bool {
        if self.arranged {
            return true;
        }
        match (&self.reference.mask, &self.candidate.mask) {
            (Some((a, shape)), Some((b, other))) if a != b => {
                let hidden = |mask: &[i64]| mask.iter().filter(|&&m| m == 0).count();
                let evidence = format!(
                    "the attention mask hides {} of {shape:?} in the reference, {} of {other:?} in the candidate, or \
                     others",
                    hidden(a),
                    hidden(b)
                );
                let next = "dump both runs with the same prompt, batch and padding".to_owned();
                self.step("same padding?", Status::Inconclusive, vec![evidence], Some(next));
                return false;
            }
            (Some(_), Some(_)) | (None, None) => {}
            (Some((mask, shape)), None) => self.candidate.hide(mask.clone(), *shape),
            (None, Some((mask, shape))) => self.reference.hide(mask.clone(), *shape),
        }
        true
    }

    /// Dumps that cannot be what they claim: the same file twice, one layer's bytes in another.
    fn stale(&mut self) -> bool {
        let question = "dumps fresh?";
        let mut odd = Vec::new();
        let real = |p: &Path| std::fs::canonicalize(p).ok();
        let same_path = real(&self.findings.reference).is_some()
            && real(&self.findings.reference) == real(&self.findings.candidate);
        if same_path {
            odd.push("reference and candidate are the same path".to_owned());
        } else if self.identical {
            odd.push(
                "every tensor is the same, byte for byte: one dump copied, or two runs of the same code \
                      (then --allow-identical)"
                    .to_owned(),
            );
        }
        let mut notes = Vec::new();
        for (name, side) in [("reference", &self.reference), ("candidate", &self.candidate)] {
            match repeated(side) {
                Ok((stale, constant)) => {
                    odd.extend(stale.into_iter().map(|r| format!("{name}: {r}")));
                    notes.extend(constant.into_iter().map(|r| format!("{name}: {r}")));
                }
                Err(e) => odd.push(format!("{name}: {e}")),
            }
            if let Some(how) = side.set.cut.get(&side.step.unwrap_or(0)) {
                odd.push(format!("{name}: {how}"));
            }
            for unread in side.set.unread.iter().take(3) {
                notes.push(format!("{name}: {} is not read: {}", unread.what, unread.reason));
            }
        }
        let fatal = !odd.is_empty();
        let status = if fatal { Status::Inconclusive } else { Status::Ok };
        odd.extend(notes);
        if odd.is_empty() {
            odd.push("no tensor repeats another layer's bytes".to_owned());
        }
        let next = fatal.then(|| "dump again into an empty folder".to_owned());
        self.step(question, status, odd, next);
        !fatal
    }

    /// The operations of the model, or at least its layers.
    fn plan(&mut self) -> Option<(Plan, Option<ModelConfig>)> {
        let question = "model known?";
        if let Some(plan) = self.options.mapping.clone() {
            self.partial = true;
            let config = self.config().ok();
            let evidence = format!("{} operations from the mapping file", plan.ops.len());
            self.step(question, Status::Ok, vec![evidence], None);
            return Some((plan, config));
        }
        let (reason, next) = match self.options.checkpoint {
            None => (
                "no checkpoint: layers are compared, nothing is replayed".to_owned(),
                "give --checkpoint a folder with config.json and the weights",
            ),
            Some(checkpoint) => match self.config() {
                Ok(config) => {
                    let plan = planned(&config, Weights(checkpoint));
                    let evidence = format!(
                        "{}, {} layers, {} operations",
                        config.model_type,
                        config.layers.len(),
                        plan.ops.len()
                    );
                    self.step(question, Status::Ok, vec![evidence], None);
                    return Some((plan, Some(config)));
                }
                Err(e @ ModelError::Unknown { .. }) => {
                    (e.to_string(), "describe the model's operations in a file (--mapping)")
                }
                Err(e) => {
                    (e.to_string(), "mend config.json, or describe the operations in a file (--mapping)")
                }
            },
        };
        let mut layers = generic(&self.reference.set);
        if let (Some(plan), Some(checkpoint)) = (&mut layers, self.options.checkpoint)
            && recognise(
                plan,
                &self.reference,
                Weights(checkpoint),
                Object::read(&self.config_path()).ok().as_ref(),
            )
        {
            self.partial = true;
            self.recognised = true;
            let found = count(plan.ops.len(), "operation");
            let told = format!(
                "{found} recognised by names, weights and numbers; attention, routing and sums are not"
            );
            self.step(question, Status::Skipped, vec![reason, told], Some(next.to_owned()));
            return layers.map(|plan| (plan, None));
        }
        let status = if layers.is_some() { Status::Skipped } else { Status::Inconclusive };
        self.step(question, status, vec![reason], Some(next.to_owned()));
        layers.map(|plan| (plan, None))
    }

    fn config(&self) -> Result<ModelConfig, ModelError> {
        ModelConfig::read(&self.config_path())
    }

    fn config_path(&self) -> PathBuf {
        let path = self.options.checkpoint.map_or(Path::new(""), |c| c.path());
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        folder.join("config.json")
    }

    /// Both dumps are of the checkpoint's model, as far as widths and layers tell.
    fn one_model(&mut self, plan: &Plan, config: Option<&ModelConfig>) -> bool {
        let width = |side: &Side| {
            let view = plan.stream.iter().find_map(|site| side.view(site).ok().flatten())?;
            Some((view.cols, view.place))
        };
        let both = [("reference", &self.reference), ("candidate", &self.candidate)];
        let found = both.map(|(name, side)| (name, width(side), side.set.layers().last().copied()));
        let mut odd = Vec::new();
        if let [(_, Some((a, at)), _), (_, Some((b, other)), _)] = &found
            && a != b
        {
            odd.push(format!("{at} has {a} columns in the reference, {other} {b} in the candidate"));
        }
        if let Some(config) = config.filter(|_| !self.partial) {
            let (hidden, layers) = (config.hidden, config.layers.len());
            for (name, width, last) in &found {
                if let Some((width, at)) = width.as_ref().filter(|w| w.0 != hidden) {
                    odd.push(format!(
                        "{name}: {at} has {width} columns, the checkpoint's hidden_size is {hidden}"
                    ));
                }
                if let Some(last) = last.filter(|&last| last >= layers) {
                    odd.push(format!(
                        "{name}: there is a layer {last}, the checkpoint has {}",
                        count(layers, "layer")
                    ));
                }
            }
        }
        if odd.is_empty() {
            return true;
        }
        let next = "dump the two runs of one model, and give its checkpoint".to_owned();
        self.step("same model?", Status::Inconclusive, odd, Some(next));
        false
    }

    fn layers(&mut self, plan: &Plan) {
        let profiles: Vec<LayerProfile> =
            (0..plan.modules.len()).map(|i| layer(&self.reference, &self.candidate, plan, i)).collect();
        let mut evidence = Vec::new();
        let seen = profiles.iter().filter(|p| p.worst().is_some()).count();
        let worst =
            profiles.iter().filter_map(|p| Some((p.layer, p.worst()?.rel_l2.unwrap_or(f64::INFINITY))));
        let identical = profiles.iter().filter(|p| p.identical()).count();
        if let Some((at, error)) = worst.max_by(|a, b| a.1.total_cmp(&b.1)) {
            evidence.push(format!(
                "{seen} of {} layers compared, {identical} of them bit for bit equal; largest difference of what a \
                 layer adds: {error:.2e}, layer {at}",
                profiles.len()
            ));
        }
        let problems: Vec<&String> = profiles.iter().flat_map(|p| &p.problems).collect();
        evidence.extend(problems.iter().take(4).map(|p| format!("INCONCLUSIVE {p}")));
        let (status, next) = if seen == 0 {
            evidence.push("no layer's input and output are in both dumps".to_owned());
            let next = format!("dump the outputs of {} in both runs", plan.modules[0].replace('0', "*"));
            (Status::Inconclusive, Some(next))
        } else if let Some(idle) = profiles.iter().find(|p| p.adds_nothing) {
            evidence.push(format!("layer {} adds nothing in the candidate", idle.layer));
            (Status::Fault, None)
        } else if problems.is_empty() && seen == profiles.len() {
            (Status::Ok, None)
        } else if problems.is_empty() {
            let without: Vec<usize> =
                profiles.iter().filter(|p| p.worst().is_none()).map(|p| p.layer).collect();
            let first = &plan.modules[without[0]];
            evidence.push(format!("not compared: {}", numbered("layer", &without)));
            (
                Status::Inconclusive,
                Some(format!("dump input and output of {first} and the others in both runs")),
            )
        } else {
            (Status::Inconclusive, Some("make the two dumps' shapes and ranks agree".to_owned()))
        };
        self.step("layers apart?", status, evidence, next);
        self.findings.layers = profiles;
    }

    fn replay(&mut self, plan: &Plan, config: Option<&ModelConfig>) {
        let question = "which operation?";
        let Some(checkpoint) = self.options.checkpoint.filter(|_| !plan.ops.is_empty()) else {
            self.divergence(question);
            return;
        };
        for side in [&mut self.reference, &mut self.candidate] {
            let after = plan.stream.iter().skip(1).find_map(|site| side.view(site).ok().flatten());
            if let Some(view) = after {
                side.precision = view.precision();
            }
        }
        let replay = Replay { checkpoint, config, whole: false };
        let (numbers, skipped) = self.replay_operations(&replay, plan);
        self.settle(plan, &numbers);
        self.unsummed();
        self.explain(&replay, plan, &numbers);
        let tally = self.tally();
        let mut evidence = self.evidence(tally, skipped.len());
        let (status, next) = self.answer(tally, plan, &mut evidence);
        self.step(question, status, evidence, next);
        if tally.wrong == 0 && (self.recognised || tally.replayed() == 0 && skipped.is_empty()) {
            self.divergence("where does it start?");
        }
    }

    /// Replays the operations of the plan that differ, or may. Returns the number in the plan of each that was looked at, and
    /// the layers that are bit for bit equal.
    fn replay_operations(&mut self, replay: &Replay, plan: &Plan) -> (Vec<usize>, BTreeSet<usize>) {
        // Names of operations that are wrong in the first bad layer: later ones are asked about these only.
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut first: Option<usize> = None;
        let mut skipped: BTreeSet<usize> = BTreeSet::new();
        // The number in the plan of each operation that was looked at.
        let mut numbers: Vec<usize> = Vec::new();
        let mut layer = None;
        for (index, op) in plan.ops.iter().enumerate() {
            if op.layer != layer {
                layer = op.layer;
                self.reference.forget();
                self.candidate.forget();
            }
            if let Some(i) = op.layer {
                let later = first.is_some_and(|f| f < i) && !self.options.all_layers;
                if later && !known.contains(&op.name) && op.kind != OpKind::Copy {
                    continue;
                }
                if self.findings.layers[i].identical() && !self.options.all_layers {
                    skipped.insert(i);
                    continue;
                }
            }
            let finding = self.one(replay, plan, index);
            // Places of other engines: what neither dump has was not to be moved there. A table that neither has is
            // checked where it is used.
            let moves = matches!(
                op.kind,
                OpKind::Copy | OpKind::Rotate { .. } | OpKind::UnitNorm { .. } | OpKind::RopeTable { .. }
            );
            let missing = |o: &Outcome| matches!(o, Outcome::Missing(_));
            if moves && missing(&finding.reference) && missing(&finding.candidate) {
                continue;
            }
            numbers.push(index);
            self.findings.ops.push(finding);
            if op.of_experts && matches!(op.kind, OpKind::Sum { .. }) {
                self.scaled_later();
            }
            let wrong = || self.findings.ops.iter().filter(|o| o.status == OpStatus::CandidateWrong);
            known = wrong().map(|o| o.name.clone()).collect();
            first = wrong().find_map(|o| o.layer);
        }
        (numbers, skipped)
    }

    fn tally(&self) -> Tally {
        let of = |status| self.findings.ops.iter().filter(|o| o.status == status).count();
        Tally {
            right: of(OpStatus::Right),
            wrong: of(OpStatus::CandidateWrong),
            reference: of(OpStatus::ReferenceWrong),
            both: of(OpStatus::BothWrong),
            missing: of(OpStatus::NotReplayed),
        }
    }

    /// What the step about operations says of them.
    fn evidence(&self, tally: Tally, skipped: usize) -> Vec<String> {
        let mut evidence =
            vec![format!("{} replayed: {} right", count(tally.replayed(), "operation"), tally.right)];
        let mut tell = |n: usize, what: &str| {
            if n > 0 {
                evidence.push(format!("{n} {what}"));
            }
        };
        tell(tally.wrong, "wrong in the candidate alone");
        tell(tally.reference, "wrong in the reference alone");
        tell(tally.both, "wrong in both: the reading of the model is wrong, or both runs are");
        tell(tally.missing, "not in the dumps, or not usable");
        if skipped > 0 {
            let layers = count(skipped, "layer");
            evidence.push(format!("{layers} bit for bit equal and not replayed"));
        }
        for op in self.findings.ops.iter().filter(|o| o.status == OpStatus::NotReplayed) {
            if let Outcome::Unusable(why) = &op.candidate {
                evidence.push(format!("INCONCLUSIVE {}: {why}", op.label()));
            } else if let Outcome::Unusable(why) = &op.reference {
                evidence.push(format!("INCONCLUSIVE {}, reference: {why}", op.label()));
            }
        }
        evidence.truncate(12);
        evidence
    }

    /// The answer to which operation is wrong, and what to do next.
    fn answer(&self, tally: Tally, plan: &Plan, evidence: &mut Vec<String>) -> (Status, Option<String>) {
        let Tally { right, wrong, both, reference, .. } = tally;
        let open = self.open(plan);
        if wrong > 4 && wrong > right {
            let next = "most operations are wrong: does the candidate run this checkpoint?".to_owned();
            (Status::Fault, Some(next))
        } else if wrong > 0 {
            let rest = "describe the model's other operations in a file (--mapping)";
            (Status::Fault, self.recognised.then(|| rest.to_owned()))
        } else if both > 4 && both > right {
            let next =
                "most operations are wrong in both: is the checkpoint the one that was run?".to_owned();
            (Status::Inconclusive, Some(next))
        } else if both + reference > 0 {
            let first = |status| {
                let op = self.findings.ops.iter().find(|o| o.status == status);
                op.map_or(String::new(), OpFinding::label)
            };
            if both == 0 && right > 0 && open.is_none() {
                let first = first(OpStatus::ReferenceWrong);
                evidence.push(format!(
                    "the candidate is right in all of them; the reference is wrong first in {first}"
                ));
                let next =
                    "were the two folders swapped? else make the reference anew: float32, eager attention";
                (Status::Inconclusive, Some(next.to_owned()))
            } else if both == 0 {
                let next = "make the reference anew: float32, eager attention".to_owned();
                evidence.push(format!("wrong first in the reference: {}", first(OpStatus::ReferenceWrong)));
                (Status::Inconclusive, Some(next))
            } else {
                evidence.push(format!("wrong first in both: {}", first(OpStatus::BothWrong)));
                let next = "make the reference with other code than the candidate's (transformers on a CPU, float32, \
                            eager attention); if both are wrong still, config.json or --mapping do not say what the \
                            model computes";
                (Status::Inconclusive, Some(next.to_owned()))
            }
        } else if let Some((what, next)) = open {
            evidence.extend(what);
            (Status::Inconclusive, Some(next))
        } else {
            (Status::Ok, None)
        }
    }

    /// Where a fault may still be: layers and operations that differ, or may, and that were not replayed. What is known
    /// of them, and what to dump.
    fn open(&self, plan: &Plan) -> Option<(Vec<String>, String)> {
        let f = &self.findings;
        let differs = |i: usize| !f.layers[i].identical();
        let mut layers: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        let mut outside: BTreeSet<&str> = BTreeSet::new();
        for op in f.ops.iter().filter(|o| o.is_gap()) {
            match op.layer {
                Some(i) if differs(i) => _ = layers.entry(i).or_default().insert(&op.name),
                Some(_) => {}
                None => _ = outside.insert(&op.name),
            }
        }
        if self.partial {
            (0..f.layers.len()).filter(|&i| differs(i)).for_each(|i| _ = layers.entry(i).or_default());
        }
        let enters = f.layers.first().and_then(|l| l.before.as_ref());
        if enters.is_some_and(|a| a.identical) {
            outside.remove("embedding");
        } else if !plan.ops.iter().any(|op| matches!(op.kind, OpKind::Embedding { .. }))
            && enters.is_none_or(|a| a.rel_l2.is_none_or(|e| e > ENTERING * f.layers[0].unit))
        {
            outside.insert("what comes before layer 0");
        }
        let mut evidence = Vec::new();
        let mut modules: Vec<String> = Vec::new();
        if let Some((&first, ops)) = layers.first_key_value() {
            let list = numbered("layer", &layers.keys().copied().collect::<Vec<_>>());
            evidence.push(match ops.is_empty() {
                true => {
                    let rest =
                        if self.recognised { "is not recognised" } else { "the mapping does not list" };
                    format!("not the same: {list}; what {rest} may be wrong")
                }
                false => {
                    format!("not the same and not replayed whole: {list}; of layer {first}: {}", some(ops))
                }
            });
            modules.push(format!("{}*", plan.modules[first].trim_end_matches(|c: char| c.is_ascii_digit())));
        }
        let apart = apart(&self.reference, &self.candidate, plan);
        if let Some(Apart { layer, error, bound }) = &apart {
            evidence.push(match error.is_finite() {
                true => format!(
                    "the cache that the pass found is {error:.1e} apart in layer {layer}, the pass's own keys and values let \
                     expect {bound:.1e}: a fault or another choice of experts in an earlier pass"
                ),
                false => format!("layer {layer}: the cache that the pass found cannot be compared"),
            });
        }
        let without_cache: Vec<usize> =
            f.ops.iter().filter(|o| o.lacks_cache()).filter_map(|o| o.layer).collect();
        if !without_cache.is_empty() {
            evidence.push(format!(
                "attention of {}: {CACHE} are not in the dump",
                numbered("layer", &without_cache)
            ));
        }
        if !outside.is_empty() {
            evidence.push(format!("not replayed outside of the layers: {}", some(&outside)));
            let gaps = f.ops.iter().filter(|o| o.is_gap() && o.layer.is_none());
            modules.extend(gaps.filter_map(|o| o.place.split(' ').next()).map(str::to_owned));
        }
        modules.dedup();
        let gaps = || f.ops.iter().filter(|o| o.is_gap());
        let next = match modules.is_empty() {
            _ if self.recognised => "describe the model's other operations in a file (--mapping)".to_owned(),
            true if apart.is_some() => "dump the passes before this one, too (without steps=)".to_owned(),
            true => "compare the two embedding layers".to_owned(),
            false if gaps().all(OpFinding::is_unusable) && !self.partial => {
                "mend what is named above: it is there, or in the checkpoint, and cannot be used".to_owned()
            }
            false if gaps().all(OpFinding::lacks_cache) && outside.is_empty() && !self.partial => {
                "dump the passes before this one, too (without steps=), or all modules with hooks/accuracy_dump.py, which \
                 writes the cache of the first pass that it dumps"
                    .to_owned()
            }
            false => format!(
                "dump inputs and outputs of {} in both runs (hooks/accuracy_dump.py takes all modules)",
                modules.join(", ")
            ),
        };
        (!evidence.is_empty()).then_some((evidence, next))
    }

    /// Tries known mistakes on operations that later ones have shown to be wrong.
    fn explain(&mut self, replay: &Replay<'_>, plan: &Plan, numbers: &[usize]) {
        for (i, &number) in numbers.iter().enumerate() {
            let op = &self.findings.ops[i];
            let Outcome::Judged(judged) = &op.candidate else { continue };
            if op.status == OpStatus::CandidateWrong && op.cause.is_none() && judged.through.is_empty() {
                let cause = replay.causes(&self.candidate, plan, &plan.ops[number], judged);
                self.findings.ops[i].cause = cause;
                return;
            }
        }
    }

    /// The routing weights of a layer lack their factor and what is made of them has it: the factor was applied later,
    /// which is no mistake.
    fn scaled_later(&mut self) {
        let layer = self.findings.ops.last().and_then(|o| o.layer);
        let ops = &mut self.findings.ops;
        let start = ops.iter().position(|o| o.layer == layer).unwrap_or(0);
        let part = &mut ops[start..];
        let sides: [fn(&mut OpFinding) -> &mut Outcome; 2] = [|o| &mut o.reference, |o| &mut o.candidate];
        for side in sides {
            let late = |o: &mut OpFinding| matches!(side(o), Outcome::Judged(j) if j.late);
            let Some((last, before)) = part.split_last_mut() else { return };
            // Something before the sum lacks the factor, and the sum is not what it should be without it.
            let wrong = matches!(side(last), Outcome::Judged(j) if !j.ok);
            if !wrong || !before.iter_mut().any(late) {
                continue;
            }
            for op in part.iter_mut() {
                if let Outcome::Judged(judged) = side(op)
                    && judged.late
                {
                    judged.ok = true;
                    judged.notes.clear();
                }
                op.status = status_of(&op.reference, &op.candidate);
                if op.status == OpStatus::Right {
                    op.cause = None;
                }
            }
        }
    }

    /// Where ranks differ that should not, the last operation that left each of them a summand is the one that is wrong.
    fn unsummed(&mut self) {
        let ranks = |o: &OpFinding| match &o.candidate {
            Outcome::Judged(j) => j.ranks,
            _ => Ranks::Agree,
        };
        let Some(at) = self.findings.ops.iter().position(|o| ranks(o) == Ranks::Apart) else { return };
        let Some(from) = self.findings.ops[..at]
            .iter()
            .rposition(|o| ranks(o) == Ranks::Summands && o.status == OpStatus::Right && !o.is_copy)
        else {
            return;
        };
        let finding = &mut self.findings.ops[from];
        finding.status = OpStatus::CandidateWrong;
        if let Outcome::Judged(judged) = &mut finding.candidate {
            judged.ok = false;
            judged.ranks = Ranks::NeverSummed;
        }
    }

    /// What later operations tell of those that were not replayed, or in one dump only.
    fn settle(&mut self, plan: &Plan, numbers: &[usize]) {
        let (mut within, mut right) = (BTreeSet::new(), BTreeSet::new());
        for op in &self.findings.ops {
            if let (OpStatus::Right, Outcome::Judged(j)) = (op.status, &op.candidate)
                && j.through.len() <= NEAR
            {
                within.extend(j.through.iter().copied());
            }
            if let Outcome::Judged(j) = &op.reference
                && j.ok
            {
                right.extend(j.through.iter().copied());
            }
        }
        // What the candidate alone has is read rightly if it is right in another layer, or if what the reference
        // makes of it is right.
        let known: BTreeSet<String> = self
            .findings
            .ops
            .iter()
            .filter(|o| o.status == OpStatus::Right && !matches!(o.reference, Outcome::Judged(_)))
            .map(|o| o.name.clone())
            .collect();
        let attends: BTreeSet<Option<usize>> = self
            .findings
            .ops
            .iter()
            .zip(numbers)
            .filter(|(o, number)| {
                matches!(plan.ops[**number].kind, OpKind::Attention { .. })
                    && matches!(&o.reference, Outcome::Judged(j) if j.ok)
            })
            .map(|(o, _)| o.layer)
            .collect();
        for (op, number) in self.findings.ops.iter_mut().zip(numbers) {
            let rotates = matches!(plan.ops[*number].kind, OpKind::Rotate { .. } | OpKind::UnitNorm { .. });
            match op.status {
                OpStatus::BothWrong
                    if !matches!(op.reference, Outcome::Judged(_))
                        && (known.contains(&op.name) || rotates && attends.contains(&op.layer)) =>
                {
                    op.status = OpStatus::CandidateWrong;
                }
                OpStatus::NotReplayed => op.implied |= within.contains(number),
                OpStatus::BothWrong
                    if !matches!(op.reference, Outcome::Judged(_)) && right.contains(number) =>
                {
                    op.status = OpStatus::CandidateWrong;
                }
                _ => {}
            }
        }
    }

    fn one(&self, replay: &Replay<'_>, plan: &Plan, index: usize) -> OpFinding {
        let op = &plan.ops[index];
        let place = op.output.0.first().map_or(String::new(), |p| format!("{} {}", p.module, p.kind.name()));
        let candidate = replay.op(&self.candidate, index, op);
        // What the candidate lacks is asked of the reference for what is made of it.
        let reference = replay.op(&self.reference, index, op);
        let (reference, candidate) = settled(reference, candidate);
        let status = status_of(&reference, &candidate);
        let cause = match (&candidate, status) {
            (Outcome::Judged(judged), OpStatus::CandidateWrong) => {
                replay.causes(&self.candidate, plan, op, judged)
            }
            _ => None,
        };
        let explained = cause.as_ref().filter(|c| c.explains).and_then(|c| c.op);
        let through = match &candidate {
            Outcome::Judged(judged) => &judged.through[..],
            _ => &[],
        };
        let name = match (&op.kind, explained) {
            (_, Some(name)) => name.to_owned(),
            (_, None) if matches!(&candidate, Outcome::Judged(j) if j.ranks == Ranks::SummedTwice) => {
                op.name.clone()
            }
            (_, None) if !through.is_empty() && status != OpStatus::Right => {
                let last = (op.kind != OpKind::Copy).then_some(index);
                span(plan, through.iter().copied().chain(last))
            }
            (OpKind::Copy, None) if op.name == "wiring" => {
                let from = op.inputs[0].0.first().map_or("", |p| &p.module);
                format!("wiring {} -> {}", short(from), short(&place))
            }
            _ => op.name.clone(),
        };
        // A table that no dump holds is made by the attention that uses it.
        let implied = matches!(
            op.kind,
            OpKind::Copy | OpKind::RopeTable { .. } | OpKind::Rotate { .. } | OpKind::UnitNorm { .. }
        );
        let is_copy = op.kind == OpKind::Copy;
        OpFinding { layer: op.layer, name, place, implied, is_copy, status, reference, candidate, cause }
    }

    fn logits(&mut self, plan: &Plan) {
        if let Ok(Some((a, b))) = pair(&self.reference, &self.candidate, &plan.logits) {
            let top = |row: &[f64]| {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                best.map_or(0, |b| b.0)
            };
            let flips = AtomicUsize::new(0);
            let [agreement] = agreements((a.rows, a.cols), |rows, [(x, y)]| {
                a.read(rows.clone(), x);
                b.read(rows.clone(), y);
                let pairs = x.chunks_exact(a.cols).zip(y.chunks_exact(a.cols));
                let shown = pairs.zip(rows).filter(|(_, row)| !a.is_hidden(*row));
                flips.fetch_add(shown.filter(|((x, y), _)| top(x) != top(y)).count(), Relaxed);
            });
            let flips = flips.into_inner();
            let mut evidence = vec![format!(
                "logits: cosine {}, another token is likeliest at {flips} of {} positions",
                agreement.cos.map_or("-".to_owned(), |c| format!("{c:.6}")),
                (0..a.rows).filter(|&row| !a.is_hidden(row)).count()
            )];
            self.findings.logits = Some(agreement);
            let any = |status| self.findings.steps.iter().any(|s| s.status == status);
            let (status, why) = match () {
                () if flips == 0 => (Status::Ok, None),
                () if self.findings.guilty.is_some() || any(Status::Fault) => {
                    (Status::Fault, Some("what follows from the fault"))
                }
                () if any(Status::Inconclusive) => {
                    (Status::Inconclusive, Some("rounding or a fault: not everything was replayed"))
                }
                () => (Status::Ok, Some("rounding: every operation is right to within it")),
            };
            evidence.extend(why.map(str::to_owned));
            self.step(IMPACT, status, evidence, None);
        }
    }

    /// Whether the logits are off by no more than correct rounding and quantisation of the whole model explain.
    fn whole(&mut self, plan: &Plan, config: Option<&ModelConfig>) {
        let (Some(checkpoint), Some(config)) = (self.options.checkpoint, config) else { return };
        let wrong = self.findings.steps.iter().any(|s| s.status == Status::Fault);
        let unit = self.candidate.precision.unit().max(self.reference.precision.unit());
        let near = |a: &Agreement| a.rel_l2.is_some_and(|e| e <= UNSEEN * unit);
        if self.partial || wrong || self.findings.logits.as_ref().is_none_or(near) {
            return;
        }
        let replay = Replay { checkpoint, config: Some(config), whole: true };
        let Some(found) = explained(&replay, plan, &self.reference, &self.candidate) else {
            if config.attention.indexer.is_some() {
                let why = "not computed: rounding decides which positions each token attends to";
                self.step("logits explained?", Status::Skipped, vec![why.to_owned()], None);
            }
            return;
        };
        let shown = |e: Option<f64>| e.map_or("not there".to_owned(), |e| format!("{e:.2e}"));
        let evidence = vec![format!(
            "logits of {}: off by {} in the candidate, {} in the reference; correct rounding and quantisation of the \
             whole model make {:.2e}",
            count(found.tokens, "token"),
            shown(found.candidate),
            shown(found.reference),
            found.noise
        )];
        let (status, next) = match (found.exceeds(found.candidate), found.exceeds(found.reference)) {
            (false, false) => (Status::Ok, None),
            (true, _) => (
                Status::Inconclusive,
                Some(
                    "each operation is within its bound, and together they are off by more than chance: compare the \
                     formats that the engine computes and quantises in with the checkpoint's configuration",
                ),
            ),
            (false, true) => {
                (Status::Inconclusive, Some("make the reference anew: float32, eager attention"))
            }
        };
        self.step("logits explained?", status, evidence, next.map(str::to_owned));
    }

    /// Whether any value of the step has one name in both dumps.
    fn shares_a_value(&self) -> bool {
        let here = self.reference.set.tensors.iter().filter(|t| t.id.step == self.reference.step);
        let there = |t: &DumpTensor| TensorId { step: self.candidate.step, ..t.id.clone() };
        here.into_iter().any(|t| self.candidate.set.get(&there(t)).is_some())
    }

    fn conclude(&mut self, fresh: bool) {
        let shared = self.shares_a_value();
        let f = &mut self.findings;
        // An operation of the layer that was replayed by itself tells more.
        let alone = |o: &&OpFinding| {
            o.status == OpStatus::CandidateWrong
                && matches!(&o.candidate, Outcome::Judged(j) if j.through.is_empty())
        };
        let wrong = f.ops.iter().filter(alone).filter_map(|o| o.layer).min();
        let skipped = f.layers.iter().find(|l| l.adds_nothing).map(|l| l.layer);
        let skipped = skipped.filter(|&layer| wrong.is_none_or(|wrong| layer < wrong));
        let wrong: Vec<&OpFinding> = f.ops.iter().filter(|o| o.status == OpStatus::CandidateWrong).collect();
        if let Some(layer) = skipped {
            let op = "the whole layer is skipped".to_owned();
            let detail = "its output is its input, bit for bit, which the reference's is not".to_owned();
            f.guilty = Some(Guilty { layer: Some(layer), op, evidence: vec![detail] });
            f.bad_layers = f.layers.iter().filter(|l| l.adds_nothing).map(|l| l.layer).collect();
        } else if let Some(first) = wrong.first() {
            let mut detail = Vec::new();
            let mut summed = false;
            if let Outcome::Judged(judged) = &first.candidate {
                summed = matches!(judged.ranks, Ranks::NeverSummed | Ranks::SummedTwice);
                if judged.error.is_finite() {
                    detail
                        .push(format!("off by {:.2e}, rounding explains {:.2e}", judged.error, judged.bound));
                }
                detail.extend(judged.notes.clone());
                detail.extend(match judged.ranks {
                    Ranks::NeverSummed => Some("explained: the ranks' parts are never summed".to_owned()),
                    Ranks::SummedTwice => Some("explained: the sum over ranks is done twice".to_owned()),
                    Ranks::Agree | Ranks::Summands | Ranks::Apart => None,
                });
            }
            if let Some(cause) = first.cause.as_ref().filter(|_| !summed) {
                let how = if cause.explains { "explained" } else { "closest known mistake" };
                detail.push(format!("{how}: {}", cause.detail));
            }
            f.guilty = Some(Guilty { layer: first.layer, op: first.name.clone(), evidence: detail });
            f.bad_layers =
                wrong.iter().filter_map(|o| o.layer).collect::<BTreeSet<_>>().into_iter().collect();
            let same = |o: &&OpFinding| o.layer.is_some() && o.name == first.name;
            let alike: BTreeSet<_> = wrong.iter().copied().filter(same).filter_map(|o| o.layer).collect();
            let right = f.ops.iter().filter(|o| o.status == OpStatus::Right && o.layer != first.layer);
            let asked: BTreeSet<_> = right.filter(same).filter_map(|o| o.layer).collect();
            f.systematic = match (asked.is_empty(), alike.len()) {
                (false, 1..) => Some(false),
                (true, 2..) => Some(true),
                _ => None,
            };
        } else if let Some(guilty) = &f.guilty {
            f.bad_layers = guilty.layer.into_iter().collect();
        }
        if let (Some(&first), Some(end)) = (f.bad_layers.first(), f.layers.last()) {
            let error = |a: &Option<Agreement>| a.as_ref().and_then(|a| a.rel_l2);
            if let (Some(start), Some(end)) = (error(&f.layers[first].after), error(&end.after)) {
                let before = error(&f.layers[first].before).unwrap_or(0.0);
                let own = (start * start - before * before).max(0.0).sqrt();
                f.compounding = Some([start, end, own * (f.bad_layers.len() as f64).sqrt()]);
            }
        }
        let unread = f.steps.iter().any(|s| s.status == Status::Inconclusive);
        let replayed = f.ops.iter().filter(|o| o.status == OpStatus::Right).count();
        let equal = !f.layers.is_empty() && f.layers.iter().all(LayerProfile::identical);
        let judged = f.ops.iter().any(|o| matches!(o.candidate, Outcome::Judged(_)));
        let compared = f.layers.iter().any(|l| l.worst().is_some() || l.after.is_some());
        f.verdict = match () {
            () if f.guilty.is_some() => Verdict::Fault,
            () if !judged && !compared && !shared => Verdict::NothingInCommon,
            () if unread || !fresh => Verdict::Inconclusive,
            () if replayed > 0 || equal => Verdict::Agrees,
            () => Verdict::Inconclusive,
        };
    }
}

/// The operations of a model, with the names that its checkpoint has for their weights.
fn planned(config: &ModelConfig, weights: Weights<'_>) -> Plan {
    let form = &config.form;
    let tied = !weights.has(&format!("{}.weight", form.head));
    let mut plan = Plan::of(config, tied);
    let has = |prefix: &str| weights.has(&format!("{prefix}.{}.weight", form.embeddings));
    if let Some(other) = form.stored.iter().find(|other| !has(form.prefix) && has(other)) {
        plan.stored_under(form.prefix, other);
    }
    plan
}

/// A step's tokens may have others before them that the dump does not show. That they have none is proven by a reference
/// which is right so; else the operation was not replayed.
fn settled(reference: Outcome, candidate: Outcome) -> (Outcome, Outcome) {
    let alone = |o: &Outcome| matches!(o, Outcome::Judged(j) if j.alone);
    let proven = matches!(&reference, Outcome::Judged(j) if j.ok || !j.alone);
    let kept = |o: Outcome| if alone(&o) && !proven { Outcome::NoCache } else { o };
    (kept(reference), kept(candidate))
}

/// Who is wrong, by the replays of both dumps.
fn status_of(reference: &Outcome, candidate: &Outcome) -> OpStatus {
    match (reference, candidate) {
        (Outcome::Judged(r), Outcome::Judged(c)) => match (r.ok, c.ok) {
            (true, true) => OpStatus::Right,
            (true, false) => OpStatus::CandidateWrong,
            (false, true) => OpStatus::ReferenceWrong,
            (false, false) => OpStatus::BothWrong,
        },
        // The reference lacks it: the candidate is judged against the replay alone.
        (_, Outcome::Judged(c)) if c.ok => OpStatus::Right,
        (_, Outcome::Judged(_)) => OpStatus::BothWrong,
        _ => OpStatus::NotReplayed,
    }
}

/// Operations of which one is wrong, in their order.
fn span(plan: &Plan, ops: impl Iterator<Item = usize>) -> String {
    let mut names: Vec<&str> = ops.map(|i| plan.ops[i].name.as_str()).collect();
    names.dedup();
    match &names[..] {
        [one] => (*one).to_owned(),
        [first, .., last] if names.len() > NEAR + 1 => {
            format!("one of {} operations, {first} to {last}", names.len())
        }
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => "wiring".to_owned(),
    }
}

/// `1 layer`, `2 layers`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `layer 3`, `layers 1, 2, 3`.
fn numbered(what: &str, of: &[usize]) -> String {
    let shown: Vec<String> = of.iter().take(8).map(usize::to_string).collect();
    let (many, more) = (if of.len() == 1 { "" } else { "s" }, if of.len() > 8 { ", .." } else { "" });
    format!("{what}{many} {}{more}", shown.join(", "))
}

/// The first few of a list.
fn some(of: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = of.iter().take(6).copied().collect();
    shown.join(", ") + &if of.len() > 6 { format!(" and {} more", of.len() - 6) } else { String::new() }
}

/// The last two parts of a module's path.
pub fn short(module: &str) -> &str {
    let mut dots = module.rmatch_indices('.');
    dots.nth(1).map_or(module, |(at, _)| &module[at + 1..])
}

/// A plan with layers only, from the modules of a dump.
fn generic(set: &DumpSet) -> Option<Plan> {
    let prefix = set.tensors.iter().find_map(|t| {
        let layer = t.id.layer?.to_string();
        let at = t.id.module.find(&format!(".{layer}"))?;
        Some(t.id.module[..at].to_owned())
    })?;
    let count = set.layers().last().map_or(0, |l| l + 1);
    let modules: Vec<String> = (0..count).map(|i| format!("{prefix}.{i}")).collect();
    let given = |module: &String, input: bool| {
        let (site, residual) = match input {
            true => (Site::input(module), LAYER_RESIDUAL),
            false => (Site::output(module), RESIDUAL),
        };
        site.clone().plus(residual).or(site)
    };
    let mut stream: Vec<Site> = modules.iter().map(|m| given(m, true)).collect();
    for i in 1..count {
        stream[i].0.extend(given(&modules[i - 1], false).0);
    }
    stream.push(given(modules.last()?, false));
    let branches = modules.iter().map(|m| {
        vec![("attention", Site::output(format!("{m}.self_attn"))), ("mlp", Site::output(format!("{m}.mlp")))]
    });
    let logits = Site::output("lm_head");
    Some(Plan { ops: Vec::new(), stream, branches: branches.collect(), modules, logits })
}
