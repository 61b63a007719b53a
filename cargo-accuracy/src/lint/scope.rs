//! Which files a run reads. The whole repository around the given paths is indexed, so that what is found in a file does
//! not depend on which folder was given; findings are reported in the given paths alone. Vendored and generated files are
//! recognised by what marks them.

use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};

use super::config::{self, LintConfig};
use super::source::Language;
use super::{Apart, Problem};

/// One file to read.
#[derive(Debug)]
pub struct Source {
    pub path: PathBuf,
    /// Relative to the root, with `/`.
    pub name: String,
    pub language: Language,
    /// Findings in it are reported.
    pub wanted: bool,
    /// It was named itself, not a folder around it.
    pub named: bool,
    /// It stands in a folder of other people's code.
    pub vendored: bool,
}

/// The files around some of the given paths.
#[derive(Debug, Default)]
pub struct Scope {
    pub root: PathBuf,
    pub sources: Vec<Source>,
    /// Folders and files that could not be entered.
    pub problems: Vec<Problem>,
    /// Given paths without a source file.
    pub empty: Vec<String>,
}

/// Files that stand at the root of a project.
const MARKS: [&str; 6] =
    [".config/accuracy.toml", "accuracy.toml", "pyproject.toml", "setup.py", "Cargo.toml", "CMakeLists.txt"];

/// The repository around a folder: the nearest one with `.git`, or else the outermost one that a project file marks.
fn repository(folder: &Path) -> Option<PathBuf> {
    let git = folder.ancestors().find(|a| a.join(".git").exists());
    let marked = || folder.ancestors().filter(|a| MARKS.iter().any(|m| a.join(m).is_file())).last();
    git.or_else(marked).map(Path::to_path_buf)
}

/// The folder whose files are indexed for a path: the repository around the current folder if the path lies in it, or
/// else the one around the path.
fn root_of(path: &Path, here: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let usable = here.parent().is_some() && home.as_deref() != Some(here);
    let base = repository(here).or_else(|| usable.then(|| here.to_path_buf()));
    if let Some(base) = base.filter(|b| path.starts_with(b)) {
        return base;
    }
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    repository(folder).unwrap_or_else(|| folder.to_path_buf())
}

/// The scopes of the given paths, one for each repository.
pub fn scopes(paths: &[PathBuf], config: &LintConfig) -> anyhow::Result<Vec<Scope>> {
    let here = std::env::current_dir()?;
    let here = here.canonicalize().unwrap_or(here);
    let mut by_root: Vec<(PathBuf, Vec<(PathBuf, String)>)> = Vec::new();
    for path in paths {
        let Ok(full) = path.canonicalize() else {
            anyhow::bail!("{}: no such file or folder", path.display());
        };
        let root = root_of(&full, &here);
        let shown = path.display().to_string();
        match by_root.iter_mut().find(|(r, _)| *r == root) {
            Some((_, given)) => given.push((full, shown)),
            None => by_root.push((root, vec![(full, shown)])),
        }
    }
    Ok(by_root.into_iter().map(|(root, given)| scope(root, &given, &here, config)).collect())
}

fn scope(root: PathBuf, given: &[(PathBuf, String)], here: &Path, config: &LintConfig) -> Scope {
    let mut out = Scope { root, ..Scope::default() };
    let vendored = Vendored::of(&out.root);
    let mut at: FxHashMap<PathBuf, usize> = FxHashMap::default();
    // The context first, then what was named: an ignored or a test folder is read where it is named.
    let root = out.root.clone();
    let whole = (root.clone(), String::new());
    let mut walks: Vec<(&(PathBuf, String), bool)> = vec![(&whole, false)];
    walks.extend(given.iter().map(|g| (g, true)));
    for ((folder, shown), wanted) in walks {
        let mut any = false;
        let walk =
            ignore::WalkBuilder::new(folder).require_git(false).hidden(true).follow_links(false).build();
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    if wanted {
                        out.problems.push(unreadable(&e, here));
                    }
                    continue;
                }
            };
            if !entry.file_type().is_some_and(|t| t.is_file()) {
                continue;
            }
            let path = entry.into_path();
            let Some(language) = Language::of(&path) else { continue };
            let relative = path.strip_prefix(folder).unwrap_or(&path);
            let name = slashes(path.strip_prefix(&root).unwrap_or(&path));
            // A file that is named on the command line is always read.
            let named = wanted && relative.as_os_str().is_empty();
            if !named && !selected(relative, &name, &display(&root, &name, here), config) {
                continue;
            }
            any = true;
            match at.get(&path) {
                Some(i) => {
                    out.sources[*i].wanted |= wanted;
                    out.sources[*i].named |= named;
                }
                None => {
                    at.insert(path.clone(), out.sources.len());
                    let vendored = vendored.covers(&name);
                    out.sources.push(Source { path, name, language, wanted, named, vendored });
                }
            }
        }
        if wanted && !any {
            // A FIFO, a device, or a file of no language that is read: nothing in it was looked into.
            if folder.is_dir() {
                out.empty.push(shown.clone());
            } else {
                let reason = match folder.is_file() {
                    true => "it is no Python, C++, HIP, CUDA or Rust source by its extension",
                    false => "it is no regular file, and nothing else is read",
                };
                let reason = reason.to_owned();
                let path = slashes(folder.strip_prefix(here).unwrap_or(folder));
                out.problems.push(Problem { path, line: None, reason, unread: true, named: true });
            }
        }
    }
    out.sources.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn selected(relative: &Path, name: &str, shown: &str, config: &LintConfig) -> bool {
    let covered = |list: &[String]| list.iter().any(|g| covers(g, name) || covers(g, shown));
    (config.tests || !is_test(relative))
        && (config.include.is_empty() || covered(&config.include))
        && !covered(&config.exclude)
}

/// What a walk could not enter.
fn unreadable(e: &ignore::Error, here: &Path) -> Problem {
    let path = match e {
        ignore::Error::WithPath { path, .. } => path.clone(),
        ignore::Error::WithDepth { err, .. } => match &**err {
            ignore::Error::WithPath { path, .. } => path.clone(),
            _ => PathBuf::from("?"),
        },
        _ => PathBuf::from("?"),
    };
    let reason = e.io_error().map_or_else(|| e.to_string(), std::io::Error::to_string);
    Problem {
        path: slashes(path.strip_prefix(here).unwrap_or(&path)),
        line: None,
        reason,
        unread: true,
        named: false,
    }
}

/// A file of the root as it is shown: relative to the current folder, or whole where it lies elsewhere.
pub fn display(root: &Path, name: &str, here: &Path) -> String {
    let full = root.join(name);
    slashes(full.strip_prefix(here).unwrap_or(&full))
}

fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Folders of tests and benchmarks by convention; `lint.tests` reads them too.
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

/// A glob or a folder covers a path.
fn covers(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
    if pattern.contains('*') {
        return config::glob(&pattern.replace("**", "*"), path);
    }
    path == pattern || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
}

/// Folders of other people's code: by the names that such folders have, by `.gitmodules`, by `.gitattributes`.
struct Vendored {
    folders: FxHashSet<String>,
    patterns: Vec<String>,
}

const VENDOR_FOLDERS: &[&str] = &[
    "third_party",
    "third-party",
    "thirdparty",
    "3rdparty",
    "3rd_party",
    "vendor",
    "vendored",
    "_vendor",
    "external",
    "externals",
    "site-packages",
    "node_modules",
    "submodules",
];

impl Vendored {
    fn of(root: &Path) -> Self {
        let mut folders = FxHashSet::default();
        if let Ok(text) = std::fs::read_to_string(root.join(".gitmodules")) {
            let paths = text.lines().filter_map(|l| l.trim().strip_prefix("path"));
            folders.extend(
                paths
                    .filter_map(|l| l.trim_start().strip_prefix('='))
                    .map(|p| p.trim().trim_end_matches('/').to_owned()),
            );
        }
        let mut patterns = Vec::new();
        if let Ok(text) = std::fs::read_to_string(root.join(".gitattributes")) {
            for line in text.lines() {
                let mut words = line.split_whitespace();
                let Some(pattern) = words.next() else { continue };
                let marked = |w: &str| {
                    ["linguist-vendored", "linguist-generated"].iter().any(|m| {
                        w.strip_prefix(m)
                            .is_some_and(|rest| rest.is_empty() || rest == "=true" || rest == "=1")
                    })
                };
                if words.any(marked) {
                    patterns.push(pattern.trim_start_matches('/').trim_end_matches("/**").to_owned());
                }
            }
        }
        Self { folders, patterns }
    }

    fn covers(&self, name: &str) -> bool {
        let mut parts = name.split('/');
        parts.next_back();
        parts.any(|p| VENDOR_FOLDERS.contains(&p.to_lowercase().as_str()))
            || self.folders.iter().any(|f| covers(f, name))
            || self.patterns.iter().any(|p| {
                covers(p, name) || !p.contains('/') && covers(p, name.rsplit('/').next().unwrap_or(name))
            })
    }
}

/// What sets a file apart from code that somebody writes here.
pub fn apart(source: &Source, text: &str) -> Option<Apart> {
    if source.vendored {
        return Some(Apart::Vendored);
    }
    // A generator says so in the first lines.
    let head: Vec<String> = text.lines().take(12).map(str::to_lowercase).collect();
    let comment = |l: &str| l.trim_start().starts_with(['#', '/', '*', '"', '\'']);
    let marks = [
        "@generated",
        "do not edit",
        "auto-generated",
        "autogenerated",
        "automatically generated",
        "auto generated",
    ];
    let generated = head.iter().any(|l| comment(l) && marks.iter().any(|m| l.contains(m)));
    generated.then_some(Apart::Generated)
}
