//! A table of aligned columns that gives up columns where there is no room.

use crate::report::style::{self, paint};
use anstyle::Style;

const GAP: usize = 2;
const INDENT: usize = 2;
/// A shrinkable column is never narrower than this.
const NARROWEST: usize = 6;

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    right: bool,
    /// When it is dropped: the highest number first, `None` never.
    drop: Option<u8>,
    shrink: bool,
}

impl Column {
    pub fn left(name: &str) -> Column {
        Column { name: name.into(), right: false, drop: None, shrink: false }
    }

    pub fn right(name: &str) -> Column {
        Column { right: true, ..Column::left(name) }
    }

    /// Given up where there is no room, those with the highest number first.
    pub fn dropped(self, order: u8) -> Column {
        Column { drop: Some(order), ..self }
    }

    /// Long contents may be cut in the middle when no column is left to drop.
    pub fn shrinkable(self) -> Column {
        Column { shrink: true, ..self }
    }
}

#[derive(Clone, Debug)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), style: style::PLAIN }
    }
}

#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<(Column, Vec<Cell>)>,
}

impl Table {
    pub fn push(&mut self, column: Column, cells: impl IntoIterator<Item = Cell>) {
        self.columns.push((column, cells.into_iter().collect()));
    }

    pub fn render(mut self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(natural_width).collect();
        let total =
            |widths: &[usize]| INDENT + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        if let Some(width) = width {
            while total(&widths) > width {
                let next = (0..widths.len()).max_by_key(|&i| self.columns[i].0.drop);
                let Some(i) = next.filter(|&i| self.columns[i].0.drop.is_some()) else { break };
                self.columns.remove(i);
                widths.remove(i);
            }
            while total(&widths) > width {
                let widest = (0..widths.len())
                    .filter(|&i| self.columns[i].0.shrink && widths[i] > NARROWEST)
                    .max_by_key(|&i| widths[i]);
                let Some(i) = widest else { break };
                widths[i] -= 1;
            }
        }
        let mut text = String::new();
        let header = self.columns.iter().map(|(c, _)| (c, Cell { text: c.name.clone(), style: style::DIM }));
        line(&mut text, header, &widths);
        let rows = self.columns.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
        for row in 0..rows {
            line(&mut text, self.columns.iter().map(|(c, cells)| (c, cells[row].clone())), &widths);
        }
        text
    }
}

fn natural_width((column, cells): &(Column, Vec<Cell>)) -> usize {
    cells.iter().map(|c| length(&c.text)).chain([length(&column.name)]).max().unwrap_or(0)
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = (&'a Column, Cell)>, widths: &[usize]) {
    let mut pending = INDENT;
    for ((column, cell), &width) in cells.zip(widths) {
        let content = cut(&cell.text, width);
        if content.is_empty() {
            // No spaces at the end of a line.
            pending += width + GAP;
            continue;
        }
        let space = width.saturating_sub(length(&content));
        let before = if column.right { space } else { 0 };
        text.extend(std::iter::repeat_n(' ', pending + before));
        *text += &if cell.style == style::PLAIN { content } else { paint(cell.style, content) };
        pending = GAP + space - before;
    }
    text.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Leaves out the middle: the ends of tensor and parameter names tell them apart.
fn cut(text: &str, width: usize) -> String {
    let n = length(text);
    if n <= width {
        return text.into();
    }
    let (head, tail) = ((width - 1) / 2, width - 1 - (width - 1) / 2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(n - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        table.push(Column::left("tensor").shrinkable(), ["model.layers.0", "up"].map(Cell::plain));
        table.push(Column::right("gain").dropped(1), ["1.0000", "2.0"].map(Cell::plain));
        table.push(Column::right("s").dropped(2), ["1", "22"].map(Cell::plain));
        table.push(Column::left("verdict"), ["correct", "BROKEN"].map(Cell::plain));
        table
    }

    fn rendered(width: Option<usize>) -> String {
        anstream::adapter::strip_str(&table().render(width)).to_string()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            rendered(None),
            "  tensor            gain   s  verdict\n  model.layers.0  1.0000   1  correct\n  up                 2.0  22  BROKEN\n"
        );
    }

    #[test]
    fn columns_go_in_their_order_and_then_names_are_cut() {
        assert!(!rendered(Some(35)).contains(" s "), "{}", rendered(Some(35)));
        assert!(rendered(Some(35)).contains("gain"));
        assert!(!rendered(Some(30)).contains("gain"));
        assert_eq!(rendered(Some(20)), "  tensor     verdict\n  mode…rs.0  correct\n  up         BROKEN\n");
        for width in 17..40 {
            assert!(rendered(Some(width)).lines().all(|l| length(l) <= width), "{width}");
        }
    }
}
