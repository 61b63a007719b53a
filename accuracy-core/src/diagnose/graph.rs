//! Hypotheses about what a kernel computes: expressions that differ from the declared one in a term, a function or an
//! order.

use super::hypothesis::{Change, Hypothesis, Sense, Slot};
use crate::case::Attempt;
use crate::dtype::{BF16, DType, F16, Overflow};
use crate::power::graph_mutants;
use crate::reference::graph::{Binary, Op, Suspect, Unary};
use crate::reference::{Expr, Matrix, user};
use std::ops::Range;

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
    for (cause, what, mutation) in mutations(source) {
        let mutant = source.rewrite(&*mutation);
        add(cause, what, mutant);
    }
    if let Some((what, mutant)) = rotated(source, attempt) {
        add("rope", what, mutant);
    }
    for (cause, what, mutant) in rounded_once_more(source).into_iter().chain(of_another(source, attempt)) {
        add(cause, what, mutant);
    }
    for (what, mutant) in compensations(source, attempt) {
        add("zero_point", what, mutant);
    }
    for (what, mutant) in without_one_addend(source, attempt) {
        add("addend_missing", what, mutant);
    }
    found
}

/// A sum of several that lacks one of them.
fn without_one_addend(source: &Expr, attempt: &Attempt) -> Vec<(String, Expr)> {
    let mut sums: Vec<(usize, [Expr; 2])> = Vec::new();
    let mut at = 0;
    source.visit(&mut |e| {
        if let Op::Binary { function: Binary::Add, a, b } = &e.0.op
            && a.shape() == b.shape()
        {
            sums.push((at, [a.clone(), b.clone()]));
        }
        at += 1;
    });
    // Of a single sum others say it.
    if sums.len() < 2 {
        return Vec::new();
    }
    let is_sum = |e: &Expr| matches!(e.0.op, Op::Binary { function: Binary::Add, .. });
    let mut found = Vec::new();
    for (at, addends) in sums {
        for (i, addend) in addends.iter().enumerate() {
            if is_sum(addend) {
                continue;
            }
            let names: Vec<String> =
                addend.buffers().iter().map(|id| format!("`{}`", attempt.buffer(*id).name)).collect();
            let mutant = at_node(source, at, &|e| match &e.0.op {
                Op::Binary { a, b, .. } => {
                    if i == 0 {
                        b.clone()
                    } else {
                        a.clone()
                    }
                }
                _ => e,
            });
            found.push((format!("leaves out the addend that comes of {}", names.join(" and ")), mutant));
        }
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
    let own = |b: &crate::case::Captured| {
        b.source.as_ref().is_some_and(|own| std::sync::Arc::ptr_eq(&own.0, &source.0))
    };
    let before = attempt.buffers.iter().position(own).unwrap_or(0);
    let mut found = Vec::new();
    for (i, other) in attempt.buffers.iter().enumerate().take(before) {
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

/// A function of the model's own, of other inputs.
fn of_inputs(op: &Op, change: &dyn Fn(&mut [Expr])) -> Option<Op> {
    let Op::User { name, inputs, function, rounds, .. } = op else { return None };
    let mut inputs = inputs.clone();
    change(&mut inputs);
    let (name, function, rounds) = (name.clone(), function.clone(), rounds.clone());
    Some(Op::User { name, inputs, function, rounds, faults: Vec::new(), suspects: Vec::new() })
}

type Mutation = Box<dyn Fn(&Op) -> Option<Op>>;
/// What changes the inputs of a function.
type OfInputs = Box<dyn Fn(&mut [Expr])>;

/// Rewritings of single operations, each applied wherever it fits.
fn mutations(source: &Expr) -> Vec<(&'static str, String, Mutation)> {
    let mut found: Vec<(&'static str, String, Mutation)> = Vec::new();
    let mut add = |cause, what: &str, mutation: Mutation| {
        if !found.iter().any(|(_, known, _)| known == what) {
            found.push((cause, what.to_owned(), mutation));
        }
    };
    // What an operation knows of itself comes before what is guessed.
    let mut suspects: Vec<Suspect> = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { suspects: own, .. } = &e.0.op {
            suspects.extend(own.iter().cloned());
        }
    });
    for Suspect { cause, what, function: wrong } in suspects {
        let words = what.clone();
        add(
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
    let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { gain, .. } => {
            add("overflow", "leaves out the norm's epsilon", Box::new(without_epsilon));
            for (eps, words) in [(1e-5, "1e-5"), (1e-6, "1e-6"), (1e-12, "1e-12")] {
                add(
                    "gain",
                    &format!("takes {words} for the norm's epsilon"),
                    Box::new(move |op| epsilon(op, eps)),
                );
            }
            if gain.is_some() {
                add("gain", "multiplies with 1 + the norm's weight", Box::new(one_more));
            }
            let k = e.0.cols;
            let mut counts = vec![1, 64, 128, 256, 512, 1024, k - 1, k + 1, 2 * k];
            counts.retain(|&n| n > 0 && n != k);
            for count in counts {
                add(
                    "gain",
                    &format!("divides the sum of squares by {count}, not by {k}"),
                    Box::new(move |op| over(op, count)),
                );
            }
            add("gain", "adds epsilon to the root, not under it", Box::new(outside));
            for to in [F16, BF16] {
                add(
                    "accumulation",
                    &format!("sums up the squares of a row in {to}"),
                    Box::new(move |op| squares_in(op, to)),
                );
            }
            add(
                "gain",
                "leaves out the norm",
                Box::new(|op| match op {
                    Op::RmsNorm { x, gain: Some(gain), .. } => {
                        Some(Op::Binary { function: Binary::Mul, a: x.clone(), b: gain.clone() })
                    }
                    Op::RmsNorm { x, gain: None, .. } => Some(Op::Scale { x: x.clone(), factor: 1.0 }),
                    _ => None,
                }),
            );
            add(
                "norm_weight",
                "multiplies with the norm's weight twice",
                Box::new(|op| match op {
                    Op::RmsNorm { x, gain: Some(gain), .. } => {
                        let norm = Expr::of_op(op.clone(), x.shape());
                        Some(Op::Binary { function: Binary::Mul, a: norm, b: gain.clone() })
                    }
                    _ => None,
                }),
            );
            let mut parts = vec![k / 2];
            parts.extend([64, 128, 256, 512, 1024].into_iter().flat_map(|tile| [tile, k / tile * tile]));
            parts.retain(|&n| n > 0 && n < k);
            parts.sort_unstable();
            parts.dedup();
            for part in parts {
                add(
                    "k_tail_dropped",
                    &format!("sums up the squares of the first {part} of {k} columns only"),
                    Box::new(move |op| squares_of(op, part)),
                );
                add(
                    "k_tail_dropped",
                    &format!("takes the mean of the squares of the first {part} of {k} columns only"),
                    Box::new(move |op| {
                        over_root(op, move |row, eps| {
                            (row[..part].iter().map(|x| x * x).sum::<f64>() / part as f64 + eps).sqrt()
                        })
                    }),
                );
            }
            for lanes in [64, 128, 256, 512, 1024] {
                for (taken, words) in
                    [(0..lanes / 2, "first"), (lanes / 2..lanes, "last"), (0..lanes / 4, "first")]
                {
                    if taken.start < k && k > lanes / 4 {
                        let what = format!(
                            "sums up the squares of the {words} {} of every {lanes} columns only",
                            taken.len()
                        );
                        let mutation = move |op: &Op| {
                            let taken = taken.clone();
                            over_root(op, move |row, eps| {
                                let of = row.iter().enumerate().filter(|(c, _)| taken.contains(&(c % lanes)));
                                (of.map(|(_, x)| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt()
                            })
                        };
                        add("gain", &what, Box::new(mutation));
                    }
                }
            }
            add(
                "addend_missing",
                "subtracts the mean of each row before it normalises, as LayerNorm does",
                Box::new(|op| match op {
                    Op::RmsNorm { x, gain, eps } => {
                        Some(Op::LayerNorm { x: x.clone(), gain: gain.clone(), bias: None, eps: *eps })
                    }
                    _ => None,
                }),
            );
        }
        Op::LayerNorm { bias, .. } => {
            add("overflow", "leaves out the norm's epsilon", Box::new(without_epsilon));
            for (eps, words) in [(1e-5, "1e-5"), (1e-6, "1e-6"), (1e-12, "1e-12")] {
                add(
                    "gain",
                    &format!("takes {words} for the norm's epsilon"),
                    Box::new(move |op| epsilon(op, eps)),
                );
            }
            let k = e.0.cols;
            let mut counts = vec![1, 64, 128, 256, 512, 1024, k.saturating_sub(1), k + 1];
            counts.retain(|&n| n > 0 && n != k);
            for count in counts {
                add(
                    "gain",
                    &format!("divides the sum of squares of the norm by {count}, not by {k}"),
                    Box::new(move |op| {
                        let n = count as f64;
                        of_moments(op, move |m, eps| (m.mean, (m.deviations / n + eps).sqrt()))
                    }),
                );
            }
            type Normalised = fn(&Moments, f64) -> (f64, f64);
            let forms: [(&'static str, &str, Normalised); 4] = [
                (
                    "gain",
                    "takes the mean of the squares for the variance: the mean is not subtracted from them",
                    |m, eps| (m.mean, (m.squares / m.count + eps).sqrt()),
                ),
                ("addend_missing", "does not subtract the mean from what it normalises", |m, eps| {
                    (0.0, (m.deviations / m.count + eps).sqrt())
                }),
                ("addend_missing", "normalises as RMSNorm does, without the mean", |m, eps| {
                    (0.0, (m.squares / m.count + eps).sqrt())
                }),
                ("gain", "adds epsilon to the root, not under it", |m, eps| {
                    (m.mean, (m.deviations / m.count).sqrt() + eps)
                }),
            ];
            for (cause, words, form) in forms {
                add(cause, words, Box::new(move |op| of_moments(op, form)));
            }
            let mut parts = vec![k / 2];
            parts.extend(
                [16, 32, 64, 128, 256, 512, 1024].into_iter().flat_map(|tile| [tile, k / tile * tile]),
            );
            parts.retain(|&n| n > 0 && n < k);
            parts.sort_unstable();
            parts.dedup();
            for part in parts {
                for (words, of_mean, divided) in [
                    ("takes the mean, but not the variance,", true, true),
                    ("sums up the mean, but not the variance,", true, false),
                    ("takes mean and variance", false, true),
                    ("sums up mean and variance", false, false),
                ] {
                    add(
                        "gain",
                        &format!("{words} from the first {part} of {k} columns only"),
                        Box::new(move |op| {
                            of_rows(op, move |row, eps| {
                                let count = if divided { part } else { row.len() } as f64;
                                let mean = row[..part].iter().sum::<f64>() / count;
                                let of = if of_mean { row } else { &row[..part] };
                                let off: f64 = of.iter().map(|x| (x - mean).powi(2)).sum();
                                let count = if of_mean { row.len() as f64 } else { count };
                                (mean, (off / count + eps).sqrt())
                            })
                        }),
                    );
                }
            }
            for lanes in [64, 128, 256, 512, 1024].into_iter().filter(|lanes| k > lanes / 2) {
                add(
                    "gain",
                    &format!(
                        "takes mean and variance from the first {} of every {lanes} columns only",
                        lanes / 2
                    ),
                    Box::new(move |op| of_part(op, move |c| c % lanes < lanes / 2)),
                );
            }
            if bias.is_some() {
                add(
                    "addend_missing",
                    "leaves out the norm's bias",
                    Box::new(|op| match op {
                        Op::LayerNorm { x, gain, eps, .. } => {
                            Some(Op::LayerNorm { x: x.clone(), gain: gain.clone(), bias: None, eps: *eps })
                        }
                        _ => None,
                    }),
                );
            }
        }
        Op::Unary { function, .. } => {
            let own = *function;
            add(
                "activation",
                &format!("leaves out {own:?}"),
                Box::new(move |op| match op {
                    Op::Unary { function, x } if *function == own => {
                        Some(Op::Scale { x: x.clone(), factor: 1.0 })
                    }
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
                add(
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
                    add(
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
                add(
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
            add(
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
        Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
            add(
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
                add(
                    "overflow",
                    &format!("cuts what it multiplies at {limit}"),
                    Box::new(move |op| match op {
                        Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
                            let cut = |x: &Expr, least: f64| {
                                Expr::of_op(elementwise(x, move |x| x.clamp(least, limit)), x.shape())
                            };
                            let a = match &a.0.op {
                                Op::Unary { function, x } => {
                                    Expr::unary_of(*function, &cut(x, f64::NEG_INFINITY))
                                }
                                _ => cut(a, -limit),
                            };
                            Some(Op::Binary { function: Binary::Mul, a, b: cut(b, -limit) })
                        }
                        _ => None,
                    }),
                );
                add(
                    "overflow",
                    &format!("cuts what it multiplies at -{limit} and {limit}"),
                    Box::new(move |op| match op {
                        Op::Binary { function: Binary::Mul, a, b } if a.shape() == b.shape() => {
                            let cut = |x: &Expr| {
                                Expr::of_op(elementwise(x, move |x| x.clamp(-limit, limit)), x.shape())
                            };
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
                add(
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
                add(
                    "activation",
                    &product,
                    Box::new(move |op| match op {
                        Op::Binary { function: Binary::Mul, a, b } => match &a.0.op {
                            Op::Unary { x, .. } => {
                                let product =
                                    Op::Binary { function: Binary::Mul, a: x.clone(), b: b.clone() };
                                Some(Op::Unary { function: own, x: Expr::of_op(product, b.shape()) })
                            }
                            _ => None,
                        },
                        _ => None,
                    }),
                );
            }
            add("activation", "leaves out the second factor", Box::new(|op| first_only(op, Binary::Mul)));
            add("activation", "leaves out the first factor", Box::new(|op| second_only(op, Binary::Mul)));
        }
        Op::Binary { function: Binary::Mul, a, b } if b.shape().0 == 1 => {
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
                        let b = Expr::of_op(elementwise(b, move |x| x.powi(power)), b.shape());
                        Some(Op::Binary { function: Binary::Mul, a: a.clone(), b })
                    }
                    _ => None,
                });
                add("gain", words, mutation);
            }
            add(
                "gain",
                "leaves out the factor of each column",
                one_row(|a, _| Some(Op::Scale { x: a, factor: 1.0 })),
            );
            add(
                "permuted_tiles",
                "takes the factor of a column by the number of the row",
                one_row(|a, b| Some(by_row(Binary::Mul, &a, &b))),
            );
            if matches!(a.0.op, Op::LayerNorm { bias: Some(_), .. }) {
                add(
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
        Op::Binary { function: Binary::Add, a, b } => {
            if b.shape().0 == 1 {
                add(
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
            add(
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
                add(
                    "addend_missing",
                    "leaves out the first addend",
                    Box::new(|op| second_only(op, Binary::Add)),
                );
            }
            add(
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
        Op::Scale { factor, .. } if *factor != 1.0 => {
            let own = *factor;
            for (times, words) in [
                (1.0, "leaves out the factor"),
                (own * own, "applies twice the factor"),
                (1.0 / own, "divides by the factor"),
            ] {
                add(
                    "gain",
                    &format!("{words} {own}"),
                    Box::new(move |op| match op {
                        Op::Scale { x, factor } if *factor == own => {
                            Some(Op::Scale { x: x.clone(), factor: times })
                        }
                        _ => None,
                    }),
                );
            }
        }
        Op::Round { to, .. } => {
            let own = *to;
            add(
                "accumulation",
                &format!("does not round to {own} in between"),
                Box::new(move |op| match op {
                    Op::Round { x, to } if *to == own => Some(Op::Scale { x: x.clone(), factor: 1.0 }),
                    _ => None,
                }),
            );
        }
        Op::Columns { x, range } => ranges.push((x.shape().1, range.clone())),
        Op::Select { choices, .. } if choices.len() > 1 => {
            add(
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
                add(
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
        Op::RepeatRows { x, times } if x.shape().0 > 1 && *times > 1 => {
            add(
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
        Op::User { name, .. } if name == "rope" => add(
            "rope",
            "does not rotate",
            Box::new(|op| match op {
                Op::User { name, inputs, .. } if name == "rope" => {
                    Some(Op::Scale { x: inputs[0].clone(), factor: 1.0 })
                }
                _ => None,
            }),
        ),
        Op::User { name, inputs, .. } if name == "paged_attention" => {
            let change = |f: OfInputs| -> Mutation {
                Box::new(move |op| match op {
                    Op::User { name, .. } if name == "paged_attention" => of_inputs(op, &*f),
                    _ => None,
                })
            };
            add(
                "permuted_tiles",
                "takes the cache of keys for that of values",
                change(Box::new(|inputs| inputs[2] = inputs[1].clone())),
            );
            add(
                "permuted_tiles",
                "exchanges the caches of keys and values",
                change(Box::new(|inputs| inputs.swap(1, 2))),
            );
            // Key heads of sizes that there are.
            let width = inputs[1].shape().1;
            for d in [32, 64, 80, 96, 128, 192, 256].into_iter().filter(|d| 2 * d <= width && width % d == 0)
            {
                for (words, next) in [("the first key head", 0), ("the next key head", 1)] {
                    add(
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
            // A softmax scale that is another, left out or applied once more.
            for power in (-12..=12).filter(|p| *p != 0) {
                let factor = 2f64.powi(power);
                add(
                    "gain",
                    &format!("multiplies the scores with {factor} times their factor"),
                    change(Box::new(move |inputs| {
                        let shape = inputs[0].shape();
                        inputs[0] = Expr::of_op(Op::Scale { x: inputs[0].clone(), factor }, shape);
                    })),
                );
            }
        }
        _ => {}
    });
    ranges.sort_by_key(|(n, r)| (*n, r.start, r.end));
    ranges.dedup();
    columns(&ranges, &mut add);
    found
}

/// Parts of a fused matrix taken for one another, or as if they alternated.
fn columns(ranges: &[(usize, Range<usize>)], add: &mut impl FnMut(&'static str, &str, Mutation)) {
    for (i, (n, first)) in ranges.iter().enumerate() {
        // Queries, keys and values lie beside one another.
        let before = first.start.checked_sub(first.len());
        for start in [before, Some(first.end)].into_iter().flatten().filter(|s| s + first.len() <= *n) {
            let (n, range, other) = (*n, first.clone(), start..start + first.len());
            add(
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
                add(
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
            add(
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
            add(
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
                    add(
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

/// The columns that `from` names.
fn picked(x: &Expr, width: usize, from: impl Fn(usize) -> usize + Send + Sync + 'static) -> Op {
    let cols = x.shape().1;
    placed(x, width, move |r, c| r * cols + from(c))
}

/// As many rows of `width` elements, each from the place in `x` that `from` names.
fn placed(x: &Expr, width: usize, from: impl Fn(usize, usize) -> usize + Send + Sync + 'static) -> Op {
    let rows = x.shape().0;
    let expr = user("columns", &[x], (rows, width), move |inputs| {
        let x = inputs[0];
        let places = (0..x.rows).flat_map(|r| (0..width).map(move |c| (r, c)));
        let data = places.map(|(r, c)| x.data.get(from(r, c)).copied().unwrap_or(f64::NAN));
        Matrix::new(x.rows, width, data.collect())
    });
    expr.0.op.clone()
}

fn without_epsilon(op: &Op) -> Option<Op> {
    epsilon(op, 0.0)
}

fn epsilon(op: &Op, eps: f64) -> Option<Op> {
    match op {
        Op::RmsNorm { x, gain, eps: own } if *own != eps => {
            Some(Op::RmsNorm { x: x.clone(), gain: gain.clone(), eps })
        }
        Op::LayerNorm { x, gain, bias, eps: own } if *own != eps => {
            Some(Op::LayerNorm { x: x.clone(), gain: gain.clone(), bias: bias.clone(), eps })
        }
        _ => None,
    }
}

/// `x / sqrt(sum / count + eps)`, the sum being that of all squares.
fn over(op: &Op, count: usize) -> Option<Op> {
    let Op::RmsNorm { x, gain, eps } = op else { return None };
    let ratio = count as f64 / x.shape().1 as f64;
    let norm = Op::RmsNorm { x: x.clone(), gain: gain.clone(), eps: eps * ratio };
    Some(Op::Scale { x: Expr::of_op(norm, x.shape()), factor: ratio.sqrt() })
}

/// The sum of squares rounded after every addition, from the first to the last.
fn squares_in(op: &Op, to: DType) -> Option<Op> {
    over_root(op, move |row, eps| {
        let add = |sum: f64, x: &f64| {
            let x = *x as f32;
            to.decode(to.encode(f64::from(sum as f32 + x * x), Overflow::Special))
        };
        (row.iter().fold(0.0, add) / row.len() as f64 + eps).sqrt()
    })
}

/// `x / sqrt(sum of the first squares / k + eps)`.
fn squares_of(op: &Op, part: usize) -> Option<Op> {
    over_root(op, move |row, eps| {
        (row[..part].iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt()
    })
}

/// `x / (sqrt(mean) + eps)`.
fn outside(op: &Op) -> Option<Op> {
    over_root(op, |row, eps| (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64).sqrt() + eps)
}

/// A norm whose rows are divided by a `root` of their own: a function of the row and the epsilon.
fn over_root(op: &Op, root: impl Fn(&[f64], f64) -> f64 + Send + Sync + 'static) -> Option<Op> {
    let Op::RmsNorm { x, gain, eps } = op else { return None };
    let eps = *eps;
    let norm = user("norm", &[x], x.shape(), move |inputs| {
        let mut out = inputs[0].clone();
        for r in 0..out.rows {
            let row = out.row_mut(r);
            let root = root(row, eps);
            row.iter_mut().for_each(|x| *x /= root);
        }
        out
    });
    Some(match gain {
        Some(gain) => Op::Binary { function: Binary::Mul, a: norm, b: gain.clone() },
        None => Op::Scale { x: norm, factor: 1.0 },
    })
}

/// Sums over a row that LayerNorm is computed from.
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
    /// The sum of the squares of what each value is off the mean.
    deviations: f64,
}

/// A LayerNorm that subtracts and divides by something else, a function of the row's moments and the epsilon.
fn of_moments(op: &Op, form: impl Fn(&Moments, f64) -> (f64, f64) + Send + Sync + 'static) -> Option<Op> {
    of_part_and(op, |_| true, form)
}

/// A LayerNorm whose moments are those of some columns, divided by the number of all.
fn of_part(op: &Op, taken: impl Fn(usize) -> bool + Send + Sync + 'static) -> Option<Op> {
    of_part_and(op, taken, |m, eps| (m.mean, (m.deviations / m.count + eps).sqrt()))
}

fn of_part_and(
    op: &Op,
    taken: impl Fn(usize) -> bool + Send + Sync + 'static,
    form: impl Fn(&Moments, f64) -> (f64, f64) + Send + Sync + 'static,
) -> Option<Op> {
    of_rows(op, move |row, eps| {
        let count = row.len() as f64;
        let of = || row.iter().enumerate().filter(|(c, _)| taken(*c)).map(|(_, x)| *x);
        let mean = of().sum::<f64>() / count;
        let squares = of().map(|x| x * x).sum();
        let deviations = of().map(|x| (x - mean).powi(2)).sum();
        form(&Moments { count, mean, squares, deviations }, eps)
    })
}

/// A LayerNorm that subtracts and divides by what `form` makes of a row and the epsilon.
fn of_rows(op: &Op, form: impl Fn(&[f64], f64) -> (f64, f64) + Send + Sync + 'static) -> Option<Op> {
    let Op::LayerNorm { x, gain, bias, eps } = op else { return None };
    let eps = *eps;
    let norm = user("norm", &[x], x.shape(), move |inputs| {
        let mut out = inputs[0].clone();
        for r in 0..out.rows {
            let row = out.row_mut(r);
            let (shift, root) = form(row, eps);
            row.iter_mut().for_each(|x| *x = (*x - shift) / root);
        }
        out
    });
    let shape = x.shape();
    let with = |x: Expr, function: Binary, b: &Option<Expr>| match b {
        Some(b) => Expr::of_op(Op::Binary { function, a: x, b: b.clone() }, shape),
        None => x,
    };
    Some(with(with(norm, Binary::Mul, gain), Binary::Add, bias).0.op.clone())
}

/// An activation of its own.
fn elementwise(x: &Expr, f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Op {
    user("activation", &[x], x.shape(), move |inputs| inputs[0].map(&f)).0.op.clone()
}

fn one_more(op: &Op) -> Option<Op> {
    match op {
        Op::RmsNorm { x, gain: Some(gain), eps } => {
            let more = user("1 + weight", &[gain], gain.shape(), |inputs| inputs[0].map(|x| 1.0 + x));
            Some(Op::RmsNorm { x: x.clone(), gain: Some(more), eps: *eps })
        }
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

fn first_only(op: &Op, of: Binary) -> Option<Op> {
    match op {
        Op::Binary { function, a, .. } if *function == of => Some(Op::Scale { x: a.clone(), factor: 1.0 }),
        _ => None,
    }
}

fn second_only(op: &Op, of: Binary) -> Option<Op> {
    match op {
        Op::Binary { function, a, b } if *function == of && a.shape() == b.shape() => {
            Some(Op::Scale { x: b.clone(), factor: 1.0 })
        }
        _ => None,
    }
}
