//! Which parameters are ignored once calls are followed: a fixpoint over the repository. A parameter that is
//! only forwarded is ignored where every callee ignores it; anything unresolved counts as a use.

use rustc_hash::{FxHashMap, FxHashSet};

use super::index::{FnId, Index};
use super::ir::ParamKind;
use super::source::{Fate, FnSummary, Slot};

#[derive(Debug, Clone)]
pub enum Reason {
    /// Seen inside the function alone.
    Local(Fate),
    /// Passed only to the function itself.
    Recursion,
    /// Passed only to functions that ignore it: call, callee, the callee's parameter.
    Forwarded { call: u32, callee: FnId, param: u16 },
    /// A keyword that the callee does not declare and whose `**kwargs` it never reads.
    Swallowed { call: u32, callee: FnId },
}

pub struct Effects {
    ignored: FxHashMap<(FnId, u16), Reason>,
    /// Resolved callees by caller and call.
    callees: FxHashMap<(FnId, u32), FnId>,
    /// How many functions with a body honour a parameter of this name, and of how many that take one.
    pub customs: FxHashMap<String, (usize, usize)>,
    /// The calls of each function.
    callers: FxHashMap<FnId, Vec<(FnId, u32)>>,
    /// Calls that may reach each of several overloads.
    maybe_callers: FxHashMap<FnId, Vec<(FnId, u32)>>,
}

impl Effects {
    pub fn new(index: &Index) -> Self {
        let mut ignored = FxHashMap::default();
        let mut callees = FxHashMap::default();
        let mut callers: FxHashMap<FnId, Vec<(FnId, u32)>> = FxHashMap::default();
        let mut maybe_callers: FxHashMap<FnId, Vec<(FnId, u32)>> = FxHashMap::default();
        let mut pending: Vec<(FnId, u16)> = Vec::new();
        for id in index.ids() {
            let f = index.function(id);
            if f.traits.stub || f.opaque || aborts(index, f) {
                continue;
            }
            let macros = if f.identifiers.is_empty() {
                FxHashSet::default()
            } else {
                macro_uses(index, &f.identifiers)
            };
            for (i, p) in f.params.iter().enumerate() {
                if macros.contains(p.name.as_str()) || p.carriers.iter().any(|c| macros.contains(c.as_str()))
                {
                    continue;
                }
                match p.fate {
                    Fate::Forwarded => pending.push((id, i as u16)),
                    fate if fate.ignored() => {
                        ignored.insert((id, i as u16), Reason::Local(fate));
                    }
                    _ => {}
                }
            }
            // Resolve what drops and forwards refer to, once.
            for (i, call) in f.calls.iter().enumerate() {
                if let Some(callee) = index.callee(id, call) {
                    callees.insert((id, i as u32), callee);
                    callers.entry(callee).or_default().push((id, i as u32));
                } else {
                    for callee in index.overloads(id, call) {
                        maybe_callers.entry(callee).or_default().push((id, i as u32));
                    }
                }
            }
        }
        let mut effects = Self { ignored, callees, callers, maybe_callers, customs: FxHashMap::default() };
        // Least fixpoint: each round finds at least one more or ends; chains are short.
        loop {
            let mut found = Vec::new();
            pending.retain(|(id, p)| match effects.forwarded(index, *id, *p) {
                Some(reason) => {
                    found.push(((*id, *p), reason));
                    false
                }
                None => true,
            });
            if found.is_empty() {
                break;
            }
            effects.ignored.extend(found);
        }
        let mut customs: FxHashMap<&str, (usize, usize)> = FxHashMap::default();
        for id in index.ids() {
            let f = index.function(id);
            if f.traits.stub || f.opaque || f.traits.device || index.is_fake(id) {
                continue;
            }
            for (i, p) in f.params.iter().enumerate() {
                let count = customs.entry(&p.name).or_default();
                count.1 += 1;
                count.0 += usize::from(effects.honours(index, id, i));
            }
        }
        effects.customs =
            customs.into_iter().filter(|(_, c)| c.1 >= 4).map(|(n, c)| (n.to_owned(), c)).collect();
        effects
    }

    fn forwarded(&self, index: &Index, id: FnId, param: u16) -> Option<Reason> {
        let f = index.function(id);
        let p = &f.params[param as usize];
        // A guard that pins the value is an answer to whoever passes another.
        if p.guarded {
            return None;
        }
        let mut reason = None;
        let mut recursive = false;
        for (call, slot) in &p.forwards {
            let callee = *self.callees.get(&(id, *call))?;
            let target = index.function(callee);
            match index.bind(callee, &f.calls[*call as usize], slot) {
                Some(bound) if callee == id && bound == param as usize => recursive = true,
                Some(bound) => {
                    if !self.ignored.contains_key(&(callee, bound as u16)) || index.is_fake(callee) {
                        return None;
                    }
                    // A method that a subclass overrides may be that of the subclass.
                    let by_self = f.calls[*call as usize].callee.starts_with("self.");
                    let over = index.overridden.get(&callee).filter(|_| by_self);
                    if over.into_iter().flatten().any(|o| {
                        position(index.function(*o), &target.params[bound].name)
                            .is_none_or(|i| !self.ignored.contains_key(&(*o, i as u16)))
                    }) {
                        return None;
                    }
                    reason.get_or_insert(Reason::Forwarded { call: *call, callee, param: bound as u16 });
                }
                None => {
                    let Slot::Keyword(_) = slot else { return None };
                    let kwargs = target.params.iter().position(|p| p.kind == ParamKind::KwArgs)?;
                    if !self.ignored.contains_key(&(callee, kwargs as u16)) {
                        return None;
                    }
                    reason = Some(Reason::Swallowed { call: *call, callee });
                }
            }
        }
        match reason {
            None if recursive && p.witness.is_some() => Some(Reason::Local(Fate::Overwritten)),
            None if recursive => Some(Reason::Recursion),
            other => other,
        }
    }

    /// Whether every call that is known passes the parameter only where a test fixes it, or leaves its default. Who hands on
    /// a parameter of its own is asked in its turn.
    pub fn guarded_by_callers(&self, index: &Index, id: FnId, param: usize) -> bool {
        self.guarded_above(index, id, param, 0)
    }

    fn guarded_above(&self, index: &Index, id: FnId, param: usize, depth: u32) -> bool {
        let mut guarded = false;
        let maybe = self.maybe_callers.get(&id).map_or(&[][..], Vec::as_slice);
        for (caller, call) in self.callers(id).iter().chain(maybe) {
            let call = &index.function(*caller).calls[*call as usize];
            for arg in &call.args {
                let Some(bound) = index.bind(id, call, &arg.slot) else {
                    // It may be what is spread here.
                    return false;
                };
                if bound == param {
                    let above = || {
                        arg.direct.is_some_and(|own| {
                            depth < 4
                                && *caller != id
                                && self.guarded_above(index, *caller, own as usize, depth + 1)
                        })
                    };
                    let checked = arg.pinned || arg.literal.is_none() && above();
                    if !checked && arg.literal.is_none() {
                        return false;
                    }
                    guarded |= checked;
                }
            }
        }
        guarded
    }

    pub fn ignored(&self, id: FnId, param: usize) -> Option<&Reason> {
        self.ignored.get(&(id, param as u16))
    }

    pub fn all(&self) -> impl Iterator<Item = (FnId, usize, &Reason)> {
        self.ignored.iter().map(|((id, p), r)| (*id, *p as usize, r))
    }

    pub fn callee(&self, id: FnId, call: u32) -> Option<FnId> {
        self.callees.get(&(id, call)).copied()
    }

    pub fn callers(&self, id: FnId) -> &[(FnId, u32)] {
        self.callers.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The function is known to do something with the parameter.
    pub fn honours(&self, index: &Index, id: FnId, param: usize) -> bool {
        let f = index.function(id);
        !f.traits.stub
            && !aborts(index, f)
            && matches!(f.params[param].fate, Fate::Used | Fate::Forwarded)
            && self.ignored(id, param).is_none()
    }
}

/// The body is one macro that ends the program or throws: a stub for builds without the real function.
pub fn aborts(index: &Index, f: &FnSummary) -> bool {
    const ENDS: [&str; 8] =
        ["abort", "exit", "_exit", "terminate", "throw", "__trap", "__builtin_trap", "runtime_error"];
    let Some(name) = &f.only_macro else { return false };
    let mut seen = FxHashSet::default();
    let mut work = vec![name.as_str()];
    while let Some(name) = work.pop() {
        for body in index.macros.get(name).into_iter().flatten() {
            for id in *body {
                if ENDS.contains(&id.as_str()) {
                    return true;
                }
                if seen.insert(id.as_str()) && seen.len() < 64 {
                    work.push(id);
                }
            }
        }
    }
    false
}

fn position(f: &FnSummary, name: &str) -> Option<usize> {
    f.params.iter().position(|p| p.name == name)
}

/// Identifiers that the macros named in a body mention, through other macros too.
fn macro_uses<'s>(index: &Index<'s>, identifiers: &[String]) -> FxHashSet<&'s str> {
    let mut out = FxHashSet::default();
    let mut seen: FxHashSet<&str> = FxHashSet::default();
    let mut work: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    while let Some(name) = work.pop() {
        if !seen.insert(name) {
            continue;
        }
        let Some(bodies) = index.macros.get(name) else { continue };
        for body in bodies {
            for id in *body {
                out.insert(id.as_str());
                if index.macros.contains_key(id.as_str()) {
                    work.push(id);
                }
            }
        }
    }
    out
}
