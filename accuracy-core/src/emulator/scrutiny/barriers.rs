//! Barriers that part of a workgroup does not take part in as the others do.
//!
//! The hardware counts a wave that has ended as one that has come, so a wave may leave early. A wave that goes round a
//! barrier is found by what it executes: code that the others execute behind that barrier.

use std::collections::{HashMap, HashSet};

/// A wave that has not ended, or has.
#[derive(Clone, Debug, Default)]
struct Trail {
    /// Memory instructions since its last barrier.
    since: HashSet<u64>,
    /// Where it waits, and the lanes that are on there.
    at: u64,
    lanes: u64,
    /// The lanes that were off at its last barrier; none once one of them was seen again.
    off: u64,
}

#[derive(Default)]
struct Group {
    waves: Vec<Trail>,
    /// Code that waves have executed which then ended and never came to the last barrier, and those waves.
    round: HashMap<u64, u32>,
    barrier: u64,
}

/// What is wrong with a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A wave ended without coming to it, and had executed the instruction at this address, which lies behind it.
    WentRound { wave: u32, behind: u64 },
    /// Another wave waits at another barrier.
    Elsewhere { wave: u32, other: u64 },
    /// Lanes that were off at it go on afterwards; the lowest one is this.
    Lanes { lane: u8, behind: u64 },
}

/// What is known of the barriers of a launch.
#[derive(Default)]
pub struct Barriers(HashMap<u32, Group>);

/// Waves that a workgroup may have.
const WAVES: usize = 16;

impl Barriers {
    fn group(&mut self, group: u32) -> &mut Group {
        self.0
            .entry(group)
            .or_insert_with(|| Group { waves: vec![Trail::default(); WAVES], ..Group::default() })
    }

    /// A wave comes to a barrier with these lanes on.
    pub fn comes(&mut self, group: u32, wave: u32, at: u64, lanes: u64) {
        let trail = &mut self.group(group).waves[wave as usize % WAVES];
        (trail.at, trail.lanes) = (at, lanes);
    }

    /// A wave executes a memory instruction. Gives the barrier that this shows to be wrong.
    pub fn executes(&mut self, group: u32, wave: u32, at: u64, lanes: u64) -> Option<(u64, Wrong)> {
        let group = self.group(group);
        let round = group.round.get(&at).copied();
        let barrier = group.barrier;
        let trail = &mut group.waves[wave as usize % WAVES];
        trail.since.insert(at);
        if let Some(other) = round {
            group.round.clear();
            return Some((barrier, Wrong::WentRound { wave: other, behind: at }));
        }
        let again = lanes & trail.off;
        if again != 0 {
            trail.off = 0;
            let lane = again.trailing_zeros() as u8;
            return Some((trail.at, Wrong::Lanes { lane, behind: at }));
        }
        None
    }

    /// The waves of a workgroup that have not `ended` go on. Gives what is wrong with their barrier.
    pub fn meet(&mut self, group: u32, ended: u64) -> Option<(u64, u32, Wrong)> {
        let group = self.group(group);
        let mut round = HashMap::new();
        let mut first: Option<(usize, u64)> = None;
        let mut wrong = None;
        let gone = group.waves.iter().enumerate().filter(|(index, _)| ended >> index & 1 != 0);
        for (index, trail) in gone {
            round.extend(trail.since.iter().map(|at| (*at, index as u32)));
        }
        for (index, trail) in group.waves.iter_mut().enumerate() {
            if ended >> index & 1 != 0 || trail.at == 0 {
                continue;
            }
            match first {
                None => first = Some((index, trail.at)),
                Some((_, at)) if at == trail.at => {}
                Some((one, at)) => {
                    wrong = wrong.or(Some((
                        at,
                        one as u32,
                        Wrong::Elsewhere { wave: index as u32, other: trail.at },
                    )));
                }
            }
            // What both executed before the barrier is no sign.
            trail.since.iter().for_each(|at| {
                round.remove(at);
            });
            trail.since.clear();
            trail.off = !trail.lanes;
        }
        group.round = round;
        group.barrier = first.map_or(0, |(_, at)| at);
        wrong
    }

    pub fn ended(&mut self, group: u32) {
        self.0.remove(&group);
    }
}
