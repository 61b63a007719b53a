//! Which calls exclude each other, and which of two such calls drops a parameter.

use super::{Bits, CallEvent, Flow, PathId, UseKind, names};
use crate::lint::ir::{Expr, ParamKind};
use crate::lint::source::{DropSummary, Slot};

/// Two mutually exclusive calls: the first by its number and arms, the second by its order and arms.
#[derive(Clone, Copy)]
struct Way<'p> {
    a: (usize, &'p [PathId]),
    b: (u32, &'p [PathId]),
    /// How many arms lead to both.
    common: usize,
    /// The second is taken where the first failed.
    attempt: bool,
}

impl Flow<'_, '_> {
    /// Ancestors of a path, root first.
    pub(super) fn chain(&self, mut path: PathId) -> Vec<PathId> {
        let mut out = Vec::with_capacity(self.paths[path as usize].depth as usize);
        while path != 0 {
            out.push(path);
            path = self.paths[path as usize].parent;
        }
        out.reverse();
        out
    }

    /// Where two paths part: the number of common arms, and whether no run takes both.
    pub(super) fn compare(&self, a: &[PathId], a_order: u32, b: &[PathId], b_order: u32) -> (usize, bool) {
        let mut common = 0;
        while common < a.len() && common < b.len() && a[common] == b[common] {
            common += 1;
        }
        // Different arms of one branch, which need not be at the same index: what follows a terminating
        // arm is pushed as the other arm.
        for x in &a[common..] {
            let x = &self.paths[*x as usize];
            for y in &b[common..] {
                let y = &self.paths[*y as usize];
                if x.node == y.node && x.arm != y.arm {
                    return (common, true);
                }
            }
        }
        let leaves = |rest: &[PathId]| rest.iter().any(|p| self.paths[*p as usize].terminates);
        let exclusive =
            (a_order < b_order && leaves(&a[common..])) || (b_order < a_order && leaves(&b[common..]));
        (common, exclusive)
    }

    /// Pairs of mutually exclusive calls on a shared set of parameters, of which one is passed a parameter
    /// that the other neither gets nor can know from the path that leads to it.
    pub(super) fn drops(&self) -> Vec<DropSummary> {
        let mut out: Vec<DropSummary> = Vec::new();
        let receivers = self
            .function
            .params
            .iter()
            .enumerate()
            .filter(|(_, p)| matches!(p.kind, ParamKind::Receiver | ParamKind::VarArgs | ParamKind::KwArgs))
            .fold(Bits::EMPTY, |b, (i, _)| b.or(Bits::one(i)));
        let calls: Vec<(usize, &CallEvent, Vec<PathId>)> = self
            .calls
            .iter()
            .enumerate()
            .filter(|(_, c)| {
                c.top_level && c.direct.minus(receivers).len() >= 2 && !names::is_helper(&c.callee)
            })
            .map(|(i, c)| (i, c, self.chain(c.path)))
            .filter(|(_, _, chain)| !chain.iter().any(|p| self.paths[*p as usize].gives_up))
            .collect();
        if calls.len() < 2 || calls.len() > 400 {
            return out;
        }
        for (ai, a, a_chain) in &calls {
            let a_bits = a.direct.minus(receivers);
            if a_bits.len() < 3 {
                continue;
            }
            for (bi, b, b_chain) in &calls {
                if ai == bi {
                    continue;
                }
                let b_bits = b.bits.minus(receivers);
                let shared = a_bits.and(b_bits).len();
                let missing = a_bits.minus(b_bits);
                let smaller = a_bits.len().min(b_bits.len());
                if shared < 2 || shared < 4 && shared * 2 < smaller || missing.is_empty() {
                    continue;
                }
                let (common, mut exclusive) = self.compare(a_chain, a.order, b_chain, b.order);
                let mut attempt = false;
                if !exclusive && a.order < b.order {
                    attempt = self.after_failed(*ai, a_chain, b_chain);
                    exclusive = attempt;
                }
                if !exclusive {
                    continue;
                }
                let mut pinned = Bits::EMPTY;
                let mut mentioned = Bits::EMPTY;
                let mut names_on_path: Vec<&str> = Vec::new();
                let mut fallback = attempt;
                let mut mode = false;
                for (k, p) in b_chain.iter().enumerate() {
                    let node = &self.paths[*p as usize];
                    pinned = pinned.or(node.pins);
                    mentioned = mentioned.or(node.mentions);
                    if !node.check {
                        names_on_path.extend(&node.names);
                    }
                    if k >= common {
                        fallback |= node.handler;
                        mode |= node.mode;
                    }
                }
                let way = Way { a: (*ai, a_chain), b: (b.order, b_chain), common, attempt };
                let (asked, refused) = self.asked_about(&names_on_path);
                let candidates = self.used_on_no_way(missing.minus(pinned).minus(asked), way);
                if candidates.is_empty() {
                    continue;
                }
                // Parameters that the path itself fixes or refuses: what belongs to them is absent with them.
                let mut absent = refused;
                for p in b_chain.iter().skip(common) {
                    absent = absent.or(self.paths[*p as usize].pins);
                }
                let second = self.second_operands(missing, b_bits);
                for p in candidates.iter().take_while(|p| *p < self.function.params.len()) {
                    let name = self.function.params[p].name;
                    let absent = absent
                        .iter()
                        .take_while(|q| *q < self.function.params.len())
                        .map(|q| self.function.params[q].name)
                        .find(|q| names::belong_together(q, name))
                        .or(second.has(p).then_some(name))
                        .map(str::to_owned);
                    let slot =
                        a.args.iter().find(|x| x.direct == Some(p)).map_or(Slot::Unknown, |x| x.slot.clone());
                    let drop = DropSummary {
                        param: p as u16,
                        honoured: *ai as u32,
                        dropping: *bi as u32,
                        slot,
                        shared: shared as u16,
                        missing: missing.len() as u16,
                        fallback,
                        mode,
                        mentioned: mentioned.has(p),
                        absent,
                    };
                    out.push(drop);
                }
            }
        }
        out
    }

    /// Parameters that a test with what the way asks about speaks of, and those of them that it refuses.
    fn asked_about(&self, names_on_path: &[&str]) -> (Bits, Bits) {
        // A flag stands for what it asks about.
        let on_path = |w: &str| {
            let asks = |test: &Expr| {
                let mut mentioned = Vec::new();
                if matches!(test, Expr::And(_) | Expr::Or(_) | Expr::Not(_) | Expr::Compare(..)) {
                    super::collect_names(test, &mut mentioned, 0);
                }
                mentioned.iter().any(|n| names_on_path.contains(n))
            };
            names_on_path.contains(&w)
                || self.local(w).and_then(|v| self.tests.get(&v)).is_some_and(|t| asks(t))
        };
        let mut refused = Bits::EMPTY;
        let mut asked = Bits::EMPTY;
        for (params, with) in &self.partial {
            for p in params.iter().take_while(|p| *p < self.function.params.len()) {
                let own = self.function.params[p].name;
                if with.iter().any(|w| *w != own && on_path(w)) {
                    asked = asked.or(Bits::one(p));
                    // Each operand has a scale: that one is refused says nothing of another.
                    if !names::is_quantisation(own) {
                        refused = refused.or(Bits::one(p));
                    }
                }
            }
        }
        (asked, refused)
    }

    /// Those of some parameters that nothing on the way to the second call, or on one that meets it, uses.
    fn used_on_no_way(&self, mut candidates: Bits, way: Way) -> Bits {
        let Way { a: (ai, a_chain), b: (b_order, b_chain), common, attempt } = way;
        for u in &self.uses {
            let hit = candidates.and(u.bits);
            if hit.is_empty() {
                continue;
            }
            let node = match u.kind {
                // What is thrown away on the way here is left out on purpose.
                UseKind::Effect | UseKind::Argument(_) | UseKind::Discard => None,
                // What decides, after the call, which value is used is used there, too.
                UseKind::Captured if u.order > b_order => None,
                UseKind::Control(node) => Some(node),
                _ => continue,
            };
            let on = |chain: &[PathId]| {
                node.is_some_and(|n| chain.iter().any(|p| self.paths[*p as usize].node == n))
            };
            if on(b_chain) || (attempt && on(a_chain)) {
                continue;
            }
            let u_chain = self.chain(u.path);
            let (_, apart) = self.compare(&u_chain, u.order, b_chain, b_order);
            let in_attempt = attempt && a_chain.get(common).is_some_and(|arm| u_chain.contains(arm));
            if apart || in_attempt || matches!(u.kind, UseKind::Argument(c) if attempt && c as usize == ai) {
                continue;
            }
            candidates = candidates.minus(hit);
            if candidates.is_empty() {
                break;
            }
        }
        candidates
    }

    /// The parameters of a whole second set of operands (`col_data`, `col_scale` beside `data`, `scale`), where the
    /// dropping call gets the first set and none of the second.
    fn second_operands(&self, missing: Bits, passed: Bits) -> Bits {
        let n = self.function.params.len();
        let words = |p: usize| names::words(self.function.params[p].name);
        let mut sets: Vec<(String, Bits)> = Vec::new();
        for p in missing.iter().take_while(|p| *p < n) {
            let name = words(p);
            let telling = |w: &String| w.len() >= 3;
            let Some((first, rest)) = name
                .split_first()
                .filter(|(f, rest)| !rest.is_empty() && telling(f) && rest.iter().all(telling))
            else {
                continue;
            };
            if passed.iter().take_while(|q| *q < n).any(|q| words(q) == rest) {
                // `col` and `colwise` name one set.
                let found =
                    sets.iter_mut().find(|(w, _)| w.starts_with(first) || first.starts_with(w.as_str()));
                match found {
                    Some((_, set)) => *set = set.or(Bits::one(p)),
                    None => sets.push((first.clone(), Bits::one(p))),
                }
            }
        }
        sets.into_iter().filter(|(_, set)| set.len() >= 2).fold(Bits::EMPTY, |all, (_, set)| all.or(set))
    }

    /// `b` runs where a variable says that `a` failed: `a`'s own result is missing, or the flag that is set
    /// after `a` in the same place is not.
    pub(super) fn after_failed(&self, a: usize, a_chain: &[PathId], b_chain: &[PathId]) -> bool {
        b_chain.iter().any(|p| {
            let node = &self.paths[*p as usize];
            node.failed.is_some_and(|v| {
                node.order > self.calls[a].order
                    && self.assigned.iter().any(|s| {
                        let own = (s.calls.0..s.calls.1).contains(&a);
                        let flag = s.constant
                            && s.calls.0 > a
                            && !a_chain.is_empty()
                            && self.chain(s.path).starts_with(a_chain);
                        s.var == v && (own || flag)
                    })
            })
        })
    }
}
