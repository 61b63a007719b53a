//! Pages of the guide that list what the tool knows agree with the tool.
//!
//! `ACCURACY_WRITE_PAGES=1 cargo test -p cargo-accuracy --test guide` writes the part that is generated.

use accuracy_core::check_name::CheckName;
use accuracy_core::record::CauseFamily;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page() -> PathBuf {
    repository().join("accuracy-core/docs/names.md")
}

/// What stands between the marks of a part of the page.
fn part<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<!-- begin: {name} -->\n")).expect("the part begins");
    rest.split_once(&format!("<!-- end: {name} -->")).expect("the part ends").0
}

/// The names in the first column of a part's table.
fn names(page: &str, name: &str) -> BTreeSet<String> {
    let rows = part(page, name).lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once(" | ")).map(|(cell, _)| cell);
    cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`').to_owned()).collect()
}

fn plugin(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_lint_rule_is_on_the_page() {
    let mut rows = String::from("\n| rule | name | finds that |\n| --- | --- | --- |\n");
    for line in plugin(&["lint", "--explain"]).lines().take_while(|line| !line.is_empty()) {
        let (code, rest) = line.split_once(' ').expect("a rule has a code");
        let (name, summary) = rest.trim().split_once(' ').expect("a rule has a name");
        rows += &format!("| {code} | {name} | {} |\n", summary.trim());
    }
    rows += "\n";
    assert!(rows.contains("| SP202 | arm-default-drop | "), "the list of rules was not read:\n{rows}");
    let text = std::fs::read_to_string(page()).unwrap();
    let written = part(&text, "lint rules");
    if std::env::var_os("ACCURACY_WRITE_PAGES").is_some() {
        let mark = "<!-- begin: lint rules -->\n";
        let text = text.replace(&format!("{mark}{written}"), &format!("{mark}{rows}"));
        std::fs::write(page(), text).unwrap();
        return;
    }
    assert_eq!(
        written, rows,
        "write the page anew: ACCURACY_WRITE_PAGES=1 cargo test -p cargo-accuracy --test guide"
    );
}

#[test]
fn every_cause_that_a_report_may_name_is_on_the_page_and_no_other() {
    let schema: serde_json::Value = serde_json::from_str(&plugin(&["report", "--schema"])).unwrap();
    let known =
        schema["$defs"]["cause"]["properties"]["cause"]["enum"].as_array().expect("the causes are listed");
    let known: BTreeSet<String> = known.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(
        known,
        CauseFamily::ALL.iter().map(|family| family.name().to_owned()).collect::<BTreeSet<_>>(),
        "the schema and the code disagree"
    );
    let text = std::fs::read_to_string(page()).unwrap();
    assert_eq!(names(&text, "causes"), known);
    let finer = CauseFamily::ALL
        .iter()
        .flat_map(|family| family.finer().iter().map(|kind| format!("| `{kind}` | `{}` | ", family.name())));
    let finer: Vec<String> = finer.collect();
    let listed = part(&text, "finer names");
    assert_eq!(listed.matches("| `").count(), 2 * finer.len(), "kinds on the page");
    for row in finer {
        assert!(listed.contains(&row), "names.md lacks a row that begins with {row}");
    }
}

#[test]
fn every_check_is_on_the_page() {
    let made: BTreeSet<String> = CheckName::ALL.iter().map(|check| check.name().to_owned()).collect();
    assert!(made.len() > 20 && made.contains("cos_row_min"), "checks were not found: {made:?}");
    let listed = names(&std::fs::read_to_string(page()).unwrap(), "checks");
    assert_eq!(made.difference(&listed).collect::<Vec<_>>(), [""; 0], "names.md lacks these checks");
}

/// The README has the commands on which continuous integration relies, and stays a page.
#[test]
fn the_readme_is_short_and_its_links_lead_somewhere() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let words = readme.split_whitespace().count();
    assert!(words <= 1100, "the README has {words} words; what is more belongs into the guide");
    for command in [
        "cargo run --release -p cargo-accuracy\n",
        "cargo test\n",
        "kernels/install-compiler.sh",
        "cargo run --release -p cargo-accuracy -- --arch gfx950 --emulate\n",
        "cargo run --release -p cargo-accuracy -- -p silent-fallback\n",
    ] {
        assert!(readme.contains(command), "the README lacks `{}`", command.trim());
    }
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    for link in links.filter(|link| !link.contains("://")) {
        assert!(repository().join(link).exists(), "the README links to {link}, which is not there");
    }
}

#[test]
fn every_page_of_the_guide_is_in_the_documentation_and_in_the_readme() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (guide, readme) = (read("accuracy-core/src/guide.rs"), read("README.md"));
    let mut pages = 0;
    for entry in std::fs::read_dir(repository().join("accuracy-core/docs")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let module = file.trim_end_matches(".md").replace('-', "_");
        assert!(
            guide.contains(&format!("include_str!(\"../docs/{file}\")")),
            "guide.rs does not include {file}"
        );
        assert!(guide.contains(&format!("| [`{module}`] |")), "the table in guide.rs lacks {module}");
        assert!(readme.contains(&format!("(accuracy-core/docs/{file})")), "the README's table lacks {file}");
        pages += 1;
    }
    assert!(pages > 9, "only {pages} pages were found");
}

/// A rule that is in no table would never run, and nothing else would tell.
#[test]
fn every_rule_of_the_logs_and_the_lint_is_in_its_table() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(package.join(path)).unwrap();
    let files = |path: &str, extension: &str| -> Vec<String> {
        let entries = std::fs::read_dir(package.join(path)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(extension)).collect()
    };
    let (built_in, lint) = (read("src/logs/rules.rs"), read("tests/lint.rs"));
    let logs = files("src/logs/rules", ".toml");
    assert!(logs.len() > 9, "{logs:?}");
    for file in logs {
        assert!(
            built_in.contains(&format!("include_str!(\"rules/{file}\")")),
            "BUILT_IN of rules.rs lacks {file}"
        );
    }
    let explained = plugin(&["lint", "--explain"]);
    let rules =
        files("src/lint/rules", ".rs").into_iter().filter(|file| file.starts_with("sp")).collect::<Vec<_>>();
    assert!(rules.len() > 9, "{rules:?}");
    for file in rules {
        let code = file.trim_end_matches(".rs").to_uppercase();
        assert!(explained.lines().any(|line| line.starts_with(&code)), "ALL of lint/rules lacks {file}");
        assert!(lint.contains(&format!("\"{code}\"")), "tests/lint.rs tries no fixtures of {code}");
    }
}
