//! Renders a run's report for each `--report FORMAT=PATH`.

use super::{Report, github, html, json, junit, markdown, sarif};
use crate::output::{Format, Sink};

/// Renders a report in the sink's format and writes it there.
///
/// # Errors
/// If the sink cannot be written.
pub fn write(sink: &Sink, report: &Report) -> anyhow::Result<()> {
    sink.stream(|out| {
        let text = match sink.format {
            Format::Json => return json::render(report, out),
            Format::Junit => return junit::render(report, out),
            Format::Html => return html::render(report, out),
            Format::Markdown => markdown::render(report),
            Format::Sarif => sarif::render(report)?,
            Format::Github => github::render(report),
        };
        Ok(out.write_all(text.as_bytes())?)
    })
}
