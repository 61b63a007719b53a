//! Rows and columns on which hypotheses are scored, and how well one explains the output there.

use super::{ALIKE, Hop, rows_rms};
use crate::case::input::Rng;
use crate::diagnose::map::Map;
use crate::diagnose::sampled::{all, pick};
use crate::reference::Matrix;
use std::collections::BTreeSet;

/// Rows and columns that are looked at.
pub struct Sample {
    pub rows: Vec<usize>,
    pub cols: Vec<usize>,
    pub out: Matrix,
    pub reference: Matrix,
    /// Which of the elements are wrong.
    wrong: Vec<bool>,
    /// Those that are no result of the inputs.
    unsteady: Vec<usize>,
    /// The error of the right reference.
    pub before: f64,
}

impl Sample {
    pub fn new(hop: &Hop<'_>, map: &Map, (rows, cols): (usize, usize)) -> Sample {
        let mut rng = Rng(0x5eed);
        let rows = chosen(&map.row_count, rows, &mut rng);
        // Of the columns those that are wrong in these rows.
        let in_rows: Vec<usize> =
            (0..map.cols).map(|c| rows.iter().filter(|&&r| map.is_wrong(r, c)).count()).collect();
        let cols = chosen(&in_rows, cols, &mut rng);
        let (out, reference) = (pick(&hop.out, &rows, &cols), pick(&hop.reference, &rows, &cols));
        let wrong = rows.iter().flat_map(|&r| cols.iter().map(move |&c| map.is_wrong(r, c))).collect();
        let before = hop.error(&reference, &out, &reference);
        let at = |i: usize| rows[i / cols.len()] * hop.out.cols + cols[i % cols.len()];
        let unsteady = match hop.unsteady.is_empty() {
            true => Vec::new(),
            false => (0..out.data.len()).filter(|&i| hop.unsteady.binary_search(&at(i)).is_ok()).collect(),
        };
        Sample { rows, cols, out, reference, wrong, unsteady, before }
    }

    /// What a reference has here, right where the output is no result of the inputs.
    pub fn settled(&self, mut value: Matrix) -> Matrix {
        for &i in &self.unsteady {
            value.data[i] = self.reference.data[i];
        }
        value
    }

    /// Output minus reference for each wrong element, and NaN for each right one.
    pub fn error(&self) -> Matrix {
        let elements = self.out.data.iter().zip(&self.reference.data).zip(&self.wrong);
        let data =
            elements.map(|((out, right), wrong)| if *wrong { out - right } else { f64::NAN }).collect();
        Matrix::new(self.out.rows, self.out.cols, data)
    }

    /// The right reference where the output is right.
    fn within(&self, value: &Matrix) -> Matrix {
        let elements = value.data.iter().zip(&self.reference.data).zip(&self.wrong);
        let data = elements.map(|((x, right), wrong)| if *wrong { *x } else { *right }).collect();
        Matrix::new(value.rows, value.cols, data)
    }
}

/// Indices, two thirds of them with a count, spread over all.
fn chosen(counts: &[usize], most: usize, rng: &mut Rng) -> Vec<usize> {
    let n = counts.len();
    if n <= most {
        return all(n);
    }
    let wrong: Vec<usize> = (0..n).filter(|&i| counts[i] > 0).collect();
    let mut set = BTreeSet::new();
    let from_wrong = (most * 2 / 3).max(1).min(wrong.len());
    for i in 0..from_wrong {
        let at = (i * wrong.len() + rng.below(wrong.len() as u64) as usize) / from_wrong;
        set.insert(wrong[at.min(wrong.len() - 1)]);
    }
    while set.len() < most {
        set.insert(rng.below(n as u64) as usize);
    }
    set.into_iter().collect()
}

/// A candidate on a sample.
pub struct Scored {
    pub score: f64,
    pub score_in_region: f64,
    /// Correlation with the output, whatever the gain; and the gain.
    pub correlation: f64,
    pub gain: f64,
    pub value: Matrix,
}

impl Scored {
    pub fn is_off_by_a_factor(&self) -> bool {
        self.correlation > ALIKE && (self.gain - 1.0).abs() > 1e-3
    }
}

pub fn score(hop: &Hop<'_>, sample: &Sample, value: Matrix) -> Scored {
    let error = hop.error(&value, &sample.out, &sample.reference);
    let within = hop.error(&sample.within(&value), &sample.out, &sample.reference);
    let (mut xx, mut yy, mut xy, mut finite) = (0.0, 0.0, 0.0, 0);
    for (r, scale) in rows_rms(&sample.out).into_iter().enumerate() {
        let unit = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (x, y) in value.row(r).iter().zip(sample.out.row(r)) {
            if x.is_finite() && y.is_finite() {
                let (x, y) = (x * unit, y * unit);
                (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
                finite += 1;
            }
        }
    }
    // A few numbers among NaNs go with anything.
    let enough = xx > 0.0 && yy > 0.0 && 2 * finite >= sample.out.data.len();
    let correlation = if enough { xy / (xx * yy).sqrt() } else { 0.0 };
    Scored {
        score: 1.0 - error / sample.before,
        score_in_region: 1.0 - within / sample.before,
        correlation,
        gain: if xx > 0.0 { xy / xx } else { 0.0 },
        value,
    }
}
