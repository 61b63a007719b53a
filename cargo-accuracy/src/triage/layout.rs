//! How the tokens of several sequences follow each other in one row, as engines keep them, and which earlier steps have
//! the keys and values that a step attends to.

use std::ops::Range;

/// Tokens of one sequence in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub rows: Range<usize>,
    /// How many tokens the sequence had before.
    pub start: usize,
}

impl Sequence {
    fn end(&self) -> usize {
        self.start + self.rows.len()
    }
}

/// The sequences of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub sequences: Vec<Sequence>,
    /// All rows; those behind the last sequence are padding.
    pub rows: usize,
    positions: Vec<usize>,
}

/// Some tokens of a sequence in an earlier step: the step's number in the history, and the rows.
pub type Link = (usize, Range<usize>);

impl Layout {
    /// From the positions of all rows, and the sequences' lengths where they are recorded. Else a sequence ends where
    /// positions do not go on.
    pub fn of(positions: &[i64], lengths: &[usize]) -> Layout {
        let positions: Vec<usize> = positions.iter().map(|&p| usize::try_from(p).unwrap_or(0)).collect();
        let mut layout = Layout { sequences: Vec::new(), rows: positions.len(), positions };
        let mut at = 0;
        if lengths.is_empty() {
            for row in 1..=layout.rows {
                if row == layout.rows || layout.positions[row] != layout.positions[row - 1] + 1 {
                    layout.push(at..row);
                    at = row;
                }
            }
        } else {
            for &length in lengths {
                layout.push(at..at + length);
                at += length;
            }
        }
        layout
    }

    fn push(&mut self, rows: Range<usize>) {
        let start = self.positions.get(rows.start).copied().unwrap_or(0);
        self.sequences.push(Sequence { rows, start });
    }

    /// Rows that are tokens: those of the sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.last().map_or(0, |s| s.rows.end)
    }

    /// Leaves out what is behind the first `tokens` rows.
    pub fn cut(&mut self, tokens: usize) {
        self.sequences.retain(|s| s.rows.start < tokens);
        if let Some(last) = self.sequences.last_mut() {
            last.rows.end = last.rows.end.min(tokens);
        }
    }
}

/// Of each sequence, where its earlier tokens are in `history`, the earliest step first. A sequence that starts at
/// position 0 has none. `None`: some are in no step of it.
///
/// Positions do not tell two sequences of one token, the first at position 7 and the second at 8, from one of two
/// tokens: a step of as many tokens as the step before has sequences, each of which goes on, is a step of decoding.
pub fn chains(own: &mut Layout, history: &[&Layout]) -> Vec<Option<Vec<Link>>> {
    if let Some(before) = history.last()
        && before.sequences.len() == own.tokens()
        && before.sequences.iter().zip(&own.positions).all(|(s, &p)| s.end() == p)
    {
        own.sequences.clear();
        (0..before.sequences.len()).for_each(|row| own.push(row..row + 1));
    }
    let mut taken: Vec<Vec<bool>> = history.iter().map(|l| vec![false; l.sequences.len()]).collect();
    let mut chain = |index: usize, sequence: &Sequence| {
        let (mut need, mut links) = (sequence.start, Vec::new());
        for step in (0..history.len()).rev() {
            if need == 0 {
                break;
            }
            let fits = |k: &usize| {
                let ends = history[step].sequences.get(*k).is_some_and(|s| s.end() == need);
                ends && !taken[step][*k]
            };
            let all: Vec<usize> = (0..history[step].sequences.len()).filter(fits).collect();
            // The same place in the batch, else the only one that it can be.
            let found = if all.contains(&index) {
                Some(index)
            } else {
                all.first().copied().filter(|_| all.len() == 1)
            };
            if let Some(k) = found {
                let earlier = &history[step].sequences[k];
                taken[step][k] = true;
                links.push((step, earlier.rows.clone()));
                need = earlier.start;
            }
        }
        links.reverse();
        (need == 0).then_some(links)
    };
    own.sequences.iter().enumerate().map(|(i, s)| chain(i, s)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(layout: &Layout) -> Vec<Range<usize>> {
        layout.sequences.iter().map(|s| s.rows.clone()).collect()
    }

    #[test]
    fn sequences_end_where_positions_do_not_go_on_or_where_lengths_say() {
        assert_eq!(rows(&Layout::of(&[0, 1, 2, 0, 1], &[])), [0..3, 3..5]);
        let padded = Layout::of(&[0, 1, 2, 0, 1, 0, 0, 0], &[3, 2]);
        assert_eq!((rows(&padded), padded.tokens(), padded.rows), (vec![0..3, 3..5], 5, 8));
        let mut unknown = Layout::of(&[0, 1, 2, 0, 1, 0, 0], &[]);
        unknown.cut(5);
        assert_eq!(rows(&unknown), [0..3, 3..5]);
    }

    #[test]
    fn a_step_of_decoding_goes_on_where_the_step_before_ended() {
        let prefill = Layout::of(&[0, 1, 2, 0, 1, 2, 3], &[]);
        // Positions 3 and 4 look like one sequence of two tokens.
        let mut decode = Layout::of(&[3, 4], &[]);
        let links = chains(&mut decode, &[&prefill]);
        assert_eq!(rows(&decode), [0..1, 1..2]);
        assert_eq!(links, [Some(vec![(0, 0..3)]), Some(vec![(0, 3..7)])]);
        // The batch has another order now, and one sequence is not in the dump.
        let mut other = Layout::of(&[5, 4, 9], &[1, 1, 1]);
        let links = chains(&mut other, &[&prefill, &decode]);
        assert_eq!(links[0], Some(vec![(0, 3..7), (1, 1..2)]));
        assert_eq!(links[1], Some(vec![(0, 0..3), (1, 0..1)]));
        assert_eq!(links[2], None);
    }
}
