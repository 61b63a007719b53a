//! `--report json=PATH`, as [`SCHEMA`] says. A number that does not exist is `null`. A line is a case: of tens of thousands
//! none but the one that is written is held as text.

use super::model::{Report, Summary, TestPower};
use crate::baseline::compare::Comparison;
use crate::lint::Finding;
use crate::run::hidden::Hidden;
use crate::run::loosened::Loosening;
use accuracy_core::record::{Fidelity, Library};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;

/// The JSON Schema of the report.
pub const SCHEMA: &str = include_str!("../../report.schema.json");
const VERSION: u32 = 1;

/// Everything but the cases.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    arch: String,
    device: String,
    /// Whether an emulator ran cases in place of a device.
    emulated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fidelity: Option<&'a Fidelity>,
    min_cos: Option<f64>,
    /// What makes the gate looser than it is by itself; empty where nothing does.
    loosened: &'a BTreeSet<Loosening>,
    /// The files of kernels that were judged, by binding.
    libraries: &'a BTreeSet<Library>,
    /// Tests that the sources declare and that could not run.
    hidden: &'a [Hidden],
    summary: Summary,
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

pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let document = Document {
        schema: VERSION,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        arch: report.archs().join(","),
        device: report.device.clone().unwrap_or_else(|| device(&report.archs())),
        emulated: report.emulated.is_some(),
        fidelity: report.emulated.as_ref(),
        min_cos: report.min_cos,
        loosened: &report.loosened,
        libraries: &report.libraries,
        hidden: &report.hidden,
        summary: report.summary,
        tests: &report.tests,
        lint: &report.lint,
        problems: &report.problems,
        baseline: report.baseline.as_ref(),
    };
    let head = serde_json::to_string(&document)?;
    out.write_all(head.strip_suffix('}').unwrap_or(&head).as_bytes())?;
    out.write_all(b",\"cases\":[")?;
    let mut line = Vec::new();
    for (i, record) in report.records.iter().enumerate() {
        line.clear();
        line.extend_from_slice(if i > 0 { b",\n" } else { b"\n" });
        serde_json::to_writer(&mut line, record)?;
        out.write_all(&line)?;
    }
    out.write_all(b"\n]}\n")?;
    Ok(())
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
