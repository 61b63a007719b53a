//! Factors of rows or columns that are those of other rows or columns: scales, routing weights and whatever else a hop
//! multiplies with, taken from the wrong place.
//!
//! A result each of whose rows is off by a factor of its own is compared with every vector in play before it is said to
//! be just that. The factor of a row times its own value is the value that was taken; where every row has one such value
//! among the vector's, the vector was read in another order.

use super::map::Map;
use super::output::{Fit, ratio, where_wrong};
use crate::case::{Attempt, Captured};
use crate::dtype::DType;
use crate::judge::unit;
use crate::reference::graph::{Binary, Op};
use crate::reference::{BufferId, Expr, Matrix};

/// How far a factor that is fitted to results may be from the quotient of two values, at the least: values of few bits that
/// are multiplied and rounded to as few are all off to one side, by up to half a unit in the last place.
const NEAR: f64 = 1.5e-3;
/// Lines that are too few to tell an order by.
const FEW: usize = 3;

/// How far factors beside the fitted ones are from them, and how likely it may be that all lines find a value by chance.
const BESIDE: [f64; 6] = [0.95, 0.97, 0.98, 1.02, 1.03, 1.05];
const CHANCE: f64 = 1e-6;

/// Share of what the columns are off by that may be left beside an addend.
const ADDEND_LEFT: f64 = 0.05;

/// Which line's value each line takes, in words and as a function.
type Rule<'a> = (String, Box<dyn Fn(usize) -> usize + 'a>);

/// A vector of factors, one for each row or column of the result.
struct Vector<'a> {
    /// "the scales of `xq`", "`weights`".
    words: String,
    values: Vec<f64>,
    /// Values of a row of the buffer, as of the slots of a token.
    slots: usize,
    cause: &'static str,
    orders: &'a [(String, Vec<usize>)],
}

/// Fits of a result whose rows, or columns, have the factors of others.
pub fn fits(
    attempt: &Attempt,
    source: &Expr,
    (reference, out): (&Matrix, &Matrix),
    map: &Map,
    dtype: DType,
) -> Vec<Fit> {
    let mut found = Vec::new();
    let near = NEAR.max(unit(dtype));
    for (lines, is_rows) in [(map.rows, true), (map.cols, false)] {
        let across = if is_rows { map.cols } else { map.rows };
        let wrong = if is_rows { map.wrong_rows() } else { map.wrong_cols() };
        if across < 8 || wrong.len() < FEW {
            continue;
        }
        let at = |line: usize, i: usize| if is_rows { (line, i) } else { (i, line) };
        let factor = |line: usize| {
            let pairs = (0..across).map(|i| at(line, i)).map(|(r, c)| (reference.row(r)[c], out.row(r)[c]));
            ratio(pairs).filter(|g| g.is_finite())
        };
        // A line that should be zero has no factor.
        let (wrong, factors): (Vec<usize>, Vec<f64>) =
            wrong.into_iter().filter_map(|line| Some((line, factor(line)?))).unzip();
        if wrong.len() < FEW {
            continue;
        }
        let orders = orders(attempt, source, lines);
        for vector in vectors(attempt, source, lines, &orders) {
            let Some((words, from)) = vector.taken(&wrong, &factors, near) else { continue };
            let of_line = |line: usize| {
                let place = wrong.binary_search(&line).ok();
                place.map_or(1.0, |i| vector.values[from[i]] / vector.values[line])
            };
            let scaled = where_wrong(reference, map, |r, c, x| x * of_line(if is_rows { r } else { c }));
            let line = if is_rows { "row" } else { "column" };
            found.push(Fit {
                cause: vector.cause,
                what: format!("has for each {line} {} of {words}, not its own", vector.words).into(),
                reference: scaled,
                gain: None,
                is_guess: false,
                of_columns: false,
            });
        }
    }
    found
}

/// Fits of a result whose columns are all off by an amount of their own, where that is a multiple of a vector that is added to
/// them, or what another of its elements would make.
pub fn addends(
    attempt: &Attempt,
    source: &Expr,
    (reference, out): (&Matrix, &Matrix),
    map: &Map,
) -> Vec<Fit> {
    let mut found = Vec::new();
    if map.rows < 8 || map.count < 16 {
        return found;
    }
    let off: Vec<f64> = (0..map.cols).map(|c| median_difference(reference, out, c)).collect();
    source.visit(&mut |e| {
        let Op::Binary { function: Binary::Add, b, .. } = &e.0.op else { return };
        let Op::Buffer(id) = b.0.op else { return };
        let operand = attempt.buffer(id);
        if operand.rows != 1 || operand.cols != map.cols {
            return;
        }
        let (own, name) = (operand.value().data, &operand.name);
        let size = |of: &[f64]| of.iter().map(|x| x * x).sum::<f64>().sqrt();
        let near = |other: &dyn Fn(usize) -> f64| {
            let left: Vec<f64> = (0..own.len()).map(|c| off[c] - (other(c) - own[c])).collect();
            size(&left) <= ADDEND_LEFT * size(&off)
        };
        let mut add = |cause, what: String, other: &dyn Fn(usize) -> f64| {
            let reference = where_wrong(reference, map, |_, c, x| x + other(c) - own[c]);
            found.push(Fit {
                cause,
                what: what.into(),
                reference,
                gain: None,
                is_guess: false,
                of_columns: false,
            });
        };
        let factor = off.iter().zip(&own).map(|(x, y)| x * y).sum::<f64>() / size(&own).powi(2) + 1.0;
        if size(&own) > 0.0 && near(&|c| factor * own[c]) {
            let times = factor.round();
            let whole = (factor - times).abs() < 0.02;
            let (cause, what) = match times {
                0.0 if whole => ("addend_missing", format!("lacks `{name}`")),
                2.0.. if whole => ("addend_extra", format!("has `{name}` {times} times")),
                _ => ("gain", format!("has `{name}` times {factor:.4}")),
            };
            add(cause, what, &|c| factor * own[c]);
        }
        let n = own.len();
        let mut rules: Vec<Rule<'_>> = vec![
            ("the next".into(), Box::new(move |c| (c + 1) % n)),
            ("the previous".into(), Box::new(move |c| (c + n - 1) % n)),
            ("the first".into(), Box::new(|_| 0)),
        ];
        for size in [2, 4, 8, 16, 32, 64, 128].into_iter().filter(|size| *size < n) {
            rules.push((format!("the first of every {size}"), Box::new(move |c| c / size * size)));
            rules.push((format!("the one at c % {size}"), Box::new(move |c| c % size)));
            rules.push((format!("the one {size} before"), Box::new(move |c| (c + n - size) % n)));
            rules.push((format!("the one {size} behind"), Box::new(move |c| (c + size) % n)));
        }
        if let Some((words, from)) = rules.iter().find(|(_, from)| near(&|c| own[from(c)])) {
            let what = format!("has for each column the value in `{name}` of {words}, not its own");
            add("permuted_tiles", what, &|c| own[from(c)]);
        }
    });
    found
}

/// What a column is off by: half of its elements by more, half by less.
fn median_difference(reference: &Matrix, out: &Matrix, c: usize) -> f64 {
    let rows = (0..reference.rows).map(|r| out.row(r)[c] - reference.row(r)[c]);
    let mut differences: Vec<f64> = rows.filter(|x| x.is_finite()).collect();
    differences.sort_by(f64::total_cmp);
    differences.get(differences.len() / 2).copied().unwrap_or(0.0)
}

/// Orders that an integer among the operands makes of the lines: that of its values, and where each line comes in it.
fn orders(attempt: &Attempt, source: &Expr, lines: usize) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    for id in source.buffers() {
        let operand = attempt.buffer(id);
        if !operand.dtype.is_integer() || operand.scheme.is_some() || operand.rows * operand.cols != lines {
            continue;
        }
        let value = operand.value();
        let mut order: Vec<usize> = (0..lines).collect();
        order.sort_by(|&a, &b| value.data[a].total_cmp(&value.data[b]).then(a.cmp(&b)));
        let mut place = vec![0; lines];
        order.iter().enumerate().for_each(|(i, &line)| place[line] = i);
        let name = &operand.name;
        found.push((format!("its place in the order of `{name}`"), place));
        found.push((format!("the one that comes at its place in the order of `{name}`"), order));
    }
    found
}

fn vectors<'a>(
    attempt: &Attempt,
    source: &Expr,
    lines: usize,
    orders: &'a [(String, Vec<usize>)],
) -> Vec<Vector<'a>> {
    let ids = source.buffers();
    // Positions of a rotary embedding choose nothing.
    let mut positions = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { name, inputs, .. } = &e.0.op
            && name == "rope"
        {
            positions.extend(inputs.iter().skip(1).flat_map(Expr::buffers));
        }
    });
    let steers = |id: &BufferId| !positions.contains(id);
    let steered = ids
        .iter()
        .filter(|id| steers(id))
        .map(|&id| attempt.buffer(id))
        .any(|b| b.dtype.is_integer() && b.scheme.is_none());
    let of = |operand: &Captured| {
        let (words, values, cause) = match operand.scheme {
            Some(_) => {
                (format!("the scale in `{}`", operand.name), operand.quantized()?.scales, "scale_neighbour")
            }
            None if operand.dtype.is_integer() || operand.rows * operand.cols != lines => return None,
            None => {
                let cause = if steered { "router" } else { "permuted_tiles" };
                (format!("the value in `{}`", operand.name), operand.value().data, cause)
            }
        };
        let same = values.iter().all(|v| *v == values[0]);
        let slots = if operand.scheme.is_none() { operand.cols } else { 1 };
        (values.len() == lines && !same).then_some(Vector { words, values, slots, cause, orders })
    };
    ids.into_iter().filter_map(|id| of(attempt.buffer(id))).collect()
}

impl Vector<'_> {
    /// Which values the wrong lines have taken, in words and by index; `None` where one has taken none of them.
    fn taken(&self, wrong: &[usize], factors: &[f64], within: f64) -> Option<(String, Vec<usize>)> {
        let n = self.values.len();
        let off = |i: usize, from: usize, by: f64| {
            let value = by * factors[i] * self.values[wrong[i]];
            if value == 0.0 { f64::INFINITY } else { (self.values[from] / value - 1.0).abs() }
        };
        let near = |i: usize, from: usize| off(i, from, 1.0) < within;
        let mut rules: Vec<Rule<'_>> = vec![
            ("the next".into(), Box::new(move |i| (i + 1) % n)),
            ("the previous".into(), Box::new(move |i| (i + n - 1) % n)),
            ("the first".into(), Box::new(|_| 0)),
        ];
        if (2..n).contains(&self.slots) {
            let slots = self.slots;
            rules.push((format!("the first of its {slots} slots"), Box::new(move |i| i / slots * slots)));
            rules.push((
                format!("the last of its {slots} slots"),
                Box::new(move |i| i / slots * slots + slots - 1),
            ));
            rules.push((format!("the one at i / {slots}"), Box::new(move |i| i / slots)));
            let tokens = n / slots;
            let turned = move |i: usize| (i % slots * tokens + i / slots) % n;
            rules.push(("the one in the order of slots before tokens".into(), Box::new(turned)));
        }
        for size in [2, 4, 8, 16, 32, 64, 128, 256] {
            if size < n {
                rules.push((format!("the first of every {size}"), Box::new(move |i| i / size * size)));
                rules.push((format!("the one at i % {size}"), Box::new(move |i| i % size)));
                rules.push((format!("the one at i / {size}"), Box::new(move |i| i / size)));
            }
        }
        for (words, order) in self.orders {
            rules.push((words.clone(), Box::new(move |i| order[i])));
        }
        let fits = |of: &dyn Fn(usize) -> usize| (0..wrong.len()).all(|i| near(i, of(wrong[i])));
        if let Some((words, of)) = rules.iter().find(|(_, of)| fits(&**of)) {
            return Some((words.clone(), wrong.iter().map(|&line| of(line)).collect()));
        }
        // Any distance, if so many lines do not agree on one by accident.
        let pairs = || (0..wrong.len()).flat_map(|i| (0..n).map(move |from| (i, from)));
        let hits = pairs().filter(|&(i, from)| from != wrong[i] && near(i, from)).count();
        let chance = hits as f64 / (wrong.len() * n) as f64;
        if (2 * n) as f64 * chance.powf(wrong.len() as f64) <= CHANCE {
            for by in 1..n {
                for (words, shift) in [("before", n - by), ("behind", by)] {
                    let of = |i: usize| (i + shift) % n;
                    if fits(&of) {
                        let words = format!("the one {by} {words}");
                        return Some((words, wrong.iter().map(|&line| of(line)).collect()));
                    }
                }
            }
        }
        // Among many values that are alike there is one for any factor: factors that are a little off tell how often.
        let places = || (0..wrong.len()).flat_map(|i| BESIDE.iter().map(move |by| (i, *by)));
        let any = |&(i, by): &(usize, f64)| (0..n).any(|from| off(i, from, by) < within);
        let by_chance = places().filter(any).count() as f64 / places().count() as f64;
        if by_chance.powf(wrong.len() as f64) > CHANCE {
            return None;
        }
        // No rule that is known: each line by itself.
        let other = |i: usize| {
            let others = (0..n).filter(|&from| from != wrong[i] && near(i, from));
            others.min_by(|&a, &b| off(i, a, 1.0).total_cmp(&off(i, b, 1.0)))
        };
        let from = (0..wrong.len()).map(other).collect::<Option<Vec<usize>>>()?;
        // The same value for all, of a line that nothing leads to: rather a constant, such as 1, than that line's.
        if from.iter().all(|line| *line == from[0]) {
            return None;
        }
        let examples = wrong.iter().zip(&from).take(3).map(|(line, from)| format!("{line} that of {from}"));
        Some((format!("another ({}, ...)", examples.collect::<Vec<_>>().join(", ")), from))
    }
}
