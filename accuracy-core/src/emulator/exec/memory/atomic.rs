//! Atomics: what each makes of the old value, and how it is made at one stroke.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::places::before_change;
use super::places::{Places, lanes, registers};
use super::transfer::{get, put};
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Denormals, Fault, Wave};

/// Changes a dword at one stroke; gives the old value.
///
/// # Safety
///
/// The four bytes must be readable and writable and, unless `local`, aligned. `local` memory belongs to this thread.
#[inline(always)]
unsafe fn change32(address: u64, local: bool, f: impl Fn(u32) -> u32) -> u32 {
    if local {
        // SAFETY: the caller's word; no other thread looks at local memory.
        unsafe {
            let old = get(address);
            put(address, f(old));
            return old;
        }
    }
    let pointer = std::ptr::with_exposed_provenance_mut::<u32>(address as usize);
    // SAFETY: the caller's word.
    let atomic = unsafe { AtomicU32::from_ptr(pointer) };
    atomic.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(f(old))).unwrap_or_else(|old| old)
}

/// As [`change32`], for 64 bits.
///
/// # Safety
///
/// As for [`change32`], with eight bytes.
#[inline(always)]
unsafe fn change64(address: u64, local: bool, f: impl Fn(u64) -> u64) -> u64 {
    if local {
        // SAFETY: the caller's word; no other thread looks at local memory.
        unsafe {
            let old = get(address);
            put(address, f(old));
            return old;
        }
    }
    let pointer = std::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: the caller's word.
    let atomic = unsafe { AtomicU64::from_ptr(pointer) };
    atomic.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(f(old))).unwrap_or_else(|old| old)
}

/// Executes an atomic of 32 bits, lane after lane. `f` makes the new value of the old one and of a lane's two data
/// registers (the second only if `second` is set). The old value goes to `dst`.
#[inline(always)]
pub(super) fn atomic32(
    wave: &mut Wave,
    dst: Option<usize>,
    data: usize,
    second: Option<usize>,
    places: &Places,
    f: impl Fn(u32, u32, u32) -> u32,
) {
    before_change(wave, places, 4);
    for lane in lanes(places.lanes) {
        let a = wave.v[data].0[lane];
        let b = second.map_or(0, |second| wave.v[second].0[lane]);
        let local = places.local >> lane & 1 != 0;
        // SAFETY: `places` was made for an atomic of 4 bytes.
        let old = unsafe { change32(places.at(lane), local, |old| f(old, a, b)) };
        if let Some(dst) = dst {
            wave.v[dst].0[lane] = old;
        }
    }
    if let Some(dst) = dst {
        for lane in lanes(places.zero) {
            wave.v[dst].0[lane] = 0;
        }
    }
}

/// As [`atomic32`], with pairs of registers.
#[inline(always)]
pub(super) fn atomic64(
    wave: &mut Wave,
    dst: Option<usize>,
    data: usize,
    second: Option<usize>,
    places: &Places,
    f: impl Fn(u64, u64, u64) -> u64,
) {
    before_change(wave, places, 8);
    let pair = |wave: &Wave, register: usize, lane: usize| {
        u64::from(wave.v[register + 1].0[lane]) << 32 | u64::from(wave.v[register].0[lane])
    };
    for lane in lanes(places.lanes) {
        let a = pair(wave, data, lane);
        let b = second.map_or(0, |second| pair(wave, second, lane));
        let local = places.local >> lane & 1 != 0;
        // SAFETY: `places` was made for an atomic of 8 bytes.
        let old = unsafe { change64(places.at(lane), local, |old| f(old, a, b)) };
        if let Some(dst) = dst {
            wave.v[dst].0[lane] = old as u32;
            wave.v[dst + 1].0[lane] = (old >> 32) as u32;
        }
    }
    if let Some(dst) = dst {
        for lane in lanes(places.zero) {
            wave.v[dst].0[lane] = 0;
            wave.v[dst + 1].0[lane] = 0;
        }
    }
}

/// Denormals as global memory's atomics treat them: they keep them, whatever MODE says.
pub(super) const KEEP: Denormals = Denormals { flush_in: false, flush_out: false };

/// A value whose denormals are flushed to the zero of their sign if `flush` is set.
fn flushed(value: f32, flush: bool) -> f32 {
    if flush && value.is_subnormal() { 0f32.copysign(value) } else { value }
}

fn flushed64(value: f64, flush: bool) -> f64 {
    if flush && value.is_subnormal() { 0f64.copysign(value) } else { value }
}

const QUIET32: u32 = 0x0040_0000;
const QUIET64: u64 = 0x0008_0000_0000_0000;

/// The sum of two float32, rounded to nearest even. A NaN keeps its payload and becomes quiet; infinity minus infinity is
/// the positive quiet NaN.
pub(super) fn add_f32(a: u32, b: u32, denormals: Denormals) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if x.is_nan() {
        return a | QUIET32;
    }
    if y.is_nan() {
        return b | QUIET32;
    }
    let sum = flushed(x, denormals.flush_in) + flushed(y, denormals.flush_in);
    if sum.is_nan() { 0x7fc0_0000 } else { flushed(sum, denormals.flush_out).to_bits() }
}

/// As [`add_f32`], for float64.
pub(super) fn add_f64(a: u64, b: u64, denormals: Denormals) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    if x.is_nan() {
        return a | QUIET64;
    }
    if y.is_nan() {
        return b | QUIET64;
    }
    let sum = flushed64(x, denormals.flush_in) + flushed64(y, denormals.flush_in);
    if sum.is_nan() { 0x7ff8_0000_0000_0000 } else { flushed64(sum, denormals.flush_out).to_bits() }
}

/// A format of 16 bits, to add in.
trait Half {
    const QUIET: u16;
    const NAN: u16;
    fn widen(bits: u16) -> f32;
    fn narrow(value: f32) -> u16;
    fn is_subnormal(bits: u16) -> bool;
}

struct F16;
struct Bf16;

impl Half for F16 {
    const QUIET: u16 = 0x0200;
    const NAN: u16 = 0x7e00;

    fn widen(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }

    fn narrow(value: f32) -> u16 {
        half::f16::from_f32(value).to_bits()
    }

    fn is_subnormal(bits: u16) -> bool {
        bits & 0x7c00 == 0 && bits & 0x3ff != 0
    }
}

impl Half for Bf16 {
    const QUIET: u16 = 0x0040;
    const NAN: u16 = 0x7fc0;

    fn widen(bits: u16) -> f32 {
        half::bf16::from_bits(bits).to_f32()
    }

    fn narrow(value: f32) -> u16 {
        half::bf16::from_f32(value).to_bits()
    }

    fn is_subnormal(bits: u16) -> bool {
        bits & 0x7f80 == 0 && bits & 0x7f != 0
    }
}

/// The sum is exact enough in float32: its 24 bits are more than twice either format's and two, so that rounding twice
/// gives what rounding once would.
fn add_half<H: Half>(a: u16, b: u16, denormals: Denormals) -> u16 {
    let flush = |bits: u16, flush: bool| if flush && H::is_subnormal(bits) { bits & 0x8000 } else { bits };
    let (x, y) = (H::widen(flush(a, denormals.flush_in)), H::widen(flush(b, denormals.flush_in)));
    if x.is_nan() {
        return a | H::QUIET;
    }
    if y.is_nan() {
        return b | H::QUIET;
    }
    let sum = x + y;
    if sum.is_nan() { H::NAN } else { flush(H::narrow(sum), denormals.flush_out) }
}

fn add_pair<H: Half>(a: u32, b: u32, denormals: Denormals) -> u32 {
    let low = add_half::<H>(a as u16, b as u16, denormals);
    let high = add_half::<H>((a >> 16) as u16, (b >> 16) as u16, denormals);
    u32::from(high) << 16 | u32::from(low)
}

/// Two sums of float16.
pub(super) fn pk_add_f16(a: u32, b: u32, denormals: Denormals) -> u32 {
    add_pair::<F16>(a, b, denormals)
}

/// Two sums of bfloat16.
pub(super) fn pk_add_bf16(a: u32, b: u32, denormals: Denormals) -> u32 {
    add_pair::<Bf16>(a, b, denormals)
}

/// The smaller float; the old one if either is NaN or both are equal.
pub(super) fn min_f32(old: u32, new: u32) -> u32 {
    if f32::from_bits(new) < f32::from_bits(old) { new } else { old }
}

pub(super) fn max_f32(old: u32, new: u32) -> u32 {
    if f32::from_bits(new) > f32::from_bits(old) { new } else { old }
}

pub(super) fn min_f64(old: u64, new: u64) -> u64 {
    if f64::from_bits(new) < f64::from_bits(old) { new } else { old }
}

pub(super) fn max_f64(old: u64, new: u64) -> u64 {
    if f64::from_bits(new) > f64::from_bits(old) { new } else { old }
}

/// Defines the integer operations for one width.
macro_rules! integers {
    ($module:ident, $u:ty, $i:ty) => {
        /// The integer operations: the new value from the old one and the data.
        pub(super) mod $module {
            pub fn swap(_old: $u, data: $u) -> $u {
                data
            }

            pub fn add(old: $u, data: $u) -> $u {
                old.wrapping_add(data)
            }

            pub fn sub(old: $u, data: $u) -> $u {
                old.wrapping_sub(data)
            }

            pub fn rsub(old: $u, data: $u) -> $u {
                data.wrapping_sub(old)
            }

            pub fn smin(old: $u, data: $u) -> $u {
                (old as $i).min(data as $i) as $u
            }

            pub fn umin(old: $u, data: $u) -> $u {
                old.min(data)
            }

            pub fn smax(old: $u, data: $u) -> $u {
                (old as $i).max(data as $i) as $u
            }

            pub fn umax(old: $u, data: $u) -> $u {
                old.max(data)
            }

            pub fn and(old: $u, data: $u) -> $u {
                old & data
            }

            pub fn or(old: $u, data: $u) -> $u {
                old | data
            }

            pub fn xor(old: $u, data: $u) -> $u {
                old ^ data
            }

            /// Counts up to `data`, then from 0 again.
            pub fn inc(old: $u, data: $u) -> $u {
                if old >= data { 0 } else { old + 1 }
            }

            /// Counts down to 0, then from `data` again; also from `data` if it was above.
            pub fn dec(old: $u, data: $u) -> $u {
                if old == 0 || old > data { data } else { old - 1 }
            }
        }
    };
}

integers!(int32, u32, i32);
integers!(int64, u64, i64);

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

/// Defines the atomics of one way to address memory, in the order of their opcodes; `$find` finds the places. Those that
/// compare have the new value in their first data registers and what it is compared with in the next.
macro_rules! atomics {
    (
        $find:ident;
        $swap:ident $add:ident $sub:ident $smin:ident $umin:ident $smax:ident $umax:ident $and:ident
        $or:ident $xor:ident $inc:ident $dec:ident $cmpswap:ident $add_f32:ident $pk_add_f16:ident
        $pk_add_bf16:ident $swap_x2:ident $add_x2:ident $sub_x2:ident $smin_x2:ident $umin_x2:ident
        $smax_x2:ident $umax_x2:ident $and_x2:ident $or_x2:ident $xor_x2:ident $inc_x2:ident
        $dec_x2:ident $cmpswap_x2:ident $add_f64:ident $min_f64:ident $max_f64:ident
    ) => {
        atomics! { @each $find;
            $swap: atomic32 4, |old, a, _b| int32::swap(old, a);
            $add: atomic32 4, |old, a, _b| int32::add(old, a);
            $sub: atomic32 4, |old, a, _b| int32::sub(old, a);
            $smin: atomic32 4, |old, a, _b| int32::smin(old, a);
            $umin: atomic32 4, |old, a, _b| int32::umin(old, a);
            $smax: atomic32 4, |old, a, _b| int32::smax(old, a);
            $umax: atomic32 4, |old, a, _b| int32::umax(old, a);
            $and: atomic32 4, |old, a, _b| int32::and(old, a);
            $or: atomic32 4, |old, a, _b| int32::or(old, a);
            $xor: atomic32 4, |old, a, _b| int32::xor(old, a);
            $inc: atomic32 4, |old, a, _b| int32::inc(old, a);
            $dec: atomic32 4, |old, a, _b| int32::dec(old, a);
            $cmpswap: compare32 4, |old, a, b| if old == b { a } else { old };
            $add_f32: atomic32 4, |old, a, _b| add_f32(old, a, KEEP);
            $pk_add_f16: atomic32 4, |old, a, _b| pk_add_f16(old, a, KEEP);
            $pk_add_bf16: atomic32 4, |old, a, _b| pk_add_bf16(old, a, KEEP);
            $swap_x2: atomic64 8, |old, a, _b| int64::swap(old, a);
            $add_x2: atomic64 8, |old, a, _b| int64::add(old, a);
            $sub_x2: atomic64 8, |old, a, _b| int64::sub(old, a);
            $smin_x2: atomic64 8, |old, a, _b| int64::smin(old, a);
            $umin_x2: atomic64 8, |old, a, _b| int64::umin(old, a);
            $smax_x2: atomic64 8, |old, a, _b| int64::smax(old, a);
            $umax_x2: atomic64 8, |old, a, _b| int64::umax(old, a);
            $and_x2: atomic64 8, |old, a, _b| int64::and(old, a);
            $or_x2: atomic64 8, |old, a, _b| int64::or(old, a);
            $xor_x2: atomic64 8, |old, a, _b| int64::xor(old, a);
            $inc_x2: atomic64 8, |old, a, _b| int64::inc(old, a);
            $dec_x2: atomic64 8, |old, a, _b| int64::dec(old, a);
            $cmpswap_x2: compare64 8, |old, a, b| if old == b { a } else { old };
            $add_f64: atomic64 8, |old, a, _b| add_f64(old, a, KEEP);
            $min_f64: atomic64 8, |old, a, _b| min_f64(old, a);
            $max_f64: atomic64 8, |old, a, _b| max_f64(old, a);
        }
    };
    (@each $find:ident; $($name:ident: $kind:ident $bytes:literal, |$old:ident, $a:ident, $b:ident| $value:expr;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            use super::atomic::*;
            let mut room = Room::uninit();
            let result = $find(wave, inst, &Request::atomic($bytes), &mut room).and_then(|places| {
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
pub(super) use atomics;
