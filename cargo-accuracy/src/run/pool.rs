//! Runs processes, so many at a time in each place, and sees each of them to its end: it exits, or it is killed when
//! its time is over, and then nothing of it is left.
//!
//! One thread and one event loop. A place is the CPU or a device; what that is, is not known here. Knows nothing of
//! cases, records or verdicts.

use super::unix::{self, Pid, Signals, Stray};
use anyhow::Context as _;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// From SIGKILL until a process is given up: it is stuck in the kernel, in a device driver say.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long after the end of a test what it started may need to end as well.
const LINGER: Duration = Duration::from_millis(200);

/// Where processes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Processes at a time; 0 once it takes no more.
    pub slots: usize,
    /// Bytes of memory that they share; without a number memory is not counted.
    pub memory: Option<u64>,
}

/// What one job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The places that suit it.
    pub places: Range<usize>,
    /// Bytes of the place's memory.
    pub memory: u64,
}

/// One process to run.
pub struct Job {
    pub command: Command,
    pub timeout: Duration,
    /// How much of its work it has done; as long as that grows from one timeout to the next it may go on.
    pub done: Option<Box<dyn Fn() -> usize>>,
    /// The value of the variable [`Pool::mark`] in the process's environment.
    pub mark: String,
}

/// How a process ended.
#[derive(Debug)]
pub enum End {
    Exited(ExitStatus),
    /// Killed, because it had not ended in this time.
    TimedOut(Duration),
    /// Killed, because the run was interrupted.
    Interrupted,
    /// Killed, but did not die.
    Stuck,
    /// Never started.
    NotStarted(anyhow::Error),
    /// Never started: every place that suits it has been given up.
    NoPlace,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Which job it was, counted from 0.
    pub index: usize,
    /// Where it ran, if it did.
    pub place: Option<usize>,
    pub end: End,
    /// What it left running; killed since.
    pub left: Vec<Stray>,
    pub took: Duration,
}

/// How the whole of the jobs ended.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Outcome,
    /// Processes that were found at the very end and that no job can be blamed for: they had left their group and
    /// changed their environment. Killed since.
    pub escaped: Vec<Stray>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every job ran.
    Done,
    /// The caller wanted no more.
    Stopped,
    /// A signal asked to stop.
    Interrupted,
}

/// What is to happen after a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// Nothing more is started.
    Stop,
    /// Nothing more is started in this place.
    GiveUp(usize),
}

pub struct Pool<'a> {
    /// Processes at a time, wherever they run.
    pub slots: usize,
    /// Those that are given up have no slots afterwards.
    pub places: &'a mut [Place],
    pub signals: &'a Signals,
    /// Name of the environment variable by which a process that left its group is known.
    pub mark: &'static str,
    /// A child of this process that is no job.
    pub spared: Pid,
}

enum Phase {
    Running {
        until: Instant,
    },
    /// SIGTERM has been sent.
    Terminating {
        until: Instant,
    },
    /// SIGKILL has been sent.
    Killed {
        until: Instant,
    },
    /// The process has ended; what it started may follow.
    Lingering {
        until: Instant,
    },
    /// What it started has been sent SIGKILL.
    Sweeping {
        until: Instant,
    },
}

struct Slot {
    index: usize,
    place: usize,
    memory: u64,
    child: Child,
    group: Pid,
    mark: String,
    began: Instant,
    timeout: Duration,
    done: Option<(usize, Box<dyn Fn() -> usize>)>,
    phase: Phase,
    /// Why it was killed, if it was.
    killed_for: Option<End>,
    status: Option<ExitStatus>,
    left: BTreeSet<Stray>,
    took: Duration,
}

impl Pool<'_> {
    /// Runs a job for each of `needs`, made by `make` when a place is free for it. `finished` is told of each in the
    /// order of their ends and may end the run, and then jobs that were not started never are.
    pub fn run(
        self,
        needs: &[Need],
        mut make: impl FnMut(usize, usize) -> anyhow::Result<Job>,
        mut started: impl FnMut(usize),
        mut finished: impl FnMut(Finished) -> Next,
    ) -> Ended {
        let mut waiting: VecDeque<usize> = (0..needs.len()).collect();
        let mut slots: Vec<Slot> = Vec::new();
        let mut outcome = Outcome::Done;
        loop {
            while let Some((at, place)) = self.next(&waiting, needs, &slots) {
                let Some(index) = waiting.remove(at) else { break };
                let end = match place {
                    Some(place) => {
                        started(index);
                        match make(index, place).and_then(|job| start(index, place, needs[index].memory, job))
                        {
                            Ok(slot) => {
                                slots.push(slot);
                                continue;
                            }
                            Err(error) => End::NotStarted(error),
                        }
                    }
                    None => End::NoPlace,
                };
                let took = Duration::ZERO;
                if finished(Finished { index, place, end, left: Vec::new(), took }) == Next::Stop {
                    waiting.clear();
                    outcome = Outcome::Stopped;
                }
            }
            let Some(next) = slots.iter().map(Slot::deadline).min() else { break };

            let stop = self.signals.wait(next.saturating_duration_since(Instant::now())).stop;
            if stop > 0 {
                // The second time there is no waiting.
                let at_once = outcome == Outcome::Interrupted || stop > 1;
                outcome = Outcome::Interrupted;
                waiting.clear();
                for slot in &mut slots {
                    slot.stop(at_once);
                }
            }

            let mut i = 0;
            while i < slots.len() {
                let own: BTreeSet<Pid> =
                    slots.iter().filter(|s| s.status.is_none()).map(|s| s.group).collect();
                if slots[i].step(&own, self.mark) {
                    let done = slots.swap_remove(i).finish();
                    match finished(done) {
                        Next::GoOn => {}
                        Next::Stop if waiting.is_empty() => {}
                        Next::Stop => {
                            waiting.clear();
                            outcome = Outcome::Stopped;
                        }
                        Next::GiveUp(place) => self.places[place].slots = 0,
                    }
                } else {
                    i += 1;
                }
            }
        }
        let escaped = unix::adopted(&BTreeSet::from([self.spared]));
        for stray in &escaped {
            unix::kill(stray.pid);
        }
        Ended { outcome, escaped }
    }

    /// The first of the waiting jobs for which there is room, with the place for it, which is the emptiest that suits
    /// it; or one that no place is left for.
    fn next(
        &self,
        waiting: &VecDeque<usize>,
        needs: &[Need],
        running: &[Slot],
    ) -> Option<(usize, Option<usize>)> {
        let of = |place: usize| running.iter().filter(move |slot| slot.place == place);
        waiting.iter().enumerate().find_map(|(at, &index)| {
            let need = &needs[index];
            if need.places.clone().all(|place| self.places[place].slots == 0) {
                return Some((at, None));
            }
            if running.len() >= self.slots {
                return None;
            }
            let fits = |&place: &usize| {
                let Place { slots, memory } = self.places[place];
                let used = || of(place).map(|slot| slot.memory).sum::<u64>();
                of(place).count() < slots
                    && memory.is_none_or(|memory| used().saturating_add(need.memory) <= memory)
            };
            let place = need.places.clone().filter(fits).min_by_key(|&place| of(place).count())?;
            Some((at, Some(place)))
        })
    }
}

fn start(index: usize, place: usize, memory: u64, mut job: Job) -> anyhow::Result<Slot> {
    unix::die_together(&mut job.command);
    let child = job
        .command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", job.command.get_program().display()))?;
    let began = Instant::now();
    Ok(Slot {
        index,
        place,
        memory,
        group: child.id() as Pid,
        child,
        mark: job.mark,
        began,
        timeout: job.timeout,
        done: job.done.map(|done| (0, done)),
        phase: Phase::Running { until: began + job.timeout },
        killed_for: None,
        status: None,
        left: BTreeSet::new(),
        took: Duration::ZERO,
    })
}

impl Slot {
    fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Running { until } | Phase::Terminating { until } | Phase::Killed { until } => until,
            // What is left may not be a child of ours, whose end would wake us.
            Phase::Lingering { until } | Phase::Sweeping { until } => {
                until.min(Instant::now() + Duration::from_millis(5))
            }
        }
    }

    fn stop(&mut self, at_once: bool) {
        if self.status.is_some() {
            return;
        }
        self.killed_for.get_or_insert(End::Interrupted);
        if at_once {
            self.kill();
        } else if matches!(self.phase, Phase::Running { .. }) {
            self.terminate();
        }
    }

    fn terminate(&mut self) {
        unix::signal_group(self.group, libc::SIGTERM);
        // A stopped process would not see it.
        unix::signal_group(self.group, libc::SIGCONT);
        self.phase = Phase::Terminating { until: Instant::now() + GRACE };
    }

    fn kill(&mut self) {
        unix::signal_group(self.group, libc::SIGKILL);
        self.phase = Phase::Killed { until: Instant::now() + GIVE_UP };
    }

    /// Looks at the process once; `true` when there is nothing more to wait for.
    fn step(&mut self, own: &BTreeSet<Pid>, mark: &str) -> bool {
        let now = Instant::now();
        if self.status.is_none() {
            // An error would say that it is no child of ours, which cannot be; then its time runs out.
            if let Ok(Some(status)) = self.child.try_wait() {
                self.status = Some(status);
                self.took = self.began.elapsed();
                // What a killed process leaves needs no time to end by itself.
                let linger = if self.killed_for.is_some() { Duration::ZERO } else { LINGER };
                self.phase = Phase::Lingering { until: now + linger };
            }
        }
        match self.phase {
            Phase::Running { until } if now >= until => {
                if let Some((before, done)) = &mut self.done {
                    let now_done = done();
                    if now_done > *before {
                        *before = now_done;
                        self.phase = Phase::Running { until: now + self.timeout };
                        return false;
                    }
                }
                self.killed_for = Some(End::TimedOut(self.timeout));
                self.terminate();
                false
            }
            Phase::Terminating { until } if now >= until => {
                self.kill();
                false
            }
            Phase::Killed { until } if now >= until => {
                self.killed_for = Some(End::Stuck);
                self.took = self.began.elapsed();
                true
            }
            Phase::Running { .. } | Phase::Terminating { .. } | Phase::Killed { .. } => false,
            Phase::Lingering { until } => {
                let left = self.remains(own, mark);
                if left.is_empty() {
                    return true;
                }
                if now >= until {
                    if self.killed_for.is_none() {
                        self.left.extend(left.iter().cloned());
                    }
                    self.sweep(&left);
                    self.phase = Phase::Sweeping { until: now + GIVE_UP };
                }
                false
            }
            Phase::Sweeping { until } => {
                // Killing one may abandon another to us.
                let left = self.remains(own, mark);
                self.sweep(&left);
                left.is_empty() || now >= until
            }
        }
    }

    /// Processes of this job that are still there.
    fn remains(&self, own: &BTreeSet<Pid>, mark: &str) -> Vec<Stray> {
        let mut left: Vec<Stray> = unix::adopted(own)
            .into_iter()
            .filter(|stray| {
                stray.group == self.group
                    || !own.contains(&stray.group)
                        && unix::environment_of_child(stray.pid, mark).as_deref() == Some(&self.mark)
            })
            .collect();
        if unix::group_exists(self.group) {
            left.extend(unix::group_members(self.group));
        }
        left.sort();
        left.dedup();
        left
    }

    fn sweep(&self, left: &[Stray]) {
        if left.iter().any(|stray| stray.group == self.group) {
            unix::signal_group(self.group, libc::SIGKILL);
        }
        for stray in left.iter().filter(|stray| stray.group != self.group) {
            unix::kill(stray.pid);
        }
    }

    fn finish(self) -> Finished {
        let end = match (self.killed_for, self.status) {
            (Some(end), _) => end,
            (None, Some(status)) => End::Exited(status),
            (None, None) => End::Stuck,
        };
        let place = Some(self.place);
        Finished { index: self.index, place, end, left: self.left.into_iter().collect(), took: self.took }
    }
}
