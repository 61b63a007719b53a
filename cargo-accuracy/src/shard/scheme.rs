//! What a weight becomes: number format, scales, and the configuration that says so.
//!
//! FP8 blocks follow DeepSeek-V3's convention, MXFP4 AMD Quark's, int4 those of AutoAWQ and GPTQ, the others that of
//! compressed-tensors. Weights are rounded to nearest; nothing is calibrated.

use accuracy_core::dtype::{BF16, DType, E4M3FN, E8M0, F16};
use accuracy_core::layout::ScaleLayout;
use accuracy_core::quant::{GlobalScale, Quant, ScaleRounding, ZeroPoint};
use serde_json::{Value, json};

/// Side of an FP8 block.
const BLOCK: usize = 128;
/// Columns that share a scale of the MX formats, and of NVFP4.
const MX_GROUP: usize = 32;
const NVFP4_GROUP: usize = 16;

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
    /// e4m3fn, an e8m0 scale for each 32 columns
    Mxfp8,
    /// e2m1, an e8m0 scale for each 32 columns, as AMD Quark stores it
    Mxfp4,
    /// e2m1, an e4m3fn scale for each 16 columns, and one float32 that compressed-tensors divides by
    Nvfp4,
    /// The same as ModelOpt stores it, which multiplies
    Nvfp4Modelopt,
    /// int8, symmetric, a float32 scale for each output channel
    Int8Channel,
    /// uint4 with zero points, a float16 scale for each group of columns, as AutoAWQ stores it
    Int4Awq,
    /// uint4, symmetric, a float16 scale for each group of columns, as GPTQ's first version stores it
    Int4Gptq,
    /// uint4 with zero points, a bfloat16 scale for each group of columns, as compressed-tensors packs it
    Int4Pack,
}

impl Scheme {
    /// Whether the size of its groups is chosen.
    pub fn has_group_size(self) -> bool {
        matches!(self, Scheme::Int4Awq | Scheme::Int4Gptq | Scheme::Int4Pack)
    }

    /// How it quantises; `None` for formats without scales. `group` is that of int4.
    pub fn quant(self, group: usize) -> Option<Quant> {
        let mx = |dtype| Quant::group(dtype, MX_GROUP).scales(E8M0, ScaleRounding::Even);
        let nvfp4 = |global| {
            Quant::group(DType::E2M1, NVFP4_GROUP).scales(E4M3FN, ScaleRounding::Nearest).two_level(global)
        };
        let int4 = |scale| Quant::group(DType::U4, group).scales(scale, ScaleRounding::Nearest);
        let zero_points = ZeroPoint::per_cell(DType::U4, ScaleLayout::RowMajor);
        Some(match self {
            Scheme::F32 | Scheme::Bf16 => return None,
            Scheme::Fp8Block => Quant::block(E4M3FN, BLOCK, BLOCK),
            Scheme::Fp8Token => Quant::channel(E4M3FN),
            Scheme::Fp8Tensor => Quant::tensor(E4M3FN),
            Scheme::Mxfp8 => mx(E4M3FN),
            Scheme::Mxfp4 => mx(DType::E2M1),
            Scheme::Nvfp4 => nvfp4(GlobalScale::Divide),
            Scheme::Nvfp4Modelopt => nvfp4(GlobalScale::Multiply),
            Scheme::Int8Channel => Quant::channel(DType::I8),
            Scheme::Int4Awq => int4(F16).zero_point(zero_points),
            Scheme::Int4Gptq => int4(F16).zero_point(ZeroPoint::Fixed(8)),
            Scheme::Int4Pack => int4(BF16).zero_point(zero_points),
        })
    }

    /// Of how many rows and columns a weight must be multiples, for whole groups and whole words of eight codes.
    pub fn multiples(self, group: usize) -> (usize, usize) {
        match self {
            Scheme::Mxfp8 | Scheme::Mxfp4 => (1, MX_GROUP),
            Scheme::Nvfp4 | Scheme::Nvfp4Modelopt => (1, NVFP4_GROUP),
            Scheme::Int4Awq | Scheme::Int4Gptq | Scheme::Int4Pack => (8, group),
            _ => (1, 1),
        }
    }

    /// `quantization_config` of `config.json`; `None` for formats without scales.
    pub fn quantization_config(self, group: usize) -> Option<Value> {
        let weights = |bits: u32, kind: &str, strategy: &str| json!({"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": true, "dynamic": false});
        let grouped = |mut weights: Value, size: usize| {
            weights["group_size"] = size.into();
            weights
        };
        // Activations that a kernel quantises by itself.
        let dynamic = |mut like: Value, strategy: &str| {
            like["strategy"] = strategy.into();
            like["dynamic"] = true.into();
            like
        };
        let compressed = |format: &str, weights: Value, activations: Value| {
            json!({
                "quant_method": "compressed-tensors",
                "format": format,
                "config_groups": {"group_0": {
                    "targets": ["Linear"], "weights": weights, "input_activations": activations
                }},
                "ignore": []
            })
        };
        Some(match self {
            Scheme::F32 | Scheme::Bf16 => return None,
            Scheme::Fp8Block => json!({
                "quant_method": "fp8",
                "fmt": "e4m3",
                "weight_block_size": [BLOCK, BLOCK],
                "activation_scheme": "dynamic"
            }),
            Scheme::Fp8Token => {
                let weights = weights(8, "float", "channel");
                compressed("float-quantized", weights.clone(), dynamic(weights, "token"))
            }
            Scheme::Fp8Tensor => {
                let weights = weights(8, "float", "tensor");
                compressed("float-quantized", weights.clone(), dynamic(weights, "tensor"))
            }
            Scheme::Mxfp8 => {
                let weights = grouped(weights(8, "float", "group"), MX_GROUP);
                compressed("mxfp8-quantized", weights.clone(), dynamic(weights, "group"))
            }
            Scheme::Mxfp4 => {
                let weight = json!({
                    "dtype": "fp4",
                    "qscheme": "per_group",
                    "group_size": MX_GROUP,
                    "ch_axis": -1,
                    "scale_format": "e8m0",
                    "scale_calculation_mode": "even",
                    "is_dynamic": false
                });
                let mut input = weight.clone();
                input["is_dynamic"] = true.into();
                json!({
                    "quant_method": "quark",
                    "global_quant_config": {"weight": weight, "input_tensors": input, "output_tensors": null},
                    "layer_quant_config": {},
                    "layer_type_quant_config": {},
                    "exclude": [],
                    "export": {"kv_cache_group": [], "pack_method": "order", "weight_format": "real_quantized"}
                })
            }
            // Activations in NVFP4 would need a calibrated scale for each layer.
            Scheme::Nvfp4 => {
                let weights = grouped(weights(4, "float", "tensor_group"), NVFP4_GROUP);
                compressed("nvfp4-pack-quantized", weights, Value::Null)
            }
            Scheme::Nvfp4Modelopt => json!({
                "quant_method": "modelopt",
                "quant_algo": "NVFP4",
                "group_size": NVFP4_GROUP,
                "kv_cache_quant_algo": null,
                "exclude_modules": []
            }),
            Scheme::Int8Channel => {
                let weights = weights(8, "int", "channel");
                compressed("int-quantized", weights.clone(), dynamic(weights, "token"))
            }
            Scheme::Int4Awq => json!({
                "quant_method": "awq",
                "version": "gemm",
                "bits": 4,
                "group_size": group,
                "zero_point": true,
                "modules_to_not_convert": null
            }),
            Scheme::Int4Gptq => json!({
                "quant_method": "gptq",
                "checkpoint_format": "gptq",
                "bits": 4,
                "group_size": group,
                "desc_act": false,
                "sym": true
            }),
            Scheme::Int4Pack => {
                let mut weights = grouped(weights(4, "int", "group"), group);
                weights["symmetric"] = false.into();
                compressed("pack-quantized", weights, Value::Null)
            }
        })
    }
}
