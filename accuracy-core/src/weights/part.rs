//! Parts of fused weights: `experts.gate_up_proj#3.gate`, `qkv_proj#k`, `lm_head#0..512`.

use std::borrow::Cow;

use super::config::Config;
use super::{StoredWeight, WeightsError};
use crate::quant::Granularity;

/// What follows `#` in an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub expert: Option<usize>,
    pub rows: Option<Rows>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rows {
    Gate,
    Up,
    Query,
    Key,
    Value,
    Range(usize, usize),
}

/// Rows `start`, `start + step`, ..., `count` of them.
#[derive(Clone, Copy)]
struct Selection {
    start: usize,
    step: usize,
    count: usize,
}

/// Splits `module#part`.
pub(super) fn split(address: &str) -> Result<(&str, Part), WeightsError> {
    let Some((module, text)) = address.split_once('#') else { return Ok((address, Part::default())) };
    let bad = || WeightsError::BadPart {
        address: address.to_owned(),
        reason: "after `#` comes an expert's number, gate, up, q, k, v or a range of rows, joined by `.`: \
                 `#3.gate`, `#k`, `#0..512`"
            .to_owned(),
    };
    let mut part = Part::default();
    let (expert, rows) = match text.split_once('.') {
        Some((expert, rows)) if !rows.starts_with('.') => (Some(expert), Some(rows)),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => (Some(text), None),
        _ => (None, Some(text)),
    };
    if let Some(expert) = expert {
        part.expert = Some(expert.parse().map_err(|_| bad())?);
    }
    part.rows = match rows {
        None => None,
        Some("gate") => Some(Rows::Gate),
        Some("up") => Some(Rows::Up),
        Some("q") => Some(Rows::Query),
        Some("k") => Some(Rows::Key),
        Some("v") => Some(Rows::Value),
        Some(range) => {
            let (begin, end) = range.split_once("..").ok_or_else(bad)?;
            Some(Rows::Range(begin.parse().map_err(|_| bad())?, end.parse().map_err(|_| bad())?))
        }
    };
    Ok((module, part))
}

impl Part {
    /// The rows of `weight` that the part names.
    pub fn select<'a>(
        &self,
        weight: StoredWeight<'a>,
        config: &Config,
    ) -> Result<StoredWeight<'a>, WeightsError> {
        let Some(rows) = &self.rows else { return Ok(weight) };
        let selection = rows.of((weight.rows, weight.cols), &weight.tensors[0], config);
        match selection {
            Ok(selection) => take(weight, selection),
            Err(reason) => Err(WeightsError::BadPart { address: weight.name, reason }),
        }
    }
}

/// The parts that the module's name speaks of, where the weight's shape agrees.
pub(super) fn named(
    module: &str,
    tensor: &str,
    shape: (usize, usize),
    config: &Config,
) -> &'static [&'static str] {
    let name = module.rsplit('.').next().unwrap_or(module);
    let (part, names): (Rows, &[&str]) = if ["gate_up", "w13", "mlp1"].iter().any(|n| name.contains(n)) {
        (Rows::Gate, &["gate", "up"])
    } else if name.contains("qkv") {
        (Rows::Query, &["q", "k", "v"])
    } else {
        return &[];
    };
    if part.of(shape, tensor, config).is_ok() { names } else { &[] }
}

impl Rows {
    /// Which of the rows of a weight `[all, cols]` stored as `tensor` these are, or why it has none.
    fn of(&self, (all, cols): (usize, usize), tensor: &str, config: &Config) -> Result<Selection, String> {
        match *self {
            Rows::Gate | Rows::Up => {
                let up = *self == Rows::Up;
                if let Some(hidden) = config.count("hidden_size")
                    && cols != hidden
                    && all == hidden
                {
                    return Err(format!(
                        "{:?} is stored transposed: its columns hold gate and up",
                        (all, cols)
                    ));
                }
                if !all.is_multiple_of(2) {
                    return Err(format!("{all} rows do not halve into gate and up"));
                }
                // gpt-oss interleaves the two (even rows are the gate); others put one below the other.
                let interleaved = tensor.ends_with("blocks");
                Ok(match (interleaved, up) {
                    (true, _) => Selection { start: usize::from(up), step: 2, count: all / 2 },
                    (false, true) => Selection { start: all / 2, step: 1, count: all / 2 },
                    (false, false) => Selection { start: 0, step: 1, count: all / 2 },
                })
            }
            Rows::Query | Rows::Key | Rows::Value => {
                if let Some(model) = config.model("model_type").and_then(|m| m.as_str())
                    && model.starts_with("internlm2")
                {
                    return Err(format!("{model} interleaves q, k and v by KV head: give ranges of rows"));
                }
                let (q, kv) = attention_rows(config).ok_or_else(|| {
                    "config.json does not say num_attention_heads and head_dim or hidden_size".to_owned()
                })?;
                if kv.checked_mul(2).and_then(|kv| kv.checked_add(q)) != Some(all) {
                    return Err(format!(
                        "q, k and v of config.json have {q} + 2 * {kv} rows, the tensor {all}"
                    ));
                }
                Ok(match *self {
                    Rows::Query => Selection { start: 0, step: 1, count: q },
                    Rows::Key => Selection { start: q, step: 1, count: kv },
                    _ => Selection { start: q + kv, step: 1, count: kv },
                })
            }
            Rows::Range(begin, end) if begin < end && end <= all => {
                Ok(Selection { start: begin, step: 1, count: end - begin })
            }
            Rows::Range(..) => Err(format!("the range must lie within {all} rows")),
        }
    }
}

/// Rows of the query and of the key projection.
fn attention_rows(config: &Config) -> Option<(usize, usize)> {
    let heads = config.count("num_attention_heads").filter(|&h| h > 0)?;
    let kv_heads = config.count("num_key_value_heads").unwrap_or(heads);
    let head = config.count("head_dim").or_else(|| Some(config.count("hidden_size")? / heads))?;
    Some((heads.checked_mul(head)?, kv_heads.checked_mul(head)?))
}

fn take(weight: StoredWeight<'_>, s: Selection) -> Result<StoredWeight<'_>, WeightsError> {
    let rows = || (0..s.count).map(|i| s.start + i * s.step);
    let grid_cols = weight.grid().1;
    let grid_rows: Vec<usize> = match weight.granularity {
        Granularity::Tensor => vec![0],
        Granularity::Row | Granularity::Group(_) => rows().collect(),
        Granularity::Block(block, _) if s.step == 1 && s.start.is_multiple_of(block) => {
            (s.start / block..(s.start + s.count).div_ceil(block)).collect()
        }
        Granularity::Block(block, _) => {
            let reason = format!("its rows begin at {}, inside a block of {block} rows", s.start);
            return Err(WeightsError::BadPart { address: weight.name, reason });
        }
    };
    let cells = |all: &[f64]| -> Vec<f64> {
        if all.is_empty() {
            return Vec::new();
        }
        grid_rows.iter().flat_map(|&r| &all[r * grid_cols..(r + 1) * grid_cols]).copied().collect()
    };
    let (scales, zero_points) = (cells(&weight.scales), cells(&weight.zero_points));

    let row_bits = weight.cols * weight.dtype.bits() as usize;
    let codes = if row_bits.is_multiple_of(8) {
        let row_bytes = row_bits / 8;
        match weight.codes {
            Cow::Borrowed(all) if s.step == 1 => {
                Cow::Borrowed(&all[s.start * row_bytes..(s.start + s.count) * row_bytes])
            }
            all => {
                Cow::Owned(rows().flat_map(|r| &all[r * row_bytes..(r + 1) * row_bytes]).copied().collect())
            }
        }
    } else {
        let code = |r: usize| (0..weight.cols).map(move |c| r * weight.cols + c);
        Cow::Owned(weight.dtype.pack(rows().flat_map(code).map(|i| weight.dtype.code_at(&weight.codes, i))))
    };
    Ok(StoredWeight { rows: s.count, codes, scales, zero_points, ..weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split() {
        let part = |expert, rows| Part { expert, rows };
        for (address, want) in [
            ("m", part(None, None)),
            ("m#3", part(Some(3), None)),
            ("m#3.gate", part(Some(3), Some(Rows::Gate))),
            ("m#up", part(None, Some(Rows::Up))),
            ("m#k", part(None, Some(Rows::Key))),
            ("m#0..512", part(None, Some(Rows::Range(0, 512)))),
            ("m#7.0..5", part(Some(7), Some(Rows::Range(0, 5)))),
        ] {
            assert_eq!(split(address).unwrap(), ("m", want), "{address}");
        }
        for address in
            ["m#", "m#x", "m#.gate", "m#3.", "m#1..", "m#3.gate.up", "m#-1", "m#99999999999999999999"]
        {
            assert!(matches!(split(address), Err(WeightsError::BadPart { .. })), "{address}");
        }
    }
}
