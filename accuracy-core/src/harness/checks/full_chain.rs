//! The check of a whole chain: its runs on several data, what holds in each of them, and what explains what does not.

use super::*;

/// A run, and how its hops are judged.
type Judged = (Attempt, Vec<JudgedHop>);

/// The runs of a chain.
struct Runs {
    /// On ordinary data.
    first: Attempt,
    /// How its hops are judged.
    hops: Vec<JudgedHop>,
    /// The same with everything that is not declared otherwise.
    second: Attempt,
    /// On data whose large terms cancel.
    probe: Option<Judged>,
    second_probe: Option<Attempt>,
    /// On other ordinary data, where that fails.
    other: Option<Judged>,
    /// On data of one sign.
    sums: Option<Judged>,
    /// On data at both ends of its format's range.
    extremes: Option<Judged>,
    /// What a kernel keeps from one launch to the next, and when that shows.
    kept: Option<(CheckResult, &'static str)>,
    /// Fails only where memory holds NaN and infinities before it is written.
    reads_special: bool,
}

fn of(judged: &Judged) -> (&Attempt, &[JudgedHop]) {
    (&judged.0, &judged.1)
}

impl Runs {
    fn probe(&self) -> Option<(&Attempt, &[JudgedHop])> {
        self.probe.as_ref().map(of)
    }

    /// Whether nothing is wrong on the ordinary data.
    fn ordinary_holds(&self) -> bool {
        hop_checks(&self.hops).iter().all(|check| check.ok)
    }
}

impl Runner<'_> {
    pub(super) fn full_chain(&self, record: &mut Record) -> Result<()> {
        let at = &self.cell.at;
        let first = self.ordinary(at)?;
        let second = self.second(at)?;
        if let Some(watch) = self.more_to_watch(&[&first, &second]) {
            let setup = Setup { watch, ..self.setup.clone() };
            return Runner { setup, ..self.clone() }.full_chain(record);
        }
        let mut checks = Vec::new();
        let runs = self.runs(record, first, second, &mut checks)?;
        let drawn = self.setup.drawn.is_some();
        self.measure(record, &runs, &mut checks);
        self.describe(record, &runs.first);
        let explained = match judge::failed(&checks).is_empty() {
            true => Vec::new(),
            false => self.explain(record, &runs),
        };
        self.add_evident(record, &runs, &checks, explained)?;
        if !judge::failed(&checks).is_empty() {
            self.ignored_values(record, &runs.first, &runs.hops)?;
        }
        let planted = match self.selftest {
            true => selftest(&runs.first, &runs.hops, runs.probe()),
            false => Vec::new(),
        };
        let Runs { first, second, hops, kept, .. } = runs;
        if let Some((check, when)) = kept {
            record.causes.insert(0, stale_state(&check, when));
            let told =
                |other: &CheckResult| other.check == check.check && other.hop == check.hop && !other.ok;
            if !checks.iter().any(told) {
                checks.push(check);
            }
        }
        keep(record, hops, Some(&first), &checks);
        // What the checks can see is shown by the listed cases of a test. A drawn shape or its values may hide a fault.
        let blind = || inconclusive(record_power(record), &first).filter(|_| !drawn);
        let doubt = by_test(&[&first, &second]).or_else(blind);
        self.settle(record, checks, doubt);
        record.power.extend(planted);
        Ok(())
    }

    /// Runs the chain on each kind of data, and adds what is checked in each run.
    fn runs(
        &self,
        record: &Record,
        first: Attempt,
        second: Attempt,
        checks: &mut Vec<CheckResult>,
    ) -> Result<Runs> {
        let at = &self.cell.at;
        let bound = self.bound();
        let hops = judge::judge_hops(&first, self.min_cos);
        if let Some(dir) = self.keep_tensors {
            tensors::keep(dir, &record.id, &first, &hops)?;
        }
        checks.extend(hop_checks(&hops));
        checks.extend(judge::kernel_check(&first));
        add_memory_checks(checks, &[&first, &second]);
        checks.extend(repeated(&first, &second, bound));
        for _ in 1..self.repeat {
            checks.extend(judge::repeat_checks(&first, &self.ordinary(at)?, bound));
        }
        let probe = self.probe(at)?;
        // Where large terms cancel the order of a sum shows, which rounding the output hides on ordinary data.
        let mut second_probe = None;
        if let (Some(probe), None) = (&probe, bound) {
            let again = self.attempt(at, probe.setup.clone())?;
            checks.extend(judge::repeat_checks(probe, &again, None));
            second_probe = Some(again);
        }
        // NaN and infinities show a kernel that reads what nobody wrote, even where it multiplies by zero. One that has shown
        // already is judged further on what it does with numbers.
        let steady =
            checks.iter().all(|c| c.ok || !matches!(c.check, CheckName::Unwritten | CheckName::Repeat));
        let poison = if steady { self.special_poison } else { self.setup.poison };
        let mut reads = Vec::new();
        let other = match probe {
            None => self.other_data(at, poison, &mut reads)?,
            Some(_) => None,
        };
        checks.extend(other.iter().flat_map(|(_, hops)| only_failed(hops, "other inputs")));
        let probe = probe.map(|probe| {
            let hops = judge::judge_hops(&probe, self.min_cos);
            (probe, hops)
        });
        if let Some((probe, hops)) = &probe {
            add_memory_checks(checks, &[probe]);
            checks.extend(probe_checks(hops));
        }
        let mut sums = probe.as_ref().map(|_| self.one_sign(at, poison)).transpose()?;
        if let Some((_, special)) = sums.as_ref().filter(|(_, hops)| steady && !all_hold(hops)) {
            let plain = self.one_sign(at, self.setup.poison)?;
            reads.extend(reads_poison(special, &plain.1));
            sums = Some(plain);
        }
        checks.extend(sums.iter().flat_map(|(_, hops)| only_failed(hops, "data of one sign")));
        let reads_special = !reads.is_empty();
        checks.extend(reads);
        let extremes = self.extremes(at, &first)?;
        checks.extend(extremes.iter().flat_map(|(_, hops)| only_failed(hops, EXTREMES)));
        // The data of the first run once more, behind runs on other data.
        let last = self.ordinary(at)?;
        let kept = self.kept(at, [&first, &second, &last])?;
        Ok(Runs { first, hops, second, probe, second_probe, other, sums, extremes, kept, reads_special })
    }

    /// The figures of a case, and which faults its checks would have seen.
    fn measure(&self, record: &mut Record, runs: &Runs, checks: &mut Vec<CheckResult>) {
        let chain = judge::judge_chain(&runs.first, &runs.hops);
        checks.push(chain.check.clone());
        record.metrics = metrics(&runs.hops, checks);
        record.metrics.chain_rel_l2 = chain.chain.rel_l2;
        record.metrics.chain_cos = chain.chain.cos;
        record.metrics.noise_rel_l2 = chain.noise.rel_l2;
        record.metrics.noise_cos = chain.noise.cos;
        if self.setup.drawn.is_none() {
            record.power = power(&runs.first, &runs.hops, runs.probe(), self.min_cos).into();
        }
    }

    /// Looks for the causes of what fails, and for where wrong elements come from. Says which hops' failures are explained.
    fn explain(&self, record: &mut Record, runs: &Runs) -> Vec<String> {
        // On cancelling data a small cosine is no fault.
        let on_probe = runs.probe().filter(|(_, hops)| probe_checks(hops).iter().any(|c| !c.ok));
        let evidence = Evidence {
            first: (&runs.first, &runs.hops),
            second: Some(&runs.second),
            probe: on_probe,
            second_probe: runs.second_probe.as_ref(),
            one_sign: runs.sums.as_ref().map(of),
            min_cos: self.min_cos,
        };
        let found = diagnose(&evidence);
        record.causes = found.causes;
        // What the ordinary inputs do not show.
        let ordinary = runs.ordinary_holds();
        if let Some((other, hops)) = runs.other.as_ref().filter(|_| ordinary && record.causes.is_empty()) {
            record.causes = self.diagnose(other, hops);
        }
        // Right on the first data and wrong on later data: a result, or a part of one, may have been kept.
        let later = [&runs.probe, &runs.sums, &runs.other, &runs.extremes].into_iter().flatten();
        let mut later = later.map(of).filter(|_| ordinary);
        if let Some(cause) = later.find_map(|later| kept_from_first(&runs.first, later)) {
            record.causes.insert(0, cause);
        }
        if let Some((extremes, hops)) =
            runs.extremes.as_ref().filter(|_| ordinary && record.causes.is_empty())
        {
            record.causes = self.diagnose(extremes, hops);
        }
        let others = [&runs.sums, &runs.other, &runs.extremes].into_iter().flatten().map(of);
        let all = std::iter::once((&runs.first, &runs.hops[..])).chain(on_probe).chain(others);
        self.origins(record, &self.cell.at, all);
        found.explained
    }

    /// Adds the causes that follow from the checks alone, but for what is explained already.
    fn add_evident(
        &self,
        record: &mut Record,
        runs: &Runs,
        checks: &[CheckResult],
        mut explained: Vec<String>,
    ) -> Result<()> {
        let at = &self.cell.at;
        let bound = self.bound();
        let Runs { first, second, .. } = runs;
        // Runs that differ under the same poison are what they seem.
        let repeats = |a: &Attempt, b: &Attempt| judge::failed(&judge::repeat_checks(a, b, bound)).is_empty();
        let mut same_poison = runs.probe.iter().zip(&runs.second_probe);
        let same = same_poison.all(|((probe, _), again)| repeats(probe, again));
        if !same {
            explained.clear();
        }
        let differ = same && !repeats(first, second);
        let unsteady = if runs.reads_special {
            Unsteady::Poison
        } else if !differ {
            Unsteady::Unknown
        } else if self.emulated && repeats(first, &self.other_memory(at)?) {
            Unsteady::WaveOrder
        } else if explained.is_empty() && repeats(first, &self.ordinary(at)?) {
            Unsteady::Poison
        } else {
            Unsteady::Unknown
        };
        // It is told by its own name.
        explained.extend(runs.kept.iter().map(|(check, _)| check.hop.clone()));
        let evident = evident(checks, Some((first, second)), &explained, unsteady);
        // What explains the numbers explains what is read or left where it must not be.
        let at_end = record.causes.iter().any(|c| c.confident);
        let place = if at_end { record.causes.len() } else { 0 };
        record.causes.splice(place..place, evident);
        Ok(())
    }
}

/// Whether everything was written, and twice the same.
fn repeated(first: &Attempt, second: &Attempt, bound: Option<f64>) -> Vec<CheckResult> {
    let mut checks = judge::unwritten_checks(first, second);
    let mut repeat = judge::repeat_checks(first, second, bound);
    for check in repeat.iter_mut().filter(|c| !c.ok) {
        if checks.iter().any(|u| !u.ok && u.hop == check.hop) {
            check.detail = "two runs differ where nobody has written: each holds its own poison".into();
        }
    }
    checks.extend(repeat);
    checks
}
