//! The error map: which elements of an output are wrong, in words.

use crate::case::Captured;
use crate::reference::Matrix;
use crate::words::{Words, says};
use std::collections::BTreeSet;
use std::fmt;

/// Which elements are wrong.
pub struct Map {
    pub rows: usize,
    pub cols: usize,
    wrong: Vec<bool>,
    pub count: usize,
    pub row_count: Vec<usize>,
    pub col_count: Vec<usize>,
}

/// Where wrong elements are, as far as anything depends on it, with words for it.
#[derive(Clone, Debug)]
pub struct Place {
    pub pattern: Pattern,
    words: Words,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Everywhere,
    /// Whole rows, columns, or rows of columns; those that an index chooses; a single element; or none at all.
    Region,
    /// Whole tiles.
    Tiles,
    /// Some elements here and there, which are no region.
    Scattered,
}

impl Place {
    fn new(pattern: Pattern, words: impl Into<Words>) -> Place {
        Place { pattern, words: words.into() }
    }

    pub fn is_scattered(&self) -> bool {
        self.pattern == Pattern::Scattered
    }

    /// As it stands behind what is wrong: "everywhere", "in columns 1536 and up".
    pub fn located(&self) -> String {
        match self.pattern {
            Pattern::Everywhere => self.to_string(),
            Pattern::Region | Pattern::Tiles | Pattern::Scattered => format!("in {self}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.fmt(f)
    }
}

/// The value or the kind of value that all wrong elements have.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Zero,
    Other(Words),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Zero => f.write_str("zero"),
            Content::Other(words) => words.fmt(f),
        }
    }
}

impl Map {
    /// Elements for which `is_wrong(row, column)`.
    pub fn new(rows: usize, cols: usize, is_wrong: impl Fn(usize, usize) -> bool) -> Map {
        let mut map = Map {
            rows,
            cols,
            wrong: vec![false; rows * cols],
            count: 0,
            row_count: vec![0; rows],
            col_count: vec![0; cols],
        };
        for r in 0..rows {
            for c in 0..cols {
                if is_wrong(r, c) {
                    map.wrong[r * cols + c] = true;
                    map.count += 1;
                    map.row_count[r] += 1;
                    map.col_count[c] += 1;
                }
            }
        }
        map
    }

    pub fn is_wrong(&self, r: usize, c: usize) -> bool {
        self.wrong[r * self.cols + c]
    }

    /// Rows and columns with a wrong element.
    pub fn wrong_rows(&self) -> Vec<usize> {
        (0..self.rows).filter(|&r| self.row_count[r] > 0).collect()
    }

    pub fn wrong_cols(&self) -> Vec<usize> {
        (0..self.cols).filter(|&c| self.col_count[c] > 0).collect()
    }

    /// Whether most elements are wrong wherever there is anything to be wrong.
    pub fn is_everywhere(&self) -> bool {
        self.count * 10 >= self.rows * self.cols * 6
            && self.wrong_rows().len() * 10 >= self.rows * 8
            && self.wrong_cols().len() * 10 >= self.cols * 9
    }

    /// Where the wrong elements are: "columns 1536 and up", "the last row of every 128", "every second 16x16 tile".
    pub fn place(&self) -> Place {
        let (rows, cols) = (self.wrong_rows(), self.wrong_cols());
        if self.count == 0 {
            return Place::new(Pattern::Region, "nowhere");
        }
        if self.count == 1 {
            return Place::new(Pattern::Region, says!("one element, [{}, {}]", rows[0], cols[0]));
        }
        let dense = self.count * 2 > rows.len() * cols.len();
        if dense {
            let everywhere = || Place::new(Pattern::Everywhere, "everywhere");
            if self.is_everywhere() {
                return everywhere();
            }
            return match (indices("row", &rows, self.rows), indices("column", &cols, self.cols)) {
                (None, None) => everywhere(),
                (Some(lines), None) | (None, Some(lines)) => Place::new(Pattern::Region, lines),
                (Some(rows), Some(cols)) => Place::new(Pattern::Region, says!("{cols} of {rows}")),
            };
        }
        if let Some(tiles) = self.tiles() {
            return Place::new(Pattern::Tiles, tiles);
        }
        let within = match (indices("row", &rows, self.rows), indices("column", &cols, self.cols)) {
            (None, None) => String::new(),
            (Some(rows), None) => format!(" in {rows}"),
            (None, Some(cols)) => format!(" in {cols}"),
            (Some(rows), Some(cols)) => format!(" in {cols} of {rows}"),
        };
        let all = self.rows * self.cols;
        Place::new(Pattern::Scattered, says!("{} of {all} elements, scattered{within}", self.count))
    }

    /// A pattern of whole tiles.
    fn tiles(&self) -> Option<String> {
        for tile in [128, 64, 32, 16, 8, 4] {
            if tile >= self.cols.max(self.rows) {
                continue;
            }
            let (across, down) = (self.cols.div_ceil(tile), self.rows.div_ceil(tile));
            let mut bad = BTreeSet::new();
            let mut clean = true;
            for i in 0..down {
                for j in 0..across {
                    let rows = i * tile..((i + 1) * tile).min(self.rows);
                    let cols = j * tile..((j + 1) * tile).min(self.cols);
                    let size = rows.len() * cols.len();
                    let wrong: usize =
                        rows.map(|r| cols.clone().filter(|&c| self.is_wrong(r, c)).count()).sum();
                    if wrong * 2 > size {
                        bad.insert((i, j));
                    } else if wrong * 20 > size {
                        clean = false;
                    }
                }
            }
            if !clean || bad.is_empty() {
                continue;
            }
            let all = down * across;
            let odd: Vec<_> = bad.iter().map(|(i, j)| (i + j) % 2).collect();
            if bad.len() * 2 + 1 >= all && bad.len() * 2 <= all + 1 && odd.windows(2).all(|w| w[0] == w[1]) {
                return Some(format!("every second {tile}x{tile} tile"));
            }
            let first = bad.first().map(|(i, j)| format!("rows {}.., columns {}..", i * tile, j * tile));
            return Some(format!(
                "{} of {all} {tile}x{tile} tiles, the first at {}",
                bad.len(),
                first.unwrap_or_default()
            ));
        }
        None
    }
}

/// A set of indices below `n` in words, `None` for all of them.
pub fn indices(what: &str, set: &[usize], n: usize) -> Option<String> {
    let (first, last) = (*set.first()?, *set.last()?);
    let count = set.len();
    // Rows of zeros cannot be wrong; nearly all of many are all.
    if count == n || (n >= 16 && count * 10 > n * 9 && first <= 1 && last + 2 >= n) {
        return None;
    }
    if count == 1 {
        return Some(match first {
            _ if first + 1 == n => format!("the last {what} ({first})"),
            _ => format!("{what} {first}"),
        });
    }
    if last - first + 1 == count {
        return Some(match (first, last + 1) {
            (_, end) if end == n => format!("{what}s {first} and up"),
            (0, end) => format!("the first {end} {what}s"),
            (..) => format!("{what}s {first} to {last}"),
        });
    }
    for period in [2, 4, 8, 16, 32, 64, 128, 256] {
        if period * 2 > n {
            break;
        }
        let residues: BTreeSet<usize> = set.iter().map(|i| i % period).collect();
        let (low, high) = (*residues.first()?, *residues.last()?);
        let contiguous = high - low + 1 == residues.len();
        let all = (0..n).filter(|i| residues.contains(&(i % period))).count();
        if residues.len() * 2 > period || !contiguous || all != count {
            continue;
        }
        return Some(match (low, high) {
            _ if low == high && high + 1 == period => format!("the last {what} of every {period}"),
            (0, 0) => format!("the first {what} of every {period}"),
            _ if low == high => format!("{what} {low} of every {period}"),
            _ if high + 1 == period => format!("the last {} {what}s of every {period}", residues.len()),
            _ if low == 0 => format!("the first {} {what}s of every {period}", residues.len()),
            _ => format!("{what}s {low} to {high} of every {period}"),
        });
    }
    let some: Vec<String> = set.iter().take(4).map(|i| i.to_string()).collect();
    Some(format!("{count} of {n} {what}s ({}{})", some.join(", "), if count > 4 { ", ..." } else { "" }))
}

/// Finds out whether all wrong elements are alike: zero, NaN, of the wrong sign. `None` if they are not.
pub fn content(map: &Map, reference: &Matrix, out: &Matrix) -> Option<Content> {
    let wrong = || (0..out.data.len()).filter(|&i| map.wrong[i]).map(|i| (reference.data[i], out.data[i]));
    let all = |f: fn(f64, f64) -> bool| wrong().all(|(x, y)| f(x, y));
    let first = wrong().next()?.1;
    let words: Words = match first {
        _ if all(|_, y| y == 0.0) => return Some(Content::Zero),
        _ if all(|_, y| y.is_nan()) => "NaN".into(),
        _ if all(|_, y| y.is_infinite()) => "Inf".into(),
        _ if map.count > 2 && wrong().all(|(_, y)| y == first) => says!("all {first:e}"),
        _ if map.count > 2 && wrong().all(|(_, y)| y.abs() == first.abs()) => {
            says!("all {:e} in magnitude", first.abs())
        }
        _ if all(|x, y| (x + y).abs() <= 0.02 * x.abs()) => "of the wrong sign".into(),
        _ => return None,
    };
    Some(Content::Other(words))
}

/// Rows whose integer, a length or a position, is above or below what that of every right row is.
fn beyond(operand: &Captured, value: &Matrix, wrong: &[usize]) -> Option<Words> {
    let (mut low, mut high) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
    let mut right = 0;
    for (r, &x) in value.data.iter().enumerate() {
        let range = if wrong.binary_search(&r).is_ok() { &mut high } else { &mut low };
        *range = (range.0.min(x), range.1.max(x));
        right += usize::from(wrong.binary_search(&r).is_err());
    }
    let name = &operand.name;
    // Of two rows any value lies beyond the other's.
    if right == 0 || wrong.len() < 2 || value.data.len() < 4 || high.0 == high.1 {
        return None;
    }
    if high.0 > low.1 {
        return Some(says!("only the rows of which `{name}` is more than {}", low.1));
    }
    (high.1 < low.0).then(|| says!("only the rows of which `{name}` is less than {}", low.0))
}

/// Columns of some heads alone, of each row that is wrong, where an operand with one element for each head says how many there
/// are.
pub fn heads(map: &Map, operands: &[&Captured]) -> Option<Place> {
    let wrong = map.wrong_cols();
    let dense = map.count * 2 > map.wrong_rows().len() * wrong.len();
    operands.iter().filter(|_| dense).find_map(|operand| {
        let heads = operand.rows * operand.cols;
        let plain = operand.scheme.is_none() && !operand.dtype.is_integer();
        if !plain || heads < 2 || heads >= map.cols || !map.cols.is_multiple_of(heads) {
            return None;
        }
        let width = map.cols / heads;
        let named: BTreeSet<usize> = wrong.iter().map(|c| c / width).collect();
        // Nearly all columns of a few heads.
        let few = 2 * named.len() <= heads && wrong.len() * 10 >= 9 * named.len() * width;
        let rows = indices("row", &map.wrong_rows(), map.rows);
        let of_rows = rows.map_or(String::new(), |rows| format!(", of {rows}"));
        let shown: Vec<String> = named.iter().map(ToString::to_string).collect();
        let what = if named.len() == 1 { "head" } else { "heads" };
        few.then(|| {
            let words = says!(
                "{what} {} of {heads} ({width} columns for each of `{}`){of_rows}",
                shown.join(", "),
                operand.name
            );
            Place::new(Pattern::Region, words)
        })
    })
}

/// The rows of one expert alone, where an index among the operands says which rows those are.
pub fn expert(map: &Map, indices: &[(&Captured, &Matrix)]) -> Option<Place> {
    let wrong = map.wrong_rows();
    indices.iter().find_map(|(operand, value)| {
        let count = value.data.len();
        // One for several rows each, such as the query tokens of a sequence.
        if count < 2 || !map.rows.is_multiple_of(count) {
            return None;
        }
        let value =
            &Matrix::new(map.rows, 1, (0..map.rows).map(|r| value.data[r * count / map.rows]).collect());
        if let Some(words) = beyond(operand, value, &wrong) {
            return Some(Place::new(Pattern::Region, words));
        }
        let named: BTreeSet<u64> = wrong.iter().map(|&r| value.data[r].to_bits()).collect();
        let all = value.data.iter().filter(|v| named.contains(&v.to_bits())).count();
        let different: BTreeSet<u64> = value.data.iter().map(|v| v.to_bits()).collect();
        if different.len() < 2 || wrong.is_empty() {
            return None;
        }
        let name = &operand.name;
        let said = || {
            let values: Vec<String> = named.iter().map(|bits| f64::from_bits(*bits).to_string()).collect();
            values.join(" or ")
        };
        let words = match (named.len(), all == wrong.len()) {
            (1, true) => says!("only the rows of which `{name}` is {}", said()),
            // A few of many: as an expert's rows beyond a tile.
            (1, false) if wrong.len() > 2 => {
                says!("{} of the {all} rows of which `{name}` is {}", wrong.len(), said())
            }
            (2..=3, true) if 2 * named.len() <= different.len() && 2 * different.len() <= map.rows => {
                says!("only the rows of which `{name}` is {}", said())
            }
            _ => return None,
        };
        Some(Place::new(Pattern::Region, words))
    })
}
