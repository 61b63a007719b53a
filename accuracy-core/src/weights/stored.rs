//! One weight matrix in the form that every scheme is read into.

use std::borrow::Cow;
use std::fmt;

use super::gguf::Block;
use super::online::Online;
use super::{StDtype, WeightsError};
use crate::dtype::{DType, Overflow, to_fnuz};
use crate::quant::Granularity;

/// How a checkpoint stores a weight: which tensors there are and what their bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// f32, f16 or bf16 without scales.
    Unquantized,
    /// FP8 codes with float or e8m0 scales per tensor, channel, group or block.
    Fp8,
    /// int8 codes with float scales, with or without zero points.
    Int8,
    /// e2m1 codes, two a byte, with an e8m0 scale for 32 columns.
    Mxfp4,
    /// e4m3fn or e5m2 codes with an e8m0 scale for 32 columns.
    Mxfp8,
    /// e2m3 codes with an e8m0 scale for 32 columns.
    Mxfp6E2M3,
    /// e3m2 codes with an e8m0 scale for 32 columns.
    Mxfp6E3M2,
    /// e2m1 codes, two a byte, with an e4m3fn scale for 16 columns and one float scale for the tensor.
    Nvfp4,
    /// compressed-tensors `pack-quantized`: eight nibbles in an int32 along K.
    PackedInt4,
    /// compressed-tensors `pack-quantized` with 8 bits: four codes in an int32 along K.
    PackedInt8,
    /// GPTQ: eight nibbles in an int32 along K, stored transposed.
    Gptq,
    /// GPTQ with 8 bits: four codes in an int32 along K, stored transposed.
    GptqInt8,
    /// GPTQ with 2 bits.
    GptqInt2,
    /// GPTQ with 3 bits: 32 codes in three int32.
    GptqInt3,
    /// AWQ: eight nibbles in an int32 along N in its own order, stored transposed.
    Awq,
    /// Signed int4, two a byte along K (w4afp8, torchao) or along N (ModelOpt's AWQ).
    Int4,
    /// AMD Quark's int4: eight nibbles in an int32 along N, stored transposed, or along K; with a scale for the tensor
    /// beside the others where the values are FP8 before they are int4.
    QuarkInt4,
    /// Half-Quadratic Quantization: unsigned codes of up to 8 bits, with fractional zero points.
    Hqq,
    /// bitsandbytes: normal-float codes, two a byte, in blocks over the flattened matrix.
    BnbNf4,
    /// bitsandbytes: its own FP4, two a byte, in blocks over the flattened matrix.
    BnbFp4,
    /// A block format of GGUF files.
    Gguf(Block),
}

impl Scheme {
    /// Whether the values are computed in float32 when the weight is read, since no number format holds the codes: then
    /// [`StoredWeight::codes`] are float32 and nothing scales them.
    pub fn is_decoded(self) -> bool {
        match self {
            Scheme::BnbNf4 | Scheme::BnbFp4 => true,
            Scheme::Gguf(block) => block.has_minimum(),
            _ => false,
        }
    }

    /// Whether it is quantised; a bf16 tensor of a GGUF file is not.
    pub fn is_quantized(self) -> bool {
        self != Scheme::Unquantized
    }

    /// Whether the file itself says what its tensors are, whatever a configuration says.
    pub fn says_itself(self) -> bool {
        matches!(self, Scheme::Gguf(_))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scheme::Unquantized => "unquantised",
            Scheme::Fp8 => "FP8",
            Scheme::Int8 => "int8",
            Scheme::Mxfp4 => "MXFP4",
            Scheme::Mxfp8 => "MXFP8",
            Scheme::Mxfp6E2M3 => "MXFP6 e2m3",
            Scheme::Mxfp6E3M2 => "MXFP6 e3m2",
            Scheme::Nvfp4 => "NVFP4",
            Scheme::PackedInt4 => "packed int4",
            Scheme::PackedInt8 => "packed int8",
            Scheme::Gptq => "GPTQ",
            Scheme::GptqInt8 => "GPTQ int8",
            Scheme::GptqInt2 => "GPTQ int2",
            Scheme::GptqInt3 => "GPTQ int3",
            Scheme::Awq => "AWQ",
            Scheme::Int4 => "int4",
            Scheme::QuarkInt4 => "Quark int4",
            Scheme::Hqq => "HQQ",
            Scheme::BnbNf4 => "bitsandbytes NF4",
            Scheme::BnbFp4 => "bitsandbytes FP4",
            Scheme::Gguf(block) => block.name(),
        })
    }
}

/// The tensor-wide scale of NVFP4, which producers store the opposite way round, and of int4 behind FP8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GlobalScale {
    /// ModelOpt's `weight_scale_2`, and Quark's scale of FP8.
    Multiply(f64),
    /// compressed-tensors' `weight_global_scale`.
    Divide(f64),
}

impl GlobalScale {
    pub fn apply(self, x: f64) -> f64 {
        match self {
            GlobalScale::Multiply(s) => x * s,
            GlobalScale::Divide(s) => x / s,
        }
    }
}

/// A stored weight as its tensors' headers describe it. Fields as of [`StoredWeight`].
#[derive(Clone, Debug, PartialEq)]
pub struct WeightInfo {
    pub name: String,
    pub scheme: Scheme,
    /// Of a tensor that several experts share, how many they are; `rows` and `cols` are those of each.
    pub experts: Option<usize>,
    pub rows: usize,
    pub cols: usize,
    pub dtype: DType,
    pub granularity: Granularity,
    pub scale_dtype: Option<DType>,
    pub tensors: Vec<String>,
    /// The scale of the layer's input, where the checkpoint has one.
    pub input_scale: Option<String>,
    /// The configuration says that it has one.
    pub static_input: bool,
    /// It is quantised, and the configuration, which lists the modules that are, does not name it.
    pub untargeted: bool,
    /// What is done to the layer's input or output at run time: where there is any, `y = x·W` does not hold.
    pub online: Vec<Online>,
    /// Its tensors hold codes in another order than rows and columns, so that no part of them is a part of the weight.
    pub stored_otherwise: bool,
    /// The parts of its rows that can be addressed by name behind `#`: gate and up, or q, k and v.
    pub parts: &'static [&'static str],
}

/// A weight matrix `[rows, cols]` = `[N, K]`: its codes, and what they are to be multiplied with.
///
/// `value[r, c] = (code[r, c] - zero_points[cell]) * scales[cell]`, then `global_scale`, where `cell` is the scale
/// grid's cell of `(r, c)`.
#[derive(Clone, Debug)]
pub struct StoredWeight<'a> {
    /// As asked for: module or tensor, and part.
    pub name: String,
    pub scheme: Scheme,
    pub rows: usize,
    pub cols: usize,
    pub dtype: DType,
    /// Row-major codes `[rows, cols]` without gaps, in the order of [`DType::code_at`]: low nibble first for 4
    /// bits, little-endian words for 16 and 32.
    pub codes: Cow<'a, [u8]>,
    pub granularity: Granularity,
    /// The format that scales are stored in; those of e8m0 and e4m3fn encode back exactly.
    pub scale_dtype: Option<DType>,
    /// One multiplier for each cell, row-major over the grid `granularity.grid(rows, cols)`; empty when
    /// unquantised. For NVFP4 without the tensor-wide factor; see [`StoredWeight::effective_scales`].
    pub scales: Vec<f64>,
    /// One for each cell, in units of a code; empty where zero means zero.
    pub zero_points: Vec<f64>,
    pub global_scale: Option<GlobalScale>,
    /// Which column of the scale grid each column uses, where that is not `c / group`: GPTQ with `desc_act`.
    pub column_groups: Option<Vec<usize>>,
    /// The tensors it was read from, the weight first.
    pub tensors: Vec<String>,
}

impl StoredWeight<'_> {
    /// Rows and columns of the scale grid.
    pub fn grid(&self) -> (usize, usize) {
        self.granularity.grid(self.rows, self.cols)
    }

    /// The dequantised weight, row-major.
    ///
    /// Exact wherever f64 holds the product, which is everywhere but NVFP4 (one rounding, by the global scale).
    pub fn values(&self) -> Vec<f64> {
        if self.scales.is_empty() {
            return self.dtype.decode_bytes(&self.codes);
        }
        let (cell_rows, cell_cols) = self.granularity.cell(self.rows, self.cols);
        let grid_cols = self.grid().1;
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for r in 0..self.rows {
            let mut c = 0;
            while c < self.cols {
                // As many columns as share a scale.
                let (column, end) = match &self.column_groups {
                    Some(groups) => (groups[c], c + 1),
                    None => (c / cell_cols, self.cols.min((c / cell_cols + 1) * cell_cols)),
                };
                let cell = r / cell_rows * grid_cols + column;
                let (scale, zero) = (self.scales[cell], self.zero_points.get(cell).copied().unwrap_or(0.0));
                values.extend((c..end).map(|c| {
                    let code = self.dtype.code_at(&self.codes, r * self.cols + c);
                    let value = (self.dtype.decode(code) - zero) * scale;
                    self.global_scale.map_or(value, |global| global.apply(value))
                }));
                c = end;
            }
        }
        values
    }

    /// The weight as an engine hands it to kernels of gfx942: e4m3fnuz (or e5m2fnuz) codes, the scales doubled. Its
    /// values are the same.
    ///
    /// # Errors
    /// A weight that is no OCP FP8 or is converted already, one with NaN or infinite codes (which `fnuz` would read
    /// as finite), and a scale that its format cannot double.
    pub fn to_fnuz(&self) -> Result<StoredWeight<'static>, WeightsError> {
        let name = || self.name.clone();
        let not_fp8 = |source| WeightsError::Fnuz { weight: name(), source };
        let fnuz = to_fnuz(self.dtype, &self.codes).map_err(not_fp8)?;
        if let Some(&first) = fnuz.non_finite.first() {
            let count = fnuz.non_finite.len();
            return Err(WeightsError::NonFiniteCodes { weight: name(), dtype: self.dtype, count, first });
        }
        let scale_dtype = self.scale_dtype.unwrap_or(DType::F32);
        let double = |&scale: &f64| {
            let doubled = 2.0 * scale;
            let held = scale_dtype.decode(scale_dtype.encode(doubled, Overflow::Special)) == doubled;
            held.then_some(doubled).ok_or_else(|| WeightsError::ScaleOverflow {
                weight: name(),
                scale,
                scale_dtype,
            })
        };
        Ok(StoredWeight {
            name: self.name.clone(),
            dtype: fnuz.dtype,
            codes: Cow::Owned(fnuz.codes),
            scales: self.scales.iter().map(double).collect::<Result<_, _>>()?,
            zero_points: self.zero_points.clone(),
            column_groups: self.column_groups.clone(),
            tensors: self.tensors.clone(),
            ..*self
        })
    }

    /// Which column comes where once columns are sorted by their groups, as engines sort those of GPTQ with `desc_act` on
    /// loading: `order[i]` is the column that comes `i`th. `None` where they lie in that order.
    pub fn column_order(&self) -> Option<Vec<usize>> {
        let groups = self.column_groups.as_ref()?;
        let mut order: Vec<usize> = (0..self.cols).collect();
        order.sort_by_key(|&column| groups[column]);
        Some(order)
    }

    /// The weight with its columns sorted by their groups, see [`StoredWeight::column_order`]; itself where they are. It
    /// gives the same product with an input whose columns are sorted likewise.
    ///
    /// # Errors
    /// Groups of different sizes, which no granularity describes.
    pub fn in_group_order(&self) -> Result<StoredWeight<'_>, WeightsError> {
        let (Some(groups), Some(order)) = (&self.column_groups, self.column_order()) else {
            return Ok(self.clone());
        };
        let (_, size) = self.granularity.cell(self.rows, self.cols);
        if let Some(at) = (0..self.cols).find(|&i| groups[order[i]] != i / size) {
            return Err(WeightsError::BadPart {
                address: self.name.clone(),
                reason: format!(
                    "its groups of columns have different sizes (column {} is of group {}), so that they cannot be \
                     sorted into groups of {size}",
                    order[at], groups[order[at]]
                ),
            });
        }
        let columns = |r: usize| order.iter().map(move |c| r * self.cols + c);
        let codes = (0..self.rows).flat_map(columns).map(|at| self.dtype.code_at(&self.codes, at));
        Ok(StoredWeight { codes: Cow::Owned(self.dtype.pack(codes)), column_groups: None, ..self.clone() })
    }

    /// The weight with one level of scales, as engines load int4 of FP8: float scales with the tensor's in them, rounded
    /// to float32. `None` where there is one level, or the groups' scales are of 8 bits and have to stay apart.
    pub fn in_one_level(&self) -> Option<StoredWeight<'_>> {
        let wide = self.scale_dtype.is_none_or(|dtype| dtype.bits() > 8);
        if self.global_scale.is_none() || !wide {
            return None;
        }
        let scales = self.effective_scales().into_iter().map(|scale| f64::from(scale as f32)).collect();
        Some(StoredWeight { scales, scale_dtype: Some(DType::F32), global_scale: None, ..self.clone() })
    }

    /// [`StoredWeight::scales`] with the tensor-wide factor of NVFP4 in them, rounded to f64.
    pub fn effective_scales(&self) -> Vec<f64> {
        self.scales.iter().map(|&s| self.global_scale.map_or(s, |g| g.apply(s))).collect()
    }
}

/// The float formats that weights, scales and vectors are stored in without scales of their own.
pub(super) fn float_dtype(stored: StDtype) -> Option<DType> {
    match stored {
        StDtype::F32 => Some(DType::F32),
        StDtype::F16 => Some(DType::F16),
        StDtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
