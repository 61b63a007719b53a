//! Formats, architectures and codes as tables.

use super::values;
use crate::report::style::{self, paint};
use crate::report::text::table::{Cell, Column, Table};
use crate::report::text::wrap::wrap;
use accuracy_core::arch::Arch;
use accuracy_core::dtype::DType;
use std::fmt::Write as _;

/// Codes are listed in rows of so many, or fewer powers of two where there is no room.
const CODES_A_ROW: usize = 16;

pub fn all(width: Option<usize>) -> String {
    let formats = DType::ALL;
    let cells = |write: &dyn Fn(DType) -> String| -> Vec<Cell> {
        formats.iter().map(|&d| Cell::plain(write(d))).collect()
    };
    let mut table = Table::default();
    table.push(Column::left("format"), cells(&|d| d.name().to_owned()));
    table.push(Column::right("bits"), cells(&|d| d.bits().to_string()));
    table.push(Column::right("lowest").dropped(2), cells(&|d| number(d.min())));
    table.push(Column::right("largest"), cells(&|d| number(d.max())));
    table.push(Column::right("smallest > 0").dropped(1), cells(&|d| number(d.min_positive())));
    table.push(Column::left("NaN"), cells(&nan));
    table.push(Column::left("infinities").dropped(3), cells(&infinities));
    let mut text = table.render(width);

    let small: Vec<DType> = formats.iter().copied().filter(|&d| d.is_float() && d.bits() <= 8).collect();
    let mut table = Table::default();
    let archs = Arch::ALL.iter().filter(|&&a| a != Arch::Host);
    table.push(Column::left("decodes"), archs.clone().map(|a| Cell::plain(a.name())));
    for dtype in small {
        let cell = |arch: &Arch| if arch.native(dtype) { "yes" } else { "-" };
        table.push(Column::left(dtype.name()), archs.clone().map(|a| Cell::plain(cell(a))));
    }
    text.push('\n');
    text += &table.render(width);
    text.push('\n');
    let note = "Floats of 16 and 32 bits and integers are native everywhere. What an architecture does not decode, its \
                kernels emulate, or an engine converts when it loads (e4m3fn to e4m3fnuz on gfx942).";
    wrap(&mut text, note, 2, width);
    text
}

pub fn one(dtype: DType, width: Option<usize>) -> String {
    let mut text = paint(style::BOLD, dtype.name());
    let _ = writeln!(text, "  {} bits", dtype.bits());
    let native: Vec<&str> = Arch::ALL.iter().filter(|a| a.native(dtype)).map(|a| a.name()).collect();
    for (what, value) in [
        ("lowest", number(dtype.min())),
        ("largest", number(dtype.max())),
        ("smallest > 0", number(dtype.min_positive())),
        ("NaN", nan(dtype)),
        ("infinities", infinities(dtype)),
        ("decoded by", native.join(" ")),
    ] {
        let _ = writeln!(text, "  {}  {value}", paint(style::DIM, format!("{what:12}")));
    }
    match values(dtype).filter(|v| v.len() <= 256) {
        Some(values) => {
            text.push('\n');
            text += &codes(&values, width);
        }
        None if dtype.bits() <= super::MOST_LISTED_BITS => {
            let _ = writeln!(text, "\n  --format json lists its {} codes", 1 << dtype.bits());
        }
        None => {}
    }
    text
}

fn codes(values: &[f64], width: Option<usize>) -> String {
    let shown: Vec<String> = values.iter().map(|&v| number(v)).collect();
    let widest = shown.iter().map(String::len).max().unwrap_or(0) + 2;
    let mut columns = CODES_A_ROW.min(values.len());
    while columns > 1 && width.is_some_and(|w| 6 + columns * widest > w) {
        columns /= 2;
    }
    let mut table = Table::default();
    let starts = (0..values.len()).step_by(columns);
    table.push(Column::left("code"), starts.map(|i| Cell { text: format!("{i:#04x}"), style: style::DIM }));
    for column in 0..columns {
        let cells = shown.iter().skip(column).step_by(columns).map(|v| Cell::plain(v.as_str()));
        table.push(Column::right(&format!("+{column:x}")), cells);
    }
    table.render(width)
}

/// A value in at most some twelve characters: as a power of two where it is a small or large one, rounded where it
/// has more digits. `--format json` rounds nothing.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        return if value.is_nan() { "NaN".into() } else { format!("{value}") };
    }
    if magnitude == 0.0 || (1e-3..1e5).contains(&magnitude) {
        return format!("{value}");
    }
    let power = magnitude.to_bits() << 12 == 0 && magnitude.is_normal();
    match (power, value < 0.0) {
        (true, false) => format!("2^{}", magnitude.log2()),
        (true, true) => format!("-2^{}", magnitude.log2()),
        (false, _) if shortest(value).len() <= 12 => shortest(value),
        (false, _) => format!("{value:.6e}"),
    }
}

fn shortest(value: f64) -> String {
    let (plain, exponent) = (format!("{value}"), format!("{value:e}"));
    if plain.len() <= exponent.len() { plain } else { exponent }
}

fn nan(dtype: DType) -> String {
    let runs: Vec<String> = dtype
        .nan_codes()
        .iter()
        .map(|r| {
            if r.start() == r.end() {
                hex(*r.start())
            } else {
                format!("{}..{}", hex(*r.start()), hex(*r.end()))
            }
        })
        .collect();
    if runs.is_empty() { "-".into() } else { runs.join(" ") }
}

fn infinities(dtype: DType) -> String {
    dtype.infinity_codes().map_or_else(|| "-".into(), |codes| codes.map(hex).join(" "))
}

fn hex(code: u32) -> String {
    format!("{code:#x}")
}
