//! Rewritings of single operations, and what several families of them share.

use crate::reference::graph::{Binary, Op};
use crate::reference::{Expr, Matrix, user};

/// Turns an operation into another one; `None` leaves it as it is.
pub type Mutation = Box<dyn Fn(&Op) -> Option<Op>>;
/// Changes the inputs of a function.
pub type OfInputs = Box<dyn Fn(&mut [Expr])>;

/// Rewritings by their cause and what they make a kernel do, each once.
#[derive(Default)]
pub struct Mutations {
    pub found: Vec<(&'static str, String, Mutation)>,
}

impl Mutations {
    pub fn add(&mut self, cause: &'static str, what: &str, mutation: Mutation) {
        if !self.found.iter().any(|(_, known, _)| known == what) {
            self.found.push((cause, what.to_owned(), mutation));
        }
    }
}

/// A function of the model's own, of other inputs.
pub fn of_inputs(op: &Op, change: &dyn Fn(&mut [Expr])) -> Option<Op> {
    let Op::User { name, inputs, function, rounds, .. } = op else { return None };
    let mut inputs = inputs.clone();
    change(&mut inputs);
    let (name, function, rounds) = (name.clone(), function.clone(), rounds.clone());
    Some(Op::User { name, inputs, function, rounds, faults: Vec::new(), suspects: Vec::new() })
}

/// The columns that `from` names.
pub fn picked(x: &Expr, width: usize, from: impl Fn(usize) -> usize + Send + Sync + 'static) -> Op {
    let cols = x.shape().1;
    placed(x, width, move |r, c| r * cols + from(c))
}

/// As many rows of `width` elements, each from the place in `x` that `from` names.
pub fn placed(x: &Expr, width: usize, from: impl Fn(usize, usize) -> usize + Send + Sync + 'static) -> Op {
    let rows = x.shape().0;
    let expr = user("columns", &[x], (rows, width), move |inputs| {
        let x = inputs[0];
        let places = (0..x.rows).flat_map(|r| (0..width).map(move |c| (r, c)));
        let data = places.map(|(r, c)| x.data.get(from(r, c)).copied().unwrap_or(f64::NAN));
        Matrix::new(x.rows, width, data.collect())
    });
    expr.0.op.clone()
}

/// An activation of its own.
pub fn elementwise(x: &Expr, f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Op {
    user("activation", &[x], x.shape(), move |inputs| inputs[0].map(&f)).0.op.clone()
}

pub fn first_only(op: &Op, of: Binary) -> Option<Op> {
    match op {
        Op::Binary { function, a, .. } if *function == of => Some(Op::Scale { x: a.clone(), factor: 1.0 }),
        _ => None,
    }
}

pub fn second_only(op: &Op, of: Binary) -> Option<Op> {
    match op {
        Op::Binary { function, a, b } if *function == of && a.shape() == b.shape() => {
            Some(Op::Scale { x: b.clone(), factor: 1.0 })
        }
        _ => None,
    }
}
