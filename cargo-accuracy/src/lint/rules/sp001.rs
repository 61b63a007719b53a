//! SP001 unused-parameter: a parameter that the function never reads.
//!
//! What it does: reports parameters whose name says that they change the result (a scale, an epsilon, a
//! mask, a layout flag) and that the body never mentions. Other names are notes.
//!
//! Why it is bad: the caller asked for something and gets a result computed without it, with no error.
//!
//! ```python
//! def rms_norm(x, weight, eps):
//!     return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) * weight
//! ```
//!
//! Fix: implement the parameter, forward it, or raise when it is not the default.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;
use crate::lint::source::Fate;

pub const RULE: Rule = Rule {
    code: "SP001",
    name: "unused-parameter",
    summary: "a parameter is never read",
    level: Level::Warn,
    precision: "low",
    source: include_str!("sp001.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::NeverRead)),
        |p, f| format!("`{f}` never reads `{p}`"),
    );
}
