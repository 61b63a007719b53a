//! DS_GWS: barriers and semaphores between the waves of all workgroups. The instructions are executed once for a wave, also
//! where no lane is on.

use super::flat::finish;
use super::places::registers;
use crate::emulator::global_sync::Asked;
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, Wave};

/// The resource that an instruction names: M0 has the first one of the wave.
fn resource(wave: &Wave, inst: &Inst) -> usize {
    ((wave.m0() >> 16).wrapping_add(inst.imm as u32) & 63) as usize
}

/// The data of the first lane that is on.
fn data(wave: &Wave, inst: &Inst) -> Result<u32, Fault> {
    let register = registers(inst, inst.src[0], 1)?;
    let lane = wave.exec().trailing_zeros() % 64;
    Ok(wave.v[register].0[lane as usize])
}

fn uninitialised(inst: &Inst) -> Fault {
    Fault::Illegal(format!(
        "{} uses a resource that nothing has initialised: HIP's runtime does so for a cooperative launch alone \
         (hipLaunchCooperativeKernel)",
        inst.row.mnemonic
    ))
}

/// What the wave did before is known to those that it lets go on.
fn release(wave: &Wave, inst: &Inst) {
    wave.group.space.scrutinise(|scrutiny| scrutiny.releases(wave.who(), resource(wave, inst)));
}

/// Lets the wave go on, or come back to the instruction.
fn answer(wave: &mut Wave, inst: &Inst, asked: Result<Option<Asked>, Fault>) -> Flow {
    match asked.and_then(|asked| asked.ok_or_else(|| uninitialised(inst))) {
        Ok(Asked::Passes) => {
            wave.group.space.scrutinise(|scrutiny| scrutiny.acquires(wave.who(), resource(wave, inst)));
            wave.ticket = None;
            Flow::Next
        }
        Ok(Asked::Waits(ticket)) => {
            wave.ticket = Some(ticket);
            wave.pc = wave.pc.wrapping_sub(u64::from(inst.size));
            Flow::Yield
        }
        Err(fault) => wave.fail(fault),
    }
}

/// Sets the counter of a resource.
pub fn ds_gws_init(wave: &mut Wave, inst: &Inst) -> Flow {
    let result =
        data(wave, inst).map(|counter| wave.group.space.sync.initialise(resource(wave, inst), counter));
    finish(wave, result)
}

/// Waits until as many waves have come as the barrier is for.
pub fn ds_gws_barrier(wave: &mut Wave, inst: &Inst) -> Flow {
    if wave.ticket.is_none() {
        release(wave, inst);
    }
    let asked = data(wave, inst)
        .map(|others| wave.group.space.sync.barrier(resource(wave, inst), wave.ticket, others));
    answer(wave, inst, asked)
}

/// Takes one from a semaphore's counter, and waits for it where there is none.
pub fn ds_gws_sema_p(wave: &mut Wave, inst: &Inst) -> Flow {
    let asked = wave.group.space.sync.take(resource(wave, inst), wave.ticket);
    answer(wave, inst, Ok(asked))
}

fn released(wave: &mut Wave, inst: &Inst, done: Option<()>) -> Flow {
    finish(wave, done.ok_or_else(|| uninitialised(inst)))
}

/// Adds one to a semaphore's counter.
pub fn ds_gws_sema_v(wave: &mut Wave, inst: &Inst) -> Flow {
    release(wave, inst);
    let done = wave.group.space.sync.release(resource(wave, inst), 1);
    released(wave, inst, done)
}

/// Adds a number to a semaphore's counter.
pub fn ds_gws_sema_br(wave: &mut Wave, inst: &Inst) -> Flow {
    release(wave, inst);
    match data(wave, inst) {
        Ok(count) => {
            let done = wave.group.space.sync.release(resource(wave, inst), count);
            released(wave, inst, done)
        }
        Err(fault) => wave.fail(fault),
    }
}

/// Lets all waves go on that wait for a semaphore.
pub fn ds_gws_sema_release_all(wave: &mut Wave, inst: &Inst) -> Flow {
    release(wave, inst);
    let done = wave.group.space.sync.release_all(resource(wave, inst));
    released(wave, inst, done)
}
