//! Ranges of columns that a kernel takes for one another.

use super::rewriting::{Mutations, picked, placed};
use crate::reference::graph::Op;
use std::ops::Range;

/// Parts of a fused matrix taken for one another, or as if they alternated.
pub fn columns(ranges: &[(usize, Range<usize>)], table: &mut Mutations) {
    for (i, (n, first)) in ranges.iter().enumerate() {
        // Queries, keys and values lie beside one another.
        let before = first.start.checked_sub(first.len());
        for start in [before, Some(first.end)].into_iter().flatten().filter(|s| s + first.len() <= *n) {
            let (n, range, other) = (*n, first.clone(), start..start + first.len());
            table.add(
                if n == 2 * range.len() { "gate_up_swapped" } else { "permuted_tiles" },
                &format!("takes columns {other:?} for columns {first:?}"),
                Box::new(move |op| match op {
                    Op::Columns { x, range: own } if x.shape().1 == n && *own == range => {
                        Some(Op::Columns { x: x.clone(), range: other.clone() })
                    }
                    _ => None,
                }),
            );
        }
        for by in [1, 16, 32, 64, 128].into_iter().filter(|&by| by < first.len()) {
            for (words, by) in [("later", by), ("earlier", first.len() - by)] {
                let (n, range) = (*n, first.clone());
                let shown = by.min(first.len() - by);
                table.add(
                    "permuted_tiles",
                    &format!(
                        "takes columns {first:?} from {shown} {words} on, the last from their beginning"
                    ),
                    Box::new(move |op| match op {
                        Op::Columns { x, range: own } if x.shape().1 == n && *own == range => {
                            let (start, width) = (range.start, range.len());
                            Some(picked(x, width, move |c| start + (c + by) % width))
                        }
                        _ => None,
                    }),
                );
            }
        }
        if first.len() < *n {
            let (n, range) = (*n, first.clone());
            let width = first.len();
            table.add(
                "permuted_tiles",
                &format!("takes the rows of columns {first:?} to be {width} elements apart; they are {n}"),
                Box::new(move |op| match op {
                    Op::Columns { x, range: own } if x.shape().1 == n && *own == range => {
                        let start = range.start;
                        Some(placed(x, width, move |r, c| r * width + start + c))
                    }
                    _ => None,
                }),
            );
        }
        for (m, second) in &ranges[i + 1..] {
            if n != m || first.len() != second.len() || first.end > second.start {
                continue;
            }
            let (n, first, second) = (*n, first.clone(), second.clone());
            let words = format!("columns {first:?} and {second:?}");
            let (a, b) = (first.clone(), second.clone());
            table.add(
                "gate_up_swapped",
                &format!("takes {words} for each other"),
                Box::new(move |op| match op {
                    Op::Columns { x, range } if x.shape().1 == n && *range == a => {
                        Some(Op::Columns { x: x.clone(), range: b.clone() })
                    }
                    Op::Columns { x, range } if x.shape().1 == n && *range == b => {
                        Some(Op::Columns { x: x.clone(), range: a.clone() })
                    }
                    _ => None,
                }),
            );
            if first.end != second.start {
                continue;
            }
            let width = first.len();
            for block in [1, 8, 16, 32, 64, 128].into_iter().filter(|&b| b < width && width.is_multiple_of(b))
            {
                let by = if block == 1 { String::new() } else { format!(" in blocks of {block}") };
                for (order, swapped) in [("", 0), (", the second first", 1)] {
                    let (first, second) = (first.clone(), second.clone());
                    table.add(
                        "gate_up_swapped",
                        &format!("takes {words} for interleaved{by}{order}"),
                        Box::new(move |op| match op {
                            Op::Columns { x, range }
                                if x.shape().1 == n && (*range == first || *range == second) =>
                            {
                                let (from, odd) = (first.start, usize::from(*range == second) ^ swapped);
                                let of = move |c: usize| from + (c / block * 2 + odd) * block + c % block;
                                Some(picked(x, width, of))
                            }
                            _ => None,
                        }),
                    );
                }
            }
        }
    }
}
