//! Rewritings of single operations, each applied wherever it fits.

use super::rewriting::{Mutation, Mutations};
use super::{activations, attention, columns, norms, terms};
use crate::dtype::DType;
use crate::reference::graph::{Arrangement, Binary, Op, Suspect};
use crate::reference::{Expr, Matrix, user};
use std::ops::Range;

/// Every rewriting that fits somewhere in an expression. `widths` are columns of the chain's buffers.
pub fn mutations(source: &Expr, widths: &[usize]) -> Vec<(&'static str, String, Mutation)> {
    let mut table = Mutations::default();
    suspects(source, &mut table);
    let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
    let of_activations = factors_of_activations(source);
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { gain, .. } => norms::rms_norm(&mut table, e.0.cols, gain.is_some(), widths),
        Op::LayerNorm { bias, .. } => norms::layer_norm(&mut table, e.0.cols, bias.is_some()),
        Op::Unary { function, .. } => activations::unary(&mut table, *function),
        Op::Binary { function: Binary::Mul, b, .. } if terms::column_repeated(b).is_some() => {
            terms::factor_of_rows(&mut table);
        }
        Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
            activations::product(&mut table, a);
        }
        Op::Binary { function: Binary::Mul, a, b } if b.shape().0 == 1 => {
            terms::factor_of_columns(&mut table, a);
        }
        Op::Binary { function: Binary::Add, a, b } => terms::addend(&mut table, a, b),
        Op::Scale { factor, .. } if *factor != 1.0 => {
            let cause = if of_activations.contains(factor) { "activation" } else { "gain" };
            scaled(&mut table, cause, *factor);
        }
        Op::Round { to, .. } => rounded(&mut table, *to),
        Op::Columns { x, range } => ranges.push((x.shape().1, range.clone())),
        Op::Select { choices, .. } if choices.len() > 1 => selected(&mut table, choices),
        Op::RepeatRows { x, times } if x.shape().0 > 1 && *times > 1 => repeated(&mut table, x, *times),
        Op::Arrange { parts, arrangement } => arranged(&mut table, parts, *arrangement),
        Op::User { name, .. } if name == "rope" => attention::rope(&mut table),
        Op::User { name, inputs, .. } if name == "paged_attention" => {
            attention::paged_attention(&mut table, inputs);
        }
        _ => {}
    });
    ranges.sort_by_key(|(n, r)| (*n, r.start, r.end));
    ranges.dedup();
    columns::columns(&ranges, &mut table);
    table.found
}

fn suspects(source: &Expr, table: &mut Mutations) {
    // What an operation knows of itself comes before what is guessed.
    let mut suspects: Vec<Suspect> = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { suspects: own, .. } = &e.0.op {
            suspects.extend(own.iter().cloned());
        }
    });
    for Suspect { cause, what, function: wrong } in suspects {
        let words = what.clone();
        table.add(
            cause,
            &words,
            Box::new(move |op| match op {
                Op::User { name, inputs, rounds, suspects, .. }
                    if suspects.iter().any(|s| s.what == what) =>
                {
                    let (name, inputs, function) = (name.clone(), inputs.clone(), wrong.clone());
                    let rounds = rounds.clone();
                    Some(Op::User {
                        name,
                        inputs,
                        function,
                        rounds,
                        faults: Vec::new(),
                        suspects: Vec::new(),
                    })
                }
                _ => None,
            }),
        );
    }
}

/// Constant factors in the argument of an activation: another function of it is computed without them.
fn factors_of_activations(source: &Expr) -> Vec<f64> {
    let mut found = Vec::new();
    source.visit(&mut |e| {
        if let Op::Unary { x, .. } = &e.0.op {
            x.visit(&mut |e| {
                if let Op::Scale { factor, .. } = e.0.op {
                    found.push(factor);
                }
            });
        }
    });
    found
}

/// A constant factor.
fn scaled(table: &mut Mutations, cause: &'static str, own: f64) {
    for (times, words) in [
        (1.0, "leaves out the factor"),
        (own * own, "applies twice the factor"),
        (1.0 / own, "divides by the factor"),
    ] {
        table.add(
            cause,
            &format!("{words} {own}"),
            Box::new(move |op| match op {
                Op::Scale { x, factor } if *factor == own => Some(Op::Scale { x: x.clone(), factor: times }),
                _ => None,
            }),
        );
    }
}

/// A rounding that is declared.
fn rounded(table: &mut Mutations, own: DType) {
    table.add(
        "accumulation",
        &format!("does not round to {own} in between"),
        Box::new(move |op| match op {
            Op::Round { x, to } if *to == own => Some(Op::Scale { x: x.clone(), factor: 1.0 }),
            _ => None,
        }),
    );
}

/// A choice for each row.
fn selected(table: &mut Mutations, choices: &[Expr]) {
    table.add(
        "router",
        &format!("takes the choices of {} in reverse order", choices.len()),
        Box::new(|op| match op {
            Op::Select { choices, by } => {
                let choices = choices.iter().rev().cloned().collect();
                Some(Op::Select { choices, by: by.clone() })
            }
            _ => None,
        }),
    );
    for (words, by) in [("next", 1), ("previous", choices.len() - 1)] {
        table.add(
            "router",
            &format!("takes the {words} of {} for each choice", choices.len()),
            Box::new(move |op| match op {
                Op::Select { choices, by: index } => {
                    let mut choices = choices.clone();
                    choices.rotate_left(by);
                    Some(Op::Select { choices, by: index.clone() })
                }
                _ => None,
            }),
        );
    }
}

/// Rows that are repeated.
fn repeated(table: &mut Mutations, x: &Expr, times: usize) {
    table.add(
        "permuted_tiles",
        &format!("takes row r % {} of what is repeated for row r / {times}", x.shape().0),
        Box::new(|op| match op {
            Op::RepeatRows { x, times } => {
                let (rows, cols) = x.shape();
                let shape = (rows * times, cols);
                let turned = user("rows", &[x], shape, move |inputs| {
                    let data = (0..shape.0).flat_map(|r| inputs[0].row(r % rows).to_vec()).collect();
                    Matrix::new(shape.0, cols, data)
                });
                Some(turned.0.op.clone())
            }
            _ => None,
        }),
    );
}

/// Operands that lie beside or below each other: taken for one another.
fn arranged(table: &mut Mutations, parts: &[Expr], arrangement: Arrangement) {
    let alike = parts.len() > 1 && parts.iter().all(|part| part.shape() == parts[0].shape());
    let how = match arrangement {
        Arrangement::Beside => "beside each other",
        Arrangement::Below => "below each other",
        Arrangement::Reshaped | Arrangement::ColumnRepeated => return,
    };
    if !alike {
        return;
    }
    let change = |f: fn(&mut Vec<Expr>)| -> Mutation {
        Box::new(move |op| match op {
            Op::Arrange { parts, arrangement: own } if *own == arrangement => {
                let mut parts = parts.clone();
                f(&mut parts);
                Some(Op::Arrange { parts, arrangement })
            }
            _ => None,
        })
    };
    let count = parts.len();
    let cause = "permuted_tiles";
    table.add(
        cause,
        &format!("takes the {count} parts {how} in reverse order"),
        change(|parts| parts.reverse()),
    );
    let first = format!("takes the first of {count} parts {how} for each");
    table.add(
        cause,
        &first,
        change(|parts| {
            let first = parts[0].clone();
            parts.fill(first);
        }),
    );
}
