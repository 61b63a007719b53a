//! `--report json=FILE`: the walk, the layers and every replayed operation.

use super::findings::{Findings, Guilty, OpFinding, OpStatus, Step, Verdict};
use super::profile::{Agreement, LayerProfile};
use super::replay::{CACHE, Outcome};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    tool: Tool,
    reference: &'a Path,
    candidate: &'a Path,
    checkpoint: Option<&'a Path>,
    verdict: Verdict,
    step: Option<u64>,
    guilty: Option<&'a Guilty>,
    bad_layers: &'a [usize],
    systematic: Option<bool>,
    compounding: Option<Compounding>,
    steps: &'a [Step],
    layers: &'a [LayerProfile],
    ops: Vec<OpEntry<'a>>,
    logits: Option<&'a Agreement>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Compounding {
    stream_after_first: f64,
    stream_after_last: f64,
    predicted: f64,
}

#[derive(Serialize)]
struct OpEntry<'a> {
    layer: Option<usize>,
    op: &'a str,
    place: &'a str,
    status: OpStatus,
    reference: OutcomeEntry<'a>,
    candidate: OutcomeEntry<'a>,
    cause: Option<CauseEntry<'a>>,
}

#[derive(Serialize)]
struct CauseEntry<'a> {
    detail: &'a str,
    error: Option<f64>,
    explains: bool,
}

#[derive(Serialize, Default)]
struct OutcomeEntry<'a> {
    missing: Option<&'a str>,
    unusable: Option<&'a str>,
    ok: Option<bool>,
    cos: Option<f64>,
    gain: Option<f64>,
    error: Option<f64>,
    bound: Option<f64>,
    row: Option<usize>,
    row_error: Option<f64>,
    row_bound: Option<f64>,
    rows_bad: Option<usize>,
    notes: &'a [String],
}

/// The report as JSON.
///
/// # Errors
/// A path that is not UTF-8.
pub fn render(f: &Findings) -> anyhow::Result<String> {
    let document = Document {
        schema: 1,
        tool: Tool { name: "cargo-accuracy", version: env!("CARGO_PKG_VERSION") },
        reference: &f.reference,
        candidate: &f.candidate,
        checkpoint: f.checkpoint.as_deref(),
        verdict: f.verdict,
        step: f.at,
        guilty: f.guilty.as_ref(),
        bad_layers: &f.bad_layers,
        systematic: f.systematic,
        compounding: f.compounding.map(|[first, last, predicted]| Compounding {
            stream_after_first: first,
            stream_after_last: last,
            predicted,
        }),
        steps: &f.steps,
        layers: &f.layers,
        ops: f.ops.iter().map(entry).collect(),
        logits: f.logits.as_ref(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn entry(op: &OpFinding) -> OpEntry<'_> {
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    OpEntry {
        layer: op.layer,
        op: &op.name,
        place: &op.place,
        status: op.status,
        reference: outcome(&op.reference),
        candidate: outcome(&op.candidate),
        cause: op.cause.as_ref().map(|c| CauseEntry {
            detail: &c.detail,
            error: finite(c.error),
            explains: c.explains,
        }),
    }
}

fn outcome(outcome: &Outcome) -> OutcomeEntry<'_> {
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    match outcome {
        Outcome::Missing(what) => OutcomeEntry { missing: Some(what), ..OutcomeEntry::default() },
        Outcome::NoCache => OutcomeEntry { missing: Some(CACHE), ..OutcomeEntry::default() },
        Outcome::Unusable(why) => OutcomeEntry { unusable: Some(why), ..OutcomeEntry::default() },
        Outcome::Judged(j) => OutcomeEntry {
            ok: Some(j.ok),
            cos: j.cos,
            gain: j.gain,
            error: finite(j.error),
            bound: finite(j.bound),
            row: j.row,
            row_error: finite(j.row_error),
            row_bound: finite(j.row_bound),
            rows_bad: Some(j.rows_bad),
            notes: &j.notes,
            ..OutcomeEntry::default()
        },
    }
}
