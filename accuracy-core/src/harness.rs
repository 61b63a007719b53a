//! Runs the cells of a test, whoever started the process, and leaves records behind.
//!
//! A generated `#[test]` calls [`Test::run`] with the index of its cell. Under the plugin the environment names one
//! sub-case and a folder for its record; under plain `cargo test` or `cargo nextest run` all sub-cases run one after
//! the other, and the process writes its own manifest first, so that what a crash cuts off is known.

mod checks;
mod local;
mod order;
mod tensors;

use crate::Result;
use crate::arch::Arch;
use crate::case::{Case, Tensor};
use crate::env::Settings;
use crate::meta::TestMeta;
use crate::plan::{self, SubCase};
use crate::record::{self, CheckName, Gate, Planned, Record, Verdict};
use crate::reference::cache;
use crate::verdict::{cosine_text, short};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

/// One annotated function: what it says about itself, and how to call it with the values of a cell.
pub struct Test {
    section: fn() -> &'static [u8],
    call: Call,
    meta: OnceLock<Result<TestMeta, String>>,
}

/// Calls the annotated function with the value at each axis's index.
pub type Call = fn(&mut Case, &[usize]) -> Result<Tensor>;

impl Test {
    /// Used by `#[accuracy_test]`.
    pub const fn new(section: fn() -> &'static [u8], call: Call) -> Test {
        Test { section, call, meta: OnceLock::new() }
    }

    /// Runs a cell: all of its sub-cases, or the one that the environment names.
    ///
    /// # Panics
    /// If a sub-case does not pass the gate, which is how a `#[test]` fails.
    pub fn run(&'static self, cell: usize) {
        let meta = self.meta.get_or_init(|| {
            TestMeta::parse((self.section)(), "this test").map(|(meta, _)| meta).map_err(|e| e.to_string())
        });
        let meta = match meta {
            Ok(meta) => meta,
            Err(error) => panic!("{error}"),
        };
        let settings = Settings::from_env().unwrap_or_else(|e| panic!("{e}"));
        let moved;
        let meta = match &settings.package_dir {
            None => meta,
            Some(dir) => {
                moved = TestMeta { manifest_dir: dir.clone(), ..meta.clone() };
                &moved
            }
        };
        let records = settings.records.clone().unwrap_or_else(local::records_dir);
        cache::use_folder(local::cache_dir(settings.cache.as_deref()));
        if settings.cases.is_none() {
            local::announce(&records, &settings);
        }
        let mut failures = Vec::new();
        let mut ran = 0;
        let all = plan::expand(meta, settings.arch).map_err(|error| error.to_string());
        let drawn = all.as_ref().map_or(Ok(Vec::new()), |listed| drawn(meta, listed, &settings));
        let drawn = drawn.unwrap_or_else(|error| panic!("{error}"));
        for case in self.sub_cases(meta, cell, &all, &drawn, &settings) {
            ran += 1;
            let before = match &case {
                SubCaseOrError::Case(case) if !settings.alone && !settings.selftest => {
                    let all = all.as_deref().unwrap_or_default();
                    let unlisted = match settings.cases.is_some() && case.planned.fuzz.is_none() {
                        true => order::Unlisted::Drawn,
                        false => order::Unlisted::None,
                    };
                    let shapes = |case: &SubCase| checks::weight_shapes(meta, case);
                    let mut before = order::before(meta, case, all, unlisted, shapes);
                    // Emulated, what is larger than the case takes longer than the case.
                    before.retain(|other| !settings.emulate || other.tokens <= case.tokens);
                    before
                }
                _ => Vec::new(),
            };
            let record = self.run_case(meta, &case, before, &settings, &records);
            let path = record::record_path(&records, &record.id, settings.attempt);
            if let Err(error) = record::write_record(&path, &record) {
                failures.push(error.to_string());
            }
            println!("{}", line(&record));
            if settings.cases.is_some() && record.verdict == Verdict::Crashed {
                // What comes next in this process would fail for the same error of the device.
                eprintln!("{}", explain(&record));
                std::process::exit(TEST_FAILED);
            }
            if record.gate == Gate::Fail {
                failures.push(explain(&record));
            }
        }
        if ran == 0 {
            failures.push(format!(
                "{} is no case of {}",
                settings.cases.as_ref().map_or("nothing".into(), |cases| cases.join(", ")),
                meta.libtest_name(&meta.body.cells[cell])
            ));
        }
        if !failures.is_empty() {
            panic!("{} of {ran} cases failed\n\n{}\n", failures.len(), failures.join("\n\n"));
        }
    }

    /// The sub-cases to run. Where the matrix cannot be laid out there is one, that says why.
    fn sub_cases(
        &self,
        meta: &TestMeta,
        cell: usize,
        all: &Result<Vec<SubCase>, String>,
        drawn: &[SubCase],
        settings: &Settings,
    ) -> Vec<SubCaseOrError> {
        match all {
            Ok(cases) => cases
                .iter()
                .filter(|case| case.cell == cell)
                .filter(|case| settings.cases.as_ref().is_none_or(|ids| ids.contains(&case.planned.id)))
                .chain(drawn.iter().filter(|case| case.cell == cell))
                .cloned()
                .map(SubCaseOrError::Case)
                .collect(),
            Err(error) => {
                let planned = plan::planned(meta, &meta.body.cells[cell], settings.arch, &BTreeMap::new());
                vec![SubCaseOrError::Error(planned, error.clone())]
            }
        }
    }

    fn run_case(
        &self,
        meta: &TestMeta,
        case: &SubCaseOrError,
        before: Vec<Cow<'_, SubCase>>,
        settings: &Settings,
        records: &PathBuf,
    ) -> Record {
        let case = match case {
            SubCaseOrError::Error(planned, error) => return planned.without_result(Verdict::NotRun, error),
            SubCaseOrError::Case(case) => case,
        };
        let planned = &case.planned;
        if let Some(reason) = &case.skip {
            return planned.without_result(Verdict::Skipped, reason);
        }
        let started = record::started_path(records, &planned.id, settings.attempt);
        if let Err(error) =
            std::fs::create_dir_all(records).and_then(|()| std::fs::write(&started, planned.id.as_bytes()))
        {
            return planned
                .without_result(Verdict::NotRun, format!("cannot write to {}: {error}", records.display()));
        }
        crate::device::fault::report_to(&started.with_extension("fault"));
        let begin = Instant::now();
        let poison = settings.poison.unwrap_or_else(local::drawn_poison);
        let order =
            order::Order { before, marker: record::before_path(records, &planned.id, settings.attempt) };
        drop(crate::library::take_judged());
        let mut record = checks::run(meta, case, self.call, settings, poison, &order);
        record.libraries = crate::library::take_judged().into();
        record.seconds = begin.elapsed().as_secs_f64();
        apply_known_failure(meta, case, settings.arch, &mut record);
        record
    }
}

/// The drawn cases that this process is to run: those that the environment names, or all of the test.
fn drawn(meta: &TestMeta, listed: &[SubCase], settings: &Settings) -> Result<Vec<SubCase>, String> {
    let Some(ids) = &settings.cases else {
        return plan::drawn(meta, listed, settings.fuzz, settings.seed).map_err(|error| error.to_string());
    };
    let named = ids.iter().filter_map(|id| plan::by_identity(meta, listed, id).transpose());
    named.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// What libtest exits with.
const TEST_FAILED: i32 = 101;

enum SubCaseOrError {
    Case(SubCase),
    Error(Planned, String),
}

/// A known failure passes the gate while it fails, and fails it once it succeeds.
fn apply_known_failure(meta: &TestMeta, case: &SubCase, arch: Arch, record: &mut Record) {
    let drawn = case.planned.fuzz.is_some();
    let Some(known) = plan::known_failure(meta, &meta.body.cells[case.cell], arch, drawn) else { return };
    match record.gate {
        Gate::Fail if !matches!(record.verdict, Verdict::NotRun | Verdict::Crashed | Verdict::TimedOut) => {
            record.gate = Gate::Pass;
            record.known_failure = Some(known.failure.reason.clone());
        }
        Gate::Fail => {}
        Gate::Pass if !known.certain => {}
        Gate::Pass => {
            record.gate = Gate::Fail;
            record.failed_checks.push(CheckName::KnownFailure.into());
            record.reason = format!("succeeds, but is declared as a known failure: {}", known.failure.reason);
        }
    }
}

/// One line about a case, for the output of a single test.
fn line(record: &Record) -> String {
    let cos = record.metrics.cos.map_or("-".into(), cosine_text);
    // The verdict is the cosine's; a case whose cosine is right may fail by another check.
    let outcome = match (record.gate, record.verdict) {
        (Gate::Fail, Verdict::Correct) => "failed",
        (_, verdict) => verdict.name(),
    };
    format!("{outcome:<12} cos {cos:<12} {}", record.id)
}

/// What a person needs to know about a case that failed.
fn explain(record: &Record) -> String {
    use std::fmt::Write as _;
    let mut text = line(record);
    if !record.reason.is_empty() {
        let _ = write!(text, "\n  {}", record.reason);
    }
    for check in record.checks.iter().filter(|c| !c.ok) {
        let number = |x: Option<f64>| match x {
            None => "none".into(),
            Some(x) if check.name().is_cosine() => cosine_text(x),
            Some(x) => short(x),
        };
        let hop = if check.hop.is_empty() { "chain" } else { &*check.hop };
        let _ = write!(
            text,
            "\n  {:<16} {hop}: {} (bound {}) {}",
            check.check,
            number(check.value),
            number(check.bound),
            check.detail
        );
    }
    for cause in &record.causes {
        let _ = write!(text, "\n  {}: {}: {}", cause.label(), cause.cause, cause.told());
    }
    if !record.preceded_by.is_empty() {
        let _ = write!(text, "\n  computed before it: {}", record.preceded_by.join(", "));
    }
    let poison = record.poison.map_or(String::new(), |poison| format!("--poison {poison} "));
    let _ = write!(
        text,
        "\n  again: cargo accuracy -p {} --arch {} {poison}'{}'",
        record.package, record.arch, record.id
    );
    text
}
