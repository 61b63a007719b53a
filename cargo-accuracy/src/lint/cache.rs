//! What was found in files that did not change. The key of a file is the hash of its content, its path and the
//! analyser's own identity, so a stale entry cannot be found; the key of a run is the hash of those of all its files.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::config::{Confidence, LintConfig};
use super::finding::Shown;
use super::scope::Scope;
use super::source::FileSummary;
use super::{Apart, Finding, LintReport, Loaded, Place, Problem, Severity, Suppression, rules};

pub type Key = [u8; 32];

/// Changes whenever the executable does.
fn identity() -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    if let Ok(exe) = std::env::current_exe()
        && let Ok(meta) = std::fs::metadata(&exe)
    {
        hash.update(&meta.len().to_le_bytes());
        if let Ok(modified) = meta.modified()
            && let Ok(age) = modified.duration_since(std::time::UNIX_EPOCH)
        {
            hash.update(&age.as_nanos().to_le_bytes());
        }
    }
    *hash.finalize().as_bytes()
}

/// The keys of files and of the whole run.
pub struct Keys {
    /// The analyser and what configures the analysis of one file.
    of_files: Key,
    /// The analyser and the whole configuration.
    of_runs: Key,
}

impl Keys {
    pub fn new(config: &LintConfig) -> Self {
        let identity = identity();
        let keyed = |text: &str| {
            let mut hash = blake3::Hasher::new();
            hash.update(&identity);
            hash.update(text.as_bytes());
            *hash.finalize().as_bytes()
        };
        Self {
            of_files: keyed(&format!("{:?}", config.guards.functions)),
            of_runs: keyed(&format!("{config:?}")),
        }
    }

    pub fn of(&self, name: &str, text: &[u8]) -> Key {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.of_files);
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(text);
        *hash.finalize().as_bytes()
    }

    pub fn of_run(&self, scope: &Scope, loaded: &[Loaded]) -> Key {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.of_runs);
        for (s, l) in scope.sources.iter().zip(loaded) {
            hash.update(&[u8::from(s.wanted), u8::from(s.vendored)]);
            match l {
                Ok((_, key)) => {
                    hash.update(key);
                }
                Err(p) => {
                    hash.update(p.path.as_bytes());
                    hash.update(p.reason.as_bytes());
                }
            }
        }
        *hash.finalize().as_bytes()
    }
}

/// Serialised summaries by key.
type Files = Vec<(Key, Vec<u8>)>;

/// The summaries of an earlier run.
#[derive(Default)]
pub struct Known(FxHashMap<Key, Vec<u8>>);

impl Known {
    pub fn get(&self, key: &Key) -> Option<FileSummary> {
        postcard::from_bytes(self.0.get(key)?).ok()
    }
}

pub struct Cache {
    summaries: PathBuf,
    report: PathBuf,
}

impl Cache {
    /// The cache in `folder` for the repository at `root`.
    pub fn new(folder: &Path, root: &Path) -> Self {
        // The repository around the current folder has the plain name.
        let here = std::env::current_dir().ok().and_then(|h| h.canonicalize().ok());
        let suffix = if here.is_some_and(|h| h.starts_with(root)) {
            String::new()
        } else {
            let hash = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
            format!("-{}", &hash[..16])
        };
        Self {
            summaries: folder.join(format!("lint-cache{suffix}.bin")),
            report: folder.join(format!("lint-report{suffix}.bin")),
        }
    }

    /// The report of a run over the same files.
    pub fn report(&self, key: &Key) -> Option<LintReport> {
        let bytes = std::fs::read(&self.report).ok()?;
        let stored: StoredReport = postcard::from_bytes(&bytes).ok()?;
        (stored.key == *key).then(|| stored.open()).flatten()
    }

    /// The summaries of the last run; none where they cannot be read.
    pub fn load(&mut self) -> Known {
        let files: Files = std::fs::read(&self.summaries)
            .ok()
            .and_then(|b| postcard::from_bytes(&b).ok())
            .unwrap_or_default();
        Known(files.into_iter().collect())
    }

    /// Replaces what is stored by this run, whole or not at all.
    pub fn save(&self, files: Files, key: &Key, report: &LintReport) -> std::io::Result<()> {
        let bytes = postcard::to_stdvec(&files).map_err(std::io::Error::other)?;
        write(&self.summaries, &bytes)?;
        let bytes = postcard::to_stdvec(&StoredReport::of(*key, report)).map_err(std::io::Error::other)?;
        write(&self.report, &bytes)
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("lint-cache");
    let temporary = folder.join(format!("{name}.{}.tmp", std::process::id()));
    std::fs::File::create(&temporary)?.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

/// A report with all its fields, in a form without optional ones.
#[derive(Serialize, Deserialize)]
struct StoredReport {
    key: Key,
    findings: Vec<StoredFinding>,
    problems: Vec<(String, Option<u32>, String, bool)>,
    files: usize,
    functions: usize,
}

#[derive(Serialize, Deserialize)]
struct StoredFinding {
    rule: String,
    severity: Severity,
    path: String,
    line: u32,
    column: u32,
    function: String,
    parameter: String,
    message: String,
    help: String,
    confidence: Confidence,
    evidence: Shown,
    order: i32,
    fingerprint: String,
    callee: Option<String>,
    twin: Option<String>,
    related: Vec<Place>,
    code_flow: Vec<Place>,
    apart: Option<Apart>,
    /// The justification of a suppression in the source.
    suppressed: Option<String>,
    span: (u32, u32),
    twin_span: Option<(String, u32, u32)>,
}

impl StoredReport {
    fn of(key: Key, report: &LintReport) -> Self {
        let findings = report.findings.iter().cloned().map(|f| StoredFinding {
            rule: f.rule.to_owned(),
            severity: f.severity,
            path: f.path,
            line: f.line,
            column: f.column,
            function: f.function,
            parameter: f.parameter,
            message: f.message,
            help: f.help,
            confidence: f.confidence,
            evidence: f.evidence,
            order: f.order,
            fingerprint: f.fingerprint,
            callee: f.callee,
            twin: f.twin,
            related: f.related,
            code_flow: f.code_flow,
            apart: f.apart,
            suppressed: match f.suppressed {
                Some(Suppression::InSource(why)) => Some(why),
                _ => None,
            },
            span: f.span,
            twin_span: f.twin_span,
        });
        let problems =
            report.problems.iter().map(|p| (p.path.clone(), p.line, p.reason.clone(), p.unread)).collect();
        Self { key, findings: findings.collect(), problems, files: report.files, functions: report.functions }
    }

    /// `None` where a rule is not known any more.
    fn open(self) -> Option<LintReport> {
        let findings: Option<Vec<Finding>> = self
            .findings
            .into_iter()
            .map(|f| {
                Some(Finding {
                    rule: rules::by_code(&f.rule)?.code,
                    severity: f.severity,
                    path: f.path,
                    line: f.line,
                    column: f.column,
                    function: f.function,
                    parameter: f.parameter,
                    message: f.message,
                    help: f.help,
                    confidence: f.confidence,
                    evidence: f.evidence,
                    order: f.order,
                    fingerprint: f.fingerprint,
                    callee: f.callee,
                    twin: f.twin,
                    related: f.related,
                    code_flow: f.code_flow,
                    apart: f.apart,
                    confirmed: false,
                    suppressed: f.suppressed.map(Suppression::InSource),
                    span: f.span,
                    twin_span: f.twin_span,
                })
            })
            .collect();
        let problems = self
            .problems
            .into_iter()
            .map(|(path, line, reason, unread)| Problem { path, line, reason, unread, named: false })
            .collect();
        Some(LintReport {
            findings: findings?,
            problems,
            files: self.files,
            functions: self.functions,
            empty: Vec::new(),
            unread: 0,
        })
    }
}
