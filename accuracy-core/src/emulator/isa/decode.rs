//! Machine code to [`Inst`].

use super::table::{find, has_scalar_destination};
use super::uses::Uses;
use super::{
    Dpp, Encoding, Inst, Kind, Mark, MemoryBits, OpSel, Operand, Processor, Role, Row, Sdwa, Select, Special,
    Unused,
};

/// Why bytes are no instruction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("an instruction of {needed} bytes is cut off after {there}")]
    Truncated { needed: usize, there: usize },
    #[error("{processor} has no instruction with the word {word:#010x}")]
    Unknown { processor: &'static str, word: u32 },
    #[error("{processor} has no instruction with opcode {opcode:#x} in {encoding:?}")]
    Opcode { processor: &'static str, encoding: Encoding, opcode: u32 },
    #[error("{mnemonic}: {field} is {value:#x}, which is reserved")]
    Reserved { mnemonic: &'static str, field: &'static str, value: u32 },
}

/// The instruction at the start of `bytes`, of which 16 are enough for any.
///
/// # Errors
///
/// The bytes are too few, or no instruction of `processor`. What is reserved is an error, never a guess.
pub fn decode(processor: Processor, bytes: &[u8]) -> Result<Inst, DecodeError> {
    let code = Code::new(processor, bytes)?;
    let word = code.words[0];
    if word >> 31 == 0 {
        return match word >> 25 {
            0b011_1111 => short(code, Encoding::Vop1, word >> 9 & 0xff),
            0b011_1110 => short(code, Encoding::Vopc, word >> 17 & 0xff),
            opcode => short(code, Encoding::Vop2, opcode),
        };
    }
    if word >> 30 == 0b10 {
        return match word >> 23 {
            0b1_0111_1101 => scalar(code, Encoding::Sop1, word >> 8 & 0xff),
            0b1_0111_1110 => scalar(code, Encoding::Sopc, word >> 16 & 0x7f),
            0b1_0111_1111 => scalar(code, Encoding::Sopp, word >> 16 & 0x7f),
            _ if word >> 28 == 0b1011 => scalar(code, Encoding::Sopk, word >> 23 & 0x1f),
            _ => scalar(code, Encoding::Sop2, word >> 23 & 0x7f),
        };
    }
    match word >> 26 {
        0b11_0000 => scalar_memory(code),
        0b11_0100 if word >> 23 == 0b1_1010_0111 => packed(code),
        0b11_0100 => long(code),
        0b11_0110 => local(code),
        0b11_0111 => flat(code),
        0b11_1000 => buffer(code, Encoding::Mubuf, word >> 18 & 0x7f),
        0b11_1010 => buffer(code, Encoding::Mtbuf, word >> 15 & 0xf),
        _ => Err(DecodeError::Unknown { processor: processor.name(), word }),
    }
}

/// The bytes that are being decoded.
struct Code {
    processor: Processor,
    words: [u32; 4],
    /// Words that are there.
    there: usize,
    bytes_there: usize,
    /// Words that the instruction takes so far.
    used: usize,
    literal: Option<u32>,
}

/// Where a source of 8 or 9 bits stands, which decides what it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A scalar instruction, or the offset of a buffer instruction.
    Scalar,
    /// The first source of VOP1, VOP2 or VOPC.
    Short,
    /// A source of VOP3, VOP3P or SDWA, which has no literals.
    Long,
}

impl Code {
    fn new(processor: Processor, bytes: &[u8]) -> Result<Code, DecodeError> {
        let mut words = [0; 4];
        let mut there = 0;
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            there += 1;
        }
        let mut code = Code { processor, words, there, bytes_there: bytes.len(), used: 0, literal: None };
        code.take(1)?;
        Ok(code)
    }

    /// Lets the instruction have `count` words in all.
    fn take(&mut self, count: usize) -> Result<(), DecodeError> {
        if self.there < count {
            return Err(DecodeError::Truncated { needed: 4 * count, there: self.bytes_there });
        }
        self.used = count;
        Ok(())
    }

    fn find(&self, encoding: Encoding, opcode: u32) -> Result<&'static Row, DecodeError> {
        find(self.processor, encoding, opcode).ok_or(DecodeError::Opcode {
            processor: self.processor.name(),
            encoding,
            opcode,
        })
    }

    /// The 32 bits after the instruction, which all operands share.
    fn literal(&mut self) -> Result<u32, DecodeError> {
        if let Some(literal) = self.literal {
            return Ok(literal);
        }
        let at = self.used;
        self.take(at + 1)?;
        self.literal = Some(self.words[at]);
        Ok(self.words[at])
    }

    /// A source of 8 or 9 bits.
    fn source(
        &mut self,
        row: &'static Row,
        code: u32,
        kind: Kind,
        place: Place,
    ) -> Result<Operand, DecodeError> {
        let reserved = || DecodeError::Reserved { mnemonic: row.mnemonic, field: "a source", value: code };
        let special = |special| Ok(Operand::Special(special));
        match code {
            0..=127 => scalar_register(row, code, kind.registers()),
            128..=208 | 240..=248 => Ok(Operand::Constant(inline_constant(code, kind).ok_or_else(reserved)?)),
            235 => special(Special::SharedBase),
            236 => special(Special::SharedLimit),
            237 => special(Special::PrivateBase),
            238 => special(Special::PrivateLimit),
            239 => special(Special::PopsExitingWaveId),
            251 => special(Special::Vccz),
            252 => special(Special::Execz),
            253 => special(Special::Scc),
            254 if place != Place::Scalar && kind.registers() == 1 => special(Special::LdsDirect),
            255 if place != Place::Long => {
                let literal = self.literal()?;
                Ok(Operand::Constant(widen_literal(literal, kind)))
            }
            256..=511 if place != Place::Scalar => vector_register(row, code - 256, kind.registers(), false),
            _ => Err(reserved()),
        }
    }

    fn finish(self, mut inst: Inst) -> Inst {
        inst.size = 4 * self.used as u8;
        inst.words = self.words;
        inst.words[self.used..].fill(0);
        inst.uses = Uses::of(&inst);
        inst
    }
}

/// What an inline constant is in an operand of `kind`, or None if it has no meaning there.
fn inline_constant(code: u32, kind: Kind) -> Option<u64> {
    /// 1 / (2 * pi), rounded to each format.
    const INVERSE_OF_TWO_PI: (u64, u64, u64, u64) = (0x3118, 0x3e22, 0x3e22_f983, 0x3fc4_5f30_6dc9_c882);
    let double = |bits: u64| bits << 32 | bits;
    let integer = match code {
        128..=192 => Some(i64::from(code) - 128),
        193..=208 => Some(192 - i64::from(code)),
        _ => None,
    };
    if let Some(integer) = integer {
        return Some(match kind {
            Kind::B64 | Kind::I64 | Kind::U64 | Kind::F64 | Kind::F64x4 | Kind::Mask => integer as u64,
            Kind::PkF32 | Kind::PkB32 => double(u64::from(integer as u32)),
            _ => u64::from(integer as u32),
        });
    }
    let float32: u32 = match code {
        240 => 0x3f00_0000,
        241 => 0xbf00_0000,
        242 => 0x3f80_0000,
        243 => 0xbf80_0000,
        244 => 0x4000_0000,
        245 => 0xc000_0000,
        246 => 0x4080_0000,
        247 => 0xc080_0000,
        248 => INVERSE_OF_TWO_PI.2 as u32,
        _ => return None,
    };
    let is_odd_one = code == 248;
    // The others have an empty low half and a small exponent, so that the wider or narrower float is a matter of bits.
    let sign = u64::from(float32 >> 31);
    let exponent = u64::from(float32 >> 23 & 0xff);
    Some(match kind {
        Kind::F16 | Kind::PkF16 if is_odd_one => INVERSE_OF_TWO_PI.0,
        Kind::F16 | Kind::PkF16 => sign << 15 | (exponent + 15 - 127) << 10,
        Kind::BF16 | Kind::PkBF16 => u64::from(float32 >> 16),
        Kind::B64 | Kind::I64 | Kind::U64 | Kind::F64 | Kind::F64x4 | Kind::Mask if is_odd_one => {
            INVERSE_OF_TWO_PI.3
        }
        Kind::B64 | Kind::I64 | Kind::U64 | Kind::F64 | Kind::F64x4 | Kind::Mask => {
            sign << 63 | (exponent + 1023 - 127) << 52
        }
        Kind::PkF32 | Kind::PkB32 => double(u64::from(float32)),
        _ => u64::from(float32),
    })
}

/// What a literal of 32 bits is in an operand of `kind`.
fn widen_literal(literal: u32, kind: Kind) -> u64 {
    match kind {
        Kind::F64 | Kind::F64x4 => u64::from(literal) << 32,
        Kind::I64 => i64::from(literal as i32) as u64,
        _ => u64::from(literal),
    }
}

/// The first of `count` scalar registers, which have to be aligned and of one sort.
fn scalar_register(row: &'static Row, first: u32, count: u16) -> Result<Operand, DecodeError> {
    let count = u32::from(count);
    let alignment = match count {
        1 | 2 => count,
        _ => 4,
    };
    let aligned = first.is_multiple_of(alignment);
    let end = first + count;
    let of_one_sort = match first {
        0..=101 => end <= 102 || (count > 2 && end <= 104),
        102..=107 => count <= 2,
        108..=123 => end <= 124,
        124 => count == 1,
        126..=127 => end <= 128,
        _ => false,
    };
    if aligned && of_one_sort {
        Ok(Operand::Scalar(first as u8))
    } else {
        Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "a scalar register", value: first })
    }
}

/// The first of `count` vector registers, which begin with an even one if they are several.
fn vector_register(
    row: &'static Row,
    first: u32,
    count: u16,
    accumulation: bool,
) -> Result<Operand, DecodeError> {
    let first = first as u16;
    if first + count > 256 || (count > 1 && first & 1 != 0) {
        return Err(DecodeError::Reserved {
            mnemonic: row.mnemonic,
            field: "a vector register",
            value: u32::from(first),
        });
    }
    Ok(Operand::Vector(if accumulation { first + 256 } else { first }))
}

/// An error if a field that has to be zero is not.
fn zero(row: &'static Row, field: &'static str, value: u32) -> Result<(), DecodeError> {
    if value == 0 { Ok(()) } else { Err(DecodeError::Reserved { mnemonic: row.mnemonic, field, value }) }
}

/// SOP1, SOP2, SOPK, SOPC and SOPP.
fn scalar(mut code: Code, encoding: Encoding, opcode: u32) -> Result<Inst, DecodeError> {
    let row = code.find(encoding, opcode)?;
    let word = code.words[0];
    let mut inst = Inst::new(row, encoding);
    let immediate = i32::from(word as u16 as i16);
    let fields = match encoding {
        Encoding::Sop1 => [word & 0xff, 0],
        _ => [word & 0xff, word >> 8 & 0xff],
    };
    let mut sources = 0;
    for slot in row.operands {
        match (slot.role, encoding) {
            (Role::Dst | Role::DstSrc, _) => {
                inst.dst = scalar_register(row, word >> 16 & 0x7f, slot.kind.registers())?;
            }
            (_, Encoding::Sopk) => {
                inst.src[0] = scalar_register(row, word >> 16 & 0x7f, slot.kind.registers())?
            }
            _ => {
                let field = fields[sources];
                if field >= 128 && row.is(Mark::Register) {
                    return Err(DecodeError::Reserved {
                        mnemonic: row.mnemonic,
                        field: "SSRC0",
                        value: field,
                    });
                }
                inst.src[sources] = code.source(row, field, slot.kind, Place::Scalar)?;
                sources += 1;
            }
        }
    }
    match (encoding, row.mnemonic) {
        (Encoding::Sopc, "s_set_gpr_idx_on") => inst.imm = (word >> 8 & 0xff) as i32,
        (Encoding::Sopk, "s_setreg_imm32_b32") => {
            inst.imm = i32::from(word as u16);
            inst.imm2 = code.literal()?;
        }
        (Encoding::Sopk, "s_getreg_b32" | "s_setreg_b32") => inst.imm = i32::from(word as u16),
        (Encoding::Sopk, _) if row.is(Mark::Unsigned) => inst.imm = i32::from(word as u16),
        (Encoding::Sopp, _) if row.is(Mark::Bare) => zero(row, "SIMM16", word & 0xffff)?,
        (Encoding::Sopk | Encoding::Sopp, _) => inst.imm = immediate,
        _ => {}
    }
    Ok(code.finish(inst))
}

/// SMEM.
fn scalar_memory(mut code: Code) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let [low, high, ..] = code.words;
    let row = code.find(Encoding::Smem, low >> 18 & 0xff)?;
    let mut inst = Inst::new(row, Encoding::Smem);
    inst.memory.sc0 = low >> 16 & 1 != 0;
    let data = low >> 6 & 0x7f;
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst => inst.dst = scalar_data(row, data, registers)?,
            Role::Src => inst.src[1] = scalar_data(row, data, registers)?,
            Role::DstSrc => {
                inst.src[1] = scalar_data(row, data, registers)?;
                if inst.memory.sc0 {
                    inst.dst = inst.src[1];
                }
            }
            Role::Base => inst.src[3] = scalar_register(row, (low & 0x3f) << 1, registers)?,
            Role::Address => {}
        }
    }
    if !matches!(inst.src[3], Operand::None) {
        let (has_register, has_immediate) = (low >> 14 & 1 != 0, low >> 17 & 1 != 0);
        if has_immediate {
            inst.imm = (high << 11) as i32 >> 11;
        }
        if has_register {
            inst.src[2] = scalar_register(row, high >> 25, 1)?;
        } else if !has_immediate {
            inst.src[2] = scalar_register(row, high & 0x7f, 1)?;
        }
        if row.mnemonic.starts_with("s_atc_probe") {
            inst.imm2 = data;
        }
    } else {
        zero(row, "IMM", low >> 17 & 1)?;
    }
    Ok(code.finish(inst))
}

/// Registers that scalar memory instructions read or write, which M0 and EXEC cannot be.
fn scalar_data(row: &'static Row, first: u32, count: u16) -> Result<Operand, DecodeError> {
    if first >= 124 {
        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SDATA", value: first });
    }
    scalar_register(row, first, count)
}

/// The pair of scalar registers that short forms read and write masks in.
const VCC: Operand = Operand::Scalar(106);

/// Whether a slot is a mask in scalar registers.
fn is_mask(slot: &super::Slot) -> bool {
    slot.kind == Kind::Mask
}

/// VOP1, VOP2 and VOPC, with SDWA and DPP.
fn short(mut code: Code, encoding: Encoding, opcode: u32) -> Result<Inst, DecodeError> {
    let row = code.find(encoding, opcode)?;
    let word = code.words[0];
    let mut inst = Inst::new(row, encoding);
    let first = word & 0x1ff;
    let second = word >> 9 & 0xff;
    if first == 249 || first == 250 {
        let there = if first == 249 { row.forms.sdwa } else { row.forms.dpp };
        if !there {
            return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SRC0", value: first });
        }
        code.take(2)?;
    }
    let literal = [Mark::LiteralSecond, Mark::LiteralThird].into_iter().position(|mark| row.is(mark));
    let mut sources = 0;
    let mut destinations = 0;
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst | Role::DstSrc if destinations == 0 => {
                destinations = 1;
                inst.dst = match row.mnemonic {
                    _ if encoding == Encoding::Vopc => VCC,
                    "v_readfirstlane_b32" => lane_register(row, word >> 17 & 0xff)?,
                    mnemonic => {
                        vector_register(row, word >> 17 & 0xff, registers, mnemonic == "v_accvgpr_mov_b32")?
                    }
                };
            }
            Role::Dst if is_mask(slot) => inst.sdst = VCC,
            _ if is_mask(slot) => inst.src[3] = VCC,
            _ => {
                inst.src[sources] = match sources {
                    0 => short_first(&mut code, row, first, slot.kind)?,
                    _ if literal.is_some_and(|before| sources == before + 1) => {
                        Operand::Constant(widen_literal(code.literal()?, slot.kind))
                    }
                    _ => vector_register(row, second, registers, false)?,
                };
                sources += 1;
            }
        }
    }
    if destinations == 0 && encoding == Encoding::Vop1 {
        // v_nop and v_clrexcp
        zero(row, "a field", word & 0x1fe_01ff)?;
        return Ok(code.finish(inst));
    }
    match first {
        249 => sub_dword(&code, row, &mut inst)?,
        250 => parallel(&code, row, &mut inst)?,
        _ => {}
    }
    Ok(code.finish(inst))
}

/// The first source of VOP1, VOP2 and VOPC, in SDWA and DPP from the second word.
fn short_first(code: &mut Code, row: &'static Row, first: u32, kind: Kind) -> Result<Operand, DecodeError> {
    let register = code.words[1] & 0xff;
    match first {
        249 if code.words[1] >> 23 & 1 != 0 => code.source(row, register, kind, Place::Long),
        249 | 250 => vector_register(row, register, kind.registers(), false),
        _ if row.mnemonic == "v_accvgpr_mov_b32" && first >= 256 => {
            vector_register(row, first - 256, 1, true)
        }
        _ if first < 256
            && takes_vector_alone(row)
            && !(first == 254 && row.mnemonic == "v_readfirstlane_b32") =>
        {
            Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SRC0", value: first })
        }
        _ => code.source(row, first, kind, Place::Short),
    }
}

/// The scalar register that a lane is read into, which cannot be M0.
fn lane_register(row: &'static Row, register: u32) -> Result<Operand, DecodeError> {
    if register == 124 {
        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "VDST", value: register });
    }
    scalar_register(row, register, 1)
}

/// Whether the first source has to be a vector register.
fn takes_vector_alone(row: &Row) -> bool {
    matches!(
        row.mnemonic,
        "v_readfirstlane_b32"
            | "v_swap_b32"
            | "v_accvgpr_mov_b32"
            | "v_permlane16_swap_b32"
            | "v_permlane32_swap_b32"
    )
}

/// Reads the second word of SDWA.
fn sub_dword(code: &Code, row: &'static Row, inst: &mut Inst) -> Result<(), DecodeError> {
    let [first, word, ..] = code.words;
    let bit = |at: u32| word >> at & 1 != 0;
    let select = |at: u32| match word >> at & 7 {
        0 => Ok(Select::Byte0),
        1 => Ok(Select::Byte1),
        2 => Ok(Select::Byte2),
        3 => Ok(Select::Byte3),
        4 => Ok(Select::Word0),
        5 => Ok(Select::Word1),
        6 => Ok(Select::Dword),
        value => Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "a selection", value }),
    };
    let two = inst.encoding != Encoding::Vop1;
    let mut sdwa =
        Sdwa { dst: Select::Dword, unused: Unused::Pad, src: [Select::Dword; 2], sext: [false; 2] };
    sdwa.src[0] = select(16)?;
    if two {
        sdwa.src[1] = select(24)?;
        inst.src[1] = match (bit(31), first >> 9 & 0xff) {
            (true, register) => {
                let kind =
                    row.operands.iter().filter(|slot| slot.role == Role::Src).nth(1).map(|slot| slot.kind);
                let mut code = Code { literal: None, ..*code };
                code.source(row, register, kind.unwrap_or(Kind::B32), Place::Long)?
            }
            (false, _) => inst.src[1],
        };
    }
    for source in 0..if two { 2 } else { 1 } {
        let at = 16 + 8 * source;
        if row.modifiers.float & 1 << source != 0 {
            inst.neg |= u8::from(bit(at + 4)) << source;
            inst.abs |= u8::from(bit(at + 5)) << source;
            zero(row, "the sign extension of a float", u32::from(bit(at + 3)))?;
        } else {
            sdwa.sext[source as usize] = bit(at + 3);
            zero(row, "the negation of an integer", word >> (at + 4) & 3)?;
        }
    }
    if !two {
        zero(row, "the second source", word >> 24 & 0xbf)?;
    }
    if inst.encoding == Encoding::Vopc {
        if bit(15) {
            inst.dst = scalar_register(row, word >> 8 & 0x7f, 2)?;
        }
    } else {
        sdwa.dst = select(8)?;
        if row.is(Mark::FromByte) && sdwa.dst != Select::Dword {
            let value = word >> 8 & 7;
            return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "DST_SEL", value });
        }
        sdwa.unused = match word >> 11 & 3 {
            0 => Unused::Pad,
            1 => Unused::SignExtend,
            2 => Unused::Preserve,
            value => {
                return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "DST_UNUSED", value });
            }
        };
        inst.clamp = bit(13);
        if row.operands[0].kind.is_float() {
            inst.omod = (word >> 14 & 3) as u8;
        } else {
            zero(row, "the output modifier of an integer", word >> 14 & 3)?;
        }
    }
    if row.mnemonic == "v_pk_fmac_f16" {
        // The bits are there and have no effect.
        (inst.neg, inst.abs) = (0, 0);
    }
    inst.sdwa = Some(sdwa);
    Ok(())
}

/// Reads the second word of DPP.
fn parallel(code: &Code, row: &'static Row, inst: &mut Inst) -> Result<(), DecodeError> {
    let word = code.words[1];
    let bit = |at: u32| word >> at & 1 != 0;
    let control = (word >> 8 & 0x1ff) as u16;
    let is_wide = row.operands.iter().any(|slot| slot.kind.registers() == 2 && !is_mask(slot));
    let known = match control {
        0x150..=0x15f => true,
        // Operands of 64 bits can be broadcast from one lane of a row, and nothing else.
        _ if is_wide => false,
        0x000..=0x0ff => true,
        0x101..=0x10f | 0x111..=0x11f | 0x121..=0x12f => true,
        0x130 | 0x134 | 0x138 | 0x13c | 0x140..=0x143 => true,
        _ => false,
    };
    if !known {
        return Err(DecodeError::Reserved {
            mnemonic: row.mnemonic,
            field: "DPP_CTRL",
            value: u32::from(control),
        });
    }
    zero(row, "a bit of DPP", word >> 17 & 3)?;
    for source in 0..2 {
        let (neg, abs) = (bit(20 + 2 * source), bit(21 + 2 * source));
        if row.modifiers.float & 1 << source != 0 {
            inst.neg |= u8::from(neg) << source;
            inst.abs |= u8::from(abs) << source;
        } else if row.modifiers.ignored & 1 << source == 0 {
            zero(row, "the negation of an integer", u32::from(neg || abs))?;
        }
    }
    inst.dpp = Some(Dpp {
        control,
        row_mask: (word >> 28) as u8,
        bank_mask: (word >> 24 & 0xf) as u8,
        bound_ctrl: bit(19),
    });
    Ok(())
}

/// VOP3 and VOP3B.
fn long(mut code: Code) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let [low, high, ..] = code.words;
    let row = code.find(Encoding::Vop3, low >> 16 & 0x3ff)?;
    let carries = has_scalar_destination(row);
    let mut inst = Inst::new(row, if carries { Encoding::Vop3b } else { Encoding::Vop3 });
    let fields = [high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff];
    let mut sources = 0;
    let mut field = 0;
    let mut destinations = 0;
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst | Role::DstSrc if destinations == 0 => {
                destinations = 1;
                inst.dst = match row.mnemonic {
                    "v_readlane_b32" => lane_register(row, low & 0xff)?,
                    _ if is_mask(slot) => scalar_register(row, low & 0xff, 2)?,
                    _ => vector_register(row, low & 0xff, registers, false)?,
                };
            }
            Role::Dst if is_mask(slot) => inst.sdst = scalar_register(row, low >> 8 & 0x7f, 2)?,
            _ if is_mask(slot) => {
                inst.src[3] = match fields[field] {
                    register @ 0..=127 => scalar_register(row, register, 2)?,
                    value => {
                        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SRC2", value });
                    }
                };
                field += 1;
            }
            _ => {
                inst.src[sources] = long_source(&mut code, row, sources, fields[field], slot.kind)?;
                sources += 1;
                field += 1;
            }
        }
    }
    if row.mnemonic.starts_with("v_div_fmas") {
        inst.src[3] = VCC;
    }
    if destinations == 0 {
        zero(row, "a field", low & 0xffff | high)?;
        return Ok(code.finish(inst));
    }
    long_modifiers(row, low, high, &mut inst)?;
    Ok(code.finish(inst))
}

fn long_source(
    code: &mut Code,
    row: &'static Row,
    index: usize,
    field: u32,
    kind: Kind,
) -> Result<Operand, DecodeError> {
    let only_vector = kind.registers() > 2
        || (row.mnemonic == "v_readlane_b32" && index == 0)
        || row.mnemonic == "v_cvt_scalef32_sr_pk_fp4_f32" && index == 0
        || row.mnemonic.starts_with("v_permlane");
    let only_scalar = (row.mnemonic == "v_readlane_b32" && index == 1) || row.mnemonic == "v_writelane_b32";
    if (only_vector && field < 256) || (only_scalar && field >= 254) {
        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "a source", value: field });
    }
    code.source(row, field, kind, Place::Long)
}

/// Reads what VOP3 has beside opcode and operands.
fn long_modifiers(row: &'static Row, low: u32, high: u32, inst: &mut Inst) -> Result<(), DecodeError> {
    let modifiers = row.modifiers;
    let neg = high >> 29;
    let omod = high >> 27 & 3;
    if modifiers.bitop {
        inst.imm = (neg | (low >> 8 & 7) << 3 | omod << 6) as i32;
        inst.op_sel = (low >> 11 & 0xf) as u8;
        if row.mnemonic == "v_bitop3_b32" {
            zero(row, "OP_SEL", u32::from(inst.op_sel))?;
        }
        return zero(row, "CLAMP", low >> 15 & 1);
    }
    let forbidden = !u32::from(modifiers.float | modifiers.ignored);
    zero(row, "NEG", neg & forbidden)?;
    inst.neg = neg as u8 & modifiers.float;
    if inst.encoding == Encoding::Vop3 {
        let abs = low >> 8 & 7;
        zero(row, "ABS", abs & forbidden)?;
        inst.abs = abs as u8 & modifiers.float;
        let op_sel = low >> 11 & 0xf;
        if matches!(modifiers.op_sel, OpSel::IgnoredButThird | OpSel::UsedButThird) {
            zero(row, "OP_SEL of the third source", op_sel & 4)?;
        }
        if matches!(modifiers.op_sel, OpSel::Used | OpSel::UsedButThird) {
            inst.op_sel = op_sel as u8;
        }
    }
    inst.clamp = low >> 15 & 1 != 0;
    if !modifiers.clamp {
        zero(row, "CLAMP", low >> 15 & 1)?;
    }
    inst.omod = omod as u8;
    if !modifiers.omod {
        zero(row, "OMOD", omod)?;
    }
    Ok(())
}

/// VOP3P, MAI and VOP3PX2.
fn packed(mut code: Code) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let opcode = code.words[0] >> 16 & 0x7f;
    if let Some(row) = find(code.processor, Encoding::Mai, opcode) {
        return matrix(code, row);
    }
    let row = code.find(Encoding::Vop3p, opcode)?;
    if row.mnemonic == "v_mfma_ld_scale_b32" && code.there >= 4 && code.words[2] >> 23 == 0b1_1010_0111 {
        // ABID says that the matrix instruction uses the scales.
        let uses_scales = code.words[2] >> 11 & 15 == 1;
        if let Some(row) = find(code.processor, Encoding::Vop3px2, code.words[2] >> 16 & 0x7f)
            && uses_scales
        {
            return scaled_matrix(code, row);
        }
    }
    let [low, high, ..] = code.words;
    let mut inst = Inst::new(row, Encoding::Vop3p);
    let fields = [high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff];
    inst.neg = (high >> 29) as u8;
    inst.neg_hi = (low >> 8 & 7) as u8;
    inst.op_sel = (low >> 11 & 7) as u8;
    inst.op_sel_hi = (high >> 27 & 3 | (low >> 14 & 1) << 2) as u8;
    inst.clamp = low >> 15 & 1 != 0;
    let mixes = row.is(Mark::Mixes);
    let mut sources = 0;
    for slot in row.operands {
        match slot.role {
            Role::Dst | Role::DstSrc => {
                inst.dst = vector_register(row, low & 0xff, slot.kind.registers(), false)?
            }
            _ => {
                let is_half = mixes && inst.op_sel_hi & 1 << sources != 0;
                let kind = if is_half { Kind::F16 } else { slot.kind };
                inst.src[sources] = code.source(row, fields[sources], kind, Place::Long)?;
                sources += 1;
            }
        }
    }
    if sources == 2 {
        zero(row, "NEG", u32::from(inst.neg & 4))?;
        zero(row, "NEG_HI", u32::from(inst.neg_hi & 4))?;
        zero(row, "OP_SEL", u32::from(inst.op_sel & 4))?;
        inst.op_sel_hi &= 3;
    }
    if row.is(Mark::Whole) {
        zero(row, "OP_SEL", u32::from(inst.op_sel))?;
        inst.op_sel_hi = 7;
    }
    if row.mnemonic == "v_mfma_ld_scale_b32" {
        zero(row, "VDST", low & 0xff)?;
        zero(row, "CLAMP", u32::from(inst.clamp))?;
        (inst.neg, inst.neg_hi) = (0, 0);
    }
    if mixes {
        inst.abs = inst.neg_hi;
        inst.neg_hi = 0;
    }
    Ok(code.finish(inst))
}

/// Registers that A or B of `v_mfma_*_f8f6f4` takes, by its format.
fn registers_of_format(format: u8) -> Option<u16> {
    match format {
        0 | 1 => Some(8),
        2 | 3 => Some(6),
        4 => Some(4),
        _ => None,
    }
}

/// MAI: `low` and `high` are the words of the matrix instruction itself.
fn matrix(mut code: Code, row: &'static Row) -> Result<Inst, DecodeError> {
    let [low, high, ..] = code.words;
    let mut inst = Inst::new(row, Encoding::Mai);
    matrix_operands(&mut code, row, low, high, &mut inst)?;
    Ok(code.finish(inst))
}

fn matrix_operands(
    code: &mut Code,
    row: &'static Row,
    low: u32,
    high: u32,
    inst: &mut Inst,
) -> Result<(), DecodeError> {
    let fields = [high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff];
    let accumulates = low >> 15 & 1 != 0;
    let mixed_formats = row.is(Mark::Formats);
    match row.mnemonic {
        "v_accvgpr_read_b32" | "v_accvgpr_write_b32" => {
            let writes = row.mnemonic == "v_accvgpr_write_b32";
            inst.dst = vector_register(row, low & 0xff, 1, writes)?;
            inst.src[0] = match fields[0] {
                register @ 256..=511 => vector_register(row, register - 256, 1, !writes)?,
                other if writes => code.source(row, other, Kind::B32, Place::Long)?,
                value => return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SRC0", value }),
            };
            zero(row, "a source that it has not", high >> 9 & 0x3ffff)?;
            zero(row, "NEG", high >> 29)?;
            return zero(row, "a modifier", low >> 8 & 0x3f);
        }
        _ => {}
    }
    inst.matrix.cbsz = (low >> 8 & 7) as u8;
    inst.matrix.abid = (low >> 11 & 15) as u8;
    inst.matrix.blgp = (high >> 29) as u8;
    let sparse = row.is(Mark::Sparse);
    let format = |field, value: u8| {
        registers_of_format(value).ok_or(DecodeError::Reserved {
            mnemonic: row.mnemonic,
            field,
            value: u32::from(value),
        })
    };
    let wide = [format("CBSZ", inst.matrix.cbsz), format("BLGP", inst.matrix.blgp)];
    let mut sources = 0;
    for slot in row.operands.iter().take(4) {
        let mut registers = slot.kind.registers();
        if matches!(slot.role, Role::Dst | Role::DstSrc) {
            inst.dst = vector_register(row, low & 0xff, registers, accumulates)?;
            continue;
        }
        let field = fields[sources];
        if mixed_formats && sources < 2 {
            registers = wide[sources].clone()?;
        }
        inst.src[sources] = match (sources, field) {
            (0 | 1, 256..) => vector_register(row, field - 256, registers, high >> (27 + sources) & 1 != 0)?,
            (2, 256..) => vector_register(row, field - 256, registers, accumulates && !sparse)?,
            (2, 128..=208 | 240..=248) if !sparse => code.source(row, field, slot.kind, Place::Long)?,
            (_, value) => {
                return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "a source", value });
            }
        };
        sources += 1;
    }
    if mixed_formats && inst.encoding == Encoding::Mai {
        zero(row, "ABID", u32::from(inst.matrix.abid))?;
    }
    if sparse {
        zero(row, "BLGP", u32::from(inst.matrix.blgp))?;
    }
    if row.is(Mark::Negates) {
        inst.neg = inst.matrix.blgp;
        inst.matrix.blgp = 0;
    }
    Ok(())
}

/// VOP3PX2: `v_mfma_ld_scale_b32` and the matrix instruction after it are one.
fn scaled_matrix(mut code: Code, row: &'static Row) -> Result<Inst, DecodeError> {
    code.take(4)?;
    let [prefix, scales, low, high] = code.words;
    let mut inst = Inst::new(row, Encoding::Vop3px2);
    matrix_operands(&mut code, row, low, high, &mut inst)?;
    inst.matrix.abid = 0;
    inst.op_sel = (prefix >> 11 & 3) as u8;
    inst.op_sel_hi = (scales >> 27 & 3) as u8;
    for index in 0..2 {
        let field = scales >> (9 * index) & 0x1ff;
        if field < 256 {
            return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "a scale", value: field });
        }
        inst.matrix.scale[index] = vector_register(row, field - 256, 1, false)?;
        inst.matrix.scale_byte[index] = inst.op_sel >> index & 1 | (inst.op_sel_hi >> index & 1) << 1;
    }
    Ok(code.finish(inst))
}

/// DS.
fn local(mut code: Code) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let [low, high, ..] = code.words;
    let row = code.find(Encoding::Ds, low >> 17 & 0xff)?;
    let mut inst = Inst::new(row, Encoding::Ds);
    let is_global_sync = row.is(Mark::GlobalSync);
    let accumulation = low >> 25 & 1 != 0;
    let mut data = 0;
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst | Role::DstSrc => inst.dst = vector_register(row, high >> 24, registers, accumulation)?,
            // What global wave sync reads is encoded as an address and counts as data.
            Role::Address => {
                inst.src[0] = vector_register(row, high & 0xff, registers, accumulation && is_global_sync)?;
            }
            _ => {
                inst.src[1 + data] =
                    vector_register(row, high >> (8 + 8 * data) & 0xff, registers, accumulation)?;
                data += 1;
            }
        }
    }
    let used = |role| row.operands.iter().filter(|slot| slot.role == role).count();
    if used(Role::Dst) + used(Role::DstSrc) == 0 {
        zero(row, "VDST", high >> 24)?;
    }
    if used(Role::Address) == 0 {
        zero(row, "ADDR", high & 0xff)?;
    }
    zero(row, "data that it has not", (high >> 8 & 0xffff) >> (8 * data))?;
    if row.operands.is_empty() && !is_global_sync {
        zero(row, "a field", low & 0x201_ffff)?;
    }
    if row.is(Mark::TwoOffsets) {
        inst.imm = (low & 0xff) as i32;
        inst.imm2 = low >> 8 & 0xff;
    } else {
        inst.imm = (low & 0xffff) as i32;
    }
    inst.memory.gds = low >> 16 & 1 != 0;
    if row.mnemonic.contains("permute") {
        zero(row, "GDS", u32::from(inst.memory.gds))?;
    }
    if is_global_sync && row.operands.is_empty() {
        zero(row, "ACC", u32::from(accumulation))?;
    }
    if is_global_sync && !inst.memory.gds {
        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "GDS", value: 0 });
    }
    Ok(code.finish(inst))
}

/// FLAT, GLOBAL and SCRATCH.
fn flat(mut code: Code) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let [low, high, ..] = code.words;
    let encoding = match low >> 14 & 3 {
        0 => Encoding::Flat,
        1 => Encoding::Scratch,
        2 => Encoding::Global,
        _ => return Err(DecodeError::Unknown { processor: code.processor.name(), word: low }),
    };
    let row = code.find(encoding, low >> 18 & 0x7f)?;
    let mut inst = Inst::new(row, encoding);
    inst.memory = MemoryBits {
        sc0: low >> 16 & 1 != 0,
        nt: low >> 17 & 1 != 0,
        sc1: low >> 25 & 1 != 0,
        lds: row.is(Mark::Lds),
        ..MemoryBits::default()
    };
    if inst.memory.lds {
        zero(row, "ACC", high >> 23 & 1)?;
    }
    let is_atomic = row.is(Mark::Atomic);
    let accumulation = high >> 23 & 1 != 0;
    let base = high >> 16 & 0x7f;
    let has_base = encoding != Encoding::Flat && base != 0x7f;
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst | Role::DstSrc if !is_atomic || inst.memory.sc0 => {
                inst.dst = vector_register(row, high >> 24, registers, accumulation)?;
            }
            Role::Dst | Role::DstSrc | Role::Base => {}
            Role::Address => {
                let has_address = encoding != Encoding::Scratch || low >> 13 & 1 != 0;
                if has_address {
                    let registers = if has_base { 1 } else { registers };
                    inst.src[0] = vector_register(row, high & 0xff, registers, false)?;
                }
            }
            Role::Src => inst.src[1] = vector_register(row, high >> 8 & 0xff, registers, accumulation)?,
        }
    }
    match encoding {
        Encoding::Flat => {
            zero(row, "SADDR", base)?;
            zero(row, "OFFSET", low >> 12 & 3)?;
            inst.imm = (low & 0xfff) as i32;
        }
        _ => {
            if has_base {
                let registers = if encoding == Encoding::Global { 2 } else { 1 };
                if registers == 2 && base == 126 {
                    return Err(DecodeError::Reserved {
                        mnemonic: row.mnemonic,
                        field: "SADDR",
                        value: base,
                    });
                }
                inst.src[3] = scalar_register(row, base, registers)?;
            }
            if encoding == Encoding::Global {
                zero(row, "SVE", low >> 13 & 1)?;
            }
            inst.imm = (low << 19) as i32 >> 19;
        }
    }
    Ok(code.finish(inst))
}

/// MUBUF and MTBUF.
fn buffer(mut code: Code, encoding: Encoding, opcode: u32) -> Result<Inst, DecodeError> {
    code.take(2)?;
    let [low, high, ..] = code.words;
    let row = code.find(encoding, opcode)?;
    let mut inst = Inst::new(row, encoding);
    let bit = |word: u32, at: u32| word >> at & 1 != 0;
    inst.memory =
        MemoryBits { offen: bit(low, 12), idxen: bit(low, 13), sc0: bit(low, 14), ..MemoryBits::default() };
    if encoding == Encoding::Mubuf {
        (inst.memory.sc1, inst.memory.nt, inst.memory.lds) = (bit(low, 15), bit(low, 17), bit(low, 16));
    } else {
        (inst.memory.sc1, inst.memory.nt) = (bit(high, 21), bit(high, 22));
        inst.memory.format = (low >> 19 & 0x7f) as u8;
    }
    inst.imm = (low & 0xfff) as i32;
    if row.operands.is_empty() {
        // buffer_wbl2 and buffer_inv have the cache bits alone.
        zero(row, "an operand", low & 0x13000 | high & 1 << 23)?;
        return Ok(code.finish(inst));
    }
    let loads_to_lds =
        row.is(Mark::LdsToo) || row.is(Mark::LdsTooOnGfx950) && code.processor == Processor::Gfx950;
    if inst.memory.lds && !loads_to_lds {
        zero(row, "LDS", 1)?;
    }
    let accumulation = bit(high, 23);
    if inst.memory.lds {
        zero(row, "ACC", u32::from(accumulation))?;
    }
    for slot in row.operands {
        let registers = slot.kind.registers();
        match slot.role {
            Role::Dst | Role::DstSrc | Role::Src => {
                if inst.memory.lds {
                    continue;
                }
                let data = vector_register(row, high >> 8 & 0xff, registers, accumulation)?;
                let is_atomic = row.is(Mark::Atomic);
                if slot.role == Role::Src || is_atomic {
                    inst.src[1] = data;
                }
                if slot.role != Role::Src && (!is_atomic || inst.memory.sc0) {
                    inst.dst = data;
                }
            }
            Role::Address => {
                let count = u16::from(inst.memory.offen) + u16::from(inst.memory.idxen);
                if count > 0 {
                    inst.src[0] = vector_register(row, high & 0xff, count, false)?;
                }
            }
            Role::Base => inst.src[3] = scalar_register(row, (high >> 16 & 0x1f) << 2, registers)?,
        }
    }
    let offset = high >> 24;
    if offset == 255 {
        return Err(DecodeError::Reserved { mnemonic: row.mnemonic, field: "SOFFSET", value: offset });
    }
    inst.src[2] = code.source(row, offset, Kind::B32, Place::Scalar)?;
    Ok(code.finish(inst))
}
