//! Layouts of weight and activation codes.

use std::fmt;
use std::str::FromStr;

use super::{BadShape, IndexMap, UnknownLayout, col, part, row};

/// The order of the codes of a `[N, K]` matrix in memory. Offsets count codes, also where two share a byte.
///
/// In the formulas `n` and `k` index the matrix and `/` is integer division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataLayout {
    /// `n * K + k`.
    RowMajor,
    /// `k * N + n`.
    ColMajor,
    /// Tiles of `rows × block` whose columns are cut into runs of `vector` codes, what one lane loads at once:
    /// `(n/rows) * rows*K + (k/block) * block*rows + (k%block)/vector * vector*rows + (n%rows) * vector +
    /// k%vector`. N must be a multiple of `rows`, K of `block`.
    ///
    /// aiter's `shuffle_weight(layout=(IN, IK))` has `rows = IN`, `block = 2*IK` and runs of 16 bytes (32 codes
    /// for int4); `shuffle_weight_NK(IN, IK)` has `block = IK` and `vector = IK / (64 / IN)`; hipBLASLt's
    /// `COL16_4R16` and `COL16_4R8` are the 16-row layouts of 8 and 16 bits.
    Preshuffle { rows: usize, block: usize, vector: usize },
    /// Preshuffled fused gate/up weight, `H = N / 2` rows each, 16-row tiles of the halves alternating:
    /// `((n%H)/16 * 2 + n/H) * 16*K + (k/(4*vector)) * 64*vector + (k%(4*vector))/vector * 16*vector +
    /// (n%16) * vector + k%vector`. aiter's `shuffle_weight` with `is_guinterleave` and `gate_up`; `vector` is 16
    /// bytes.
    PreshuffleGateUp { vector: usize },
    /// Rows of the gate and the up half alternate: `((n%H) * 2 + n/H) * K + k` with `H = N / 2`. gpt-oss.
    GateUpRows,
    /// Within eight columns, column `i` and `i + 4` share a byte: `n*K + (k/8) * 8 + (k%4) * 2 + (k%8)/4`.
    /// aiter's `pack_int8_to_packed_int4`.
    Interleave8,
    /// A paged cache of keys, rows being slots and columns `kv heads * head`: within a page of `block` slots each head
    /// by itself, `vector` elements of a position beside each other:
    /// `(n/block) * block*K + (k/head) * block*head + (k%head)/vector * vector*block + (n%block) * vector + k%vector`.
    /// vLLM's and aiter's `[pages, kv heads, head / x, block, x]`; `vector` is 16 bytes.
    PagedKeys { block: usize, head: usize, vector: usize },
    /// A paged cache of values, rows being slots and columns `kv heads * head`: within a page of `block` slots each head
    /// by itself, `vector` positions of an element beside each other:
    /// `(n/block) * block*K + (k/head) * block*head + (n%block)/vector * vector*head + (k%head) * vector + n%vector`.
    /// aiter's `asm_V_shuffle`, `[pages, kv heads, block / x, head, x]`; `vector` is 16 bytes.
    PagedValues { block: usize, head: usize, vector: usize },
}

impl DataLayout {
    /// The layouts that kernels ask for, by name.
    pub const ALL: &[DataLayout] = &[
        DataLayout::RowMajor,
        DataLayout::ColMajor,
        DataLayout::PRESHUFFLE_16X16,
        DataLayout::PRESHUFFLE_32X16,
        DataLayout::PRESHUFFLE_16X16_16BIT,
        DataLayout::PRESHUFFLE_16X16_4BIT,
        DataLayout::PRESHUFFLE_16X16_INT4,
        DataLayout::PRESHUFFLE_A_2X128,
        DataLayout::PRESHUFFLE_GATE_UP,
        DataLayout::PRESHUFFLE_GATE_UP_4BIT,
        DataLayout::GateUpRows,
        DataLayout::Interleave8,
    ];

    /// `shuffle_weight(layout=(16, 16))` of 8-bit codes, also the gfx1250 weight layout.
    pub const PRESHUFFLE_16X16: DataLayout = DataLayout::Preshuffle { rows: 16, block: 32, vector: 16 };
    /// `shuffle_weight(layout=(32, 16))` of 8-bit codes: `gemm_a8w8_asm`.
    pub const PRESHUFFLE_32X16: DataLayout = DataLayout::Preshuffle { rows: 32, block: 32, vector: 16 };
    /// `shuffle_weight(layout=(16, 16))` of f16 and bf16.
    pub const PRESHUFFLE_16X16_16BIT: DataLayout = DataLayout::Preshuffle { rows: 16, block: 32, vector: 8 };
    /// `shuffle_weight(layout=(16, 16))` of bytes that hold two e2m1 codes each: `gemm_a4w4`.
    pub const PRESHUFFLE_16X16_4BIT: DataLayout = DataLayout::Preshuffle { rows: 16, block: 64, vector: 32 };
    /// `shuffle_weight(layout=(16, 16), use_int4=True)`.
    pub const PRESHUFFLE_16X16_INT4: DataLayout = DataLayout::Preshuffle { rows: 16, block: 32, vector: 32 };
    /// `shuffle_mxfp8fp4_a`: gfx1250 activations, `(m/2) * 2*K + (k/128) * 256 + (m%2) * 128 + k%128`.
    pub const PRESHUFFLE_A_2X128: DataLayout = DataLayout::Preshuffle { rows: 2, block: 128, vector: 128 };
    pub const PRESHUFFLE_GATE_UP: DataLayout = DataLayout::PreshuffleGateUp { vector: 16 };
    pub const PRESHUFFLE_GATE_UP_4BIT: DataLayout = DataLayout::PreshuffleGateUp { vector: 32 };

    pub fn name(self) -> String {
        match self {
            DataLayout::RowMajor => "row_major".to_owned(),
            DataLayout::ColMajor => "col_major".to_owned(),
            DataLayout::PRESHUFFLE_16X16 => "preshuffle_16x16".to_owned(),
            DataLayout::PRESHUFFLE_32X16 => "preshuffle_32x16".to_owned(),
            DataLayout::PRESHUFFLE_16X16_16BIT => "preshuffle_16x16_16bit".to_owned(),
            DataLayout::PRESHUFFLE_16X16_4BIT => "preshuffle_16x16_4bit".to_owned(),
            DataLayout::PRESHUFFLE_16X16_INT4 => "preshuffle_16x16_int4".to_owned(),
            DataLayout::PRESHUFFLE_A_2X128 => "preshuffle_a_2x128".to_owned(),
            DataLayout::Preshuffle { rows, block, vector } => format!("preshuffle_{rows}_{block}_{vector}"),
            DataLayout::PRESHUFFLE_GATE_UP => "preshuffle_gate_up".to_owned(),
            DataLayout::PRESHUFFLE_GATE_UP_4BIT => "preshuffle_gate_up_4bit".to_owned(),
            DataLayout::PreshuffleGateUp { vector } => format!("preshuffle_gate_up_{vector}"),
            DataLayout::GateUpRows => "gate_up_rows".to_owned(),
            DataLayout::Interleave8 => "interleave8".to_owned(),
            DataLayout::PagedKeys { block, head, vector } => format!("paged_keys_{block}x{head}_{vector}"),
            DataLayout::PagedValues { block, head, vector } => {
                format!("paged_values_{block}x{head}_{vector}")
            }
        }
    }

    /// Whether kernels of this layout take the shape.
    ///
    /// # Errors
    /// What the shape would have to be a multiple of.
    pub fn check(self, shape: (usize, usize)) -> Result<(), BadShape> {
        let uneven = |extent: usize, vector: usize| vector == 0 || !extent.is_multiple_of(vector);
        let (n, k) = match self {
            DataLayout::PagedKeys { head: extent, vector, .. }
            | DataLayout::PagedValues { block: extent, vector, .. }
                if uneven(extent, vector) =>
            {
                let requirement = format!("runs of {vector} elements that fill {extent}");
                return Err(BadShape { layout: self.name(), requirement, rows: shape.0, cols: shape.1 });
            }
            DataLayout::PagedKeys { block, head, .. } | DataLayout::PagedValues { block, head, .. } => {
                (block, head)
            }
            DataLayout::RowMajor | DataLayout::ColMajor => return Ok(()),
            DataLayout::Preshuffle { rows, block, .. } => (rows, block),
            DataLayout::PreshuffleGateUp { vector } => (32, 4 * vector),
            DataLayout::GateUpRows => (2, 1),
            DataLayout::Interleave8 => (1, 8),
        };
        if shape.0.is_multiple_of(n) && shape.1.is_multiple_of(k) {
            return Ok(());
        }
        let requirement = format!("rows in multiples of {n} and columns in multiples of {k}");
        Err(BadShape { layout: self.name(), requirement, rows: shape.0, cols: shape.1 })
    }

    /// The layout for one shape; quicker than [`DataLayout::offset`] for many elements. A shape that
    /// [`DataLayout::check`] refuses is padded to whole tiles.
    pub fn index_map(self, shape: (usize, usize)) -> IndexMap {
        let (n, k) = shape;
        match self {
            DataLayout::RowMajor => IndexMap::new(shape, usize::MAX, &[row(1, n), col(1, k)]),
            DataLayout::ColMajor => IndexMap::new(shape, usize::MAX, &[col(1, k), row(1, n)]),
            DataLayout::Preshuffle { rows, block, vector } => IndexMap::new(
                shape,
                usize::MAX,
                &[
                    row(rows, n.div_ceil(rows)),
                    col(block, k.div_ceil(block)),
                    col(vector, block / vector),
                    row(1, rows),
                    col(1, vector),
                ],
            ),
            DataLayout::PreshuffleGateUp { vector } => {
                let half = n.div_ceil(2);
                IndexMap::new(
                    shape,
                    half,
                    &[
                        row(16, half.div_ceil(16)),
                        part(1, 2),
                        col(4 * vector, k.div_ceil(4 * vector)),
                        col(vector, 4),
                        row(1, 16),
                        col(1, vector),
                    ],
                )
            }
            DataLayout::GateUpRows => {
                let half = n.div_ceil(2);
                IndexMap::new(shape, half, &[row(1, half), part(1, 2), col(1, k)])
            }
            DataLayout::PagedKeys { block, head, vector } => IndexMap::new(
                shape,
                usize::MAX,
                &[
                    row(block, n.div_ceil(block)),
                    col(head, k.div_ceil(head)),
                    col(vector, head / vector),
                    row(1, block),
                    col(1, vector),
                ],
            ),
            DataLayout::PagedValues { block, head, vector } => IndexMap::new(
                shape,
                usize::MAX,
                &[
                    row(block, n.div_ceil(block)),
                    col(head, k.div_ceil(head)),
                    row(vector, block / vector),
                    col(1, head),
                    row(1, vector),
                ],
            ),
            DataLayout::Interleave8 => {
                IndexMap::new(shape, usize::MAX, &[row(1, n), col(8, k.div_ceil(8)), col(1, 4), col(4, 2)])
            }
        }
    }

    /// Codes of the buffer, padding included.
    pub fn len(self, shape: (usize, usize)) -> usize {
        self.index_map(shape).len()
    }

    /// Where code `(r, c)` sits.
    pub fn offset(self, shape: (usize, usize), r: usize, c: usize) -> usize {
        self.index_map(shape).offset(r, c)
    }

    /// Which code sits at `offset`; `None` for padding and beyond the end.
    pub fn inverse(self, shape: (usize, usize), offset: usize) -> Option<(usize, usize)> {
        self.index_map(shape).inverse(offset)
    }
}

impl fmt::Display for DataLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl FromStr for DataLayout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        DataLayout::ALL.iter().copied().find(|l| l.name() == name).ok_or_else(|| UnknownLayout {
            kind: "data",
            name: name.to_owned(),
            known: DataLayout::ALL.iter().map(|l| l.name()).collect::<Vec<_>>().join(", "),
        })
    }
}
