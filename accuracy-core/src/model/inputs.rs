//! How an engine quantises the inputs of products whose weights are quantised, as the checkpoint's configuration says.

use super::object::Object;
use super::precision::Precision;
use crate::dtype::DType;
use crate::quant::{Quant, ScaleRounding, quantize};
use crate::reference::Matrix;

/// The quantisers that the configuration allows: of FP8 the two encodings that hardware has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    pub schemes: Vec<Quant>,
    /// The scale of each module's input is stored in `{module}.input_scale`.
    pub(super) stored: bool,
}

/// The maximum to which engines scale FP8 values: e4m3fn's, e4m3fnuz's, and the one that vLLM takes for the latter.
const FP8: [(DType, f64); 3] = [(DType::E4M3Fn, 448.0), (DType::E4M3Fnuz, 240.0), (DType::E4M3Fnuz, 224.0)];

impl Inputs {
    /// From a whole `config.json`.
    pub fn read(c: &Object) -> Inputs {
        let Some(q) = c.object("quantization_config").or_else(|| c.object("compression_config")) else {
            return Inputs::default();
        };
        if let Some(groups) = q.object("config_groups") {
            return groups
                .values()
                .into_iter()
                .find_map(|g| g.object("input_activations"))
                .map_or_else(Inputs::default, |a| Inputs::of_activations(&a));
        }
        if q.text("quant_method") != Some("fp8") {
            return Inputs::default();
        }
        let stored = q.text("activation_scheme") == Some("static");
        let block = q.list("weight_block_size").and_then(|b| b.get(1)).and_then(|n| n.as_u64());
        let rounded = q.text("scale_fmt") == Some("ue8m0");
        let mut schemes: Vec<Quant> = Vec::new();
        for (dtype, max) in FP8 {
            match block {
                Some(k) => schemes.push(Quant::group(dtype, k as usize).max(max)),
                None if stored => schemes.push(Quant::tensor(dtype).max(max)),
                None => schemes.extend([Quant::token(dtype).max(max), Quant::tensor(dtype).max(max)]),
            }
        }
        if rounded {
            schemes = schemes.into_iter().map(|q| q.scales(DType::F32, ScaleRounding::PowerOfTwo)).collect();
        }
        Inputs { schemes, stored }
    }

    /// compressed-tensors' `input_activations`.
    fn of_activations(a: &Object) -> Inputs {
        let dynamic = a.flag("dynamic").unwrap_or(true);
        let kinds: &[(DType, f64)] = match (a.text("type"), a.count("num_bits")) {
            (Some("float"), Some(8)) => &FP8,
            (Some("int"), Some(8)) => &[(DType::I8, 127.0)],
            _ => return Inputs::default(),
        };
        let scheme = |&(dtype, max): &(DType, f64)| {
            let scheme = match a.text("strategy") {
                Some("group") => Quant::group(dtype, a.count("group_size").unwrap_or(128)),
                Some("token") => Quant::token(dtype),
                _ => Quant::tensor(dtype),
            };
            scheme.max(max)
        };
        Inputs { schemes: kinds.iter().map(scheme).collect(), stored: !dynamic }
    }
}

/// Values as they are after quantisation. With a precision, of values that are off by up to a rounding to it: a kernel
/// that fuses the quantisation with the operation before it never rounds them.
pub fn quantised(x: &Matrix, scheme: &Quant, p: Precision) -> Matrix {
    if x.rows == 0 || x.cols == 0 {
        return x.clone();
    }
    let moved;
    let x = if p == Precision::Exact {
        x
    } else {
        // Some fixed sequence that looks random.
        let noise = |i: usize| {
            let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
        };
        let values = x.data.iter().enumerate().map(|(i, v)| v * (1.0 + p.unit() * noise(i)));
        moved = Matrix::new(x.rows, x.cols, values.collect());
        &moved
    };
    quantize(x, scheme, scheme.global_factor(x)).decode()
}
