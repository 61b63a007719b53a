//! A hypothesis: one thing that a kernel may have done instead of what it should.

use super::product::Product;
use super::reading::{CellAt, Cells, CodesAt, Decode, Part, Reading};
use super::sampled::{Variant, World};
use crate::dtype::{DType, NibbleOrder};
use crate::layout::DataLayout;
use crate::reference::{BufferId, Expr, Matrix};
use crate::words::Words;
use std::sync::Arc;

/// What a hypothesis replaces. Two that replace different things can hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Where an operand's codes are taken from.
    Codes(BufferId),
    /// What they are decoded as.
    Format(BufferId),
    Scales(BufferId),
    Zeros(BufferId),
    Factor(BufferId),
    Values(BufferId),
    /// What the scaled values are rounded to.
    Rounded(BufferId),
    /// What is computed.
    Graph,
    Product,
}

impl Slot {
    /// The operand whose reading this is a part of.
    pub fn operand(self) -> Option<BufferId> {
        match self {
            Slot::Codes(id)
            | Slot::Format(id)
            | Slot::Scales(id)
            | Slot::Zeros(id)
            | Slot::Factor(id)
            | Slot::Rounded(id) => Some(id),
            Slot::Values(_) | Slot::Graph | Slot::Product => None,
        }
    }
}

/// What stands in the slot instead.
#[derive(Clone)]
pub enum Change<'a> {
    Codes(CodesAt<'a>),
    Format(Decode<'a>),
    Scales(Cells<'a>),
    /// A function of the right zero points.
    Zeros(fn(f64) -> f64),
    /// The zero points of other places.
    ZerosAt(CellAt<'a>),
    /// A function of the difference of a code and its zero point.
    Difference(fn(f64) -> f64),
    Factor(f64),
    Values(Arc<Matrix>),
    Rounded(DType),
    Graph(Expr),
    Product(Product),
    /// Another change, in some tiles of the operand's columns only.
    InPart(Part, Box<Change<'a>>),
}

#[derive(Clone)]
pub struct Hypothesis<'a> {
    /// A name of the contract.
    pub cause: &'static str,
    pub slot: Slot,
    pub operand: Option<BufferId>,
    /// What the kernel does, for an engineer: "reads the scales of `xq` as row_major, they lie in col_major order".
    pub what: Words,
    pub change: Change<'a>,
    /// Tells the search which other hypotheses belong to this one.
    pub sense: Sense,
    /// What changes with it: the zero points that are packed as the codes are.
    pub also: Option<(Slot, Change<'a>)>,
}

/// Tells the search which other hypotheses belong to a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sense {
    Other,
    /// The kernel may be known to do this, but several mistakes do it, so the cause is never stated with confidence.
    Nameless,
    /// One half of the columns stands for the other.
    HalvesOfColumns,
    /// A kernel that misreads one operand like this may well misread all operands of that format so.
    Misreads(Misreading),
}

/// A way to misread codes or scales that has nothing to do with the operand at hand. The formats and orders are the
/// declared ones unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Misreading {
    /// Codes of the first format as those of the second.
    As(DType, DType),
    NanAsNumbers(DType),
    NanAsZero(DType),
    SubnormalsAsZero(DType),
    WithoutSign(DType),
    SignsLost,
    NegativeZeroAsNan,
    OffsetAdded(DType),
    OffsetBinary(DType),
    Doubled,
    /// The first order in place of the second, which is declared.
    Order(DataLayout, DataLayout),
    /// The first order undone once more, where the second is declared.
    OrderUndone(DataLayout, DataLayout),
    /// Words of eight nibbles in this order, each of eight columns, or of eight rows.
    WordsOfColumns(NibbleOrder),
    WordsOfRows(NibbleOrder),
    Nibbles(Nibbles),
    /// Tiles of this many columns exchanged with their neighbours.
    ColumnsExchanged(usize),
    /// Each so many columns in reverse.
    ColumnsReversed(usize),
    /// Two bits of the column's index exchanged.
    ColumnBits(usize, usize),
    /// Scales of e8m0 with this bias, for 127.
    Bias(u8),
    /// Values rounded to this format.
    Rounded(DType),
}

/// Where nibbles are taken to lie in their bytes and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nibbles {
    LowTwice,
    HighTwice,
    HighFirst,
    BytesReversed,
    AllReversed,
    LowAndHighApart,
    SixteenApart,
    HighFirstInSequence,
    In(NibbleOrder),
    WordsTransposed,
}

impl Nibbles {
    /// Describes, for a message, where the kernel takes the nibbles to lie.
    pub const fn words(self) -> &'static str {
        match self {
            Nibbles::LowTwice => "the low nibble of each byte in both",
            Nibbles::HighTwice => "the high nibble of each byte in both",
            Nibbles::HighFirst => "the high nibble of each byte first",
            Nibbles::BytesReversed => "the four bytes of a word in reverse",
            Nibbles::AllReversed => "the eight nibbles of a word in reverse",
            Nibbles::LowAndHighApart => "the low and the high nibbles of a word apart",
            Nibbles::SixteenApart => "elements i and i + 16 in a byte",
            Nibbles::HighFirstInSequence => "the high nibble of each byte first, in sequence",
            Nibbles::In(NibbleOrder::LowFirst) => "the nibbles of a word in sequence",
            Nibbles::In(NibbleOrder::Awq) => "the nibbles of a word in AWQ's order",
            Nibbles::In(NibbleOrder::Halves) => "elements i and i + 4 in a byte",
            Nibbles::WordsTransposed => "their words transposed",
        }
    }
}

impl<'a> Hypothesis<'a> {
    /// The same with this sense.
    pub fn meaning(self, sense: Sense) -> Hypothesis<'a> {
        Hypothesis { sense, ..self }
    }

    /// Puts the hypothesis into a variant. `key` distinguishes it from every other one of the search.
    fn apply(&self, variant: &mut Variant<'a, '_>, key: usize) {
        put(variant, self.slot, &self.change, key);
        if let Some((slot, change)) = &self.also {
            put(variant, *slot, change, key);
        }
    }
}

fn put<'a>(variant: &mut Variant<'a, '_>, slot: Slot, change: &Change<'a>, key: usize) {
    let world = variant.world;
    let mut reading = |id: BufferId, change: &mut dyn FnMut(&mut Reading<'a>)| {
        variant.keys.entry(id).or_default().push(key);
        let known = variant.readings.entry(id);
        change(known.or_insert_with(|| Reading::right(world.attempt.buffer(id))));
    };
    match (slot, change) {
        (Slot::Codes(id), Change::Codes(codes)) => reading(id, &mut |reading| {
            reading.codes = codes.clone();
            reading.codes_key = key + 1;
        }),
        (Slot::Format(id), Change::Format(decode)) => reading(id, &mut |reading| {
            reading.decode = decode.clone();
            reading.decode_key = key + 1;
        }),
        (Slot::Scales(id), Change::Scales(cells)) => reading(id, &mut |r| r.scales = Some(cells.clone())),
        (Slot::Zeros(id), Change::Zeros(f)) => reading(id, &mut |reading| {
            let (f, zeros) = (*f, reading.zeros.clone());
            reading.zeros = Some(Arc::new(move |r, g| f(zeros.as_ref().map_or(0.0, |zeros| zeros(r, g)))));
        }),
        (Slot::Zeros(id), Change::ZerosAt(zeros)) => reading(id, &mut |r| r.zeros = Some(zeros.clone())),
        (Slot::Zeros(id), Change::Difference(f)) => reading(id, &mut |r| r.difference = Some(*f)),
        (Slot::Factor(id), Change::Factor(factor)) => reading(id, &mut |r| r.factor = *factor),
        (Slot::Rounded(id), Change::Rounded(to)) => reading(id, &mut |r| r.rounded = Some(*to)),
        (Slot::Values(id), Change::Values(values)) => {
            variant.values.insert(id, values.clone());
        }
        (slot, Change::InPart(part, change)) => {
            put(variant, slot, change, key);
            if let Some((id, reading)) =
                slot.operand().and_then(|id| Some((id, variant.readings.get_mut(&id)?)))
            {
                reading.part = Some((part.clone(), Arc::new(Reading::right(world.attempt.buffer(id)))));
            }
        }
        (Slot::Graph, Change::Graph(source)) => variant.source = source.clone(),
        (Slot::Product, Change::Product(product)) => variant.product = Some(product.clone()),
        (slot, _) => unreachable!("a change that is none of {slot:?}"),
    }
}

/// The hop under some of the hypotheses.
pub fn variant<'a, 'w>(
    world: &'w World<'a>,
    source: &Expr,
    all: &[Hypothesis<'a>],
    holding: &[usize],
) -> Variant<'a, 'w> {
    let mut variant = Variant::new(world, source.clone());
    // What is done to zero points is done to those that are read, wherever they are read from.
    let of_zeros = |i: usize| matches!(all[i].change, Change::Zeros(_));
    let (last, first): (Vec<usize>, Vec<usize>) = holding.iter().partition(|i| of_zeros(**i));
    for i in first.into_iter().chain(last) {
        all[i].apply(&mut variant, i);
    }
    variant
}
