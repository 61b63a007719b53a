//! What was found, in words and in order.

use super::{Candidate, EXACTLY, Explained, PARTLY, Search, Stated};
use crate::check_name::Mildness;
use crate::diagnose::hypothesis::{Hypothesis, Sense};
use crate::diagnose::map;
use crate::diagnose::output::{self, Fit};
use crate::diagnose::scales;
use crate::record::{Cause, CheckResult};
use crate::reference::BufferId;
use std::collections::BTreeSet;

/// At most this many other hypotheses are reported with a cause, if they predict the same bytes.
const READINGS: usize = 3;

impl<'a> Search<'a, '_> {
    /// The causes, ranked.
    pub fn report(
        &self,
        hypotheses: &[Hypothesis<'a>],
        mut stated: Vec<Stated>,
        fits: &[Fit],
        fitted: Vec<(usize, Explained)>,
    ) -> Vec<Cause> {
        stated.retain_mut(|stated| !stated.explained.nan_only || stated.keep_readings_as_nan(hypotheses));
        stated.sort_by(|a, b| {
            let key =
                |s: &Stated| (s.explained.whole, -(s.candidate.holding.len() as i64), !s.candidate.in_region);
            key(b).cmp(&key(a)).then(b.explained.score.total_cmp(&a.explained.score))
        });
        let kernel = self.hop.buffer.kernel.map_or("the kernel".to_owned(), |k| format!("`{k}`"));
        let mut causes: Vec<Cause> = Vec::new();
        // What needs fewer faults is likelier.
        // A factor where the output is wrong is two things, as a hypothesis is that holds there only.
        let of_fit = |fit: &Fit| 1 + usize::from(fit.gain.is_some() && !self.map.is_everywhere());
        // A factor of each row is what is seen of whatever else explains it.
        let nameless = |fit: &Fit| fit.cause == "gain" && fit.gain.is_none();
        let fits_whole = fitted.iter().filter(|(i, e)| e.whole && !nameless(&fits[*i]));
        let fits_whole = fits_whole.map(|(i, _)| of_fit(&fits[*i])).min();
        let least =
            stated.iter().filter(|s| s.explained.whole).map(|s| s.candidate.faults()).chain(fits_whole).min();
        let certain: Vec<&Stated> =
            stated.iter().filter(|s| s.explained.whole && Some(s.candidate.faults()) == least).collect();
        let whole_fits: Vec<&(usize, Explained)> = fitted.iter().filter(|(_, e)| e.whole).collect();
        for s in &certain {
            let others =
                certain.iter().any(|o| self.first_cause(hypotheses, o) != self.first_cause(hypotheses, s));
            causes.extend(self.causes_of(hypotheses, s, &kernel, others));
        }
        for (i, explained) in whole_fits {
            let fit = &fits[*i];
            // A hypothesis that says more than the fit stands for it, unless many faults make the same factor.
            let common = fit.gain.is_some_and(output::is_common);
            if !certain.is_empty() && !common {
                continue;
            }
            if fit.gain.is_some() && !certain.is_empty() {
                for cause in causes.iter_mut().filter(|c| c.cause != "gain") {
                    cause.confident = false;
                    cause.detail +=
                        &format!(" (a constant factor of {} explains it as well)", factor_of(fit));
                }
                // Only a format or a scale is likelier than the factor itself.
                let likelier = ["fp8_variant", "scale_missing", "scale_inverted", "gain"];
                if !causes.iter().any(|c| likelier.contains(&c.cause.as_str())) {
                    let mut gain = self.cause_of_fit(fit, explained, false);
                    gain.confident = causes.iter().all(|c| c.cause == "k_tail_dropped");
                    causes.insert(0, gain);
                }
                continue;
            }
            if nameless(fit) && !causes.is_empty() {
                continue;
            }
            // The first fit is the simplest.
            if !causes.iter().any(|c| c.cause == fit.cause) {
                causes.push(self.cause_of_fit(fit, explained, causes.is_empty()));
            }
        }
        if !causes.is_empty() {
            return causes;
        }
        // Nothing explains all of it.
        // What makes most of the wrong elements exactly as they are is no accident, whatever becomes of the others.
        let share =
            |s: &Stated| if s.exact >= EXACTLY { s.explained.score.max(0.95) } else { s.explained.score };
        let partly = |causes: &mut Vec<Cause>, least: f64, most: f64| {
            let mut of: Vec<&Stated> = stated.iter().filter(|s| (least..most).contains(&share(s))).collect();
            of.sort_by(|a, b| b.exact.total_cmp(&a.exact));
            for s in of.into_iter().take(2) {
                let share = 100.0 * s.explained.score;
                for mut cause in self.causes_of(hypotheses, s, &kernel, true) {
                    cause.detail = match s.exact >= EXACTLY {
                        true => format!(
                            "explains {share:.0} % of the error, {:.0} % of the elements exactly: {}",
                            100.0 * s.exact,
                            cause.detail
                        ),
                        false => format!("explains {share:.0} % of the error: {}", cause.detail),
                    };
                    causes.push(cause);
                }
            }
            for (i, explained) in fitted.iter().filter(|(_, e)| (least..most).contains(&e.score)).take(1) {
                let mut cause = self.cause_of_fit(&fits[*i], explained, false);
                cause.detail =
                    format!("explains {:.0} % of the error: {}", 100.0 * explained.score, cause.detail);
                causes.push(cause);
            }
        };
        partly(&mut causes, 0.95, f64::INFINITY);
        causes.extend(self.lost_bits());
        causes.push(self.unknown());
        partly(&mut causes, PARTLY, 0.95);
        causes
    }

    fn first_cause(&self, hypotheses: &[Hypothesis<'a>], stated: &Stated) -> &'static str {
        hypotheses[stated.candidate.holding[0]].cause
    }

    pub fn unknown(&self) -> Cause {
        let content = map::content(self.map, &self.hop.reference, &self.hop.out);
        let content = content.map_or(String::new(), |what| format!(" and {what} there"));
        Cause {
            cause: "unknown".into(),
            detail: format!("`{}` is wrong {}{content}", self.hop.buffer.name, self.place.located()),
            ..Cause::default()
        }
    }

    /// Small errors everywhere, of no structure: bits were lost somewhere in between.
    fn lost_bits(&self) -> Option<Cause> {
        let only = |c: &CheckResult| c.ok || c.check.mildness() <= Mildness::Slight;
        let spread = self.map.count * 10 >= self.map.rows * self.map.cols
            && self.map.wrong_rows().len() * 2 >= self.map.rows;
        if !spread || !self.hop.judged.checks.iter().all(only) || !self.is_noise() {
            return None;
        }
        Some(Cause {
            cause: "accumulation".into(),
            detail: format!(
                "`{}` has small errors everywhere that follow no operand and no order: sums or intermediate results in too few bits",
                self.hop.buffer.name
            ),
            ..Cause::default()
        })
    }

    /// Whether errors are as large in all rows and go with no value: those of another function are not.
    fn is_noise(&self) -> bool {
        let mut shares = Vec::new();
        let (mut xx, mut dd, mut xd) = (0.0, 0.0, 0.0);
        for r in 0..self.hop.out.rows {
            let (mut of_values, mut of_errors) = (0.0, 0.0);
            for (&x, &y) in self.hop.reference.row(r).iter().zip(self.hop.out.row(r)) {
                if x.is_finite() && y.is_finite() {
                    of_values += x * x;
                    of_errors += (y - x).powi(2);
                    xd += x * (y - x);
                }
            }
            (xx, dd) = (xx + of_values, dd + of_errors);
            if of_values > 0.0 {
                shares.push((of_errors / of_values).sqrt());
            }
        }
        shares.sort_by(f64::total_cmp);
        let Some(&median) = shares.get(shares.len() / 2) else { return false };
        let alike = shares.iter().filter(|s| (median / 8.0..=median * 8.0).contains(*s)).count();
        alike * 8 >= shares.len() * 7 && xd * xd <= 0.25 * xx * dd
    }

    fn cause_of_fit(&self, fit: &Fit, explained: &Explained, confident: bool) -> Cause {
        let region = if self.map.is_everywhere() { String::new() } else { format!(", in {}", self.place) };
        // Which fault makes a factor of each row is another question.
        let nameless = fit.cause == "gain" && (fit.gain.is_none() || self.place.is_scattered());
        // Threads that race for a sum lose addends, in some elements the same ones in every run.
        let lost = fit.cause.starts_with("addend") && !self.hop.unsteady.is_empty();
        // But for a few codes, the other reading of an operand's format is a factor of its bias.
        let as_format = fit.gain.is_some_and(|gain| self.is_bias_of_an_operand(gain));
        let what = fit.what.and(&region);
        Cause {
            cause: fit.cause.into(),
            detail: format!("`{}` {what}{}", self.hop.buffer.name, self.own_factor(fit)),
            what,
            cos: explained.cos,
            score: Some(explained.score),
            confident: confident && explained.whole && !nameless && !lost && !as_format && !fit.is_guess,
            moves_columns: fit.of_columns,
            ..Cause::default()
        }
    }

    /// Whether a factor is what one or two operands in the other reading of their format would make, as e4m3fnuz for e4m3fn.
    fn is_bias_of_an_operand(&self, gain: f64) -> bool {
        let two_readings = |id: BufferId| self.hop.attempt.buffer(id).dtype.twin().is_some();
        let is = |of: f64| (gain / of - 1.0).abs() < 1e-3;
        [0.25, 0.5, 2.0, 4.0].into_iter().any(is) && self.hop.source.buffers().into_iter().any(two_readings)
    }

    /// Of which operand's one scale a factor is.
    fn own_factor(&self, fit: &Fit) -> String {
        let Some(gain) = fit.gain else { return String::new() };
        let is = |of: f64| (gain / of - 1.0).abs() < 5e-4;
        let of = self.hop.source.buffers().into_iter().find_map(|id| {
            let operand = self.hop.attempt.buffer(id);
            let scale = scales::of_tensor(operand).unwrap_or(operand.factor);
            (is(scale) || is(1.0 / scale)).then_some((&operand.name, scale))
        });
        match of {
            Some((name, scale)) if is(scale) => {
                format!("; the scale of `{name}` is {scale}: it is applied twice")
            }
            Some((name, scale)) => format!("; the scale of `{name}` is {scale}: it is not applied"),
            None => String::new(),
        }
    }

    /// One cause for each hypothesis that holds.
    fn causes_of(
        &self,
        hypotheses: &[Hypothesis<'a>],
        stated: &Stated,
        kernel: &str,
        ambiguous: bool,
    ) -> Vec<Cause> {
        let candidate = &stated.candidate;
        let own = |c: &Candidate| c.holding.iter().map(|&i| hypotheses[i].cause).collect::<BTreeSet<_>>();
        let causes = own(candidate);
        let rivals: Vec<&Candidate> = stated.alike.iter().filter(|c| own(c) != causes).collect();
        // Some scattered elements are no region.
        let scattered = candidate.in_region && self.place.is_scattered();
        let nameless = candidate.holding.iter().any(|&i| hypotheses[i].sense == Sense::Nameless);
        // Parts of K counted otherwise and a factor are also parts of K that have a factor each.
        let factor = candidate.gain.is_some() || causes.contains(&"gain");
        let parts = causes.contains(&"k_tail_dropped");
        let of_parts = factor && parts && causes.iter().all(|c| ["k_tail_dropped", "gain"].contains(c));
        let confident = stated.explained.whole
            && !stated.explained.nan_only
            && rivals.is_empty()
            && !ambiguous
            && !scattered
            && !of_parts
            && !nameless
            && !stated.or_left_out;
        // Of several that go by one name one says it all.
        let said = if causes.len() == 1 { 1 } else { candidate.holding.len() };
        let region = match candidate.in_region {
            true => format!(", in {} only", self.place),
            false => String::new(),
        };
        let mut found: Vec<Cause> = candidate
            .holding
            .iter()
            .take(said)
            .map(|&i| {
                let h = &hypotheses[i];
                let others = candidate.holding.iter().filter(|&&other| other != i);
                let mut what = h.what.and(&region);
                for &other in others {
                    what = what.and(format_args!(", and {}", hypotheses[other].what));
                }
                if let Some(gain) = candidate.gain {
                    let times = output::factor(gain);
                    what = what.and(format_args!(", and the result is {times} times as large"));
                }
                let mut detail = format!("{kernel} {what}");
                if stated.explained.whole {
                    let cos = stated.explained.cos.map_or("-".into(), |c| format!("{c:.6}"));
                    detail += &format!(": a reference that does so agrees to {cos}");
                }
                let alike = stated.alike.iter().filter(|c| c.holding.len() == 1);
                Cause {
                    cause: h.cause.into(),
                    detail,
                    what,
                    readings: alike.map(|c| hypotheses[c.holding[0]].what.clone()).take(READINGS).collect(),
                    cos: stated.explained.cos,
                    score: Some(stated.explained.score),
                    operand: h.operand.map(|id| self.hop.attempt.buffer(id).name.clone()),
                    confident,
                    ..Cause::default()
                }
            })
            .collect();
        if let Some(gain) = candidate.gain {
            let (name, times) = (&self.hop.buffer.name, output::factor(gain));
            let detail = format!("beside that `{name}` is {times} times what it should be");
            found.push(Cause {
                cause: "gain".into(),
                what: detail.as_str().into(),
                detail,
                cos: stated.explained.cos,
                score: Some(stated.explained.score),
                // Many faults make such a factor, as a format's bias.
                confident: confident && !output::is_common(gain),
                ..Cause::default()
            });
        }
        if of_parts {
            found.sort_by_key(|cause| cause.cause != "gain");
        }
        if stated.or_left_out {
            found.push(Cause {
                cause: "k_tail_dropped".into(),
                detail: format!(
                    "explains it equally: {kernel} does so everywhere and leaves out the rest of K"
                ),
                cos: stated.explained.cos,
                score: Some(stated.explained.score),
                ..Cause::default()
            });
        }
        // Other causes that make the same bytes.
        let mut named = causes;
        for rival in rivals.into_iter().filter(|r| r.holding.len() == 1) {
            let h = &hypotheses[rival.holding[0]];
            if named.contains(&h.cause) {
                continue;
            }
            named.insert(h.cause);
            found.push(Cause {
                cause: h.cause.into(),
                detail: format!("explains it equally: {kernel} {}", h.what),
                what: h.what.clone(),
                cos: stated.explained.cos,
                score: Some(stated.explained.score),
                operand: h.operand.map(|id| self.hop.attempt.buffer(id).name.clone()),
                ..Cause::default()
            });
        }
        found
    }
}

fn factor_of(fit: &Fit) -> String {
    fit.gain.map_or(String::new(), output::factor)
}
