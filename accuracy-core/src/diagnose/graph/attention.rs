//! Functions of a model whose inputs a kernel takes otherwise.

use super::rewriting::{Mutation, Mutations, OfInputs, of_inputs, picked};
use crate::reference::Expr;
use crate::reference::graph::Op;

/// Adds what a kernel may take for the inputs of attention.
pub fn paged_attention(table: &mut Mutations, inputs: &[Expr]) {
    let change = |f: OfInputs| -> Mutation {
        Box::new(move |op| match op {
            Op::User { name, .. } if name == "paged_attention" => of_inputs(op, &*f),
            _ => None,
        })
    };
    table.add(
        "permuted_tiles",
        "takes the cache of keys for that of values",
        change(Box::new(|inputs| inputs[2] = inputs[1].clone())),
    );
    table.add(
        "permuted_tiles",
        "exchanges the caches of keys and values",
        change(Box::new(|inputs| inputs.swap(1, 2))),
    );
    // Key heads of sizes that there are.
    let width = inputs[1].shape().1;
    for d in
        [32, 64, 80, 96, 128, 192, 256].into_iter().filter(|d| 2 * d <= width && width.is_multiple_of(*d))
    {
        for (words, next) in [("the first key head", 0), ("the next key head", 1)] {
            table.add(
                "permuted_tiles",
                &format!("takes {words} of {d} for each"),
                change(Box::new(move |inputs| {
                    for input in &mut inputs[1..3] {
                        let of = move |c: usize| if next == 0 { c % d } else { (c + d) % width };
                        *input = Expr::of_op(picked(input, width, of), input.shape());
                    }
                })),
            );
        }
    }
    for by in [8, 16, 32, 64].into_iter().filter(|by| *by < width) {
        table.add(
            "permuted_tiles",
            &format!("reads values {by} columns further on in each row of their cache"),
            change(Box::new(move |inputs| {
                let values = &mut inputs[2];
                let width = values.shape().1;
                *values = Expr::of_op(picked(values, width, move |c| (c + by) % width), values.shape());
            })),
        );
    }
    // A softmax scale that is another, left out or applied once more.
    for power in (-12..=12).filter(|p| *p != 0) {
        let factor = 2f64.powi(power);
        table.add(
            "gain",
            &format!("multiplies the scores with {factor} times their factor"),
            change(Box::new(move |inputs| {
                let shape = inputs[0].shape();
                inputs[0] = Expr::of_op(Op::Scale { x: inputs[0].clone(), factor }, shape);
            })),
        );
    }
}

/// Adds the rotary embedding that is left out.
pub fn rope(table: &mut Mutations) {
    table.add(
        "rope",
        "does not rotate",
        Box::new(|op| match op {
            Op::User { name, inputs, .. } if name == "rope" => {
                Some(Op::Scale { x: inputs[0].clone(), factor: 1.0 })
            }
            _ => None,
        }),
    );
}
