//! What has changed between a baseline and the cases of a report.

use super::file::{Baseline, Line, Place};
use crate::run::folder::{RunInfo, test_key, test_path};
use crate::run::outcome::is_known_failure;
use accuracy_core::record::{Gate, Record, Verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An error that grew by more than this factor is a regression.
const GROWTH: f64 = 3.0;
/// An error below this part of its bound is rounding, however much it grew.
const NEGLIGIBLE: f64 = 0.01;
/// Bounds follow from data and formats; one that moved by less than this part has not been changed by anybody.
const SAME_BOUND: f64 = 0.05;

/// What a report says beside its baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    pub file: String,
    /// How many cases have a line.
    pub compared: usize,
    pub regressions: Vec<Regression>,
    pub vanished: Vec<Vanished>,
    pub changes: Vec<Change>,
    /// Correct cases without a line.
    pub new: Vec<String>,
    /// Lines whose case the change's own baseline has no longer: removed on purpose.
    pub removed: Vec<String>,
    /// Architectures and devices of which the baseline has no line at all.
    pub without: Vec<String>,
    /// Places of the report whose correct cases were compared with nothing, though they should have been.
    pub nothing_compared: Vec<String>,
    /// Architectures and devices of which the baseline has lines.
    pub sections: Vec<String>,
    /// Lines of which this report cannot speak: of other devices and packages, or not selected.
    pub not_compared: usize,
}

/// A correct case whose error grew.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Regression {
    pub id: String,
    /// The buffer, or the check where it is not the buffer's own.
    pub error: String,
    pub before: f64,
    pub now: f64,
}

/// A case that was correct and is there no longer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vanished {
    pub id: String,
    pub reason: String,
}

/// A least cosine or a bound that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub id: String,
    pub what: String,
    pub before: String,
    pub now: String,
    /// `null` fails the gate.
    pub reason: Option<String>,
}

impl Comparison {
    /// What fails the gate.
    pub fn errors(&self) -> usize {
        self.vanished.len() + self.unexplained().count() + self.nothing_compared.len()
    }

    /// Why places of the report were compared with nothing, a sentence each.
    pub fn told_of_nothing(&self) -> impl Iterator<Item = String> {
        let sections = match &self.sections[..] {
            [] => "it has no case at all".to_owned(),
            sections => format!("it has {}", sections.join(" and ")),
        };
        self.nothing_compared.iter().map(move |place| {
            format!("no case of [{place}] was compared: {} has none of it, {sections}", self.file)
        })
    }

    /// Changes that nobody has given a reason for.
    pub fn unexplained(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.reason.is_none())
    }

    /// Nothing to see but that it was compared.
    pub fn is_quiet(&self) -> bool {
        self.errors() == 0
            && self.regressions.is_empty()
            && self.changes.is_empty()
            && self.new.is_empty()
            && self.removed.is_empty()
            && self.without.is_empty()
    }
}

/// Which cases there could be: a case that was not selected has not vanished.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    packages: BTreeSet<&'a str>,
    /// How many cases each test has, selected or not, by its path and architecture.
    tests: BTreeMap<&'a str, usize>,
}

impl<'a> Scope<'a> {
    pub fn of(runs: &'a [RunInfo]) -> Scope<'a> {
        let mut scope = Scope::default();
        for run in runs {
            scope.packages.extend(run.packages.iter().map(String::as_str));
            for (test, cases) in &run.tests {
                let most = scope.tests.entry(test).or_default();
                *most = (*most).max(*cases);
            }
        }
        scope
    }
}

/// Where reasons come from.
#[derive(Debug, Default)]
pub struct Reasons<'a> {
    /// For every change.
    pub given: Option<&'a str>,
    /// The change's own baseline: what it says is meant.
    pub proposed: Option<&'a Baseline>,
}

impl Reasons<'_> {
    fn line(&self, place: &Place, id: &str) -> Option<&Line> {
        self.proposed?.0.get(place)?.get(id)
    }

    /// Why a case is judged as `now` says.
    fn why(&self, place: &Place, id: &str, now: &Line) -> Option<String> {
        let proposed = self.line(place, id).filter(|line| changes_between(line, now).is_empty());
        let because = proposed.and_then(|line| line.because.clone());
        because.or_else(|| self.given.map(str::to_owned))
    }
}

/// Compares the records of a report with a baseline.
pub fn compare(
    file: String,
    baseline: &Baseline,
    records: &[Record],
    scope: &Scope<'_>,
    reasons: &Reasons<'_>,
) -> Comparison {
    let mut found = Comparison { file, ..Comparison::default() };
    let mut unmet: BTreeSet<Place> = BTreeSet::new();
    for record in records {
        let place = Place::of(record);
        let Some(now) = Line::of(record) else { continue };
        let section = baseline.0.get(&place).filter(|lines| !lines.is_empty());
        if section.is_none() {
            unmet.insert(place.clone());
        }
        let Some(before) = section.and_then(|lines| lines.get(&record.id)) else {
            found.new.push(record.id.clone());
            continue;
        };
        found.compared += 1;
        let reason = reasons.why(&place, &record.id, &now);
        found.changes.extend(changes_between(before, &now).into_iter().map(|(what, before, now)| Change {
            id: record.id.clone(),
            what,
            before,
            now,
            reason: reason.clone(),
        }));
        for (name, error) in &now.errors {
            let Some(old) = before.errors.get(name) else { continue };
            if error.value > GROWTH * old.value.max(NEGLIGIBLE * error.bound) {
                found.regressions.push(Regression {
                    id: record.id.clone(),
                    error: name.clone(),
                    before: old.value,
                    now: error.value,
                });
            }
        }
    }
    found.without = unmet.iter().map(ToString::to_string).collect();
    lost(&mut found, baseline, records, scope, reasons);
    let sections = || baseline.0.iter().filter(|(_, lines)| !lines.is_empty()).map(|(place, _)| place);
    found.sections = sections().map(|place| format!("[{place}]")).collect();
    // A new architecture beside those that are known is new. Where nothing at all was compared, or the architecture is
    // there under the name of another device, the baseline is not that of this machine.
    let renamed = |place: &Place| sections().any(|other| other.arch == place.arch);
    let none = found.compared == 0;
    found.nothing_compared = unmet.iter().filter(|p| none || renamed(p)).map(ToString::to_string).collect();
    if none && unmet.is_empty() && !found.new.is_empty() {
        let places: BTreeSet<String> =
            records.iter().filter(|r| Line::of(r).is_some()).map(|r| Place::of(r).to_string()).collect();
        found.nothing_compared = places.into_iter().collect();
    }
    found
}

/// What becomes of the lines whose case is not correct, or not there.
fn lost(
    found: &mut Comparison,
    baseline: &Baseline,
    records: &[Record],
    scope: &Scope<'_>,
    reasons: &Reasons<'_>,
) {
    let by_id: HashMap<&str, &Record> = records.iter().map(|r| (r.id.as_str(), r)).collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut places: BTreeSet<Place> = BTreeSet::new();
    for record in records.iter().filter(|record| record.fuzz.is_none()) {
        *counts.entry(test_key(&record.id, &record.arch)).or_default() += 1;
        places.insert(Place::of(record));
    }
    // What was skipped or did not run names no device; the architecture was looked at nevertheless.
    let met = |place: &Place| {
        places.contains(place) || {
            let mut same = places.iter().filter(|p| p.arch == place.arch).peekable();
            same.peek().is_some() && same.all(|p| p.device.is_none())
        }
    };
    for (place, lines) in &baseline.0 {
        for id in lines.keys() {
            let vanished = |reason: String| Vanished { id: id.clone(), reason };
            match by_id.get(id.as_str()).filter(|_| met(place)) {
                Some(record) if record.verdict == Verdict::Skipped => {
                    found.vanished.push(vanished(format!("it is skipped now: {}", record.reason)));
                }
                Some(record) if is_known_failure(record) => found.changes.push(Change {
                    id: id.clone(),
                    what: "verdict".into(),
                    before: "correct".into(),
                    now: format!("{}, a known failure", record.verdict),
                    reason: record.known_failure.clone(),
                }),
                // A failure fails the gate by itself.
                Some(record) if record.gate == Gate::Fail => found.compared += 1,
                Some(_) => {}
                None => {
                    let key = test_key(id, &place.arch);
                    let package = test_path(id).split("::").next().unwrap_or_default();
                    let gone = match scope.tests.get(key.as_str()) {
                        Some(cases) => counts.get(&key).is_some_and(|n| n >= cases),
                        None => scope.packages.contains(package),
                    };
                    if !gone || !met(place) {
                        found.not_compared += 1;
                    } else if reasons.proposed.is_some() && reasons.line(place, id).is_none() {
                        found.removed.push(id.clone());
                    } else {
                        let test = test_path(id);
                        found.vanished.push(vanished(match scope.tests.contains_key(key.as_str()) {
                            true => format!("{test} has no such case any more"),
                            false => format!("there is no test {test} any more"),
                        }));
                    }
                }
            }
        }
    }
}

/// What two lines are judged by differently: what it is, before, now.
pub fn changes_between(before: &Line, now: &Line) -> Vec<(String, String, String)> {
    let mut changes = Vec::new();
    if before.min_cos != now.min_cos {
        changes.push(("least cosine".into(), before.min_cos.to_string(), now.min_cos.to_string()));
    }
    for (name, error) in &now.errors {
        let Some(old) = before.errors.get(name) else { continue };
        if (error.bound - old.bound).abs() > SAME_BOUND * old.bound {
            changes.push((
                format!("bound of {name}"),
                format!("{:.2e}", old.bound),
                format!("{:.2e}", error.bound),
            ));
        }
    }
    changes
}

/// The baseline after a report: a line for each case that is correct, none for what vanished, and the rest as it was.
///
/// # Errors
/// The changes that need a reason and have none.
pub fn renewed(
    old: &Baseline,
    records: &[Record],
    comparison: &Comparison,
    reasons: &Reasons<'_>,
) -> Result<Baseline, Vec<Change>> {
    let unexplained: Vec<Change> = comparison.unexplained().cloned().collect();
    if !unexplained.is_empty() {
        return Err(unexplained);
    }
    let mut new = old.clone();
    let gone: BTreeSet<&str> = comparison
        .vanished
        .iter()
        .map(|v| v.id.as_str())
        .chain(comparison.removed.iter().map(String::as_str))
        .collect();
    let known: BTreeSet<&str> =
        records.iter().filter(|r| is_known_failure(r)).map(|r| r.id.as_str()).collect();
    for lines in new.0.values_mut() {
        lines.retain(|id, _| !gone.contains(id.as_str()) && !known.contains(id.as_str()));
    }
    for record in records {
        let Some(mut line) = Line::of(record) else { continue };
        let place = Place::of(record);
        let lines = new.0.entry(place.clone()).or_default();
        if let Some(before) = lines.get(&record.id) {
            line.because = match changes_between(before, &line).is_empty() {
                true => before.because.clone(),
                false => reasons.why(&place, &record.id, &line),
            };
        }
        lines.insert(record.id.clone(), line);
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::{failing, record};
    use accuracy_core::record::CheckResult;

    fn measured(id: &str, value: f64, bound: f64) -> Record {
        let mut record = record(id, 0.9999986);
        record.checks = vec![CheckResult {
            check: "rel_l2".into(),
            hop: "y".into(),
            value: Some(value),
            bound: Some(bound),
            margin: None,
            ok: true,
            detail: String::new(),
        }]
        .into();
        record
    }

    fn run(tests: &[(&str, usize)]) -> RunInfo {
        RunInfo {
            packages: vec!["k".into()],
            tests: tests.iter().map(|(test, n)| (test.to_string(), *n)).collect(),
            ..RunInfo::default()
        }
    }

    fn baseline(records: &[Record]) -> Baseline {
        renewed(&Baseline::default(), records, &Comparison::default(), &Reasons::default()).unwrap()
    }

    fn compared(before: &[Record], now: &[Record], runs: &[RunInfo]) -> Comparison {
        compare(String::new(), &baseline(before), now, &Scope::of(runs), &Reasons::default())
    }

    const A: &str = "k::t[arch=host,tokens=1]";
    const B: &str = "k::t[arch=host,tokens=2]";

    #[test]
    fn an_error_that_grew_threefold_is_a_regression_and_a_smaller_growth_is_none() {
        let before = [measured(A, 1e-3, 1e-2)];
        for (now, regressed) in [(2.9e-3, false), (3.1e-3, true), (1e-3, false)] {
            let found = compared(&before, &[measured(A, now, 1e-2)], &[]);
            assert_eq!(found.regressions.len(), usize::from(regressed), "{now}");
            assert_eq!((found.compared, found.errors()), (1, 0));
        }
        // What is far below its bound is rounding.
        let exact = [measured(A, 0.0, 1e-2)];
        assert_eq!(compared(&exact, &[measured(A, 2e-4, 1e-2)], &[]).regressions, []);
        assert_eq!(compared(&exact, &[measured(A, 4e-4, 1e-2)], &[]).regressions.len(), 1);
    }

    #[test]
    fn a_case_that_is_gone_is_an_error_and_one_that_was_not_selected_is_none() {
        let before = [measured(A, 1e-3, 1e-2), measured(B, 1e-3, 1e-2)];
        let now = [measured(A, 1e-3, 1e-2)];
        let gone = compared(&before, &now, &[run(&[("k::t[arch=host]", 1)])]);
        assert_eq!(gone.vanished.iter().map(|v| v.id.as_str()).collect::<Vec<_>>(), [B]);
        assert_eq!(gone.errors(), 1);
        let filtered = compared(&before, &now, &[run(&[("k::t[arch=host]", 2)])]);
        assert_eq!((filtered.errors(), filtered.not_compared), (0, 1));
        let whole_test = compared(&[measured("k::u[arch=host]", 1e-3, 1e-2)], &now, &[run(&[])]);
        assert!(whole_test.vanished[0].reason.contains("no test k::u"), "{whole_test:?}");
        let before = [before[0].clone(), measured("other::u[arch=host]", 1e-3, 1e-2)];
        let other_package = compared(&before, &now, &[run(&[])]);
        assert_eq!((other_package.errors(), other_package.not_compared), (0, 1));
    }

    #[test]
    fn a_baseline_with_which_nothing_is_compared_fails_and_says_what_it_has() {
        let on = |device: &str, id: &str| {
            let mut record = measured(id, 1e-3, 1e-2);
            (record.arch, record.device) = ("gfx942".into(), Some(device.into()));
            record
        };
        let (old, new) = ("MI300X", "AMD Instinct MI300X");
        // A header alone, another device's name, another architecture, a renamed test.
        for (before, now, part) in [
            (vec![], vec![measured(A, 1e-3, 1e-2)], "no case of [host] was compared"),
            (vec![on(old, A)], vec![on(new, A)], "it has [gfx942: MI300X]"),
            (vec![on(old, A)], vec![measured(A, 1e-3, 1e-2)], "no case of [host]"),
            (vec![measured(A, 1e-3, 1e-2)], vec![measured("other::u[arch=host]", 1e-3, 1e-2)], "[host]"),
            // The host is compared, and the device under its new name is not.
            (
                vec![measured(A, 1e-3, 1e-2), on(old, B)],
                vec![measured(A, 1e-3, 1e-2), on(new, B)],
                "no case of [gfx942: AMD Instinct MI300X]",
            ),
        ] {
            let found = compared(&before, &now, &[]);
            let told: Vec<String> = found.told_of_nothing().collect();
            assert_eq!((told.len(), found.errors()), (1, 1), "{told:?}");
            assert!(told[0].contains(part), "{told:?}");
        }
        // An architecture that is new beside one that was compared, and a run in which nothing is correct.
        let host = measured(A, 1e-3, 1e-2);
        assert_eq!(compared(std::slice::from_ref(&host), &[host.clone(), on(new, B)], &[]).errors(), 0);
        assert_eq!(compared(&[host], &[failing(A)], &[]).errors(), 0);
    }

    #[test]
    fn a_case_that_is_skipped_now_has_vanished_and_one_that_fails_has_not() {
        let before = [measured(A, 1e-3, 1e-2)];
        let mut skipped = record(A, 1.0);
        skipped.verdict = Verdict::Skipped;
        skipped.reason = "host does not decode it".into();
        let found = compared(&before, &[skipped], &[]);
        assert!(found.vanished[0].reason.contains("host does not decode it"), "{found:?}");
        assert_eq!(compared(&before, &[failing(A)], &[]).errors(), 0);
    }

    #[test]
    fn a_threshold_or_a_bound_that_changed_needs_a_reason() {
        let before = [measured(A, 1e-3, 1e-2)];
        let mut looser = measured(A, 1e-3, 1e-2);
        looser.threshold = 0.99;
        let wider = measured(A, 1e-3, 2e-2);
        let (scope, old) = (Scope::default(), baseline(&before));
        for now in [looser, wider] {
            let now = [now];
            let silent = compare(String::new(), &old, &now, &scope, &Reasons::default());
            assert_eq!(silent.errors(), 1, "{silent:?}");
            assert_eq!(renewed(&old, &now, &silent, &Reasons::default()).unwrap_err().len(), 1);

            let given = Reasons { given: Some("rounds twice"), proposed: None };
            let told = compare(String::new(), &old, &now, &scope, &given);
            assert_eq!((told.errors(), told.changes.len()), (0, 1));
            let new = renewed(&old, &now, &told, &given).unwrap();

            // The reason stays in the file, and speaks for the change where the old file is compared with.
            let again = compare(String::new(), &new, &now, &scope, &Reasons::default());
            assert!(again.is_quiet(), "{again:?}");
            let kept = renewed(&new, &now, &again, &Reasons::default()).unwrap();
            assert_eq!(kept, new);
            let proposed = Reasons { given: None, proposed: Some(&new) };
            let reviewed = compare(String::new(), &old, &now, &scope, &proposed);
            assert_eq!((reviewed.errors(), reviewed.changes.len()), (0, 1));
            assert_eq!(reviewed.changes[0].reason.as_deref(), Some("rounds twice"));
        }
    }

    #[test]
    fn a_case_that_the_proposed_baseline_drops_is_listed_and_no_error() {
        let before = [measured(A, 1e-3, 1e-2), measured(B, 1e-3, 1e-2)];
        let now = [measured(A, 1e-3, 1e-2)];
        let (runs, own) = ([run(&[("k::t[arch=host]", 1)])], baseline(&now));
        let reasons = Reasons { given: None, proposed: Some(&own) };
        let found = compare(String::new(), &baseline(&before), &now, &Scope::of(&runs), &reasons);
        assert_eq!((found.errors(), &found.removed[..]), (0, &[B.to_owned()][..]));
    }

    #[test]
    fn another_device_has_lines_of_its_own() {
        let on = |device: &str| {
            let mut record = measured("k::t[arch=gfx942,tokens=1]", 1e-3, 1e-2);
            record.arch = "gfx942".into();
            record.device = Some(device.into());
            record
        };
        let found = compared(&[on("MI300X")], &[on("MI308X")], &[run(&[("k::t[arch=gfx942]", 1)])]);
        assert_eq!(found.without, ["gfx942: MI308X"]);
        // So nothing was compared, which is no pass.
        assert_eq!((found.compared, found.new.len(), found.errors()), (0, 1, 1));
        let same = compared(&[on("MI300X")], &[on("MI300X")], &[]);
        assert!(same.is_quiet() && same.compared == 1);
    }

    #[test]
    fn what_did_not_run_keeps_its_line() {
        let old = baseline(&[measured(A, 1e-3, 1e-2), measured(B, 1e-3, 1e-2)]);
        let now = [measured(A, 2e-3, 1e-2)];
        let runs = [run(&[("k::t[arch=host]", 2)])];
        let found = compare(String::new(), &old, &now, &Scope::of(&runs), &Reasons::default());
        let new = renewed(&old, &now, &found, &Reasons::default()).unwrap();
        let lines = &new.0[&Place { arch: "host".into(), device: None }];
        assert_eq!(lines[A].errors["y"].value, 2e-3);
        assert_eq!(lines[B].errors["y"].value, 1e-3);
    }
}
