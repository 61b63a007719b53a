//! Races: two waves use the same bytes, one of them writes, and nothing orders the two.
//!
//! Each access has a number among those of its wave. A wave knows up to which number the accesses of another one come before
//! its own; barriers and atomics pass that on (`clocks`). The last accesses to each byte are kept (`shadow`), and whoever
//! comes behind one that it does not know of races with it. That is found whatever order the emulator takes the waves in.
//!
//! What orders: `s_barrier`; atomics of integers, with what their wave has waited for by `s_waitcnt`; loads and stores with
//! `sc0` or `sc1`, which is how compilers encode atomic and volatile ones; loads that poll (`polls`); barriers of the grid.
//! What is no race: two atomics; a write of what is there already; reads that a later wave's write overtakes, of the third
//! and further waves that read the same bytes, are not kept.

use super::clocks::{Clock, Known, Progress, WAVES};
use super::shadow::{Cell, How, Shadow, Stamp};
use super::{Does, Place, Who};
use crate::emulator::isa::Encoding;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The counter that counts an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Vector,
    Local,
    Scalar,
}

impl Queue {
    pub fn of(encoding: Encoding) -> Option<Queue> {
        match encoding {
            Encoding::Smem => Some(Queue::Scalar),
            Encoding::Ds => Some(Queue::Local),
            encoding if encoding.is_memory() => Some(Queue::Vector),
            _ => None,
        }
    }
}

/// An access of a lane.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    pub who: Who,
    pub at: u64,
    pub lane: u8,
    pub queue: Queue,
    /// A plain load or store that orders memory as an atomic does.
    pub orders: bool,
    /// A load that waits for a flag.
    pub polls: bool,
    /// An atomic of floats, which hands nothing over.
    pub float: bool,
    /// An atomic whose old value somebody looks at.
    pub returns: bool,
}

/// The other access of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    /// Where the instruction is.
    pub other: u64,
    pub other_workgroup: [u32; 3],
    pub other_wave: u32,
    pub other_writes: bool,
    pub does: Does,
    /// Offset in LDS, where the bytes are there.
    pub lds: Option<u32>,
    /// Whether the other access came into LDS out of global memory, and was not waited for.
    pub transfer: bool,
}

/// A workgroup that runs.
#[derive(Default)]
struct Group {
    waves: Vec<Progress>,
    lds: Shadow,
    /// What was made known by atomics in LDS, by dword.
    sync: HashMap<u64, Arc<Known>>,
}

/// What is known of the accesses of a launch.
pub struct Races {
    blocks: [u32; 3],
    /// Address of the code.
    base: u64,
    polls: HashSet<u64>,
    /// Memory that kernels share with the host, which orders it in its own way.
    apart: Vec<(u64, u64)>,
    groups: HashMap<u32, Group>,
    global: Shadow,
    /// What was made known by atomics in global memory, by dword; the resources of global barriers are below them.
    sync: HashMap<u64, Arc<Known>>,
    waves_of_group: u32,
}

/// Bytes that the cells of global memory may take. What is touched behind that is not looked at.
const MOST: usize = 2 << 30;

impl Races {
    /// `apart` are start and end of memory that is not looked at.
    pub fn new(
        blocks: [u32; 3],
        waves_of_group: u32,
        base: u64,
        polls: HashSet<u64>,
        apart: Vec<(u64, u64)>,
    ) -> Races {
        Races {
            blocks,
            base,
            polls,
            apart,
            groups: HashMap::new(),
            global: Shadow::default(),
            sync: HashMap::new(),
            waves_of_group,
        }
    }

    /// Leaves memory out that is between two addresses.
    pub fn leave_out(&mut self, memory: (u64, u64)) {
        self.apart.push(memory);
    }

    /// Whether the load at an address waits for a flag.
    pub fn polls(&self, at: u64) -> bool {
        self.polls.contains(&at)
    }

    fn group(&mut self, group: u32) -> &mut Group {
        let count = self.waves_of_group.min(WAVES) as usize;
        self.groups.entry(group).or_insert_with(|| Group {
            waves: (0..count).map(|_| Progress::default()).collect(),
            ..Group::default()
        })
    }

    fn wave(&mut self, who: Who) -> &mut Progress {
        let index = (who.wave.min(WAVES - 1)) as usize;
        &mut self.group(who.group).waves[index]
    }

    /// A wave asks for an access.
    pub fn issue(&mut self, who: Who, queue: Queue) {
        match queue {
            Queue::Vector => self.wave(who).issue_vector(),
            Queue::Local => self.wave(who).issue_local(),
            Queue::Scalar => {}
        }
    }

    /// A wave waits until no more accesses are under way than these.
    pub fn wait(&mut self, who: Who, vector: usize, local: usize) {
        self.wave(who).wait(vector, local);
    }

    /// The waves of a workgroup that have not `ended` have met.
    pub fn barrier(&mut self, group: u32, ended: u64) {
        let number = group * WAVES;
        let of = self.group(group);
        let mut all = Known::default();
        for (index, wave) in of.waves.iter().enumerate() {
            all.join(&wave.known);
            let clock = if ended >> index & 1 != 0 { Clock::ENDED } else { wave.at_barrier() };
            all.add(number + index as u32, clock);
        }
        of.waves.iter_mut().for_each(|wave| wave.learn(all.clone()));
    }

    /// A workgroup has ended.
    pub fn ended(&mut self, group: u32) {
        self.groups.remove(&group);
    }

    /// Makes known at a resource what a wave has waited for, beside what others made known there.
    pub fn release_at(&mut self, who: Who, resource: u64) {
        let known = self.wave(who).release(number(who));
        let mut all = self.sync.get(&resource).map_or_else(Known::default, |known| (**known).clone());
        all.join(&known);
        self.sync.insert(resource, Arc::new(all));
    }

    /// Learns what was made known at a resource.
    pub fn acquire_at(&mut self, who: Who, resource: u64) {
        if let Some(known) = self.sync.get(&resource).cloned() {
            self.wave(who).acquire(&known);
        }
    }

    /// A lane accesses bytes. Gives the other access, if the two race.
    pub fn access(&mut self, touch: Touch, place: Place, bytes: u32, does: Does) -> Option<Race> {
        if let Place::Global(address) = place {
            let apart = self.apart.iter().any(|(start, end)| (*start..*end).contains(&address));
            if apart || self.global.taken() > MOST {
                return None;
            }
        }
        if (does == Does::Changes && !touch.float) || touch.orders || touch.polls {
            self.order(touch, place, does);
        }
        let stamp = self.stamp(touch, place, does);
        let me = number(touch.who);
        let group = self.groups.get_mut(&touch.who.group)?;
        let progress = &group.waves[touch.who.wave.min(WAVES - 1) as usize];
        let in_lds = matches!(place, Place::Lds(..));
        let (shadow, at) = match place {
            Place::Global(address) => (&mut self.global, address),
            Place::Lds(offset, _) => (&mut group.lds, u64::from(offset)),
        };
        let known = &progress.known;
        let mut found: Option<(Stamp, bool)> = None;
        shadow.each(at, bytes, |cell| {
            let other = against(cell, &stamp, known, in_lds, does);
            found = found.or(other);
            keep(cell, stamp, does, me);
        });
        found.map(|(other, other_writes)| self.race(&other, other_writes, place, does))
    }

    /// An access that orders memory: learns what others made known at the place, and makes known what its wave has waited for.
    fn order(&mut self, touch: Touch, place: Place, does: Does) {
        let (key, in_lds) = match place {
            Place::Global(address) => (address / 4, false),
            Place::Lds(offset, _) => (u64::from(offset / 4), true),
        };
        let me = number(touch.who);
        if touch.polls && !touch.orders && does == Does::Reads {
            self.learn_from_writer(touch, place);
        }
        let group = self.group(touch.who.group);
        let index = touch.who.wave.min(WAVES - 1) as usize;
        let there = match in_lds {
            true => group.sync.get(&key).cloned(),
            false => self.sync.get(&(key << 2)).cloned(),
        };
        let Some(progress) = self.groups.get_mut(&touch.who.group).map(|group| &mut group.waves[index])
        else {
            return;
        };
        let learns = does == Does::Reads || does == Does::Changes && touch.returns;
        if let Some(there) = there.as_ref().filter(|_| learns) {
            progress.acquire(there);
        }
        if does == Does::Reads {
            return;
        }
        let mut made = progress.release(me);
        // A store takes the place of what was there; an atomic goes on from it.
        if let Some(there) = there.filter(|there| does == Does::Changes && !made.covers(there)) {
            let mut all = (*made).clone();
            all.join(&there);
            made = Arc::new(all);
        }
        match in_lds {
            true => {
                self.group(touch.who.group).sync.insert(key, made);
            }
            false => {
                self.sync.insert(key << 2, made);
            }
        }
    }

    /// A flag was written by a plain store: whoever waits for it knows what that wave has waited for.
    fn learn_from_writer(&mut self, touch: Touch, place: Place) {
        let group = self.group(touch.who.group);
        let mut writer = Stamp::NOBODY;
        match place {
            Place::Lds(offset, _) => group.lds.each(u64::from(offset), 1, |cell| writer = cell.write),
            Place::Global(address) => self.global.each(address, 1, |cell| writer = cell.write),
        }
        if writer.is_nobody() || writer.how.atomic || writer.wave == number(touch.who) {
            return;
        }
        let (of, wave) = (writer.wave / WAVES, (writer.wave % WAVES) as usize);
        let made = match self.groups.get_mut(&of).and_then(|group| group.waves.get_mut(wave)) {
            Some(progress) => progress.release(writer.wave),
            None => {
                let mut ended = Known::default();
                ended.add(writer.wave, Clock::ENDED);
                Arc::new(ended)
            }
        };
        self.wave(touch.who).acquire(&made);
    }

    fn stamp(&mut self, touch: Touch, place: Place, does: Does) -> Stamp {
        let progress = self.wave(touch.who);
        let number_of = match touch.queue {
            Queue::Local => progress.local,
            Queue::Vector => progress.vector,
            // Nothing is done with it before it is there.
            Queue::Scalar => progress.vector_done,
        };
        let how = How {
            atomic: does == Does::Changes || touch.orders,
            polls: touch.polls,
            transfer: touch.queue != Queue::Local && matches!(place, Place::Lds(..)),
        };
        let at = u32::try_from(touch.at.wrapping_sub(self.base)).unwrap_or(u32::MAX);
        Stamp { wave: number(touch.who), number: number_of, at, how }
    }

    fn race(&self, other: &Stamp, other_writes: bool, place: Place, does: Does) -> Race {
        let [x, y, _] = self.blocks;
        let group = other.wave / WAVES;
        let lds = match place {
            Place::Lds(offset, _) => Some(offset),
            Place::Global(_) => None,
        };
        Race {
            other: self.base + u64::from(other.at),
            other_workgroup: [group % x, group / x % y, group / x / y],
            other_wave: other.wave % WAVES,
            other_writes,
            does,
            lds,
            transfer: other.how.transfer,
        }
    }
}

/// A wave's number in the launch.
fn number(who: Who) -> u32 {
    who.group * WAVES + who.wave.min(WAVES - 1)
}

/// The access in a cell with which an access races, and whether it writes.
fn against(cell: &Cell, new: &Stamp, known: &Known, in_lds: bool, does: Does) -> Option<(Stamp, bool)> {
    let races = |old: &Stamp, old_writes: bool| {
        let (a, b) = (old.how, new.how);
        // Who waits for a flag does not mind who writes it.
        let agree = a.atomic && b.atomic || a.polls || b.polls;
        !old.is_nobody() && old.wave != new.wave && !agree && !is_known(old, old_writes, known, in_lds)
    };
    if races(&cell.write, true) {
        return Some((cell.write, true));
    }
    if does == Does::Reads {
        return None;
    }
    cell.reads.iter().find(|read| races(read, false)).map(|read| (*read, false))
}

fn is_known(stamp: &Stamp, writes: bool, known: &Known, in_lds: bool) -> bool {
    let clock = known.of(stamp.wave);
    let reached = match (in_lds, stamp.how.transfer, writes) {
        (false, _, _) => clock.vector,
        (true, true, true) => clock.transfers,
        (true, true, false) => clock.vector,
        (true, false, true) => clock.written,
        (true, false, false) => clock.read,
    };
    reached >= stamp.number
}

/// Notes an access in a cell.
fn keep(cell: &mut Cell, stamp: Stamp, does: Does, me: u32) {
    if does == Does::Reads {
        if cell.reads[0].wave != me {
            cell.reads[1] = cell.reads[0];
        }
        cell.reads[0] = stamp;
        return;
    }
    *cell = Cell { write: stamp, reads: [Stamp::NOBODY; 2] };
}
