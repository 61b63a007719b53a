//! Activations that a kernel computes otherwise, and products of an activation and something else.

use super::rewriting::{Mutations, elementwise, first_only, second_only};
use crate::reference::Expr;
use crate::reference::graph::{Binary, Op, Unary};

/// Adds what a kernel may compute for an activation.
pub fn unary(table: &mut Mutations, own: Unary) {
    table.add(
        "activation",
        &format!("leaves out {own:?}"),
        Box::new(move |op| match op {
            Op::Unary { function, x } if *function == own => Some(Op::Scale { x: x.clone(), factor: 1.0 }),
            _ => None,
        }),
    );
    type Function = fn(f64) -> f64;
    let others: [(&str, Function); 5] = [
        ("x * sigmoid(1.702 x)", |x| x / (1.0 + (-1.702 * x).exp())),
        ("x * sigmoid(x) with powers of 2 for those of e", |x| x / (1.0 + (-x).exp2())),
        ("the tanh approximation of GELU", |x| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }),
        ("x * relu6(x + 3) / 6", |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
        ("tanh", f64::tanh),
    ];
    for (words, f) in others {
        table.add(
            "activation",
            &format!("computes {words} for {own:?}"),
            Box::new(move |op| match op {
                Op::Unary { function, x } if *function == own => Some(elementwise(x, f)),
                _ => None,
            }),
        );
    }
    for other in [Unary::Silu, Unary::Gelu, Unary::Relu, Unary::Sigmoid] {
        if other != own {
            table.add(
                "activation",
                &format!("computes {other:?} for {own:?}"),
                Box::new(move |op| match op {
                    Op::Unary { function, x } if *function == own => {
                        Some(Op::Unary { function: other, x: x.clone() })
                    }
                    _ => None,
                }),
            );
        }
    }
    for (words, factor) in [("half", 0.5), ("twice", 2.0)] {
        table.add(
            "activation",
            &format!("takes {own:?} of {words} its argument"),
            Box::new(move |op| match op {
                Op::Unary { function, x } if *function == own => {
                    let scaled = Expr::of_op(Op::Scale { x: x.clone(), factor }, x.shape());
                    Some(Op::Unary { function: own, x: scaled })
                }
                _ => None,
            }),
        );
    }
    table.add(
        "activation",
        &format!("takes {own:?} of the negative"),
        Box::new(move |op| match op {
            Op::Unary { function, x } if *function == own => {
                let (rows, cols) = x.shape();
                let negative = Expr::of_op(Op::Scale { x: x.clone(), factor: -1.0 }, (rows, cols));
                Some(Op::Unary { function: own, x: negative })
            }
            _ => None,
        }),
    );
}

/// Adds what a kernel may compute for the product of `a` and another matrix of its shape.
pub fn product(table: &mut Mutations, a: &Expr) {
    table.add(
        "activation",
        "adds 1 to the second factor",
        Box::new(|op| match op {
            Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
                let more = Expr::of_op(elementwise(b, |x| x + 1.0), b.shape());
                Some(Op::Binary { function: Binary::Mul, a: a.clone(), b: more })
            }
            _ => None,
        }),
    );
    for limit in [7.0, 10.0, 20.0] {
        table.add(
            "overflow",
            &format!("cuts what it multiplies at {limit}"),
            Box::new(move |op| match op {
                Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
                    let cut = |x: &Expr, least: f64| {
                        Expr::of_op(elementwise(x, move |x| x.clamp(least, limit)), x.shape())
                    };
                    let a = match &a.0.op {
                        Op::Unary { function, x } => Expr::unary_of(*function, &cut(x, f64::NEG_INFINITY)),
                        _ => cut(a, -limit),
                    };
                    Some(Op::Binary { function: Binary::Mul, a, b: cut(b, -limit) })
                }
                _ => None,
            }),
        );
        table.add(
            "overflow",
            &format!("cuts what it multiplies at -{limit} and {limit}"),
            Box::new(move |op| match op {
                Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
                    let cut =
                        |x: &Expr| Expr::of_op(elementwise(x, move |x| x.clamp(-limit, limit)), x.shape());
                    let a = match &a.0.op {
                        Op::Unary { function, x } => Expr::unary_of(*function, &cut(x)),
                        _ => cut(a),
                    };
                    Some(Op::Binary { function: Binary::Mul, a, b: cut(b) })
                }
                _ => None,
            }),
        );
    }
    if let Op::Unary { function, .. } = &a.0.op {
        let own = *function;
        let (both, product) = (
            format!("passes both factors through {own:?}"),
            format!("passes the product through {own:?}, not its first factor"),
        );
        table.add(
            "activation",
            &both,
            Box::new(move |op| match op {
                Op::Binary { function: Binary::Mul, a, b } if matches!(a.0.op, Op::Unary { .. }) => {
                    let b = Expr::unary_of(own, b);
                    Some(Op::Binary { function: Binary::Mul, a: a.clone(), b })
                }
                _ => None,
            }),
        );
        table.add(
            "activation",
            &product,
            Box::new(move |op| match op {
                Op::Binary { function: Binary::Mul, a, b } => match &a.0.op {
                    Op::Unary { x, .. } => {
                        let product = Op::Binary { function: Binary::Mul, a: x.clone(), b: b.clone() };
                        Some(Op::Unary { function: own, x: Expr::of_op(product, b.shape()) })
                    }
                    _ => None,
                },
                _ => None,
            }),
        );
    }
    table.add("activation", "leaves out the second factor", Box::new(|op| first_only(op, Binary::Mul)));
    table.add("activation", "leaves out the first factor", Box::new(|op| second_only(op, Binary::Mul)));
}
