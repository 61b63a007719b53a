//! `cargo accuracy doctor`: what this machine and workspace have and lack, each finding with its fix.
//!
//! [`machine`] looks at compilers, runtimes, devices and variables, [`workspace`] at configuration, kernel libraries and
//! checkpoints. Nothing is built and nothing is changed.

mod machine;
mod runtimes;
mod workspace;

use crate::exit::ExitCode;
use crate::output::{Color, TextOrJson, width};
use crate::report::style::{self, paint};
use crate::report::text::wrap;
use crate::screen::{Holds, Screen};
use accuracy_core::arch::Arch;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

/// Flags of `cargo accuracy doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Architecture that you want to run on [default: ACCURACY_ARCH, else the configuration's] (repeatable)
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub arch: Vec<Arch>,
    #[command(flatten)]
    pub manifest: clap_cargo::Manifest,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextOrJson,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Good,
    /// Not here, or odd, and not in the way of what a run would be for.
    Note,
    /// In the way.
    Problem,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// Findings about one thing.
#[derive(Debug, Default, Serialize)]
struct Section {
    title: &'static str,
    findings: Vec<Finding>,
}

impl Section {
    fn new(title: &'static str) -> Section {
        Section { title, findings: Vec::new() }
    }

    fn good(&mut self, what: impl Into<String>) {
        self.findings.push(Finding { level: Level::Good, what: what.into(), fix: None });
    }

    fn note(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { level: Level::Note, what: what.into(), fix: Some(fix.into()) });
    }

    fn problem(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { level: Level::Problem, what: what.into(), fix: Some(fix.into()) });
    }

    /// A problem if what is wanted does not go without it.
    fn lacks(&mut self, needed: bool, what: impl Into<String>, fix: impl Into<String>) {
        if needed { self.problem(what, fix) } else { self.note(what, fix) }
    }
}

pub fn command(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    args.color.apply();
    let workspace = workspace::Workspace::read(&args);
    let wanted = workspace.wanted(&args.arch);
    let devices = runtimes::devices();
    let sections = [
        machine::tools(&wanted, &workspace),
        machine::gpus(&wanted, &devices, workspace.emulates()),
        machine::variables(&devices),
        workspace.configuration(&args.arch),
        workspace.libraries(&wanted, &devices),
        workspace.checkpoints(),
    ];
    let problems = sections.iter().flat_map(|s| &s.findings).filter(|f| f.level == Level::Problem).count();
    match args.format {
        TextOrJson::Text => {
            let text = render(&sections, &wanted, problems, width(false));
            crate::screen::stdout().write_all(text.as_bytes())?;
        }
        TextOrJson::Json => {
            let archs: Vec<&str> = wanted.iter().map(|arch| arch.name()).collect();
            let report = serde_json::json!({
                "schema": 1,
                "tool": { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
                "archs": archs,
                "problems": problems,
                "sections": sections.iter().filter(|s| !s.findings.is_empty()).collect::<Vec<_>>(),
            });
            writeln!(
                Screen::new(std::io::stdout(), Holds::Json),
                "{}",
                serde_json::to_string_pretty(&report)?
            )?;
        }
    }
    Ok(if problems == 0 { ExitCode::Correct } else { ExitCode::Failed })
}

fn render(sections: &[Section], wanted: &BTreeSet<Arch>, problems: usize, width: Option<usize>) -> String {
    const INDENT: usize = 8;
    let mut text = String::new();
    for section in sections.iter().filter(|s| !s.findings.is_empty()) {
        let _ = writeln!(text, "{}", paint(style::BOLD, section.title));
        for Finding { level, what, fix } in &section.findings {
            let (word, style) = match level {
                Level::Good => ("ok", style::GOOD),
                Level::Note => ("note", style::DIM),
                Level::Problem => ("BAD", style::BAD),
            };
            // The first line begins behind the word.
            let mut lines = String::new();
            wrap::wrap(&mut lines, what, INDENT, width);
            let _ = write!(text, "  {} {}", paint(style, format!("{word:5}")), &lines[INDENT..]);
            if let Some(fix) = fix {
                wrap::wrap(&mut text, &format!("fix: {fix}"), INDENT, width);
            }
        }
        text.push('\n');
    }
    let archs = wanted.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(", ");
    let run = if archs.is_empty() { "a run".to_string() } else { format!("a run on {archs}") };
    let _ = match problems {
        0 => writeln!(text, "{}: nothing found that stands in the way of {run}", paint(style::GOOD, "ok")),
        1 => writeln!(text, "{}: 1 thing stands in the way of {run}", paint(style::BAD, "BAD")),
        n => writeln!(text, "{}: {n} things stand in the way of {run}", paint(style::BAD, "BAD")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_fit_80_columns_with_their_fixes() {
        let mut section = Section::new("GPUs");
        section.good("HIP 6.4.2 (libamdhip64.so.6)");
        section.problem(
            "no visible device is gfx950: there is only gfx942, a device of another architecture",
            "choose",
        );
        let wanted = BTreeSet::from([Arch::Gfx950]);
        let text = anstream::adapter::strip_str(&render(&[section], &wanted, 1, Some(80))).to_string();
        assert_eq!(
            text,
            "GPUs\n  ok    HIP 6.4.2 (libamdhip64.so.6)\n  BAD   no visible device is gfx950: there is only gfx942, a \
             device of another\n          architecture\n        fix: choose\n\n\
             BAD: 1 thing stands in the way of a run on gfx950\n"
        );
    }
}
