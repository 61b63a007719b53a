//! Which hypotheses are tried together: two that replace different things, those first whose effects go best with the error.

use super::sample::{Sample, Scored, score};
use super::{Candidate, Search, rows_rms};
use crate::diagnose::hypothesis::{Change, Hypothesis, Slot};
use crate::reference::Matrix;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Hypotheses of each slot that are ranked by themselves.
const PAIRED: usize = 60;

impl<'a> Search<'a, '_> {
    /// Hypotheses that may be half of a pair: those that change something, each as another of its slot does not.
    pub fn halves(
        &self,
        hypotheses: &[Hypothesis<'a>],
        scored: &[(usize, Scored)],
        sample: &Sample,
    ) -> Vec<usize> {
        let mut known: HashMap<Slot, Vec<&Matrix>> = HashMap::new();
        let alike = |x: &Matrix, y: &Matrix| self.hop.error(x, y, y) == 0.0;
        let mut found = Vec::new();
        for (i, scored) in scored {
            let of_slot = known.entry(hypotheses[*i].slot).or_insert_with(|| vec![&sample.reference]);
            let in_part = matches!(hypotheses[*i].change, Change::InPart(..));
            if hypotheses[*i].cause == "accumulation"
                || in_part
                || of_slot.iter().any(|x| alike(&scored.value, x))
            {
                continue;
            }
            of_slot.push(&scored.value);
            found.push(*i);
        }
        found
    }

    /// Two hypotheses that replace different things.
    pub fn pairs(
        &self,
        hypotheses: &[Hypothesis<'a>],
        halves: &[usize],
        sample: &Sample,
        first: &Sample,
        value: &(dyn Fn(&[usize], &Sample) -> Option<Matrix> + Sync),
        most: usize,
    ) -> Vec<Candidate> {
        let mut ranked: Vec<(usize, Scored)> = halves
            .par_iter()
            .filter_map(|&i| Some((i, score(self.hop, sample, value(&[i], sample)?))))
            .collect();
        ranked.sort_by(|a, b| b.1.correlation.total_cmp(&a.1.correlation));
        let mut of_slot: HashMap<Slot, usize> = HashMap::new();
        let mut ranks: Vec<(usize, usize)> = Vec::new();
        for (i, _) in &ranked {
            let next = of_slot.entry(hypotheses[*i].slot).or_default();
            ranks.push((*next, *i));
            *next += 1;
        }
        ranks.retain(|(rank, _)| *rank < PAIRED);
        // The best of each first; operands' own layouts and scales, and what of K is summed up, go together most often.
        let mut jobs: Vec<(usize, usize, usize)> = Vec::new();
        for (n, (a, i)) in ranks.iter().enumerate() {
            for (b, j) in &ranks[n + 1..] {
                let (x, y) = (&hypotheses[*i], &hypotheses[*j]);
                if x.slot == y.slot {
                    continue;
                }
                let product = [x.slot, y.slot].contains(&Slot::Product);
                let related = product || x.operand == y.operand;
                jobs.push((a.max(b) / if related { 6 } else { 1 }, *i, *j));
            }
        }
        jobs.sort_by_key(|job| job.0);
        let by_rank = jobs.into_iter().take(most).map(|(_, i, j)| (i, j));
        let values: Vec<(usize, &Matrix)> = ranked.iter().map(|(i, scored)| (*i, &scored.value)).collect();
        let by_fit = together(hypotheses, &values, sample, most).into_iter();
        let mut seen = HashSet::new();
        let mut tried: Vec<Vec<usize>> =
            interleaved(by_fit, by_rank).map(|(i, j)| vec![i.min(j), i.max(j)]).collect();
        tried.retain(|holding| seen.insert(holding.clone()));
        tried.truncate(most);
        tried
            .into_par_iter()
            .filter_map(|holding| {
                let score = score(self.hop, first, value(&holding, first)?).score;
                Some(Candidate { holding, gain: None, in_region: false, score })
            })
            .collect()
    }
}

/// Pairs of hypotheses that replace different things, those first whose effects on the sample, each as large as may be, add
/// up to most of the error.
fn together(
    hypotheses: &[Hypothesis<'_>],
    values: &[(usize, &Matrix)],
    sample: &Sample,
    most: usize,
) -> Vec<(usize, usize)> {
    let units = rows_rms(&sample.out);
    let effect = |value: &Matrix| -> Vec<f64> {
        let off = |(at, (x, right)): (usize, (&f64, &f64))| {
            let off = (x - right) / units[at / value.cols].max(f64::MIN_POSITIVE);
            // One outlier is not the whole of an effect.
            if off.is_finite() { off.clamp(-3.0, 3.0) } else { 0.0 }
        };
        value.data.iter().zip(&sample.reference.data).enumerate().map(off).collect()
    };
    let times = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let error = effect(&sample.out);
    let of: Vec<(usize, Vec<f64>)> = values.iter().map(|(i, value)| (*i, effect(value))).collect();
    let own: Vec<(f64, f64)> = of.iter().map(|(_, x)| (times(x, x), times(x, &error))).collect();
    let mut pairs: Vec<(f64, usize, usize)> = (0..of.len())
        .into_par_iter()
        .flat_map_iter(|n| {
            let (of, own) = (&of, &own);
            (n + 1..of.len()).filter_map(move |m| {
                let ((i, x), (j, y)) = (&of[n], &of[m]);
                if hypotheses[*i].slot == hypotheses[*j].slot {
                    return None;
                }
                let ((xx, xe), (yy, ye), xy) = (own[n], own[m], times(x, y));
                let rest = xx * yy - xy * xy;
                let explained = (xe * xe * yy - 2.0 * xe * ye * xy + ye * ye * xx) / rest;
                (rest > 1e-9 * xx * yy).then_some((explained, *i, *j))
            })
        })
        .collect();
    let by_share = |a: &(f64, usize, usize), b: &(f64, usize, usize)| b.0.total_cmp(&a.0);
    if pairs.len() > most {
        pairs.select_nth_unstable_by(most, by_share);
        pairs.truncate(most);
    }
    pairs.sort_by(by_share);
    pairs.into_iter().map(|(_, i, j)| (i, j)).collect()
}

/// One of each in turn, then what is left of the longer.
fn interleaved<T>(mut a: impl Iterator<Item = T>, mut b: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || Some([a.next(), b.next()]))
        .map_while(|[a, b]| (a.is_some() || b.is_some()).then_some([a, b]))
        .flatten()
        .flatten()
}
