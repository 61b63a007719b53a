//! `cargo accuracy lint`: arguments, output, exit status.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exit::{ExitCode, usage};
use crate::output::Color;
use crate::screen::{Holds, harmless};

use super::baseline::Baseline;
use super::config::LintConfig;
use super::render::Detail;
use super::since::Changes;
use super::{LintReport, evidence, render, rules};

/// Finds functions that accept a parameter and ignore it, in Rust, Python and C++/HIP/CUDA sources
#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Files and folders to lint; the current folder by default
    pub paths: Vec<PathBuf>,
    /// Also write a report: json, sarif, github or text; `-` is standard output
    #[arg(long, value_name = "FORMAT=PATH")]
    pub report: Vec<String>,
    /// Only functions that changed since this git revision
    #[arg(long, value_name = "REV")]
    pub since: Option<String>,
    /// Findings in this file do not fail the gate
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write all findings of this run as the new baseline
    #[arg(long, value_name = "FILE")]
    pub save_baseline: Option<PathBuf>,
    /// Configuration instead of `.config/accuracy.toml`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a rule's documentation, or the list of rules
    #[arg(long, value_name = "RULE", num_args = 0..=1, default_missing_value = "")]
    pub explain: Option<String>,
    /// Keep no cache (under `target/`, or the user's cache folder where there is no Cargo workspace)
    #[arg(long)]
    pub no_cache: bool,
    /// Colour
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
    /// Show notes too
    #[arg(short, long)]
    pub verbose: bool,
    /// Only errors and the last line
    #[arg(short, long)]
    pub quiet: bool,
}

pub fn command(args: LintArgs) -> Result<ExitCode> {
    if let Some(code) = &args.explain {
        return explain(code);
    }
    let here = std::env::current_dir()?;
    let config = match &args.config {
        Some(path) => LintConfig::read(path)?,
        None => LintConfig::load(&here)?,
    };
    let paths = if args.paths.is_empty() { vec![PathBuf::from(".")] } else { args.paths.clone() };
    let cache = (!args.no_cache).then(|| cache_folder(&here)).flatten();
    let mut report = super::run(&paths, &config, cache.as_deref())?;
    if let Some(revision) = &args.since {
        Changes::since(revision, &here)?.restrict(&mut report);
    }
    if let Some(path) = args.baseline.as_ref().or(config.baseline.as_ref()) {
        Baseline::load(path)?.apply(&mut report);
    }
    if let Some(path) = &args.save_baseline {
        Baseline::of(&report).save(path)?;
    }
    let mut to_stdout = false;
    for spec in &args.report {
        to_stdout |= write_report(spec, &report, &here)?;
    }
    let color = match args.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let detail = match (args.quiet, args.verbose) {
        (true, _) => Detail::Quiet,
        (false, true) => Detail::Verbose,
        (false, false) => Detail::Normal,
    };
    let text = render::text(&report, &here, color, detail);
    // What a person reads goes to standard error where a report takes standard output.
    let shown = harmless(&text, Holds::Text);
    let written = if to_stdout {
        std::io::stderr().write_all(shown.as_bytes())
    } else {
        std::io::stdout().write_all(shown.as_bytes())
    };
    match written {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    if report.unread() {
        return Ok(ExitCode::Unfinished);
    }
    if report.files == 0 {
        return Ok(ExitCode::NothingRan);
    }
    let failed = report.fails();
    Ok(if args.save_baseline.is_some() || !failed { ExitCode::Correct } else { ExitCode::Failed })
}

/// `target/accuracy` of the cargo workspace around `here`; without one, a folder for `here` among the user's caches.
fn cache_folder(here: &Path) -> Option<PathBuf> {
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        return Some(PathBuf::from(target).join("accuracy"));
    }
    if let Some(root) = here.ancestors().filter(|a| a.join("Cargo.toml").is_file()).last() {
        return Some(root.join("target/accuracy"));
    }
    let caches = match std::env::var_os("XDG_CACHE_HOME").filter(|v| Path::new(v).is_absolute()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let name = blake3::hash(here.as_os_str().as_encoded_bytes()).to_hex();
    Some(caches.join("cargo-accuracy").join(&name[..16]))
}

/// Writes one report; returns whether it went to standard output.
fn write_report(spec: &str, report: &LintReport, here: &Path) -> Result<bool> {
    let Some((format, path)) = spec.split_once('=') else {
        return Err(usage(format!("--report {spec}: expected FORMAT=PATH, as in json=report.json")));
    };
    let text = match format {
        "json" => render::json(report)?,
        "sarif" => serde_json::to_string_pretty(&render::sarif(report, env!("CARGO_PKG_VERSION")))?,
        "github" => render::github(report),
        "text" => render::text(report, here, false, Detail::Normal),
        other => {
            return Err(usage(format!("--report {other}=...: the lint writes json, sarif, github and text")));
        }
    };
    let holds = match format {
        "github" => Holds::Commands,
        "text" => Holds::Text,
        _ => Holds::Json,
    };
    let text = harmless(&text, holds);
    if path == "-" {
        match std::io::stdout().write_all(text.as_bytes()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        return Ok(true);
    }
    if super::source::Language::of(Path::new(path)).is_some() {
        return Err(usage(format!("--report {spec}: a report would replace the source {path}")));
    }
    std::fs::write(path, text).with_context(|| format!("cannot write the report {path}"))?;
    Ok(false)
}

fn explain(code: &str) -> Result<ExitCode> {
    let mut out = String::new();
    if code.is_empty() {
        for r in rules::ALL {
            out.push_str(&format!("{}  {:26} {}\n", r.code, r.name, r.summary));
        }
        out.push('\n');
        out.push_str(evidence::TABLE);
    } else {
        match rules::by_code(code) {
            Some(r) => {
                out = r.documentation();
                out.push('\n');
                out.push_str(evidence::TABLE);
            }
            None => {
                return Err(usage(format!("no rule `{code}`; `lint --explain` lists them")));
            }
        }
    }
    print!("{out}");
    Ok(ExitCode::Correct)
}
