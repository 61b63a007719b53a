//! Tests that the sources declare and that no executable of this build has: under a `cfg`, in a target whose features are
//! off, in a target that builds no tests. A run says which and why, since nothing else would tell of them.

use super::discover::Binary;
use crate::declared::{Declared, Place, Test};
use crate::run::cargo::manifest_dir;
use cargo_metadata::{Package, Target, TargetKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// A test that cannot run in this build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hidden {
    pub package: String,
    pub test: String,
    pub file: String,
    pub line: usize,
    pub reason: String,
}

impl std::fmt::Display for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{} at {}:{}: {}", self.package, self.test, self.file, self.line, self.reason)
    }
}

/// The hidden tests of packages; those alone whose name has one of the filters in it, where there are any.
pub fn tests(packages: &[&Package], binaries: &[Binary], root: &Path, filters: &[String]) -> Vec<Hidden> {
    let mut hidden = BTreeSet::new();
    for package in packages {
        let declared = Declared::of(manifest_dir(package));
        let of_package = binaries.iter().filter(|binary| binary.package == package.name.as_str());
        let built: HashSet<(&str, u32)> =
            of_package.flat_map(|binary| &binary.tests).map(|t| (t.file.as_str(), t.line)).collect();
        let runs = |test: &&Test| {
            built.iter().any(|(file, line)| *line as usize == test.name_line && test.at.file.ends_with(file))
        };
        let missing: Vec<_> = declared.tests.iter().filter(|test| !runs(test)).collect();
        if missing.is_empty() {
            continue;
        }
        // Only now is it worth looking into every file.
        let reached: Vec<(&Target, Vec<Reached>)> =
            package.targets.iter().map(|target| (target, reach(target.src_path.as_std_path()))).collect();
        for test in missing {
            let meant = |filter: &String| filter.contains(&test.name) || test.name.contains(filter.as_str());
            if !filters.is_empty() && !filters.iter().any(meant) {
                continue;
            }
            if let Some(reason) = reason(package, &test.at, &reached) {
                let file = test.at.file.strip_prefix(root).unwrap_or(&test.at.file).display().to_string();
                hidden.insert(Hidden {
                    package: package.name.to_string(),
                    test: test.name.clone(),
                    file,
                    line: test.at.line,
                    reason,
                });
            }
        }
    }
    hidden.into_iter().collect()
}

/// Why a test is in no executable; `None` of a file that is part of nothing, such as one that a test only reads.
fn reason(package: &Package, at: &Place, reached: &[(&Target, Vec<Reached>)]) -> Option<String> {
    let of_target = |(target, files): &&(&Target, Vec<Reached>)| {
        let builds_tests = !target.kind.contains(&TargetKind::CustomBuild);
        builds_tests && files.iter().any(|file| file.path == at.file)
    };
    let Some((target, files)) = reached.iter().find(of_target) else {
        let beside_tests = at.file.parent() == Some(&manifest_dir(package).join("tests"));
        return beside_tests.then(|| "no target of Cargo.toml has this file (autotests = false?)".into());
    };
    let name = match target.kind.first() {
        Some(TargetKind::Lib | TargetKind::RLib) => "the library".to_owned(),
        Some(TargetKind::Test) => format!("test `{}`", target.name),
        Some(TargetKind::Bin) => format!("program `{}`", target.name),
        Some(TargetKind::Example) => format!("example `{}`", target.name),
        _ => format!("target `{}`", target.name),
    };
    if !target.test {
        return Some(format!("{name} has `test = false`"));
    }
    let mut conditions: Vec<String> = Vec::new();
    if !target.required_features.is_empty() {
        conditions.push(format!("{name} has required-features = {:?}", target.required_features));
    }
    for file in files.iter().filter(|file| file.path == at.file) {
        conditions.extend(file.conditions.clone());
        // The innermost item that has the line in it also has the outer ones' conditions.
        let within = file.tests.iter().find(|test| test.line == at.line);
        conditions.extend(within.map(|test| test.conditions.clone()).unwrap_or_default());
    }
    conditions.dedup();
    Some(match conditions.is_empty() {
        false => format!("left out by {}", conditions.join(", ")),
        true => "no executable of this build has it".into(),
    })
}

/// A file that a target is made of, and under which conditions.
struct Reached {
    path: PathBuf,
    conditions: Vec<String>,
    tests: Vec<Within>,
}

/// A test of a file, by the line of its attribute.
struct Within {
    line: usize,
    conditions: Vec<String>,
}

/// The files of a target, beginning with its root.
fn reach(root: &Path) -> Vec<Reached> {
    let mut reached: Vec<Reached> = Vec::new();
    let mut open = vec![(root.to_path_buf(), true, Vec::new())];
    while let Some((path, is_root, conditions)) = open.pop() {
        let known = reached.iter().any(|file| file.path == path);
        let text = accuracy_core::files::read_text(&path, accuracy_core::files::TEXT);
        let Some(file) = text.ok().filter(|_| !known).and_then(|text| syn::parse_file(&text).ok()) else {
            continue;
        };
        let mut conditions: Vec<String> = conditions;
        conditions.extend(cfgs(&file.attrs));
        let own = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let is_mod = is_root || path.file_name().is_some_and(|name| name == "mod.rs");
        let dir = if is_mod { own } else { path.with_extension("") };
        let mut walk = Walk { dir, tests: Vec::new(), modules: Vec::new() };
        walk.items(&file.items, &mut Vec::new(), &mut Vec::new());
        for (candidates, inner) in walk.modules {
            if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
                open.push((found, false, [conditions.clone(), inner].concat()));
            }
        }
        reached.push(Reached { path, conditions, tests: walk.tests });
    }
    reached
}

struct Walk {
    /// Where the files of the modules lie that are declared in this one.
    dir: PathBuf,
    tests: Vec<Within>,
    /// Where a module's file may be, and the conditions of its declaration.
    modules: Vec<(Vec<PathBuf>, Vec<String>)>,
}

impl Walk {
    fn items(&mut self, items: &[syn::Item], names: &mut Vec<String>, conditions: &mut Vec<String>) {
        for item in items {
            match item {
                syn::Item::Fn(function) => {
                    let attribute = function.attrs.iter().find(|a| {
                        a.path().segments.last().is_some_and(|segment| segment.ident == "accuracy_test")
                    });
                    if let Some(attribute) = attribute {
                        let line = syn::spanned::Spanned::span(attribute).start().line;
                        let conditions = [conditions.clone(), cfgs(&function.attrs)].concat();
                        self.tests.push(Within { line, conditions });
                    }
                }
                syn::Item::Mod(module) => {
                    let before = conditions.len();
                    conditions.extend(cfgs(&module.attrs));
                    let name = module.ident.to_string();
                    match &module.content {
                        Some((_, items)) => {
                            names.push(name);
                            self.items(items, names, conditions);
                            names.pop();
                        }
                        None => {
                            let dir = names.iter().fold(self.dir.clone(), |dir, name| dir.join(name));
                            let mut candidates =
                                vec![dir.join(format!("{name}.rs")), dir.join(&name).join("mod.rs")];
                            candidates.splice(0..0, path_of(&module.attrs).map(|path| dir.join(path)));
                            self.modules.push((candidates, conditions.clone()));
                        }
                    }
                    conditions.truncate(before);
                }
                _ => {}
            }
        }
    }
}

/// `#[path = ".."]`.
fn path_of(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().filter(|a| a.path().is_ident("path")).find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Conditions under which an item is compiled, as they are written; that it is a test is none.
fn cfgs(attributes: &[syn::Attribute]) -> Vec<String> {
    let conditions = attributes.iter().filter(|a| a.path().is_ident("cfg")).filter_map(|attribute| {
        let list = attribute.meta.require_list().ok()?;
        let condition = list.tokens.to_string().replace(" = ", "=").replace(" ,", ",");
        let condition = condition.replace(" (", "(").replace("( ", "(").replace(" )", ")");
        (condition != "test").then(|| format!("#[cfg({condition})]"))
    });
    conditions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_reached_through_modules_with_their_conditions() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "lib.rs",
            "#[cfg(feature = \"gpu\")] mod gemm;\nmod inner { #[cfg(any(unix, test))] mod deep; }\n\
             #[cfg(test)] mod tests {\n#[cfg(feature = \"slow\")]\n#[accuracy_test(tokens = [1])]\nfn t() {} }\n\
             #[path = \"elsewhere/x.rs\"] mod y;",
        );
        write("gemm.rs", "#![cfg(target_os = \"linux\")]\n#[accuracy_test]\nfn a() {}\nmod part;");
        write("gemm/part.rs", "#[accuracy_test]\nfn b() {}");
        write("inner/deep.rs", "#[accuracy_test]\nfn c() {}");
        write("elsewhere/x.rs", "#[accuracy_test]\nfn d() {}");
        write("alone.rs", "#[accuracy_test]\nfn e() {}");
        let reached = reach(&dir.path().join("lib.rs"));
        let of = |file: &str| {
            let file = reached.iter().find(|reached| reached.path == dir.path().join(file))?;
            let test = file.tests.first().map(|test| test.conditions.clone()).unwrap_or_default();
            Some([file.conditions.clone(), test].concat().join(" "))
        };
        assert_eq!(of("lib.rs").unwrap(), "#[cfg(feature=\"slow\")]");
        assert_eq!(of("gemm.rs").unwrap(), "#[cfg(feature=\"gpu\")] #[cfg(target_os=\"linux\")]");
        assert_eq!(of("gemm/part.rs").unwrap(), of("gemm.rs").unwrap());
        assert_eq!(of("inner/deep.rs").unwrap(), "#[cfg(any(unix, test))]");
        assert_eq!(of("elsewhere/x.rs").unwrap(), "");
        assert_eq!(of("alone.rs"), None);
    }
}
