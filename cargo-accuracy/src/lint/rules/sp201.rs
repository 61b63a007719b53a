//! SP201 arm-drop: of two mutually exclusive calls on the same arguments, one gets a parameter and the other
//! gets neither it nor anything derived from it.
//!
//! What it does: compares calls in different arms of a branch, after an early return, in an exception
//! handler, or after a failed attempt. A path that pins the parameter (`assert p is None`, `if p: raise`, a
//! test of the parameter itself) is no drop; a mere mention of it is.
//!
//! Why it is bad: the fallback computes something else than the primary path, silently.
//!
//! ```python
//! def attention(q, k, v, scale, use_asm):
//!     if use_asm:
//!         return attention_asm(q, k, v)
//!     return attention_hip(q, k, v, scale)
//! ```
//!
//! Fix: pass the parameter on in both arms, or raise in the arm that cannot honour it.

use super::{Context, Finding, Rule};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP201",
    name: "arm-drop",
    summary: "one of two alternative calls drops a parameter",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp201.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    super::sp202::drops(cx, &RULE, out);
}
