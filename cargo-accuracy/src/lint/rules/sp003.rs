//! SP003 overwritten-before-read: a parameter that every path assigns before anything reads it.
//!
//! What it does: follows assignments; passing the value only to the function itself is no read.
//!
//! Why it is bad: a pre-computed scale that the caller passes is replaced by another one.
//!
//! ```python
//! def quantize(x, scale=None):
//!     scale = x.abs().amax() / 448.0
//!     return x / scale, scale
//! ```
//!
//! Fix: compute only where the caller passed nothing, or raise when it is not the default.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;
use crate::lint::source::Fate;

pub const RULE: Rule = Rule {
    code: "SP003",
    name: "overwritten-before-read",
    summary: "a parameter is overwritten before anything reads it",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp003.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::Overwritten)),
        |p, f| format!("`{f}` overwrites `{p}` before any read"),
    );
}
