//! Hypotheses about where a kernel takes an operand's elements from, and which number format it takes them for.

use super::hypothesis::{Change, Hypothesis, Misreading, Nibbles, Sense, Slot};
use super::reading::{CellAt, Cells, CodesAt, Decode, Reading, code_in_memory, each, in_order};
use super::sampled::World;
use crate::case::{Attempt, Captured, Kind, Order};
use crate::dtype::{
    BF16, DType, E2M1, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, F16, F32, INT4, INT8, NibbleOrder, UINT4,
};
use crate::layout::DataLayout;
use crate::power::fp8_twin;
use crate::quant::{Quant, ZeroPoint};
use crate::reference::graph::Op;
use crate::reference::{BufferId, Expr, Matrix};
use crate::words::{Words, reads, says, takes};
use std::sync::Arc;

/// Every hypothesis about the elements of an operand.
pub fn hypotheses<'a>(
    id: BufferId,
    operand: &'a Captured,
    poison: u8,
    value: &dyn Fn() -> Arc<Matrix>,
) -> Vec<Hypothesis<'a>> {
    if operand.kind == Kind::Index || operand.dtype == DType::I32 {
        return indices(id, operand, &value());
    }
    let mut found = formats(id, operand);
    found.extend(places(id, operand, poison));
    let formats: &[DType] = match operand.scheme {
        Some(_) => &[BF16, F16, E4M3FN],
        None if operand.dtype == F32 => &[BF16, F16],
        None => &[E4M3FN, E4M3FNUZ],
    };
    for &to in formats.iter().filter(|&&to| operand.dtype != to) {
        found.push(Hypothesis {
            cause: "rounding",
            slot: Slot::Rounded(id),
            operand: Some(id),
            what: format!("rounds the values of `{}` to {to} before it multiplies", operand.name).into(),
            change: Change::Rounded(to),
            sense: Sense::Misreads(Misreading::Rounded(to)),
            also: None,
        });
    }
    found
}

/// Integers that steer the kernel.
fn indices<'a>(id: BufferId, operand: &'a Captured, value: &Matrix) -> Vec<Hypothesis<'a>> {
    let name = &operand.name;
    let with = |cause, what: String, values: Matrix| Hypothesis {
        cause,
        slot: Slot::Values(id),
        operand: Some(id),
        what: what.into(),
        change: Change::Values(Arc::new(values)),
        sense: Sense::Other,
        also: None,
    };
    let rotated = |by: isize| {
        let mut out = value.clone();
        if by > 0 {
            out.data.rotate_left(1)
        } else {
            out.data.rotate_right(1)
        }
        out
    };
    let mut ordinal = value.clone();
    (0..ordinal.data.len()).for_each(|i| ordinal.data[i] = i as f64);
    let cause = "permuted_tiles";
    let mut firsts = value.clone();
    for r in 0..firsts.rows {
        let row = firsts.row_mut(r);
        let first = row[0];
        row.fill(first);
    }
    let mut found = vec![
        with(cause, format!("takes each of `{name}` for one more than it is"), value.map(|x| x + 1.0)),
        with(
            cause,
            format!("takes each of `{name}` for one less than it is"),
            value.map(|x| (x - 1.0).max(0.0)),
        ),
        with(cause, format!("takes the next of `{name}`"), rotated(1)),
        with(cause, format!("takes the previous of `{name}`"), rotated(-1)),
        with(cause, format!("takes the first of `{name}` for all"), value.map(|_| value.data[0])),
        with(cause, format!("takes the first of each row of `{name}` for all of the row"), firsts),
        with(cause, format!("ignores `{name}` and counts from 0"), ordinal),
        with(cause, format!("ignores `{name}` and takes 0"), value.map(|_| 0.0)),
    ];
    // One index for several rows, or several for one: by tokens and heads, or by the places in a chunk.
    let n = value.data.len();
    let placed =
        |from: &dyn Fn(usize) -> f64| Matrix::new(value.rows, value.cols, (0..n).map(from).collect());
    for size in (2..n.min(129)).filter(|size| n.is_multiple_of(*size)) {
        let words = format!("takes for the one at i in `{name}` the one at i / {size}");
        found.push(with(cause, words, placed(&|i| value.data[i / size])));
        let words = format!("takes the first of every {size} of `{name}` and counts on from it");
        found.push(with(cause, words, placed(&|i| value.data[i / size * size] + (i % size) as f64)));
        let words = format!("ignores `{name}` and counts from 0 in every {size}");
        found.push(with(cause, words, placed(&|i| (i % size) as f64)));
    }
    found
}

/// Operands of the same shape and format of which one is taken for the other, each under its own scales: of the same
/// kernel, or of the chain before it.
pub fn exchanged<'a>(source: &Expr, attempt: &'a Attempt) -> Vec<Hypothesis<'a>> {
    let ids = source.buffers();
    let mut others = ids.clone();
    others.extend((0..attempt.made_before(source)).map(BufferId).filter(|id| !ids.contains(id)));
    let mut found = Vec::new();
    for &id in &ids {
        for &other in others.iter().filter(|&&other| other != id) {
            let (own, from) = (attempt.buffer(id), attempt.buffer(other));
            let alike = (own.rows, own.cols, own.dtype) == (from.rows, from.cols, from.dtype);
            if !alike || own.kind == Kind::Index || own.dtype == DType::I32 {
                continue;
            }
            found.push(Hypothesis {
                cause: "permuted_tiles",
                slot: Slot::Codes(id),
                operand: Some(id),
                what: format!("reads `{}` in the place of `{}`", from.name, own.name).into(),
                change: Change::Codes(Reading::right(from).codes),
                sense: Sense::Other,
                also: None,
            });
        }
    }
    found
}

/// Operands of which parts of several rows are taken, one after another, with the height of a part: weights of experts.
pub fn parts_of_rows(source: &Expr) -> Vec<(BufferId, usize)> {
    let mut parts: Vec<(BufferId, usize)> = Vec::new();
    source.visit(&mut |e| {
        if let Op::Rows { x, range } = &e.0.op
            && let Op::Buffer(id) = x.0.op
            && range.len() > 1
            && range.len() < x.shape().0
            && !parts.contains(&(id, range.len()))
        {
            parts.push((id, range.len()));
        }
    });
    parts
}

/// Weights of several experts, one after another: each taken for its transpose.
pub fn experts<'a>(source: &Expr, attempt: &'a Attempt) -> Vec<Hypothesis<'a>> {
    let parts = parts_of_rows(source);
    let mut found = Vec::new();
    for (id, height) in parts {
        let operand = attempt.buffer(id);
        let (cols, codes) = (operand.cols, Reading::code_of(operand));
        for bits in [15, 16, 17, 18, 20, 24] {
            let (whole, room) = (operand.rows * cols, 1_usize << bits);
            if whole > room {
                found.push(Hypothesis {
                    cause: "permuted_tiles",
                    slot: Slot::Codes(id),
                    operand: Some(id),
                    what: format!(
                        "computes where an expert of `{}` begins in {bits} bits: the offset wraps around at {room} elements",
                        operand.name
                    ).into(),
                    change: Change::Codes(each(move |r, c| {
                        let at = r / height * height * cols % room + r % height * cols + c;
                        codes(at / cols, at % cols)
                    })),
                    sense: Sense::Other,
                    also: None,
                });
            }
        }
        if let Some(scheme) = operand.scheme {
            let (of_cell, _) = scheme.granularity.cell(operand.rows, cols);
            let experts = operand.rows / height;
            if height.is_multiple_of(of_cell) && experts > 1 {
                let of_expert = height / of_cell;
                let right = Reading::right(operand).scales;
                // How far the expert whose scales are taken is from the right one; `None` where it is always the first.
                let others = [
                    ("the first expert", None),
                    ("the next expert", Some(1)),
                    ("the previous expert", Some(experts - 1)),
                ];
                for (words, distance) in others {
                    let Some(right) = right.clone() else { continue };
                    let at = right.at.clone();
                    found.push(Hypothesis {
                        cause: "scale_neighbour",
                        slot: Slot::Scales(id),
                        operand: Some(id),
                        what: format!("takes the scales of {words} of `{}` for those of each", operand.name)
                            .into(),
                        change: Change::Scales(Cells {
                            at: Arc::new(move |r, g| {
                                let expert = distance.map_or(0, |by| (r / of_expert + by) % experts);
                                at(expert * of_expert + r % of_expert, g)
                            }),
                            ..right
                        }),
                        sense: Sense::Other,
                        also: None,
                    });
                }
            }
        }
        found.push(Hypothesis {
            cause: "transposed",
            slot: Slot::Codes(id),
            operand: Some(id),
            what: format!("reads each {height} rows of `{}` as their transpose", operand.name).into(),
            change: Change::Codes(each(move |r, c| {
                let at = c * height + r % height;
                codes(r / height * height + at / cols, at % cols)
            })),
            sense: Sense::Other,
            also: None,
        });
    }
    found
}

/// The weights of a weighted sum, one for each token and slot: ignored, or taken from other places.
pub fn steering<'a>(source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let (mut of, mut factors) = (Vec::new(), Vec::new());
    source.visit(&mut |e| {
        if let Op::Scale { factor, .. } = e.0.op {
            factors.push(factor);
        }
        if let Op::User { name, inputs, .. } = &e.0.op
            && name == "weighted_sum"
            && let Some(Op::Buffer(id)) = inputs.get(1).map(|i| &i.0.op)
        {
            of.push(*id);
        }
    });
    let mut found = Vec::new();
    for id in of {
        let (operand, value) = (world.attempt.buffer(id), world.whole(id));
        let (name, slots) = (&operand.name, operand.cols);
        let mut add = |what: String, f: &dyn Fn(usize, usize) -> f64| {
            let data = (0..value.data.len()).map(|i| f(i / slots, i % slots)).collect();
            found.push(Hypothesis {
                cause: "router",
                slot: Slot::Values(id),
                operand: Some(id),
                what: what.into(),
                change: Change::Values(Arc::new(Matrix::new(value.rows, slots, data))),
                sense: Sense::Other,
                also: None,
            });
        };
        let at = |r: usize, s: usize| value.row(r)[s];
        let rows = value.rows;
        add(format!("does not apply `{name}`"), &|_, _| 1.0);
        add(format!("applies `{name}` twice"), &|r, s| at(r, s) * at(r, s));
        add(format!("takes `{name}` of the first token for all"), &|_, s| at(0, s));
        add(format!("takes `{name}` of the next token"), &|r, s| at((r + 1) % rows, s));
        add(format!("takes `{name}` of the previous token"), &|r, s| at((r + rows - 1) % rows, s));
        if slots > 1 {
            add(format!("takes `{name}` of the first slot for all"), &|r, _| at(r, 0));
            add(format!("takes `{name}` of the slots in reverse"), &|r, s| at(r, slots - 1 - s));
            add(format!("divides `{name}` by their sum once more"), &|r, s| {
                at(r, s) / value.row(r).iter().sum::<f64>()
            });
            for slot in 0..slots {
                for factor in &factors {
                    add(format!("leaves the factor {factor} out of slot {slot} of each token"), &|r, s| {
                        if s == slot { at(r, s) / factor } else { at(r, s) }
                    });
                }
                add(format!("leaves out slot {slot} of each token"), &|r, s| {
                    if s == slot { 0.0 } else { at(r, s) }
                });
                add(format!("adds slot {slot} of each token twice"), &|r, s| {
                    if s == slot { 2.0 * at(r, s) } else { at(r, s) }
                });
            }
        }
    }
    found
}

/// Other decodings of the same codes.
fn formats<'a>(id: BufferId, operand: &'a Captured) -> Vec<Hypothesis<'a>> {
    let own = operand.dtype;
    let name = &operand.name;
    let mut found = Vec::new();
    let of = |misreading, cause, what: Words, decode: Decode<'a>| Hypothesis {
        cause,
        slot: Slot::Format(id),
        operand: Some(id),
        what,
        change: Change::Format(decode),
        sense: Sense::Misreads(misreading),
        also: None,
    };
    let others: &[DType] = match own.bits() {
        4 => &[E2M1, INT4, UINT4],
        8 => &[E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, INT8],
        16 => &[BF16, F16],
        _ => &[],
    };
    // Of 4-bit formats as well: which format, not which order.
    let cause = "fp8_variant";
    for &other in others.iter().filter(|&&other| other != own) {
        found.push(of(
            Misreading::As(own, other),
            cause,
            reads!("the {own} codes of `{name}` as {other}"),
            Arc::new(move |code| other.decode(code)),
        ));
    }
    if fp8_twin(own).is_some() {
        // The twin's numbers without its NaN and Inf, as a decoder in software may have them, are a constant factor
        // of 2, which the fit of gains names.
        found.push(of(
            Misreading::NanAsNumbers(own),
            cause,
            takes!("{own}'s codes for NaN in `{name}` for numbers"),
            Arc::new(move |code| match own.decode(code) {
                x if x.is_finite() => x,
                // What bias and significand make of them.
                _ if code == 0x80 => 0.0,
                _ if own == E4M3FN => 480.0 * if code & 0x80 == 0 { 1.0 } else { -1.0 },
                _ => f64::from(code & 0x7f).copysign(if code & 0x80 == 0 { 1.0 } else { -1.0 }),
            }),
        ));
        found.push(of(
            Misreading::NanAsZero(own),
            cause,
            takes!("{own}'s codes for NaN in `{name}` for 0"),
            Arc::new(move |code| if own.is_nan_code(code) { 0.0 } else { own.decode(code) }),
        ));
    }
    let least = own.min_normal().filter(|_| own.bits() <= 8);
    if let Some(least) = least {
        found.push(of(
            Misreading::SubnormalsAsZero(own),
            cause,
            takes!("the subnormals of {own} in `{name}` for 0"),
            Arc::new(move |code| match own.decode(code) {
                x if x.abs() < least => 0.0,
                x => x,
            }),
        ));
    }
    if own == INT4 || own == INT8 {
        found.push(of(
            Misreading::WithoutSign(own),
            cause,
            reads!(
                "the {own} codes of `{name}` as if they had no sign: {} more of each negative one",
                -2.0 * own.min()
            ),
            Arc::new(f64::from),
        ));
    }
    if own.is_fp8() || [E2M1, INT4, INT8].contains(&own) {
        found.push(of(
            Misreading::SignsLost,
            "unknown",
            says!("loses the signs of `{name}`"),
            Arc::new(move |code| own.decode(code).abs()),
        ));
    }
    if own.is_fp8() {
        found.push(of(
            Misreading::NegativeZeroAsNan,
            cause,
            takes!("code 0x80 of `{name}` for NaN"),
            Arc::new(move |code| if code == 0x80 { f64::NAN } else { own.decode(code) }),
        ));
    }
    if own == INT4 || own == INT8 {
        let offset = -own.min();
        found.push(of(
            Misreading::OffsetAdded(own),
            "zero_point",
            says!("adds {offset} to the codes of `{name}`, as for unsigned products, and never subtracts it"),
            Arc::new(move |code| own.decode(code) + offset),
        ));
        found.push(of(
            Misreading::OffsetBinary(own),
            cause,
            takes!("the {own} codes of `{name}` for offset-binary: code - {offset}"),
            Arc::new(move |code| f64::from(code) - offset),
        ));
    }
    if own == E2M1 {
        found.push(of(
            Misreading::Doubled,
            "gain",
            says!("decodes `{name}` with a table of doubled e2m1 values, which nothing halves"),
            Arc::new(move |code| 2.0 * own.decode(code)),
        ));
    }
    found.extend(without_zero_points(id, operand));
    found
}

/// Unsigned codes read in two's complement, which has its zero at zero.
fn without_zero_points<'a>(id: BufferId, operand: &'a Captured) -> Option<Hypothesis<'a>> {
    let (own, name) = (operand.dtype, &operand.name);
    (own == UINT4).then(|| Hypothesis {
        cause: "fp8_variant",
        slot: Slot::Format(id),
        operand: Some(id),
        what: reads!("the {own} codes of `{name}` as {INT4}, without zero points"),
        change: Change::Format(Arc::new(|code| INT4.decode(code))),
        sense: Sense::Other,
        also: Some((Slot::Zeros(id), Change::Zeros(|_| 0.0))),
    })
}

/// From the place of a nibble to the one that is read for it.
type Place = Arc<dyn Fn(usize) -> usize + Send + Sync>;

/// An operand in memory, and the order that it is declared to have there.
#[derive(Clone, Copy)]
struct Memory<'a> {
    id: BufferId,
    operand: &'a Captured,
    rows: usize,
    cols: usize,
    declared: DataLayout,
    nibbles: NibbleOrder,
    own: Order,
    poison: u8,
}

impl<'a> Memory<'a> {
    fn moved(&self, cause: &'static str, what: Words, codes: CodesAt<'a>) -> Hypothesis<'a> {
        Hypothesis {
            cause,
            slot: Slot::Codes(self.id),
            operand: Some(self.id),
            what,
            change: Change::Codes(codes),
            sense: Sense::Other,
            also: None,
        }
    }

    /// Elements of a word of 32 bits.
    fn in_word(&self) -> usize {
        32 / self.operand.dtype.bits() as usize
    }

    /// Columns that share a word of nibbles are in another order by theirs.
    fn within(&self, columns: usize) -> &'static str {
        let share = self.operand.dtype.bits() == 4
            && self.declared != DataLayout::ColMajor
            && columns <= self.in_word();
        if share { "nibble_order" } else { "permuted_tiles" }
    }
}

/// Codes from other places of the same memory.
pub fn places<'a>(id: BufferId, operand: &'a Captured, poison: u8) -> Vec<Hypothesis<'a>> {
    let (rows, cols) = (operand.rows, operand.cols);
    let mut found = Vec::new();
    if rows * cols <= 1 {
        return found;
    }
    // The scheme may be absent: then the elements lie row-major.
    let scheme = operand.scheme.unwrap_or_else(|| Quant::tensor(operand.dtype));
    let (declared, nibbles) = (scheme.data_layout, scheme.nibbles);
    let own = Order { map: declared.index_map((rows, cols)), nibbles };
    let at = Memory { id, operand, rows, cols, declared, nibbles, own, poison };
    for family in [
        other_layouts,
        words_of_nibbles,
        tiles_of_another_height,
        other_strides,
        other_nibbles,
        words_transposed,
        halves_of_rows,
        shifts,
        other_row_lengths,
        halves_of_columns,
        repeated_tiles,
        tiles_transposed,
        loads_out_of_step,
        swizzled_runs,
        exchanged_tiles,
        exchanged_lanes,
        tiles_in_another_order,
    ] {
        family(at, &mut found);
    }
    found
}

/// Other orders that memory could be in.
fn other_layouts<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, declared, nibbles, own, .. } = at;
    let name = &at.operand.name;
    for &layout in DataLayout::ALL {
        if layout == declared || layout.check((rows, cols)).is_err() || !fits(layout, operand.dtype) {
            continue;
        }
        let order = Order { map: layout.index_map((rows, cols)), nibbles };
        found.push(
            at.moved(
                cause_of(layout, declared),
                reads!("`{name}` as {layout}; it lies in {declared} order"),
                in_order(operand, order),
            )
            .meaning(Sense::Misreads(Misreading::Order(layout, declared))),
        );
        if layout == DataLayout::ColMajor {
            continue;
        }
        // The permutation undone where it should be done: the element at the place of (r, c) taken for (r, c).
        let map = order.map;
        found.push(
            at.moved(
                cause_of(layout, declared),
                reads!("`{name}` as if {layout} order were undone once more; it lies in {declared} order"),
                each(move |r, c| {
                    let (r, c) = map.inverse(r * cols + c)?;
                    code_in_memory(operand, own.index(r, c))
                }),
            )
            .meaning(Sense::Misreads(Misreading::OrderUndone(layout, declared))),
        );
    }
}

/// Words of eight nibbles that follow one another along the rows, each of eight columns, as GPTQ packs them; or each of
/// eight rows, as AWQ does.
fn words_of_nibbles<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, .. } = at;
    let name = &at.operand.name;
    if operand.dtype.bits() == 4 {
        for (order, how) in [(NibbleOrder::LowFirst, "in sequence"), (NibbleOrder::Awq, "in AWQ's order")] {
            found.push(
                at.moved(
                    "nibble_order",
                    reads!("`{name}` as words of eight columns, their nibbles {how}"),
                    each(move |r, c| code_in_memory(operand, order.place((c / 8 * rows + r) * 8 + c % 8))),
                )
                .meaning(Sense::Misreads(Misreading::WordsOfColumns(order))),
            );
            found.push(
                at.moved(
                    "nibble_order",
                    reads!("`{name}` as words of eight rows, their nibbles {how}"),
                    each(move |r, c| code_in_memory(operand, order.place(c * rows + r))),
                )
                .meaning(Sense::Misreads(Misreading::WordsOfRows(order))),
            );
        }
    }
}

/// Tiles of more rows than there are, so that the last one runs on past the end; and whole tiles of another height, with what
/// is beyond them as it should be.
fn tiles_of_another_height<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, declared, nibbles, own, .. } = at;
    let name = &at.operand.name;
    for &layout in DataLayout::ALL {
        let DataLayout::Preshuffle { rows: high, .. } = layout else { continue };
        let whole = (rows.next_multiple_of(high), cols);
        if layout == declared || whole.0 == rows || layout.check(whole).is_err() {
            continue;
        }
        let order = Order { map: layout.index_map(whole), nibbles };
        found.push(at.moved(
            "permuted_tiles",
            reads!("`{name}` as {layout}, of whose tiles the last is not whole; it lies in {declared} order"),
            in_order(operand, order),
        ));
    }
    // Whole tiles of another height, what is beyond them as it should be.
    if let DataLayout::Preshuffle { rows: high, block, vector } = declared {
        for other in [8, 16, 32, 64].into_iter().filter(|&other| other != high && other < rows) {
            let whole = rows / other * other;
            let layout = DataLayout::Preshuffle { rows: other, block, vector };
            if whole == rows || layout.check((whole, cols)).is_err() {
                continue;
            }
            let map = layout.index_map((whole, cols));
            found.push(at.moved(
                "permuted_tiles",
                reads!(
                    "the whole tiles of {other} rows of `{name}` as {layout}; it lies in {declared} order"
                ),
                each(move |r, c| {
                    let at = if r < whole { nibbles.place(map.offset(r, c)) } else { own.index(r, c) };
                    code_in_memory(operand, at)
                }),
            ));
        }
    }
}

/// Rows and columns exchanged, and other distances between them.
fn other_strides<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, declared, own, poison, .. } = at;
    let name = &at.operand.name;
    let plain = [DataLayout::RowMajor, DataLayout::ColMajor].contains(&declared);
    if rows > 1 && cols > 1 && !plain {
        found.push(at.moved(
            "transposed",
            reads!("`{name}` as its transpose"),
            each(move |r, c| {
                let at = c * rows + r;
                code_in_memory(operand, own.index(at / cols, at % cols))
            }),
        ));
    }
    if operand.strides != (cols, 1) && operand.memory.is_none() {
        let (row_stride, col_stride) = operand.strides;
        let physical = move |at: usize| in_strided_memory(operand, at, poison);
        let mut wrong: Vec<(String, usize, usize)> = vec![
            ("contiguous rows".into(), cols, 1),
            ("contiguous columns".into(), 1, rows),
            (format!("columns {row_stride} apart"), 1, row_stride),
            (format!("rows {col_stride} apart"), col_stride, 1),
        ];
        wrong.retain(|(_, by_row, by_col)| (*by_row, *by_col) != operand.strides);
        for (words, by_row, by_col) in wrong {
            found.push(at.moved(
                "transposed",
                reads!(
                    "`{name}` as {words}; its rows lie {row_stride} elements apart and its columns {col_stride}"
                ),
                each(move |r, c| physical(r * by_row + c * by_col)),
            ));
        }
    }
}

/// Other places of the nibbles in their bytes and words.
fn other_nibbles<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { id, operand, nibbles, own, .. } = at;
    let name = &at.operand.name;
    if operand.dtype.bits() == 4 {
        for (which, place) in nibble_places(nibbles) {
            let (map, of_codes) = (own.map, place.clone());
            let codes: CodesAt<'a> = each(move |r, c| code_in_memory(operand, of_codes(map.offset(r, c))));
            let right_zeros = at
                .moved("nibble_order", takes!("`{name}` to have {}", which.words()), codes)
                .meaning(Sense::Misreads(Misreading::Nibbles(which)));
            // Zero points are packed as the codes are, by most who pack them.
            if let Some(zeros) = zeros_at(operand, place) {
                found.push(Hypothesis {
                    what: right_zeros.what.and(", zero points too"),
                    also: Some((Slot::Zeros(id), Change::ZerosAt(zeros))),
                    ..right_zeros.clone()
                });
            }
            found.push(right_zeros);
        }
    }
}

/// Words of eight nibbles, or of four bytes, as the elements of a matrix that is transposed.
fn words_transposed<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, own, .. } = at;
    let name = &at.operand.name;
    let in_word = at.in_word();
    for (long, short, words) in [
        (cols, rows.div_ceil(in_word), "[columns, rows / n]"),
        (rows, cols.div_ceil(in_word), "[rows, columns / n]"),
    ] {
        if in_word > 1 && long * short * in_word == rows * cols && long > 1 && short > 1 {
            found.push(at.moved(
                "transposed",
                takes!("the words of `{name}`, {words} with n = {in_word} in each, for their transpose"),
                each(move |r, c| {
                    let at = own.index(r, c);
                    let word = at / in_word;
                    code_in_memory(operand, (word % short * long + word / short) * in_word + at % in_word)
                }),
            ));
        }
    }
}

/// Gate and up rows exchanged or interleaved.
fn halves_of_rows<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, .. } = at;
    let name = &at.operand.name;
    let right = Reading::code_of(operand);
    let half = rows / 2;
    if rows > 1 && rows.is_multiple_of(2) && operand.kind == Kind::Weight {
        found.push(at.moved(
            "gate_up_swapped",
            takes!("the halves of the rows of `{name}` the wrong way round"),
            each(move |r, c| right((r + half) % rows, c)),
        ));
        for block in [1, 8, 16, 32, 64, 128].into_iter().filter(|&b| b < half && half.is_multiple_of(b)) {
            let by = if block == 1 { String::new() } else { format!(" in blocks of {block}") };
            found.push(at.moved(
                "gate_up_swapped",
                takes!("the rows of `{name}` for alternating{by} where they lie in halves"),
                each(move |r, c| right((r % half / block * 2 + r / half) * block + r % block, c)),
            ));
            found.push(at.moved(
                "gate_up_swapped",
                takes!("the rows of `{name}` for halves where they alternate{by}"),
                each(move |r, c| right(r / block % 2 * half + r / (2 * block) * block + r % block, c)),
            ));
        }
    }
}

/// A row or a column beside the right one.
fn shifts<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    let shifts: [(&str, isize, isize); 4] = [
        ("the next row", 1, 0),
        ("the previous row", -1, 0),
        ("the next column", 0, 1),
        ("the previous column", 0, -1),
    ];
    for (words, by_row, by_col) in shifts {
        if (by_row != 0 && rows == 1) || (by_col != 0 && cols == 1) {
            continue;
        }
        found.push(at.moved(
            "permuted_tiles",
            takes!("{words} of `{name}` for each"),
            each(move |r, c| {
                let r = (r as isize + by_row).rem_euclid(rows as isize) as usize;
                let c = (c as isize + by_col).rem_euclid(cols as isize) as usize;
                right(r, c)
            }),
        ));
    }
}

/// Rows taken to be of another length.
fn other_row_lengths<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, declared, nibbles, .. } = at;
    let name = &at.operand.name;
    if rows > 1 && declared == DataLayout::RowMajor && nibbles == NibbleOrder::LowFirst {
        let mut strides: Vec<usize> = vec![cols + 1, cols.saturating_sub(1).max(1)];
        strides.extend([8, 16, 32, 64, 128, 256].map(|to| cols.next_multiple_of(to)));
        strides.extend([8, 16, 32, 64, 128, 256].map(|to| cols / to * to));
        strides.retain(|&s| s != cols && s > 0);
        strides.sort_unstable();
        strides.dedup();
        for stride in strides {
            found.push(at.moved(
                "transposed",
                takes!("the rows of `{name}` to be {stride} elements apart, they are {cols}"),
                each(move |r, c| code_in_memory(operand, r * stride + c)),
            ));
        }
    }
}

/// Halves of the columns exchanged, or taken for one another: a pointer that is not advanced, or a buffer that still holds
/// what came before.
fn halves_of_columns<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    if cols > 1 && cols.is_multiple_of(2) {
        found.push(
            at.moved(
                "permuted_tiles",
                says!("exchanges the halves of the columns of `{name}`"),
                each(move |r, c| right(r, (c + cols / 2) % cols)),
            )
            .meaning(Sense::HalvesOfColumns),
        );
        found.push(
            at.moved(
                at.within(2),
                says!("exchanges neighbouring columns of `{name}`"),
                each(move |r, c| right(r, c ^ 1)),
            )
            .meaning(Sense::Misreads(Misreading::ColumnsExchanged(1))),
        );
    }
    if cols > 1 && cols.is_multiple_of(2) {
        found.push(
            at.moved(
                "permuted_tiles",
                takes!("the first half of the columns of `{name}` for the second as well"),
                each(move |r, c| right(r, c % (cols / 2))),
            )
            .meaning(Sense::HalvesOfColumns),
        );
    }
}

/// Tiles that are read again and again, or one too early.
fn repeated_tiles<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for tile in [16, 32, 64, 128, 256] {
        if tile < rows {
            found.push(at.moved(
                "permuted_tiles",
                takes!("the first {tile} rows of `{name}` again and again"),
                each(move |r, c| right(r % tile, c)),
            ));
            found.push(at.moved(
                "permuted_tiles",
                takes!("the row {tile} before for those of `{name}` but the first"),
                each(move |r, c| right(r.checked_sub(tile).unwrap_or(r), c)),
            ));
        }
        if tile < cols {
            found.push(at.moved(
                "permuted_tiles",
                takes!("the first {tile} columns of `{name}` again and again"),
                each(move |r, c| right(r, c % tile)),
            ));
            found.push(at.moved(
                "permuted_tiles",
                takes!("the column {tile} before for those of `{name}` but the first"),
                each(move |r, c| right(r, c.checked_sub(tile).unwrap_or(c))),
            ));
        }
    }
}

/// Each tile for its transpose.
fn tiles_transposed<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for tile in [2, 4, 8, 16, 32, 64, 128].into_iter().filter(|&t| t <= rows && t <= cols) {
        found.push(at.moved(
            "transposed",
            takes!("each {tile} x {tile} elements of `{name}` for their transpose"),
            each(move |r, c| {
                let (row, column) = (r / tile * tile + c % tile, c / tile * tile + r % tile);
                if row < rows && column < cols { right(row, column) } else { right(r, c) }
            }),
        ));
    }
}

/// Loads that run ahead or behind by a tile, around the end.
fn loads_out_of_step<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for tile in [16, 32, 64, 128, 256] {
        for (words, n, is_row) in [("row", rows, true), ("column", cols, false)] {
            if 2 * tile >= n {
                continue;
            }
            for (by, way) in [(tile, "ahead"), (n - tile, "behind")] {
                found.push(at.moved(
                    "permuted_tiles",
                    takes!("the {words} {tile} {way} of each of `{name}`, around the end"),
                    match is_row {
                        true => each(move |r, c| right((r + by) % n, c)),
                        false => each(move |r, c| right(r, (c + by) % n)),
                    },
                ));
            }
        }
    }
}

/// A swizzle of runs that goes with the row, as of shared memory, done or undone once only.
fn swizzled_runs<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for run in [4, 8, 16, 32] {
        for lanes in [2, 4, 8] {
            if !cols.is_multiple_of(run * lanes) || rows == 1 {
                continue;
            }
            for by in [1, 2] {
                let over = if by == 1 { String::new() } else { format!(" / {by}") };
                found.push(at.moved(
                    "permuted_tiles",
                    takes!(
                        "runs of {run} columns of `{name}` in places exclusive or with row{over} mod {lanes}"
                    ),
                    each(move |r, c| right(r, c ^ (r / by % lanes * run))),
                ));
            }
        }
    }
}

/// Neighbouring tiles exchanged.
fn exchanged_tiles<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { rows, cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for tile in [2, 4, 8, 16, 32, 64, 128] {
        if tile * 2 > cols || !cols.is_multiple_of(2 * tile) {
            continue;
        }
        found.push(
            at.moved(
                at.within(2 * tile),
                says!("exchanges neighbouring tiles of {tile} columns of `{name}`"),
                each(move |r, c| right(r, c ^ tile)),
            )
            .meaning(Sense::Misreads(Misreading::ColumnsExchanged(tile))),
        );
    }
    for tile in [8, 16, 32, 64, 128].into_iter().filter(|&t| t * 2 <= rows && rows.is_multiple_of(2 * t)) {
        found.push(at.moved(
            "permuted_tiles",
            says!("exchanges neighbouring tiles of {tile} rows of `{name}`"),
            each(move |r, c| right(r ^ tile, c)),
        ));
    }
}

/// Lanes that take each other's columns: two bits of the column's index exchanged, or columns in reverse.
fn exchanged_lanes<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { cols, .. } = at;
    let right = Reading::code_of(at.operand);
    let name = &at.operand.name;
    for high in 1..8 {
        for low in 0..high {
            let (small, large) = (1 << low, 1 << high);
            if !cols.is_multiple_of(2 * large) {
                continue;
            }
            found.push(
                at.moved(
                    at.within(2 * large),
                    takes!(
                        "columns {small} to {} of each {} of `{name}` for columns {large} to {}",
                        2 * small - 1,
                        2 * large,
                        large + small - 1
                    ),
                    each(move |r, c| {
                        let apart = (c >> low ^ c >> high) & 1;
                        right(r, c ^ (apart << low | apart << high))
                    }),
                )
                .meaning(Sense::Misreads(Misreading::ColumnBits(low, high))),
            );
        }
    }
    for (mask, words) in [(3, "four"), (7, "eight"), (15, "sixteen")] {
        if cols.is_multiple_of(mask + 1) {
            found.push(
                at.moved(
                    at.within(mask + 1),
                    takes!("each {words} columns of `{name}` in reverse"),
                    each(move |r, c| right(r, c ^ mask)),
                )
                .meaning(Sense::Misreads(Misreading::ColumnsReversed(mask + 1))),
            );
        }
    }
}

/// Whole tiles right in themselves, in the other order.
fn tiles_in_another_order<'a>(at: Memory<'a>, found: &mut Vec<Hypothesis<'a>>) {
    let Memory { operand, rows, cols, declared, nibbles, own, .. } = at;
    let name = &at.operand.name;
    if let DataLayout::Preshuffle { rows: high, block: wide, .. } = declared
        && rows.is_multiple_of(high)
        && cols.is_multiple_of(wide)
    {
        let (down, across, len) = (rows / high, cols / wide, high * wide);
        if down > 1 && across > 1 {
            found.push(at.moved(
                "permuted_tiles",
                takes!(
                    "the tiles of {high} x {wide} of `{name}` to follow one another along its rows; they do along its columns"
                ),
                each(move |r, c| {
                    let inside = own.map.offset(r, c) % len;
                    let tile = c / wide * down + r / high;
                    let at = tile * len + inside;
                    code_in_memory(operand, nibbles.place(at))
                }),
            ));
        }
    }
}

/// Places of nibbles that are taken for those of the declared order: from a code's place in the declared layout.
fn nibble_places(declared: NibbleOrder) -> Vec<(Nibbles, Place)> {
    let own = move |at: usize| declared.place(at);
    let mut places: Vec<(Nibbles, Place)> = vec![
        (Nibbles::LowTwice, Arc::new(move |at| own(at) & !1)),
        (Nibbles::HighTwice, Arc::new(move |at| own(at) | 1)),
        (Nibbles::HighFirst, Arc::new(move |at| own(at) ^ 1)),
        (
            Nibbles::BytesReversed,
            Arc::new(move |at| own(at) / 8 * 8 + (7 - own(at) % 8) / 2 * 2 + own(at) % 2),
        ),
        (Nibbles::AllReversed, Arc::new(move |at| own(at) / 8 * 8 + 7 - own(at) % 8)),
        (
            Nibbles::LowAndHighApart,
            Arc::new(move |at| {
                let i = own(at) % 8;
                own(at) / 8 * 8 + i % 4 * 2 + i / 4
            }),
        ),
        (Nibbles::SixteenApart, Arc::new(move |at| at / 32 * 32 + at % 16 * 2 + at % 32 / 16)),
    ];
    if declared != NibbleOrder::LowFirst {
        places.push((Nibbles::HighFirstInSequence, Arc::new(|at| at ^ 1)));
    }
    for order in [NibbleOrder::LowFirst, NibbleOrder::Awq, NibbleOrder::Halves] {
        if order != declared {
            places.push((Nibbles::In(order), Arc::new(move |at| order.place(at))));
        }
    }
    places
}

/// The zero points of a buffer whose nibbles are taken from other places.
fn zeros_at<'a>(operand: &'a Captured, place: Place) -> Option<CellAt<'a>> {
    let scheme = operand.scheme?;
    let grid = scheme.granularity.grid(operand.rows, operand.cols);
    let (dtype, order) = Order::of_zeros(&scheme, grid)?;
    (dtype.bits() == 4).then(|| -> CellAt<'a> {
        Arc::new(move |r, g| {
            let at = place(order.map.offset(r, g));
            let there = at < operand.zeros.len() * 2;
            if there { dtype.decode(dtype.code_at(&operand.zeros, at)) } else { f64::NAN }
        })
    })
}

/// The zero points of a buffer whose nibbles, or words, alone are taken from other places.
pub fn zeros_misplaced<'a>(operand: &'a Captured) -> Vec<(Nibbles, CellAt<'a>)> {
    let Some(ZeroPoint::PerCell { nibbles, .. }) = operand.scheme.map(|scheme| scheme.zero_point) else {
        return Vec::new();
    };
    let mut places = nibble_places(nibbles);
    // Words of eight as the elements of a matrix that is transposed.
    let (words, groups) = (
        operand.zeros.len() / 4,
        operand.scheme.map_or(1, |s| s.granularity.grid(operand.rows, operand.cols).1),
    );
    if groups > 1 && words > groups && words.is_multiple_of(groups) {
        for (high, wide) in [(groups, words / groups), (words / groups, groups)] {
            let place: Place = Arc::new(move |at| {
                let (word, inside) = (at / 8, nibbles.place(at) % 8);
                (word % wide * high + word / wide) * 8 + inside
            });
            places.push((Nibbles::WordsTransposed, place));
        }
    }
    places.into_iter().filter_map(|(which, place)| Some((which, zeros_at(operand, place)?))).collect()
}

/// The code at an index of a strided buffer as it lies in memory; between its rows lies the poison.
fn in_strided_memory(operand: &Captured, at: usize, poison: u8) -> Option<u32> {
    let (row_stride, col_stride) = operand.strides;
    let (r, c) = match col_stride {
        1 => (at / row_stride.max(1), at % row_stride.max(1)),
        _ => (at % col_stride, at / col_stride),
    };
    if r < operand.rows && c < operand.cols {
        return Some(operand.dtype.code_at(&operand.data, r * operand.cols + c));
    }
    let inside = if col_stride == 1 { r < operand.rows } else { c < operand.cols };
    inside.then(|| operand.dtype.code_at(&[poison; 4], 0))
}

/// Layouts of 16-bit lanes make no sense of nibbles, and the reverse.
fn fits(layout: DataLayout, dtype: DType) -> bool {
    match layout {
        DataLayout::Interleave8 => dtype.bits() == 4,
        _ => true,
    }
}

fn cause_of(read: DataLayout, declared: DataLayout) -> &'static str {
    match (read, declared) {
        (DataLayout::ColMajor, DataLayout::RowMajor) | (DataLayout::RowMajor, DataLayout::ColMajor) => {
            "transposed"
        }
        (DataLayout::Interleave8, _) | (_, DataLayout::Interleave8) => "nibble_order",
        (DataLayout::GateUpRows, DataLayout::RowMajor) | (DataLayout::RowMajor, DataLayout::GateUpRows) => {
            "gate_up_swapped"
        }
        _ => "permuted_tiles",
    }
}
