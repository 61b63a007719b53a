//! What differs between runs on the same inputs, and so is no result of them.

use crate::case::Captured;

/// Pairs of runs on the same inputs: what differs between the two of a pair is no result of the inputs.
pub type Runs<'a> = &'a [(&'a Captured, &'a Captured)];

/// Which elements differ within any pair of runs.
pub fn unsteady(buffer: &Captured, runs: Runs<'_>) -> Vec<bool> {
    let mut all = vec![false; buffer.rows * buffer.cols];
    for (first, second) in runs {
        all.iter_mut().zip(differing(first, second)).for_each(|(all, here)| *all |= here);
    }
    all
}

/// Which elements differ between two runs on the same inputs.
pub fn differing(first: &Captured, second: &Captured) -> Vec<bool> {
    if first.dtype.bits() < 8 {
        return first
            .dtype
            .codes(&first.data)
            .zip(first.dtype.codes(&second.data))
            .map(|(a, b)| a != b)
            .collect();
    }
    let size = first.dtype.bits() as usize / 8;
    first.data.chunks(size).zip(second.data.chunks(size)).map(|(a, b)| a != b).collect()
}
