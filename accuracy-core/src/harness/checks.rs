//! The four checks of a case: what is run how often, and how its record comes about.

mod full_chain;

use super::order::Order;
use super::{Call, tensors};
use crate::case::input::{Data, Probe};
use crate::case::poison::Poison;
use crate::case::watch::Watch;
use crate::case::{self, Attempt, Captured, Case, Kind, PreparedWeights, Setup, stored_shape};
use crate::device::emulation::{self, Focus, Told};
use crate::device::gpu::{self, Gpu};
use crate::device::host::Placement;
use crate::device::memory::Runtime;
use crate::device::process::{self, Change, State};
use crate::diagnose::{Evidence, Unsteady, diagnose, evident, kept_from_first, selftest};
use crate::env::Settings;
use crate::error::{Error, Result};
use crate::error_map::ErrorMap;
use crate::judge::{self, JudgedHop};
use crate::library::{self, Changer, Launch, LibraryError};
use crate::meta::{AxisKind, Benign, Body, Cell, Check, TestMeta};
use crate::metrics::compare;
use crate::origins;
use crate::plan::{self, SubCase};
use crate::power::power;
use crate::record::{
    Cause, CheckName, CheckResult, Finding, FindingKind, Gate, Hop, Ignored, LastWriter, Metrics,
    PowerStatus, Record, Severity, Verdict,
};
use crate::reference::Matrix;
use crate::reference::stream::ReferenceError;
use crate::trace::{Request, Traced};
use crate::verdict::{self, Asked, LeastCosine, NOISE_FACTOR, at_most, none};
use crate::weights::Checkpoint;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Bits of the seed that make other inputs of it: neighbouring seeds do not share theirs.
const OTHER_SEEDS: [u64; 4] = [1, 1 << 20, 1 << 30, 1 << 40];
/// Lines of what kernels printed that a record keeps.
const OUTPUT_LINES: usize = 100;
/// Further runs that have to agree before a kernel that differs once is said to keep something.
const STEADY: usize = 2;
/// What is said of a run on data at both ends of its format's range.
const EXTREMES: &str = "rows far above and far below the usual magnitude, within the range of their format";
/// Terms that cancel by this factor show a float16 accumulator.
const ENOUGH_CANCELLATION: f64 = 30.0;

/// Runs a sub-case, after what comes before it.
pub fn run(
    meta: &TestMeta,
    case: &SubCase,
    call: Call,
    settings: &Settings,
    poison: u64,
    order: &Order<'_>,
) -> Record {
    let found = process::reset_floats();
    let runner = match Runner::new(meta, case, call, settings, poison) {
        Ok(runner) => Runner { found, ..runner },
        Err(error) => return case.planned.without_result(Verdict::NotRun, error.to_string()),
    };
    let mut unlike_the_first = None;
    let preceded_by = order.begin(case, |before| {
        let (usable, found) = runner.precede(before);
        unlike_the_first = unlike_the_first.take().or(found);
        usable
    });
    let mut record = case.planned.without_result(Verdict::NotRun, "");
    record.threshold = runner.min_cos;
    if let Runtime::Gpu(gpu) = runner.setup.runtime {
        record.device = Some(gpu.device().name.clone());
    }
    // What the emulator has to say of an earlier case is not said of this one.
    drop(emulation::take());
    // A function of the test's own may not take what a wrong kernel wrote, such as an index out of range.
    let result = catch_unwind(AssertUnwindSafe(|| match runner.cell.check {
        Check::FullChain => runner.full_chain(&mut record),
        Check::FallbackVsPrimary => runner.fallback_vs_primary(&mut record),
        Check::DtypeVariant => runner.dtype_variant(&mut record),
        Check::Parameter => runner.parameter(&mut record),
    }))
    .unwrap_or_else(|panic| {
        Err(Error::Other(format!(
            "the reference cannot be computed on what the kernels wrote: {}",
            message(&*panic)
        )))
    });
    if let Some(check) = unlike_the_first.filter(|_| result.is_ok()) {
        fail_by_state(&mut record, check, "the first launch of its process");
    }
    let device = record.device.clone();
    let without_result = |verdict, error: &Error| case.planned.without_result(verdict, error.to_string());
    let record = match &result {
        Ok(()) => record,
        Err(error @ Error::Kernel { .. }) => without_result(Verdict::Crashed, error),
        Err(error) if refuses(meta, case, error) => case
            .planned
            .without_result(Verdict::Skipped, format!("drawn, and refused in this shape: {error}")),
        Err(error) => without_result(Verdict::NotRun, error),
    };
    let record = match emulation::take().filter(|_| settings.emulate) {
        None => record,
        Some(Told { mut problems, handled, mut emulated, mut findings }) => {
            declare_benign(&mut findings, &meta.body.benign);
            if result.is_err() {
                problems.extend(handled);
            }
            let lost = emulated.output.len().saturating_sub(OUTPUT_LINES);
            emulated.output.truncate(OUTPUT_LINES);
            if lost > 0 {
                emulated.output.push(format!("and {lost} more lines"));
            }
            let judged = match problems.is_empty() {
                true => record,
                // Whatever was judged is worth nothing; what the launcher made of it may help.
                false => {
                    let launcher = result.err().map(|error| error.to_string());
                    let mut told: Vec<String> = problems.into_iter().chain(launcher).collect();
                    told.dedup();
                    let crashed = case.planned.without_result(Verdict::Crashed, told.join("\n"));
                    Record { causes: outside_of_memory(&findings).into_iter().collect(), ..crashed }
                }
            };
            let judged = failed_by(judged, &findings);
            Record { device, emulated: Some(Box::new(emulated)), findings: Some(findings), ..judged }
        }
    };
    let trace = runner.trace(&record);
    Record { poison: Some(poison), preceded_by, trace, ..record }
}

/// The wave that did what is wrong: the one that wrote the first wrong element, or the first that made a mistake.
fn focus(record: &Record) -> Option<Focus> {
    let of_element = record.origins.iter().filter(|origin| origin.wrong).find_map(|origin| {
        let LastWriter { kernel, offset, launch, block, wave, lane, .. } = origin.writer.clone()?;
        let element = Some((origin.buffer.clone(), origin.row, origin.column));
        Some(Focus { kernel, launch: Some(launch), block, wave, lane: Some(lane), offset, element })
    });
    let of_finding = || {
        let mut errors =
            record.findings.iter().flatten().filter(|finding| finding.severity == Severity::Error);
        errors.find_map(|finding| {
            let Finding { kernel, offset, block, wave, lane, .. } = finding.clone();
            let (block, wave) = block.zip(wave)?;
            Some(Focus { kernel, launch: None, block, wave, lane, offset, element: None })
        })
    };
    of_element.or_else(of_finding)
}

/// Whether an error is the answer to a drawn shape that the test does not say it supports. A launcher may refuse such a shape
/// by its status, a scheme may not divide it, and a test may have sizes that do not follow a slice of its weight.
fn refuses(meta: &TestMeta, case: &SubCase, error: &Error) -> bool {
    let Some(drawn) = &case.planned.fuzz else { return false };
    let declared = meta.body.fuzz.is_some_and(|range| (range.first..=range.last).contains(&case.tokens));
    let refusal = matches!(
        error,
        Error::Declaration { .. } | Error::Other(_) | Error::Library(LibraryError::Status { .. })
    );
    refusal && (drawn.is_sliced() || !declared)
}

/// The cause of a result that depends on which launches there were before.
fn stale_state(check: &CheckResult, when: &str) -> Cause {
    let detail = format!(
        "`{}` has other bytes in {when} than in its others on the same inputs: a kernel keeps something from one launch to the \
         next, such as a counter, a maximum or a table in a `static`",
        check.hop
    );
    Cause { cause: "stale_state".into(), detail, score: Some(1.0), confident: true, ..Cause::default() }
}

/// Fails a case by what a launch before it has shown.
fn fail_by_state(record: &mut Record, check: CheckResult, when: &str) {
    record.causes.insert(0, stale_state(&check, when));
    if record.gate == Gate::Pass || record.verdict == Verdict::Inconclusive {
        record.verdict = Verdict::Correct;
        record.reason = reason(std::slice::from_ref(&check));
    }
    record.gate = Gate::Fail;
    record.failed_checks.push(check.check.name().to_owned());
    record.checks.extend([check]);
}

/// Rows and columns of the weights of a sub-case; `None` where they cannot be read.
pub fn weight_shapes(meta: &TestMeta, case: &SubCase) -> Option<Vec<(usize, usize)>> {
    let checkpoint = open(&meta.manifest_dir.join(meta.body.checkpoint.as_ref()?)).ok()?;
    case.planned.weights.values().map(|tensor| stored_shape(&checkpoint, tensor).ok()).collect()
}

/// The cause of a launch that ended at an access outside of all memory.
fn outside_of_memory(findings: &[Finding]) -> Option<Cause> {
    let outside =
        |finding: &&Finding| finding.kind == FindingKind::OutOfBounds && finding.severity == Severity::Error;
    let Finding { kernel, buffer, .. } = findings.iter().find(outside)?;
    let detail = match buffer {
        Some(buffer) => format!("`{kernel}` reads or writes outside of `{buffer}`"),
        None => format!("`{kernel}` reads or writes outside of all memory"),
    };
    Some(Cause { cause: "out_of_bounds".into(), detail, confident: true, ..Cause::default() })
}

/// Whether the device can still be used. What else goes wrong before a case is told by the case that it is.
fn usable(attempt: &Result<Attempt>) -> bool {
    !matches!(attempt, Err(Error::Kernel { .. }))
}

/// What a test declares to do no harm fails no case, and says why.
fn declare_benign(findings: &mut [Finding], benign: &[Benign]) {
    for finding in findings {
        if let Some(declared) = benign.iter().find(|declared| declared.finding == finding.kind) {
            finding.severity = Severity::Note;
            finding.detail += &format!(" (declared benign: {})", declared.reason);
        }
    }
}

/// A case in which the emulator saw a kernel make a mistake does not pass, whatever was computed.
fn failed_by(record: Record, findings: &[Finding]) -> Record {
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    let Some(first) = errors().next().filter(|_| !record.checks.is_empty()) else { return record };
    let detail = format!("{} of `{}`: {}", first.mnemonic, first.kernel, first.detail);
    let check = none(CheckName::Emulator(first.kind), "", errors().count() as u64, detail);
    let mut failed = record;
    if failed.gate == Gate::Pass || failed.verdict == Verdict::Inconclusive {
        failed.verdict = Verdict::Correct;
        failed.reason = reason(std::slice::from_ref(&check));
    }
    failed.gate = Gate::Fail;
    failed.failed_checks.push(check.check.name().to_owned());
    failed.checks.extend([check]);
    failed
}

/// Least cosine by which the cases of a test are judged.
fn least_cosine(settings: &Settings, body: &Body) -> f64 {
    let test = body.min_cos.and_then(LeastCosine::new);
    let (cos, _) = Asked { run: settings.min_cos, test, configuration: settings.default_min_cos }.decide();
    cos.get()
}

#[derive(Clone)]
struct Runner<'a> {
    meta: &'a TestMeta,
    cell: &'a Cell,
    call: Call,
    setup: Setup,
    /// NaN and infinities, for a run in which nothing else is new.
    special_poison: Poison,
    /// What of the process's state was not as a process starts.
    found: Vec<Change>,
    library_path: Vec<PathBuf>,
    min_cos: f64,
    repeat: u32,
    keep_tensors: Option<&'a Path>,
    selftest: bool,
    emulated: bool,
    trace: Option<&'a Request>,
    /// The run in which a hop fails whose wrong elements were looked at, and the values of the parameters there.
    failing: RefCell<Option<(Setup, Vec<usize>)>>,
}

impl<'a> Runner<'a> {
    fn new(
        meta: &'a TestMeta,
        case: &SubCase,
        call: Call,
        settings: &'a Settings,
        poison: u64,
    ) -> Result<Runner<'a>> {
        let body = &meta.body;
        let cell = &body.cells[case.cell];
        let checkpoint =
            body.checkpoint.as_ref().map(|path| open(&meta.manifest_dir.join(path))).transpose()?;
        let activations =
            body.activations.as_ref().map(|place| recorded(&meta.manifest_dir, place)).transpose()?;
        let (runtime, watch) = match settings.runtime.or(gpu::Kind::of(settings.arch)) {
            // A loop on the host is done when its launcher returns: looking then changes nothing.
            None => (Runtime::Host, Watch::Written),
            Some(kind) => (Runtime::Gpu(Gpu::open(kind, settings.arch)?), Watch::Nothing),
        };
        Ok(Runner {
            meta,
            cell,
            call,
            setup: Setup {
                arch: settings.arch,
                runtime,
                tokens: case.tokens,
                weights: case.planned.weights.clone(),
                checkpoint,
                prepared: PreparedWeights::default(),
                activations,
                seed: case.planned.fuzz.map_or(settings.seed.unwrap_or(body.seed), |drawn| drawn.seed),
                drawn: case.planned.fuzz,
                data: Data::Ordinary,
                poison: Poison::plain(poison),
                placement: Placement::Banded,
                watch,
            },
            special_poison: Poison::special(poison),
            found: Vec::new(),
            library_path: settings.library_path.clone(),
            min_cos: least_cosine(settings, body),
            repeat: settings.repeat.max(1),
            keep_tensors: settings.keep_tensors.as_deref(),
            selftest: settings.selftest,
            emulated: settings.emulate,
            trace: settings.trace.as_ref(),
            failing: RefCell::default(),
        })
    }

    /// Runs the chain once with the values at `at`.
    fn attempt(&self, at: &[usize], setup: Setup) -> Result<Attempt> {
        library::set_target(setup.arch, setup.runtime, &self.library_path);
        library::take_launches();
        library::take_failures();
        let mut case = Case::new(setup);
        let before = State::now();
        // A declaration that does not fit its binding panics with a message; the case reports it.
        let result = catch_unwind(AssertUnwindSafe(|| (self.call)(&mut case, at)))
            .unwrap_or_else(|panic| Err(Error::Other(format!("the test panicked: {}", message(&*panic)))));
        let changes = before.restore();
        // A kernel that broke the device is why whatever came after it failed.
        case.synchronize()?;
        let result = result?;
        let mut attempt = case.finish(&result)?;
        let earlier = self.found.iter().cloned().map(|change| (Changer::Earlier, change));
        attempt.changes = earlier.chain(changes.into_iter().map(|change| (Changer::Test, change))).collect();
        // A handle of another run, or of something that no kernel makes, is no end of a chain.
        match attempt.buffers.get(attempt.result.0).filter(|b| b.name == result.name()) {
            Some(end) if end.kind.is_written() => Ok(attempt),
            _ => Err(Error::msg(format!(
                "the test returned `{}`, which no kernel of this run writes: return the end of the chain",
                result.name()
            ))),
        }
    }

    /// Computes another sub-case of the test twice, and forgets what came out. Says whether the device can still be used, and
    /// whether the two differ: the first launch of a process is seen here alone.
    fn precede(&self, before: &SubCase) -> (bool, Option<CheckResult>) {
        let cell = &self.meta.body.cells[before.cell];
        let setup = Setup {
            tokens: before.tokens,
            drawn: None,
            weights: before.planned.weights.clone(),
            watch: Watch::Nothing,
            ..self.setup.clone()
        };
        let first = self.attempt(&cell.at, setup.clone());
        if self.emulated || first.is_err() {
            return (usable(&first), None);
        }
        let second = self.attempt(&cell.at, setup.clone());
        let found = first.as_ref().ok().zip(second.as_ref().ok()).and_then(|(a, b)| self.differ(a, b));
        // One that never writes the same twice is told by its own case.
        let steady = |second: &Attempt| {
            (0..STEADY).all(|_| {
                let next = self.attempt(&cell.at, setup.clone());
                next.is_ok_and(|next| self.differ(second, &next).is_none())
            })
        };
        let found = found.filter(|_| second.as_ref().is_ok_and(steady));
        (usable(&second), found)
    }

    /// By which relative L2 repeats may differ, where the test says so.
    fn bound(&self) -> Option<f64> {
        self.meta.body.nondeterministic.as_ref().map(|declared| declared.bound)
    }

    /// The first hop of which two runs on the same data have other bytes.
    fn differ(&self, a: &Attempt, b: &Attempt) -> Option<CheckResult> {
        judge::repeat_checks(a, b, self.bound()).into_iter().find(|check| !check.ok)
    }

    /// What a kernel keeps from one launch to the next: the first of three runs on the same data, of which there were runs on
    /// other data before the last, differs from both others, or the last does. Then further runs have to agree with the last.
    fn kept(
        &self,
        at: &[usize],
        [first, second, last]: [&Attempt; 3],
    ) -> Result<Option<(CheckResult, &'static str)>> {
        let Some(since_first) = self.differ(first, last) else { return Ok(None) };
        let when = match (self.differ(first, second), self.differ(second, last)) {
            (Some(_), None) => "its first launch",
            (None, Some(_)) => "launches after runs on other data",
            _ => return Ok(None),
        };
        for _ in 0..STEADY {
            if self.differ(last, &self.ordinary(at)?).is_some() {
                return Ok(None);
            }
        }
        Ok(Some((since_first, when)))
    }

    fn ordinary(&self, at: &[usize]) -> Result<Attempt> {
        self.attempt(at, self.setup.clone())
    }

    /// The same data, complementary poison, buffers that end at an inaccessible page. Where the device is emulated, the
    /// waves of a workgroup take turns in the opposite order: where a barrier is missing the two runs differ. It is also the
    /// run that the emulator looks at closely, which costs time.
    fn second(&self, at: &[usize]) -> Result<Attempt> {
        emulation::in_opposite_order(|| emulation::scrutinised(|| self.other_memory(at)))
    }

    /// The same with the turns of the first run.
    fn other_memory(&self, at: &[usize]) -> Result<Attempt> {
        let watch = self.setup.watch.max(Watch::Written);
        let (poison, placement) = (self.setup.poison.complement(), Placement::Flush);
        self.attempt(at, Setup { poison, placement, watch, ..self.setup.clone() })
    }

    /// What has to be watched to know who changed what it only reads, where that is more than has been.
    fn more_to_watch(&self, attempts: &[&Attempt]) -> Option<Watch> {
        let changed = || attempts.iter().flat_map(|a| &a.buffers).filter(|b| b.changed);
        let least =
            if changed().any(|b| b.changed_by.is_none()) { Watch::Everything } else { Watch::Written };
        (changed().next().is_some() && self.setup.watch < least).then_some(least)
    }

    /// A run whose large terms cancel, with the pattern that suits the chain.
    fn probe(&self, at: &[usize]) -> Result<Option<Attempt>> {
        let mut best: Option<(f64, Attempt)> = None;
        for probe in Probe::ALL {
            let attempt = self.attempt(at, Setup { data: Data::Probe(probe), ..self.setup.clone() })?;
            let ratios = judge::declared_cancellation(&attempt);
            // A chain without a product has nothing to accumulate.
            if ratios.is_empty() {
                return Ok(None);
            }
            // The pattern that suits most of the products.
            let suits = ratios.iter().map(|r| r.min(ENOUGH_CANCELLATION)).sum::<f64>();
            if best.as_ref().is_none_or(|(b, _)| suits > *b) {
                best = Some((suits, attempt));
            }
            if ratios.iter().all(|r| *r >= ENOUGH_CANCELLATION) {
                break;
            }
        }
        Ok(best.map(|(_, attempt)| attempt))
    }

    /// A run whose terms all have one sign, and how it is judged.
    fn one_sign(&self, at: &[usize], poison: Poison) -> Result<(Attempt, Vec<JudgedHop>)> {
        self.judged(at, Setup { data: Data::OneSign, poison, ..self.setup.clone() })
    }

    fn judged(&self, at: &[usize], setup: Setup) -> Result<(Attempt, Vec<JudgedHop>)> {
        let attempt = self.attempt(at, setup)?;
        let hops = judge::judge_hops(&attempt, self.min_cos);
        Ok((attempt, hops))
    }

    /// A run on data at both ends of its format's range, where a hop and an input have that range.
    fn extremes(&self, at: &[usize], first: &Attempt) -> Result<Option<(Attempt, Vec<JudgedHop>)>> {
        let far = |b: &Captured| {
            let input = matches!(b.kind, Kind::Input | Kind::Before) && b.scheme.is_none();
            input && case::is_wide(b.dtype)
        };
        let wide = first.hops().any(|(_, b)| judge::declares_range(first, b));
        if !wide || !first.buffers.iter().any(far) {
            return Ok(None);
        }
        let attempt = self.attempt(at, Setup { data: Data::Extremes, ..self.setup.clone() })?;
        let hops = judge::within_range(&attempt, judge::judge_hops(&attempt, self.min_cos));
        Ok(Some((attempt, hops)))
    }

    /// What fails on other inputs, of a chain that has no run on cancelling data: a result kept from the first call is
    /// right for ever on the same data, and what goes wrong beyond some magnitude shows on some inputs only. In the run
    /// that fails memory holds what it does in the ordinary one; `reads` is what fails where it holds `poison` alone.
    fn other_data(
        &self,
        at: &[usize],
        poison: Poison,
        reads: &mut Vec<CheckResult>,
    ) -> Result<Option<(Attempt, Vec<JudgedHop>)>> {
        for bit in OTHER_SEEDS {
            let setup = Setup { seed: self.setup.seed ^ bit, ..self.setup.clone() };
            let (other, hops) = self.judged(at, Setup { poison, ..setup.clone() })?;
            if all_hold(&hops) {
                continue;
            }
            if poison == self.setup.poison {
                return Ok(Some((other, hops)));
            }
            let (plain, plain_hops) = self.judged(at, setup)?;
            reads.extend(reads_poison(&hops, &plain_hops));
            if !all_hold(&plain_hops) {
                return Ok(Some((plain, plain_hops)));
            }
            if !reads.is_empty() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn fallback_vs_primary(&self, record: &mut Record) -> Result<()> {
        let primary_at: Vec<usize> = self.indices(|kind, at| if kind == AxisKind::Paths { 0 } else { at });
        let fallback = self.ordinary(&self.cell.at)?;
        let primary = self.ordinary(&primary_at)?;
        let hops = judge::judge_against_primary(&fallback, &primary, self.min_cos);
        let mut checks = hop_checks(&hops);
        add_memory_checks(&mut checks, &[&fallback, &primary]);
        record.metrics = metrics(&hops, &checks);
        checks.extend(judge::kernel_check(&fallback));
        let doubt = same_launches(&fallback, &primary);
        self.describe(record, &fallback);
        record.causes = evident(&checks, None, &[], Unsteady::Unknown);
        if hops.iter().any(|h| h.checks.iter().any(|c| !c.ok)) {
            // What is wrong with the fallback is seen on what its own kernels were given.
            let own = judge::judge_hops(&fallback, self.min_cos);
            record.causes.extend(self.diagnose(&fallback, &own));
            self.origins(record, &self.cell.at, [(&fallback, &own[..])].into_iter());
        }
        keep(record, hops, Some(&fallback), &checks);
        let doubt = by_test(&[&fallback, &primary]).or(doubt).or_else(|| constant(&fallback));
        self.settle(record, checks, doubt);
        Ok(())
    }

    /// Says where wrong elements of the first failing hop come from, which only the emulator can. What that shows is the cause
    /// where no other is certain.
    fn origins<'r>(
        &self,
        record: &mut Record,
        at: &[usize],
        mut runs: impl Iterator<Item = (&'r Attempt, &'r [JudgedHop])>,
    ) {
        let failing = |hop: &&JudgedHop| hop.checks.iter().any(|check| !check.ok);
        let found = runs.find_map(|(attempt, hops)| Some((attempt, hops.iter().find(failing)?)));
        let Some((attempt, judged)) = found.filter(|_| self.emulated) else { return };
        let found = origins::look(attempt, judged, || self.attempt(at, attempt.setup.clone()).is_ok());
        record.origins = found.elements;
        self.failing.replace(Some((attempt.setup.clone(), at.to_vec())));
        if let Some(cause) = found.cause.filter(|_| record.causes.iter().all(|cause| !cause.confident)) {
            record.causes.insert(0, cause);
        }
    }

    /// Runs the chain once more and writes what one wave executes, if that was asked for.
    fn trace(&self, record: &Record) -> Option<Traced> {
        let request = self.trace.filter(|_| self.emulated)?;
        let failing = self.failing.borrow().clone();
        let (setup, at) = failing.unwrap_or_else(|| (self.setup.clone(), self.cell.at.to_vec()));
        let traced = emulation::trace(request, focus(record), || drop(self.attempt(&at, setup)));
        // The run was judged before, and says nothing new.
        drop(emulation::take());
        traced
    }

    fn dtype_variant(&self, record: &mut Record) -> Result<()> {
        let axes = self.meta.body.axes.iter().zip(&self.cell.at);
        let first_at: Vec<usize> = axes
            .map(|(axis, &at)| match axis.kind {
                AxisKind::Variants => plan::first_native(axis, self.setup.arch).unwrap_or(at),
                _ => at,
            })
            .collect();
        let variant = self.ordinary(&self.cell.at)?;
        let first = self.ordinary(&first_at)?;
        let hops = judge::judge_hops(&variant, self.min_cos);
        let mut checks = hop_checks(&hops);
        add_memory_checks(&mut checks, &[&variant, &first]);
        let (a, b) = (judge::judge_chain(&first, &[]), judge::judge_chain(&variant, &hops));
        let noise = |c: &judge::Chain| c.noise.rel_l2.unwrap_or(0.0).max(2f64.powi(-24));
        let floor = noise(&a).hypot(noise(&b));
        let between = compare(&first.buffer(first.result).value(), &variant.buffer(variant.result).value());
        checks.push(at_most(CheckName::VariantsAgree, "", between.rel_l2, NOISE_FACTOR * floor));
        // Two formats of the same values have different codes; the same bytes mean that one was ignored.
        let same_codes = first
            .hops()
            .zip(variant.hops())
            .filter(|((_, x), (_, y))| {
                x.dtype != y.dtype && x.dtype.bits() == y.dtype.bits() && x.data == y.data
            })
            .map(|((_, x), _)| x.name.clone())
            .next();
        let mut distinct = none(CheckName::VariantsDiffer, "", 0, "");
        if let Some(name) = same_codes {
            distinct = none(
                CheckName::VariantsDiffer,
                &name,
                1,
                "the same bytes in both formats: the format was ignored",
            );
        }
        checks.push(distinct);
        record.metrics = metrics(&hops, &checks);
        record.metrics.chain_rel_l2 = between.rel_l2;
        record.metrics.chain_cos = between.cos;
        record.metrics.noise_rel_l2 = Some(floor);
        record.metrics.noise_cos = b.noise.cos;
        self.describe(record, &variant);
        record.causes = evident(&checks, None, &[], Unsteady::Unknown);
        record.causes.extend(self.diagnose(&variant, &hops));
        keep(record, hops, Some(&variant), &checks);
        self.settle(record, checks, by_test(&[&variant, &first]).or_else(|| constant(&variant)));
        Ok(())
    }

    /// Whether any byte reacts to a parameter: at the first hop at which it does on some path, it must on this one.
    ///
    /// Later hops are not compared: a consumer that reads what an ignoring producer wrote reacts, but wrongly.
    fn parameter(&self, record: &mut Record) -> Result<()> {
        let axes = &self.meta.body.axes;
        let axis = self.cell.axis.ok_or_else(|| Error::msg("a parameter check names no parameter"))?;
        let name = &axes[axis].name;
        let mut checks = Vec::new();
        let mut own_hops: Vec<JudgedHop> = Vec::new();
        let mut by_itself = None;
        let mut compared = 0;
        let mut seen_attempt = None;
        let mut read_differently = false;
        for others in self.combinations(|i| i != axis && axes[i].kind == AxisKind::Values) {
            // Attempts of each path, the own one first, for every value of the parameter.
            let mut paths: Vec<(String, Vec<Attempt>)> = Vec::new();
            for path in self.path_combinations() {
                let mut attempts = Vec::new();
                for value in 0..axes[axis].labels.len() {
                    let mut at = others.clone();
                    at[axis] = value;
                    for (i, &p) in &path {
                        at[*i] = p;
                    }
                    attempts.push(self.ordinary(&at)?);
                }
                paths.push((self.path_name(&path), attempts));
            }
            fn leaves(a: &Attempt) -> impl Iterator<Item = &Captured> {
                a.buffers.iter().filter(|b| !b.kind.is_written())
            }
            let own = &paths[0].1;
            read_differently |=
                own[1..].iter().any(|a| leaves(a).zip(leaves(&own[0])).any(|(x, y)| x.lies_differently(y)));
            let mut right = true;
            for attempt in &paths[0].1 {
                by_itself = by_itself.or_else(|| by_test(&[attempt]));
                let hops = judge::judge_hops(attempt, self.min_cos);
                right &= hop_checks(&hops).iter().all(|check| check.ok);
                if worst_cos(&hops) < worst_cos(&own_hops) || own_hops.is_empty() {
                    own_hops = hops;
                    seen_attempt = Some(attempt.clone());
                }
            }
            let hop_count = paths[0].1[0].hops().count();
            let Some((hop, reacting)) = (0..hop_count).find_map(|hop| {
                let reacting: Vec<bool> = paths.iter().map(|(_, attempts)| reacts(attempts, hop)).collect();
                reacting.contains(&true).then_some((hop, reacting))
            }) else {
                continue;
            };
            compared += 1;
            let own = &paths[0].1;
            let hop_name = own[0].hops().nth(hop).map_or(String::new(), |(_, b)| b.name.clone());
            // Right results from operands that lie differently are the same bytes, though a wrong path's are not.
            let ignored = !(reacting[0] || read_differently && right);
            let mut check = none(CheckName::Parameter, &hop_name, u64::from(ignored), "");
            if ignored {
                let other = reacting.iter().position(|r| *r).unwrap_or(0);
                let kernel =
                    |attempt: &Attempt| attempt.hops().nth(hop).and_then(|(_, b)| b.kernel).unwrap_or("?");
                let (mine, theirs) = (kernel(&own[0]), kernel(&paths[other].1[0]));
                let values = axes[axis].labels.join(" and ");
                let right = own.iter().position(|attempt| {
                    judge::judge_hops(attempt, self.min_cos)
                        .get(hop)
                        .is_some_and(|h| h.checks.iter().all(|c| c.ok))
                });
                let behaves = right.map_or(String::new(), |v| {
                    format!(", it always does what {} asks for", axes[axis].labels[v])
                });
                let detail = format!(
                    "`{mine}` ignores `{name}`: no byte of `{hop_name}` differs between {values}{behaves}, while `{theirs}` ({}) writes different ones; implement it, forward it, or refuse what is not supported",
                    paths[other].0
                );
                check.detail.clone_from(&detail);
                if record.causes.is_empty() {
                    record.causes.push(Cause {
                        cause: "parameter_ignored".into(),
                        detail,
                        ignored: Some(Ignored { launcher: mine.into(), parameter: name.clone() }),
                        confident: true,
                        ..Cause::default()
                    });
                }
            }
            checks.push(check);
        }
        checks.extend(hop_checks(&own_hops));
        // Right results from operands that lie differently in memory show as well that the parameter is honoured.
        let doubt = (compared == 0 && !read_differently)
            .then(|| format!("no byte reacts to `{name}` on any path: it could not be seen to matter"));
        let doubt = by_itself.or(doubt);
        let mut unwritten = false;
        if own_hops.iter().any(|hop| hop.checks.iter().any(|c| !c.ok)) {
            // What was not written is told as that, not as the number that the poison is.
            let (first, second) = (self.ordinary(&self.cell.at)?, self.second(&self.cell.at)?);
            let found = judge::unwritten_checks(&first, &second);
            unwritten = found.iter().any(|c| !c.ok);
            checks.extend(found);
            record.causes.extend(evident(&checks, Some((&first, &second)), &[], Unsteady::Unknown));
        } else {
            record.causes.extend(evident(&checks, None, &[], Unsteady::Unknown));
        }
        record.metrics = metrics(&own_hops, &checks);
        if let Some(attempt) = &seen_attempt {
            self.describe(record, attempt);
            if !unwritten {
                record.causes.extend(self.diagnose(attempt, &own_hops));
            }
        }
        keep(record, own_hops, seen_attempt.as_ref(), &checks);
        self.settle(record, checks, doubt);
        Ok(())
    }

    fn diagnose(&self, attempt: &Attempt, hops: &[JudgedHop]) -> Vec<Cause> {
        diagnose(&Evidence {
            first: (attempt, hops),
            second: None,
            probe: None,
            second_probe: None,
            one_sign: None,
            min_cos: self.min_cos,
        })
        .causes
    }

    /// Whether the first hop that is wrong holds what is right for another value of a parameter.
    fn ignored_values(&self, record: &mut Record, attempt: &Attempt, hops: &[JudgedHop]) -> Result<()> {
        let axes = &self.meta.body.axes;
        let Some(wrong) = hops.iter().position(|h| h.checks.iter().any(|c| !c.ok)) else { return Ok(()) };
        let here = attempt.buffer(hops[wrong].id);
        for (i, axis) in axes.iter().enumerate().filter(|(_, axis)| axis.kind == AxisKind::Values) {
            for value in (0..axis.labels.len()).filter(|&value| value != self.cell.at[i]) {
                let mut at = self.cell.at.clone();
                at[i] = value;
                // A value that this path refuses is none that it behaves as.
                let Ok(other) = self.ordinary(&at) else { continue };
                let Some((id, there)) = other.hops().nth(wrong) else { continue };
                let alike = there.name == here.name && there.data == here.data && there.scales == here.scales;
                if !alike
                    || judge::judge_hops(&other, self.min_cos)
                        .iter()
                        .any(|h| h.id == id && !judge::failed(&h.checks).is_empty())
                {
                    continue;
                }
                let (own, theirs) = (&axis.labels[self.cell.at[i]], &axis.labels[value]);
                let kernel = here.kernel.unwrap_or("the kernel");
                let detail = format!(
                    "`{kernel}` does for `{}` = {own} what it should for {theirs}: `{}` is the same, byte by byte",
                    axis.name, here.name
                );
                let cause = "parameter_ignored".into();
                record.causes.insert(
                    0,
                    Cause { cause, detail, score: Some(1.0), confident: true, ..Cause::default() },
                );
            }
        }
        Ok(())
    }

    /// The cell's indices, each passed through `f`.
    fn indices(&self, f: impl Fn(AxisKind, usize) -> usize) -> Vec<usize> {
        self.meta.body.axes.iter().zip(&self.cell.at).map(|(axis, &at)| f(axis.kind, at)).collect()
    }

    /// Every combination of the chosen axes, the others as the cell has them.
    fn combinations(&self, chosen: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
        let mut all = vec![self.cell.at.clone()];
        for (i, axis) in self.meta.body.axes.iter().enumerate().filter(|(i, _)| chosen(*i)) {
            all = all
                .into_iter()
                .flat_map(|at| {
                    (0..axis.labels.len()).map(move |v| {
                        let mut at = at.clone();
                        at[i] = v;
                        at
                    })
                })
                .collect();
        }
        all
    }

    /// Indices on the paths axes: the cell's own first, then every other combination.
    fn path_combinations(&self) -> Vec<HashMap<usize, usize>> {
        let axes = &self.meta.body.axes;
        let is_path = |i: usize| axes[i].kind == AxisKind::Paths;
        let mut all: Vec<Vec<usize>> = self.combinations(is_path);
        all.sort_by_key(|at| *at != self.cell.at);
        all.into_iter().map(|at| at.into_iter().enumerate().filter(|(i, _)| is_path(*i)).collect()).collect()
    }

    fn path_name(&self, path: &HashMap<usize, usize>) -> String {
        let mut parts: Vec<_> =
            path.iter().map(|(&i, &at)| (i, &self.meta.body.axes[i].labels[at])).collect();
        parts.sort();
        parts.into_iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Dimensions of the chain: those of its end, and the length of its products where it has any.
    fn describe(&self, record: &mut Record, attempt: &Attempt) {
        let end = attempt.buffer(attempt.result);
        record.shape.insert("m".into(), end.rows as u64);
        record.shape.insert("n".into(), end.cols as u64);
        let weight = attempt.buffers.iter().find(|b| b.kind == Kind::Weight && b.rows > 1);
        if let Some(weight) = weight {
            record.shape.insert("k".into(), weight.cols as u64);
        }
    }

    /// Verdict and gate from the checks.
    fn settle(&self, record: &mut Record, checks: Vec<CheckResult>, doubt: Option<String>) {
        record.failed_checks = judge::failed(&checks);
        record.verdict = verdict::tier(record.metrics.cos, self.min_cos);
        record.margin = record.metrics.cos.map(|c| c - self.min_cos);
        record.reason = reason(&checks);
        if record.failed_checks.is_empty() && record.verdict == Verdict::Correct {
            record.gate = Gate::Pass;
            if let Some(doubt) = doubt {
                record.gate = Gate::Fail;
                record.verdict = Verdict::Inconclusive;
                record.reason = doubt;
            }
        } else {
            record.gate = Gate::Fail;
        }
        record.checks = checks.into();
    }
}

/// Why a fallback was not compared with its primary, if so: both called the same launchers, or a launcher of each
/// came down to the same kernels.
fn same_launches(fallback: &Attempt, primary: &Attempt) -> Option<String> {
    let pairs: Vec<_> = fallback
        .launches
        .iter()
        .zip(&primary.launches)
        .filter(|(a, b)| (a.package, a.launcher) != (b.package, b.launcher))
        .collect();
    if pairs.is_empty() && fallback.launches.len() == primary.launches.len() {
        let list: Vec<_> = primary.launches.iter().map(|l| l.launcher).collect();
        return Some(format!(
            "fallback and primary made the same launches ({}): nothing was compared",
            list.join(", ")
        ));
    }
    let same = |kernels: &Option<Vec<String>>, others: &Option<Vec<String>>| {
        kernels.as_ref().is_some_and(|k| !k.is_empty() && !k.contains(&"?".into())) && kernels == others
    };
    // One kernel may do several things, as an argument says: another argument or grid, or other bytes, are another path.
    let configured = |a: &Launch, b: &Launch| {
        let known = a.configurations.iter().chain(&b.configurations).all(Option::is_some);
        known && a.configurations != b.configurations
    };
    let declared = |a: &Launch, b: &Launch| a.expected.is_some() && b.expected.is_some();
    let other_bytes = fallback.hops().zip(primary.hops()).any(|((_, a), (_, b))| !a.same_bytes(b));
    // Where a pair differs the fallback was compared, whatever the others have in common.
    let alike = |a: &Launch, b: &Launch| same(&a.kernels, &b.kernels) && !configured(a, b) && !declared(a, b);
    let all_same = !other_bytes && !pairs.is_empty() && pairs.iter().all(|(a, b)| alike(a, b));
    all_same.then(|| {
        let (a, b) = pairs[0];
        let kernels = a.kernels.as_deref().unwrap_or_default().join(", ");
        format!(
            "fallback `{}` and primary `{}` launched the same kernel ({kernels}) and wrote the same bytes: nothing was \
             compared; if the kernel takes another path by an argument, say so with #[expect_kernel = \"..\"] on both",
            a.launcher, b.launcher
        )
    })
}

/// The first check that failed; of its buffer what was not written comes first, which is wrong by the other checks too,
/// and by whatever the poison is as a number.
fn reason(checks: &[CheckResult]) -> String {
    let mut wrong = checks.iter().filter(|c| !c.ok);
    let first = wrong.next();
    let unwritten =
        wrong.find(|c| c.check == CheckName::Unwritten && first.is_some_and(|first| first.hop == c.hop));
    unwritten.or(first).map_or(String::new(), |c| {
        let hop = if c.hop.is_empty() { "chain" } else { &c.hop };
        let detail = if c.detail.is_empty() { String::new() } else { format!(": {}", c.detail) };
        format!("{} of {hop}{detail}", c.check)
    })
}

/// Puts what was found out about the hops of a run into the record, with a picture of them if something is wrong.
fn keep(record: &mut Record, hops: Vec<JudgedHop>, attempt: Option<&Attempt>, checks: &[CheckResult]) {
    let wrong = checks.iter().any(|check| !check.ok);
    record.hops.extend(hops.into_iter().map(|judged| {
        let picture = |attempt: &Attempt| {
            let buffer = attempt.buffer(judged.id);
            let reference = match buffer.scheme {
                Some(_) => Cow::Borrowed(&*judged.reference),
                None => judge::round_overflow(&judged.reference, buffer.dtype),
            };
            ErrorMap::new(&reference, &buffer.value())
        };
        Hop { error_map: attempt.filter(|_| wrong).map(|a| Box::new(picture(a))), ..judged.hop }
    }));
}

/// Whether a hop's bytes differ between any two runs.
fn reacts(attempts: &[Attempt], hop: usize) -> bool {
    fn bytes(attempt: &Attempt, hop: usize) -> Option<(&[u8], &[u8])> {
        attempt.hops().nth(hop).map(|(_, b)| (&b.data[..], &b.scales[..]))
    }
    attempts[1..].iter().any(|a| bytes(a, hop) != bytes(&attempts[0], hop))
}

fn worst_cos(hops: &[JudgedHop]) -> f64 {
    hops.iter().map(|h| h.hop.cos.unwrap_or(-2.0)).fold(2.0, |a, b| if b < a { b } else { a })
}

fn hop_checks(hops: &[JudgedHop]) -> Vec<CheckResult> {
    hops.iter().flat_map(|h| h.checks.iter().cloned()).collect()
}

fn all_hold(hops: &[JudgedHop]) -> bool {
    hops.iter().all(|hop| hop.checks.iter().all(|check| check.ok))
}

/// The first hop that is wrong where memory held NaN and infinities before the launch and right where it held numbers.
fn reads_poison(special: &[JudgedHop], plain: &[JudgedHop]) -> Option<CheckResult> {
    let holds = |hop: &JudgedHop| hop.checks.iter().all(|check| check.ok);
    let (hop, _) = special.iter().zip(plain).find(|(special, plain)| !holds(special) && holds(plain))?;
    let why = "wrong where memory held NaN and infinities before the launch, right where it held numbers: a kernel reads what \
               nobody has written, such as an output that it multiplies by zero";
    Some(none(CheckName::Repeat, &hop.hop.name, 1, why))
}

/// The memory checks of several runs: each once, as it failed if it did in any of them.
fn add_memory_checks(checks: &mut Vec<CheckResult>, attempts: &[&Attempt]) {
    for check in attempts.iter().flat_map(|a| judge::memory_checks(a)) {
        match checks.iter_mut().find(|c| c.check == check.check) {
            Some(known) if known.ok && !check.ok => *known = check,
            Some(_) => {}
            None => checks.push(check),
        }
    }
}

/// On cancelling data the relative L2 speaks of the accumulator; NaN and Inf of the special codes in the weights.
fn probe_checks(hops: &[JudgedHop]) -> Vec<CheckResult> {
    let mut checks = Vec::new();
    for judged in hops {
        for check in &judged.checks {
            let name = match &check.check {
                // Without a value there is a NaN or Inf, which is a failure of its own.
                CheckName::RelL2 if check.value.is_some() => CheckName::Accumulation,
                own @ (CheckName::Nan
                | CheckName::Inf
                | CheckName::ZeroRows
                | CheckName::Elements
                | CheckName::Codes
                | CheckName::Scales) => own.clone(),
                _ => continue,
            };
            let mut check = CheckResult { check: name, ..check.clone() };
            if !check.ok {
                let data = match check.check {
                    CheckName::Nan | CheckName::Inf => {
                        "data whose large terms cancel, NaN and Inf codes in 8-bit weights"
                    }
                    _ => "data whose large terms cancel",
                };
                check.detail = format!("{} ({data})", check.detail).trim_start().into();
            }
            checks.push(check);
        }
    }
    checks
}

/// What fails on data that is not the ordinary one.
fn only_failed(hops: &[JudgedHop], on: &str) -> Vec<CheckResult> {
    let mut failed = hop_checks(hops);
    failed.retain(|check| !check.ok);
    for check in &mut failed {
        check.detail = format!("{} ({on})", check.detail).trim_start().into();
    }
    failed
}

/// The worst over the hops.
fn metrics(hops: &[JudgedHop], checks: &[CheckResult]) -> Metrics {
    let mut out = Metrics::default();
    if let Some(worst) =
        hops.iter().min_by(|a, b| a.hop.cos.unwrap_or(-2.0).total_cmp(&b.hop.cos.unwrap_or(-2.0)))
    {
        out.cos = worst.hop.cos;
    }
    // A hop with a zero reference has no row to be the worst.
    if let Some(worst) = hops
        .iter()
        .filter(|h| h.hop.row_min_index.is_some())
        .min_by(|a, b| a.hop.cos_row_min.unwrap_or(-2.0).total_cmp(&b.hop.cos_row_min.unwrap_or(-2.0)))
    {
        (out.cos_row_min, out.row_min_index) = (worst.hop.cos_row_min, worst.hop.row_min_index);
    }
    let off = |g: Option<f64>| g.map_or(f64::INFINITY, |g| (g - 1.0).abs());
    if let Some(worst) = hops.iter().max_by(|a, b| off(a.hop.gain).total_cmp(&off(b.hop.gain))) {
        out.gain = worst.hop.gain;
    }
    let rel = |r: Option<f64>| r.unwrap_or(f64::INFINITY);
    if let Some(worst) = hops.iter().max_by(|a, b| rel(a.hop.rel_l2).total_cmp(&rel(b.hop.rel_l2))) {
        out.rel_l2 = worst.hop.rel_l2;
    }
    out.reference_error = hops.iter().filter_map(|h| h.hop.reference_error).reduce(ReferenceError::worst);
    let total = |name: CheckName| {
        checks.iter().filter(|c| c.check == name).filter_map(|c| c.value).sum::<f64>() as u64
    };
    out.nan_unexpected = total(CheckName::Nan);
    out.inf_unexpected = total(CheckName::Inf);
    out.unwritten = total(CheckName::Unwritten);
    let holds = |name: CheckName| {
        let mut of_name = checks.iter().filter(|c| c.check == name).peekable();
        of_name.peek().is_some().then(|| of_name.all(|c| c.ok))
    };
    out.guards_intact = holds(CheckName::Guards);
    out.repeat_bitwise = holds(CheckName::Repeat);
    out
}

fn record_power(record: &Record) -> Option<String> {
    let unseen: Vec<String> = record
        .power
        .iter()
        .filter(|p| p.status == PowerStatus::Unseen)
        .map(|p| match &*p.detail {
            "" => format!("{} of `{}`", p.fault, p.operand),
            detail => format!("{} of `{}` ({detail})", p.fault, p.operand),
        })
        .collect();
    if !unseen.is_empty() {
        return Some(format!("the checks would not have seen: {}", unseen.join(", ")));
    }
    let applicable = record.power.iter().any(|p| p.status == PowerStatus::Seen);
    (!applicable).then(|| "no fault of the list applies to this case: it could not have failed".into())
}

/// Why a case proves nothing, if so.
fn inconclusive(power: Option<String>, attempt: &Attempt) -> Option<String> {
    constant(attempt).or(power)
}

/// Why a run says nothing of any kernel, if so: what should be judged was not written by a launcher.
fn by_test(attempts: &[&Attempt]) -> Option<String> {
    const ADVICE: &str = "a kernel that is not bound with #[kernel_library] or #[code_object] is not seen; declare what the \
                          test itself gives with cx.constants(..) or cx.indices(..)";
    let written = attempts.iter().flat_map(|attempt| &attempt.buffers).find(|buffer| buffer.by_test);
    if let Some(buffer) = written {
        return Some(format!(
            "`{}` holds what the test itself wrote there, and no launcher: {ADVICE}",
            buffer.name
        ));
    }
    let idle = attempts.iter().any(|attempt| attempt.launches.is_empty());
    idle.then(|| format!("no launcher was called: {ADVICE}"))
}

fn constant(attempt: &Attempt) -> Option<String> {
    attempt
        .buffers
        .iter()
        // Constants and indices are what the test needs them to be.
        .filter(|b| !b.kind.is_written() && !matches!(b.kind, Kind::Constant | Kind::Index))
        // So are the zeros of `Case::zeros`, which a kernel adds to.
        .filter(|b| b.kind != Kind::Before || b.value().data.iter().any(|x| *x != 0.0))
        .find(|b| b.is_constant())
        .map(|b| format!("constant data: all elements of `{}` are the same", b.name))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
        .unwrap_or_else(|| "without a message".into())
}

/// Opens a checkpoint, once for each process.
fn open(path: &Path) -> Result<Checkpoint> {
    static OPEN: OnceLock<Mutex<HashMap<PathBuf, Checkpoint>>> = OnceLock::new();
    let mut open = OPEN.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
    if let Some(checkpoint) = open.get(path) {
        return Ok(checkpoint.clone());
    }
    let checkpoint = Checkpoint::open(path)?;
    open.insert(path.into(), checkpoint.clone());
    Ok(checkpoint)
}

/// Recorded activations: `file.safetensors#tensor`.
fn recorded(dir: &Path, place: &str) -> Result<Arc<Matrix>> {
    let Some((file, tensor)) = place.rsplit_once('#') else {
        return Err(Error::msg(format!("activations = {place:?}: expected \"file.safetensors#tensor\"")));
    };
    let checkpoint = open(&dir.join(file))?;
    let stored = checkpoint.linear(tensor)?;
    Ok(Arc::new(Matrix::new(stored.rows, stored.cols, stored.values())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::none;

    #[test]
    fn what_was_not_written_is_the_reason_before_the_number_that_the_poison_is() {
        let zero_rows = none(CheckName::ZeroRows, "y", 1, "row 8 is not zero");
        assert_eq!(reason(std::slice::from_ref(&zero_rows)), "zero_rows of y: row 8 is not zero");
        let unwritten = none(CheckName::Unwritten, "y", 3, "elements or scales still hold the poison");
        let checks = [none(CheckName::Cos, "xq", 0, ""), zero_rows, unwritten];
        assert_eq!(reason(&checks), "unwritten of y: elements or scales still hold the poison");
        assert_eq!(reason(&checks[..1]), "");
        // An earlier buffer that is wrong comes before it.
        let earlier = [&[none(CheckName::Codes, "xq", 1, "")], &checks[..]].concat();
        assert_eq!(reason(&earlier), "codes of xq");
    }
}
