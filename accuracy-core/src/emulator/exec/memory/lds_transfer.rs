//! Loads straight into LDS (`global_load_lds_*`, `buffer_load_* ... lds`).

use super::places::{How, Places, Request, lanes, lds_by_lane};
use super::places::{before_read, before_write};
use super::transfer::{self, Part, put};
use crate::emulator::isa::{Inst, Processor};
use crate::emulator::wave::{Fault, LANES, Wave};

/// What each lane brings into LDS.
#[derive(Clone, Copy)]
pub(super) enum Piece {
    Dwords(u32),
    /// Less than a dword: it is extended to one.
    Part(Part),
}

impl Piece {
    /// Bytes that a lane writes in LDS.
    fn size(self) -> u32 {
        match self {
            Piece::Dwords(count) => 4 * count,
            Piece::Part(_) => 4,
        }
    }
}

/// Where lane 0's data goes: bits of M0 plus the instruction's offset, which counts for both addresses.
fn start(wave: &Wave, inst: &Inst) -> u32 {
    let bits = match wave.processor {
        Processor::Gfx942 => 0xffff,
        Processor::Gfx950 => 0x3_ffff,
    };
    (wave.m0() & bits).wrapping_add_signed(inst.imm)
}

/// Copies what `from` has into LDS, lane behind lane. `skip` bytes of a lane's piece come before what is copied, and a
/// piece has `whole` bytes.
pub(super) fn copy(
    wave: &mut Wave,
    inst: &Inst,
    from: &Places,
    piece: Piece,
    skip: u32,
    whole: u32,
) -> Result<(), Fault> {
    let size = piece.size();
    let exec = from.lanes | from.zero;
    if exec == 0 {
        return Ok(());
    }
    let to = lds_by_lane(wave, start(wave, inst).wrapping_add(skip), whole, exec, &Request::write(size))?;
    let read = match piece {
        Piece::Dwords(count) => 4 * count,
        Piece::Part(part) => part.bytes(),
    };
    before_read(wave, from, read);
    before_write(wave, &to, size);
    if let (Piece::Dwords(_), How::Row { first, stride }, How::Row { first: into, .. }) =
        (piece, &from.how, &to.how)
        && from.lanes == u64::MAX
        && *stride == u64::from(size)
        && whole == size
    {
        let source = std::ptr::with_exposed_provenance::<u8>(*first as usize);
        let target = std::ptr::with_exposed_provenance_mut::<u8>(*into as usize);
        // SAFETY: both were checked for 64 pieces of `size` bytes that follow each other; LDS is no global memory.
        unsafe { std::ptr::copy_nonoverlapping(source, target, size as usize * LANES) };
        return Ok(());
    }
    // SAFETY: `from` was made for a read and `to` for a write of as many bytes; LDS is no memory of another kind.
    unsafe {
        match piece {
            Piece::Dwords(1) => transfer::copy::<1>(from, &to),
            Piece::Dwords(2) => transfer::copy::<2>(from, &to),
            Piece::Dwords(3) => transfer::copy::<3>(from, &to),
            Piece::Dwords(_) => transfer::copy::<4>(from, &to),
            Piece::Part(part) => {
                for lane in lanes(exec) {
                    let loads = from.lanes >> lane & 1 != 0;
                    let bits = if loads { part.get(from.at(lane)) } else { 0 };
                    put(to.at(lane), part.merge(bits, 0));
                }
            }
        }
    }
    Ok(())
}

/// As [`copy`], for whole pieces.
pub(super) fn copy_whole(wave: &mut Wave, inst: &Inst, from: &Places, piece: Piece) -> Result<(), Fault> {
    copy(wave, inst, from, piece, 0, piece.size())
}
