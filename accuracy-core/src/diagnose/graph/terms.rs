//! Factors and addends that go with the columns or the rows of a result.

use super::rewriting::{Mutation, Mutations, elementwise, second_only};
use crate::reference::graph::{Arrangement, Binary, Op};
use crate::reference::{Expr, Matrix, user};

/// Adds what a kernel may do with a factor for each column of `a`.
pub fn factor_of_columns(table: &mut Mutations, a: &Expr) {
    let one_row = |f: fn(Expr, Expr) -> Option<Op>| -> Mutation {
        Box::new(move |op| match op {
            Op::Binary { function: Binary::Mul, a, b } if b.shape().0 == 1 => f(a.clone(), b.clone()),
            _ => None,
        })
    };
    for (words, power) in [
        ("divides by the factor of each column instead of multiplying", -1),
        ("multiplies with the factor of each column twice", 2),
    ] {
        let mutation: Mutation = Box::new(move |op| match op {
            Op::Binary { function: Binary::Mul, a, b } if b.shape().0 == 1 => {
                // A factor of zero stays one: what it takes out is left out on purpose.
                let f = move |x: f64| if x == 0.0 { 0.0 } else { x.powi(power) };
                let b = Expr::of_op(elementwise(b, f), b.shape());
                Some(Op::Binary { function: Binary::Mul, a: a.clone(), b })
            }
            _ => None,
        });
        table.add("gain", words, mutation);
    }
    table.add(
        "parameter_ignored",
        "leaves out the factor of each column",
        one_row(|a, _| Some(Op::Scale { x: a, factor: 1.0 })),
    );
    table.add(
        "permuted_tiles",
        "takes the factor of a column by the number of the row",
        one_row(|a, b| Some(by_row(Binary::Mul, &a, &b))),
    );
    if matches!(a.0.op, Op::LayerNorm { bias: Some(_), .. }) {
        table.add(
            "addend_extra",
            "adds the norm's bias after it multiplies with the factor of each column",
            one_row(|a, b| {
                let Op::LayerNorm { x, gain, bias: Some(bias), eps } = &a.0.op else { return None };
                let norm = Op::LayerNorm { x: x.clone(), gain: gain.clone(), bias: None, eps: *eps };
                let norm = Expr::of_op(norm, a.shape());
                let scaled = Op::Binary { function: Binary::Mul, a: norm, b };
                let scaled = Expr::of_op(scaled, a.shape());
                Some(Op::Binary { function: Binary::Add, a: scaled, b: bias.clone() })
            }),
        );
    }
}

/// Adds what a kernel may do with the second of two addends.
pub fn addend(table: &mut Mutations, a: &Expr, b: &Expr) {
    if b.shape().0 == 1 {
        table.add(
            "permuted_tiles",
            "takes the addend of a column by the number of the row",
            Box::new(|op| match op {
                Op::Binary { function: Binary::Add, a, b } if b.shape().0 == 1 => {
                    Some(by_row(Binary::Add, a, b))
                }
                _ => None,
            }),
        );
    }
    table.add(
        "addend_extra",
        "subtracts the second addend",
        Box::new(|op| match op {
            Op::Binary { function: Binary::Add, a, b } => {
                Some(Op::Binary { function: Binary::Sub, a: a.clone(), b: b.clone() })
            }
            _ => None,
        }),
    );
    if a.shape() == b.shape() {
        table.add(
            "addend_missing",
            "leaves out the first addend",
            Box::new(|op| second_only(op, Binary::Add)),
        );
    }
    table.add(
        "addend_extra",
        "adds the second addend twice",
        Box::new(|op| match op {
            Op::Binary { function: Binary::Add, a, b } => {
                let twice = Expr::of_op(Op::Scale { x: b.clone(), factor: 2.0 }, b.shape());
                Some(Op::Binary { function: Binary::Add, a: a.clone(), b: twice })
            }
            _ => None,
        }),
    );
}

/// Another column of factors, from the column that is declared and the factors as they are repeated.
type OtherColumn = Box<dyn Fn(&Expr, &Expr) -> Option<Expr> + Send + Sync>;

/// Adds what a kernel may do with a factor for each row.
pub fn factor_of_rows(table: &mut Mutations) {
    let of_column = |f: OtherColumn| -> Mutation {
        Box::new(move |op| {
            let Op::Binary { function: Binary::Mul, a, b } = op else { return None };
            let b = f(column_repeated(b)?, b)?;
            Some(Op::Binary { function: Binary::Mul, a: a.clone(), b })
        })
    };
    for (cause, words, power) in [
        ("parameter_ignored", "leaves out the factor of each row", 0),
        ("gain", "divides by the factor of each row instead of multiplying", -1),
        ("gain", "multiplies with the factor of each row twice", 2),
    ] {
        let change = move |_: &Expr, b: &Expr| {
            Some(Expr::of_op(
                elementwise(b, move |x| if power == 0 { 1.0 } else { x.powi(power) }),
                b.shape(),
            ))
        };
        table.add(cause, words, of_column(Box::new(change)));
    }
    // Another element of the column for each one: a function of the row and the number of rows, and the column.
    type From = fn(usize, usize, usize) -> usize;
    let places: [(&str, From); 4] = [
        ("takes the factor of the next row", |r, rows, _| (r + 1) % rows),
        ("takes the factor of the previous row", |r, rows, _| (r + rows - 1) % rows),
        ("takes the factor of the first row for every row", |_, _, _| 0),
        ("takes the factor of a row by the number of the column", |_, rows, c| c % rows),
    ];
    for (words, from) in places {
        let change = move |column: &Expr, b: &Expr| {
            let (rows, cols) = b.shape();
            Some(user("of_rows", &[column], (rows, cols), move |of| {
                let places = (0..rows).flat_map(|r| (0..cols).map(move |c| from(r, rows, c)));
                Matrix::new(rows, cols, places.map(|r| of[0].data[r]).collect())
            }))
        };
        table.add("permuted_tiles", words, of_column(Box::new(change)));
    }
}

/// The column that an operand repeats for every column.
pub fn column_repeated(b: &Expr) -> Option<&Expr> {
    match &b.0.op {
        Op::Arrange { parts, arrangement: Arrangement::ColumnRepeated } => parts.first(),
        _ => None,
    }
}

/// One row of `b` that is indexed by the row instead of by the column.
fn by_row(function: Binary, a: &Expr, b: &Expr) -> Op {
    let (rows, cols) = a.shape();
    let turned = user("by_row", &[b], (rows, cols), move |of| {
        let data = (0..rows).flat_map(|r| std::iter::repeat_n(of[0].data[r % cols], cols));
        Matrix::new(rows, cols, data.collect())
    });
    Op::Binary { function, a: a.clone(), b: turned }
}
