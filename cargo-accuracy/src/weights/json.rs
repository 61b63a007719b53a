//! `--format json`: every weight, every other tensor, totals and findings.

use super::survey::{Kind, Other, Severity, Survey, Weight, What};
use super::text::totals;
use accuracy_core::weights::{Block, Scheme};
use serde::Serialize;
use std::io::Write;

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    checkpoint: &'a str,
    config: &'a [String],
    files: usize,
    file_bytes: u64,
    tensors: usize,
    weights: Vec<WeightEntry<'a>>,
    others: Vec<OtherEntry<'a>>,
    totals: Vec<TotalEntry>,
    unseen: usize,
    findings: Vec<FindingEntry<'a>>,
}

#[derive(Serialize)]
struct WeightEntry<'a> {
    name: &'a str,
    #[serde(flatten)]
    kind: KindEntry,
    /// `[N, K]`, of each expert.
    shape: [usize; 2],
    experts: Option<usize>,
    /// Rows and columns of the scale grid; `null` where there are no scales.
    scale_shape: Option<[usize; 2]>,
    /// The tensors it is read from, that of the codes first.
    tensors: &'a [String],
    /// What can be addressed behind `#`.
    parts: &'a [&'static str],
    /// What is done to the layer's input or output at run time; where there is any, `y = x·W` does not hold.
    online: Vec<String>,
    bytes: u64,
    scale_bytes: u64,
}

#[derive(Serialize)]
struct KindEntry {
    scheme: &'static str,
    dtype: &'static str,
    granularity: Option<String>,
    scale_dtype: Option<&'static str>,
}

#[derive(Serialize)]
struct OtherEntry<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
    bytes: u64,
    what: &'static str,
}

#[derive(Serialize)]
struct TotalEntry {
    #[serde(flatten)]
    kind: KindEntry,
    weights: usize,
    parameters: u64,
    bytes: u64,
    scale_bytes: u64,
}

#[derive(Serialize)]
struct FindingEntry<'a> {
    severity: &'static str,
    kind: &'static str,
    tensor: Option<&'a str>,
    message: &'a str,
}

pub fn write(out: &mut impl Write, survey: &Survey) -> anyhow::Result<()> {
    let document = Document {
        schema: SCHEMA,
        checkpoint: &survey.checkpoint,
        config: &survey.claims,
        files: survey.files,
        file_bytes: survey.file_bytes,
        tensors: survey.tensors,
        weights: survey.weights.iter().map(weight).collect(),
        others: survey.others.iter().map(other).collect(),
        totals: totals(&survey.weights)
            .into_iter()
            .map(|t| TotalEntry {
                kind: kind(t.kind),
                weights: t.weights,
                parameters: t.parameters,
                bytes: t.code_bytes + t.scale_bytes,
                scale_bytes: t.scale_bytes,
            })
            .collect(),
        unseen: survey.unseen,
        findings: survey
            .findings
            .iter()
            .map(|f| FindingEntry {
                severity: match f.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                kind: f.kind,
                tensor: f.tensor.as_deref(),
                message: &f.message,
            })
            .collect(),
    };
    let mut out = std::io::BufWriter::new(out);
    serde_json::to_writer(&mut out, &document)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn weight(weight: &Weight) -> WeightEntry<'_> {
    let info = &weight.info;
    let grid = info.granularity.grid(info.rows, info.cols);
    WeightEntry {
        name: &info.name,
        kind: kind(Kind::of(info)),
        shape: [info.rows, info.cols],
        experts: info.experts,
        scale_shape: info.scale_dtype.map(|_| grid.into()),
        tensors: &info.tensors,
        parts: info.parts,
        online: info.online.iter().map(ToString::to_string).collect(),
        bytes: weight.code_bytes + weight.scale_bytes,
        scale_bytes: weight.scale_bytes,
    }
}

fn kind(kind: Kind) -> KindEntry {
    KindEntry {
        scheme: scheme(kind.scheme),
        dtype: kind.dtype.name(),
        granularity: kind.scale_dtype.map(|_| kind.granularity.to_string()),
        scale_dtype: kind.scale_dtype.map(|d| d.name()),
    }
}

fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Unquantized => "unquantized",
        Scheme::Fp8 => "fp8",
        Scheme::Int8 => "int8",
        Scheme::Mxfp4 => "mxfp4",
        Scheme::Mxfp8 => "mxfp8",
        Scheme::Mxfp6E2M3 => "mxfp6_e2m3",
        Scheme::Mxfp6E3M2 => "mxfp6_e3m2",
        Scheme::Nvfp4 => "nvfp4",
        Scheme::PackedInt4 => "int4_packed",
        Scheme::PackedInt8 => "int8_packed",
        Scheme::Gptq => "int4_gptq",
        Scheme::GptqInt8 => "int8_gptq",
        Scheme::GptqInt2 => "int2_gptq",
        Scheme::GptqInt3 => "int3_gptq",
        Scheme::Awq => "int4_awq",
        Scheme::Int4 => "int4",
        Scheme::QuarkInt4 => "int4_quark",
        Scheme::Hqq => "hqq",
        Scheme::BnbNf4 => "bnb_nf4",
        Scheme::BnbFp4 => "bnb_fp4",
        Scheme::Gguf(Block::Q4_0) => "gguf_q4_0",
        Scheme::Gguf(Block::Q4_1) => "gguf_q4_1",
        Scheme::Gguf(Block::Q5_0) => "gguf_q5_0",
        Scheme::Gguf(Block::Q5_1) => "gguf_q5_1",
        Scheme::Gguf(Block::Q8_0) => "gguf_q8_0",
        Scheme::Gguf(Block::Q2K) => "gguf_q2_k",
        Scheme::Gguf(Block::Q3K) => "gguf_q3_k",
        Scheme::Gguf(Block::Q4K) => "gguf_q4_k",
        Scheme::Gguf(Block::Q5K) => "gguf_q5_k",
        Scheme::Gguf(Block::Q6K) => "gguf_q6_k",
        Scheme::Gguf(Block::Iq4Nl) => "gguf_iq4_nl",
        Scheme::Gguf(Block::Mxfp4) => "gguf_mxfp4",
    }
}

fn other(other: &Other) -> OtherEntry<'_> {
    OtherEntry {
        name: &other.name,
        dtype: other.dtype.to_string(),
        shape: &other.shape,
        bytes: other.bytes,
        what: match other.what {
            What::ActivationScale => "activation_scale",
            What::Broken => "broken_weight",
            What::Transform => "transform",
            What::Other => "other",
        },
    }
}
