//! Where each lane's bytes are: from the operands of an instruction to addresses of this process.

use crate::emulator::isa::{Inst, Operand};
use crate::emulator::memory::{PRIVATE_APERTURE, Region, SHARED_APERTURE, Watch};
use crate::emulator::scrutiny::{Does, Place};
use crate::emulator::wave::{Access, Fault, LANES, Lanes, Wave};

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

/// Addresses of this process, checked: whoever holds them may access the bytes that were requested.
pub(super) enum How {
    /// Lane `i` is at `first + i * stride`. Lanes that are off do not count: `first` may be no address at all.
    Row { first: u64, stride: u64 },
    /// One address for each lane. What lanes that are off have is no address.
    Each(Box<[u64; LANES]>),
}

/// One address for each lane that accesses memory.
pub(super) struct Places {
    pub how: How,
    /// The lanes that access memory.
    pub lanes: u64,
    /// The lanes that are on, yet out of the range of their buffer resource: they load zero and store nothing.
    pub zero: u64,
    /// The lanes whose memory belongs to this workgroup alone: LDS or scratch.
    pub local: u64,
}

impl Places {
    pub fn at(&self, lane: usize) -> u64 {
        match &self.how {
            How::Row { first, stride } => first.wrapping_add(lane as u64 * stride),
            How::Each(each) => each[lane],
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
pub(super) fn registers(inst: &Inst, operand: Operand, count: usize) -> Result<usize, Fault> {
    let Operand::Vector(first) = operand else {
        return Err(Fault::Illegal(format!(
            "{} needs a vector register, not {operand:?}",
            inst.row.mnemonic
        )));
    };
    let first = usize::from(first);
    let end = if first < 256 { 256 } else { 512 };
    if first + count > end {
        let mnemonic = inst.row.mnemonic;
        return Err(Fault::Illegal(format!(
            "{mnemonic}: {count} registers from {first} on pass {}",
            end - 1
        )));
    }
    Ok(first)
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
    let (mask, Lanes(values)) = wave.masked(register);
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
    let mut differ = 0;
    if exec == u64::MAX {
        // Neighbours' differences: simple enough for the compiler to take many at once.
        for (next, value) in values[1..].iter().zip(values) {
            differ |= next.wrapping_sub(*value) ^ stride;
        }
    } else {
        let mut expected = least.wrapping_sub(low.wrapping_mul(stride));
        for (value, mask) in values.iter().zip(&mask.0) {
            differ |= (value ^ expected) & mask;
            expected = expected.wrapping_add(stride);
        }
    }
    let most = u64::from(least) + u64::from(high - low) * u64::from(stride);
    if differ != 0 || most > u64::from(u32::MAX) {
        return None;
    }
    let first = u64::from(least).wrapping_sub(u64::from(low) * u64::from(stride));
    Some(Row { first, stride: u64::from(stride), least: u64::from(least), most })
}

/// Whether all active lanes of a register hold the same, and what.
fn uniform(wave: &mut Wave, register: usize, exec: u64) -> Option<u32> {
    let (mask, Lanes(values)) = wave.masked(register);
    let value = values[exec.trailing_zeros() as usize];
    let mut differ = 0;
    for (other, mask) in values.iter().zip(&mask.0) {
        differ |= (other ^ value) & mask;
    }
    (differ == 0).then_some(value)
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
) -> Option<Places> {
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
pub(super) fn global_each(
    wave: &mut Wave,
    exec: u64,
    request: &Request,
    each: Box<[u64; LANES]>,
) -> Result<Places, Fault> {
    if exec != 0 && !all_inside(wave.region, &each, exec, request) {
        let first = each[exec.trailing_zeros() as usize];
        match wave.group.space.find(first) {
            Some(region) if all_inside(region, &each, exec, request) => wave.region = region,
            // Several regions, or a fault.
            _ => {
                for lane in lanes(exec) {
                    check_global(wave, lane, each[lane], request)?;
                }
            }
        }
    }
    Ok(Places { how: How::Each(each), lanes: exec, zero: 0, local: 0 })
}

/// `base` plus what each lane of a register holds.
pub(super) fn sums(wave: &Wave, base: u64, register: usize) -> Box<[u64; LANES]> {
    let mut each = Box::new([0; LANES]);
    for (sum, offset) in each.iter_mut().zip(&wave.v[register].0) {
        *sum = base.wrapping_add(u64::from(*offset));
    }
    each
}

/// The 64-bit addresses in a pair of registers, plus an offset.
fn sums64(wave: &Wave, register: usize, offset: i64) -> Box<[u64; LANES]> {
    let mut each = Box::new([0; LANES]);
    let (low, high) = (&wave.v[register].0, &wave.v[register + 1].0);
    for ((sum, low), high) in each.iter_mut().zip(low).zip(high) {
        *sum = (u64::from(*high) << 32 | u64::from(*low)).wrapping_add_signed(offset);
    }
    each
}

/// Global memory at `base` plus what a register holds.
fn global_offsets(
    wave: &mut Wave,
    base: u64,
    register: usize,
    exec: u64,
    request: &Request,
) -> Result<Places, Fault> {
    if let Some(row) = row(wave, register, exec)
        && let Some(places) = global_row(wave, base, row, exec, request)
    {
        return Ok(places);
    }
    let each = sums(wave, base, register);
    global_each(wave, exec, request, each)
}

/// GLOBAL: a 64-bit address, or a 32-bit offset from a scalar base. `None` if no lane is on.
pub(super) fn global(wave: &mut Wave, inst: &Inst, request: &Request) -> Result<Option<Places>, Fault> {
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let offset = i64::from(inst.imm);
    match inst.src[3] {
        Operand::Scalar(base) => {
            let base = wave.s64(base).wrapping_add_signed(offset);
            let register = registers(inst, inst.src[0], 1)?;
            global_offsets(wave, base, register, exec, request).map(Some)
        }
        Operand::None => {
            let register = registers(inst, inst.src[0], 2)?;
            if let Some(high) = uniform(wave, register + 1, exec)
                && let Some(row) = row(wave, register, exec)
                && let Some(places) = {
                    let base = (u64::from(high) << 32).wrapping_add_signed(offset);
                    global_row(wave, base, row, exec, request)
                }
            {
                return Ok(Some(places));
            }
            let each = sums64(wave, register, offset);
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

/// LDS at what a register holds plus an offset; the sum has 32 bits. `exec` must not be zero.
pub(super) fn lds_offsets(
    wave: &mut Wave,
    register: usize,
    offset: u32,
    exec: u64,
    request: &Request,
) -> Result<Places, Fault> {
    if let Some(row) = row(wave, register, exec) {
        let end = row.most + u64::from(offset) + u64::from(request.bytes);
        let aligned = is_aligned((row.least + u64::from(offset)) | row.stride, request);
        if end <= wave.group.lds_len() as u64 && aligned {
            let start = wave.group.lds_start() as u64 + u64::from(offset);
            let how = How::Row { first: start.wrapping_add(row.first), stride: row.stride };
            return Ok(Places { how, lanes: exec, zero: 0, local: exec });
        }
    }
    let start = wave.group.lds_start() as u64;
    let len = wave.group.lds_len() as u64;
    let (limit, low) = (len.saturating_sub(u64::from(request.bytes)), u64::from(request.align - 1));
    let mut bad = 0;
    let mut each = Box::new([0; LANES]);
    for (lane, (place, value)) in each.iter_mut().zip(&wave.v[register].0).enumerate() {
        let address = u64::from(value.wrapping_add(offset));
        bad |= u64::from(address > limit || address & low != 0) << lane;
        *place = start.wrapping_add(address);
    }
    if bad & exec != 0 || len < u64::from(request.bytes) {
        // One of them does not fit, and says so.
        for lane in lanes(exec) {
            let address = wave.v[register].0[lane].wrapping_add(offset);
            lds_lane(wave, lane, u64::from(address), request)?;
        }
    }
    Ok(Places { how: How::Each(each), lanes: exec, zero: 0, local: exec })
}

/// LDS at `start` plus the lane's number times `stride`. `exec` must not be zero.
pub(super) fn lds_by_lane(
    wave: &Wave,
    start: u32,
    stride: u32,
    exec: u64,
    request: &Request,
) -> Result<Places, Fault> {
    for lane in [exec.trailing_zeros() as usize, 63 - exec.leading_zeros() as usize] {
        lds_lane(wave, lane, u64::from(start) + lane as u64 * u64::from(stride), request)?;
    }
    let first = wave.group.lds_start() as u64 + u64::from(start);
    Ok(Places { how: How::Row { first, stride: u64::from(stride) }, lanes: exec, zero: 0, local: exec })
}

/// The address of this process for one lane's offset in its scratch.
fn scratch_lane(wave: &mut Wave, lane: usize, offset: u64, request: &Request) -> Result<u64, Fault> {
    let size = wave.scratch_size as usize;
    let has = if wave.scratch.len() >= size * LANES { size } else { 0 };
    if offset.checked_add(u64::from(request.bytes)).is_none_or(|end| end > has as u64) {
        let place = format!("and the lane's scratch has {has} bytes");
        let (lane, does, bytes) = (lane as u8, request.does, request.bytes);
        return Err(Fault::Memory { lane, does, bytes, address: offset, place });
    }
    if !is_aligned(offset, request) {
        return Err(misaligned(lane, offset, request));
    }
    Ok(wave.scratch.as_mut_ptr() as u64 + (lane * size) as u64 + offset)
}

/// SCRATCH: a vector offset, a scalar offset, both or none, in the lane's own memory.
pub(super) fn scratch(wave: &mut Wave, inst: &Inst, request: &Request) -> Result<Option<Places>, Fault> {
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
    let mut each = Box::new([0; LANES]);
    for lane in lanes(exec) {
        let offset = wave.v[register].0[lane].wrapping_add(base);
        each[lane] = scratch_lane(wave, lane, u64::from(offset), request)?;
    }
    Ok(Some(Places { how: How::Each(each), lanes: exec, zero: 0, local: exec }))
}

/// FLAT: a 64-bit address of global memory, or of LDS or scratch through their apertures.
pub(super) fn flat(wave: &mut Wave, inst: &Inst, request: &Request) -> Result<Option<Places>, Fault> {
    let exec = wave.exec();
    if exec == 0 {
        return Ok(None);
    }
    let register = registers(inst, inst.src[0], 2)?;
    let offset = i64::from(inst.imm);
    let high = uniform(wave, register + 1, exec);
    if let Some(high) = high.filter(|high| ![SHARED_APERTURE, PRIVATE_APERTURE].contains(high))
        && let Some(row) = row(wave, register, exec)
    {
        let base = (u64::from(high) << 32).wrapping_add_signed(offset);
        if let Some(places) = global_row(wave, base, row, exec, request) {
            return Ok(Some(places));
        }
    }
    let mut each = sums64(wave, register, offset);
    let apertures =
        lanes(exec).any(|lane| [SHARED_APERTURE, PRIVATE_APERTURE].contains(&((each[lane] >> 32) as u32)));
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
    Ok(Some(Places { how: How::Each(each), lanes: exec, zero: 0, local }))
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
