//! From a stored weight to what a kernel is given.

use super::Shape;
use super::input::{self, Data};
use crate::dtype::{DType, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, F32, Overflow};
use crate::layout::ScaleLayout;
use crate::quant::{Quant, Quantized, ScaleRounding, quantize};
use crate::reference::Matrix;
use crate::weights::{Checkpoint, StoredWeight, WeightsError};

/// How a kernel takes a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightForm {
    target: Target,
    scale_layout: ScaleLayout,
    row_stride: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// The stored codes, or what an engine makes of them on loading.
    Stored(DType),
    Scheme(Quant),
}

impl From<DType> for WeightForm {
    fn from(dtype: DType) -> WeightForm {
        WeightForm { target: Target::Stored(dtype), scale_layout: ScaleLayout::RowMajor, row_stride: None }
    }
}

impl From<Quant> for WeightForm {
    fn from(scheme: Quant) -> WeightForm {
        WeightForm { target: Target::Scheme(scheme), scale_layout: scheme.scale_layout, row_stride: None }
    }
}

impl WeightForm {
    /// Order of the scales in memory.
    pub fn layout(self, scale_layout: ScaleLayout) -> WeightForm {
        WeightForm { scale_layout, ..self }
    }

    /// Rows `stride` elements apart.
    pub fn row_stride(self, stride: i64) -> WeightForm {
        WeightForm { row_stride: Some(stride), ..self }
    }

    pub(super) fn shape(&self, rows: usize, cols: usize) -> Shape {
        let shape = Shape::new(rows, cols);
        self.row_stride.map_or(shape, |s| shape.row_stride(s))
    }
}

/// A leaf, ready to be laid out in memory.
pub(super) struct Prepared {
    pub rows: usize,
    pub cols: usize,
    pub dtype: DType,
    /// Elements, row-major and packed.
    pub data: Vec<u8>,
    pub scheme: Option<Quant>,
    /// Scales, row-major over their grid.
    pub scales: Vec<f64>,
    /// The value before any quantisation.
    pub ideal: Matrix,
}

impl Prepared {
    pub fn plain(ideal: Matrix, dtype: DType) -> Prepared {
        let data = dtype.encode_bytes(&ideal.data, Overflow::Saturate);
        Prepared { rows: ideal.rows, cols: ideal.cols, dtype, data, scheme: None, scales: Vec::new(), ideal }
    }

    /// `ideal` is `None` where the codes are all that is known of the weight: then they are the truth.
    fn quantized(q: Quantized, scheme: Quant, ideal: Option<Matrix>) -> Prepared {
        let data = q.dtype.pack(q.codes.iter().copied());
        let ideal = ideal.unwrap_or_else(|| q.decode());
        Prepared {
            rows: q.rows,
            cols: q.cols,
            dtype: q.dtype,
            data,
            scheme: Some(scheme),
            scales: q.scales,
            ideal,
        }
    }
}

/// `[rows, cols]` of a weight as the checkpoint has it; a vector is one row.
pub(super) fn stored_shape(checkpoint: &Checkpoint, tensor: &str) -> Result<(usize, usize), WeightsError> {
    if checkpoint.raw(tensor).is_ok_and(|raw| raw.shape.len() == 1) {
        return Ok((1, checkpoint.raw(tensor)?.shape[0]));
    }
    let stored = checkpoint.linear(tensor)?;
    Ok((stored.rows, stored.cols))
}

/// Makes of a stored weight what a kernel takes, for the run's kind of data.
pub(super) fn prepare(stored: &StoredWeight<'_>, form: &WeightForm, data: &Data) -> Result<Prepared, String> {
    let (rows, cols) = (stored.rows, stored.cols);
    let scheme = match form.target {
        Target::Stored(dtype) if stored.scales.is_empty() => {
            if stored.dtype.is_integer() || dtype.bits() <= 8 {
                return Err(format!(
                    "stored as unquantised {}: give a scheme such as Quant::block({dtype}, 128, 128) to quantise it to {dtype}",
                    stored.dtype
                ));
            }
            let values = Matrix::new(rows, cols, stored.values());
            return Ok(Prepared::plain(input::weight_values(values, data), dtype));
        }
        Target::Stored(dtype) => {
            if dtype != stored.dtype && native_twin(stored.dtype) != Some(dtype) {
                return Err(format!(
                    "stored as {}, wanted as {dtype}: that needs a scheme to quantise to",
                    stored.dtype
                ));
            }
            let scale_dtype = stored.scale_dtype.unwrap_or(F32);
            Quant {
                dtype,
                granularity: stored.granularity,
                // Engines keep bfloat16 and float16 scales as float32.
                scale_dtype: if scale_dtype == crate::dtype::E8M0 { scale_dtype } else { F32 },
                scale_layout: form.scale_layout,
                scale_rounding: ScaleRounding::Nearest,
                max: dtype.max(),
                amax_floor: 0.0,
            }
        }
        Target::Scheme(scheme) => scheme.layout(form.scale_layout),
    };
    if let Some(problem) = scheme.problem() {
        return Err(problem);
    }
    let verbatim = stored.granularity == scheme.granularity
        && !stored.scales.is_empty()
        && (stored.dtype == scheme.dtype || native_twin(stored.dtype) == Some(scheme.dtype));
    let (mut quantized, ideal) = if verbatim && *data == Data::Ordinary {
        (native(stored, scheme.dtype)?, None)
    } else {
        let values = input::weight_values(Matrix::new(rows, cols, stored.values()), data);
        let quantized = quantize(&values, &scheme);
        (quantized, if stored.scales.is_empty() { Some(values) } else { None })
    };
    let specials = input::inject_specials(&mut quantized, data);
    // What the injected codes stand for is part of the weight.
    let ideal = ideal.map(|mut ideal| {
        let decoded = quantized.decode();
        for i in specials {
            ideal.data[i] = decoded.data[i];
        }
        ideal
    });
    Ok(Prepared::quantized(quantized, scheme, ideal))
}

/// The variant of gfx942 that an engine converts a stored format to, with the scale doubled.
fn native_twin(dtype: DType) -> Option<DType> {
    match dtype {
        d if d == E4M3FN => Some(E4M3FNUZ),
        d if d == E5M2 => Some(E5M2FNUZ),
        _ => None,
    }
}

/// The stored codes, converted where the architecture's variant is another one.
///
/// A code means half as much in the fnuz variant, so the scale doubles; `0x80`, negative zero, is NaN there and
/// becomes zero. NaN and Inf have no counterpart.
fn native(stored: &StoredWeight<'_>, dtype: DType) -> Result<Quantized, String> {
    let mut codes: Vec<u32> = stored.dtype.codes(&stored.codes).take(stored.rows * stored.cols).collect();
    let mut scales = stored.effective_scales();
    if dtype != stored.dtype {
        for (i, code) in codes.iter_mut().enumerate() {
            if !stored.dtype.decode(*code).is_finite() {
                let (r, c) = (i / stored.cols, i % stored.cols);
                return Err(format!(
                    "code {code:#04x} at [{r}, {c}] is not finite in {}, and has no counterpart in {dtype}",
                    stored.dtype
                ));
            }
            if *code == 0x80 {
                *code = 0;
            }
        }
        scales.iter_mut().for_each(|s| *s *= 2.0);
    }
    Ok(Quantized {
        rows: stored.rows,
        cols: stored.cols,
        granularity: stored.granularity,
        dtype,
        codes,
        scales,
    })
}
