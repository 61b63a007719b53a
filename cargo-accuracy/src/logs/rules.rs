//! Rules: what is looked for, as data. The crate's own are in `rules/`, a file for each producer of lines; users add
//! theirs.

use crate::exit::usage;
use anyhow::Context as _;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

/// The built-in files, in the order in which the producers are listed.
const BUILT_IN: &[(&str, &str)] = &[
    ("vllm.toml", include_str!("rules/vllm.toml")),
    ("sglang.toml", include_str!("rules/sglang.toml")),
    ("atom.toml", include_str!("rules/atom.toml")),
    ("tgi.toml", include_str!("rules/tgi.toml")),
    ("llama_cpp.toml", include_str!("rules/llama_cpp.toml")),
    ("aiter.toml", include_str!("rules/aiter.toml")),
    ("flydsl.toml", include_str!("rules/flydsl.toml")),
    ("triton.toml", include_str!("rules/triton.toml")),
    ("transformer_engine.toml", include_str!("rules/transformer_engine.toml")),
    ("rocblas.toml", include_str!("rules/rocblas.toml")),
    ("hipblaslt.toml", include_str!("rules/hipblaslt.toml")),
    ("ck.toml", include_str!("rules/ck.toml")),
    ("hip.toml", include_str!("rules/hip.toml")),
    ("pytorch.toml", include_str!("rules/pytorch.toml")),
    ("python.toml", include_str!("rules/python.toml")),
    ("compilers.toml", include_str!("rules/compilers.toml")),
    ("engines.toml", include_str!("rules/engines.toml")),
];

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
    /// Looks like a warning or a note and is none: only errors are found in it.
    Harmless,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    producer: Option<WrittenProducer>,
    #[serde(default)]
    rule: Vec<Written>,
}

/// Who writes lines, and how they are told from others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProducer {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    contains: Vec<String>,
    line: Option<String>,
    sign: Option<String>,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    /// The name of the file's producer where it is empty.
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
    /// Names of producers: the line has to be one of theirs.
    #[serde(default)]
    of: Vec<String>,
    /// Two groups of the pattern that must not be equal.
    differ: Option<[String; 2]>,
    /// Holds only where no other rule finds something in the line.
    #[serde(default)]
    last: bool,
    /// Rules that find nothing in a line where this one does, by their ids.
    #[serde(default)]
    instead_of: Vec<String>,
    /// Whether a line that matches proves that what it names ran; without it, a note does.
    proof: Option<bool>,
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

/// One that writes lines: an engine, a library, a compiler.
#[derive(Clone, Debug)]
pub struct Producer {
    pub name: String,
    pub about: String,
    /// Texts of which each of its lines has one.
    pub contains: Vec<String>,
    /// What its lines look like; `None` where they cannot be told from others.
    line: Option<Regex>,
    /// What no other producer's line has, where `line` alone could be another's.
    sign: Option<Regex>,
}

impl Producer {
    /// Whether this can be a line of the producer.
    pub fn writes(&self, line: &[u8]) -> bool {
        self.line.as_ref().is_some_and(|pattern| pattern.is_match(line))
    }

    /// Whether this line is certainly the producer's.
    pub fn signs(&self, line: &[u8]) -> bool {
        self.sign.as_ref().or(self.line.as_ref()).is_some_and(|pattern| pattern.is_match(line))
    }
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub id: String,
    pub project: String,
    /// Index of the producer in whose file the rule is.
    pub producer: Option<usize>,
    /// The sort of event: `jit_build_failed`, `falling_back`, `kernel_not_found`, ...
    pub kind: String,
    pub role: Role,
    /// Meaningless for what is no finding.
    pub severity: Severity,
    /// Texts of which every matching line has one; without them the pattern itself is searched for.
    pub contains: Vec<String>,
    pub pattern: Regex,
    /// Producers whose line it has to be, by index; empty where any line will do.
    of: Vec<usize>,
    differ: Option<[String; 2]>,
    /// Holds only where no other rule finds something in the line.
    pub last: bool,
    /// Ids of rules that find nothing in a line where this one does.
    pub instead_of: Vec<String>,
    proof: bool,
    pub help: String,
}

/// What is looked for, and in whose lines.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    pub producers: Vec<Producer>,
    /// Ids of rules that a file takes out.
    pub disabled: Vec<String>,
}

impl std::ops::Index<usize> for Rules {
    type Output = Rule;

    fn index(&self, rule: usize) -> &Rule {
        &self.rules[rule]
    }
}

impl Rules {
    /// Whether the rule holds for a line that has one of its texts.
    pub fn holds(&self, rule: &Rule, line: &[u8]) -> bool {
        if !rule.pattern.is_match(line) {
            return false;
        }
        if !rule.of.is_empty() && !rule.of.iter().any(|&p| self.producers[p].writes(line)) {
            return false;
        }
        rule.differ.as_ref().is_none_or(|[a, b]| {
            let groups = rule.pattern.captures(line);
            groups.is_some_and(|g| g.name(a).map(|m| m.as_bytes()) != g.name(b).map(|m| m.as_bytes()))
        })
    }

    /// The names of the producers whose lines can be told from others.
    pub fn known(&self) -> Vec<&str> {
        self.producers.iter().filter(|p| p.line.is_some()).map(|p| p.name.as_str()).collect()
    }
}

impl Rule {
    /// What a line that matches is about: the pattern's group `what`, or its first named group that takes part.
    pub fn what<'l>(&self, line: &'l [u8]) -> Option<&'l [u8]> {
        self.pattern.capture_names().flatten().next()?;
        let captures = self.pattern.captures(line)?;
        let first = self.pattern.capture_names().flatten().find_map(|name| captures.name(name));
        captures.name("what").or(first).map(|m| m.as_bytes())
    }

    /// A line of this kind is no proof that what it names ran.
    pub fn disproves(&self) -> bool {
        match self.role {
            Role::Announcement | Role::UserText => true,
            Role::Finding => !self.proof,
            Role::Reason | Role::Harmless => false,
        }
    }
}

/// The built-in rules, unless `own_only`, and those of the files.
pub fn load(files: &[impl AsRef<Path>], own_only: bool) -> anyhow::Result<Rules> {
    let mut read: Vec<(File, &Path)> = Vec::new();
    for (name, text) in BUILT_IN.iter().filter(|_| !own_only) {
        read.push((parse(text).with_context(|| format!("the built-in rules, {name}"))?, Path::new(name)));
    }
    for path in files {
        let path = path.as_ref();
        let text = accuracy_core::files::read_text(path, accuracy_core::files::TEXT)
            .with_context(|| format!("cannot read {}", path.display()))?;
        read.push((parse(&text).map_err(|e| usage(format!("{}: {e}", path.display())))?, path));
    }
    let mut loaded = Rules::default();
    let mut written: Vec<(Written, Option<usize>, &Path)> = Vec::new();
    for (file, path) in read {
        let wrong = |e: anyhow::Error| usage(format!("{}: {e:#}", path.display()));
        let producer = match file.producer {
            Some(producer) => {
                let producer = compile_producer(producer).map_err(wrong)?;
                let known = loaded.producers.iter().position(|p| p.name == producer.name);
                Some(match known {
                    Some(at) => {
                        loaded.producers[at] = producer;
                        at
                    }
                    None => {
                        loaded.producers.push(producer);
                        loaded.producers.len() - 1
                    }
                })
            }
            None => None,
        };
        for rule in file.rule {
            written.retain(|(r, ..)| r.id != rule.id);
            written.push((rule, producer, path));
        }
    }
    loaded.disabled =
        written.iter().filter(|(rule, ..)| rule.disabled).map(|(rule, ..)| rule.id.clone()).collect();
    for (rule, producer, path) in written.into_iter().filter(|(rule, ..)| !rule.disabled) {
        let rule =
            compile(rule, producer, &loaded).map_err(|e| usage(format!("{}: {e:#}", path.display())))?;
        loaded.rules.push(rule);
    }
    Ok(loaded)
}

fn parse(text: &str) -> anyhow::Result<File> {
    let file: File = toml::from_str(text)?;
    let mut seen = HashSet::new();
    if let Some(twice) = file.rule.iter().find(|r| !seen.insert(r.id.as_str())) {
        anyhow::bail!("rule `{}` is there twice", twice.id);
    }
    Ok(file)
}

fn compile_producer(written: WrittenProducer) -> anyhow::Result<Producer> {
    let name = &written.name;
    anyhow::ensure!(!name.is_empty(), "a producer has an empty `name`");
    let of = |text: &Option<String>| -> anyhow::Result<Option<Regex>> {
        text.as_deref().map(pattern).transpose().with_context(|| format!("producer `{name}`"))
    };
    let (line, sign) = (of(&written.line)?, of(&written.sign)?);
    anyhow::ensure!(
        line.is_some() || (sign.is_none() && written.contains.is_empty()),
        "producer `{name}` has no `line`, the pattern of its lines"
    );
    anyhow::ensure!(
        line.is_none() || !written.contains.is_empty(),
        "producer `{name}` has no `contains`: texts of which each of its lines has one"
    );
    let producer =
        Producer { name: written.name.clone(), about: written.about, contains: written.contains, line, sign };
    let told =
        |line: &String| producer.contains.iter().any(|t| line.contains(t)) && producer.signs(line.as_bytes());
    if let Some(line) = written.examples.iter().find(|line| !told(line)) {
        anyhow::bail!("producer `{name}` does not know its example `{line}`");
    }
    if let Some(line) = written.not.iter().find(|line| told(line)) {
        anyhow::bail!("producer `{name}` takes `{line}` for its own, which it should leave");
    }
    Ok(producer)
}

fn compile(written: Written, producer: Option<usize>, loaded: &Rules) -> anyhow::Result<Rule> {
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
    for group in written.differ.iter().flatten() {
        anyhow::ensure!(
            pattern.capture_names().flatten().any(|name| name == group),
            "rule `{id}`: the pattern has no group `{group}`, which `differ` names"
        );
    }
    let place = |name: &String| {
        let at = loaded.producers.iter().position(|p| p.name == *name);
        at.with_context(|| format!("rule `{id}`: `of` names `{name}`, which is no known producer"))
    };
    let of = written.of.iter().map(place).collect::<anyhow::Result<Vec<usize>>>()?;
    let project = match (written.project.is_empty(), producer) {
        (true, Some(producer)) => loaded.producers[producer].name.clone(),
        _ => written.project.clone(),
    };
    let rule = Rule {
        pattern,
        severity,
        producer,
        project,
        of,
        role: written.role,
        id: id.clone(),
        kind: written.kind,
        contains: written.contains,
        differ: written.differ,
        last: written.last,
        instead_of: written.instead_of,
        proof: written.proof.unwrap_or(severity == Severity::Note),
        help: written.help,
    };
    // Only lines with one of the texts ever meet the pattern.
    let finds = |line: &String| {
        let texts = &rule.contains;
        (texts.is_empty() || texts.iter().any(|t| line.contains(t))) && loaded.holds(&rule, line.as_bytes())
    };
    if let Some(line) = written.examples.iter().find(|line| !finds(line)) {
        anyhow::bail!("rule `{id}` does not find its example `{line}`");
    }
    if let Some(line) = written.not.iter().find(|line| finds(line)) {
        anyhow::bail!("rule `{id}` finds `{line}`, which it should leave");
    }
    Ok(rule)
}

/// A pattern for lines: `^` and `$` are those of a line, and no match goes beyond one.
pub fn pattern(text: &str) -> anyhow::Result<Regex> {
    let pattern = regex::bytes::RegexBuilder::new(text).multi_line(true).size_limit(4 << 20).build()?;
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
        for written in BUILT_IN.iter().flat_map(|(_, text)| parse(text).unwrap().rule) {
            let id = &written.id;
            assert!(!written.examples.is_empty() && !written.help.is_empty(), "{id}");
            assert!(!written.not.is_empty(), "{id} has no line that it must leave");
            assert_eq!(written.kind.is_empty(), written.role != Role::Finding, "{id}");
            let finds = [id.as_str()];
            for (lines, expected) in [(&written.examples, &finds[..]), (&written.not, &[])] {
                for line in lines {
                    let mut scan = Scan::new(&rules, &[], 0).unwrap();
                    scan.read("log", &mut format!("before\n{line}\nafter\n").as_bytes()).unwrap();
                    let found: Vec<&str> =
                        scan.findings().iter().map(|f| rules[f.rule].id.as_str()).collect();
                    // What is not harmless is another rule's finding.
                    if written.role == Role::Harmless && expected.is_empty() {
                        continue;
                    }
                    let expected = if written.role == Role::Finding { expected } else { &[] };
                    assert_eq!(found, expected, "{line}");
                }
            }
        }
    }

    #[test]
    fn rules_of_the_user_replace_add_and_disable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        let count = load(&[""; 0], false).unwrap().rules.len();
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            load(&[&path], false).map(|loaded| loaded.rules)
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
