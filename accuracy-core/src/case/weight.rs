//! From a stored weight to what a kernel is given.

use super::Shape;
use super::input::{self, Data};
use crate::dtype::{DType, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E8M0, F32, Overflow};
use crate::layout::{DataLayout, ScaleLayout};
use crate::quant::{GlobalScale, Padding, Quant, Quantized, ScaleRounding, ZeroPoint, quantize};
use crate::reference::Matrix;
use crate::weights::{self, Checkpoint, StoredWeight, WeightsError};
use std::ops::Range;

/// How a kernel takes a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightForm {
    target: Target,
    scale_layout: ScaleLayout,
    data_layout: DataLayout,
    padding: Padding,
    row_stride: Option<i64>,
    rows: Option<Range<usize>>,
    columns: Option<Range<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// The stored codes, or what an engine makes of them on loading.
    Stored(DType),
    Scheme(Quant),
}

impl From<DType> for WeightForm {
    fn from(dtype: DType) -> WeightForm {
        WeightForm {
            target: Target::Stored(dtype),
            scale_layout: ScaleLayout::RowMajor,
            data_layout: DataLayout::RowMajor,
            padding: Padding::Any,
            row_stride: None,
            rows: None,
            columns: None,
        }
    }
}

impl From<Quant> for WeightForm {
    fn from(scheme: Quant) -> WeightForm {
        WeightForm {
            target: Target::Scheme(scheme),
            scale_layout: scheme.scale_layout,
            data_layout: scheme.data_layout,
            padding: scheme.scale_padding,
            ..WeightForm::from(scheme.dtype)
        }
    }
}

impl WeightForm {
    /// Order of the scales in memory.
    pub fn layout(self, scale_layout: ScaleLayout) -> WeightForm {
        WeightForm { scale_layout, ..self }
    }

    /// Order of the codes in memory, such as a preshuffled one.
    pub fn data_layout(self, data_layout: DataLayout) -> WeightForm {
        WeightForm { data_layout, ..self }
    }

    /// What the padding of the scales' layout holds.
    pub fn padding(self, padding: Padding) -> WeightForm {
        WeightForm { padding, ..self }
    }

    /// Rows `stride` elements apart.
    pub fn row_stride(self, stride: i64) -> WeightForm {
        WeightForm { row_stride: Some(stride), ..self }
    }

    /// Some rows (output features) of the stored weight only: a shard of tensor parallelism along N, or the experts
    /// that a test takes.
    pub fn rows(self, rows: Range<usize>) -> WeightForm {
        WeightForm { rows: Some(rows), ..self }
    }

    /// Some columns (input features) of the stored weight only: a shard of tensor parallelism along K.
    pub fn columns(self, columns: Range<usize>) -> WeightForm {
        WeightForm { columns: Some(columns), ..self }
    }

    pub(super) fn shape(&self, rows: usize, cols: usize) -> Shape {
        let shape = Shape::new(rows, cols);
        self.row_stride.map_or(shape, |s| shape.row_stride(s))
    }

    /// The part of a weight of that shape that is taken.
    fn part(&self, rows: usize, cols: usize) -> Result<(Range<usize>, Range<usize>), String> {
        let part = (self.rows.clone().unwrap_or(0..rows), self.columns.clone().unwrap_or(0..cols));
        for (what, range, len) in [("rows", &part.0, rows), ("columns", &part.1, cols)] {
            if range.start >= range.end || range.end > len {
                return Err(format!("{what} {range:?} of a weight [{rows}, {cols}]"));
            }
        }
        Ok(part)
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
    /// Scales and zero points, row-major over their grid.
    pub scales: Vec<f64>,
    pub zeros: Vec<f64>,
    /// The tensor-wide factor, else 1.
    pub factor: f64,
    /// The value before any quantisation.
    pub ideal: Matrix,
}

impl Prepared {
    pub fn plain(ideal: Matrix, dtype: DType) -> Prepared {
        let data = dtype.encode_bytes(&ideal.data, Overflow::Special);
        Prepared {
            rows: ideal.rows,
            cols: ideal.cols,
            dtype,
            data,
            scheme: None,
            scales: Vec::new(),
            zeros: Vec::new(),
            factor: 1.0,
            ideal,
        }
    }

    /// `ideal` is `None` where the codes are all that is known of the weight: then they are the truth.
    pub fn quantized(q: Quantized, scheme: Quant, ideal: Option<Matrix>) -> Prepared {
        let data = q.dtype.pack(q.codes.iter().copied());
        let ideal = ideal.unwrap_or_else(|| q.decode());
        Prepared {
            rows: q.rows,
            cols: q.cols,
            dtype: q.dtype,
            data,
            scheme: Some(scheme),
            scales: q.scales,
            zeros: q.zeros,
            factor: q.global,
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
    let (rows, cols) = form.part(stored.rows, stored.cols)?;
    let values = || {
        let whole = Matrix::new(stored.rows, stored.cols, stored.values());
        let part = Matrix::new(
            rows.len(),
            stored.cols,
            whole.data[rows.start * stored.cols..rows.end * stored.cols].to_vec(),
        );
        input::weight_values(part.columns(cols.clone()), data)
    };
    let scheme = match form.target {
        Target::Stored(dtype) if stored.scales.is_empty() => {
            if stored.dtype.is_integer() || dtype.bits() <= 8 {
                return Err(format!(
                    "stored as unquantised {}: give a scheme such as Quant::block({dtype}, 128, 128) to quantise it to {dtype}",
                    stored.dtype
                ));
            }
            if form.data_layout != DataLayout::RowMajor {
                return Err(format!("a data layout is for quantised weights; taken as {dtype}"));
            }
            return Ok(Prepared::plain(values(), dtype));
        }
        Target::Stored(dtype) => {
            if dtype != stored.dtype && native_twin(stored.dtype) != Some(dtype) {
                return Err(format!(
                    "stored as {}, wanted as {dtype}: that needs a scheme to quantise to",
                    stored.dtype
                ));
            }
            stored_scheme(stored, dtype)
        }
        Target::Scheme(scheme) => scheme,
    };
    let scheme = scheme.layout(form.scale_layout).data_layout(form.data_layout).padding(form.padding);
    if let Some(problem) = scheme.problem() {
        return Err(problem);
    }
    if stored.column_groups.is_some() {
        return Err(
            "its columns are quantised in another order than they lie in (act-order, g_idx): a kernel \
                    needs the permutation too, which no scheme here declares"
                .into(),
        );
    }
    let verbatim = *data == Data::Ordinary && holds(stored, &scheme);
    let (mut quantized, ideal) = if verbatim {
        let mut part = native(stored, scheme.dtype)?.part(rows, cols)?;
        // The checkpoint may store the factor's reciprocal, the kernel take the other.
        part.global = scheme.global_scale.map_or(1.0, |global| global.round(part.global));
        (part, None)
    } else {
        let values = values();
        let quantized = quantize(&values, &scheme, scheme.global_factor(&values));
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

/// The scheme that a stored weight has by itself.
fn stored_scheme(stored: &StoredWeight<'_>, dtype: DType) -> Quant {
    // Engines keep bfloat16 and float16 scales as float32.
    let scale_dtype = stored.scale_dtype.filter(|d| d.bits() == 8).unwrap_or(F32);
    let zero_point = match &stored.zero_points[..] {
        [] => ZeroPoint::None,
        [first, rest @ ..] if dtype == DType::U4 && rest.iter().all(|z| z == first) => {
            ZeroPoint::Fixed(*first as i32)
        }
        _ => ZeroPoint::per_cell(dtype, ScaleLayout::RowMajor),
    };
    let scheme = Quant {
        granularity: stored.granularity,
        scale_dtype,
        global_scale: stored.global_scale.map(|g| match g {
            weights::GlobalScale::Multiply(_) => GlobalScale::Multiply,
            weights::GlobalScale::Divide(_) => GlobalScale::Divide,
        }),
        ..Quant::tensor(dtype).zero_point(zero_point)
    };
    let rounding = if scale_dtype == E8M0 { ScaleRounding::Ceil } else { ScaleRounding::Nearest };
    scheme.scales(scale_dtype, rounding)
}

/// Whether a scheme can hold the stored codes, scales and zero points as they are.
fn holds(stored: &StoredWeight<'_>, scheme: &Quant) -> bool {
    let same = stored.granularity == scheme.granularity
        && !stored.scales.is_empty()
        && (stored.dtype == scheme.dtype || native_twin(stored.dtype) == Some(scheme.dtype))
        && stored.global_scale.is_some() == scheme.global_scale.is_some()
        && scheme.static_scale.is_none();
    let exact = |dtype: DType, x: f64| dtype.decode(dtype.encode(x, Overflow::Special)) == x;
    let zeros = match scheme.zero_point {
        ZeroPoint::None => stored.zero_points.is_empty(),
        ZeroPoint::Fixed(z) => {
            !stored.zero_points.is_empty() && stored.zero_points.iter().all(|&p| p == f64::from(z))
        }
        ZeroPoint::PerCell { dtype, .. } => {
            !stored.zero_points.is_empty() && stored.zero_points.iter().all(|&p| exact(dtype, p))
        }
    };
    same && zeros && stored.scales.iter().all(|&s| exact(scheme.scale_dtype, s))
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
    let mut scales = stored.scales.clone();
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
        zeros: stored.zero_points.clone(),
        global: stored.global_scale.map_or(1.0, |g| g.apply(1.0)),
    })
}
