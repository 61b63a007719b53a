//! `--report json=PATH`, schema 1. A number that does not exist is `null`.

use super::model::{Report, Summary, TestPower};
use crate::baseline::Comparison;
use crate::lint::Finding;
use accuracy_core::record::Record;
use serde::Serialize;

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    arch: String,
    device: String,
    min_cos: Option<f64>,
    summary: Summary,
    cases: &'a [Record],
    tests: &'a [TestPower],
    lint: &'a [Finding],
    /// Why the report does not speak of all that it should; empty where it does.
    problems: &'a [String],
    /// `null` where no baseline was compared with.
    baseline: Option<&'a Comparison>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

pub fn render(report: &Report) -> anyhow::Result<String> {
    let document = Document {
        schema: SCHEMA,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        arch: report.archs().join(","),
        device: report.device.clone().unwrap_or_else(|| device(&report.archs())),
        min_cos: report.min_cos,
        summary: report.summary,
        cases: &report.records,
        tests: &report.tests,
        lint: &report.lint,
        problems: &report.problems,
        baseline: report.baseline.as_ref(),
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// What the cases ran on: for `host` the model of the CPU, where the system names it.
fn device(archs: &[&str]) -> String {
    if archs != ["host"] {
        return archs.join(",");
    }
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
    model.unwrap_or(std::env::consts::ARCH).trim().to_string()
}
