//! `cargo accuracy weights`: what a checkpoint holds, and what is missing, contradictory or odd in it.
//!
//! [`survey`] looks at headers, [`model`] at what should be there, [`scan`] at values; [`text`] and [`json`] write. How a weight is read is [`accuracy_core::weights`].

mod json;
mod model;
mod scan;
mod survey;
mod text;

use crate::exit::{ExitCode, usage};
use crate::output::{Color, OutputArgs, TextOrJson, width};
use accuracy_core::arch::Arch;
use accuracy_core::weights::{Checkpoint, WeightsError};
use std::io::Write as _;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy weights shards/tiny         a folder, an index or one file
  cargo accuracy weights org/name@main       in the Hugging Face cache
  cargo accuracy weights DIR --scan          values too: NaN codes, odd scales
  cargo accuracy weights DIR --arch gfx942   whether gfx942 can read them

Exit status: 0 nothing is missing or contradictory; 100 something is; 101 a file cannot be read; 2 wrong usage.";

/// Flags of `cargo accuracy weights`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct WeightsArgs {
    /// A .safetensors or .gguf file, an index, a folder with such files, or org/name or org/name@revision in the Hugging
    /// Face cache
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: String,
    /// Also read every value, not only the headers, and report NaN codes and scales that are zero, negative, not finite,
    /// constant, or not a power of two although the configuration says ue8m0
    #[arg(long)]
    pub scan: bool,
    /// Also check that kernels of this architecture can read each weight, after the conversion that engines do on loading
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Arch>,
    /// List every weight and every finding, instead of one line for each group that is alike
    #[arg(short, long)]
    pub verbose: bool,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextOrJson,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

pub fn command(args: WeightsArgs) -> anyhow::Result<ExitCode> {
    OutputArgs { color: args.color, ..OutputArgs::default() }.apply_color();
    let checkpoint = Checkpoint::open_named(&args.checkpoint).map_err(|e| match e {
        WeightsError::NotARepository { .. } => usage(e.to_string()),
        e => e.into(),
    })?;
    let mut survey = survey::look(&checkpoint);
    model::check(&checkpoint, &mut survey);
    if args.scan {
        scan::values(&checkpoint, &mut survey);
    }
    if let Some(arch) = args.arch {
        scan::conversions(&checkpoint, &mut survey, arch, args.scan);
    }
    let mut stdout = crate::screen::stdout();
    match args.format {
        TextOrJson::Json => json::write(&mut stdout, &survey)?,
        TextOrJson::Text => stdout.write_all(text::render(&survey, args.verbose, width(false)).as_bytes())?,
    }
    stdout.flush()?;
    Ok(if survey.unreadable() {
        ExitCode::Unfinished
    } else if survey.errors() > 0 {
        ExitCode::Failed
    } else {
        ExitCode::Correct
    })
}
