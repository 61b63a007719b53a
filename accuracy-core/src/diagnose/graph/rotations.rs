//! Rotary embeddings that a kernel computes otherwise: other pairs, other angles, another sign, another part of each head.
//!
//! How a declared embedding rotates is found out by trying its function, so that this holds for whole heads, for parts of
//! them, and for tables whose angles are 0 in a part of a head.

use super::at_node;
use crate::case::Attempt;
use crate::reference::graph::Op;
use crate::reference::model::RopeStyle;
use crate::reference::{Expr, Matrix, user};
use std::ops::Range;
use std::sync::Arc;

/// How the declared rotary embedding rotates each head.
#[derive(Clone, Debug, PartialEq)]
struct Form {
    /// Columns of a head.
    head: usize,
    /// Those that are rotated, and from which pair of the table on.
    part: Range<usize>,
    from_pair: usize,
    style: RopeStyle,
}

/// A pair of elements, `a` and `b`, by their cosine and sine.
type Turn = fn(f64, f64, (f64, f64)) -> (f64, f64);
/// The pair whose angle a pair takes, of so many.
type Angle = fn(usize, usize) -> usize;

const FORWARDS: Turn = |a, b, (cos, sin)| (a * cos - b * sin, b * cos + a * sin);
const OWN: Angle = |pair, _| pair;

impl Form {
    fn pairs(&self) -> usize {
        self.part.len() / 2
    }

    /// The two columns of a pair, within the part that is rotated.
    fn columns(&self, pair: usize) -> (usize, usize) {
        match self.style {
            RopeStyle::Neox => (pair, pair + self.pairs()),
            RopeStyle::GptJ => (2 * pair, 2 * pair + 1),
        }
    }

    fn rotated(&self, [x, table, positions]: [&Matrix; 3], turn: Turn, angle: Angle) -> Matrix {
        let (mut out, half) = (x.clone(), table.cols / 2);
        for r in 0..x.rows {
            let position = positions.data[r].clamp(0.0, (table.rows - 1) as f64) as usize;
            let angles = table.row(position);
            for head in (0..x.cols).step_by(self.head) {
                let at = head + self.part.start;
                for pair in 0..self.pairs() {
                    let ((a, b), p) = (self.columns(pair), self.from_pair + angle(pair, self.pairs()));
                    let (a, b) = (at + a, at + b);
                    let turned = turn(x.row(r)[a], x.row(r)[b], (angles[p], angles[half + p]));
                    let row = out.row_mut(r);
                    (row[a], row[b]) = turned;
                }
            }
        }
        out
    }

    /// The form that does what a declared function does.
    fn of(
        function: &dyn Fn(&[&Matrix]) -> Matrix,
        (rows, cols): (usize, usize),
        [table, positions]: [&Matrix; 2],
    ) -> Option<Form> {
        let d = table.cols;
        if d < 2 || !d.is_multiple_of(2) || positions.data.len() != rows || table.rows == 0 {
            return None;
        }
        let data = (0..rows * cols).map(|i| ((i * 37 + 11) % 64) as f64 / 8.0 - 3.9).collect();
        let x = Matrix::new(rows, cols, data);
        let right = function(&[&x, table, positions]);
        let is_identity =
            |p: usize| (0..table.rows).all(|r| table.row(r)[p] == 1.0 && table.row(r)[d / 2 + p] == 0.0);
        let turned: Vec<usize> = (0..d / 2).filter(|p| !is_identity(*p)).collect();
        let pairs = *turned.first()?..*turned.last()? + 1;
        let heads = (d..=cols).filter(|head| cols.is_multiple_of(*head));
        let whole = heads.flat_map(|head| {
            let places = [0..d, head - d..head].into_iter();
            places.flat_map(move |part| {
                [RopeStyle::Neox, RopeStyle::GptJ].map(|style| Form {
                    head,
                    part: part.clone(),
                    from_pair: 0,
                    style,
                })
            })
        });
        let found = whole.into_iter().find(|form| {
            let other = form.rotated([&x, table, positions], FORWARDS, OWN);
            other.data.iter().zip(&right.data).all(|(x, y)| (x - y).abs() <= 1e-9)
        })?;
        // Neighbours lie together: angles that are 0 leave a part of the columns as it is.
        Some(match found.style {
            RopeStyle::Neox => found,
            RopeStyle::GptJ => {
                let at = found.part.start;
                Form { part: at + 2 * pairs.start..at + 2 * pairs.end, from_pair: pairs.start, ..found }
            }
        })
    }

    /// The others that a kernel may take this one for, in words.
    fn others(&self) -> Vec<(String, Form)> {
        let style = match self.style {
            RopeStyle::Neox => RopeStyle::GptJ,
            RopeStyle::GptJ => RopeStyle::Neox,
        };
        let (width, pairs) = (self.part.len(), self.pairs());
        let words = match style {
            RopeStyle::Neox => format!("pairs elements that are {pairs} apart, not neighbours"),
            RopeStyle::GptJ => format!("pairs neighbours, not elements that are {pairs} apart"),
        };
        let mut found = vec![(words, Form { style, ..self.clone() })];
        for (words, at) in [("first", 0), ("last", self.head - width)] {
            if at != self.part.start {
                let words = format!("rotates the {words} {width} columns of each head of {}", self.head);
                found.push((words, Form { part: at..at + width, ..self.clone() }));
            }
        }
        if width > 4 {
            let part = self.part.start..self.part.start + width / 4 * 2;
            let words = format!("rotates the first {} of {width} columns only", part.len());
            found.push((words, Form { part, ..self.clone() }));
        }
        found
    }
}

/// Everything that a kernel may do with the rotary embeddings of an expression, in words.
pub fn rotations(source: &Expr, attempt: &Attempt) -> Vec<(String, Expr)> {
    let mut found = Vec::new();
    let mut at = 0;
    source.visit(&mut |e| {
        let here = at;
        at += 1;
        let Op::User { name, inputs, function, .. } = &e.0.op else { return };
        let value = |of: &Expr| match of.0.op {
            Op::Buffer(id) => Some(attempt.buffer(id).value()),
            _ => None,
        };
        if name != "rope" || inputs.len() != 3 {
            return;
        }
        let (Some(table), Some(positions)) = (value(&inputs[1]), value(&inputs[2])) else { return };
        let Some(form) = Form::of(&**function, e.shape(), [&table, &positions]) else { return };
        for (words, rotated) in proposals(&form) {
            let of: Vec<&dyn crate::reference::Operand> =
                inputs.iter().map(|i| i as &dyn crate::reference::Operand).collect();
            let other = user("rope", &of, e.shape(), move |of| rotated([of[0], of[1], of[2]]));
            found.push((words, at_node(source, here, &|_| other.clone())));
        }
    });
    found
}

/// Computes what a kernel writes in place of the declared embedding, from the function's three operands.
type Rotated = Arc<dyn Fn([&Matrix; 3]) -> Matrix + Send + Sync>;

fn proposals(form: &Form) -> Vec<(String, Rotated)> {
    let mut found: Vec<(String, Rotated)> = Vec::new();
    let mut add = |words: String, form: Form, turn: Turn, angle: Angle| {
        found.push((words, Arc::new(move |of| form.rotated(of, turn, angle))));
    };
    for (words, other) in form.others() {
        add(words, other, FORWARDS, OWN);
    }
    let turns: [(&str, Turn); 5] = [
        ("rotates backwards", |a, b, (cos, sin)| (a * cos + b * sin, b * cos - a * sin)),
        ("takes sines for cosines and the reverse", |a, b, (cos, sin)| {
            (a * sin - b * cos, b * sin + a * cos)
        }),
        ("takes the sine of the second of each pair with the wrong sign", |a, b, (cos, sin)| {
            (a * cos - b * sin, b * cos - a * sin)
        }),
        ("takes the sine of the first of each pair with the wrong sign", |a, b, (cos, sin)| {
            (a * cos + b * sin, b * cos + a * sin)
        }),
        ("computes the second of each pair from the first that is rotated already", |a, b, (cos, sin)| {
            let a = a * cos - b * sin;
            (a, b * cos + a * sin)
        }),
    ];
    for (words, turn) in turns {
        add(words.into(), form.clone(), turn, OWN);
    }
    let angles: [(&str, Angle); 6] = [
        ("pair p / 2", |p, _| p / 2),
        ("pair 2 p, again from the first", |p, n| 2 * p % n),
        ("the next pair", |p, n| (p + 1).min(n - 1)),
        ("the pair before", |p, _| p.saturating_sub(1)),
        ("the pairs in reverse", |p, n| n - 1 - p),
        ("the first pair for all", |_, _| 0),
    ];
    for (words, angle) in angles {
        add(format!("takes for pair p the angle of {words}"), form.clone(), FORWARDS, angle);
    }
    // A part of a head, and beside it the next one by the same angles.
    let width = form.part.len();
    let (first, second) = (form.clone(), form.part.start + width..form.part.end + width);
    if second.end <= form.head {
        let words =
            format!("rotates the {width} columns behind those that are rotated as well, by the same angles");
        let second = Form { part: second, ..form.clone() };
        found.push((
            words,
            Arc::new(move |[x, table, positions]| {
                let once = first.rotated([x, table, positions], FORWARDS, OWN);
                second.rotated([&once, table, positions], FORWARDS, OWN)
            }),
        ));
    }
    found
}
