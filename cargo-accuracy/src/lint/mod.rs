//! The silent-parameter lint: finds functions that accept a parameter and ignore it, over the Python, C++ and
//! Rust sources of a repository. Reads sources only: no build, no import, no device; and it depends on
//! nothing else of this workspace.
//!
//! Each file is parsed ([`python`], [`cpp`], [`rust`]) into one neutral form ([`ir`]) and analysed alone
//! ([`flow`]); what remains of it ([`source`]) can be cached. Then the repository is indexed ([`index`]), calls
//! are followed to a fixpoint ([`effects`]), and the [`rules`] report.

mod baseline;
mod cache;
pub mod cli;
pub mod config;
mod config_file;
mod cpp;
mod effects;
mod evidence;
mod finding;
mod flow;
mod ignores;
mod index;
mod ir;
mod names;
mod python;
pub mod render;
pub mod rules;
mod rust;
mod scope;
mod since;
mod source;
mod summary;

use std::path::{Path, PathBuf};

use anyhow::Result;
use rayon::prelude::*;

pub use baseline::Baseline;
pub use config::LintConfig;
pub use finding::{Finding, Place, Severity, Suppression};
use source::Language;

/// What one run of the lint found.
#[derive(Debug, Default, serde::Serialize)]
pub struct LintReport {
    #[serde(rename = "lint")]
    pub findings: Vec<Finding>,
    /// Files that were passed over, and why; faulty suppressions.
    pub problems: Vec<Problem>,
    pub files: usize,
    pub functions: usize,
    /// Given paths without a source file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empty: Vec<String>,
    /// Files and folders that could not be read or parsed, and so were not looked into.
    pub unread: usize,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    pub path: String,
    pub line: Option<u32>,
    pub reason: String,
    /// The file or folder was not read.
    #[serde(skip_serializing)]
    pub unread: bool,
    /// It was named on the command line.
    #[serde(skip)]
    pub named: bool,
}

/// Why a file is counted apart: nobody here writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Apart {
    Vendored,
    Generated,
}

/// Stack of the analysing threads: parsers and lowering recurse within bounds that this holds.
const STACK: usize = 256 << 20;

/// Lints `paths` (files or folders), which stand relative to the current folder. What was found in unchanged files is kept
/// in the folder `cache`, if there is one.
pub fn run(paths: &[PathBuf], config: &LintConfig, cache: Option<&Path>) -> Result<LintReport> {
    let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK).build()?;
    let here = std::env::current_dir()?;
    let here = here.canonicalize().unwrap_or(here);
    let mut report = LintReport::default();
    for scope in scope::scopes(paths, config)? {
        let mut part = pool.install(|| run_in_pool(&scope, config, cache));
        let shown = |name: &mut String| *name = scope::display(&scope.root, name, &here);
        for f in &mut part.findings {
            shown(&mut f.path);
            f.related.iter_mut().chain(&mut f.code_flow).for_each(|p| shown(&mut p.path));
            if let Some((path, ..)) = &mut f.twin_span {
                shown(path);
            }
        }
        for p in &mut part.problems {
            // What was kept of an earlier run does not know what is named in this one.
            p.named |= scope.sources.iter().any(|s| s.named && s.name == p.path);
            shown(&mut p.path);
        }
        report.findings.extend(part.findings);
        report.problems.extend(scope.problems.iter().cloned());
        report.problems.extend(part.problems);
        report.empty.extend(scope.empty.iter().cloned());
        report.files += part.files;
        report.functions += part.functions;
    }
    report.problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    report.unread = report.problems.iter().filter(|p| p.unread).count();
    Ok(report)
}

/// One file of a scope: its text and the key of its content, or why it cannot be read.
type Loaded = Result<(String, cache::Key), Problem>;

fn run_in_pool(scope: &scope::Scope, config: &LintConfig, cache: Option<&Path>) -> LintReport {
    let mut cache = cache.map(|folder| cache::Cache::new(folder, &scope.root));
    let keys = cache::Keys::new(config);
    let loaded: Vec<Loaded> = scope
        .sources
        .par_iter()
        .map(|s| {
            let text = read(&s.path, config.max_file_size).map_err(|reason| Problem {
                path: s.name.clone(),
                line: None,
                reason,
                unread: true,
                named: s.named,
            })?;
            let key = keys.of(&s.name, text.as_bytes());
            Ok((text, key))
        })
        .collect();
    // The same files with the same contents have the same report.
    let whole = keys.of_run(scope, &loaded);
    if let Some(cache) = &cache
        && let Some(report) = cache.report(&whole)
    {
        return report;
    }
    let known = cache.as_mut().map(cache::Cache::load).unwrap_or_default();
    let results: Vec<_> = scope
        .sources
        .par_iter()
        .zip(loaded)
        .map(|(s, loaded)| {
            let (text, key) = loaded?;
            let summary = match known.get(&key) {
                Some(summary) => summary,
                None => {
                    let read = summary::summarise(&s.name, &text, s.language, &config.guards.functions);
                    let mut summary = read.map_err(|fault| Problem {
                        path: s.name.clone(),
                        line: fault.line,
                        reason: fault.reason,
                        unread: true,
                        named: s.named,
                    })?;
                    let exists = |rule: &str| rules::by_code(rule).is_some();
                    summary.ignores.iter_mut().for_each(|ignore| ignore.refuse_unknown(exists));
                    summary
                }
            };
            let stored = cache.is_some().then(|| (key, postcard::to_stdvec(&summary).unwrap_or_default()));
            Ok((summary, scope::apart(s, &text), s.wanted, stored))
        })
        .collect();
    drop(known);
    let mut stored = Vec::new();
    let mut summaries = Vec::with_capacity(results.len());
    let mut report = LintReport::default();
    let mut apart = rustc_hash::FxHashMap::default();
    let mut wanted = rustc_hash::FxHashSet::default();
    for (source, r) in scope.sources.iter().zip(results) {
        match r {
            Ok((s, kind, of_interest, entry)) => {
                if let Some(kind) = kind {
                    apart.insert(s.path.clone(), kind);
                }
                if of_interest {
                    wanted.insert(s.path.clone());
                    report.files += 1;
                    report.functions += s.functions.len();
                }
                summaries.push(s);
                stored.extend(entry);
            }
            Err(p) if source.wanted => report.problems.push(p),
            Err(_) => {}
        }
    }
    name_parameters(&mut summaries);
    report.findings = analyse(&summaries, config);
    report.findings.retain(|f| wanted.contains(&f.path));
    for f in &mut report.findings {
        f.apart = apart.get(&f.path).copied();
        if f.apart.is_some() {
            f.severity = Severity::Note;
        }
    }
    configure(&mut report.findings, config);
    summaries.retain(|s| wanted.contains(&s.path));
    suppress(&mut report, &summaries);
    if let Some(cache) = &cache {
        // A cache that cannot be written costs time, nothing else.
        let _ = cache.save(stored, &whole, &report);
    }
    report
}

/// Every rule over the summaries of a repository.
fn analyse(summaries: &[source::FileSummary], config: &LintConfig) -> Vec<Finding> {
    let index = index::Index::new(summaries, &config.names);
    let effects = effects::Effects::new(&index);
    let cx = evidence::Context::new(&index, &effects, config);
    let mut findings: Vec<Finding> = rules::ALL
        .par_iter()
        .flat_map_iter(|rule| {
            let mut out = Vec::new();
            (rule.check)(&cx, &mut out);
            out
        })
        .collect();
    findings.sort_by(|a, b| {
        (&a.path, a.line, a.column, &a.parameter, a.rule).cmp(&(
            &b.path,
            b.line,
            b.column,
            &b.parameter,
            b.rule,
        ))
    });
    one_per_parameter(findings)
}

impl LintReport {
    /// An error that is neither suppressed nor in the baseline.
    pub fn fails(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error && f.suppressed.is_none())
    }

    /// A file that was named could not be read or parsed, or nothing at all of what was given.
    pub fn unread(&self) -> bool {
        self.problems.iter().any(|p| p.unread && (p.named || self.files == 0))
    }
}

/// Unnamed C++ parameters take their names from a declaration of the same function.
fn name_parameters(summaries: &mut [source::FileSummary]) {
    let mut declared: rustc_hash::FxHashMap<String, Vec<Vec<String>>> = rustc_hash::FxHashMap::default();
    for s in summaries.iter() {
        for (name, params) in &s.declarations {
            declared.entry(name.clone()).or_default().push(params.clone());
        }
    }
    for f in summaries.iter_mut().filter(|s| s.language == Language::Cpp).flat_map(|s| &mut s.functions) {
        if !f.params.iter().any(|p| p.name.is_empty()) {
            continue;
        }
        let Some(candidates) = declared.get(&f.name) else { continue };
        let Some(names) = candidates.iter().find(|c| c.len() == f.params.len()) else { continue };
        for (p, name) in f.params.iter_mut().zip(names) {
            if p.name.is_empty() {
                p.name.clone_from(name);
            }
        }
    }
}

/// Applies the configured levels and the minimal confidence.
fn configure(findings: &mut Vec<Finding>, config: &LintConfig) {
    use config::{Level, Require};
    let setting =
        |rule: &str| config.rules.iter().find(|(k, _)| k.eq_ignore_ascii_case(rule)).map(|(_, v)| *v);
    findings.retain_mut(|f| {
        let rule = rules::by_code(f.rule);
        let Some(set) = setting(f.rule) else {
            let off = rule.is_some_and(|r| r.level == Level::Off);
            if f.confidence < config.min_confidence && f.severity != Severity::Note {
                f.severity = Severity::Note;
            }
            return !off;
        };
        let to = match set.level {
            Level::Off => return false,
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warning,
            Level::Note => Severity::Note,
        };
        let evident = match set.require {
            Some(Require::Any) => true,
            Some(Require::Twin) => f.twin.is_some(),
            // By default what the evidence left as a note stays one.
            Some(Require::SemanticOrTwin) | None => f.severity != Severity::Note || f.twin.is_some(),
        };
        f.severity = if evident || to == Severity::Note { to } else { Severity::Note };
        true
    });
}

/// Applies inline suppressions and reports those that are faulty or suppress nothing.
fn suppress(report: &mut LintReport, summaries: &[source::FileSummary]) {
    for s in summaries {
        for ignore in &s.ignores {
            let mut used = false;
            if let Some(reason) = &ignore.reason {
                for f in report.findings.iter_mut().filter(|f| f.path == s.path) {
                    let own: Vec<u32> =
                        f.related.iter().filter(|r| r.path == f.path).map(|r| r.line).collect();
                    let mut lines = vec![f.line, f.span.0];
                    lines.extend(own.first());
                    if ignore.covers(f.rule, &f.parameter, &lines) {
                        f.suppressed = Some(Suppression::InSource(reason.clone()));
                        used = true;
                    }
                }
            }
            let reason = match &ignore.fault {
                Some(fault) => format!("this suppression {fault}"),
                None if !used => "this suppression suppresses nothing; remove it".to_owned(),
                None => continue,
            };
            let line = Some(ignore.line);
            report.problems.push(Problem { path: s.path.clone(), line, reason, unread: false, named: false });
        }
    }
}

/// The same parameter of the same function is reported once, by the rule that says most about it.
fn one_per_parameter(findings: Vec<Finding>) -> Vec<Finding> {
    // What shows the counterpart says more than what shows the absence.
    const TELLING: [&str; 9] =
        ["SP204", "SP202", "SP203", "SP205", "SP201", "SP206", "SP102", "SP101", "SP103"];
    let rank = |f: &Finding| (f.severity, TELLING.iter().position(|r| *r == f.rule).unwrap_or(TELLING.len()));
    let mut best: rustc_hash::FxHashMap<(String, u32, String), usize> = rustc_hash::FxHashMap::default();
    for (i, f) in findings.iter().enumerate() {
        let key = (f.path.clone(), f.span.0, f.parameter.clone());
        best.entry(key)
            .and_modify(|b| {
                if rank(f) < rank(&findings[*b]) {
                    *b = i
                }
            })
            .or_insert(i);
    }
    let keep: rustc_hash::FxHashSet<usize> = best.into_values().collect();
    findings.into_iter().enumerate().filter(|(i, _)| keep.contains(i)).map(|(_, f)| f).collect()
}

/// Most bytes of a configuration or baseline.
const LARGEST: u64 = 256 << 20;

fn read(path: &Path, limit: u64) -> Result<String, String> {
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("no regular file; passed over".into());
    }
    let size = found.len();
    if size > limit {
        return Err(format!("{size} bytes are more than `lint.max-file-size` ({limit}); passed over"));
    }
    let mut bytes = Vec::new();
    // It may have grown since.
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut bytes)
        .map_err(|e| e.to_string())?;
    String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 at byte {}; passed over", e.utf8_error().valid_up_to()))
}
