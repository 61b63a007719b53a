//! FLAT, GLOBAL and SCRATCH: loads, stores and atomics at an address of each lane.

use super::atomic::{
    KEEP, add_f32, add_f64, atomic32, atomic64, int32, int64, max_f64, min_f64, pk_add_bf16, pk_add_f16,
};
use super::lds_transfer::{Piece, copy_whole};
use super::places::{Places, Request, flat, global, registers, scratch};
use super::transfer::{Part, load, load_part, store, store_part};
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Fault, Flow, Wave};

/// The next instruction, or the end of the wave.
pub(super) fn finish(wave: &mut Wave, result: Result<(), Fault>) -> Flow {
    match result {
        Ok(()) => Flow::Next,
        Err(fault) => wave.fail(fault),
    }
}

/// Finds the addresses of an instruction, as [`global`] does.
type Find = fn(&mut Wave, &Inst, &Request) -> Result<Option<Places>, Fault>;

#[inline(always)]
fn load_dwords<const N: usize>(wave: &mut Wave, inst: &Inst, find: Find) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, N)?;
    if let Some(places) = find(wave, inst, &Request::read(4 * N as u32))? {
        load::<N>(wave, dst, &places);
    }
    Ok(())
}

#[inline(always)]
fn store_dwords<const N: usize>(wave: &mut Wave, inst: &Inst, find: Find) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], N)?;
    if let Some(places) = find(wave, inst, &Request::write(4 * N as u32))? {
        store::<N>(wave, src, &places);
    }
    Ok(())
}

#[inline(always)]
fn load_less(wave: &mut Wave, inst: &Inst, find: Find, part: Part) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, 1)?;
    if let Some(places) = find(wave, inst, &Request::read(part.bytes()))? {
        load_part(wave, dst, part, &places);
    }
    Ok(())
}

#[inline(always)]
fn store_less(wave: &mut Wave, inst: &Inst, find: Find, bytes: u32, shift: u32) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], 1)?;
    if let Some(places) = find(wave, inst, &Request::write(bytes))? {
        store_part(wave, src, bytes, shift, &places);
    }
    Ok(())
}

macro_rules! loads {
    ($find:ident; $($name:ident: $kind:ident $what:tt;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = loads!(@$kind wave, inst, $find, $what);
            finish(wave, result)
        })+
    };
    (@dwords $wave:ident, $inst:ident, $find:ident, $count:tt) => {
        load_dwords::<$count>($wave, $inst, $find)
    };
    (@part $wave:ident, $inst:ident, $find:ident, $part:tt) => {
        load_less($wave, $inst, $find, Part::$part)
    };
}

macro_rules! stores {
    ($find:ident; $($name:ident: $kind:ident $($what:literal)+;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = stores!(@$kind wave, inst, $find, $($what)+);
            finish(wave, result)
        })+
    };
    (@dwords $wave:ident, $inst:ident, $find:ident, $count:literal) => {
        store_dwords::<$count>($wave, $inst, $find)
    };
    (@part $wave:ident, $inst:ident, $find:ident, $bytes:literal $shift:literal) => {
        store_less($wave, $inst, $find, $bytes, $shift)
    };
}

macro_rules! lds_loads {
    ($find:ident; $($name:ident: $piece:expr, $bytes:literal;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = match $find(wave, inst, &Request::read($bytes)) {
                Ok(Some(places)) => copy_whole(wave, inst, &places, $piece),
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            finish(wave, result)
        })+
    };
}

/// The registers of an atomic: where the old value goes (if it is asked for), and the data.
pub(super) fn atomic_registers(
    inst: &Inst,
    result: usize,
    data: usize,
) -> Result<(Option<usize>, usize), Fault> {
    let dst = match inst.dst {
        Operand::None => None,
        operand => Some(registers(inst, operand, result)?),
    };
    Ok((dst, registers(inst, inst.src[1], data)?))
}

/// Defines atomics. `compare` ones have the new value in their first data registers and what it is compared with in the
/// next.
macro_rules! atomics {
    ($find:ident; $($name:ident: $kind:ident $bytes:literal, |$old:ident, $a:ident, $b:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = $find(wave, inst, &Request::atomic($bytes)).and_then(|places| {
                let Some(places) = places else { return Ok(()) };
                atomics!(@$kind wave, inst, places, |$old, $a, $b| $value);
                Ok(())
            });
            finish(wave, result)
        })+
    };
    (@atomic32 $wave:ident, $inst:ident, $places:ident, $f:expr) => {{
        let (dst, data) = atomic_registers($inst, 1, 1)?;
        atomic32($wave, dst, data, None, &$places, $f);
    }};
    (@compare32 $wave:ident, $inst:ident, $places:ident, $f:expr) => {{
        let (dst, data) = atomic_registers($inst, 1, 2)?;
        atomic32($wave, dst, data, Some(data + 1), &$places, $f);
    }};
    (@atomic64 $wave:ident, $inst:ident, $places:ident, $f:expr) => {{
        let (dst, data) = atomic_registers($inst, 2, 2)?;
        atomic64($wave, dst, data, None, &$places, $f);
    }};
    (@compare64 $wave:ident, $inst:ident, $places:ident, $f:expr) => {{
        let (dst, data) = atomic_registers($inst, 2, 4)?;
        atomic64($wave, dst, data, Some(data + 2), &$places, $f);
    }};
}

loads! { flat;
    flat_load_ubyte: part U8;
    flat_load_sbyte: part I8;
    flat_load_ushort: part U16;
    flat_load_sshort: part I16;
    flat_load_ubyte_d16: part U8Low;
    flat_load_ubyte_d16_hi: part U8High;
    flat_load_sbyte_d16: part I8Low;
    flat_load_sbyte_d16_hi: part I8High;
    flat_load_short_d16: part U16Low;
    flat_load_short_d16_hi: part U16High;
    flat_load_dword: dwords 1;
    flat_load_dwordx2: dwords 2;
    flat_load_dwordx3: dwords 3;
    flat_load_dwordx4: dwords 4;
}

stores! { flat;
    flat_store_byte: part 1 0;
    flat_store_byte_d16_hi: part 1 16;
    flat_store_short: part 2 0;
    flat_store_short_d16_hi: part 2 16;
    flat_store_dword: dwords 1;
    flat_store_dwordx2: dwords 2;
    flat_store_dwordx3: dwords 3;
    flat_store_dwordx4: dwords 4;
}

atomics! { flat;
    flat_atomic_swap: atomic32 4, |old, a, _b| int32::swap(old, a);
    flat_atomic_add: atomic32 4, |old, a, _b| int32::add(old, a);
    flat_atomic_sub: atomic32 4, |old, a, _b| int32::sub(old, a);
    flat_atomic_smin: atomic32 4, |old, a, _b| int32::smin(old, a);
    flat_atomic_umin: atomic32 4, |old, a, _b| int32::umin(old, a);
    flat_atomic_smax: atomic32 4, |old, a, _b| int32::smax(old, a);
    flat_atomic_umax: atomic32 4, |old, a, _b| int32::umax(old, a);
    flat_atomic_and: atomic32 4, |old, a, _b| int32::and(old, a);
    flat_atomic_or: atomic32 4, |old, a, _b| int32::or(old, a);
    flat_atomic_xor: atomic32 4, |old, a, _b| int32::xor(old, a);
    flat_atomic_inc: atomic32 4, |old, a, _b| int32::inc(old, a);
    flat_atomic_dec: atomic32 4, |old, a, _b| int32::dec(old, a);
    flat_atomic_cmpswap: compare32 4, |old, a, b| if old == b { a } else { old };
    flat_atomic_add_f32: atomic32 4, |old, a, _b| add_f32(old, a, KEEP);
    flat_atomic_pk_add_f16: atomic32 4, |old, a, _b| pk_add_f16(old, a, KEEP);
    flat_atomic_pk_add_bf16: atomic32 4, |old, a, _b| pk_add_bf16(old, a, KEEP);
    flat_atomic_swap_x2: atomic64 8, |old, a, _b| int64::swap(old, a);
    flat_atomic_add_x2: atomic64 8, |old, a, _b| int64::add(old, a);
    flat_atomic_sub_x2: atomic64 8, |old, a, _b| int64::sub(old, a);
    flat_atomic_smin_x2: atomic64 8, |old, a, _b| int64::smin(old, a);
    flat_atomic_umin_x2: atomic64 8, |old, a, _b| int64::umin(old, a);
    flat_atomic_smax_x2: atomic64 8, |old, a, _b| int64::smax(old, a);
    flat_atomic_umax_x2: atomic64 8, |old, a, _b| int64::umax(old, a);
    flat_atomic_and_x2: atomic64 8, |old, a, _b| int64::and(old, a);
    flat_atomic_or_x2: atomic64 8, |old, a, _b| int64::or(old, a);
    flat_atomic_xor_x2: atomic64 8, |old, a, _b| int64::xor(old, a);
    flat_atomic_inc_x2: atomic64 8, |old, a, _b| int64::inc(old, a);
    flat_atomic_dec_x2: atomic64 8, |old, a, _b| int64::dec(old, a);
    flat_atomic_cmpswap_x2: compare64 8, |old, a, b| if old == b { a } else { old };
    flat_atomic_add_f64: atomic64 8, |old, a, _b| add_f64(old, a, KEEP);
    flat_atomic_min_f64: atomic64 8, |old, a, _b| min_f64(old, a);
    flat_atomic_max_f64: atomic64 8, |old, a, _b| max_f64(old, a);
}

loads! { global;
    global_load_ubyte: part U8;
    global_load_sbyte: part I8;
    global_load_ushort: part U16;
    global_load_sshort: part I16;
    global_load_ubyte_d16: part U8Low;
    global_load_ubyte_d16_hi: part U8High;
    global_load_sbyte_d16: part I8Low;
    global_load_sbyte_d16_hi: part I8High;
    global_load_short_d16: part U16Low;
    global_load_short_d16_hi: part U16High;
    global_load_dword: dwords 1;
    global_load_dwordx2: dwords 2;
    global_load_dwordx3: dwords 3;
    global_load_dwordx4: dwords 4;
}

stores! { global;
    global_store_byte: part 1 0;
    global_store_byte_d16_hi: part 1 16;
    global_store_short: part 2 0;
    global_store_short_d16_hi: part 2 16;
    global_store_dword: dwords 1;
    global_store_dwordx2: dwords 2;
    global_store_dwordx3: dwords 3;
    global_store_dwordx4: dwords 4;
}

lds_loads! { global;
    global_load_lds_ubyte: Piece::Part(Part::U8), 1;
    global_load_lds_sbyte: Piece::Part(Part::I8), 1;
    global_load_lds_ushort: Piece::Part(Part::U16), 2;
    global_load_lds_sshort: Piece::Part(Part::I16), 2;
    global_load_lds_dword: Piece::Dwords(1), 4;
    global_load_lds_dwordx3: Piece::Dwords(3), 12;
    global_load_lds_dwordx4: Piece::Dwords(4), 16;
}

atomics! { global;
    global_atomic_swap: atomic32 4, |old, a, _b| int32::swap(old, a);
    global_atomic_add: atomic32 4, |old, a, _b| int32::add(old, a);
    global_atomic_sub: atomic32 4, |old, a, _b| int32::sub(old, a);
    global_atomic_smin: atomic32 4, |old, a, _b| int32::smin(old, a);
    global_atomic_umin: atomic32 4, |old, a, _b| int32::umin(old, a);
    global_atomic_smax: atomic32 4, |old, a, _b| int32::smax(old, a);
    global_atomic_umax: atomic32 4, |old, a, _b| int32::umax(old, a);
    global_atomic_and: atomic32 4, |old, a, _b| int32::and(old, a);
    global_atomic_or: atomic32 4, |old, a, _b| int32::or(old, a);
    global_atomic_xor: atomic32 4, |old, a, _b| int32::xor(old, a);
    global_atomic_inc: atomic32 4, |old, a, _b| int32::inc(old, a);
    global_atomic_dec: atomic32 4, |old, a, _b| int32::dec(old, a);
    global_atomic_cmpswap: compare32 4, |old, a, b| if old == b { a } else { old };
    global_atomic_add_f32: atomic32 4, |old, a, _b| add_f32(old, a, KEEP);
    global_atomic_pk_add_f16: atomic32 4, |old, a, _b| pk_add_f16(old, a, KEEP);
    global_atomic_pk_add_bf16: atomic32 4, |old, a, _b| pk_add_bf16(old, a, KEEP);
    global_atomic_swap_x2: atomic64 8, |old, a, _b| int64::swap(old, a);
    global_atomic_add_x2: atomic64 8, |old, a, _b| int64::add(old, a);
    global_atomic_sub_x2: atomic64 8, |old, a, _b| int64::sub(old, a);
    global_atomic_smin_x2: atomic64 8, |old, a, _b| int64::smin(old, a);
    global_atomic_umin_x2: atomic64 8, |old, a, _b| int64::umin(old, a);
    global_atomic_smax_x2: atomic64 8, |old, a, _b| int64::smax(old, a);
    global_atomic_umax_x2: atomic64 8, |old, a, _b| int64::umax(old, a);
    global_atomic_and_x2: atomic64 8, |old, a, _b| int64::and(old, a);
    global_atomic_or_x2: atomic64 8, |old, a, _b| int64::or(old, a);
    global_atomic_xor_x2: atomic64 8, |old, a, _b| int64::xor(old, a);
    global_atomic_inc_x2: atomic64 8, |old, a, _b| int64::inc(old, a);
    global_atomic_dec_x2: atomic64 8, |old, a, _b| int64::dec(old, a);
    global_atomic_cmpswap_x2: compare64 8, |old, a, b| if old == b { a } else { old };
    global_atomic_add_f64: atomic64 8, |old, a, _b| add_f64(old, a, KEEP);
    global_atomic_min_f64: atomic64 8, |old, a, _b| min_f64(old, a);
    global_atomic_max_f64: atomic64 8, |old, a, _b| max_f64(old, a);
}

loads! { scratch;
    scratch_load_ubyte: part U8;
    scratch_load_sbyte: part I8;
    scratch_load_ushort: part U16;
    scratch_load_sshort: part I16;
    scratch_load_ubyte_d16: part U8Low;
    scratch_load_ubyte_d16_hi: part U8High;
    scratch_load_sbyte_d16: part I8Low;
    scratch_load_sbyte_d16_hi: part I8High;
    scratch_load_short_d16: part U16Low;
    scratch_load_short_d16_hi: part U16High;
    scratch_load_dword: dwords 1;
    scratch_load_dwordx2: dwords 2;
    scratch_load_dwordx3: dwords 3;
    scratch_load_dwordx4: dwords 4;
}

stores! { scratch;
    scratch_store_byte: part 1 0;
    scratch_store_byte_d16_hi: part 1 16;
    scratch_store_short: part 2 0;
    scratch_store_short_d16_hi: part 2 16;
    scratch_store_dword: dwords 1;
    scratch_store_dwordx2: dwords 2;
    scratch_store_dwordx3: dwords 3;
    scratch_store_dwordx4: dwords 4;
}

lds_loads! { scratch;
    scratch_load_lds_ubyte: Piece::Part(Part::U8), 1;
    scratch_load_lds_sbyte: Piece::Part(Part::I8), 1;
    scratch_load_lds_ushort: Piece::Part(Part::U16), 2;
    scratch_load_lds_sshort: Piece::Part(Part::I16), 2;
    scratch_load_lds_dword: Piece::Dwords(1), 4;
}
