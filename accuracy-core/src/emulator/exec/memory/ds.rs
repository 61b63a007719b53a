//! DS: LDS and the exchange of registers between lanes.

use super::atomic::{
    add_f32, add_f64, atomic_registers, atomic32, atomic64, int32, int64, max_f32, max_f64, min_f32, min_f64,
    pk_add_bf16, pk_add_f16,
};
use super::flat::finish;
use super::places::before_change;
use super::places::{Places, Request, Room, lanes, lds_by_lane, lds_offsets, registers};
use super::transfer::{Part, get, load, load_part, put, store, store_part};
use crate::emulator::isa::{Inst, Operand, Processor};
use crate::emulator::wave::{Fault, Flow, LANES, Lanes, Wave};

/// Refuses GDS, the memory that all workgroups of older devices share.
fn refuse_gds(inst: &Inst) -> Result<(), Fault> {
    if !inst.memory.gds {
        return Ok(());
    }
    let mnemonic = inst.row.mnemonic;
    Err(Fault::Illegal(format!(
        "{mnemonic} with `gds` uses memory that all workgroups share, which gfx942 and gfx950 do not have"
    )))
}

/// The addresses of an instruction with one address. `None` if no lane is on.
fn places<'r>(
    wave: &mut Wave,
    inst: &Inst,
    request: &Request,
    room: &'r mut Room,
) -> Result<Option<Places<'r>>, Fault> {
    let places = places_at(wave, inst, [inst.imm as u32 & 0xffff], request, std::array::from_mut(room))?;
    Ok(places.map(|[places]| places))
}

/// The addresses at offsets from the address register.
fn places_at<'r, const N: usize>(
    wave: &mut Wave,
    inst: &Inst,
    offsets: [u32; N],
    request: &Request,
    rooms: &'r mut [Room; N],
) -> Result<Option<[Places<'r>; N]>, Fault> {
    refuse_gds(inst)?;
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let register = registers(inst, inst.src[0], 1)?;
    lds_offsets(wave, register, offsets, exec, request, rooms).map(Some)
}

/// Defines reads and writes of whole dwords.
macro_rules! dwords {
    ($($read:ident, $write:ident: $count:literal;)+) => {
        $(pub fn $read(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = registers(inst, inst.dst, $count).and_then(|dst| {
                if let Some(places) = places(wave, inst, &Request::read(4 * $count), &mut Room::uninit())? {
                    load::<$count>(wave, dst, &places);
                }
                Ok(())
            });
            finish(wave, result)
        }

        pub fn $write(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = registers(inst, inst.src[1], $count).and_then(|src| {
                if let Some(places) = places(wave, inst, &Request::write(4 * $count), &mut Room::uninit())? {
                    store::<$count>(wave, src, &places);
                }
                Ok(())
            });
            finish(wave, result)
        })+
    };
}

dwords! {
    ds_read_b32, ds_write_b32: 1;
    ds_read_b64, ds_write_b64: 2;
    ds_read_b96, ds_write_b96: 3;
    ds_read_b128, ds_write_b128: 4;
}

/// Defines reads of less than a dword.
macro_rules! parts {
    ($($name:ident: $part:ident;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = registers(inst, inst.dst, 1).and_then(|dst| {
                if let Some(places) = places(wave, inst, &Request::read(Part::$part.bytes()), &mut Room::uninit())? {
                    load_part(wave, dst, Part::$part, &places);
                }
                Ok(())
            });
            finish(wave, result)
        })+
    };
}

parts! {
    ds_read_u8: U8;
    ds_read_i8: I8;
    ds_read_u16: U16;
    ds_read_i16: I16;
    ds_read_u8_d16: U8Low;
    ds_read_u8_d16_hi: U8High;
    ds_read_i8_d16: I8Low;
    ds_read_i8_d16_hi: I8High;
    ds_read_u16_d16: U16Low;
    ds_read_u16_d16_hi: U16High;
}

/// Defines writes of less than a dword: its bytes, and the register's bit that they start at.
macro_rules! write_parts {
    ($($name:ident: $bytes:literal $shift:literal;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = registers(inst, inst.src[1], 1).and_then(|src| {
                if let Some(places) = places(wave, inst, &Request::write($bytes), &mut Room::uninit())? {
                    store_part(wave, src, $bytes, $shift, &places);
                }
                Ok(())
            });
            finish(wave, result)
        })+
    };
}

write_parts! {
    ds_write_b8: 1 0;
    ds_write_b16: 2 0;
    ds_write_b8_d16_hi: 1 16;
    ds_write_b16_d16_hi: 2 16;
}

/// The two addresses of an instruction whose offsets count `unit` bytes.
fn two_places<'r>(
    wave: &mut Wave,
    inst: &Inst,
    unit: u32,
    request: &Request,
    rooms: &'r mut [Room; 2],
) -> Result<Option<[Places<'r>; 2]>, Fault> {
    let offsets = [(inst.imm as u32 & 0xff) * unit, (inst.imm2 & 0xff) * unit];
    places_at(wave, inst, offsets, request, rooms)
}

/// Exchanges `N` dwords a lane at each of two addresses with registers; the old values go to registers from `dst` on.
fn exchange2<const N: usize>(wave: &mut Wave, dst: usize, data: [usize; 2], places: &[Places; 2]) {
    places.iter().for_each(|places| before_change(wave, places, 4 * N as u32));
    for lane in lanes(places[0].lanes) {
        // Both are read before either is written, and the data before the destination, which may be the same register.
        let place = |which: usize, part: usize| places[which].at(lane) + 4 * part as u64;
        let mut old = [[0; N]; 2];
        let mut new = [[0; N]; 2];
        for which in 0..2 {
            for part in 0..N {
                // SAFETY: `places` was made for an atomic of 4 * N bytes, in LDS, which belongs to this thread.
                old[which][part] = unsafe { get::<u32>(place(which, part)) };
                new[which][part] = wave.v[data[which] + part].0[lane];
            }
        }
        for which in 0..2 {
            for part in 0..N {
                // SAFETY: as above.
                unsafe { put(place(which, part), new[which][part]) };
                wave.v[dst + which * N + part].0[lane] = old[which][part];
            }
        }
    }
}

/// Defines instructions with two addresses: how many dwords at each, and how many bytes their offsets count.
macro_rules! two {
    ($($read:ident, $write:ident, $exchange:ident: $count:literal, $unit:literal;)+) => {
        $(pub fn $read(wave: &mut Wave, inst: &Inst) -> Flow {
            let mut rooms = [Room::uninit(); 2];
            let result = registers(inst, inst.dst, 2 * $count).and_then(|dst| {
                let request = Request::read(4 * $count);
                if let Some([first, second]) = two_places(wave, inst, $unit, &request, &mut rooms)? {
                    load::<$count>(wave, dst, &first);
                    load::<$count>(wave, dst + $count, &second);
                }
                Ok(())
            });
            finish(wave, result)
        }

        pub fn $write(wave: &mut Wave, inst: &Inst) -> Flow {
            let mut rooms = [Room::uninit(); 2];
            let result = registers(inst, inst.src[1], $count).and_then(|one| {
                let two = registers(inst, inst.src[2], $count)?;
                let request = Request::write(4 * $count);
                if let Some([first, second]) = two_places(wave, inst, $unit, &request, &mut rooms)? {
                    store::<$count>(wave, one, &first);
                    store::<$count>(wave, two, &second);
                }
                Ok(())
            });
            finish(wave, result)
        }

        pub fn $exchange(wave: &mut Wave, inst: &Inst) -> Flow {
            let mut rooms = [Room::uninit(); 2];
            let result = registers(inst, inst.dst, 2 * $count).and_then(|dst| {
                let one = registers(inst, inst.src[1], $count)?;
                let two = registers(inst, inst.src[2], $count)?;
                let request = Request { align: 4 * $count, ..Request::atomic(4 * $count) };
                if let Some([first, second]) = two_places(wave, inst, $unit, &request, &mut rooms)? {
                    exchange2::<$count>(wave, dst, [one, two], &[first, second]);
                }
                Ok(())
            });
            finish(wave, result)
        })+
    };
}

two! {
    ds_read2_b32, ds_write2_b32, ds_wrxchg2_rtn_b32: 1, 4;
    ds_read2st64_b32, ds_write2st64_b32, ds_wrxchg2st64_rtn_b32: 1, 256;
    ds_read2_b64, ds_write2_b64, ds_wrxchg2_rtn_b64: 2, 8;
    ds_read2st64_b64, ds_write2st64_b64, ds_wrxchg2st64_rtn_b64: 2, 512;
}

/// Defines atomics with one or two data operands. `mode` is MODE, which says what becomes of denormals.
macro_rules! atomics {
    ($($name:ident: $kind:ident $operands:ident, |$mode:ident, $old:ident, $a:ident, $b:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let count = atomics!(@$kind);
            let mut room = Room::uninit();
            let result = places(wave, inst, &Request::atomic(4 * count as u32), &mut room).and_then(|places| {
                let Some(places) = places else { return Ok(()) };
                let (dst, data) = atomic_registers(inst, count, count)?;
                let second = atomics!(@$operands inst, count);
                let $mode = wave.mode;
                $kind(wave, dst, data, second, &places, |$old, $a, $b| $value);
                Ok(())
            });
            finish(wave, result)
        })+
    };
    (@atomic32) => { 1 };
    (@atomic64) => { 2 };
    (@one $inst:ident, $count:ident) => { None };
    (@two $inst:ident, $count:ident) => { Some(registers($inst, $inst.src[2], $count)?) };
}

atomics! {
    ds_add_u32: atomic32 one, |_mode, old, a, _b| int32::add(old, a);
    ds_add_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::add(old, a);
    ds_sub_u32: atomic32 one, |_mode, old, a, _b| int32::sub(old, a);
    ds_sub_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::sub(old, a);
    ds_rsub_u32: atomic32 one, |_mode, old, a, _b| int32::rsub(old, a);
    ds_rsub_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::rsub(old, a);
    ds_inc_u32: atomic32 one, |_mode, old, a, _b| int32::inc(old, a);
    ds_inc_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::inc(old, a);
    ds_dec_u32: atomic32 one, |_mode, old, a, _b| int32::dec(old, a);
    ds_dec_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::dec(old, a);
    ds_min_u32: atomic32 one, |_mode, old, a, _b| int32::umin(old, a);
    ds_min_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::umin(old, a);
    ds_max_u32: atomic32 one, |_mode, old, a, _b| int32::umax(old, a);
    ds_max_rtn_u32: atomic32 one, |_mode, old, a, _b| int32::umax(old, a);
    ds_min_i32: atomic32 one, |_mode, old, a, _b| int32::smin(old, a);
    ds_min_rtn_i32: atomic32 one, |_mode, old, a, _b| int32::smin(old, a);
    ds_max_i32: atomic32 one, |_mode, old, a, _b| int32::smax(old, a);
    ds_max_rtn_i32: atomic32 one, |_mode, old, a, _b| int32::smax(old, a);
    ds_and_b32: atomic32 one, |_mode, old, a, _b| int32::and(old, a);
    ds_and_rtn_b32: atomic32 one, |_mode, old, a, _b| int32::and(old, a);
    ds_or_b32: atomic32 one, |_mode, old, a, _b| int32::or(old, a);
    ds_or_rtn_b32: atomic32 one, |_mode, old, a, _b| int32::or(old, a);
    ds_xor_b32: atomic32 one, |_mode, old, a, _b| int32::xor(old, a);
    ds_xor_rtn_b32: atomic32 one, |_mode, old, a, _b| int32::xor(old, a);
    ds_wrxchg_rtn_b32: atomic32 one, |_mode, old, a, _b| int32::swap(old, a);
    ds_mskor_b32: atomic32 two, |_mode, old, a, b| old & !a | b;
    ds_cmpst_b32: atomic32 two, |_mode, old, a, b| if old == a { b } else { old };
    ds_cmpst_f32: atomic32 two, |_mode, old, a, b| if f32::from_bits(old) == f32::from_bits(a) { b } else { old };
    ds_min_f32: atomic32 one, |_mode, old, a, _b| min_f32(old, a);
    ds_max_f32: atomic32 one, |_mode, old, a, _b| max_f32(old, a);
    ds_add_f32: atomic32 one, |mode, old, a, _b| add_f32(old, a, mode.denormals32());
    ds_pk_add_f16: atomic32 one, |mode, old, a, _b| pk_add_f16(old, a, mode.denormals64_16());
    ds_pk_add_bf16: atomic32 one, |mode, old, a, _b| pk_add_bf16(old, a, mode.denormals32());
    ds_mskor_rtn_b32: atomic32 two, |_mode, old, a, b| old & !a | b;
    ds_cmpst_rtn_b32: atomic32 two, |_mode, old, a, b| if old == a { b } else { old };
    ds_cmpst_rtn_f32: atomic32 two, |_mode, old, a, b| if f32::from_bits(old) == f32::from_bits(a) { b } else { old };
    ds_min_rtn_f32: atomic32 one, |_mode, old, a, _b| min_f32(old, a);
    ds_max_rtn_f32: atomic32 one, |_mode, old, a, _b| max_f32(old, a);
    ds_add_rtn_f32: atomic32 one, |mode, old, a, _b| add_f32(old, a, mode.denormals32());
    ds_pk_add_rtn_f16: atomic32 one, |mode, old, a, _b| pk_add_f16(old, a, mode.denormals64_16());
    ds_pk_add_rtn_bf16: atomic32 one, |mode, old, a, _b| pk_add_bf16(old, a, mode.denormals32());
    ds_add_u64: atomic64 one, |_mode, old, a, _b| int64::add(old, a);
    ds_add_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::add(old, a);
    ds_sub_u64: atomic64 one, |_mode, old, a, _b| int64::sub(old, a);
    ds_sub_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::sub(old, a);
    ds_rsub_u64: atomic64 one, |_mode, old, a, _b| int64::rsub(old, a);
    ds_rsub_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::rsub(old, a);
    ds_inc_u64: atomic64 one, |_mode, old, a, _b| int64::inc(old, a);
    ds_inc_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::inc(old, a);
    ds_dec_u64: atomic64 one, |_mode, old, a, _b| int64::dec(old, a);
    ds_dec_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::dec(old, a);
    ds_min_u64: atomic64 one, |_mode, old, a, _b| int64::umin(old, a);
    ds_min_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::umin(old, a);
    ds_max_u64: atomic64 one, |_mode, old, a, _b| int64::umax(old, a);
    ds_max_rtn_u64: atomic64 one, |_mode, old, a, _b| int64::umax(old, a);
    ds_min_i64: atomic64 one, |_mode, old, a, _b| int64::smin(old, a);
    ds_min_rtn_i64: atomic64 one, |_mode, old, a, _b| int64::smin(old, a);
    ds_max_i64: atomic64 one, |_mode, old, a, _b| int64::smax(old, a);
    ds_max_rtn_i64: atomic64 one, |_mode, old, a, _b| int64::smax(old, a);
    ds_and_b64: atomic64 one, |_mode, old, a, _b| int64::and(old, a);
    ds_and_rtn_b64: atomic64 one, |_mode, old, a, _b| int64::and(old, a);
    ds_or_b64: atomic64 one, |_mode, old, a, _b| int64::or(old, a);
    ds_or_rtn_b64: atomic64 one, |_mode, old, a, _b| int64::or(old, a);
    ds_xor_b64: atomic64 one, |_mode, old, a, _b| int64::xor(old, a);
    ds_xor_rtn_b64: atomic64 one, |_mode, old, a, _b| int64::xor(old, a);
    ds_wrxchg_rtn_b64: atomic64 one, |_mode, old, a, _b| int64::swap(old, a);
    ds_mskor_b64: atomic64 two, |_mode, old, a, b| old & !a | b;
    ds_cmpst_b64: atomic64 two, |_mode, old, a, b| if old == a { b } else { old };
    ds_cmpst_f64: atomic64 two, |_mode, old, a, b| if f64::from_bits(old) == f64::from_bits(a) { b } else { old };
    ds_min_f64: atomic64 one, |_mode, old, a, _b| min_f64(old, a);
    ds_max_f64: atomic64 one, |_mode, old, a, _b| max_f64(old, a);
    ds_add_f64: atomic64 one, |mode, old, a, _b| add_f64(old, a, mode.denormals64_16());
    ds_mskor_rtn_b64: atomic64 two, |_mode, old, a, b| old & !a | b;
    ds_cmpst_rtn_b64: atomic64 two, |_mode, old, a, b| if old == a { b } else { old };
    ds_cmpst_rtn_f64: atomic64 two, |_mode, old, a, b| if f64::from_bits(old) == f64::from_bits(a) { b } else { old };
    ds_min_rtn_f64: atomic64 one, |_mode, old, a, _b| min_f64(old, a);
    ds_max_rtn_f64: atomic64 one, |_mode, old, a, _b| max_f64(old, a);
    ds_add_rtn_f64: atomic64 one, |mode, old, a, _b| add_f64(old, a, mode.denormals64_16());
    ds_wrap_rtn_b32: atomic32 two, |_mode, old, a, b| if old >= a { old - a } else { old.wrapping_add(b) };
}

/// Clears the top bit of two dwords where the data has it set; gives both old values.
pub fn ds_condxchg32_rtn_b64(wave: &mut Wave, inst: &Inst) -> Flow {
    let change = |old: u32, data: u32| if data >> 31 != 0 { data & 0x7fff_ffff } else { old };
    let (request, mut room) = (Request { align: 8, ..Request::atomic(8) }, Room::uninit());
    let result = places(wave, inst, &request, &mut room).and_then(|places| {
        let Some(places) = places else { return Ok(()) };
        let (dst, data) = atomic_registers(inst, 2, 2)?;
        atomic64(wave, dst, data, None, &places, |old, data, _| {
            let low = change(old as u32, data as u32);
            let high = change((old >> 32) as u32, (data >> 32) as u32);
            u64::from(high) << 32 | u64::from(low)
        });
        Ok(())
    });
    finish(wave, result)
}

/// Does nothing.
pub fn ds_nop(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Next
}

/// Where `ds_append` and its like start: bits of M0 plus the offset.
fn from_m0(wave: &Wave, inst: &Inst) -> u32 {
    let bits = match wave.processor {
        Processor::Gfx942 => 0xffff,
        Processor::Gfx950 => 0x3_ffff,
    };
    (wave.m0() & bits) + (inst.imm as u32 & 0xffff)
}

pub fn ds_read_addtid_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = by_lane(wave, inst, &Request::read(4)).and_then(|places| {
        let dst = registers(inst, inst.dst, 1)?;
        if let Some(places) = places {
            load::<1>(wave, dst, &places);
        }
        Ok(())
    });
    finish(wave, result)
}

pub fn ds_write_addtid_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = by_lane(wave, inst, &Request::write(4)).and_then(|places| {
        let src = registers(inst, inst.src[1], 1)?;
        if let Some(places) = places {
            store::<1>(wave, src, &places);
        }
        Ok(())
    });
    finish(wave, result)
}

/// One dword for each lane, lane behind lane.
fn by_lane(wave: &mut Wave, inst: &Inst, request: &Request) -> Result<Option<Places<'static>>, Fault> {
    // AMD's text has 16 bits of M0 here, for both architectures.
    let start = (wave.m0() & 0xffff) + (inst.imm as u32 & 0xffff);
    refuse_gds(inst)?;
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    lds_by_lane(wave, start, 4, exec, request).map(Some)
}

/// Changes one counter in LDS by the number of active lanes; every lane gets the old value.
fn count(wave: &mut Wave, inst: &Inst, change: impl Fn(u32, u32) -> u32) -> Result<(), Fault> {
    refuse_gds(inst)?;
    let dst = registers(inst, inst.dst, 1)?;
    let exec = wave.exec();
    if exec == 0 {
        return Ok(());
    }
    let first = 1 << exec.trailing_zeros();
    let start = from_m0(wave, inst);
    let request = Request::atomic(4);
    if !start.is_multiple_of(4) {
        let (lane, address) = (exec.trailing_zeros() as u8, u64::from(start));
        return Err(Fault::Misaligned { lane, address, needed: 4 });
    }
    let places = lds_by_lane(wave, start, 0, first, &request)?;
    before_change(wave, &places, 4);
    let address = places.at(0);
    // SAFETY: the address was checked for an atomic of 4 bytes in LDS, which belongs to this thread.
    let old = unsafe {
        let old = get::<u32>(address);
        put(address, change(old, exec.count_ones()));
        old
    };
    for lane in lanes(exec) {
        wave.v[dst].0[lane] = old;
    }
    Ok(())
}

pub fn ds_append(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = count(wave, inst, u32::wrapping_add);
    finish(wave, result)
}

pub fn ds_consume(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = count(wave, inst, u32::wrapping_sub);
    finish(wave, result)
}

/// The lane that lane `lane` reads in `ds_swizzle_b32`.
pub(in crate::emulator) fn swizzled(pattern: u32, lane: u32) -> u32 {
    let inside = lane & 31;
    let upper = lane & 32;
    if pattern >= 0xe000 {
        // The order of a fast Fourier transform: bits reversed, within groups that the mask keeps apart.
        let mask = pattern & 31;
        let reversed = inside.reverse_bits() >> 27;
        (reversed >> mask.count_ones() | inside & mask) | upper
    } else if pattern >= 0xc000 {
        let (mask, by) = (pattern & 31, pattern >> 5 & 31);
        let moved = if pattern >> 10 & 1 != 0 { inside.wrapping_sub(by) } else { inside + by };
        (inside & mask | moved & !mask & 31) | upper
    } else if pattern & 0x8000 != 0 {
        lane & !3 | pattern >> (2 * (lane & 3)) & 3
    } else {
        let (and, or, xor) = (pattern & 31, pattern >> 5 & 31, pattern >> 10 & 31);
        ((inside & and | or) ^ xor) | upper
    }
}

/// Every active lane takes the data of the lane that `from` names, or zero if that one is off.
fn pull(wave: &mut Wave, dst: usize, data: usize, from: impl Fn(&Wave, usize) -> usize) {
    let exec = wave.exec();
    let mut result = Lanes::ZERO;
    for lane in lanes(exec) {
        let from = from(wave, lane);
        result.0[lane] = if exec >> from & 1 != 0 { wave.v[data].0[from] } else { 0 };
    }
    for lane in lanes(exec) {
        wave.v[dst].0[lane] = result.0[lane];
    }
}

pub fn ds_swizzle_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let data = if inst.src[0] == Operand::None { inst.src[1] } else { inst.src[0] };
    let result = registers(inst, inst.dst, 1).and_then(|dst| {
        let data = registers(inst, data, 1)?;
        let pattern = inst.imm as u32 & 0xffff;
        pull(wave, dst, data, |_wave, lane| swizzled(pattern, lane as u32) as usize);
        Ok(())
    });
    finish(wave, result)
}

/// The lane that an address of `ds_permute_b32` and `ds_bpermute_b32` names.
pub(in crate::emulator) fn lane_of(address: u32, inst: &Inst) -> usize {
    (address.wrapping_add(inst.imm as u32 & 0xffff) / 4 % 64) as usize
}

pub fn ds_bpermute_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = registers(inst, inst.dst, 1).and_then(|dst| {
        let address = registers(inst, inst.src[0], 1)?;
        let data = registers(inst, inst.src[1], 1)?;
        pull(wave, dst, data, |wave, lane| lane_of(wave.v[address].0[lane], inst));
        Ok(())
    });
    finish(wave, result)
}

/// Every active lane gives its data to the lane that it names. Where two name the same, the higher one wins; who is named
/// by none gets zero.
pub fn ds_permute_b32(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = registers(inst, inst.dst, 1).and_then(|dst| {
        let address = registers(inst, inst.src[0], 1)?;
        let data = registers(inst, inst.src[1], 1)?;
        let exec = wave.exec();
        let mut result = Lanes::ZERO;
        for lane in lanes(exec) {
            result.0[lane_of(wave.v[address].0[lane], inst)] = wave.v[data].0[lane];
        }
        for lane in lanes(exec) {
            wave.v[dst].0[lane] = result.0[lane];
        }
        Ok(())
    });
    finish(wave, result)
}

/// Reads `N` dwords a lane and transposes elements of `BITS` bits within each 16 lanes.
///
/// The lanes of a group read a matrix of 16 columns, row after row: `16 * BITS / (32 * N)` lanes have a row. Lane `i` of
/// the group then gets column `i`, one element of each row.
fn transposed<const N: usize, const BITS: usize>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let dst = registers(inst, inst.dst, N)?;
    let exec = wave.exec();
    let mut room = Room::uninit();
    let Some(places) = places(wave, inst, &Request::read(4 * N as u32), &mut room)? else { return Ok(()) };
    if exec != u64::MAX {
        let detail = format!("with lanes off (EXEC is {exec:#018x}): what it gives then is not documented");
        return Err(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail });
    }
    let read: [[u32; N]; LANES] = std::array::from_fn(|lane| {
        // SAFETY: `places` was made for a read of 4 * N bytes.
        std::array::from_fn(|part| unsafe { get::<u32>(places.at(lane) + 4 * part as u64) })
    });
    let elements = 32 * N / BITS;
    let lanes_of_row = 16 / elements;
    for lane in 0..LANES {
        let (group, column) = (lane & !15, lane & 15);
        let start = BITS * (column % elements);
        let mut value = [0u32; N];
        for row in 0..elements {
            let data = &read[group + row * lanes_of_row + column / elements];
            let (word, shift) = (start / 32, start % 32);
            let mut element = data[word] >> shift;
            if shift + BITS > 32 {
                element |= data[word + 1] << (32 - shift);
            }
            element &= (1 << BITS) - 1;
            let (word, shift) = (BITS * row / 32, BITS * row % 32);
            value[word] |= element << shift;
            if shift + BITS > 32 {
                value[word + 1] |= element >> (32 - shift);
            }
        }
        for (part, value) in value.into_iter().enumerate() {
            wave.v[dst + part].0[lane] = value;
        }
    }
    Ok(())
}

pub fn ds_read_b64_tr_b16(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = transposed::<2, 16>(wave, inst);
    finish(wave, result)
}

pub fn ds_read_b64_tr_b8(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = transposed::<2, 8>(wave, inst);
    finish(wave, result)
}

pub fn ds_read_b64_tr_b4(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = transposed::<2, 4>(wave, inst);
    finish(wave, result)
}

pub fn ds_read_b96_tr_b6(wave: &mut Wave, inst: &Inst) -> Flow {
    let result = transposed::<3, 6>(wave, inst);
    finish(wave, result)
}
