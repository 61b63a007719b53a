//! Without a replay: the first value that is off by far more than anything before it.

use super::findings::{Guilty, Status};
use super::profile::agreement;
use super::side::Side;
use super::value::lead;
use super::walk::{Walk, short};
use accuracy_core::dumps::{DumpTensor, Kind, Merge, TensorId};
use std::collections::{BTreeSet, HashMap};

/// Without a replay, a value is wrong where it is off by more than this and what comes before it by far less.
const UNEXPLAINED: f64 = 0.05;

/// Of fewer tokens than these, a jump behind attention may be the softmax's, which multiplies what rounding makes of large
/// scores.
const FEW: usize = 8;

/// Whether a value may depend on tokens of earlier passes.
fn mixes_tokens(module: &str) -> bool {
    ["attn", "attention", "mixer", "mamba"].iter().any(|name| module.contains(name))
}

/// The slots of floats that each module has.
fn returned(side: &Side) -> HashMap<(&str, Kind), BTreeSet<&str>> {
    let mut slots: HashMap<(&str, Kind), BTreeSet<&str>> = HashMap::new();
    let here = side.set.tensors.iter().filter(|t| t.id.step == side.step && !t.element().is_integer());
    for t in here {
        slots.entry((&t.id.module, t.id.kind)).or_default().insert(&t.id.slot);
    }
    slots
}

impl Walk<'_> {
    /// Without replay: the first value, in order of execution, that is further off than anything before it explains.
    pub fn divergence(&mut self, question: &'static str) {
        let mut worst: f64 = 0.0;
        let mut last_good = "the input".to_owned();
        let mut compared = 0;
        let mut found = None;
        let (first, second) = (returned(&self.reference), returned(&self.candidate));
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
            // A module that gives several values in one dump alone means something else by the first one: engines'
            // layers pass the residual apart.
            let key = (tensor.id.module.as_str(), tensor.id.kind);
            if first.get(&key) != second.get(&key) {
                continue;
            }
            // What a mask hides by differs between implementations.
            let is_mask = tensor.id.kind == Kind::Input && tensor.id.slot.contains("mask");
            if is_mask || self.reference.is_of_padding_too(lead(tensor)) {
                continue;
            }
            let Some(error) = self.apart(tensor, other) else { continue };
            compared += 1;
            if error > UNEXPLAINED && error > 8.0 * worst {
                // What earlier passes left in a cache is taken for a cause, too.
                let earlier = self.earlier(&tensor.id);
                if error <= 8.0 * earlier {
                    worst = worst.max(error);
                    continue;
                }
                found = Some((tensor.id.clone(), error));
                break;
            }
            worst = worst.max(error);
            last_good = tensor.id.to_string();
        }
        let doubt = found.as_ref().and_then(|(at, ..)| self.flip(at).or_else(|| self.amplified(at)));
        match found {
            Some((at, error)) if doubt.is_some() => {
                let jump = format!(
                    "{at} is off by {:.1} %, everything before by at most {:.2} %",
                    100.0 * error,
                    100.0 * worst
                );
                let evidence = vec![doubt.unwrap_or_default(), jump];
                let next = format!("{}: a replay tells rounding from a fault", self.replay_with());
                self.step(question, Status::Inconclusive, evidence, Some(next));
            }
            Some((at, error)) => {
                let (what, layer, kind) = (at.to_string(), at.layer, at.kind);
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
                    format!("{} to replay the operation and tell which side is wrong", self.replay_with());
                self.step(question, Status::Fault, evidence, Some(next));
                self.findings.guilty = Some(Guilty { layer, op, evidence: vec![detail] });
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
            None if worst == 0.0 => {
                let evidence = format!("{compared} values compared, all of them bit for bit equal");
                self.step(question, Status::Ok, vec![evidence], None);
            }
            None => {
                let evidence = format!(
                    "{compared} values compared; none jumps; the largest difference is {:.2e}",
                    worst
                );
                let next = format!("{}: small faults show only against a replay", self.replay_with());
                self.step(question, Status::Inconclusive, vec![evidence], Some(next));
            }
        }
    }

    /// How far apart the two dumps are in what a layer's attention had in earlier passes.
    fn earlier(&self, at: &TensorId) -> f64 {
        if !mixes_tokens(&at.module) {
            return 0.0;
        }
        let block = at.module.rsplit_once('.').map_or("", |m| m.0);
        let all = &self.reference.set.tensors;
        let before = all.iter().filter(|t| t.id.step < at.step && t.id.module.starts_with(block));
        let outputs = before.filter(|t| t.id.kind == Kind::Output && !t.element().is_integer());
        let errors = outputs.filter_map(|tensor| {
            let behind = at.step?.checked_sub(tensor.id.step?)?;
            let step = self.candidate.step?.checked_sub(behind)?;
            let other = self.candidate.set.get(&TensorId { step: Some(step), ..tensor.id.clone() })?;
            if tensor.shape() != other.shape() { None } else { self.apart(tensor, other) }
        });
        errors.fold(0.0, f64::max)
    }

    /// Whether too few tokens were compared to tell a fault of attention from what a softmax makes of rounding.
    fn amplified(&self, at: &TensorId) -> Option<String> {
        let tensor = self.reference.set.get(at)?;
        let rows = tensor.shape().iter().rev().skip(1).product::<usize>();
        (mixes_tokens(&at.module) && rows < FEW).then(|| {
            format!("{rows} tokens only: where scores are large, a softmax makes much of little rounding")
        })
    }

    /// Relative difference of one value of both dumps.
    fn apart(&self, tensor: &DumpTensor, other: &DumpTensor) -> Option<f64> {
        if self.reference.hidden(lead(tensor)).is_empty() {
            let (a, b) = (tensor.open().ok()?, other.open().ok()?);
            return Some(a.compare(&b).rel_l2.unwrap_or(f64::INFINITY));
        }
        let pair = (self.reference.view_of(tensor).ok()?, self.candidate.view_of(other).ok()?);
        Some(agreement(&pair).rel_l2.unwrap_or(f64::INFINITY))
    }

    /// What tells a fault from rounding where there is no replay yet.
    fn replay_with(&self) -> &'static str {
        match self.options.checkpoint {
            None => "give --checkpoint",
            Some(_) => "describe the model's operations in a file (--mapping)",
        }
    }

    /// A decision of a router before a value, or beside it, that differs between the dumps; or that there may be one.
    fn flip(&self, at: &TensorId) -> Option<String> {
        let all = &self.reference.set.tensors;
        let here = |t: &&DumpTensor| t.id.step == self.reference.step && t.id.layer.is_some();
        let inside = |t: &DumpTensor, name: &str| t.id.module.split('.').any(|part| part == name);
        let routed = |t: &DumpTensor| ["experts", "gate", "router"].iter().any(|name| inside(t, name));
        let end = all.iter().position(|t| t.id == *at).unwrap_or(all.len());
        let beside = all[end..].iter().filter(|t| t.id.module == at.module);
        let mut decisions = 0;
        // What a choice in layers further before has done has been seen by now.
        let near = |t: &&DumpTensor| t.id.layer.map(|l| l + 1) >= at.layer;
        for tensor in all[..end].iter().chain(beside).filter(here).filter(near) {
            if !tensor.element().is_integer() || !routed(tensor) {
                continue;
            }
            let mut id = tensor.id.clone();
            id.step = self.candidate.step;
            let Some(other) = self.candidate.set.get(&id) else { continue };
            let (Ok(a), Ok(b)) = (tensor.open(), other.open()) else { continue };
            let (Some(x), Some(y)) = (a.integers(), b.integers()) else { continue };
            decisions += usize::from(tensor.id.layer == at.layer);
            // What an expert computes is sorted by the rank that it has for a token.
            let ordered = at.module.contains("experts.");
            // The order counts: the weight of an expert may depend on its rank.
            let width = a.cols().max(1);
            let (x, y): (Vec<_>, Vec<_>) = (x.chunks(width).collect(), y.chunks(width).collect());
            let hidden = self.reference.hidden(lead(tensor));
            // Rows in the order of experts are moved by what hidden tokens choose, too.
            let shown = |row: usize| ordered || !hidden.get(row).copied().unwrap_or(false);
            let flips = x.iter().zip(&y).enumerate().filter(|(t, (x, y))| shown(*t) && x != y).count();
            if flips > 0 {
                let how = "other experts, or in another order,";
                return Some(format!("{}: {how} for {flips} of {} tokens", tensor.id, x.len()));
            }
        }
        let layer = || all.iter().filter(|t| t.id.layer == at.layer && here(t));
        let attends = |module: &str| module.contains("attn") || module.contains("attention");
        // Modules within a branch show whether it has experts; the branch as a whole does not.
        let within = |t: &DumpTensor| {
            let number = |part: &&str| !part.bytes().all(|b| b.is_ascii_digit());
            t.id.module.split('.').skip_while(number).count() > 2 && !attends(&t.id.module)
        };
        let known = attends(&at.module) || layer().any(within);
        let moe = layer().any(|t| routed(t) || inside(t, "shared_experts")) && !attends(&at.module);
        match () {
            () if at.layer.is_none() || decisions > 0 => None,
            () if moe => {
                Some("the router's choice of experts is not in both dumps: it may have flipped".to_owned())
            }
            () if !known => Some(
                "nothing within the layers is dumped: if the model has experts, a choice may have flipped"
                    .to_owned(),
            ),
            () => None,
        }
    }
}
