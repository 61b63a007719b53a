//! SP203 twin-asymmetry: a function ignores a parameter that its twin honours.
//!
//! What it does: twins have the same name but for backend words (`triton`, `hip`, `ref`, `v2`), or for one word more, and
//! share most parameters. Methods are twins where their classes are one, or differ in backend words only. Where one honours a parameter and the other ignores it (SP001 to SP006, SP101), this rule
//! reports the one that ignores. Neither is assumed to be the fallback.
//!
//! Why it is bad: switching the backend changes the numbers.
//!
//! ```python
//! def quant_hip(x, scale, shuffle=False):
//!     return hip.quant(x, scale, shuffle)
//!
//! def quant_triton(x, scale, shuffle=False):
//!     return triton_quant(x, scale)
//! ```
//!
//! Fix: implement the parameter, or raise when it is not the default.

use super::{Context, Finding, Rule};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP203",
    name: "twin-asymmetry",
    summary: "a function ignores a parameter that its twin honours",
    level: Level::Error,
    precision: "high",
    source: include_str!("sp203.rs"),
    check,
};

fn check(cx: &Context, out: &mut Vec<Finding>) {
    super::sp204::asymmetries(cx, &RULE, out);
}
