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

use super::{Context, Contract, Evidence, Excuse, Finding, Rule, Suspect, Witness, short};
use crate::lint::config::Level;
use crate::lint::index::{FnId, param as find};
use crate::lint::names::{self, Meaning};
use crate::lint::source::{Documented, DropSummary, Language, Sink, Slot};

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
        // One finding per parameter: the drop for which most speaks, the others related.
        let mut best: FxHashMap<u16, (i32, &DropSummary, Callee, Evidence)> = FxHashMap::default();
        for d in &f.drops {
            let callee = callee(cx, id, d);
            let e = evidence(cx, id, d, &callee);
            let rank = 100 * (2 - e.severity() as i32) + e.order;
            let entry = best.entry(d.param);
            match entry {
                std::collections::hash_map::Entry::Vacant(v) => {
                    v.insert((rank, d, callee, e));
                }
                std::collections::hash_map::Entry::Occupied(mut o) if o.get().0 < rank => {
                    o.insert((rank, d, callee, e));
                }
                std::collections::hash_map::Entry::Occupied(_) => {}
            }
        }
        let mut best: Vec<_> = best.into_iter().collect();
        best.sort_by_key(|b| b.0);
        for (p, (_, d, callee, e)) in best {
            let default_drop = matches!(callee, Callee::Has { .. });
            if default_drop == (rule.code == "SP202") {
                emit(cx, rule, id, p as usize, e, d, &callee, out);
            }
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

/// Who disagrees with the drop and what excuses it.
fn evidence(cx: &Context, id: FnId, d: &DropSummary, callee: &Callee) -> Evidence {
    let f = cx.index.function(id);
    let p = &f.params[d.param as usize];
    let (a, b) = (&f.calls[d.honoured as usize], &f.calls[d.dropping as usize]);
    let has = matches!(callee, Callee::Has { .. });
    let mut witnesses = vec![Witness::OtherArm];
    let (shared, missing) = (i32::from(d.shared), i32::from(d.missing));
    let alike = names::alternatives(&a.callee, &b.callee);
    if has {
        // Most of the shared arguments arrive: the same job with one thing left out. A literal was written by somebody.
        let left = matches!(callee, Callee::Has { literal: None, .. })
            && (missing * 3 <= shared && alike || d.fallback)
            && cx.effects.callee(id, d.dropping) != Some(id);
        witnesses.push(if left { Witness::CalleeHas } else { Witness::Default });
    }
    if p.documented == Documented::Promised {
        witnesses.push(Witness::Documented);
    }
    let mut excuses = Vec::new();
    if p.documented == Documented::Ignored {
        excuses.push(Excuse::SaysSo);
    }
    if let Some(c @ (Contract::Layer | Contract::Kernel | Contract::Nested)) = cx.contract(id) {
        excuses.push(Excuse::Contract(c));
    }
    if names::stages(&a.callee, &b.callee) {
        excuses.push(Excuse::Steps);
    }
    if let Some(q) = &d.absent {
        excuses.push(Excuse::Mode(q.clone()));
    }
    // Where the call gets another scale of the same operand, the mode quantises that operand.
    let scaled = b.args.iter().filter_map(|x| x.direct).any(|i| {
        let name = &f.params[i as usize].name;
        names::is_quantisation(name)
            && !names::same_quantity(name, "softmax_scale", &cx.config.names)
            && names::quantises_alike(name, &p.name)
    });
    if d.mode && names::is_quantisation(&p.name) && !has && !scaled {
        excuses.push(Excuse::Mode(String::new()));
    }
    // A flag that a test on the way asks about chose the way.
    if d.mentioned && p.is_flag() && !has {
        excuses.push(Excuse::Mode(p.name.clone()));
    }
    // The other function's name is this one's and a word more, and the parameter belongs to what that word adds.
    if !has && !d.fallback && names::adds(&a.callee, &b.callee, &p.name) {
        excuses.push(Excuse::Mode(String::new()));
    }
    excuses.extend(cx.tuning(&p.name));
    if f.traits.answers || f.traits.reports || names::is_predicate(&f.name) {
        excuses.push(Excuse::Answers);
    }
    // What the other path hands it to only says whether, or why not, this one is taken.
    if let Some(asked) = cx.effects.callee(id, d.honoured) {
        let t = cx.index.function(asked).traits;
        if t.answers || t.chooses || t.reports {
            excuses.push(Excuse::Verified);
        }
    }
    if !has && f.traits.chooses {
        excuses.push(Excuse::Chooses);
    }
    if cx.index.file(id).language == Language::Python && names::is_tool(&cx.index.file(id).path) {
        excuses.push(Excuse::Tool);
    }
    let same_use = a.sink == b.sink && a.sink != Sink::Inside;
    let meaning = names::meaning(&p.name, &cx.config.names);
    if !comparable(cx, id, d, callee, &witnesses) {
        excuses.push(Excuse::Unlike);
    }
    // An internal function that chooses among callees, each with what it needs, misleads nobody from elsewhere.
    if f.name.starts_with('_') && !has && !d.fallback && p.documented != Documented::Promised {
        excuses.push(Excuse::Internal);
    }
    // What stands in the parameter's place is a value of the call's choice, or the function calls itself for another case.
    if let Callee::Has { literal: Some(l), .. } = callee
        && (!absent(l) || cx.effects.callee(id, d.dropping) == Some(id))
    {
        excuses.push(Excuse::Fixed);
    }
    let order = 10 * i32::from(has)
        + 4 * i32::from(d.fallback)
        + 2 * i32::from(alike)
        + 2 * i32::from(same_use)
        + shared.min(8)
        - missing.min(8)
        + match meaning {
            Meaning::Semantic => 6,
            Meaning::Numeric => 4,
            Meaning::Neutral => 2,
            Meaning::Tuning => 0,
        };
    Evidence {
        meaning,
        sort: p.sort,
        optional: p.optional(),
        absent: p.may_be_absent(),
        defaulted: p.default.is_some(),
        public: false,
        witnesses,
        excuses,
        order,
    }
}

/// Whether two calls do the same job, so that what one of them is not passed is missed.
fn comparable(cx: &Context, id: FnId, d: &DropSummary, callee: &Callee, witnesses: &[Witness]) -> bool {
    let has = matches!(callee, Callee::Has { .. });
    let f = cx.index.function(id);
    let p = &f.params[d.param as usize];
    let (a, b) = (&f.calls[d.honoured as usize], &f.calls[d.dropping as usize]);
    let (shared, missing) = (i32::from(d.shared), i32::from(d.missing));
    let alike = names::alternatives(&a.callee, &b.callee);
    let unknown = cx.effects.callee(id, d.dropping).is_none();
    // One unknown function called in two ways: which of several it is, nobody knows.
    let same_unknown = unknown && a.callee == b.callee;
    let same_use = a.sink == b.sink && a.sink != Sink::Inside;
    let meaning = names::meaning(&p.name, &cx.config.names);
    let telling = meaning >= Meaning::Numeric;
    // A call that writes through an operand gives the result as well as one that returns it.
    let writes = a.sink == Sink::Dropped || b.sink == Sink::Dropped;
    // Steps of one job share operands, too: names, the use of the result or most operands have to agree.
    let kin = alike || same_use || d.fallback && telling || writes && shared >= 6;
    let enough = if has {
        missing <= shared || d.fallback || alike
    } else {
        d.fallback
            || alike && shared >= 8 && missing <= shared
            || alike && same_use && (missing <= shared && a.sink == Sink::Returned || missing * 2 <= shared)
            || missing * 3 <= shared + 1
    };
    // Different types are built from what they need.
    let constructs = |path: &str| names::last(path).starts_with(char::is_uppercase);
    let types = constructs(&a.callee) && constructs(&b.callee) && a.callee != b.callee && !has;
    // Of many arguments that another function has no use for, names say which would be missed.
    let lost =
        missing <= 3 || d.fallback || has || names::meaning(&p.name, &cx.config.names) >= Meaning::Numeric;
    // A name that says nothing of numbers may belong to one of the two callees alone: unless both calls give the
    // function's result, or something else is lost with it.
    let company = || {
        f.drops.iter().any(|o| {
            (o.dropping, o.honoured) == (d.dropping, d.honoured)
                && names::meaning(&f.params[o.param as usize].name, &cx.config.names) >= Meaning::Numeric
        })
    };
    let results = alike && a.sink == Sink::Returned && b.sink == Sink::Returned;
    let known = meaning >= Meaning::Numeric
        || results
        || d.fallback && same_use
        || witnesses.iter().any(|w| matches!(w, Witness::CalleeHas))
        || company();
    enough && kin && lost && known && (!same_unknown && !types || d.fallback)
}

/// A literal that says that there is none.
fn absent(literal: &str) -> bool {
    // A suffix says the type: `0.0f`, `0L`.
    let number = literal.trim_end_matches(['f', 'F', 'L', 'u']);
    matches!(literal, "None" | "nullptr" | "NULL" | "False" | "false" | "{}" | "\"\"" | "''")
        || matches!(number, "0" | "0." | "0.0" | "-1" | "1.0" | "1.")
        || literal.ends_with("nullopt")
}

#[expect(clippy::too_many_arguments, reason = "one call site; the pieces of one finding")]
fn emit(
    cx: &Context,
    rule: &'static Rule,
    id: FnId,
    param: usize,
    e: Evidence,
    d: &DropSummary,
    callee: &Callee,
    out: &mut Vec<Finding>,
) {
    let f = cx.index.function(id);
    let p = &f.params[param];
    let call = &f.calls[d.dropping as usize];
    let honoured = &f.calls[d.honoured as usize];
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
