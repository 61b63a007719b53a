//! Reading logs of any length: blocks of whole lines, in each of which all texts are searched for at once. Only a line
//! that has one of them meets a pattern. What is kept does not grow with the log.

use super::rules::{Role, Rules, Severity};
use super::structured;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use memchr::{memchr, memrchr};
use regex::bytes::Regex;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::io::Read;

/// Bytes that are read at a time. A line that is longer is taken for several.
const BLOCK: usize = 1 << 20;
/// What is kept of a line.
const MAX_LINE: usize = 400;
/// Occurrences of one rule that are told apart.
const MAX_GROUPS: usize = 200;
/// Bytes in which every producer is looked for; beyond them the first that is known will do.
const PRODUCERS_WITHIN: u64 = 8 << 20;
/// Lines whose findings are remembered, and the longest of them: many logs say the same a million times.
const MAX_REMEMBERED: usize = 4096;
const MAX_REMEMBERED_LINE: usize = 300;
/// How far behind a reason a failure may be reported, in lines.
const REASON_REACH: u64 = 300;

/// Where something was seen first, and what stood around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    pub source: String,
    /// From 1.
    pub line: u64,
    pub text: String,
    pub before: Vec<String>,
    pub after: Vec<String>,
    /// The last line before it that says why, with its number.
    pub reason: Option<(u64, String)>,
}

/// Occurrences of one rule about one thing.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Index of the rule.
    pub rule: usize,
    /// What the rule's group `what`, or its first named group, matched; empty without one.
    pub what: String,
    pub count: u64,
    pub first: First,
}

/// A pattern that must be seen.
#[derive(Clone, Debug)]
pub struct Expected {
    pub pattern: String,
    pub first: Option<First>,
    /// The first line that matches and is no proof, and the rule that says so.
    pub no_proof: Option<(First, usize)>,
}

/// What a log said for the first time.
pub enum News<'a> {
    Found(&'a Finding),
    Seen(&'a Expected),
}

/// One log.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub lines: u64,
    /// Has nothing but white space.
    pub blank: bool,
    /// Indices of the producers that wrote lines in it.
    pub producers: Vec<usize>,
    /// None of its lines is a known producer's, and no rule has found anything.
    pub unknown: bool,
}

/// Why a log was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is UTF-16; as UTF-8 it can be read: iconv -f UTF-16 -t UTF-8 FILE | cargo accuracy logs -")]
    Utf16,
    #[error("it is not text: {0} of its first {1} bytes are control characters")]
    Binary(usize, usize),
}

pub struct Scan<'a> {
    rules: &'a Rules,
    /// Finds the rules' texts, and says by the text's index which rule is meant.
    texts: AhoCorasick,
    owners: Vec<usize>,
    /// Rules that are searched for by their patterns.
    without_text: Vec<usize>,
    /// Rules that say of a line that it is no warning.
    harmless: Vec<usize>,
    /// Finds the texts of producers, and says by the text's index which producer is meant.
    marks: AhoCorasick,
    mark_owners: Vec<usize>,
    /// What is known of the log that is read.
    seen: Seen,
    /// What lines count towards that were met before.
    remembered: FxHashMap<Box<[u8]>, Remembered>,
    expected: Vec<(Regex, Expected)>,
    context: usize,
    findings: Vec<Finding>,
    /// The findings of each rule by what they are about; what is beyond [`MAX_GROUPS`] is counted as one.
    groups: Vec<HashMap<String, usize>>,
    /// The last line of a [`Role::Reason`] in the log that is read.
    reason: Option<(u64, String)>,
    pub sources: Vec<Source>,
    pub bytes: u64,
}

/// The finding that a line counts towards; one that counts towards several is not remembered.
#[derive(Clone, Copy)]
enum Remembered {
    Nothing,
    One(u32),
}

/// What is known of the log that is read.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// For each producer, whether a line is its.
    producers: Vec<bool>,
    /// Whether a rule has found something.
    found: bool,
    bytes: u64,
}

impl Seen {
    fn any(&self) -> bool {
        self.found || self.producers.contains(&true)
    }
}

impl<'a> Scan<'a> {
    /// `context` lines are kept before and after each first occurrence.
    pub fn new(rules: &'a Rules, expected: &[String], context: usize) -> anyhow::Result<Scan<'a>> {
        let texts: Vec<(usize, &str)> = rules
            .rules
            .iter()
            .enumerate()
            .flat_map(|(i, r)| r.contains.iter().map(move |t| (i, t.as_str())))
            .collect();
        let expected = expected.iter().map(|text| {
            let pattern = super::rules::pattern(text)?;
            Ok((pattern, Expected { pattern: text.clone(), first: None, no_proof: None }))
        });
        let marks: Vec<(usize, &str)> = rules
            .producers
            .iter()
            .enumerate()
            .flat_map(|(i, p)| p.contains.iter().map(move |t| (i, t.as_str())))
            .collect();
        // The automaton that is fastest, however many texts there are.
        let automaton = |texts: &[(usize, &str)]| {
            let kind = Some(AhoCorasickKind::DFA);
            AhoCorasick::builder().kind(kind).build(texts.iter().map(|(_, text)| text))
        };
        let of_role = |harmless: bool| {
            let rules = rules.rules.iter().enumerate();
            rules.filter(move |(_, r)| (r.role == Role::Harmless) == harmless)
        };
        Ok(Scan {
            rules,
            texts: automaton(&texts)?,
            owners: texts.iter().map(|(rule, _)| *rule).collect(),
            without_text: of_role(false).filter(|(_, r)| r.contains.is_empty()).map(|(i, _)| i).collect(),
            harmless: of_role(true).map(|(i, _)| i).collect(),
            marks: automaton(&marks)?,
            mark_owners: marks.iter().map(|(producer, _)| *producer).collect(),
            seen: Seen::default(),
            remembered: FxHashMap::default(),
            expected: expected.collect::<anyhow::Result<_>>()?,
            context,
            findings: Vec::new(),
            groups: vec![HashMap::new(); rules.rules.len()],
            reason: None,
            sources: Vec::new(),
            bytes: 0,
        })
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn expected(&self) -> impl Iterator<Item = &Expected> {
        self.expected.iter().map(|(_, e)| e)
    }

    pub fn lines(&self) -> u64 {
        self.sources.iter().map(|s| s.lines).sum()
    }

    /// Reads a log to its end.
    pub fn read(&mut self, source: &str, log: &mut dyn Read) -> Result<(), ReadError> {
        self.follow(source, log, &mut |_| Ok(()))
    }

    /// Reads a log to its end, and tells after each block what is new.
    pub fn follow(
        &mut self,
        source: &str,
        log: &mut dyn Read,
        tell: &mut dyn FnMut(News<'_>) -> std::io::Result<()>,
    ) -> Result<(), ReadError> {
        let mut buffer = vec![0; BLOCK];
        let (mut filled, mut line, mut blank) = (0, 1, true);
        let mut tail: Vec<String> = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let (mut plain, mut spoken, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        self.reason = None;
        self.seen = Seen { producers: vec![false; self.rules.producers.len()], ..Seen::default() };
        loop {
            let n = read_some(log, &mut buffer[filled..])?;
            filled += n;
            self.bytes += n as u64;
            let end = match memrchr(b'\n', &buffer[..filled]) {
                Some(at) if n > 0 => at + 1,
                // The last line, or one that is longer than a block.
                _ if n == 0 || filled == buffer.len() => filled,
                _ => continue,
            };
            let raw = &buffer[..end];
            if blank {
                expect_text(raw)?;
                blank = raw.iter().all(|b| b.is_ascii_whitespace() || *b == 0);
            }
            // Most blocks have neither an escape sequence nor an object.
            let special = memchr::memchr2(ESCAPE, b'{', raw);
            let structured = special.is_some_and(|at| structured::read(raw, at, &mut spoken, &mut numbers));
            let spoken = if structured { &spoken } else { raw };
            // A message may hold sequences, too, which were escaped in it.
            let from = if structured { Some(0) } else { special };
            let bytes = match from.and_then(|at| memchr(ESCAPE, &spoken[at..]).map(|more| at + more)) {
                None => spoken,
                Some(first) => {
                    without_escapes(spoken, first, &mut plain);
                    &plain
                }
            };
            let numbers = structured.then_some(numbers.as_slice());
            let block =
                Block { source, bytes, first_line: line, numbers, tail: &tail, context: self.context };
            self.recognise(bytes);
            block.fill(&mut waiting, |place, text| self.first_mut(place).after.push(text));
            let found = self.findings.len();
            let waits: Vec<bool> = self.expected().map(|e| e.first.is_none()).collect();
            self.block(&block, &mut waiting);
            for finding in &self.findings[found..] {
                tell(News::Found(finding))?;
            }
            for (expected, _) in
                self.expected().zip(&waits).filter(|(e, waited)| **waited && e.first.is_some())
            {
                tell(News::Seen(expected))?;
            }
            line += memchr::memchr_iter(b'\n', raw).count() as u64;
            tail = block.tail();
            if n == 0 {
                let unfinished = u64::from(end > 0 && buffer[end - 1] != b'\n');
                let producers = self.seen.producers.iter().enumerate().filter(|(_, seen)| **seen);
                self.sources.push(Source {
                    name: source.to_owned(),
                    lines: line - 1 + unfinished,
                    blank,
                    producers: producers.map(|(i, _)| i).collect(),
                    // Rules of the user's alone know of no producers.
                    unknown: !blank && !self.rules.known().is_empty() && !self.seen.any(),
                });
                return Ok(());
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }

    /// Whose lines there are: everyone's in the log's beginning, and further on only until someone is known.
    fn recognise(&mut self, bytes: &[u8]) {
        let enough = self.seen.any() && self.seen.bytes >= PRODUCERS_WITHIN;
        if enough || self.mark_owners.is_empty() {
            return;
        }
        self.seen.bytes += bytes.len() as u64;
        let mut missing = self.seen.producers.iter().filter(|seen| !**seen).count();
        for found in self.marks.find_overlapping_iter(bytes) {
            if missing == 0 {
                return;
            }
            let producer = self.mark_owners[found.pattern().as_usize()];
            if self.seen.producers[producer] {
                continue;
            }
            let (start, end) = line_around(bytes, found.start());
            if self.rules.producers[producer].signs(&bytes[start..end]) {
                self.seen.producers[producer] = true;
                missing -= 1;
            }
        }
    }

    fn block(&mut self, block: &Block, waiting: &mut Vec<Waiting>) {
        let mut cursor = Cursor { at: 0, index: 0 };
        let texts = self.texts.clone();
        let mut next = 0;
        // An automaton without a text would still look at every byte.
        let searched = if self.owners.is_empty() { &[] } else { block.bytes };
        for found in texts.find_iter(searched) {
            if found.start() < next {
                continue;
            }
            let (start, end) = line_around(block.bytes, found.start());
            next = end + 1;
            let text = &block.bytes[start..end];
            match self.remembered.get(text) {
                None => {}
                Some(Remembered::Nothing) => continue,
                Some(&Remembered::One(finding)) => {
                    let finding = &mut self.findings[finding as usize];
                    finding.count += 1;
                    self.seen.found = true;
                    if let Some(producer) = self.rules[finding.rule].producer {
                        self.seen.producers[producer] = true;
                    }
                    continue;
                }
            }
            let rules = self.rules_of(text);
            let reason = rules.iter().any(|&rule| self.rules[rule].role == Role::Reason);
            let mut findings = Vec::new();
            if !self.is_user_text(&rules) {
                if reason {
                    self.reason = Some((cursor.line_of(block, start), readable(text)));
                }
                for rule in self.findings_among(&rules, text) {
                    findings.push(self.matched(rule, block, start, end, &mut cursor, waiting));
                }
            }
            let remembered = match findings.as_slice() {
                [] => Some(Remembered::Nothing),
                [one] => u32::try_from(*one).ok().map(Remembered::One),
                _ => None,
            };
            if let Some(remembered) = remembered.filter(|_| !reason && text.len() <= MAX_REMEMBERED_LINE) {
                if self.remembered.len() >= MAX_REMEMBERED {
                    self.remembered.clear();
                }
                self.remembered.insert(text.into(), remembered);
            }
        }
        for rule in self.without_text.clone() {
            let mut cursor = Cursor { at: 0, index: 0 };
            let mut from = 0;
            while let Some(found) = self.rules[rule].pattern.find_at(block.bytes, from) {
                let (start, end) = line_around(block.bytes, found.start());
                let line = &block.bytes[start..end];
                let others = self.rules_of(line);
                if !self.is_user_text(&others)
                    && self.rules.holds(&self.rules[rule], line)
                    && self.findings_among(&[rule], line) == [rule]
                {
                    self.matched(rule, block, start, end, &mut cursor, waiting);
                }
                from = end + 1;
                if from > block.bytes.len() {
                    break;
                }
            }
        }
        for i in 0..self.expected.len() {
            self.expect(i, block, waiting);
        }
    }

    /// Which of the rules that hold for a line find something in it: in a harmless line only errors, and what holds
    /// only where nothing else does is asked last.
    fn findings_among(&self, rules: &[usize], line: &[u8]) -> Vec<usize> {
        let mut found: Vec<usize> =
            rules.iter().copied().filter(|&r| self.rules[r].role == Role::Finding).collect();
        let warns = |&r: &usize| self.rules[r].severity < Severity::Error;
        if found.iter().any(warns) && self.harmless.iter().any(|&r| self.rules.holds(&self.rules[r], line)) {
            found.retain(|r| !warns(r));
        }
        let hidden: Vec<&String> = found.iter().flat_map(|&r| &self.rules[r].instead_of).collect();
        if !hidden.is_empty() {
            found.retain(|&r| !hidden.contains(&&self.rules[r].id));
        }
        match found.iter().any(|&r| !self.rules[r].last) {
            true => found.retain(|&r| !self.rules[r].last),
            false => found.truncate(1),
        }
        found
    }

    /// Looks for a line that matches and is a proof.
    fn expect(&mut self, i: usize, block: &Block, waiting: &mut Vec<Waiting>) {
        let mut from = 0;
        while self.expected[i].1.first.is_none() && from <= block.bytes.len() {
            let Some(found) = self.expected[i].0.find_at(block.bytes, from) else { return };
            let (start, end) = line_around(block.bytes, found.start());
            from = end + 1;
            let line = || Cursor { at: 0, index: 0 }.line_of(block, start);
            let against =
                self.rules_of(&block.bytes[start..end]).into_iter().find(|&r| self.rules[r].disproves());
            let expected = &mut self.expected[i].1;
            match against {
                Some(rule) if expected.no_proof.is_none() => {
                    expected.no_proof = Some((block.first(start, end, line()), rule));
                }
                Some(_) => {}
                None => {
                    expected.first = Some(block.first(start, end, line()));
                    let place = Place::Expected(i);
                    waiting.extend(block.wait(place, end, self.context, self.first_mut(place)));
                }
            }
        }
    }

    /// The rules that have a text in this line and hold for it, in their order.
    fn rules_of(&self, line: &[u8]) -> Vec<usize> {
        let mut rules = Vec::new();
        for found in self.texts.find_overlapping_iter(line) {
            let rule = self.owners[found.pattern().as_usize()];
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules.sort_unstable();
        rules.retain(|&rule| self.rules.holds(&self.rules[rule], line));
        rules
    }

    fn is_user_text(&self, rules: &[usize]) -> bool {
        rules.iter().any(|&r| self.rules[r].role == Role::UserText)
    }

    /// Counts what a rule has found in a line, and says which finding it is.
    fn matched(
        &mut self,
        rule: usize,
        block: &Block,
        start: usize,
        end: usize,
        cursor: &mut Cursor,
        waiting: &mut Vec<Waiting>,
    ) -> usize {
        let text = &block.bytes[start..end];
        let named = self.rules[rule].what(text).unwrap_or_default();
        let readable_what: std::borrow::Cow<'_, str> = match std::str::from_utf8(named) {
            Ok(text) if named.len() <= MAX_LINE && !text.contains(char::is_control) => text.into(),
            _ => readable(named).into(),
        };
        self.seen.found = true;
        if let Some(producer) = self.rules[rule].producer {
            self.seen.producers[producer] = true;
        }
        let groups = &mut self.groups[rule];
        let what = match groups.len() < MAX_GROUPS || groups.contains_key(&*readable_what) {
            true => readable_what,
            false => "(others)".into(),
        };
        if let Some(&at) = groups.get(&*what) {
            self.findings[at].count += 1;
            return at;
        }
        let (at, what) = (self.findings.len(), what.into_owned());
        groups.insert(what.clone(), at);
        let line = cursor.line_of(block, start);
        let mut first = block.first(start, end, line);
        // A reason that is shown in the context anyway is not repeated.
        let shown = first.before.len() as u64;
        first.reason = self.reason.clone().filter(|(at, _)| *at + shown < line && line - at <= REASON_REACH);
        self.findings.push(Finding { rule, what, count: 1, first });
        let place = Place::Finding(at);
        waiting.extend(block.wait(place, end, self.context, self.first_mut(place)));
        at
    }

    fn first_mut(&mut self, place: Place) -> &mut First {
        match place {
            Place::Finding(i) => &mut self.findings[i].first,
            Place::Expected(i) => self.expected[i].1.first.as_mut().expect("it was just found"),
        }
    }
}

fn read_some(log: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match log.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Finding(usize),
    Expected(usize),
}

/// A first occurrence that has not seen all of what follows it.
struct Waiting {
    place: Place,
    lines: usize,
}

/// Counts lines as far as they are asked for.
struct Cursor {
    at: usize,
    /// The line at `at`, from 0 in the block.
    index: usize,
}

impl Cursor {
    fn line_of(&mut self, block: &Block, at: usize) -> u64 {
        self.index += memchr::memchr_iter(b'\n', &block.bytes[self.at..at]).count();
        self.at = at;
        let number = block.numbers.map_or(self.index as u64, |n| n.get(self.index).copied().unwrap_or(0));
        block.first_line + number
    }
}

/// The line in which a byte is.
fn line_around(bytes: &[u8], at: usize) -> (usize, usize) {
    let start = memrchr(b'\n', &bytes[..at]).map_or(0, |i| i + 1);
    let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |i| at + i);
    (start, end)
}

struct Block<'a> {
    source: &'a str,
    bytes: &'a [u8],
    first_line: u64,
    /// Which line of the log, from the block's first, each line of `bytes` stands in, where that is not its own number.
    numbers: Option<&'a [u64]>,
    /// The last lines of the block before.
    tail: &'a [String],
    context: usize,
}

impl Block<'_> {
    fn first(&self, start: usize, end: usize, line: u64) -> First {
        let mut before: Vec<String> =
            lines_back(&self.bytes[..start]).take(self.context).map(readable).collect();
        let missing = self.context - before.len();
        before.extend(self.tail.iter().rev().take(missing).cloned());
        before.reverse();
        First {
            source: self.source.to_owned(),
            line,
            text: readable(&self.bytes[start..end]),
            before,
            after: Vec::new(),
            reason: None,
        }
    }

    /// Adds the lines that follow, and says how many are left for the next block.
    fn wait(&self, place: Place, end: usize, context: usize, first: &mut First) -> Option<Waiting> {
        let rest = self.bytes.get(end + 1..).unwrap_or_default();
        first.after.extend(lines(rest).take(context).map(readable));
        let lines = context - first.after.len();
        (lines > 0).then_some(Waiting { place, lines })
    }

    fn fill(&self, waiting: &mut Vec<Waiting>, mut push: impl FnMut(Place, String)) {
        for entry in std::mem::take(waiting) {
            for line in lines(self.bytes).take(entry.lines) {
                push(entry.place, readable(line));
            }
            let lines = entry.lines - lines(self.bytes).take(entry.lines).count();
            waiting.extend((lines > 0).then_some(Waiting { lines, ..entry }));
        }
    }

    fn tail(&self) -> Vec<String> {
        let mut tail: Vec<String> = lines_back(self.bytes).take(self.context).map(readable).collect();
        tail.reverse();
        tail
    }
}

/// Lines without their ends; nothing follows the last end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let empty = bytes.is_empty();
    bytes.split(|&b| b == b'\n').skip(usize::from(empty))
}

fn lines_back(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let empty = bytes.is_empty();
    bytes.rsplit(|&b| b == b'\n').skip(usize::from(empty))
}

const ESCAPE: u8 = 0x1b;

/// A log's beginning has to be text. Bytes 0 at its very start are what a log that was cut off while open has there.
fn expect_text(bytes: &[u8]) -> Result<(), ReadError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ReadError::Utf16);
    }
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    let looked_at = &bytes[zeros..bytes.len().min(zeros + (64 << 10))];
    let control = |b: &&u8| matches!(b, 0..=6 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f);
    let controls = looked_at.iter().filter(control).count();
    if controls > 8 && controls * 20 > looked_at.len() {
        return Err(ReadError::Binary(controls, looked_at.len()));
    }
    Ok(())
}

/// The block without the escape sequences of terminals (colours, titles, links), of which `first` begins the first. No
/// sequence goes beyond its line, so that lines stay what they are.
fn without_escapes(block: &[u8], first: usize, plain: &mut Vec<u8>) {
    plain.clear();
    let mut rest = block;
    let mut escape = Some(first);
    while let Some(at) = escape {
        plain.extend(&rest[..at]);
        let after = &rest[at + 1..];
        let line = &after[..memchr(b'\n', after).unwrap_or(after.len())];
        let length = match line.first() {
            None => 0,
            // Parameters, then one letter.
            Some(b'[') => {
                let parameters = line[1..].iter().take_while(|b| (0x20..0x40).contains(*b)).count();
                (parameters + 2).min(line.len())
            }
            // Text up to a bell or ESC \.
            Some(b']') => match memchr::memchr2(7, ESCAPE, line) {
                Some(end) if line[end] == ESCAPE => (end + 2).min(line.len()),
                Some(end) => end + 1,
                // A sequence without an end hides nothing.
                None => 1,
            },
            Some(_) => 1,
        };
        rest = &after[length..];
        escape = memchr(ESCAPE, rest);
    }
    plain.extend(rest);
}

/// A line's start as text, without control characters.
fn readable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(MAX_LINE)];
    let text = String::from_utf8_lossy(cut);
    let mut plain = text.into_owned();
    plain.retain(|c| !c.is_control() || c == '\t');
    if line.len() > MAX_LINE {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::rules;

    fn own(text: &str) -> Rules {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        std::fs::write(&path, text).unwrap();
        rules::load(&[path], true).unwrap()
    }

    fn scanned(rules: &Rules, log: &[u8], context: usize) -> Vec<(String, u64, First)> {
        let mut scan = Scan::new(rules, &[], context).unwrap();
        scan.read("log", &mut &*log).unwrap();
        scan.findings().iter().map(|f| (f.what.clone(), f.count, f.first.clone())).collect()
    }

    const X: &str = "[[rule]]\nid='x'\nseverity='error'\ncontains=['bad']\npattern='bad (?P<what>\\w+)'";

    #[test]
    fn occurrences_are_grouped_counted_and_shown_in_context() {
        let found = scanned(&own(X), b"one\ntwo\nbad a bad a\nthree\nbad b\nbad a\n", 2);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0.as_str(), found[0].1, found[0].2.line), ("a", 2, 3));
        assert_eq!(found[0].2.before, ["one", "two"]);
        assert_eq!(found[0].2.after, ["three", "bad b"]);
        assert_eq!(found[1].2.after, ["bad a"]);
    }

    #[test]
    fn a_block_ends_anywhere_and_nothing_changes() {
        let mut log = Vec::new();
        for i in 0..120_000 {
            log.extend(format!("line {i} of a server that says nothing\n").bytes());
        }
        let at = log.len();
        log.extend(b"bad here\nafter one\nafter two\n");
        for pad in [0, 1, 17] {
            // The line with the finding, and those around it, straddle a block's end at some padding.
            let mut shifted = vec![b'p'; (BLOCK - at % BLOCK) + pad];
            shifted.push(b'\n');
            shifted.extend(&log);
            let found = scanned(&own(X), &shifted, 2);
            assert_eq!(found.len(), 1);
            let first = &found[0].2;
            assert_eq!((first.line, first.text.as_str()), (120_002, "bad here"), "{pad}");
            assert_eq!(first.before[1], "line 119999 of a server that says nothing");
            assert_eq!(first.after, ["after one", "after two"]);
        }
    }

    #[test]
    fn a_log_without_line_ends_is_read_in_bounded_memory_and_counted() {
        let mut log = vec![b'x'; 3 * BLOCK + 5];
        log.extend(b" bad z");
        let found = scanned(&own(X), &log, 1);
        assert_eq!(found[0].0, "z");
        assert!(found[0].2.text.chars().count() <= MAX_LINE + 1);
    }

    #[test]
    fn a_rule_without_texts_is_searched_for_by_its_pattern() {
        let rules = own("[[rule]]\nid='y'\nseverity='note'\npattern='^q[0-9]+$'");
        let found = scanned(&rules, b"q1\nxq2\nq3\n", 0);
        assert_eq!((found.len(), found[0].1), (1, 2));
    }

    #[test]
    fn one_text_within_another_hides_no_rule() {
        let rules = own("[[rule]]\nid='a'\nseverity='note'\ncontains=['back to']\npattern='back to'\n\
             [[rule]]\nid='b'\nseverity='note'\ncontains=['falling back to torch']\npattern='torch'");
        assert_eq!(scanned(&rules, b"falling back to torch\n", 0).len(), 2);
    }

    #[test]
    fn groups_without_end_become_one() {
        let log: String = (0..10_000).map(|i| format!("bad w{i}\n")).collect();
        let found = scanned(&own(X), log.as_bytes(), 0);
        assert_eq!(found.len(), MAX_GROUPS + 1);
        assert_eq!(
            (found[MAX_GROUPS].0.as_str(), found[MAX_GROUPS].1),
            ("(others)", 10_000 - MAX_GROUPS as u64)
        );
    }

    #[test]
    fn what_is_expected_is_found_with_its_place() {
        let none = Rules::default();
        let mut scan = Scan::new(&none, &["kernel_v\\d".to_owned(), "never".to_owned()], 1).unwrap();
        scan.read("log", &mut &b"a\nuses kernel_v3\nb\n"[..]).unwrap();
        let [seen, unseen] = &scan.expected().cloned().collect::<Vec<_>>()[..] else { panic!() };
        let first = seen.first.as_ref().unwrap();
        assert_eq!((first.line, first.after.as_slice()), (2, &["b".to_owned()][..]));
        assert!(unseen.first.is_none() && unseen.no_proof.is_none());
    }

    #[test]
    fn a_line_that_says_that_it_failed_or_will_be_tried_or_that_a_user_wrote_is_no_proof() {
        let rules = rules::load(&[""; 0], false).unwrap();
        let announced = "[aiter] start build [module_gemm] under /opt/aiter/jit/build/module_gemm\n";
        let failed = "[aiter] failed jit build [module_gemm]\u{2193}\n";
        let asked = "INFO 10-01 18:43:27 [logger.py:36] Received request cmpl-1: prompt: 'import [module_gemm] under', \
                     params: SamplingParams(n=1)\n";
        let ran = "[aiter] import [module_gemm] under /opt/aiter/jit/module_gemm.so\n";
        for (log, seen, against) in [
            (announced.to_owned(), None, Some("aiter-build-starts")),
            (failed.to_owned(), None, Some("aiter-jit-build-failed")),
            (asked.to_owned(), None, Some("vllm-request")),
            (format!("{announced}{asked}{ran}"), Some(3), Some("aiter-build-starts")),
            (ran.to_owned(), Some(1), None),
        ] {
            let mut scan = Scan::new(&rules, &["module_gemm".to_owned()], 0).unwrap();
            scan.read("log", &mut log.as_bytes()).unwrap();
            let expected = scan.expected().next().unwrap();
            assert_eq!(expected.first.as_ref().map(|f| f.line), seen, "{log}");
            let rule = expected.no_proof.as_ref().map(|(_, rule)| rules[*rule].id.as_str());
            assert_eq!(rule, against, "{log}");
        }
    }

    #[test]
    fn what_a_user_wrote_is_no_finding() {
        let rules = rules::load(&[""; 0], false).unwrap();
        let log = b"INFO 10-01 18:43:27 [logger.py:36] Received request cmpl-1: prompt: 'NaN in the logits', params: x\n";
        assert_eq!(scanned(&rules, log, 0), []);
        assert_eq!(scanned(&rules, b"Detected errors during sampling! NaN in the logits.\n", 0).len(), 1);
    }

    #[test]
    fn colours_hide_nothing_and_lines_stay_lines() {
        let rules = rules::load(&[""; 0], false).unwrap();
        let log = b"\x1b]0;title\x07one\n\x1b[33mWARNING\x1b[0m \x1b[90m11-20 10:06:00\x1b[0m \x1b[90m[fp8.py:101]\x1b[0m X is \
                    not available. Falling \x1b[1mback\x1b[0m to Triton.\n\x1b]8;;no end\nfailed jit build [\x1b[31mm\x1b[0m]\n";
        let found = scanned(&rules, log, 1);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0.as_str(), found[0].2.line), ("Triton", 2));
        assert_eq!(found[0].2.before, ["one"]);
        assert_eq!((found[1].0.as_str(), found[1].2.line), ("m", 4));
    }

    #[test]
    fn the_reason_some_lines_before_is_told() {
        let rules = rules::load(&[""; 0], false).unwrap();
        let mut log = "x.cu:3:10: fatal error: 'ck.hpp' file not found\n".to_owned();
        log += &"some line\n".repeat(20);
        log += "[aiter] failed jit build [m]\n";
        let found = scanned(&rules, log.as_bytes(), 2);
        assert_eq!(
            found[0].2.reason,
            Some((1, "x.cu:3:10: fatal error: 'ck.hpp' file not found".to_owned()))
        );
        log = log.replace("some line", &"some line\n".repeat(20));
        assert_eq!(scanned(&rules, log.as_bytes(), 2)[0].2.reason, None);
    }

    #[test]
    fn what_is_not_text_is_refused() {
        let none = Rules::default();
        let mut scan = Scan::new(&none, &[], 0).unwrap();
        let utf16: Vec<u8> = "[aiter] failed".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(matches!(scan.read("a", &mut &utf16[..]), Err(ReadError::Binary(..))));
        let marked = [&[0xff, 0xfe], &utf16[..]].concat();
        assert!(matches!(scan.read("a", &mut &marked[..]), Err(ReadError::Utf16)));
        let random: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(matches!(scan.read("a", &mut &random[..]), Err(ReadError::Binary(..))));
        scan.read("cut", &mut &[&[0; 5000], &b"a line\n"[..]].concat()[..]).unwrap();
        scan.read("blank", &mut &b"\n \n"[..]).unwrap();
        assert!(!scan.sources[0].blank && scan.sources[1].blank);
    }

    #[derive(serde::Deserialize)]
    struct Lines {
        producer: Vec<OfProducer>,
    }

    #[derive(serde::Deserialize)]
    struct OfProducer {
        name: String,
        matter: Vec<String>,
        harmless: Vec<String>,
    }

    #[test]
    fn the_lines_that_decide_are_found_and_the_others_are_not() {
        let rules = rules::load(&[""; 0], false).unwrap();
        let mut scan = Scan::new(&rules, &[], 0).unwrap();
        let files = [
            (include_str!("../../tests/logs/lines.toml"), 10),
            // Collected later, without a look at the rules.
            (include_str!("../../tests/logs/later_lines.toml"), 9),
        ];
        for (file, least) in files {
            let lines: Lines = toml::from_str(file).unwrap();
            for OfProducer { name, matter, harmless } in lines.producer {
                assert!(rules.known().contains(&name.as_str()), "{name} is no known producer");
                assert!(matter.len().min(harmless.len()) >= least, "{name}");
                for (lines, decides) in [(matter, true), (harmless, false)] {
                    for line in lines {
                        let count = |scan: &Scan| scan.findings().iter().map(|f| f.count).sum::<u64>();
                        let before = count(&scan);
                        scan.read(&name, &mut format!("{line}\n").as_bytes()).unwrap();
                        assert_eq!(count(&scan) > before, decides, "{name}: {line}");
                    }
                }
            }
        }
    }
}
