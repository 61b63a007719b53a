//! SP001 unused-parameter: a parameter that the function never reads.
//!
//! What it does: reports parameters that the body never mentions, where somebody disagrees: the documentation promises
//! the parameter, a neighbour is refused and this one is not, or a caller passes something else than the default. Where
//! nobody does, the custom of the repository and the name decide. The rest are notes.
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
