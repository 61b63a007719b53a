//! The arguments by which commands say how much they print, in which form and where, and the streams that they print to.
//!
//! It knows no command and no report: renderers are in [`crate::report`] and in the folders of the commands.

use crate::screen::{Holds, Screen};
use anyhow::Context as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// For everything that is printed from here on.
    pub fn apply(self) {
        match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// How a command that only answers writes its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TextOrJson {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// How much is printed, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Also print every check with its value, bound and margin, which planted faults were noticed, and skipped cases
    #[arg(short, long)]
    pub verbose: bool,
    /// Print failures and the summary only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
    /// Write a machine-readable report; `-` as PATH is standard output, and the tables then go to standard error
    /// (repeatable; formats: json, junit, markdown, html, sarif, github)
    #[arg(long = "report", value_name = "FORMAT=PATH")]
    pub reports: Vec<Sink>,
}

impl OutputArgs {
    /// Whether a report takes standard output, so that what a person reads goes to standard error.
    pub fn stdout_taken(&self) -> bool {
        self.reports.iter().any(|sink| sink.path.is_none())
    }

    /// An error if a report is asked for in a format that the command does not write.
    pub fn expect_formats(&self, command: &str, formats: &[Format]) -> anyhow::Result<()> {
        self.reports.iter().try_for_each(|sink| sink.expect(command, formats))
    }

    /// An error if a report is asked for in a format that only runs have.
    pub fn expect_json(&self, command: &str) -> anyhow::Result<()> {
        self.expect_formats(command, &[Format::Json])
    }

    /// A usage error if two reports would go to one place, where the later one would take the earlier one's.
    pub fn expect_distinct(&self) -> anyhow::Result<()> {
        for (i, sink) in self.reports.iter().enumerate() {
            if self.reports[..i].iter().any(|earlier| earlier.path == sink.path) {
                let place =
                    sink.path.as_ref().map_or("standard output".into(), |path| path.display().to_string());
                let message = format!("two reports go to {place}: give each --report a path of its own");
                return Err(crate::exit::usage(message));
            }
        }
        Ok(())
    }

    /// Applies `--color` to everything that is printed from here on.
    pub fn apply_color(&self) {
        self.color.apply();
    }
}

/// What can be written after `--report`.
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

    /// Opens the sink, and hands what writes to it to `write`.
    ///
    /// # Errors
    /// If the sink cannot be written.
    pub fn stream(&self, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            let mut stdout = Screen::new(BufWriter::new(std::io::stdout().lock()), self.holds());
            write(&mut stdout)?;
            return Ok(stdout.flush()?);
        };
        if accuracy_core::files::was_read(path) {
            anyhow::bail!(
                "cannot write the report {}: this command has read that file, which the report would replace; name \
                 another path",
                path.display()
            );
        }
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

/// Width to fit tables into; `None` where nobody's terminal is to be spared.
pub fn width(stderr: bool) -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c > 0) {
        return Some(columns);
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = if stderr { libc::STDERR_FILENO } else { libc::STDOUT_FILENO };
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` is one.
    let known = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) } == 0;
    (known && size.ws_col > 0).then_some(size.ws_col.into())
}

/// Prints plain lines to wherever what a person reads goes.
pub fn write_lines<'a>(output: &OutputArgs, lines: impl Iterator<Item = &'a String>) -> anyhow::Result<()> {
    let mut text = String::new();
    for line in lines {
        text += line;
        text.push('\n');
    }
    if output.stdout_taken() {
        crate::screen::stderr().write_all(text.as_bytes())?;
    } else {
        crate::screen::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}
