//! SP002 discarded-parameter: a parameter that is thrown away on purpose.
//!
//! What it does: reports `del x`, `_ = x`, `(void)x`, unnamed C++ parameters, `[[maybe_unused]]`, Rust's `_x`
//! and `let _ = x`.
//!
//! Why it is bad: it silences compilers and linters, and the caller still is not told. It says that somebody knew, no
//! more: a note, unless a twin honours the parameter (then SP203 reports it).
//!
//! ```cpp
//! void fwd(const float* q, float* out, const float /*softcap*/) { run(q, out); }
//! ```
//!
//! Fix: implement the parameter, forward it, or raise when it is not the default.

use super::{Context, Finding, Reason, Rule};
use crate::lint::config::Level;
use crate::lint::source::Fate;

pub const RULE: Rule = Rule {
    code: "SP002",
    name: "discarded-parameter",
    summary: "a parameter is discarded on purpose",
    level: Level::Note,
    precision: "low",
    source: include_str!("sp002.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    cx.local(
        &RULE,
        out,
        |r| matches!(r, Reason::Local(Fate::Discarded)),
        |p, f| format!("`{f}` discards `{p}`"),
    );
}
