//! `cargo accuracy dtypes`: the number formats, every code of one, and which architecture decodes what.
//!
//! The formats themselves are [`accuracy_core::dtype`]; here they are only shown.

mod json;
mod text;

use crate::exit::{ExitCode, usage};
use crate::output::{Color, OutputArgs, TextOrJson, width};
use accuracy_core::dtype::DType;
use std::io::Write as _;

/// Flags of `cargo accuracy dtypes`.
#[derive(Clone, Debug, clap::Args)]
pub struct DtypesArgs {
    /// The format of which every code is listed, such as e4m3fnuz
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: TextOrJson,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

pub fn command(args: DtypesArgs) -> anyhow::Result<ExitCode> {
    OutputArgs { color: args.color, ..OutputArgs::default() }.apply_color();
    let dtype = match &args.name {
        Some(name) => Some(name.parse::<DType>().map_err(|e| usage(e.to_string()))?),
        None => None,
    };
    let text = match (args.format, dtype) {
        (TextOrJson::Json, Some(dtype)) => json::one(dtype)?,
        (TextOrJson::Json, None) => json::all()?,
        (TextOrJson::Text, Some(dtype)) => text::one(dtype, width(false)),
        (TextOrJson::Text, None) => text::all(width(false)),
    };
    let mut stdout = crate::screen::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(ExitCode::Correct)
}

/// Formats of more bits have too many codes to list.
const MOST_LISTED_BITS: u32 = 16;

/// Of every code, in their order, the value; `None` where there are too many.
fn values(dtype: DType) -> Option<Vec<f64>> {
    (dtype.bits() <= MOST_LISTED_BITS).then(|| (0..1 << dtype.bits()).map(|c| dtype.decode(c)).collect())
}
