//! `cargo accuracy lint`.
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Files and folders to lint.
    pub paths: Vec<PathBuf>,
    #[arg(long, value_name = "FORMAT=PATH")]
    pub report: Vec<String>,
}

pub fn command(args: LintArgs) -> anyhow::Result<ExitCode> {
    let paths = if args.paths.is_empty() { vec![PathBuf::from(".")] } else { args.paths };
    let t = std::time::Instant::now();
    let report = super::run(&paths, &super::LintConfig::default())?;
    eprintln!("{} files {} functions {} findings {:?} problems {}", report.files, report.functions, report.findings.len(), t.elapsed(), report.problems.len());
    for p in report.problems.iter().take(10) { eprintln!("{p:?}"); }
    for r in &args.report {
        if let Some(p) = r.strip_prefix("json=") { std::fs::write(p, serde_json::to_string(&report)?)?; }
    }
    Ok(ExitCode::SUCCESS)
}
