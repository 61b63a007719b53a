//! The least shape that fails as a drawn case does: smaller cases of its chain run until none is left to try.

use super::batch;
use super::plan::Case;
use super::pool::{Next, Outcome, Place, Pool};
use super::unix::Signals;
use super::{ATTEMPT, Company, Run};
use accuracy_core::env;
use accuracy_core::fuzz::{self, Shape, Space};
use accuracy_core::identity::{self, Identity};
use accuracy_core::plan;
use accuracy_core::record::{CheckName, Gate, Record, Verdict};
use anyhow::Context as _;
use std::time::Instant;

/// Cases that are run for one failure at most.
const PROBES: usize = 100;

/// Everything that the search needs.
pub struct Search<'r, 'a> {
    pub run: &'r Run<'a>,
    pub cases: &'r [Case],
    pub places: &'r mut [Place],
    pub signals: &'r Signals,
    /// When nothing more is started.
    pub until: Option<Instant>,
}

impl Search<'_, '_> {
    /// Writes the identity of the least shape into the records of failing drawn cases. Failures of one chain that are alike
    /// have one, which is looked for from the smallest of them.
    ///
    /// # Errors
    /// If a record cannot be written, or what a probe has left cannot be removed.
    pub fn shrink(&mut self, records: &mut [Option<Record>]) -> anyhow::Result<()> {
        for group in self.groups(records) {
            let first = group[0];
            let (Some(record), Some(space)) = (records[first].clone(), self.space(first)) else { continue };
            let Some(from) = shape(&record) else { continue };
            let (mut probes, mut trouble, mut interrupted) = (0, None, false);
            let mut fail = |shapes: &[Shape]| -> Option<Vec<bool>> {
                probes += shapes.len();
                let late = self.until.is_some_and(|until| Instant::now() >= until);
                if late || probes > PROBES || trouble.is_some() {
                    return None;
                }
                match self.probe(first, shapes) {
                    Ok(found) => {
                        interrupted = found.is_none();
                        let fails = |found: &Option<Record>| {
                            found.as_ref().is_some_and(|found| alike(&record, found))
                        };
                        Some(found?.iter().map(fails).collect())
                    }
                    Err(error) => {
                        trouble = Some(error);
                        None
                    }
                }
            };
            let least = fuzz::shrink(&space, from, &mut fail);
            let least = self.cases[first].planned.redrawn(least).id;
            if let Some(error) = trouble {
                return Err(error);
            }
            for index in group {
                if let Some(record) = records[index].as_mut().filter(|record| record.id != least) {
                    record.least = Some(least.clone());
                    self.run.keep(record)?;
                }
            }
            if interrupted {
                break;
            }
        }
        Ok(())
    }

    /// Failures of drawn cases that are alike, the smallest first. One that was named on the command line is meant as it is.
    fn groups(&self, records: &[Option<Record>]) -> Vec<Vec<usize>> {
        let mut failing: Vec<(usize, &Record)> = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let Some(record) = record.as_ref().filter(|record| self.can_shrink(record)) else { continue };
            failing.push((index, record));
        }
        failing.sort_by_key(|(index, record)| (size(record), *index));
        let mut groups: Vec<Vec<(usize, &Record)>> = Vec::new();
        for (index, record) in failing {
            let chain =
                |i: usize| (self.cases[i].binary, &self.cases[i].libtest, &self.cases[i].planned.arch);
            let known = groups.iter_mut().find(|group| {
                let (first, of_first) = group[0];
                chain(first) == chain(index) && alike(of_first, record)
            });
            match known {
                Some(group) => group.push((index, record)),
                None => groups.push(vec![(index, record)]),
            }
        }
        groups.into_iter().map(|group| group.into_iter().map(|(index, _)| index).collect()).collect()
    }

    fn can_shrink(&self, record: &Record) -> bool {
        let ran = !matches!(record.verdict, Verdict::NotRun | Verdict::TimedOut);
        // What fails only after another shape passes alone, as a probe runs.
        let alone = !record.failed_checks.iter().any(|check| check == CheckName::Order.name());
        let named = self.run.args.filters.contains(&record.id);
        record.gate == Gate::Fail && record.fuzz.is_some() && ran && alone && !named
    }

    fn space(&self, index: usize) -> Option<Space> {
        let Case { planned, binary, .. } = &self.cases[index];
        let path = identity::path(&planned.id);
        let test = self.run.binaries[*binary].tests.iter().find(|test| test.path() == path)?;
        plan::space_of(test, &planned.weights).ok()
    }

    /// The records of a case in other shapes; `None` where the run was interrupted or no place is left. A shape that is a case
    /// of the run has none, because its record is to stay.
    fn probe(&mut self, index: usize, shapes: &[Shape]) -> anyhow::Result<Option<Vec<Option<Record>>>> {
        let original = &self.cases[index];
        let case = |shape: &Shape| Case { planned: original.planned.redrawn(*shape), ..original.clone() };
        let cases: Vec<Case> = shapes.iter().map(case).collect();
        let of_run = |case: &Case| self.cases.iter().any(|own| own.planned.id == case.planned.id);
        let groups: Vec<Vec<usize>> =
            (0..cases.len()).filter(|i| !of_run(&cases[*i])).map(|i| vec![i]).collect();
        let mut found: Vec<Option<Record>> = vec![None; cases.len()];
        let run = self.run;
        let pool = Pool {
            slots: run.settings.jobs,
            places: self.places,
            signals: self.signals,
            mark: env::CASE,
            spared: run.spared,
        };
        let ended = pool.run(
            &run.needs(&groups, &cases),
            |at, place| {
                let mut job = run.job(&[&cases[groups[at][0]]], place, Company::Nothing)?;
                job.command.env_remove(env::KEEP_TENSORS).env_remove(env::TRACE);
                Ok(job)
            },
            |_| {},
            |finished| {
                let index = groups[finished.index][0];
                let record = run.judge(&cases[index].planned, &finished);
                let lost = finished.place.filter(|&place| run.is_lost(place, &finished.end, record.verdict));
                found[index] = Some(record);
                lost.map_or(Next::GoOn, Next::GiveUp)
            },
        );
        for case in groups.iter().map(|group| &cases[group[0]]) {
            batch::forget(&case.planned, run.folder, ATTEMPT)
                .with_context(|| format!("cannot remove what {} has left", case.planned.id))?;
        }
        Ok((ended.outcome == Outcome::Done).then_some(found))
    }
}

/// Tokens and whatever else of a case was drawn.
fn shape(record: &Record) -> Option<Shape> {
    let tokens = Identity::of(&record.id).get("tokens")?.parse().ok()?;
    Some((tokens, record.fuzz?))
}

/// What orders shapes by their cost: tokens times what is taken of the weight. A whole weight is larger than any slice.
fn size(record: &Record) -> (usize, usize, usize) {
    let (tokens, drawn) = shape(record).map_or((0, None), |(tokens, drawn)| (tokens, Some(drawn)));
    let whole = |size: Option<usize>| size.unwrap_or(usize::MAX);
    (tokens, whole(drawn.and_then(|drawn| drawn.n)), whole(drawn.and_then(|drawn| drawn.k)))
}

/// Whether two cases fail in the same way: both crash, or they have a first cause or a failed check in common.
fn alike(a: &Record, b: &Record) -> bool {
    let fails = |record: &Record| record.gate == Gate::Fail;
    let ends = |record: &Record| match record.verdict {
        Verdict::Crashed => Some(true),
        Verdict::NotRun | Verdict::TimedOut | Verdict::Skipped => None,
        _ => Some(false),
    };
    let (Some(crashed), Some(other)) = (ends(a), ends(b)) else { return false };
    if !fails(a) || !fails(b) || crashed != other {
        return false;
    }
    let cause = |record: &Record| record.causes.first().map(|cause| cause.cause.clone());
    let same_cause = cause(a).is_some() && cause(a) == cause(b);
    crashed || same_cause || a.failed_checks.iter().any(|check| b.failed_checks.contains(check))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture;

    #[test]
    fn failures_are_alike_that_have_a_cause_or_a_check_in_common() {
        let failing = || fixture::failing("k::t[check=full_chain,arch=host,tokens=33,fuzz=1:tails]");
        let mut other_check = failing();
        other_check.failed_checks = vec!["unwritten".into()];
        assert!(alike(&failing(), &other_check), "the same cause");
        let mut other_cause = failing();
        other_cause.causes.clear();
        assert!(alike(&failing(), &other_cause), "the same checks");
        other_cause.failed_checks = vec!["unwritten".into()];
        assert!(!alike(&failing(), &other_cause));
        let crashed = fixture::planned("k::t").without_result(Verdict::Crashed, "killed by SIGSEGV");
        assert!(alike(&crashed, &crashed) && !alike(&crashed, &failing()));
        assert!(!alike(&failing(), &fixture::record("k::t", 1.0)), "one of them passes");
        let refused = fixture::planned("k::t").without_result(Verdict::Skipped, "refused");
        assert!(!alike(&failing(), &refused));
    }
}
