//! What has changed since the baseline.

use crate::baseline::compare::{Change, Comparison};
use crate::baseline::file::number;
use crate::report::style::{self, paint};
use crate::run::folder::test_path;
use std::fmt::Write as _;

/// So many cases of each kind are named, of what does not fail the gate.
const NAMED: usize = 10;

/// Everything that is not as it was; nothing where all is.
pub fn write(text: &mut String, found: &Comparison, all: bool) {
    if found.is_quiet() {
        return;
    }
    let _ = writeln!(text, "{}", paint(style::BOLD, format!("since the baseline {}", found.file)));
    for told in found.told_of_nothing() {
        let _ = writeln!(text, "{}: {told}", paint(style::BAD, "NOTHING COMPARED"));
    }
    for vanished in &found.vanished {
        let _ = writeln!(text, "{} {}\n  {}", paint(style::BAD, "VANISHED"), vanished.id, vanished.reason);
    }
    // Of a test whose bound changed once in the source, each case has the same change.
    let mut changes: Vec<(&Change, usize)> = Vec::new();
    for change in &found.changes {
        let same = |other: &Change| {
            test_path(&other.id) == test_path(&change.id)
                && (&other.what, &other.before, &other.now, &other.reason)
                    == (&change.what, &change.before, &change.now, &change.reason)
        };
        match changes.iter_mut().find(|(other, _)| !all && same(other)) {
            Some((_, more)) => *more += 1,
            None => changes.push((change, 0)),
        }
    }
    for (change, more) in changes {
        let (label, reason) = match &change.reason {
            Some(reason) => (paint(style::WARN, "changed"), format!("because: {reason}")),
            None => (paint(style::BAD, "CHANGED"), "without a reason; give it with --reason TEXT".to_owned()),
        };
        let more = match more {
            0 => String::new(),
            n => format!(" and {n} more cases of {}, named with -v", test_path(&change.id)),
        };
        let _ = writeln!(
            text,
            "{label} {}{more}\n  {}: {} -> {}, {reason}",
            change.id, change.what, change.before, change.now
        );
    }
    for regression in &found.regressions {
        let (before, now) = (number(regression.before), number(regression.now));
        let times = match regression.before {
            0.0 => String::new(),
            before => format!(", {:.1} times as much", regression.now / before),
        };
        let (label, id) = (paint(style::WARN, "REGRESSED"), &regression.id);
        let _ = writeln!(text, "{label} {id}\n  error of {}: {before} -> {now}{times}", regression.error);
    }
    for place in &found.without {
        let _ =
            writeln!(text, "{}: it has no case of {place}", paint(style::WARN, "nothing to compare with"));
    }
    for (label, ids) in [("new", &found.new), ("removed", &found.removed)] {
        let shown = if all { ids.len() } else { NAMED };
        for id in ids.iter().take(shown) {
            let _ = writeln!(text, "{} {id}", paint(style::NOTE, label));
        }
        if ids.len() > shown {
            let _ = writeln!(text, "{} {} more, named with -v", paint(style::NOTE, label), ids.len() - shown);
        }
    }
    text.push('\n');
}

/// The numbers of it, for the summary.
pub fn line(found: &Comparison) -> String {
    let unexplained = found.unexplained().count();
    let parts: Vec<String> = [
        (found.nothing_compared.len(), "architectures or devices with nothing to compare with", style::BAD),
        (found.vanished.len(), "vanished", style::BAD),
        (unexplained, "changed without a reason", style::BAD),
        (found.changes.len() - unexplained, "changed for a reason", style::WARN),
        (found.regressions.len(), "regressed", style::WARN),
        (found.new.len(), "new", style::NOTE),
        (found.removed.len(), "removed", style::NOTE),
        (found.not_compared, "not in this report", style::DIM),
    ]
    .into_iter()
    .filter(|(n, ..)| *n > 0)
    .map(|(n, what, style)| paint(style, format!("{n} {what}")))
    .collect();
    let rest = if parts.is_empty() { "nothing changed".into() } else { parts.join(", ") };
    format!("baseline {}: {} compared, {rest}", found.file, found.compared)
}
