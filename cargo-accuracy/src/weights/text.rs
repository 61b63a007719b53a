//! What a person reads: weights that are alike in one line, totals, and the findings.

use super::survey::{Finding, Kind, Severity, Survey, Weight, What, codes, describe, place};
use crate::report::style::{self, paint};
use crate::report::text::number::{counted, thousands};
use crate::report::text::table::{Cell, Column, Table};
use crate::report::text::wrap::wrap;
use accuracy_core::weights::WeightInfo;
use anstyle::Style;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Findings of one kind that are told, unless all are wanted.
const TOLD: usize = 3;

/// What weights of one kind come to.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    pub kind: Kind,
    pub weights: usize,
    pub parameters: u64,
    pub code_bytes: u64,
    pub scale_bytes: u64,
}

/// By kind, in the order in which kinds come up.
pub fn totals(weights: &[Weight]) -> Vec<Total> {
    let mut totals: Vec<Total> = Vec::new();
    let mut at: HashMap<Kind, usize> = HashMap::new();
    for weight in weights {
        let kind = Kind::of(&weight.info);
        let i = *at.entry(kind).or_insert_with(|| {
            totals.push(Total { kind, weights: 0, parameters: 0, code_bytes: 0, scale_bytes: 0 });
            totals.len() - 1
        });
        totals[i].weights += 1;
        totals[i].parameters += weight.parameters();
        totals[i].code_bytes += weight.code_bytes;
        totals[i].scale_bytes += weight.scale_bytes;
    }
    totals
}

pub fn render(survey: &Survey, verbose: bool, width: Option<usize>) -> String {
    let mut text = paint(style::BOLD, &survey.checkpoint);
    text.push('\n');
    let says = match (&survey.claims[..], survey.unconfigured) {
        ([], true) => "no config.json".to_owned(),
        ([], false) => "no quantisation in its configuration".to_owned(),
        (claims, _) => claims.join("; "),
    };
    wrap(&mut text, &says, 2, width);
    let _ = writeln!(
        text,
        "  {}, {}, {}\n",
        counted(survey.files, "file"),
        counted(survey.tensors, "tensor"),
        size(survey.file_bytes)
    );
    if !survey.weights.is_empty() {
        text += &weights(&survey.weights, verbose).render(width);
        text.push('\n');
    }
    text += &sums(survey).render(width);
    findings(&mut text, &survey.findings, verbose, width);
    summary(&mut text, survey);
    text
}

/// Weights that differ in the numbers of layer and expert only.
struct Group<'a> {
    first: &'a WeightInfo,
    count: usize,
    bytes: u64,
}

fn weights(weights: &[Weight], each: bool) -> Table {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = HashMap::new();
    for weight in weights {
        let info = &weight.info;
        let name = if each { info.name.clone() } else { place(&info.name) };
        let key = (name, Kind::of(info), info.rows, info.cols, info.experts, companions(info));
        let i = *at.entry(key).or_insert_with(|| {
            groups.push(Group { first: info, count: 0, bytes: 0 });
            groups.len() - 1
        });
        groups[i].count += 1;
        groups[i].bytes += weight.code_bytes + weight.scale_bytes;
    }
    let cells = |write: &dyn Fn(&Group) -> String| -> Vec<Cell> {
        groups.iter().map(|g| Cell::plain(write(g))).collect()
    };
    let name = |g: &Group| if g.count > 1 { place(&g.first.name) } else { g.first.name.clone() };
    let shape = |g: &Group| match g.first.experts {
        Some(experts) => format!("{experts} x [{}, {}]", g.first.rows, g.first.cols),
        None => format!("[{}, {}]", g.first.rows, g.first.cols),
    };
    let scales = |g: &Group| match g.first.scale_dtype {
        Some(dtype) => format!("{dtype} {}", g.first.granularity),
        None => "-".to_owned(),
    };
    let mut table = Table::default();
    table.push(Column::left("weight").shrinkable(), cells(&name));
    if groups.iter().any(|g| g.count > 1) {
        table.push(Column::right("n"), cells(&|g| g.count.to_string()));
    }
    table.push(Column::left("shape"), cells(&shape));
    table.push(Column::left("scheme"), cells(&|g| codes(Kind::of(g.first))));
    table.push(Column::left("scales"), cells(&scales));
    let mut unless_empty = |column: Column, write: &dyn Fn(&Group) -> String| {
        if groups.iter().any(|g| !write(g).is_empty()) {
            let or_dash =
                |g: &Group| Some(write(g)).filter(|text| !text.is_empty()).unwrap_or("-".to_owned());
            table.push(column, cells(&or_dash));
        }
    };
    if each {
        unless_empty(Column::left("read with").dropped(2), &|g| companions(g.first));
    }
    unless_empty(Column::left("parts").dropped(3), &|g| g.first.parts.join(" "));
    table.push(Column::right("bytes").dropped(1), cells(&|g| size(g.bytes)));
    table
}

/// What a weight is read with beside its codes: the endings of the tensors' names.
fn companions(info: &WeightInfo) -> String {
    let ending = |name: &String| {
        let ending = name.strip_prefix(info.name.as_str()).unwrap_or(name);
        ending.trim_start_matches(['.', '_']).to_owned()
    };
    info.tensors.iter().skip(1).map(ending).collect::<Vec<_>>().join(" ")
}

/// A line of the totals.
struct Sum {
    what: String,
    tensors: usize,
    /// Of weights only.
    parameters: Option<u64>,
    bytes: u64,
    scale_bytes: u64,
}

/// Totals by scheme, of what is no weight, and of everything.
fn sums(survey: &Survey) -> Table {
    let mut rows: Vec<Sum> = totals(&survey.weights)
        .into_iter()
        .map(|t| Sum {
            what: describe(t.kind),
            tensors: t.weights,
            parameters: Some(t.parameters),
            bytes: t.code_bytes + t.scale_bytes,
            scale_bytes: t.scale_bytes,
        })
        .collect();
    for (name, what) in [
        ("scales of activations and KV cache", What::ActivationScale),
        ("of weights that cannot be read", What::Broken),
        ("rotations and other transforms at run time", What::Transform),
        ("norms, biases and others", What::Other),
    ] {
        let of: Vec<_> = survey.others.iter().filter(|o| o.what == what).collect();
        if !of.is_empty() {
            let bytes = of.iter().map(|o| o.bytes).sum();
            let what = name.to_owned();
            rows.push(Sum { what, tensors: of.len(), parameters: None, bytes, scale_bytes: 0 });
        }
    }
    rows.push(Sum {
        what: "all".to_owned(),
        tensors: rows.iter().map(|r| r.tensors).sum(),
        parameters: Some(rows.iter().filter_map(|r| r.parameters).sum()),
        bytes: rows.iter().map(|r| r.bytes).sum(),
        scale_bytes: rows.iter().map(|r| r.scale_bytes).sum(),
    });
    let cells = |write: &dyn Fn(&Sum) -> String| -> Vec<Cell> {
        rows.iter().map(|r| Cell::plain(write(r))).collect()
    };
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), thousands);
    let mut table = Table::default();
    table.push(Column::left("scheme").shrinkable(), cells(&|r| r.what.clone()));
    table.push(Column::right("n"), cells(&|r| thousands(r.tensors as u64)));
    table.push(Column::right("parameters").dropped(2), cells(&|r| or_dash(r.parameters)));
    table.push(Column::right("bytes"), cells(&|r| thousands(r.bytes)));
    let scales = cells(&|r| or_dash(Some(r.scale_bytes).filter(|&b| b > 0)));
    table.push(Column::right("of that scales").dropped(1), scales);
    table
}

fn findings(text: &mut String, findings: &[Finding], all: bool, width: Option<usize>) {
    let mut kinds: Vec<(Severity, &str)> = Vec::new();
    for finding in findings {
        if !kinds.contains(&(finding.severity, finding.kind)) {
            kinds.push((finding.severity, finding.kind));
        }
    }
    kinds.sort_by_key(|(severity, _)| *severity);
    for (severity, kind) in kinds {
        let of: Vec<&Finding> =
            findings.iter().filter(|f| (f.severity, f.kind) == (severity, kind)).collect();
        let style = severity_style(severity);
        let _ = writeln!(text, "\n{} ({})", paint(style, kind.replace('_', " ")), of.len());
        let told = if all { of.len() } else { TOLD };
        for finding in of.iter().take(told) {
            wrap(text, &finding.message, 2, width);
        }
        if of.len() > told {
            let _ = writeln!(text, "  ... and {} more; -v tells all", of.len() - told);
        }
    }
}

fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Error => style::BAD,
        Severity::Warning => style::WARN,
    }
}

fn summary(text: &mut String, survey: &Survey) {
    let errors = survey.errors();
    let warnings = survey.findings.len() - errors;
    text.push('\n');
    if survey.unseen > 0 {
        let _ =
            writeln!(text, "{} not looked at: their file cannot be used", counted(survey.unseen, "tensor"));
    }
    let bad = if errors == 0 { style::GOOD } else { style::BAD };
    let odd = if warnings == 0 { style::PLAIN } else { style::WARN };
    let errors = paint(bad, format!("{errors} missing or contradictory"));
    let warnings = paint(odd, format!("{warnings} odd"));
    let unread = if survey.scanned { "" } else { "; values unread (--scan)" };
    let _ = writeln!(text, "{}, {errors}, {warnings}{unread}", counted(survey.weights.len(), "weight"));
}

/// `1.5 KiB`
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!([1023, 1536, 3 << 30, 5 << 40].map(size), ["1023 B", "1.5 KiB", "3.0 GiB", "5.0 TiB"]);
    }
}
