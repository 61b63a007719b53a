//! Rules: what is looked for, as data. The crate's own are in `rules.toml`; users add theirs.

use crate::exit::usage;
use anyhow::Context as _;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

const BUILT_IN: &str = include_str!("rules.toml");

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing: an untuned kernel, a default configuration.
    Note,
    /// Something else runs than was meant.
    Warning,
    /// Something failed, or the numbers cannot be right.
    Error,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What a line that matches is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Something that is reported.
    #[default]
    Finding,
    /// Says what will be tried, or that it is waited for: no proof that it happened.
    Announcement,
    /// Holds what a user wrote: nothing in it says anything of the server.
    UserText,
    /// May be the reason of a failure that is reported some lines later, and is shown with it.
    Reason,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Written>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    role: Role,
    /// Of a finding.
    severity: Option<Severity>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    help: String,
    /// Takes a built-in rule out.
    #[serde(default)]
    disabled: bool,
    /// Lines that the rule has to find, and lines that it has to leave.
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub id: String,
    pub project: String,
    /// The sort of event: `jit_build_failed`, `falling_back`, `kernel_not_found`, ...
    pub kind: String,
    pub role: Role,
    /// Meaningless for what is no finding.
    pub severity: Severity,
    /// Texts of which every matching line has one; without them the pattern itself is searched for.
    pub contains: Vec<String>,
    pub pattern: Regex,
    pub help: String,
}

impl Rule {
    /// A line of this kind is no proof that what it names ran.
    pub fn disproves(&self) -> bool {
        match self.role {
            Role::Announcement | Role::UserText => true,
            Role::Finding => self.severity >= Severity::Warning,
            Role::Reason => false,
        }
    }
}

/// The built-in rules, unless `own_only`, and those of the files.
pub fn load(files: &[impl AsRef<Path>], own_only: bool) -> anyhow::Result<Vec<Rule>> {
    let built_in = if own_only { Vec::new() } else { parse(BUILT_IN).context("the built-in rules")? };
    let mut written: Vec<(Written, &Path)> =
        built_in.into_iter().map(|rule| (rule, Path::new("built-in"))).collect();
    for path in files {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let more = parse(&text).map_err(|e| usage(format!("{}: {e}", path.display())))?;
        for rule in more {
            written.retain(|(r, _)| r.id != rule.id);
            written.push((rule, path));
        }
    }
    let enabled = written.into_iter().filter(|(rule, _)| !rule.disabled);
    enabled
        .map(|(rule, path)| compile(rule).map_err(|e| usage(format!("{}: {e:#}", path.display()))))
        .collect()
}

fn parse(text: &str) -> anyhow::Result<Vec<Written>> {
    let file: File = toml::from_str(text)?;
    let mut seen = HashSet::new();
    if let Some(twice) = file.rule.iter().find(|r| !seen.insert(r.id.as_str())) {
        anyhow::bail!("rule `{}` is there twice", twice.id);
    }
    Ok(file.rule)
}

fn compile(written: Written) -> anyhow::Result<Rule> {
    let id = &written.id;
    anyhow::ensure!(!written.pattern.is_empty(), "rule `{id}` has no `pattern`");
    let severity = match (written.role, written.severity) {
        (Role::Finding, severity) => severity.with_context(|| format!("rule `{id}` has no `severity`"))?,
        (_, None) => Severity::Note,
        (_, Some(_)) => anyhow::bail!("rule `{id}`: only a finding has a `severity`"),
    };
    anyhow::ensure!(
        written.contains.iter().all(|c| !c.is_empty()),
        "rule `{id}`: an empty text in `contains`"
    );
    let pattern = pattern(&written.pattern).with_context(|| format!("rule `{id}`"))?;
    // Only lines with one of the texts ever meet the pattern.
    let finds = |line: &String| {
        let texts = &written.contains;
        (texts.is_empty() || texts.iter().any(|t| line.contains(t))) && pattern.is_match(line.as_bytes())
    };
    if let Some(line) = written.examples.iter().find(|line| !finds(line)) {
        anyhow::bail!("rule `{id}` does not find its example `{line}`");
    }
    if let Some(line) = written.not.iter().find(|line| finds(line)) {
        anyhow::bail!("rule `{id}` finds `{line}`, which it should leave");
    }
    Ok(Rule {
        pattern,
        severity,
        role: written.role,
        id: written.id,
        project: written.project,
        kind: written.kind,
        contains: written.contains,
        help: written.help,
    })
}

/// A pattern for lines: `^` and `$` are those of a line, and no match goes beyond one.
pub fn pattern(text: &str) -> anyhow::Result<Regex> {
    let pattern = regex::bytes::RegexBuilder::new(text).multi_line(true).size_limit(1 << 20).build()?;
    anyhow::ensure!(!pattern.is_match(b""), "the pattern `{text}` matches an empty line");
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::scan::Scan;

    #[test]
    fn every_rule_finds_its_examples_and_no_other_rule_does() {
        let rules = load(&[""; 0], false).unwrap();
        for written in parse(BUILT_IN).unwrap() {
            let id = &written.id;
            assert!(!written.examples.is_empty() && !written.help.is_empty(), "{id}");
            assert!(!written.project.is_empty(), "{id}");
            assert_eq!(written.kind.is_empty(), written.role != Role::Finding, "{id}");
            for (lines, expected) in [(&written.examples, vec![id.as_str()]), (&written.not, vec![])] {
                for line in lines {
                    let mut scan = Scan::new(&rules, &[], 0).unwrap();
                    scan.read("log", &mut format!("before\n{line}\nafter\n").as_bytes()).unwrap();
                    let found: Vec<&str> =
                        scan.findings().iter().map(|f| rules[f.rule].id.as_str()).collect();
                    let expected = if written.role == Role::Finding { expected.clone() } else { vec![] };
                    assert_eq!(found, expected, "{line}");
                }
            }
        }
    }

    #[test]
    fn rules_of_the_user_replace_add_and_disable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        let count = load(&[""; 0], false).unwrap().len();
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            load(&[&path], false)
        };
        let rules = write("[[rule]]\nid='mine'\nseverity='error'\npattern='x+'").unwrap();
        assert_eq!(rules.len(), count + 1);
        let rules = write("[[rule]]\nid='nan-seen'\nseverity='note'\npattern='y'").unwrap();
        assert_eq!(rules.len(), count);
        assert_eq!(rules.last().unwrap().severity, Severity::Note);
        assert_eq!(write("[[rule]]\nid='nan-seen'\ndisabled=true").unwrap().len(), count - 1);
        for (bad, part) in [
            ("[[rule]]\nid='a'\nseverity='error'\npattern='('", "unclosed group"),
            ("[[rule]]\nid='a'\nseverity='error'\npattern='('", "rules.toml: rule `a`"),
            ("[[rule]]\nid='a'\nseverity='note'\nrole='reason'\npattern='x'", "only a finding"),
            ("[[rule]]\nid='a'\nrole='joke'\npattern='x'", "joke"),
            ("[[rule]]\nid='a'\nseverity='error'\npattern='x*'", "rule `a`"),
            ("[[rule]]\nid='a'\npattern='x'", "no `severity`"),
            ("[[rule]]\nid='a'\nseverity='note'\npattern='x'\nexamples=['y']", "its example `y`"),
            ("[[rule]]\nid='a'\nseverity='note'\npattern='x'\nnot=['x']", "should leave"),
            ("[[rule]]\nid='a'\nseverity='bad'\npattern='x'", "severity"),
            ("[[rule]]\nid='a'\nseverity='note'\npattern='x'\nwhat=1", "what"),
            ("rules = 3", "rules"),
        ] {
            let error = write(bad).unwrap_err();
            assert!(error.is::<crate::exit::UsageError>(), "{bad}");
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
    }
}
