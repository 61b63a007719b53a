//! `--format json`. NaN is `null`, infinities are the strings `"inf"` and `"-inf"`, negative zero is `-0.0`.

use super::values;
use accuracy_core::arch::Arch;
use accuracy_core::dtype::DType;
use serde::Serialize;
use serde_json::{Map, Value, json};

#[derive(Serialize)]
struct Format {
    name: &'static str,
    bits: u32,
    max: f64,
    min: f64,
    min_positive: f64,
    /// First and last code of each run of NaN.
    nan_codes: Vec<[u32; 2]>,
    infinity_codes: Option<[u32; 2]>,
}

#[derive(Serialize)]
struct FormatWithCodes {
    #[serde(flatten)]
    format: Format,
    /// `null` for formats of 32 bits, which have too many.
    codes: Option<Vec<Value>>,
}

#[derive(Serialize)]
struct All {
    formats: Vec<Format>,
    architectures: Map<String, Value>,
}

pub fn one(dtype: DType) -> anyhow::Result<String> {
    let codes = values(dtype).map(|values| values.into_iter().map(number).collect());
    line(&FormatWithCodes { format: format(dtype), codes })
}

pub fn all() -> anyhow::Result<String> {
    let native = |arch: Arch| -> Vec<&str> {
        DType::ALL.iter().filter(|&&d| arch.native(d)).map(|d| d.name()).collect()
    };
    let architectures = Arch::ALL.iter().map(|&arch| (arch.name().to_owned(), json!(native(arch)))).collect();
    line(&All { formats: DType::ALL.iter().map(|&d| format(d)).collect(), architectures })
}

fn format(dtype: DType) -> Format {
    Format {
        name: dtype.name(),
        bits: dtype.bits(),
        max: dtype.max(),
        min: dtype.min(),
        min_positive: dtype.min_positive(),
        nan_codes: dtype.nan_codes().iter().map(|r| [*r.start(), *r.end()]).collect(),
        infinity_codes: dtype.infinity_codes(),
    }
}

fn number(value: f64) -> Value {
    match value {
        f64::INFINITY => json!("inf"),
        f64::NEG_INFINITY => json!("-inf"),
        // serde_json writes NaN as null.
        value => json!(value),
    }
}

fn line(value: &impl Serialize) -> anyhow::Result<String> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(text)
}
