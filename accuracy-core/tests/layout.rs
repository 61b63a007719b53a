//! Layouts against constructions that share nothing with them: a small array with `pad`, `reshape` and `permute`,
//! chained as the producers' own tensor code is, and the index formulas of kernels. Every element, every padding.

use accuracy_core::layout::{DataLayout, ScaleLayout};

/// A dense array of labels; `None` is padding.
#[derive(Clone)]
struct Array {
    shape: Vec<usize>,
    items: Vec<Option<(usize, usize)>>,
}

impl Array {
    /// `[rows, cols]`, each element labelled with its own index.
    fn grid((rows, cols): (usize, usize)) -> Array {
        let items = (0..rows * cols).map(|i| Some((i / cols, i % cols))).collect();
        Array { shape: vec![rows, cols], items }
    }

    fn pad(self, rows: usize, cols: usize) -> Array {
        let [r, c] = self.shape[..] else { panic!("pad is for two dimensions") };
        let (padded_rows, padded_cols) = (r.div_ceil(rows) * rows, c.div_ceil(cols) * cols);
        let mut items = vec![None; padded_rows * padded_cols];
        for (i, item) in self.items.into_iter().enumerate() {
            items[i / c * padded_cols + i % c] = item;
        }
        Array { shape: vec![padded_rows, padded_cols], items }
    }

    fn reshape(self, shape: &[usize]) -> Array {
        assert_eq!(shape.iter().product::<usize>(), self.items.len(), "{shape:?}");
        Array { shape: shape.to_vec(), items: self.items }
    }

    /// Dimension `i` of the result is dimension `order[i]` of this array.
    fn permute(self, order: &[usize]) -> Array {
        let shape: Vec<usize> = order.iter().map(|&d| self.shape[d]).collect();
        let mut items = Vec::with_capacity(self.items.len());
        let mut index = vec![0; shape.len()];
        for _ in 0..self.items.len() {
            let mut from = 0;
            for d in 0..self.shape.len() {
                let at = order.iter().position(|&o| o == d).unwrap();
                from = from * self.shape[d] + index[at];
            }
            items.push(self.items[from]);
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Array { shape, items }
    }
}

fn check_scale(layout: ScaleLayout, grid: (usize, usize), want: &Array) {
    let map = layout.index_map(grid);
    let columns = map.columns(grid.1);
    assert_eq!(layout.len(grid), want.items.len(), "{layout} {grid:?}");
    let mut placed = 0;
    for (offset, &item) in want.items.iter().enumerate() {
        assert_eq!(map.inverse(offset), item, "{layout} {grid:?} at {offset}");
        assert_eq!(layout.inverse(grid, offset), item, "{layout} {grid:?} at {offset}");
        if let Some((r, c)) = item {
            assert_eq!(map.offset(r, c), offset, "{layout} {grid:?} ({r}, {c})");
            assert_eq!(layout.offset(grid, r, c), offset, "{layout} {grid:?} ({r}, {c})");
            assert_eq!(map.offset(r, 0) + columns[c], offset, "{layout} {grid:?} ({r}, {c})");
            placed += 1;
        }
    }
    assert_eq!(placed, grid.0 * grid.1, "{layout} {grid:?}");
    assert_eq!(layout.inverse(grid, want.items.len()), None);
}

fn check_data(layout: DataLayout, shape: (usize, usize), want: &Array) {
    assert_eq!(layout.check(shape), Ok(()));
    assert_eq!(layout.len(shape), shape.0 * shape.1, "{layout} {shape:?}");
    let map = layout.index_map(shape);
    let columns = map.columns(shape.1);
    for (offset, &item) in want.items.iter().enumerate() {
        let (r, c) = item.expect("data layouts are tested without padding");
        assert_eq!(map.inverse(offset), item, "{layout} {shape:?} at {offset}");
        assert_eq!(map.offset(r, c), offset, "{layout} {shape:?} ({r}, {c})");
        assert_eq!(map.offset(r, 0) + columns[c], offset, "{layout} {shape:?} ({r}, {c})");
    }
    let (r, c) = (shape.0 - 1, shape.1 - 1);
    assert_eq!(layout.offset(shape, r, c), map.offset(r, c));
    assert_eq!(layout.inverse(shape, 0), Some((0, 0)));
    assert_eq!(layout.inverse(shape, shape.0 * shape.1), None);
}

/// With padding in neither, either and both directions; one row, one column; more than one tile each way.
const GRIDS: &[(usize, usize)] =
    &[(1, 1), (1, 9), (37, 1), (256, 8), (300, 24), (33, 7), (257, 17), (129, 2), (64, 16), (16, 4)];

#[test]
fn plain_and_aligned_scales() {
    for &grid in GRIDS {
        let plain = Array::grid(grid);
        check_scale(ScaleLayout::RowMajor, grid, &plain);
        check_scale(ScaleLayout::ColMajor, grid, &plain.clone().permute(&[1, 0]));
        let aligned = plain.pad(4, 1).permute(&[1, 0]);
        check_scale(ScaleLayout::ColMajorAligned4, grid, &aligned);
    }
}

#[test]
fn packed_words_hold_four_groups_of_a_row() {
    for &grid in GRIDS {
        let padded = Array::grid(grid).pad(4, 4);
        let [rows, groups] = padded.shape[..] else { unreachable!() };
        let want = padded.reshape(&[rows, groups / 4, 4]).permute(&[1, 0, 2]);
        check_scale(ScaleLayout::PackedWords, grid, &want);
    }
}

#[test]
fn e8m0_shuffle_is_two_halves_of_rows_and_two_of_groups_in_a_lane() {
    for &grid in GRIDS {
        for (layout, rows) in [(ScaleLayout::E8m0Shuffle, 256), (ScaleLayout::E8m0ShuffleTile, 32)] {
            let padded = Array::grid(grid).pad(rows, 8);
            let [r, g] = padded.shape[..] else { unreachable!() };
            let want = padded.reshape(&[r / 32, 2, 16, g / 8, 2, 4]).permute(&[0, 3, 5, 2, 4, 1]);
            check_scale(layout, grid, &want);
        }
    }
}

#[test]
fn e8m0_shuffle_of_gate_and_up_interleaves_the_halves() {
    for grid in [(32, 8), (64, 3), (512, 17), (96, 1)] {
        assert_eq!(ScaleLayout::E8m0ShuffleGateUp.check(grid), Ok(()));
        let padded = Array::grid(grid).pad(32, 8);
        let [r, g] = padded.shape[..] else { unreachable!() };
        let want = padded.reshape(&[2, r / 32, 16, g / 8, 2, 4]).permute(&[1, 3, 5, 2, 4, 0]);
        check_scale(ScaleLayout::E8m0ShuffleGateUp, grid, &want);
    }
    let refused = ScaleLayout::E8m0ShuffleGateUp.check((33, 8)).unwrap_err().to_string();
    assert!(refused.contains("e8m0_shuffle_gate_up") && refused.contains("33x8"), "{refused}");
}

#[test]
fn mfma_tiles_of_two_groups() {
    for &grid in GRIDS {
        let padded = Array::grid(grid).pad(32, 2);
        let [r, g] = padded.shape[..] else { unreachable!() };
        let want = padded.reshape(&[r / 32, 2, 16, g / 2, 2]).permute(&[0, 3, 2, 4, 1]);
        check_scale(ScaleLayout::MfmaTile32x2, grid, &want);
    }
}

#[test]
fn row_major_tiles() {
    for &grid in GRIDS {
        for (layout, rows, groups) in [
            (ScaleLayout::TILE_16X4, 16, 4),
            (ScaleLayout::N32K4, 32, 4),
            (ScaleLayout::TILE_32X8, 32, 8),
            (ScaleLayout::SWIZZLE_8X4, 8, 4),
        ] {
            let padded = Array::grid(grid).pad(rows, groups);
            let [r, g] = padded.shape[..] else { unreachable!() };
            let want = padded.reshape(&[r / rows, rows, g / groups, groups]).permute(&[0, 2, 1, 3]);
            check_scale(layout, grid, &want);
        }
    }
}

#[test]
fn swizzle_128x4() {
    for &grid in GRIDS {
        let padded = Array::grid(grid).pad(128, 4);
        let [r, g] = padded.shape[..] else { unreachable!() };
        let want = padded.reshape(&[r / 128, 4, 32, g / 4, 4]).permute(&[0, 3, 2, 1, 4]);
        check_scale(ScaleLayout::Swizzle128x4, grid, &want);
    }
}

#[test]
fn group_pairs() {
    for grid in [(5, 2), (64, 8), (1, 4)] {
        let want = Array::grid(grid).reshape(&[grid.0, grid.1 / 2, 2]).permute(&[1, 0, 2]);
        check_scale(ScaleLayout::GroupPairs, grid, &want);
    }
    assert!(ScaleLayout::GroupPairs.check((4, 3)).is_err());
}

#[test]
fn paged_heads_keep_the_slots_of_a_page_together() {
    for (pages, block, heads) in [(1, 16, 1), (3, 16, 2), (2, 4, 5)] {
        let layout = ScaleLayout::PagedHeads { block };
        let grid = (pages * block, heads);
        let want = Array::grid(grid).reshape(&[pages, block, heads]).permute(&[0, 2, 1]);
        check_scale(layout, grid, &want);
        assert!(layout.check((grid.0 + 1, heads)).is_err());
        assert_eq!(layout.name().parse(), Ok(layout));
    }
}

#[test]
fn head_tiles_pad_each_token() {
    for (tokens, heads, groups) in [(1, 16, 1), (3, 40, 5), (2, 128, 4), (7, 1, 2)] {
        let layout = ScaleLayout::HeadTiles { heads };
        let grid = (tokens * heads, groups);
        let tiles = heads.div_ceil(16).div_ceil(4) * 4;
        let mut want = Array { shape: vec![], items: vec![None; tokens * groups * 16 * tiles] };
        for r in 0..grid.0 {
            for g in 0..groups {
                let (token, h) = (r / heads, r % heads);
                want.items[((token * groups + g) * 16 + h % 16) * tiles + h / 16] = Some((r, g));
            }
        }
        check_scale(layout, grid, &want);
        assert_eq!(layout.name().parse(), Ok(layout));
    }
}

/// The kernels' own formulas, beside the permutations above.
#[test]
fn e8m0_shuffle_and_128x4_by_formula() {
    for &(rows, groups) in GRIDS {
        let grid = (rows, groups);
        let padded = groups.div_ceil(8) * 8;
        for m in 0..rows {
            for g in 0..groups {
                let lane = (g % 4) * 16 + m % 16;
                let byte = (m % 32) / 16 + 2 * ((g % 8) / 4);
                let tile = (m / 32) * (padded / 8) + g / 8;
                assert_eq!(ScaleLayout::E8m0Shuffle.offset(grid, m, g), tile * 256 + lane * 4 + byte);
                let swizzled = (m / 128) * groups.div_ceil(4) * 512
                    + (g / 4) * 512
                    + (m % 32) * 16
                    + ((m % 128) / 32) * 4
                    + g % 4;
                assert_eq!(ScaleLayout::Swizzle128x4.offset(grid, m, g), swizzled);
            }
        }
    }
}

#[test]
fn how_much_of_a_tile_stays_in_place() {
    let fixed = |layout: ScaleLayout, grid: (usize, usize)| {
        (0..grid.0 * grid.1).filter(|&i| layout.offset(grid, i / grid.1, i % grid.1) == i).count()
    };
    assert_eq!(fixed(ScaleLayout::ColMajor, (1, 9)), 9);
    assert_eq!(fixed(ScaleLayout::ColMajor, (16, 16)), 16);
    assert_eq!(fixed(ScaleLayout::E8m0Shuffle, (32, 8)), 2);
}

#[test]
fn preshuffled_weights() {
    // (layout, IN, IK of shuffle_weight in codes, codes a lane loads)
    for (layout, rows, half_block, vector) in [
        (DataLayout::PRESHUFFLE_16X16, 16, 16, 16),
        (DataLayout::PRESHUFFLE_32X16, 32, 16, 16),
        (DataLayout::PRESHUFFLE_16X16_16BIT, 16, 16, 8),
        (DataLayout::PRESHUFFLE_16X16_INT4, 16, 16, 32),
    ] {
        let block = 2 * half_block;
        for (n, k) in [(rows, block), (3 * rows, 5 * block), (2 * rows, 4 * block)] {
            let want = Array::grid((n, k))
                .reshape(&[n / rows, rows, k / block, block / vector, vector])
                .permute(&[0, 2, 3, 1, 4]);
            check_data(layout, (n, k), &want);
        }
        assert!(layout.check((rows + 1, block)).is_err());
        assert!(layout.check((rows, block + 1)).is_err());
    }
}

#[test]
fn preshuffled_fp4_moves_whole_bytes() {
    let (n, k) = (48, 192);
    // Bytes of two codes through the 8-bit permutation, then the codes of each byte.
    let bytes = Array::grid((n, k / 2)).reshape(&[n / 16, 16, k / 64, 2, 16]).permute(&[0, 2, 3, 1, 4]);
    let codes = bytes.items.iter().flat_map(|item| {
        let (r, byte) = item.unwrap();
        [Some((r, 2 * byte)), Some((r, 2 * byte + 1))]
    });
    let want = Array { shape: vec![n * k], items: codes.collect() };
    check_data(DataLayout::PRESHUFFLE_16X16_4BIT, (n, k), &want);
}

#[test]
fn preshuffle_by_instruction_shape() {
    // shuffle_weight_NK(inst_N, inst_K): 64 / inst_N lanes share a row, each with inst_K / (64 / inst_N) codes.
    for (inst_n, inst_k) in [(16, 64), (32, 32), (16, 128)] {
        let vector = inst_k / (64 / inst_n);
        let layout = DataLayout::Preshuffle { rows: inst_n, block: inst_k, vector };
        let (n, k) = (2 * inst_n, 3 * inst_k);
        let want = Array::grid((n, k))
            .reshape(&[n / inst_n, inst_n, k / inst_k, 64 / inst_n, vector])
            .permute(&[0, 2, 3, 1, 4]);
        check_data(layout, (n, k), &want);
    }
}

#[test]
fn preshuffled_activations() {
    let (m, k) = (6, 384);
    let want = Array::grid((m, k)).reshape(&[m / 2, 2, k / 128, 128]).permute(&[0, 2, 1, 3]);
    check_data(DataLayout::PRESHUFFLE_A_2X128, (m, k), &want);
}

#[test]
fn preshuffled_gate_and_up_alternate_by_tiles() {
    for (layout, vector) in [(DataLayout::PRESHUFFLE_GATE_UP, 16), (DataLayout::PRESHUFFLE_GATE_UP_4BIT, 32)]
    {
        let (n, k) = (96, 12 * vector);
        let want = Array::grid((n, k))
            .reshape(&[2, n / 32, 16, k / (4 * vector), 4, vector])
            .permute(&[1, 0, 3, 4, 2, 5]);
        check_data(layout, (n, k), &want);
        assert!(layout.check((48, k)).is_err());
    }
}

#[test]
fn paged_caches_have_each_head_of_a_page_by_itself() {
    for (pages, heads, block, head, vector) in [(1, 1, 16, 16, 8), (3, 2, 16, 32, 16), (2, 3, 32, 8, 4)] {
        let shape = (pages * block, heads * head);
        let of =
            |dimensions: &[usize], order: &[usize]| Array::grid(shape).reshape(dimensions).permute(order);
        let keys = DataLayout::PagedKeys { block, head, vector };
        let want = of(&[pages, block, heads, head / vector, vector], &[0, 2, 3, 1, 4]);
        check_data(keys, shape, &want);
        let values = DataLayout::PagedValues { block, head, vector };
        let want = of(&[pages, block / vector, vector, heads, head], &[0, 3, 1, 4, 2]);
        check_data(values, shape, &want);
        assert!(keys.check((shape.0 + 1, shape.1)).is_err() && values.check((shape.0, shape.1 + 1)).is_err());
    }
    // Runs have to fill what they are cut from.
    let shape = (16, 24);
    assert!(DataLayout::PagedKeys { block: 16, head: 24, vector: 16 }.check(shape).is_err());
    assert!(DataLayout::PagedValues { block: 16, head: 24, vector: 0 }.check(shape).is_err());
}

#[test]
fn other_data_layouts() {
    for shape in [(6, 16), (2, 8), (34, 40)] {
        let (n, k) = shape;
        let plain = Array::grid(shape);
        check_data(DataLayout::RowMajor, shape, &plain);
        check_data(DataLayout::ColMajor, shape, &plain.clone().permute(&[1, 0]));
        let rows = plain.clone().reshape(&[2, n / 2, k]).permute(&[1, 0, 2]);
        check_data(DataLayout::GateUpRows, shape, &rows);
        let nibbles = plain.reshape(&[n, k / 8, 2, 4]).permute(&[0, 1, 3, 2]);
        check_data(DataLayout::Interleave8, shape, &nibbles);
    }
}

#[test]
fn names_parse_back_and_unknown_ones_are_listed() {
    for &layout in ScaleLayout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    for &layout in DataLayout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    let message = "shuffled".parse::<ScaleLayout>().unwrap_err().to_string();
    assert!(message.contains("`shuffled`") && message.contains("n32k4"), "{message}");
    assert!("row-major".parse::<DataLayout>().is_err());
    assert!("head_tiles_0".parse::<ScaleLayout>().is_err());
}

#[test]
fn empty_grids_have_no_elements() {
    for &layout in ScaleLayout::ALL {
        assert_eq!(layout.inverse((0, 8), 0), None, "{layout}");
        assert_eq!(layout.len((0, 8)), 0, "{layout}");
    }
}
