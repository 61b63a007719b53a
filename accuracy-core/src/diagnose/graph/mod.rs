//! Hypotheses about what a kernel computes: expressions that differ from the declared one in a term, a function or an
//! order.

mod activations;
mod addends;
mod attention;
mod columns;
mod mutations;
mod norms;
mod rewriting;
mod rotations;
mod tails;
mod terms;

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use crate::case::Attempt;
use crate::dtype::{BF16, DType, F16};
use crate::power::graph_mutants;
use crate::reference::graph::{Binary, Op};
use crate::reference::{Expr, Matrix, user};
use mutations::mutations;
use rewriting::of_inputs;

/// Every hypothesis about an expression.
pub fn hypotheses(source: &Expr, attempt: &Attempt) -> Vec<Hypothesis<'static>> {
    let mut found = Vec::new();
    let mut add = |cause: &'static str, what: String, mutant: Expr| {
        found.push(Hypothesis {
            cause,
            slot: Slot::Graph,
            operand: None,
            what: what.into(),
            change: Change::Graph(mutant),
            sense: Sense::Other,
            also: None,
        });
    };
    for (fault, mutant) in graph_mutants(source) {
        let what = match fault {
            "norm_weight" => "leaves out the norm's weight".into(),
            "gate_up_swapped" => "applies the activation to up instead of gate".into(),
            "addend_missing" => leaves_out_addend(source, attempt),
            "rope" => "rotates with the other style (neox for gptj, or the reverse)".into(),
            fault => match of_model(fault, source) {
                Some(words) => words.into(),
                None => format!("computes the declared fault `{fault}`"),
            },
        };
        let cause = match fault {
            "gqa_tiled" => "permuted_tiles",
            "context_short" => "k_tail_dropped",
            "softmax_base" => "activation",
            "softmax_half" => "gain",
            fault if fault.starts_with("rope") => "rope",
            fault if fault.starts_with("router") => "router",
            fault => fault,
        };
        add(cause, what, mutant);
    }
    let mut widths: Vec<usize> = attempt.buffers.iter().map(|b| b.cols).collect();
    widths.sort_unstable();
    widths.dedup();
    for (cause, what, mutation) in mutations(source, &widths) {
        let mutant = source.rewrite(&*mutation);
        add(cause, what, mutant);
    }
    if let Some((what, mutant)) = rotated(source, attempt) {
        add("rope", what, mutant);
    }
    for (what, mutant) in rotations::rotations(source, attempt) {
        add("rope", what, mutant);
    }
    for (cause, what, mutant) in rounded_once_more(source).into_iter().chain(of_another(source, attempt)) {
        add(cause, what, mutant);
    }
    for (what, mutant) in tails::tails(source, attempt) {
        add("k_tail_dropped", what, mutant);
    }
    for (what, mutant) in compensations(source, attempt) {
        add("zero_point", what, mutant);
    }
    for (cause, what, mutant) in addends::addends(source, attempt) {
        add(cause, what, mutant);
    }
    found
}

/// The expression with `f` of the node that comes `at`th, operands first.
fn at_node(source: &Expr, at: usize, f: &dyn Fn(Expr) -> Expr) -> Expr {
    fn walk(e: &Expr, next: &mut usize, at: usize, f: &dyn Fn(Expr) -> Expr) -> Expr {
        let op = e.0.op.of_operands(&mut |operand| walk(operand, next, at, f));
        let node = Expr::of_op(op, e.shape());
        let here = *next == at;
        *next += 1;
        if here { f(node) } else { node }
    }
    walk(source, &mut 0, at, f)
}

/// An intermediate result that is rounded on its way, though nothing declares it.
fn rounded_once_more(source: &Expr) -> Vec<(&'static str, String, Expr)> {
    let mut nodes: Vec<Option<&'static str>> = Vec::new();
    source.visit(&mut |e| {
        nodes.push(match &e.0.op {
            Op::MatMul { .. } => Some("the product"),
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => Some("what the norm gives"),
            Op::Unary { .. } => Some("what the activation gives"),
            Op::Binary { function: Binary::Mul, .. } => Some("a product of two values"),
            Op::Binary { .. } => Some("a sum"),
            Op::Scale { .. } => Some("what is multiplied with a constant"),
            Op::Select { .. } => Some("the products of the experts"),
            Op::User { .. } => Some("what a function of the test gives"),
            _ => None,
        });
    });
    // The last one is the result, which is rounded to its format anyway.
    nodes.pop();
    let mut found: Vec<(&'static str, String, Expr)> = Vec::new();
    let round = |e: Expr, to: DType| {
        let shape = e.shape();
        Expr::of_op(Op::Round { x: e, to }, shape)
    };
    for to in [BF16, F16] {
        let inner = nodes.iter().enumerate().filter_map(|(at, what)| Some((at, (*what)?)));
        for (at, what) in inner {
            let mutant = at_node(source, at, &|e| round(e, to));
            found.push(("rounding", format!("rounds {what} to {to} before it goes on"), mutant));
        }
        let mut sums = 0;
        source
            .visit(&mut |e| sums += usize::from(matches!(e.0.op, Op::Binary { function: Binary::Add, .. })));
        if sums > 1 {
            let mutant = source.rewrite(&|op| match op {
                Op::Binary { function: Binary::Add, a, b } => {
                    let each = |x: &Expr| match x.0.op {
                        Op::Binary { function: Binary::Add, .. } => round(x.clone(), to),
                        _ => x.clone(),
                    };
                    Some(Op::Binary { function: Binary::Add, a: each(a), b: each(b) })
                }
                _ => None,
            });
            found.push(("accumulation", format!("keeps a sum of several in {to}"), mutant));
        }
    }
    // The norm's value before its weight.
    for to in [BF16, F16] {
        let mut of_norm = false;
        let rounded = |x: &Expr, norm: Op, gain: &Expr| {
            let norm = Expr::of_op(norm, x.shape());
            Op::Binary { function: Binary::Mul, a: round(norm, to), b: gain.clone() }
        };
        source.visit(&mut |e| of_norm |= matches!(e.0.op, Op::RmsNorm { gain: Some(_), .. }));
        if of_norm {
            let mutant = source.rewrite(&|op| match op {
                Op::RmsNorm { x, gain: Some(gain), eps } => {
                    Some(rounded(x, Op::RmsNorm { x: x.clone(), gain: None, eps: *eps }, gain))
                }
                _ => None,
            });
            let what =
                format!("rounds the normalised value to {to} before it multiplies with the norm's weight");
            found.push(("rounding", what, mutant));
        }
    }
    found
}

/// What is normalised with another buffer of its shape added or subtracted: a residual that is added twice, or left out.
fn of_another(source: &Expr, attempt: &Attempt) -> Vec<(&'static str, String, Expr)> {
    let mut normalised = Vec::new();
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { x, .. } | Op::LayerNorm { x, .. } => normalised.push(x.shape()),
        _ => {}
    });
    let mut found = Vec::new();
    for (i, other) in attempt.buffers.iter().enumerate().take(attempt.made_before(source)) {
        let plain = other.scheme.is_none() && !other.dtype.is_integer();
        if !plain || !normalised.contains(&(other.rows, other.cols)) {
            continue;
        }
        let id = crate::reference::BufferId(i);
        let with = |function: Binary| {
            let change = |x: &Expr| {
                let b = Expr::buffer(id, other.rows, other.cols);
                Expr::of_op(Op::Binary { function, a: x.clone(), b }, x.shape())
            };
            source.rewrite(&|op| match op {
                Op::RmsNorm { x, gain, eps } if x.shape() == (other.rows, other.cols) => {
                    Some(Op::RmsNorm { x: change(x), gain: gain.clone(), eps: *eps })
                }
                Op::LayerNorm { x, gain, bias, eps } if x.shape() == (other.rows, other.cols) => {
                    let (gain, bias) = (gain.clone(), bias.clone());
                    Some(Op::LayerNorm { x: change(x), gain, bias, eps: *eps })
                }
                _ => None,
            })
        };
        let name = &other.name;
        let more = format!("adds `{name}` to what it normalises");
        found.push(("addend_extra", more, with(Binary::Add)));
        let less = format!("leaves `{name}` out of what it normalises, or subtracts it");
        found.push(("addend_missing", less, with(Binary::Sub)));
    }
    found
}
/// A number for each row of an operand.
type OfRow = Box<dyn Fn(&Matrix, usize) -> f64 + Send + Sync>;

/// A product with a weight whose zero points are compensated by the sums of the rows, where those sums are wrong.
fn compensations(source: &Expr, attempt: &Attempt) -> Vec<(String, Expr)> {
    let mut of: Vec<(usize, Expr, crate::reference::BufferId)> = Vec::new();
    let mut at = 0;
    source.visit(&mut |e| {
        if let Op::MatMul { a, b, .. } = &e.0.op
            && let Op::Buffer(id) = b.0.op
        {
            of.push((at, a.clone(), id));
        }
        at += 1;
    });
    let mut found = Vec::new();
    for (at, a, id) in of {
        let weight = attempt.buffer(id);
        let Some(quantized) = weight.quantized().filter(|q| !q.zeros.is_empty()) else { continue };
        // One zero point and scale for each row: what its sum is multiplied with.
        let factors: Vec<f64> = quantized.zeros.iter().zip(&quantized.scales).map(|(z, s)| z * s).collect();
        if factors.len() != weight.rows {
            continue;
        }
        let name = weight.name.clone();
        let scales = match a.0.op {
            Op::Buffer(id) => attempt.buffer(id).quantized().map(|q| q.scales),
            _ => None,
        };
        let scales = scales.filter(|scales| scales.len() == a.shape().0);
        let k = a.shape().1;
        // What the sum of each row has too much: it is subtracted times the zero point.
        let mut add = |what: String, off: OfRow| {
            let factors = factors.clone();
            let (rows, cols) = (a.shape().0, factors.len());
            let more = user("compensation", &[&a], (rows, cols), move |of| {
                let element = |r: usize, f: &f64| -off(of[0], r) * f;
                let data = (0..rows).flat_map(|r| factors.iter().map(move |f| (r, f)));
                Matrix::new(rows, cols, data.map(|(r, f)| element(r, f)).collect())
            });
            let mutant = at_node(source, at, &|product| {
                let shape = product.shape();
                Expr::of_op(Op::Binary { function: Binary::Add, a: product, b: more.clone() }, shape)
            });
            found.push((what, mutant));
        };
        let sum = |x: &Matrix, r: usize| x.row(r).iter().sum::<f64>();
        for tile in [16, 32, 64, 128, 256] {
            let end = k / tile * tile;
            if end < k && end > 0 {
                let what = format!(
                    "leaves the last {} of {k} columns out of the sums that compensate the zero points of `{name}`",
                    k - end
                );
                add(what, Box::new(move |x, r| -x.row(r)[end..].iter().sum::<f64>()));
            }
            if tile < k {
                let what = format!(
                    "leaves the first {tile} of {k} columns out of the sums that compensate the zero points of `{name}`"
                );
                add(what, Box::new(move |x, r| -x.row(r)[..tile].iter().sum::<f64>()));
            }
        }
        let half = k / 2;
        let what = format!("leaves half of K out of the sums that compensate the zero points of `{name}`");
        add(what, Box::new(move |x, r| -x.row(r)[half..].iter().sum::<f64>()));
        let rows = a.shape().0;
        for (words, by) in [("previous", rows - 1), ("next", 1)] {
            let what = format!("compensates the zero points of `{name}` by the sum of the {words} row");
            add(what, Box::new(move |x, r| sum(x, (r + by) % rows) - sum(x, r)));
        }
        let what = format!("compensates the zero points of `{name}` by the sum of the first row");
        add(what, Box::new(move |x, r| sum(x, 0) - sum(x, r)));
        add(format!("does not compensate the zero points of `{name}`"), Box::new(move |x, r| -sum(x, r)));
        add(format!("compensates the zero points of `{name}` twice"), Box::new(move |x, r| sum(x, r)));
        if let Some(scales) = scales {
            let what = format!(
                "does not multiply the compensation of the zero points of `{name}` with the scales of the activations"
            );
            add(what, Box::new(move |x, r| sum(x, r) / scales[r] - sum(x, r)));
        }
    }
    found
}

/// By its name, where there is one addend and it is a buffer.
fn leaves_out_addend(source: &Expr, attempt: &Attempt) -> String {
    let mut names = Vec::new();
    source.visit(&mut |e| {
        if let Op::Binary { function: Binary::Add, b, .. } = &e.0.op {
            names.push(match b.0.op {
                Op::Buffer(id) => Some(&attempt.buffer(id).name),
                _ => None,
            });
        }
    });
    match names[..] {
        [Some(name)] => format!("does not add `{name}`"),
        _ => "leaves out the second addend".into(),
    }
}

/// A fault of an operation of [`crate::reference::model`] in words.
fn of_model(fault: &str, source: &Expr) -> Option<&'static str> {
    let mut owner = String::new();
    source.visit(&mut |e| {
        if let Op::User { name, faults, .. } = &e.0.op
            && faults.iter().any(|(own, _)| *own == fault)
        {
            owner.clone_from(name);
        }
    });
    Some(match (fault, owner.as_str()) {
        ("rope_backwards", _) => "rotates backwards: the sine has the wrong sign",
        ("rope_exchanged", _) => "takes sines for cosines and the reverse",
        ("rope_pairs", _) => "reads the table of cosines and sines as pairs of both",
        ("router", "topk_experts") => "leaves out the expert with the largest logit",
        ("router_smallest", _) => "takes the experts with the smallest logits",
        ("router", "topk_weights") => "ignores whether weights are divided by the sum of the chosen ones",
        ("router_sigmoid", _) => "takes sigmoids of the logits for their softmax",
        ("router_next", _) => "takes the weight of the next expert in order",
        ("router", "rows_by_expert") => "leaves the rows in the order of the tokens",
        ("router", "expert_offsets") => "writes how many rows each expert has, not how many come before",
        ("router", "weighted_sum") => "weights all slots alike",
        ("gqa_tiled", _) => "takes key head h % kv_heads for h / (heads / kv_heads)",
        ("context_short", _) => "leaves out the last position",
        ("softmax_base", _) => "takes powers of 2 for those of e in the softmax",
        ("softmax_half", _) => "leaves the second half of the columns out of the sum of the softmax",
        _ => return None,
    })
}

/// What is stored without a rotary embedding, rotated as another hop of the chain is: values as keys.
fn rotated(source: &Expr, attempt: &Attempt) -> Option<(String, Expr)> {
    let rope_in = |e: &Expr| {
        let mut found = None;
        e.visit(&mut |e| {
            if let Op::User { name, .. } = &e.0.op
                && name == "rope"
            {
                found = Some(e.clone());
            }
        });
        found
    };
    if rope_in(source).is_some() {
        return None;
    }
    let (rope, name) = attempt.buffers.iter().find_map(|b| Some((rope_in(b.source.as_ref()?)?, &b.name)))?;
    let Op::User { inputs: of, .. } = &rope.0.op else { return None };
    let (d, tokens) = (of[1].shape().1, of[0].shape().0);
    let mut applies = false;
    source.visit(&mut |e| {
        if let Op::User { name, inputs, .. } = &e.0.op {
            applies |= name == "write_rows"
                && inputs[1].shape().0 == tokens
                && inputs[1].shape().1.is_multiple_of(d);
        }
    });
    let mutant = source.rewrite(&|op| match op {
        Op::User { name, .. } if name == "write_rows" => of_inputs(op, &|inputs| {
            let x = &mut inputs[1];
            let turned = of_inputs(&rope.0.op, &|of| of[0] = x.clone());
            if let Some(turned) = turned {
                *x = Expr::of_op(turned, x.shape());
            }
        }),
        _ => None,
    });
    applies.then(|| (format!("rotates what it stores, as `{name}` is"), mutant))
}
