//! SOPP and `s_call_b64`: branches, barriers, messages, and what has no effect on values.

use super::operand::write64;
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, Wave};

/// Where a branch leads: SIMM16 counts dwords from the next instruction.
pub(super) fn target(wave: &Wave, inst: &Inst) -> u64 {
    wave.pc.wrapping_add_signed(i64::from(inst.imm as i16) * 4)
}

fn branch(wave: &mut Wave, inst: &Inst, taken: bool) -> Flow {
    if !taken {
        return Flow::Next;
    }
    wave.pc = target(wave, inst);
    Flow::Jump
}

/// Defines branches by their condition.
macro_rules! branches {
    ($($(#[$doc:meta])* $name:ident: |$wave:ident| $taken:expr;)+) => {
        $($(#[$doc])*
        pub fn $name($wave: &mut Wave, inst: &Inst) -> Flow {
            let taken = $taken;
            branch($wave, inst, taken)
        })+
    };
}

branches! {
    s_branch: |_wave| true;
    s_cbranch_scc0: |wave| !wave.scc;
    s_cbranch_scc1: |wave| wave.scc;
    s_cbranch_vccz: |wave| wave.vcc() == 0;
    s_cbranch_vccnz: |wave| wave.vcc() != 0;
    s_cbranch_execz: |wave| wave.exec() == 0;
    s_cbranch_execnz: |wave| wave.exec() != 0;
    /// No debugger is attached, so its condition never holds.
    s_cbranch_cdbgsys: |_wave| false;
    /// No debugger is attached, so its condition never holds.
    s_cbranch_cdbguser: |_wave| false;
    /// No debugger is attached, so its condition never holds.
    s_cbranch_cdbgsys_or_user: |_wave| false;
    /// No debugger is attached, so its condition never holds.
    s_cbranch_cdbgsys_and_user: |_wave| false;
}

pub fn s_call_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    let (back, target) = (wave.pc, target(wave, inst));
    let flow = write64(wave, inst, back);
    if flow == Flow::Fault {
        return flow;
    }
    wave.pc = target;
    Flow::Jump
}

/// Defines instructions that change no value here, with the reason.
macro_rules! nothing {
    ($($(#[$doc:meta])+ $name:ident;)+) => {
        $($(#[$doc])+
        pub fn $name(_wave: &mut Wave, _inst: &Inst) -> Flow {
            Flow::Next
        })+
    };
}

nothing! {
    /// Waits for hazards, which do not exist here: each instruction ends before the next begins.
    s_nop;
    /// Waits for memory operations, which are complete when their instruction ends.
    s_waitcnt;
    /// The priority of a wave changes the order of waves alone.
    s_setprio;
    /// Instructions are read from memory that kernels do not change.
    s_icache_inv;
    /// Counts for a profiler.
    s_incperflevel;
    /// Counts for a profiler.
    s_decperflevel;
    /// Writes to a thread trace, which is off.
    s_ttracedata;
    /// Wakes sleeping waves of the workgroup: `s_sleep` sleeps no longer than until the wave's next turn.
    s_wakeup;
}

pub fn s_endpgm(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::End
}

/// The end of a wave that saved its context.
pub fn s_endpgm_saved(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::End
}

/// Belongs to pixel shaders.
pub fn s_endpgm_ordered_ps_done(wave: &mut Wave, _inst: &Inst) -> Flow {
    wave.fail(Fault::Illegal("s_endpgm_ordered_ps_done is for pixel shaders alone".into()))
}

pub fn s_barrier(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Barrier
}

/// Ends the wave if bit 0 of the constant is set.
pub fn s_setkill(_wave: &mut Wave, inst: &Inst) -> Flow {
    if inst.imm & 1 != 0 { Flow::End } else { Flow::Next }
}

/// Lets other waves and the host go first.
pub fn s_sleep(wave: &mut Wave, _inst: &Inst) -> Flow {
    wave.group.serve_host();
    Flow::Yield
}

/// Halts the wave until a debugger lets it go on; there is none.
pub fn s_sethalt(wave: &mut Wave, inst: &Inst) -> Flow {
    if inst.imm & 1 == 0 {
        return Flow::Next;
    }
    wave.fail(Fault::Illegal("the kernel halts for a debugger (s_sethalt 1), and none is attached".into()))
}

/// The trap that a debugger handles (`__builtin_debugtrap`); without one the runtime's handler returns at once.
const DEBUG_TRAP: u8 = 3;

/// Trap 2 is what `abort`, a failed `assert` and `__builtin_trap` end in.
pub fn s_trap(wave: &mut Wave, inst: &Inst) -> Flow {
    match inst.imm as u8 {
        DEBUG_TRAP => Flow::Next,
        code => wave.fail(Fault::Trap { code }),
    }
}

/// Interrupts the host.
const MSG_INTERRUPT: i32 = 1;

fn message(wave: &mut Wave, inst: &Inst) -> Option<Flow> {
    let id = inst.imm & 15;
    if id == MSG_INTERRUPT {
        wave.group.serve_host();
        return None;
    }
    let detail = format!("message {id}; the emulator knows MSG_INTERRUPT alone, which is 1");
    Some(wave.fail(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail }))
}

/// Sends a message. A kernel that calls the host (`printf`, `assert`) interrupts it.
pub fn s_sendmsg(wave: &mut Wave, inst: &Inst) -> Flow {
    message(wave, inst).unwrap_or(Flow::Next)
}

/// Sends a message and halts.
pub fn s_sendmsghalt(wave: &mut Wave, inst: &Inst) -> Flow {
    match message(wave, inst) {
        Some(flow) => flow,
        None => {
            let text = "the kernel halts after a message (s_sendmsghalt), and nothing lets it go on";
            wave.fail(Fault::Illegal(text.into()))
        }
    }
}
