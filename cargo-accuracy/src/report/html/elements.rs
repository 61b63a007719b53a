//! Pictures of the elements that flowed into a wrong element, beside those that its declaration reads. They need no script.
//!
//! A picture shows the part of one buffer that has elements of either set. A cell is one element, or a block of them where
//! there are many.

use super::shell::escape;
use accuracy_core::record::{Block, Elements, Origin, Record};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Cases whose pictures are in a page, origins of each, and buffers of each of those.
const CASES: usize = 20;
const ORIGINS: usize = 6;
const BUFFERS: usize = 6;
/// Cells of a picture, and the side of one in pixels.
const COLUMNS: u64 = 48;
const ROWS: u64 = 16;
const SIDE: u64 = 11;

/// What a cell has of the two sets. The names are those of the style sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// None of either.
    Empty,
    /// The same of both.
    Both,
    /// Elements that were taken and are not declared.
    Taken,
    /// Elements that are declared and were not taken.
    Declared,
    /// Some of both kinds.
    Mixed,
}

impl Cell {
    const SHOWN: [Cell; 4] = [Cell::Both, Cell::Taken, Cell::Declared, Cell::Mixed];

    fn class(self) -> &'static str {
        match self {
            Cell::Empty => "empty",
            Cell::Both => "both",
            Cell::Taken => "taken",
            Cell::Declared => "declared",
            Cell::Mixed => "mixed",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Cell::Empty => "neither taken nor declared",
            Cell::Both => "taken, as declared",
            Cell::Taken => "taken, not declared",
            Cell::Declared => "declared, not taken",
            Cell::Mixed => "other elements taken than declared",
        }
    }
}

/// The pictures of the failing cases of a page; empty where there are none.
pub fn pictures<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let with: Vec<&Record> = records.filter(|record| !record.origins.is_empty()).collect();
    let mut text = String::new();
    for record in with.iter().take(CASES) {
        let _ = write!(text, "<h3><code class=\"wrap\">{}</code></h3>", escape(&record.id));
        text.extend(record.origins.iter().take(ORIGINS).map(origin));
    }
    if text.is_empty() {
        return text;
    }
    let more = match with.len().saturating_sub(CASES) {
        0 => String::new(),
        n => format!("<p>and {n} more cases, in the JSON report</p>"),
    };
    let legend: String = Cell::SHOWN.iter().map(|cell| legend(*cell)).collect();
    format!(
        "<details class=\"note origins\" open><summary>Elements that wrong results were computed from</summary>\
         <ul class=\"key\">{legend}</ul>{text}{more}</details>\n"
    )
}

fn legend(cell: Cell) -> String {
    format!(
        "<li><svg width=\"{SIDE}\" height=\"{SIDE}\" aria-hidden=\"true\">{}</svg> {}</li>",
        rect(cell, 0, 0, 1, None),
        cell.words()
    )
}

fn origin(origin: &Origin) -> String {
    let (class, word) = if origin.wrong { ("bad", "wrong") } else { ("good", "right") };
    // Buffers of which the two sets differ come first.
    let differ = origin.extra.iter().chain(&origin.missing);
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = differ
        .chain(&origin.took)
        .chain(&origin.declared)
        .map(|elements| elements.buffer.as_str())
        .filter(|name| seen.insert(*name))
        .collect();
    let pictures: String = names.iter().take(BUFFERS).map(|name| picture(origin, name)).collect();
    let more = match names.len().saturating_sub(BUFFERS) {
        0 => String::new(),
        n => format!("<p class=\"dim\">and {n} more buffers</p>"),
    };
    format!(
        "<figure><figcaption class=\"wrap\"><span class=\"badge {class}\">{word}</span> {}</figcaption>\
         <div class=\"buffers\">{pictures}</div>{more}</figure>",
        escape(&origin.place())
    )
}

/// The elements of one buffer that are in some list.
fn of<'a>(lists: &'a [Elements], name: &str) -> Option<&'a Elements> {
    lists.iter().find(|elements| elements.buffer == name)
}

/// A part of a buffer, in cells of equal size.
struct Grid {
    first: [u64; 2],
    last: [u64; 2],
    /// Rows and columns of a cell.
    step: [u64; 2],
    cells: [u64; 2],
}

impl Grid {
    /// The least one that has all of these blocks.
    fn of<'a>(blocks: impl Iterator<Item = &'a Block>) -> Option<Grid> {
        let all = blocks.copied().reduce(|a, b| {
            let both = |a: [u64; 2], b: [u64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
            Block { rows: both(a.rows, b.rows), columns: both(a.columns, b.columns) }
        })?;
        let length = |[first, last]: [u64; 2]| (last + 1).saturating_sub(first).max(1);
        let lengths = [length(all.rows), length(all.columns)];
        let step = [lengths[0].div_ceil(ROWS), lengths[1].div_ceil(COLUMNS)];
        let cells = [lengths[0].div_ceil(step[0]), lengths[1].div_ceil(step[1])];
        let (first, last) = ([all.rows[0], all.columns[0]], [all.rows[1], all.columns[1]]);
        Some(Grid { first, last, step, cells })
    }

    fn cell(&self, row: u64, column: u64) -> Block {
        let range = |axis: usize, at: u64| {
            let first = self.first[axis] + at * self.step[axis];
            [first, (first + self.step[axis] - 1).min(self.last[axis])]
        };
        Block { rows: range(0, row), columns: range(1, column) }
    }
}

fn picture(origin: &Origin, name: &str) -> String {
    let lists = [&origin.took, &origin.declared, &origin.extra, &origin.missing].map(|list| of(list, name));
    let shape = lists.iter().flatten().find_map(|elements| elements.shape);
    let title = escape(name);
    let Some(grid) = Grid::of(lists.iter().flatten().flat_map(|elements| &elements.blocks)) else {
        return format!("<div><p><code>{title}</code>: in an order that has no rows and columns</p></div>");
    };
    let [took, declared, extra, missing] = lists;
    let inside = |elements: Option<&Elements>, cell: &Block| -> bool {
        elements.is_some_and(|elements| elements.blocks.iter().any(|block| block.shared(cell).is_some()))
    };
    let what = |row: u64, column: u64| {
        let cell = grid.cell(row, column);
        match (inside(extra, &cell), inside(missing, &cell)) {
            (true, true) => Cell::Mixed,
            (true, false) => Cell::Taken,
            (false, true) => Cell::Declared,
            (false, false) if inside(took, &cell) || inside(declared, &cell) => Cell::Both,
            (false, false) => Cell::Empty,
        }
    };
    let mut rects = String::new();
    for row in 0..grid.cells[0] {
        let mut column = 0;
        while column < grid.cells[1] {
            let cell = what(row, column);
            let run =
                (column + 1..grid.cells[1]).take_while(|next| what(row, *next) == cell).count() as u64 + 1;
            if cell != Cell::Empty {
                let (first, last) = (grid.cell(row, column), grid.cell(row, column + run - 1));
                let block = Block { rows: first.rows, columns: [first.columns[0], last.columns[1]] };
                rects += &rect(cell, row, column, run, Some(&block));
            }
            column += run;
        }
    }
    let [height, width] = grid.cells.map(|cells| cells * SIDE);
    let part = |word: &str, axis: usize| {
        let of = shape.map_or(String::new(), |shape| format!(" of {}", shape[axis]));
        let (first, last) = (grid.first[axis], grid.last[axis]);
        match first == last {
            true => format!("{word} {last}{of}"),
            false => format!("{word}s {first} to {last}{of}"),
        }
    };
    let size = match grid.step {
        [1, 1] => String::new(),
        [rows, columns] => format!("; a cell is {rows} x {columns} elements"),
    };
    let told = lists.iter().flatten();
    let cut = told.clone().any(|e| e.count > e.blocks.iter().map(Block::count).sum());
    let cut = if cut { "; only the first blocks of them are shown" } else { "" };
    let words = format!("{}, {}{size}{cut}", part("row", 0), part("column", 1));
    let alt: String = [("taken", took), ("declared", declared)]
        .into_iter()
        .filter_map(|(word, elements)| Some(format!("{word}: {}. ", elements?)))
        .collect();
    format!(
        "<div><p><code>{title}</code> <span class=\"dim\">{words}</span></p>\
         <svg role=\"img\" aria-label=\"{}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\
         <rect class=\"all\" width=\"{width}\" height=\"{height}\"/>{rects}</svg></div>",
        escape(alt.trim_end())
    )
}

/// A run of cells that have the same, as a rectangle that says what it is.
fn rect(cell: Cell, row: u64, column: u64, run: u64, block: Option<&Block>) -> String {
    let (x, y, width) = (column * SIDE + 1, row * SIDE + 1, run * SIDE - 2);
    let class = cell.class();
    let shape =
        format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\"", SIDE - 2);
    let range = |[first, last]: [u64; 2]| match first == last {
        true => first.to_string(),
        false => format!("{first}..{last}"),
    };
    match block {
        None => format!("{shape}/>"),
        Some(Block { rows, columns }) => {
            format!("{shape}><title>[{}, {}]: {}</title></rect>", range(*rows), range(*columns), cell.words())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::record;

    fn elements(buffer: &str, rows: [u64; 2], columns: [u64; 2]) -> Elements {
        let block = Block { rows, columns };
        Elements { buffer: buffer.into(), count: block.count(), blocks: vec![block], shape: Some([33, 3]) }
    }

    /// An element that took the scales of row 4, where those of row 3 are declared.
    fn other_row() -> Origin {
        let (three, four) = (elements("xs<b>", [3, 3], [0, 2]), elements("xs<b>", [4, 4], [0, 2]));
        let tail = elements("w", [17, 17], [0, 383]);
        Origin {
            buffer: "y".into(),
            row: 3,
            column: 17,
            wrong: true,
            writer: None,
            took: vec![four.clone(), tail.clone()],
            steered_by: Vec::new(),
            declared: vec![three.clone(), tail],
            extra: vec![four],
            missing: vec![three],
            computed: None,
            not_followed: Vec::new(),
        }
    }

    #[test]
    fn the_picture_has_the_row_that_was_taken_and_the_row_that_is_declared() {
        let text = origin(&other_row());
        let cells: Vec<&str> =
            text.split("<title>").skip(1).filter_map(|t| t.split("</title>").next()).collect();
        let expected = [
            "[3, 0..2]: declared, not taken",
            "[4, 0..2]: taken, not declared",
            "[17, 0..383]: taken, as declared",
        ];
        assert_eq!(cells, expected);
        assert!(text.contains("rows 3 to 4 of 33, columns 0 to 2 of 3"), "{text}");
        // 384 columns in 48 cells.
        assert!(text.contains("a cell is 1 x 8 elements"), "{text}");
        assert!(text.contains("taken: xs&lt;b&gt;[4, 0..2]. declared: xs&lt;b&gt;[3, 0..2]."), "{text}");
    }

    #[test]
    fn no_name_becomes_markup() {
        let mut case = record("k::t[x=<i>]", 0.5);
        case.origins = vec![other_row()];
        let text = pictures([&case].into_iter());
        assert!(!text.contains("<b>") && !text.contains("<i>"), "{text}");
        assert!(text.contains("k::t[x=&lt;i&gt;]"), "{text}");
        assert_eq!(pictures([&record("k::t[]", 1.0)].into_iter()), "", "without origins there is no section");
    }

    #[test]
    fn a_cell_that_has_both_kinds_says_so() {
        let mut origin = other_row();
        let wide = |rows| elements("xs<b>", rows, [0, 0]);
        // 64 rows in 16 cells: two elements that are next to each other share one.
        (origin.extra, origin.missing) = (vec![wide([0, 0])], vec![wide([1, 1])]);
        let mut took = wide([0, 0]);
        took.blocks.extend(wide([63, 63]).blocks);
        origin.took = vec![took];
        let text = picture(&origin, "xs<b>");
        assert!(text.contains("class=\"mixed\""), "{text}");
        assert!(text.contains("class=\"both\""), "{text}");
    }
}
