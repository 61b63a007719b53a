//! The choice of the positions that a token attends to.

use super::causes::best;
use super::mistakes::{IndexerMistake, Mistake};
use super::state::Joined;
use super::{Cause, Replay, Stop, need};
use crate::triage::judge::{Judged, judge_choice};
use crate::triage::side::Side;
use accuracy_core::model::ops::{self, Precision};
use accuracy_core::model::{Indexer, Op};
use accuracy_core::reference::Matrix;
use accuracy_core::reference::model::RopeStyle;
use std::collections::BTreeSet;
use std::ops::Range;

/// Scores may be off by this many times what one draw of rounding makes of them.
const FACTOR: f64 = 4.0;

/// Of one token, the scores of its sequence's keys, which are lowest where it must not see the key.
type Scores = Vec<f64>;

/// What the tokens of a step have chosen.
struct Choice {
    /// Keys for each token, and which ones.
    each: usize,
    keys: Vec<i64>,
    exact: Vec<Scores>,
    /// How far rounding may move the scores of each token.
    noise: Vec<f64>,
}

/// Keys of all steps, queries and head weights of one, and the rows of each sequence.
struct Parts {
    q: Matrix,
    k: Matrix,
    weights: Matrix,
    sequences: Vec<Range<usize>>,
}

impl Replay<'_> {
    /// Whether each token attends to the positions with the highest scores. Rounding decides near ties.
    pub(super) fn indexer(&self, side: &Side, op: &Op, indexer: Indexer) -> Result<Judged, Stop> {
        let Choice { each, keys, exact, noise } = self.choice(side, op, indexer)?;
        let (mut wrong, mut expected, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = 0;
        for (t, scores) in exact.iter().enumerate() {
            let Some((missed, all)) = missed(scores, &keys[t * each..(t + 1) * each], each, noise[t]) else {
                continue;
            };
            if missed > 0 {
                wrong.push(t);
            }
            rows += 1;
            expected.extend((0..each).map(|i| f64::from(u8::from(i < all))));
            found.extend((0..each).map(|i| f64::from(u8::from(i + missed < all))));
        }
        let matrix = |data: Vec<f64>| Matrix::new(rows, each, data);
        let (expected, found) = (matrix(expected), matrix(found));
        let mut judged = judge_choice([&expected, &expected, &found], Precision::BF16.unit(), &[]);
        if let Some(first) = wrong.first() {
            judged.ok = false;
            judged.notes = vec![format!(
                "{} of {rows} tokens choose other positions than those with the highest scores, which is no near tie \
                 (first {first})",
                wrong.len()
            )];
        }
        Ok(judged)
    }

    pub(super) fn indexer_causes(
        &self,
        side: &Side,
        op: &Op,
        indexer: Indexer,
        judged: &Judged,
    ) -> Option<Cause> {
        let Choice { each, keys, noise, .. } = self.choice(side, op, indexer).ok()?;
        let tried = [
            ("its queries and keys are not rotated", IndexerMistake::NotRotated),
            ("its pairs are (2i, 2i+1) in place of (i, i+d/2)", IndexerMistake::Pairs),
            ("scores are not put through ReLU", IndexerMistake::NoRelu),
            ("the weights of its heads are ignored", IndexerMistake::Unweighted),
        ];
        let tried = tried.into_iter().filter_map(|(detail, mistake)| {
            let scores = self.scores(side, op, indexer, Precision::Exact, Some(mistake)).ok()?;
            let (mut off, mut all) = (0, 0);
            for (t, scores) in scores.iter().enumerate() {
                let Some((missed, of)) = missed(scores, &keys[t * each..(t + 1) * each], each, noise[t])
                else {
                    continue;
                };
                (off, all) = (off + missed, all + of);
            }
            Some((None, detail.to_owned(), (off as f64 / all.max(1) as f64).sqrt()))
        });
        best(tried, judged)
    }

    /// What each token has chosen, and what it should have.
    fn choice(&self, side: &Side, op: &Op, indexer: Indexer) -> Result<Choice, Stop> {
        let found = side.integers(&op.output).map_err(Stop::Unusable)?;
        let (keys, shape) = found.ok_or_else(|| Stop::Missing("the chosen positions".to_owned()))?;
        let each = shape.last().copied().unwrap_or(0);
        let exact = self.scores(side, op, indexer, Precision::Exact, None)?;
        let noisy = self.scores(side, op, indexer, side.precision, None)?;
        if each == 0 || keys.len() != each * exact.len() {
            return Err(Stop::Unusable(format!("{} chosen positions of {} tokens", keys.len(), exact.len())));
        }
        let noise = exact.iter().zip(&noisy).map(|(a, b)| {
            let seen = || a.iter().zip(b).filter(|(a, b)| a.is_finite() && b.is_finite());
            let off = seen().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let size = seen().map(|(a, _)| a.abs()).fold(0.0, f64::max);
            FACTOR * off + 1e-5 * size
        });
        let noise = noise.collect();
        Ok(Choice { each, keys, exact, noise })
    }

    /// The scores of each of a step's tokens.
    fn scores(
        &self,
        side: &Side,
        op: &Op,
        indexer: Indexer,
        p: Precision,
        mistake: Option<IndexerMistake>,
    ) -> Result<Vec<Scores>, Stop> {
        let own = self.parts(side, op, indexer, p, mistake)?;
        let earlier = side
            .history
            .iter()
            .map(|step| self.parts(step, op, indexer, p, mistake))
            .collect::<Result<Vec<_>, _>>()?;
        let ranges: Vec<&[Range<usize>]> = earlier.iter().map(|e| &e.sequences[..]).collect();
        let joined = Joined::of(side, &own.sequences, &ranges, true)?;
        let keys: Vec<&Matrix> = earlier.iter().map(|e| &e.k).chain([&own.k]).collect();
        let keys = joined.rows_of(&keys)?;
        let padding = side.padding(keys.rows);
        let mut all = vec![Vec::new(); own.q.rows];
        for (sequence, rows) in own.sequences.iter().zip(&joined.ranges) {
            for t in sequence.clone() {
                let at = rows.end - (sequence.end - t);
                let score = |key: usize| {
                    if key > at || padding.get(key).copied().unwrap_or(false) {
                        return f64::NEG_INFINITY;
                    }
                    let heads = (0..indexer.heads).map(|h| {
                        let q = &own.q.row(t)[h * indexer.dim..(h + 1) * indexer.dim];
                        let product: f64 = q.iter().zip(keys.row(key)).map(|(a, b)| a * b).sum();
                        let weight = match mistake {
                            Some(IndexerMistake::Unweighted) => 1.0,
                            _ => own.weights.row(t)[h],
                        };
                        let counted = match mistake {
                            Some(IndexerMistake::NoRelu) => product,
                            _ => product.max(0.0),
                        };
                        weight * counted
                    });
                    heads.sum::<f64>()
                };
                all[t] = rows.clone().map(score).collect();
            }
        }
        Ok(all)
    }

    /// Rotated queries and keys of one step, and the weights of its heads.
    fn parts(
        &self,
        side: &Side,
        op: &Op,
        indexer: Indexer,
        p: Precision,
        mistake: Option<IndexerMistake>,
    ) -> Result<Parts, Stop> {
        let q = need(side, &op.inputs[0], p)?;
        let sequences = side.sequences(&q);
        let mut q = q.reshaped(indexer.heads * indexer.dim).map_err(Stop::Unusable)?.x;
        let mut k = need(side, &op.inputs[1], p)?.reshaped(indexer.dim).map_err(Stop::Unusable)?.x;
        let weights = need(side, &op.inputs[2], p)?.reshaped(indexer.heads).map_err(Stop::Unusable)?.x;
        if q.rows != k.rows || q.rows != weights.rows {
            return Err(Stop::Unusable(format!(
                "{} queries, {} keys and {} weights of an indexer",
                q.rows, k.rows, weights.rows
            )));
        }
        if mistake != Some(IndexerMistake::NotRotated) {
            let rope = self.rope(0)?;
            let tokens = q.rows;
            let (cos, sin) = self.angles(side, op, rope, &sequences, tokens, 0.0, &Mistake::default())?;
            let (cos, sin) = (p.apply(cos), p.apply(sin));
            if cos.cols < indexer.rope / 2 {
                return Err(Stop::Unusable(format!("{} angles for an indexer", cos.cols)));
            }
            let style = match mistake {
                Some(IndexerMistake::Pairs) => RopeStyle::GptJ,
                _ => RopeStyle::Neox,
            };
            for x in [&mut q, &mut k] {
                ops::rotate(x, indexer.dim, 0..indexer.rope, (&cos, &sin), style, p);
            }
        }
        Ok(Parts { q, k, weights, sequences })
    }
}

/// How many of a token's best keys it did not choose, and how many it had to. `None`: it sees no key, as padding does.
fn missed(scores: &Scores, chosen: &[i64], each: usize, noise: f64) -> Option<(usize, usize)> {
    let mut seen: Vec<f64> = scores.iter().copied().filter(|s| s.is_finite()).collect();
    seen.sort_by(|a, b| b.total_cmp(a));
    let all = each.min(seen.len());
    let least = seen.get(all.checked_sub(1)?)? - noise;
    let chosen: BTreeSet<i64> = chosen.iter().copied().collect();
    let good = chosen.iter().filter_map(|&k| scores.get(usize::try_from(k).ok()?));
    let good = good.filter(|s| s.is_finite() && **s >= least).count().min(all);
    Some((all - good, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_chosen_wrongly_count_unless_rounding_may_have_chosen_them() {
        let scores = vec![3.0, 1.0, 2.0, 1.99, f64::NEG_INFINITY];
        assert_eq!(missed(&scores, &[0, 2], 2, 0.0), Some((0, 2)));
        assert_eq!(missed(&scores, &[0, 3], 2, 0.0), Some((1, 2)));
        assert_eq!(missed(&scores, &[3, 0], 2, 0.02), Some((0, 2)));
        assert_eq!(missed(&scores, &[0, 0], 2, 0.02), Some((1, 2)));
        // Of more than it sees, it chooses all that it sees.
        assert_eq!(missed(&scores, &[0, 1, 2, 3, 4], 5, 0.0), Some((0, 4)));
        assert_eq!(missed(&vec![f64::NEG_INFINITY; 2], &[0], 1, 0.0), None);
    }
}
