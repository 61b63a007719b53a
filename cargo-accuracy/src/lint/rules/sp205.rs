//! SP205 literal-instead-of-parameter: a call passes a literal where the function has a parameter of that
//! meaning, which it otherwise ignores.
//!
//! What it does: for an ignored parameter, looks for a call that binds a literal to the callee's parameter of
//! the same name or a known alias.
//!
//! Why it is bad: the callee would honour it (`softcap=0.0`, `deterministic=False`).
//!
//! ```python
//! def attention(q, k, v, softcap=0.0):
//!     return kernel(q, k, v, softcap=0.0)
//! ```
//!
//! Fix: pass the parameter instead of the literal.

use super::{Context, Finding, Reason, Rule, Suspect, Witness, help, short};
use crate::lint::config::Level;
use crate::lint::names;
use crate::lint::source::{Fate, Slot};

pub const RULE: Rule = Rule {
    code: "SP205",
    name: "literal-instead-of-parameter",
    summary: "a literal is passed where an ignored parameter belongs",
    level: Level::Warn,
    precision: "high",
    source: include_str!("sp205.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    for (id, param, reason, e) in &cx.suspects {
        let (id, param) = (*id, *param);
        let f = cx.index.function(id);
        let p = &f.params[param];
        let found = f.calls.iter().enumerate().find_map(|(i, c)| {
            let callee = cx.effects.callee(id, i as u32);
            c.args.iter().find_map(|a| {
                let literal = a.literal.as_ref()?;
                let name = match &a.slot {
                    Slot::Keyword(k) => k.clone(),
                    slot => {
                        let callee = callee?;
                        cx.index.function(callee).params[cx.index.bind(callee, c, slot)?].name.clone()
                    }
                };
                names::same_quantity(&name, &p.name, &cx.config.names).then(|| (c, name, literal.clone()))
            })
        });
        let mut e = e.clone();
        // Where a check mentions the parameter, the literal may be what it demands. Beside a discard it is meant.
        if !matches!(reason, Reason::Local(Fate::Checked | Fate::Discarded))
            && !e.witnesses.contains(&Witness::Literal)
        {
            e.witnesses.push(Witness::Literal);
        }
        let (line, column, text) = match (found, &p.stand_in) {
            (Some((call, name, literal)), _) => (
                call.line,
                call.column,
                format!("passes `{name}={literal}` to `{}` instead", short(&call.callee)),
            ),
            (None, Some((line, literal))) => {
                (*line, 1, format!("passes the literal `{literal}` in its place"))
            }
            (None, None) => continue,
        };
        cx.report(
            Suspect {
                id,
                param,
                rule: &RULE,
                at: Some((line, column)),
                message: format!("`{}` ignores `{}` and {text}", f.qualname, p.name),
                help: help(&p.name),
                callee: None,
                twin: e.twin(),
                related: vec![cx.place(id, Some(param), format!("`{}` is declared here", p.name))],
                code_flow: Vec::new(),
                evidence: e,
            },
            out,
        );
    }
}
