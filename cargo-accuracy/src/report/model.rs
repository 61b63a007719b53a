//! A run's results as numbers: counts, the power of whole tests, and the gate.

use crate::baseline::compare::Comparison;
use crate::exit::ExitCode;
use crate::lint::{Finding, Severity};
use crate::run::folder::{RunInfo, test_key, test_path};
use crate::run::hidden::Hidden;
use crate::run::loosened::{self, Loosening};
use crate::run::outcome::{is_known_failure, may_pass, unfinished};
use accuracy_core::record::{Fidelity, Gate, Libraries, Library, PowerStatus, Record, Unfinished, Verdict};
use accuracy_core::verdict::MIN_COS;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// All that a report renders.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the plan.
    pub records: Vec<Record>,
    pub tests: Vec<TestPower>,
    pub summary: Summary,
    /// Least cosine of the run, where it has one.
    pub min_cos: Option<f64>,
    /// Flags beside package and architecture that re-run a case as it ran here.
    pub flags: Vec<String>,
    /// What the silent-parameter lint found in the sources.
    pub lint: Vec<Finding>,
    /// Whether the lint was part of the run.
    pub linted: bool,
    /// Files that the lint could not read or parse.
    pub lint_unread: usize,
    /// What makes the gate looser than it is by itself.
    pub loosened: BTreeSet<Loosening>,
    /// The files of kernels that were judged, by binding.
    pub libraries: BTreeSet<Library>,
    /// Tests that exist and could not run.
    pub hidden: Vec<Hidden>,
    /// Whether one of those fails the gate.
    pub deny_hidden: bool,
    /// The GPUs that the run used, or emulated.
    pub device: Option<String>,
    /// How far what was emulated is exact; `None` where nothing was emulated.
    pub emulated: Option<Fidelity>,
    /// Wall-clock time.
    pub seconds: Option<f64>,
    /// Where the records are.
    pub folder: Option<PathBuf>,
    /// Why this report does not speak of all that it should: a part that is missing, records that could not be
    /// written.
    pub problems: Vec<String>,
    /// What has changed since the baseline, where one is compared with.
    pub baseline: Option<Comparison>,
}

/// Number of cases of each verdict, and of each way through the gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub cases: usize,
    pub correct: usize,
    pub suspicious: usize,
    pub broken: usize,
    pub catastrophic: usize,
    pub inconclusive: usize,
    pub skipped: usize,
    pub crashed: usize,
    pub timed_out: usize,
    pub not_run: usize,
    /// Through the gate, skipped ones not among them.
    pub passed: usize,
    pub failed: usize,
    /// Among the passed: those that fail, as their tests declare.
    pub known_failures: usize,
    /// Tests that fail as a whole though each of their cases may pass.
    pub tests_inconclusive: usize,
}

/// In how many cases of a test a fault seeded in an operand was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    pub fault: String,
    pub operand: String,
    pub seen: usize,
    pub unseen: usize,
    pub not_applicable: usize,
    /// Among the not applicable: cases in whose shapes the fault is the identity, whatever their data.
    pub identity: usize,
}

impl FaultCount {
    /// Whether cases of the test could have seen the fault, and none has.
    fn is_blind(&self) -> bool {
        self.seen == 0 && (self.unseen > 0 || self.identity == 0)
    }

    /// `scale_layout of xq`.
    pub fn name(&self) -> String {
        if self.operand.is_empty() {
            self.fault.clone()
        } else {
            format!("{} of {}", self.fault, self.operand)
        }
    }
}

/// The power of a test: over its cases every declared fault must have been seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestPower {
    /// Path of the test.
    pub test: String,
    pub arch: String,
    pub package: String,
    pub power: Vec<FaultCount>,
    /// Whether every case of the test is in this report: a part of a test cannot prove the whole.
    pub whole: bool,
    pub gate: Gate,
    pub reason: String,
}

impl Report {
    /// What memory was poisoned with in every case that says so; `None` where cases differ.
    pub fn poison(&self) -> Option<u64> {
        let mut known = self.records.iter().filter_map(|record| record.poison);
        let first = known.next()?;
        known.all(|poison| poison == first).then_some(first)
    }

    pub fn new(records: Vec<Record>, runs: &[RunInfo]) -> Report {
        let tests = tests(&records, runs);
        let mut summary = Summary { cases: records.len(), ..Summary::default() };
        for record in &records {
            *match record.verdict {
                Verdict::Correct => &mut summary.correct,
                Verdict::Suspicious => &mut summary.suspicious,
                Verdict::Broken => &mut summary.broken,
                Verdict::Catastrophic => &mut summary.catastrophic,
                Verdict::Inconclusive => &mut summary.inconclusive,
                Verdict::Skipped => &mut summary.skipped,
                Verdict::Crashed => &mut summary.crashed,
                Verdict::TimedOut => &mut summary.timed_out,
                Verdict::NotRun => &mut summary.not_run,
            } += 1;
            summary.known_failures += usize::from(is_known_failure(record));
            match record.gate {
                Gate::Pass if record.verdict == Verdict::Skipped => {}
                Gate::Pass => summary.passed += 1,
                Gate::Fail => summary.failed += 1,
            }
        }
        summary.tests_inconclusive = tests.iter().filter(|t| t.gate == Gate::Fail).count();
        let thresholds: BTreeSet<u64> =
            records.iter().filter(|r| !r.checks.is_empty()).map(|r| r.threshold.to_bits()).collect();
        let min_cos = match thresholds.len() {
            0 => Some(MIN_COS),
            1 => thresholds.first().map(|bits| f64::from_bits(*bits)),
            _ => None,
        };
        let flags = match runs {
            [first, rest @ ..] if rest.iter().all(|r| r.flags == first.flags) => first.flags.clone(),
            _ => Vec::new(),
        };
        let mut devices: Vec<&str> = runs.iter().filter_map(|r| r.device.as_deref()).collect();
        devices.sort_unstable();
        devices.dedup();
        let device = (!devices.is_empty()).then(|| devices.join("; "));
        let of_cases: Vec<&Fidelity> =
            records.iter().filter_map(|r| Some(&r.emulated.as_ref()?.fidelity)).collect();
        let announced = runs.iter().any(|run| !run.emulated.is_empty());
        let emulated = (announced || !of_cases.is_empty()).then(|| {
            let mut all = Fidelity::default();
            of_cases.into_iter().for_each(|one| all.add(one));
            all
        });
        let mut loosened: BTreeSet<Loosening> = runs.iter().flat_map(|run| run.loosened.clone()).collect();
        loosened.extend(loosened::of_records(&records, &loosened));
        // Cases of a test have theirs in common: only the distinct lists are looked at.
        let mut lists: Vec<&Libraries> = Vec::new();
        for record in &records {
            if !record.libraries.is_empty()
                && !lists.iter().rev().take(8).any(|list| **list == record.libraries)
            {
                lists.push(&record.libraries);
            }
        }
        let judged: BTreeSet<Library> = lists.into_iter().flat_map(|list| list.iter().cloned()).collect();
        loosened.extend(loosened::of_libraries(judged.iter()));
        let mut hidden: Vec<Hidden> = runs.iter().flat_map(|run| run.hidden.clone()).collect();
        hidden.sort();
        hidden.dedup();
        Report {
            lint_unread: 0,
            loosened,
            libraries: judged,
            hidden,
            deny_hidden: runs.iter().any(|run| run.deny_hidden),
            records,
            tests,
            summary,
            min_cos,
            flags,
            lint: Vec::new(),
            linted: false,
            device,
            emulated,
            seconds: None,
            folder: None,
            problems: Vec::new(),
            baseline: None,
        }
    }

    /// Records that do not pass the gate, in their order.
    pub fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|r| r.gate == Gate::Fail)
    }

    /// Those failures that have something to tell: not the cases that an interrupted run did not come to.
    pub fn told(&self) -> impl Iterator<Item = &Record> {
        self.failures().filter(|r| unfinished(r).is_none())
    }

    /// Why cases were not run to their end, with their number.
    pub fn unfinished(&self) -> Vec<(&'static str, usize)> {
        let mut reasons: Vec<(Unfinished, usize)> = Vec::new();
        for reason in self.failures().filter_map(unfinished) {
            match reasons.iter_mut().find(|(other, _)| *other == reason) {
                Some((_, n)) => *n += 1,
                None => reasons.push((reason, 1)),
            }
        }
        reasons.into_iter().map(|(reason, n)| (reason.words(), n)).collect()
    }

    /// Tests whose cases together prove too little.
    pub fn powerless(&self) -> impl Iterator<Item = &TestPower> {
        self.tests.iter().filter(|t| t.gate == Gate::Fail)
    }

    /// The architectures of the report.
    pub fn archs(&self) -> Vec<&str> {
        let mut archs: Vec<&str> = Vec::new();
        for record in &self.records {
            if !archs.contains(&record.arch.as_str()) {
                archs.push(&record.arch);
            }
        }
        archs
    }

    /// Findings of the lint that fail the gate.
    pub fn lint_errors(&self) -> usize {
        self.lint.iter().filter(|f| f.severity == Severity::Error && f.suppressed.is_none()).count()
    }

    /// Hidden tests that fail the gate.
    pub fn denied_hidden(&self) -> usize {
        if self.deny_hidden { self.hidden.len() } else { 0 }
    }

    /// What makes the gate looser, in one line.
    pub fn loosened_line(&self) -> Option<String> {
        let changes =
            self.baseline.as_ref().map_or(0, |found| found.changes.len() - found.unexplained().count());
        let baseline = loosened::of_baseline(changes);
        loosened::line(self.loosened.iter().chain(&baseline))
    }

    pub fn exit_code(&self) -> ExitCode {
        debug_assert!(self.records.iter().all(|r| r.gate == Gate::Fail || may_pass(r)));
        let baseline = self.baseline.as_ref().map_or(0, Comparison::errors);
        if !self.problems.is_empty() {
            ExitCode::Unfinished
        } else if self.summary.failed > 0
            || self.summary.tests_inconclusive > 0
            || self.lint_errors() > 0
            || baseline > 0
            || self.denied_hidden() > 0
        {
            ExitCode::Failed
        } else if self.summary.passed == 0 {
            ExitCode::NothingRan
        } else {
            ExitCode::Correct
        }
    }
}

fn tests(records: &[Record], runs: &[RunInfo]) -> Vec<TestPower> {
    let mut order: Vec<String> = Vec::new();
    let mut groups: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    // What a drawn case could not see says nothing of its test.
    for record in records.iter().filter(|record| record.fuzz.is_none()) {
        let key = test_key(&record.id, &record.arch);
        let group = groups.entry(key.clone()).or_default();
        if group.is_empty() {
            order.push(key);
        }
        group.push(record);
    }
    order
        .iter()
        .map(|key| {
            let group = &groups[key];
            let total = runs.iter().filter_map(|run| run.tests.get(key)).max();
            power(group, total.is_some_and(|total| group.len() >= *total))
        })
        .collect()
}

fn power(cases: &[&Record], whole: bool) -> TestPower {
    let mut faults: Vec<FaultCount> = Vec::new();
    for power in cases.iter().flat_map(|case| case.power.iter()) {
        let same = |f: &FaultCount| f.fault == power.fault && f.operand == power.operand;
        let at = faults.iter().position(same).unwrap_or_else(|| {
            let (fault, operand) = (power.fault.into_owned(), power.operand.into_owned());
            faults.push(FaultCount { fault, operand, ..FaultCount::default() });
            faults.len() - 1
        });
        let identity = power.status == PowerStatus::NotApplicable && !power.claimed;
        faults[at].identity += usize::from(identity);
        *match power.status {
            PowerStatus::Seen => &mut faults[at].seen,
            PowerStatus::Unseen => &mut faults[at].unseen,
            PowerStatus::NotApplicable => &mut faults[at].not_applicable,
        } += 1;
    }
    // Where a case has not come to its end, what it would have seen is not known; it fails by itself.
    let judged =
        cases.iter().all(|c| !matches!(c.verdict, Verdict::Crashed | Verdict::TimedOut | Verdict::NotRun));
    let detail = |fault: &FaultCount| {
        let of = cases.iter().flat_map(|case| case.power.iter());
        let mut of =
            of.filter(|p| p.fault == fault.fault && p.operand == fault.operand && !p.detail.is_empty());
        of.next().map_or(String::new(), |power| format!(" ({})", power.detail))
    };
    let blind = faults.iter().filter(|fault| fault.is_blind());
    let blind: Vec<String> = blind.map(|fault| fault.name() + &detail(fault)).collect();
    let (gate, reason) = match whole && judged && !blind.is_empty() {
        true => (
            Gate::Fail,
            format!(
                "no case of this test would have seen {}: its shapes, values and data cannot reveal it; take more \
                 tokens, or operands whose values and scales differ",
                blind.join(", ")
            ),
        ),
        false => (Gate::Pass, String::new()),
    };
    let first = cases[0];
    TestPower {
        test: test_path(&first.id).into(),
        arch: first.arch.clone(),
        package: first.package.clone(),
        power: faults,
        whole,
        gate,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::record;
    use accuracy_core::record::Power;

    fn with_power(id: &str, statuses: &[(&str, PowerStatus)]) -> Record {
        let mut record = record(id, 0.9999986);
        record.power = statuses
            .iter()
            .map(|(fault, status)| Power {
                fault: fault.to_string(),
                operand: String::new(),
                status: *status,
                failed_checks: Vec::new(),
                claimed: true,
                cos: None,
                detail: String::new(),
            })
            .collect();
        record
    }

    fn run(total: usize) -> RunInfo {
        RunInfo { tests: [("k::t[arch=host]".to_string(), total)].into(), ..RunInfo::default() }
    }

    #[test]
    fn a_fault_that_no_case_of_a_whole_test_saw_fails_the_test() {
        use PowerStatus::*;
        let records = vec![
            with_power("k::t[arch=host,tokens=1]", &[("scale_layout", NotApplicable), ("fp8_variant", Seen)]),
            with_power("k::t[arch=host,tokens=2]", &[("scale_layout", Unseen), ("fp8_variant", Unseen)]),
        ];
        let report = Report::new(records.clone(), &[run(2)]);
        assert_eq!(report.exit_code(), ExitCode::Failed);
        assert_eq!(report.summary.tests_inconclusive, 1);
        let test = report.powerless().next().unwrap();
        assert!(
            test.reason.contains("scale_layout") && !test.reason.contains("fp8_variant"),
            "{}",
            test.reason
        );

        let part = Report::new(records, &[run(3)]);
        assert_eq!(part.exit_code(), ExitCode::Correct, "a part of a test does not speak for the whole");
        assert!(!part.tests[0].whole);
    }

    #[test]
    fn a_fault_seen_once_is_enough() {
        use PowerStatus::*;
        let records = vec![
            with_power("k::t[arch=host,tokens=1]", &[("scale_layout", NotApplicable)]),
            with_power("k::t[arch=host,tokens=2]", &[("scale_layout", Seen)]),
        ];
        assert_eq!(Report::new(records, &[run(2)]).exit_code(), ExitCode::Correct);
    }

    #[test]
    fn a_fault_that_is_the_identity_in_a_declared_shape_need_not_be_seen() {
        use PowerStatus::*;
        let id = "k::t[arch=host,tokens=33]";
        let mut record = with_power(id, &[("transposed", NotApplicable)]);
        let report = |record: &Record| Report::new(vec![record.clone()], &[run(1)]);
        // By its data: other data would show it.
        assert_eq!(report(&record).exit_code(), ExitCode::Failed);
        let identity = Power {
            fault: "transposed".into(),
            operand: String::new(),
            status: NotApplicable,
            failed_checks: Vec::new(),
            cos: None,
            claimed: false,
            detail: "the identity in the shape [1, 96], whatever its values".into(),
        };
        record.power = vec![identity].into();
        let by_shape = report(&record);
        assert_eq!(by_shape.exit_code(), ExitCode::Correct);
        assert_eq!((by_shape.tests[0].power[0].not_applicable, by_shape.tests[0].power[0].identity), (1, 1));
    }

    #[test]
    fn nothing_but_skips_is_not_green() {
        let mut skipped = record("k::t[arch=host]", 1.0);
        skipped.verdict = Verdict::Skipped;
        let report = Report::new(vec![skipped], &[]);
        assert_eq!(report.exit_code(), ExitCode::NothingRan);
        assert_eq!((report.summary.passed, report.summary.skipped), (0, 1));
    }

    #[test]
    fn one_failure_fails_everything() {
        let mut bad = record("k::t[arch=host,tokens=2]", 0.5);
        bad.verdict = Verdict::Catastrophic;
        bad.gate = Gate::Fail;
        let report = Report::new(vec![record("k::t[arch=host,tokens=1]", 1.0), bad], &[]);
        assert_eq!(report.exit_code(), ExitCode::Failed);
        assert_eq!((report.summary.passed, report.summary.failed), (1, 1));
    }
}
