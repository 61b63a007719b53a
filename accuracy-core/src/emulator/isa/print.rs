//! Instructions as text, the way LLVM's disassembler writes them.

use std::fmt::{Display, Formatter, Result, Write};

use super::{Encoding, Inst, Kind, OpSel, Operand, Role, Select, Slot, Special, Unused};

impl Display for Inst {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mnemonic = self.row.mnemonic;
        write!(f, "{mnemonic}{}", self.suffix())?;
        match self.encoding {
            Encoding::Sop1 | Encoding::Sop2 | Encoding::Sopc => self.scalar(f),
            Encoding::Sopk => self.scalar_immediate(f),
            Encoding::Sopp => program(f, mnemonic, self.imm as u16),
            Encoding::Smem => self.scalar_memory(f),
            Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc | Encoding::Vop3 | Encoding::Vop3b => {
                self.vector(f)
            }
            Encoding::Vop3p => self.packed(f),
            Encoding::Mai | Encoding::Vop3px2 => self.matrix(f),
            Encoding::Ds => self.local(f),
            Encoding::Flat | Encoding::Global | Encoding::Scratch => self.flat(f),
            Encoding::Mubuf | Encoding::Mtbuf => self.buffer(f),
        }
    }
}

/// Writes what separates an operand from what is before it.
struct List {
    is_first: bool,
}

impl List {
    fn new() -> List {
        List { is_first: true }
    }

    fn item(&mut self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.is_first { " " } else { ", " })?;
        self.is_first = false;
        Ok(())
    }
}

impl Inst {
    /// What LLVM appends to the mnemonic.
    fn suffix(&self) -> &'static str {
        let is_short = matches!(self.row.encoding, Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc);
        match self.encoding {
            _ if self.sdwa.is_some() => "_sdwa",
            _ if self.dpp.is_some() => "_dpp",
            _ if self.row.operands.is_empty() => "",
            Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc if self.row.forms.long => "_e32",
            Encoding::Vop3 | Encoding::Vop3b if is_short => "_e64",
            _ => "",
        }
    }

    /// The codes of the sources in machine code, by which constants are told apart.
    fn codes(&self) -> [u32; 3] {
        let [low, high, ..] = self.words;
        match self.encoding {
            Encoding::Sop1 | Encoding::Sop2 | Encoding::Sopc => [low & 0xff, low >> 8 & 0xff, 0],
            Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc if self.sdwa.is_some() => {
                [high & 0xff, low >> 9 & 0xff, 0]
            }
            Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc => [low & 0x1ff, 0, 0],
            Encoding::Mubuf | Encoding::Mtbuf => [0, 0, high >> 24],
            Encoding::Vop3px2 => {
                let high = self.words[3];
                [high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff]
            }
            _ => [high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff],
        }
    }

    /// Writes an operand with as many registers as `kind` takes.
    fn operand(&self, f: &mut Formatter<'_>, operand: Operand, kind: Kind, code: u32) -> Result {
        match operand {
            Operand::None => f.write_str("off"),
            Operand::Vector(first) => vector_register(f, first, kind.registers()),
            Operand::Scalar(first) => scalar_register(f, first, kind.registers()),
            Operand::Special(special) => f.write_str(special.name()),
            Operand::Constant(_) if code == 255 => literal(f, self.words[self.literal_word()], kind),
            Operand::Constant(bits) => inline_constant(f, code, bits, kind),
        }
    }

    /// Index of the word that holds the literal.
    fn literal_word(&self) -> usize {
        usize::from(self.size / 4).saturating_sub(1)
    }

    fn scalar(&self, f: &mut Formatter<'_>) -> Result {
        let mut list = List::new();
        let mut sources = 0;
        for slot in self.row.operands {
            list.item(f)?;
            match slot.role {
                Role::Dst | Role::DstSrc => self.operand(f, self.dst, slot.kind, 0)?,
                _ => {
                    self.operand(f, self.src[sources], slot.kind, self.codes()[sources])?;
                    sources += 1;
                }
            }
        }
        if self.row.mnemonic == "s_set_gpr_idx_on" {
            f.write_str(", ")?;
            indexed(f, self.imm as u16)?;
        }
        Ok(())
    }

    fn scalar_immediate(&self, f: &mut Formatter<'_>) -> Result {
        let immediate = self.imm as u16;
        let kind = self.row.operands.first().map_or(Kind::B32, |slot| slot.kind);
        let register = if self.dst == Operand::None { self.src[0] } else { self.dst };
        match self.row.mnemonic {
            "s_setreg_imm32_b32" => {
                f.write_char(' ')?;
                hardware_register(f, immediate)?;
                f.write_str(", ")?;
                immediate32(f, self.imm2)
            }
            "s_setreg_b32" => {
                f.write_char(' ')?;
                hardware_register(f, immediate)?;
                f.write_str(", ")?;
                self.operand(f, register, kind, 0)
            }
            mnemonic => {
                f.write_char(' ')?;
                self.operand(f, register, kind, 0)?;
                f.write_str(", ")?;
                match mnemonic {
                    "s_getreg_b32" => hardware_register(f, immediate),
                    "s_call_b64" | "s_cbranch_i_fork" => write!(f, "{immediate}"),
                    _ => write!(f, "{immediate:#x}"),
                }
            }
        }
    }

    fn scalar_memory(&self, f: &mut Formatter<'_>) -> Result {
        let mut list = List::new();
        if self.row.mnemonic.starts_with("s_atc_probe") {
            list.item(f)?;
            if self.imm2 <= 64 {
                write!(f, "{}", self.imm2)?
            } else {
                write!(f, "{:#x}", self.imm2)?
            };
        }
        for slot in self.row.operands {
            list.item(f)?;
            match slot.role {
                Role::Base => self.operand(f, self.src[3], slot.kind, 0)?,
                Role::Dst => self.operand(f, self.dst, slot.kind, 0)?,
                _ => self.operand(f, self.src[1], slot.kind, 0)?,
            }
        }
        if self.src[3] == Operand::None {
            return Ok(());
        }
        f.write_str(", ")?;
        let has_immediate = self.words[0] >> 17 & 1 != 0;
        if self.src[2] != Operand::None {
            self.operand(f, self.src[2], Kind::B32, 0)?;
            if has_immediate {
                f.write_str(" offset:")?;
            }
        }
        if has_immediate {
            signed_hex(f, self.imm)?;
        }
        let has_cache_bit =
            !self.row.mnemonic.starts_with("s_atc") && !self.row.mnemonic.starts_with("s_dcache");
        if self.memory.sc0 && has_cache_bit {
            f.write_str(" glc")?;
        }
        Ok(())
    }

    /// VOP1, VOP2, VOPC and VOP3 in all their forms.
    fn vector(&self, f: &mut Formatter<'_>) -> Result {
        let mut list = List::new();
        let mut sources = 0;
        let mut has_destination = false;
        for slot in self.row.operands {
            list.item(f)?;
            match slot.role {
                Role::Dst | Role::DstSrc if !has_destination => {
                    has_destination = true;
                    self.operand(f, self.dst, slot.kind, 0)?;
                }
                Role::Dst => self.operand(f, self.sdst, slot.kind, 0)?,
                _ if slot.kind == Kind::Mask => self.operand(f, self.src[3], slot.kind, 0)?,
                _ => {
                    self.modified(f, sources, slot)?;
                    sources += 1;
                }
            }
        }
        if let Some(dpp) = self.dpp {
            parallel(f, dpp.control)?;
            write!(f, " row_mask:{:#x} bank_mask:{:#x}", dpp.row_mask, dpp.bank_mask)?;
            return f.write_str(if dpp.bound_ctrl { " bound_ctrl:1" } else { "" });
        }
        if self.row.mnemonic.starts_with("v_permlane") {
            f.write_str(if self.op_sel & 2 != 0 { " bound_ctrl:1" } else { "" })?;
            return f.write_str(if self.op_sel & 1 != 0 { " fi:1" } else { "" });
        }
        if self.row.modifiers.bitop && self.imm != 0 {
            f.write_str(" bitop3:")?;
            small_hex(f, self.imm as u32)?;
        }
        match self.row.modifiers.op_sel {
            _ if self.op_sel == 0 => {}
            OpSel::UsedButThird => bits(f, " op_sel:", &[0, 1, 3], self.op_sel)?,
            _ => bits(f, " op_sel:", &[0, 1, 2, 3], self.op_sel)?,
        }
        if self.clamp {
            f.write_str(" clamp")?;
        }
        f.write_str(["", " mul:2", " mul:4", " div:2"][usize::from(self.omod & 3)])?;
        self.selections(f)
    }

    /// Writes a source with its sign modifiers.
    fn modified(&self, f: &mut Formatter<'_>, index: usize, slot: &Slot) -> Result {
        let (neg, abs) = (self.neg >> index & 1 != 0, self.abs >> index & 1 != 0);
        let extends = self.sdwa.is_some_and(|sdwa| sdwa.sext.get(index) == Some(&true));
        let operand = self.src[index];
        let is_literal_field = self.row.operands.len() == 4 && !self.row.forms.long && self.size == 8;
        let code = match self.encoding {
            Encoding::Vop2 if index > 0 && is_literal_field && self.sdwa.is_none() => {
                // The constant of v_fmamk and v_fmaak, which is never shortened.
                if let Operand::Constant(_) = operand {
                    return write!(f, "{:#x}", self.words[1]);
                }
                0
            }
            _ => self.codes()[index],
        };
        // A minus sign before a number would be part of it.
        let as_function = neg && !abs && matches!(operand, Operand::Constant(_));
        f.write_str(match (as_function, neg, extends) {
            (true, ..) => "neg(",
            (_, true, _) => "-",
            (.., true) => "sext(",
            _ => "",
        })?;
        f.write_str(if abs { "|" } else { "" })?;
        self.operand(f, operand, slot.kind, code)?;
        f.write_str(if abs { "|" } else { "" })?;
        f.write_str(if as_function || extends { ")" } else { "" })
    }

    /// Writes what SDWA selects.
    fn selections(&self, f: &mut Formatter<'_>) -> Result {
        let Some(sdwa) = self.sdwa else { return Ok(()) };
        let has_destination = self.encoding != Encoding::Vopc && !self.row.is_from_byte();
        if has_destination {
            let unused = match sdwa.unused {
                Unused::Pad => "UNUSED_PAD",
                Unused::SignExtend => "UNUSED_SEXT",
                Unused::Preserve => "UNUSED_PRESERVE",
            };
            write!(f, " dst_sel:{} dst_unused:{unused}", sdwa.dst.name())?;
        }
        write!(f, " src0_sel:{}", sdwa.src[0].name())?;
        if self.encoding != Encoding::Vop1 {
            write!(f, " src1_sel:{}", sdwa.src[1].name())?;
        }
        Ok(())
    }

    fn packed(&self, f: &mut Formatter<'_>) -> Result {
        let mixes = self.row.mnemonic.starts_with("v_fma_mix");
        let mut list = List::new();
        let mut sources = 0;
        for slot in self.row.operands {
            list.item(f)?;
            match slot.role {
                Role::Dst | Role::DstSrc => self.operand(f, self.dst, slot.kind, 0)?,
                _ if mixes => {
                    let is_half = self.op_sel_hi & 1 << sources != 0;
                    self.modified(
                        f,
                        sources,
                        &Slot { kind: if is_half { Kind::F16 } else { slot.kind }, ..*slot },
                    )?;
                    sources += 1;
                }
                _ => {
                    self.operand(f, self.src[sources], slot.kind, self.codes()[sources])?;
                    sources += 1;
                }
            }
        }
        let indices: &[u8] = if sources == 2 { &[0, 1] } else { &[0, 1, 2] };
        let all = (1 << sources) - 1;
        let usual_high = if mixes { 0 } else { all };
        if self.op_sel & all != 0 {
            bits(f, " op_sel:", indices, self.op_sel)?;
        }
        if self.op_sel_hi & all != usual_high {
            bits(f, " op_sel_hi:", indices, self.op_sel_hi)?;
        }
        if !mixes && self.neg != 0 {
            bits(f, " neg_lo:", indices, self.neg)?;
        }
        if self.neg_hi != 0 {
            bits(f, " neg_hi:", indices, self.neg_hi)?;
        }
        f.write_str(if self.clamp { " clamp" } else { "" })
    }

    fn matrix(&self, f: &mut Formatter<'_>) -> Result {
        let mixed_formats = self.row.mnemonic.ends_with("_f8f6f4");
        let mut list = List::new();
        let mut sources = 0;
        for slot in self.row.operands {
            list.item(f)?;
            match (slot.role, sources) {
                (Role::Dst | Role::DstSrc, _) => self.operand(f, self.dst, slot.kind, 0)?,
                (_, 3 | 4) => {
                    let index = sources - 3;
                    let code = self.words[1] >> (9 * index) & 0x1ff;
                    self.operand(f, self.matrix.scale[index], slot.kind, code)?;
                    sources += 1;
                }
                (_, index) => {
                    let format = [self.matrix.cbsz, self.matrix.blgp, 0][index];
                    let kind = match format {
                        2 | 3 if mixed_formats && index < 2 => Kind::B192,
                        4 if mixed_formats && index < 2 => Kind::B128,
                        _ => slot.kind,
                    };
                    self.operand(f, self.src[index], kind, self.codes()[index])?;
                    sources += 1;
                }
            }
        }
        if self.encoding == Encoding::Vop3px2 {
            if self.op_sel != 0 {
                bits(f, " op_sel:", &[0, 1, 2], self.op_sel)?;
            }
            // A third bit is written that the encoding does not have.
            bits(f, " op_sel_hi:", &[0, 1, 2], self.op_sel_hi)?;
        }
        let fields = [("cbsz", self.matrix.cbsz), ("abid", self.matrix.abid), ("blgp", self.matrix.blgp)];
        for (name, value) in fields {
            if value != 0 {
                write!(f, " {name}:{value}")?;
            }
        }
        if self.neg != 0 {
            bits(f, " neg:", &[0, 1, 2], self.neg)?;
        }
        Ok(())
    }

    fn local(&self, f: &mut Formatter<'_>) -> Result {
        let mut list = List::new();
        let mut data = 0;
        for slot in self.row.operands {
            list.item(f)?;
            match slot.role {
                Role::Dst | Role::DstSrc => self.operand(f, self.dst, slot.kind, 0)?,
                Role::Address => self.operand(f, self.src[0], slot.kind, 0)?,
                _ => {
                    data += 1;
                    self.operand(f, self.src[data], slot.kind, 0)?;
                }
            }
        }
        if self.has_two_offsets() {
            if self.imm != 0 {
                write!(f, " offset0:{}", self.imm)?;
            }
            if self.imm2 != 0 {
                write!(f, " offset1:{}", self.imm2)?;
            }
        } else if self.imm != 0 {
            f.write_str(" offset:")?;
            if self.row.mnemonic == "ds_swizzle_b32" {
                swizzle(f, self.imm as u16)?;
            } else {
                write!(f, "{}", self.imm)?;
            }
        }
        f.write_str(if self.row.mnemonic.starts_with("ds_gws_") { " gds" } else { "" })
    }

    /// DS: whether the instruction has two addresses, each with an offset of 8 bits.
    pub(super) fn has_two_offsets(&self) -> bool {
        ["ds_read2", "ds_write2", "ds_wrxchg2"].iter().any(|name| self.row.mnemonic.starts_with(name))
    }

    fn flat(&self, f: &mut Formatter<'_>) -> Result {
        let mut list = List::new();
        let is_atomic = self.row.mnemonic.contains("_atomic_");
        for slot in self.row.operands {
            match slot.role {
                Role::Dst | Role::DstSrc if is_atomic && !self.memory.sc0 => {}
                Role::Dst | Role::DstSrc => {
                    list.item(f)?;
                    self.operand(f, self.dst, slot.kind, 0)?;
                }
                Role::Address => {
                    list.item(f)?;
                    let is_offset = self.src[3] != Operand::None;
                    self.operand(f, self.src[0], if is_offset { Kind::U32 } else { slot.kind }, 0)?;
                }
                _ => {
                    list.item(f)?;
                    self.operand(f, self.src[1], slot.kind, 0)?;
                }
            }
        }
        if self.encoding != Encoding::Flat {
            list.item(f)?;
            let kind = if self.encoding == Encoding::Global { Kind::B64 } else { Kind::B32 };
            self.operand(f, self.src[3], kind, 0)?;
        }
        if self.imm != 0 {
            write!(f, " offset:{}", self.imm)?;
        }
        self.cache_bits(f)
    }

    fn cache_bits(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.memory.sc0 { " sc0" } else { "" })?;
        f.write_str(if self.memory.nt { " nt" } else { "" })?;
        f.write_str(if self.memory.sc1 { " sc1" } else { "" })
    }

    fn buffer(&self, f: &mut Formatter<'_>) -> Result {
        if self.row.operands.is_empty() {
            f.write_str(if self.memory.sc0 { " sc0" } else { "" })?;
            return f.write_str(if self.memory.sc1 { " sc1" } else { "" });
        }
        let mut list = List::new();
        for slot in self.row.operands {
            match slot.role {
                Role::Address => {
                    list.item(f)?;
                    let both = self.memory.offen && self.memory.idxen;
                    self.operand(f, self.src[0], if both { Kind::B64 } else { Kind::B32 }, 0)?;
                }
                Role::Base => {
                    list.item(f)?;
                    self.operand(f, self.src[3], slot.kind, 0)?;
                }
                _ if self.memory.lds => {}
                _ => {
                    list.item(f)?;
                    let data = if self.src[1] == Operand::None { self.dst } else { self.src[1] };
                    self.operand(f, data, slot.kind, 0)?;
                }
            }
        }
        f.write_str(", ")?;
        self.operand(f, self.src[2], Kind::B32, self.codes()[2])?;
        if self.encoding == Encoding::Mtbuf {
            buffer_format(f, self.memory.format)?;
        }
        f.write_str(if self.memory.idxen { " idxen" } else { "" })?;
        f.write_str(if self.memory.offen { " offen" } else { "" })?;
        if self.imm != 0 {
            write!(f, " offset:{}", self.imm)?;
        }
        self.cache_bits(f)?;
        f.write_str(if self.memory.lds { " lds" } else { "" })
    }
}

impl Special {
    const fn name(self) -> &'static str {
        match self {
            Special::SharedBase => "src_shared_base",
            Special::SharedLimit => "src_shared_limit",
            Special::PrivateBase => "src_private_base",
            Special::PrivateLimit => "src_private_limit",
            Special::PopsExitingWaveId => "src_pops_exiting_wave_id",
            Special::Vccz => "src_vccz",
            Special::Execz => "src_execz",
            Special::Scc => "src_scc",
            Special::LdsDirect => "src_lds_direct",
        }
    }
}

impl Select {
    const fn name(self) -> &'static str {
        match self {
            Select::Byte0 => "BYTE_0",
            Select::Byte1 => "BYTE_1",
            Select::Byte2 => "BYTE_2",
            Select::Byte3 => "BYTE_3",
            Select::Word0 => "WORD_0",
            Select::Word1 => "WORD_1",
            Select::Dword => "DWORD",
        }
    }
}

fn vector_register(f: &mut Formatter<'_>, first: u16, count: u16) -> Result {
    let (letter, first) = if first >= 256 { ('a', first - 256) } else { ('v', first) };
    if count == 1 {
        write!(f, "{letter}{first}")
    } else {
        write!(f, "{letter}[{first}:{}]", first + count - 1)
    }
}

fn scalar_register(f: &mut Formatter<'_>, first: u8, count: u16) -> Result {
    let halves = |f: &mut Formatter<'_>, name: &str, low: u8| {
        let half = match count {
            1 if first == low => "_lo",
            1 => "_hi",
            _ => "",
        };
        write!(f, "{name}{half}")
    };
    let several = |f: &mut Formatter<'_>, letters: &str, first: u8| {
        if count == 1 {
            write!(f, "{letters}{first}")
        } else {
            write!(f, "{letters}[{first}:{}]", u16::from(first) + count - 1)
        }
    };
    match first {
        102 | 103 => halves(f, "flat_scratch", 102),
        104 | 105 => halves(f, "xnack_mask", 104),
        106 | 107 => halves(f, "vcc", 106),
        108..=123 => several(f, "ttmp", first - 108),
        124 => f.write_str("m0"),
        126 | 127 => halves(f, "exec", 126),
        _ => several(f, "s", first),
    }
}

/// Whether the bits are one of the float32 that can be inline constants, zero excepted.
fn is_inline_float32(bits: u32) -> bool {
    matches!(bits & 0x7fff_ffff, 0x3f00_0000 | 0x3f80_0000 | 0x4000_0000 | 0x4080_0000) || bits == 0x3e22_f983
}

fn is_inline_float16(bits: u16) -> bool {
    matches!(bits & 0x7fff, 0x3800 | 0x3c00 | 0x4000 | 0x4400) || bits == 0x3118
}

fn is_inline_bfloat16(bits: u16) -> bool {
    matches!(bits & 0x7fff, 0x3f00 | 0x3f80 | 0x4000 | 0x4080) || bits == 0x3e22
}

fn is_inline_integer(value: i64) -> bool {
    (-16..=64).contains(&value)
}

/// Writes a literal of 32 bits. Where the bits could have been an inline constant, LLVM says that they are a literal.
fn literal(f: &mut Formatter<'_>, bits: u32, kind: Kind) -> Result {
    let as_integer = is_inline_integer(i64::from(bits as i32));
    let low = bits as u16;
    let low_integer = is_inline_integer(i64::from(low as i16));
    let (could_be_inline, shown) = match kind {
        Kind::F64 | Kind::F64x4 => return literal64(f, bits),
        Kind::B64 | Kind::I64 | Kind::U64 | Kind::Mask => (is_inline_integer(i64::from(bits)), bits),
        Kind::F16 => (low_integer || is_inline_float16(low), u32::from(low)),
        Kind::BF16 => (low_integer || is_inline_bfloat16(low), bits),
        Kind::I16 | Kind::U16 | Kind::B16 => (as_integer || is_inline_float32(bits), u32::from(low)),
        Kind::PkF16 => (as_integer || bits <= 0xffff && is_inline_float16(low), bits),
        Kind::PkBF16 => (as_integer || bits <= 0xffff && is_inline_bfloat16(low), bits),
        _ => (as_integer || is_inline_float32(bits), bits),
    };
    if could_be_inline { write!(f, "lit({bits:#x})") } else { write!(f, "{shown:#x}") }
}

/// Writes a literal that is the upper half of a float64.
fn literal64(f: &mut Formatter<'_>, bits: u32) -> Result {
    let float = match bits & 0x7fff_ffff {
        0 if bits == 0 => return f.write_str("0"),
        0x3fe0_0000 => "0.5",
        0x3ff0_0000 => "1.0",
        0x4000_0000 => "2.0",
        0x4010_0000 => "4.0",
        _ => return write!(f, "{bits:#x}"),
    };
    write!(f, "{}{float}", if bits >> 31 != 0 { "-" } else { "" })
}

/// Writes 32 bits that are no operand.
fn immediate32(f: &mut Formatter<'_>, bits: u32) -> Result {
    if is_inline_integer(i64::from(bits as i32)) {
        return write!(f, "{}", bits as i32);
    }
    match bits {
        0x3e22_f983 => f.write_str("0.15915494"),
        _ if is_inline_float32(bits) => write!(f, "{:?}", f32::from_bits(bits)),
        _ => write!(f, "{bits:#x}"),
    }
}

fn inline_constant(f: &mut Formatter<'_>, code: u32, bits: u64, kind: Kind) -> Result {
    let text = match code {
        128..=192 => return write!(f, "{}", code - 128),
        193..=208 => return write!(f, "-{}", code - 192),
        240 => "0.5",
        241 => "-0.5",
        242 => "1.0",
        243 => "-1.0",
        244 => "2.0",
        245 => "-2.0",
        246 => "4.0",
        247 => "-4.0",
        248 => match kind {
            Kind::B64 | Kind::I64 | Kind::U64 | Kind::F64 | Kind::F64x4 | Kind::Mask => "0.15915494309189532",
            _ => "0.15915494",
        },
        _ => return write!(f, "{bits:#x}"),
    };
    match (kind, code) {
        // LLVM shows these as bits of a float16.
        (Kind::I16 | Kind::U16 | Kind::B16, 240..=248) => {
            let float16 = [0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000, 0xc000, 0x4400, 0xc400, 0x3118];
            write!(f, "{:#x}", float16[code as usize - 240])
        }
        _ => f.write_str(text),
    }
}

fn signed_hex(f: &mut Formatter<'_>, value: i32) -> Result {
    write!(f, "{}{:#x}", if value < 0 { "-" } else { "" }, value.unsigned_abs())
}

/// Writes numbers below ten in decimal, others in hexadecimal.
fn small_hex(f: &mut Formatter<'_>, value: u32) -> Result {
    if value < 10 { write!(f, "{value}") } else { write!(f, "{value:#x}") }
}

/// Writes one bit for each index.
fn bits(f: &mut Formatter<'_>, name: &str, indices: &[u8], field: u8) -> Result {
    f.write_str(name)?;
    for (position, index) in indices.iter().enumerate() {
        f.write_char(if position == 0 { '[' } else { ',' })?;
        write!(f, "{}", field >> index & 1)?;
    }
    f.write_char(']')
}

/// SOPP.
fn program(f: &mut Formatter<'_>, mnemonic: &str, immediate: u16) -> Result {
    match mnemonic {
        "s_wakeup" | "s_barrier" | "s_icache_inv" | "s_ttracedata" => Ok(()),
        "s_endpgm_saved" | "s_set_gpr_idx_off" | "s_endpgm_ordered_ps_done" => Ok(()),
        "s_endpgm" if immediate == 0 => Ok(()),
        "s_endpgm" | "s_branch" => write!(f, " {immediate}"),
        _ if mnemonic.starts_with("s_cbranch") => write!(f, " {immediate}"),
        "s_waitcnt" => wait_counts(f, immediate),
        "s_sendmsg" | "s_sendmsghalt" => message(f, immediate),
        "s_set_gpr_idx_mode" => {
            f.write_char(' ')?;
            indexed(f, immediate)
        }
        _ if immediate <= 64 => write!(f, " {immediate}"),
        _ => write!(f, " {immediate:#x}"),
    }
}

fn wait_counts(f: &mut Formatter<'_>, immediate: u16) -> Result {
    let counts = [
        ("vmcnt", immediate & 0xf | immediate >> 10 & 0x30, 63),
        ("expcnt", immediate >> 4 & 7, 7),
        ("lgkmcnt", immediate >> 8 & 15, 15),
    ];
    let waits_for_nothing = counts.iter().all(|(_, count, most)| count == most);
    for (name, count, most) in counts {
        if count != most || waits_for_nothing {
            write!(f, " {name}({count})")?;
        }
    }
    Ok(())
}

fn message(f: &mut Formatter<'_>, immediate: u16) -> Result {
    let (id, operation, stream) = (immediate & 15, immediate >> 4 & 7, immediate >> 8 & 3);
    let is_whole = id | operation << 4 | stream << 8 == immediate;
    let (name, operations): (&str, &[(u16, &str)]) = match id {
        1 => ("MSG_INTERRUPT", &[]),
        2 => ("MSG_GS", &[(1, "GS_OP_CUT"), (2, "GS_OP_EMIT"), (3, "GS_OP_EMIT_CUT")]),
        3 => ("MSG_GS_DONE", &[(0, "GS_OP_NOP"), (1, "GS_OP_CUT"), (2, "GS_OP_EMIT"), (3, "GS_OP_EMIT_CUT")]),
        4 => ("MSG_SAVEWAVE", &[]),
        5 => ("MSG_STALL_WAVE_GEN", &[]),
        6 => ("MSG_HALT_WAVES", &[]),
        7 => ("MSG_ORDERED_PS_DONE", &[]),
        8 => ("MSG_EARLY_PRIM_DEALLOC", &[]),
        9 => ("MSG_GS_ALLOC_REQ", &[]),
        10 => ("MSG_GET_DOORBELL", &[]),
        15 => (
            "MSG_SYSMSG",
            &[(1, "SYSMSG_OP_ECC_ERR_INTERRUPT"), (2, "SYSMSG_OP_REG_RD"), (4, "SYSMSG_OP_TTRACE_PC")],
        ),
        _ => ("", &[]),
    };
    let named = operations.iter().find(|(number, _)| *number == operation).map(|(_, name)| *name);
    let writes_stream = matches!(id, 2 | 3) && operation != 0;
    match named {
        None if operations.is_empty() && !name.is_empty() && operation == 0 && stream == 0 => {
            write!(f, " sendmsg({name})")
        }
        Some(operation) if writes_stream => write!(f, " sendmsg({name}, {operation}, {stream})"),
        Some(operation) if stream == 0 && id != 2 => write!(f, " sendmsg({name}, {operation})"),
        _ if is_whole => write!(f, " sendmsg({id}, {operation}, {stream})"),
        _ => write!(f, " {immediate}"),
    }
}

/// Writes which operands are indexed.
fn indexed(f: &mut Formatter<'_>, mask: u16) -> Result {
    if mask > 15 {
        return write!(f, "{mask:#x}");
    }
    f.write_str("gpr_idx(")?;
    let mut is_first = true;
    for (bit, name) in ["SRC0", "SRC1", "SRC2", "DST"].into_iter().enumerate() {
        if mask >> bit & 1 != 0 {
            f.write_str(if is_first { "" } else { "," })?;
            f.write_str(name)?;
            is_first = false;
        }
    }
    f.write_char(')')
}

fn hardware_register(f: &mut Formatter<'_>, bits: u16) -> Result {
    let (id, offset, size) = (bits & 63, bits >> 6 & 31, (bits >> 11) + 1);
    let name = match id {
        1 => "MODE",
        2 => "STATUS",
        3 => "TRAPSTS",
        4 => "HW_ID",
        5 => "GPR_ALLOC",
        6 => "LDS_ALLOC",
        7 => "IB_STS",
        15 => "SH_MEM_BASES",
        16 => "TBA_LO",
        17 => "TBA_HI",
        18 => "TMA_LO",
        19 => "TMA_HI",
        20 => "XCC_ID",
        21 => "SQ_PERF_SNAPSHOT_DATA",
        22 => "SQ_PERF_SNAPSHOT_DATA1",
        23 => "SQ_PERF_SNAPSHOT_PC_LO",
        24 => "SQ_PERF_SNAPSHOT_PC_HI",
        _ => "",
    };
    f.write_str("hwreg(")?;
    if name.is_empty() {
        write!(f, "{id}")?
    } else {
        write!(f, "HW_REG_{name}")?
    };
    if offset != 0 || size != 32 {
        write!(f, ", {offset}, {size}")?;
    }
    f.write_char(')')
}

/// Writes DPP_CTRL.
fn parallel(f: &mut Formatter<'_>, control: u16) -> Result {
    let low = control & 15;
    match control {
        0..=0xff => {
            let lane = |at: u16| control >> (2 * at) & 3;
            write!(f, " quad_perm:[{},{},{},{}]", lane(0), lane(1), lane(2), lane(3))
        }
        0x100..=0x10f => write!(f, " row_shl:{low}"),
        0x110..=0x11f => write!(f, " row_shr:{low}"),
        0x120..=0x12f => write!(f, " row_ror:{low}"),
        0x130 => f.write_str(" wave_shl:1"),
        0x134 => f.write_str(" wave_rol:1"),
        0x138 => f.write_str(" wave_shr:1"),
        0x13c => f.write_str(" wave_ror:1"),
        0x140 => f.write_str(" row_mirror"),
        0x141 => f.write_str(" row_half_mirror"),
        0x142 => f.write_str(" row_bcast:15"),
        0x143 => f.write_str(" row_bcast:31"),
        _ => write!(f, " row_newbcast:{low}"),
    }
}

/// Writes the pattern of `ds_swizzle_b32`.
fn swizzle(f: &mut Formatter<'_>, pattern: u16) -> Result {
    if pattern & 0xff00 == 0x8000 {
        let lane = |at: u16| pattern >> (2 * at) & 3;
        return write!(f, "swizzle(QUAD_PERM,{},{},{},{})", lane(0), lane(1), lane(2), lane(3));
    }
    if pattern >= 0xe000 {
        return write!(f, "swizzle(FFT,{})", pattern & 31);
    }
    if pattern >= 0xc000 {
        return write!(f, "swizzle(ROTATE,{},{})", pattern >> 10 & 1, pattern >> 5 & 31);
    }
    if pattern >= 0x8000 {
        return write!(f, "{pattern}");
    }
    let (and, or, xor) = (pattern & 31, pattern >> 5 & 31, pattern >> 10 & 31);
    if and == 31 && or == 0 && xor.is_power_of_two() {
        return write!(f, "swizzle(SWAP,{xor})");
    }
    if and == 31 && or == 0 && xor > 0 && (xor + 1).is_power_of_two() {
        return write!(f, "swizzle(REVERSE,{})", xor + 1);
    }
    let group = 32 - and;
    if group > 1 && group.is_power_of_two() && or < group && xor == 0 {
        return write!(f, "swizzle(BROADCAST,{group},{or})");
    }
    f.write_str("swizzle(BITMASK_PERM,\"")?;
    for bit in (0..5).rev() {
        let (and, or, xor) = (and >> bit & 1, or >> bit & 1, xor >> bit & 1);
        // What becomes of this bit of a lane's number where it is 0, and where it is 1.
        f.write_char(match (or ^ xor, (and | or) ^ xor) {
            (0, 0) => '0',
            (1, 1) => '1',
            (0, _) => 'p',
            _ => 'i',
        })?;
    }
    f.write_str("\")")
}

/// Writes data and number format of MTBUF.
fn buffer_format(f: &mut Formatter<'_>, format: u8) -> Result {
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
    let (data, number) = (usize::from(format & 15), usize::from(format >> 4 & 7));
    match (data, number) {
        (1, 0) => Ok(()),
        (data, 0) => write!(f, " format:[BUF_DATA_FORMAT_{}]", DATA[data]),
        (1, number) => write!(f, " format:[BUF_NUM_FORMAT_{}]", NUMBER[number]),
        (data, number) => {
            write!(f, " format:[BUF_DATA_FORMAT_{},BUF_NUM_FORMAT_{}]", DATA[data], NUMBER[number])
        }
    }
}
