//! Cases of shapes that no test lists: which are drawn, what each is called, and the least shape that still fails.
//!
//! A drawn case is a listed one with another token count, perhaps with a slice of its weight, and with inputs of another
//! seed. All of that stands in its identity (`tokens=97,fuzz=4711:tails:k128`), so the identity alone makes the case again.
//! Nothing here runs a case.

use crate::case::input::Rng;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Cases that are drawn for each chain of a test that says `tokens = fuzz(..)`, if the run does not say how many.
pub const DRAWS: usize = 8;

/// Name of the coordinate that tells a drawn case from a listed one.
pub const COORDINATE: &str = "fuzz";

/// A slice of a weight keeps the alignment that the whole weight has, up to this: kernels rely on it.
const ALIGNMENT: usize = 256;

/// How the inputs of a drawn case are distributed. All values are finite and within the range of their format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// The distribution of listed cases.
    #[default]
    Ordinary,
    /// The last row and the last columns are the largest, so that an error in a tail is not diluted by the rest.
    Tails,
    /// Most elements are zero.
    Sparse,
    /// One element in sixteen is half-way between two codes of an 8-bit or 4-bit format.
    Ties,
}

impl Values {
    pub const ALL: [Values; 4] = [Values::Ordinary, Values::Tails, Values::Sparse, Values::Ties];

    pub const fn name(self) -> &'static str {
        match self {
            Values::Ordinary => "ordinary",
            Values::Tails => "tails",
            Values::Sparse => "sparse",
            Values::Ties => "ties",
        }
    }
}

/// The seed, values and slice of the weight that fuzzing drew for a case, beside its token count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Drawn {
    /// The seed of its inputs.
    pub seed: u64,
    pub values: Values,
    /// Rows (output features) that are taken of the weight, from the first; without a number all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// Columns (input features) that are taken of the weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
}

impl Drawn {
    /// Whether the case takes a part of its weight.
    pub fn is_sliced(&self) -> bool {
        self.n.is_some() || self.k.is_some()
    }
}

/// The value of the coordinate: `4711:tails`, `4711:tails:n512:k128`.
impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seed, self.values.name())?;
        for (name, slice) in [("n", self.n), ("k", self.k)] {
            if let Some(size) = slice {
                write!(f, ":{name}{size}")?;
            }
        }
        Ok(())
    }
}

/// A text that should describe a drawn case and does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{COORDINATE}={0}` describes no drawn case; expected SEED:VALUES, perhaps with :nROWS and :kCOLUMNS, such as \
     {COORDINATE}=4711:tails:n512:k128, where VALUES is ordinary, tails, sparse or ties"
)]
pub struct NotDrawn(pub String);

impl FromStr for Drawn {
    type Err = NotDrawn;

    fn from_str(text: &str) -> Result<Drawn, NotDrawn> {
        let read = || {
            let mut parts = text.split(':').peekable();
            let seed = parts.next()?.parse().ok()?;
            let name = parts.next()?;
            let values = Values::ALL.into_iter().find(|values| values.name() == name)?;
            let mut size = |name: char| {
                let text = parts.next_if(|part| part.starts_with(name))?;
                text.get(1..)?.parse().ok().filter(|size| *size > 0)
            };
            let drawn = Drawn { seed, values, n: size('n'), k: size('k') };
            // There is one way to write it, so that a case has one identity.
            (drawn.to_string() == text).then_some(drawn)
        };
        read().ok_or_else(|| NotDrawn(text.to_owned()))
    }
}

/// A drawn case, apart from its test.
pub type Shape = (usize, Drawn);

/// One dimension of a weight, of which slices can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub whole: usize,
    /// Slices are multiples of it.
    pub step: usize,
}

impl Extent {
    /// The slices of a dimension whose scales span `cell` elements; `None` if there is none but the whole.
    pub fn new(whole: usize, cell: usize) -> Option<Extent> {
        let alignment = ALIGNMENT.min(1 << whole.trailing_zeros().min(usize::BITS - 1));
        let cell = if cell >= whole { 1 } else { cell.max(1) };
        let step = least_common_multiple(alignment, cell);
        (whole > 0 && step < whole).then_some(Extent { whole, step })
    }

    /// Number of slices that are smaller than the whole.
    fn slices(&self) -> usize {
        (self.whole - 1) / self.step
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut greater, mut lesser) = (a.max(b), a.min(b));
    while lesser > 0 {
        (greater, lesser) = (lesser, greater % lesser);
    }
    a / greater * b
}

/// The shapes that cases of a test can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub tokens: RangeInclusive<usize>,
    pub n: Option<Extent>,
    pub k: Option<Extent>,
}

/// Draws `count` cases, all different. Shapes at borders come first, then primes, tails of tiles, and any others. More cases
/// of the same seed begin with the same ones.
pub fn draw(space: &Space, count: usize, seed: u64) -> Vec<Shape> {
    let mut rng = Rng(seed);
    let first = at_borders_first(&space.tokens, &mut rng);
    let mut known = HashSet::new();
    (0..count)
        .map(|i| {
            let tokens = match first.get(i) {
                Some(tokens) => *tokens,
                None => elsewhere(i - first.len(), &space.tokens, &mut rng),
            };
            let values = Values::ALL[rng.below(Values::ALL.len() as u64) as usize];
            let (mut n, mut k) = (slice(space.n.as_ref(), &mut rng), slice(space.k.as_ref(), &mut rng));
            // Half of the cases have the whole weight.
            if rng.below(2) == 0 {
                (n, k) = (None, None);
            }
            loop {
                // A number that a person can copy.
                let drawn = Drawn { seed: rng.below(1 << 16), values, n, k };
                if known.insert((tokens, drawn)) {
                    return (tokens, drawn);
                }
            }
        })
        .collect()
}

/// The least of a range, then numbers beside borders of tiles and at the end of the range, then the borders themselves.
fn at_borders_first(range: &RangeInclusive<usize>, rng: &mut Rng) -> Vec<usize> {
    let (least, most) = (*range.start(), *range.end());
    let (mut beside, mut on) = (vec![most], vec![least + 1, most.saturating_sub(1)]);
    for border in borders(most) {
        beside.extend([border - 1, border + 1]);
        on.push(border);
    }
    shuffle(&mut beside, rng);
    shuffle(&mut on, rng);
    let mut known = HashSet::new();
    let all = std::iter::once(least).chain(beside).chain(on);
    all.filter(|tokens| range.contains(tokens) && known.insert(*tokens)).collect()
}

/// Powers of two up to beyond `most`: sizes of tiles, waves and vectors.
fn borders(most: usize) -> impl Iterator<Item = usize> {
    (1..usize::BITS - 1)
        .map(|bits| 1_usize << bits)
        .take_while(move |border| *border <= most.saturating_add(1))
}

fn shuffle(values: &mut [usize], rng: &mut Rng) {
    for i in (1..values.len()).rev() {
        values.swap(i, rng.below(i as u64 + 1) as usize);
    }
}

/// In turn a prime, a number of whole tiles and a tail, and any number.
fn elsewhere(turn: usize, range: &RangeInclusive<usize>, rng: &mut Rng) -> usize {
    let (least, most) = (*range.start(), *range.end());
    let any = least + rng.below((most - least) as u64 + 1) as usize;
    match turn % 3 {
        0 => (any..=most).chain(least..any).find(|n| is_prime(*n)).unwrap_or(any),
        1 => {
            let tile = 16_usize << rng.below(5);
            let tail = 1 + rng.below(tile as u64 - 1) as usize;
            (any / tile * tile + tail).clamp(least, most)
        }
        _ => any,
    }
}

fn is_prime(n: usize) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// The smallest slice, the largest, or any.
fn slice(extent: Option<&Extent>, rng: &mut Rng) -> Option<usize> {
    let turn = rng.below(4);
    let any = rng.next_u64();
    let extent = extent?;
    let slices = extent.slices();
    let steps = match turn {
        0 => 1,
        1 => slices,
        2 => 1 + (any % slices as u64) as usize,
        _ => return None,
    };
    Some(steps * extent.step)
}

/// Looks for the least shape that fails as `from` does: first with ordinary values, then with fewer tokens, rows and columns
/// of the weight. `fail` says of some shapes whether each fails, and nothing once it may run no more.
///
/// Small sizes are all tried. Between larger ones it takes for granted that what lies between a size that passes and a larger
/// one that fails changes once.
pub fn shrink(space: &Space, from: Shape, fail: &mut dyn FnMut(&[Shape]) -> Option<Vec<bool>>) -> Shape {
    let (mut tokens, mut drawn) = from;
    let ordinary = Drawn { values: Values::Ordinary, ..drawn };
    if drawn != ordinary && fail(&[(tokens, ordinary)]).is_some_and(|failed| failed == [true]) {
        drawn = ordinary;
    }
    tokens = least(*space.tokens.start(), tokens, &mut |tried| {
        fail(&tried.iter().map(|tokens| (*tokens, drawn)).collect::<Vec<_>>())
    });
    for along_n in [true, false] {
        let Some(extent) = (if along_n { space.n } else { space.k }) else { continue };
        let now = (if along_n { drawn.n } else { drawn.k }).unwrap_or(extent.whole).div_ceil(extent.step);
        let with = |slices: usize| {
            let size = (slices * extent.step < extent.whole).then_some(slices * extent.step);
            if along_n { Drawn { n: size, ..drawn } } else { Drawn { k: size, ..drawn } }
        };
        let slices = least(1, now, &mut |tried| {
            fail(&tried.iter().map(|slices| (tokens, with(*slices))).collect::<Vec<_>>())
        });
        drawn = with(slices);
    }
    (tokens, drawn)
}

/// Sizes that are tried at once.
const AT_ONCE: usize = 6;
/// Sizes up to this are all tried: faults of tails need no more than a tile or two.
const ALL_UP_TO: usize = 40;

/// The least size from `low` on that fails, where `failing` does.
fn least(low: usize, failing: usize, fail: &mut dyn FnMut(&[usize]) -> Option<Vec<bool>>) -> usize {
    let mut sizes: BTreeSet<usize> = borders(failing).flat_map(|b| [b - 1, b, b + 1]).collect();
    sizes.insert(low);
    sizes.extend(low..=ALL_UP_TO);
    let sizes: Vec<usize> = sizes.into_iter().filter(|size| (low..failing).contains(size)).collect();
    let (mut passing, mut found) = (None, failing);
    for some in sizes.chunks(AT_ONCE) {
        let Some(failed) = fail(some) else { return found };
        let first = failed.iter().position(|failed| *failed);
        let passed = &some[..first.unwrap_or(some.len())];
        passing = passed.last().copied().or(passing);
        if let Some(first) = first {
            found = some[first];
            break;
        }
    }
    // Nothing lies below the least.
    let Some(mut passing) = passing else { return found };
    let above: Vec<usize> = (passing + 1..found).take(AT_ONCE).collect();
    if let (false, Some(failed)) = (above.is_empty(), fail(&above)) {
        if let Some(first) = failed.iter().position(|failed| *failed) {
            return above[first];
        }
        passing += above.len();
    }
    while found - passing > 1 {
        let middle = passing + (found - passing) / 2;
        match fail(&[middle]).as_deref() {
            Some([true]) => found = middle,
            Some(_) => passing = middle,
            None => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(tokens: RangeInclusive<usize>) -> Space {
        Space { tokens, n: Extent::new(1536, 128), k: Extent::new(384, 128) }
    }

    #[test]
    fn what_is_written_of_a_drawn_case_is_read_back_and_nothing_else_is() {
        for (n, k) in [(None, None), (Some(512), None), (None, Some(128)), (Some(512), Some(128))] {
            for values in Values::ALL {
                let drawn = Drawn { seed: 4711, values, n, k };
                assert_eq!(drawn.to_string().parse(), Ok(drawn));
            }
        }
        assert_eq!(
            "7:tails:n512:k128".parse(),
            Ok(Drawn { seed: 7, values: Values::Tails, n: Some(512), k: Some(128) })
        );
        for bad in [
            "",
            "7",
            "7:odd",
            ":tails",
            "07:tails",
            "7:tails:",
            "7:tails:k1:n2",
            "7:tails:n0",
            "7:tails:x3",
            "-1:tails",
        ] {
            let error = bad.parse::<Drawn>().unwrap_err();
            assert!(error.to_string().contains(&format!("`fuzz={bad}`")), "{error}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_cases_and_more_of_them_begin_alike() {
        let space = space(1..=4096);
        let few = draw(&space, 5, 7);
        assert_eq!(few, draw(&space, 5, 7));
        assert_eq!(few[..], draw(&space, 50, 7)[..5]);
        assert_ne!(few, draw(&space, 5, 8));
    }

    #[test]
    fn shapes_at_borders_come_first_and_all_are_within_the_range() {
        for range in [1..=4096, 3..=4, 100..=100, 1..=1, 5..=70] {
            let drawn = draw(&space(range.clone()), 80, 3);
            assert!(drawn.iter().all(|(tokens, _)| range.contains(tokens)), "{range:?}");
            assert_eq!(drawn[0].0, *range.start());
            assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 80, "each is another case");
        }
        let near = |n: usize| [n - 1, n, n + 1].iter().any(|n| n.is_power_of_two());
        assert!(draw(&space(1..=4096), 12, 3).iter().all(|(tokens, _)| near(*tokens)));
        // Later there are primes and tails.
        let late = draw(&space(1..=4096), 200, 3);
        assert!(late[60..].iter().filter(|(tokens, _)| is_prime(*tokens) && *tokens > 100).count() > 10);
    }

    #[test]
    fn slices_keep_the_alignment_of_the_weight_and_the_cells_of_its_scales() {
        let drawn = draw(&space(1..=64), 400, 1);
        let sizes = |of: fn(&Drawn) -> Option<usize>| -> BTreeSet<usize> {
            drawn.iter().filter_map(|(_, drawn)| of(drawn)).collect()
        };
        assert_eq!(sizes(|drawn| drawn.n), [256, 512, 768, 1024, 1280].into());
        assert_eq!(sizes(|drawn| drawn.k), [128, 256].into());
        assert!(drawn.iter().any(|(_, drawn)| !drawn.is_sliced()));
        assert_eq!(Extent::new(1100, 1), Some(Extent { whole: 1100, step: 4 }));
        // A scale for each row or the whole tensor does not divide it.
        assert_eq!(Extent::new(96, 96), Some(Extent { whole: 96, step: 32 }));
        assert_eq!(Extent::new(384, 96), None);
        assert_eq!((Extent::new(256, 1), Extent::new(1, 1), Extent::new(0, 1)), (None, None, None));
    }

    /// The least shape where `fails` says which fail, and how many were tried.
    fn shrunk(from: Shape, fails: impl Fn(Shape) -> bool) -> (Shape, usize) {
        let mut tried = 0;
        let least = shrink(&space(1..=4096), from, &mut |shapes| {
            tried += shapes.len();
            Some(shapes.iter().map(|shape| fails(*shape)).collect())
        });
        (least, tried)
    }

    #[test]
    fn a_failure_is_shrunk_to_the_least_shape_that_fails() {
        let drawn = Drawn { seed: 1, values: Values::Tails, n: None, k: None };
        let (least, tried) = shrunk((4000, drawn), |(tokens, _)| tokens > 99);
        let smallest = Drawn { values: Values::Ordinary, n: Some(256), k: Some(128), ..drawn };
        assert_eq!(least, (100, smallest));
        assert!(tried < 80, "{tried}");
        // What depends on the tail alone fails at the least tail.
        let (least, _) = shrunk((4001, drawn), |(tokens, _)| tokens > 33 && tokens % 16 != 0);
        assert_eq!(least.0, 34);
        // What needs these values, and the whole of the weight, keeps them.
        let needs = |(tokens, drawn): Shape| {
            tokens >= 17 && drawn.values == Values::Tails && drawn.k.is_none() && drawn.n != Some(256)
        };
        assert_eq!(shrunk((4000, drawn), needs).0, (17, Drawn { n: Some(512), ..drawn }));
        assert_eq!(shrunk((4000, drawn), |shape| shape == (4000, drawn)).0, (4000, drawn));
    }

    #[test]
    fn what_may_run_no_more_stops_at_the_least_so_far() {
        let drawn = Drawn { seed: 1, values: Values::Ordinary, n: None, k: None };
        let mut left = 5;
        let least = shrink(&space(1..=4096), (4000, drawn), &mut |shapes| {
            left -= 1;
            (left >= 0).then(|| shapes.iter().map(|(tokens, _)| *tokens > 20).collect())
        });
        assert!((21..=4000).contains(&least.0), "{least:?}");
    }
}
