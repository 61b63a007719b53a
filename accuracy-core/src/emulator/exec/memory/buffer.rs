//! MUBUF: loads, stores and atomics through a buffer resource (V#), which limits the range.
//!
//! The rules of gfx9:
//! - *raw* (no index, or a stride of 0): an access is out of range if it ends behind `num_records` bytes; the offset counts
//!   with `soffset`.
//! - *structured* (an index and a stride): it is out of range if the index is `num_records` or more.
//! - Each dword of a load or store of several is checked by itself; atomics and formats as a whole.
//! - Loads out of range give zero, stores and atomics out of range do nothing. [`Group`] counts both.
//!
//! [`Group`]: crate::emulator::memory::Group

use super::atomic::atomics;
use super::flat::finish;
use super::lds_transfer::{Piece, copy, copy_whole};
use super::places::{
    Extent, Places, Request, Room, Row, extent, global_each, global_offsets, global_row, lanes, registers,
    row,
};
use super::transfer::{Part, load, load_part, store, store_part};
use crate::emulator::exec::scalar::read32;
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Access, Fault, Flow, LANES, Wave};

/// A buffer resource: what four scalar registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub base: u64,
    pub stride: u32,
    pub num_records: u32,
    /// Neighbouring lanes' elements lie side by side, `index_stride` lanes each.
    pub swizzle: bool,
    pub index_stride: u32,
    /// The lane's number counts for the index.
    pub add_tid: bool,
    /// The last word, which has the format.
    word3: u32,
}

/// Bytes that stay together in a swizzled buffer.
const ELEMENT: u64 = 4;

impl Resource {
    pub fn read(wave: &Wave, inst: &Inst) -> Result<Resource, Fault> {
        let Operand::Scalar(first) = inst.src[3] else {
            let mnemonic = inst.row.mnemonic;
            return Err(Fault::Illegal(format!("{mnemonic}: {:?} is no buffer resource", inst.src[3])));
        };
        let words: [u32; 4] = std::array::from_fn(|word| wave.s[(usize::from(first) + word) & 127]);
        if words[3] >> 30 != 0 {
            let mnemonic = inst.row.mnemonic;
            let text =
                format!("{mnemonic}: the resource {words:08x?} is none of a buffer (its type is not 0)");
            return Err(Fault::Illegal(text));
        }
        let add_tid = words[3] >> 23 & 1 != 0;
        let stride = words[1] >> 16 & 0x3fff;
        Ok(Resource {
            base: u64::from(words[1] & 0xffff) << 32 | u64::from(words[0]),
            // With the lane's number, the bits of the format are upper bits of the stride.
            stride: if add_tid { stride | (words[3] >> 15 & 15) << 14 } else { stride },
            num_records: words[2],
            swizzle: words[1] >> 31 != 0,
            index_stride: 8 << (words[3] >> 21 & 3),
            add_tid,
            word3: words[3],
        })
    }

    pub fn data_format(&self) -> u32 {
        self.word3 >> 15 & 15
    }

    pub fn num_format(&self) -> u32 {
        self.word3 >> 12 & 7
    }

    /// What the components of a format become: 0 zero, 1 one, 4 to 7 the first to fourth.
    pub fn select(&self) -> [u32; 4] {
        std::array::from_fn(|component| self.word3 >> (3 * component) & 7)
    }
}

/// The address of a buffer instruction, but for what differs from lane to lane.
pub(super) struct Address {
    pub resource: Resource,
    soffset: u32,
    offset: u32,
    index: Option<usize>,
    voffset: Option<usize>,
    exec: u64,
}

impl Address {
    pub fn read(wave: &Wave, inst: &Inst) -> Result<Address, Fault> {
        let resource = Resource::read(wave, inst)?;
        let soffset = match inst.src[2] {
            Operand::None => 0,
            operand => read32(wave, operand).ok_or_else(|| {
                Fault::Illegal(format!("{} cannot have {operand:?} as its soffset", inst.row.mnemonic))
            })?,
        };
        let (offen, idxen) = (inst.memory.offen, inst.memory.idxen);
        let count = usize::from(offen) + usize::from(idxen);
        let first = if count > 0 { registers(inst, inst.src[0], count)? } else { 0 };
        let index = idxen.then_some(first);
        let voffset = offen.then_some(first + usize::from(idxen));
        let (offset, exec) = (inst.imm as u32 & 0xfff, wave.exec());
        Ok(Address { resource, soffset, offset, index, voffset, exec })
    }

    fn is_structured(&self) -> bool {
        self.resource.stride != 0 && (self.index.is_some() || self.resource.add_tid)
    }

    /// A lane's index and its offset inside the record.
    fn lane(&self, wave: &Wave, lane: usize) -> (u64, u64) {
        let index = self.index.map_or(0, |register| u64::from(wave.v[register].0[lane]));
        let index = index + if self.resource.add_tid { lane as u64 } else { 0 };
        let voffset = self.voffset.map_or(0, |register| u64::from(wave.v[register].0[lane]));
        (index, voffset + u64::from(self.offset))
    }

    /// The address of a lane's byte `skip` from its first on.
    fn place(&self, wave: &Wave, lane: usize, skip: u32) -> u64 {
        let (index, offset) = self.lane(wave, lane);
        let offset = offset + u64::from(skip);
        let stride = u64::from(self.resource.stride);
        let inside = if self.is_swizzled() {
            let group = u64::from(self.resource.index_stride);
            let (outer, inner) = (index / group, index % group);
            let (elements, rest) = (offset / ELEMENT, offset % ELEMENT);
            (outer * stride + elements * ELEMENT) * group + inner * ELEMENT + rest
        } else {
            index * stride + offset
        };
        self.resource.base.wrapping_add(u64::from(self.soffset)).wrapping_add(inside)
    }

    /// Whether a lane's `bytes` bytes from `skip` on are in the resource's range.
    fn is_in_range(&self, wave: &Wave, lane: usize, skip: u32, bytes: u32) -> bool {
        let (index, offset) = self.lane(wave, lane);
        let records = u64::from(self.resource.num_records);
        if self.is_structured() {
            let stride = u64::from(self.resource.stride);
            return index < records && (!self.resource.swizzle || offset + u64::from(skip) < stride);
        }
        let end = index * u64::from(self.resource.stride) + offset + u64::from(skip + bytes);
        end + u64::from(self.soffset) <= records
    }

    /// The lanes whose bytes are in range.
    fn in_range(&self, wave: &mut Wave, skip: u32, bytes: u32) -> u64 {
        if let (Some(register), None, false) = (self.voffset, self.index, self.resource.add_tid) {
            // Raw, the common case: one comparison for each lane, or one for all of them.
            let before = u64::from(self.soffset) + u64::from(self.offset) + u64::from(skip + bytes);
            let Some(limit) = u64::from(self.resource.num_records).checked_sub(before) else { return 0 };
            let Extent { least, most, .. } = extent(wave, register);
            if u64::from(most) <= limit {
                return self.exec;
            }
            if u64::from(least) > limit {
                return 0;
            }
            let mut mask = 0;
            for (lane, &offset) in wave.v[register].0.iter().enumerate() {
                mask |= u64::from(u64::from(offset) <= limit) << lane;
            }
            return mask & self.exec;
        }
        lanes(self.exec)
            .filter(|&lane| self.is_in_range(wave, lane, skip, bytes))
            .fold(0, |mask, lane| mask | 1 << lane)
    }

    /// The addresses of the lanes in `inside`, `skip` bytes further.
    fn each<'r>(
        &self,
        wave: &mut Wave,
        inside: u64,
        skip: u32,
        request: &Request,
        room: &'r mut Room,
    ) -> Result<Places<'r>, Fault> {
        if let (Some(register), None, false, false) =
            (self.voffset, self.index, self.resource.add_tid, self.is_swizzled())
        {
            let fixed = u64::from(self.soffset) + u64::from(self.offset) + u64::from(skip);
            let base = self.resource.base.wrapping_add(fixed);
            return global_offsets(wave, base, register, inside, request, room);
        }
        let each = room.write([0; LANES]);
        for lane in lanes(inside) {
            each[lane] = self.place(wave, lane, skip);
        }
        global_each(wave, inside, request, each)
    }

    fn is_swizzled(&self) -> bool {
        self.resource.swizzle && self.resource.stride != 0
    }

    /// The places of a raw access all of which is in range, where the offsets are a progression or the same.
    fn whole(&self, wave: &mut Wave, request: &Request) -> Option<Places<'static>> {
        if self.index.is_some() || self.resource.add_tid || self.is_swizzled() {
            return None;
        }
        let row = match self.voffset {
            Some(register) => row(wave, register, self.exec)?,
            None => Row { first: 0, stride: 0, least: 0, most: 0 },
        };
        let scalar = u64::from(self.soffset) + u64::from(self.offset);
        if row.most + scalar + u64::from(request.bytes) > u64::from(self.resource.num_records) {
            return None;
        }
        global_row(wave, self.resource.base.wrapping_add(scalar), row, self.exec, request)
    }

    /// The places of the part of an access that starts `skip` bytes behind the address.
    pub fn places<'r>(
        &self,
        wave: &mut Wave,
        skip: u32,
        request: &Request,
        room: &'r mut Room,
    ) -> Result<Places<'r>, Fault> {
        if skip == 0
            && let Some(places) = self.whole(wave, request)
        {
            return Ok(places);
        }
        let inside = self.in_range(wave, skip, request.bytes);
        let mut places = self.each(wave, inside, skip, request, room)?;
        places.zero = self.exec & !inside;
        let clamped = places.zero.count_ones();
        if clamped > 0 && request.does == Access::Read {
            wave.group.count_clamped_loads(clamped);
            let lane = places.zero.trailing_zeros() as u8;
            wave.group.space.scrutinise(|scrutiny| scrutiny.clamped(lane));
        } else if clamped > 0 {
            wave.group.count_clamped_stores(clamped);
        }
        Ok(places)
    }
}

/// The address of an instruction; `None` if no lane is on.
fn address(wave: &Wave, inst: &Inst) -> Result<Option<Address>, Fault> {
    let address = Address::read(wave, inst)?;
    Ok((address.exec != 0).then_some(address))
}

/// The places of an access as one whole; `None` if no lane is on.
fn find<'r>(
    wave: &mut Wave,
    inst: &Inst,
    request: &Request,
    room: &'r mut Room,
) -> Result<Option<Places<'r>>, Fault> {
    match address(wave, inst)? {
        Some(address) => address.places(wave, 0, request, room).map(Some),
        None => Ok(None),
    }
}

/// The places of each dword of an access. All of one, if all of it is in range.
enum Dwords<'r> {
    Whole(Places<'r>),
    /// One for each dword: they differ in which lanes are in range.
    Each(Vec<Places<'r>>),
}

/// Rooms for the addresses of each dword.
type Rooms = [Room; 4];

fn dwords<'r>(
    wave: &mut Wave,
    address: &Address,
    count: u32,
    does: Access,
    rooms: &'r mut Rooms,
) -> Result<Dwords<'r>, Fault> {
    let request = |bytes| Request { bytes, does, align: 1 };
    if let Some(places) = address.whole(wave, &request(4 * count)) {
        return Ok(Dwords::Whole(places));
    }
    if !address.is_swizzled() && address.in_range(wave, 0, 4 * count) == address.exec {
        let places = address.each(wave, address.exec, 0, &request(4 * count), &mut rooms[0])?;
        return Ok(Dwords::Whole(places));
    }
    (0..count)
        .zip(rooms)
        .map(|(part, room)| address.places(wave, 4 * part, &request(4), room))
        .collect::<Result<_, _>>()
        .map(Dwords::Each)
}

fn load_dwords<const N: usize>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let Some(address) = address(wave, inst)? else { return Ok(()) };
    if !inst.memory.lds
        && let Some(places) = address.whole(wave, &Request::read(4 * N as u32))
    {
        let dst = registers(inst, inst.dst, N)?;
        load::<N>(wave, dst, &places);
        return Ok(());
    }
    let mut rooms = [Room::uninit(); 4];
    let places = dwords(wave, &address, N as u32, Access::Read, &mut rooms)?;
    if inst.memory.lds {
        return match places {
            Dwords::Whole(places) => copy_whole(wave, inst, &places, Piece::Dwords(N as u32)),
            Dwords::Each(parts) => (0..).zip(&parts).try_for_each(|(part, places)| {
                copy(wave, inst, places, Piece::Dwords(1), 4 * part, 4 * N as u32)
            }),
        };
    }
    let dst = registers(inst, inst.dst, N)?;
    match places {
        Dwords::Whole(places) => load::<N>(wave, dst, &places),
        Dwords::Each(parts) => {
            for (part, places) in parts.iter().enumerate() {
                load::<1>(wave, dst + part, places);
            }
        }
    }
    Ok(())
}

fn store_dwords<const N: usize>(wave: &mut Wave, inst: &Inst) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], N)?;
    let Some(address) = address(wave, inst)? else { return Ok(()) };
    let mut rooms = [Room::uninit(); 4];
    match dwords(wave, &address, N as u32, Access::Write, &mut rooms)? {
        Dwords::Whole(places) => store::<N>(wave, src, &places),
        Dwords::Each(parts) => {
            for (part, places) in parts.iter().enumerate() {
                store::<1>(wave, src + part, places);
            }
        }
    }
    Ok(())
}

fn load_less(wave: &mut Wave, inst: &Inst, part: Part) -> Result<(), Fault> {
    let Some(address) = address(wave, inst)? else { return Ok(()) };
    let mut room = Room::uninit();
    let places = address.places(wave, 0, &Request::read(part.bytes()), &mut room)?;
    if inst.memory.lds {
        return copy_whole(wave, inst, &places, Piece::Part(part));
    }
    let dst = registers(inst, inst.dst, 1)?;
    load_part(wave, dst, part, &places);
    Ok(())
}

fn store_less(wave: &mut Wave, inst: &Inst, bytes: u32, shift: u32) -> Result<(), Fault> {
    let src = registers(inst, inst.src[1], 1)?;
    let Some(address) = address(wave, inst)? else { return Ok(()) };
    let mut room = Room::uninit();
    let places = address.places(wave, 0, &Request::write(bytes), &mut room)?;
    store_part(wave, src, bytes, shift, &places);
    Ok(())
}

macro_rules! loads {
    ($($name:ident: $kind:ident $what:tt;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = loads!(@$kind wave, inst, $what);
            finish(wave, result)
        })+
    };
    (@dwords $wave:ident, $inst:ident, $count:tt) => { load_dwords::<$count>($wave, $inst) };
    (@part $wave:ident, $inst:ident, $part:tt) => { load_less($wave, $inst, Part::$part) };
}

macro_rules! stores {
    ($($name:ident: $kind:ident $($what:literal)+;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let result = stores!(@$kind wave, inst, $($what)+);
            finish(wave, result)
        })+
    };
    (@dwords $wave:ident, $inst:ident, $count:literal) => { store_dwords::<$count>($wave, $inst) };
    (@part $wave:ident, $inst:ident, $bytes:literal $shift:literal) => {
        store_less($wave, $inst, $bytes, $shift)
    };
}

/// Writes the L2 cache back. Memory is the only copy here.
pub fn buffer_wbl2(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Next
}

/// Invalidates caches. Memory is the only copy here.
pub fn buffer_inv(_wave: &mut Wave, _inst: &Inst) -> Flow {
    Flow::Next
}

loads! {
    buffer_load_ubyte: part U8;
    buffer_load_sbyte: part I8;
    buffer_load_ushort: part U16;
    buffer_load_sshort: part I16;
    buffer_load_ubyte_d16: part U8Low;
    buffer_load_ubyte_d16_hi: part U8High;
    buffer_load_sbyte_d16: part I8Low;
    buffer_load_sbyte_d16_hi: part I8High;
    buffer_load_short_d16: part U16Low;
    buffer_load_short_d16_hi: part U16High;
    buffer_load_dword: dwords 1;
    buffer_load_dwordx2: dwords 2;
    buffer_load_dwordx3: dwords 3;
    buffer_load_dwordx4: dwords 4;
}

stores! {
    buffer_store_byte: part 1 0;
    buffer_store_byte_d16_hi: part 1 16;
    buffer_store_short: part 2 0;
    buffer_store_short_d16_hi: part 2 16;
    buffer_store_dword: dwords 1;
    buffer_store_dwordx2: dwords 2;
    buffer_store_dwordx3: dwords 3;
    buffer_store_dwordx4: dwords 4;
}

atomics! { find;
    buffer_atomic_swap buffer_atomic_add buffer_atomic_sub buffer_atomic_smin buffer_atomic_umin
    buffer_atomic_smax buffer_atomic_umax buffer_atomic_and buffer_atomic_or buffer_atomic_xor buffer_atomic_inc
    buffer_atomic_dec buffer_atomic_cmpswap buffer_atomic_add_f32 buffer_atomic_pk_add_f16
    buffer_atomic_pk_add_bf16 buffer_atomic_swap_x2 buffer_atomic_add_x2 buffer_atomic_sub_x2
    buffer_atomic_smin_x2 buffer_atomic_umin_x2 buffer_atomic_smax_x2 buffer_atomic_umax_x2 buffer_atomic_and_x2
    buffer_atomic_or_x2 buffer_atomic_xor_x2 buffer_atomic_inc_x2 buffer_atomic_dec_x2 buffer_atomic_cmpswap_x2
    buffer_atomic_add_f64 buffer_atomic_min_f64 buffer_atomic_max_f64
}
