//! Instructions: the table of all of them, the decoder, and how LLVM writes them.
//!
#![doc = include_str!("conventions.md")]

pub use super::processor::Processor;
#[cfg(feature = "emulate")]
use super::wave::{Flow, Wave};

mod decode;
pub mod errata;
mod print;
pub mod table;
#[cfg(test)]
mod tests;
pub mod uses;

pub use decode::{DecodeError, decode};

/// The architectures that have an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Processors {
    Both,
    Only(Processor),
}

/// What is special about an instruction: of its result, or of how its machine code is read and written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// AMD bounds the result by an error, or does not say what it depends on: a device may give another value. Of matrix
    /// instructions, none of which is marked so, `exec::matrix` knows more.
    Modelled,
    /// SOPK: the immediate is unsigned.
    Unsigned,
    /// SOPP: there is no immediate; its bits have to be zero.
    Bare,
    /// SOP1: the source has to be a register.
    Register,
    /// VOP2: the second source is the literal behind the instruction.
    LiteralSecond,
    /// VOP2: the third source is.
    LiteralThird,
    /// It converts from a format of 8 bits, which SDWA selects for the source alone.
    FromByte,
    /// VOP3P: each source is a float32 or, as OP_SEL_HI says, a float16; NEG_HI is its absolute value.
    Mixes,
    /// VOP3P: sources are taken whole: OP_SEL has to be zero, OP_SEL_HI has no effect.
    Whole,
    /// MAI: CBSZ and BLGP name the formats of A and B, which decide how many registers these have.
    Formats,
    /// MAI: the third source is a register of indices, and the accumulator is the destination.
    Sparse,
    /// MAI: the bits of BLGP negate sources.
    Negates,
    /// DS: two addresses, each with an offset of 8 bits.
    TwoOffsets,
    /// DS: synchronises workgroups. It has the bit GDS, and what it reads stands where others have an address.
    GlobalSync,
    /// FLAT and MUBUF: the old value is returned only with SC0.
    Atomic,
    /// FLAT: the data goes into LDS.
    Lds,
    /// MUBUF: the data may go into LDS.
    LdsToo,
    /// MUBUF: the same on gfx950 alone.
    LdsTooOnGfx950,
}

/// How an instruction is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Sop1,
    Sop2,
    Sopk,
    Sopc,
    Sopp,
    Smem,
    Vop1,
    Vop2,
    Vopc,
    Vop3,
    /// VOP3 with a second, scalar destination.
    Vop3b,
    Vop3p,
    /// Matrix instructions, which share their prefix with VOP3P.
    Mai,
    /// VOP3P with a prefix that holds the operands of block scales (gfx950).
    Vop3px2,
    Ds,
    Flat,
    Global,
    Scratch,
    Mubuf,
    Mtbuf,
}

impl Encoding {
    /// Whether an instruction of memory or LDS is encoded so, which goes on while others are executed.
    pub const fn is_memory(self) -> bool {
        matches!(
            self,
            Encoding::Smem
                | Encoding::Ds
                | Encoding::Flat
                | Encoding::Global
                | Encoding::Scratch
                | Encoding::Mubuf
                | Encoding::Mtbuf
        )
    }

    /// Whether a vector instruction is encoded so: what `s_setvskip` skips.
    pub const fn is_vector(self) -> bool {
        match self {
            Encoding::Sop1
            | Encoding::Sop2
            | Encoding::Sopk
            | Encoding::Sopc
            | Encoding::Sopp
            | Encoding::Smem => false,
            Encoding::Vop1
            | Encoding::Vop2
            | Encoding::Vopc
            | Encoding::Vop3
            | Encoding::Vop3b
            | Encoding::Vop3p
            | Encoding::Mai
            | Encoding::Vop3px2
            | Encoding::Ds
            | Encoding::Flat
            | Encoding::Global
            | Encoding::Scratch
            | Encoding::Mubuf
            | Encoding::Mtbuf => true,
        }
    }
}

/// What the bits of an operand mean. The size decides how many registers it takes and what an inline constant becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bits without a meaning of their own.
    B8,
    B16,
    B32,
    B64,
    B96,
    B128,
    B192,
    B256,
    B512,
    B1024,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    BF16,
    F32,
    F64,
    /// Four float64 in eight registers.
    F64x4,
    /// Two values of 16 bits in one register.
    PkF16,
    PkBF16,
    PkI16,
    PkU16,
    /// Two values of 32 bits in two registers.
    PkF32,
    PkB32,
    /// One bit a lane, in two scalar registers.
    Mask,
}

impl Processors {
    /// Whether `processor` is one of them.
    pub fn have(self, processor: Processor) -> bool {
        match self {
            Processors::Both => true,
            Processors::Only(only) => only == processor,
        }
    }
}

impl Kind {
    /// Registers of 32 bits that an operand takes.
    pub const fn registers(self) -> u16 {
        match self {
            Kind::B8 | Kind::B16 | Kind::I16 | Kind::U16 | Kind::F16 | Kind::BF16 => 1,
            Kind::B32 | Kind::I32 | Kind::U32 | Kind::F32 => 1,
            Kind::PkF16 | Kind::PkBF16 | Kind::PkI16 | Kind::PkU16 => 1,
            Kind::B64 | Kind::I64 | Kind::U64 | Kind::F64 | Kind::PkF32 | Kind::PkB32 | Kind::Mask => 2,
            Kind::B96 => 3,
            Kind::B128 => 4,
            Kind::B192 => 6,
            Kind::B256 | Kind::F64x4 => 8,
            Kind::B512 => 16,
            Kind::B1024 => 32,
        }
    }

    /// Whether a value is one float or several, so that it can be multiplied by an output modifier.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Kind::F16
                | Kind::BF16
                | Kind::F32
                | Kind::F64
                | Kind::PkF16
                | Kind::PkBF16
                | Kind::PkF32
                | Kind::F64x4
        )
    }
}

/// One operand of a [`Row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub role: Role,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Written.
    Dst,
    /// Read and written, like the accumulator of `v_fmac_f32`.
    DstSrc,
    /// Read.
    Src,
    /// The vector address of a memory instruction. Its width is that without a scalar base.
    Address,
    /// The scalar base or the resource of a memory instruction.
    Base,
}

/// What the bits of VOP3 beside opcode and operands mean for an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Modifiers {
    /// Bit i: source i can be negated, and its absolute value taken.
    pub float: u8,
    /// Bit i: those bits of source i are accepted and have no effect.
    pub ignored: u8,
    pub op_sel: OpSel,
    pub clamp: bool,
    pub omod: bool,
    /// The bits of `neg`, `abs` and `omod` are the truth table of `v_bitop3`.
    pub bitop: bool,
}

/// What the four bits of OP_SEL mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OpSel {
    /// They are accepted and have no effect.
    #[default]
    Ignored,
    /// As `Ignored`, but the bit of the third source has to be zero.
    IgnoredButThird,
    /// They have to be zero.
    Zero,
    /// They select halves.
    Used,
    /// As `Used`, but the bit of the third source has to be zero.
    UsedButThird,
}

/// The encodings that an instruction of VOP1, VOP2 or VOPC has besides its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forms {
    /// VOP3.
    pub long: bool,
    pub sdwa: bool,
    pub dpp: bool,
}

/// One instruction of the table.
#[derive(Debug)]
pub struct Row {
    /// LLVM's mnemonic, without `_e32`, `_e64`, `_sdwa` and `_dpp`.
    pub mnemonic: &'static str,
    /// Its shortest encoding. Instructions of VOP1, VOP2 and VOPC have one in VOP3 as well, with the opcode plus 0x140,
    /// 0x100 and 0.
    pub encoding: Encoding,
    pub opcode: u16,
    pub processors: Processors,
    pub marks: &'static [Mark],
    pub modifiers: Modifiers,
    pub forms: Forms,
    /// Destinations first, then sources in the order of the ISA document (S0, S1, S2).
    pub operands: &'static [Slot],
    #[cfg(feature = "emulate")]
    pub execute: Execute,
}

impl Row {
    /// Whether the instruction has a mark.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }
}

/// Executes one instruction for all lanes of a wave.
#[cfg(feature = "emulate")]
pub type Execute = fn(&mut Wave, &Inst) -> Flow;

/// Where a value comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Operand {
    /// There is no such operand.
    #[default]
    None,
    /// The first of one or more vector registers: `v0` is 0, `a0` is 256.
    Vector(u16),
    /// The first of one or more scalar registers by the number that it has in machine code: s0 to s101, 102 and 103
    /// `flat_scratch`, 104 and 105 `xnack_mask`, 106 and 107 `vcc`, 108 to 123 `ttmp`, 124 `m0`, 126 and 127 `exec`.
    Scalar(u8),
    /// An inline constant or a literal, as the bits that the instruction sees: widened, or as a float of the operand's
    /// own size.
    Constant(u64),
    /// A scalar value that no register holds.
    Special(Special),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    SharedBase,
    SharedLimit,
    PrivateBase,
    PrivateLimit,
    PopsExitingWaveId,
    Vccz,
    Execz,
    Scc,
    /// One dword of LDS at the address in M0, for all lanes.
    LdsDirect,
}

/// Selects a part of a source or destination (SDWA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Select {
    Byte0,
    Byte1,
    Byte2,
    Byte3,
    Word0,
    Word1,
    #[default]
    Dword,
}

/// What SDWA does with the part of the destination that it does not select.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unused {
    #[default]
    Pad,
    SignExtend,
    Preserve,
}

/// Sub-dword addressing of a VOP1, VOP2 or VOPC instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sdwa {
    pub dst: Select,
    pub unused: Unused,
    pub src: [Select; 2],
    /// Whether the selected part is sign-extended, for each source.
    pub sext: [bool; 2],
}

/// Data-parallel primitives: the first source comes from another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpp {
    /// `dpp_ctrl`, 9 bits.
    pub control: u16,
    pub row_mask: u8,
    pub bank_mask: u8,
    pub bound_ctrl: bool,
}

/// Cache policy and addressing bits of a memory instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemoryBits {
    /// With an atomic, sc0 means that the old value is returned.
    pub sc0: bool,
    pub sc1: bool,
    pub nt: bool,
    /// MUBUF and MTBUF: the vector address has an offset, an index.
    pub offen: bool,
    pub idxen: bool,
    /// The loaded data goes straight into LDS.
    pub lds: bool,
    pub gds: bool,
    /// MTBUF: data format and number format, 7 bits.
    pub format: u8,
}

/// The fields that only matrix instructions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MatrixBits {
    pub cbsz: u8,
    pub abid: u8,
    pub blgp: u8,
    /// `v_mfma_scale_*`: the registers of the scales of A and B, and which byte of them, two bits each.
    pub scale: [Operand; 2],
    pub scale_byte: [u8; 2],
}

/// One decoded instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    pub row: &'static Row,
    /// The row's function, here to save a load.
    #[cfg(feature = "emulate")]
    pub execute: Execute,
    /// As it is encoded here: VOP3 for the long form of a VOP2 instruction.
    pub encoding: Encoding,
    /// Bytes of machine code.
    pub size: u8,
    pub dst: Operand,
    /// The scalar destination beside a vector one: VCC or the pair that VOP3 names. Comparisons write it as `dst`.
    pub sdst: Operand,
    /// S0, S1, S2 of the ISA document; the fourth is the mask of a carry or of `v_cndmask_b32` (VCC, or the pair that
    /// VOP3 names).
    ///
    /// Memory instructions: address (vector), data, second data (`ds_write2`, `cmpswap`); the fourth is the scalar
    /// base: `saddr` of global and scratch, `sbase` of SMEM, the resource of MUBUF. MUBUF and MTBUF: `soffset` is the
    /// third.
    pub src: [Operand; 4],
    /// Bit i: source i is negated. VOP3P: its low half.
    pub neg: u8,
    /// Bit i: the absolute value of source i.
    pub abs: u8,
    /// VOP3P: bit i: the high half of source i is negated.
    pub neg_hi: u8,
    /// Bit i: source i is in the upper 16 bits (VOP3P: for the low half); bit 3: so is the destination.
    pub op_sel: u8,
    /// VOP3P: bit i: the high half takes its source i from the upper half.
    pub op_sel_hi: u8,
    pub clamp: bool,
    /// Output modifier: 0 none, 1 times 2, 2 times 4, 3 divided by 2.
    pub omod: u8,
    pub sdwa: Option<Sdwa>,
    pub dpp: Option<Dpp>,
    /// SIMM16, sign-extended; the offset of a memory instruction in bytes; `offset0` of DS.
    pub imm: i32,
    /// `offset1` of DS; the second literal of `s_setreg_imm32_b32`.
    pub imm2: u32,
    pub memory: MemoryBits,
    pub matrix: MatrixBits,
    /// The machine code: `size` bytes, then zeros.
    pub words: [u32; 4],
    /// The registers that it names.
    pub uses: uses::Uses,
}

impl Inst {
    /// An instruction of a row without operands, modifiers and machine code.
    pub fn new(row: &'static Row, encoding: Encoding) -> Inst {
        Inst {
            row,
            #[cfg(feature = "emulate")]
            execute: row.execute,
            encoding,
            size: 0,
            dst: Operand::None,
            sdst: Operand::None,
            src: [Operand::None; 4],
            neg: 0,
            abs: 0,
            neg_hi: 0,
            op_sel: 0,
            op_sel_hi: 0,
            clamp: false,
            omod: 0,
            sdwa: None,
            dpp: None,
            imm: 0,
            imm2: 0,
            memory: MemoryBits::default(),
            matrix: MatrixBits::default(),
            words: [0; 4],
            uses: uses::Uses::default(),
        }
    }
}
