//! Configuration files and the precedence of settings.
//!
//! A setting is looked for on the command line, then in the environment, then (by the test process itself) in the
//! attribute of the test, then in `[package.metadata.accuracy]`, `.config/accuracy.toml` and
//! `[workspace.metadata.accuracy]`, in this order.

use crate::exit::usage;
use accuracy_core::arch::Arch;
use accuracy_core::build::LibraryTable;
use accuracy_core::verdict::LeastCosine;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const KNOWN: &[&str] = &[
    "arch",
    "deny-hidden",
    "emulate",
    "jobs",
    "library",
    "library-path",
    "lint",
    "min-cos",
    "run",
    "timeout",
];

/// One table of settings. What is absent is decided by the next place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Architectures that run when none is named.
    pub arch: Option<Vec<Arch>>,
    /// Whether the code of an architecture that can be emulated is.
    pub emulate: Option<bool>,
    /// Whether a test that exists and cannot run in this build fails.
    pub deny_hidden: Option<bool>,
    /// Least cosine that counts as correct.
    pub min_cos: Option<LeastCosine>,
    /// Seconds that a case may take.
    pub timeout: Option<f64>,
    /// Processes at a time. Speaks of the whole run, so a package cannot set it.
    pub jobs: Option<usize>,
    /// `false` in a package: it is left out unless it is named with `-p`.
    pub run: Option<bool>,
    /// Kernel libraries that are built from sources of the package.
    pub libraries: Vec<LibraryTable>,
    /// Folders of libraries and code objects that were built otherwise, relative to the package.
    pub library_path: Vec<PathBuf>,
}

/// A place where settings may be, and what is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Source {
    place: String,
    value: Option<Value>,
}

impl Source {
    fn table(&self, scope: Scope) -> anyhow::Result<Table> {
        self.value.as_ref().map_or(Ok(Table::default()), |value| table(value, &self.place, scope))
    }
}

/// What the configuration of a workspace says, as it stands there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sources {
    file: Source,
    workspace: Source,
    packages: BTreeMap<String, Source>,
}

impl Sources {
    pub fn read(metadata: &cargo_metadata::Metadata) -> anyhow::Result<Sources> {
        let root = metadata.workspace_root.as_std_path();
        let path = root.join(".config").join("accuracy.toml");
        let value = match accuracy_core::files::read_text(&path, accuracy_core::files::TEXT) {
            Ok(text) => Some(toml::from_str(&text).map_err(|e| usage(format!("{}: {e}", path.display())))?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let file = Source { place: path.display().to_string(), value };

        let manifest = root.join("Cargo.toml");
        let place = format!("[workspace.metadata.accuracy] of {}", manifest.display());
        let workspace = Source { place, value: metadata.workspace_metadata.get("accuracy").cloned() };

        let packages = metadata.workspace_packages().into_iter().filter_map(|package| {
            let value = package.metadata.get("accuracy")?.clone();
            let place = format!("[package.metadata.accuracy] of {}", package.manifest_path);
            Some((package.name.to_string(), Source { place, value: Some(value) }))
        });
        Ok(Sources { file, workspace, packages: packages.collect() })
    }
}

/// All tables of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Config {
    file: Table,
    workspace: Table,
    packages: BTreeMap<String, Table>,
    /// Where settings were looked for.
    pub places: Vec<String>,
}

impl Config {
    pub fn new(sources: &Sources) -> anyhow::Result<Config> {
        let place = |source: &Source| {
            let there = if source.value.is_some() { "found" } else { "not there" };
            format!("{} ({there})", source.place)
        };
        let packages = sources.packages.iter();
        Ok(Config {
            file: sources.file.table(Scope::Workspace)?,
            workspace: sources.workspace.table(Scope::Workspace)?,
            packages: packages
                .map(|(name, source)| Ok((name.clone(), source.table(Scope::Package)?)))
                .collect::<anyhow::Result<_>>()?,
            places: vec![place(&sources.file), place(&sources.workspace)],
        })
    }

    fn find<T>(&self, package: &str, get: impl Fn(&Table) -> Option<T>) -> Option<T> {
        self.packages.get(package).and_then(&get).or_else(|| get(&self.file)).or_else(|| get(&self.workspace))
    }

    pub fn arch(&self, package: &str) -> Option<Vec<Arch>> {
        self.find(package, |t| t.arch.clone())
    }

    /// Whether a run of the package emulates where the command line does not say.
    pub fn emulate(&self, package: &str) -> bool {
        self.find(package, |t| t.emulate).unwrap_or(false)
    }

    /// Whether tests of the package that cannot run in this build fail.
    pub fn deny_hidden(&self, package: &str) -> bool {
        self.find(package, |t| t.deny_hidden).unwrap_or(false)
    }

    pub fn min_cos(&self, package: &str) -> Option<LeastCosine> {
        self.find(package, |t| t.min_cos)
    }

    pub fn timeout(&self, package: &str) -> Option<f64> {
        self.find(package, |t| t.timeout)
    }

    pub fn jobs(&self) -> Option<usize> {
        self.file.jobs.or(self.workspace.jobs)
    }

    /// The kernel libraries that a package names sources of.
    pub fn libraries(&self, package: &str) -> &[LibraryTable] {
        self.packages.get(package).map_or(&[], |table| &table.libraries)
    }

    /// The folders of libraries and code objects that a package names, relative to it.
    pub fn library_path(&self, package: &str) -> &[PathBuf] {
        self.packages.get(package).map_or(&[], |table| &table.library_path)
    }

    /// Whether the package takes part in a run that does not name it.
    pub fn runs_by_default(&self, package: &str) -> bool {
        self.packages.get(package).and_then(|t| t.run).unwrap_or(true)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Workspace,
    Package,
}

fn table(value: &Value, place: &str, scope: Scope) -> anyhow::Result<Table> {
    let Value::Object(map) = value else {
        return Err(usage(format!("{place}: expected a table, found {value}")));
    };
    let mut table = Table::default();
    for (key, value) in map {
        let wrong = |expected: &str| usage(format!("{place}: {key} = {value}: expected {expected}"));
        let elsewhere = |what: &str| usage(format!("{place}: {key} {what}"));
        match key.as_str() {
            "arch" => table.arch = Some(archs(value, &wrong)?),
            "emulate" => {
                table.emulate = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?);
            }
            "deny-hidden" => {
                table.deny_hidden = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?);
            }
            "min-cos" => {
                let cos = value.as_f64().and_then(LeastCosine::new);
                table.min_cos = Some(cos.ok_or_else(|| wrong(LeastCosine::EXPECTED))?);
            }
            "timeout" => {
                let seconds = value.as_f64().filter(|&s| s > 0.0 && s.is_finite());
                table.timeout = Some(seconds.ok_or_else(|| wrong("a positive number of seconds"))?);
            }
            // A table of its own, which the lint reads.
            "lint" if scope == Scope::Workspace => {}
            "jobs" if scope == Scope::Package => {
                return Err(elsewhere(
                    "speaks of the whole run: set it in the workspace or in .config/accuracy.toml",
                ));
            }
            "jobs" => {
                let jobs = value.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
                table.jobs = Some(jobs.ok_or_else(|| wrong("a positive whole number"))?);
            }
            "library" | "library-path" if scope == Scope::Workspace => {
                return Err(elsewhere(
                    "speaks of a package's kernels: set it in its [package.metadata.accuracy]",
                ));
            }
            "library-path" => {
                table.library_path =
                    Vec::deserialize(value).map_err(|e| wrong(&format!("a list of folders ({e})")))?;
            }
            "library" => {
                table.libraries =
                    Vec::deserialize(value).map_err(|e| wrong(&format!("a list of libraries ({e})")))?;
                for name in table.libraries.iter().flat_map(|library| &library.archs) {
                    name.parse::<Arch>().map_err(|e| wrong(&format!("architectures ({e})")))?;
                }
            }
            "run" if scope == Scope::Workspace => {
                return Err(elsewhere("speaks of one package: set it in its [package.metadata.accuracy]"));
            }
            "run" => table.run = Some(value.as_bool().ok_or_else(|| wrong("true or false"))?),
            _ => return Err(usage(format!("{place}: unknown key `{key}`; known: {}", KNOWN.join(", ")))),
        }
    }
    Ok(table)
}

fn archs(value: &Value, wrong: &dyn Fn(&str) -> anyhow::Error) -> anyhow::Result<Vec<Arch>> {
    let names: Vec<&str> = match value {
        Value::String(name) => vec![name],
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().ok_or_else(|| wrong("a string or a list of strings")))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong("a string or a list of strings")),
    };
    if names.is_empty() {
        return Err(wrong("at least one architecture"));
    }
    names
        .into_iter()
        .map(|name| name.parse::<Arch>().map_err(|e| wrong(&format!("architectures ({e})"))))
        .collect()
}

/// Reads an environment variable that has the meaning of a flag.
pub fn from_env<T: std::str::FromStr>(name: &str, expected: &str) -> anyhow::Result<Option<T>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => {
            value.parse().map(Some).map_err(|_| usage(format!("{name}={value:?}: expected {expected}")))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(value)) => {
            Err(usage(format!("{name}={value:?}: expected {expected}")))
        }
    }
}

/// The architectures that ACCURACY_ARCH names.
///
/// # Errors
/// A usage error if one of them is none.
pub fn arch_from_env() -> anyhow::Result<Option<Vec<Arch>>> {
    let Some(names) = from_env::<String>(accuracy_core::env::ARCH, "architectures")? else { return Ok(None) };
    names
        .split(',')
        .map(|name| {
            name.trim().parse().map_err(|e| usage(format!("{}={names:?}: {e}", accuracy_core::env::ARCH)))
        })
        .collect::<anyhow::Result<_>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_key_is_reported_with_its_place_and_the_known_ones() {
        let error = table(&json!({"archs": "host"}), ".config/accuracy.toml", Scope::Workspace).unwrap_err();
        assert!(error.is::<crate::exit::UsageError>());
        let text = error.to_string();
        for part in [
            ".config/accuracy.toml",
            "`archs`",
            "arch, deny-hidden, emulate, jobs, library, library-path, lint, min-cos, run, timeout",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_architecture_is_a_string_or_a_list() {
        let one = table(&json!({"arch": "gfx942"}), "x", Scope::Package).unwrap();
        assert_eq!(one.arch, Some(vec![Arch::Gfx942]));
        let two = table(&json!({"arch": ["host", "gfx950"]}), "x", Scope::Package).unwrap();
        assert_eq!(two.arch, Some(vec![Arch::Host, Arch::Gfx950]));
        for bad in [json!({"arch": "mi300"}), json!({"arch": []}), json!({"arch": 942}), json!({"arch": [1]})]
        {
            table(&bad, "x", Scope::Package).unwrap_err();
        }
    }

    #[test]
    fn a_package_wins_over_the_file_and_the_file_over_the_workspace() {
        let cos = |cos| Table { min_cos: LeastCosine::new(cos), ..Table::default() };
        let mut config = Config { workspace: cos(0.9), file: cos(0.99), ..Config::default() };
        config.packages.insert("a".into(), cos(0.5));
        assert_eq!(config.min_cos("a"), LeastCosine::new(0.5));
        assert_eq!(config.min_cos("b"), LeastCosine::new(0.99));
        config.file.min_cos = None;
        assert_eq!(config.min_cos("b"), LeastCosine::new(0.9));
    }

    #[test]
    fn what_speaks_of_a_packages_kernels_is_refused_elsewhere() {
        let kernels = json!({"library": [{"name": "k", "sources": ["hip"]}], "library-path": ["../build"]});
        let own = table(&kernels, "x", Scope::Package).unwrap();
        assert_eq!(own.library_path, [PathBuf::from("../build")]);
        assert_eq!((own.libraries[0].name.as_str(), own.libraries[0].sources.len()), ("k", 1));
        let error = table(&kernels, "x", Scope::Workspace).unwrap_err();
        assert!(error.to_string().contains("[package.metadata.accuracy]"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            json!({"min-cos": 2}),
            json!({"timeout": 0}),
            json!({"jobs": 0}),
            json!({"timeout": "5"}),
            json!({"emulate": "yes"}),
        ] {
            let error = table(&bad, "x", Scope::Workspace).unwrap_err();
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }
}
