//! `--report FORMAT=PATH`: where a machine-readable report goes.

use super::{Report, github, html, json, junit, markdown, sarif};
use crate::screen::{Holds, Screen};
use anyhow::Context as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Junit,
    Markdown,
    Sarif,
    Github,
    Html,
}

const FORMATS: [(&str, Format); 6] = [
    ("json", Format::Json),
    ("junit", Format::Junit),
    ("markdown", Format::Markdown),
    ("sarif", Format::Sarif),
    ("github", Format::Github),
    ("html", Format::Html),
];

/// One `--report`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    pub format: Format,
    /// `None` is standard output.
    pub path: Option<PathBuf>,
}

impl std::str::FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, path) =
            text.split_once('=').ok_or("expected FORMAT=PATH, such as json=accuracy.json")?;
        let format = FORMATS.iter().find(|(name, _)| *name == format).map(|(_, f)| *f).ok_or_else(|| {
            let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
            format!("no report format is called `{format}`; known: {}", known.join(", "))
        })?;
        match path {
            "" => Err("the path is empty; `-` is standard output".into()),
            "-" => Ok(Sink { format, path: None }),
            path => Ok(Sink { format, path: Some(path.into()) }),
        }
    }
}

impl Sink {
    /// What its format holds.
    fn holds(&self) -> Holds {
        match self.format {
            Format::Json | Format::Sarif => Holds::Json,
            Format::Junit | Format::Markdown | Format::Html => Holds::Markup,
            Format::Github => Holds::Commands,
        }
    }

    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        self.stream(|out| {
            let text = match self.format {
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

    /// An error where a command does not write this format.
    pub fn expect(&self, command: &str, formats: &[Format]) -> anyhow::Result<()> {
        if formats.contains(&self.format) {
            return Ok(());
        }
        let name = |format: Format| FORMATS.iter().find(|(_, f)| *f == format).map_or("", |(name, _)| name);
        let known: Vec<&str> = formats.iter().map(|f| name(*f)).collect();
        let (format, known) = (name(self.format), known.join(" and "));
        Err(crate::exit::usage(format!("--report {format}=...: `{command}` writes {known}")))
    }

    /// Writes what a command other than a run has rendered for this sink's format.
    pub fn write_text(&self, text: &str) -> anyhow::Result<()> {
        self.stream(|out| Ok(out.write_all(text.as_bytes())?))
    }

    fn stream(&self, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            let mut stdout = Screen::new(BufWriter::new(std::io::stdout().lock()), self.holds());
            write(&mut stdout)?;
            return Ok(stdout.flush()?);
        };
        let to_file = || {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            let file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
            let mut file = Screen::new(file, self.holds());
            write(&mut file)?;
            Ok(file.flush()?)
        };
        let written: anyhow::Result<()> = to_file();
        written
            .inspect_err(|_| {
                // On a full disk: half of a report could be taken for a report.
                if path.is_file() {
                    let _ = std::fs::remove_file(path);
                }
            })
            .with_context(|| format!("cannot write the report {}", path.display()))
    }
}
