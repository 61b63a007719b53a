//! `--report FORMAT=PATH`: where a machine-readable report goes.

use super::{Report, json};
use anyhow::Context as _;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
}

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
        let format = match format {
            "json" => Format::Json,
            other => return Err(format!("no report format is called `{other}`; known: json")),
        };
        match path {
            "" => Err("the path is empty; `-` is standard output".into()),
            "-" => Ok(Sink { format, path: None }),
            path => Ok(Sink { format, path: Some(path.into()) }),
        }
    }
}

impl Sink {
    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Json => json::render(report)?,
        };
        self.write_text(&text)
    }

    /// Writes what a command other than a run has rendered for this sink's format.
    pub fn write_text(&self, text: &str) -> anyhow::Result<()> {
        match &self.path {
            None => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Some(path) => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                parent
                    .map_or(Ok(()), std::fs::create_dir_all)
                    .and_then(|()| std::fs::write(path, text))
                    .with_context(|| format!("cannot write the report {}", path.display()))?;
            }
        }
        Ok(())
    }
}
