//! Which accuracy tests the built executables hold: their metadata, cross-checked with what libtest lists.

use super::cargo::{Built, manifest_dir};
use accuracy_core::meta::{self, TestMeta};
use anyhow::Context as _;
use cargo_metadata::{Metadata, Package};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A test executable with at least one accuracy test.
#[derive(Debug)]
pub struct Binary {
    pub path: PathBuf,
    pub package: String,
    /// How a person names it: `kernels (lib)`, `kernels --test fp8`.
    pub name: String,
    pub tests: Vec<TestMeta>,
    pub working_dir: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Binary {
    /// Whether it was built so that it can emulate.
    pub fn can_emulate(&self) -> bool {
        self.tests.iter().all(|test| test.can_emulate)
    }

    /// A command that runs this executable as `cargo test` would.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.working_dir).envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }
}

/// Reads the metadata of every executable and compares it with the executable's own list of tests.
///
/// Anything that does not fit is an error before the first case runs: a test that is listed but not registered
/// would never be judged, and one that is registered but not listed would never run.
pub fn discover(built: &Built, metadata: &Metadata, packages: &[&Package]) -> anyhow::Result<Vec<Binary>> {
    let mut binaries = Vec::new();
    for executable in &built.executables {
        let Some(package) = packages.iter().find(|p| p.id == executable.package) else { continue };
        let tests = meta::read_binary(&executable.path)?;
        if tests.is_empty() {
            continue;
        }
        let name = match executable.unit {
            true => format!("{} ({})", package.name, executable.target),
            false => format!("{} --test {}", package.name, executable.target),
        };
        let binary = Binary {
            package: package.name.to_string(),
            name,
            working_dir: manifest_dir(package).into(),
            environment: built.environment(metadata, package, &executable.path),
            path: executable.path.clone(),
            tests,
        };
        check_list(&binary)?;
        binaries.push(binary);
    }
    Ok(binaries)
}

/// Compares the metadata of an executable with its own list of tests.
pub fn check_list(binary: &Binary) -> anyhow::Result<()> {
    let listed = list(binary)?;
    let complaints = cross_check(&binary.tests, &listed);
    if !complaints.is_empty() {
        anyhow::bail!(
            "the metadata of {} ({}) and its --list disagree:\n  {}",
            binary.name,
            binary.path.display(),
            complaints.join("\n  ")
        );
    }
    Ok(())
}

fn list(binary: &Binary) -> anyhow::Result<BTreeSet<String>> {
    let what = || format!("{} --list --format terse", binary.path.display());
    let output = binary
        .command()
        .args(["--list", "--format", "terse"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", what()))?;
    if !output.status.success() {
        anyhow::bail!(
            "{} ended with {}: {}",
            what(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_list(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect()
}

/// What does not fit between the registered cells and libtest's list, each as a sentence.
fn cross_check(tests: &[TestMeta], listed: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut registered = BTreeSet::new();
    for test in tests {
        for cell in &test.body.cells {
            let name = test.libtest_name(cell);
            if !listed.contains(&name) {
                complaints.push(format!("{name} is registered ({}:{}) but not listed", test.file, test.line));
            }
            if !registered.insert(name.clone()) {
                complaints.push(format!("{name} is registered twice ({}:{})", test.file, test.line));
            }
        }
    }
    // The module that the macro generates holds nothing but the cells.
    let modules: BTreeSet<&str> =
        registered.iter().filter_map(|name| name.rsplit_once("::")).map(|(module, _)| module).collect();
    for name in listed.difference(&registered) {
        if name.rsplit_once("::").is_some_and(|(module, _)| modules.contains(module)) {
            complaints
                .push(format!("{name} is listed but not registered: it would run without being judged"));
        }
    }
    complaints
}

/// Whether a package could use `#[accuracy_test]`, whose expansion names this crate.
pub fn can_have_tests(package: &Package) -> bool {
    // The integration tests of accuracy-core itself name it without depending on it.
    package.name == "accuracy-core" || package.dependencies.iter().any(|d| d.name == "accuracy-core")
}

/// Why no accuracy test was found in `packages`, as far as one can say without looking at their sources.
pub fn why_none(packages: &[&Package], features: &clap_cargo::Features) -> Vec<String> {
    let mut notes = Vec::new();
    for package in packages {
        let mut note = format!("{} ({})", package.name, manifest_dir(package).display());
        if !can_have_tests(package) {
            note += ": does not depend on accuracy-core";
        } else {
            note += ": its test executables hold no #[accuracy_test]";
            let off = features_that_are_off(package, features);
            if !off.is_empty() {
                note += &format!("; features that are off and may hide them: {}", off.join(", "));
            }
        }
        notes.push(note);
    }
    notes
}

fn features_that_are_off(package: &Package, features: &clap_cargo::Features) -> Vec<String> {
    if features.all_features {
        return Vec::new();
    }
    let mut on: BTreeSet<&str> = features
        .features
        .iter()
        .flat_map(|list| list.split([',', ' ']))
        .map(|f| f.rsplit_once('/').map_or(f, |(_, feature)| feature))
        .collect();
    if !features.no_default_features {
        on.insert("default");
    }
    // A feature turns on those that it names.
    loop {
        let before = on.len();
        for (name, enables) in &package.features {
            if on.contains(name.as_str()) {
                on.extend(enables.iter().map(String::as_str));
            }
        }
        if on.len() == before {
            break;
        }
    }
    package.features.keys().filter(|f| *f != "default" && !on.contains(f.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy_core::meta::{Body, Cell, Check};

    fn test(module: &str, name: &str, cells: &[&str]) -> TestMeta {
        TestMeta {
            package: "kernels".into(),
            module: module.into(),
            file: "src/fp8.rs".into(),
            line: 7,
            manifest_dir: ".".into(),
            can_emulate: false,
            body: Body {
                name: name.into(),
                cells: cells
                    .iter()
                    .map(|c| Cell {
                        name: c.to_string(),
                        check: Check::FullChain,
                        at: Vec::new(),
                        tokens: 1,
                        axis: None,
                    })
                    .collect(),
                ..Body::default()
            },
        }
    }

    #[test]
    fn what_is_listed_and_registered_agrees() {
        let listed =
            parse_list("fp8::gemm::c0: test\nfp8::gemm::c1: test\nfp8::helper: test\nspeed: benchmark\n");
        assert_eq!(cross_check(&[test("kernels::fp8", "gemm", &["c0", "c1"])], &listed), [""; 0]);
    }

    #[test]
    fn a_cell_that_libtest_does_not_list_is_an_error() {
        let listed = parse_list("fp8::gemm::c0: test\n");
        let complaints = cross_check(&[test("kernels::fp8", "gemm", &["c0", "c1"])], &listed);
        assert_eq!(complaints, ["fp8::gemm::c1 is registered (src/fp8.rs:7) but not listed"]);
    }

    #[test]
    fn a_generated_test_that_is_not_registered_is_an_error() {
        let listed = parse_list("fp8::gemm::c0: test\nfp8::gemm::c1: test\n");
        let complaints = cross_check(&[test("kernels::fp8", "gemm", &["c0"])], &listed);
        assert_eq!(
            complaints,
            ["fp8::gemm::c1 is listed but not registered: it would run without being judged"]
        );
    }

    #[test]
    fn a_cell_that_is_registered_twice_is_an_error() {
        let listed = parse_list("fp8::gemm::c0: test\n");
        let twice = [test("kernels::fp8", "gemm", &["c0"]), test("kernels::fp8", "gemm", &["c0"])];
        assert_eq!(cross_check(&twice, &listed).len(), 1);
    }
}
