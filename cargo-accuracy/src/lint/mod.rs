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
    /// Files that were passed over, and why.
    pub problems: Vec<Problem>,
    pub files: usize,
    pub functions: usize,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Problem {
    pub path: String,
    pub reason: String,
}

/// Stack of the analysing threads: parsers and lowering recurse within bounds that this holds.
const STACK: usize = 256 << 20;

/// Lints `paths` (files or folders), which stand relative to the current folder.
pub fn run(paths: &[PathBuf], config: &LintConfig) -> Result<LintReport> {
    run_cached(paths, config, None)
}

/// Like [`run`], with summaries of unchanged files kept in a folder.
pub fn run_cached(paths: &[PathBuf], config: &LintConfig, cache: Option<&Path>) -> Result<LintReport> {
    let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK).build()?;
    pool.install(|| run_in_pool(paths, config, cache))
}

fn run_in_pool(paths: &[PathBuf], config: &LintConfig, cache: Option<&Path>) -> Result<LintReport> {
    let files = collect(paths, config)?;
    let cache = cache.map(|folder| cache::Cache::open(folder, &config.guards.functions));
    let results: Vec<_> = files
        .par_iter()
        .map(|(path, shown, language)| {
            let text =
                read(path, config.max_file_size).map_err(|reason| Problem { path: shown.clone(), reason })?;
            let key = cache.as_ref().map(|c| c.key(shown, text.as_bytes()));
            let known = cache.as_ref().zip(key.as_ref()).and_then(|(c, k)| c.get(k));
            let summary = match known {
                Some(summary) => summary,
                None => summary::summarise(shown, &text, *language, &config.guards.functions)
                    .map_err(|reason| Problem { path: shown.clone(), reason })?,
            };
            let stored = key.map(|key| (key, postcard::to_stdvec(&summary).unwrap_or_default()));
            Ok((summary, stored))
        })
        .collect();
    let mut stored = Vec::new();
    let mut summaries = Vec::with_capacity(results.len());
    let mut report = LintReport::default();
    for r in results {
        match r {
            Ok((s, entry)) => {
                summaries.push(s);
                stored.extend(entry);
            }
            Err(p) => report.problems.push(p),
        }
    }
    if let Some(cache) = &cache {
        // A cache that cannot be written costs time, nothing else.
        let _ = cache.save(stored);
    }
    name_parameters(&mut summaries);
    report.files = summaries.len();
    let index = index::Index::new(&summaries, &config.names);
    report.functions = index.functions.len();
    let effects = effects::Effects::new(&index);
    let cx = evidence::Context { index: &index, effects: &effects, config };
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
    report.findings = one_per_parameter(findings);
    configure(&mut report.findings, config);
    suppress(&mut report, &summaries);
    Ok(report)
}

impl LintReport {
    /// An error that is neither suppressed nor in the baseline.
    pub fn fails(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error && f.suppressed.is_none())
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
                Some(fault) => format!("line {}: this suppression {fault}", ignore.line),
                None if !used => {
                    format!("line {}: this suppression suppresses nothing; remove it", ignore.line)
                }
                None => continue,
            };
            report.problems.push(Problem { path: s.path.clone(), reason });
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

fn read(path: &Path, limit: u64) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > limit {
        return Err(format!("{size} bytes are more than `lint.max-file-size` ({limit}); passed over"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 at byte {}; passed over", e.utf8_error().valid_up_to()))
}

/// Folders of tests, benchmarks and vendored code by convention; `lint.tests` reads the former too.
const TEST_FOLDERS: &[&str] =
    &["tests", "test", "op_tests", "benchmarks", "benchmark", "bench", "benches", "testing", "unit_tests"];

fn is_test(relative: &Path) -> bool {
    let folder = relative.parent().is_some_and(|p| {
        p.components().any(|c| c.as_os_str().to_str().is_some_and(|c| TEST_FOLDERS.contains(&c)))
    });
    let name = relative.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let stem = name.split('.').next().unwrap_or("");
    folder
        || name.starts_with("test_")
        || stem.ends_with("_test")
        || name == "conftest.py"
        || name.starts_with("bench_")
        || name.starts_with("benchmark_")
        || stem.ends_with("_bench")
        || stem.ends_with("_benchmark")
}

/// Source files under `paths`: path to open, path to show, language; in the order of their names.
fn collect(paths: &[PathBuf], config: &LintConfig) -> Result<Vec<(PathBuf, String, Language)>> {
    let here = std::env::current_dir()?;
    let mut out = Vec::new();
    for root in paths {
        if !root.exists() {
            anyhow::bail!("{}: no such file or folder", root.display());
        }
        let walk = ignore::WalkBuilder::new(root).require_git(false).hidden(true).follow_links(false).build();
        for entry in walk {
            let entry = entry?;
            if !entry.file_type().is_some_and(|t| t.is_file()) {
                continue;
            }
            let path = entry.into_path();
            let Some(language) = Language::of(&path) else { continue };
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let shown_path = path.strip_prefix(&here).unwrap_or(&path);
            let shown = shown_path.to_string_lossy().replace('\\', "/");
            let shown = shown.strip_prefix("./").unwrap_or(&shown).to_owned();
            // A file that is named on the command line is always read.
            let named = relative.as_os_str().is_empty();
            if !named {
                if !config.tests && is_test(relative) {
                    continue;
                }
                if !config.include.is_empty() && !config.include.iter().any(|g| covers(g, &shown)) {
                    continue;
                }
                if config.exclude.iter().any(|g| covers(g, &shown)) {
                    continue;
                }
            }
            out.push((path, shown, language));
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

/// A glob or a folder covers a path.
fn covers(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    if pattern.contains('*') {
        return config::glob(&pattern.replace("**", "*"), path);
    }
    path == pattern || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
}
