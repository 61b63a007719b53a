//! What flowed into the registers of a wave: a set for each byte of a vector register, and for each bit of a scalar one, as
//! a bit of it may stand for a lane.

use super::sets::{EMPTY, Id, Sets};
use crate::emulator::wave::LANES;

/// The sets of the four bytes of a dword.
pub type Dword = [Id; 4];
/// A dword that nothing flowed into.
pub const CLEAN: Dword = [EMPTY; 4];

/// Registers of a vector register file, VGPRs and AGPRs.
const VECTORS: usize = 512;
const SCALARS: usize = 128;

#[derive(Default)]
pub struct Registers {
    /// Only those into which something flowed.
    vectors: Vec<Option<Box<[Dword; LANES]>>>,
    scalars: Vec<Option<Box<[Id; 32]>>>,
    pub scc: Id,
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
