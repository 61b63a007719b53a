//! What a wave knows of the others: how many of their accesses come before its own.
//!
//! Source: LLVM's user guide for the AMDGPU backend, "Memory Model GFX942". A barrier orders what the waves of a workgroup do
//! in global memory, without any wait, as they share a compute unit; in LDS it orders what was waited for. An atomic makes
//! known to other workgroups what its wave has waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How far a wave has got, as another one knows it: numbers of accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Accesses to global memory.
    pub vector: u32,
    /// Transfers from global memory into LDS, by their numbers among the same.
    pub transfers: u32,
    /// Writes of LDS.
    pub written: u32,
    /// Reads of LDS.
    pub read: u32,
}

impl Clock {
    /// What is known of a wave that has ended.
    pub const ENDED: Clock =
        Clock { vector: u32::MAX, transfers: u32::MAX, written: u32::MAX, read: u32::MAX };

    fn join(&mut self, other: &Clock) {
        self.vector = self.vector.max(other.vector);
        self.transfers = self.transfers.max(other.transfers);
        self.written = self.written.max(other.written);
        self.read = self.read.max(other.read);
    }

    /// Whether it knows at least as much.
    fn covers(&self, other: &Clock) -> bool {
        self.vector >= other.vector
            && self.transfers >= other.transfers
            && self.written >= other.written
            && self.read >= other.read
    }
}

/// What is known of the waves of workgroups, by the numbers of workgroups.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<u32, Vec<Clock>>);

/// Waves that a workgroup may have.
pub const WAVES: u32 = 16;

impl Known {
    /// What is known of a wave, by its number in the launch.
    pub fn of(&self, wave: u32) -> Clock {
        let clocks = self.0.get(&(wave / WAVES));
        clocks.and_then(|clocks| clocks.get((wave % WAVES) as usize)).copied().unwrap_or_default()
    }

    /// Adds what is known of one wave.
    pub fn add(&mut self, wave: u32, clock: Clock) {
        let clocks = self.0.entry(wave / WAVES).or_default();
        let index = (wave % WAVES) as usize;
        if clocks.len() <= index {
            clocks.resize(index + 1, Clock::default());
        }
        clocks[index].join(&clock);
    }

    /// Adds what another one knows.
    pub fn join(&mut self, other: &Known) {
        for (group, clocks) in &other.0 {
            let mine = self.0.entry(*group).or_default();
            if mine.len() < clocks.len() {
                mine.resize(clocks.len(), Clock::default());
            }
            mine.iter_mut().zip(clocks).for_each(|(mine, other)| mine.join(other));
        }
    }

    /// Whether it knows all that another one does.
    pub fn covers(&self, other: &Known) -> bool {
        other.0.iter().all(|(group, clocks)| {
            let mine = self.0.get(group).map_or(&[][..], |mine| mine);
            clocks.iter().enumerate().all(|(i, clock)| mine.get(i).copied().unwrap_or_default().covers(clock))
        })
    }
}

/// How far a wave has got itself, and what it knows.
#[derive(Debug, Default)]
pub struct Progress {
    /// Accesses that it has asked for: vector memory, LDS.
    pub vector: u32,
    pub local: u32,
    /// How many of them it has waited for.
    pub vector_done: u32,
    pub local_done: u32,
    pub known: Known,
    /// What it makes known by an atomic; made anew when that has changed.
    released: Option<Arc<Known>>,
}

impl Progress {
    /// A wave asks for an access. The counters hold so many at the most, and it stands still at one more.
    pub fn issue_vector(&mut self) {
        self.vector += 1;
        self.wait(63, usize::MAX);
    }

    pub fn issue_local(&mut self) {
        self.local += 1;
        self.wait(usize::MAX, 15);
    }

    /// What remains is at most as much as it says.
    pub fn wait(&mut self, vector: usize, local: usize) {
        let done = |issued: u32, left: usize| issued.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX));
        let (vector, local) = (done(self.vector, vector), done(self.local, local));
        if vector > self.vector_done || local > self.local_done {
            self.vector_done = self.vector_done.max(vector);
            self.local_done = self.local_done.max(local);
            self.released = None;
        }
    }

    /// What other waves of the workgroup know of it behind a barrier.
    pub fn at_barrier(&self) -> Clock {
        Clock { vector: self.vector, transfers: self.vector_done, written: self.local_done, read: self.local }
    }

    /// What it makes known by an atomic. `number` is its own in the launch.
    pub fn release(&mut self, number: u32) -> Arc<Known> {
        if let Some(released) = &self.released {
            return released.clone();
        }
        let mut known = self.known.clone();
        let clock = Clock {
            vector: self.vector_done,
            transfers: self.vector_done,
            written: self.local_done,
            read: self.local_done,
        };
        known.add(number, clock);
        let released = Arc::new(known);
        self.released = Some(released.clone());
        released
    }

    /// Learns what another one made known.
    pub fn acquire(&mut self, other: &Known) {
        if !self.known.covers(other) {
            self.known.join(other);
            self.released = None;
        }
    }

    /// Knows this from now on, which is all that it knew and more.
    pub fn learn(&mut self, known: Known) {
        self.known = known;
        self.released = None;
    }
}
