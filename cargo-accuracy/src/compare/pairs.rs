//! Which tensor of one side belongs to which of the other, and why some have no partner.

use accuracy_core::dumps::{DumpSet, DumpTensor, Kind, Rank};
use serde::Serialize;
use std::collections::HashMap;

/// Two tensors of one name and shape.
pub struct Pair {
    pub name: String,
    pub reference: DumpTensor,
    pub candidate: DumpTensor,
}

/// Why something is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Only the reference has it.
    MissingInCandidate,
    /// Only the candidate has it.
    MissingInReference,
    Shape,
    /// Integers on one side and real numbers on the other.
    Dtype,
    Unreadable,
}

impl ProblemKind {
    /// Whether both sides have the tensor, or may have.
    pub fn is_common(self) -> bool {
        !matches!(self, ProblemKind::MissingInCandidate | ProblemKind::MissingInReference)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    pub tensor: String,
    pub message: String,
}

/// What makes a tensor the same on both sides. Step and rank count where a side has more than one of them.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    step: Option<u64>,
    rank: Rank,
    layer: Option<usize>,
    module: &'a str,
    kind: Kind,
    slot: &'a str,
    call: usize,
}

/// What is compared with what, in the reference's order, and what is not.
pub fn align(
    reference: &DumpSet,
    candidate: &DumpSet,
    wanted: &dyn Fn(&str) -> bool,
) -> (Vec<Pair>, Vec<Problem>) {
    let several = |count: fn(&DumpSet) -> usize| count(reference) > 1 || count(candidate) > 1;
    let (steps, ranks) = (several(|s| s.steps().len()), several(|s| s.ranks().len()));
    // Two files with one tensor each are about that tensor, whatever its name.
    let sole = reference.tensors.len() == 1 && candidate.tensors.len() == 1;
    let key = |tensor| key(tensor, steps, ranks, sole);
    // A tensor that a side cannot read is not missing there.
    let unread = |set: &DumpSet, name: &str| set.unread.iter().any(|u| u.what == name);
    let mut partners: HashMap<Key, &DumpTensor> = candidate.tensors.iter().map(|t| (key(t), t)).collect();
    let (mut pairs, mut problems) = (Vec::new(), Vec::new());
    for tensor in &reference.tensors {
        let name = tensor.id.to_string();
        let partner = partners.remove(&key(tensor));
        if !wanted(&name) {
            continue;
        }
        let problem = |kind, message| Problem { kind, tensor: name.clone(), message };
        match partner {
            None if unread(candidate, &name) => {}
            None => {
                let message = format!("not in {}", candidate.path.display());
                problems.push(problem(ProblemKind::MissingInCandidate, message));
            }
            Some(partner) => match mismatch(tensor, partner) {
                Some((kind, message)) => problems.push(problem(kind, message)),
                None => pairs.push(Pair { name, reference: tensor.clone(), candidate: partner.clone() }),
            },
        }
    }
    for tensor in candidate.tensors.iter().filter(|t| partners.contains_key(&key(t))) {
        let name = tensor.id.to_string();
        if wanted(&name) && !unread(reference, &name) {
            let message = format!("not in {}", reference.path.display());
            problems.push(Problem { kind: ProblemKind::MissingInReference, tensor: name, message });
        }
    }
    let has =
        |set: &DumpSet, name: &str| unread(set, name) || set.tensors.iter().any(|t| t.id.to_string() == name);
    for (set, other) in [(reference, candidate), (candidate, reference)] {
        for tensor in set.unread.iter().filter(|u| wanted(&u.what)) {
            let missing = if std::ptr::eq(set, reference) {
                ProblemKind::MissingInCandidate
            } else {
                ProblemKind::MissingInReference
            };
            let kind = if has(other, &tensor.what) { ProblemKind::Unreadable } else { missing };
            let message = format!("in {}: {}", set.path.display(), tensor.reason);
            problems.push(Problem { kind, tensor: tensor.what.clone(), message });
        }
    }
    (pairs, problems)
}

fn key(tensor: &DumpTensor, steps: bool, ranks: bool, sole: bool) -> Key<'_> {
    let id = &tensor.id;
    Key {
        step: id.step.filter(|_| steps),
        rank: if ranks { id.rank } else { Rank::default() },
        layer: id.layer,
        module: if sole { "" } else { &id.module },
        kind: id.kind,
        slot: &id.slot,
        call: id.call,
    }
}

fn mismatch(a: &DumpTensor, b: &DumpTensor) -> Option<(ProblemKind, String)> {
    // A batch of one is the same as no batch.
    let shape =
        |t: &DumpTensor| -> Vec<usize> { t.shape().iter().copied().skip_while(|&d| d == 1).collect() };
    if shape(a) != shape(b) {
        return Some((
            ProblemKind::Shape,
            format!("{:?} in the reference, {:?} in the candidate", a.shape(), b.shape()),
        ));
    }
    if a.element().is_integer() != b.element().is_integer() {
        return Some((
            ProblemKind::Dtype,
            format!("{} in the reference, {} in the candidate", a.element(), b.element()),
        ));
    }
    None
}
