//! What a person reads: the answer, the questions that led to it, and the layers as a table with a bar each.

use super::findings::{Findings, OpFinding, OpStatus, Status, Verdict};
use super::profile::{Agreement, LayerProfile};
use super::replay::Outcome;
use crate::report::style::{self, paint};
use crate::report::text::table::{Cell, Column, Table};
use crate::report::text::wrap::wrap;
use std::fmt::Write as _;

/// Width of a layer's bar: two characters a decade, from 1e-8 to 1.
const BAR: usize = 16;
/// Operations that are listed where not all are asked for.
const LISTED: usize = 8;

pub fn render(f: &Findings, verbose: bool, quiet: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    if !quiet {
        for step in &f.steps {
            let (word, style) = match step.status {
                Status::Ok => ("ok", style::GOOD),
                Status::Fault => ("FAULT", style::BAD),
                Status::Inconclusive => ("INCONCLUSIVE", style::WARN),
                Status::Skipped => ("skipped", style::DIM),
            };
            let _ = writeln!(
                text,
                "{}  {}",
                paint(style::BOLD, format!("{:<22}", step.question)),
                paint(style, word)
            );
            for line in &step.evidence {
                wrap(&mut text, line, 2, width);
            }
            if let Some(next) = &step.next {
                wrap(&mut text, &format!("next: {next}"), 2, width);
            }
        }
        layers(&mut text, f, width);
        ops(&mut text, f, verbose, width);
    }
    conclusion(&mut text, f, width);
    text
}

fn layers(text: &mut String, f: &Findings, width: Option<usize>) {
    let shown: Vec<&LayerProfile> =
        f.layers.iter().filter(|l| l.worst().is_some() || l.after.is_some()).collect();
    if shown.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", paint(style::BOLD, "layers, candidate against reference"));
    let bad = |l: &LayerProfile| f.bad_layers.contains(&l.layer);
    let cell =
        |l: &LayerProfile, text: String| Cell { text, style: if bad(l) { style::BAD } else { style::PLAIN } };
    let cos = |a: Option<&Agreement>| a.map_or("-".to_owned(), |a| number(a.cos, 6));
    let mut table = Table::default();
    let mut column = |column: Column, write: &dyn Fn(&LayerProfile) -> String| {
        table.push(column, shown.iter().map(|l| cell(l, write(l))));
    };
    column(Column::right("layer"), &|l| l.layer.to_string());
    column(Column::right("stream cos").dropped(2), &|l| cos(l.after.as_ref()));
    column(Column::right("adds cos"), &|l| cos(l.branch.as_ref()));
    column(Column::right("attention").dropped(3), &|l| cos(l.attention.as_ref()));
    column(Column::right("mlp").dropped(3), &|l| cos(l.mlp.as_ref()));
    column(Column::right("gain").dropped(1), &|l| l.worst().map_or("-".to_owned(), |a| number(a.gain, 4)));
    column(Column::right("worst token").dropped(4), &|l| {
        let a = l.worst();
        let row = a.and_then(|a| a.row_min_index).map_or(String::new(), |r| format!(" ({r})"));
        a.map_or("-".to_owned(), |a| number(a.cos_row_min, 4)) + &row
    });
    column(Column::left("error, 1e-8 to 1"), &|l| bar(l.worst()));
    *text += &table.render(width);
}

/// Longer for a larger relative error, on a logarithmic scale.
fn bar(a: Option<&Agreement>) -> String {
    let Some(a) = a else { return String::new() };
    let error = a.rel_l2.unwrap_or(f64::INFINITY);
    if error == 0.0 {
        return "=".to_owned();
    }
    let length = ((error.log10() + 8.0) / 8.0 * BAR as f64).clamp(1.0, BAR as f64);
    "#".repeat(length as usize)
}

fn number(x: Option<f64>, digits: usize) -> String {
    x.map_or("-".to_owned(), |x| format!("{x:.digits$}"))
}

fn ops(text: &mut String, f: &Findings, verbose: bool, width: Option<usize>) {
    let listed: Vec<&OpFinding> = f
        .ops
        .iter()
        .filter(|o| verbose || !matches!(o.status, OpStatus::Right | OpStatus::NotReplayed))
        .collect();
    if listed.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", paint(style::BOLD, "operations, each dump against its replay in float64"));
    let count = if verbose { listed.len() } else { LISTED.min(listed.len()) };
    let (shown, rest) = listed.split_at(count);
    let style_of = |o: &OpFinding| match o.status {
        OpStatus::Right => style::PLAIN,
        OpStatus::CandidateWrong => style::BAD,
        OpStatus::ReferenceWrong | OpStatus::BothWrong => style::WARN,
        OpStatus::NotReplayed => style::DIM,
    };
    let mut table = Table::default();
    let mut column = |column: Column, write: &dyn Fn(&OpFinding) -> String| {
        table.push(column, shown.iter().map(|o| Cell { text: write(o), style: style_of(o) }));
    };
    column(Column::right("layer"), &|o| o.layer.map_or("-".to_owned(), |l| l.to_string()));
    column(Column::left("operation").shrinkable(), &|o| o.name.clone());
    column(Column::right("reference"), &|o| error(&o.reference));
    column(Column::right("candidate"), &|o| error(&o.candidate));
    column(Column::right("bound").dropped(1), &|o| match &o.candidate {
        Outcome::Judged(j) => format!("{:.1e}", j.bound),
        _ => "-".to_owned(),
    });
    column(Column::left("wrong"), &|o| {
        match o.status {
            OpStatus::Right => "",
            OpStatus::CandidateWrong => "candidate",
            OpStatus::ReferenceWrong => "reference",
            OpStatus::BothWrong => "both, or our reading",
            OpStatus::NotReplayed => "not replayed",
        }
        .to_owned()
    });
    *text += &table.render(width);
    if !rest.is_empty() {
        let _ = writeln!(text, "  and {} more (-v)", rest.len());
    }
}

fn error(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Judged(j) => format!("{:.1e}", j.error),
        Outcome::Missing(_) | Outcome::NoCache | Outcome::Unusable(_) => "-".to_owned(),
    }
}

fn conclusion(text: &mut String, f: &Findings, width: Option<usize>) {
    if !text.is_empty() {
        text.push('\n');
    }
    let (word, style) = match f.verdict {
        Verdict::Agrees => ("no fault found", style::GOOD),
        Verdict::Fault => ("FAULT", style::BAD),
        Verdict::Inconclusive => ("INCONCLUSIVE", style::WARN),
        Verdict::NothingInCommon => ("NOTHING IN COMMON", style::WARN),
    };
    let place = f.guilty.as_ref().map(|g| {
        let layer = g.layer.map_or("outside the layers".to_owned(), |l| format!("layer {l}"));
        let step = f.at.map_or(String::new(), |step| format!("step {step}, "));
        format!(": {step}{layer}, {}", g.op)
    });
    let _ = writeln!(text, "{}{}", paint(style, word), place.unwrap_or_default());
    if let Some(guilty) = &f.guilty {
        for part in &guilty.evidence {
            wrap(text, part, 2, width);
        }
    }
    if f.bad_layers.len() > 1 {
        let list: Vec<String> = f.bad_layers.iter().take(16).map(usize::to_string).collect();
        let more = if f.bad_layers.len() > 16 { ", .." } else { "" };
        wrap(text, &format!("bad layers: {}{more}", list.join(", ")), 2, width);
    }
    match f.systematic {
        Some(true) => {
            wrap(text, "systematic: the same operation is wrong in every layer that was replayed", 2, width)
        }
        Some(false) => wrap(text, "specific: the same operation is right in other layers", 2, width),
        None => {}
    }
    if let Some([first, last, predicted]) = f.compounding {
        let line = format!(
            "the stream is off by {first:.1e} after the first bad layer, {last:.1e} after the last; what the bad layers \
             introduce adds up to about {predicted:.1e}"
        );
        wrap(text, &line, 2, width);
    }
}
