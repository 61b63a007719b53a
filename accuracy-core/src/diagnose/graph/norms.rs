//! Norms that a kernel computes otherwise: another epsilon, another count, sums of some columns.

use super::rewriting::Mutations;
use crate::dtype::{BF16, DType, F16, Overflow};
use crate::reference::graph::{Binary, Op};
use crate::reference::{Expr, user};

/// Powers of ten that a kernel may take for an epsilon.
const EPSILONS: std::ops::RangeInclusive<i32> = 1..=12;

/// Adds the ways in which a kernel may get an RMSNorm over `k` columns wrong. `widths` are columns of other buffers of the
/// chain, whose number it may divide by.
pub fn rms_norm(table: &mut Mutations, k: usize, has_gain: bool, widths: &[usize]) {
    table.add("overflow", "leaves out the norm's epsilon", Box::new(without_epsilon));
    for power in EPSILONS {
        let eps = 10f64.powi(-power);
        table.add(
            "gain",
            &format!("takes 1e-{power} for the norm's epsilon"),
            Box::new(move |op| epsilon(op, eps)),
        );
    }
    if has_gain {
        table.add("norm_weight", "multiplies with 1 + the norm's weight", Box::new(one_more));
    }
    table.add(
        "gain",
        "divides by the mean of the squares, not by its root",
        Box::new(|op| {
            over_root(op, |row, eps| row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps)
        }),
    );
    for (words, divided_by_all) in [("sums up", false), ("takes the mean of", true)] {
        table.add(
            "k_tail_dropped",
            &format!("{words} the squares of whole rows, of which only {k} columns are normalised"),
            Box::new(move |op| of_whole_row(op, divided_by_all)),
        );
    }
    let mut counts = vec![1, 64, 128, 256, 512, 1024, k - 1, k + 1, 2 * k];
    counts.extend(widths);
    counts.retain(|&n| n > 0 && n != k);
    counts.sort_unstable();
    counts.dedup();
    for count in counts {
        table.add(
            "gain",
            &format!("divides the sum of squares by {count}, not by {k}"),
            Box::new(move |op| over(op, count)),
        );
    }
    table.add("gain", "adds epsilon to the root, not under it", Box::new(outside));
    for to in [F16, BF16] {
        table.add(
            "accumulation",
            &format!("sums up the squares of a row in {to}"),
            Box::new(move |op| squares_in(op, to)),
        );
    }
    table.add(
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
    table.add(
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
        table.add(
            "k_tail_dropped",
            &format!("sums up the squares of the first {part} of {k} columns only"),
            Box::new(move |op| squares_of(op, part)),
        );
        table.add(
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
        for (taken, words) in [(0..lanes / 2, "first"), (lanes / 2..lanes, "last"), (0..lanes / 4, "first")] {
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
                table.add("gain", &what, Box::new(mutation));
            }
        }
    }
    table.add(
        // That has no name in the list.
        "unknown",
        "subtracts the mean of each row before it normalises, as LayerNorm does",
        Box::new(|op| match op {
            Op::RmsNorm { x, gain, eps } => {
                Some(Op::LayerNorm { x: x.clone(), gain: gain.clone(), bias: None, eps: *eps })
            }
            _ => None,
        }),
    );
}

/// Adds the ways in which a kernel may get a LayerNorm over `k` columns wrong.
pub fn layer_norm(table: &mut Mutations, k: usize, has_bias: bool) {
    table.add("overflow", "leaves out the norm's epsilon", Box::new(without_epsilon));
    for power in EPSILONS {
        let eps = 10f64.powi(-power);
        table.add(
            "gain",
            &format!("takes 1e-{power} for the norm's epsilon"),
            Box::new(move |op| epsilon(op, eps)),
        );
    }
    let mut counts = vec![1, 64, 128, 256, 512, 1024, k.saturating_sub(1), k + 1];
    counts.retain(|&n| n > 0 && n != k);
    for count in counts {
        table.add(
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
        table.add(cause, words, Box::new(move |op| of_moments(op, form)));
    }
    let mut parts = vec![k / 2];
    parts.extend([16, 32, 64, 128, 256, 512, 1024].into_iter().flat_map(|tile| [tile, k / tile * tile]));
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
            table.add(
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
        table.add(
            "gain",
            &format!("takes mean and variance from the first {} of every {lanes} columns only", lanes / 2),
            Box::new(move |op| of_part(op, move |c| c % lanes < lanes / 2)),
        );
    }
    if has_bias {
        table.add(
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

/// Some columns of wider rows, divided by the root of the sum of the squares of the whole row.
fn of_whole_row(op: &Op, divided_by_all: bool) -> Option<Op> {
    let Op::RmsNorm { x, gain, eps } = op else { return None };
    let Op::Columns { x: wide, .. } = &x.0.op else { return None };
    let (eps, count) = (*eps, if divided_by_all { wide.shape().1 } else { x.shape().1 } as f64);
    let norm = user("norm", &[x, wide], x.shape(), move |inputs| {
        let mut out = inputs[0].clone();
        for r in 0..out.rows {
            let squares: f64 = inputs[1].row(r).iter().map(|x| x * x).sum();
            let root = (squares / count + eps).sqrt();
            out.row_mut(r).iter_mut().for_each(|x| *x /= root);
        }
        out
    });
    Some(weighted(norm, gain))
}

/// The normalised rows times the norm's weight, or unchanged where the norm has none.
fn weighted(norm: Expr, gain: &Option<Expr>) -> Op {
    match gain {
        Some(gain) => Op::Binary { function: Binary::Mul, a: norm, b: gain.clone() },
        None => Op::Scale { x: norm, factor: 1.0 },
    }
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
    Some(weighted(norm, gain))
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

fn one_more(op: &Op) -> Option<Op> {
    match op {
        Op::RmsNorm { x, gain: Some(gain), eps } => {
            let more = user("1 + weight", &[gain], gain.shape(), |inputs| inputs[0].map(|x| 1.0 + x));
            Some(Op::RmsNorm { x: x.clone(), gain: Some(more), eps: *eps })
        }
        _ => None,
    }
}
