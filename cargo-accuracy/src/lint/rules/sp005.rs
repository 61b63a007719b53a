//! SP005 recursion-only: a parameter that a function passes only to itself.
//!
//! What it does: reports parameters whose every read is the same argument of a recursive call.
//!
//! Why it is bad: the parameter travels down and is never acted on.
//!
//! ```python
//! def reduce(parts, scale):
//!     return parts[0] if len(parts) == 1 else parts[0] + reduce(parts[1:], scale)
//! ```
//!
//! Fix: implement the parameter, or remove it.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP005",
    name: "recursion-only",
    summary: "a parameter is only passed to the function itself",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp005.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Recursion),
        |p, f| format!("`{f}` passes `{p}` only to itself"),
    );
}
