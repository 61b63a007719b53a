//! SP204 table-asymmetry: a member of a dispatch table ignores a parameter that another member honours.
//!
//! What it does: the functions in one dictionary or list, and the `forward_*` methods of one class, are called
//! with the same arguments. Where one of them honours a parameter, all have to honour or refuse it.
//!
//! Why it is bad: which member runs is decided by shape, architecture or a tuning file.
//!
//! ```python
//! def gemm_asm(a, b, scale): return asm(a, b)
//! def gemm_hip(a, b, scale): return hip(a, b, scale)
//! TABLE = {"asm": gemm_asm, "hip": gemm_hip}
//! ```
//!
//! Fix: implement the parameter, or raise when it is not the default.

use super::{Context, Finding, Reason, Rule, Suspect, describe_reason, help};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP204",
    name: "table-asymmetry",
    summary: "a member of a dispatch table ignores a parameter that another honours",
    level: Level::Error,
    precision: "high",
    source: include_str!("sp204.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    asymmetries(cx, &RULE, out);
}

/// Shared by SP203 (twins) and SP204 (tables and families).
pub fn asymmetries(cx: &Context, rule: &'static Rule, out: &mut Vec<Finding>) {
    let family_rule = rule.code == "SP204";
    for (id, param, reason, e) in &cx.suspects {
        let (id, param) = (*id, *param);
        let other = if family_rule { e.family() } else { e.twin().filter(|_| e.family().is_none()) };
        let Some(other) = other else { continue };
        let f = cx.index.function(id);
        let p = &f.params[param];
        let o = cx.index.function(other);
        let does = describe_reason(reason).replacen(" it", &format!(" `{}`", p.name), 1);
        let message = format!("`{}` {does}", f.qualname);
        let honoured = crate::lint::index::param(o, &p.name, &cx.config.names).map(|(i, _)| i);
        let mut related = vec![cx.place(other, honoured, format!("`{}` honours it", o.qualname))];
        let mut code_flow = Vec::new();
        let mut callee = None;
        if let Reason::Forwarded { callee: to, .. } = reason {
            let (chain, _) = super::sp101::chain(cx, id, param);
            code_flow = chain;
            callee = Some(cx.index.function(*to).qualname.as_str());
        }
        if let Some(line) = p.witness {
            related.push(super::Place {
                path: cx.index.file(id).path.clone(),
                line,
                column: 1,
                message: format!("all that happens to `{}`", p.name),
            });
        }
        cx.report(
            Suspect {
                id,
                param,
                rule,
                at: None,
                message,
                help: help(&p.name),
                callee,
                twin: Some(other),
                related,
                code_flow,
                evidence: e.clone(),
            },
            out,
        );
    }
}
