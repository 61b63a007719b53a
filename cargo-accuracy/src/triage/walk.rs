//! The decision tree: which questions are asked of the dumps, in which order, and what follows from the answers.

use super::profile::{Agreement, LayerProfile, agreements, layer, pair};
use super::replay::{Cause, Outcome, Replay};
use super::side::Side;
use accuracy_core::dumps::{DumpSet, DumpTensor, Kind, Merge};
use accuracy_core::model::ops::Weights;
use accuracy_core::model::{ModelConfig, ModelError, Op, OpKind, Plan, Site};
use accuracy_core::weights::Checkpoint;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A layer that nothing was replayed of is wrong where it introduces more than this, from inputs that agree.
const UNEXPLAINED: f64 = 0.05;
/// The question whose answer is a measurement: which tokens the fault costs.
pub const IMPACT: &str = "does it matter?";

pub struct Options<'a> {
    pub checkpoint: Option<&'a Checkpoint>,
    pub mapping: Option<Plan>,
    pub step: Option<u64>,
    pub all_layers: bool,
    pub allow_identical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was looked at agrees.
    Agrees,
    Fault,
    Inconclusive,
    NothingInCommon,
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
    pub status: OpStatus,
    pub reference: Outcome,
    pub candidate: Outcome,
    pub cause: Option<Cause>,
}

/// The answer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Guilty {
    /// `None`: before the first layer or after the last.
    pub layer: Option<usize>,
    pub op: String,
    pub detail: String,
}

#[derive(Debug)]
pub struct Findings {
    pub reference: PathBuf,
    pub candidate: PathBuf,
    pub checkpoint: Option<PathBuf>,
    pub verdict: Verdict,
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

/// Goes through the steps.
///
/// # Errors
/// A step that one of the dumps does not have.
pub fn walk(reference: DumpSet, candidate: DumpSet, options: Options<'_>) -> Result<Findings, String> {
    let (first, second) = steps(&reference, &candidate, options.step)?;
    let mut walk = Walk {
        findings: Findings {
            reference: reference.path.clone(),
            candidate: candidate.path.clone(),
            checkpoint: options.checkpoint.map(|c| c.path().to_owned()),
            verdict: Verdict::Inconclusive,
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
    };
    walk.run();
    Ok(walk.findings)
}

fn steps(a: &DumpSet, b: &DumpSet, wanted: Option<u64>) -> Result<(Option<u64>, Option<u64>), String> {
    let (first, second) = (a.steps(), b.steps());
    if let Some(n) = wanted {
        let has = |steps: &[Option<u64>]| steps.contains(&Some(n));
        return match (has(&first), has(&second)) {
            (true, true) => Ok((Some(n), Some(n))),
            (false, _) => Err(format!("the reference has no step {n}; it has {}", list(&first))),
            _ => Err(format!("the candidate has no step {n}; it has {}", list(&second))),
        };
    }
    let common = first.iter().find(|s| second.contains(s)).copied();
    match common {
        Some(step) => Ok((step, step)),
        None if first.len() == 1 && second.len() == 1 => Ok((first[0], second[0])),
        None => Err(format!(
            "no step is in both dumps: {} in the reference, {} in the candidate",
            list(&first),
            list(&second)
        )),
    }
}

fn list(steps: &[Option<u64>]) -> String {
    let shown: Vec<String> =
        steps.iter().take(8).map(|s| s.map_or("none".to_owned(), |n| n.to_string())).collect();
    shown.join(", ") + if steps.len() > 8 { ", .." } else { "" }
}

struct Walk<'a> {
    findings: Findings,
    reference: Side,
    candidate: Side,
    options: Options<'a>,
}

impl Walk<'_> {
    fn step(&mut self, question: &'static str, status: Status, evidence: Vec<String>, next: Option<String>) {
        self.findings.steps.push(Step { question, status, evidence, next });
    }

    fn run(&mut self) {
        let aligned = self.tokens();
        let fresh = self.stale();
        let Some((plan, config)) = self.plan() else {
            self.findings.verdict = Verdict::NothingInCommon;
            return;
        };
        if !aligned {
            return;
        }
        self.layers(&plan);
        self.replay(&plan, config.as_ref());
        self.logits();
        self.conclude(fresh, &plan);
    }

    /// The same question was asked: token ids are equal.
    fn tokens(&mut self) -> bool {
        let question = "same input?";
        let both = (self.reference.tokens(), self.candidate.tokens());
        let next = "record the ids: accuracy_dump.py does, or dump embed_tokens' input";
        match both {
            (Ok(Some(a)), Ok(Some(b))) if a == b => {
                self.step(question, Status::Ok, vec![format!("{} token ids are equal", a.len())], None);
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

    /// Dumps that cannot be what they claim: the same file twice, one layer's bytes in another.
    fn stale(&mut self) -> bool {
        let question = "dumps fresh?";
        let mut odd = Vec::new();
        let real = |p: &Path| std::fs::canonicalize(p).ok();
        let same_path = real(&self.findings.reference).is_some()
            && real(&self.findings.reference) == real(&self.findings.candidate);
        if same_path {
            odd.push("reference and candidate are the same path".to_owned());
        } else if !self.options.allow_identical && self.all_identical() {
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

    fn all_identical(&self) -> bool {
        let (a, b) = (&self.reference.set, &self.candidate.set);
        a.tensors.len() == b.tensors.len()
            && a.tensors.iter().zip(&b.tensors).all(|(x, y)| {
                x.id == y.id
                    && x.shape() == y.shape()
                    && matches!((x.open(), y.open()), (Ok(x), Ok(y)) if x.raw() == y.raw())
            })
    }

    /// The operations of the model, or at least its layers.
    fn plan(&mut self) -> Option<(Plan, Option<ModelConfig>)> {
        let question = "model known?";
        if let Some(plan) = self.options.mapping.take() {
            let config = self.config().ok();
            let evidence = format!("{} operations from the mapping file", plan.ops.len());
            self.step(question, Status::Ok, vec![evidence], None);
            return Some((plan, config));
        }
        let reason = match self.options.checkpoint {
            None => "no checkpoint: layers are compared, nothing is replayed".to_owned(),
            Some(checkpoint) => match self.config() {
                Ok(config) => {
                    let tied = !Weights(checkpoint).has("lm_head.weight");
                    let plan = Plan::of(&config, tied);
                    let evidence = format!(
                        "{}, {} layers, {} operations",
                        config.model_type,
                        config.layers.len(),
                        plan.ops.len()
                    );
                    self.step(question, Status::Ok, vec![evidence], None);
                    return Some((plan, Some(config)));
                }
                Err(e) => e.to_string(),
            },
        };
        let next = "give --checkpoint a folder with config.json and the weights";
        let layers = generic(&self.reference.set);
        let status = if layers.is_some() { Status::Skipped } else { Status::Inconclusive };
        self.step(question, status, vec![reason], Some(next.to_owned()));
        layers.map(|plan| (plan, None))
    }

    fn config(&self) -> Result<ModelConfig, ModelError> {
        let path = self.options.checkpoint.map_or(Path::new(""), |c| c.path());
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        ModelConfig::read(&folder.join("config.json"))
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
        } else if problems.is_empty() {
            (Status::Ok, None)
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
        let replay = Replay { checkpoint, config };
        // Names of operations that are wrong in the first bad layer: later ones are asked about these only.
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut first: Option<usize> = None;
        let mut skipped: BTreeSet<usize> = BTreeSet::new();
        for op in &plan.ops {
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
            let finding = self.one(&replay, op);
            if finding.status == OpStatus::CandidateWrong {
                known.insert(op.name.clone());
                if let Some(i) = op.layer {
                    first.get_or_insert(i);
                }
            }
            self.findings.ops.push(finding);
        }
        let count = |status| self.findings.ops.iter().filter(|o| o.status == status).count();
        let (right, wrong) = (count(OpStatus::Right), count(OpStatus::CandidateWrong));
        let (missing, both) = (count(OpStatus::NotReplayed), count(OpStatus::BothWrong));
        let reference = count(OpStatus::ReferenceWrong);
        let mut evidence = vec![format!(
            "{} operations replayed in both dumps: {right} right",
            right + wrong + both + reference
        )];
        let mut tell = |n: usize, what: &str| {
            if n > 0 {
                evidence.push(format!("{n} {what}"));
            }
        };
        tell(wrong, "wrong in the candidate alone");
        tell(reference, "wrong in the reference alone");
        tell(both, "wrong in both: the reading of the model is wrong, or both runs are");
        tell(missing, "not in the dumps, or not usable");
        let layers = if skipped.len() == 1 { "layer is" } else { "layers are" };
        tell(skipped.len(), &format!("{layers} bit for bit equal, and not replayed"));
        for op in self.findings.ops.iter().filter(|o| o.status == OpStatus::NotReplayed) {
            if let Outcome::Unusable(why) = &op.candidate {
                evidence.push(format!("INCONCLUSIVE {}: {why}", op.name));
            } else if let Outcome::Unusable(why) = &op.reference {
                evidence.push(format!("INCONCLUSIVE {}, reference: {why}", op.name));
            }
        }
        evidence.truncate(12);
        let (status, next) = if wrong > 4 && wrong > right {
            let next = "most operations are wrong: does the candidate run this checkpoint?".to_owned();
            (Status::Fault, Some(next))
        } else if wrong > 0 {
            (Status::Fault, None)
        } else if both + reference > 0 {
            (Status::Inconclusive, Some("check the reference: run it in float32, eager attention".to_owned()))
        } else if right == 0 && skipped.is_empty() {
            (
                Status::Inconclusive,
                Some("dump inputs and outputs of all modules: hooks/accuracy_dump.py".to_owned()),
            )
        } else {
            (Status::Ok, None)
        };
        self.step(question, status, evidence, next);
        if right + wrong + both + reference == 0 && skipped.is_empty() {
            self.divergence("where does it start?");
        }
    }

    fn one(&self, replay: &Replay<'_>, op: &Op) -> OpFinding {
        let place = op.output.0.first().map_or(String::new(), |p| format!("{} {}", p.module, p.kind.name()));
        let candidate = replay.op(&self.candidate, op);
        let reference = match &candidate {
            Outcome::Missing(_) | Outcome::Unusable(_) => candidate.clone(),
            Outcome::Judged(_) => replay.op(&self.reference, op),
        };
        let status = match (&reference, &candidate) {
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
        };
        let cause = match (&candidate, status) {
            (Outcome::Judged(judged), OpStatus::CandidateWrong) => replay.causes(&self.candidate, op, judged),
            _ => None,
        };
        let explained = cause.as_ref().filter(|c| c.explains).and_then(|c| c.op);
        let name = match (&op.kind, explained) {
            (_, Some(name)) => name.to_owned(),
            (OpKind::Copy, None) if op.name == "wiring" => {
                let from = op.inputs[0].0.first().map_or("", |p| &p.module);
                format!("wiring {} -> {}", short(from), short(&place))
            }
            _ => op.name.clone(),
        };
        OpFinding { layer: op.layer, name, place, status, reference, candidate, cause }
    }

    /// Without replay: the first value, in order of execution, that is further off than anything before it explains.
    fn divergence(&mut self, question: &'static str) {
        let mut worst: f64 = 0.0;
        let mut last_good = "the input".to_owned();
        let mut compared = 0;
        let mut found = None;
        for tensor in self.reference.set.tensors.iter().filter(|t| t.id.step == self.reference.step) {
            if tensor.element().is_integer()
                || !matches!(tensor.id.kind, Kind::Input | Kind::Output | Kind::Value)
            {
                continue;
            }
            let mut id = tensor.id.clone();
            id.step = self.candidate.step;
            let Some(other) = self.candidate.set.get(&id) else { continue };
            if tensor.shape() != other.shape() || tensor.merge.is_some_and(|m| m != Merge::Replicated) {
                continue;
            }
            let (Ok(a), Ok(b)) = (tensor.open(), other.open()) else { continue };
            let error = a.compare(&b).rel_l2.unwrap_or(f64::INFINITY);
            compared += 1;
            if error > UNEXPLAINED && error > 8.0 * worst {
                found = Some((tensor.id.to_string(), tensor.id.layer, tensor.id.kind, error));
                break;
            }
            worst = worst.max(error);
            last_good = tensor.id.to_string();
        }
        match found {
            Some((what, layer, kind, error)) => {
                let detail = format!(
                    "{what} is off by {:.1} %, everything before by at most {:.2} %",
                    100.0 * error,
                    100.0 * worst
                );
                let op = match kind {
                    Kind::Input => format!("what makes the input of {}", short(&what)),
                    _ => short(&what).to_owned(),
                };
                let evidence = vec![format!("last value that agrees: {last_good}"), detail.clone()];
                let next =
                    "give --checkpoint to replay the operation and tell which side is wrong".to_owned();
                self.step(question, Status::Fault, evidence, Some(next));
                self.findings.guilty = Some(Guilty { layer, op, detail });
            }
            None if compared == 0 => {
                let next = "dump the same modules in both runs".to_owned();
                self.step(
                    question,
                    Status::Inconclusive,
                    vec!["no value is in both dumps".into()],
                    Some(next),
                );
            }
            None => {
                let evidence = format!(
                    "{compared} values compared; none jumps; the largest difference is {:.2e}",
                    worst
                );
                let next = "give --checkpoint: small faults show only against a replay".to_owned();
                self.step(question, Status::Inconclusive, vec![evidence], Some(next));
            }
        }
    }

    fn logits(&mut self) {
        let site = Site::output("lm_head");
        if let Ok(Some((a, b))) = pair(&self.reference, &self.candidate, &site) {
            let top = |row: &[f64]| {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                best.map_or(0, |b| b.0)
            };
            let flips = AtomicUsize::new(0);
            let [agreement] = agreements((a.rows, a.cols), |rows, [(x, y)]| {
                a.read(rows.clone(), x);
                b.read(rows, y);
                let pairs = x.chunks_exact(a.cols).zip(y.chunks_exact(a.cols));
                flips.fetch_add(pairs.filter(|(x, y)| top(x) != top(y)).count(), Relaxed);
            });
            let evidence = format!(
                "logits: cosine {}, another token is likeliest at {} of {} positions",
                agreement.cos.map_or("-".to_owned(), |c| format!("{c:.6}")),
                flips.into_inner(),
                a.rows
            );
            self.findings.logits = Some(agreement);
            self.step(IMPACT, Status::Ok, vec![evidence], None);
        }
    }

    fn conclude(&mut self, fresh: bool, plan: &Plan) {
        let f = &mut self.findings;
        let wrong: Vec<&OpFinding> = f.ops.iter().filter(|o| o.status == OpStatus::CandidateWrong).collect();
        if let Some(first) = wrong.first() {
            let mut detail = Vec::new();
            if let Outcome::Judged(judged) = &first.candidate {
                detail.push(format!("off by {:.2e}, rounding explains {:.2e}", judged.error, judged.bound));
                detail.extend(judged.notes.clone());
            }
            if let Some(cause) = &first.cause {
                let how = if cause.explains { "explained" } else { "closest known mistake" };
                detail.push(format!("{how}: {}", cause.detail));
            }
            f.guilty = Some(Guilty { layer: first.layer, op: first.name.clone(), detail: detail.join("; ") });
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
        f.verdict = match () {
            () if f.guilty.is_some() => Verdict::Fault,
            () if unread || !fresh => Verdict::Inconclusive,
            () if replayed > 0 || equal => Verdict::Agrees,
            () => Verdict::Inconclusive,
        };
        // A layer that is far off although nothing in it was found wrong must not pass.
        if f.verdict == Verdict::Agrees {
            let missing: BTreeSet<usize> =
                f.ops.iter().filter(|o| o.status == OpStatus::NotReplayed).filter_map(|o| o.layer).collect();
            let off = f.layers.iter().find(|l| {
                missing.contains(&l.layer)
                    && l.worst().is_some_and(|w| w.rel_l2.is_none_or(|e| e > UNEXPLAINED))
                    && l.before.as_ref().is_none_or(|b| b.rel_l2.is_none_or(|e| e < UNEXPLAINED / 8.0))
            });
            if let Some(layer) = off.map(|l| l.layer) {
                f.verdict = Verdict::Inconclusive;
                let module = plan.modules.get(layer).cloned().unwrap_or_default();
                f.steps.push(Step {
                    question: "anything unexplained?",
                    status: Status::Inconclusive,
                    evidence: vec![format!(
                        "layer {layer} is off, and not all of its operations are in the dumps"
                    )],
                    next: Some(format!("dump inputs and outputs of {module}.* in both runs")),
                });
            }
        }
    }
}

/// The last two parts of a module's path.
fn short(module: &str) -> &str {
    let mut dots = module.rmatch_indices('.');
    dots.nth(1).map_or(module, |(at, _)| &module[at + 1..])
}

/// Outputs of layers that have the bytes of another layer's, and outputs that are constant.
fn repeated(side: &Side) -> Result<(Vec<String>, Vec<String>), String> {
    let mut seen: HashMap<(u64, String), &DumpTensor> = HashMap::new();
    let (mut stale, mut constant) = (Vec::new(), Vec::new());
    for tensor in &side.set.tensors {
        let id = &tensor.id;
        let Some(layer) = id.layer.filter(|_| id.kind == Kind::Output && id.step == side.step) else {
            continue;
        };
        let count = tensor.shape().iter().product::<usize>();
        if tensor.element().is_integer() || count < 16 {
            continue;
        }
        let data = tensor.open().map_err(|e| format!("{id}: {e}"))?;
        let bytes = data.raw();
        let size = (bytes.len() / count).max(1);
        let same = |bytes: &[u8]| bytes.chunks_exact(size).all(|c| c == &bytes[..size]);
        if same(&bytes[..bytes.len().min(4096) / size * size]) && same(&bytes) {
            constant.push(format!("{id} is constant"));
            continue;
        }
        let role = id.module.replace(&layer.to_string(), "{layer}") + &id.slot;
        match seen.entry((sample(&bytes), role)) {
            Entry::Vacant(place) => {
                place.insert(tensor);
            }
            Entry::Occupied(other) => {
                let first = other.get();
                let data = first.open().map_err(|e| format!("{}: {e}", first.id))?;
                if first.id.layer != id.layer && data.raw() == bytes {
                    let layer = first.id.layer.unwrap_or(0);
                    stale.push(format!("{id} has the bytes of layer {layer}"));
                }
            }
        }
    }
    stale.truncate(4);
    constant.truncate(4);
    Ok((stale, constant))
}

/// A hash of a few windows of a tensor's bytes.
fn sample(bytes: &[u8]) -> u64 {
    const WINDOW: usize = 4096;
    let mut hasher = DefaultHasher::new();
    let step = (bytes.len() / 16).max(WINDOW);
    for start in (0..bytes.len()).step_by(step) {
        bytes[start..(start + WINDOW).min(bytes.len())].hash(&mut hasher);
    }
    (bytes.len(), hasher.finish()).hash(&mut hasher);
    hasher.finish()
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
    let mut stream: Vec<Site> = modules.iter().map(Site::input).collect();
    for i in 1..count {
        stream[i].0.extend(Site::output(&modules[i - 1]).0);
    }
    stream.push(Site::output(modules.last()?));
    let branches = modules.iter().map(|m| {
        vec![("attention", Site::output(format!("{m}.self_attn"))), ("mlp", Site::output(format!("{m}.mlp")))]
    });
    Some(Plan { ops: Vec::new(), stream, branches: branches.collect(), modules })
}
