//! Sets of bytes of declared buffers, as numbers: a set is a byte, or the union of two sets.
//!
//! A union takes eight bytes, whatever it holds. What a set holds is only found out for the few sets that are asked about.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The number of a set.
pub type Id = u32;

/// The set of nothing, of a place that nobody wrote.
pub const EMPTY: Id = 0;
/// The set of nothing, of a place that somebody wrote.
pub const NOTHING: Id = 1;
/// Numbers from here on are sets of one byte each.
const BYTES: Id = 1 << 31;
/// First part of a set that another set decides the place or the choice of.
const THROUGH: Id = Id::MAX;
/// First part of a set that is not known; the second is the number of the reason.
const LOST: Id = Id::MAX - 1;
/// Bytes of all declared buffers that can have a number.
pub const MOST_BYTES: u64 = (LOST - BYTES) as u64;
/// Unions that are kept: 384 MiB.
const MOST: usize = 48 << 20;
/// Unions that are remembered, so that the same is not made again.
const REMEMBERED: usize = 1 << 20;

/// Workgroups of a launch that words name.
const NAMED: usize = 8;

/// Why it is not known what a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lost {
    /// No rule says what this instruction does.
    Instruction(&'static str),
    /// It names its registers relative to another one.
    Relative(&'static str),
    /// A workgroup wrote it that is not followed.
    Group { launch: u32, group: u32 },
    /// It was read from the padding or the guard bands of a declared buffer.
    Beside,
    /// There were too many unions.
    Full,
    /// The declared buffers have more bytes than there are numbers.
    Bytes,
    /// More workgroups than are followed have written it.
    Groups { count: usize, most: usize },
    /// No kernel was launched while there was such a buffer.
    NoLaunch,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Instruction(mnemonic) => write!(f, "no rule says what flows through {mnemonic}"),
            Lost::Relative(mnemonic) => write!(f, "{mnemonic} names registers relative to M0"),
            Lost::Group { launch, group } => f.write_str(&groups(*launch, &[*group])),
            Lost::Beside => f.write_str("a part of it was read from outside of the elements of a buffer"),
            Lost::Full => f.write_str("more flowed than 384 MiB of memory can note"),
            Lost::Bytes => f.write_str("the declared buffers have more than 2 GiB"),
            Lost::Groups { count, most } => {
                write!(f, "{count} workgroups take part in it, and at most {most} are followed")
            }
            Lost::NoLaunch => f.write_str("no kernel was launched while it was there"),
        }
    }
}

/// All reasons in words: the workgroups of a launch together.
pub fn in_words(reasons: &BTreeSet<Lost>) -> Vec<String> {
    let mut by_launch: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut words = Vec::new();
    for reason in reasons {
        match reason {
            Lost::Group { launch, group } => by_launch.entry(*launch).or_default().push(*group),
            Lost::Instruction(_)
            | Lost::Relative(_)
            | Lost::Beside
            | Lost::Full
            | Lost::Bytes
            | Lost::Groups { .. }
            | Lost::NoLaunch => words.push(reason.to_string()),
        }
    }
    words.extend(by_launch.iter().map(|(launch, of_launch)| groups(*launch, of_launch)));
    words
}

fn groups(launch: u32, groups: &[u32]) -> String {
    let named = |groups: &[u32]| groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match groups {
        [one] => format!("workgroup {one} of launch {launch} has written a part of it and was not followed"),
        [first @ .., last] if groups.len() <= NAMED => format!(
            "workgroups {} and {last} of launch {launch} have written parts of it and were not followed",
            named(first)
        ),
        _ => format!(
            "workgroups {} and {} more of launch {launch} have written parts of it and were not followed",
            named(&groups[..NAMED]),
            groups.len() - NAMED
        ),
    }
}

/// All sets of a run.
pub struct Sets {
    nodes: Vec<(Id, Id)>,
    known: Vec<(Id, Id, Id)>,
    reasons: Vec<Lost>,
    by_reason: HashMap<Lost, Id>,
}

/// What a set holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Numbers of the bytes whose values flowed on.
    pub bytes: BTreeSet<u32>,
    /// Numbers of the bytes that only decided what flowed: an index in an address, the condition of a selection.
    pub through: BTreeSet<u32>,
    /// Why a part of it is not known.
    pub lost: BTreeSet<Lost>,
}

impl Default for Sets {
    fn default() -> Sets {
        Sets {
            nodes: vec![(EMPTY, EMPTY); 2],
            known: vec![(EMPTY, EMPTY, EMPTY); REMEMBERED],
            reasons: Vec::new(),
            by_reason: HashMap::new(),
        }
    }
}

impl Sets {
    /// The set of one byte, by its number below [`MOST_BYTES`].
    pub fn byte(number: u32) -> Id {
        BYTES + number
    }

    /// A set that is not known.
    pub fn lost(&mut self, reason: Lost) -> Id {
        if let Some(id) = self.by_reason.get(&reason) {
            return *id;
        }
        let id = self.nodes.len() as Id;
        self.nodes.push((LOST, self.reasons.len() as Id));
        self.reasons.push(reason);
        self.by_reason.insert(reason, id);
        id
    }

    /// Why nothing is known of a set at all.
    pub fn reason(&self, set: Id) -> Option<Lost> {
        let (first, reason) = *self.nodes.get(set as usize)?;
        (first == LOST).then(|| self.reasons[reason as usize])
    }

    /// What decides, with the values of `set`, what flows on.
    pub fn through(&mut self, set: Id) -> Id {
        let is_through = |id: Id| id < BYTES && self.nodes[id as usize].0 == THROUGH;
        if set <= NOTHING || is_through(set) { set } else { self.node(THROUGH, set) }
    }

    pub fn union(&mut self, a: Id, b: Id) -> Id {
        let (a, b) = (a.min(b), a.max(b));
        if a <= NOTHING || a == b {
            return b;
        }
        let has = |set: Id, part: Id| {
            set < BYTES && {
                let (x, y) = self.nodes[set as usize];
                x != THROUGH && x != LOST && (x == part || y == part)
            }
        };
        if has(a, b) {
            return a;
        }
        if has(b, a) {
            return b;
        }
        self.node(a, b)
    }

    pub fn union_of(&mut self, sets: impl IntoIterator<Item = Id>) -> Id {
        sets.into_iter().fold(EMPTY, |all, set| self.union(all, set))
    }

    fn node(&mut self, a: Id, b: Id) -> Id {
        let mixed = (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = (mixed >> 44) as usize % REMEMBERED;
        let (x, y, known) = self.known[slot];
        if (x, y) == (a, b) && known != EMPTY {
            return known;
        }
        if self.nodes.len() >= MOST {
            return self.lost(Lost::Full);
        }
        let id = self.nodes.len() as Id;
        self.nodes.push((a, b));
        self.known[slot] = (a, b, id);
        id
    }

    /// What is in a set.
    pub fn held(&self, set: Id) -> Held {
        let mut held = Held::default();
        let words = self.nodes.len().div_ceil(64);
        let mut seen = [vec![0_u64; words], vec![0_u64; words]];
        let mut open = vec![(set, false)];
        while let Some((id, through)) = open.pop() {
            if id >= BYTES {
                let bytes = if through { &mut held.through } else { &mut held.bytes };
                bytes.insert(id - BYTES);
                continue;
            }
            let (word, bit) = (id as usize / 64, 1 << (id % 64));
            let seen = &mut seen[usize::from(through)][word];
            if id <= NOTHING || *seen & bit != 0 {
                continue;
            }
            *seen |= bit;
            match self.nodes[id as usize] {
                (THROUGH, of) => open.push((of, true)),
                (LOST, reason) => drop(held.lost.insert(self.reasons[reason as usize])),
                (a, b) => open.extend([(a, through), (b, through)]),
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_holds_the_bytes_of_both() {
        let mut sets = Sets::default();
        let (a, b) = (sets.union(Sets::byte(3), Sets::byte(4)), sets.union(Sets::byte(4), Sets::byte(9)));
        let all = sets.union(a, b);
        assert_eq!(sets.held(all).bytes, BTreeSet::from([3, 4, 9]));
        assert_eq!(sets.union(all, a), all, "what is a part of it adds nothing");
        assert_eq!(sets.union(b, EMPTY), b);
        assert_eq!(sets.union(NOTHING, EMPTY), NOTHING);
    }

    #[test]
    fn what_decides_is_told_from_what_flows() {
        let mut sets = Sets::default();
        let index = sets.through(Sets::byte(7));
        let loaded = sets.union(Sets::byte(1), index);
        let held = sets.held(loaded);
        assert_eq!((held.bytes, held.through), (BTreeSet::from([1]), BTreeSet::from([7])));
        let again = sets.through(loaded);
        assert_eq!(sets.held(again).through, BTreeSet::from([1, 7]));
    }

    #[test]
    fn workgroups_that_were_not_followed_are_told_together() {
        let all = |groups: std::ops::Range<u32>| {
            let groups = groups.map(|group| Lost::Group { launch: 1, group });
            in_words(&groups.chain([Lost::Beside]).collect())
        };
        assert!(all(3..4)[1].starts_with("workgroup 3 of launch 1 has written"));
        assert!(all(3..6)[1].starts_with("workgroups 3, 4 and 5 of launch 1 have written"));
        assert!(all(0..300)[1].starts_with("workgroups 0, 1, 2, 3, 4, 5, 6, 7 and 292 more of launch 1"));
    }

    #[test]
    fn a_set_that_is_not_known_says_why_wherever_it_flows() {
        let mut sets = Sets::default();
        let lost = sets.lost(Lost::Instruction("v_example"));
        let all = sets.union(lost, Sets::byte(2));
        assert_eq!(sets.held(all).lost, BTreeSet::from([Lost::Instruction("v_example")]));
    }
}
