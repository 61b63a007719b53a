//! What a person reads: findings by severity, each with its first occurrence in context, then what was expected.

use super::rules::{Role, Rule, Rules, Severity};
use super::scan::{Finding, First, News};
use super::{LogsArgs, Outcome};
use crate::output::OutputArgs;
use crate::report::style::{self, paint};
use crate::report::text::number::counted;
use crate::report::text::wrap::wrap;
use anstyle::Style;
use std::fmt::Write as _;

/// Things that one rule names in full unless all are wanted.
const TOLD: usize = 5;

fn style_of(severity: Severity) -> Style {
    match severity {
        Severity::Error => style::BAD,
        Severity::Warning => style::WARN,
        Severity::Note => style::NOTE,
    }
}

pub fn render(outcome: &Outcome, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    let findings = outcome.scan.findings();
    let mut rules: Vec<usize> = findings.iter().map(|f| f.rule).collect();
    rules.dedup();
    rules.sort_by_key(|&r| std::cmp::Reverse(outcome.rules[r].severity));
    let mut seen = std::collections::HashSet::new();
    rules.retain(|r| seen.insert(*r));
    for index in rules {
        let rule = &outcome.rules[index];
        if output.quiet && rule.severity < outcome.fail_on {
            continue;
        }
        let of_rule: Vec<&Finding> = findings.iter().filter(|f| f.rule == index).collect();
        of_one_rule(&mut text, rule, &of_rule, output.verbose, width);
    }
    for expected in outcome.scan.expected() {
        match &expected.first {
            Some(first) => {
                if !output.quiet {
                    let _ = writeln!(text, "{} {}", paint(style::GOOD, "seen"), expected.pattern);
                    place(&mut text, first);
                }
            }
            None => {
                let _ = writeln!(text, "{} {}", paint(style::BAD, "NOT SEEN"), expected.pattern);
                match &expected.no_proof {
                    Some((first, rule)) => {
                        let rule = &outcome.rules[*rule];
                        let why = match rule.role {
                            Role::UserText => "is what a user wrote",
                            Role::Announcement => "only says what will be tried",
                            Role::Finding if rule.severity == Severity::Note => "does not say that it ran",
                            Role::Finding | Role::Reason | Role::Harmless => "reports a failure",
                        };
                        wrap(&mut text, &format!("a line names it, but {why} ({})", rule.id), 2, width);
                        place(&mut text, first);
                    }
                    None => text.push('\n'),
                }
            }
        }
    }
    let of = |severity| {
        findings.iter().filter(|f| outcome.rules[f.rule].severity == severity).map(|f| f.count).sum::<u64>()
    };
    for source in outcome.scan.sources.iter().filter(|s| s.blank) {
        let _ = writeln!(text, "{} {} is empty", paint(style::WARN, "nothing read:"), source.name);
    }
    if !outcome.rules.disabled.is_empty() {
        let disabled = outcome.rules.disabled.join(", ");
        let _ = writeln!(text, "{} {disabled}", paint(style::WARN, "rules that were taken out:"));
    }
    let known = outcome.rules.known().join(", ");
    for source in outcome.scan.sources.iter().filter(|s| s.unknown) {
        let lines = counted(source.lines, "line");
        let message = format!(
            "{} {}: none of its {lines} is of a producer that is known ({known}), so that nothing was looked for in it. \
             Is it the server's log? Rules for others are yours to add: --rules FILE; cargo accuracy logs --rules prints \
             those that there are.",
            paint(style::WARN, "unknown producer:"),
            source.name,
        );
        wrap(&mut text, &message, 0, width);
    }
    let mut producers: Vec<usize> =
        outcome.scan.sources.iter().flat_map(|s| s.producers.iter().copied()).collect();
    producers.sort_unstable();
    producers.dedup();
    if !producers.is_empty() && !output.quiet {
        let names: Vec<&str> = producers.iter().map(|&p| outcome.rules.producers[p].name.as_str()).collect();
        wrap(&mut text, &format!("lines of {}", names.join(", ")), 0, width);
    }
    let sources: Vec<&str> = outcome.scan.sources.iter().map(|s| s.name.as_str()).collect();
    let _ = writeln!(
        text,
        "{} of {}: {}, {}, {}",
        counted(outcome.scan.lines(), "line"),
        sources.join(", "),
        counted(of(Severity::Error), "error"),
        counted(of(Severity::Warning), "warning"),
        counted(of(Severity::Note), "note")
    );
    text
}

/// A line of what was just found, or seen as expected, while the log is still being written.
pub fn news(rules: &Rules, news: &News<'_>, args: &LogsArgs) -> String {
    let told = |First { source, line, .. }: &First, what: String| format!("{source}:{line}: {what}\n");
    match news {
        News::Found(finding) => {
            let rule = &rules[finding.rule];
            let severity = paint(style_of(rule.severity), rule.severity.name());
            let words = finding.first.text.trim();
            match args.output.quiet && rule.severity < args.fail_on {
                true => String::new(),
                false => told(&finding.first, format!("{severity} {}: {words}", rule.id)),
            }
        }
        News::Seen(expected) => match &expected.first {
            Some(first) if !args.output.quiet => {
                told(first, format!("{} {}", paint(style::GOOD, "seen"), expected.pattern))
            }
            _ => String::new(),
        },
    }
}

fn of_one_rule(text: &mut String, rule: &Rule, findings: &[&Finding], all: bool, width: Option<usize>) {
    let style = style_of(rule.severity);
    let total: u64 = findings.iter().map(|f| f.count).sum();
    let _ = writeln!(
        text,
        "{} {} ({}), {}",
        paint(style, rule.severity.name()),
        paint(style::BOLD, &rule.id),
        rule.project,
        counted(total, "time")
    );
    if !rule.help.is_empty() {
        wrap(text, &rule.help, 2, width);
    }
    let told = if all { findings.len() } else { TOLD.min(findings.len()) };
    for finding in &findings[..told] {
        if !finding.what.is_empty() {
            let _ = writeln!(text, "  {} {}x", finding.what, finding.count);
        }
    }
    if told < findings.len() {
        let rest: u64 = findings[told..].iter().map(|f| f.count).sum();
        let _ = writeln!(text, "  and {} more ({rest}x), told with -v", findings.len() - told);
    }
    if let Some(finding) = findings.first() {
        place(text, &finding.first);
    }
}

fn place(text: &mut String, first: &First) {
    if let Some((line, reason)) = &first.reason {
        let _ = writeln!(text, "  perhaps because of {}:{line}", first.source);
        let _ = writeln!(text, "  > {reason}");
    }
    let _ = writeln!(text, "  first at {}:{}", first.source, first.line);
    for line in &first.before {
        let _ = writeln!(text, "    {}", paint(style::DIM, line));
    }
    let _ = writeln!(text, "  > {}", first.text);
    for line in &first.after {
        let _ = writeln!(text, "    {}", paint(style::DIM, line));
    }
    text.push('\n');
}

/// Whose lines are known, and what is looked for in them.
pub fn list(rules: &Rules) -> String {
    let mut text = String::from("known producers of lines\n");
    for producer in &rules.producers {
        let _ = writeln!(text, "  {} {}", paint(style::BOLD, &producer.name), producer.about);
    }
    for rule in &rules.rules {
        let kind = match rule.kind.is_empty() {
            true => String::new(),
            false => format!(", {}", rule.kind),
        };
        let _ = writeln!(
            text,
            "{} {} ({}{kind})\n  {}\n  {}",
            match rule.role {
                Role::Finding => paint(style_of(rule.severity), rule.severity.name()),
                Role::Announcement => paint(style::DIM, "announcement"),
                Role::UserText => paint(style::DIM, "user text"),
                Role::Reason => paint(style::DIM, "reason"),
                Role::Harmless => paint(style::DIM, "harmless"),
            },
            paint(style::BOLD, &rule.id),
            rule.project,
            rule.help,
            rule.pattern.as_str().replace('\n', "\n  ")
        );
    }
    text
}
