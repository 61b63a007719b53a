//! Cases that are wrong in one process and right in another, because a kernel keeps something of its first call.
//!
//! A process computes other shapes of a test before its case, and in a batch other cases. Whatever fails there runs again in a
//! process that computes nothing else. If it passes then, and the first process was sound, the difference is the finding.

use accuracy_core::record::{self, Cause, CheckName, Gate, Record, Verdict};
use std::path::Path;

/// A case that failed in a process that had computed something before it.
#[derive(Debug)]
pub struct Suspect {
    record: Record,
    /// Whether what went wrong there can be the case's own: the process had got to it, and nothing had broken before.
    sound: bool,
}

impl Suspect {
    /// Of a case whose process computed other shapes before it. Gives the record back where it did not.
    pub fn preceded(record: Record, folder: &Path, attempt: u32) -> Result<Suspect, Box<Record>> {
        let Ok(marker) = std::fs::read(record::before_path(folder, &record.id, attempt)) else {
            return Err(Box::new(record));
        };
        let sound = marker == record::ENDED && record.verdict != Verdict::TimedOut;
        Ok(Suspect { record, sound })
    }

    /// Of a case of a batch whose process ended as it should, and in which nothing broke.
    pub fn in_batch(record: Record) -> Suspect {
        Suspect { record, sound: true }
    }

    /// The record of a case that does not run alone any more.
    pub fn unsettled(self) -> Record {
        self.record
    }

    /// The record that counts, once the case has run alone.
    pub fn settle(self, alone: Record) -> Record {
        if alone.gate == Gate::Fail || !self.sound {
            return alone;
        }
        let Suspect { mut record, .. } = self;
        let before = match &record.preceded_by[..] {
            [] => "other cases".to_owned(),
            named => named.join(", then "),
        };
        let detail = format!(
            "fails in a process that computed {before} before it, and passes alone: a kernel keeps something of its first \
             call, such as a grid, a workspace or a table in a `static`"
        );
        record.reason = match record.reason.is_empty() {
            true => detail.clone(),
            false => format!("{detail}\n{}", record.reason),
        };
        record.failed_checks.insert(0, CheckName::Order.into());
        record.causes.insert(
            0,
            Cause { cause: "kept_from_first_call".into(), detail, confident: true, ..Cause::default() },
        );
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture;

    fn failing(verdict: Verdict) -> Record {
        let mut record = fixture::record("k::t[check=full_chain,arch=host,tokens=33]", 0.5);
        record.gate = Gate::Fail;
        record.verdict = verdict;
        record.failed_checks = vec!["cos".into()];
        record.reason = "cos of y".into();
        record.preceded_by = vec!["tokens=1".into()];
        record
    }

    fn passing() -> Record {
        fixture::record("k::t[check=full_chain,arch=host,tokens=33]", 1.0)
    }

    #[test]
    fn what_passes_alone_and_failed_after_another_shape_is_a_finding() {
        let record = Suspect::in_batch(failing(Verdict::Catastrophic)).settle(passing());
        assert_eq!(record.gate, Gate::Fail);
        assert_eq!(record.failed_checks, ["order", "cos"]);
        assert_eq!(record.causes[0].cause, "kept_from_first_call");
        let reason: Vec<&str> = record.reason.lines().collect();
        assert!(reason[0].contains("computed tokens=1 before it, and passes alone"), "{reason:?}");
        assert_eq!(reason[1], "cos of y");
    }

    #[test]
    fn what_fails_alone_too_is_told_by_that_run() {
        let mut alone = failing(Verdict::Broken);
        alone.reason = "alone".into();
        assert_eq!(Suspect::in_batch(failing(Verdict::Catastrophic)).settle(alone).reason, "alone");
    }

    #[test]
    fn what_another_case_has_broken_is_no_finding() {
        let folder = tempfile::tempdir().unwrap();
        let record = || failing(Verdict::Crashed);
        assert!(Suspect::preceded(record(), folder.path(), 0).is_err(), "nothing ran before it");
        let marker = record::before_path(folder.path(), &record().id, 0);
        std::fs::write(&marker, b"").unwrap();
        let suspect = Suspect::preceded(record(), folder.path(), 0).unwrap();
        assert_eq!(suspect.settle(passing()).gate, Gate::Pass, "it never got to the case");
        std::fs::write(&marker, record::ENDED).unwrap();
        let suspect = Suspect::preceded(record(), folder.path(), 0).unwrap();
        assert_eq!(suspect.settle(passing()).gate, Gate::Fail);
        let late = Suspect::preceded(failing(Verdict::TimedOut), folder.path(), 0).unwrap();
        assert_eq!(late.settle(passing()).gate, Gate::Pass, "what came before took some of its time");
    }
}
