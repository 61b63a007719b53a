//! Causes that a failed check proves by itself: what was not written, what was written where it must not be, and what
//! differs from run to run.

use super::map::{Map, Place};
use super::runs::differing;
use crate::case::{Attempt, Captured};
use crate::record::{Cause, CheckName, CheckResult};

/// Why two runs on the same inputs differ, as far as further runs have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsteady {
    Unknown,
    /// They differ where memory held other bytes before the launch, and only there.
    Poison,
    /// They differ where the emulator took the waves of a workgroup in another order, and only there.
    WaveOrder,
}

/// The causes that `checks` prove, with the places at which two runs on the same inputs and different poison say so.
/// `explained` are hops whose difference between the two follows from a cause that is known; `unsteady` says why the two
/// runs differ.
pub fn evident(
    checks: &[CheckResult],
    runs: Option<(&Attempt, &Attempt)>,
    explained: &[String],
    unsteady: Unsteady,
) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    // What a hop was given differs where an earlier one was left unwritten, or differs itself.
    let unsteady_since = checks
        .iter()
        .filter(|c| !c.ok && matches!(c.check, CheckName::Unwritten | CheckName::Repeat))
        .filter_map(|c| runs.and_then(|(first, _)| first.buffers.iter().position(|b| b.name == c.hop)))
        .min();
    let is_first = |hop: &str| {
        let at = runs.and_then(|(first, _)| first.buffers.iter().position(|b| b.name == hop));
        at.is_none() || at == unsteady_since
    };
    let unwritten = checks.iter().any(|c| !c.ok && c.check == CheckName::Unwritten);
    for check in checks.iter().filter(|c| !c.ok) {
        let known = explained.contains(&check.hop);
        let cause = match &check.check {
            CheckName::Unwritten | CheckName::Repeat if known => continue,
            CheckName::Unwritten => "unwritten",
            CheckName::Guards | CheckName::Gaps | CheckName::InputsUnchanged => "out_of_bounds",
            // What nobody wrote holds the poison, which is another in each run.
            CheckName::Repeat if !unwritten && is_first(&check.hop) && unsteady == Unsteady::Poison => {
                "unwritten"
            }
            CheckName::Repeat if !unwritten && is_first(&check.hop) => "nondeterministic",
            _ => continue,
        };
        if causes.iter().any(|c| c.cause == cause) {
            continue;
        }
        let hop = if check.hop.is_empty() { "chain".into() } else { format!("`{}`", check.hop) };
        // Which memory that is, and whether somebody should have written it or nobody read it, is another question.
        if check.check == CheckName::Repeat && unsteady == Unsteady::Poison {
            let detail = format!(
                "{hop}: other results where memory held other bytes before the launch, the same where it held the same: a kernel reads what nobody has written"
            );
            causes.push(Cause { cause: cause.into(), detail, ..Cause::default() });
            continue;
        }
        if check.check == CheckName::Repeat && unsteady == Unsteady::WaveOrder {
            let detail = format!(
                "{hop}: other results where the waves of a workgroup run in the opposite order: a wave reads or overwrites what another one has in use, with no barrier in between"
            );
            causes.push(Cause { cause: cause.into(), detail, confident: true, ..Cause::default() });
            continue;
        }
        let place = runs.and_then(|(first, second)| {
            let (i, buffer) = first.buffers.iter().enumerate().find(|(_, b)| b.name == check.hop)?;
            place(cause, first, second, i, buffer)
        });
        let detail = match place {
            Some(place) => format!("{hop}: {}: {place}", check.detail),
            None => format!("{hop}: {}", check.detail),
        };
        causes.push(Cause { cause: cause.into(), detail, confident: true, ..Cause::default() });
    }
    causes
}

/// Which elements it is about.
fn place(cause: &str, first: &Attempt, second: &Attempt, at: usize, buffer: &Captured) -> Option<Place> {
    let other = second.buffers.get(at)?;
    let steady = match cause {
        "nondeterministic" | "unwritten" => differing(buffer, other),
        _ => return None,
    };
    let size = (buffer.dtype.bits() as usize / 8).max(1);
    let (here, there) = (first.setup.poison.held(buffer.dtype), second.setup.poison.held(other.dtype));
    let element = |c: &Captured, i: usize, held: &dyn Fn(&[u8]) -> bool| {
        c.data.get(i * size..(i + 1) * size).is_some_and(held)
    };
    let poisoned = |i: usize| {
        // Packed codes share a byte.
        buffer.dtype.bits() < 8 || element(buffer, i, &here) && element(other, i, &there)
    };
    let map = Map::new(buffer.rows, buffer.cols, |r, c| {
        let i = r * buffer.cols + c;
        steady[i] && (cause == "nondeterministic" || poisoned(i))
    });
    (map.count > 0).then(|| map.place())
}
