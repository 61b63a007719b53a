//! Moves data between vector registers and checked addresses.

use super::places::{How, Places, lanes};
use super::places::{before_read, before_write};
use crate::emulator::wave::{LANES, Lanes, Wave};

/// A value at any address. One volatile access of it is one access of the processor.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Loose<T: Copy>(T);

/// Reads from an address of this process, aligned or not.
///
/// # Safety
///
/// The bytes must be readable. Another thread may write them meanwhile, as another workgroup may on a device: the value
/// is then one of both, and `T` has no invalid values.
#[inline(always)]
pub(super) unsafe fn get<T: Copy>(address: u64) -> T {
    let pointer = std::ptr::with_exposed_provenance::<Loose<T>>(address as usize);
    // SAFETY: readable by the caller's word, and `Loose` needs no alignment.
    unsafe { pointer.read_volatile() }.0
}

/// Writes to an address of this process, aligned or not.
///
/// # Safety
///
/// The bytes must be writable, and nothing in this process may rely on what they held.
#[inline(always)]
pub(super) unsafe fn put<T: Copy>(address: u64, value: T) {
    let pointer = std::ptr::with_exposed_provenance_mut::<Loose<T>>(address as usize);
    // SAFETY: writable by the caller's word, and `Loose` needs no alignment.
    unsafe { pointer.write_volatile(Loose(value)) }
}

/// Copies `N` dwords from an address of this process.
///
/// # Safety
///
/// As for [`get`], for 4 * `N` bytes.
#[inline(always)]
unsafe fn get_all<const N: usize>(address: u64) -> [u32; N] {
    let mut data = [0; N];
    let from = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: readable by the caller's word; `data` is no memory of a kernel.
    unsafe { std::ptr::copy_nonoverlapping(from, data.as_mut_ptr().cast(), 4 * N) };
    data
}

/// Copies `N` dwords to an address of this process.
///
/// # Safety
///
/// As for [`put`], for 4 * `N` bytes.
#[inline(always)]
unsafe fn put_all<const N: usize>(address: u64, data: [u32; N]) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: writable by the caller's word; `data` is no memory of a kernel.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr().cast(), to, 4 * N) };
}

/// Lanes that are moved together.
const TOGETHER: usize = 4;
/// All of them on.
const ALL: u64 = (1 << TOGETHER) - 1;

/// `N` registers from `first` on. Their number was checked by [`super::places::registers`].
fn group<'a, const N: usize>(wave: &'a mut Wave, first: usize) -> &'a mut [Lanes; N] {
    let registers = wave.v[first..first + N].as_mut_ptr().cast::<[Lanes; N]>();
    // SAFETY: the slice has `N` elements, and the borrow of the wave goes on.
    unsafe { &mut *registers }
}

/// Zeroes the lanes of `count` registers that are out of their buffer resource's range.
fn clear(wave: &mut Wave, first: usize, count: usize, zero: u64) {
    for register in &mut wave.v[first..first + count] {
        for lane in lanes(zero) {
            register.0[lane] = 0;
        }
    }
}

/// Whether the lanes of a mask are neighbours, as at the end of a row.
fn is_run(mask: u64) -> bool {
    mask != 0 && (mask >> mask.trailing_zeros()).trailing_ones() == mask.count_ones()
}

/// Loads `N` dwords for each lane of a mask. Neighbours that are all on are transposed together.
///
/// # Safety
///
/// As for [`get`], for 4 * `N` bytes at each of those lanes' addresses.
#[inline(always)]
unsafe fn load_lanes<const N: usize>(registers: &mut [Lanes; N], mask: u64, at: impl Fn(usize) -> u64) {
    for start in (0..LANES).step_by(TOGETHER) {
        let on = mask >> start & ALL;
        if on == ALL {
            let data: [[u32; N]; TOGETHER] = std::array::from_fn(|lane| {
                // SAFETY: the caller's word.
                unsafe { get_all::<N>(at(start + lane)) }
            });
            for (part, register) in registers.iter_mut().enumerate() {
                for (lane, data) in data.iter().enumerate() {
                    register.0[start + lane] = data[part];
                }
            }
            continue;
        }
        for lane in lanes(on) {
            // SAFETY: the caller's word.
            let data = unsafe { get_all::<N>(at(start + lane)) };
            for (register, dword) in registers.iter_mut().zip(data) {
                register.0[start + lane] = dword;
            }
        }
    }
}

/// Stores `N` dwords for each lane of a mask, the lowest lane first. Neighbours that are all on are transposed together.
///
/// # Safety
///
/// As for [`put`], for 4 * `N` bytes at each of those lanes' addresses.
#[inline(always)]
unsafe fn store_lanes<const N: usize>(registers: &[Lanes; N], mask: u64, at: impl Fn(usize) -> u64) {
    for start in (0..LANES).step_by(TOGETHER) {
        let on = mask >> start & ALL;
        if on == ALL {
            let data: [[u32; N]; TOGETHER] =
                std::array::from_fn(|lane| std::array::from_fn(|part| registers[part].0[start + lane]));
            for (lane, data) in data.into_iter().enumerate() {
                // SAFETY: the caller's word.
                unsafe { put_all::<N>(at(start + lane), data) };
            }
            continue;
        }
        for lane in lanes(on) {
            let data = std::array::from_fn(|part| registers[part].0[start + lane]);
            // SAFETY: the caller's word.
            unsafe { put_all::<N>(at(start + lane), data) };
        }
    }
}

/// Loads the same dword for each lane of a mask.
fn spread(register: &mut Lanes, mask: u64, dword: u32) {
    if mask == u64::MAX {
        *register = Lanes::splat(dword);
    } else {
        lanes(mask).for_each(|lane| register.0[lane] = dword);
    }
}

/// Loads `N` dwords a lane into registers from `dst` on.
pub(super) fn load<const N: usize>(wave: &mut Wave, dst: usize, places: &Places) {
    before_read(wave, places, 4 * N as u32);
    let (mask, registers) = (places.lanes, group::<N>(wave, dst));
    match places.how {
        How::Row { first, stride: 4 } if N == 1 && mask == u64::MAX => {
            // SAFETY: `places` was made for a read of 4 * N bytes, here at 64 addresses that follow each other.
            registers[0].0 = unsafe { get_all::<LANES>(first) };
        }
        How::Row { first, stride: 4 } if N == 1 && is_run(mask) => {
            let (low, count) = (mask.trailing_zeros() as usize, mask.count_ones() as usize);
            let from = std::ptr::with_exposed_provenance::<u8>(first.wrapping_add(4 * low as u64) as usize);
            let to = registers[0].0[low..low + count].as_mut_ptr();
            // SAFETY: as above, at the addresses of `count` lanes that follow each other.
            unsafe { std::ptr::copy_nonoverlapping(from, to.cast(), 4 * count) };
        }
        How::Row { first, stride: 0 } if mask != 0 => {
            // SAFETY: as above; it is the address of all lanes.
            let data = unsafe { get_all::<N>(first) };
            registers.iter_mut().zip(data).for_each(|(register, dword)| spread(register, mask, dword));
        }
        How::Row { first, stride } => {
            // SAFETY: as above.
            unsafe { load_lanes(registers, mask, |lane| first.wrapping_add(lane as u64 * stride)) };
        }
        How::Each { each, plus } => {
            // SAFETY: as above.
            unsafe { load_lanes(registers, mask, |lane| each[lane].wrapping_add(plus)) };
        }
    }
    clear(wave, dst, N, places.zero);
}

/// Stores `N` dwords a lane from registers from `src` on. Where two lanes have one address, the higher lane's data stays.
pub(super) fn store<const N: usize>(wave: &mut Wave, src: usize, places: &Places) {
    before_write(wave, places, 4 * N as u32);
    let (mask, registers) = (places.lanes, &*group::<N>(wave, src));
    match places.how {
        How::Row { first, stride: 4 } if N == 1 && mask == u64::MAX => {
            // SAFETY: `places` was made for a write of 4 * N bytes, here at 64 addresses that follow each other.
            unsafe { put_all::<LANES>(first, registers[0].0) };
        }
        How::Row { first, stride: 4 } if N == 1 && is_run(mask) => {
            let (low, count) = (mask.trailing_zeros() as usize, mask.count_ones() as usize);
            let to = std::ptr::with_exposed_provenance_mut::<u8>(first.wrapping_add(4 * low as u64) as usize);
            let from = registers[0].0[low..low + count].as_ptr();
            // SAFETY: as above, at the addresses of `count` lanes that follow each other.
            unsafe { std::ptr::copy_nonoverlapping(from.cast(), to, 4 * count) };
        }
        How::Row { first, stride } => {
            // SAFETY: as above.
            unsafe { store_lanes(registers, mask, |lane| first.wrapping_add(lane as u64 * stride)) };
        }
        How::Each { each, plus } => {
            // SAFETY: as above.
            unsafe { store_lanes(registers, mask, |lane| each[lane].wrapping_add(plus)) };
        }
    }
}

/// Copies `N` dwords for each lane of a mask, the lowest lane first, between memory of a kernel that does not overlap.
///
/// # Safety
///
/// As for [`get`] at `from` and for [`put`] at `to`, for 4 * `N` bytes at each of those lanes' addresses.
#[inline(always)]
unsafe fn copy_lanes<const N: usize>(mask: u64, from: impl Fn(usize) -> u64, to: impl Fn(usize) -> u64) {
    for lane in lanes(mask) {
        // SAFETY: the caller's word.
        unsafe { put_all::<N>(to(lane), get_all::<N>(from(lane))) };
    }
}

/// Copies `N` dwords for each lane that `from` has, and zeros for those that are out of its resource's range.
///
/// # Safety
///
/// `from` must be made for a read and `to` for a write of 4 * `N` bytes, and the two must not overlap.
pub(super) unsafe fn copy<const N: usize>(from: &Places, to: &Places) {
    // SAFETY: the caller's word.
    unsafe {
        match from.how {
            How::Row { first, stride } => {
                let from_at = |lane: usize| first.wrapping_add(lane as u64 * stride);
                copy_lanes::<N>(from.lanes, from_at, |lane| to.at(lane));
            }
            How::Each { each, plus } => {
                let from_at = |lane: usize| each[lane].wrapping_add(plus);
                copy_lanes::<N>(from.lanes, from_at, |lane| to.at(lane));
            }
        }
    }
    for lane in lanes(from.zero) {
        // SAFETY: the caller's word.
        unsafe { put_all::<N>(to.at(lane), [0; N]) };
    }
}

/// What less than a dword is and becomes in a register. The second argument of [`Part::merge`] is what the register held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    U8,
    I8,
    U16,
    I16,
    /// The lower or upper half of the register; the other half stays.
    U8Low,
    U8High,
    I8Low,
    I8High,
    U16Low,
    U16High,
}

impl Part {
    pub const fn bytes(self) -> u32 {
        match self {
            Part::U8 | Part::I8 | Part::U8Low | Part::U8High | Part::I8Low | Part::I8High => 1,
            Part::U16 | Part::I16 | Part::U16Low | Part::U16High => 2,
        }
    }

    /// The register after the memory's bits (the upper ones zero) were loaded into it.
    #[inline(always)]
    pub fn merge(self, bits: u32, old: u32) -> u32 {
        let low = |half: u32| old & 0xffff_0000 | half & 0xffff;
        let high = |half: u32| old & 0xffff | half << 16;
        let sign8 = i32::from(bits as i8) as u32;
        match self {
            Part::U8 | Part::U16 => bits,
            Part::I8 => sign8,
            Part::I16 => i32::from(bits as i16) as u32,
            Part::U8Low | Part::U16Low => low(bits),
            Part::U8High | Part::U16High => high(bits),
            Part::I8Low => low(sign8),
            Part::I8High => high(sign8),
        }
    }

    /// # Safety
    ///
    /// [`Part::bytes`] bytes must be readable, as for [`get`].
    #[inline(always)]
    pub unsafe fn get(self, address: u64) -> u32 {
        // SAFETY: the caller's word.
        unsafe {
            match self.bytes() {
                1 => u32::from(get::<u8>(address)),
                _ => u32::from(get::<u16>(address)),
            }
        }
    }
}

/// Loads a byte or a half into a register.
#[inline(always)]
pub(super) fn load_part(wave: &mut Wave, dst: usize, part: Part, places: &Places) {
    before_read(wave, places, part.bytes());
    let register = &mut wave.v[dst].0;
    let mut load = |lane: usize, address: u64| {
        // SAFETY: `places` was made for a read of `part.bytes()` bytes.
        let bits = unsafe { part.get(address) };
        register[lane] = part.merge(bits, register[lane]);
    };
    match places.how {
        How::Row { first, stride } if places.lanes == u64::MAX => {
            (0..LANES).for_each(|lane| load(lane, first.wrapping_add(lane as u64 * stride)));
        }
        How::Each { each, plus } if places.lanes == u64::MAX => {
            each.iter().enumerate().for_each(|(lane, address)| load(lane, address.wrapping_add(plus)));
        }
        _ => lanes(places.lanes).for_each(|lane| load(lane, places.at(lane))),
    }
    for lane in lanes(places.zero) {
        register[lane] = part.merge(0, register[lane]);
    }
}

/// Stores `bytes` (1 or 2) bytes of a register from bit `shift` on.
#[inline(always)]
pub(super) fn store_part(wave: &mut Wave, src: usize, bytes: u32, shift: u32, places: &Places) {
    before_write(wave, places, bytes);
    let register = &wave.v[src].0;
    let store = |lane: usize, address: u64| {
        let bits = register[lane] >> shift;
        // SAFETY: `places` was made for a write of `bytes` bytes.
        unsafe {
            match bytes {
                1 => put(address, bits as u8),
                _ => put(address, bits as u16),
            }
        }
    };
    match places.how {
        How::Row { first, stride } if places.lanes == u64::MAX => {
            (0..LANES).for_each(|lane| store(lane, first.wrapping_add(lane as u64 * stride)));
        }
        How::Each { each, plus } if places.lanes == u64::MAX => {
            each.iter().enumerate().for_each(|(lane, address)| store(lane, address.wrapping_add(plus)));
        }
        _ => lanes(places.lanes).for_each(|lane| store(lane, places.at(lane))),
    }
}
