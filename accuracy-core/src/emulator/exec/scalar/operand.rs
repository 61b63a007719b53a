//! The operands of scalar instructions.

use crate::emulator::isa::{Inst, Operand, Special};
use crate::emulator::memory::{PRIVATE_APERTURE, SHARED_APERTURE};
use crate::emulator::wave::{Fault, Flow, Wave};

/// Number of scalar registers that an operand can name.
const REGISTERS: usize = 128;

/// A source of 64 bits; `None` if a scalar instruction cannot have it.
pub fn read64(wave: &Wave, operand: Operand) -> Option<u64> {
    match operand {
        Operand::Scalar(register) => Some(wave.s64(register)),
        Operand::Constant(bits) => Some(bits),
        Operand::Special(special) => special64(wave, special),
        Operand::Vector(_) | Operand::None => None,
    }
}

/// A source of 32 bits; `None` if a scalar instruction cannot have it.
///
/// The apertures are 64 bits wide and a 32-bit instruction reads their lower half, as the hardware does.
pub fn read32(wave: &Wave, operand: Operand) -> Option<u32> {
    match operand {
        Operand::Scalar(register) => Some(wave.s[usize::from(register & 127)]),
        Operand::Constant(bits) => Some(bits as u32),
        Operand::Special(special) => special64(wave, special).map(|bits| bits as u32),
        Operand::Vector(_) | Operand::None => None,
    }
}

fn special64(wave: &Wave, special: Special) -> Option<u64> {
    let base = |aperture: u32| u64::from(aperture) << 32;
    match special {
        Special::SharedBase => Some(base(SHARED_APERTURE)),
        Special::SharedLimit => Some(base(SHARED_APERTURE) | u64::from(u32::MAX)),
        Special::PrivateBase => Some(base(PRIVATE_APERTURE)),
        Special::PrivateLimit => Some(base(PRIVATE_APERTURE) | u64::from(u32::MAX)),
        Special::Vccz => Some(u64::from(wave.vcc() == 0)),
        Special::Execz => Some(u64::from(wave.exec() == 0)),
        Special::Scc => Some(u64::from(wave.scc)),
        Special::PopsExitingWaveId | Special::LdsDirect => None,
    }
}

/// Ends the wave because an operand is of a kind that this instruction cannot have.
#[cold]
pub fn unexpected(wave: &mut Wave, inst: &Inst, what: &str) -> Flow {
    let mnemonic = inst.row.mnemonic;
    wave.fail(Fault::Illegal(format!(
        "{mnemonic} cannot have the {what} that its code names (destination {:?}, sources {:?})",
        inst.dst, inst.src
    )))
}

pub fn write32(wave: &mut Wave, inst: &Inst, value: u32) -> Flow {
    match inst.dst {
        Operand::Scalar(register) if usize::from(register) < REGISTERS => {
            wave.s[usize::from(register)] = value;
            Flow::Next
        }
        _ => unexpected(wave, inst, "destination"),
    }
}

pub fn write64(wave: &mut Wave, inst: &Inst, value: u64) -> Flow {
    match inst.dst {
        Operand::Scalar(register) if usize::from(register) + 1 < REGISTERS => {
            wave.set_s64(register, value);
            Flow::Next
        }
        _ => unexpected(wave, inst, "destination"),
    }
}

/// Binds sources to names, or ends the wave if an instruction cannot have one of them.
macro_rules! sources {
    ($wave:ident, $inst:ident; $($name:ident = $read:ident($operand:expr)),+) => {
        $(let Some($name) = $read($wave, $operand) else {
            return $crate::emulator::exec::scalar::operand::unexpected($wave, $inst, "source");
        };)+
    };
}
pub(super) use sources;
