//! `--report json=PATH`, schema 1. A number that does not exist is `null`.

use super::pairs::Problem;
use super::{Outcome, Row};
use accuracy_core::dumps::{DumpSet, TensorId};
use accuracy_core::record::Gate;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    reference: Side<'a>,
    candidate: Side<'a>,
    min_cos: f64,
    summary: Summary,
    tensors: Vec<Entry<'a>>,
    problems: &'a [Problem],
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Side<'a> {
    path: String,
    producer: &'static str,
    tensors: usize,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Summary {
    compared: usize,
    passed: usize,
    failed: usize,
    not_compared: usize,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    module: &'a str,
    kind: &'static str,
    slot: &'a str,
    layer: Option<usize>,
    step: Option<u64>,
    rank: Option<u32>,
    shape: &'a [usize],
    /// Of the reference, of the candidate.
    dtype: [&'static str; 2],
    metrics: Metrics,
    gate: Gate,
    verdict: &'static str,
    failed_checks: Vec<&'a str>,
}

#[derive(Serialize)]
struct Metrics {
    cos: Option<f64>,
    cos_row_min: Option<f64>,
    row_min_index: Option<usize>,
    gain: Option<f64>,
    rel_l2: Option<f64>,
    nan_unexpected: u64,
    inf_unexpected: u64,
    zero_rows_wrong: u64,
    /// Elements that differ, of tensors of integers.
    unequal: Option<u64>,
}

pub fn render(outcome: &Outcome) -> anyhow::Result<String> {
    let failed = outcome.rows.iter().filter(|r| !r.passes()).count();
    let document = Document {
        schema: 1,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        reference: side(&outcome.reference),
        candidate: side(&outcome.candidate),
        min_cos: outcome.min_cos,
        summary: Summary {
            compared: outcome.rows.len(),
            passed: outcome.rows.len() - failed,
            failed,
            not_compared: outcome.problems.len(),
        },
        tensors: outcome.rows.iter().map(entry).collect(),
        problems: &outcome.problems,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn side(set: &DumpSet) -> Side<'_> {
    Side {
        path: set.path.display().to_string(),
        producer: set.producer.name(),
        tensors: set.tensors.len(),
        notes: &set.notes,
    }
}

fn entry(row: &Row) -> Entry<'_> {
    let TensorId { step, rank, layer, module, kind, slot, .. } = &row.pair.reference.id;
    let c = &row.comparison;
    Entry {
        name: &row.pair.name,
        module,
        kind: kind.name(),
        slot,
        layer: *layer,
        step: *step,
        rank: rank.global,
        shape: row.pair.reference.shape(),
        dtype: [row.pair.reference.element().name(), row.pair.candidate.element().name()],
        metrics: Metrics {
            cos: c.cos,
            cos_row_min: c.cos_row_min,
            row_min_index: c.row_min_index,
            gain: c.gain,
            rel_l2: c.rel_l2,
            nan_unexpected: c.nan_unexpected,
            inf_unexpected: c.inf_unexpected,
            zero_rows_wrong: c.zero_rows_wrong,
            unequal: row.unequal,
        },
        gate: if row.passes() { Gate::Pass } else { Gate::Fail },
        verdict: row.verdict.name(),
        failed_checks: row.failed(),
    }
}
