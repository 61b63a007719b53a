//! SP101 forwarded-to-ignorer: a parameter that is passed on, and everyone it is passed to ignores it.
//!
//! What it does: follows calls through the repository to a fixpoint; the message prints the chain.
//!
//! Why it is bad: each function looks right alone.
//!
//! ```python
//! def _rope(x, freqs, transpose_output):
//!     return rotate(x, freqs)
//!
//! def rope(x, freqs, transpose_output=False):
//!     return _rope(x, freqs, transpose_output)
//! ```
//!
//! Fix: implement the parameter where the chain ends, or raise when it is not the default.

use super::{Context, Finding, Place, Reason, Rule, Suspect, describe_reason, help};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP101",
    name: "forwarded-to-ignorer",
    summary: "a parameter is forwarded only to functions that ignore it",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp101.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    for (id, param, reason, e) in &cx.suspects {
        let (id, param) = (*id, *param);
        let Reason::Forwarded { callee, .. } = reason else { continue };
        if e.twin().is_some() || e.family().is_some() {
            continue;
        }
        let f = cx.index.function(id);
        let p = &f.params[param];
        let (chain, last) = chain(cx, id, param);
        let end = cx.index.function(*callee);
        let mut message = format!("`{}` forwards `{}` to `{}`", f.qualname, p.name, end.qualname);
        match last {
            Some((end_id, words)) if end_id != *callee => {
                message.push_str(&format!(
                    ", and `{}` at the end of the chain {words}",
                    cx.index.function(end_id).qualname
                ));
            }
            Some((_, words)) => message.push_str(&format!(", which {words}")),
            None => message.push_str(", which ignores it"),
        }
        cx.report(
            Suspect {
                id,
                param,
                rule: &RULE,
                at: None,
                message,
                help: help(&p.name),
                callee: Some(&end.qualname),
                twin: None,
                related: chain.last().cloned().into_iter().collect(),
                code_flow: chain,
                evidence: e.clone(),
            },
            out,
        );
    }
}

/// The places a parameter passes through, and how it ends.
pub fn chain(
    cx: &Context,
    id: crate::lint::index::FnId,
    param: usize,
) -> (Vec<Place>, Option<(crate::lint::index::FnId, &'static str)>) {
    let mut places =
        vec![cx.place(id, Some(param), format!("`{}` comes in", cx.index.function(id).params[param].name))];
    let (mut at, mut p) = (id, param);
    for _ in 0..16 {
        match cx.effects.ignored(at, p) {
            Some(Reason::Forwarded { call, callee, param }) => {
                let callee_fn = cx.index.function(*callee);
                places.push(cx.call_place(at, *call, format!("passed to `{}`", callee_fn.qualname)));
                (at, p) = (*callee, *param as usize);
                places.push(cx.place(
                    at,
                    Some(p),
                    format!("`{}` of `{}`", callee_fn.params[p].name, callee_fn.qualname),
                ));
            }
            Some(reason) => return (places, Some((at, describe_reason(reason)))),
            None => break,
        }
    }
    (places, None)
}
