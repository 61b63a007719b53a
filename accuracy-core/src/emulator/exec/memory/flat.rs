//! FLAT, GLOBAL and SCRATCH: loads, stores and atomics at an address of each lane.

use super::atomic::atomics;
use super::lds_transfer::{Piece, copy_whole};
use super::places::{Places, Request, Room, flat, global, registers, scratch};
use super::transfer::{Part, load, load_part, store, store_part};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, Wave};

/// The next instruction, or the end of the wave.
pub(super) fn finish(wave: &mut Wave, result: Result<(), Fault>) -> Flow {
    match result {
        Ok(()) => Flow::Next,
        Err(fault) => wave.fail(fault),
    }
}

/// Finds the addresses of an instruction, as [`global`] does.
type Find = for<'r> fn(&mut Wave, &Inst, &Request, &'r mut Room) -> Result<Option<Places<'r>>, Fault>;

#[inline(always)]
fn load_dwords<const N: usize>(wave: &mut Wave, inst: &Inst, find: Find) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, N)?;
    if let Some(places) = find(wave, inst, &Request::read(4 * N as u32), &mut Room::uninit())? {
        load::<N>(wave, dst, &places);
    }
    Ok(())
}

#[inline(always)]
fn store_dwords<const N: usize>(wave: &mut Wave, inst: &Inst, find: Find) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], N)?;
    if let Some(places) = find(wave, inst, &Request::write(4 * N as u32), &mut Room::uninit())? {
        store::<N>(wave, src, &places);
    }
    Ok(())
}

#[inline(always)]
fn load_less(wave: &mut Wave, inst: &Inst, find: Find, part: Part) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, 1)?;
    if let Some(places) = find(wave, inst, &Request::read(part.bytes()), &mut Room::uninit())? {
        load_part(wave, dst, part, &places);
    }
    Ok(())
}

#[inline(always)]
fn store_less(wave: &mut Wave, inst: &Inst, find: Find, bytes: u32, shift: u32) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], 1)?;
    if let Some(places) = find(wave, inst, &Request::write(bytes), &mut Room::uninit())? {
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
            let result = match $find(wave, inst, &Request::read($bytes), &mut Room::uninit()) {
                Ok(Some(places)) => copy_whole(wave, inst, &places, $piece),
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            finish(wave, result)
        })+
    };
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
    flat_atomic_swap flat_atomic_add flat_atomic_sub flat_atomic_smin flat_atomic_umin flat_atomic_smax
    flat_atomic_umax flat_atomic_and flat_atomic_or flat_atomic_xor flat_atomic_inc flat_atomic_dec
    flat_atomic_cmpswap flat_atomic_add_f32 flat_atomic_pk_add_f16 flat_atomic_pk_add_bf16 flat_atomic_swap_x2
    flat_atomic_add_x2 flat_atomic_sub_x2 flat_atomic_smin_x2 flat_atomic_umin_x2 flat_atomic_smax_x2
    flat_atomic_umax_x2 flat_atomic_and_x2 flat_atomic_or_x2 flat_atomic_xor_x2 flat_atomic_inc_x2
    flat_atomic_dec_x2 flat_atomic_cmpswap_x2 flat_atomic_add_f64 flat_atomic_min_f64 flat_atomic_max_f64
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
    global_atomic_swap global_atomic_add global_atomic_sub global_atomic_smin global_atomic_umin
    global_atomic_smax global_atomic_umax global_atomic_and global_atomic_or global_atomic_xor global_atomic_inc
    global_atomic_dec global_atomic_cmpswap global_atomic_add_f32 global_atomic_pk_add_f16
    global_atomic_pk_add_bf16 global_atomic_swap_x2 global_atomic_add_x2 global_atomic_sub_x2
    global_atomic_smin_x2 global_atomic_umin_x2 global_atomic_smax_x2 global_atomic_umax_x2 global_atomic_and_x2
    global_atomic_or_x2 global_atomic_xor_x2 global_atomic_inc_x2 global_atomic_dec_x2 global_atomic_cmpswap_x2
    global_atomic_add_f64 global_atomic_min_f64 global_atomic_max_f64
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
