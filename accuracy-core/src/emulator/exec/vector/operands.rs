//! Sources as 64 lanes, with what modifies them, and destinations.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use super::wide::widest;
use crate::emulator::isa::{Dpp, Inst, Operand, Sdwa, Select, Special, Unused};
use crate::emulator::memory::{PRIVATE_APERTURE, SHARED_APERTURE};
use crate::emulator::wave::{Fault, Flow, LANES, Lanes, Wave};

/// Room for one source that has to be made.
pub(super) type Room = MaybeUninit<Lanes>;

/// Which denormals of a source are flushed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Never,
    F32,
    F16,
}

/// How the 32 bits of a source are understood.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// The sign, for `neg` and `abs`; zero where a source has no sign.
    sign: u32,
    /// The value has 16 bits: `op_sel` says which.
    half: bool,
    flush: Flush,
}

impl Form {
    /// An integer, or bits, or one half of them.
    pub const B32: Form = Form { sign: 0, half: false, flush: Flush::Never };
    pub const B16: Form = Form { sign: 0, half: true, flush: Flush::Never };
    /// A float that is moved, not computed with: it has a sign, and its denormals stay.
    pub const SIGNED32: Form = Form { sign: 1 << 31, half: false, flush: Flush::Never };
    pub const SIGNED16: Form = Form { sign: 1 << 15, half: true, flush: Flush::Never };
    pub const F32: Form = Form { sign: 1 << 31, half: false, flush: Flush::F32 };
    pub const F16: Form = Form { sign: 1 << 15, half: true, flush: Flush::F16 };
    pub const BF16: Form = Form { sign: 1 << 15, half: true, flush: Flush::Never };

    fn flushes(self, wave: &Wave) -> bool {
        match self.flush {
            Flush::Never => false,
            Flush::F32 => wave.mode.0 & 0x10 == 0,
            Flush::F16 => wave.mode.0 & 0x40 == 0,
        }
    }
}

/// What precedes every vector instruction. `Some` says that the instruction is done.
#[inline(always)]
pub(in super::super) fn begin(wave: &mut Wave, inst: &Inst) -> Option<Flow> {
    let special = inst.src.iter().any(|source| matches!(source, Operand::Special(_)));
    if wave.gpr_index.is_none() && !special && inst.dpp.is_none() {
        return None;
    }
    unusual(wave, inst)
}

#[cold]
#[inline(never)]
fn unusual(wave: &mut Wave, inst: &Inst) -> Option<Flow> {
    if let Some(dpp) = inst.dpp.filter(|dpp| !known_dpp(dpp.control)) {
        let detail = format!("dpp_ctrl {:#x}", dpp.control);
        return Some(wave.fail(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail }));
    }
    if wave.gpr_index.is_none() && !inst.src.iter().any(|source| matches!(source, Operand::Special(_))) {
        return None;
    }
    let mut plain = inst.clone();
    for source in &mut plain.src {
        if let Operand::Special(special) = *source {
            match special_value(wave, special) {
                Ok(value) => *source = Operand::Constant(value),
                Err(fault) => return Some(wave.fail(fault)),
            }
        }
    }
    let index = wave.gpr_index;
    if let Some(index) = index {
        let by = (wave.m0() & 0xff) as u16;
        let sources =
            plain.src[..3].iter_mut().enumerate().map(|(i, source)| (source, index.enable >> i & 1));
        let all = sources.chain(std::iter::once((&mut plain.dst, index.enable >> 3 & 1)));
        for (operand, on) in all {
            if let Operand::Vector(register) = operand
                && on != 0
            {
                // The upper half of the registers are the accumulation registers, which are indexed among themselves.
                let (kind, first) = if *register < 256 { ("v", 0) } else { ("a", 256) };
                *register += by;
                if *register > first + 255 {
                    let register = *register - first;
                    return Some(wave.fail(Fault::Illegal(format!(
                        "the index in M0 ({by}) makes {} use {kind}{register}; the last one is {kind}255",
                        inst.row.mnemonic
                    ))));
                }
            }
        }
    }
    wave.gpr_index = None;
    let flow = (inst.execute)(wave, &plain);
    wave.gpr_index = index;
    Some(flow)
}

/// The value of a scalar source that no register holds.
fn special_value(wave: &Wave, special: Special) -> Result<u64, Fault> {
    let aperture = |upper: u32| u64::from(upper) << 32;
    Ok(match special {
        Special::SharedBase => aperture(SHARED_APERTURE),
        Special::SharedLimit => aperture(SHARED_APERTURE) | 0xffff_ffff,
        Special::PrivateBase => aperture(PRIVATE_APERTURE),
        Special::PrivateLimit => aperture(PRIVATE_APERTURE) | 0xffff_ffff,
        Special::Vccz => u64::from(wave.vcc() == 0),
        Special::Execz => u64::from(wave.exec() == 0),
        Special::Scc => u64::from(wave.scc),
        Special::LdsDirect => {
            let address = wave.m0() as usize & 0xffff;
            let word = wave.group.with_lds(|lds| {
                lds.get(address..address + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
            });
            let outside =
                || Fault::Illegal(format!("lds_direct reads 4 bytes at {address:#x} of LDS, behind its end"));
            u64::from(word.ok_or_else(outside)?)
        }
        Special::PopsExitingWaveId => {
            let detail = "the source pops_exiting_wave_id, which only graphics has".into();
            return Err(Fault::Uncovered { mnemonic: "src_pops_exiting_wave_id", detail });
        }
    })
}

/// Dword `word` of source `i`.
#[inline(always)]
pub(super) fn source<'a>(
    wave: &'a Wave,
    inst: &Inst,
    i: usize,
    word: u16,
    form: Form,
    room: &'a mut Room,
) -> &'a Lanes {
    let altered = (form.sign != 0 && (inst.neg | inst.abs) >> i & 1 != 0)
        || (form.half && inst.op_sel >> i & 1 != 0)
        || inst.sdwa.is_some()
        || inst.dpp.is_some()
        || form.flushes(wave);
    if altered { altered_source(wave, inst, i, word, form, room) } else { raw(wave, inst.src[i], word, room) }
}

/// Dword `word` of an operand, as it is.
#[inline(always)]
pub(super) fn raw<'a>(wave: &'a Wave, operand: Operand, word: u16, room: &'a mut Room) -> &'a Lanes {
    match operand {
        Operand::Vector(register) => &wave.v[usize::from(register + word) & 511],
        _ => room.write(Lanes::splat(scalar(wave, operand, word))),
    }
}

/// Dword `word` of an operand that is the same for all lanes.
#[inline(always)]
pub(super) fn scalar(wave: &Wave, operand: Operand, word: u16) -> u32 {
    match operand {
        Operand::Scalar(register) => wave.s[usize::from(u16::from(register) + word) & 127],
        Operand::Constant(bits) => (bits >> (32 * (word & 1))) as u32,
        // `begin` has made a constant of a special operand; a vector is not asked for here.
        Operand::None | Operand::Special(_) | Operand::Vector(_) => 0,
    }
}

#[inline(never)]
fn altered_source<'a>(
    wave: &'a Wave,
    inst: &Inst,
    i: usize,
    word: u16,
    form: Form,
    room: &'a mut Room,
) -> &'a Lanes {
    let mut spare = Room::uninit();
    let mut lanes = *raw(wave, inst.src[i], word, &mut spare);
    if let Some(dpp) = inst.dpp.filter(|_| i == 0) {
        lanes = moved(&lanes, dpp, wave.exec());
    }
    if let Some(sdwa) = inst.sdwa.filter(|_| i < 2) {
        select(&mut lanes, sdwa.src[i], sdwa.sext[i]);
    }
    if form.half && inst.op_sel >> i & 1 != 0 {
        lanes.0.iter_mut().for_each(|lane| *lane >>= 16);
    }
    if inst.abs >> i & 1 != 0 {
        lanes.0.iter_mut().for_each(|lane| *lane &= !form.sign);
    }
    if inst.neg >> i & 1 != 0 {
        lanes.0.iter_mut().for_each(|lane| *lane ^= form.sign);
    }
    if form.flushes(wave) {
        lanes.0.iter_mut().for_each(|lane| *lane = flushed(*lane, form.flush));
    }
    room.write(lanes)
}

fn flushed(value: u32, flush: Flush) -> u32 {
    match flush {
        Flush::F32 if value & 0x7f80_0000 == 0 => value & 0x8000_0000,
        Flush::F16 if value & 0x7c00 == 0 => value & 0xffff_8000,
        _ => value,
    }
}

/// Flushes denormals of float32 results if MODE says so.
pub(super) fn flush32(wave: &Wave, lanes: &mut Lanes) {
    if wave.mode.denormals32().flush_out {
        lanes.0.iter_mut().for_each(|lane| *lane = flushed(*lane, Flush::F32));
    }
}

/// Flushes denormals of float16 results if MODE says so.
pub(super) fn flush16(wave: &Wave, lanes: &mut Lanes) {
    if wave.mode.denormals64_16().flush_out {
        lanes.0.iter_mut().for_each(|lane| *lane = flushed(*lane, Flush::F16));
    }
}

/// A float64 that is flushed if it is a denormal.
#[inline(always)]
pub(super) fn flushed64(value: u64) -> u64 {
    if value & 0x7ff0_0000_0000_0000 == 0 { value & 1 << 63 } else { value }
}

/// A 64-bit source: its low and its high dwords.
#[inline(always)]
pub(super) fn source64<'a>(
    wave: &'a Wave,
    inst: &Inst,
    i: usize,
    float: bool,
    rooms: &'a mut [Room; 2],
) -> [&'a Lanes; 2] {
    let [low, high] = rooms;
    let sign = if float { Form::SIGNED32 } else { Form::B32 };
    let unsigned = (inst.neg | inst.abs) >> i & 1 == 0 || !float;
    let lows = source(wave, inst, i, 0, Form::B32, low);
    let highs = if unsigned && inst.sdwa.is_none() && inst.dpp.is_none() {
        raw(wave, inst.src[i], 1, high)
    } else {
        altered_source(wave, inst, i, 1, sign, high)
    };
    [lows, highs]
}

/// Flushes denormals among float64 sources.
#[inline(never)]
pub(super) fn flush_source64<'a>(pair: [&Lanes; 2], rooms: &'a mut [Room; 2]) -> [&'a Lanes; 2] {
    let (mut low, mut high) = (*pair[0], *pair[1]);
    for (low, high) in low.0.iter_mut().zip(&mut high.0) {
        if *high & 0x7ff0_0000 == 0 {
            *low = 0;
            *high &= 1 << 31;
        }
    }
    let [first, second] = rooms;
    [first.write(low), second.write(high)]
}

/// The part of every lane that SDWA selects.
fn select(lanes: &mut Lanes, part: Select, signed: bool) {
    let (shift, bits) = extent(part);
    for lane in &mut lanes.0 {
        let up = *lane << (32 - shift - bits);
        *lane = if signed { ((up as i32) >> (32 - bits)) as u32 } else { up >> (32 - bits) };
    }
}

/// First bit and number of bits.
fn extent(part: Select) -> (u32, u32) {
    match part {
        Select::Byte0 => (0, 8),
        Select::Byte1 => (8, 8),
        Select::Byte2 => (16, 8),
        Select::Byte3 => (24, 8),
        Select::Word0 => (0, 16),
        Select::Word1 => (16, 16),
        Select::Dword => (0, 32),
    }
}

/// The lane that a lane reads under DPP.
pub(in crate::emulator) fn dpp_source(control: u16, lane: usize) -> Option<usize> {
    let (row, place) = (lane & !15, lane & 15);
    let amount = usize::from(control & 15);
    let in_row = |place: Option<usize>| place.filter(|&place| place < 16).map(|place| row + place);
    match control {
        0x000..=0x0ff => Some(lane & !3 | usize::from(control) >> (2 * (lane & 3)) & 3),
        0x101..=0x10f => in_row(Some(place + amount)),
        0x111..=0x11f => in_row(place.checked_sub(amount)),
        0x121..=0x12f => Some(row + (place + 16 - amount) % 16),
        0x130 => Some(lane + 1).filter(|&lane| lane < LANES),
        0x134 => Some((lane + 1) % LANES),
        0x138 => lane.checked_sub(1),
        0x13c => Some((lane + LANES - 1) % LANES),
        0x140 => Some(row + 15 - place),
        0x141 => Some(lane ^ 7),
        0x142 => row.checked_sub(1),
        0x143 => Some(31).filter(|_| lane > 31),
        0x150..=0x15f => Some(row + amount),
        _ => None,
    }
}

/// All lanes from a function of the lane's number. A plain loop: the compiler vectorises it better than
/// `std::array::from_fn`.
#[inline(always)]
pub(super) fn each(f: impl Fn(usize) -> u32) -> Lanes {
    let mut out = Lanes::ZERO;
    for (i, lane) in out.0.iter_mut().enumerate() {
        *lane = f(i);
    }
    out
}

/// The lane that every lane reads, for each of the 512 controls; lane 64 where there is none.
static MOVES: LazyLock<Box<[[u8; LANES]]>> = LazyLock::new(|| {
    let from = |control, lane| dpp_source(control, lane).map_or(LANES as u8, |from| from as u8);
    (0..512).map(|control| std::array::from_fn(|lane| from(control, lane))).collect()
});

/// The values that the lanes read under DPP; zero where there is nothing to read.
fn moved(lanes: &Lanes, dpp: Dpp, exec: u64) -> Lanes {
    let moves = &MOVES[usize::from(dpp.control & 511)];
    let mut padded = [0; 2 * LANES];
    for (lane, value) in lanes.0.iter().enumerate() {
        padded[lane] = if exec >> lane & 1 != 0 { *value } else { 0 };
    }
    each(|lane| padded[usize::from(moves[lane]) & (2 * LANES - 1)])
}

/// The lanes that DPP lets write.
pub(super) fn dpp_lanes(dpp: Dpp, exec: u64) -> u64 {
    // Each bit of `bank_mask` stands for four lanes of every row, each bit of `row_mask` for a row.
    let spread = |mask: u8, width: u32| {
        (0..4)
            .filter(|i| mask >> i & 1 != 0)
            .fold(0, |lanes: u64, i| lanes | ((1 << width) - 1) << (width * i))
    };
    let on = (spread(dpp.bank_mask, 4) * 0x0001_0001_0001_0001) & spread(dpp.row_mask, 16);
    if dpp.bound_ctrl {
        return on;
    }
    let moves = &MOVES[usize::from(dpp.control & 511)];
    let readable = |from: u8| u128::from(exec) >> from & 1 != 0;
    (0..LANES).fold(0, |lanes, lane| lanes | u64::from(readable(moves[lane])) << lane) & on
}

/// Whether a DPP instruction names a movement that there is.
pub(super) fn known_dpp(control: u16) -> bool {
    MOVES.get(usize::from(control)).is_some_and(|moves| moves.iter().any(|&from| from < LANES as u8))
}

/// The lanes that write.
#[inline(always)]
pub(in crate::emulator) fn writers(wave: &Wave, inst: &Inst) -> u64 {
    let exec = wave.exec();
    match inst.dpp {
        None => exec,
        Some(dpp) => exec & dpp_lanes(dpp, exec),
    }
}

/// Writes dword `word` of the destination.
#[inline(always)]
pub(super) fn write(wave: &mut Wave, inst: &Inst, word: u16, lanes: &Lanes) {
    let Operand::Vector(register) = inst.dst else { return };
    let register = usize::from(register + word) & 511;
    if inst.sdwa.is_some() || inst.dpp.is_some() {
        return write_altered(wave, inst, register, lanes);
    }
    if wave.exec() == u64::MAX {
        copy(&mut wave.v[register], lanes);
    } else {
        let (mask, to) = wave.masked_mut(register);
        blend(to, lanes, mask);
    }
}

#[inline(always)]
fn copy_loop(to: &mut Lanes, from: &Lanes) {
    for (to, from) in to.0.iter_mut().zip(&from.0) {
        *to = *from;
    }
}

fn copy(to: &mut Lanes, from: &Lanes) {
    widest!([] copy_loop(to: &mut Lanes, from: &Lanes) -> ())
}

#[inline(always)]
fn blend_loop(to: &mut Lanes, from: &Lanes, mask: &Lanes) {
    for ((to, from), mask) in to.0.iter_mut().zip(&from.0).zip(&mask.0) {
        *to ^= (*to ^ from) & mask;
    }
}

/// Replaces the lanes whose mask is all ones.
pub(super) fn blend(to: &mut Lanes, from: &Lanes, mask: &Lanes) {
    widest!([] blend_loop(to: &mut Lanes, from: &Lanes, mask: &Lanes) -> ())
}

#[inline(never)]
fn write_altered(wave: &mut Wave, inst: &Inst, register: usize, lanes: &Lanes) {
    let mask = crate::emulator::wave::expand(writers(wave, inst));
    let mut value = *lanes;
    if let Some(sdwa) = inst.sdwa {
        for (value, old) in value.0.iter_mut().zip(&wave.v[register].0) {
            *value = placed(*value, *old, sdwa);
        }
    }
    blend(&mut wave.v[register], &value, &mask);
}

/// A result in the part of the destination that SDWA selects.
fn placed(value: u32, old: u32, sdwa: Sdwa) -> u32 {
    let (shift, bits) = extent(sdwa.dst);
    if bits == 32 {
        return value;
    }
    let part = (1 << bits) - 1;
    let at = (value & part) << shift;
    match sdwa.unused {
        Unused::Pad => at,
        Unused::Preserve => old & !(part << shift) | at,
        Unused::SignExtend => ((at << (32 - shift - bits)) as i32 >> (32 - shift - bits)) as u32,
    }
}

/// What a 16-bit result leaves in the other half of its register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Instructions that GFX8 had too clear the upper half.
    Cleared,
    /// Instructions that came with `op_sel` leave it.
    Kept,
}

/// Writes 16-bit results, which are in the low half of `lanes` with zero above.
#[inline(always)]
pub(super) fn write16(wave: &mut Wave, inst: &Inst, rest: Rest, lanes: &mut Lanes) {
    let upper = inst.op_sel & 8 != 0;
    if upper || (rest == Rest::Kept && inst.sdwa.is_none()) {
        keep_half(wave, inst, upper, lanes);
    }
    write(wave, inst, 0, lanes);
}

#[inline(never)]
fn keep_half(wave: &Wave, inst: &Inst, upper: bool, lanes: &mut Lanes) {
    let Operand::Vector(register) = inst.dst else { return };
    for (lane, old) in lanes.0.iter_mut().zip(&wave.v[usize::from(register) & 511].0) {
        *lane = if upper { *lane << 16 | old & 0xffff } else { *lane & 0xffff | old & 0xffff_0000 };
    }
}

/// The old value of dword `word` of the destination.
#[inline(always)]
pub(super) fn old<'a>(wave: &'a Wave, inst: &Inst, word: u16, room: &'a mut Room) -> &'a Lanes {
    raw(wave, inst.dst, word, room)
}
