//! int4 and int8 weights packed into int32: GPTQ, AWQ and compressed-tensors `pack-quantized`.
//!
//! Codes of 8 bits are stored plus 128, as their zero points are; both are read as int8, less 128.

use std::borrow::Cow;

use super::resolve::{Codes, Recipe, Scale, Subject, Zeros, expect_dtype, expect_shape};
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
}

/// Codes of 4 or 8 bits in int32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    pub order: Order,
    pub bits: u32,
}

impl Packing {
    /// Codes in a word.
    pub fn of_a_word(self) -> usize {
        (u32::BITS / self.bits) as usize
    }

    /// Row-major codes as they are stored.
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize) -> impl Iterator<Item = u32> + '_ {
        let n = self.of_a_word();
        let (row_words, col_words) = (rows.div_ceil(n), cols.div_ceil(n));
        (0..rows * cols).map(move |i| {
            let (r, c) = (i / cols, i % cols);
            let (word, element) = match self.order {
                Order::Cols => (r * col_words + c / n, c % n),
                Order::Rows => (r / n * cols + c, r % n),
                Order::ColsTransposed => (c / n * rows + r, c % n),
                Order::RowsTransposed | Order::RowsTransposedAwq => (c * row_words + r / n, r % n),
            };
            let word = DType::I32.code_at(bytes, word);
            match (self.order, self.bits) {
                (Order::RowsTransposedAwq, _) => NibbleOrder::Awq.get(word, element),
                (_, 4) => NibbleOrder::LowFirst.get(word, element),
                _ => u32::from(word.to_le_bytes()[element]),
            }
        })
    }

    /// Row-major codes: two a byte, or int8.
    pub fn codes(self, bytes: &[u8], rows: usize, cols: usize) -> Cow<'_, [u8]> {
        match (self.bits, self.order) {
            // The words' bytes in memory already are the order wanted.
            (4, Order::Cols) if cols.is_multiple_of(8) => Cow::Borrowed(bytes),
            (4, _) => Cow::Owned(DType::U4.pack(self.unpack(bytes, rows, cols))),
            // Less 128 is the highest bit the other way round.
            _ => Cow::Owned(self.unpack(bytes, rows, cols).map(|code| code as u8 ^ 0x80).collect()),
        }
    }

    /// Row-major zero points, in units of the codes above.
    pub fn zero_points(self, bytes: &[u8], rows: usize, cols: usize, plus: f64) -> Vec<f64> {
        let middle = if self.bits == 8 { f64::from(MIDDLE_OF_8_BITS) } else { 0.0 };
        self.unpack(bytes, rows, cols).map(|zero| f64::from(zero) + plus - middle).collect()
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
    // Zero points are packed as the codes are, along N, whose length is known. One word may be enough for either.
    let of_8_bits =
        zeros.shape == [groups, rows.div_ceil(4)] && (rows > 4 || subject.claims_any(Scheme::GptqInt8));
    let (scheme, shape) = match (gptq, awq) {
        (true, false) if of_8_bits => (Scheme::GptqInt8, (rows, 4 * words_down)),
        (true, false) => (Scheme::Gptq, (rows, 8 * words_down)),
        (false, true) => (Scheme::Awq, (rows, words_down)),
        _ => {
            let expected = format!("[groups, {words_across}] (GPTQ) or [groups, {}] (AWQ)", 8 * words_across);
            return Err(subject.scale_shape(&scales, (words_across, 8 * words_down), expected));
        }
    };
    let claims = subject.claims(&[scheme])?;
    let plus = match (scheme, claims.first()) {
        (Scheme::Awq, _) => 0.0,
        (_, Some(claim)) => f64::from(u8::from(claim.zeros_minus_one)),
        (_, None) => {
            return Err(WeightsError::Ambiguous {
                weight: subject.weight.name.to_owned(),
                reason: "GPTQ's first format stores zero points minus one, gptq_v2 as they are; \
                         quantization_config in config.json has to say which"
                    .to_owned(),
            });
        }
    };
    let granularity = subject.granularity(&claims, &scales, &[rows, groups], shape, false)?;
    let scale_dtype = float_scale(&scales)?;
    expect_dtype(&zeros, StDtype::I32)?;
    if scheme != Scheme::GptqInt8 {
        expect_shape(&zeros, &[groups, rows.div_ceil(8)], "(groups, N / 8)")?;
    }
    let column_groups = subject.companion(".g_idx")?;
    if let Some(g_idx) = &column_groups {
        expect_dtype(g_idx, StDtype::I32)?;
        expect_shape(g_idx, &[shape.1], "(K)")?;
    }

    let weight = subject.weight;
    let (dtype, bits) = if scheme == Scheme::GptqInt8 { (DType::I8, 8) } else { (DType::U4, 4) };
    let mut recipe = subject.recipe(scheme, dtype, shape);
    let (codes, zero_order) = match scheme {
        Scheme::Awq => (Order::RowsTransposedAwq, Order::RowsTransposedAwq),
        _ => (Order::ColsTransposed, Order::RowsTransposed),
    };
    recipe.codes = Codes::Int32(weight, Packing { order: codes, bits });
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale { tensor: scales, dtype: scale_dtype, transposed: true, powers_of_two: false });
    recipe.info.tensors.push(zeros.name.to_owned());
    recipe.info.tensors.extend(column_groups.iter().map(|t| t.name.to_owned()));
    recipe.zeros = Zeros::Int32 { tensor: zeros, packing: Packing { order: zero_order, bits }, plus };
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
    recipe.codes = Codes::Int32(weight, Packing { order: Order::Cols, bits });
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale { tensor: scale, dtype: scale_dtype, transposed: false, powers_of_two: false });
    let others = stored_shape.iter().chain(&zeros).chain(&column_groups);
    recipe.info.tensors.extend(others.map(|t| t.name.to_owned()));
    // Codes and zero points are both stored plus the middle, which cancels.
    recipe.zeros = match zeros {
        Some(tensor) => Zeros::Int32 { tensor, packing: Packing { order: Order::Rows, bits }, plus: 0.0 },
        None if bits == 8 => Zeros::None,
        None => Zeros::All(8.0),
    };
    recipe.column_groups = column_groups;
    Ok(recipe)
}

fn float_scale(scale: &RawTensor) -> Result<DType, WeightsError> {
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
