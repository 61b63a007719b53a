//! What flows through memory: global memory, LDS and scratch.

use super::registers::Dword;
use super::rules::Step;
use super::sets::{EMPTY, Id, Lost, NOTHING};
use super::{Current, Tracking, Wrote, byte_of, find};
use crate::emulator::isa::{Encoding, Inst, Mark, Operand, Role};
use crate::emulator::scrutiny::{Does, Place};
use crate::emulator::wave::{LANES, Wave};
use std::collections::HashMap;

const PAGE: u64 = 1024;

/// Sets of bytes by their addresses.
#[derive(Default)]
pub struct Pages(HashMap<u64, Box<[Id; PAGE as usize]>>);

impl Pages {
    pub fn get(&self, address: u64) -> Id {
        self.0.get(&(address / PAGE)).map_or(EMPTY, |page| page[(address % PAGE) as usize])
    }

    pub fn set(&mut self, address: u64, set: Id) {
        let page = self.0.entry(address / PAGE).or_insert_with(|| Box::new([EMPTY; PAGE as usize]));
        page[(address % PAGE) as usize] = set;
    }

    /// Gives the same set to many bytes; no pages are made for it.
    pub fn fill(&mut self, address: u64, bytes: u64, set: Id) {
        let end = address + bytes;
        let pages = address / PAGE..end.div_ceil(PAGE);
        let fill = |number: u64, page: &mut [Id; PAGE as usize]| {
            let (from, to) = (address.max(number * PAGE), end.min((number + 1) * PAGE));
            if from < to {
                page[(from - number * PAGE) as usize..(to - number * PAGE) as usize].fill(set);
            }
        };
        if pages.end - pages.start > self.0.len() as u64 {
            self.0
                .iter_mut()
                .filter(|(number, _)| pages.contains(number))
                .for_each(|(n, page)| fill(*n, page));
        } else {
            for number in pages {
                if let Some(page) = self.0.get_mut(&number) {
                    fill(number, page);
                }
            }
        }
    }
}

/// Bytes that an instruction accesses in a lane.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub place: Place,
    pub bytes: u32,
    pub lane: u8,
    pub does: Does,
}

/// Whether an LDS instruction touches no memory, and only moves values between lanes.
pub fn moves_lanes(mnemonic: &str) -> bool {
    matches!(mnemonic, "ds_swizzle_b32" | "ds_permute_b32" | "ds_bpermute_b32")
}

/// What a load of less than a dword does with its register.
#[derive(Clone, Copy)]
struct Lesser {
    signed: bool,
    /// Whether it writes one half and leaves the other: the upper one, if so.
    half: Option<bool>,
}

fn lesser(mnemonic: &str) -> Option<Lesser> {
    let has = |parts: &[&str]| parts.iter().any(|part| mnemonic.contains(part));
    let signed = has(&["_sbyte", "_sshort", "read_i8", "read_i16"]);
    let unsigned = has(&["_ubyte", "_ushort", "read_u8", "read_u16", "load_short"]);
    (signed || unsigned)
        .then(|| Lesser { signed, half: mnemonic.contains("d16").then(|| mnemonic.ends_with("_hi")) })
}

impl Tracking {
    /// A workgroup that is not followed has executed a memory instruction.
    pub(super) fn passed(&mut self, current: &Current) {
        for access in std::mem::take(&mut self.accesses) {
            let Place::Global(address) = access.place else { continue };
            if access.does == Does::Reads {
                continue;
            }
            let part = (self.launch, current.who.group);
            let declared = find(&self.lies, address);
            if declared.is_some_and(|lies| !lies.target) {
                continue;
            }
            self.note(current, address, &access);
            // The number of the part among the unknown: whoever reads it asks for it.
            let set = self.part(part);
            for byte in address..address + u64::from(access.bytes) {
                let set = match access.does {
                    // What was there before flows into what is there now, as a sum of several workgroups has it.
                    Does::Changes => {
                        let all = self.sets.union(self.pages.get(byte), set);
                        self.changed.insert(all);
                        all
                    }
                    Does::Reads | Does::Writes => set,
                };
                self.pages.set(byte, set);
            }
        }
    }

    /// The set that stands for what a workgroup wrote that is not followed.
    fn part(&mut self, (launch, group): (u32, u32)) -> Id {
        self.sets.lost(Lost::Group { launch, group })
    }

    /// Notes who writes what is asked about.
    fn note(&mut self, current: &Current, address: u64, access: &Access) {
        let end = address + u64::from(access.bytes);
        if self.asked.range(address..end).next().is_some() {
            self.needed.insert((self.launch, current.who.group));
            let bytes: Vec<u64> = self.asked.range(address..end).map(|(byte, _)| *byte).collect();
            let wrote = Wrote { who: current.who, at: current.at, lane: access.lane };
            for byte in bytes {
                self.fresh.insert(byte, wrote);
            }
        }
    }

    /// A workgroup that is followed has executed a memory instruction.
    pub(super) fn moved(&mut self, wave: &Wave, inst: &Inst, current: &Current) {
        let accesses = std::mem::take(&mut self.accesses);
        if inst.encoding == Encoding::Smem {
            self.scalar(inst, current, &accesses);
        } else if inst.memory.lds || inst.row.is(Mark::Lds) {
            self.load_into_lds(inst, current, &accesses);
        } else if inst.row.mnemonic.contains("_tr_b") {
            self.transposed(inst, &accesses);
        } else if accesses.iter().any(|access| access.does == Does::Changes) || inst.row.is(Mark::Atomic) {
            self.changes(wave, inst, current, &accesses);
        } else if inst.row.operands.iter().any(|slot| matches!(slot.role, Role::Dst | Role::DstSrc)) {
            self.loads(inst, current, &accesses);
        } else {
            self.stores(inst, current, &accesses);
        }
        Step { sets: &mut self.sets, registers: &mut self.active.1, wave, inst }.depends();
        self.accesses = accesses;
    }

    /// The set of a byte in memory.
    fn read(&mut self, current: &Current, place: Place, byte: u32) -> Id {
        let address = match place {
            Place::Lds(offset, _) => {
                let lds = self.lds.get(&current.who.group);
                return lds.and_then(|lds| lds.get((offset + byte) as usize)).copied().unwrap_or(EMPTY);
            }
            Place::Global(address) => address + u64::from(byte),
        };
        let declared = find(&self.lies, address);
        if let Some(lies) = declared {
            if !(lies.start..lies.end).contains(&address) {
                return self.sets.lost(Lost::Beside);
            }
            if !lies.target {
                return byte_of(lies, address);
            }
        }
        let own = declared.map(|lies| byte_of(lies, address));
        match self.pages.get(address) {
            // What the framework put there before the kernels ran.
            EMPTY => own.unwrap_or(EMPTY),
            set => {
                self.ask_for(set);
                set
            }
        }
    }

    /// If a set stands for workgroups that are not followed, they have to be.
    fn ask_for(&mut self, set: Id) {
        let mut ask = |lost: Lost| {
            if let Lost::Group { launch, group } = lost {
                self.needed.insert((launch, group));
            }
        };
        if let Some(lost) = self.sets.reason(set) {
            ask(lost);
        } else if self.changed.remove(&set) {
            self.sets.held(set).lost.into_iter().for_each(&mut ask);
        }
    }

    fn write(&mut self, current: &Current, access: &Access, byte: u32, set: Id) {
        let by = self.active.1.on(&mut self.sets, usize::from(access.lane) % LANES);
        let set = self.sets.union(set, by);
        match access.place {
            Place::Lds(offset, _) => {
                let lds = self.lds.entry(current.who.group).or_default();
                let at = (offset + byte) as usize;
                if lds.len() <= at {
                    lds.resize((at + 1).next_multiple_of(1024), EMPTY);
                }
                lds[at] = set;
            }
            Place::Global(address) => {
                let address = address + u64::from(byte);
                if find(&self.lies, address).is_some_and(|lies| !lies.target) {
                    return;
                }
                self.pages.set(address, set.max(NOTHING));
            }
        }
    }

    /// What decides at which address a lane's access is.
    fn address(&mut self, inst: &Inst, lane: usize) -> Id {
        let mut all = EMPTY;
        if let Operand::Vector(r) = inst.src[0]
            && inst.row.operands.iter().any(|slot| slot.role == Role::Address)
        {
            let words = match inst.encoding {
                Encoding::Flat => 2,
                Encoding::Global => 1 + usize::from(inst.src[3] == Operand::None),
                Encoding::Mubuf | Encoding::Mtbuf => {
                    usize::from(inst.memory.offen) + usize::from(inst.memory.idxen)
                }
                _ => 1,
            };
            for word in 0..words {
                let dword = self.active.1.vector(usize::from(r) + word, lane);
                all = self.sets.union_of(dword.into_iter().chain([all]));
            }
        }
        let scalars = match inst.encoding {
            Encoding::Smem if inst.row.mnemonic.contains("buffer") => 4,
            Encoding::Mubuf | Encoding::Mtbuf => 4,
            Encoding::Scratch => 1,
            _ => 2,
        };
        let offset = match inst.encoding {
            Encoding::Smem | Encoding::Mubuf | Encoding::Mtbuf => inst.src[2],
            _ => Operand::None,
        };
        for (operand, count) in [(inst.src[3], scalars), (offset, 1)] {
            if let Operand::Scalar(r) = operand {
                for word in 0..count {
                    let dword = self.active.1.scalar(&mut self.sets, usize::from(r) + word);
                    all = self.sets.union_of(dword.into_iter().chain([all]));
                }
            }
        }
        self.sets.through(all)
    }

    fn scalar(&mut self, inst: &Inst, current: &Current, accesses: &[Access]) {
        let by = self.address(inst, 0);
        let writes = accesses.iter().any(|access| access.does != Does::Reads);
        if writes {
            // Scalar stores and atomics are in no compiled code for these processors.
            let lost = self.sets.lost(Lost::Instruction(inst.row.mnemonic));
            for access in accesses {
                (0..access.bytes).for_each(|byte| self.write(current, access, byte, lost));
            }
            return;
        }
        let Operand::Scalar(first) = inst.dst else { return };
        let words = inst.row.operands.first().map_or(0, |slot| slot.kind.registers());
        let mut bytes = Vec::new();
        for access in accesses {
            for byte in 0..access.bytes {
                let set = self.read(current, access.place, byte);
                bytes.push(self.sets.union(set, by));
            }
        }
        for word in 0..usize::from(words) {
            let dword = std::array::from_fn(|i| bytes.get(4 * word + i).copied().unwrap_or(EMPTY));
            self.active.1.set_scalar(usize::from(first) + word, dword);
        }
    }

    fn loads(&mut self, inst: &Inst, current: &Current, accesses: &[Access]) {
        let Operand::Vector(first) = inst.dst else { return };
        let first = usize::from(first);
        let slot = inst.row.operands.iter().find(|slot| matches!(slot.role, Role::Dst | Role::DstSrc));
        let words = slot.map_or(0, |slot| usize::from(slot.kind.registers()));
        let lesser = lesser(inst.row.mnemonic);
        let converts = inst.row.mnemonic.contains("format");
        let mut by_lane: [Vec<&Access>; LANES] = std::array::from_fn(|_| Vec::new());
        accesses.iter().for_each(|access| by_lane[usize::from(access.lane) % LANES].push(access));
        for lane in (0..LANES).filter(|lane| current.exec >> lane & 1 != 0) {
            let mut bytes = Vec::new();
            for access in &by_lane[lane] {
                for byte in 0..access.bytes {
                    bytes.push(self.read(current, access.place, byte));
                }
            }
            let by = match bytes.is_empty() {
                // A buffer resource gave zero.
                true => EMPTY,
                false => self.address(inst, lane),
            };
            if by != EMPTY {
                bytes.iter_mut().for_each(|set| *set = self.sets.union(*set, by));
            }
            if converts {
                let all = self.sets.union_of(bytes);
                (0..words).for_each(|word| self.active.1.set_vector(first + word, lane, [all; 4]));
                continue;
            }
            if let Some(lesser) = lesser {
                let at = |i: usize| bytes.get(i).copied().unwrap_or(EMPTY);
                let top = if lesser.signed { bytes.last().copied().unwrap_or(EMPTY) } else { EMPTY };
                let value: Dword = std::array::from_fn(|i| if i < bytes.len() { at(i) } else { top });
                let old = self.active.1.vector(first, lane);
                let dword = match lesser.half {
                    None => value,
                    Some(false) => [value[0], value[1], old[2], old[3]],
                    Some(true) => [old[0], old[1], value[0], value[1]],
                };
                self.active.1.set_vector(first, lane, dword);
                continue;
            }
            for word in 0..words {
                let dword = std::array::from_fn(|i| bytes.get(4 * word + i).copied().unwrap_or(EMPTY));
                self.active.1.set_vector(first + word, lane, dword);
            }
        }
    }

    /// The bytes that a lane has to store, behind the first `skip`: of its first or second data operand.
    fn data(&mut self, inst: &Inst, source: usize, skip: usize, bytes: u32, lane: usize) -> Vec<Id> {
        let Operand::Vector(first) = inst.src[source] else { return vec![EMPTY; bytes as usize] };
        let skip = skip + if inst.row.mnemonic.ends_with("_d16_hi") { 2 } else { 0 };
        let byte = |i: usize| self.active.1.vector(usize::from(first) + i / 4, lane)[i % 4];
        (skip..skip + bytes as usize).map(byte).collect()
    }

    fn stores(&mut self, inst: &Inst, current: &Current, accesses: &[Access]) {
        let converts = inst.row.mnemonic.contains("format");
        let words = inst.row.operands.iter().find(|slot| slot.role == Role::Src);
        let words = words.map_or(1, |slot| slot.kind.registers());
        let mut seen = [0_usize; LANES];
        for access in accesses {
            let lane = usize::from(access.lane) % LANES;
            // The second of two addresses has the second data operand. Other accesses follow each other.
            let before = seen[lane];
            seen[lane] += access.bytes as usize;
            let second = before > 0 && inst.row.is(Mark::TwoOffsets);
            let (source, skip) = if second { (2, 0) } else { (1, before) };
            let mut data = self.data(inst, source, skip, access.bytes, lane);
            if converts {
                let whole = self.data(inst, 1, 0, 4 * u32::from(words), lane);
                let all = self.sets.union_of(whole);
                data.fill(all);
            }
            let by = self.address(inst, lane);
            if let Place::Global(address) = access.place {
                self.note(current, address, access);
            }
            for (byte, set) in (0..).zip(data) {
                let set = self.sets.union(set, by);
                self.write(current, access, byte, set);
            }
        }
    }

    fn changes(&mut self, wave: &Wave, inst: &Inst, current: &Current, accesses: &[Access]) {
        let returns =
            inst.encoding == Encoding::Ds && matches!(inst.dst, Operand::Vector(_)) || inst.memory.sc0;
        let swaps = ["swap", "wrxchg"].iter().any(|name| inst.row.mnemonic.contains(name))
            && !inst.row.mnemonic.contains("cmp");
        let two = ["cmp", "mskor", "wrap"].iter().any(|name| inst.row.mnemonic.contains(name));
        let exec = wave.exec();
        let mut seen = [0_usize; LANES];
        for access in accesses {
            let lane = usize::from(access.lane) % LANES;
            let part = seen[lane];
            seen[lane] += 1;
            if let Place::Global(address) = access.place {
                self.note(current, address, access);
            }
            let source = if part > 0 && inst.row.is(Mark::TwoOffsets) { 2 } else { 1 };
            // A comparison has its second value behind the first, or in another operand.
            let count = if two { 2 * access.bytes } else { access.bytes };
            let mut data = self.data(inst, source, 0, count, lane);
            if two {
                data.extend(self.data(inst, 2, 0, access.bytes, lane));
            }
            let data = self.sets.union_of(data);
            let by = self.address(inst, lane);
            let old: Vec<Id> = (0..access.bytes).map(|byte| self.read(current, access.place, byte)).collect();
            let before = self.sets.union_of(old.iter().copied());
            let new = if swaps { data } else { self.sets.union(before, data) };
            let new = self.sets.union(new, by);
            for byte in 0..access.bytes {
                self.write(current, access, byte, new);
            }
            let Operand::Vector(to) = inst.dst else { continue };
            if returns && exec >> lane & 1 != 0 {
                let words = access.bytes as usize / 4;
                for word in 0..words {
                    let dword: Dword = std::array::from_fn(|i| old[4 * word + i]);
                    self.active.1.set_vector(usize::from(to) + part * words + word, lane, dword);
                }
            }
        }
    }

    /// Loads that go straight into LDS.
    fn load_into_lds(&mut self, inst: &Inst, current: &Current, accesses: &[Access]) {
        let signed = inst.row.mnemonic.contains("_sbyte") || inst.row.mnemonic.contains("_sshort");
        let mut read: [Vec<Id>; LANES] = std::array::from_fn(|_| Vec::new());
        let mut done = [0_usize; LANES];
        for access in accesses {
            let lane = usize::from(access.lane) % LANES;
            if access.does == Does::Reads {
                let by = self.address(inst, lane);
                for byte in 0..access.bytes {
                    let set = self.read(current, access.place, byte);
                    let set = self.sets.union(set, by);
                    read[lane].push(set);
                }
                continue;
            }
            for byte in 0..access.bytes {
                let rest = if signed { read[lane].last().copied().unwrap_or(EMPTY) } else { EMPTY };
                let set = read[lane].get(done[lane]).copied().unwrap_or(rest);
                done[lane] += 1;
                self.write(current, access, byte, set);
            }
        }
    }

    /// Reads of LDS that transpose a tile among 16 lanes: see `exec::memory::ds::transposed`.
    fn transposed(&mut self, inst: &Inst, accesses: &[Access]) {
        let Operand::Vector(first) = inst.dst else { return };
        let Some(current) = self.current else { return };
        let bits =
            inst.row.mnemonic.rsplit("_b").next().and_then(|bits| bits.parse::<usize>().ok()).unwrap_or(8);
        let words = inst.row.operands.first().map_or(2, |slot| usize::from(slot.kind.registers()));
        let mut read: [Vec<Id>; LANES] = std::array::from_fn(|_| Vec::new());
        for access in accesses {
            for byte in 0..access.bytes {
                let set = self.read(&current, access.place, byte);
                read[usize::from(access.lane) % LANES].push(set);
            }
        }
        let elements = 32 * words / bits;
        let lanes_of_row = 16 / elements;
        for lane in 0..LANES {
            let by = self.address(inst, lane);
            let (group, column) = (lane & !15, lane & 15);
            let start = bits * (column % elements);
            let mut value = vec![by; 4 * words];
            for row in 0..elements {
                let data = &read[group + row * lanes_of_row + column / elements];
                for bit in 0..bits {
                    let (from, to) = ((start + bit) / 8, (bits * row + bit) / 8);
                    let set = data.get(from).copied().unwrap_or(EMPTY);
                    value[to] = self.sets.union(value[to], set);
                }
            }
            for word in 0..words {
                let dword = std::array::from_fn(|i| value[4 * word + i]);
                self.active.1.set_vector(usize::from(first) + word, lane, dword);
            }
        }
    }
}
