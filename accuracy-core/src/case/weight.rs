//! From a stored weight to what a kernel is given.

use super::Shape;
use super::input::{self, Data};
use crate::dtype::{DType, E8M0, F32, Overflow};
use crate::fuzz::Drawn;
use crate::layout::{DataLayout, ScaleLayout};
use crate::quant::{
    GlobalScale, Granularity, Padding, Quant, Quantized, ScaleRounding, ZeroPoint, amax, quantize,
};
use crate::reference::Matrix;
use crate::reference::stream::Weight;
use crate::weights::{self, Checkpoint, StoredWeight, WeightsError};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex};

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

    /// The part that a drawn case takes of a weight that is stored as `whole`; `None` where the test takes a part itself.
    pub(super) fn slice(self, whole: (usize, usize), drawn: &Drawn) -> Option<WeightForm> {
        let own =
            |part: &Option<Range<usize>>, len: usize| part.as_ref().is_none_or(|part| *part == (0..len));
        (own(&self.rows, whole.0) && own(&self.columns, whole.1)).then(|| WeightForm {
            rows: drawn.n.map(|n| 0..n).or(self.rows),
            columns: drawn.k.map(|k| 0..k).or(self.columns),
            ..self
        })
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
    pub data: Arc<Vec<u8>>,
    pub scheme: Option<Quant>,
    /// Scales and zero points, row-major over their grid.
    pub scales: Vec<f64>,
    pub zeros: Vec<f64>,
    /// The tensor-wide factor, else 1.
    pub factor: f64,
    /// The value before any quantisation; `None` where the codes are all that is known of it: then they are the truth.
    pub ideal: Option<Arc<Matrix>>,
}

impl Prepared {
    pub fn plain(ideal: Matrix, dtype: DType) -> Prepared {
        let data = dtype.encode_bytes(&ideal.data, Overflow::Special);
        Prepared {
            rows: ideal.rows,
            cols: ideal.cols,
            dtype,
            data: data.into(),
            scheme: None,
            scales: Vec::new(),
            zeros: Vec::new(),
            factor: 1.0,
            ideal: Some(Arc::new(ideal)),
        }
    }

    pub fn quantized(q: Quantized, scheme: Quant, ideal: Option<Matrix>) -> Prepared {
        let data = q.dtype.pack(q.codes.iter().copied()).into();
        Prepared {
            rows: q.rows,
            cols: q.cols,
            dtype: q.dtype,
            data,
            scheme: Some(scheme),
            scales: q.scales,
            zeros: q.zeros,
            factor: q.global,
            ideal: ideal.map(Arc::new),
        }
    }
}

impl Prepared {
    /// See [`input::inject_specials`].
    fn inject_specials(&mut self, data: &Data) -> Vec<usize> {
        input::inject_specials(
            self.dtype,
            (self.rows, self.cols),
            &mut Arc::make_mut(&mut self.data)[..],
            data,
        )
    }

    /// What the codes stand for.
    fn weight(&self) -> Weight<'_> {
        Weight {
            rows: self.rows,
            cols: self.cols,
            dtype: self.dtype,
            codes: self.data[..].into(),
            granularity: self.scheme.map_or(Granularity::Tensor, |s| s.granularity),
            scales: self.scales[..].into(),
            zeros: self.zeros[..].into(),
            global: self.factor,
            column_groups: None,
            magnitudes: false,
        }
    }
}

/// Weights of a case, made once for all of its runs on ordinary data.
#[derive(Clone, Default)]
pub struct PreparedWeights(Arc<Mutex<Vec<Known>>>);

/// A tensor, the form it is taken in, and what becomes of it.
type Known = (String, WeightForm, Arc<Prepared>);

impl PreparedWeights {
    pub(super) fn find(&self, tensor: &str, form: &WeightForm, data: &Data) -> Option<Arc<Prepared>> {
        if *data != Data::Ordinary {
            return None;
        }
        let known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        known.iter().find(|(t, f, _)| t == tensor && f == form).map(|(_, _, prepared)| prepared.clone())
    }

    pub(super) fn keep(
        &self,
        tensor: &str,
        form: &WeightForm,
        data: &Data,
        prepared: Prepared,
    ) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        if *data == Data::Ordinary {
            let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
            known.push((tensor.into(), form.clone(), prepared.clone()));
        }
        prepared
    }
}

/// `[rows, cols]` of a weight as the checkpoint has it; a vector is one row.
pub(crate) fn stored_shape(checkpoint: &Checkpoint, tensor: &str) -> Result<(usize, usize), WeightsError> {
    if checkpoint.raw(tensor).is_ok_and(|raw| raw.shape.len() == 1) {
        return Ok((1, checkpoint.raw(tensor)?.shape[0]));
    }
    let stored = checkpoint.linear(tensor)?;
    Ok((stored.rows, stored.cols))
}

/// Makes of a stored weight what a kernel takes, for the run's kind of data.
pub(super) fn prepare(stored: &StoredWeight<'_>, form: &WeightForm, data: &Data) -> Result<Prepared, String> {
    let (rows, cols) = form.part(stored.rows, stored.cols)?;
    // Columns of act-order are sorted by their groups, as engines do on loading.
    let sorted;
    let stored = match stored.column_groups {
        None => stored,
        Some(_) => {
            sorted = stored.in_group_order().map_err(|e| e.to_string())?;
            &sorted
        }
    };
    let one_level = stored.in_one_level();
    let stored = one_level.as_ref().unwrap_or(stored);
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
                    "stored as unquantised {}: give a scheme to quantise it to {dtype}, such as \
                     cx.weight(.., Quant::block({}, 128, 128))",
                    stored.dtype,
                    dtype.name().to_uppercase()
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
                    "stored as {}, wanted as {dtype}: give a scheme to quantise it to, such as \
                     cx.weight(.., Quant::channel({}))",
                    stored.dtype,
                    dtype.name().to_uppercase()
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
    if *data == Data::Ordinary && holds(stored, &scheme) {
        return verbatim(stored, &scheme, rows, cols);
    }
    if !stored.scales.is_empty() {
        return requantized(stored, &scheme, rows, cols, data);
    }
    let mut ideal = values();
    let quantized = quantize(&ideal, &scheme, scheme.global_factor(&ideal));
    let width = quantized.cols;
    let mut prepared = Prepared::quantized(quantized, scheme, None);
    let specials = prepared.inject_specials(data);
    // What the injected codes stand for is part of the weight.
    for at in specials {
        ideal.data[at] = prepared.weight().value(at / width, at % width);
    }
    prepared.ideal = Some(Arc::new(ideal));
    Ok(prepared)
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
    dtype.twin().filter(|twin| twin.is_fnuz())
}

/// The stored codes and scales of a part, converted where the architecture's variant is another one.
///
/// A code means half as much in the fnuz variant, so the scale doubles; `0x80`, negative zero, is NaN there and
/// becomes zero. NaN and Inf have no counterpart.
fn verbatim(
    stored: &StoredWeight<'_>,
    scheme: &Quant,
    rows: Range<usize>,
    cols: Range<usize>,
) -> Result<Prepared, String> {
    let converted = scheme.dtype != stored.dtype;
    let not_finite = |&code: &u8| !stored.dtype.decode(code.into()).is_finite();
    if let Some(at) = stored.codes.iter().position(not_finite).filter(|_| converted) {
        let (code, r, c) = (stored.codes[at], at / stored.cols, at % stored.cols);
        return Err(format!(
            "code {code:#04x} at [{r}, {c}] is not finite in {}, and has no counterpart in {}",
            stored.dtype, scheme.dtype
        ));
    }
    let mut data = codes_of_part(stored, &rows, &cols);
    if converted {
        data.iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 0);
    }
    let cells = |of: &[f64]| stored.granularity.part_of((stored.rows, stored.cols), of, &rows, &cols);
    let mut scales = cells(&stored.scales)?;
    if converted {
        scales.iter_mut().for_each(|scale| *scale *= 2.0);
    }
    let global = stored.global_scale.map_or(1.0, |g| g.apply(1.0));
    let mut prepared = Prepared {
        rows: rows.len(),
        cols: cols.len(),
        dtype: scheme.dtype,
        data: Arc::new(data),
        scheme: Some(*scheme),
        scales,
        zeros: if stored.zero_points.is_empty() { Vec::new() } else { cells(&stored.zero_points)? },
        // The checkpoint may store the factor's reciprocal, the kernel take the other.
        factor: scheme.global_scale.map_or(1.0, |scale| scale.round(global)),
        ideal: None,
    };
    prepared.inject_specials(&Data::Ordinary);
    Ok(prepared)
}

/// The codes of a part, packed.
fn codes_of_part(stored: &StoredWeight<'_>, rows: &Range<usize>, cols: &Range<usize>) -> Vec<u8> {
    let bits = stored.dtype.bits() as usize;
    let (begin, end) = (rows.start * stored.cols, rows.end * stored.cols);
    if cols.len() == stored.cols && (begin * bits).is_multiple_of(8) {
        return stored.codes[begin * bits / 8..(end * bits).div_ceil(8)].to_vec();
    }
    let at = rows.clone().flat_map(|r| cols.clone().map(move |c| r * stored.cols + c));
    stored.dtype.pack(at.map(|at| stored.dtype.code_at(&stored.codes, at)))
}

/// A quantised weight in another scheme, or with other values, some rows at a time: its values never exist whole.
fn requantized(
    stored: &StoredWeight<'_>,
    scheme: &Quant,
    rows: Range<usize>,
    cols: Range<usize>,
    data: &Data,
) -> Result<Prepared, String> {
    let source = Weight::from(stored);
    let (height, width, bits) = (rows.len(), cols.len(), scheme.dtype.bits() as usize);
    let values = |panel: Range<usize>| {
        let whole = source.values(rows.start + panel.start..rows.start + panel.end);
        input::weight_values(if width == whole.cols { whole } else { whole.columns(cols.clone()) }, data)
    };
    // Panels end at borders of cells and of bytes. What belongs to all of the tensor is looked for first.
    let of_tensor = scheme.granularity == Granularity::Tensor;
    let cell = if of_tensor { 1 } else { scheme.granularity.cell(height, width).0 };
    let step = if (cell * width * bits).is_multiple_of(8) { cell } else { 8 * cell };
    let panel = step * PANEL.div_ceil(step);
    let range = |i: usize| i * panel..height.min((i + 1) * panel);
    let mut scheme_of_panel = *scheme;
    let mut global = 1.0;
    if of_tensor && matches!(scheme.zero_point, ZeroPoint::PerCell { .. }) {
        let values = values(0..height);
        let quantized = quantize(&values, scheme, scheme.global_factor(&values));
        let mut prepared = Prepared::quantized(quantized, *scheme, None);
        prepared.inject_specials(data);
        return Ok(prepared);
    }
    if of_tensor || scheme.global_scale.is_some() {
        let largest = |i: usize| amax(&values(range(i)), Granularity::Tensor)[0];
        let all: Vec<f64> = (0..height.div_ceil(panel)).into_par_iter().map(largest).collect();
        let all = Matrix::new(1, all.len(), all);
        global = scheme.global_factor(&all);
        if of_tensor {
            let amax = amax(&all, Granularity::Tensor)[0];
            scheme_of_panel.static_scale = Some(scheme.scale_of(amax / global));
        }
    }
    let mut codes = vec![0; scheme.dtype.packed_len(height * width)];
    let cells: Vec<(Vec<f64>, Vec<f64>)> = codes
        .par_chunks_mut(panel * width * bits / 8)
        .enumerate()
        .map(|(i, codes)| {
            let q = quantize(&values(range(i)), &scheme_of_panel, global);
            codes.copy_from_slice(&q.dtype.pack(q.codes));
            (q.scales, q.zeros)
        })
        .collect();
    let (mut scales, mut zeros): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for (of_panel, zeros_of_panel) in cells {
        scales.extend(of_panel);
        zeros.extend(zeros_of_panel);
    }
    if of_tensor {
        scales.truncate(1);
        zeros.truncate(1);
    }
    let mut prepared = Prepared {
        rows: height,
        cols: width,
        dtype: scheme.dtype,
        data: Arc::new(codes),
        scheme: Some(*scheme),
        scales,
        zeros,
        factor: global,
        ideal: None,
    };
    prepared.inject_specials(data);
    Ok(prepared)
}

/// Rows that are quantised at a time.
const PANEL: usize = 64;
