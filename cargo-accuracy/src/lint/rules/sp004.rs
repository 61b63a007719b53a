//! SP004 observed-only: a parameter that only a log, a print, a warning or a check that does not pin it reads.
//!
//! What it does: a warning that a parameter is ignored is no guard; nor is an assertion on its shape.
//!
//! Why it is bad: the log says the parameter was there, the numbers say it was not.
//!
//! ```python
//! def dispatch(a, b, bias=None):
//!     if bias is not None:
//!         logger.warning("bias is ignored")
//!     return gemm(a, b)
//! ```
//!
//! Fix: implement the parameter, forward it, or raise instead of warning.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;
use crate::lint::source::Fate;

pub const RULE: Rule = Rule {
    code: "SP004",
    name: "observed-only",
    summary: "a parameter is only logged or checked",
    level: Level::Warn,
    precision: "medium",
    source: include_str!("sp004.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::Logged)),
        |p, f| format!("`{f}` reads `{p}` only to log or print it"),
    );
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::Checked)),
        |p, f| format!("`{f}` reads `{p}` only in a check that does not pin its value"),
    );
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::Raised)),
        |p, f| format!("`{f}` reads `{p}` only to name it in an error"),
    );
}
