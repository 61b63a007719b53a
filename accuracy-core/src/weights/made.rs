//! Weights whose codes do not lie in the file as they are read: sparse ones, int4 along N, blocks of bitsandbytes, HQQ
//! and GGUF. What they become is described from headers; the codes are made when the weight is loaded.

use serde_json::Value;

use super::gguf::{Block, Decoded, Element};
use super::resolve::{Codes, Recipe, Scale, ScaleOrder, Subject, Zeros, expect_dtype, expect_shape};
use super::stored::float_dtype;
use super::{RawTensor, Scheme, StDtype, WeightsError, json, packed};
use crate::dtype::{DType, Overflow};
use crate::quant::Granularity;

/// Codes that are made when the weight is loaded.
pub(super) enum Made<'a> {
    /// What is not zero, in the order of the rows; the mask has a bit for each element, the lowest first.
    Sparse {
        values: RawTensor<'a>,
        mask: RawTensor<'a>,
        element: DType,
    },
    /// Bytes `[N/2, K]`: row `2i` in the low nibble, `2i + 1` in the high one.
    NibblesAlongRows(RawTensor<'a>),
    /// Codes `[K, N]`, one a byte.
    Transposed(RawTensor<'a>),
    Int4AboveMinimum(Int4AboveMinimum<'a>),
    Blocks {
        bytes: RawTensor<'a>,
        block: Block,
    },
    BitsAndBytes(BitsAndBytes<'a>),
    Hqq(Hqq<'a>),
}

/// Codes and, where the tensors do not hold them one by one, scales and zero points.
pub(super) struct Loaded {
    pub codes: Vec<u8>,
    pub scales: Option<Vec<f64>>,
    pub zero_points: Option<Vec<f64>>,
}

impl Loaded {
    fn codes(codes: Vec<u8>) -> Loaded {
        Loaded { codes, scales: None, zero_points: None }
    }
}

impl Made<'_> {
    pub fn load(&self, rows: usize, cols: usize) -> Result<Loaded, WeightsError> {
        match self {
            Made::Sparse { values, mask, element } => {
                sparse(values, mask, *element, (rows, cols)).map(Loaded::codes)
            }
            Made::NibblesAlongRows(tensor) => {
                let nibble = |r: usize, c: usize| tensor.bytes[r / 2 * cols + c] >> (4 * (r % 2)) & 0xf;
                let codes = (0..rows).flat_map(|r| (0..cols).map(move |c| u32::from(nibble(r, c))));
                Ok(Loaded::codes(DType::I4.pack(codes)))
            }
            Made::Transposed(tensor) => {
                let codes = (0..rows).flat_map(|r| (0..cols).map(move |c| tensor.bytes[c * rows + r]));
                Ok(Loaded::codes(codes.collect()))
            }
            Made::Int4AboveMinimum(int4) => Ok(Loaded::codes(int4.decode(rows, cols))),
            Made::Blocks { bytes, block } => {
                let Decoded { codes, scales, zero_points } = block.decode(bytes.bytes);
                Ok(Loaded { codes, scales: Some(scales), zero_points: Some(zero_points) })
            }
            Made::BitsAndBytes(state) => state.decode(rows * cols).map(Loaded::codes),
            Made::Hqq(packed) => Ok(packed.decode(rows, cols)),
        }
    }
}

/// Writes what is not zero to its places.
fn sparse(
    values: &RawTensor,
    mask: &RawTensor,
    element: DType,
    (rows, cols): (usize, usize),
) -> Result<Vec<u8>, WeightsError> {
    let size = element.bits() as usize / 8;
    let width = cols.div_ceil(8);
    let mut codes = vec![0; rows * cols * size];
    let mut stored = values.bytes.chunks_exact(size);
    let count = stored.len();
    let mut taken = 0;
    for at in 0..rows * cols {
        let (r, c) = (at / cols, at % cols);
        if mask.bytes[r * width + c / 8] >> (c % 8) & 1 == 1 {
            taken += 1;
            if let Some(value) = stored.next() {
                codes[at * size..][..size].copy_from_slice(value);
            }
        }
    }
    if taken != count {
        return Err(WeightsError::BadValue {
            tensor: mask.name.to_owned(),
            index: 0,
            value: taken as i64,
            expected: format!("as many bits set as `{}` has values, {count}", values.name),
        });
    }
    Ok(codes)
}

/// `compressed`, `bitmask`, `shape` and, where quantised, `weight_scale`: compressed-tensors with 2:4 or any other
/// sparsity.
pub(super) fn sparse_bitmask(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let missing = |name: &str| subject.missing(name);
    let mask = subject.companion(".bitmask")?.ok_or_else(|| missing(".bitmask"))?;
    let shape_tensor = subject.companion(".shape")?.ok_or_else(|| missing(".shape"))?;
    expect_dtype(&mask, StDtype::U8)?;
    let (rows, cols) = stored_shape(&shape_tensor)?;
    expect_shape(&mask, &[rows, cols.div_ceil(8)], "(N, K / 8)")?;
    let values = subject.weight;
    let more = |found: usize| found > rows.saturating_mul(cols);
    if more(values.bytes.len() / (values.dtype.bitsize() / 8).max(1)) {
        return Err(WeightsError::WrongShape {
            name: values.name.to_owned(),
            expected: format!("no more values than [{rows}, {cols}] has"),
            found: values.shape.to_vec(),
        });
    }
    let (scheme, element) = match values.dtype {
        StDtype::F8_E4M3 => (Scheme::Fp8, DType::E4M3Fn),
        StDtype::F8_E5M2 => (Scheme::Fp8, DType::E5M2),
        StDtype::I8 => (Scheme::Int8, DType::I8),
        found => match float_dtype(found) {
            Some(float) => (Scheme::Unquantized, float),
            None => {
                return Err(WeightsError::WrongDtype {
                    name: values.name.to_owned(),
                    expected: "a float, FP8 or I8 weight".to_owned(),
                    found,
                });
            }
        },
    };
    let made = Made::Sparse { values, mask, element };
    let others = [mask.name.to_owned(), shape_tensor.name.to_owned()];
    let mut recipe = match scheme {
        Scheme::Unquantized => subject.recipe(scheme, element, (rows, cols)),
        _ => subject.scaled_as(element, (rows, cols))?,
    };
    recipe.codes = Codes::Made(Box::new(made));
    recipe.info.tensors.extend(others);
    Ok(recipe)
}

/// Two whole numbers that a tensor holds: N and K.
pub(super) fn stored_shape(tensor: &RawTensor) -> Result<(usize, usize), WeightsError> {
    let count = tensor.shape.iter().product::<usize>();
    let size = match tensor.dtype {
        StDtype::I64 => 8,
        StDtype::I32 => 4,
        found => {
            return Err(WeightsError::WrongDtype {
                name: tensor.name.to_owned(),
                expected: "I64".to_owned(),
                found,
            });
        }
    };
    let number = |at: usize| -> Option<usize> {
        let bytes = tensor.bytes.get(at * size..(at + 1) * size)?;
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(bytes);
        usize::try_from(i64::from_le_bytes(wide)).ok().filter(|&n| n > 0 && n <= u32::MAX as usize)
    };
    match (count, number(0), number(1)) {
        (2, Some(rows), Some(cols)) => Ok((rows, cols)),
        _ => Err(WeightsError::WrongShape {
            name: tensor.name.to_owned(),
            expected: "two positive numbers, N and K".to_owned(),
            found: tensor.shape.to_vec(),
        }),
    }
}

/// Signed int4 in bytes `[N/2, K]` with a scale for each group of columns: ModelOpt's AWQ.
pub(super) fn int4_along_rows<'a>(
    subject: Subject<'a>,
    scale: RawTensor<'a>,
) -> Result<Recipe<'a>, WeightsError> {
    let (half, cols) = subject.matrix()?;
    let shape = (2 * half, cols);
    let bytes = subject.weight;
    // The range of FP8 that the values are brought to before they are multiplied; no part of them.
    let of_fp8 = subject.companion(".weight_scale_2")?;
    let mut recipe = subject.grouped_floats(Scheme::Int4, DType::I4, shape, scale)?;
    recipe.info.tensors.extend(of_fp8.iter().map(|t| t.name.to_owned()));
    recipe.info.stored_otherwise = true;
    recipe.codes = Codes::Made(Box::new(Made::NibblesAlongRows(bytes)));
    Ok(recipe)
}

/// torchao's `Int4Tensor`: signed codes, the first in the low nibble, scales and zero points `[groups, N]`. A zero point
/// is a value, which is added: `code * scale + zero`.
pub(super) fn torchao_int4(subject: Subject<'_>, symmetric: bool) -> Result<Recipe<'_>, WeightsError> {
    let (rows, half) = subject.matrix()?;
    let shape = (rows, 2 * half);
    let part = |name: &str| -> Result<RawTensor<'_>, WeightsError> {
        subject.companion(name)?.ok_or_else(|| subject.missing(name))
    };
    let (scale, zero) = (part("._weight_scale")?, part("._weight_zero_point")?);
    let (scale_dtype, zero_dtype) = (packed::float_scale(&scale)?, packed::float_scale(&zero)?);
    let &[groups, of_rows] = scale.shape else {
        return Err(subject.scale_shape(&scale, shape, "[groups, N]".to_owned()));
    };
    if of_rows != rows || groups == 0 || !shape.1.is_multiple_of(groups) {
        return Err(subject.scale_shape(&scale, shape, format!("[groups, {rows}]")));
    }
    expect_shape(&zero, scale.shape, &format!("like `{}`", scale.name))?;
    subject.claims(&[Scheme::Int4])?;
    let codes = subject.weight;
    let zeros = zero_dtype.decode_bytes(zero.bytes);
    if symmetric && zeros.iter().any(|&zero| zero != 0.0) {
        let reason = format!("`{}` is not zero, and activations are FP8", zero.name);
        return Err(subject.unread("torchao's Int4Tensor".to_owned(), reason));
    }
    let dtype = if symmetric { DType::I4 } else { DType::F32 };
    let mut recipe = subject.recipe(Scheme::Int4, dtype, shape);
    if symmetric {
        recipe.info.granularity = Granularity::Group(shape.1 / groups);
        recipe.scaled_by(Scale { order: ScaleOrder::Transposed, ..Scale::new(scale, scale_dtype) });
    } else {
        recipe.info.tensors.push(scale.name.to_owned());
        let scales = scale_dtype.decode_bytes(scale.bytes);
        let made = Int4AboveMinimum { codes, groups, scales, zeros };
        recipe.codes = Codes::Made(Box::new(Made::Int4AboveMinimum(made)));
    }
    recipe.info.tensors.push(zero.name.to_owned());
    recipe.info.stored_otherwise = true;
    Ok(recipe)
}

/// Signed int4 with a zero point that is a value, which no zero point in units of a code is exactly.
pub(super) struct Int4AboveMinimum<'a> {
    codes: RawTensor<'a>,
    groups: usize,
    /// `[groups, N]`, as the zero points.
    scales: Vec<f64>,
    zeros: Vec<f64>,
}

impl Int4AboveMinimum<'_> {
    /// The values as float32.
    fn decode(&self, rows: usize, cols: usize) -> Vec<u8> {
        let group = cols / self.groups;
        let value = |i: usize| {
            let (row, column) = (i / cols, i % cols);
            let cell = column / group * rows + row;
            DType::I4.decode(DType::I4.code_at(self.codes.bytes, i)) * self.scales[cell] + self.zeros[cell]
        };
        let values: Vec<f64> = (0..rows * cols).map(value).collect();
        DType::F32.encode_bytes(&values, Overflow::Special)
    }
}

/// Blocks of a GGUF file, or the error that a type which is not read has.
pub(super) fn gguf<'a>(subject: Subject<'a>) -> Result<Recipe<'a>, WeightsError> {
    let block = match subject.weight.element {
        Element::Block(block) => block,
        Element::Other(name, number) => {
            let seems = if name.is_empty() { format!("GGUF type {number}") } else { format!("GGUF {name}") };
            let known: Vec<&str> = Block::ALL.iter().filter_map(|b| b.name().strip_prefix("GGUF ")).collect();
            return Err(subject.unread(seems, format!("read are {}", known.join(", "))));
        }
        Element::Plain => return Err(subject.unread("no quantised GGUF type".to_owned(), String::new())),
    };
    let (rows, width) = subject.matrix()?;
    let shape = (rows, width / block.bytes() * block.values());
    let bytes = subject.weight;
    let mut recipe = subject.recipe(Scheme::Gguf(block), block.dtype(), shape);
    recipe.info.granularity = block.granularity();
    recipe.info.scale_dtype = block.scale_dtype();
    recipe.codes = Codes::Made(Box::new(Made::Blocks { bytes, block }));
    Ok(recipe)
}

/// `weight` of one column, with `absmax`, `quant_map` and a `quant_state` that is JSON: bitsandbytes with 4 bits.
pub(super) struct BitsAndBytes<'a> {
    codes: RawTensor<'a>,
    /// What each of the 16 codes stands for.
    map: Vec<f32>,
    absmax: RawTensor<'a>,
    block: usize,
    /// Where the blocks' scales are quantised themselves.
    nested: Option<Nested<'a>>,
}

struct Nested<'a> {
    absmax: RawTensor<'a>,
    /// What each of the 256 codes stands for.
    map: Vec<f32>,
    block: usize,
    offset: f32,
}

fn f32s(tensor: &RawTensor) -> Result<Vec<f32>, WeightsError> {
    expect_dtype(tensor, StDtype::F32)?;
    Ok(tensor.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
}

/// A weight with a tensor of its own for each part of bitsandbytes' state.
pub(super) fn bitsandbytes<'a>(
    subject: Subject<'a>,
    state: RawTensor<'a>,
) -> Result<Recipe<'a>, WeightsError> {
    let bad = |reason: String| WeightsError::BadState { tensor: state.name.to_owned(), reason };
    let value: Value = json::from_slice(state.bytes).map_err(|e| bad(format!("not JSON: {e}")))?;
    let number = |key: &str| value.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let positive = |key: &str| {
        number(key).filter(|&n| n > 0).ok_or_else(|| bad(format!("no positive whole number `{key}`")))
    };
    let scheme = match value.get("quant_type").and_then(Value::as_str) {
        Some("nf4") => Scheme::BnbNf4,
        Some("fp4") => Scheme::BnbFp4,
        other => return Err(bad(format!("quant_type {other:?}, expected nf4 or fp4"))),
    };
    let shape: Option<Vec<usize>> = value
        .get("shape")
        .and_then(Value::as_array)
        .map(|s| s.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect())
        .unwrap_or(None);
    let &[rows, cols] = shape.as_deref().unwrap_or_default() else {
        return Err(bad("no `shape` of two dimensions".to_owned()));
    };
    let elements = rows.checked_mul(cols).filter(|&n| n > 0 && n.div_ceil(2) == subject.weight.bytes.len());
    let elements = elements.ok_or_else(|| {
        bad(format!(
            "shape [{rows}, {cols}], but `{}` has {} bytes",
            subject.weight.name,
            subject.weight.bytes.len()
        ))
    })?;
    let of_tensor = |ending: &str| {
        let name = format!("{}.{ending}", subject.weight.name);
        subject
            .find(std::slice::from_ref(&name))?
            .ok_or_else(|| subject.missing(&format!(".weight.{ending}")))
    };
    let (absmax, map) = (of_tensor("absmax")?, of_tensor("quant_map")?);
    let block = positive("blocksize")?;
    let blocks = elements.div_ceil(block);
    expect_shape(&absmax, &[blocks], "(one for each block)")?;
    expect_shape(&map, &[16], "(one for each code)")?;
    let mut tensors = vec![absmax.name, map.name, state.name];
    let nested = if value.get("nested_blocksize").is_some_and(|v| !v.is_null()) {
        expect_dtype(&absmax, StDtype::U8)?;
        let (of_absmax, of_map) = (of_tensor("nested_absmax")?, of_tensor("nested_quant_map")?);
        let block = positive("nested_blocksize")?;
        expect_dtype(&of_absmax, StDtype::F32)?;
        expect_shape(&of_absmax, &[blocks.div_ceil(block)], "(one for each block of scales)")?;
        expect_shape(&of_map, &[256], "(one for each code)")?;
        tensors.extend([of_absmax.name, of_map.name]);
        let offset = value.get("nested_offset").and_then(Value::as_f64).unwrap_or(0.0) as f32;
        Some(Nested { absmax: of_absmax, map: f32s(&of_map)?, block, offset })
    } else {
        expect_dtype(&absmax, StDtype::F32)?;
        None
    };
    let tensors: Vec<String> = tensors.into_iter().map(str::to_owned).collect();
    subject.claims(&[scheme])?;
    let made = BitsAndBytes { codes: subject.weight, map: f32s(&map)?, absmax, block, nested };
    let mut recipe = subject.recipe(scheme, DType::F32, (rows, cols));
    recipe.info.tensors.extend(tensors);
    recipe.codes = Codes::Made(Box::new(Made::BitsAndBytes(made)));
    Ok(recipe)
}

impl BitsAndBytes<'_> {
    /// The values as float32, computed in float32 as the library does.
    fn decode(&self, count: usize) -> Result<Vec<u8>, WeightsError> {
        let scales: Vec<f32> = match &self.nested {
            None => f32s(&self.absmax)?,
            Some(nested) => {
                let of_blocks = f32s(&nested.absmax)?;
                let scale = |(i, &code): (usize, &u8)| {
                    nested.map[usize::from(code)] * of_blocks[i / nested.block] + nested.offset
                };
                self.absmax.bytes.iter().enumerate().map(scale).collect()
            }
        };
        // The first of two codes is in the high nibble.
        let code = |i: usize| self.codes.bytes[i / 2] >> (4 * (1 - i % 2)) & 0xf;
        let value = |i: usize| self.map[usize::from(code(i))] * scales[i / self.block];
        Ok((0..count).flat_map(|i| value(i).to_le_bytes()).collect())
    }
}

/// `W_q`, `scale`, `zero`, `shape` and what says how they are packed.
pub(super) struct Hqq<'a> {
    packed: RawTensor<'a>,
    bits: usize,
    /// Codes in a group; groups run along the flattened matrix (axis 1) or across it (axis 0).
    group: usize,
    axis: usize,
    scales: Vec<f64>,
    zeros: Vec<f64>,
}

/// The one number that a tensor holds.
fn number(tensor: &RawTensor) -> Option<f64> {
    let bytes = tensor.bytes;
    Some(match tensor.dtype {
        StDtype::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        StDtype::I32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        StDtype::U8 | StDtype::BOOL => f64::from(*bytes.first()?),
        found => *float_dtype(found)?.decode_bytes(bytes).first()?,
    })
}

pub(super) fn hqq(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let part = |name: &str| -> Result<RawTensor<'_>, WeightsError> {
        subject.companion(name)?.ok_or_else(|| subject.missing(name))
    };
    let (scale, zero, shape) = (part(".scale")?, part(".zero")?, part(".shape")?);
    let (rows, cols) = stored_shape(&shape)?;
    let packed = subject.weight;
    let unread = |reason: String| subject.unread("HQQ".to_owned(), reason);
    let count = rows.checked_mul(cols).ok_or_else(|| unread(format!("shape [{rows}, {cols}]")))?;
    let floats = |tensor: &RawTensor| {
        let dtype = float_dtype(tensor.dtype);
        let dtype = dtype
            .ok_or_else(|| unread(format!("`{}` is {}, quantised itself", tensor.name, tensor.dtype)))?;
        Ok::<Vec<f64>, WeightsError>(dtype.decode_bytes(tensor.bytes))
    };
    let (scales, zeros) = (floats(&scale)?, floats(&zero)?);
    let groups = scales.len();
    if groups == 0 || zeros.len() != groups || !count.is_multiple_of(groups) {
        return Err(subject.scale_shape(
            &scale,
            (rows, cols),
            format!("one for each group of {count} values"),
        ));
    }
    let group = count / groups;
    // `[groups, 1]` or `[1, groups]`; of one group either is the same.
    let axis = match *scale.shape {
        [_, 1] => 1,
        [1, _] => 0,
        _ => return Err(subject.scale_shape(&scale, (rows, cols), "[groups, 1] or [1, groups]".to_owned())),
    };
    let said = subject.companion(".nbits")?.as_ref().and_then(number);
    let bits = match (packed.dtype, said) {
        (StDtype::U8, said) => {
            let bits = packed.bytes.len() * 8 / count.max(1);
            let fits = [1, 2, 4, 8].contains(&bits) && packed.bytes.len() * 8 == bits * count;
            if !fits || said.is_some_and(|said| said != bits as f64) {
                return Err(unread(format!("{} bytes of codes for {count} values", packed.bytes.len())));
            }
            bits
        }
        (found, _) => return Err(unread(format!("codes of {said:?} bits in {found}"))),
    };
    let lines = if axis == 1 { groups } else { group };
    if !lines.is_multiple_of(8 / bits) {
        return Err(unread(format!("{lines} lines of codes do not fill bytes of {bits} bits each")));
    }
    let names = [&scale, &zero, &shape].map(|t| t.name.to_owned());
    subject.claims(&[Scheme::Hqq])?;
    let whole_rows = axis == 1 && cols.is_multiple_of(group);
    let dtype = match (whole_rows, bits) {
        (false, _) => DType::F32,
        (true, 4) => DType::U4,
        (true, _) => DType::I8,
    };
    let others = subject.siblings(&names);
    let mut recipe = subject.recipe(Scheme::Hqq, dtype, (rows, cols));
    recipe.info.tensors.extend(names);
    recipe.info.tensors.extend(others);
    if whole_rows {
        recipe.info.granularity = Granularity::Group(group);
        recipe.info.scale_dtype = float_dtype(scale.dtype);
    }
    recipe.codes = Codes::Made(Box::new(Made::Hqq(Hqq { packed, bits, group, axis, scales, zeros })));
    Ok(recipe)
}

impl Hqq<'_> {
    /// The code at a place of the matrix `[lines, width]` that was packed: the first of so many parts of the lines is in
    /// the highest bits.
    fn code(&self, line: usize, column: usize, lines: usize, width: usize) -> u8 {
        let step = lines / (8 / self.bits);
        let shift = 8 - self.bits * (line / step + 1);
        let mask = (0xffu16 >> (8 - self.bits)) as u8;
        self.packed.bytes[line % step * width + column] >> shift & mask
    }

    fn decode(&self, rows: usize, cols: usize) -> Loaded {
        let count = rows * cols;
        let groups = count / self.group;
        let code = |i: usize| match self.axis {
            1 => self.code(i / self.group, i % self.group, groups, self.group),
            _ => self.code(i / groups, i % groups, self.group, groups),
        };
        if self.axis == 1 && cols.is_multiple_of(self.group) {
            // Codes of eight bits are read as int8, less 128.
            let less = if self.bits == 8 { 128 } else { 0 };
            let dtype = if self.bits == 4 { DType::U4 } else { DType::I8 };
            let codes = dtype.pack((0..count).map(|i| u32::from(code(i).wrapping_sub(less))));
            let zeros = self.zeros.iter().map(|zero| zero - f64::from(less)).collect();
            return Loaded { codes, scales: Some(self.scales.clone()), zero_points: Some(zeros) };
        }
        let group_of = |i: usize| if self.axis == 1 { i / self.group } else { i % groups };
        let value = |i: usize| (f64::from(code(i)) - self.zeros[group_of(i)]) * self.scales[group_of(i)];
        let values: Vec<f64> = (0..count).map(value).collect();
        Loaded::codes(DType::F32.encode_bytes(&values, Overflow::Special))
    }
}

/// bitsandbytes' int8: `weight` I8 with `SCB`, the largest magnitude of each row.
pub(super) fn int8_of_rows<'a>(
    subject: Subject<'a>,
    largest: RawTensor<'a>,
) -> Result<Recipe<'a>, WeightsError> {
    let shape = subject.matrix()?;
    expect_shape(&largest, &[shape.0], "(N)")?;
    expect_dtype(&largest, StDtype::F32)?;
    if let Some(format) = subject.companion(".weight_format")?
        && format.bytes.first() != Some(&0)
    {
        let code = format.bytes.first().copied().unwrap_or_default();
        return Err(
            subject.unread("bitsandbytes int8".to_owned(), format!("weight_format {code}, not by rows (0)"))
        );
    }
    let format = subject.companion(".weight_format")?;
    subject.claims(&[Scheme::Int8])?;
    let mut recipe = subject.recipe(Scheme::Int8, DType::I8, shape);
    recipe.info.granularity = Granularity::Row;
    recipe.info.tensors.extend(format.iter().map(|t| t.name.to_owned()));
    recipe.scaled_by(Scale { divisor: 127.0, ..Scale::new(largest, DType::F32) });
    // The scale comes second, as everywhere.
    let last = recipe.info.tensors.len() - 1;
    recipe.info.tensors.swap(1, last);
    recipe.zeros = Zeros::None;
    Ok(recipe)
}
