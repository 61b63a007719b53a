//! What a kernel keeps from its first call: a run that is right on the first data and wrong on later data, by what the first
//! run held.

use crate::case::{Attempt, Captured};
use crate::judge::{Given, JudgedHop, round};
use crate::metrics::compare;
use crate::quant::Quantized;
use crate::record::Cause;
use crate::reference::{Matrix, eval};

/// Share of the error that may be left for what was kept to explain it.
const LEFT: f64 = 0.02;

/// The cause, if the first hop of a later run that is wrong is what the first run's bytes make of it.
pub fn kept_from_first(first: &Attempt, (later, hops): (&Attempt, &[JudgedHop])) -> Option<Cause> {
    let judged = hops.iter().find(|hop| hop.checks.iter().any(|check| !check.ok))?;
    let (before, buffer) = (first.buffer(judged.id), later.buffer(judged.id));
    let kernel = buffer.kernel.map_or("the kernel".to_owned(), |kernel| format!("`{kernel}`"));
    let cause = |detail: String, operand: Option<&Captured>| Cause {
        cause: "stale_state".into(),
        detail,
        score: Some(1.0),
        operand: operand.map(|operand| operand.name.clone()),
        confident: true,
        ..Cause::default()
    };
    let own = match (before.data == buffer.data, before.scales == buffer.scales) {
        (true, true) => Some("what it wrote in its first run"),
        (true, false) => Some("the codes of its first run"),
        (false, true) if !buffer.scales.is_empty() => Some("the scales of its first run"),
        _ => None,
    };
    let name = &buffer.name;
    if let Some(what) = own {
        return Some(cause(format!("{kernel} leaves in `{name}` {what}, though the data is another"), None));
    }
    let source = buffer.source.as_ref().filter(|_| buffer.scheme.is_none())?;
    let out = buffer.value();
    let off = |value: &Matrix| compare(&round(value, buffer.dtype), &out).rel_l2;
    let now = off(&judged.reference).filter(|off| *off > 0.0)?;
    let given = Given::new(later);
    for id in source.buffers() {
        let (then, operand) = (first.buffer(id), later.buffer(id));
        let mut readings: Vec<(&str, Matrix)> = Vec::new();
        if let (Some(then), Some(now)) = (then.quantized(), operand.quantized()) {
            readings.push(("the scales", Quantized { scales: then.scales.clone(), ..now.clone() }.decode()));
            readings.push(("the codes", Quantized { codes: then.codes.clone(), ..now }.decode()));
        }
        readings.push(("the contents", then.value()));
        for (what, value) in readings {
            if value.data == operand.value().data {
                continue;
            }
            let kept = eval(source, &given.with_fault(id, value));
            if off(&kept).is_some_and(|off| off <= LEFT * now) {
                let detail = format!(
                    "{kernel} takes {what} that `{}` had in its first run for `{name}`, though they are others now",
                    operand.name
                );
                return Some(cause(detail, Some(operand)));
            }
        }
    }
    None
}
