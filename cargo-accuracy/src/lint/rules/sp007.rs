//! SP007 stored-never-read: a constructor stores a parameter in an attribute that nothing in the repository
//! reads.
//!
//! What it does: compares attributes that constructors assign from parameters with all attribute names that
//! the repository reads. Off by default: configuration classes are written for others to read.
//!
//! ```python
//! class Norm:
//!     def __init__(self, eps):
//!         self.eps = eps
//!     def forward(self, x):
//!         return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))
//! ```
//!
//! Fix: use the attribute, or remove the parameter.

use rustc_hash::FxHashSet;

use super::{Context, Finding, Rule, Suspect, Witness};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP007",
    name: "stored-never-read",
    summary: "a constructor stores a parameter that nothing reads",
    level: Level::Off,
    precision: "low",
    source: include_str!("sp007.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    let read: FxHashSet<&str> =
        cx.index.files.iter().flat_map(|f| f.attributes_read.iter().map(String::as_str)).collect();
    for id in cx.index.ids() {
        let f = cx.index.function(id);
        if !cx.reportable(id) {
            continue;
        }
        for (param, attribute) in &f.stored {
            if read.contains(attribute.as_str()) {
                continue;
            }
            let param = *param as usize;
            let mut e = cx.evidence(id, param, None);
            e.witnesses.push(Witness::Asked);
            cx.report(
                Suspect {
                    id,
                    param,
                    rule: &RULE,
                    at: None,
                    message: format!(
                        "`{}` stores `{}` as `{attribute}`, which nothing reads",
                        f.qualname, f.params[param].name
                    ),
                    help: format!("use `{attribute}`, or remove the parameter"),
                    callee: None,
                    twin: None,
                    related: Vec::new(),
                    code_flow: Vec::new(),
                    evidence: e,
                },
                out,
            );
        }
    }
}
