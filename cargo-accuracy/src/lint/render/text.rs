//! Findings with excerpts of the source, for a person.

use std::collections::BTreeMap;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::lint::rules;
use crate::lint::{Finding, LintReport, Severity};

/// Renders what is not suppressed. Notes are counted; `verbose` shows them too. Sources are read from `root`.
pub fn text(report: &LintReport, root: &Path, color: bool, verbose: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut sources: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut load = |path: &str| {
        sources
            .entry(path.to_owned())
            .or_insert_with(|| std::fs::read_to_string(root.join(path)).ok())
            .clone()
    };
    let mut out = String::new();
    for f in report.findings.iter().filter(|f| f.suppressed.is_none()) {
        if f.severity == Severity::Note && !verbose {
            continue;
        }
        out.push_str(&one(f, &mut load, &renderer));
        out.push_str("\n\n");
    }
    for p in &report.problems {
        out.push_str(&format!("{}: {}\n", p.path, p.reason));
    }
    out.push_str(&summary(report, verbose));
    out
}

fn one(f: &Finding, load: &mut dyn FnMut(&str) -> Option<String>, renderer: &Renderer) -> String {
    let level = match f.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let url = rules::by_code(f.rule).map_or("", |r| r.name);
    let title = format!("{} [{url}]", f.message);
    let mut group = Group::with_title(level.primary_title(title).id(f.rule));
    let source = load(&f.path);
    let mut others: Vec<(String, String, std::ops::Range<usize>, String)> = Vec::new();
    match &source {
        Some(text) => {
            let mut snippet = Snippet::source(text.as_str()).path(f.path.as_str()).annotation(
                AnnotationKind::Primary
                    .span(span(text, f.line, f.column))
                    .label(format!("`{}`", f.parameter)),
            );
            for r in &f.related {
                if r.path == f.path {
                    if r.line != f.line {
                        snippet = snippet.annotation(
                            AnnotationKind::Context
                                .span(span(text, r.line, r.column))
                                .label(r.message.clone()),
                        );
                    }
                } else if let Some(other) = load(&r.path) {
                    let at = span(&other, r.line, r.column);
                    others.push((r.path.clone(), other, at, r.message.clone()));
                }
            }
            group = group.element(snippet);
            for (path, text, at, message) in &others {
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

fn summary(report: &LintReport, verbose: bool) -> String {
    let count =
        |s: Severity| report.findings.iter().filter(|f| f.severity == s && f.suppressed.is_none()).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    let suppressed = report.findings.iter().filter(|f| f.suppressed.is_some()).count();
    let mut out = format!(
        "silent parameters: {errors} errors, {warnings} warnings in {} functions of {} files",
        report.functions, report.files
    );
    if notes > 0 {
        let hint = if verbose { "" } else { " (shown with -v)" };
        out.push_str(&format!(", {notes} notes{hint}"));
    }
    if suppressed > 0 {
        out.push_str(&format!(", {suppressed} suppressed or in the baseline"));
    }
    out.push('\n');
    out
}
