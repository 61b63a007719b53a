//! What a person reads: a table of tensors, what could not be compared, and the sum.

use super::{Outcome, Row};
use crate::output::OutputArgs;
use crate::report::style::{self, paint};
use crate::report::text::number;
use crate::report::text::table::{Cell, Column, Table};
use accuracy_core::record::Verdict;
use anstyle::Style;
use std::fmt::Write as _;

/// Problems of which the first few are told unless all are wanted.
const TOLD: usize = 12;

pub fn render(outcome: &Outcome, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    for (side, set) in [("A", &outcome.reference), ("B", &outcome.candidate)] {
        if !output.quiet {
            let producer = set.producer;
            let _ =
                writeln!(text, "{side}  {} ({producer}, {} tensors)", set.path.display(), set.tensors.len());
        }
        for note in &set.notes {
            let _ = writeln!(text, "   {} {note}", paint(style::NOTE, "note"));
        }
    }
    let shown: Vec<&Row> = outcome.rows.iter().filter(|r| !output.quiet || !r.passes()).collect();
    if !shown.is_empty() {
        text.push('\n');
        text += &table(&shown).render(width);
        details(&mut text, &shown, output.verbose);
    }
    problems(&mut text, outcome, output.verbose);
    let failed = outcome.rows.iter().filter(|r| !r.passes()).count();
    let equal = outcome.rows.iter().filter(|r| r.is_equal()).count();
    let compared = number::counted(outcome.rows.len() as u64, "tensor");
    let _ = write!(text, "\n{compared} compared, {failed} differ, {equal} equal");
    if !outcome.problems.is_empty() {
        let _ = write!(text, "; {} not compared", outcome.problems.len());
    }
    text.push('\n');
    if outcome.rows.is_empty() && outcome.problems.is_empty() && !outcome.filters.is_empty() {
        let _ = writeln!(text, "no tensor's name contains {}", outcome.filters.join(" or "));
    }
    if let (Ok(a), Ok(b)) = (outcome.reference.path.canonicalize(), outcome.candidate.path.canonicalize())
        && a == b
    {
        let _ = writeln!(text, "{} A and B are one and the same", paint(style::WARN, "note"));
    }
    text
}

/// What is wrong with each tensor that differs, where the table has no room for it.
fn details(text: &mut String, rows: &[&Row], all: bool) {
    let differing: Vec<&&Row> = rows.iter().filter(|r| !r.passes() && r.unequal.is_none()).collect();
    let told = if all { differing.len() } else { TOLD };
    if !differing.is_empty() {
        text.push('\n');
    }
    for row in differing.iter().take(told) {
        let c = &row.comparison;
        let mut said = Vec::new();
        if c.nan_unexpected > 0 {
            said.push(format!("{} NaN on one side alone", c.nan_unexpected));
        }
        if c.inf_unexpected > 0 {
            said.push(format!("{} Inf that the other side has not", c.inf_unexpected));
        }
        if c.cos.is_none() && c.nan_unexpected + c.inf_unexpected == 0 {
            said.push("one side is all zero".to_owned());
        }
        if c.zero_rows_wrong > 0 {
            let rows = number::counted(c.zero_rows_wrong, "row");
            let first = c.zero_row_index.map_or(String::new(), |r| format!(", the first is {r}"));
            said.push(format!("{rows} of zeros in A alone{first}"));
        }
        if let (Some(cos), Some(row)) = (c.cos_row_min, c.row_min_index)
            && cos < 1.0
        {
            said.push(format!("worst row {row}, cosine {}", number::cosine(cos)));
        }
        if !said.is_empty() {
            let _ = writeln!(text, "{}: {}", paint(style::BOLD, &row.pair.name), said.join("; "));
        }
    }
    if let Some(more) = differing.len().checked_sub(told).filter(|&n| n > 0) {
        let _ = writeln!(text, "and {more} more, told with -v");
    }
}

fn table(rows: &[&Row]) -> Table {
    let mut table = Table::default();
    let plain =
        |f: &dyn Fn(&Row) -> String| -> Vec<Cell> { rows.iter().map(|r| Cell::plain(f(r))).collect() };
    let element = |r: &Row| {
        let (a, b) = (r.pair.reference.element(), r.pair.candidate.element());
        if a == b { a.to_string() } else { format!("{a}/{b}") }
    };
    table.push(Column::left("tensor").shrinkable(), plain(&|r| r.pair.name.clone()));
    table.push(Column::left("shape").dropped(3), plain(&|r| format!("{:?}", r.pair.reference.shape())));
    table.push(Column::left("dtype").dropped(2), plain(&element));
    let number = |exists: bool, value: Option<f64>, write: fn(f64) -> String| {
        if exists { value.map_or("none".to_owned(), write) } else { "-".to_owned() }
    };
    let real = |r: &Row| r.unequal.is_none();
    let row_cos = |r: &Row| {
        number(real(r) && r.comparison.row_min_index.is_some(), r.comparison.cos_row_min, number::cosine)
    };
    table.push(Column::right("cosine"), plain(&|r| number(real(r), r.comparison.cos, number::cosine)));
    table.push(Column::right("row cos").dropped(4), plain(&row_cos));
    table
        .push(Column::right("gain").dropped(1), plain(&|r| number(real(r), r.comparison.gain, number::gain)));
    table.push(
        Column::right("rel L2").dropped(5),
        plain(&|r| number(real(r), r.comparison.rel_l2, number::small)),
    );
    table.push(Column::left("verdict"), rows.iter().map(|r| verdict(r)).collect::<Vec<_>>());
    table
}

fn verdict(row: &Row) -> Cell {
    let (text, style): (String, Style) = match (row.passes(), row.unequal, row.verdict) {
        (true, ..) if row.is_equal() => ("equal".into(), style::GOOD),
        (true, ..) => (row.verdict.to_string(), style::GOOD),
        (false, Some(n), _) => (format!("{n} DIFFER"), style::BAD),
        // The cosine is right, but something else is not.
        (false, None, Verdict::Correct) => (row.failed().join(", ").to_uppercase(), style::BAD),
        (false, None, Verdict::Suspicious) => ("SUSPICIOUS".into(), style::WARN),
        (false, None, verdict) => (verdict.name().to_uppercase(), style::BAD),
    };
    Cell { text, style }
}

fn problems(text: &mut String, outcome: &Outcome, all: bool) {
    let told = if all { outcome.problems.len() } else { TOLD };
    if !outcome.problems.is_empty() {
        text.push_str("\nnot compared\n");
    }
    for problem in outcome.problems.iter().take(told) {
        let _ = writeln!(text, "  {}: {}", paint(style::WARN, &problem.tensor), problem.message);
    }
    if let Some(more) = outcome.problems.len().checked_sub(told).filter(|&n| n > 0) {
        let _ = writeln!(text, "  and {more} more, told with -v");
    }
}
