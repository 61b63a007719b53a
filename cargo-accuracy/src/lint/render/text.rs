//! Findings with excerpts of the source, for a person.

use std::collections::BTreeMap;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::lint::rules;
use crate::lint::{Finding, LintReport, Severity};

/// What is shown of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Errors and the last line.
    Quiet,
    Normal,
    /// Notes too, and what is counted apart.
    Verbose,
}

/// Renders what is not suppressed, one block for each call or function. Notes are counted. Sources are read from `root`.
pub fn text(report: &LintReport, root: &Path, color: bool, detail: Detail) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut sources: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut load = |path: &str| {
        sources
            .entry(path.to_owned())
            .or_insert_with(|| std::fs::read_to_string(root.join(path)).ok())
            .clone()
    };
    let shown = |f: &&Finding| {
        f.suppressed.is_none()
            && match detail {
                Detail::Quiet => f.severity == Severity::Error,
                Detail::Normal => f.severity != Severity::Note,
                Detail::Verbose => true,
            }
    };
    let mut out = String::new();
    for block in blocks(report.findings.iter().filter(shown)) {
        out.push_str(&one(&block, &mut load, &renderer));
        out.push_str("\n\n");
    }
    if detail != Detail::Quiet {
        for p in &report.problems {
            let line = p.line.map_or(String::new(), |l| format!(":{l}"));
            out.push_str(&format!("{}{line}: {}\n", p.path, p.reason));
        }
        out.push_str(&by_rule(report));
    }
    out.push_str(&summary(report, detail));
    out
}

/// Findings that say the same of several parameters of one function or of one call.
fn blocks<'r>(findings: impl Iterator<Item = &'r Finding>) -> Vec<Vec<&'r Finding>> {
    let mut out: Vec<Vec<&Finding>> = Vec::new();
    for f in findings {
        let same = |b: &Vec<&Finding>| {
            let g = b[0];
            (&g.path, g.span, g.rule, g.severity, &g.callee, &g.twin)
                == (&f.path, f.span, f.rule, f.severity, &f.callee, &f.twin)
        };
        // Findings are in the order of the source: those of one function stand together.
        match out.iter_mut().rev().take(24).find(|b| same(b)) {
            Some(block) => block.push(f),
            None => out.push(vec![f]),
        }
    }
    out
}

fn one(block: &[&Finding], load: &mut dyn FnMut(&str) -> Option<String>, renderer: &Renderer) -> String {
    let f = block[0];
    let level = match f.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let name = rules::by_code(f.rule).map_or("", |r| r.name);
    let others: Vec<String> = block[1..].iter().map(|g| format!("`{}`", g.parameter)).collect();
    let likewise = match others.as_slice() {
        [] => String::new(),
        list => format!("; likewise {}", list.join(", ")),
    };
    let title = format!("{}{likewise} [{name}]", f.message);
    let mut group = Group::with_title(level.primary_title(title).id(f.rule));
    let source = load(&f.path);
    let mut elsewhere: Vec<(String, String, std::ops::Range<usize>, String)> = Vec::new();
    match &source {
        Some(text) => {
            let mut snippet = Snippet::source(text.as_str()).path(f.path.as_str());
            let mut lines = Vec::new();
            for g in block {
                // Several parameters at one place are one mark.
                if lines.contains(&(g.line, g.column)) {
                    continue;
                }
                lines.push((g.line, g.column));
                let names: Vec<String> = block
                    .iter()
                    .filter(|h| (h.line, h.column) == (g.line, g.column))
                    .map(|h| format!("`{}`", h.parameter))
                    .collect();
                snippet = snippet.annotation(
                    AnnotationKind::Primary.span(span(text, g.line, g.column)).label(names.join(", ")),
                );
            }
            for r in &f.related {
                if r.path == f.path {
                    if !lines.iter().any(|(line, _)| *line == r.line) {
                        snippet = snippet.annotation(
                            AnnotationKind::Context
                                .span(span(text, r.line, r.column))
                                .label(r.message.clone()),
                        );
                    }
                } else if let Some(other) = load(&r.path) {
                    let at = span(&other, r.line, r.column);
                    elsewhere.push((r.path.clone(), other, at, r.message.clone()));
                }
            }
            group = group.element(snippet);
            for (path, text, at, message) in &elsewhere {
                group = group.element(
                    Snippet::source(text.as_str())
                        .path(path.as_str())
                        .annotation(AnnotationKind::Context.span(at.clone()).label(message.clone())),
                );
            }
        }
        None => {
            group = group.element(annotate_snippets::Origin::path(f.path.as_str()).line(f.line as usize));
        }
    }
    if f.severity == Severity::Note {
        for why in f.evidence.excuses.iter().skip(1) {
            group = group.element(Level::NOTE.message(why.clone()));
        }
    }
    group = group.element(Level::HELP.message(f.help.clone()));
    renderer.render(&[group])
}

/// The word that starts at a place.
fn span(text: &str, line: u32, column: u32) -> std::ops::Range<usize> {
    let mut offset = 0;
    for (i, l) in text.split_inclusive('\n').enumerate() {
        if i as u32 + 1 == line {
            let indent = l.len() - l.trim_start().len();
            let column =
                (column as usize - 1).max(if column == 1 { indent } else { 0 }).min(l.trim_end().len());
            let column = (0..=column).rev().find(|c| l.is_char_boundary(*c)).unwrap_or(0);
            let rest = &l[column..];
            let word = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(rest.trim_end().len());
            let end = if word == 0 {
                rest.chars().next().map_or(0, char::len_utf8).min(rest.trim_end().len())
            } else {
                word
            };
            return offset + column..offset + column + end;
        }
        offset += l.len();
    }
    text.len()..text.len()
}

/// How many errors and warnings each rule has, the most first.
fn by_rule(report: &LintReport) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for f in report.findings.iter().filter(|f| f.suppressed.is_none() && f.severity != Severity::Note) {
        *counts.entry(f.rule).or_default() += 1;
    }
    if counts.len() < 2 {
        return String::new();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(rule, n)| (std::cmp::Reverse(*n), *rule));
    let list: Vec<String> = counts
        .into_iter()
        .map(|(code, n)| format!("{n} {code} {}", rules::by_code(code).map_or("", |r| r.name)))
        .collect();
    format!("by rule: {}\n", list.join(", "))
}

/// `1 error`, `2 errors`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn summary(report: &LintReport, detail: Detail) -> String {
    let count = |s: Severity| {
        report
            .findings
            .iter()
            .filter(|f| f.severity == s && f.suppressed.is_none() && f.apart.is_none())
            .count()
    };
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let suppressed = report.findings.iter().filter(|f| f.suppressed.is_some()).count();
    let apart = report.findings.iter().filter(|f| f.apart.is_some() && f.suppressed.is_none()).count();
    let unread = report.problems.iter().filter(|p| p.unread).count();
    let mut out = format!(
        "silent parameters: {}, {} in {} of {}",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(report.functions, "function"),
        counted(report.files, "file"),
    );
    let hint = if detail == Detail::Verbose { "" } else { " (shown with -v)" };
    if notes > 0 {
        out.push_str(&format!(", {}{hint}", counted(notes, "note")));
    }
    if apart > 0 {
        out.push_str(&format!(", {apart} in vendored or generated files{hint}"));
    }
    if suppressed > 0 {
        out.push_str(&format!(", {suppressed} suppressed or in the baseline"));
    }
    if unread > 0 {
        out.push_str(&format!(", {} not read", counted(unread, "file")));
    }
    for path in &report.empty {
        out.push_str(&format!(", no source file in {path}"));
    }
    out.push('\n');
    out
}
