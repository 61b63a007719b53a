//! int4 weights packed into int32: GPTQ, AWQ and compressed-tensors `pack-quantized`.

use std::borrow::Cow;

use super::resolve::{Codes, Recipe, Scale, Subject, Zeros, expect_dtype, expect_shape};
use super::stored::float_dtype;
use super::{RawTensor, Scheme, StDtype, WeightsError};
use crate::dtype::{DType, NibbleOrder};
use crate::quant::Granularity;

/// Where nibble `(r, c)` of a `[rows, cols]` matrix sits in a tensor of int32. Edges are filled to whole words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packing {
    /// Words `[rows, cols / 8]`, low first along the columns.
    Cols,
    /// Words `[rows / 8, cols]`, low first along the rows.
    Rows,
    /// Words `[cols / 8, rows]`, low first along the columns.
    ColsTransposed,
    /// Words `[cols, rows / 8]`, along the rows in this order.
    RowsTransposed(NibbleOrder),
}

impl Packing {
    /// Row-major nibbles.
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize) -> impl Iterator<Item = u32> + '_ {
        let low = NibbleOrder::LowFirst;
        let (row_words, col_words) = (rows.div_ceil(8), cols.div_ceil(8));
        (0..rows * cols).map(move |i| {
            let (r, c) = (i / cols, i % cols);
            let (word, element, order) = match self {
                Packing::Cols => (r * col_words + c / 8, c % 8, low),
                Packing::Rows => (r / 8 * cols + c, r % 8, low),
                Packing::ColsTransposed => (c / 8 * rows + r, c % 8, low),
                Packing::RowsTransposed(order) => (c * row_words + r / 8, r % 8, order),
            };
            order.get(DType::I32.code_at(bytes, word), element)
        })
    }

    /// Row-major codes, two a byte.
    pub fn codes(self, bytes: &[u8], rows: usize, cols: usize) -> Cow<'_, [u8]> {
        match self {
            // The words' bytes in memory already are the order wanted.
            Packing::Cols if cols.is_multiple_of(8) => Cow::Borrowed(bytes),
            _ => Cow::Owned(DType::U4.pack(self.unpack(bytes, rows, cols))),
        }
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
    let gptq = words_across == rows;
    let awq = words_across.checked_mul(8) == Some(rows);
    let (scheme, shape) = match (gptq, awq) {
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
    let scale_dtype = int4_scale(&scales)?;
    let zeros = subject.companion(".qzeros")?.ok_or_else(|| WeightsError::ZeroPointsMissing {
        weight: subject.weight.name.to_owned(),
        looked_for: subject.named(".qzeros"),
    })?;
    expect_dtype(&zeros, StDtype::I32)?;
    expect_shape(&zeros, &[groups, rows.div_ceil(8)], "(groups, N / 8)")?;
    let column_groups = subject.companion(".g_idx")?;
    if let Some(g_idx) = &column_groups {
        expect_dtype(g_idx, StDtype::I32)?;
        expect_shape(g_idx, &[shape.1], "(K)")?;
    }

    let weight = subject.weight;
    let mut recipe = subject.recipe(scheme, DType::U4, shape);
    let (codes, zero_order) = match scheme {
        Scheme::Gptq => (Packing::ColsTransposed, NibbleOrder::LowFirst),
        _ => (Packing::RowsTransposed(NibbleOrder::Awq), NibbleOrder::Awq),
    };
    recipe.codes = Codes::Int32(weight, codes);
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale { tensor: scales, dtype: scale_dtype, transposed: true, powers_of_two: false });
    recipe.info.tensors.push(zeros.name.to_owned());
    recipe.info.tensors.extend(column_groups.iter().map(|t| t.name.to_owned()));
    recipe.zeros = Zeros::Int32 { tensor: zeros, packing: Packing::RowsTransposed(zero_order), plus };
    recipe.column_groups = column_groups;
    Ok(recipe)
}

/// `weight_packed`, `weight_shape`, `weight_scale` and, where asymmetric, `weight_zero_point`; `weight_g_idx` where
/// columns are reordered.
pub(super) fn pack_quantized(subject: Subject<'_>) -> Result<Recipe<'_>, WeightsError> {
    let (rows, words) = subject.matrix()?;
    let claims = subject.claims(&[Scheme::PackedInt4])?;
    let stored_shape = subject.companion(".weight_shape")?;
    let cols = match &stored_shape {
        None => 8 * words,
        Some(tensor) => {
            expect_dtype(tensor, StDtype::I64)?;
            expect_shape(tensor, &[2], "(N, K)")?;
            let stored =
                [0, 8].map(|at| i64::from_le_bytes(tensor.bytes[at..at + 8].try_into().expect("8 bytes")));
            let cols = usize::try_from(stored[1]).ok().filter(|c| c.div_ceil(8) == words);
            match cols.filter(|_| usize::try_from(stored[0]) == Ok(rows)) {
                Some(cols) => cols,
                None => {
                    let expected = format!("[{}, {} / 8] by `{}`", stored[0], stored[1], tensor.name);
                    return Err(WeightsError::WrongShape {
                        name: subject.weight.name.to_owned(),
                        expected,
                        found: subject.weight.shape.to_vec(),
                    });
                }
            }
        }
    };
    let shape = (rows, cols);
    let scale = subject.find_scale(vec![subject.named(".weight_scale")])?;
    let scale_dtype = int4_scale(&scale)?;
    let granularity = subject.granularity(&claims, &scale, scale.shape, shape, false)?;
    let (grid_rows, grid_cols) = granularity.grid(rows, cols);
    let zeros = subject.companion(".weight_zero_point")?;
    if zeros.is_none() {
        subject.require_zero_points(&claims, subject.named(".weight_zero_point"))?;
    }
    if let Some(zeros) = &zeros {
        expect_dtype(zeros, StDtype::I32)?;
        expect_shape(zeros, &[grid_rows.div_ceil(8), grid_cols], "(N / 8, groups)")?;
    }
    let column_groups = subject.companion(".weight_g_idx")?;
    if let Some(g_idx) = &column_groups {
        expect_dtype(g_idx, StDtype::I32)?;
        expect_shape(g_idx, &[cols], "(K)")?;
    }

    let weight = subject.weight;
    let mut recipe = subject.recipe(Scheme::PackedInt4, DType::U4, shape);
    recipe.codes = Codes::Int32(weight, Packing::Cols);
    recipe.info.granularity = granularity;
    recipe.scaled_by(Scale { tensor: scale, dtype: scale_dtype, transposed: false, powers_of_two: false });
    let others = stored_shape.iter().chain(&zeros).chain(&column_groups);
    recipe.info.tensors.extend(others.map(|t| t.name.to_owned()));
    // Codes and zero points are both stored plus 8, which cancels.
    recipe.zeros = match zeros {
        Some(tensor) => Zeros::Int32 { tensor, packing: Packing::Rows, plus: 0.0 },
        None => Zeros::All(8.0),
    };
    recipe.column_groups = column_groups;
    Ok(recipe)
}

fn int4_scale(scale: &RawTensor) -> Result<DType, WeightsError> {
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
