//! The `[env]` tables of cargo's configuration files, which `cargo test` hands to test processes.
//!
//! Cargo has no stable way to ask for them. Not read: `include`, and settings of the command line (`--config`).

use crate::exit::usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A variable of an `[env]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    pub name: String,
    pub value: String,
    /// Whether it replaces one that is set already.
    pub force: bool,
}

impl Variable {
    /// Name and value, where the environment of this process leaves room for it.
    pub fn to_set(&self) -> Option<(String, String)> {
        let wanted = self.force || std::env::var_os(&self.name).is_none();
        wanted.then(|| (self.name.clone(), self.value.clone()))
    }
}

/// The variables that hold for somebody in `dir`.
pub fn variables(dir: &Path, home: Option<&Path>) -> anyhow::Result<Vec<Variable>> {
    let mut variables = BTreeMap::new();
    // The nearest file wins, the one in cargo's home comes last.
    let folders = dir.ancestors().map(|d| d.join(".cargo")).chain(home.map(PathBuf::from));
    for folder in folders {
        let Some(path) =
            ["config.toml", "config"].map(|name| folder.join(name)).into_iter().find(|p| p.is_file())
        else {
            continue;
        };
        let bad = |what: String| usage(format!("{}: {what}", path.display()));
        let text = accuracy_core::files::read_text(&path, accuracy_core::files::TEXT)
            .map_err(|e| bad(e.to_string()))?;
        let config: toml::Table = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let Some(table) = config.get("env").and_then(toml::Value::as_table) else { continue };
        for (name, value) in table {
            if variables.contains_key(name) {
                continue;
            }
            let (value, force, relative) = match value {
                toml::Value::String(value) => (Some(value.as_str()), false, false),
                toml::Value::Table(table) => {
                    let flag = |key| table.get(key).and_then(toml::Value::as_bool).unwrap_or(false);
                    (table.get("value").and_then(toml::Value::as_str), flag("force"), flag("relative"))
                }
                _ => (None, false, false),
            };
            let Some(value) = value else {
                return Err(bad(format!("env.{name}: expected a string or a table with a `value`")));
            };
            // Relative to the folder that `.cargo` is in.
            let value = match relative {
                true => folder.parent().unwrap_or(Path::new("")).join(value).display().to_string(),
                false => value.to_string(),
            };
            variables.insert(name.clone(), Variable { name: name.clone(), value, force });
        }
    }
    Ok(variables.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_wins_and_what_is_set_stays_unless_forced() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "inner/.cargo/config.toml",
            "[env]\nA = \"inner\"\nHERE = { value = \"lib\", relative = true }\n",
        );
        write(
            ".cargo/config.toml",
            "[env]\nA = \"outer\"\nB = \"outer\"\nPATH = \"x\"\nHOME = { value = \"y\", force = true }\n",
        );
        write("home/config.toml", "[env]\nB = \"home\"\nC = \"home\"\n");
        let inner = root.path().join("inner");
        let found = variables(&inner, Some(&root.path().join("home"))).unwrap();
        let found: Vec<_> = found.iter().filter_map(Variable::to_set).collect();
        let here = inner.join("lib").display().to_string();
        let expected = [("A", "inner"), ("B", "outer"), ("C", "home"), ("HERE", &here), ("HOME", "y")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_string(), v.to_string())));
    }

    #[test]
    fn a_value_that_is_no_string_is_refused_with_its_place() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(".cargo")).unwrap();
        std::fs::write(root.path().join(".cargo/config.toml"), "[env]\nA = 1\n").unwrap();
        let error = variables(root.path(), None).unwrap_err().to_string();
        assert!(error.contains(".cargo/config.toml") && error.contains("env.A"), "{error}");
    }
}
