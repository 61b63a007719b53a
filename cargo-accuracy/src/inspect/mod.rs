//! `cargo accuracy inspect`: what kernel libraries and code objects hold, without loading or running them.
//!
//! [`text`] is what a person reads, [`errata`] the part about faults of the hardware, [`hazards`] the part about wait states
//! that are missing. The file formats are read by [`accuracy_core::codeobject`], the instructions by
//! [`accuracy_core::emulator::examine`].

mod errata;
mod hazards;
mod place;
mod text;

pub use text::problem;

use crate::exit::ExitCode;
use crate::output::Color;
use crate::screen::{Holds, Screen};
use accuracy_core::codeobject::{self, Contents, Target};
use accuracy_core::emulator::examine::{Examined, examine};
use anyhow::Context as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Flags of `cargo accuracy inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// Kernel libraries (.so), code objects (.hsaco, .co, .cubin) or bundles (.hipfb, .fatbin)
    #[arg(required = true, value_name = "LIB")]
    pub libraries: Vec<PathBuf>,
    /// Fail with status 100 if there is no code for this architecture: host, gfx950, gfx942:sramecc+:xnack-, sm_90, ...
    /// (repeatable; a feature that is not named matches both settings)
    #[arg(long = "arch", value_name = "ARCH", value_parser = parse_arch)]
    pub archs: Vec<Wanted>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Also print every argument with its offset, and the registers and memory that each kernel uses
    #[arg(short, long)]
    pub verbose: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// An array with an object for each file
    Json,
}

/// An architecture that the caller wants code for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The CPU: a library whose launchers need no GPU.
    Host,
    Gpu(Target),
}

fn parse_arch(text: &str) -> Result<Wanted, String> {
    match text {
        "host" => Ok(Wanted::Host),
        gpu => gpu.parse().map(Wanted::Gpu).map_err(|error: codeobject::TargetError| error.to_string()),
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Host => f.write_str("host"),
            Wanted::Gpu(target) => target.fmt(f),
        }
    }
}

impl Wanted {
    fn is_in(&self, contents: &Contents) -> bool {
        match self {
            Wanted::Host => contents.host.is_some() && contents.code_objects.is_empty(),
            Wanted::Gpu(device) => contents.code_objects.iter().any(|c| c.target.runs_on(device)),
        }
    }
}

/// What became of one file.
struct Inspected {
    path: PathBuf,
    outcome: anyhow::Result<Read>,
}

/// What was read of one file.
struct Read {
    contents: Contents,
    /// What its instructions are noteworthy for.
    examined: Examined,
}

impl Inspected {
    fn missing<'a>(&self, wanted: &'a [Wanted]) -> Vec<&'a Wanted> {
        match &self.outcome {
            Ok(read) => wanted.iter().filter(|w| !w.is_in(&read.contents)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

pub fn command(args: InspectArgs) -> anyhow::Result<ExitCode> {
    args.color.apply();
    let inspected: Vec<Inspected> =
        args.libraries.iter().map(|path| Inspected { path: path.clone(), outcome: read(path) }).collect();
    match args.format {
        Format::Text => {
            let width = crate::output::width(false);
            let mut out = crate::screen::stdout();
            for (i, file) in inspected.iter().enumerate() {
                if let Ok(read) = &file.outcome {
                    let gap = if i == 0 { "" } else { "\n" };
                    write!(out, "{gap}{}", text::render(&file.path, &read.contents, args.verbose, width))?;
                    out.write_all(errata::render(&read.examined.errata, args.verbose).as_bytes())?;
                    out.write_all(hazards::render(&read.examined.hazards, args.verbose).as_bytes())?;
                }
            }
            out.flush()?;
        }
        Format::Json => {
            let json = serde_json::to_string_pretty(&json(&inspected, &args.archs)?)?;
            writeln!(Screen::new(std::io::stdout(), Holds::Json), "{json}")?;
        }
    }
    let mut code = ExitCode::Correct;
    for file in &inspected {
        for wanted in file.missing(&args.archs) {
            text::problem(&format!(
                "{} has no code for {wanted}: {}",
                file.path.display(),
                text::holds(file)
            ));
            code = ExitCode::Failed;
        }
    }
    for file in &inspected {
        if let Err(error) = &file.outcome {
            text::problem(&format!("{error:#}"));
            code = ExitCode::Unfinished;
        }
    }
    Ok(code)
}

fn read(path: &Path) -> anyhow::Result<Read> {
    // Anything but a file might have no end.
    let about = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(about.is_file(), "{} is no file", path.display());
    let bytes = accuracy_core::files::read(path, accuracy_core::files::LIBRARY)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let contents = codeobject::read(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let examined = examine(&bytes).with_context(|| format!("cannot read the code in {}", path.display()))?;
    Ok(Read { contents, examined })
}

/// Each file with its path and either `error`, or what is in it, which of the wanted architectures are not, which
/// instructions meet a fault of the hardware and which come too soon.
fn json(inspected: &[Inspected], wanted: &[Wanted]) -> anyhow::Result<serde_json::Value> {
    let file = |file: &Inspected| {
        let mut object = serde_json::json!({ "path": file.path.to_string_lossy() });
        match &file.outcome {
            Ok(Read { contents, examined }) => {
                let missing: Vec<String> = file.missing(wanted).iter().map(|w| w.to_string()).collect();
                object["missing"] = missing.into();
                object["architectures"] = text::architectures(contents).into();
                object["contents"] = serde_json::to_value(contents)?;
                object["errata"] = errata::json(&examined.errata);
                object["hazards"] = hazards::json(&examined.hazards);
            }
            Err(error) => object["error"] = format!("{error:#}").into(),
        }
        Ok(object)
    };
    inspected.iter().map(file).collect()
}
