//! SP102 swallowed-by-kwargs: a keyword that the callee does not declare and whose `**kwargs` it never reads.
//!
//! What it does: reports parameters that reach only such keywords.
//!
//! Why it is bad: Python would have raised a `TypeError`, had the callee not accepted everything.
//!
//! ```python
//! def fallback(x, **kwargs):
//!     return x
//!
//! def quantize(x, shuffle_scale=False):
//!     return fallback(x, shuffle_scale=shuffle_scale)
//! ```
//!
//! Fix: declare the parameter in the callee, or drop `**kwargs` there.

use super::{Context, Finding, Reason, Rule, Suspect, help};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP102",
    name: "swallowed-by-kwargs",
    summary: "a keyword disappears in a `**kwargs` that is never read",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp102.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    for (id, param, reason, e) in &cx.suspects {
        let (id, param) = (*id, *param);
        let Reason::Swallowed { call, callee } = reason else { continue };
        if e.twin().is_some() || e.family().is_some() {
            continue;
        }
        let f = cx.index.function(id);
        let p = &f.params[param];
        let target = cx.index.function(*callee);
        let c = &f.calls[*call as usize];
        cx.report(
            Suspect {
                id,
                param,
                rule: &RULE,
                at: Some((c.line, c.column)),
                message: format!(
                    "`{}` passes `{}` to `{}`, which does not declare it and never reads its `**kwargs`",
                    f.qualname, p.name, target.qualname
                ),
                help: help(&p.name),
                callee: Some(&target.qualname),
                twin: None,
                related: vec![cx.place(*callee, None, format!("`{}` swallows it", target.qualname))],
                code_flow: Vec::new(),
                evidence: e.clone(),
            },
            out,
        );
    }
}
