//! SP006 defaulted-then-dropped: a parameter that is read, and what is computed from it goes nowhere.
//!
//! What it does: reports parameters that are given a default and then forgotten, or that only feed a local
//! that nothing uses.
//!
//! Why it is bad: it looks handled.
//!
//! ```python
//! def reduce(x, out_dtype=None):
//!     out_dtype = x.dtype if out_dtype is None else out_dtype
//!     return x.sum(0)
//! ```
//!
//! Fix: use the computed value, forward it, or raise when the parameter is not the default.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;
use crate::lint::source::Fate;

pub const RULE: Rule = Rule {
    code: "SP006",
    name: "defaulted-then-dropped",
    summary: "what is computed from a parameter goes nowhere",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp006.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::DeadEnd)),
        |p, f| format!("`{f}` reads `{p}`, but what it computes from it goes nowhere"),
    );
}
