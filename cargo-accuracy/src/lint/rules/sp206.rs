//! SP206 fake-shape-asymmetry: a fake (meta) function ignores a parameter that decides the real function's
//! output shape, dtype or layout.
//!
//! What it does: pairs fakes by decorator (`register_fake`), by reference (`gen_fake=f`) and by name, and
//! reports parameters that reach an allocation, a `dtype=` or a transposition in the real function only.
//!
//! Why it is bad: `torch.compile` bakes the fake's shapes into the graph.
//!
//! ```python
//! def gemm_fake(x, w, transpose_out): return x.new_empty(x.shape[0], w.shape[0])
//!
//! @compile_guard(gen_fake=gemm_fake)
//! def gemm(x, w, transpose_out):
//!     shape = (w.shape[0], x.shape[0]) if transpose_out else (x.shape[0], w.shape[0])
//!     return run(x, w, torch.empty(shape))
//! ```
//!
//! Fix: compute the fake's shape from the same parameters.

use super::{Context, Excuse, Finding, Rule, Suspect, Witness};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP206",
    name: "fake-shape-asymmetry",
    summary: "a fake ignores a parameter that decides the real output's shape or dtype",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp206.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    for (fake, real) in &cx.index.real_of {
        if fake == real {
            continue;
        }
        let (f, r) = (cx.index.function(*fake), cx.index.function(*real));
        if f.traits.stub || f.opaque {
            continue;
        }
        for (i, p) in f.params.iter().enumerate() {
            let Some(reason) = cx.effects.ignored(*fake, i) else { continue };
            let Some((j, q)) = r.params.iter().enumerate().find(|(_, q)| q.name == p.name) else { continue };
            if !q.shapes || !cx.effects.honours(cx.index, *real, j) {
                continue;
            }
            let mut e = cx.evidence(*fake, i, Some(reason));
            // A fake has its function's signature by contract; what decides the output it has to look at.
            e.witnesses = vec![Witness::Literal];
            e.excuses.clear();
            // Tensors shape outputs by their own shape, which the fake may take from another argument.
            if q.annotation.as_deref().is_some_and(|a| a.contains("Tensor")) {
                e.excuses.push(Excuse::Carried(q.name.clone()));
            }
            cx.report(
                Suspect {
                    id: *fake,
                    param: i,
                    rule: &RULE,
                    at: None,
                    message: format!(
                        "the fake `{}` ignores `{}`, which decides the shape, dtype or layout of what `{}` returns",
                        f.qualname, p.name, r.qualname
                    ),
                    help: format!("compute the fake's shape and dtype from `{}` too", p.name),
                    callee: None,
                    twin: Some(*real),
                    related: vec![cx.place(*real, Some(j), format!("`{}` honours it", r.qualname))],
                    code_flow: Vec::new(),
                    evidence: e,
                },
                out,
            );
        }
    }
}
