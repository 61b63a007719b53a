//! Loads and stores that convert: `buffer_load_format_*` with the format of the resource, `tbuffer_*` with the
//! instruction's.
//!
//! Formats whose components all have 8, 16 or 32 bits are covered, and of conversions those that have one right answer.
//! What would need rounding that is not documented is an error. `format` names follow LLVM: data format, number format.

use super::buffer::Address;
use super::flat::finish;
use super::places::{Places, Request, Room, lanes, registers};
use super::places::{before_read, before_write};
use super::transfer::{get, put};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Fault, Flow, Wave};

/// What a component's bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Unorm,
    Snorm,
    Uscaled,
    Sscaled,
    Uint,
    Sint,
    Float,
}

/// How the components of an element lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    components: usize,
    /// Bits of each: 8, 16 or 32.
    bits: u32,
    number: Number,
    /// What each register's component comes from: 0 zero, 1 one, 4 to 7 the first to fourth of memory.
    select: [u32; 4],
}

/// Where the components are taken from if nothing else is said.
const IDENTITY: [u32; 4] = [4, 5, 6, 7];

/// What an instruction does with its registers.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Components that it names: 1 for `_x` to 4 for `_xyzw`.
    components: usize,
    registers: Packing,
    /// The format is the instruction's and not the resource's.
    typed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// One component a register.
    Full,
    /// Two components of 16 bits a register (`d16`).
    Half,
    /// One component in a register's upper half (`d16_hi`).
    High,
}

impl Shape {
    fn registers(&self) -> usize {
        match self.registers {
            Packing::Full => self.components,
            Packing::Half => self.components.div_ceil(2),
            Packing::High => 1,
        }
    }

    fn is_half(&self) -> bool {
        self.registers != Packing::Full
    }
}

const DATA: [&str; 16] = [
    "INVALID",
    "8",
    "16",
    "8_8",
    "32",
    "16_16",
    "10_11_11",
    "11_11_10",
    "10_10_10_2",
    "2_10_10_10",
    "8_8_8_8",
    "32_32",
    "16_16_16_16",
    "32_32_32",
    "32_32_32_32",
    "RESERVED_15",
];
const NUMBER: [&str; 8] = ["UNORM", "SNORM", "USCALED", "SSCALED", "UINT", "SINT", "RESERVED_6", "FLOAT"];

#[cold]
fn uncovered(inst: &Inst, data: u32, number: u32, why: &str) -> Fault {
    let (data, number) = (DATA[data as usize & 15], NUMBER[number as usize & 7]);
    let detail = format!("with the format {data}, {number}: {why}");
    Fault::Uncovered { mnemonic: inst.row.mnemonic, detail }
}

/// The format's numbers, and what they mean if the emulator covers it.
fn format(inst: &Inst, address: &Address, shape: Shape) -> Result<Format, Fault> {
    let resource = &address.resource;
    let (data, number, select) = if shape.typed {
        let bits = u32::from(inst.memory.format);
        (bits & 15, bits >> 4 & 7, IDENTITY)
    } else {
        (resource.data_format(), resource.num_format(), resource.select())
    };
    let (components, bits) = match data {
        1 => (1, 8),
        2 => (1, 16),
        3 => (2, 8),
        4 => (1, 32),
        5 => (2, 16),
        10 => (4, 8),
        11 => (2, 32),
        12 => (4, 16),
        13 => (3, 32),
        14 => (4, 32),
        _ => return Err(uncovered(inst, data, number, "its components differ in size, or it is none")),
    };
    let meaning = match number {
        0 => Number::Unorm,
        1 => Number::Snorm,
        2 => Number::Uscaled,
        3 => Number::Sscaled,
        4 => Number::Uint,
        5 => Number::Sint,
        7 => Number::Float,
        _ => return Err(uncovered(inst, data, number, "the number format is reserved")),
    };
    let exists = match meaning {
        Number::Uint | Number::Sint => true,
        Number::Float => bits >= 16,
        _ => bits < 32,
    };
    if !exists {
        return Err(uncovered(inst, data, number, "the hardware has no such combination"));
    }
    let integer = matches!(meaning, Number::Uint | Number::Sint);
    if shape.is_half() && !(integer && bits < 32 || meaning == Number::Float && bits == 16) {
        return Err(uncovered(inst, data, number, "how it is rounded to 16 bits is not documented"));
    }
    Ok(Format { components, bits, number: meaning, select })
}

/// A component's bits from memory as a register holds them; a `half` result has 16 bits.
fn from_memory(format: &Format, bits: u32, half: bool) -> u32 {
    let signed = match format.bits {
        8 => i32::from(bits as i8),
        16 => i32::from(bits as i16),
        _ => bits as i32,
    };
    let most = ((1u64 << format.bits) - 1) as f32;
    let most_signed = ((1u64 << (format.bits - 1)) - 1) as f32;
    let value = match format.number {
        Number::Uint => return bits,
        Number::Sint => return if half { signed as u32 & 0xffff } else { signed as u32 },
        Number::Float if half || format.bits == 32 => return bits,
        Number::Float => half::f16::from_bits(bits as u16).to_f32(),
        Number::Unorm => bits as f32 / most,
        Number::Snorm => (signed as f32 / most_signed).max(-1.0),
        Number::Uscaled => bits as f32,
        Number::Sscaled => signed as f32,
    };
    value.to_bits()
}

/// A register's component as memory holds it, if there is one right answer.
fn to_memory(format: &Format, value: u32, half: bool) -> Option<u32> {
    let sign_extended = if half { i32::from(value as i16) } else { value as i32 };
    let mask = ((1u64 << format.bits) - 1) as u32;
    match format.number {
        Number::Uint => (value <= mask).then_some(value),
        Number::Sint => {
            let bits = sign_extended as u32 & mask;
            let back = from_memory(format, bits, false) as i32;
            (back == sign_extended).then_some(bits)
        }
        Number::Float if half || format.bits == 32 => Some(value),
        Number::Float => {
            let value = f32::from_bits(value);
            let rounded = half::f16::from_f32(value);
            (rounded.to_f32() == value).then_some(u32::from(rounded.to_bits()))
        }
        Number::Unorm | Number::Snorm | Number::Uscaled | Number::Sscaled => None,
    }
}

/// The bits of a component at an address.
///
/// # Safety
///
/// They must be readable, as for [`get`].
unsafe fn read(format: &Format, address: u64, component: usize) -> u32 {
    let address = address + component as u64 * u64::from(format.bits / 8);
    // SAFETY: the caller's word.
    unsafe {
        match format.bits {
            8 => u32::from(get::<u8>(address)),
            16 => u32::from(get::<u16>(address)),
            _ => get::<u32>(address),
        }
    }
}

/// The number one, as the format's components have it in registers.
fn one(format: &Format, half: bool) -> u32 {
    match (format.number, half) {
        (Number::Uint | Number::Sint, _) => 1,
        (_, true) => 0x3c00,
        (_, false) => 1f32.to_bits(),
    }
}

/// Puts a component into the registers from `dst` on.
fn set(wave: &mut Wave, shape: Shape, dst: usize, lane: usize, component: usize, value: u32) {
    match shape.registers {
        Packing::Full => wave.v[dst + component].0[lane] = value,
        Packing::High => {
            let register = &mut wave.v[dst].0[lane];
            *register = *register & 0xffff | value << 16;
        }
        Packing::Half => {
            let register = &mut wave.v[dst + component / 2].0[lane];
            *register = match component % 2 {
                0 => *register & 0xffff_0000 | value & 0xffff,
                _ => *register & 0xffff | value << 16,
            };
        }
    }
}

fn component(wave: &Wave, shape: Shape, src: usize, lane: usize, component: usize) -> u32 {
    match shape.registers {
        Packing::Full => wave.v[src + component].0[lane],
        Packing::High => wave.v[src].0[lane] >> 16,
        Packing::Half => wave.v[src + component / 2].0[lane] >> (16 * (component % 2)) & 0xffff,
    }
}

fn load(wave: &mut Wave, inst: &Inst, shape: Shape) -> Result<(), Fault> {
    let address = Address::read(wave, inst)?;
    let format = format(inst, &address, shape)?;
    if inst.memory.lds {
        let detail = "with `lds`: what a converting load leaves in LDS is not documented".into();
        return Err(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail });
    }
    let dst = registers(inst, inst.dst, shape.registers())?;
    // As many of memory's components as any of the instruction's is taken from.
    let needed = format.select[..shape.components]
        .iter()
        .filter(|&&select| select >= 4)
        .map(|&select| (select - 3) as usize)
        .max()
        .unwrap_or(0)
        .min(format.components);
    let needed = needed as u32 * format.bits / 8;
    let mut room = Room::uninit();
    let places = address.places(wave, 0, &Request::read(needed), &mut room)?;
    before_read(wave, &places, needed);
    let half = shape.is_half();
    for lane in lanes(places.lanes | places.zero) {
        let loads = places.lanes >> lane & 1 != 0;
        for part in 0..shape.components {
            let value = match format.select[part] {
                1 => one(&format, half),
                select @ 4..=7 => {
                    let from = (select - 4) as usize;
                    if !loads {
                        0
                    } else if from < format.components {
                        // SAFETY: `places` was made for a read of `needed` components, and `from` is one of them.
                        from_memory(&format, unsafe { read(&format, places.at(lane), from) }, half)
                    } else if from == 3 {
                        one(&format, half)
                    } else {
                        0
                    }
                }
                _ => 0,
            };
            set(wave, shape, dst, lane, part, value);
        }
    }
    Ok(())
}

fn store(wave: &mut Wave, inst: &Inst, shape: Shape) -> Result<(), Fault> {
    let address = Address::read(wave, inst)?;
    let format = format(inst, &address, shape)?;
    let src = registers(inst, inst.src[1], shape.registers())?;
    let detail = if shape.components < format.components {
        Some(format!("{} components of a format that has {}", shape.components, format.components))
    } else if format.select[..format.components] != IDENTITY[..format.components] {
        Some(format!("with components in the order {:?}", format.select))
    } else {
        None
    };
    if let Some(detail) = detail {
        return Err(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail });
    }
    let bytes = format.components as u32 * format.bits / 8;
    let mut room = Room::uninit();
    let places = address.places(wave, 0, &Request::write(bytes), &mut room)?;
    before_write(wave, &places, bytes);
    for lane in lanes(places.lanes) {
        for part in 0..format.components {
            let value = component(wave, shape, src, lane, part);
            let Some(bits) = to_memory(&format, value, shape.is_half()) else {
                let Format { bits, number, .. } = format;
                let detail =
                    format!("{value:#x} in lane {lane} does not fit {number:?} of {bits} bits exactly");
                return Err(Fault::Uncovered { mnemonic: inst.row.mnemonic, detail });
            };
            write(&format, &places, lane, part, bits);
        }
    }
    Ok(())
}

/// Stores a component of a lane.
fn write(format: &Format, places: &Places, lane: usize, component: usize, bits: u32) {
    let address = places.at(lane) + component as u64 * u64::from(format.bits / 8);
    // SAFETY: `places` was made for a write of all of the format's components.
    unsafe {
        match format.bits {
            8 => put(address, bits as u8),
            16 => put(address, bits as u16),
            _ => put(address, bits),
        }
    }
}

/// Defines the instructions: what they do, their components, their registers, and whether they are typed.
macro_rules! formats {
    ($($name:ident: $move:ident $components:literal $registers:ident $typed:literal;)+) => {
        $(pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            let shape = Shape { components: $components, registers: Packing::$registers, typed: $typed };
            let result = $move(wave, inst, shape);
            finish(wave, result)
        })+
    };
}

formats! {
    buffer_load_format_x: load 1 Full false;
    buffer_load_format_xy: load 2 Full false;
    buffer_load_format_xyz: load 3 Full false;
    buffer_load_format_xyzw: load 4 Full false;
    buffer_load_format_d16_x: load 1 Half false;
    buffer_load_format_d16_xy: load 2 Half false;
    buffer_load_format_d16_xyz: load 3 Half false;
    buffer_load_format_d16_xyzw: load 4 Half false;
    buffer_load_format_d16_hi_x: load 1 High false;
    buffer_store_format_x: store 1 Full false;
    buffer_store_format_xy: store 2 Full false;
    buffer_store_format_xyz: store 3 Full false;
    buffer_store_format_xyzw: store 4 Full false;
    buffer_store_format_d16_x: store 1 Half false;
    buffer_store_format_d16_xy: store 2 Half false;
    buffer_store_format_d16_xyz: store 3 Half false;
    buffer_store_format_d16_xyzw: store 4 Half false;
    buffer_store_format_d16_hi_x: store 1 High false;
    tbuffer_load_format_x: load 1 Full true;
    tbuffer_load_format_xy: load 2 Full true;
    tbuffer_load_format_xyz: load 3 Full true;
    tbuffer_load_format_xyzw: load 4 Full true;
    tbuffer_load_format_d16_x: load 1 Half true;
    tbuffer_load_format_d16_xy: load 2 Half true;
    tbuffer_load_format_d16_xyz: load 3 Half true;
    tbuffer_load_format_d16_xyzw: load 4 Half true;
    tbuffer_store_format_x: store 1 Full true;
    tbuffer_store_format_xy: store 2 Full true;
    tbuffer_store_format_xyz: store 3 Full true;
    tbuffer_store_format_xyzw: store 4 Full true;
    tbuffer_store_format_d16_x: store 1 Half true;
    tbuffer_store_format_d16_xy: store 2 Half true;
    tbuffer_store_format_d16_xyz: store 3 Half true;
    tbuffer_store_format_d16_xyzw: store 4 Half true;
}
