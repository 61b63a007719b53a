//! What a wave has asked memory for and does not have yet: loads whose `s_waitcnt` is still to come.
//!
//! The emulator executes a load at once. On the device its destination holds the old value until the load completes, and
//! nothing but `s_waitcnt` makes the wave wait for that. So code that leaves it out computes right here and, now and then,
//! wrong on the device; it is found by what registers are waited for.
//!
//! Source: AMD's "Instinct MI300 ISA", "Data Dependency Resolution". Vector memory returns in the order in which it was asked
//! (VM_CNT); so does LDS (LGKM_CNT), but scalar memory, which shares that counter, returns in any order, so that only a
//! count of zero says that it is there.

use super::isa::uses::{COUNT, Span, name};
use super::isa::{Encoding, Inst};
use std::collections::VecDeque;

/// The order in which loads complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Vector,
    Local,
    Scalar,
}

impl Queue {
    fn of(encoding: Encoding) -> Option<Queue> {
        match encoding {
            Encoding::Smem => Some(Queue::Scalar),
            Encoding::Ds => Some(Queue::Local),
            // One that reads LDS counts as both; compiled code then waits for both.
            Encoding::Flat | Encoding::Global | Encoding::Scratch | Encoding::Mubuf | Encoding::Mtbuf => {
                Some(Queue::Vector)
            }
            _ => None,
        }
    }

    /// The most that the counter counts: a wave that asks for more stands still until one is complete.
    fn room(self) -> usize {
        match self {
            Queue::Vector => 63,
            Queue::Local | Queue::Scalar => 15,
        }
    }
}

/// An access that has been asked for. Stores are among them, for they are counted.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Where the instruction is.
    at: u64,
    /// The registers that it will write; none where it writes none.
    registers: Span,
}

/// A register that was used before the load which writes it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingWait {
    pub register: usize,
    /// Where the load is.
    pub load: u64,
    /// Whether the register is overwritten, and not read.
    pub overwrites: bool,
}

impl std::fmt::Display for MissingWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let does = if self.overwrites { "overwrites" } else { "reads" };
        write!(f, "{does} {}", name(self.register))
    }
}

/// The registers that accesses will write.
#[derive(Debug)]
struct Pending {
    /// One bit for each register.
    bits: [u64; COUNT / 64],
    /// How many accesses will write each: at most as many as the counters let be under way.
    accesses: [u8; COUNT],
}

impl Default for Pending {
    fn default() -> Pending {
        Pending { bits: [0; COUNT / 64], accesses: [0; COUNT] }
    }
}

impl Pending {
    /// One bit for each number of a register, modulo 64, as [`uses::Uses::folded`](super::isa::uses::Uses::folded).
    fn folded(&self) -> u64 {
        self.bits.iter().fold(0, |folded, bits| folded | bits)
    }

    fn has(&self, register: usize) -> bool {
        self.bits[register / 64] >> (register % 64) & 1 != 0
    }

    fn add(&mut self, span: Span) {
        for register in span.registers() {
            self.bits[register / 64] |= 1 << (register % 64);
            self.accesses[register] += 1;
        }
    }

    fn remove(&mut self, span: Span) {
        for register in span.registers() {
            self.accesses[register] -= 1;
            if self.accesses[register] == 0 {
                self.bits[register / 64] &= !(1 << (register % 64));
            }
        }
    }
}

/// The accesses that a wave has not waited for.
#[derive(Debug, Default)]
pub struct Waits {
    vector: VecDeque<Asked>,
    local: VecDeque<Asked>,
    scalar: VecDeque<Asked>,
    pending: Pending,
    /// [`Pending::folded`] as it is now.
    folded: u64,
    /// Whether there are any.
    any: bool,
}

/// The opcode of `s_waitcnt`.
pub const WAITCNT: u16 = 12;

/// How many accesses the operand of `s_waitcnt` lets be under way: of vector memory; of LDS and scalar memory.
pub fn counts(operand: u16) -> (usize, usize) {
    (usize::from(operand & 0xf | operand >> 10 & 0x30), usize::from(operand >> 8 & 0xf))
}

impl Waits {
    /// Whether [`Waits::before`] has to be asked about an instruction.
    #[inline(always)]
    pub fn concern(&self, inst: &Inst) -> bool {
        self.any || inst.encoding.is_memory()
    }

    /// Takes notice of an instruction that is about to be executed, and says which register it uses too early. `active` says
    /// whether a lane is on: where none is, vector memory is asked for nothing.
    pub fn before(&mut self, inst: &Inst, at: u64, active: bool) -> Option<MissingWait> {
        if inst.encoding == Encoding::Sopp {
            if inst.row.opcode == WAITCNT {
                self.wait(inst.imm as u16);
            }
            return None;
        }
        let queue = Queue::of(inst.encoding);
        // Of most instructions one look tells that they use none of the registers that are waited for.
        let found = if self.folded & inst.uses.folded() != 0 { self.find(inst, queue) } else { None };
        if let Some(queue) = queue {
            let on = active || queue == Queue::Scalar;
            let written = inst.uses.spans().iter().find(|span| span.written);
            self.ask(queue, Asked { at, registers: written.copied().filter(|_| on).unwrap_or_default() });
        }
        found
    }

    /// The first register of an instruction that a load has yet to write.
    fn find(&self, inst: &Inst, queue: Option<Queue>) -> Option<MissingWait> {
        for span in inst.uses.spans() {
            for register in span.registers() {
                if !self.pending.has(register) {
                    continue;
                }
                let Some((of, asked)) = self.last(register) else { continue };
                // What returns in order may be asked for one behind the other.
                let in_order = span.written && queue == Some(of) && of != Queue::Scalar;
                if !in_order {
                    return Some(MissingWait { register, load: asked.at, overwrites: span.written });
                }
            }
        }
        None
    }

    /// The last access that writes a register.
    fn last(&self, register: usize) -> Option<(Queue, Asked)> {
        [Queue::Vector, Queue::Local, Queue::Scalar].into_iter().find_map(|queue| {
            let asked =
                self.queue(queue).iter().rev().find(|a| a.registers.registers().contains(&register))?;
            Some((queue, *asked))
        })
    }

    fn queue(&self, queue: Queue) -> &VecDeque<Asked> {
        match queue {
            Queue::Vector => &self.vector,
            Queue::Local => &self.local,
            Queue::Scalar => &self.scalar,
        }
    }

    fn ask(&mut self, queue: Queue, asked: Asked) {
        let of = match queue {
            Queue::Vector => &mut self.vector,
            Queue::Local => &mut self.local,
            Queue::Scalar => &mut self.scalar,
        };
        // What has no register is of use only as one that later ones are counted by.
        of.push_back(asked);
        if of.len() > queue.room() {
            self.complete(queue, 1);
        }
        self.pending.add(asked.registers);
        self.folded = self.pending.folded();
        self.any = true;
    }

    /// `s_waitcnt`: what remains is at most as much as it says.
    fn wait(&mut self, operand: u16) {
        let (vector, shared) = counts(operand);
        self.complete(Queue::Vector, self.vector.len().saturating_sub(vector));
        self.complete(Queue::Local, self.local.len().saturating_sub(shared));
        if shared == 0 {
            self.complete(Queue::Scalar, self.scalar.len());
        }
        self.folded = self.pending.folded();
        self.any = !(self.vector.is_empty() && self.local.is_empty() && self.scalar.is_empty());
    }

    /// The first `count` accesses of a queue are complete.
    fn complete(&mut self, queue: Queue, count: usize) {
        let of = match queue {
            Queue::Vector => &mut self.vector,
            Queue::Local => &mut self.local,
            Queue::Scalar => &mut self.scalar,
        };
        of.drain(..count).for_each(|asked| self.pending.remove(asked.registers));
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Processor, decode};
    use super::*;

    const LOAD_V4: [u32; 2] = [0xdc50_8000, 0x0406_0002]; // global_load_dword v4, v2, s[6:7]
    const LOAD_V5: [u32; 2] = [0xdc50_8000, 0x0506_0002]; // global_load_dword v5, v2, s[6:7]
    const LOAD_S4: [u32; 2] = [0xc006_0100, 0x10]; // s_load_dwordx2 s[4:5], s[0:1], 0x10
    const READ_V2: [u32; 2] = [0xd8ec_0000, 0x0200_0001]; // ds_read_b64 v[2:3], v1
    const ADD_V4: [u32; 1] = [0x0200_0504]; // v_add_f32_e32 v0, v4, v2
    const MOV_S0_S5: [u32; 1] = [0xbe80_0005]; // s_mov_b32 s0, s5
    const MOV_V5: [u32; 1] = [0x7e0a_0280]; // v_mov_b32_e32 v5, 0

    /// The vector count 0 to 15 and the other one, as `s_waitcnt` has them.
    fn wait(vector: u32, shared: u32) -> [u32; 1] {
        [0xbf8c_0070 | vector & 0xf | vector >> 4 << 14 | shared << 8]
    }

    /// The registers that a piece of code uses too early.
    fn missing(code: &[&[u32]]) -> Vec<String> {
        let mut waits = Waits::default();
        let looked = code.iter().enumerate().filter_map(|(at, words)| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(16, 0);
            let inst = decode(Processor::Gfx950, &bytes).unwrap();
            waits.before(&inst, at as u64, true).map(|missing| missing.to_string())
        });
        looked.collect()
    }

    #[test]
    fn a_load_has_to_be_waited_for() {
        assert_eq!(missing(&[&LOAD_V4, &ADD_V4]), ["reads v4"]);
        assert_eq!(missing(&[&LOAD_V4, &wait(0, 15), &ADD_V4]), [""; 0]);
        // The counter of LDS and scalar memory is another one.
        assert_eq!(missing(&[&LOAD_V4, &wait(63, 0), &ADD_V4]), ["reads v4"]);
        assert_eq!(missing(&[&LOAD_V5, &MOV_V5]), ["overwrites v5"]);
    }

    #[test]
    fn vector_memory_returns_in_order() {
        assert_eq!(missing(&[&LOAD_V4, &LOAD_V5, &wait(1, 15), &ADD_V4]), [""; 0]);
        assert_eq!(missing(&[&LOAD_V5, &LOAD_V4, &wait(1, 15), &ADD_V4]), ["reads v4"]);
        assert_eq!(missing(&[&LOAD_V4, &LOAD_V4, &wait(0, 15), &ADD_V4]), [""; 0]);
        // The address comes out of LDS, and into it.
        assert_eq!(missing(&[&READ_V2, &LOAD_V4]), ["reads v2"]);
    }

    #[test]
    fn scalar_memory_returns_in_any_order() {
        assert_eq!(missing(&[&LOAD_S4, &READ_V2, &wait(63, 1), &MOV_S0_S5]), ["reads s5"]);
        assert_eq!(missing(&[&LOAD_S4, &READ_V2, &wait(63, 0), &MOV_S0_S5, &ADD_V4]), [""; 0]);
    }

    #[test]
    fn no_more_is_under_way_than_the_counter_counts() {
        let mut code: Vec<&[u32]> = vec![&LOAD_V4];
        code.resize(64, &LOAD_V5);
        code.push(&ADD_V4);
        assert_eq!(missing(&code), [""; 0]);
    }
}
