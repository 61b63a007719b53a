//! Which launch changed which buffer, seen by comparing buffers between the launches of a chain.
//!
//! Between launches the device is waited for, which hides that a kernel ran on another stream or read too early: a run
//! that is watched is never the only one.

use super::memory;
use super::{Buffer, Case, Kind};
use crate::device::memory::{Memory, View};
use crate::library::{Launch, Watcher, watch_launches};
use crate::reference::BufferId;
use crate::reference::graph::Op;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

/// Which buffers of a run are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watch {
    Nothing,
    /// Those that kernels write.
    Written,
    /// Inputs and weights as well.
    Everything,
}

/// An allocation that is watched.
struct Watched {
    buffer: BufferId,
    /// Index of the allocation: elements, scales.
    allocation: usize,
    view: View,
    ranges: Vec<Range<usize>>,
    /// The bytes of the buffer when the framework last read them.
    last: Vec<Vec<u8>>,
    /// Launches that changed it, with what it held before.
    changes: Vec<(usize, Vec<Vec<u8>>)>,
    /// Whether it was changed between launches, by the test itself, and by no launch since.
    by_test: bool,
}

/// Held by a case as long as its memory is there.
pub(super) struct Watching;

impl Drop for Watching {
    fn drop(&mut self) {
        watch_launches(None);
        WATCHED.take();
    }
}

thread_local! {
    static WATCHED: RefCell<Vec<Watched>> = const { RefCell::new(Vec::new()) };
}

impl Watched {
    fn look(&self) -> Vec<Vec<u8>> {
        // SAFETY: the case forgets what it watches before its memory goes, and the launches before are done.
        let read = |range: &Range<usize>| unsafe { self.view.read(range) };
        // A device in an error has nothing to say; the chain's end reports it.
        self.ranges.iter().map(|range| read(range).unwrap_or_default()).collect()
    }
}

/// A launch is about to happen.
fn before_launch() {
    WATCHED.with_borrow_mut(|watched| {
        for watched in watched {
            let now = watched.look();
            watched.by_test |= now != watched.last;
            watched.last = now;
        }
    });
}

/// The launch of this number has happened.
fn after_launch(launch: usize) {
    WATCHED.with_borrow_mut(|watched| {
        for watched in watched {
            let now = watched.look();
            if now != watched.last {
                watched.changes.push((launch, std::mem::replace(&mut watched.last, now)));
                watched.by_test = false;
            }
        }
    });
}

/// A buffer that a launch changed without any right to.
pub(super) struct Damage {
    pub buffer: BufferId,
    pub launcher: &'static str,
}

/// What watching a run has shown.
#[derive(Default)]
pub(super) struct Seen {
    pub damage: Vec<Damage>,
    /// Allocations whose contents the test itself has written, and no launcher since.
    pub by_test: BTreeSet<usize>,
}

impl Case {
    /// Watches a buffer from now on, if this run does. What the framework puts there it has put there before.
    pub(super) fn watch(&self, id: BufferId) {
        let buffer = &self.buffers[id.0];
        let wanted = match self.setup.watch {
            Watch::Nothing => false,
            Watch::Written => buffer.kind.is_written() || buffer.kind == Kind::Before,
            Watch::Everything => true,
        };
        if !wanted {
            return;
        }
        let watched = |allocation: usize| {
            let memory = &self.allocations[allocation];
            let ranges = match allocation == buffer.data {
                true => memory::touched(memory, buffer.dtype, &buffer.shape),
                false => std::iter::once(0..memory.len()).collect(),
            };
            let (view, last, changes) = (memory.view(), Vec::new(), Vec::new());
            let mut watched = Watched { buffer: id, allocation, view, ranges, last, changes, by_test: false };
            watched.last = watched.look();
            watched
        };
        let all = std::iter::once(buffer.data).chain(buffer.companions());
        WATCHED.with_borrow_mut(|list| list.extend(all.map(watched)));
        watch_launches(Some(Watcher { before: before_launch, after: after_launch }));
    }

    /// Says what has been seen, once everything has been read back. Undoes what consumers did to their operands: an
    /// intermediate is what its producer made of it, and its consumers have read that.
    pub(super) fn undo_damage(&mut self, launches: &[Launch]) -> Seen {
        let mut seen = Seen::default();
        for watched in WATCHED.take() {
            let buffer = &self.buffers[watched.buffer.0];
            let memory = &self.allocations[watched.allocation];
            let holds =
                |(range, last): (&Range<usize>, &Vec<u8>)| memory.read(range.start, range.len()) == last;
            if watched.by_test || !watched.ranges.iter().zip(&watched.last).all(holds) {
                seen.by_test.insert(watched.allocation);
            }
            if buffer.kind == Kind::Before {
                // A launcher may update it.
                continue;
            }
            let given = !buffer.kind.is_written();
            let mut changes = watched.changes.into_iter();
            // The first to write an intermediate is its producer, whatever else it is given.
            let damage = match given {
                true => changes.next(),
                false => changes.skip(1).find(|(at, _)| self.consumes(&launches[*at], watched.buffer)),
            };
            let Some((launch, before)) = damage else { continue };
            let launcher = launches[launch].launcher;
            seen.damage.push(Damage { buffer: watched.buffer, launcher });
            if !given {
                let memory: &mut Memory = &mut self.allocations[watched.allocation];
                for (range, bytes) in watched.ranges.iter().zip(before) {
                    memory.write(range.start, range.len()).copy_from_slice(&bytes);
                }
            }
        }
        seen
    }

    /// Whether a launch was given a buffer that is computed from this one.
    fn consumes(&self, launch: &Launch, id: BufferId) -> bool {
        let reads = |buffer: &Buffer| {
            let mut reads = false;
            if let Some(source) = &buffer.source {
                source.visit(&mut |e| reads |= matches!(e.0.op, Op::Buffer(of) if of == id));
            }
            reads
        };
        let own = self.buffers[id.0].data;
        self.buffers.iter().any(|buffer| {
            let memory = &self.allocations[buffer.data];
            buffer.data != own && reads(buffer) && launch.touches(memory.address(), memory.len())
        })
    }
}
