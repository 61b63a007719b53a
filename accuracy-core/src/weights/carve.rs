//! Parts of stored weights as they are stored, for smaller checkpoints: codes, scales and zero points cut on the same
//! borders. Reading them is in [`super::resolve`].

use std::ops::Range;

use super::{
    Checkpoint, NewTensor, RawTensor, Role, Scheme, StDtype, WeightInfo, WeightsError, packed, role,
};
use crate::dtype::DType;
use crate::quant::Granularity;

/// The part of a weight to take, `None` where all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carve {
    /// Of a tensor that several experts share.
    pub experts: Option<Range<usize>>,
    /// Output features, of each expert.
    pub rows: Option<Range<usize>>,
    /// Input features.
    pub columns: Option<Range<usize>>,
}

/// What a dimension of a tensor runs along; one index stands for so many rows or columns of the weight.
#[derive(Clone, Copy)]
enum Axis {
    Rows(usize),
    Columns(usize),
    Whole,
}

impl WeightInfo {
    /// Whether no part of its rows or columns can be cut out of its tensors: it is taken whole or converted.
    pub fn is_in_one_piece(&self) -> bool {
        let bits_in_words = matches!(self.scheme, Scheme::GptqInt2 | Scheme::GptqInt3 | Scheme::QuarkInt4);
        let in_blocks =
            matches!(self.scheme, Scheme::Hqq | Scheme::BnbNf4 | Scheme::BnbFp4 | Scheme::Gguf(_));
        let sparse = self.tensors.first().is_some_and(|tensor| tensor.ends_with(".compressed"));
        bits_in_words || in_blocks || sparse || self.stored_otherwise
    }
}

impl Checkpoint {
    /// Tensors that say what is done to a layer's input at run time, of part of its columns.
    ///
    /// # Errors
    /// A part that such a tensor cannot be cut to.
    pub fn carve_online(&self, module: &str, part: &Carve) -> Result<Vec<NewTensor>, WeightsError> {
        let info = self.describe(module)?;
        let whole = Carve { experts: part.experts.clone(), ..Carve::default() };
        let mut cutter = Cutter::new(module, &info, &whole)?;
        cutter.rows = part.rows.clone().unwrap_or(cutter.rows);
        cutter.columns = part.columns.clone().unwrap_or(cutter.columns);
        let beside = self.extras().beside.get(module).into_iter().flatten();
        beside.map(|name| cutter.beside(&self.raw(name)?)).collect()
    }

    /// The tensors of part of a weight in the form in which they are stored, and the scales of its layer's input.
    ///
    /// `module` is as [`Checkpoint::linear`] takes it, without a part behind `#`.
    ///
    /// # Errors
    /// As [`Checkpoint::describe`], and a range that is empty, reaches beyond the weight, or cuts through a scale's
    /// cell or a word of packed codes.
    pub fn carve(&self, module: &str, part: &Carve) -> Result<Vec<NewTensor>, WeightsError> {
        let info = self.describe(module)?;
        if matches!(info.scheme, Scheme::Gguf(_)) {
            let reason =
                format!("{} has no form in safetensors: convert it (`--to` names a scheme)", info.scheme);
            return Err(WeightsError::BadPart { address: module.to_owned(), reason });
        }
        let cutter = Cutter::new(module, &info, part)?;
        let mut tensors = Vec::new();
        for name in &info.tensors {
            tensors.push(cutter.cut(&self.raw(name)?)?);
        }
        let module = match role(&info.tensors[0]) {
            Role::Weight { module } => module,
            _ => module,
        };
        // What belongs to no weight, but to the layer: scales of its input, and what is done to that at run time.
        let extras = self.extras();
        for name in extras.inputs.get(module).into_iter().flatten() {
            if !info.tensors.iter().any(|tensor| **tensor == **name) {
                tensors.push(cutter.of_experts(&self.raw(name)?)?);
            }
        }
        for name in extras.beside.get(module).into_iter().flatten() {
            tensors.push(cutter.beside(&self.raw(name)?)?);
        }
        Ok(tensors)
    }
}

struct Cutter<'a> {
    info: &'a WeightInfo,
    experts: Option<Range<usize>>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<'a> Cutter<'a> {
    fn new(module: &str, info: &'a WeightInfo, part: &Carve) -> Result<Cutter<'a>, WeightsError> {
        let bad = |reason| WeightsError::BadPart { address: module.to_owned(), reason };
        if module.contains('#') {
            return Err(bad("parts are given as ranges here, not behind `#`".to_owned()));
        }
        let within = |what: &str, range: &Option<Range<usize>>, len: usize| match range {
            None => Ok(0..len),
            Some(range) if range.start < range.end && range.end <= len => Ok(range.clone()),
            Some(range) => Err(bad(format!("{what} {range:?} are not within its {len}"))),
        };
        let experts = match (info.experts, &part.experts) {
            (None, Some(_)) => return Err(bad("its tensor is of one matrix, not of experts".to_owned())),
            (None, None) => None,
            (Some(count), range) => Some(within("experts", range, count)?),
        };
        let whole = |range: &Option<Range<usize>>, len: usize| range.as_ref().is_none_or(|r| *r == (0..len));
        if !(whole(&part.rows, info.rows) && whole(&part.columns, info.cols)) && info.is_in_one_piece() {
            return Err(bad(format!(
                "{} is stored in one piece: take all rows and columns, or convert it (`--to` names a scheme)",
                info.scheme
            )));
        }
        Ok(Cutter {
            info,
            experts,
            rows: within("rows", &part.rows, info.rows)?,
            columns: within("columns", &part.columns, info.cols)?,
        })
    }

    fn bad(&self, reason: String) -> WeightsError {
        WeightsError::BadPart { address: self.info.name.clone(), reason }
    }

    /// What the dimensions of one of the weight's tensors run along, that of the experts left out.
    fn axes(&self, tensor: &RawTensor, shape: &[usize]) -> Vec<Axis> {
        use Axis::*;
        let info = self.info;
        let (cell_rows, cell_columns) = info.granularity.cell(info.rows, info.cols);
        // One scale a row serves any columns of it.
        let group = match info.granularity {
            Granularity::Row | Granularity::Tensor => Whole,
            _ => Columns(cell_columns),
        };
        let is = |ending: &str| tensor.name.ends_with(ending);
        let gptq = matches!(info.scheme, Scheme::Gptq | Scheme::GptqInt8);
        let pack_quantized = matches!(info.scheme, Scheme::PackedInt4 | Scheme::PackedInt8);
        let transposed = gptq || info.scheme == Scheme::Awq;
        // Codes in an int32.
        let word = (u32::BITS / info.dtype.bits()) as usize;
        if tensor.name == info.tensors[0] {
            return match (info.scheme, tensor.dtype) {
                (Scheme::Awq, _) => vec![Columns(1), Rows(word)],
                _ if gptq => vec![Columns(word), Rows(1)],
                _ if pack_quantized => vec![Rows(1), Columns(word)],
                _ if is("blocks") => vec![Rows(1), Columns(32), Whole],
                (_, StDtype::U8 | StDtype::I8) if info.dtype.bits() == 4 => vec![Rows(1), Columns(2)],
                _ => vec![Rows(1), Columns(1)],
            };
        }
        match shape.len() {
            _ if is("g_idx") => vec![Columns(1)],
            2 if transposed => vec![group, Rows(if is(".qzeros") { word } else { 1 })],
            2 if pack_quantized && is("_zero_point") => vec![Rows(word), group],
            _ if shape.iter().product::<usize>() == 1 => vec![Whole; shape.len()],
            1 => vec![Rows(1)],
            2 => vec![Rows(cell_rows), group],
            // Dimensions of one that producers keep.
            4 if shape[1] == 1 && shape[3] == 1 => vec![Rows(cell_rows), Whole, group, Whole],
            _ => vec![Whole; shape.len()],
        }
    }

    fn cut(&self, tensor: &RawTensor) -> Result<NewTensor, WeightsError> {
        if self.info.is_in_one_piece() {
            return self.of_experts(tensor);
        }
        let mut ranges = Vec::new();
        let mut shape = tensor.shape;
        if let (Some(experts), [_, of_each @ ..]) = (&self.experts, shape) {
            ranges.push(experts.clone());
            shape = of_each;
        }
        if tensor.name.ends_with(".weight_shape") {
            let shape = [self.rows.len(), self.columns.len()].map(|n| (n as i64).to_le_bytes());
            return Ok(NewTensor {
                name: tensor.name.to_owned(),
                dtype: tensor.dtype,
                shape: tensor.shape.to_vec(),
                bytes: shape.concat(),
            });
        }
        for (axis, &len) in self.axes(tensor, shape).into_iter().zip(shape) {
            ranges.push(match axis {
                Axis::Whole => 0..len,
                Axis::Rows(unit) => self.on_border(tensor, "rows", &self.rows, unit, self.info.rows)?,
                Axis::Columns(unit) => {
                    self.on_border(tensor, "columns", &self.columns, unit, self.info.cols)?
                }
            });
        }
        let mut cut = self.slice(tensor, &ranges)?;
        if tensor.name.ends_with("g_idx") {
            cut.bytes = self.column_groups(tensor, cut.bytes)?;
        }
        Ok(cut)
    }

    /// A range of rows or columns in steps of `unit`.
    fn on_border(
        &self,
        tensor: &RawTensor,
        what: &str,
        range: &Range<usize>,
        unit: usize,
        len: usize,
    ) -> Result<Range<usize>, WeightsError> {
        let border = |at: usize| at.is_multiple_of(unit) || at == len;
        if border(range.start) && border(range.end) {
            return Ok(range.start / unit..range.end.div_ceil(unit));
        }
        Err(self.bad(format!(
            "{what} {range:?} of {len} cut through what `{}` stores for {unit} of them: \
             begin and end on a multiple of {unit}",
            tensor.name
        )))
    }

    /// `g_idx` counts the groups that are there; those of an unused one are -1.
    fn column_groups(&self, tensor: &RawTensor, cut: Vec<u8>) -> Result<Vec<u8>, WeightsError> {
        let info = self.info;
        if self.columns.len() == info.cols {
            return Ok(cut);
        }
        let groups = info.granularity.grid(info.rows, info.cols).1;
        let one = RawTensor { bytes: &tensor.bytes[..4 * info.cols], ..*tensor };
        if packed::column_groups(one, info.granularity, groups)?.is_some() {
            return Err(self.bad(format!(
                "`{}` puts its columns into groups out of order (act-order): take all columns",
                tensor.name
            )));
        }
        let first = (self.columns.start / info.granularity.cell(info.rows, info.cols).1) as i32;
        let rebased = DType::I32.codes(&cut).map(|code| code as i32);
        let rebased = rebased.map(|group| if group < 0 { group } else { group - first });
        Ok(rebased.flat_map(i32::to_le_bytes).collect())
    }

    /// A factor for each column of the input, or a matrix whose rows or columns are the weight's.
    fn beside(&self, tensor: &RawTensor) -> Result<NewTensor, WeightsError> {
        let info = self.info;
        let all = self.rows.len() == info.rows && self.columns.len() == info.cols;
        let mut ranges: Vec<Range<usize>> = tensor.shape.iter().map(|&len| 0..len).collect();
        match (ranges.last_mut(), tensor.shape) {
            _ if all => (),
            (Some(last), [len]) if *len == info.cols => *last = self.columns.clone(),
            _ => {
                return Err(self.bad(format!("`{}` goes with it: take all rows and columns", tensor.name)));
            }
        }
        self.slice(tensor, &ranges)
    }

    /// All of a tensor but the experts that are not taken.
    fn of_experts(&self, tensor: &RawTensor) -> Result<NewTensor, WeightsError> {
        let mut ranges: Vec<Range<usize>> = tensor.shape.iter().map(|&len| 0..len).collect();
        if let (Some(experts), Some(first)) = (&self.experts, ranges.first_mut())
            && Some(first.len()) == self.info.experts
        {
            *first = experts.clone();
        }
        self.slice(tensor, &ranges)
    }

    /// A hyperrectangle of a row-major tensor.
    fn slice(&self, tensor: &RawTensor, ranges: &[Range<usize>]) -> Result<NewTensor, WeightsError> {
        let bits = tensor.dtype.bitsize();
        let mut bytes = Vec::new();
        match (ranges.split_last(), tensor.shape.last()) {
            (Some((last, outer)), Some(&width)) => {
                let mut lines = vec![0];
                for (range, &len) in outer.iter().zip(tensor.shape) {
                    lines = lines.iter().flat_map(|&l| range.clone().map(move |i| l * len + i)).collect();
                }
                for line in lines {
                    let (begin, end) = ((line * width + last.start) * bits, (line * width + last.end) * bits);
                    if !begin.is_multiple_of(8) || !end.is_multiple_of(8) {
                        let reason = format!("`{}` {:?} is cut within a byte", tensor.name, tensor.shape);
                        return Err(self.bad(reason));
                    }
                    bytes.extend_from_slice(&tensor.bytes[begin / 8..end / 8]);
                }
            }
            _ => bytes.extend_from_slice(tensor.bytes),
        }
        Ok(NewTensor {
            name: tensor.name.to_owned(),
            dtype: tensor.dtype,
            shape: ranges.iter().map(Range::len).collect(),
            bytes,
        })
    }
}
