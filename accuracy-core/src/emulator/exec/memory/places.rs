//! Where each lane's bytes are: from the operands of an instruction to addresses of this process.

use crate::emulator::isa::{Inst, Operand};
use crate::emulator::memory::{PRIVATE_APERTURE, Region, SHARED_APERTURE, Watch};
use crate::emulator::scrutiny::{Does, Place};
use crate::emulator::wave::{Access, Fault, LANES, Lanes, Wave};
use crate::simd::{Isa, multiversion};
use std::mem::MaybeUninit;

/// What an instruction wants to do at its addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Bytes for each lane.
    pub bytes: u32,
    pub does: Access,
    /// The address has to be a multiple of this: a power of two.
    pub align: u32,
}

impl Request {
    pub fn read(bytes: u32) -> Request {
        Request { bytes, does: Access::Read, align: 1 }
    }

    pub fn write(bytes: u32) -> Request {
        Request { bytes, does: Access::Write, align: 1 }
    }

    /// Atomics have to be aligned.
    pub fn atomic(bytes: u32) -> Request {
        Request { bytes, does: Access::Atomic, align: bytes }
    }

    fn writes(&self) -> bool {
        self.does != Access::Read
    }
}

/// Room for one address of each lane. Whoever executes an instruction has it on the stack, so that no access allocates.
pub(super) type Room = MaybeUninit<[u64; LANES]>;

/// Addresses of this process, checked: whoever holds them may access the bytes that were requested.
pub(super) enum How<'r> {
    /// Lane `i` is at `first + i * stride`. Lanes that are off do not count: `first` may be no address at all.
    Row { first: u64, stride: u64 },
    /// One address for each lane, and how many bytes further the lanes' bytes are. What lanes that are off have is no address.
    Each { each: &'r [u64; LANES], plus: u64 },
}

/// One address for each lane that accesses memory.
pub(super) struct Places<'r> {
    pub how: How<'r>,
    /// The lanes that access memory.
    pub lanes: u64,
    /// The lanes that are on, yet out of the range of their buffer resource: they load zero and store nothing.
    pub zero: u64,
    /// The lanes whose memory belongs to this workgroup alone: LDS or scratch.
    pub local: u64,
}

impl Places<'_> {
    #[inline(always)]
    pub fn at(&self, lane: usize) -> u64 {
        match &self.how {
            How::Row { first, stride } => first.wrapping_add(lane as u64 * stride),
            How::Each { each, plus } => each[lane].wrapping_add(*plus),
        }
    }
}

/// The numbers of the lanes in a mask, lowest first.
pub(super) fn lanes(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}

/// The first of `count` vector registers of an operand.
#[inline]
pub(super) fn registers(inst: &Inst, operand: Operand, count: usize) -> Result<usize, Fault> {
    match operand {
        Operand::Vector(first) if usize::from(first) % 256 + count <= 256 => Ok(usize::from(first)),
        _ => Err(no_registers(inst, operand, count)),
    }
}

#[cold]
fn no_registers(inst: &Inst, operand: Operand, count: usize) -> Fault {
    let mnemonic = inst.row.mnemonic;
    Fault::Illegal(match operand {
        Operand::Vector(first) => {
            let last = if first < 256 { 255 } else { 511 };
            format!("{mnemonic}: {count} registers from {first} on pass {last}")
        }
        _ => format!("{mnemonic} needs a vector register, not {operand:?}"),
    })
}

/// A register whose active lanes hold an arithmetic progression.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// What lane 0 would hold.
    pub first: u64,
    pub stride: u64,
    /// What the lowest and the highest active lane hold.
    pub least: u64,
    pub most: u64,
}

/// The progression that a register's active lanes hold, if they do. `exec` must not be zero.
pub(super) fn row(wave: &mut Wave, register: usize, exec: u64) -> Option<Row> {
    let values = &wave.v[register].0;
    let low = exec.trailing_zeros();
    let high = 63 - exec.leading_zeros();
    let least = values[low as usize];
    let rest = exec & (exec - 1);
    let stride = if rest == 0 {
        0
    } else {
        let next = rest.trailing_zeros();
        let distance = values[next as usize].checked_sub(least)?;
        let gap = next - low;
        if distance % gap != 0 {
            return None;
        }
        distance / gap
    };
    // Of most registers that hold no progression, the last lane tells so.
    let most = u64::from(least) + u64::from(high - low) * u64::from(stride);
    if most != u64::from(values[high as usize]) || !is_progression(wave, register, low, stride) {
        return None;
    }
    let first = u64::from(least).wrapping_sub(u64::from(low) * u64::from(stride));
    Some(Row { first, stride: u64::from(stride), least: u64::from(least), most })
}

/// Whether the active lanes of a register differ by `stride` from one to the next. `low` is the first of them.
fn is_progression(wave: &mut Wave, register: usize, low: u32, stride: u32) -> bool {
    let (mask, values) = wave.masked(register);
    let first = values.0[low as usize].wrapping_sub(low.wrapping_mul(stride));
    multiversion!(Isa::best(), progresses, [], (values: &Lanes, mask: &Lanes, first: u32, stride: u32) -> bool)
}

#[inline(always)]
fn progresses(values: &Lanes, mask: &Lanes, first: u32, stride: u32) -> bool {
    let mut differ = 0;
    for (lane, (value, mask)) in (0..).zip(values.0.iter().zip(&mask.0)) {
        differ |= (value ^ first.wrapping_add(stride.wrapping_mul(lane))) & mask;
    }
    differ == 0
}

/// Whether all active lanes of a register hold the same, and what.
fn uniform(wave: &mut Wave, register: usize, exec: u64) -> Option<u32> {
    let low = exec.trailing_zeros();
    let value = wave.v[register].0[low as usize];
    is_progression(wave, register, low, 0).then_some(value)
}

/// What the active lanes of a register hold, taken together.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub least: u32,
    pub most: u32,
    /// The bits that any of them has.
    bits: u32,
}

#[inline(always)]
fn extent_loop(values: &Lanes, mask: &Lanes) -> Extent {
    let (mut least, mut most, mut bits) = (u32::MAX, 0, 0);
    for (value, mask) in values.0.iter().zip(&mask.0) {
        least = least.min(value | !mask);
        most = most.max(value & mask);
        bits |= value & mask;
    }
    Extent { least, most, bits }
}

/// The extent of what the active lanes of a register hold.
pub(super) fn extent(wave: &mut Wave, register: usize) -> Extent {
    let (mask, values) = wave.masked(register);
    multiversion!(Isa::best(), extent_loop, [], (values: &Lanes, mask: &Lanes) -> Extent)
}

#[cold]
fn misaligned(lane: usize, address: u64, request: &Request) -> Fault {
    Fault::Misaligned { lane: lane as u8, address, needed: request.align }
}

fn is_aligned(address: u64, request: &Request) -> bool {
    address & u64::from(request.align - 1) == 0
}

/// Checks one lane's address of global memory.
fn check_global(wave: &mut Wave, lane: usize, address: u64, request: &Request) -> Result<(), Fault> {
    if !is_aligned(address, request) {
        return Err(misaligned(lane, address, request));
    }
    let bytes = u64::from(request.bytes);
    if wave.region.holds(address, bytes) && (wave.region.writable || !request.writes()) {
        return Ok(());
    }
    match wave.group.space.find_all(address, bytes, request.writes()) {
        Some(region) => {
            wave.region = region;
            Ok(())
        }
        None => {
            let place = wave.group.space.place(address, bytes);
            let (lane, does, bytes) = (lane as u8, request.does, request.bytes);
            Err(Fault::Memory { lane, does, bytes, address, place })
        }
    }
}

/// Whether everything between the least and the most address is in one region.
fn in_one_region(wave: &mut Wave, least: u64, most: u64, request: &Request) -> bool {
    let bytes = (most - least).saturating_add(u64::from(request.bytes));
    if wave.region.holds(least, bytes) && (wave.region.writable || !request.writes()) {
        return true;
    }
    match wave.group.space.find_all(least, bytes, request.writes()) {
        Some(region) => {
            wave.region = region;
            true
        }
        None => false,
    }
}

/// Global memory at `base` plus a progression, if all of it is in one region.
pub(super) fn global_row(
    wave: &mut Wave,
    base: u64,
    row: Row,
    exec: u64,
    request: &Request,
) -> Option<Places<'static>> {
    let start = base.wrapping_add(row.least);
    let end = start.checked_add(row.most - row.least)?;
    let fits = is_aligned(start | row.stride, request) && in_one_region(wave, start, end, request);
    let how = How::Row { first: base.wrapping_add(row.first), stride: row.stride };
    fits.then_some(Places { how, lanes: exec, zero: 0, local: 0 })
}

/// Whether all of the lanes in `exec` have their bytes in a region, at aligned addresses.
fn all_inside(region: Region, each: &[u64; LANES], exec: u64, request: &Request) -> bool {
    let (size, bytes) = (region.end - region.start, u64::from(request.bytes));
    let Some(limit) = size.checked_sub(bytes) else { return false };
    if request.writes() && !region.writable {
        return false;
    }
    let low = u64::from(request.align - 1);
    let mut bad = 0;
    for (lane, address) in each.iter().enumerate() {
        let outside = address.wrapping_sub(region.start) > limit || address & low != 0;
        bad |= u64::from(outside) << lane;
    }
    bad & exec == 0
}

/// Checks one address of global memory for each lane. What lanes that are off have does not matter.
pub(super) fn global_each<'r>(
    wave: &mut Wave,
    exec: u64,
    request: &Request,
    each: &'r [u64; LANES],
) -> Result<Places<'r>, Fault> {
    if exec != 0 && !all_inside(wave.region, each, exec, request) {
        let first = each[exec.trailing_zeros() as usize];
        match wave.group.space.find(first) {
            Some(region) if all_inside(region, each, exec, request) => wave.region = region,
            // Several regions, or a fault.
            _ => {
                for lane in lanes(exec) {
                    check_global(wave, lane, each[lane], request)?;
                }
            }
        }
    }
    Ok(Places { how: How::Each { each, plus: 0 }, lanes: exec, zero: 0, local: 0 })
}

#[inline(always)]
fn sum_loop(values: &Lanes, base: u64, offset: u32, each: &mut [u64; LANES]) {
    for (sum, value) in each.iter_mut().zip(&values.0) {
        *sum = base.wrapping_add(u64::from(value.wrapping_add(offset)));
    }
}

/// `base` plus what each lane of a register holds and an offset; what is added to `base` has 32 bits.
fn sums<'r>(wave: &Wave, base: u64, register: usize, offset: u32, room: &'r mut Room) -> &'r [u64; LANES] {
    let values = &wave.v[register];
    let each = room.write([0; LANES]);
    multiversion!(
        Isa::best(), sum_loop, [], (values: &Lanes, base: u64, offset: u32, each: &mut [u64; LANES]) -> ()
    );
    each
}

/// The 64-bit addresses in a pair of registers, plus an offset.
fn sums64(wave: &Wave, register: usize, offset: i64) -> [u64; LANES] {
    let (low, high) = (&wave.v[register].0, &wave.v[register + 1].0);
    std::array::from_fn(|lane| {
        (u64::from(high[lane]) << 32 | u64::from(low[lane])).wrapping_add_signed(offset)
    })
}

/// Global memory at `base` plus what a register holds, of the lanes in `exec`, which are some of those that are on.
pub(super) fn global_offsets<'r>(
    wave: &mut Wave,
    base: u64,
    register: usize,
    exec: u64,
    request: &Request,
    room: &'r mut Room,
) -> Result<Places<'r>, Fault> {
    if exec == 0 {
        return Ok(Places { how: How::Row { first: base, stride: 0 }, lanes: 0, zero: 0, local: 0 });
    }
    if let Some(row) = row(wave, register, exec)
        && let Some(places) = global_row(wave, base, row, exec, request)
    {
        return Ok(places);
    }
    let Extent { least, most, bits } = extent(wave, register);
    let start = base.wrapping_add(u64::from(least));
    let end = start.checked_add(u64::from(most - least));
    let aligned = is_aligned(base | u64::from(bits), request);
    let fits = aligned && end.is_some_and(|end| in_one_region(wave, start, end, request));
    let each = sums(wave, base, register, 0, room);
    if fits {
        return Ok(Places { how: How::Each { each, plus: 0 }, lanes: exec, zero: 0, local: 0 });
    }
    global_each(wave, exec, request, each)
}

/// GLOBAL: a 64-bit address, or a 32-bit offset from a scalar base. `None` if no lane is on.
pub(super) fn global<'r>(
    wave: &mut Wave,
    inst: &Inst,
    request: &Request,
    room: &'r mut Room,
) -> Result<Option<Places<'r>>, Fault> {
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let offset = i64::from(inst.imm);
    match inst.src[3] {
        Operand::Scalar(base) => {
            let base = wave.s64(base).wrapping_add_signed(offset);
            let register = registers(inst, inst.src[0], 1)?;
            global_offsets(wave, base, register, exec, request, room).map(Some)
        }
        Operand::None => {
            let register = registers(inst, inst.src[0], 2)?;
            if let Some(high) = uniform(wave, register + 1, exec) {
                let base = (u64::from(high) << 32).wrapping_add_signed(offset);
                return global_offsets(wave, base, register, exec, request, room).map(Some);
            }
            let each = room.write(sums64(wave, register, offset));
            global_each(wave, exec, request, each).map(Some)
        }
        other => {
            let mnemonic = inst.row.mnemonic;
            Err(Fault::Illegal(format!("{mnemonic} cannot have {other:?} as its scalar base")))
        }
    }
}

/// The address of this process for one lane's offset in LDS.
fn lds_lane(wave: &Wave, lane: usize, offset: u64, request: &Request) -> Result<u64, Fault> {
    let len = wave.group.lds_len() as u64;
    if offset + u64::from(request.bytes) > len {
        let place = format!("and the workgroup's LDS has {len} bytes");
        let (lane, does, bytes) = (lane as u8, request.does, request.bytes);
        return Err(Fault::Memory { lane, does, bytes, address: offset, place });
    }
    if !is_aligned(offset, request) {
        return Err(misaligned(lane, offset, request));
    }
    Ok(wave.group.lds_start() as u64 + offset)
}

/// LDS at what a register holds plus each of some offsets; a sum has 32 bits. `exec` must not be zero.
pub(super) fn lds_offsets<'r, const N: usize>(
    wave: &mut Wave,
    register: usize,
    offsets: [u32; N],
    exec: u64,
    request: &Request,
    rooms: &'r mut [Room; N],
) -> Result<[Places<'r>; N], Fault> {
    let (start, len) = (wave.group.lds_start() as u64, wave.group.lds_len() as u64);
    let furthest = u64::from(offsets.into_iter().fold(0, u32::max));
    let bits = u64::from(offsets.into_iter().fold(0, |bits, offset| bits | offset));
    let fits = |most: u64, all: u64| {
        most + furthest + u64::from(request.bytes) <= len && is_aligned(bits | all, request)
    };
    if let Some(row) = row(wave, register, exec).filter(|row| fits(row.most, row.least | row.stride)) {
        return Ok(offsets.map(|offset| {
            let first = start.wrapping_add(u64::from(offset)).wrapping_add(row.first);
            let how = How::Row { first, stride: row.stride };
            Places { how, lanes: exec, zero: 0, local: exec }
        }));
    }
    let extent = extent(wave, register);
    if fits(u64::from(extent.most), u64::from(extent.bits)) {
        let each = sums(wave, start, register, 0, &mut rooms[0]);
        return Ok(offsets.map(|offset| {
            let how = How::Each { each, plus: u64::from(offset) };
            Places { how, lanes: exec, zero: 0, local: exec }
        }));
    }
    // A sum passes 32 bits, which is no fault by itself, or one of them does not fit, and says so.
    for offset in offsets {
        for lane in lanes(exec) {
            let address = wave.v[register].0[lane].wrapping_add(offset);
            lds_lane(wave, lane, u64::from(address), request)?;
        }
    }
    let mut rooms = rooms.iter_mut();
    Ok(offsets.map(|offset| {
        let room = rooms.next().unwrap_or_else(|| unreachable!("there is a room for each offset"));
        let each = sums(wave, start, register, offset, room);
        Places { how: How::Each { each, plus: 0 }, lanes: exec, zero: 0, local: exec }
    }))
}

/// LDS at `start` plus the lane's number times `stride`. `exec` must not be zero.
pub(super) fn lds_by_lane(
    wave: &Wave,
    start: u32,
    stride: u32,
    exec: u64,
    request: &Request,
) -> Result<Places<'static>, Fault> {
    for lane in [exec.trailing_zeros() as usize, 63 - exec.leading_zeros() as usize] {
        lds_lane(wave, lane, u64::from(start) + lane as u64 * u64::from(stride), request)?;
    }
    let first = wave.group.lds_start() as u64 + u64::from(start);
    Ok(Places { how: How::Row { first, stride: u64::from(stride) }, lanes: exec, zero: 0, local: exec })
}

/// Bytes of scratch that each lane has.
fn scratch_len(wave: &Wave) -> u64 {
    let size = wave.scratch_size as usize;
    if wave.scratch.len() >= size * LANES { size as u64 } else { 0 }
}

/// The address of this process for one lane's offset in its scratch.
fn scratch_lane(wave: &mut Wave, lane: usize, offset: u64, request: &Request) -> Result<u64, Fault> {
    let has = scratch_len(wave);
    if offset.checked_add(u64::from(request.bytes)).is_none_or(|end| end > has) {
        let place = format!("and the lane's scratch has {has} bytes");
        let (lane, does, bytes) = (lane as u8, request.does, request.bytes);
        return Err(Fault::Memory { lane, does, bytes, address: offset, place });
    }
    if !is_aligned(offset, request) {
        return Err(misaligned(lane, offset, request));
    }
    Ok(wave.scratch.as_mut_ptr() as u64 + lane as u64 * has + offset)
}

/// SCRATCH: a vector offset, a scalar offset, both or none, in the lane's own memory.
pub(super) fn scratch<'r>(
    wave: &mut Wave,
    inst: &Inst,
    request: &Request,
    room: &'r mut Room,
) -> Result<Option<Places<'r>>, Fault> {
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let scalar = match inst.src[3] {
        Operand::Scalar(register) => wave.s[usize::from(register & 127)],
        _ => 0,
    };
    let base = scalar.wrapping_add_signed(inst.imm);
    let register = match inst.src[0] {
        Operand::None => None,
        vector => Some(registers(inst, vector, 1)?),
    };
    let Some(register) = register else {
        // The same offset for every lane: the lanes' memories lie one behind the other.
        let lane = exec.trailing_zeros() as usize;
        let address = scratch_lane(wave, lane, u64::from(base), request)?;
        let stride = u64::from(wave.scratch_size);
        let how = How::Row { first: address - lane as u64 * stride, stride };
        return Ok(Some(Places { how, lanes: exec, zero: 0, local: exec }));
    };
    scratch_offsets(wave, register, base, exec, request, room).map(Some)
}

/// Scratch at what a register holds plus an offset; the sum has 32 bits.
fn scratch_offsets<'r>(
    wave: &mut Wave,
    register: usize,
    offset: u32,
    exec: u64,
    request: &Request,
    room: &'r mut Room,
) -> Result<Places<'r>, Fault> {
    let has = scratch_len(wave);
    let Extent { most, bits, .. } = extent(wave, register);
    let end = u64::from(most) + u64::from(offset) + u64::from(request.bytes);
    if end > has || !is_aligned(u64::from(bits | offset), request) {
        // A sum passes 32 bits, which is no fault by itself, or one of them does not fit, and says so.
        for lane in lanes(exec) {
            let offset = wave.v[register].0[lane].wrapping_add(offset);
            scratch_lane(wave, lane, u64::from(offset), request)?;
        }
    }
    let start = wave.scratch.as_mut_ptr() as u64;
    let each = room.write([0; LANES]);
    for (lane, (place, value)) in (0..).zip(each.iter_mut().zip(&wave.v[register].0)) {
        *place = start.wrapping_add(lane * has + u64::from(value.wrapping_add(offset)));
    }
    Ok(Places { how: How::Each { each, plus: 0 }, lanes: exec, zero: 0, local: exec })
}

/// Whether an instruction's offset may change the upper half of an active lane's address.
fn carries(wave: &mut Wave, register: usize, offset: i32) -> bool {
    offset < 0 || extent(wave, register).most.checked_add_signed(offset).is_none()
}

/// FLAT: a 64-bit address of global memory, or of LDS or scratch through their apertures.
pub(super) fn flat<'r>(
    wave: &mut Wave,
    inst: &Inst,
    request: &Request,
    room: &'r mut Room,
) -> Result<Option<Places<'r>>, Fault> {
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let register = registers(inst, inst.src[0], 2)?;
    let offset = i64::from(inst.imm);
    let is_aperture = |high: u32| [SHARED_APERTURE, PRIVATE_APERTURE].contains(&high);
    if let Some(high) = uniform(wave, register + 1, exec) {
        // The instruction's offset may carry into the upper half of an address.
        let is_near = (high.saturating_sub(1)..=high.saturating_add(1)).any(is_aperture);
        match high {
            _ if !is_near => {
                let base = (u64::from(high) << 32).wrapping_add_signed(offset);
                return global_offsets(wave, base, register, exec, request, room).map(Some);
            }
            SHARED_APERTURE if !carries(wave, register, inst.imm) => {
                let rooms = std::array::from_mut(room);
                let [places] = lds_offsets(wave, register, [inst.imm as u32], exec, request, rooms)?;
                return Ok(Some(places));
            }
            PRIVATE_APERTURE if !carries(wave, register, inst.imm) => {
                return scratch_offsets(wave, register, inst.imm as u32, exec, request, room).map(Some);
            }
            _ => {}
        }
    }
    let each = room.write(sums64(wave, register, offset));
    let apertures = lanes(exec).any(|lane| is_aperture((each[lane] >> 32) as u32));
    if !apertures {
        return global_each(wave, exec, request, each).map(Some);
    }
    let mut local = 0;
    for lane in lanes(exec) {
        let address = each[lane];
        let in_aperture = address & u64::from(u32::MAX);
        let (is_local, place) = match (address >> 32) as u32 {
            SHARED_APERTURE => (true, lds_lane(wave, lane, in_aperture, request)?),
            PRIVATE_APERTURE => (true, scratch_lane(wave, lane, in_aperture, request)?),
            _ => {
                check_global(wave, lane, address, request)?;
                (false, address)
            }
        };
        each[lane] = place;
        local |= u64::from(is_local) << lane;
    }
    Ok(Some(Places { how: How::Each { each, plus: 0 }, lanes: exec, zero: 0, local }))
}

/// Has to be called before a wave reads `bytes` bytes at each place.
#[inline(always)]
pub(super) fn before_read(wave: &mut Wave, places: &Places, bytes: u32) {
    if wave.scrutinised {
        scrutinise(wave, places, bytes, Does::Reads);
    }
}

/// Has to be called before a wave writes `bytes` bytes at each place.
#[inline(always)]
pub(super) fn before_write(wave: &mut Wave, places: &Places, bytes: u32) {
    before_store(wave, places, bytes, Does::Writes);
}

/// Has to be called before a wave changes `bytes` bytes at each place by an atomic.
#[inline(always)]
pub(super) fn before_change(wave: &mut Wave, places: &Places, bytes: u32) {
    before_store(wave, places, bytes, Does::Changes);
}

#[inline(always)]
fn before_store(wave: &mut Wave, places: &Places, bytes: u32, does: Does) {
    if let Some(watch) = &mut wave.watch {
        note_all(watch, places, bytes);
    }
    if wave.scrutinised {
        scrutinise(wave, places, bytes, does);
    }
}

#[cold]
fn note_all(watch: &mut Watch, places: &Places, bytes: u32) {
    lanes(places.lanes).for_each(|lane| watch.note(places.at(lane), bytes));
}

/// Notes what a wave does in memory that others may use, for a launch that is watched.
#[cold]
fn scrutinise(wave: &Wave, places: &Places, bytes: u32, does: Does) {
    wave.group.space.scrutinise(|scrutiny| {
        for lane in lanes(places.lanes) {
            match place_of(wave, places.at(lane)) {
                Some(place) => scrutiny.access(place, bytes, lane as u8, does),
                None => scrutiny.private(places.at(lane), bytes, lane as u8, does),
            }
        }
    });
}

/// Where an address of this process is to a kernel; `None` where it belongs to one lane alone.
fn place_of(wave: &Wave, address: u64) -> Option<Place> {
    let inside = |start: u64, bytes: u64| address.wrapping_sub(start) < bytes;
    let lds = wave.group.lds_start() as u64;
    if inside(lds, wave.group.lds_len() as u64) {
        return Some(Place::Lds((address - lds) as u32, address));
    }
    let scratch = wave.scratch.as_ptr().expose_provenance() as u64;
    (!inside(scratch, wave.scratch.len() as u64)).then_some(Place::Global(address))
}

/// As [`before_read`], [`before_write`] and [`before_change`], for one address of global memory that all lanes use.
pub(super) fn before_at(wave: &mut Wave, address: u64, bytes: u32, does: Does) {
    if let Some(watch) = wave.watch.as_mut().filter(|_| does != Does::Reads) {
        watch.note(address, bytes);
    }
    if wave.scrutinised {
        wave.group.space.scrutinise(|scrutiny| scrutiny.access(Place::Global(address), bytes, 0, does));
    }
}
