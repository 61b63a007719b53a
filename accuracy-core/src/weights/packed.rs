//! Integer weights packed into int32: GPTQ, AWQ, AMD Quark and compressed-tensors `pack-quantized`.
//!
//! Codes of 8 bits are stored plus 128, as their zero points are; both are read as int8, less 128.

use std::borrow::Cow;

use super::made::Made;
use super::resolve::{Codes, Recipe, Scale, ScaleOrder, Subject, Zeros, expect_dtype, expect_shape};
use super::stored::float_dtype;
use super::{RawTensor, Scheme, StDtype, WeightsError};
use crate::dtype::{DType, NibbleOrder};
use crate::quant::Granularity;

/// The middle of codes of 8 bits.
pub(super) const MIDDLE_OF_8_BITS: u32 = 128;

/// Where code `(r, c)` of a `[rows, cols]` matrix sits in a tensor of int32 that holds `n` codes a word. Edges are
/// filled to whole words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Words `[rows, cols / n]`, low first along the columns.
    Cols,
    /// Words `[rows / n, cols]`, low first along the rows.
    Rows,
    /// Words `[cols / n, rows]`, low first along the columns.
    ColsTransposed,
    /// Words `[cols, rows / n]`, low first along the rows.
    RowsTransposed,
    /// The same, in AWQ's order of eight nibbles.
    RowsTransposedAwq,
    /// Words `[rows, cols / n]`, AWQ's order along the columns.
    ColsAwq,
}

/// Codes of 2, 3, 4 or 8 bits in int32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    pub order: Order,
    pub bits: u32,
    /// Codes of 4 bits, and zero points of them, are in two's complement.
    pub signed: bool,
}

impl Packing {
    pub fn new(order: Order, bits: u32) -> Packing {
        Packing { order, bits, signed: false }
    }

    /// Words that so many codes fill; three of them hold 32 codes of three bits.
    fn words(self, codes: usize) -> usize {
        (codes * self.bits as usize).div_ceil(32)
    }

    /// The `at`th code of a line of words.
    fn code(self, at: usize, word: impl Fn(usize) -> u32) -> u32 {
        if matches!(self.order, Order::RowsTransposedAwq | Order::ColsAwq) {
            return NibbleOrder::Awq.get(word(at / 8), at % 8);
        }
        let bit = at * self.bits as usize;
        let (first, shift) = (bit / 32, bit % 32);
        let low = u64::from(word(first)) >> shift;
        // Codes of three bits may lie in two words.
        let over = shift + self.bits as usize > 32;
        let high = if over { u64::from(word(first + 1)) << (32 - shift) } else { 0 };
        ((low | high) & ((1 << self.bits) - 1)) as u32
    }

    /// Row-major codes as they are stored.
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize) -> impl Iterator<Item = u32> + '_ {
        let (row_words, col_words) = (self.words(rows), self.words(cols));
        let word = |at: usize| DType::I32.code_at(bytes, at);
        (0..rows * cols).map(move |i| {
            let (r, c) = (i / cols, i % cols);
            match self.order {
                Order::Cols | Order::ColsAwq => self.code(c, |w| word(r * col_words + w)),
                Order::Rows => self.code(r, |w| word(w * cols + c)),
                Order::ColsTransposed => self.code(c, |w| word(w * rows + r)),
                Order::RowsTransposed | Order::RowsTransposedAwq => self.code(r, |w| word(c * row_words + w)),
            }
        })
    }

    /// Row-major codes: two a byte, or int8.
    pub fn codes(self, bytes: &[u8], rows: usize, cols: usize) -> Cow<'_, [u8]> {
        match (self.bits, self.order) {
            // The words' bytes in memory already are the order wanted.
            (4, Order::Cols) if cols.is_multiple_of(8) => Cow::Borrowed(bytes),
            (4, _) => Cow::Owned(DType::U4.pack(self.unpack(bytes, rows, cols))),
            (2 | 3, _) => Cow::Owned(self.unpack(bytes, rows, cols).map(|code| code as u8).collect()),
            // Less 128 is the highest bit the other way round.
            _ => Cow::Owned(self.unpack(bytes, rows, cols).map(|code| code as u8 ^ 0x80).collect()),
        }
    }

    /// Row-major zero points, in units of the codes above.
    pub fn zero_points(self, bytes: &[u8], rows: usize, cols: usize, plus: f64) -> Vec<f64> {
        let middle = if self.bits == 8 { f64::from(MIDDLE_OF_8_BITS) } else { 0.0 };
        let value = |zero: u32| if self.signed { DType::I4.decode(zero) } else { f64::from(zero) };
        self.unpack(bytes, rows, cols).map(|zero| value(zero) + plus - middle).collect()
    }
}

/// `qweight`, `qzeros`, `scales` and, for GPTQ, `g_idx`. The two differ in the dimension that is packed.
pub(super) fn gptq_or_awq(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let (words_down, words_across) = subject.matrix()?;
    expect_dtype(&subject.weight, StDtype::I32)?;
    let scales = subject.find_scale(vec![subject.named(".scales")])?;
    let &[groups, rows] = scales.shape else {
        return Err(subject.scale_shape(&scales, (words_across, 8 * words_down), "[groups, N]".to_owned()));
    };
    let zeros = subject.companion(".qzeros")?.ok_or_else(|| WeightsError::ZeroPointsMissing {
        weight: subject.weight.name.to_owned(),
        looked_for: subject.named(".qzeros"),
    })?;
    let gptq = words_across == rows;
    let awq = words_across.checked_mul(8) == Some(rows);
    let &[_, zero_words] = zeros.shape else {
        expect_shape(&zeros, &[groups, rows.div_ceil(8)], "(groups, N / 8)")?;
        return Err(subject.scale_shape(&scales, (words_across, 8 * words_down), "[groups, N]".to_owned()));
    };
    // Zero points are packed as the codes are, along N, whose length is known. One word may be enough for several.
    let of_bits =
        |bits: usize| (rows * bits).div_ceil(32) == zero_words && (words_down * 32).is_multiple_of(bits);
    let claimed = GPTQ.into_iter().find(|(scheme, bits)| subject.claims_any(*scheme) && of_bits(*bits));
    let usual = [4, 8, 2, 3].into_iter().find(|&bits| of_bits(bits)).unwrap_or(4);
    let (scheme, bits) = match (gptq, awq) {
        (true, false) => {
            claimed.unwrap_or_else(|| GPTQ.into_iter().find(|(_, b)| *b == usual).unwrap_or(GPTQ[0]))
        }
        (false, true) => (Scheme::Awq, 4),
        _ => {
            let expected = format!("[groups, {words_across}] (GPTQ) or [groups, {}] (AWQ)", 8 * words_across);
            return Err(subject.scale_shape(&scales, (words_across, 8 * words_down), expected));
        }
    };
    let shape = if gptq { (rows, words_down * 32 / bits) } else { (rows, words_down) };
    let claims = subject.claims(&[scheme])?;
    let plus = match (scheme, claims.iter().find_map(|claim| claim.zeros_minus_one)) {
        (Scheme::Awq, _) => 0.0,
        (_, Some(minus_one)) => f64::from(u8::from(minus_one)),
        (_, None) => match middle_of(&zeros, bits) {
            Some(plus) => plus,
            None => {
                return Err(WeightsError::Ambiguous {
                    weight: subject.weight.name.to_owned(),
                    reason: "GPTQ's first format stores zero points minus one, gptq_v2 as they are; \
                             quantization_config in config.json has to say which"
                        .to_owned(),
                });
            }
        },
    };
    let granularity = subject.granularity(&claims, &scales, &[rows, groups], shape, false)?;
    let scale_dtype = float_scale(&scales)?;
    expect_dtype(&zeros, StDtype::I32)?;
    expect_shape(&zeros, &[groups, (rows * bits).div_ceil(32)], &format!("(groups, N / {})", 32 / bits))?;
    let column_groups = subject.companion(".g_idx")?;
    if let Some(g_idx) = &column_groups {
        expect_dtype(g_idx, StDtype::I32)?;
        expect_shape(g_idx, &[shape.1], "(K)")?;
    }

    let weight = subject.weight;
    let dtype = if bits == 4 { DType::U4 } else { DType::I8 };
    let bits = bits as u32;
    let mut recipe = subject.recipe(scheme, dtype, shape);
    let (codes, zero_order) = match scheme {
        Scheme::Awq => (Order::RowsTransposedAwq, Order::RowsTransposedAwq),
        _ => (Order::ColsTransposed, Order::RowsTransposed),
    };
    recipe.codes = Codes::Int32(weight, Packing::new(codes, bits));
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale { order: ScaleOrder::Transposed, ..Scale::new(scales, scale_dtype) });
    recipe.info.tensors.push(zeros.name.to_owned());
    recipe.info.tensors.extend(column_groups.iter().map(|t| t.name.to_owned()));
    recipe.zeros = Zeros::Int32 { tensor: zeros, packing: Packing::new(zero_order, bits), plus };
    recipe.column_groups = column_groups;
    Ok(recipe)
}

/// `weight_packed`, `weight_shape`, `weight_scale` and, where asymmetric, `weight_zero_point`; `weight_g_idx` where
/// columns are reordered.
pub(super) fn pack_quantized(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let (rows, words) = subject.matrix()?;
    let stored_shape = subject.companion(".weight_shape")?;
    let (cols, of_a_word) = match &stored_shape {
        None if subject.claims_any(Scheme::PackedInt8) => (4 * words, 4),
        None => (8 * words, 8),
        Some(tensor) => {
            expect_dtype(tensor, StDtype::I64)?;
            expect_shape(tensor, &[2], "(N, K)")?;
            let stored =
                [0, 8].map(|at| i64::from_le_bytes(tensor.bytes[at..at + 8].try_into().expect("8 bytes")));
            let cols = usize::try_from(stored[1]).ok().filter(|_| usize::try_from(stored[0]) == Ok(rows));
            let fits = |n: usize| Some((cols.filter(|cols| cols.div_ceil(n) == words)?, n));
            // A word may be enough for either.
            let first = if subject.claims_any(Scheme::PackedInt8) { 4 } else { 8 };
            match fits(first).or_else(|| fits(12 - first)) {
                Some(found) => found,
                None => {
                    let expected = format!("[{}, {} / {first}] by `{}`", stored[0], stored[1], tensor.name);
                    return Err(WeightsError::WrongShape {
                        name: subject.weight.name.to_owned(),
                        expected,
                        found: subject.weight.shape.to_vec(),
                    });
                }
            }
        }
    };
    let (scheme, dtype, bits) = match of_a_word {
        4 => (Scheme::PackedInt8, DType::I8, 8),
        _ => (Scheme::PackedInt4, DType::U4, 4),
    };
    let claims = subject.claims(&[scheme])?;
    let shape = (rows, cols);
    let scale = subject.find_scale(vec![subject.named(".weight_scale")])?;
    let scale_dtype = float_scale(&scale)?;
    let granularity = subject.granularity(&claims, &scale, scale.shape, shape, false)?;
    let (grid_rows, grid_cols) = granularity.grid(rows, cols);
    let zeros = subject.companion(".weight_zero_point")?;
    if zeros.is_none() {
        subject.require_zero_points(&claims, subject.named(".weight_zero_point"))?;
    }
    if let Some(zeros) = &zeros {
        expect_dtype(zeros, StDtype::I32)?;
        expect_shape(
            zeros,
            &[grid_rows.div_ceil(of_a_word), grid_cols],
            &format!("(N / {of_a_word}, groups)"),
        )?;
    }
    let column_groups = subject.companion(".weight_g_idx")?;
    if let Some(g_idx) = &column_groups {
        expect_dtype(g_idx, StDtype::I32)?;
        expect_shape(g_idx, &[cols], "(K)")?;
    }

    let weight = subject.weight;
    let mut recipe = subject.recipe(scheme, dtype, shape);
    recipe.codes = Codes::Int32(weight, Packing::new(Order::Cols, bits));
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale::new(scale, scale_dtype));
    let others = stored_shape.iter().chain(&zeros).chain(&column_groups);
    recipe.info.tensors.extend(others.map(|t| t.name.to_owned()));
    // Codes and zero points are both stored plus the middle, which cancels.
    recipe.zeros = match zeros {
        Some(tensor) => Zeros::Int32 { tensor, packing: Packing::new(Order::Rows, bits), plus: 0.0 },
        None if bits == 8 => Zeros::None,
        None => Zeros::All(8.0),
    };
    recipe.column_groups = column_groups;
    Ok(recipe)
}

/// GPTQ's schemes and the bits of their codes.
const GPTQ: [(Scheme, usize); 4] =
    [(Scheme::Gptq, 4), (Scheme::GptqInt8, 8), (Scheme::GptqInt2, 2), (Scheme::GptqInt3, 3)];

/// What has to be added to stored zero points, where all of them are the middle of the codes or one less.
fn middle_of(zeros: &RawTensor, bits: usize) -> Option<f64> {
    let packing = Packing::new(Order::Cols, bits as u32);
    let count = zeros.bytes.len() / 4 * 32 / bits;
    let middle = 1 << (bits - 1);
    let all_are = |zero: u32| packing.unpack(zeros.bytes, 1, count).all(|z| z == zero);
    match () {
        () if count == 0 => None,
        () if all_are(middle) => Some(0.0),
        () if all_are(middle - 1) => Some(1.0),
        () => None,
    }
}

/// AMD Quark's int4 and uint4: `weight` in int32, `weight_scale` and `weight_zero_point`; of groups all are transposed.
pub(super) fn quark_int4(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let (down, across) = subject.matrix()?;
    let mut scale = subject.find_scale(vec![subject.named(".weight_scale")])?;
    // FP8 with one scale, whose values are int4 with others: each has its own tensor.
    let of_int4 = subject.find(&[subject.named(".weight_scale_2"), subject.named(".weight_scale1")])?;
    let mut of_fp8 = None;
    if let Some(of_int4) = of_int4 {
        of_fp8 = Some(std::mem::replace(&mut scale, of_int4));
    }
    let claims = subject.claims(&[Scheme::QuarkInt4])?;
    let Some(claim) = claims.iter().find(|claim| claim.scheme.is_some()) else {
        let reason = "quantization_config has to say whether its codes have a sign, and their order";
        return Err(subject
            .unread("int4 or uint4 packed into int32, as AMD Quark does".to_owned(), reason.to_owned()));
    };
    let transposed = claim.transposed;
    let reordered = claim.reordered.unwrap_or(true);
    let (unsigned, symmetric) = (claim.unsigned, claim.symmetric);
    let shape = if transposed { (8 * across, down) } else { (down, 8 * across) };
    let scale_dtype = float_scale(&scale)?;
    let grid: Vec<usize> = match *scale.shape {
        [groups, rows] if transposed => vec![rows, groups],
        _ => scale.shape.to_vec(),
    };
    let granularity = subject.granularity(&claims, &scale, &grid, shape, false)?;
    let (grid_rows, grid_cols) = granularity.grid(shape.0, shape.1);
    let of_second = if of_fp8.is_some() { ".weight_zero_point_2" } else { ".weight_zero_point" };
    let zeros = subject.companion(of_second)?;
    if let Some(zeros) = &zeros {
        expect_dtype(zeros, StDtype::I32)?;
        let words = grid_rows.div_ceil(8);
        let expected: &[usize] = if transposed { &[grid_cols, words] } else { &[words] };
        if zeros.shape.iter().product::<usize>() > 1 || granularity != Granularity::Tensor {
            expect_shape(zeros, expected, "(N / 8)")?;
        }
    } else if unsigned && symmetric != Some(true) {
        subject.require_zero_points(&claims, subject.named(".weight_zero_point"))?;
    }
    let order = match (transposed, reordered) {
        (true, true) => Order::RowsTransposedAwq,
        (true, false) => Order::RowsTransposed,
        (false, true) => Order::ColsAwq,
        (false, false) => Order::Cols,
    };
    if let Some(of_fp8) = &of_fp8 {
        float_scale(of_fp8)?;
        if of_fp8.shape.iter().product::<usize>() != 1 {
            return Err(subject.scale_shape(of_fp8, shape, "[1], of FP8 with one scale".to_owned()));
        }
    }
    let weight = subject.weight;
    let dtype = if unsigned { DType::U4 } else { DType::I4 };
    let mut recipe = subject.recipe(Scheme::QuarkInt4, dtype, shape);
    recipe.codes = Codes::Int32(weight, Packing { signed: !unsigned, ..Packing::new(order, 4) });
    recipe.info.granularity = granularity;
    recipe
        .scaled_by(Scale { order: ScaleOrder::transposed_if(transposed), ..Scale::new(scale, scale_dtype) });
    recipe.info.tensors.extend(zeros.iter().chain(&of_fp8).map(|t| t.name.to_owned()));
    recipe.global = of_fp8.map(|tensor| (tensor, false));
    if let Some(tensor) = zeros {
        // Zero points of rows are packed along the rows.
        let order = match (transposed, reordered) {
            (true, true) | (false, true) => Order::RowsTransposedAwq,
            _ => Order::RowsTransposed,
        };
        recipe.zeros = Zeros::Int32 {
            tensor,
            packing: Packing { signed: !unsigned, ..Packing::new(order, 4) },
            plus: 0.0,
        };
    }
    Ok(recipe)
}

/// AMD Quark's int8 of groups: codes `[K, N]` and scales `[groups, N]`.
pub(super) fn int8_transposed<'a>(
    subject: Subject<'a>,
    scale: RawTensor<'a>,
) -> Result<Recipe<'a>, WeightsError> {
    let (cols, rows) = subject.matrix()?;
    let claims = subject.claims(&[Scheme::Int8])?;
    let scale_dtype = float_scale(&scale)?;
    let &[groups, of_rows] = scale.shape else {
        return Err(subject.scale_shape(&scale, (rows, cols), "[groups, N]".to_owned()));
    };
    let granularity = subject.granularity(&claims, &scale, &[of_rows, groups], (rows, cols), false)?;
    if let Some(zeros) = subject.companion(".weight_zero_point")?
        && zeros.bytes.iter().any(|&byte| byte != 0)
    {
        let reason = format!("`{}` is not zero, and its packing is not known", zeros.name);
        return Err(subject.unread("Quark int8 with zero points".to_owned(), reason));
    }
    let zeros = subject.companion(".weight_zero_point")?;
    let weight = subject.weight;
    let mut recipe = subject.recipe(Scheme::Int8, DType::I8, (rows, cols));
    recipe.info.granularity = granularity;
    recipe.info.stored_otherwise = true;
    recipe.codes = Codes::Made(Box::new(Made::Transposed(weight)));
    recipe.scaled_by(Scale { order: ScaleOrder::Transposed, ..Scale::new(scale, scale_dtype) });
    recipe.info.tensors.extend(zeros.iter().map(|t| t.name.to_owned()));
    Ok(recipe)
}

pub(super) fn float_scale(scale: &RawTensor) -> Result<DType, WeightsError> {
    float_dtype(scale.dtype).ok_or_else(|| WeightsError::WrongDtype {
        name: scale.name.to_owned(),
        expected: "F16, BF16 or F32".to_owned(),
        found: scale.dtype,
    })
}

/// The group of each column, or `None` where that is `c / group`. compressed-tensors fills an unused one with -1.
pub(super) fn column_groups(
    tensor: RawTensor,
    granularity: Granularity,
    groups: usize,
) -> Result<Option<Vec<usize>>, WeightsError> {
    let stored: Vec<i32> = DType::I32.codes(tensor.bytes).map(|code| code as i32).collect();
    if stored.iter().all(|&g| g == -1) {
        return Ok(None);
    }
    let group_of = |(index, &g): (usize, &i32)| {
        usize::try_from(g).ok().filter(|&g| g < groups).ok_or_else(|| WeightsError::BadValue {
            tensor: tensor.name.to_owned(),
            index,
            value: g.into(),
            expected: format!("a group from 0 to {}", groups.saturating_sub(1)),
        })
    };
    let of_column: Vec<usize> = stored.iter().enumerate().map(group_of).collect::<Result<_, _>>()?;
    let size = match granularity {
        Granularity::Group(size) => size,
        _ => of_column.len().max(1),
    };
    let in_order = of_column.iter().enumerate().all(|(c, &g)| g == c / size);
    Ok((!in_order).then_some(of_column))
}
