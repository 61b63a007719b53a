//! Layouts of scale grids.

use std::fmt;
use std::str::FromStr;

use super::{BadShape, IndexMap, UnknownLayout, col, part, row};

/// The order of a `[R, G]` grid of scales in memory: `R` rows (tokens, output channels or blocks of them), `G`
/// groups along K.
///
/// In the formulas `r` and `g` index the grid, `/` is integer division, and `G8` is `G` rounded up to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScaleLayout {
    /// `r * G + g`.
    RowMajor,
    /// `g * R + r`. What `shuffle_scale` and `transpose_scale` of aiter's fp32 group quantisers write, whatever
    /// shape the tensor reports.
    ColMajor,
    /// `g * R4 + r`: column-major with columns padded to 4, so that each begins on 16 bytes of fp32. DeepGEMM on
    /// sm_90.
    ColMajorAligned4,
    /// `4 * ((g / 4) * R4 + r) + g % 4`: four e8m0 bytes of a row in a word, words column-major with columns padded
    /// to 4. DeepGEMM on sm_100.
    PackedWords,
    /// 32×8 tiles of four bytes a lane, as `V_MFMA_SCALE_F32_16X16X128` reads them:
    /// `(r/32) * 32*G8 + (g/8) * 256 + (g%4) * 64 + (r%16) * 4 + (g%8)/4 * 2 + (r%32)/16`, the buffer padded to
    /// 256 rows and 8 groups. aiter's `e8m0_shuffle` and `mx_scale_shuffle_idx`.
    E8m0Shuffle,
    /// As [`ScaleLayout::E8m0Shuffle`], padded to 32 rows only: hipBLASLt's `BLK32_UE8M0_32_8_EXT`, aiter's
    /// `inverse_rope_group_quant`.
    E8m0ShuffleTile,
    /// The e8m0 shuffle of a fused gate/up weight, `H = R / 2` rows each, the halves interleaved:
    /// `((r%H)/16) * 32*G8 + (g/8) * 256 + (g%4) * 64 + (r%16) * 4 + (g%8)/4 * 2 + r/H`. aiter's `shuffle_scale`
    /// with `is_guinterleave` and `gate_up`.
    E8m0ShuffleGateUp,
    /// 32×2 tiles: `(r/32) * 32*G2 + (g/2) * 64 + (r%16) * 4 + (g%2) * 2 + (r/16)%2`. The group-128 tile of an
    /// earlier aiter `inverse_rope_group_quant`.
    MfmaTile32x2,
    /// Row-major tiles of `rows × groups`, row-major inside:
    /// `(r/rows) * rows*Gp + (g/groups) * rows*groups + (r%rows) * groups + g%groups`, padded to whole tiles.
    /// 32×4 is aiter's `n32k4` for gfx1250, 32×8 its NVFP4 form, 16×4 Triton's gfx1250 GEMM tile.
    Tile { rows: usize, groups: usize },
    /// 128×4 tiles as cuBLAS, TensorRT-LLM and FlashInfer swizzle them:
    /// `(r/128) * 128*G4 + (g/4) * 512 + (r%32) * 16 + (r%128)/32 * 4 + g%4`, padded to whole tiles.
    Swizzle128x4,
    /// `(g/2) * 2*R + r*2 + g%2`: pairs of groups. aiter's `shuffle_scale_for_int4`.
    GroupPairs,
    /// Rows are `token * heads + h`; `T` is `heads / 16` rounded up, then rounded up to 4:
    /// `((token*G + g) * 16 + h%16) * T + h/16`. aiter's `dsv4_rotate_quant`.
    HeadTiles { heads: usize },
    /// Rows are the slots of a paged cache, groups its heads: within a page of `block` slots each head by itself,
    /// `(r/block) * block*G + g * block + r%block`. aiter's `[pages, kv heads, block]`.
    PagedHeads { block: usize },
}

impl ScaleLayout {
    /// The layouts without a parameter of the model, by name.
    pub const ALL: &[ScaleLayout] = &[
        ScaleLayout::RowMajor,
        ScaleLayout::ColMajor,
        ScaleLayout::ColMajorAligned4,
        ScaleLayout::PackedWords,
        ScaleLayout::E8m0Shuffle,
        ScaleLayout::E8m0ShuffleTile,
        ScaleLayout::E8m0ShuffleGateUp,
        ScaleLayout::MfmaTile32x2,
        ScaleLayout::TILE_16X4,
        ScaleLayout::N32K4,
        ScaleLayout::TILE_32X8,
        ScaleLayout::Swizzle128x4,
        ScaleLayout::SWIZZLE_8X4,
        ScaleLayout::GroupPairs,
    ];

    pub const TILE_16X4: ScaleLayout = ScaleLayout::Tile { rows: 16, groups: 4 };
    /// gfx1250 e8m0 scales of 32-row super-rows, four groups a lane.
    pub const N32K4: ScaleLayout = ScaleLayout::Tile { rows: 32, groups: 4 };
    pub const TILE_32X8: ScaleLayout = ScaleLayout::Tile { rows: 32, groups: 8 };
    /// FlashInfer's `8x4` layout: plain row-major tiles.
    pub const SWIZZLE_8X4: ScaleLayout = ScaleLayout::Tile { rows: 8, groups: 4 };

    pub fn name(self) -> String {
        match self {
            ScaleLayout::RowMajor => "row_major".to_owned(),
            ScaleLayout::ColMajor => "col_major".to_owned(),
            ScaleLayout::ColMajorAligned4 => "col_major_aligned4".to_owned(),
            ScaleLayout::PackedWords => "packed_words".to_owned(),
            ScaleLayout::E8m0Shuffle => "e8m0_shuffle".to_owned(),
            ScaleLayout::E8m0ShuffleTile => "e8m0_shuffle_tile".to_owned(),
            ScaleLayout::E8m0ShuffleGateUp => "e8m0_shuffle_gate_up".to_owned(),
            ScaleLayout::MfmaTile32x2 => "mfma_tile_32x2".to_owned(),
            ScaleLayout::N32K4 => "n32k4".to_owned(),
            ScaleLayout::Tile { rows, groups } => format!("tile_{rows}x{groups}"),
            ScaleLayout::Swizzle128x4 => "swizzle_128x4".to_owned(),
            ScaleLayout::GroupPairs => "group_pairs".to_owned(),
            ScaleLayout::HeadTiles { heads } => format!("head_tiles_{heads}"),
            ScaleLayout::PagedHeads { block } => format!("paged_heads_{block}"),
        }
    }

    /// Whether kernels of this layout take the grid.
    ///
    /// # Errors
    /// What the shape would have to be a multiple of, where the layout does not pad.
    pub fn check(self, grid: (usize, usize)) -> Result<(), BadShape> {
        let (ok, requirement) = match self {
            ScaleLayout::E8m0ShuffleGateUp => (grid.0.is_multiple_of(32), "a multiple of 32 rows".to_owned()),
            ScaleLayout::GroupPairs => (grid.1.is_multiple_of(2), "an even number of groups".to_owned()),
            ScaleLayout::HeadTiles { heads } => {
                (heads > 0 && grid.0.is_multiple_of(heads), format!("a multiple of {heads} rows"))
            }
            ScaleLayout::PagedHeads { block } => {
                (block > 0 && grid.0.is_multiple_of(block), format!("a multiple of {block} rows"))
            }
            _ => return Ok(()),
        };
        if ok {
            return Ok(());
        }
        Err(BadShape { layout: self.name(), requirement, rows: grid.0, cols: grid.1 })
    }

    /// The layout for one grid; quicker than [`ScaleLayout::offset`] for many elements.
    pub fn index_map(self, grid: (usize, usize)) -> IndexMap {
        let (r, g) = grid;
        let mfma = |rows: usize| {
            IndexMap::new(
                grid,
                usize::MAX,
                &[row(32, rows / 32), col(8, g.div_ceil(8)), col(1, 4), row(1, 16), col(4, 2), row(16, 2)],
            )
        };
        match self {
            ScaleLayout::RowMajor => IndexMap::new(grid, usize::MAX, &[row(1, r), col(1, g)]),
            ScaleLayout::ColMajor => IndexMap::new(grid, usize::MAX, &[col(1, g), row(1, r)]),
            ScaleLayout::ColMajorAligned4 => {
                IndexMap::new(grid, usize::MAX, &[col(1, g), row(1, r.next_multiple_of(4))])
            }
            ScaleLayout::PackedWords => IndexMap::new(
                grid,
                usize::MAX,
                &[col(4, g.div_ceil(4)), row(1, r.next_multiple_of(4)), col(1, 4)],
            ),
            ScaleLayout::E8m0Shuffle => mfma(r.next_multiple_of(256)),
            ScaleLayout::E8m0ShuffleTile => mfma(r.next_multiple_of(32)),
            ScaleLayout::E8m0ShuffleGateUp => {
                let half = r.div_ceil(2);
                IndexMap::new(
                    grid,
                    half,
                    &[
                        row(16, half.div_ceil(16)),
                        col(8, g.div_ceil(8)),
                        col(1, 4),
                        row(1, 16),
                        col(4, 2),
                        part(1, 2),
                    ],
                )
            }
            ScaleLayout::MfmaTile32x2 => IndexMap::new(
                grid,
                usize::MAX,
                &[row(32, r.div_ceil(32)), col(2, g.div_ceil(2)), row(1, 16), col(1, 2), row(16, 2)],
            ),
            ScaleLayout::Tile { rows, groups } => IndexMap::new(
                grid,
                usize::MAX,
                &[row(rows, r.div_ceil(rows)), col(groups, g.div_ceil(groups)), row(1, rows), col(1, groups)],
            ),
            ScaleLayout::Swizzle128x4 => IndexMap::new(
                grid,
                usize::MAX,
                &[row(128, r.div_ceil(128)), col(4, g.div_ceil(4)), row(1, 32), row(32, 4), col(1, 4)],
            ),
            ScaleLayout::PagedHeads { block } => {
                let block = block.max(1);
                IndexMap::new(grid, usize::MAX, &[row(block, r.div_ceil(block)), col(1, g), row(1, block)])
            }
            ScaleLayout::GroupPairs => {
                IndexMap::new(grid, usize::MAX, &[col(2, g.div_ceil(2)), row(1, r), col(1, 2)])
            }
            ScaleLayout::HeadTiles { heads } => {
                let heads = heads.max(1);
                let tiles = heads.div_ceil(16).next_multiple_of(4);
                IndexMap::new(
                    grid,
                    heads,
                    &[part(1, r.div_ceil(heads)), col(1, g), row(1, 16), row(16, tiles)],
                )
            }
        }
    }

    /// Elements of the buffer, padding included.
    pub fn len(self, grid: (usize, usize)) -> usize {
        self.index_map(grid).len()
    }

    /// Where scale `(r, c)` of the grid sits.
    pub fn offset(self, grid: (usize, usize), r: usize, c: usize) -> usize {
        self.index_map(grid).offset(r, c)
    }

    /// Which scale sits at `offset`; `None` for padding and beyond the end.
    pub fn inverse(self, grid: (usize, usize), offset: usize) -> Option<(usize, usize)> {
        self.index_map(grid).inverse(offset)
    }
}

impl fmt::Display for ScaleLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl FromStr for ScaleLayout {
    type Err = UnknownLayout;

    fn from_str(name: &str) -> Result<Self, UnknownLayout> {
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse().ok().filter(|&n: &usize| n > 0);
        if let Some(heads) = number("head_tiles_") {
            return Ok(ScaleLayout::HeadTiles { heads });
        }
        if let Some(block) = number("paged_heads_") {
            return Ok(ScaleLayout::PagedHeads { block });
        }
        ScaleLayout::ALL.iter().copied().find(|l| l.name() == name).ok_or_else(|| UnknownLayout {
            kind: "scale",
            name: name.to_owned(),
            known: ScaleLayout::ALL.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
                + ", head_tiles_<heads>, paged_heads_<block>",
        })
    }
}
