//! Every hypothesis about how one expression is computed, under the names of the operations that it has.

use super::hypothesis::{Hypothesis, Misreading, Sense, Slot};
use super::sampled::World;
use super::{codes, columns_by_index, functions, graph, grouped, row_vectors, scales, sums};
use crate::case::{Attempt, Kind};
use crate::reference::graph::{Arrangement, Op};
use crate::reference::model::{GROUP_EXPERTS, GROUP_WEIGHTS};
use crate::reference::{BufferId, Expr, Matrix};

/// Which hypotheses are tried.
#[derive(Clone, Copy, PartialEq)]
pub enum Scope {
    All,
    /// How sums are rounded and where they end: what data of one sign shows that ordinary data does not.
    Sums,
}

/// Every hypothesis about how an expression is computed.
pub fn table<'a>(attempt: &'a Attempt, source: &Expr, world: &World<'a>) -> Vec<Hypothesis<'a>> {
    let mut found = Vec::new();
    for id in source.buffers() {
        let operand = attempt.buffer(id);
        found.extend(scales::hypotheses(id, operand));
        found.extend(codes::hypotheses(id, operand, attempt.setup.poison.byte(), &|| world.whole(id)));
    }
    found.extend(graph::hypotheses(source, attempt));
    found.extend(sums::hypotheses(source));
    found.extend(scales::exchanged(source, attempt));
    found.extend(codes::exchanged(source, attempt));
    found.extend(codes::steering(source, world));
    found.extend(codes::experts(source, attempt));
    for (id, height) in codes::parts_of_rows(source) {
        found.extend(scales::order_within_parts(id, attempt.buffer(id), height));
    }
    found.extend(grouped::hypotheses(source, world));
    found.extend(functions::hypotheses(source, world));
    of_both(&mut found, attempt);
    name_by_operation(source, world, &mut found);
    // A column that takes the element of another one does so whatever the operand is.
    found.extend(row_vectors::hypotheses(source, world));
    found.extend(columns_by_index::hypotheses(source, world));
    leave_nameless(source, world.attempt, &mut found);
    found
}

/// Marks other indices of a function that the test defines as nameless. The diagnosis does not know what such a function does
/// with an index. It may be certain that the kernel used another index, but not which mistake that is.
fn leave_nameless(source: &Expr, attempt: &Attempt, found: &mut [Hypothesis<'_>]) {
    let mut taken = Vec::new();
    source.visit(&mut |e| {
        if let Op::User { inputs, suspects, faults, .. } = &e.0.op
            && suspects.is_empty()
            && faults.is_empty()
        {
            taken.extend(inputs.iter().flat_map(Expr::buffers));
        }
    });
    let is_index = |id: BufferId| {
        let operand = attempt.buffer(id);
        operand.dtype.is_integer() && operand.scheme.is_none()
    };
    for h in found.iter_mut().filter(|h| h.cause == "permuted_tiles") {
        if h.operand.is_some_and(|id| taken.contains(&id) && is_index(id)) {
            h.sense = Sense::Nameless;
        }
    }
}

/// Two operands of the same format that are misread alike.
fn of_both<'a>(found: &mut Vec<Hypothesis<'a>>, attempt: &Attempt) {
    let misreading = |h: &Hypothesis<'_>| match h.sense {
        // Other places of columns are one operand's own; two weights of a layer may well lie in memory alike.
        Sense::Misreads(misreading) if h.also.is_none() => {
            let packed = h.cause == "nibble_order" || matches!(misreading, Misreading::Order(..));
            let whole = matches!(h.slot, Slot::Format(_) | Slot::Scales(_) | Slot::Rounded(_));
            (packed || whole).then_some(misreading)
        }
        _ => None,
    };
    let mut both = Vec::new();
    for (i, first) in found.iter().enumerate() {
        let Some(own) = misreading(first) else { continue };
        let alike = |h: &&Hypothesis<'_>| {
            h.operand != first.operand && h.cause == first.cause && misreading(h) == Some(own)
        };
        let twin = found[i + 1..].iter().find(alike);
        if let Some(second) = twin {
            let other = second.operand.map_or("", |id| &attempt.buffer(id).name);
            both.push(Hypothesis {
                what: first.what.and(format_args!(", and of `{other}` as well")),
                also: Some((second.slot, second.change.clone())),
                ..first.clone()
            });
        }
    }
    found.extend(both);
}

/// Operands of a rotary embedding or of the routing of experts give their faults its name.
fn name_by_operation(source: &Expr, world: &World<'_>, found: &mut [Hypothesis<'_>]) {
    let mut rename_if =
        |ids: Vec<BufferId>, cause: &'static str, applies: &dyn Fn(&Hypothesis<'_>) -> bool| {
            for h in found.iter_mut().filter(|h| h.operand.is_some_and(|id| ids.contains(&id))) {
                if applies(h) {
                    h.cause = cause;
                }
            }
        };
    let steers = |h: &Hypothesis<'_>| !matches!(h.cause, "rounding" | "accumulation");
    let moves = |h: &Hypothesis<'_>| matches!(h.cause, "permuted_tiles" | "transposed");
    // One factor for each row, where the rows are of experts: a routing weight.
    let mut selects = false;
    let mut multiplied: Vec<BufferId> = Vec::new();
    source.visit(&mut |e| match &e.0.op {
        Op::Select { .. } => selects = true,
        Op::MatMul { a, b, .. } => multiplied.extend(a.buffers().into_iter().chain(b.buffers())),
        _ => {}
    });
    if selects {
        let weighs = |id: &BufferId| {
            let operand = world.attempt.buffer(*id);
            let plain = operand.scheme.is_none() && !operand.dtype.is_integer();
            plain && operand.rows * operand.cols == source.shape().0 && !multiplied.contains(id)
        };
        rename_if(source.buffers().into_iter().filter(weighs).collect(), "router", &steers);
    }
    source.visit(&mut |e| match &e.0.op {
        Op::RmsNorm { gain: Some(gain), .. } | Op::LayerNorm { gain: Some(gain), .. } => {
            rename_if(gain.buffers(), "norm_weight", &moves);
        }
        // Halves of a fused matrix.
        Op::Columns { x, range } if 2 * range.len() == x.shape().1 => {
            let halves = |h: &Hypothesis<'_>| h.sense == Sense::HalvesOfColumns;
            rename_if(x.buffers(), "gate_up_swapped", &halves);
        }
        // The index says which expert's rows. Rows of a weight by the test's own numbers are no expert's, as of an embedding.
        Op::Gather { x, index } => {
            let kind = |id: &BufferId| world.attempt.buffer(*id).kind;
            let of_weight = x.buffers().iter().any(|id| kind(id) == Kind::Weight);
            let by_router = |id: &BufferId| !of_weight || kind(id) != Kind::Index;
            rename_if(index.buffers().into_iter().filter(by_router).collect(), "router", &steers);
        }
        Op::Select { by, .. } => rename_if(by.buffers(), "router", &steers),
        Op::User { name, inputs, .. } => match (operation(name), name.as_str()) {
            // Of what is rotated only the table and the positions steer.
            (Some("rope"), _) => {
                rename_if(inputs.iter().skip(1).flat_map(|i| i.buffers()).collect(), "rope", &steers)
            }
            // Of a weighted sum the weights do; what is summed has faults of its own.
            (Some(cause), "weighted_sum") => {
                rename_if(inputs.iter().skip(1).flat_map(|i| i.buffers()).collect(), cause, &steers)
            }
            (Some(cause), _) => rename_if(inputs.iter().flat_map(|i| i.buffers()).collect(), cause, &steers),
            (None, "paged_attention") => {
                rename_if(
                    inputs.iter().skip(3).take(1).flat_map(|i| i.buffers()).collect(),
                    "permuted_tiles",
                    &steers,
                );
                rename_if(
                    inputs.iter().skip(4).take(1).flat_map(|i| i.buffers()).collect(),
                    "k_tail_dropped",
                    &steers,
                );
            }
            // A function of the test that is given a table of cosines and sines rotates.
            (None, _) => {
                let buffers = || {
                    inputs.iter().flat_map(|i| match i.0.op {
                        Op::Buffer(id) => Some(id),
                        _ => None,
                    })
                };
                let operands: Vec<BufferId> = buffers().collect();
                let is_length =
                    |id: &BufferId| functions::is_length(world.attempt.buffer(*id), &operands, world);
                rename_if(operands.iter().copied().filter(is_length).collect(), "k_tail_dropped", &steers);
                let table = buffers().find(|id| is_rotary(&world.whole(*id)));
                if let Some(table) = table {
                    let places = world.whole(table).rows as f64;
                    let rows = inputs.first().map_or(0, |x| x.shape().0);
                    let steering = buffers().filter(|&id| {
                        let of = world.attempt.buffer(id);
                        let positions = of.dtype.is_integer() && of.rows * of.cols == rows;
                        id == table || positions && world.whole(id).data.iter().all(|p| *p < places)
                    });
                    rename_if(steering.collect(), "rope", &steers);
                }
            }
        },
        _ => {}
    });
}

/// Whether each row of a table is the cosines and sines of some angles, in halves or in pairs.
pub fn is_rotary(table: &Matrix) -> bool {
    let half = table.cols / 2;
    if table.rows < 2 || table.cols < 2 || !table.cols.is_multiple_of(2) {
        return false;
    }
    let on_circle = |a: f64, b: f64| (a * a + b * b - 1.0).abs() < 2f64.powi(-6);
    let rows = || (0..table.rows).map(|r| table.row(r));
    let moves = table.data.iter().any(|x| (0.1..0.9).contains(&x.abs()));
    let halves = || rows().all(|row| (0..half).all(|i| on_circle(row[i], row[half + i])));
    let pairs = || rows().all(|row| row.chunks(2).all(|of| on_circle(of[0], of[1])));
    moves && (halves() || pairs())
}

/// The cause that all faults of an operation of [`crate::reference::model`] go by.
fn operation(name: &str) -> Option<&'static str> {
    match name {
        "rope" => Some("rope"),
        "topk_experts" | "topk_weights" | GROUP_EXPERTS | GROUP_WEIGHTS | "rows_by_expert"
        | "expert_offsets" | "weighted_sum" => Some("router"),
        _ => None,
    }
}

/// Whether the columns of what a hop computes are those of its operands, as where rows are chosen or added. Those of a router are
/// the choices themselves.
pub fn keeps_columns(source: &Expr) -> bool {
    match &computed(source).0.op {
        Op::User { name, .. } => name.as_str() == "weighted_sum",
        Op::Select { .. } => true,
        _ => false,
    }
}

/// The operation that a hop is, below what only moves its result.
pub fn root(source: &Expr) -> Option<&'static str> {
    match &computed(source).0.op {
        Op::User { name, .. } => operation(name),
        Op::Select { .. } => Some("router"),
        _ => None,
    }
}

/// The expression whose result is only rounded or moved by what stands above it.
fn computed(source: &Expr) -> &Expr {
    match &source.0.op {
        Op::Round { x, .. } | Op::Columns { x, .. } | Op::Rows { x, .. } | Op::Transpose { x } => computed(x),
        Op::Arrange { parts, arrangement: Arrangement::Reshaped } => parts.first().map_or(source, computed),
        _ => source,
    }
}
