//! SMEM: scalar loads, stores and atomics.
//!
//! gfx942 and gfx950 have the scalar stores and atomics of gfx9: no compiler emits them, hand-written kernels (AITER's) use
//! them. The lowest two bits of each part of an address do not count. `s_scratch_*` reach memory at a base like the
//! others; AMD's ISA documents set them apart by the register offset, which counts 64 bytes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::atomic::{int32, int64};
use super::buffer::Resource;
use super::flat::finish;
use super::places::before_at;
use super::transfer::{get, put};
use crate::emulator::exec::scalar::read32;
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::scrutiny::Does;
use crate::emulator::wave::{Access, Fault, Flow, Wave};

/// Whole dwords: the lowest two bits do not count.
const DWORDS: u64 = !3;

/// The sum of an instruction's register offset and its constant, in bytes.
fn offset(wave: &Wave, inst: &Inst) -> Result<i64, Fault> {
    offset_in(wave, inst, 1)
}

/// The same where the register counts `unit` bytes.
fn offset_in(wave: &Wave, inst: &Inst, unit: i64) -> Result<i64, Fault> {
    let register = match inst.src[2] {
        Operand::None => 0,
        operand => read32(wave, operand).ok_or_else(|| {
            Fault::Illegal(format!("{} cannot have {operand:?} as its offset", inst.row.mnemonic))
        })?,
    };
    Ok(((i64::from(register) * unit) & !3) + i64::from(inst.imm & !3))
}

/// Checks `bytes` bytes at an address, and gives it back.
fn check(wave: &mut Wave, address: u64, bytes: u32, does: Access) -> Result<u64, Fault> {
    let write = does != Access::Read;
    let (cached, all) = (wave.region, u64::from(bytes));
    if cached.holds(address, all) && (cached.writable || !write) {
        return Ok(address);
    }
    match wave.group.space.find_all(address, all, write) {
        Some(region) => {
            wave.region = region;
            Ok(address)
        }
        None => {
            let place = wave.group.space.place(address, all);
            Err(Fault::Memory { lane: 0, does, bytes, address, place })
        }
    }
}

/// The address of an instruction with a 64-bit base.
fn global(wave: &mut Wave, inst: &Inst, bytes: u32, does: Access) -> Result<Option<u64>, Fault> {
    based(wave, inst, BYTES, bytes, does).map(Some)
}

/// Bytes that a register offset counts: of ordinary instructions, and of those for scratch.
const BYTES: i64 = 1;
const SCRATCH: i64 = 64;

/// An address from a 64-bit base and offsets, of which the register's counts `unit` bytes.
fn based(wave: &mut Wave, inst: &Inst, unit: i64, bytes: u32, does: Access) -> Result<u64, Fault> {
    let Operand::Scalar(base) = inst.src[3] else {
        let mnemonic = inst.row.mnemonic;
        return Err(Fault::Illegal(format!("{mnemonic} cannot have {:?} as its base", inst.src[3])));
    };
    let offset = offset_in(wave, inst, unit)?;
    let address = (wave.s64(base) & DWORDS).wrapping_add_signed(offset);
    check(wave, address, bytes, does)
}

/// A buffer resource's address for the dword `part` of an instruction; `None` if it is out of range.
fn buffer(wave: &mut Wave, inst: &Inst, bytes: u32, does: Access) -> Result<Option<u64>, Fault> {
    let resource = Resource::read(wave, inst)?;
    let offset = offset(wave, inst)?;
    buffer_at(wave, &resource, offset, bytes, does)
}

fn buffer_at(
    wave: &mut Wave,
    resource: &Resource,
    offset: i64,
    bytes: u32,
    does: Access,
) -> Result<Option<u64>, Fault> {
    let stride = u64::from(resource.stride.max(1));
    let size = stride * u64::from(resource.num_records);
    let start = u64::try_from(offset).ok().filter(|start| start + u64::from(bytes) <= size);
    match start {
        Some(start) => check(wave, (resource.base & DWORDS) + start, bytes, does).map(Some),
        None if does == Access::Read => {
            wave.group.count_clamped_loads(1);
            wave.group.space.scrutinise(|scrutiny| scrutiny.clamped(0));
            Ok(None)
        }
        None => {
            wave.group.count_clamped_stores(1);
            Ok(None)
        }
    }
}

/// The first of `count` scalar registers.
fn registers(inst: &Inst, operand: Operand, count: usize) -> Result<usize, Fault> {
    match operand {
        Operand::Scalar(first) if usize::from(first) + count <= 128 => Ok(usize::from(first)),
        other => {
            let mnemonic = inst.row.mnemonic;
            Err(Fault::Illegal(format!("{mnemonic} needs {count} scalar registers, not {other:?}")))
        }
    }
}

fn load<const N: usize, const UNIT: i64>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, N)?;
    let address = based(wave, inst, UNIT, 4 * N as u32, Access::Read)?;
    before_at(wave, address, 4 * N as u32, Does::Reads);
    for part in 0..N {
        // SAFETY: checked for a read of 4 * N bytes.
        wave.s[dst + part] = unsafe { get(address + 4 * part as u64) };
    }
    Ok(())
}

/// Each dword is checked by itself.
fn buffer_load<const N: usize>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, N)?;
    let resource = Resource::read(wave, inst)?;
    let offset = offset(wave, inst)?;
    for part in 0..N {
        let place = buffer_at(wave, &resource, offset + 4 * part as i64, 4, Access::Read)?;
        if let Some(address) = place {
            before_at(wave, address, 4, Does::Reads);
        }
        // SAFETY: checked for a read of 4 bytes.
        wave.s[dst + part] = place.map_or(0, |address| unsafe { get(address) });
    }
    Ok(())
}

fn store<const N: usize, const UNIT: i64>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], N)?;
    let address = based(wave, inst, UNIT, 4 * N as u32, Access::Write)?;
    before_at(wave, address, 4 * N as u32, Does::Writes);
    for part in 0..N {
        // SAFETY: checked for a write of 4 * N bytes.
        unsafe { put(address + 4 * part as u64, wave.s[src + part]) };
    }
    Ok(())
}

fn buffer_store<const N: usize>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], N)?;
    let resource = Resource::read(wave, inst)?;
    let offset = offset(wave, inst)?;
    for part in 0..N {
        if let Some(address) = buffer_at(wave, &resource, offset + 4 * part as i64, 4, Access::Write)? {
            before_at(wave, address, 4, Does::Writes);
            // SAFETY: checked for a write of 4 bytes.
            unsafe { put(address, wave.s[src + part]) };
        }
    }
    Ok(())
}

/// Defines loads and stores by the function that does them, by their dwords, and by what a register offset counts.
macro_rules! moves {
    ($($name:ident: $move:ident $count:literal $($unit:ident)?;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = $move::<$count $(, $unit)?>(wave, inst);
            finish(wave, result)
        })+
    };
}

moves! {
    s_load_dword: load 1 BYTES;
    s_load_dwordx2: load 2 BYTES;
    s_load_dwordx4: load 4 BYTES;
    s_load_dwordx8: load 8 BYTES;
    s_load_dwordx16: load 16 BYTES;
    s_scratch_load_dword: load 1 SCRATCH;
    s_scratch_load_dwordx2: load 2 SCRATCH;
    s_scratch_load_dwordx4: load 4 SCRATCH;
    s_scratch_store_dword: store 1 SCRATCH;
    s_scratch_store_dwordx2: store 2 SCRATCH;
    s_scratch_store_dwordx4: store 4 SCRATCH;
    s_buffer_load_dword: buffer_load 1;
    s_buffer_load_dwordx2: buffer_load 2;
    s_buffer_load_dwordx4: buffer_load 4;
    s_buffer_load_dwordx8: buffer_load 8;
    s_buffer_load_dwordx16: buffer_load 16;
    s_store_dword: store 1 BYTES;
    s_store_dwordx2: store 2 BYTES;
    s_store_dwordx4: store 4 BYTES;
    s_buffer_store_dword: buffer_store 1;
    s_buffer_store_dwordx2: buffer_store 2;
    s_buffer_store_dwordx4: buffer_store 4;
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
    /// Invalidates the scalar cache. Memory is the only copy here.
    s_dcache_inv;
    /// Writes the scalar cache back. Memory is the only copy here.
    s_dcache_wb;
    /// Invalidates volatile lines of the scalar cache. Memory is the only copy here.
    s_dcache_inv_vol;
    /// Writes volatile lines of the scalar cache back. Memory is the only copy here.
    s_dcache_wb_vol;
    /// Asks for an address's translation ahead of its use.
    s_atc_probe;
    /// As `s_atc_probe`, through a buffer resource.
    s_atc_probe_buffer;
    /// Lets the scalar cache drop a line that was written, where that is not yet in memory. Memory is the only copy here,
    /// as if the line had been written back before.
    s_dcache_discard;
    /// As `s_dcache_discard`, two lines.
    s_dcache_discard_x2;
}

/// A counter that never stands still and is the same in every run: instructions that the wave has executed.
fn time(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = registers(inst, inst.dst, 2).map(|dst| {
        wave.clock += 1;
        wave.set_s64(dst as u8, wave.clock);
    });
    finish(wave, result)
}

/// The wave's clock; see [`Wave::clock`].
pub fn s_memtime(wave: &mut Wave, inst: &Inst) -> Flow {
    time(wave, inst)
}

/// The same clock: no time passes here that a kernel could rely on.
pub fn s_memrealtime(wave: &mut Wave, inst: &Inst) -> Flow {
    time(wave, inst)
}

#[cold]
fn misaligned(address: u64, needed: u32) -> Fault {
    Fault::Misaligned { lane: 0, address, needed }
}

/// Executes an atomic on scalar registers: the data is in the first, and the old value goes there if it is asked for.
fn scalar32(
    wave: &mut Wave,
    inst: &Inst,
    address: u64,
    f: impl Fn(u32, u32, u32) -> u32,
    compares: bool,
) -> Result<(), Fault> {
    let data = registers(inst, inst.src[1], if compares { 2 } else { 1 })?;
    let (a, b) = (wave.s[data], if compares { wave.s[data + 1] } else { 0 });
    before_at(wave, address, 4, Does::Changes);
    let pointer = std::ptr::with_exposed_provenance_mut::<u32>(address as usize);
    // SAFETY: checked for an atomic of 4 bytes; scalar addresses are multiples of 4.
    let atomic = unsafe { AtomicU32::from_ptr(pointer) };
    let old = atomic.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(f(old, a, b)));
    if inst.dst != Operand::None {
        let dst = registers(inst, inst.dst, 1)?;
        wave.s[dst] = old.unwrap_or_else(|old| old);
    }
    Ok(())
}

fn scalar64(
    wave: &mut Wave,
    inst: &Inst,
    address: u64,
    f: impl Fn(u64, u64, u64) -> u64,
    compares: bool,
) -> Result<(), Fault> {
    if !address.is_multiple_of(8) {
        return Err(misaligned(address, 8));
    }
    let data = registers(inst, inst.src[1], if compares { 4 } else { 2 })? as u8;
    let (a, b) = (wave.s64(data), if compares { wave.s64(data + 2) } else { 0 });
    before_at(wave, address, 8, Does::Changes);
    let pointer = std::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: checked for an atomic of 8 bytes at a multiple of 8.
    let atomic = unsafe { AtomicU64::from_ptr(pointer) };
    let old = atomic.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(f(old, a, b)));
    if inst.dst != Operand::None {
        let dst = registers(inst, inst.dst, 2)? as u8;
        wave.set_s64(dst, old.unwrap_or_else(|old| old));
    }
    Ok(())
}

/// Defines atomics by where their address comes from, their width and their operation. `compare` ones have the new value
/// first and what it is compared with behind it.
macro_rules! atomics {
    ($($name:ident: $place:ident $kind:ident $bytes:literal $compares:literal,
        |$old:ident, $a:ident, $b:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = $place(wave, inst, $bytes, Access::Atomic).and_then(|address| match address {
                Some(address) => $kind(wave, inst, address, |$old, $a, $b| $value, $compares),
                None => nothing_done(wave, inst, $bytes / 4),
            });
            finish(wave, result)
        })+
    };
}

/// An atomic out of its resource's range gives zero.
fn nothing_done(wave: &mut Wave, inst: &Inst, count: usize) -> Result<(), Fault> {
    if inst.dst != Operand::None {
        let dst = registers(inst, inst.dst, count)?;
        wave.s[dst..dst + count].fill(0);
    }
    Ok(())
}

atomics! {
    s_atomic_swap: global scalar32 4 false, |old, a, _b| int32::swap(old, a);
    s_atomic_add: global scalar32 4 false, |old, a, _b| int32::add(old, a);
    s_atomic_sub: global scalar32 4 false, |old, a, _b| int32::sub(old, a);
    s_atomic_smin: global scalar32 4 false, |old, a, _b| int32::smin(old, a);
    s_atomic_umin: global scalar32 4 false, |old, a, _b| int32::umin(old, a);
    s_atomic_smax: global scalar32 4 false, |old, a, _b| int32::smax(old, a);
    s_atomic_umax: global scalar32 4 false, |old, a, _b| int32::umax(old, a);
    s_atomic_and: global scalar32 4 false, |old, a, _b| int32::and(old, a);
    s_atomic_or: global scalar32 4 false, |old, a, _b| int32::or(old, a);
    s_atomic_xor: global scalar32 4 false, |old, a, _b| int32::xor(old, a);
    s_atomic_inc: global scalar32 4 false, |old, a, _b| int32::inc(old, a);
    s_atomic_dec: global scalar32 4 false, |old, a, _b| int32::dec(old, a);
    s_atomic_cmpswap: global scalar32 4 true, |old, a, b| if old == b { a } else { old };
    s_atomic_swap_x2: global scalar64 8 false, |old, a, _b| int64::swap(old, a);
    s_atomic_add_x2: global scalar64 8 false, |old, a, _b| int64::add(old, a);
    s_atomic_sub_x2: global scalar64 8 false, |old, a, _b| int64::sub(old, a);
    s_atomic_smin_x2: global scalar64 8 false, |old, a, _b| int64::smin(old, a);
    s_atomic_umin_x2: global scalar64 8 false, |old, a, _b| int64::umin(old, a);
    s_atomic_smax_x2: global scalar64 8 false, |old, a, _b| int64::smax(old, a);
    s_atomic_umax_x2: global scalar64 8 false, |old, a, _b| int64::umax(old, a);
    s_atomic_and_x2: global scalar64 8 false, |old, a, _b| int64::and(old, a);
    s_atomic_or_x2: global scalar64 8 false, |old, a, _b| int64::or(old, a);
    s_atomic_xor_x2: global scalar64 8 false, |old, a, _b| int64::xor(old, a);
    s_atomic_inc_x2: global scalar64 8 false, |old, a, _b| int64::inc(old, a);
    s_atomic_dec_x2: global scalar64 8 false, |old, a, _b| int64::dec(old, a);
    s_atomic_cmpswap_x2: global scalar64 8 true, |old, a, b| if old == b { a } else { old };
    s_buffer_atomic_swap: buffer scalar32 4 false, |old, a, _b| int32::swap(old, a);
    s_buffer_atomic_add: buffer scalar32 4 false, |old, a, _b| int32::add(old, a);
    s_buffer_atomic_sub: buffer scalar32 4 false, |old, a, _b| int32::sub(old, a);
    s_buffer_atomic_smin: buffer scalar32 4 false, |old, a, _b| int32::smin(old, a);
    s_buffer_atomic_umin: buffer scalar32 4 false, |old, a, _b| int32::umin(old, a);
    s_buffer_atomic_smax: buffer scalar32 4 false, |old, a, _b| int32::smax(old, a);
    s_buffer_atomic_umax: buffer scalar32 4 false, |old, a, _b| int32::umax(old, a);
    s_buffer_atomic_and: buffer scalar32 4 false, |old, a, _b| int32::and(old, a);
    s_buffer_atomic_or: buffer scalar32 4 false, |old, a, _b| int32::or(old, a);
    s_buffer_atomic_xor: buffer scalar32 4 false, |old, a, _b| int32::xor(old, a);
    s_buffer_atomic_inc: buffer scalar32 4 false, |old, a, _b| int32::inc(old, a);
    s_buffer_atomic_dec: buffer scalar32 4 false, |old, a, _b| int32::dec(old, a);
    s_buffer_atomic_cmpswap: buffer scalar32 4 true, |old, a, b| if old == b { a } else { old };
    s_buffer_atomic_swap_x2: buffer scalar64 8 false, |old, a, _b| int64::swap(old, a);
    s_buffer_atomic_add_x2: buffer scalar64 8 false, |old, a, _b| int64::add(old, a);
    s_buffer_atomic_sub_x2: buffer scalar64 8 false, |old, a, _b| int64::sub(old, a);
    s_buffer_atomic_smin_x2: buffer scalar64 8 false, |old, a, _b| int64::smin(old, a);
    s_buffer_atomic_umin_x2: buffer scalar64 8 false, |old, a, _b| int64::umin(old, a);
    s_buffer_atomic_smax_x2: buffer scalar64 8 false, |old, a, _b| int64::smax(old, a);
    s_buffer_atomic_umax_x2: buffer scalar64 8 false, |old, a, _b| int64::umax(old, a);
    s_buffer_atomic_and_x2: buffer scalar64 8 false, |old, a, _b| int64::and(old, a);
    s_buffer_atomic_or_x2: buffer scalar64 8 false, |old, a, _b| int64::or(old, a);
    s_buffer_atomic_xor_x2: buffer scalar64 8 false, |old, a, _b| int64::xor(old, a);
    s_buffer_atomic_inc_x2: buffer scalar64 8 false, |old, a, _b| int64::inc(old, a);
    s_buffer_atomic_dec_x2: buffer scalar64 8 false, |old, a, _b| int64::dec(old, a);
    s_buffer_atomic_cmpswap_x2: buffer scalar64 8 true, |old, a, b| if old == b { a } else { old };
}
