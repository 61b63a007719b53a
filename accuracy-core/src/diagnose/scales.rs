//! Hypotheses about the scales, zero points and tensor-wide factors that a kernel reads with an operand.

use super::codes;
use super::hypothesis::{Change, Hypothesis, Misreading, Sense, Slot};
use super::reading::{CellAt, Cells, scale_in_memory};
use crate::case::{Attempt, Captured, Order};
use crate::dtype::{BF16, DType, E4M3FN, E4M3FNUZ, E5M2, E8M0, F16, F32, Overflow};
use crate::layout::ScaleLayout;
use crate::quant::{Granularity, Quant, ZeroPoint};
use crate::reference::{BufferId, Expr};
use crate::words::{Words, takes};
use std::fmt;
use std::sync::Arc;

/// The cell that is taken for cell `(row, group)` of a grid of so many rows and groups.
type Cell = fn(usize, usize, usize, usize) -> (usize, usize);
/// Cells that are taken for one, by what they are called.
const OTHER_CELLS: [(&str, Cell); 6] = [
    ("the next group", |r, g, _, groups| (r, (g + 1) % groups)),
    ("the previous group", |r, g, _, groups| (r, (g + groups - 1) % groups)),
    ("the next row", |r, g, rows, _| ((r + 1) % rows, g)),
    ("the previous row", |r, g, rows, _| ((r + rows - 1) % rows, g)),
    ("its row's first group", |r, _, _, _| (r, 0)),
    ("the first row", |_, g, _, _| (0, g)),
];

/// Every hypothesis about the scales of an operand.
pub fn hypotheses<'a>(id: BufferId, operand: &'a Captured) -> Vec<Hypothesis<'a>> {
    let Some(scheme) = operand.scheme else { return Vec::new() };
    let all = Scales { id, operand, scheme, grid: scheme.granularity.grid(operand.rows, operand.cols) };
    let mut found = all.layouts();
    found.extend(all.neighbours());
    found.extend(all.values());
    found.extend(all.formats());
    found.extend(all.granularities());
    found.extend(all.zeros());
    found.extend(all.factors());
    found
}

/// The scales of an operand as its scheme has them.
pub fn right<'a>(operand: &'a Captured, scheme: &Quant) -> CellAt<'a> {
    let scheme = *scheme;
    let order = Order::of_scales(&scheme, scheme.granularity.grid(operand.rows, operand.cols));
    Arc::new(move |r, g| scale_in_memory(operand, &scheme, order.index(r, g)))
}

/// The scale of an operand that has a single one.
pub fn of_tensor(operand: &Captured) -> Option<f64> {
    let scheme = operand.scheme.filter(|s| s.granularity.grid(operand.rows, operand.cols) == (1, 1))?;
    Some(right(operand, &scheme)(0, 0) * operand.factor).filter(|s| s.is_finite() && *s > 0.0)
}

/// Operands that have as many scales each, taken with the scales of another: of the same kernel, or of the chain before it.
pub fn exchanged<'a>(source: &Expr, attempt: &'a Attempt) -> Vec<Hypothesis<'a>> {
    let mut found = Vec::new();
    let of = |id: BufferId| {
        let operand = attempt.buffer(id);
        let scheme = operand.scheme?;
        let grid = scheme.granularity.grid(operand.rows, operand.cols);
        Some(Scales { id, operand, scheme, grid })
    };
    let read = |own: &Scales<'a>, other: &Scales<'a>| {
        let what = format!("scales `{}` with the scales of `{}`", own.name(), other.name());
        // If the other operand has fewer rows of scales, the kernel starts again at its first row.
        let (right, rows) = (other.right(), other.grid.0);
        own.read_as("scale_neighbour", what, Arc::new(move |r, g| right(r % rows, g)))
    };
    let ids = source.buffers();
    for (i, &first) in ids.iter().enumerate() {
        for &second in &ids[i + 1..] {
            let (Some(a), Some(b)) = (of(first), of(second)) else { continue };
            if a.grid.1 != b.grid.1 || a.scheme.scale_dtype != b.scheme.scale_dtype {
                continue;
            }
            let (a_as_b, b_as_a) = (read(&a, &b), read(&b, &a));
            found.push(Hypothesis {
                what: format!("exchanges the scales of `{}` and `{}`", a.name(), b.name()).into(),
                also: Some((b_as_a.slot, b_as_a.change.clone())),
                ..a_as_b.clone()
            });
            found.extend([a_as_b, b_as_a]);
        }
    }
    // The scales of another rank, layer or expert: those of any operand with the same grid and scheme.
    for own in ids.iter().filter_map(|id| of(*id)) {
        let others = (0..attempt.made_before(source)).map(BufferId).filter(|id| !ids.contains(id));
        let alike = |other: &Scales<'a>| other.grid == own.grid && other.scheme == own.scheme;
        found.extend(others.filter_map(of).filter(alike).map(|other| read(&own, &other)));
    }
    found
}

/// Scales of the parts of an operand, each of `height` rows, taken in the other order within each part: those of an expert
/// group by group, where they lie row by row.
pub fn order_within_parts<'a>(id: BufferId, operand: &'a Captured, height: usize) -> Option<Hypothesis<'a>> {
    let scheme = operand.scheme?;
    let grid = scheme.granularity.grid(operand.rows, operand.cols);
    let rows = height / scheme.granularity.cell(operand.rows, operand.cols).0.max(1);
    let own = Scales { id, operand, scheme, grid };
    if rows < 2 || grid.1 < 2 || !grid.0.is_multiple_of(rows) {
        return None;
    }
    let (right, groups) = (own.right(), grid.1);
    let what = format!("reads the scales of each {height} rows of `{}` group by group", own.name());
    let at = move |r: usize, g: usize| {
        let place = g * rows + r % rows;
        right(r / rows * rows + place / groups, place % groups)
    };
    Some(own.read_as("scale_layout", what, Arc::new(at)))
}

/// What scales are rounded to that should not be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rounding {
    /// Powers of two.
    Up,
    Down,
    Nearest,
    Format(DType),
}

impl Rounding {
    pub const ALL: [Rounding; 5] =
        [Rounding::Up, Rounding::Down, Rounding::Nearest, Rounding::Format(BF16), Rounding::Format(F16)];

    pub fn of(self, scale: f64) -> f64 {
        match self {
            Rounding::Up => scale.log2().ceil().exp2(),
            Rounding::Down => scale.log2().floor().exp2(),
            Rounding::Nearest => scale.log2().round().exp2(),
            Rounding::Format(to) => to.decode(to.encode(scale, Overflow::Special)),
        }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rounding::Up => f.write_str("up to powers of two"),
            Rounding::Down => f.write_str("down to powers of two"),
            Rounding::Nearest => f.write_str("to powers of two"),
            Rounding::Format(to) => write!(f, "to {to}"),
        }
    }
}

/// What a kernel whose cells are smaller than the declared ones finds beyond the last of them.
enum Beyond {
    /// Whatever lies at this place in memory.
    Memory(Place),
    /// The scale of this cell of the grid, and its zero point where it has one.
    Cell(Arc<dyn Fn(usize, usize) -> (usize, usize) + Send + Sync>),
}

/// Where a cell of the grid lies in memory.
pub type Place = Arc<dyn Fn(usize, usize) -> usize + Send + Sync>;

/// Every order of a grid but the declared one, by name.
pub fn orders(scheme: &Quant, grid: (usize, usize)) -> Vec<(String, Place)> {
    let mut found: Vec<(String, Place)> = Vec::new();
    if grid.0 * grid.1 <= 1 {
        return found;
    }
    let (rows, groups) = grid;
    let declared = scheme.scale_layout;
    let mut add = |name: String, place: Place| found.push((name, place));
    for &layout in ScaleLayout::ALL {
        if layout != declared && layout.check(grid).is_ok() {
            let map = layout.index_map(grid);
            add(layout.name(), Arc::new(move |r, g| map.offset(r, g)));
        }
    }
    // A lying shape: the grid taken for its transpose.
    for &layout in ScaleLayout::ALL {
        let turned = (groups, rows);
        let plain = [ScaleLayout::RowMajor, ScaleLayout::ColMajor].contains(&layout);
        if !plain && layout.check(turned).is_ok() {
            let map = layout.index_map(turned);
            add(format!("{layout} of the transposed grid"), Arc::new(move |r, g| map.offset(g, r)));
        }
    }
    // Tiles of rows, each column-major; and rows of each tile as lanes of a matrix instruction hold them, transposed.
    for tile in [16, 32, 64, 128].into_iter().filter(|&t| t < rows && groups > 1) {
        add(
            format!("col_major in each {tile} rows"),
            Arc::new(move |r, g| {
                let from = r / tile * tile;
                from * groups + g * tile.min(rows - from) + r - from
            }),
        );
    }
    let own = declared.index_map(grid);
    for (high, wide) in [(4, 4), (8, 8), (2, 8), (8, 2), (4, 8), (8, 4), (2, 16), (16, 2), (4, 16), (16, 4)] {
        let tile = high * wide;
        if tile <= rows {
            add(
                format!("{declared}, each {tile} rows as {high} x {wide} transposed,"),
                Arc::new(move |r, g| {
                    let turned = r / tile * tile + r % wide * high + r % tile / wide;
                    own.offset(if r < rows / tile * tile { turned } else { r }, g)
                }),
            );
        }
    }
    // Rows or columns padded otherwise than they are.
    for to in [2, 4, 8, 16, 32, 64, 128, 256] {
        let wide = groups.next_multiple_of(to);
        if wide != groups && (to == 2 || wide != groups.next_multiple_of(to / 2)) {
            add(format!("row_major with rows of {wide}"), Arc::new(move |r, g| r * wide + g));
        }
        let tall = rows.next_multiple_of(to);
        if tall != rows && (to == 2 || tall != rows.next_multiple_of(to / 2)) {
            add(format!("col_major with columns of {tall}"), Arc::new(move |r, g| g * tall + r));
        }
    }
    // Tiles row-major in themselves, one after another along the rows.
    for (high, wide) in [(128, 4), (64, 4), (32, 4), (16, 4), (16, 8), (8, 4)] {
        if high / 2 < rows && groups > 1 {
            let padded = groups.next_multiple_of(wide);
            add(
                format!("tiles of {high} x {wide}, each row_major,"),
                Arc::new(move |r, g| {
                    r / high * high * padded + g / wide * high * wide + r % high * wide + g % wide
                }),
            );
        }
    }
    // The two halves of the index within a word exchanged.
    let padded = groups.next_multiple_of(8);
    let exchanged: [(&str, Place); 2] = [
        (
            "e8m0_shuffle, bytes 1 and 2 of each word exchanged,",
            Arc::new(move |r, g| {
                r / 32 * 32 * padded + g / 8 * 256 + g % 4 * 64 + r % 16 * 4 + r % 32 / 16 * 2 + g % 8 / 4
            }),
        ),
        (
            "swizzle_128x4, each 4 x 4 bytes transposed,",
            Arc::new(move |r, g| {
                r / 128 * 128 * groups.next_multiple_of(4)
                    + g / 4 * 512
                    + r % 32 * 16
                    + g % 4 * 4
                    + r % 128 / 32
            }),
        ),
    ];
    if scheme.scale_dtype == E8M0 && groups > 1 && rows > 1 {
        exchanged.into_iter().for_each(|(name, place)| add(name.into(), place));
    }
    // Tiles of a swizzle as far apart as if the groups were not padded to whole tiles.
    if !groups.is_multiple_of(8) {
        add(
            format!("e8m0_shuffle with tiles of {groups} groups, not padded to 8,"),
            Arc::new(move |r, g| {
                r / 32 * 32 * groups + g / 8 * 256 + g % 4 * 64 + r % 16 * 4 + g % 8 / 4 * 2 + r % 32 / 16
            }),
        );
    }
    if rows > 1 {
        for stride in [groups - 1, groups + 1].into_iter().filter(|&s| s > 0) {
            add(format!("row_major with rows of {stride}"), Arc::new(move |r, g| r * stride + g));
        }
    }
    found
}

struct Scales<'a> {
    id: BufferId,
    operand: &'a Captured,
    scheme: Quant,
    grid: (usize, usize),
}

impl<'a> Scales<'a> {
    fn name(&self) -> &'a str {
        &self.operand.name
    }

    /// The scales at a place in memory, of cells as they are declared.
    fn cells(&self, at: CellAt<'a>) -> Cells<'a> {
        let (rows, cols) = self.scheme.granularity.cell(self.operand.rows, self.operand.cols);
        Cells { rows, cols, at }
    }

    fn read_as(&self, cause: &'static str, what: String, at: CellAt<'a>) -> Hypothesis<'a> {
        Hypothesis {
            cause,
            slot: Slot::Scales(self.id),
            operand: Some(self.id),
            what: what.into(),
            change: Change::Scales(self.cells(at)),
            sense: Sense::Other,
            also: None,
        }
    }

    /// The right scale of a cell.
    fn right(&self) -> impl Fn(usize, usize) -> f64 + Clone + use<'a> {
        let (operand, scheme) = (self.operand, self.scheme);
        let order = Order::of_scales(&scheme, self.grid);
        move |r, g| scale_in_memory(operand, &scheme, order.index(r, g))
    }

    /// Another order of the same bytes.
    fn layouts(&self) -> Vec<Hypothesis<'a>> {
        let (operand, scheme) = (self.operand, self.scheme);
        let declared = scheme.scale_layout;
        let (rows, groups) = self.grid;
        let mut found = Vec::new();
        for (read, place) in orders(&scheme, self.grid) {
            let what =
                format!("reads the scales of `{}` as {read}; they lie in {declared} order", self.name());
            let at = move |r: usize, g: usize| scale_in_memory(operand, &scheme, place(r, g));
            if (0..rows * groups).any(|i| at(i / groups, i % groups).is_nan()) {
                // A bounded load has 0 for what lies beyond.
                let at = at.clone();
                let or_zero = move |r: usize, g: usize| Some(at(r, g)).filter(|s| !s.is_nan()).unwrap_or(0.0);
                let what = format!("{what}, and takes 0 beyond their end");
                found.push(self.read_as("scale_layout", what, Arc::new(or_zero)));
            }
            found.push(self.read_as("scale_layout", what, Arc::new(at)));
        }
        found
    }

    /// The scale of another cell.
    fn neighbours(&self) -> Vec<Hypothesis<'a>> {
        let (rows, groups) = self.grid;
        let mut found = Vec::new();
        let mut add = |which: &str, cell: Arc<dyn Fn(usize, usize) -> (usize, usize) + Send + Sync + 'a>| {
            let what = format!("scales `{}` with {which}", self.name());
            let right = self.right();
            let at = move |r: usize, g: usize| {
                let (r, g) = cell(r, g);
                right(r, g)
            };
            found.push(self.read_as("scale_neighbour", what, Arc::new(at)));
        };
        if groups > 1 {
            add("the scale of the next group", Arc::new(move |r, g| (r, (g + 1) % groups)));
            add(
                "the scale of the next group, the last with its own",
                Arc::new(move |r, g| (r, (g + 1).min(groups - 1))),
            );
            add(
                "the scale of the next group, the last with that of the next row's first",
                Arc::new(move |r, g| if g + 1 < groups { (r, g + 1) } else { ((r + 1) % rows, 0) }),
            );
            add("the scale of the previous group", Arc::new(move |r, g| (r, (g + groups - 1) % groups)));
            add(
                "the scale of the previous group, the first with its own",
                Arc::new(move |r, g| (r, g.saturating_sub(1))),
            );
            add("the scale of its row's first group", Arc::new(move |r, _| (r, 0)));
            add("the scale of its row's last group", Arc::new(move |r, _| (r, groups - 1)));
            add(
                "the scales of its row in reverse order",
                Arc::new(move |r, g| (r, (groups - 1).saturating_sub(g))),
            );
            add(
                "the scale of the other group of each pair",
                Arc::new(move |r, g| (r, (g ^ 1).min(groups - 1))),
            );
            add(
                "the scale of its own group, the last with that of the group before",
                Arc::new(move |r, g| (r, g.min(groups - 2))),
            );
            add("the scale of each second group", Arc::new(move |r, g| (r, g / 2 * 2)));
            add("the scale of group g / 2", Arc::new(move |r, g| (r, g / 2)));
            for tile in [2, 4, 8, 16].into_iter().filter(|&t| t < groups) {
                add(
                    &format!("the scale of the previous group from group {tile} on"),
                    Arc::new(move |r, g| (r, if g < tile { g } else { g - 1 })),
                );
                if tile > 2 {
                    add(
                        &format!("the scale of the first of its {tile} groups"),
                        Arc::new(move |r, g| (r, g / tile * tile)),
                    );
                }
                add(&format!("the scale of group g % {tile}"), Arc::new(move |r, g| (r, g % tile)));
                // A part of the index that a select of bytes or lanes leaves out.
                add(
                    &format!(
                        "the scale of the first {tile} of each {} groups, again for the others",
                        2 * tile
                    ),
                    Arc::new(move |r, g| (r, g & !tile)),
                );
                add(
                    &format!("the scale of the other of two neighbouring tiles of {tile} groups"),
                    Arc::new(move |r, g| (r, if g ^ tile < groups { g ^ tile } else { g })),
                );
            }
        }
        if rows > 1 {
            add("the scale of the next row", Arc::new(move |r, g| ((r + 1) % rows, g)));
            add(
                "the scale of the next row, the last with its own",
                Arc::new(move |r, g| ((r + 1).min(rows - 1), g)),
            );
            add("the scale of the previous row", Arc::new(move |r, g| ((r + rows - 1) % rows, g)));
            add(
                "the scale of the previous row, the first with its own",
                Arc::new(move |r, g| (r.saturating_sub(1), g)),
            );
            add(
                "the scale of its own row, the last with that of the row before",
                Arc::new(move |r, g| (r.min(rows - 2), g)),
            );
            add("the scales of the first row", Arc::new(move |_, g| (0, g)));
            add("the scales of the last row", Arc::new(move |_, g| (rows - 1, g)));
            for tile in [2, 4, 8, 16, 32, 64, 128].into_iter().filter(|&t| t < rows) {
                add(
                    &format!("the scale of the first row of its tile of {tile}"),
                    Arc::new(move |r, g| (r / tile * tile, g)),
                );
                add(&format!("the scale of row r % {tile}"), Arc::new(move |r, g| (r % tile, g)));
                add(
                    &format!("the scale of the first {tile} of each {} rows, again for the others", 2 * tile),
                    Arc::new(move |r, g| (r & !tile, g)),
                );
                add(
                    &format!("the scale of the other of two neighbouring tiles of {tile} rows"),
                    Arc::new(move |r, g| if r ^ tile < rows { (r ^ tile, g) } else { (r, g) }),
                );
                add(
                    &format!("the scale of the row {tile} before, the first {tile} with their own"),
                    Arc::new(move |r, g| (r.checked_sub(tile).unwrap_or(r), g)),
                );
            }
        }
        if rows > 1 && groups > 1 {
            add("the scale of the first cell", Arc::new(|_, _| (0, 0)));
        }
        // An index in too few bits, or into a buffer of a fixed size.
        let order = Order::of_scales(&self.scheme, self.grid);
        let (operand, scheme, count) = (self.operand, self.scheme, rows * groups);
        for room in (4..=20).map(|bits| 1_usize << bits).filter(|room| *room < count && room * 16 >= count) {
            let what = format!(
                "scales `{}` with the scale at its place modulo {room}: the index wraps around",
                self.name()
            );
            let at = move |r: usize, g: usize| scale_in_memory(operand, &scheme, order.index(r, g) % room);
            found.push(self.read_as("scale_neighbour", what, Arc::new(at)));
        }
        found
    }

    /// Another function of the right scale.
    fn values(&self) -> Vec<Hypothesis<'a>> {
        let (name, format) = (self.name(), self.scheme.scale_dtype);
        let with = |cause, what: String, f: fn(f64) -> f64| {
            let right = self.right();
            self.read_as(cause, what, Arc::new(move |r, g| f(right(r, g))))
        };
        let mut found = vec![
            with("scale_missing", format!("does not apply the scales of `{name}`"), |_| 1.0),
            with(
                "scale_inverted",
                format!("divides by the scales of `{name}` instead of multiplying"),
                |s| 1.0 / s,
            ),
            // The contract has no name for these two.
            with("unknown", format!("applies the scales of `{name}` twice"), |s| s * s),
            with("unknown", format!("takes the square root of the scales of `{name}`"), f64::sqrt),
        ];
        if format == E8M0 {
            let of = |what| format!("decodes the e8m0 scales of `{name}` with {what}");
            let bias = |bias| Sense::Misreads(Misreading::Bias(bias));
            let large = of("a bias of 126 for 127: twice as large");
            found.push(with("gain", large, |s| s * 2.0).meaning(bias(126)));
            let small = of("a bias of 128 for 127: half as large");
            found.push(with("gain", small, |s| s / 2.0).meaning(bias(128)));
            // The code as an integer, as a float32's upper bits.
            found.push(with("scale_missing", of("their codes as integers"), |s| s.log2() + 127.0));
            found.push(with("scale_missing", of("their codes as integers less the bias"), f64::log2));
        } else {
            for to in Rounding::ALL {
                let what = format!("rounds the scales of `{name}` {to}");
                let finer = match to {
                    Rounding::Format(BF16) => format == F32,
                    Rounding::Format(own) => format != own,
                    _ => true,
                };
                if finer {
                    let right = self.right();
                    found.push(self.read_as("rounding", what, Arc::new(move |r, g| to.of(right(r, g)))));
                }
            }
        }
        found
    }

    /// The bytes of the scales as another format.
    fn formats(&self) -> Vec<Hypothesis<'a>> {
        let (operand, own, order) =
            (self.operand, self.scheme.scale_dtype, Order::of_scales(&self.scheme, self.grid));
        let name = self.name();
        let read = move |format: DType, index: usize| {
            let there = index < operand.scales.len() * 8 / format.bits() as usize;
            if there { format.decode(format.code_at(&operand.scales, index)) } else { f64::NAN }
        };
        let mut found = Vec::new();
        let formats = [E8M0, E4M3FN, E4M3FNUZ, E5M2, F32, DType::BF16, DType::F16];
        for format in formats.into_iter().filter(|&f| f != own) {
            // At the same index, and at the same byte.
            let what = format!("reads the {own} scales of `{name}` as {format}");
            let cause = if own.bits() == 8 && format.is_fp8() { "fp8_variant" } else { "scale_layout" };
            found.push(self.read_as(cause, what, Arc::new(move |r, g| read(format, order.index(r, g)))));
            if own.bits() > format.bits() {
                let ratio = (own.bits() / format.bits()) as usize;
                let what = format!("reads the top bits of the {own} scales of `{name}` as {format}");
                let at = move |r, g| read(format, order.index(r, g) * ratio + ratio - 1);
                found.push(self.read_as("scale_layout", what, Arc::new(at)));
            }
        }
        if own == F32 {
            // Exponent bits alone: `bits >> 23` as an e8m0 code.
            let right = self.right();
            let what = format!("takes the exponents of the float32 scales of `{name}` for e8m0 codes");
            let at = move |r, g| 2f64.powi(((right(r, g) as f32).to_bits() >> 23 & 0xff) as i32 - 127);
            found.push(self.read_as("scale_layout", what, Arc::new(at)));
        }
        found
    }

    /// Cells of another size, of the scales and of the zero points alike.
    fn granularities(&self) -> Vec<Hypothesis<'a>> {
        let (Granularity::Group(_) | Granularity::Block(..)) = self.scheme.granularity else {
            return Vec::new();
        };
        let (operand, scheme, (grid_rows, groups)) = (self.operand, self.scheme, self.grid);
        let (rows, cols) = scheme.granularity.cell(operand.rows, operand.cols);
        let order = Order::of_scales(&scheme, self.grid);
        // Zero points that have the cells of the scales: they are taken for as large.
        let of_cells = matches!(scheme.zero_point, ZeroPoint::PerCell { .. });
        let own = super::reading::Reading::right(operand).zeros.filter(|_| of_cells);
        let mut found = Vec::new();
        let mut add = |what: Words, rows: usize, cols: usize, at: Beyond| {
            let place = match &at {
                Beyond::Memory(place) => place.clone(),
                Beyond::Cell(cell) => {
                    let cell = cell.clone();
                    let place: Place = Arc::new(move |r, g| {
                        let (r, g) = cell(r, g);
                        order.index(r, g)
                    });
                    place
                }
            };
            // Whoever takes the scale of another cell takes that cell's zero point.
            let zeros = match (at, own.clone()) {
                (Beyond::Cell(cell), Some(own)) => {
                    let zeros: CellAt<'a> = Arc::new(move |r, g| {
                        let (r, g) = cell(r, g);
                        own(r, g)
                    });
                    Some((Slot::Zeros(self.id), Change::ZerosAt(zeros)))
                }
                _ => None,
            };
            let scales = move |r: usize, g: usize| scale_in_memory(operand, &scheme, place(r, g));
            found.push(Hypothesis {
                cause: "scale_neighbour",
                slot: Slot::Scales(self.id),
                operand: Some(self.id),
                what,
                change: Change::Scales(Cells { rows, cols, at: Arc::new(scales) }),
                sense: Sense::Other,
                also: zeros,
            });
        };
        let column_major = scheme.scale_layout == ScaleLayout::ColMajor;
        for size in [16, 32, 64, 128, 256].into_iter().filter(|&s| s != cols && s < operand.cols) {
            let words = takes!("groups of {size} for the groups of {cols} of `{}`", self.name());
            let wide = operand.cols.div_ceil(size);
            if column_major {
                let on = Beyond::Memory(Arc::new(move |r, g| g * grid_rows + r));
                add(words.clone(), rows, size, on);
            } else {
                let on = Beyond::Memory(Arc::new(move |r, g| r * groups + g));
                add(words.clone(), rows, size, on);
                let on = Beyond::Memory(Arc::new(move |r, g| r * wide + g));
                add(words.and(format_args!(", in rows of {wide}")), rows, size, on);
            }
            let again = Beyond::Cell(Arc::new(move |r, g| (r, g % groups)));
            add(words.and(", again from the first"), rows, size, again);
            let last = Beyond::Cell(Arc::new(move |r, g| (r, g.min(groups - 1))));
            add(words.and(", the last for those beyond"), rows, size, last);
        }
        if rows > 1 {
            for size in [1, 16, 32, 64, 128, 256].into_iter().filter(|&s| s != rows) {
                let words = takes!("blocks of {size} rows for the blocks of {rows} of `{}`", self.name());
                add(words.clone(), size, cols, Beyond::Memory(Arc::new(move |r, g| order.index(r, g))));
                if size < rows {
                    let last = Beyond::Cell(Arc::new(move |r, g| (r.min(grid_rows - 1), g)));
                    add(words.and(", the last for those beyond"), size, cols, last);
                    let again = Beyond::Cell(Arc::new(move |r, g| (r % grid_rows, g)));
                    add(words.and(", again from the first"), size, cols, again);
                }
            }
        }
        // Or the zero points are the right ones, and only the scales are not.
        if let Some(own) = own {
            let mut only_scales = found.clone();
            for h in &mut only_scales {
                let Change::Scales(cells) = &h.change else { continue };
                let (own, high, wide) = (own.clone(), cells.rows, cells.cols);
                let at = move |r: usize, g: usize| own(r * high / rows, g * wide / cols);
                h.also = Some((Slot::Zeros(self.id), Change::ZerosAt(Arc::new(at))));
                h.what = h.what.and(", the zero points those of their own");
            }
            found.extend(only_scales);
        }
        found
    }

    fn zeros(&self) -> Vec<Hypothesis<'a>> {
        if self.scheme.zero_point == ZeroPoint::None {
            return Vec::new();
        }
        let name = self.name();
        let with = |what: &str, f: fn(f64) -> f64| Hypothesis {
            cause: "zero_point",
            slot: Slot::Zeros(self.id),
            operand: Some(self.id),
            what: format!("{what} of `{name}`").into(),
            change: Change::Zeros(f),
            sense: Sense::Other,
            also: None,
        };
        let mut found = vec![
            with("does not subtract the zero points", |_| 0.0),
            with("subtracts one more than the zero points", |z| z + 1.0),
            with("subtracts one less than the zero points", |z| z - 1.0),
            with("adds the zero points instead of subtracting them", |z| -z),
            with("subtracts 8 instead of the zero points", |_| 8.0),
            with("subtracts 7 instead of the zero points", |_| 7.0),
            with("subtracts 9 instead of the zero points", |_| 9.0),
            with("subtracts 128 instead of the zero points", |_| 128.0),
            with("subtracts 127 instead of the zero points", |_| 127.0),
        ];
        type Difference = (&'static str, fn(f64) -> f64);
        let differences: &[Difference] = match self.scheme.dtype.bits() {
            4 => &[
                ("in four bits, which saturate", |x| x.clamp(-8.0, 7.0)),
                ("in four bits, which wrap around", |x| (x + 8.0).rem_euclid(16.0) - 8.0),
                ("in four bits without a sign, which saturate", |x| x.clamp(0.0, 15.0)),
                ("in four bits without a sign, which wrap around", |x| x.rem_euclid(16.0)),
            ],
            _ => &[
                ("in eight bits, which saturate", |x| x.clamp(-128.0, 127.0)),
                ("in eight bits, which wrap around", |x| (x + 128.0).rem_euclid(256.0) - 128.0),
                ("in eight bits without a sign, which saturate", |x| x.clamp(0.0, 255.0)),
                ("in eight bits without a sign, which wrap around", |x| x.rem_euclid(256.0)),
            ],
        };
        found.extend(differences.iter().map(|(how, f)| Hypothesis {
            cause: "overflow",
            slot: Slot::Zeros(self.id),
            operand: Some(self.id),
            what: format!("subtracts the zero points from the codes of `{name}` {how}").into(),
            change: Change::Difference(*f),
            sense: Sense::Other,
            also: None,
        }));
        let (rows, groups) = self.grid;
        let ZeroPoint::PerCell { dtype, layout, .. } = self.scheme.zero_point else { return found };
        let Some(own) = super::reading::Reading::right(self.operand).zeros else { return found };
        let mut add = |what: String, at: CellAt<'a>| {
            found.push(Hypothesis {
                cause: "zero_point",
                slot: Slot::Zeros(self.id),
                operand: Some(self.id),
                what: what.into(),
                change: Change::ZerosAt(at),
                sense: Sense::Other,
                also: None,
            });
        };
        for (which, cell) in OTHER_CELLS {
            let own = own.clone();
            add(
                format!("subtracts the zero points of {which} from `{name}`"),
                Arc::new(move |r, g| {
                    let (r, g) = cell(r, g, rows, groups);
                    own(r, g)
                }),
            );
        }
        for by in [8, 16, 32, 64, 128].into_iter().filter(|by| *by < rows) {
            let own = own.clone();
            add(
                format!("subtracts the zero points of the row {by} before from `{name}`"),
                Arc::new(move |r, g| own(r.checked_sub(by).unwrap_or(r), g)),
            );
        }
        let (unscaled, scale) = (own.clone(), self.right());
        add(
            format!("subtracts the zero points of `{name}` after scaling, unscaled"),
            Arc::new(move |r, g| unscaled(r, g) / scale(r, g)),
        );
        for (which, at) in codes::zeros_misplaced(self.operand) {
            let which = which.words();
            add(format!("takes the zero points of `{name}` to have {which}, its codes rightly"), at);
        }
        // Another order of the grid.
        let operand = self.operand;
        let other =
            if layout == ScaleLayout::RowMajor { ScaleLayout::ColMajor } else { ScaleLayout::RowMajor };
        let map = other.index_map(self.grid);
        add(
            format!("reads the zero points of `{name}` as {other}; they lie in {layout} order"),
            Arc::new(move |r, g| {
                let at = map.offset(r, g);
                let there = at < operand.zeros.len() * 8 / dtype.bits() as usize;
                if there { dtype.decode(dtype.code_at(&operand.zeros, at)) } else { f64::NAN }
            }),
        );
        found.extend(self.cells_of_others(own));
        found
    }

    /// Scales and zero points of the same wrong cells.
    fn cells_of_others(&self, own: CellAt<'a>) -> Vec<Hypothesis<'a>> {
        let (name, right, (rows, groups)) = (self.name(), self.right(), self.grid);
        let mut found = Vec::new();
        for (which, cell) in OTHER_CELLS {
            let (own, right) = (own.clone(), right.clone());
            found.push(Hypothesis {
                cause: "scale_neighbour",
                slot: Slot::Scales(self.id),
                operand: Some(self.id),
                what: format!("scales `{name}` with the scale and the zero point of {which}").into(),
                change: Change::Scales(self.cells(Arc::new(move |r, g| {
                    let (r, g) = cell(r, g, rows, groups);
                    right(r, g)
                }))),
                sense: Sense::Other,
                also: Some((
                    Slot::Zeros(self.id),
                    Change::ZerosAt(Arc::new(move |r, g| {
                        let (r, g) = cell(r, g, rows, groups);
                        own(r, g)
                    })),
                )),
            });
        }
        found
    }

    fn factors(&self) -> Vec<Hypothesis<'a>> {
        if self.scheme.global_scale.is_none() {
            return Vec::new();
        }
        let (name, factor) = (self.name(), self.operand.factor);
        let with = |cause, what: String, factor| Hypothesis {
            cause,
            slot: Slot::Factor(self.id),
            operand: Some(self.id),
            what: what.into(),
            change: Change::Factor(factor),
            sense: Sense::Other,
            also: None,
        };
        vec![
            with(
                "scale_inverted",
                format!(
                    "divides by the tensor-wide scale of `{name}` where it should multiply, or the reverse"
                ),
                1.0 / factor,
            ),
            with("scale_missing", format!("does not apply the tensor-wide scale of `{name}`"), 1.0),
            with(
                "scale_inverted",
                format!("applies the tensor-wide scale of `{name}` twice"),
                factor * factor,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;
    use crate::case::input::Data;
    use crate::dtype::{INT8, UINT4};
    use crate::judge::tests::setup;

    /// Blocks of 32 rows that are taken for smaller ones: beyond the last of them, whoever finds another cell's scale finds
    /// its zero point there, too.
    #[test]
    fn rows_beyond_the_last_block_have_scale_and_zero_point_of_one_cell() {
        let zeros = ZeroPoint::per_cell(UINT4, ScaleLayout::RowMajor);
        let mut case = Case::new(setup(0, Data::Ordinary));
        let scheme = Quant::block(UINT4, 32, 64).zero_point(ZeroPoint::Fixed(8));
        let w = case.inout_quantized("w", scheme, [64, 128]).unwrap();
        let q = case.quantized("q", &w, Quant::token(INT8)).unwrap();
        let mut attempt = case.finish(&q).unwrap();
        // Zero points 1 and 2 of the first row of blocks, 3 and 4 of the second.
        let of_w = &mut attempt.buffers[w.id().0];
        (of_w.scheme, of_w.zeros) = (Some(scheme.zero_point(zeros)), vec![0x21, 0x43]);
        let operand = attempt.buffer(w.id());
        let right = super::super::reading::Reading::right(operand).zeros.unwrap();
        assert!(right(1, 1).is_finite() && right(1, 1) != right(0, 1));
        let all = hypotheses(w.id(), operand);
        let mut seen = 0;
        for h in &all {
            let (Change::Scales(cells), Some((_, Change::ZerosAt(of)))) = (&h.change, &h.also) else {
                continue;
            };
            if cells.rows != 16 {
                continue;
            }
            // The fourth block of 16 rows, where the grid has two: the second again, or the last, which is the same one.
            assert_eq!(of(3, 1), right(1, 1), "{}", h.what);
            seen += 1;
        }
        assert!(seen >= 2, "{seen}");
    }
}
