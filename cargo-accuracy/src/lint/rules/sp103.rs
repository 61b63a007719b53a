//! SP103 lost-at-binding: a parameter that crosses from Python into C++ and is ignored there.
//!
//! What it does: pairs Python declarations without body (`@compile_ops`, `torch.library` schemas) with the
//! C++ function of the same name and as many parameters, and reports what that function ignores. Parameters
//! that the C++ rules already report are related, not repeated: the finding stands on the Python side, where
//! the caller is.
//!
//! Why it is bad: the Python signature promises what the native code does not do.
//!
//! ```python
//! @compile_ops("module_gemm")
//! def gemm(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor: ...
//! ```
//!
//! Fix: implement the parameter in the native function, or raise there when it is not the default.

use super::{Context, Excuse, Finding, Rule, Suspect, describe_reason, help};
use crate::lint::config::Level;
use crate::lint::index::FnId;
use crate::lint::ir::ParamKind;
use crate::lint::names::Meaning;
use crate::lint::source::Language;

pub const RULE: Rule = Rule {
    code: "SP103",
    name: "lost-at-binding",
    summary: "a parameter is ignored on the other side of a language binding",
    level: Level::Note,
    precision: "medium",
    source: include_str!("sp103.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    for id in cx.index.ids() {
        let f = cx.index.function(id);
        let declares = f.traits.stub && !f.decorators.is_empty() && !f.traits.method && !f.traits.accessor;
        if cx.index.file(id).language != Language::Python || !declares {
            continue;
        }
        let Some(native) = native(cx, id) else { continue };
        let n = cx.index.function(native);
        for (i, p) in f.params.iter().enumerate() {
            let Some(j) = n.params.iter().position(|q| q.name.trim_matches('_') == p.name.trim_matches('_'))
            else {
                continue;
            };
            let Some(reason) = cx.effects.ignored(native, j) else { continue };
            let mut e = cx.evidence(native, j, Some(reason));
            e.excuses.insert(0, Excuse::Reported);
            if e.meaning < Meaning::Numeric {
                continue;
            }
            cx.report(
                Suspect {
                    id,
                    param: i,
                    rule: &RULE,
                    at: None,
                    message: format!(
                        "`{}` is bound to the native `{}`, which {} (`{}`)",
                        f.qualname,
                        n.qualname,
                        describe_reason(reason),
                        p.name
                    ),
                    help: help(&p.name),
                    callee: Some(&n.qualname),
                    twin: None,
                    related: vec![cx.place(
                        native,
                        Some(j),
                        format!("`{}` in `{}`", n.params[j].name, n.qualname),
                    )],
                    code_flow: Vec::new(),
                    evidence: e,
                },
                out,
            );
        }
    }
}

/// The one native function of that name which shares most parameters.
fn native(cx: &Context, id: FnId) -> Option<FnId> {
    let f = cx.index.function(id);
    let mut found = cx.index.native(f.name.trim_start_matches('_')).filter(|other| {
        let n = cx.index.function(*other);
        let shared = f
            .params
            .iter()
            .filter(|p| {
                p.kind != ParamKind::Receiver
                    && n.params.iter().any(|q| q.name.trim_matches('_') == p.name.trim_matches('_'))
            })
            .count();
        !n.traits.stub && !n.traits.device && shared * 2 > f.params.len()
    });
    let one = found.next()?;
    found.next().is_none().then_some(one)
}
