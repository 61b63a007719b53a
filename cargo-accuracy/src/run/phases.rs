//! The cases of a run in their phases: several in one process where that is allowed, then the listed ones in a process each,
//! then the drawn ones for as long as they may, then alone whatever failed behind something else.

use super::order::Suspect;
use super::pool::{End, Ended, Finished, Next, Outcome, Place, Pool};
use super::{ATTEMPT, Case, Company, Run, batch, progress, shrink, unix};
use crate::exit::chain;
use accuracy_core::env;
use accuracy_core::record::{Gate, Planned, Record, Unfinished, Verdict};
use anyhow::Context as _;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What runs after what in processes of one case each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Listed,
    Drawn,
    /// What failed behind other shapes, or among other cases.
    Alone,
}

impl Phase {
    fn company(self) -> Company {
        match self {
            Phase::Listed | Phase::Drawn => Company::Others,
            Phase::Alone => Company::Nothing,
        }
    }
}

/// What became of the cases of a run.
pub struct Done {
    /// One for each, in the order of the cases.
    pub records: Vec<Record>,
    /// Why they do not speak of all that was to run.
    pub problem: Option<String>,
    /// Whether a signal asked to stop.
    pub interrupted: bool,
}

/// Runs the cases that were selected.
///
/// # Errors
/// If this process cannot watch others, or cannot remove what an earlier process has left.
pub fn run(run: &Run<'_>, cases: &[Case]) -> anyhow::Result<Done> {
    let records: Vec<Option<Record>> = cases.iter().map(|case| run.settled(case)).collect();
    let queue: Vec<usize> = (0..cases.len()).filter(|&i| records[i].is_none()).collect();
    let unwritable = records.iter().flatten().find_map(|settled| run.keep(settled).err());
    unix::become_subreaper().context("cannot become the parent of what tests abandon")?;
    unix::report_size_limit();
    let signals = unix::Signals::install().context("cannot install signal handlers")?;
    let progress = RefCell::new(progress::Progress::new(queue.len(), run.args.output.quiet));
    let mut places = run.places.for_pool(run.settings.jobs);
    let mut phases = Phases {
        run,
        cases,
        records,
        suspects: BTreeMap::new(),
        again: Vec::new(),
        unwritable,
        signals: &signals,
        progress: &progress,
        until: None,
    };
    let runnable = queue.into_iter().filter(|_| phases.unwritable.is_none());
    let (in_batches, mut singles): (Vec<usize>, Vec<usize>) =
        runnable.partition(|&i| run.in_batch(&cases[i]));
    let mut ended = phases.batches(&in_batches, &mut places);

    // First what comes after other shapes, then alone whatever failed. What a batch says nothing of begins anew.
    let left = in_batches.into_iter().filter(|i| phases.records[*i].is_none());
    let (again, unknown): (Vec<usize>, Vec<usize>) = left.partition(|i| phases.suspects.contains_key(i));
    phases.again = again;
    run.forget(unknown.iter().map(|&i| &cases[i].planned))?;
    singles.extend(unknown);
    singles.sort_unstable();
    let (mut drawn, listed): (Vec<usize>, Vec<usize>) =
        singles.into_iter().partition(|i| cases[*i].planned.fuzz.is_some());
    // The first draw of every chain comes before the second of any, so that a bound of time is shared.
    let draws = draws(cases);
    drawn.sort_by_key(|&i| (draws[i], i));
    ended = phases.phase(Phase::Listed, listed, &mut places, ended)?;
    phases.until = run.args.fuzz.seconds.and_then(in_seconds);
    ended = phases.phase(Phase::Drawn, drawn, &mut places, ended)?;
    let again = std::mem::take(&mut phases.again);
    ended = phases.phase(Phase::Alone, again, &mut places, ended)?;
    phases.shrink(&mut places, &ended);
    Ok(phases.done(&ended))
}

/// A run in the middle.
struct Phases<'r, 'a> {
    run: &'r Run<'a>,
    cases: &'r [Case],
    /// Of each case, once it has one that counts.
    records: Vec<Option<Record>>,
    /// Cases that failed in a process that had computed something before them.
    suspects: BTreeMap<usize, Suspect>,
    /// Those of them that are to run alone.
    again: Vec<usize>,
    /// Why a record could not be written.
    unwritable: Option<anyhow::Error>,
    signals: &'r unix::Signals,
    progress: &'r RefCell<progress::Progress>,
    /// When no drawn case is started any more.
    until: Option<Instant>,
}

impl Phases<'_, '_> {
    /// Runs groups of cases in a process each.
    fn batches(&mut self, cases: &[usize], places: &mut [Place]) -> Ended {
        let (run, all, progress) = (self.run, self.cases, self.progress);
        let groups = batch::groups(cases, all, run.settings.jobs);
        let (records, suspects) = (&mut self.records, &mut self.suspects);
        pool(run, places, self.signals).run(
            &run.needs(&groups, all),
            |at, place| {
                let group: Vec<&Case> = groups[at].iter().map(|&i| &all[i]).collect();
                run.job(&group, place, Company::Others)
            },
            |at| progress.borrow().started(&all[groups[at][0]].planned.id),
            |finished| {
                let group = &groups[finished.index];
                let planned: Vec<&Planned> = group.iter().map(|&i| &all[i].planned).collect();
                let outcomes = batch::outcomes(&planned, run.folder, ATTEMPT, &finished);
                for (&index, outcome) in group.iter().zip(outcomes) {
                    match outcome {
                        batch::Outcome::Passed(record) => {
                            progress.borrow_mut().finished(&record);
                            records[index] = Some(*record);
                        }
                        batch::Outcome::Failed(record) => {
                            suspects.insert(index, Suspect::in_batch(*record));
                        }
                        batch::Outcome::Unknown => {}
                    }
                }
                let bad =
                    if matches!(finished.end, End::Exited(_)) { Verdict::Crashed } else { Verdict::TimedOut };
                let failed = group.iter().any(|&i| records[i].is_none());
                match finished.place {
                    Some(place) if failed && run.is_lost(place, &finished.end, bad) => Next::GiveUp(place),
                    _ => Next::GoOn,
                }
            },
        )
    }

    /// Runs the cases of a phase in a process each, unless what came `before` has ended the run.
    fn phase(
        &mut self,
        phase: Phase,
        queue: Vec<usize>,
        places: &mut [Place],
        before: Ended,
    ) -> anyhow::Result<Ended> {
        if before.outcome != Outcome::Done {
            // What is not run again stays as it was found.
            for index in queue {
                if let Some(suspect) = self.suspects.remove(&index) {
                    self.settle(index, suspect.unsettled());
                }
            }
            return Ok(before);
        }
        let (run, all, progress) = (self.run, self.cases, self.progress);
        if phase == Phase::Alone {
            run.forget(queue.iter().map(|&i| &all[i].planned))?;
        }
        let each: Vec<Vec<usize>> = queue.iter().map(|&i| vec![i]).collect();
        let mut out_of_time = false;
        let mut ended = pool(run, places, self.signals).run(
            &run.needs(&each, all),
            |at, place| run.job(&[&all[queue[at]]], place, phase.company()),
            |at| progress.borrow().started(&all[queue[at]].planned.id),
            |finished| {
                let Some(verdict) = self.finished(phase, queue[finished.index], &finished) else {
                    return Next::Stop;
                };
                out_of_time =
                    phase == Phase::Drawn && self.until.is_some_and(|until| Instant::now() >= until);
                let next = if out_of_time { Next::Stop } else { Next::GoOn };
                let lost = finished.place.filter(|&place| run.is_lost(place, &finished.end, verdict));
                lost.map_or(next, Next::GiveUp)
            },
        );
        ended.escaped.extend(before.escaped);
        if out_of_time && ended.outcome == Outcome::Stopped {
            ended.outcome = Outcome::Done;
            for index in queue {
                if self.records[index].is_none() && !self.suspects.contains_key(&index) {
                    self.settle(index, run.out_of_time(&all[index]));
                }
            }
        }
        Ok(ended)
    }

    /// Judges a case whose process has ended, and says the verdict of that process; `None` where nothing more is to run.
    fn finished(&mut self, phase: Phase, index: usize, finished: &Finished) -> Option<Verdict> {
        let run = self.run;
        let mut record = run.judge(&self.cases[index].planned, finished);
        let verdict = record.verdict;
        let may_differ = phase.company() == Company::Others
            && record.gate == Gate::Fail
            && !run.args.runner.fail_fast
            && !matches!(finished.end, End::Interrupted);
        if may_differ {
            match Suspect::preceded(record, &run.folder.path, ATTEMPT) {
                Ok(suspect) => {
                    self.suspects.insert(index, suspect);
                    self.again.push(index);
                    return Some(verdict);
                }
                Err(own) => record = *own,
            }
        }
        if let Some(suspect) = self.suspects.remove(&index) {
            record = match finished.end {
                // It could not run once more.
                End::NoPlace => suspect.unsettled(),
                _ => suspect.settle(record),
            };
        }
        self.progress.borrow_mut().finished(&record);
        let failed = record.gate == Gate::Fail;
        // A passing record stands as the test has written it.
        match failed {
            true => self.settle(index, record),
            false => self.records[index] = Some(record),
        }
        let stop = self.unwritable.is_some() || failed && run.args.runner.fail_fast;
        (!stop).then_some(verdict)
    }

    /// Takes a record that no test has written for that of a case, and leaves it for a later report.
    fn settle(&mut self, index: usize, record: Record) {
        if let Err(error) = self.run.keep(&record) {
            self.unwritable.get_or_insert(error);
        }
        self.records[index] = Some(record);
    }

    /// Looks for the least shape of what failed in a drawn one.
    fn shrink(&mut self, places: &mut [Place], ended: &Ended) {
        if ended.outcome != Outcome::Done || self.unwritable.is_some() {
            return;
        }
        let (run, cases, signals, until) = (self.run, self.cases, self.signals, self.until);
        let mut search = shrink::Search { run, cases, places, signals, until };
        if let Err(error) = search.shrink(&mut self.records) {
            self.unwritable.get_or_insert(error);
        }
    }

    fn done(self, ended: &Ended) -> Done {
        self.progress.borrow().clear();
        let interrupted = ended.outcome == Outcome::Interrupted;
        let reason = match (&self.unwritable, ended.outcome) {
            (Some(_), _) => Unfinished::NoRoom,
            (None, Outcome::Interrupted) => Unfinished::InterruptedBefore,
            (None, Outcome::Stopped) => Unfinished::AfterFailure,
            (None, Outcome::Done) => Unfinished::NeverStarted,
        };
        // The manifest announces these; a record of each would say no more.
        let missing = |case: &Case| case.planned.unfinished(reason);
        let records = self.records.into_iter().zip(self.cases);
        let records = records.map(|(record, case)| record.unwrap_or_else(|| missing(case))).collect();
        let problem = if let Some(error) = self.unwritable {
            Some(format!("the run was stopped, because records cannot be written: {}", chain(&error)))
        } else if !ended.escaped.is_empty() {
            let names: Vec<String> = ended.escaped.iter().map(ToString::to_string).collect();
            Some(format!(
                "tests left processes behind that changed their group and environment, so that no case can be named; \
                 they were killed: {}",
                names.join(", ")
            ))
        } else {
            interrupted.then(|| "the run was interrupted".to_owned())
        };
        Done { records, problem, interrupted }
    }
}

/// What runs processes, of which those that left their group are known by their case.
fn pool<'p>(run: &Run<'_>, places: &'p mut [Place], signals: &'p unix::Signals) -> Pool<'p> {
    Pool { slots: run.settings.jobs, places, signals, mark: env::CASE, spared: run.spared }
}

/// Which draw of its chain each case is, from 1; 0 for a listed case.
fn draws(cases: &[Case]) -> Vec<usize> {
    let mut of_chain: BTreeMap<(usize, &str, &str), usize> = BTreeMap::new();
    let mut all = Vec::with_capacity(cases.len());
    for Case { planned, binary, libtest, .. } in cases {
        all.push(planned.fuzz.map_or(0, |_| {
            let draws = of_chain.entry((*binary, libtest, &planned.arch)).or_default();
            *draws += 1;
            *draws
        }));
    }
    all
}

/// The moment so many seconds from now; `None` where that is beyond all time.
fn in_seconds(seconds: f64) -> Option<Instant> {
    Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}
