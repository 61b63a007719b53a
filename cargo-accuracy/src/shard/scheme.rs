//! What a weight becomes: number format, scales, the names of its tensors and the configuration that says so.
//!
//! FP8 blocks follow DeepSeek-V3's convention (`weight_scale_inv`, a multiplier whatever its name), the others that
//! of compressed-tensors (`weight_scale`).

use accuracy_core::dtype::{DType, Overflow};
use accuracy_core::quant::{Quant, quantize};
use accuracy_core::reference::Matrix;
use accuracy_core::weights::{Checkpoint, NewTensor, StDtype};
use anyhow::Context as _;
use serde_json::{Value, json};

/// Side of an FP8 block.
const BLOCK: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    F32,
    Bf16,
    /// e4m3fn, a float32 scale for each 128 x 128 block
    Fp8Block,
    /// e4m3fn, a float32 scale for each output channel, for activations with one for each token
    #[value(alias = "fp8-channel")]
    Fp8Token,
    /// e4m3fn, one float32 scale
    Fp8Tensor,
    /// int8, symmetric, a float32 scale for each output channel
    Int8Channel,
}

/// A weight or vector on its way from one checkpoint to another.
pub struct Converted {
    /// Module or tensor.
    pub name: String,
    pub shape: Vec<usize>,
    /// What it is stored as now, for a person.
    pub became: String,
    pub tensors: Vec<NewTensor>,
    /// The source's values, and those that the new tensors stand for.
    pub original: Vec<f64>,
    pub values: Vec<f64>,
    /// Names of the source's tensors that were read.
    pub sources: Vec<String>,
}

impl Scheme {
    fn quant(self) -> Option<Quant> {
        match self {
            Scheme::F32 | Scheme::Bf16 => None,
            Scheme::Fp8Block => Some(Quant::block(DType::E4M3Fn, BLOCK, BLOCK)),
            Scheme::Fp8Token => Some(Quant::channel(DType::E4M3Fn)),
            Scheme::Fp8Tensor => Some(Quant::tensor(DType::E4M3Fn)),
            Scheme::Int8Channel => Some(Quant::channel(DType::I8)),
        }
    }

    /// Name and shape of the scales of a weight whose scale grid this is.
    fn scale(self, grid: (usize, usize)) -> (&'static str, Vec<usize>) {
        match self {
            Scheme::Fp8Block => ("weight_scale_inv", vec![grid.0, grid.1]),
            Scheme::Fp8Tensor => ("weight_scale", vec![1]),
            _ => ("weight_scale", vec![grid.0, 1]),
        }
    }

    /// `quantization_config` of `config.json`; `None` for formats without scales.
    pub fn quantization_config(self) -> Option<Value> {
        let compressed = |format: &str, kind: &str, strategy: &str, activations: &str| {
            json!({
                "quant_method": "compressed-tensors",
                "format": format,
                "config_groups": {"group_0": {
                    "targets": ["Linear"],
                    "weights": {
                        "num_bits": 8, "type": kind, "strategy": strategy, "symmetric": true, "dynamic": false
                    },
                    "input_activations": {
                        "num_bits": 8, "type": kind, "strategy": activations, "symmetric": true, "dynamic": true
                    }
                }}
            })
        };
        match self {
            Scheme::F32 | Scheme::Bf16 => None,
            Scheme::Fp8Block => Some(json!({
                "quant_method": "fp8",
                "fmt": "e4m3",
                "weight_block_size": [BLOCK, BLOCK],
                "activation_scheme": "dynamic"
            })),
            Scheme::Fp8Token => Some(compressed("float-quantized", "float", "channel", "token")),
            Scheme::Fp8Tensor => Some(compressed("float-quantized", "float", "tensor", "tensor")),
            Scheme::Int8Channel => Some(compressed("int-quantized", "int", "channel", "token")),
        }
    }
}

/// Reads one weight or vector and makes it what it is to be.
pub fn convert(checkpoint: &Checkpoint, name: &str, to: Option<Scheme>) -> anyhow::Result<Converted> {
    let tensor =
        if checkpoint.names().any(|n| n == name) { name.to_string() } else { format!("{name}.weight") };
    if let Ok(raw) = checkpoint.raw(&tensor)
        && raw.shape.len() == 1
    {
        let values = checkpoint.vector(&tensor)?;
        let copy = NewTensor {
            name: tensor.clone(),
            dtype: raw.dtype,
            shape: raw.shape.into(),
            bytes: raw.bytes.into(),
        };
        return Ok(Converted {
            name: name.into(),
            shape: raw.shape.into(),
            became: format!("copied as {}", raw.dtype),
            tensors: vec![copy],
            original: values.clone(),
            values,
            sources: vec![tensor],
        });
    }
    let stored = checkpoint.linear(name)?;
    let original = stored.values();
    let shape = vec![stored.rows, stored.cols];
    let Some(scheme) = to else {
        let tensors = stored.tensors.iter().map(|name| {
            let raw = checkpoint.raw(name)?;
            let (dtype, shape, bytes) = (raw.dtype, raw.shape.into(), raw.bytes.into());
            Ok(NewTensor { name: name.clone(), dtype, shape, bytes })
        });
        return Ok(Converted {
            name: name.into(),
            shape,
            became: format!("copied as {}", stored.scheme),
            tensors: tensors.collect::<anyhow::Result<_>>()?,
            values: original.clone(),
            original,
            sources: stored.tensors,
        });
    };
    if let Some(i) = original.iter().position(|v| !v.is_finite()) {
        anyhow::bail!(
            "{name} holds {} at row {}, column {}: such a weight is not quantised; name other tensors",
            original[i],
            i / stored.cols,
            i % stored.cols
        );
    }
    let weight =
        |dtype, bytes| NewTensor { name: format!("{name}.weight"), dtype, shape: shape.clone(), bytes };
    let (tensors, values) = match scheme.quant() {
        None => {
            let (dtype, stored_as) = match scheme {
                Scheme::F32 => (DType::F32, StDtype::F32),
                _ => (DType::BF16, StDtype::BF16),
            };
            let bytes = dtype.encode_bytes(&original, Overflow::Special);
            let values = dtype.decode_bytes(&bytes);
            (vec![weight(stored_as, bytes)], values)
        }
        Some(quant) => {
            let quantized = quantize(&Matrix::new(stored.rows, stored.cols, original.clone()), &quant, 1.0);
            let stored_as = if quant.dtype == DType::I8 { StDtype::I8 } else { StDtype::F8_E4M3 };
            let codes = quant.dtype.pack(quantized.codes.iter().copied());
            let (suffix, scale_shape) = scheme.scale(quant.granularity.grid(stored.rows, stored.cols));
            let scales = NewTensor {
                name: format!("{name}.{suffix}"),
                dtype: StDtype::F32,
                shape: scale_shape,
                bytes: DType::F32.encode_bytes(&quantized.scales, Overflow::Special),
            };
            (vec![weight(stored_as, codes), scales], quantized.decode().data)
        }
    };
    Ok(Converted {
        name: name.into(),
        shape,
        became: clap::ValueEnum::to_possible_value(&scheme)
            .context("every scheme has a name")?
            .get_name()
            .into(),
        tensors,
        original,
        values,
        sources: stored.tensors,
    })
}
