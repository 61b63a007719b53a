//! Inline suppressions: `# accuracy: ignore[SP201] name -- reason`, with `//` in C++ and Rust. A reason is
//! required; a suppression that suppresses nothing is reported.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignore {
    pub line: u32,
    /// Rules it names; a problem with the comment itself is in `fault`.
    pub rules: Vec<String>,
    pub params: Vec<String>,
    pub reason: Option<String>,
    pub fault: Option<String>,
    /// The comment stands alone, so it also covers the next line of code.
    pub alone: bool,
    /// The line of code it covers.
    pub covers: u32,
}

const MARK: &str = "accuracy: ignore";

/// Collects the suppressions of one file.
pub fn scan(text: &str, python: bool) -> Vec<Ignore> {
    let mut out = Vec::new();
    if !text.contains(MARK) {
        return out;
    }
    let leader = if python { "#" } else { "//" };
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let Some(at) = line.find(MARK) else { continue };
        let Some(comment) = line[..at].rfind(leader) else { continue };
        if !line[comment + leader.len()..at].trim_matches([' ', '/', '!', '#']).is_empty() {
            continue;
        }
        let alone = line[..comment].trim().is_empty();
        let covers = if alone {
            (i + 1..lines.len())
                .find(|j| {
                    let t = lines[*j].trim();
                    !t.is_empty() && !t.starts_with(leader)
                })
                .map_or(i, |j| j)
        } else {
            i
        };
        out.push(parse(&line[at + MARK.len()..], i as u32 + 1, alone, covers as u32 + 1));
    }
    out
}

fn parse(rest: &str, line: u32, alone: bool, covers: u32) -> Ignore {
    let mut ignore =
        Ignore { line, rules: Vec::new(), params: Vec::new(), reason: None, fault: None, alone, covers };
    let rest = rest.trim_start();
    let Some((rules, rest)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) else {
        ignore.fault = Some("names no rule; write `accuracy: ignore[SP201] name -- reason`".to_owned());
        return ignore;
    };
    ignore.rules = rules.split(',').map(|r| r.trim().to_owned()).filter(|r| !r.is_empty()).collect();
    let (names, reason) = match rest.split_once("--") {
        Some((n, r)) => (n, r.trim().trim_end_matches("*/").trim()),
        None => (rest, ""),
    };
    ignore.params =
        names.split([',', ' ']).map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    if ignore.rules.is_empty() {
        ignore.fault = Some("names no rule".to_owned());
    } else if reason.is_empty() {
        ignore.fault = Some("gives no reason; add `-- why` after the parameter".to_owned());
    } else {
        ignore.reason = Some(reason.to_owned());
    }
    ignore
}

impl Ignore {
    /// Marks a suppression that names a rule which does not exist. This module knows no rule, because rules are above it.
    pub fn refuse_unknown(&mut self, exists: impl Fn(&str) -> bool) {
        if let Some(unknown) = self.rules.iter().find(|rule| !exists(rule)) {
            self.fault = Some(format!("`{unknown}` is no rule; `lint --explain` lists them"));
            self.reason = None;
        }
    }

    pub fn covers(&self, rule: &str, param: &str, lines: &[u32]) -> bool {
        self.fault.is_none()
            && self.rules.iter().any(|r| r == rule)
            && (self.params.is_empty() || self.params.iter().any(|p| p == param))
            && lines.iter().any(|l| *l == self.line || *l == self.covers)
    }
}
