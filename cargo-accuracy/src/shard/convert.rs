//! One weight or other tensor, from a checkpoint to the tensors of a shard.

use super::bias;
use super::scheme::Scheme;
use super::tensors;
use crate::exit::usage;
use accuracy_core::dtype::{DType, Overflow};
use accuracy_core::metrics::cosine;
use accuracy_core::reference::Matrix;
use accuracy_core::weights::{Carve, Checkpoint, NewTensor, Online, RawTensor, StDtype, WeightsError};
use anyhow::Context as _;
use std::ops::Range;

/// What is wanted of each weight.
pub struct Plan {
    /// `None` keeps the scheme.
    pub to: Option<Scheme>,
    /// Columns that share a scale of int4.
    pub group: usize,
    pub part: Carve,
}

/// A weight or another tensor on its way from one checkpoint to another.
pub struct Converted {
    /// Module or tensor.
    pub name: String,
    /// Of the weight as it is now; of each expert.
    pub shape: Vec<usize>,
    /// How many there are, where several experts share a tensor.
    pub experts: Option<usize>,
    /// What it is stored as now, for a person.
    pub became: String,
    pub tensors: Vec<NewTensor>,
    /// Each matrix by the address that it can be read back from; none of what is copied as bytes.
    pub matrices: Vec<Values>,
    /// Names of the source's tensors that were read.
    pub sources: Vec<String>,
}

/// What the new tensors of a matrix stand for. The values themselves would take eight times the memory of FP8.
pub struct Values {
    pub address: String,
    digest: blake3::Hash,
    /// With the source's; `None` where nothing changed, or there is none.
    cosine: Option<f64>,
    /// How many are NaN or infinite.
    non_finite: usize,
}

impl Values {
    fn new(address: String, original: &[f64], values: &[f64]) -> Values {
        let same = original.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
        let non_finite = values.iter().filter(|v| !v.is_finite()).count();
        let cosine = if same || non_finite > 0 { None } else { cosine(original, values) };
        Values { address, digest: digest(values), cosine, non_finite }
    }

    /// Whether these are the same values, bit for bit.
    pub fn are(&self, values: &[f64]) -> bool {
        digest(values) == self.digest
    }
}

fn digest(values: &[f64]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        hasher.update(&value.to_bits().to_le_bytes());
    }
    hasher.finalize()
}

/// Reads one weight or other tensor and makes it what it is to be.
pub fn convert(checkpoint: &Checkpoint, name: &str, plan: &Plan) -> anyhow::Result<Converted> {
    let tensor = if checkpoint.raw(name).is_ok() { name.to_string() } else { format!("{name}.weight") };
    if let Ok(raw) = checkpoint.raw(&tensor)
        && !is_weight(checkpoint, &raw)
    {
        return copy(checkpoint, name, &raw, plan);
    }
    let info = checkpoint.describe(name)?;
    let part =
        Carve { experts: plan.part.experts.clone().filter(|_| info.experts.is_some()), ..plan.part.clone() };
    if plan.to.is_some() && info.online.iter().any(Online::rotates) {
        // In another form nothing would say that the input has to be rotated.
        return Err(WeightsError::OnlineTransform { weight: name.into(), online: info.online }.into());
    }
    // Checks the ranges, too.
    let carved = match plan.to {
        Some(_) if info.is_in_one_piece() => {
            require_within(name, "rows", &part.rows, info.rows)?;
            require_within(name, "columns", &part.columns, info.cols)?;
            Vec::new()
        }
        _ => checkpoint.carve(name, &part)?,
    };
    let online = checkpoint.carve_online(name, &part)?;
    let rows = part.rows.unwrap_or(0..info.rows);
    let columns = part.columns.unwrap_or(0..info.cols);
    let original = |address: &str| -> anyhow::Result<Matrix> {
        let stored = checkpoint.linear(address)?;
        let whole = stored.values();
        let of_row = |r: usize| whole[r * stored.cols..][columns.clone()].iter().copied();
        Ok(Matrix::new(rows.len(), columns.len(), rows.clone().flat_map(of_row).collect()))
    };
    let experts = info.experts.map(|all| part.experts.unwrap_or(0..all));
    let mut converted = Converted {
        name: name.into(),
        shape: vec![rows.len(), columns.len()],
        experts: experts.as_ref().map(|e| e.len()),
        became: format!("copied as {}", info.scheme),
        tensors: Vec::new(),
        matrices: Vec::new(),
        sources: info.tensors.clone(),
    };
    // Where it is read from, and where it will be.
    let addresses: Vec<(String, String)> = match (&experts, plan.to) {
        (None, _) => vec![(name.into(), name.into())],
        (Some(experts), None) => {
            experts.clone().enumerate().map(|(i, e)| (format!("{name}#{e}"), format!("{name}#{i}"))).collect()
        }
        // Quantised experts are modules of their own in most conventions.
        (Some(experts), Some(_)) => {
            experts.clone().enumerate().map(|(i, e)| (format!("{name}#{e}"), of_expert(name, i))).collect()
        }
    };
    let Some(scheme) = plan.to else {
        converted.sources = carved.iter().map(|t| t.name.clone()).collect();
        converted.tensors = carved;
        for (from, address) in addresses {
            let values = original(&from)?.data;
            converted.matrices.push(Values::new(address, &values, &values));
        }
        return Ok(converted);
    };
    // A factor of the input stays one.
    converted.tensors.extend(online);
    converted.became =
        clap::ValueEnum::to_possible_value(&scheme).context("every scheme has a name")?.get_name().into();
    for (from, address) in addresses {
        let weight = original(&from)?;
        let (tensors, values) = match scheme.quant(plan.group) {
            None => unquantized(&address, &weight, scheme),
            Some(quant) => {
                require_finite(&from, &weight)?;
                require_whole(&from, &weight, scheme, plan.group)?;
                tensors::write(&address, &weight, scheme, &quant)
            }
        };
        converted.tensors.extend(tensors);
        converted.matrices.push(Values::new(address, &weight.data, &values));
    }
    Ok(converted)
}

fn require_within(name: &str, what: &str, range: &Option<Range<usize>>, len: usize) -> anyhow::Result<()> {
    match range {
        Some(range) if range.end > len => {
            anyhow::bail!("`{name}`: {what} {range:?} are not within its {len}")
        }
        _ => Ok(()),
    }
}

/// `experts.gate_up_proj` of one expert: `experts.3.gate_up_proj`.
fn of_expert(name: &str, expert: usize) -> String {
    match name.rsplit_once('.') {
        Some((experts, projection)) => format!("{experts}.{expert}.{projection}"),
        None => format!("{expert}.{name}"),
    }
}

/// Vectors, biases, convolutions and counters are copied; anything else is a matrix or a stack of experts.
fn is_weight(checkpoint: &Checkpoint, tensor: &RawTensor) -> bool {
    use StDtype::*;
    match tensor.dtype {
        F32 | F16 | BF16 => match tensor.shape.len() {
            2 => !tensor.name.ends_with("bias"),
            3 => tensor.name.contains("expert"),
            _ => false,
        },
        // Words of codes have a scale.
        I32 => checkpoint.raw(&format!("{}_scale", tensor.name)).is_ok(),
        BOOL | I16 | U16 | U32 | I64 | U64 | F64 => false,
        _ => tensor.shape.len() > 1,
    }
}

/// The bytes as they are; of biases those of the experts and rows that are taken of their weights.
fn copy(checkpoint: &Checkpoint, name: &str, tensor: &RawTensor, plan: &Plan) -> anyhow::Result<Converted> {
    let (mut shape, mut bytes) = (tensor.shape.to_vec(), tensor.bytes.to_vec());
    if let (Some(experts), [count, _]) = (&plan.part.experts, tensor.shape)
        && tensor.name.contains("expert")
    {
        let of_each = bytes.len() / count.max(&1);
        let taken = bytes.get(experts.start * of_each..experts.end * of_each).with_context(|| {
            format!("experts {experts:?} of {} {:?} are not there", tensor.name, tensor.shape)
        })?;
        bytes = taken.to_vec();
        shape[0] = experts.len();
    }
    if let Some(rows) = &plan.part.rows
        && let Some(weight) = bias::weight(checkpoint, tensor.name)
    {
        let size = tensor.dtype.bitsize() / 8;
        let last =
            shape.last_mut().filter(|last| **last == weight.rows && rows.end <= weight.rows && size > 0);
        let last = last.with_context(|| {
            format!(
                "rows {rows:?} are not to be had of {} {:?}, the bias of {} [{}, {}]",
                tensor.name, tensor.shape, weight.name, weight.rows, weight.cols
            )
        })?;
        let of_each = bytes.chunks_exact(*last * size);
        bytes = of_each.flat_map(|one| &one[rows.start * size..rows.end * size]).copied().collect();
        *last = rows.len();
    }
    Ok(Converted {
        name: name.into(),
        shape: shape.clone(),
        experts: None,
        became: format!("copied as {}", tensor.dtype),
        tensors: vec![NewTensor { name: tensor.name.into(), dtype: tensor.dtype, shape, bytes }],
        matrices: Vec::new(),
        sources: vec![tensor.name.into()],
    })
}

fn unquantized(name: &str, weight: &Matrix, scheme: Scheme) -> (Vec<NewTensor>, Vec<f64>) {
    let (format, dtype) = match scheme {
        Scheme::F32 => (DType::F32, StDtype::F32),
        _ => (DType::BF16, StDtype::BF16),
    };
    let bytes = format.encode_bytes(&weight.data, Overflow::Special);
    let values = format.decode_bytes(&bytes);
    let tensor =
        NewTensor { name: format!("{name}.weight"), dtype, shape: vec![weight.rows, weight.cols], bytes };
    (vec![tensor], values)
}

fn require_finite(name: &str, weight: &Matrix) -> anyhow::Result<()> {
    let Some(i) = weight.data.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    anyhow::bail!(
        "{name} holds {} at row {}, column {}: such a weight is not quantised; name other tensors",
        weight.data[i],
        i / weight.cols,
        i % weight.cols
    )
}

fn require_whole(name: &str, weight: &Matrix, scheme: Scheme, group: usize) -> anyhow::Result<()> {
    let (rows, columns) = scheme.multiples(group);
    if weight.rows.is_multiple_of(rows) && weight.cols.is_multiple_of(columns) {
        return Ok(());
    }
    let hint = if scheme.has_group_size() { ", or give another --group-size" } else { "" };
    Err(usage(format!(
        "{name} is [{}, {}]: this scheme is stored for multiples of {rows} rows and {columns} columns; \
         take a part by --rows and --columns{hint}",
        weight.rows, weight.cols
    )))
}

impl std::fmt::Display for Converted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape: Vec<String> = self.experts.iter().chain(&self.shape).map(ToString::to_string).collect();
        write!(f, "{} [{}] {}", self.name, shape.join(", "), self.became)?;
        // Of several matrices the one that lost most.
        if let Some(cos) = self.matrices.iter().filter_map(|m| m.cosine).min_by(f64::total_cmp) {
            write!(f, ", cosine {cos:.7} to what it was")?;
        }
        match self.matrices.iter().map(|m| m.non_finite).sum() {
            0 => Ok(()),
            n => write!(f, ", {n} NaN or infinite values"),
        }
    }
}
