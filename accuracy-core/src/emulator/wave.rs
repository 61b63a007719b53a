//! The state of one wave of 64 lanes.

use super::global_sync::Ticket;
use super::isa::{DecodeError, Processor};
use super::memory::{Group, Region, Watch};
use super::scrutiny::Who;
use super::waits::Waits;
use crate::simd::{Isa, multiversion};

/// Lanes of a wave.
pub const LANES: usize = 64;

/// One vector register: 32 bits for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Lanes(pub [u32; LANES]);

impl Lanes {
    pub const ZERO: Lanes = Lanes([0; LANES]);

    /// The same value in every lane.
    pub const fn splat(value: u32) -> Lanes {
        Lanes([value; LANES])
    }
}

/// Registers by their number in machine code.
pub mod register {
    pub const FLAT_SCRATCH: u8 = 102;
    pub const XNACK_MASK: u8 = 104;
    pub const VCC: u8 = 106;
    pub const TTMP0: u8 = 108;
    pub const M0: u8 = 124;
    pub const EXEC: u8 = 126;
}

/// What follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The next instruction.
    Next,
    /// The instruction at [`Wave::pc`], which was set.
    Jump,
    /// The wave has ended.
    End,
    /// The wave waits until all waves of its workgroup have come here.
    Barrier,
    /// The wave waits for something (`s_sleep`): others may go first.
    Yield,
    /// The wave cannot go on; [`Wave::fault`] says why.
    Fault,
}

/// Why a wave cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("the emulator has no {mnemonic} ({detail})")]
    Uncovered { mnemonic: &'static str, detail: String },
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    #[error("lane {lane} {does} {bytes} bytes at {address:#x}, {place}")]
    Memory { lane: u8, does: Access, bytes: u32, address: u64, place: String },
    #[error("an address in lane {lane} is not a multiple of {needed}: {address:#x}")]
    Misaligned { lane: u8, address: u64, needed: u32 },
    #[error("the program counter left the code: {pc:#x}")]
    LeftTheCode { pc: u64 },
    #[error("the kernel trapped (s_trap {code})")]
    Trap { code: u8 },
    #[error("all workgroups that the device has room for wait for something that none of them writes")]
    Deadlock,
    #[error("{0}")]
    Illegal(String),
}

/// What a memory instruction does with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Atomic,
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::Read => "reads",
            Access::Write => "writes",
            Access::Atomic => "changes",
        })
    }
}

/// The MODE register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// Rounding of floats, as MODE encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    NearestEven,
    Up,
    Down,
    TowardZero,
}

/// What becomes of denormals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denormals {
    /// Denormal sources count as zero of their sign.
    pub flush_in: bool,
    /// Denormal results become zero of their sign.
    pub flush_out: bool,
}

impl Mode {
    fn round_at(self, shift: u32) -> Round {
        match self.0 >> shift & 3 {
            0 => Round::NearestEven,
            1 => Round::Up,
            2 => Round::Down,
            _ => Round::TowardZero,
        }
    }

    fn denormals_at(self, shift: u32) -> Denormals {
        let bits = self.0 >> shift & 3;
        Denormals { flush_in: bits & 1 == 0, flush_out: bits & 2 == 0 }
    }

    /// Rounding of float32 results.
    pub fn round32(self) -> Round {
        self.round_at(0)
    }

    /// Rounding of float64 and float16 results.
    pub fn round64_16(self) -> Round {
        self.round_at(2)
    }

    pub fn denormals32(self) -> Denormals {
        self.denormals_at(4)
    }

    pub fn denormals64_16(self) -> Denormals {
        self.denormals_at(6)
    }

    /// Clamping turns NaN into zero.
    pub fn dx10_clamp(self) -> bool {
        self.0 & 1 << 8 != 0
    }

    /// Signalling NaNs are quieted as IEEE 754 says.
    pub fn ieee(self) -> bool {
        self.0 & 1 << 9 != 0
    }

    /// Whether floats of 32, 64 and 16 bits round to nearest even and keep denormals, as compiled code has it.
    pub fn is_plain(self) -> bool {
        self.0 & 0xff == 0xf0
    }
}

/// The registers of a wave, and what it shares with its workgroup.
pub struct Wave<'a> {
    /// Vector registers: 256 VGPRs, then 256 AGPRs.
    pub v: Box<[Lanes; 512]>,
    /// Scalar registers by their number in machine code, EXEC (126, 127), VCC and M0 among them.
    pub s: [u32; 128],
    pub scc: bool,
    pub mode: Mode,
    /// Address of the next instruction: during an instruction, of the one after it.
    pub pc: u64,
    /// The lanes' bits of EXEC as whole words, see [`Wave::mask`].
    mask: Lanes,
    /// EXEC as it was when `mask` was made.
    mask_of: u64,
    /// The vector skip and register indexing modes that `s_setvskip` and `s_set_gpr_idx_*` set.
    pub vskip: bool,
    pub gpr_index: Option<GprIndex>,
    pub fault: Option<Box<Fault>>,
    pub processor: Processor,
    /// What the waves of a workgroup share.
    pub group: &'a Group<'a>,
    /// How many VGPRs and AGPRs the kernel was given.
    pub vgprs: usize,
    pub agprs: usize,
    /// The number of this wave in its workgroup.
    pub index: u32,
    /// Private memory: `scratch_size` bytes for each lane, lane after lane.
    pub scratch: Vec<u8>,
    pub scratch_size: u32,
    /// Instructions executed so far: the wave's clock (`s_memtime`). Who runs the wave counts them.
    pub clock: u64,
    /// The region of global memory that was found last.
    pub region: Region,
    /// What the wave writes, while somebody watches whether it gets on.
    pub watch: Option<Box<Watch>>,
    /// Whether the launch is watched for more than what it computes.
    pub scrutinised: bool,
    /// The loads that it has not waited for.
    pub waits: Waits,
    /// Stands for this wave at the barrier or semaphore of the grid at which it waits.
    pub ticket: Option<Ticket>,
}

/// Relative addressing of vector registers, set by `s_set_gpr_idx_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GprIndex {
    /// Bits 0 to 2: sources 0 to 2 are indexed; bit 3: the destination is.
    pub enable: u8,
}

impl Wave<'_> {
    /// Which wave of the launch this is.
    pub fn who(&self) -> Who {
        Who { group: self.group.number, workgroup: self.group.id, wave: self.index }
    }

    /// A pair of scalar registers as one number.
    pub fn s64(&self, register: u8) -> u64 {
        let low = self.s[usize::from(register & 127)];
        let high = self.s[usize::from(register.wrapping_add(1) & 127)];
        u64::from(high) << 32 | u64::from(low)
    }

    pub fn set_s64(&mut self, register: u8, value: u64) {
        self.s[usize::from(register & 127)] = value as u32;
        self.s[usize::from(register.wrapping_add(1) & 127)] = (value >> 32) as u32;
    }

    /// The lanes that execute, one bit each.
    pub fn exec(&self) -> u64 {
        self.s64(register::EXEC)
    }

    pub fn set_exec(&mut self, lanes: u64) {
        self.set_s64(register::EXEC, lanes);
    }

    pub fn vcc(&self) -> u64 {
        self.s64(register::VCC)
    }

    pub fn set_vcc(&mut self, lanes: u64) {
        self.set_s64(register::VCC, lanes);
    }

    pub fn m0(&self) -> u32 {
        self.s[usize::from(register::M0)]
    }

    /// All ones for the lanes that execute, zero for the others.
    #[inline]
    pub fn mask(&mut self) -> &Lanes {
        let exec = self.exec();
        if exec != self.mask_of {
            self.mask = expand(exec);
            self.mask_of = exec;
        }
        &self.mask
    }

    /// [`Wave::mask`] and one vector register.
    #[inline]
    pub fn masked(&mut self, register: usize) -> (&Lanes, &Lanes) {
        self.mask();
        (&self.mask, &self.v[register])
    }

    /// As [`Wave::masked`], with a register that is written.
    #[inline]
    pub fn masked_mut(&mut self, register: usize) -> (&Lanes, &mut Lanes) {
        self.mask();
        (&self.mask, &mut self.v[register])
    }

    /// Ends the wave with a fault.
    pub fn fail(&mut self, fault: Fault) -> Flow {
        self.fault = Some(Box::new(fault));
        Flow::Fault
    }

    /// A wave with every lane on, whose registers all hold `poison`.
    pub fn new<'a>(processor: Processor, group: &'a Group<'a>, index: u32, poison: u32) -> Wave<'a> {
        let mut registers = registers();
        registers.fill(Lanes::splat(poison));
        Wave::with_registers(processor, group, index, registers, poison)
    }

    /// A wave with every lane on, in a register file that holds anything.
    pub fn with_registers<'a>(
        processor: Processor,
        group: &'a Group<'a>,
        index: u32,
        registers: Box<[Lanes; 512]>,
        poison: u32,
    ) -> Wave<'a> {
        let mut wave = Wave {
            v: registers,
            s: [poison; 128],
            scc: false,
            mode: Mode(0x3f0),
            pc: 0,
            mask: Lanes::splat(u32::MAX),
            mask_of: u64::MAX,
            vskip: false,
            gpr_index: None,
            fault: None,
            processor,
            group,
            vgprs: 256,
            agprs: 256,
            index,
            scratch: Vec::new(),
            scratch_size: 0,
            clock: 0,
            region: Region::EMPTY,
            watch: None,
            scrutinised: group.space.scrutiny.is_some(),
            waits: Waits::default(),
            ticket: None,
        };
        wave.set_exec(u64::MAX);
        wave
    }
}

/// A register file. What it holds is for a launch to say.
pub fn registers() -> Box<[Lanes; 512]> {
    // SAFETY: zero bytes are a valid register file. Pages of registers that a kernel does not have are never touched.
    unsafe { Box::<[Lanes; 512]>::new_zeroed().assume_init() }
}

/// One bit for each lane as one word for each lane, all ones or zero.
pub fn expand(bits: u64) -> Lanes {
    multiversion!(Isa::best(), expand_loop, [], (bits: u64) -> Lanes)
}

#[inline(always)]
fn expand_loop(bits: u64) -> Lanes {
    let [low, high] = [bits as u32, (bits >> 32) as u32];
    let mut lanes = Lanes::ZERO;
    for lane in 0..LANES / 2 {
        lanes.0[lane] = (low >> lane & 1).wrapping_neg();
        lanes.0[lane + LANES / 2] = (high >> lane & 1).wrapping_neg();
    }
    lanes
}
