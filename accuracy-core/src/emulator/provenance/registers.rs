//! What flowed into the registers of a wave: a set for each byte of a vector register, and for each bit of a scalar one, as
//! a bit of it may stand for a lane.

use super::sets::{EMPTY, Id, Sets};
use crate::emulator::wave::{LANES, register};

/// The sets of the four bytes of a dword.
pub type Dword = [Id; 4];
/// A dword that nothing flowed into.
pub const CLEAN: Dword = [EMPTY; 4];

/// Registers of a vector register file, VGPRs and AGPRs.
const VECTORS: usize = 512;
const SCALARS: usize = 128;
const EXEC: usize = register::EXEC as usize;

#[derive(Default)]
pub struct Registers {
    /// Only those into which something flowed.
    vectors: Vec<Option<Box<[Dword; LANES]>>>,
    scalars: Vec<Option<Box<[Id; 32]>>>,
    pub scc: Id,
    /// Conditions of the branches whose ways have not met yet, with the address at which they do.
    branches: Vec<(Option<u64>, Id)>,
}

impl Registers {
    /// Whether something flowed into a register, by its number in [`crate::emulator::isa::uses`].
    pub fn has(&self, register: usize) -> bool {
        match register.checked_sub(VECTORS) {
            None => self.vectors.get(register).is_some_and(Option::is_some),
            Some(scalar) => self.scalars.get(scalar).is_some_and(Option::is_some),
        }
    }

    pub fn vector(&self, register: usize, lane: usize) -> Dword {
        match self.vectors.get(register) {
            Some(Some(lanes)) => lanes[lane],
            _ => CLEAN,
        }
    }

    pub fn set_vector(&mut self, register: usize, lane: usize, dword: Dword) {
        if register >= VECTORS || dword == CLEAN && !self.has(register) {
            return;
        }
        if self.vectors.len() <= register {
            self.vectors.resize_with(register + 1, || None);
        }
        self.vectors[register].get_or_insert_with(|| Box::new([CLEAN; LANES]))[lane] = dword;
    }

    pub fn bit(&self, register: usize, bit: usize) -> Id {
        match self.scalars.get(register + bit / 32) {
            Some(Some(bits)) => bits[bit % 32],
            _ => EMPTY,
        }
    }

    pub fn set_bit(&mut self, register: usize, bit: usize, set: Id) {
        let (register, bit) = (register + bit / 32, bit % 32);
        if register >= SCALARS || set == EMPTY && !self.has(VECTORS + register) {
            return;
        }
        if self.scalars.len() <= register {
            self.scalars.resize_with(register + 1, || None);
        }
        self.scalars[register].get_or_insert_with(|| Box::new([EMPTY; 32]))[bit] = set;
    }

    /// The wave has come to an address, where the ways of branches may meet.
    pub fn come_to(&mut self, at: u64) {
        if !self.branches.is_empty() {
            self.branches.retain(|(join, _)| *join != Some(at));
        }
    }

    /// A branch was decided by `set`; its ways meet at an address.
    pub fn enter(&mut self, sets: &mut Sets, join: Option<u64>, set: Id) {
        match self.branches.iter_mut().find(|(other, _)| *other == join) {
            Some((_, before)) => *before = sets.union(*before, set),
            None => self.branches.push((join, set)),
        }
    }

    /// Everything that decided that the wave executes what it does.
    pub fn decided(&self, sets: &mut Sets) -> Id {
        sets.union_of(self.branches.iter().map(|(_, set)| *set))
    }

    /// Everything that decided that a lane executes what it does: branches, and whether it is on.
    pub fn on(&self, sets: &mut Sets, lane: usize) -> Id {
        let set = sets.through(self.bit(EXEC, lane));
        self.branches.iter().fold(set, |all, (_, set)| sets.union(all, *set))
    }

    /// Adds a set to each lane of a vector register.
    pub fn add_to_lanes(&mut self, sets: &mut Sets, register: usize, lanes: &[Id]) {
        for (lane, set) in lanes.iter().enumerate().filter(|(_, set)| **set != EMPTY) {
            let dword = self.vector(register, lane).map(|old| sets.union(old, *set));
            self.set_vector(register, lane, dword);
        }
    }

    /// Adds a set to each bit of a scalar register.
    pub fn add_to_scalar(&mut self, sets: &mut Sets, register: usize, set: Id) {
        for bit in (0..32).filter(|_| set != EMPTY) {
            let all = sets.union(self.bit(register, bit), set);
            self.set_bit(register, bit, all);
        }
    }

    /// A scalar register as a dword.
    pub fn scalar(&self, sets: &mut Sets, register: usize) -> Dword {
        match self.scalars.get(register) {
            Some(Some(bits)) => {
                std::array::from_fn(|byte| sets.union_of(bits[8 * byte..8 * byte + 8].iter().copied()))
            }
            _ => CLEAN,
        }
    }

    pub fn set_scalar(&mut self, register: usize, dword: Dword) {
        for bit in 0..32 {
            self.set_bit(register, bit, dword[bit / 8]);
        }
    }
}
