//! SP202 arm-default-drop: of two mutually exclusive calls, one gets a parameter; the other does not, although
//! its callee has that parameter, so that the callee's default (or a literal) takes over.
//!
//! What it does: SP201 where the dropping call's callee declares the parameter: by its name, by the name the
//! value is bound to at the other call, or by a known alias (`softcap`, `logits_soft_cap`).
//!
//! Why it is bad: the kernel could honour the parameter; nobody asked it to.
//!
//! ```python
//! def quantize(x, balanced, shuffle_scale=False):
//!     if balanced:
//!         return quantize_v1(x, shuffle_scale)
//!     return quantize_v2(x)  # shuffle_scale=False by default
//! ```
//!
//! Fix: pass the parameter on.

use rustc_hash::FxHashMap;

use super::{Context, Finding, Rule, Severity, Suspect, short};
use crate::lint::config::Level;
use crate::lint::index::{FnId, param as find};
use crate::lint::names::{self, Meaning};
use crate::lint::source::{DropSummary, Language, Slot};

pub const RULE: Rule = Rule {
    code: "SP202",
    name: "arm-default-drop",
    summary: "one of two alternative calls leaves a parameter at the callee's default",
    level: Level::Error,
    precision: "high",
    source: include_str!("sp202.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    drops(cx, &RULE, out);
}

/// How the dropping call's callee relates to the dropped parameter.
enum Callee {
    /// It has the parameter, under this name, and the call leaves it at a default or a literal.
    Has {
        name: String,
        literal: Option<String>,
    },
    Lacks,
    Unknown,
}

pub fn drops(cx: &Context, rule: &'static Rule, out: &mut Vec<Finding>) {
    for id in cx.index.ids() {
        let f = cx.index.function(id);
        if f.drops.is_empty() || !cx.reportable(id) {
            continue;
        }
        // One finding per parameter: the strongest drop, the others related.
        let mut best: FxHashMap<u16, (i32, &DropSummary, Callee)> = FxHashMap::default();
        for d in &f.drops {
            let callee = callee(cx, id, d);
            let strength = strength(cx, id, d, &callee);
            let entry = best.entry(d.param);
            match entry {
                std::collections::hash_map::Entry::Vacant(e) => {
                    e.insert((strength, d, callee));
                }
                std::collections::hash_map::Entry::Occupied(mut e) if e.get().0 < strength => {
                    e.insert((strength, d, callee));
                }
                std::collections::hash_map::Entry::Occupied(_) => {}
            }
        }
        let mut best: Vec<_> = best.into_iter().collect();
        best.sort_by_key(|b| (std::cmp::Reverse(b.1.0), b.0));
        // A call that drops much is one finding or two; the rest are notes.
        let mut at_call: FxHashMap<u32, u32> = FxHashMap::default();
        for (p, (strength, d, callee)) in best {
            let n = at_call.entry(d.dropping).or_default();
            *n += 1;
            let strength = if *n > 2 { strength.min(3) } else { strength };
            let default_drop = matches!(callee, Callee::Has { .. });
            if default_drop != (rule.code == "SP202") {
                continue;
            }
            emit(cx, rule, id, p as usize, strength, d, &callee, out);
        }
    }
}

fn callee(cx: &Context, id: FnId, d: &DropSummary) -> Callee {
    let f = cx.index.function(id);
    let call = &f.calls[d.dropping as usize];
    let honoured = &f.calls[d.honoured as usize];
    let name = &f.params[d.param as usize].name;
    // The name that the value has in the honouring callee.
    let bound = match &d.slot {
        Slot::Keyword(k) => Some(k.clone()),
        slot => cx.effects.callee(id, d.honoured).and_then(|c| {
            cx.index.bind(c, honoured, slot).map(|b| cx.index.function(c).params[b].name.clone())
        }),
    };
    let same = |other: &str| {
        names::same_quantity(other, name, &cx.config.names)
            || bound.as_deref().is_some_and(|b| names::same_quantity(other, b, &cx.config.names))
    };
    // A keyword that is given a literal in the call itself.
    for a in &call.args {
        if let (Slot::Keyword(k), Some(l)) = (&a.slot, &a.literal)
            && same(k)
        {
            return Callee::Has { name: k.clone(), literal: Some(l.clone()) };
        }
    }
    let Some(target) = cx.effects.callee(id, d.dropping) else { return Callee::Unknown };
    let t = cx.index.function(target);
    let found = bound
        .as_deref()
        .and_then(|b| t.params.iter().position(|p| p.name == b))
        .or_else(|| find(t, name, &cx.config.names).map(|(i, _)| i))
        .or_else(|| bound.as_deref().and_then(|b| find(t, b, &cx.config.names).map(|(i, _)| i)));
    match found {
        None => Callee::Lacks,
        Some(i) => {
            let given = call.args.iter().find(|a| cx.index.bind(target, call, &a.slot) == Some(i));
            match given {
                None if t.params[i].default.is_some() => {
                    Callee::Has { name: t.params[i].name.clone(), literal: None }
                }
                None => Callee::Unknown,
                Some(a) => match &a.literal {
                    Some(l) => Callee::Has { name: t.params[i].name.clone(), literal: Some(l.clone()) },
                    // Something else is passed there on purpose.
                    None => Callee::Lacks,
                },
            }
        }
    }
}

fn strength(cx: &Context, id: FnId, d: &DropSummary, callee: &Callee) -> i32 {
    let f = cx.index.function(id);
    let p = &f.params[d.param as usize];
    let mut s = match names::meaning(&p.name, &cx.config.names) {
        Meaning::Semantic => 3,
        Meaning::Numeric => 2,
        Meaning::Neutral => 0,
        Meaning::Tuning => -3,
    };
    s += match callee {
        Callee::Has { .. } => 3,
        Callee::Lacks => 0,
        Callee::Unknown => 0,
    };
    // Most of the shared arguments arrive: the same job with one thing left out.
    let (shared, missing) = (i32::from(d.shared), i32::from(d.missing));
    if missing * 3 <= shared {
        s += 1;
    }
    if missing == 1 && shared >= 5 {
        s += 1;
    }
    if missing > 1 && missing * 3 > shared {
        s -= 1;
    }
    if missing > shared && !d.fallback {
        s -= 2;
    }
    if cx.effects.callee(id, d.dropping).is_none() && !d.fallback {
        let f = cx.index.function(id);
        // One unknown function called in two ways: which of several it is, nobody knows.
        if f.calls[d.dropping as usize].callee == f.calls[d.honoured as usize].callee {
            s -= 3;
        }
    }
    if d.mode && names::is_quantisation(&p.name) && !matches!(callee, Callee::Has { .. }) {
        s -= 3;
    }
    let (a, b) = (&f.calls[d.honoured as usize].callee, &f.calls[d.dropping as usize].callee);
    if names::stages(a, b) {
        s -= 4;
    }
    if !names::alternatives(a, b) && !d.fallback && !matches!(callee, Callee::Has { .. }) {
        s -= 2;
    }
    // Every caller has to pass it.
    s += i32::from(p.default.is_none());
    if f.traits.nested || f.traits.device {
        s -= 2;
    }
    if names::describes(&f.name)
        || cx.index.file(id).language == Language::Python && names::is_tool(&cx.index.file(id).path)
    {
        s -= 3;
    }
    s + 2 * i32::from(d.fallback)
}

#[expect(clippy::too_many_arguments, reason = "one call site; the pieces of one finding")]
fn emit(
    cx: &Context,
    rule: &'static Rule,
    id: FnId,
    param: usize,
    strength: i32,
    d: &DropSummary,
    callee: &Callee,
    out: &mut Vec<Finding>,
) {
    let f = cx.index.function(id);
    let p = &f.params[param];
    let call = &f.calls[d.dropping as usize];
    let honoured = &f.calls[d.honoured as usize];
    let mut e = cx.evidence(id, param, None);
    e.score = strength + 1;
    let severity = match callee {
        Callee::Has { .. } if strength >= 6 && e.meaning >= Meaning::Numeric => Severity::Error,
        _ if e.meaning < Meaning::Numeric => {
            if strength >= 6 {
                Severity::Warning
            } else {
                Severity::Note
            }
        }
        _ if strength >= 4 => Severity::Warning,
        _ => Severity::Note,
    };
    let what = match callee {
        Callee::Has { name, literal: Some(l) } => format!(", whose `{name}` is given the literal `{l}`"),
        Callee::Has { name, literal: None } => {
            let default = cx.effects.callee(id, d.dropping).and_then(|c| {
                find(cx.index.function(c), name, &cx.config.names).and_then(|(_, q)| q.default.clone())
            });
            match default {
                Some(v) => format!(", whose default `{name}={v}` takes over"),
                None => format!(", whose default for `{name}` takes over"),
            }
        }
        Callee::Lacks => ", which has no such parameter".to_owned(),
        Callee::Unknown => String::new(),
    };
    let path = if d.fallback { "on the fallback path " } else { "" };
    let message = format!(
        "`{}` passes `{}` to `{}` (line {}), but {path}drops it at the call of `{}`{what}",
        f.qualname,
        p.name,
        short(&honoured.callee),
        honoured.line,
        short(&call.callee)
    );
    let mut related = vec![
        cx.place(id, Some(param), format!("`{}` is declared here", p.name)),
        cx.call_place(id, d.honoured, format!("`{}` honours it", short(&honoured.callee))),
    ];
    if let Some(target) = cx.effects.callee(id, d.dropping) {
        related.push(cx.place(
            target,
            None,
            format!("`{}` is defined here", cx.index.function(target).qualname),
        ));
    }
    cx.report(
        Suspect {
            id,
            param,
            rule,
            severity,
            at: Some((call.line, call.column)),
            message,
            help: format!("pass `{}` on here too, or raise when it is not the default", p.name),
            callee: Some(short(&call.callee)),
            twin: None,
            related,
            code_flow: Vec::new(),
            evidence: e,
        },
        out,
    );
}
